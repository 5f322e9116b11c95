"""From a table of predictions to the files a report is drawn from.

It must not know how the predictions came about.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tenfold.cohort.manifest import Cohort, Labels
from tenfold.cohort.outcomes import Outcome
from tenfold.config import SubgroupSection
from tenfold.errors import StudyError
from tenfold.modalities.table import Column
from tenfold.stats import conformal
from tenfold.stats.classes import evaluate_classes
from tenfold.stats.compare import compare_arms
from tenfold.stats.correlation import score_correlation
from tenfold.stats.curves import curves
from tenfold.stats.evaluate import evaluate, per_fold
from tenfold.stats.sample_size import auc_width, r2_from_auc, riley_binary, validation_size
from tenfold.stats.subgroups import bands, subgroup_metrics
from tenfold.study.files import write_json
from tenfold.types import OperatingPoint, PredictionSets, PredictionTable, write_atomically

Place = tuple[str, int, int]
"""Arm, repeat, fold; the two numbers are -1 for all fold models together."""


@dataclass(frozen=True)
class Told:
    """What is known of one target when statistics begin.

    Attributes:
        positive: The class to be detected.
        points: Operating point of every arm, repeat and fold.
        reference: The arm that the others are compared with.
        scores: Case -> the score that was cut, for its correlation with what is predicted; none of classes.
        upwards: Whether a higher score goes with yes.
    """

    positive: str
    points: Mapping[Place, OperatingPoint]
    reference: str
    scores: Mapping[str, float] = field(default_factory=dict)
    upwards: bool = True

    @property
    def thresholds(self) -> dict[Place, float]:
        """The operating points' thresholds."""
        return {place: point.threshold for place, point in self.points.items()}


def write_statistics(
    folder: Path,
    tables: Mapping[str, PredictionTable],
    told: Mapping[str, Told],
    *,
    bootstraps: int,
    seed: int,
    net_benefit_at: float | None,
    suffix: str = "",
) -> dict[str, dict[str, dict[str, Any]]]:
    """Evaluate the predictions of one split and write evaluation, comparisons, folds and curves, and all classes.

    Args:
        folder: The run.
        tables: By target, predictions of one split.
        told: By target.
        bootstraps: Resamples.
        seed: Of the resamples.
        net_benefit_at: Threshold probability of the net benefit in the tables.
        suffix: Appended to the files' names, for example "_holdout".

    Returns:
        What the files hold, by name: of "evaluation" target, arm, metric; "classes" is there where a target has three
        or more.
    """
    files: dict[str, dict[str, Any]] = {"evaluation": {}, "comparisons": {}, "folds": {}, "curves": {}}
    for target, table in tables.items():
        about = told[target]
        common: dict[str, Any] = {"positive": about.positive, "thresholds": about.thresholds}
        drawn: dict[str, Any] = {"bootstraps": bootstraps, "seed": seed, "net_benefit_at": net_benefit_at}
        estimates = evaluate(table, **common, **drawn)
        found = {arm: {m: e.to_dict() for m, e in metrics.items()} for arm, metrics in estimates.items()}
        if about.scores:
            for arm, metrics in found.items():
                own = table.select(arm=arm)
                metrics["pearson_r"] = score_correlation(
                    own, about.scores, positive=about.positive, upwards=about.upwards, bootstraps=bootstraps, seed=seed
                ).to_dict()
        files["evaluation"][target] = found
        comparisons = compare_arms(table, **common, reference=about.reference, **drawn)
        files["comparisons"][target] = [c.to_dict() for c in comparisons]
        if len(table.classes) > 2:
            files.setdefault("classes", {})[target] = evaluate_classes(
                table, reference=about.reference, bootstraps=bootstraps, seed=seed
            )
        files["folds"][target] = per_fold(table, positive=about.positive)
        files["curves"][target] = curves(table, **common, bootstraps=min(bootstraps, 500), seed=seed)
    for name, content in files.items():
        write_json(folder / f"{name}{suffix}.json", content)
    return files


def subgroups_of(
    table: PredictionTable,
    cohort: Cohort,
    columns: Sequence[SubgroupSection],
    told: Told,
    *,
    bootstraps: int,
    seed: int,
) -> dict[str, Any]:
    """Evaluate one arm in the parts of the patients that the study names: what differs between them, by column.

    Raises:
        StudyError: A column that is to be cut holds no numbers.
    """
    found = {}
    for section in columns:
        groups, levels = subgroup_levels(cohort, section)
        found[section.column] = subgroup_metrics(
            table,
            groups,
            positive=told.positive,
            thresholds=told.thresholds,
            levels=levels,
            bootstraps=bootstraps,
            seed=seed,
        ).to_dict()
    return found


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


def conformal_of(table: PredictionTable, alpha: float) -> tuple[PredictionSets, dict[str, Any]]:
    """Fit prediction sets on out-of-fold predictions of one arm.

    A bundle's answer is the mean over fold models, which is not quite exchangeable with the out-of-fold scores that
    the sets are made from: nearer to the truth on average, so that the promise errs on the safe side.

    Returns:
        The sets for the bundle, and what they realise, fit for JSON.
    """
    # one prediction a case: repeats would count every patient several times
    first = table.where(table.repeat == 0)
    labels = np.array([first.classes.index(label) for label in first.label.tolist()], np.int64)
    fitted = conformal.fit(first.probabilities, labels, classes=table.classes, alpha=alpha)
    sets = PredictionSets(alpha, tuple(max(0.0, 1 - q - 1e-9) for q in fitted.quantiles))
    return sets, {**fitted.to_dict(), **conformal.realised_out_of_fold(table, alpha=alpha).to_dict()}


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


def described_outcome(outcome: Outcome) -> dict[str, Any]:
    """Return what run.json says of a target."""
    labels, target = outcome.labels, outcome.target
    return {
        "name": target.called,
        "column": target.column,
        "kind": target.kind,
        "levels": outcome.levels,
        "below": target.below,
        "above": target.above,
        "classes": labels.classes,
        "positive": labels.positive,
        "known": int(labels.known.sum()),
        "positives": int((labels.values == labels.positive).sum()),
    }


def write_points(path: Path, points: Mapping[str, Mapping[Place, OperatingPoint]]) -> None:
    """Write operating_points.csv: one row a target, arm, repeat and fold."""
    rows = (
        {"target": target, "arm": arm, "repeat": repeat, "fold": fold, **asdict(point)}
        for target, own in points.items()
        for (arm, repeat, fold), point in own.items()
    )
    write_table(path, ("target", "arm", "repeat", "fold", "threshold", "rule", "n", "chosen_on"), rows)


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as CSV."""
    text = io.StringIO()
    out = csv.DictWriter(text, columns, lineterminator="\n")
    out.writeheader()
    out.writerows(rows)
    write_atomically(path, text.getvalue())
