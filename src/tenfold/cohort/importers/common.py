"""What every importer does last: copy the pictures and write the cohort file, whole or not at all.

It must not know any layout.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tenfold.cohort.manifest import COHORT_FILE, PICTURE_SUFFIXES, write_cohort
from tenfold.errors import CohortError, OutputError
from tenfold.types import Finding

IMAGES = "images"
Picture = Path | Callable[[Path], None]


@dataclass(frozen=True)
class Imported:
    """What an importer made.

    Attributes:
        cohort: The cohort file.
        notes: What its owner should know.
        study: Suggested settings of a study: "target" (the column), "classes", "positive", and others that
            the layout knows of.
    """

    cohort: Path
    notes: tuple[Finding, ...] = ()
    study: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Film:
    """One examination to import.

    Attributes:
        values: Its cells, `case` and `patient` among them; `film` is filled in.
        name: Where its picture goes inside `images`.
        picture: The file to copy, or a function that writes the picture to a path.
    """

    values: Mapping[str, str]
    name: str
    picture: Picture


def note(check: str, message: str) -> Finding:
    """A note of an importer."""
    return Finding("note", check, message)


def build(films: Sequence[Film], columns: Sequence[str], out: Path, *, hardlink: bool = False) -> Path:
    """Write `images/` and the cohort file into a new folder, by way of a temporary neighbour.

    Args:
        films: The examinations.
        columns: The columns of the cohort file, `film` among them.
        out: The folder to make; it may exist if it is empty.
        hardlink: Link the pictures instead of copying them, on the same disk.

    Returns:
        The cohort file.

    Raises:
        CohortError: There is nothing to import, or two films have the same name.
        OutputError: The folder holds something, or cannot be written to.
    """
    if not films:
        raise CohortError("there is no picture to import", expected="at least one picture of this layout")
    check_out(out)
    _check_names(films)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    except OSError as error:
        raise _not_written(out, error) from error
    try:
        for film in films:
            _place(film.picture, temporary / IMAGES / film.name, hardlink=hardlink)
        rows = [{**film.values, "film": f"{IMAGES}/{film.name}"} for film in films]
        write_cohort(rows, columns, temporary / COHORT_FILE)
        temporary.chmod(0o755)
        if out.exists():
            out.rmdir()
        temporary.replace(out)
    except OSError as error:
        raise _not_written(out, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return out / COHORT_FILE


def _check_names(films: Sequence[Film]) -> None:
    """Refuse two films of one name: the second would be written over the first."""
    for what in ("case", "name"):
        seen: set[str] = set()
        for film in films:
            name = film.values["case"] if what == "case" else film.name
            if name.lower() in seen:
                raise CohortError(
                    f"two pictures would be called '{name}'",
                    do="rename one of them; endings and capitals are not enough to tell them apart",
                )
            seen.add(name.lower())


def check_out(out: Path) -> None:
    """Refuse to write over somebody's work.

    Raises:
        OutputError: The folder exists and is not empty, or is a file.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(
            "the folder is not empty" if out.is_dir() else "this is a file",
            expected="a folder that does not exist yet, or an empty one",
            do="choose another folder, or remove this one yourself",
            where=str(out),
        )


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder by name, hidden files left out."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder by name, hidden ones and those of archive programs left out."""
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "__")))


def require_folder(source: Path) -> None:
    """Refuse a source that is no folder.

    Raises:
        CohortError: There is no such folder.
    """
    if not source.is_dir():
        raise CohortError("there is no such folder", expected="the folder of the unpacked data", where=str(source))


def other_files(folders: Iterable[Path]) -> list[Finding]:
    """A note on files that are no pictures, where there are any."""
    left = [
        path
        for folder in folders
        for path in folder.iterdir()
        if path.is_file() and not path.name.startswith(".") and path.suffix.lower() not in PICTURE_SUFFIXES
    ]
    if not left:
        return []
    return [note("not_imported", f"{len(left)} files are no pictures and were left out, e.g. {left[0].name}.")]


def _place(picture: Picture, to: Path, *, hardlink: bool) -> None:
    """Copy, link or write one picture."""
    to.parent.mkdir(parents=True, exist_ok=True)
    if callable(picture):
        picture(to)
    elif hardlink:
        os.link(os.path.realpath(picture), to)
    else:
        shutil.copyfile(picture, to)


def _not_written(out: Path, error: OSError) -> OutputError:
    return OutputError(
        f"the import cannot be written: {error.strerror or error}",
        do="free space or choose a folder that you may write to (hardlink works within one disk only)",
        where=str(out),
    )
