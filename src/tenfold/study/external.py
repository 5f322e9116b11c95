"""External evaluation: a frozen bundle on patients it has never seen.

It must not know how the bundle came about; nothing is fitted here, and nothing chosen.
"""

from __future__ import annotations

import importlib.metadata
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfold.bundle import Predictor, load
from tenfold.cohort.audit import Audit, audit, joined
from tenfold.cohort.audit_tables import cells_of
from tenfold.cohort.eligibility import summary_of_targets
from tenfold.cohort.findings import about, one_line
from tenfold.cohort.manifest import Cohort
from tenfold.cohort.outcomes import Target, outcome_for
from tenfold.errors import AuditError, BundleError, CohortError, ImageError, nearest
from tenfold.modalities.table import COLUMNS_FILE, Column, read_columns, read_table
from tenfold.report.page import write_report
from tenfold.study.bench import layouts_of, masked_of
from tenfold.study.files import check_out, recorded_versions, shown_command, truth_of, write_json, writing
from tenfold.study.progress import Progress
from tenfold.study.results import Told, described_outcome, write_points, write_statistics
from tenfold.study.run import Run
from tenfold.training.device import choose_device, prepare_machine
from tenfold.types import EXTERNAL, Finding, FloatArray, PredictionTable, StrArray

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
        column: Column of the outcome of a bundle with one target; the name that the bundle knows it by if left out.
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
    if column and len(predictor.targets) > 1:
        raise BundleError(
            f"a column for {len(predictor.targets)} targets: {', '.join(predictor.targets)}",
            do="leave it out, and call the columns as the study's own cohort does",
        )
    targets = _targets(predictor, column)
    take_layouts(predictor, cohort)
    sound, noticed = _connectomes_looked_at(predictor, cohort)
    found = _audited(predictor, cohort, targets, sound, noticed, progress)
    found.raise_if_refused()
    _refuse_known(predictor, cohort, [str(h) for h in found.facts["sha256"]] if len(found.facts) else [])
    kept = cohort.select([c for c in cohort.case.tolist() if c not in found.excluded])
    if not len(kept):
        raise AuditError(
            "no case is left", do="look at what is wrong with each: `check` lists it", where=str(cohort.path)
        )
    arm = str(predictor.facts.get("arm", "proposed"))
    given = given_by(predictor, kept)
    for name, good in sound.items():
        wrong = set(cohort.case[~good].tolist())
        given = [{**g, name: None} if c in wrong else g for g, c in zip(given, kept.case.tolist(), strict=True)]
    said = _predict(predictor, kept, given, progress)
    tables, told, described = {}, {}, []
    for name, target in targets.items():
        own, outcome = predictor.of(name), outcome_for(kept, target, unlabelled="allow", absent="allow")
        point = own.operating_point
        assert point is not None
        tables[name] = _table(kept, outcome.labels.values, said[name], arm, own.classes)
        scores = {} if outcome.levels else dict(zip(kept.case.tolist(), outcome.values.tolist(), strict=True))
        told[name] = Told(own.positive, {(arm, -1, -1): point}, arm, scores, upwards=target.below is None)
        described.append(described_outcome(outcome))
    first = next(iter(targets))
    with writing(out):
        for name, table in tables.items():
            table.write(out / "predictions" / f"{name}.csv")
        write_points(out / "operating_points.csv", {name: about.points for name, about in told.items()})
        found.write_findings(out / "findings.csv")
        write_json(out / "cohort.json", summary_of_targets(cohort, found.labels, excluded=found.excluded))
        progress.start("statistics", 1)
        evaluation = write_statistics(
            out,
            tables,
            told,
            bootstraps=bootstraps,
            seed=int(predictor.facts.get("seed", 0)),
            net_benefit_at=None,
        )["evaluation"]
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
            "targets": described,
            "target": described[0],
            "proposed": arm,
            "operating_rule": told[first].points[(arm, -1, -1)].rule,
            "simulated": truth_of(cohort),
            "development": {
                key: predictor.facts.get(key) for key in ("n_patients", "n_cases", "prevalence", "evaluation")
            },
            "prevalence": described[0]["positives"] / max(described[0]["known"], 1),
            "arms": {arm: {"status": "done", "reason": ""}},
            "opened": [{"what": EXTERNAL, "when": started.isoformat(timespec="seconds"), "cases": len(kept)}],
        }
        write_json(out / "run.json", run)
        write_report(out)
    return Run(out, evaluation, tables)


