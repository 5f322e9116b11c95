"""One p-value a column: how clearly its values differ between classes, taken by itself.

It must not know folds: whoever calls it passes training rows only, or the figures will flatter.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tenfold.modalities.columns import Column
from tenfold.types import FloatArray


def univariate_p(column: Column, values: FloatArray, classes: NDArray[np.int64]) -> float:
    """Return the p-value of a column against the classes, over the rows that hold a value.

    Numbers and ordered levels: Mann-Whitney's U with the normal approximation and ties, two-sided; Kruskal-Wallis for
    three classes and more. Categories and yes/no: Pearson's chi-square without continuity correction. Meant for an
    order among columns: in small samples the approximations are rough.

    Args:
        column: What the values are.
        values: (n,) NaN where missing.
        classes: (n,) class of each row, from 0.

    Returns:
        1.0 where there is nothing to compare: one value or one class only.
    """
    # scipy.stats takes most of a second to load, which a hospital that only applies should not pay
    from scipy import stats

    observed = ~np.isnan(values)
    values, classes = values[observed], classes[observed]
    present = np.unique(classes)
    if len(present) < 2 or len(np.unique(values)) < 2:
        return 1.0
    if column.kind in ("category", "yes_no"):
        table = np.array([[np.sum((classes == c) & (values == v)) for v in np.unique(values)] for c in present])
        return float(stats.chi2_contingency(table, correction=False).pvalue)
    groups = [values[classes == c] for c in present]
    if len(groups) == 2:
        return float(stats.mannwhitneyu(groups[0], groups[1], method="asymptotic").pvalue)
    return float(stats.kruskal(*groups).pvalue)
