"""What several figures share: the drawn figure with its words, keys, rows and whiskers.

It must not know the page, nor what any figure shows.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tenfold.report.look import BLUE, INK, PAPER, canvas
from tenfold.report.words import arm_name
from tenfold.types import Estimate, FloatArray


@dataclass(frozen=True)
class Drawn:
    """A figure with what belongs under it and what is read aloud in its place."""

    figure: Figure
    caption: str
    alt: str


def key(
    axes: Axes, y: float, text: str, colour: str, width: float, alpha: float = 1, back: dict[str, Any] | None = None
) -> None:
    """Write a direct label with its line into the free corner of a ROC plot."""
    axes.plot([0.42, 0.48], [y, y], color=colour, lw=width, alpha=alpha)
    axes.text(0.5, y, text, va="center", bbox=back)


def behind(auc: Estimate | None) -> dict[str, Any] | None:
    """Return what hides a curve behind the key: that of a weak model runs through the corner where the key stands."""
    if auc is None or auc.value >= 0.7:
        return None
    return {"facecolor": PAPER, "edgecolor": "none", "alpha": 0.9, "pad": 1.0}


def numbers(values: list[float | None]) -> FloatArray:
    """Return a curve as numbers, null as a gap."""
    return np.array(values, np.float64)


def matrix(axes: Axes, arm: str, m: dict[str, Any], *, main: bool) -> None:
    """Draw one 2 x 2 table, the truth in rows."""
    cells = [[m["tn"], m["fp"]], [m["fn"], m["tp"]]]
    for row, (no, yes) in enumerate(cells):
        for column, n in enumerate((no, yes)):
            share = n / (no + yes) if no + yes else 0
            axes.add_patch(Rectangle((column, row), 1, 1, fc=BLUE, alpha=0.04 + 0.46 * share, lw=0))
            axes.text(column + 0.5, row + 0.5, f"{n:g}", ha="center", va="center")
    axes.set(xlim=(0, 2), ylim=(2, 0))
    axes.set_xticks([0.5, 1.5], ["−", "+"])
    axes.set_yticks([0.5, 1.5], ["−", "+"])
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_title("\n".join(textwrap.wrap(arm_name(arm), 14)[:2]), fontsize=8, weight="bold" if main else "normal")


def named_rows(names: list[str], label: str) -> tuple[Figure, Axes]:
    """Return a figure with one named row each, the first on top."""
    figure = canvas(0.6 + 0.235 * len(names))
    axes = figure.subplots()
    axes.set_yticks(range(len(names)), [short(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=INK, alpha=0.14, lw=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel(label)
    return figure, axes


def whisker(axes: Axes, e: Estimate, y: float, colour: str) -> None:
    """Draw a point and its interval on one row."""
    axes.plot([e.low, e.high], [y, y], color=colour, lw=1.8)
    axes.plot(e.value, y, "s", color=colour, ms=5)


def short(text: str, width: int = 22) -> str:
    """Cut a long name with an ellipsis."""
    plain = arm_name(text)
    return plain if len(plain) <= width else plain[: width - 1] + "…"
