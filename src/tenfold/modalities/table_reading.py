"""Reads the cells of a table strictly, column by column, and says what is odd about the figures.

It must not know labels, folds or networks; it changes no value and fills in none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from tenfold.errors import CohortError, nearest
from tenfold.modalities.columns import NUMBER, Column, check_columns
from tenfold.modalities.units import UNITS, conversion, ucum
from tenfold.types import Finding, FloatArray

Place = Callable[[int, str], str]

_WITH_UNIT = re.compile(rf"({NUMBER.pattern})\s*(\S.*)")
_LARGEST = 1e15
_FOR_MISSING = ("na", "n/a", "nan", "null", "none", "missing", "unknown", "not available", "-", ".", "?")


def _default_place(index: int, column: str) -> str:
    return f"case {index + 1}, column {column}"


@dataclass(frozen=True, eq=False)
class TableReading:
    """The figures of a table, one row a case, before any preparation.

    Attributes:
        columns: What each column means, derived ones among them.
        values: float64 (n, columns): figures in the unit of their column, levels as their index; NaN where missing.
    """

    columns: tuple[Column, ...]
    values: FloatArray

    def __len__(self) -> int:
        return len(self.values)


def read_table(
    columns: Sequence[Column],
    cells: Mapping[str, Sequence[str]],
    *,
    place: Place = _default_place,
    units: Mapping[str, str] | None = None,
) -> TableReading:
    """Read cells strictly: an empty one is missing, any other must be what its column says.

    Where the figures of a column `crp` are in another unit than the dictionary names, the cohort says so by the
    heading `crp [mg/dL]`, by a column `crp_unit`, in the cell itself ("1.2 mg/dL"), or `units` does. They are
    converted by the tables in `units.py`. Columns that nobody described are not looked at, and a derived column is
    computed even where the cohort has one of its name: missing where a part is missing, where the divisor is 0 or
    next to it, or where it has no logarithm but needs one.

    Args:
        columns: What to read, in the order of the result.
        cells: Column name -> n cells.
        place: Says for a refusal where the cell of case i and a column stands.
        units: Column name -> the unit that its figures are in.

    Raises:
        CohortError: A column is absent, or a cell is no number, no known level, or in a unit that cannot be converted.
    """
    columns = tuple(columns)
    check_columns(columns)
    headings = {column.name: _heading(column, cells) for column in columns if not column.formula}
    lengths = {name: len(cells[heading]) for name, (heading, _) in headings.items()}
    if len(set(lengths.values())) > 1:
        raise CohortError("the columns differ in length", expected=f"one cell a case in each: {lengths}")
    read: dict[str, FloatArray] = {}
    for column in columns:
        if column.formula:
            continue
        heading, unit = headings[column.name]
        texts = [cell.strip() for cell in cells[heading]]
        if column.kind != "number":
            read[column.name] = _levels(column, texts, place)
            continue
        beside = f"{column.name}_unit"
        per_case = cells.get(beside, ()) if beside not in headings else ()
        stated = [s for s in (unit, (units or {}).get(column.name, "")) if s]
        read[column.name] = _numbers(column, texts, stated, [cell.strip() for cell in per_case], place)
    for column in columns:
        if column.parts:
            read[column.name] = _derived(column, column.parts, read)
    return TableReading(columns, np.stack([read[column.name] for column in columns], axis=1))


def _heading(column: Column, cells: Mapping[str, Sequence[str]]) -> tuple[str, str]:
    """Return the heading that a column stands under, and the unit that the heading states."""
    found = [(column.name, "")] if column.name in cells else []
    start = f"{column.name} ["
    found += [(name, name[len(start) : -1]) for name in cells if name.startswith(start) and name.endswith("]")]
    if len(found) == 1:
        return found[0]
    if found:
        raise CohortError(
            f"the column '{column.name}' stands there {len(found)} times: {', '.join(name for name, _ in found)}",
            do="keep one of them",
        )
    raise CohortError(
        f"there is no column '{column.name}'",
        expected="every column of the column dictionary, empty cells where nothing was measured",
        do=nearest(column.name, cells) if cells else "",
    )


def _levels(column: Column, texts: Sequence[str], place: Place) -> FloatArray:
    """Turn words into the index of their level."""
    index = {level: float(i) for i, level in enumerate(column.levels)} | {"": math.nan}
    values = np.empty(len(texts))
    for i, text in enumerate(texts):
        if text not in index:
            raise CohortError(
                f"'{text}' is no level of {column.name}",
                expected=f"{', '.join(column.levels)}, or an empty cell",
                do=_leave_empty(text) or nearest(text, column.levels),
                where=place(i, column.name),
            )
        values[i] = index[text]
    return values


def _numbers(
    column: Column, texts: Sequence[str], stated: Sequence[str], per_case: Sequence[str], place: Place
) -> FloatArray:
    """Turn cells into figures in the unit of the column."""
    factors: dict[str, float] = {}
    values = np.full(len(texts), np.nan)
    for i, text in enumerate(texts):
        if not text:
            continue
        number, own = _split(column, text, i, place)
        said = list(dict.fromkeys(ucum(s) for s in (own, *stated, *per_case[i : i + 1]) if s))
        if len(said) > 1:
            raise CohortError(f"two units are stated: {' and '.join(said)}", where=place(i, column.name))
        unit = said[0] if said else column.unit
        if unit not in factors:
            factors[unit] = conversion(unit, column.unit, loinc=column.loinc, where=place(i, column.name))
        values[i] = number * factors[unit]
        if abs(values[i]) > _LARGEST:
            raise CohortError(f"'{text}' is too large to compute with", where=place(i, column.name))
        if column.transform == "log" and values[i] <= 0:
            raise CohortError(
                f"'{text}' in a column that is scaled by its logarithm",
                expected="a figure above 0",
                do="correct it, leave the cell empty, or set the column's transform to none",
                where=place(i, column.name),
            )
    return values


def _split(column: Column, text: str, index: int, place: Place) -> tuple[float, str]:
    """Return the figure in a cell and the unit it carries."""
    if NUMBER.fullmatch(text):
        return float(text), ""
    found = _WITH_UNIT.fullmatch(text)
    if found and (ucum(found[2]) in UNITS or ucum(found[2]) == column.unit):
        return float(found[1]), found[2]
    _refuse_text(column, text, place(index, column.name))


def _refuse_text(column: Column, text: str, where: str) -> NoReturn:
    """Say what is wrong with a cell that is no number."""
    do = _leave_empty(text) or "correct the cell, or leave it empty where nothing was measured"
    if re.fullmatch(r"[+-]?[0-9]+,[0-9]+", text):
        do = f"write a decimal point: {text.replace(',', '.')}; nothing marks thousands"
    elif text[:1] in "<>≤≥":
        do = (
            "a result beyond the limit of detection is no figure: decide what stands for it (the limit, half of it, or "
            "an empty cell), write that, and say so in the column's label"
        )
    unit = f" in {column.unit}" if column.unit else ""
    raise CohortError(f"'{text}' is not a number", expected=f"a number{unit}, such as 1.5", do=do, where=where)


def _leave_empty(text: str) -> str:
    return "leave the cell empty where nothing is known" if text.lower() in _FOR_MISSING else ""


def _derived(column: Column, parts: tuple[str, str, str], read: Mapping[str, FloatArray]) -> FloatArray:
    """Compute a derived column from its parts."""
    left, sign, right = parts
    a, b = read[left], read[right]
    with np.errstate(all="ignore"):  # what has no value becomes missing below
        value = {"/": np.divide, "*": np.multiply, "-": np.subtract, "+": np.add}[sign](a, b)
    possible = np.abs(value) <= _LARGEST
    if column.transform == "log":
        possible &= value > 0
    return np.where(possible, value, np.nan)


def implausible(reading: TableReading) -> NDArray[np.bool_]:
    """Mark the figures outside the plausible limits of their column, (n, columns)."""
    low = np.array([column.low for column in reading.columns])
    high = np.array([column.high for column in reading.columns])
    return np.asarray((reading.values < low) | (reading.values > high))


_PLACES = 5


def check_values(reading: TableReading, place: Place = _default_place) -> list[Finding]:
    """Say what is odd about the figures, changing none.

    Args:
        reading: Of `read_table`.
        place: Says where the cell of case i and a column stands.

    Returns:
        One finding a column and check: "all_missing" (refusal), "implausible" and "constant" (warnings), "half_missing"
        (note: more than half). `value` is the share of cases concerned, of a constant column the constant.
    """
    found: list[Finding] = []
    outside = implausible(reading)
    for j, column in enumerate(reading.columns):
        values = reading.values[:, j]
        seen = values[~np.isnan(values)]
        name = column.name
        if not len(seen):
            message = f"The column {name} holds no value at all. Take it out of the columns to learn from."
            found.append(Finding("refusal", "all_missing", message, column=name, value=1.0))
            continue
        if len(seen) > 1 and (seen == seen[0]).all():
            shown = f"{seen[0]:g}" if column.kind == "number" else column.levels[int(seen[0])]
            message = f"The column {name} holds only the value {shown}: nothing can be learned from it."
            found.append(Finding("warning", "constant", message, column=name, value=float(seen[0])))
        share = 1 - len(seen) / len(values)
        if share > 0.5:
            message = f"The column {name} is missing in {len(values) - len(seen)} of {len(values)} cases ({share:.0%})."
            found.append(Finding("note", "half_missing", message, column=name, value=share))
        if outside[:, j].any():
            found.append(_outside(column, values, np.flatnonzero(outside[:, j]), len(seen), place))
    return found


def _outside(column: Column, values: FloatArray, rows: NDArray[np.int64], seen: int, place: Place) -> Finding:
    """The finding about figures beyond the plausible limits of a column."""
    limits = f"{column.low:g} to {column.high:g} {column.unit}".replace("nan to", "up to").replace(
        " to nan", " or more"
    )
    first = "; ".join(f"{place(int(i), column.name)}: {values[i]:g}" for i in rows[:_PLACES])
    more = f"; and {len(rows) - _PLACES} more" if len(rows) > _PLACES else ""
    often = " So many suggest a wrong unit." if len(rows) > seen / 2 else ""
    message = (
        f"{len(rows)} of {seen} values of {column.name} lie outside the plausible ({limits.strip()}): {first}{more}."
        f"{often} They are used as they stand: check them against the source."
    )
    return Finding("warning", "implausible", message, column=column.name, value=len(rows) / seen)
