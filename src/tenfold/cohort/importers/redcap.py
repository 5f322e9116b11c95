"""An export of REDCap (Harris et al., J Biomed Inform 2009) with its data dictionary -> a cohort.

It must not know any project. Branching logic is not followed: a question that was not asked is an empty cell.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from tenfold.cohort.describe import is_number
from tenfold.cohort.importers.common import (
    Film,
    Imported,
    build,
    check_out,
    note,
    outcomes,
    read_csv,
    require_folder,
)
from tenfold.errors import CohortError, nearest
from tenfold.modalities.table import Column
from tenfold.types import Finding

_NAME, _TYPE, _LABEL = "Variable / Field Name", "Field Type", "Field Label"
_CHOICES = "Choices, Calculations, OR Slider Labels"
_CHECK = "Text Validation Type OR Show Slider Number"
_LOW, _HIGH, _IDENTIFIER = "Text Validation Min", "Text Validation Max", "Identifier?"
_BRANCHING = "Branching Logic (Show field only if...)"
_EVENT, _REPEAT = "redcap_event_name", "redcap_repeat_instrument"
_SITE = "redcap_data_access_group"
_NUMBERS = re.compile(r"number|integer|float")
_ONE_CHOICE = ("radio", "dropdown")
_TWO = {"yesno": ("no", "yes"), "truefalse": ("false", "true")}
_TWO_CODES = {"0": 0, "1": 1, "no": 0, "yes": 1, "false": 0, "true": 1}
_CHECKED = {"0": "no", "1": "yes", "unchecked": "no", "checked": "yes", "": ""}
_DIRTY = re.compile(r"<[^>]*>")


@dataclass(frozen=True)
class _Field:
    """One field of the data dictionary.

    Attributes:
        name: As in the dictionary.
        kind: Its field type.
        label: Its question.
        choices: Code -> label.
        check: How text is validated.
        low: Smallest value the form takes; empty: none.
        high: Largest value the form takes; empty: none.
        identifier: Whether the dictionary flags it as one.
    """

    name: str
    kind: str
    label: str
    choices: Mapping[str, str]
    check: str
    low: str
    high: str
    identifier: bool

    @property
    def number(self) -> bool:
        """Whether its cells are numbers."""
        return self.kind in ("calc", "slider") or (self.kind == "text" and bool(_NUMBERS.match(self.check)))

    @property
    def date(self) -> bool:
        """Whether its cells are dates."""
        return self.kind == "text" and self.check.startswith("date")


def import_redcap(
    source: Path, out: Path, *, target: str | Sequence[str] = "", event: str = "", hardlink: bool = False
) -> Imported:
    """Import a REDCap project: one row a record.

    Fields flagged as identifiers, free text, notes and files are dropped, and it is said; a record id that is flagged
    is replaced by a number. Codes become the labels of their choices, a checkbox becomes one yes/no column a choice.

    Args:
        source: A folder with the export of the records (CSV, raw or labels as values, field names as headings) and the
            data dictionary (CSV); they are told apart by their headings.
        out: The folder to make.
        target: The field that holds the outcome, of two choices or a score; or several.
        event: Of a longitudinal project or one with repeated instruments, the event to take: its unrepeated rows.
        hardlink: Accepted as by every importer; there are no files to link.

    Returns:
        The cohort, its `columns.csv` without units: REDCap has none.

    Raises:
        CohortError: The files are not there or do not fit each other, a cell is not of its field's type, or a record
            has several rows.
        OutputError: `out` holds something, or cannot be written to.
    """
    require_folder(source)
    check_out(out)
    export, dictionary = _files(source)
    fields, branching = _fields(dictionary)
    header, rows = read_csv(export)
    record = next(iter(fields))
    if record not in header:
        raise CohortError(
            f"there is no column '{record}', the record id", do=nearest(record, header), where=export.name
        )
    rows, repeats = _one_a_record(rows, record, event, export.name)
    for name in ("case", "patient"):
        if name in fields and name != record:
            raise CohortError(
                f"a field is called '{name}'", do="rename it: the record id goes there", where=dictionary.name
            )
    used = [f for f in fields.values() if f.name != record and _usable(f) and _headings(f, header)]
    pseudonym = _pseudonyms(rows, fields[record])
    table = [_cells(row, used, header, f"{export.name}, row {number}") for number, row in rows]
    answers = [target] if isinstance(target, str) else target
    candidates = [name for name in table[0] if _target_field(name, fields, answers)]
    asked = outcomes(table, target, candidates, export.name)
    columns = [c for f in used for c in _columns(f, header) if c.name not in answers]
    films = []
    for (_, row), cells in zip(rows, table, strict=True):
        site = {"site": row[_SITE]} if _SITE in header else {}
        who = pseudonym[row[record]]
        films.append(Film({"case": who, "patient": who, **site, **cells}))
    cohort = build(films, list(films[0].values), out, dictionary=columns)
    notes = [*_notes(fields, used, record, header, branching), *repeats]
    tables = {"clinical": {"columns": [c.name for c in columns], "dictionary": "columns.csv"}} if columns else {}
    return Imported(cohort, tuple(notes), {**asked, "tables": tables})


def _files(source: Path) -> tuple[Path, Path]:
    """The export and the data dictionary."""
    found: dict[bool, list[Path]] = {False: [], True: []}
    for path in sorted(source.glob("*.csv")):
        found[_NAME in path.read_text(encoding="utf-8-sig", errors="replace").split("\n", 1)[0]].append(path)
    if len(found[True]) != 1 or len(found[False]) != 1:
        raise CohortError(
            f"there are {len(found[True])} data dictionaries and {len(found[False])} other CSV files here",
            expected=f"one data dictionary (its first heading is '{_NAME}') and one export of the records",
            where=str(source),
        )
    return found[False][0], found[True][0]


def _fields(path: Path) -> tuple[dict[str, _Field], int]:
    """The fields by name, in order; and how many have branching logic."""
    header, rows = read_csv(path)
    for name in (_NAME, _TYPE, _LABEL, _CHOICES, _CHECK, _IDENTIFIER):
        if name not in header:
            raise CohortError(f"there is no heading '{name}'", do=nearest(name, header), where=path.name)
    fields = {}
    for number, row in rows:
        kind = row[_TYPE].lower()
        several = kind in (*_ONE_CHOICE, "checkbox")
        choices = _choices(row[_CHOICES], f"{path.name}, row {number}") if several else {}
        label = " ".join(_DIRTY.sub(" ", row[_LABEL]).split())
        low, high = row.get(_LOW, ""), row.get(_HIGH, "")
        flagged = row[_IDENTIFIER].lower() == "y"
        fields[row[_NAME]] = _Field(row[_NAME], kind, label, choices, row[_CHECK].lower(), low, high, flagged)
    return fields, sum(bool(row.get(_BRANCHING)) for _, row in rows)


def _choices(text: str, where: str) -> dict[str, str]:
    """Code -> label of `1, Mild | 2, Severe`; two choices of one label keep their codes."""
    pairs = [[part.strip() for part in choice.split(",", 1)] for choice in text.split("|") if choice.strip()]
    if not pairs or any(len(pair) != 2 or not all(pair) for pair in pairs):
        raise CohortError(f"the choices '{text}' cannot be read", expected="1, Mild | 2, Severe", where=where)
    plain = {code: " ".join(_DIRTY.sub(" ", label).split()) for code, label in pairs}
    often = Counter(plain.values())
    return {code: label if often[label] == 1 else f"{label} ({code})" for code, label in plain.items()}


def _one_a_record(
    rows: list[tuple[int, dict[str, str]]], record: str, event: str, where: str
) -> tuple[list[tuple[int, dict[str, str]]], list[Finding]]:
    """The rows of one event, those of repeated instruments left out; refused where a record has still several."""
    events = sorted({row[_EVENT] for _, row in rows if _EVENT in row})
    if len(events) > 1 and not event:
        raise CohortError(
            f"the records have several events: {', '.join(events)}",
            do="choose the one at which the question is asked, with --event",
            where=where,
        )
    if event and event not in events:
        raise CohortError(f"there is no event '{event}'", do=nearest(event, events) if events else "", where=where)
    rows = [(number, row) for number, row in rows if not event or row[_EVENT] == event]
    repeated = Counter(row[_REPEAT] for _, row in rows if row.get(_REPEAT))
    if repeated and not event:
        raise CohortError(
            f"instruments are repeated: {', '.join(f'{name} ({count} rows)' for name, count in repeated.items())}",
            expected="one row a record: which repetition speaks for the patient is yours to say",
            do="name the event with --event, which leaves repeated rows out, or export a report of one row a record",
            where=where,
        )
    rows = [(number, row) for number, row in rows if not row.get(_REPEAT)]
    for name, count in Counter(row[record] for _, row in rows).items():
        if count > 1 or not name:
            raise CohortError(f"record '{name}' has {count} rows", expected="one row a record", where=where)
    if not rows:
        raise CohortError("no row is left", expected="one row a record", where=where)
    message = f"{sum(repeated.values())} rows of repeated instruments were left out: {', '.join(repeated)}."
    return rows, [note("repeated", message)] if repeated else []


def _usable(field: _Field) -> bool:
    """Whether a field becomes columns: no identifier, no free text, no file."""
    return not field.identifier and (field.number or field.date or field.kind in (*_ONE_CHOICE, *_TWO, "checkbox"))


def _headings(field: _Field, header: Sequence[str]) -> list[str]:
    """The columns of the export that hold a field; a checkbox has one a choice."""
    if field.kind == "checkbox":
        names = [f"{field.name}___{code.lower().replace('-', '_')}" for code in field.choices]
        return [name for name in names if name in header]
    return [field.name] if field.name in header else []


def _cells(row: Mapping[str, str], fields: Sequence[_Field], header: Sequence[str], where: str) -> dict[str, str]:
    """The cells of one record, codes turned into words."""
    return {
        name: _cell(field, row[name], f"{where}, column {name}")
        for field in fields
        for name in _headings(field, header)
    }


def _cell(field: _Field, cell: str, where: str) -> str:
    """One cell of a field, as the cohort writes it."""
    if field.kind == "checkbox":
        if cell.lower() in _CHECKED:
            return _CHECKED[cell.lower()]
        raise CohortError(f"'{cell}' is no state of a checkbox", expected="0, 1, Checked or Unchecked", where=where)
    if not cell or field.date:
        return cell
    if field.number:
        number = cell.replace(",", ".") if "comma_decimal" in field.check else cell
        if not is_number(number):
            raise CohortError(f"'{cell}' is not a number", expected="a number or an empty cell", where=where)
        return number
    if field.kind in _TWO:
        if cell.lower() in _TWO_CODES:
            return _TWO[field.kind][_TWO_CODES[cell.lower()]]
        raise CohortError(f"'{cell}' is neither yes nor no", expected="0 or 1", where=where)
    if cell in field.choices:
        return field.choices[cell]
    plain = " ".join(_DIRTY.sub(" ", cell).split())
    if plain in field.choices.values():
        return plain
    known = [f"{code}, {label}" for code, label in field.choices.items()]
    raise CohortError(f"'{cell}' is no choice of {field.name}", expected=" | ".join(known), where=where)


def _columns(field: _Field, header: Sequence[str]) -> list[Column]:
    """The columns of a field in the column dictionary; a date is none."""
    if field.date:
        return []
    if field.kind == "checkbox":
        labels = {f"{field.name}___{code.lower().replace('-', '_')}": label for code, label in field.choices.items()}
        return [Column(n, f"{field.label}: {labels[n]}", "yes_no") for n in _headings(field, header)]
    if field.number:
        low, high = (float(text) if is_number(text) else math.nan for text in (field.low, field.high))
        return [Column(field.name, field.label, low=low, high=high)]
    if field.kind in _TWO:
        return [Column(field.name, field.label, "yes_no", levels=_TWO[field.kind])]
    levels = tuple(field.choices.values())
    by_word = {level.lower(): level for level in levels}
    if set(by_word) == {"no", "yes"}:
        return [Column(field.name, field.label, "yes_no", levels=(by_word["no"], by_word["yes"]))]
    return [Column(field.name, field.label, "category", levels=levels)] if len(levels) > 1 else []


def _target_field(name: str, fields: Mapping[str, _Field], asked: Sequence[str]) -> bool:
    """Whether a column can hold an outcome: choices, one choice of a checkbox, or a number that is asked for."""
    field = fields[name.split("___")[0]] if name not in fields else fields[name]
    return field.kind in (*_ONE_CHOICE, *_TWO, "checkbox") or (field.number and name in asked)


def _pseudonyms(rows: Sequence[tuple[int, Mapping[str, str]]], record: _Field) -> dict[str, str]:
    """Record id -> the patient's name: itself, or a number where the dictionary calls it an identifier."""
    names = [row[record.name] for _, row in rows]
    if not record.identifier:
        return {name: name for name in names}
    # patients of two imports must not bear the same number
    mark = sha256("\n".join(names).encode()).hexdigest()[:4]
    return {name: f"{mark}-{k:05d}" for k, name in enumerate(names, start=1)}


