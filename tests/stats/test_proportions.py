"""Wilson intervals against Newcombe's figures and statsmodels; what clustering does to them."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from tenfold.stats.proportions import effective_n, wilson


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        (81, 263, 0.255288519878, 0.366209576983),
        (15, 148, 0.0623863995, 0.1604872417),
        (0, 20, 0.0, 0.1611251581),
        (1, 29, 0.0061132143, 0.1717552188),
    ],
)
def test_newcombe(hits, n, low, high):
    assert wilson(hits / n, n) == pytest.approx((low, high), abs=1e-9)
    assert wilson(hits / n, n) == pytest.approx(proportion_confint(hits, n, method="wilson"), abs=1e-12)


def test_one_case_a_patient_is_plain_wilson():
    hits = (np.arange(30) % 3 == 0)[None].astype(float)
    assert effective_n(hits, np.ones((1, 30))) == pytest.approx(30, abs=1e-9)


def test_copies_add_nothing():
    hits = (np.arange(30) % 3 == 0)[None].astype(float)
    assert effective_n(4 * hits, np.full((1, 30), 4.0)) <= 30
    assert effective_n(4 * hits, np.full((1, 30), 4.0)) > 28


def test_disagreement_within_patients_is_never_worth_more_than_the_cases():
    assert effective_n(np.ones((1, 20)), np.full((1, 20), 2.0)) == 40


def test_all_right_counts_patients():
    assert effective_n(np.full((1, 7), 3.0), np.full((1, 7), 3.0)) == 7
