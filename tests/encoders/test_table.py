"""What only the encoders of tables promise."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tenfold.encoders import build, own_size
from tenfold.errors import EncoderError


def _table(n: int, features: int) -> torch.Tensor:
    return torch.rand(n, 2, features, generator=torch.Generator().manual_seed(0))


def test_the_convolution_has_the_layers_of_the_reading_of_cui() -> None:
    encoder = build("table_conv1d", features=27)
    shapes = [tuple(m.weight.shape) for m in encoder.modules() if isinstance(m, nn.Conv1d | nn.Linear)]
    assert shapes == [(16, 2, 3), (32, 16, 3), (64, 32 * 27)]
    assert own_size("table_conv1d", features=27) == 27


@pytest.mark.parametrize("name", ["table_conv1d", "table_dense", "table_mlp"])
@pytest.mark.parametrize("features", [2, 27])
def test_a_batch_of_one_case_can_be_learnt_from(name: str, features: int) -> None:
    encoder = build(name, features=features).train()
    encoder(_table(1, features)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())


def test_one_layer_is_all_there_is_and_its_width_is_the_embedding() -> None:
    encoder = build("table_dense", features=5, norm="none")
    assert [tuple(m.weight.shape) for m in encoder.modules() if isinstance(m, nn.Linear)] == [(16, 10)]
    assert encoder.dim == 16
    assert encoder.always_learns


@pytest.mark.parametrize("name", ["table_conv1d", "table_dense", "table_mlp"])
def test_what_was_observed_matters(name: str) -> None:
    encoder = build(name, features=5).eval()
    seen = _table(1, 5)
    seen[:, 1] = 1
    unseen = seen.clone()
    unseen[:, 1, 2] = 0
    assert not torch.allclose(encoder(seen), encoder(unseen))


def test_the_perceptron_treats_one_case_as_it_would_alone() -> None:
    encoder = build("table_mlp", features=5, dropout=0.0).train()
    rows = _table(4, 5)
    torch.testing.assert_close(encoder(rows)[2:3], encoder(rows[2:3]))


@pytest.mark.parametrize("shape", [(3, 5), (3, 1, 5), (3, 2, 4)])
def test_a_table_of_another_shape_is_refused_with_the_right_one(shape: tuple[int, ...]) -> None:
    with pytest.raises(EncoderError, match=r"\(n, 2, 5\)"):
        build("table_mlp", features=5)(torch.zeros(shape))
