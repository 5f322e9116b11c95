"""Several readers, the same cases: what holds beyond these readers, and beyond these cases.

It must not know files, nor who or what reads: a machine is a row of scores like any other.

The method is Obuchowski & Rockette's (Commun Stat Simul Comput 1995) with the degrees of freedom of Hillis (Stat
Med 2007;26:596); one modality against a fixed comparator is Hillis' single-treatment form of it. Where patients have
several cases, covariances are taken over patients.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import chi2, f, norm, t

from tenfold.errors import StatisticsError
from tenfold.stats import roc
from tenfold.stats.reader_covariance import NO_VARIANCE, Scores, covariance_of, figures_of, scores_of
from tenfold.stats.readers import figure_of
from tenfold.stats.sample import BoolArray, unit
from tenfold.types import Estimate, FloatArray, IntArray, finite_or_none


@dataclass(frozen=True)
class MRMC:
    """Modalities compared over readers and cases.

    Attributes:
        figure: "auc", "sensitivity" or "specificity".
        figures: (modalities, readers) figure of each reader.
        means: One a modality, over the readers, each from its own modality's data.
        difference: First minus second modality.
        statistic_name: "F" or "chi-square", of the hypothesis that all modalities are alike.
        statistic: Its value; NaN where nothing varies.
        df1: Degrees of freedom of the numerator.
        df2: Of the denominator; infinite for a chi-square.
        p: Two-sided.
        components: Mean squares, variances and covariances: "ms_modality", "ms_reader", "ms_modality_reader",
            "reader", "modality_reader", "error", "cov1" (same reader), "cov2" (same modality), "cov3" (neither).
        method: In words.
    """

    figure: str
    figures: FloatArray
    means: tuple[Estimate, ...]
    difference: Estimate
    statistic_name: str
    statistic: float
    df1: float
    df2: float
    p: float
    components: dict[str, float]
    method: str

    def to_dict(self) -> dict[str, Any]:
        """Return a mapping fit for JSON, NaN and infinity written as null."""
        return {
            "figure": self.figure,
            "figures": self.figures.tolist(),
            "means": [mean.to_dict() for mean in self.means],
            "difference": self.difference.to_dict(),
            "statistic_name": self.statistic_name,
            "statistic": finite_or_none(self.statistic),
            "df1": finite_or_none(self.df1),
            "df2": finite_or_none(self.df2),
            "p": finite_or_none(self.p),
            "components": {name: finite_or_none(value) for name, value in self.components.items()},
            "method": self.method,
        }


@dataclass(frozen=True)
class MachineVsReaders:
    """A machine against the mean of several readers.

    Attributes:
        figure: "auc", "sensitivity" or "specificity".
        machine: The machine's figure.
        readers_mean: Mean of the readers' figures.
        difference: Machine minus readers.
        t: Statistic of the difference; NaN where nothing varies.
        df: Its degrees of freedom; infinite where readers are fixed.
        p: Two-sided.
        components: Of the readers' differences from the machine: "ms_reader", "error", "cov2".
        per_reader: Machine minus each reader, tested on the cases alone.
        method: In words.
    """

    figure: str
    machine: Estimate
    readers_mean: Estimate
    difference: Estimate
    t: float
    df: float
    p: float
    components: dict[str, float]
    per_reader: tuple[roc.AucTest, ...]
    method: str

    def to_dict(self) -> dict[str, Any]:
        """Return a mapping fit for JSON, NaN and infinity written as null."""
        return {
            "figure": self.figure,
            "machine": self.machine.to_dict(),
            "readers_mean": self.readers_mean.to_dict(),
            "difference": self.difference.to_dict(),
            "t": finite_or_none(self.t),
            "df": finite_or_none(self.df),
            "p": finite_or_none(self.p),
            "components": {name: finite_or_none(value) for name, value in self.components.items()},
            "per_reader": [
                {
                    "difference": test.difference.to_dict(),
                    "z": finite_or_none(test.statistic),
                    "p": finite_or_none(test.p),
                }
                for test in self.per_reader
            ],
            "method": self.method,
        }


def _check_inference(readers: str, cases: str, count: int) -> None:
    """Refuse what cannot be generalised to."""
    for what, value in (("readers", readers), ("cases", cases)):
        if value not in ("random", "fixed"):
            raise StatisticsError(f"{what} '{value}'", expected="random or fixed")
    if readers == cases == "fixed":
        raise StatisticsError("readers and cases both fixed leave nothing to generalise to", do="let one be random")
    if readers == "random" and count < 2:
        raise StatisticsError(
            "one reader says nothing about readers at large",
            do='use readers="fixed", or compare with this reader alone (single_reader)',
        )


def _mean_error(values: FloatArray, covariance: FloatArray, readers: str, cases: str) -> tuple[float, float]:
    """Variance of a mean over readers, (r,), and its degrees of freedom."""
    r = len(values)
    square = float(values.var(ddof=1)) if r > 1 else math.nan
    if cases == "fixed":
        return square / r, float(r - 1)
    error, cov2 = _error_and_cov2(covariance)
    if readers == "fixed":
        return (error + (r - 1) * max(cov2, 0.0)) / r, math.inf
    total = square + r * max(cov2, 0.0)
    return total / r, _freedom(total, square, r - 1)


def _error_and_cov2(covariance: FloatArray) -> tuple[float, float]:
    """Mean variance, and mean covariance between readers, of one modality; the latter 0 with one reader."""
    r = len(covariance)
    error = float(np.trace(covariance)) / r
    return error, (float(covariance.sum()) - r * error) / (r * (r - 1)) if r > 1 else 0.0


def _freedom(total: float, square: float, df: float) -> float:
    """Degrees of freedom of a sum of which one mean square is estimated with df (Hillis 2007)."""
    return df * (total / square) ** 2 if square > NO_VARIANCE else math.inf


def obuchowski_rockette(
    ratings: FloatArray,
    truth: BoolArray,
    *,
    figure: str = "auc",
    threshold: float | None = None,
    covariance: str = "jackknife",
    readers: str = "random",
    cases: str = "random",
    patient: IntArray | None = None,
) -> MRMC:
    """Compare modalities that the same readers read on the same cases.

    Args:
        ratings: (modalities, readers, cases), higher meaning more likely present.
        truth: (cases,) True where the outcome is present.
        figure: "auc", "sensitivity" or "specificity".
        threshold: Rating from which on a case is called positive; not used by the AUC.
        covariance: "jackknife", "delong" or "unbiased".
        readers: "random" to speak of readers like these, "fixed" to speak of these.
        cases: "random" to speak of cases like these, "fixed" to speak of these.
        patient: (cases,) index of the patient; every case its own patient where left out.

    Raises:
        StatisticsError: Fewer than two modalities, a rating is missing, a class has fewer than two patients, one
            reader is to stand for others, or a choice is unknown.
    """
    ratings = np.asarray(ratings, np.float64)
    if ratings.ndim != 3:
        raise StatisticsError(f"ratings of {ratings.ndim} axes", expected="modalities, readers, cases")
    m, r = ratings.shape[:2]
    if m < 2:
        raise StatisticsError(
            "one modality only", expected="two or more", do="compare readers with a machine (machine_against_readers)"
        )
    _check_inference(readers, cases, r)
    scores = scores_of(ratings.reshape(m * r, -1), truth, figure, threshold, patient)
    found = figures_of(scores).reshape(m, r)
    spread = covariance_of(scores, covariance)
    components = _components(found, spread)
    name, variance, df1, df2 = _difference_error(components, m, r, readers, cases)
    method = f"Obuchowski-Rockette, {_inference(readers, cases)}, {covariance} covariance"
    statistic, p = math.nan, math.nan
    if variance > NO_VARIANCE:
        statistic = components["ms_modality"] / variance * (df1 if name == "chi-square" else 1)
        p = float(f.sf(statistic, df1, df2)) if math.isfinite(df2) else _chi_square_p(name, statistic, df1)
    blocks = [slice(i * r, (i + 1) * r) for i in range(m)]
    means = tuple(
        _estimate(float(row.mean()), *_mean_error(row, spread[b, b], readers, cases), method, r, scores, bounds=(0, 1))
        for row, b in zip(found, blocks, strict=True)
    )
    gap = float(found[0].mean() - found[1].mean())
    return MRMC(
        figure=figure,
        figures=found,
        means=means,
        difference=_estimate(gap, 2 / r * variance, df2, method, r, scores, bounds=(-1, 1)),
        statistic_name=name,
        statistic=statistic,
        df1=df1,
        df2=df2,
        p=p,
        components=components,
        method=f"{method}; {r} readers; {unit(*scores.counts)}",
    )


def _chi_square_p(name: str, statistic: float, df1: float) -> float:
    """Return p of a chi-square, or of an F whose denominator is known exactly."""
    return float(chi2.sf(statistic if name == "chi-square" else statistic * df1, df1))


def _components(found: FloatArray, spread: FloatArray) -> dict[str, float]:
    """Mean squares and variance components of Obuchowski & Rockette."""
    m, r = found.shape
    by_modality, by_reader, grand = found.mean(axis=1), found.mean(axis=0), found.mean()
    rest = found - by_modality[:, None] - by_reader + grand
    ms_reader = m * float(((by_reader - grand) ** 2).sum()) / (r - 1) if r > 1 else math.nan
    ms_rest = float((rest**2).sum()) / ((m - 1) * (r - 1)) if r > 1 else math.nan
    modality, reader = np.divmod(np.arange(m * r), r)
    same_modality, same_reader = modality[:, None] == modality, reader[:, None] == reader
    cov1 = float(spread[~same_modality & same_reader].mean())
    error = float(spread[same_modality & same_reader].mean())
    cov2 = float(spread[same_modality & ~same_reader].mean()) if r > 1 else 0.0
    cov3 = float(spread[~same_modality & ~same_reader].mean()) if r > 1 else 0.0
    return {
        "ms_modality": r * float(((by_modality - grand) ** 2).sum()) / (m - 1),
        "ms_reader": ms_reader,
        "ms_modality_reader": ms_rest,
        "reader": (ms_reader - ms_rest) / m - cov1 + cov3,
        "modality_reader": ms_rest - error + cov1 + cov2 - cov3,
        "error": error,
        "cov1": cov1,
        "cov2": cov2,
        "cov3": cov3,
    }


def _difference_error(
    components: dict[str, float], m: int, r: int, readers: str, cases: str
) -> tuple[str, float, float, float]:
    """Name of the statistic, its denominator, and its degrees of freedom."""
    square, df = components["ms_modality_reader"], float((m - 1) * (r - 1))
    shared = max(components["cov2"] - components["cov3"], 0.0)
    if cases == "fixed":
        return "F", square, float(m - 1), df
    if readers == "fixed":
        return "chi-square", components["error"] - components["cov1"] + (r - 1) * shared, float(m - 1), math.inf
    total = square + r * shared
    return "F", total, float(m - 1), _freedom(total, square, df)


def _inference(readers: str, cases: str) -> str:
    """Say what is generalised to."""
    return "random readers and cases" if readers == cases else f"{readers} readers, {cases} cases"


def _estimate(
    value: float,
    variance: float,
    df: float,
    method: str,
    readers: int,
    scores: Scores,
    *,
    bounds: tuple[float, float],
) -> Estimate:
    """Return a value with the interval of Student's t, the normal one where df is infinite."""
    note = f"{readers} reader{'s' if readers > 1 else ''}; {unit(*scores.counts)}"
    if not variance > NO_VARIANCE:
        name = f"no interval: nothing varies ({method})"
        return Estimate(value, math.nan, math.nan, f"{name}; {note}", scores.counts[0])
    half = _quantile(df) * math.sqrt(variance)
    low, high = max(bounds[0], value - half), min(bounds[1], value + half)
    freedom = f"t with {df:.1f} degrees of freedom (Hillis 2007)" if math.isfinite(df) else "normal"
    return Estimate(value, low, high, f"{method}, {freedom}, 95 %; {note}", scores.counts[0])


