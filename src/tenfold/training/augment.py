"""Random changes of a batch of pictures, for training only; never saved with a model.

It must not know labels. Parameters are drawn for a whole epoch from a seed, so a picture's change depends on the epoch
and its row alone, not on the batch it comes in.

Two changes are missing on purpose. Nothing is ever turned upside down: the depth of an ultrasound picture, and the way
up of a film, are findings (shadows and enhancement lie below their cause). And where there are three channels, colour
encodes velocity or stiffness, or the channels are themselves measurements: only their geometry changes, for brightness,
contrast, gamma or white noise of single channels would alter hue, saturation or the value measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tenfold.types import FloatArray, IntArray

_DRAWS = 9


@dataclass(frozen=True)
class Augmentation:
    """Largest changes, each drawn uniformly either way. Exposure and noise are for pictures of one channel only.

    Attributes:
        rotation: Degrees.
        scale: Relative to the side.
        shift: Part of the side, along each axis.
        exposure: Brightness (absolute, of full range), contrast and gamma (relative).
        noise: Standard deviation of white noise, of full range.
        horizontal_flip: Mirror half of the pictures. A mirrored chest has its heart on the right: off by default.
    """

    rotation: float = 7.0
    scale: float = 0.08
    shift: float = 0.05
    exposure: float = 0.15
    noise: float = 0.0
    horizontal_flip: bool = False

    def draws(self, seed: int, rows: int) -> FloatArray:
        """Draw the parameters of one epoch: (rows, 9), uniform in [-1, 1)."""
        return np.random.default_rng(seed).uniform(-1.0, 1.0, (rows, _DRAWS))

    def apply(self, pictures: Tensor, draws: FloatArray, rows: IntArray, seed: int) -> Tensor:
        """Change a batch.

        Args:
            pictures: float32 (n, channels, side, side) in [0, 1].
            draws: What `draws` gave for this epoch.
            rows: (n,) which row of the draws each picture takes.
            seed: For the white noise.

        Returns:
            Changed pictures, same shape and range; what comes in from outside is black. Of three channels every pixel
            stays a mixture of neighbours: no hue, saturation or value is changed.
        """
        u = torch.as_tensor(draws[rows], dtype=torch.float32, device=pictures.device)
        moved = functional.grid_sample(
            pictures,
            self._grid(u, pictures.shape),
            mode="bilinear",
            padding_mode="zeros",
            align_corners=False,
        )
        if pictures.shape[1] > 1:
            return moved.clamp_(0.0, 1.0)
        if self.exposure:
            moved = self._expose(moved, u)
        if self.noise:
            noise = torch.empty(moved.shape, dtype=moved.dtype)
            noise.normal_(generator=torch.Generator().manual_seed(seed))
            moved = moved + self.noise * noise.to(moved.device)
        return moved.clamp_(0.0, 1.0)

    def _grid(self, u: Tensor, shape: torch.Size) -> Tensor:
        angle = u[:, 0] * math.radians(self.rotation)
        zoom = 1.0 / (1.0 + u[:, 1] * self.scale)
        mirror = torch.where(u[:, 8] < 0, -1.0, 1.0) if self.horizontal_flip else torch.ones_like(zoom)
        cosine, sine = torch.cos(angle) * zoom, torch.sin(angle) * zoom
        # normalised coordinates run from -1 to 1: a shift of the whole side is 2
        matrix = torch.stack(
            [
                torch.stack([cosine * mirror, -sine, 2 * self.shift * u[:, 2]], 1),
                torch.stack([sine * mirror, cosine, 2 * self.shift * u[:, 3]], 1),
            ],
            1,
        )
        return functional.affine_grid(matrix, list(shape), align_corners=False)

    def _expose(self, pictures: Tensor, u: Tensor) -> Tensor:
        brightness, contrast, gamma = (u[:, k, None, None, None] * self.exposure for k in (4, 5, 6))
        # the floor keeps the power's gradient-free path finite at black
        curved = pictures.clamp_min(1e-6) ** torch.exp(gamma)
        return (curved - 0.5) * (1.0 + contrast) + 0.5 + 0.5 * brightness
