"""The predictor: raw films, table rows and connectomes in, calibrated probability and decision out.

It must not know how the weights were fitted, nor explain anything: its networks and prepared films are
public, so that others can.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors
from torch import Tensor, nn

from tenfold.bundle.reference import Reference
from tenfold.bundle.seal import (
    CARD_FILE,
    PREPARED,
    REFERENCES_FILE,
    image_mark,
    open_sealed,
    patient_mark,
    read_sealed,
)
from tenfold.errors import BundleError, CohortError, ImageError, Refusal, nearest
from tenfold.modalities.confounds import read_covariates
from tenfold.modalities.connectome import ConnectomePreparation
from tenfold.modalities.image import ImagePreparation, read_image
from tenfold.modalities.table import Column, TablePreparation, read_table
from tenfold.network.network import Network
from tenfold.network.views import MOST_VIEWS, view
from tenfold.types import Calibration, FloatArray, OperatingPoint, PredictionSets, finite_or_none

Film = str | Path
Row = Mapping[str, str]
Given = Film | Sequence[Film] | Row | Mapping[str, Any] | FloatArray | None
"""What a case brings for one input: the path of a picture or connectome, or several paths of pictures of a view; a
table's row by column name or as figures; for a connectome that is adjusted for something, its path as "file" and those
columns by name; for pictures whose screen's layout is known by the hospital, their paths as "files" and "site"; or
nothing."""
_MISFITS = (Refusal, SafetensorError, LookupError, TypeError, ValueError, AttributeError, RuntimeError)
Prepared = NDArray[Any]
"""A picture, uint8 (channels, size, size), with a dimension of pictures before it where a view may have several; the
figures of a table's row, float64 (columns,), NaN where missing; or the
edges of a connectome as each model prepares them, float32 (members, edges)."""


@dataclass(frozen=True)
class Prediction:
    """What the bundle says of one case.

    Attributes:
        case: Name of the case.
        probabilities: Class -> calibrated probability, the mean over the models; empty without a result.
        decision: The class decided for (`Predictor.decide`); empty where there is no result.
        threshold: From this probability on the positive class is decided for; of more than two classes, of which the
            likeliest wins, the operating point of the positive one against the rest. NaN without a positive class.
        spread: Lowest and highest probability of the positive class (or, without one, of the class decided
            for) among the models. It shows how far the models disagree; it is not a confidence interval.
        error: Why there is no result; empty where there is one.
        missing: Inputs that the case lacks; the answer was given without them.
        cells: Columns of its tables that were empty, by input.
        likely: Classes of the prediction set (class-conditional split conformal); None where the bundle has none, or
            where an input is missing, for which it was not calibrated.
    """

    case: str
    probabilities: Mapping[str, float]
    decision: str
    threshold: float
    spread: tuple[float, float]
    error: str = ""
    missing: tuple[str, ...] = ()
    cells: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    likely: tuple[str, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return a mapping fit for JSON; `decision` is null where there is no result."""
        return {
            "case": self.case,
            "probabilities": dict(self.probabilities),
            "decision": self.decision or None,
            "threshold": finite_or_none(self.threshold),
            "spread": [finite_or_none(end) for end in self.spread],
            "error": self.error or None,
            "missing_inputs": list(self.missing),
            "missing_cells": {name: list(columns) for name, columns in self.cells.items() if columns},
            "prediction_set": None if self.likely is None else list(self.likely),
        }


def load(folder: str | Path, *, member: str | None = None, device: str = "cpu") -> Predictor:
    """Load a bundle, after every file of it was checked against its seal.

    Args:
        folder: The bundle.
        member: One model of it by name; by default all of them together.
        device: "cpu", "cuda", "cuda:1" ...

    Raises:
        BundleError: No bundle, tampered with, too new, or its parts do not fit; no such member or device.
    """
    place = Path(folder)
    facts = open_sealed(place)
    _check_device(device)
    try:
        return Predictor(place, facts, member, torch.device(device))
    except BundleError:
        raise
    # The seal holds, so it is not damage: whoever wrote this folder did not write a bundle.
    except _MISFITS as error:
        raise BundleError(
            f"the parts of this bundle do not fit together ({type(error).__name__}: {str(error)[:400]})",
            expected="a bundle as `tenfold run` writes it, with the network that its weights were fitted in",
            where=str(place),
        ) from error


