"""What the proposed arm is worth beyond its predictions: against permuted labels, on its own patients, with fewer.

It must not know other arms, how a network is trained, nor how any of it is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from tenfold.cohort.outcomes import Outcome
from tenfold.config import ImageInput, TableInput
from tenfold.errors import Refusal, TrainingError
from tenfold.stats import roc
from tenfold.study.arms import FittedArm
from tenfold.study.bench import Bench
from tenfold.study.network_arm import FoldNetworks, material_of
from tenfold.study.preparing import kept_together
from tenfold.training.device import seed_for
from tenfold.training.together import Job, fit_together, predict_together
from tenfold.types import Estimate, FloatArray, IntArray, Split

Arms = Mapping[str, FittedArm]
"""The proposed arm as each target sees it."""
Said = Sequence[tuple[IntArray, FloatArray]]
"""Rows and scores of each fold's test cases."""

REPEATS = 5
"""At most so many divisions of the patients are gone through for a learning curve."""
_DRAWS = 100
"""So often, on average, a permutation is drawn again before it is given up."""
_AT_ONCE = 256
"""Trainings between two predictions: what they leave must fit into memory, however many are asked for."""
# two AUCs of the same rank order may differ in the last bits
_ALIKE = 1e-9


@dataclass(frozen=True)
class Permuted:
    """An AUC beside those of permuted labels.

    Attributes:
        p: Chance of an AUC as high where inputs and outcome have nothing to do with each other; None where the labels
            were not permuted.
        n: Permutations; None likewise.
        observed: The AUC that is judged.
        null_mean: Mean AUC of the permutations.
        null_high: Their 95th percentile.
        method: How, or why not.
    """

    p: float | None
    n: int | None
    observed: float
    null_mean: float | None
    null_high: float | None
    method: str


@dataclass(frozen=True)
class Optimism:
    """An AUC on the patients that were trained on beside that on those who were not.

    Attributes:
        apparent: Mean over folds; NaN where it was not looked at.
        out_of_fold: Of the same fold networks.
        optimism: Their difference.
        method: How, or why not.
        n: Patients out of fold.
    """

    apparent: float
    out_of_fold: float
    optimism: float
    method: str
    n: int


@dataclass(frozen=True)
class Share:
    """A point of a learning curve.

    Attributes:
        share: Of each fold's training patients.
        patients: How many that is, the mean over folds; NaN where nothing was fitted.
        auc: Out of fold.
    """

    share: float
    patients: float
    auc: Estimate


def permutations(bench: Bench, arms: Arms, networks: FoldNetworks) -> dict[str, Permuted]:
    """Judge the AUC of each target against networks that were fitted to permuted labels (Ojala & Garriga 2010).

    Who has the same fold changes labels: so each fold keeps as many of each class as the dealing gave it, for the
    dealing looked at the labels and a fold short of one class would be predicted worse than chance. What is kept
    together (cases of a patient, families) moves as one with what has as many cases, and stays where nothing has; the
    labels of all targets move together, those that are unknown too. p counts the observed labels among the permuted
    ones (Phipson & Smyth 2010). Preparations see no labels, and stay.

    Args:
        bench: The study's cohort and folds.
        arms: The arm as each target sees it.
        networks: Its networks.

    Returns:
        By target.
    """
    n = bench.config.validation.permutations
    observed = {target: _auc(bench.of(target), _out_of_fold(bench, arm)) for target, arm in arms.items()}
    if networks.apart:
        return _not_permuted(
            bench, observed, f"not permuted, for its folds cannot be trained together: {networks.apart}"
        )
    if any(isinstance(section, TableInput) and section.screen for section in bench.config.inputs.values()):
        return _not_permuted(bench, observed, "not permuted, for its columns are screened by their labels")
    first = [k for k, split in enumerate(bench.splits) if split.repeat == 0]
    try:
        changed = _permuted_benches(bench, networks, first, n)
        jobs = [_job(own, networks, k) for own in changed for k in first]
        test = [networks.parts[k][2] for k in first]
        found = _fitted(bench, f"{n} permutations", jobs, test * n)
    except Refusal as refusal:
        return _not_permuted(bench, observed, f"not permuted: {refusal.came}")
    method = (
        "labels of all outcomes moved together among the patients of a test fold, networks fitted anew on the folds of "
        "the first division; statistic: the AUC of its test cases, all folds pooled, before calibration; "
        "p = (1 + permutations that did as well) / (1 + permutations), Phipson & Smyth 2010"
    )
    results = {}
    for target, own in observed.items():
        null = np.array(
            [
                _auc(one.of(target), [(r, s[target]) for r, s in zip(test, _part(found, i, len(first)), strict=True)])
                for i, one in enumerate(changed)
            ]
        )
        p = (1 + int((null >= own - _ALIKE).sum())) / (1 + n)
        results[target] = Permuted(p, n, own, float(null.mean()), float(np.quantile(null, 0.95)), method)
    return results


