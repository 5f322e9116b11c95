from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.bundle.conftest import CALIBRATIONS, CLASSES, SIZE, answer, networks, saved

from tenfold.bundle import Member, Predictor, load
from tenfold.bundle.reference import fit_reference
from tenfold.encoders import build
from tenfold.network.network import HeadSpec, Network
from tenfold.serve import fast as module
from tenfold.serve.fast import Fast, fast

TABLE = np.array([12.0, 8.5, 0, 1.4])


def picture(seed: int, *shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (*shape, SIZE, SIZE), dtype=np.uint8)


def made(predictor: Predictor, probe: list[Any]) -> Fast:
    engine, reason = fast(predictor, probe=probe, threads=1)
    if reason == "OpenVINO is not installed":
        pytest.skip(reason)
    assert engine is not None, reason
    return engine


def same(engine: Fast, predictor: Predictor, cases: list[Any]) -> None:
    stacks = predictor.stack(cases)
    found = engine.look(stacks).probabilities
    for target, expected in predictor.all_probabilities(stacks).items():
        assert found[target].shape == expected.shape
        assert np.abs(found[target] - expected).max() < 1e-4
        assert np.ptp(expected) > 0.01


def test_cases_that_lack_inputs_are_answered_as_the_predictor_answers_them(bundles: tuple[Path, Path]) -> None:
    predictor = load(bundles[0])
    cases = [{"film": picture(k, 1), "labs": TABLE * (1 + k)} for k in range(4)]
    cases += [{"film": None, "labs": TABLE}, {"film": picture(9, 1), "labs": None}]
    engine = made(predictor, cases)
    same(engine, predictor, cases)
    same(engine, predictor, [{"film": None, "labs": TABLE}, {"film": None, "labs": 2 * TABLE}])


def test_shared_steps_views_targets_and_distances_in_one_pass(tmp_path: Path) -> None:
    models = networks(frozen=3)
    for seed, model in enumerate(models):
        torch.manual_seed(seed)
        model.replace_heads(
            {"diagnosis": HeadSpec("softmax", CLASSES), "course": HeadSpec("softmax", ("mild", "grave"))}
        )
        for head in model.head_list:
            torch.nn.init.normal_(next(head.parameters()))
    members = [
        Member(f"fold-{k}", model.state_dict(), dict.fromkeys(("diagnosis", "course"), CALIBRATIONS[k]))
        for k, model in enumerate(models)
    ]
    batches = [torch.rand(30, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(k)) for k in range(2)]
    reference = fit_reference(models[0], "film", batches[:1], batches[1:])
    predictor = load(
        saved(
            tmp_path / "bundle",
            models,
            answers=[answer(), answer(target="course", classes=("mild", "grave"), positive="grave")],
            members=members,
            views=3,
            references={"film": reference},
        )
    )
    assert predictor.frozen["film"] >= 3
    cases = [{"film": picture(k, 1)} for k in range(5)] + [{"film": np.zeros((1, SIZE, SIZE), np.uint8)}]
    engine = made(predictor, cases)
    same(engine, predictor, cases)
    stacks = predictor.stack(cases)
    found = engine.look(stacks).judged["film"]
    expected = predictor.references["film"].judge(predictor.networks[0], "film", predictor.tensors(stacks)["film"])
    assert found.distance == pytest.approx(expected.distance, rel=1e-3)
    assert list(found.foreign) == list(expected.foreign)


def test_bags_of_unlike_numbers_of_pictures(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = {"film": build("image_residual_dilated", width=4, depths=(1, 1, 1, 1))}
    model = Network(encoder, {"diagnosis": HeadSpec("softmax", CLASSES)}, pools={"film": "attention"}).eval()
    torch.nn.init.normal_(next(model.head_list.parameters()))
    predictor = load(saved(tmp_path / "bundle", [model]))
    cases = [{"film": picture(k, k, 1)} for k in (1, 3, 2)]
    same(made(predictor, cases), predictor, cases)


def test_an_engine_that_says_something_else_is_not_used(
    bundles: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = load(bundles[0])
    probe = [{"film": picture(k, 1), "labs": TABLE} for k in range(3)]
    made(predictor, probe)
    honest = module._Compiled.__call__
    monkeypatch.setattr(module._Compiled, "__call__", lambda self, x: [-2 * f for f in honest(self, x)])
    engine, reason = fast(predictor, probe=probe, threads=1)
    assert engine is None
    assert "a probability of diagnosis differs" in reason


@pytest.mark.parametrize("given", ["library", "cases"])
def test_the_reason_is_told_where_something_is_missing(
    bundles: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    predictor = load(bundles[0])
    monkeypatch.setitem(sys.modules, "openvino", None)
    probe = [{"film": picture(0, 1), "labs": TABLE}] if given == "library" else []
    engine, reason = fast(predictor, probe=probe)
    assert engine is None
    assert reason == {"library": "OpenVINO is not installed", "cases": "there is no case to try it on"}[given]


def test_nothing_is_told_to_the_maker_of_the_library(bundles: tuple[Path, Path]) -> None:
    made(load(bundles[0]), [{"film": picture(0, 1), "labs": TABLE}])
    assert sys.modules["openvino_telemetry"] is None
