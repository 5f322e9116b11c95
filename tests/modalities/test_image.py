"""Pictures that are not DICOM, and their preparation."""

from __future__ import annotations

import json
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from tenfold.errors import BundleError, ImageError, StudyError
from tenfold.modalities import MODALITIES
from tenfold.modalities.image import ImagePreparation, blank, eight_bit, read_image
from tenfold.types import Reading


def gradient(height: int = 24, width: int = 40) -> np.ndarray:
    return np.tile(np.linspace(0, 250, width), (height, 1)).astype(np.uint8)


def save(path: Path, picture: Image.Image | np.ndarray, **options: object) -> Path:
    picture = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    picture.save(path, **options)  # type: ignore[arg-type]
    return path


def png_header(width: int, height: int) -> bytes:
    """A PNG whose header promises a size that its four bytes of data do not keep."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 4)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_grey_comes_back_as_it_was(tmp_path: Path, name: str) -> None:
    reading = read_image(save(tmp_path / name, gradient()))
    np.testing.assert_array_equal(reading.pixels, gradient())
    assert reading.facts["bits"] == 8
    assert reading.source.endswith(name)


def test_content_not_name_decides(tmp_path: Path) -> None:
    path = save(tmp_path / "film.png", gradient(), format="JPEG", quality=95)
    assert read_image(path).facts["format"] == "JPEG"


def test_grey_saved_as_rgb_becomes_grey_and_colour_stays(tmp_path: Path) -> None:
    grey = Image.fromarray(gradient()).convert("RGB")
    assert read_image(save(tmp_path / "g.png", grey)).pixels.shape == (24, 40)
    colour = np.dstack([gradient(), gradient()[:, ::-1], gradient()])
    np.testing.assert_array_equal(read_image(save(tmp_path / "c.png", colour)).pixels, colour)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "big_endian.tif"])
def test_16_bit_keeps_its_depth(tmp_path: Path, name: str) -> None:
    deep = np.arange(24 * 40, dtype=np.uint16).reshape(24, 40) * 60
    picture = Image.fromarray(deep)
    if name == "big_endian.tif":
        picture = Image.frombytes("I;16B", (40, 24), deep.astype(">u2").tobytes())
    reading = read_image(save(tmp_path / name, picture))
    assert reading.pixels.dtype == np.uint16
    np.testing.assert_array_equal(reading.pixels, deep)


@pytest.mark.parametrize("bits", [8, 16])
def test_white_is_zero_tiff_is_turned_round(tmp_path: Path, bits: int) -> None:
    values = gradient() if bits == 8 else gradient().astype(np.uint16) * 257
    as_stored = np.iinfo(values.dtype).max - values
    path = save(tmp_path / "w.tif", as_stored)
    data = bytearray(path.read_bytes())
    entry = data.index(struct.pack("<HHI", 262, 3, 1))
    data[entry + 8 : entry + 10] = struct.pack("<H", 0)
    path.write_bytes(bytes(data))
    np.testing.assert_array_equal(read_image(path).pixels, values)


def test_float_tiff_and_its_holes(tmp_path: Path) -> None:
    values = gradient().astype(np.float32) / 100 - 1
    reading = read_image(save(tmp_path / "f.tif", values))
    assert reading.pixels.dtype == np.float32
    np.testing.assert_array_equal(reading.pixels, values)
    values[3, 3] = np.nan
    with pytest.raises(ImageError, match="finite"):
        read_image(save(tmp_path / "n.tif", values))


def test_palette_cmyk_and_one_bit(tmp_path: Path) -> None:
    colour = Image.fromarray(np.dstack([gradient(), np.zeros_like(gradient()), gradient()[:, ::-1]]))
    palette = read_image(save(tmp_path / "p.png", colour.quantize(256))).pixels
    assert np.abs(palette.astype(int) - np.asarray(colour)).mean() < 4
    cmyk = read_image(save(tmp_path / "c.jpg", colour.convert("CMYK"), quality=95)).pixels
    assert np.abs(cmyk.astype(int) - np.asarray(colour)).mean() < 8
    bits = read_image(save(tmp_path / "b.png", Image.fromarray(gradient() > 99).convert("1")))
    np.testing.assert_array_equal(bits.pixels, np.where(gradient() > 99, 255, 0))


def test_alpha_is_composited_on_black(tmp_path: Path) -> None:
    alpha = np.full((24, 40), 255, np.uint8)
    alpha[:, :20] = 0
    picture = np.dstack([np.full((24, 40), 200, np.uint8)] * 3 + [alpha])
    reading = read_image(save(tmp_path / "a.png", picture))
    assert reading.facts["alpha"] == "composited on black"
    assert reading.pixels.shape == (24, 40)
    assert reading.pixels[:, :20].max() == 0
    assert reading.pixels[:, 20:].min() == 200


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize(
    ("name", "options"),
    [("a.jpg", {"quality": 95}), ("a.png", {}), ("a.tif", {}), ("a.tif", {"compression": "tiff_lzw"})],
)
def test_orientation_is_applied_once(tmp_path: Path, name: str, options: dict[str, object], orientation: int) -> None:
    upright = np.clip(gradient() + np.arange(24)[:, None] * 3, 0, 255).astype(np.uint8)
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    reading = read_image(save(tmp_path / name, np.ascontiguousarray(turned), exif=exif, **options))
    assert reading.facts["orientation"] == orientation
    assert reading.pixels.shape == upright.shape
    assert np.abs(reading.pixels.astype(int) - upright).max() <= (8 if name == "a.jpg" else 0)


def test_pages_are_counted_from_one(tmp_path: Path) -> None:
    pages = [Image.fromarray(np.full((5, 6), v, np.uint8)) for v in (10, 20, 30)]
    path = save(tmp_path / "p.tif", pages[0], save_all=True, append_images=pages[1:])
    with pytest.raises(ImageError, match="3 frames"):
        read_image(path)
    assert read_image(path, frame=2).pixels.max() == 20
    for frame in (0, 4):
        with pytest.raises(ImageError, match=f"no frame {frame}"):
            read_image(path, frame=frame)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(ImageError, match="folder"):
        read_image(tmp_path)
    (tmp_path / "empty.png").touch()
    with pytest.raises(ImageError, match="0 bytes"):
        read_image(tmp_path / "empty.png")
    with pytest.raises(ImageError, match="cannot be opened"):
        read_image("nul\0byte.png")


def test_text_named_png_and_a_gif(tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("the film is in the archive")
    with pytest.raises(ImageError, match=r"notes\.png is not a picture"):
        read_image(tmp_path / "notes.png")
    with pytest.raises(ImageError, match="a GIF file"):
        read_image(save(tmp_path / "g.png", gradient(), format="GIF"))


@pytest.mark.parametrize(("name", "keep"), [("a.png", 0.6), ("a.jpg", 0.6), ("a.tif", 0.6), ("a.png", 0.01)])
def test_truncated_is_said_in_words(tmp_path: Path, name: str, keep: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    path = save(tmp_path / name, noise)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(ImageError, match="damaged or truncated") as refusal:
        read_image(path)
    assert refusal.value.do
    assert refusal.value.where == str(path)


def test_damage_anywhere_is_a_refusal_never_a_crash(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "x"
    for kind in ("PNG", "JPEG", "TIFF"):
        save(path, gradient(), format=kind)
        whole = path.read_bytes()
        for _ in range(60):
            data = bytearray(whole)
            data[int(rng.integers(3, len(data)))] = int(rng.integers(256))
            path.write_bytes(bytes(data))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    read_image(path, max_pixels=100_000)
                except ImageError:
                    continue


def test_bombs_are_refused_from_the_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(60_000, 60_000))
    limit = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError, match="60000 x 60000"):
            read_image(path)
        assert limit == Image.MAX_IMAGE_PIXELS
        # Below Pillow's own limit, above ours.
        path.write_bytes(png_header(7_000, 7_000))
        with pytest.raises(ImageError, match="bombs"):
            read_image(path)
    path.write_bytes(png_header(300, 300))
    with pytest.raises(ImageError, match="damaged or truncated"):
        read_image(path)
    whole = save(tmp_path / "w.png", gradient())
    with pytest.raises(ImageError, match="at most 900 pixels"):
        read_image(whole, max_pixels=900)


def test_prepared_picture_lies_where_box_says() -> None:
    prepare = ImagePreparation(size=40, fit="letterbox", channels=1)
    out = prepare.apply(Reading(np.full((100, 50), 200, np.uint8), "x"))
    top, left, bottom, right = prepare.box(100, 50)
    assert (top, left, bottom, right) == (0, 10, 40, 30)
    assert out.shape == (1, 40, 40)
    assert out.flags.c_contiguous
    inside = np.zeros((40, 40), bool)
    inside[top:bottom, left:right] = True
    np.testing.assert_array_equal(out[0], np.where(inside, 200, 0))
    np.testing.assert_array_equal(prepare.apply_mask(np.ones((100, 50), bool)), inside)
    assert ImagePreparation(size=40, fit="stretch").box(100, 50) == (0, 0, 40, 40)
    assert prepare.box(1, 4000) == (19, 0, 20, 40)


@pytest.mark.parametrize("fit", ["letterbox", "stretch"])
def test_mask_follows_the_picture(fit: str) -> None:
    lesion = np.zeros((90, 60), np.uint8)
    lesion[20:50, 30:50] = 255
    prepare = ImagePreparation(size=64, fit=fit)  # type: ignore[arg-type]
    bright = prepare.apply(Reading(lesion, "x"))[0] > 127
    mask = prepare.apply_mask(lesion)
    assert mask.dtype == bool
    assert (mask & bright).sum() / (mask | bright).sum() > 0.9
    with pytest.raises(ImageError, match="shape"):
        prepare.apply_mask(np.zeros((3, 3, 3)))


def test_channels() -> None:
    colour = np.zeros((8, 8, 3), np.uint8)
    colour[..., 1] = 100
    luma = ImagePreparation(size=8, channels=1).apply(Reading(colour, "x"))
    np.testing.assert_array_equal(luma, np.full((1, 8, 8), 59))
    three = ImagePreparation(size=20, channels=3).apply(Reading(gradient(), "x"))
    assert three.shape == (3, 20, 20)
    np.testing.assert_array_equal(three[0], three[2])
    np.testing.assert_array_equal(ImagePreparation(size=8, channels=3).apply(Reading(colour, "x"))[1], colour[..., 1])


def test_resize_is_antialiased() -> None:
    board = np.indices((128, 128)).sum(0) % 2 * 255
    out = ImagePreparation(size=16).apply(Reading(board.astype(np.uint8), "x"))
    assert np.abs(out.astype(int) - 127).max() < 12


def test_deep_pictures_are_windowed_at_their_percentiles_only_without_a_window() -> None:
    deep = (1000 + 10 * np.arange(10_000)).reshape(100, 100) % 65536
    deep = np.sort(deep.astype(np.uint16).ravel()).reshape(100, 100)
    deep[0, 0], deep[-1, -1] = 0, 65535
    reduced = eight_bit(Reading(deep, "x"))
    low, high = np.percentile(deep, (0.5, 99.5))
    assert reduced[deep <= low].max() == 0
    assert reduced[deep >= high].min() == 255
    np.testing.assert_allclose(reduced.astype(float), np.clip((deep - low) / (high - low), 0, 1) * 255, atol=0.51)
    windowed = eight_bit(Reading(deep, "x", {"window": "centre 1 width 2 LINEAR"}))
    np.testing.assert_allclose(windowed.astype(float), deep / 257, atol=0.51)
    assert eight_bit(Reading(np.full((4, 4), 7.0, np.float32), "x")).max() == 0


def test_blank() -> None:
    rng = np.random.default_rng(0)
    assert blank(Reading(np.full((50, 50), 17, np.uint8), "x"))
    assert blank(Reading((100 + rng.normal(0, 1, (50, 50))).astype(np.uint8), "x"))
    assert blank(Reading(np.full((50, 50), 900, np.uint16), "x"))
    assert not blank(Reading(gradient(), "x"))
    assert not blank(Reading(gradient().astype(np.uint16) + 4000, "x"))
    marker = np.zeros((100, 100), np.uint8)
    marker[2:8, 2:8] = 255
    assert blank(Reading(marker, "x"))


def test_state_goes_through_json_and_refuses_what_it_does_not_know() -> None:
    prepare = MODALITIES["image"](size=150, fit="stretch", channels=3)
    state = json.loads(json.dumps(prepare.state()))
    assert ImagePreparation.from_state(state) == prepare
    with pytest.raises(BundleError, match="did you mean 'size'"):
        ImagePreparation.from_state({**state, "sice": 3})
    with pytest.raises(BundleError, match="lacks fit"):
        ImagePreparation.from_state({"size": 3, "channels": 1})
    for bad in ({"size": "150"}, {"channels": 2}, {"fit": "crop"}, {"size": 0}, {"size": [1]}, {"fit": ["a"]}):
        with pytest.raises(BundleError, match="impossible"):
            ImagePreparation.from_state({**state, **bad})


def test_unknown_fit_names_the_nearest() -> None:
    with pytest.raises(StudyError, match="did you mean 'letterbox'"):
        ImagePreparation(fit="leterbox")  # type: ignore[arg-type]


def test_pillow_has_the_codecs_we_promise() -> None:
    assert all(features.check(name) for name in ("jpg", "zlib", "libtiff"))