class Predictor:
    """A loaded bundle. Make one with `load`.

    Attributes:
        targets: What can be predicted; `of` chooses among several.
        target: What is predicted: the first, unless `of` chose another.
        outcome: Where a cohort holds it and how it is read.
        classes: Class names, in the order of the probabilities.
        positive: The class that the operating point is about; empty where the likeliest class is the answer.
        operating_point: The frozen threshold and how it was chosen; None without a positive class.
        card: The model card, Markdown.
        facts: What was stored of the study: title, training n, evaluation, versions.
        digest: SHA-256 over the whole content.
        members: Names of the models in use.
        networks: The models, in evaluation, without gradients.
        calibrations: One a model, of this target.
        preparations: Input of pictures -> preparation.
        columns: Input of a table -> the columns that its rows need.
        tables: For each model, input of a table -> the preparation fitted on its training part.
        connectomes: For each model, input of connectomes -> likewise.
        conformal: Prediction sets at the level they were calibrated for; None where the bundle has none.
        views: Test-time views over whose logits the mean is taken.
        frozen: Input -> leading encoder steps whose weights all models share; they run once.
        references: By input, how far a case lies from the training patients, as the first model sees it; none of a
            bundle of an older format.
        examples: Cases to try it on, each with "name", "label", "files" (input -> paths), "rows" (table -> column ->
            cell), "layouts" (input -> site) and "beside" (connectome -> column -> cell).
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any], member: str | None, device: torch.device) -> None:
        self.card: str = read_sealed(folder, facts, CARD_FILE).decode("utf-8")
        self.facts: dict[str, Any] = facts["facts"]
        self.digest: str = facts["digest"]
        answers = facts["targets"] if facts["version"] > 2 else [_answer_of_old(facts)]
        self._answers: dict[str, Mapping[str, Any]] = {answer["name"]: answer for answer in answers}
        self.targets: tuple[str, ...] = tuple(self._answers)
        self.views: int = facts["views"]
        chosen = _choose(facts["members"], member)
        self.members: tuple[str, ...] = tuple(m["name"] for m in chosen)
        self._calibrations = tuple(
            {t: _calibration(c) for t, c in m["calibrations"].items()}
            if "calibrations" in m
            else {self.targets[0]: _calibration(m["calibration"])}
            for m in chosen
        )
        self.networks, arrays = _networks(folder, facts, chosen, device)
        self.inputs: tuple[str, ...] = self.networks[0].input_names
        self.preparations: dict[str, ImagePreparation] = {
            name: ImagePreparation.from_state(facts["preparations"][name])
            for name, encoder in self.networks[0].encoders.items()
            if encoder.modality == "image"
        }
        tabular = [name for name, encoder in self.networks[0].encoders.items() if encoder.modality == "table"]
        self.tables: tuple[dict[str, TablePreparation], ...] = tuple(
            {n: TablePreparation.from_state(s) for n, s in m.get("preparations", {}).items() if n in tabular}
            for m in chosen
        )
        self.connectomes: tuple[dict[str, ConnectomePreparation], ...] = tuple(
            {
                n: ConnectomePreparation.from_state(s, own.get(n, {}))
                for n, s in m.get("preparations", {}).items()
                if n not in tabular
            }
            for m, own in zip(chosen, arrays, strict=True)
        )
        self.columns: dict[str, tuple[Column, ...]] = {
            name: fitted.raw_columns for name, fitted in self.tables[0].items()
        }
        self.frozen = {name: self._shared_steps(name) if name in self.preparations else 0 for name in self.inputs}
        self.pools: dict[str, str] = dict(self.networks[0].pools)
        self.references = _references(folder, facts)
        self.examples: tuple[dict[str, Any], ...] = tuple(_example(folder, facts, e) for e in facts.get("examples", ()))
        self._device = device
        self._patients = frozenset(facts["training"]["patients"])
        self._images = frozenset(facts["training"]["images"])
        told = [answer["name"] for answer in answers]
        if not told or any(sorted(own) != sorted(told) for own in self._calibrations):
            raise BundleError(f"the targets {', '.join(told)}", expected="those that every model is calibrated for")
        for target in reversed(self.targets):
            self._look_at(target)
            self._check()

    def of(self, target: str) -> Predictor:
        """Return the same predictor, telling another of its targets.

        Raises:
            BundleError: It has no such target.
        """
        if target not in self._answers:
            raise BundleError(f"this bundle does not tell '{target}'", expected=nearest(target, self.targets))
        other = copy.copy(self)
        other._look_at(target)
        return other

    def _look_at(self, target: str) -> None:
        answer = self._answers[target]
        point, sets = answer["operating_point"], answer["conformal"]
        self.target = target
        self.outcome: Mapping[str, Any] = answer.get("outcome") or {"column": target}
        self.classes: tuple[str, ...] = tuple(answer["classes"])
        self.positive: str = answer["positive"]
        self.operating_point = None if point is None else OperatingPoint(**point)
        self.conformal = None if sets is None else PredictionSets(sets["alpha"], tuple(sets["lowest"]))
        self.calibrations = tuple(own[target] for own in self._calibrations)

    def _check(self) -> None:
        """Refuse facts that contradict each other."""
        if self.positive not in ("", *self.classes) or bool(self.positive) != (self.operating_point is not None):
            raise BundleError(f"the positive class {self.positive!r} and the operating point do not belong together")
        if not 1 <= self.views <= MOST_VIEWS:
            raise BundleError(f"{self.views} test-time views", expected=f"1 to {MOST_VIEWS}")
        head = self.networks[0].head_specs[self.target]
        prepared = {*self.preparations, *self.columns, *self.connectomes[0]}
        if set(self.inputs) != prepared:
            raise BundleError(f"preparations of {sorted(prepared)} for other inputs")
        for name, fitted in self.connectomes[0].items():
            if any((own[name].regions, own[name].needs) != (fitted.regions, fitted.needs) for own in self.connectomes):
                raise BundleError("the models' connectomes have different regions or covariates")
        if any({n: t.raw_columns for n, t in own.items()} != self.columns for own in self.tables):
            raise BundleError("the models' tables have different columns")
        if self.conformal is not None and len(self.conformal.lowest) != len(self.classes):
            raise BundleError("the prediction sets do not belong to the classes")
        # of levels, and of a score that was cut, the head knows more than a yes or no
        simple = head.kind in ("softmax", "two_sigmoid") and len(head.classes) == 2
        columns = 2 if head.binary else len(head.classes)
        fits = head.classes == self.classes if simple else len(self.classes) == columns
        if not fits or any(c.temperature <= 0 for c in self.calibrations):
            raise BundleError("the classes or the calibration do not belong to the network")

    def _shared_steps(self, name: str) -> int:
        """Count the leading encoder steps whose tensors are the very same memory in all models."""
        encoders = [network.encoders[name] for network in self.networks]
        blocks = zip(*(encoder.blocks for encoder in encoders), strict=True)
        same = [_same_memory(block) for block in blocks]
        if all(same) and _same_memory(encoders):
            return int(encoders[0].depth)
        return [*same, False].index(False)

    def trained_on_patients(self, patients: Sequence[str]) -> list[str]:
        """Return those patients who were in the study that this bundle comes from."""
        return [patient for patient in patients if patient_mark(patient) in self._patients]

    def trained_on_images(self, hashes: Sequence[str]) -> list[str]:
        """Return those SHA-256 file hashes that were in the study that this bundle comes from."""
        return [value for value in hashes if image_mark(value) in self._images]

    def prepare(self, given: Film | Mapping[str, Given]) -> dict[str, Prepared | None]:
        """Read and prepare what one case brings.

        Args:
            given: A path for the first input of pictures, or input -> path of a picture, row of a table (column ->
                cell, or figures as `modalities.table.read_table` gives them) or None; an input that is not named is
                missing.

        Returns:
            Input -> uint8 (channels, size, size) of a picture, float64 (columns,) of a table, float32 (members, edges)
            of a connectome; None where missing.

        Raises:
            ImageError: A film cannot be read, or all inputs are missing, or an input is unknown.
            CohortError: A cell is no number, no known level, or a column is absent; a connectome is wrong or of
                another atlas, or lacks what it is adjusted for.
        """
        case = self._named(given)
        prepared: dict[str, Prepared | None] = {}
        # screening may leave one model columns that another does not look at
        seen = {name: np.zeros(len(self.members), bool) for name in self.inputs}
        for name in self.inputs:
            value = case.get(name)
            prepared[name] = None
            if value is None:
                continue
            if name in self.connectomes[0]:
                prepared[name] = self._read_connectome(name, value)
                seen[name][:] = True
                continue
            if name in self.preparations:
                prepared[name] = self._read_pictures(name, value)
                seen[name][:] = prepared[name] is not None
                continue
            assert isinstance(value, np.ndarray | Mapping)
            row = value if isinstance(value, np.ndarray) else self._read_row(name, value)
            seen[name] = np.array([not np.isnan(fitted[name].raw(row[None])).all() for fitted in self.tables])
            prepared[name] = row if seen[name].any() else None
        if not np.any(list(seen.values()), axis=0).all():
            raise ImageError(
                f"nothing is given for any input: {', '.join(self.inputs)}",
                expected="one input at least, and in a table a value of a column that each model looks at",
            )
        missing = [name for name, models in seen.items() if not models.all()]
        if missing and not self.networks[0].fusion.drop:
            raise ImageError(
                f"no {' and no '.join(missing)}",
                expected="all inputs: this model was trained without modality dropout, so it cannot do without one",
            )
        return prepared

    def _read_pictures(self, name: str, value: Given) -> Prepared | None:
        """Read and prepare the pictures of one view; None where there are none."""
        given = value if isinstance(value, Mapping) else {"files": value}
        files, site = given.get("files") or (), str(given.get("site") or "")
        paths = [files] if isinstance(files, str | Path) else list(files)
        if len(paths) > 1 and name not in self.pools:
            raise ImageError(f"{len(paths)} pictures for input '{name}'", expected="one")
        if not paths:
            return None
        prepared = []
        for path in paths:
            reading = read_image(path)
            placed = replace(reading, facts={**reading.facts, "site": site})
            prepared.append(self.preparations[name].apply(placed))
        return np.stack(prepared) if name in self.pools else prepared[0]

    def _read_connectome(self, name: str, value: Given) -> Prepared:
        """Read one connectome, and prepare it as each model does: float32 (members, edges)."""
        fitted = self.connectomes[0][name]
        given = value if isinstance(value, Mapping) else {"file": str(value)}
        if not given.get("file"):
            raise CohortError(f"no file of the {name} is named", expected='"file" beside its covariates')
        lacking = [column for column in fitted.needs if not given.get(column)]
        if lacking:
            raise CohortError(
                f"{lacking[0]} is not given", expected=f"{', '.join(fitted.needs)}: the {name} is adjusted for them"
            )
        reading = fitted.read([given["file"]])
        cells = {column: [given[column]] for column in fitted.needs}
        beside = read_covariates(cells, {c: fitted.kind_of(c) for c in fitted.needs}) if fitted.needs else None
        return np.stack([own[name].apply(reading, beside)[0] for own in self.connectomes])

    def _read_row(self, name: str, row: Row) -> FloatArray:
        """Read the cells of one case's table."""
        return np.asarray(read_table(self.columns[name], {k: [v] for k, v in row.items()}).values[0])

    def _named(self, given: Film | Mapping[str, Given]) -> Mapping[str, Given]:
        """Bring one case into one form, and refuse an input that the model does not have, or of the wrong kind."""
        if isinstance(given, str | Path):
            from_files = [*self.preparations, *self.connectomes[0]]
            if not from_files:
                raise ImageError("a film for a model that sees no pictures", expected=f"{', '.join(self.inputs)}")
            given = {from_files[0]: given}
        for name, value in given.items():
            if name not in self.inputs:
                raise ImageError(f"there is no input '{name}'", do=nearest(name, self.inputs))
            if name in self.connectomes[0]:
                continue
            row = isinstance(value, np.ndarray) or (isinstance(value, Mapping) and "files" not in value)
            if value is not None and row != (name in self.columns):
                raise ImageError(
                    f"input '{name}' got {'a row' if row else 'a file'}",
                    expected="a row of cells by column" if name in self.columns else "the path of a picture",
                )
        return given

    def predict(
        self,
        given: Film | Sequence[Film | Mapping[str, Given]] | Mapping[str, Sequence[Given]],
        *,
        cases: Sequence[str] | None = None,
        batch: int = 16,
        on_error: Literal["raise", "return"] = "raise",
    ) -> list[Prediction]:
        """Predict cases from what they bring.

        Args:
            given: One path, a list of cases as `prepare` takes them, or input -> list of what the cases bring for it.
            cases: Names of the cases; by default the path of each one's first film, or its number.
            batch: Cases at a time.
            on_error: "raise" stops at the first case that cannot be read; "return" gives that case a
                prediction without a result, whose `error` says why, and goes on.

        Returns:
            One prediction a case, in the order given.

        Raises:
            ImageError: A film cannot be read, or a case lacks every input.
            CohortError: A row cannot be read.
        """
        rows = self._rows(given)
        names = list(cases) if cases is not None else [_own_name(row, i) for i, row in enumerate(rows)]
        if len(names) != len(rows):
            raise ImageError(f"{len(names)} names for {len(rows)} cases", expected="one name a case")
        done: list[Prediction] = []
        for start in range(0, len(rows), batch):
            part = slice(start, start + batch)
            done += self._predict_batch(rows[part], names[part], on_error)
        return done

    def _rows(
        self, given: Film | Sequence[Film | Mapping[str, Given]] | Mapping[str, Sequence[Given]]
    ) -> list[Mapping[str, Given]]:
        """Bring the ways of naming cases into one: a mapping a case."""
        if isinstance(given, str | Path):
            given = [given]
        if not isinstance(given, Mapping):
            return [self._named(one) for one in given]
        lengths = {name: len(column) for name, column in given.items()}
        if len(set(lengths.values())) > 1:
            raise ImageError(f"lists of unequal length: {lengths}", expected="one entry a case for every input")
        return [self._named(dict(zip(given, row, strict=True))) for row in zip(*given.values(), strict=True)]

    def _predict_batch(
        self, rows: Sequence[Mapping[str, Given]], names: Sequence[str], on_error: str
    ) -> Iterator[Prediction]:
        """Predict some cases; those that cannot be read have no result."""
        prepared: dict[int, dict[str, Prepared | None]] = {}
        errors: dict[int, str] = {}
        for i, row in enumerate(rows):
            try:
                prepared[i] = self.prepare(row)
            except (ImageError, CohortError) as error:
                if on_error == "raise":
                    raise
                errors[i] = str(error)
        probabilities = np.zeros((len(self.members), 0, len(self.classes)))
        if prepared:
            probabilities = self.member_probabilities(self.stack(list(prepared.values())))
        column = {i: k for k, i in enumerate(prepared)}
        for i, name in enumerate(names):
            yield (
                self._without_result(name, errors[i])
                if i in errors
                else self._prediction(name, probabilities[:, column[i]], prepared[i])
            )

    def stack(self, prepared: Sequence[Mapping[str, Prepared | None]]) -> dict[str, Prepared]:
        """Join prepared cases; a case that lacks an input gets a row of NaN, which the networks know as absent.

        Returns:
            Input -> float32 (n, channels, size, size) in [0, 1], uint8 where no case lacks it; where a view may have
            several pictures (n, pictures, channels, size, size); tables float64.
        """
        stacks: dict[str, Prepared] = {}
        for name in self.inputs:
            values = [case[name] for case in prepared]
            there = [v for v in values if v is not None]
            if not there:
                continue
            if name in self.pools:
                stacks[name] = _padded(values)
                continue
            if len(there) == len(values):
                stacks[name] = np.stack(there)
                continue
            scale = 255.0 if name in self.preparations else 1.0
            dtype = np.float64 if name in self.columns else np.float32
            absent = np.full(there[0].shape, np.nan, dtype)
            stacks[name] = np.stack([absent if v is None else (v / scale).astype(dtype) for v in values])
        return stacks

    @property
    def _threshold(self) -> float:
        return math.nan if self.operating_point is None else self.operating_point.threshold

    def _without_result(self, case: str, error: str) -> Prediction:
        return Prediction(case, {}, "", self._threshold, (math.nan, math.nan), error)

    def _prediction(self, case: str, by_member: FloatArray, prepared: Mapping[str, Prepared | None]) -> Prediction:
        """Put one case's (members, classes) into words."""
        mean = by_member.mean(axis=0)
        decision = self.decide(mean)
        of_interest = by_member[:, self.classes.index(self.positive or decision)]
        missing = tuple(name for name, value in prepared.items() if value is None)
        likely = None
        if self.conformal is not None and not missing:
            likely = tuple(c for c, kept in zip(self.classes, self.conformal.sets(mean[None])[0], strict=True) if kept)
        return Prediction(
            case=case,
            probabilities={name: float(p) for name, p in zip(self.classes, mean, strict=True)},
            decision=decision,
            threshold=self._threshold,
            spread=(float(of_interest.min()), float(of_interest.max())),
            missing=missing,
            cells={
                name: tuple(c.name for c, v in zip(columns, values, strict=True) if np.isnan(v))
                for name, columns in self.columns.items()
                if (values := prepared[name]) is not None
            },
            likely=likely,
        )

    def decide(self, probabilities: FloatArray) -> str:
        """Return the class decided for.

        Of two classes that is the positive one from the threshold on. Of more it is the likeliest: the threshold asks
        about one of them alone.

        Args:
            probabilities: (classes,).
        """
        if not self.positive or len(self.classes) > 2:
            return self.classes[int(np.argmax(probabilities))]
        positive = self.classes.index(self.positive)
        return self.classes[positive if probabilities[positive] >= self._threshold else 1 - positive]

    def predict_arrays(self, prepared: Mapping[str, Prepared]) -> FloatArray:
        """Predict cases that are prepared already.

        Args:
            prepared: Input -> stacked arrays, as `stack` gives them.

        Returns:
            (n, classes): the mean of the models' calibrated probabilities.
        """
        return np.asarray(self.member_probabilities(prepared).mean(axis=0))

    def member_probabilities(self, prepared: Mapping[str, Prepared]) -> FloatArray:
        """Return what each model says.

        Args:
            prepared: Input -> stacked arrays, as `stack` gives them; all cases run at once.

        Returns:
            (members, n, classes) calibrated probabilities.
        """
        return self.all_probabilities(prepared)[self.target]

    def all_probabilities(self, prepared: Mapping[str, Prepared]) -> dict[str, FloatArray]:
        """Return what each model says of every target, of one pass; as `member_probabilities`, by target."""
        pictures = self.tensors({name: value for name, value in prepared.items() if name in self.preparations})
        rows = {name: value for name, value in prepared.items() if name not in self.preparations}
        tensors = [{**pictures, **self.tensors(rows, member)} for member in range(len(self.members))]
        seen = [self._scores(tensors, index) for index in range(self.views)]
        return {
            target: np.stack(
                [
                    own[target].apply(scores)
                    for own, scores in zip(
                        self._calibrations, np.mean([one[target] for one in seen], axis=0), strict=True
                    )
                ]
            )
            for target in self.targets
        }

    def tensors(self, prepared: Mapping[str, Prepared], member: int = 0) -> dict[str, Tensor]:
        """Turn stacked arrays into what a model eats, on its device; tables as that model prepares them."""
        found = {}
        for name, value in prepared.items():
            if name in self.columns:
                array = self.tables[member][name].apply(value)
            elif name in self.connectomes[member]:
                array = value[:, member]
            else:
                array = value.astype(np.float32) / 255.0 if value.dtype == np.uint8 else value
            found[name] = torch.from_numpy(np.array(array, np.float32)).to(self._device)
        return found

    @torch.inference_mode()
    def _scores(self, tensors: Sequence[Mapping[str, Tensor]], index: int) -> dict[str, FloatArray]:
        """Logits of one view by target, (members, n, classes); steps that the models share run once."""
        lower = {
            name: self.networks[0].features(name, view(tensors[0][name], index), 0, self.frozen[name])
            for name in self.preparations
            if name in tensors[0]
        }
        said = [n({**own, **lower}, start=self.frozen) for n, own in zip(self.networks, tensors, strict=True)]
        return {
            target: np.stack([n.to_scores(target, one[target]) for n, one in zip(self.networks, said, strict=True)])
            for target in self.targets
        }


