"""Groups of patients described against each other, one variable at a time: Table 2, and no more than description.

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
from scipy.stats import (
    MonteCarloMethod,
    chi2_contingency,
    fisher_exact,
    kruskal,
    mannwhitneyu,
    ncx2,
    permutation_test,
    rankdata,
)

from tenfold.errors import StatisticsError, nearest
from tenfold.stats import bootstrap, roc
from tenfold.stats.sample import BoolArray
from tenfold.types import Estimate, FloatArray, IntArray, StrArray, finite_or_none

Values = Sequence[Any] | NDArray[Any]

KINDS = ("number", "ordered", "category", "yes_no")
DELTA, EPSILON, CRAMER = "Cliff's delta", "epsilon squared", "Cramér's V"
_FEWEST_EXPECTED, _FEWEST_RANKED, _DRAWS, _BOOTSTRAPS = 5, 5, 9999, 1000


@dataclass(frozen=True)
class GroupTest:
    """One variable in two groups or more.

    Attributes:
        kind: "number", "ordered", "category" or "yes_no".
        test: Its name and why it was taken, or why there is none.
        statistic: U, H, chi-square, or the odds ratio of Fisher's test; NaN where there is none.
        p: Two-sided, for this variable alone; NaN where there is no test.
        effect_name: "Cliff's delta" (chance that a member of the group lies above one outside it, less that of the
            reverse; also the rank-biserial correlation), "epsilon squared" (share of the variance of the ranks that
            lies between the groups) or "Cramér's V".
        effect: It, with its interval.
        n: Cases whose value is known, in the group and outside it, or in each named group, names sorted.
    """

    kind: str
    test: str
    statistic: float
    p: float
    effect_name: str
    effect: Estimate
    n: tuple[int, ...]

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


def compare_groups(values: Values, group: BoolArray | StrArray, kind: str) -> GroupTest:
    """Compare a variable between a group and the rest, or between named groups, one case a patient.

    Numbers and ordered levels by Mann-Whitney, or Kruskal-Wallis between named groups, whatever they look like: these
    need no normal distribution, and a test of normality beforehand would spoil the p. Categories by chi-square, or
    exactly where that is too coarse.

    Args:
        values: (n,) numbers (index of the level where ordered), NaN where missing; of a category also text, empty
            where missing.
        group: (n,) True for members of the group; or its name, empty where unknown.
        kind: One of `KINDS`.

    Raises:
        StatisticsError: No such kind, text that should be numbers, or columns of different lengths.
    """
    if kind not in KINDS:
        raise StatisticsError(f"no kind of variable '{kind}'", do=nearest(kind, KINDS))
    column, member = np.asarray(values), np.asarray(group)
    if column.shape != member.shape or column.ndim != 1:
        raise StatisticsError(
            f"{column.shape} values for a group of shape {member.shape}", expected="one value and one group a case"
        )
    ranked = kind in ("number", "ordered")
    if ranked and column.dtype.kind not in "biuf":
        raise StatisticsError(f"text where a {kind} variable needs numbers", expected="numbers, NaN where missing")
    place, groups = _places(member)
    known = (place >= 0) & _known(column)
    column, place = column[known], place[known]
    n = tuple(np.bincount(place, minlength=groups).tolist())
    two = member.dtype.kind not in "OUST"
    name = CRAMER if not ranked else DELTA if two else EPSILON
    why = "one group has no known value" if min(n, default=0) == 0 else "all known values are alike"
    why = "there is one group only" if groups < 2 else why
    if min(n, default=0) == 0 or groups < 2 or len(np.unique(column)) < 2:
        nothing = Estimate(math.nan, math.nan, math.nan, f"not defined: {why}; n = cases", sum(n))
        return GroupTest(kind, f"no test: {why}", math.nan, math.nan, name, nothing, n)
    if not ranked:
        return _counts(kind, np.unique(column, return_inverse=True)[1], place, n)
    numbers = column.astype(np.float64)
    return _ranks(kind, numbers, place == 0, n) if two else _many_ranks(kind, numbers, place, n)


def _places(member: NDArray[Any]) -> tuple[IntArray, int]:
    """(n,) index of the group, -1 where unknown, and how many there are; of a yes or no the members come first."""
    if member.dtype.kind not in "OUST":
        return np.where(member.astype(bool), 0, 1), 2
    names = sorted(set(member.astype(str).tolist()) - {""})
    index = {name: i for i, name in enumerate(names)}
    return np.array([index.get(str(name), -1) for name in member.tolist()], np.int64), len(names)


def _known(column: NDArray[Any]) -> BoolArray:
    """(n,) where a value is neither empty nor NaN."""
    if column.dtype.kind in "biuf":
        return np.asarray(~np.isnan(column.astype(np.float64)))
    return np.asarray(column.astype(str) != "")


def _ranks(kind: str, values: FloatArray, member: BoolArray, n: tuple[int, ...]) -> GroupTest:
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


def _many_ranks(kind: str, values: FloatArray, place: IntArray, n: tuple[int, ...]) -> GroupTest:
    """Kruskal-Wallis, and epsilon squared (Tomczak & Tomczak 2014)."""
    ranks = rankdata(values)
    found = kruskal(*(values[place == g] for g in range(len(n))))
    p, how = float(found.pvalue), "chi-square approximation"
    if min(n) < _FEWEST_RANKED:
        p, how = _permuted(ranks, place, len(n)), f"by permutation, only {min(n)} cases in a group"
    test = f"Kruskal-Wallis, {how}: needs no normal distribution"
    return GroupTest(kind, test, float(found.statistic), p, EPSILON, _epsilon(values, place, n), n)


def _permuted(ranks: FloatArray, place: IntArray, groups: int) -> float:
    """Share of the divisions into groups of these sizes whose mean ranks differ as much."""

    def between(*parts: FloatArray, axis: int) -> FloatArray:
        return np.asarray(sum(part.sum(axis=axis) ** 2 / part.shape[axis] for part in parts))

    found = permutation_test(
        [ranks[place == g] for g in range(groups)],
        between,
        vectorized=True,
        n_resamples=_DRAWS,
        batch=max(1, 2**20 // len(ranks)),
        alternative="greater",
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)


def _epsilon(values: FloatArray, place: IntArray, n: tuple[int, ...]) -> Estimate:
    """Epsilon squared with the percentiles of a bootstrap of cases, less what chance adds to every draw.

    Without any difference it is (groups - 1) / (n - 1) on average and never below 0: plain percentiles would never
    hold the truth. The subtrahend is that of the unbiased form (Kelley 1935).
    """
    size, order = sum(n), np.argsort(values, kind="stable")
    starts = np.append(0, np.flatnonzero(np.diff(values[order])) + 1)
    of_group = np.eye(len(n))[place[order]]
    value = float(_epsilons(np.ones((1, size)), starts, of_group)[0])
    draws = bootstrap.draw(size, _BOOTSTRAPS, 0)
    step = max(1, 2**20 // size)
    drawn = np.concatenate([_epsilons(draws[i : i + step], starts, of_group) for i in range(0, _BOOTSTRAPS, step)])
    chance = (1 - value) * (len(n) - 1) / max(1, size - len(n))
    low, high, method = bootstrap.percentile_ends(drawn)
    if math.isfinite(low):
        low, high = max(0.0, min(value, low - chance)), max(value, high - chance)
        method = method.replace("percentile", "percentile less the share that chance adds")
    return Estimate(value, low, high, f"{method}; n = cases", size)


def _epsilons(weights: NDArray[Any], starts: IntArray, of_group: FloatArray) -> FloatArray:
    """Epsilon squared in every draw; NaN where a group was lost, or all values are alike.

    Args:
        weights: (draws, n) how often each case was drawn, cases in the order of their values.
        starts: Where each run of equal values begins.
        of_group: (n, groups) 1 where a case is of the group.
    """
    ties = np.add.reduceat(weights, starts, axis=1).astype(np.float64)
    total = ties.sum(axis=1)
    middle = np.cumsum(ties, axis=1) - ties / 2 - (total / 2)[:, None]
    each = weights * np.repeat(middle, np.diff(np.append(starts, weights.shape[1])), axis=1)
    spread = (ties * middle**2).sum(axis=1)
    sizes = weights @ of_group
    between = ((each @ of_group) ** 2 / np.where(sizes > 0, sizes, np.nan)).sum(axis=1)
    return np.asarray(between / np.where(spread > 0, spread, np.nan))


def _counts(kind: str, level: IntArray, place: IntArray, n: tuple[int, ...]) -> GroupTest:
    """Chi-square or Fisher, and Cramér's V."""
    levels = int(level.max()) + 1
    table = np.stack([np.bincount(level[place == g], minlength=levels) for g in range(len(n))])
    chi = chi2_contingency(table, correction=False)
    statistic, p = float(chi.statistic), float(chi.pvalue)
    least = float(np.min(chi.expected_freq))
    test = f"chi-square without correction: at least {_FEWEST_EXPECTED} cases expected in every cell"
    if least < _FEWEST_EXPECTED:
        test, statistic, p = _exact(table)
        test += f": only {least:.1f} cases expected in a cell"
    return GroupTest(kind, test, statistic, p, CRAMER, _cramer(float(chi.statistic), table), n)


def _exact(table: NDArray[Any]) -> tuple[str, float, float]:
    """Fisher's test; beyond two by two by drawing tables with these margins (Freeman & Halton 1951)."""
    if table.shape == (2, 2):
        ratio, p = fisher_exact(table)
        return "Fisher, exact", float(ratio), float(p)
    drawing = MonteCarloMethod(n_resamples=_DRAWS, rng=np.random.default_rng(0))
    p = fisher_exact(table, method=drawing).pvalue
    return f"Fisher-Freeman-Halton, {_DRAWS} drawn tables", math.nan, float(p)


def _cramer(statistic: float, table: NDArray[Any]) -> Estimate:
    """Cramér's V with the noncentral chi-squares that the statistic is compatible with (Smithson 2003).

    Where the statistic lies below what chance gives on average, the upper end is that of the average: the
    groups being more alike than chance makes them is no proof that they are alike.
    """
    n, largest = int(table.sum()), min(table.shape) - 1
    freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
    low = _noncentrality(statistic, freedom, 0.975)
    high = max(_noncentrality(max(statistic, freedom), freedom, 0.025), statistic)
    value, least, most = (math.sqrt(min(1.0, x / (n * largest))) for x in (statistic, low, high))
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
