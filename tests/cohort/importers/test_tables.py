"""Tables become cohorts with a column dictionary, and what cannot be taken over is said."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from tenfold.cohort.audit import audit
from tenfold.cohort.audit_tables import table_reading
from tenfold.cohort.importers import Imported, importer
from tenfold.cohort.manifest import Cohort
from tenfold.errors import CohortError
from tenfold.modalities.table import Column, read_columns, write_columns


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as handle:
        out = csv.DictWriter(handle, list(rows[0]))
        out.writeheader()
        out.writerows(rows)
    return path


def said(made: Imported) -> str:
    return " ".join(finding.message for finding in made.notes)


# REDCap -----------------------------------------------------------------------------------------------------------

FIELDS: list[dict[str, str]] = [
    {"name": "record_id", "type": "text"},
    {"name": "surname", "type": "text", "identifier": "y"},
    {"name": "sex", "type": "radio", "choices": "1, female | 2, male"},
    {"name": "crp", "type": "text", "check": "number", "low": "0", "high": "500"},
    {"name": "born", "type": "text", "check": "date_dmy"},
    {"name": "signs", "type": "checkbox", "choices": "1, <b>fever</b> | -9, rash, itching", "branching": "[sex]='1'"},
    {"name": "score", "type": "calc", "choices": "[crp]*2"},
    {"name": "smokes", "type": "yesno"},
    {"name": "remark", "type": "notes"},
    {"name": "nec", "type": "dropdown", "choices": "0, No | 1, Yes"},
]


def project(folder: Path, rows: list[dict[str, str]], **changed: dict[str, str]) -> Path:
    """An export of the records beside its data dictionary."""
    dictionary = [
        {
            "Variable / Field Name": f["name"],
            "Form Name": "admission",
            "Field Type": f["type"],
            "Field Label": f"What is\nthe {f['name']}",
            "Choices, Calculations, OR Slider Labels": f.get("choices", ""),
            "Text Validation Type OR Show Slider Number": f.get("check", ""),
            "Text Validation Min": f.get("low", ""),
            "Text Validation Max": f.get("high", ""),
            "Identifier?": f.get("identifier", ""),
            "Branching Logic (Show field only if...)": f.get("branching", ""),
        }
        for f in ({**f, **changed.get(f["name"], {})} for f in FIELDS)
    ]
    write(folder / "dictionary.csv", dictionary)
    write(folder / "export.csv", rows)
    return folder


def record(k: int, **more: str) -> dict[str, str]:
    cells = {
        "record_id": str(k),
        "surname": "Curie",
        "sex": "2",
        "crp": "3.5",
        "born": "2020-02-01",
        "signs___1": "1",
        "signs____9": "0",
        "score": "7",
        "smokes": "0",
        "remark": "lives in Paris",
        "nec": str(k % 2),
    }
    return {**cells, **more}


def test_redcap(tmp_path: Path) -> None:
    source = project(tmp_path / "in", [record(1, crp="", sex="female"), record(2), record(3)])
    made = importer("redcap")(source, tmp_path / "out", target="nec")
    cohort = Cohort.read(made.cohort)
    assert cohort.columns == (
        *("case", "patient", "sex", "crp", "born", "signs___1", "signs____9", "score", "smokes", "nec"),
    )
    assert cohort.labels("sex").tolist() == ["female", "male", "male"]
    assert cohort.labels("nec").tolist() == ["Yes", "No", "Yes"]
    assert cohort.labels("signs___1").tolist() == ["yes"] * 3
    columns = {column.name: column for column in read_columns(tmp_path / "out")}
    assert list(columns) == ["sex", "crp", "signs___1", "signs____9", "score", "smokes"]
    assert (columns["crp"].low, columns["crp"].high, columns["crp"].unit) == (0, 500, "")
    assert columns["signs____9"].label == "What is the signs: rash, itching"
    assert columns["sex"].levels == ("female", "male")
    assert (made.study["target"], made.study["classes"]) == ("nec", ["No", "Yes"])
    assert made.study["tables"]["clinical"]["columns"] == list(columns)
    assert table_reading(cohort, tuple(columns.values())).values.shape == (3, 6)
    everything = made.cohort.read_text() + (tmp_path / "out" / "columns.csv").read_text()
    assert "Curie" not in everything
    assert "Paris" not in everything
    for word in ("dropped: surname", "remark (notes)", "1 fields have branching logic", "no units", "born"):
        assert word in said(made)


def test_redcap_hides_a_flagged_record_id(tmp_path: Path) -> None:
    source = project(tmp_path / "in", [record(4711), record(4712)], record_id={"identifier": "y"})
    made = importer("redcap")(source, tmp_path / "out", target="nec")
    assert "4711" not in made.cohort.read_text()
    assert "numbers stand in its place" in said(made)


def test_redcap_takes_one_event(tmp_path: Path) -> None:
    rows = [
        record(k, redcap_event_name=event, redcap_repeat_instrument=repeat, crp=crp)
        for k in (1, 2)
        for event, repeat, crp in (("birth", "", "1"), ("birth", "labs", "2"), ("later", "", "3"))
    ]
    source = project(tmp_path / "in", rows)
    with pytest.raises(CohortError, match="several events: birth, later"):
        importer("redcap")(source, tmp_path / "out", target="nec")
    with pytest.raises(CohortError, match="did you mean 'birth'"):
        importer("redcap")(source, tmp_path / "out", target="nec", event="brith")
    made = importer("redcap")(source, tmp_path / "out", target="nec", event="birth")
    assert Cohort.read(made.cohort).labels("crp").tolist() == ["1", "1"]
    assert "2 rows of repeated instruments" in said(made)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"redcap_repeat_instrument": "labs"}, "instruments are repeated: labs"),
        ({"crp": "high"}, "row 2, column crp: 'high' is not a number"),
        ({"sex": "3"}, r"row 2, column sex: '3' is no choice of sex(.|\n)*1, female"),
        ({"smokes": "maybe"}, "neither yes nor no"),
        ({"record_id": "2"}, "record '2' has 2 rows"),
    ],
)
def test_redcap_refusals(tmp_path: Path, more: dict[str, str], says: str) -> None:
    rows = [{**record(k), **dict.fromkeys(more, ""), **record(k)} for k in (1, 2)]
    rows[0] |= more
    with pytest.raises(CohortError, match=says):
        importer("redcap")(project(tmp_path / "in", rows), tmp_path / "out", target="nec")
    assert not (tmp_path / "out").exists()


def test_redcap_wants_an_outcome_and_both_files(tmp_path: Path) -> None:
    source = project(tmp_path / "in", [record(1), record(2)])
    with pytest.raises(CohortError, match="two values each have: nec"):
        importer("redcap")(source, tmp_path / "out")
    (source / "dictionary.csv").unlink()
    with pytest.raises(CohortError, match="0 data dictionaries and 1 other"):
        importer("redcap")(source, tmp_path / "out", target="nec")


# plain CSV --------------------------------------------------------------------------------------------------------


def plain(folder: Path, **more: Any) -> Path:
    rows = [
        {
            "patient": f"p{k}",
            "crp": "NA" if k == 3 else str(1.5 * k),
            "fever": ("no", "yes")[k % 2],
            "ward": ("a", "b", "c")[k % 3],
            "story": f"came {k} times",
            "ill": str(k // 2 % 2),
            **{name: value(k) for name, value in more.items()},
        }
        for k in range(20)
    ]
    return write(folder / "patients.csv", rows)


def test_table_writes_a_starter_dictionary(tmp_path: Path) -> None:
    made = importer("table")(plain(tmp_path / "in"), tmp_path / "out", target="ill")
    cohort = Cohort.read(made.cohort)
    assert cohort.case.tolist() == cohort.patient.tolist()
    assert cohort.labels("crp")[3] == ""
    assert read_columns(tmp_path / "out") == (
        Column("crp"),
        Column("fever", kind="yes_no"),
        Column("ward", kind="category", levels=("a", "b", "c")),
    )
    assert made.study["tables"] == {"clinical": {"columns": ["crp", "fever", "ward"], "dictionary": "columns.csv"}}
    assert [finding.severity for finding in made.notes if finding.check == "dictionary"] == ["warning", "note"]
    for word in ("none was guessed", "story", "crp (1)"):
        assert word in said(made)


def test_table_takes_the_dictionary_that_lies_there(tmp_path: Path) -> None:
    path = plain(tmp_path / "in")
    columns = (Column("crp", unit="mg/L"),)
    write_columns(columns, path.parent)
    importer("table")(path.parent, tmp_path / "out", target="ill")
    assert read_columns(tmp_path / "out") == columns


def test_table_numbers_the_cases_of_a_patient_and_copies_pictures(tmp_path: Path) -> None:
    path = plain(tmp_path / "in", patient=lambda k: f"m{k // 2}", film=lambda k: "" if k == 1 else f"f/{k}.png")
    (path.parent / "f").mkdir()
    for k in range(20):
        (path.parent / "f" / f"{k}.png").write_bytes(bytes([k]))
    made = importer("table")(path, tmp_path / "out", target="ill")
    cohort = Cohort.read(made.cohort, image_columns=["film"])
    assert cohort.case[:3].tolist() == ["m0-1", "m0-2", "m1-1"]
    assert cohort.paths("film")[1] is None
    assert cohort.paths("film")[4].read_bytes() == bytes([4])
    assert made.study["images"] == {"film": "film"}


@pytest.mark.parametrize(
    ("options", "more", "says"),
    [
        ({}, {}, "two values each have: fever, ill"),
        ({"target": "il"}, {}, "did you mean 'ill'"),
        ({"target": "ward"}, {}, "has 3 values: a, b, c"),
        ({"target": "ill", "patient_column": "mrn"}, {}, "no column 'mrn'"),
        ({"target": "ill", "patient_column": "ward"}, {}, "two columns of patients: 'patient' and 'ward'"),
        ({"target": "ill"}, {"film": lambda k: "../x.png"}, "row 2, column film: there is no picture"),
    ],
)
def test_table_refusals(tmp_path: Path, options: dict[str, str], more: dict[str, Any], says: str) -> None:
    with pytest.raises(CohortError, match=says):
        importer("table")(plain(tmp_path / "in", **more), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


# BrEaST -----------------------------------------------------------------------------------------------------------

BREAST = {
    "Mask_other_filename": "",
    "Pixel_size": "0.007",
    "Age": "56.0",
    "Tissue_composition": "lactating&homogeneous: fat",
    "Signs": "redness&warmth&palpable",
    "Symptoms": "not available",
    "Shape": "oval",
    "Margin": "not circumscribed - angular&indistinct",
    "Echogenicity": "hypoechoic",
    "Posterior_features": "no",
    "Halo": "no",
    "Calcifications": "no",
    "Skin_thickening": "no",
    "Interpretation": "Cyst",
    "BIRADS": "3",
    "Verification": "confirmed by biopsy",
    "Diagnosis": "not applicable",
}


def breast(folder: Path, *rows: dict[str, str]) -> Path:
    made = []
    for k, row in enumerate(rows):
        name, mask = f"case{k:03d}.png", f"case{k:03d}_tumor.png"
        made.append(
            {
                "CaseID": str(k),
                "Image_filename": name,
                "Mask_tumor_filename": mask,
                **BREAST,
                "Classification": "benign",
            }
            | row
        )
        (folder / "images").mkdir(parents=True, exist_ok=True)
        for file in (name, mask):
            (folder / "images" / file).write_text(file)
    write(folder / "clinical.csv", made)
    return folder


def test_breast(tmp_path: Path) -> None:
    strange = {"Classification": "malignant", "Margin": "circumscribed", "Shape": "starry", "Signs": "no"}
    source = breast(tmp_path / "in", {}, strange, {"Classification": "normal", "Shape": "not applicable"})
    made = importer("breast")(source, tmp_path / "out")
    cohort = Cohort.read(made.cohort)
    assert cohort.image_columns == ("ultrasound",)
    assert [path.read_text() for path in cohort.files("tumour_mask")] == ["case000_tumor.png", "case001_tumor.png"]
    cells = {name: cohort.labels(name).tolist() for name in cohort.columns}
    assert cells["Palpable"] == cells["Skin_change"] == ["yes", "no"]
    assert cells["Margin_angular"] == cells["Margin_indistinct"] == ["yes", "no"]
    assert cells["Margin_circumscribed"] == ["no", "yes"]
    assert cells["Family_history"] == ["", ""]
    assert (cells["Tissue_composition"], cells["Lactating"]) == (["homogeneous: fat"] * 2, ["yes"] * 2)
    assert cells["Shape"] == ["oval", ""]
    columns = read_columns(tmp_path / "out")
    assert not {column.name for column in columns} & {
        "BIRADS",
        "Interpretation",
        "Verification",
        "Diagnosis",
        "Pixel_size",
    }
    assert table_reading(cohort, columns).values.shape == (2, len(columns))
    assert "'starry' in Shape (1 cells)" in said(made)
    assert "1 patients of the class 'normal'" in said(made)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"Classification": "ill"}, "row 2.*'ill' is no class"),
        ({"Image_filename": "x.png"}, "row 2.*'x.png' is not in"),
    ],
)
def test_breast_refusals(tmp_path: Path, row: dict[str, str], says: str) -> None:
    with pytest.raises(CohortError, match=says):
        importer("breast")(breast(tmp_path / "in", row), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.shared
def test_breast_as_it_is(shared_data: Path, tmp_path: Path) -> None:
    made = importer("breast")(shared_data / "breast", tmp_path / "out")
    cohort = Cohort.read(made.cohort)
    assert (len(cohort), len(set(cohort.patient.tolist()))) == (169, 169)
    assert not [finding for finding in made.notes if finding.severity == "warning"]
    found = audit(
        cohort,
        target_column=made.study["target"],
        classes=made.study["classes"],
        positive=made.study["positive"],
        tables={"clinical": read_columns(tmp_path / "out")},
    )
    assert not found.refusals
    warned = {finding.column for finding in found.warnings if finding.check == "restates_target"}
    assert warned == {"BIRADS", "Interpretation", "Diagnosis", "Verification"}
