from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from tenfold import types
from tenfold.errors import CohortError, OutputError
from tenfold.types import Calibration, Estimate, PredictionTable, write_atomically


def _table() -> PredictionTable:
    return PredictionTable(
        case=np.array(["a", "b,c"]),
        patient=np.array(["p", 'q"']),
        site=np.array(["", "x"]),
        split=np.array(["out_of_fold", "holdout"]),
        repeat=np.array([0, -1]),
        fold=np.array([3, -1]),
        arm=np.array(["one", "two"]),
        label=np.array(["no", "yes"]),
        probabilities=np.array([[0.1, 0.9], [1 / 3, 2 / 3]]),
        classes=("no", "yes"),
    )


def test_predictions_come_back_to_the_last_bit(tmp_path: Path) -> None:
    path = tmp_path / "p" / "y.csv"
    _table().write(path)
    again = PredictionTable.read(path)
    assert path.read_text().splitlines()[0] == "case,patient,site,split,repeat,fold,arm,label,p_no,p_yes"
    assert again.case.tolist() == ["a", "b,c"]
    assert again.patient.tolist() == ["p", 'q"']
    assert np.array_equal(again.probabilities, _table().probabilities)
    assert again.classes == ("no", "yes")


def test_a_foreign_predictions_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "y.csv"
    path.write_text("case,score\na,1\n")
    with pytest.raises(CohortError, match="patient"):
        PredictionTable.read(path)


def test_select_and_concatenate() -> None:
    table = _table()
    both = PredictionTable.concatenate([table, table])
    assert len(both.select(arm="one")) == 2
    assert both.select(arm="one", split="holdout").case.size == 0
    assert both.arms == ("one", "two")
    assert both.probability("yes")[0] == 0.9


def test_an_estimate_survives_json_with_nan() -> None:
    estimate = Estimate(0.5, math.nan, math.nan, "none", 3)
    again = Estimate.from_dict(json.loads(json.dumps(estimate.to_dict(), allow_nan=False)))
    assert math.isnan(again.low)
    assert again.value == 0.5


def test_calibration_is_a_softmax_of_scaled_logits() -> None:
    p = Calibration("platt", temperature=2.0, intercepts=(0.0, 1.0)).apply(np.array([[0.0, 4.0], [2000.0, 0.0]]))
    assert p[0, 1] == pytest.approx(1 / (1 + math.exp(-3.0)))
    assert p.sum(axis=1) == pytest.approx([1.0, 1.0])


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.json"
    write_atomically(path, "before")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(types.os, "fdopen", full)
    with pytest.raises(OutputError, match="No space left"):
        write_atomically(path, "after")
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["file.json"]
