"""A dense layer with its norm, ReLU and dropout: what the small networks are made of.

It must not know what comes in or what follows.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from tenfold.errors import EncoderError, nearest

NORMS: dict[str, Callable[[int], nn.Module] | None] = {"layer": nn.LayerNorm, "batch": nn.BatchNorm1d, "none": None}


def dense(inputs: int, width: int, norm: str, dropout: float = 0.0) -> list[nn.Module]:
    """Return the modules of one layer.

    Args:
        inputs: Width of what comes in.
        width: Width of the layer.
        norm: One of `NORMS`. Where there is one, the layer has no bias of its own.
        dropout: Share of the layer dropped in training.
    """
    make = NORMS[norm]
    layers: list[nn.Module] = [nn.Linear(inputs, width, bias=make is None)]
    if make is not None:
        layers.append(make(width))
    return [*layers, nn.ReLU(), nn.Dropout(dropout)]


def check_dense(name: str, norm: str, dropout: float) -> None:
    """Refuse options of an encoder that `dense` cannot take.

    Raises:
        EncoderError: The norm is unknown, or the dropout impossible.
    """
    if norm not in NORMS:
        raise EncoderError(f"unknown norm '{norm}'", do=nearest(norm, NORMS), where=f"encoder {name}")
    if not 0 <= dropout < 1:
        raise EncoderError(f"dropout = {dropout}", expected="from 0 to below 1", where=f"encoder {name}")
