"""Many cases at once: a table and a zip in, the same answers as one by one, a table out.

It must not know networks, pages or requests, and writes nothing to a disk.
"""

from __future__ import annotations

import asyncio
import csv
import io
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tenfold.errors import CohortError, Refusal, nearest
from tenfold.report.words import count, joined, units
from tenfold.serve.answer import Answer, Busy, TargetAnswer
from tenfold.serve.case import LONGEST_CELL, Given, Upload
from tenfold.serve.chain import harmless
from tenfold.serve.model import Model
from tenfold.serve.shown import sentence_case, words

MOST_CASES = 500
LONGEST_TABLE, _MOST_LINES = 4 * 2**20, 100_000
CASE = "case"
BETWEEN_FILES = ";"
_LONGEST_NAME = 80
_FILES_COMPARED = 100
_MOST_AT_ONCE = 2  # batches that run; one a session
_SLOWEST_RETRY = 30  # seconds

Ask = Callable[[Given], Awaitable[Answer]]


@dataclass(frozen=True)
class BatchColumn:
    """One column of the table of a batch.

    Attributes:
        name: Its heading.
        kind: "case", "files", "layout", "cell" or "beside".
        input: Which input it belongs to; empty for the case.
        column: Which column of that input; empty for files and layouts.
        text: What stands in it, for a person.
        pictures: Most files in one cell.
        needed: Whether the heading must be there.
    """

    name: str
    kind: str
    input: str = ""
    column: str = ""
    text: str = ""
    pictures: int = 0
    needed: bool = True


@dataclass(frozen=True)
class BatchRow:
    """What is said of one case of a batch.

    Attributes:
        case: Its name.
        targets: Target -> answer; empty without a result.
        remarks: Why there is no result, doubts, and what was not given.
    """

    case: str
    targets: Mapping[str, TargetAnswer] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


@dataclass
class Batch:
    """Cases that are answered one after the other.

    Attributes:
        model: Who is asked.
        total: How many cases there are.
        notes: What was odd about what was sent.
        rows: Answers so far, in the order of the table.
        ended: Whether no more will come.
        stopped: Why it ended early; empty where it did not.
    """

    model: Model
    total: int
    notes: tuple[str, ...] = ()
    rows: list[BatchRow] = field(default_factory=list)
    ended: bool = False
    stopped: str = ""
    _running: asyncio.Task[None] | None = field(default=None, repr=False)


class Batches:
    """The batches that run now.

    Attributes:
        reading: Whoever reads what a batch was sent as holds it.
    """

    def __init__(self) -> None:
        self.reading = asyncio.Lock()
        self._running: dict[str, Batch] = {}

    def check_room(self, owner: str) -> None:
        """Refuse a batch that could not be started.

        Raises:
            Busy: This session has a batch running, or there are too many.
        """
        self._running = {name: one for name, one in self._running.items() if not one.ended}
        if owner in self._running or len(self._running) >= _MOST_AT_ONCE:
            raise Busy(_SLOWEST_RETRY)

    def start(self, owner: str, batch: Batch, cases: Sequence[Given], ask: Ask) -> Batch:
        """Let a batch run beside everything else.

        Args:
            owner: The session it belongs to; it may have one at a time.
            batch: Where the answers go.
            cases: What is asked.
            ask: Answers one case, or raises Busy: then single cases go first.

        Raises:
            Busy: This session has a batch running, or there are too many.
        """
        self.check_room(owner)
        self._running[owner] = batch
        batch._running = asyncio.create_task(_run(batch, deque(cases), ask))
        return batch

    async def stop(self, owner: str) -> None:
        """Stop the batch of one session, if it has one."""
        batch = self._running.pop(owner, None)
        if batch is not None and batch._running is not None:
            batch._running.cancel()
            await asyncio.gather(batch._running, return_exceptions=True)

    async def close(self) -> None:
        """Stop all of them."""
        for owner in list(self._running):
            await self.stop(owner)


async def _run(batch: Batch, cases: deque[Given], ask: Ask) -> None:
    """Answer case after case, and let each go when it is answered."""
    try:
        while cases:
            try:
                batch.rows.append(_row(batch.model, await ask(cases[0])))
            except Busy as busy:
                await asyncio.sleep(min(busy.retry_after, _SLOWEST_RETRY))
                continue
            except Refusal as refusal:
                batch.rows.append(BatchRow(cases[0].case, remarks=(str(refusal),)))
            cases.popleft()
    except asyncio.CancelledError:
        batch.stopped = "it was broken off."
        raise
    except Exception:
        batch.stopped = "something went wrong in the server. The answers so far are right."
        raise
    finally:
        cases.clear()
        batch.ended = True


