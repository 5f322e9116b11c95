"""One arm's predictions in one repeat, ready to be counted, for example under bootstrap weights.

It must not know what is computed from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfold.errors import StatisticsError, nearest
from tenfold.types import FloatArray, IntArray, PredictionTable, StrArray

BoolArray = NDArray[np.bool_]
Thresholds = Mapping[tuple[str, int, int], float]


@dataclass(frozen=True)
class Sample:
    """The cases of known outcome of one arm in one repeat, sorted by probability.

    Attributes:
        case: (n,) names.
        patient: (n,) index of the patient, shared by all arms of the table.
        fold: (n,) fold whose model made the prediction; -1 where all models made it together.
        positive: (n,) True where the outcome is the positive class.
        p: (n,) probability of the positive class, ascending.
        threshold: (n,) operating point of the model that made the prediction.
        treat_at: Threshold probability of the net benefit.
    """

    case: StrArray
    patient: IntArray
    fold: IntArray
    positive: BoolArray
    p: FloatArray
    threshold: FloatArray
    treat_at: float

    def __len__(self) -> int:
        return len(self.p)

    @property
    def called(self) -> BoolArray:
        """(n,) True where the answer is "yes"."""
        return self.p >= self.threshold

    @property
    def both_classes(self) -> bool:
        """Whether there is at least one case of each outcome."""
        return bool(self.positive.any() and not self.positive.all())

    def where(self, mask: BoolArray) -> Sample:
        """Return the cases that a mask picks."""
        columns = ("case", "patient", "fold", "positive", "p", "threshold")
        return Sample(**{c: getattr(self, c)[mask] for c in columns}, treat_at=self.treat_at)


def known_outcomes(table: PredictionTable, positive: str) -> PredictionTable:
    """Return the rows whose outcome is known.

    Raises:
        StatisticsError: The positive class is not in the table, no outcome is known, a probability is no
            number in [0, 1], or two splits are mixed.
    """
    if positive not in table.classes:
        raise StatisticsError(
            f"the positive class '{positive}' has no column in the predictions",
            do=nearest(positive, table.classes),
        )
    splits = sorted(set(table.split.tolist()))
    if len(splits) > 1:
        raise StatisticsError(
            f"predictions of several splits at once: {', '.join(splits)}",
            expected="the rows of one split",
            do="pick one with table.select(split=...)",
        )
    known = table.where(table.label != "")
    if not len(known):
        raise StatisticsError("no case has a known outcome", expected="at least one labelled case")
    wrong = ~((known.probabilities >= 0) & (known.probabilities <= 1)).all(axis=1)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise StatisticsError(
            f"a probability that is no number from 0 to 1: {known.probabilities[row].tolist()}",
            expected="probabilities in [0, 1]",
            where=f"arm {known.arm[row]}, case {known.case[row]}",
        )
    return known


def prevalence(known: PredictionTable, positive: str) -> float:
    """Share of the cases, each counted once, whose outcome is the positive class."""
    _, first = np.unique(known.case, return_index=True)
    return float(np.mean(known.label[first] == positive))


def samples_of(
    known: PredictionTable, arm: str, *, positive: str, thresholds: Thresholds, treat_at: float
) -> tuple[Sample, ...]:
    """Divide one arm's rows into one sample a repeat, patients numbered as in the whole table.

    Args:
        known: What `known_outcomes` returned, all arms.
        arm: Which arm.
        positive: The positive class.
        thresholds: (arm, repeat, fold) -> operating point.
        treat_at: Threshold probability of the net benefit.

    Raises:
        StatisticsError: The arm is unknown, an operating point is missing, or a case has two rows
            in a repeat.
    """
    if arm not in known.arms:
        raise StatisticsError(f"no arm '{arm}' in the predictions", do=nearest(arm, known.arms))
    index = np.searchsorted(np.unique(known.patient), known.patient)
    score = known.probability(positive)
    found = []
    for repeat in np.unique(known.repeat[known.arm == arm]).tolist():
        rows = np.flatnonzero((known.arm == arm) & (known.repeat == repeat))
        rows = rows[np.argsort(score[rows], kind="stable")]
        _refuse_twins(known.case[rows], arm, repeat)
        found.append(
            Sample(
                case=known.case[rows],
                patient=index[rows],
                fold=known.fold[rows],
                positive=known.label[rows] == positive,
                p=score[rows],
                threshold=_thresholds_of(known.fold[rows], arm, repeat, thresholds),
                treat_at=treat_at,
            )
        )
    return tuple(found)


def _refuse_twins(case: StrArray, arm: str, repeat: int) -> None:
    """A case that counts twice would make every interval too narrow."""
    names, counts = np.unique(case, return_counts=True)
    if (counts > 1).any():
        raise StatisticsError(
            f"{int((counts > 1).sum())} cases have several predictions in one repeat",
            expected="one row a case, arm and repeat",
            where=f"arm {arm}, repeat {repeat}, case {names[counts > 1][0]}",
        )


def _thresholds_of(fold: IntArray, arm: str, repeat: int, thresholds: Thresholds) -> FloatArray:
    """One operating point a row."""
    missing = [f for f in np.unique(fold).tolist() if (arm, repeat, f) not in thresholds]
    if missing:
        raise StatisticsError(
            f"no operating point for arm {arm}, repeat {repeat}, fold {missing[0]}",
            expected="a threshold for every (arm, repeat, fold) of the predictions",
            do="choose one on the inner part with tenfold.stats.operating_point.choose",
        )
    return np.array([thresholds[arm, repeat, f] for f in fold.tolist()], np.float64)


def by_patient(patient: IntArray, values: NDArray[Any], patients: int) -> FloatArray:
    """Sum values, (n,), over each patient's rows, (patients,)."""
    return np.bincount(patient, values, patients).astype(np.float64)


def rest_on(samples: tuple[Sample, ...], counted: list[BoolArray] | None = None) -> tuple[int, int]:
    """Count the patients and the cases that the samples, or the rows counted in them, hold."""
    if counted is not None:
        samples = tuple(s.where(c) for s, c in zip(samples, counted, strict=True))
    patients = np.unique(np.concatenate([s.patient for s in samples]))
    cases = np.unique(np.concatenate([s.case for s in samples]))
    return len(patients), len(cases)


def unit(patients: int, cases: int) -> str:
    """Say what n counts, as the end of a method."""
    return "n = patients, one case each" if patients == cases else f"n = patients ({cases} cases)"


def repeats_note(count: int) -> str:
    """Say that repeats were averaged, where there are several."""
    return f", mean of {count} repeats" if count > 1 else ""
