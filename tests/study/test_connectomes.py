"""One small study of connectomes beside clinical values, after two source stages, looked at from all sides."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from tests.study_files import Rows, read_json, read_rows, write_rows

from tenfold.bundle import Predictor, load
from tenfold.cohort.manifest import Cohort
from tenfold.cohort.split import read_splits
from tenfold.config import parse_study
from tenfold.errors import AuditError, CohortError, EncoderError, ImageError, Refusal, StudyError
from tenfold.modalities.connectome import ConnectomePreparation
from tenfold.simulate import SIMULATORS
from tenfold.study import Run, Study, evaluate_bundle
from tenfold.study import network_arm as arms_of_networks
from tenfold.study.preparing import connectomes_of
from tenfold.types import PredictionTable

REGIONS = 10
CLINICAL = ("gestational_age", "birth_weight", "bpd")
NEEDS = ("site", "mean_fd", "sex")
CHAIN = ["adults", "newborns", "infants"]

STUDY = """
title = "Small study of connectomes"
preset = "quick"
seed = 5

[[target]]
column = "cognitive"
kind = "score"
below = 85.0

[[target]]
column = "motor"
kind = "score"
below = 85.0

[inputs.connectome]
kind = "connectome"
regions = "regions.csv"
harmonise = "site"
confounds = ["mean_fd", "sex"]
options = { widths = [12, 6] }

[inputs.clinical]
kind = "table"
columns = ["gestational_age", "birth_weight", "bpd"]
encoder = "table_dense"
options = { width = 4 }

[network]
shared = 4
modality_dropout = 0.2

[training]
epochs = 3
batch = 8
rate = 1e-2
encoder_rate = 1e-2

[[stages]]
name = "adults"
cohort = "source/cohort.csv"
column = "diagnosis"

[[stages]]
name = "newborns"
cohort = "neonates/cohort.csv"
task = "reconstruct"
corrupt = 0.1

[[stages]]
name = "infants"

[[arms]]
name = "proposed"

[[arms]]
name = "no pre-training"
stages = ["infants"]

[[arms]]
name = "connectome only"
only = ["connectome"]

[[arms]]
name = "not adjusted"
only = ["connectome"]
inputs = { connectome = { harmonise = "", confounds = [] } }

[[arms]]
name = "cpm"
model = "cpm"
only = ["connectome"]

[validation]
folds = 2
inner = 0.3
holdout = 0.2
bootstraps = 100
family = "family"

[[external]]
name = "elsewhere"
cohort = "external/cohort.csv"

