"""The server as a whole: start and stop, pages from hostile words, many clients at once, a kill under load."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from tests.serve.fake import FakeEngine, png
from tests.serve.serving import client, running

from tenfold.errors import OutputError, Refusal
from tenfold.serve.app import create_app, serve
from tenfold.serve.log_check import records, verify
from tenfold.serve.settings import Settings

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(1)>'


def test_start_and_stop_are_logged_and_a_log_has_one_server(tmp_path: Path) -> None:
    with client(tmp_path) as served:
        assert served.get("/api/v1/health").status_code == 200
        with pytest.raises(OutputError, match="Another server"):
            create_app(FakeEngine(), Settings(tmp_path / "log"))
    assert verify(tmp_path / "log") == ()
    start, stop = [record for record in records(tmp_path / "log") if record["event"] in ("start", "stop")]
    assert start["models"]["pneumonia"] == "ab" * 32
    assert stop["event"] == "stop"


def test_an_address_that_is_taken_is_a_refusal_and_no_log_is_begun(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(Refusal, match="cannot listen"):
        serve(FakeEngine(), Settings(tmp_path / "log", port=taken.getsockname()[1]))
    assert not (tmp_path / "log").exists()


def sent(served: TestClient, slug: str, data: dict[str, str], files: Any = None) -> Any:
    token = re.search(r'name="csrf" value="([0-9a-f]{64})"', served.get(f"/models/{slug}").text)
    assert token
    return served.post(f"/models/{slug}", data={"csrf": token[1], **data}, files=files)


def test_hostile_names_and_values_stay_words(tmp_path: Path) -> None:
    served = client(tmp_path)
    answer = sent(
        served,
        "pneumonia",
        {"case": EVIL[:70], "cell.labs.crp": EVIL[:60]},
        {"file.film": (EVIL + ".png", png())},
    )
    pages = [served.get(answer.headers["location"])]
    pages.append(sent(served, "pneumonia", {f"cell.{EVIL}": "1"}))
    pages.append(sent(served, "pneumonia", {"layout.film": EVIL}))
    pages.append(served.get(f"/models/{EVIL}"))
    pages.append(served.get("/login", params={"next": EVIL}))
    pages.append(served.get("/", headers={"host": EVIL}))
    for page in pages:
        assert "<script>alert" not in page.text
        assert "<img src=x" not in page.text
        assert "unsafe-inline" not in page.headers["content-security-policy"]
    api = served.post("/api/v1/predict", data={"model": EVIL})
    assert api.headers["content-type"] == "application/json"
    assert api.headers["x-content-type-options"] == "nosniff"


def test_pages_load_nothing_from_elsewhere(tmp_path: Path) -> None:
    served = client(tmp_path)
    for path in ("/", "/models/pneumonia", "/about", "/models/pneumonia/card", "/none"):
        text = served.get(path).text
        loaded = re.findall(r'<(?:script|link|img|iframe|source)[^>]*?(?:src|href)="([^"]+)"', text)
        assert loaded
        assert all(place.startswith("/") and not place.startswith("//") for place in loaded)
        assert not re.search(r"<script(?![^>]*\bsrc=)", text)
        assert not re.search(r'\son\w+="|\sstyle="', text)


def asked(port: int, seed: int) -> tuple[int, dict[str, Any]]:
    """One question over a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    body = (
        b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\npneumonia\r\n'
        b'--b\r\ncontent-disposition: form-data; name="file.film"; filename="f.png"\r\n\r\n'
        + png(seed=seed)
        + b"\r\n--b--\r\n"
    )
    connection.request("POST", "/api/v1/predict", body, {"content-type": "multipart/form-data; boundary=b"})
    answer = connection.getresponse()
    told = json.loads(answer.read())
    connection.close()
    return answer.status, told


def test_many_clients_at_once_are_all_answered_and_logged(tmp_path: Path) -> None:
    answers: list[int] = []
    with running(tmp_path, rate=10_000) as port:

        def ask(seed: int) -> None:
            answers.extend(asked(port, seed)[0] for _ in range(3))

        threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(32)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    assert answers == [200] * 96
    assert verify(tmp_path / "log") == ()
    assert sum(record["event"] == "predict" for record in records(tmp_path / "log")) == 96


CHILD = """
import sys
from pathlib import Path
from tenfold.serve.app import serve
from tenfold.serve.settings import Settings
from tests.serve.fake import FakeEngine
serve(FakeEngine(), Settings(Path(sys.argv[1]), port=0, rate=100000), lambda address: print(address, flush=True))
"""


def test_kill_9_under_load_loses_no_answer_that_was_given(tmp_path: Path) -> None:
    root = str(Path(__file__).parents[2])
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path / "log")],
        cwd=root,
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    port = int(child.stdout.readline().decode().rpartition(":")[2].strip("/\n"))
    answered: list[int] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                answered.append(asked(port, 1)[0])
            except (OSError, http.client.HTTPException):
                time.sleep(0.05)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    [thread.start() for thread in threads]
    deadline = time.monotonic() + 60
    while len(answered) < 40 and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    stop.set()
    [thread.join() for thread in threads]
    assert len(answered) >= 40
    assert set(answered) == {200}
    assert not [finding for finding in verify(tmp_path / "log") if finding.tampering]
    assert sum(record["event"] == "predict" for record in records(tmp_path / "log")) >= len(answered)
