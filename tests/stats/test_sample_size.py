"""Sample sizes: the published figures, and simulation where there are none."""

from __future__ import annotations

import math

import numpy as np
import pytest
import statsmodels.api as sm

from tenfold.errors import StatisticsError
from tenfold.stats import roc
from tenfold.stats.sample_size import _normal_predictor, auc_width, r2_from_auc, riley_binary, validation_size


def test_rileys_published_example():
    found = riley_binary(0.288, 24, 0.174)
    assert found.largest_r2 == pytest.approx(0.60320867, abs=5e-9)
    assert (found.for_shrinkage, found.for_optimism, found.for_prevalence, found.n) == (623, 662, 221, 662)


def test_the_r2_of_an_auc_is_that_of_a_simulated_logistic_model():
    random = np.random.default_rng(1)
    y = np.arange(200_000) < 40_000
    x = random.normal(math.sqrt(2) * 0.8416212 * y, 1)  # AUC 0.8
    fit = sm.GLM(y.astype(float), sm.add_constant(x), family=sm.families.Binomial()).fit()
    simulated = 1 - math.exp((fit.deviance - fit.null_deviance) / len(y))
    assert r2_from_auc(0.8, 0.2) == pytest.approx(simulated, abs=0.004)
    assert r2_from_auc(0.5001, 0.2) == pytest.approx(0, abs=1e-6)
    # Riley's criterion 1 of samplesizedev's README: p 0.2, C 0.85, 10 predictors.
    assert riley_binary(r2_from_auc(0.85, 0.2), 10, 0.2).for_shrinkage == pytest.approx(305, rel=0.03)


def test_the_width_of_an_auc_is_that_of_delong_in_such_data():
    random = np.random.default_rng(2)
    y = np.arange(4000) < 1600
    # Hanley and McNeil's assumption: exponential scores, here of an AUC of 0.8.
    found = roc.auc_interval(y, random.exponential(np.where(y, 4.0, 1.0)))
    expected = auc_width(1600, 2400, found.value)
    assert expected.width == pytest.approx(found.high - found.low, rel=0.05)
    assert auc_width(160, 240, 0.8).width == pytest.approx(math.sqrt(10) * auc_width(1600, 2400, 0.8).width, rel=0.01)
    assert auc_width(5, 5, 0.97).high == 1


def test_pavlous_published_example():
    found = validation_size(0.1, 0.75)
    assert found.for_auc == 1028  # 1027.1
    assert found.n == found.for_slope == pytest.approx(1536, rel=0.02)
    # The mirror image asks for as many.
    assert validation_size(0.9, 0.75).n == pytest.approx(found.n, abs=2)


@pytest.mark.parametrize("auc", [0.6, 0.75, 0.95])
def test_the_standard_errors_come_out_as_asked_for(auc):
    size = validation_size(0.3, auc)
    drawn = np.random.default_rng(0).normal(size=60_000)
    predictor = np.interp(drawn, np.linspace(-8, 8, 4001), _normal_predictor(0.3, auc))
    y = np.random.default_rng(1).random(60_000) < 1 / (1 + np.exp(-predictor))
    assert y.mean() == pytest.approx(0.3, abs=0.01)
    assert roc.auc(y, predictor) == pytest.approx(auc, abs=0.01)
    fit = sm.GLM(y.astype(float), sm.add_constant(predictor), family=sm.families.Binomial()).fit()
    assert fit.bse[1] * math.sqrt(60_000 / size.for_slope) == pytest.approx(0.1, rel=0.04)


@pytest.mark.parametrize(
    "ask",
    [
        lambda: riley_binary(0.61, 24, 0.174),
        lambda: riley_binary(0.2, 0, 0.174),
        lambda: riley_binary(0.2, 5, 1.0),
        lambda: r2_from_auc(0.5, 0.2),
        lambda: auc_width(0, 10, 0.8),
        lambda: auc_width(10, 10, 1.0),
        lambda: validation_size(0.1, 0.75, se_auc=0),
    ],
)
def test_impossible_figures_are_refused(ask):
    with pytest.raises(StatisticsError, match="Expected"):
        ask()
