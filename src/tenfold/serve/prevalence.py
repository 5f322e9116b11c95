"""Predictive values at a prevalence of one's own, with the uncertainty of sensitivity and specificity carried through.

It must not know models or patients.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from tenfold.errors import StatisticsError
from tenfold.types import Estimate


def ppv(sensitivity: Estimate, specificity: Estimate, prevalence: float) -> Estimate:
    """Return the share of those above the threshold who have the outcome, by Bayes' rule.

    It grows with both, so the ends of their intervals are taken together: the lower with the lower, the higher with the
    higher. The interval is therefore conservative: wider than one of 95 %.

    Args:
        sensitivity: At the threshold.
        specificity: At the same threshold.
        prevalence: Share of patients who have the outcome, from 0 to 1; taken as exact.

    Returns:
        NaN where nobody would be above the threshold.

    Raises:
        StatisticsError: The prevalence is none.
    """
    return _both(sensitivity, specificity, prevalence, _ppv)


def npv(sensitivity: Estimate, specificity: Estimate, prevalence: float) -> Estimate:
    """Return the share of those below the threshold who do not have the outcome; otherwise as `ppv`."""
    return _both(sensitivity, specificity, prevalence, _npv)


def _both(
    sensitivity: Estimate, specificity: Estimate, prevalence: float, rule: Callable[[float, float, float], float]
) -> Estimate:
    if not 0 <= prevalence <= 1:
        raise StatisticsError(f"a prevalence of {prevalence}", expected="a share from 0 to 1")
    ends = zip(_ends(sensitivity), _ends(specificity), strict=True)
    value, low, high = (rule(a, b, prevalence) for a, b in ends)
    method = (
        f"Bayes' rule at a prevalence of {prevalence:.1%}, taken as exact; lower ends of both intervals combined, and "
        f"higher ends, which is conservative (sensitivity: {sensitivity.method})"
    )
    return Estimate(value, low, high, method, min(sensitivity.n, specificity.n))


def _ends(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high


def _ppv(sensitivity: float, specificity: float, prevalence: float) -> float:
    right, wrong = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
    return right / (right + wrong) if right + wrong > 0 else math.nan


def _npv(sensitivity: float, specificity: float, prevalence: float) -> float:
    right, wrong = specificity * (1 - prevalence), (1 - sensitivity) * prevalence
    return right / (right + wrong) if right + wrong > 0 else math.nan