def _padded(values: Sequence[Prepared | None]) -> Prepared:
    """Stack cases with different numbers of pictures; slots that are empty are NaN."""
    there = [v for v in values if v is not None]
    counts = {0 if v is None else len(v) for v in values}
    if len(counts) == 1:
        return np.stack(there)
    stacked = np.full((len(values), max(counts), *there[0].shape[1:]), np.nan, np.float32)
    for own, value in zip(stacked, values, strict=True):
        if value is not None:
            own[: len(value)] = value / np.float32(255.0)
    return stacked


def _own_name(row: Mapping[str, Given], position: int) -> str:
    """Name a case by its first film."""
    return next((str(v) for v in row.values() if isinstance(v, str | Path)), f"case {position + 1}")


def _check_device(device: str) -> None:
    """Refuse a device that is not here."""
    kind = device.partition(":")[0]
    if kind == "cpu" or (kind == "cuda" and torch.cuda.is_available()):
        return
    raise BundleError(f"there is no device {device!r} here", expected="cpu, or cuda where there is one", do="use cpu")


def _choose(members: Sequence[Mapping[str, Any]], name: str | None) -> Sequence[Mapping[str, Any]]:
    """Pick one model by its name, or all."""
    if name is None:
        return members
    chosen = [m for m in members if m["name"] == name]
    if not chosen:
        raise BundleError(f"this bundle has no model {name!r}", expected=nearest(name, [m["name"] for m in members]))
    return chosen


