"""What an ultrasound machine puts around a picture and into it: header, logo, notes, ruler, callipers, colour bar.

It must not know what a picture shows.

Every machine has a layout of its own, the same for every picture it takes but for the words of the header and the
distance of the ruler's marks. Where its parts lie is what `regions.csv` says.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from tenfold.simulate.neck import Drawn, Machine, bar_colours

Box = tuple[int, int, int, int]
"""Left, top, right, bottom, pixels of the screen; right and bottom are the first ones outside."""

_BAR = 7
"""Breadth of a bar, pixels."""
_TEXT = 9
_BACKGROUND = 12
_CALLIPER = (250, 225, 40)


@dataclass(frozen=True)
class Scanner:
    """A machine and its screen.

    Attributes:
        machine: How it renders.
        bar: At which side of the region its bar stands; the low end is at the bottom or left.
        header: Rows above the region.
        left: Columns to the left of it.
        right: Columns to the right of it.
        bottom: Rows below it.
        note: Words burned into an upper corner of the region.
        note_right: In the right one of the two.
        logo: Colour of the maker's mark in the header.
        callipers: Part of the grey pictures in which yellow callipers mark the node's ends; with any, they are filed
            in colour.
    """

    machine: Machine
    bar: Literal["left", "right", "bottom"]
    header: int
    left: int
    right: int
    bottom: int
    note: str
    note_right: bool = False
    logo: tuple[int, int, int] = (90, 160, 255)
    callipers: float = 0.0

    def region(self, size: int) -> Box:
        """Return where the picture itself lies."""
        return self.left, self.header, self.left + size, self.header + size

    def bar_box(self, size: int) -> Box:
        """Return where the colour bar lies."""
        left, top, right, bottom = self.region(size)
        inset = size // 10
        if self.bar == "bottom":
            return left + inset, bottom + 4, right - inset, bottom + 4 + _BAR
        first = right + 4 if self.bar == "right" else left - 4 - _BAR
        return first, top + inset, first + _BAR, bottom - inset

    def note_box(self, size: int) -> Box:
        """Return where words are burned into the region."""
        left, top, right, _ = self.region(size)
        x0, y0, x1, y1 = (round(v) for v in _font(_TEXT - 1).getbbox(self.note))
        first = right - x1 - 2 if self.note_right else left + 2
        return first + x0 - 1, top + y0, first + x1 + 1, top + y1 + 1

    def layout_rows(self, view: str, site: str, size: int, *, stiffness: bool) -> list[dict[str, Any]]:
        """Return the rows of regions.csv for one view of this machine."""
        boxes: list[tuple[str, Box, Any, Any, str]] = [
            ("region", self.region(size), "", "", ""),
            ("blank", self.note_box(size), "", "", ""),
        ]
        if stiffness:
            boxes.append(("bar", self.bar_box(size), 0, f"{self.machine.top_kpa:g}", "kPa"))
        return [
            {
                "view": view,
                "site": site,
                "what": what,
                **dict(zip(("left", "top", "right", "bottom"), box, strict=True)),
                "low": low,
                "high": high,
                "unit": unit,
            }
            for what, box, low, high, unit in boxes
        ]

    def screen(self, drawn: Drawn, kind: str, words: str, *, measured: bool = False) -> NDArray[np.uint8]:
        """Put a picture on the screen.

        Args:
            drawn: The picture.
            kind: "b_mode", "cdfi" or "elastography": which bar stands beside it.
            words: For the header.
            measured: Whether callipers lie on the node.

        Returns:
            (height, width) if the picture is grey and the machine files grey ones so, otherwise (height, width, 3).
        """
        size = len(drawn.pixels)
        left, top, right, bottom = self.region(size)
        screen = _empty_screen(self, kind, size).copy()
        grey = drawn.pixels if drawn.pixels.ndim == 3 else drawn.pixels[:, :, None]
        screen[top:bottom, left:right] = np.clip(np.rint(grey), 0, 255)
        image = Image.fromarray(screen)
        pen = ImageDraw.Draw(image)
        pen.text((2, 0), words, fill=(210, 210, 210), font=_font(_TEXT))
        x0, y0, _, _ = self.note_box(size)
        offset = _font(_TEXT - 1).getbbox(self.note)
        pen.text((x0 + 1 - offset[0], y0 - offset[1]), self.note, fill=(235, 235, 235), font=_font(_TEXT - 1))
        self._ruler(pen, size, drawn.width_mm)
        if measured:
            for x, y in drawn.ends:
                at, to = left + round(x * size), top + round(y * size)
                pen.line((at - 2, to, at + 2, to), fill=_CALLIPER)
                pen.line((at, to - 2, at, to + 2), fill=_CALLIPER)
        filed = np.asarray(image)
        return filed[:, :, 0].copy() if drawn.pixels.ndim == 2 and not self.callipers else filed

    def framed(self, mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Put a mask where the picture lies on the screen, 0 and 255."""
        inside = 255 * mask.astype(np.uint8)
        return np.pad(inside, ((self.header, self.bottom), (self.left, self.right)))

    def _ruler(self, pen: ImageDraw.ImageDraw, size: int, width_mm: float) -> None:
        """Mark every centimetre of depth beside the region, on the side without a bar."""
        left, top, right, _ = self.region(size)
        x = left - 3 if self.bar == "right" else right
        for centimetre in range(int(width_mm / 10) + 1):
            y = top + min(round(10 * centimetre / width_mm * size), size - 1)
            pen.line((x, y, x + 2, y), fill=(200, 200, 200))


