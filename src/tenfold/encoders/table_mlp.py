"""A perceptron with one hidden layer over the row of a table.

It must not know what the features are; their order makes no difference to it.
"""

from __future__ import annotations

from torch import nn

from tenfold.encoders.table import CHANNELS, Columns, TableEncoder, refuse_below_one
from tenfold.errors import EncoderError

NAME = "table_mlp"


class TableMlp(TableEncoder):
    """Values and what was observed end to end, a hidden layer with layer norm and ReLU, then one linear layer.

    Layer norm (Ba et al., arXiv 1607.06450) looks at one case at a time, so no batch is too small for it.

    Args:
        features: Number of features; taken from the prepared table.
        dim: Length of the embedding.
        hidden: Width of the hidden layer.
        dropout: Share of the hidden layer dropped in training.

    Raises:
        EncoderError: An option is impossible.
    """

    def __init__(self, features: int, dim: int = 64, hidden: int = 64, dropout: float = 0.1) -> None:
        refuse_below_one(NAME, features=features, dim=dim, hidden=hidden)
        if not 0 <= dropout < 1:
            raise EncoderError(f"dropout = {dropout}", expected="from 0 to below 1", where=f"encoder {NAME}")
        first = nn.Sequential(
            Columns(features),
            nn.Flatten(),
            nn.Linear(CHANNELS * features, hidden),
            nn.LayerNorm(hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        super().__init__(
            NAME,
            features,
            dim,
            options={"hidden": hidden, "dropout": dropout},
            blocks=[("hidden", first), ("linear", nn.Linear(hidden, dim))],
        )
