"""Readers and modalities against MRMCaov, the OR-DBM MRMC printout, and sums done by hand."""

from __future__ import annotations

import csv
import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from tenfold.errors import StatisticsError
from tenfold.stats import mrmc, roc
from tenfold.stats.mrmc import machine_against_readers, obuchowski_rockette, single_reader
from tenfold.stats.reader_covariance import covariance_of, figures_of, scores_of

DATA = Path(__file__).parent / "data"


def crossed(path: Path, modality: str | None):
    """Ratings (modalities, readers, cases) and truth."""
    with path.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    axes = [sorted({r[c] for r in rows}) for c in ([modality] if modality else []) + ["reader"]]
    cases = sorted({r["case"] for r in rows}, key=int)
    ratings = np.full(([1] if modality is None else []) + [len(a) for a in axes] + [len(cases)], np.nan)
    truth = np.zeros(len(cases), bool)
    for r in rows:
        m = axes[0].index(r[modality]) if modality else 0
        k = cases.index(r["case"])
        ratings[m, axes[-1].index(r["reader"]), k] = float(r["rating"])
        truth[k] = r["truth"] == "1"
    return ratings, truth


@pytest.fixture(scope="module")
def own():
    return crossed(DATA / "mrmc.csv", "modality")


@pytest.fixture(scope="module")
def van_dyke(shared_data):
    return crossed(shared_data / "reference" / "van_dyke.csv", "treatment")


@pytest.fixture(scope="module")
def against():
    ratings, truth = crossed(DATA / "ai_readers.csv", None)
    return ratings[0, 0], ratings[0, 1:], truth


@pytest.mark.parametrize(
    ("options", "statistic", "df2", "p", "se"),
    [
        ({"covariance": "delong"}, 1.69054698441, 5.72675956904, 0.243400450084, 0.0245989469186),
        ({"covariance": "jackknife"}, 1.68469353796, 5.76662381064, 0.243795193202, 0.0246416442284),
        ({"covariance": "unbiased"}, 1.69068686697, 5.72581197703, 0.243391074852, 0.0245979292746),
        ({"covariance": "delong", "readers": "fixed"}, 1.51705866108, math.inf, 0.218065148705, 0.0259674288837),
        ({"figure": "sensitivity", "threshold": 3}, 0.213179690313, 7.87228373475, 0.656776833369, 0.045596706779),
        # Cov2 < Cov3: the difference must not make the error smaller
        ({"figure": "specificity", "threshold": 3}, 0.625, 4, 0.473427365257, 0.0243252127705),
    ],
)
def test_own_data_as_in_mrmcaov(own, options, statistic, df2, p, se):
    found = obuchowski_rockette(*own, **options)
    assert (found.statistic, found.df1, found.df2, found.p) == pytest.approx((statistic, 1, df2, p), rel=1e-9)
    quantile = (found.difference.high - found.difference.value) / se
    assert quantile == pytest.approx(mrmc._quantile(df2), rel=1e-9)


def test_own_data_intervals_and_components(own):
    found = obuchowski_rockette(*own, covariance="delong")
    assert (found.difference.value, found.difference.low, found.difference.high) == pytest.approx(
        (-0.031983805668, -0.0928783212974, 0.0289107099614), abs=1e-12
    )
    assert [(m.low, m.value, m.high) for m in found.means] == [
        pytest.approx((0.685161361706, 0.791852226721, 0.898543091736), abs=1e-12),
        pytest.approx((0.756723359716, 0.823836032389, 0.890948705061), abs=1e-12),
    ]
    expected = {
        "reader": 0.003794093816162,
        "modality_reader": -0.000172997933305,
        "error": 0.001970012136828,
        "cov1": 0.000483023783802,
        "cov2": 0.000543216776180,
        "cov3": 0.000493521762669,
        "ms_modality": 0.00255740956252,
        "ms_modality_reader": 0.00126429540621,
    }
    assert {k: found.components[k] for k in expected} == pytest.approx(expected, abs=1e-13)
    fixed = obuchowski_rockette(*own, covariance="delong", readers="fixed")
    assert (fixed.means[0].low, fixed.means[1].high) == pytest.approx((0.733993552682, 0.878774669436), abs=1e-12)
    sharp = obuchowski_rockette(*own, figure="sensitivity", threshold=3)
    assert sharp.means[0].high == 1.0
    assert sharp.means[0].n == 38


def test_own_data_single_readers(own):
    ratings, truth = own
    found = [single_reader(first, second, truth) for first, second in ratings.transpose(1, 0, 2)]
    assert [x.p for x in found] == pytest.approx(
        [0.0887989571059, 0.6844093752837, 0.2624178475184, 0.5748661423096, 0.9034211961392], abs=1e-12
    )
    assert (found[0].difference.low, found[0].difference.high) == pytest.approx(
        (-0.2150633595080, 0.0151645740829), abs=1e-12
    )


