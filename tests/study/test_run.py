"""One small run, looked at from all sides."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tests.study.conftest import small_study
from tests.study_files import read_rows

import tenfold
from tenfold.cohort.manifest import Cohort
from tenfold.cohort.split import read_splits
from tenfold.errors import AuditError, CohortError, EncoderError, OutputError, StudyError
from tenfold.study import Run, Study, evaluate_bundle
from tenfold.types import PredictionTable

FILES = [
    "run.json",
    "study.toml",
    "cohort.json",
    "findings.csv",
    "splits.csv",
    "operating_points.csv",
    "predictions/diagnosis.csv",
    "evaluation.json",
    "evaluation_holdout.json",
    "comparisons.json",
    "folds.json",
    "curves.json",
    "explanations.json",
    "report.html",
    "bundle/bundle.json",
    "bundle/README.md",
]


def test_every_promised_file_is_there_and_nothing_of_the_work(run: Run) -> None:
    for name in FILES:
        assert (run.folder / name).is_file(), name
    assert not (run.folder / ".work").exists()


def test_evaluation_has_the_promised_shape(run: Run) -> None:
    evaluation = json.loads((run.folder / "evaluation.json").read_text())
    for metrics in evaluation["diagnosis"].values():
        for name, estimate in metrics.items():
            assert set(estimate) == {"value", "low", "high", "method", "n"}, name
            assert estimate["method"]
            assert estimate["n"] > 0
    assert "dilated, adult films" in evaluation["diagnosis"]


def test_predictions_have_the_promised_columns_and_cover_every_case_once(run: Run, study: Study) -> None:
    rows = read_rows(run.folder / "predictions" / "diagnosis.csv")
    promised = ["case", "patient", "site", "split", "repeat", "fold", "arm", "label", "p_normal", "p_pneumonia"]
    assert list(rows[0]) == promised
    cases = set(study.cohort().case.tolist())
    for arm in {r["arm"] for r in rows}:
        own = [r["case"] for r in rows if r["arm"] == arm]
        assert sorted(own) == sorted(cases)
    assert all(abs(float(r["p_normal"]) + float(r["p_pneumonia"]) - 1) < 1e-9 for r in rows)


def test_no_patient_is_on_two_sides_of_a_split(run: Run) -> None:
    holdout, splits = read_splits(run.folder / "splits.csv")
    patient = {r["case"]: r["patient"] for r in read_rows(run.folder / "splits.csv")}
    aside = {patient[c] for c in holdout}
    assert aside
    for split in splits:
        parts = [{patient[c] for c in part} for part in (split.train, split.inner, split.test)]
        assert not parts[0] & parts[1]
        assert not (parts[0] | parts[1]) & parts[2]
        assert not aside & set.union(*parts)


def test_predictions_of_a_fold_are_of_its_test_part(run: Run) -> None:
    _, splits = read_splits(run.folder / "splits.csv")
    rows = [r for r in read_rows(run.folder / "predictions" / "diagnosis.csv") if r["split"] == "out_of_fold"]
    for split in splits:
        own = {r["case"] for r in rows if (int(r["repeat"]), int(r["fold"])) == (split.repeat, split.fold)}
        assert own == set(split.test)


def test_the_record_says_what_was_done(run: Run) -> None:
    record = json.loads((run.folder / "run.json").read_text())
    assert record["status"] == "done"
    assert record["opened"][0]["what"] == "holdout"
    assert record["simulated"]["ceiling_auc"] == pytest.approx(0.953, abs=1e-3)
    assert set(record["arms"]) == {a["arm"] for a in read_rows(run.folder / "operating_points.csv")}
    first = record["stages"]["dilated, adult films"]
    assert [s["name"] for s in first] == ["adults", "children"]
    assert [s["name"] for s in record["stages"]["dilated, no pre-training"]] == ["children"]
    for key in ("versions", "hashes", "timings", "seed", "device", "command"):
        assert record[key] not in (None, {}), key


def test_no_path_of_this_machine_is_in_what_is_handed_on(run: Run, study: Study) -> None:
    for path in (run.folder / "bundle").rglob("*"):
        if path.is_file():
            assert str(study.folder).encode() not in path.read_bytes(), path.name
    assert str(study.folder) not in (run.folder / "report.html").read_text()


def test_the_bundle_gives_the_runs_own_holdout_predictions(run: Run, study: Study) -> None:
    predictor = tenfold.load(run.bundle)
    aside = run.predictions["diagnosis"].select(arm="dilated, adult films", split="holdout")
    cohort = study.cohort().select(aside.case.tolist())
    films = cohort.files("film")
    answers = predictor.predict(films)
    got = np.array([a.probabilities["pneumonia"] for a in answers])
    assert np.abs(got - aside.probability("pneumonia")).max() < 1e-4
    point = next(r for r in read_rows(run.folder / "operating_points.csv") if r["repeat"] == "-1")
    assert predictor.operating_point.threshold == float(point["threshold"])


def test_the_same_seed_gives_the_same_bytes_and_decodes_nothing_again(run: Run, study: Study, tmp_path: Path) -> None:
    again = study.run(out=tmp_path / "again", threads=1)
    for name in ("predictions/diagnosis.csv", "splits.csv", "operating_points.csv", "evaluation.json"):
        assert (again.folder / name).read_bytes() == (run.folder / name).read_bytes(), name
    assert json.loads((again.folder / "run.json").read_text())["decoded"] == 0


def test_external_patients_are_evaluated_with_the_frozen_bundle(run: Run, tmp_path: Path) -> None:
    small_study(tmp_path / "other", seed=99)
    cohort = Cohort.read(tmp_path / "other")
    done = evaluate_bundle(run.bundle, cohort, out=tmp_path / "out", bootstraps=100, threads=1)
    table = PredictionTable.read(done.folder / "predictions" / "diagnosis.csv")
    assert set(table.split.tolist()) == {"external"}
    assert len(table) == len(cohort)
    metrics = json.loads((done.folder / "evaluation.json").read_text())["diagnosis"]["dilated, adult films"]
    assert metrics["auc"]["n"] == len(set(cohort.patient.tolist()))
    assert (done.folder / "report.html").is_file()


def test_the_outcome_of_other_patients_may_stand_in_a_column_of_another_name(run: Run, tmp_path: Path) -> None:
    small_study(tmp_path / "other", seed=97)
    path = tmp_path / "other" / "cohort.csv"
    path.write_text(path.read_text().replace("diagnosis", "dx", 1))
    with pytest.raises(AuditError, match="no column 'diagnosis'"):
        evaluate_bundle(run.bundle, Cohort.read(path), out=tmp_path / "out", threads=1)
    done = evaluate_bundle(run.bundle, Cohort.read(path), out=tmp_path / "out", column="dx", bootstraps=100, threads=1)
    record = json.loads((done.folder / "run.json").read_text())
    assert (record["target"]["name"], record["target"]["column"]) == ("diagnosis", "dx")
    assert list(done.predictions) == ["diagnosis"]
    assert (done.folder / "predictions" / "diagnosis.csv").is_file()


def test_external_patients_of_one_class_have_no_auc_and_a_reason(run: Run, tmp_path: Path) -> None:
    small_study(tmp_path / "other", seed=98)
    cohort = Cohort.read(tmp_path / "other")
    ill = cohort.select([c for c, v in zip(cohort.case, cohort.labels("diagnosis"), strict=True) if v == "pneumonia"])
    done = evaluate_bundle(run.bundle, ill, out=tmp_path / "out", bootstraps=100, threads=1)
    metrics = done.evaluation["diagnosis"]["dilated, adult films"]
    assert metrics["auc"]["value"] is None
    assert "one class" in metrics["auc"]["method"]
    assert metrics["sensitivity"]["value"] is not None


def test_films_of_the_study_are_not_external(run: Run, study: Study, tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="were in the study"):
        evaluate_bundle(run.bundle, study.cohort(), out=tmp_path / "out", threads=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("planted", "words"),
    [({"duplicates": 2}, "same picture"), ({"shared_patients": 1}, "two outcome|both outcomes|classes")],
)
def test_planted_leaks_stop_a_run_before_anything_is_written(tmp_path: Path, planted, words: str) -> None:
    study = Study.read(small_study(tmp_path / "films", seed=5, **planted))
    with pytest.raises(AuditError, match=words):
        study.run(out=tmp_path / "out", threads=1)
    assert not (tmp_path / "out").exists()


def test_a_planted_shortcut_is_warned_of(tmp_path: Path) -> None:
    planted = Study.read(small_study(tmp_path / "films", seed=6, marker_shortcut=1.0)).check()
    clean = Study.read(small_study(tmp_path / "clean", seed=6)).check()
    assert "without_looking" in {f.check for f in planted.warnings}
    assert "without_looking" not in {f.check for f in clean.warnings}


def test_an_arm_fails_alone(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tenfold.study import study as order

    fit_networks = order.fit_networks

    def failing(bench, arm, sources, *, alter):
        if arm.name == "dilated, no pre-training":
            raise EncoderError("its weights are missing")
        return fit_networks(bench, arm, sources, alter=alter)

    monkeypatch.setattr(order, "fit_networks", failing)
    done = study.run(out=tmp_path / "out", threads=1)
    record = json.loads((done.folder / "run.json").read_text())["arms"]["dilated, no pre-training"]
    assert record["status"] == "failed"
    assert "its weights are missing" in record["reason"]
    assert "its weights are missing" in (done.folder / "report.html").read_text()
    assert len(done.evaluation["diagnosis"]) == 1


def test_a_folder_with_somebodys_work_is_refused(study: Study, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        study.run(out=tmp_path, threads=1)
    with pytest.raises(OutputError, match="another study"):
        study.run(out=tmp_path, resume=True, threads=1)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"target": {"column": "diagnosi"}}, AuditError, "diagnosis"),
        ({"target": {"column": "diagnosis", "classes": ["normal", "flu"]}}, AuditError, "not a class"),
        ({"inputs": {"film": {"column": "flim"}}}, StudyError, "did you mean 'film'"),
        ({"inputs": {"film": {"encoder": "image_tim"}}}, EncoderError, "did you mean 'image_timm'"),
        ({"inputs": {"film": {"network": "resnet35"}}}, EncoderError, "resnet3"),
        ({"validation": {"folds": 40}}, AuditError, "patients"),
        ({"stages": [{"name": "a", "cohort": "nowhere.csv", "column": "x"}, {"name": "b"}]}, CohortError, "nowhere"),
    ],
)
def test_impossible_studies_are_refused_before_anything_is_written(
    study: Study, tmp_path: Path, changes, error: type[Exception], words: str
) -> None:
    document = {"target": "diagnosis", "preset": "quick", **changes}
    wrong = Study.from_dict(document, study.folder)
    with pytest.raises(error, match=words.replace("'", ".")):
        wrong.run(out=tmp_path / "out", threads=1)
    assert not (tmp_path / "out").exists()


def test_a_source_cohort_that_holds_the_studys_films_is_refused(tmp_path: Path) -> None:
    path = small_study(tmp_path / "films")
    adults = path.parent / "adults"
    rows = read_rows(adults / "cohort.csv")
    own = read_rows(path.parent / "cohort.csv")[0]["film"]
    shutil.copyfile(path.parent / own, adults / rows[0]["film"])
    with pytest.raises(AuditError, match="also pictures of the study"):
        Study.read(path).run(out=tmp_path / "out", threads=1)


def _start(study: Path, out: Path, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tenfold.cli", "run", str(study), "--out", str(out), "--threads", "1", "--quiet"]
    return subprocess.Popen([*command, *more], stderr=subprocess.PIPE)


@pytest.mark.slow
def test_killed_at_three_moments_and_resumed_it_writes_the_same_bytes(run: Run, study: Study, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    done_before: list[int] = []
    for moment in range(3):
        process = _start(study.folder, out, *(["--resume"] if moment else []))
        deadline = time.monotonic() + 200
        # moments differ: after so many finished folds, plus a random part of a second
        while len(list(out.glob(".work/folds/*/*/done.json"))) < 2 * moment + 1 and time.monotonic() < deadline:
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(0.02)
        time.sleep(float(np.random.default_rng().uniform(0, 0.5)))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        done_before.append(len(list(out.glob(".work/folds/*/*/done.json"))))
        assert not (out / "report.html").exists()
    last = _start(study.folder, out, "--resume")
    assert last.wait(timeout=280) == 0, last.stderr.read().decode()
    assert done_before == sorted(done_before)
    for name in ("predictions/diagnosis.csv", "operating_points.csv"):
        assert (out / name).read_bytes() == (run.folder / name).read_bytes(), name


@pytest.mark.slow
def test_permuted_labels_give_an_auc_whose_interval_holds_one_half(tmp_path: Path) -> None:
    path = small_study(tmp_path / "films", seed=8)
    cohort = path.parent / "cohort.csv"
    rows = read_rows(cohort)
    rng = np.random.default_rng(0)
    patients = sorted({r["patient"] for r in rows})
    outcome = {r["patient"]: r["diagnosis"] for r in rows}
    shuffled = dict(zip(patients, rng.permutation([outcome[p] for p in patients]).tolist(), strict=True))
    with cohort.open("w", newline="") as handle:
        out = csv.DictWriter(handle, rows[0])
        out.writeheader()
        out.writerows({**r, "diagnosis": shuffled[r["patient"]]} for r in rows)
    done = Study.read(path).run(out=tmp_path / "out", threads=1)
    for arm, metrics in done.evaluation["diagnosis"].items():
        assert metrics["auc"]["low"] < 0.5 < metrics["auc"]["high"], arm
