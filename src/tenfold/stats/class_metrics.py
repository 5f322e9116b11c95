"""Figures over all classes together: what each means, how a draw gives it, and what a patient adds to it.

It must not know tables or files, nor which arm is compared with which.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, permutations

import numpy as np

from tenfold.errors import StatisticsError
from tenfold.stats import roc
from tenfold.stats.bootstrap import Measure
from tenfold.stats.sample import BoolArray, Sample, by_patient, prevalence, samples_of
from tenfold.types import FloatArray, IntArray, PredictionTable, StrArray


@dataclass(frozen=True, eq=False)
class ClassSample:
    """The cases of known outcome of one arm in one repeat, for each class and for all.

    Attributes:
        rest: A yes/no sample a class, that class against all others; "yes" is said of the likeliest class.
        label: (n,) index of the true class, rows as in the first class's sample.
        p: (n, classes) probabilities, rows likewise.
    """

    rest: tuple[Sample, ...]
    label: IntArray
    p: FloatArray

    @property
    def rows(self) -> Sample:
        """The sample whose rows the weights of a draw follow."""
        return self.rest[0]

    @property
    def decided(self) -> IntArray:
        """(n,) index of the likeliest class, the first of equals."""
        return np.asarray(self.p.argmax(axis=1))

    def where(self, cases: StrArray) -> ClassSample:
        """Return the rows of some cases; itself where that is all of them."""
        kept = np.isin(self.rows.case, cases)
        if kept.all():
            return self
        return ClassSample(tuple(s.where(np.isin(s.case, cases)) for s in self.rest), self.label[kept], self.p[kept])


def class_samples(known: PredictionTable, arm: str) -> dict[int, ClassSample]:
    """Divide one arm's rows into one sample a repeat, patients numbered as in the whole table.

    Args:
        known: Rows of known outcome, all arms.
        arm: Which arm.

    Returns:
        Repeat -> its sample.

    Raises:
        StatisticsError: See `samples_of`.
    """
    anywhere = dict.fromkeys(zip(known.arm.tolist(), known.repeat.tolist(), known.fold.tolist(), strict=True), 0.0)
    sides = [
        samples_of(known, arm, positive=name, thresholds=anywhere, treat_at=prevalence(known, name))
        for name in known.classes
    ]
    repeats = np.unique(known.repeat[known.arm == arm]).tolist()
    return {
        repeat: _joined(known.where((known.arm == arm) & (known.repeat == repeat)), of_repeat)
        for repeat, of_repeat in zip(repeats, zip(*sides, strict=True), strict=True)
    }


def _joined(rows: PredictionTable, sides: Sequence[Sample]) -> ClassSample:
    """Put the samples of the classes beside each other."""
    by_name = np.argsort(rows.case)
    at = [by_name[np.searchsorted(rows.case, side.case, sorter=by_name)] for side in sides]
    decided = rows.probabilities.argmax(axis=1)
    # An operating point below or above every probability: the likeliest class is decided on, wherever it lies.
    points = [np.where(decided[a] == k, 0.0, np.inf) for k, a in enumerate(at)]
    index = {name: k for k, name in enumerate(rows.classes)}
    return ClassSample(
        rest=tuple(replace(side, threshold=point) for side, point in zip(sides, points, strict=True)),
        label=np.array([index[name] for name in rows.label[at[0]].tolist()], np.int64),
        p=rows.probabilities[at[0]],
    )


@dataclass(frozen=True)
class ClassMetric:
    """What a figure over all classes means and how it is got.

    Attributes:
        title: For people.
        definition: One sentence.
        measure: Sample -> measure, weights in the order of its `rows`.
        all_classes: Not defined where a class has no case.
        hits: Of a share of the cases, whose interval is Wilson's: which are counted.
    """

    title: str
    definition: str
    measure: Callable[[ClassSample], Measure]
    all_classes: bool = True
    hits: Callable[[ClassSample], BoolArray] | None = None


def _right_order(sample: ClassSample, one: int, other: int) -> Measure:
    """Pairs of a case of one class and one of another that the one's probability puts in order, ties one half."""
    ours, theirs = (np.flatnonzero(sample.label == k) for k in (one, other))
    theirs = theirs[np.argsort(sample.p[theirs, one], kind="stable")]
    low, high = (np.searchsorted(sample.p[theirs, one], sample.p[ours, one], side) for side in ("left", "right"))

    def measure(weights: FloatArray) -> FloatArray:
        below = np.zeros((len(weights), len(theirs) + 1))
        np.cumsum(weights[:, theirs], axis=1, out=below[:, 1:])
        return np.asarray((weights[:, ours] * (below[:, low] + below[:, high])).sum(axis=1) / 2)

    return measure