def _quantile(df: float) -> float:
    """The 97.5 % point of Student's t."""
    return float(t.ppf(0.975, df)) if math.isfinite(df) else roc.Z


def _two_sided(statistic: float, df: float) -> float:
    """Two-sided p of Student's t."""
    return float(2 * (t.sf(abs(statistic), df) if math.isfinite(df) else norm.sf(abs(statistic))))


def machine_against_readers(
    machine: FloatArray,
    ratings: FloatArray,
    truth: BoolArray,
    *,
    figure: str = "auc",
    threshold: float | None = None,
    covariance: str = "jackknife",
    readers: str = "random",
    patient: IntArray | None = None,
) -> MachineVsReaders:
    """Compare a machine with the mean of several readers on the same cases.

    The readers' differences from the machine are analysed as one modality, readers and cases random (Hillis,
    Stat Med 2007): the machine is the same for every reader, and its uncertainty is in the covariances.

    Args:
        machine: (cases,) higher meaning more likely present; the scale may be another than the readers'.
        ratings: (readers, cases).
        truth: (cases,) True where the outcome is present.
        figure: "auc", "sensitivity" or "specificity".
        threshold: Value from which on the machine, and a reader, call a case positive; not used by the AUC. Where the
            two thresholds differ, hand over answers of 0 and 1 and a threshold of 1.
        covariance: "jackknife", "delong" or "unbiased".
        readers: "random" to speak of readers like these, "fixed" to speak of these.
        patient: (cases,) index of the patient; every case its own patient where left out.

    Raises:
        StatisticsError: As `obuchowski_rockette`.
    """
    ratings = np.asarray(ratings, np.float64)
    r = len(ratings)
    _check_inference(readers, "random", r)
    scores = scores_of(np.vstack([machine, ratings]), truth, figure, threshold, patient)
    found, spread = figures_of(scores), covariance_of(scores, covariance)
    ahead = np.column_stack([np.ones(r), -np.eye(r)])
    differences, of_differences = ahead @ found, ahead @ spread @ ahead.T
    variance, df = _mean_error(differences, of_differences, readers, "random")
    method = f"single-treatment Obuchowski-Rockette, {_inference(readers, 'random')}, {covariance} covariance"
    gap = float(differences.mean())
    statistic = gap / math.sqrt(variance) if variance > NO_VARIANCE else math.nan
    error, cov2 = _error_and_cov2(of_differences)
    mean_error = _mean_error(found[1:], spread[1:, 1:], readers, "random")
    return MachineVsReaders(
        figure=figure,
        machine=figure_of(scores.values[0], scores.truth, figure=figure, threshold=threshold, patient=patient),
        readers_mean=_estimate(float(found[1:].mean()), *mean_error, method, r, scores, bounds=(0, 1)),
        difference=_estimate(gap, variance, df, method, r, scores, bounds=(-1, 1)),
        t=statistic,
        df=df,
        p=_two_sided(statistic, df),
        components={
            "ms_reader": float(differences.var(ddof=1)) if r > 1 else math.nan,
            "error": error,
            "cov2": cov2,
        },
        per_reader=tuple(
            single_reader(scores.values[0], row, truth, figure=figure, threshold=threshold, patient=patient)
            for row in ratings
        ),
        method=f"{method}; {r} reader{'s' if r > 1 else ''}; {unit(*scores.counts)}",
    )


