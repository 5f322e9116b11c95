"""The log read back: whether it is whole, and its lines of a span of time.

It must not know the server; it reads files alone, and may do so while a server writes them.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from tenfold.errors import OutputError, ServeError, nearest
from tenfold.serve.chain import GENESIS, canonical, harmless, read_head, record_of, segment_name, segments_of

COLUMNS = (
    "time", "ended", "user", "event", "model", "digest", "version", "case", "inputs", "quality", "outputs",
    "thresholds", "previous", "sha256",
)  # fmt: skip


@dataclass(frozen=True)
class LogFinding:
    """One thing that verification found.

    Attributes:
        check: "edited", "order", "segment", "tail" or "head" mean that the log was tampered with; "partial" is the
            unfinished line that a crash leaves behind, which was never acknowledged.
        message: What was found, for a person.
        segment: Name of the file.
        line: Line in it, from 1; 0 where it is about the file as a whole.
    """

    check: str
    message: str
    segment: str = ""
    line: int = 0

    @property
    def tampering(self) -> bool:
        """Whether no crash can explain it."""
        return self.check != "partial"


def verify(folder: Path) -> tuple[LogFinding, ...]:
    """Check every line of a log against the chain.

    Args:
        folder: The folder of the log; it may be in use.

    Returns:
        What was found; nothing where the log is whole.

    Raises:
        OutputError: if there is no log in the folder.
    """
    found: list[LogFinding] = []
    head = read_head(folder)  # before the lines: a server that writes meanwhile only moves on from it
    segments = _there(folder)
    previous, removed, first_number, first_link = "", {}, segments[0][0], ""
    head_seen = head is None
    for place_in_order, (number, place) in enumerate(segments):
        if place_in_order and number != segments[place_in_order - 1][0] + 1:
            found.append(LogFinding("segment", "the segment before this one is missing", place.name))
        data = place.read_bytes()
        lines = data.split(b"\n")
        unfinished = lines.pop()
        for row, line in enumerate(lines, start=1):
            record, wrong = record_of(line)
            if record is None:
                found.append(LogFinding("edited", wrong, place.name, row))
                previous = _claimed(line)
                continue
            if not previous and not first_link:
                first_link = str(record["previous"])
            elif record["previous"] != previous:
                found.append(LogFinding("order", _WRONG_ORDER, place.name, row))
            if row == 1 and (record.get("event") != "segment" or record.get("segment") != number):
                found.append(LogFinding("segment", "it does not begin with its own first line", place.name, row))
            for gone in record.get("removed", ()) if record.get("event") == "retention" else ():
                removed[int(gone["segment"])] = str(gone["last"])
            previous = str(record["sha256"])
            head_seen = head_seen or head == (number, row, previous)
        if unfinished:
            found.append(_about_unfinished(place.name, len(lines) + 1, last=place == segments[-1][1]))
    if head is None:
        found.append(LogFinding("head", "the file `head` is missing: whether the last lines were cut cannot be told"))
    elif not head_seen:
        gone = f"line {head[1]}, which was acknowledged, is gone or was altered"
        found.append(LogFinding("tail", gone, segment_name(head[0]), head[1]))
    found += _about_first(first_number, first_link, removed, segments[0][1].name)
    return tuple(found)


def head(folder: Path) -> str:
    """The sha256 of the last acknowledged line: what to note down elsewhere.

    Raises:
        OutputError: if there is no log in the folder.
    """
    _there(folder)
    known = read_head(folder)
    return known[2] if known else ""


def records(folder: Path, since: str = "", until: str = "") -> Iterator[dict[str, Any]]:
    """The lines of a log in order.

    Args:
        folder: The folder of the log.
        since: ISO date or time in UTC; lines before it are left out.
        until: ISO date or time in UTC; lines at or after it are left out.

    Yields:
        One mapping a line; lines that are no JSON are left to `verify`.

    Raises:
        OutputError: if there is no log in the folder.
        Refusal: if a time cannot be read.
    """
    low, high = (_moment(text) if text else None for text in (since, until))
    for _, place in _there(folder):
        with place.open("rb") as lines:
            for line in lines:
                record, _ = record_of(line.rstrip(b"\n"))
                if record is None:
                    continue
                stamp = datetime.fromisoformat(str(record["time"]))
                if (low is None or stamp >= low) and (high is None or stamp < high):
                    yield record


def export(folder: Path, out: TextIO, *, since: str = "", until: str = "", form: str = "jsonl") -> int:
    """Write the lines of a span of time.

    Args:
        folder: The folder of the log.
        out: Where to write.
        since: ISO date or time in UTC, from which on.
        until: ISO date or time in UTC, before which.
        form: "jsonl" or "csv" (what is nested stays JSON in its cell).

    Returns:
        How many lines were written.

    Raises:
        OutputError: if there is no log in the folder.
        Refusal: if a time cannot be read or the form is unknown.
    """
    if form not in ("jsonl", "csv"):
        raise ServeError(f"The form '{form}' is unknown", expected=nearest(form, ("jsonl", "csv")))
    table = csv.writer(out, lineterminator="\n") if form == "csv" else None
    if table:
        table.writerow(COLUMNS)
    count = 0
    for record in records(folder, since, until):
        if table:
            table.writerow([_cell(record.get(column, "")) for column in COLUMNS])
        else:
            out.write(canonical(record).decode() + "\n")
        count += 1
    return count


_WRONG_ORDER = "it does not follow the line before it: a line was removed, added or moved here"


def _cell(value: Any) -> str:
    """One value as a cell that no spreadsheet takes for a formula."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
    return harmless(text)


def _moment(text: str) -> datetime:
    """An ISO date or time, UTC where it names no zone."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ServeError(
            f"'{text}' is no time", expected="an ISO date or time, such as 2026-03-01 or 2026-03-01T08:30"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _claimed(line: bytes) -> str:
    """The hash an edited line claims, so that one edit is one finding."""
    try:
        return str(json.loads(line)["sha256"])
    except (ValueError, KeyError, TypeError):
        return ""


def _about_unfinished(name: str, line: int, *, last: bool) -> LogFinding:
    """A line without its end: what a crash leaves in the last segment, and nowhere else."""
    if last:
        return LogFinding("partial", "an unfinished line, which was never acknowledged (a crash)", name, line)
    return LogFinding("edited", "an unfinished line inside the log", name, line)


def _about_first(number: int, link: str, removed: Mapping[int, str], name: str) -> list[LogFinding]:
    """Whether what lies before the first segment is nothing, or was removed by retention."""
    if number == 1 and link in (GENESIS, ""):
        return []
    if number > 1 and removed.get(number - 1) == link:
        return []
    return [LogFinding("segment", "what came before it is missing, and no line of retention says so", name)]


def _there(folder: Path) -> list[tuple[int, Path]]:
    """The segments, of which there must be one."""
    found = segments_of(folder)
    if not found:
        raise OutputError("There is no log here", do="name the folder the server was given", where=str(folder))
    return found
