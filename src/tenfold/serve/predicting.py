"""Asks the networks about several cases at once: probabilities, and how far each case lies from the study.

It must not know how cases came, or what is said of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tenfold.bundle import Predictor
from tenfold.bundle.reference import Reference
from tenfold.serve.answer import Check
from tenfold.serve.pngs import Box, Place
from tenfold.serve.quality import distribution_checks
from tenfold.types import FloatArray


@dataclass(frozen=True, eq=False)
class Question:
    """One case to be asked about.

    Attributes:
        prepared: As `Predictor.prepare` gives it.
        boxes: (input, place) -> where the picture lies in its square, if its negative would be a picture too.
    """

    prepared: Mapping[str, NDArray[Any] | None]
    boxes: Mapping[Place, Box]


@dataclass(frozen=True, eq=False)
class Said:
    """What the networks say of one case.

    Attributes:
        probabilities: Target -> (models, classes), calibrated.
        checks: What is odd about its distance from the study.
    """

    probabilities: Mapping[str, FloatArray]
    checks: tuple[Check, ...]


class Computing(Protocol):
    """What turns stacked cases into what each model says of a target: the bundle itself, or something faster."""

    def member_probabilities(self, prepared: Mapping[str, NDArray[Any]]) -> FloatArray:
        """As `Predictor.member_probabilities`."""


def ask(predictor: Predictor, computing: Mapping[str, Computing], questions: Sequence[Question]) -> list[Said]:
    """Ask about several cases. A case is answered the same whoever waits beside it.

    Args:
        predictor: The bundle.
        computing: Target -> who computes.
        questions: The cases.
    """
    stacks = predictor.stack([question.prepared for question in questions])
    by_target = {target: own.member_probabilities(stacks) for target, own in computing.items()}
    checks: list[list[Check]] = [[] for _ in questions]
    for name, reference in predictor.references.items():
        for k, check in _distances(predictor, name, reference, questions):
            checks[k].append(check)
    return [
        Said({target: said[:, k] for target, said in by_target.items()}, tuple(checks[k]))
        for k in range(len(questions))
    ]


def _distances(
    predictor: Predictor, name: str, reference: Reference, questions: Sequence[Question]
) -> list[tuple[int, Check]]:
    """What is odd about the distance of one input of each case, by the case's place."""
    rows: list[tuple[int, Place, NDArray[Any]]] = []
    for k, question in enumerate(questions):
        value = question.prepared[name]
        if value is not None:
            several = value if name in predictor.preparations and value.ndim == 4 else [value]
            rows += [(k, (name, place), one) for place, one in enumerate(several)]
    if not rows:
        return []
    network = predictor.networks[0]
    judged = reference.judge(network, name, _tensor(predictor, name, [one for _, _, one in rows]))
    found = []
    for i in np.flatnonzero(judged.unusual | judged.foreign):
        k, (_, place), one = rows[i]
        box = questions[k].boxes.get((name, place))
        inverted = False
        if box is not None:
            turned = reference.judge(network, name, _tensor(predictor, name, [_negative(one, box)]))
            inverted = not turned.unusual[0] and turned.distance[0] < judged.distance[i]
        found += [
            (k, check)
            for check in distribution_checks(
                name,
                place if name in predictor.preparations else None,
                percentile=100 * float(judged.percentile[i]),
                unusual=bool(judged.unusual[i]),
                foreign=bool(judged.foreign[i]),
                inverted=bool(inverted),
            )
        ]
    return found


@torch.inference_mode()
def _tensor(predictor: Predictor, name: str, values: Sequence[NDArray[Any]]) -> Tensor:
    return predictor.tensors({name: np.stack(values)})[name]


def _negative(picture: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """The negative of a picture; what was filled up around it stays black."""
    top, left, bottom, right = box
    turned = picture.copy()
    turned[:, top:bottom, left:right] = 255 - turned[:, top:bottom, left:right]
    return turned


def warm_up(predictor: Predictor, computing: Mapping[str, Computing], batch: int) -> None:
    """Ask about a black case, alone and as a full batch, so that nobody waits for what is done only once."""
    prepared: dict[str, NDArray[Any] | None] = {}
    for name, preparation in predictor.preparations.items():
        several = (1,) if name in predictor.pools else ()
        side = preparation.size
        prepared[name] = np.zeros((*several, preparation.channels, side, side), np.uint8)
    for name, columns in predictor.columns.items():
        prepared[name] = np.array([1.0 if column.kind == "number" else 0.0 for column in columns])
    for name in predictor.connectomes[0]:
        prepared[name] = np.stack([own[name].baseline() for own in predictor.connectomes])
    for count in {1, batch}:
        ask(predictor, computing, [Question(prepared, {})] * count)
