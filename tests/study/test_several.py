"""One small study of three targets on a table, looked at from all sides: a score that is cut, levels, and classes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.study_files import Rows, read_json, read_rows, write_rows

from tenfold.bundle import load
from tenfold.cohort.manifest import Cohort
from tenfold.cohort.split import read_splits
from tenfold.config import ArmSection
from tenfold.errors import AuditError, BundleError, CohortError, StudyError, TrainingError
from tenfold.study import Run, Study, evaluate_bundle
from tenfold.study import network_arm as arms_of_networks
from tenfold.study import study as order
from tenfold.study.arms import FittedArm
from tenfold.study.bench import Bench
from tenfold.study.preparing import kept_together
from tenfold.types import PredictionTable

TARGETS = ("iq", "level", "disease")
VALUES = ("a", "b", "c", "d")
ARMS = ("proposed", "single", "tree", "late")
UNKNOWN = {"iq": [0, 5, 6], "level": [1, 6], "disease": [2, 6]}
"""Rows of the cohort whose outcome is unknown; of row 6, all."""
COLUMNS = {"iq": "score", "level": "level", "disease": "disease"}

STUDY = """
title = "Three targets"
preset = "quick"
seed = 7

[[target]]
column = "score"
name = "iq"
kind = "score"
below = 85.0

[[target]]
column = "level"
kind = "ordinal"
classes = ["mild", "moderate", "severe"]
positive = "moderate"

[[target]]
column = "disease"

[inputs.values]
kind = "table"
encoder = "table_dense"
options = { width = 8 }

[network]
shared = 6

[training]
epochs = 4
batch = 16
rate = 1e-2
encoder_rate = 1e-2

[[arms]]
name = "proposed"

[[arms]]
name = "single"
single = true

[[arms]]
name = "tree"
model = "decision_tree"

[[arms]]
name = "late"
combine = ["proposed", "tree"]

[validation]
folds = 2
inner = 0.3
holdout = 0.2
bootstraps = 100
family = "family"
subgroups = ["sex"]

[[external]]
name = "elsewhere"
cohort = "external/cohort.csv"

[explain]
cases = 2
"""


def _patients(prefix: str, n: int, seed: int) -> Rows:
    """Patients whose values tell three outcomes; two children of a family follow each other."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((n, len(VALUES)))
    score = 90 - 12 * values[:, 0] + 6 * rng.standard_normal(n)
    grade = values[:, 1] + 0.6 * rng.standard_normal(n)
    ill = values[:, 2] + 0.6 * rng.standard_normal(n) > 0
    return [
        {
            "case": f"{prefix}{i:03d}",
            "patient": f"{prefix}{i:03d}",
            "family": f"f{i // 2}" if i % 3 else "",
            "sex": "F" if i % 4 < 2 else "M",
            **{name: f"{v:.3f}" for name, v in zip(VALUES, values[i], strict=True)},
            "score": f"{score[i]:.0f}",
            "level": ("mild", "moderate", "severe")[int(grade[i] > -0.4) + int(grade[i] > 0.6)],
            "disease": "yes" if ill[i] else "no",
        }
        for i in range(n)
    ]


def small_several(folder: Path) -> Path:
    """Sixty patients, some outcomes and values of whom are unknown, and sixteen elsewhere."""
    rows = _patients("p", 60, 1)
    for target, places in UNKNOWN.items():
        for i in places:
            rows[i][COLUMNS[target]] = ""
    rows[9]["a"] = rows[11]["d"] = ""
    write_rows(folder / "cohort.csv", rows)
    write_rows(folder / "columns.csv", [{"column": name, "kind": "number"} for name in VALUES])
    elsewhere = _patients("x", 16, 2)
    elsewhere[3]["score"] = elsewhere[4]["level"] = ""
    write_rows(folder / "external" / "cohort.csv", elsewhere)
    (folder / "study.toml").write_text(STUDY)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_several(tmp_path_factory.mktemp("several") / "study")


