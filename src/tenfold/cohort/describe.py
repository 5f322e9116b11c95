"""The patients by class: Table 1 that counts them, Table 2 that tests how they differ.

It must not know models or folds; its tests describe who was enrolled and choose nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tenfold.cohort.audit_tables import table_reading
from tenfold.cohort.manifest import Cohort, Labels, is_mask, looks_like_picture
from tenfold.modalities.table import Column, TableReading
from tenfold.stats.group_tests import benjamini_hochberg, compare_groups
from tenfold.types import StrArray, finite_or_none

_LEVELS = 12


def table_by_class(cohort: Cohort, labels: Labels, variables: Sequence[Column] = ()) -> list[dict[str, str]]:
    """Count the patients by class; a patient's first examination in a class speaks for it.

    Args:
        cohort: The analysed cases.
        labels: Their outcomes, all known.
        variables: Columns that are shown by their dictionary: label and unit, figures in that unit, derived ones too.

    Returns:
        Lines with "variable", "level" and one text a class.
    """
    table, described = _described(cohort, variables)
    first = {name: table.loc[labels.values == name].drop_duplicates("patient") for name in labels.classes}
    rows = [
        {"variable": "patients", "level": "", **{c: str(len(part)) for c, part in first.items()}},
        {
            "variable": "films" if cohort.image_columns else "examinations",
            "level": "",
            **{c: str(int(np.sum(labels.values == c))) for c in labels.classes},
        },
    ]
    left_out = {"case", "patient", "date", labels.column, *cohort.image_columns}
    for column in map(str, table.columns):
        if column not in left_out and not is_mask(column):
            rows += _variable(column, described.get(column), first)
    return rows


def _described(cohort: Cohort, variables: Sequence[Column]) -> tuple[pd.DataFrame, dict[str, Column]]:
    """The cohort's table with the variables as their dictionary has them, derived ones at the end."""
    if not variables:
        return cohort.table, {}
    table = cohort.table.copy()
    cells = _cells(table_reading(cohort, variables))
    for column in variables:
        stands = [name for name in map(str, table.columns) if name.startswith(f"{column.name} [")]
        table = table.rename(columns=dict.fromkeys(stands, column.name)).drop(
            columns=f"{column.name}_unit", errors="ignore"
        )
        table[column.name] = cells[column.name]
    return table, {column.name: column for column in variables}


def _cells(reading: TableReading) -> dict[str, list[str]]:
    """Column -> its cells as text, empty where missing."""

    def cell(column: Column, value: float) -> str:
        if math.isnan(value):
            return ""
        return f"{value:.6g}" if column.kind == "number" else column.levels[int(value)]

    return {c.name: [cell(c, v) for v in reading.values[:, j].tolist()] for j, c in enumerate(reading.columns)}


def named(column: Column) -> str:
    """The name of a column for a reader: its label, with its unit where it has one."""
    unit = "" if column.unit in ("", "1") else f" ({column.unit})"
    return (column.label or column.name) + unit


def _variable(name: str, column: Column | None, parts: Mapping[str, pd.DataFrame]) -> list[dict[str, str]]:
    """The lines of one column: median [IQR] of numbers, n (%) of each word, the missing counted."""
    cells = {label: part[name].to_numpy(dtype=np.str_) for label, part in parts.items()}
    filled = [cell for part in cells.values() for cell in part.tolist() if cell]
    shown = named(column) if column else name
    levels = list(column.levels) if column and column.levels else sorted(set(filled))
    if not filled or all(map(looks_like_picture, filled)):
        return []
    lines: list[dict[str, str]] = []
    if column.kind == "number" if column else len(levels) > 2 and all(map(is_number, filled)):
        lines.append({"variable": shown, "level": "median [IQR]", **_each(cells, _median)})
    elif column or len(levels) <= _LEVELS:
        for level in levels:
            counts = {label: _share(int(np.sum(part == level)), part) for label, part in cells.items()}
            lines.append({"variable": shown, "level": level, **counts})
    else:
        lines.append({"variable": shown, "level": f"text, {len(levels)} different", **_each(cells, _filled)})
    if any((part == "").any() for part in cells.values()):
        lines.append({"variable": shown, "level": "missing", **_each(cells, _empty)})
    return lines


def _each(cells: Mapping[str, StrArray], say: Callable[[StrArray], str]) -> dict[str, str]:
    return {name: say(part) for name, part in cells.items()}


def _median(part: StrArray) -> str:
    """Median [lower to upper quartile] of the filled cells."""
    known = np.array([float(cell) for cell in part.tolist() if cell])
    if not known.size:
        return "none"
    low, middle, high = (f"{q:.4g}" for q in np.quantile(known, [0.25, 0.5, 0.75]))
    return f"{middle} [{low} to {high}]"


def _share(count: int, part: StrArray) -> str:
    """Count and its share of the filled cells."""
    known = int(np.sum(part != ""))
    return f"{count} ({100 * count / known:.1f} %)" if known else str(count)


def _filled(part: StrArray) -> str:
    return f"{int(np.sum(part != ''))} filled"


def _empty(part: StrArray) -> str:
    return str(int(np.sum(part == "")))


def is_number(cell: str) -> bool:
    """Whether a cell is a finite number."""
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def group_tests(cohort: Cohort, labels: Labels, variables: Sequence[Column]) -> list[dict[str, Any]]:
    """Test every variable between the classes, one examination a patient (the first in the file).

    p-values are adjusted over all variables (Benjamini & Hochberg, JRSS B 1995). They describe; nothing is chosen by
    them: a choice is fitted within the folds.

    Args:
        cohort: The analysed cases.
        labels: Their outcomes, all known.
        variables: What is tested.

    Returns:
        Lines with "variable", "column", "kind", "test", "p", "p_adjusted" (both null where there is no test),
        "effect_name", "effect" and "n".
    """
    if not variables:
        return []
    reading = table_reading(cohort, variables)
    first = np.unique(cohort.patient, return_index=True)[1]
    two = len(labels.classes) == 2
    group = (labels.values == labels.positive if two else labels.values)[first]
    found = [compare_groups(reading.values[first, j], group, c.kind) for j, c in enumerate(variables)]
    adjusted = benjamini_hochberg([test.p for test in found])
    return [
        {
            "variable": named(column),
            "column": column.name,
            "kind": column.kind,
            "test": test.test,
            "p": finite_or_none(test.p),
            "p_adjusted": finite_or_none(p),
            "effect_name": test.effect_name,
            "effect": test.effect.to_dict(),
            "n": sum(test.n),
        }
        for column, test, p in zip(variables, found, adjusted, strict=True)
    ]
