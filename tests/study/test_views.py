"""One small run of lymph nodes in three views with up to two pictures each, three classes, looked at from all sides."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file
from tests.calling import call
from tests.study.lymph_nodes import CLASSES, INPUTS, VIEWS, Watched, small_cohort, without_work
from tests.study_files import read_json, read_rows, write_rows

from tenfold.bundle import load
from tenfold.cohort.manifest import Cohort
from tenfold.cohort.split import read_splits
from tenfold.config import ArmSection, StageSection
from tenfold.errors import AuditError, EncoderError, ImageError, StudyError, TrainingError
from tenfold.study import Run, Study, evaluate_bundle
from tenfold.study import network_arm as arms_of_networks
from tenfold.study.arms import FoldScores
from tenfold.study.external import given_by
from tenfold.study.late_arm import fit_late
from tenfold.types import Calibration, PredictionTable, Split

PROPOSED = "all views"
ARMS = (PROPOSED, "b_mode only", "regression", "late", "cdfi only", "elastography only", "notes only")


@pytest.fixture(scope="module")
def run(nodes: Watched) -> Run:
    return nodes.run


@pytest.fixture(scope="module")
def table(run: Run) -> PredictionTable:
    return PredictionTable.read(run.folder / "predictions" / "diagnosis.csv")


@pytest.fixture(scope="module")
def cohort(nodes_study: Study) -> Cohort:
    return nodes_study.cohort()


def counts(cohort: Cohort) -> dict[str, dict[str, int]]:
    """How many pictures each case has, by view."""
    return {view: dict(zip(cohort.case.tolist(), map(len, cohort.pictures(view)), strict=True)) for view in VIEWS}


# --- the run ---------------------------------------------------------------------------------------------------------


def test_every_promised_file_is_there_and_every_arm_went_through(run: Run) -> None:
    for name in ("classes.json", "classes_holdout.json", "sites.json", "sites/diagnosis.csv", "report.html"):
        assert (run.folder / name).is_file(), name
    record = read_json(run, "run.json")
    own = {name: arm for name, arm in record["arms"].items() if arm.get("kind") != "altered"}
    assert {name: arm["status"] for name, arm in own.items()} == dict.fromkeys(ARMS, "done"), own
    assert own[PROPOSED]["pools"] == {"b_mode": "attention", "cdfi": "mean", "elastography": "attention"}
    assert own[PROPOSED]["shares"] == {"elastography": "cdfi"}
    # alone it has an encoder of its own
    assert own["elastography only"]["shares"] == {}
    assert record["targets"][0]["classes"] == list(CLASSES)
    assert record["targets"][0]["positive"] == CLASSES[-1]
    assert record["grid"] is None


def test_predictions_have_a_probability_of_every_class_for_everybody_who_brings_something(
    table: PredictionTable, run: Run, cohort: Cohort
) -> None:
    assert table.classes == CLASSES
    assert table.probabilities.sum(axis=1) == pytest.approx(np.ones(len(table)))
    aside, splits = read_splits(run.folder / "splits.csv")
    tested = {case for split in splits for case in split.test}
    assert len(tested) + len(aside) == len(cohort)
    pictures = counts(cohort)
    truth = dict(zip(cohort.case.tolist(), cohort.labels("diagnosis").tolist(), strict=True))
    for arm in ARMS:
        alone = arm.removesuffix(" only")
        sees = {c for c in truth if alone not in VIEWS or pictures[alone][c]}
        for split, cases in (("out_of_fold", tested), ("holdout", set(aside))):
            found = table.select(arm=arm, split=split)
            assert sorted(found.case.tolist()) == sorted(cases & sees), (arm, split)
            assert [truth[case] for case in found.case.tolist()] == found.label.tolist()
    assert any(not pictures[view][case] for view in VIEWS for case in tested)


def test_all_classes_are_judged_together(run: Run, table: PredictionTable) -> None:
    found = read_json(run, "classes.json")["diagnosis"]
    assert found["classes"] == list(CLASSES)
    own = table.select(arm=PROPOSED, split="out_of_fold")
    decided = own.probabilities.argmax(axis=1)
    truth = np.array([CLASSES.index(label) for label in own.label.tolist()])
    confusion = [[int(((truth == t) & (decided == d)).sum()) for d in range(3)] for t in range(3)]
    assert found["arms"][PROPOSED]["confusion"] == confusion
    overall = found["arms"][PROPOSED]["overall"]
    assert overall["accuracy"]["value"] == pytest.approx((truth == decided).mean())
    assert overall["macro_ovo_auc"]["n"] == len(own)
    assert set(found["arms"][PROPOSED]["by_class"]) == set(CLASSES)
    compared = {(line["arm"], line["metric"]) for line in found["comparisons"] if line["arm"] in ARMS}
    assert compared == {(arm, metric) for arm in ARMS[1:] for metric in ("macro_ovo_auc", "balanced_accuracy")}
    # the class to be detected is also judged as a yes or no, against the two others
    yes = read_json(run, "evaluation.json")["diagnosis"][PROPOSED]["auc"]["value"]
    assert yes == pytest.approx(found["arms"][PROPOSED]["by_class"][CLASSES[-1]]["auc"]["value"])


def test_each_hospital_is_left_out_once_and_predicted_by_models_that_never_saw_it(run: Run, cohort: Cohort) -> None:
    found = read_json(run, "sites.json")
    assert [one["site"] for one in found["diagnosis"]] == ["hospital 1", "hospital 2", "hospital 3"]
    aside, _ = read_splits(run.folder / "splits.csv")
    left = PredictionTable.read(run.folder / "sites" / "diagnosis.csv")
    assert sorted(left.case.tolist()) == sorted(set(cohort.case.tolist()) - set(aside))
    assert sum(one["n"] for one in found["diagnosis"]) == len(left)
    for fold in set(left.fold.tolist()):
        assert len(set(left.site[left.fold == fold].tolist())) == 1
    for one in found["diagnosis"]:
        own = left.where(left.site == one["site"])
        right = np.array(CLASSES)[own.probabilities.argmax(axis=1)] == own.label
        assert one["accuracy"]["value"] == pytest.approx(right.mean())
    assert found["overall"]["diagnosis"]["macro_ovo_auc"]["n"] == len(left)


def test_each_view_starts_from_the_stage_that_was_meant_for_it(run: Run) -> None:
    stages = {s["name"]: s for s in read_json(run, "run.json")["stages"][PROPOSED]}
    assert list(stages) == ["grey nodules", "coloured nodules", "nodes"]
    kept = {name: load_file(run.folder / stages[name]["file"]) for name in ("grey nodules", "coloured nodules")}
    weights = {
        **load_file(run.bundle / "weights" / "shared.safetensors"),
        **load_file(run.bundle / "weights" / "fold-0-0.safetensors"),
    }
    # one block learned on the nodes, so the lowest weights are those that the stages left
    for place, name in enumerate(kept):
        key = min(key for key in kept[name] if key.endswith("weight")).removeprefix("*|")
        left = kept[name][f"*|{key}"]
        assert np.array_equal(weights[f"encoder_list.{place}.{key}"], left), name
    cases = {name: sum(stages[name]["cases"].values()) for name in kept}
    assert cases == {"grey nodules": 10, "coloured nodules": 10}
    assert read_json(run, "run.json")["stages"]["notes only"][0]["name"] == "nodes"


# --- explanations ----------------------------------------------------------------------------------------------------


def test_every_picture_of_an_explained_case_is_drawn_for_the_likeliest_class(
    nodes: Watched, run: Run, table: PredictionTable, cohort: Cohort
) -> None:
    cases = read_json(run, "explanations.json")["cases"]
    assert len(cases) == 4
    pictures = counts(cohort)
    own = table.select(arm=PROPOSED, split="out_of_fold")
    for i, case in enumerate(cases):
        row = own.probabilities[own.case.tolist().index(case["case"])]
        assert case["class"] == case["decision"] == CLASSES[int(row.argmax())]
        assert case["probability"] == pytest.approx(row.max())
        assert case["right"] == (case["label"] == case["class"])
        found = {view: [p["picture"] for p in case["pictures"] if p["view"] == view] for view in VIEWS}
        assert found == {view: list(range(pictures[view][case["case"]])) for view in VIEWS}
        assert case["absent"] == [view for view in VIEWS if not found[view]]
        assert set(case["modalities"]) == set(INPUTS)
        for picture in case["pictures"]:
            with Image.open(run.folder / picture["overlay"]) as heat:
                assert heat.size == (32, 32)
        index = CLASSES.index(case["class"])
        assert nodes.drawn[3 * i : 3 * i + 3] == [(view, index) for view in VIEWS]
    assert any(len(case["pictures"]) > 3 for case in cases)


def test_the_page_and_the_pages_of_patients_are_written(run: Run) -> None:
    page = (run.folder / "report.html").read_text()
    assert "hospital 2" in page
    assert all(name in page for name in CLASSES)
    cases = read_json(run, "explanations.json")["cases"]
    assert {path.stem for path in (run.folder / "patients").glob("*.html")} == {case["case"] for case in cases}
    for case in cases:
        # each picture as it is and under its heat map
        own = (run.folder / "patients" / f"{case['case']}.html").read_text()
        assert own.count("<img") == 2 * len(case["pictures"])


# --- the bundle ------------------------------------------------------------------------------------------------------


def test_the_bundle_gives_the_runs_own_holdout_predictions(run: Run, table: PredictionTable, cohort: Cohort) -> None:
    predictor = load(run.bundle)
    assert predictor.classes == CLASSES
    aside = table.select(arm=PROPOSED, split="holdout")
    held = cohort.select(aside.case.tolist())
    found = predictor.predict(given_by(predictor, held), cases=held.case.tolist(), batch=4)
    said = [[answer.probabilities[name] for name in CLASSES] for answer in found]
    assert said == pytest.approx(aside.probabilities, abs=1e-5)
    assert [answer.decision for answer in found] == [CLASSES[int(np.argmax(row))] for row in said]
    pictures = counts(held)
    assert [answer.missing for answer in found] == [
        tuple(view for view in VIEWS if not pictures[view][case]) for case in held.case.tolist()
    ]
    assert {len(own) for view in VIEWS for own in held.pictures(view)} == {0, 1, 2}


def test_alone_or_among_cases_with_more_pictures_a_case_is_told_the_same(run: Run, cohort: Cohort) -> None:
    predictor = load(run.bundle)
    given = given_by(predictor, cohort)[:6]
    together = predictor.predict(given)
    for one, answer in zip(given, together, strict=True):
        assert predictor.predict([one])[0].probabilities == pytest.approx(answer.probabilities, abs=1e-6)


def test_a_screen_of_an_unknown_hospital_is_refused(run: Run, cohort: Cohort) -> None:
    predictor = load(run.bundle)
    given = next(one for one in given_by(predictor, cohort) if one["elastography"])
    elsewhere = {**given, "elastography": {**given["elastography"], "site": "hospital 9"}}
    with pytest.raises(ImageError, match="region"):
        predictor.predict([elsewhere])
    with pytest.raises(ImageError, match="region"):
        predictor.predict([{"b_mode": cohort.pictures("b_mode")[0][0]}])


def test_a_case_of_the_bundle_comes_with_pictures_and_the_patients_of_the_run_are_known(
    run: Run, cohort: Cohort
) -> None:
    predictor = load(run.bundle)
    assert predictor.trained_on_patients([*cohort.patient.tolist()[:2], "nobody"]) == cohort.patient.tolist()[:2]
    hashes = json.loads((run.bundle / "bundle.json").read_text())["training"]["images"]
    assert len(hashes) == len(read_rows(cohort.folder / "images.csv"))


# --- other patients --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_cohort(tmp_path_factory.mktemp("others") / "nodes", patients=18, seed=6, source=0, missing_views=0.3)


def test_other_patients_are_put_through_the_bundle(run: Run, others: Path, tmp_path: Path, undrawn: None) -> None:
    done = call("evaluate", run.bundle, others / "cohort.csv", "--out", tmp_path / "out", "--threads", 1, "--quiet")
    assert done.code == 0, done.err
    table = PredictionTable.read(tmp_path / "out" / "predictions" / "diagnosis.csv")
    cohort = Cohort.read(others)
    assert table.case.tolist() == cohort.case.tolist()
    predictor = load(run.bundle)
    answers = predictor.predict(given_by(predictor, cohort))
    said = [[answer.probabilities[name] for name in CLASSES] for answer in answers]
    assert table.probabilities == pytest.approx(np.array(said), abs=1e-6)
    found = json.loads((tmp_path / "out" / "classes.json").read_text())["diagnosis"]
    assert found["arms"][PROPOSED]["overall"]["accuracy"]["n"] == 18


def test_patients_of_the_study_are_no_other_patients(run: Run, nodes_study: Study, tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="were in the study"):
        evaluate_bundle(run.bundle, nodes_study.cohort(), out=tmp_path / "out", threads=1)
    assert not (tmp_path / "out").exists()


def test_pictures_of_the_study_under_other_names_are_found_too(run: Run, nodes_study: Study, tmp_path: Path) -> None:
    copy = without_work(nodes_study.folder, tmp_path / "copy")
    cohort = [{**row, "patient": f"x{row['patient']}"} for row in read_rows(copy / "cohort.csv")]
    write_rows(copy / "cohort.csv", cohort)
    with pytest.raises(AuditError, match=r"\d+ films of this cohort were in the study"):
        evaluate_bundle(run.bundle, Cohort.read(copy), out=tmp_path / "out", threads=1)


# --- refusals --------------------------------------------------------------------------------------------------------


def test_more_pictures_than_the_study_reckons_with_are_refused_by_the_case(
    nodes_study: Study, tmp_path: Path, cohort: Cohort
) -> None:
    first = next(i for i, own in enumerate(cohort.pictures("cdfi")) if len(own) == 2)
    study = Study.read(nodes_study.folder, {"inputs": {"cdfi": {"pictures": 1}}})
    with pytest.raises(StudyError, match=r"2 pictures of one case for input 'cdfi'") as refused:
        study.run(out=tmp_path / "out", threads=1)
    assert refused.value.where == cohort.place(first, "cdfi")
    assert "inputs.cdfi.pictures = 2" in refused.value.do


def test_an_arm_that_takes_fewer_pictures_is_refused_likewise(nodes_study: Study, tmp_path: Path) -> None:
    arms = [{"name": "proposed"}, {"name": "one picture", "inputs": {"cdfi": {"pictures": 1}}}]
    with pytest.raises(StudyError, match=r"2 pictures of one case for input 'cdfi'") as refused:
        Study.read(nodes_study.folder, {"arms": arms}).run(out=tmp_path / "out", threads=1)
    assert "in arm 'one picture' set pictures = 2" in refused.value.do
    assert not (tmp_path / "out").exists()


def test_a_stage_cannot_give_an_encoder_to_an_input_that_uses_anothers(nodes_study: Study, tmp_path: Path) -> None:
    stage = {"cohort": "source/elastography.csv", "picture": "picture", "inputs": ["elastography"]}
    stage |= {"name": "stiff nodules", "task": "multilabel", "columns": ["stiff_rim"], "epochs": 1}
    with pytest.raises(EncoderError, match=r"'elastography', which shares that of 'cdfi'"):
        Study.read(nodes_study.folder, {"stages": [stage, {"name": "nodes"}]}).run(out=tmp_path / "out", threads=1)


def test_an_encoder_that_is_shared_goes_through_one_stage_after_the_other(nodes_study: Study) -> None:
    sections = nodes_study.config.inputs
    first, second = (
        StageSection(name=name, cohort="c.csv", picture="p", inputs=inputs, column="d")
        for name, inputs in (("a", ("cdfi",)), ("b", ("elastography", "cdfi")))
    )
    # the one who shares goes on from what its owner was given, and neither takes the other's place
    assert arms_of_networks._carried(first, sections)[0] == ["cdfi"]
    assert arms_of_networks._carried(second, sections)[0] == ["cdfi"]
    everybody = StageSection(name="c", cohort="c.csv", column="d")
    takers, carried = arms_of_networks._carried(everybody, sections)
    assert (takers, list(carried)) == (["b_mode", "cdfi"], list(VIEWS))


# --- killed and resumed ----------------------------------------------------------------------------------------------


class _Killed(BaseException):
    """What no arm may catch."""


SHORT: dict[str, Any] = {
    "arms": [{"name": "two views", "only": ["b_mode", "cdfi"]}, {"name": "cdfi only", "only": ["cdfi"]}],
    "validation": {"holdout": 0.0, "each_site": True},
    "explain": {"cases": 0, "sanity_cases": 0},
}


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, 1, 5])
def test_a_run_that_was_killed_gives_the_same_bytes(
    nodes_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None, after: int
) -> None:
    # each has its own prepared pictures
    monkeypatch.setenv("TENFOLD_STORE", str(tmp_path / "store"))
    study = Study.read(nodes_study.folder, SHORT)
    whole = study.run(out=tmp_path / "whole", threads=1)
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
    shutil.rmtree(tmp_path / "store")
    resumed = study.run(out=tmp_path / "killed", resume=True, threads=1)
    for name in ("predictions/diagnosis.csv", "operating_points.csv", "classes.json", "sites/diagnosis.csv"):
        assert (resumed.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name
    weights = [sorted(p.read_bytes() for p in (one.bundle / "weights").iterdir()) for one in (whole, resumed)]
    assert weights[0] == weights[1]


# --- three classes from a table --------------------------------------------------------------------------------------

MODELS = ("logistic_regression", "decision_tree", "knn")
EASY = """
preset = "quick"
seed = 2

