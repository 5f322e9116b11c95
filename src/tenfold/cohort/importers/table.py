"""A plain CSV file, with or without a column dictionary -> a cohort.

It must not know what the columns mean beyond what their cells show: units it never guesses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tenfold.cohort.describe import is_number
from tenfold.cohort.importers.common import MOST_LEVELS, Film, Imported, build, check_out, note, outcomes, read_csv
from tenfold.cohort.manifest import RESERVED, is_mask, looks_like_picture
from tenfold.errors import CohortError, nearest
from tenfold.modalities.table import COLUMNS_FILE, Column, read_columns
from tenfold.types import Finding

_MISSING = ("na", "n/a", "nan", "null")
_YES_NO = (("no", "yes"), ("No", "Yes"), ("NO", "YES"), ("n", "y"), ("N", "Y"), ("0", "1"), ("false", "true"))
_Rows = Sequence[Mapping[str, str]]


def import_table(
    source: Path,
    out: Path,
    *,
    target: str | Sequence[str] = "",
    patient_column: str = "patient",
    hardlink: bool = False,
) -> Imported:
    """Import a CSV file with one row an examination; pictures that it names are copied along.

    Beside it may lie `columns.csv`, the column dictionary. Without one a starter is written: kinds as the cells show
    them, units empty, text with many different values left out. NA, N/A, NaN and null become empty cells.

    Args:
        source: The CSV file, or a folder with one CSV file beside `columns.csv`.
        out: The folder to make.
        target: The column that holds the outcome, of two words or a score; or several.
        patient_column: The column that says who was examined; it is called `patient` in the cohort.
        hardlink: Link the pictures instead of copying them.

    Returns:
        The cohort with all columns of the file.

    Raises:
        CohortError: The file cannot be read, no column says who the patients are, or an outcome is neither of two words
            nor a score.
        OutputError: `out` holds something, or cannot be written to.
    """
    check_out(out)
    path = _table_in(source)
    header, numbered = read_csv(path)
    if patient_column not in header:
        raise CohortError(
            f"there is no column '{patient_column}'",
            expected="a column that says who was examined, the same in all rows of one person",
            do=f"{nearest(patient_column, header)} Rename it to patient, or add one",
            where=f"{path.name}, row 1",
        )
    if patient_column != "patient" and "patient" in header:
        raise CohortError(
            f"there are two columns of patients: 'patient' and '{patient_column}'", do="rename one", where=path.name
        )
    emptied: Counter[str] = Counter()
    rows = [_row(row, patient_column, emptied) for _, row in numbered]
    _name_cases(rows)
    asked = outcomes(rows, target, [name for name in rows[0] if name not in RESERVED], path.name)
    pictures = [name for name in rows[0] if _all_pictures(rows, name)]
    answers = [target] if isinstance(target, str) else target
    measured = [name for name in rows[0] if name not in (*RESERVED, *answers, *pictures)]
    dictionary, notes = _dictionary(path.parent / COLUMNS_FILE, rows, measured)
    films = [_film(row, pictures, path, number) for row, (number, _) in zip(rows, numbered, strict=True)]
    cohort = build(films, list(rows[0]), out, hardlink=hardlink, dictionary=dictionary)
    study = {
        **asked,
        "images": {name: name for name in pictures if not is_mask(name)},
        "tables": {"clinical": {"columns": [c.name for c in dictionary], "dictionary": COLUMNS_FILE}},
    }
    return Imported(cohort, (*_counts(rows, emptied), *notes), study if dictionary else {**study, "tables": {}})


def _table_in(source: Path) -> Path:
    """The CSV file to read."""
    if source.is_file():
        return source
    found = sorted(p for p in source.glob("*.csv") if p.name != COLUMNS_FILE) if source.is_dir() else []
    if len(found) != 1:
        raise CohortError(
            f"there are {len(found)} CSV files here" if source.is_dir() else "there is no such file",
            expected=f"one CSV file, and {COLUMNS_FILE} beside it where there is one",
            where=str(source),
        )
    return found[0]


def _row(row: Mapping[str, str], patient_column: str, emptied: Counter[str]) -> dict[str, str]:
    """The cells of a row, the words for missing emptied and counted."""
    emptied.update(name for name, cell in row.items() if cell.lower() in _MISSING)
    cells = {name: "" if cell.lower() in _MISSING else cell for name, cell in row.items()}
    patient = cells.pop(patient_column)
    return {"case": cells.pop("case", ""), "patient": patient, **cells}


def _name_cases(rows: Sequence[dict[str, str]]) -> None:
    """Where no column names the cases: by the patient, with a number where one has several."""
    several, seen = Counter(row["patient"] for row in rows), Counter[str]()
    if any(row["case"] for row in rows):
        return
    for row in rows:
        patient = row["patient"]
        seen[patient] += 1
        row["case"] = patient if several[patient] == 1 else f"{patient}-{seen[patient]}"


def _all_pictures(rows: _Rows, name: str) -> bool:
    cells = [row[name] for row in rows if row[name]]
    return name not in RESERVED and bool(cells) and all(map(looks_like_picture, cells))


def _film(row: Mapping[str, str], columns: Sequence[str], table: Path, number: int) -> Film:
    """One row, with the pictures it names."""
    pictures = {}
    for column in columns:
        if row[column]:
            path = (table.parent / row[column]).resolve()
            if not path.is_relative_to(table.parent.resolve()) or not path.is_file():
                where = f"{table.name}, row {number}, column {column}"
                raise CohortError(f"there is no picture '{row[column]}' below the table", where=where)
            pictures[column] = (f"{column}/{row['case']}{path.suffix.lower()}", path)
    return Film(row, others=pictures)


def _dictionary(path: Path, rows: _Rows, measured: Sequence[str]) -> tuple[tuple[Column, ...], list[Finding]]:
    """The column dictionary that lies there, or one made from the cells."""
    if path.is_file():
        return read_columns(path), []
    made = {name: guess_column(name, [row[name] for row in rows if row[name]]) for name in measured}
    columns = tuple(column for column in made.values() if column)
    left = [name for name, column in made.items() if column is None]
    message = (
        f"{COLUMNS_FILE} was made from the cells: {len(columns)} columns. Check every kind, and write the units, LOINC "
        "codes and plausible limits in: none was guessed. Take out what is not known before the outcome."
    )
    notes = [Finding("warning", "dictionary", message)] if columns else []
    if left:
        message = f"No values, or text with more than {MOST_LEVELS} different: {', '.join(left)}. They are no inputs."
        notes.append(note("dictionary", message))
    return columns, notes


def guess_column(name: str, filled: Sequence[str]) -> Column | None:
    """Say what kind of column its filled cells look like; None where it is text, or holds fewer than two values."""
    levels = sorted(set(filled))
    if len(levels) < 2:
        return None
    for pair in _YES_NO:
        if set(levels) == set(pair):
            return Column(name, kind="yes_no", levels=pair)
    if all(map(is_number, filled)):
        return Column(name)
    return Column(name, kind="category", levels=tuple(levels)) if len(levels) <= MOST_LEVELS else None


def _counts(rows: _Rows, emptied: Counter[str]) -> Iterator[Finding]:
    """How many rows and patients there are, and which cells were emptied."""
    yield note("patients", f"{len(rows)} rows of {len({row['patient'] for row in rows})} patients.")
    if emptied:
        said = ", ".join(f"{name} ({count})" for name, count in sorted(emptied.items()))
        yield note("cells", f"NA, N/A, NaN and null became empty cells in {said}.")
