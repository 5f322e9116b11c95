"""BIDS derivatives: time courses or matrices of connectivity of each subject, beside participants.tsv -> a cohort.

It must not know which pipeline made them (XCP-D, fMRIPrep with nilearn, giga_connectome ...) nor how they are used.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from tenfold.cohort.describe import is_number
from tenfold.cohort.importers.common import (
    CONNECTOMES,
    Film,
    Imported,
    array_file,
    build,
    check_out,
    note,
    outcomes,
    read_csv,
    require_folder,
)
from tenfold.cohort.importers.table import guess_column
from tenfold.cohort.manifest import RESERVED
from tenfold.errors import CohortError, nearest
from tenfold.modalities.connectome import REGIONS_FILE, numbered, read_connectome
from tenfold.types import Finding

_PEOPLE = "participants.tsv"
_SERIES, _MATRIX = "timeseries", "matrix"
_KINDS = {"timeseries": _SERIES, "relmat": _MATRIX, "connectivity": _MATRIX, "connectivitymatrix": _MATRIX}
_ENTITY = re.compile(r"[A-Za-z0-9]+-[A-Za-z0-9+.]+")
_NOT_REGIONS = ("confounds", "motion", "outliers")
_MISSING = ("n/a", "na", "nan")
_CHOICES = ("atlas", "seg", "task", "desc", "space", "res", "den", "meas", "measure", "stat")


@dataclass(frozen=True)
class _Found:
    """One file of one subject, its name taken apart."""

    path: Path
    holds: str
    entities: Mapping[str, str]


def import_bids(
    source: Path,
    out: Path,
    *,
    target: str | Sequence[str] = "",
    atlas: str = "",
    task: str = "",
    holds: str = "",
    measure: Literal["correlation", "partial correlation"] = "correlation",
    hardlink: bool = False,
) -> Imported:
    """Import `sub-*/[ses-*/]func/*_timeseries.tsv`, `*_relmat.tsv` or `*connectivity*.tsv`.

    One file is one case: `sub-01_ses-2_run-1`; the subject is the patient. Confounds of fMRIPrep
    (`*_desc-confounds_timeseries.tsv`) are not regions: they give the mean framewise displacement, as `motion`.

    Args:
        source: The folder of derivatives; participants.tsv lies in it, or in one of the three folders above.
        out: The folder to make.
        target: The column of participants.tsv that holds the outcome, of two words or a score; or several.
        atlas: The entity atlas- or seg-, where files of several atlases lie there.
        task: The entity task-, likewise.
        holds: "timeseries" or "matrix", where both lie there.
        measure: What is made of time courses (needs nilearn).
        hardlink: Without effect: every connectome is written anew.

    Returns:
        The cohort with `connectome`, `session`, and the columns of participants.tsv; and `regions.csv`.

    Raises:
        CohortError: There is no such file, several kinds of them, a subject is not in participants.tsv, or a file is
            wrong or of another atlas.
        OutputError: `out` holds something, or cannot be written to.
    """
    require_folder(source)
    check_out(out)
    found = _chosen(_files(source), {"atlas": atlas, "task": task, "holds": holds}, source)
    if found[0].holds == _MATRIX and measure != "correlation":
        came = f"the files are matrices, of which no {measure} is made"
        raise CohortError(came, do="leave measure out, or choose the time courses", where=str(source))
    table, people = _people(source)
    header = next(iter(people.values()))
    unlisted = sorted({f"sub-{one.entities['sub']}" for one in found} - set(people))
    if unlisted:
        came = f"{unlisted[0]} and {len(unlisted) - 1} more subjects with a connectome are not listed"
        raise CohortError(came, expected="a row for every subject", where=table.name)
    taken = {f"sub-{one.entities['sub']}" for one in found}
    rows = [row for name, row in people.items() if name in taken]
    asked = outcomes(rows, target, [n for n in header if n not in RESERVED], table.name)
    films, regions = _films(found, people, measure, _motion(source))
    columns = list(dict.fromkeys(["case", "patient", *(["site"] if "site" in header else []), "connectome"]))
    columns += [name for name in dict.fromkeys(n for film in films for n in film.values) if name not in columns]
    answers = [target] if isinstance(target, str) else target
    measured = [name for name in columns if name not in (*RESERVED, *answers, "connectome", "session")]
    guessed = (guess_column(n, [v for f in films if (v := f.values.get(n, ""))]) for n in measured)
    dictionary = [column for column in guessed if column is not None]
    cohort = build(films, columns, out, column="connectome", dictionary=dictionary, folder=CONNECTOMES, regions=regions)
    study = {
        **asked,
        "tables": {},
        "connectomes": {
            "connectome": {
                "column": "connectome",
                "regions": REGIONS_FILE,
                "harmonise": "site" if len({film.values.get("site", "") for film in films} - {""}) > 1 else "",
                "confounds": [name for name in ("age", "sex", "motion") if name in columns],
            }
        },
    }
    notes = _notes(films, len(people) - len(taken), regions, found[0].holds, bool(dictionary))
    return Imported(cohort, tuple(notes), study)


def _files(source: Path) -> Iterator[_Found]:
    """Every file of regions, its name taken apart."""
    for path in sorted([*source.glob("sub-*/func/*.tsv"), *source.glob("sub-*/ses-*/func/*.tsv")]):
        *pairs, suffix = path.name.removesuffix(".tsv").split("_")
        entities = dict(pair.split("-", 1) for pair in pairs if _ENTITY.fullmatch(pair))
        kind = _KINDS.get(suffix.lower()) or (_MATRIX if "connectivity" in path.name.lower() else "")
        if kind and "sub" in entities and entities.get("desc", "") not in _NOT_REGIONS:
            yield _Found(path, kind, entities)


def _chosen(files: Iterator[_Found], asked: Mapping[str, str], source: Path) -> list[_Found]:
    """The files that are meant: of one kind, one atlas, one task, one way of processing."""
    found = list(files)
    if not found:
        expected = "sub-*/[ses-*/]func/*_timeseries.tsv, *_relmat.tsv or *connectivity*.tsv"
        raise CohortError("there are no connectomes here", expected=expected, where=str(source))
    for name, wanted in asked.items():
        there = sorted({_entity(one, name) for one in found})
        if wanted:
            found = [one for one in found if _entity(one, name) == wanted]
            if not found:
                raise CohortError(f"no file is of {name} '{wanted}'", do=nearest(wanted, there), where=str(source))
        elif len(there) > 1 and name != "task":
            said = ", ".join(value or "none" for value in there)
            raise CohortError(f"files of several {name}: {said}", do=f"choose with {name}", where=str(source))
    cases = Counter(_case(one) for one in found)
    case, count = cases.most_common(1)[0]
    if count > 1:
        several = [one.path.name for one in found if _case(one) == case]
        came = f"{count} files of {case}: {', '.join(several[:4])}"
        do = "choose with task or atlas, or move those of other processing away"
        raise CohortError(came, expected="one file a subject, session and run", do=do, where=str(source))
    return found


def _entity(one: _Found, name: str) -> str:
    """What a file's name says of its kind, atlas or task."""
    if name == "holds":
        return one.holds
    return one.entities.get(name) or (one.entities.get("seg", "") if name == "atlas" else "")