def single_reader(
    first: FloatArray,
    second: FloatArray,
    truth: BoolArray,
    *,
    figure: str = "auc",
    threshold: float | None = None,
    covariance: str = "delong",
    patient: IntArray | None = None,
) -> roc.AucTest:
    """Compare two rows of scores on the same cases: a reader's two modalities, or a machine and one reader.

    Args:
        first: (cases,) higher meaning more likely present.
        second: (cases,) likewise.
        truth: (cases,) True where the outcome is present.
        figure: "auc", "sensitivity" or "specificity".
        threshold: Value from which on a case is called positive; not used by the AUC.
        covariance: "jackknife", "delong" or "unbiased".
        patient: (cases,) index of the patient; every case its own patient where left out.

    Returns:
        First minus second, with z and its p: it speaks of this reader only.

    Raises:
        StatisticsError: As `obuchowski_rockette`.
    """
    scores = scores_of(np.vstack([first, second]), truth, figure, threshold, patient)
    found, spread = figures_of(scores), covariance_of(scores, covariance)
    variance = float(spread[0, 0] + spread[1, 1] - 2 * spread[0, 1])
    gap = float(found[0] - found[1])
    statistic = gap / math.sqrt(variance) if variance > NO_VARIANCE else math.nan
    name = f"paired {'DeLong' if covariance == 'delong' and figure == 'auc' else f'{covariance} covariance'}"
    estimate = _estimate(gap, variance, math.inf, name, 1, scores, bounds=(-1, 1))
    return roc.AucTest(estimate, statistic, _two_sided(statistic, math.inf))
