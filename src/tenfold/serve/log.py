"""The log: an append-only chain of JSON lines, durable before an answer is shown.

It must not know what is asked or answered: a record is a mapping. Keeping pixels and names out is the caller's part.

A log is a folder of segments, ``log-000001.jsonl`` and on. Every line holds ``previous``, the ``sha256`` of the line
before it, and its own ``sha256`` over its other fields in canonical JSON. A segment begins with a line "segment" that
carries the chain over from the segment before. Retention removes whole segments, after a line "retention" that says
which: what is missing without such a line was taken away. ``head`` names the last line, so that a cut tail is seen.

The chain has no secret: who may write to the folder can rebuild all of it. `Log.head`, noted down elsewhere now and
then, closes that gap.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import hmac
import json
import os
import queue
import secrets
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tenfold.errors import OutputError
from tenfold.serve.chain import (
    GENESIS,
    canonical,
    ends_of,
    read_head,
    record_of,
    segment_name,
    segments_of,
    write_head,
)

AT_ONCE = 512
SEGMENT_DAYS, SEGMENT_BYTES = 7, 16 * 2**20


class Log:
    """A log that is open for writing; one process at a time.

    Appends of many threads and tasks are written together and share one fsync.

    Args:
        folder: Where the segments lie; made where it is not there, readable by its owner alone.
        retention_days: Segments whose last line is older are removed; 0 keeps all.
        clock: The time, for tests.

    Raises:
        OutputError: if another process has the log open, or its last line is not what was written.
    """

    def __init__(
        self,
        folder: Path,
        *,
        retention_days: int = 0,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.folder, self.retention_days, self.clock = folder, retention_days, clock
        self._file, self._segment, self._size, self._lines = -1, 0, 0, 0
        self._previous, self._since = GENESIS, clock()
        self._queue: queue.SimpleQueue[tuple[Mapping[str, Any], Future[str]] | None] = queue.SimpleQueue()
        self._broken = ""
        self._closing = threading.Lock()
        self._closed = False
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = _lock(folder)
            self._key = _key(folder)
            self._reopen()
        except OSError as error:
            raise OutputError(
                f"The log cannot be opened ({error.strerror})", do="give another folder for the log", where=str(folder)
            ) from error
        self._writer = threading.Thread(target=self._run, name="tenfold-log", daemon=True)
        self._writer.start()

    @property
    def head(self) -> str:
        """The sha256 of the last line that was acknowledged."""
        return self._previous

    @property
    def broken(self) -> str:
        """Why nothing can be written any more; empty while all is well."""
        return self._broken

    def submit(self, record: Mapping[str, Any]) -> Future[str]:
        """Ask for one line; the future holds its sha256 once it is on the disk.

        Args:
            record: What to write; "time" is added where it is not given.

        Returns:
            A future that raises `OutputError` where the line could not be made durable.
        """
        future: Future[str] = Future()
        future.set_running_or_notify_cancel()  # who goes away does not take the line along
        with self._closing:
            if self._closed:
                future.set_exception(OutputError("The log is closed", where=str(self.folder)))
            else:
                self._queue.put((record, future))
        return future

    def append(self, record: Mapping[str, Any]) -> str:
        """Write one line and wait until it is on the disk; see `submit`."""
        return self.submit(record).result()

    async def write(self, record: Mapping[str, Any]) -> str:
        """Write one line without blocking the event loop; see `submit`."""
        return await asyncio.wrap_future(self.submit(record))

    def case_mark(self, case: str) -> str:
        """A keyed hash of the name of a case: the same name, the same mark, in this log alone."""
        return hmac.new(self._key, case.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()

    def close(self) -> None:
        """Write what waits, then let go of the folder."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
        self._writer.join()
        os.close(self._file)
        os.close(self._lock)

    # --- the writer's thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        """Take whatever waits, write it in one go, acknowledge all of it."""
        while True:
            waiting = [self._queue.get()]
            while len(waiting) < AT_ONCE and not self._queue.empty():
                waiting.append(self._queue.get())
            batch = [item for item in waiting if item is not None]
            if batch:
                self._commit(batch)
            if len(batch) < len(waiting):
                return

    def _commit(self, batch: list[tuple[Mapping[str, Any], Future[str]]]) -> None:
        """Make a batch durable, or tell everyone in it why not."""
        done: list[tuple[Future[str], str]] = []
        try:
            if self._broken:
                raise OSError(self._broken)
            if self._due():
                self._begin(self._segment + 1)
                self._retain()
            chain, lines, written = self._previous, [], 0
            for record, future in batch:
                try:
                    line, mark = self._line(record, chain)
                except (TypeError, ValueError) as error:
                    future.set_exception(error)  # this record is at fault, not the log
                    continue
                chain, written = mark, written + 1
                lines.append(line)
                done.append((future, mark))
            self._write(b"".join(lines), chain, written)
        except Exception as error:  # whatever it is, nobody may wait for ever
            if not isinstance(error, OSError):
                self._broken = f"a defect of tenfold: {error!r}"
            refused = OutputError(
                f"The log cannot be written ({getattr(error, 'strerror', None) or error})",
                expected="room and the right to write, for nothing is answered that is not logged",
                do="make room, then start the server again",
                where=str(self.folder),
            )
            for _, future in batch:
                if not future.done():
                    future.set_exception(refused)
            return
        for future, mark in done:
            future.set_result(mark)

    def _line(self, record: Mapping[str, Any], previous: str) -> tuple[bytes, str]:
        """One line and its hash."""
        stamp = self.clock().isoformat(timespec="milliseconds")
        body = {"time": stamp, **record, "previous": previous}
        mark = hashlib.sha256(canonical(body)).hexdigest()
        return canonical({**body, "sha256": mark}) + b"\n", mark

    def _write(self, data: bytes, chain: str, lines: int) -> None:
        """Append bytes, flush them to the disk, move the head on."""
        if not data:
            return
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(self._file, left) :]
        except OSError:
            os.ftruncate(self._file, self._size)  # no half line stays behind when the disk is full
            raise
        try:
            os.fsync(self._file)
        except OSError as error:
            # after a failed fsync nobody knows what is on the disk: trying again would acknowledge what may be lost
            self._broken = f"fsync failed: {error.strerror}"
            raise
        self._size += len(data)
        self._lines += lines
        self._previous = chain
        # no fsync: after a power cut the head lags behind the lines, which verification allows
        write_head(self.folder, self._segment, self._lines, chain)

    # --- segments ------------------------------------------------------------------------------------------------

    def _due(self) -> bool:
        """Whether the segment is old or large enough to begin the next."""
        return self._size > SEGMENT_BYTES or self.clock() - self._since > timedelta(days=SEGMENT_DAYS)

    def _begin(self, number: int) -> None:
        """Begin a segment with the line that carries the chain over."""
        if self._file >= 0:
            os.close(self._file)
        place = self.folder / segment_name(number)
        self._file = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._segment, self._size, self._lines, self._since = number, 0, 0, self.clock()
        line, mark = self._line({"event": "segment", "segment": number}, self._previous)
        self._write(line, mark, 1)
        _sync_folder(self.folder)

    def _retain(self) -> None:
        """Remove the segments that are past their time, after saying so in the chain."""
        if not self.retention_days:
            return
        limit, old = (self.clock() - timedelta(days=self.retention_days)).isoformat(timespec="milliseconds"), []
        for number, place in segments_of(self.folder):
            first, last, lines = ends_of(place)
            if number == self._segment or not last or str(last.get("time", limit)) >= limit:
                break
            old.append(
                (
                    place,
                    {
                        "segment": number,
                        "lines": lines,
                        "since": first["time"],
                        "until": last["time"],
                        "last": last["sha256"],
                    },
                )
            )
        if not old:
            return
        line, mark = self._line({"event": "retention", "removed": [what for _, what in old]}, self._previous)
        self._write(line, mark, 1)
        for place, _ in old:
            place.unlink()
        _sync_folder(self.folder)

    def _reopen(self) -> None:
        """Take up the chain where it ends; put the unfinished line of a crash aside."""
        there = segments_of(self.folder)
        if not there:
            self._begin(1)
            return
        number, place = there[-1]
        data = place.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        lines = whole.splitlines()
        self._file = os.open(place, os.O_WRONLY | os.O_APPEND)
        self._segment, self._size, self._lines = number, len(whole), len(lines)
        if len(whole) < len(data):
            _put_aside(self.folder, number, data[len(whole) :])
            os.ftruncate(self._file, len(whole))
            os.fsync(self._file)
        self._previous, self._since = _last_link(there, lines, self.clock())
        missing = self._tail_missing(lines)
        if not lines:  # a crash between the making of a segment and its first line
            self._begin(number)
        if len(whole) < len(data):
            self._note({"event": "repair", "unfinished_bytes": len(data) - len(whole)})
        if missing:
            self._note({"event": "repair", "head": missing})
        self._retain()

    def _tail_missing(self, lines: list[bytes]) -> str:
        """Say that no head was there; refuse a log whose last lines are gone."""
        head = read_head(self.folder)
        if head is None:
            return "missing" if lines[1:] else ""
        if _fits(head, self._segment, lines, self._previous):
            return ""
        raise OutputError(
            "The last lines of the log are gone or were altered: it ends before the line that `head` names",
            expected="the log as the server left it",
            do="run `tenfold log verify`, keep the folder as it is, and start with a new folder for the log",
            where=str(self.folder),
        )

    def _note(self, record: Mapping[str, Any]) -> None:
        """One line of the log about itself."""
        line, mark = self._line(record, self._previous)
        self._write(line, mark, 1)