@pytest.fixture(scope="module")
def study(folder: Path) -> Study:
    return Study.read(folder)


@pytest.fixture(scope="module")
def several(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Run:
    with pytest.MonkeyPatch.context() as patched:
        # one report is enough: it takes longer than all fits together
        patched.setattr("tenfold.study.external.write_report", lambda folder: folder)
        return study.run(out=tmp_path_factory.mktemp("several-runs") / "run", threads=1)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "study", ignore=shutil.ignore_patterns(".tenfold", "run")))


# --- the run ---------------------------------------------------------------------------------------------------------


def test_every_file_tells_of_every_target(several: Run) -> None:
    for name in ("evaluation", "evaluation_holdout", "comparisons", "folds", "curves", "conformal", "subgroups"):
        assert tuple(read_json(several, f"{name}.json")) == TARGETS, name
    assert tuple(read_json(several, "sample_size.json")) == TARGETS
    assert sorted(p.name for p in (several.folder / "predictions").iterdir()) == sorted(f"{t}.csv" for t in TARGETS)
    assert tuple(several.predictions) == tuple(several.evaluation) == TARGETS
    record = read_json(several, "run.json")
    assert [(t["name"], t["kind"], t["positive"]) for t in record["targets"]] == [
        ("iq", "score", "below 85"),
        ("level", "ordinal", "moderate or above"),
        ("disease", "class", "yes"),
    ]
    assert record["target"] == record["targets"][0]
    assert record["targets"][0]["below"] == 85.0
    assert [t["known"] for t in record["targets"]] == [57, 58, 58]
    assert (several.folder / "report.html").is_file()


def test_every_arm_of_every_target_has_its_decisions(several: Run) -> None:
    rows = read_rows(several.folder / "operating_points.csv")
    assert next(iter(rows[0])) == "target"
    found = {(r["target"], r["arm"], r["repeat"], r["fold"]) for r in rows}
    assert len(found) == len(rows)
    places = [("-1", "-1"), ("0", "0"), ("0", "1")]
    assert found == {(target, arm, *place) for target in TARGETS for arm in ARMS for place in places}
    for target in TARGETS:
        assert tuple(several.evaluation[target]) == ARMS
        assert {c["arm"] for c in read_json(several, "comparisons.json")[target]} == set(ARMS) - {"proposed"}


def test_each_target_is_told_of_whom_its_outcome_is_known_and_of_nobody_else(several: Run, study: Study) -> None:
    cohort = study.cohort()
    aside, _ = read_splits(several.folder / "splits.csv")
    for target in TARGETS:
        cells = dict(zip(cohort.case.tolist(), cohort.labels(COLUMNS[target]).tolist(), strict=True))
        table = several.predictions[target]
        for arm in ARMS:
            out = table.select(arm=arm, split="out_of_fold").case.tolist()
            held = table.select(arm=arm, split="holdout").case.tolist()
            assert sorted(out + held) == sorted(case for case, cell in cells.items() if cell), (target, arm)
            assert set(held) <= set(aside)
    scores = dict(zip(cohort.case.tolist(), cohort.labels("score").tolist(), strict=True))
    table = several.predictions["iq"]
    assert all((float(scores[c]) < 85) == (v == "below 85") for c, v in zip(table.case, table.label, strict=True))


def test_who_has_no_outcome_at_all_is_left_out(several: Run) -> None:
    steps = [(s["step"], s["cases"], s["reason"]) for s in read_json(several, "cohort.json")["flow"]]
    assert steps[:3] == [("in the cohort file", 60, ""), ("excluded", 1, "outcome unknown"), ("analysed", 59, "")]
    assert "p006" not in {r["case"] for r in read_rows(several.folder / "splits.csv")}
    described = read_json(several, "cohort.json")["outcomes"]
    assert [described[target]["n_cases"] for target in TARGETS] == [57, 58, 58]


