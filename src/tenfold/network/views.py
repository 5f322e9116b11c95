"""Test-time views: the same picture looked at from slightly elsewhere, in a fixed order.

It must not know networks or labels. Training and serving use this one list, so they cannot drift apart.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

# (degrees, zoom, shift to the right, shift down), shifts as part of the side
_VIEWS = (
    (0.0, 1.0, 0.0, 0.0),
    (0.0, 1.06, 0.0, 0.0),
    (4.0, 1.0, 0.0, 0.0),
    (-4.0, 1.0, 0.0, 0.0),
    (0.0, 0.95, 0.0, 0.0),
    (0.0, 1.03, 0.03, 0.0),
    (0.0, 1.03, -0.03, 0.0),
    (0.0, 1.03, 0.0, 0.03),
    (0.0, 1.03, 0.0, -0.03),
    (3.0, 1.06, 0.02, 0.02),
    (-3.0, 1.06, -0.02, 0.02),
    (3.0, 1.0, -0.02, -0.02),
    (-3.0, 1.0, 0.02, -0.02),
    (6.0, 1.03, 0.0, 0.0),
    (-6.0, 1.03, 0.0, 0.0),
    (0.0, 1.1, 0.0, 0.0),
)
MOST_VIEWS = len(_VIEWS)


def view(pictures: Tensor, index: int) -> Tensor:
    """Return one view of a batch.

    Args:
        pictures: float32 (n, channels, side, side), or (n, k, channels, side, side) of several a case.
        index: 0 is the picture itself; up to `MOST_VIEWS` - 1.

    Returns:
        Same shape; what comes in from outside is black.
    """
    if index == 0:
        return pictures
    if pictures.ndim == 5:
        return view(pictures.flatten(0, 1), index).unflatten(0, pictures.shape[:2])
    degrees, zoom, right, down = _VIEWS[index]
    cosine, sine = math.cos(math.radians(degrees)) / zoom, math.sin(math.radians(degrees)) / zoom
    matrix = torch.tensor([[cosine, -sine, -2 * right], [sine, cosine, -2 * down]], device=pictures.device)
    grid = functional.affine_grid(matrix.expand(len(pictures), 2, 3), list(pictures.shape), align_corners=False)
    seen = functional.grid_sample(pictures, grid, padding_mode="zeros", align_corners=False)
    # a picture that is not there begins with NaN; the black that comes in must not make it one
    absent = torch.isnan(pictures.flatten(1)[:, 0])
    return seen.masked_fill(absent[:, None, None, None], torch.nan) if bool(absent.any()) else seen
