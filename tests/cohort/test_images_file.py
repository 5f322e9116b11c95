"""Several pictures a case: paths in one cell, and images.csv with one picture a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.study_files import write_rows

from tenfold.cohort.audit import audit
from tenfold.cohort.manifest import Cohort
from tenfold.errors import CohortError

Draw = Callable[..., None]
ROWS = [{"case": f"c{i}", "patient": f"p{i}", "site": "a", "outcome": "ill" if i % 2 else "well"} for i in range(4)]
IMAGES = [
    {"case": "c1", "view": "front", "path": "films/1a.png"},
    {"case": "c0", "view": "front", "path": "films/0a.png"},
    {"case": "c1", "view": "side", "path": "films/1s.png"},
    {"case": "c1", "view": "front", "path": "films/1b.png"},
    {"case": "c2", "view": "side", "path": "films/2s.png"},
]


def written(folder: Path, images: Sequence[dict[str, str]] = IMAGES, rows: Sequence[dict[str, str]] = ROWS) -> Path:
    write_rows(folder / "cohort.csv", list(rows))
    write_rows(folder / "images.csv", list(images))
    return folder


def names(cohort: Cohort, column: str) -> list[tuple[str, ...]]:
    return [tuple(path.name for path in own) for own in cohort.pictures(column)]


# --- images.csv ------------------------------------------------------------------------------------------------------


def test_every_view_becomes_a_column_with_the_pictures_in_the_order_of_the_file(tmp_path: Path) -> None:
    cohort = Cohort.read(written(tmp_path))
    assert cohort.image_columns == ("front", "side")
    assert names(cohort, "front") == [("0a.png",), ("1a.png", "1b.png"), (), ()]
    assert names(cohort, "side") == [(), ("1s.png",), ("2s.png",), ()]
    assert cohort.pictures("side")[1] == (tmp_path / "films" / "1s.png",)
    chosen = cohort.select(["c2", "c1"])
    assert names(chosen, "front") == [(), ("1a.png", "1b.png")]
    assert chosen.paths("side") == [tmp_path / "films" / "2s.png", tmp_path / "films" / "1s.png"]


def test_columns_and_images_csv_stand_beside_each_other(tmp_path: Path) -> None:
    rows = [{**row, "mri": f"mri/{row['case']}.png"} for row in ROWS]
    cohort = Cohort.read(written(tmp_path, rows=rows))
    assert cohort.image_columns == ("mri", "front", "side")
    assert Cohort.read(tmp_path, image_columns=["side"]).image_columns == ("side",)


def test_a_cohort_of_another_name_does_not_take_its_neighbours_pictures(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "cohort.csv").rename(tmp_path / "others.csv")
    assert Cohort.read(tmp_path / "others.csv").image_columns == ()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"case": "c9", "view": "front", "path": "films/9.png"}, r"case 'c9' is not in cohort.csv"),
        ({"case": "c1", "view": "front", "path": "films/1a.png"}, r"'films/1a.png' stands there twice"),
        ({"case": "c1", "view": "outcome", "path": "films/1o.png"}, r"'outcome' is also a column of cohort.csv"),
        ({"case": "c1", "view": "date", "path": "films/1o.png"}, r"'date'"),
        ({"case": "c1", "view": "", "path": "films/1o.png"}, r"view '' with path"),
        ({"case": "c1", "view": "front", "path": ""}, r"view 'front' with path ''"),
        ({"case": "c1", "view": "front", "path": "films/1c.png|films/1d.png"}, r"no bar in a path"),
    ],
)
def test_what_is_wrong_in_images_csv_is_refused_with_its_row(tmp_path: Path, row: dict[str, str], words: str) -> None:
    with pytest.raises(CohortError, match=words) as refused:
        Cohort.read(written(tmp_path, [*IMAGES, row]))
    assert refused.value.where.startswith("images.csv, row 7")


@pytest.mark.parametrize("path", ["../secret.png", "/etc/secret.png", "C:\\secret.png", "films/../../secret.png"])
def test_a_path_of_images_csv_that_leads_out_is_refused_with_case_and_view(tmp_path: Path, path: str) -> None:
    with pytest.raises(CohortError, match="leads out of the cohort's folder") as refused:
        Cohort.read(written(tmp_path / "inside", [*IMAGES, {"case": "c2", "view": "side", "path": path}]))
    assert "side" in refused.value.where
    assert "p2" in refused.value.where


def test_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    folder = written(tmp_path / "inside")
    (folder / "films").symlink_to(tmp_path / "secret")
    with pytest.raises(CohortError, match="leads out"):
        Cohort.read(folder)


@pytest.mark.parametrize("lacking", ["case", "view", "path"])
def test_images_csv_without_one_of_its_columns_is_refused_by_its_name(tmp_path: Path, lacking: str) -> None:
    images = [{key: value for key, value in row.items() if key != lacking} for row in IMAGES]
    with pytest.raises(CohortError, match=f"there is no column '{lacking}'") as refused:
        Cohort.read(written(tmp_path, images))
    assert "images.csv" in refused.value.where


def test_an_empty_images_csv_is_refused(tmp_path: Path) -> None:
    (written(tmp_path) / "images.csv").write_text("")
    with pytest.raises(CohortError, match=r"images\.csv"):
        Cohort.read(tmp_path)


# --- several in a cell -----------------------------------------------------------------------------------------------


def with_cell(folder: Path, cell: str) -> Path:
    write_rows(folder / "cohort.csv", [{**row, "film": cell if i == 1 else "f.png"} for i, row in enumerate(ROWS)])
    return folder


def test_several_paths_in_a_cell(tmp_path: Path) -> None:
    cohort = Cohort.read(with_cell(tmp_path, "films/1a.png | films/1b.dcm"))
    assert cohort.image_columns == ("film",)
    assert names(cohort, "film") == [("f.png",), ("1a.png", "1b.dcm"), ("f.png",), ("f.png",)]
    # what reads one file a case does not take the first of several
    for read in (cohort.paths, cohort.files):
        with pytest.raises(CohortError, match="2 files") as refused:
            read("film")
        assert refused.value.where == cohort.place(1, "film")


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("films/1a.png|../1b.png", "'../1b.png' leads out"),
        ("films/1a.png||films/1b.png", "an empty path among several"),
        ("films/1a.png|", "an empty path among several"),
        ("films/1a.png|films/1a.png", "twice"),
    ],
)
def test_what_is_wrong_in_a_cell_is_refused_with_row_and_column(tmp_path: Path, cell: str, words: str) -> None:
    with pytest.raises(CohortError, match=words) as refused:
        Cohort.read(with_cell(tmp_path, cell), image_columns=["film"])
    assert refused.value.where == "cohort.csv, row 3, patient p1, column film"


def test_a_word_among_the_paths_makes_it_no_column_of_pictures(tmp_path: Path) -> None:
    assert Cohort.read(with_cell(tmp_path, "films/1a.png|benign")).image_columns == ()


# --- the audit -------------------------------------------------------------------------------------------------------


def audited(folder: Path, draw: Draw, **changes: Any) -> Any:
    """Forty cases with two pictures each in front and one at the side; every fifth lacks the side."""
    rows = [{"case": f"c{i}", "patient": f"p{i}", "outcome": "ill" if i % 2 else "well"} for i in range(40)]
    images = [
        {"case": f"c{i}", "view": view, "path": f"films/{i}{view}{k}.png"}
        for i in range(40)
        for view, k in (("front", 0), ("front", 1), ("side", 0))
        if view == "front" or i % 5
    ]
    for seed, row in enumerate(images):
        draw(folder / row["path"], seed)
    written(folder, images, rows)
    return rows, images


def test_every_picture_is_looked_at_and_its_faults_name_its_case(tmp_path: Path, draw: Draw) -> None:
    _, images = audited(tmp_path, draw)
    second = tmp_path / "films" / "7front1.png"
    second.write_bytes(second.read_bytes()[:60])
    found = audit(Cohort.read(tmp_path), target_column="outcome", folds=None, absent="allow", unreadable="exclude")
    assert set(found.excluded) == {"c7"}
    looked = [(row.case, row.column) for row in found.facts.itertuples()]
    assert looked.count(("c3", "front")) == 2
    assert looked.count(("c5", "side")) == 0
    assert len(found.facts) == len(images) - 1


def test_the_same_picture_of_two_patients_is_found_wherever_it_stands(tmp_path: Path, draw: Draw) -> None:
    audited(tmp_path, draw)
    (tmp_path / "films" / "11front1.png").write_bytes((tmp_path / "films" / "4front0.png").read_bytes())
    found = audit(Cohort.read(tmp_path), target_column="outcome", folds=None, absent="allow")
    (pair,) = [f for f in found.findings if f.check == "duplicate_image"]
    assert (pair.severity, set(pair.patients)) == ("refusal", {"p4", "p11"})
