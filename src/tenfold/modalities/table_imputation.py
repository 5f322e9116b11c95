"""Fills missing features of a row from the training rows most like it.

It must not know what a feature means, and sees no label.

Method: Troyanskaya et al., Bioinformatics 2001;17:520-525.
"""

from __future__ import annotations

import numpy as np

from tenfold.types import FloatArray


def fill_nearest(rows: FloatArray, bank: FloatArray, fill: FloatArray, neighbours: int) -> FloatArray:
    """Fill each missing feature with the mean of that feature over the nearest rows of the bank that have it.

    The distance is Euclidean over the features that both rows have, scaled up to all features. Every row is filled
    by itself, so that the company it comes in changes nothing; of equally near rows the first in the bank counts.

    Args:
        rows: (n, L) scaled features, NaN where missing; left as they are.
        bank: (m, L) scaled training rows, NaN where missing.
        fill: (L,) what stands in where no row of the bank can help.
        neighbours: How many rows are averaged.

    Returns:
        (n, L) without NaN.
    """
    filled = rows.copy()
    for i in np.flatnonzero(np.isnan(rows).any(axis=1)):
        gap = bank - rows[i]
        shared = (~np.isnan(gap)).sum(axis=1)
        distance = np.nansum(gap**2, axis=1) / np.maximum(shared, 1)
        order = np.argsort(np.where(shared > 0, distance, np.inf), kind="stable")[: np.count_nonzero(shared)]
        for j in np.flatnonzero(np.isnan(rows[i])):
            donors = bank[order, j]
            donors = donors[~np.isnan(donors)][:neighbours]
            filled[i, j] = donors.mean() if len(donors) else fill[j]
    return filled
