"""The network: encoders, their fusion and the heads, frozen and thawed together.

It must not know patients, losses, optimisers or files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from tenfold import encoders as families
from tenfold.encoders import Encoder
from tenfold.errors import StudyError, nearest
from tenfold.network.fusion import FUSIONS, present
from tenfold.network.heads import HeadSpec, build_head
from tenfold.types import FloatArray


class Network(nn.Module):
    """Encoders -> fusion -> dropout -> one head a target.

    Args:
        encoders: By the name of the input each reads.
        heads: By target.
        fusion: How the embeddings are joined; one of `FUSIONS`.
        dropout: Share dropped of the joined embedding.
        modality_dropout: Probability with which a case loses an input in training, never all of them.

    Raises:
        StudyError: The fusion is unknown, a dropout impossible, or there is no encoder or head.
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        heads: Mapping[str, HeadSpec],
        fusion: str = "concat",
        dropout: float = 0.0,
        modality_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not encoders or not heads:
            raise StudyError(f"a network of {len(encoders)} inputs and {len(heads)} targets", expected="one at least")
        if fusion not in FUSIONS:
            raise StudyError(f"unknown fusion '{fusion}'", do=nearest(fusion, FUSIONS))
        for name, share in (("dropout", dropout), ("modality_dropout", modality_dropout)):
            if not 0 <= share < 1:
                raise StudyError(f"{name} = {share}", expected="from 0 to below 1")
        self.input_names = tuple(encoders)
        # Lists, because names come from the user and a ModuleDict refuses many: a dot, "type", "values".
        self.encoder_list = nn.ModuleList(encoders.values())
        self.fusion_name = fusion
        dims = {name: encoder.dim for name, encoder in encoders.items()}
        self.fusion = FUSIONS[fusion](dims, drop=modality_dropout)
        self.dropout = nn.Dropout(dropout)
        self.replace_heads(heads)

    @property
    def encoders(self) -> dict[str, Encoder]:
        """The encoders by input name."""
        return dict(zip(self.input_names, cast("list[Encoder]", list(self.encoder_list)), strict=True))

    @property
    def heads(self) -> dict[str, nn.Module]:
        """The heads by target."""
        return dict(zip(self.head_specs, self.head_list, strict=True))

    @property
    def parameter_count(self) -> int:
        """Number of parameters, frozen ones included."""
        return sum(p.numel() for p in self.parameters())

    @property
    def spec(self) -> dict[str, Any]:
        """What `from_spec` needs, fit for JSON: everything but weights and what is frozen."""
        return {
            "encoders": [{"input": name, **encoder.spec} for name, encoder in self.encoders.items()],
            "heads": [{"target": target, **head.to_dict()} for target, head in self.head_specs.items()],
            "fusion": self.fusion_name,
            "dropout": self.dropout.p,
            "modality_dropout": self.fusion.drop,
        }

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Network:
        """Rebuild a network from its `spec`, with fresh weights.

        Raises:
            EncoderError: It holds an encoder that this version does not know.
            StudyError: Likewise a head or a fusion.
        """
        heads = {}
        for head in spec["heads"]:
            heads[head["target"]] = HeadSpec.from_dict({k: v for k, v in head.items() if k != "target"})
        return cls(
            {encoder["input"]: families.from_spec(encoder) for encoder in spec["encoders"]},
            heads,
            fusion=spec["fusion"],
            dropout=spec["dropout"],
            modality_dropout=spec.get("modality_dropout", 0.0),
        )

    def replace_heads(self, heads: Mapping[str, HeadSpec]) -> None:
        """Put new heads, freshly initialised, in the place of the old ones; what is frozen stays so."""
        self.head_specs = dict(heads)
        device = next(self.encoder_list.parameters()).device
        self.head_list = nn.ModuleList(build_head(head, self.fusion.dim) for head in heads.values()).to(device)
        self.head_list.train(self.training)

    def forward(self, inputs: Mapping[str, Tensor], start: Mapping[str, int] | None = None) -> dict[str, Tensor]:
        """Predict every target.

        Args:
            inputs: By input name: float32, what its encoder takes (`Encoder`) or what `start` says. A case whose row
                begins with NaN lacks that input; an input that is not named is lacking for every case.
            start: By input name, the encoder step from which its tensor goes on; 0 where it is not named, and
                the encoder's depth where the tensor is the embedding already.

        Returns:
            Logits (n, classes) by target.

        Raises:
            EncoderError: A case has no input at all, or an input has another shape than its encoder takes.
        """
        return self.join(self.embed(inputs, start))

    def embed(self, inputs: Mapping[str, Tensor], start: Mapping[str, int] | None = None) -> dict[str, Tensor]:
        """Run the encoders on the cases that have their input; arguments as for `forward`.

        Returns:
            (n, dim) by input name, for the inputs that are named; a row of NaN where a case lacks the input.
        """
        begin = start or {}
        encoders = self.encoders
        return {
            name: _embedded(encoders[name], inputs[name], begin.get(name, 0)) for name in encoders if name in inputs
        }

    def join(self, embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """From the embeddings, as `embed` gives them, to the logits (n, classes) by target.

        Raises:
            EncoderError: A case has no input at all.
        """
        joined = self.dropout(self.fusion(embeddings))
        return {target: head(joined) for target, head in self.heads.items()}

    def thaw(self, what: str | int) -> None:
        """Choose what learns; fusion, heads and encoders without weights of their own (`always_learns`) always do.

        Args:
            what: "all", "head" (no encoder at all), or how many of the last blocks of every encoder, with its
                pooling. What does not learn stays in eval whatever `train` says.

        Raises:
            StudyError: It is none of these.
        """
        if isinstance(what, str) and what not in ("all", "head"):
            raise StudyError(f"thaw = '{what}'", expected="'all', 'head' or a number of blocks")
        if not isinstance(what, str) and what < 0:
            raise StudyError(f"thaw = {what}", expected="'all', 'head' or a number of blocks from 0")
        for encoder in self.encoders.values():
            if encoder.always_learns:
                encoder.freeze(0)
            elif what in ("head", 0):
                encoder.freeze(encoder.depth)
            else:
                blocks = len(encoder.blocks)
                encoder.freeze(0 if what == "all" else max(0, blocks - int(what)))

    def frozen(self, input_name: str) -> int:
        """Number of leading encoder steps whose output is fixed; the encoder's depth where all of it is."""
        return self.encoders[input_name].frozen

    def to_scores(self, target: str, logits: Tensor) -> FloatArray:
        """Turn logits into those whose softmax are the probabilities.

        Args:
            target: Whose logits.
            logits: (n, classes).

        Returns:
            (n, classes) float64, for `Calibration.apply`. Of two sigmoids only the positive's counts, since
            two outputs that do not sum to 1 are not a probability: 0 and its logit.

        Raises:
            StudyError: The target's findings do not exclude each other, so no softmax describes them.
        """
        kind = self.head_specs[target].kind
        values = np.asarray(logits.detach().to("cpu", torch.float64).numpy())
        if kind == "multilabel":
            raise StudyError(
                f"target '{target}' is multi-label",
                expected="classes that exclude each other, to calibrate and to decide on",
            )
        if kind == "two_sigmoid":
            values = np.stack([np.zeros(len(values)), values[:, 1]], axis=1)
        return values


def _embedded(encoder: Encoder, x: Tensor, start: int) -> Tensor:
    """Embed the cases that have the input; the others get NaN and never meet a norm layer."""
    there = present(x)
    if bool(there.all()):
        return _numbers(encoder(x, start))
    count = int(there.sum())
    if not count:
        return x.new_full((len(x), encoder.dim), torch.nan)
    with _norms_held(encoder) if count == 1 else nullcontext():
        embedded = _numbers(encoder(x[there], start))
    whole = embedded.new_full((len(x), encoder.dim), torch.nan)
    whole[there] = embedded
    return whole


def _numbers(embedded: Tensor) -> Tensor:
    """Infinity for NaN, so that an encoder whose training broke down is not taken for an absent input."""
    return embedded.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)


@contextmanager
def _norms_held(encoder: Encoder) -> Iterator[None]:
    """Let batch norm use its running statistics: one case has no spread of its own."""
    norms = [m for m in encoder.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    for norm in norms:
        norm.eval()
    try:
        yield
    finally:
        for norm in norms:
            norm.train()
