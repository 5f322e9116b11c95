"""Layouts of screens, what is drawn over pictures, and colour bars turned back into values."""

from __future__ import annotations

import colorsys
import io
import json
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from tenfold.errors import BundleError, CohortError, ImageError, StudyError
from tenfold.modalities.image import ImagePreparation
from tenfold.modalities.ultrasound import (
    Layout,
    bar_colours,
    bar_values,
    layout_for,
    overlay,
    read_layouts,
    regions_of,
    without_overlay,
)
from tenfold.types import Reading

HEAD = "view,site,what,left,top,right,bottom,low,high,unit\n"


def written(tmp_path: Path, *rows: str) -> Path:
    path = tmp_path / "regions.csv"
    path.write_text(HEAD + "".join(f"{row}\n" for row in rows))
    return path


def speckle(height: int = 120, width: int = 160) -> np.ndarray:
    noise = gaussian_filter(np.random.default_rng(0).normal(size=(height, width)), 1.5)
    return np.clip(100 + 160 * noise, 20, 230).astype(np.uint8)


def colour(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=2)


def test_layouts_of_sites_and_of_every_site(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "elastography,,region,10,20,110,90,,,",
        "elastography,,bar,115,20,120,90,0,150,kPa",
        "elastography,North,blank,1,2,30,9,,,",
        "elastography,North,region,0,0,50,60,,,",
        "elastography,North,blank,40,50,50,60,,,",
        "b_mode,,region,0,0,9,9,,,",
    )
    layouts = read_layouts(path)
    assert [(one.view, one.site) for one in layouts] == [
        ("elastography", ""),
        ("elastography", "North"),
        ("b_mode", ""),
    ]
    assert layouts[1].blanks == ((1, 2, 30, 9), (40, 50, 50, 60))
    everywhere = layout_for(layouts, "elastography", "South")
    assert everywhere is layouts[0]
    assert (everywhere.bar, everywhere.low, everywhere.high, everywhere.unit) == ((115, 20, 120, 90), 0, 150, "kPa")
    assert layout_for(layouts, "elastography", "North") is layouts[1]
    assert layout_for(layouts, "doppler", "North") is None
    assert Layout.from_state(json.loads(json.dumps(layouts[0].state()))) == layouts[0]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("e,,region,9,0,9,9,,,", r"row 3: the box 9, 0, 9, 9"),
        ("e,,region,0,0,9.5,9,,,", r"right = '9.5'"),
        ("e,,reigon,0,0,9,9,,,", "did you mean 'region'"),
        ("e,,bar,0,0,9,9,5,5,kPa", r"view 'e', every site: the colour bar runs from 5 to 5"),
        ("e,,bar,0,0,9,9,0,many,kPa", "high = 'many'"),
        ("e,,blank,0,0,9,9,0,,", "low, high or unit of a blank"),
        ("b,,region,0,0,9,9,,,", "a second region for view 'b', site ''"),
        (",,region,0,0,9,9,,,", "no view is named"),
        ("e,,region,0,0,9", "6 cells under 10 headings"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, row: str, says: str) -> None:
    with pytest.raises(CohortError, match=says) as refusal:
        read_layouts(written(tmp_path, "b,,region,0,0,5,5,,,", row))
    assert "regions.csv" in refusal.value.where


def test_the_regions_of_a_connectome_are_no_layouts(tmp_path: Path) -> None:
    (tmp_path / "regions.csv").write_text("name\nFrontal Pole\n")
    with pytest.raises(CohortError, match="unknown heading 'name'"):
        read_layouts(tmp_path / "regions.csv")


def test_what_lies_outside_the_region_and_in_blanks_reaches_no_network() -> None:
    screen = speckle()
    layout = Layout("b", "", region=(20, 10, 120, 110), blanks=((30, 20, 60, 30),))
    prepare = ImagePreparation(size=100, layouts=(layout,), masked=True)
    before = prepare.apply(Reading(screen, "x"))
    assert before.shape == (1, 100, 100)
    np.testing.assert_array_equal(before[0, 30:], screen[40:110, 20:120])
    assert before[0, 10:20, 10:40].max() == 0
    signed = screen.copy()
    signed[:8, :100] = 255
    signed[:, 130:] = 0
    signed[22:28, 35:55] = 255
    np.testing.assert_array_equal(prepare.apply(Reading(signed, "x")), before)
    deep = (signed.astype(np.float32) * 40).round()
    shallow = (screen.astype(np.float32) * 40).round()
    np.testing.assert_array_equal(
        prepare.apply(Reading(deep, "x"))[0, 30:], prepare.apply(Reading(shallow, "x"))[0, 30:]
    )


