"""What an encoder is, and the one checker that every encoder must pass.

It must not know any particular network, what an embedding is joined with, or how anything is trained.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.errors import EncoderError


class Encoder(nn.Module):
    """Turns one input of a patient into an embedding, in steps that can be frozen from the stem up.

    Steps 0 .. B-1 are the blocks, each fed by the one before and by nothing else; step B is the pooling to
    (n, dim). No step changes its input, so what a step gave may be kept and used again. The input is float32:
    of an image (n, channels, height, width) in [0, 1], for the first block begins with the network's own
    normalisation; of a table (n, 2, features), the prepared values and whether each was observed; of a connectome
    (n, edges).

    Args:
        spec: {"encoder": name, "options": {...}}, JSON only; rebuilds the encoder without its weights.
        modality: What it reads, "image", "table" or "connectome".
        channels: Channels of the input: 1 or 3 of an image, 2 of a table, 1 of a connectome.
        size: Side in pixels of the image that the network was made for (others may be given); of a table the
            number of features, of a connectome that of edges.
        dim: Length of the embedding.
        blocks: (name, block), stem first; each holds parameters.
        pool: From what the last block gives to (n, dim).

    Attributes:
        always_learns: Whether it learns in every stage, for it has no weights from elsewhere that could be kept.
    """

    always_learns: bool = False

    def __init__(
        self,
        *,
        spec: Mapping[str, Any],
        modality: str,
        channels: int,
        size: int,
        dim: int,
        blocks: Sequence[tuple[str, nn.Module]],
        pool: nn.Module,
    ) -> None:
        super().__init__()
        self.spec = dict(spec)
        self.modality, self.channels, self.size, self.dim = modality, channels, size, dim
        self.block_names = tuple(name for name, _ in blocks)
        self.blocks = nn.ModuleList(block for _, block in blocks)
        self.pool = pool
        self.frozen = 0

    @property
    def depth(self) -> int:
        """Number of steps: the blocks and the pooling."""
        return len(self.blocks) + 1

    @property
    def steps(self) -> tuple[nn.Module, ...]:
        """The blocks, then the pooling."""
        return (*self.blocks, self.pool)

    def forward(self, x: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """Run the steps start .. stop-1.

        Args:
            x: The input where `start` is 0, otherwise what step start-1 gave.
            start: First step to run; `depth` means that x is the embedding already.
            stop: Step to stop before; None runs to the end.

        Returns:
            What the last of these steps gives: (n, dim) at the end.

        Raises:
            EncoderError: The input is not float, or has another number of channels.
        """
        for step in self.steps[start:stop]:
            x = step(x)
        return x

    def as_map(self, features: Tensor, step: int) -> Tensor | None:
        """Lay out what a step gave as maps, for a heat map that is taken there.

        Args:
            features: (n, ...), what the step gave, or a gradient with respect to it.
            step: Number of steps that were run.

        Returns:
            (n, channels, h, w), a view; None where what the step gave has no places in the picture, or where what it
            has of them is not used further on.
        """
        return features if features.ndim == 4 else None

    def example(self, n: int, size: int, generator: torch.Generator) -> Tensor:
        """Make up n inputs that this encoder takes.

        Args:
            n: How many.
            size: Side in pixels; an encoder that does not read images has its own.
            generator: Where the numbers come from.
        """
        return torch.rand(n, self.channels, size, size, generator=generator)

    def freeze(self, steps: int) -> None:
        """Fix the first `steps` steps, and thaw the others.

        A fixed step gets no gradients and stays in eval whatever `train` says: its norm layers keep their
        statistics and its dropout is off, so its output for an input never changes.
        """
        self.frozen = max(0, min(steps, self.depth))
        for index, step in enumerate(self.steps):
            step.requires_grad_(index >= self.frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> Encoder:
        """Set the mode of what is not frozen."""
        super().train(mode)
        for step in self.steps[: self.frozen]:
            step.eval()
        return self


def check_encoder(encoder: Encoder, size: int) -> None:
    """Check that an encoder keeps the contract of `Encoder`; it is left as it was.

    Args:
        encoder: The encoder.
        size: Side in pixels of the images it is tried on; see `Encoder.example`.

    Raises:
        EncoderError: The contract is broken; the message says which part of it.
    """
    subject = copy.deepcopy(encoder)
    subject.freeze(0)
    subject.eval()
    generator = torch.Generator().manual_seed(0)
    inputs = encoder.example(2, size, generator)
    _check_names(subject)
    with torch.no_grad():
        _check_embedding(subject, inputs)
        _check_steps(subject, inputs)
        _check_rebuilt(subject, inputs)
    _check_shape(subject, inputs)
    _check_gradients(subject, inputs)
    _check_freezing(subject, inputs)


def _require(holds: bool, encoder: Encoder, broken: str) -> None:
    if not holds:
        raise EncoderError(f"the contract is broken: {broken}", where=str(encoder.spec.get("encoder", "encoder")))


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def _check_names(encoder: Encoder) -> None:
    names = encoder.block_names
    _require(len(names) == len(encoder.blocks) > 0, encoder, "not one name a block")
    _require(len(set(names)) == len(names), encoder, f"two blocks share a name: {', '.join(names)}")
    for name, block in zip(names, encoder.blocks, strict=True):
        _require(any(True for _ in block.parameters()), encoder, f"block {name} holds nothing to train")


def _check_embedding(encoder: Encoder, inputs: Tensor) -> None:
    """Shape, determinism, and inputs that are all 0 (black, nothing observed) or all 1 (white)."""
    embedding = encoder(inputs)
    shape = (len(inputs), encoder.dim)
    _require(tuple(embedding.shape) == shape, encoder, f"the output is {tuple(embedding.shape)}, not {shape}")
    _require(torch.equal(embedding, encoder(inputs)), encoder, "two passes in eval differ")
    for name, tried in (("noise", inputs), ("zeros", inputs * 0), ("ones", inputs * 0 + 1)):
        _require(bool(encoder(tried).isfinite().all()), encoder, f"the output for {name} is not finite")


def _check_steps(encoder: Encoder, inputs: Tensor) -> None:
    """To stop before any step and to go on from there gives the same; the stopping place is not altered."""
    whole = encoder(inputs)
    for k in range(encoder.depth + 1):
        middle = encoder(inputs, 0, k)
        kept = middle.clone()
        _require(_same(encoder(middle, k), whole), encoder, f"forward(forward(x, 0, {k}), {k}) is not forward(x)")
        _require(torch.equal(middle, kept), encoder, f"step {k} changes its input")


def _check_rebuilt(encoder: Encoder, inputs: Tensor) -> None:
    """The spec survives JSON and gives an encoder that takes the same weights."""
    text = json.dumps(encoder.spec)
    _require(json.loads(text) == encoder.spec, encoder, "the spec does not survive JSON")
    twin = type(encoder)(**json.loads(text)["options"]).eval()
    _require(twin.spec == encoder.spec, encoder, "the rebuilt encoder has another spec")
    _require(twin.block_names == encoder.block_names, encoder, "the rebuilt encoder has other blocks")
    ours, theirs = encoder.state_dict(), twin.state_dict()
    _require(list(ours) == list(theirs), encoder, "the rebuilt encoder has other keys")
    for key in ours:
        _require(ours[key].shape == theirs[key].shape, encoder, f"the rebuilt {key} has another shape")
    twin.load_state_dict(ours)
    _require(_same(twin(inputs), encoder(inputs)), encoder, "the rebuilt encoder gives another output")


def _check_shape(encoder: Encoder, inputs: Tensor) -> None:
    """An image of other channels, a table of other features and a connectome of other edges are refused."""
    if encoder.modality == "image":
        _require(encoder.channels in (1, 3), encoder, f"{encoder.channels} channels, not 1 or 3")
        foreign, what = inputs[:, :1].expand(-1, 4 - encoder.channels, -1, -1), "channels"
    else:
        what = {"table": "features", "connectome": "edges"}.get(encoder.modality, "")
        _require(bool(what), encoder, f"the modality {encoder.modality} is none that there is")
        foreign = inputs.repeat_interleave(2, dim=-1)
    try:
        encoder(foreign)
    except EncoderError:
        return
    _require(False, encoder, f"another number of {what} is taken: {tuple(foreign.shape)}")


def _check_gradients(encoder: Encoder, inputs: Tensor) -> None:
    encoder(inputs).pow(2).sum().backward()
    for name, block in zip(encoder.block_names, encoder.blocks, strict=True):
        reached = any(p.grad is not None and bool(p.grad.any()) for p in block.parameters())
        _require(reached, encoder, f"no gradient reaches block {name}")
    encoder.zero_grad(set_to_none=True)


def _check_freezing(encoder: Encoder, inputs: Tensor) -> None:
    """What is frozen gets no gradient and no new statistics in a training pass; the rest does."""
    for steps in {1, len(encoder.blocks), encoder.depth}:
        encoder.freeze(steps)
        encoder.train()
        before = copy.deepcopy([step.state_dict() for step in encoder.steps[:steps]])
        with torch.no_grad():
            first, second = encoder(inputs, 0, steps), encoder(inputs, 0, steps)
        _require(torch.equal(first, second), encoder, f"{steps} frozen steps give two outputs in training")
        for index, step in enumerate(encoder.steps):
            fixed = index < steps
            learns = [p.requires_grad for p in step.parameters()]
            _require(not any(learns) if fixed else all(learns), encoder, f"freeze({steps}) misses step {index}")
            modes = [module.training for module in step.modules()]
            _require(not any(modes) if fixed else all(modes), encoder, f"freeze({steps}): mode of step {index}")
        for index, state in enumerate(before):
            now = encoder.steps[index].state_dict()
            kept = all(torch.equal(state[key], now[key]) for key in state)
            _require(kept, encoder, f"frozen step {index} changes in a training pass")
