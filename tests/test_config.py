from __future__ import annotations

import json
import tomllib
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
from tenfold.training.classical import MODELS


def test_a_target_is_enough() -> None:
    study = parse_study({"target": "diagnosis"})
    (target,) = study.target
    assert (target.column, target.called, target.kind) == ("diagnosis", "diagnosis", "class")
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


CONNECTOME = {"connectome": {"kind": "connectome", "harmonise": "site", "keep": ["age"], "confounds": ["sex"]}}
SEVERAL: list[dict[str, object]] = [
    {"column": "score", "name": "cognition", "kind": "score", "below": 85},
    {"column": "level", "kind": "ordinal", "classes": ["mild", "moderate", "severe"], "positive": "moderate"},
    {"column": "disease", "classes": ["no", "yes"]},
]


def test_several_targets_have_names_kinds_and_cuts() -> None:
    study = parse_study({"target": SEVERAL})
    assert [(t.called, t.kind, t.below) for t in study.target] == [
        ("cognition", "score", 85.0),
        ("level", "ordinal", None),
        ("disease", "class", None),
    ]
    assert [t.column for t in parse_study({"target": ["a", "b"]}).target] == ["a", "b"]


def test_a_connectome_is_an_input_of_models_too() -> None:
    study = parse_study(
        {
            "target": SEVERAL,
            "inputs": {**CONNECTOME, "clinical": {"kind": "table"}},
            "arms": [
                {"name": "a"},
                {"name": "b", "single": True},
                {"name": "c", "model": "cpm", "only": ["connectome"]},
            ],
            "stages": [{"name": "before", "cohort": "x.csv", "task": "reconstruct"}, {"name": "own"}],
        }
    )
    assert [list(study.inputs_of(arm)) for arm in study.arms] == [["connectome", "clinical"]] * 2 + [["connectome"]]
    assert study.inputs["connectome"].encoder == "connectome_dense"
    assert study.inputs["connectome"].unseen == "pass"


TWO = {"film": {}, "labs": {"kind": "table", "columns": ["crp"]}}


def _arms(*arms: dict[str, object], **more: object) -> dict[str, object]:
    return {"target": "y", "inputs": TWO, "arms": [{"name": "a"}, *arms], **more}


def test_an_arm_sees_all_inputs_unless_it_says_which_and_a_model_the_table() -> None:
    study = parse_study(_arms({"name": "b", "only": ["film"]}, {"name": "c", "model": "svm"}))
    assert [list(study.inputs_of(arm)) for arm in study.arms] == [["film", "labs"], ["film"], ["labs"]]
    assert study.inputs["labs"].encoder == "table_mlp"
    assert study.inputs["film"].kind == "image"


def test_an_arm_may_join_its_inputs_otherwise() -> None:
    study = parse_study(_arms({"name": "b", "network": {"fusion": "gated"}}, network={"modality_dropout": 0.5}))
    joined = [study.network_of(arm) for arm in study.arms]
    assert [network.fusion for network in joined] == ["concat", "gated"]
    assert [network.modality_dropout for network in joined] == [0.5, 0.5]