def test_families_are_on_one_side(several: Run, study: Study) -> None:
    cohort = study.cohort()
    family = {c: f for c, f in zip(cohort.case.tolist(), cohort.labels("family").tolist(), strict=True) if f}
    aside, splits = read_splits(several.folder / "splits.csv")
    for split in splits:
        parts = [{family[c] for c in part if c in family} for part in (split.train, split.inner, split.test, aside)]
        assert sum(map(len, parts)) == len(set.union(*parts))


def test_families_and_groups_are_joined_to_one_whoever_is_named_first(study: Study) -> None:
    cohort = study.cohort()
    # p001 and p002 bear no family in common; p002 shares a picture with p005, a sibling of p004
    assert cohort.labels("family")[[1, 2, 4, 5]].tolist() == ["f0", "f1", "f2", "f2"]
    found = kept_together(cohort, {"p002": "p002", "p005": "p002"}, "family")
    assert found["p002"] == found["p004"] == found["p005"]
    assert found["p001"] != found["p002"]
    assert found["p000"] == "p000" != found["p003"]
    assert kept_together(cohort, {"p002": "p002", "p005": "p002"}, "") == {"p002": "p002", "p005": "p002"}


def test_the_network_that_tells_all_and_those_that_tell_one_are_different_arms(several: Run) -> None:
    record = read_json(several, "run.json")["arms"]
    assert {name: arm["kind"] for name, arm in record.items()} == {
        "proposed": "network", "single": "network", "tree": "classical", "late": "late"
    }  # fmt: skip
    assert all(arm["status"] == "done" for arm in record.values()), record
    assert (record["proposed"]["single"], record["single"]["single"]) == (False, True)
    assert record["single"]["parameters"] < record["proposed"]["parameters"]
    for target in TARGETS:
        both = [several.predictions[target].select(arm=arm).probabilities for arm in ("proposed", "single")]
        assert np.abs(both[0] - both[1]).max() > 1e-6


def test_a_score_is_also_followed_far_from_its_cut(several: Run) -> None:
    found = several.evaluation["iq"]["proposed"]["pearson_r"]
    assert set(found) == {"value", "low", "high", "method", "n"}
    assert -1 <= found["low"] <= found["value"] <= found["high"] <= 1
    assert "pearson_r" not in several.evaluation["level"]["proposed"]
    assert "pearson_r" not in several.evaluation["disease"]["proposed"]


def test_what_can_be_learned_is_learned(study: Study, tmp_path: Path, undrawn: None) -> None:
    rows = _patients("p", 160, 1)
    write_rows(tmp_path / "cohort.csv", [{**r, "level": ""} if i < 20 else r for i, r in enumerate(rows)])
    shutil.copy(study.folder / "columns.csv", tmp_path)
    (tmp_path / "study.toml").write_text(STUDY)
    changes: dict[str, Any] = {"training": {"epochs": 30}, "external": [], "validation": {"holdout": 0}}
    changes |= {"arms": [{"name": "proposed"}], "network": {"shared": 16}, "explain": {"cases": 0}}
    run = Study.read(tmp_path, changes).run(out=tmp_path / "run", threads=1)
    for target in TARGETS:
        assert run.evaluation[target]["proposed"]["auc"]["low"] > 0.65, target
    # a higher score is more, though yes is below the cut
    assert run.evaluation["iq"]["proposed"]["pearson_r"]["low"] > 0.5


def test_the_same_seed_gives_the_same_bytes(several: Run, study: Study, tmp_path: Path, undrawn: None) -> None:
    again = study.run(out=tmp_path / "again", threads=1)
    names = [f"predictions/{t}.csv" for t in TARGETS]
    for name in (*names, "operating_points.csv", "evaluation.json", "evaluation_holdout.json", "conformal.json"):
        assert (again.folder / name).read_bytes() == (several.folder / name).read_bytes(), name


# --- the bundle ------------------------------------------------------------------------------------------------------


