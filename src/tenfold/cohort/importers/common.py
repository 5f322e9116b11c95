"""What every importer does last: copy the pictures and write the cohort file, whole or not at all.

It must not know any layout.
"""

from __future__ import annotations

import csv
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfold.cohort.describe import is_number
from tenfold.cohort.manifest import COHORT_FILE, PICTURE_SUFFIXES, write_cohort
from tenfold.errors import CohortError, OutputError, nearest
from tenfold.modalities.connectome import REGIONS_FILE
from tenfold.modalities.table import COLUMNS_FILE, Column, write_columns
from tenfold.types import Finding

IMAGES, CONNECTOMES = "images", "connectomes"
MOST_LEVELS = 12
"""Of words or codes; a column of more different numbers is a measurement."""
Picture = Path | Callable[[Path], None]


@dataclass(frozen=True)
class Imported:
    """What an importer made.

    Attributes:
        cohort: The cohort file.
        notes: What its owner should know.
        study: Suggested settings of a study: "target" (the column), "classes", "positive"; or "targets" (several, or
            scores: a table each, as in the study file); and others that the layout knows of: "images" (input name ->
            column of pictures), "tables" (input name -> "columns" and "dictionary"), "connectomes" (input name ->
            "column", "regions" and what may be adjusted for: "harmonise" and "confounds"), "masks" (a column of masks),
            "findings" ...
    """

    cohort: Path
    notes: tuple[Finding, ...] = ()
    study: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Film:
    """One examination to import.

    Attributes:
        values: Its cells, `case` and `patient` among them; those of pictures are filled in.
        name: Where its picture goes inside the folder of pictures; empty: it has none.
        picture: The file to copy, or a function that writes the picture to a path.
        others: Column -> (name, picture) of further pictures, masks for example.
    """

    values: Mapping[str, str]
    name: str = ""
    picture: Picture | None = None
    others: Mapping[str, tuple[str, Picture]] = field(default_factory=dict)

    def pictures(self, column: str) -> dict[str, tuple[str, Picture]]:
        """All its pictures: column -> (name, picture), its own under `column`."""
        own = {column: (self.name, self.picture)} if self.picture is not None else {}
        return {**own, **self.others}


def array_file(array: NDArray[Any]) -> Picture:
    """What writes an array as .npy, for a connectome that is no file yet."""
    return lambda path: np.save(path, array, allow_pickle=False)


def note(check: str, message: str) -> Finding:
    """A note of an importer."""
    return Finding("note", check, message)