[explain]
cases = 2
"""


def _change(folder: Path, change: Callable[[int, dict[str, str]], dict[str, str]]) -> Rows:
    """Change cells of a cohort file, row by row."""
    rows = [{**row, **change(i, row)} for i, row in enumerate(read_rows(folder / "cohort.csv"))]
    write_rows(folder / "cohort.csv", rows)
    return rows


def _matrix(folder: Path, row: dict[str, str]) -> Any:
    return np.load(folder / row["connectome"])


def small_study(folder: Path) -> Path:
    """Infants of two sites, adults and neonates to learn from first, and other infants elsewhere."""
    sizes: dict[str, Any] = {"regions": REGIONS, "prevalence": 0.45}
    SIMULATORS["neurodevelopment"](folder, patients=28, seed=3, adults=24, neonates=20, **sizes)
    SIMULATORS["neurodevelopment"](folder / "external", patients=8, seed=4, adults=0, neonates=0, **sizes)
    for place in (folder, folder / "external"):
        _change(place, lambda i, _: {"site": "AB"[i % 2]})
    # one has no connectome, another no clinical value, a third one score only
    _change(folder, lambda i, _: {0: {"connectome": ""}, 1: dict.fromkeys(CLINICAL, ""), 2: {"motor": ""}}.get(i, {}))
    (folder / "study.toml").write_text(STUDY)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_study(tmp_path_factory.mktemp("connectomes") / "infants")


@pytest.fixture(scope="module")
def infants(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tenfold.study.external.write_report", lambda folder: folder)
        return Study.read(folder).run(out=tmp_path_factory.mktemp("connectome-runs") / "run", threads=1)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "infants", ignore=shutil.ignore_patterns(".tenfold")))


SHORT: dict[str, Any] = {
    "stages": [{"name": "infants", "epochs": 1}],
    "arms": [{"name": "connectome", "only": ["connectome"]}],
    "external": [],
    "explain": {"cases": 0},
}


# --- the run ---------------------------------------------------------------------------------------------------------


def test_every_arm_went_through_and_answers_whom_it_can(infants: Run, folder: Path) -> None:
    record = read_json(infants, "run.json")
    arms = record["arms"]
    assert set(arms) - {a for a in arms if arms[a]["kind"] == "altered"} == {
        "proposed", "no pre-training", "connectome only", "not adjusted", "cpm", "clinical only"
    }  # fmt: skip
    assert all(arm["status"] == "done" for arm in arms.values()), [a["reason"] for a in arms.values()]
    rows = read_rows(folder / "cohort.csv")
    every = {r["case"] for r in rows}
    lacking = {"connectome": rows[0]["case"], "clinical": rows[1]["case"], "motor": rows[2]["case"]}
    for target in ("cognitive", "motor"):
        known = every - ({lacking["motor"]} if target == "motor" else set())
        table = infants.predictions[target]
        for arm in ("proposed", "no pre-training"):
            assert set(table.select(arm=arm).case.tolist()) == known
        for arm in ("connectome only", "not adjusted", "cpm"):
            assert set(table.select(arm=arm).case.tolist()) == known - {lacking["connectome"]}
        assert set(table.select(arm="clinical only").case.tolist()) == known - {lacking["clinical"]}


def test_the_stages_are_those_of_the_arm(infants: Run) -> None:
    record = read_json(infants, "run.json")
    found = {arm: [s["name"] for s in stages] for arm, stages in record["stages"].items()}
    assert found["proposed"] == found["connectome only"] == found["not adjusted"] == CHAIN
    assert found["no pre-training"] == ["infants"]
    assert found["clinical only"] == ["infants"]
    tasks = {s["name"]: (s["task"], s["transferred"]) for s in record["stages"]["proposed"]}
    assert tasks["newborns"] == ("reconstruct", "all encoder weights of the stage before")
    own, unadjusted = (record["stages"][arm][1]["encoder"] for arm in ("connectome only", "not adjusted"))
    assert own == record["stages"]["proposed"][1]["encoder"] != unadjusted
    for stage in record["stages"]["proposed"]:
        assert all(np.isfinite(epoch["inner_loss"]) for epoch in stage["history"])


def test_an_encoder_stays_and_another_study_can_start_from_it(infants: Run, copy: Path) -> None:
    left = [s["file"] for s in read_json(infants, "run.json")["stages"]["connectome only"] if "file" in s]
    assert all((infants.folder / file).is_file() for file in left)
    with safe_open(infants.folder / left[-1], framework="pt") as file:
        assert json.loads(file.metadata()["stages"]) == CHAIN[:2]
        assert json.loads(file.metadata()["encoders"])["connectome"]["options"]["widths"] == [12, 6]
    shutil.copy(infants.folder / left[-1], copy / "taken.safetensors")
    changes = {
        "stages": [{"name": "taken over", "encoder": "taken.safetensors"}, {"name": "infants"}],
        "arms": [{"name": "connectome only", "only": ["connectome"]}],
        "external": [],
        "explain": {"cases": 0},
    }
    again = Study.read(copy, changes).run(out=copy / "run", threads=1)
    for target, table in infants.predictions.items():
        before, after = (t.select(arm="connectome only") for t in (table, again.predictions[target]))
        assert np.array_equal(before.probabilities, after.probabilities)
    taken, _ = read_json(again, "run.json")["stages"]["connectome only"]
    assert taken["encoder"] == read_json(infants, "run.json")["stages"]["connectome only"][1]["encoder"]
    assert "taken over" in again.report.read_text()


def test_an_encoder_that_does_not_fit_or_is_not_there_is_refused(infants: Run, copy: Path, undrawn: None) -> None:
    (file,) = {s["file"] for s in read_json(infants, "run.json")["stages"]["not adjusted"][:1]}
    shutil.copy(infants.folder / file, copy / "taken.safetensors")
    changes = {**SHORT, "stages": [{"name": "taken over", "encoder": "taken.safetensors"}, *SHORT["stages"]]}
    options = {"inputs": {"connectome": {"options": {"widths": [8, 6]}}}}
    with pytest.raises(EncoderError, match="does not fit"):
        Study.read(copy, {**changes, **options}).run(out=copy / "run", threads=1)
    (copy / "taken.safetensors").unlink()
    with pytest.raises(EncoderError, match="is not there"):
        Study.read(copy, changes).run(out=copy / "other", threads=1)


def test_folds_are_trained_together_where_they_can_be(infants: Run) -> None:
    arms = read_json(infants, "run.json")["arms"]
    assert [arms[a]["together"] for a in ("proposed", "connectome only", "clinical only")] == [False, True, True]


def test_arms_that_differ_say_something_else(infants: Run) -> None:
    table = infants.predictions["cognitive"]
    one = table.select(arm="connectome only", split="out_of_fold").probabilities
    for other in ("not adjusted", "cpm"):
        assert np.abs(one - table.select(arm=other, split="out_of_fold").probabilities).max() > 1e-6
    pair = [table.select(arm=arm).probabilities for arm in ("proposed", "no pre-training")]
    assert np.abs(pair[0] - pair[1]).max() > 1e-6


def test_twins_are_on_one_side(infants: Run, folder: Path) -> None:
    family = {r["case"]: r["family"] for r in read_rows(folder / "cohort.csv")}
    assert len(set(family.values())) < len(family)
    aside, splits = read_splits(infants.folder / "splits.csv")
    for split in splits:
        parts = [{family[c] for c in part} for part in (split.train, split.inner, split.test, aside)]
        assert sum(map(len, parts)) == len(set.union(*parts))


def test_each_fold_prepares_by_its_own_training_part_alone(infants: Run, folder: Path) -> None:
    config, cohort = Study.read(folder).config, Cohort.read(folder)
    whole = connectomes_of(config, cohort)["connectome"]
    _, splits = read_splits(infants.folder / "splits.csv")
    place = {case: i for i, case in enumerate(cohort.case.tolist())}
    predictor = load(infants.bundle)
    section = config.connectomes("connectome")[0]
    found = [own["connectome"] for own in predictor.connectomes]
    for split, fitted in zip(splits, found, strict=True):
        expected = whole.prepared_by(section, np.array([place[c] for c in split.train]))
        assert fitted.state() == expected.state()
        for name, array in expected.arrays().items():
            assert np.array_equal(fitted.arrays()[name], array), name
        assert set(fitted.needs) == set(NEEDS)
        assert fitted.kind_of("sex") == "category"
        assert fitted.kind_of("mean_fd") == "number"
    assert not np.array_equal(found[0].mean, found[1].mean)


def test_edges_are_explained_for_every_target(infants: Run) -> None:
    edges = read_json(infants, "explanations.json")["edges"]["connectome"]
    assert set(edges) == {"cognitive", "motor"}
    for found in edges.values():
        assert len(found["regions"]) == REGIONS
        assert (infants.folder / found["figure"]).is_file()


def test_the_record_and_the_report_name_what_was_adjusted_for(infants: Run) -> None:
    section = read_json(infants, "run.json")["inputs"]["connectome"]
    assert (section["kind"], section["harmonise"], section["confounds"]) == ("connectome", "site", ["mean_fd", "sex"])
    assert (infants.folder / "report.html").is_file()


@pytest.mark.parametrize("after", [1, 3])
def test_killed_and_resumed_it_writes_the_same_bytes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None, after: int
) -> None:
    changes = {"arms": [{"name": "connectome", "only": ["connectome"]}, {"name": "both"}], "external": []}
    study = Study.read(folder, {**changes, "explain": {"cases": 0}})
    whole = study.run(out=tmp_path / "whole", threads=1)
    run_fold, done = arms_of_networks.run_fold, []

    class Killed(BaseException):
        pass

    def killed(*arguments: Any, **named: Any) -> Any:
        if len(done) == after:
            raise Killed
        done.append(arguments[0])
        return run_fold(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(arms_of_networks, "run_fold", killed)
        with pytest.raises(Killed):
            study.run(out=tmp_path / "killed", threads=1)
    resumed = study.run(out=tmp_path / "killed", resume=True, threads=1)
    names = ["operating_points.csv", "evaluation.json", "evaluation_holdout.json"]
    for name in (*names, "predictions/cognitive.csv", "predictions/motor.csv"):
        assert (resumed.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name


# --- the bundle ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def predictor(infants: Run) -> Predictor:
    return load(infants.bundle)


def _given(folder: Path, row: dict[str, str]) -> dict[str, Any]:
    file = str(folder / row["connectome"]) if row["connectome"] else ""
    return {
        "connectome": {"file": file, **{name: row[name] for name in NEEDS}} if file else None,
        "clinical": {name: row[name] for name in CLINICAL},
    }


def test_the_bundle_gives_the_runs_own_holdout_predictions(infants: Run, folder: Path, predictor: Predictor) -> None:
    rows = {r["case"]: r for r in read_rows(folder / "cohort.csv")}
    for target in ("cognitive", "motor"):
        own, aside = predictor.of(target), infants.predictions[target].select(arm="proposed", split="holdout")
        assert len(aside) > 3
        answers = own.predict([_given(folder, rows[case]) for case in aside.case.tolist()])
        assert [a.probabilities["below 85"] for a in answers] == pytest.approx(aside.probability("below 85"), abs=1e-5)
        assert own.outcome["below"] == 85.0


def test_no_patient_and_no_path_is_in_the_bundle(infants: Run, folder: Path) -> None:
    for path in infants.bundle.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert str(folder).encode() not in content, path.name
            assert b"i3-0" not in content, path.name


@pytest.fixture
def one(folder: Path) -> dict[str, Any]:
    return _given(folder / "external", read_rows(folder / "external" / "cohort.csv")[0])


def test_a_case_may_lack_an_input(predictor: Predictor, one: dict[str, Any]) -> None:
    (whole,) = predictor.predict([one])
    for lacking in ("connectome", "clinical"):
        (found,) = predictor.predict([{**one, lacking: None}])
        assert found.missing == (lacking,)
        assert found.probabilities != whole.probabilities
    with pytest.raises(ImageError, match="nothing is given"):
        predictor.predict([{"connectome": None, "clinical": None}])


def test_an_unknown_site_passes(predictor: Predictor, one: dict[str, Any]) -> None:
    known, other, foreign = predictor.predict(
        [{**one, "connectome": {**one["connectome"], "site": site}} for site in ("A", "B", "Z")]
    )
    assert len({round(p.probabilities["below 85"], 9) for p in (known, other, foreign)}) == 3
    assert foreign.decision


def _other(path: Path, change: Callable[[Any], Any]) -> str:
    matrix = change(np.load(path).astype(np.float64))
    if isinstance(matrix, str):
        path = path.with_suffix(".csv")
        path.write_text(matrix)
    else:
        np.save(path, matrix, allow_pickle=False)
    return str(path)


def _set(matrix: Any, places: list[tuple[int, int]], value: float) -> Any:
    for i, j in places:
        matrix[i, j] = value
    return matrix


def _named(matrix: Any) -> str:
    """The same matrix, its regions in another order by name."""
    names = [f"region {k}" for k in range(len(matrix))]
    return "\n".join(",".join(row) for row in [names, *([f"{v:.6f}" for v in line] for line in matrix)])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m[:8, :8], "8"),
        (lambda m: np.pad(m, (0, 2), constant_values=0.1), "12"),
        (lambda m: m[:8, :], "not square"),
        (lambda m: _set(m, [(2, 3), (3, 2)], np.nan), "finite|nan|NaN|missing"),
        (lambda m: _set(m, [(2, 3)], 0.99), "symmetric"),
        (lambda m: _set(m, [(2, 3), (3, 2)], 1.5), "1.5"),
        (_named, "region"),
    ],
)
def test_a_connectome_that_is_none_or_of_another_atlas_is_refused_and_the_others_are_answered(
    predictor: Predictor, one: dict[str, Any], tmp_path: Path, change: Callable[[Any], Any], words: str
) -> None:
    path = Path(shutil.copy(one["connectome"]["file"], tmp_path / "other.npy"))
    wrong = {**one, "connectome": {**one["connectome"], "file": _other(path, change)}}
    with pytest.raises(CohortError, match=words):
        predictor.predict([wrong])
    bad, good = predictor.predict([wrong, one], on_error="return")
    assert bad.error
    assert good.decision


@pytest.mark.parametrize("column", NEEDS)
def test_a_covariate_that_is_missing_is_refused(predictor: Predictor, one: dict[str, Any], column: str) -> None:
    for cells in ({column: ""}, {column: None}):
        with pytest.raises(CohortError, match=f"{column} is not given"):
            predictor.predict([{**one, "connectome": {**one["connectome"], **cells}}])
    with pytest.raises(CohortError, match="is not given"):
        predictor.predict([one["connectome"]["file"]])


def test_a_covariate_that_is_no_number_and_a_file_that_is_not_there(predictor: Predictor, one: dict[str, Any]) -> None:
    for cells, words in (
        ({"mean_fd": "high"}, "not a number"),
        ({"file": "gone.npy"}, "gone.npy"),
        ({"file": ""}, "file"),
    ):
        with pytest.raises(CohortError, match=words):
            predictor.predict([{**one, "connectome": {**one["connectome"], **cells}}])


# --- other patients --------------------------------------------------------------------------------------------------


def test_the_external_set_is_answered_as_the_bundle_answers(infants: Run, folder: Path, predictor: Predictor) -> None:
    place = infants.folder / "external" / "elsewhere"
    rows = read_rows(folder / "external" / "cohort.csv")
    for target in ("cognitive", "motor"):
        table = PredictionTable.read(place / "predictions" / f"{target}.csv")
        answers = predictor.of(target).predict([_given(folder / "external", row) for row in rows])
        assert table.case.tolist() == [r["case"] for r in rows]
        assert table.probability("below 85") == pytest.approx([a.probabilities["below 85"] for a in answers], abs=1e-6)


def test_an_external_connectome_that_is_wrong_counts_as_absent_and_a_case_with_nothing_else_is_left_out(
    infants: Run, copy: Path, tmp_path: Path, predictor: Predictor, undrawn: None
) -> None:
    other = copy / "external"
    rows = _change(other, lambda i, _: dict.fromkeys(CLINICAL, "") if i == 1 else {})
    for row in rows[:2]:
        np.save(other / row["connectome"], np.full((REGIONS, REGIONS), np.nan), allow_pickle=False)
    run = evaluate_bundle(infants.bundle, Cohort.read(other), out=tmp_path / "out", bootstraps=100, threads=1)
    table = run.predictions["cognitive"]
    assert table.case.tolist() == [r["case"] for r in rows if r is not rows[1]]
    (alone,) = predictor.predict([{"clinical": {name: rows[0][name] for name in CLINICAL}}])
    assert table.probability("below 85")[0] == pytest.approx(alone.probabilities["below 85"], abs=1e-6)
    said = [f for f in read_rows(run.folder / "findings.csv") if f["check"] == "connectome"]
    assert {case for f in said for case in f["cases"].split()} == {rows[0]["case"], rows[1]["case"]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda i, _: {"mean_fd": ""} if i == 2 else {}, "row 4.*|mean_fd is not given"),
        (lambda i, _: {"mean_fd": "high"} if i == 2 else {}, "row 4|not a number"),
        (None, "needs column 'sex'|no column 'sex'"),
    ],
)
def test_an_external_covariate_that_is_missing_is_refused(
    infants: Run, copy: Path, tmp_path: Path, change: Callable[[int, dict[str, str]], dict[str, str]] | None, words: str
) -> None:
    other = copy / "external"
    if change is None:
        write_rows(
            other / "cohort.csv", [{k: v for k, v in r.items() if k != "sex"} for r in read_rows(other / "cohort.csv")]
        )
    else:
        _change(other, change)
    with pytest.raises(Refusal, match=words):
        evaluate_bundle(infants.bundle, Cohort.read(other), out=tmp_path / "out", bootstraps=100, threads=1)
    assert not (tmp_path / "out").exists()


def test_infants_of_the_study_are_not_external(infants: Run, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="were in the study"):
        evaluate_bundle(infants.bundle, Cohort.read(folder), out=tmp_path / "out", threads=1)


def test_a_site_that_no_training_part_held_may_be_refused(copy: Path, tmp_path: Path, undrawn: None) -> None:
    run = Study.read(copy, {**SHORT, "inputs": {"connectome": {"unseen": "refuse"}}}).run(
        out=tmp_path / "run", threads=1
    )
    predictor = load(run.bundle)
    row = read_rows(copy / "external" / "cohort.csv")[0]
    given = {"connectome": _given(copy / "external", row)["connectome"]}
    assert predictor.predict([given])[0].decision
    with pytest.raises(CohortError, match="'Z'"):
        predictor.predict([{"connectome": {**given["connectome"], "site": "Z"}}])


# --- refusals --------------------------------------------------------------------------------------------------------


def _nan(folder: Path) -> None:
    row = read_rows(folder / "cohort.csv")[4]
    np.save(folder / row["connectome"], _set(_matrix(folder, row), [(1, 2), (2, 1)], np.nan), allow_pickle=False)


def _smaller(folder: Path) -> None:
    row = read_rows(folder / "cohort.csv")[4]
    np.save(folder / row["connectome"], _matrix(folder, row)[:8, :8], allow_pickle=False)


def _twice(folder: Path) -> None:
    rows = read_rows(folder / "cohort.csv")
    shutil.copy(folder / rows[3]["connectome"], folder / rows[4]["connectome"])


def _without_motion(folder: Path) -> None:
    _change(folder, lambda i, _: {"mean_fd": ""} if i == 4 else {})


def _word_for_motion(folder: Path) -> None:
    """One word among the numbers would make a category of them all, each person a level."""
    _change(folder, lambda i, _: {"mean_fd": "high"} if i == 4 else {})


def _one_class(folder: Path) -> None:
    _change(folder, lambda *_: {"motor": "100"})


def _no_outcome(folder: Path) -> None:
    _change(folder, lambda *_: {"motor": ""})


def _nothing_at_all(folder: Path) -> None:
    _change(folder, lambda i, _: {"connectome": "", **dict.fromkeys(CLINICAL, "")} if i == 4 else {})


def _shared_name(folder: Path) -> None:
    name = read_rows(folder / "cohort.csv")[4]["patient"]
    _change(folder / "neonates", lambda i, _: {"patient": name} if i == 1 else {})


def _shared_connectome(folder: Path) -> None:
    own, other = read_rows(folder / "cohort.csv")[4], read_rows(folder / "source" / "cohort.csv")[7]
    shutil.copy(folder / own["connectome"], folder / "source" / other["connectome"])


def _other_atlas(folder: Path) -> None:
    regions = read_rows(folder / "source" / "regions.csv")
    write_rows(folder / "source" / "regions.csv", [{**r, "name": f"area {i}"} for i, r in enumerate(regions)])


def _wrong_source(folder: Path) -> None:
    row = read_rows(folder / "source" / "cohort.csv")[2]
    np.save(folder / "source" / row["connectome"], np.full((REGIONS, REGIONS), np.nan), allow_pickle=False)


def _source_without_sex(folder: Path) -> None:
    rows = read_rows(folder / "source" / "cohort.csv")
    write_rows(folder / "source" / "cohort.csv", [{k: v for k, v in r.items() if k != "sex"} for r in rows])


def _shared_with_external(folder: Path) -> None:
    name = read_rows(folder / "cohort.csv")[4]["patient"]
    _change(folder / "external", lambda i, _: {"patient": name} if i == 1 else {})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_nan, "row 6, patient i3-0005"),
        (_smaller, "row 6, patient i3-0005"),
        (_twice, "i3-0004|row 5"),
        (_without_motion, "row 6, patient i3-0005, column mean_fd: the cell is empty"),
        (_word_for_motion, "row 6, patient i3-0005, column mean_fd"),
        (_one_class, "Target motor:.*no case has the class 'below 85'"),
        (_no_outcome, "Target motor:.*there is no outcome at all"),
        (_nothing_at_all, "row 6, patient i3-0005"),
        (_shared_name, "1 subjects of stage 'newborns' are also patients of the study, i3-0005 among them"),
        (_shared_connectome, "patient i3-0005 and subject a3-0008 of stage 'adults' have the same connectome"),
        (_other_atlas, "stage 'adults' has 10 regions.*or they bear other names"),
        (_wrong_source, "row 4, patient a3-0003"),
        (_source_without_sex, "stage 'adults' needs column 'sex'"),
        (_shared_with_external, "shares patient i3-0005"),
    ],
)
def test_a_cohort_that_would_deceive_is_refused_before_anything_is_fitted(
    copy: Path, tmp_path: Path, change: Callable[[Path], None], words: str
) -> None:
    change(copy)
    with pytest.raises(Refusal, match=words):
        Study.read(copy).run(out=tmp_path / "out", threads=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"inputs": {"connectome": {"harmonise": "sites"}}}, StudyError, "did you mean 'site'"),
        ({"inputs": {"connectome": {"confounds": ["mean_df"]}}}, StudyError, "did you mean 'mean_fd'"),
        ({"inputs": {"connectome": {"column": "conectome"}}}, StudyError, "did you mean 'connectome'"),
        ({"inputs": {"connectome": {"keep": ["cognitive"]}}}, StudyError, "names the outcome 'cognitive'"),
        ({"inputs": {"connectome": {"regions": "region.csv"}}}, Refusal, "region"),
        ({"inputs": {"connectome": {"encoder": "table_dense", "options": {}}}}, EncoderError, "table"),
        ({"inputs": {"connectome": {"motion": "mean_fd", "most_motion": 0.01}}}, AuditError, "mean_fd"),
        ({"arms": [{"name": "a"}, {"name": "b", "inputs": {"connectome": {"keep": ["ages"]}}}]}, StudyError, "ages"),
        (
            {"arms": [{"name": "a"}, {"name": "b", "inputs": {"connectome": {"holds": "timeseries"}}}]},
            StudyError,
            "replaces holds of input 'connectome'",
        ),
    ],
)
def test_impossible_studies_are_refused_before_anything_is_written(
    folder: Path, tmp_path: Path, changes: dict[str, Any], error: type[Refusal], words: str
) -> None:
    with pytest.raises(error, match=words.replace("'", ".")):
        Study.read(folder, changes).run(out=tmp_path / "out", threads=1)
    assert not (tmp_path / "out").exists()


def test_an_arm_may_adjust_for_what_the_study_does_not(copy: Path, tmp_path: Path, undrawn: None) -> None:
    arms = [{"name": "plain", "only": ["connectome"]}]
    arms += [{"name": "adjusted", "only": ["connectome"], "inputs": {"connectome": {"confounds": ["pma_at_scan"]}}}]
    inputs = {"connectome": {"harmonise": "", "confounds": []}}
    run = Study.read(copy, {**SHORT, "arms": arms, "inputs": inputs}).run(out=tmp_path / "run", threads=1)
    assert all(arm["status"] == "done" for arm in read_json(run, "run.json")["arms"].values())
    assert load(run.bundle).connectomes[0]["connectome"].needs == ()
    both = [run.predictions["cognitive"].select(arm=arm).probabilities for arm in ("plain", "adjusted")]
    assert np.abs(both[0] - both[1]).max() > 1e-6


def test_who_is_not_eligible_may_lack_a_covariate_and_have_a_wrong_connectome(
    copy: Path, tmp_path: Path, undrawn: None
) -> None:
    _nan(copy)
    rows = _change(copy, lambda i, _: {"mean_fd": "", "site": "gone"} if i == 4 else {})
    rules = [{"name": "scanned elsewhere", "column": "site", "exclude": ["gone"]}]
    run = Study.read(copy, {**SHORT, "eligibility": rules}).run(out=tmp_path / "run", threads=1)
    assert rows[4]["case"] not in run.predictions["cognitive"].case
    assert isinstance(load(run.bundle).connectomes[0]["connectome"], ConnectomePreparation)


def test_tangent_space_goes_through_a_whole_study(copy: Path, tmp_path: Path, undrawn: None) -> None:
    rng = np.random.default_rng(0)
    for row in read_rows(copy / "cohort.csv"):
        if row["connectome"]:
            matrix = np.corrcoef(rng.standard_normal((REGIONS, 60)))
            np.save(copy / row["connectome"], (matrix + matrix.T) / 2, allow_pickle=False)
    run = Study.read(copy, {**SHORT, "inputs": {"connectome": {"space": "tangent"}}}).run(
        out=tmp_path / "run", threads=1
    )
    own = [fitted["connectome"] for fitted in load(run.bundle).connectomes]
    assert all(fitted.whiten.shape == (REGIONS, REGIONS) for fitted in own)
    assert not np.allclose(own[0].whiten, own[1].whiten)


def test_an_arm_without_connectomes_cannot_reconstruct_them() -> None:
    with pytest.raises(StudyError, match="no input holds them"):
        parse_study(
            {
                "target": "y",
                "inputs": {"film": {}},
                "stages": [{"name": "a", "cohort": "c.csv", "task": "reconstruct"}, {"name": "b"}],
            }
        )
