"""Encoders: from one input of a patient to an embedding, one file a family.

They must not know heads, fusion, training or any study.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from tenfold.encoders.connectome_dense import ConnectomeDense
from tenfold.encoders.contract import Encoder, check_encoder
from tenfold.encoders.image_residual_dilated import ImageResidualDilated
from tenfold.encoders.image_timm import ImageTimm
from tenfold.encoders.table_conv1d import TableConv1d
from tenfold.encoders.table_dense import TableDense
from tenfold.encoders.table_mlp import TableMlp
from tenfold.encoders.weights import save_encoder
from tenfold.errors import EncoderError, nearest

Family = (
    type[ConnectomeDense]
    | type[ImageResidualDilated]
    | type[ImageTimm]
    | type[TableConv1d]
    | type[TableDense]
    | type[TableMlp]
)

ENCODERS: dict[str, Family] = {
    "connectome_dense": ConnectomeDense,
    "image_residual_dilated": ImageResidualDilated,
    "image_timm": ImageTimm,
    "table_conv1d": TableConv1d,
    "table_dense": TableDense,
    "table_mlp": TableMlp,
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
    """Size of the input that an encoder was made for, without building it: pixels a side, features of a
    table, or edges of a connectome.

    Raises:
        EncoderError: The name or an option is unknown.
    """
    return _checked(name, options).own_size(**options)


def _checked(name: str, options: Mapping[str, Any]) -> Family:
    """The encoder's class, where it knows every option and lacks none."""
    if name not in ENCODERS:
        raise EncoderError(f"unknown encoder '{name}'", do=nearest(name, ENCODERS))
    known = inspect.signature(ENCODERS[name], eval_str=True).parameters
    for option, value in options.items():
        if option not in known:
            raise EncoderError(f"unknown option '{option}'", do=nearest(option, known), where=f"encoder {name}")
        if not _suits(value, known[option]):
            default = known[option].default
            like = f"; the default is {default!r}" if default is not inspect.Parameter.empty else ""
            raise EncoderError(
                f"{option} = {value!r}", expected=f"{_kind(known[option]).__name__}{like}", where=f"encoder {name}"
            )
    lacking = [key for key, value in known.items() if value.default is value.empty and key not in options]
    if lacking:
        raise EncoderError(f"option '{lacking[0]}' is missing", where=f"encoder {name}")
    return ENCODERS[name]


def _kind(option: inspect.Parameter) -> type[Any]:
    """The type that an option must have: that of its default, or as annotated where there is none."""
    if option.default is inspect.Parameter.empty:
        annotated: type[Any] = option.annotation
        return annotated
    return Sequence if isinstance(option.default, tuple) else type(option.default)


def _suits(value: Any, option: inspect.Parameter) -> bool:
    default = option.default
    if default is None:
        return True
    if isinstance(default, tuple):
        return isinstance(value, list | tuple) and all(type(v) is type(default[0]) for v in value)
    return type(value) is _kind(option) or (type(default) is float and type(value) is int)