def test_subgroups_and_rules_have_a_short_form() -> None:
    rules = [{"name": "too old", "column": "age", "high": 28}, {"name": "again", "first_by": "date"}]
    cut = {"column": "age", "cuts": [7, 14]}
    study = parse_study({"target": "y", "eligibility": rules, "validation": {"subgroups": ["sex", cut]}})
    assert [(g.column, g.cuts) for g in study.validation.subgroups] == [("sex", ()), ("age", (7.0, 14.0))]
    assert (study.eligibility[0].high, study.eligibility[0].low, study.eligibility[1].first_by) == (28, None, "date")


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
        ({"target": "y", "inputs": {"labs": {"kind": "tabel"}}}, "did you mean 'table'"),
        ({"target": "y", "inputs": {"labs": {"kind": "table", "size": 3}}}, "unknown key 'size'"),
        ({"target": "y", "inputs": {"film": {"screen": 3}}}, "unknown key 'screen'"),
        (_arms({"name": "b", "only": ["lab"]}), "did you mean 'labs'"),
        (_arms({"name": "b", "inputs": {"labs": {"kind": "image"}}}), "makes input 'labs' a image"),
        (_arms({"name": "b", "model": "svm", "combine": ["a"]}), "both a model and arms"),
        (_arms({"name": "b", "model": "svm", "only": ["film"]}), "one table or connectome but sees film"),
        (_arms({"name": "b", "model": "svm", "only": ["film", "labs"]}), "one table or connectome but sees film, labs"),
        (_arms({"name": "b", "model": "svm"}, inputs={**TWO, "more": {"kind": "table"}}), "sees labs, more"),
        (
            {"target": "y", "arms": [{"name": "a"}, {"name": "b", "model": "svm"}]},
            "one table or connectome but sees none",
        ),
        (_arms({"name": "b", "combine": ["a"]}), "combines one arm"),
        (_arms({"name": "b", "combine": ["a", "c"]}, {"name": "c"}), "no arm above it"),
        (_arms({"name": "b", "combine": ["a", "b"]}), "no arm above it"),
        (_arms({"name": "b", "network": {"fusion": "gate"}}), "network.fusion|fusion"),
        (_arms({"name": "b", "network": {"fusoin": "gated"}}), "did you mean 'fusion'"),
        ({"target": "y", "inputs": TWO, "arms": [{"name": "a", "model": "svm"}]}, "no network"),
        ({"target": "y", "network": {"modality_dropout": 1.0}}, "modality_dropout"),
        ({"target": "y", "eligibility": [{"name": "a", "colunm": "x"}]}, "did you mean 'column'"),
        ({"target": "y", "external": [{"name": "a/b", "cohort": "x.csv"}]}, "external.0.name"),
        ({"target": "y", "validation": {"conformal_alpha": 0.6}}, "conformal_alpha"),
        ({"target": []}, "target"),
        ({"target": ["y", "y"]}, "two targets are called 'y'"),
        ({"target": [{"column": "y"}, {"column": "z", "name": "y"}]}, "two targets are called 'y'"),
        ({"target": {"column": "y", "name": "a/b"}}, "target.0.name"),
        ({"target": {"column": "y", "kind": "scores"}}, "target.0.kind"),
        ({"target": {"column": "y", "belw": 3}}, "did you mean 'below'"),
        ({"target": {"column": "y", "kind": "score"}}, "has 0 cuts"),
        ({"target": {"column": "y", "kind": "score", "below": 1, "above": 2}}, "has 2 cuts"),
        ({"target": {"column": "y", "kind": "score", "below": 1, "positive": "low"}}, "a positive class 'low'"),
        ({"target": {"column": "y", "kind": "score", "below": 1, "classes": ["a"]}}, "1 class names"),
        ({"target": {"column": "y", "below": 1}}, "is cut but no score"),
        ({"target": {"column": "y", "kind": "ordinal"}}, "not named"),
        (
            {"target": {"column": "y", "kind": "ordinal", "classes": ["a", "b"]}},
            "expected.*above the lowest|above the low",
        ),
        ({"target": {"column": "y", "kind": "ordinal", "classes": ["a", "b"], "positive": "a"}}, "yes from 'a' on"),
        ({"target": {"column": "y", "classes": ["a", "b"], "positive": "c"}}, "'c' of 'y' is none of its classes"),
        ({"target": {"column": "y", "classes": ["a", "b", "a"]}}, "names a class twice"),
        ({"target": ["y", "z"], "arms": [{"name": "a", "single": True}]}, "a network for each target"),
        *(
            (
                {"target": ["x", column], "inputs": CONNECTOME},
                f"{key} of input 'connectome' names the outcome '{column}'",
            )
            for key, column in (("harmonise", "site"), ("keep", "age"), ("confounds", "sex"))
        ),
        (
            {
                "target": "y",
                "inputs": CONNECTOME,
                "arms": [{"name": "a"}, {"name": "b", "inputs": {"connectome": {"keep": ["y"]}}}],
            },
            "names the outcome 'y'",
        ),
        ({"target": "y", "inputs": {"c": {"kind": "connectome", "space": "fisher"}}}, "space"),
        ({"target": "y", "inputs": {"c": {"kind": "connectome", "confound": ["age"]}}}, "did you mean 'confounds'"),
        (
            {"target": "y", "stages": [{"name": "a", "cohort": "x.csv", "task": "reconstruct"}, {"name": "b"}]},
            "no input holds them",
        ),
        *(
            (
                {
                    "target": "y",
                    "inputs": CONNECTOME,
                    "stages": [{"name": "a", "columns": ["f"], **stage}, {"name": "b"}],
                },
                "names no cohort",
            )
            for stage in ({"task": "reconstruct"}, {"task": "multilabel"})
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
    for document in (
        {"target": "y", "preset": "paper", "system": "pneumonia"},
        {**tomllib.loads(builtin_study_text("nec_simulated.toml"))},
        {**tomllib.loads(builtin_study_text("neurodevelopment_simulated.toml"))},
        {"target": SEVERAL, "inputs": CONNECTOME},
    ):
        study = parse_study(document)
        write_study(study, tmp_path / "study.toml")
        assert read_study(tmp_path / "study.toml") == study


@pytest.mark.parametrize("preset", [p for p in PRESETS if p != "paper"])
def test_every_preset_is_a_valid_study(preset: str) -> None:
    assert parse_study({"target": "y", "preset": preset}).preset == preset


def test_the_simulated_studies_are_valid() -> None:
    study = parse_study(tomllib.loads(builtin_study_text("pneumonia_simulated.toml")))
    assert [s.name for s in study.stages] == ["adults", "children"]
    fused = parse_study(tomllib.loads(builtin_study_text("nec_simulated.toml")))
    assert {name: section.kind for name, section in fused.inputs.items()} == {"film": "image", "labs": "table"}
    assert {arm.model for arm in fused.arms if arm.model} <= set(MODELS)


def test_the_schema_in_the_docs_is_the_codes() -> None:
    shipped = Path(__file__).parents[1] / "docs" / "reference" / "study.schema.json"
    assert shipped.read_text("utf-8") == study_schema(), "run `make docs`"
    assert json.loads(study_schema())["properties"]["preset"]["enum"] == list(PRESETS)
