"""Whether probabilities mean what they say, and how to mend them when they do not.

It must not know networks or tables: it takes outcomes, probabilities and logits as arrays.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, log_softmax, softmax

from tenfold.errors import StatisticsError
from tenfold.stats.bootstrap import Measure
from tenfold.stats.sample import BoolArray, Sample
from tenfold.stats.smooth import Lowess
from tenfold.types import Calibration, FloatArray, IntArray

SMOOTHER = "lowess, span 2/3, no robustness iterations"
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
_CLIP = 1e-12
_STEPS, _LONGEST_STEP = 40, 2.0
# Newton's error is about the square of its last step: 1e-16 in the data themselves, 1e-5 in a draw.
_EXACT, _CLOSE = 1e-8, 3e-3


def log_odds(p: FloatArray) -> FloatArray:
    """Return log(p / (1 - p)), p kept 1e-12 away from 0 and 1."""
    kept = np.clip(p, _CLIP, 1 - _CLIP)
    return np.asarray(np.log(kept) - np.log1p(-kept))


def in_the_large(sample: Sample) -> Measure:
    """Intercept of a logistic model with the log odds as offset (Cox 1958); 0 is right on average."""
    offset, outcome = log_odds(sample.p), sample.positive.astype(np.float64)
    fit = _logistic_measure(np.ones((1, len(offset))), offset, outcome)
    return lambda weights: fit(weights)[:, 0]


def intercept(sample: Sample) -> Measure:
    """Intercept of the logistic model whose slope is free (Cox 1958); 0 is perfect."""
    return _free_line(sample, 0)


def slope(sample: Sample) -> Measure:
    """Slope of the outcome on the log odds (Cox 1958); 1 is perfect, below 1 too extreme."""
    return _free_line(sample, 1)


def _free_line(sample: Sample, which: int) -> Measure:
    """Intercept (0) or slope (1) of the outcome on the log odds."""
    x, outcome = log_odds(sample.p), sample.positive.astype(np.float64)
    centre, spread = float(x.mean()), float(x.std())
    if spread == 0 or not sample.both_classes:
        return lambda weights: np.full(len(weights), np.nan)
    # Standardised, so that one bound on the length of a step suits every scale.
    design = np.stack([np.ones_like(x), (x - centre) / spread])
    fit = _logistic_measure(design, np.zeros_like(x), outcome)

    def measure(weights: FloatArray) -> FloatArray:
        line = fit(weights)
        return line[:, 1] / spread if which else line[:, 0] - line[:, 1] * centre / spread

    return measure


def _logistic_measure(design: FloatArray, offset: FloatArray, outcome: FloatArray) -> Measure:
    """A logistic regression whose draws start at the fit of the data; NaN where that has no maximum."""
    whole = _logistic(design, offset, outcome, np.ones((1, len(offset))), np.zeros(len(design)), _EXACT)[0]
    if not np.isfinite(whole).all():
        return lambda weights: np.full((len(weights), len(design)), np.nan)
    return lambda weights: _logistic(design, offset, outcome, weights, whole, _CLOSE)


def _logistic(
    design: FloatArray,
    offset: FloatArray,
    outcome: FloatArray,
    weights: FloatArray,
    start: FloatArray,
    close: float,
) -> FloatArray:
    """Fit one small logistic regression a draw by Newton's method; NaN where it has no finite maximum.

    Args:
        design: (terms, n), one or two terms.
        offset: (n,).
        outcome: (n,) 0 or 1.
        weights: (draws, n).
        start: (terms,).
        close: A last step no longer than this ends the search.

    Returns:
        (draws, terms).
    """
    terms = len(design)
    products = (design[:, None, :] * design[None, :, :]).reshape(terms * terms, -1)
    # All draws stand at the same place in the first step, which is then a matrix product.
    chance = expit(start @ design + offset)
    gradient = weights @ ((outcome - chance) * design).T
    curvature = weights @ (chance * (1 - chance) * products).T
    fitted = np.tile(start, (len(weights), 1))
    found = np.full_like(fitted, np.nan)
    active = np.arange(len(weights))
    for _ in range(_STEPS):
        step, solvable = _newton_step(gradient, curvature.reshape(-1, terms, terms))
        fitted[active] += step
        done = solvable & (np.abs(step).max(axis=1) < close)
        found[active[done]] = fitted[active[done]]
        active = active[solvable & ~done]
        if not len(active):
            break
        chances = expit(fitted[active] @ design + offset)
        gradient = (weights[active] * (outcome - chances)) @ design.T
        curvature = (weights[active] * (chances * (1 - chances))) @ products.T
    return found


def _newton_step(gradient: FloatArray, curvature: FloatArray) -> tuple[FloatArray, BoolArray]:
    """Steps, (draws, terms), none too long, and which draws can make one."""
    terms = gradient.shape[1]
    determinant = curvature[:, 0, 0]
    if terms == 2:
        determinant = determinant * curvature[:, 1, 1] - curvature[:, 0, 1] ** 2
    solvable = np.asarray(determinant > 1e-10)
    safe = np.where(solvable[:, None, None], curvature, np.eye(terms))
    step = np.linalg.solve(safe, gradient[:, :, None])[:, :, 0]
    longest = np.abs(step).max(axis=1, keepdims=True)
    return step * np.minimum(1.0, _LONGEST_STEP / np.maximum(longest, _EXACT)), solvable


def ici(sample: Sample) -> Measure:
    """Integrated calibration index (Austin & Steyerberg 2019): mean distance of the lowess curve from p."""
    smoother = Lowess.prepare(sample.p)
    outcome = sample.positive.astype(np.float64)

    def measure(weights: FloatArray) -> FloatArray:
        curve = smoother.between(smoother.at_anchors(outcome, weights), sample.p)
        return np.asarray((weights * np.abs(curve - sample.p)).sum(axis=1) / weights.sum(axis=1))

    return measure


def fit_temperature(logits: FloatArray, labels: IntArray) -> Calibration:
    """Fit one temperature (Guo et al. 2017), held near 1 by a normal prior of its logarithm with SD 1.

    Without the prior, the temperature of a small part that happens to be separated goes to 0. Platt's smoothed targets
    hold it too, but with few cases a class they soften far too much: decisions/0016 has the figures.

    Args:
        logits: (n, classes).
        labels: (n,) index of the class.

    Raises:
        StatisticsError: No case, one class only, or logits that are not numbers.
    """
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels, np.int64)
    _check(logits, labels)
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        fit = log_softmax(logits / math.exp(log_temperature), axis=1)[rows, labels].sum()
        return 0.5 * log_temperature**2 - float(fit)

    ends = (math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE))
    best = minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-10}).x
    return Calibration("temperature", math.exp(float(best)), (), len(labels))


def fit_platt(logits: FloatArray, labels: IntArray) -> Calibration:
    """Fit a temperature and an intercept a class (Platt 1999, for two classes or more).

    Smoothed targets keep the fit finite where the classes are separated: a case of a class with N cases has
    target (N + 1) / (N + classes) there and 1 / (N + classes) elsewhere. The temperature stays in [0.05, 20].

    Args:
        logits: (n, classes).
        labels: (n,) index of the class.

    Raises:
        StatisticsError: No case, one class only, or logits that are not numbers.
    """
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels, np.int64)
    _check(logits, labels)
    targets = _smoothed(labels, logits.shape[1])
    free = logits.shape[1] - 1

    def loss(x: FloatArray) -> tuple[float, FloatArray]:
        scaled = x[0] * logits + np.append(0.0, x[1:])
        error = (softmax(scaled, axis=1) - targets) / len(labels)
        value = -float((targets * log_softmax(scaled, axis=1)).sum()) / len(labels)
        return value, np.append((error * logits).sum(), error.sum(axis=0)[1:])

    best = minimize(
        loss,
        np.append(1.0, np.zeros(free)),
        jac=True,
        bounds=[(1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE)] + [(None, None)] * free,
        method="L-BFGS-B",
        options={"ftol": 1e-14, "gtol": 1e-9, "maxiter": 500},
    ).x
    added = np.append(0.0, best[1:])
    return Calibration("platt", float(1 / best[0]), tuple(float(v) for v in added - added.mean()), len(labels))


def _smoothed(labels: IntArray, classes: int) -> FloatArray:
    """Platt's targets, (n, classes), rows summing to 1."""
    sizes = np.bincount(labels, minlength=classes)[labels]
    targets = np.repeat(1 / (sizes + classes)[:, None], classes, axis=1)
    targets[np.arange(len(labels)), labels] = (sizes + 1) / (sizes + classes)
    return np.asarray(targets)


def _check(logits: FloatArray, labels: IntArray) -> None:
    """Refuse what cannot be calibrated on."""
    if logits.ndim != 2 or len(logits) != len(labels) or not len(labels):
        raise StatisticsError(
            f"logits of shape {logits.shape} with {len(labels)} labels",
            expected="(n, classes) logits with n labels, n at least 1",
        )
    if not np.isfinite(logits).all():
        raise StatisticsError("a logit is not a finite number", expected="finite logits to calibrate")
    if len(np.unique(labels)) < 2:
        raise StatisticsError(
            f"all {len(labels)} cases to calibrate on are of one class",
            expected="cases of at least two classes in the inner validation part",
            do="enlarge the inner part, or leave calibration out",
        )
