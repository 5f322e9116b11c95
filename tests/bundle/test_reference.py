from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tenfold.bundle.reference import Judged, Reference, fit_reference
from tenfold.encoders import build
from tenfold.errors import BundleError
from tenfold.network.network import HeadSpec, Network

SIDE = 48


def network(**encoder: object) -> Network:
    torch.manual_seed(0)
    options = encoder or {"name": "image_residual_dilated", "width": 8, "depths": (1, 1, 1, 1)}
    return Network({"x": build(**options)}, {"y": HeadSpec("softmax", ("no", "yes"))}).eval()


def smooth(seed: int, n: int) -> Tensor:
    """Soft shadows, as films have them."""
    coarse = torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bilinear")


def fitted(model: Network, train: Tensor, held_out: Tensor) -> Reference:
    return fit_reference(model, "x", train.split(16), held_out.split(16))


def test_pictures_of_the_same_kind_pass_and_others_do_not() -> None:
    model = network()
    reference = fitted(model, smooth(0, 120), smooth(1, 60))
    good = reference.judge(model, "x", smooth(2, 200))
    assert np.median(good.distance) == pytest.approx(1.0, abs=0.1)
    assert good.unusual.mean() < 0.12
    assert good.foreign.mean() <= 0.01
    noise = torch.rand(20, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    for foreign in (noise, torch.zeros(1, 1, SIDE, SIDE), torch.ones(1, 1, SIDE, SIDE)):
        judged = reference.judge(model, "x", foreign)
        assert judged.foreign.all()
        assert judged.unusual.all()
        assert (judged.percentile == 1).all()


def test_percentiles_are_among_patients_the_network_was_not_fitted_on() -> None:
    model = network()
    held_out = smooth(1, 50)
    reference = fitted(model, smooth(0, 80), held_out)
    judged = reference.judge(model, "x", held_out)
    assert sorted(judged.percentile) == pytest.approx(np.arange(1, 51) / 50)
    # patients it was fitted on lie nearer: they must not be the yardstick
    assert np.median(reference.judge(model, "x", smooth(0, 80)).distance) < 1


def test_the_limit_lies_beyond_every_patient_of_the_study() -> None:
    reference = Reference((), np.array([0.8, 0.9, 1.0, 1.1, 9.0]))
    assert reference.limit == pytest.approx(1.25 * 9)
    assert Reference((), np.array([0.9, 1.0, 1.1])).limit == 2.5
    assert Reference((), np.exp(np.linspace(-1, 1, 99))).limit > 5


def same(a: Judged, b: Judged) -> None:
    assert a.distance == pytest.approx(b.distance, rel=1e-4)
    assert list(a.foreign) == list(b.foreign)


def test_what_is_stored_gives_the_same_back() -> None:
    model = network()
    reference = fitted(model, smooth(0, 60), smooth(1, 30))
    arrays = reference.arrays()
    again = Reference.from_state(json.loads(json.dumps(reference.state())), arrays)
    same(again.judge(model, "x", smooth(2, 20)), reference.judge(model, "x", smooth(2, 20)))
    del arrays["0.axes"]
    with pytest.raises(BundleError, match="incomplete"):
        Reference.from_state(reference.state(), arrays)


def test_batches_do_not_matter() -> None:
    model = network()
    train, held_out = smooth(0, 50), smooth(1, 25)
    whole = fit_reference(model, "x", [train], [held_out])
    same(fitted(model, train, held_out).judge(model, "x", held_out), whole.judge(model, "x", held_out))


@pytest.mark.parametrize(
    "encoder",
    [
        {"name": "image_timm", "network": "vit_tiny_patch16_224", "size": SIDE},
        {"name": "image_timm", "network": "convnext_atto"},
        {"name": "table_mlp", "features": 6, "dim": 8, "hidden": 8},
    ],
    ids=lambda encoder: str(encoder.get("network", encoder["name"])),
)
def test_other_encoders(encoder: dict[str, object]) -> None:
    model = network(**encoder)
    if encoder["name"] == "table_mlp":
        values = torch.randn(140, 6, generator=torch.Generator().manual_seed(0))
        cases = torch.stack([values, torch.ones_like(values)], 1)
        far = cases[:1] + torch.tensor([40.0, 0.0])[:, None]
    else:
        cases, far = smooth(0, 140), torch.rand(1, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(9))
    reference = fitted(model, cases[:60], cases[60:100])
    assert not reference.judge(model, "x", cases[100:]).foreign.any()
    assert reference.judge(model, "x", far).foreign.all()


def test_a_study_of_a_few_patients_that_look_alike() -> None:
    model = network()
    same_picture = smooth(0, 1).expand(6, -1, -1, -1)
    judged = fitted(model, same_picture, same_picture[:3]).judge(model, "x", smooth(0, 1))
    assert np.isfinite(judged.distance).all()
    assert not judged.foreign.any()


@pytest.mark.shared
def test_chest_films_are_foreign_to_breast_ultrasound(shared_data: Path) -> None:
    def pictures(pattern: str, start: int, n: int) -> Tensor:
        paths = sorted((shared_data).glob(pattern))[start : start + n]
        side = (96, 96)
        arrays = [np.asarray(Image.open(path).convert("L").resize(side), np.float32) / 255 for path in paths]
        return torch.from_numpy(np.stack(arrays))[:, None]

    weights = str(shared_data / "weights" / "mobilenetv2_100_imagenet.safetensors")
    model = network(name="image_timm", network="mobilenetv2_100", weights=weights, mean=0.5, std=0.5)
    breast = pictures("busi/benign/*.png", 0, 150)
    reference = fitted(model, breast[:80], breast[80:110])
    assert reference.judge(model, "x", breast[110:]).foreign.mean() <= 0.03
    chest = pictures("kermany/NORMAL/*", 0, 20)
    assert reference.judge(model, "x", chest).foreign.mean() > 0.9
