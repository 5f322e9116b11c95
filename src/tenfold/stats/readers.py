"""What doctors read: their file, and what can be said of each reader alone.

It must not know the machine that they are compared with, nor how readers are generalised from.
"""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tenfold.errors import CohortError, StatisticsError, nearest
from tenfold.stats import proportions, roc
from tenfold.stats.sample import BoolArray, by_patient, unit
from tenfold.types import Estimate, FloatArray, IntArray, StrArray, unique

REQUIRED = ("reader", "case", "rating")
COLUMNS = (*REQUIRED, "modality")
FIGURES = ("auc", "sensitivity", "specificity")
_SEPARATORS = (",", ";", "\t")


@dataclass(frozen=True)
class Readings:
    """The ratings of a readers file, one row a reader, case and modality.

    Attributes:
        reader: (n,) who read.
        case: (n,) what was read.
        rating: (n,) higher means more likely present.
        modality: (n,) how it was read, for example "aided"; empty where the file does not say.
        row: (n,) row in the file, the header being row 1.
        source: The file, for messages.
    """

    reader: StrArray
    case: StrArray
    rating: FloatArray
    modality: StrArray
    row: IntArray
    source: str = "readers.csv"

    def __len__(self) -> int:
        return len(self.rating)

    @property
    def readers(self) -> tuple[str, ...]:
        """Readers in order of first appearance."""
        return tuple(unique(self.reader.tolist()))

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities in alphabetical order, so that "aided" comes before "unaided"."""
        return tuple(sorted(set(self.modality.tolist())))

    @property
    def binary(self) -> bool:
        """Whether all ratings together take just two values."""
        return len(np.unique(self.rating)) == 2


def read_readings(path: Path | str) -> Readings:
    """Read a readers file strictly: columns reader, case, rating and, optionally, modality.

    Comma, semicolon or tab between the cells. An empty rating is a case that the reader skipped: it is left
    out here, and nothing is put in its place later.

    Args:
        path: The file.

    Raises:
        CohortError: The file cannot be read, a column is missing or unknown, a rating is no number, or a reader
            rated a case twice; the row is named.
    """
    path = Path(path)
    header, body = _parse(path)
    _check_header(header, path)
    cells: dict[tuple[str, str, str], tuple[int, str]] = {}
    for row, values in body:
        reader, case, rating, modality = (values[header.index(c)] if c in header else "" for c in COLUMNS)
        place = f"{path.name}, row {row}"
        if not reader or not case:
            raise CohortError(f"no {'case' if reader else 'reader'} named", expected="one in every row", where=place)
        if (reader, case, modality) in cells:
            first, earlier = cells[reader, case, modality]
            how = f" {modality}" if modality else ""
            raise CohortError(
                f"reader {reader} rated case {case}{how} twice: '{earlier}' in row {first} and '{rating}' here",
                expected="one rating a reader, case and modality",
                do="keep the rating that was given first, or the one that the protocol names",
                where=place,
            )
        cells[reader, case, modality] = row, rating
    rated = {key: (row, _number(text, row, path)) for key, (row, text) in cells.items() if text}
    if not rated:
        raise CohortError("no case is rated", expected="at least one row with a rating", where=path.name)
    _check_modalities({row: key[2] for key, (row, _) in rated.items()}, path)
    reader_column, case_column, modality_column = (np.array(c, dtype=np.str_) for c in zip(*rated, strict=True))
    rows, ratings = zip(*rated.values(), strict=True)
    return Readings(
        reader=reader_column,
        case=case_column,
        rating=np.array(ratings, np.float64),
        modality=modality_column,
        row=np.array(rows, np.int64),
        source=path.name,
    )


def _parse(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Header in small letters, and the filled rows with their numbers."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise CohortError(f"cannot be read: {error.strerror or error}", where=path.name) from error
    except UnicodeDecodeError as error:
        raise CohortError("is not UTF-8 text", do="save it as CSV, UTF-8", where=path.name) from error
    first = text.partition("\n")[0]
    separator = max(_SEPARATORS, key=first.count)
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    except csv.Error as error:
        raise CohortError(f"is no CSV file: {error}", where=path.name) from error
    if not lines:
        raise CohortError("is empty", expected=f"a header with {', '.join(REQUIRED)}", where=path.name)
    header = [name.strip().lower() for name in lines[0]]
    body = []
    for row, line in enumerate(lines[1:], start=2):
        values = [cell.strip() for cell in line]
        if not any(values):
            continue
        if len(values) != len(header):
            raise CohortError(
                f"{len(values)} cells",
                expected=f"{len(header)}, as in the header",
                where=f"{path.name}, row {row}",
            )
        body.append((row, values))
    return header, body


def _check_header(header: list[str], path: Path) -> None:
    """Refuse a header with a column too many, too few, or twice."""
    known = f"the columns {', '.join(REQUIRED)} and, optionally, modality"
    for name in header:
        if name not in COLUMNS:
            raise CohortError(f"unknown column '{name}'", expected=known, do=nearest(name, COLUMNS), where=path.name)
        if header.count(name) > 1:
            raise CohortError(f"two columns '{name}'", expected=known, where=path.name)
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        raise CohortError(f"no column {', '.join(missing)}", expected=known, where=path.name)


def _number(text: str, row: int, path: Path) -> float:
    """Read one rating."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or "_" in text:
        raise CohortError(
            f"the rating '{text}' is no number",
            expected="a number, higher meaning more likely present, or an empty cell where the case was skipped",
            where=f"{path.name}, row {row}",
        )
    return value


