"""A small simulated cohort of lymph nodes in three views, and a study of it that looks at everything at once."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.study_files import read_rows, write_rows

from tenfold.simulate.lymphnode import simulate
from tenfold.study import Run

VIEWS = ("b_mode", "cdfi", "elastography")
INPUTS = (*VIEWS, "notes")
CLASSES = ("benign", "metastatic", "lymphoma")
"""As the study has them: the one to be detected comes last."""

STUDY = """
title = "Small lymph nodes"
preset = "quick"
seed = 7

[target]
column = "diagnosis"
classes = ["benign", "lymphoma", "metastatic"]
positive = "lymphoma"

[inputs.b_mode]
size = 32
pictures = 2
pool = "attention"
masked = true
encoder = "image_residual_dilated"
options = { width = 4, depths = [1, 1, 1, 1] }

[inputs.cdfi]
size = 32
pictures = 2
channels = 3
masked = true
encoder = "image_residual_dilated"
options = { width = 4, depths = [1, 1, 1, 1] }

[inputs.elastography]
size = 32
pictures = 2
pool = "attention"
channels = 3
masked = true
bar_high = 120
share = "cdfi"
encoder = "image_residual_dilated"
options = { width = 4, depths = [1, 1, 1, 1] }

[inputs.notes]
kind = "table"
columns = ["location", "shape", "margin", "flow"]
options = { hidden = 8 }

[network]
fusion = "gated"

[training]
epochs = 1
batch = 16
thaw = 1
rate = 2e-3

[[stages]]
name = "grey nodules"
cohort = "source/b_mode.csv"
picture = "picture"
inputs = ["b_mode"]
task = "multilabel"
columns = ["round", "large", "hilum"]
thaw = "all"

[[stages]]
name = "coloured nodules"
cohort = "source/cdfi.csv"
picture = "picture"
inputs = ["cdfi"]
task = "multilabel"
columns = ["flow_hilar", "flow_peripheral"]
thaw = "all"

[[stages]]
name = "nodes"

[[arms]]
name = "all views"

[[arms]]
name = "b_mode only"
only = ["b_mode"]

[[arms]]
name = "regression"
model = "logistic_regression"

[[arms]]
name = "late"
combine = ["b_mode only", "regression"]

[validation]
folds = 2
inner = 0.25
holdout = 0.2
bootstraps = 100
each_site = true

[augment]
variants = 2
test_time = 2

[explain]
cases = 4
sanity_cases = 2
masks = "node_mask"
view = "b_mode"
"""


@dataclass(frozen=True)
class Watched:
    """A run, and the views and classes of the heat maps that it drew, in order."""

    run: Run
    drawn: list[tuple[str, int]]


def small_cohort(folder: Path, **changes: int | float) -> Path:
    """Draw the patients; pictures to learn from first lie in a file a view."""
    sizes: dict[str, int | float] = {"patients": 48, "size": 48, "source": 30, "missing_views": 0.1, "seed": 5}
    simulate(folder, **{**sizes, **changes})  # type: ignore[arg-type]
    for view in VIEWS:
        file = folder / "source" / f"{view}.csv"
        if (folder / "source").is_dir() and not file.is_file():
            write_rows(file, [row for row in read_rows(folder / "source" / "cohort.csv") if row["kind"] == view])
    return folder


def small_study(folder: Path, **changes: int | float) -> Path:
    """Draw the patients, and write the study beside them."""
    small_cohort(folder, **changes)
    (folder / "study.toml").write_text(STUDY)
    return folder


def without_work(folder: Path, to: Path) -> Path:
    """Copy a study's files, not what runs have left there."""
    return Path(shutil.copytree(folder, to, ignore=shutil.ignore_patterns(".tenfold", "run")))
