"""What a scanner draws around and over an ultrasound picture: regions, burned-in text, callipers, the colour bar.

It must not know files of pictures, cohorts or networks: it takes pixels and boxes.
"""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from tenfold.errors import CohortError, ImageError, Refusal, nearest
from tenfold.types import FloatArray

REGIONS_FILE = "regions.csv"
REGIONS_FACT = "ultrasound_regions"
"""The fact of a reading that says where a DICOM file has its pictures: "l,t,r,b;l,t,r,b", pixels."""

Box = tuple[int, int, int, int]
"""(left, top, right, bottom) in pixels of the original picture; right and bottom are the first pixels outside."""

_HEADINGS = ("view", "site", "what", "left", "top", "right", "bottom", "low", "high", "unit")
_SIDES = _HEADINGS[3:7]
_KINDS = ("region", "blank", "bar")

# Chroma is the largest of red, green and blue less the smallest, 0 to 255. What JPEG leaves on grey stays below 10.
_COLOURED = 24
_PURE, _PURE_SHARE = 80, 0.5
_MOST_PURE = 0.25
_REACH = 4
# Largest distance of two unit vectors of hue that still are the same colour: 20 degrees.
_SAME_HUE = 0.35
_STRENGTH = 0.1
_MOST_ROWS = 128


