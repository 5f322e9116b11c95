"""From the time courses of regions to a matrix of connectivity, and from a matrix to edges.

It must not know files, cohorts, labels or folds: whoever fits a reference hands over training matrices only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tenfold.errors import CohortError, StudyError, nearest
from tenfold.types import FloatArray

Measure = Literal["correlation", "partial correlation"]
MEASURES: tuple[Measure, ...] = ("correlation", "partial correlation")


def connect(series: FloatArray, measure: Measure = "correlation") -> FloatArray:
    """Turn time courses into connectivity by nilearn's `ConnectivityMeasure`, each region standardised first.

    The covariance is shrunk (Ledoit & Wolf, J Multivar Anal 2004;88:365-411), as nilearn does unless told otherwise:
    so a scan shorter than its regions still gives a positive definite matrix, and so were the connectomes of the ABIDE
    set in circulation made. Correlations come out a little smaller than plain Pearson's.

    Args:
        series: (time, regions), finite. A constant region correlates with none.
        measure: "correlation" or "partial correlation".

    Returns:
        (regions, regions), symmetric, 1 on the diagonal.

    Raises:
        StudyError: The measure is unknown, or nilearn is not installed.
    """
    if measure not in MEASURES:
        raise StudyError(f"unknown measure '{measure}'", expected=nearest(str(measure), MEASURES))
    try:
        from nilearn.connectome import ConnectivityMeasure
    except ImportError as error:
        raise StudyError(
            "nilearn is not installed", expected="nilearn, which turns time series into connectomes", do="install it"
        ) from error
    spread = series.std(axis=0, ddof=1)
    scaled = (series - series.mean(axis=0)) / np.where(constant(series), 1.0, spread)
    scaled[:, constant(series)] = 0.0
    matrix = np.asarray(ConnectivityMeasure(kind=measure).fit_transform([scaled])[0], np.float64)
    matrix = (matrix + matrix.T) / 2
    np.fill_diagonal(matrix, 1.0)
    return matrix + 0.0  # nilearn leaves -0


def constant(series: FloatArray) -> NDArray[np.bool_]:
    """Mark the regions, (regions,), whose time course does not move beyond rounding."""
    return np.asarray(np.ptp(series, axis=0) <= 1e-9 * np.abs(series).max(axis=0))


def edges_of(matrices: NDArray[Any]) -> NDArray[Any]:
    """Return the upper triangle without the diagonal, row by row: (n, regions, regions) -> (n, edges)."""
    rows, columns = np.triu_indices(matrices.shape[-1], 1)
    return np.asarray(matrices[..., rows, columns])


def matrix_of(edges: NDArray[Any], diagonal: float = 0.0) -> NDArray[Any]:
    """Return what `edges_of` was taken from, (..., edges) -> (..., regions, regions), with this diagonal.

    Raises:
        CohortError: No square matrix has this number of edges.
    """
    count = edges.shape[-1]
    regions = (1 + round((1 + 8 * count) ** 0.5)) // 2
    if regions * (regions - 1) // 2 != count:
        raise CohortError(f"{count} edges", expected="regions x (regions - 1) / 2, such as 4,005 for 90 regions")
    matrices = np.full((*edges.shape[:-1], regions, regions), diagonal, edges.dtype)
    rows, columns = np.triu_indices(regions, 1)
    matrices[..., rows, columns] = edges
    matrices[..., columns, rows] = edges
    return matrices


def edge_names(regions: Sequence[str]) -> tuple[str, ...]:
    """Name every edge by its two regions, in the order of `edges_of`: "insula -- thalamus"."""
    rows, columns = np.triu_indices(len(regions), 1)
    return tuple(f"{regions[i]} -- {regions[j]}" for i, j in zip(rows.tolist(), columns.tolist(), strict=True))


def fisher_z(correlations: FloatArray) -> FloatArray:
    """Return the inverse hyperbolic tangent, which makes the variance of a correlation the same everywhere."""
    return np.arctanh(correlations)


_STEPS, _TOLERANCE = 50, 1e-7


def geometric_mean(matrices: FloatArray) -> tuple[FloatArray, bool]:
    """Find the matrix that the symmetric positive definite matrices are nearest to in their own geometry.

    Method: gradient descent on the manifold, the step halved where it overshoots (Fletcher & Joshi, Signal Process
    2007;87:250-262), started from the arithmetic mean.

    Args:
        matrices: (n, regions, regions), positive definite.

    Returns:
        The mean, (regions, regions), and whether the descent came to rest.
    """
    mean, step, before = matrices.mean(axis=0), 1.0, np.inf
    for _ in range(_STEPS):
        root, inverse = _root(mean)
        logs = _logarithm(inverse @ matrices @ inverse).mean(axis=0)
        values, vectors = np.linalg.eigh(logs)
        mean = root @ (vectors * np.exp(step * values)) @ vectors.T @ root
        mean = (mean + mean.T) / 2
        size = float(np.linalg.norm(logs)) / logs.size
        if size < _TOLERANCE:
            return mean, True
        step, before = (step, size) if size < before else (step / 2, before)
    return mean, False


def whitening(mean: FloatArray) -> FloatArray:
    """Return the inverse square root of a positive definite matrix: what `tangent` projects with."""
    return _root(mean)[1]


def tangent(matrices: FloatArray, whiten: FloatArray) -> FloatArray:
    """Project positive definite matrices onto the tangent space at a reference.

    Method: log(W C W) (Varoquaux et al., MICCAI 2010, LNCS 6361:200-208).

    Args:
        matrices: (n, regions, regions), positive definite.
        whiten: (regions, regions) W, of `whitening`.

    Returns:
        (n, regions, regions): how far each is from the reference, symmetric.
    """
    return _logarithm(whiten @ matrices @ whiten)


def smallest_eigenvalue(matrices: FloatArray) -> FloatArray:
    """Return the smallest eigenvalue of each matrix, (n,): above 0 it is positive definite."""
    return np.asarray(np.linalg.eigvalsh(matrices)[:, 0])


def _root(matrix: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The square root of a positive definite matrix and its inverse."""
    values, vectors = np.linalg.eigh(matrix)
    root = np.sqrt(values)
    return (vectors * root) @ vectors.T, (vectors / root) @ vectors.T


def _logarithm(matrices: FloatArray) -> FloatArray:
    """The matrix logarithm of each of some positive definite matrices."""
    values, vectors = np.linalg.eigh(matrices)
    return np.asarray((vectors * np.log(values)[:, None, :]) @ vectors.swapaxes(1, 2))
