"""Pooling: from the embeddings of the pictures that one case has of a view to one embedding.

It must not know what the pictures show, how they were encoded, or what other inputs there are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tenfold.network.fusion import numbers

ATTENTION_WIDTH = 64


class Pool(nn.Module):
    """What the ways of pooling share: a weighted sum over the pictures that are there. `weights` is left open.

    Args:
        dim: Length of the embeddings, and of the result.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, embeddings: Tensor) -> Tensor:
        """Join (n, k, dim) to (n, dim); a picture that is absent is a row of NaN, and so is a case without any."""
        there, known = _known(embeddings)
        joined = (self.weights(known, there)[:, :, None] * known).sum(dim=1)
        return numbers(joined).masked_fill(~there.any(dim=1, keepdim=True), torch.nan)

    def shares(self, embeddings: Tensor) -> Tensor:
        """Say what each picture weighs in its case, (n, k) of (n, k, dim); NaN where there is no picture."""
        there, known = _known(embeddings)
        return self.weights(known, there).masked_fill(~there, torch.nan)

    def weights(self, embeddings: Tensor, there: Tensor) -> Tensor:
        """Weigh the pictures: (n, k) of embeddings (n, k, dim), zeros where absent; `there` is bool (n, k).

        The weights of a case add up to 1, and are 0 where a picture is absent; those of a case without any
        are not asked, but must be numbers.
        """
        raise NotImplementedError


class MeanPool(Pool):
    """Every picture weighs the same."""

    def weights(self, embeddings: Tensor, there: Tensor) -> Tensor:
        """Weigh (n, k) pictures."""
        return (there / there.sum(dim=1, keepdim=True).clamp(min=1)).to(embeddings.dtype)


class AttentionPool(Pool):
    """Gated attention over the pictures (Ilse, Tomczak, Welling, ICML 2018): what a picture shows decides its weight.

    It starts at equal weights, that is as the mean, and learns which pictures to look at.

    Args:
        dim: Length of the embeddings, and of the result.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.content = nn.Linear(dim, ATTENTION_WIDTH)
        self.gate = nn.Linear(dim, ATTENTION_WIDTH)
        # without a bias, which a softmax would not see
        self.score = nn.Linear(ATTENTION_WIDTH, 1, bias=False)
        nn.init.zeros_(self.score.weight)

    def weights(self, embeddings: Tensor, there: Tensor) -> Tensor:
        """Weigh (n, k) pictures."""
        scores = self.score(self.content(embeddings).tanh() * self.gate(embeddings).sigmoid())[:, :, 0]
        # a case without any picture keeps its scores: a softmax of nothing is NaN, in the backward pass too
        absent = ~there & there.any(dim=1, keepdim=True)
        return scores.masked_fill(absent, -torch.inf).softmax(dim=1)


POOLS: dict[str, type[MeanPool] | type[AttentionPool]] = {"mean": MeanPool, "attention": AttentionPool}


def _known(embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Say which pictures are there, (n, k), and put zeros in the place of the others."""
    there = ~embeddings[:, :, 0].isnan()
    return there, torch.where(there[:, :, None], embeddings, 0)
