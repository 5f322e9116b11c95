"""Where a network looked, and whether that can be believed: one method one file, sanity checks beside them.

It must not know how a network was fitted, what a study is, or where a picture will be shown.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tenfold.explain.edges import EdgeMap, NetworkSums, edge_map, haufe_pattern, signed_attribution
from tenfold.explain.feature_maps import feature_maps
from tenfold.explain.grad_cam import grad_cam, log_odds, normalise, raw_grad_cam
from tenfold.explain.importance import Importance, global_importance, sum_by_column
from tenfold.explain.integrated_gradients import integrated_gradients
from tenfold.explain.overlay import overlay, png_bytes
from tenfold.explain.sanity import (
    LayerSimilarity,
    Localisation,
    centre_prior,
    localisation,
    randomisation,
    randomised,
    ssim,
)
from tenfold.explain.shapley import ModalityShapley, modality_shapley

EXPLANATIONS: dict[str, Callable[..., NDArray[np.float32]]] = {"grad_cam": grad_cam}

__all__ = [
    "EXPLANATIONS",
    "EdgeMap",
    "Importance",
    "LayerSimilarity",
    "Localisation",
    "ModalityShapley",
    "NetworkSums",
    "centre_prior",
    "edge_map",
    "feature_maps",
    "global_importance",
    "grad_cam",
    "haufe_pattern",
    "integrated_gradients",
    "localisation",
    "log_odds",
    "modality_shapley",
    "normalise",
    "overlay",
    "png_bytes",
    "randomisation",
    "randomised",
    "raw_grad_cam",
    "signed_attribution",
    "ssim",
    "sum_by_column",
]
