"""Global importance: what the attributions of many cases add up to, and whether the folds agree on it.

It must not know how the attributions were made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import rankdata

from tenfold.errors import StatisticsError
from tenfold.types import Estimate, FloatArray


@dataclass(frozen=True)
class Importance:
    """How much each feature moves predictions.

    Attributes:
        features: By name: mean over folds of the mean |attribution| over the fold's cases; low and high are the
            lowest and the highest fold. Most important first.
        stability: Mean Spearman correlation between the folds' rankings; low and high are the least and the most
            alike pair; NaN with a single fold.
    """

    features: dict[str, Estimate]
    stability: Estimate

    def to_dict(self) -> dict[str, Any]:
        """Return a mapping fit for JSON."""
        rows = [{"feature": name, "mean": e.value, "low": e.low, "high": e.high} for name, e in self.features.items()]
        return {
            "features": rows,
            "method": next((e.method for e in self.features.values()), ""),
            "stability": self.stability.to_dict(),
        }


def global_importance(attributions: Sequence[FloatArray], features: Sequence[str]) -> Importance:
    """Sum up attributions over cases and compare the folds.

    Each fold has its own network, so its figures come from cases that this network had not seen. The folds'
    networks share training patients: the range over folds shows how far they agree and is no interval.

    Args:
        attributions: One (cases, features) a fold; rows with NaN (a case without a table) are left out.
        features: Their names.

    Raises:
        StatisticsError: There is no fold, a fold has no attributed case, or the names do not fit.
    """
    kept = [a[~np.isnan(a).any(axis=1)] for a in attributions]
    if not kept or any(len(a) == 0 or a.shape[1] != len(features) for a in kept):
        shapes = ", ".join(str(a.shape) for a in kept) or "no folds"
        raise StatisticsError(
            f"attributions of {shapes} for {len(features)} features",
            expected="one (cases, features) a fold, with a case at least that has the table",
        )
    folds = np.stack([np.abs(a).mean(axis=0) for a in kept])
    method = f"mean |attribution|; mean, lowest and highest of {len(folds)} folds, n = cases"
    n = sum(map(len, kept))
    order = np.argsort(-folds.mean(axis=0), kind="stable")
    estimates = {
        features[j]: Estimate(float(folds[:, j].mean()), float(folds[:, j].min()), float(folds[:, j].max()), method, n)
        for j in order
    }
    return Importance(estimates, _stability(folds))


def _stability(folds: FloatArray) -> Estimate:
    pairs = [_spearman(a, b) for a, b in combinations(folds, 2)]
    method = "mean Spearman correlation of two folds' rankings; least and most alike pair, n = folds"
    if not pairs:
        return Estimate(np.nan, np.nan, np.nan, method, len(folds))
    return Estimate(float(np.mean(pairs)), float(np.min(pairs)), float(np.max(pairs)), method, len(folds))


def _spearman(a: FloatArray, b: FloatArray) -> float:
    """Rank correlation; NaN where one of them is flat, for it has no order."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def sum_by_column(attributions: FloatArray, column_of: Sequence[int]) -> FloatArray:
    """Add up the features that come from one column, such as the levels of a category.

    Args:
        attributions: (n, features).
        column_of: (features,) index of each feature's column.

    Returns:
        (n, columns); what is additive stays so.
    """
    belongs = np.asarray(column_of)[:, None] == np.arange(max(column_of) + 1)
    return np.asarray(attributions @ belongs.astype(np.float64))