def _sizes(sample: ClassSample, weights: FloatArray) -> FloatArray:
    """(classes, draws) cases of each class, NaN where a draw lost it."""
    found = (weights @ _by_class(sample.label, len(sample.rest))).T
    return np.where(found > 0, found, np.nan)


def _macro_ovo(sample: ClassSample) -> Measure:
    ways = list(permutations(range(len(sample.rest)), 2))
    counts = [_right_order(sample, *way) for way in ways]

    def measure(weights: FloatArray) -> FloatArray:
        sizes = _sizes(sample, weights)
        areas = [count(weights) / (sizes[a] * sizes[b]) for (a, b), count in zip(ways, counts, strict=True)]
        return np.asarray(np.mean(areas, axis=0))

    return measure


def _macro_ovr(sample: ClassSample) -> Measure:
    ways = list(permutations(range(len(sample.rest)), 2))
    counts = [_right_order(sample, *way) for way in ways]

    def measure(weights: FloatArray) -> FloatArray:
        sizes = _sizes(sample, weights)
        pairs = sizes * (sizes.sum(axis=0) - sizes)
        areas = [count(weights) / pairs[a] for (a, _), count in zip(ways, counts, strict=True)]
        return np.asarray(np.sum(areas, axis=0) / len(sizes))

    return measure


def _by_class(index: IntArray, classes: int) -> FloatArray:
    """(n, classes), 1 where a case is of the class."""
    return np.eye(classes)[index]


def _hits_measure(formula: Callable[[FloatArray, FloatArray, FloatArray], FloatArray]) -> Callable[..., Measure]:
    """Make a measure of (draws, classes) right answers, true cases and answers; a lost class gives NaN."""

    def prepare(sample: ClassSample) -> Measure:
        truth, said = (_by_class(x, len(sample.rest)) for x in (sample.label, sample.decided))

        def measure(weights: FloatArray) -> FloatArray:
            found = formula(weights @ (truth * said), _sizes(sample, weights).T, weights @ said)
            return np.asarray(found.mean(axis=1))

        return measure

    return prepare


def _each_measure(each: Callable[[ClassSample], FloatArray]) -> Callable[[ClassSample], Measure]:
    """Make a measure of a mean over cases."""

    def prepare(sample: ClassSample) -> Measure:
        values = each(sample)

        def measure(weights: FloatArray) -> FloatArray:
            n = weights.sum(axis=1)
            return np.asarray(weights @ values / np.where(n > 0, n, np.nan))

        return measure

    return prepare


def _right(sample: ClassSample) -> BoolArray:
    return np.asarray(sample.decided == sample.label)


def _surprise(sample: ClassSample) -> FloatArray:
    came_true = sample.p[np.arange(len(sample.label)), sample.label]
    return np.asarray(-np.log(np.maximum(came_true, np.finfo(np.float64).eps)))


def _squared_error(sample: ClassSample) -> FloatArray:
    return np.asarray(((sample.p - _by_class(sample.label, len(sample.rest))) ** 2).sum(axis=1))


CLASS_METRICS: dict[str, ClassMetric] = {
    "macro_ovo_auc": ClassMetric(
        "Macro AUC, one against one",
        "Mean over all pairs of classes of how well each one's probability tells it from the other (Hand & Till 2001).",
        _macro_ovo,
    ),
    "macro_ovr_auc": ClassMetric(
        "Macro AUC, one against the rest",
        "Mean over the classes of the AUC of each one's probability against all others.",
        _macro_ovr,
    ),
    "accuracy": ClassMetric(
        "Accuracy",
        "Share of the cases whose likeliest class is the true one.",
        _each_measure(lambda s: _right(s).astype(np.float64)),
        all_classes=False,
        hits=_right,
    ),
    "balanced_accuracy": ClassMetric(
        "Balanced accuracy",
        "Mean over the classes of the share of each one's cases whose likeliest class is the true one.",
        _hits_measure(lambda hits, true, said: hits / true),
    ),
    "macro_f1": ClassMetric(
        "Macro F1",
        "Mean over the classes of the harmonic mean of positive predictive value and sensitivity of the likeliest "
        "class.",
        _hits_measure(lambda hits, true, said: 2 * hits / (true + said)),
    ),
    "log_loss": ClassMetric(
        "Log loss",
        "Mean of -log(probability of the class that came true), natural.",
        _each_measure(_surprise),
        all_classes=False,
    ),
    "brier": ClassMetric(
        "Brier score, all classes",
        "Mean over cases of the squared distances of the probabilities from the outcome, summed over the classes.",
        _each_measure(_squared_error),
        all_classes=False,
    ),
}


