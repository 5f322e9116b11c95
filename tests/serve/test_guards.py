"""What stands before everything: hosts, origins, sizes, times, rates, zips."""

from __future__ import annotations

import io
import select
import socket
import stat
import struct
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from tests.serve.fake import png
from tests.serve.serving import client, running

from tenfold.errors import Refusal
from tenfold.serve.guards import BackOff, Buckets, host_name
from tenfold.serve.results import ResultStore
from tenfold.serve.settings import Settings
from tenfold.serve.unzip import ZipLimits, safe_unzip

ASK = {"data": {"model": "pneumonia"}, "files": {"file.film": ("film.png", png())}}


# --- headers, hosts, origins -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/api/v1/health", "/nothing", "/api/v1/nothing", "/static/tenfold.css"])
def test_every_answer_has_the_headers(tmp_path: Path, path: str) -> None:
    headers = client(tmp_path).get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert path.startswith("/static/") or headers["cache-control"] == "no-store"


def test_refusals_by_the_guards_and_defects_have_the_headers_too(tmp_path: Path) -> None:
    http = client(tmp_path)
    http.app.state.engine.models = None  # a defect
    strange = [
        http.get("/", headers={"host": "evil.example"}),
        http.post("/api/v1/predict", headers={"origin": "https://evil.example"}),
    ]
    with pytest.raises(AttributeError):
        http.get("/api/v1/models")
    http = type(http)(http.app, base_url="http://127.0.0.1", raise_server_exceptions=False)
    broken = http.get("/api/v1/models")
    assert [answer.status_code for answer in (*strange, broken)] == [400, 403, 500]
    assert broken.json()["error"]["came"] == "something went wrong inside the server"
    assert all("content-security-policy" in answer.headers for answer in (*strange, broken))


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "127.0.0.1@evil.example", "[::1"])
def test_a_foreign_host_is_refused(tmp_path: Path, host: str) -> None:
    assert client(tmp_path).get("/api/v1/health", headers={"host": host}).status_code == 400


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:8000", "LOCALHOST"])
def test_its_own_hosts_are_heard(tmp_path: Path, host: str) -> None:
    assert client(tmp_path).get("/api/v1/health", headers={"host": host}).status_code == 200


def test_hosts_without_a_name() -> None:
    assert [host_name(host) for host in ("[::1", "a:b:c", "127.0.0.1:x", "a@b", "a/b", "")] == [""] * 6


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"origin": "http://127.0.0.1", "sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({}, 200),
    ],
)
def test_foreign_pages_cannot_ask_the_api(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    http = client(tmp_path)
    assert http.post("/api/v1/predict", headers=headers, **ASK).status_code == status
    assert http.get("/api/v1/models", headers=headers).status_code == status
    assert len(http.app.state.engine.asked) == (status == 200)


def test_a_foreign_page_may_link_here_but_not_post(tmp_path: Path) -> None:
    http = client(tmp_path)
    assert http.get("/about", headers={"sec-fetch-site": "cross-site"}).status_code == 200
    assert (
        http.post("/models/pneumonia", headers={"sec-fetch-site": "cross-site"}, data={"case": "1"}).status_code == 403
    )


# --- size ------------------------------------------------------------------------------------------------------------


def test_a_large_request_is_refused_whether_it_says_so_or_not(tmp_path: Path) -> None:
    http = client(tmp_path, max_upload=10_000)
    big = {"data": {"model": "pneumonia"}, "files": {"file.film": ("film.png", b"x" * 20_000)}}
    answer = http.post("/api/v1/predict", **big)
    assert answer.status_code == 413
    assert answer.json()["error"]["came"] == "the request is too large"
    kind = {"content-type": "multipart/form-data; boundary=b"}
    body = b'--b\r\ncontent-disposition: form-data; name="file.film"; filename="f"\r\n\r\n' + b"x" * 20_000
    answer = http.post("/api/v1/predict", content=iter([body[:9000], body[9000:]]), headers=kind)
    assert answer.status_code == 413
    assert answer.json()["error"]["came"] == "the request is too large"
    assert http.post("/api/v1/predict", **ASK).status_code == 200


def test_too_many_parts_and_too_long_fields_are_refused(tmp_path: Path) -> None:
    http = client(tmp_path, max_files=3, max_fields=5, max_field=1000)
    file = ("f.png", b"x")
    for data, files in (
        ({"model": "pneumonia"}, [("file.film", file)] * 4),
        ({f"f{i}": "x" for i in range(6)}, [("file.film", file)]),
        ({"case": "x" * 1001}, [("file.film", file)]),
    ):
        assert http.post("/api/v1/predict", data=data, files=files).status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--b",
        b"no boundary at all",
        b'--b\r\ncontent-disposition: form-data; filename="x"\r\n\r\nx\r\n--b--\r\n',
        b'--b\r\ncontent-disposition: form-data; name="case"\r\n\r\nunfinished',
        b"--b\r\n" + b"x" * 5000 + b": y\r\n\r\n",
        b"--b\r\n\xff\xfe: \x00\r\n\r\n--b--",
    ],
)
def test_malformed_multipart_is_a_clear_no(tmp_path: Path, body: bytes) -> None:
    kind = {"content-type": "multipart/form-data; boundary=b"}
    answer = client(tmp_path).post("/api/v1/predict", content=body, headers=kind)
    assert 400 <= answer.status_code < 500
    assert set(answer.json()["error"]) == {"came", "expected", "do"}


