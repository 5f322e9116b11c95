"""Grad-CAM: which regions of a picture speak for a class (Selvaraju et al., ICCV 2017).

It must not know how the network was fitted, or what the picture shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tenfold.encoders.contract import Encoder
from tenfold.errors import EncoderError
from tenfold.network.heads import HeadSpec
from tenfold.network.network import Network

FloatMaps = NDArray[np.float32]


def grad_cam(
    network: Network,
    inputs: Mapping[str, Tensor],
    *,
    view: str,
    target: str,
    index: int,
    step: int | None = None,
) -> FloatMaps:
    """Return heat maps, each scaled so that its highest point is 1.

    Args:
        network: Any network of this package; its weights, gradients and mode are left as they were.
        inputs: For each input of the network what `Network.forward` takes, on the network's device.
        view: The input whose picture is explained, (n, channels, h, w), or of several a case (n, k, channels, h, w);
            the others are held as they are.
        target: The head that is asked.
        index: The class, as a column of that head's logits.
        step: The encoder step after which the map is taken; by default the last that still has a map.

    Returns:
        (n, h, w) float32 in [0, 1], in the frame of the input; of several pictures a case (n, k, h, w), each picture
        scaled by itself. A map that is 0 everywhere says that no region speaks for the class; it is NaN where there is
        no picture.

    Raises:
        EncoderError: The encoder has no map at that step.
    """
    return normalise(raw_grad_cam(network, inputs, view=view, target=target, index=index, step=step))


def raw_grad_cam(
    network: Network,
    inputs: Mapping[str, Tensor],
    *,
    view: str,
    target: str,
    index: int,
    step: int | None = None,
) -> FloatMaps:
    """Return the positive part of the weighted maps, in units of the log-odds, not scaled.

    These can be averaged over the models of a bundle; the scaled ones cannot. Arguments, shapes and errors
    are those of `grad_cam`.
    """
    encoder: Encoder = network.encoders[view]
    # Autograd refuses tensors that were born in inference mode, so the caller's are copied outside of it.
    with torch.inference_mode(False), torch.enable_grad(), evaluating(network):
        own = {name: tensor.detach().clone() for name, tensor in inputs.items()}
        after = last_map(encoder, _one_by_one(own[view], own[view])[:1]) if step is None else step
        with torch.no_grad():
            features = network.features(view, own[view], 0, after)
        maps = _as_map(encoder, features, own[view], after)
        features.requires_grad_()
        logits = network({**own, view: features}, start={view: after})[target]
        # the sum hangs on the features even where no case has a picture
        score = log_odds(network.head_specs[target], logits, index).sum() + 0 * features.sum()
        (gradient,) = torch.autograd.grad(score, features)
        weights = _as_map(encoder, gradient, own[view], after).mean(dim=(2, 3), keepdim=True)
        positive = (weights * maps).sum(dim=1, keepdim=True).relu()
        size = own[view].shape[-2:]
        full = nn.functional.interpolate(positive, size=size, mode="bilinear", align_corners=False)
        return full.reshape(*own[view].shape[:-3], *size).detach().cpu().numpy().astype(np.float32)


def _as_map(encoder: Encoder, features: Tensor, pictures: Tensor, step: int) -> Tensor:
    """Maps (pictures, channels, h, w) of what a step gave."""
    maps = encoder.as_map(_one_by_one(features, pictures), step)
    if maps is None:
        raise EncoderError(
            f"no map after step {step} of the encoder, but a tensor of {features.ndim} dimensions",
            expected="a step that gives (cases, channels, height, width), or tokens of which the later steps use all",
            do="leave `step` out, and the last map is taken",
        )
    return maps


def _one_by_one(features: Tensor, pictures: Tensor) -> Tensor:
    """Lay what was made of several pictures a case one after another, as an encoder takes them."""
    return features.flatten(0, 1) if pictures.ndim == 5 else features


def log_odds(head: HeadSpec, logits: Tensor, index: int) -> Tensor:
    """Return the log-odds of one class, the quantity whose gradient is taken.

    The paper takes the logit. Behind a softmax a logit alone means nothing, for adding the same amount to all
    of them changes no probability; so there the log of the odds against the other classes is taken. A
    sigmoid's logit is its log-odds already.

    Args:
        head: The head.
        logits: (n, K).
        index: The class; of levels and scores 1 is yes.

    Returns:
        (n,).
    """
    if head.kind in ("multilabel", "two_sigmoid"):
        return logits[:, index]
    scores = head.scores(logits)
    others = torch.cat([scores[:, :index], scores[:, index + 1 :]], dim=1)
    return scores[:, index] - others.logsumexp(dim=1)


def map_step(encoder: Encoder, pictures: Tensor, layer: int) -> int:
    """Return the step after which a map is taken, for `step`.

    Args:
        encoder: The encoder of the pictures.
        pictures: (n, channels, h, w) or (n, k, channels, h, w), of which one is looked at.
        layer: 1 is the last map, as Selvaraju et al. take it; 2 the one a block below, and so on. Lower maps are finer
            and know less of what the network makes of them.

    Raises:
        EncoderError: There are not so many maps.
    """
    step = last_map(encoder, _one_by_one(pictures, pictures)[:1]) + 1 - layer
    if step < 1:
        raise EncoderError(f"layer = {layer}", expected=f"1 to {step + layer - 1}: there are no more maps")
    return step


def normalise(maps: FloatMaps) -> FloatMaps:
    """Divide each map by its highest value; a map of zeros stays one, and so does one of NaN.

    Args:
        maps: (n, h, w) or (n, k, h, w), not negative.

    Returns:
        Same shape, in [0, 1].
    """
    top = maps.max(axis=(-2, -1), keepdims=True)
    return np.asarray(np.divide(maps, top, out=np.zeros_like(maps), where=~(top <= 0)), np.float32)


@torch.no_grad()
def last_map(encoder: Encoder, picture: Tensor) -> int:
    """Return the last step of an encoder after which there is a map of more than one pixel (`Encoder.as_map`).

    Args:
        encoder: The encoder.
        picture: (1, channels, h, w).

    Raises:
        EncoderError: There is none.
    """
    last, current = 0, picture
    for step in range(encoder.depth):
        current = encoder(current, step, step + 1)
        seen = encoder.as_map(current, step + 1)
        if seen is not None and seen.shape[-1] * seen.shape[-2] > 1:
            last = step + 1
    if last == 0:
        raise EncoderError(
            "this encoder has no step that yields a map",
            expected="at least one block whose output is (cases, channels, height, width)",
        )
    return last


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation and every part of it back afterwards."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