[target]
column = "disease"
classes = ["a", "b", "c"]
positive = "b"

[inputs.values]
kind = "table"
options = { hidden = 8 }

[training]
epochs = 6
rate = 1e-2
encoder_rate = 1e-2

[validation]
folds = 2
inner = 0.3
holdout = 0.2
bootstraps = 100

[explain]
cases = 0
"""


@pytest.fixture(scope="module")
def easy(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Ninety patients whose two values nearly tell which of three diseases they have."""
    folder = tmp_path_factory.mktemp("easy")
    rng = np.random.default_rng(0)
    centre = {"a": (0.0, 2.0), "b": (2.0, -1.0), "c": (-2.0, -1.0)}
    rows = []
    for i in range(90):
        disease = "abc"[i % 3]
        x, y = rng.normal(centre[disease], 1.0)
        rows.append({"case": f"c{i}", "patient": f"p{i}", "disease": disease, "x": f"{x:.3f}", "y": f"{y:.3f}"})
    for i in (4, 8):
        rows[i]["x"] = ""
    write_rows(folder / "cohort.csv", rows)
    write_rows(folder / "columns.csv", [{"column": name, "kind": "number"} for name in ("x", "y")])
    (folder / "study.toml").write_text(EASY)
    arms: list[dict[str, Any]] = [{"name": "network"}, *({"name": name, "model": name} for name in MODELS)]
    arms.append({"name": "late", "combine": ["network", "logistic_regression", "knn"]})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tenfold.study.study.write_report", lambda folder: folder)
        return Study.read(folder, {"arms": arms}).run(out=folder / "run", threads=1)


