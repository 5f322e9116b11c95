"""Every metric of every arm, with its interval.

It must not know how predictions were made, nor which of several splits it is given.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from tenfold.stats import bootstrap, proportions, roc
from tenfold.stats.metrics import METRICS, Metric
from tenfold.stats.sample import (
    Sample,
    Thresholds,
    known_outcomes,
    prevalence,
    rest_on,
    samples_of,
    unit,
)
from tenfold.types import Estimate, FloatArray, PredictionTable, finite_or_none


def evaluate(
    table: PredictionTable,
    *,
    positive: str,
    thresholds: Thresholds,
    bootstraps: int = 1000,
    seed: int = 0,
    net_benefit_at: float | None = None,
) -> dict[str, dict[str, Estimate]]:
    """Compute all of `METRICS` for every arm, by patient.

    With several repeats a metric is computed in each and averaged. A metric that these data cannot
    give is NaN, and its method says why.

    Args:
        table: Predictions of one split. Rows without an outcome are left out.
        positive: The class whose probability is judged.
        thresholds: (arm, repeat, fold) -> operating point.
        bootstraps: Draws of patients, the same for all metrics and arms.
        seed: Of the draws.
        net_benefit_at: Threshold probability of the net benefit; the prevalence in the table where left out.

    Returns:
        arm -> metric -> estimate.

    Raises:
        StatisticsError: The table cannot be judged: see `known_outcomes` and `samples_of`.
    """
    known = known_outcomes(table, positive)
    treat_at = prevalence(known, positive) if net_benefit_at is None else net_benefit_at
    draws = draws_of(known, bootstraps, seed)
    return {
        arm: estimates(samples_of(known, arm, positive=positive, thresholds=thresholds, treat_at=treat_at), draws)
        for arm in known.arms
    }


def draws_of(known: PredictionTable, bootstraps: int, seed: int) -> bootstrap.Draws:
    """Draw the patients of a table, all arms together."""
    return bootstrap.draw(len(np.unique(known.patient)), bootstraps, seed)


def estimates(
    samples: tuple[Sample, ...], draws: bootstrap.Draws, names: Collection[str] = METRICS
) -> dict[str, Estimate]:
    """Compute metrics of one arm, or of some of its cases.

    Args:
        samples: One a repeat.
        draws: What `draws_of` returned for the whole table.
        names: Keys of `METRICS`.
    """
    both = all(s.both_classes for s in samples)
    found, pending = {}, {}
    for name in names:
        metric = METRICS[name]
        value = point(samples, metric) if both or not metric.both_classes else math.nan
        if math.isnan(value):
            found[name] = _undefined(samples, metric, both)
        elif metric.interval == "delong":
            found[name] = _auc(samples, draws.shape[1])
        elif metric.share is not None:
            hits, counted = zip(*(metric.share(s) for s in samples), strict=True)
            found[name] = proportions.proportion(samples, hits, counted, draws.shape[1])
        else:
            pending[name] = value
    found |= _bootstrapped(samples, pending, draws)
    return {name: found[name] for name in names}


def point(samples: tuple[Sample, ...], metric: Metric) -> float:
    """Value of a metric in the data themselves, averaged over repeats; NaN where one of them has none."""
    return float(np.mean([metric.measure(s)(np.ones((1, len(s))))[0] for s in samples]))


def _undefined(samples: tuple[Sample, ...], metric: Metric, both: bool) -> Estimate:
    """A metric without a value, and why."""
    patients, cases = rest_on(samples)
    why = metric.undefined if both or not metric.both_classes else "one class only"
    return Estimate(math.nan, math.nan, math.nan, f"not defined: {why}; {unit(patients, cases)}", patients)


def _auc(samples: tuple[Sample, ...], patients: int) -> Estimate:
    """AUC with its DeLong interval."""
    return roc.interval(placement_of(samples, patients), rest_on(samples)[1], len(samples))


def placement_of(samples: tuple[Sample, ...], patients: int) -> roc.Placement:
    """Placement values of one arm, averaged over repeats."""
    return roc.average([roc.placement(s.positive, s.p, s.patient, patients) for s in samples])


def _bootstrapped(
    samples: tuple[Sample, ...], values: Mapping[str, float], draws: bootstrap.Draws
) -> dict[str, Estimate]:
    """Estimates with percentile intervals, all from the same draws."""
    drawn = replicates(samples, list(values), draws)
    patients, cases = rest_on(samples)
    return {
        name: bootstrap.percentile(
            value, drawn[name], patients=patients, cases=cases, repeats=len(samples), note=_note(name, samples)
        )
        for name, value in values.items()
    }


def replicates(samples: tuple[Sample, ...], names: Sequence[str], draws: bootstrap.Draws) -> dict[str, FloatArray]:
    """Compute metrics in every draw, costly ones in as many as can be afforded."""
    few = bootstrap.affordable(draws, sum(map(len, samples)))
    drawn: dict[str, FloatArray] = {}
    for costly, of_these in ((False, draws), (True, few)):
        group = [name for name in names if METRICS[name].costly == costly]
        measures = [[METRICS[name].measure(s) for name in group] for s in samples]
        drawn |= dict(zip(group, bootstrap.replicate(samples, measures, of_these), strict=True))
    return drawn


def _note(name: str, samples: tuple[Sample, ...]) -> str:
    """What the method of one metric adds."""
    if name == "net_benefit":
        return f"at a threshold probability of {samples[0].treat_at:.4g}"
    return METRICS[name].note


def per_fold(table: PredictionTable, positive: str) -> dict[str, list[dict[str, int | float | None]]]:
    """Return the AUC within every fold.

    Args:
        table: Predictions of one split.
        positive: The class whose probability is judged.

    Returns:
        arm -> one mapping a (repeat, fold): "repeat", "fold", "n" cases, "auc" (None where one class only).
    """
    known = known_outcomes(table, positive)
    outcome, score = known.label == positive, known.probability(positive)
    found: dict[str, list[dict[str, int | float | None]]] = {}
    for arm in known.arms:
        of_arm = known.arm == arm
        pairs = sorted(set(zip(known.repeat[of_arm].tolist(), known.fold[of_arm].tolist(), strict=True)))
        found[arm] = [
            {"repeat": r, "fold": f, "n": int(rows.sum()), "auc": _auc_or_none(outcome[rows], score[rows])}
            for r, f in pairs
            for rows in [of_arm & (known.repeat == r) & (known.fold == f)]
        ]
    return found


def _auc_or_none(outcome: np.ndarray, score: FloatArray) -> float | None:
    """AUC, or None where there is one class only."""
    return finite_or_none(roc.auc(outcome, score)) if 0 < outcome.sum() < len(outcome) else None
