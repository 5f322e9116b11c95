"""How every figure looks, and how it becomes bytes: one ink, the Okabe-Ito colours, no date inside.

It must not know what a figure shows.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# The ink is a colour no palette contains, so that a drawing can hand its text and axes to the page's own colour.
INK = "#1a1b1c"
BLUE, ORANGE, GREEN, SKY, RED, PURPLE = "#0072b2", "#e69f00", "#009e73", "#56b4e9", "#d55e00", "#cc79a7"
PAPER = "#fefefd"  # the inside of a hollow mark: it hides what lies behind and takes the ground of the page
HALF_WIDTH = 3.5  # inches: one column of a journal
_TURNED = {
    BLUE: "--blue",
    ORANGE: "--orange",
    GREEN: "--green",
    SKY: "--sky",
    RED: "--red",
    PURPLE: "--purple",
    PAPER: "--paper",
}
_FONT = "'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', sans-serif"
_SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # the one font that ships with matplotlib: the same layout on every machine
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "text.parse_math": False,  # a dollar sign in a name is no formula
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.facecolor": "none",
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "lines.linewidth": 1.6,
    "svg.fonttype": "none",
    "svg.hashsalt": "tenfold",
}


@contextmanager
def settings() -> Iterator[None]:
    """Draw inside this: the look holds for the block and leaves no trace outside."""
    with mpl.rc_context(_SETTINGS):
        yield


def canvas(height: float, width: float = HALF_WIDTH) -> Figure:
    """Return an empty figure; sizes in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def unit_square(axes: Axes) -> None:
    """Make both axes run from 0 to 1, equally long."""
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_aspect("equal")
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])


def settle(figure: Figure) -> None:
    """Lay the figure out once, so that both files are alike and the second costs no second layout."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def svg_file(figure: Figure) -> str:
    """Return a stand-alone SVG with a transparent ground whose ink is the reader's own text colour."""
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = re.sub(r"font(-family)?: ?([^;\"]*?)'DejaVu Sans'[^;\"]*", rf"font\1: \2{_FONT}", out.getvalue())
    return text.replace(INK, "currentColor")


def svg_inline(svg: str, name: str, description: str) -> str:
    """Return an SVG as a piece of a page: own ids, a spoken description, colours that follow light and dark.

    Args:
        svg: What `svg_file` gave.
        name: Unique on the page; letters, digits and hyphens.
        description: What a person who cannot see the figure should hear. Must be escaped already.
    """
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'<style type="text/css">.*?</style>', "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = body.replace("url(#", f"url(#{name}-").replace('xlink:href="#', f'href="#{name}-')
    for colour, variable in _TURNED.items():
        body = body.replace(colour, f"var({variable})")
    width = re.search(r'width="([\d.]+)pt"', body)
    size = f"--drawn: {float(width.group(1)) / 72 * 96 * 1.12:.0f}px" if width else ""
    head, rest = body.split(">", 1)
    head = re.sub(r' (width|height|xmlns|xmlns:xlink|version)="[^"]*"', "", head)
    label = f'role="img" aria-labelledby="{name}-said" style="{size}"'
    return f'{head} {label}><title id="{name}-said">{description}</title>{rest}'


def png(figure: Figure) -> bytes:
    """Return the figure as PNG on white, 200 dots an inch."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=200, facecolor="white", metadata={"Software": None})
    return out.getvalue()
