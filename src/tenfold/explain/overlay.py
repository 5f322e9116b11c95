"""A heat map laid over its film, as an RGB picture.

It must not know how the map came about. The colours are viridis: perceptually uniform, readable with a colour
vision deficiency and in grey print; what the map does not mark stays the film's own grey.
"""

from __future__ import annotations

import io

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image

_STRENGTH = 0.65


def overlay(film: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Blend a heat map over a prepared film; the higher the value, the more opaque the colour.

    Args:
        film: (channels, h, w) uint8 with one or three channels, as the preparation gives it.
        heat: (h, w) in [0, 1], in the same frame.

    Returns:
        (h, w, 3) uint8.
    """
    grey = np.broadcast_to(film, (3, *film.shape[1:])).transpose(1, 2, 0) / 255.0
    colour = mpl.colormaps["viridis"](heat)[..., :3]
    alpha = _STRENGTH * heat[..., None]
    return np.asarray(np.rint(255 * ((1 - alpha) * grey + alpha * colour)), np.uint8)


def png_bytes(picture: NDArray[np.uint8]) -> bytes:
    """Encode a picture as PNG.

    Args:
        picture: (h, w) grey or (h, w, 3) RGB, uint8.
    """
    out = io.BytesIO()
    Image.fromarray(picture).save(out, format="PNG", optimize=True)
    return out.getvalue()