@pytest.mark.parametrize(
    "kind", ["multipart/form-data", "application/json", "text/plain", "", "multipart/form-data; boundary="]
)
def test_other_kinds_of_body_are_refused(tmp_path: Path, kind: str) -> None:
    answer = client(tmp_path).post("/api/v1/predict", content=b"{}", headers={"content-type": kind})
    assert answer.status_code in (400, 415)


# --- time ------------------------------------------------------------------------------------------------------------


def ended_after(connection: socket.socket, seconds: float = 5.0) -> tuple[float, bytes]:
    began, data = time.monotonic(), b""
    connection.settimeout(seconds)
    try:
        while piece := connection.recv(4096):
            data += piece
    except ConnectionResetError:
        pass
    return time.monotonic() - began, data


def drip(connection: socket.socket) -> float:
    """Seconds until the other end has enough of a head that comes letter by letter."""
    began = time.monotonic()
    while time.monotonic() - began < 4:
        try:
            connection.sendall(b"x")
            if select.select([connection], [], [], 0.05)[0] and connection.recv(1) == b"":
                break
        except ConnectionError:
            break
    return time.monotonic() - began


def test_slow_requests_are_ended(tmp_path: Path) -> None:
    with running(tmp_path, header_seconds=0.4, body_seconds=0.6) as port:
        with socket.create_connection(("127.0.0.1", port)) as silent:
            took, data = ended_after(silent)
            assert (took < 2, data) == (True, b"")
        with socket.create_connection(("127.0.0.1", port)) as dripping:
            assert drip(dripping) < 2  # a piece of the head now and then does not buy more time
        with socket.create_connection(("127.0.0.1", port)) as slow:
            slow.sendall(
                b"POST /api/v1/predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 1000\r\n"
                b"content-type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
            )
            took, data = ended_after(slow)
            assert took < 2
            assert data.startswith(b"HTTP/1.1 408")
            assert b"did not arrive in time" in data
        with socket.create_connection(("127.0.0.1", port)) as second:  # the head of a second request is timed as well
            second.sendall(b"GET /api/v1/health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\nGET /api")
            took, data = ended_after(second)
            assert took < 2
            assert data.startswith(b"HTTP/1.1 200")


def test_a_quiet_pause_between_quick_requests_is_no_slowness(tmp_path: Path) -> None:
    with running(tmp_path, header_seconds=0.5) as port, socket.create_connection(("127.0.0.1", port)) as steady:
        steady.settimeout(3)
        for _ in range(4):
            steady.sendall(b"GET /api/v1/health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
            data = b""
            while not data.endswith(b'{"status":"ok"}'):
                data += steady.recv(4096)
            time.sleep(0.2)


# --- rate ------------------------------------------------------------------------------------------------------------


class Clock:
    time = 1000.0

    def __call__(self) -> float:
        return self.time


def test_a_bucket_fills_again() -> None:
    clock = Clock()
    buckets = Buckets(60, clock)
    assert [buckets.take("ann") for _ in range(60)] == [0] * 60
    assert buckets.take("ann") == pytest.approx(1)
    assert buckets.take("bob") == 0
    clock.time += 2
    assert [buckets.take("ann") > 0 for _ in range(3)] == [False, False, True]


def test_wrong_passwords_wait_longer_and_longer() -> None:
    clock = Clock()
    back_off = BackOff(free=3, clock=clock)
    waits = []
    for _ in range(6):
        back_off.failed("ann")
        waits.append(back_off.wait("ann"))
    assert waits == [0, 0, 1, 2, 4, 8]
    assert back_off.wait("bob") == 0
    back_off.forget("ann")
    assert back_off.wait("ann") == 0


def test_too_many_questions_are_told_when_to_come_again(tmp_path: Path) -> None:
    http = client(tmp_path, rate=3)
    answers = [http.post("/api/v1/predict", **ASK) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 20
    assert http.get("/api/v1/health").status_code == 200


# --- what is kept ----------------------------------------------------------------------------------------------------


def test_results_go_by_time_by_size_and_belong_to_one() -> None:
    clock = Clock()
    store: ResultStore[str] = ResultStore(1, most=2, most_bytes=100, clock=clock)
    first, second = store.put("ann", "1"), store.put("ann", "2")
    kept = store.get(first, "ann")
    assert kept is not None
    assert kept.thing == "1"
    assert store.get(first, "bob") is None
    store.put("bob", "3")
    assert (store.get(first, "ann"), len(store)) == (None, 2)
    store.put("bob", "4", size=90)
    store.put("bob", "5", size=90)
    assert len(store) == 1
    clock.time += 61
    assert len(store) == 0
    fourth = store.put("ann", "6", size=90)
    store.drop("ann")
    assert store.get(fourth, "ann") is None
    assert store.get(second, "ann") is None


# --- starts that are refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "hospital.example", ""])
def test_no_other_address_without_knowing_who_asks(tmp_path: Path, host: str) -> None:
    with pytest.raises(Refusal, match="answer anybody"):
        Settings(tmp_path, host=host)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"host": "0.0.0.0", "users": Path("u")}, "any name"),
        ({"trusted_header": "x-user"}, "believed from anybody"),
        ({"trusted_header": "x user", "trusted_hops": ("10.0.0.1",)}, "no name of a header"),
        ({"trusted_hops": ("proxy",)}, "no address"),
        ({"max_upload": 0}, "max_upload is 0"),
        ({"retention_days": -1}, "retention_days"),
    ],
)
def test_unsafe_settings_are_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(Refusal, match=words):
        Settings(tmp_path, **changes)


