from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tenfold.encoders import build
from tenfold.encoders.contract import Encoder
from tenfold.errors import EncoderError
from tenfold.explain import EXPLANATIONS, feature_maps, grad_cam, log_odds, normalise, raw_grad_cam
from tenfold.explain.grad_cam import last_map
from tenfold.network.network import HeadSpec, Network


def small(*inputs: str) -> Network:
    """A network whose every feature speaks for "sick", so that no map is empty by chance."""
    torch.manual_seed(3)
    names = inputs or ("film",)
    encoders = {n: build("image_residual_dilated", channels=1, width=8, depths=(1, 1, 1, 1)) for n in names}
    network = Network(encoders, {"diagnosis": HeadSpec("softmax", ("healthy", "sick"))}).eval()
    with torch.no_grad():
        weight = network.heads["diagnosis"][-1].weight
        weight[0], weight[1] = -weight[0].abs(), weight[1].abs()
    return network


class Plain(Encoder):
    """One block that passes its two channels on, so that the map can be worked out on paper."""

    def __init__(self) -> None:
        super().__init__(
            spec={"encoder": "plain", "options": {}},
            modality="image",
            channels=2,
            size=4,
            dim=2,
            blocks=[("copy", nn.PReLU(init=1.0))],
            pool=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        )


def plain() -> Network:
    network = Network({"film": Plain()}, {"diagnosis": HeadSpec("softmax", ("healthy", "sick"))})
    network.heads["diagnosis"][-1].weight = nn.Parameter(torch.tensor([[0.0, 1.0], [3.0, -1.0]]))
    return network


def test_a_map_that_is_known_on_paper() -> None:
    network = plain()
    picture = torch.zeros(1, 2, 4, 4)
    picture[0, 0, 0, 0], picture[0, 1, 3, 3], picture[0, :, 1, 1] = 1.0, 1.0, 0.8
    raw = raw_grad_cam(network, {"film": picture}, view="film", target="diagnosis", index=1)
    # log-odds = 3 a - b - b, pooled over 16 pixels: weights 3/16 and -2/16, then the positive part.
    expected = np.zeros((4, 4))
    expected[0, 0], expected[1, 1] = 3 / 16, 0.8 / 16
    np.testing.assert_allclose(raw[0], expected, atol=1e-7)
    scaled = grad_cam(network, {"film": picture}, view="film", target="diagnosis", index=1)
    np.testing.assert_allclose(scaled[0], expected * 16 / 3, atol=1e-6)


def test_the_log_odds_ignore_what_changes_no_probability() -> None:
    logits = torch.tensor([[0.3, -1.0, 2.0]])
    probability = torch.softmax(logits, 1)[0, 2]
    assert log_odds(HeadSpec("softmax", ("a", "b", "c")), logits + 5, 2).item() == pytest.approx(
        torch.log(probability / (1 - probability)).item(), abs=1e-5
    )
    assert log_odds(HeadSpec("two_sigmoid", ("a", "b")), logits, 2).item() == pytest.approx(2.0)


