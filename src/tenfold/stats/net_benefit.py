"""Net benefit (Vickers & Elkin 2006): true positives less the harm of false ones, a case.

It must not know how a threshold probability was chosen.
"""

from __future__ import annotations

import numpy as np

from tenfold.errors import StatisticsError
from tenfold.stats.bootstrap import Measure
from tenfold.stats.sample import BoolArray, Sample
from tenfold.types import FloatArray


def contributions(positive: BoolArray, treated: BoolArray, threshold: float) -> FloatArray:
    """Return what each case adds: 1 if rightly treated, minus the odds of the threshold if wrongly, else 0.

    Args:
        positive: (n,) True where the outcome is present.
        treated: (n,) True where the case would be treated.
        threshold: Threshold probability, above 0 and below 1.

    Raises:
        StatisticsError: The threshold is not between 0 and 1.
    """
    if not 0 < threshold < 1:
        raise StatisticsError(f"a threshold probability of {threshold:g}", expected="a number between 0 and 1")
    return np.asarray(treated * np.where(positive, 1.0, -threshold / (1 - threshold)))


def net_benefit(positive: BoolArray, p: FloatArray, threshold: float) -> float:
    """Return the net benefit of treating where the probability is at least the threshold.

    Args:
        positive: (n,) True where the outcome is present.
        p: (n,) probability of it.
        threshold: Threshold probability, above 0 and below 1.

    Raises:
        StatisticsError: The threshold is not between 0 and 1.
    """
    return float(contributions(positive, p >= threshold, threshold).mean())


def treat_all(positive: BoolArray, threshold: float) -> float:
    """Return the net benefit of treating everybody; treating nobody has 0."""
    return float(contributions(positive, np.ones(len(positive), bool), threshold).mean())


def interventions_avoided(positive: BoolArray, p: FloatArray, threshold: float) -> float:
    """Return the net share of interventions avoided against treating everybody."""
    gain = net_benefit(positive, p, threshold) - treat_all(positive, threshold)
    return gain * (1 - threshold) / threshold


def measured(sample: Sample) -> Measure:
    """Net benefit at the sample's threshold probability."""
    if not 0 < sample.treat_at < 1:
        return lambda weights: np.full(len(weights), np.nan)
    added = contributions(sample.positive, sample.p >= sample.treat_at, sample.treat_at)
    return lambda weights: np.asarray(weights @ added / weights.sum(axis=1))
