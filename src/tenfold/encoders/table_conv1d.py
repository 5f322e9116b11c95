"""A one-dimensional convolution over the row of a table, as Cui et al. put laboratory values into their model.

It must not know what the features are; the order in which they come is taken for a neighbourhood.
"""

from __future__ import annotations

from torch import nn

from tenfold.encoders.table import CHANNELS, Columns, TableEncoder, refuse_below_one

NAME = "table_conv1d"


class TableConv1d(TableEncoder):
    """Two convolutions of width 3 along the features, each with batch norm and ReLU, then one linear layer.

    Cui et al. print "Conv1d" for the laboratory branch of their model of necrotising enterocolitis and no layout;
    this is the smallest reading of it. The second input channel, which says what was observed, is ours. The
    order of a table's columns means nothing, so the convolution sees neighbours that are none: keep an arm with
    `table_mlp` beside it. Batch norm counts cases times features, so small batches do not harm it.

    Args:
        features: Number of features; taken from the prepared table.
        dim: Length of the embedding.
        width: Channels of the first convolution; the second has twice as many.

    Raises:
        EncoderError: An option is below 1.
    """

    def __init__(self, features: int, dim: int = 64, width: int = 16) -> None:
        refuse_below_one(NAME, features=features, dim=dim, width=width)
        super().__init__(
            NAME,
            features,
            dim,
            options={"dim": dim, "width": width},
            blocks=[
                ("convolution.0", nn.Sequential(Columns(features), *_convolution(CHANNELS, width))),
                ("convolution.1", nn.Sequential(*_convolution(width, 2 * width))),
                ("linear", nn.Sequential(nn.Flatten(), nn.Linear(2 * width * features, dim))),
            ],
        )


def _convolution(wide: int, out: int) -> tuple[nn.Module, ...]:
    return nn.Conv1d(wide, out, 3, padding=1, bias=False), nn.BatchNorm1d(out), nn.ReLU()
