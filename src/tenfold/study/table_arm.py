"""An arm that is a model of one table: a forest, boosted trees, a support vector machine.

It must not know networks or pictures.
"""

from __future__ import annotations

import time

import numpy as np

from tenfold.config import ArmSection
from tenfold.study.arms import FittedArm, FoldScores, finished, parts_of
from tenfold.study.bench import Bench
from tenfold.training.classical import ClassicalFit, fit_classical, takes_nan
from tenfold.training.device import seed_for
from tenfold.types import FloatArray, IntArray


def fit_table_model(bench: Bench, arm: ArmSection) -> FittedArm:
    """Fit a model of one table in all folds, its settings chosen on inner folds of the training part.

    Args:
        bench: What all arms share.
        arm: Which model, and which table.

    Returns:
        The fitted arm. Its models are kept in memory only: they are baselines, and never bundled.

    Raises:
        Refusal: The model is unknown, or cannot be fitted.
    """
    started = time.monotonic()
    sections = bench.config.inputs_of(arm)
    (name,) = sections
    values = bench.tables[name].values
    answers = np.asarray(~np.isnan(values).all(axis=1))
    labels = bench.label_index
    patients = np.unique(bench.cohort.patient, return_inverse=True)[1]
    designs: list[FloatArray] = []
    fits: list[ClassicalFit] = []
    folds = []
    bench.progress.start(arm.name, len(bench.splits))
    for split in bench.splits:
        train, inner, test = parts_of(bench, split, answers)
        prepared = bench.fitted_tables(sections, train)[name]
        if takes_nan(arm.model):
            design = prepared.raw(values)
        else:
            # value and observed side by side: that a value is missing may itself speak
            both = np.nan_to_num(prepared.apply(values).astype(np.float64))
            design = np.concatenate([both[:, 0], both[:, 1][:, (both[train, 1] < 1).any(0)]], axis=1)
        seed = seed_for(bench.config.seed, "fold", split.repeat, split.fold)
        fit = fit_classical(arm.model, design[train], labels[train], patients[train], seed=seed % 2**32)
        folds.append(FoldScores(inner, fit.scores(design[inner]), test, fit.scores(design[test])))
        designs.append(design)
        fits.append(fit)
        bench.progress.advance()

    def score(fold: int, rows: IntArray) -> FloatArray:
        return fits[fold].scores(designs[fold][rows])

    record = {
        "kind": "classical",
        "encoder": arm.model,
        "network": arm.model,
        "weights": "none",
        "size": "",
        "parameters": 0,
        "stages": [],
        "precision": "float64",
        "chosen": [fit.chosen for fit in fits],
        "seconds": time.monotonic() - started,
        "flaws": list(arm.flaws),
    }
    return finished(bench, arm.name, sections, answers, folds, score, record, [])
