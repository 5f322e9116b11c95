"""The flow chart adds up, and the table counts what is missing."""

from __future__ import annotations

from tenfold.cohort.eligibility import cohort_summary, flow_chart
from tenfold.cohort.manifest import Cohort, labels_for


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
