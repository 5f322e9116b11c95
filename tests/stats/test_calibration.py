"""Calibration measures against rms and statsmodels; recalibration that stays finite."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import statsmodels.api as sm
from sklearn.linear_model import LogisticRegression
from statsmodels.nonparametric.smoothers_lowess import lowess

from tenfold.errors import StatisticsError
from tenfold.stats.calibration import MAX_TEMPERATURE, fit_platt, fit_temperature, log_odds
from tenfold.stats.metrics import METRICS, value
from tenfold.stats.sample import Sample
from tenfold.stats.smooth import Lowess


def as_sample(y, p, treat_at=0.2) -> Sample:
    order, n = np.argsort(p, kind="stable"), len(p)
    return Sample(
        case=np.arange(n).astype(str),
        patient=np.arange(n),
        fold=np.full(n, -1),
        positive=y[order],
        p=p[order],
        threshold=np.full(n, 0.5),
        treat_at=treat_at,
    )


def test_own_data_against_rms(roc_cal):
    sample = as_sample(roc_cal.y, roc_cal.p)
    expected = {
        "calibration_slope": 1.008317755197,
        "calibration_intercept": 0.318414199293,
        "calibration_in_the_large": 0.311551623224,
        "brier": 0.200182467643,
        "brier_scaled": 0.120077065306,
        "log_loss": 0.584232379783,
        "observed_to_expected": 1.20258678873,
        "ici": 0.0626114654104,
        "net_benefit": 0.205357142857,
    }
    assert {name: value(name, sample) for name in expected} == pytest.approx(expected, abs=2e-9)


@pytest.mark.shared
def test_asah_against_rms(shared_data):
    with (shared_data / "reference" / "asah.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    y = np.array([r["outcome"] == "Poor" for r in rows])
    p = 1 / (1 + np.exp(1.5 - 3 * np.array([float(r["s100b"]) for r in rows])))
    sample = as_sample(y, p)
    expected = {
        "calibration_slope": 1.634773659112,
        "calibration_intercept": 0.693260029561,
        "calibration_in_the_large": 0.191395186893,
        "brier": 0.189595179925,
        "brier_scaled": 0.17989808521,
        "log_loss": 0.563547174176,
        "observed_to_expected": 1.11887930728,
        "ici": 0.0607087937416,
    }
    assert {name: value(name, sample) for name in expected} == pytest.approx(expected, abs=2e-9)
    gains = {0.05: 0.32929669306, 0.1: 0.29203539823, 0.2: 0.194690265487, 0.3: 0.176991150442, 0.5: 0.0884955752212}
    for threshold, gain in gains.items():
        assert value("net_benefit", as_sample(y, p, threshold)) == pytest.approx(gain, abs=1e-10)


def test_line_is_that_of_statsmodels():
    random = np.random.default_rng(4)
    p = random.beta(1, 3, 300)
    y = random.random(300) < p**1.5
    fit = sm.GLM(y.astype(float), sm.add_constant(log_odds(p)), family=sm.families.Binomial()).fit()
    sample = as_sample(y, p)
    found = (value("calibration_intercept", sample), value("calibration_slope", sample))
    assert found == pytest.approx(tuple(fit.params), abs=1e-7)


def test_smoother_is_that_of_statsmodels():
    random = np.random.default_rng(5)
    x = np.sort(np.round(random.random(250), 2))
    y = (random.random(250) < x).astype(float)
    smoother = Lowess.prepare(x)
    found = smoother.between(smoother.at_anchors(y, np.ones((1, 250))), x)[0]
    theirs = lowess(y, x, frac=2 / 3, it=0, delta=0.01 * (x[-1] - x[0]), return_sorted=False)
    assert found == pytest.approx(theirs, abs=1e-9)


def test_weights_act_as_copies():
    random = np.random.default_rng(6)
    p = np.sort(random.random(60))
    y = random.random(60) < p
    counts = random.integers(0, 3, 60)
    drawn, copied = as_sample(y, p), as_sample(np.repeat(y, counts), np.repeat(p, counts))
    for name, metric in METRICS.items():
        if name not in ("ici", "auc_over_folds"):  # held neighbourhoods; no folds here
            weighted = metric.measure(drawn)(counts[None].astype(float))[0]
            assert weighted == pytest.approx(value(name, copied), abs=2e-5), name


def test_separated_classes_have_no_slope():
    y = np.arange(20) < 10
    with pytest.raises(StatisticsError, match="separated"):
        value("calibration_slope", as_sample(y, np.where(y, 0.9, 0.1) + np.linspace(0, 0.05, 20)))


def test_temperature_finds_the_truth():
    random = np.random.default_rng(7)
    logits = random.normal(0, 1, (4000, 3))
    chance = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (random.random(4000)[:, None] > chance.cumsum(axis=1)).sum(axis=1)
    found = fit_temperature(3 * logits, labels)
    assert found.temperature == pytest.approx(3, rel=0.1)
    assert found.apply(3 * logits) == pytest.approx(chance, abs=0.05)


def test_platt_is_logistic_regression_on_many_cases():
    random = np.random.default_rng(8)
    score = random.normal(0, 2, 5000)
    labels = (random.random(5000) < 1 / (1 + np.exp(1 - 0.5 * score))).astype(int)
    found = fit_platt(np.stack([np.zeros(5000), score], axis=1), labels)
    theirs = LogisticRegression(C=np.inf).fit(score[:, None], labels)
    assert 1 / found.temperature == pytest.approx(theirs.coef_[0, 0], rel=0.01)
    assert found.intercepts[1] - found.intercepts[0] == pytest.approx(theirs.intercept_[0], abs=0.01)


def test_separated_classes_stay_finite():
    logits = np.array([[5.0, -5.0]] * 6 + [[-5.0, 5.0]] * 4)
    labels = np.array([0] * 6 + [1] * 4)
    probabilities = fit_platt(logits, labels).apply(logits)
    assert 0.7 < probabilities[0, 0] < 0.98
    assert 0.7 < probabilities[-1, 1] < 0.98


@pytest.mark.parametrize("classes", [2, 3])
def test_a_temperature_that_is_right_is_left_alone_in_small_parts(classes):
    # Platt's smoothed targets would answer 1.6 for three classes and 60 cases
    random = np.random.default_rng(0)
    places = np.eye(classes) * 1.8
    found = []
    for _ in range(60):
        labels = random.integers(classes, size=60)
        seen = places[labels] + random.standard_normal((60, classes))
        logits = -0.5 * ((seen[:, None] - places) ** 2).sum(axis=2)
        found.append(fit_temperature(logits, labels).temperature)
    assert np.median(found) == pytest.approx(1.0, abs=0.1)


def test_a_temperature_stays_finite_where_classes_are_separated():
    logits = np.array([[1.0, -1.0]] * 6 + [[-1.0, 1.0]] * 4)
    found = fit_temperature(logits, np.array([0] * 6 + [1] * 4))
    assert 0.2 < found.temperature < 1


def test_misleading_scores_come_near_the_bound():
    logits = np.array([[4.0, -4.0]] * 6 + [[-4.0, 4.0]] * 6)
    found = fit_temperature(logits, np.array([1] * 6 + [0] * 6))
    assert found.temperature > 10
    assert found.temperature <= MAX_TEMPERATURE


@pytest.mark.parametrize(
    ("logits", "labels", "match"),
    [
        (np.zeros((3, 2)), [0, 0, 0], "one class"),
        (np.full((2, 2), np.nan), [0, 1], "finite"),
        (np.zeros((3, 2)), [0, 1], "shape"),
    ],
)
def test_nothing_to_calibrate_on(logits, labels, match):
    with pytest.raises(StatisticsError, match=match):
        fit_platt(logits, np.array(labels))
