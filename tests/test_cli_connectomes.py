"""The command with connectomes and several outcomes: what is simulated and imported comes with a study that reads."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
from tests.calling import call

from tenfold.cohort.manifest import Cohort
from tenfold.config import builtin_study_text, parse_study, read_study

SMALL = ["--patients", 20, "--adults", 12, "--neonates", 11, "--regions", 10]


def test_simulated_infants_come_with_a_study_of_what_lies_there(tmp_path: Path) -> None:
    done = call("simulate", "neurodevelopment", *SMALL, "--missing-scores", 0.2, "--out", tmp_path / "sim", "--json")
    assert (done.code, done.err) == (0, "")
    assert 0.5 < done.json["ceiling_auc"] < 1
    study = read_study(Path(done.json["study"]))
    infants = Cohort.read(tmp_path / "sim" / study.cohort.file)
    assert len(infants) == 20
    named = [target.column for target in study.target] + [study.validation.family, "connectome"]
    assert set(named) <= set(infants.columns)
    assert "" in infants.labels("language").tolist()
    adults, neonates = (Cohort.read(tmp_path / "sim" / stage.cohort) for stage in study.stages[:2])
    assert (len(adults), len(neonates)) == (12, 11)
    assert set(adults.labels(study.stages[0].column).tolist()) == {"autism", "control"}
    for cohort in (infants, adults, neonates):
        assert (cohort.folder / study.inputs["connectome"].regions).is_file()


@pytest.mark.parametrize(
    ("system", "option", "value", "words"),
    [
        ("nec", "--transfer", 0.5, "takes no --transfer"),
        ("neurodevelopment", "--size", 64, "takes no --size"),
        ("neurodevelopment", "--preset", "papr", "did you mean 'paper'"),
        ("neurodevelopment", "--regions", 4000, "regions = 4000"),
    ],
)
def test_options_of_another_simulator_are_refused(
    tmp_path: Path, system: str, option: str, value: object, words: str
) -> None:
    done = call("simulate", system, option, value, "--out", tmp_path / "sim")
    assert done.code == 1
    assert words in done.words
    assert not (tmp_path / "sim").exists()


def test_the_arms_of_the_simulated_study_differ_by_the_stages_that_they_leave_out() -> None:
    study = parse_study(tomllib.loads(builtin_study_text("neurodevelopment_simulated.toml")))
    stages = {arm.name: "".join(stage.name[0] for stage in study.stages_of(arm)) for arm in study.arms}
    assert [stages[n] for n in ("proposed", "no pre-training", "stage A only", "stage B only")] == [
        *("ABC", "C", "AC", "BC")
    ]
    seen = {arm.name: list(study.inputs_of(arm)) for arm in study.arms}
    assert seen["proposed"] == ["connectome", "clinical"]
    assert seen["clinical only"] == ["clinical"]
    assert all(seen[arm.name] == ["connectome"] for arm in study.arms if arm.model)


def test_the_paper_preset_holds_the_code_of_the_authors() -> None:
    target = {"column": "cognitive", "kind": "score", "below": 85}
    paper = parse_study({"target": [target], "preset": "paper", "system": "neurodevelopment"})
    assert paper.inputs["connectome"].options == {"widths": [128, 32], "norm": "batch", "dropout": 0.0}
    assert paper.inputs["clinical"].options == {"width": 16, "norm": "batch", "dropout": 0.0}
    assert (paper.network.shared, paper.network.norm, paper.network.head_norm) == (8, "batch", True)
    infants = paper.stages[-1].training(paper.training)
    assert (infants.optimizer, infants.rate, infants.batch, infants.epochs) == ("sgd", 0.01, 8, 10)
    assert paper.arms[0].flaws


# importing -----------------------------------------------------------------------------------------------------------


def derivatives(folder: Path) -> Path:
    """Fourteen subjects with a matrix each, a score and a verdict."""
    rng = np.random.default_rng(1)
    people = ["participant_id\tsite\tage\tscore\tdelay"]
    for k in range(14):
        place = folder / f"sub-{k:02d}" / "func"
        place.mkdir(parents=True)
        matrix = np.corrcoef(rng.standard_normal((4, 30)))
        np.savetxt(place / f"sub-{k:02d}_task-rest_atlas-AAL_relmat.tsv", matrix, delimiter="\t")
        people.append(f"sub-{k:02d}\t{'AB'[k % 2]}\t{k + 2}\t{80 + k}\t{'yes' if k < 5 else 'no'}")
    (folder / "participants.tsv").write_text("\n".join(people) + "\n")
    return folder


def test_import_bids_takes_one_verdict(tmp_path: Path) -> None:
    source = derivatives(tmp_path / "in")
    done = call("import", "bids", source, "--out", tmp_path / "out", "--target", "delay", "--json")
    assert (done.code, done.err) == (0, "")
    cohort = Cohort.read(tmp_path / "out")
    assert cohort.labels("connectome")[0] == "connectomes/sub-00.npy"
    assert not (tmp_path / "out" / "images").exists()
    study = read_study(Path(done.json["study"]))
    assert study.target[0].column == "delay"
    assert study.inputs["connectome"].kind == "connectome"


def test_import_bids_leaves_the_cut_of_a_score_to_its_owner(tmp_path: Path) -> None:
    asked = ["--target", "score", "--target", "delay"]
    done = call("import", "bids", derivatives(tmp_path / "in"), "--out", tmp_path / "out", *asked)
    assert done.code == 0, done.err
    refused = call("check", tmp_path / "out")
    assert refused.code == 1
    assert "the score 'score' has 0 cuts" in refused.words
    text = (tmp_path / "out" / "study.toml").read_text()
    (tmp_path / "out" / "study.toml").write_text(text.replace("# below = 85.0", "below = 85.0"))
    study = read_study(tmp_path / "out" / "study.toml")
    assert [(t.column, t.kind, t.below) for t in study.target] == [("score", "score", 85.0), ("delay", "class", None)]


@pytest.mark.parametrize(
    ("layout", "options", "words"),
    [
        ("bids", ["--target", "delay", "--atlas", "AAl"], "did you mean 'AAL'"),
        ("bids", ["--target", "delay", "--holds", "timeseries"], "no file is of holds 'timeseries'"),
        ("bids", ["--target", "score", "--target", "dely"], "did you mean 'delay'"),
        ("bids", ["--target", "participant"], "no column 'participant'"),
        ("abide", ["--target", "delay"], "takes no --target"),
        ("abide", [], "neither phenotype.csv"),
        ("folders", ["--patient", "(?P<patient>.)", "--target", "a", "--target", "b"], "2 outcomes"),
    ],
)
def test_import_says_what_it_cannot_take(tmp_path: Path, layout: str, options: list[str], words: str) -> None:
    done = call("import", layout, derivatives(tmp_path / "in"), "--out", tmp_path / "out", *options)
    assert done.code == 1
    assert words in done.words
    assert not (tmp_path / "out").exists()


@pytest.mark.shared
def test_abide_imports_and_reads(shared_data: Path, tmp_path: Path) -> None:
    done = call("import", "abide", shared_data / "abide", "--out", tmp_path / "abide", "--json")
    assert (done.code, done.err) == (0, "")
    assert any("709 subjects of 16 sites" in text for text in done.json["note"])
    study = read_study(Path(done.json["study"]))
    section = study.inputs["connectome"]
    assert (section.kind, section.regions) == ("connectome", "regions.csv")
    cohort = Cohort.read(tmp_path / "abide")
    assert cohort.labels("connectome")[0].startswith("connectomes/")
    assert cohort.paths("connectome")[0].is_file()
