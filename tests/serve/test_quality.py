from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tenfold.errors import StatisticsError
from tenfold.modalities.image import ImagePreparation
from tenfold.modalities.table import Column, TablePreparation, TableReading
from tenfold.serve.decode import Decoded
from tenfold.serve.prevalence import npv, ppv
from tenfold.serve.quality import picture_checks, read_row
from tenfold.types import Estimate

GREY, COLOUR = ImagePreparation(size=64), ImagePreparation(size=64, channels=3)


def verdicts(
    preparation: ImagePreparation = GREY, training: dict[str, Any] | None = None, *, known: bool = False, **facts: Any
) -> dict[str, str]:
    plain = {"format": "PNG", "width": 80, "height": 70, "blank": False, "coloured": 0.0}
    decoded = Decoded(np.zeros((1, 64, 64), np.uint8), plain | facts)
    checks = picture_checks("film", 0, decoded, preparation, known=known, training=training or {})
    return {check.check: check.verdict for check in checks}


@pytest.mark.parametrize(
    ("facts", "check", "verdict"),
    [
        ({}, "readable", "good"),
        ({"blank": True}, "blank", "unusable"),
        ({"width": 30}, "small", "doubtful"),
        ({"height": 7}, "small", "unusable"),
        ({"coloured": 0.05}, "colour", "doubtful"),  # burned-in callipers
        ({"coloured": 0.6}, "colour", "unusable"),  # a photograph where a film is expected
        ({"known": True}, "known", "doubtful"),
        ({"modality": "MG", "training": {"modalities": ["CR", "DX"]}}, "modality", "unusable"),
        ({"preparation": COLOUR, "training": {"coloured": [0.1, 0.3]}}, "colour", "unusable"),  # grey, not Doppler
        ({"preparation": COLOUR, "training": {"coloured": [0.1, 0.3]}, "coloured": 0.04}, "colour", "doubtful"),
    ],
)
def test_what_is_odd_about_a_picture_is_said(facts: dict[str, Any], check: str, verdict: str) -> None:
    assert verdicts(**facts)[check] == verdict


@pytest.mark.parametrize(
    "facts",
    [
        {"coloured": 0.01},
        {"preparation": COLOUR, "coloured": 0.9},  # nobody knows what this model expects
        {"preparation": COLOUR, "training": {"coloured": [0.1, 0.3]}, "coloured": 0.2},
        {"modality": "DX", "training": {"modalities": ["CR", "DX"]}},
    ],
)
def test_what_is_as_expected_is_not_remarked_on(facts: dict[str, Any]) -> None:
    assert verdicts(**facts) == {"readable": "good"}


COLUMNS = (
    Column("crp", "C-reactive protein", unit="mg/L", low=0, high=600),
    Column("wbc", unit="10*9/L"),
    Column("ward", kind="category", levels=("a", "b", "c")),
    Column("ratio", formula="crp / wbc", high=100),
)
_VALUES = np.array([[5.0, 8.0, 0.0, 0.6], [50.0, 9.0, 1.0, 5.6], [9.0, np.nan, 0.0, np.nan]])
FITTED = TablePreparation.fit(TableReading(COLUMNS, _VALUES), [0, 1, 2])
TRAINING = {"crp": [1.0, 60.0]}


def test_a_row_is_read_in_the_units_it_states() -> None:
    values, checks = read_row("labs", COLUMNS, {"crp": "1.2 mg/dL", "ward": "b"}, fitted=FITTED, training=TRAINING)
    np.testing.assert_allclose(values, [12, np.nan, 1, np.nan])
    assert checks == []


@pytest.mark.parametrize(
    ("cells", "verdict", "said"),
    [
        ({"crp": "700"}, "unusable", "C-reactive protein = 700 mg/L is outside the plausible range (0 to 600)"),
        ({"crp": "590", "wbc": "0.5"}, "unusable", "ratio = 1180 is outside the plausible range (up to 100)"),
        ({"crp": "90"}, "doubtful", "98 % of the training patients had (1 to 60)"),
        ({"ward": "c"}, "doubtful", "no training patient had ward = c"),
    ],
)
def test_figures_outside_what_is_known_are_judged(cells: dict[str, str], verdict: str, said: str) -> None:
    values, checks = read_row("labs", COLUMNS, cells, fitted=FITTED, training=TRAINING)
    assert values is not None
    assert any(check.verdict == verdict and said in check.message for check in checks)


def test_every_cell_that_cannot_be_read_is_named() -> None:
    cells = {"crp": "<5", "wbc": "8,5", "ward": "d"}
    values, checks = read_row("labs", COLUMNS, cells, fitted=FITTED, training=TRAINING)
    assert values is None
    assert [check.verdict for check in checks] == ["unusable"] * 3
    assert [word in check.message for word, check in zip(("<5", "8,5", "'d'"), checks, strict=True)] == [True] * 3


def estimate(value: float, low: float, high: float, n: int = 100) -> Estimate:
    return Estimate(value, low, high, "Wilson 95 %", n)


def test_predictive_values_follow_bayes_and_carry_both_intervals() -> None:
    sensitivity, specificity = estimate(0.9, 0.8, 0.95), estimate(0.8, 0.7, 0.9, 60)
    found = ppv(sensitivity, specificity, 0.1)
    # 1000 patients: 100 sick of whom 90 are called, 900 well of whom 180 are
    assert found.value == pytest.approx(90 / 270)
    assert found.low == pytest.approx(80 / (80 + 270))
    assert found.high == pytest.approx(95 / (95 + 90))
    assert found.n == 60
    assert "10.0%" in found.method
    found = npv(sensitivity, specificity, 0.1)
    assert found.value == pytest.approx(720 / 730)
    assert found.low == pytest.approx(630 / 650)
    assert found.high == pytest.approx(810 / 815)


def test_predictive_values_at_the_ends_of_prevalence() -> None:
    sure = estimate(0.9, 0.8, 1.0), estimate(0.8, 0.7, 1.0)
    assert (ppv(*sure, 0).value, npv(*sure, 0).value) == (0, 1)
    assert (ppv(*sure, 1).value, npv(*sure, 1).value) == (1, 0)
    assert math.isnan(ppv(*sure, 0).high)  # nobody is above the threshold
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(StatisticsError, match="prevalence"):
            ppv(*sure, wrong)
