"""Divides patients into folds, inner parts and a hold-out: never a patient on both sides.

It must not know pictures, nor what is fitted on the parts.
"""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from tenfold.cohort.manifest import Cohort
from tenfold.errors import SplitError
from tenfold.types import Split, StrArray, write_atomically

PARTS = ("train", "inner", "test", "holdout")
_COLUMNS = ("case", "patient", "repeat", "fold", "part")


@dataclass(frozen=True)
class _Unit:
    """What is never divided: a patient, a group of patients, or a site."""

    name: str
    cases: tuple[str, ...]
    classes: tuple[str, ...]


def make_splits(
    cohort: Cohort,
    *labels: Sequence[str] | StrArray,
    folds: int = 10,
    repeats: int = 1,
    inner: float = 0.15,
    holdout: float = 0.0,
    by: Literal["patient", "site"] = "patient",
    leave_one_site_out: bool = False,
    groups: Mapping[str, str] | None = None,
    seed: int,
) -> tuple[tuple[str, ...], tuple[Split, ...]]:
    """Divide a cohort for cross-validation; the order of its rows does not matter.

    Patients are sorted into strata by the outcomes they have, of all targets together. Each stratum is dealt
    out, patients with most cases first, so that folds differ by one patient a stratum at most and hardly in cases.

    Args:
        cohort: The examinations to divide, each with a known outcome of one target at least.
        *labels: For each target, (n,) class of each case, empty where it is unknown.
        folds: How many; with `leave_one_site_out` there are as many as sites.
        repeats: How many times, each with patients dealt anew.
        inner: Share of the patients outside the test fold on whom decisions are made.
        holdout: Share of the patients kept aside before anything else.
        by: What test folds and hold-out never divide; the inner part is always drawn by patient.
        leave_one_site_out: Every site is the test fold once.
        groups: Patient -> group, for patients who must stay together.
        seed: Same seed, same splits.

    Returns:
        The hold-out's cases, and one split a repeat and fold, all in the order of the cohort.

    Raises:
        SplitError: The patients do not suffice, or a patient was seen at two sites that must be kept apart.
    """
    _check_numbers(folds, repeats, inner, holdout, seed)
    label_of = _outcomes(cohort, labels)
    group_of = _groups(cohort, groups or {})
    outer_of = _sites(cohort, group_of) if by == "site" or leave_one_site_out else group_of
    rng = np.random.default_rng([seed, 0])
    aside = _draw(_units(cohort.case.tolist(), outer_of, label_of), holdout, rng) if holdout else set()
    rest = [case for case in cohort.case.tolist() if case not in aside]
    units = _units(rest, outer_of, label_of)
    classes = sorted({outcome for found in label_of.values() for outcome in found})
    if leave_one_site_out:
        folds = len(units)
    _check_enough(units, classes, folds, outer="site" if outer_of is not group_of else "patient")
    splits = []
    for repeat in range(repeats):
        fold_of = _deal(units, folds, np.random.default_rng([seed, 1, repeat]), in_order=leave_one_site_out)
        for fold in range(folds):
            test = {case for unit in units if fold_of[unit.name] == fold for case in unit.cases}
            remaining = _units([case for case in rest if case not in test], group_of, label_of)
            chosen = _draw(remaining, inner, np.random.default_rng([seed, 2, repeat, fold]))
            splits.append(_split(repeat, fold, rest, test, chosen))
            _check_classes(splits[-1], label_of, classes, len(set(group_of.values())), units)
    held_out = tuple(case for case in cohort.case.tolist() if case in aside)
    if held_out and {outcome for case in held_out for outcome in label_of[case]} != set(classes):
        raise SplitError("the hold-out lacks a class", do="make the hold-out larger, or leave it out")
    verify_disjoint(splits, patient_of=group_of, holdout=held_out)
    return held_out, tuple(splits)


def patients_needed(folds: int) -> int:
    """How many patients of a class so many folds need: one in each test fold, always two outside it."""
    return max(folds, 4)


def folds_possible(patients: int) -> int:
    """The largest number of folds that so many patients of the rarer class allow; 0 where there is none."""
    return patients if patients >= patients_needed(2) else 0