def _case(one: _Found) -> str:
    """Subject, session, run and what else tells examinations apart; not how they were processed."""
    return "_".join(f"{k}-{v}" for k, v in one.entities.items() if k not in _CHOICES)


def _people(source: Path) -> tuple[Path, dict[str, dict[str, str]]]:
    """participants.tsv: subject -> its cells, n/a emptied."""
    place = source.resolve()
    table = next((p / _PEOPLE for p in (place, *list(place.parents)[:3]) if (p / _PEOPLE).is_file()), None)
    if table is None:
        raise CohortError(f"there is no {_PEOPLE}", expected="it here, or in a folder above", where=str(source))
    header, rows = read_csv(table)
    if "participant_id" not in header:
        raise CohortError("there is no column 'participant_id'", do=nearest("participant_id", header), where=_PEOPLE)
    people: dict[str, dict[str, str]] = {}
    for number, row in rows:
        cells = {name: "" if cell.lower() in _MISSING else cell for name, cell in row.items()}
        name = cells.pop("participant_id")
        name = name if name.startswith("sub-") else f"sub-{name}"
        if name in people:
            raise CohortError(f"{name} has two rows", expected="one row a subject", where=f"{_PEOPLE}, row {number}")
        people[name] = cells
    taken = [name for name in header if name in ("case", "patient", "connectome", "session")]
    if taken:
        raise CohortError(f"the column '{taken[0]}' has a name of ours", do="rename it", where=_PEOPLE)
    return table, people