def optimism(bench: Bench, arms: Arms) -> dict[str, Optimism]:
    """Set the AUC of fold networks on their own training patients beside that on patients they never saw, by target."""
    return {target: _optimism(bench.of(target), arm) for target, arm in arms.items()}


def learning_curve(bench: Bench, arms: Arms, networks: FoldNetworks) -> dict[str, list[Share]]:
    """Fit the arm on shares of each fold's training patients, and on which AUC it comes out of fold.

    A smaller share is part of a larger one, and has its part of every combination of labels. Preparations are fitted on
    the share alone; the inner part, on which the best epoch is chosen, stays whole.

    Args:
        bench: The study's cohort and folds.
        arms: The arm as each target sees it.
        networks: Its networks.

    Returns:
        By target, the smallest share first and the whole training part last.
    """
    used = [k for k, split in enumerate(bench.splits) if split.repeat < REPEATS]
    orders = {k: _order(bench, networks.parts[k][0], bench.splits[k]) for k in used}
    curves: dict[str, list[Share]] = {target: [] for target in arms}
    for share in sorted(set(bench.config.validation.learning_curve)):
        reason = networks.apart and f"its folds cannot be trained together: {networks.apart}"
        said: dict[int, Mapping[str, FloatArray]] = {}
        trained: dict[int, IntArray] = {}
        try:
            for repeat in {} if reason else sorted({bench.splits[k].repeat for k in used}):
                own = [k for k in used if bench.splits[k].repeat == repeat]
                trained |= {k: _first_patients(bench, networks.parts[k][0], orders[k], share) for k in own}
                jobs = [_smaller(bench, networks, k, trained[k]) for k in own]
                what = f"learning curve: {share:g} of the training patients, repeat {repeat + 1}"
                said |= zip(own, _fitted(bench, what, jobs, [networks.parts[k][2] for k in own]), strict=True)
        except Refusal as refusal:
            reason = refusal.came
        if reason:
            bench.progress.say(f"learning curve: nothing was fitted to {share:g} of the training patients: {reason}")
        for target, points in curves.items():
            if reason:
                unknown = Estimate(math.nan, math.nan, math.nan, f"not fitted: {reason}", 0)
                points.append(Share(share, math.nan, unknown))
            else:
                folds = {k: (networks.parts[k][2], said[k][target]) for k in used}
                points.append(Share(share, _mean_patients(bench, trained.values()), _estimate(bench.of(target), folds)))
    whole = _mean_patients(bench, (networks.parts[k][0] for k in used))
    for target, arm in arms.items():
        folds = {k: (arm.folds[k].test, arm.folds[k].test_scores) for k in used}
        curves[target].append(Share(1.0, whole, _estimate(bench.of(target), folds)))
    return curves


