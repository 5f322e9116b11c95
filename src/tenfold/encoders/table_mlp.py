"""A perceptron with one hidden layer over the row of a table.

It must not know what the features are; their order makes no difference to it.
"""

from __future__ import annotations

from torch import nn

from tenfold.encoders.table import CHANNELS, Columns, TableEncoder, ValuesAndGaps, refuse_below_one
from tenfold.errors import EncoderError

NAME = "table_mlp"


class TableMlp(TableEncoder):
    """Values and what is missing end to end, a hidden layer with ReLU, then one linear layer.

    Its guard against a small cohort is dropout, of what comes in as well as of the hidden layer. There is no norm
    layer: how far a patient is from the usual is what a laboratory says, and a norm divides by just that.

    Args:
        features: Number of features; taken from the prepared table.
        dim: Length of the embedding.
        hidden: Width of the hidden layer.
        dropout: Share of what comes in, and of the hidden layer, dropped in training.

    Raises:
        EncoderError: An option is impossible.
    """

    def __init__(self, features: int, dim: int = 64, hidden: int = 64, dropout: float = 0.3) -> None:
        refuse_below_one(NAME, features=features, dim=dim, hidden=hidden)
        if not 0 <= dropout < 1:
            raise EncoderError(f"dropout = {dropout}", expected="from 0 to below 1", where=f"encoder {NAME}")
        first = nn.Sequential(
            Columns(features),
            ValuesAndGaps(),
            nn.Dropout(dropout),
            nn.Linear(CHANNELS * features, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        super().__init__(
            NAME,
            features,
            dim,
            options={"dim": dim, "hidden": hidden, "dropout": dropout},
            blocks=[("hidden", first), ("linear", nn.Linear(hidden, dim))],
        )
