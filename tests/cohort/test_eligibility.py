"""The flow chart adds up, and the table counts what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tenfold.cohort.eligibility import Rule, apply_rules, cohort_summary, flow_chart
from tenfold.cohort.manifest import Cohort, Labels, labels_for
from tenfold.errors import Refusal, StudyError
from tenfold.modalities.table import Column


def test_flow_adds_up(write, rows) -> None:
    cohort = Cohort.read(write(rows(6)))
    excluded = {"c000-0": "blank picture", "c001-0": "blank picture", "c001-1": "outcome unknown"}
    flow = flow_chart(cohort, excluded=excluded, holdout=["c005-0", "c005-1"])
    assert [(s["step"], s["cases"], s["patients"], s["reason"]) for s in flow] == [
        ("in the cohort file", 12, 6, ""),
        ("excluded", 2, 2, "blank picture"),
        ("excluded", 1, 1, "outcome unknown"),
        ("analysed", 9, 5, ""),
        ("hold-out", 2, 1, ""),
        ("cross-validation", 7, 4, ""),
    ]


def test_table_by_class(write, rows) -> None:
    several = rows(
        8,
        site=lambda p, k: "AB"[p % 4 // 2],
        age=lambda p, k: "" if p == 1 else str(p),
        sex=lambda p, k: "f" if p < 4 else "m",
    )
    cohort = Cohort.read(write(several))
    labels = labels_for(cohort, column="outcome", positive="ill")
    summary = cohort_summary(cohort, labels, excluded={"c006-0": "blank picture"})
    table = {(row["variable"], row["level"]): (row["well"], row["ill"]) for row in summary["table"]}
    assert table["patients", ""] == ("4", "4")
    assert table["films", ""] == ("7", "8")
    assert table["age", "median [IQR]"] == ("3 [1.5 to 4.5]", "5 [4 to 6]")
    assert table["age", "missing"] == ("0", "1")
    assert table["sex", "f"] == ("2 (50.0 %)", "2 (50.0 %)")
    assert not {"film", "outcome", "case", "patient"} & {variable for variable, _ in table}
    assert (summary["n_cases"], summary["n_patients"]) == (15, 8)
    assert summary["by_class"] == {"well": {"cases": 7, "patients": 4}, "ill": {"cases": 8, "patients": 4}}
    assert summary["by_site"]["A"] == {"cases": 8, "patients": 4, "well": 4, "ill": 4}


def reasons(path: Path, *rules: Rule, tables: dict[str, tuple[Column, ...]] | None = None) -> dict[str, str]:
    return apply_rules(Cohort.read(path), rules, tables)


def test_rules_apply_in_order(write, rows) -> None:
    several = rows(
        6,
        age=lambda p, k: "" if p == 5 else str(20 + p),
        sepsis=lambda p, k: "yes" if p in (0, 1) else "no",
        date=lambda p, k: f"2020-01-{10 - k:02d}",
    )
    found = reasons(
        write(several),
        Rule("sepsis", column="sepsis", exclude=("yes",)),
        Rule("age below 22", column="age", low=22),
        Rule("second admission", first_by="date"),
    )
    assert [name for name, reason in found.items() if reason == "sepsis"] == ["c000-0", "c000-1", "c001-0", "c001-1"]
    assert {name for name, reason in found.items() if reason == "second admission"} == {
        f"c{p:03d}-0" for p in range(2, 6)
    }
    assert "age below 22" not in found.values()


def test_the_first_of_those_still_in(write, rows) -> None:
    several = rows(2, date=lambda p, k: f"2020-01-0{1 + k}", ward=lambda p, k: ("surgery", "neonatal")[k])
    found = reasons(write(several), Rule("ward", column="ward", keep=("neonatal",)), Rule("later", first_by="date"))
    assert set(found.values()) == {"ward"}


def test_missing_share_counts_measured_columns(write, rows) -> None:
    several = rows(4, films=1, a=lambda p, k: "" if p == 0 else "1", b=lambda p, k: "" if p < 2 else "2")
    columns = (Column("a"), Column("b"), Column("r", formula="a / b"))
    rule = Rule("labs", input="labs", most_missing=0.5)
    assert reasons(write(several), rule, tables={"labs": columns}) == {"c000-0": "labs"}


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (Rule("r", column="ward", exclude=("Surgry",)), "did you mean 'surgery'"),
        (Rule("r", column="wrd", exclude=("x",)), "did you mean 'ward'"),
        (Rule("r", column="ward", low=1), "row 2, patient p000, column ward: 'surgery' is not a number"),
        (Rule("r", first_by="ward"), "'surgery' is not a date"),
        (Rule("r", column="ward", keep=("elsewhere",)), "no case is eligible: r 4"),
        (Rule("r", input="labs", most_missing=0.3), "unknown table 'labs'"),
    ],
)
def test_rules_that_cannot_be_applied(write, rows, rule: Rule, says: str) -> None:
    with pytest.raises(Refusal, match=says):
        reasons(write(rows(2, ward=lambda p, k: "surgery")), rule)


@pytest.mark.parametrize("parts", [{}, {"column": "age"}, {"low": 3}, {"input": "labs"}, {"most_missing": 0.3}])
def test_rules_that_rule_nothing(parts: dict[str, Any]) -> None:
    with pytest.raises(StudyError, match="the rule 'r'"):
        Rule("r", **parts)


def test_table_two(write, rows) -> None:
    several = rows(
        40,
        crp=lambda p, k: "" if p == 0 else str(p + 30 * (p % 2)),
        sex=lambda p, k: "fm"[p // 2 % 2],
        old=lambda p, k: "2",
    )
    cohort = Cohort.read(write(several))
    variables = [
        Column("crp", label="CRP", unit="mg/L"),
        Column("sex", kind="category", levels=("f", "m")),
        Column("old"),
        Column("twice", formula="crp * old"),
    ]
    summary = cohort_summary(cohort, labels_for(cohort, column="outcome", positive="ill"), variables=variables)
    lines = {line["variable"]: line for line in summary["tests"]}
    assert list(lines) == ["CRP (mg/L)", "sex", "old", "twice"]
    assert lines["CRP (mg/L)"]["n"] == 39
    assert lines["CRP (mg/L)"]["p"] < 0.001 < 0.5 < lines["sex"]["p"]
    tested = [line for line in lines.values() if line["variable"] != "old"]
    assert all(line["p_adjusted"] >= line["p"] for line in tested)
    assert lines["old"]["p"] is lines["old"]["p_adjusted"] is None
    assert lines["CRP (mg/L)"]["effect"]["low"] > 0
    table = {(row["variable"], row["level"]): row["well"] for row in summary["table"]}
    assert table["CRP (mg/L)", "missing"] == "1"
    assert ("twice", "median [IQR]") in table


def test_both_tables_of_three_classes(write, rows) -> None:
    classes = ("nodes", "lymphoma", "metastasis")
    several = rows(
        45,
        outcome=lambda p, k: classes[p % 3],
        crp=lambda p, k: str(p % 3 + 0.1 * p),
        sex=lambda p, k: "fm"[p // 3 % 2],
    )
    cohort = Cohort.read(write(several))
    labels = Labels("outcome", classes, "metastasis", cohort.labels("outcome"))
    variables = [Column("crp"), Column("sex", kind="category", levels=("f", "m"))]
    summary = cohort_summary(cohort, labels, variables=variables)
    crp, sex = summary["tests"]
    assert crp["test"].startswith("Kruskal-Wallis")
    assert crp["p"] < 0.2 < 0.5 < sex["p"]
    assert (crp["effect_name"], crp["n"], sex["n"]) == ("epsilon squared", 45, 45)
    assert {line[name] for line in summary["table"] if line["variable"] == "patients" for name in classes} == {"15"}
    assert summary["by_class"]["lymphoma"]["patients"] == 15
