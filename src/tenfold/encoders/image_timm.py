"""Any network of the timm library as an encoder, taken apart into blocks without knowing the network.

It must not know the study, and it reaches the network only where weights = "imagenet" asks it to.
"""

from __future__ import annotations

import difflib
import math
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tenfold.encoders import chain
from tenfold.encoders.chain import Named
from tenfold.encoders.contract import Encoder
from tenfold.encoders.normalise import Normalise
from tenfold.encoders.weights import fit, is_own, read
from tenfold.errors import EncoderError, nearest

WELL_KNOWN = (
    "convnext_tiny",
    "densenet121",
    "inception_v3",
    "legacy_xception",
    "mobilenetv2_100",
    "resnet34",
    "vgg16",
)
# Enough for the deepest networks that take any size (Inception needs 75), and cheap.
PROBE_SIZE = 96
# Training aids that published files carry beside the classifier.
AUXILIARY = ("AuxLogits.",)


class ImageTimm(Encoder):
    """A network of timm up to its pooled features; the classifier is left out.

    The blocks are found by watching one pass (`tenfold.encoders.chain`): a ResNet gives its stem and every residual
    block, layer1.0 .. layer4.2, a MobileNetV2 its stem, blocks.0.0 .. blocks.6.0 and conv_head. A network whose
    modules do not run in a chain, such as a vision transformer, is one block. Pooling is the network's own, with the
    norm that some have behind it.

    A grey film is repeated over three channels before the network's own mean and deviation are applied. Those
    are taken from the options where given, else from the weights file's metadata, else from timm's card.

    Args:
        network: timm's name for it, for example "resnet34" or "vgg16".
        weights: "none" (random), "imagenet" (timm's, fetched from the internet or its cache), or the path
            of a safetensors file with timm's names or written by `save_encoder`.
        channels: Channels of the film, 1 or 3.
        mean: Mean of the weights' training pictures, one value or three, on the scale [0, 1].
        std: Deviation of the same.
        size: Side in pixels of the input, for networks built for one size (transformers); 0 is their own.
            Networks that take any size make no use of it.
        output_stride: 8 or 16 dilates the last stages instead of halving their maps, with the same weights (Yu et
            al., Dilated Residual Networks, CVPR 2017), for networks of timm that offer it; 0 leaves them.

    Raises:
        EncoderError: timm has no such network or weights, the weights do not fit, or an option is impossible.
    """

    def __init__(
        self,
        network: str,
        weights: str = "none",
        channels: int = 1,
        mean: Sequence[float] | float | None = None,
        std: Sequence[float] | float | None = None,
        size: int = 0,
        output_stride: int = 0,
    ) -> None:
        if channels not in (1, 3):
            raise EncoderError(f"channels = {channels}", expected="1 (grey) or 3 (colour)", where=_where(network))
        from_file = _is_path(weights, network)
        tensors, notes = read(Path(weights)) if from_file else ({}, {})
        model = _create(network, weights, size, output_stride)
        card = model.pretrained_cfg
        if from_file and not is_own(notes):
            classifier = card.get("classifier") or ()
            names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
            fit(model, tensors, weights, lambda k: k.startswith((*(f"{n}." for n in names), *AUXILIARY)))
        scale = {
            "mean": _three("mean", mean if mean is not None else notes.get("mean", card["mean"]), network),
            "std": _three("std", std if std is not None else notes.get("std", card["std"]), network),
        }
        own = self.own_size(network, size)
        fixed = own if card.get("fixed_input_size") else 0
        normalise = Normalise(scale["mean"], scale["std"], channels, fixed)
        blocks, pool, dim = _take_apart(model, normalise, fixed or PROBE_SIZE)
        super().__init__(
            spec={
                "encoder": "image_timm",
                "options": {
                    "network": network,
                    "channels": channels,
                    **scale,
                    "size": size,
                    "output_stride": output_stride,
                },
            },
            modality="image",
            channels=channels,
            size=own,
            dim=dim,
            blocks=blocks,
            pool=pool,
        )
        if is_own(notes):
            fit(self, tensors, weights)
        self.train()

    @staticmethod
    def own_size(network: str, size: int = 0, **_: object) -> int:
        """Side in pixels of the pictures that the network's weights were trained on, or that it is built for.

        Raises:
            EncoderError: timm has no such network.
        """
        _check_name(network)
        card = _timm().get_pretrained_cfg(network)
        return size if size and card.fixed_input_size else int(card.input_size[-1])


