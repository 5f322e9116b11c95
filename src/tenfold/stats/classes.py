"""Three classes or more: every figure over all of them, of each against the rest and of each pair, with intervals.

It must not know how predictions were made, nor how anything is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import norm

from tenfold.errors import StatisticsError, nearest
from tenfold.stats import bootstrap, proportions, roc
from tenfold.stats.class_metrics import (
    CLASS_METRICS,
    ClassSample,
    Deviations,
    class_samples,
    ovo_deviations,
    pair_placement,
    recall_deviations,
)
from tenfold.stats.compare import holm
from tenfold.stats.curves import curves
from tenfold.stats.evaluate import draws_of, estimates
from tenfold.stats.metrics import METRICS
from tenfold.stats.sample import known_outcomes, repeats_note, rest_on, unit
from tenfold.types import Estimate, FloatArray, PredictionTable, finite_or_none

Samples = tuple[ClassSample, ...]
Replicated = Mapping[str, tuple[float, FloatArray]]

BY_CLASS = (
    "auc",
    "sensitivity",
    "specificity",
    "ppv",
    "npv",
    "f1",
    "calibration_slope",
    "calibration_intercept",
    "ici",
    "net_benefit",
)
COMPARED: dict[str, Callable[[Sequence[ClassSample], int], Deviations]] = {
    "macro_ovo_auc": ovo_deviations,
    "balanced_accuracy": recall_deviations,
}
# Three classes of a dozen arms ask for a costly figure forty times as often as one outcome does.
_COSTLY_DRAWS = 400
_NO_VARIANCE = 1e-14


def evaluate_classes(
    table: PredictionTable, *, reference: str, bootstraps: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Compute what `classes.json` holds for one target, ready for JSON.

    What is decided is the likeliest class. A class against the rest is judged as a yes/no outcome: its probabilities'
    AUC, and the answers at that decision; the net benefit is that at the class's prevalence. With several repeats a
    figure is computed in each and averaged. The macro figures have percentile intervals of the patient bootstrap,
    one set of draws for all arms; a draw that lost a class has no such figure, and is counted in the method.

    Args:
        table: Predictions of one split. Rows without an outcome are left out.
        reference: The arm that the others are compared with, on the cases that both predicted.
        bootstraps: Draws of patients; calibration by class and the bands of curves take at most 400.
        seed: Of the draws.

    Returns:
        "classes", "arms" and "comparisons". By arm: "overall", "by_class" and "pairs" (the AUC of both directions
        averaged, DeLong) hold estimates as mappings; "confusion" counts cases, rows what is true, columns what is
        decided, means over repeats; "roc", "calibration" and "decision" hold the curves of each class. Comparisons
        are arm less reference, p by a z test clustered by patient, p_adjusted over the arms (Holm 1979); an arm that
        shares no case of some class with the reference has none.

    Raises:
        StatisticsError: The reference arm is unknown or shares no case with another; an outcome is none of the
            classes; or the table cannot be judged: see `known_outcomes` and `samples_of`.
    """
    known, draws, samples, replicated = _prepared(table, reference, bootstraps, seed)
    lines = _curves(known, min(bootstraps, _COSTLY_DRAWS), seed)
    return {
        "classes": list(known.classes),
        "arms": {
            arm: {**_arm(tuple(own.values()), known.classes, replicated[arm], draws), **lines[arm]}
            for arm, own in samples.items()
        },
        "comparisons": _comparisons(samples, reference, replicated, draws),
    }


def compare_classes(
    table: PredictionTable, *, reference: str, bootstraps: int = 1000, seed: int = 0
) -> list[dict[str, Any]]:
    """Compute the comparisons of `evaluate_classes` alone; arguments and errors are the same."""
    _, draws, samples, replicated = _prepared(table, reference, bootstraps, seed)
    return _comparisons(samples, reference, replicated, draws)


def _prepared(
    table: PredictionTable, reference: str, bootstraps: int, seed: int
) -> tuple[PredictionTable, bootstrap.Draws, dict[str, dict[int, ClassSample]], dict[str, Replicated]]:
    """The known rows, the draws of patients, each arm's samples by repeat, and its macro figures in every draw."""
    known = known_outcomes(table, table.classes[0])
    _refuse_foreign(known)
    if reference not in known.arms:
        raise StatisticsError(f"no arm '{reference}' to compare with", do=nearest(reference, known.arms))
    draws = draws_of(known, bootstraps, seed)
    samples = {arm: class_samples(known, arm) for arm in known.arms}
    return known, draws, samples, {arm: _replicates(tuple(own.values()), draws) for arm, own in samples.items()}


