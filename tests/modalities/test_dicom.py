"""DICOM films, all made here except those marked shared."""

from __future__ import annotations

import io
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_voi_lut
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
    generate_uid,
)

from tenfold.errors import ImageError
from tenfold.modalities.image import ImagePreparation, eight_bit, read_image


def film(pixels: np.ndarray, *, syntax: str = ExplicitVRLittleEndian, bits: int | None = None, **tags: Any) -> Dataset:
    """A minimal film of (height, width), (frames, height, width) or (height, width, 3)."""
    colour = pixels.ndim == 3 and pixels.shape[-1] == 3
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.Modality = "DX"
    dataset.Rows, dataset.Columns = pixels.shape[:2] if colour else pixels.shape[-2:]
    dataset.SamplesPerPixel = 3 if colour else 1
    if colour:
        dataset.PlanarConfiguration = 0
    elif pixels.ndim == 3:
        dataset.NumberOfFrames = len(pixels)
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    dataset.BitsAllocated = pixels.dtype.itemsize * 8
    dataset.BitsStored = bits or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    for name, value in tags.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    return dataset


def write(path: Path, dataset: Dataset) -> Path:
    dcmwrite(path, dataset, enforce_file_format=True)
    return path


def twelve_bit() -> np.ndarray:
    return (np.arange(24 * 40) * 4).reshape(24, 40).astype(np.uint16)


def test_eight_bit_is_left_alone_and_monochrome1_is_turned_round(tmp_path: Path) -> None:
    grey = np.arange(24 * 10, dtype=np.uint8).reshape(24, 10)
    reading = read_image(write(tmp_path / "a.dcm", film(grey)))
    np.testing.assert_array_equal(reading.pixels, grey)
    assert reading.pixels.dtype == np.uint8
    assert (reading.facts["modality"], reading.facts["window"], reading.facts["bits"]) == ("DX", "none", 8)
    dataset = film(grey, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read_image(write(tmp_path / "b", dataset)).pixels, 255 - grey)


def test_deep_without_window_stays_deep(tmp_path: Path) -> None:
    reading = read_image(write(tmp_path / "a.dcm", film(twelve_bit(), bits=12)))
    np.testing.assert_array_equal(reading.pixels, twelve_bit())
    assert reading.facts["window"] == "none"
    dataset = film(twelve_bit(), bits=12, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read_image(write(tmp_path / "b.dcm", dataset)).pixels, 4095 - twelve_bit())


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("rescaled", [False, True])
def test_window_agrees_with_pydicom(tmp_path: Path, function: str, rescaled: bool) -> None:
    dataset = film(twelve_bit(), bits=12, WindowCenter=[1500, 9], WindowWidth=[900, 9], VOILUTFunction=function)
    if rescaled:
        dataset.RescaleSlope, dataset.RescaleIntercept = "0.5", "-20"
    reading = read_image(write(tmp_path / "a.dcm", dataset))
    values = twelve_bit() * 0.5 - 20 if rescaled else twelve_bit()
    theirs = apply_voi_lut(values, dataset, index=0)
    low, high = (-20, 4095 * 0.5 - 20) if rescaled else (0, 4095)
    np.testing.assert_allclose(reading.pixels / 65535, (theirs - low) / (high - low), atol=2e-5)
    assert reading.facts["window"] == f"centre 1500 width 900 {function}"
    assert reading.pixels.dtype == np.uint16
    np.testing.assert_allclose(eight_bit(reading), reading.pixels / 257, atol=0.51)


def test_windowed_monochrome1_is_turned_round_after_the_window(tmp_path: Path) -> None:
    tags = {"bits": 12, "WindowCenter": 1500, "WindowWidth": 900}
    plain = read_image(write(tmp_path / "a.dcm", film(twelve_bit(), **tags)))
    turned = read_image(write(tmp_path / "b.dcm", film(twelve_bit(), PhotometricInterpretation="MONOCHROME1", **tags)))
    assert np.abs(65535 - plain.pixels.astype(int) - turned.pixels).max() <= 1


def test_an_impossible_window_is_ignored_and_said(tmp_path: Path) -> None:
    reading = read_image(write(tmp_path / "a.dcm", film(twelve_bit(), WindowCenter=5, WindowWidth=0)))
    assert reading.facts["window"] == "none"
    assert "width 0" in str(reading.facts["window_ignored"])


