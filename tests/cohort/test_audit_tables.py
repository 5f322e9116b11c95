"""The audit of tables names the bad cell, the column that gives the answer away, and what gaps alone tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tenfold.cohort.audit import Audit, audit
from tenfold.cohort.importers import importer
from tenfold.cohort.manifest import Cohort
from tenfold.modalities.table import Column, read_columns
from tenfold.types import Finding

CRP = Column("crp", unit="mg/L", low=0, high=500)
SEX = Column("sex", kind="category", levels=("female", "male"))
RNG = np.random.default_rng(0)
NOISE = RNG.normal(10, 2, 200).round(3)


def labs(rows: Any, n: int = 40, *, film: bool = False, **more: Any) -> list[dict[str, Any]]:
    """Rows of n patients with a number and a word that tell nothing."""
    given = {
        "crp": lambda p, k: str(NOISE[p]),
        "sex": lambda p, k: ("female", "male")[p // 2 % 2],
        **more,
    }
    made = rows(n, films=1, **given)
    return made if film else [{k: v for k, v in row.items() if k != "film"} for row in made]


def run(path: Path, columns: tuple[Column, ...] = (CRP, SEX), **options: Any) -> Audit:
    return audit(Cohort.read(path), **{"target_column": "outcome", "folds": 4, "tables": {"labs": columns}, **options})


def of(found: Audit, check: str) -> list[Finding]:
    return [finding for finding in found.findings if finding.check == check]


def test_a_sound_table_passes(write, rows) -> None:
    found = run(write(labs(rows)))
    assert not found.refusals
    assert not found.warnings


@pytest.mark.parametrize(
    ("column", "cell", "says"),
    [
        ("crp", "high", "row 9, patient p007, column crp: 'high' is not a number"),
        ("crp", "12 mmol/L", "row 9.*'mmol/L' cannot be turned into mg/L"),
        ("sex", "mal", "row 9.*'mal' is no level of sex.*did you mean 'male'"),
    ],
)
def test_a_bad_cell_is_named(write, rows, column: str, cell: str, says: str) -> None:
    import re

    several = labs(rows)
    several[7][column] = cell
    (finding,) = run(write(several)).refusals
    assert finding.column == column
    assert re.search(says, finding.message)


def test_every_bad_column_is_listed_not_only_the_first(write, rows) -> None:
    several = labs(rows)
    several[7] |= {"crp": "high", "sex": "boy"}
    found = run(write(several), (CRP, SEX, Column("pct", unit="ng/mL")))
    assert {finding.column for finding in found.refusals} == {"crp", "sex", "pct"}


def test_a_unit_in_the_heading_is_converted(write, rows) -> None:
    several = [
        {("crp [mg/dL]" if k == "crp" else k): ("90" if k == "crp" else v) for k, v in row.items()}
        for row in labs(rows)
    ]
    (finding,) = of(run(write(several)), "implausible")
    assert "900" in finding.message


def test_empty_and_constant_columns(write, rows) -> None:
    several = labs(rows, crp=lambda p, k: "", sex=lambda p, k: "male")
    found = run(write(several))
    assert [f.column for f in of(found, "all_missing")] == ["crp"]
    assert of(found, "all_missing")[0].severity == "refusal"
    assert [f.column for f in of(found, "constant")] == ["sex"]
    assert not run(write(several), folds=None).refusals


def test_findings_about_values_name_the_right_row_when_cases_are_left_out(write, rows) -> None:
    several = labs(rows)
    several[0]["outcome"] = ""
    several[5]["crp"] = "900"
    (finding,) = of(run(write(several), unlabelled="allow"), "implausible")
    assert "row 7, patient p005" in finding.message


@pytest.mark.parametrize(
    ("name", "cell", "refused"),
    [
        ("grade", lambda p, k: ("low", "high")[p % 2], True),
        ("text", lambda p, k: f"entity {p % 2 + 2 * (p % 5)}", True),
        ("final_diagnosis", lambda p, k: ("a", "b")[p % 2 if p % 3 else p // 2 % 2], True),
        ("way", lambda p, k: ("seen again", "confirmed by biopsy")[p % 2 if p % 3 else p // 2 % 2], True),
        ("ward", lambda p, k: ("a", "b")[p % 2 if p % 3 else p // 2 % 2], False),
        ("final_diagnosis", lambda p, k: ("a", "b")[p // 2 % 2], False),
    ],
)
def test_inputs_that_restate_the_outcome(write, rows, name: str, cell: Any, refused: bool) -> None:
    several = labs(rows, 80, **{name: cell})
    column = Column(name, kind="category", levels=tuple(sorted({row[name] for row in several})))
    path = write(several)
    found = [f for f in of(run(path, (CRP, column)), "restates_target") if f.severity == "refusal"]
    assert [f.column for f in found] == ([name] if refused else [])
    if refused:
        assert "AUC" in found[0].message
        allowed = run(path, (CRP, column), allowed=[name])
        assert not allowed.refusals
        assert [f.severity for f in of(allowed, "restates_target")] == ["note"]


def test_the_outcome_and_the_patient_are_no_inputs(write, rows) -> None:
    outcome = Column("outcome", kind="category", levels=("ill", "well"))
    patient = Column("patient", kind="category", levels=("p000", "p001"))
    found = run(write(labs(rows)), (CRP, outcome, patient))
    assert {(f.check, f.column) for f in found.refusals} == {
        ("restates_target", "outcome"),
        ("not_an_input", "patient"),
    }


def test_a_word_of_one_class_is_warned_of(write, rows) -> None:
    several = labs(rows, 100, route=lambda p, k: "home" if p % 2 == 0 and p < 60 else "clinic")
    column = Column("route", kind="category", levels=("clinic", "home"))
    (finding,) = of(run(write(several), (CRP, column)), "one_class_word")
    assert "all 30 cases with 'home' are well" in finding.message


@pytest.mark.parametrize("telling", [True, False])
def test_gaps_that_tell_the_outcome(write, rows, telling: bool) -> None:
    several = labs(rows, 120, crp=lambda p, k: "" if (p % 2 if telling else p // 2 % 2) and p % 5 else str(NOISE[p]))
    (finding,) = of(run(write(several)), "telling_gaps")
    assert finding.severity == ("warning" if telling else "note")
    assert (finding.value > 0.8) is telling
    if telling:
        assert "missing in crp 80 % of ill and 0 % of well" in finding.message


def test_a_film_may_be_absent_where_the_table_is_there(write, rows) -> None:
    several = labs(rows, film=True)
    several[3]["film"] = several[4]["film"] = ""
    several[4] |= {"crp": "", "sex": ""}
    several[5] |= {"crp": "", "sex": ""}
    path = write(several)
    strict = run(path)
    assert len(of(strict, "unreadable_image")) == 2
    assert len(of(strict, "empty_row")) == 2
    lenient = run(path, absent="allow")
    assert {f.row for f in lenient.refusals} == {6}
    assert [f.cases for f in of(lenient, "absent_input")] == [("c003-0",), ("c005-0",)]
    left_out = run(path, absent="allow", unreadable="exclude")
    assert not left_out.refusals
    assert set(left_out.excluded) == {"c004-0"}


def test_a_broken_film_is_not_an_absent_one(write, rows, tmp_path: Path) -> None:
    several = labs(rows, film=True)
    path = write(several)
    (tmp_path / several[3]["film"]).write_text("broken")
    assert [f.row for f in run(path, absent="allow").refusals] == [5]


def test_ineligible_cases_are_not_looked_at(write, rows) -> None:
    several = labs(rows)
    several[0] |= {"outcome": "unclear", "crp": "high"}
    found = run(write(several), ineligible={"c000-0": "outcome unclear"})
    assert not found.refusals
    assert found.excluded == {"c000-0": "outcome unclear"}
    assert "outcome" in found.labels
    assert found.labels["outcome"].values[:2].tolist() == ["", "ill"]


@pytest.mark.shared
def test_the_breast_data_gives_its_conclusions_away(shared_data: Path, tmp_path: Path) -> None:
    made = importer("breast")(shared_data / "breast", tmp_path / "out", hardlink=False)
    cohort = Cohort.read(made.cohort, image_columns=[])
    clinical = read_columns(tmp_path / "out")
    conclusions = ("BIRADS", "Interpretation", "Diagnosis", "Verification")
    as_inputs = tuple(
        Column(name, kind="category", levels=tuple(sorted(set(cohort.labels(name).tolist())))) for name in conclusions
    )

    def refused(columns: tuple[Column, ...]) -> set[str]:
        found = audit(cohort, target_column="Classification", tables={"clinical": columns})
        assert not [f for f in found.refusals if f.check != "restates_target"]
        return {f.column for f in found.refusals}

    assert refused(clinical) == set()
    assert refused(clinical + as_inputs) == set(conclusions)
