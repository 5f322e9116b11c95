from __future__ import annotations

import json

import numpy as np
import pytest

from tenfold.errors import StatisticsError
from tenfold.explain import global_importance, sum_by_column


def test_means_over_folds_with_their_range() -> None:
    first = np.array([[1.0, -4.0, 0.0], [-3.0, 4.0, 0.0], [np.nan, np.nan, np.nan]])
    second = np.array([[4.0, 0.0, 1.0]])
    found = global_importance([first, second], ["crp", "wbc", "sex=f"])
    assert list(found.features) == ["crp", "wbc", "sex=f"]
    crp = found.features["crp"]
    assert (crp.value, crp.low, crp.high, crp.n) == (3, 2, 4, 3)
    # ranks (2, 3, 1) against (3, 1, 2): rho = 1 - 6 * 6 / (3 * 8)
    assert found.stability.value == pytest.approx(-0.5)
    assert json.loads(json.dumps(found.to_dict()))["features"][2] == {
        "feature": "sex=f", "mean": 0.5, "low": 0, "high": 1,
    }  # fmt: skip


def test_folds_that_agree_are_stable_and_one_fold_says_nothing_of_it() -> None:
    fold = np.random.default_rng(0).normal(size=(20, 5)) * np.arange(1, 6) ** 3
    names = list("abcde")
    found = global_importance([fold, 2 * fold, fold + 0.001], names)
    assert (found.stability.value, found.stability.low, found.stability.n) == (pytest.approx(1), pytest.approx(1), 3)
    assert list(found.features) == names[::-1]
    alone = global_importance([fold], names).stability
    assert np.isnan(alone.value)
    assert alone.to_dict()["value"] is None


@pytest.mark.parametrize("folds", [[], [np.full((3, 2), np.nan)], [np.zeros((3, 4))]])
def test_what_cannot_be_summed_up_is_refused(folds: list[np.ndarray]) -> None:
    with pytest.raises(StatisticsError, match="2 features"):
        global_importance(folds, ["a", "b"])


def test_levels_of_one_column_are_added_up() -> None:
    values = np.array([[1.0, 2.0, -5.0, 7.0], [np.nan] * 4])
    summed = sum_by_column(values, [0, 1, 1, 2])
    np.testing.assert_array_equal(summed, [[1.0, -3.0, 7.0], [np.nan] * 3])
