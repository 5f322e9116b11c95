"""Connectomes of pure noise: what a preparation fitted outside the fold makes of them, and inside it does not.

None of it can be asked for in a study file. What inflates is a preparation that was told the outcomes of test cases:
ComBat that keeps the outcome, or tangent space around the healthy of all folds (Varoquaux et al. 2010 took the healthy
as the reference). One fitted on all cases without outcomes cannot: on noise, outcomes are independent of whatever it
makes of the edges. That is measured here too, so that nobody claims more. (Of real data it would still bring test cases
nearer to the training cases than a new hospital's are; hence it, too, is fitted inside.)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import t as student
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tenfold.modalities.confounds import Covariates
from tenfold.modalities.connectivity import edges_of
from tenfold.modalities.connectome import ConnectomePreparation, ConnectomeReading, numbered
from tenfold.modalities.harmonisation import Combat

CASES, REGIONS, TIMES, SITES, FOLDS, COHORTS = 60, 15, 30, 10, 5, 16

Bools = NDArray[np.bool_]
# (reading, covariates, ill, train) -> edges of all cases
Prepare = Callable[[ConnectomeReading, Covariates, Bools, Bools], NDArray[np.float64]]


def _combat(*, outside: bool, keeps_outcome: bool) -> Prepare:
    def prepare(reading: ConnectomeReading, beside: Covariates, ill: Bools, train: Bools) -> NDArray[np.float64]:
        edges = edges_of(reading.matrices).astype(np.float64)
        rows = np.arange(len(ill)) if outside else np.flatnonzero(train)
        keep = ("ill",) if keeps_outcome else ()
        fitted = Combat.fit(edges[rows], beside.take(rows), "site", keep, "pass")
        return fitted.apply(edges, beside, "pass")

    return prepare


def _tangent(*, outside: bool, healthy: bool) -> Prepare:
    def prepare(reading: ConnectomeReading, beside: Covariates, ill: Bools, train: Bools) -> NDArray[np.float64]:
        rows = np.full_like(train, True) if outside else train
        fitted = ConnectomePreparation.fit(reading, rows & ~ill if healthy else rows, space="tangent")
        return fitted.apply(reading).astype(np.float64)

    return prepare


def _regression(edges: NDArray[np.float64], ill: Bools, train: Bools) -> NDArray[np.float64]:
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01)).fit(edges[train], ill[train])
    return model.decision_function(edges[~train])


def _distance(edges: NDArray[np.float64], ill: Bools, train: Bools) -> NDArray[np.float64]:
    """How far a case is from the reference: what is fitted is the reference alone."""
    return np.linalg.norm(edges[~train], axis=1)


def _cohort(seed: int) -> tuple[ConnectomeReading, Covariates, Bools, NDArray[np.int64]]:
    """Time courses of noise: neither illness nor site does anything; the folds hold the ill evenly."""
    rng = np.random.default_rng(seed)
    matrices = np.stack([np.corrcoef(rng.standard_normal((REGIONS, TIMES))) for _ in range(CASES)])
    matrices = ((matrices + matrices.swapaxes(1, 2)) / 2).astype(np.float32)
    matrices[:, np.arange(REGIONS), np.arange(REGIONS)] = 1
    ill, fold = rng.random(CASES) < 0.5, np.empty(CASES, np.int64)
    for members in (np.flatnonzero(ill), np.flatnonzero(~ill)):
        fold[rng.permutation(members)] = np.arange(len(members)) % FOLDS
    site = np.repeat(np.arange(SITES), CASES // SITES).astype(np.str_)
    names = tuple(map(str, range(CASES)))
    beside = Covariates({"site": site, "ill": ill.astype(np.float64)}, names)
    return ConnectomeReading(matrices, numbered(REGIONS), names), beside, ill, fold


def _areas(prepare: Prepare, score: Callable[..., NDArray[np.float64]]) -> tuple[float, float, float]:
    """Cross-validated AUC: its mean over simulated cohorts, and the 95 % interval of that mean."""
    found = []
    for seed in range(COHORTS):
        reading, beside, ill, fold = _cohort(seed)
        areas = []
        for k in range(FOLDS):
            train = fold != k
            areas.append(roc_auc_score(ill[~train], score(prepare(reading, beside, ill, train), ill, train)))
        found.append(np.mean(areas))
    half = student.ppf(0.975, COHORTS - 1) * np.std(found, ddof=1) / COHORTS**0.5
    mean = float(np.mean(found))
    return mean, mean - half, mean + half


INFLATES = {
    "ComBat keeps the outcome": (
        _combat(outside=True, keeps_outcome=True),
        _combat(outside=False, keeps_outcome=False),
        _regression,
    ),
    "tangent space around the healthy": (
        _tangent(outside=True, healthy=True),
        _tangent(outside=False, healthy=True),
        _distance,
    ),
}


@pytest.mark.parametrize("what", INFLATES)
def test_what_was_told_the_outcomes_of_test_cases_finds_an_illness_in_noise(what: str) -> None:
    outside, inside, score = INFLATES[what]
    mean, low, high = _areas(inside, score)
    assert low < 0.5 < high
    assert abs(mean - 0.5) < 0.06
    _, inflated, _ = _areas(outside, score)
    assert inflated > 0.62
    assert inflated > high


@pytest.mark.parametrize("way", ["ComBat", "tangent space"])
def test_what_was_fitted_on_all_cases_without_outcomes_finds_none(way: str) -> None:
    prepare = _combat(outside=True, keeps_outcome=False) if way == "ComBat" else _tangent(outside=True, healthy=False)
    _, low, high = _areas(prepare, _regression)
    assert low < 0.5 < high
