"""The fake runs, built once."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tenfold.report import page
from tenfold.report.page import write_report


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def fake_run() -> ModuleType:
    return _module("fake_run")


@pytest.fixture(scope="session")
def several(fake_run: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three targets on connectomes and clinical values, with its report written. Read only."""
    folder: Path = _module("fake_several").build(tmp_path_factory.mktemp("run") / "several", fake_run)
    write_report(folder)
    return folder


@pytest.fixture(scope="session")
def three(fake_run: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three classes, several views and a grid, with its report written. Read only."""
    folder: Path = _module("fake_three").build(tmp_path_factory.mktemp("run") / "three", fake_run)
    write_report(folder)
    return folder


@pytest.fixture(scope="session")
def whole(fake_run: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run with its report written. Read only."""
    folder: Path = fake_run.build(tmp_path_factory.mktemp("run") / "whole")
    write_report(folder)
    return folder


@pytest.fixture(scope="session")
def fused(fake_run: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of film and laboratory values with its report written. Read only."""
    folder: Path = fake_run.build_fused(tmp_path_factory.mktemp("run") / "fused")
    write_report(folder)
    return folder


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Callable[[], Path]:
    """Give a copy to break."""

    def make() -> Path:
        return Path(shutil.copytree(whole, tmp_path / "copy", ignore=shutil.ignore_patterns("figures", "report.html")))

    return make


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the drawing out where a test is about words."""
    monkeypatch.setattr(page, "FIGURES", dict.fromkeys(page.FIGURES, lambda run: None))
