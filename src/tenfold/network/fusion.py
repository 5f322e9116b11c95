"""Fusion: from one embedding an input to one embedding a patient.

It must not know what the inputs are or what will be predicted.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tenfold.errors import EncoderError


class Concat(nn.Module):
    """The embeddings end to end, in the order the inputs were named.

    Args:
        dims: Length of each input's embedding.

    Attributes:
        dim: Length of the result.
    """

    def __init__(self, dims: Mapping[str, int]) -> None:
        super().__init__()
        self.order = tuple(dims)
        self.dim = sum(dims.values())

    def forward(self, embeddings: Mapping[str, Tensor]) -> Tensor:
        """Join {input: (n, dim of it)} to (n, dim).

        Raises:
            EncoderError: An input is absent.
        """
        absent = [name for name in self.order if name not in embeddings]
        if absent:
            raise EncoderError(
                f"no input {', '.join(absent)}",
                expected=f"all of {', '.join(self.order)}: fusion 'concat' cannot do without one",
            )
        return torch.cat([embeddings[name] for name in self.order], dim=1)


FUSIONS: dict[str, type[Concat]] = {"concat": Concat}
