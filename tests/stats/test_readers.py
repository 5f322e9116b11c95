"""The readers file, and readers one at a time."""

from __future__ import annotations

import numpy as np
import pytest

from tenfold.errors import CohortError, StatisticsError
from tenfold.stats import roc
from tenfold.stats.readers import figure_of, mean_roc, read_readings, reader_points, upside_down


@pytest.fixture
def write(tmp_path):
    def make(text: str | bytes):
        path = tmp_path / "readers.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return make


def test_reads_ratings_and_leaves_skipped_cases_out(write):
    found = read_readings(
        write("\ufeffReader;case;rating;modality\r\nA;1;3;aided\r\n\r\nA;2; ;aided\r\nB;1;2.5;unaided\r\n")
    )
    assert found.reader.tolist() == ["A", "B"]
    assert found.rating.tolist() == [3.0, 2.5]
    assert found.modalities == ("aided", "unaided")
    assert found.row.tolist() == [2, 5]
    assert read_readings(write("reader,case,rating\nA,1,0\nA,2,1\n")).binary


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("reader,case,rating\nA,1,3\nA,2,4\nA,1,2\n", r"row 4: reader A rated case 1 twice: '3' in row 2 and '2' here"),
        ("reader,case,rating\nA,1,\nA,1,2\n", "rated case 1 twice"),
        ("reader,case,rating\nA,1,probably\n", r"row 2: the rating 'probably' is no number"),
        ("reader;case;rating\nA;1;3,5\n", "'3,5' is no number"),
        ("reader,case,rating\nA,1,nan\n", "'nan' is no number"),
        ("reader,case,rating\nA,1,inf\n", "'inf' is no number"),
        ("reader,case,score\nA,1,3\n", "unknown column 'score'"),
        ("reader,case,ratings\nA,1,3\n", "did you mean 'rating'"),
        ("reader,case\nA,1\n", "no column rating"),
        ("reader,case,rating,rating\nA,1,3,3\n", "two columns 'rating'"),
        ("reader,case,rating\n,1,3\n", "row 2: no reader named"),
        ("reader,case,rating\nA,1\n", "row 2: 2 cells"),
        ("reader,case,rating,modality\nA,1,3,aided\nA,2,3,\n", "row 3: no modality here"),
        ("reader,case,rating\n", "no case is rated"),
        ("", "is empty"),
        (b"reader,case,rating\nM\xfcller,1,3\n", "not UTF-8"),
        ('reader,case,rating\n"A,1,3\n', "no CSV file"),
    ],
)
def test_refuses_a_bad_file(write, text, message):
    with pytest.raises(CohortError, match=message):
        read_readings(write(text))


def test_refuses_no_file(tmp_path):
    with pytest.raises(CohortError, match="cannot be read"):
        read_readings(tmp_path / "none.csv")


@pytest.fixture(scope="module")
def panel():
    generator = np.random.default_rng(2)
    truth = np.arange(60) < 25
    latent = truth * np.array([[1.5], [0.8], [2.5]]) + generator.standard_normal((3, 60))
    return np.digitize(latent, [0, 0.7, 1.4, 2.2]) + 1.0, truth


def test_mean_curve_holds_the_mean_area(panel):
    ratings, truth = panel
    fpr, tpr = mean_roc(ratings, truth)
    assert np.trapezoid(tpr, fpr) == pytest.approx(np.mean([roc.auc(truth, row) for row in ratings]), abs=1e-12)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert (np.diff(fpr) >= 0).all()
    assert (np.diff(tpr) >= -1e-12).all()
    alone = mean_roc(ratings[:1], truth)
    for x, y in zip(*roc.roc_curve(truth, ratings[0])[:2], strict=True):
        assert np.isclose(np.abs(alone[0] - x) + np.abs(alone[1] - y), 0).any()


def test_points_lie_on_the_curves(panel):
    ratings, truth = panel
    for row, point in zip(ratings, reader_points(ratings, truth, threshold=3), strict=True):
        assert point.sensitivity.value == (row[truth] >= 3).mean()
        assert point.specificity.value == (row[~truth] < 3).mean()
        assert (point.sensitivity.n, point.specificity.n) == (25, 35)
        assert point.specificity.low < point.specificity.value < point.specificity.high


def test_points_by_patient(panel):
    ratings, truth = panel
    twice = figure_of(
        np.tile(ratings[0], 2),
        np.tile(truth, 2),
        figure="sensitivity",
        threshold=3,
        patient=np.tile(np.arange(60), 2),
    )
    once = figure_of(ratings[0], truth, figure="sensitivity", threshold=3)
    assert twice.n == once.n
    assert twice.high - twice.low == pytest.approx(once.high - once.low, rel=0.03)
    assert "clustered" in twice.method


def test_a_scale_upside_down_is_noticed(panel):
    ratings, truth = panel
    turned = np.stack([ratings[0], 6 - ratings[2], np.ones(60)])
    assert upside_down(turned, truth) == (1,)
    assert upside_down(np.stack([truth * 1.0, ~truth * 1.0]), truth) == (1,)


def test_binary_ratings_are_said_to_be_so(panel):
    ratings, truth = panel
    found = figure_of((ratings[0] >= 3) * 1.0, truth)
    (point,) = reader_points(ratings[:1], truth, threshold=3)
    assert found.value == pytest.approx((point.sensitivity.value + point.specificity.value) / 2)
    assert "(sensitivity + specificity) / 2" in found.method
    assert "(sensitivity + specificity) / 2" not in figure_of(ratings[0], truth).method


def test_refuses_one_class(panel):
    with pytest.raises(StatisticsError, match="one class only"):
        figure_of(panel[0][0], np.ones(60, bool), figure="sensitivity", threshold=3)
