"""Figures of connectomes: edges as a matrix by network, sums between networks, a glass brain. From plain arrays.

It must not know a run, a page or what the weights mean; nilearn is imported only where a glass brain is asked for.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from tenfold.errors import OutputError
from tenfold.report.look import HALF_WIDTH, INK, canvas, png, settings
from tenfold.types import FloatArray, IntArray

SIGNED, UNSIGNED = "RdBu_r", "Blues"  # red and blue differ for every kind of colour blindness
STRONGEST = 40
_NO_NETWORK = "no network"
_DARK, _LIGHT = "#1c1d1e", "#ffffff"  # on a coloured cell: not the page's own ink, which turns with its ground


def edge_matrix_figure(
    weights: ArrayLike, regions: Sequence[str], networks: Mapping[str, str] | Sequence[str], title: str
) -> bytes:
    """Draw edge weights as a symmetric matrix, the regions sorted by network.

    Args:
        weights: (edges,) of the upper triangle, row by row, diagonal left out; NaN is drawn grey.
        regions: Names, in the order of the matrices that the edges came from.
        networks: Region -> network, or one network a region in the same order; empty where none are known.
        title: What the weights are.

    Returns:
        The picture as PNG, on white.

    Raises:
        OutputError: The edges are not those of so many regions.
    """
    with settings():
        return png(draw_edges(weights, regions, networks, title))


def glass_brain_figure(weights: ArrayLike, coordinates: ArrayLike, title: str) -> bytes:
    """Draw the strongest edges in a glass brain, seen from the left, the back and above.

    Args:
        weights: (edges,) of the upper triangle, row by row; NaN is left out.
        coordinates: (regions, 3), MNI, mm. The brain drawn is an adult's.
        title: What the weights are.

    Returns:
        The picture as PNG, on white; the `STRONGEST` edges by absolute weight.

    Raises:
        OutputError: nilearn is not installed, or weights and coordinates do not belong together.
    """
    places = np.asarray(coordinates, np.float64)
    if places.ndim != 2 or places.shape[1] != 3 or not np.isfinite(places).all():
        raise OutputError(
            f"coordinates of shape {places.shape}", expected="(regions, 3) numbers, mm", where="glass brain"
        )
    values = np.asarray(weights, np.float64)
    matrix = np.nan_to_num(square(values, len(places)))
    try:
        from nilearn import plotting
    except ImportError as error:
        raise OutputError(
            "nilearn is not installed",
            expected="nilearn, which draws glass brains",
            do="install it: pip install 'tenfold[connectome]'",
        ) from error
    sizes = np.sort(np.abs(matrix[np.triu_indices(len(places), 1)]))[::-1]
    least = float(sizes[min(STRONGEST, len(sizes)) - 1]) if len(sizes) else 0.0
    kept = np.where(np.abs(matrix) >= max(least, np.finfo(float).tiny), matrix, 0.0)
    touched = np.abs(kept).sum(0) > 0
    with settings(), mpl.rc_context({"figure.constrained_layout.use": False}):
        figure = Figure(figsize=(2 * HALF_WIDTH, 2.7))
        figure.suptitle("\n".join(textwrap.wrap(title, 90)), x=0.01, ha="left", fontsize=8.5)
        top = float(np.abs(kept).max()) or 1.0
        plotting.plot_connectome(
            kept[np.ix_(touched, touched)] if touched.any() else kept,
            places[touched] if touched.any() else places,
            node_size=9,
            node_color=INK,
            edge_cmap=SIGNED,
            edge_vmin=-top,
            edge_vmax=top,
            edge_kwargs={"linewidth": 1.4},
            figure=figure,
            axes=(0.0, 0.02, 0.92, 0.86),
            colorbar=True,
            annotate=True,
        )
        return png(figure)


def draw_edges(
    weights: ArrayLike, regions: Sequence[str], networks: Mapping[str, str] | Sequence[str], title: str
) -> Figure:
    """Return the figure of `edge_matrix_figure`."""
    matrix = square(np.asarray(weights, np.float64), len(regions))
    of = _networks(regions, networks)
    named = list(dict.fromkeys(of))
    order = np.array(sorted(range(len(regions)), key=lambda i: named.index(of[i])), dtype=np.int64)
    figure = canvas(3.5)
    axes = figure.subplots()
    _cells(figure, axes, matrix[np.ix_(order, order)], "")
    axes.set_title("\n".join(textwrap.wrap(title, 36)))
    sizes = [of.count(name) for name in named]
    if len(named) > 1:
        _blocks(axes, named, sizes)
    elif len(regions) <= 24:
        places = np.arange(len(regions)) + 0.5
        axes.set_xticks(places, [_cut(r) for r in regions], rotation=90)
        axes.set_yticks(places, [_cut(r) for r in regions])
    else:
        axes.set(xlabel=f"{len(regions)} regions", ylabel=f"{len(regions)} regions")
        axes.set_xticks([])
        axes.set_yticks([])
    axes.tick_params(length=0)
    return figure


def draw_networks(names: Sequence[str], matrix: ArrayLike, title: str) -> Figure:
    """Draw sums of edge weights within and between networks as a matrix.

    Args:
        names: The networks.
        matrix: (networks, networks), symmetric; NaN where there is no edge.
        title: What the sums are.

    Raises:
        OutputError: The matrix is not that of so many networks.
    """
    values = np.asarray(matrix, np.float64)
    if values.shape != (len(names), len(names)):
        raise OutputError(
            f"a matrix of shape {values.shape} for {len(names)} networks",
            expected=f"({len(names)}, {len(names)})",
            where="figure of networks",
        )
    tall = 1.1 + 0.26 * len(names)
    figure = canvas(min(max(tall, 2.2), 4.2))
    axes = figure.subplots()
    top = _cells(figure, axes, values, "")
    axes.set_title("\n".join(textwrap.wrap(title, 36)))
    places = np.arange(len(names)) + 0.5
    axes.set_xticks(places, [_cut(name) for name in names], rotation=90)
    axes.set_yticks(places, [_cut(name) for name in names])
    axes.tick_params(length=0)
    if len(names) <= 6:
        for i, row in enumerate(values):
            for j, value in enumerate(row):
                if np.isfinite(value):
                    colour = _LIGHT if abs(value) > 0.6 * top else _DARK
                    text = f"{value:.2g}".replace("-", "−")
                    axes.text(j + 0.5, i + 0.5, text, ha="center", va="center", color=colour)
    return figure


def square(weights: FloatArray, regions: int) -> FloatArray:
    """Return the symmetric (regions, regions) matrix of edges in row-major upper triangle, NaN on the diagonal.

    Raises:
        OutputError: There are not as many edges as the regions have pairs.
    """
    edges = regions * (regions - 1) // 2
    if weights.shape != (edges,):
        raise OutputError(
            f"edge weights of shape {weights.shape} for {regions} regions",
            expected=f"({edges},), the upper triangle row by row",
            where="figure of a connectome",
        )
    matrix = np.full((regions, regions), np.nan)
    rows: IntArray
    rows, columns = np.triu_indices(regions, 1)
    matrix[rows, columns] = weights
    matrix[columns, rows] = weights
    return matrix


def _networks(regions: Sequence[str], networks: Mapping[str, str] | Sequence[str]) -> list[str]:
    """Return the network of each region, the named ones in their order of appearance and the rest together."""
    if isinstance(networks, Mapping):
        return [str(networks.get(region) or _NO_NETWORK) for region in regions]
    if networks and len(networks) != len(regions):
        raise OutputError(
            f"{len(networks)} networks for {len(regions)} regions",
            expected="one a region, or none",
            where="figure of a connectome",
        )
    return [str(name or _NO_NETWORK) for name in networks] or [_NO_NETWORK] * len(regions)


def _cells(figure: Figure, axes: Axes, matrix: FloatArray, label: str) -> float:
    """Draw a matrix with its colour bar, zero in the middle where values have both signs; return the largest."""
    finite = matrix[np.isfinite(matrix)]
    top = float(np.abs(finite).max()) if len(finite) else 1.0
    top = top or 1.0
    signed = bool((finite < 0).any())
    axes.set_facecolor("#cfcfcf")
    options: dict[str, Any] = {"cmap": SIGNED if signed else UNSIGNED, "vmin": -top if signed else 0, "vmax": top}
    drawn = axes.pcolormesh(np.ma.masked_invalid(matrix), rasterized=len(matrix) > 20, **options)
    axes.set(xlim=(0, len(matrix)), ylim=(len(matrix), 0))
    axes.set_aspect("equal")
    for side in axes.spines.values():
        side.set_visible(False)
    bar = figure.colorbar(drawn, ax=axes, shrink=0.8, pad=0.02, label=label)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=2)
    return top


def _blocks(axes: Axes, names: list[str], sizes: list[int]) -> None:
    """Part the networks by lines and name each at its middle."""
    edges = np.cumsum([0, *sizes])
    for edge in edges[1:-1]:
        axes.axhline(edge, color=_DARK, lw=0.5)
        axes.axvline(edge, color=_DARK, lw=0.5)
    middles = (edges[:-1] + edges[1:]) / 2
    axes.set_xticks(middles, [_cut(name) for name in names], rotation=90)
    axes.set_yticks(middles, [_cut(name) for name in names])


def _cut(name: str, width: int = 16) -> str:
    plain = name.replace("_", " ")
    return plain if len(plain) <= width else plain[: width - 1] + "…"
