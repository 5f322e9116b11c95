"""Reads one DICOM picture into a reading: bright is dense, rescaled, windowed, in RGB where it has colour.

It must not know other file formats, cohorts or networks; it never inflates a deflated data set.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.encaps import get_frame
from pydicom.filereader import read_file_meta_info
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi, pixel_array

from tenfold.errors import ImageError
from tenfold.modalities.raster import check_size, choose_frame, collapse_grey
from tenfold.modalities.ultrasound import REGIONS_FACT
from tenfold.types import FloatArray, Reading

# An allow-list: every other transfer syntax is for video, a link to a server, or deflated: 400 kB of that can
# inflate to a gigabyte while only the header is being read.
_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
_RLE = "1.2.840.10008.1.2.5"
_JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
_JPEG_FAMILY = tuple(
    f"1.2.840.10008.1.2.4.{n}" for n in ("50", "51", "57", "70", "80", "81", "90", "91", "201", "202", "203")
)
_DEFLATED = (
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.4.95",
    "1.2.840.10008.1.2.4.205",
    "1.2.840.10008.1.2.8.1",
)

_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_BYTES_PER_PIXEL = 8

# PS3.3 C.8.5.5: of ultrasound regions, those in two dimensions, M-mode and spectra are pictures; of these, grey and
# colour bars are not.
_PICTURE_FORMATS = (1, 2, 3)
_BARS = (0xD, 0xE)


def read_dicom(path: Path, *, frame: int | None, max_pixels: int, modalities: Sequence[str]) -> Reading:
    """Read one frame of a DICOM file.

    The steps are those of PS3.3 C.11: stored values -> modality LUT or rescale -> first VOI LUT or first
    window -> polarity. Padding becomes black.

    Args:
        path: A file with the DICOM preamble.
        frame: Which frame, counted from 1; needed where there is more than one.
        max_pixels: Largest rows x columns; all frames together may take 8 bytes for each of these pixels.
        modalities: The values of Modality (0008,0060) that are films.

    Returns:
        uint8 up to 8 bits stored and for all colour. Deeper grey is uint16 over its whole range where a
        window was applied; without one uint16, or float32 where values were rescaled or signed.
        `facts["window"]` names the window or says "none". `facts["ultrasound_regions"]` is there where the file says
        where its ultrasound pictures lie: "left,top,right,bottom;..." in pixels, right and bottom being outside.

    Raises:
        ImageError: Deflated or foreign transfer syntax, no pixels or too many, wrong modality, several frames
            and none named, damage.
    """
    try:
        syntax = str(read_file_meta_info(path).get("TransferSyntaxUID", ""))
        _check_syntax(syntax, path)
        header = pydicom.dcmread(path, stop_before_pixels=True)
        _check_modality(header, modalities, path)
        frames = _check_extent(header, max_pixels, path)
        chosen = choose_frame(frames, frame, path)
        dataset = pydicom.dcmread(path)
        _check_pixels(dataset, syntax, chosen, frames, path)
        facts = _mend_colour(dataset, syntax, chosen, frames) | _ultrasound_regions(header)
        stored = pixel_array(dataset, index=chosen - 1)
        pixels, shown = _display(stored, dataset, path)
    except ImageError:
        raise
    except Exception as error:  # damaged files make the parser and the codecs raise anything
        raise ImageError(
            f"the DICOM file is damaged or truncated: it cannot be decoded ({error or type(error).__name__})",
            expected="a whole DICOM file",
            do="export it from the archive again",
            where=str(path),
        ) from error
    facts |= shown | {
        "format": "DICOM",
        "modality": str(header.Modality),
        "photometric": str(header.PhotometricInterpretation),
        "transfer_syntax": syntax,
        "frame": chosen,
        "frames": frames,
        "bits": int(header.BitsStored),
    }
    return Reading(collapse_grey(pixels), str(path), facts)


def _check_syntax(syntax: str, path: Path) -> None:
    """Refuse what must not, or cannot, be decoded, knowing the file-meta group only."""
    if syntax in _DEFLATED:
        raise ImageError(
            f"the DICOM file is deflated (transfer syntax {syntax}), which can hide a decompression bomb",
            expected="an uncompressed, JPEG, JPEG-LS, JPEG 2000 or RLE transfer syntax",
            do="export it from the archive with another transfer syntax",
            where=str(path),
        )
    if syntax not in (*_NATIVE, _RLE, *_JPEG_FAMILY):
        raise ImageError(
            f"the DICOM file has the transfer syntax {syntax or '(none)'}, which is not read",
            expected="an uncompressed, JPEG, JPEG-LS, JPEG 2000 or RLE transfer syntax",
            do="export it from the archive with another transfer syntax",
            where=str(path),
        )


def _check_modality(header: Any, modalities: Sequence[str], path: Path) -> None:
    """Refuse an examination of another kind."""
    modality = str(header.get("Modality") or "")
    if modality not in modalities:
        raise ImageError(
            f"the DICOM file is of modality {modality or '(none)'}",
            expected=f"one of {', '.join(modalities)}",
            do="leave the file out, correct its header, or name its modality among those allowed",
            where=str(path),
        )


def _check_extent(header: Any, max_pixels: int, path: Path) -> int:
    """Check all sizes that the header announces and return the number of frames."""
    if "Rows" not in header or "Columns" not in header:
        raise _no_pixels(path)
    rows, columns, frames = int(header.Rows), int(header.Columns), int(header.get("NumberOfFrames") or 1)
    check_size(columns, rows, max_pixels, path)
    bits = int(header.get("SamplesPerPixel", 1)) * int(header.get("BitsAllocated", 8))
    total, most = rows * columns * frames * bits / 8, max_pixels * _BYTES_PER_PIXEL
    if total > most:
        raise ImageError(
            f"the header announces {frames} frames of {columns} x {rows} pixels: {total / 1e6:,.0f} MB",
            expected=f"at most {most / 1e6:,.0f} MB (a guard against decompression bombs)",
            do="export the frame that is needed alone",
            where=str(path),
        )
    photometric = str(header.get("PhotometricInterpretation", ""))
    if photometric not in (*_GREY, *_COLOUR):
        raise ImageError(
            f"the photometric interpretation {photometric or '(none)'} is not read",
            expected=f"one of {', '.join((*_GREY, *_COLOUR))}",
            where=str(path),
        )
    return frames


def _no_pixels(path: Path) -> ImageError:
    return ImageError(
        "the DICOM file holds no pixel data",
        expected="an image object",
        do="leave out reports, presentation states and empty exports",
        where=str(path),
    )


def _check_pixels(dataset: Any, syntax: str, frame: int, frames: int, path: Path) -> None:
    """Refuse a file without pixels, or a compressed picture larger than the header says."""
    if not dataset.get("PixelData"):
        raise _no_pixels(path)
    if syntax not in _JPEG_FAMILY:
        return
    size = _compressed_size(get_frame(dataset.PixelData, frame - 1, number_of_frames=frames))
    announced = (int(dataset.Columns), int(dataset.Rows))
    if size != announced:
        found = f"{size[0]} x {size[1]}" if size else "no readable size"
        raise ImageError(
            f"the header announces {announced[0]} x {announced[1]} pixels, the compressed picture {found}",
            expected="both the same (a guard against decompression bombs)",
            do="export it from the archive again",
            where=str(path),
        )


def _compressed_size(data: bytes) -> tuple[int, int] | None:
    """Return (width, height) that a JPEG, JPEG-LS or JPEG 2000 stream says of itself, without decoding it."""
    start = data.find(b"\xff\x4f\xff\x51", 0, 4096)
    if start >= 0 and not data.startswith(b"\xff\xd8"):
        right, bottom, left, top = struct.unpack_from(">4I", data, start + 8)
        return right - left, bottom - top
    at = _start_of_frame(data)
    if at is None:
        return None
    height, width = struct.unpack_from(">2H", data, at + 5)
    return width, height


def _start_of_frame(data: bytes) -> int | None:
    """Return where the marker lies after which a JPEG stream gives its size and components, None without one."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            return at
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return None


