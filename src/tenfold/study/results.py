"""From a table of predictions to the files a report is drawn from.

It must not know how the predictions came about.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tenfold.stats.compare import compare_arms
from tenfold.stats.curves import curves
from tenfold.stats.evaluate import evaluate, per_fold
from tenfold.study.files import write_json
from tenfold.types import OperatingPoint, PredictionTable, write_atomically

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
