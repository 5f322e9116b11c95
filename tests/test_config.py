from __future__ import annotations

import json
from pathlib import Path

import pytest

from tenfold.config import (
    PRESETS,
    builtin_study_text,
    parse_study,
    read_study,
    study_schema,
    write_study,
)
from tenfold.errors import StudyError


def test_a_target_is_enough() -> None:
    study = parse_study({"target": "diagnosis"})
    assert study.target.column == "diagnosis"
    assert study.preset == "standard"
    assert study.validation.folds == 10


def test_a_preset_sets_what_the_file_leaves_out_and_no_more() -> None:
    quick = parse_study({"target": "y", "preset": "quick", "validation": {"repeats": 2}})
    assert (quick.validation.folds, quick.validation.repeats) == (5, 2)
    assert parse_study({"target": "y", "preset": "quick", "validation": {"folds": 7}}).validation.folds == 7


def test_the_paper_preset_holds_the_published_settings() -> None:
    paper = parse_study({"target": "y", "preset": "paper", "system": "pneumonia"})
    assert (paper.training.batch, paper.training.epochs, paper.training.optimizer) == (64, 100, "adam")
    assert (paper.inputs["film"].size, paper.network.hidden, paper.network.head) == (150, 128, "two_sigmoid")
    assert [arm.name.split(",")[0] for arm in paper.arms[1:5]] == ["VGG16", "DenseNet121", "InceptionV3", "Xception"]
    assert paper.arms[0].flaws


def test_a_stage_overrides_the_studys_training() -> None:
    study = parse_study({"target": "y", "training": {"rate": 0.5}, "stages": [{"name": "a", "epochs": 3}]})
    recipe = study.stages[0].training(study.training)
    assert (recipe.epochs, recipe.rate) == (3, 0.5)


def test_an_arm_replaces_single_keys_of_an_input() -> None:
    study = parse_study(
        {
            "target": "y",
            "inputs": {"film": {"size": 96, "network": "resnet34"}},
            "arms": [{"name": "a"}, {"name": "b", "inputs": {"film": {"network": "vgg16"}}}],
        }
    )
    changed = study.inputs_of(study.arms[1])["film"]
    assert (changed.size, changed.network) == (96, "vgg16")


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"target": "y", "traning": {}}, "did you mean 'training'"),
        ({"target": "y", "inputs": {"film": {"sise": 3}}}, "did you mean 'size'"),
        ({"target": "y", "arms": [{"name": "a", "inputs": {"film": {"netwrk": "x"}}}]}, "did you mean 'network'"),
        ({"target": "y", "preset": "quik"}, "did you mean 'quick'"),
        ({"target": "y", "preset": "paper"}, "whose paper"),
        ({"target": "y", "system": "pnemonia"}, "did you mean 'pneumonia'"),
        ({}, "target"),
        ({"target": "y", "validation": {"folds": 1}}, "validation.folds"),
        ({"target": "y", "stages": [{"name": "a"}, {"name": "a"}]}, "two stages"),
        ({"target": "y", "stages": [{"name": "a", "cohort": "x.csv", "column": "z"}]}, "last stage"),
        ({"target": "y", "stages": [{"name": "a", "task": "multilabel"}]}, "names no columns"),
        ({"target": "y", "arms": [{"name": "a", "stages": ["diagnosi"]}]}, "did you mean 'diagnosis'"),
        ({"target": "y", "validation": {"operating_point": {"rule": "sensitivity"}}}, "has no value"),
        (
            {"target": "y", "inputs": {"film": {}}, "arms": [{"name": "a", "inputs": {"fil": {}}}]},
            "did you mean 'film'",
        ),
    ],
)
def test_refusals_name_what_came_and_what_is_near(document: dict[str, object], words: str) -> None:
    with pytest.raises(StudyError, match=words.replace("'", ".")):
        parse_study(document)


def test_a_refusal_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text('target = "y"\n\n[validation]\nfolts = 5\n')
    with pytest.raises(StudyError, match=r"study\.toml line 4.*\n.*folds"):
        read_study(path)


@pytest.mark.parametrize("content", [b"target = ", b"\xff\xfe", None])
def test_what_is_no_toml_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "study.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StudyError, match=r"study\.toml"):
        read_study(path)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    study = parse_study({"target": "y", "preset": "paper", "system": "pneumonia"})
    write_study(study, tmp_path / "study.toml")
    assert read_study(tmp_path / "study.toml") == study


@pytest.mark.parametrize("preset", [p for p in PRESETS if p != "paper"])
def test_every_preset_is_a_valid_study(preset: str) -> None:
    assert parse_study({"target": "y", "preset": preset}).preset == preset


def test_the_simulated_study_is_valid() -> None:
    import tomllib

    study = parse_study(tomllib.loads(builtin_study_text("pneumonia_simulated.toml")))
    assert [s.name for s in study.stages] == ["adults", "children"]


def test_the_schema_in_the_docs_is_the_codes() -> None:
    shipped = Path(__file__).parents[1] / "docs" / "reference" / "study.schema.json"
    assert shipped.read_text("utf-8") == study_schema(), "run `make docs`"
    assert json.loads(study_schema())["properties"]["preset"]["enum"] == list(PRESETS)
