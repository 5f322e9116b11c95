"""Reads pictures and prepares them for a network: PNG, JPEG, TIFF and DICOM in, a uint8 square out.

It must not know cohorts, labels or networks, and nothing random happens here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tenfold.errors import BundleError, CohortError, ImageError, StudyError, nearest
from tenfold.modalities.dicom import read_dicom
from tenfold.modalities.raster import SIGNATURES, read_raster
from tenfold.modalities.ultrasound import (
    REGIONS_FACT,
    REGIONS_FILE,
    Box,
    Layout,
    bar_colours,
    bar_values,
    in_colour,
    layout_for,
    regions_of,
    without_overlay,
)
from tenfold.types import Reading

FILM_MODALITIES = ("CR", "DX", "DR", "RF", "RG", "XA", "MG", "US", "OT", "PX", "IO")
FITS = ("letterbox", "stretch")

_FOREIGN = {
    b"GIF8": "a GIF file",
    b"RIFF": "a WebP or other RIFF file",
    b"%PDF": "a PDF file",
    b"PK\x03\x04": "a ZIP file",
}


def read_image(
    path: str | Path,
    *,
    frame: int | None = None,
    max_pixels: int = 40_000_000,
    dicom_modalities: Sequence[str] = FILM_MODALITIES,
) -> Reading:
    """Read one picture; its first bytes, not its name, say what it is.

    Orientation (EXIF), polarity (MONOCHROME1) and window (DICOM) are applied; palettes and CMYK become RGB,
    transparency is composited on black, RGB that is grey becomes grey. What was done stands in `facts`.

    Args:
        path: A PNG, JPEG, TIFF or DICOM file.
        frame: Which frame or page, counted from 1; needed where the file holds several.
        max_pixels: Largest width x height that is decoded.
        dicom_modalities: The DICOM modalities that are accepted.

    Returns:
        (height, width) grey or (height, width, 3) colour: uint8, for deeper grey uint16 or float32.

    Raises:
        ImageError: The file is missing, empty, damaged, no picture, a bomb, or not of the kind expected.
    """
    path = Path(path)
    head = _head(path)
    if head[128:132] == b"DICM":
        return read_dicom(path, frame=frame, max_pixels=max_pixels, modalities=dicom_modalities)
    for signature, kind in SIGNATURES.items():
        if head.startswith(signature):
            return read_raster(path, kind, frame=frame, max_pixels=max_pixels)
    what = next((name for signature, name in _FOREIGN.items() if head.startswith(signature)), "")
    raise ImageError(
        f"{path.name} is not a picture" + (f" but {what}" if what else " (judged by its content, not by its name)"),
        expected="a PNG, JPEG, TIFF or DICOM file",
        do="correct the path, or export the picture in one of these formats",
        where=str(path),
    )


def _head(path: Path) -> bytes:
    """Read the first bytes of a file, or say why there are none."""
    try:
        if path.is_dir():
            raise ImageError("this is a folder", expected="a picture file", where=str(path))
        if path.exists() and not path.is_file():
            raise ImageError("this is not a regular file", expected="a picture file", where=str(path))
        with path.open("rb") as handle:
            head = handle.read(132)
    except FileNotFoundError as error:
        raise ImageError("there is no such file", do="correct the path in the cohort file", where=str(path)) from error
    except (OSError, ValueError) as error:
        raise ImageError(
            f"the file cannot be opened ({getattr(error, 'strerror', None) or error})",
            do="check that you may read it",
            where=str(path),
        ) from error
    if not head:
        raise ImageError("the file is empty (0 bytes)", do="copy or export it again", where=str(path))
    return head


def eight_bit(reading: Reading) -> NDArray[np.uint8]:
    """Reduce a reading to 8 bits, in one documented way.

    8-bit pictures stay as they are. Deeper ones that went through a DICOM window use their whole range.
    All others are cut at their own 0.5th and 99.5th percentile, because 10, 12 and 14 bits travel inside 16
    without saying so.

    Returns:
        uint8 of the reading's shape.
    """
    pixels = reading.pixels
    if pixels.dtype == np.uint8:
        return np.asarray(pixels)
    if pixels.dtype == np.uint16 and reading.facts.get("window", "none") != "none":
        low, high = 0.0, 65535.0
    else:
        low, high = (float(v) for v in np.percentile(pixels, (0.5, 99.5)))
    if high <= low:
        return np.zeros(pixels.shape, np.uint8)
    scaled = (np.clip(pixels, low, high).astype(np.float32) - low) * (255.0 / (high - low))
    return np.rint(scaled).astype(np.uint8)


_A_COLOUR = 32
# what scanners show: blue, cyan, green, yellow, red, over the picture's own grey
_STOPS = (0.0, 0.25, 0.5, 0.75, 1.0)
_RAINBOW = ((0, 0, 0, 1, 1), (0, 1, 1, 1, 0), (1, 1, 0, 0, 0))
_TINT = 0.7
_BLANK_SPREAD = 8
_BLANK_SHARE = 0.01


def blank(reading: Reading) -> bool:
    """Say whether a picture shows nothing.

    The spread between the 0.5th and the 99.5th percentile decides. On a scale of 8 bits it is nothing up to
    8 grey levels (3 %): the noise of an empty detector, or of JPEG on a constant picture, stays below, while
    the flattest of 5,216 children's films spreads over 90. Deep pictures without a window have no scale of
    their own; there, up to 1 % of the largest value is nothing. The outer half per cents leave out a lead
    marker or a dead pixel on an empty film.
    """
    pixels = reading.pixels
    low, high = (float(v) for v in np.percentile(pixels, (0.5, 99.5)))
    if pixels.dtype == np.uint8:
        return high - low <= _BLANK_SPREAD
    if reading.facts.get("window", "none") != "none":
        return high - low <= _BLANK_SPREAD * 257
    return high - low <= _BLANK_SHARE * max(abs(low), abs(high))


def coloured(pixels: NDArray[Any]) -> float:
    """Share of the pixels that have a colour, from 0 to 1.

    Args:
        pixels: (height, width) or (height, width, 3).
    """
    if pixels.ndim == 2:
        return 0.0
    return float(((pixels.max(axis=2).astype(np.int16) - pixels.min(axis=2)) >= _A_COLOUR).mean())


@dataclass(frozen=True)
class ImagePreparation:
    """How a picture becomes the square that a network eats.

    Nothing in it is learned from patients, so it is never fitted; it is saved in the bundle all the same.

    Attributes:
        size: Side of the square, pixels.
        fit: "letterbox" keeps the proportions and fills up with black, centred; "stretch" does not keep them.
        channels: 1 (colour becomes its ITU-R 601 luma) or 3 (grey is copied).
        layouts: Of one view, at most one a site: what lies outside the region is cut off, blanks and the colour bar
            are blackened. The site of a picture is its reading's fact "site".
        masked: Fail closed: a picture without a region, declared or in its DICOM file, is refused; what was drawn over
            a grey view (channels = 1) in pure colours is replaced by its surroundings. A declared region goes before
            those of the DICOM file, which are taken only here.
        bar_high: Above 0, colours become values by the colour bar: the three channels are the value (0 to 255 over 0 to
            `bar_high` in the bar's unit, larger ones cut off; of a bar that runs through zero, as in colour Doppler,
            its amount), the luma, and whether there is a colour (255 or 0).
    """

    size: int = 224
    fit: Literal["letterbox", "stretch"] = "letterbox"
    channels: Literal[1, 3] = 1
    layouts: tuple[Layout, ...] = ()
    masked: bool = False
    bar_high: float = 0.0

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise StudyError(f"unknown fit '{self.fit}'", expected=nearest(str(self.fit), FITS))
        if self.channels not in (1, 3):
            raise StudyError(f"channels = {self.channels}", expected="1 or 3")
        if isinstance(self.size, bool) or not isinstance(self.size, int) or not 1 <= self.size <= 4096:
            raise StudyError(f"size = {self.size}", expected="a whole number of pixels from 1 to 4096")
        if not isinstance(self.masked, bool):
            raise StudyError(f"masked = {self.masked}", expected="true or false")
        self._check_layouts()
        if self.bar_high:
            self._check_bar()

    def _check_layouts(self) -> None:
        places = [layout.place for layout in self.layouts]
        if len({layout.view for layout in self.layouts}) > 1 or len(set(places)) < len(places):
            raise StudyError(f"layouts of {'; '.join(places)}", expected="those of one view, at most one a site")

    def _check_bar(self) -> None:
        number = isinstance(self.bar_high, int | float) and not isinstance(self.bar_high, bool)
        if not number or not 0 < self.bar_high < float("inf"):
            raise StudyError(f"bar_high = {self.bar_high}", expected="the value of full scale, or 0: colours stay")
        if self.channels != 3:
            raise StudyError(f"bar_high = {self.bar_high:g} with channels = {self.channels}", expected="channels = 3")
        units = sorted({layout.unit for layout in self.layouts if layout.bar})
        if len(units) != 1:
            raise StudyError(
                f"bar_high = {self.bar_high:g} and colour bars in " + (", ".join(f"'{u}'" for u in units) or "no unit"),
                expected=f"at least one bar in {REGIONS_FILE}, all in one unit",
            )

    def apply(self, reading: Reading) -> NDArray[np.uint8]:
        """Prepare one reading.

        Returns:
            uint8 (channels, size, size), contiguous. Resized by an antialiased bilinear filter.

        Raises:
            ImageError: The picture has no region where it must, a box reaches beyond it, its bar is not there, or a
                grey view is coloured.
        """
        layout, shown, regions = self._of(reading)
        part = self._part(reading, layout, shown, regions)
        if self.bar_high:
            planes = self._by_bar(part, reading, layout)
        else:
            planes = [self._plain(part, reading.source)]
        top, left, bottom, right = self._place(part.shape[0], part.shape[1])
        square = np.zeros((self.size, self.size, self.channels), np.uint8)
        resized = [np.asarray(plane.resize((right - left, bottom - top), _BILINEAR)) for plane in planes]
        square[top:bottom, left:right] = (
            _joined(*resized) if self.bar_high else resized[0].reshape(bottom - top, right - left, self.channels)
        )
        return np.ascontiguousarray(square.transpose(2, 0, 1))

    def visible(self, prepared: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Turn a prepared picture into one for people: values of a colour bar become colours again, from blue to red.

        Args:
            prepared: uint8 (channels, size, size), as `apply` gives it.

        Returns:
            uint8, same shape.
        """
        if not self.bar_high:
            return prepared
        value, luma, has = prepared / np.float32(255)
        colours = np.stack([np.interp(value, _STOPS, channel) for channel in _RAINBOW])
        return np.asarray(np.rint(255 * ((1 - _TINT * has) * luma + _TINT * has * colours)), np.uint8)

    def shown(self, reading: Reading) -> Reading:
        """Return a reading as a person may see it: cut to its region, black where nothing may be seen.

        Raises:
            ImageError: There is no region where there must be one, or a box reaches beyond the picture.
        """
        if not self.layouts and not self.masked:
            return reading
        layout, shown, regions = self._of(reading)
        return replace(reading, pixels=self._part(reading, layout, shown, regions))

    @staticmethod
    def _part(reading: Reading, layout: Layout | None, shown: Box, regions: tuple[Box, ...]) -> NDArray[np.uint8]:
        """What is shown of a reading, at 8 bits, black where nothing may be seen."""
        pixels = _cut(reading.pixels, shown)
        hidden = _hidden(pixels.shape[:2], shown, regions, layout.hidden if layout else ())
        if not hidden.any():
            return eight_bit(replace(reading, pixels=pixels))
        # before the reduction, too: burned-in white would decide where a deep picture is cut
        pixels = pixels.copy()
        pixels[hidden] = 0 if hidden.all() else pixels[~hidden].min()
        part = eight_bit(replace(reading, pixels=pixels)).copy()
        part[hidden] = 0
        return part

    def _plain(self, part: NDArray[np.uint8], source: str) -> Image.Image:
        """The picture in the channels asked for, without what is drawn over it where that can be seen."""
        picture = Image.fromarray(part).convert("L" if self.channels == 1 else "RGB")
        if self.channels == 1 and self.masked and part.ndim == 3:
            return Image.fromarray(without_overlay(part, np.asarray(picture), source))
        return picture

    def _by_bar(self, part: NDArray[np.uint8], reading: Reading, layout: Layout | None) -> list[Image.Image]:
        """The value where there is one (0 to 1, else 0), the luma, and whether there is one (255 or 0)."""
        if layout is None:
            raise ImageError(
                "no colour bar is known for this picture",
                expected=f"a row in {REGIONS_FILE} for its site ({reading.facts.get('site') or 'not stated'})",
                where=reading.source,
            )
        picture = Image.fromarray(part).convert("RGB")
        colours = bar_colours(in_colour(eight_bit(reading)), layout, reading.source)
        values, has = bar_values(np.asarray(picture), *colours)
        share = np.minimum(np.abs(values) * np.float32(1 / self.bar_high), 1)
        return [Image.fromarray(share), picture.convert("L"), Image.fromarray(has.astype(np.uint8) * 255)]

    def apply_mask(self, mask: NDArray[Any], *, site: str = "", regions: str = "") -> NDArray[np.bool_]:
        """Bring a mask drawn on the picture into the prepared square, by nearest neighbour.

        Args:
            mask: (height, width) of the picture, bool or numbers, anything but 0 is inside.
            site: The picture's, where there are layouts.
            regions: The picture's fact "ultrasound_regions", where it has one.

        Returns:
            bool (size, size).

        Raises:
            ImageError: The mask is not two-dimensional, or has no region where it must.
        """
        if mask.ndim != 2:
            raise ImageError(f"a mask of shape {mask.shape}", expected="(height, width)")
        part = _cut(mask, self.region(mask.shape[0], mask.shape[1], site=site, regions=regions))
        top, left, bottom, right = self._place(part.shape[0], part.shape[1])
        picture = Image.fromarray((part != 0).astype(np.uint8))
        square = np.zeros((self.size, self.size), bool)
        square[top:bottom, left:right] = np.asarray(
            picture.resize((right - left, bottom - top), Image.Resampling.NEAREST)
        )
        return square

    def box(self, height: int, width: int, *, site: str = "", regions: str = "") -> tuple[int, int, int, int]:
        """Say where a picture of this size, or its region, lies in the prepared square.

        Args:
            height: Of the picture, pixels.
            width: Of the picture, pixels.
            site: The picture's, where there are layouts.
            regions: The picture's fact "ultrasound_regions", where it has one.

        Returns:
            (top, left, bottom, right): the prepared square's `[top:bottom, left:right]` shows what `region` names.
        """
        left, top, right, bottom = self.region(height, width, site=site, regions=regions)
        return self._place(bottom - top, right - left)

    def region(self, height: int, width: int, *, site: str = "", regions: str = "") -> Box:
        """Say which part of a picture is shown: (left, top, right, bottom), the whole of it where nothing is cut off.

        Raises:
            ImageError: There is no region where there must be one, or a box reaches beyond the picture.
        """
        return self._shown(height, width, site, regions)[0]

    def boxes(self, reading: Reading) -> tuple[tuple[str, Box], ...]:
        """What is cut out and blackened in a picture: ("region", "blank" or "bar", box), for a person to look at."""
        layout, _, regions = self._of(reading)
        others = [(what, box) for what, box in (layout.boxes if layout else ()) if what != "region"]
        return (*(("region", box) for box in regions), *others)

    def _of(self, reading: Reading) -> tuple[Layout | None, Box, tuple[Box, ...]]:
        """The layout of a reading, what is shown of it, and its regions."""
        height, width = reading.pixels.shape[:2]
        site, facts = str(reading.facts.get("site", "")), str(reading.facts.get(REGIONS_FACT, ""))
        return self._layout(site), *self._shown(height, width, site, facts, reading.source)

    def _layout(self, site: str) -> Layout | None:
        return layout_for(self.layouts, self.layouts[0].view, site) if self.layouts else None

    def _shown(self, height: int, width: int, site: str, facts: str, source: str = "") -> tuple[Box, tuple[Box, ...]]:
        """The box around all regions of a picture, and the regions; the whole picture and () where there are none."""
        layout = self._layout(site)
        if layout:
            layout.check(height, width, source)
        declared = (layout.region,) if layout and layout.region else ()
        regions = declared or (regions_of(facts) if self.masked else ())
        if not regions and self.masked:
            raise ImageError(
                "no ultrasound region is known for this picture, and masked = true",
                expected="SequenceOfUltrasoundRegions in a DICOM file, or a row 'region' for its view and site "
                f"({site or 'not stated'}) in {REGIONS_FILE}",
                do="declare the box that holds the picture and no name, date or text",
                where=source,
            )
        if not regions:
            return (0, 0, width, height), ()
        lefts, tops, rights, bottoms = zip(*regions, strict=True)
        return (min(lefts), min(tops), max(rights), max(bottoms)), regions

    def _place(self, height: int, width: int) -> tuple[int, int, int, int]:
        """(top, left, bottom, right) of what is shown, in the square."""
        if self.fit == "stretch":
            return 0, 0, self.size, self.size
        scale = self.size / max(height, width)
        high, wide = max(1, round(height * scale)), max(1, round(width * scale))
        top, left = (self.size - high) // 2, (self.size - wide) // 2
        return top, left, top + high, left + wide

    def state(self) -> dict[str, Any]:
        """Return what `from_state` needs, fit for JSON; what later versions added stands there only where it is used.

        So pictures that were prepared by an earlier version are found again, and its bundles have the same state.
        """
        state: dict[str, Any] = {"size": self.size, "fit": self.fit, "channels": self.channels}
        if self.layouts:
            state["layouts"] = [layout.state() for layout in self.layouts]
        if self.masked:
            state["masked"] = True
        if self.bar_high:
            state["bar_high"] = float(self.bar_high)
        return state

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> ImagePreparation:
        """Read what `state` wrote.

        Raises:
            BundleError: A key is unknown or missing, or a value impossible.
        """
        known = [f.name for f in fields(cls)]
        for key in state:
            if key not in known:
                raise BundleError(f"the image preparation has an unknown key '{key}'", expected=nearest(key, known))
        missing = [key for key in ("size", "fit", "channels") if key not in state]
        if missing:
            raise BundleError(f"the image preparation lacks {', '.join(missing)}")
        try:
            layouts = state.get("layouts", ())
            if not isinstance(layouts, list | tuple):
                raise StudyError(f"layouts = {layouts}", expected="a list")
            return cls(**{**state, "layouts": tuple(Layout.from_state(one) for one in layouts)})
        except (StudyError, CohortError) as error:
            raise BundleError(f"the image preparation is impossible: {error.came}", expected=error.expected) from error


_BILINEAR = Image.Resampling.BILINEAR


def _cut(pixels: NDArray[Any], box: Box) -> NDArray[Any]:
    left, top, right, bottom = box
    return pixels[top:bottom, left:right]


def _hidden(shape: tuple[int, ...], shown: Box, regions: tuple[Box, ...], boxes: tuple[Box, ...]) -> NDArray[np.bool_]:
    """Mark what lies between several regions, and the boxes that are to be blackened, in the part that is shown."""
    left, top, _, _ = shown
    hidden = np.full(shape, len(regions) > 1)
    for box in regions if len(regions) > 1 else ():
        hidden[box[1] - top : box[3] - top, box[0] - left : box[2] - left] = False
    for box in boxes:
        hidden[max(0, box[1] - top) : max(0, box[3] - top), max(0, box[0] - left) : max(0, box[2] - left)] = True
    return hidden


def _joined(value: NDArray[np.float32], luma: NDArray[np.uint8], has: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Join resized planes; a value is the mean of those there were, not of the places without one."""
    mean = np.divide(value * 255 * 255, has, out=np.zeros_like(value), where=has > 0)
    return np.dstack([np.rint(np.minimum(mean, 255)).astype(np.uint8), luma, has])
