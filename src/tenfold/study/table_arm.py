"""An arm that is a model of one table or of connectomes: a forest, boosted trees, a support vector machine.

It must not know networks or pictures.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from scipy.special import log_expit

from tenfold.config import ArmSection
from tenfold.modalities.table import TablePreparation
from tenfold.study.arms import FittedArm, FoldScores, finished, parts_of
from tenfold.study.bench import Bench, Fitted
from tenfold.training.classical import ClassicalFit, fit_classical, takes_nan
from tenfold.training.device import seed_for
from tenfold.types import FloatArray, IntArray

Design = Callable[[], FloatArray]
_Fits = tuple[ClassicalFit, ...]
"""One model that tells the second of two classes; of more classes one each, which tells it from the rest."""


def fit_table_model(bench: Bench, arm: ArmSection) -> FittedArm:
    """Fit a model in all folds for the target that is looked at, its settings chosen on inner folds of training parts.

    Args:
        bench: What all arms share.
        arm: Which model, and which table or connectomes.

    Returns:
        The fitted arm. Its models are kept in memory only: they are baselines, and never bundled.

    Raises:
        Refusal: The model is unknown, or cannot be fitted.
    """
    started = time.monotonic()
    sections = bench.config.inputs_of(arm)
    (name,) = sections
    answers = bench.answers(sections)
    labels = bench.label_index
    patients = np.unique(bench.cohort.patient, return_inverse=True)[1]
    designs: list[Design] = []
    fits: list[_Fits] = []
    folds = []
    bench.progress.start(arm.name, len(bench.splits))
    for split in bench.splits:
        train, inner, test = parts_of(bench, split, answers)
        fitted = bench.fitted(sections, train)
        train = bench.known(train)
        designs.append(_design(bench, fitted, name, takes_nan(arm.model), train))
        features = designs[-1]()
        seed = seed_for(bench.config.seed, "fold", split.repeat, split.fold)
        fits.append(_fitted(arm.model, features[train], labels[train], patients[train], bench, seed % 2**32))
        folds.append(FoldScores(inner, _scores(fits[-1], features[inner]), test, _scores(fits[-1], features[test])))
        bench.progress.advance()

    def score(fold: int, rows: IntArray) -> FloatArray:
        return _scores(fits[fold], designs[fold]()[rows])

    record = {
        "kind": "classical",
        "encoder": arm.model,
        "network": arm.model,
        "weights": "none",
        "size": "",
        "parameters": 0,
        "stages": [],
        "precision": "float64",
        "chosen": [fit.chosen for own in fits for fit in own],
        "seconds": time.monotonic() - started,
        "flaws": list(arm.flaws),
    }
    return finished(bench, arm.name, sections, answers, folds, score, record, [])


def _fitted(model: str, x: FloatArray, labels: IntArray, patients: IntArray, bench: Bench, seed: int) -> _Fits:
    classes = len(bench.labels.classes)
    told = range(classes) if classes > 2 else (1,)
    return tuple(fit_classical(model, x, (labels == k).astype(np.int64), patients, seed=seed) for k in told)


def _scores(fits: _Fits, x: FloatArray) -> FloatArray:
    """(n, classes) for calibration; probabilities against the rest are brought to a sum of 1 by it."""
    if len(fits) == 1:
        return fits[0].scores(x)
    return np.stack([log_expit(fit.scores(x)[:, 1]) for fit in fits], axis=1)


def _design(bench: Bench, fitted: Fitted, name: str, raw: bool, train: IntArray) -> Design:
    """Return what makes the features of all cases anew: those of connectomes are too large to keep for every fold."""
    prepared = fitted[name]
    if raw and isinstance(prepared, TablePreparation):
        return lambda: prepared.raw(bench.tables[name].values)

    def features() -> FloatArray:
        applied = np.nan_to_num(bench.applied(fitted)[name].astype(np.float64))
        if applied.ndim == 2:
            return applied
        # value and observed side by side: that a value is missing may itself speak
        return np.concatenate([applied[:, 0], applied[:, 1][:, (applied[train, 1] < 1).any(0)]], axis=1)

    return features
