"""What only the encoder of connectomes promises."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tenfold.encoders import build, own_size
from tenfold.errors import EncoderError


def test_it_has_the_layers_of_he_and_no_bias_that_a_norm_would_take_away() -> None:
    encoder = build("connectome_dense", edges=4005, norm="batch")
    layers = [m for m in encoder.modules() if isinstance(m, nn.Linear)]
    assert [tuple(layer.weight.shape) for layer in layers] == [(128, 4005), (32, 128)]
    assert all(layer.bias is None for layer in layers)
    assert encoder.block_names == ("dense1", "dense2")
    assert (encoder.dim, encoder.modality, encoder.always_learns) == (32, "connectome", False)
    assert own_size("connectome_dense", edges=4005) == 4005
    bare = build("connectome_dense", edges=6, norm="none")
    assert all(m.bias is not None for m in bare.modules() if isinstance(m, nn.Linear))


@pytest.mark.parametrize("shape", [(3, 5), (3, 2, 6), (6,)])
def test_connectomes_of_another_shape_are_refused_with_the_right_one(shape: tuple[int, ...]) -> None:
    with pytest.raises(EncoderError, match=r"\(n, 6\)"):
        build("connectome_dense", edges=6)(torch.zeros(shape))


def test_with_layer_norm_a_case_is_treated_as_it_would_be_alone() -> None:
    encoder = build("connectome_dense", edges=6, widths=[4, 3]).train()
    rows = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(encoder(rows)[2:3], encoder(rows[2:3]))
