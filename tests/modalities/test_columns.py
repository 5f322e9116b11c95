"""The column dictionary: what it may say, and where it is wrong."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from tenfold.errors import CohortError
from tenfold.modalities.columns import Column, check_columns, read_columns, write_columns

COLUMNS = (
    Column("crp", "C-reactive protein", unit="mg/L", loinc="1988-5", low=0, high=500, normal_high=5, transform="log"),
    Column("neutrophils", unit="10*9/L", loinc="751-8"),
    Column("lymphocytes", unit="10*9/L", loinc="731-0"),
    Column("nlr", "neutrophils, lymphocytes: ratio", unit="1", formula="neutrophils / lymphocytes"),
    Column("sex", kind="category", levels=("female", "male")),
    Column("bell", kind="ordered", levels=("I", "II", "III")),
    Column("fever", kind="yes_no"),
    Column("smokes", kind="yes_no", levels=("never", "ever")),
)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "columns.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_dictionary_is_read_back_unchanged(tmp_path: Path) -> None:
    write_columns(COLUMNS, tmp_path)
    assert read_columns(tmp_path) == COLUMNS
    assert read_columns(tmp_path / "columns.csv") == COLUMNS


def test_a_column_survives_json() -> None:
    assert tuple(Column.from_dict(json.loads(json.dumps(c.to_dict()))) for c in COLUMNS) == COLUMNS


def test_columns_that_differ_are_unlike() -> None:
    assert Column("a", low=math.nan) == Column("a", low=float("nan"))
    assert Column("a", low=1) != Column("a")


def test_only_the_name_is_needed(tmp_path: Path) -> None:
    assert read_columns(written(tmp_path, "column\ncrp\n")) == (Column("crp"),)


@pytest.mark.parametrize("mark", [";", "\t"])
def test_other_marks_between_the_cells_and_a_byte_order_mark(tmp_path: Path, mark: str) -> None:
    text = "\ufeffcolumn,unit,levels,kind\ncrp,mg/l,,\n\nsex,,female|male,category\n".replace(",", mark)
    read = read_columns(written(tmp_path, text))
    assert read == (Column("crp", unit="mg/L"), Column("sex", kind="category", levels=("female", "male")))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("crp,numbr,,,,,,", "did you mean 'number'"),
        (",number,,,,,,", "a column named ''"),
        ("crp,number,1988-6,,,,,", "check digit is wrong"),
        ("crp,number,CRP,,,,,", "not a LOINC code"),
        ('crp,number,,,"0,5",,,', "low is '0,5'"),
        ("crp,number,,,5,1,,", "low 5 is above high 1"),
        ("crp,number,,a|b,,,,", "number column with levels"),
        ("crp,number,,,,,log10,", "did you mean 'log'"),
        ("crp,number,,,,,,a/b", "cannot be read"),
        ("sex,category,,,,,,", "levels \\[\\]"),
        ("sex,category,,female,,,,", "two or more"),
        ("sex,category,,female|female,,,,", "all different"),
        ("sex,category,,female||male,,,,", "not empty"),
        ("sex,category,,a|b,0,,,", "low"),
        ("sex,category,,a|b,,,log,", "transform"),
        ("fever,yes_no,,no|yes|maybe,,,,", "two, no first"),
        ("crp,number", "2 cells"),
        ("age,number,,,,,,", "a second time"),
    ],
)
def test_a_wrong_row_is_refused_by_its_number(tmp_path: Path, row: str, says: str) -> None:
    path = written(tmp_path, f"column,kind,loinc,levels,low,high,transform,formula\nage,number,,,,,,\n{row}\n")
    with pytest.raises(CohortError, match=says) as refused:
        read_columns(path)
    assert refused.value.where == "columns.csv, row 3"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("column,units\ncrp,mg/L\n", "did you mean 'unit'"),
        ("label,unit\ncrp,mg/L\n", "no heading 'column'"),
        ("column,unit,unit\ncrp,a,b\n", "stands twice"),
        ("", "no heading 'column'"),
        ("column\n", "no columns"),
    ],
)
def test_a_wrong_header_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(CohortError, match=says):
        read_columns(written(tmp_path, text))


def test_a_dictionary_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="no column dictionary"):
        read_columns(tmp_path)
    (tmp_path / "columns.csv").write_bytes(b"column\n\xff\xfe\n")
    with pytest.raises(CohortError, match="UTF-8"):
        read_columns(tmp_path)


@pytest.mark.parametrize(
    ("formula", "says"),
    [
        ("neutrophil / lymphocytes", "did you mean 'neutrophils'"),
        ("neutrophils / sex", "no measured number column"),
        ("neutrophils / nlr", "no measured number column"),
        ("neutrophils + crp", "mixes 10\\*9/L and mg/L"),
    ],
)
def test_a_formula_needs_measured_numbers_in_one_unit(formula: str, says: str) -> None:
    with pytest.raises(CohortError, match=says):
        check_columns((*COLUMNS, Column("new", formula=formula)))


def test_a_formula_keeps_names_that_hold_a_hyphen() -> None:
    assert Column("x", formula="il-6 / crp").parts == ("il-6", "/", "crp")
