"""How well the outcome can be told without looking at the picture: a small model on what surrounds it.

It must not know where its facts come from, nor judge: it gives an AUC with its interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from tenfold.modalities.image_facts import ImageFacts
from tenfold.stats.roc import auc_interval
from tenfold.types import Estimate, FloatArray, IntArray, StrArray

Fact = FloatArray | StrArray
_FOLDS = 5
_BINS = 10
_LEVELS = 20
_CORNER = 4


def blind_auc(facts: Sequence[Fact], positive: NDArray[np.bool_], patients: StrArray) -> Estimate:
    """Cross-validate, grouped by patient, how well facts tell the positive cases from the others.

    Every fact is cut into at most ten equally filled bins (or its twenty commonest words), so that a marker
    that is merely present weighs as much as a slope; a ridge regression joins the bins.

    Args:
        facts: Each (n,), numbers with NaN where unknown, or words.
        positive: (n,) true for the positive class.
        patients: (n,) who was examined.

    Returns:
        The AUC of the pooled held-out scores; NaN where a class has fewer than two patients.
    """
    groups = np.unique(patients, return_inverse=True)[1]
    smaller = min(len(np.unique(groups[positive])), len(np.unique(groups[~positive])))
    if smaller < 2:
        return _no_estimate(len(positive))
    scores = np.full(len(positive), np.nan)
    fold = _folds(groups, positive, min(_FOLDS, smaller))
    for k in np.unique(fold).tolist():
        train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        if len(np.unique(positive[train])) == 2:
            design = np.hstack([_indicators(fact, train) for fact in facts])
            scores[test] = design[test] @ _ridge(design[train], positive[train])
    scored = np.isfinite(scores)
    if len(np.unique(positive[scored])) < 2:
        return _no_estimate(len(positive))
    return auc_interval(positive[scored], scores[scored], groups[scored])


def _ridge(design: FloatArray, positive: NDArray[np.bool_]) -> FloatArray:
    """Weights of a regression of the outcome on the bins; the ridge counts as one more average case a bin."""
    share = positive.mean()
    left = design.T @ design + np.eye(design.shape[1])
    return np.asarray(np.linalg.solve(left, design.T @ (positive - share)))


def _folds(groups: IntArray, positive: NDArray[np.bool_], folds: int) -> IntArray:
    """(n,) fold of each case: patients dealt out in turn among those with the same outcomes."""
    patients = int(groups.max()) + 1
    stratum = np.zeros(patients, np.int64)
    stratum[groups[positive]] += 1
    stratum[groups[~positive]] += 2
    order = np.random.default_rng(0).permutation(patients)
    fold = np.empty(patients, np.int64)
    fold[order[np.argsort(stratum[order], kind="stable")]] = np.arange(patients) % folds
    return fold[groups]


def _no_estimate(n: int) -> Estimate:
    """What is left where the patients are too few."""
    return Estimate(math.nan, math.nan, math.nan, "too few patients for a cross-validation; n = cases", n)


def picture_facts(facts: Sequence[ImageFacts]) -> dict[str, Fact]:
    """What surrounds the picture: its file, its size, its brightness, its edge and corners.

    The brightest spot of each corner and each edge is taken apart, because a lead marker or a scanner's stamp
    sits there.

    Args:
        facts: One a case.

    Returns:
        Name of the fact -> (n,) values.
    """
    thumbnails = np.array([f.thumbnail for f in facts], np.float64)
    start, end, middle = slice(0, _CORNER), slice(-_CORNER, None), slice(_CORNER, -_CORNER)
    places = {
        "top left corner": (start, start),
        "top right corner": (start, end),
        "bottom left corner": (end, start),
        "bottom right corner": (end, end),
        "top edge": (start, middle),
        "bottom edge": (end, middle),
        "left edge": (middle, start),
        "right edge": (middle, end),
    }
    return {
        "file size": np.array([f.bytes for f in facts], np.float64),
        "format": np.array([f.format for f in facts], np.str_),
        "width": np.array([f.width for f in facts], np.float64),
        "height": np.array([f.height for f in facts], np.float64),
        "mean brightness": np.array([f.mean for f in facts], np.float64),
        "contrast": np.array([f.contrast for f in facts], np.float64),
        "border brightness": np.array([f.border for f in facts], np.float64),
        **{name: thumbnails[:, rows, columns].max(axis=(1, 2)) for name, (rows, columns) in places.items()},
    }


def column_fact(cells: StrArray) -> Fact:
    """A column of the cohort file as numbers, where all that is filled is one, otherwise as words."""
    try:
        return np.array([float(cell) if cell else math.nan for cell in cells.tolist()], np.float64)
    except ValueError:
        return cells


def date_fact(cells: StrArray) -> Fact:
    """ISO dates as days, NaN where there is none."""
    days = [datetime.fromisoformat(cell).toordinal() if cell else math.nan for cell in cells.tolist()]
    return np.array(days, np.float64)


def varying(facts: Mapping[str, Fact]) -> dict[str, Fact]:
    """Only the facts that differ between cases: nothing can be told from the others."""
    return {name: fact for name, fact in facts.items() if len(np.unique(fact)) > 1}


def _indicators(fact: Fact, train: IntArray) -> FloatArray:
    """(n, bins) one-hot of the bin that each value falls in, the bins laid by the training cases alone."""
    if fact.dtype.kind == "f":
        numbers = np.asarray(fact, np.float64)
        known = numbers[train][np.isfinite(numbers[train])]
        values = np.unique(known)
        if len(values) <= _BINS:
            edges = (values[1:] + values[:-1]) / 2
        else:
            edges = np.unique(np.quantile(known, np.linspace(0, 1, _BINS + 1)[1:-1]))
        codes = np.where(np.isfinite(numbers), np.searchsorted(edges, numbers, side="right"), len(edges) + 1)
        bins = len(edges) + 2
    else:
        words, counts = np.unique(fact[train], return_counts=True)
        common = np.sort(words[np.argsort(-counts, kind="stable")[:_LEVELS]])
        place = np.minimum(np.searchsorted(common, fact), len(common) - 1)
        codes = np.where(common[place] == fact, place, len(common))
        bins = len(common) + 1
    return np.eye(bins)[codes]
