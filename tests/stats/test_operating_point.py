"""Rules of the operating point, against pROC's cuts."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from tenfold.errors import StatisticsError
from tenfold.stats.operating_point import choose


def shares(y, p, threshold):
    called = p >= threshold
    return called[y].mean(), (~called[~y]).mean()


@pytest.mark.shared
def test_youden_of_asah(shared_data):
    with (shared_data / "reference" / "asah.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    y = np.array([r["outcome"] == "Poor" for r in rows])
    s100b = np.array([float(r["s100b"]) for r in rows])
    found = choose("youden", y, s100b)
    assert found.threshold == pytest.approx(0.205)
    assert shares(y, s100b, found.threshold) == pytest.approx((0.634146341463415, 0.805555555555556))


def test_youden_of_own_data(roc_cal):
    found = choose("youden", roc_cal.y, roc_cal.a)
    assert found.threshold == pytest.approx(0.55)
    assert shares(roc_cal.y, roc_cal.a, found.threshold) == pytest.approx((0.673469387755, 0.736263736264))
    assert found.n == 140


@pytest.mark.parametrize("target", [0.5, 0.8, 0.95, 1.0])
def test_target_is_reached_and_no_more_is_given_away(roc_cal, target):
    y, p = roc_cal.y, roc_cal.p
    threshold = choose("sensitivity", y, p, value=target).threshold
    assert shares(y, p, threshold)[0] >= target
    higher = np.unique(p)[np.unique(p) > threshold]
    assert shares(y, p, np.nextafter(higher[0], 2))[0] < target
    threshold = choose("specificity", y, p, value=target).threshold
    assert shares(y, p, threshold)[1] >= target
    lower = np.unique(p)[np.unique(p) < threshold]
    assert shares(y, p, lower[-1])[1] < target


def test_rules_that_need_no_data(roc_cal):
    assert choose("net_benefit", roc_cal.y, roc_cal.p, value=0.2).threshold == 0.2
    assert choose("fixed", roc_cal.y, roc_cal.p, value=0.5).rule == "fixed at 0.5"


def test_unknown_rule_names_the_nearest(roc_cal):
    with pytest.raises(StatisticsError, match="did you mean 'youden'"):
        choose("yuden", roc_cal.y, roc_cal.p)


@pytest.mark.parametrize("value", [None, 0.0, 1.2])
def test_target_must_be_a_share(roc_cal, value):
    with pytest.raises(StatisticsError, match="sensitivity"):
        choose("sensitivity", roc_cal.y, roc_cal.p, value=value)


def test_one_class_cannot_choose():
    with pytest.raises(StatisticsError, match="one class only"):
        choose("youden", np.ones(4, bool), np.linspace(0, 1, 4))
