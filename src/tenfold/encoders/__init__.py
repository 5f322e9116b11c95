"""Encoders: from one input of a patient to an embedding, one file a family.

They must not know heads, fusion, training or any study.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from tenfold.encoders.contract import Encoder, check_encoder
from tenfold.encoders.image_residual_dilated import ImageResidualDilated
from tenfold.encoders.image_timm import ImageTimm
from tenfold.encoders.weights import save_encoder
from tenfold.errors import EncoderError, nearest

ENCODERS: dict[str, type[ImageResidualDilated] | type[ImageTimm]] = {
    "image_residual_dilated": ImageResidualDilated,
    "image_timm": ImageTimm,
}

__all__ = ["ENCODERS", "Encoder", "build", "check_encoder", "from_spec", "own_size", "save_encoder"]


def build(name: str, **options: Any) -> Encoder:
    """Build an encoder.

    Args:
        name: One of `ENCODERS`.
        **options: The encoder's own, described at its class.

    Raises:
        EncoderError: The name or an option is unknown, an option is impossible, or the weights do not fit.
    """
    return _checked(name, options)(**options)


def from_spec(spec: Mapping[str, Any]) -> Encoder:
    """Rebuild an encoder from its `spec`, with fresh weights.

    Raises:
        EncoderError: The spec is not of an encoder that this version knows.
    """
    return build(spec["encoder"], **spec["options"])


def own_size(name: str, **options: Any) -> int:
    """Side in pixels of the input that an encoder was made for, without building it.

    Raises:
        EncoderError: The name or an option is unknown.
    """
    return _checked(name, options).own_size(**options)


def _checked(name: str, options: Mapping[str, Any]) -> type[ImageResidualDilated] | type[ImageTimm]:
    """The encoder's class, where it knows every option and lacks none."""
    if name not in ENCODERS:
        raise EncoderError(f"unknown encoder '{name}'", do=nearest(name, ENCODERS))
    known = inspect.signature(ENCODERS[name]).parameters
    for option, value in options.items():
        if option not in known:
            raise EncoderError(f"unknown option '{option}'", do=nearest(option, known), where=f"encoder {name}")
        default = known[option].default
        if not _suits(value, default):
            like = f"; the default is {default!r}" if default is not inspect.Parameter.empty else ""
            raise EncoderError(
                f"{option} = {value!r}", expected=f"{_kind(default).__name__}{like}", where=f"encoder {name}"
            )
    lacking = [key for key, value in known.items() if value.default is value.empty and key not in options]
    if lacking:
        raise EncoderError(f"option '{lacking[0]}' is missing", where=f"encoder {name}")
    return ENCODERS[name]


def _kind(default: Any) -> type:
    """The type that an option must have; one without a default is a name."""
    if default is inspect.Parameter.empty:
        return str
    return Sequence if isinstance(default, tuple) else type(default)


def _suits(value: Any, default: Any) -> bool:
    if default is None:
        return True
    if isinstance(default, tuple):
        return isinstance(value, list | tuple) and all(type(v) is type(default[0]) for v in value)
    return type(value) is _kind(default) or (type(default) is float and type(value) is int)
