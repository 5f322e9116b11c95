"""The empirical area under the ROC curve, its variance, and the curve itself.

It must not know prediction tables: it takes outcomes, scores and patients as arrays.

Variances follow DeLong, DeLong & Clarke-Pearson (Biometrics 1988); where a patient has several cases,
Obuchowski (Biometrics 1997), of which DeLong's is the special case of one case a patient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, t

from tenfold.errors import StatisticsError
from tenfold.stats.sample import BoolArray, by_patient, repeats_note, unit
from tenfold.types import Estimate, FloatArray, IntArray

Z = float(norm.ppf(0.975))
_NO_VARIANCE = 1e-14


@dataclass(frozen=True)
class Placement:
    """An AUC and what each patient adds to its uncertainty.

    Attributes:
        auc: The empirical AUC, ties counting one half.
        positives: (patients,) summed deviations of the patient's positive cases, over the number of them all.
        negatives: (patients,) likewise of the negative cases.
        has_positive: (patients,) whether the patient has a positive case.
        has_negative: (patients,) whether the patient has a negative case.
    """

    auc: float
    positives: FloatArray
    negatives: FloatArray
    has_positive: BoolArray
    has_negative: BoolArray


@dataclass(frozen=True)
class AucTest:
    """The difference of two AUCs and its test.

    Attributes:
        difference: First minus second.
        statistic: z, or t of the unpaired test; NaN where the difference has no variance.
        p: Two-sided.
    """

    difference: Estimate
    statistic: float
    p: float


def auc(positive: BoolArray, score: FloatArray) -> float:
    """Return the empirical AUC: the chance that a positive case scores above a negative one, ties one half.

    Args:
        positive: (n,) True where the outcome is present.
        score: (n,) higher means more likely present.

    Raises:
        StatisticsError: One class only.
    """
    return placement(positive, score).auc


def placement(positive: BoolArray, score: FloatArray, patient: IntArray | None = None, patients: int = 0) -> Placement:
    """Return the AUC with each patient's share of its variance.

    Args:
        positive: (n,) True where the outcome is present.
        score: (n,) higher means more likely present.
        patient: (n,) index of the patient, from 0; every case its own patient where left out.
        patients: How many patients there are, at least the highest index + 1.

    Raises:
        StatisticsError: One class only.
    """
    positive, score = np.asarray(positive, bool), np.asarray(score, np.float64)
    require_both(positive, "the AUC")
    patient = np.arange(len(score)) if patient is None else patient
    size = max(patients, int(patient.max()) + 1)
    high, low = score[positive], score[~positive]
    won, lost = _share_below(high, low), 1 - _share_below(low, high)
    area = float(won.mean())
    at_high, at_low = patient[positive], patient[~positive]
    return Placement(
        auc=area,
        positives=by_patient(at_high, (won - area) / len(high), size),
        negatives=by_patient(at_low, (lost - area) / len(low), size),
        has_positive=np.bincount(at_high, minlength=size) > 0,
        has_negative=np.bincount(at_low, minlength=size) > 0,
    )


def require_both(positive: BoolArray, what: str) -> None:
    """Refuse outcomes of one class.

    Raises:
        StatisticsError: Every case is positive, or none is.
    """
    found = int(np.sum(positive))
    if found in (0, len(positive)):
        raise StatisticsError(
            f"{what} is not defined: one class only ({found} of {len(positive)} cases are positive)",
            expected="at least one case with and one without the outcome",
        )


def _share_below(score: FloatArray, others: FloatArray) -> FloatArray:
    """Share of the others that lie below each score, ties one half."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, score, "left") + np.searchsorted(ordered, score, "right")
    return np.asarray(below / (2 * len(others)))


def average(placements: Sequence[Placement]) -> Placement:
    """Average placements of the same patients over repeats; the variance of the mean AUC is then exact."""
    return Placement(
        auc=float(np.mean([p.auc for p in placements])),
        positives=np.mean([p.positives for p in placements], axis=0),
        negatives=np.mean([p.negatives for p in placements], axis=0),
        has_positive=np.any([p.has_positive for p in placements], axis=0),
        has_negative=np.any([p.has_negative for p in placements], axis=0),
    )


