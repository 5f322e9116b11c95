"""The commands that meet films beside tables, as a user calls them."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.study.conftest import small_fused_study
from tests.study_files import Rows, read_rows, write_rows
from tests.test_cli import Done, call

from tenfold.study import Run, Study


@pytest.fixture
def elsewhere(fused_study: Study, tmp_path: Path) -> Path:
    return Path(shutil.copytree(fused_study.folder / "external", tmp_path / "elsewhere")) / "cohort.csv"


@pytest.fixture
def copy(fused: Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(fused.folder, tmp_path / "run"))


# --- predict ---------------------------------------------------------------------------------------------------------


def test_a_cohort_file_is_answered_row_by_row(fused: Run, elsewhere: Path) -> None:
    done = call("predict", fused.bundle, elsewhere, "--json")
    assert (done.code, done.err) == (0, "")
    assert [r["case"] for r in done.json] == [r["case"] for r in read_rows(elsewhere)]
    table = read_rows(fused.folder / "external" / "elsewhere" / "predictions" / "diagnosis.csv")
    for row, known in zip(done.json, table, strict=True):
        assert row["probabilities"]["NEC"] == pytest.approx(float(known["p_NEC"]), abs=1e-5)
        assert row["missing_inputs"] == []
        assert isinstance(row["prediction_set"], list)


def test_rows_that_lack_something_say_so_and_one_with_nothing_has_no_answer(
    fused: Run, elsewhere: Path, tmp_path: Path
) -> None:
    rows = read_rows(elsewhere)[:4]
    labs = [r["column"] for r in read_rows(elsewhere.parent / "columns.csv")]
    rows[0]["film"] = ""
    rows[1] |= dict.fromkeys(labs, "")
    rows[2] |= {"film": "", **dict.fromkeys(labs, "")}
    rows[3]["film"] = "films/gone.png"
    write_rows(elsewhere, rows)
    done = call("predict", fused.bundle, elsewhere, "--json", "--heatmap", tmp_path / "maps")
    assert done.code == 1
    first, second, third, fourth = done.json
    assert first["missing_inputs"] == ["film"]
    assert second["missing_inputs"] == ["labs"]
    assert first["prediction_set"] is second["prediction_set"] is None
    assert first["heatmaps"] == []
    assert Path(second["heatmaps"][0]).is_file()
    assert third["decision"] is fourth["decision"] is None
    assert "nothing is given" in third["error"]
    assert "no such file" in fourth["error"]
    assert len(list((tmp_path / "maps").iterdir())) == 1
    shown = call("predict", fused.bundle, elsewhere)
    assert shown.code == 1
    said = " ".join(shown.out.split())
    for name in ("film", "labs"):
        assert f"Without {name} the answer is worth less: AUC" in said
    assert "no result" in said


def test_a_film_alone_is_answered_without_the_values(fused: Run, fused_study: Study, elsewhere: Path) -> None:
    film = elsewhere.parent / read_rows(elsewhere)[0]["film"]
    (row,) = call("predict", fused.bundle, film, "--json").json
    assert row["missing_inputs"] == ["labs"]
    assert row["decision"] in ("NEC", "non-NEC")


@pytest.mark.parametrize(
    ("column", "cell", "words"),
    [
        ("crp", "12 mmol/L", "row 2, patient x3-0001, column crp"),
        ("wbc", "high", "'high' is not a number"),
        ("wbc", "9,81", "write a decimal point: 9.81"),
    ],
)
def test_a_cell_that_cannot_be_read_is_refused_by_its_row(
    fused: Run, elsewhere: Path, column: str, cell: str, words: str
) -> None:
    rows = read_rows(elsewhere)
    rows[0][column] = cell
    write_rows(elsewhere, rows)
    done = call("predict", fused.bundle, elsewhere, "--json")
    assert (done.code, done.out) == (1, "")
    assert words in done.words
    assert "row 2, patient x3-0001" in done.words


def test_a_cohort_file_without_a_column_or_that_is_not_there(fused: Run, elsewhere: Path, tmp_path: Path) -> None:
    write_rows(elsewhere, [{k: v for k, v in row.items() if k != "albumin"} for row in read_rows(elsewhere)])
    assert "no column 'albumin'" in call("predict", fused.bundle, elsewhere).words
    assert "gone.csv" in call("predict", fused.bundle, tmp_path / "gone.csv").words


# --- evaluate and readers --------------------------------------------------------------------------------------------


def test_evaluate_and_readers_after_a_run(fused: Run, elsewhere: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = call("evaluate", fused.bundle, elsewhere, "--out", out, "--threads", 1, "--json")
    assert (done.code, done.err) == (0, "")
    joined = call("readers", out, elsewhere.parent / "readers.csv", "--called-from", 50, "--json")
    assert (joined.code, joined.err) == (0, "")
    assert joined.json == {"readers": str(out / "readers.json"), "report": str(out / "report.html")}
    study = json.loads((out / "readers.json").read_text())
    assert study["scale"]["called_from"] == 50
    within = json.loads((fused.folder / "external" / "elsewhere" / "readers.json").read_text())
    assert study["machine"]["auc"] == within["machine"]["auc"]
    assert "reader 1" in (out / "report.html").read_text()


def test_readers_of_an_external_set_are_written_beside_it(copy: Path, elsewhere: Path) -> None:
    place = copy / "external" / "elsewhere" / "readers.json"
    place.unlink()
    done = call("readers", copy, elsewhere.parent / "readers.csv", "--json")
    assert done.code == 0
    assert Path(done.json["readers"]) == place
    assert place.is_file()
    assert not (copy / "readers.json").exists()


def _ratings(path: Path, cases: list[str]) -> Path:
    write_rows(
        path,
        [
            {"reader": reader, "case": case, "rating": str((7 * i + 3 * k) % 10)}
            for k, reader in enumerate(("Ada", "Bo"))
            for i, case in enumerate(cases)
        ],
    )
    return path


@pytest.mark.parametrize("split", ["out_of_fold", "holdout"])
def test_readers_of_the_studys_own_cases(fused: Run, copy: Path, tmp_path: Path, split: str) -> None:
    cases = fused.predictions["diagnosis"].select(arm="film + labs", split=split).case.tolist()
    done = call("readers", copy, _ratings(tmp_path / "ratings.csv", cases), "--json")
    assert done.code == 0
    study = json.loads((copy / "readers.json").read_text())
    assert (study["split"], study["cases"]["complete"]) == (split, len(cases))


def test_ratings_that_cannot_be_used_are_refused_and_nothing_is_written(fused: Run, copy: Path, tmp_path: Path) -> None:
    cases = fused.predictions["diagnosis"].select(arm="film + labs", split="holdout").case.tolist()
    good = read_rows(_ratings(tmp_path / "good.csv", cases))
    before = (copy / "report.html").read_bytes()
    wrong: list[tuple[Rows, str]] = [
        ([{**r, "case": f"z{r['case']}"} for r in good], "none of the readers'"),
        ([*good[:-1], {**good[-1], "case": "c3-9999"}], "c3-9999"),
        ([*good, good[0]], "Ada"),
        ([{**good[0], "rating": "ill"}, *good[1:]], "row 2"),
        ([{"reader": r["reader"], "case": r["case"], "score": r["rating"]} for r in good], "rating"),
    ]
    for rows, words in wrong:
        write_rows(tmp_path / "wrong.csv", rows)
        done = call("readers", copy, tmp_path / "wrong.csv", "--json")
        assert (done.code, done.out) == (1, ""), words
        assert words in done.words
    assert "gone.csv" in call("readers", copy, tmp_path / "gone.csv").words
    assert call("readers", tmp_path, tmp_path / "good.csv").code == 1
    assert not (copy / "readers.json").exists()
    assert (copy / "report.html").read_bytes() == before


# --- before a run ----------------------------------------------------------------------------------------------------


def test_simulate_and_check(tmp_path: Path) -> None:
    folder = tmp_path / "newborns"
    sizes = ["--patients", 60, "--source", 20, "--external", 8, "--size", 48, "--ineligible", 3]
    done = call("simulate", "nec", *sizes, "--out", folder, "--json")
    assert (done.code, done.err) == (0, "")
    assert 0.8 < done.json["ceiling_auc"] < 1
    found = call("check", folder, "--set", "validation.folds=5", "--json", "--findings", tmp_path / "findings.csv")
    assert found.code == 0, found.err
    assert not [f for f in found.json["findings"] if f["severity"] == "refusal"]
    assert found.json["sample_size"]["diagnosis"]["riley"]["parameters"] == 27
    shown = call("check", folder, "--set", "validation.folds=5", "--findings", tmp_path / "findings.csv")
    assert "30 patients with and 30 without" in " ".join(shown.out.split())
    refused = call("simulate", "nec", "--adults", 20, "--out", tmp_path / "x")
    assert refused.code == 1
    assert "takes no --adults" in refused.words


def test_check_refuses_what_a_run_would(tmp_path: Path) -> None:
    study = small_fused_study(tmp_path / "films", patients=40, source=20, external=8, ineligible=0)
    rows = read_rows(study.parent / "cohort.csv")
    rows[3]["albumin"] = "n/a"
    write_rows(study.parent / "cohort.csv", rows)
    done = call("check", study)
    assert done.code == 1
    with (study.parent / "findings.csv").open(newline="") as handle:
        refusals = [r for r in csv.DictReader(handle) if r["severity"] == "refusal"]
    assert any("row 5" in r["message"] and r["column"] == "albumin" for r in refusals)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("inputs.labs.kind=tabel", "did you mean 'table'"),
        ("inputs.labs.screan=3", "did you mean 'screen'"),
        ("network.fusion=gate", "'gate'"),
        ('arms=[{name="a"},{name="b",model="svn"}]', "did you mean 'svm'"),
        ('external=[{name="b",cohort="gone.csv"}]', "gone.csv"),
    ],
)
def test_an_impossible_study_is_refused(fused_study: Study, tmp_path: Path, change: str, words: str) -> None:
    done = call("run", fused_study.folder, "--out", tmp_path / "out", "--threads", 1, "--quiet", "--set", change)
    assert (done.code, done.out) == (1, "")
    assert words in done.words
    assert not (tmp_path / "out").exists()


def test_a_table_is_imported_checked_and_run(tmp_path: Path) -> None:
    study = small_fused_study(tmp_path / "films", patients=40, source=0, external=0, ineligible=0, missing="none")
    columns = ["crp", "pct", "wbc", "platelets"]
    rows = [{k: r[k] for k in ("patient", "diagnosis", *columns)} for r in read_rows(study.parent / "cohort.csv")]
    write_rows(tmp_path / "table.csv", rows)
    out = tmp_path / "imported"
    done: Done = call("import", "table", tmp_path / "table.csv", "--target", "diagnosis", "--out", out, "--json")
    assert (done.code, done.err) == (0, "")
    found = call("check", out, "--set", "validation.folds=2", "--json")
    assert found.code == 0, found.words or found.out
    changes: list[Any] = []
    for change in (
        "validation.folds=2",
        "validation.bootstraps=100",
        "preset=quick",
        "training.epochs=2",
        "explain.cases=0",
        "explain.sanity_cases=0",
    ):
        changes += ["--set", change]
    ran = call("run", out, "--out", tmp_path / "run", "--threads", 1, "--json", *changes)
    assert ran.code == 0, ran.words
    assert ran.json["evaluation"]["diagnosis"]["proposed"]["auc"]["n"] == 40