@dataclass(frozen=True)
class Layout:
    """Where things lie on the screen of one scanner, in one view.

    Attributes:
        view: The input whose pictures look like this.
        site: Whose scanner; "" stands for every site that has no layout of its own.
        region: What lies outside is not shown to the network.
        blanks: Burned-in text and logos, blackened.
        bar: The coloured part of the colour bar, `low` at its bottom or left end.
        low: What the bar says at that end.
        high: What it says at the other.
        unit: Of both.

    Raises:
        CohortError: A box is empty or begins above or left of the picture, or the bar's ends are not in order.
    """

    view: str
    site: str = ""
    region: Box | None = None
    blanks: tuple[Box, ...] = ()
    bar: Box | None = None
    low: float = 0.0
    high: float = 0.0
    unit: str = ""

    def __post_init__(self) -> None:
        for what, box in self.boxes:
            _check_box(box, f"{self.place}, {what}")
        if self.bar and not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise CohortError(
                f"the colour bar runs from {self.low:g} to {self.high:g}",
                expected="low at the bottom or left end, a larger high at the other",
                where=self.place,
            )

    @property
    def place(self) -> str:
        """View and site, for messages."""
        return f"view '{self.view}', " + (f"site '{self.site}'" if self.site else "every site")

    @property
    def boxes(self) -> tuple[tuple[str, Box], ...]:
        """All its boxes, each with what it is."""
        one = (("region", self.region), ("bar", self.bar))
        return (*((what, box) for what, box in one if box), *(("blank", box) for box in self.blanks))

    @property
    def hidden(self) -> tuple[Box, ...]:
        """What is blackened: a bar inside the region would tell the scanner and its setting."""
        return (*self.blanks, *((self.bar,) if self.bar else ()))

    def check(self, height: int, width: int, where: str = "") -> None:
        """Refuse a picture that a box does not fit in: it is of another scanner, or was resized.

        Raises:
            ImageError: A box reaches beyond the picture.
        """
        for what, box in self.boxes:
            if box[2] > width or box[3] > height:
                raise ImageError(
                    f"the {what} ({', '.join(map(str, box))}) of {self.place} reaches beyond the picture of "
                    f"{width} x {height} pixels",
                    expected="boxes in pixels of the original picture: left, top, right, bottom",
                    do=f"correct {REGIONS_FILE}, or give the site rows of its own",
                    where=where,
                )

    def state(self) -> dict[str, Any]:
        """Return what `from_state` needs, fit for JSON."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Layout:
        """Read what `state` wrote, tuples having become lists.

        Raises:
            CohortError: It is no layout.
        """
        try:
            return cls(
                view=str(state["view"]),
                site=str(state["site"]),
                region=_box(state["region"]) if state["region"] else None,
                blanks=tuple(_box(box) for box in state["blanks"]),
                bar=_box(state["bar"]) if state["bar"] else None,
                low=float(state["low"]),
                high=float(state["high"]),
                unit=str(state["unit"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CohortError(f"this is no layout of a view: {error}") from error


def _box(values: Sequence[int]) -> Box:
    left, top, right, bottom = (int(v) for v in values)
    return left, top, right, bottom


def _check_box(box: Box, where: str) -> None:
    """Refuse a box without area, or that begins outside."""
    left, top, right, bottom = box
    if not (0 <= left < right and 0 <= top < bottom):
        raise CohortError(
            f"the box {left}, {top}, {right}, {bottom}",
            expected="0 <= left < right and 0 <= top < bottom, pixels",
            where=where,
        )


def read_layouts(path: Path) -> tuple[Layout, ...]:
    """Read the layouts of all views and sites from a CSV file, comma, semicolon or tab between the cells.

    One row a box: view, site, what, left, top, right, bottom, low, high, unit. `what` is "region" (one a view and
    site), "blank" (any number) or "bar" (one; it alone has low, high and unit).

    Args:
        path: The file.

    Returns:
        One layout a view and site, in order of first appearance.

    Raises:
        CohortError: The file cannot be read, or a row of it is wrong; the row is named.
    """
    rows: dict[tuple[str, str], list[tuple[int, dict[str, str]]]] = defaultdict(list)
    for number, row in _rows(path):
        if not row["view"]:
            raise CohortError("no view is named", expected="the name of an input", where=f"{path.name}, row {number}")
        rows[row["view"], row["site"]].append((number, row))
    return tuple(_layout(view, site, own, path.name) for (view, site), own in rows.items())


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the filled rows, each with its number in the file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        delimiter = max(",;\t", key=text.split("\n", 1)[0].count)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        records = [(reader.line_num, [cell.strip() for cell in record]) for record in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CohortError(f"the file cannot be read: {error}", expected="CSV in UTF-8", where=path.name) from error
    header = records[0][1] if records else []
    place = f"{path.name}, row 1"
    if unknown := [name for name in header if name not in _HEADINGS]:
        raise CohortError(f"unknown heading '{unknown[0]}'", do=nearest(unknown[0], _HEADINGS), where=place)
    missing = [name for name in _HEADINGS[:7] if name not in header]
    if missing or len(set(header)) < len(header):
        came = f"no heading {', '.join(missing)}" if missing else "a heading stands twice"
        raise CohortError(came, expected=f"each once: {', '.join(_HEADINGS)}", where=place)
    for number, cells in records[1:]:
        if any(cells):
            if len(cells) != len(header):
                came = f"{len(cells)} cells under {len(header)} headings"
                raise CohortError(came, where=f"{path.name}, row {number}")
            yield number, dict.fromkeys(_HEADINGS, "") | dict(zip(header, cells, strict=True))


def _layout(view: str, site: str, rows: Sequence[tuple[int, dict[str, str]]], file: str) -> Layout:
    """Join the rows of one view and site."""
    boxes: dict[str, list[Box]] = {kind: [] for kind in _KINDS}
    scale: dict[str, Any] = {}
    for number, row in rows:
        place, what = f"{file}, row {number}", row["what"]
        if what not in _KINDS:
            raise CohortError(f"unknown thing '{what}' in the column what", do=nearest(what, _KINDS), where=place)
        if boxes[what] and what != "blank":
            raise CohortError(f"a second {what} for view '{view}', site '{site}'", expected="one", where=place)
        box = _box([_whole(row, side, place) for side in _SIDES])
        _check_box(box, place)
        boxes[what].append(box)
        if what == "bar":
            scale = {"low": _number(row, "low", place), "high": _number(row, "high", place), "unit": row["unit"]}
        elif row["low"] or row["high"] or row["unit"]:
            raise CohortError(f"low, high or unit of a {what}", expected="empty cells: a bar has them", where=place)
    try:
        return Layout(
            view,
            site,
            region=next(iter(boxes["region"]), None),
            blanks=tuple(boxes["blank"]),
            bar=next(iter(boxes["bar"]), None),
            **scale,
        )
    except Refusal as error:
        raise CohortError(error.came, expected=error.expected, where=f"{file}, {error.where}") from error


def _whole(row: Mapping[str, str], name: str, where: str) -> int:
    if not row[name].isascii() or not row[name].isdigit():
        raise CohortError(f"{name} = '{row[name]}'", expected="a whole number of pixels", where=where)
    return int(row[name])


def _number(row: Mapping[str, str], name: str, where: str) -> float:
    try:
        return float(row[name])
    except ValueError as error:
        raise CohortError(f"{name} = '{row[name]}'", expected="a number, with a decimal point", where=where) from error


def layout_for(layouts: Sequence[Layout], view: str, site: str) -> Layout | None:
    """Return the layout of a view at a site, else that of every site, else None.

    A site's own layout is taken whole: it must repeat what it shares with that of every site.
    """
    own = {layout.site: layout for layout in layouts if layout.view == view}
    return own.get(site, own.get(""))


def regions_of(fact: str) -> tuple[Box, ...]:
    """Read the boxes in a reading's fact, "l,t,r,b;l,t,r,b"; () of an empty one."""
    return tuple(_box([int(side) for side in part.split(",")]) for part in fact.split(";") if part)


