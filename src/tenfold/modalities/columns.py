"""What each column of a table means: its kind, unit, identity and limits, and the file that says so.

It must not know patients, values, labels or networks.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from tenfold.errors import CohortError, Refusal, nearest
from tenfold.modalities.units import ucum
from tenfold.types import finite_or_none, write_atomically

Kind = Literal["number", "category", "ordered", "yes_no"]
KINDS: tuple[Kind, ...] = get_args(Kind)
TRANSFORMS = ("none", "log")
COLUMNS_FILE = "columns.csv"

NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_FORMULA = re.compile(r"(.+?) ([*/+-]) (.+)")
_LIMITS = ("low", "high", "normal_low", "normal_high")


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        name: As in the cohort file.
        label: For tables and figures; empty: the name serves.
        kind: "number", "category" (levels in any order), "ordered" (levels ascending) or "yes_no".
        unit: UCUM, for example "mg/L", "10*9/L", "1" for a ratio; an everyday spelling becomes UCUM.
        loinc: LOINC code, its check digit is checked.
        levels: The words that may stand in a cell; of yes_no (the word for no, the word for yes).
        low: Smallest plausible value. Outside the limits is a finding, never changed.
        high: Largest plausible value.
        normal_low: Lower end of the reference interval, for drawing only.
        normal_high: Upper end of the reference interval.
        formula: Makes it a derived column: "a / b", "a * b", "a - b" or "a + b" of two number columns, with spaces
            round the sign, computed on figures in the units of these columns.
        transform: "log" takes the natural logarithm before scaling, for skewed positive values.

    Raises:
        CohortError: The parts do not fit together.
    """

    name: str
    label: str = ""
    kind: Kind = "number"
    unit: str = ""
    loinc: str = ""
    levels: tuple[str, ...] = ()
    low: float = math.nan
    high: float = math.nan
    normal_low: float = math.nan
    normal_high: float = math.nan
    formula: str = ""
    transform: Literal["none", "log"] = "none"

    def __post_init__(self) -> None:
        if not self.name or self.name != self.name.strip():
            raise CohortError(f"a column named '{self.name}'", expected="a name without spaces at its ends")
        if self.kind not in KINDS:
            raise CohortError(f"unknown kind '{self.kind}'", do=nearest(self.kind, KINDS))
        if self.transform not in TRANSFORMS:
            raise CohortError(f"unknown transform '{self.transform}'", do=nearest(self.transform, TRANSFORMS))
        object.__setattr__(self, "unit", ucum(self.unit))
        object.__setattr__(self, "levels", tuple(self.levels) or (("no", "yes") if self.kind == "yes_no" else ()))
        _check_loinc(self.loinc)
        if self.kind == "number":
            _check_number(self)
        else:
            _check_levels(self)

    # NaN is unlike itself, but two columns without limits are alike.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Column) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def parts(self) -> tuple[str, str, str] | None:
        """(left column, sign, right column) of a derived column, None for one that is read."""
        found = _FORMULA.fullmatch(self.formula)
        return (found[1], found[2], found[3]) if found else None

    def to_dict(self) -> dict[str, Any]:
        """Return a mapping fit for JSON, NaN written as null."""
        return asdict(self) | {"levels": list(self.levels)} | {k: finite_or_none(getattr(self, k)) for k in _LIMITS}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Column:
        """Read what `to_dict` wrote.

        Raises:
            CohortError: The parts do not fit together.
        """
        limits = {k: math.nan if data[k] is None else float(data[k]) for k in _LIMITS}
        return cls(**{**data, **limits, "levels": tuple(data["levels"])})


_FIELDS = tuple("column" if f.name == "name" else f.name for f in fields(Column))