def verify_disjoint(splits: Iterable[Split], *, patient_of: Mapping[str, str], holdout: Sequence[str] = ()) -> None:
    """Check that nobody is on two sides of any split.

    Args:
        splits: The splits.
        patient_of: Case -> patient, or the group whose patients must stay together.
        holdout: Cases kept aside, in no split.

    Raises:
        SplitError: A patient is in two parts; patient and fold are named.
    """
    for split in splits:
        owner: dict[str, str] = {}
        parts = (("train", split.train), ("inner", split.inner), ("test", split.test), ("holdout", holdout))
        for part, cases in parts:
            for case in cases:
                patient = patient_of[case]
                if owner.setdefault(patient, part) != part:
                    raise SplitError(
                        f"patient {patient} is both in {owner[patient]} and in {part}",
                        expected="every patient on one side only",
                        where=f"repeat {split.repeat}, fold {split.fold}, case {case}",
                    )


def write_splits(path: Path, cohort: Cohort, holdout: Sequence[str], splits: Sequence[Split]) -> None:
    """Write splits as CSV: case, patient, repeat, fold, part; repeat and fold are empty for the hold-out.

    Raises:
        OutputError: The place cannot be written to.
    """
    patient_of = dict(zip(cohort.case.tolist(), cohort.patient.tolist(), strict=True))
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(_COLUMNS)
    out.writerows((case, patient_of[case], "", "", "holdout") for case in holdout)
    for split in splits:
        for part in ("train", "inner", "test"):
            for case in getattr(split, part):
                out.writerow((case, patient_of[case], split.repeat, split.fold, part))
    write_atomically(path, text.getvalue())


