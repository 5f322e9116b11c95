"""The curves that a report draws: ROC, calibration, decision curve, confusion table.

It must not know how they are drawn.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tenfold.stats import bootstrap
from tenfold.stats.evaluate import draws_of
from tenfold.stats.net_benefit import contributions
from tenfold.stats.proportions import effective_n, wilson
from tenfold.stats.roc import roc_curve
from tenfold.stats.sample import Sample, Thresholds, by_patient, known_outcomes, samples_of
from tenfold.stats.smooth import Lowess
from tenfold.types import FloatArray, PredictionTable, finite_or_none

_POINTS, _BINS = 50, 10
_THRESHOLDS = np.arange(1, 100) / 100


def curves(
    table: PredictionTable, *, positive: str, thresholds: Thresholds, bootstraps: int = 1000, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Return what `curves.json` holds for one target.

    Rows of all repeats are taken together; bands are pointwise 95 % percentiles of the patient bootstrap.

    Args:
        table: Predictions of one split. Rows without an outcome are left out.
        positive: The class whose probability is judged.
        thresholds: (arm, repeat, fold) -> operating point.
        bootstraps: Draws of patients; below 20 the bands are null.
        seed: Of the draws.

    Returns:
        arm -> {"roc", "calibration", "decision", "confusion"}; a ROC curve of one class only has no points,
        counts of the confusion table are means over repeats.

    Raises:
        StatisticsError: The table cannot be judged: see `known_outcomes` and `samples_of`.
    """
    known = known_outcomes(table, positive)
    draws = draws_of(known, bootstraps, seed)
    return {
        arm: _curves(samples_of(known, arm, positive=positive, thresholds=thresholds, treat_at=0.5), draws)
        for arm in known.arms
    }


def _curves(samples: tuple[Sample, ...], draws: bootstrap.Draws) -> dict[str, Any]:
    """All curves of one arm."""
    together = _together(samples)
    return {
        "roc": _roc(together),
        "calibration": _calibration(together, draws),
        "decision": _decision(together, draws),
        "confusion": _confusion(samples),
    }


def _together(samples: tuple[Sample, ...]) -> Sample:
    """Rows of all repeats as one sample."""
    columns = ("case", "patient", "fold", "positive", "p", "threshold")
    joined = {c: np.concatenate([getattr(s, c) for s in samples]) for c in columns}
    order = np.argsort(joined["p"], kind="stable")
    return Sample(**{c: v[order] for c, v in joined.items()}, treat_at=samples[0].treat_at)


def _roc(sample: Sample) -> dict[str, list[float]]:
    if not sample.both_classes:
        return {"fpr": [], "tpr": []}
    fpr, tpr, _ = roc_curve(sample.positive, sample.p)
    return {"fpr": fpr.tolist(), "tpr": tpr.tolist()}


def _confusion(samples: tuple[Sample, ...]) -> dict[str, float]:
    """Counts at the operating point, whole where there is one repeat."""
    cells = {
        "tp": [int((s.called & s.positive).sum()) for s in samples],
        "fp": [int((s.called & ~s.positive).sum()) for s in samples],
        "fn": [int((~s.called & s.positive).sum()) for s in samples],
        "tn": [int((~s.called & ~s.positive).sum()) for s in samples],
    }
    return {name: counts[0] if len(counts) == 1 else float(np.mean(counts)) for name, counts in cells.items()}


def _calibration(sample: Sample, draws: bootstrap.Draws) -> dict[str, Any]:
    """The smoothed curve with its band, and ten groups of equal size."""
    smoother, outcome = Lowess.prepare(sample.p), sample.positive.astype(np.float64)
    x = np.linspace(sample.p[0], sample.p[-1], _POINTS if sample.p[-1] > sample.p[0] else 1)

    def at_x(weights: FloatArray) -> FloatArray:
        return np.clip(smoother.between(smoother.at_anchors(outcome, weights), x), 0.0, 1.0)

    low, high = _band(sample, at_x, len(x), bootstrap.affordable(draws, len(sample)))
    return {
        "x": x.tolist(),
        "y": at_x(np.ones((1, len(sample))))[0].tolist(),
        "low": low,
        "high": high,
        "bins": _bins(sample),
    }


def _bins(sample: Sample) -> list[dict[str, float | int]]:
    """Ten groups by probability, ties kept together, with clustered Wilson intervals."""
    edges = np.unique(np.quantile(sample.p, np.linspace(0, 1, _BINS + 1)[1:-1]))
    group = np.searchsorted(edges, sample.p, "left")
    size = int(sample.patient.max()) + 1
    found = []
    for g in np.unique(group):
        part = sample.where(group == g)
        hits, trials = (by_patient(part.patient, x, size)[None] for x in (part.positive, np.ones(len(part))))
        share = float(part.positive.mean())
        low, high = wilson(share, effective_n(hits, trials))
        found.append({"p": float(part.p.mean()), "observed": share, "low": low, "high": high, "n": len(part)})
    return found


def _decision(sample: Sample, draws: bootstrap.Draws) -> dict[str, Any]:
    """Net benefit from a threshold probability of 0.01 to 0.99; that of treating nobody is 0 throughout."""
    everybody = np.ones(len(sample), bool)
    added = np.stack([contributions(sample.positive, sample.p >= t, t) for t in _THRESHOLDS])
    all_treated = [float(contributions(sample.positive, everybody, t).mean()) for t in _THRESHOLDS]

    def at_thresholds(weights: FloatArray) -> FloatArray:
        return np.asarray(weights @ added.T / weights.sum(axis=1, keepdims=True))

    low, high = _band(sample, at_thresholds, len(_THRESHOLDS), draws)
    return {
        "threshold": _THRESHOLDS.tolist(),
        "net_benefit": added.mean(axis=1).tolist(),
        "low": low,
        "high": high,
        "treat_all": all_treated,
    }


def _band(
    sample: Sample, curve: bootstrap.Measure, points: int, draws: bootstrap.Draws
) -> tuple[list[float | None], list[float | None]]:
    """Pointwise ends of a curve over the draws, null where there are none."""
    drawn = bootstrap.replicate_curve(sample, curve, points, draws)
    usable = drawn[np.isfinite(drawn).all(axis=1)]
    if len(usable) < max(bootstrap.FEWEST, len(drawn) / 2):
        return [None] * points, [None] * points
    low, high = np.quantile(usable, [0.025, 0.975], axis=0)
    return [finite_or_none(v) for v in low], [finite_or_none(v) for v in high]
