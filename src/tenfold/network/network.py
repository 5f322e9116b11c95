"""The network: encoders, their fusion, a shared layer and the heads, frozen and thawed together.

It must not know patients, losses, optimisers or files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from tenfold import encoders as families
from tenfold.encoders import Encoder
from tenfold.encoders.dense import NORMS, dense
from tenfold.errors import StudyError, nearest
from tenfold.network.fusion import FUSIONS, numbers, present
from tenfold.network.heads import HeadSpec, build_head
from tenfold.network.pooling import POOLS, Pool
from tenfold.types import FloatArray


class Network(nn.Module):
    """Encoders -> fusion -> dropout -> a layer that all targets share, if there is one -> one head a target.

    A head that reconstructs the input decodes the joined embedding itself: it lies before the shared layer. An input
    may be a bag, of which a case has any number of pictures: each is encoded alone, and their embeddings are pooled.

    Args:
        encoders: By the name of the input each reads, in the order of the inputs.
        heads: By target.
        fusion: How the embeddings are joined; one of `FUSIONS`.
        dropout: Share dropped of the joined embedding.
        modality_dropout: Probability with which a case loses an input in training, never all of them.
        shared: Width of the shared layer, a dense one with ReLU; 0 is none.
        norm: Norm of the shared layer: "layer", "batch" or "none".
        head_norm: Whether the heads' outputs go through batch norm, as in the code of He et al. 2020.
        pools: For each input that is a bag, how its pictures are pooled; one of `POOLS`.
        shares: For an input, the other input whose encoder it uses. `encoders` holds the same encoder for both, or
            leaves the input out, which then comes last.

    Raises:
        StudyError: The fusion, the norm or a pool is unknown, a number impossible, there is no encoder or head, or an
            encoder cannot be shared so.
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        heads: Mapping[str, HeadSpec],
        fusion: str = "concat",
        dropout: float = 0.0,
        modality_dropout: float = 0.0,
        shared: int = 0,
        norm: str = "layer",
        head_norm: bool = False,
        pools: Mapping[str, str] = MappingProxyType({}),
        shares: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        encoders = _with_shared(encoders, shares)
        if not encoders or not heads:
            raise StudyError(f"a network of {len(encoders)} inputs and {len(heads)} targets", expected="one at least")
        if fusion not in FUSIONS:
            raise StudyError(f"unknown fusion '{fusion}'", do=nearest(fusion, FUSIONS))
        for name, share in (("dropout", dropout), ("modality_dropout", modality_dropout)):
            if not 0 <= share < 1:
                raise StudyError(f"{name} = {share}", expected="from 0 to below 1")
        if norm not in NORMS:
            raise StudyError(f"unknown norm '{norm}'", do=nearest(norm, NORMS))
        if shared < 0:
            raise StudyError(f"shared = {shared}", expected="at least 0")
        _check_pools(pools, encoders)
        self.input_names = tuple(encoders)
        self.pools, self.shares = dict(pools), dict(shares)
        own = [name for name in encoders if name not in shares]
        self._places = {name: own.index(shares.get(name, name)) for name in encoders}
        # Lists, because names come from the user and a ModuleDict refuses many: a dot, "type", "values".
        self.encoder_list = nn.ModuleList(encoders[name] for name in own)
        self.pool_list = nn.ModuleList(POOLS[how](encoders[name].dim) for name, how in pools.items())
        self.fusion_name = fusion
        dims = {name: encoder.dim for name, encoder in encoders.items()}
        self.fusion = FUSIONS[fusion](dims, drop=modality_dropout)
        self.dropout = nn.Dropout(dropout)
        self.shared_width, self.norm, self.head_norm = shared, norm, head_norm
        # without the layer nothing is named in the state, so what was saved before there was one still loads
        self.shared = nn.Sequential(*(dense(self.fusion.dim, shared, norm) if shared else ()))
        self.replace_heads(heads)

    @property
    def encoders(self) -> dict[str, Encoder]:
        """The encoders by input name; inputs that share one have the same object."""
        return {name: cast("Encoder", self.encoder_list[place]) for name, place in self._places.items()}

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
            "shared": self.shared_width,
            "norm": self.norm,
            "head_norm": self.head_norm,
            "pools": dict(self.pools),
            "shares": dict(self.shares),
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
        shares = spec.get("shares", {})
        specs = {encoder["input"]: encoder for encoder in spec["encoders"]}
        built = {name: families.from_spec(encoder) for name, encoder in specs.items() if name not in shares}
        later = ("modality_dropout", "shared", "norm", "head_norm", "pools", "shares")
        return cls(
            {name: built[shares.get(name, name)] for name in specs},
            heads,
            fusion=spec["fusion"],
            dropout=spec["dropout"],
            **{name: spec[name] for name in later if name in spec},
        )

    def replace_heads(self, heads: Mapping[str, HeadSpec]) -> None:
        """Put new heads, freshly initialised, in the place of the old ones; what is frozen stays so."""
        self.head_specs = dict(heads)
        device = next(self.encoder_list.parameters()).device
        self.head_list = nn.ModuleList(
            build_head(head, self._reaches(head), norm=self.head_norm) for head in heads.values()
        ).to(device)
        self.head_list.train(self.training)

    def forward(self, inputs: Mapping[str, Tensor], start: Mapping[str, int] | None = None) -> dict[str, Tensor]:
        """Predict every target.

        Args:
            inputs: By input name: float32, what its encoder takes (`Encoder`) or what `start` says. A case whose row
                begins with NaN lacks that input; an input that is not named is lacking for every case. A bag has one
                more dimension, (n, k, ...): those of its k places that begin with NaN hold no picture, and the
                pictures of a case come first.
            start: By input name, the encoder step from which its tensor goes on; 0 where it is not named, and
                the encoder's depth where the tensor is the embedding already, of a bag that of each picture.

        Returns:
            What its head says, (n, columns) by target.

        Raises:
            EncoderError: A case has no input at all, or an input has another shape than its encoder takes.
        """
        return self.join(self.embed(inputs, start))

    def embed(self, inputs: Mapping[str, Tensor], start: Mapping[str, int] | None = None) -> dict[str, Tensor]:
        """Run the encoders on the cases that have their input; arguments as for `forward`.

        Returns:
            (n, dim) by input name, for the inputs that are named; a row of NaN where a case lacks the input.
        """
        pools = self._pools()
        return {
            name: pools[name](encoded) if name in pools else encoded
            for name, encoded in self._encoded(inputs, start).items()
        }

    def pool_weights(self, inputs: Mapping[str, Tensor], start: Mapping[str, int] | None = None) -> dict[str, Tensor]:
        """Say what each picture of a bag weighs in the embedding of its input; arguments as for `forward`.

        Returns:
            (n, k) by the name of each bag among the inputs; a case's add up to 1, NaN where there is no picture.
        """
        pools = self._pools()
        bags = {name: x for name, x in inputs.items() if name in pools}
        return {name: pools[name].shares(encoded) for name, encoded in self._encoded(bags, start).items()}

    def features(self, input_name: str, x: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """Run some steps of one input's encoder on the cases, or pictures of a bag, that are there.

        Args:
            input_name: Whose encoder.
            x: As for `forward`.
            start: First step to run.
            stop: Step to stop before; None runs to the end, and a bag is not pooled.

        Returns:
            (n, ...), of a bag (n, k, ...), fit for `forward` with `stop` as its start; NaN where nothing is there.
        """
        found = _run(self.encoders[input_name], self._rows(input_name, x), start, stop)
        return found.unflatten(0, x.shape[:2]) if input_name in self.pools else found

    def _pools(self) -> dict[str, Pool]:
        return dict(zip(self.pools, cast("list[Pool]", list(self.pool_list)), strict=True))

    def _rows(self, name: str, x: Tensor) -> Tensor:
        """What meets the encoder: of a bag its pictures one after another."""
        return x.flatten(0, 1) if name in self.pools else x

    def _encoded(self, inputs: Mapping[str, Tensor], start: Mapping[str, int] | None) -> dict[str, Tensor]:
        """Run the encoders: (n, dim), of a bag (n, k, dim), by input name."""
        begin = start or {}
        rows = {name: self._rows(name, inputs[name]) for name in self.input_names if name in inputs}
        # Views that share an encoder go through it as one batch: its batch norm, trained on one view at a time, would
        # give statistics of a mixture that no batch had.
        together: dict[tuple[int, int, tuple[int, ...]], list[str]] = {}
        for name, x in rows.items():
            together.setdefault((self._places[name], begin.get(name, 0), tuple(x.shape[1:])), []).append(name)
        found: dict[str, Tensor] = {}
        for (place, first, _), names in together.items():
            batch = rows[names[0]] if len(names) == 1 else torch.cat([rows[name] for name in names])
            encoded = _run(cast("Encoder", self.encoder_list[place]), batch, first)
            found |= zip(names, encoded.split([len(rows[name]) for name in names]), strict=True)
        return {
            name: found[name].unflatten(0, inputs[name].shape[:2]) if name in self.pools else found[name]
            for name in rows
        }

    def join(self, embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """From the embeddings, as `embed` gives them, to what the heads say, (n, columns) by target.

        Raises:
            EncoderError: A case has no input at all.
        """
        joined = self.dropout(self.fusion(embeddings))
        with _norms_held(self.shared, self.head_list) if len(joined) == 1 else nullcontext():
            shared = self.shared(joined)
            return {
                target: head(joined if self.head_specs[target].kind == "reconstruct" else shared)
                for target, head in self.heads.items()
            }

    def _reaches(self, head: HeadSpec) -> int:
        """Length of what a head sees."""
        return self.fusion.dim if head.kind == "reconstruct" else self.shared_width or self.fusion.dim

    def thaw(self, what: str | int) -> None:
        """Choose what learns; pooling of bags, fusion, shared layer, heads and encoders without weights of their own
        (`always_learns`) always do.

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
            logits: (n, columns), what its head says.

        Returns:
            float64, for `Calibration.apply`: (n, 2), negative and positive, or (n, classes) of classes that are not put
            together; see `HeadSpec.scores`.

        Raises:
            StudyError: The target's findings do not exclude each other, so no softmax describes them.
        """
        try:
            scores = self.head_specs[target].scores(logits.detach().to("cpu", torch.float64))
        except StudyError as error:
            raise StudyError(error.came, expected=error.expected, where=f"target '{target}'") from error
        return np.asarray(scores.numpy())


def _with_shared(encoders: Mapping[str, Encoder], shares: Mapping[str, str]) -> dict[str, Encoder]:
    """Give every input its encoder, and refuse shares that make no sense."""
    for name, source in shares.items():
        if source not in encoders:
            raise StudyError(
                f"input '{name}' shares the encoder of '{source}', which is no input", do=nearest(source, encoders)
            )
        if source in shares or encoders.get(name, encoders[source]) is not encoders[source]:
            raise StudyError(
                f"input '{name}' shares the encoder of '{source}', but "
                + ("that has none of its own" if source in shares else "has another"),
                expected="an input with an encoder of its own, which both use",
            )
    return {**encoders, **{name: encoders[source] for name, source in shares.items() if name not in encoders}}


def _check_pools(pools: Mapping[str, str], encoders: Mapping[str, Encoder]) -> None:
    for name, how in pools.items():
        if name not in encoders:
            raise StudyError(f"a pool for '{name}', which is no input", do=nearest(name, encoders))
        if how not in POOLS:
            raise StudyError(f"unknown pool '{how}'", do=nearest(how, POOLS), where=f"input '{name}'")


def _run(encoder: Encoder, x: Tensor, start: int, stop: int | None = None) -> Tensor:
    """Run steps of an encoder on the rows that are there; the others get NaN and never meet a norm layer."""
    there = present(x)
    if bool(there.all()):
        return numbers(encoder(x, start, stop))
    count = int(there.sum())
    if not count:
        return x.new_full((len(x), *_shape(encoder, x, start, stop)), torch.nan)
    with _norms_held(encoder) if count == 1 else nullcontext():
        encoded = numbers(encoder(x[there], start, stop))
    whole = encoded.new_full((len(x), *encoded.shape[1:]), torch.nan)
    whole[there] = encoded
    return whole


@torch.no_grad()
def _shape(encoder: Encoder, x: Tensor, start: int, stop: int | None) -> tuple[int, ...]:
    """Shape of what steps give for one row."""
    if stop is None or stop == encoder.depth:
        return (encoder.dim,)
    with _norms_held(encoder):
        return tuple(encoder(torch.zeros_like(x[:1]), start, stop).shape[1:])


@contextmanager
def _norms_held(*parts: nn.Module) -> Iterator[None]:
    """Let batch norm use its running statistics: one case has no spread of its own."""
    norms = [
        m for part in parts for m in part.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training
    ]
    for norm in norms:
        norm.eval()
    try:
        yield
    finally:
        for norm in norms:
            norm.train()
