"""Any network of the timm library as an encoder, taken apart into blocks without knowing the network.

It must not know the study, and it reaches the network only where weights = "imagenet" asks it to.
"""

from __future__ import annotations

import difflib
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    "efficientnet_b0",
    "inception_v3",
    "legacy_xception",
    "mobilenetv2_100",
    "resnet34",
    "vgg16",
    "vit_small_patch16_224",
)
# Enough for the deepest networks that take any size (Inception needs 75), and cheap.
PROBE_SIZE = 96
# Training aids that published files carry beside the classifier.
AUXILIARY = ("AuxLogits.",)


class ImageTimm(Encoder):
    """A network of timm up to its pooled features; the classifier is left out.

    The blocks are found by watching one pass (`tenfold.encoders.chain`): a ResNet gives its stem and every residual
    block, layer1.0 .. layer4.2, a MobileNetV2 its stem, blocks.0.0 .. blocks.6.0 and conv_head. A vision transformer
    (ViT, DeiT) gives its patch embedding with positions and class token as its stem, then every block. Any other
    network whose modules do not run in a chain is one block. Pooling is the network's own, with the norm that some have
    around it.

    A grey film is repeated over three channels before the network's own mean and deviation are applied. Those
    are taken from the options where given, else from the weights file's metadata, else from timm's card.

    Args:
        network: timm's name for it, for example "resnet34" or "vgg16".
        weights: "none" (random), "imagenet" (timm's, fetched from the internet or its cache), or the path
            of a safetensors file with timm's names or written by `save_encoder`.
        channels: Channels of the film, 1 or 3.
        mean: Mean of the weights' training pictures, one value or three, on the scale [0, 1].
        std: Deviation of the same.
        size: Side in pixels of the input, for networks built for one size (transformers); 0 is their own. The positions
            of weights for another size are interpolated. Networks that take any size make no use of it.
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
            tensors = _at_this_size(model, tensors)
            fit(model, tensors, weights, lambda k: k.startswith((*(f"{n}." for n in names), *AUXILIARY)))
        scale = {
            "mean": _three("mean", mean if mean is not None else notes.get("mean", card["mean"]), network),
            "std": _three("std", std if std is not None else notes.get("std", card["std"]), network),
        }
        own = self.own_size(network, size)
        fixed = own if card.get("fixed_input_size") else 0
        normalise = Normalise(scale["mean"], scale["std"], channels, fixed)
        try:
            blocks, pool, dim = _take_apart(model, normalise, fixed or PROBE_SIZE)
        except (AssertionError, ArithmeticError, RuntimeError) as error:
            if not (fixed and size):
                raise
            raise EncoderError(
                f"timm's network cannot see pictures of {size} x {size}",
                expected=f"a multiple of its patches, such as its own {self.own_size(network)}",
                where=_where(network),
            ) from error
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
        self._grid = _Grid.of(model)
        self._channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC"
        if is_own(notes):
            fit(self, tensors, weights)
        self.train()

    def as_map(self, features: Tensor, step: int) -> Tensor | None:
        """Lay out what a step gave as maps; of a transformer the tokens of the patches, if they are used further on."""
        if self._grid is not None and features.ndim == 3:
            return self._grid.as_map(features) if step <= self._grid.last else None
        if self._channels_last and features.ndim == 4:
            return features.permute(0, 3, 1, 2)
        return super().as_map(features, step)

    @staticmethod
    def own_size(network: str, size: int = 0, **_: object) -> int:
        """Side in pixels of the pictures that the network's weights were trained on, or that it is built for.

        Raises:
            EncoderError: timm has no such network.
        """
        _check_name(network)
        card = _timm().get_pretrained_cfg(network)
        return size if size and card.fixed_input_size else int(card.input_size[-1])


@dataclass(frozen=True)
class _Grid:
    """Where the tokens of a transformer lie in the picture.

    Attributes:
        shape: Patches down and across.
        prefix: Tokens before those of the patches: the class token and others without a place.
        last: Steps after which the patches' tokens are still used. Where the head reads nothing but the class token,
            they are not after the last block: their gradient there is 0, and so would be every heat map.
    """

    shape: tuple[int, int]
    prefix: int
    last: int

    @classmethod
    def of(cls, model: Any) -> _Grid | None:
        """Look at a network; None where it is no transformer that was taken apart."""
        if not _is_transformer(model):
            return None
        height, width = model.patch_embed.grid_size
        steps = 1 + len(model.blocks)
        return cls((height, width), model.num_prefix_tokens, steps - (model.global_pool == "token"))

    def as_map(self, tokens: Tensor) -> Tensor:
        """(n, tokens, channels) -> (n, channels, h, w)."""
        return tokens[:, self.prefix :].transpose(1, 2).unflatten(2, self.shape)


class _Tokens(nn.Module):
    """What a transformer does before its first block."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        network: Any = self.network
        tokens: Tensor = network.norm_pre(network.patch_drop(network._pos_embed(network.patch_embed(x))))
        return tokens


class _TokenTail(nn.Module):
    """What a transformer does after its last block."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        network: Any = self.network
        return _pool(network, network.norm(x))


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


def _is_transformer(model: Any) -> bool:
    """Whether it is a plain vision transformer, in which tokens go from block to block."""
    return isinstance(model, _timm().models.VisionTransformer)


def _at_this_size(model: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Interpolate a transformer's positions where the weights were trained on pictures of another size."""
    found = dict(tensors)
    positions = found.get("pos_embed")
    if not _is_transformer(model) or positions is None or positions.ndim != 3:
        return found
    prefix = 0 if model.no_embed_class else model.num_prefix_tokens
    patches = max(0, positions.shape[1] - prefix)
    # whatever is no square of patches is left, and refused for its shape
    if positions.shape != model.pos_embed.shape and math.isqrt(patches) ** 2 == patches > 0:
        found["pos_embed"] = _timm().layers.resample_abs_pos_embed(
            positions, new_size=model.patch_embed.grid_size, num_prefix_tokens=prefix
        )
    return found


def _transformer(model: Any, normalise: Normalise) -> tuple[list[Named], nn.Module]:
    """The blocks and the pooling of a vision transformer."""
    children = {name for name, _ in model.named_children()}
    before = {"patch_embed", "pos_drop", "patch_drop", "norm_pre"}
    # Only the stem keeps the network's own parameters: they are tokens and position codes.
    tokens = _Tokens(chain.without(model, children - before))
    tail = chain.without(model, {*before, "blocks"}, parameters=False)
    stem = nn.Sequential(OrderedDict(normalise=normalise, tokens=tokens))
    return [("stem", stem), *((f"blocks.{i}", block) for i, block in enumerate(model.blocks))], _TokenTail(tail)


def _take_apart(model: Any, normalise: Normalise, side: int) -> tuple[list[Named], nn.Module, int]:
    """The blocks by name, the pooling, and the length of its output."""
    probe = torch.zeros(1, 3, side, side)
    with torch.no_grad():
        maps = model.forward_features(probe)
        dim = _pool(model, maps).shape[1]
    if _is_transformer(model):
        return *_transformer(model, normalise), dim
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