@cache
def _empty_screen(scanner: Scanner, kind: str, size: int) -> NDArray[np.uint8]:
    """Draw what is the same on every screen of one kind: background, maker's mark and bar."""
    _, _, right, bottom = scanner.region(size)
    screen = np.full((bottom + scanner.bottom, right + scanner.right, 3), _BACKGROUND, np.uint8)
    image = Image.fromarray(screen)
    pen = ImageDraw.Draw(image)
    # A machine that files grey pictures has a grey mark on them.
    mark = scanner.logo if kind != "b_mode" or scanner.callipers else (190, 190, 190)
    pen.ellipse((screen.shape[1] - 9, 2, screen.shape[1] - 3, 8), fill=mark)
    x0, y0, x1, y1 = scanner.bar_box(size)
    if kind == "elastography":
        words = f"{scanner.machine.top_kpa:g}"
        where = (x1 - 14, y1 + 1) if scanner.bar == "bottom" else (min(x0 - 3, screen.shape[1] - 17), y0 - 10)
        pen.text(where, words, fill=(200, 200, 200), font=_font(_TEXT - 1))
    screen = np.asarray(image).copy()
    along = x1 - x0 if scanner.bar == "bottom" else y1 - y0
    shades = _shades(scanner.machine, kind, (np.arange(along) + 0.5) / along)
    screen[y0:y1, x0:x1] = shades[None] if scanner.bar == "bottom" else shades[::-1, None]
    return screen


def _shades(machine: Machine, kind: str, share: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the colours of a bar from its low end to its high one, (n, 3)."""
    if kind == "elastography":
        colours = bar_colours(share, machine.reversed)
    elif kind == "cdfi":
        speed = 2 * share - 1
        colours = 255 * np.stack([np.maximum(speed, 0), 0.5 * np.abs(speed), np.maximum(-speed, 0)], axis=1)
    else:
        colours = np.repeat(255 * share[:, None], 3, axis=1)
    return np.asarray(np.rint(colours), np.uint8)


@cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)


SCANNERS = (
    Scanner(Machine(top_kpa=100.0), "right", header=13, left=5, right=19, bottom=5, note="MI 0.9"),
    Scanner(
        Machine(lighter=5.0, contrast=0.95, grain=1.25, top_kpa=120.0),
        "left",
        header=20,
        left=19,
        right=6,
        bottom=4,
        note="L12-3",
        note_right=True,
        logo=(240, 120, 40),
        callipers=0.4,
    ),
    Scanner(
        Machine(lighter=-4.0, contrast=1.05, grain=0.9, top_kpa=150.0, reversed=True),
        "bottom",
        header=13,
        left=3,
        right=9,
        bottom=22,
        note="TIS 0.4",
        logo=(60, 200, 120),
    ),
)
"""The three machines of the home hospitals; more hospitals go through them again."""

OTHER_SCANNERS = {
    "b_mode": Scanner(
        Machine(lighter=3.0, contrast=1.0, grain=1.1), "right", header=13, left=8, right=16, bottom=8, note="BR 14"
    ),
    "cdfi": Scanner(
        Machine(lighter=-2.0, grain=1.1), "left", header=16, left=16, right=8, bottom=3, note="PRF 1.0", note_right=True
    ),
    "elastography": Scanner(
        Machine(contrast=0.97, top_kpa=130.0), "right", header=13, left=5, right=20, bottom=10, note="SWE"
    ),
}
"""The machines of the other clinic, one a kind of picture."""
