"""External evaluation: a frozen bundle on patients it has never seen.

It must not know how the bundle came about; nothing is fitted here, and nothing chosen.
"""

from __future__ import annotations

import importlib.metadata
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from tenfold.bundle import Predictor, load
from tenfold.cohort.audit import audit
from tenfold.cohort.audit_tables import cells_of
from tenfold.cohort.eligibility import cohort_summary
from tenfold.cohort.manifest import Cohort, Labels
from tenfold.errors import AuditError, CohortError, ImageError, nearest
from tenfold.modalities.table import COLUMNS_FILE, Column, read_columns, read_table
from tenfold.report.page import write_report
from tenfold.study.files import check_out, recorded_versions, shown_command, truth_of, write_json, writing
from tenfold.study.progress import Progress
from tenfold.study.results import write_points, write_statistics
from tenfold.study.run import Run
from tenfold.training.device import choose_device, prepare_machine
from tenfold.types import EXTERNAL, FloatArray, PredictionTable

_BATCH = 16


def evaluate_bundle(
    bundle: Path | str,
    cohort: Cohort,
    *,
    out: Path | str,
    column: str | None = None,
    bootstraps: int = 1000,
    device: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
) -> Run:
    """Put other patients through a frozen bundle and report how it does on them.

    Args:
        bundle: The bundle's folder.
        cohort: The other patients. Unreadable films are left out and listed.
        out: Folder for the results; empty or absent.
        column: Column of the outcome; the name that the bundle knows it by if left out.
        bootstraps: Resamples of patients.
        device: "auto", "cpu", "cuda" or "mps".
        threads: CPU threads; all if left out.
        progress: Told what goes on.

    Returns:
        The finished evaluation: the same files as a run, as far as they apply.

    Raises:
        Refusal: A film of the study is among them, or an outcome that the bundle does not know.
    """
    started, begun = datetime.now(UTC), time.monotonic()
    progress, out = progress or Progress(), Path(out)
    check_out(out)
    chosen = choose_device(device)
    used_threads = prepare_machine(chosen, threads)
    predictor = load(bundle, device=str(chosen))
    columns = _picture_columns(predictor, cohort)
    column = column or str(predictor.facts.get("target_column", predictor.target))
    progress.start("audit", len(cohort) * len(columns))
    found = audit(
        cohort,
        target_column=column,
        classes=predictor.classes,
        positive=predictor.positive,
        image_columns=list(columns.values()),
        tables={name: _described(cohort, table) for name, table in predictor.columns.items()},
        absent="allow" if len(predictor.inputs) > 1 and predictor.networks[0].fusion.drop else "refuse",
        folds=None,
        unreadable="exclude",
        two_classes="declared",
        duplicates="group",
        unlabelled="allow",
        progress=lambda done, _: progress.reach(done),
    )
    found.raise_if_refused()
    assert found.labels is not None
    _refuse_known(predictor, cohort, [str(h) for h in found.facts["sha256"]] if len(found.facts) else [])
    kept = cohort.select([c for c in cohort.case.tolist() if c not in found.excluded])
    values = found.labels.values[[c not in found.excluded for c in cohort.case.tolist()]]
    probabilities = _predict(predictor, kept, progress)
    n, arm = len(kept), str(predictor.facts.get("arm", "proposed"))
    table = PredictionTable(
        case=kept.case,
        patient=kept.patient,
        site=kept.site,
        split=np.full(n, EXTERNAL),
        repeat=np.full(n, -1, np.int64),
        fold=np.full(n, -1, np.int64),
        arm=np.full(n, arm),
        label=values,
        probabilities=probabilities,
        classes=predictor.classes,
    )
    point = predictor.operating_point
    assert point is not None
    with writing(out):
        table.write(out / "predictions" / f"{predictor.target}.csv")
        write_points(out / "operating_points.csv", {(arm, -1, -1): point})
        found.write_findings(out / "findings.csv")
        labels = Labels(column, predictor.classes, predictor.positive, values)
        write_json(out / "cohort.json", cohort_summary(cohort, found.labels, excluded=found.excluded))
        progress.start("statistics", 1)
        evaluation = write_statistics(
            out,
            table,
            target=predictor.target,
            positive=predictor.positive,
            points={(arm, -1, -1): point},
            reference=arm,
            bootstraps=bootstraps,
            seed=int(predictor.facts.get("seed", 0)),
            net_benefit_at=None,
        )
        progress.advance()
        run: dict[str, Any] = {
            "status": "done",
            "kind": "external",
            "tenfold": importlib.metadata.version("tenfold"),
            "title": f"External evaluation of {predictor.facts.get('title', 'a bundle')}",
            "system": predictor.facts.get("system", ""),
            "preset": predictor.facts.get("preset", ""),
            "seed": predictor.facts.get("seed"),
            "started": started.isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - begun, 2),
            "command": shown_command(),
            "device": chosen.type,
            "threads": used_threads,
            "precision": "float32",
            "versions": recorded_versions(),
            "bundle": {"digest": predictor.digest, "members": predictor.members},
            "hashes": {"bundle": predictor.digest},
            "target": {
                "name": predictor.target,
                "column": column,
                "classes": labels.classes,
                "positive": labels.positive,
            },
            "proposed": arm,
            "operating_rule": point.rule,
            "simulated": truth_of(cohort),
            "development": {
                key: predictor.facts.get(key) for key in ("n_patients", "n_cases", "prevalence", "evaluation")
            },
            "prevalence": float((values == predictor.positive).mean()),
            "arms": {arm: {"status": "done", "reason": ""}},
            "opened": [{"what": EXTERNAL, "when": started.isoformat(timespec="seconds"), "cases": n}],
        }
        write_json(out / "run.json", run)
        write_report(out)
    return Run(out, {predictor.target: evaluation}, table)


