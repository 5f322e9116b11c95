"""Resting-state connectomes of ABIDE I preprocessed (Di Martino et al. 2014; Craddock et al. 2013) -> a cohort.

It must not know how the connectomes are used. Two layouts: `connectomes.npz` beside `phenotype.csv`, and the
preprocessed initiative's own folder of `*_rois_ATLAS.1D` time courses beside `Phenotypic_V1_0b_preprocessed1.csv`.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tenfold.cohort.importers.common import (
    CONNECTOMES,
    Film,
    Imported,
    array_file,
    build,
    check_out,
    note,
    require_folder,
)
from tenfold.errors import CohortError, nearest
from tenfold.modalities.connectome import REGIONS_FILE, matrix_of, numbered, read_connectome
from tenfold.modalities.table import Column
from tenfold.types import Finding

_ARRAYS, _TABLES = "connectomes.npz", ("phenotype.csv", "Phenotypic_V1_0b_preprocessed1.csv")
_SERIES = re.compile(r"(?P<scan>.+)_(?P<subject>\d{7})_rois_(?P<atlas>[A-Za-z0-9]+)\.1D")
_DIAGNOSIS = {"1": "autism", "2": "control"}
_WORDS = {
    "sex": ("SEX", {"1": "male", "2": "female"}),
    "handedness": ("HANDEDNESS_CATEGORY", {"R": "right", "L": "left", "Ambi": "both", "Mixed": "both"}),
    "eyes": ("EYE_STATUS_AT_SCAN", {"1": "open", "2": "closed"}),
}
_NUMBERS = {
    "age": Column("age", "Age at scan", unit="a", low=5, high=70),
    "motion": Column("motion", "Head motion, mean framewise displacement", unit="mm", low=0, high=3),
    "fiq": Column("fiq", "Full-scale IQ", low=40, high=160),
    "viq": Column("viq", "Verbal IQ", low=40, high=180),
    "piq": Column("piq", "Performance IQ", low=40, high=160),
    "ados": Column("ados", "ADOS total, part of the diagnosis", low=0, high=30),
}
_HEADINGS = {
    "age": "AGE_AT_SCAN",
    "motion": "func_mean_fd",
    "fiq": "FIQ",
    "viq": "VIQ",
    "piq": "PIQ",
    "ados": "ADOS_TOTAL",
}
_MISSING = ("", "-9999", "-9999.0", "-999", "-999.0", "NA", "nan", "`")
# the initiative's own numbers of its Harvard-Oxford regions; 3455 is a sliver that many scans did not cover
_HARVARD_OXFORD = (
    *("10", "11", "12", "13", "17", "18", "26", "49", "50", "51", "52", "53", "54", "58"),
    *(code for k in range(1, 49) for code in (f"{k}01", f"{k}02", *(("3455",) if k == 34 else ()))),
)


def import_abide(
    source: Path,
    out: Path,
    *,
    atlas: str = "",
    measure: Literal["correlation", "partial correlation"] = "correlation",
    hardlink: bool = False,
) -> Imported:
    """Import the connectomes of people with autism and of controls.

    Time courses become matrices here (`connectivity.connect`, which needs nilearn); a matrix per case is written as
    float32 .npy, before Fisher's z. The arrays in circulation were made in just this way, shrunk correlations of time
    courses, so that a bundle fitted on one layout may be given the other.

    Args:
        source: The folder of either layout; time courses may lie in folders below.
        out: The folder to make.
        atlas: Of the initiative's layout, where time courses of several atlases lie there: "ho", "aal", "cc200" ...
        measure: What is made of time courses.
        hardlink: Without effect: every connectome is written anew.

    Returns:
        The cohort with `connectome`, `diagnosis` (control, autism), `site`, age, sex, motion and what else is known;
        and `regions.csv`.

    Raises:
        CohortError: The source is of neither layout, or a row, name or file is wrong.
        OutputError: `out` holds something, or cannot be written to.
    """
    require_folder(source)
    check_out(out)
    table = next((source / name for name in _TABLES if (source / name).is_file()), None)
    if table is None:
        came = f"there is neither {' nor '.join(_TABLES)} here"
        raise CohortError(came, expected="the table of the subjects beside their connectomes", where=str(source))
    people = _people(table)
    if (source / _ARRAYS).is_file():
        if atlas or measure != "correlation":
            came = f"an {'atlas' if atlas else 'measure'} was named, but {_ARRAYS} holds correlations of one atlas"
            raise CohortError(came, do="leave it out, or import the time courses", where=str(source))
        matrices, regions = _from_arrays(source / _ARRAYS)
    else:
        matrices, regions = _from_series(source, atlas, measure)
    unknown = [subject for subject in matrices if subject not in people]
    if unknown:
        came = f"{len(unknown)} connectomes of subjects that the table does not list, the first of {unknown[0]}"
        raise CohortError(came, expected=f"a row for every connectome in {table.name}", where=str(source))
    films = [_film(subject, people[subject], matrix, table.name) for subject, matrix in matrices.items()]
    columns = [name for name in _COLUMNS if name == "connectome" or any(film.values.get(name) for film in films)]
    dictionary = [column for column in _dictionary() if column.name in columns]
    cohort = build(films, columns, out, column="connectome", dictionary=dictionary, folder=CONNECTOMES, regions=regions)
    study = {
        "target": "diagnosis",
        "classes": ["control", "autism"],
        "positive": "autism",
        "tables": {},
        "connectomes": {
            "connectome": {
                "column": "connectome",
                "regions": REGIONS_FILE,
                "harmonise": "site",
                "confounds": [name for name in ("age", "sex", "motion") if name in columns],
            }
        },
    }
    return Imported(cohort, tuple(_notes(films, len(people) - len(films), matrices, regions)), study)


_COLUMNS = (
    *("case", "patient", "site", "connectome", "diagnosis", "age", "sex", "motion"),
    *("fiq", "viq", "piq", "handedness", "eyes", "ados"),
)
_Matrices = dict[str, NDArray[np.float32]]


def _people(table: Path) -> dict[str, dict[str, str]]:
    """Subject -> its cells, empty where nothing is known; the initiative's table has columns without a name."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as handle:
            records = list(csv.reader(handle))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CohortError(f"the table cannot be read: {error}", expected="CSV in UTF-8", where=table.name) from error
    header = records[0] if records else []
    for name in ("SUB_ID", "SITE_ID", "DX_GROUP"):
        if name not in header:
            raise CohortError(f"there is no column '{name}'", do=nearest(name, header), where=table.name)
    people: dict[str, dict[str, str]] = {}
    for number, record in enumerate(records[1:], start=2):
        if not any(record):
            continue
        where = f"{table.name}, row {number}"
        if len(record) != len(header):
            raise CohortError(f"{len(record)} cells under {len(header)} columns", where=where)
        cells = {
            name: "" if cell.strip() in _MISSING else cell.strip() for name, cell in zip(header, record, strict=True)
        }
        subject = cells["SUB_ID"]
        if not subject.isdigit():
            raise CohortError(f"'{subject}' is no subject", expected="a number", where=f"{where}, column SUB_ID")
        subject = str(int(subject))
        if subject in people:
            raise CohortError(f"subject {subject} has two rows", expected="one row a subject", where=where)
        people[subject] = {**cells, "row": str(number)}
    return people


