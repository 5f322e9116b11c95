"""Heads: from the joined embedding to the logits of one target.

They must not know which inputs were joined, nor what loss the logits meet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from tenfold.errors import StudyError, nearest

FEWEST = {"softmax": 2, "multilabel": 1, "two_sigmoid": 2}
KINDS = tuple(FEWEST)


@dataclass(frozen=True)
class HeadSpec:
    """What a head predicts, and how.

    Attributes:
        kind: "softmax": classes that exclude each other. "multilabel": findings that do not, one sigmoid
            each. "two_sigmoid": two classes with a sigmoid each, the literal reading of Liang & Zheng 2020.
        classes: Names, one logit each; of "two_sigmoid" the negative first, then the positive.
        hidden: Width of a hidden layer with ReLU; 0 is none.
        dropout: Share dropped right before the output layer.

    Raises:
        StudyError: The kind is unknown, or the classes or numbers do not suit it.
    """

    kind: str
    classes: tuple[str, ...]
    hidden: int = 0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise StudyError(f"unknown kind of head '{self.kind}'", do=nearest(self.kind, KINDS))
        enough = len(self.classes) >= FEWEST[self.kind] and not (self.kind == "two_sigmoid" and len(self.classes) > 2)
        if not enough or len(set(self.classes)) < len(self.classes):
            fewest = "exactly 2" if self.kind == "two_sigmoid" else f"at least {FEWEST[self.kind]}"
            raise StudyError(
                f"a {self.kind} head with the classes {', '.join(self.classes) or '(none)'}",
                expected=f"{fewest}, each once",
            )
        if self.hidden < 0 or not 0 <= self.dropout < 1:
            raise StudyError(
                f"a head with hidden = {self.hidden}, dropout = {self.dropout}",
                expected="hidden of at least 0 and dropout from 0 to below 1",
            )

    def to_dict(self) -> dict[str, Any]:
        """Return a mapping fit for JSON."""
        return {**asdict(self), "classes": list(self.classes)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> HeadSpec:
        """Read what `to_dict` wrote."""
        return cls(**{**data, "classes": tuple(data["classes"])})


def build_head(spec: HeadSpec, dim: int) -> nn.Sequential:
    """Build a head, freshly initialised.

    Args:
        spec: What it predicts.
        dim: Length of the joined embedding.

    Returns:
        A module from (n, dim) to logits (n, len(spec.classes)).
    """
    layers: list[nn.Module] = []
    if spec.hidden:
        layers += [nn.Linear(dim, spec.hidden), nn.ReLU()]
    layers += [nn.Dropout(spec.dropout), nn.Linear(spec.hidden or dim, len(spec.classes))]
    return nn.Sequential(*layers)