def test_voi_lut_comes_before_the_window(tmp_path: Path) -> None:
    table = Dataset()
    table.LUTDescriptor = [4, 10, 16]
    table.LUTData = [0, 1023, 2047, 4095]
    table.LUTExplanation = "CHEST"
    dataset = film(np.array([[0, 10, 11], [12, 13, 99]], np.uint16), bits=12, WindowCenter=5, WindowWidth=9)
    dataset.VOILUTSequence = [table]
    dataset["VOILUTSequence"].value[0]["LUTData"].VR = "US"
    dataset["VOILUTSequence"].value[0]["LUTDescriptor"].VR = "US"
    reading = read_image(write(tmp_path / "a.dcm", dataset))
    assert reading.facts["window"] == "VOI LUT CHEST"
    expected = np.array([[0, 0, 1023], [2047, 4095, 4095]]) / 4095
    np.testing.assert_allclose(reading.pixels / 65535, expected, atol=1e-4)


def test_rescale_and_signed_values_become_float(tmp_path: Path) -> None:
    signed = twelve_bit().astype(np.int16) - 1000
    reading = read_image(write(tmp_path / "a.dcm", film(signed, RescaleSlope="2", RescaleIntercept="-7")))
    assert reading.pixels.dtype == np.float32
    np.testing.assert_array_equal(reading.pixels, signed * 2.0 - 7)
    empty = film(twelve_bit(), bits=12, RescaleSlope="", RescaleIntercept="")
    np.testing.assert_array_equal(read_image(write(tmp_path / "b.dcm", empty)).pixels, twelve_bit())
    turned = film(signed, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(
        read_image(write(tmp_path / "c.dcm", turned)).pixels, signed.max() + signed.min() - signed
    )


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("window", [{}, {"WindowCenter": 2000, "WindowWidth": 4000}])
def test_padding_is_black_whatever_the_polarity(tmp_path: Path, photometric: str, window: dict[str, Any]) -> None:
    pixels = twelve_bit() % 3000 + 500
    padding = 4095 if photometric == "MONOCHROME2" else 0
    pixels[:, :5] = padding
    dataset = film(pixels, bits=12, PhotometricInterpretation=photometric, **window)
    dataset.add_new("PixelPaddingValue", "US", padding)
    reading = read_image(write(tmp_path / "a.dcm", dataset))
    assert (reading.pixels[:, :5] == reading.pixels.min()).all()
    assert eight_bit(reading)[:, :5].max() == 0
    assert eight_bit(reading)[:, 5:].max() > 180


def test_colour(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    np.testing.assert_array_equal(read_image(write(tmp_path / "a.dcm", film(rgb, Modality="US"))).pixels, rgb)
    from_pillow = np.asarray(Image.fromarray(rgb).convert("YCbCr"))
    ybr = film(from_pillow, Modality="US", PhotometricInterpretation="YBR_FULL")
    assert np.abs(read_image(write(tmp_path / "b.dcm", ybr)).pixels.astype(int) - rgb).max() <= 4  # two roundings
    grey = np.repeat(rgb[..., :1], 3, axis=2)
    assert read_image(write(tmp_path / "c.dcm", film(grey, Modality="US"))).pixels.ndim == 2


@pytest.mark.parametrize("depth", [8, 16])
def test_palette(tmp_path: Path, depth: int) -> None:
    index = np.arange(12, dtype=np.uint8).reshape(3, 4) % 4
    dataset = film(index, Modality="US", PhotometricInterpretation="PALETTE COLOR")
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [9, 8, 255]])
    kind = np.uint8 if depth == 8 else np.dtype("<u2")
    for column, name in enumerate(("Red", "Green", "Blue")):
        dataset.add_new(f"{name}PaletteColorLookupTableDescriptor", "US", [4, 0, depth])
        entries = colours[:, column] * (1 if depth == 8 else 257)
        setattr(dataset, f"{name}PaletteColorLookupTableData", entries.astype(kind).tobytes())
    np.testing.assert_array_equal(read_image(write(tmp_path / "a.dcm", dataset)).pixels, colours[index])


