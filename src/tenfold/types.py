"""The nouns that the floors hand to each other: frozen, numpy only.

It must not know files of any particular study, torch, or how any of these values came about.
"""

from __future__ import annotations

import csv
import io
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tenfold.errors import CohortError, OutputError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
StrArray = NDArray[np.str_]

OUT_OF_FOLD, HOLDOUT, EXTERNAL = "out_of_fold", "holdout", "external"


@dataclass(frozen=True)
class Estimate:
    """A number that never travels alone.

    Attributes:
        value: The point estimate.
        low: Lower end of the interval; NaN where there is none.
        high: Upper end of the interval; NaN where there is none.
        method: How the interval was made, in words, with its level.
        n: How many patients or cases the number rests on; the method says which.
    """

    value: float
    low: float
    high: float
    method: str
    n: int

    def to_dict(self) -> dict[str, Any]:
        """Return a mapping fit for JSON, NaN written as null."""
        return {
            "value": finite_or_none(self.value),
            "low": finite_or_none(self.low),
            "high": finite_or_none(self.high),
            "method": self.method,
            "n": self.n,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Estimate:
        """Read what `to_dict` wrote."""
        number = {k: math.nan if data[k] is None else float(data[k]) for k in ("value", "low", "high")}
        return cls(**number, method=str(data["method"]), n=int(data["n"]))

    def __str__(self) -> str:
        if math.isnan(self.low):
            return f"{self.value:.3f}"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def finite_or_none(value: float) -> float | None:
    """NaN and infinity have no place in JSON; both become null."""
    return float(value) if math.isfinite(value) else None


Severity = Literal["refusal", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing the audit found.

    Attributes:
        severity: "refusal" stops a run, "warning" is printed and reported, "note" is only listed.
        check: Short name of the check, for example "duplicate_image".
        message: One or two sentences for a person: what, why it matters, what to do.
        cases: The cases concerned.
        patients: The patients concerned.
        column: The column concerned.
        row: Row in the cohort file (the header is row 1), 0 where it is about no single row.
        value: A figure that belongs to it (an AUC, a distance); NaN where there is none.
    """

    severity: Severity
    check: str
    message: str
    cases: tuple[str, ...] = ()
    patients: tuple[str, ...] = ()
    column: str = ""
    row: int = 0
    value: float = math.nan


@dataclass(frozen=True)
class Case:
    """One examination of one patient.

    Attributes:
        case: Unique name of the examination.
        patient: Who was examined. All splits and intervals go by it.
        site: Hospital or scanner; empty where the cohort does not say.
        date: ISO date; empty where the cohort does not say.
        row: Row in the cohort file, the header being row 1.
        values: All columns of that row as text.
    """

    case: str
    patient: str
    site: str
    date: str
    row: int
    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reading:
    """What was measured of one case in one modality, before any preparation.

    Attributes:
        pixels: uint8, uint16 or float32 array, (height, width) grey or (height, width, 3) colour; bright is
            dense (MONOCHROME1 is already inverted).
        source: Where it came from, for messages.
        facts: What the file says of itself: format, modality, bits, orientation ...
    """

    pixels: NDArray[Any]
    source: str
    facts: Mapping[str, str | int | float] = field(default_factory=dict)


@dataclass(frozen=True)
class Split:
    """One division of the cohort: disjoint by patient.

    Attributes:
        repeat: Which repetition, from 0.
        fold: Which fold of that repetition, from 0.
        train: Cases the weights are fitted on.
        inner: Cases every decision is made on (stopping, temperature, operating point).
        test: Cases nobody sees before the predictions are made.
    """

    repeat: int
    fold: int
    train: tuple[str, ...]
    inner: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True)
class Calibration:
    """Recalibration of a classifier's log-probabilities: softmax(logits / temperature + intercepts).

    Attributes:
        method: "temperature", "platt" (temperature and intercepts) or "none".
        temperature: Above 1 softens, below 1 sharpens.
        intercepts: One a class, added after the division.
        n: Cases it was fitted on.
    """

    method: str = "none"
    temperature: float = 1.0
    intercepts: tuple[float, ...] = ()
    n: int = 0

    def apply(self, logits: FloatArray) -> FloatArray:
        """Turn logits into calibrated probabilities.

        Args:
            logits: (n, classes).

        Returns:
            (n, classes), rows summing to 1.
        """
        scaled = np.asarray(logits, np.float64) / self.temperature
        if self.intercepts:
            scaled = scaled + np.asarray(self.intercepts)
        scaled = scaled - scaled.max(axis=1, keepdims=True)
        odds = np.exp(scaled)
        return np.asarray(odds / odds.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class OperatingPoint:
    """The probability from which on the answer is "yes", and how it was chosen.

    Attributes:
        threshold: A case is positive where its probability is at least this.
        rule: The rule in words, for example "sensitivity >= 0.95".
        n: Cases it was chosen on.
        chosen_on: Which data, in words.
    """

    threshold: float
    rule: str
    n: int
    chosen_on: str = "inner validation part"


@dataclass(frozen=True)
class PredictionSets:
    """Which classes a case may have, at a level fixed beforehand (class-conditional split conformal prediction).

    Attributes:
        alpha: Share of each class that the sets may miss.
        lowest: (classes,) a class is in the set where its probability is at least this.
    """

    alpha: float
    lowest: tuple[float, ...]

    def sets(self, probabilities: FloatArray) -> NDArray[np.bool_]:
        """Return (n, classes), true where a class is in the set of a case."""
        return np.asarray(probabilities >= np.asarray(self.lowest))


@dataclass(frozen=True)
class Heatmap:
    """Where a network looked.

    Attributes:
        values: float32 (height, width) in [0, 1], in the prepared picture's frame.
        case: Whose picture.
        view: Which input of the network.
        method: "grad_cam" ...
        target: The class explained.
    """

    values: NDArray[np.float32]
    case: str
    view: str
    method: str
    target: str


_FIXED = ("case", "patient", "site", "split", "repeat", "fold", "arm", "label")


@dataclass(frozen=True)
class PredictionTable:
    """Predictions of one target, one row a case, arm and repeat: the file that statistics and reports eat.

    Attributes:
        case: (n,) text.
        patient: (n,) text.
        site: (n,) text, empty where unknown.
        split: (n,) "out_of_fold", "holdout" or "external".
        repeat: (n,) from 0; -1 where the prediction is that of all fold models together.
        fold: (n,) from 0; -1 likewise.
        arm: (n,) text.
        label: (n,) class name; empty where the outcome is unknown.
        probabilities: (n, classes), rows summing to 1.
        classes: Class names, in the order of the columns.
    """

    case: StrArray
    patient: StrArray
    site: StrArray
    split: StrArray
    repeat: IntArray
    fold: IntArray
    arm: StrArray
    label: StrArray
    probabilities: FloatArray
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.case)

    def where(self, mask: NDArray[np.bool_] | IntArray) -> PredictionTable:
        """Return the rows that a mask or an index array picks."""
        return replace(self, **{name: getattr(self, name)[mask] for name in (*_FIXED, "probabilities")})

    def select(self, *, arm: str | None = None, split: str | None = None) -> PredictionTable:
        """Return the rows of one arm, one split, or both."""
        mask = np.ones(len(self), bool)
        if arm is not None:
            mask &= self.arm == arm
        if split is not None:
            mask &= self.split == split
        return self.where(mask)

    @property
    def arms(self) -> tuple[str, ...]:
        """Arms in order of first appearance."""
        return tuple(dict.fromkeys(self.arm.tolist()))

    def probability(self, class_name: str) -> FloatArray:
        """Return the column of one class, (n,)."""
        return np.asarray(self.probabilities[:, self.classes.index(class_name)])

    @classmethod
    def concatenate(cls, tables: Sequence[PredictionTable]) -> PredictionTable:
        """Join tables of the same classes, in the order given."""
        joined = {n: np.concatenate([getattr(t, n) for t in tables]) for n in (*_FIXED, "probabilities")}
        return cls(**joined, classes=tables[0].classes)

    def write(self, path: Path) -> None:
        """Write the table as CSV: the fixed columns, then one `p_<class>` a class."""
        text = io.StringIO()
        out = csv.writer(text, lineterminator="\n")
        out.writerow([*_FIXED, *(f"p_{name}" for name in self.classes)])
        columns = [getattr(self, name).tolist() for name in _FIXED]
        for i, row in enumerate(zip(*columns, strict=True)):
            out.writerow([*row, *(repr(float(p)) for p in self.probabilities[i])])
        write_atomically(path, text.getvalue())

    @classmethod
    def read(cls, path: Path) -> PredictionTable:
        """Read what `write` wrote.

        Raises:
            CohortError: A column is missing.
        """
        with path.open(newline="", encoding="utf-8") as handle:
            rows = list(csv.reader(handle))
        header, body = (rows[0], rows[1:]) if rows else ([], [])
        missing = [name for name in _FIXED if name not in header]
        classes = tuple(name[2:] for name in header if name.startswith("p_"))
        if missing or not classes:
            raise CohortError(
                f"no column {', '.join(missing) or 'p_<class>'}",
                expected=f"the columns {', '.join(_FIXED)} and one p_<class> a class",
                where=str(path),
            )
        column = {name: [row[header.index(name)] for row in body] for name in header}
        probabilities = np.array([[float(p) for p in column[f"p_{c}"]] for c in classes], np.float64).T
        columns: dict[str, Any] = {n: np.array(column[n], dtype=np.str_) for n in _FIXED}
        columns |= {n: np.array(column[n], dtype=np.int64) for n in ("repeat", "fold")}
        return cls(**columns, probabilities=probabilities.reshape(len(body), len(classes)), classes=classes)


def write_rows(path: Path, rows: Iterable[Any], row_type: type) -> None:
    """Write dataclass rows as CSV, tuples joined by spaces, NaN left empty."""
    names = [f.name for f in fields(row_type)]
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(names)
    for row in rows:
        out.writerow([_cell(getattr(row, name)) for name in names])
    write_atomically(path, text.getvalue())


def _cell(value: Any) -> Any:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return "" if isinstance(value, float) and math.isnan(value) else value


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all: a temporary neighbour, then a rename.

    Raises:
        OutputError: The disk is full, or the folder cannot be written.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as out:
            out.write(data)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise OutputError(
            f"cannot write {path.name}: {error.strerror or error}",
            do="free space or choose a folder that you may write to, then run the same command again",
            where=str(path.parent),
        ) from error


def refuse_unwritable(folder: Path) -> None:
    """Refuse a folder that cannot be made or written to, before any work is done for it.

    Raises:
        OutputError: Something above it is a file, or is not this user's to write.
    """
    place = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise OutputError("cannot be written to", do="choose a folder of your own", where=str(folder))


def unique(values: Iterable[str]) -> Iterator[str]:
    """Yield each value once, in order of first appearance."""
    return iter(dict.fromkeys(values))
