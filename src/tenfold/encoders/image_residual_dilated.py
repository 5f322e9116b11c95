"""The residual network with dilated convolutions of Liang & Zheng (CMPB 2020;187:104964).

It must not know what it is trained for: the paper's Dense128 and Dense2 are a head of `tenfold.network`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from tenfold.encoders.contract import Encoder
from tenfold.encoders.normalise import Normalise
from tenfold.encoders.weights import load_own
from tenfold.errors import EncoderError

EXPANSION = 4
STAGES = ("conv2_x", "conv3_x", "conv4_x", "conv5_x")
STRIDES, DILATIONS = (1, 2, 2, 2), (1, 1, 1, 1)
DILATED_STRIDES, DILATED_DILATIONS = (1, 2, 1, 1), (1, 1, 2, 4)


class ImageResidualDilated(Encoder):
    """The bottleneck trunk of ResNet-50 in 49 convolutions of 3x3 and 1x1, its last two stages dilated.

    Liang & Zheng print the layers' kinds and the dilation rates 1, 2, 4; the rest is read as a ResNet-50 (He
    et al., CVPR 2016) whose 7x7 stem is a 3x3 of stride 2, and whose strides of conv4_x and conv5_x give way to
    dilation 2 and 4 as in dilated residual networks (Yu et al., CVPR 2017). At 150 px the maps measure
    75, 38 (pooling), 38, 19, 19, 19; convolutions have no bias, and projections stand where shapes change.

    Args:
        channels: Channels of the film, 1 or 3.
        dilated: False gives the strides of ResNet-50 instead.
        width: Channels of the stem, 64 in the paper.
        depths: Bottlenecks in conv2_x .. conv5_x, (3, 4, 6, 3) in the paper.
        dropout: Share of the last maps' values dropped before the pooling, 0.5 in the paper.
        weights: "none", or the path of a safetensors file written by `save_encoder`.

    Raises:
        EncoderError: An option is impossible, or the weights do not fit.
    """

    def __init__(
        self,
        channels: int = 1,
        dilated: bool = True,
        width: int = 64,
        depths: Sequence[int] = (3, 4, 6, 3),
        dropout: float = 0.5,
        weights: str = "none",
    ) -> None:
        _check_options(channels, width, depths, dropout)
        options = {
            "channels": channels,
            "dilated": dilated,
            "width": width,
            "depths": list(depths),
            "dropout": dropout,
        }
        blocks: list[tuple[str, nn.Module]] = [("stem", _stem(channels, width))]
        strides = DILATED_STRIDES if dilated else STRIDES
        dilations = DILATED_DILATIONS if dilated else DILATIONS
        wide = width
        for i, name in enumerate(STAGES):
            stage = _stage(wide, width * 2**i, depths[i], strides[i], dilations[i])
            blocks += [(f"{name}.{k}", bottleneck) for k, bottleneck in enumerate(stage)]
            wide = width * 2**i * EXPANSION
        super().__init__(
            spec={"encoder": "image_residual_dilated", "options": options},
            modality="image",
            channels=channels,
            size=self.own_size(),
            dim=wide,
            blocks=blocks,
            pool=nn.Sequential(nn.Dropout(dropout), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        )
        self.apply(_initialise)
        _load(self, weights)

    @staticmethod
    def own_size(**_: object) -> int:
        """Side in pixels of the films in the paper."""
        return 150


class _Bottleneck(nn.Module):
    """1x1 down, 3x3, 1x1 up, added to what came in."""

    def __init__(self, wide: int, narrow: int, stride: int, dilation: int) -> None:
        super().__init__()
        out = narrow * EXPANSION
        self.reduce = _convolution(wide, narrow, 1)
        self.spatial = _convolution(narrow, narrow, 3, stride, dilation)
        self.expand = _convolution(narrow, out, 1, act=False)
        same = stride == 1 and wide == out
        self.shortcut: nn.Module = nn.Identity() if same else _convolution(wide, out, 1, stride, act=False)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.expand(self.spatial(self.reduce(x))) + self.shortcut(x))


def _convolution(
    wide: int, out: int, kernel: int, stride: int = 1, dilation: int = 1, act: bool = True
) -> nn.Sequential:
    pad = dilation * (kernel // 2)
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(wide, out, kernel, stride, pad, dilation, bias=False), norm=nn.BatchNorm2d(out)
    )
    if act:
        layers["act"] = nn.ReLU(inplace=True)
    return nn.Sequential(layers)


def _stem(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            normalise=Normalise((0.5,) * channels, (0.25,) * channels, channels),
            first=_convolution(channels, width, 3, stride=2),
            pool=nn.MaxPool2d(3, stride=2, padding=1),
        )
    )


def _stage(wide: int, narrow: int, depth: int, stride: int, dilation: int) -> list[nn.Module]:
    rest = [_Bottleneck(narrow * EXPANSION, narrow, 1, dilation) for _ in range(depth - 1)]
    return [_Bottleneck(wide, narrow, stride, dilation), *rest]


def _initialise(module: nn.Module) -> None:
    """He initialisation (He et al., ICCV 2015), for what a rectifier follows."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _check_options(channels: int, width: int, depths: Sequence[int], dropout: float) -> None:
    for holds, came, expected in (
        (channels in (1, 3), f"channels = {channels}", "1 (grey) or 3 (colour)"),
        (width >= 1, f"width = {width}", "at least 1; the paper's is 64"),
        (len(depths) == 4 and min(depths) >= 1, f"depths = {list(depths)}", "four numbers of at least 1"),
        (0 <= dropout < 1, f"dropout = {dropout}", "from 0 to below 1"),
    ):
        if not holds:
            raise EncoderError(came, expected=expected, where="encoder image_residual_dilated")


def _load(encoder: Encoder, weights: str) -> None:
    if weights == "none":
        return
    if not weights.endswith(".safetensors"):
        raise EncoderError(
            f"weights = '{weights}'",
            expected="'none' or the path of a .safetensors file: none are published for this network",
            do="train it on a source cohort in a first stage, or choose encoder 'image_timm' for ImageNet's",
            where="encoder image_residual_dilated",
        )
    load_own(encoder, Path(weights))