def _row(model: Model, answer: Answer) -> BatchRow:
    """What a batch keeps of an answer."""
    labels = {view["name"]: view["label"] or view["name"] for view in model.form["images"]}
    doubts = [
        f"{sentence_case(labels.get(check.input, check.input))}: {check.message}"
        for check in answer.quality
        if check.verdict == "doubtful"
    ]
    missing = [f"not given: {words(labels.get(name, name))}" for name in answer.missing_inputs]
    cells = [f"not given in {words(name)}: {', '.join(cells)}" for name, cells in answer.missing_cells.items() if cells]
    return BatchRow(
        answer.case, {target.name: target for target in answer.targets}, (*answer.reasons, *doubts, *missing, *cells)
    )


def batch_columns(form: Mapping[str, Any]) -> tuple[BatchColumn, ...]:
    """Return the columns that the table of a batch has.

    Args:
        form: Of the model.
    """
    listed = [BatchColumn(CASE, "case", text="name of the case, each once; no names of patients")]
    for view in form["images"]:
        most = view["pictures"]
        text = "name of a picture in the zip" if most == 1 else f"up to {most} pictures, with {BETWEEN_FILES} between"
        listed.append(BatchColumn(view["name"], "files", view["name"], text=text, pictures=most))
        if view["layouts"]:
            text = f"scanner: {' | '.join(view['layouts'])}; empty: another"
            listed.append(BatchColumn(f"{view['name']}_scanner", "layout", view["name"], text=text, needed=False))
    for part in form["connectomes"]:
        text = f"name of a file in the zip, {part['regions']} regions"
        listed.append(BatchColumn(part["name"], "files", part["name"], text=text, pictures=1))
        listed += [BatchColumn(c, "beside", part["name"], c, f"for the {part['name']}") for c in part["needs"]]
    for table in form["tables"]:
        listed += [
            BatchColumn(column["name"], "cell", table["name"], column["name"], _in_words(column))
            for column in table["columns"]
        ]
    names = [column.name for column in listed]
    return tuple(
        column
        if names.count(column.name) == 1 or column.kind == "case"
        else BatchColumn(f"{column.input}.{column.name}", **{k: v for k, v in vars(column).items() if k != "name"})
        for column in listed
    )


def _in_words(column: Mapping[str, Any]) -> str:
    """What a cell of a table may hold."""
    if column["kind"] != "number":
        return f"{column['label'] or column['name']}: {' | '.join(column['levels'])}"
    unit = "" if column["unit"] in ("", "1") else f", {units(column['unit'])}"
    return f"{column['label'] or column['name']}: a number{unit}"


def empty_table(form: Mapping[str, Any]) -> str:
    """Return the table of a batch without cases, as CSV."""
    return _csv([[column.name for column in batch_columns(form)]])


def read_cases(
    form: Mapping[str, Any], table: bytes, files: Mapping[str, bytes], *, most: int = MOST_CASES
) -> tuple[list[Given], tuple[str, ...]]:
    """Read the table of a batch, and give every case its files.

    Args:
        form: Of the model.
        table: CSV, UTF-8, with comma, semicolon or tab between the cells.
        files: Name -> content, as they came in the zip; a file may also be named without its folders.
        most: Cases at most.

    Returns:
        The cases in the order of the table, and what was odd, in words.

    Raises:
        CohortError: It cannot be read, a column is missing or unknown, a case is named twice, a file is not in the zip.
    """
    columns = batch_columns(form)
    header, rows = _read_table(table, most)
    _check_header(columns, header)
    if not rows:
        raise CohortError("the table has no cases", expected="one row a case below the header")
    found = _by_short_name(files)
    cases, used = [], set[str]()
    for number, row in rows:
        cells = {name: cell.strip() for name, cell in zip(header, row, strict=True)}
        cases.append(_case(columns, cells, found, used, f"table, row {number}"))
    names = [case.case for case in cases]
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise CohortError(f"the case '{twice[0]}' is there twice", expected="each case once", where="table")
    idle = len(files) - len(used)
    return cases, ((f"{count(idle, 'file')} of the zip not named in the table, and not looked at",) if idle else ())


