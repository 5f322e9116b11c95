"""Where a network looked, and whether that can be believed: one method one file, sanity checks beside them.

It must not know how a network was fitted, what a study is, or where a picture will be shown.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tenfold.explain.feature_maps import feature_maps
from tenfold.explain.grad_cam import grad_cam, log_odds, normalise, raw_grad_cam
from tenfold.explain.overlay import overlay, png_bytes
from tenfold.explain.sanity import (
    LayerSimilarity,
    Localisation,
    centre_prior,
    localisation,
    randomisation,
    ssim,
)

EXPLANATIONS: dict[str, Callable[..., NDArray[np.float32]]] = {"grad_cam": grad_cam}

__all__ = [
    "EXPLANATIONS",
    "LayerSimilarity",
    "Localisation",
    "centre_prior",
    "feature_maps",
    "grad_cam",
    "localisation",
    "log_odds",
    "normalise",
    "overlay",
    "png_bytes",
    "randomisation",
    "raw_grad_cam",
    "ssim",
]
