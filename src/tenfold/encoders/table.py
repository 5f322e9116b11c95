"""What the table encoders share: their input, and that they always learn.

It must not know what a column means, nor how its values were prepared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.encoders.contract import Encoder
from tenfold.errors import EncoderError

CHANNELS = 2
_GAP = 2.0
"""What a gap counts: where one row of six has it, its SD is 0.75, so it weighs about as much as a value does."""


class TableEncoder(Encoder):
    """An encoder of (n, 2, features): the prepared values, and 1 where a value was observed, 0 where it was not.

    Args:
        name: Its name among the encoders.
        features: Number of features.
        dim: Length of the embedding.
        options: The options of the family but for `features`.
        blocks: As for `Encoder`; a block `Columns` should begin the first.

    Raises:
        EncoderError: There is no feature, or the embedding has no length.
    """

    always_learns = True

    def __init__(
        self,
        name: str,
        features: int,
        dim: int,
        options: Mapping[str, Any],
        blocks: Sequence[tuple[str, nn.Module]],
    ) -> None:
        super().__init__(
            spec={"encoder": name, "options": {"features": features, **options}},
            modality="table",
            channels=CHANNELS,
            size=features,
            dim=dim,
            blocks=blocks,
            pool=nn.Identity(),
        )

    @staticmethod
    def own_size(features: int, **_: object) -> int:
        """Number of features."""
        return features

    def example(self, n: int, size: int, generator: torch.Generator) -> Tensor:
        """Make up n rows of a table, about a fifth of them not observed; `size` is not asked."""
        values = torch.randn(n, self.size, generator=generator)
        observed = (torch.rand(n, self.size, generator=generator) > 0.2).float()
        return torch.stack([values, observed], dim=1)


class Columns(nn.Module):
    """Passes a table on, if it is one of so many features.

    Args:
        features: Number of features.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features

    def forward(self, x: Tensor) -> Tensor:
        """Give x itself, (n, 2, features)."""
        if x.ndim != 3 or tuple(x.shape[1:]) != (CHANNELS, self.features) or not x.is_floating_point():
            raise EncoderError(
                f"an input of shape {tuple(x.shape)} and type {x.dtype}",
                expected=f"a float table of shape (n, {CHANNELS}, {self.features}): values, and whether observed",
            )
        return x


class ValuesAndGaps(nn.Module):
    """Lays values and gaps end to end. Most values are there, so a gap is told by what is not 0."""

    def forward(self, x: Tensor) -> Tensor:
        """Give (n, 2 * features) of x, (n, 2, features)."""
        return torch.cat([x[:, 0], _GAP * (1.0 - x[:, 1])], dim=1)


def refuse_below_one(name: str, **options: int) -> None:
    """Refuse options that count something and are below 1.

    Raises:
        EncoderError: One is.
    """
    for option, value in options.items():
        if value < 1:
            raise EncoderError(f"{option} = {value}", expected="at least 1", where=f"encoder {name}")
