"""The cohort file: one row an examination, read strictly or refused with its row.

It must not know pixels, folds, or what is done with the patients it lists.
"""

from __future__ import annotations

import csv
import io
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path, PureWindowsPath
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tenfold.errors import CohortError, nearest
from tenfold.types import IntArray, StrArray, unique, write_atomically

COHORT_FILE, IMAGES_FILE = "cohort.csv", "images.csv"
REQUIRED = ("case", "patient")
RESERVED = (*REQUIRED, "site", "date")
BETWEEN = "|"
"""Stands between the paths where a cell names several pictures."""
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom", ".bmp")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ].+)?")


@dataclass(frozen=True, eq=False)
class Cohort:
    """The examinations of a study, as its file lists them.

    Attributes:
        path: The cohort file.
        table: (n, columns) text, surrounding white space removed, empty where nothing is known.
        rows: (n,) row of each examination in the file, the header being row 1.
        image_columns: The columns that hold pictures to learn from; a mask is never one.
    """

    path: Path
    table: pd.DataFrame
    rows: IntArray = field(repr=False)
    image_columns: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path | str, *, image_columns: Sequence[str] | None = None) -> Cohort:
        """Read a cohort file, comma, semicolon or tab between the cells.

        Pictures stand in columns, one a view, several paths of a view being separated by a bar; or, one a row, in an
        `images.csv` beside the file, with the columns case, view and path: each view becomes a column.

        Args:
            path: The file, or the folder that holds `cohort.csv`.
            image_columns: The columns that hold pictures; without them, every column whose filled cells all
                look like paths of pictures, masks excepted.

        Raises:
            CohortError: The file cannot be read, a column is missing, or a row is wrong; the row is named.
        """
        path = Path(path)
        path = path / COHORT_FILE if path.is_dir() else path
        header, body, rows = _parse(path)
        table = pd.DataFrame(body, columns=pd.Index(header), dtype=str)
        cohort = cls(path, table, np.array(rows, dtype=np.int64))
        _check_ids(cohort)
        _check_dates(cohort)
        if path.name == COHORT_FILE and path.with_name(IMAGES_FILE).is_file():
            for view, cells in _views(cohort, path.with_name(IMAGES_FILE)).items():
                table[view] = cells
                header.append(view)
        if image_columns is None:
            found = tuple(name for name in header if not is_mask(name) and _holds_pictures(cohort, name))
        else:
            found = _named_pictures(cohort, image_columns)
        for name in header:
            if name in found or (is_mask(name) and _holds_pictures(cohort, name)):
                cohort.pictures(name)
        return replace(cohort, image_columns=found)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def folder(self) -> Path:
        """The folder that all paths in the file start from."""
        return self.path.parent

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns, in the order of the file."""
        return tuple(map(str, self.table.columns))

    @cached_property
    def case(self) -> StrArray:
        """(n,) name of each examination."""
        return self.labels("case")

    @cached_property
    def patient(self) -> StrArray:
        """(n,) who was examined."""
        return self.labels("patient")

    @cached_property
    def site(self) -> StrArray:
        """(n,) hospital or scanner, empty where the file does not say."""
        return self._optional("site")

    @cached_property
    def date(self) -> StrArray:
        """(n,) ISO date, empty where the file does not say."""
        return self._optional("date")

    def labels(self, column: str) -> StrArray:
        """Return a column as it stands in the file, (n,), not to be written to.

        Raises:
            CohortError: There is no such column.
        """
        if column not in self.columns:
            raise CohortError(f"there is no column '{column}'", do=nearest(column, self.columns), where=self.path.name)
        cells = np.array(self.table[column].tolist(), dtype=np.str_)
        cells.setflags(write=False)
        return cells

    def pictures(self, column: str) -> list[tuple[Path, ...]]:
        """Return where the pictures of a column lie, in the order of the file; () where the cell is empty.

        Raises:
            CohortError: A path is absolute or leads out of the cohort's folder, be it by `..` or by a link; or a case
                names a picture twice.
        """
        root = os.path.realpath(self.folder)
        found: list[tuple[Path, ...]] = []
        for i, cell in enumerate(self.labels(column).tolist()):
            own = tuple(self._inside(i, column, part.strip(), root) for part in cell.split(BETWEEN)) if cell else ()
            if len(set(own)) < len(own):
                raise CohortError("a picture stands there twice", where=self.place(i, column))
            found.append(own)
        return found

    def files(self, column: str) -> list[Path]:
        """Return where the pictures of a column lie, exactly one a case.

        Raises:
            CohortError: As for `paths`, or a cell is empty.
        """
        found: list[Path] = []
        for i, path in enumerate(self.paths(column)):
            if path is None:
                raise CohortError("no picture is named", where=self.place(i, column))
            found.append(path)
        return found

    def paths(self, column: str) -> list[Path | None]:
        """Return where the files of a column lie, one a case at most; None where the cell is empty.

        Raises:
            CohortError: As for `pictures`, or a cell names several.
        """
        found: list[Path | None] = []
        for i, own in enumerate(self.pictures(column)):
            if len(own) > 1:
                raise CohortError(f"{len(own)} files", expected="one at most", where=self.place(i, column))
            found.append(own[0] if own else None)
        return found

    def select(self, cases: Iterable[str]) -> Cohort:
        """Return the cohort of some cases, in the order given.

        Raises:
            CohortError: A case is not of this cohort.
        """
        position = {name: i for i, name in enumerate(self.case.tolist())}
        cases = [str(name) for name in cases]
        foreign = [name for name in cases if name not in position]
        if foreign:
            raise CohortError(
                f"case '{foreign[0]}' is not in the cohort",
                do=nearest(foreign[0], position),
                where=self.path.name,
            )
        index = [position[name] for name in cases]
        return replace(self, table=self.table.iloc[index].reset_index(drop=True), rows=self.rows[index])

    def place(self, index: int, column: str = "") -> str:
        """Say where a case stands: file, row, patient and, where given, column."""
        patient = str(self.table["patient"].iloc[index])
        place = f"{self.path.name}, row {self.rows[index]}" + (f", patient {patient}" if patient else "")
        return place + (f", column {column}" if column else "")

    def _optional(self, column: str) -> StrArray:
        """A column that a cohort may lack: then empty."""
        return self.labels(column) if column in self.columns else np.full(len(self), "", dtype=np.str_)

    def _inside(self, index: int, column: str, cell: str, root: str) -> Path:
        """The path of one picture, refused where it leads out of the folder `root`."""
        if not cell:
            raise CohortError("an empty path among several", where=self.place(index, column))
        written = cell.replace("\\", "/")
        real = os.path.realpath(os.path.join(root, written))  # noqa: PTH118 - 5,000 Path objects cost a second
        outside = real != root and not real.startswith(root.rstrip(os.sep) + os.sep)
        if written.startswith("/") or PureWindowsPath(cell).drive or outside:
            raise CohortError(
                f"'{cell}' leads out of the cohort's folder",
                expected="a path that starts beside the cohort file and stays below it, links followed",
                do="copy the pictures beside the cohort file and write their paths from there",
                where=self.place(index, column),
            )
        return self.folder / written


@dataclass(frozen=True, eq=False)
class Labels:
    """The outcome of every case of a cohort.

    Attributes:
        column: The column they came from.
        classes: Class names; of two classes the positive one stands last.
        positive: The class whose probability is reported.
        values: (n,) class of each case, empty where it is unknown.
    """

    column: str
    classes: tuple[str, ...]
    positive: str
    values: StrArray

    @property
    def known(self) -> NDArray[np.bool_]:
        """(n,) true where the outcome is known."""
        return np.asarray(self.values != "")


def labels_for(
    cohort: Cohort,
    *,
    column: str,
    classes: Sequence[str] | None = None,
    positive: str | None = None,
    unlabelled: Literal["refuse", "allow"] = "refuse",
    absent: Literal["refuse", "allow"] = "refuse",
) -> Labels:
    """Find the two classes of a target and check that every case has one of them.

    Args:
        cohort: The cohort.
        column: The column that holds the outcome.
        classes: The two classes; without them, what the column holds, sorted.
        positive: The class to be found; without it, the last of the classes.
        unlabelled: Whether cases without an outcome are refused or kept, their value empty.
        absent: Whether a class that no case has is refused.

    Raises:
        CohortError: The column is missing, an outcome is missing or is none of the classes (its row is
            named), or there are not exactly two classes.
    """
    values = cohort.labels(column)
    empty = np.flatnonzero(values == "")
    if unlabelled == "refuse" and empty.size:
        raise CohortError(
            f"the outcome is missing here and in {empty.size - 1} more rows",
            do="fill in the outcome, remove the rows, or declare that unlabelled cases are allowed",
            where=cohort.place(int(empty[0]), column),
        )
    there = sorted(set(values[values != ""].tolist()))
    names = [str(name) for name in classes] if classes is not None else there
    _check_labels(cohort, column, values, names, given=classes is not None, allow_absent=absent == "allow")
    chosen = names[-1] if positive is None else str(positive)
    if chosen not in names:
        raise CohortError(f"the positive class '{chosen}' is not a class of the study", do=nearest(chosen, names))
    ordered = (*(name for name in names if name != chosen), chosen)
    return Labels(column, ordered, chosen, values)


def _check_labels(
    cohort: Cohort, column: str, values: StrArray, names: Sequence[str], *, given: bool, allow_absent: bool
) -> None:
    """Refuse a foreign label, then any number of classes but two."""
    check_foreign(cohort, column, values, names)
    where = f"{cohort.path.name}, column {column}"
    if len(names) != 2 or len(set(names)) != 2:
        raise CohortError(
            f"there are {len(set(names))} classes: {', '.join(names[:8])}" if names else "there is no outcome at all",
            expected="exactly two classes",
            do="" if given else "name the two classes in the study and select the cases that have one of them",
            where=where,
        )
    absent = [name for name in names if name not in values]
    if absent and not allow_absent:
        raise CohortError(f"no case has the class '{absent[0]}'", expected="cases of both classes", where=where)


def check_foreign(cohort: Cohort, column: str, values: StrArray, names: Sequence[str]) -> None:
    """Refuse a label that is none of the classes.

    Raises:
        CohortError: There is one; its row is named.
    """
    known = {*names, ""}
    for i, value in enumerate(values.tolist()):
        if value not in known:
            raise CohortError(
                f"'{value}' is not a class of the study",
                expected=f"one of {', '.join(names)}",
                do=f"{nearest(value, names)}; an unknown outcome is an empty cell, never a word",
                where=cohort.place(i, column),
            )


def write_cohort(rows: Sequence[Mapping[str, str]], columns: Sequence[str], path: Path) -> None:
    """Write a cohort file, whole or not at all.

    Args:
        rows: One mapping an examination; a column that it lacks is left empty.
        columns: The columns in their order, `case` and `patient` among them.
        path: Where to.

    Raises:
        OutputError: The place cannot be written to.
    """
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(columns)
    out.writerows([row.get(name, "") for name in columns] for row in rows)
    write_atomically(path, text.getvalue())


def is_mask(column: str) -> bool:
    """Whether a column holds lesion masks, which are no input: they would give the answer away."""
    return bool(re.fullmatch(r"(.*[_ ])?masks?([_ ].*)?", column.lower()))


def looks_like_picture(cell: str) -> bool:
    """Whether a cell looks like the path of a picture."""
    return cell.lower().endswith(PICTURE_SUFFIXES)


def _holds_pictures(cohort: Cohort, column: str) -> bool:
    """Whether all filled cells of a column look like pictures, and there is one."""
    cells = [cell for cell in cohort.labels(column).tolist() if cell]
    parts = [part.strip() for cell in cells for part in cell.split(BETWEEN)]
    return column not in RESERVED and bool(cells) and all(map(looks_like_picture, parts))


def _views(cohort: Cohort, path: Path) -> dict[str, list[str]]:
    """The pictures of `images.csv` by view, as cells of the cohort file."""
    header, body, rows = _parse(path, required=("case", "view", "path"))
    place = {name: i for i, name in enumerate(cohort.case.tolist())}
    cells: dict[str, list[list[str]]] = {}
    for row, record in zip(rows, body, strict=True):
        given = dict(zip(header, record, strict=True))
        case, view, file = given["case"], given["view"], given["path"]
        where = f"{path.name}, row {row}"
        if case not in place:
            raise CohortError(f"case '{case}' is not in {cohort.path.name}", do=nearest(case, place), where=where)
        if not view or not file or BETWEEN in file:
            raise CohortError(f"view '{view}' with path '{file}'", expected="both, and no bar in a path", where=where)
        if view in cohort.columns or view in RESERVED:
            raise CohortError(
                f"view '{view}' is also a column of {cohort.path.name}",
                expected=f"a name of its own, none of {', '.join(RESERVED)}; and each picture in one of the two files",
                where=where,
            )
        own = cells.setdefault(view, [[] for _ in place])[place[case]]
        if file in own:
            raise CohortError(f"the picture '{file}' stands there twice", where=f"{where}, case {case}")
        own.append(file)
    return {view: [BETWEEN.join(files) for files in own] for view, own in cells.items()}


def _named_pictures(cohort: Cohort, names: Sequence[str]) -> tuple[str, ...]:
    """The image columns that the caller named, once they are found fit."""
    for name in names:
        cohort.labels(name)
        if is_mask(name) or name in RESERVED:
            raise CohortError(
                f"column '{name}' cannot be an input",
                expected="a column of pictures; a mask would give the answer away",
                where=cohort.path.name,
            )
    return tuple(unique(names))


def _parse(path: Path, required: Sequence[str] = REQUIRED) -> tuple[list[str], list[list[str]], list[int]]:
    """Header, filled rows and their row numbers."""
    records = _records(_text(path), path)
    header = [name.strip() for name in records[0]] if records else []
    if not any(header):
        raise CohortError(
            "the file is empty", expected=f"a header with {', '.join(required)}, then rows", where=str(path)
        )
    _check_header(header, path, required)
    body, rows = [], []
    for number, record in enumerate(records[1:], start=2):
        cells = [cell.strip() for cell in record]
        if not any(cells):
            continue
        if len(cells) != len(header):
            raise CohortError(
                f"{len(cells)} cells under {len(header)} columns",
                expected="as many cells as columns; a cell that holds the separator stands in double quotes",
                where=f"{path.name}, row {number}",
            )
        body.append(cells)
        rows.append(number)
    if not body:
        raise CohortError("there is a header but no row below it", expected="one row an examination", where=str(path))
    return header, body, rows


def _text(path: Path) -> str:
    """The file as text; only UTF-8, so that no name is misread silently."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CohortError(
            f"the cohort file cannot be read: {error.strerror or error}",
            expected=f"a file such as {COHORT_FILE}, or the folder that holds it",
            where=str(path),
        ) from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = data[: error.start].count(b"\n") + 1
        raise CohortError(
            f"byte 0x{data[error.start]:02x} is not UTF-8",
            expected="a text file in UTF-8",
            do="save it again as 'CSV UTF-8' (spreadsheets offer it under this name)",
            where=f"{path.name}, row {row}",
        ) from error
    if "\0" in text:
        row = text[: text.index("\0")].count("\n") + 1
        raise CohortError("there is a zero byte in the text", expected="CSV in UTF-8", where=f"{path.name}, row {row}")
    return text