def _given(folder: Path, cases: list[str]) -> list[dict[str, Any]]:
    rows = {r["case"]: r for r in read_rows(folder / "cohort.csv")}
    return [{"values": {name: rows[case][name] for name in VALUES}} for case in cases]


def test_the_bundle_gives_the_runs_own_holdout_predictions_of_every_target(several: Run, folder: Path) -> None:
    predictor = load(several.bundle)
    assert predictor.targets == TARGETS
    assert predictor.target == "iq"
    points = {
        r["target"]: r
        for r in read_rows(several.folder / "operating_points.csv")
        if (r["arm"], r["repeat"]) == ("proposed", "-1")
    }
    for target in TARGETS:
        own, aside = predictor.of(target), several.predictions[target].select(arm="proposed", split="holdout")
        answers = own.predict(_given(folder, aside.case.tolist()))
        assert [a.probabilities[own.positive] for a in answers] == pytest.approx(
            aside.probability(own.positive), abs=1e-5
        )
        assert own.classes == aside.classes
        assert own.operating_point.threshold == float(points[target]["threshold"])
        assert all(a.likely is not None for a in answers)
        assert own.outcome["column"] == COLUMNS[target]
    with pytest.raises(BundleError, match="did you mean 'level'"):
        predictor.of("levels")


def test_a_patient_whose_outcome_of_one_target_is_unknown_is_predicted_for_it_too(several: Run, folder: Path) -> None:
    predictor = load(several.bundle)
    for target in TARGETS:
        (answer,) = predictor.of(target).predict(_given(folder, ["p006"]))
        assert answer.decision in predictor.of(target).classes


# --- other patients --------------------------------------------------------------------------------------------------


def test_other_patients_are_evaluated_for_every_target(several: Run, folder: Path) -> None:
    place = several.folder / "external" / "elsewhere"
    evaluation = json.loads((place / "evaluation.json").read_text())
    assert tuple(evaluation) == TARGETS
    predictor, cohort = load(several.bundle), Cohort.read(folder / "external")
    for target, known in zip(TARGETS, (15, 15, 16), strict=True):
        assert evaluation[target]["proposed"]["auc"]["n"] == known
        table = PredictionTable.read(place / "predictions" / f"{target}.csv")
        assert table.case.tolist() == cohort.case.tolist()
        answers = predictor.of(target).predict(_given(folder / "external", cohort.case.tolist()))
        assert table.probabilities[:, 1] == pytest.approx(
            [a.probabilities[table.classes[1]] for a in answers], abs=1e-6
        )
    assert "pearson_r" in evaluation["iq"]["proposed"]
    record = json.loads((place / "run.json").read_text())
    assert [(t["name"], t["positive"], t["known"]) for t in record["targets"]] == [
        ("iq", "below 85", 15), ("level", "moderate or above", 15), ("disease", "yes", 16)
    ]  # fmt: skip
    assert {r["target"] for r in read_rows(place / "operating_points.csv")} == set(TARGETS)


def _elsewhere(folder: Path, to: Path, change: Mapping[str, str]) -> Cohort:
    """The other patients, some of their cells changed throughout."""
    write_rows(to / "cohort.csv", [{**r, **change} for r in read_rows(folder / "external" / "cohort.csv")])
    return Cohort.read(to)


def test_other_patients_of_one_side_have_no_auc_and_a_reason(
    several: Run, folder: Path, tmp_path: Path, undrawn: None
) -> None:
    cohort = _elsewhere(folder, tmp_path / "other", {"disease": "yes", "score": "70", "level": "severe"})
    done = evaluate_bundle(several.bundle, cohort, out=tmp_path / "out", bootstraps=100, threads=1)
    for target in TARGETS:
        found = done.evaluation[target]["proposed"]
        assert (found["auc"]["value"], found["sensitivity"]["n"]) == (None, 16)
        assert "one class" in found["auc"]["method"]
    assert done.evaluation["iq"]["proposed"]["pearson_r"]["value"] is None
    assert [t["positive"] for t in read_json(done, "run.json")["targets"]] == ["below 85", "moderate or above", "yes"]