def _mend_colour(dataset: Any, syntax: str, frame: int, frames: int) -> dict[str, str | int | float]:
    """Correct a JPEG picture that is labelled RGB although its chroma is subsampled, as many scanners write it.

    Only brightness and chroma are ever stored at two resolutions; taken at its word the label gives false colours.
    """
    if syntax != _JPEG_BASELINE or dataset.PhotometricInterpretation != "RGB":
        return {}
    data = get_frame(dataset.PixelData, frame - 1, number_of_frames=frames)
    at = _start_of_frame(data)
    if at is None or len(data) < at + 15 or data[at + 11] == data[at + 14]:
        return {}
    dataset.PhotometricInterpretation = "YBR_FULL_422"
    return {"colour": "labelled RGB, read as YBR: its chroma is subsampled"}


def _ultrasound_regions(header: Any) -> dict[str, str | int | float]:
    """Say where the pictures of an ultrasound file lie; regions beyond the picture are cut at its edge."""
    found = []
    for region in header.get("SequenceOfUltrasoundRegions") or ():
        names = ("MinX0", "MinY0", "MaxX1", "MaxY1")
        corners = [region.get(f"RegionLocation{name}") for name in names]
        if (
            None in corners
            or region.get("RegionSpatialFormat") not in _PICTURE_FORMATS
            or region.get("RegionDataType") in _BARS
        ):
            continue
        left, top = int(corners[0]), int(corners[1])
        right, bottom = min(int(header.Columns), int(corners[2]) + 1), min(int(header.Rows), int(corners[3]) + 1)
        if 0 <= left < right and 0 <= top < bottom:
            found.append(f"{left},{top},{right},{bottom}")
    return {REGIONS_FACT: ";".join(found)} if found else {}


