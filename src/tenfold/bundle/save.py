"""Writing a bundle: fold models, preparation, calibration, operating point and card, whole or not at all.

It must not know how any of these came about.
"""

from __future__ import annotations

import json
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save as to_safetensors
from torch import Tensor

from tenfold.bundle.reference import Reference
from tenfold.bundle.seal import (
    CARD_FILE,
    EXAMPLES_FOLDER,
    FACTS_FILE,
    FORMAT,
    FORMAT_VERSION,
    PREPARED,
    REFERENCES_FILE,
    WEIGHTS_FOLDER,
    digest,
    image_mark,
    patient_mark,
    sha256,
)
from tenfold.errors import BundleError, OutputError
from tenfold.types import Calibration, OperatingPoint, PredictionSets

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_SHARED = "shared"


@dataclass(frozen=True)
class Answer:
    """One thing that a bundle tells.

    Attributes:
        target: The head that answers.
        classes: Its classes, in the order of the probabilities.
        positive: The class that the operating point is about; empty where the likeliest class is the answer.
        operating_point: The frozen threshold; None only where `positive` is empty.
        conformal: The prediction sets, where there are any.
        outcome: Where a cohort holds the outcome and how it is read: the fields of `cohort.outcomes.Target`.
    """

    target: str
    classes: Sequence[str]
    positive: str = ""
    operating_point: OperatingPoint | None = None
    conformal: PredictionSets | None = None
    outcome: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Member:
    """One of the models that together are the predictor.

    Attributes:
        name: Unique, letters, digits, dashes: "fold-0-3".
        state_dict: Its weights, on the CPU.
        calibrations: Target -> what turns its logits into probabilities.
        preparations: Input of a table or of connectomes -> the `state()` of what was fitted on this model's training
            part.
        arrays: Input of connectomes -> the `arrays()` of the same.
        network_spec: Where it differs from the others': screening may leave each fold other columns.
    """

    name: str
    state_dict: Mapping[str, Tensor]
    calibrations: Mapping[str, Calibration]
    preparations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    arrays: Mapping[str, Mapping[str, NDArray[Any]]] = field(default_factory=dict)
    network_spec: Mapping[str, Any] | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Return its weights and the arrays of its preparations, as they lie in its file."""
        arrays = {f"{PREPARED}{name}|{key}": a for name, own in self.arrays.items() for key, a in own.items()}
        return {**self.state_dict, **{key: torch.from_numpy(np.array(array)) for key, array in arrays.items()}}


@dataclass(frozen=True)
class Example:
    """A case to try the bundle on; never a real patient.

    Attributes:
        name: Of the case.
        label: What is true of it.
        files: Input of pictures or connectomes -> the files to copy.
        rows: Input of a table -> column -> text of the cell.
        layouts: Input of pictures -> the site whose screens they show.
        beside: Input of connectomes -> column that it is adjusted for -> text.
    """

    name: str
    label: str
    files: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    rows: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    layouts: Mapping[str, str] = field(default_factory=dict)
    beside: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def save_bundle(
    folder: Path,
    *,
    members: Sequence[Member],
    network_spec: Mapping[str, Any],
    answers: Sequence[Answer],
    preparations: Mapping[str, Mapping[str, Any]],
    model_card: str,
    facts: Mapping[str, Any],
    training_patients: Iterable[str],
    training_images: Iterable[str],
    views: int = 1,
    references: Mapping[str, Reference] | None = None,
    examples: Sequence[Example] = (),
) -> str:
    """Write a bundle, whole or not at all.

    Args:
        folder: Where; it must not exist, or be empty.
        members: The models, at least one, all of the same network.
        network_spec: `Network.spec`, from which the network can be built without weights.
        answers: What it tells, at least one thing.
        preparations: For each input of pictures, the `state()` of its preparation, which all models share.
        model_card: Markdown; becomes README.md.
        facts: What else is worth keeping, fit for JSON: study title, training n, evaluation, versions.
        training_patients: Identifiers of all patients of the study; only their marks are stored.
        training_images: SHA-256 of all films of the study; only their marks are stored.
        views: Test-time views (`network.views`) over whose logits the mean is taken, before calibration.
        references: By input, how far a case lies from the training patients as the first model sees it.
        examples: Cases to try the bundle on; none of a real patient.

    Returns:
        The digest of the bundle.

    Raises:
        BundleError: The parts do not belong together.
        OutputError: The folder holds something, or cannot be written to.
    """
    _check(members, answers)
    packed = [member.tensors() for member in members]
    shared = _shared_names(packed)
    content: dict[str, Any] = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "targets": [_answer(answer) for answer in answers],
        "network": dict(network_spec),
        "preparations": {name: dict(state) for name, state in preparations.items()},
        "members": [_member(m) for m in members],
        "shared": _weights_file(_SHARED) if shared else None,
        "views": views,
        "facts": dict(facts),
        "references": {name: reference.state() for name, reference in (references or {}).items()},
        "examples": [_example(k, example) for k, example in enumerate(examples)],
        "training": {
            "patients": sorted({patient_mark(patient) for patient in training_patients}),
            "images": sorted({image_mark(image) for image in training_images}),
        },
    }
    with _new_folder(folder) as place:
        hashes = {CARD_FILE: _put(place, CARD_FILE, model_card.encode("utf-8"))}
        for name, data in _packed([member.name for member in members], packed, shared):
            hashes[name] = _put(place, name, data)
        if references:
            arrays = {
                f"{name}|{key}": torch.from_numpy(np.array(array))
                for name, reference in references.items()
                for key, array in reference.arrays().items()
            }
            hashes[REFERENCES_FILE] = _put(place, REFERENCES_FILE, _pack(arrays, arrays.keys()))
        for written, example in zip(content["examples"], examples, strict=True):
            for name, files in example.files.items():
                for file, source in zip(written["files"][name], files, strict=True):
                    hashes[file] = _put(place, file, source.read_bytes())
        # Through JSON once, so that the digest is over what a reader will see (tuples are lists there).
        content = json.loads(json.dumps({**content, "files": hashes}, allow_nan=False))
        content["digest"] = digest(content)
        _put(place, FACTS_FILE, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode("utf-8"))
    return str(content["digest"])


def _example(number: int, example: Example) -> dict[str, Any]:
    """What bundle.json says of one example; its files get names of ours."""
    return {
        "name": example.name,
        "label": example.label,
        "files": {
            name: [f"{EXAMPLES_FOLDER}/{number + 1}-{k + 1}-{i + 1}{f.suffix.lower()}" for i, f in enumerate(files)]
            for k, (name, files) in enumerate(example.files.items())
        },
        "rows": {name: dict(row) for name, row in example.rows.items()},
        "layouts": dict(example.layouts),
        "beside": {name: dict(columns) for name, columns in example.beside.items()},
    }


def _answer(answer: Answer) -> dict[str, Any]:
    """What bundle.json says of one target."""
    return {
        "name": answer.target,
        "classes": list(answer.classes),
        "positive": answer.positive,
        "operating_point": asdict(answer.operating_point) if answer.operating_point else None,
        "conformal": None if answer.conformal is None else asdict(answer.conformal),
        "outcome": dict(answer.outcome),
    }


def _member(member: Member) -> dict[str, Any]:
    """What bundle.json says of one model."""
    content: dict[str, Any] = {
        "name": member.name,
        "file": _weights_file(member.name),
        "calibrations": {target: asdict(calibration) for target, calibration in member.calibrations.items()},
    }
    if member.preparations:
        content["preparations"] = {name: dict(state) for name, state in member.preparations.items()}
    if member.network_spec is not None:
        content["network"] = dict(member.network_spec)
    return content


def _check(members: Sequence[Member], answers: Sequence[Answer]) -> None:
    """Refuse parts that do not belong together."""
    names = [member.name for member in members]
    if not names or len(set(names)) < len(names) or _SHARED in names or not all(map(_NAME.fullmatch, names)):
        raise BundleError(
            f"models named {names}",
            expected="at least one, each with its own name of letters, digits, dots, dashes; none 'shared'",
        )
    targets = [answer.target for answer in answers]
    if not targets or len(set(targets)) < len(targets):
        raise BundleError(f"the targets {targets}", expected="at least one, each with its own name")
    for answer in answers:
        known = answer.positive in ("", *answer.classes)
        if not known or bool(answer.positive) != (answer.operating_point is not None):
            raise BundleError(
                f"positive class {answer.positive!r} with operating point {answer.operating_point}",
                expected=f"one of {', '.join(answer.classes)} with an operating point, or neither",
            )
    for member in members:
        if set(member.calibrations) != set(targets):
            raise BundleError(
                f"model {member.name} is calibrated for {sorted(member.calibrations)}", expected=f"{sorted(targets)}"
            )


def _weights_file(name: str) -> str:
    return f"{WEIGHTS_FOLDER}/{name}.safetensors"


def _shared_names(packed: Sequence[Mapping[str, Tensor]]) -> set[str]:
    """Name the tensors that are byte-identical in all members; a single member shares nothing."""
    first, *others = packed
    if not others:
        return set()
    return {
        name
        for name, tensor in first.items()
        if all(name in other and _identical(tensor, other[name]) for other in others)
    }


def _identical(a: Tensor, b: Tensor) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return torch.equal(_bytes(a), _bytes(b))


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)


def _packed(
    names: Sequence[str], packed: Sequence[Mapping[str, Tensor]], shared: set[str]
) -> Iterator[tuple[str, bytes]]:
    """Pack one file of weights after the other, so that only one is held in memory."""
    if shared:
        yield _weights_file(_SHARED), _pack(packed[0], shared)
    for name, tensors in zip(names, packed, strict=True):
        yield _weights_file(name), _pack(tensors, tensors.keys() - shared)


def _pack(state: Mapping[str, Tensor], names: Iterable[str]) -> bytes:
    """Pack tensors; each is copied, since safetensors takes neither tied nor strided ones."""
    copies = {name: state[name].detach().cpu().clone(memory_format=torch.contiguous_format) for name in sorted(names)}
    return bytes(to_safetensors(copies))


def _put(place: Path, name: str, data: bytes) -> str:
    """Write one file and return its hash."""
    path = place / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return sha256(data)


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Hand out a neighbour, which takes the folder's name at the end, or vanishes if anything goes wrong."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(
            "this place is taken",
            expected="a folder that does not exist yet, or an empty one",
            do="choose another folder, or remove this one",
            where=str(folder),
        )
    neighbour = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    try:
        neighbour.mkdir(parents=True)
        yield neighbour
        neighbour.replace(folder)
    except OSError as error:
        raise OutputError(
            f"cannot write the bundle: {error.strerror or error}",
            do="free space or choose a folder that you may write to, then run the same command again",
            where=str(folder),
        ) from error
    finally:
        shutil.rmtree(neighbour, ignore_errors=True)
