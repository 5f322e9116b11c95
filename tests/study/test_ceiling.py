"""The simulated studies, as they ship: near the ceiling that is known, and never above it."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import t as student

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


def _run_newborns(folder: Path, seed: int, patients: int) -> dict[str, Any]:
    """Run the demonstration's three main arms with every patient in the ten folds; give AUCs, ceilings and the rest."""
    made = SIMULATORS["nec"](folder / "cohort", patients=patients, seed=seed, ineligible=30, source=700, external=0)
    study = tomllib.loads(builtin_study_text("nec_simulated.toml"))
    study["arms"] = [arm for arm in study["arms"] if arm["name"] in ("film + labs", "film only", "labs only")]
    study["seed"], study["validation"]["holdout"] = 1024 + seed, 0.0
    study.pop("external")
    run = Study.from_dict(study, made.folder).run(out=folder / "run")
    sanity = json.loads((run.folder / "explanations.json").read_text())["sanity"]
    pairs = json.loads((run.folder / "comparisons.json").read_text())["diagnosis"]
    return {
        "auc": {arm: metrics["auc"]["value"] for arm, metrics in run.evaluation["diagnosis"].items()},
        "ceilings": json.loads((made.folder / "truth.json").read_text())["ceilings"],
        "sanity": sanity,
        "p": {pair["arm"]: pair["p"] for pair in pairs if pair["metric"] == "auc"},
    }


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_ten_cohorts_of_newborns_come_near_their_ceilings_on_average(tmp_path: Path) -> None:
    runs = [_run_newborns(tmp_path / str(seed), seed, 408) for seed in range(1, 11)]
    for arm, knowable in (("film + labs", "fused_observed"), ("film only", "signs"), ("labs only", "labs_observed")):
        mean, ceiling = np.mean([run["auc"][arm] for run in runs]), runs[0]["ceilings"][knowable]
        assert ceiling - 0.04 <= mean <= ceiling, (arm, mean, ceiling)
    for run in runs:
        sanity = run["sanity"]
        assert sanity["energy_gain"]["low"] > 0
        assert sanity["energy_over_random"]["low"] > 0
        noise, *randomised = sanity["randomisation"]
        assert noise["layer"] == "random pair"
        assert all(layer["high"] < max(0.5, noise["high"]) for layer in randomised)


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_with_two_thousand_newborns_both_inputs_beat_either(tmp_path: Path) -> None:
    run = _run_newborns(tmp_path, 1, 2000)
    for arm in ("film only", "labs only"):
        assert run["auc"][arm] < run["auc"]["film + labs"]
        assert run["p"][arm] < 0.01


def _run_infants(folder: Path, seed: int, transfer: float) -> dict[str, dict[str, float]]:
    """Run the simulated infants' study, with and without pre-training; give AUCs of the first outcome."""
    made = SIMULATORS["neurodevelopment"](folder / "cohort", seed=seed, transfer=transfer)
    study = tomllib.loads(builtin_study_text("neurodevelopment_simulated.toml"))
    study["arms"] = [arm for arm in study["arms"] if arm["name"] in ("proposed", "no pre-training")]
    study["validation"] = {"folds": 4, "repeats": 3, "family": "family", "bootstraps": 100}
    study["explain"] = {"cases": 0, "sanity_cases": 0}
    run = Study.from_dict(study, made.folder).run(out=folder / "run")
    return {arm: metrics["auc"] for arm, metrics in run.evaluation["cognitive"].items()}


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("transfer", [0.8, 0.0])
def test_three_stages_help_where_there_is_something_to_transfer(tmp_path: Path, transfer: float) -> None:
    runs = [_run_infants(tmp_path / str(seed), seed, transfer) for seed in range(11, 31)]
    gains = np.array([run["proposed"]["value"] - run["no pre-training"]["value"] for run in runs])
    low = gains.mean() - student.ppf(0.975, len(gains) - 1) * gains.std(ddof=1) / np.sqrt(len(gains))
    assert (low > 0) == (transfer > 0)
    ceiling = 0.838  # tests/simulate compares it with its integral
    for run in runs:
        assert run["proposed"]["value"] <= ceiling + 3 * (run["proposed"]["high"] - run["proposed"]["low"]) / (2 * 1.96)
