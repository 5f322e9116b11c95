"""How far readers agree, whatever the truth.

It must not know the truth, nor that one of the readers may be a machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import f, t

from tenfold.errors import StatisticsError, nearest
from tenfold.stats.roc import Z
from tenfold.types import Estimate, FloatArray

_NO_VARIANCE = 1e-14

# Disagreement of two answers by their rank among the answers given.
WEIGHTS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "none": lambda steps: (steps != 0).astype(np.float64),
    "linear": np.abs,
    "quadratic": np.square,
}


def cohen_kappa(first: FloatArray, second: FloatArray, *, weights: str = "none") -> Estimate:
    """Return the agreement of two readers beyond chance, Cohen's kappa, plain or weighted by rank.

    The interval is that of Fleiss, Cohen & Everitt (Psychol Bull 1969), cases independent.

    Args:
        first: (cases,) answers; numbers, in ascending order where weighted.
        second: (cases,) answers to the same cases.
        weights: "none", "linear" or "quadratic".

    Raises:
        StatisticsError: The readers answered different numbers of cases, an answer is missing, or the weights are
            unknown.
    """
    if weights not in WEIGHTS:
        raise StatisticsError(f"no weights '{weights}' of kappa", do=nearest(weights, WEIGHTS))
    answers = _complete([first, second])
    n = answers.shape[1]
    levels, rank = np.unique(answers, return_inverse=True)
    one, two = rank.reshape(answers.shape)
    places = np.arange(len(levels), dtype=np.float64)
    cost = WEIGHTS[weights](places[:, None] - places)
    of_one, of_two = (np.bincount(x, minlength=len(levels)) / n for x in (one, two))
    observed, expected = float(cost[one, two].mean()), float(of_one @ cost @ of_two)
    what = "Cohen's kappa" if weights == "none" else f"Cohen's kappa, {weights} weights"
    if expected < _NO_VARIANCE:
        return _undefined(f"{what}: both gave the same answer to every case", n)
    kappa = 1 - observed / expected
    # what each case adds to observed / expected, to first order
    pull = cost[one, two] / expected - observed / expected**2 * ((cost @ of_two)[one] + (cost.T @ of_one)[two])
    half = Z * math.sqrt(float(pull.var()) / n)
    method = f"{what}, Fleiss-Cohen-Everitt 1969, 95 %; n = cases"
    return Estimate(kappa, max(-1.0, kappa - half), min(1.0, kappa + half), method, n)


def fleiss_kappa(ratings: FloatArray) -> Estimate:
    """Return the agreement of several readers beyond chance (Fleiss, Psychol Bull 1971), answers unordered.

    The interval speaks of cases like these, with these readers: Gwet's variance (Br J Math Stat Psychol 2008) and
    Student's t.

    Args:
        ratings: (readers, cases) answers; every different number is a category of its own.

    Raises:
        StatisticsError: Fewer than two readers or two cases, or an answer is missing.
    """
    answers = _complete(ratings)
    r, n = answers.shape
    levels = np.unique(answers)
    counts = (answers.T[:, :, None] == levels).sum(axis=1).astype(np.float64)
    agreed = (counts * (counts - 1)).sum(axis=1) / (r * (r - 1))
    share = counts.mean(axis=0) / r
    by_chance = float(share @ share)
    if 1 - by_chance < _NO_VARIANCE:
        return _undefined("Fleiss' kappa: all gave the same answer to every case", n)
    kappa = (float(agreed.mean()) - by_chance) / (1 - by_chance)
    of_case = (agreed - by_chance) / (1 - by_chance)
    of_case -= 2 * (1 - kappa) * (counts @ share / r - by_chance) / (1 - by_chance)
    half = float(t.ppf(0.975, n - 1)) * math.sqrt(float(of_case.var(ddof=1)) / n)
    method = f"Fleiss' kappa of {r} readers, Gwet 2008 with t, 95 %; n = cases"
    return Estimate(kappa, max(-1.0, kappa - half), min(1.0, kappa + half), method, n)


def icc(ratings: FloatArray) -> dict[str, Estimate]:
    """Return the six intraclass correlations (Shrout & Fleiss 1979), intervals by McGraw & Wong (1996).

    Args:
        ratings: (readers, cases).

    Returns:
        "ICC1" (each case read by other readers), "ICC2" (readers a random sample, absolute agreement), "ICC3" (these
        readers, consistency), and "ICC1k", "ICC2k", "ICC3k", the same of the readers' mean.

    Raises:
        StatisticsError: Fewer than two readers or two cases, or a rating is missing.
    """
    x = _complete(ratings).T
    n, k = x.shape
    case, reader, grand = x.mean(axis=1), x.mean(axis=0), float(x.mean())
    between = k * float(((case - grand) ** 2).sum()) / (n - 1)
    readers = n * float(((reader - grand) ** 2).sum()) / (k - 1)
    within = float(((x - case[:, None]) ** 2).sum()) / (n * (k - 1))
    error = float(((x - case[:, None] - reader + grand) ** 2).sum()) / ((n - 1) * (k - 1))
    single = {
        "ICC1": _one_way(between, within, n * (k - 1), n, k),
        "ICC2": _agreement(between, readers, error, n, k),
        "ICC3": _one_way(between, error, (n - 1) * (k - 1), n, k),
    }
    mean = {f"{name}k": tuple(_of_mean(value, k) for value in values) for name, values in single.items()}
    return {name: _icc_estimate(name, values, n, k) for name, values in (single | mean).items()}


def _one_way(between: float, rest: float, df: int, n: int, k: int) -> tuple[float, ...]:
    """Correlation, and its ends, from the ratio of two mean squares."""
    if between + rest < _NO_VARIANCE:
        return math.nan, math.nan, math.nan
    value = (between - rest) / (between + (k - 1) * rest)
    if rest < _NO_VARIANCE:
        return value, math.nan, math.nan
    ratio = between / rest
    ends = ratio / float(f.ppf(0.975, n - 1, df)), ratio * float(f.ppf(0.975, df, n - 1))
    return value, *((end - 1) / (end + k - 1) for end in ends)


def _agreement(between: float, readers: float, error: float, n: int, k: int) -> tuple[float, ...]:
    """Absolute agreement of single ratings, readers random: Satterthwaite's degrees of freedom for the ends."""
    total = between + (k - 1) * error + k * (readers - error) / n
    if total < _NO_VARIANCE:
        return math.nan, math.nan, math.nan
    value = (between - error) / total
    if error < _NO_VARIANCE:
        return value, math.nan, math.nan
    a = k * value / (n * (1 - value))
    b = 1 + k * value * (n - 1) / (n * (1 - value))
    df = (a * readers + b * error) ** 2 / ((a * readers) ** 2 / (k - 1) + (b * error) ** 2 / ((n - 1) * (k - 1)))
    noise = k * readers + (k * n - k - n) * error
    down, up = float(f.ppf(0.975, n - 1, df)), float(f.ppf(0.975, df, n - 1))
    low = n * (between - down * error) / (down * noise + n * between)
    high = n * (up * between - error) / (noise + n * up * between)
    return value, low, high


