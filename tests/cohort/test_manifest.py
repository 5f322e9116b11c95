"""The cohort file is read as it stands, or refused with its row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tenfold.cohort.manifest import Cohort, labels_for, write_cohort
from tenfold.errors import CohortError

HEAD = "case,patient,film,outcome\n"


def text(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "cohort.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_reads_folder_and_file_alike(write, rows) -> None:
    path = write(rows(4))
    cohort = Cohort.read(path)
    assert Cohort.read(path.parent).case.tolist() == cohort.case.tolist()
    assert cohort.image_columns == ("film",)
    assert len(cohort) == 8
    assert cohort.rows.tolist() == list(range(2, 10))
    assert all(film.is_file() for film in cohort.files("film"))
    assert set(cohort.site.tolist()) == {""}


def test_text_stays_text(tmp_path: Path) -> None:
    cohort = Cohort.read(text(tmp_path, "case,patient,age\n001,007,NA\n002, 008 ,nan\n"))
    assert cohort.patient.tolist() == ["007", "008"]
    assert cohort.labels("age").tolist() == ["NA", "nan"]


@pytest.mark.parametrize("separator", [";", "\t"])
@pytest.mark.parametrize("head", [b"", b"\xef\xbb\xbf"])
def test_other_separators_and_byte_order_mark(tmp_path: Path, separator: str, head: bytes) -> None:
    content = "case,patient,film\r\nc1,p1,a.png\r\n".replace(",", separator)
    cohort = Cohort.read(text(tmp_path, head + content.encode()))
    assert cohort.image_columns == ("film",)
    assert cohort.patient.tolist() == ["p1"]


def test_image_columns_are_found_but_masks_are_not(tmp_path: Path) -> None:
    content = "case,patient,front,side,mask,lesion_mask,note\nc1,p1,a.PNG,,m.png,n.png,x.png\nc2,p2,b.dcm,s.jpg,,,y\n"
    cohort = Cohort.read(text(tmp_path, content))
    assert cohort.image_columns == ("front", "side")
    assert cohort.paths("side")[0] is None
    with pytest.raises(CohortError, match="row 2, patient p1, column side"):
        cohort.files("side")
    with pytest.raises(CohortError, match="cannot be an input"):
        Cohort.read(cohort.path, image_columns=["mask"])
    with pytest.raises(CohortError, match=r"'frnt'.*\n.*did you mean 'front'"):
        Cohort.read(cohort.path, image_columns=["frnt"])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "empty"),
        ("\n\n", "empty"),
        (HEAD, "no row"),
        ("case,Patient\nc,p\n", "row 1.*'patient'(.|\n)*Patient"),
        ("case,patient,age,age\nc,p,1,2\n", "row 1.*two columns are called 'age'"),
        ("case,patient,\nc,p,1\n", "row 1.*column 3 has no name"),
        ("case,patient\nc1,p1\n\nc2,p2,x\n", "row 4: 3 cells under 2"),
        ("case,patient\nc1,p1\nc1,p2\n", "row 3, patient p2, column case.*row 2"),
        ("case,patient\nc1,p1\n,p2\n", "row 3, patient p2, column case: the case is empty"),
        ("case,patient\nc1,  \n", "row 2, column patient: the patient is empty"),
        ("case,patient\nc1,p1\nc2,P1\n", "row 3, patient P1, column patient.*'p1' \\(row 2\\)"),
        ("case,patient\nc1,p 1\nc2,p1\n", "row 3.*white space"),
        ('case,patient\nc1,p1\n"c2,p2\n', "row 3: the row is no CSV"),
        ("case,patient,date\nc1,p1,2020-02-30\n", "row 2, patient p1, column date.*2020-02-30"),
        ("case,patient,date\nc1,p1,03/04/2020\n", "row 2.*not a date"),
        (b"case,patient\nc1,p1\nc2,M\xfcller\n", "row 3: byte 0xfc is not UTF-8"),
        ("case,patient\nc1,p1\n".encode("utf-16"), "not UTF-8"),
        (b"case,patient\nc1,p\x001\n", "row 2: there is a zero byte"),
        ("case,patient\nc1,p\x071\n", "row 2.*control character"),
    ],
)
def test_refusals_name_the_row(tmp_path: Path, content: str | bytes, says: str) -> None:
    with pytest.raises(CohortError, match=says):
        Cohort.read(text(tmp_path, content))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="cannot be read"):
        Cohort.read(tmp_path)


@pytest.mark.parametrize("cell", ["/etc/a.png", "../a.png", "in/../../a.png", "C:\\a.png", "..\\a.png", "away/a.png"])
@pytest.mark.parametrize("column", ["film", "mask"])
def test_paths_stay_in_the_folder(tmp_path: Path, cell: str, column: str) -> None:
    folder = tmp_path / "cohort"
    folder.mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (folder / "away").symlink_to(outside)
    path = text(folder, f"case,patient,{column}\nc1,p1,a.png\nc2,p2,{cell}\n")
    with pytest.raises(CohortError, match=f"row 3, patient p2, column {column}.*leads out"):
        Cohort.read(path)


def test_a_folder_whose_name_begins_alike_is_outside(tmp_path: Path) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    (tmp_path / "films2").mkdir()
    with pytest.raises(CohortError, match="leads out"):
        Cohort.read(text(folder, "case,patient,film\nc1,p1,../films2/a.png\n"))


def test_a_linked_cohort_folder_and_links_inside_are_fine(tmp_path: Path, draw) -> None:
    folder = tmp_path / "real"
    draw(folder / "a.png", 1)
    (folder / "b.png").symlink_to("a.png")
    (tmp_path / "link").symlink_to(folder)
    text(folder, "case,patient,film\nc1,p1,b.png\n")
    assert Cohort.read(tmp_path / "link").files("film")[0].is_file()


def test_select_keeps_order_and_rows(write, rows) -> None:
    cohort = Cohort.read(write(rows(4)))
    some = cohort.select(["c003-1", "c000-0"])
    assert some.patient.tolist() == ["p003", "p000"]
    assert some.rows.tolist() == [9, 2]
    assert some.image_columns == ("film",)
    with pytest.raises(CohortError, match="'c9'"):
        cohort.select(["c9"])


def test_columns_of_a_cohort_cannot_be_written_to(write, rows) -> None:
    cohort = Cohort.read(write(rows(2)))
    with pytest.raises(ValueError, match="read-only"):
        cohort.patient[0] = "x"


def test_labels_are_found_and_ordered(write, rows) -> None:
    cohort = Cohort.read(write(rows(4)))
    labels = labels_for(cohort, column="outcome")
    assert labels.classes == ("ill", "well")
    assert labels_for(cohort, column="outcome", positive="ill").classes == ("well", "ill")
    assert labels_for(cohort, column="outcome", classes=["ill", "well"], positive="ill").classes == ("well", "ill")
    assert labels.known.all()


@pytest.mark.parametrize(
    ("outcomes", "options", "says"),
    [
        (["ill", "wel"], {"classes": ["ill", "well"]}, "row 3, patient p1, column y.*'wel'(.|\n)*did you mean 'well'"),
        (["ill", "nan"], {"classes": ["ill", "well"]}, "row 3.*'nan' is not a class"),
        (["ill", "NA", "well"], {"classes": ["ill", "well"]}, "row 3.*'NA'"),
        (["ill", "", "well", ""], {}, "row 3, patient p1, column y.*missing here and in 1 more"),
        (["ill", "ill"], {}, "there are 1 classes"),
        (["ill", "ill"], {"classes": ["ill", "well"]}, "no case has the class 'well'"),
        (["a", "b", "c"], {}, "there are 3 classes"),
        (["a", "b"], {"classes": ["a", "b", "c"]}, "exactly two"),
        (["a", "b"], {"positive": "c"}, "positive class 'c'"),
        (["", ""], {"unlabelled": "allow"}, "no outcome at all"),
    ],
)
def test_label_refusals(tmp_path: Path, outcomes: list[str], options: dict, says: str) -> None:
    path = tmp_path / "cohort.csv"
    write_cohort(
        [{"case": f"c{i}", "patient": f"p{i}", "y": y} for i, y in enumerate(outcomes)], ["case", "patient", "y"], path
    )
    with pytest.raises(CohortError, match=says):
        labels_for(Cohort.read(path), column="y", **options)


def test_missing_label_column_names_the_nearest(write, rows) -> None:
    with pytest.raises(CohortError, match="did you mean 'outcome'"):
        labels_for(Cohort.read(write(rows(2))), column="outcom")


def test_declared_unlabelled_cases_stay_empty(tmp_path: Path) -> None:
    cohort = Cohort.read(text(tmp_path, HEAD + "c1,p1,,ill\nc2,p2,,\nc3,p3,,well\n"))
    labels = labels_for(cohort, column="outcome", unlabelled="allow")
    assert labels.known.tolist() == [True, False, True]
    assert np.array_equal(labels.values, ["ill", "", "well"])


def test_write_then_read_keeps_awkward_text(tmp_path: Path) -> None:
    row = {"case": 'c, "1"', "patient": "Ü;1", "note": "two\nlines"}
    write_cohort([row], ["case", "patient", "note"], tmp_path / "cohort.csv")
    cohort = Cohort.read(tmp_path)
    assert (cohort.case[0], cohort.patient[0], cohort.labels("note")[0]) == tuple(row.values())
