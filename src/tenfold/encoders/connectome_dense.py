"""Dense layers over the edges of a connectome, as He et al. 2020 have them.

It must not know which regions an edge joins, nor how the connectome was measured or prepared.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tenfold.encoders.contract import Encoder
from tenfold.encoders.dense import check_dense, dense
from tenfold.encoders.table import refuse_below_one
from tenfold.errors import EncoderError

NAME = "connectome_dense"


class ConnectomeDense(Encoder):
    """(n, edges) through dense layers, each with its norm, ReLU and dropout.

    He et al. (Sci Rep 2020;10:15072) have 4005-128-32 with batch norm and batches of 8. Layer norm is the default here:
    the statistics of 8 subjects are mostly noise.

    Args:
        edges: Number of edges; taken from the prepared connectomes.
        widths: Widths of the layers; the last is the length of the embedding.
        norm: "layer", "batch" or "none".
        dropout: Share of each layer dropped in training.

    Raises:
        EncoderError: An option is impossible.
    """

    def __init__(
        self, edges: int, widths: tuple[int, ...] = (128, 32), norm: str = "layer", dropout: float = 0.0
    ) -> None:
        refuse_below_one(NAME, edges=edges, widths=min(widths, default=0))
        check_dense(NAME, norm, dropout)
        blocks: list[tuple[str, nn.Module]] = []
        for k, (inputs, width) in enumerate(zip((edges, *widths), widths, strict=False)):
            first = [] if k else [Edges(edges)]
            blocks.append((f"dense{k + 1}", nn.Sequential(*first, *dense(inputs, width, norm, dropout))))
        super().__init__(
            spec={
                "encoder": NAME,
                "options": {"edges": edges, "widths": list(widths), "norm": norm, "dropout": dropout},
            },
            modality="connectome",
            channels=1,
            size=edges,
            dim=widths[-1],
            blocks=blocks,
            pool=nn.Identity(),
        )

    @staticmethod
    def own_size(edges: int, **_: object) -> int:
        """Number of edges."""
        return edges

    def example(self, n: int, size: int, generator: torch.Generator) -> Tensor:
        """Make up n connectomes; `size` is not asked."""
        return torch.randn(n, self.size, generator=generator)


class Edges(nn.Module):
    """Passes connectomes on, if they have so many edges.

    Args:
        edges: Number of edges.
    """

    def __init__(self, edges: int) -> None:
        super().__init__()
        self.edges = edges

    def forward(self, x: Tensor) -> Tensor:
        """Give x itself, (n, edges)."""
        if x.ndim != 2 or x.shape[1] != self.edges or not x.is_floating_point():
            raise EncoderError(
                f"an input of shape {tuple(x.shape)} and type {x.dtype}",
                expected=f"float connectomes of shape (n, {self.edges}), one number an edge",
            )
        return x
