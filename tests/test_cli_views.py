"""The command with pictures of several views: contact sheets, and predictions with a heat map a picture."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from PIL import Image
from tests.bundle.test_bags import CLASSES, bagged
from tests.calling import call
from tests.study.lymph_nodes import VIEWS, small_study
from tests.study_files import read_rows, write_rows


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_study(tmp_path_factory.mktemp("sheets") / "nodes", patients=12, source=0)


# --- contact sheets --------------------------------------------------------------------------------------------------


def test_every_picture_is_on_a_contact_sheet_of_its_view(study: Path, tmp_path: Path) -> None:
    done = call("contact-sheet", study, "--out", tmp_path / "sheets", "--json")
    assert done.code == 0, done.err
    pages = [Path(page) for page in done.json["pages"]]
    assert [page.name for page in pages] == [f"{view}.html" for view in VIEWS]
    rows = read_rows(study / "images.csv")
    for view, page in zip(VIEWS, pages, strict=True):
        text = page.read_text()
        own = [row["path"] for row in rows if row["view"] == view]
        assert [path for path in own if path not in text] == []
        assert text.count("data:image/png;base64,") == 2 * len(own)
        assert text.count('class="region"') > len(own)
        assert not re.search(r'(src|href)="(?!data:)', text)
        assert "Signature" in text


def test_many_pictures_are_put_on_several_pages(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenfold.study.sheets._A_PAGE", 8)
    done = call("contact-sheet", study / "study.toml", "--out", tmp_path / "sheets", "--json")
    names = [Path(page).name for page in done.json["pages"]]
    count = sum(row["view"] == "b_mode" for row in read_rows(study / "images.csv"))
    assert [n for n in names if n.startswith("b_mode")] == [f"b_mode-{k + 1:02d}.html" for k in range(-(-count // 8))]
    assert "page 1 of" in (tmp_path / "sheets" / "b_mode-01.html").read_text()


@pytest.mark.parametrize("how", ["relative", "link"])
def test_wherever_the_study_is_named_from(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.chdir(study.parent)
    (tmp_path / "link").symlink_to(study)
    place = study.name if how == "relative" else tmp_path / "link"
    done = call("contact-sheet", place, "--out", tmp_path / "sheets", "--quiet")
    assert done.code == 0, done.err
    assert "pictures/" in (tmp_path / "sheets" / "cdfi.html").read_text()


def test_a_picture_without_a_region_is_refused_and_no_page_is_written(study: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(study, tmp_path / "copy", ignore=shutil.ignore_patterns(".tenfold")))
    rows = [row for row in read_rows(copy / "regions.csv") if (row["view"], row["site"]) != ("b_mode", "hospital 2")]
    write_rows(copy / "regions.csv", rows)
    done = call("contact-sheet", copy, "--out", tmp_path / "sheets")
    assert done.code == 1
    assert "region" in done.words
    assert not list((tmp_path / "sheets").glob("b_mode*"))


def test_a_folder_that_holds_something_is_left_alone(study: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    done = call("contact-sheet", study, "--out", tmp_path)
    assert done.code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


# --- predictions -----------------------------------------------------------------------------------------------------


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return bagged(tmp_path / "bundle")


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Three cases: with two pictures in front and one at the side, with one, and with the side alone."""
    rows = [{"case": f"c{i}", "patient": f"p{i}", "site": site} for i, site in enumerate(("north", "south", "north"))]
    images = [("c0", "front", "0a"), ("c0", "front", "0b"), ("c0", "side", "0s"), ("c1", "front", "1a")]
    images.append(("c2", "side", "2s"))
    write_rows(tmp_path / "cohort.csv", rows)
    write_rows(tmp_path / "images.csv", [{"case": c, "view": v, "path": f"{name}.png"} for c, v, name in images])
    for k, (_, _, name) in enumerate(images):
        Image.effect_noise((70, 60), 40 + 10 * k).save(tmp_path / f"{name}.png")
    return tmp_path / "cohort.csv"


def test_a_cohort_of_several_pictures_is_predicted_with_a_heat_map_for_each(
    bundle: Path, cohort: Path, tmp_path: Path
) -> None:
    done = call("predict", bundle, cohort, "--heatmap", tmp_path / "heat", "--json")
    assert done.code == 0, done.err
    rows = done.json
    assert [row["case"] for row in rows] == ["c0", "c1", "c2"]
    assert [row["missing_inputs"] for row in rows] == [[], ["side"], ["front"]]
    for row in rows:
        assert set(row["probabilities"]) == set(CLASSES)
        assert row["decision"] == max(CLASSES, key=lambda name: row["probabilities"][name])
    assert [[Path(path).name for path in row["heatmaps"]] for row in rows] == [
        ["000-c0-front-1.png", "000-c0-front-2.png", "000-c0-side-1.png"],
        ["001-c1-front-1.png"],
        ["002-c2-side-1.png"],
    ]
    for row in rows:
        for path in row["heatmaps"]:
            with Image.open(path) as heat:
                assert heat.size == (32, 32)


def test_what_is_decided_is_said_in_words(bundle: Path, cohort: Path) -> None:
    done = call("predict", bundle, cohort)
    assert done.code == 0, done.err
    words = " ".join(done.out.split())
    assert "The likeliest of benign, metastatic, lymphoma is decided for" in words
    assert "lymphoma from 0.200 on" in words