def _notes(
    fields: Mapping[str, _Field], used: Sequence[_Field], record: str, header: Sequence[str], branching: int
) -> Iterator[Finding]:
    """What the owner of the cohort should know."""
    taken = {field.name for field in used}
    left = [f for f in fields.values() if f.name not in taken and f.name in header and f.name != record]
    flagged = [field.name for field in left if field.identifier]
    if flagged:
        yield note("identifiers", f"Flagged as identifiers and dropped: {', '.join(flagged)}.")
    if fields[record].identifier:
        yield note("identifiers", f"The record id '{record}' is flagged as an identifier: numbers stand in its place.")
    others = [f"{field.name} ({field.kind})" for field in left if not field.identifier]
    if others:
        yield note("not_imported", f"Free text and files were dropped: {', '.join(others)}.")
    absent = [f.name for f in fields.values() if f.kind != "descriptive" and not _headings(f, header)]
    if absent:
        yield note("not_imported", f"In the dictionary but not in the export: {', '.join(absent)}.")
    dates = [field.name for field in used if field.date]
    if dates:
        yield note("dates", f"Dates are kept in the cohort file but are no inputs: {', '.join(dates)}.")
    if branching:
        message = f"{branching} fields have branching logic, which is not followed: what was not asked is missing."
        yield note("branching", message)
    message = (
        "REDCap knows no units: write them and the LOINC codes into columns.csv. Choices are taken as unordered: where "
        "they have an order set kind to ordered. Take out of the input's columns what is not known before the outcome."
    )
    yield Finding("warning", "dictionary", message)
