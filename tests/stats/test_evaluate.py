"""Whole tables: every metric with its interval, clustering, repeats, and what is not defined."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import statsmodels.api as sm
from sklearn import metrics as sk

from tenfold.errors import StatisticsError
from tenfold.stats.calibration import log_odds
from tenfold.stats.curves import curves
from tenfold.stats.evaluate import evaluate, per_fold
from tenfold.stats.metrics import METRICS, value
from tenfold.stats.proportions import wilson
from tenfold.types import PredictionTable


@pytest.fixture(scope="module")
def cohort():
    random = np.random.default_rng(11)
    y = random.random(120) < 0.4
    return y, 1 / (1 + np.exp(-random.normal(2 * y - 1, 1)))


def test_values_are_scikit_learns(cohort, make_table, same_threshold):
    y, p = cohort
    table = make_table(y, {"net": p})
    found = evaluate(table, positive="ill", thresholds=same_threshold(table, 0.45), bootstraps=30)["net"]
    called = p >= 0.45
    expected = {
        "auc": sk.roc_auc_score(y, p),
        "average_precision": sk.average_precision_score(y, p),
        "sensitivity": sk.recall_score(y, called),
        "specificity": sk.recall_score(~y, ~called),
        "ppv": sk.precision_score(y, called),
        "npv": sk.precision_score(~y, ~called),
        "accuracy": sk.accuracy_score(y, called),
        "balanced_accuracy": sk.balanced_accuracy_score(y, called),
        "f1": sk.f1_score(y, called),
        "mcc": sk.matthews_corrcoef(y, called),
        "brier": sk.brier_score_loss(y, p),
        "log_loss": sk.log_loss(y, p),
        "auc_over_folds": np.mean([f["auc"] for f in per_fold(table, "ill")["net"]]),
    }
    assert {name: found[name].value for name in expected} == pytest.approx(expected, abs=1e-12)
    assert list(found) == list(METRICS)
    for name, estimate in found.items():
        assert estimate.low <= estimate.value <= estimate.high, name
        assert "95 %" in estimate.method, name
        assert "n = patients" in estimate.method, name
    sensitivity = found["sensitivity"]
    assert (sensitivity.low, sensitivity.high) == pytest.approx(wilson(sensitivity.value, y.sum()))
    assert sensitivity.n == y.sum()


def test_bootstrap_agrees_with_the_standard_errors_of_a_glm(make_table, same_threshold):
    random = np.random.default_rng(3)
    p = random.beta(2, 3, 400)
    y = random.random(400) < p
    table = make_table(y, {"net": p})
    found = evaluate(table, positive="ill", thresholds=same_threshold(table), bootstraps=800)["net"]
    x, binomial = log_odds(p), sm.families.Binomial()
    errors = {
        "calibration_in_the_large": sm.GLM(y.astype(float), np.ones(400), offset=x, family=binomial).fit().bse[0],
        "calibration_slope": sm.GLM(y.astype(float), sm.add_constant(x), family=binomial).fit().bse[1],
        "brier": ((p - y) ** 2).std() / math.sqrt(400),
    }
    for name, error in errors.items():
        width = found[name].high - found[name].low
        assert width / (2 * 1.96 * error) == pytest.approx(1, abs=0.12), name


def test_copies_within_patients_do_not_narrow_any_interval(cohort, make_table, same_threshold):
    y, p = cohort
    once = make_table(y, {"net": p})
    twice = make_table(np.tile(y, 2), {"net": np.tile(p, 2)}, patient=np.tile(np.arange(120), 2))
    narrow = evaluate(once, positive="ill", thresholds=same_threshold(once), bootstraps=300)["net"]
    wide = evaluate(twice, positive="ill", thresholds=same_threshold(twice), bootstraps=300)["net"]
    for name in METRICS:
        ratio = (wide[name].high - wide[name].low) / (narrow[name].high - narrow[name].low)
        # The smoother's anchors, and the folds that the copies fall in, may move a little.
        assert ratio > (0.9 if name in ("auc_over_folds", "ici") else 0.999), name
        assert wide[name].n == narrow[name].n


def test_repeats_are_averaged(cohort, make_table, same_threshold):
    y, p = cohort
    blurred = np.clip(p + np.random.default_rng(1).normal(0, 0.1, 120), 0.01, 0.99)
    both = PredictionTable.concatenate([make_table(y, {"net": q}, repeat=r) for r, q in enumerate((p, blurred))])
    found = evaluate(both, positive="ill", thresholds=same_threshold(both), bootstraps=50)["net"]
    single = [
        evaluate(t, positive="ill", thresholds=same_threshold(t), bootstraps=0)["net"]
        for t in (both.where(both.repeat == 0), both.where(both.repeat == 1))
    ]
    for name in METRICS:
        assert found[name].value == pytest.approx(np.mean([s[name].value for s in single])), name
        assert "mean of 2 repeats" in found[name].method, name
        assert found[name].n <= 120
    # The same predictions twice are no more evidence than once.
    same = PredictionTable.concatenate([make_table(y, {"net": p}, repeat=r) for r in (0, 1)])
    again = evaluate(same, positive="ill", thresholds=same_threshold(same), bootstraps=50)["net"]
    for name in ("auc", "sensitivity", "ppv"):
        assert (again[name].low, again[name].high) == pytest.approx((single[0][name].low, single[0][name].high))


def test_one_class_gives_what_exists_and_says_why_not(cohort, make_table, same_threshold):
    _, p = cohort
    table = make_table(np.ones(120, bool), {"net": p}, folds=0)
    found = evaluate(table, positive="ill", thresholds=same_threshold(table), bootstraps=40)["net"]
    for name in ("auc", "average_precision", "calibration_slope", "mcc", "auc_over_folds", "ici"):
        assert math.isnan(found[name].value), name
        assert "not defined: one class only" in found[name].method
    assert found["sensitivity"].value == pytest.approx((p >= 0.5).mean())
    assert math.isnan(found["specificity"].value)
    assert "every case has the outcome" in found["specificity"].method
    assert found["brier"].low < found["brier"].value < found["brier"].high
    drawn = curves(table, positive="ill", thresholds=same_threshold(table), bootstraps=40)["net"]
    assert drawn["roc"] == {"fpr": [], "tpr": []}
    assert per_fold(table, "ill")["net"][0]["auc"] is None


def test_perfect_predictions(make_table, same_threshold):
    y = np.arange(60) % 3 == 0
    table = make_table(y, {"net": np.where(y, 1.0, 0.0)})
    found = evaluate(table, positive="ill", thresholds=same_threshold(table), bootstraps=60)["net"]
    assert found["auc"].value == 1.0
    assert found["auc"].low < 0.9
    assert found["sensitivity"].low < 0.9
    assert math.isnan(found["calibration_slope"].value)
    assert found["f1"].value == 1.0
    assert math.isnan(found["f1"].low)
    assert "same value" in found["f1"].method


def test_nobody_called_positive(cohort, make_table, same_threshold):
    y, p = cohort
    table = make_table(y, {"net": p})
    found = evaluate(table, positive="ill", thresholds=same_threshold(table, 2.0), bootstraps=40)["net"]
    assert math.isnan(found["ppv"].value)
    assert "no case is called positive" in found["ppv"].method
    assert found["sensitivity"].value == 0
    assert found["sensitivity"].high > 0


def test_unknown_outcomes_are_left_out(cohort, make_table, same_threshold):
    y, p = cohort
    table = make_table(y, {"net": p})
    label = table.label.copy()
    label[:20] = ""
    found = evaluate(replace(table, label=label), positive="ill", thresholds=same_threshold(table), bootstraps=0)["net"]
    assert found["auc"].n == 100
    assert found["auc"].value == pytest.approx(sk.roc_auc_score(y[20:], p[20:]))


def test_same_seed_same_figures(cohort, make_table, same_threshold):
    y, p = cohort
    table = make_table(y, {"net": p})
    asked = {"positive": "ill", "thresholds": same_threshold(table), "bootstraps": 50}
    assert evaluate(table, **asked)["net"]["brier"] == evaluate(table, **asked)["net"]["brier"]
    assert evaluate(table, **asked)["net"]["brier"] != evaluate(table, **asked, seed=1)["net"]["brier"]


def test_draws_without_a_value_are_counted(make_table, same_threshold):
    y = np.arange(30) < 2
    table = make_table(y, {"net": np.linspace(0.9, 0.1, 30) ** (1 + np.arange(30) % 2)}, folds=0)
    found = evaluate(table, positive="ill", thresholds=same_threshold(table), bootstraps=200)["net"]
    assert "without a value left out" in found["average_precision"].method


def test_curves_agree_with_the_metrics(cohort, make_table, same_threshold):
    y, p = cohort
    table = make_table(y, {"net": p})
    found = evaluate(table, positive="ill", thresholds=same_threshold(table), bootstraps=40, net_benefit_at=0.3)["net"]
    drawn = curves(table, positive="ill", thresholds=same_threshold(table), bootstraps=40)["net"]
    assert np.trapezoid(drawn["roc"]["tpr"], drawn["roc"]["fpr"]) == pytest.approx(found["auc"].value)
    decision = drawn["decision"]
    assert decision["net_benefit"][29] == pytest.approx(found["net_benefit"].value)
    assert decision["low"][29] <= decision["net_benefit"][29] <= decision["high"][29]
    confusion = drawn["confusion"]
    assert confusion["tp"] / (confusion["tp"] + confusion["fn"]) == pytest.approx(found["sensitivity"].value)
    assert sum(confusion.values()) == 120
    calibration = drawn["calibration"]
    assert len(calibration["x"]) == len(calibration["y"]) == len(calibration["low"]) == len(calibration["high"])
    assert sum(b["n"] for b in calibration["bins"]) == 120
    assert all(low <= y <= high for low, y, high in zip(*(calibration[k] for k in ("low", "y", "high")), strict=True))


def test_constant_probability_does_not_break(make_table, same_threshold):
    y = np.arange(40) % 2 == 0
    table = make_table(y, {"net": np.full(40, 0.5)})
    found = evaluate(table, positive="ill", thresholds=same_threshold(table), bootstraps=40)["net"]
    assert found["auc"].value == 0.5
    assert math.isnan(found["calibration_slope"].value)
    assert curves(table, positive="ill", thresholds=same_threshold(table), bootstraps=40)["net"]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: {"positive": "sick"}, "no column"),
        (lambda t: {"thresholds": {}}, "no operating point"),
        (lambda t: {"bootstraps": -1}, "bootstrap draws"),
        (lambda t: {"table": PredictionTable.concatenate([t, t])}, "several predictions"),
        (lambda t: {"table": replace(t, probabilities=t.probabilities * np.nan)}, "no number"),
        (lambda t: {"table": replace(t, label=np.full(len(t), ""))}, "known outcome"),
        (lambda t: {"table": replace(t, split=np.where(t.fold == 0, "holdout", t.split))}, "several splits"),
    ],
)
def test_refusals(cohort, make_table, same_threshold, change, match):
    table = make_table(cohort[0], {"net": cohort[1]})
    asked = {"table": table, "positive": "ill", "thresholds": same_threshold(table), "bootstraps": 5}
    with pytest.raises(StatisticsError, match=match):
        evaluate(**(asked | change(table)))


def test_unknown_metric_names_the_nearest():
    with pytest.raises(StatisticsError, match="did you mean 'sensitivity'"):
        value("sensitvity", None)


def test_large_tables_get_fewer_draws_of_costly_measures_only(make_table, same_threshold):
    random = np.random.default_rng(2)
    y = random.random(5000) < 0.5
    table = make_table(y, {"net": np.clip(random.normal(0.3 + 0.4 * y, 0.2), 0.01, 0.99)})
    found = evaluate(table, positive="ill", thresholds=same_threshold(table), bootstraps=300)["net"]
    assert "250 draws" in found["ici"].method
    assert "300 draws" in found["brier"].method
