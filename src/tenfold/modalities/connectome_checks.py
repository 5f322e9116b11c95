"""What is wrong with a matrix of connectivity, with time courses, or with the connectomes of a cohort.

It must not know labels, folds or networks; it changes nothing but rounding: a matrix comes back exactly symmetric.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfold.errors import CohortError
from tenfold.modalities.connectivity import Measure, constant, edges_of
from tenfold.types import Finding, FloatArray

_ROUNDING = 1e-4
_FEWEST_SCANS = 10
_SAME = 0.9999
_NAMED = 5


def check_numbers(array: NDArray[Any], where: str) -> FloatArray:
    """Return a two-dimensional array of real numbers as float64.

    Raises:
        CohortError: It is complex, no numbers at all, or of other dimensions.
    """
    if array.dtype.kind == "c":
        raise CohortError(
            "the numbers are complex",
            expected="real correlations",
            do="find out what the file holds (coherence?); no part of a complex number is taken silently",
            where=where,
        )
    if array.dtype.kind not in "fiu":
        raise CohortError(f"the file holds {array.dtype}, no numbers", expected="real numbers", where=where)
    if array.ndim != 2:
        triangle = array.ndim == 1 and _regions_of(array.size)
        came = f"an array of shape {array.shape}" + (
            f", as long as the upper triangle of {triangle} regions" if triangle else ""
        )
        do = "write the whole matrix" if triangle else "write one file a case"
        raise CohortError(came, expected="two dimensions, one case", do=do, where=where)
    return array.astype(np.float64)


def check_matrix(matrix: FloatArray, regions: Sequence[str], where: str, *, fisher_z: bool = False) -> FloatArray:
    """Return a matrix of correlations, exactly symmetric, 1 on the diagonal.

    A region whose edges are all 0 has no signal; `ConnectomeReading.silent` marks it.

    Args:
        matrix: (regions, regions) as the file has it.
        regions: Their names, for messages.
        where: The file and patient, for messages.
        fisher_z: Whether the file holds Fisher's z of correlations, which are turned back.

    Raises:
        CohortError: It is not square, not finite, not symmetric, its diagonal neither 1 nor 0, a value lies outside
            [-1, 1], two regions are the same signal, or it is 0 throughout.
    """
    if matrix.shape[0] != matrix.shape[1]:
        headed = matrix.shape[0] == matrix.shape[1] + 1
        raise CohortError(
            f"the matrix is not square: {matrix.shape[0]} x {matrix.shape[1]}",
            expected="regions x regions",
            do="if the first row names the regions, name them by words, not numbers"
            if headed
            else "if these are time courses, say so: holds = 'timeseries'",
            where=where,
        )
    matrix = matrix.copy()
    diagonal = matrix.diagonal().copy()
    np.fill_diagonal(matrix, 0.0)
    _finite(matrix, regions, where)
    _symmetric(matrix, regions, where)
    matrix = (matrix + matrix.T) / 2
    if fisher_z:
        matrix = np.tanh(matrix)
    else:
        _in_range(matrix, diagonal, regions, where)
    off = ~(np.isclose(diagonal, 1, atol=1e-3) | np.isclose(diagonal, 0, atol=1e-3))
    if off.any() and not fisher_z:
        i = int(off.argmax())
        raise CohortError(
            f"the diagonal is {diagonal[i]:.4g} at region {regions[i]}",
            expected="1 (or 0) everywhere, as correlations have it",
            do="if this is a covariance, divide it by the standard deviations; if it is Fisher's z, say so: "
            "holds = 'fisher_z'",
            where=where,
        )
    if not matrix.any():
        raise CohortError("every edge is 0", expected="correlations", do="make the matrix again", where=where)
    same = np.argwhere(np.abs(matrix) >= 1 - 1e-7)
    if same.size:
        raise CohortError(
            f"the regions {regions[same[0, 0]]} and {regions[same[0, 1]]} correlate to {matrix[tuple(same[0])]:.7g}",
            expected="an absolute value below 1: Fisher's z of 1 is infinite",
            do="find out why two regions are the same signal",
            where=where,
        )
    np.fill_diagonal(matrix, 1.0)
    return matrix


def check_series(series: FloatArray, regions: Sequence[str], where: str, measure: Measure) -> FloatArray:
    """Return time courses, unchanged.

    Raises:
        CohortError: A value is not finite, no region moves, there are too few time points, or fewer than regions
            where partial correlations are asked for.
    """
    scans, count = series.shape
    wrong = np.argwhere(~np.isfinite(series))
    if wrong.size:
        t, i = wrong[0]
        raise CohortError(
            f"{series[t, i]} at time point {t + 1} of region {regions[i]}, and {len(wrong) - 1} more",
            expected="finite time courses",
            do="extract the time courses again; leave out censored scans instead of writing no value",
            where=where,
        )
    if scans < _FEWEST_SCANS:
        raise CohortError(f"{scans} time points", expected=f"{_FEWEST_SCANS} or more", do=_TURNED, where=where)
    if measure == "partial correlation" and scans <= count:
        raise CohortError(
            f"{scans} time points of {count} regions: partial correlations cannot be told from noise",
            expected="more time points than regions",
            do=f"take measure = 'correlation', an atlas of fewer regions, or a longer scan. {_TURNED}",
            where=where,
        )
    if constant(series).all():
        raise CohortError("no region's time course moves", do="extract the time courses again", where=where)
    return series


_TURNED = "If the file has one row a region, turn it: rows are time points, columns regions"


def check_connectomes(
    matrices: NDArray[np.float32], silent: NDArray[np.bool_], regions: Sequence[str], sources: Sequence[str]
) -> list[Finding]:
    """Say what is odd about the connectomes of a cohort, changing none.

    Args:
        matrices: (n, regions, regions), NaN throughout where a case has none.
        silent: (n, regions) true where a region has no signal.
        regions: Names.
        sources: (n) where each came from.

    Returns:
        "duplicate_connectome" (refusal, one a pair) and "silent_region" (warning, one a region; `value` is the share
        of cases). `column` is empty: the caller knows it.
    """
    found = [
        Finding(
            "refusal",
            "duplicate_connectome",
            f"{sources[i]} and {sources[j]}: the same connectome twice. Two examinations are never that alike: find "
            "out whose it is and remove the other.",
            value=1.0,
        )
        for i, j in identical(matrices)
    ]
    present = int((~np.isnan(matrices[:, 0, 0])).sum())
    for k in np.flatnonzero(silent.any(axis=0)).tolist():
        rows = np.flatnonzero(silent[:, k])
        named = "; ".join(sources[i] for i in rows[:_NAMED])
        more = f"; and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
        message = (
            f"Region {regions[k]} has no signal in {len(rows)} of {present} connectomes: {named}{more}. Its edges were "
            "not measured there: they take the mean of the training patients. If the signal is lacking at some "
            "sites or in one class only, leave the region out."
        )
        found.append(Finding("warning", "silent_region", message, value=len(rows) / max(present, 1)))
    return found


def identical(matrices: NDArray[np.float32]) -> list[tuple[int, int]]:
    """Find the pairs of cases whose edges are the same but for rounding (they correlate above 0.9999)."""
    present = np.flatnonzero(~np.isnan(matrices[:, 0, 0]))
    if len(present) < 2 or matrices.shape[1] < 3:
        return []
    edges = edges_of(matrices[present]).astype(np.float32)
    edges -= edges.mean(axis=1, keepdims=True)
    edges /= np.maximum(np.linalg.norm(edges, axis=1, keepdims=True), 1e-12)
    found: list[tuple[int, int]] = []
    for start in range(0, len(present), 512):
        alike = edges[start : start + 512] @ edges.T
        for i, j in np.argwhere(alike > _SAME):
            if start + i < j:
                found.append((int(present[start + i]), int(present[j])))
    return found


def check_motion(motion: FloatArray, limit: float, sources: Sequence[str], column: str = "motion") -> list[Finding]:
    """Hold head motion against the limit that the study declares.

    Args:
        motion: (n,) mean framewise displacement in millimetres, NaN where unknown.
        limit: The most that is allowed.
        sources: (n) whose it is.
        column: Where it stands.

    Returns:
        "motion" (refusal) naming the cases above the limit, "motion_unknown" (warning) those without a figure;
        `value` is the largest, and the share of cases.
    """
    found = []
    above, unknown = np.flatnonzero(motion > limit), np.flatnonzero(np.isnan(motion))
    if above.size:
        worst = above[np.argsort(-motion[above], kind="stable")]
        named = "; ".join(f"{sources[i]}: {motion[i]:.3g}" for i in worst[:_NAMED])
        more = f"; and {len(above) - _NAMED} more" if len(above) > _NAMED else ""
        message = (
            f"{len(above)} of {len(motion)} cases moved more than the declared {limit:g} mm: {named}{more}. Motion "
            "alters connectivity and goes with age and illness: leave them out by an eligibility rule, or raise it."
        )
        found.append(Finding("refusal", "motion", message, column=column, value=float(motion[worst[0]])))
    if unknown.size:
        named = "; ".join(sources[i] for i in unknown[:_NAMED])
        message = (
            f"Motion is unknown in {len(unknown)} of {len(motion)} cases, so that the limit says nothing: {named}."
        )
        found.append(
            Finding("warning", "motion_unknown", message, column=column, value=len(unknown) / max(len(motion), 1))
        )
    return found


def _regions_of(edges: int) -> int:
    """The regions whose upper triangle is this long; 0 where there are none."""
    regions = (1 + math.isqrt(1 + 8 * edges)) // 2
    return regions if edges and regions * (regions - 1) // 2 == edges else 0


def _finite(matrix: FloatArray, regions: Sequence[str], where: str) -> None:
    """Refuse a value that is no number, and say whether a whole region has none."""
    wrong = ~np.isfinite(matrix)
    if not wrong.any():
        return
    off = ~np.eye(len(matrix), dtype=bool)
    whole = np.flatnonzero((wrong | ~off).all(axis=1))
    if whole.size and len(matrix) > 1:
        raise CohortError(
            f"region {', '.join(regions[i] for i in whole[:_NAMED])} has no value in any edge",
            expected="finite correlations",
            do="its time course was probably constant: write 0 into its edges, which counts as not measured, or leave "
            "the region out everywhere",
            where=where,
        )
    i, j = np.argwhere(wrong)[0]
    raise CohortError(
        f"{matrix[i, j]} between the regions {regions[i]} and {regions[j]}, and {int(wrong.sum()) - 1} more",
        expected="finite correlations",
        do="make the matrix again",
        where=where,
    )


def _symmetric(matrix: FloatArray, regions: Sequence[str], where: str) -> None:
    """Refuse a matrix that differs from its transpose by more than rounding."""
    gap = np.abs(matrix - matrix.T)
    if gap.max() <= _ROUNDING * max(1.0, float(np.abs(matrix).max())):
        return
    i, j = divmod(int(gap.argmax()), len(gap))
    one_sided = not np.tril(matrix).any() or not np.triu(matrix).any()
    do = "only one triangle is filled: mirror it" if one_sided else "take a symmetric measure, or make the matrix again"
    raise CohortError(
        f"the matrix is not symmetric: between {regions[i]} and {regions[j]} it holds {matrix[i, j]:.4g} one way and "
        f"{matrix[j, i]:.4g} the other",
        expected="the same value both ways",
        do=do,
        where=where,
    )


def _in_range(matrix: FloatArray, diagonal: FloatArray, regions: Sequence[str], where: str) -> None:
    """Refuse values that are no correlations, and say what they look like."""
    largest = float(np.abs(matrix).max())
    if largest <= 1 + 1e-6:
        return
    i, j = divmod(int(np.abs(matrix).argmax()), len(matrix))
    plain = np.isfinite(diagonal) & (np.abs(diagonal) < 5)
    like_z = largest < 20 and (not plain.any() or np.isclose(diagonal, 0).all() or np.isclose(diagonal, 1).all())
    do = (
        "the values look Fisher-transformed: say so, holds = 'fisher_z'"
        if like_z
        else "make a matrix of correlations; if this is a covariance, divide it by the standard deviations"
    )
    raise CohortError(
        f"{matrix[i, j]:.4g} between the regions {regions[i]} and {regions[j]}",
        expected="correlations from -1 to 1",
        do=do,
        where=where,
    )