def described(found: Mapping[str, Permuted], arm: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Return what permutations.json holds."""
    return {target: {arm: asdict(one)} for target, one in found.items()}


def described_curve(found: Mapping[str, Sequence[Share]]) -> dict[str, list[dict[str, Any]]]:
    """Return what learning_curve.json holds."""
    return {
        target: [{"share": p.share, "patients": p.patients, "auc": p.auc.to_dict()} for p in points]
        for target, points in found.items()
    }


def _not_permuted(bench: Bench, observed: Mapping[str, float], reason: str) -> dict[str, Permuted]:
    bench.progress.say(f"the labels were {reason}")
    return {target: Permuted(None, None, own, None, None, reason) for target, own in observed.items()}


def _permuted_benches(bench: Bench, networks: FoldNetworks, folds: Sequence[int], n: int) -> list[Bench]:
    """Draw permutations of the labels of which every fold can be trained.

    The labels as they are have passed the same test, so they are still one draw among others.
    """
    blocks = _exchangeable(bench, [networks.parts[k][2] for k in folds])
    if not blocks:
        raise TrainingError("no two patients of a test fold have as many cases", do="use fewer folds")
    random = np.random.default_rng(seed_for(bench.config.seed, "permutations"))
    changed: list[Bench] = []
    for _ in range(_DRAWS * n):
        if len(changed) == n:
            break
        origin = np.arange(len(bench.cohort))
        for rows in blocks:
            origin[rows] = random.permutation(rows)
        own = replace(bench, outcomes={name: _moved(outcome, origin) for name, outcome in bench.outcomes.items()})
        if all(_can_learn(own, *networks.parts[k][:2]) for k in folds):
            changed.append(own)
    if len(changed) < n:
        raise TrainingError("too few patients: almost every permutation leaves a fold with one class to learn")
    return changed


def _exchangeable(bench: Bench, test: Sequence[IntArray]) -> list[IntArray]:
    """Return (units, cases) rows of what may change labels with each other: of one fold, and alike in cases."""
    together = kept_together(bench.cohort, {}, bench.config.validation.family)
    patient = bench.cohort.patient
    found: dict[tuple[int, ...], list[list[int]]] = {}
    for fold, rows in enumerate(test):
        units: dict[str, dict[str, list[int]]] = {}
        for row in rows.tolist():
            name = str(patient[row])
            units.setdefault(together.get(name, name), {}).setdefault(name, []).append(row)
        for unit in units.values():
            members = sorted(unit.values(), key=len)
            sizes = (fold, *(len(own) for own in members))
            found.setdefault(sizes, []).append([row for own in members for row in own])
    return [np.array(units, np.int64) for units in found.values() if len(units) > 1]


def _moved(outcome: Outcome, origin: IntArray) -> Outcome:
    labels = replace(outcome.labels, values=outcome.labels.values[origin])
    return replace(outcome, labels=labels, values=outcome.values[origin])


def _can_learn(bench: Bench, train: IntArray, inner: IntArray) -> bool:
    """Whether each target has two values to learn from, and any is known where the best epoch is chosen."""
    values = [outcome.values for outcome in bench.outcomes.values()]
    varied = all(len(np.unique(own[train][~np.isnan(own[train])])) > 1 for own in values)
    return varied and any(not np.isnan(own[inner]).all() for own in values)


def _job(bench: Bench, networks: FoldNetworks, fold: int) -> Job:
    train, inner, _ = networks.parts[fold]
    material = material_of(bench, networks.inputs[fold], train, inner)
    return networks.plan.job(bench, bench.splits[fold], networks.fitted[fold], material)


def _smaller(bench: Bench, networks: FoldNetworks, fold: int, train: IntArray) -> Job:
    """Describe a fold's training on some of its training patients, of whom alone preparations know."""
    if not _can_learn(bench, train, networks.parts[fold][1]):
        raise TrainingError("an outcome has one value only among so few training patients")
    fitted = bench.fitted(networks.plan.sections, train)
    inputs = networks.inputs[fold].with_tables(bench.applied(fitted))
    material = material_of(bench, inputs, train, networks.parts[fold][1])
    return networks.plan.job(bench, bench.splits[fold], fitted, material)


def _fitted(bench: Bench, what: str, jobs: Sequence[Job], rows: Sequence[IntArray]) -> list[dict[str, FloatArray]]:
    """Train jobs together and predict the test rows of each."""
    bench.progress.start(what, len(jobs))
    found: list[dict[str, FloatArray]] = []
    for start in range(0, len(jobs), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        fitted = fit_together(
            jobs[part],
            progress=lambda done, _, start=start: bench.progress.reach(start + done),  # type: ignore[misc]
        )
        found += predict_together(fitted, rows[part])
    return found


def _part(found: Sequence[dict[str, FloatArray]], place: int, size: int) -> Sequence[dict[str, FloatArray]]:
    return found[place * size : (place + 1) * size]


def _out_of_fold(bench: Bench, arm: FittedArm) -> Said:
    """What the networks of the first division said of their test cases."""
    pairs = zip(bench.splits, arm.folds, strict=True)
    return [(fold.test, fold.test_scores) for split, fold in pairs if split.repeat == 0]


def _margins(bench: Bench, said: Said) -> tuple[IntArray, NDArray[np.bool_], FloatArray]:
    """Pool folds: rows whose outcome is known, whether it is yes, and how far the scores are on the side of yes."""
    rows = np.concatenate([own for own, _ in said])
    # log odds of the positive class against all others
    margins = np.concatenate([scores[:, -1] - logsumexp(scores[:, :-1], axis=1) for _, scores in said])
    known = bench.labels.known[rows]
    return rows[known], bench.positive[rows[known]], margins[known].astype(np.float64)


def _auc(bench: Bench, said: Said) -> float:
    """The pooled AUC of the bench's target; NaN where one class only."""
    _, positive, margins = _margins(bench, said)
    return roc.auc(positive, margins) if 0 < positive.sum() < len(positive) else math.nan


def _optimism(bench: Bench, arm: FittedArm) -> Optimism:
    said = _out_of_fold(bench, arm)
    outside, patients = _auc(bench, said), len(np.unique(bench.cohort.patient[_margins(bench, said)[0]]))
    if any(isinstance(section, ImageInput) for section in arm.sections.values()):
        reason = "not looked at: pictures of the training patients would have to be gone through once more"
        return Optimism(math.nan, outside, math.nan, reason, patients)
    found = []
    for k, split in enumerate(bench.splits):
        if split.repeat == 0:
            rows = bench.known(bench.rows(split.train))
            rows = rows[arm.answers[rows]]
            found.append(_auc(bench, [(rows, arm.score(k, rows))]))
    seen = [auc for auc in found if not math.isnan(auc)]
    if not seen:
        return Optimism(math.nan, outside, math.nan, "not known: one class only in every training part", patients)
    inside = float(np.mean(seen))
    method = (
        f"apparent: mean AUC of {len(seen)} fold networks on the patients each was trained on; out of fold: that of "
        "the same networks on the others, all folds pooled; first division of the patients, before calibration"
    )
    return Optimism(inside, outside, inside - outside, method, patients)


def _order(bench: Bench, train: IntArray, split: Split) -> list[str]:
    """Order the training patients of a fold so that any first part of them is stratified by all targets together."""
    random = np.random.default_rng(seed_for(bench.config.seed, "learning curve", split.repeat, split.fold))
    strata: dict[tuple[str, ...], list[str]] = {}
    met = set()
    for row in train.tolist():
        patient = str(bench.cohort.patient[row])
        if patient not in met:
            met.add(patient)
            key = tuple(str(outcome.labels.values[row]) for outcome in bench.outcomes.values())
            strata.setdefault(key, []).append(patient)
    placed: list[tuple[float, str]] = []
    for _, patients in sorted(strata.items()):
        places = (random.permutation(len(patients)) + random.random()) / len(patients)
        placed += zip(places.tolist(), patients, strict=True)
    return [patient for _, patient in sorted(placed)]


def _first_patients(bench: Bench, train: IntArray, order: Sequence[str], share: float) -> IntArray:
    """Return the training rows of the first patients."""
    chosen = order[: max(1, round(share * len(order)))]
    return train[np.isin(bench.cohort.patient[train], chosen)]


def _mean_patients(bench: Bench, trained: Iterable[IntArray]) -> float:
    return float(np.mean([len(np.unique(bench.cohort.patient[rows])) for rows in trained]))


def _estimate(bench: Bench, folds: Mapping[int, tuple[IntArray, FloatArray]]) -> Estimate:
    """The AUC of the bench's target, averaged over repeats, with its interval."""
    by_repeat: dict[int, list[tuple[IntArray, FloatArray]]] = {}
    for k, own in folds.items():
        by_repeat.setdefault(bench.splits[k].repeat, []).append(own)
    pooled = [_margins(bench, said) for said in by_repeat.values()]
    patients = np.unique(np.concatenate([bench.cohort.patient[rows] for rows, _, _ in pooled]))
    placements = [
        roc.placement(positive, margins, np.searchsorted(patients, bench.cohort.patient[rows]), len(patients))
        for rows, positive, margins in pooled
    ]
    return roc.interval(roc.average(placements), len(pooled[0][0]), len(placements))