def _calibration(data: Mapping[str, Any]) -> Calibration:
    return Calibration(**{**data, "intercepts": tuple(data["intercepts"])})


def _answer_of_old(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Read the one target of formats 1 and 2."""
    column = facts["facts"].get("target_column", facts["target"]["name"])
    return {
        **facts["target"],
        "operating_point": facts["operating_point"],
        "conformal": facts.get("conformal"),
        "outcome": {"column": column},
    }


def _networks(
    folder: Path, facts: Mapping[str, Any], members: Sequence[Mapping[str, Any]], device: torch.device
) -> tuple[tuple[Network, ...], list[dict[str, dict[str, NDArray[Any]]]]]:
    """Build the models, and hand out the arrays of their preparations; tensors that were stored once are held once."""

    def tensors(name: str) -> dict[str, Tensor]:
        return from_safetensors(read_sealed(folder, facts, name))

    specs = [facts["network"], *(m["network"] for m in members if "network" in m)]
    if any("weights" in encoder["options"] for spec in specs for encoder in spec["encoders"]):
        raise BundleError("the network's spec names weights elsewhere", expected="all weights in the bundle")
    # Loaded inside somebody's inference mode, the weights could not take part in a heat map's gradient.
    with torch.inference_mode(False):
        shared = tensors(facts["shared"]) if facts["shared"] else {}
        placed = {name: tensor.to(device) for name, tensor in shared.items() if not name.startswith(PREPARED)}
        networks, arrays = [], []
        for member in members:
            network = Network.from_spec(member.get("network", facts["network"])).to(device).eval().requires_grad_(False)
            # format 1 knew no absent inputs: what stands for them keeps its zeros, and without dropout is never used
            kept = network.fusion.state_dict(prefix="fusion.") if facts["version"] == 1 else {}
            own = tensors(member["file"])
            arrays.append(_arrays_of({**shared, **own}))
            weights = {name: t.to(device) for name, t in own.items() if not name.startswith(PREPARED)}
            network.load_state_dict({**kept, **placed, **weights}, assign=True)
            networks.append(network)
    return tuple(networks), arrays


def _example(folder: Path, facts: Mapping[str, Any], example: Mapping[str, Any]) -> dict[str, Any]:
    """A case to try the bundle on, with the places of its files; those are sealed, or it is none."""
    for file in (file for files in example["files"].values() for file in files):
        if file not in facts["files"]:
            raise BundleError(f"an example names the file {file!r}, which the bundle does not seal", where=str(folder))
    return {**example, "files": {n: [folder / file for file in files] for n, files in example["files"].items()}}


def _references(folder: Path, facts: Mapping[str, Any]) -> dict[str, Reference]:
    """By input, how far a case lies from the training patients."""
    states = facts.get("references", {})
    if not states:
        return {}
    arrays: dict[str, dict[str, NDArray[Any]]] = {name: {} for name in states}
    for key, tensor in from_safetensors(read_sealed(folder, facts, REFERENCES_FILE)).items():
        name, _, part = key.rpartition("|")
        arrays[name][part] = tensor.numpy()
    return {name: Reference.from_state(state, arrays[name]) for name, state in states.items()}


def _arrays_of(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, NDArray[Any]]]:
    """Sort the arrays of preparations by input."""
    found: dict[str, dict[str, NDArray[Any]]] = {}
    for key, tensor in tensors.items():
        if key.startswith(PREPARED):
            name, _, part = key.removeprefix(PREPARED).rpartition("|")
            found.setdefault(name, {})[part] = tensor.numpy()
    return found


def _same_memory(modules: Sequence[nn.Module]) -> bool:
    """Say whether modules hold the very same tensors."""
    places = [[tensor.data_ptr() for tensor in module.state_dict().values()] for module in modules]
    return all(place == places[0] for place in places)
