"""Feature maps: what the first convolution, the pooling, and the first and last addition of an encoder see.

It must not know the encoder's classes: it watches the operations themselves, so any network will do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tenfold.explain.grad_cam import evaluating
from tenfold.network.network import Network

FIRST_CONVOLUTION, POOLING = "first convolution", "pooling"
FIRST_ADDITION, LAST_ADDITION = "first addition", "last addition"


def feature_maps(
    network: Network, inputs: Mapping[str, Tensor], *, view: str, channels: int = 16
) -> dict[str, NDArray[np.float32]]:
    """Return the most varied channels at four places of an encoder, for the first case.

    An encoder without a place (a network without shortcuts has no addition) simply has no such entry.

    Args:
        network: Any network of this package; it is left as it was.
        inputs: For each input a float32 tensor (n, channels, h, w) in [0, 1], or (n, pictures, channels, h, w); the
            first case has the watched one.
        view: The input whose encoder is watched.
        channels: How many channels at most; those with the largest standard deviation are taken.

    Returns:
        "first convolution", "pooling", "first addition", "last addition" -> (channels, h, w),
        the most varied first.
    """
    watch = _Watch()
    with torch.no_grad(), evaluating(network), watch:
        pictures = inputs[view].flatten(0, 1) if inputs[view].ndim == 5 else inputs[view]
        network.encoders[view](pictures[:1])
    return {place: _most_varied(watch.seen[place], channels) for place in _PLACES if place in watch.seen}


_PLACES = (FIRST_CONVOLUTION, POOLING, FIRST_ADDITION, LAST_ADDITION)
_CONVOLUTIONS = {"conv2d"}
_POOLINGS = {"max_pool2d", "avg_pool2d"}
_ADDITIONS = {"add", "add_"}


class _Watch(TorchFunctionMode):
    """Keep the outputs of the four places while a network runs."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, Tensor] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if isinstance(out, Tensor) and out.ndim == 4:
            if name in _CONVOLUTIONS:
                self._keep_first(FIRST_CONVOLUTION, out)
            elif name in _POOLINGS:
                self._keep_first(POOLING, out)
            elif name in _ADDITIONS and _is_shortcut(args):
                self._keep_first(FIRST_ADDITION, out)
                self.seen[LAST_ADDITION] = out.clone()
        return out

    def _keep_first(self, place: str, out: Tensor) -> None:
        """Keep a copy, for the next operation may work in place."""
        if place not in self.seen:
            self.seen[place] = out.clone()


def _is_shortcut(args: tuple[Any, ...]) -> bool:
    """Two maps of one shape are joined; adding a bias or a constant is no shortcut."""
    return (
        len(args) > 1
        and all(isinstance(a, Tensor) and a.ndim == 4 for a in args[:2])
        and (args[0].shape == args[1].shape)
    )


def _most_varied(maps: Tensor, channels: int) -> NDArray[np.float32]:
    """Pick the channels with the largest standard deviation, (1, c, h, w) -> (channels, h, w)."""
    values = maps[0].float().cpu().numpy()
    order = np.argsort(-values.std(axis=(1, 2)), kind="stable")[:channels]
    return np.asarray(values[order], np.float32)