def _picture_columns(predictor: Predictor, cohort: Cohort) -> dict[str, str]:
    """Match the bundle's inputs of pictures to columns: by name, or the one column of pictures to the one input."""
    named = predictor.facts.get("input_columns", {})
    columns = {name: str(named.get(name, name)) for name in predictor.preparations}
    if len(columns) == 1 and len(cohort.image_columns) == 1:
        return dict.fromkeys(columns, cohort.image_columns[0])
    for name, column in columns.items():
        if column not in cohort.columns:
            raise CohortError(
                f"the bundle's input '{name}' needs column '{column}'",
                do=nearest(column, cohort.columns),
                where=cohort.path.name,
            )
    return columns


def table_rows(predictor: Predictor, cohort: Cohort) -> dict[str, FloatArray]:
    """Read the table inputs of a bundle from a cohort, in the units of its own column dictionary where it has one.

    Raises:
        CohortError: A column is absent, a cell is no number or no known level, or a unit cannot be converted.
    """
    units = {name: column.unit for name, column in _dictionary(cohort).items() if column.unit}
    return {
        name: read_table(columns, cells_of(cohort), place=cohort.place, units=units).values
        for name, columns in predictor.columns.items()
    }


def _dictionary(cohort: Cohort) -> dict[str, Column]:
    """Return a cohort's own column dictionary by column; empty where it has none."""
    path = cohort.folder / COLUMNS_FILE
    return {column.name: column for column in read_columns(path)} if path.is_file() else {}


def _described(cohort: Cohort, columns: Sequence[Column]) -> tuple[Column, ...]:
    """Return columns in the units of the cohort's own dictionary; limits are known in the unit that was given alone."""
    own = _dictionary(cohort)
    other = {c.name for c in columns if c.name in own and own[c.name].unit not in ("", c.unit) and not c.formula}
    found = []
    for c in columns:
        if other & {c.name, *(c.parts or ())}:
            unlimited = replace(c, low=math.nan, high=math.nan, normal_low=math.nan, normal_high=math.nan)
            c = replace(unlimited, unit=own[c.name].unit if c.name in other else c.unit)
        found.append(c)
    return tuple(found)


def _refuse_known(predictor: Predictor, cohort: Cohort, hashes: list[str]) -> None:
    """External means never seen: neither a film nor a patient of the study may be among them."""
    films = predictor.trained_on_images(hashes)
    patients = predictor.trained_on_patients(sorted(set(cohort.patient.tolist())))
    if films or patients:
        what = f"{len(films)} films" if films else f"{len(patients)} patients ({', '.join(patients[:5])} ...)"
        raise AuditError(
            f"{what} of this cohort were in the study that the bundle comes from",
            expected="patients that the bundle has never seen",
            do="take them out; if the same identifier means another person here, give it a prefix of its own",
            where=cohort.path.name,
        )


def given_by(predictor: Predictor, cohort: Cohort) -> list[dict[str, Any]]:
    """Return what each case of a cohort brings for the inputs of a bundle; None where it lacks one.

    Raises:
        CohortError: A column is absent, or a cell is not what its column says.
    """
    paths = {name: cohort.paths(column) for name, column in _picture_columns(predictor, cohort).items()}
    tables = table_rows(predictor, cohort)
    return [
        {
            **{name: found[i] for name, found in paths.items()},
            **{name: None if np.isnan(values[i]).all() else values[i] for name, values in tables.items()},
        }
        for i in range(len(cohort))
    ]


def _predict(predictor: Predictor, cohort: Cohort, progress: Progress) -> FloatArray:
    given = given_by(predictor, cohort)
    progress.start("predicting", len(cohort))
    rows = []
    for start in range(0, len(cohort), _BATCH):
        part = [_prepared(predictor, cohort, i, given[i]) for i in range(len(given))[start : start + _BATCH]]
        rows.append(predictor.predict_arrays(predictor.stack(part)))
        progress.advance(len(part))
    return np.concatenate(rows)


def _prepared(predictor: Predictor, cohort: Cohort, i: int, given: dict[str, Any]) -> dict[str, Any]:
    """Prepare one case; a refusal says which."""
    try:
        return predictor.prepare(given)
    except ImageError as error:
        raise ImageError(error.came, expected=error.expected, do=error.do, where=cohort.place(i)) from error
