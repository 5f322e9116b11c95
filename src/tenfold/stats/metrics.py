"""The metrics there are: one explicit dictionary, name -> definition.

It must not know tables or files: a metric turns a sample into a measure, a measure turns weights into values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tenfold.errors import StatisticsError, nearest
from tenfold.stats import calibration, net_benefit
from tenfold.stats.bootstrap import Measure
from tenfold.stats.roc import require_both
from tenfold.stats.sample import BoolArray, Sample
from tenfold.types import FloatArray

Share = Callable[[Sample], tuple[BoolArray, BoolArray]]


@dataclass(frozen=True)
class Metric:
    """What a figure means and how it is got.

    Attributes:
        title: For people.
        definition: One sentence.
        measure: Sample -> measure.
        interval: "delong", "wilson" or "bootstrap".
        share: The successes and the counted cases of a proportion.
        both_classes: Not defined where all outcomes are alike.
        compared: Whether arms are compared by it.
        costly: Large tables get fewer draws; the method says how many.
        undefined: Why it may have no value though both classes are there.
        note: What the method of its interval must add.
    """

    title: str
    definition: str
    measure: Callable[[Sample], Measure]
    interval: Literal["delong", "wilson", "bootstrap"] = "bootstrap"
    share: Share | None = None
    both_classes: bool = True
    compared: bool = True
    costly: bool = False
    undefined: str = "a denominator is 0"
    note: str = ""


def _over(above: FloatArray, below: FloatArray) -> FloatArray:
    """Quotient, NaN where nothing can be divided by."""
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


def _share_measure(share: Share) -> Callable[[Sample], Measure]:
    """Make a measure of a proportion."""

    def prepare(sample: Sample) -> Measure:
        hits, counted = (x.astype(np.float64) for x in share(sample))
        return lambda weights: _over(weights @ hits, weights @ counted)

    return prepare


def _sensitivity(s: Sample) -> tuple[BoolArray, BoolArray]:
    return s.called & s.positive, s.positive


def _specificity(s: Sample) -> tuple[BoolArray, BoolArray]:
    return ~s.called & ~s.positive, ~s.positive


def _ppv(s: Sample) -> tuple[BoolArray, BoolArray]:
    return s.called & s.positive, s.called


def _npv(s: Sample) -> tuple[BoolArray, BoolArray]:
    return ~s.called & ~s.positive, ~s.called


def _accuracy(s: Sample) -> tuple[BoolArray, BoolArray]:
    return s.called == s.positive, np.ones(len(s), bool)


def _table_measure(formula: Callable[[FloatArray], FloatArray]) -> Callable[[Sample], Measure]:
    """Make a measure of the confusion table: rows tp, fp, fn, tn of (4, draws)."""

    def prepare(sample: Sample) -> Measure:
        called, positive = sample.called, sample.positive
        cells = np.stack([called & positive, called & ~positive, ~called & positive, ~called & ~positive])
        return lambda weights: formula(cells.astype(np.float64) @ weights.T)

    return prepare


def _balanced_accuracy(table: FloatArray) -> FloatArray:
    tp, fp, fn, tn = table
    return (_over(tp, tp + fn) + _over(tn, tn + fp)) / 2


def _f1(table: FloatArray) -> FloatArray:
    tp, fp, fn, _ = table
    return _over(2 * tp, 2 * tp + fp + fn)


def _mcc(table: FloatArray) -> FloatArray:
    tp, fp, fn, tn = table
    return _over(tp * tn - fp * fn, np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)))


def _mean_measure(each: Callable[[Sample], FloatArray]) -> Callable[[Sample], Measure]:
    """Make a measure of a mean over cases."""

    def prepare(sample: Sample) -> Measure:
        values = each(sample)
        return lambda weights: _over(weights @ values, weights.sum(axis=1))

    return prepare


def _squared_error(s: Sample) -> FloatArray:
    return np.asarray((s.p - s.positive) ** 2)


def _surprise(s: Sample) -> FloatArray:
    tiny = np.finfo(np.float64).eps
    p = np.clip(s.p, tiny, 1 - tiny)
    return np.asarray(-np.log(np.where(s.positive, p, 1 - p)))


def _brier_scaled(sample: Sample) -> Measure:
    error, outcome = _squared_error(sample), sample.positive.astype(np.float64)

    def measure(weights: FloatArray) -> FloatArray:
        n = weights.sum(axis=1)
        rate = _over(weights @ outcome, n)
        return 1 - _over(_over(weights @ error, n), rate * (1 - rate))

    return measure


def _observed_to_expected(sample: Sample) -> Measure:
    outcome = sample.positive.astype(np.float64)
    return lambda weights: _over(weights @ outcome, weights @ sample.p)


def _tie_starts(score: FloatArray) -> np.ndarray:
    """Where each group of equal scores begins, scores ascending."""
    return np.append(0, np.flatnonzero(np.diff(score)) + 1)


def _grouped(sample: Sample, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Weights of the positive and the negative cases, summed over equal probabilities, (draws, groups)."""
    starts = _tie_starts(sample.p)
    high = weights * sample.positive
    low = weights - high
    if len(starts) == len(sample):
        return high, low
    return np.add.reduceat(high, starts, axis=1), np.add.reduceat(low, starts, axis=1)


