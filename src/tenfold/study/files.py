"""The files of a run folder: where they may be written, and what is recorded of the machine.

It must not know what the results are.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import math
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tenfold.cohort.manifest import Cohort
from tenfold.errors import OutputError
from tenfold.types import refuse_unwritable, write_atomically

RECORDED_PACKAGES = (
    "tenfold",
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "scipy",
    "scikit-learn",
    "statsmodels",
    "pillow",
    "pydicom",
)


def check_out(out: Path, *, resume: bool = False, study_hash: str = "") -> None:
    """Refuse a folder that holds somebody's work or cannot be written to, before any work is done.

    Raises:
        OutputError: The folder is not empty, or not writable, or belongs to another study.
    """
    if out.exists() and not out.is_dir():
        raise OutputError("is a file", expected="a folder that is empty or absent", where=str(out))
    if out.is_dir() and any(out.iterdir()):
        if not resume:
            raise OutputError(
                "is not empty",
                expected="a folder that is empty or absent",
                do="choose another --out, or add --resume to go on with a run that was interrupted there",
                where=str(out),
            )
        record = out / "run.json"
        known = json.loads(record.read_text("utf-8")) if record.is_file() else {}
        if known.get("status") == "done":
            raise OutputError("holds a finished run", do="choose another --out for a new one", where=str(out))
        if known.get("hashes", {}).get("study") != study_hash:
            raise OutputError(
                "holds a run of another study file or another cohort",
                do="choose another --out, or put the study and the cohort back as they were",
                where=str(out),
            )
    refuse_unwritable(out)


def recorded_versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    versions = {"python": platform.python_version()}
    for name in RECORDED_PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def shown_command() -> str:
    """Return the command line; an absolute path says where somebody's patients lie, so its last part stands for it."""
    shown = []
    for argument in sys.argv:
        key, equals, value = argument.rpartition("=")
        shown.append(f"{key}{equals}{Path(value).name if Path(value).is_absolute() else value}")
    return " ".join(shown)


def truth_of(cohort: Cohort) -> dict[str, Any] | None:
    """Read what a simulator says of its own cohort: for the report alone, after everything is decided."""
    path = cohort.folder / "truth.json"
    return json.loads(path.read_text("utf-8")) if path.is_file() else None


def digest(parts: Sequence[str]) -> str:
    """Return the SHA-256 of some lines."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@contextlib.contextmanager
def writing(out: Path) -> Iterator[None]:
    """Turn a full disk, wherever it is met, into one refusal that says how to go on."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot go on writing: {error.strerror or error}",
            do="free space, then run the same command with --resume",
            where=str(out),
        ) from error


class Clock:
    """Adds up how long each step took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        """Time one step."""
        start = time.monotonic()
        yield
        self.seconds[step] = round(time.monotonic() - start, 2)


def write_json(path: Path, value: Any) -> None:
    """Write JSON that any reader takes: NaN and infinity as null."""
    write_atomically(path, json.dumps(_plain(value), indent=1, ensure_ascii=False) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
