"""How far what is predicted follows a score that was cut for the yes or no.

It must not know how predictions were made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from tenfold.stats import bootstrap
from tenfold.types import Estimate, FloatArray, IntArray, PredictionTable


def score_correlation(
    table: PredictionTable,
    scores: Mapping[str, float],
    *,
    positive: str,
    upwards: bool,
    bootstraps: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Pearson's correlation of a score with the log-odds of yes, with a percentile interval by patient.

    It is computed in each repeat and averaged. Log-odds, because the score is cut at one place only: a model that
    follows the score far from the cut is not punished for probabilities near 0 or 1.

    Args:
        table: Predictions of one arm in one split.
        scores: Case -> score, not a number where unknown.
        positive: The class whose probability is judged.
        upwards: Whether a higher score goes with yes; otherwise the sign is turned, so that more is better.
        bootstraps: Draws of patients.
        seed: Of the draws.

    Returns:
        The correlation; NaN where fewer than three patients have a score, or nothing varies.
    """
    value = np.array([scores.get(case, math.nan) for case in table.case.tolist()])
    known = ~np.isnan(value)
    p = np.clip(table.probability(positive)[known], 1e-6, 1 - 1e-6)
    x, y = np.log(p / (1 - p)) * (1 if upwards else -1), value[known]
    patients, index = np.unique(table.patient[known], return_inverse=True)
    repeats = table.repeat[known]
    groups = [np.flatnonzero(repeats == r) for r in np.unique(repeats)]
    if len(patients) < 3 or not groups:
        return Estimate(math.nan, math.nan, math.nan, "not defined: fewer than three patients", len(patients))
    ones = np.ones((1, len(patients)))
    found = _mean_correlation(x, y, index, groups, ones)[0]
    if math.isnan(found):
        return Estimate(math.nan, math.nan, math.nan, "not defined: nothing varies", len(patients))
    draws = bootstrap.draw(len(patients), bootstraps, seed).astype(np.float64)
    drawn = _mean_correlation(x, y, index, groups, draws)
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    method = f"Pearson, percentile bootstrap of patients ({bootstraps} draws)"
    method += f", mean of {len(groups)} repeats" if len(groups) > 1 else ""
    return Estimate(float(found), float(low), float(high), method, len(patients))


def _mean_correlation(
    x: FloatArray, y: FloatArray, patient: IntArray, groups: list[IntArray], weights: FloatArray
) -> FloatArray:
    """(draws,) weighted correlation, the mean over repeats."""
    found = []
    for rows in groups:
        w = weights[:, patient[rows]]
        total = w.sum(1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            a = x[rows] - (w @ x[rows])[:, None] / total
            b = y[rows] - (w @ y[rows])[:, None] / total
            spread = [_spread(w, values, rest) for values, rest in ((x[rows], a), (y[rows], b))]
            found.append((w * a * b).sum(1) / np.sqrt(spread[0] * spread[1]))
    return np.asarray(np.mean(found, axis=0))


def _spread(weights: FloatArray, values: FloatArray, rest: FloatArray) -> FloatArray:
    """(draws,) sum of squares around the mean; NaN where nothing but rounding is left of it."""
    squares = (weights * rest * rest).sum(1)
    return np.where(squares > 1e-12 * (weights * values * values).sum(1), squares, math.nan)