@pytest.mark.parametrize("arm", [*MODELS, "late"])
def test_models_of_tables_and_late_fusion_tell_three_classes(easy: Run, arm: str) -> None:
    assert read_json(easy, "run.json")["arms"][arm]["status"] == "done"
    table = easy.predictions["disease"]
    assert table.classes == ("a", "c", "b")
    for split, least in (("out_of_fold", 70), ("holdout", 17)):
        own = table.select(arm=arm, split=split)
        assert len(own) >= least
        assert own.probabilities.sum(axis=1) == pytest.approx(np.ones(len(own)))
        assert (own.probabilities >= 0).all()
        assert (np.array(table.classes)[own.probabilities.argmax(axis=1)] == own.label).mean() > 0.75
    found = read_json(easy, "classes.json")["disease"]["arms"][arm]["overall"]
    assert found["macro_ovo_auc"]["low"] > 0.8
    # a guess by prevalence has log 3
    assert found["log_loss"]["value"] < 0.8


def test_late_fusion_weighs_every_class_of_every_arm(easy: Run) -> None:
    record = read_json(easy, "run.json")["arms"]["late"]
    # of three arms two log-odds each, for each of three classes
    assert [len(one["weights"]) for one in record["chosen"]] == [18, 18]
    assert [len(one["intercept"]) for one in record["chosen"]] == [3, 3]
    assert len(read_json(easy, "run.json")["arms"]["knn"]["chosen"]) == 3 * 2


