"""Fusion, and what happens where a case lacks an input."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tenfold.encoders import build
from tenfold.errors import EncoderError, StudyError
from tenfold.network import HeadSpec, Network, present
from tenfold.network.fusion import FUSIONS, Gated, Mean

torch.set_num_threads(1)
HEADS = {"nec": HeadSpec("softmax", ("no", "yes"))}
DIMS = {"film": 3, "labs": 2}


def _network(fusion: str = "concat", **options: float) -> Network:
    torch.manual_seed(0)
    encoders = {
        "film": build("image_residual_dilated", width=4, depths=[1, 1, 1, 1], dropout=0.0),
        "labs": build("table_conv1d", features=5, dim=8),
    }
    return Network(encoders, HEADS, fusion=fusion, **options)


def _inputs(n: int = 4) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "film": torch.rand(n, 1, 32, 32, generator=generator),
        "labs": torch.rand(n, 2, 5, generator=generator),
    }


def _without(inputs: dict[str, Tensor], name: str, *rows: int) -> dict[str, Tensor]:
    changed = inputs[name].clone()
    changed[list(rows)] = torch.nan
    return {**inputs, name: changed}


def _embeddings(n: int, **options: object) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {name: torch.randn(n, dim, generator=generator).requires_grad_() for name, dim in DIMS.items()}


@pytest.mark.parametrize("fusion", FUSIONS)
def test_what_one_case_lacks_is_nothing_to_the_others(fusion: str) -> None:
    network, inputs = _network(fusion).eval(), _inputs()
    whole = network(inputs)["nec"]
    lacking = network(_without(_without(inputs, "film", 1), "labs", 2))["nec"]
    assert lacking.isfinite().all()
    torch.testing.assert_close(lacking[[0, 3]], whole[[0, 3]])
    assert not torch.allclose(lacking[1], whole[1])
    assert not torch.allclose(lacking[2], whole[2])


@pytest.mark.parametrize("fusion", FUSIONS)
def test_an_input_that_is_not_named_is_absent_for_everybody(fusion: str) -> None:
    network, inputs = _network(fusion).eval(), _inputs()
    nan = _without(inputs, "labs", 0, 1, 2, 3)
    torch.testing.assert_close(network({"film": inputs["film"]})["nec"], network(nan)["nec"])


@pytest.mark.parametrize(("absent", "left"), [((1,), [0, 2, 3]), ((0, 1, 2), [3]), ((0, 1, 2, 3), [])])
def test_norm_statistics_never_see_an_absent_row(absent: tuple[int, ...], left: list[int]) -> None:
    inputs = _inputs()
    network, alone = _network().train(), _network().train()
    embedded = network.embed(_without(inputs, "film", *absent))["film"]
    if len(left) > 1:
        torch.testing.assert_close(embedded[left], alone.embed({"film": inputs["film"][left]})["film"])
    assert present(embedded).tolist() == [i in left for i in range(4)]
    assert all(m.training for m in network.modules())
    for (key, ours), theirs in zip(network.state_dict().items(), alone.state_dict().values(), strict=True):
        if "running" in key and key.startswith("encoder_list.0"):
            torch.testing.assert_close(ours, theirs)
        assert ours.isfinite().all()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_gradients_stay_numbers_and_reach_what_stands_for_the_absent(fusion: str) -> None:
    network = _network(fusion).train()
    logits = network(_without(_without(_inputs(), "film", 1), "labs", 2))["nec"]
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 0, 1])).backward()
    gradients = {name: p.grad for name, p in network.named_parameters()}
    assert all(g is not None and g.isfinite().all() for g in gradients.values())
    stands = [g for name, g in gradients.items() if name.startswith("fusion.absent")]
    assert len(stands) == (2 if fusion == "concat" else 0)
    assert all(g.any() for g in stands)


def test_a_frozen_embedding_of_nan_is_absent_too() -> None:
    network, inputs = _network().eval(), _inputs()
    start = {"film": network.encoders["film"].depth}
    kept = network.embed(inputs)["film"].detach().clone()
    kept[1] = torch.nan
    from_kept = network({**inputs, "film": kept}, start=start)["nec"]
    torch.testing.assert_close(from_kept, network(_without(inputs, "film", 1))["nec"])


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_case_without_any_input_is_refused_and_counted(fusion: str) -> None:
    inputs = _without(_without(_inputs(), "film", 0, 1, 3), "labs", 1, 2, 3)
    with pytest.raises(EncoderError, match="2 of 4 cases have no film and no labs"):
        _network(fusion)(inputs)


def test_a_network_that_broke_down_is_not_taken_for_an_absent_input() -> None:
    network = _network().eval()
    torch.nn.init.constant_(network.encoders["film"].blocks[1].reduce.conv.weight, torch.nan)
    assert not network(_inputs())["nec"].isfinite().any()


def test_a_single_input_brings_no_parameters_of_its_own() -> None:
    network = Network({"labs": build("table_mlp", features=5)}, HEADS, modality_dropout=0.5)
    assert not any(key.startswith("fusion") for key in network.state_dict())
    assert torch.equal(network.eval()(_inputs())["nec"], network.train().eval()(_inputs())["nec"])
    with pytest.raises(EncoderError, match="1 of 4 cases have no labs"):
        network(_without(_inputs(), "labs", 2))


def test_a_spec_from_before_modality_dropout_is_read() -> None:
    spec = _network(modality_dropout=0.3).spec
    assert Network.from_spec(spec).spec == spec
    del spec["modality_dropout"]
    assert Network.from_spec(spec).fusion.drop == 0
    with pytest.raises(StudyError, match="modality_dropout = 1"):
        _network(modality_dropout=1.0)


def _lost(fusion: str, drop: float, n: int = 4000) -> Tensor:
    """Which inputs each case lost: the gradient of what was dropped is 0."""
    torch.manual_seed(3)
    module, embeddings = FUSIONS[fusion](DIMS, drop=drop).train(), _embeddings(n)
    module(embeddings).pow(2).sum().backward()
    return torch.stack([embeddings[name].grad.abs().sum(1) == 0 for name in DIMS], dim=1)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("drop", [0.3, 0.9])
def test_modality_dropout_never_takes_all(fusion: str, drop: float) -> None:
    lost = _lost(fusion, drop)
    assert not lost.all(dim=1).any()
    # each input is lost with the probability asked for, less half of the cases in which both would have been
    torch.testing.assert_close(lost.float().mean(0), torch.full((2,), drop - drop**2 / 2), atol=0.03, rtol=0)


def test_modality_dropout_leaves_a_case_the_input_that_it_has() -> None:
    module = FUSIONS["concat"](DIMS, drop=0.9).train()
    embeddings = {name: e.detach() for name, e in _embeddings(200).items()}
    embeddings["film"][:] = torch.nan
    assert torch.equal(module(embeddings)[:, 3:], embeddings["labs"])


@pytest.mark.parametrize("fusion", FUSIONS)
def test_nothing_is_dropped_in_eval(fusion: str) -> None:
    module, embeddings = FUSIONS[fusion](DIMS, drop=0.9).eval(), _embeddings(50)
    never = FUSIONS[fusion](DIMS).train()
    never.load_state_dict(module.state_dict())
    assert torch.equal(module(embeddings), never(embeddings))


def test_the_gate_weighs_only_what_is_there() -> None:
    module, embeddings = Gated(DIMS), _embeddings(3)
    labs_only = {**embeddings, "film": torch.full((3, 3), torch.nan)}
    expected = module.hidden[1](embeddings["labs"]).tanh()
    torch.testing.assert_close(module(labs_only), expected)
    said = torch.stack([layer(embeddings[k]).tanh() for layer, k in zip(module.hidden, DIMS, strict=True)])
    both = module(embeddings)
    assert (both <= said.amax(0) + 1e-6).all()
    assert (both >= said.amin(0) - 1e-6).all()
    assert both.shape == (3, 64)


def test_the_mean_is_of_those_that_are_there() -> None:
    module, embeddings = Mean(DIMS), _embeddings(3)
    said = [layer(embeddings[k]).tanh() for layer, k in zip(module.hidden, DIMS, strict=True)]
    torch.testing.assert_close(module(embeddings), (said[0] + said[1]) / 2)
    torch.testing.assert_close(module({"labs": embeddings["labs"]}), said[1])


def test_table_encoders_learn_whatever_is_thawed() -> None:
    network = _network()
    for what in ("head", 1, "all"):
        network.thaw(what)
        assert network.frozen("labs") == 0
        assert all(p.requires_grad for p in network.encoders["labs"].parameters())
    network.thaw("head")
    assert network.frozen("film") == network.encoders["film"].depth
