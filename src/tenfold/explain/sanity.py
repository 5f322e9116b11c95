"""Sanity checks of heat maps: do they depend on the weights, and do they fall where the lesion is?

It must not know by which method the maps were made: it is handed maps, or a callable that makes them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.stats import norm, rankdata
from torch import nn

from tenfold.explain.interval import mean_by_patient, patient_numbers
from tenfold.network.network import Network
from tenfold.types import Estimate, FloatArray, IntArray, finite_or_none

FloatMaps = NDArray[np.float32]
Explain = Callable[[Network], FloatMaps]

RANDOM_PAIR = "random pair"


@dataclass(frozen=True)
class LayerSimilarity:
    """How much of the maps is left once the weights down to one layer are random.

    Attributes:
        layer: The layer down to which the weights are random; "random pair" is the baseline: two different
            cases under the network as it is.
        ssim: Mean structural similarity with the maps of the network as it is.
        spearman: Mean rank correlation with them, over pixels; a flat map counts as 0.
    """

    layer: str
    ssim: Estimate
    spearman: Estimate

    def to_dict(self) -> dict[str, Any]:
        """Return a mapping fit for JSON; `similarity`, `low` and `high` are the structural similarity."""
        return {
            "layer": self.layer,
            "similarity": finite_or_none(self.ssim.value),
            "low": finite_or_none(self.ssim.low),
            "high": finite_or_none(self.ssim.high),
            "n": self.ssim.n,
            "method": f"SSIM, {self.ssim.method}",
            "spearman": self.spearman.to_dict(),
        }


def randomisation(
    network: Network,
    explain: Explain,
    *,
    view: str,
    patients: Sequence[str] | None = None,
    seed: int = 0,
) -> list[LayerSimilarity]:
    """Make the weights random from the head down to the stem and compare the maps (Adebayo et al. 2018).

    In each layer the entries of every weight tensor are shuffled, so that its scale stays and only what was
    learnt goes. Maps that stay alike throughout do not depend on the weights and explain nothing.

    Args:
        network: The network; a copy is made random.
        explain: Network -> maps (n, h, w) in [0, 1] of the same n cases each time.
        view: The input whose encoder is made random, block by block, after all that lies above the encoders.
        patients: n names, so that the intervals go by patient; None where every case is its own patient.
        seed: Of the shuffling and of the bootstrap.

    Returns:
        The random-pair baseline first, then the head, then the encoder's blocks from top to stem; blocks
        without weights are passed over. With fewer than two cases there is no baseline.
    """
    shuffled = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(seed)
    before = explain(network)
    groups = patient_numbers(patients, len(before))
    rows = []
    if len(before) > 1:
        rows.append(_compare(RANDOM_PAIR, before, np.roll(before, 1, axis=0), groups, seed))
    for layer, parameters in _layers(shuffled, view):
        for parameter in parameters:
            _shuffle(parameter, generator)
        rows.append(_compare(layer, before, explain(shuffled), groups, seed))
    return rows


def randomised(network: Network, view: str, *, seed: int = 0) -> Network:
    """Return a copy in which every weight from the head to the stem of one input's encoder is shuffled."""
    shuffled = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(seed)
    for _, parameters in _layers(shuffled, view):
        for parameter in parameters:
            _shuffle(parameter, generator)
    return shuffled


def _layers(network: Network, view: str) -> list[tuple[str, list[nn.Parameter]]]:
    """Name the layers from the head down to the stem, each with its weights."""
    encoder = network.encoders[view]
    below = {id(p) for e in network.encoders.values() for p in e.blocks.parameters()}
    layers = [("head", [p for p in network.parameters() if id(p) not in below])]
    blocks = list(zip(encoder.block_names, encoder.blocks, strict=True))
    layers += [(name, list(block.parameters())) for name, block in reversed(blocks)]
    return [(name, parameters) for name, parameters in layers if parameters]


@torch.no_grad()
def _shuffle(parameter: nn.Parameter, generator: torch.Generator) -> None:
    order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
    parameter.copy_(parameter.flatten()[order].reshape(parameter.shape))


def _compare(layer: str, a: FloatMaps, b: FloatMaps, groups: IntArray, seed: int) -> LayerSimilarity:
    """Compare two stacks of maps, case by case."""
    structural = np.array([ssim(x, y) for x, y in zip(a, b, strict=True)])
    ranks = np.array([_spearman(x, y) for x, y in zip(a, b, strict=True)])
    return LayerSimilarity(
        layer,
        mean_by_patient(structural, groups, seed, "mean over cases"),
        mean_by_patient(ranks, groups, seed, "mean over cases"),
    )