def _films(
    found: Sequence[_Found],
    people: Mapping[str, Mapping[str, str]],
    measure: Literal["correlation", "partial correlation"],
    motion: Mapping[str, float],
) -> tuple[list[Film], tuple[str, ...]]:
    """One film a file, all of one atlas."""
    films: list[Film] = []
    regions: tuple[str, ...] = ()
    for one in found:
        subject = f"sub-{one.entities['sub']}"
        holds: Literal["timeseries", "matrix"] = "timeseries" if one.holds == _SERIES else "matrix"
        matrix, names = read_connectome(one.path, holds=holds, measure=measure, regions=regions, where=subject)
        regions = regions or names or numbered(len(matrix))
        case = _case(one)
        values = {"case": case, "patient": subject, "session": one.entities.get("ses", ""), **people[subject]}
        if motion and "motion" not in people[subject]:
            figure = motion.get(_scan(one.path))
            values["motion"] = "" if figure is None else f"{figure:.6g}"
        films.append(Film(values, f"{case}.npy", array_file(matrix)))
    if not any(film.values["session"] for film in films):
        films = [Film({k: v for k, v in f.values.items() if k != "session"}, f.name, f.picture) for f in films]
    return films, regions


def _scan(path: Path) -> str:
    """Subject, session, task and run of a file: what it shares with the confounds of its scan."""
    parts = path.name.split("_")
    return "_".join(part for part in parts if part.split("-")[0] in ("sub", "ses", "task", "acq", "run"))


def _motion(source: Path) -> dict[str, float]:
    """Scan -> mean framewise displacement in millimetres, of fMRIPrep's confounds."""
    found: dict[str, float] = {}
    for pattern in ("sub-*/func/", "sub-*/ses-*/func/"):
        for path in sorted(source.glob(f"{pattern}*_desc-confounds_timeseries.tsv")):
            header, rows = read_csv(path)
            if "framewise_displacement" in header:
                # the first scan has none to be displaced from
                cells = [row["framewise_displacement"] for _, row in rows]
                figures = [float(cell) for cell in cells if is_number(cell)]
                if figures:
                    found[_scan(path)] = float(np.mean(figures))
    return found


def _notes(
    films: Sequence[Film], absent: int, regions: Sequence[str], holds: str, dictionary: bool
) -> Iterator[Finding]:
    """What the owner of the cohort should know."""
    patients = len({film.values["patient"] for film in films})
    yield note("patients", f"{len(films)} connectomes of {patients} subjects, {len(regions)} regions.")
    if holds == _SERIES:
        yield note("connectivity", "Time courses became correlations, shrunk as nilearn does by default.")
    if absent:
        yield note("not_imported", f"{absent} subjects of {_PEOPLE} have no connectome here and were left out.")
    if not any(film.values.get("site") for film in films):
        yield note("site", "Nothing says which scanner or hospital a subject was at: a column 'site' would.")
    if not any(film.values.get("motion") for film in films):
        yield note("motion", "Nothing says how much a subject moved: no column 'motion', no confounds of fMRIPrep.")
    if dictionary:
        message = (
            "columns.csv was made from the cells: check every kind, write units in, and take out what is no input."
        )
        yield Finding("warning", "dictionary", message)