@pytest.mark.parametrize("lacks", [0, 2])
def test_a_class_of_which_nobody_can_be_answered_by_all_arms_is_refused_by_its_name(lacks: int) -> None:
    truth = np.array([0, 1, 2] * 4)
    rng, rows = np.random.default_rng(0), np.arange(12)
    # one arm sees nobody of that class in the inner part
    seen = [rows, rows[truth != lacks]]
    parts: dict[str, Any] = {
        str(k): SimpleNamespace(
            answers=np.ones(12, bool),
            calibrations=[Calibration()],
            predictions=SimpleNamespace(probabilities=np.zeros((1, 3))),
            folds=[FoldScores(own, rng.normal(size=(len(own), 3)), own, rng.normal(size=(len(own), 3)))],
        )
        for k, own in enumerate(seen)
    }
    cases = tuple(map(str, rows))
    bench: Any = SimpleNamespace(
        splits=[Split(0, 0, (), cases, cases)],
        rows=lambda some: np.array([int(case) for case in some]),
        known=lambda some: some,
        labels=SimpleNamespace(classes=CLASSES),
        label_index=truth,
    )
    with pytest.raises(TrainingError, match=f"has the class '{CLASSES[lacks]}' in the inner part"):
        fit_late(bench, ArmSection(name="late", combine=("0", "1")), parts)
