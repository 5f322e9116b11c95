"""Reads PNG, JPEG and TIFF files into readings.

It must not know DICOM, cohorts or networks, nor change any setting of Pillow that others share.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from tenfold.errors import ImageError
from tenfold.types import Reading

# The file classes are opened directly, never through Image.open: the first bytes decide, not the name, and
# Pillow's own (far higher, global) bomb limit is neither consulted nor changed.
SIGNATURES: dict[bytes, type[ImageFile.ImageFile]] = {
    b"\x89PNG\r\n\x1a\n": PngImageFile,
    b"\xff\xd8\xff": JpegImageFile,
    b"II*\x00": TiffImageFile,
    b"MM\x00*": TiffImageFile,
    b"II+\x00": TiffImageFile,
    b"MM\x00+": TiffImageFile,
}

_ORIENTATION, _PHOTOMETRIC, _WHITE_IS_ZERO = 0x0112, 262, 0


def read_raster(path: Path, kind: type[ImageFile.ImageFile], *, frame: int | None, max_pixels: int) -> Reading:
    """Read one PNG, JPEG or TIFF picture.

    Args:
        path: The file.
        kind: Which of the classes in `SIGNATURES` its first bytes name.
        frame: Which page, counted from 1; needed where there is more than one.
        max_pixels: Largest width x height that is decoded.

    Returns:
        uint8 up to 8 bits and for all colour (Pillow reads 16-bit colour as 8), uint16 for 16-bit grey,
        float32 for 32-bit grey.

    Raises:
        ImageError: The picture is damaged, too large, holds several pages, or values that are not numbers.
    """
    try:
        # An open handle, not the path: given a path Pillow maps uncompressed TIFF, and scrambles turned ones.
        with path.open("rb") as handle, kind(handle) as picture:
            frames = int(getattr(picture, "n_frames", 1))
            page = choose_frame(frames, frame, path)
            if page > 1:
                picture.seek(page - 1)
            check_size(picture.width, picture.height, max_pixels, path)
            return _decode(picture, path, page, frames)
    except ImageError:
        raise
    except Exception as error:  # parsers of damaged files raise anything from struct.error to MemoryError
        raise ImageError(
            f"the picture is damaged or truncated and cannot be decoded ({error or type(error).__name__})",
            expected="a whole PNG, JPEG or TIFF file",
            do="copy or export the file again",
            where=str(path),
        ) from error


def choose_frame(frames: int, frame: int | None, path: Path) -> int:
    """Return the frame to read, counted from 1, or refuse to choose among several.

    Raises:
        ImageError: There are several and none was named, or there is none of that number.
    """
    if frame is None and frames > 1:
        raise ImageError(
            f"the file holds {frames} frames and no frame was named",
            expected="a single picture",
            do=f"name the frame that shows the finding (frame = 1 to {frames}), or export that one alone",
            where=str(path),
        )
    chosen = 1 if frame is None else frame
    if not 1 <= chosen <= frames:
        raise ImageError(
            f"there is no frame {chosen}",
            expected=f"frame = 1 to {frames}" if frames > 1 else "frame = 1: the file holds a single picture",
            where=str(path),
        )
    return chosen


def check_size(width: int, height: int, max_pixels: int, path: Path) -> None:
    """Refuse what the header says is too large, before a single pixel is decoded.

    Raises:
        ImageError: No pixel at all, or more than `max_pixels`.
    """
    if width < 1 or height < 1:
        raise ImageError(f"the picture measures {width} x {height} pixels", where=str(path))
    if width * height > max_pixels:
        raise ImageError(
            f"the header announces {width} x {height} = {width * height:,} pixels",
            expected=f"at most {max_pixels:,} pixels (a guard against decompression bombs)",
            do="export the picture smaller, or raise the limit if you trust where it comes from",
            where=str(path),
        )


def _decode(picture: ImageFile.ImageFile, path: Path, page: int, frames: int) -> Reading:
    """Decode the page that the file now stands on."""
    orientation = int(picture.getexif().get(_ORIENTATION, 1))
    facts: dict[str, str | int | float] = {
        "format": str(picture.format),
        "mode": picture.mode,
        "frame": page,
        "frames": frames,
        "orientation": orientation,
    }
    inverted = isinstance(picture, TiffImageFile) and picture.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    upright = ImageOps.exif_transpose(picture)
    pixels = _values(upright, path)
    # Pillow turns 8-bit WhiteIsZero round by itself, but not the deeper ones.
    if inverted and pixels.dtype == np.uint16:
        pixels = np.uint16(65535) - pixels
    if upright.mode not in _DEEP and upright.has_transparency_data:
        facts["alpha"] = "composited on black"
    facts["bits"] = pixels.dtype.itemsize * 8
    return Reading(collapse_grey(pixels), str(path), facts)


_DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")


def _values(picture: Image.Image, path: Path) -> NDArray[Any]:
    """Turn any of Pillow's modes into grey or RGB numbers."""
    if picture.mode in ("I", "F"):
        values = np.asarray(picture).astype(np.float32)
        if not np.isfinite(values).all():
            raise ImageError("the picture holds values that are not finite numbers", where=str(path))
        return values
    if picture.mode in _DEEP:
        return np.asarray(picture).astype(np.uint16)
    if picture.has_transparency_data:
        black = Image.new("RGBA", picture.size, (0, 0, 0, 255))
        return np.asarray(Image.alpha_composite(black, picture.convert("RGBA")).convert("RGB"))
    return np.array(picture.convert("L" if picture.mode in ("1", "L") else "RGB"))


def collapse_grey(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return (height, width) where a colour picture says the same thing three times, otherwise what came."""
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        return np.ascontiguousarray(pixels[..., 0])
    return pixels
