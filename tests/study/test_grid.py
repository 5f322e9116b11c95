"""The ablation grid: which arms it adds, what it refuses, and a small one that is run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.study.lymph_nodes import small_cohort
from tests.study_files import read_json

from tenfold import encoders
from tenfold.bundle import load
from tenfold.config import ArmSection, StudyFile, parse_study, read_study, write_study
from tenfold.errors import EncoderError, StudyError, TrainingError
from tenfold.study import Run, Study
from tenfold.study import network_arm as arms_of_networks
from tenfold.study import study as order
from tenfold.study.grid import cells_of, grid_tests, with_grid
from tenfold.study.results import Told
from tenfold.types import OperatingPoint, PredictionTable

BASE: dict[str, Any] = {
    "target": {"column": "diagnosis"},
    "inputs": {
        "grey": {"size": 64, "options": {"width": 4}, "encoder": "image_residual_dilated"},
        "colour": {"size": 48, "channels": 3, "share": ""},
        "notes": {"kind": "table"},
    },
    "stages": [
        {"name": "nodules", "cohort": "source.csv", "column": "kind"},
        {"name": "nodes"},
    ],
    "arms": [{"name": "proposed", "only": ["grey", "notes"]}],
    "grid": {
        "networks": ["resnet18", "vit_tiny"],
        "weights": "imagenet",
        "stages": ["nodules"],
        "sizes": {"vit_tiny": 96},
    },
}


def config(**grid: Any) -> StudyFile:
    return parse_study({**BASE, "grid": {**BASE["grid"], **grid}})


def added(study: StudyFile) -> dict[str, ArmSection]:
    return {arm.name: arm for arm in with_grid(study).arms if arm.name != "proposed"}


# --- which arms ------------------------------------------------------------------------------------------------------


def test_every_network_sees_every_view_and_all_of_them_from_both_starts() -> None:
    arms = added(config())
    views = ("grey", "colour", "fused")
    assert list(arms) == [
        f"{network}, {view}, {start}"
        for network in ("resnet18", "vit_tiny")
        for view in views
        for start in ("pre-trained", "scratch")
    ]
    assert with_grid(config()).arms[0].name == "proposed"
    # a table is no view
    assert {arm.only for arm in arms.values()} == {("grey",), ("colour",), ("grey", "colour")}


def test_an_arm_has_its_network_weights_size_and_stages() -> None:
    study = with_grid(config())
    by_name = {arm.name: arm for arm in study.arms}
    one, other = by_name["vit_tiny, fused, pre-trained"], by_name["resnet18, grey, scratch"]
    seen = study.inputs_of(one)
    assert {(n, s.network, s.weights, s.size, s.channels) for n, s in seen.items()} == {  # type: ignore[union-attr]
        ("grey", "vit_tiny", "imagenet", 96, 1),
        ("colour", "vit_tiny", "imagenet", 96, 3),
    }
    (grey,) = study.inputs_of(other).values()
    # the options were those of the study's own encoder
    assert (grey.encoder, grey.network, grey.weights, grey.size, grey.options) == (  # type: ignore[union-attr]
        "image_timm", "resnet18", "none", 64, {}
    )  # fmt: skip
    assert [s.name for s in study.stages_of(one)] == ["nodules", "nodes"]
    assert [s.name for s in study.stages_of(other)] == ["nodes"]


def test_without_networks_the_inputs_keep_their_own() -> None:
    study = with_grid(config(networks=[], views=["grey"], sizes={}))
    assert [arm.name for arm in study.arms[1:]] == ["own network, grey, pre-trained", "own network, grey, scratch"]
    (grey,) = study.inputs_of(study.arms[1]).values()
    assert (grey.encoder, grey.options) == ("image_residual_dilated", {"width": 4})
    assert grey.weights == "imagenet"  # type: ignore[union-attr]


def test_fusion_can_be_left_out_and_one_view_is_not_fused() -> None:
    assert not [c for c in cells_of(config(fused=False)) if c.view == "fused"]
    assert {c.view for c in cells_of(config(views=["colour"]))} == {"colour"}
    assert cells_of(parse_study({k: v for k, v in BASE.items() if k != "grid"})) == []


def test_a_study_that_was_written_with_its_grid_is_read_back_the_same(tmp_path: Any) -> None:
    whole = with_grid(config())
    assert with_grid(whole) == whole
    write_study(whole, tmp_path / "study.toml")
    assert with_grid(read_study(tmp_path / "study.toml")) == whole


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ({"stages": ["nodule"]}, r"unknown stage 'nodule'.*did you mean 'nodules'"),
        ({"views": ["gray"]}, r"'gray', which is no input of pictures.*did you mean 'grey'"),
        ({"views": ["notes"]}, r"'notes', which is no input of pictures"),
        ({"weights": "none", "stages": []}, r"'pre-trained' would be the same as 'scratch'"),
        ({"stages": ["nodes"]}, r"no stage on the study's own patients"),
        ({"networks": ["vit_small_patch16_224.augreg_in21k_ft_in1k"]}, r"cannot be the name of an arm"),
    ],
)
def test_an_impossible_grid_is_refused(grid: dict[str, Any], words: str) -> None:
    with pytest.raises(StudyError, match=f"(?s){words}"):
        with_grid(config(**grid))


@pytest.mark.parametrize("size", [48, 40])
def test_a_transformer_is_built_for_the_size_of_the_study_or_refused(size: int) -> None:
    study = parse_study({**BASE, "grid": {"networks": ["test_vit"], "views": ["colour"], "sizes": {"test_vit": size}}})
    (section,) = study.inputs_of(with_grid(study).arms[1]).values()
    options = arms_of_networks._options(section, 0)
    if size % 16 == 0:
        assert encoders.build(section.encoder, **options).size == size
    else:
        with pytest.raises(EncoderError, match=f"pictures of {size} x {size}"):
            encoders.build(section.encoder, **options)


def test_a_grid_without_pictures_is_refused() -> None:
    study = parse_study({**BASE, "inputs": {"notes": {"kind": "table"}}, "arms": [{"name": "p"}]})
    with pytest.raises(StudyError, match="no view"):
        with_grid(study)


# --- the paired tests ------------------------------------------------------------------------------------------------


def said(arm: str, shift: float, seed: int, classes: int = 3, n: int = 90) -> PredictionTable:
    """Predictions that hit the truth the better, the larger the shift."""
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % classes
    scores = rng.standard_normal((n, classes))
    scores[np.arange(n), truth] += shift
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    names = ("benign", "metastatic", "lymphoma")[:classes]
    case = np.array([f"c{i}" for i in range(n)])
    zero = np.zeros(n, np.int64)
    split = np.full(n, "out_of_fold")
    return PredictionTable(
        case, case, np.full(n, ""), split, zero, zero, np.full(n, arm), np.array(names)[truth], p, names
    )


def compared(tables: list[PredictionTable], study: StudyFile) -> list[dict[str, Any]]:
    whole = PredictionTable.concatenate(tables)
    points = {(arm, 0, 0): OperatingPoint(0.5, "", 1) for arm in whole.arms}
    told = {"diagnosis": Told(whole.classes[-1], points, whole.arms[0], {}, upwards=True)}
    found = grid_tests(study, {"diagnosis": whole}, told, bootstraps=100, seed=1)
    return found["diagnosis"]["comparisons"]


@pytest.mark.parametrize("classes", [2, 3])
def test_pre_training_and_fusion_are_tested_on_the_same_cases_and_adjusted_by_question(classes: int) -> None:
    study = config(networks=["resnet18"], sizes={})
    shifts = {"grey": 0.6, "colour": 0.6, "fused": 2.5}
    tables = [
        said(f"resnet18, {view}, {start}", shift + 1.0 * (start == "pre-trained" and view == "grey"), 1, classes)
        for view, shift in shifts.items()
        for start in ("pre-trained", "scratch")
    ]
    lines = compared(tables, study)
    found = {(line["question"], line["view"]): line for line in lines}
    assert list(found) == [
        ("pre-training", "grey"), ("pre-training", "colour"), ("pre-training", "fused"),
        ("fused against grey", "fused"), ("fused against colour", "fused"),
    ]  # fmt: skip
    assert {line["start"] for line in lines} == {"pre-trained"}
    assert {line["metric"] for line in lines} == {"macro_ovo_auc" if classes > 2 else "auc"}
    grey = found["pre-training", "grey"]
    assert grey["difference"]["value"] > 0.05
    assert grey["p"] < 0.05
    # arms that say the same cannot be tested, and do not count among the tests
    assert (found["pre-training", "colour"]["p"], found["pre-training", "colour"]["p_adjusted"]) == (None, None)
    assert grey["p_adjusted"] == grey["p"]
    assert found["fused against colour", "fused"]["difference"]["value"] > 0.1


def test_pairs_of_which_an_arm_failed_are_left_out() -> None:
    study = config(networks=["resnet18"], sizes={})
    tables = [said(f"resnet18, grey, {start}", 1.0, k) for k, start in enumerate(("pre-trained", "scratch"))]
    tables.append(said("resnet18, fused, scratch", 1.0, 3))
    assert [(line["question"], line["view"]) for line in compared(tables, study)] == [("pre-training", "grey")]


# --- a run -----------------------------------------------------------------------------------------------------------

FAILED = "test_vit, cdfi, scratch"
STUDY: dict[str, Any] = {
    "preset": "quick",
    "seed": 3,
    "target": {"column": "diagnosis", "positive": "lymphoma", "classes": ["benign", "lymphoma", "metastatic"]},
    "inputs": {
        view: {
            "size": 32, "channels": 3, "pictures": 2, "masked": True,
            "encoder": "image_residual_dilated", "options": {"width": 4, "depths": [1, 1, 1, 1]},
        }
        for view in ("b_mode", "cdfi")
    },
    "training": {"epochs": 1, "batch": 16},
    "stages": [
        {
            "name": "nodules", "cohort": "source/b_mode.csv", "picture": "picture", "epochs": 1,
            "task": "multilabel", "columns": ["round", "large"],
        },
        {"name": "nodes"},
    ],
    "arms": [{"name": "proposed", "only": ["b_mode"]}],
    "grid": {
        "networks": ["test_vit", "test_efficientnet"], "weights": "none", "stages": ["nodules"],
        "sizes": {"test_vit": 48},
    },
    "validation": {"folds": 2, "inner": 0.25, "bootstraps": 100},
    "explain": {"cases": 0, "sanity_cases": 0},
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = small_cohort(tmp_path_factory.mktemp("grid") / "nodes", patients=30, source=18)
    fit = order.fit_networks

    def failing(bench: Any, arm: ArmSection, *arguments: Any, **named: Any) -> Any:
        if arm.name == FAILED:
            raise TrainingError("the loss is no longer a number")
        return fit(bench, arm, *arguments, **named)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(order, "fit_networks", failing)
        patched.setattr(order, "write_report", lambda folder: folder)
        return Study.from_dict(STUDY, folder).run(out=folder / "run", threads=1)


def test_a_cell_that_fails_is_reported_and_the_others_go_on(run: Run) -> None:
    record = read_json(run, "run.json")
    cells = record["grid"]["cells"]
    assert len(cells) == 12
    assert {record["arms"][cell["arm"]]["status"] for cell in cells if cell["arm"] != FAILED} == {"done"}
    assert record["arms"][FAILED]["status"] == "failed"
    assert "no longer a number" in record["arms"][FAILED]["reason"]
    assert record["grid"]["networks"] == ["test_vit", "test_efficientnet"]
    assert record["grid"]["views"] == ["b_mode", "cdfi", "fused"]
    judged = read_json(run, "classes.json")["diagnosis"]["arms"]
    assert {cell["arm"] for cell in cells} - set(judged) == {FAILED}
    assert load(run.bundle).facts["arm"] == "proposed"


def test_cells_are_what_their_names_say(run: Run) -> None:
    arms = read_json(run, "run.json")["arms"]
    assert arms["test_vit, fused, pre-trained"]["size"] == "48, 48"
    assert arms["test_efficientnet, fused, scratch"]["size"] == "32, 32"
    assert arms["test_vit, b_mode, pre-trained"]["stages"] == ["nodules", "nodes"]
    assert arms["test_vit, b_mode, scratch"]["stages"] == ["nodes"]
    table = run.predictions["diagnosis"]
    both = [table.select(arm=f"test_vit, b_mode, {start}").probabilities for start in ("pre-trained", "scratch")]
    assert np.abs(both[0] - both[1]).max() > 1e-6


def test_grid_json_holds_the_paired_tests(run: Run) -> None:
    lines = read_json(run, "grid.json")["diagnosis"]["comparisons"]
    asked = [(line["question"], line["network"], line["view"]) for line in lines]
    assert len(set(asked)) == len(asked)
    pairs = [(network, view) for network in ("test_vit", "test_efficientnet") for view in ("b_mode", "cdfi", "fused")]
    assert {a[1:] for a in asked if a[0] == "pre-training"} == set(pairs) - {("test_vit", "cdfi")}
    for view in ("b_mode", "cdfi"):
        question = f"fused against {view}"
        assert {a[1:] for a in asked if a[0] == question} == {("test_vit", "fused"), ("test_efficientnet", "fused")}
    areas = {n: a["overall"]["macro_ovo_auc"] for n, a in read_json(run, "classes.json")["diagnosis"]["arms"].items()}
    for line in lines:
        assert line["metric"] == "macro_ovo_auc"
        assert {"value", "low", "high", "method", "n"} == set(line["difference"])
        assert line["p"] is None or line["p"] <= line["p_adjusted"] <= 1
        # where everybody has both views, the difference is that of the figures of the two arms
        a, b = (areas[f"{line['network']}, {line['view']}, {start}"] for start in ("pre-trained", "scratch"))
        if line["question"] == "pre-training":
            assert line["difference"]["value"] == pytest.approx(a["value"] - b["value"])