@pytest.mark.shared
@pytest.mark.parametrize(
    ("options", "statistic", "df2", "p"),
    [
        ({}, 4.456318693, 15.25967459, 0.05166568582),
        ({"covariance": "delong"}, 4.484854322, 15.06610794, 0.05123303082),
        ({"covariance": "unbiased"}, 4.489613895, 15.03418081, 0.05116180235),
        ({"readers": "fixed", "covariance": "delong"}, 5.545789289, math.inf, 0.01852520044),
        ({"cases": "fixed"}, 8.704, 4, 0.04195875249),
        ({"figure": "sensitivity", "threshold": 3}, 6.689492697, 15.71732443, 0.02008822008),
    ],
)
def test_van_dyke(van_dyke, options, statistic, df2, p):
    found = obuchowski_rockette(*van_dyke, **options)
    assert (found.statistic, found.df1, found.df2) == pytest.approx((statistic, 1, df2), rel=1e-7)
    assert found.p == pytest.approx(p, abs=5e-12)


@pytest.mark.shared
def test_van_dyke_figures_and_intervals(van_dyke):
    found = obuchowski_rockette(*van_dyke)
    assert found.figures == pytest.approx(
        np.array(
            [
                [0.91964573, 0.85877617, 0.90386473, 0.97310789, 0.82979066],
                [0.94782609, 0.90531401, 0.92173913, 0.99935588, 0.92995169],
            ]
        ),
        abs=5e-9,
    )
    assert [m.value for m in found.means] == pytest.approx([0.89703704, 0.94083736], abs=5e-9)
    expected = {
        "ms_modality": 0.004796170532,
        "ms_modality_reader": 0.0005510306217,
        "error": 0.0008022882656,
        "cov1": 0.0003466137094,
        "cov2": 0.0003440748289,
        "cov3": 0.0002390283709,
    }
    assert {k: found.components[k] for k in expected} == pytest.approx(expected, abs=1e-12)
    assert found.components["ms_reader"] == pytest.approx(0.00383620, abs=5e-9)
    assert (found.difference.value, found.difference.low, found.difference.high) == pytest.approx(
        (-0.04380032206, -0.0879594985666, 0.0003588544442), abs=1e-11
    )
    these = obuchowski_rockette(*van_dyke, readers="fixed")
    assert these.statistic == pytest.approx(5.475953, abs=5e-7)
    assert these.p == pytest.approx(0.01928, abs=5e-6)
    fixed = obuchowski_rockette(*van_dyke, cases="fixed").difference
    assert (fixed.low, fixed.high) == pytest.approx((-0.08502022396, -0.00258042016), abs=1e-11)
    delong = obuchowski_rockette(*van_dyke, covariance="delong").components
    assert [delong[k] for k in ("error", "cov1", "cov2", "cov3")] == pytest.approx(
        [0.0007921324531, 0.0003420089577, 0.000339526531, 0.0002358496532], abs=1e-12
    )
    one = single_reader(*van_dyke[0][:, 0], van_dyke[1], covariance="jackknife")
    assert (one.difference.value, one.p) == pytest.approx((-0.02818035427, 0.2693388539), abs=1e-10)
    assert one.difference.value / one.statistic == pytest.approx(0.02551213258, abs=1e-11)
    scores = scores_of(van_dyke[0][0, :1], van_dyke[1], "auc", None, None)
    assert math.sqrt(covariance_of(scores, "jackknife")[0, 0]) == pytest.approx(0.03012551637, abs=1e-11)


def test_machine_against_six_readers(against):
    machine, ratings, truth = against
    found = machine_against_readers(machine, ratings, truth)
    assert found.machine.value == pytest.approx(0.934113300493, abs=1e-12)
    # the oracle takes readers minus machine
    assert (found.difference.value, found.difference.low, found.difference.high) == pytest.approx(
        (0.136699507389, 0.0310541889012, 0.242344825877), abs=1e-12
    )
    assert (found.t, found.df, found.p) == pytest.approx((3.01146951253, 7.59913942438, 0.0178074712714), rel=1e-11)
    expected = {"ms_reader": 0.0100283851154, "error": 0.0019298437765, "cov2": 0.000389123065161}
    assert found.components == pytest.approx(expected, abs=1e-13)
    assert found.readers_mean.value == pytest.approx(found.machine.value - found.difference.value)
    assert [x.statistic for x in found.per_reader] == pytest.approx(
        [2.87743757966, 1.49474931174, 2.8218957758, 0.491582819067, 4.67397185239, 5.06718142933], rel=1e-11
    )
    assert [x.p for x in found.per_reader] == pytest.approx(
        [0.00400919219679, 0.134979879526, 0.00477406897185, 0.623014291599, 2.9542983905e-06, 4.03749422379e-07],
        rel=1e-10,
    )


def test_one_fixed_reader_is_the_paired_delong_test(against):
    machine, ratings, truth = against
    found = machine_against_readers(machine, ratings[:1], truth, covariance="delong", readers="fixed")
    known = roc.paired_test(roc.placement(truth, machine), roc.placement(truth, ratings[0]), len(truth))
    assert (found.t, found.p) == pytest.approx((known.statistic, known.p), rel=1e-12)
    assert found.difference.low == pytest.approx(known.difference.low, rel=1e-12)
    with pytest.raises(StatisticsError, match="one reader says nothing"):
        machine_against_readers(machine, ratings[:1], truth)


