"""Asks the networks about several cases at once: probabilities, and how far each case lies from the study.

It must not know how cases came, or what is said of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from tenfold.bundle import Predictor
from tenfold.bundle.reference import Judged, Reference
from tenfold.errors import ServeError, nearest
from tenfold.serve.answer import Check
from tenfold.serve.fast import Looked, fast
from tenfold.serve.pngs import Box, Place
from tenfold.serve.quality import distribution_checks
from tenfold.types import FloatArray

ENGINES = ("auto", "torch", "openvino")
_NOISE = 4


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
    """What turns stacked cases into what each model says: torch, or something faster."""

    def look(self, prepared: Mapping[str, NDArray[Any]]) -> Looked:
        """Say it of every target, and how far the pictures lie."""


class Plain:
    """The bundle as it is, in torch."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def look(self, prepared: Mapping[str, NDArray[Any]]) -> Looked:
        """Say what each model says of every target, and how far the pictures lie."""
        return Looked(self._predictor.all_probabilities(prepared), {})


def ask(predictor: Predictor, computing: Computing, questions: Sequence[Question]) -> list[Said]:
    """Ask about several cases. A case is answered the same whoever waits beside it.

    Args:
        predictor: The bundle.
        computing: Who computes.
        questions: The cases.
    """
    looked = computing.look(predictor.stack([question.prepared for question in questions]))
    checks: list[list[Check]] = [[] for _ in questions]
    for name, reference in predictor.references.items():
        for k, check in _distances(predictor, name, reference, looked.judged.get(name), questions):
            checks[k].append(check)
    return [
        Said({target: said[:, k] for target, said in looked.probabilities.items()}, tuple(checks[k]))
        for k in range(len(questions))
    ]


def _distances(
    predictor: Predictor, name: str, reference: Reference, judged: Judged | None, questions: Sequence[Question]
) -> list[tuple[int, Check]]:
    """What is odd about the distance of one input of each case, by the case's place; judged here if it was not yet."""
    rows: list[tuple[int, Place, NDArray[Any]]] = []
    for k, question in enumerate(questions):
        value = question.prepared[name]
        if value is not None:
            several = value if name in predictor.preparations and value.ndim == 4 else [value]
            rows += [(k, (name, place), one) for place, one in enumerate(several)]
    if not rows:
        return []
    network = predictor.networks[0]
    if judged is None:
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


def choose(predictor: Predictor, engine: str, threads: int) -> tuple[Computing, str]:
    """Choose what computes: OpenVINO where it is installed and agrees with torch, unless one of them is asked for.

    Args:
        predictor: The bundle.
        engine: "auto", "torch" or "openvino".
        threads: Of OpenVINO; 0: as many as it takes by itself.

    Returns:
        It, and what it is called.

    Raises:
        ServeError: There is no such engine, or OpenVINO was asked for and cannot be had.
    """
    if engine not in ENGINES:
        raise ServeError(f"there is no engine '{engine}'", do=nearest(engine, ENGINES))
    if engine != "torch":
        made, why = fast(predictor, probe=_probe(predictor), threads=threads)
        if made is not None:
            return made, "OpenVINO float32"
        if engine == "openvino":
            raise ServeError(f"OpenVINO cannot compute this bundle: {why}", do="leave --engine out, or take torch")
    return Plain(predictor), "torch float32"


def _probe(predictor: Predictor) -> list[dict[str, NDArray[Any] | None]]:
    """Cases to try an engine on: the bundle's examples, and pictures of blurred noise."""
    random = np.random.default_rng(0)
    cases = [_case(predictor, lambda shape: _clouds(random, shape)) for _ in range(_NOISE)]
    for example in predictor.examples:
        given = {name: {"files": files, "site": example["layouts"].get(name, "")} for name, files in _pictures(example)}
        cases.append({**cases[0], **predictor.prepare({**given, **example["rows"]})})
    return cases


def _pictures(example: Mapping[str, Any]) -> list[tuple[str, list[Path]]]:
    return [(name, files) for name, files in example["files"].items() if name not in example["beside"]]


def _clouds(random: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Noise at the scale of anatomy rather than of pixels."""
    noise = random.random((*shape[:-2], 8, 8))
    zoom = [1] * (len(shape) - 2) + [shape[-2] / 8, shape[-1] / 8]
    return np.asarray(np.clip(ndimage.zoom(noise, zoom, order=1) * 255, 0, 255), np.uint8)


def _case(
    predictor: Predictor, picture: Callable[[tuple[int, ...]], NDArray[np.uint8]]
) -> dict[str, NDArray[Any] | None]:
    """A case of pictures that are made, the rest as usual in training."""
    prepared: dict[str, NDArray[Any] | None] = {}
    for name, preparation in predictor.preparations.items():
        several = (1,) if name in predictor.pools else ()
        prepared[name] = picture((*several, preparation.channels, preparation.size, preparation.size))
    for name, columns in predictor.columns.items():
        prepared[name] = np.array([1.0 if column.kind == "number" else 0.0 for column in columns])
    for name in predictor.connectomes[0]:
        prepared[name] = np.stack([own[name].baseline() for own in predictor.connectomes])
    return prepared


def warm_up(predictor: Predictor, computing: Computing, batch: int) -> None:
    """Ask about a black case, alone and as a full batch, so that nobody waits for what is done only once."""
    prepared = _case(predictor, lambda shape: np.zeros(shape, np.uint8))
    for count in {1, batch}:
        ask(predictor, computing, [Question(prepared, {})] * count)