def test_the_network_is_left_as_it_was_even_within_inference_mode() -> None:
    network = small("front", "side")
    network.train()
    network.thaw("head")
    modes = [module.training for module in network.modules()]
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with torch.inference_mode():
        inputs = {name: torch.rand(2, 1, 64, 64) for name in ("front", "side")}
        maps = grad_cam(network, inputs, view="side", target="diagnosis", index=1)
    assert maps.shape == (2, 64, 64)
    assert maps.dtype == np.float32
    assert maps.min() >= 0
    assert maps.max() == pytest.approx(1)
    assert [module.training for module in network.modules()] == modes
    assert network.training
    assert all(p.grad is None for p in network.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_each_view_has_its_own_map() -> None:
    network = small("front", "side")
    torch.manual_seed(0)
    inputs = {name: torch.rand(1, 1, 64, 64) for name in ("front", "side")}
    call = {"target": "diagnosis", "index": 1}
    front = raw_grad_cam(network, inputs, view="front", **call)
    other = {**inputs, "front": torch.rand(1, 1, 64, 64)}
    side = raw_grad_cam(network, inputs, view="side", **call)
    assert not np.allclose(front, side)
    np.testing.assert_allclose(raw_grad_cam(network, other, view="side", **call), side, atol=1e-6)
    assert not np.allclose(raw_grad_cam(network, other, view="front", **call), front)


def test_a_batch_gives_what_single_cases_give() -> None:
    network, pictures = small(), torch.rand(3, 1, 64, 64)
    call = {"view": "film", "target": "diagnosis", "index": 1}
    together = raw_grad_cam(network, {"film": pictures}, **call)
    alone = [raw_grad_cam(network, {"film": p[None]}, **call)[0] for p in pictures]
    np.testing.assert_allclose(together, np.stack(alone), atol=1e-6)


def test_a_step_without_a_map_is_refused() -> None:
    network, picture = small(), torch.rand(1, 1, 64, 64)
    depth = network.encoders["film"].depth
    with pytest.raises(EncoderError, match="no map after step"):
        grad_cam(network, {"film": picture}, view="film", target="diagnosis", index=1, step=depth)
    assert last_map(network.encoders["film"], picture) == depth - 1


def test_a_map_of_zeros_stays_one() -> None:
    maps = np.zeros((2, 3, 3), np.float32)
    maps[1, 2, 2] = 5
    assert normalise(maps)[0].max() == 0
    assert normalise(maps)[1].max() == 1


def test_the_dictionary_says_which_methods_there_are() -> None:
    assert EXPLANATIONS["grad_cam"] is grad_cam


def test_feature_maps_of_a_residual_network() -> None:
    network, picture = small(), torch.rand(2, 1, 64, 64)
    maps = feature_maps(network, {"film": picture}, view="film", channels=4)
    assert list(maps) == ["first convolution", "pooling", "first addition", "last addition"]
    assert all(m.shape[0] == 4 and m.ndim == 3 for m in maps.values())
    assert maps["first convolution"].shape[1] > maps["last addition"].shape[1]
    spread = maps["first convolution"].std(axis=(1, 2))
    assert (np.diff(spread) <= 0).all()


def test_feature_maps_leave_out_what_a_network_does_not_have() -> None:
    assert feature_maps(plain(), {"film": torch.rand(1, 2, 8, 8)}, view="film") == {}


@pytest.mark.parametrize("model", ["resnet18", "mobilenetv2_050", "densenet121"])
def test_it_works_for_networks_of_another_make(model: str) -> None:
    torch.manual_seed(0)
    encoder = build("image_timm", network=model)
    network = Network({"film": encoder}, {"diagnosis": HeadSpec("softmax", ("a", "b"))}).eval()
    inputs = {"film": torch.rand(2, 1, 96, 96)}
    maps = [raw_grad_cam(network, inputs, view="film", target="diagnosis", index=i) for i in (0, 1)]
    assert maps[0].shape == (2, 96, 96)
    assert max(m.max() for m in maps) > 0
    assert "first convolution" in feature_maps(network, inputs, view="film")


@pytest.mark.parametrize("absent", [[1], [0, 1, 2]])
def test_a_case_without_the_picture_has_no_map_and_changes_no_other(absent: list[int]) -> None:
    network = small("front", "side")
    torch.manual_seed(0)
    inputs = {name: torch.rand(3, 1, 64, 64) for name in ("front", "side")}
    call = {"target": "diagnosis", "index": 1}
    whole = raw_grad_cam(network, inputs, view="front", **call)
    lacking = {**inputs, "front": inputs["front"].clone()}
    lacking["front"][absent] = torch.nan
    maps = raw_grad_cam(network, lacking, view="front", **call)
    assert np.isnan(maps).all((1, 2)).tolist() == [i in absent for i in range(3)]
    there = [i for i in range(3) if i not in absent]
    np.testing.assert_allclose(maps[there], whole[there], atol=1e-6)
    assert np.isnan(normalise(maps)).all((1, 2)).tolist() == [i in absent for i in range(3)]
    assert np.isfinite(raw_grad_cam(network, lacking, view="side", **call)).all()
    assert np.isfinite(raw_grad_cam(network, {"side": inputs["side"]}, view="side", **call)).all()
