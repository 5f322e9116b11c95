"""Arms against each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests

from tenfold.errors import StatisticsError
from tenfold.stats.compare import clustered_mcnemar, compare_arms, holm, mcnemar
from tenfold.stats.metrics import METRICS
from tenfold.types import PredictionTable


def squash(score):
    return 1 / (1 + np.exp(-score))


def pick(comparisons, metric, arm=None):
    return next(c for c in comparisons if c.metric == metric and arm in (None, c.arm))


def test_auc_is_the_clustered_delong_of_r(roc_cal, make_table, same_threshold):
    table = make_table(roc_cal.y, {"a": squash(roc_cal.a), "b": squash(roc_cal.b)}, roc_cal.patient)
    found = compare_arms(table, positive="ill", thresholds=same_threshold(table), reference="a", bootstraps=100)
    auc = pick(found, "auc")
    assert (auc.difference.value, auc.p) == pytest.approx((0.0647006055169, 0.0803331506802), abs=1e-9)
    assert auc.difference.n == 74
    assert {c.metric for c in found} == {name for name, m in METRICS.items() if m.compared}
    assert all(c.p_holm == c.p for c in found)  # one arm: nothing to adjust
    assert "clustered by patient" in pick(found, "sensitivity").method
    assert math.isfinite(auc.to_dict()["difference"]["low"])


def test_only_shared_cases_are_compared(roc_cal, make_table, same_threshold):
    table = make_table(roc_cal.y, {"a": squash(roc_cal.a), "b": squash(roc_cal.b)})
    dropped = np.array([f"c{i}" for i in range(0, 140, 4)])
    partial = table.where(~((table.arm == "b") & np.isin(table.case, dropped)))
    neither = table.where(~np.isin(table.case, dropped))
    thresholds = same_threshold(table)
    asked = {"positive": "ill", "thresholds": thresholds, "reference": "a", "bootstraps": 30}
    for name in ("auc", "sensitivity", "brier"):
        some, none = (pick(compare_arms(t, **asked), name) for t in (partial, neither))
        assert some.difference.value == pytest.approx(none.difference.value)
        assert some.difference.n == 105


def test_paired_answers_are_aligned_by_case(make_table, same_threshold):
    """Arm b misses exactly three of the ill that a finds, and finds ten that a misses."""
    y = np.arange(60) < 40
    a, b = np.where(y, 0.8, 0.2), np.where(y, 0.9, 0.1)
    a[:10], b[10:13] = 0.3, 0.4
    table = make_table(y, {"a": a, "b": b})
    shuffled = table.where(np.random.default_rng(0).permutation(len(table)))
    found = compare_arms(shuffled, positive="ill", thresholds=same_threshold(table), reference="a", bootstraps=30)
    sensitivity = pick(found, "sensitivity")
    assert sensitivity.p == pytest.approx(0.09228515625)
    assert "exact McNemar" in sensitivity.method
    assert sensitivity.difference.value == pytest.approx(7 / 40)


def test_identical_arms_do_not_differ(roc_cal, make_table, same_threshold):
    table = make_table(roc_cal.y, {"a": roc_cal.p, "b": roc_cal.p})
    found = compare_arms(table, positive="ill", thresholds=same_threshold(table), reference="a", bootstraps=30)
    assert all(c.difference.value == 0 for c in found)
    assert all(math.isnan(c.p) or c.p == 1 for c in found)
    assert "no variance" in pick(found, "auc").method


def test_permuted_repeats_keep_clusters(roc_cal, make_table, same_threshold):
    """The same answers in two repeats are no more evidence than in one."""
    arms = {"a": roc_cal.p, "b": squash(roc_cal.b)}
    once = make_table(roc_cal.y, arms, roc_cal.patient)
    twice = PredictionTable.concatenate([make_table(roc_cal.y, arms, roc_cal.patient, repeat=r) for r in (0, 1)])
    one, two = (
        compare_arms(t, positive="ill", thresholds=same_threshold(t), reference="a", bootstraps=100)
        for t in (once, twice)
    )
    for name in ("auc", "accuracy", "brier"):
        assert pick(two, name).p == pytest.approx(pick(one, name).p)


def test_mcnemar():
    assert mcnemar(3, 10) == pytest.approx(0.09228515625)
    assert mcnemar(10, 3) == pytest.approx(statsmodels_mcnemar([[0, 10], [3, 0]], exact=True).pvalue)
    assert mcnemar(5, 5) == mcnemar(0, 0) == 1.0


def test_clustered_mcnemar_of_single_answers_is_the_plain_chi_square():
    gains = np.repeat([1.0, -1.0, 0.0], [3, 10, 20])
    plain = statsmodels_mcnemar([[0, 3], [10, 0]], exact=False, correction=False).pvalue
    assert clustered_mcnemar(gains) == pytest.approx(plain)
    assert clustered_mcnemar(2 * gains) == pytest.approx(plain)


def test_holm_is_that_of_statsmodels():
    p = [0.01, 0.04, 0.03, 0.5]
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    adjusted = holm([0.01, math.nan, 0.04])
    assert adjusted[0] == 0.02
    assert math.isnan(adjusted[1])


def test_holm_within_a_metric(roc_cal, make_table, same_threshold):
    arms = {"a": roc_cal.p, "b": squash(roc_cal.b), "c": squash(roc_cal.b - roc_cal.a)}
    table = make_table(roc_cal.y, arms)
    found = compare_arms(table, positive="ill", thresholds=same_threshold(table), reference="a", bootstraps=60)
    auc = [c for c in found if c.metric == "auc"]
    assert [c.p_holm for c in auc] == pytest.approx(holm([c.p for c in auc]))
    assert any(c.p_holm > c.p for c in auc)


def test_unknown_reference_names_the_nearest(roc_cal, make_table, same_threshold):
    table = make_table(roc_cal.y, {"vgg16": roc_cal.p})
    with pytest.raises(StatisticsError, match="did you mean 'vgg16'"):
        compare_arms(table, positive="ill", thresholds=same_threshold(table), reference="vg16")


def test_arms_without_a_shared_case(roc_cal, make_table, same_threshold):
    table = make_table(roc_cal.y, {"a": roc_cal.p, "b": roc_cal.p})
    odd = np.array([int(c[1:]) % 2 for c in table.case], bool)
    apart = table.where(odd == (table.arm == "a"))
    with pytest.raises(StatisticsError, match="share no case"):
        compare_arms(apart, positive="ill", thresholds=same_threshold(table), reference="a")