class _Body(nn.Module):
    """The features of a network that cannot be taken apart."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        network: Any = self.network
        maps: Tensor = network.forward_features(x)
        return maps


class _Tail(nn.Module):
    """The network's own pooling."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return _pool(self.network, x)


def _pool(network: Any, maps: Tensor) -> Tensor:
    """What the network would give its classifier."""
    pooled: Tensor = network.forward_head(maps, pre_logits=True)
    return pooled


def _timm() -> Any:
    """The library itself, loaded only where a network is built: it takes seconds, and a cohort needs none."""
    import timm

    return timm


def _where(network: str) -> str:
    return f"encoder image_timm, network '{network}'"


def _check_name(network: str) -> None:
    if not _timm().is_model(network):
        known = _timm().list_models()
        close = difflib.get_close_matches(network, known, n=5)
        raise EncoderError(
            f"timm has no network '{network}'",
            do=nearest(network, close or WELL_KNOWN),
            where="encoder image_timm",
        )


def _is_path(weights: str, network: str) -> bool:
    if weights in ("none", "imagenet"):
        return False
    if weights.endswith(".safetensors"):
        return True
    raise EncoderError(
        f"weights = '{weights}'",
        expected="'imagenet', 'none' or the path of a .safetensors file",
        do=nearest(weights, ("imagenet", "none")),
        where=_where(network),
    )


def _create(network: str, weights: str, size: int, output_stride: int) -> Any:
    """The network without its classifier, in eval."""
    _check_name(network)
    card = _timm().get_pretrained_cfg(network)
    options = {"img_size": size} if size and card.fixed_input_size else {}
    options |= {"output_stride": output_stride} if output_stride else {}
    pretrained = weights == "imagenet"
    if pretrained and not card.has_weights:
        raise EncoderError(
            "timm has no weights for this network",
            do="choose another network, the path of a .safetensors file, or weights = 'none'",
            where=_where(network),
        )
    try:
        model = _timm().create_model(network, pretrained=pretrained, num_classes=0, **options)
    except (AssertionError, NotImplementedError, TypeError) as error:
        if not output_stride:
            raise
        raise EncoderError(
            f"timm's network does not take output_stride = {output_stride}",
            expected="8 or 16 for a network that can be dilated, such as a ResNet; 0 for all others",
            where=_where(network),
        ) from error
    except Exception as error:
        # The hub's client raises many unrelated types when it is out of reach; without it nothing is caught.
        if not pretrained:
            raise
        raise EncoderError(
            f"the ImageNet weights could not be fetched ({type(error).__name__})",
            expected="a connection to huggingface.co, or the weights in its cache",
            do="give weights = the path of a .safetensors file, or weights = 'none'",
            where=_where(network),
        ) from error
    return model.eval()


def _three(name: str, value: Any, network: str) -> list[float]:
    """One number or three, as list or as a file's text, made three."""
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, Sequence) else [value]
    try:
        numbers = [float(part) for part in parts]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) not in (1, 3) or not all(math.isfinite(v) and (name == "mean" or v > 0) for v in numbers):
        raise EncoderError(
            f"{name} = {value}",
            expected="one number or three on the scale [0, 1]" + (", above 0" if name == "std" else ""),
            where=_where(network),
        )
    return numbers * (3 // len(numbers))


def _take_apart(model: Any, normalise: Normalise, side: int) -> tuple[list[Named], nn.Module, int]:
    """The blocks by name, the pooling, and the length of its output."""
    probe = torch.zeros(1, 3, side, side)
    with torch.no_grad():
        maps = model.forward_features(probe)
        dim = _pool(model, maps).shape[1]
    modules = chain.chain(model, model.forward_features, probe)
    if modules is None:
        head = set(chain.called(model, partial(_pool, model), maps))
        head -= set(chain.called(model, model.forward_features, probe))
        # Only the body keeps the network's own parameters: they are tokens and position codes.
        pool = _Tail(chain.without(model, {n for n, _ in model.named_children()} - head, parameters=False))
        block = OrderedDict(normalise=normalise, body=_Body(chain.without(model, head)))
        return [("whole", nn.Sequential(block))], pool, dim
    modules += chain.leading(model, partial(_pool, model), maps)
    blocks: list[Named] = []
    for members in chain.group(modules):
        layers: OrderedDict[str, nn.Module] = OrderedDict() if blocks else OrderedDict(normalise=normalise)
        layers.update((name.replace(".", "_"), module) for name, module in members)
        blocks.append((members[0][0] if blocks else "stem", nn.Sequential(layers)))
    return blocks, _Tail(chain.without(model, {name.split(".")[0] for name, _ in modules})), dim
