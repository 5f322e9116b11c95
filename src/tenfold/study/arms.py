"""One arm after another: fitted in all folds, its decisions made on inner parts, its cases predicted unseen.

It must not know how a kind of arm is fitted, statistics beyond calibration and the operating point, nor how results
are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfold.errors import TrainingError
from tenfold.stats.calibration import fit_platt, fit_temperature
from tenfold.stats.operating_point import choose
from tenfold.study.bench import Bench, Sections
from tenfold.study.results import Place
from tenfold.types import (
    HOLDOUT,
    OUT_OF_FOLD,
    Calibration,
    FloatArray,
    IntArray,
    OperatingPoint,
    PredictionTable,
    Split,
)

CALIBRATIONS: dict[str, Callable[[FloatArray, IntArray], Calibration]] = {
    "temperature": fit_temperature,
    "platt": fit_platt,
    "none": lambda logits, labels: Calibration(n=len(labels)),
}
Score = Callable[[int, IntArray], FloatArray]
"""Fold and rows of the cohort -> (n, classes) log-probabilities up to a constant, not calibrated."""


@dataclass(frozen=True)
class FoldScores:
    """What one fold of an arm gave for one target.

    Attributes:
        inner: (m,) rows decided on.
        inner_scores: (m, classes) logits.
        test: (n,) rows kept from it.
        test_scores: (n, classes).
    """

    inner: IntArray
    inner_scores: FloatArray
    test: IntArray
    test_scores: FloatArray

    def of_known(self, known: NDArray[np.bool_]) -> FoldScores:
        """Leave out the cases whose outcome is unknown; `known` is (cases,)."""
        inner, test = known[self.inner], known[self.test]
        return FoldScores(self.inner[inner], self.inner_scores[inner], self.test[test], self.test_scores[test])


@dataclass(frozen=True)
class FittedArm:
    """An arm that went through, as one target sees it.

    Attributes:
        name: Its name.
        target: The target.
        sections: The inputs that it sees.
        answers: (cases,) whether a case has an input that it sees.
        folds: What each fold gave for cases of known outcome, in the order of the splits.
        predictions: Its out-of-fold predictions.
        points: Its operating point in every fold, and of all folds together at (-1, -1).
        calibrations: One a fold.
        score: Predicts further cases with the model of a fold.
        record: What run.json says of it.
        stages: What run.json says of its stages.
    """

    name: str
    target: str
    sections: Sections
    answers: NDArray[np.bool_]
    folds: tuple[FoldScores, ...]
    predictions: PredictionTable
    points: Mapping[Place, OperatingPoint]
    calibrations: tuple[Calibration, ...]
    score: Score
    record: dict[str, Any]
    stages: list[dict[str, Any]]


def finished(
    bench: Bench,
    name: str,
    sections: Sections,
    answers: NDArray[np.bool_],
    folds: Sequence[FoldScores],
    score: Score,
    record: dict[str, Any],
    stages: list[dict[str, Any]],
) -> FittedArm:
    """Calibrate and choose the operating point on each fold's inner part, then turn test scores into predictions.

    Where an inner part of a small cohort holds one class only, nothing can be decided on it: its probabilities stay as
    the model gave them, and yes begins at the share of yes in the training part.
    """
    validation = bench.config.validation
    truth = bench.label_index
    tables, points, calibrations = [], {}, []
    pooled: list[tuple[FloatArray, NDArray[np.bool_]]] = []
    folds = [fold.of_known(truth >= 0) for fold in folds]
    for split, fold in zip(bench.splits, folds, strict=True):
        positive = bench.positive[fold.inner]
        place = (name, split.repeat, split.fold)
        if positive.any() and not positive.all():
            calibration = CALIBRATIONS[validation.calibration](fold.inner_scores, truth[fold.inner])
            decided = calibration.apply(fold.inner_scores)
            points[place] = _point(bench, decided[:, -1], positive)
        else:
            calibration = CALIBRATIONS["none"](fold.inner_scores, truth[fold.inner])
            decided = calibration.apply(fold.inner_scores)
            train = bench.known(bench.rows(split.train))
            share, why = float(bench.positive[train].mean()), "training part: one class only in the inner part"
            points[place] = OperatingPoint(share, "share of yes", len(train), why)
        calibrations.append(calibration)
        pooled.append((decided[:, -1], positive))
        probabilities = calibration.apply(fold.test_scores)
        tables.append(bench.table(name, fold.test, probabilities, OUT_OF_FOLD, split.repeat, split.fold))
    together = _point(bench, np.concatenate([p for p, _ in pooled]), np.concatenate([t for _, t in pooled]))
    points[(name, -1, -1)] = replace(together, chosen_on="inner validation parts of all folds")
    return FittedArm(
        name=name,
        target=bench.target,
        sections=sections,
        answers=answers,
        folds=tuple(folds),
        predictions=PredictionTable.concatenate(tables),
        points=points,
        calibrations=tuple(calibrations),
        score=score,
        record={"status": "done", "reason": "", "inputs": list(sections), **record},
        stages=stages,
    )


def predict_holdout(bench: Bench, arm: FittedArm) -> PredictionTable:
    """Predict the cases kept aside with all fold models together."""
    rows = bench.known(answered(bench.rows(bench.holdout), arm.answers))
    probabilities = [c.apply(arm.score(k, rows)) for k, c in enumerate(arm.calibrations)]
    return bench.table(arm.name, rows, np.mean(probabilities, 0), HOLDOUT, -1, -1)


def altered(
    bench: Bench, arm: FittedArm, name: str, folds: Sequence[tuple[IntArray, FloatArray]]
) -> tuple[PredictionTable, dict[Place, OperatingPoint]]:
    """Return an arm's predictions under an alteration of its inputs, its decisions left as they were.

    Args:
        bench: The study's cohort and folds.
        arm: The arm.
        name: What the altered arm is called.
        folds: Rows and scores of each fold's test cases.
    """
    known = bench.labels.known
    tables = [
        bench.table(
            name, rows[known[rows]], calibration.apply(scores[known[rows]]), OUT_OF_FOLD, split.repeat, split.fold
        )
        for split, calibration, (rows, scores) in zip(bench.splits, arm.calibrations, folds, strict=True)
    ]
    points = {(name, repeat, fold): point for (_, repeat, fold), point in arm.points.items()}
    return PredictionTable.concatenate(tables), points


def answered(rows: IntArray, answers: NDArray[np.bool_]) -> IntArray:
    """Return those rows whose cases have an input that an arm sees."""
    return rows[answers[rows]]


def parts_of(bench: Bench, split: Split, answers: NDArray[np.bool_]) -> tuple[IntArray, IntArray, IntArray]:
    """Return the rows of a fold that an arm can be fitted on, decided on and tested on, whatever the target.

    Raises:
        TrainingError: Nothing is left to fit on or to decide on.
    """
    told = answers & np.any([outcome.labels.known for outcome in bench.outcomes.values()], axis=0)
    train, inner, test = (answered(bench.rows(part), told) for part in (split.train, split.inner, split.test))
    for part, rows in (("training", train), ("inner", inner)):
        if not len(rows):
            raise TrainingError(
                f"no case of the {part} part has what it sees (repeat {split.repeat + 1}, fold {split.fold + 1})",
                do="enlarge the inner part (validation.inner), or leave this arm out",
            )
    return train, inner, test


def _point(bench: Bench, probability: FloatArray, positive: NDArray[np.bool_]) -> OperatingPoint:
    section = bench.config.validation.operating_point
    return choose(section.rule, positive, probability, value=section.value)
