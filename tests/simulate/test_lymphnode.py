"""The lymph-node simulator: its ceilings are the design's, its posterior calibrated, only the law tells class."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from tenfold.errors import OutputError, StudyError
from tenfold.modalities.columns import read_columns
from tenfold.simulate import SIMULATORS, SimulatedLymphNode
from tenfold.simulate.lymphnode import SHAPES, draw_view, noted, plan, seen, simulate
from tenfold.simulate.lymphnode_law import (
    ATTRIBUTES,
    CLASSES,
    FLOWS,
    PRIOR,
    VIEWS,
    Measure,
    Posteriors,
    ceilings,
    draw_nodes,
    draw_views,
    figures,
)
from tenfold.simulate.neck import (
    Flow,
    Machine,
    Morphology,
    Scene,
    Stiffness,
    bar_colours,
    draw_b_mode,
    draw_cdfi,
    draw_elastography,
    stiffness_map,
)
from tenfold.simulate.scanner import OTHER_SCANNERS, SCANNERS, Scanner


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def pixels(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as picture:
        return np.asarray(picture)


def drawn(n: int, seed: int, missing: float = 0.0) -> tuple[Any, Any, Posteriors]:
    rng = np.random.default_rng(seed)
    which = rng.choice(len(CLASSES), n, p=PRIOR)
    nodes = draw_nodes(which, rng)
    return which, nodes, Posteriors.of(nodes, draw_views(n, missing, rng))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> SimulatedLymphNode:
    out = tmp_path_factory.mktemp("lymphnode") / "cohort"
    return simulate(out, patients=48, seed=5, size=48, source=30, missing_views=0.15)


@pytest.fixture(scope="module")
def rows(cohort: SimulatedLymphNode) -> list[dict[str, str]]:
    return table(cohort.folder / "cohort.csv")


@pytest.fixture(scope="module")
def images(cohort: SimulatedLymphNode) -> list[dict[str, str]]:
    return table(cohort.folder / "images.csv")


# --- the law ----------------------------------------------------------------------------------------------------------


def test_ceilings_are_those_of_the_design() -> None:
    found = {name: f["macro_ovo_auc"] for name, f in ceilings().items()}
    design = {"b_mode": 0.796, "cdfi": 0.727, "elastography": 0.923, "fused": 0.966}
    assert {name: found[name] for name in design} == pytest.approx(design, abs=0.01)
    accuracy = {name: ceilings()[name]["accuracy"] for name in design}
    assert accuracy == pytest.approx({"b_mode": 0.640, "cdfi": 0.602, "elastography": 0.816, "fused": 0.883}, abs=0.01)


def test_missing_views_cost_and_the_neck_level_pays() -> None:
    whole, gaps = (ceilings(m) for m in (0.0, 0.2))
    assert whole["fused_observed"] == whole["fused"] == gaps["fused"]
    assert gaps["fused_observed"]["macro_ovo_auc"] < whole["fused"]["macro_ovo_auc"] - 0.01
    assert gaps["clinical_observed"]["macro_ovo_auc"] > gaps["fused_observed"]["macro_ovo_auc"] + 0.002


@pytest.mark.parametrize("name", [*VIEWS, "fused", "fused_observed", "clinical_observed"])
def test_the_posterior_is_calibrated(name: str) -> None:
    which, _, posteriors = drawn(30_000, seed=11, missing=0.2)
    p = getattr(posteriors, name)
    assert p.sum(axis=1) == pytest.approx(1)
    for c in range(len(CLASSES)):
        place = np.digitize(p[:, c], np.arange(0.1, 1.0, 0.1))
        for k in range(10):
            inside = place == k
            if inside.sum() > 200:
                mean = p[inside, c].mean()
                error = np.sqrt(mean * (1 - mean) / inside.sum())
                assert np.mean(which[inside] == c) == pytest.approx(mean, abs=4.5 * error)


def test_the_macro_auc_is_the_one_of_hand_and_till() -> None:
    which, _, posteriors = drawn(400, seed=2)
    p = posteriors.cdfi
    theirs = roc_auc_score(which, p, multi_class="ovo", average="macro")
    assert figures(p, which)["macro_ovo_auc"] == pytest.approx(theirs, abs=1e-12)


def test_attributes_have_the_shares_and_means_of_the_design() -> None:
    which, nodes, _ = drawn(60_000, seed=3)
    for c in range(3):
        for attribute in ATTRIBUTES:
            mine = nodes[attribute.name][which == c]
            if isinstance(attribute, Measure):
                scaled = np.log(mine) if attribute.log else mine
                assert (scaled.mean(), scaled.std()) == pytest.approx((attribute.mean[c], attribute.sd[c]), abs=0.03)
            else:
                shares = np.bincount(mine.astype(int), minlength=len(attribute.shares[c])) / len(mine)
                assert shares == pytest.approx(attribute.shares[c], abs=0.02)
    assert np.median(nodes["kpa"][which == 2]) == pytest.approx(60, rel=0.03)


def test_nobody_lacks_all_views() -> None:
    there = draw_views(4000, 0.6, np.random.default_rng(0))
    assert there.any(axis=1).all()
    assert draw_views(50, 0.0, np.random.default_rng(0)).all()


# --- the patients -----------------------------------------------------------------------------------------------------


def test_classes_and_hospitals_are_dealt_evenly() -> None:
    people = plan(1, patients=586)
    assert Counter(CLASSES[p.diagnosis] for p in people) == {"benign": 234, "lymphoma": 118, "metastatic": 234}
    for c in range(3):
        by_site = Counter(p.site for p in people if p.diagnosis == c)
        assert len(by_site) == 3
        assert max(by_site.values()) - min(by_site.values()) <= 1


def test_neither_plan_nor_files_tell_the_class() -> None:
    people = plan(3, patients=900)
    which = np.array([p.diagnosis for p in people])
    told = {
        "number": [p.number for p in people],
        "hospital": [p.hospital for p in people],
        "day": [p.day.toordinal() for p in people],
        "sex": [p.sex == "F" for p in people],
        "age": [p.age for p in people],
        "pictures": [sum(p.pictures) for p in people],
        **{view: [p.pictures[v] > 0 for p in people] for v, view in enumerate(VIEWS)},
    }
    for name, cells in told.items():
        for c in range(3):
            assert abs(roc_auc_score(which == c, cells) - 0.5) < 4 * np.sqrt(1 / (12 * 180)), name


def test_several_pictures_a_patient(rows: list[dict[str, str]], images: list[dict[str, str]]) -> None:
    assert list(images[0]) == ["case", "view", "path"]
    assert {r["case"] for r in images} == {r["case"] for r in rows}
    counts = Counter((r["case"], r["view"]) for r in images)
    assert {view for _, view in counts} == set(VIEWS)
    assert set(counts.values()) == {1, 2}
    second = np.mean([n == 2 for n in counts.values()])
    assert 0.3 < second < 0.7
    absent = 1 - len(counts) / (3 * len(rows))
    assert 0.05 < absent < 0.27
    assert len({r["path"] for r in images}) == len(images)


def test_pictures_of_a_view_show_the_same_node_anew(cohort: SimulatedLymphNode, images: list[dict[str, str]]) -> None:
    twice = [r["path"] for r in images if r["path"].endswith("-2.png") and r["view"] == "cdfi"]
    for path in twice[:5]:
        one, two = (pixels(cohort.folder / p).astype(float) for p in (path.replace("-2.png", "-1.png"), path))
        assert one.shape == two.shape
        assert np.abs(one - two).mean() > 5


def test_truth_follows_from_the_files(cohort: SimulatedLymphNode, rows: list[dict[str, str]]) -> None:
    truths = table(cohort.folder / "truth.csv")
    words = {"flow": FLOWS, "level": ("I", "II", "III", "IV", "V", "VI")}
    nodes = {
        a.name: np.array(
            [words[a.name].index(t[a.name]) if a.name in words else float(t[a.name]) for t in truths], float
        )
        for a in ATTRIBUTES
    }
    there = np.array([[t[f"has_{view}"] == "1" for view in VIEWS] for t in truths])
    again = Posteriors.of(nodes, there)
    for name in ("elastography", "fused_observed"):
        filed = np.array([[float(t[f"posterior_{name}_{c}"]) for c in CLASSES] for t in truths])
        assert filed == pytest.approx(getattr(again, name), abs=1e-6)
    assert [t["diagnosis"] for t in truths] == [r["diagnosis"] for r in rows]
    facts = json.loads((cohort.folder / "truth.json").read_text("utf-8"))
    assert facts["ceiling_auc"] == cohort.ceiling_auc == cohort.ceilings["fused_observed"]
    assert facts["pictures"] == len(table(cohort.folder / "images.csv")) == cohort.pictures


def test_a_doctor_notes_what_is_there_with_errors_and_nothing_of_an_absent_picture(
    cohort: SimulatedLymphNode, rows: list[dict[str, str]], images: list[dict[str, str]]
) -> None:
    has = {(r["case"], r["view"]) for r in images}
    for row in rows:
        assert (row["shape"] != "") == (row["margin"] != "") == ((row["case"], "b_mode") in has)
        assert (row["flow"] != "") == ((row["case"], "cdfi") in has)
        assert row["location"]
    dictionary = {c.name: c for c in read_columns(cohort.folder / "columns.csv")}
    assert set(dictionary) == {"location", "shape", "margin", "flow"}
    for name, entry in dictionary.items():
        assert {row[name] for row in rows} - {""} <= set(entry.levels)
    _, nodes, _ = drawn(5000, seed=1)
    notes = noted(nodes, np.random.default_rng(0))
    right = np.mean(notes["flow"] == np.array(FLOWS)[nodes["flow"].astype(int)])
    assert right == pytest.approx(0.8, abs=0.03)
    assert np.mean((notes["margin"] == "sharp") == (nodes["sharp"] == 1)) == pytest.approx(0.85, abs=0.03)
    assert set(notes["shape"]) == set(SHAPES)


# --- the pictures -----------------------------------------------------------------------------------------------------

PLAIN = Morphology(9.0, 1.75)
ALL_SIGNS = ("hilum", "sharp", "hypoechoic", "reticulation", "necrosis", "calcification", "matting")


def scene(n: int = 0, legibility: float = 1.0, machine: Machine | None = None) -> Scene:
    plane, detail = np.random.default_rng([1, n]), np.random.default_rng([2, n])
    return Scene(96, plane, detail, machine or Machine(), legibility=legibility)


@pytest.mark.parametrize("sign", ALL_SIGNS)
def test_a_sign_changes_the_node(sign: str) -> None:
    without = replace(PLAIN, sharp=False) if sign == "sharp" else PLAIN
    for n in range(3):
        plain = draw_b_mode(without, scene(n))
        signed = draw_b_mode(replace(without, **{sign: True}), scene(n))
        # So many pixels, in parts of the node, turn plainly lighter or darker.
        plainly = np.abs(plain.pixels - signed.pixels) > 15
        assert plainly.sum() > 0.15 * plain.mask.sum()


def test_the_masks_area_tells_size_and_its_box_the_ratio() -> None:
    axes = (4.0, 7.0, 12.0, 20.0, 34.0)
    heights = []
    for axis in axes:
        shown = draw_b_mode(replace(PLAIN, short_axis=axis), scene(4))
        down, across = np.ptp(np.nonzero(shown.mask), axis=1) + 1
        assert across / down == pytest.approx(1.75, rel=0.2)
        # The ruler is true: pixels times millimetres a pixel are the short axis.
        assert down * shown.width_mm / 96 == pytest.approx(axis, rel=0.15)
        heights.append(down)
    assert heights == sorted(heights)
    assert min(np.diff(heights)) >= 3
    tall = draw_b_mode(replace(PLAIN, long_short=0.6), scene(4))
    down, across = np.ptp(np.nonzero(tall.mask), axis=1) + 1
    assert across < down


def test_vessels_lie_where_the_pattern_says_and_density_adds_colour() -> None:
    def coloured(pattern: str, density: float, n: int) -> tuple[float, float]:
        shown = draw_cdfi(Flow(pattern, density), scene(n))
        colour = np.ptp(shown.pixels, axis=2) > 60
        down, across = np.nonzero(shown.mask)
        y, x = np.mgrid[:96, :96]
        radius = np.hypot((x - across.mean()) / np.ptp(across), (y - down.mean()) / np.ptp(down)) * 2
        return float(colour[radius < 0.45].mean()), float(colour[(radius > 0.85) & (radius < 1.15)].mean())

    mean = {p: np.mean([coloured(p, 0.0, n) for n in range(6)], axis=0) for p in FLOWS}
    assert mean["hilar"][0] > 2 * mean["peripheral"][0]
    assert mean["peripheral"][1] > 3 * mean["hilar"][1]
    assert mean["mixed"][0] > 2 * mean["none"][0]
    assert mean["mixed"][1] > 3 * mean["none"][1]
    little, much = (sum(coloured("none", d, n)[0] for n in range(6)) for d in (-1.0, 1.5))
    assert much > 2 * little


@pytest.mark.parametrize("kpa", [8.0, 15.0, 28.0, 60.0])
def test_colours_are_true_to_the_stiffness_through_the_bar(kpa: float) -> None:
    for machine in (Machine(top_kpa=100.0), Machine(top_kpa=150.0, reversed=True)):
        shown = draw_elastography(Stiffness(kpa, heterogeneity=-1.0), scene(2, machine=machine))
        share = np.linspace(0, 1, 401)
        bar = bar_colours(share, machine.reversed)
        # What is blended with grey keeps its hue: the bar is matched by what exceeds the smallest of the three.
        hue = shown.pixels[shown.mask] - shown.pixels[shown.mask].min(axis=1, keepdims=True)
        hue /= np.linalg.norm(hue, axis=1, keepdims=True)
        match = (hue @ (bar / np.linalg.norm(bar, axis=1, keepdims=True)).T).argmax(axis=1)
        assert np.exp(np.log(share[match] * machine.top_kpa).mean()) == pytest.approx(kpa, rel=0.06)


def test_heterogeneity_spreads_stiffness_and_leaves_its_mean() -> None:
    y, x = np.mgrid[:96, :96]
    radius = np.hypot(x - 48, y - 48) / 25
    spread = []
    for z in (-2.0, 0.0, 1.4, 3.0):
        kpa = stiffness_map(Stiffness(30.0, heterogeneity=z), radius, np.random.default_rng(0))
        inside = np.log(kpa[radius < 1])
        assert np.exp(inside.mean()) == pytest.approx(30, rel=1e-3)
        spread.append(inside.std())
    assert spread == sorted(spread)
    rim = stiffness_map(Stiffness(30.0, rim=True), radius, np.random.default_rng(0))
    ring = (radius > 1.05) & (radius < 1.22)
    assert rim[ring].min() > 50 > 15 > kpa[ring].max()


def test_without_legibility_attributes_leave_no_trace() -> None:
    full = dict.fromkeys(ALL_SIGNS, True)
    for n in range(2):
        one = draw_b_mode(Morphology(5.0, 2.5, **full), scene(n, 0.0))
        other = draw_b_mode(Morphology(25.0, 1.0, **dict.fromkeys(ALL_SIGNS, False)), scene(n, 0.0))
        assert np.array_equal(one.pixels, other.pixels)
        colourless = draw_cdfi(Flow("mixed", 2.0), scene(n, 0.0))
        assert np.ptp(colourless.pixels, axis=2).max() == 0
        soft, stiff = (draw_elastography(Stiffness(e, True, e / 30), scene(n, 0.0)) for e in (10.0, 90.0))
        assert np.array_equal(soft.pixels, stiff.pixels)


def test_a_view_shows_only_its_own_attributes() -> None:
    rng = np.random.default_rng(0)
    nodes = draw_nodes(np.array([0, 2]), rng)
    one, other = ({name: float(v[i]) for name, v in nodes.items()} for i in range(2))
    for view in VIEWS:
        own = {a.name for a in ATTRIBUTES if a.view == view}
        crossed = {name: (one if name in own else other)[name] for name in one}
        assert np.array_equal(draw_view(view, crossed, scene()).pixels, draw_view(view, one, scene()).pixels)
        assert not np.array_equal(draw_view(view, other, scene()).pixels, draw_view(view, one, scene()).pixels)


# --- the screens ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scanner", [*SCANNERS, *OTHER_SCANNERS.values()])
@pytest.mark.parametrize("size", [48, 96])
def test_what_is_burned_in_lies_in_the_boxes_said(scanner: Scanner, size: int) -> None:
    picture = replace(draw_b_mode(PLAIN, scene()), pixels=np.full((size, size, 3), 100.0))
    screen = scanner.screen(picture, "elastography", "L1-0001 2020-01-01").astype(float)
    left, top, right, bottom = scanner.region(size)
    assert 0 < left < right < screen.shape[1]
    assert 0 < top < bottom < screen.shape[0]
    inside = screen[top:bottom, left:right].copy()
    x0, y0, x1, y1 = scanner.note_box(size)
    assert left <= x0 < x1 <= right
    assert top <= y0 < y1 < top + size / 3
    assert inside[y0 - top : y1 - top, x0 - left : x1 - left].max() > 180
    inside[y0 - top : y1 - top, x0 - left : x1 - left] = 100
    assert np.all(inside == 100)
    bx0, by0, bx1, by1 = scanner.bar_box(size)
    assert bx1 <= left or bx0 >= right or by0 >= bottom
    bar = screen[by0:by1, bx0:bx1]
    low = bar[-1, 0] if scanner.bar != "bottom" else bar[0, 0]
    assert low == pytest.approx(bar_colours(np.array(0.0), scanner.machine.reversed), abs=20)


def test_layouts_are_those_that_pictures_are_read_with(
    cohort: SimulatedLymphNode, images: list[dict[str, str]]
) -> None:
    from tenfold.modalities.ultrasound import bar_colours as colours_of_bar
    from tenfold.modalities.ultrasound import bar_values, layout_for, read_layouts

    layouts = read_layouts(cohort.folder / "regions.csv")
    assert {(lay.view, lay.site) for lay in layouts} == {(v, f"hospital {s}") for v in VIEWS for s in (1, 2, 3)}
    tops = {lay.site: lay.high for lay in layouts if lay.bar}
    assert len(set(tops.values())) == 3
    site = {r["case"]: r["site"] for r in table(cohort.folder / "cohort.csv")}
    truth = {t["case"]: t for t in table(cohort.folder / "truth.csv")}
    error, shown = [], [r for r in images if r["view"] == "elastography"]
    for row in shown:
        layout, screen = layout_for(layouts, row["view"], site[row["case"]]), pixels(cohort.folder / row["path"])
        assert layout is not None
        layout.check(*screen.shape[:2])
        values = bar_values(screen, *colours_of_bar(screen, layout))[0]
        node = pixels(cohort.folder / row["path"].replace("pictures", "masks")) > 0
        kpa = min(float(truth[row["case"]]["kpa"]), layout.high)
        error.append(np.log(max(float(np.median(values[node])), 1.0)) - np.log(kpa))
    assert np.std(error) < 0.2
    assert abs(np.mean(error)) < 0.1


def test_masks_lie_on_the_node_and_sizes_of_files_tell_nothing(
    cohort: SimulatedLymphNode, rows: list[dict[str, str]], images: list[dict[str, str]]
) -> None:
    site = {r["case"]: r["site"] for r in rows}
    sizes: dict[tuple[str, str], set[int]] = {}
    for row in images:
        picture = cohort.folder / row["path"]
        mask = pixels(cohort.folder / row["path"].replace("pictures", "masks"))
        assert mask.shape == pixels(picture).shape[:2]
        assert mask.any()
        sizes.setdefault((row["view"], site[row["case"]]), set()).add(picture.stat().st_size)
    assert all(len(found) == 1 for found in sizes.values())
    for row in rows:
        assert not row["node_mask"] or (cohort.folder / row["node_mask"]).is_file()


def test_pictures_to_learn_from_first_say_what_their_kind_shows(cohort: SimulatedLymphNode) -> None:
    shown_by = {name: view for name, (view, _) in seen(dict.fromkeys((a.name for a in ATTRIBUTES), 1.0)).items()}
    for view in VIEWS:
        source = table(cohort.folder / f"source/{view}.csv")
        labels = [name for name, kind in shown_by.items() if kind == view]
        assert list(source[0]) == ["case", "patient", "site", "picture", *labels]
        assert len(source) == 10
        for row in source:
            assert pixels(cohort.folder / "source" / row["picture"]).size
            assert {row[name] for name in labels} <= {"0", "1"}
            stiff = [row[name] for name in labels if name.startswith("stiff_") and name[6:].isdigit()]
            assert stiff == sorted(stiff, reverse=True)


# --- files ------------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    def digest(seed: int, name: str) -> dict[str, str]:
        out = tmp_path / name
        simulate(out, patients=6, seed=seed, size=48, source=3)
        return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in out.rglob("*.*")}

    first = digest(1, "a")
    assert first == digest(1, "b")
    assert first["truth.csv"] != digest(2, "c")["truth.csv"]


def test_it_is_registered_and_refuses_nonsense(tmp_path: Path) -> None:
    assert SIMULATORS["lymphnode"] is simulate
    for wrong in ({"legibility": 1.5}, {"pictures": 0}, {"missing_views": 1.0}, {"patients": 3}, {"size": 20}):
        with pytest.raises(StudyError):
            simulate(tmp_path / "out", **{"patients": 20, **wrong})  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/work.txt").write_text("x")
    with pytest.raises(OutputError):
        simulate(tmp_path / "mine", patients=20)
