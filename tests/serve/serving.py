"""A server around the fake engine, for tests of what stands before it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from fastapi.testclient import TestClient
from tests.serve.fake import FakeEngine

from tenfold.serve.app import create_app, server_config
from tenfold.serve.settings import Settings

HOME = "http://127.0.0.1"
PASSWORD = "a long enough password"


def client(folder: Path, *, address: str = "127.0.0.1", home: str = HOME, **settings: Any) -> TestClient:
    """A client of a server whose settings are the default but for these."""
    app = create_app(FakeEngine(), Settings(folder / "log", **settings))
    return TestClient(app, base_url=home, client=(address, 50000), follow_redirects=False)


@contextlib.contextmanager
def running(folder: Path, **settings: Any) -> Iterator[int]:
    """A real server on a free port of loopback; yields the port."""
    chosen = Settings(folder / "log", **settings)
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        server = uvicorn.Server(server_config(create_app(FakeEngine(), chosen), chosen))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(10)
