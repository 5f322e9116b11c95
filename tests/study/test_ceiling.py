"""The study of `make demo`, as it ships: near the ceiling that is known, and never above it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenfold.config import builtin_study_text
from tenfold.simulate import SIMULATORS
from tenfold.study import Study


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_demo_comes_near_its_ceiling_and_does_not_pass_it(tmp_path: Path) -> None:
    made = SIMULATORS["pneumonia"](tmp_path / "films", patients=400, seed=1)
    (tmp_path / "films" / "study.toml").write_text(builtin_study_text("pneumonia_simulated.toml"))
    run = Study.read(tmp_path / "films").run(out=tmp_path / "run")
    auc = run.evaluation["diagnosis"]["dilated, adult films"]["auc"]
    standard_error = (auc["high"] - auc["low"]) / (2 * 1.96)
    assert auc["value"] >= made.ceiling_auc - 0.05
    assert auc["value"] <= made.ceiling_auc + 3 * standard_error
