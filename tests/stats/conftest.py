"""Predictions that the statistics are tried on."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tenfold.types import PredictionTable


@dataclass(frozen=True)
class RocCal:
    """roc_cal.csv: two scores with ties, a probability, patients with several cases of either outcome."""

    y: np.ndarray
    a: np.ndarray
    b: np.ndarray
    p: np.ndarray
    patient: np.ndarray


@pytest.fixture(scope="session")
def roc_cal() -> RocCal:
    with (Path(__file__).parent / "data" / "roc_cal.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    a, b, p = (np.array([float(r[c]) for r in rows]) for c in ("scoreA", "scoreB", "p"))
    patient = np.unique([r["patient"] for r in rows], return_inverse=True)[1]
    return RocCal(np.array([r["y"] == "1" for r in rows]), a, b, p, patient)


@pytest.fixture(scope="session")
def make_table() -> Callable[..., PredictionTable]:
    def make(y, arms, patient=None, repeat=0, folds=5, classes=("healthy", "ill")) -> PredictionTable:
        n, k = len(y), len(arms)
        p = np.concatenate(list(arms.values()))
        return PredictionTable(
            case=np.tile(np.array([f"c{i}" for i in range(n)]), k),
            patient=np.tile(np.arange(n) if patient is None else patient, k).astype(str),
            site=np.full(n * k, ""),
            split=np.full(n * k, "out_of_fold"),
            repeat=np.full(n * k, repeat),
            fold=np.tile(np.arange(n) % folds if folds else np.full(n, -1), k),
            arm=np.repeat(list(arms), n),
            label=np.tile(np.where(y, classes[1], classes[0]), k),
            probabilities=np.stack([1 - p, p], axis=1),
            classes=classes,
        )

    return make


@pytest.fixture(scope="session")
def same_threshold() -> Callable[..., dict]:
    def make(table: PredictionTable, value: float = 0.5) -> dict:
        keys = zip(table.arm.tolist(), table.repeat.tolist(), table.fold.tolist(), strict=True)
        return dict.fromkeys(keys, value)

    return make