def _auc(sample: Sample) -> Measure:
    def measure(weights: FloatArray) -> FloatArray:
        high, low = _grouped(sample, weights)
        below = np.cumsum(low, axis=1)
        all_low = below[:, -1].copy()
        below -= low / 2
        return _over((high * below).sum(axis=1), high.sum(axis=1) * all_low)

    return measure


def _average_precision(sample: Sample) -> Measure:
    def measure(weights: FloatArray) -> FloatArray:
        high, low = (side[:, ::-1] for side in _grouped(sample, weights))
        hits = np.cumsum(high, axis=1)
        called = hits + np.cumsum(low, axis=1)
        precision = np.divide(hits, called, out=np.zeros_like(hits), where=called > 0)
        return _over((high * precision).sum(axis=1), hits[:, -1])

    return measure


def _auc_over_folds(sample: Sample) -> Measure:
    folds = [sample.fold == f for f in np.unique(sample.fold) if f >= 0]
    parts = [(mask, _auc(sample.where(mask))) for mask in folds if sample.where(mask).both_classes]
    if not parts:
        return lambda weights: np.full(len(weights), np.nan)

    def measure(weights: FloatArray) -> FloatArray:
        each = np.stack([of_fold(weights[:, mask]) for mask, of_fold in parts])
        there = np.isfinite(each)
        return _over(np.where(there, each, 0.0).sum(axis=0), there.sum(axis=0).astype(np.float64))

    return measure


_AT = "at the operating point"