def covariance(placements: Sequence[Placement]) -> FloatArray:
    """Return the (k, k) covariance of k AUCs of the same patients, clustered by patient (Obuchowski 1997).

    All NaN where fewer than two patients have a positive, or a negative, case.
    """
    with_positive = np.any([p.has_positive for p in placements], axis=0)
    with_negative = np.any([p.has_negative for p in placements], axis=0)
    n1, n0, n = (int(x.sum()) for x in (with_positive, with_negative, with_positive | with_negative))
    if min(n1, n0) < 2:
        return np.full((len(placements), len(placements)), np.nan)
    a = np.stack([p.positives for p in placements])
    b = np.stack([p.negatives for p in placements])
    both = a @ b.T
    spread = n1 / (n1 - 1) * (a @ a.T) + n0 / (n0 - 1) * (b @ b.T) + n / (n - 1) * (both + both.T)
    return np.asarray(spread)


def interval(found: Placement, cases: int, repeats: int = 1) -> Estimate:
    """Return the AUC with its 95 % interval.

    Perfect separation has a DeLong variance of 0; there the bound is exact instead: that k disjoint pairs of
    patients are all in the right order has probability AUC^k (Clopper-Pearson with k of k).

    Args:
        found: What `placement` or `average` returned.
        cases: Cases it rests on.
        repeats: Over how many repeats it was averaged, for the wording.
    """
    patients = int((found.has_positive | found.has_negative).sum())
    counts, mean = unit(patients, cases), repeats_note(repeats)
    variance = float(covariance([found])[0, 0])
    if found.auc in (0.0, 1.0):
        low, high = _separated(found)
        name = "exact bound for perfect separation (Clopper-Pearson on disjoint pairs of patients), 95 %"
    elif math.isnan(variance):
        low, high = math.nan, math.nan
        name = "no interval: fewer than 2 patients with, or without, the outcome"
    elif variance < _NO_VARIANCE:
        low, high = math.nan, math.nan
        name = "no interval: the scores order the patients all alike"
    else:
        half = Z * math.sqrt(variance)
        low, high = max(0.0, found.auc - half), min(1.0, found.auc + half)
        name = f"{delong_name(patients == cases)}, 95 %"
    return Estimate(found.auc, low, high, f"{name}{mean}; {counts}", patients)


def delong_name(single: bool) -> str:
    """Name the variance: DeLong's, or its clustered form."""
    return "DeLong" if single else "DeLong clustered by patient (Obuchowski 1997)"


