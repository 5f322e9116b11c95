"""The network: what it counts, joins, freezes, replaces and rebuilds."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from tenfold.encoders import Encoder, build
from tenfold.errors import EncoderError, StudyError
from tenfold.network import HeadSpec, Network, mirror
from tenfold.types import Calibration

torch.set_num_threads(1)
YES_NO = HeadSpec("softmax", ("normal", "pneumonia"))
FINDINGS = HeadSpec("multilabel", tuple(f"finding {i}" for i in range(14)), hidden=6, dropout=0.5)


def _encoder(**options: object) -> Encoder:
    return build("image_residual_dilated", **{"width": 4, "depths": [1, 1, 1, 1], **options})


def _network(**options: object) -> Network:
    return Network({"film": _encoder()}, {"pneumonia": YES_NO}, **options)


def _films(n: int = 3, size: int = 48) -> torch.Tensor:
    return torch.rand(n, 1, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("channels", "count"), [(1, 23_761_730), (3, 23_762_882)])
def test_the_network_of_liang_and_zheng_has_its_parameters(channels: int, count: int) -> None:
    head = HeadSpec("two_sigmoid", ("normal", "pneumonia"), hidden=128)
    network = Network({"film": build("image_residual_dilated", channels=channels)}, {"pneumonia": head})
    assert network.parameter_count == count


def test_every_target_gets_its_logits() -> None:
    network = Network({"film": _encoder()}, {"pneumonia": YES_NO, "a.type": FINDINGS}).eval()
    logits = network({"film": _films()})
    assert {k: tuple(v.shape) for k, v in logits.items()} == {"pneumonia": (3, 2), "a.type": (3, 14)}


def test_going_on_from_any_step_gives_the_same() -> None:
    network = _network().eval()
    encoder = network.encoders["film"]
    whole = network({"film": _films()})["pneumonia"]
    for k in range(encoder.depth + 1):
        middle = encoder(_films(), 0, k)
        torch.testing.assert_close(network({"film": middle}, start={"film": k})["pneumonia"], whole)


def test_two_inputs_are_joined_end_to_end_in_the_order_they_were_named() -> None:
    network = Network({"type": _encoder(), "a.film": _encoder(width=8)}, {"pneumonia": YES_NO}).eval()
    embedded = network.embed({"type": _films(), "a.film": _films(size=64)})
    joined = network.fusion(embedded)
    assert torch.equal(joined, torch.cat([embedded["type"], embedded["a.film"]], 1))
    with pytest.raises(EncoderError, match=r"no input type and no input a\.film"):
        network({})


def test_head_only_fixes_the_whole_encoder_in_training() -> None:
    network = _network()
    network.thaw("head")
    network.train()
    encoder = network.encoders["film"]
    assert network.frozen("film") == encoder.depth
    assert {n.split(".")[0] for n, p in network.named_parameters() if p.requires_grad} == {"head_list"}
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    first = network.embed({"film": _films()})["film"]
    assert torch.equal(first, network.embed({"film": _films()})["film"]), "dropout of a frozen encoder is on"
    assert all(torch.equal(before[k], v) for k, v in encoder.state_dict().items()), "norm statistics moved"


@pytest.mark.parametrize(("what", "frozen"), [("all", 0), (1, 4), (3, 2), (5, 0), (99, 0), (0, 6), ("head", 6)])
def test_thaw_counts_blocks_from_the_top(what: str | int, frozen: int) -> None:
    network = _network()
    network.thaw(what)
    assert network.frozen("film") == frozen
    for index, block in enumerate(network.encoders["film"].blocks):
        assert all(p.requires_grad == (index >= frozen) for p in block.parameters())
    network.train()
    norms = [m for m in network.encoders["film"].blocks[0].modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(norm.training == (frozen == 0) for norm in norms)


def test_a_step_of_training_moves_only_what_is_thawed() -> None:
    network = _network()
    network.thaw(1)
    network.train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    nn.functional.cross_entropy(network({"film": _films()})["pneumonia"], torch.tensor([0, 1, 1])).backward()
    optimiser.step()
    moved = {k for k, v in network.state_dict().items() if not torch.equal(before[k], v)}
    assert moved
    assert all(k.startswith(("encoder_list.0.blocks.4.", "head_list.")) for k in moved)


def test_thawing_again_lets_all_learn() -> None:
    network = _network()
    network.thaw("head")
    network.thaw("all")
    assert all(p.requires_grad for p in network.parameters())
    assert all(m.training for m in network.train().modules())


@pytest.mark.parametrize("what", ["heads", -1])
def test_an_unknown_thaw_is_refused(what: str | int) -> None:
    with pytest.raises(StudyError, match="thaw"):
        _network().thaw(what)


def test_new_heads_leave_the_encoders_and_what_is_frozen() -> None:
    network = _network().eval()
    network.thaw(1)
    embedding = network.embed({"film": _films()})["film"]
    network.replace_heads({"findings": FINDINGS})
    assert tuple(network({"film": _films()})["findings"].shape) == (3, 14)
    assert torch.equal(network.embed({"film": _films()})["film"], embedding)
    assert network.frozen("film") == 4
    assert not network.heads["findings"].training


def test_the_spec_survives_json_and_rebuilds_the_same_network() -> None:
    encoders = {"z": _encoder(), "a": _encoder(width=8, channels=3)}
    network = Network(encoders, {"z": YES_NO, "a": FINDINGS}, dropout=0.2, modality_dropout=0.3).eval()
    twin = Network.from_spec(json.loads(json.dumps(network.spec, sort_keys=True))).eval()
    twin.load_state_dict(network.state_dict())
    films = {"z": _films(), "a": _films().expand(-1, 3, -1, -1)}
    for target, logits in network(films).items():
        assert torch.equal(twin(films)[target], logits)
    assert twin.spec == network.spec


def test_scores_of_a_softmax_are_its_logits() -> None:
    logits = torch.tensor([[1.0, -2.0], [0.5, 0.25]], dtype=torch.bfloat16)
    scores = _network().to_scores("pneumonia", logits)
    assert scores.dtype == np.float64
    np.testing.assert_array_equal(scores, [[1.0, -2.0], [0.5, 0.25]])


def test_scores_of_two_sigmoids_give_the_positive_s_own_probability() -> None:
    network = Network({"film": _encoder()}, {"p": HeadSpec("two_sigmoid", ("normal", "pneumonia"))})
    logits = torch.tensor([[3.0, 1.0], [-1.0, -0.5]])
    probabilities = Calibration().apply(network.to_scores("p", logits))
    np.testing.assert_allclose(probabilities[:, 1], torch.sigmoid(logits[:, 1]).numpy(), rtol=1e-6)


def test_findings_that_do_not_exclude_each_other_have_no_scores() -> None:
    network = Network({"film": _encoder()}, {"f": FINDINGS})
    with pytest.raises(StudyError, match="multi-label"):
        network.to_scores("f", torch.zeros(1, 14))


def test_channels_last_gives_the_same_and_stays() -> None:
    network = _network().eval()
    expected = network({"film": _films()})["pneumonia"]
    network = network.to(memory_format=torch.channels_last)
    maps = network.encoders["film"](_films(), 0, 2)
    assert maps.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(network({"film": _films()})["pneumonia"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "classes", "says"),
    [
        ("softmaxx", ("a", "b"), "did you mean 'softmax'"),
        ("softmax", ("a",), "at least 2"),
        ("softmax", ("a", "a"), "each once"),
        ("two_sigmoid", ("a", "b", "c"), "exactly 2"),
        ("multilabel", (), "at least 1"),
    ],
)
def test_impossible_heads_are_refused(kind: str, classes: tuple[str, ...], says: str) -> None:
    with pytest.raises(StudyError, match=says):
        HeadSpec(kind, classes)


def test_an_unknown_fusion_is_refused() -> None:
    with pytest.raises(StudyError, match="did you mean 'concat'"):
        _network(fusion="concatenate")


LEVELS = HeadSpec("ordinal", ("none", "mild", "severe"), cut=2)
SCORE = HeadSpec("number", ("not below 85", "below 85"), centre=85.0, scale=15.0)
GROUPED = HeadSpec("softmax", ("well", "cold", "flu", "pneumonia"), positive=(2, 3))


def _connectomes(n: int = 4) -> torch.Tensor:
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(2))


def _dense(heads: dict[str, HeadSpec], **options: object) -> Network:
    torch.manual_seed(0)
    return Network({"brain": build("connectome_dense", edges=6, widths=[5, 4])}, heads, **options)


def test_several_kinds_of_heads_share_a_layer_and_a_decoder_does_not() -> None:
    encoder = build("connectome_dense", edges=6, widths=[5, 4])
    heads = {"a": LEVELS, "b": SCORE, "c": GROUPED, "again": mirror(encoder)}
    network = Network({"brain": encoder}, heads, shared=3).eval()
    said = network({"brain": _connectomes()})
    assert {k: tuple(v.shape) for k, v in said.items()} == {"a": (4, 2), "b": (4, 1), "c": (4, 4), "again": (4, 6)}
    widths = [tuple(m.weight.shape) for m in network.heads["again"].modules() if isinstance(m, nn.Linear)]
    assert widths == [(5, 4), (6, 5)]
    with torch.no_grad():
        network.shared[0].weight.zero_()
    without = network({"brain": _connectomes()})
    assert torch.equal(without["again"], said["again"])
    assert (without["b"][0] == without["b"][1]).all()
    assert not torch.equal(without["b"], said["b"])


@pytest.mark.parametrize("options", [{}, {"shared": 3}, {"shared": 3, "norm": "batch", "head_norm": True}])
def test_a_shared_layer_and_norms_survive_json_and_a_case_alone_can_be_learned_from(options: dict[str, object]) -> None:
    network = _dense({"a": LEVELS, "b": SCORE, "c": GROUPED}, **options)
    network.train()({"brain": _connectomes(1)})["b"].sum().backward()
    twin = Network.from_spec(json.loads(json.dumps(network.spec))).eval()
    twin.load_state_dict(network.state_dict())
    assert twin.spec == network.spec
    assert twin.head_specs == network.head_specs
    for name, said in network.eval()({"brain": _connectomes()}).items():
        assert torch.equal(twin({"brain": _connectomes()})[name], said)


def test_what_was_saved_before_there_was_a_shared_layer_still_loads() -> None:
    network = _dense({"y": YES_NO})
    spec = {name: network.spec[name] for name in ("encoders", "fusion", "dropout")}
    spec["heads"] = [
        {"target": "y", "kind": "softmax", "classes": ["normal", "pneumonia"], "hidden": 0, "dropout": 0.0}
    ]
    assert network.spec["heads"] == spec["heads"]
    assert list(Network.from_spec(spec).state_dict()) == list(network.state_dict())
    assert not any(name.startswith("shared") for name in network.state_dict())


def test_levels_in_order_are_scored_at_the_cut() -> None:
    said = torch.tensor([[3.0, -1.0]], dtype=torch.float64)
    np.testing.assert_array_equal(_dense({"a": LEVELS}).to_scores("a", said), [[0.0, -1.0]])
    first = HeadSpec("ordinal", ("none", "mild", "severe"))
    np.testing.assert_array_equal(_dense({"a": first}).to_scores("a", said), [[0.0, 3.0]])
    assert LEVELS.truth(torch.tensor([0.0, 1.0, 2.0, torch.nan])).nan_to_num(9).tolist() == [0, 0, 1, 9]


def test_the_steps_between_levels_share_one_direction() -> None:
    said = _dense({"a": LEVELS}).eval()({"brain": _connectomes()})["a"]
    gaps = said[:, 0] - said[:, 1]
    assert torch.allclose(gaps, gaps[0].expand(4))
    assert gaps[0] > 0


@pytest.mark.parametrize(("sign", "positive"), [(-1, [True, False, False]), (1, [False, False, True])])
def test_a_score_is_positive_on_its_side_of_the_cut_and_comes_back_in_its_units(
    sign: int, positive: list[bool]
) -> None:
    head = HeadSpec("number", SCORE.classes, centre=85.0, scale=15.0, sign=sign)
    labels = torch.tensor([70.0, 85.0, 100.0])
    said = head.taught(labels)[:, None]
    scores = _dense({"b": head}).to_scores("b", said)
    assert ((scores[:, 1] - scores[:, 0]) > 0).tolist() == positive == head.truth(labels).bool().tolist()
    np.testing.assert_allclose(head.number(scores), labels)


def test_classes_put_together_have_the_sum_of_their_probabilities() -> None:
    said = torch.randn(5, 4, generator=torch.Generator().manual_seed(3)).double()
    scores = Calibration().apply(_dense({"c": GROUPED}).to_scores("c", said))
    np.testing.assert_allclose(scores[:, 1], said.softmax(1)[:, 2:].sum(1).numpy(), rtol=1e-12)
    alone = HeadSpec("softmax", GROUPED.classes)
    assert not alone.binary
    assert _dense({"c": alone}).to_scores("c", said).shape == (5, 4)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"kind": "ordinal", "classes": ("a", "b"), "cut": 2}, "cut = 2 of 2 levels"),
        ({"kind": "number", "classes": ("a",)}, "exactly 2"),
        ({"kind": "number", "classes": ("a", "b"), "scale": 0.0}, "scale = 0.0"),
        ({"kind": "softmax", "classes": ("a", "b"), "positive": (0, 1)}, "not of all"),
        ({"kind": "softmax", "classes": ("a", "b"), "positive": (2,)}, "not of all"),
        ({"kind": "reconstruct"}, "features of at least 1"),
        ({"kind": "softmax", "classes": ("a", "b"), "features": 3}, "none of both"),
    ],
)
def test_impossible_targets_are_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(StudyError, match=says):
        HeadSpec(**options)


def test_impossible_shared_layers_and_decoders_are_refused() -> None:
    with pytest.raises(StudyError, match="did you mean 'layer'"):
        _dense({"b": SCORE}, norm="layr")
    with pytest.raises(StudyError, match="shared = -1"):
        _dense({"b": SCORE}, shared=-1)
    with pytest.raises(StudyError, match="a decoder of images"):
        mirror(_encoder())
    with pytest.raises(StudyError, match="target 'x': it is a reconstruction"):
        _dense({"x": HeadSpec("reconstruct", features=6)}).to_scores("x", torch.zeros(1, 6))