def jpeg(pixels: np.ndarray, kind: str = "JPEG", **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


def test_compressed(tmp_path: Path) -> None:
    smooth = np.add.outer(np.arange(24), np.arange(40)).astype(np.uint8) * 4
    rle = film(smooth)
    rle.compress(RLELossless)
    np.testing.assert_array_equal(read_image(write(tmp_path / "r.dcm", rle)).pixels, smooth)
    baseline = film(smooth, syntax=JPEGBaseline8Bit, PixelData=encapsulate([jpeg(smooth, quality=95)]))
    reading = read_image(write(tmp_path / "j.dcm", baseline))
    assert np.abs(reading.pixels.astype(int) - smooth).max() < 6
    assert reading.facts["transfer_syntax"] == JPEGBaseline8Bit
    stream = jpeg(smooth, "JPEG2000", no_jp2=True)
    lossless = film(smooth, syntax=JPEG2000Lossless, PixelData=encapsulate([stream]))
    np.testing.assert_array_equal(read_image(write(tmp_path / "k.dcm", lossless)).pixels, smooth)


@pytest.mark.parametrize(
    ("syntax", "kind", "options"),
    [
        (JPEGBaseline8Bit, "JPEG", {}),
        (JPEG2000Lossless, "JPEG2000", {"no_jp2": True}),
        (JPEG2000Lossless, "JPEG2000", {}),
    ],
)
def test_a_compressed_picture_larger_than_its_header_is_a_bomb(
    tmp_path: Path, syntax: str, kind: str, options: dict[str, Any]
) -> None:
    large = jpeg(np.zeros((600, 500), np.uint8), kind, **options)
    dataset = film(np.zeros((8, 8), np.uint8), syntax=syntax, PixelData=encapsulate([large]))
    with pytest.raises(ImageError, match="8 x 8 pixels, the compressed picture 500 x 600"):
        read_image(write(tmp_path / "a.dcm", dataset))


def test_multi_frame_needs_a_frame(tmp_path: Path) -> None:
    frames = np.stack([np.full((6, 8), v, np.uint8) for v in (10, 20, 30)])
    path = write(tmp_path / "a.dcm", film(frames, Modality="XA"))
    with pytest.raises(ImageError, match="3 frames and no frame was named"):
        read_image(path)
    assert read_image(path, frame=3).pixels.max() == 30
    with pytest.raises(ImageError, match="no frame 4"):
        read_image(path, frame=4)
    streams = [jpeg(f) for f in frames]
    compressed = film(frames, Modality="XA", syntax=JPEGBaseline8Bit, PixelData=encapsulate(streams))
    assert abs(int(read_image(write(tmp_path / "b.dcm", compressed), frame=2).pixels.max()) - 20) < 3


def test_wrong_modality_says_what_came_and_what_was_expected(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", film(twelve_bit(), Modality="CT"))
    with pytest.raises(ImageError, match="modality CT") as refusal:
        read_image(path)
    assert "DX" in refusal.value.expected
    assert read_image(path, dicom_modalities=("CT",)).pixels.shape == (24, 40)
    with pytest.raises(ImageError, match=r"modality \(none\)"):
        read_image(write(tmp_path / "b.dcm", film(twelve_bit(), Modality=None)))


@pytest.mark.parametrize("missing", ["PixelData", "Rows"])
def test_no_pixels(tmp_path: Path, missing: str) -> None:
    tags: dict[str, Any] = {missing: None}
    with pytest.raises(ImageError, match="no pixel data"):
        read_image(write(tmp_path / "a.dcm", film(twelve_bit(), **tags)))


def test_deflated_is_refused_before_it_is_inflated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.dcm", film(twelve_bit(), syntax=DeflatedExplicitVRLittleEndian))

    def inflate(*_: Any, **__: Any) -> bytes:
        raise AssertionError("the data set was inflated")

    monkeypatch.setattr(zlib, "decompress", inflate)
    with pytest.raises(ImageError, match="deflated"):
        read_image(path)


def test_foreign_transfer_syntax_is_refused(tmp_path: Path) -> None:
    mpeg = film(twelve_bit(), syntax="1.2.840.10008.1.2.4.102", PixelData=encapsulate([b"\0\0"]))
    with pytest.raises(ImageError, match=r"1\.2\.840\.10008\.1\.2\.4\.102, which is not read"):
        read_image(write(tmp_path / "a.dcm", mpeg))


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"Rows": 60_000, "Columns": 60_000}, "60000 x 60000"),
        ({"NumberOfFrames": 5_000_000}, "5000000 frames"),
        ({"PhotometricInterpretation": "HSV"}, "HSV"),
        ({"Rows": 25}, "damaged or truncated"),
    ],
)
def test_headers_that_promise_too_much(tmp_path: Path, tags: dict[str, Any], message: str) -> None:
    with pytest.raises(ImageError, match=message):
        read_image(write(tmp_path / "a.dcm", film(twelve_bit(), **tags)), frame=1)


