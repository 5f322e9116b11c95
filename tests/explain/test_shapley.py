"""The axioms of Shapley, on networks whose answer is known."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from torch import Tensor

from tenfold.encoders import build
from tenfold.errors import EncoderError
from tenfold.explain import log_odds, modality_shapley
from tenfold.network import HeadSpec, Network

torch.set_num_threads(1)
NAMES = ("film", "labs", "scan")
DIM = 2
CALL = {"target": "nec", "index": 1}


def _network(hidden: int = 0, names: tuple[str, ...] = NAMES) -> Network:
    torch.manual_seed(0)
    head = {"nec": HeadSpec("softmax", ("no", "yes"), hidden=hidden)}
    return Network({name: build("table_mlp", features=3, dim=DIM) for name in names}, head)


def _embeddings(n: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(n, DIM, generator=generator) for name in NAMES}


def _start(network: Network) -> dict[str, int]:
    return {name: encoder.depth for name, encoder in network.encoders.items()}


def test_a_linear_network_gives_its_own_terms() -> None:
    network = _network()
    cases, others = _embeddings(5, 1), _embeddings(7, 2)
    found = modality_shapley(network, cases, others, start=_start(network), **CALL)
    weight = (network.heads["nec"][-1].weight[1] - network.heads["nec"][-1].weight[0]).detach()
    for j, name in enumerate(NAMES):
        term = (cases[name] - others[name].mean(0)) @ weight[j * DIM : (j + 1) * DIM]
        np.testing.assert_allclose(found.values[:, j], term.numpy(), atol=1e-5)
    assert found.names == NAMES


def test_it_is_the_mean_over_all_orders_and_adds_up() -> None:
    network = _network(hidden=8).eval()
    cases, others = _embeddings(3, 1), _embeddings(4, 2)
    found = modality_shapley(network, cases, others, start=_start(network), **CALL)

    def worth(case: int, known: tuple[str, ...]) -> float:
        mixed = {n: cases[n][[case] * 4] if n in known else others[n] for n in NAMES}
        with torch.no_grad():
            return float(log_odds(HeadSpec("softmax", ("a", "b")), network.join(mixed)["nec"], 1).mean())

    for case in range(3):
        added = dict.fromkeys(NAMES, 0.0)
        for order in permutations(NAMES):
            for k, name in enumerate(order):
                added[name] += (worth(case, order[: k + 1]) - worth(case, order[:k])) / math.factorial(3)
        np.testing.assert_allclose(found.values[case], list(added.values()), atol=1e-5)
    np.testing.assert_allclose(found.base + found.values.sum(1), found.log_odds, atol=1e-12)
    expected = log_odds(HeadSpec("softmax", ("a", "b")), network.join(cases)["nec"], 1).detach().numpy()
    np.testing.assert_allclose(found.log_odds, expected, atol=1e-6)


def test_like_inputs_share_alike_and_an_input_that_is_not_asked_gets_nothing() -> None:
    network = _network(hidden=8)
    with torch.no_grad():
        weight = network.heads["nec"][0].weight
        weight[:, DIM : 2 * DIM] = weight[:, :DIM]
        weight[:, 2 * DIM :] = 0
    cases, others = _embeddings(6, 1), _embeddings(6, 2)
    for both in (cases, others):
        both["labs"] = both["film"]
    values = modality_shapley(network, cases, others, start=_start(network), **CALL).values
    np.testing.assert_allclose(values[:, 0], values[:, 1], atol=1e-6)
    np.testing.assert_allclose(values[:, 2], 0, atol=1e-6)
    assert np.abs(values[:, 0]).max() > 0.01


def _tables(n: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(n, 2, 3, generator=generator) for name in NAMES}


@pytest.mark.parametrize("named", [True, False])
def test_an_absent_input_has_a_value_and_all_still_adds_up(named: bool) -> None:
    network, cases = _network(hidden=8), _tables(4, 1)
    if named:
        cases["labs"][:] = torch.nan
    else:
        del cases["labs"]
    found = modality_shapley(network, cases, _tables(5, 2), **CALL)
    assert found.values.shape == (4, 3)
    assert np.abs(found.values[:, 1]).min() > 0
    np.testing.assert_allclose(found.base + found.values.sum(1), found.log_odds, atol=1e-12)


def test_every_encoder_runs_once_a_case_and_the_network_is_left_alone() -> None:
    network = _network(hidden=8).train()
    seen: list[int] = []
    for encoder in network.encoders.values():
        encoder.register_forward_pre_hook(lambda _m, args: seen.append(len(args[0])))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    modality_shapley(network, _tables(4, 1), _tables(5, 2), **CALL)
    assert seen == [4, 4, 4, 5, 5, 5]
    assert all(module.training for module in network.modules())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_many_cases_are_asked_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    network, cases, others = _network(hidden=8), _tables(5, 1), _tables(4, 2)
    whole = modality_shapley(network, cases, others, **CALL)
    monkeypatch.setattr("tenfold.explain.shapley._ROWS", 8)
    np.testing.assert_allclose(modality_shapley(network, cases, others, **CALL).values, whole.values, atol=1e-6)


def test_a_background_must_be_complete() -> None:
    network, others = _network(), _tables(5, 2)
    others["labs"][3] = torch.nan
    with pytest.raises(EncoderError, match="have no labs"):
        modality_shapley(network, _tables(2, 1), others, **CALL)
    with pytest.raises(EncoderError, match="without cases"):
        modality_shapley(network, _tables(2, 1), {}, **CALL)
    with pytest.raises(EncoderError, match="without cases"):
        modality_shapley(network, _tables(2, 1), _tables(0, 2), **CALL)


def test_shares_add_up_to_one_with_an_interval_by_patient() -> None:
    found = modality_shapley(_network(hidden=8), _tables(12, 1), _tables(5, 2), **CALL)
    shares = found.shares()
    assert sum(share.value for share in shares.values()) == pytest.approx(1)
    assert all(share.low < share.value < share.high for share in shares.values())
    assert found.shares(["a", "b"] * 6)["film"].n == 2


def test_a_single_input_gets_all() -> None:
    network = _network(names=("labs",))
    cases = {"labs": _tables(3, 1)["labs"]}
    found = modality_shapley(network, cases, {"labs": _tables(3, 2)["labs"]}, **CALL)
    np.testing.assert_allclose(found.values[:, 0], found.log_odds - found.base)
