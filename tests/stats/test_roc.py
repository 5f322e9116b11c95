"""AUC, its variances and tests, against pROC, MRMCaov's data, and Obuchowski's method in R."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc

from tenfold.errors import StatisticsError
from tenfold.stats import roc


@pytest.fixture(scope="module")
def asah(shared_data):
    with (shared_data / "reference" / "asah.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    columns = {c: np.array([float(r[c]) for r in rows]) for c in ("s100b", "ndka", "wfns")}
    return (
        np.array([r["outcome"] == "Poor" for r in rows]),
        columns,
        np.array([r["gender"] == "Female" for r in rows]),
    )


@pytest.mark.shared
@pytest.mark.parametrize(
    ("score", "auc", "variance", "low", "high"),
    [
        ("s100b", 0.731368563685637, 0.00266868245717244, 0.630118211761623, 0.832618915609651),
        ("ndka", 0.611957994579946, 0.0031908105493913, 0.501244999271703, 0.722670989888189),
        ("wfns", 0.823678861788618, 0.00146991470882363, 0.748534887819453, 0.898822835757783),
    ],
)
def test_asah_delong(asah, score, auc, variance, low, high):
    y, columns, _ = asah
    found = roc.placement(y, columns[score])
    assert found.auc == pytest.approx(auc, abs=1e-12)
    assert roc.covariance([found])[0, 0] == pytest.approx(variance, abs=1e-12)
    estimate = roc.auc_interval(y, columns[score])
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=1e-12)
    assert estimate.n == 113


@pytest.mark.shared
def test_asah_females(asah):
    y, columns, female = asah
    found = roc.auc_interval(y[female], columns["ndka"][female])
    assert (found.low, found.value, found.high) == pytest.approx((0.526140, 0.667143, 0.808146), abs=1e-6)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("first", "second", "z", "p"),
    [
        ("s100b", "wfns", -2.20898359144091, 0.0271757822291882),
        ("s100b", "ndka", 1.39077002573558, 0.164295175223054),
        ("wfns", "ndka", 2.79777591868904, 0.00514557970691098),
    ],
)
def test_asah_paired(asah, first, second, z, p):
    y, columns, _ = asah
    test = roc.paired_test(roc.placement(y, columns[first]), roc.placement(y, columns[second]), 113)
    assert (test.statistic, test.p) == pytest.approx((z, p), abs=1e-10)


@pytest.mark.shared
def test_asah_covariance_unpaired_and_partial(asah):
    y, columns, _ = asah
    s100b, ndka = (roc.placement(y, columns[c]) for c in ("s100b", "ndka"))
    assert roc.covariance([s100b, ndka])[0, 1] == pytest.approx(-0.000756164938056579, abs=1e-12)
    test = roc.unpaired_test(s100b, ndka)
    assert (test.statistic, test.p) == pytest.approx((1.55995743389685, 0.120192832430845), abs=1e-10)
    assert "222.2 degrees" in test.difference.method
    assert roc.partial_auc(y, columns["s100b"], above=0.9) == pytest.approx(
        (0.0327574525745257, 0.646091855655399), abs=1e-10
    )
    assert roc.partial_auc(y, columns["s100b"], above=0.9, of="sensitivity") == pytest.approx(
        (0.0137635501355013, 0.546123948081586), abs=1e-10
    )


@pytest.mark.shared
def test_van_dyke_areas(shared_data):
    with (shared_data / "reference" / "van_dyke.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    expected = {
        "1": (0.91964573, 0.85877617, 0.90386473, 0.97310789, 0.82979066),
        "2": (0.94782609, 0.90531401, 0.92173913, 0.99935588, 0.92995169),
    }
    for treatment, areas in expected.items():
        for reader, area in enumerate(areas, 1):
            part = [r for r in rows if (r["treatment"], r["reader"]) == (treatment, str(reader))]
            y = np.array([r["truth"] == "1" for r in part])
            assert roc.auc(y, np.array([float(r["rating"]) for r in part])) == pytest.approx(area, abs=1e-8)


def test_own_data_delong(roc_cal):
    a, b = roc.placement(roc_cal.y, roc_cal.a), roc.placement(roc_cal.y, roc_cal.b)
    assert (a.auc, b.auc) == pytest.approx((0.735030275847, 0.799730881364), abs=1e-11)
    spread = roc.covariance([a, b])
    assert spread[0, 0] == pytest.approx(0.00197549936103, abs=1e-13)
    assert spread[1, 1] == pytest.approx(0.0016553088129, abs=1e-13)
    assert spread[0, 1] == pytest.approx(0.00113617671762, abs=1e-13)
    estimate = roc.auc_interval(roc_cal.y, roc_cal.a)
    assert (estimate.low, estimate.high) == pytest.approx((0.647916560246, 0.822143991447), abs=1e-11)
    test = roc.paired_test(a, b, 140)
    assert (test.statistic, test.p) == pytest.approx((-1.75543906429, 0.0791842350786), abs=1e-10)
    assert (test.difference.low, test.difference.high) == pytest.approx((-0.136939431216, 0.00753822018253), abs=1e-11)


def test_own_data_clustered(roc_cal):
    a, b = (roc.placement(roc_cal.y, s, roc_cal.patient) for s in (roc_cal.a, roc_cal.b))
    errors = np.sqrt(np.diag(roc.covariance([a, b])))
    assert errors == pytest.approx([0.0504632084214, 0.0384507172671], abs=1e-12)
    test = roc.paired_test(b, a, 140)
    assert (test.difference.value, test.p) == pytest.approx((0.0647006055169, 0.0803331506802), abs=1e-11)
    assert (test.difference.low, test.difference.high) == pytest.approx((-0.00781427570017, 0.137215486734), abs=1e-10)
    estimate = roc.auc_interval(roc_cal.y, roc_cal.a, roc_cal.patient)
    assert (estimate.low, estimate.high) == pytest.approx((0.636124204796, 0.833936346897), abs=1e-11)
    assert estimate.n == 74
    assert "Obuchowski" in estimate.method
    assert "140 cases" in estimate.method


def test_single_cases_make_the_clustered_form_delong(roc_cal):
    alone = np.random.default_rng(0).permutation(140)
    clustered = roc.covariance([roc.placement(roc_cal.y, s, alone) for s in (roc_cal.a, roc_cal.b)])
    plain = roc.covariance([roc.placement(roc_cal.y, s) for s in (roc_cal.a, roc_cal.b)])
    assert clustered == pytest.approx(plain, abs=1e-15)


def test_mean_over_repeats_has_the_variance_of_the_mean(roc_cal):
    a, b = (roc.placement(roc_cal.y, s, roc_cal.patient) for s in (roc_cal.a, roc_cal.b))
    mean = roc.average([a, b])
    assert mean.auc == pytest.approx((a.auc + b.auc) / 2)
    assert roc.covariance([mean])[0, 0] == pytest.approx(roc.covariance([a, b]).sum() / 4)


def test_curve_is_scikit_learns(roc_cal):
    fpr, tpr, cut = roc.roc_curve(roc_cal.y, roc_cal.a)
    expected = sklearn_roc(roc_cal.y, roc_cal.a, drop_intermediate=True)
    assert np.trapezoid(tpr, fpr) == pytest.approx(roc_auc_score(roc_cal.y, roc_cal.a), abs=1e-14)
    assert set(zip(fpr, tpr, strict=True)) <= set(zip(*expected[:2], strict=True))
    assert cut[0] == np.inf


def test_perfect_separation_has_an_honest_bound():
    y = np.arange(40) < 10
    found = roc.auc_interval(y, y.astype(float))
    # 10 disjoint pairs of patients, all in order: Clopper-Pearson for 10 of 10.
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.6915029, abs=1e-6)
    assert "exact bound" in found.method
    reverse = roc.auc_interval(y, -y.astype(float))
    assert (reverse.low, reverse.high) == pytest.approx((0.0, 1 - found.low))


def test_perfect_separation_counts_patients_not_cases():
    y, patient = np.arange(40) < 10, np.arange(40) // 5
    assert roc.auc_interval(y, y.astype(float), patient).low == pytest.approx(0.025 ** (1 / 2))


@pytest.mark.parametrize(
    ("y", "score", "why"),
    [
        ([1, 0, 0, 0], [0.4, 0.1, 0.6, 0.2], "fewer than 2 patients"),
        ([1, 1, 0, 0], [0.5, 0.5, 0.5, 0.5], "all alike"),
    ],
)
def test_no_interval_says_why(y, score, why):
    found = roc.auc_interval(np.array(y, bool), np.array(score))
    assert np.isnan(found.low)
    assert why in found.method


def test_one_class_is_refused():
    with pytest.raises(StatisticsError, match="one class only"):
        roc.auc(np.ones(5, bool), np.arange(5.0))
