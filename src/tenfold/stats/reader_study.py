"""A reader study from end to end: a readers file and a machine's probabilities in, one mapping for JSON out.

It must not know where the probabilities come from, nor how the result is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from tenfold.errors import CohortError, StatisticsError
from tenfold.stats import agreement, roc
from tenfold.stats.compare import holm
from tenfold.stats.mrmc import machine_against_readers, obuchowski_rockette, single_reader
from tenfold.stats.readers import FIGURES, Readings, figure_of, mean_roc, reader_points, upside_down
from tenfold.stats.sample import BoolArray
from tenfold.types import Finding, FloatArray, IntArray, finite_or_none, unique

# With more distinct ratings than this they are a measurement: kappas, which count exact matches, say nothing.
_MOST_LEVELS = 10
_NAMED = 5
_FEW_READERS = 5

# How the modalities are compared: what is generalised to.
INFERENCES = {
    "random_readers_random_cases": ("random", "random"),
    "fixed_readers_random_cases": ("fixed", "random"),
    "random_readers_fixed_cases": ("random", "fixed"),
}


@dataclass(frozen=True)
class _Panel:
    """The complete cases of a study.

    Attributes:
        ratings: (modalities, readers, cases).
        machine: (cases,) probabilities.
        truth: (cases,).
        patient: (cases,) index of the patient; every case its own patient where left out.
        cases: Their names.
        readers: Names.
        modalities: Names; "" where there is one, unnamed.
        called_from: Lowest rating that is a "yes"; None where nobody said.
        threshold: The machine's operating point; None where nobody said.
        covariance: Of the figures, over cases.
    """

    ratings: FloatArray
    machine: FloatArray
    truth: BoolArray
    patient: IntArray
    cases: tuple[str, ...]
    readers: tuple[str, ...]
    modalities: tuple[str, ...]
    called_from: float | None
    threshold: float | None
    covariance: str


def reader_study(
    readings: Readings,
    predictions: Mapping[str, float],
    truth: Mapping[str, bool],
    *,
    patients: Mapping[str, str] | None = None,
    called_from: float | None = None,
    threshold: float | None = None,
    covariance: str = "jackknife",
) -> dict[str, Any]:
    """Compare readers with a machine, with each other and, where they read in two ways, the ways.

    Only cases that every reader rated in every modality count, so that all figures rest on the same cases;
    a skipped case is never filled in.

    Args:
        readings: What `read_readings` returned, of one or two modalities.
        predictions: Case -> the machine's probability that the outcome is present.
        truth: Case -> whether the outcome is present; a case that it lacks is of unknown outcome and left out.
        patients: Case -> patient; every case its own patient where left out.
        called_from: The lowest rating that is a "yes"; where left out the higher of two ratings, and otherwise
            readers have no sensitivity and specificity.
        threshold: The machine's operating point, fixed beforehand; where left out it has no sensitivity and
            specificity.
        covariance: "jackknife", "delong" or "unbiased".

    Returns:
        A mapping fit for JSON: "cases", "readers", "scale", "machine", "modalities" (one mapping each), "between"
        (None with one modality) and "findings".

    Raises:
        CohortError: A reader's case is not among the predictions, or there are more than two modalities.
        StatisticsError: No case was rated by every reader, one class has fewer than two patients, a probability is
            no number, or `called_from` lies outside the ratings.
    """
    _check(readings, predictions, patients, called_from)
    if called_from is None and readings.binary:
        called_from = float(readings.rating.max())
    rated = tuple(unique(readings.case.tolist()))
    cases, skipped = _complete_cases(readings, [case for case in rated if case in truth])
    patient = [case if patients is None else patients[case] for case in cases]
    panel = _Panel(
        ratings=_ratings(readings, cases),
        machine=np.array([predictions[case] for case in cases], np.float64),
        truth=np.array([truth[case] for case in cases], bool),
        patient=np.unique(patient, return_inverse=True)[1],
        cases=cases,
        readers=readings.readers,
        modalities=readings.modalities,
        called_from=called_from,
        threshold=threshold,
        covariance=covariance,
    )
    unknown = tuple(case for case in rated if case not in truth)
    findings = [
        *_case_findings(skipped, unknown, panel),
        *_scale_findings(readings.binary, panel),
        *_size_findings(panel),
    ]
    return {
        "cases": {
            "predicted": len(predictions),
            "rated": len(rated),
            "complete": len(panel.cases),
            "patients": len(set(panel.patient.tolist())),
            "positives": int(panel.truth.sum()),
            "unknown_outcome": len(unknown),
        },
        "readers": [
            {"reader": name, "skipped": len(skipped[name]), "skipped_cases": list(skipped[name])}
            for name in panel.readers
        ],
        "scale": {
            "low": float(readings.rating.min()),
            "high": float(readings.rating.max()),
            "levels": len(np.unique(readings.rating)),
            "binary": readings.binary,
            "called_from": called_from,
        },
        "machine": _machine(panel),
        "modalities": [_modality(panel, i) for i in range(len(panel.modalities))],
        "between": _between(panel),
        "findings": [{**asdict(found), "value": finite_or_none(found.value)} for found in findings],
    }


def _check(
    readings: Readings,
    predictions: Mapping[str, float],
    patients: Mapping[str, str] | None,
    called_from: float | None,
) -> None:
    """Refuse cases that the machine never saw, a third modality, and what is no probability or no rating."""
    rows = zip(readings.case.tolist(), readings.reader.tolist(), readings.row.tolist(), strict=True)
    foreign = [f"{case} (reader {reader}, row {row})" for case, reader, row in rows if case not in predictions]
    if foreign:
        raise CohortError(
            f"{len(foreign)} ratings of cases that are not in the cohort: {_listed(foreign)}",
            expected=f"cases among the {len(predictions)} that were predicted",
            do="correct their names, leave them out of the file, or name the set of patients that was read",
            where=readings.source,
        )
    for case in unique(readings.case.tolist()):
        if patients is not None and case not in patients:
            raise CohortError(f"case '{case}' has no patient", where=readings.source)
        if not 0 <= predictions[case] <= 1:
            raise StatisticsError(
                f"a probability that is no number from 0 to 1: {predictions[case]}", where=f"case {case}"
            )
    if len(readings.modalities) > 2:
        raise CohortError(
            f"{len(readings.modalities)} modalities: {', '.join(readings.modalities)}",
            expected="one or two, for example aided and unaided",
            do="keep two of them in the file",
            where=readings.source,
        )
    low, high = float(readings.rating.min()), float(readings.rating.max())
    if called_from is not None and not low < called_from <= high:
        raise StatisticsError(
            f"a rating of {called_from:g} is to be the lowest 'yes', but ratings run from {low:g} to {high:g}",
            expected=f"more than {low:g}, and {high:g} at most",
            where=readings.source,
        )


def _listed(names: Sequence[str]) -> str:
    """Name a few, and count the rest."""
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _complete_cases(readings: Readings, cases: Sequence[str]) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """Cases that every reader rated in every modality, and those that each reader did not."""
    triples = set(zip(readings.reader.tolist(), readings.case.tolist(), readings.modality.tolist(), strict=True))
    skipped = {
        reader: tuple(c for c in cases if any((reader, c, m) not in triples for m in readings.modalities))
        for reader in readings.readers
    }
    missing = {case for names in skipped.values() for case in names}
    complete = tuple(case for case in cases if case not in missing)
    if not complete:
        counts = ", ".join(f"{reader} {len(cases) - len(names)}" for reader, names in skipped.items())
        ways = f" in each modality ({', '.join(readings.modalities)})" if len(readings.modalities) > 1 else ""
        raise StatisticsError(
            f"no case of known outcome was rated by every reader{ways}; of {len(cases)} they rated: {counts}",
            do="leave out the readers who rated few, or have them read the rest",
            where=readings.source,
        )
    return complete, skipped


def _ratings(readings: Readings, cases: tuple[str, ...]) -> FloatArray:
    """Ratings of complete cases, (modalities, readers, cases)."""
    place = {case: i for i, case in enumerate(cases)}
    found = np.full((len(readings.modalities), len(readings.readers), len(cases)), np.nan)
    for modality, reader, case, rating in zip(
        readings.modality.tolist(), readings.reader.tolist(), readings.case.tolist(), readings.rating, strict=True
    ):
        if case in place:
            found[readings.modalities.index(modality), readings.readers.index(reader), place[case]] = rating
    return found


def _machine(panel: _Panel) -> dict[str, Any]:
    """The machine on the complete cases."""
    found: dict[str, Any] = {
        "auc": figure_of(panel.machine, panel.truth, patient=panel.patient).to_dict(),
        "curve": _curve(*roc.roc_curve(panel.truth, panel.machine)[:2]),
        "threshold": panel.threshold,
    }
    if panel.threshold is not None:
        (point,) = reader_points(panel.machine[None], panel.truth, threshold=panel.threshold, patient=panel.patient)
        found |= {"sensitivity": point.sensitivity.to_dict(), "specificity": point.specificity.to_dict()}
    return found


def _curve(fpr: FloatArray, tpr: FloatArray) -> dict[str, list[float]]:
    return {"fpr": fpr.tolist(), "tpr": tpr.tolist()}


def _modality(panel: _Panel, index: int) -> dict[str, Any]:
    """Readers in one modality: each alone, all together, against the machine, and among themselves."""
    ratings = panel.ratings[index]
    readers: list[dict[str, Any]] = [
        {
            "reader": name,
            "auc": figure_of(row, panel.truth, patient=panel.patient).to_dict(),
            "curve": _curve(*roc.roc_curve(panel.truth, row)[:2]),
        }
        for name, row in zip(panel.readers, ratings, strict=True)
    ]
    against = {"auc": _against_machine(panel, panel.machine, ratings, "auc")}
    if panel.called_from is not None:
        points = reader_points(ratings, panel.truth, threshold=panel.called_from, patient=panel.patient)
        for entry, point in zip(readers, points, strict=True):
            entry |= {"sensitivity": point.sensitivity.to_dict(), "specificity": point.specificity.to_dict()}
        if panel.threshold is not None:
            answers = panel.machine >= panel.threshold, ratings >= panel.called_from
            against |= {figure: _against_machine(panel, *answers, figure) for figure in ("sensitivity", "specificity")}
    return {
        "modality": panel.modalities[index],
        "readers": readers,
        "mean_roc": _curve(*mean_roc(ratings, panel.truth)),
        "against_machine": against,
        "agreement": _agreement(panel, ratings) if len(ratings) > 1 else None,
    }


def _against_machine(
    panel: _Panel, machine: FloatArray | BoolArray, ratings: FloatArray | BoolArray, figure: str
) -> dict[str, Any]:
    """One figure of the machine against the readers: of readers at large, of these, and one by one."""
    found: dict[str, Any] = {}
    for readers in ("random", "fixed") if len(ratings) > 1 else ("fixed",):
        test = machine_against_readers(
            np.asarray(machine, np.float64),
            np.asarray(ratings, np.float64),
            panel.truth,
            figure=figure,
            threshold=1.0,
            covariance=panel.covariance,
            readers=readers,
            patient=panel.patient,
        ).to_dict()
        per_reader = test.pop("per_reader")
        found[f"{readers}_readers"] = test
    adjusted = holm([np.nan if row["p"] is None else row["p"] for row in per_reader])
    found["per_reader"] = [
        {"reader": name, **row, "p_holm": finite_or_none(p)}
        for name, row, p in zip(panel.readers, per_reader, adjusted, strict=True)
    ]
    return found


def _agreement(panel: _Panel, ratings: FloatArray) -> dict[str, Any]:
    """How far readers agree: kappas of categories and of answers, correlations of ratings."""
    found: dict[str, Any] = {}
    levels = len(np.unique(ratings))
    if levels <= _MOST_LEVELS:
        weights = "none" if levels <= 2 else "quadratic"
        found["fleiss_kappa"] = agreement.fleiss_kappa(ratings).to_dict()
        found["pairs"] = [
            {
                "first": panel.readers[i],
                "second": panel.readers[j],
                "weights": weights,
                "kappa": agreement.cohen_kappa(ratings[i], ratings[j], weights=weights).to_dict(),
            }
            for i, j in combinations(range(len(ratings)), 2)
        ]
    if levels > 2:
        found["icc"] = {name: estimate.to_dict() for name, estimate in agreement.icc(ratings).items()}
        if panel.called_from is not None:
            called = (ratings >= panel.called_from).astype(np.float64)
            found["fleiss_kappa_of_answers"] = agreement.fleiss_kappa(called).to_dict()
    return found


def _between(panel: _Panel) -> dict[str, Any] | None:
    """The two modalities against each other."""
    if len(panel.modalities) < 2:
        return None
    several = len(panel.readers) > 1
    inferences = INFERENCES if several else {"fixed_readers_random_cases": ("fixed", "random")}
    figures = ("auc",) if panel.called_from is None else FIGURES
    found: dict[str, Any] = {"first": panel.modalities[0], "second": panel.modalities[1]}
    for figure in figures:
        found[figure] = {
            name: obuchowski_rockette(
                panel.ratings,
                panel.truth,
                figure=figure,
                threshold=panel.called_from,
                covariance=panel.covariance,
                readers=readers,
                cases=cases,
                patient=panel.patient,
            ).to_dict()
            for name, (readers, cases) in inferences.items()
        }
        tests = [
            single_reader(first, second, panel.truth, figure=figure, threshold=panel.called_from, patient=panel.patient)
            for first, second in zip(*panel.ratings, strict=True)
        ]
        found[figure]["per_reader"] = [
            {
                "reader": name,
                "difference": test.difference.to_dict(),
                "z": finite_or_none(test.statistic),
                "p": finite_or_none(test.p),
                "p_holm": finite_or_none(adjusted),
            }
            for name, test, adjusted in zip(panel.readers, tests, holm([test.p for test in tests]), strict=True)
        ]
    return found


def _case_findings(skipped: Mapping[str, tuple[str, ...]], unknown: tuple[str, ...], panel: _Panel) -> list[Finding]:
    """Cases that do not count."""
    found = [
        Finding(
            "warning",
            "reader_skipped_cases",
            f"Reader {reader} did not rate {len(cases)} cases: {_listed(cases)}. They are left out for every reader "
            f"and for the machine, and {len(panel.cases)} remain; if the hard ones were skipped, all figures flatter.",
            cases=cases,
        )
        for reader, cases in skipped.items()
        if cases
    ]
    if unknown:
        message = f"{len(unknown)} cases that were read have no known outcome and are left out: {_listed(unknown)}."
        found.append(Finding("note", "unknown_outcome", message, cases=unknown))
    return found


def _scale_findings(binary: bool, panel: _Panel) -> list[Finding]:
    """What the rating scale does to the figures."""
    found = []
    for modality, ratings in zip(panel.modalities, panel.ratings, strict=True):
        for i in upside_down(ratings, panel.truth, panel.patient):
            estimate = figure_of(ratings[i], panel.truth, patient=panel.patient)
            how = f" ({modality})" if modality else ""
            found.append(
                Finding(
                    "warning",
                    "scale_upside_down",
                    f"Reader {panel.readers[i]}{how} has an AUC of {estimate}, below one half: the scale seems to be "
                    "upside down. A higher rating must mean that the outcome is more likely; turn it if it does not.",
                    value=estimate.value,
                )
            )
    if binary:
        message = "Ratings take two values only: a reader's AUC is then (sensitivity + specificity) / 2, no more."
        found.append(Finding("note", "binary_ratings", message))
    elif panel.called_from is None:
        message = (
            "Nobody said from which rating on a reader calls a case positive: readers have ROC curves, but no "
            "sensitivity and specificity."
        )
        found.append(Finding("note", "no_rating_threshold", message))
    return found


def _size_findings(panel: _Panel) -> list[Finding]:
    """What so few readers, or so many cases a patient, do to the intervals."""
    found = []
    count = len(panel.readers)
    if count < _FEW_READERS:
        message = (
            "One reader: nothing can be said of readers at large."
            if count == 1
            else f"{count} readers: what is said of readers at large rests on very few of them; the analysis with "
            "fixed readers speaks of these only."
        )
        found.append(Finding("note", "few_readers", message, value=float(count)))
    patients = len(np.unique(panel.patient))
    if patients < len(panel.cases) and count > 1:
        message = (
            f"{patients} patients have {len(panel.cases)} cases: intervals of kappas and correlations take cases as "
            "independent and are too narrow; all others go by patient."
        )
        found.append(Finding("note", "agreement_by_case", message))
    return found