def _last_link(there: list[tuple[int, Path]], lines: list[bytes], moment: datetime) -> tuple[str, datetime]:
    """The hash the chain goes on from, and when the last segment began."""
    if not lines:
        before = ends_of(there[-2][1])[1] if len(there) > 1 else {}
        return str(before.get("sha256", GENESIS)), moment
    first, last = record_of(lines[0])[0], record_of(lines[-1])[0]
    if first is None or last is None:
        raise OutputError(
            "The log was altered: its first or last line does not fit its own hash",
            do="run `tenfold log verify`, keep the folder as it is, and start with a new folder for the log",
            where=str(there[-1][1]),
        )
    return str(last["sha256"]), datetime.fromisoformat(str(first["time"]))


def _fits(head: tuple[int, int, str], segment: int, lines: list[bytes], previous: str) -> bool:
    """Whether the line that the head names is there."""
    if head[0] == segment - 1 and len(lines) <= 1:
        # a crash right after a segment was begun: the head still names the end of the one before
        return head[2] == (json.loads(lines[0])["previous"] if lines else previous)
    if head[0] != segment or not 1 <= head[1] <= len(lines):
        return False
    record, _ = record_of(lines[head[1] - 1])
    return record is not None and record["sha256"] == head[2]


def _put_aside(folder: Path, number: int, unfinished: bytes) -> None:
    """Keep the unfinished line of a crash out of the chain, but keep it."""
    name = f"unfinished-{number:06d}-{hashlib.sha256(unfinished).hexdigest()[:12]}.txt"
    handle = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(handle, unfinished)
        os.fsync(handle)
    finally:
        os.close(handle)


def _lock(folder: Path) -> int:
    """Hold the folder, so that two servers cannot weave two chains into one."""
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise OutputError(
            "Another server writes to this log", do="stop it, or give this one a log of its own", where=str(folder)
        ) from None
    return handle


def _key(folder: Path) -> bytes:
    """The secret that the marks of cases are made with; it never leaves the folder."""
    place = folder / "case.key"
    if not place.exists():
        handle = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(handle, secrets.token_hex(32).encode())
            os.fsync(handle)
        finally:
            os.close(handle)
    return bytes.fromhex(place.read_text(encoding="ascii"))


def _sync_folder(folder: Path) -> None:
    """Make new and removed names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