def _check_loinc(code: str) -> None:
    """Refuse a code whose last digit is not the check digit of those before (mod 10, as LOINC prescribes)."""
    if not code:
        return
    found = re.fullmatch(r"([0-9]{1,7})-([0-9])", code)
    if found:
        doubled = [int(d) * (2 if i % 2 == 0 else 1) for i, d in enumerate(reversed(found[1]))]
        if -sum(d // 10 + d % 10 for d in doubled) % 10 == int(found[2]):
            return
    raise CohortError(
        f"'{code}' is not a LOINC code" + (": its check digit is wrong" if found else ""),
        expected="digits, a hyphen and the check digit, such as 1988-5",
        do="copy the code from loinc.org, or leave it out",
    )


def _check_number(column: Column) -> None:
    """Refuse levels, limits upside down, and a formula that is none."""
    if column.levels:
        raise CohortError("a number column with levels", do="leave the levels out, or make it a category")
    for low, high in (("low", "high"), ("normal_low", "normal_high")):
        if getattr(column, low) > getattr(column, high):
            raise CohortError(f"{low} {getattr(column, low):g} is above {high} {getattr(column, high):g}")
    if column.formula and column.parts is None:
        raise CohortError(
            f"the formula '{column.formula}' cannot be read",
            expected="two columns with / * - or + between them, spaces round the sign: 'neutrophils / lymphocytes'",
        )


def _check_levels(column: Column) -> None:
    """Refuse what only a number can have, and levels that no cell could tell apart."""
    numeric = [k for k in _LIMITS if not math.isnan(getattr(column, k))]
    numeric += [k for k in ("formula",) if column.formula] + [k for k in ("transform",) if column.transform != "none"]
    if numeric:
        raise CohortError(f"a {column.kind} column with {', '.join(numeric)}", expected="these for numbers only")
    levels = column.levels
    if any(not level or level != level.strip() or "|" in level for level in levels):
        raise CohortError(
            f"levels {list(levels)}", expected="words that are not empty, without | and without spaces at their ends"
        )
    if len(set(levels)) < len(levels) or len(levels) < 2 or (column.kind == "yes_no" and len(levels) != 2):
        expected = "two, no first, such as no|yes" if column.kind == "yes_no" else "two or more, all different"
        raise CohortError(f"a {column.kind} column with the levels {list(levels)}", expected=expected)


def check_columns(columns: Sequence[Column], *, where: str = "") -> None:
    """Refuse columns that cannot stand together.

    Raises:
        CohortError: None at all, a name twice, or a derived column whose parts are no measured number columns or are
            added in different units.
    """
    if not columns:
        raise CohortError("the table has no columns", do="describe at least one", where=where)
    by_name: dict[str, Column] = {}
    for column in columns:
        if column.name in by_name:
            raise CohortError(f"the column '{column.name}' is described twice", where=where)
        by_name[column.name] = column
    measured = {c.name: c for c in columns if c.kind == "number" and not c.formula}
    for column in columns:
        if column.parts is None:
            continue
        left, sign, right = column.parts
        for part in (left, right):
            if part not in measured:
                raise CohortError(
                    f"the formula of '{column.name}' needs '{part}', which is no measured number column",
                    do=nearest(part, measured) if measured else "describe the columns that it is computed from",
                    where=where,
                )
        if sign in "+-" and measured[left].unit != measured[right].unit:
            raise CohortError(
                f"the formula '{column.formula}' mixes {measured[left].unit} and {measured[right].unit}",
                expected="both in the same unit",
                where=where,
            )


def read_columns(path: Path | str) -> tuple[Column, ...]:
    """Read a column dictionary: a CSV file with one row a column, comma, semicolon or tab between the cells.

    Its header names `column`, and any of label, kind, unit, loinc, levels (joined by |), low, high, normal_low,
    normal_high, formula, transform. An empty cell means the default.

    Args:
        path: The file, or the folder that holds `columns.csv`.

    Raises:
        CohortError: The file cannot be read, or a row of it is wrong; the row is named.
    """
    path = Path(path)
    path = path / COLUMNS_FILE if path.is_dir() else path
    header, rows = _parse(path)
    columns: list[Column] = []
    for number, row in rows:
        place = f"{path.name}, row {number}"
        if len(row) != len(header):
            raise CohortError(f"{len(row)} cells", expected=f"{len(header)}, as in the header", where=place)
        try:
            columns.append(_column(dict(zip(header, row, strict=True))))
        except Refusal as error:
            raise CohortError(error.came, expected=error.expected, do=error.do, where=place) from error
        if columns[-1].name in {c.name for c in columns[:-1]}:
            raise CohortError(f"the column '{columns[-1].name}' is described a second time", where=place)
    check_columns(columns, where=path.name)
    return tuple(columns)


def _parse(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the header and the rows that are not empty, each with its number in the file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise CohortError(
            "there is no column dictionary",
            expected=f"a file {COLUMNS_FILE} with one row for each column to learn from",
            where=path.name,
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise CohortError(f"the file cannot be read ({reason})", do="save it as CSV, UTF-8", where=path.name) from error
    first = text.split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count))
    lines = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    header = lines[0][1] if lines else []
    for name in header:
        if name not in _FIELDS:
            raise CohortError(f"unknown heading '{name}'", do=nearest(name, _FIELDS), where=f"{path.name}, row 1")
    if "column" not in header or len(set(header)) < len(header):
        came = "a heading stands twice" if "column" in header else "there is no heading 'column'"
        raise CohortError(came, expected=f"each at most once: {', '.join(_FIELDS)}", where=f"{path.name}, row 1")
    return header, [(number, row) for number, row in lines[1:] if any(row)]


def _column(cells: Mapping[str, str]) -> Column:
    """Build a column from the cells of its row."""
    given: dict[str, Any] = {key: cell for key, cell in cells.items() if cell and key != "column"}
    for key in _LIMITS:
        if key in given:
            given[key] = _limit(key, given[key])
    if "levels" in given:
        given["levels"] = tuple(level.strip() for level in given["levels"].split("|"))
    return Column(name=cells["column"], **given)


def _limit(key: str, cell: str) -> float:
    if not NUMBER.fullmatch(cell):
        raise CohortError(f"{key} is '{cell}'", expected="a number with a decimal point, or an empty cell")
    return float(cell)


def write_columns(columns: Sequence[Column], path: Path | str) -> None:
    """Write a column dictionary that `read_columns` reads back unchanged.

    Args:
        columns: One row each.
        path: The file, or an existing folder that shall hold `columns.csv`.

    Raises:
        CohortError: The columns cannot stand together.
        OutputError: The file cannot be written.
    """
    path = Path(path)
    path = path / COLUMNS_FILE if path.is_dir() else path
    check_columns(columns, where=path.name)
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(_FIELDS)
    for column in columns:
        limits = {k: "" if math.isnan(getattr(column, k)) else repr(float(getattr(column, k))) for k in _LIMITS}
        row = asdict(column) | limits | {"levels": "|".join(column.levels)}
        out.writerow([row[f.name] for f in fields(Column)])
    write_atomically(path, text.getvalue())