def _read_table(table: bytes, most: int) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the header and the numbered rows that are not empty, which may be so many."""
    if len(table) > LONGEST_TABLE or table.count(b"\n") > _MOST_LINES:
        expected = f"{LONGEST_TABLE // 2**20} MiB and {_MOST_LINES} lines at most"
        raise CohortError("the table is too large", expected=expected)
    try:
        text = table.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CohortError("the table is not UTF-8 text", do="save it as “CSV UTF-8”", where="table") from None
    first = text.split("\n", 1)[0]
    separator = max(",;\t", key=first.count)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    rows: list[tuple[int, list[str]]] = []
    try:
        header = [name.strip() for name in next(lines, [])]
        for number, row in enumerate(lines, start=2):
            if any(cell.strip() for cell in row):
                _check_row(row, header, f"table, row {number}")
                rows.append((number, row))
            if len(rows) > most:  # a table may have millions of lines: no more of it is read
                raise CohortError(f"the table has more than {most} cases", expected=f"{most} at most", do=_IN_PARTS)
    except csv.Error as error:
        raise CohortError(f"the table cannot be read: {error}", expected="CSV", where="table") from None
    return header, rows


_IN_PARTS = "send it in parts"


def _check_row(row: Sequence[str], header: Sequence[str], where: str) -> None:
    """Refuse a row of another length than the header, and a cell that nobody would fill so."""
    if len(row) != len(header):
        raise CohortError(
            f"{count(len(row), 'cell')} in a row", expected=f"{len(header)}, as in the header", where=where
        )
    if (longest := max(map(len, row))) > LONGEST_CELL:
        raise CohortError(f"a cell of {longest} characters", expected=f"{LONGEST_CELL} at most", where=where)


def _check_header(columns: Sequence[BatchColumn], header: Sequence[str]) -> None:
    """Refuse a heading too many, one too few, and one twice: a misspelt one would pass for missing values."""
    known = [column.name for column in columns]
    for name in header:
        if name not in known:
            raise CohortError(
                f"the table has a column '{name[:80]}'",
                do=nearest(name[:80], known) + " Or take it out.",
                where="table",
            )
        if list(header).count(name) > 1:
            raise CohortError(f"the column '{name}' is there twice", where="table")
    if lacking := [column.name for column in columns if column.needed and column.name not in header]:
        raise CohortError(
            f"the table has no column {joined(lacking)}",
            expected=f"the columns {', '.join(known)}",
            do="leave the cells empty where nothing is known, but keep the column",
            where="table",
        )


def _by_short_name(files: Mapping[str, bytes]) -> dict[str, Upload]:
    """Let a file be named with its folders, and without where that is unambiguous."""
    short = [name.rsplit("/", 1)[-1] for name in files]
    uploads = {name: Upload(name.rsplit("/", 1)[-1], data) for name, data in files.items()}
    plain = {upload.name: upload for upload in uploads.values() if short.count(upload.name) == 1}
    return plain | uploads


def _case(
    columns: Sequence[BatchColumn], cells: Mapping[str, str], files: Mapping[str, Upload], used: set[str], where: str
) -> Given:
    """Put one row together."""
    name = cells[CASE]
    if not name or len(name) > _LONGEST_NAME:
        raise CohortError("no name of the case" if not name else "a name that is too long", where=where)
    uploads: dict[str, tuple[Upload, ...]] = {}
    layouts: dict[str, str] = {}
    rows: dict[str, dict[str, str]] = {}
    beside: dict[str, dict[str, str]] = {}
    for column in columns:
        cell = cells.get(column.name, "")
        if column.kind == "cell":
            rows.setdefault(column.input, {})[column.column] = cell
        elif cell and column.kind == "files":
            uploads[column.input] = _uploads(column, cell, files, used, where)
        elif cell and column.kind == "layout":
            layouts[column.input] = cell
        elif cell and column.kind == "beside":
            beside.setdefault(column.input, {})[column.column] = cell
    return Given(name, uploads, layouts, rows, beside)


def _uploads(
    column: BatchColumn, cell: str, files: Mapping[str, Upload], used: set[str], where: str
) -> tuple[Upload, ...]:
    """Find the files that a cell names."""
    names = [name.strip() for name in cell.split(BETWEEN_FILES) if name.strip()]
    if len(names) > column.pictures:
        raise CohortError(f"{len(names)} files in {column.name}", expected=f"{column.pictures} at most", where=where)
    for name in names:
        if name not in files:
            some = [file for file in files if len(file) <= _LONGEST_NAME][:_FILES_COMPARED]  # comparing takes long
            do = nearest(name[:80], some) if some else ""
            raise CohortError(f"the zip holds no file '{name}'", do=do, where=where)
        used.add(files[name].sha256)
    return tuple(files[name] for name in names)


def results_table(batch: Batch) -> str:
    """Return the answers as CSV; no cell of it is a formula to a spreadsheet."""
    model, several = batch.model, len(batch.model.targets) > 1
    header = [CASE, "result"]
    for target in model.targets:
        before = f"{target['name']}." if several else ""
        header += [f"{before}decision", *(f"{before}p_{name}" for name in target["classes"]), f"{before}prediction_set"]
    lines: list[list[str]] = [[*header, "remarks", "model", "weights_sha256"]]
    for row in batch.rows:
        cells = [row.case, "yes" if row.targets else "no"]
        for target in model.targets:
            cells += _told(target, row.targets.get(target["name"]))
        lines.append([*cells, " | ".join(row.remarks), model.title, model.digest])
    return _csv(lines)


def _told(target: Mapping[str, Any], told: TargetAnswer | None) -> list[str]:
    """The cells of one target."""
    if told is None:
        return [""] * (len(target["classes"]) + 2)
    likely = "" if told.prediction_set is None else BETWEEN_FILES.join(told.prediction_set) or "none"
    return [told.decision, *(f"{told.probabilities[name]:.4f}" for name in target["classes"]), likely]


def _csv(lines: Sequence[Sequence[str]]) -> str:
    """Write CSV; no cell is a formula to a spreadsheet."""
    out = io.StringIO()
    csv.writer(out).writerows([[harmless(cell) for cell in line] for line in lines])
    return out.getvalue()
