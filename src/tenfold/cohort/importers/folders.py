"""A folder a class, and a pattern that finds the patient in a file's name -> a cohort.

It must not know any data set in particular.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tenfold.cohort.importers.common import (
    Film,
    Imported,
    build,
    check_out,
    note,
    other_files,
    pictures_in,
    require_folder,
    subfolders,
)
from tenfold.errors import CohortError


def import_folders(
    source: Path, out: Path, *, patient: str, target: str | Sequence[str] = "outcome", hardlink: bool = False
) -> Imported:
    r"""Import pictures that lie in one folder a class.

    Args:
        source: The folder that holds the class folders.
        out: The folder to make.
        patient: A regular expression, searched in the file name without its ending, with a group `patient`:
            `(?P<patient>[^_]+)_` takes what stands before the first underscore.
        target: The column that the class goes to.
        hardlink: Link the pictures instead of copying them.

    Returns:
        The cohort with the folder's name in `target`.

    Raises:
        CohortError: There are no class folders, the pattern is wrong, or a file name does not fit it.
        OutputError: `out` holds something, or cannot be written to.
    """
    require_folder(source)
    check_out(out)
    pattern = _pattern(patient)
    if not isinstance(target, str):
        raise CohortError(f"{len(target)} outcomes", expected="one: the folders are its classes")
    if target in ("case", "patient", "film", "site", "date"):
        raise CohortError(f"the outcome cannot go to the column '{target}'", do="choose another name")
    folders = subfolders(source)
    if not folders:
        raise CohortError("there are no folders inside", expected="one folder a class", where=str(source))
    films = [
        Film(
            {
                "case": f"{folder.name}-{path.stem}",
                "patient": _patient(path, pattern),
                target: folder.name.strip(),
            },
            f"{folder.name}/{path.name}",
            path,
        )
        for folder in folders
        for path in pictures_in(folder)
    ]
    cohort = build(films, ["case", "patient", "film", target], out, hardlink=hardlink)
    patients = len({film.values["patient"] for film in films})
    notes = [note("patients", f"{len(films)} pictures of {patients} patients."), *other_files(folders)]
    if patients == len(films):
        message = "Every picture has a patient of its own. If that is not so, the pattern takes in too much."
        notes.append(note("patients", message))
    classes = sorted(folder.name.strip() for folder in folders)
    return Imported(cohort, tuple(notes), {"target": target, "classes": classes})


def _pattern(text: str) -> re.Pattern[str]:
    """The compiled pattern, its group checked."""
    example = r"a regular expression such as (?P<patient>[^_]+)_"
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise CohortError(f"the pattern '{text}' is wrong: {error}", expected=example) from error
    if "patient" not in pattern.groupindex:
        raise CohortError(f"the pattern '{text}' has no group called patient", expected=example)
    return pattern


def _patient(path: Path, pattern: re.Pattern[str]) -> str:
    """The patient in a file's name."""
    match = pattern.search(path.stem)
    if match is None or not (match["patient"] or "").strip():
        raise CohortError(
            f"the pattern '{pattern.pattern}' finds no patient in '{path.name}'",
            do="correct the pattern, or remove the file",
            where=str(path),
        )
    return match["patient"].strip()