def macro_ovo_auc(labels: IntArray, probabilities: FloatArray) -> float:
    """Return the one-vs-one AUC averaged over all pairs of classes, ties one half (Hand & Till 2001).

    Args:
        labels: (n,) index of the class.
        probabilities: (n, classes), or anything that orders the cases alike.

    Raises:
        StatisticsError: The shapes do not fit, or a class has no case.
    """
    labels, probabilities = np.asarray(labels, np.int64), np.asarray(probabilities, np.float64)
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        raise StatisticsError(
            f"labels of shape {labels.shape} with probabilities of shape {probabilities.shape}",
            expected="n labels with (n, classes) probabilities",
        )
    classes = probabilities.shape[1]
    if set(np.unique(labels).tolist()) != set(range(classes)):
        raise StatisticsError(
            f"the classes {np.unique(labels).tolist()} with {classes} probabilities",
            expected=f"cases of each class from 0 to {classes - 1}",
        )
    areas = []
    for a, b in combinations(range(classes), 2):
        kept = (labels == a) | (labels == b)
        is_a = labels[kept] == a
        areas += [roc.auc(is_a, probabilities[kept, a]), roc.auc(~is_a, probabilities[kept, b])]
    return float(np.mean(areas))


def pair_placement(samples: Sequence[ClassSample], pair: tuple[int, int], patients: int) -> roc.Placement:
    """Return the AUC of a pair of classes, both directions averaged, with each patient's share of its variance.

    Args:
        samples: One a repeat, each with cases of both classes.
        pair: Indices of the classes; the first one's cases are the placement's positives.
        patients: Patients of the whole table.
    """
    return roc.average([_both_ways(sample, *pair, patients) for sample in samples])


def _both_ways(sample: ClassSample, a: int, b: int, patients: int) -> roc.Placement:
    kept = np.isin(sample.label, (a, b))
    is_a, patient = sample.label[kept] == a, sample.rows.patient[kept]
    one = roc.placement(is_a, sample.p[kept, a], patient, patients)
    other = roc.placement(~is_a, sample.p[kept, b], patient, patients)
    turned = roc.Placement(other.auc, other.negatives, other.positives, other.has_negative, other.has_positive)
    return roc.average([one, turned])


@dataclass(frozen=True)
class Deviations:
    """A mean over classes and what each patient adds to its uncertainty.

    Attributes:
        value: The mean.
        by_class: (classes, patients) summed deviations of the patient's cases of the class.
        has: (classes, patients) whether the patient has a case of the class.
    """

    value: float
    by_class: FloatArray
    has: BoolArray

    def less(self, other: Deviations) -> Deviations:
        """Return the difference of two means of the same cases."""
        return Deviations(self.value - other.value, self.by_class - other.by_class, self.has | other.has)

    @property
    def variance(self) -> float:
        """Clustered by patient (Obuchowski 1997, for any number of classes); NaN with a class of one patient."""
        sizes, n = self.has.sum(axis=1), int(self.has.any(axis=0).sum())
        if sizes.min() < 2:
            return math.nan
        products = self.by_class @ self.by_class.T
        within = np.diag(products)
        across = float(products.sum() - within.sum())
        return float((sizes / (sizes - 1)) @ within) + n / (n - 1) * across


def ovo_deviations(samples: Sequence[ClassSample], patients: int) -> Deviations:
    """Return the macro one-vs-one AUC with what each patient adds; every class has a case in each repeat."""
    classes = len(samples[0].rest)
    pairs = list(combinations(range(classes), 2))
    added, has, areas = np.zeros((classes, patients)), np.zeros((classes, patients), bool), []
    for a, b in pairs:
        found = pair_placement(samples, (a, b), patients)
        added[a] += found.positives / len(pairs)
        added[b] += found.negatives / len(pairs)
        has[a] |= found.has_positive
        has[b] |= found.has_negative
        areas.append(found.auc)
    return Deviations(float(np.mean(areas)), added, has)


def recall_deviations(samples: Sequence[ClassSample], patients: int) -> Deviations:
    """Return the balanced accuracy with what each patient adds; every class has a case in each repeat."""
    classes = len(samples[0].rest)
    added, has, shares = np.zeros((classes, patients)), np.zeros((classes, patients), bool), []
    for sample in samples:
        hit = _right(sample)
        for k in range(classes):
            of_class = sample.label == k
            patient, share = sample.rows.patient[of_class], float(hit[of_class].mean())
            each = (hit[of_class] - share) / (of_class.sum() * classes * len(samples))
            added[k] += by_patient(patient, each, patients)
            has[k] |= np.bincount(patient, minlength=patients) > 0
            shares.append(share)
    return Deviations(float(np.mean(shares)), added, has)