def _targets(predictor: Predictor, column: str | None) -> dict[str, Target]:
    """What the bundle tells, by the names that it has there; classes that no study file named are the bundle's own."""
    found = {}
    for name in predictor.targets:
        own, target = predictor.of(name), Target(**predictor.of(name).outcome)
        found[name] = replace(
            target,
            name=name,
            column=column or target.column,
            classes=tuple(target.classes or own.classes),
            positive=target.positive or (own.positive if target.kind == "class" else ""),
        )
    return found


def _connectomes_looked_at(predictor: Predictor, cohort: Cohort) -> tuple[dict[str, NDArray[np.bool_]], list[Finding]]:
    """By input, (n,) whether a case has a connectome that can be read; and what is wrong with the others."""
    there, noticed = {}, []
    for name, column in _connectome_columns(predictor, cohort).items():
        fitted, paths, faults = predictor.connectomes[0][name], cohort.paths(column), dict[int, CohortError]()
        for i, path in enumerate(paths):
            where = cohort.place(i, column)
            try:
                fitted.read([path], place=lambda _, where=where: where) if path else None  # type: ignore[misc]
            except CohortError as error:
                faults[i] = error
        there[name] = np.array([p is not None and i not in faults for i, p in enumerate(paths)])
        noticed += [
            about(cohort, "warning", "connectome", f"{one_line(error)} It counts as absent.", [i], column)
            for i, error in faults.items()
        ]
    return there, noticed


def _audited(
    predictor: Predictor,
    cohort: Cohort,
    targets: Mapping[str, Target],
    connectomes: Mapping[str, NDArray[np.bool_]],
    noticed: Sequence[Finding],
    progress: Progress,
) -> Audit:
    """Look at the cohort once for every target."""
    columns = _picture_columns(predictor, cohort)
    progress.start("audit", len(cohort) * len(columns))
    audits = [
        audit(
            cohort,
            target_column=target.column,
            name=name,
            kind=target.kind,
            classes=target.classes,
            positive=target.positive or None,
            below=target.below,
            above=target.above,
            outcomes=[other.column for other in targets.values() if other is not target],
            connectomes=connectomes,
            noticed=noticed,
            image_columns=list(columns.values()),
            masked=masked_of({column: predictor.preparations[name] for name, column in columns.items()}, cohort),
            tables={table: _described(cohort, own) for table, own in predictor.columns.items()},
            absent="allow" if len(predictor.inputs) > 1 and predictor.networks[0].fusion.drop else "refuse",
            folds=None,
            unreadable="exclude",
            two_classes="declared",
            duplicates="group",
            unlabelled="allow",
            progress=lambda done, _: progress.reach(done),
        )
        for name, target in targets.items()
    ]
    return joined(audits, list(targets))


def _table(
    cohort: Cohort, labels: StrArray, probabilities: FloatArray, arm: str, classes: tuple[str, ...]
) -> PredictionTable:
    n = len(cohort)
    return PredictionTable(
        case=cohort.case,
        patient=cohort.patient,
        site=cohort.site,
        split=np.full(n, EXTERNAL),
        repeat=np.full(n, -1, np.int64),
        fold=np.full(n, -1, np.int64),
        arm=np.full(n, arm),
        label=labels,
        probabilities=probabilities,
        classes=classes,
    )


