"""The trunk of Liang & Zheng, with the numbers of its paper."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tenfold.encoders import build
from tenfold.errors import EncoderError

SMALL = {"width": 8, "depths": [1, 1, 1, 1]}


def _sides(encoder: nn.Module, size: int) -> list[int]:
    x, sides = torch.zeros(1, 1, size, size), []
    hooks = [
        module.register_forward_hook(lambda _m, _i, output: sides.append(output.shape[-1]))
        for module in (encoder.blocks[0].first, encoder.blocks[0].pool, *encoder.blocks[1:])
    ]
    with torch.no_grad():
        encoder.eval()(x)
    for hook in hooks:
        hook.remove()
    return sides


@pytest.mark.parametrize(("dilated", "sides"), [(True, [75, 38, 38, 19, 19, 19]), (False, [75, 38, 38, 19, 10, 5])])
def test_maps_at_150_pixels(dilated: bool, sides: list[int]) -> None:
    assert _sides(build("image_residual_dilated", dilated=dilated, **SMALL), 150) == sides


def test_49_convolutions_of_1x1_and_3x3_with_the_rates_of_the_paper() -> None:
    encoder = build("image_residual_dilated", width=8)
    convolutions = {n: m for n, m in encoder.named_modules() if isinstance(m, nn.Conv2d)}
    counted = {n: m for n, m in convolutions.items() if "shortcut" not in n}
    assert len(counted) == 49
    assert {m.kernel_size for m in counted.values()} == {(1, 1), (3, 3)}
    rates = [m.dilation[0] for m in counted.values() if m.kernel_size == (3, 3)]
    assert rates == [1] * (1 + 3 + 4) + [2] * 6 + [4] * 3


def test_the_receptive_field_is_471_pixels() -> None:
    encoder = build("image_residual_dilated", width=8)
    field, jump = 1, 1
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Conv2d | nn.MaxPool2d) and "shortcut" not in name:
            kernel, stride, dilation = (
                v[0] if isinstance(v, tuple) else v for v in (module.kernel_size, module.stride, module.dilation)
            )
            field += (kernel - 1) * dilation * jump
            jump *= stride
    assert field == 471


def test_dilation_keeps_the_resolution_and_not_the_parameters() -> None:
    dilated, plain = (build("image_residual_dilated", dilated=d, **SMALL) for d in (True, False))
    assert {k: v.shape for k, v in dilated.state_dict().items()} == {k: v.shape for k, v in plain.state_dict().items()}
    assert dilated.spec != plain.spec


def test_dropout_acts_before_the_pooling_and_not_in_eval() -> None:
    encoder = build("image_residual_dilated", **SMALL)
    maps = torch.rand(2, encoder.dim, 5, 5)
    last = len(encoder.blocks)
    assert not torch.equal(encoder.train()(maps, last), encoder(maps, last))
    torch.testing.assert_close(encoder.eval()(maps, last), maps.mean((2, 3)))


def test_imagenet_is_refused_because_nobody_has_published_such_weights() -> None:
    with pytest.raises(EncoderError, match="none are published"):
        build("image_residual_dilated", weights="imagenet", **SMALL)


@pytest.mark.parametrize(
    "options", [{"channels": 2}, {"width": 0}, {"depths": [1, 1, 1]}, {"depths": [1, 0, 1, 1]}, {"dropout": 1.0}]
)
def test_impossible_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(EncoderError, match=next(iter(options))):
        build("image_residual_dilated", **{**SMALL, **options})
