"""Table 2: the right test for the variable, against other implementations; effects that mean what they say."""

from __future__ import annotations

import math
from itertools import combinations

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


NAMED = np.array(["nodes", "lymphoma", "metastasis"])


def test_numbers_in_three_groups_by_kruskal_wallis():
    random = np.random.default_rng(0)
    place = random.integers(0, 3, 120)
    x = np.round(random.normal(0.6 * place), 1)
    x[[3, 50]] = np.nan
    group = NAMED[place]
    group[7] = ""
    found = compare_groups(x, group, "number")
    kept = ~np.isnan(x) & (group != "")
    parts = [x[kept & (group == name)] for name in np.unique(NAMED)]
    whole = st.kruskal(*parts)
    assert (found.statistic, found.p) == pytest.approx((whole.statistic, whole.pvalue))
    assert found.n == tuple(map(len, parts))
    ranks = st.rankdata(x[kept])
    mean = [ranks[group[kept] == name].mean() for name in group[kept]]
    assert found.effect.value == pytest.approx(np.var(mean) / np.var(ranks))  # the share that lies between the groups
    assert found.effect.low < found.effect.value < found.effect.high
    assert (found.effect_name, found.effect.n) == ("epsilon squared", 117)
    # A monotone transformation, or other names, changes nothing.
    assert compare_groups(np.exp(x), np.char.replace(group, "n", "o"), "ordered").effect == found.effect


def test_few_in_a_group_are_permuted():
    x, group = np.array([1, 2, 3, 4, 9, 5, 8, 7, 6.0]), np.repeat(["a", "b", "c"], 3)
    found = compare_groups(x, group, "number")
    # Sum of squared rank sums of all 1680 divisions, counted one by one.
    sums = [
        sum(a) ** 2 + sum(b) ** 2 + (45 - sum(a) - sum(b)) ** 2
        for a in combinations(range(1, 10), 3)
        for b in combinations(sorted(set(range(1, 10)) - set(a)), 3)
    ]
    assert found.p == pytest.approx(np.mean(np.array(sums) >= 6**2 + 18**2 + 21**2))
    assert "permutation, only 3 cases" in found.test


@pytest.mark.parametrize("means", [(0, 0, 0), (0, 0.5, 1), (0, 1, 2)])
def test_the_interval_of_epsilon_squared_covers_also_without_any_difference(means):
    # The truth: 12 times the variance between the groups of the mean quantile within all of them.
    apart = np.subtract.outer(means, means) / math.sqrt(2)
    truth = 12 * np.var(st.norm.cdf(apart).mean(axis=1))
    random = np.random.default_rng(3)
    place = np.arange(75) % 3
    ends = [compare_groups(random.normal(np.array(means)[place]), NAMED[place], "number").effect for _ in range(120)]
    assert np.mean([e.low <= truth <= e.high for e in ends]) >= 0.9


def test_categories_in_three_groups():
    counts = [[762, 327, 468], [484, 239, 477], [80, 60, 100]]
    level = np.concatenate([np.repeat(["dem", "ind", "rep"], row) for row in counts])
    group = np.repeat(NAMED, [sum(row) for row in counts])
    found = compare_groups(level, group, "category")
    chi = st.chi2_contingency(counts)
    assert (found.statistic, found.p) == pytest.approx((chi.statistic, chi.pvalue))
    assert found.effect.value == pytest.approx(st.contingency.association(np.array(counts), "cramer"))
    assert st.ncx2.cdf(found.statistic, 4, 2 * len(level) * found.effect.low**2) == pytest.approx(0.975, abs=1e-6)
    few = compare_groups(np.array([1, 1, 1, 0, 0, 0, 1, 0, 0.0]), np.repeat(NAMED, 3), "yes_no")
    # 3, 0 and 1 of three: of the 126 ways to place four among nine, those no likelier than this one.
    ways = {
        (a, b): math.comb(3, a) * math.comb(3, b) * math.comb(3, 4 - a - b)
        for a in range(4)
        for b in range(4)
        if 0 <= 4 - a - b <= 3
    }
    assert few.p == pytest.approx(sum(v for v in ways.values() if v <= ways[3, 0]) / 126, abs=0.015)
    assert "Freeman-Halton" in few.test
    assert few == compare_groups(np.array([1, 1, 1, 0, 0, 0, 1, 0, 0.0]), np.repeat(NAMED, 3), "yes_no")


def test_two_names_are_tested_as_a_group_and_the_rest():
    random = np.random.default_rng(2)
    member, x = random.random(80) < 0.4, random.normal(size=80)
    named, plain = compare_groups(x, np.where(member, "a", "b"), "number"), compare_groups(x, member, "number")
    # Kruskal-Wallis of two groups is Mann-Whitney without its correction for continuity.
    assert named.p == pytest.approx(plain.p, abs=0.01)
    assert "one group only" in compare_groups(x, np.full(80, "a"), "number").test
    assert "no known value" in compare_groups(np.where(member, x, np.nan), np.where(member, "a", "b"), "number").test


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
