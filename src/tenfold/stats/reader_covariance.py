"""How the figures of several readers of the same cases vary together, over cases.

It must not know modalities, nor which row of scores is whose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tenfold.errors import StatisticsError, nearest
from tenfold.stats import roc
from tenfold.stats.readers import threshold_of
from tenfold.stats.sample import BoolArray, by_patient
from tenfold.types import FloatArray, IntArray

NO_VARIANCE = 1e-14


@dataclass(frozen=True)
class Scores:
    """Rows of scores of the same cases, and what is asked of them.

    Attributes:
        values: (rows, cases), higher meaning more likely present.
        truth: (cases,) True where the outcome is present.
        figure: "auc", "sensitivity" or "specificity".
        threshold: Value from which on a case is called positive; NaN for the AUC.
        patient: (cases,) index of the patient, from 0 without gaps.
    """

    values: FloatArray
    truth: BoolArray
    figure: str
    threshold: float
    patient: IntArray

    @property
    def counts(self) -> tuple[int, int]:
        """Patients and cases that the figure counts: a sensitivity only those with the outcome."""
        counted = {"auc": np.ones_like(self.truth), "sensitivity": self.truth, "specificity": ~self.truth}[self.figure]
        return len(np.unique(self.patient[counted])), int(counted.sum())

    @property
    def answers(self) -> tuple[FloatArray, IntArray]:
        """Right (1) or wrong (0) answers that a proportion counts, (rows, n), and their patients."""
        counted = self.truth if self.figure == "sensitivity" else ~self.truth
        called = self.values[:, counted] >= self.threshold
        return (called == (self.figure == "sensitivity")).astype(np.float64), self.patient[counted]


def scores_of(
    values: FloatArray, truth: BoolArray, figure: str, threshold: float | None, patient: IntArray | None
) -> Scores:
    """Check scores, and number the patients from 0 without gaps.

    Args:
        values: (rows, cases), higher meaning more likely present.
        truth: (cases,) True where the outcome is present.
        figure: "auc", "sensitivity" or "specificity".
        threshold: Value from which on a case is called positive; not used by the AUC.
        patient: (cases,) patient's number; every case its own patient where left out.

    Raises:
        StatisticsError: A score is missing, a class has fewer than two patients, or the figure is unknown or lacks its
            threshold.
    """
    cut = threshold_of(figure, threshold)
    values, truth = np.asarray(values, np.float64), np.asarray(truth, bool)
    if values.ndim != 2 or values.shape[1] != len(truth):
        raise StatisticsError(
            f"ratings of shape {values.shape} for {len(truth)} cases", expected="every reader rated every case"
        )
    if not np.isfinite(values).all():
        raise StatisticsError(
            f"{int((~np.isfinite(values)).sum())} ratings are missing",
            expected="every reader rated every case",
            do="keep the cases that all of them rated",
        )
    roc.require_both(truth, f"the {figure.replace('auc', 'AUC')}")
    numbers = np.arange(len(truth)) if patient is None else np.unique(patient, return_inverse=True)[1]
    for has, word in ((truth, "with"), (~truth, "without")):
        if len(np.unique(numbers[has])) < 2:
            raise StatisticsError(
                f"one patient {word} the outcome only", expected="at least two, for otherwise nothing can vary"
            )
    return Scores(values, truth, figure, cut, numbers)


def _pairs(scores: Scores) -> tuple[FloatArray, IntArray, IntArray]:
    """Who won each pair of a positive and a negative case, (rows, positives, negatives), and their patients.

    A sensitivity is the AUC against one made-up healthy case at the threshold, of patient -1; a specificity
    likewise. So one formula serves all figures.
    """
    nobody = np.array([-1])
    if scores.figure == "auc":
        high, low = scores.values[:, scores.truth, None], scores.values[:, None, ~scores.truth]
        return (high > low) + 0.5 * (high == low), scores.patient[scores.truth], scores.patient[~scores.truth]
    right, owner = scores.answers
    return (right[:, :, None], owner, nobody) if scores.figure == "sensitivity" else (right[:, None], nobody, owner)


def figures_of(scores: Scores) -> FloatArray:
    """Return the figure of every row, (rows,)."""
    if scores.figure == "auc":
        return np.array([roc.auc(scores.truth, row) for row in scores.values])
    return np.asarray(scores.answers[0].mean(axis=1))


def _jackknife(scores: Scores) -> FloatArray:
    """Covariance of the figures by leaving out one patient at a time, of those whom the figure counts."""
    wins, positive, negative = _pairs(scores)
    number = np.setdiff1d(np.concatenate([positive, negative]), -1)
    of_positive, of_negative = ((owner[:, None] == number).astype(np.float64) for owner in (positive, negative))
    i, j = np.nonzero(positive[:, None] == negative)
    lost = wins.sum(axis=2) @ of_positive + wins.sum(axis=1) @ of_negative - wins[:, i, j] @ of_positive[i]
    left = (len(positive) - of_positive.sum(axis=0)) * (len(negative) - of_negative.sum(axis=0))
    without = (wins.sum(axis=(1, 2))[:, None] - lost) / left
    away = without - without.mean(axis=1, keepdims=True)
    return np.asarray((len(number) - 1) / len(number) * (away @ away.T))


def _delong(scores: Scores) -> FloatArray:
    """Covariance of the figures from placement values (DeLong et al. 1988; Obuchowski 1997)."""
    if scores.figure == "auc":
        return roc.covariance([roc.placement(scores.truth, row, scores.patient) for row in scores.values])
    right, owner = scores.answers
    away = (right - right.mean(axis=1, keepdims=True)) / len(owner)
    summed = np.stack([by_patient(owner, row, int(owner.max()) + 1) for row in away])
    n = len(np.unique(owner))
    return np.asarray(n / (n - 1) * (summed @ summed.T))


def _unbiased(scores: Scores) -> FloatArray:
    """Covariance of the figures without bias (Gallas, Acad Radiol 2006).

    Cov(A, B) = E[AB] - E[A]E[B]. AB itself estimates the first without bias; the mean product of a pair's win in A
    with that of a pair in B that shares neither case with it estimates the second.
    """
    if len(np.unique(scores.patient)) < len(scores.truth):
        raise StatisticsError(
            "the unbiased covariance takes every case as a patient of its own; here patients have several cases",
            do='use covariance="jackknife" or "delong"',
        )
    if scores.figure != "auc":
        return _delong(scores)
    wins, _, _ = _pairs(scores)
    rows, n1, n0 = wins.shape
    flat, by_high, by_low, total = wins.reshape(rows, -1), wins.sum(axis=2), wins.sum(axis=1), wins.sum(axis=(1, 2))
    product = np.outer(total, total)
    apart = product - by_high @ by_high.T - by_low @ by_low.T + flat @ flat.T
    return np.asarray(product / (n1 * n0) ** 2 - apart / (n1 * n0 * (n1 - 1) * (n0 - 1)))


COVARIANCES: dict[str, Callable[[Scores], FloatArray]] = {
    "jackknife": _jackknife,
    "delong": _delong,
    "unbiased": _unbiased,
}


def covariance_of(scores: Scores, name: str) -> FloatArray:
    """Return the (rows, rows) covariance of the figures over cases.

    Args:
        scores: What `scores_of` returned.
        name: Key of `COVARIANCES`.

    Raises:
        StatisticsError: The name is unknown, or the method cannot serve patients with several cases.
    """
    if name not in COVARIANCES:
        raise StatisticsError(f"no covariance '{name}'", do=nearest(name, COVARIANCES))
    return COVARIANCES[name](scores)
