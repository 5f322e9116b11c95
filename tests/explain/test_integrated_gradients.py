"""Integrated gradients: complete, right where the answer is known, and nothing else touched."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tenfold.encoders import build
from tenfold.encoders.contract import Encoder
from tenfold.explain import integrated_gradients
from tenfold.network import HeadSpec, Network

torch.set_num_threads(1)
FEATURES = 6
CALL = {"view": "labs", "target": "nec", "index": 1}


def _fitted(encoder: str, fusion: str = "concat") -> Network:
    """A network that bends: fitted until it is sure of itself."""
    torch.manual_seed(0)
    encoders = {"labs": build(encoder, features=FEATURES), "film": build("table_mlp", features=3)}
    network = Network(encoders, {"nec": HeadSpec("softmax", ("no", "yes"), hidden=16)}, fusion=fusion).train()
    inputs = _inputs(60)
    labels = (inputs["labs"][:, 0, :3].prod(1) + inputs["film"][:, 0, 0] > 0).long()
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(40):
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(inputs)["nec"], labels).backward()
        optimiser.step()
    return network


def _inputs(n: int, seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labs = torch.randn(n, 2, FEATURES, generator=generator)
    labs[:, 1] = (torch.rand(n, FEATURES, generator=generator) > 0.2).float()
    return {"labs": labs, "film": torch.randn(n, 2, 3, generator=generator)}


def _baseline() -> Tensor:
    return torch.stack([torch.zeros(FEATURES), torch.ones(FEATURES)])


class _Sum(Encoder):
    """Passes a table on as it is."""

    def __init__(self) -> None:
        super().__init__(
            spec={"encoder": "sum", "options": {}},
            modality="table",
            channels=2,
            size=2,
            dim=4,
            blocks=[("copy", nn.PReLU(init=1.0))],
            pool=nn.Flatten(),
        )


def test_a_linear_network_gives_weight_times_way_over_both_channels() -> None:
    network = Network({"labs": _Sum()}, {"nec": HeadSpec("two_sigmoid", ("no", "yes"))})
    weight = torch.tensor([[0.0] * 4, [1.0, 2.0, 10.0, 20.0]])
    network.heads["nec"][-1].weight = nn.Parameter(weight)
    table = torch.tensor([[[3.0, 1.0], [1.0, 0.0]]])
    baseline = torch.tensor([[1.0, 1.0], [1.0, 1.0]])
    found = integrated_gradients(network, {"labs": table}, baseline=baseline, **CALL)
    np.testing.assert_allclose(found.values, [[2.0, -20.0]], atol=1e-5)
    np.testing.assert_allclose(found.log_odds - found.base, [-18.0], atol=1e-5)


@pytest.mark.parametrize("fusion", ["concat", "gated"])
@pytest.mark.parametrize("encoder", ["table_conv1d", "table_mlp"])
def test_the_attributions_are_complete(encoder: str, fusion: str) -> None:
    network, inputs = _fitted(encoder, fusion), _inputs(20, seed=5)
    found = integrated_gradients(network, inputs, baseline=_baseline(), **CALL)
    moved = found.log_odds - found.base
    assert np.abs(moved).max() > 1
    assert (found.error <= 0.01 * np.abs(moved) + 0.001).all()
    np.testing.assert_allclose(found.values.sum(1), moved, atol=1e-9 + found.error.max())
    rough = integrated_gradients(network, inputs, baseline=_baseline(), steps=4096, **CALL)
    np.testing.assert_allclose(found.values, rough.values, atol=0.05 * np.abs(moved).max())


def test_the_baseline_itself_gets_nothing() -> None:
    network, inputs = _fitted("table_mlp"), _inputs(2)
    inputs["labs"] = _baseline().repeat(2, 1, 1)
    assert not integrated_gradients(network, inputs, baseline=_baseline(), **CALL).values.any()


def test_a_case_without_the_table_gets_nan_and_the_others_what_they_had() -> None:
    network, inputs = _fitted("table_conv1d"), _inputs(4)
    whole = integrated_gradients(network, inputs, baseline=_baseline(), **CALL)
    inputs["labs"][1], inputs["film"][2] = torch.nan, torch.nan
    found = integrated_gradients(network, inputs, baseline=_baseline(), **CALL)
    assert np.isnan(found.values).all(1).tolist() == [False, True, False, False]
    assert np.isnan(found.error).tolist() == [False, True, False, False]
    np.testing.assert_allclose(found.values[[0, 3]], whole.values[[0, 3]], atol=1e-5)
    assert not np.allclose(found.values[2], whole.values[2])
    inputs["labs"][:] = torch.nan
    inputs["film"][2] = 0
    assert np.isnan(integrated_gradients(network, inputs, baseline=_baseline(), **CALL).values).all()


def test_the_network_is_left_as_it_was_even_within_inference_mode() -> None:
    network = _fitted("table_mlp").train()
    network.zero_grad(set_to_none=True)
    seen: list[int] = []
    network.encoders["film"].register_forward_pre_hook(lambda _m, args: seen.append(len(args[0])))
    with torch.inference_mode():
        integrated_gradients(network, _inputs(3), baseline=_baseline(), **CALL)
    assert seen == [3], "the other inputs run once"
    assert all(module.training for module in network.modules())
    assert all(p.grad is None for p in network.parameters())
