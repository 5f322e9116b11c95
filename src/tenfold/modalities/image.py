"""Reads pictures and prepares them for a network: PNG, JPEG, TIFF and DICOM in, a uint8 square out.

It must not know cohorts, labels or networks, and nothing random happens here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tenfold.errors import BundleError, ImageError, StudyError, nearest
from tenfold.modalities.dicom import read_dicom
from tenfold.modalities.raster import SIGNATURES, read_raster
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


@dataclass(frozen=True)
class ImagePreparation:
    """How a picture becomes the square that a network eats.

    Nothing in it is learned from patients, so it is never fitted; it is saved in the bundle all the same.

    Attributes:
        size: Side of the square, pixels.
        fit: "letterbox" keeps the proportions and fills up with black, centred; "stretch" does not keep them.
        channels: 1 (colour becomes its ITU-R 601 luma) or 3 (grey is copied).
    """

    size: int = 224
    fit: Literal["letterbox", "stretch"] = "letterbox"
    channels: Literal[1, 3] = 1

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise StudyError(f"unknown fit '{self.fit}'", expected=nearest(str(self.fit), FITS))
        if self.channels not in (1, 3):
            raise StudyError(f"channels = {self.channels}", expected="1 or 3")
        if isinstance(self.size, bool) or not isinstance(self.size, int) or not 1 <= self.size <= 4096:
            raise StudyError(f"size = {self.size}", expected="a whole number of pixels from 1 to 4096")

    def apply(self, reading: Reading) -> NDArray[np.uint8]:
        """Prepare one reading.

        Returns:
            uint8 (channels, size, size), contiguous. Resized by an antialiased bilinear filter.
        """
        picture = Image.fromarray(eight_bit(reading)).convert("L" if self.channels == 1 else "RGB")
        top, left, bottom, right = self.box(picture.height, picture.width)
        square = np.zeros((self.size, self.size, self.channels), np.uint8)
        resized = np.asarray(picture.resize((right - left, bottom - top), Image.Resampling.BILINEAR))
        square[top:bottom, left:right] = resized.reshape(bottom - top, right - left, self.channels)
        return np.ascontiguousarray(square.transpose(2, 0, 1))

    def apply_mask(self, mask: NDArray[Any]) -> NDArray[np.bool_]:
        """Bring a mask drawn on the picture into the prepared square, by nearest neighbour.

        Args:
            mask: (height, width) of the picture, bool or numbers, anything but 0 is inside.

        Returns:
            bool (size, size).

        Raises:
            ImageError: The mask is not two-dimensional.
        """
        if mask.ndim != 2:
            raise ImageError(f"a mask of shape {mask.shape}", expected="(height, width)")
        top, left, bottom, right = self.box(*mask.shape)
        picture = Image.fromarray((mask != 0).astype(np.uint8))
        square = np.zeros((self.size, self.size), bool)
        square[top:bottom, left:right] = np.asarray(
            picture.resize((right - left, bottom - top), Image.Resampling.NEAREST)
        )
        return square

    def box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Say where a picture of this size lies in the prepared square.

        Args:
            height: Of the picture, pixels.
            width: Of the picture, pixels.

        Returns:
            (top, left, bottom, right): the prepared square's `[top:bottom, left:right]` shows the picture.
        """
        if self.fit == "stretch":
            return 0, 0, self.size, self.size
        scale = self.size / max(height, width)
        high, wide = max(1, round(height * scale)), max(1, round(width * scale))
        top, left = (self.size - high) // 2, (self.size - wide) // 2
        return top, left, top + high, left + wide

    def state(self) -> dict[str, Any]:
        """Return what `from_state` needs, fit for JSON."""
        return asdict(self)

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
        missing = [key for key in known if key not in state]
        if missing:
            raise BundleError(f"the image preparation lacks {', '.join(missing)}")
        try:
            return cls(**state)
        except StudyError as error:
            raise BundleError(f"the image preparation is impossible: {error.came}", expected=error.expected) from error
