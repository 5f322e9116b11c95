"""Fusion: from one embedding an input to one embedding a patient, whatever inputs a patient lacks.

It must not know what the inputs are or what will be predicted.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tenfold.errors import EncoderError

SPOKEN_WIDTH = 64


class Fusion(nn.Module):
    """What the ways of fusion share: which inputs are there, and modality dropout. `fuse` is left open.

    An input that is absent for a case has a row of NaN as its embedding; one that is not among the embeddings is
    absent for every case. Modality dropout (Neverova et al., IEEE TPAMI 2016, "ModDrop") lets each case lose each
    of its inputs with probability `drop` in training, but never all of them, so that the network learns to do
    without; in eval nothing is dropped.

    Args:
        dims: Length of each input's embedding, by input.
        drop: Probability from 0 to below 1.

    Attributes:
        dim: Length of the result.
    """

    dim: int

    def __init__(self, dims: Mapping[str, int], drop: float = 0.0) -> None:
        super().__init__()
        self.order = tuple(dims)
        self.dims = dict(dims)
        self.drop = drop

    def forward(self, embeddings: Mapping[str, Tensor]) -> Tensor:
        """Join {input: (n, dim of it)} to (n, dim).

        Raises:
            EncoderError: A case has none of the inputs.
        """
        some = next((embeddings[name] for name in self.order if name in embeddings), None)
        if some is None:
            raise EncoderError(f"no input {' and no input '.join(self.order)}", expected="one of them at least")
        rows = [
            embeddings[name] if name in embeddings else some.new_full((len(some), dim), torch.nan)
            for name, dim in self.dims.items()
        ]
        there = torch.stack([present(row) for row in rows], dim=1)
        _refuse_empty(there, self.order)
        if self.training and self.drop:
            there = _dropped(there, self.drop)
        # NaN must not come near a product: 0 x NaN is NaN, in the backward pass too
        return self.fuse([torch.where(there[:, i, None], row, 0) for i, row in enumerate(rows)], there)

    def fuse(self, embeddings: list[Tensor], there: Tensor) -> Tensor:
        """Join m embeddings (n, dim of it), zeros where absent, to (n, dim); `there` is bool (n, m)."""
        raise NotImplementedError


class Concat(Fusion):
    """The embeddings end to end, in the order the inputs were named.

    In the place of an absent one stands a vector that is learned, one an input, from zeros on. A single input
    has none, for without it nothing can be said.

    Args:
        dims: Length of each input's embedding, by input.
        drop: As for `Fusion`.
    """

    def __init__(self, dims: Mapping[str, int], drop: float = 0.0) -> None:
        super().__init__(dims, drop)
        self.dim = sum(dims.values())
        lengths = list(dims.values()) if len(dims) > 1 else []
        self.absent = nn.ParameterList(nn.Parameter(torch.zeros(length)) for length in lengths)

    def fuse(self, embeddings: list[Tensor], there: Tensor) -> Tensor:
        """Join m embeddings (n, dim of it) to (n, sum of dims)."""
        if not len(self.absent):
            return embeddings[0]
        filled = [
            torch.where(there[:, i, None], row, absent)
            for i, (row, absent) in enumerate(zip(embeddings, self.absent, strict=True))
        ]
        return torch.cat(filled, dim=1)


class _Spoken(Fusion):
    """Each embedding through a linear layer of its own and tanh, to one width; `fuse` is still open."""

    def __init__(self, dims: Mapping[str, int], drop: float = 0.0) -> None:
        super().__init__(dims, drop)
        self.dim = SPOKEN_WIDTH
        self.hidden = nn.ModuleList(nn.Linear(length, SPOKEN_WIDTH) for length in dims.values())

    def said(self, embeddings: list[Tensor]) -> Tensor:
        """(n, m, 64) what each input says."""
        return torch.stack([layer(row).tanh() for layer, row in zip(self.hidden, embeddings, strict=True)], dim=1)


class Gated(_Spoken):
    """A weighted sum of what the inputs say, with weights that depend on the case.

    After the gated multimodal unit of Arevalo et al. (ICLR workshop 2017, arXiv 1702.01992): each embedding goes
    through its own linear layer and tanh, and a gate that sees all of them weighs the results. Their sigmoid of two
    inputs is a softmax here, over the inputs that a case has, so there may be any number. And the gate sees what
    came out of the tanh and starts at equal weights: on bare embeddings of unlike scale it soon shuts out one input
    for good.

    Args:
        dims: Length of each input's embedding, by input.
        drop: As for `Fusion`.
    """

    def __init__(self, dims: Mapping[str, int], drop: float = 0.0) -> None:
        super().__init__(dims, drop)
        self.gate = nn.Linear(len(dims) * SPOKEN_WIDTH, len(dims))
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def fuse(self, embeddings: list[Tensor], there: Tensor) -> Tensor:
        """Join m embeddings (n, dim of it) to (n, 64)."""
        said = self.said(embeddings)
        seen = (said * there[:, :, None]).flatten(1)
        weights = self.gate(seen).masked_fill(~there, -torch.inf).softmax(dim=1)
        return (weights[:, :, None] * said).sum(dim=1)


class Mean(_Spoken):
    """The mean of what the inputs that a case has say, each through its own linear layer and tanh.

    No input can be shut out, and none learned to be trusted more: for cohorts too small to learn a gate.

    Args:
        dims: Length of each input's embedding, by input.
        drop: As for `Fusion`.
    """

    def fuse(self, embeddings: list[Tensor], there: Tensor) -> Tensor:
        """Join m embeddings (n, dim of it) to (n, 64)."""
        said = self.said(embeddings)
        return (said * there[:, :, None]).sum(dim=1) / there.sum(dim=1, keepdim=True)


FUSIONS: dict[str, type[Concat] | type[Gated] | type[Mean]] = {"concat": Concat, "gated": Gated, "mean": Mean}


def present(rows: Tensor) -> Tensor:
    """Say which cases have an input: those whose row does not begin with NaN.

    Args:
        rows: (n, ...).

    Returns:
        bool (n,).
    """
    # a view: to flatten channels-last pictures would copy them
    first: tuple[slice | int, ...] = (slice(None), *(0,) * (rows.ndim - 1))
    return ~rows[first].isnan()


def numbers(rows: Tensor) -> Tensor:
    """Infinity for NaN, so that a network whose training broke down is not taken for an absent input."""
    return rows.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)


def _refuse_empty(there: Tensor, order: tuple[str, ...]) -> None:
    empty = int((~there.any(dim=1)).sum())
    if empty:
        raise EncoderError(
            f"{empty} of {len(there)} cases have no {' and no '.join(order)}",
            expected="one input of each case at least",
            do="leave these cases out",
        )


def _dropped(there: Tensor, drop: float) -> Tensor:
    """Take inputs away by chance; the one that drew the highest number of those a case has always stays."""
    drawn = torch.rand(there.shape, device=there.device).masked_fill(~there, -1.0)
    return there & ((drawn >= drop) | (drawn == drawn.amax(dim=1, keepdim=True)))
