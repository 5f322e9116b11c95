"""Classical models: they learn, choose by patient, say the same twice, and refuse what they cannot take."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from tenfold.errors import TrainingError
from tenfold.stats.calibration import log_odds
from tenfold.training.classical import MODELS, cpm_edges, fit_classical, inner_folds, refit, takes_nan
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


# --- far more features than cases ------------------------------------------------------------------------------


def _wide(n: int = 40, features: int = 300, seed: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training edges of unlike scale with a constant one, their outcomes, and new cases."""
    random = np.random.default_rng(seed)
    y = np.arange(n + 25) % 2 == 1
    x = random.normal(size=(n + 25, features)) + 0.4 * y[:, None] * random.normal(size=features)
    x = 3 + x * random.uniform(0.1, 5, features)
    x[:, 7] = 2.5
    return x[:n], y[:n], x[n:]


@pytest.mark.parametrize("features", [300, 12])
@pytest.mark.parametrize("c", [0.1, 100.0])
def test_linear_models_in_the_span_of_the_cases_are_those_of_the_raw_features(features: int, c: float) -> None:
    x, y, new = _wide(features=features)
    call = {"groups": np.arange(40), "seed": 0, "search": [{"C": c}]}
    scaler = StandardScaler().fit(x)
    raw = LogisticRegression(C=c / features, tol=1e-10, max_iter=10_000).fit(scaler.transform(x), y)
    ours = fit_classical("logistic_regression", x, y, **call).scores(new)[:, 1]
    assert np.ptp(ours) > 0.1
    np.testing.assert_allclose(ours, raw.decision_function(scaler.transform(new)), atol=1e-4)
    machine = SVC(C=c / features, kernel="linear", tol=1e-6).fit(scaler.transform(x), y)
    fit = fit_classical("linear_svm", x, y, **call)
    margins = (fit.scores(new)[:, 1] - fit.chosen["intercept"]) / fit.chosen["slope"]
    np.testing.assert_allclose(margins, machine.decision_function(scaler.transform(new)), atol=2e-3)


def test_the_nearest_neighbours_are_those_of_standardised_features() -> None:
    x, y, new = _wide()
    neighbours = make_pipeline(StandardScaler(), KNeighborsClassifier(5)).fit(x, y)
    share = neighbours.predict_proba(new)[:, 1].clip(1 / 7, 6 / 7)
    ours = fit_classical("knn", x, y, np.arange(40), seed=0, search=[{"k": 5}]).scores(new)[:, 1]
    np.testing.assert_allclose(ours, np.log(share / (1 - share)), atol=1e-9)
    # more neighbours than cases are all the cases
    every = fit_classical("knn", x, y, np.arange(40), seed=0, search=[{"k": 999}]).scores(new)[:, 1]
    np.testing.assert_allclose(every, 0, atol=1e-9)


@pytest.mark.parametrize("threshold", [0.01, 0.05])
def test_cpm_chooses_the_edges_whose_correlation_passes_the_test(threshold: float) -> None:
    x, y, _ = _wide()
    stronger, weaker = cpm_edges(x, y, threshold)
    for edge in range(300):
        found = pearsonr(x[:, edge], y) if edge != 7 else None
        passes = found is not None and found.pvalue < threshold
        assert stronger[edge] == (passes and found.statistic > 0)
        assert weaker[edge] == (passes and found.statistic < 0)
    assert stronger.sum() > 2
    assert weaker.sum() > 2


def test_cpm_hears_the_chosen_edges_of_a_new_case_and_no_other() -> None:
    x, y, new = _wide()
    settings = [{"threshold": 0.05}]
    fit = fit_classical("cpm", x, y, np.arange(40), seed=0, search=settings)
    before = fit.scores(new)[:, 1]
    chosen = np.any(cpm_edges(x, y, 0.05), axis=0)
    altered = new.copy()
    altered[3, ~chosen] += 1000
    np.testing.assert_allclose(fit.scores(altered)[:, 1], before)
    altered[3, np.flatnonzero(chosen)[0]] += 1000
    assert np.flatnonzero(~np.isclose(fit.scores(altered)[:, 1], before)).tolist() == [3]
    # what is asked of a case does not hang on who is asked about beside it
    np.testing.assert_allclose(fit.scores(new[3:4])[:, 1], before[3:4])


def test_cpm_of_noise_is_chance_though_its_own_cases_fit_without_a_fault() -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(60, 2000)), np.arange(60) % 2 == 1
    new, truth = random.normal(size=(400, 2000)), np.arange(400) % 2 == 1
    fit = fit_classical("cpm", x, y, np.arange(60), seed=0)
    assert roc_auc_score(y, fit.scores(x)[:, 1]) in (0.0, 1.0)
    assert 0.4 < roc_auc_score(truth, fit.scores(new)[:, 1]) < 0.6
    assert 0.25 < fit.chosen["inner_auc"] < 0.75


def test_cpm_without_an_edge_to_choose_says_the_prevalence() -> None:
    random = np.random.default_rng(1)
    x, y = random.normal(size=(40, 3)), np.arange(40) % 4 == 1
    assert not np.any(cpm_edges(x, y, 1e-12))
    scores = fit_classical("cpm", x, y, np.arange(40), seed=0, search=[{"threshold": 1e-12}]).scores(x)[:, 1]
    np.testing.assert_allclose(scores, np.log(0.25 / 0.75), atol=0.05)


@pytest.mark.parametrize("name", ["logistic_regression", "linear_svm", "knn", "cpm"])
def test_eight_cases_are_enough_to_be_fitted(name: str) -> None:
    x, y, new = _wide(n=8)
    assert np.isfinite(fit_classical(name, x, y, np.arange(8), seed=0).scores(new)).all()