def _refuse_foreign(known: PredictionTable) -> None:
    """An outcome without a probability cannot be judged."""
    foreign = ~np.isin(known.label, known.classes)
    if foreign.any():
        row = int(np.flatnonzero(foreign)[0])
        raise StatisticsError(
            f"the outcome '{known.label[row]}' has no column in the predictions",
            do=nearest(str(known.label[row]), known.classes),
            where=f"arm {known.arm[row]}, case {known.case[row]}",
        )


def _curves(known: PredictionTable, bootstraps: int, seed: int) -> dict[str, dict[str, Any]]:
    """Arm -> curve -> class -> its points."""
    anywhere = dict.fromkeys(zip(known.arm.tolist(), known.repeat.tolist(), known.fold.tolist(), strict=True), 0.5)
    found = {
        name: curves(known, positive=name, thresholds=anywhere, bootstraps=bootstraps, seed=seed)
        for name in known.classes
    }
    return {
        arm: {
            "roc": {name: found[name][arm]["roc"] for name in found},
            "calibration": {name: found[name][arm]["calibration"] for name in found},
            "decision": {name: _decision(found[name][arm]["decision"]) for name in found},
        }
        for arm in known.arms
    }


def _decision(curve: Mapping[str, Any]) -> dict[str, Any]:
    return {"model" if key == "net_benefit" else key: values for key, values in curve.items()}


def _arm(samples: Samples, classes: Sequence[str], replicated: Replicated, draws: bootstrap.Draws) -> dict[str, Any]:
    """All figures of one arm."""
    return {
        "overall": _written(_overall(samples, classes, replicated, draws.shape[1])),
        "by_class": {name: _written(_of_class(samples, k, draws)) for k, name in enumerate(classes)},
        "pairs": _written(_pairs(samples, classes, draws.shape[1])),
        "confusion": _confusion(samples, len(classes)),
    }


def _written(found: Mapping[str, Estimate]) -> dict[str, dict[str, Any]]:
    return {name: estimate.to_dict() for name, estimate in found.items()}


def _overall(samples: Samples, classes: Sequence[str], replicated: Replicated, size: int) -> dict[str, Estimate]:
    """Figures over all classes."""
    rows = tuple(s.rows for s in samples)
    patients, cases = rest_on(rows)
    everybody = [np.ones(len(s), bool) for s in rows]
    found = {}
    for name, metric in CLASS_METRICS.items():
        if metric.hits is not None:
            found[name] = proportions.proportion(rows, [metric.hits(s) for s in samples], everybody, size)
        elif name in replicated:
            value, drawn = replicated[name]
            found[name] = bootstrap.percentile(value, drawn, patients=patients, cases=cases, repeats=len(samples))
        else:
            found[name] = _undefined([classes[k] for k in _absent(samples, range(len(classes)))], patients, cases)
    return found


def _replicates(samples: Samples, draws: bootstrap.Draws) -> Replicated:
    """Figures in the data themselves and in the draws; none of those that want a class which is absent."""
    absent = _absent(samples, range(len(samples[0].rest)))
    wanted = {
        name: metric
        for name, metric in CLASS_METRICS.items()
        if metric.hits is None and not (absent and metric.all_classes)
    }
    measures = [[metric.measure(s) for metric in wanted.values()] for s in samples]
    rows = tuple(s.rows for s in samples)
    values = bootstrap.replicate(rows, measures, np.ones((1, draws.shape[1]), np.int32))[:, 0].tolist()
    return dict(zip(wanted, zip(values, bootstrap.replicate(rows, measures, draws), strict=True), strict=True))


def _absent(samples: Samples, wanted: Iterable[int]) -> list[int]:
    """Those of the wanted classes that have no case in one of the repeats."""
    return [k for k in wanted if not all((s.label == k).any() for s in samples)]


def _undefined(absent: Sequence[str], patients: int, cases: int) -> Estimate:
    why = f"not defined: no case of the class '{absent[0]}'; {unit(patients, cases)}"
    return Estimate(math.nan, math.nan, math.nan, why, patients)


def _of_class(samples: Samples, k: int, draws: bootstrap.Draws) -> dict[str, Estimate]:
    """Figures of one class against the rest."""
    rest = tuple(s.rest[k] for s in samples)
    found: dict[str, Estimate] = {}
    for costly, of_these in ((False, draws), (True, draws[:_COSTLY_DRAWS])):
        found |= estimates(rest, of_these, [name for name in BY_CLASS if METRICS[name].costly == costly])
    return {name: found[name] for name in BY_CLASS}


