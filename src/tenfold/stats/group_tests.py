"""Two groups of patients described against each other, one variable at a time: Table 2, and no more than description.

It must not know cohorts or columns, nor be used to choose what a model sees: that choice belongs inside the folds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import MonteCarloMethod, chi2_contingency, fisher_exact, mannwhitneyu, ncx2

from tenfold.errors import StatisticsError, nearest
from tenfold.stats import roc
from tenfold.stats.sample import BoolArray
from tenfold.types import Estimate, FloatArray, IntArray, finite_or_none

Values = Sequence[Any] | NDArray[Any]

KINDS = ("number", "ordered", "category", "yes_no")
DELTA, CRAMER = "Cliff's delta", "Cramér's V"
_FEWEST_EXPECTED, _DRAWS = 5, 9999


@dataclass(frozen=True)
class GroupTest:
    """One variable in two groups.

    Attributes:
        kind: "number", "ordered", "category" or "yes_no".
        test: Its name and why it was taken, or why there is none.
        statistic: U, chi-square, or the odds ratio of Fisher's test; NaN where there is none.
        p: Two-sided, for this variable alone; NaN where there is no test.
        effect_name: "Cliff's delta" (chance that a member of the group lies above one outside it, less that of the
            reverse; also the rank-biserial correlation) or "Cramér's V".
        effect: It, with its interval.
        n: Cases whose value is known, in the group and outside it.
    """

    kind: str
    test: str
    statistic: float
    p: float
    effect_name: str
    effect: Estimate
    n: tuple[int, int]

    def to_dict(self) -> dict[str, Any]:
        """Return a mapping fit for JSON, NaN written as null."""
        return {
            "kind": self.kind,
            "test": self.test,
            "statistic": finite_or_none(self.statistic),
            "p": finite_or_none(self.p),
            "effect_name": self.effect_name,
            "effect": self.effect.to_dict(),
            "n": list(self.n),
        }


def compare_groups(values: Values, group: BoolArray, kind: str) -> GroupTest:
    """Compare a variable between a group and the rest, one case a patient.

    Numbers and ordered levels by Mann-Whitney, whatever they look like: it needs no normal distribution, and a
    test of normality beforehand would spoil the p. Categories by chi-square, or exactly where that is too coarse.

    Args:
        values: (n,) numbers (index of the level where ordered), NaN where missing; of a category also text, empty
            where missing.
        group: (n,) True for members of the group.
        kind: One of `KINDS`.

    Raises:
        StatisticsError: No such kind, text that should be numbers, or columns of different lengths.
    """
    if kind not in KINDS:
        raise StatisticsError(f"no kind of variable '{kind}'", do=nearest(kind, KINDS))
    column, member = np.asarray(values), np.asarray(group, bool)
    if column.shape != member.shape or column.ndim != 1:
        raise StatisticsError(
            f"{column.shape} values for a group of shape {member.shape}", expected="one value and one yes or no a case"
        )
    ranked = kind in ("number", "ordered")
    if ranked and column.dtype.kind not in "biuf":
        raise StatisticsError(f"text where a {kind} variable needs numbers", expected="numbers, NaN where missing")
    text = column.dtype.kind not in "biuf"
    known = column.astype(str) != "" if text else ~np.isnan(column.astype(np.float64))
    column, member = column[known], member[known]
    n = (int(member.sum()), int((~member).sum()))
    name = DELTA if ranked else CRAMER
    why = "one group has no known value" if min(n) == 0 else "all known values are alike"
    if min(n) == 0 or len(np.unique(column)) < 2:
        nothing = Estimate(math.nan, math.nan, math.nan, f"not defined: {why}; n = cases", sum(n))
        return GroupTest(kind, f"no test: {why}", math.nan, math.nan, name, nothing, n)
    if ranked:
        return _ranks(kind, column.astype(np.float64), member, n)
    return _counts(kind, np.unique(column, return_inverse=True)[1], member, n)


def _ranks(kind: str, values: FloatArray, member: BoolArray, n: tuple[int, int]) -> GroupTest:
    """Mann-Whitney, and Cliff's delta, which is 2 AUC - 1 and has DeLong's interval."""
    ties = len(np.unique(values)) < len(values)
    exact = not ties and min(n) <= 8
    found = mannwhitneyu(values[member], values[~member], method="exact" if exact else "asymptotic")
    how = "exact, no ties" if exact else f"normal approximation{', corrected for ties' if ties else ''}"
    area = roc.auc_interval(member, values)
    method = area.method.replace("n = patients, one case each", "n = cases")
    effect = Estimate(2 * area.value - 1, 2 * area.low - 1, 2 * area.high - 1, method, area.n)
    test = f"Mann-Whitney, {how}: needs no normal distribution"
    return GroupTest(kind, test, float(found.statistic), float(found.pvalue), DELTA, effect, n)


def _counts(kind: str, level: IntArray, member: BoolArray, n: tuple[int, int]) -> GroupTest:
    """Chi-square or Fisher, and Cramér's V."""
    table = np.stack([np.bincount(level[m], minlength=int(level.max()) + 1) for m in (member, ~member)])
    chi = chi2_contingency(table, correction=False)
    statistic, p = float(chi.statistic), float(chi.pvalue)
    least = float(np.min(chi.expected_freq))
    test = f"chi-square without correction: at least {_FEWEST_EXPECTED} cases expected in every cell"
    if least < _FEWEST_EXPECTED:
        test, statistic, p = _exact(table)
        test += f": only {least:.1f} cases expected in a cell"
    return GroupTest(kind, test, statistic, p, CRAMER, _cramer(float(chi.statistic), table.shape[1] - 1, sum(n)), n)


