"""The log against editors, crashes, full disks, time, and itself."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tenfold.errors import OutputError, Refusal
from tenfold.serve import log as module
from tenfold.serve.chain import canonical
from tenfold.serve.log import Log
from tenfold.serve.log_check import export, head, records, verify


def lines_of(folder: Path, number: int = 1) -> list[bytes]:
    return (folder / f"log-{number:06d}.jsonl").read_bytes().splitlines(keepends=True)


def write_lines(folder: Path, lines: list[bytes], number: int = 1) -> None:
    (folder / f"log-{number:06d}.jsonl").write_bytes(b"".join(lines))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A closed log of six questions."""
    log = Log(tmp_path / "log")
    for i in range(6):
        log.append({"event": "predict", "user": "ann", "model": "m", "outputs": {"t": {"yes": i / 10}}})
    log.close()
    return tmp_path / "log"


def test_a_log_is_whole_and_closed_to_others(folder: Path) -> None:
    assert verify(folder) == ()
    assert head(folder) == json.loads(lines_of(folder)[-1])["sha256"]
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {place.name: place.stat().st_mode & 0o777 for place in folder.iterdir()} == dict.fromkeys(
        ("log-000001.jsonl", "head", "lock", "case.key"), 0o600
    )


def test_an_edited_line_is_found(folder: Path) -> None:
    lines = lines_of(folder)
    lines[3] = lines[3].replace(b'"yes":0.2', b'"yes":0.9')
    write_lines(folder, lines)
    (finding,) = verify(folder)
    assert (finding.check, finding.line, finding.tampering) == ("edited", 4, True)


def test_an_edited_line_with_a_new_hash_breaks_the_chain(folder: Path) -> None:
    lines = lines_of(folder)
    record = json.loads(lines[3])
    record["outputs"]["t"]["yes"] = 0.9
    del record["sha256"]
    record["sha256"] = hashlib.sha256(canonical(record)).hexdigest()
    lines[3] = canonical(record) + b"\n"
    write_lines(folder, lines)
    assert [(f.check, f.line) for f in verify(folder)] == [("order", 5)]


def test_a_line_that_says_the_same_in_other_bytes_is_found(folder: Path) -> None:
    lines = lines_of(folder)
    lines[2] = lines[2].replace(b'"user":"ann"', b'"user":"bob","user":"ann"')
    write_lines(folder, lines)
    assert [f.check for f in verify(folder)] == ["edited"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda lines: lines[:3] + lines[4:], [("order", 4), ("tail", 7)]),
        (lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]], [("order", 3), ("order", 4), ("order", 5)]),
        (lambda lines: [*lines[:4], lines[3], *lines[4:]], [("order", 5), ("tail", 7)]),
        (lambda lines: lines[:-1], [("tail", 7)]),
        (lambda lines: [*lines[:-1], lines[-1][:40]], [("partial", 7), ("tail", 7)]),
        (lambda lines: lines[1:], [("segment", 1), ("segment", 0), ("tail", 7)]),
    ],
    ids=["removed", "swapped", "twice", "cut", "cut within", "first gone"],
)  # fmt: skip
def test_lines_removed_swapped_or_cut_are_found(folder: Path, change, expected) -> None:
    write_lines(folder, change(lines_of(folder)))
    found = {(f.check, f.line) for f in verify(folder)}
    assert set(expected) <= found
    assert any(finding.tampering for finding in verify(folder))


def test_a_cut_log_is_not_taken_up_again(folder: Path) -> None:
    write_lines(folder, lines_of(folder)[:-2])
    with pytest.raises(OutputError, match="last lines of the log are gone"):
        Log(folder)


def test_a_log_whose_end_was_edited_is_not_taken_up_again(folder: Path) -> None:
    lines = lines_of(folder)
    write_lines(folder, [*lines[:-1], lines[-1].replace(b"ann", b"bob")])
    with pytest.raises(OutputError, match="altered"):
        Log(folder)


