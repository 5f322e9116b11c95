"""What a run needs before anything is fitted: its inputs named, its cohorts read, audited and found disjoint.

It must not know networks or folds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfold.cohort.audit import Audit, audit, joined
from tenfold.cohort.describe import is_number
from tenfold.cohort.eligibility import Rule, apply_rules
from tenfold.cohort.facts import CACHE_FOLDER, FactsCache, look_at
from tenfold.cohort.findings import one_line
from tenfold.cohort.manifest import Cohort
from tenfold.cohort.outcomes import Outcome, Target, outcome_for
from tenfold.config import AnyInput, ConnectomeInput, ImageInput, StudyFile, TableInput, TargetSection
from tenfold.errors import AuditError, CohortError, StudyError, nearest
from tenfold.modalities.confounds import Kind
from tenfold.modalities.connectome import (
    Covariates,
    check_connectomes,
    check_motion,
    identical,
    read_connectomes,
    read_covariates,
    read_regions,
)
from tenfold.modalities.table import Column, read_columns
from tenfold.study.bench import Connectomes, masked_of, preparation
from tenfold.study.grid import with_grid
from tenfold.study.network_arm import Source, Sources
from tenfold.study.progress import Progress
from tenfold.study.results import subgroup_levels
from tenfold.types import Finding, StrArray


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
    config = with_grid(config)
    for name, section in config.inputs.items():
        for column in _columns_read(config, name, section):
            if column not in cohort.columns:
                raise StudyError(
                    f"input '{name}' reads column '{column}', which {cohort.path.name} does not have",
                    do=nearest(column, cohort.columns),
                )
        if isinstance(section, ImageInput):
            _refuse_too_many(cohort, name, section, f"set inputs.{name}.pictures")
    if config.validation.family and config.validation.family not in cohort.columns:
        raise StudyError(
            f"families are in column '{config.validation.family}', which {cohort.path.name} does not have",
            do=nearest(config.validation.family, cohort.columns),
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
        for name, section in config.inputs_of(arm).items():
            if isinstance(section, ImageInput) and name in arm.inputs:
                _refuse_too_many(cohort, name, section, f"in arm '{arm.name}' set pictures")
    inputs = config.inputs_of(config.arms[0])
    if len(inputs) > 1:
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
            for name in inputs
            if (name,) not in alone
        ]
        config = config.model_copy(update={"arms": (*config.arms, *owed)})
    return config


def _refuse_too_many(cohort: Cohort, name: str, section: ImageInput, do: str) -> None:
    """Refuse a case with more pictures of a view than the study reckons with: none is left out silently."""
    column = section.column or name
    counts = [len(own) for own in cohort.pictures(column)]
    most = max(counts)
    if most > section.pictures:
        raise StudyError(
            f"{most} pictures of one case for input '{name}'",
            expected=f"at most {section.pictures}",
            do=f"{do} = {most}, or name fewer",
            where=cohort.place(counts.index(most), column),
        )


def _columns_read(config: StudyFile, name: str, section: AnyInput) -> tuple[str, ...]:
    """Columns of the cohort that an input needs by its own keys; those of tables stand in their dictionary."""
    if isinstance(section, TableInput):
        return ()
    return (section.column or name, *_covariate_columns(config.connectomes(name)))


def _covariate_columns(sections: Sequence[ConnectomeInput]) -> tuple[str, ...]:
    named = [column for s in sections for column in (s.harmonise, *s.keep, *s.confounds, s.motion)]
    return tuple(dict.fromkeys(column for column in named if column))


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
        for target in config.target:
            if target.column in chosen:
                raise StudyError(
                    f"input '{name}' contains the outcome itself, column '{target.column}'",
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
    """Look at everything once for every target."""
    columns = image_columns(config)
    progress.start("audit", len(cohort) * len(columns))
    images = [s.size for s in config.inputs.values() if isinstance(s, ImageInput)]
    pictures = {s.column or n: s for n, s in config.inputs.items() if isinstance(s, ImageInput)}
    masked = masked_of({column: preparation(s, cohort, column) for column, s in pictures.items()}, cohort)
    connectomes, noticed = {}, []
    eligible = np.array([case not in left_out for case in cohort.case.tolist()], bool)
    for name, section in config.inputs.items():
        if isinstance(section, ConnectomeInput):
            connectomes[name], found = looked_at(cohort, name, config.connectomes(name), eligible)
            noticed += found
    audits = [
        audit(
            cohort,
            **_target_keys(target),
            outcomes=[other.column for other in config.target if other is not target],
            connectomes=connectomes,
            noticed=noticed,
            image_columns=columns,
            masked=masked,
            folds=config.validation.folds,
            unreadable=config.cohort.unreadable,
            two_classes=config.cohort.two_classes,
            duplicates=config.cohort.duplicates,
            unlabelled="allow" if len(config.target) > 1 else "refuse",
            size=max(images, default=None),
            tables=table_columns(config, cohort),
            allowed=[name for s in config.inputs.values() if isinstance(s, TableInput) for name in s.allowed],
            ineligible=left_out,
            absent="allow" if len(config.inputs) > 1 else "refuse",
            progress=lambda done, _: progress.reach(done),
        )
        for target in config.target
    ]
    return joined(audits, [target.called for target in config.target])


def _target_keys(target: TargetSection) -> dict[str, Any]:
    """What `audit` is told of a target."""
    return {
        "target_column": target.column,
        "name": target.name,
        "kind": target.kind,
        "classes": target.classes or None,
        "positive": target.positive or None,
        "below": target.below,
        "above": target.above,
    }


def outcomes_of(config: StudyFile, cohort: Cohort) -> dict[str, Outcome]:
    """Read every target of a cohort that passed the audit."""
    targets = [Target(**section.model_dump()) for section in config.target]
    return {target.called: outcome_for(cohort, target, unlabelled="allow") for target in targets}


def looked_at(
    cohort: Cohort, name: str, sections: Sequence[ConnectomeInput], eligible: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], list[Finding]]:
    """Read the connectomes of a cohort for what is wrong with them.

    Args:
        cohort: The cohort.
        name: The input.
        sections: As `StudyFile.connectomes` gives them.
        eligible: (n,) whose are looked at.

    Returns:
        (n,) whether a case has a connectome, be it a wrong one; and the findings.
    """
    section = sections[0]
    column = section.column or name
    files = [path if looked else None for path, looked in zip(cohort.paths(column), eligible.tolist(), strict=True)]
    named = np.array([path is not None for path in files])
    faults: dict[int, CohortError] = {}
    try:
        reading = read_connectomes(
            files,
            holds=section.holds,
            measure=section.measure,
            regions=_regions(cohort, section),
            place=lambda i: cohort.place(i, column),
            faults=faults,
        )
    except CohortError as error:
        if not faults:
            return named, [Finding("refusal", "connectome", one_line(error), column=column)]
        reading = None
    found = [
        Finding("refusal", "connectome", one_line(error), (str(cohort.case[i]),), (str(cohort.patient[i]),), column)
        for i, error in faults.items()
    ]
    if reading is not None:
        odd = check_connectomes(reading.matrices, reading.silent, reading.regions, reading.sources)
        found += [replace(finding, column=column) for finding in odd]
    beside, wrong = _covariates(cohort, sections)
    found += wrong
    for needed in _covariate_columns([s.model_copy(update={"motion": ""}) for s in sections]):
        found += [
            Finding(
                "refusal",
                "covariate",
                f"{cohort.place(i, needed)}: the cell is empty, but the {name} is adjusted for it.",
                (str(cohort.case[i]),),
                (str(cohort.patient[i]),),
                needed,
            )
            for i in np.flatnonzero(named & (cohort.labels(needed) == "")).tolist()
        ]
    if beside is not None and section.motion and section.most_motion is not None:
        moved = np.where(eligible, np.asarray(beside.columns[section.motion], np.float64), 0.0)
        found += check_motion(moved, section.most_motion, beside.sources, section.motion)
    return named, found


def connectomes_of(config: StudyFile, cohort: Cohort) -> dict[str, Connectomes]:
    """Read every input of connectomes of a cohort.

    Raises:
        CohortError: A file is wrong; those of the study's own patients have passed the audit.
    """
    found = {}
    for name, section in config.inputs.items():
        if isinstance(section, ConnectomeInput):
            column = section.column or name
            reading = read_connectomes(
                cohort.paths(column),
                holds=section.holds,
                measure=section.measure,
                regions=_regions(cohort, section),
                place=lambda i, column=column: cohort.place(i, column),  # type: ignore[misc]
            )
            beside, wrong = _covariates(cohort, config.connectomes(name))
            if wrong:
                raise CohortError(wrong[0].message)
            found[name] = Connectomes(reading, beside)
    return found


def connectome_hashes(config: StudyFile, cohort: Cohort) -> list[str]:
    """SHA-256 of every connectome, case by case and input by input; those that are missing are the audit's to find."""
    return [
        _sha256(path)
        for name, section in config.inputs.items()
        if isinstance(section, ConnectomeInput)
        for path in cohort.paths(section.column or name)
        if path is not None and path.is_file()
    ]