def test_safe_settings_are_not(tmp_path: Path) -> None:
    Settings(tmp_path, host="::1")
    Settings(tmp_path, host="localhost")
    open_to_all = Settings(tmp_path, host="0.0.0.0", users=Path("u"), allow_hosts=("xray.example",))
    assert "xray.example" in open_to_all.hosts


# --- zips ------------------------------------------------------------------------------------------------------------


def zipped(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name) if compression == zipfile.ZIP_STORED else name, content)
    return out.getvalue()


def test_a_plain_zip_is_unpacked() -> None:
    files = {
        "a.png": b"1",
        "deep/er/b.png": b"2",
        "deep/.DS_Store": b"x",
        "__MACOSX/deep/._b.png": b"x",
        "umlaut-ä.png": b"",
    }
    assert safe_unzip(zipped(files)) == {"a.png": b"1", "deep/er/b.png": b"2", "umlaut-ä.png": b""}


@pytest.mark.parametrize(
    "name",
    ["../a", "a/../../b", "/etc/passwd", "a\\..\\b", "C:/a", "a//b", "./a", "a/./b", "a\nb", "d/" * 9 + "a", "x" * 501],
)
def test_names_that_lead_out_are_refused(name: str) -> None:
    with pytest.raises(Refusal, match=r"the name|too long or too deep"):
        safe_unzip(zipped({"fine.png": b"1", name: b"2"}))


def test_bombs_are_refused_while_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refusal, match="unpacks to too much"):
        safe_unzip(zipped({"bomb": bytes(8 * 2**20)}))
    with pytest.raises(Refusal, match="unpacks to too much"):
        safe_unzip(zipped({f"{i}": bytes(2**20) for i in range(5)}), ZipLimits(bytes=3 * 2**20, ratio=1e9))
    with pytest.raises(Refusal, match="holds 6 files"):
        safe_unzip(zipped({f"{i}": b"" for i in range(6)}), ZipLimits(files=5))


def test_a_zip_that_lies_about_its_sizes_is_refused() -> None:
    data = bytearray(zipped({"bomb": bytes(4 * 2**20)}))
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        place = data.index(signature) + offset
        data[place : place + 4] = struct.pack("<I", 10)
    with pytest.raises(Refusal, match=r"too much|damaged"):
        safe_unzip(bytes(data))


def test_links_twins_locks_and_rubbish_are_refused() -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(Refusal, match="link or a device"):
        safe_unzip(out.getvalue())
    with pytest.raises(Refusal, match="twice"):
        safe_unzip(zipped({"A.png": b"1", "a.PNG": b"2"}))
    locked = bytearray(zipped({"a": b"secret"}))
    locked[locked.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(Refusal, match="encrypted"):
        safe_unzip(bytes(locked))
    with pytest.raises(Refusal, match="not read"):
        safe_unzip(zipped({"a": b"x"}, zipfile.ZIP_LZMA))
    whole = zipped({"a": bytes(range(256)) * 40})
    for data in (b"", b"PK", b"not a zip", whole[:100], whole[:60] + b"\0" * 40 + whole[100:]):
        with pytest.raises(Refusal, match="damaged"):
            safe_unzip(data)