def _separated(found: Placement) -> tuple[float, float]:
    """Exact interval of an AUC of 1 or 0."""
    n1, n0 = int(found.has_positive.sum()), int(found.has_negative.sum())
    pairs = max(1, min(n1, n0, int((found.has_positive | found.has_negative).sum()) // 2))
    bound = 0.025 ** (1 / pairs)
    return (bound, 1.0) if found.auc == 1.0 else (0.0, 1 - bound)


def auc_interval(positive: BoolArray, score: FloatArray, patient: IntArray | None = None) -> Estimate:
    """Return the AUC with its DeLong interval, clustered where a patient has several cases.

    Args:
        positive: (n,) True where the outcome is present.
        score: (n,) higher means more likely present.
        patient: (n,) index of the patient, from 0; every case its own patient where left out.

    Raises:
        StatisticsError: One class only.
    """
    return interval(placement(positive, score, patient), len(score))


def paired_test(first: Placement, second: Placement, cases: int, repeats: int = 1) -> AucTest:
    """Compare two AUCs of the same cases (DeLong et al. 1988; Obuchowski 1997 where patients have several).

    Args:
        first: Placement of the first score.
        second: Placement of the second score, patients numbered alike.
        cases: Cases both rest on.
        repeats: Over how many repeats they were averaged, for the wording.
    """
    spread = covariance([first, second])
    variance = float(spread[0, 0] + spread[1, 1] - 2 * spread[0, 1])
    patients = int((first.has_positive | first.has_negative).sum())
    counts, mean = unit(patients, cases), repeats_note(repeats)
    difference = first.auc - second.auc
    if math.isnan(variance) or variance < _NO_VARIANCE:
        method = f"no interval: the difference has no variance{mean}; {counts}"
        return AucTest(Estimate(difference, math.nan, math.nan, method, patients), math.nan, math.nan)
    z = difference / math.sqrt(variance)
    half = Z * math.sqrt(variance)
    method = f"paired {delong_name(patients == cases)}, 95 %{mean}; {counts}"
    estimate = Estimate(difference, difference - half, difference + half, method, patients)
    return AucTest(estimate, z, float(2 * norm.sf(abs(z))))


def unpaired_test(first: Placement, second: Placement) -> AucTest:
    """Compare two AUCs of different patients, with the degrees of freedom of Welch and Satterthwaite.

    Args:
        first: Placement in the first group, one case a patient.
        second: Placement in the second group.
    """
    variances = [float(covariance([p])[0, 0]) for p in (first, second)]
    sizes = [int((p.has_positive | p.has_negative).sum()) for p in (first, second)]
    difference, total = first.auc - second.auc, sum(variances)
    if math.isnan(total) or total < _NO_VARIANCE:
        method = "no interval: the difference has no variance; n = patients"
        return AucTest(Estimate(difference, math.nan, math.nan, method, sum(sizes)), math.nan, math.nan)
    freedom = total**2 / sum(v**2 / (n - 1) for v, n in zip(variances, sizes, strict=True))
    statistic = difference / math.sqrt(total)
    half = float(t.ppf(0.975, freedom)) * math.sqrt(total)
    method = f"unpaired DeLong, t with {freedom:.1f} degrees of freedom, 95 %; n = patients of both groups"
    estimate = Estimate(difference, difference - half, difference + half, method, sum(sizes))
    return AucTest(estimate, statistic, float(2 * t.sf(abs(statistic), freedom)))


def roc_curve(positive: BoolArray, score: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the corners of the ROC curve, from (0, 0) to (1, 1).

    Args:
        positive: (n,) True where the outcome is present.
        score: (n,) higher means more likely present.

    Returns:
        False positive rate, true positive rate, and the score from which on a case is called positive
        (infinity at the first corner), (k,) each.

    Raises:
        StatisticsError: One class only.
    """
    require_both(positive, "the ROC curve")
    order = np.argsort(-score, kind="stable")
    ordered, hit = score[order], positive[order]
    ends = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    tp, fp = np.cumsum(hit)[ends], np.cumsum(~hit)[ends]
    tpr, fpr = np.append(0.0, tp / tp[-1]), np.append(0.0, fp / fp[-1])
    cut = np.append(np.inf, ordered[ends])
    corner = np.ones(len(fpr), bool)
    steps = np.stack([np.diff(np.append(0, fp)), np.diff(np.append(0, tp))])
    corner[1:-1] = steps[0, :-1] * steps[1, 1:] != steps[1, :-1] * steps[0, 1:]
    return fpr[corner], tpr[corner], cut[corner]


def partial_auc(
    positive: BoolArray, score: FloatArray, *, above: float, of: str = "specificity"
) -> tuple[float, float]:
    """Return the area where specificity (or sensitivity) is at least a value, and McClish's correction of it.

    Args:
        positive: (n,) True where the outcome is present.
        score: (n,) higher means more likely present.
        above: Lower end of the range, its upper end being 1.
        of: "specificity" or "sensitivity".

    Returns:
        The area, and the area rescaled so that chance is 0.5 and perfection 1 (McClish 1989).

    Raises:
        StatisticsError: One class only, or `of` is neither.
    """
    if of not in ("specificity", "sensitivity"):
        raise StatisticsError(f"no partial AUC of '{of}'", expected="specificity or sensitivity")
    fpr, tpr, _ = roc_curve(positive, score)
    x, y = (fpr, tpr) if of == "specificity" else (1 - tpr[::-1], 1 - fpr[::-1])
    width = 1 - above
    area = _area_up_to(x, y, width)
    chance = width**2 / 2
    return area, 0.5 * (1 + (area - chance) / (width - chance))


def _area_up_to(x: FloatArray, y: FloatArray, end: float) -> float:
    """Trapezoids under a polyline from 0 to an end that may lie between two corners."""
    inside = x <= end
    after = np.flatnonzero(~inside)
    xs, ys = x[inside], y[inside]
    if len(after):
        k = int(after[0])
        share = (end - x[k - 1]) / (x[k] - x[k - 1])
        xs, ys = np.append(xs, end), np.append(ys, y[k - 1] + share * (y[k] - y[k - 1]))
    return float(np.trapezoid(ys, xs))
