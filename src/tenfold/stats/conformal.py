"""Sets of classes that hold the right one as often as promised, class by class, and how sure this n makes it.

It must not know how the probabilities came about: they must be of cases that the model never saw.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import beta

from tenfold.errors import StatisticsError
from tenfold.stats.proportions import effective_n, wilson
from tenfold.stats.sample import BoolArray, by_patient, repeats_note, unit
from tenfold.types import Estimate, FloatArray, IntArray, PredictionTable

# A probability that was written down and read again must not fall out of its set.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Conformal:
    """Which classes cannot be ruled out: those whose 1 - probability is at most the class's quantile.

    Attributes:
        alpha: Share of the cases of a class whose set may lack it.
        classes: Class names.
        quantiles: One a class; 1 where it has too few cases to be ruled out ever.
        n: Calibration cases of each class.
        ranges: 5 % to 95 % range of the coverage that a calibration set of this n may realise, one a class.
        method: How it was made, and which classes are always included.
    """

    alpha: float
    classes: tuple[str, ...]
    quantiles: tuple[float, ...]
    n: tuple[int, ...]
    ranges: tuple[tuple[float, float], ...]
    method: str

    def sets(self, probabilities: FloatArray) -> BoolArray:
        """Return which classes each case's set holds.

        Args:
            probabilities: (n, classes), from the model that the calibration cases were predicted by.

        Returns:
            (n, classes) True where the class cannot be ruled out; a row without any is unlike all classes.
        """
        return np.asarray(1 - np.asarray(probabilities, np.float64) <= np.asarray(self.quantiles) + _ROUNDING)

    def state(self) -> dict[str, Any]:
        """Return all of it, fit for JSON and the bundle."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Conformal:
        """Read what `state` returned, also after it has been through JSON."""
        return cls(
            alpha=float(state["alpha"]),
            classes=tuple(state["classes"]),
            quantiles=tuple(map(float, state["quantiles"])),
            n=tuple(map(int, state["n"])),
            ranges=tuple((float(low), float(high)) for low, high in state["ranges"]),
            method=str(state["method"]),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return alpha, method and one mapping a class, fit for JSON."""
        rows = zip(self.classes, self.quantiles, self.n, self.ranges, strict=True)
        by_class = {name: {"quantile": q, "n": n, "range": list(ends)} for name, q, n, ends in rows}
        return {"alpha": self.alpha, "classes": by_class, "method": self.method}


@dataclass(frozen=True)
class Realised:
    """How often the sets held the right class, and how large they were.

    Attributes:
        coverage: Share of the cases of a class whose set holds it, one a class.
        sizes: Share of all cases whose set is "empty", holds "one" class, or "both" (of more than two: several).
    """

    coverage: Mapping[str, Estimate]
    sizes: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return a mapping fit for JSON."""
        return {"realised": {c: e.to_dict() for c, e in self.coverage.items()}, "sizes": dict(self.sizes)}


def fit(probabilities: FloatArray, labels: IntArray, *, classes: Sequence[str], alpha: float = 0.1) -> Conformal:
    """Fit class-conditional split conformal sets (Vovk, Mach Learn 2013;92:349).

    A new case of a class is missed with a chance of at most alpha, whatever the model is worth, if it is
    exchangeable with the calibration cases of that class. A class with fewer than ceil(1 / alpha) - 1 cases
    cannot promise that, and is in every set.

    Args:
        probabilities: (n, classes) of cases that the model has not seen, one a patient if the range is to hold.
        labels: (n,) index of the class.
        classes: Names, in the order of the columns.
        alpha: Above 0 and below 1.

    Raises:
        StatisticsError: An alpha outside its range, or arrays that do not fit each other.
    """
    probabilities, labels = np.asarray(probabilities, np.float64), np.asarray(labels, np.int64)
    if not 0 < alpha < 1:
        raise StatisticsError(f"alpha = {alpha:g}", expected="a number above 0 and below 1, for example 0.1")
    if probabilities.shape != (len(labels), len(classes)):
        raise StatisticsError(
            f"probabilities of shape {probabilities.shape} with {len(labels)} labels of {len(classes)} classes",
            expected="(n, classes) with n labels",
        )
    scores = 1 - probabilities[np.arange(len(labels)), labels]
    fitted = [_of_class(scores[labels == k], alpha) for k in range(len(classes))]
    quantiles, n, ranges = zip(*fitted, strict=True)
    needed = math.ceil(round(1 / alpha, 9)) - 1
    short = [f"{name} ({k})" for name, k in zip(classes, n, strict=True) if k < needed]
    method = f"class-conditional split conformal, {1 - alpha:.4g} coverage of each class promised"
    if short:
        method += f"; always included for having fewer than {needed} cases: {', '.join(short)}"
    return Conformal(alpha, tuple(classes), quantiles, n, ranges, method)


def _of_class(scores: FloatArray, alpha: float) -> tuple[float, int, tuple[float, float]]:
    """Quantile, n and range of realised coverage of one class."""
    n = len(scores)
    # Rounded, because (n + 1) * (1 - 0.1) may lie a rounding error above a whole number.
    rank = math.ceil(round((n + 1) * (1 - alpha), 9))
    if rank > n:
        return 1.0, n, (1.0, 1.0)
    return float(np.sort(scores)[rank - 1]), n, coverage_range(n, alpha)


def coverage_range(n: int, alpha: float) -> tuple[float, float]:
    """Return the 5 % to 95 % range of the coverage that n calibration cases realise (Vovk 2013: a Beta law).

    Args:
        n: Calibration cases of the class.
        alpha: Share that may be missed.
    """
    rank = math.ceil(round((n + 1) * (1 - alpha), 9))
    if rank > n:
        return 1.0, 1.0
    law = beta(rank, n + 1 - rank)
    return float(law.ppf(0.05)), float(law.ppf(0.95))


def realised_out_of_fold(table: PredictionTable, *, alpha: float = 0.1) -> Realised:
    """Return what the sets are worth, each fold's made from the out-of-fold predictions of the other folds.

    Args:
        table: Out-of-fold predictions of one arm. Rows without an outcome are left out.
        alpha: Share that may be missed.

    Raises:
        StatisticsError: Several arms, no case of known outcome, or a repeat of fewer than two folds.
    """
    known = _one_arm(table)
    labels, found = _labels(known), np.zeros((len(known), len(known.classes)), bool)
    for repeat in np.unique(known.repeat):
        of_repeat = known.repeat == repeat
        folds = np.unique(known.fold[of_repeat])
        if len(folds) < 2:
            raise StatisticsError(f"repeat {repeat} has one fold only", expected="predictions of two folds at least")
        for fold in folds:
            rows = of_repeat & (known.fold == fold)
            others = of_repeat & ~rows
            fitted = fit(known.probabilities[others], labels[others], classes=known.classes, alpha=alpha)
            found[rows] = fitted.sets(known.probabilities[rows])
    return _realised(known, labels, found, "sets of a fold made from the other folds")


def realised(conformal: Conformal, table: PredictionTable) -> Realised:
    """Return what sets fitted before are worth on other patients.

    Args:
        conformal: Fitted on other cases.
        table: Hold-out or external predictions of one arm. Rows without an outcome are left out.

    Raises:
        StatisticsError: Several arms, other classes, or no case of known outcome.
    """
    known = _one_arm(table)
    if known.classes != conformal.classes:
        raise StatisticsError(
            f"predictions of the classes {', '.join(known.classes)}", expected=f"{', '.join(conformal.classes)}"
        )
    return _realised(known, _labels(known), conformal.sets(known.probabilities), "sets fixed beforehand")


def _one_arm(table: PredictionTable) -> PredictionTable:
    """The rows of known outcome of a table that holds one arm."""
    known = table.where(table.label != "")
    if not len(known) or len(known.arms) > 1:
        raise StatisticsError(
            f"predictions of {len(known.arms)} arms with a known outcome",
            expected="one arm, with at least one labelled case",
            do="pick one with table.select(arm=...)",
        )
    return known


def _labels(known: PredictionTable) -> IntArray:
    """Index of each row's class."""
    index = {name: k for k, name in enumerate(known.classes)}
    unknown = sorted(set(known.label.tolist()) - set(index))
    if unknown:
        raise StatisticsError(f"the outcome '{unknown[0]}'", expected=f"one of {', '.join(known.classes)}")
    return np.array([index[name] for name in known.label.tolist()], np.int64)


def _realised(known: PredictionTable, labels: IntArray, sets: BoolArray, note: str) -> Realised:
    """Coverage by class, by patient, averaged over repeats; and the sizes of the sets."""
    covered = sets[np.arange(len(labels)), labels]
    coverage = {name: _share(known, labels == k, covered, note) for k, name in enumerate(known.classes)}
    held = sets.sum(axis=1)
    sizes = {"empty": held == 0, "one": held == 1, "both": held > 1}
    return Realised(coverage, {name: float(mask.mean()) for name, mask in sizes.items()})


def _share(known: PredictionTable, counted: BoolArray, hits: BoolArray, note: str) -> Estimate:
    """Share of the counted rows that are hits, with its Wilson interval by patient."""
    if not counted.any():
        return Estimate(math.nan, math.nan, math.nan, "not defined: no case of this class", 0)
    rows = known.where(counted)
    patients, patient = np.unique(rows.patient, return_inverse=True)
    trials, successes = (
        np.stack([by_patient(patient[r], values[counted][r], len(patients)) for r in _repeats(rows)])
        for values in (counted, hits)
    )
    share = float((successes.sum(axis=1) / trials.sum(axis=1)).mean())
    low, high = wilson(share, effective_n(successes, trials))
    cases = len(np.unique(rows.case))
    method = f"Wilson, effective n clustered by patient (Rao & Scott 1992), 95 %, {note}"
    if (trials == 1).all() and len(trials) == 1:
        method = f"Wilson, 95 %, {note}"
    method = f"{method}{repeats_note(len(trials))}; {unit(len(patients), cases)}"
    return Estimate(share, low, high, method, len(patients))


def _repeats(rows: PredictionTable) -> Iterable[BoolArray]:
    """One mask a repeat."""
    return (rows.repeat == repeat for repeat in np.unique(rows.repeat))
