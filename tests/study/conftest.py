from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.study import lymph_nodes

import tenfold
from tenfold.config import builtin_study_text
from tenfold.simulate import SIMULATORS
from tenfold.study import Run, Study, explanations

SMALL = {
    'preset = "quick"': 'preset = "quick"\n[validation]\nfolds = 3\nbootstraps = 100\nholdout = 0.2\n',
    "test_time = 4": "variants = 2\ntest_time = 2",
    "seed = 1024\n": "",
    "size = 64": "size = 32",
    "width = 16": "width = 4",
    "epochs = 10": "epochs = 1",
    "epochs = 6": "epochs = 2",
    'masks = "mask"': 'masks = "mask"\ncases = 2\nsanity_cases = 3',
}


def small_study(folder: Path, seed: int = 3, **planted: int | float) -> Path:
    """A simulated cohort that a run of seconds can be made on."""
    SIMULATORS["pneumonia"](folder, patients=48, adults=40, seed=seed, size=64, **planted)
    text = builtin_study_text("pneumonia_simulated.toml")
    for old, new in SMALL.items():
        assert old in text, f"the built-in study has changed: {old}"
        text = text.replace(old, new)
    (folder / "study.toml").write_text(text)
    return folder / "study.toml"


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return tenfold.Study.read(small_study(tmp_path_factory.mktemp("study") / "films"))


@pytest.fixture(scope="session")
def run(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return study.run(out=tmp_path_factory.mktemp("runs") / "small", threads=1)


FUSED = """
title = "Small fused study"
preset = "quick"
seed = 1024

[target]
column = "diagnosis"
classes = ["non-NEC", "NEC"]
positive = "NEC"

[[eligibility]]
name = "second admission"
first_by = "date"

[[eligibility]]
name = "another disease"
column = "condition"
exclude = ["congenital malformation", "pneumonia or sepsis"]

[[eligibility]]
name = "mostly not measured"
input = "labs"
most_missing = 0.3

[inputs.film]
size = 32
encoder = "image_residual_dilated"
options = { width = 4, depths = [1, 1, 1, 1] }

[inputs.labs]
kind = "table"
options = { hidden = 16 }

[training]
epochs = 2
batch = 16
thaw = 1
rate = 2e-3

[augment]
variants = 2
test_time = 1

[[stages]]
name = "older children"
cohort = "source/cohort.csv"
task = "multilabel"
columns = ["dilated", "fixed", "wall", "pneumatosis", "portal_gas", "free_air", "ascites"]
epochs = 1
thaw = "all"

[[stages]]
name = "newborns"

[[arms]]
name = "film + labs"

[[arms]]
name = "tree"
model = "decision_tree"

[[arms]]
name = "late"
combine = ["film + labs", "tree"]

[validation]
folds = 2
holdout = 0.2
bootstraps = 100
subgroups = ["sex", { column = "gestational_age", cuts = [32] }]

[[external]]
name = "elsewhere"
cohort = "external/cohort.csv"
readers = "external/readers.csv"

[explain]
cases = 2
sanity_cases = 2
masks = "sign_mask"
"""


def small_fused_study(folder: Path, seed: int = 3, **planted: int | float | str) -> Path:
    """Simulated newborns with films and laboratory values, and a study of both that runs in seconds."""
    sizes: dict[str, int | float | str] = {"patients": 60, "source": 24, "external": 16, "size": 48, "readers": 2}
    SIMULATORS["nec"](folder, seed=seed, **{**sizes, "ineligible": 3, **planted})
    (folder / "study.toml").write_text(FUSED)
    return folder / "study.toml"


@pytest.fixture(scope="session")
def fused_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study.read(small_fused_study(tmp_path_factory.mktemp("fused-study") / "newborns"))


@pytest.fixture(scope="session")
def fused(fused_study: Study, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fused_study.run(out=tmp_path_factory.mktemp("fused-runs") / "small", threads=1)


@pytest.fixture(scope="session")
def nodes_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study.read(lymph_nodes.small_study(tmp_path_factory.mktemp("nodes-study") / "nodes"))


@pytest.fixture(scope="session")
def nodes(nodes_study: Study, tmp_path_factory: pytest.TempPathFactory) -> lymph_nodes.Watched:
    """One run, and which heat maps it drew, in order."""
    drawn: list[tuple[str, int]] = []
    draw = explanations.grad_cam

    def watched(*arguments: Any, view: str, index: int, **named: Any) -> Any:
        drawn.append((view, index))
        return draw(*arguments, view=view, index=index, **named)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(explanations, "grad_cam", watched)
        run = nodes_study.run(out=tmp_path_factory.mktemp("nodes-runs") / "run", threads=1)
    return lymph_nodes.Watched(run, drawn)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the report out where nobody looks at it: it takes longer than all fits together."""
    for place in ("study", "external"):
        monkeypatch.setattr(f"tenfold.study.{place}.write_report", lambda folder: folder)