def test_damage_anywhere_is_a_refusal_never_a_crash(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.dcm", film(twelve_bit(), bits=12, WindowCenter=5, WindowWidth=9)).read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / "a.dcm"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for cut in (140, 200, 400, len(whole) - 100):
            path.write_bytes(whole[:cut])
            with pytest.raises(ImageError):
                read_image(path)
        for _ in range(80):
            data = bytearray(whole)
            data[int(rng.integers(132, len(data) - 1920))] = int(rng.integers(256))
            path.write_bytes(bytes(data))
            try:
                read_image(path, max_pixels=100_000)
            except ImageError:
                continue


@pytest.mark.shared
def test_real_films(shared_data: Path) -> None:
    chest = read_image(shared_data / "dicom" / "cr_chest_monochrome1_j2k.dcm")
    header = dcmread(shared_data / "dicom" / "cr_chest_monochrome1_j2k.dcm", stop_before_pixels=True)
    assert chest.pixels.shape == (header.Rows, header.Columns)
    assert chest.facts["photometric"] == "MONOCHROME1"
    shown = eight_bit(chest).astype(float)
    rows, columns = (slice(n // 3, 2 * n // 3) for n in shown.shape)
    assert shown[rows, columns].mean() > 60
    wrong = 0
    for path in sorted((shared_data / "dicom").glob("test*.dcm")):
        try:
            assert read_image(path).pixels.ndim == 2
        except ImageError as error:
            wrong += "CT" in error.came
    assert wrong == 1


def region(box: tuple[int, int, int, int], spatial: int = 1, data: int = 1) -> Dataset:
    """An ultrasound region; its last row and column are inside, as DICOM counts."""
    found = Dataset()
    found.RegionSpatialFormat, found.RegionDataType = spatial, data
    names = ("MinX0", "MinY0", "MaxX1", "MaxY1")
    for name, value in zip(names, box, strict=True):
        setattr(found, f"RegionLocation{name}", value)
    return found


def test_ultrasound_regions_become_a_fact(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (60, 80), dtype=np.uint8)
    screen = film(grey, Modality="US")
    screen.SequenceOfUltrasoundRegions = [
        region((5, 6, 44, 55)),
        region((50, 10, 200, 59), spatial=3, data=3),
        region((70, 0, 79, 9), spatial=5),
        region((60, 0, 69, 9), data=0xE),
        region((30, 30, 20, 40)),
    ]
    reading = read_image(write(tmp_path / "a.dcm", screen))
    assert reading.facts["ultrasound_regions"] == "5,6,45,56;50,10,80,60"
    shown = ImagePreparation(size=75, fit="stretch", masked=True).apply(reading)
    assert shown.shape == (1, 75, 75)
    plain = read_image(write(tmp_path / "b.dcm", film(grey, Modality="US")))
    assert "ultrasound_regions" not in plain.facts
    with pytest.raises(ImageError, match="no ultrasound region"):
        ImagePreparation(size=75, masked=True).apply(plain)


@pytest.mark.parametrize("label", ["YBR_FULL_422", "YBR_FULL", "RGB"])
def test_colour_of_jpeg_is_right_whatever_its_label(tmp_path: Path, label: str) -> None:
    y, x = np.mgrid[:48, :64]
    rgb = np.dstack([np.where(x < 32, 220, 30), np.where(y < 32, 40, 200), np.full_like(x, 60)]).astype(np.uint8)
    stream = jpeg(rgb, quality=95)
    bare = stream[:2] + stream[4 + int.from_bytes(stream[4:6], "big") :]
    for data in (stream, bare):
        dataset = film(rgb, Modality="US", syntax=JPEGBaseline8Bit, PixelData=encapsulate([data]))
        dataset.PhotometricInterpretation = label
        reading = read_image(write(tmp_path / "a.dcm", dataset))
        assert np.abs(reading.pixels.astype(int) - rgb).mean() < 4
    whole = jpeg(rgb, quality=95, keep_rgb=True)
    honest = film(rgb, Modality="US", syntax=JPEGBaseline8Bit, PixelData=encapsulate([whole]))
    assert np.abs(read_image(write(tmp_path / "b.dcm", honest)).pixels.astype(int) - rgb).mean() < 2


def test_colour_of_rle_and_of_planes_is_right(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    ybr = np.asarray(Image.fromarray(rgb).convert("YCbCr"))
    packed = film(ybr, Modality="US", PhotometricInterpretation="YBR_FULL")
    packed.compress(RLELossless)
    planes = film(ybr, Modality="US", PhotometricInterpretation="YBR_FULL")
    planes.PlanarConfiguration = 1
    planes.PixelData = np.ascontiguousarray(ybr.transpose(2, 0, 1)).tobytes()
    for name, dataset in (("a", packed), ("b", planes)):
        found = read_image(write(tmp_path / name, dataset)).pixels
        assert np.abs(found.astype(int) - rgb).max() <= 4
