"""Any metric in the subgroups of a cohort, and how far the subgroups lie apart.

It must not know what the subgroups mean, nor say of a gap that it is fair or unfair.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from tenfold.errors import StatisticsError
from tenfold.stats import bootstrap
from tenfold.stats.evaluate import draws_of, estimates, replicates
from tenfold.stats.metrics import metric
from tenfold.stats.sample import Sample, Thresholds, known_outcomes, prevalence, rest_on, samples_of, unit
from tenfold.types import Estimate, FloatArray, PredictionTable, StrArray

FEWEST_PATIENTS = 10
NOT_STATED = "not stated"
SHOWN = ("auc", "sensitivity", "specificity", "calibration_slope")


@dataclass(frozen=True)
class Subgroup:
    """One level.

    Attributes:
        level: Its name; "not stated" of the cases without one.
        patients: Patients with a case in it.
        positives: Those of them with a case that has the outcome.
        estimates: Metric -> estimate; NaN, and why, where there are too few patients.
    """

    level: str
    patients: int
    positives: int
    estimates: Mapping[str, Estimate]

    def to_dict(self) -> dict[str, Any]:
        """Return level, counts and one estimate a metric, fit for JSON."""
        counts = {"level": self.level, "patients": self.patients, "positives": self.positives}
        return counts | {name: e.to_dict() for name, e in self.estimates.items()}


@dataclass(frozen=True)
class Gap:
    """How far the two outermost levels lie apart by one metric.

    Attributes:
        highest: Level of the highest value.
        lowest: Level of the lowest.
        difference: Highest minus lowest.
    """

    highest: str
    lowest: str
    difference: Estimate

    def to_dict(self) -> dict[str, Any]:
        """Return a mapping fit for JSON."""
        return {"highest": self.highest, "lowest": self.lowest, "difference": self.difference.to_dict()}


@dataclass(frozen=True)
class Subgroups:
    """All levels of one division of the cohort.

    Attributes:
        levels: In the order asked for; "not stated" last.
        gaps: Metric -> gap; only where two stated levels have a value.
    """

    levels: tuple[Subgroup, ...]
    gaps: Mapping[str, Gap]

    def to_dict(self) -> dict[str, Any]:
        """Return "levels" and "gaps", fit for JSON."""
        return {
            "levels": [level.to_dict() for level in self.levels],
            "gaps": {name: gap.to_dict() for name, gap in self.gaps.items()},
        }


def subgroup_metrics(
    table: PredictionTable,
    groups: Mapping[str, str],
    *,
    positive: str,
    thresholds: Thresholds,
    metrics: Sequence[str] = SHOWN,
    levels: Sequence[str] | None = None,
    bootstraps: int = 1000,
    seed: int = 0,
    net_benefit_at: float | None = None,
) -> Subgroups:
    """Compute metrics in every level, and the gap between the outermost two, all from the same draws of patients.

    A level with fewer than 10 patients of either outcome is listed, not estimated.

    Args:
        table: Predictions of one arm and one split. Rows without an outcome are left out.
        groups: Case -> level, empty where not stated.
        positive: The class whose probability is judged.
        thresholds: (arm, repeat, fold) -> operating point.
        metrics: Keys of `METRICS`.
        levels: The levels, in the order to list them; all there are, by name, where left out.
        bootstraps: Draws of patients.
        seed: Of the draws.
        net_benefit_at: Threshold probability of the net benefit; the prevalence in the whole table where left out.

    Raises:
        StatisticsError: Several arms, an unknown metric, a case whose level is nowhere said, or a level not in
            `levels`.
    """
    for name in metrics:
        metric(name)
    known = known_outcomes(table, positive)
    level = _levels(known, groups)
    names = _ordered(set(level.tolist()), levels)
    treat_at = prevalence(known, positive) if net_benefit_at is None else net_benefit_at
    draws = draws_of(known, bootstraps, seed)
    whole = samples_of(known, known.arms[0], positive=positive, thresholds=thresholds, treat_at=treat_at)
    level_of = dict(zip(known.case.tolist(), level.tolist(), strict=True))
    parts = {name: _part(whole, name, level_of) for name in names}
    rows = tuple(_subgroup(name, part, metrics, draws) for name, part in parts.items())
    return Subgroups(rows, _gaps(rows, parts, metrics, draws))


def bands(values: Sequence[float], cuts: Sequence[float], unit: str = "") -> tuple[list[str], tuple[str, ...]]:
    """Divide numbers into bands, for `subgroup_metrics`.

    Args:
        values: Numbers, NaN where missing.
        cuts: Where a new band begins, ascending: 28 and 32 make "below 28", "28 to below 32", "32 or above".
        unit: Behind the numbers.

    Returns:
        The band of each value, empty where it is missing, and all bands in order.

    Raises:
        StatisticsError: No cut, or cuts that do not ascend.
    """
    if not len(cuts) or any(a >= b for a, b in pairwise(cuts)):
        raise StatisticsError(f"cuts at {', '.join(map(str, cuts)) or 'nothing'}", expected="ascending numbers")
    ends = [f"{cut:g} {unit}".rstrip() for cut in cuts]
    middle = [f"{a} to below {b}" for a, b in pairwise(ends)]
    names = (f"below {ends[0]}", *middle, f"{ends[-1]} or above")
    return ["" if math.isnan(v) else names[bisect.bisect_right(cuts, v)] for v in values], names


def _levels(known: PredictionTable, groups: Mapping[str, str]) -> StrArray:
    """Level of every row."""
    if len(known.arms) > 1:
        raise StatisticsError(
            f"predictions of {len(known.arms)} arms", expected="one arm", do="pick one with table.select(arm=...)"
        )
    absent = [case for case in known.case.tolist() if case not in groups]
    if absent:
        raise StatisticsError(
            f"of {len(absent)} cases it is not said which subgroup they are in",
            expected="a level for every case, empty where it is not known",
            where=f"case {absent[0]}",
        )
    return np.array([groups[case] or NOT_STATED for case in known.case.tolist()])


def _ordered(found: set[str], levels: Sequence[str] | None) -> list[str]:
    """The levels to list, "not stated" last."""
    stated = found - {NOT_STATED}
    if levels is None:
        names = sorted(stated)
    elif stated <= set(levels):
        names = list(levels)
    else:
        raise StatisticsError(f"the subgroup '{min(stated - set(levels))}'", expected=f"one of {', '.join(levels)}")
    return names + [NOT_STATED] * (NOT_STATED in found)


def _part(whole: tuple[Sample, ...], name: str, level_of: Mapping[str, str]) -> tuple[Sample, ...]:
    """The cases of one level."""
    return tuple(s.where(np.array([level_of[c] == name for c in s.case.tolist()], bool)) for s in whole)


def _subgroup(name: str, part: tuple[Sample, ...], metrics: Sequence[str], draws: bootstrap.Draws) -> Subgroup:
    """Counts and estimates of one level."""
    ill, well = (
        len(np.unique(np.concatenate([s.patient[s.positive == which] for s in part]))) for which in (True, False)
    )
    patients, cases = rest_on(part)
    if min(ill, well) >= FEWEST_PATIENTS:
        return Subgroup(name, patients, ill, estimates(part, draws, metrics))
    why = f"not estimated: {ill} patients with and {well} without the outcome, fewer than {FEWEST_PATIENTS} of one"
    nothing = Estimate(math.nan, math.nan, math.nan, f"{why}; {unit(patients, cases)}", patients)
    return Subgroup(name, patients, ill, dict.fromkeys(metrics, nothing))


def _gaps(
    rows: Sequence[Subgroup],
    parts: Mapping[str, tuple[Sample, ...]],
    metrics: Sequence[str],
    draws: bootstrap.Draws,
) -> dict[str, Gap]:
    """Gap of every metric that two stated levels have."""
    drawn = {
        row.level: replicates(parts[row.level], metrics, draws)
        for row in rows
        if row.level != NOT_STATED and any(math.isfinite(e.value) for e in row.estimates.values())
    }
    found = {}
    for name in metrics:
        values = {r.level: r.estimates[name].value for r in rows if r.level in drawn}
        values = {level: value for level, value in values.items() if math.isfinite(value)}
        if len(values) > 1:
            found[name] = _gap(values, parts, {level: drawn[level][name] for level in values})
    return found


def _gap(values: Mapping[str, float], parts: Mapping[str, tuple[Sample, ...]], drawn: Mapping[str, FloatArray]) -> Gap:
    """Gap of one metric between the level of the highest and that of the lowest value, which the draws keep."""
    ascending = sorted(values, key=values.__getitem__)
    lowest, highest = ascending[0], ascending[-1]
    # Costly metrics have fewer draws in larger levels, the first ones being the same.
    shared = min(len(drawn[highest]), len(drawn[lowest]))
    patients, cases = rest_on(parts[highest] + parts[lowest])
    difference = bootstrap.percentile(
        values[highest] - values[lowest],
        drawn[highest][:shared] - drawn[lowest][:shared],
        patients=patients,
        cases=cases,
        repeats=len(parts[highest]),
        note=f"the outermost of {len(values)} levels, which leans upwards" if len(values) > 2 else "",
    )
    return Gap(highest, lowest, difference)