def _check_modalities(by_row: dict[int, str], path: Path) -> None:
    """Refuse a modality that is given in some rows only."""
    empty = [row for row, name in by_row.items() if not name]
    if empty and len(empty) < len(by_row):
        raise CohortError(
            f"no modality here, and in {len(empty) - 1} more rows, while other rows name one",
            expected="a modality in every row or in none",
            where=f"{path.name}, row {empty[0]}",
        )


def threshold_of(figure: str, threshold: float | None) -> float:
    """Return the threshold that a figure uses; NaN for the AUC, which has none.

    Raises:
        StatisticsError: The figure is unknown, or lacks its threshold.
    """
    if figure not in FIGURES:
        raise StatisticsError(f"no figure '{figure}' of a reader", do=nearest(figure, FIGURES))
    if figure == "auc":
        return math.nan
    if threshold is None:
        raise StatisticsError(
            f"the {figure} of a reader needs the rating from which on a case is called positive",
            do="pass it as `threshold`",
        )
    return threshold


def figure_of(
    rating: FloatArray,
    truth: BoolArray,
    *,
    figure: str = "auc",
    threshold: float | None = None,
    patient: IntArray | None = None,
) -> Estimate:
    """Return one reader's AUC (DeLong), sensitivity or specificity (Wilson) with its interval.

    Args:
        rating: (cases,) higher means more likely present.
        truth: (cases,) True where the outcome is present.
        figure: "auc", "sensitivity" or "specificity".
        threshold: Rating from which on a case is called positive; not used by the AUC.
        patient: (cases,) index of the patient, from 0; every case its own patient where left out.

    Raises:
        StatisticsError: One class only, or the figure is unknown or lacks its threshold.
    """
    cut = threshold_of(figure, threshold)
    if figure == "auc":
        estimate = roc.auc_interval(truth, rating, patient)
        if len(np.unique(rating)) > 2:
            return estimate
        method = f"{estimate.method}; only two ratings, so the AUC is (sensitivity + specificity) / 2"
        return Estimate(estimate.value, estimate.low, estimate.high, method, estimate.n)
    roc.require_both(truth, f"the {figure}")
    counted, right = _answers(rating, truth, figure, cut)
    owner = (np.arange(len(truth)) if patient is None else patient)[counted]
    size = int(owner.max()) + 1
    trials = by_patient(owner, np.ones(len(owner)), size)
    effective = proportions.effective_n(by_patient(owner, right[counted], size)[None], trials[None])
    value = float(right[counted].mean())
    low, high = proportions.wilson(value, effective)
    patients = int((trials > 0).sum())
    name = "Wilson" if patients == len(owner) else "Wilson, effective n clustered by patient (Rao & Scott 1992)"
    return Estimate(value, low, high, f"{name}, 95 %; {unit(patients, len(owner))}", patients)


