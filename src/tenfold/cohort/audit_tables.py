"""The audit of tables: cells that are not what their column says, columns that give the answer away, what is missing.

It must not know pictures, networks or folds: it gets the cohort's rows and the columns of each table.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tenfold.cohort.findings import about, one_line
from tenfold.cohort.manifest import REQUIRED, Cohort, Labels, is_mask, looks_like_picture
from tenfold.cohort.restating import Telling, how_it_tells
from tenfold.cohort.without_looking import Fact, blind_auc, column_fact, varying
from tenfold.errors import Refusal
from tenfold.modalities.table import Column, TableReading, check_values, read_table
from tenfold.types import Finding

TELLTALE_AUC = 0.6
Tables = Mapping[str, Sequence[Column]]
BoolArray = NDArray[np.bool_]


def table_reading(cohort: Cohort, columns: Sequence[Column]) -> TableReading:
    """Read the columns of a table, one row a case of the cohort.

    Raises:
        CohortError: A column is absent, or a cell is not what its column says; its row and patient are named.
    """
    return read_table(columns, cells_of(cohort), place=cohort.place)


def cells_of(cohort: Cohort) -> dict[str, list[str]]:
    """Column name -> the cells of all cases, as `read_table` takes them."""
    return {name: cohort.labels(name).tolist() for name in cohort.columns}


def read_tables(cohort: Cohort, tables: Tables, target: str) -> tuple[dict[str, TableReading], list[Finding]]:
    """Read every table, listing what is wrong with each column.

    Args:
        cohort: The cases.
        tables: Input name -> its columns.
        target: The column that holds the outcome.

    Returns:
        Input name -> its reading, for those that could be read; and the refusals.
    """
    readings: dict[str, TableReading] = {}
    found: list[Finding] = []
    cells = cells_of(cohort)
    for name, columns in tables.items():
        wrong = [f for column in columns for f in _wrong(cohort, cells, column, target)]
        if not wrong:
            try:
                readings[name] = read_table(columns, cells, place=cohort.place)
            except Refusal as error:
                wrong.append(Finding("refusal", "table", f"Table '{name}': {one_line(error)}"))
        found += wrong
    return readings, found


def _wrong(cohort: Cohort, cells: Mapping[str, Sequence[str]], column: Column, target: str) -> list[Finding]:
    """What is wrong with one column, its first wrong cell at most."""
    if column.name == target:
        message = f"The column '{target}' is the outcome itself and cannot be an input. Take it out of the columns."
        return [Finding("refusal", "restates_target", message, column=target, value=1.0)]
    if column.name in REQUIRED or is_mask(column.name):
        message = f"The column '{column.name}' says who somebody is, or where the lesion is: it cannot be an input."
        return [Finding("refusal", "not_an_input", message, column=column.name)]
    if column.formula:
        return []
    try:
        read_table((column,), cells, place=cohort.place)
    except Refusal as error:
        return [Finding("refusal", "table_cell", one_line(error), column=column.name)]
    return []


def odd_values(cohort: Cohort, readings: Mapping[str, TableReading], kept: BoolArray) -> list[Finding]:
    """Implausible, constant and empty columns among the cases that are analysed."""
    index = np.flatnonzero(kept)
    if not index.size:
        return []
    return [
        finding
        for reading in readings.values()
        for finding in check_values(
            TableReading(reading.columns, reading.values[index]),
            lambda i, column: cohort.place(int(index[i]), column),
        )
    ]


def telling_columns(
    cohort: Cohort,
    labels: Labels,
    kept: BoolArray,
    tables: Tables,
    readings: Mapping[str, TableReading],
    allowed: Iterable[str],
) -> list[Finding]:
    """Inputs that restate the outcome: a refusal each, unless they are declared."""
    positive, patients = (labels.values == labels.positive)[kept], cohort.patient[kept]
    found: list[Finding] = []
    for column, fact in _input_facts(cohort, tables, readings, kept).items():
        if len(np.unique(fact[~_missing(fact)])) + bool(_missing(fact).any()) > 1:
            telling = how_it_tells(column, fact, positive, patients, labels.classes)
            found += _judge(column, telling, column in set(allowed))
    return found


def _input_facts(
    cohort: Cohort, tables: Tables, readings: Mapping[str, TableReading], kept: BoolArray
) -> dict[str, Fact]:
    """Column -> its figures or words; the raw cells where its table could not be read."""
    facts: dict[str, Fact] = {}
    for name, columns in tables.items():
        for j, column in enumerate(columns):
            if name in readings:
                facts[column.name] = _as_fact(column, readings[name].values[kept, j])
            elif column.name in cohort.columns and column.name not in REQUIRED:
                facts[column.name] = column_fact(cohort.labels(column.name)[kept])
    return facts


def _as_fact(column: Column, values: NDArray[np.float64]) -> Fact:
    if column.kind == "number":
        return values
    return np.array(["" if math.isnan(v) else column.levels[int(v)] for v in values.tolist()], np.str_)


def _missing(fact: Fact) -> BoolArray:
    return np.asarray(np.isnan(fact) if fact.dtype.kind == "f" else fact == "")


def _judge(column: str, telling: Telling, allowed: bool) -> list[Finding]:
    """What is to be said of an input that tells the outcome."""
    value = telling.auc.value
    if telling.restates:
        head = f"The input '{column}' restates the outcome (AUC {telling.auc} alone): {telling.restates}."
        if allowed:
            return [Finding("note", "restates_target", f"{head} It is used, as declared.", column=column, value=value)]
        message = (
            f"{head} It is written down with the answer, or in view of it, so no new patient has it. Take it "
            "out of the input's columns, or declare it in `allowed` if it is truly known before."
        )
        return [Finding("refusal", "restates_target", message, column=column, value=value)]
    found = []
    if telling.strong:
        message = (
            f"The input '{column}' tells the outcome nearly alone (AUC {telling.auc}). Make sure that it is known "
            "before the answer is, and by somebody who does not know the answer."
        )
        found.append(Finding("warning", "strong_column", message, column=column, value=value))
    if telling.one_class:
        message = f"In the input '{column}' {telling.one_class}. Make sure that it does not follow from the answer."
        found.append(Finding("warning", "one_class_word", message, column=column, value=value))
    return found


def restating_elsewhere(
    cohort: Cohort, labels: Labels, kept: BoolArray, image_columns: Sequence[str], inputs: Iterable[str]
) -> list[Finding]:
    """Columns that are no inputs and restate the outcome: a warning each, lest they become one."""
    positive, patients = (labels.values == labels.positive)[kept], cohort.patient[kept]
    left_out = {*REQUIRED, "site", "date", labels.column, *image_columns, *inputs}
    found = []
    for column in cohort.columns:
        cells = cohort.labels(column)[kept]
        pictures = all(looks_like_picture(cell) for cell in cells.tolist() if cell)
        if column in left_out or is_mask(column) or len(np.unique(cells)) < 2 or pictures:
            continue
        telling = how_it_tells(column, column_fact(cells), positive, patients, labels.classes)
        if telling.restates:
            message = (
                f"The outcome can be read from the column '{column}' (AUC {telling.auc}; {telling.restates}): it "
                "restates the target. Never use it as an input."
            )
            found.append(Finding("warning", "restates_target", message, column=column, value=telling.auc.value))
    return found


def empty_rows(
    cohort: Cohort,
    readings: Mapping[str, TableReading],
    pictures: Mapping[str, BoolArray],
    *,
    connectomes: Mapping[str, BoolArray],
    absent: Literal["refuse", "allow"],
    unreadable: Literal["refuse", "exclude"],
    excluded: dict[str, str],
) -> tuple[BoolArray, list[Finding]]:
    """Find the cases that lack an input.

    Args:
        cohort: The cases.
        readings: Input name -> its table.
        pictures: Column -> (n,) true where a picture is named.
        connectomes: Input name -> (n,) true where there is one.
        absent: "allow" where another input may answer for the one that is missing.
        unreadable: "exclude" leaves out a case that may not lack what it lacks.
        excluded: Case -> reason; taken up here.

    Returns:
        (n,) true where a case may lack a picture, because `absent` allows it and it has another input; and what
        is to be said.
    """
    tables = {name: ~np.isnan(reading.values).all(axis=1) for name, reading in readings.items()}
    there = {**pictures, **connectomes, **tables}
    forgiven = np.any(list(there.values()), axis=0) if there and absent == "allow" else np.zeros(len(cohort), bool)
    found: list[Finding] = []
    for name, present in there.items():
        lacking = np.flatnonzero(~present & forgiven)
        if lacking.size:
            message = f"{lacking.size} of {len(cohort)} cases have no {name}; their other inputs answer for them."
            size = float(lacking.size)
            found.append(about(cohort, "note", "absent_input", message, lacking.tolist(), name, size))
    for name, present in (*tables.items(), *connectomes.items()):
        lacks = f"every column of the table '{name}' is empty" if name in tables else f"there is no {name}"
        found += _empty(cohort, name, lacks, np.flatnonzero(~present & ~forgiven).tolist(), unreadable, excluded)
    return forgiven, found


def _empty(
    cohort: Cohort,
    name: str,
    lacks: str,
    lacking: Sequence[int],
    unreadable: Literal["refuse", "exclude"],
    excluded: dict[str, str],
) -> list[Finding]:
    """Cases without a single value in an input that they must have."""
    found = []
    for i in lacking:
        message = f"{cohort.place(i)}: {lacks}."
        severity: Literal["refusal", "warning"] = "refusal"
        if unreadable == "exclude":
            excluded.setdefault(str(cohort.case[i]), f"no value of {name}")
            severity, message = "warning", f"{message} The case is left out."
        found.append(about(cohort, severity, "empty_row", message, [i], name))
    return found


def telling_gaps(
    cohort: Cohort,
    labels: Labels,
    kept: BoolArray,
    readings: Mapping[str, TableReading],
    pictures: Mapping[str, BoolArray],
) -> list[Finding]:
    """How well the outcome can be told from what is missing alone, no value being looked at."""
    facts: dict[str, Fact] = {name: present[kept].astype(np.float64) for name, present in pictures.items()}
    for reading in readings.values():
        for j, column in enumerate(reading.columns):
            if not column.formula:
                facts[column.name] = (~np.isnan(reading.values[kept, j])).astype(np.float64)
    facts = varying(facts)
    if not facts:
        return []
    positive, patients = (labels.values == labels.positive)[kept], cohort.patient[kept]
    auc = blind_auc(list(facts.values()), positive, patients)
    if math.isnan(auc.value):
        return []
    told = auc.low > TELLTALE_AUC
    message = f"From what is missing alone, no value being looked at, the outcome is told with AUC {auc}"
    message += f": missing in {_most_unequal(facts, positive, labels)}."
    if told:
        message += (
            " A model may learn who was tested for who is ill. Find out why, and give the result of a model of the "
            "gaps alone beside yours."
        )
    severity: Literal["warning", "note"] = "warning" if told else "note"
    return [Finding(severity, "telling_gaps", message, value=auc.value)]


_NAMED = 3


def _most_unequal(facts: Mapping[str, Fact], positive: BoolArray, labels: Labels) -> str:
    """The columns whose gaps differ most between the classes, with both shares."""
    gaps = {name: 1 - np.asarray(fact, np.float64) for name, fact in facts.items()}
    shares = {name: (gap[~positive].mean(), gap[positive].mean()) for name, gap in gaps.items()}
    worst = sorted(shares, key=lambda name: -abs(shares[name][0] - shares[name][1]))[:_NAMED]
    negative = next(name for name in labels.classes if name != labels.positive)
    return ", ".join(
        f"{name} {100 * shares[name][0]:.0f} % of {negative} and {100 * shares[name][1]:.0f} % of {labels.positive}"
        for name in worst
    )
