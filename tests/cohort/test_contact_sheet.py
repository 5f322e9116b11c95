"""The contact sheet holds every picture twice, its boxes, and a line to sign."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from tenfold.cohort.contact_sheet import STATEMENT, Pair, contact_sheet
from tenfold.errors import ImageError


def images(page: str) -> list[np.ndarray]:
    found = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(one)))) for one in found]


def test_every_picture_stands_there_before_and_after() -> None:
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 255, (50, 80), dtype=np.uint8)
    colour = rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)
    planes = np.ascontiguousarray(colour[:32, :32].transpose(2, 0, 1))
    boxes = (("region", (8, 5, 72, 45)), ("blank", (0, 0, 20, 5)))
    page = contact_sheet(
        [Pair("P1, b_mode, 1", grey, grey[None, :32, :32], boxes), ("P2", colour, planes)], title="Nodes"
    )
    shown = images(page)
    np.testing.assert_array_equal(shown[0], grey)
    np.testing.assert_array_equal(shown[1], grey[:32, :32])
    np.testing.assert_array_equal(shown[2], colour)
    np.testing.assert_array_equal(shown[3], colour[:32, :32])
    assert 'class="region" title="region" style="left:10.000%;top:10.000%;width:80.000%;height:80.000%"' in page
    assert page.count("2 pictures") == 2
    assert STATEMENT in page
    assert all(word in page for word in ("1. P1, b_mode, 1", "2. P2", "<span>Name</span>", "<span>Date</span>"))
    assert "http" not in page


def test_names_are_text_and_large_pictures_are_reduced() -> None:
    page = contact_sheet([("<script>alert(1)</script>", np.zeros((900, 1600), np.uint8), np.zeros((9, 9), np.uint8))])
    assert "<script>" not in page
    assert images(page)[0].shape[1] <= 420
    assert "<strong>1 picture</strong>" in page


@pytest.mark.parametrize("wrong", [np.zeros((4, 4)), np.zeros((4, 4, 4, 4), np.uint8), np.zeros((5, 4, 2), np.uint8)])
def test_what_is_no_picture_is_named(wrong: np.ndarray) -> None:
    with pytest.raises(ImageError, match="case 7"):
        contact_sheet([("case 7", np.zeros((4, 4), np.uint8), wrong)])