def read_splits(path: Path, cohort: Cohort | None = None) -> tuple[tuple[str, ...], tuple[Split, ...]]:
    """Read what `write_splits` wrote, and check it again: a file may have been edited.

    Args:
        path: The file.
        cohort: The cohort it divides; with it, every case and its patient are compared.

    Returns:
        The hold-out's cases, and the splits by repeat and fold.

    Raises:
        SplitError: A column, a number or a part is wrong, a case stands twice in a fold, differs from the
            cohort, or a patient is on two sides; the row is named.
    """
    rows = _split_rows(path)
    known = dict(zip(cohort.case.tolist(), cohort.patient.tolist(), strict=True)) if cohort else {}
    patient_of: dict[str, str] = {}
    holdout: list[str] = []
    members: dict[tuple[int, int], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    seen: set[tuple[str, str, str]] = set()
    for number, (case, patient, repeat, fold, part) in enumerate(rows, start=2):
        where = f"{path.name}, row {number}, patient {patient}"
        if part not in PARTS:
            raise SplitError(f"'{part}' is no part", expected=f"one of {', '.join(PARTS)}", where=where)
        if cohort is not None and known.get(case) != patient:
            came = f"case {case} is of patient {known[case]}" if case in known else f"there is no case {case}"
            raise SplitError(f"{came} in the cohort", do="divide the cohort anew", where=where)
        if patient_of.setdefault(case, patient) != patient or (case, repeat, fold) in seen:
            raise SplitError(f"case {case} stands here a second time", expected="once a fold", where=where)
        seen.add((case, repeat, fold))
        if part == "holdout":
            holdout.append(case)
        elif repeat.isdecimal() and fold.isdecimal():
            members[int(repeat), int(fold)][part].append(case)
        else:
            raise SplitError(f"repeat '{repeat}', fold '{fold}'", expected="numbers from 0", where=where)
    splits = tuple(
        Split(repeat, fold, tuple(m["train"]), tuple(m["inner"]), tuple(m["test"]))
        for (repeat, fold), m in sorted(members.items())
    )
    verify_disjoint(splits, patient_of=patient_of, holdout=holdout)
    return tuple(holdout), splits


def _split_rows(path: Path) -> list[list[str]]:
    """The rows of a splits file, each of five cells."""
    try:
        with path.open(newline="", encoding="utf-8") as handle:
            rows = list(csv.reader(handle))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SplitError(f"the splits cannot be read: {error}", where=str(path)) from error
    if not rows or tuple(rows[0]) != _COLUMNS:
        raise SplitError("this is no splits file", expected=f"the columns {', '.join(_COLUMNS)}", where=str(path))
    for number, row in enumerate(rows, start=1):
        if len(row) != len(_COLUMNS):
            raise SplitError(f"{len(row)} cells", expected="five", where=f"{path.name}, row {number}")
    return rows[1:]


def _check_numbers(folds: int, repeats: int, inner: float, holdout: float, seed: int) -> None:
    """Refuse numbers that no cohort can satisfy."""
    wrong = (
        (folds < 2, f"folds = {folds}", "at least 2"),
        (repeats < 1, f"repeats = {repeats}", "at least 1"),
        (seed < 0, f"seed = {seed}", "0 or more"),
        (not 0 < inner < 1, f"inner = {inner}", "a share between 0 and 1"),
        (not 0 <= holdout < 1, f"holdout = {holdout}", "a share from 0 to below 1"),
    )
    for is_wrong, came, expected in wrong:
        if is_wrong:
            raise SplitError(came, expected=expected)


def _outcomes(cohort: Cohort, labels: Sequence[Sequence[str] | StrArray]) -> dict[str, tuple[str, ...]]:
    """Case -> its known outcomes; where there are several targets, an outcome bears the number of its own."""
    columns = [[str(value) for value in column] for column in labels]
    found: dict[str, tuple[str, ...]] = {}
    for column in columns:
        if len(column) != len(cohort):
            raise SplitError(f"{len(column)} outcomes", expected=f"one for each of the {len(cohort)} cases")
    for case, *values in zip(cohort.case.tolist(), *columns, strict=True):
        found[case] = tuple(
            f"{value} (target {k + 1})" if len(columns) > 1 else value for k, value in enumerate(values) if value
        )
    unknown = sum(not outcomes for outcomes in found.values())
    if unknown:
        raise SplitError(
            f"{unknown} cases have no outcome",
            expected=f"an outcome of one target at least for each of the {len(cohort)} cases",
            do="select the cases whose outcome is known before dividing them",
        )
    return found


def _groups(cohort: Cohort, groups: Mapping[str, str]) -> dict[str, str]:
    """Case -> the patient, or the group the patient was joined to."""
    pairs = zip(cohort.case.tolist(), cohort.patient.tolist(), strict=True)
    return {case: groups.get(patient, patient) for case, patient in pairs}


def _sites(cohort: Cohort, group_of: Mapping[str, str]) -> dict[str, str]:
    """Case -> site, refused where a site is unknown or a patient was seen at two."""
    home: dict[str, str] = {}
    sites = cohort.site.tolist()
    for i, (case, site) in enumerate(zip(cohort.case.tolist(), sites, strict=True)):
        if not site:
            raise SplitError("the site is not stated", expected="a site in every row", where=cohort.place(i, "site"))
        other = home.setdefault(group_of[case], site)
        if other != site:
            raise SplitError(
                f"the patient (or one who shares a picture) was seen at {other} and at {site}",
                expected="patients of one site each, so that sites can be kept apart",
                do="divide by patient, or leave out the examinations at one of the two sites",
                where=cohort.place(i, "site"),
            )
    if len(set(sites)) < 2:
        raise SplitError(f"there is one site only: {sites[0]}", expected="two sites at least", do="divide by patient")
    return dict(zip(cohort.case.tolist(), sites, strict=True))


def _units(cases: Iterable[str], unit_of: Mapping[str, str], label_of: Mapping[str, tuple[str, ...]]) -> list[_Unit]:
    """The units of some cases, by name, so that the order of the rows has no say."""
    members: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        members[unit_of[case]].append(case)
    return [
        _Unit(name, tuple(sorted(found)), tuple(sorted({outcome for case in found for outcome in label_of[case]})))
        for name, found in sorted(members.items())
    ]


def _strata(units: Sequence[_Unit], rng: np.random.Generator) -> list[list[_Unit]]:
    """Units by the outcomes they have, rarest stratum first; inside, most cases first, ties at random."""
    strata: dict[tuple[str, ...], list[_Unit]] = defaultdict(list)
    for unit in units:
        strata[unit.classes].append(unit)
    ordered = sorted(strata.values(), key=lambda stratum: (len(stratum), stratum[0].classes))
    return [
        sorted((stratum[i] for i in rng.permutation(len(stratum))), key=lambda unit: -len(unit.cases))
        for stratum in ordered
    ]


def _deal(units: Sequence[_Unit], folds: int, rng: np.random.Generator, *, in_order: bool) -> dict[str, int]:
    """Unit -> fold: it goes where its stratum, its rarest class, its cases are fewest, in this order."""
    if in_order:
        return {unit.name: fold for fold, unit in enumerate(units)}
    holders = Counter(name for unit in units for name in unit.classes)
    of_class: list[Counter[str]] = [Counter() for _ in range(folds)]
    cases = [0] * folds
    fold_of: dict[str, int] = {}
    for stratum in _strata(units, rng):
        taken, load, luck = [0] * folds, [0] * folds, rng.permutation(folds).tolist()
        rarest = min(stratum[0].classes, key=lambda name: (holders[name], name))
        for unit in stratum:
            rank = [(taken[f], of_class[f][rarest], load[f], cases[f], luck[f]) for f in range(folds)]
            fold = rank.index(min(rank))
            fold_of[unit.name] = fold
            taken[fold] += 1
            load[fold] += len(unit.cases)
            cases[fold] += len(unit.cases)
            of_class[fold].update(unit.classes)
    return fold_of


def _draw(units: Sequence[_Unit], share: float, rng: np.random.Generator) -> set[str]:
    """Cases of a stratified share of the units, every class among them.

    Within a stratum ordered by number of cases every k-th unit is taken, so that the share of the cases is
    close to that of the units.
    """
    strata = _strata(units, rng)
    counts = [round(share * len(stratum)) for stratum in strata]
    for name in sorted({name for unit in units for name in unit.classes}):
        holders = [i for i, stratum in enumerate(strata) if name in stratum[0].classes]
        if not any(counts[i] for i in holders):
            counts[max(holders, key=lambda i: len(strata[i]))] = 1
    chosen: set[str] = set()
    for stratum, count in zip(strata, counts, strict=True):
        if count:
            places = np.floor((rng.random() + np.arange(count)) * len(stratum) / count).astype(int)
            chosen.update(case for place in places.tolist() for case in stratum[place].cases)
    return chosen


def _split(repeat: int, fold: int, cases: Sequence[str], test: set[str], inner: set[str]) -> Split:
    return Split(
        repeat,
        fold,
        train=tuple(case for case in cases if case not in test and case not in inner),
        inner=tuple(case for case in cases if case in inner),
        test=tuple(case for case in cases if case in test),
    )


def _check_enough(units: Sequence[_Unit], classes: Sequence[str], folds: int, *, outer: str) -> None:
    """Refuse more folds than a class has units for."""
    if outer == "site":
        if folds > len(units):
            raise SplitError(
                f"{folds} folds of whole sites, but there are {len(units)} sites",
                do=f"ask for at most {len(units)} folds, or divide by patient",
            )
        return
    for name in classes:
        have = sum(name in unit.classes for unit in units)
        if have < patients_needed(folds):
            raise too_few(name, have, len(units), folds)


def too_few(name: str, have: int, patients: int, folds: int) -> SplitError:
    """The refusal that says how many patients there are, and how many folds would work."""
    possible = folds_possible(have)
    return SplitError(
        f"{have} of {patients} patients have the class '{name}', too few for {folds} folds",
        expected=f"at least {patients_needed(folds)} patients of each class",
        do=f"ask for {possible} folds or fewer" if possible else "collect more patients: not even 2 folds would work",
    )


def _check_classes(
    split: Split,
    label_of: Mapping[str, tuple[str, ...]],
    classes: Sequence[str],
    patients: int,
    units: Sequence[_Unit],
) -> None:
    """Refuse a split of which a part lacks a class."""
    for part in ("train", "inner", "test"):
        there = {outcome for case in getattr(split, part) for outcome in label_of[case]}
        for name in classes:
            if name not in there:
                have = sum(name in unit.classes for unit in units)
                raise SplitError(
                    f"the {part} part would hold no case of class '{name}' ({patients} patients in all; the "
                    f"class is in {have} of the {len(units)} units that stay together)",
                    expected="both classes in train, inner and test part",
                    do=f"ask for {folds_possible(have)} folds or fewer, or divide by patient",
                    where=f"repeat {split.repeat}, fold {split.fold}",
                )
