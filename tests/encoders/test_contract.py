"""Every registered encoder keeps the contract, and the checker notices who does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tenfold.encoders import ENCODERS, Encoder, build, check_encoder, from_spec
from tenfold.errors import EncoderError

EXAMPLES = {
    "connectome_dense": {"edges": 28, "widths": [12, 5]},
    "image_residual_dilated": {"width": 8, "depths": [1, 1, 1, 1]},
    "image_timm": {"network": "mobilenetv3_small_050"},
    "table_conv1d": {"features": 7},
    "table_dense": {"features": 7},
    "table_mlp": {"features": 7},
}
BUILDS = [
    (name, {"channels": channels} if name.startswith("image") else {})
    for name in ENCODERS
    for channels in ((1, 3) if name.startswith("image") else (2,))
]


@pytest.mark.parametrize(("name", "options"), BUILDS)
def test_every_encoder_keeps_the_contract(name: str, options: dict[str, int]) -> None:
    encoder = build(name, **options, **EXAMPLES[name])
    state = {key: value.clone() for key, value in encoder.state_dict().items()}
    check_encoder(encoder, 64)
    assert all(torch.equal(state[key], value) for key, value in encoder.state_dict().items())
    assert all(module.training for module in encoder.modules())
    assert encoder.frozen == 0
    rebuilt = from_spec(encoder.spec)
    assert type(rebuilt) is type(encoder)
    assert rebuilt.spec == encoder.spec


class _Tiny(Encoder):
    """Two convolutions; a test breaks one promise of it."""

    def __init__(self, width: int = 4) -> None:
        super().__init__(
            spec={"encoder": "tiny", "options": {"width": width}},
            modality="image",
            channels=1,
            size=8,
            dim=width,
            blocks=[("a", nn.Sequential(_OneChannel(), nn.Conv2d(1, width, 3))), ("b", nn.Conv2d(width, width, 3))],
            pool=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        )


class _OneChannel(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] != 1:
            raise EncoderError("channels")
        return x


class _InPlace(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        x.mul_(0)
        return out


class _Detached(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.detach())


def _break(change: Callable[[_Tiny], None]) -> _Tiny:
    encoder = _Tiny()
    change(encoder)
    return encoder


class _Skips(_Tiny):
    def forward(self, x: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        early = x.mean()
        return super().forward(x, start, stop) + (early if stop is None else 0)


class _StaysThawed(_Tiny):
    def freeze(self, steps: int) -> None:
        self.frozen = 0


def test_the_checker_passes_a_sound_encoder() -> None:
    check_encoder(_Tiny(), 8)


@pytest.mark.parametrize(
    ("encoder", "broken"),
    [
        (lambda: _break(lambda e: setattr(e, "dim", 5)), "the output is"),
        (lambda: _break(lambda e: setattr(e, "channels", 3)), "channels"),
        (lambda: _break(lambda e: setattr(e, "block_names", ("a", "a"))), "share a name"),
        (lambda: _break(lambda e: e.spec.update(options={"width": 5})), "another spec|another shape"),
        (lambda: _break(lambda e: e.spec.update(options={"width": (4,)})), "JSON"),
        (lambda: _break(lambda e: e.blocks.__setitem__(1, _InPlace(4, 4, 3))), "changes its input"),
        (lambda: _break(lambda e: e.blocks.__setitem__(1, _Detached(4, 4, 3))), "no gradient reaches block a"),
        (lambda: _break(lambda e: e.blocks.__setitem__(1, nn.Identity())), "nothing to train"),
        (lambda: _break(lambda e: nn.init.constant_(e.blocks[1].weight, torch.inf)), "not finite|two passes"),
        (_Skips, "is not forward"),
        (_StaysThawed, "freeze|frozen"),
    ],
)
def test_the_checker_says_which_promise_is_broken(encoder: Callable[[], Encoder], broken: str) -> None:
    with pytest.raises(EncoderError, match=broken):
        check_encoder(encoder(), 8)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("image_tim", {}, "did you mean 'image_timm'"),
        ("image_residual_dilated", {"depth": 3}, "did you mean 'depths'"),
        ("image_residual_dilated", {"width": "wide"}, "width = 'wide'"),
        ("table_mlp", {}, "'features' is missing"),
        ("table_mlp", {"features": "7"}, "features = '7'.*\n?.*int"),
        ("table_mlp", {"features": 0}, "features = 0"),
        ("table_mlp", {"features": 7, "dropout": 1.0}, "dropout = 1.0"),
        ("table_conv1d", {"features": 7, "width": 0}, "width = 0"),
        ("table_conv1d", {"features": 7, "widht": 8}, "did you mean 'width'"),
        ("image_residual_dilated", {"depths": [1, 1, 1, "x"]}, "depths"),
        ("connectome_dense", {}, "'edges' is missing"),
        ("connectome_dense", {"edges": 6, "widths": []}, "widths = 0"),
        ("connectome_dense", {"edges": 6, "widths": [4, "x"]}, "widths"),
        ("connectome_dense", {"edges": 6, "norm": "btach"}, "did you mean 'batch'"),
        ("table_dense", {"features": 6, "dropout": 1.0}, "dropout = 1.0"),
        ("table_dense", {"features": 6, "width": 0}, "width = 0"),
        ("image_timm", {}, "'network' is missing"),
        ("image_timm", {"network": "resnet_34"}, "did you mean 'resnet34'"),
        ("image_timm", {"network": "zzzz"}, "choose one of: .*resnet34"),
        ("image_timm", {"network": "resnet18", "weights": "imagenette"}, "did you mean 'imagenet'"),
        ("image_timm", {"network": "mobilenetv3_small_050", "channels": 2}, "channels = 2"),
        ("image_timm", {"network": "mobilenetv3_small_050", "std": 0.0}, "std = 0.0"),
        ("image_timm", {"network": "mobilenetv3_small_050", "mean": [0.5, 0.5]}, "mean ="),
    ],
)
def test_a_mistake_in_the_study_is_refused_with_the_nearest(name: str, options: dict[str, object], says: str) -> None:
    with pytest.raises(EncoderError, match=says):
        build(name, **options)