def _regions(cohort: Cohort, section: ConnectomeInput) -> tuple[str, ...]:
    return read_regions(cohort.folder / section.regions) if section.regions else ()


def _covariates(cohort: Cohort, sections: Sequence[ConnectomeInput]) -> tuple[Covariates | None, list[Finding]]:
    """What harmonisation, regression and the limit of motion need; a column of numbers is one of numbers."""
    columns, sites = _covariate_columns(sections), {section.harmonise for section in sections}
    kinds: dict[str, Kind] = {
        column: "number" if column not in sites and _of_numbers(cohort.labels(column)) else "category"
        for column in columns
    }
    if sections[0].motion:
        kinds[sections[0].motion] = "number"
    try:
        cells = {column: cohort.labels(column).tolist() for column in columns}
        return (read_covariates(cells, kinds, place=cohort.place) if columns else None), []
    except CohortError as error:
        return None, [Finding("refusal", "covariate", one_line(error))]


def _of_numbers(cells: StrArray) -> bool:
    """Whether a column is one of numbers: a single word in it is then refused, and makes no categories of the rest."""
    filled = [is_number(cell) for cell in cells.tolist() if cell]
    return 2 * sum(filled) >= len(filled)


def kept_together(cohort: Cohort, groups: Mapping[str, str], family: str) -> dict[str, str]:
    """Join the groups of the audit and the families of a column: patient -> the group that no split divides."""
    if not family:
        return dict(groups)
    leader = {patient: patient for patient in cohort.patient.tolist()}

    def first(patient: str) -> str:
        while leader[patient] != patient:
            patient = leader[patient]
        return patient

    for belongs in (groups, dict(zip(cohort.patient.tolist(), cohort.labels(family).tolist(), strict=True))):
        met: dict[str, str] = {}
        for patient, group in belongs.items():
            if group and patient in leader:
                leader[first(patient)] = first(met.setdefault(group, patient))
    return {patient: first(patient) for patient in leader}


