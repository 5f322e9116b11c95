"""The first layer of every image encoder: from [0, 1] to the scale that its weights were trained on.

It must not know where mean and deviation come from, nor how a film was read.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tenfold.errors import EncoderError


class Normalise(nn.Module):
    """(x - mean) / std by channel; a grey film is first repeated over the channels that the weights expect.

    Repeating comes before normalising because the weights' channels differ in mean and deviation: the network
    then sees what it would have seen of a grey photograph.

    Args:
        mean: One value for each channel of the weights, on the scale [0, 1].
        std: Likewise, above zero.
        channels: Channels of the input: as many as the weights have, or 1.
        side: Height and width that the network demands; 0 takes any.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], channels: int, side: int = 0) -> None:
        super().__init__()
        self.channels, self.side = channels, side
        # Not in the state dict: the spec holds them, and one fact must not be saved twice.
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (n, channels, h, w) in [0, 1]; gives (n, len(mean), h, w)."""
        if x.ndim != 4 or x.shape[1] != self.channels or not x.is_floating_point():
            raise EncoderError(
                f"an input of shape {tuple(x.shape)} and type {x.dtype}",
                expected=f"float pictures in [0, 1] of shape (n, {self.channels}, height, width)",
            )
        if self.side and tuple(x.shape[2:]) != (self.side, self.side):
            raise EncoderError(
                f"pictures of {x.shape[2]} x {x.shape[3]}",
                expected=f"{self.side} x {self.side}: this network is built for one size",
                do=f"prepare the pictures at {self.side}, or give the encoder's option size",
            )
        return (x - self.mean) / self.std