def test_a_mask_follows_the_picture_into_the_region() -> None:
    lesion = np.zeros((120, 160), np.uint8)
    lesion[50:80, 60:100] = 255
    here, other = Layout("b", "North", region=(40, 30, 120, 90)), Layout("b", "", region=(0, 0, 160, 100))
    prepare = ImagePreparation(size=64, layouts=(here, other), masked=True)
    for site in ("North", "South"):
        bright = prepare.apply(Reading(lesion, "x", {"site": site}))[0] > 127
        mask = prepare.apply_mask(lesion, site=site)
        assert (mask & bright).sum() / (mask | bright).sum() > 0.9
    assert prepare.box(120, 160, site="North") == (8, 0, 56, 64)
    assert prepare.region(120, 160, site="North") == (40, 30, 120, 90)


def test_masked_fails_closed() -> None:
    picture = Reading(speckle(), "film.png", {"site": "North"})
    prepare = ImagePreparation(size=50, masked=True)
    with pytest.raises(ImageError, match=r"film.png: no ultrasound region.*") as refusal:
        prepare.apply(picture)
    assert "North" in refusal.value.expected
    with pytest.raises(ImageError, match="no ultrasound region"):
        prepare.box(120, 160)
    only_a_blank = replace(prepare, layouts=(Layout("b", blanks=((0, 0, 5, 5),)),))
    with pytest.raises(ImageError, match="no ultrasound region"):
        only_a_blank.apply(picture)


def test_dicom_regions_are_joined_and_what_lies_between_is_black() -> None:
    screen, fact = speckle(), "10,10,60,110;90,10,140,110"
    assert regions_of(fact) == ((10, 10, 60, 110), (90, 10, 140, 110))
    reading = Reading(screen, "x", {"ultrasound_regions": fact})
    masked = ImagePreparation(size=130, masked=True)
    shown = masked.apply(reading)[0, 15:115]
    np.testing.assert_array_equal(shown[:, :50], screen[10:110, 10:60])
    assert shown[:, 50:80].max() == 0
    np.testing.assert_array_equal(shown[:, 80:], screen[10:110, 90:140])
    assert masked.boxes(reading) == (("region", (10, 10, 60, 110)), ("region", (90, 10, 140, 110)))
    unmasked = ImagePreparation(size=160)
    np.testing.assert_array_equal(unmasked.apply(reading)[0, 20:140], screen)
    declared = replace(masked, layouts=(Layout("b", region=(0, 0, 20, 20)),))
    assert declared.boxes(reading) == (("region", (0, 0, 20, 20)),)


def test_a_box_beyond_the_picture_names_view_site_box_and_size() -> None:
    prepare = ImagePreparation(size=50, layouts=(Layout("doppler", "North", region=(0, 0, 200, 100)),))
    with pytest.raises(ImageError) as refusal:
        prepare.apply(Reading(speckle(), "film.png", {"site": "North"}))
    for part in ("film.png", "view 'doppler'", "site 'North'", "0, 0, 200, 100", "160 x 120"):
        assert part in str(refusal.value)


@pytest.mark.parametrize("pure", [(255, 255, 0), (0, 255, 0), (0, 255, 255), (255, 150, 0)])
@pytest.mark.parametrize("quality", [0, 90])
def test_coloured_callipers_vanish_from_a_grey_view(pure: tuple[int, int, int], quality: int) -> None:
    clean = speckle()
    drawn = colour(clean)
    drawn[60:62, 40:110] = drawn[40:90, 70:72] = drawn[5:12, 5:30] = pure
    if quality:
        drawn = jpeg(drawn, quality)
    mended = without_overlay(drawn, np.asarray(Image.fromarray(drawn).convert("L")))
    hole = overlay(drawn)
    assert hole[60:62, 40:110].all()
    assert hole.mean() < 0.06
    # no worse than the speckle itself, whose mean deviation is 24
    assert np.abs(mended[hole].astype(int) - clean[hole]).mean() < 24
    assert np.abs(mended[~hole].astype(int) - clean[~hole]).mean() < (3 if quality else 0.01)
    prepare = ImagePreparation(size=160, layouts=(Layout("b", region=(0, 0, 160, 120)),), masked=True)
    np.testing.assert_array_equal(prepare.apply(Reading(drawn, "x"))[0, 20:140], mended)
    left = replace(prepare, masked=False).apply(Reading(drawn, "x"))[0, 20:140]
    line = slice(60, 62), slice(40, 110)
    assert abs(left[line].mean() - clean[line].mean()) > 35
    assert abs(mended[line].mean() - clean[line].mean()) < 12


