"""Turns one column into the features it stands for, and says how they are scaled.

It must not know the other columns, labels or folds: whoever fits passes training rows only.
"""

from __future__ import annotations

import numpy as np

from tenfold.modalities.columns import Column
from tenfold.types import FloatArray

_WORDS = ("category", "yes_no")


def feature_names(column: Column) -> tuple[str, ...]:
    """One name a feature: the column's, of a category one a level ("sex=female")."""
    if column.kind == "category":
        return tuple(f"{column.name}={level}" for level in column.levels)
    return (column.name,)


def count_known(column: Column) -> int:
    """Say how many entries `known_levels` has for a column."""
    return len(column.levels) if column.kind in _WORDS else 1


def known_levels(column: Column, values: FloatArray) -> tuple[bool, ...]:
    """Say of a category or yes/no which levels the values hold; of another kind whether they hold any."""
    if column.kind in _WORDS:
        return tuple(bool((values == i).any()) for i in range(len(column.levels)))
    return (bool((~np.isnan(values)).any()),)


def expand(column: Column, values: FloatArray, known: tuple[bool, ...]) -> FloatArray:
    """Return the features of a column before scaling.

    Args:
        column: What the values are.
        values: (n,) NaN where missing.
        known: Of `known_levels` of the training rows; what was not known counts as missing.

    Returns:
        (n, features), NaN where missing: the (transformed) number, the place of an ordered level, 0 or 1 for yes/no,
        0 or 1 for each level of a category.
    """
    values = np.array(values, np.float64)
    if column.kind not in _WORDS:
        values[:] = values if known[0] else np.nan
        if column.transform == "log":
            values = np.log(values, out=np.full(len(values), np.nan), where=values > 0)
        return values[:, None]
    values[np.isin(values, np.flatnonzero(~np.array(known)))] = np.nan
    if column.kind == "yes_no":
        return values[:, None]
    one_hot = (values[:, None] == np.arange(len(column.levels))).astype(np.float64)
    one_hot[np.isnan(values)] = np.nan
    return one_hot


def scaling(column: Column, block: FloatArray) -> tuple[float, float]:
    """Return (mean, standard deviation) of the training rows; (0, 1) for words, scale 1 for a constant."""
    seen = block[~np.isnan(block)]
    if column.kind in _WORDS or not len(seen):
        return 0.0, 1.0
    if seen.min() == seen.max():
        return float(seen[0]), 1.0
    return float(seen.mean()), float(seen.std())


def middle(column: Column, block: FloatArray) -> FloatArray:
    """Return the unscaled features of the median row; of words the most frequent level, the first of equals."""
    seen = block[~np.isnan(block).any(axis=1)]
    if not len(seen):
        return np.zeros(block.shape[1])
    if column.kind == "category":
        return np.eye(block.shape[1])[seen.sum(axis=0).argmax()]
    if column.kind == "yes_no":
        return np.array([float(seen.mean() > 0.5)])
    return np.array([float(np.median(seen))])


def oddity(column: Column, block: FloatArray) -> str:
    """Say in words that the training rows hold no value, or only one; empty where all is well."""
    seen = block[~np.isnan(block).any(axis=1)]
    if not len(seen):
        return f"{column.name}: no training row holds a value, so it never counts as observed"
    if (seen == seen[0]).all():
        return f"{column.name}: constant among the training rows, so it is not scaled and teaches nothing"
    return ""
