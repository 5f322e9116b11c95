"""Arms against each other, on the same cases.

It must not know which arm anybody hopes for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import binom, chi2

from tenfold.errors import StatisticsError, nearest
from tenfold.stats import bootstrap, roc
from tenfold.stats.evaluate import draws_of, placement_of, point, replicates
from tenfold.stats.metrics import METRICS, Share
from tenfold.stats.sample import (
    Sample,
    Thresholds,
    by_patient,
    known_outcomes,
    prevalence,
    repeats_note,
    rest_on,
    samples_of,
    unit,
)
from tenfold.types import Estimate, FloatArray, PredictionTable, finite_or_none

Samples = tuple[Sample, ...]

# Answers to the same question on the same cases: McNemar's test applies.
_PAIRED_ANSWERS = ("sensitivity", "specificity", "accuracy")


@dataclass(frozen=True)
class Comparison:
    """One arm against the reference arm by one metric.

    Attributes:
        arm: The arm.
        reference: The reference arm.
        metric: Key of `METRICS`.
        difference: Arm minus reference.
        p: Two-sided; NaN where there is no test.
        p_holm: p adjusted over the arms compared by this metric (Holm 1979).
        method: How p was got; that of the interval stands in `difference`.
    """

    arm: str
    reference: str
    metric: str
    difference: Estimate
    p: float
    p_holm: float
    method: str

    def to_dict(self) -> dict[str, Any]:
        """Return a mapping fit for JSON, NaN written as null."""
        return {
            "arm": self.arm,
            "reference": self.reference,
            "metric": self.metric,
            "difference": self.difference.to_dict(),
            "p": finite_or_none(self.p),
            "p_holm": finite_or_none(self.p_holm),
            "method": self.method,
        }


def compare_arms(
    table: PredictionTable,
    *,
    positive: str,
    thresholds: Thresholds,
    reference: str,
    bootstraps: int = 1000,
    seed: int = 0,
    net_benefit_at: float | None = None,
) -> list[Comparison]:
    """Compare every arm with the reference arm, on the cases that both predicted.

    AUCs by paired DeLong, clustered by patient; sensitivity, specificity and accuracy by McNemar, exact or
    clustered; everything else by the paired patient bootstrap, with the draws of `evaluate`.

    Args:
        table: Predictions of one split. Rows without an outcome are left out.
        positive: The class whose probability is judged.
        thresholds: (arm, repeat, fold) -> operating point.
        reference: The arm that the others are compared with.
        bootstraps: Draws of patients.
        seed: Of the draws.
        net_benefit_at: Threshold probability of the net benefit; the prevalence in the table where left out.

    Returns:
        One comparison an arm and metric; metrics that either arm cannot give are left out.

    Raises:
        StatisticsError: The reference arm is unknown, or shares no case with another.
    """
    known = known_outcomes(table, positive)
    if reference not in known.arms:
        raise StatisticsError(f"no arm '{reference}' to compare with", do=nearest(reference, known.arms))
    treat_at = prevalence(known, positive) if net_benefit_at is None else net_benefit_at
    draws = draws_of(known, bootstraps, seed)
    prepared = {
        arm: samples_of(known, arm, positive=positive, thresholds=thresholds, treat_at=treat_at) for arm in known.arms
    }
    repeats = {arm: np.unique(known.repeat[known.arm == arm]).tolist() for arm in known.arms}
    found: list[Comparison] = []
    for arm in known.arms:
        if arm != reference:
            pair = _shared(
                dict(zip(repeats[arm], prepared[arm], strict=True)),
                dict(zip(repeats[reference], prepared[reference], strict=True)),
                f"{arm} and {reference}",
            )
            found += _comparisons(arm, reference, *pair, draws)
    return _adjusted(found)


def _shared(first: dict[int, Sample], second: dict[int, Sample], who: str) -> tuple[Samples, Samples]:
    """Keep the repeats and cases that both have, each arm sorted by its own probabilities."""
    kept_first, kept_second = [], []
    for repeat in sorted(first.keys() & second.keys()):
        a, b = first[repeat], second[repeat]
        in_both = np.intersect1d(a.case, b.case)
        if len(in_both):
            kept_first.append(a.where(np.isin(a.case, in_both)))
            kept_second.append(b.where(np.isin(b.case, in_both)))
    if not kept_first:
        raise StatisticsError(f"the arms {who} share no case", expected="predictions of the same cases")
    return tuple(kept_first), tuple(kept_second)


def _comparisons(arm: str, reference: str, first: Samples, second: Samples, draws: bootstrap.Draws) -> list[Comparison]:
    """All metrics of one pair, p not yet adjusted."""
    both = all(s.both_classes for s in first)
    values = {
        name: (point(first, metric), point(second, metric))
        for name, metric in METRICS.items()
        if metric.compared and (both or not metric.both_classes)
    }
    values = {name: pair for name, pair in values.items() if all(map(math.isfinite, pair))}
    drawn = [name for name in values if METRICS[name].interval != "delong"]
    ours, theirs = replicates(first, drawn, draws), replicates(second, drawn, draws)
    patients, cases = rest_on(first)
    found = []
    for name, (one, other) in values.items():
        if METRICS[name].interval == "delong":
            size = draws.shape[1]
            test = roc.paired_test(placement_of(first, size), placement_of(second, size), cases, len(first))
            found.append(Comparison(arm, reference, name, test.difference, test.p, math.nan, _test_name(test)))
            continue
        row = ours[name] - theirs[name]
        estimate = bootstrap.percentile(
            one - other, row, patients=patients, cases=cases, repeats=len(first), note="paired"
        )
        share = METRICS[name].share
        if share is not None and name in _PAIRED_ANSWERS:
            p, method = _mcnemar(first, second, share)
        else:
            p, method = _bootstrap_p(row)
        found.append(Comparison(arm, reference, name, estimate, p, math.nan, method))
    return found


def _test_name(test: roc.AucTest) -> str:
    """How the p of two AUCs was got."""
    return "no test: the difference has no variance" if math.isnan(test.p) else test.difference.method


def _bootstrap_p(drawn: FloatArray) -> tuple[float, str]:
    """Two-sided p: twice the share of draws on the far side of 0, each side with one draw added."""
    usable = drawn[np.isfinite(drawn)]
    if math.isnan(bootstrap.percentile_ends(drawn)[0]):
        return math.nan, "no test: too few bootstrap draws, or none of them differ"
    side = min(int((usable <= 0).sum()), int((usable >= 0).sum()))
    return min(1.0, 2 * (side + 1) / (len(usable) + 1)), f"paired patient bootstrap, {len(drawn)} draws"


def _mcnemar(first: Samples, second: Samples, share: Share) -> tuple[float, str]:
    """McNemar's test: exact with one answer a patient, otherwise clustered by patient."""
    gains = []
    for a, b in zip(first, second, strict=True):
        to_b = np.argsort(b.case, kind="stable")[np.argsort(np.argsort(a.case, kind="stable"))]
        (hit_a, counted), (hit_b, _) = share(a), share(b)
        gains.append((a.patient[counted], hit_a[counted].astype(int) - hit_b[to_b][counted]))
    patients, cases = rest_on(first)
    patient, gain = (np.concatenate(column) for column in zip(*gains, strict=True))
    if patients == cases and len(first) == 1:
        p = mcnemar(int((gain > 0).sum()), int((gain < 0).sum()))
        return p, f"exact McNemar; {unit(patients, cases)}"
    p = clustered_mcnemar(by_patient(patient, gain, 0))
    return (
        p,
        f"McNemar clustered by patient (Durkalski 2003){repeats_note(len(first))}; {unit(patients, cases)}",
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p of McNemar's test; 1 where the answers never differ.

    Args:
        only_first: Cases that only the first got right.
        only_second: Cases that only the second got right.
    """
    differing = only_first + only_second
    return min(1.0, 2 * float(binom.cdf(min(only_first, only_second), differing, 0.5))) if differing else 1.0


def clustered_mcnemar(gains: FloatArray) -> float:
    """Return the two-sided p of McNemar's test with several answers a patient (Durkalski et al. 2003).

    Args:
        gains: (patients,) answers that only the first got right, less those that only the second did.

    Returns:
        p; 1 where no patient tells them apart.
    """
    spread = float(gains @ gains)
    return float(chi2.sf(gains.sum() ** 2 / spread, 1)) if spread > 0 else 1.0


def holm(p: Sequence[float]) -> list[float]:
    """Adjust p for being several (Holm 1979); NaN stays NaN and does not count.

    Args:
        p: Unadjusted, any order.
    """
    adjusted, largest = [math.nan] * len(p), 0.0
    tested = sorted((value, i) for i, value in enumerate(p) if not math.isnan(value))
    for rank, (value, i) in enumerate(tested):
        largest = max(largest, min(1.0, value * (len(tested) - rank)))
        adjusted[i] = largest
    return adjusted


def _adjusted(found: list[Comparison]) -> list[Comparison]:
    """Fill in Holm's p within each metric."""
    adjusted: dict[int, float] = {}
    for name in METRICS:
        rows = [i for i, c in enumerate(found) if c.metric == name]
        adjusted |= dict(zip(rows, holm([found[i].p for i in rows]), strict=True))
    return [replace(c, p_holm=adjusted[i]) for i, c in enumerate(found)]
