"""Several pictures a view: how they are pooled, and views that share an encoder."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

from tenfold.encoders import Encoder, build
from tenfold.errors import EncoderError, StudyError
from tenfold.network import HeadSpec, Network, present
from tenfold.network.pooling import POOLS, AttentionPool
from tenfold.network.views import view

torch.set_num_threads(1)
HEADS = {"node": HeadSpec("softmax", ("reactive", "tuberculous", "malignant"))}
COUNTS = {"grey": (2, 1, 3, 0), "doppler": (1, 0, 2, 2)}


def _encoder() -> Encoder:
    return build("image_residual_dilated", width=4, depths=[1, 1, 1, 1], dropout=0.0)


def _bags(counts: tuple[int, ...], seed: int = 1, k: int = 3, size: int = 24) -> Tensor:
    """So many pictures a case, NaN in the other places."""
    bags = torch.rand(len(counts), k, 1, size, size, generator=torch.Generator().manual_seed(seed))
    for row, count in zip(bags, counts, strict=True):
        row[count:] = torch.nan
    return bags


def _inputs() -> dict[str, Tensor]:
    return {name: _bags(counts, seed) for seed, (name, counts) in enumerate(COUNTS.items())}


def _network(pool: str = "attention", *, sharing: bool = False, **options: object) -> Network:
    torch.manual_seed(0)
    encoders = {"grey": _encoder()} if sharing else {name: _encoder() for name in COUNTS}
    shares = {"doppler": "grey"} if sharing else {}
    network = Network(encoders, HEADS, pools=dict.fromkeys(COUNTS, pool), shares=shares, **options)
    for module in network.pool_list:
        if isinstance(module, AttentionPool):
            nn.init.normal_(module.score.weight)
    return network


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("sharing", [False, True])
def test_pictures_are_encoded_alone_and_weighed(pool: str, sharing: bool) -> None:
    network, inputs = _network(pool, sharing=sharing).eval(), _inputs()
    embedded, weights = network.embed(inputs), network.pool_weights(inputs)
    for name, counts in COUNTS.items():
        assert present(embedded[name]).tolist() == [count > 0 for count in counts]
        for i, count in enumerate(counts):
            assert weights[name][i].isfinite().tolist() == [j < count for j in range(3)]
            if count:
                alone = network.encoders[name](inputs[name][i, :count])
                shares = weights[name][i, :count]
                torch.testing.assert_close(shares.sum(), torch.tensor(1.0))
                torch.testing.assert_close(embedded[name][i], shares @ alone)
    assert weights["grey"][1, 0] == 1
    unequal = (weights["grey"][2] - 1 / 3).abs().max() > 1e-6
    assert unequal == (pool == "attention")


def test_a_fresh_attention_is_the_mean_and_learns_to_weigh() -> None:
    pool, embeddings = AttentionPool(2), torch.randn(20, 3, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(pool(embeddings), embeddings.mean(1))
    wanted = embeddings[torch.arange(20), embeddings[:, :, 0].argmax(1)]
    optimiser = torch.optim.Adam(pool.parameters(), lr=0.1)
    for _ in range(100):
        optimiser.zero_grad()
        (pool(embeddings) - wanted).pow(2).mean().backward()
        optimiser.step()
    assert (pool.shares(embeddings).argmax(1) == embeddings[:, :, 0].argmax(1)).float().mean() > 0.9


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("fusion", ["concat", "gated", "mean"])
def test_gradients_stay_numbers_whatever_is_absent(pool: str, fusion: str) -> None:
    network = _network(pool, fusion=fusion, modality_dropout=0.3).train()
    logits = network(_inputs())["node"]
    nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert logits.isfinite().all()
    assert all(g.isfinite().all() for g in gradients)
    assert all(p.grad is not None for p in network.encoder_list.parameters())


def test_norm_statistics_are_those_of_the_pictures_that_are_there() -> None:
    network, alone = _network("mean").train(), _network("mean").train()
    inputs = {"grey": _inputs()["grey"]}
    network.embed(inputs)
    alone.encoders["grey"](inputs["grey"][~inputs["grey"][:, :, 0, 0, 0].isnan()])
    for ours, theirs in zip(network.state_dict().values(), alone.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_lone_picture_can_be_learnt_from_and_moves_no_statistics() -> None:
    network = _network("attention").train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network({"grey": _bags((1,))})["node"].sum().backward()
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert all(module.training for module in network.modules())


def test_views_that_share_an_encoder_pass_it_as_one_batch() -> None:
    network, alone = _network("mean", sharing=True).train(), _network("mean", sharing=True).train()
    inputs = _inputs()
    embedded = network.embed(inputs)
    pictures = torch.cat([x.flatten(0, 1) for x in inputs.values()])
    encoded = alone.encoders["grey"](pictures[present(pictures)])
    torch.testing.assert_close(embedded["grey"][0], encoded[:2].mean(0))
    torch.testing.assert_close(embedded["doppler"][3], encoded[-2:].mean(0))
    for ours, theirs in zip(network.state_dict().values(), alone.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_shared_encoder_is_one_object_with_one_set_of_weights() -> None:
    network = _network(sharing=True)
    assert network.input_names == ("grey", "doppler")
    assert network.encoders["grey"] is network.encoders["doppler"]
    assert len(network.encoder_list) == 1
    assert len(_network().encoder_list) == 2
    network.thaw(2)
    assert network.frozen("grey") == network.frozen("doppler") == 3
    named = Network({"a": (one := _encoder()), "b": _encoder(), "c": one}, HEADS, shares={"c": "a"})
    assert named.input_names == ("a", "b", "c")
    assert named.encoders["c"] is named.encoders["a"] is not named.encoders["b"]


@pytest.mark.parametrize("sharing", [False, True])
def test_the_spec_survives_json(sharing: bool) -> None:
    network = _network(sharing=sharing, fusion="mean").eval()
    twin = Network.from_spec(json.loads(json.dumps(network.spec))).eval()
    twin.load_state_dict(network.state_dict())
    assert twin.spec == network.spec
    inputs = {"grey": _bags((2, 1)), "doppler": _bags((3, 0))}
    assert torch.equal(twin(inputs)["node"], network(inputs)["node"])


def test_what_was_saved_before_there_were_bags_still_loads() -> None:
    network = Network({name: _encoder() for name in COUNTS}, HEADS)
    spec = {key: value for key, value in network.spec.items() if key not in ("pools", "shares")}
    old = Network.from_spec(spec)
    old.load_state_dict(network.state_dict())
    assert not any(key.startswith("pool") for key in network.state_dict())
    assert {key.split(".")[0] for key in network.state_dict()} == {"encoder_list", "fusion", "head_list"}


@pytest.mark.parametrize("sharing", [False, True])
def test_going_on_from_any_step_gives_the_same(sharing: bool) -> None:
    network, inputs = _network(sharing=sharing).eval(), _inputs()
    inputs = {name: x[:3] for name, x in inputs.items()}
    whole = network(inputs)["node"]
    for k in range(network.encoders["grey"].depth + 1):
        middle = network.features("grey", inputs["grey"], 0, k)
        assert tuple(middle.shape[:2]) == (3, 3)
        assert present(middle.flatten(0, 1)).tolist() == present(inputs["grey"].flatten(0, 1)).tolist()
        torch.testing.assert_close(network({**inputs, "grey": middle}, start={"grey": k})["node"], whole)


def test_steps_on_nothing_keep_the_shape_that_they_would_have_given() -> None:
    network = _network().train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    depth = network.encoders["grey"].depth
    for k in range(depth + 1):
        nothing = network.features("grey", _bags((0, 0)), 0, k)
        assert nothing.shape == network.eval().features("grey", _bags((1, 1)), 0, k).shape
        assert nothing.isnan().all()
        network.train()
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_a_case_without_any_picture_is_refused() -> None:
    with pytest.raises(EncoderError, match="1 of 2 cases have no grey and no doppler"):
        _network().eval()({"grey": _bags((1, 0)), "doppler": _bags((2, 0))})


def test_the_test_time_views_of_a_bag_are_those_of_its_pictures() -> None:
    bags = _bags((2, 0, 3))
    seen = view(bags, 2)
    assert torch.equal(seen[2, 1], view(bags[2, 1:2], 2)[0])
    assert present(seen.flatten(0, 1)).tolist() == present(bags.flatten(0, 1)).tolist()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"pools": {"grey": "men"}}, "did you mean 'mean'"),
        ({"pools": {"gray": "mean"}}, "did you mean 'grey'"),
        ({"shares": {"elastography": "gray"}}, "did you mean 'grey'"),
        ({"shares": {"doppler": "grey"}}, "has another"),
        ({"shares": {"b": "a", "a": "grey"}}, "no input|none of its own"),
    ],
)
def test_impossible_pools_and_shares_are_refused(options: dict[str, dict[str, str]], says: str) -> None:
    with pytest.raises(StudyError, match=says):
        Network({name: _encoder() for name in COUNTS}, HEADS, **options)