def test_a_tinted_grey_map_is_no_overlay_and_a_doppler_picture_no_grey_view() -> None:
    sepia = np.clip(colour(speckle()) * np.array([1.0, 0.85, 0.65]), 0, 255).astype(np.uint8)
    assert not overlay(sepia).any()
    doppler = colour(speckle())
    doppler[20:100, 20:120] = (200, 30, 0)
    with pytest.raises(ImageError, match=r"film: 4\d% of the picture is in pure colours"):
        without_overlay(doppler, doppler[..., 0], "film")


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=quality)
    return np.asarray(Image.open(out))


def rainbow(share: np.ndarray) -> np.ndarray:
    """Blue to red by way of green, as stiffness is painted; (..., 3) in [0, 255]."""
    flat = [colorsys.hsv_to_rgb((1 - s) * 2 / 3, 1, 1) for s in share.ravel()]
    return np.array(flat).reshape(*share.shape, 3) * 255


BAR = Layout("e", region=(0, 0, 200, 200), bar=(206, 20, 214, 180), low=0, high=120, unit="kPa")


def elastogram(blend: float, quality: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture with its bar, the true share of the bar's range, and where it was painted."""
    rng = np.random.default_rng(1)
    smooth = gaussian_filter(rng.normal(size=(200, 220)), 10)
    true = (smooth - smooth.min()) / np.ptp(smooth)
    y, x = np.mgrid[:200, :220]
    inside = (x - 90) ** 2 + (y - 100) ** 2 < 70**2
    picture = colour(speckle(200, 220)).astype(float)
    picture[inside] = (blend * rainbow(true) + (1 - blend) * picture)[inside]
    picture[20:180, 206:214] = rainbow(np.linspace(1, 0, 160))[:, None]
    out = np.rint(np.clip(picture, 0, 255)).astype(np.uint8)
    return (jpeg(out, quality) if quality else out), true, inside


@pytest.mark.parametrize("blend", [1.0, 0.6, 0.35])
@pytest.mark.parametrize("quality", [0, 90])
def test_blended_colours_become_the_values_that_were_painted(blend: float, quality: int) -> None:
    picture, true, inside = elastogram(blend, quality)
    values, has = bar_values(picture, *bar_colours(picture, BAR))
    core = gaussian_filter(inside.astype(float), 2) > 0.99
    outside = gaussian_filter(inside.astype(float), 2) < 0.01
    outside[:, 196:] = False
    assert has[core].mean() > 0.99
    assert has[outside].mean() < 0.01
    assert np.quantile(np.abs(values / 120 - true)[core & has], 0.95) < 0.02
    assert values[~has].max() == 0


def test_the_bar_of_each_picture_is_read_not_a_colour_map_that_is_assumed() -> None:
    picture, true, inside = elastogram(1.0, 0)
    picture[20:180, 206:214] = picture[20:180, 206:214][::-1]
    values, has = bar_values(picture, *bar_colours(picture, BAR))
    assert np.abs(values / 120 - (1 - true))[inside & has].mean() < 0.02
    lying = Layout("e", bar=(0, 0, 160, 8), low=10, high=20, unit="cm/s")
    flat = np.concatenate([np.tile(rainbow(np.linspace(0, 1, 160)), (8, 1, 1)), np.full((8, 160, 3), (0, 255, 0))])
    values, has = bar_values(flat.astype(np.uint8), *bar_colours(flat.astype(np.uint8), lying))
    assert values[12, 5] == pytest.approx(15, abs=0.15)
    assert values[4, 0] == pytest.approx(10, abs=0.15)


def test_a_velocity_that_a_bar_does_not_know_is_no_value() -> None:
    share = np.linspace(0, 1, 100)[:, None]
    toward = np.concatenate([(200 - 190 * share) * [0, 0, 1.0], 10 + 240 * share * [1, 0.4, 0]])
    picture = np.zeros((200, 60, 3))
    picture[:, 50:] = toward[::-1, None]
    picture[20:40, 5:20] = (250, 106, 10)
    picture[60:80, 5:20] = (0, 0, 200)
    picture[100:120, 5:20] = (0, 220, 0)
    pixels = picture.astype(np.uint8)
    layout = Layout("d", bar=(50, 0, 60, 200), low=-20, high=20, unit="cm/s")
    values, has = bar_values(pixels, *bar_colours(pixels, layout))
    assert values[30, 10] > 18
    assert values[70, 10] < -18
    assert not has[100:120, 5:20].any()
    out = ImagePreparation(size=200, fit="stretch", channels=3, layouts=(layout,), bar_high=20).apply(
        Reading(pixels, "x")
    )
    assert out[0, 70, 30] > 230


def test_three_channels_are_value_luma_and_whether_there_is_a_value() -> None:
    picture, true, inside = elastogram(0.6, 0)
    prepare = ImagePreparation(size=200, channels=3, layouts=(BAR,), masked=True, bar_high=150)
    out = prepare.apply(Reading(picture, "x"))
    assert out.shape == (3, 200, 200)
    core = gaussian_filter(inside.astype(float), 2)[:, :200] > 0.99
    assert np.abs(out[0] / 255 * 150 - true[:, :200] * 120)[core].mean() < 2
    np.testing.assert_array_equal(out[1], np.asarray(Image.fromarray(picture[:, :200]).convert("L")))
    assert set(np.unique(out[2])) == {0, 255}
    half = replace(prepare, bar_high=60).apply(Reading(picture, "x"))
    assert half[0][core & (true[:, :200] > 0.55)].min() == 255
    # shrunk, a value beside a place without one stays a value
    small = replace(prepare, size=40).apply(Reading(picture, "x"))
    edge = (small[2] > 50) & (small[2] < 250)
    assert edge.any()
    assert np.abs(small[0][edge].mean() / out[0][inside[:, :200]].mean() - 1) < 0.35


def test_bars_that_cannot_be_read() -> None:
    grey = Reading(speckle(200, 220), "film.png")
    prepare = ImagePreparation(size=50, channels=3, layouts=(BAR,), bar_high=100)
    with pytest.raises(
        ImageError, match=r"film.png: the colour bar \(206, 20, 214, 180\) of view 'e', every site is not"
    ):
        prepare.apply(grey)
    elsewhere = replace(prepare, layouts=(replace(BAR, site="North"),))
    with pytest.raises(ImageError, match="no colour bar is known"):
        elsewhere.apply(replace(grey, facts={"site": "South"}))
    no_bar = replace(prepare, layouts=(replace(BAR, site="North"), Layout("e", region=(0, 0, 9, 9))))
    with pytest.raises(ImageError, match="no colour bar is declared for view 'e', every site"):
        no_bar.apply(grey)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"bar_high": 9.0, "layouts": (BAR,), "channels": 1}, "channels = 1"),
        ({"bar_high": 9.0, "channels": 3}, "no unit"),
        ({"bar_high": 9.0, "channels": 3, "layouts": (BAR, replace(BAR, site="N", unit="m/s"))}, "'kPa', 'm/s'"),
        ({"bar_high": math.nan, "channels": 3, "layouts": (BAR,)}, "bar_high = nan"),
        ({"bar_high": -1.0, "channels": 3, "layouts": (BAR,)}, "bar_high = -1"),
        ({"layouts": (BAR, replace(BAR, view="f", site="N"))}, "Expected: those of one view"),
        ({"layouts": (BAR, BAR)}, "at most one a site"),
        ({"masked": 1}, "masked = 1"),
    ],
)
def test_impossible_preparations(given: dict[str, object], says: str) -> None:
    with pytest.raises(StudyError, match=says):
        ImagePreparation(**given)  # type: ignore[arg-type]


def test_state_grows_only_where_something_new_is_used() -> None:
    plain = ImagePreparation(size=64, fit="stretch", channels=3)
    assert plain.state() == {"size": 64, "fit": "stretch", "channels": 3}
    full = ImagePreparation(size=64, channels=3, layouts=(BAR, replace(BAR, site="N")), masked=True, bar_high=150)
    assert ImagePreparation.from_state(json.loads(json.dumps(full.state()))) == full
    for bad in ({"layouts": [{"view": "e"}]}, {"layouts": {"view": "e"}}, {"masked": "yes"}, {"bar_high": "high"}):
        with pytest.raises(BundleError, match="impossible"):
            ImagePreparation.from_state({**full.state(), **bad})


def test_values_are_looked_up_fast() -> None:
    picture, *_ = elastogram(0.6, 90)
    large = np.tile(picture[:150, :150], (2, 2, 1))
    found = bar_colours(picture, BAR)
    bar_values(large, *found)
    times = []
    for _ in range(7):
        start = time.perf_counter()
        bar_values(large, *found)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.02
