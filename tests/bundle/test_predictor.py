from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tenfold.bundle import load
from tenfold.errors import BundleError, ImageError
from tenfold.modalities.image import ImagePreparation, read_image
from tenfold.network.views import view

from .conftest import CALIBRATIONS, SIZE, answer, networks, saved

Film = Callable[[int], Path]


def by_hand(paths: list[Path], views: int = 1) -> np.ndarray:
    """The (members, n, classes) that the networks give without a bundle."""
    pictures = torch.from_numpy(np.stack([ImagePreparation(size=SIZE).apply(read_image(p)) for p in paths]))
    pictures = pictures.float() / 255
    found = []
    for model, calibration in zip(networks(), CALIBRATIONS, strict=True):
        with torch.no_grad():
            logits = [model({"film": view(pictures, i)})["diagnosis"] for i in range(views)]
        found.append(calibration.apply(torch.stack(logits).double().mean(0).numpy()))
    return np.stack(found)


@pytest.mark.parametrize("views", [1, 3])
def test_what_was_saved_is_what_predicts(tmp_path: Path, film: Film, views: int) -> None:
    predictor = load(saved(tmp_path / "bundle", networks(), views=views))
    paths = [film(i) for i in range(5)]
    expected = by_hand(paths, views)
    predictions = predictor.predict(paths, batch=2)
    assert [p.case for p in predictions] == [str(p) for p in paths]
    for i, prediction in enumerate(predictions):
        mean = expected[:, i].mean(axis=0)
        assert prediction.probabilities == pytest.approx(dict(zip(("healthy", "sick"), mean, strict=True)), abs=1e-6)
        assert prediction.spread == pytest.approx((expected[:, i, 1].min(), expected[:, i, 1].max()), abs=1e-6)
        assert prediction.decision == ("sick" if mean[1] >= 0.4 else "healthy")
        assert prediction.threshold == 0.4


def test_prepared_arrays_and_a_chosen_model(bundle: Path, film: Film) -> None:
    paths = [film(i) for i in range(3)]
    expected = by_hand(paths)
    both, one = load(bundle), load(bundle, member="fold-0-1")
    arrays = {"film": np.stack([both.prepare(p)["film"] for p in paths])}
    np.testing.assert_allclose(both.predict_arrays(arrays), expected.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(one.predict_arrays(arrays), expected[1], atol=1e-6)
    assert (one.members, len(one.networks)) == (("fold-0-1",), 1)
    with pytest.raises(BundleError, match="did you mean 'fold-0-1'"):
        load(bundle, member="fold01")


def test_shared_steps_run_once(bundle: Path, film: Film) -> None:
    predictor = load(bundle)
    assert predictor.frozen == {"film": 2}
    calls: list[tuple[int, int]] = []
    for m, network in enumerate(predictor.networks):
        for k, block in enumerate(network.encoders["film"].blocks):
            block.register_forward_hook(lambda *_, m=m, k=k: calls.append((m, k)))
    predictor.predict(film(0))
    assert sorted(calls) == [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (1, 3), (1, 4)]


def test_models_that_share_nothing_and_everything(tmp_path: Path) -> None:
    assert load(saved(tmp_path / "a", networks(frozen=0))).frozen == {"film": 0}
    assert load(saved(tmp_path / "b", networks(frozen=5))).frozen == {"film": 6}


def test_what_a_predictor_tells(bundle: Path) -> None:
    predictor = load(bundle)
    assert (predictor.target, predictor.classes, predictor.positive) == ("diagnosis", ("healthy", "sick"), "sick")
    assert predictor.operating_point is not None
    assert predictor.operating_point.rule == "sensitivity >= 0.95"
    assert predictor.card.startswith("# Card")
    assert predictor.facts["simulated"] is True
    assert predictor.digest == json.loads((bundle / "bundle.json").read_text())["digest"]
    assert predictor.trained_on_patients(["p3", "p2"]) == ["p2"]
    assert predictor.trained_on_images(["ab" * 32, "cd" * 32]) == ["ab" * 32]


def test_a_film_that_cannot_be_read(bundle: Path, film: Film, tmp_path: Path) -> None:
    predictor, missing = load(bundle), tmp_path / "missing.png"
    with pytest.raises(ImageError, match="no such file"):
        predictor.predict([film(0), missing])
    found = predictor.predict([missing, film(0), missing], cases=["a", "b", "c"], on_error="return")
    assert [p.case for p in found] == ["a", "b", "c"]
    assert [bool(p.error) for p in found] == [True, False, True]
    assert found[0].to_dict()["decision"] is None
    assert found[1].probabilities == pytest.approx(predictor.predict(film(0))[0].probabilities)
    json.dumps([p.to_dict() for p in found], allow_nan=False)


def test_several_inputs(tmp_path: Path, film: Film) -> None:
    predictor = load(saved(tmp_path / "bundle", networks("front", "side")))
    films = {"front": [film(0), film(1)], "side": [film(2), film(3)]}
    both = predictor.predict(films)
    swapped = predictor.predict({"front": films["side"], "side": films["front"]})
    assert len(both) == 2
    assert both[0].probabilities != pytest.approx(swapped[0].probabilities, abs=1e-9)
    for wrong in (film(0), {"front": [film(0)]}, {**films, "top": [film(0)] * 2}, {**films, "side": [film(2)]}):
        with pytest.raises(ImageError):
            predictor.predict(wrong)


def test_the_decision_of_three_classes(bundle: Path) -> None:
    predictor = load(bundle)
    predictor.classes = ("healthy", "viral", "sick")
    assert predictor.decide(np.array([0.2, 0.39, 0.41])) == "sick"
    assert predictor.decide(np.array([0.1, 0.52, 0.38])) == "viral"
    predictor.positive = ""
    assert predictor.decide(np.array([0.5, 0.05, 0.45])) == "healthy"


def test_without_a_positive_class_the_likeliest_wins(tmp_path: Path, film: Film) -> None:
    predictor = load(saved(tmp_path / "bundle", networks(), answers=[answer(positive="", operating_point=None)]))
    prediction = predictor.predict(film(0))[0]
    assert prediction.decision == max(prediction.probabilities, key=lambda c: prediction.probabilities[c])
    assert math.isnan(prediction.threshold)
    assert prediction.to_dict()["threshold"] is None


def test_a_device_that_is_not_here(bundle: Path) -> None:
    for device in ("quantum", *(() if torch.cuda.is_available() else ("cuda",))):
        with pytest.raises(BundleError, match="no device"):
            load(bundle, device=device)


def test_loading_imports_no_training_code(bundle: Path) -> None:
    program = (
        "import sys; from tenfold.bundle import load; load(sys.argv[1]);"
        "found = [m for m in sys.modules if m.split('.')[:2] in [['tenfold', p] for p in"
        " ('training', 'cohort', 'study', 'stats', 'config', 'explain', 'report', 'simulate')]];"
        "sys.exit(f'imported: {found}' if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(bundle)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
