"""Bundles that tell several things: a score that was cut, levels, and classes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tenfold.bundle import Answer, Member, Predictor, load
from tenfold.encoders import build
from tenfold.errors import BundleError
from tenfold.modalities.table import Column, TablePreparation, TableReading
from tenfold.network.network import HeadSpec, Network
from tenfold.types import Calibration, OperatingPoint, PredictionSets

from .conftest import saved
from .test_seal import forge

HEADS = {
    "iq": HeadSpec("number", ("not below 85", "below 85"), centre=85.0, scale=12.0),
    "level": HeadSpec("ordinal", ("mild", "moderate", "severe"), cut=1),
    "germ": HeadSpec("softmax", ("none", "viral", "bacterial"), positive=(1,)),
}
CLASSES = {
    "iq": ("not below 85", "below 85"),
    "level": ("below moderate", "moderate or above"),
    "germ": ("not viral", "viral"),
}
ROW = {"a": "0.4", "b": "-1.2"}


def tabled(folder: Path) -> Path:
    """Two models of three targets, each with a calibration, threshold and prediction sets of its own."""
    reading = TableReading((Column("a"), Column("b")), np.random.default_rng(0).normal(size=(20, 2)))
    members, models = [], []
    for k, half in enumerate((np.arange(10), np.arange(10, 20))):
        fitted = TablePreparation.fit(reading, half)
        torch.manual_seed(k)
        model = Network({"labs": build("table_dense", features=2, width=4)}, HEADS, shared=5)
        models.append(model.eval())
        calibrations = {t: Calibration("temperature", 1 + 0.5 * j + k, (), 9) for j, t in enumerate(HEADS)}
        members.append(Member(f"fold-0-{k}", model.state_dict(), calibrations, {"labs": fitted.state()}))
    answers = [
        Answer(
            target,
            CLASSES[target],
            CLASSES[target][1],
            OperatingPoint(0.2 + 0.1 * j, "youden", 9),
            PredictionSets(0.1, (0.1 * j, 0.2)) if target != "germ" else None,
            {"column": target},
        )
        for j, target in enumerate(HEADS)
    ]
    return saved(folder, models, members=members, answers=answers, preparations={})


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    return load(tabled(tmp_path / "bundle"))


def test_each_target_has_its_own_decision_and_the_first_is_looked_at(predictor: Predictor) -> None:
    assert (predictor.targets, predictor.target) == (("iq", "level", "germ"), "iq")
    for j, target in enumerate(HEADS):
        own = predictor.of(target)
        assert (own.target, own.classes, own.positive) == (target, CLASSES[target], CLASSES[target][1])
        assert own.operating_point.threshold == pytest.approx(0.2 + 0.1 * j)
        assert own.outcome == {"column": target}
        assert [c.temperature for c in own.calibrations] == [1 + 0.5 * j, 2 + 0.5 * j]
        (answer,) = own.predict([{"labs": ROW}])
        assert (answer.likely is None) == (target == "germ")
        assert answer.decision == own.classes[int(answer.probabilities[own.positive] >= answer.threshold)]
    # looking at another one leaves this as it was
    assert predictor.target == "iq"


def test_what_the_heads_say_is_what_is_answered(predictor: Predictor) -> None:
    rows = torch.from_numpy(predictor.tables[0]["labs"].apply(np.array([[0.4, -1.2]])))
    said = {t: logits.double() for t, logits in predictor.networks[0]({"labs": rows}).items()}
    odds = {"iq": -said["iq"][0, 0], "level": said["level"][0, 0]}
    two = torch.stack([said["germ"][0, [0, 2]].logsumexp(0), said["germ"][0, 1]])
    odds["germ"] = two[1] - two[0]
    for j, (target, value) in enumerate(odds.items()):
        own = predictor.of(target)
        by_member = own.member_probabilities({"labs": np.array([[0.4, -1.2]])})
        assert by_member[0, 0, 1] == pytest.approx(float(torch.sigmoid(value / (1 + 0.5 * j))), abs=1e-6)


def test_a_target_that_there_is_not(predictor: Predictor) -> None:
    with pytest.raises(BundleError, match="did you mean 'level'"):
        predictor.of("levels")


@pytest.mark.parametrize(
    "change",
    [
        lambda facts: facts["targets"].pop(),
        lambda facts: facts["targets"][0].update(classes=["a", "b", "c"]),
        lambda facts: facts["targets"][1].update(classes=["mild", "moderate", "severe"]),
        lambda facts: facts["targets"][2].update(classes=["viral"]),
        lambda facts: facts["targets"][2].update(positive="bacterial"),
        lambda facts: facts["targets"][1].update(name="iq"),
        lambda facts: facts["targets"][1].update(operating_point=None),
        lambda facts: facts["targets"][1]["conformal"].update(lowest=[0.1, 0.2, 0.3]),
        lambda facts: facts["members"][1]["calibrations"].pop("germ"),
        lambda facts: facts["members"][0]["calibrations"]["level"].update(temperature=-1),
        lambda facts: facts["network"]["heads"].pop(),
        lambda facts: facts["network"]["heads"][0].update(scale=0),
    ],
)
def test_a_forged_bundle_is_refused_not_a_crash(tmp_path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    folder = tabled(tmp_path / "bundle")
    forge(folder, change)
    with pytest.raises(BundleError):
        load(folder)


def test_what_is_stored_of_a_target(tmp_path: Path) -> None:
    facts = json.loads((tabled(tmp_path / "bundle") / "bundle.json").read_text())
    assert facts["version"] == 4
    assert [t["name"] for t in facts["targets"]] == list(HEADS)
    assert all(set(m["calibrations"]) == set(HEADS) for m in facts["members"])