def in_colour(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return (height, width, 3) of a picture that may be grey."""
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)


def chroma(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the largest of red, green and blue less the smallest, (...,) of (..., 3)."""
    red, green, blue = (rgb[..., k] for k in range(3))
    return np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)


def overlay(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Mark what was drawn over a grey picture in a pure colour: callipers, text, markers.

    A pixel counts where its chroma is at least 80 and half of its brightest colour: tinted grey maps stay below. One
    pixel around is taken along, for smoothed edges. White callipers cannot be told from tissue.

    Args:
        rgb: uint8 (height, width, 3).

    Returns:
        bool (height, width).
    """
    strength = chroma(rgb)
    pure = (strength >= _PURE) & (strength >= _PURE_SHARE * rgb.max(axis=-1))
    return np.asarray(binary_dilation(pure, np.ones((3, 3), bool))) if pure.any() else pure


def without_overlay(rgb: NDArray[np.uint8], grey: NDArray[np.uint8], where: str = "") -> NDArray[np.uint8]:
    """Take out of a grey view what was drawn over it in colour: each pixel becomes the median of those around.

    Args:
        rgb: uint8 (height, width, 3), in which the drawing is found.
        grey: uint8 (height, width), the same picture, in which it is replaced.
        where: The picture, for messages.

    Returns:
        uint8 (height, width).

    Raises:
        ImageError: More than a quarter is coloured: no grey view.
    """
    hole = overlay(rgb)
    if hole.mean() > _MOST_PURE:
        raise ImageError(
            f"{hole.mean():.0%} of the picture is in pure colours",
            expected="a grey view, on which callipers and text alone may be coloured",
            do="put colour Doppler and elastography into a view of their own, with channels = 3",
            where=where,
        )
    return _inpainted(grey, hole)


def _inpainted(grey: NDArray[np.uint8], hole: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Fill holes with the median of what surrounds them, looking further where nothing is near."""
    filled, unknown, reach = grey.copy(), 256, _REACH
    known_or_not = np.where(hole, np.uint16(unknown), grey)
    rows, columns = np.nonzero(hole)
    while len(rows):
        padded = np.pad(known_or_not, reach, constant_values=unknown)
        around = sliding_window_view(padded, (2 * reach + 1, 2 * reach + 1))[rows, columns]
        ordered = np.sort(around.reshape(len(rows), -1), axis=1)
        count = (ordered < unknown).sum(axis=1)
        found = count > 0
        middle = ordered[found, (count[found] - 1) // 2]
        filled[rows[found], columns[found]] = middle.astype(np.uint8)
        rows, columns, reach = rows[~found], columns[~found], 2 * reach
    return filled


def bar_colours(rgb: NDArray[np.uint8], layout: Layout, where: str = "") -> tuple[FloatArray, FloatArray]:
    """Read the colour bar as it is drawn in a picture.

    Args:
        rgb: uint8 (height, width, 3), the whole picture.
        layout: Where its bar is.
        where: The picture, for messages.

    Returns:
        Colours (n, 3) in [0, 255] of those places of the bar that have a colour, and their values (n,) in the bar's
        unit: linear between its ends.

    Raises:
        ImageError: No bar is declared, it reaches beyond the picture, or half of it has no colour.
    """
    if layout.bar is None:
        raise ImageError(
            f"no colour bar is declared for {layout.place}", do=f"add its row to {REGIONS_FILE}", where=where
        )
    layout.check(rgb.shape[0], rgb.shape[1], where)
    left, top, right, bottom = layout.bar
    upright = bottom - top >= right - left
    drawn = np.median(rgb[top:bottom, left:right], axis=1 if upright else 0)
    colours = np.asarray(drawn[::-1] if upright else drawn, np.float64)
    coloured = np.ptp(colours, axis=1) >= _COLOURED
    if len(colours) < 2 or coloured.mean() < 0.5:
        raise ImageError(
            f"the colour bar ({', '.join(map(str, layout.bar))}) of {layout.place} is not in this picture of "
            f"{rgb.shape[1]} x {rgb.shape[0]} pixels: {coloured.mean():.0%} of its length has a colour",
            expected="the box of the coloured part of the bar, in a picture that was not converted to grey",
            do=f"correct {REGIONS_FILE}, or give the site rows of its own",
            where=where,
        )
    share = (np.arange(len(colours)) + 0.5) / len(colours)
    values = layout.low + (layout.high - layout.low) * share
    return colours[coloured], values[coloured]


def bar_values(
    rgb: NDArray[np.uint8], colours: FloatArray, values: FloatArray
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Turn colours back into the values that the scanner painted.

    Elastography is blended over the grey picture, which keeps the hue and weakens it: so a pixel is matched by the
    direction of its colour from grey, and by its strength only where the bar repeats a hue. A blend of unknown strength
    cannot be told there: in a bar whose ends only grow darker (1/8 of "jet" each) the error is up to that length.

    Args:
        rgb: uint8 (height, width, 3).
        colours: (n, 3) of the bar.
        values: (n,) that they stand for.

    Returns:
        Values (height, width), 0 where there is none; and where there is one: where a pixel has a colour, within 20
        degrees of hue of one in the bar.
    """
    bins = _bins()[_index(rgb)]
    seen = np.zeros(_HUES * _STRENGTHS, bool)
    seen[bins] = True
    seen[0] = False
    present = np.flatnonzero(seen)
    step = -(-len(colours) // _MOST_ROWS)
    bar, own = _from_grey(colours[::step]), _from_bin(present)
    place = np.argmax(own @ bar.T - 0.5 * (bar * bar).sum(1), axis=1)
    near = ((own - bar[place])[:, :2] ** 2).sum(1) <= _SAME_HUE**2
    value_of, has = np.zeros(len(seen), np.float32), np.zeros(len(seen), bool)
    value_of[present[near]], has[present[near]] = values[::step][place[near]], True
    return value_of[bins], has[bins]


# Colours are looked up at 6 bits each: hue in steps of 0.7 degrees and 31 distances from grey are told apart, which is
# finer than JPEG keeps them. Bin 0 is grey.
_HUES, _STRENGTHS = 512, 32
_FURTHEST = 255 * math.sqrt(2 / 3)


def _index(rgb: NDArray[np.uint8]) -> NDArray[np.int32]:
    """The upper 6 bits of each colour as one number."""
    red, green, blue = ((rgb[..., k] >> 2).astype(np.int32) for k in range(3))
    return (red << 12) | (green << 6) | blue


@cache
def _bins() -> NDArray[np.uint16]:
    """The bin of each of the 2 to the power of 18 colours."""
    number = np.arange(1 << 18)
    rgb = np.stack([number >> 12, (number >> 6) & 63, number & 63], 1) * 4 + 1.5
    across, along = _plane(rgb)
    hue = np.floor(np.arctan2(along, across) / math.tau * _HUES).astype(np.int64) % _HUES
    strength = 1 + np.floor(np.hypot(across, along) / _FURTHEST * (_STRENGTHS - 1)).astype(np.int64)
    bins = hue * _STRENGTHS + np.minimum(strength, _STRENGTHS - 1)
    return np.where(np.ptp(rgb, axis=1) >= _COLOURED, bins, 0).astype(np.uint16)


def _from_bin(bins: NDArray[np.int64]) -> NDArray[np.float32]:
    """What `_from_grey` gives for the middle of some bins."""
    hue, strength = (bins // _STRENGTHS + 0.5) * (math.tau / _HUES), bins % _STRENGTHS
    length = (strength - 0.5) / (_STRENGTHS - 1) * _FURTHEST
    return np.stack([np.cos(hue), np.sin(hue), length * (_STRENGTH / 255)], 1).astype(np.float32)


def _from_grey(rgb: FloatArray) -> NDArray[np.float32]:
    """Return (n, 3): the unit vector of each colour's direction from grey, and its distance from grey, slightly."""
    across, along = _plane(rgb)
    length = np.hypot(across, along)
    return np.stack([across / length, along / length, length * (_STRENGTH / 255)], 1).astype(np.float32)


def _plane(rgb: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The two coordinates of colours, (n, 3), in the plane in which grey is the origin."""
    red, green, blue = rgb.T
    return (2 * red - green - blue) / math.sqrt(6), (green - blue) / math.sqrt(2)