def _pairs(samples: Samples, classes: Sequence[str], patients: int) -> dict[str, Estimate]:
    """AUC of each pair of classes, on the cases of the two."""
    found = {}
    for pair in combinations(range(len(classes)), 2):
        n, cases = _rest_on_classes(samples, pair)
        absent = [classes[k] for k in _absent(samples, pair)]
        found[" | ".join(classes[k] for k in pair)] = (
            _undefined(absent, n, cases)
            if absent
            else roc.interval(pair_placement(samples, pair, patients), cases, len(samples))
        )
    return found


def _rest_on_classes(samples: Samples, wanted: Sequence[int]) -> tuple[int, int]:
    """Patients and cases of some classes."""
    return rest_on(tuple(s.rows for s in samples), [np.isin(s.label, wanted) for s in samples])


def _confusion(samples: Samples, classes: int) -> list[list[float]]:
    """Cases, rows what is true, columns what is decided; whole where there is one repeat."""
    cells = classes**2
    counts = np.stack([np.bincount(s.label * classes + s.decided, minlength=cells) for s in samples])
    mean = counts[0] if len(counts) == 1 else counts.mean(axis=0)
    return mean.reshape(classes, classes).tolist()


def _comparisons(
    samples: Mapping[str, Mapping[int, ClassSample]],
    reference: str,
    replicated: Mapping[str, Replicated],
    draws: bootstrap.Draws,
) -> list[dict[str, Any]]:
    """Every arm against the reference arm, p adjusted over the arms."""
    found: list[dict[str, Any]] = []
    for arm in samples:
        if arm == reference:
            continue
        first, second = _shared(samples[arm], samples[reference], f"{arm} and {reference}")
        if not _absent(first, range(len(first[0].rest))):
            ours, theirs = (
                replicated[whose] if kept == tuple(samples[whose].values()) else _replicates(kept, draws)
                for whose, kept in ((arm, first), (reference, second))
            )
            gaps = {name: ours[name][1] - theirs[name][1] for name in COMPARED}
            found += [{"arm": arm, "reference": reference, **line} for line in _compared(first, second, gaps)]
    for name in COMPARED:
        lines = [line for line in found if line["metric"] == name]
        for line, adjusted in zip(lines, holm([line["p"] for line in lines]), strict=True):
            line |= {"p": finite_or_none(line["p"]), "p_adjusted": finite_or_none(adjusted)}
    return found


def _shared(first: Mapping[int, ClassSample], second: Mapping[int, ClassSample], who: str) -> tuple[Samples, Samples]:
    """Keep the repeats and cases that both have."""
    pairs = []
    for repeat in sorted(first.keys() & second.keys()):
        both = np.intersect1d(first[repeat].rows.case, second[repeat].rows.case)
        if len(both):
            pairs.append((first[repeat].where(both), second[repeat].where(both)))
    if not pairs:
        raise StatisticsError(f"the arms {who} share no case", expected="predictions of the same cases")
    return tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs)


def _compared(first: Samples, second: Samples, gaps: Mapping[str, FloatArray]) -> list[dict[str, Any]]:
    """The figures of one pair of arms, differences drawn already, p not yet adjusted."""
    rows = tuple(s.rows for s in first)
    patients, cases = rest_on(rows)
    size = max(int(s.patient.max()) for s in rows) + 1
    lines = []
    for name, deviations in COMPARED.items():
        gap = deviations(first, size).less(deviations(second, size))
        difference = bootstrap.percentile(
            gap.value, gaps[name], patients=patients, cases=cases, repeats=len(first), note="paired"
        )
        p, method = _z_test(gap, f"{repeats_note(len(first))}; {unit(patients, cases)}")
        lines.append({"metric": name, "difference": difference.to_dict(), "p": p, "method": method})
    return lines


def _z_test(gap: Deviations, ending: str) -> tuple[float, str]:
    """Two-sided p of a difference."""
    variance = gap.variance
    if math.isnan(variance) or variance < _NO_VARIANCE:
        return math.nan, "no test: the difference has no variance"
    p = float(2 * norm.sf(abs(gap.value) / math.sqrt(variance)))
    return p, f"paired z test, variance by DeLong's deviations summed over classes, clustered by patient{ending}"
