from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tenfold.errors import OutputError
from tenfold.report.figures_connectome import (
    draw_edges,
    draw_networks,
    edge_matrix_figure,
    glass_brain_figure,
    square,
)
from tenfold.report.look import png

REGIONS = ["a", "b", "c", "d"]
WEIGHTS = np.array([1.0, 2, 3, 4, 5, 6])  # ab ac ad bc bd cd


def cells(figure: object) -> np.ndarray:
    return np.asarray(figure.axes[0].collections[0].get_array())  # type: ignore[attr-defined]


def test_square_is_the_upper_triangle_row_by_row() -> None:
    matrix = square(WEIGHTS, 4)
    assert matrix[0, 1] == 1
    assert matrix[1, 2] == matrix[2, 1] == 4
    assert matrix[2, 3] == 6
    assert np.isnan(np.diag(matrix)).all()


def test_regions_are_sorted_by_network() -> None:
    drawn = cells(draw_edges(WEIGHTS, REGIONS, {"a": "x", "b": "y", "c": "x", "d": "y"}, "t"))
    # the order becomes a c b d: first row a against a, c, b, d
    assert np.ma.masked_invalid(drawn)[0].tolist() == [None, 2.0, 1.0, 3.0]


def test_names_as_a_list_and_as_a_mapping_are_the_same_picture() -> None:
    of = ["x", "y", "x", "y"]
    first = edge_matrix_figure(WEIGHTS, REGIONS, of, "t")
    assert first == edge_matrix_figure(WEIGHTS, REGIONS, dict(zip(REGIONS, of, strict=True)), "t")
    assert Image.open(io.BytesIO(first)).size[0] == 700


def test_scale_is_even_around_zero_where_signs_differ() -> None:
    for matrix, low in ((np.array([[1.0, -3], [-3, 2]]), -3), (np.array([[1.0, 3], [3, 2]]), 0)):
        mesh = draw_networks(["x", "y"], matrix, "t").axes[0].collections[0]
        assert mesh.get_clim() == (low, 3)


def test_missing_edges_and_no_networks_are_drawn() -> None:
    assert edge_matrix_figure(np.full(6, np.nan), REGIONS, {}, "t").startswith(b"\x89PNG")
    assert png(draw_networks(["x"], [[np.nan]], "t")).startswith(b"\x89PNG")


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(OutputError, match=r"edge weights of shape \(5,\) for 4 regions"):
        edge_matrix_figure(WEIGHTS[:5], REGIONS, {}, "t")
    with pytest.raises(OutputError, match="2 networks for 4 regions"):
        edge_matrix_figure(WEIGHTS, REGIONS, ["x", "y"], "t")
    with pytest.raises(OutputError, match="for 2 networks"):
        draw_networks(["x", "y"], [[1.0]], "t")
    with pytest.raises(OutputError, match="coordinates of shape"):
        glass_brain_figure(WEIGHTS, np.zeros((4, 2)), "t")


def test_glass_brain_is_a_picture_and_nilearn_is_not_imported_before() -> None:
    code = "import sys, tenfold.report, tenfold.report.figures_connectome as f; sys.exit('nilearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    pytest.importorskip("nilearn")
    places = np.array([[-40.0, 0, 0], [40, 0, 0], [-20, -60, 10], [20, -60, 10]])
    picture = Image.open(io.BytesIO(glass_brain_figure(WEIGHTS, places, "t"))).convert("L")
    assert (np.asarray(picture) < 128).mean() > 0.005
