"""Human readers beside the machine: a file of ratings joins the predictions that a run already holds.

It must not know how the predictions came about, and never changes them.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from tenfold.errors import CohortError, OutputError
from tenfold.stats.reader_study import reader_study
from tenfold.stats.readers import read_readings
from tenfold.study.files import write_json
from tenfold.types import EXTERNAL, HOLDOUT, OUT_OF_FOLD, PredictionTable

READERS_FILE = "readers.json"


def write_reader_study(folder: Path, ratings: Path, *, called_from: float | None = None) -> Path:
    """Compare readers with the proposed arm on the cases that they rated, and write readers.json.

    Args:
        folder: A run or an external evaluation. The readers' cases may be its out-of-fold, hold-out or external
            cases; those of one of its external sets are found too, and the file is written there.
        ratings: CSV with reader, case, rating and, where they read in two ways, modality.
        called_from: The lowest rating that is a "yes".

    Returns:
        The file that was written.

    Raises:
        Refusal: The file cannot be read, a case is in none of these sets, or the run is not finished.
    """
    readings = read_readings(ratings)
    wanted = set(readings.case.tolist())
    places = [folder, *sorted(p.parent for p in (folder / "external").glob("*/run.json"))]
    nearest_place, most = None, -1
    for place in places:
        run = _finished(place)
        table = PredictionTable.read(place / "predictions" / f"{run['target']['name']}.csv")
        table = table.select(arm=run["proposed"])
        for split in (OUT_OF_FOLD, HOLDOUT, EXTERNAL):
            part = table.select(split=split)
            found = len(wanted & set(part.case.tolist()))
            if found > most:
                nearest_place, most = (place, part, run, split), found
    if nearest_place is None or most <= 0:
        raise CohortError(
            f"none of the readers' {len(wanted)} cases was predicted here",
            expected="cases of this run or of one of its external sets",
            where=str(ratings),
        )
    place, part, run, split = nearest_place
    positive = str(run["target"]["positive"])
    names, index = np.unique(part.case, return_inverse=True)
    # over repeats of the folds, a case has several predictions: their mean
    mean = np.bincount(index, weights=part.probability(positive)) / np.bincount(index)
    first = [int(np.flatnonzero(index == i)[0]) for i in range(len(names))]
    result = reader_study(
        readings,
        dict(zip(names.tolist(), mean.tolist(), strict=True)),
        {str(part.case[i]): part.label[i] == positive for i in first if part.label[i]},
        patients={str(part.case[i]): str(part.patient[i]) for i in first},
        called_from=called_from,
        threshold=_threshold(place, str(run["target"]["name"]), str(run["proposed"])),
    )
    path = place / READERS_FILE
    write_json(path, {"split": split, "arm": run["proposed"], "positive": positive, **result})
    return path


def _finished(place: Path) -> dict[str, Any]:
    """Read run.json of a folder that was gone through to its end."""
    path = place / "run.json"
    run: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    if run.get("status") != "done":
        raise OutputError(
            "the run here is not finished" if run else "no run.json here",
            expected="a folder that `tenfold run` or `tenfold evaluate` has written to its end",
            do="finish it with --resume" if run else "name that folder",
            where=str(place),
        )
    return run


def _threshold(place: Path, target: str, arm: str) -> float | None:
    """Read the frozen operating point of all fold models together."""
    with (place / "operating_points.csv").open(newline="", encoding="utf-8") as handle:
        for row in csv.DictReader(handle):
            if (row.get("target", target), row["arm"], row["repeat"], row["fold"]) == (target, arm, "-1", "-1"):
                return float(row["threshold"])
    return None
