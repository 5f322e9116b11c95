"""The network: encoders, their fusion and the heads, frozen and thawed together.

It must not know patients, losses, optimisers or files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from tenfold import encoders as families
from tenfold.encoders import Encoder
from tenfold.errors import StudyError, nearest
from tenfold.network.fusion import FUSIONS
from tenfold.network.heads import HeadSpec, build_head
from tenfold.types import FloatArray


class Network(nn.Module):
    """Encoders -> fusion -> dropout -> one head a target.

    Args:
        encoders: By the name of the input each reads.
        heads: By target.
        fusion: How the embeddings are joined; one of `FUSIONS`.
        dropout: Share dropped of the joined embedding.

    Raises:
        StudyError: The fusion is unknown, the dropout impossible, or there is no encoder or head.
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        heads: Mapping[str, HeadSpec],
        fusion: str = "concat",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not encoders or not heads:
            raise StudyError(f"a network of {len(encoders)} inputs and {len(heads)} targets", expected="one at least")
        if fusion not in FUSIONS:
            raise StudyError(f"unknown fusion '{fusion}'", do=nearest(fusion, FUSIONS))
        if not 0 <= dropout < 1:
            raise StudyError(f"dropout = {dropout}", expected="from 0 to below 1")
        self.input_names = tuple(encoders)
        # Lists, because names come from the user and a ModuleDict refuses many: a dot, "type", "values".
        self.encoder_list = nn.ModuleList(encoders.values())
        self.fusion_name = fusion
        self.fusion = FUSIONS[fusion]({name: encoder.dim for name, encoder in encoders.items()})
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
            inputs: By input name: float32 in [0, 1], (n, channels, height, width), or what `start` says.
            start: By input name, the encoder step from which its tensor goes on; 0 where it is not named, and
                the encoder's depth where the tensor is the embedding already.

        Returns:
            Logits (n, classes) by target.

        Raises:
            EncoderError: An input is absent, or has another number of channels.
        """
        return self.join(self.embed(inputs, start))

    def embed(self, inputs: Mapping[str, Tensor], start: Mapping[str, int] | None = None) -> dict[str, Tensor]:
        """Run the encoders of the inputs that are there; gives (n, dim) by input name."""
        begin = start or {}
        encoders = self.encoders
        return {name: encoders[name](inputs[name], begin.get(name, 0)) for name in encoders if name in inputs}

    def join(self, embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """From the embeddings to the logits (n, classes) by target."""
        joined = self.dropout(self.fusion(embeddings))
        return {target: head(joined) for target, head in self.heads.items()}

    def thaw(self, what: str | int) -> None:
        """Choose what learns; fusion and heads always do.

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
            if what in ("head", 0):
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