def test_unbiased_covariance_has_no_bias():
    """Two sick and two healthy cases, two readers, every outcome weighted by its chance."""
    pairs = list(itertools.product((0.0, 1.0), repeat=2))
    chance = {True: np.array([0.1, 0.2, 0.3, 0.4]), False: np.array([0.5, 0.2, 0.2, 0.1])}
    truth = np.array([True, True, False, False])
    mean, product, estimated = np.zeros(2), np.zeros((2, 2)), np.zeros((2, 2))
    for drawn in itertools.product(range(4), repeat=4):
        weight = math.prod(chance[sick][i] for sick, i in zip(truth, drawn, strict=True))
        scores = scores_of(np.array([pairs[i] for i in drawn]).T, truth, "auc", None, None)
        figures = figures_of(scores)
        mean += weight * figures
        product += weight * np.outer(figures, figures)
        estimated += weight * covariance_of(scores, "unbiased")
    assert estimated == pytest.approx(product - np.outer(mean, mean), abs=1e-12)


@pytest.mark.parametrize("figure", ["auc", "sensitivity", "specificity"])
def test_jackknife_leaves_out_patients(figure):
    generator = np.random.default_rng(3)
    truth, patient = np.arange(40) % 3 == 0, np.arange(40) // 2 % 13
    ratings = generator.integers(1, 6, (3, 40)) + truth
    scores = scores_of(ratings, truth, figure, 3.0, patient)
    counted = {"auc": truth | True, "sensitivity": truth, "specificity": ~truth}[figure]
    left = [patient != p for p in np.unique(patient[counted])]
    without = np.array([figures_of(scores_of(ratings[:, k], truth[k], figure, 3.0, patient[k])) for k in left])
    away, n = without - without.mean(axis=0), len(left)
    assert covariance_of(scores, "jackknife") == pytest.approx((n - 1) / n * away.T @ away, abs=1e-12)
    # patients of one case each, in any order, are the plain covariance
    plain = covariance_of(scores_of(ratings, truth, figure, 3.0, None), "delong")
    assert covariance_of(scores_of(ratings, truth, figure, 3.0, np.arange(40)[::-1]), "delong") == pytest.approx(plain)
    with pytest.raises(StatisticsError, match="several cases"):
        covariance_of(scores, "unbiased")


def test_binary_auc_is_half_of_sensitivity_and_specificity(own):
    ratings, truth = own
    answers = (ratings >= 3).astype(float)
    area, sensitivity, specificity = (
        obuchowski_rockette(answers, truth, figure=f, threshold=1) for f in ("auc", "sensitivity", "specificity")
    )
    assert area.figures == pytest.approx((sensitivity.figures + specificity.figures) / 2, abs=1e-12)


def test_perfect_readers_have_no_interval():
    truth = np.array([True] * 4 + [False] * 4)
    found = obuchowski_rockette(np.tile(truth * 1.0, (2, 3, 1)), truth)
    assert math.isnan(found.p)
    assert math.isnan(found.difference.low)
    assert "nothing varies" in found.difference.method
    assert found.to_dict()["p"] is None


def test_interval_covers_the_truth():
    """Binormal readers whose skill varies: the interval of machine against readers holds in about 95 % of studies."""
    generator, held, studies = np.random.default_rng(5), 0, 200
    truth = np.arange(80) < 40
    skill = lambda a: roc.norm.cdf(a / math.sqrt(2 * 1.3))  # noqa: E731 - signal a, variance 1 of noise, 0.3 shared
    population = float(np.mean(skill(1.2 + 0.4 * generator.standard_normal(20000))))
    for _ in range(studies):
        shared = math.sqrt(0.3) * generator.standard_normal(80)
        signal = np.append(1.6, 1.2 + 0.4 * generator.standard_normal(6))
        scores = shared + signal[:, None] * truth + generator.standard_normal((7, 80))
        found = machine_against_readers(scores[0], scores[1:], truth).difference
        held += found.low <= float(skill(1.6)) - population <= found.high
    assert 0.90 <= held / studies <= 0.985


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"covariance": "delonge"}, "delong"),
        ({"figure": "auk"}, "auc"),
        ({"figure": "sensitivity"}, "rating from which on"),
        ({"readers": "fixed", "cases": "fixed"}, "nothing to generalise"),
        ({"readers": "mixed"}, "random or fixed"),
    ],
)
def test_refuses_unknown_choices(own, change, message):
    with pytest.raises(StatisticsError, match=message):
        obuchowski_rockette(*own, **change)


def test_refuses_what_cannot_be_analysed(own):
    ratings, truth = own
    with pytest.raises(StatisticsError, match="one modality only"):
        obuchowski_rockette(ratings[:1], truth)
    with pytest.raises(StatisticsError, match="one patient with the outcome"):
        obuchowski_rockette(ratings, np.arange(len(truth)) == 0)
    holed = ratings.copy()
    holed[0, 0, 0] = np.nan
    with pytest.raises(StatisticsError, match="1 ratings are missing"):
        obuchowski_rockette(holed, truth)
