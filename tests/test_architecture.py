"""The floors hold, and the left half of the house needs no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEFT = ["types", "errors", "config", "report.page", "modalities", "cohort.audit", "stats.evaluate", "simulate"]


def _modules_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", LEFT)
def test_the_left_half_loads_no_torch(module: str) -> None:
    assert "torch" not in _modules_after(f"import tenfold.{module}")


def test_the_command_and_a_cohort_load_no_torch() -> None:
    assert "torch" not in _modules_after("import tenfold.cli, tenfold; tenfold.Cohort")


def test_a_bundle_loads_no_training_code() -> None:
    loaded = _modules_after("import tenfold; tenfold.load")
    for name in ("training", "cohort", "study", "stats", "config"):
        assert f"tenfold.{name}" not in loaded


def test_every_module_says_what_it_is_and_what_it_must_not_know() -> None:
    import ast

    for path in sorted((ROOT / "src" / "tenfold").rglob("*.py")):
        doc = ast.get_docstring(ast.parse(path.read_text("utf-8")))
        assert doc, f"{path.relative_to(ROOT)} has no docstring"
        assert any(word in doc.lower() for word in ("not ", "nothing", "no code")), f"{path.relative_to(ROOT)}: {doc}"


def test_nothing_is_pickled_and_no_path_of_a_machine_is_kept() -> None:
    for path in sorted((ROOT / "src").rglob("*.py")):
        text = path.read_text("utf-8")
        assert "import pickle" not in text
        assert "torch.save" not in text
        assert "torch.load(" not in text
        assert "joblib.dump" not in text
        assert "/home/" not in text