METRICS: dict[str, Metric] = {
    "auc": Metric(
        "AUC",
        "Chance that a case with the outcome gets a higher probability than one without, ties one half.",
        _auc,
        interval="delong",
    ),
    "auc_over_folds": Metric(
        "AUC, mean over folds",
        "Mean of the AUCs within each fold that holds both classes; the training data of folds overlap.",
        _auc_over_folds,
        compared=False,
        undefined="no fold holds both classes, or one model predicted all cases",
        note="folds without both classes left out, variability of training not included",
    ),
    "average_precision": Metric(
        "Average precision",
        "Precision averaged over the steps of recall, without interpolation.",
        _average_precision,
    ),
    "sensitivity": Metric(
        "Sensitivity",
        f"Share of the cases with the outcome that are called positive {_AT}.",
        _share_measure(_sensitivity),
        interval="wilson",
        share=_sensitivity,
        both_classes=False,
        undefined="no case has the outcome",
    ),
    "specificity": Metric(
        "Specificity",
        f"Share of the cases without the outcome that are called negative {_AT}.",
        _share_measure(_specificity),
        interval="wilson",
        share=_specificity,
        both_classes=False,
        undefined="every case has the outcome",
    ),
    "ppv": Metric(
        "Positive predictive value",
        f"Share of the cases called positive {_AT} that have the outcome, at the prevalence of these data.",
        _share_measure(_ppv),
        interval="wilson",
        share=_ppv,
        undefined="no case is called positive",
    ),
    "npv": Metric(
        "Negative predictive value",
        f"Share of the cases called negative {_AT} that have no outcome, at the prevalence of these data.",
        _share_measure(_npv),
        interval="wilson",
        share=_npv,
        undefined="no case is called negative",
    ),
    "accuracy": Metric(
        "Accuracy",
        f"Share of the cases called rightly {_AT}.",
        _share_measure(_accuracy),
        interval="wilson",
        share=_accuracy,
        both_classes=False,
    ),
    "balanced_accuracy": Metric(
        "Balanced accuracy", f"Mean of sensitivity and specificity {_AT}.", _table_measure(_balanced_accuracy)
    ),
    "f1": Metric("F1", f"Harmonic mean of positive predictive value and sensitivity {_AT}.", _table_measure(_f1)),
    "mcc": Metric(
        "Matthews correlation",
        f"Correlation of the answer {_AT} with the outcome.",
        _table_measure(_mcc),
        undefined="all cases are called alike",
    ),
    "brier": Metric(
        "Brier score",
        "Mean squared distance of the probability from the outcome.",
        _mean_measure(_squared_error),
        both_classes=False,
    ),
    "brier_scaled": Metric(
        "Scaled Brier score", "1 - Brier score / that of always saying the prevalence.", _brier_scaled
    ),
    "log_loss": Metric(
        "Log loss",
        "Mean of -log(probability of what came true), natural.",
        _mean_measure(_surprise),
        both_classes=False,
    ),
    "observed_to_expected": Metric(
        "Observed / expected",
        "Cases with the outcome over the sum of their probabilities; 1 is right.",
        _observed_to_expected,
        both_classes=False,
        compared=False,
        undefined="all probabilities are 0",
    ),
    "calibration_in_the_large": Metric(
        "Calibration in the large",
        "Intercept of a logistic model with the log odds as offset; above 0 the outcome is commoner.",
        calibration.in_the_large,
        costly=True,
        compared=False,
        undefined="the model has no finite maximum",
    ),
    "calibration_intercept": Metric(
        "Calibration intercept (slope free)",
        "Intercept of the logistic model of the outcome on the log odds whose slope is free; 0 is perfect.",
        calibration.intercept,
        costly=True,
        compared=False,
        undefined="the classes are separated, or the probabilities do not vary",
    ),
    "calibration_slope": Metric(
        "Calibration slope",
        "Slope of the logistic model of the outcome on the log odds; below 1: probabilities too extreme.",
        calibration.slope,
        costly=True,
        compared=False,
        undefined="the classes are separated, or the probabilities do not vary",
    ),
    "ici": Metric(
        f"Integrated calibration index ({calibration.SMOOTHER})",
        "Mean distance of the smoothed frequency of the outcome from the probability.",
        calibration.ici,
        costly=True,
        note=f"{calibration.SMOOTHER}, neighbourhoods held; a distance, so the draws lean upwards",
    ),
    "net_benefit": Metric(
        "Net benefit",
        "True positives less false positives times the odds of the threshold probability, a case.",
        net_benefit.measured,
        both_classes=False,
        undefined="the threshold probability is not between 0 and 1",
    ),
}


def metric(name: str) -> Metric:
    """Look a metric up.

    Raises:
        StatisticsError: No such metric.
    """
    if name not in METRICS:
        raise StatisticsError(f"no metric '{name}'", do=nearest(name, METRICS))
    return METRICS[name]


def value(name: str, sample: Sample) -> float:
    """Return one metric of one sample.

    Raises:
        StatisticsError: No such metric, or it is not defined for these cases.
    """
    wanted = metric(name)
    if wanted.both_classes:
        require_both(sample.positive, wanted.title)
    found = float(wanted.measure(sample)(np.ones((1, len(sample))))[0])
    if not np.isfinite(found):
        raise StatisticsError(f"{wanted.title} is not defined: {wanted.undefined}")
    return found
