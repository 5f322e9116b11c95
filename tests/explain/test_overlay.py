from __future__ import annotations

import io

import numpy as np
from PIL import Image

from tenfold.explain import overlay, png_bytes


def test_where_the_map_is_zero_the_film_stays() -> None:
    film = np.arange(64, dtype=np.uint8).reshape(1, 8, 8)
    heat = np.zeros((8, 8), np.float32)
    heat[7, 7] = 1
    picture = overlay(film, heat)
    assert picture.shape == (8, 8, 3)
    np.testing.assert_array_equal(picture[:7], np.repeat(film[0, :7, :, None], 3, axis=2))
    red, green, blue = picture[7, 7].astype(int)
    assert min(red, green) > blue + 50  # the top of viridis is yellow


def test_colour_films_and_png() -> None:
    film = np.random.default_rng(0).integers(0, 255, (3, 5, 6), dtype=np.uint8)
    picture = overlay(film, np.zeros((5, 6), np.float32))
    np.testing.assert_array_equal(picture, film.transpose(1, 2, 0))
    with Image.open(io.BytesIO(png_bytes(picture))) as image:
        assert image.format == "PNG"
        np.testing.assert_array_equal(np.asarray(image), picture)