def _of_mean(single: float, k: int) -> float:
    """Correlation of the mean of k readers (Spearman-Brown); minus infinity below the least possible."""
    share = 1 + (k - 1) * single
    return k * single / share if not share <= 0 else -math.inf


def _icc_estimate(name: str, values: tuple[float, ...], n: int, k: int) -> Estimate:
    """Wrap a correlation and its ends."""
    value, low, high = values
    if math.isnan(value):
        return _undefined(f"{name}: all ratings are the same", n)
    how = "no interval: nothing varies between readers" if math.isnan(low) else "McGraw & Wong 1996, 95 %"
    return Estimate(value, low, high, f"{name} of {k} readers, {how}; n = cases", n)


def _complete(ratings: Sequence[FloatArray] | FloatArray) -> FloatArray:
    """Check that every reader answered every case, (readers, cases)."""
    rows = [np.asarray(row, np.float64) for row in ratings]
    if len(rows) < 2 or len({len(row) for row in rows}) > 1 or len(rows[0]) < 2:
        raise StatisticsError(
            f"{len(rows)} readers with {', '.join(str(len(row)) for row in rows)} cases",
            expected="two or more readers of the same two or more cases",
        )
    found = np.stack(rows)
    if not np.isfinite(found).all():
        raise StatisticsError(
            f"{int((~np.isfinite(found)).sum())} ratings are missing",
            expected="every reader rated every case",
            do="keep the cases that all of them rated",
        )
    return found


def _undefined(why: str, n: int) -> Estimate:
    """No value, and why."""
    return Estimate(math.nan, math.nan, math.nan, f"not defined: {why}; n = cases", n)
