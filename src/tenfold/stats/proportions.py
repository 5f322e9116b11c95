"""Intervals of proportions, by patient.

It must not know which proportion it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tenfold.stats.roc import Z
from tenfold.stats.sample import BoolArray, Sample, by_patient, repeats_note, rest_on, unit
from tenfold.types import Estimate, FloatArray


def wilson(share: float, n: float) -> tuple[float, float]:
    """Return the 95 % score interval of a proportion (Wilson 1927).

    Args:
        share: The proportion.
        n: Trials; an effective number need not be whole.
    """
    spread = Z**2 / n
    middle = (share + spread / 2) / (1 + spread)
    half = Z / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    # Rounding must not leave a share of 0 or 1 outside its own interval.
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))


def effective_n(hits: FloatArray, trials: FloatArray) -> float:
    """Return how many independent cases the trials of clustered patients are worth.

    The design effect is the variance of the ratio estimator between patients over that of as many independent
    cases (Rao & Scott, Biometrics 1992). It is exactly 1 with one case a patient; below 1 it counts as 1.
    Where every answer is the same there is no variance to compare, and a patient counts once.

    Args:
        hits: (repeats, patients) successes of each patient.
        trials: (repeats, patients) trials of each patient; some in every repeat.
    """
    totals = trials.sum(axis=1, keepdims=True)
    shares = hits.sum(axis=1, keepdims=True) / totals
    patients, n, share = int((trials.sum(axis=0) > 0).sum()), float(totals.mean()), float(shares.mean())
    if share in (0.0, 1.0) or patients < 2 or n < 2:
        return float(patients)
    deviations = ((hits - shares * trials) / totals).mean(axis=0)
    variance = patients / (patients - 1) * float(deviations @ deviations)
    independent = share * (1 - share) / (n - 1)
    return n / max(1.0, variance / independent)


def proportion(
    samples: Sequence[Sample], hits: Sequence[BoolArray], counted: Sequence[BoolArray], patients: int
) -> Estimate:
    """Return a proportion, averaged over repeats, with its Wilson interval.

    Args:
        samples: One a repeat.
        hits: (n,) a repeat, True where a counted case is a success.
        counted: (n,) a repeat, True where the case counts; some in every repeat.
        patients: Patients of the whole table.
    """
    hit_sums, sums = (
        np.stack([by_patient(s.patient, m, patients) for s, m in zip(samples, masks, strict=True)])
        for masks in (hits, counted)
    )
    share = float((hit_sums.sum(axis=1) / sums.sum(axis=1)).mean())
    n, cases = rest_on(tuple(samples), list(counted))
    low, high = wilson(share, effective_n(hit_sums, sums))
    name = "Wilson"
    if n != cases or len(samples) > 1:
        name = "Wilson, effective n clustered by patient (Rao & Scott 1992)"
    return Estimate(share, low, high, f"{name}, 95 %{repeats_note(len(samples))}; {unit(n, cases)}", n)
