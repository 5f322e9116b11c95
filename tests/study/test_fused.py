"""One small run of films beside laboratory values, looked at from all sides."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.study.conftest import small_fused_study
from tests.study_files import Rows, read_json, read_rows, write_rows

import tenfold
from tenfold.bundle import Predictor, load
from tenfold.cohort.manifest import Cohort
from tenfold.cohort.split import read_splits
from tenfold.errors import CohortError, EncoderError, Refusal, StudyError, TrainingError
from tenfold.study import Run, Study, evaluate_bundle
from tenfold.types import PredictionTable

PROPOSED = "film + labs"
ARMS = {
    PROPOSED: ("network", ["film", "labs"]),
    "tree": ("classical", ["labs"]),
    "late": ("late", ["film", "labs"]),
    "film only": ("network", ["film"]),
    "labs only": ("network", ["labs"]),
}
ALTERED = [f"{PROPOSED}, {how}" for how in ("film permuted", "labs permuted", "without film", "without labs")]


# --- the run ---------------------------------------------------------------------------------------------------------


def test_every_promised_file_is_there(fused: Run) -> None:
    promised = ["subgroups.json", "conformal.json", "sample_size.json", "report.html", "bundle/bundle.json"]
    promised += [f"external/elsewhere/{n}" for n in ("run.json", "evaluation.json", "readers.json", "report.html")]
    for name in promised:
        assert (fused.folder / name).is_file(), name
    assert not (fused.folder / ".work").exists()
    pages = list((fused.folder / "patients").glob("*.html"))
    assert len(pages) == len(read_json(fused, "explanations.json")["cases"]) == 2


def test_the_flow_chart_counts_who_is_not_eligible_and_why(fused: Run, fused_study: Study) -> None:
    steps = [(s["step"], s["cases"], s["reason"]) for s in read_json(fused, "cohort.json")["flow"]]
    assert steps == [
        ("in the cohort file", 63, ""),
        ("excluded", 1, "second admission"),
        ("excluded", 1, "another disease"),
        ("excluded", 1, "mostly not measured"),
        ("analysed", 60, ""),
        ("hold-out", 12, ""),
        ("cross-validation", 48, ""),
    ]
    cohort = read_rows(fused_study.folder / "cohort.csv")
    another = {r["case"] for r in cohort if r["condition"] != "none"}
    second = {r["case"] for r in cohort if r["admission"] == "2"}
    analysed = {r["case"] for r in read_rows(fused.folder / "splits.csv")}
    assert len(analysed) == 60
    assert another
    assert second
    assert not analysed & (another | second)


def test_inputs_that_are_joined_never_appear_without_each_alone(fused: Run) -> None:
    arms = read_json(fused, "run.json")["arms"]
    assert {name: (arm["kind"], arm["inputs"]) for name, arm in arms.items() if arm["kind"] != "altered"} == ARMS
    assert {name for name, arm in arms.items() if arm["kind"] == "altered"} == set(ALTERED)
    assert all(arm["status"] == "done" for arm in arms.values())


def test_every_arm_answers_every_case_and_is_evaluated(fused: Run) -> None:
    table = fused.predictions["diagnosis"]
    for split, arms, n in (("out_of_fold", [*ARMS, *ALTERED], 48), ("holdout", list(ARMS), 12)):
        part = table.select(split=split)
        assert set(part.arms) == set(arms)
        for arm in arms:
            assert len(set(part.select(arm=arm).case.tolist())) == len(part.select(arm=arm)) == n
    assert set(fused.evaluation["diagnosis"]) == {*ARMS, *ALTERED}
    assert set(read_json(fused, "evaluation_holdout.json")["diagnosis"]) == set(ARMS)
    compared = {c["arm"] for c in read_json(fused, "comparisons.json")["diagnosis"]}
    assert compared == {*ARMS, *ALTERED} - {PROPOSED}


def test_altered_inputs_change_answers_but_no_decision(fused: Run) -> None:
    points = read_rows(fused.folder / "operating_points.csv")
    chosen = {arm: [p["threshold"] for p in points if p["arm"] == arm] for arm in (PROPOSED, *ALTERED)}
    whole = fused.predictions["diagnosis"].select(arm=PROPOSED, split="out_of_fold")
    for arm in ALTERED:
        assert chosen[arm] == chosen[PROPOSED]
        part = fused.predictions["diagnosis"].select(arm=arm)
        assert part.case.tolist() == whole.case.tolist()
        assert np.abs(part.probabilities - whole.probabilities).max() > 1e-6


def test_a_late_arm_stacks_what_its_parts_said(fused: Run) -> None:
    arm = read_json(fused, "run.json")["arms"]["late"]
    assert arm["network"] == "film + labs + tree"
    assert [len(fold["weights"]) for fold in arm["chosen"]] == [2, 2]


def test_subgroups_conformal_sets_and_sample_size_hold_what_is_promised(fused: Run) -> None:
    assert set(read_json(fused, "subgroups.json")) == {"diagnosis"}
    subgroups = read_json(fused, "subgroups.json")["diagnosis"]
    assert set(subgroups) == {"sex", "gestational_age"}
    for found in subgroups.values():
        assert sum(level["patients"] for level in found["levels"]) == 48
        assert len(found["levels"]) == 2
        for level in found["levels"]:
            small = min(level["positives"], level["patients"] - level["positives"]) < 10
            assert (level["auc"]["value"] is None) is small
    conformal = read_json(fused, "conformal.json")["diagnosis"]
    assert conformal["alpha"] == 0.1
    assert sum(c["n"] for c in conformal["classes"].values()) == 48
    assert sum(conformal["sizes"].values()) == pytest.approx(1)
    size = read_json(fused, "sample_size.json")["diagnosis"]
    assert size["patients"] == {"positives": 30, "negatives": 30}
    assert size["riley"]["parameters"] == 27
    assert size["riley"]["n"] > 60


def test_what_is_opened_late_is_recorded(fused: Run) -> None:
    opened = read_json(fused, "run.json")["opened"]
    assert [(o["what"], o["cases"]) for o in opened] == [("holdout", 12), ("elsewhere", 16)]
    assert opened[0]["when"] <= opened[1]["when"]


def test_the_same_seed_gives_the_same_bytes_and_nothing_is_opened_before_its_time(
    fused: Run, fused_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None
) -> None:
    from tenfold.study import study as order

    opened = []

    def watched(what: str, name: str) -> None:
        before = getattr(order, name)

        def first(*arguments: Any, **named: Any) -> Any:
            decided = (tmp_path / "again" / "operating_points.csv").read_bytes()
            opened.append((what, decided == (fused.folder / "operating_points.csv").read_bytes()))
            return before(*arguments, **named)

        monkeypatch.setattr(order, name, first)

    watched("holdout", "predict_holdout")
    watched("external", "evaluate_bundle")
    again = fused_study.run(out=tmp_path / "again", threads=1)
    assert opened == [("holdout", True)] * len(ARMS) + [("external", True)]
    for name in (
        "predictions/diagnosis.csv",
        "evaluation.json",
        "evaluation_holdout.json",
        "subgroups.json",
        "conformal.json",
        "explanations.json",
        "external/elsewhere/predictions/diagnosis.csv",
        "external/elsewhere/readers.json",
    ):
        assert (again.folder / name).read_bytes() == (fused.folder / name).read_bytes(), name


def test_no_patient_is_on_two_sides_of_a_split(fused: Run) -> None:
    holdout, splits = read_splits(fused.folder / "splits.csv")
    patient = {r["case"]: r["patient"] for r in read_rows(fused.folder / "splits.csv")}
    for split in splits:
        parts = [{patient[c] for c in part} for part in (split.train, split.inner, split.test, holdout)]
        assert sum(map(len, parts)) == len(set.union(*parts))


# --- explanations ----------------------------------------------------------------------------------------------------


def test_what_the_inputs_add_is_the_log_odds_of_the_answer(fused: Run) -> None:
    content = read_json(fused, "explanations.json")
    for case in content["cases"]:
        said = math.log(case["probability"] / (1 - case["probability"]))
        assert case["base"] + sum(case["modalities"].values()) == pytest.approx(said, abs=1e-3)
    shares = content["modalities"]["shares"]
    assert set(shares) == {"film", "labs"}
    assert sum(s["value"] for s in shares.values()) == pytest.approx(1)
    assert all(s["n"] == 48 for s in shares.values())


def test_a_patients_values_stand_as_in_the_cohort_file(fused: Run, fused_study: Study) -> None:
    cohort = {r["case"]: r for r in read_rows(fused_study.folder / "cohort.csv")}
    described = {r["column"]: r for r in read_rows(fused_study.folder / "columns.csv")}
    for case in read_json(fused, "explanations.json")["cases"]:
        assert [lab["column"] for lab in case["labs"]] == list(described)
        for lab in case["labs"]:
            cell = cohort[case["case"]][lab["column"]]
            assert lab["observed"] is (lab["value"] is not None)
            assert lab["unit"] == described[lab["column"]]["unit"]
            if not described[lab["column"]]["formula"]:
                assert lab["value"] == (float(cell) if cell else None)
        assert any(lab["contribution"] for lab in case["labs"])


def test_importance_ranks_the_columns(fused: Run) -> None:
    importance = read_json(fused, "explanations.json")["importance"]["labs"]
    assert len(importance["features"]) == 27
    assert all(row["low"] <= row["mean"] <= row["high"] for row in importance["features"])


# --- the bundle ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def predictor(fused: Run) -> Predictor:
    return tenfold.load(fused.bundle)


def _given(study: Study, cases: list[str]) -> list[dict[str, Any]]:
    cohort = study.cohort().select(cases)
    table = cohort.table.to_dict("records")
    return [{"film": film, "labs": row} for film, row in zip(cohort.paths("film"), table, strict=True)]


def test_the_bundle_gives_the_runs_own_holdout_predictions(
    fused: Run, fused_study: Study, predictor: Predictor
) -> None:
    aside = fused.predictions["diagnosis"].select(arm=PROPOSED, split="holdout")
    answers = predictor.predict(_given(fused_study, aside.case.tolist()))
    got = np.array([a.probabilities["NEC"] for a in answers])
    assert np.abs(got - aside.probability("NEC")).max() < 1e-3
    assert not any(a.missing for a in answers)
    lowest = dict(zip(predictor.classes, predictor.conformal.lowest, strict=True))
    for answer in answers:
        assert answer.likely == tuple(c for c, p in answer.probabilities.items() if p >= lowest[c])


@pytest.mark.parametrize("lacking", ["film", "labs"])
def test_one_model_without_an_input_gives_the_altered_arms_predictions(
    fused: Run, fused_study: Study, lacking: str
) -> None:
    table = fused.predictions["diagnosis"].select(arm=f"{PROPOSED}, without {lacking}")
    table = table.where(table.fold == 1)
    given = [{**g, lacking: None} for g in _given(fused_study, table.case.tolist())]
    answers = load(fused.bundle, member="fold-0-1").predict(given)
    assert np.abs([a.probabilities["NEC"] for a in answers] - table.probability("NEC")).max() < 1e-3
    assert all(a.to_dict()["missing_inputs"] == [lacking] and a.likely is None for a in answers)


def test_the_bundle_says_what_it_is_worth_without_an_input(fused: Run, predictor: Predictor) -> None:
    for name in ("film", "labs"):
        assert predictor.facts["without"][name] == fused.evaluation["diagnosis"][f"{PROPOSED}, without {name}"]["auc"]
    assert predictor.conformal.alpha == 0.1
    assert len(predictor.columns["labs"]) == 27


def test_no_path_of_this_machine_and_no_patient_is_in_the_bundle(fused: Run, fused_study: Study) -> None:
    for path in fused.bundle.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert str(fused_study.folder).encode() not in content, path.name
            assert b"n3-00" not in content, path.name


# --- other patients --------------------------------------------------------------------------------------------------


def test_the_external_set_is_judged_by_the_frozen_decision(fused: Run, fused_study: Study) -> None:
    place = fused.folder / "external" / "elsewhere"
    record = json.loads((place / "run.json").read_text())
    assert record["kind"] == "external"
    assert record["bundle"]["digest"] == read_json(fused, "run.json")["hashes"]["bundle"]
    (point,) = read_rows(place / "operating_points.csv")
    (own,) = [
        p for p in read_rows(fused.folder / "operating_points.csv") if (p["arm"], p["repeat"]) == (PROPOSED, "-1")
    ]
    assert point["threshold"] == own["threshold"]
    table = PredictionTable.read(place / "predictions" / "diagnosis.csv")
    assert sorted(table.case.tolist()) == sorted(
        r["case"] for r in read_rows(fused_study.folder / "external/cohort.csv")
    )


def test_readers_stand_beside_the_machine_on_the_external_set(fused: Run) -> None:
    study = read_json(fused, "external/elsewhere/readers.json")
    assert (study["split"], study["arm"], study["positive"]) == ("external", PROPOSED, "NEC")
    assert study["cases"]["complete"] == 16
    assert [r["reader"] for r in study["readers"]] == ["reader 1", "reader 2"]
    machine = read_json(fused, "external/elsewhere/evaluation.json")["diagnosis"][PROPOSED]["auc"]["value"]
    assert study["machine"]["auc"]["value"] == pytest.approx(machine)
    assert not (fused.folder / "readers.json").exists()


def _elsewhere(study: Study, to: Path) -> Path:
    return Path(shutil.copytree(study.folder / "external", to))


def _in_decilitres(folder: Path, heading: str) -> None:
    """Write CRP in mg/dL: as the column dictionary beside the cohort says, or as the heading does."""
    rows = read_rows(folder / "cohort.csv")
    for row in rows:
        value = row.pop("crp")
        row[heading] = repr(float(value) / 10) if value else ""
    write_rows(folder / "cohort.csv", rows)
    columns = read_rows(folder / "columns.csv")
    if heading == "crp":
        columns[0] |= {"unit": "mg/dL", "high": "50", "normal_high": "0.8"}
        write_rows(folder / "columns.csv", columns)
    else:
        (folder / "columns.csv").unlink()


@pytest.mark.parametrize("heading", ["crp", "crp [mg/dL]"])
def test_another_hospitals_unit_is_converted(
    fused: Run, fused_study: Study, tmp_path: Path, undrawn: None, heading: str
) -> None:
    folder = _elsewhere(fused_study, tmp_path / "other")
    _in_decilitres(folder, heading)
    done = evaluate_bundle(fused.bundle, Cohort.read(folder), out=tmp_path / "out", bootstraps=100, threads=1)
    before = PredictionTable.read(fused.folder / "external" / "elsewhere" / "predictions" / "diagnosis.csv")
    assert np.abs(done.predictions["diagnosis"].probabilities - before.probabilities).max() < 1e-6


def _one_row(folder: Path, changes: dict[str, str]) -> None:
    """Change cells of the second case, in row 3."""
    rows = read_rows(folder / "cohort.csv")
    rows[1] |= changes
    write_rows(folder / "cohort.csv", rows)


@pytest.mark.parametrize(
    ("cell", "words"),
    [("12 mmol/L", "row 3, patient x3-0002"), ("high", "row 3, patient x3-0002"), (None, "no column")],
)
def test_a_cell_of_another_hospital_that_cannot_be_read_is_refused_by_its_row(
    fused: Run, fused_study: Study, tmp_path: Path, undrawn: None, cell: str | None, words: str
) -> None:
    folder = _elsewhere(fused_study, tmp_path / "other")
    if cell is None:
        rows = read_rows(folder / "cohort.csv")
        write_rows(folder / "cohort.csv", [{k: v for k, v in row.items() if k != "crp"} for row in rows])
    else:
        _one_row(folder, {"crp": cell})
    with pytest.raises(Refusal) as refused:
        evaluate_bundle(fused.bundle, Cohort.read(folder), out=tmp_path / "out", bootstraps=100, threads=1)
    assert words in str(refused.value)
    assert "crp" in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_an_external_case_that_lacks_an_input_is_answered_and_one_with_nothing_is_left_out(
    fused: Run, fused_study: Study, tmp_path: Path, undrawn: None
) -> None:
    folder = _elsewhere(fused_study, tmp_path / "other")
    rows = read_rows(folder / "cohort.csv")
    rows[0]["film"] = rows[1]["film"] = ""
    rows[1] |= dict.fromkeys((r["column"] for r in read_rows(folder / "columns.csv")), "")
    write_rows(folder / "cohort.csv", rows)
    done = evaluate_bundle(fused.bundle, Cohort.read(folder), out=tmp_path / "out", bootstraps=100, threads=1)
    table = done.predictions["diagnosis"]
    assert set(table.case.tolist()) == {r["case"] for r in rows} - {rows[1]["case"]}
    assert any(rows[1]["case"] in f["cases"] for f in read_rows(done.folder / "findings.csv"))
    (alone,) = load(fused.bundle).predict([{"labs": rows[0]}])
    assert table.probability("NEC")[0] == pytest.approx(alone.probabilities["NEC"], abs=1e-5)


def test_films_without_a_table_are_answered_where_every_cell_is_empty(
    fused: Run, fused_study: Study, tmp_path: Path, undrawn: None
) -> None:
    folder = _elsewhere(fused_study, tmp_path / "other")
    rows = read_rows(folder / "cohort.csv")
    for name in (r["column"] for r in read_rows(folder / "columns.csv")):
        for row in rows:
            row[name] = ""
    write_rows(folder / "cohort.csv", rows)
    done = evaluate_bundle(fused.bundle, Cohort.read(folder), out=tmp_path / "out", bootstraps=100, threads=1)
    films = load(fused.bundle).predict(Cohort.read(folder).files("film"))
    assert done.predictions["diagnosis"].probability("NEC") == pytest.approx(
        [f.probabilities["NEC"] for f in films], abs=1e-5
    )


# --- studies of other shapes -----------------------------------------------------------------------------------------

SHORT: dict[str, Any] = {
    "eligibility": [],
    "stages": [{"name": "newborns", "epochs": 1}],
    "arms": [{"name": PROPOSED}],
    "external": [],
    "validation": {"holdout": 0.0, "subgroups": []},
    "explain": {"cases": 2, "sanity_cases": 0},
}


@pytest.fixture
def newborns(tmp_path: Path) -> Path:
    """Forty newborns with films and values, all of them measured."""
    small_fused_study(tmp_path / "films", patients=40, source=0, external=0, ineligible=0, missing="none")
    return tmp_path / "films"


def _short(folder: Path, **changes: Any) -> Study:
    return Study.read(folder, {**SHORT, **changes})


def _empty(folder: Path, cells: dict[str, list[int]]) -> Rows:
    """Empty some cells of the cohort file, by column, in some rows from 0."""
    rows = read_rows(folder / "cohort.csv")
    for column, places in cells.items():
        for i in places:
            rows[i][column] = ""
    write_rows(folder / "cohort.csv", rows)
    return rows


def _labs(folder: Path) -> list[str]:
    return [r["column"] for r in read_rows(folder / "columns.csv")]


def test_cases_that_lack_films_or_values_are_learned_from_and_answered(
    newborns: Path, tmp_path: Path, undrawn: None
) -> None:
    unfilmed, unmeasured = list(range(0, 40, 4)), list(range(1, 40, 5))
    unmeasured = [i for i in unmeasured if i not in unfilmed]
    rows = _empty(newborns, {"film": unfilmed, **dict.fromkeys(_labs(newborns), unmeasured)})
    arms = [{"name": PROPOSED}, {"name": "film only", "only": ["film"]}, {"name": "labs only", "only": ["labs"]}]
    arms += [{"name": "tree", "model": "decision_tree"}, {"name": "late", "combine": ["film only", "tree"]}]
    study = _short(
        newborns, arms=arms, augment={"test_time": 2}, validation={"holdout": 0.2, "inner": 0.4, "subgroups": []}
    )
    assert not study.check().refusals
    run = study.run(out=tmp_path / "run", threads=1)
    everybody = {r["case"] for r in rows}
    without = {"film": {rows[i]["case"] for i in unfilmed}, "labs": {rows[i]["case"] for i in unmeasured}}
    expected = {PROPOSED: everybody, "film only": everybody - without["film"], "late": everybody}
    expected |= dict.fromkeys(["labs only", "tree"], everybody - without["labs"])
    for arm, cases in expected.items():
        table = run.predictions["diagnosis"].select(arm=arm)
        assert sorted(table.case.tolist()) == sorted(cases), arm
        assert np.isfinite(table.probabilities).all()
    inside = set(run.predictions["diagnosis"].select(split="out_of_fold").case.tolist())
    for name, lacking in without.items():
        permuted = run.predictions["diagnosis"].select(arm=f"{PROPOSED}, {name} permuted")
        assert set(permuted.case.tolist()) == inside - lacking
        other = without["labs" if name == "film" else "film"]
        alone = run.predictions["diagnosis"].select(arm=f"{PROPOSED}, without {name}")
        assert set(alone.case.tolist()) == inside - other
        # who lacks the input anyway is told nothing else
        both = (
            run.predictions["diagnosis"]
            .select(arm=PROPOSED)
            .where(np.isin(run.predictions["diagnosis"].select(arm=PROPOSED).case, list(lacking & inside)))
        )
        same = alone.where(np.isin(alone.case, list(lacking)))
        assert same.probability("NEC") == pytest.approx(both.probability("NEC"), abs=2e-3)
    aside = run.predictions["diagnosis"].select(arm=PROPOSED, split="holdout")
    cohort = study.cohort().select(aside.case.tolist())
    given = [{"film": f, "labs": r} for f, r in zip(cohort.paths("film"), cohort.table.to_dict("records"), strict=True)]
    answers = load(run.bundle).predict(given)
    assert [a.probabilities["NEC"] for a in answers] == pytest.approx(aside.probability("NEC"), abs=2e-3)
    for case, answer in zip(aside.case.tolist(), answers, strict=True):
        assert answer.missing == tuple(name for name in ("film", "labs") if case in without[name])


def test_screening_leaves_every_fold_its_own_columns_and_the_bundle_theirs(
    newborns: Path, tmp_path: Path, undrawn: None
) -> None:
    study = _short(
        newborns,
        inputs={"labs": {"kind": "table", "screen": 3, "imputation": "knn"}},
        arms=[{"name": PROPOSED, "inputs": {"labs": {"encoder": "table_conv1d", "options": {"width": 4}}}}],
        validation={"holdout": 0.2, "subgroups": []},
    )
    run = study.run(out=tmp_path / "run", threads=1)
    predictor = load(run.bundle)
    kept = [{c.name for c in tables["labs"].columns} for tables in predictor.tables]
    assert [len(names) for names in kept] == [3, 3]
    aside = run.predictions["diagnosis"].select(arm=PROPOSED, split="holdout")
    answers = predictor.predict(_given(study, aside.case.tolist()))
    assert [a.probabilities["NEC"] for a in answers] == pytest.approx(aside.probability("NEC"), abs=2e-3)
    for case in read_json(run, "explanations.json")["cases"]:
        moved = {lab["column"] for lab in case["labs"] if lab["contribution"]}
        assert moved <= kept[0] | kept[1]


def test_screening_is_blind_to_the_test_part(newborns: Path, tmp_path: Path, undrawn: None) -> None:
    study = _short(newborns, inputs={"labs": {"kind": "table", "screen": 3}})
    before = study.run(out=tmp_path / "before", threads=1)
    splits = read_splits(before.folder / "splits.csv")[1]
    rows = read_rows(newborns / "cohort.csv")
    for row in rows:
        if row["case"] in splits[0].test:
            row["sodium"] = "150" if row["diagnosis"] == "NEC" else "120"
    write_rows(newborns / "cohort.csv", rows)
    after = _short(newborns, inputs={"labs": {"kind": "table", "screen": 3}}).run(out=tmp_path / "after", threads=1)
    first = [load(run.bundle, member="fold-0-0").tables[0]["labs"] for run in (before, after)]
    assert first[0].kept == first[1].kept
    assert np.array_equal(first[0].mean, first[1].mean)
    other = load(after.bundle, member="fold-0-1").tables[0]["labs"]
    assert "sodium" in [c.name for c in other.columns]


def test_a_case_without_what_a_fold_screened_is_no_case_of_that_arm(
    newborns: Path, tmp_path: Path, undrawn: None
) -> None:
    study = _short(newborns, inputs={"labs": {"kind": "table", "screen": 2}})
    run = study.run(out=tmp_path / "before", threads=1)
    kept = [{c.name for c in tables["labs"].columns} for tables in load(run.bundle).tables]
    only = sorted(kept[0] - kept[1])[0]
    rows = _empty(newborns, {name: [5] for name in _labs(newborns) if name != only})
    run = study.run(out=tmp_path / "after", threads=1)
    record = read_json(run, "run.json")["arms"]
    assert record["labs only"]["status"] == "done", record["labs only"]["reason"]
    first, other = load(run.bundle).tables
    seen = {c.name for c in first["labs"].columns}, {c.name for c in other["labs"].columns}
    assert only in seen[0] - seen[1]
    assert rows[5]["case"] in run.predictions["diagnosis"].select(arm=PROPOSED).case
    assert rows[5]["case"] not in run.predictions["diagnosis"].select(arm="labs only").case


def test_a_study_of_a_table_alone(newborns: Path, tmp_path: Path) -> None:
    document = {"target": "diagnosis", "preset": "quick", "inputs": {"labs": {"kind": "table"}}}
    document |= {**SHORT, "arms": [{"name": "labs"}, {"name": "tree", "model": "decision_tree"}]}
    document["validation"] = {"folds": 2, "holdout": 0.2, "bootstraps": 100}
    study = Study.from_dict(document, newborns)
    assert not study.check().refusals
    run = study.run(out=tmp_path / "run", threads=1)
    assert set(read_json(run, "run.json")["arms"]) == {"labs", "tree"}
    content = read_json(run, "explanations.json")
    assert content["cases"][0]["labs"]
    assert "film" not in content["cases"][0]
    assert (run.folder / "report.html").is_file()
    predictor = load(run.bundle)
    aside = run.predictions["diagnosis"].select(arm="labs", split="holdout")
    given = [{"labs": g["labs"]} for g in _given(study, aside.case.tolist())]
    assert [a.probabilities["NEC"] for a in predictor.predict(given)] == pytest.approx(
        aside.probability("NEC"), abs=1e-4
    )


def test_two_tables_gated_twice_repeated(newborns: Path, tmp_path: Path, undrawn: None) -> None:
    """Three inputs, one of them categories; Platt scaling, whose intercept belongs into the explanations."""
    clinic = newborns / "clinic.csv"
    clinic.write_text("column,kind,levels\nsex,category,F|M\ngestational_age,number,\n")
    inputs = {"clinic": {"kind": "table", "dictionary": "clinic.csv"}, "labs": {"kind": "table", "imputation": "knn"}}
    validation = {"repeats": 2, "calibration": "platt", "holdout": 0.0, "subgroups": []}
    arms = [{"name": PROPOSED, "network": {"fusion": "gated"}}, {"name": "SVM", "model": "svm", "only": ["labs"]}]
    run = _short(newborns, inputs=inputs, validation=validation, arms=arms).run(out=tmp_path / "run", threads=1)
    record = read_json(run, "run.json")["arms"]
    assert {n for n, a in record.items() if a["kind"] == "network"} == {
        PROPOSED, "film only", "clinic only", "labs only"
    }  # fmt: skip
    assert all(a["status"] == "done" for a in record.values())
    assert record[PROPOSED]["fusion"] == "gated"
    assert len(run.predictions["diagnosis"].select(arm=PROPOSED)) == 80
    content = read_json(run, "explanations.json")
    assert set(content["importance"]) == {"clinic", "labs"}
    for case in content["cases"]:
        assert set(case["modalities"]) == {"film", "clinic", "labs"}
        assert len(case["labs"]) == 29
        said = math.log(case["probability"] / (1 - case["probability"]))
        assert case["base"] + sum(case["modalities"].values()) == pytest.approx(said, abs=5e-3)


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        (
            {"arms": [{"name": "a"}, {"name": "b", "model": "random_forst"}]},
            TrainingError,
            "did you mean 'random_forest'",
        ),
        ({"inputs": {"labs": {"kind": "table", "columns": ["crp", "wcb"]}}}, StudyError, "did you mean 'wbc'"),
        ({"inputs": {"labs": {"kind": "table", "dictionary": "column.csv"}}}, Refusal, "column.csv"),
        ({"inputs": {"labs": {"kind": "table", "encoder": "table_ml"}}}, EncoderError, "did you mean 'table_mlp'"),
        ({"inputs": {"labs": {"kind": "table", "encoder": "image_timm"}}}, EncoderError, "image"),
        ({"inputs": {"film": {"encoder": "table_mlp", "options": {}}}}, EncoderError, "table"),
        ({"inputs": {"labs": {"kind": "tabel"}}}, StudyError, "did you mean 'table'"),
        ({"eligibility": [{"name": "a", "column": "condtion", "exclude": ["x"]}]}, Refusal, "did you mean 'condition'"),
        ({"eligibility": [{"name": "a", "input": "lab", "most_missing": 0.3}]}, Refusal, "labs"),
        ({"validation": {"subgroups": ["sexx"]}}, StudyError, "did you mean 'sex'"),
        ({"validation": {"subgroups": [{"column": "sex", "cuts": [3]}]}}, StudyError, "no number"),
        ({"external": [{"name": "b", "cohort": "external/cohort.csv", "readers": "no.csv"}]}, StudyError, "no.csv"),
        ({"external": [{"name": "b", "cohort": "nowhere/cohort.csv"}]}, CohortError, "nowhere"),
    ],
)
def test_impossible_studies_are_refused_before_anything_is_written(
    fused_study: Study, tmp_path: Path, changes: dict[str, Any], error: type[Refusal], words: str
) -> None:
    with pytest.raises(error) as refused:
        Study.read(fused_study.folder, changes).run(out=tmp_path / "out", threads=1)
    assert words in str(refused.value)
    assert not (tmp_path / "out").exists()


def _with_outcome(folder: Path) -> None:
    columns = read_rows(folder / "columns.csv")
    write_rows(
        folder / "columns.csv",
        [
            *columns,
            {**dict.fromkeys(columns[0], ""), "column": "diagnosis", "kind": "category", "levels": "non-NEC|NEC"},
        ],
    )


def _with_a_word(folder: Path) -> None:
    rows = read_rows(folder / "cohort.csv")
    rows[4]["wbc"] = "high"
    write_rows(folder / "cohort.csv", rows)


def _with_a_telltale(folder: Path) -> None:
    rows = read_rows(folder / "cohort.csv")
    for row in rows:
        row["sodium"] = "150" if row["diagnosis"] == "NEC" else "130"
    write_rows(folder / "cohort.csv", rows)


def _with_a_shared_patient(folder: Path) -> None:
    rows = read_rows(folder / "external" / "cohort.csv")
    rows[2]["patient"] = read_rows(folder / "cohort.csv")[0]["patient"]
    write_rows(folder / "external" / "cohort.csv", rows)


def _with_a_shared_film(folder: Path) -> None:
    own, other = (read_rows(folder / place / "cohort.csv")[1]["film"] for place in (".", "external"))
    shutil.copyfile(folder / own, folder / "external" / other)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_with_outcome, "the outcome itself"),
        (_with_a_word, "row 6, patient n3-0005"),
        (_with_a_telltale, "sodium"),
        (_with_a_shared_patient, "shares patient n3-0001"),
        (_with_a_shared_film, "shares the picture"),
    ],
)
def test_a_cohort_that_would_deceive_is_refused_before_anything_is_fitted(
    tmp_path: Path, change: Callable[[Path], None], words: str
) -> None:
    study = small_fused_study(tmp_path / "films", patients=40, source=20, ineligible=0)
    change(study.parent)
    with pytest.raises(Refusal) as refused:
        Study.read(study).run(out=tmp_path / "out", threads=1)
    assert words in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_rules_count_in_their_order(newborns: Path, tmp_path: Path, undrawn: None) -> None:
    rows = _empty(newborns, {"gestational_age": [0, 1], **{name: [2, 3, 4] for name in _labs(newborns)[:12]}})
    weeks = {r["case"]: float(r["gestational_age"] or "nan") for r in rows}
    rules = [
        {"name": "too early", "column": "gestational_age", "low": 28},
        {"name": "elsewhere", "column": "site", "keep": ["hospital 1", "hospital 2"]},
        {"name": "not measured", "input": "labs", "most_missing": 0.3},
    ]
    run = _short(newborns, eligibility=rules).run(out=tmp_path / "run", threads=1)
    steps = {s["reason"]: s["cases"] for s in read_json(run, "cohort.json")["flow"] if s["step"] == "excluded"}
    early = {case for case, w in weeks.items() if w < 28}
    elsewhere = {r["case"] for r in rows if r["site"] == "hospital 3"} - early
    sparse = {rows[i]["case"] for i in (2, 3, 4)} - early - elsewhere
    # nothing speaks against a child whose age nobody wrote down
    assert steps == {"too early": len(early), "elsewhere": len(elsewhere), "not measured": len(sparse)}
    assert list(steps) == [rule["name"] for rule in rules]
    answered = set(run.predictions["diagnosis"].case.tolist())
    assert len(answered) == 40 - sum(steps.values())
    assert not (early | elsewhere | sparse) & answered


def test_an_owed_arm_takes_no_name_that_is_taken(newborns: Path, tmp_path: Path, undrawn: None) -> None:
    arms = [{"name": PROPOSED, "network": {"hidden": 4}}, {"name": "labs only", "model": "decision_tree"}]
    run = _short(newborns, arms=arms).run(out=tmp_path / "run", threads=1)
    kinds = {name: arm["kind"] for name, arm in read_json(run, "run.json")["arms"].items()}
    assert kinds["labs only"] == "classical"
    assert kinds["labs only, network"] == kinds["film only"] == "network"


def test_a_hospital_without_films_may_be_the_one_left_out(newborns: Path, tmp_path: Path) -> None:
    rows = read_rows(newborns / "cohort.csv")
    unfilmed = [i for i, row in enumerate(rows) if row["site"] == "hospital 1"]
    _empty(newborns, {"film": unfilmed})
    validation = {"by": "leave_one_site_out", "inner": 0.4, "holdout": 0.0, "subgroups": []}
    explain = {"cases": 2, "sanity_cases": 2, "masks": "sign_mask"}
    arms = [{"name": PROPOSED}, {"name": "late", "combine": [PROPOSED, "labs"]}]
    arms.insert(1, {"name": "labs", "model": "decision_tree"})
    run = _short(newborns, validation=validation, explain=explain, arms=arms).run(out=tmp_path / "run", threads=1)
    assert len(run.predictions["diagnosis"].select(arm=PROPOSED)) == 40
    assert len(run.predictions["diagnosis"].select(arm="late")) == 40
    assert len(run.predictions["diagnosis"].select(arm="film only")) == 40 - len(unfilmed)
    assert len(run.predictions["diagnosis"].select(arm=f"{PROPOSED}, without labs")) == 40 - len(unfilmed)
    assert (run.folder / "report.html").is_file()


def test_an_arm_with_nothing_to_decide_on_says_so(newborns: Path, tmp_path: Path, undrawn: None) -> None:
    changes = {"validation": {"holdout": 0.0, "inner": 0.3, "subgroups": []}}
    before = _short(newborns, **changes).run(out=tmp_path / "before", threads=1)
    inner = read_splits(before.folder / "splits.csv")[1][0].inner
    rows = read_rows(newborns / "cohort.csv")
    _empty(newborns, {"film": [i for i, row in enumerate(rows) if row["case"] in inner]})
    run = _short(newborns, **changes).run(out=tmp_path / "run", threads=1)
    record = read_json(run, "run.json")["arms"]["film only"]
    assert record["status"] == "failed"
    assert "no case of the inner part" in record["reason"]


def test_a_column_that_tells_nearly_alone_may_be_declared(newborns: Path) -> None:
    _with_a_telltale(newborns)
    assert _short(newborns).check().refusals
    declared = _short(newborns, inputs={"labs": {"kind": "table", "allowed": ["sodium"]}})
    assert not declared.check().refusals


def test_an_arm_that_combines_a_failed_one_fails_alone(
    newborns: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None
) -> None:
    def failing(*_: Any) -> None:
        raise TrainingError("no tree grew")

    monkeypatch.setattr("tenfold.study.study.fit_table_model", failing)
    arms = [{"name": PROPOSED}, {"name": "tree", "model": "decision_tree"}]
    arms += [{"name": "late", "combine": [PROPOSED, "tree"]}]
    run = _short(newborns, arms=arms).run(out=tmp_path / "run", threads=1)
    record = read_json(run, "run.json")["arms"]
    assert (record["tree"]["status"], record["tree"]["reason"]) == ("failed", "no tree grew")
    assert record["late"]["status"] == "failed"
    assert "'tree', which failed" in record["late"]["reason"]
    assert record["labs only"]["status"] == "done"


# --- slow ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_and_resumed_it_writes_the_same_bytes(fused: Run, fused_study: Study, tmp_path: Path) -> None:
    from tests.study.test_run import _start

    out = tmp_path / "killed"
    for moment in range(2):
        process = _start(fused_study.folder, out, *(["--resume"] if moment else []))
        deadline = time.monotonic() + 100
        while len(list(out.glob(".work/folds/*/*/done.json"))) < 2 * moment + 1 and time.monotonic() < deadline:
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not (out / "report.html").exists()
    last = _start(fused_study.folder, out, "--resume")
    assert last.wait(timeout=200) == 0, last.stderr.read().decode()
    for name in (
        "predictions/diagnosis.csv",
        "operating_points.csv",
        "conformal.json",
        "external/elsewhere/predictions/diagnosis.csv",
    ):
        assert (out / name).read_bytes() == (fused.folder / name).read_bytes(), name


@pytest.mark.slow
def test_permuted_labels_give_an_auc_whose_interval_holds_one_half(tmp_path: Path, undrawn: None) -> None:
    path = small_fused_study(tmp_path / "films", seed=8, patients=90, ineligible=0)
    rows = read_rows(path.parent / "cohort.csv")
    shuffled = np.random.default_rng(1).permutation([r["diagnosis"] for r in rows]).tolist()
    write_rows(path.parent / "cohort.csv", [{**r, "diagnosis": d} for r, d in zip(rows, shuffled, strict=True)])
    changes = {"eligibility": [], "inputs": {"labs": {"kind": "table", "screen": 5}}, "validation": {"folds": 5}}
    run = Study.read(path, changes).run(out=tmp_path / "out", threads=1)
    for arm in ARMS:
        auc = run.evaluation["diagnosis"][arm]["auc"]
        assert auc["low"] < 0.5 < auc["high"], arm