def _from_arrays(path: Path) -> tuple[_Matrices, tuple[str, ...]]:
    """Subject -> matrix, from the upper triangles of all."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            edges, subjects = np.asarray(arrays["edges"]), np.asarray(arrays["subject"])
    except (OSError, ValueError, KeyError, EOFError) as error:
        expected = "the arrays edges (subjects, edges) and subject"
        raise CohortError(f"the archive cannot be read: {error}", expected=expected, where=path.name) from error
    if edges.ndim != 2 or edges.dtype.kind != "f" or subjects.shape != (len(edges),):
        came = f"edges {edges.dtype} {edges.shape}, subject {subjects.shape}"
        raise CohortError(came, expected="real edges (subjects, edges) and as many subjects", where=path.name)
    names = [str(subject) for subject in subjects.tolist()]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise CohortError(f"subject {twice[0]} stands there twice", expected="one connectome each", where=path.name)
    matrices = matrix_of(edges.astype(np.float32), diagonal=1.0)
    count = matrices.shape[1]
    regions = _HARVARD_OXFORD if count == len(_HARVARD_OXFORD) else numbered(count)
    return dict(zip(names, matrices, strict=True)), regions


def _from_series(
    source: Path, atlas: str, measure: Literal["correlation", "partial correlation"]
) -> tuple[_Matrices, tuple[str, ...]]:
    """Subject -> matrix, from the time courses of one atlas."""
    found = [(path, match) for path in sorted(source.rglob("*.1D")) if (match := _SERIES.fullmatch(path.name))]
    atlases = sorted({match["atlas"] for _, match in found})
    if not found:
        expected = f"{_ARRAYS}, or time courses named SITE_0050003_rois_ho.1D"
        raise CohortError("there are no connectomes here", expected=expected, where=str(source))
    if atlas not in (*atlases, "") or (not atlas and len(atlases) > 1):
        came = f"there are no time courses of '{atlas}'" if atlas else f"{len(atlases)} atlases"
        raise CohortError(came, expected=f"one of {', '.join(atlases)}", do="name it with atlas", where=str(source))
    matrices: _Matrices = {}
    regions: tuple[str, ...] = ()
    for path, match in found:
        if match["atlas"] != (atlas or atlases[0]):
            continue
        subject = str(int(match["subject"]))
        if subject in matrices:
            raise CohortError(f"subject {subject} has two files", expected="one scan a subject", where=path.name)
        # the names of the first file are expected of all others
        where = f"subject {subject}"
        matrix, names = read_connectome(path, holds="timeseries", measure=measure, regions=regions, where=where)
        regions = regions or names or numbered(len(matrix))
        matrices[subject] = matrix
    return matrices, regions


def _film(subject: str, cells: Mapping[str, str], matrix: NDArray[np.float32], table: str) -> Film:
    """One subject."""
    where = f"{table}, row {cells['row']}"
    values = {"case": subject, "patient": f"ABIDE-{subject}", "site": cells["SITE_ID"]}
    values["diagnosis"] = _word(cells["DX_GROUP"], _DIAGNOSIS, f"{where}, column DX_GROUP")
    for name, (heading, words) in _WORDS.items():
        values[name] = _word(cells.get(heading, ""), words, f"{where}, column {heading}")
    values |= {name: cells.get(heading, "") for name, heading in _HEADINGS.items()}
    return Film(values, f"{subject}.npy", array_file(matrix))


def _word(cell: str, words: Mapping[str, str], where: str) -> str:
    """What a code means, empty where it is unknown."""
    if cell and cell not in words:
        expected = ", ".join(f"{code} ({word})" for code, word in words.items())
        raise CohortError(f"'{cell}' is no code", expected=expected, where=where)
    return words.get(cell, "")


def _dictionary() -> Iterator[Column]:
    """What the columns mean."""
    yield from _NUMBERS.values()
    for name, (_, words) in _WORDS.items():
        yield Column(name, name.capitalize(), "category", levels=tuple(dict.fromkeys(words.values())))


def _notes(films: Sequence[Film], absent: int, matrices: _Matrices, regions: Sequence[str]) -> Iterator[Finding]:
    """What the owner of the cohort should know."""
    sites = Counter(film.values["site"] for film in films)
    ill = sum(film.values["diagnosis"] == "autism" for film in films)
    message = (
        f"{len(films)} subjects of {len(sites)} sites, {ill} with autism; {len(regions)} regions, "
        f"{len(regions) * (len(regions) - 1) // 2:,} edges. The data are for non-commercial research (CC BY-NC-SA)."
    )
    yield note("patients", message)
    if absent:
        yield note("not_imported", f"{absent} subjects of the table have no connectome here and were left out.")
    silent = Counter(
        regions[k] for matrix in matrices.values() for k in np.flatnonzero(np.abs(matrix).sum(axis=1) == 1).tolist()
    )
    if silent:
        said = ", ".join(f"{name} ({count})" for name, count in silent.most_common(8))
        message = f"Regions without signal in some subjects, whose edges count as not measured there: {said}."
        yield Finding("warning", "silent_region", message)
    message = (
        "Site, age, sex and head motion carry signal of their own: harmonise or regress them inside the folds, and "
        "look at the results of each site. ADOS is part of the diagnosis: it stands in the cohort file but is no input."
    )
    yield note("inputs", message)