def _display(stored: NDArray[Any], dataset: Any, path: Path) -> tuple[NDArray[Any], dict[str, str | int | float]]:
    """Turn stored values into brightness."""
    if dataset.PhotometricInterpretation in _GREY:
        return _grey(stored, dataset, path)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        stored, bits = (table := apply_color_lut(stored, dataset)), table.dtype.itemsize * 8
    else:
        bits = int(dataset.BitsStored)
    return np.rint(stored * (255.0 / (2**bits - 1))).astype(np.uint8), {}


def _grey(stored: NDArray[Any], dataset: Any, path: Path) -> tuple[NDArray[Any], dict[str, str | int | float]]:
    """Rescale, window, turn MONOCHROME1 round and blacken the padding."""
    padding = _padding(stored, dataset)
    values = _rescale(stored, dataset)
    unit, facts = _window(values, dataset)
    bits = int(dataset.BitsStored)
    if unit is None and bits < 8 and values.dtype.kind == "u":
        unit = values / (2**bits - 1)
    if unit is not None:
        unit = 1.0 - unit if dataset.PhotometricInterpretation == "MONOCHROME1" else unit
        unit[padding] = 0.0
        kind = np.uint16 if bits > 8 else np.uint8
        return np.rint(unit * np.iinfo(kind).max).astype(kind), facts
    if not np.isfinite(values).all():
        raise ImageError("the picture holds values that are not finite numbers", where=str(path))
    seen = values[~padding] if not padding.all() else values
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        # Whole numbers turn round their full scale, so that 8-bit films keep their brightness.
        pivot = 2**bits - 1 if values.dtype.kind == "u" else seen.max() + seen.min()
        values, seen = (pivot - values).astype(values.dtype), (pivot - seen).astype(values.dtype)
    values[padding] = 0 if values.dtype == np.uint8 else seen.min()
    return values, facts


def _padding(stored: NDArray[Any], dataset: Any) -> NDArray[np.bool_]:
    """Mark pixels that were added to fill the rectangle (PS3.3 C.7.5.1.1.2)."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, bool)
    limit = dataset.get("PixelPaddingRangeLimit")
    low, high = sorted((int(value), int(value if limit is None else limit)))
    return np.asarray((stored >= low) & (stored <= high))


def _rescale(stored: NDArray[Any], dataset: Any) -> NDArray[Any]:
    """Apply the modality LUT, or slope and intercept; unsigned whole numbers stay whole without either."""
    if dataset.get("ModalityLUTSequence"):
        return np.asarray(apply_modality_lut(stored, dataset))
    slope, intercept = (
        _number(dataset.get("RescaleSlope"), 1.0),
        _number(dataset.get("RescaleIntercept"), 0.0),
    )
    if slope == 1 and intercept == 0 and stored.dtype in (np.uint8, np.uint16):
        return stored.copy()
    return (stored * slope + intercept).astype(np.float32)


def _number(value: Any, default: float) -> float:
    """Read a number that DICOM allows to be present but empty."""
    return default if value in (None, "") else float(value)


def _window(values: NDArray[Any], dataset: Any) -> tuple[FloatArray | None, dict[str, str | int | float]]:
    """Return brightness in [0, 1] by the first VOI LUT or first window, None where there is neither."""
    if dataset.get("VOILUTSequence"):
        table = dataset.VOILUTSequence[0]
        shown = apply_voi(np.rint(values).astype(np.int64), dataset)
        # The nominal depth of the table is often wrong; the smallest depth that holds its entries is not.
        scale = 2 ** int(np.asarray(table.LUTData).max()).bit_length() - 1
        return shown / max(scale, 1), {"window": f"VOI LUT {table.get('LUTExplanation') or ''}".rstrip()}
    centre, width = (_first(dataset.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if centre is None or width is None:
        return None, {"window": "none"}
    function = str(dataset.get("VOILUTFunction") or "LINEAR")
    text = f"centre {centre:g} width {width:g} {function}"
    if width < 1 if function == "LINEAR" else width <= 0:
        return None, {"window": "none", "window_ignored": text}
    return _through_window(values.astype(np.float64), centre, width, function), {"window": text}


def _first(value: Any) -> float | None:
    """Return the first of one or several numbers."""
    if value in (None, ""):
        return None
    if isinstance(value, str | int | float):
        return float(value)
    return float(value[0]) if len(value) else None


def _through_window(values: FloatArray, centre: float, width: float, function: str) -> FloatArray:
    """Map values through a window to [0, 1], by the formulas of PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    if function == "SIGMOID":
        return np.asarray(1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - centre) / width, -700.0, 700.0))))
    if function == "LINEAR_EXACT":
        return np.clip((values - centre) / width + 0.5, 0.0, 1.0)
    if width == 1:
        return (values > centre - 0.5).astype(np.float64)
    return np.clip((values - (centre - 0.5)) / (width - 1.0) + 0.5, 0.0, 1.0)
