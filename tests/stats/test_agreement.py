"""Agreement against published tables, psych and statsmodels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from statsmodels.stats.inter_rater import cohens_kappa as reference_kappa

from tenfold.errors import StatisticsError
from tenfold.stats.agreement import cohen_kappa, fleiss_kappa, icc

# Shrout & Fleiss 1979, table 2: six targets, four judges
SHROUT_FLEISS = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float).T


def test_shrout_fleiss():
    found = icc(SHROUT_FLEISS)
    assert {name: x.value for name, x in found.items()} == pytest.approx(
        {
            "ICC1": 0.165741768405,
            "ICC2": 0.289763779528,
            "ICC3": 0.714840714841,
            "ICC1k": 0.442797133679,
            "ICC2k": 0.620050547599,
            "ICC3k": 0.909315542377,
        },
        abs=5e-13,
    )
    assert (found["ICC2"].low, found["ICC2"].high) == pytest.approx((0.0187865, 0.7610844), abs=5e-8)
    assert found["ICC2k"].low < found["ICC2k"].value < found["ICC2k"].high
    assert found["ICC2"].n == 6


def test_icc_interval_covers():
    """Exact for consistency under normality; that of agreement is approximate (Satterthwaite)."""
    generator, held = np.random.default_rng(11), np.zeros(3)
    for _ in range(400):
        case, reader = generator.normal(0, 1, 30), generator.normal(0, 0.5, 4)
        found = icc(case + reader[:, None] + generator.normal(0, 0.7, (4, 30)))
        for i, (name, true) in enumerate((("ICC2", 1 / (1 + 0.25 + 0.49)), ("ICC3", 1 / 1.49), ("ICC3k", 4 / 4.49))):
            held[i] += found[name].low <= true <= found[name].high
    assert ((held / 400 >= 0.92) & (held / 400 <= 0.98)).all()


def test_icc_of_readers_who_agree_fully():
    found = icc(np.tile(np.arange(5.0), (3, 1)))
    assert {x.value for x in found.values()} == {1.0}
    assert math.isnan(found["ICC2"].low)
    assert all(math.isnan(x.value) for x in icc(np.ones((3, 5))).values())


def test_cohen_table():
    first, second = np.array([(0, 0)] * 20 + [(0, 1)] * 5 + [(1, 0)] * 10 + [(1, 1)] * 15, float).T
    found = cohen_kappa(first, second)
    assert found.value == pytest.approx(0.4, abs=1e-12)
    assert (found.high - found.value) / 1.959963984540054 == pytest.approx(0.12699606, abs=5e-9)
    assert cohen_kappa(first, second, weights="quadratic").value == pytest.approx(0.4, abs=1e-12)


@pytest.mark.parametrize(("weights", "theirs"), [("none", None), ("linear", "linear"), ("quadratic", "quadratic")])
def test_weighted_kappa_as_in_statsmodels(weights, theirs):
    generator = np.random.default_rng(0)
    first = generator.integers(0, 4, 80)
    second = np.clip(first + generator.integers(-1, 2, 80), 0, 3)
    table = np.zeros((4, 4))
    np.add.at(table, (first, second), 1)
    known = reference_kappa(table, wt=theirs)
    found = cohen_kappa(first * 10.0, second * 10.0, weights=weights)
    assert found.value == pytest.approx(known.kappa, abs=1e-12)
    assert (found.high - found.value) / 1.959963984540054 == pytest.approx(known.std_kappa, abs=1e-12)


def test_fleiss_ten_cases_fourteen_raters():
    counts = """0 0 0 0 14, 0 2 6 4 2, 0 0 3 5 6, 0 3 9 2 0, 2 2 8 1 1,
                7 7 0 0 0, 3 2 6 3 0, 2 5 3 2 2, 6 5 2 1 0, 0 2 2 3 7"""
    ratings = np.array([np.repeat(range(5), [int(c) for c in row.split()]) for row in counts.split(",")], float).T
    found = fleiss_kappa(ratings)
    assert found.value == pytest.approx(0.20993070442, abs=5e-12)
    # the linearised variance is close to that of leaving out one case at a time
    without = np.array([fleiss_kappa(np.delete(ratings, i, axis=1)).value for i in range(10)])
    jackknife = math.sqrt(9 / 10 * ((without - without.mean()) ** 2).sum())
    assert (found.high - found.value) / 2.2621571628 == pytest.approx(jackknife, rel=0.1)


def test_kappa_without_variation_is_not_defined():
    same = np.ones((3, 6))
    assert math.isnan(fleiss_kappa(same).value)
    assert "same answer" in cohen_kappa(same[0], same[1]).method
    perfect = np.array([0.0, 1, 2, 0, 1, 2])
    assert cohen_kappa(perfect, perfect).value == fleiss_kappa(np.stack([perfect, perfect])).value == 1.0


def test_refusals():
    with pytest.raises(StatisticsError, match="did you mean 'linear'"):
        cohen_kappa(np.arange(4.0), np.arange(4.0), weights="lineal")
    with pytest.raises(StatisticsError, match="two or more readers"):
        fleiss_kappa(np.ones((1, 5)))
    with pytest.raises(StatisticsError, match="1 ratings are missing"):
        icc(np.where(SHROUT_FLEISS == 10, np.nan, SHROUT_FLEISS))
