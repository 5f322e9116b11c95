"""The order of the stages, and the files between them.

It must not know how any stage works, nor a terminal.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from tenfold.cohort.audit import Audit, audit
from tenfold.cohort.eligibility import cohort_summary
from tenfold.cohort.facts import CACHE_FOLDER, FactsCache, look_at
from tenfold.cohort.manifest import Cohort, Labels, labels_for
from tenfold.cohort.split import make_splits, write_splits
from tenfold.config import InputSection, StudyFile, parse_study, read_study, write_study
from tenfold.errors import AuditError, CohortError, OutputError, Refusal, StudyError, nearest
from tenfold.report.page import write_report
from tenfold.study.arms import Bench, FittedArm, check_encoders, fit_arm, predict_holdout
from tenfold.study.bundling import write_bundle
from tenfold.study.explanations import write_explanations
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
from tenfold.study.progress import Progress
from tenfold.study.results import write_points, write_statistics
from tenfold.study.run import Run
from tenfold.training.device import choose_device, prepare_machine
from tenfold.types import HOLDOUT, PredictionTable


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
        config = self._with_inputs(cohort)
        check_encoders(config)
        return self._audit(cohort, config, progress or Progress())

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
        config = self._with_inputs(cohort)
        check_encoders(config)
        out = self.folder / "run" if out is None else Path(out)
        study_hash = _study_digest(config, cohort)
        check_out(out, resume=resume, study_hash=study_hash)
        chosen = choose_device(device)
        used_threads = prepare_machine(chosen, threads)

        with clock("audit"):
            found = self._audit(cohort, config, progress)
            found.raise_if_refused()
            assert found.labels is not None
            sources = self._sources(config, found, progress)
        kept = cohort.select([c for c in cohort.case.tolist() if c not in found.excluded])
        labels = _labels(kept, config)
        holdout, splits = make_splits(
            kept,
            labels.values,
            folds=config.validation.folds,
            repeats=config.validation.repeats,
            inner=config.validation.inner,
            holdout=config.validation.holdout,
            by="site" if config.validation.by == "site" else "patient",
            leave_one_site_out=config.validation.by == "leave_one_site_out",
            groups=found.groups,
            seed=config.seed,
        )

        with writing(out):
            write_json(out / "run.json", {"status": "running", "hashes": {"study": study_hash}})
            write_study(config, out / "study.toml")
            if self.author:
                shutil.copyfile(self.author, out / "author.toml")
            found.write_findings(out / "findings.csv")
            write_splits(out / "splits.csv", kept, holdout, splits)
            write_json(
                out / "cohort.json",
                cohort_summary(cohort, found.labels, excluded=found.excluded, holdout=holdout),
            )
            bench = Bench(
                config=config,
                folder=self.folder,
                cohort=kept,
                labels=labels,
                hashes=_hashes(found, kept, _columns(config)),
                splits=splits,
                holdout=holdout,
                work=out / ".work",
                device=chosen,
                progress=progress,
            )
            fitted: dict[str, FittedArm] = {}
            records: dict[str, dict[str, Any]] = {}
            for position, arm in enumerate(config.arms):
                with clock(f"arm {arm.name}"):
                    try:
                        fitted[arm.name] = fit_arm(bench, arm, sources)
                        records[arm.name] = fitted[arm.name].record
                    except OutputError:
                        raise
                    except (Refusal, RuntimeError, ValueError, MemoryError) as error:
                        # the proposed arm is the study; a comparison may fail alone, and the report says so
                        if position == 0:
                            raise
                        reason = error.came if isinstance(error, Refusal) else f"{type(error).__name__}: {error}"
                        records[arm.name] = {"status": "failed", "reason": reason, "seconds": 0.0}
                        progress.say(f"arm {arm.name} failed: {reason}")
            proposed = fitted[config.arms[0].name]
            points = {place: point for arm in fitted.values() for place, point in arm.points.items()}
            write_points(out / "operating_points.csv", points)

            with clock("statistics"):
                progress.start("statistics", 1)
                table = PredictionTable.concatenate([arm.predictions for arm in fitted.values()])
                statistics: dict[str, Any] = {
                    "target": bench.target,
                    "positive": labels.positive,
                    "points": points,
                    "reference": proposed.name,
                    "bootstraps": config.validation.bootstraps,
                    "seed": config.seed,
                    "net_benefit_at": config.validation.net_benefit_at,
                }
                evaluation = write_statistics(out, table, **statistics)
                progress.advance()

            opened = []
            if holdout:
                with clock("hold-out"):
                    # every decision is on disk by now: operating_points.csv was written above
                    opened.append({"what": HOLDOUT, "when": _now(), "cases": len(holdout)})
                    aside = PredictionTable.concatenate([predict_holdout(bench, arm) for arm in fitted.values()])
                    write_statistics(out, aside, **statistics, suffix="_holdout")
                    table = PredictionTable.concatenate([table, aside])
            table.write(out / "predictions" / f"{bench.target}.csv")

            with clock("explanations"):
                write_explanations(out, bench, proposed)
            run = {
                "status": "done",
                "tenfold": importlib.metadata.version("tenfold"),
                "kind": "run",
                "title": config.title or f"{bench.target} from {', '.join(config.inputs)}",
                "system": config.system,
                "preset": config.preset,
                "seed": config.seed,
                "started": started.isoformat(timespec="seconds"),
                "command": shown_command(),
                "device": _device_name(chosen),
                "threads": used_threads,
                "precision": proposed.record["precision"],
                "decoded": sum(bench.decoded),
                "versions": recorded_versions(),
                "hashes": {
                    "study": study_hash,
                    "cohort": hashlib.sha256(cohort.path.read_bytes()).hexdigest(),
                    "images": digest(sorted(h for c in bench.hashes.values() for h in c)),
                },
                "target": {
                    "name": bench.target,
                    "column": config.target.column,
                    "classes": labels.classes,
                    "positive": labels.positive,
                },
                "proposed": proposed.name,
                "operating_rule": points[(proposed.name, -1, -1)].rule,
                "validation": config.validation.model_dump(),
                "simulated": truth_of(cohort),
                "arms": records,
                "stages": {name: arm.stages for name, arm in fitted.items()},
                "opened": opened,
            }
            with clock("bundle"):
                # what a run that was killed right here left behind is whole, but not this run's last word
                shutil.rmtree(out / "bundle", ignore_errors=True)
                run["hashes"]["bundle"] = write_bundle(out / "bundle", bench, proposed, run, evaluation)
            run |= {"timings": clock.seconds, "seconds": sum(clock.seconds.values())}
            write_json(out / "run.json", run)
            write_report(out)
            shutil.rmtree(bench.work, ignore_errors=True)
        return Run(out, {bench.target: evaluation}, table)

    def _with_inputs(self, cohort: Cohort) -> StudyFile:
        """Complete the inputs from the cohort's picture columns, and check that those named exist."""
        config = self.config
        if not config.inputs:
            if not cohort.image_columns:
                raise StudyError(
                    "no input is named and no column of the cohort holds pictures",
                    do='name one under [inputs.<name>] with column = "..."',
                    where=cohort.path.name,
                )
            found = {name: InputSection.model_validate({}) for name in cohort.image_columns}
            config = config.model_copy(update={"inputs": found})
        for name, section in config.inputs.items():
            column = section.column or name
            if column not in cohort.columns:
                raise StudyError(
                    f"input '{name}' reads column '{column}', which {cohort.path.name} does not have",
                    do=nearest(column, cohort.columns),
                )
        for arm in config.arms:
            for name in arm.inputs:
                if name not in config.inputs:
                    raise StudyError(
                        f"arm '{arm.name}' names an unknown input '{name}'", do=nearest(name, config.inputs)
                    )
        return config

    def _audit(self, cohort: Cohort, config: StudyFile, progress: Progress) -> Audit:
        progress.start("audit", len(cohort) * len(_columns(config)))
        return audit(
            cohort,
            target_column=config.target.column,
            classes=config.target.classes or None,
            positive=config.target.positive or None,
            image_columns=_columns(config),
            folds=config.validation.folds,
            unreadable=config.cohort.unreadable,
            two_classes=config.cohort.two_classes,
            duplicates=config.cohort.duplicates,
            size=max(section.size for section in config.inputs.values()),
            progress=lambda done, _: progress.reach(done),
        )

    def _sources(
        self, config: StudyFile, own: Audit, progress: Progress
    ) -> dict[str, tuple[Cohort, dict[str, list[str]]]]:
        """Read the cohorts of the source stages; a picture of the study's own patients in one of them is refused."""
        own_hashes = set(own.facts["sha256"])
        sources = {}
        for stage in config.stages:
            if not stage.cohort:
                continue
            cohort = Cohort.read(self.folder / stage.cohort)
            columns = _columns(config)
            for name in (*columns, *stage.columns, *filter(None, [stage.column])):
                if name not in cohort.columns:
                    raise CohortError(
                        f"stage '{stage.name}' needs column '{name}'",
                        do=nearest(name, cohort.columns),
                        where=stage.cohort,
                    )
            progress.start(f"audit of {stage.name}", len(cohort) * len(columns))
            looks = {}
            memory = FactsCache(cohort.folder / CACHE_FOLDER, cohort.folder)
            for column in columns:
                looks[column] = look_at(cohort.files(column), memory, progress=lambda done, _: progress.reach(done))
            memory.save()
            readable = [all(looks[c][i].facts for c in columns) for i in range(len(cohort))]
            if not all(readable):
                progress.say(f"stage {stage.name}: {readable.count(False)} unreadable pictures are left out")
            hashes = {
                c: [look.facts.sha256 for look, good in zip(looks[c], readable, strict=True) if good and look.facts]
                for c in columns
            }
            cohort = cohort.select([c for c, good in zip(cohort.case.tolist(), readable, strict=True) if good])
            shared = [h for values in hashes.values() for h in values if h in own_hashes]
            if shared:
                raise AuditError(
                    f"{len(shared)} pictures of stage '{stage.name}' are also pictures of the study's own patients",
                    expected="a source cohort that shares no patient with the patients to be tested on",
                    do=f"take them out of {stage.cohort}",
                )
            sources[stage.name] = (cohort, hashes)
        return sources


def _labels(cohort: Cohort, config: StudyFile) -> Labels:
    return labels_for(
        cohort,
        column=config.target.column,
        classes=config.target.classes or None,
        positive=config.target.positive or None,
    )


def _hashes(found: Audit, cohort: Cohort, columns: Sequence[str]) -> dict[str, list[str]]:
    """SHA-256 of every case's picture, by column, in the order of the cohort."""
    known = {(row.column, row.case): str(row.sha256) for row in found.facts.itertuples()}
    return {column: [known[(column, case)] for case in cohort.case.tolist()] for column in columns}


def _columns(config: StudyFile) -> list[str]:
    return [section.column or name for name, section in config.inputs.items()]


def _study_digest(config: StudyFile, cohort: Cohort) -> str:
    return digest([config.model_dump_json(), cohort.table.to_csv(index=False)])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name() if device.type == "cuda" else device.type