def source_cohorts(
    config: StudyFile,
    folder: Path,
    own_cohort: Cohort,
    own_connectomes: Mapping[str, Connectomes],
    own: Audit,
    progress: Progress,
) -> Sources:
    """Read the cohorts of the source stages; a patient, picture or connectome of the study's own is refused there.

    Raises:
        Refusal: A cohort cannot be read, lacks a column, or shares a patient with the study.
    """
    own_hashes = {str(h) for h in own.facts["sha256"]} if len(own.facts) else set()
    needed = [
        c for n, s in config.inputs.items() if isinstance(s, ConnectomeInput) for c in _columns_read(config, n, s)
    ]
    sources: dict[str, Source] = {}
    for stage in config.stages:
        if not stage.cohort:
            continue
        cohort = Cohort.read(folder / stage.cohort)
        columns = [stage.picture] if stage.picture else image_columns(config)
        beside = [] if stage.picture else needed
        for name in (*columns, *beside, *stage.columns, *filter(None, [stage.column])):
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
            c: [(look.facts.sha256,) for look, good in zip(looks[c], readable, strict=True) if good and look.facts]
            for c in columns
        }
        cohort = cohort.select([c for c, good in zip(cohort.case.tolist(), readable, strict=True) if good])
        shared = [h for values in hashes.values() for (h,) in values if h in own_hashes]
        if shared:
            raise AuditError(
                f"{len(shared)} pictures of stage '{stage.name}' are also pictures of the study's own patients",
                expected="a source cohort that shares no patient with the patients to be tested on",
                do=f"take them out of {stage.cohort}",
            )
        connectomes = {} if stage.picture else connectomes_of(config, cohort)
        _refuse_shared_connectomes(stage.name, stage.cohort, own_cohort, cohort, own_connectomes, connectomes)
        sources[stage.name] = Source(cohort, hashes, connectomes)
    return sources


def _refuse_shared_connectomes(
    stage: str,
    file: str,
    own: Cohort,
    other: Cohort,
    of_own: Mapping[str, Connectomes],
    of_other: Mapping[str, Connectomes],
) -> None:
    """Refuse a subject who is in both cohorts, by identifier or by connectome."""
    if not of_other:
        return
    shared = sorted(set(own.patient.tolist()) & set(other.patient.tolist()))
    if shared:
        raise AuditError(
            f"{len(shared)} subjects of stage '{stage}' are also patients of the study, {shared[0]} among them",
            expected="a source cohort that shares no patient with the patients to be tested on",
            do=f"take them out of {file}; where an identifier means another person there, give it a prefix",
        )
    for name, mine in of_own.items():
        if mine.reading.regions != of_other[name].reading.regions:
            raise AuditError(
                f"stage '{stage}' has {len(of_other[name].reading.regions)} regions, the study's own connectomes "
                f"{len(mine.reading.regions)}, or they bear other names",
                expected="one atlas in all stages, regions in the same order",
                where=file,
            )
        n = len(mine.reading)
        for i, j in identical(np.concatenate([mine.reading.matrices, of_other[name].reading.matrices])):
            if i < n <= j:
                raise AuditError(
                    f"patient {own.patient[i]} and subject {other.patient[j - n]} of stage '{stage}' have the same "
                    "connectome",
                    expected="a source cohort that shares no patient with the patients to be tested on",
                    do=f"take that subject out of {file}",
                )


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
            for own_pictures in cohort.pictures(column)
            for path in own_pictures
            if own_hashes and path.is_file() and _sha256(path) in own_hashes
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


def hashes_by_column(found: Audit, cohort: Cohort, columns: Sequence[str]) -> dict[str, list[tuple[str, ...]]]:
    """SHA-256 of every case's pictures, by column, in the order of the cohort; () where a case has none."""
    known: dict[tuple[str, str], list[str]] = {}
    for row in found.facts.itertuples():
        known.setdefault((str(row.column), str(row.case)), []).append(str(row.sha256))
    return {column: [tuple(known.get((column, case), ())) for case in cohort.case.tolist()] for column in columns}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
