from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tenfold.encoders import build
from tenfold.encoders.contract import Encoder
from tenfold.errors import EncoderError
from tenfold.explain import EXPLANATIONS, feature_maps, grad_cam, log_odds, normalise, raw_grad_cam
from tenfold.explain.grad_cam import last_map, map_step
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


@pytest.mark.parametrize(
    "model",
    [
        "test_vit",
        "test_vit2",
        "resnet18",
        "mobilenetv2_100",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in (
                "convnext_tiny",
                "efficientnet_b0",
                "vit_tiny_patch16_224",
                "vit_small_patch16_224",
                "deit_tiny_distilled_patch16_224",
            )
        ),
    ],
)
def test_the_map_follows_what_the_network_looks_at(model: str) -> None:
    torch.manual_seed(0)
    network = Network({"film": build("image_timm", network=model, size=64)}, {"d": HeadSpec("softmax", ("a", "b"))})
    network.eval()
    picture = torch.rand(1, 1, 64, 64)
    call = {"view": "film", "target": "d"}
    maps = [raw_grad_cam(network, {"film": picture}, index=i, **call) for i in (0, 1)]
    assert maps[0].shape == (1, 64, 64)
    assert all(np.isfinite(m).all() for m in maps)
    # what speaks for one of two classes speaks against the other: not both are empty, and they differ
    assert np.ptp(maps[0] - maps[1]) > 0
    encoder = network.encoders["film"]
    below = map_step(encoder, picture, 2)
    assert below == last_map(encoder, picture) - 1
    assert raw_grad_cam(network, {"film": picture}, index=1, step=below, **call).shape == (1, 64, 64)


def test_a_transformer_s_map_is_known_on_paper() -> None:
    torch.manual_seed(0)
    encoder = build("image_timm", network="test_vit", size=64)
    network = Network({"film": encoder}, {"d": HeadSpec("softmax", ("a", "b"))}).eval()
    picture = torch.rand(1, 1, 64, 64)
    step = last_map(encoder, picture)
    assert step == encoder.depth - 2, "after the last block the class token alone is used"
    with pytest.raises(EncoderError, match="no map after step"):
        raw_grad_cam(network, {"film": picture}, view="film", target="d", index=1, step=step + 1)
    tokens = encoder(picture, 0, step).detach().requires_grad_()
    logits = network({"film": tokens}, start={"film": step})["d"]
    (gradient,) = torch.autograd.grad(logits[0, 1] - logits[0, 0], tokens)
    patches, slopes = tokens[0, 1:], gradient[0, 1:]
    assert slopes.abs().max() > 0
    small = (patches @ slopes.mean(0)).relu().reshape(1, 1, 4, 4)
    expected = nn.functional.interpolate(small, size=(64, 64), mode="bilinear", align_corners=False)
    raw = raw_grad_cam(network, {"film": picture}, view="film", target="d", index=1)
    np.testing.assert_allclose(raw[0], expected[0, 0].detach().numpy(), atol=1e-6)


@pytest.mark.parametrize("sharing", [False, True])
@pytest.mark.parametrize("pool", ["mean", "attention"])
def test_every_picture_of_a_case_has_its_map(pool: str, sharing: bool) -> None:
    one = small().encoders["film"]
    torch.manual_seed(1)
    network = Network(
        {"film": one, "side": one if sharing else small().encoders["film"]},
        {"diagnosis": HeadSpec("softmax", ("healthy", "sick"))},
        pools={"film": pool},
        shares={"side": "film"} if sharing else {},
    ).eval()
    bags = torch.rand(3, 2, 1, 64, 64)
    bags[0, 1], bags[2] = torch.nan, torch.nan
    inputs = {"film": bags, "side": torch.rand(3, 1, 64, 64)}
    call = {"view": "film", "target": "diagnosis", "index": 1}
    maps = raw_grad_cam(network, inputs, **call)
    assert maps.shape == (3, 2, 64, 64)
    assert np.isnan(maps).all((2, 3)).tolist() == [[False, True], [False, False], [True, True]]
    alone = raw_grad_cam(network, {"film": bags[:1, :1], "side": inputs["side"][:1]}, **call)
    np.testing.assert_allclose(maps[0, 0], alone[0, 0], atol=1e-6)
    scaled = grad_cam(network, inputs, **call)
    assert scaled[1].max((1, 2)).tolist() == pytest.approx([float(m.max() > 0) for m in maps[1]])
    assert map_step(network.encoders["film"], bags, 1) == last_map(one, torch.rand(1, 1, 64, 64))
    assert raw_grad_cam(network, inputs, **{**call, "view": "side"}).shape == (3, 64, 64)


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