def test_a_missing_head_is_said(folder: Path) -> None:
    (folder / "head").unlink()
    assert [f.check for f in verify(folder)] == ["head"]
    log = Log(folder)
    log.close()
    assert verify(folder) == ()
    assert next(r for r in records(folder) if r["event"] == "repair")["head"] == "missing"


def test_the_unfinished_line_of_a_crash_is_put_aside(folder: Path) -> None:
    place = folder / "log-000001.jsonl"
    with place.open("ab") as out:
        out.write(b'{"event":"predict","half')
    (finding,) = verify(folder)
    assert (finding.check, finding.line, finding.tampering) == ("partial", 8, False)
    log = Log(folder)
    log.append({"event": "predict"})
    log.close()
    assert verify(folder) == ()
    assert [r["event"] for r in records(folder)][-2:] == ["repair", "predict"]
    (aside,) = folder.glob("unfinished-*.txt")
    assert aside.read_bytes() == b'{"event":"predict","half'


def test_two_servers_cannot_share_a_log(folder: Path) -> None:
    log = Log(folder)
    with pytest.raises(OutputError, match="Another server"):
        Log(folder)
    log.close()
    with pytest.raises(OutputError, match="closed"):
        log.append({"event": "late"})


def test_clients_share_an_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, calls, real = Log(tmp_path / "log"), [], os.fsync

    def slow(handle: int) -> None:
        calls.append(handle)
        time.sleep(0.05)
        real(handle)

    monkeypatch.setattr(module.os, "fsync", slow)
    threads = [threading.Thread(target=log.append, args=({"event": "predict", "n": i},)) for i in range(32)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    log.close()
    assert len(calls) <= 4
    assert verify(tmp_path / "log") == ()
    assert {r.get("n") for r in records(tmp_path / "log")} >= set(range(32))


def test_nothing_is_acknowledged_before_it_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(tmp_path / "log")
    held = threading.Event()
    monkeypatch.setattr(module.os, "fsync", lambda handle: held.wait(5))
    future = log.submit({"event": "predict"})
    time.sleep(0.05)
    assert not future.done()
    held.set()
    assert len(future.result(5)) == 64
    log.close()


def test_a_full_disk_refuses_and_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, real = Log(tmp_path / "log"), os.write

    def fail(handle: int, data: bytes) -> int:
        real(handle, bytes(data[:20]))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "write", fail)
    with pytest.raises(OutputError, match="No space left"):
        log.append({"event": "predict"})
    monkeypatch.setattr(module.os, "write", real)
    log.append({"event": "predict", "again": True})
    log.close()
    assert verify(tmp_path / "log") == ()
    assert [r["event"] for r in records(tmp_path / "log")] == ["segment", "predict"]