def build(
    films: Sequence[Film],
    columns: Sequence[str],
    out: Path,
    *,
    hardlink: bool = False,
    column: str = "film",
    dictionary: Sequence[Column] = (),
    folder: str = IMAGES,
    regions: Sequence[str] = (),
) -> Path:
    """Write pictures or connectomes, the cohort file, `columns.csv` and `regions.csv`: by way of a temporary neighbour.

    Args:
        films: The examinations.
        columns: The columns of the cohort file, those of the pictures among them.
        out: The folder to make; it may exist if it is empty.
        hardlink: Link the pictures instead of copying them, on the same disk.
        column: The column that names a film's own picture.
        dictionary: What the columns of tables mean; none, no `columns.csv`.
        folder: Where pictures go inside `out`: "images", or "connectomes".
        regions: Names of the regions of connectomes; none, no `regions.csv`.

    Returns:
        The cohort file.

    Raises:
        CohortError: There is nothing to import, or two films have the same name.
        OutputError: The folder holds something, or cannot be written to.
    """
    if not films:
        raise CohortError("there is no picture to import", expected="at least one picture of this layout")
    check_out(out)
    _check_names(films, column)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    except OSError as error:
        raise _not_written(out, error) from error
    try:
        rows = []
        for film in films:
            pictures = film.pictures(column)
            for name, picture in pictures.values():
                _place(picture, temporary / folder / name, hardlink=hardlink)
            rows.append({**film.values, **{c: f"{folder}/{name}" for c, (name, _) in pictures.items()}})
        write_cohort(rows, columns, temporary / COHORT_FILE)
        if dictionary:
            write_columns(dictionary, temporary / COLUMNS_FILE)
        if regions:
            _write_regions(regions, temporary / REGIONS_FILE)
        temporary.chmod(0o755)
        if out.exists():
            out.rmdir()
        temporary.replace(out)
    except OSError as error:
        raise _not_written(out, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return out / COHORT_FILE


def _write_regions(regions: Sequence[str], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle, lineterminator="\n").writerows([["name"], *([name] for name in regions)])


def _check_names(films: Sequence[Film], column: str) -> None:
    """Refuse two films or pictures of one name: the second would be written over the first."""
    cases = [film.values["case"] for film in films]
    for names in (cases, [name for film in films for name, _ in film.pictures(column).values()]):
        seen: set[str] = set()
        for name in names:
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


def read_csv(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Read a table of any layout: comma, semicolon or tab between the cells, UTF-8.

    Returns:
        The header; and each filled row with its number, surrounding white space removed.

    Raises:
        CohortError: The file cannot be read, a heading stands twice, or a row has another number of cells.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        delimiter = max(",;\t", key=text.split("\n", 1)[0].count)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        records = [(reader.line_num, [cell.strip() for cell in record]) for record in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CohortError(f"the table cannot be read: {error}", expected="CSV in UTF-8", where=path.name) from error
    records = [(number, cells) for number, cells in records if any(cells)]
    if len(records) < 2:
        raise CohortError("the table is empty", expected="a header, then rows", where=path.name)
    header = records[0][1]
    for name in header:
        if not name or header.count(name) > 1:
            came = f"two columns are called '{name}'" if name else "a column has no name"
            raise CohortError(came, do="name every column differently", where=f"{path.name}, row 1")
    for number, cells in records[1:]:
        if len(cells) != len(header):
            raise CohortError(f"{len(cells)} cells under {len(header)} columns", where=f"{path.name}, row {number}")
    return header, [(number, dict(zip(header, cells, strict=True))) for number, cells in records[1:]]


def outcomes(
    rows: Sequence[Mapping[str, str]], target: str | Sequence[str], candidates: Iterable[str], where: str
) -> dict[str, Any]:
    """Say what a study needs to know of the outcomes that were asked for.

    Args:
        rows: The cells of each examination.
        target: The column of the outcome, or several.
        candidates: The columns that can hold one.
        where: The table, for messages.

    Returns:
        Of one outcome of two words "target" and "classes"; otherwise "targets", a table each: "column" and "classes",
        or "column" and "kind", "score" of numbers, whose cut is for the owner of the study to declare.

    Raises:
        CohortError: No column is named, it is not there, or it holds neither two words nor a score.
    """
    candidates = list(candidates)
    asked = [target] if isinstance(target, str) else list(target)
    if not any(asked):
        fitting = [name for name in candidates if len(_different(rows, name)) == 2]
        raise CohortError(
            "nothing says which column holds the outcome",
            do=f"give it with --target; two values each have: {', '.join(fitting)}",
            where=where,
        )
    found = [_outcome(rows, name, candidates, where) for name in dict.fromkeys(asked)]
    if len(found) == 1 and "classes" in found[0]:
        return {"target": found[0]["column"], "classes": found[0]["classes"]}
    return {"targets": found}


def _outcome(rows: Sequence[Mapping[str, str]], name: str, candidates: Sequence[str], where: str) -> dict[str, Any]:
    if name not in candidates:
        raise CohortError(f"there is no column '{name}'", do=nearest(name, candidates), where=where)
    classes = _different(rows, name)
    if len(classes) > MOST_LEVELS and all(map(is_number, classes)):
        return {"column": name, "kind": "score"}
    if len(classes) != 2:
        raise CohortError(
            f"the outcome '{name}' has {len(classes)} values: {', '.join(classes[:8])}",
            expected=f"two classes, or a score of more than {MOST_LEVELS} different numbers",
            do="choose another column; this one can be written into study.toml by hand, with its classes",
            where=where,
        )
    return {"column": name, "classes": classes}


def _different(rows: Sequence[Mapping[str, str]], name: str) -> list[str]:
    return sorted({row[name] for row in rows} - {""})