def _records(text: str, path: Path) -> list[list[str]]:
    """The cells of every line, by the separator under which the header makes sense."""
    first = text.split("\n", 1)[0]
    fitting = [d for d in (",", ";", "\t") if set(REQUIRED) <= {c.strip(' "\r').lower() for c in first.split(d)}]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=fitting[0] if fitting else ",", strict=True)
    records: list[list[str]] = []
    try:
        records.extend(reader)
    except csv.Error as error:
        raise CohortError(
            f"the row is no CSV: {error}",
            expected="every double quote that opens a cell to be closed",
            where=f"{path.name}, row {len(records) + 1}",
        ) from error
    return records


def _check_header(header: Sequence[str], path: Path, required: Sequence[str]) -> None:
    """Refuse a header that lacks, repeats or leaves empty a name."""
    where = f"{path.name}, row 1"
    for name in required:
        if name not in header:
            raise CohortError(f"there is no column '{name}'", do=nearest(name, filter(None, header)), where=where)
    for position, name in enumerate(header, start=1):
        if not name:
            raise CohortError(f"column {position} has no name", expected="a name in every cell", where=where)
        if header.index(name) != position - 1:
            raise CohortError(f"two columns are called '{name}'", do="rename or remove one of them", where=where)


def _check_ids(cohort: Cohort) -> None:
    """Refuse empty ids, a case named twice, and ids that differ in nothing a person sees."""
    for column in REQUIRED:
        written: dict[str, tuple[str, int]] = {}
        for i, name in enumerate(cohort.labels(column).tolist()):
            place = cohort.place(i, column)
            if not name:
                raise CohortError(f"the {column} is empty", expected=f"a {column} in every row", where=place)
            if any(unicodedata.category(sign) == "Cc" for sign in name):
                raise CohortError(f"{name!r} holds a control character", do="remove it", where=place)
            earlier, row = written.setdefault(_plain(name), (name, int(cohort.rows[i])))
            if earlier != name:
                raise CohortError(
                    f"'{name}' differs from '{earlier}' (row {row}) only in capitals or white space",
                    expected=f"one spelling a {column}",
                    do="write both the same way, or give them names that differ visibly",
                    where=place,
                )
            if column == "case" and row != cohort.rows[i]:
                raise CohortError(
                    f"case '{name}' stands in row {row} already",
                    expected="a name of its own for every examination",
                    where=place,
                )


def _plain(name: str) -> str:
    """An id without what a person does not see: capitals, white space, ways of writing the same letter."""
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())


def _check_dates(cohort: Cohort) -> None:
    """Refuse a date that is not ISO: 03/04/2020 means two days."""
    for i, text in enumerate(cohort.date.tolist()):
        if not text:
            continue
        try:
            if not _DATE.fullmatch(text):
                raise ValueError
            datetime.fromisoformat(text)
        except ValueError as error:
            raise CohortError(
                f"'{text}' is not a date",
                expected="YYYY-MM-DD, for example 2020-04-03",
                where=cohort.place(i, "date"),
            ) from error
