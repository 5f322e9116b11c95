"""Table 2: the right test for the variable, against other implementations; effects that mean what they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats as st
from statsmodels.stats.multitest import multipletests

from tenfold.errors import StatisticsError
from tenfold.stats.group_tests import benjamini_hochberg, compare_groups


def test_numbers_by_mann_whitney_with_cliffs_delta():
    random = np.random.default_rng(0)
    group = np.arange(90) < 30
    x = random.lognormal(0.6 * group, 1)
    x[[3, 50]] = np.nan
    found = compare_groups(x, group, "number")
    a, b = x[group & ~np.isnan(x)], x[~group & ~np.isnan(x)]
    assert found.p == pytest.approx(st.mannwhitneyu(a, b).pvalue)
    assert found.n == (29, 59)
    assert found.effect.value == pytest.approx(np.sign(a[:, None] - b[None, :]).mean())
    assert found.effect.low < found.effect.value < found.effect.high
    assert found.effect.n == 88
    # A monotone transformation, as between units, changes nothing.
    assert compare_groups(np.log(x), group, "number").effect == found.effect
    assert compare_groups(x, ~group, "number").effect.value == pytest.approx(-found.effect.value)


def test_few_without_ties_are_exact_and_ties_are_corrected_for():
    found = compare_groups(np.arange(10.0), np.arange(10) >= 6, "number")
    assert found.p == pytest.approx(2 / 210)  # one order out of choose(10, 4), both sides
    assert "exact" in found.test
    assert found.effect.value == 1
    assert found.effect.low < 1
    tied = compare_groups(np.array([1, 1, 2, 2, 3, 3, 3, 1, 2.0]), np.arange(9) < 4, "ordered")
    assert "ties" in tied.test
    assert tied.p == pytest.approx(st.mannwhitneyu([1, 1, 2, 2], [3, 3, 3, 1, 2], method="asymptotic").pvalue)


def test_the_interval_of_delta_covers():
    truth = 2 * st.norm.cdf(0.5 / math.sqrt(2)) - 1
    random = np.random.default_rng(3)
    group = np.arange(80) < 35
    ends = [compare_groups(random.normal(0.5 * group), group, "number").effect for _ in range(300)]
    assert 0.91 <= np.mean([e.low <= truth <= e.high for e in ends]) <= 0.98


def test_categories_by_chi_square_as_in_the_textbook():
    # Agresti: party by gender, 762 327 468 / 484 239 477, chi-square 30.07 on 2 degrees of freedom.
    counts = [[762, 327, 468], [484, 239, 477]]
    level = np.concatenate([np.repeat(["dem", "ind", "rep"], row) for row in counts])
    group = np.repeat([True, False], [sum(row) for row in counts])
    found = compare_groups(level, group, "category")
    assert found.statistic == pytest.approx(30.070, abs=5e-4)
    assert found.p == pytest.approx(st.chi2.sf(found.statistic, 2))
    assert found.effect.value == pytest.approx(math.sqrt(found.statistic / 2757))
    # Both ends give back the share of statistics beyond the one observed.
    for end, share in ((found.effect.low, 0.975), (found.effect.high, 0.025)):
        assert st.ncx2.cdf(found.statistic, 2, 2757 * end**2) == pytest.approx(share, abs=1e-6)


def test_small_cells_are_tested_exactly():
    tea = compare_groups(np.array([1, 1, 1, 0, 1, 0, 0, 0.0]), np.arange(8) < 4, "yes_no")
    assert tea.p == pytest.approx(0.4857, abs=5e-5)  # Fisher's lady
    assert "2.0 cases expected" in tea.test
    # 3 x 2: R's fisher.test(matrix(c(3,0,1, 1,5,3), 3)) is the sum over 24 tables of these margins.
    level, group = np.repeat([0, 1, 2, 0, 1, 2], [3, 0, 1, 1, 5, 3]).astype(float), np.arange(13) < 4
    chance = {}
    for a in range(5):
        for b in range(5 - a):
            if 4 - a - b <= 4:
                chance[a, b] = math.comb(4, a) * math.comb(5, b) * math.comb(4, 4 - a - b) / math.comb(13, 4)
    exact = sum(v for v in chance.values() if v <= chance[3, 0] * (1 + 1e-9))
    found = compare_groups(level, group, "category")
    assert found.p == pytest.approx(exact, abs=0.015)
    assert "Freeman-Halton" in found.test


def test_the_interval_of_cramers_v_covers_also_without_any_difference():
    random = np.random.default_rng(5)
    group = np.arange(200) < 100
    for rates, levels in (((0.4, 0.4), 2), ((0.3, 0.55), 2), ((0.3, 0.3), 3)):
        share = np.stack([np.append(np.full(levels - 1, (1 - r) / (levels - 1)), r) for r in rates])
        middle = share.mean(axis=0)
        truth = math.sqrt(((share - middle) ** 2 / middle).sum() / 2)
        hits, inside = 0, 0
        for _ in range(200):
            level = np.where(
                group, random.choice(levels, 200, p=share[0]), random.choice(levels, 200, p=share[1])
            ).astype(float)
            v = compare_groups(level, group, "category").effect
            hits += v.low <= truth + 1e-12 and truth <= v.high
            inside += v.low <= v.value <= v.high
        assert hits >= 183
        assert inside == 200


def test_missing_text_is_left_out_and_counted():
    level = np.array(["boy", "", "girl", "girl", "", "boy"] * 10)
    found = compare_groups(level, np.arange(60) < 24, "yes_no")
    assert sum(found.n) == 40
    assert found.test.startswith("chi-square")


def test_nothing_to_compare_is_said_and_not_refused():
    group = np.arange(20) < 8
    alike = compare_groups(np.full(20, 3.0), group, "number")
    assert "alike" in alike.test
    assert math.isnan(alike.p)
    assert math.isnan(alike.effect.value)
    assert alike.to_dict()["p"] is None
    lone = compare_groups(np.where(group, np.nan, np.arange(20)), group, "number")
    assert "no known value" in lone.test
    assert lone.n == (0, 12)


def test_p_are_adjusted_together_and_untested_ones_do_not_count():
    p = [0.01, 0.04, math.nan, 0.03, 0.2, 0.03]
    adjusted = benjamini_hochberg(p)
    assert math.isnan(adjusted[2])
    tested = [i for i in range(6) if i != 2]
    assert [adjusted[i] for i in tested] == pytest.approx(multipletests([p[i] for i in tested], method="fdr_bh")[1])


def test_impossible_requests_are_refused():
    with pytest.raises(StatisticsError, match="did you mean 'number'"):
        compare_groups(np.ones(3), np.ones(3, bool), "numbr")
    with pytest.raises(StatisticsError, match="text where a number"):
        compare_groups(np.array(["a", "b"]), np.array([True, False]), "number")
    with pytest.raises(StatisticsError, match="a case"):
        compare_groups(np.ones(3), np.ones(4, bool), "number")