def _connectome_columns(predictor: Predictor, cohort: Cohort) -> dict[str, str]:
    """Match the bundle's inputs of connectomes to columns, and check that their covariates are there."""
    named = predictor.facts.get("input_columns", {})
    columns = {name: str(named.get(name, name)) for name in predictor.connectomes[0]}
    for name, column in columns.items():
        for needed in (column, *predictor.connectomes[0][name].needs):
            _require(cohort, name, needed)
    return columns


def _picture_columns(predictor: Predictor, cohort: Cohort) -> dict[str, str]:
    """Match the bundle's inputs of pictures to columns: by name, or the one column of pictures to the one input."""
    named = predictor.facts.get("input_columns", {})
    columns = {name: str(named.get(name, name)) for name in predictor.preparations}
    if len(columns) == 1 and len(cohort.image_columns) == 1:
        return dict.fromkeys(columns, cohort.image_columns[0])
    for name, column in columns.items():
        _require(cohort, name, column)
    return columns


def _require(cohort: Cohort, name: str, column: str) -> None:
    """Refuse a cohort without a column that an input of the bundle needs."""
    if column not in cohort.columns:
        raise CohortError(
            f"the bundle's input '{name}' needs column '{column}'",
            do=nearest(column, cohort.columns),
            where=cohort.path.name,
        )


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


def take_layouts(predictor: Predictor, cohort: Cohort) -> None:
    """Let the screens that a cohort's own regions.csv describes take the place of those that the bundle knows."""
    for name, column in _picture_columns(predictor, cohort).items():
        prepared = predictor.preparations[name]
        if (prepared.masked or prepared.bar_high) and (layouts := layouts_of(cohort, column)):
            predictor.preparations[name] = replace(prepared, layouts=layouts)


def given_by(predictor: Predictor, cohort: Cohort) -> list[dict[str, Any]]:
    """Return what each case of a cohort brings for the inputs of a bundle; None where it lacks one.

    Raises:
        CohortError: A column is absent, or a cell is not what its column says.
    """
    columns, sites = _picture_columns(predictor, cohort), cohort.site.tolist()
    pictures = {name: cohort.pictures(column) for name, column in columns.items()}
    take_layouts(predictor, cohort)
    tables = table_rows(predictor, cohort)
    matrices = {name: cohort.paths(column) for name, column in _connectome_columns(predictor, cohort).items()}
    beside = {
        name: {column: cohort.labels(column).tolist() for column in predictor.connectomes[0][name].needs}
        for name in matrices
    }
    return [
        {
            **{n: {"files": found[i], "site": sites[i]} if found[i] else None for n, found in pictures.items()},
            **{name: None if np.isnan(values[i]).all() else values[i] for name, values in tables.items()},
            **{
                name: None
                if files[i] is None
                else {"file": str(files[i]), **{column: cells[i] for column, cells in beside[name].items()}}
                for name, files in matrices.items()
            },
        }
        for i in range(len(cohort))
    ]


def _predict(
    predictor: Predictor, cohort: Cohort, given: Sequence[dict[str, Any]], progress: Progress
) -> dict[str, FloatArray]:
    """By target, (n, classes) probabilities."""
    progress.start("predicting", len(cohort))
    rows: dict[str, list[FloatArray]] = {name: [] for name in predictor.targets}
    for start in range(0, len(cohort), _BATCH):
        part = [_prepared(predictor, cohort, i, given[i]) for i in range(len(given))[start : start + _BATCH]]
        stacked = predictor.stack(part)
        for name, found in rows.items():
            found.append(predictor.of(name).predict_arrays(stacked))
        progress.advance(len(part))
    return {name: np.concatenate(found) for name, found in rows.items()}


def _prepared(predictor: Predictor, cohort: Cohort, i: int, given: dict[str, Any]) -> dict[str, Any]:
    """Prepare one case; a refusal says which."""
    try:
        return predictor.prepare(given)
    except (ImageError, CohortError) as error:
        raise type(error)(error.came, expected=error.expected, do=error.do, where=cohort.place(i)) from error
