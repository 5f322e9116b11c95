"""The lines of the log as they lie on the disk: records, segments, and the head that names the last line.

It must not know who writes them or what they are about.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

GENESIS = "0" * 64


def now() -> str:
    """The time in UTC, as the log writes it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def canonical(record: Mapping[str, Any]) -> bytes:
    """One record as the bytes that are hashed: sorted keys, no spaces, ASCII, no NaN."""
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def record_of(line: bytes) -> tuple[dict[str, Any] | None, str]:
    """A line read and checked by itself; why not, where it does not hold."""
    try:
        record = json.loads(line)
        body = {key: value for key, value in record.items() if key != "sha256"}
        datetime.fromisoformat(str(record["time"]))
        fits = hashlib.sha256(canonical(body)).hexdigest() == record["sha256"] and "previous" in record
        fits = fits and canonical(record) == line
    except (ValueError, KeyError, AttributeError, TypeError):
        return None, "it is not a line of a log"
    return (record, "") if fits else (None, "its content does not fit its own hash: the line was edited")


_FORMULA = re.compile(r"(^|[;,|\t\r\n])(\s*)(?=[=+\-@\uff1d\uff0b\uff0d\uff20])")


def harmless(cell: str) -> str:
    """A cell of CSV that no spreadsheet takes for a formula, whatever it takes for the end of a cell."""
    return _FORMULA.sub(r"\1\2'", cell)


def segment_name(number: int) -> str:
    """The file of a segment."""
    return f"log-{number:06d}.jsonl"


def segments_of(folder: Path) -> list[tuple[int, Path]]:
    """The segments that are there, in order."""
    return sorted((int(place.stem[4:]), place) for place in folder.glob("log-*.jsonl") if place.stem[4:].isdecimal())


def ends_of(place: Path) -> tuple[dict[str, Any], dict[str, Any], int]:
    """First and last record of a segment, and how many lines it has; empty where one cannot be read."""
    lines = place.read_bytes().splitlines()
    if not lines:
        return {}, {}, 0
    (first, _), (last, _) = record_of(lines[0]), record_of(lines[-1])
    return (first or {}, last or {}, len(lines)) if first else ({}, {}, len(lines))


def write_head(folder: Path, segment: int, line: int, mark: str) -> None:
    """Name the last line; one short record of fixed length, written in place."""
    handle = os.open(folder / "head", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.pwrite(handle, f"{segment:06d} {line:012d} {mark}\n".encode(), 0)
    finally:
        os.close(handle)


def read_head(folder: Path) -> tuple[int, int, str] | None:
    """Segment, line and hash of the last line that was acknowledged."""
    try:
        segment, line, mark = (folder / "head").read_text(encoding="ascii").split()
        return int(segment), int(line), mark
    except (OSError, ValueError):
        return None
