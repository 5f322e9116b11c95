"""Heads: from the joined embedding to what is said of one target.

They must not know which inputs were joined, nor how what they say is learned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.encoders import Encoder
from tenfold.encoders.dense import NORMS, dense
from tenfold.errors import StudyError, nearest
from tenfold.types import FloatArray

FEWEST = {"softmax": 2, "multilabel": 1, "two_sigmoid": 2, "ordinal": 2, "number": 2, "reconstruct": 0}
MOST = {"two_sigmoid": 2, "number": 2, "reconstruct": 0}
KINDS = tuple(FEWEST)


@dataclass(frozen=True)
class HeadSpec:
    """What a head predicts, and how.

    Attributes:
        kind: "softmax": classes that exclude each other. "multilabel": findings that do not, one sigmoid each.
            "two_sigmoid": two classes with a sigmoid each, the literal reading of Liang & Zheng 2020. "ordinal": levels
            in order, one logit for each step between two: that the level is above it. "number": a score, of which
            `centre` is 0 and `scale` is 1. "reconstruct": the input itself, decoded from the embedding.
        classes: Names. Of "two_sigmoid" and "number" the negative first, then the positive; of "ordinal" the lowest
            level first; of "reconstruct" none.
        hidden: Width of a hidden layer with ReLU; 0 is none.
        dropout: Share dropped right before the output layer.
        positive: Of "softmax": indices of the classes that together are the positive one. () is the second of two;
            with more than two classes it leaves them as they are.
        cut: Of "ordinal": index of the lowest level that counts as positive.
        centre: Of "number": where the positive begins.
        scale: Of "number": what counts as 1, for example the standard deviation of the training labels.
        sign: Of "number": -1 where what lies below the centre is positive, 1 where what lies above it is.
        features: Of "reconstruct": length of the input.
        widths: Of "reconstruct": hidden widths of the decoder, from the embedding on.
        norm: Of "reconstruct": of the decoder's hidden layers, one of `NORMS`.

    Raises:
        StudyError: The kind is unknown, or the classes or numbers do not suit it.
    """

    kind: str
    classes: tuple[str, ...] = ()
    hidden: int = 0
    dropout: float = 0.0
    positive: tuple[int, ...] = ()
    cut: int = 1
    centre: float = 0.0
    scale: float = 1.0
    sign: int = -1
    features: int = 0
    widths: tuple[int, ...] = ()
    norm: str = "none"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise StudyError(f"unknown kind of head '{self.kind}'", do=nearest(self.kind, KINDS))
        fewest, most = FEWEST[self.kind], MOST.get(self.kind)
        enough = fewest <= len(self.classes) <= (len(self.classes) if most is None else most)
        if not enough or len(set(self.classes)) < len(self.classes):
            raise StudyError(
                f"a {self.kind} head with the classes {', '.join(self.classes) or '(none)'}",
                expected=f"{'at least' if most is None else 'exactly'} {fewest}, each once",
            )
        if self.hidden < 0 or not 0 <= self.dropout < 1:
            raise StudyError(
                f"a head with hidden = {self.hidden}, dropout = {self.dropout}",
                expected="hidden of at least 0 and dropout from 0 to below 1",
            )
        self._check_kind()

    def _check_kind(self) -> None:
        """Refuse what does not suit the one kind that it is about."""
        count = len(self.classes)
        if self.positive and (self.kind != "softmax" or not 0 < len(self.negative) < count):
            raise StudyError(
                f"positive = {self.positive} of a {self.kind} head with {count} classes",
                expected="for softmax, places of some of the classes, not of all",
            )
        if self.kind == "ordinal" and not 1 <= self.cut < count:
            raise StudyError(f"cut = {self.cut} of {count} levels", expected=f"from 1 to {count - 1}")
        if self.scale <= 0 or self.sign not in (-1, 1):
            raise StudyError(f"scale = {self.scale}, sign = {self.sign}", expected="scale above 0 and sign 1 or -1")
        if (self.kind == "reconstruct") != (self.features > 0) or (self.kind != "reconstruct" and self.widths):
            raise StudyError(
                f"features = {self.features}, widths = {self.widths} of a {self.kind} head",
                expected="features of at least 1 for reconstruct, none of both for the others",
            )
        if self.norm not in NORMS:
            raise StudyError(f"unknown norm '{self.norm}'", do=nearest(self.norm, NORMS))

    @property
    def outputs(self) -> int:
        """Number of columns that the head says."""
        return {"ordinal": len(self.classes) - 1, "number": 1, "reconstruct": self.features}.get(
            self.kind, len(self.classes)
        )

    @property
    def negative(self) -> tuple[int, ...]:
        """Of "softmax": indices of the classes that are not among the positive ones."""
        return tuple(k for k in range(len(self.classes)) if k not in self.positive)

    @property
    def binary(self) -> bool:
        """Whether it says yes or no in the end: whether its scores are two columns."""
        return self.kind in ("two_sigmoid", "ordinal", "number") or (
            self.kind == "softmax" and (len(self.classes) == 2 or bool(self.positive))
        )

    def scores(self, said: Tensor) -> Tensor:
        """Turn what the head says into what the softmax of is probabilities; gradients pass.

        Args:
            said: (n, `outputs`).

        Returns:
            (n, 2), negative and positive, or (n, classes) of classes that are not put together. Several classes count
            together (log-sum-exp). Of two sigmoids only the positive's counts, since two outputs that do not sum to 1
            are no probability; an ordinal head gives 0 and the logit that the level is the cut or above it; a number
            how far it is on the positive side of the centre, in scales, as a logit.

        Raises:
            StudyError: Nothing here excludes anything else, so no softmax describes it.
        """
        if self.kind in ("multilabel", "reconstruct"):
            raise StudyError(
                "it is multi-label" if self.kind == "multilabel" else "it is a reconstruction",
                expected="classes that exclude each other, to calibrate and to decide on",
            )
        if self.kind == "softmax":
            if not self.positive:
                return said
            groups = (said[:, list(group)].logsumexp(1) for group in (self.negative, self.positive))
            return torch.stack(list(groups), dim=1)
        if self.kind == "number":
            odds = self.sign * said[:, 0]
        else:
            odds = said[:, self.cut - 1 if self.kind == "ordinal" else 1]
        return torch.stack([torch.zeros_like(odds), odds], dim=1)

    def truth(self, labels: Tensor) -> Tensor:
        """Return 1 where a label is positive, 0 where it is not, NaN where it is unknown.

        Args:
            labels: (n,) as `taught` takes them.
        """
        if self.kind == "ordinal":
            yes = labels >= self.cut
        elif self.kind == "number":
            yes = self.sign * (labels - self.centre) > 0
        else:
            yes = torch.isin(labels, labels.new_tensor(self.positive or (1,)))
        return yes.to(labels).masked_fill(labels.isnan(), torch.nan)

    def taught(self, labels: Tensor) -> Tensor:
        """Return labels in the units that the head speaks in.

        Args:
            labels: (n,) indices of classes or levels, or scores in their own units; (n, columns) of several findings
                and of reconstructions. NaN where unknown.
        """
        return (labels - self.centre) / self.scale if self.kind == "number" else labels

    def number(self, scores: FloatArray) -> FloatArray:
        """Turn the scores of a "number" head, (n, 2), back into the units of its labels, (n,)."""
        return self.centre + self.scale * self.sign * (scores[:, 1] - scores[:, 0])

    def to_dict(self) -> dict[str, Any]:
        """Return a mapping fit for JSON, without what was left at its default and is of another kind."""
        found = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
        always = ("kind", "classes", "hidden", "dropout")
        return {f.name: found[f.name] for f in fields(self) if f.name in always or getattr(self, f.name) != f.default}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> HeadSpec:
        """Read what `to_dict` wrote."""
        found: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in data.items()}
        return cls(**found)


def mirror(encoder: Encoder) -> HeadSpec:
    """Return the head that decodes an encoder's embedding, its layers in reverse.

    Raises:
        StudyError: It is no encoder of connectomes.
    """
    if encoder.modality != "connectome":
        raise StudyError(f"a decoder of {encoder.modality}s", expected="an encoder of connectomes")
    options = encoder.spec["options"]
    widths = tuple(reversed(options["widths"][:-1]))
    return HeadSpec("reconstruct", features=encoder.size, widths=widths, norm=options["norm"])


def build_head(spec: HeadSpec, dim: int, *, norm: bool = False) -> nn.Sequential:
    """Build a head, freshly initialised.

    Args:
        spec: What it predicts.
        dim: Length of the embedding.
        norm: Whether batch norm follows the output layer, which then has no bias of its own; reconstructions have none.

    Returns:
        A module from (n, dim) to (n, spec.outputs).
    """
    layers: list[nn.Module] = []
    for width in spec.widths:
        layers += dense(dim, width, spec.norm)
        dim = width
    if spec.hidden:
        layers += [nn.Linear(dim, spec.hidden), nn.ReLU()]
    norm = norm and spec.kind != "reconstruct"
    ordinal = spec.kind == "ordinal"
    outputs = 1 if ordinal else spec.outputs
    layers += [nn.Dropout(spec.dropout), nn.Linear(spec.hidden or dim, outputs, bias=not (norm or ordinal))]
    if norm:
        layers.append(nn.BatchNorm1d(outputs))
    if ordinal:
        layers.append(Steps(spec.outputs))
    return nn.Sequential(*layers)


class Steps(nn.Module):
    """Proportional odds (McCullagh 1980): one number a case, and one place on its axis for each step between levels.

    Because all steps share the number, the places that minimise the loss are in order (Cao, Mirjalili, Raschka 2020).

    Args:
        steps: Levels less one.
    """

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.linspace(1.0, -1.0, steps) if steps > 1 else torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Take (n, 1) to the logits (n, steps) that the level is above each step."""
        return x + self.bias
