"""From a table of predictions to the files a report is drawn from.

It must not know how the predictions came about.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tenfold.cohort.manifest import Cohort, Labels
from tenfold.config import SubgroupSection
from tenfold.errors import StudyError
from tenfold.modalities.table import Column
from tenfold.stats import conformal
from tenfold.stats.compare import compare_arms
from tenfold.stats.curves import curves
from tenfold.stats.evaluate import evaluate, per_fold
from tenfold.stats.sample_size import auc_width, r2_from_auc, riley_binary, validation_size
from tenfold.stats.subgroups import bands, subgroup_metrics
from tenfold.study.files import write_json
from tenfold.types import OperatingPoint, PredictionSets, PredictionTable, write_atomically

Place = tuple[str, int, int]
"""Arm, repeat, fold; the two numbers are -1 for all fold models together."""


def write_statistics(
    folder: Path,
    table: PredictionTable,
    *,
    target: str,
    positive: str,
    points: Mapping[Place, OperatingPoint],
    reference: str,
    bootstraps: int,
    seed: int,
    net_benefit_at: float | None,
    suffix: str = "",
) -> dict[str, dict[str, dict[str, Any]]]:
    """Evaluate the predictions of one split and write evaluation, comparisons, folds and curves.

    Args:
        folder: The run.
        table: Predictions of one split.
        target: Name of the target.
        positive: The class to be detected.
        points: Operating point of every arm, repeat and fold.
        reference: The arm that the others are compared with.
        bootstraps: Resamples.
        seed: Of the resamples.
        net_benefit_at: Threshold probability of the net benefit in the tables.
        suffix: Appended to the files' names, for example "_holdout".

    Returns:
        What evaluation.json holds for this target, by arm and metric.
    """
    thresholds = {place: point.threshold for place, point in points.items()}
    common: dict[str, Any] = {"positive": positive, "thresholds": thresholds}
    estimates = evaluate(table, **common, bootstraps=bootstraps, seed=seed, net_benefit_at=net_benefit_at)
    evaluation = {arm: {m: e.to_dict() for m, e in metrics.items()} for arm, metrics in estimates.items()}
    write_json(folder / f"evaluation{suffix}.json", {target: evaluation})
    comparisons = compare_arms(
        table, **common, reference=reference, bootstraps=bootstraps, seed=seed, net_benefit_at=net_benefit_at
    )
    write_json(folder / f"comparisons{suffix}.json", {target: [c.to_dict() for c in comparisons]})
    write_json(folder / f"folds{suffix}.json", {target: per_fold(table, positive=positive)})
    write_json(
        folder / f"curves{suffix}.json",
        {target: curves(table, **common, bootstraps=min(bootstraps, 500), seed=seed)},
    )
    return evaluation


def write_subgroups(
    path: Path,
    table: PredictionTable,
    cohort: Cohort,
    columns: Sequence[SubgroupSection],
    *,
    positive: str,
    points: Mapping[Place, OperatingPoint],
    bootstraps: int,
    seed: int,
) -> None:
    """Evaluate one arm in the parts of the patients that the study names, and write what differs between them.

    Raises:
        StudyError: A column that is to be cut holds no numbers.
    """
    thresholds = {place: point.threshold for place, point in points.items()}
    found = {}
    for section in columns:
        groups, levels = subgroup_levels(cohort, section)
        found[section.column] = subgroup_metrics(
            table,
            groups,
            positive=positive,
            thresholds=thresholds,
            levels=levels,
            bootstraps=bootstraps,
            seed=seed,
        ).to_dict()
    if found:
        write_json(path, found)


def subgroup_levels(cohort: Cohort, section: SubgroupSection) -> tuple[dict[str, str], list[str] | None]:
    """Return case -> the part it belongs to, empty where the cohort does not say; and the parts of numbers in order.

    Raises:
        StudyError: The column is to be cut but holds no numbers.
    """
    cells = cohort.labels(section.column).tolist()
    if not section.cuts:
        return dict(zip(cohort.case.tolist(), cells, strict=True)), None
    numbers = []
    for i, cell in enumerate(cells):
        try:
            numbers.append(float(cell) if cell else math.nan)
        except ValueError as error:
            raise StudyError(
                f"'{cell}' is no number, but subgroups of '{section.column}' are cut at numbers",
                do="leave out the cuts, or mend the cell",
                where=cohort.place(i, section.column),
            ) from error
    labels, names = bands(numbers, section.cuts)
    return dict(zip(cohort.case.tolist(), labels, strict=True)), list(names)


def write_conformal(path: Path, table: PredictionTable, alpha: float) -> PredictionSets:
    """Fit prediction sets on out-of-fold predictions of one arm, and write what they realise.

    A bundle's answer is the mean over fold models, which is not quite exchangeable with the out-of-fold scores that
    the sets are made from: nearer to the truth on average, so that the promise errs on the safe side.

    Returns:
        The sets for the bundle.
    """
    # one prediction a case: repeats would count every patient several times
    first = table.where(table.repeat == 0)
    labels = np.array([first.classes.index(label) for label in first.label.tolist()], np.int64)
    fitted = conformal.fit(first.probabilities, labels, classes=table.classes, alpha=alpha)
    write_json(path, {**fitted.to_dict(), **conformal.realised_out_of_fold(table, alpha=alpha).to_dict()})
    return PredictionSets(alpha, tuple(max(0.0, 1 - q - 1e-9) for q in fitted.quantiles))


def sample_size(labels: Labels, tables: Mapping[str, Sequence[Column]], expected_auc: float) -> dict[str, Any]:
    """Return how many patients this study would need, and how sure it can be with those it has.

    Args:
        labels: Outcomes; their share is the prevalence.
        tables: Table inputs; each column counts as a parameter, a category as its levels less one.
        expected_auc: What the study expects of itself.
    """
    positives = int((labels.values == labels.positive).sum())
    negatives = int(labels.known.sum()) - positives
    prevalence = positives / (positives + negatives)
    described = [column for columns in tables.values() for column in columns]
    parameters = sum(len(c.levels) - 1 if c.kind == "category" else 1 for c in described) or 1
    r2 = r2_from_auc(expected_auc, prevalence)
    return {
        "expected_auc": expected_auc,
        "patients": {"positives": positives, "negatives": negatives},
        "riley": riley_binary(r2, parameters, prevalence).to_dict(),
        "auc_width": auc_width(positives, negatives, expected_auc).to_dict(),
        "validation": validation_size(prevalence, expected_auc).to_dict(),
    }


def write_points(path: Path, points: Mapping[Place, OperatingPoint]) -> None:
    """Write operating_points.csv: one row an arm, repeat and fold."""
    rows = (
        {"arm": arm, "repeat": repeat, "fold": fold, **asdict(point)} for (arm, repeat, fold), point in points.items()
    )
    write_table(path, ("arm", "repeat", "fold", "threshold", "rule", "n", "chosen_on"), rows)


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as CSV."""
    text = io.StringIO()
    out = csv.DictWriter(text, columns, lineterminator="\n")
    out.writeheader()
    out.writerows(rows)
    write_atomically(path, text.getvalue())
