"""Outcomes of every kind: what is yes, what is unknown, and what cannot be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tenfold.cohort.audit import OUTCOME_UNKNOWN, Audit, audit, joined
from tenfold.cohort.manifest import Cohort
from tenfold.cohort.outcomes import Outcome, Target, outcome_for
from tenfold.errors import CohortError

from .conftest import Write


def cohort_of(write: Write, **columns: Sequence[str]) -> Cohort:
    n = len(next(iter(columns.values())))
    rows = [{"case": f"c{i}", "patient": f"p{i}", **{k: v[i] for k, v in columns.items()}} for i in range(n)]
    return Cohort.read(write(rows))


def told(write: Write, cells: Sequence[str], **target: Any) -> Outcome:
    return outcome_for(cohort_of(write, y=cells), Target("y", **target), unlabelled="allow")


def test_two_classes_are_found_and_the_positive_one_stands_last(write: Write) -> None:
    found = told(write, ["well", "ill", "", "ill"], positive="ill")
    assert found.labels.classes == found.levels == ("well", "ill")
    assert found.labels.values.tolist() == ["well", "ill", "", "ill"]
    assert found.labels.known.tolist() == [True, True, False, True]
    assert found.values.tolist() == pytest.approx([0, 1, np.nan, 1], nan_ok=True)
    turned = told(write, ["well", "ill"], classes=("ill", "well"), positive="ill")
    assert (turned.labels.classes, turned.values.tolist()) == (("well", "ill"), [0.0, 1.0])


def test_three_classes_stay_three_and_the_positive_one_stands_last(write: Write) -> None:
    cells = ["viral", "bacterial", "none", "", "viral"]
    found = told(write, cells, classes=("none", "viral", "bacterial"), positive="viral")
    assert (found.labels.classes, found.labels.positive) == (("none", "bacterial", "viral"), "viral")
    assert found.labels.values.tolist() == cells
    assert found.levels == found.labels.classes
    assert found.values.tolist() == pytest.approx([2, 1, 0, np.nan, 2], nan_ok=True)
    assert told(write, cells, classes=("none", "viral", "bacterial")).labels.positive == "bacterial"


def test_levels_count_as_yes_from_the_positive_one_on(write: Write) -> None:
    cells = ["mild", "severe", "moderate", "", "none"]
    levels = ("none", "mild", "moderate", "severe")
    found = told(write, cells, kind="ordinal", classes=levels, positive="moderate")
    no, yes = "below moderate", "moderate or above"
    assert (found.labels.classes, found.labels.positive) == ((no, yes), yes)
    assert found.labels.values.tolist() == [no, yes, yes, "", no]
    assert found.values.tolist() == pytest.approx([1, 3, 2, np.nan, 0], nan_ok=True)
    assert found.cut == 2
    two = told(write, ["low", "high"], kind="ordinal", classes=("low", "high"), positive="high")
    assert (two.labels.classes, two.cut) == (("low", "high"), 1)


@pytest.mark.parametrize(
    ("cut", "names", "yes"),
    [
        ({"below": 85.0}, ("not below 85", "below 85"), [True, False, False, True]),
        ({"above": 85.0}, ("not above 85", "above 85"), [False, False, True, False]),
        ({"below": 85.0, "classes": ("fair", "low")}, ("fair", "low"), [True, False, False, True]),
    ],
)
def test_a_score_is_cut_and_at_the_cut_itself_it_is_no(
    write: Write, cut: dict[str, Any], names: tuple[str, str], yes: list[bool]
) -> None:
    found = told(write, ["84.999", "85", "85.5", "-1e1", ""], kind="score", **cut)
    assert found.labels.classes == names
    assert found.labels.values.tolist() == [*(names[int(one)] for one in yes), ""]
    assert found.values.tolist() == pytest.approx([84.999, 85, 85.5, -10, np.nan], nan_ok=True)
    assert found.levels == ()


SCORE: dict[str, Any] = {"kind": "score", "below": 85.0}
LEVELS: dict[str, Any] = {"kind": "ordinal", "classes": ("mild", "severe"), "positive": "severe"}
THREE: dict[str, Any] = {"classes": ("a", "b", "c")}


@pytest.mark.parametrize(
    ("cells", "target", "words"),
    [
        (["80", "low", "90"], SCORE, "row 3, patient p1, column y: 'low' is no number"),
        (["80", "85,5", "90"], SCORE, "'85,5' is no number"),
        (["80", "8_5", "90"], SCORE, "'8_5' is no number"),
        (["80", "nan", "90"], SCORE, "'nan' is no number"),
        (["80", "1e999", "90"], SCORE, "'1e999' is no number"),
        (["80", "70"], SCORE, "no case has the class 'not below 85'"),
        (["90", "85"], SCORE, "no case has the class 'below 85'"),
        (["", ""], SCORE, "no outcome at all"),
        (["mild", "server", "severe"], LEVELS, "row 3, patient p1, column y: 'server' is not a class"),
        (["mild", "mild"], LEVELS, "no case has the class 'severe'"),
        (["", ""], LEVELS, "no outcome at all"),
        (["a", "b"], THREE, "no case has the class 'c'"),
        (["a", "d", "c"], THREE, "'d' is not a class"),
        (["a", "b", "c"], {}, "there are 3 classes"),
        (["a", "a"], {}, "there are 1 classes"),
        (["", ""], {}, "no outcome at all"),
    ],
)
def test_what_is_no_outcome_is_refused_by_its_row(
    write: Write, cells: list[str], target: dict[str, Any], words: str
) -> None:
    with pytest.raises(CohortError) as refused:
        told(write, cells, **target)
    assert words in str(refused.value)


@pytest.mark.parametrize("target", [SCORE, LEVELS | {"classes": ("80", "90"), "positive": "90"}, {}])
def test_an_unknown_outcome_is_refused_unless_it_may_be(write: Write, target: dict[str, Any]) -> None:
    cohort = cohort_of(write, y=["80", "", "90", ""])
    with pytest.raises(CohortError, match=r"row 3, patient p1.*missing here and in 1 more rows"):
        outcome_for(cohort, Target("y", **target))
    assert outcome_for(cohort, Target("y", **target), unlabelled="allow").labels.known.tolist() == [True, False] * 2


def test_of_other_patients_a_side_may_be_absent(write: Write) -> None:
    for cells, target, classes in ((["70", "80"], SCORE, 2), (["mild", "mild"], LEVELS, 2), (["a", "b"], THREE, 3)):
        labels = outcome_for(cohort_of(write, y=cells), Target("y", **target), absent="allow").labels
        assert len(labels.classes) == classes
        assert set(labels.values.tolist()) < set(labels.classes)


# --- audits joined ---------------------------------------------------------------------------------------------------

TARGETS: dict[str, dict[str, Any]] = {
    "iq": {"target_column": "score", "name": "iq", "kind": "score", "below": 85.0},
    "outcome": {"target_column": "outcome"},
}


def audited(cohort: Cohort, changes: Mapping[str, Any] | None = None) -> Audit:
    columns = [target["target_column"] for target in TARGETS.values()]
    return joined(
        [
            audit(
                cohort,
                **target,
                outcomes=[c for c in columns if c != target["target_column"]],
                unlabelled="allow",
                folds=2,
                **(changes or {}),
            )
            for target in TARGETS.values()
        ],
        list(TARGETS),
    )


def _scored(rows: Any, unknown: Mapping[str, Sequence[int]], films: int = 1) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = rows(films=films, score=lambda p, k: str(70 + p))
    for column, places in unknown.items():
        for i in places:
            found[i][column] = ""
    return found


def test_a_case_stays_where_one_outcome_is_known_and_goes_where_none_is(write: Write, rows: Any) -> None:
    cohort = Cohort.read(write(_scored(rows, {"score": [1, 3, 5], "outcome": [2, 3]})))
    found = audited(cohort)
    assert not found.refusals, [f.message for f in found.refusals]
    assert dict(found.excluded) == {"c003-0": OUTCOME_UNKNOWN}
    assert list(found.labels) == ["iq", "outcome"]
    assert [int((~labels.known).sum()) for labels in found.labels.values()] == [3, 2]
    notes = [f.message for f in found.findings if f.check == "outcome"]
    assert len(notes) == 2
    assert notes[0].startswith("Target iq: 3 cases have no outcome 'iq'")
    assert notes[1].startswith("Target outcome: 2 cases have no outcome 'outcome'")


def test_a_case_that_one_audit_leaves_out_for_another_reason_goes(write: Write, rows: Any, tmp_path: Path) -> None:
    path = write(_scored(rows, {"score": [1]}))
    (tmp_path / "films/001_0.png").write_bytes(b"no picture")
    found = audited(Cohort.read(path), {"unreadable": "exclude"})
    assert list(found.excluded) == ["c001-0"]
    assert found.excluded["c001-0"] != OUTCOME_UNKNOWN


def test_what_all_find_is_said_once_and_an_outcome_that_cannot_be_had_stops_the_run(write: Write, rows: Any) -> None:
    cells = _scored(rows, {})
    cells[4]["outcome"] = "mild"
    cells[6]["film"] = "films/gone.png"
    path = write(cells)
    (path.parent / "films/gone.png").unlink()
    found = audited(Cohort.read(path))
    refused = [f.message for f in found.refusals]
    assert sum("gone.png" in message for message in refused) == 1
    assert sum(message.startswith("Target outcome: ") and "3 classes" in message for message in refused) == 1
    assert list(found.labels) == ["iq"]
    assert all(f.severity == "refusal" for f in found.findings[: len(refused)])


@pytest.mark.parametrize("unknown", [{"score": [2]}, {"score": [2], "outcome": [3]}])
def test_a_picture_of_two_patients_is_found_whatever_outcome_is_unknown(
    write: Write, rows: Any, unknown: dict[str, list[int]]
) -> None:
    cells = _scored(rows, unknown)
    cells[3]["film"] = cells[2]["film"]
    cohort = Cohort.read(write(cells))
    refused = [f for f in audited(cohort).refusals if f.check == "duplicate_image"]
    assert {patient for f in refused for patient in f.patients} == {"p002", "p003"}
    grouped = audited(cohort, {"duplicates": "group"})
    assert grouped.groups["p002"] == grouped.groups["p003"]


def test_an_outcome_of_another_target_may_restate_this_one(write: Write, rows: Any) -> None:
    cells = _scored(rows, {})
    for row in cells:
        row["score"] = "70" if row["outcome"] == "ill" else "100"
    cohort = Cohort.read(write(cells))
    alone = audit(cohort, target_column="outcome", folds=2)
    assert "score" in {f.column for f in alone.findings if f.severity != "note"}
    assert "score" not in {f.column for f in audited(cohort).findings if f.severity != "note"}
