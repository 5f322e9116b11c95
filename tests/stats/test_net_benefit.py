"""Net benefit against dcurves and R."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from tenfold.errors import StatisticsError
from tenfold.stats.net_benefit import interventions_avoided, net_benefit, treat_all


@pytest.mark.shared
def test_dcurves(shared_data):
    with (shared_data / "reference" / "decision_curve_binary.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    y = np.array([r["cancer"] == "True" for r in rows])
    p = np.array([float(r["cancerpredmarker"]) for r in rows])
    history = np.array([float(r["famhistory"]) for r in rows])
    expected = {
        0.05: 0.1055438596,
        0.10: 0.0874074074,
        0.15: 0.0792156863,
        0.20: 0.0673333333,
        0.25: 0.0640000000,
        0.35: 0.0501538462,
    }
    assert {t: net_benefit(y, p, t) for t in expected} == pytest.approx(expected, abs=1e-10)
    assert treat_all(y, 0.25) == pytest.approx(-0.1466666667, abs=1e-10)
    assert net_benefit(y, history, 0.10) == pytest.approx(0.0185185185, abs=1e-10)
    assert interventions_avoided(y, p, 0.25) == pytest.approx(0.632, abs=1e-10)


def test_own_data(roc_cal):
    expected = {0.1: 0.275396825397, 0.2: 0.205357142857, 0.3: 0.14387755102, 0.4: 0.102380952381, 0.5: 0.0214285714286}
    assert {t: net_benefit(roc_cal.y, roc_cal.p, t) for t in expected} == pytest.approx(expected, abs=1e-11)
    assert treat_all(roc_cal.y, 0.4) == pytest.approx(-0.0833333333333, abs=1e-12)


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.2, np.nan])
def test_threshold_is_a_probability(threshold, roc_cal):
    with pytest.raises(StatisticsError, match="threshold probability"):
        net_benefit(roc_cal.y, roc_cal.p, threshold)
