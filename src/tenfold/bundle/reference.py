"""How far a case lies from the patients that a network was fitted on.

It must not know what is predicted, nor what is done with a case that lies far away.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tenfold.encoders import Encoder
from tenfold.errors import BundleError
from tenfold.network.network import Network
from tenfold.types import FloatArray

_MOST_AXES = 64
_UNUSUAL = 0.99
_ROBUST_SD = 1.4826
_FOREIGN = 2.5
_FOREIGN_SD = 4.0
_BEYOND_ALL = 1.25
_KEPT = 256


@dataclass(frozen=True)
class Judged:
    """How far some pictures or rows lie from the training patients.

    Attributes:
        distance: (n,) 1 is the median of patients of the study that the network was not fitted on.
        percentile: (n,) share of those patients who lie no farther, from 0 to 1.
        unusual: (n,) farther than 99 % of them.
        foreign: (n,) so far that no answer should be given.
    """

    distance: FloatArray
    percentile: FloatArray
    unusual: NDArray[np.bool_]
    foreign: NDArray[np.bool_]


@dataclass(frozen=True)
class _Depth:
    """The law of the features after one step: normal, of which all but a few axes have one variance."""

    step: int
    mean: FloatArray
    axes: FloatArray
    variances: FloatArray
    rest: float
    median: float

    def distance(self, features: FloatArray) -> FloatArray:
        centred = features - self.mean
        along = centred @ self.axes
        beside = np.maximum((centred**2).sum(axis=1) - (along**2).sum(axis=1), 0.0)
        return np.asarray(np.sqrt((along**2 / self.variances).sum(axis=1) + beside / self.rest) / self.median)


@dataclass(frozen=True)
class Reference:
    """What is known of the training patients as one network sees one of its inputs.

    After a third and two thirds of the encoder's steps, features are pooled over the picture (mean and standard
    deviation of every map) and described by a normal law whose covariance is that of probabilistic principal components
    (Tipping & Bishop, J R Stat Soc B 1999). The Mahalanobis distance (Lee et al., NeurIPS 2018) is divided by its
    median among patients whom the network was not fitted on; the larger of the two counts. What the last steps give
    has forgotten what a picture looks like: there, chest films lie among breast ultrasound.

    It sees that a picture is of another kind: another organ, a photograph, noise, a picture on its side, most
    negatives. It does not see a wrong diagnosis, another patient's picture, a mirrored one, or a change as small as
    callipers or brightness. What the encoder does not look at it cannot see either: a small network that was fitted
    from scratch tells far fewer foreign pictures apart than one that came with weights. Pictures of another hospital
    lie farther than those of the study, and some are refused.

    Attributes:
        depths: The laws.
        held_out: (m,) distances of patients whom the network was not fitted on, ascending.
    """

    depths: tuple[_Depth, ...]
    held_out: FloatArray

    @property
    def steps(self) -> tuple[int, ...]:
        """Number of the encoder's steps after which it looks."""
        return tuple(depth.step for depth in self.depths)

    @property
    def limit(self) -> float:
        """The distance from which on a case is foreign.

        Two and a half times that of the median patient; where patients of the study differ more than pictures do, four
        robust SD above the median of the logarithm, and a quarter beyond the farthest of them.
        """
        # no logarithm of 0, where all pictures are one
        logs = np.log(np.maximum(self.held_out, 1e-6))
        spread = _ROBUST_SD * float(np.median(np.abs(logs - np.median(logs))))
        robust = float(np.exp(np.median(logs) + _FOREIGN_SD * spread))
        return max(_FOREIGN, robust, _BEYOND_ALL * float(self.held_out[-1]))

    def judge(self, network: Network, name: str, x: Tensor) -> Judged:
        """Say how far cases lie.

        Args:
            network: The network that the reference was made with.
            name: The input.
            x: What its encoder takes, float32 (n, ...); of a view with several pictures, each picture on its own.
        """
        return self.judge_features(_features(network.encoders[name], self.steps, x))

    def judge_features(self, features: Sequence[FloatArray]) -> Judged:
        """Say how far cases lie whose features are known already.

        Args:
            features: (n, features) after each of `steps`, as `pooled` gives them.
        """
        distance = np.max([d.distance(f) for d, f in zip(self.depths, features, strict=True)], axis=0)
        percentile = np.searchsorted(self.held_out, distance, side="right") / len(self.held_out)
        return Judged(distance, percentile, distance > np.quantile(self.held_out, _UNUSUAL), distance > self.limit)

    def state(self) -> dict[str, Any]:
        """Return what `from_state` needs beside the arrays, fit for JSON."""
        return {"depths": [{"step": d.step, "rest": d.rest, "median": d.median} for d in self.depths]}

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Return what `from_state` needs beside the state."""
        found = {"held_out": self.held_out}
        for k, depth in enumerate(self.depths):
            found |= {f"{k}.mean": depth.mean, f"{k}.axes": depth.axes, f"{k}.variances": depth.variances}
        return {name: array.astype(np.float32) for name, array in found.items()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Reference:
        """Read what `state` and `arrays` wrote.

        Raises:
            BundleError: Something is missing.
        """
        try:
            depths = tuple(
                _Depth(
                    mean=np.asarray(arrays[f"{k}.mean"], np.float64),
                    axes=np.asarray(arrays[f"{k}.axes"], np.float64),
                    variances=np.asarray(arrays[f"{k}.variances"], np.float64),
                    **depth,
                )
                for k, depth in enumerate(state["depths"])
            )
            return cls(depths, np.asarray(arrays["held_out"], np.float64))
        except (KeyError, TypeError) as error:
            raise BundleError(f"what is known of the training patients is incomplete: {error}") from error


def fit_reference(network: Network, name: str, train: Iterable[Tensor], held_out: Iterable[Tensor]) -> Reference:
    """Describe the training patients as a network sees one of its inputs.

    Args:
        network: The network.
        name: The input.
        train: Batches of what its encoder takes, of the patients that the network was fitted on: float32 (n, ...), of a
            view with several pictures each picture on its own.
        held_out: Likewise, of patients of the same study whom it was not fitted on.
    """
    encoder = network.encoders[name]
    steps = _steps(encoder)
    inside, outside = (_stacked(_features(encoder, steps, x) for x in batches) for batches in (train, held_out))
    depths = tuple(_law(step, a, b) for step, a, b in zip(steps, inside, outside, strict=True))
    distances = np.sort(np.max([d.distance(f) for d, f in zip(depths, outside, strict=True)], axis=0))
    if len(distances) > _KEPT:
        distances = np.quantile(distances, np.linspace(0, 1, _KEPT))
    return Reference(depths, distances)


def _steps(encoder: Encoder) -> list[int]:
    """After a third and after two thirds of the steps; encoders of few steps have one."""
    return sorted({max(1, round(encoder.depth / 3)), max(1, round(2 * encoder.depth / 3))})


def pooled(encoder: Encoder, features: Tensor, step: int) -> Tensor:
    """Pool what a step of an encoder gave over its places.

    Args:
        encoder: The encoder.
        features: (n, ...), what it gave.
        step: Number of steps that were run.

    Returns:
        (n, 2 x channels), mean and standard deviation; what has no places stays as it is.
    """
    maps = encoder.as_map(features, step)
    if maps is None and features.ndim == 2:
        return features
    if maps is None and encoder.modality == "image":
        maps = features.transpose(1, 2)
    places = (features if maps is None else maps).flatten(2)
    return torch.cat([places.mean(2), places.std(2, unbiased=False)], 1)


@torch.inference_mode()
def _features(encoder: Encoder, steps: Sequence[int], x: Tensor) -> list[FloatArray]:
    """(n, features) pooled after each of some steps."""
    found, at = [], 0
    for step in steps:
        x, at = encoder(x, at, step), step
        found.append(pooled(encoder, x, step).cpu().numpy().astype(np.float64))
    return found


def _stacked(batches: Iterable[list[FloatArray]]) -> list[FloatArray]:
    return [np.concatenate(parts) for parts in itertools.zip_longest(*batches)]


def _law(step: int, train: FloatArray, held_out: FloatArray) -> _Depth:
    """Fit the normal law of one depth; as many axes as a third of the cases can bear."""
    mean = train.mean(axis=0)
    _, singular, axes = np.linalg.svd(train - mean, full_matrices=False)
    variances = singular**2 / max(len(train) - 1, 1)
    kept = max(1, min(_MOST_AXES, len(train) // 3, len(variances) - 1))
    # never below a small part of the whole, or what hardly varies would decide alone
    floor = 1e-3 * float(variances.mean()) + 1e-12
    rest = max(float(variances[kept:].sum()) / max(train.shape[1] - kept, 1), floor)
    law = _Depth(step, mean, axes[:kept].T, np.maximum(variances[:kept], floor), rest, 1.0)
    median = float(np.median(law.distance(held_out)))
    return _Depth(step, mean, law.axes, law.variances, rest, median if median > 0 else 1.0)
