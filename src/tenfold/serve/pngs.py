"""Pictures held as arrays and encoded as PNG when somebody looks at them.

It must not know what they show.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Place = tuple[str, int]
Box = tuple[int, int, int, int]


class Pngs(Mapping[Place, bytes]):
    """(input, place) -> PNG; most answers are read by programs that look at none.

    Args:
        arrays: uint8 (h, w), (h, w, 3) or (h, w, 4).
    """

    def __init__(self, arrays: Mapping[Place, NDArray[np.uint8]]) -> None:
        self._arrays = dict(arrays)

    def __getitem__(self, place: Place) -> bytes:
        out = io.BytesIO()
        Image.fromarray(self._arrays[place]).save(out, format="PNG", compress_level=3)
        return out.getvalue()

    def __iter__(self) -> Iterator[Place]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


def shown(prepared: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Turn a prepared picture (channels, h, w) into one that can be shown."""
    return prepared[0] if len(prepared) == 1 else np.ascontiguousarray(prepared.transpose(1, 2, 0))


def heat_picture(heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Colour a heat map, the more opaque the higher: viridis, as in `explain.overlay`.

    Args:
        heat: (h, w) in [0, 1].

    Returns:
        (h, w, 4) uint8, RGBA.
    """
    colour = mpl.colormaps["viridis"](heat)
    colour[..., 3] = heat
    return np.asarray(np.rint(255 * colour), np.uint8)
