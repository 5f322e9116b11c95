"""Classical models: they learn, choose by patient, say the same twice, and refuse what they cannot take."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tenfold.errors import TrainingError
from tenfold.stats.calibration import log_odds
from tenfold.training.classical import MODELS, fit_classical, inner_folds, refit, takes_nan
from tenfold.types import Calibration


def _cohort(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, 6))
    odds = 1.5 * x[:, 0] - 1.2 * x[:, 1]
    return x, random.random(n) < 1 / (1 + np.exp(-odds)), odds


@pytest.fixture(scope="module")
def train() -> tuple[np.ndarray, np.ndarray]:
    return _cohort(160, 0)[:2]


@pytest.mark.parametrize("name", MODELS)
def test_every_model_learns_in_log_odds_and_is_refitted_to_the_letter(name, train) -> None:
    x, y = train
    fit = fit_classical(name, x, y, np.arange(160), seed=3, search=MODELS[name].grid[:2])
    new, truth, odds = _cohort(1500, 1)
    scores = fit.scores(new)
    assert scores.shape == (1500, 2)
    assert not scores[:, 0].any()
    area = roc_auc_score(truth, scores[:, 1])
    assert area > (0.68 if name == "decision_tree" else roc_auc_score(truth, odds) - 0.08)
    p = Calibration().apply(scores)[:, 1]
    # Log odds in fact: no worse than saying the prevalence, which margins or votes read as odds would be.
    assert -np.log(np.where(truth, p, 1 - p)).mean() < 0.69
    np.testing.assert_allclose(log_odds(p), scores[:, 1], atol=1e-6)
    again = refit(name, json.loads(json.dumps(fit.chosen)), x, y, seed=3)
    np.testing.assert_array_equal(again.scores(new), scores)
    assert fit.chosen["tried"] == 2
    assert fit.chosen["settings"] in MODELS[name].grid


def test_the_settings_with_the_best_inner_auc_are_chosen_and_the_simpler_of_equals(train) -> None:
    x, y = train
    stump, whole = {"max_depth": 1, "min_samples_leaf": 5}, {"max_depth": 4, "min_samples_leaf": 5}
    alone = {
        depth["max_depth"]: fit_classical("decision_tree", x, y, np.arange(160), seed=0, search=[depth])
        for depth in (stump, whole)
    }
    both = fit_classical("decision_tree", x, y, np.arange(160), seed=0, search=[stump, whole])
    assert both.chosen["inner_auc"] == max(fit.chosen["inner_auc"] for fit in alone.values())
    assert both.chosen["settings"] == max((stump, whole), key=lambda s: alone[s["max_depth"]].chosen["inner_auc"])
    # A leaf size that changes nothing: equally good, so the first wins.
    equal = {"max_depth": 1, "min_samples_leaf": 6}
    assert (
        fit_classical("decision_tree", x, y, np.arange(160), seed=0, search=[stump, equal]).chosen["settings"] == stump
    )


def test_inner_folds_divide_no_patient_and_hold_both_classes() -> None:
    random = np.random.default_rng(5)
    patients = random.integers(0, 25, 90)
    outcome = np.isin(patients, (1, 4, 9, 16)) & (random.random(90) < 0.8)
    fold = inner_folds(outcome, patients, seed=0)
    assert set(fold.tolist()) == {0, 1, 2}
    for patient in range(25):
        assert len(set(fold[patients == patient].tolist())) <= 1
    for k in range(3):
        assert 0 < outcome[fold == k].sum() < (fold == k).sum()
    assert (fold != inner_folds(outcome, patients, seed=1)).any()


def test_copies_of_a_patient_are_no_inner_evidence() -> None:
    random = np.random.default_rng(2)
    x, y = random.normal(size=(40, 5)), np.arange(40) % 2
    x, y, patient = np.tile(x, (4, 1)), np.tile(y, 4), np.tile(np.arange(40), 4)
    deep = [{"max_depth": 12, "min_samples_leaf": 1}]
    assert fit_classical("decision_tree", x, y, patient, seed=0, search=deep).chosen["inner_auc"] < 0.7
    assert fit_classical("decision_tree", x, y, np.arange(160), seed=0, search=deep).chosen["inner_auc"] > 0.9


@pytest.mark.parametrize("name", MODELS)
def test_missing_numbers_are_taken_or_refused_with_their_place(name, train) -> None:
    x, y = train[0].copy(), train[1]
    x[7, 2] = np.nan
    if takes_nan(name):
        fit = fit_classical(name, x, y, np.arange(160), seed=0, search=MODELS[name].grid[:1])
        assert np.isfinite(fit.scores(np.full((1, 6), np.nan))).all()
        x[7, 2] = np.inf
    with pytest.raises(TrainingError, match="row 7, feature 2"):
        fit_classical(name, x, y, np.arange(160), seed=0)


def test_votes_never_claim_certainty(train) -> None:
    x = np.r_[np.zeros((50, 1)), np.ones((50, 1))]
    fit = fit_classical("random_forest", x, np.arange(100) >= 50, np.arange(100), seed=0)
    assert fit.scores(x)[:, 1] == pytest.approx(np.repeat([-1, 1], 50) * np.log(101))


def test_an_empty_part_has_empty_scores(train) -> None:
    fit = fit_classical("svm", *train, np.arange(160), seed=0, search=MODELS["svm"].grid[:1])
    assert fit.scores(np.zeros((0, 6))).shape == (0, 2)


def test_impossible_requests_are_refused(train) -> None:
    x, y = train
    with pytest.raises(TrainingError, match="did you mean 'xgboost'"):
        takes_nan("xgbost")
    with pytest.raises(TrainingError, match="both classes"):
        fit_classical("svm", x, np.ones(160), np.arange(160), seed=0)
    with pytest.raises(TrainingError, match="yes or no"):
        fit_classical("svm", x, np.arange(160) % 3, np.arange(160), seed=0)
    with pytest.raises(TrainingError, match="1 of 160 training patients"):
        fit_classical("svm", x, np.arange(160) == 5, np.arange(160), seed=0)
    with pytest.raises(TrainingError, match="a patient for every case"):
        fit_classical("svm", x, y, np.arange(159), seed=0)
    fit = fit_classical("svm", x, y, np.arange(160), seed=0, search=MODELS["svm"].grid[:1])
    with pytest.raises(TrainingError, match="6, as in training"):
        fit.scores(x[:, :5])
