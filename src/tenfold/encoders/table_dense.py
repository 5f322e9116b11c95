"""One dense layer over the row of a table: as little as a network can be, for cohorts of a few dozen.

It must not know what the features are; their order makes no difference to it.
"""

from __future__ import annotations

from torch import nn

from tenfold.encoders.dense import check_dense, dense
from tenfold.encoders.table import CHANNELS, Columns, TableEncoder, ValuesAndGaps, refuse_below_one

NAME = "table_dense"


class TableDense(TableEncoder):
    """Values and what is missing end to end, then one layer with its norm, ReLU and dropout.

    Args:
        features: Number of features; taken from the prepared table.
        width: Width of the layer, which is the embedding.
        norm: "layer", "batch" or "none".
        dropout: Share of the layer dropped in training.

    Raises:
        EncoderError: An option is impossible.
    """

    def __init__(self, features: int, width: int = 16, norm: str = "layer", dropout: float = 0.0) -> None:
        refuse_below_one(NAME, features=features, width=width)
        check_dense(NAME, norm, dropout)
        layer = dense(CHANNELS * features, width, norm, dropout)
        super().__init__(
            NAME,
            features,
            width,
            options={"width": width, "norm": norm, "dropout": dropout},
            blocks=[("dense", nn.Sequential(Columns(features), ValuesAndGaps(), *layer))],
        )