def test_other_patients_without_one_of_the_outcomes_are_refused_by_its_name(
    several: Run, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(AuditError, match=r"Target iq:.*there is no outcome at all"):
        evaluate_bundle(several.bundle, _elsewhere(folder, tmp_path / "a", {"score": ""}), out=tmp_path / "out")
    rows = read_rows(folder / "external" / "cohort.csv")
    write_rows(tmp_path / "b" / "cohort.csv", [{k: v for k, v in r.items() if k != "level"} for r in rows])
    with pytest.raises(AuditError, match=r"Target level:.*no column 'level'"):
        evaluate_bundle(several.bundle, Cohort.read(tmp_path / "b"), out=tmp_path / "out")
    with pytest.raises(BundleError, match="a column for 3 targets"):
        evaluate_bundle(several.bundle, Cohort.read(folder / "external"), out=tmp_path / "out", column="score")
    assert not (tmp_path / "out").exists()


# --- together --------------------------------------------------------------------------------------------------------

SPAN: dict[str, Any] = {
    "target": [
        {"column": "score", "name": "iq", "kind": "score", "below": 85.0},
        {"column": "disease", "classes": ["yes", "no"], "positive": "yes"},
    ],
    "arms": [{"name": "proposed"}, {"name": "single", "single": True}],
    "external": [],
    "validation": {"folds": 3, "holdout": 0.0, "subgroups": []},
    "explain": {"cases": 0},
}


class _Killed(BaseException):
    """What no arm may catch."""


@pytest.mark.parametrize("after", [1, 4])
def test_folds_trained_together_give_the_same_bytes_after_a_kill(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None, after: int
) -> None:
    study = Study.read(folder, SPAN)
    whole = study.run(out=tmp_path / "whole", threads=1)
    record = read_json(whole, "run.json")["arms"]
    assert (record["proposed"]["together"], record["single"]["together"]) == (True, True)
    run_fold, done = arms_of_networks.run_fold, []

    def killed(*arguments: Any, **named: Any) -> Any:
        if len(done) == after:
            raise _Killed
        done.append(arguments[0])
        return run_fold(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(arms_of_networks, "run_fold", killed)
        with pytest.raises(_Killed):
            study.run(out=tmp_path / "killed", threads=1)
    resumed = study.run(out=tmp_path / "killed", resume=True, threads=1)
    for name in ("predictions/iq.csv", "predictions/disease.csv", "operating_points.csv", "evaluation.json"):
        assert (resumed.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name
    again = read_json(resumed, "run.json")["arms"]
    assert (again["proposed"]["together"], again["single"]["together"]) == (True, True)
    assert read_json(resumed, "run.json")["hashes"]["bundle"] != ""
    weights = [sorted(p.read_bytes() for p in (run.bundle / "weights").iterdir()) for run in (whole, resumed)]
    assert weights[0] == weights[1]


def test_a_network_of_its_own_is_that_of_a_study_of_that_target_alone(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None
) -> None:
    unknown = {i for places in UNKNOWN.values() for i in places}
    write_rows(tmp_path / "cohort.csv", [r for i, r in enumerate(read_rows(folder / "cohort.csv")) if i not in unknown])
    shutil.copy(folder / "columns.csv", tmp_path)
    (tmp_path / "study.toml").write_text(STUDY)
    both = Study.read(tmp_path, SPAN).run(out=tmp_path / "both", threads=1)
    # folds are dealt by all outcomes together
    splits = read_splits(both.folder / "splits.csv")
    monkeypatch.setattr("tenfold.study.study.make_splits", lambda *_, **__: splits)
    for target in SPAN["target"]:
        alone = Study.read(tmp_path, {**SPAN, "target": [target], "arms": [{"name": "proposed"}]})
        name = alone.config.target[0].called
        run = alone.run(out=tmp_path / name, threads=1)
        found = both.predictions[name].select(arm="single")
        assert run.predictions[name].case.tolist() == found.case.tolist()
        assert run.predictions[name].probabilities == pytest.approx(found.probabilities, abs=1e-6)


# --- refusals --------------------------------------------------------------------------------------------------------


def _all(rows: Rows, cells: Mapping[str, str]) -> None:
    for row in rows:
        row.update(cells)


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ({"disease": "no"}, r"Target disease:.*there are 1 classes"),
        ({"score": "100"}, r"Target iq:.*no case has the class 'below 85'"),
        ({"level": "mild"}, r"Target level:.*no case has the class 'moderate or above'"),
        ({"score": ""}, r"Target iq:.*there is no outcome at all"),
        ({"level": ""}, r"Target level:.*there is no outcome at all"),
        ({"disease": ""}, r"Target disease:.*there is no outcome at all"),
        ({"score": "fair"}, r"Target iq:.*'fair' is no number"),
        ({"level": "server"}, r"Target level:.*'server' is not a class"),
    ],
)
def test_a_target_that_cannot_be_told_stops_the_run_by_its_name(
    copy: Path, tmp_path: Path, cells: dict[str, str], words: str
) -> None:
    rows = read_rows(copy / "cohort.csv")
    _all(rows, cells)
    write_rows(copy / "cohort.csv", rows)
    with pytest.raises(AuditError, match=words):
        Study.read(copy).run(out=tmp_path / "out", threads=1)
    assert not (tmp_path / "out").exists()


def test_too_few_of_one_target_are_refused_by_its_name(copy: Path, tmp_path: Path) -> None:
    rows = read_rows(copy / "cohort.csv")
    for row in rows[4:]:
        row["disease"] = "no" if row["disease"] else ""
    write_rows(copy / "cohort.csv", rows)
    with pytest.raises(AuditError, match=r"patients have the class 'yes', too few for 2 folds"):
        Study.read(copy).run(out=tmp_path / "out", threads=1)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"validation": {"family": "famly"}}, StudyError, "did you mean 'family'"),
        ({"inputs": {"values": {"columns": ["a", "scor"]}}}, StudyError, "which columns.csv does not describe"),
        (
            {"target": [{"column": "disease"}, {"column": "a", "kind": "score", "above": 0}]},
            StudyError,
            "outcome itself",
        ),
        ({"external": [{"name": "elsewhere", "cohort": "cohort.csv"}]}, AuditError, "shares patient p000"),
        ({"external": [{"name": "elsewhere", "cohort": "no.csv"}]}, CohortError, "no.csv"),
    ],
)
def test_impossible_studies_are_refused_before_anything_is_written(
    folder: Path, tmp_path: Path, changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words.replace("'", ".")):
        Study.read(folder, changes).run(out=tmp_path / "out", threads=1)
    assert not (tmp_path / "out").exists()


def test_an_arm_that_fails_for_one_target_fails_for_all_and_alone(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None
) -> None:
    fit = order.fit_table_model

    def failing(bench: Bench, arm: ArmSection) -> FittedArm:
        if bench.target == "disease":
            raise TrainingError("no tree grew")
        return fit(bench, arm)

    monkeypatch.setattr(order, "fit_table_model", failing)
    arms = [{"name": "proposed"}, {"name": "tree", "model": "decision_tree"}]
    arms += [{"name": "late", "combine": ["proposed", "tree"]}]
    run = Study.read(folder, {**SPAN, "arms": arms}).run(out=tmp_path / "run", threads=1)
    record = read_json(run, "run.json")["arms"]
    assert {name: arm["status"] for name, arm in record.items()} == {
        "proposed": "done", "tree": "failed", "late": "failed"
    }  # fmt: skip
    assert (record["tree"]["reason"], record["late"]["reason"]) == ("no tree grew", "it combines 'tree', which failed")
    for target in ("iq", "disease"):
        assert list(run.evaluation[target]) == list(run.predictions[target].arms) == ["proposed"]
