from __future__ import annotations

from pathlib import Path

import pytest

import tenfold
from tenfold.config import builtin_study_text
from tenfold.simulate import SIMULATORS
from tenfold.study import Run, Study

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
