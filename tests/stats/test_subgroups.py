"""Subgroups: each is what the whole evaluation says of its cases alone, and gaps come from paired draws."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from tenfold.errors import StatisticsError
from tenfold.stats import roc
from tenfold.stats.evaluate import evaluate
from tenfold.stats.subgroups import NOT_STATED, SHOWN, bands, subgroup_metrics
from tenfold.types import PredictionTable

N = 300


@pytest.fixture(scope="module")
def cohort(make_table, same_threshold):
    """The predictor works in boys, and hardly in girls; of some the sex is not stated."""
    random = np.random.default_rng(7)
    sex = np.array(["boy", "girl", "girl", "boy", "girl"] * 60)
    sex[290:] = ""
    y = random.random(N) < 0.45
    p = 1 / (1 + np.exp(-random.normal(np.where(sex == "girl", 0.5, 3) * (y - 0.5), 1)))
    table = make_table(y, {"net": p})
    return table, same_threshold(table, 0.4), dict(zip(table.case.tolist(), sex.tolist(), strict=True))


def _metrics(cohort, **settings):
    table, thresholds, sex = cohort
    settings = {"positive": "ill", "thresholds": thresholds, "bootstraps": 200} | settings
    return subgroup_metrics(settings.pop("table", table), settings.pop("groups", sex), **settings)


def test_a_level_is_the_evaluation_of_its_cases(cohort):
    table, thresholds, sex = cohort
    found = _metrics(cohort, metrics=(*SHOWN, "net_benefit"), net_benefit_at=0.3)
    assert [row.level for row in found.levels] == ["boy", "girl", NOT_STATED]
    for row in found.levels[:2]:
        alone = table.where(np.array([sex[c] == row.level for c in table.case]))
        expected = evaluate(alone, positive="ill", thresholds=thresholds, bootstraps=0, net_benefit_at=0.3)["net"]
        assert row.patients == len(alone)
        assert row.positives == (alone.label == "ill").sum()
        for name, estimate in row.estimates.items():
            assert estimate.value == pytest.approx(expected[name].value), name
            assert estimate.low <= estimate.value <= estimate.high, name
        for name in ("auc", "sensitivity", "specificity"):
            assert row.estimates[name] == expected[name]


def test_a_gap_has_the_interval_of_two_independent_groups(cohort):
    table, _, sex = cohort
    gap = _metrics(cohort, bootstraps=800).gaps["auc"]
    assert (gap.highest, gap.lowest) == ("boy", "girl")
    p, ill, level = table.probability("ill"), table.label == "ill", np.array([sex[c] for c in table.case])
    test = roc.unpaired_test(*(roc.placement(ill[level == s], p[level == s]) for s in ("boy", "girl")))
    assert gap.difference.value == pytest.approx(test.difference.value)
    assert gap.difference.low == pytest.approx(test.difference.low, abs=0.03)
    assert gap.difference.high == pytest.approx(test.difference.high, abs=0.03)
    assert gap.difference.n == 290


def test_a_level_that_chance_made_has_a_gap_that_may_be_nothing(cohort):
    table = cohort[0]
    coin = np.random.default_rng(3).choice(["a", "b", "c"], N)
    gap = _metrics(cohort, groups=dict(zip(table.case.tolist(), coin.tolist(), strict=True))).gaps["sensitivity"]
    assert gap.difference.low < 0 < gap.difference.value
    assert "outermost of 3 levels" in gap.difference.method


def test_small_levels_are_listed_and_not_estimated(cohort):
    few = _metrics(cohort).levels[-1]
    assert few.patients == 10
    assert all(math.isnan(e.value) for e in few.estimates.values())
    assert "fewer than 10" in few.estimates["auc"].method
    rare = {case: "rare" if i < 12 else "usual" for i, case in enumerate(cohort[0].case.tolist())}
    assert _metrics(cohort, groups=rare).gaps == {}


def test_patients_count_not_cases(cohort, make_table, same_threshold):
    table, _, _ = cohort
    y, p = table.label == "ill", table.probability("ill")
    twice = make_table(np.tile(y, 2), {"net": np.tile(p, 2)}, patient=np.tile(np.arange(N), 2))
    site = {case: "ab"[int(case[1:]) % N % 2] for case in twice.case.tolist()}
    once = {case: site[case] for case in table.case.tolist()}
    wide = _metrics(cohort, table=twice, groups=site, thresholds=same_threshold(twice, 0.4))
    narrow = _metrics(cohort, groups=once)
    for a, b in zip(wide.levels, narrow.levels, strict=True):
        assert (a.patients, a.positives) == (b.patients, b.positives)
        for name in ("auc", "sensitivity", "calibration_slope"):
            assert a.estimates[name].high - a.estimates[name].low >= 0.999 * (
                b.estimates[name].high - b.estimates[name].low
            )
    gaps = [g.gaps["auc"].difference for g in (wide, narrow)]
    assert gaps[0].high - gaps[0].low == pytest.approx(gaps[1].high - gaps[1].low)


def test_repeats_are_averaged(cohort, make_table, same_threshold):
    table = cohort[0]
    y, p = table.label == "ill", table.probability("ill")
    both = PredictionTable.concatenate([make_table(y, {"net": q}, repeat=r) for r, q in enumerate((p, p**2))])
    found = _metrics(cohort, table=both, thresholds=same_threshold(both, 0.4))
    second = make_table(y, {"net": p**2})
    single = [_metrics(cohort), _metrics(cohort, table=second, thresholds=same_threshold(second, 0.4))]
    for name in SHOWN:
        mean = np.mean([s.levels[0].estimates[name].value for s in single])
        assert found.levels[0].estimates[name].value == pytest.approx(mean)
    assert "mean of 2 repeats" in found.gaps["auc"].difference.method


def test_it_goes_into_json_and_keeps_the_order_asked_for(cohort):
    data = json.loads(json.dumps(_metrics(cohort, levels=("girl", "boy", "other")).to_dict(), allow_nan=False))
    assert [row["level"] for row in data["levels"]] == ["girl", "boy", "other", NOT_STATED]
    assert data["levels"][2]["patients"] == 0
    assert data["levels"][2]["auc"]["value"] is None
    assert data["gaps"]["auc"].keys() == {"highest", "lowest", "difference"}


def test_numbers_are_divided_into_bands():
    names, order = bands([27.9, 28, math.nan, 31.99, 32, 40], [28, 32], "weeks")
    assert order == ("below 28 weeks", "28 weeks to below 32 weeks", "32 weeks or above")
    assert names == [order[0], order[1], "", order[1], order[2], order[2]]
    with pytest.raises(StatisticsError, match="ascending"):
        bands([1.0], [3, 3])
    with pytest.raises(StatisticsError, match="nothing"):
        bands([1.0], [])


def test_impossible_requests_are_refused(cohort, make_table, same_threshold):
    table, _, sex = cohort
    with pytest.raises(StatisticsError, match="no metric 'acu'"):
        _metrics(cohort, metrics=("acu",))
    with pytest.raises(StatisticsError, match="case c0"):
        _metrics(cohort, groups={c: s for c, s in sex.items() if c != "c0"})
    with pytest.raises(StatisticsError, match="the subgroup 'girl'"):
        _metrics(cohort, levels=("boy",))
    two = make_table(table.label == "ill", {"a": table.probability("ill"), "b": table.probability("ill")})
    with pytest.raises(StatisticsError, match="2 arms"):
        _metrics(cohort, table=two, thresholds=same_threshold(two))