def _answers(rating: FloatArray, truth: BoolArray, figure: str, cut: float) -> tuple[BoolArray, BoolArray]:
    """Which cases a proportion counts, and which answers are right."""
    called = np.asarray(rating >= cut)
    return (truth, called) if figure == "sensitivity" else (~truth, ~called)


@dataclass(frozen=True)
class ReaderPoint:
    """Where a reader stands in the ROC plane.

    Attributes:
        sensitivity: With its Wilson interval.
        specificity: Likewise.
    """

    sensitivity: Estimate
    specificity: Estimate


def reader_points(
    ratings: FloatArray, truth: BoolArray, *, threshold: float, patient: IntArray | None = None
) -> tuple[ReaderPoint, ...]:
    """Return each reader's sensitivity and specificity where ratings from a threshold on are called positive.

    Args:
        ratings: (readers, cases).
        truth: (cases,) True where the outcome is present.
        threshold: The lowest rating that is a "yes".
        patient: (cases,) index of the patient, from 0.

    Raises:
        StatisticsError: One class only.
    """
    return tuple(
        ReaderPoint(
            *(
                figure_of(row, truth, figure=figure, threshold=threshold, patient=patient)
                for figure in ("sensitivity", "specificity")
            )
        )
        for row in ratings
    )


def mean_roc(ratings: FloatArray, truth: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Average the readers' empirical ROC curves upright: mean sensitivity at each false positive rate.

    Curves step where a rating is never given to a healthy case; each false positive rate therefore stands
    twice, at the foot and at the head of its step, and the area under the mean is the mean of the areas.

    Args:
        ratings: (readers, cases).
        truth: (cases,) True where the outcome is present.

    Returns:
        False positive rate, ascending, and mean true positive rate, (k,) each.

    Raises:
        StatisticsError: One class only.
    """
    curves = [roc.roc_curve(truth, row)[:2] for row in ratings]
    grid = np.unique(np.concatenate([fpr for fpr, _ in curves]))
    feet = np.mean([_at(grid, fpr, tpr, "left") for fpr, tpr in curves], axis=0)
    heads = np.mean([_at(grid, fpr, tpr, "right") for fpr, tpr in curves], axis=0)
    return np.repeat(grid, 2), np.stack([feet, heads], axis=1).ravel()


def _at(grid: FloatArray, fpr: FloatArray, tpr: FloatArray, side: str) -> FloatArray:
    """Height of a curve at each false positive rate, at the foot (left) or head (right) of a step."""
    ends, first = np.unique(fpr, return_index=True)
    last = np.append(first[1:], len(fpr)) - 1
    foot, head = tpr[first], tpr[last]
    on = np.minimum(np.searchsorted(ends, grid), len(ends) - 1)
    at_end = ends[on] == grid
    before = np.maximum(on - 1, 0)
    width = np.where(at_end, 1.0, ends[on] - ends[before])
    between = head[before] + (foot[on] - head[before]) * (grid - ends[before]) / width
    return np.where(at_end, (foot if side == "left" else head)[on], between)


def upside_down(ratings: FloatArray, truth: BoolArray, patient: IntArray | None = None) -> tuple[int, ...]:
    """Return the readers whose whole AUC interval lies below one half: their scale seems to be turned.

    Args:
        ratings: (readers, cases).
        truth: (cases,) True where the outcome is present.
        patient: (cases,) index of the patient, from 0.

    Raises:
        StatisticsError: One class only.
    """
    return tuple(i for i, row in enumerate(ratings) if figure_of(row, truth, patient=patient).high < 0.5)
