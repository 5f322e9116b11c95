"""An arm that joins other arms' answers: late fusion by stacking (Wolpert 1992).

It must not know what kind of arms it joins. Its weights are fitted on inner parts, which no component was fitted on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression

from tenfold.config import ArmSection
from tenfold.errors import TrainingError
from tenfold.study.arms import FittedArm, FoldScores, answered, finished
from tenfold.study.bench import Bench
from tenfold.types import FloatArray, IntArray


def fit_late(bench: Bench, arm: ArmSection, fitted: Mapping[str, FittedArm]) -> FittedArm:
    """Fit a regression on the log-odds of other arms, in every fold.

    A case that lacks a component's input gets the mean of the calibrated log-odds of those that can answer.

    Args:
        bench: What all arms share.
        arm: Which arms it combines.
        fitted: The arms that went through.

    Raises:
        KeyError: A component did not go through.
        TrainingError: The inner part of a fold lacks a class.
    """
    started = time.monotonic()
    parts = [fitted[name] for name in arm.combine]
    answers = np.any([part.answers for part in parts], axis=0)
    labels = bench.label_index
    stacks: list[LogisticRegression] = []
    folds = []
    for k, split in enumerate(bench.splits):
        inner, test = (bench.known(answered(bench.rows(p), answers)) for p in (split.inner, split.test))
        inner_odds = _log_odds(
            parts, k, inner, [p.folds[k].inner for p in parts], [p.folds[k].inner_scores for p in parts]
        )
        test_odds = _log_odds(parts, k, test, [p.folds[k].test for p in parts], [p.folds[k].test_scores for p in parts])
        whole = ~np.isnan(inner_odds).any(axis=(1, 2))
        lacking = [name for k, name in enumerate(bench.labels.classes) if k not in labels[inner[whole]]]
        if lacking:
            raise TrainingError(
                f"no case that all arms combined can answer has the class '{lacking[0]}' in the inner part of a fold",
                do="enlarge the inner part (validation.inner), or leave this arm out",
            )
        features = inner_odds[whole].reshape(int(whole.sum()), -1)
        stacks.append(LogisticRegression().fit(features, labels[inner[whole]]))
        folds.append(FoldScores(inner, _stacked(stacks[k], inner_odds), test, _stacked(stacks[k], test_odds)))

    def score(fold: int, rows: IntArray) -> FloatArray:
        kept = [answered(rows, part.answers) for part in parts]
        given = [part.score(fold, own) for part, own in zip(parts, kept, strict=True)]
        return _stacked(stacks[fold], _log_odds(parts, fold, rows, kept, given))

    record = {
        "kind": "late",
        "encoder": "stacking",
        "network": " + ".join(arm.combine),
        "weights": "none",
        "size": "",
        "parameters": int(stacks[0].coef_.size + stacks[0].intercept_.size),
        "stages": [],
        "precision": "float64",
        "chosen": [{"weights": s.coef_.ravel().tolist(), "intercept": s.intercept_.tolist()} for s in stacks],
        "seconds": time.monotonic() - started,
        "flaws": list(arm.flaws),
    }
    sections = {name: section for part in parts for name, section in part.sections.items()}
    return finished(bench, arm.name, sections, answers, folds, score, record, [])


def _log_odds(
    parts: Sequence[FittedArm], fold: int, rows: IntArray, own: Sequence[IntArray], scores: Sequence[FloatArray]
) -> FloatArray:
    """(n, components, classes - 1) calibrated log-odds against the first class; NaN where a component has no answer."""
    classes = parts[0].predictions.probabilities.shape[1]
    found = np.full((len(rows), len(parts), classes - 1), np.nan)
    place = {int(row): i for i, row in enumerate(rows)}
    for j, (part, mine, values) in enumerate(zip(parts, own, scores, strict=True)):
        p = np.clip(part.calibrations[fold].apply(values), 1e-6, 1 - 1e-6)
        found[[place[int(row)] for row in mine], j] = np.log(p[:, 1:] / p[:, :1])
    return found


def _stacked(stack: LogisticRegression, log_odds: FloatArray) -> FloatArray:
    """(n, classes) scores for calibration."""
    whole = ~np.isnan(log_odds).any(axis=(1, 2))
    scores = np.zeros((len(log_odds), log_odds.shape[2] + 1))
    scores[:, 1:] = np.nanmean(log_odds, axis=1)
    if whole.any():
        said = stack.decision_function(log_odds[whole].reshape(int(whole.sum()), -1))
        scores[whole] = said if said.ndim == 2 else np.stack([np.zeros(len(said)), said], axis=1)
    return scores