def ssim(a: FloatMaps, b: FloatMaps) -> float:
    """Return the structural similarity of two maps in [0, 1] (Wang et al., IEEE TIP 2004; window sd 1.5 px).

    Args:
        a: (h, w).
        b: (h, w).

    Returns:
        1 for equal maps, about 0 for maps that share no structure.
    """
    x, y = a.astype(np.float64), b.astype(np.float64)
    mean_x, mean_y = _smooth(x), _smooth(y)
    var_x, var_y = _smooth(x * x) - mean_x**2, _smooth(y * y) - mean_y**2
    covariance = _smooth(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (var_x + var_y + c2)
    return float((luminance * structure).mean())


def _smooth(values: FloatArray) -> FloatArray:
    return np.asarray(gaussian_filter(values, sigma=1.5, truncate=3.5))


def _spearman(a: FloatMaps, b: FloatMaps) -> float:
    """Rank correlation over pixels; 0 where a map is flat, for then they share no order."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


@dataclass(frozen=True)
class Localisation:
    """Whether maps fall onto the lesion more than the middle of the film does.

    Attributes:
        pointing: Share of cases whose highest point lies in the mask (Zhang et al., IJCV 2018).
        centre_pointing: The same for the middle of the film.
        energy: Mean share of the map's sum that lies in the mask (Wang et al., CVPR-W 2020).
        centre_energy: The same for a centred Gaussian.
        energy_gain: Mean of energy less centre energy, paired by case.
        energy_over_random: Mean of energy less that of the same network with random weights, paired by case.
    """

    pointing: Estimate
    centre_pointing: Estimate
    energy: Estimate
    centre_energy: Estimate
    energy_gain: Estimate
    energy_over_random: Estimate

    def to_dict(self) -> dict[str, Any]:
        """Return a mapping fit for JSON."""
        return {name: getattr(self, name).to_dict() for name in self.__dataclass_fields__}


def localisation(
    maps: FloatMaps,
    masks: NDArray[np.bool_],
    *,
    random_maps: FloatMaps,
    patients: Sequence[str] | None = None,
    seed: int = 0,
) -> Localisation | None:
    """Play the pointing game and weigh the energy inside the mask, beside a centre prior and random weights.

    Args:
        maps: (n, h, w), not negative; raw or scaled gives the same. A map of zeros points nowhere: it is a
            miss with energy 0.
        masks: (n, h, w); cases with an empty mask are left out.
        random_maps: (n, h, w), of the same network with random weights.
        patients: n names, so that the bootstrap goes by patient; None where every case is its own patient.
        seed: Of the bootstrap.

    Returns:
        The figures, or None where no case has a mask.
    """
    marked = masks.any(axis=(1, 2))
    if not marked.any():
        return None
    groups = patient_numbers(patients, len(maps))[marked]
    maps, random_maps, masks = maps[marked], random_maps[marked], masks[marked]
    centre = np.broadcast_to(centre_prior(maps.shape[1], maps.shape[2]), maps.shape)
    inside, central, by_chance = (_energy(each, masks) for each in (maps, centre, random_maps))
    return Localisation(
        pointing=_wilson(_hits(maps, masks)),
        centre_pointing=_wilson(_hits(centre, masks)),
        energy=mean_by_patient(inside, groups, seed, "mean share of the map inside the mask"),
        centre_energy=mean_by_patient(central, groups, seed, "mean share of a centred Gaussian inside the mask"),
        energy_gain=mean_by_patient(inside - central, groups, seed, "mean paired difference from the centred Gaussian"),
        energy_over_random=mean_by_patient(
            inside - by_chance, groups, seed, "mean paired difference from random weights"
        ),
    )


def centre_prior(height: int, width: int) -> FloatMaps:
    """Return a centred Gaussian whose sd is a quarter of each side: a map that knows nothing but the frame.

    Returns:
        (height, width), highest at the centre.
    """
    y = (np.arange(height) - (height - 1) / 2) / (height / 4)
    x = (np.arange(width) - (width - 1) / 2) / (width / 4)
    return np.asarray(np.exp(-(y[:, None] ** 2 + x[None, :] ** 2) / 2), np.float32)


def _hits(maps: FloatMaps, masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Say for each case whether the highest point lies in the mask."""
    flat = maps.reshape(len(maps), -1)
    top = flat.argmax(axis=1)
    rows = np.arange(len(maps))
    return np.asarray(masks.reshape(len(masks), -1)[rows, top] & (flat[rows, top] > 0))


def _energy(maps: FloatMaps, masks: NDArray[np.bool_]) -> FloatArray:
    """Return for each case the share of the map inside the mask."""
    total = maps.sum(axis=(1, 2), dtype=np.float64)
    inside = (maps * masks).sum(axis=(1, 2), dtype=np.float64)
    return np.divide(inside, total, out=np.zeros_like(total), where=total > 0)


def _wilson(hits: NDArray[np.bool_]) -> Estimate:
    """Proportion with its Wilson score interval (Wilson, JASA 1927)."""
    n, p, z = len(hits), float(hits.mean()), float(norm.ppf(0.975))
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)))
    return Estimate(p, max(0.0, middle - half), min(1.0, middle + half), "Wilson 95 %, n = cases", n)
