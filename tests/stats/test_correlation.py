"""The correlation of a score with what is predicted of its cut."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tenfold.stats.correlation import score_correlation
from tenfold.types import PredictionTable


def table(p: np.ndarray, patients: list[str] | None = None, repeat: np.ndarray | None = None) -> PredictionTable:
    n = len(p)
    text = np.full(n, "x")
    place = [i % 10 if repeat is not None else i for i in range(n)]
    return PredictionTable(
        case=np.array([f"c{i}" for i in place]),
        patient=np.array(patients or [f"p{i}" for i in place]),
        site=text,
        split=text,
        repeat=np.zeros(n, np.int64) if repeat is None else repeat,
        fold=np.zeros(n, np.int64),
        arm=text,
        label=text,
        probabilities=np.stack([1 - p, p], axis=1),
        classes=("no", "yes"),
    )


def _scores(values: np.ndarray) -> dict[str, float]:
    return {f"c{i}": float(v) for i, v in enumerate(values)}


def test_it_is_pearsons_of_the_log_odds_and_more_is_better_on_either_side_of_the_cut() -> None:
    rng = np.random.default_rng(0)
    score = rng.normal(100, 15, 80)
    odds = -(score - 85) / 10 + rng.standard_normal(80)
    expected = np.corrcoef(odds, score)[0, 1]
    p = 1 / (1 + np.exp(-odds))
    below = score_correlation(table(p), _scores(score), positive="yes", upwards=False, bootstraps=200)
    above = score_correlation(table(1 - p), _scores(score), positive="yes", upwards=True, bootstraps=200)
    assert below.value == pytest.approx(-expected)
    assert above.value == pytest.approx(-expected)
    assert below.low < below.value < below.high
    assert (below.n, "200 draws" in below.method) == (80, True)
    other = score_correlation(table(p), _scores(score), positive="no", upwards=True, bootstraps=200)
    assert other.value == pytest.approx(-expected)


def test_unknown_scores_do_not_count_and_a_patient_is_one() -> None:
    rng = np.random.default_rng(1)
    score = rng.normal(size=30)
    p = 1 / (1 + np.exp(-score - rng.normal(size=30)))
    unknown = score.copy()
    unknown[:5] = math.nan
    found = score_correlation(table(p), _scores(unknown), positive="yes", upwards=True, bootstraps=100)
    assert found.n == 25
    odds = np.log(p / (1 - p))
    assert found.value == pytest.approx(np.corrcoef(odds[5:], score[5:])[0, 1])
    missing = {case: v for case, v in _scores(score).items() if case not in {f"c{i}" for i in range(5)}}
    assert score_correlation(table(p), missing, positive="yes", upwards=True, bootstraps=100) == found
    pairs = [f"p{i // 2}" for i in range(30)]
    assert score_correlation(table(p, pairs), _scores(score), positive="yes", upwards=True, bootstraps=100).n == 15


def test_repeats_are_averaged_not_pooled() -> None:
    rng = np.random.default_rng(2)
    score = rng.normal(size=10)
    odds = np.concatenate([score + rng.normal(size=10), score + 50 + rng.normal(size=10)])
    odds[10:] = np.clip(odds[10:] - 50, -10, 10) + 3
    found = score_correlation(
        table(1 / (1 + np.exp(-odds)), repeat=np.repeat([0, 1], 10)), _scores(score), positive="yes", upwards=True
    )
    each = [np.corrcoef(part, score)[0, 1] for part in (odds[:10], odds[10:])]
    assert found.value == pytest.approx(np.mean(each), abs=1e-6)
    assert (found.n, "mean of 2 repeats" in found.method) == (10, True)


@pytest.mark.parametrize(
    ("p", "score", "words"),
    [
        (np.full(6, 0.4), np.arange(6.0), "nothing varies"),
        (np.linspace(0.1, 0.9, 6), np.full(6, 3.0), "nothing varies"),
        (np.linspace(0.1, 0.9, 6), np.array([1.0, 2.0, *[np.nan] * 4]), "fewer than three"),
        (np.linspace(0.1, 0.9, 6), np.full(6, np.nan), "fewer than three"),
    ],
)
def test_where_there_is_none_the_reason_is_given(p: np.ndarray, score: np.ndarray, words: str) -> None:
    found = score_correlation(table(p), _scores(score), positive="yes", upwards=True, bootstraps=100)
    assert math.isnan(found.value)
    assert words in found.method


def test_probabilities_of_nought_and_one_are_no_infinities() -> None:
    score = np.arange(8.0)
    p = np.array([0, 0, 0.1, 0.3, 0.6, 0.9, 1, 1.0])
    found = score_correlation(table(p), _scores(score), positive="yes", upwards=True, bootstraps=100)
    assert 0.8 < found.value < 1


def test_the_interval_covers() -> None:
    """A true correlation of 0.6, 60 patients."""
    rng = np.random.default_rng(3)
    inside = 0
    for seed in range(120):
        score = rng.normal(size=60)
        odds = 0.6 * score + 0.8 * rng.normal(size=60)
        found = score_correlation(
            table(1 / (1 + np.exp(-odds))), _scores(score), positive="yes", upwards=True, bootstraps=300, seed=seed
        )
        inside += found.low <= 0.6 <= found.high
    assert 0.87 <= inside / 120 <= 1
