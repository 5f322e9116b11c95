"""What a run needs before anything is fitted: its inputs named, its cohorts read, audited and found disjoint.

It must not know networks or folds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from tenfold.cohort.audit import Audit, audit
from tenfold.cohort.eligibility import Rule, apply_rules
from tenfold.cohort.facts import CACHE_FOLDER, FactsCache, look_at
from tenfold.cohort.manifest import Cohort
from tenfold.config import ImageInput, StudyFile, TableInput
from tenfold.errors import AuditError, CohortError, StudyError, nearest
from tenfold.modalities.table import Column, read_columns
from tenfold.study.network_arm import Sources
from tenfold.study.progress import Progress
from tenfold.study.results import subgroup_levels


def complete(config: StudyFile, cohort: Cohort) -> StudyFile:
    """Find the inputs where none is named, check that those named exist, and add the arms that fusion owes.

    Inputs that are joined never appear without each of them alone: where the first arm sees several, an arm for each
    is added unless the study has one.

    Raises:
        StudyError: The study names what the cohort does not have.
    """
    if not config.inputs:
        if not cohort.image_columns:
            raise StudyError(
                "no input is named and no column of the cohort holds pictures",
                do='name one under [inputs.<name>] with column = "..."',
                where=cohort.path.name,
            )
        found = {name: ImageInput() for name in cohort.image_columns}
        config = config.model_copy(update={"inputs": found})
    for name, section in config.inputs.items():
        column = (section.column or name) if isinstance(section, ImageInput) else ""
        if column and column not in cohort.columns:
            raise StudyError(
                f"input '{name}' reads column '{column}', which {cohort.path.name} does not have",
                do=nearest(column, cohort.columns),
            )
    for subgroup in config.validation.subgroups:
        if subgroup.column not in cohort.columns:
            raise StudyError(
                f"subgroups are asked for by column '{subgroup.column}', which {cohort.path.name} does not have",
                do=nearest(subgroup.column, cohort.columns),
            )
        subgroup_levels(cohort, subgroup)
    for arm in config.arms:
        for name in (*arm.inputs, *arm.only):
            if name not in config.inputs:
                raise StudyError(f"arm '{arm.name}' names an unknown input '{name}'", do=nearest(name, config.inputs))
    joined = config.inputs_of(config.arms[0])
    if len(joined) > 1:
        alone = {tuple(config.inputs_of(arm)) for arm in config.arms if not arm.model and not arm.combine}
        taken = [arm.name for arm in config.arms]
        owed = [
            config.arms[0].model_copy(
                update={
                    "name": f"{name} only" + (", network" if f"{name} only" in taken else ""),
                    "only": (name,),
                    "flaws": (),
                }
            )
            for name in joined
            if (name,) not in alone
        ]
        config = config.model_copy(update={"arms": (*config.arms, *owed)})
    return config


def image_columns(config: StudyFile) -> list[str]:
    """Return the columns that hold pictures to learn from."""
    return [s.column or name for name, s in config.inputs.items() if isinstance(s, ImageInput)]


def table_columns(config: StudyFile, cohort: Cohort) -> dict[str, tuple[Column, ...]]:
    """Read the column dictionary of every table input, reduced to the columns that the study names.

    Raises:
        Refusal: A dictionary cannot be read, lacks a column that is named, or holds the outcome.
    """
    found = {}
    for name, section in config.inputs.items():
        if not isinstance(section, TableInput):
            continue
        described = {column.name: column for column in read_columns(cohort.folder / section.dictionary)}
        for column in section.columns:
            if column not in described:
                raise StudyError(
                    f"input '{name}' names column '{column}', which {section.dictionary} does not describe",
                    do=nearest(column, described),
                )
        chosen = section.columns or tuple(described)
        if config.target.column in chosen:
            raise StudyError(
                f"input '{name}' contains the outcome itself, column '{config.target.column}'",
                do=f"take it out of {section.dictionary}, or name the columns that may be used",
            )
        found[name] = tuple(described[column] for column in chosen)
    return found


def ineligible(config: StudyFile, cohort: Cohort) -> dict[str, str]:
    """Return who is not eligible, with the name of the rule that says so."""
    rules = [Rule(**section.model_dump()) for section in config.eligibility]
    return apply_rules(cohort, rules, table_columns(config, cohort))


def audited(config: StudyFile, cohort: Cohort, progress: Progress) -> Audit:
    """Audit the eligible patients as the study asks.

    Raises:
        Refusal: A rule of eligibility cannot be applied, for a reason that the audit of everybody would not find.
    """
    try:
        left_out = ineligible(config, cohort)
    except CohortError:
        # a rule met a cell that cannot be read: better all such cells than the first
        found = _audited(config, cohort, {}, progress)
        if not found.refusals:
            raise
        return found
    return _audited(config, cohort, left_out, progress)


def _audited(config: StudyFile, cohort: Cohort, left_out: Mapping[str, str], progress: Progress) -> Audit:
    columns = image_columns(config)
    progress.start("audit", len(cohort) * len(columns))
    images = [s.size for s in config.inputs.values() if isinstance(s, ImageInput)]
    return audit(
        cohort,
        target_column=config.target.column,
        classes=config.target.classes or None,
        positive=config.target.positive or None,
        image_columns=columns,
        folds=config.validation.folds,
        unreadable=config.cohort.unreadable,
        two_classes=config.cohort.two_classes,
        duplicates=config.cohort.duplicates,
        size=max(images, default=None),
        tables=table_columns(config, cohort),
        allowed=[name for s in config.inputs.values() if isinstance(s, TableInput) for name in s.allowed],
        ineligible=left_out,
        absent="allow" if len(config.inputs) > 1 else "refuse",
        progress=lambda done, _: progress.reach(done),
    )


def source_cohorts(config: StudyFile, folder: Path, own: Audit, progress: Progress) -> Sources:
    """Read the cohorts of the source stages; a picture of the study's own patients in one of them is refused.

    Raises:
        Refusal: A cohort cannot be read, lacks a column, or shares a picture with the study.
    """
    own_hashes = {str(h) for h in own.facts["sha256"]} if len(own.facts) else set()
    columns = image_columns(config)
    sources: dict[str, tuple[Cohort, Mapping[str, Sequence[str]]]] = {}
    for stage in config.stages:
        if not stage.cohort:
            continue
        cohort = Cohort.read(folder / stage.cohort)
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


def external_cohorts(config: StudyFile, folder: Path, own: Cohort, found: Audit) -> dict[str, Cohort]:
    """Read the external cohorts, looking at nothing but who is in them.

    Raises:
        AuditError: A patient or a picture of the study is among them.
    """
    own_patients = set(own.patient.tolist())
    own_hashes = {str(h) for h in found.facts["sha256"]} if len(found.facts) else set()
    cohorts = {}
    for section in config.external:
        cohort = Cohort.read(folder / section.cohort)
        shared = sorted(own_patients & set(cohort.patient.tolist()))
        pictures = [
            path.name
            for column in cohort.image_columns
            for path in cohort.paths(column)
            if own_hashes and path is not None and path.is_file() and _sha256(path) in own_hashes
        ]
        if shared or pictures:
            what = f"patient {shared[0]}" if shared else f"the picture {pictures[0]}"
            raise AuditError(
                f"the external cohort '{section.name}' shares {what} with the study"
                + (f" ({len(shared or pictures)} in all)" if len(shared or pictures) > 1 else ""),
                expected="patients that the study does not have",
                do="take them out; if the same identifier means another person there, give it a prefix of its own",
                where=section.cohort,
            )
        if section.readers and not (folder / section.readers).is_file():
            raise StudyError(f"there is no file {section.readers}", do=f"correct readers of external '{section.name}'")
        cohorts[section.name] = cohort
    return cohorts


def hashes_by_column(found: Audit, cohort: Cohort, columns: Sequence[str]) -> dict[str, list[str]]:
    """SHA-256 of every case's picture, by column, in the order of the cohort; empty where a case has none."""
    known = {(row.column, row.case): str(row.sha256) for row in found.facts.itertuples()}
    return {column: [known.get((column, case), "") for case in cohort.case.tolist()] for column in columns}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
