"""`tenfold serve` as a process, under load: many clients, good and bad; killed, stopped, started again."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import uvicorn
from benchmarks.load import (
    GROWTH,
    KINDS,
    Case,
    Client,
    Outcome,
    Server,
    Watched,
    drive_threads,
    make_all,
    missing_in_log,
)
from fastapi.testclient import TestClient
from tests.serve.fake import FakeEngine
from tests.serve.serving import running

from tenfold.errors import OutputError
from tenfold.serve.app import create_app
from tenfold.serve.log import Log
from tenfold.serve.log_check import records, verify
from tenfold.serve.settings import Settings
from tenfold.serve.slow import timed

Cases = dict[str, list[Case]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], Cases]:
    """Two bundles, and cases with what they say of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
        return make_all(tmp_path_factory.mktemp("load"), (200, 260))


@pytest.fixture(scope="module")
def servers(made: tuple[list[Path], Cases], tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """The server of this module, once there is one."""
    there: list[Server] = []
    yield there
    for one in there:
        one.__exit__()


@pytest.fixture
def server(servers: list[Server], made: tuple[list[Path], Cases], tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A server that runs; another one where a test has killed the last."""
    if not servers or servers[-1].process.poll() is not None:
        folder = tmp_path_factory.mktemp("server")
        servers.append(Server.start(made[0], folder, "--queue", "12", "--threads", "1"))
    return servers[-1]


@contextlib.contextmanager
def load(server: Server, cases: Cases, clients: int, kind: str = "") -> Iterator[list[Outcome]]:
    """Clients that ask until the block is left; then the list holds what came of it."""
    outcomes: list[Outcome] = []
    stop = threading.Event()

    def ask() -> None:
        outcomes.extend(drive_threads(server.port, cases, clients=clients, seconds=60, stop=stop, kind=kind))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield outcomes
    finally:
        stop.set()
        thread.join()


def answered(server: Server, more: int) -> None:
    """Wait until so many more lines are in the log."""
    enough, end = lines(server) + more, time.monotonic() + 60
    while lines(server) < enough and time.monotonic() < end:
        time.sleep(0.05)


def lines(server: Server) -> int:
    return sum(place.read_bytes().count(b"\n") for place in server.log.glob("log-*"))


def gone(pids: list[int], seconds: float) -> bool:
    """Whether some processes end in time."""
    end = time.monotonic() + seconds
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


def is_free(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) != 0


def check(server: Server, outcomes: list[Outcome]) -> None:
    """Nothing but the intended refusals; every answer right, and in the log."""
    assert Counter(f"{told.kind}: {told.wrong}" for told in outcomes if told.wrong) == {}
    assert [told for told in outcomes if told.case]
    assert missing_in_log(server.log, outcomes) == []
    assert [finding for finding in verify(server.log) if finding.tampering] == []
    assert "Traceback" not in server.errors()


def test_32_clients_good_and_bad_get_answers_or_the_intended_refusals(
    server: Server, made: tuple[list[Path], Cases]
) -> None:
    with ThreadPoolExecutor(len(KINDS)) as pool:  # each at least once
        outcomes = list(pool.map(lambda kind: Client(server.port, made[1], 1000).ask(kind), KINDS))
    outcomes += drive_threads(server.port, made[1], clients=32, seconds=3)
    check(server, outcomes)
    assert {200, 303, 400, 401, 403, 404, 413, 503} <= {told.status for told in outcomes}


def test_clients_that_go_away_leave_no_connection_behind(server: Server, made: tuple[list[Path], Cases]) -> None:
    files = Path(f"/proc/{server.process.pid}/fd")
    before = len(list(files.iterdir()))
    client = Client(server.port, made[1], 7)
    outcomes = [client.ask("gone") for _ in range(30)]
    end = time.monotonic() + 20
    while (now := len(list(files.iterdir()))) > before + 2 and time.monotonic() < end:
        time.sleep(0.1)
    assert now <= before + 2
    assert not [told.wrong for told in outcomes if told.wrong]
    assert client.ask("film").status == 200
    assert "Traceback" not in server.errors()


def test_a_log_in_use_is_refused_to_another_server(server: Server) -> None:
    with pytest.raises(OutputError, match="Another server"):
        create_app(FakeEngine(), Settings(server.log))
    with pytest.raises(OutputError, match="Another server"):
        Log(server.log)


def test_kill_9_under_load_loses_no_answer_and_leaves_no_process(
    server: Server, made: tuple[list[Path], Cases]
) -> None:
    children = server.children()
    assert len(children) == 2
    with load(server, made[1], 16) as outcomes:
        answered(server, 60)
        server.stop(signal.SIGKILL)
    assert is_free(server.port)
    assert gone(children, 20)
    assert sum(bool(told.case) for told in outcomes) >= 30
    assert missing_in_log(server.log, outcomes) == []
    assert [finding for finding in verify(server.log) if finding.tampering] == []
    with TestClient(create_app(FakeEngine(), Settings(server.log)), base_url="http://127.0.0.1") as again:
        assert again.post("/api/v1/predict", data={"model": "pneumonia", "cell.labs.crp": "8"}).status_code == 200
    assert verify(server.log) == ()
    assert [record["event"] for record in records(server.log)].count("start") == 2


@pytest.mark.slow
def test_a_killed_server_starts_again_and_ends_on_control_c_under_load(
    made: tuple[list[Path], Cases], tmp_path: Path
) -> None:
    outcomes: list[Outcome] = []
    for how in (signal.SIGKILL, signal.SIGINT, signal.SIGTERM):
        with Server.start(made[0], tmp_path, "--threads", "1") as server:
            children = server.children()
            with load(server, made[1], 32) as some:
                answered(server, 60)
                took = server.stop(how)
            outcomes += some
            assert took < 15  # what is under way is answered first
            assert gone(children, 20)
            assert is_free(server.port)
            assert how != signal.SIGINT or server.process.returncode == 0
    assert missing_in_log(server.log, outcomes) == []
    assert verify(server.log) == ()
    assert [record["event"] for record in records(server.log)].count("stop") == 2
    assert "Traceback" not in server.errors()


@pytest.mark.slow
def test_memory_does_not_grow_under_load(server: Server, made: tuple[list[Path], Cases]) -> None:
    watched = Watched()
    with load(server, made[1], 32) as outcomes:
        begun = time.monotonic()
        while (now := time.monotonic() - begun) < 24:
            watched.samples.append((now, *server.memory()))
            time.sleep(0.5)
    check(server, outcomes)
    early, late = watched.around(8, 6), watched.around(18, 6)
    assert late[0] < early[0] * (1 + GROWTH)


# --- what is cheaper to see without a bundle -------------------------------------------------------------------------


def test_who_is_still_sending_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack, running(tmp_path) as port:
        for _ in range(4):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            connection.sendall(b"POST /api/v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n")
            connection.sendall(b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n")
        time.sleep(0.2)
        begun = time.monotonic()
    assert time.monotonic() - begun < 5
    assert verify(tmp_path / "log") == ()


LARGE = 6_000_000


@pytest.fixture
def large() -> Iterator[tuple[uvicorn.Server, int]]:
    """A server of one large answer, that waits half a second for a head and two for everything else."""

    async def app(scope: object, receive: object, send: object) -> None:
        length = (b"content-length", str(LARGE).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length]})  # type: ignore[operator]
        await send({"type": "http.response.body", "body": b"x" * LARGE})  # type: ignore[operator]

    config = uvicorn.Config(app, http=timed(0.5, 2.0), lifespan="off", log_level="error", timeout_keep_alive=1)
    served = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=served.run, kwargs={"sockets": [listening]})
        thread.start()
        while not served.started:
            time.sleep(0.01)
        yield served, listening.getsockname()[1]
        served.should_exit = True
        thread.join(10)


def read(port: int, close: bool, most: int, pause: float = 0.0) -> tuple[socket.socket, int]:
    """Ask for the large answer and read some of it, slowly."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", port))
    connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n" + b"Connection: close\r\n" * close + b"\r\n")
    seen = 0
    while seen < most and (some := connection.recv(1 << 16)):
        seen += len(some)
        time.sleep(pause)
    return connection, seen


@pytest.mark.parametrize("close", [False, True])
def test_who_reads_slowly_gets_all_of_it(large: tuple[uvicorn.Server, int], close: bool) -> None:
    connection, seen = read(large[1], close, LARGE, pause=0.001)
    connection.close()
    assert seen >= LARGE


def test_who_stops_reading_is_let_go(large: tuple[uvicorn.Server, int]) -> None:
    served, port = large
    held = [read(port, close, most)[0] for close in (False, True) for most in (1000, LARGE - 1_000_000)]
    assert len(served.server_state.connections) >= 2  # the rest of the others may have gone out already
    end = time.monotonic() + 10
    while served.server_state.connections and time.monotonic() < end:
        time.sleep(0.05)
    assert not served.server_state.connections
    for connection in held:
        connection.close()