def _exact(table: NDArray[Any]) -> tuple[str, float, float]:
    """Fisher's test; with more than two levels by drawing tables with these margins (Freeman & Halton 1951)."""
    if table.shape[1] == 2:
        ratio, p = fisher_exact(table)
        return "Fisher, exact", float(ratio), float(p)
    drawing = MonteCarloMethod(n_resamples=_DRAWS, rng=np.random.default_rng(0))
    p = fisher_exact(table, method=drawing).pvalue
    return f"Fisher-Freeman-Halton, {_DRAWS} drawn tables", math.nan, float(p)


def _cramer(statistic: float, freedom: int, n: int) -> Estimate:
    """Cramér's V in two groups, with the noncentral chi-squares that the statistic is compatible with (Smithson 2003).

    Where the statistic lies below what chance gives on average, the upper end is that of the average: the
    groups being more alike than chance makes them is no proof that they are alike.
    """
    low = _noncentrality(statistic, freedom, 0.975)
    high = max(_noncentrality(max(statistic, freedom), freedom, 0.025), statistic)
    value, least, most = (math.sqrt(min(1.0, x / n)) for x in (statistic, low, high))
    return Estimate(value, least, most, "noncentral chi-square, 95 %; n = cases", n)


def _noncentrality(statistic: float, freedom: int, below: float) -> float:
    """The noncentrality with which a share `below` of all statistics would be smaller than this one; at least 0."""

    def miss(noncentrality: float) -> float:
        return float(ncx2.cdf(statistic, freedom, noncentrality)) - below

    tiny = 1e-9
    if miss(tiny) <= 0:
        return 0.0
    return float(brentq(miss, tiny, 4 * statistic + 100))


def benjamini_hochberg(p: Sequence[float]) -> list[float]:
    """Adjust p so that at most that share of the findings is expected to be false (Benjamini & Hochberg 1995).

    Args:
        p: Unadjusted, any order; NaN stays NaN and does not count.
    """
    adjusted, least = [math.nan] * len(p), 1.0
    tested = sorted(((value, i) for i, value in enumerate(p) if not math.isnan(value)), reverse=True)
    for rank, (value, i) in zip(range(len(tested), 0, -1), tested, strict=True):
        least = min(least, value * len(tested) / rank)
        adjusted[i] = least
    return adjusted
