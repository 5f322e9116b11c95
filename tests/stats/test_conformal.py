"""Conformal sets: the published ranges, the promise kept by class, and too few cases."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import beta

from tenfold.errors import StatisticsError
from tenfold.stats import conformal
from tenfold.stats.proportions import wilson
from tenfold.types import PredictionTable

CLASSES = ("healthy", "ill")


def _draw(n: int, seed: int, prevalence: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    y = random.random(n) < prevalence
    p = 1 / (1 + np.exp(-random.normal(2.4 * y - 2, 1)))
    return np.stack([1 - p, p], axis=1), y.astype(np.int64)


@pytest.mark.parametrize(
    ("n", "low", "high"),
    [(19, 0.774, 0.981), (30, 0.805, 0.972), (50, 0.826, 0.960), (100, 0.848, 0.945), (200, 0.864, 0.933)],
)
def test_the_range_of_realised_coverage_is_the_published_one(n, low, high):
    assert conformal.coverage_range(n, 0.1) == pytest.approx((low, high), abs=5e-4)


def test_coverage_of_each_class_follows_its_beta_law():
    """Also of the rare class, which marginal sets would miss most of."""
    new, truth = _draw(20_000, 99)
    covered = []
    for seed in range(200):
        p, y = _draw(150, seed)
        p, y = np.concatenate([p[y == 0][:60], p[y == 1][:19]]), np.repeat([0, 1], [60, 19])
        sets = conformal.fit(p, y, classes=CLASSES, alpha=0.1).sets(new)
        covered.append([sets[truth == k, k].mean() for k in (0, 1)])
    for k, n in enumerate((60, 19)):
        rank = math.ceil((n + 1) * 0.9)
        law = beta(rank, n + 1 - rank)
        got = np.array(covered)[:, k]
        assert got.mean() == pytest.approx(law.mean(), abs=4 * law.std() / math.sqrt(200))
        assert got.std() == pytest.approx(law.std(), rel=0.25)


def test_the_quantile_is_the_ranked_score():
    p = np.linspace(0.05, 0.95, 19)
    fitted = conformal.fit(np.stack([1 - p, p], axis=1), np.ones(19, np.int64), classes=CLASSES, alpha=0.1)
    assert fitted.quantiles[1] == pytest.approx(0.90)  # the 18th smallest of 1 - p
    assert fitted.n == (0, 19)
    assert fitted.sets(np.array([[0.9, 0.1], [0.91, 0.09]]))[:, 1].tolist() == [True, False]


@pytest.mark.parametrize(("alpha", "needed"), [(0.1, 9), (0.05, 19), (0.01, 99)])
def test_a_class_with_too_few_cases_is_always_included_and_said(alpha, needed):
    p = np.full((needed - 1, 2), 0.5)
    fitted = conformal.fit(p, np.ones(needed - 1, np.int64), classes=CLASSES, alpha=alpha)
    assert fitted.sets(np.array([[1.0, 0.0]])).all()
    assert f"ill ({needed - 1})" in fitted.method
    assert fitted.ranges[1] == (1, 1)
    p = np.full((needed, 2), 0.5)
    fitted = conformal.fit(p, np.ones(needed, np.int64), classes=CLASSES, alpha=alpha)
    assert not fitted.sets(np.array([[1.0, 0.0]]))[0, 1]
    assert "ill" not in fitted.method


def test_it_survives_the_bundle_to_the_letter():
    p, y = _draw(300, 1)
    fitted = conformal.fit(p, y, classes=CLASSES, alpha=0.1)
    again = conformal.Conformal.from_state(json.loads(json.dumps(fitted.state())))
    assert again == fitted
    row = fitted.to_dict()["classes"]["ill"]
    assert (row["quantile"], row["n"], tuple(row["range"])) == (fitted.quantiles[1], fitted.n[1], fitted.ranges[1])


def test_a_fold_has_no_say_in_its_own_sets(make_table):
    p, y = _draw(400, 3, prevalence=0.4)
    table = make_table(y == 1, {"net": p[:, 1]}, folds=4)
    found = conformal.realised_out_of_fold(table)
    sets = np.zeros((400, 2), bool)
    for k in range(4):
        kept = table.fold == k
        sets[kept] = conformal.fit(p[~kept], y[~kept], classes=CLASSES).sets(p[kept])
    for k, name in enumerate(CLASSES):
        share, n = sets[y == k, k].mean(), int((y == k).sum())
        estimate = found.coverage[name]
        assert (estimate.value, estimate.n) == (pytest.approx(share), n)
        assert (estimate.low, estimate.high) == pytest.approx(wilson(share, n))
        assert "the other folds" in estimate.method
    assert found.sizes["one"] == pytest.approx((sets.sum(axis=1) == 1).mean())
    assert sum(found.sizes.values()) == pytest.approx(1)


def test_copies_of_patients_do_not_narrow_the_interval_and_repeats_are_averaged(make_table):
    p, y = _draw(100, 4, prevalence=0.5)
    fitted = conformal.fit(*_draw(100, 5, prevalence=0.5), classes=CLASSES)
    once = conformal.realised(fitted, make_table(y == 1, {"net": p[:, 1]})).coverage["ill"]
    twice = make_table(np.tile(y == 1, 2), {"net": np.tile(p[:, 1], 2)}, patient=np.tile(np.arange(100), 2))
    clustered = conformal.realised(fitted, twice).coverage["ill"]
    assert clustered.high - clustered.low >= once.high - once.low - 1e-12
    assert "clustered by patient" in clustered.method
    both = PredictionTable.concatenate([make_table(y == 1, {"net": p[:, 1]}, repeat=r) for r in (0, 1)])
    repeated = conformal.realised(fitted, both).coverage["ill"]
    assert (repeated.low, repeated.high) == pytest.approx((once.low, once.high))
    assert "mean of 2 repeats" in repeated.method


def test_impossible_requests_are_refused(make_table):
    p, y = _draw(60, 6)
    table = make_table(y == 1, {"net": p[:, 1], "other": p[:, 0]})
    with pytest.raises(StatisticsError, match="alpha = 0"):
        conformal.fit(p, y, classes=CLASSES, alpha=0)
    with pytest.raises(StatisticsError, match="59 labels"):
        conformal.fit(p, y[1:], classes=CLASSES)
    with pytest.raises(StatisticsError, match="2 arms"):
        conformal.realised_out_of_fold(table)
    one = table.select(arm="net")
    with pytest.raises(StatisticsError, match="one fold only"):
        conformal.realised_out_of_fold(replace(one, fold=np.zeros(60, np.int64)))
    fitted = conformal.fit(p, y, classes=("no", "yes"))
    with pytest.raises(StatisticsError, match="no, yes"):
        conformal.realised(fitted, one)
