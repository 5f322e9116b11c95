"""From which probability on the answer is "yes": one explicit rule each.

It must not know which data it is given: choosing on inner data, and freezing, are the caller's part.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tenfold.errors import StatisticsError, nearest
from tenfold.stats.roc import require_both
from tenfold.stats.sample import BoolArray
from tenfold.types import FloatArray, OperatingPoint

Rule = Callable[[BoolArray, FloatArray, float], tuple[float, str]]


def choose(
    rule: str,
    positive: BoolArray,
    p: FloatArray,
    *,
    value: float | None = None,
    chosen_on: str = "inner validation part",
) -> OperatingPoint:
    """Choose an operating point.

    Cuts lie midway between neighbouring probabilities, so that rounding does not move a case across.

    Args:
        rule: A key of `RULES`.
        positive: (n,) True where the outcome is present.
        p: (n,) probability of it.
        value: Target sensitivity or specificity, threshold probability or fixed threshold; none for Youden.
        chosen_on: Which data these are, in words.

    Raises:
        StatisticsError: No such rule, a value missing or outside 0 to 1, or one class only.
    """
    if rule not in RULES:
        raise StatisticsError(f"no operating point rule '{rule}'", do=nearest(rule, RULES))
    if rule != "youden" and (value is None or not 0 < value <= 1 or (rule == "net_benefit" and value == 1)):
        raise StatisticsError(
            f"the operating point rule '{rule}' with the value {value}",
            expected="a number above 0 and below 1 (a target may be 1)",
        )
    threshold, words = RULES[rule](np.asarray(positive, bool), np.asarray(p, np.float64), value or 0.0)
    return OperatingPoint(threshold, words, len(p), chosen_on)


def _cuts(positive: BoolArray, p: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Every cut, ascending, from "all positive" to "none", with its sensitivity and specificity."""
    require_both(positive, "the operating point")
    levels = np.unique(p)
    cuts = np.concatenate([levels[:1], (levels[:-1] + levels[1:]) / 2, [np.nextafter(levels[-1], np.inf)]])
    high, low = np.sort(p[positive]), np.sort(p[~positive])
    sensitivity = 1 - np.searchsorted(high, cuts, "left") / len(high)
    specificity = np.searchsorted(low, cuts, "left") / len(low)
    return cuts, sensitivity, specificity


def _youden(positive: BoolArray, p: FloatArray, _: float) -> tuple[float, str]:
    """Largest sensitivity + specificity - 1; of several, the most sensitive."""
    cuts, sensitivity, specificity = _cuts(positive, p)
    # Rounded, so that ties are ties.
    best = int(np.argmax(np.round(sensitivity + specificity, 12)))
    return float(cuts[best]), "Youden's index (largest sensitivity + specificity)"


def _sensitivity(positive: BoolArray, p: FloatArray, target: float) -> tuple[float, str]:
    """Highest cut that still reaches the sensitivity."""
    cuts, sensitivity, _ = _cuts(positive, p)
    return float(cuts[np.flatnonzero(sensitivity >= target - 1e-12)[-1]]), f"sensitivity >= {target:g}"


def _specificity(positive: BoolArray, p: FloatArray, target: float) -> tuple[float, str]:
    """Lowest cut that reaches the specificity."""
    cuts, _, specificity = _cuts(positive, p)
    return float(cuts[np.flatnonzero(specificity >= target - 1e-12)[0]]), f"specificity >= {target:g}"


def _net_benefit(_: BoolArray, __: FloatArray, threshold: float) -> tuple[float, str]:
    """The threshold probability itself: where p is calibrated, no other cut has more net benefit."""
    return threshold, f"net benefit at a threshold probability of {threshold:g}"


def _fixed(_: BoolArray, __: FloatArray, threshold: float) -> tuple[float, str]:
    """A threshold set beforehand."""
    return threshold, f"fixed at {threshold:g}"


RULES: dict[str, Rule] = {
    "youden": _youden,
    "sensitivity": _sensitivity,
    "specificity": _specificity,
    "net_benefit": _net_benefit,
    "fixed": _fixed,
}