def test_after_a_failed_fsync_nothing_more_is_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, real = Log(tmp_path / "log"), os.fsync

    def fail(handle: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(module.os, "fsync", fail)
    with pytest.raises(OutputError, match="Input/output"):
        log.append({"event": "predict"})
    monkeypatch.setattr(module.os, "fsync", real)
    with pytest.raises(OutputError, match="fsync failed"):
        log.append({"event": "predict"})
    assert log.broken
    log.close()


def test_a_record_that_is_no_json_harms_nobody_else(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    bad, good = log.submit({"event": "predict", "p": float("nan")}), log.submit({"event": "predict", "p": 0.5})
    with pytest.raises(ValueError, match="JSON"):
        bad.result(5)
    assert good.result(5)
    log.close()
    assert verify(tmp_path / "log") == ()


class Clock:
    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time

    def on(self, days: float) -> None:
        self.time += timedelta(days=days)


def old_log(folder: Path, days: int = 60, keep: int = 30) -> None:
    clock = Clock()
    log = Log(folder, retention_days=keep, clock=clock)
    for day in range(days):
        log.append({"event": "predict", "day": day})
        clock.on(1)
    log.close()


def test_retention_removes_whole_segments_and_says_so(tmp_path: Path) -> None:
    old_log(tmp_path)
    days = [record["day"] for record in records(tmp_path) if "day" in record]
    assert verify(tmp_path) == ()
    assert days == list(range(days[0], 60))
    assert 60 - 30 - 9 <= days[0] <= 60 - 30
    told = [record for record in records(tmp_path) if record["event"] == "retention"]
    assert told
    assert told[0]["removed"][0]["segment"] == 1


def test_a_segment_taken_away_is_not_taken_for_retention(tmp_path: Path) -> None:
    old_log(tmp_path)
    first, second, *_ = sorted(tmp_path.glob("log-*.jsonl"))
    kept = first.read_bytes()
    first.unlink()
    assert [f.check for f in verify(tmp_path)] == ["segment"]
    first.write_bytes(kept)
    second.unlink()
    assert {f.check for f in verify(tmp_path)} == {"segment", "order"}


def test_the_last_segment_taken_away_is_found(tmp_path: Path) -> None:
    old_log(tmp_path)
    sorted(tmp_path.glob("log-*.jsonl"))[-1].unlink()
    assert "tail" in [f.check for f in verify(tmp_path)]
    with pytest.raises(OutputError, match="gone"):
        Log(tmp_path)


def test_export_by_time(folder: Path, tmp_path: Path) -> None:
    old_log(tmp_path / "old", days=20, keep=0)
    out = io.StringIO()
    assert export(tmp_path / "old", out, since="2026-01-05", until="2026-01-08T00:00:00+00:00") >= 3
    assert [r["day"] for r in map(json.loads, out.getvalue().splitlines()) if "day" in r] == [4, 5, 6]
    with pytest.raises(Refusal, match="no time"):
        export(folder, out, since="yesterday")
    with pytest.raises(Refusal, match="did you mean 'csv'"):
        export(folder, out, form="cvs")
    with pytest.raises(OutputError, match="no log here"):
        export(tmp_path / "none", out)


def test_a_table_of_the_log_holds_no_formula(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.append({"event": "predict", "user": '=HYPERLINK("http://evil")', "outputs": {"t": {"a,b": 0.5}}})
    log.close()
    out = io.StringIO()
    export(tmp_path, out, form="csv")
    rows = list(csv.DictReader(io.StringIO(out.getvalue())))
    assert rows[-1]["user"].startswith("'=")
    assert json.loads(rows[-1]["outputs"]) == {"t": {"a,b": 0.5}}


def test_a_case_has_the_same_mark_in_one_log_only(tmp_path: Path) -> None:
    one, other = Log(tmp_path / "a"), Log(tmp_path / "b")
    assert one.case_mark("17") == one.case_mark("17") != other.case_mark("17")
    mark = one.case_mark("17")
    one.close()
    other.close()
    again = Log(tmp_path / "a")
    assert again.case_mark("17") == mark
    again.close()


CHILD = """
import sys, threading
from pathlib import Path
from tenfold.serve.log import Log
log, out = Log(Path(sys.argv[1])), threading.Lock()
def ask(who):
    n = 0
    while True:
        n += 1
        log.append({"event": "predict", "who": who, "n": n, "filler": "x" * 2000})
        with out:
            sys.stdout.write(f"{who} {n}\\n")
            sys.stdout.flush()
for who in range(8):
    threading.Thread(target=ask, args=(who,)).start()
"""


def test_kill_9_loses_no_acknowledged_line(tmp_path: Path) -> None:
    for _ in range(2):  # the second time on the log that the first left behind
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        told = [child.stdout.readline() for _ in range(150)]
        child.send_signal(signal.SIGKILL)
        told += child.stdout.read().splitlines(keepends=True)
        child.wait()
        acknowledged = {tuple(map(int, line.split())) for line in told if line.endswith(b"\n")}
        assert not [finding for finding in verify(tmp_path) if finding.tampering]
        written = {(record["who"], record["n"]) for record in records(tmp_path) if "who" in record}
        assert acknowledged <= written
    Log(tmp_path).close()
    assert verify(tmp_path) == ()
