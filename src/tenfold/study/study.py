"""The order of the stages, and the files between them.

It must not know how any stage works, nor a terminal.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from tenfold.cohort.audit import Audit
from tenfold.cohort.audit_tables import table_reading
from tenfold.cohort.eligibility import summary_of_targets
from tenfold.cohort.manifest import Cohort
from tenfold.cohort.split import make_splits, write_splits
from tenfold.config import ArmSection, StudyFile, parse_study, read_study, write_study
from tenfold.errors import OutputError, Refusal
from tenfold.modalities.table import Column
from tenfold.modalities.ultrasound import REGIONS_FILE
from tenfold.report.page import write_report
from tenfold.study import resampling
from tenfold.study.arms import FittedArm, predict_holdout
from tenfold.study.bench import Bench
from tenfold.study.bundling import write_bundle
from tenfold.study.explanations import write_explanations
from tenfold.study.external import evaluate_bundle
from tenfold.study.files import (
    Clock,
    check_out,
    digest,
    recorded_versions,
    shown_command,
    truth_of,
    write_json,
    writing,
)
from tenfold.study.grid import described_grid, grid_tests
from tenfold.study.late_arm import fit_late
from tenfold.study.network_arm import FoldNetworks, Sources, altered_arms, check_encoders, fit_networks
from tenfold.study.preparing import (
    audited,
    complete,
    connectome_hashes,
    connectomes_of,
    external_cohorts,
    hashes_by_column,
    image_columns,
    kept_together,
    outcomes_of,
    source_cohorts,
    table_columns,
)
from tenfold.study.progress import Progress
from tenfold.study.readers import write_reader_study
from tenfold.study.results import (
    Place,
    Told,
    conformal_of,
    described_outcome,
    sample_size,
    subgroups_of,
    write_points,
    write_statistics,
)
from tenfold.study.run import Run
from tenfold.study.sites import described_sites, leave_sites_out
from tenfold.study.table_arm import fit_table_model
from tenfold.training.device import choose_device, prepare_machine
from tenfold.types import HOLDOUT, OperatingPoint, PredictionTable


@dataclass(frozen=True)
class Study:
    """A study file and the folder that its paths start from."""

    config: StudyFile
    folder: Path
    author: Path | None = field(default=None)

    @classmethod
    def read(cls, path: Path | str, changes: Mapping[str, Any] | None = None) -> Study:
        """Read a study.toml.

        Args:
            path: The file, or the folder that holds one.
            changes: Laid over the file, in its own form.

        Raises:
            StudyError: It is missing, holds an unknown key or an impossible value.
        """
        path = Path(path)
        path = path / "study.toml" if path.is_dir() else path
        author = path.parent / "author.toml"
        return cls(read_study(path, changes), path.parent, author if author.is_file() else None)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], folder: Path | str = ".") -> Study:
        """Make a study from a mapping with the keys of a study.toml."""
        return cls(parse_study(document), Path(folder))

    def cohort(self) -> Cohort:
        """Read the cohort that the study file names."""
        return Cohort.read(self.folder / self.config.cohort.file)

    def check(self, cohort: Cohort | None = None, *, progress: Progress | None = None) -> Audit:
        """Audit the cohort; nothing is fitted, nothing is refused: the audit says what would be.

        Raises:
            Refusal: The cohort cannot be read, or the study names what is not in it.
        """
        cohort = cohort or self.cohort()
        config = complete(self.config, cohort)
        check_encoders(config)
        found = audited(config, cohort, progress or Progress())
        external_cohorts(config, self.folder, cohort, found)
        return found

    def sample_size(self, found: Audit) -> dict[str, Any]:
        """Return what the cohort can show, before a patient is spent, by target; none where outcomes cannot be had."""
        cohort = self.cohort()
        config = complete(self.config, cohort)
        columns = table_columns(config, cohort)
        return {
            target: sample_size(labels, columns, config.validation.expected_auc)
            for target, labels in found.labels.items()
            if len(set(labels.values[labels.known].tolist())) > 1
        }

    def run(
        self,
        cohort: Cohort | None = None,
        *,
        out: Path | str | None = None,
        resume: bool = False,
        device: str = "auto",
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> Run:
        """Run the study: audit, split, fit every arm, evaluate, explain, bundle, report.

        Args:
            cohort: The patients; the cohort that the study file names if left out.
            out: Folder for the results; `run` beside the study file if left out. It must be empty or absent, unless
                `resume`.
            resume: Go on with a run that was killed in that folder.
            device: "auto", "cpu", "cuda" or "mps".
            threads: CPU threads; all if left out.
            progress: Told what goes on.

        Returns:
            The finished run.

        Raises:
            Refusal: Something must be mended first; nothing was fitted.
        """
        progress = progress or Progress()
        started, clock = datetime.now(UTC), Clock()
        cohort = cohort or self.cohort()
        config = complete(self.config, cohort)
        check_encoders(config)
        out = self.folder / "run" if out is None else Path(out)
        columns = table_columns(config, cohort)
        study_hash = _study_digest(config, cohort, columns)
        check_out(out, resume=resume, study_hash=study_hash)
        chosen = choose_device(device)
        used_threads = prepare_machine(chosen, threads)

        with clock("audit"):
            found = audited(config, cohort, progress)
            found.raise_if_refused()
            kept = cohort.select([c for c in cohort.case.tolist() if c not in found.excluded])
            connectomes = connectomes_of(config, kept)
            sources = source_cohorts(config, self.folder, kept, connectomes, found, progress)
            external = external_cohorts(config, self.folder, cohort, found)
        outcomes = outcomes_of(config, kept)
        holdout, splits = make_splits(
            kept,
            *(outcome.labels.values for outcome in outcomes.values()),
            folds=config.validation.folds,
            repeats=config.validation.repeats,
            inner=config.validation.inner,
            holdout=config.validation.holdout,
            by="site" if config.validation.by == "site" else "patient",
            leave_one_site_out=config.validation.by == "leave_one_site_out",
            groups=kept_together(kept, found.groups, config.validation.family),
            seed=config.seed,
        )

        with writing(out):
            write_json(out / "run.json", {"status": "running", "hashes": {"study": study_hash}})
            write_study(config, out / "study.toml")
            if self.author:
                shutil.copyfile(self.author, out / "author.toml")
            found.write_findings(out / "findings.csv")
            write_splits(out / "splits.csv", kept, holdout, splits)
            variables = [column for described in columns.values() for column in described]
            write_json(
                out / "cohort.json",
                summary_of_targets(cohort, found.labels, excluded=found.excluded, holdout=holdout, variables=variables),
            )
            expected = config.validation.expected_auc
            sizes = {name: sample_size(outcome.labels, columns, expected) for name, outcome in outcomes.items()}
            write_json(out / "sample_size.json", sizes)
            bench = Bench(
                config=config,
                folder=self.folder,
                cohort=kept,
                outcomes=outcomes,
                target=next(iter(outcomes)),
                hashes=hashes_by_column(found, kept, image_columns(config)),
                tables={name: table_reading(kept, cs) for name, cs in columns.items()},
                connectomes=connectomes,
                splits=splits,
                holdout=holdout,
                work=out / ".work",
                device=chosen,
                progress=progress,
            )
            arms = _Arms(bench, sources)
            for arm in config.arms:
                with clock(f"arm {arm.name}"):
                    arms.fit(arm)
            proposed, networks = arms.fitted[config.arms[0].name], arms.networks
            assert networks is not None
            write_points(out / "operating_points.csv", arms.points)

            with clock("statistics"):
                progress.start("statistics", 1)
                told = {name: _told(bench.of(name), arms.points[name], config.arms[0].name) for name in outcomes}
                drawn: dict[str, Any] = {"bootstraps": config.validation.bootstraps, "seed": config.seed}
                statistics = {**drawn, "net_benefit_at": config.validation.net_benefit_at}
                tables = {name: PredictionTable.concatenate(found) for name, found in arms.predictions.items()}
                written = write_statistics(out, tables, told, **statistics)
                if config.grid is not None:
                    write_json(out / "grid.json", grid_tests(config, tables, told, **drawn))
                own = {name: table.select(arm=config.arms[0].name) for name, table in tables.items()}
                if config.validation.subgroups:
                    parts = {
                        name: subgroups_of(table, kept, config.validation.subgroups, told[name], **drawn)
                        for name, table in own.items()
                    }
                    write_json(out / "subgroups.json", parts)
                alpha = config.validation.conformal_alpha
                conformal = {name: conformal_of(table, alpha) for name, table in own.items()}
                write_json(out / "conformal.json", {name: realised for name, (_, realised) in conformal.items()})
                progress.advance()
            with clock("optimism, permutations, learning curve"):
                optimism = {name: asdict(one) for name, one in resampling.optimism(bench, proposed).items()}
                write_json(out / "optimism.json", optimism)
                permuted: dict[str, dict[str, Any]] = {}
                if config.validation.permutations:
                    permuted = resampling.described(
                        resampling.permutations(bench, proposed, networks), config.arms[0].name
                    )
                    write_json(out / "permutations.json", permuted)
                if config.validation.learning_curve:
                    curve = resampling.learning_curve(bench, proposed, networks)
                    write_json(out / "learning_curve.json", resampling.described_curve(curve))

            if config.validation.each_site:
                with clock("each site left out"):
                    left = leave_sites_out(bench, sources, found.groups)
                    for name, one in left.items():
                        one.predictions.write(out / "sites" / f"{name}.csv")
                    write_json(out / "sites.json", described_sites(left, **drawn))
            opened = []
            if holdout:
                with clock("hold-out"):
                    # every decision is on disk by now: operating_points.csv was written above
                    opened.append({"what": HOLDOUT, "when": _now(), "cases": len(holdout)})
                    aside = {
                        name: PredictionTable.concatenate(
                            [predict_holdout(bench.of(name), own[name]) for own in arms.fitted.values() if name in own]
                        )
                        for name in outcomes
                    }
                    write_statistics(out, aside, told, **statistics, suffix="_holdout")
                    tables = {name: PredictionTable.concatenate([t, aside[name]]) for name, t in tables.items()}
            for name, table in tables.items():
                table.write(out / "predictions" / f"{name}.csv")

            with clock("explanations"):
                write_explanations(out, bench, proposed, networks)
            described = [described_outcome(outcome) for outcome in outcomes.values()]
            first = proposed[bench.target]
            run = {
                "status": "done",
                "tenfold": importlib.metadata.version("tenfold"),
                "kind": "run",
                "title": config.title or f"{', '.join(outcomes)} from {', '.join(config.inputs)}",
                "system": config.system,
                "preset": config.preset,
                "seed": config.seed,
                "started": started.isoformat(timespec="seconds"),
                "command": shown_command(),
                "device": _device_name(chosen),
                "threads": used_threads,
                "precision": first.record["precision"],
                "decoded": sum(bench.decoded),
                "versions": recorded_versions(),
                "hashes": {
                    "study": study_hash,
                    "cohort": hashlib.sha256(cohort.path.read_bytes()).hexdigest(),
                    "images": digest(sorted(h for cases in bench.hashes.values() for own in cases for h in own)),
                },
                "targets": described,
                "target": described[0],
                "proposed": first.name,
                "operating_rule": first.points[(first.name, -1, -1)].rule,
                "validation": config.validation.model_dump(),
                "inputs": {name: _described_input(bench, name) for name in config.inputs},
                "simulated": truth_of(cohort),
                "arms": arms.records,
                "grid": described_grid(config),
                "stages": {name: next(iter(own.values())).stages for name, own in arms.fitted.items()},
                "opened": opened,
            }
            with clock("bundle"):
                # what a run that was killed right here left behind is whole, but not this run's last word
                shutil.rmtree(out / "bundle", ignore_errors=True)
                run["hashes"]["bundle"] = write_bundle(
                    out / "bundle",
                    bench,
                    proposed,
                    networks,
                    run,
                    written["evaluation"],
                    written.get("classes", {}),
                    {name: sets for name, (sets, _) in conformal.items()},
                    permuted,
                )
            for section in config.external:
                with clock(f"external {section.name}"):
                    opened.append({"what": section.name, "when": _now(), "cases": len(external[section.name])})
                    place = out / "external" / section.name
                    shutil.rmtree(place, ignore_errors=True)
                    evaluate_bundle(
                        out / "bundle",
                        external[section.name],
                        out=place,
                        bootstraps=config.validation.bootstraps,
                        device=device,
                        threads=threads,
                        progress=progress,
                    )
                    if section.readers:
                        write_reader_study(place, self.folder / section.readers)
            run |= {"timings": clock.seconds, "seconds": sum(clock.seconds.values())}
            write_json(out / "run.json", run)
            write_report(out)
            shutil.rmtree(bench.work, ignore_errors=True)
        return Run(out, written["evaluation"], tables)


class _Arms:
    """The arms of a study as they go through, one after the other."""

    def __init__(self, bench: Bench, sources: Sources) -> None:
        self._bench, self._sources = bench, sources
        self.networks: FoldNetworks | None = None
        self.fitted: dict[str, dict[str, FittedArm]] = {}
        self.predictions: dict[str, list[PredictionTable]] = {target: [] for target in bench.outcomes}
        self.points: dict[str, dict[Place, OperatingPoint]] = {target: {} for target in bench.outcomes}
        self.records: dict[str, dict[str, Any]] = {}

    def fit(self, arm: ArmSection) -> None:
        """Fit one arm; the first one is the study, a comparison may fail alone, and the report says so."""
        proposed = arm is self._bench.config.arms[0]
        try:
            fitted = self._fit(arm, proposed)
        except OutputError:
            raise
        except (Refusal, RuntimeError, ValueError, MemoryError) as error:
            if proposed:
                raise
            reason = error.came if isinstance(error, Refusal) else f"{type(error).__name__}: {error}"
            self.records[arm.name] = {"status": "failed", "reason": reason, "seconds": 0.0}
            self._bench.progress.say(f"arm {arm.name} failed: {reason}")
            return
        self.fitted[arm.name] = fitted
        self.records[arm.name] = next(iter(fitted.values())).record
        for target, own in fitted.items():
            self.predictions[target].append(own.predictions)
            self.points[target] |= own.points
            if proposed and self.networks is not None:
                for name, (predictions, points) in altered_arms(self._bench.of(target), own, self.networks).items():
                    self.predictions[target].append(predictions)
                    self.points[target] |= points
                    self.records[name] = {**own.record, "kind": "altered", "seconds": 0.0}

    def _fit(self, arm: ArmSection, proposed: bool) -> dict[str, FittedArm]:
        """Return the arm as each target sees it."""
        bench, targets = self._bench, tuple(self._bench.outcomes)
        if arm.model:
            return {target: fit_table_model(bench.of(target), arm) for target in targets}
        if arm.combine:
            lacking = [name for name in arm.combine if name not in self.fitted]
            if lacking:
                raise Refusal(f"it combines '{lacking[0]}', which failed")
            return {
                target: fit_late(bench.of(target), arm, {name: self.fitted[name][target] for name in arm.combine})
                for target in targets
            }
        if arm.single and len(targets) > 1:
            alone = [fit_networks(bench.only(target), arm, self._sources, alter=False)[0] for target in targets]
            return {target: own[target] for target, own in zip(targets, alone, strict=True)}
        fitted, networks = fit_networks(bench, arm, self._sources, alter=proposed)
        if proposed:
            self.networks = networks
        return fitted


def _told(bench: Bench, points: Mapping[Place, OperatingPoint], reference: str) -> Told:
    """What statistics must know of the target that is looked at."""
    outcome = bench.outcome
    scores = {} if outcome.levels else dict(zip(bench.cohort.case.tolist(), outcome.values.tolist(), strict=True))
    return Told(bench.labels.positive, points, reference, scores, upwards=outcome.target.below is None)


def _described_input(bench: Bench, name: str) -> dict[str, Any]:
    """What run.json says of an input."""
    described = bench.config.inputs[name].model_dump()
    if name in bench.connectomes:
        described["n_regions"] = len(bench.connectomes[name].reading.regions)
    return described


def _study_digest(config: StudyFile, cohort: Cohort, columns: Mapping[str, tuple[Column, ...]]) -> str:
    files = connectome_hashes(config, cohort)
    regions = cohort.folder / REGIONS_FILE
    files += [regions.read_text("utf-8")] if regions.is_file() else []
    return digest([config.model_dump_json(), cohort.table.to_csv(index=False), repr(columns), *files])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name() if device.type == "cuda" else device.type
