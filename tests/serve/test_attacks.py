"""What somebody tries who wants to get in, to bring the server down, or to learn what is not theirs."""

from __future__ import annotations

import base64
import io
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from tests.serve.fake import MODELS, FakeEngine, png
from tests.serve.serving import PASSWORD, client, running

from tenfold.errors import CohortError, ImageError, OutputError, Refusal
from tenfold.modalities.connectome import ConnectomePreparation
from tenfold.modalities.connectome_reading import ConnectomeReading, numbered
from tenfold.serve import app as app_module
from tenfold.serve import users as users_module
from tenfold.serve.answer import Answer
from tenfold.serve.batches import read_cases
from tenfold.serve.chain import harmless
from tenfold.serve.decode import Decoders
from tenfold.serve.decode_child import _file
from tenfold.serve.log_check import records
from tenfold.serve.pngs import Pngs
from tenfold.serve.routes import pages
from tenfold.serve.settings import Settings
from tenfold.serve.unzip import safe_unzip
from tenfold.serve.users import add_user

ASK: dict[str, Any] = {"data": {"model": "pneumonia"}, "files": {"file.film": ("film.png", png())}}
FORM = "multipart/form-data; boundary=b"
FORM_PAGE = "/models/pneumonia"
HEAD = f"POST /api/v1/predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: {FORM}".encode()


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weak argon2: what a guess costs is tested elsewhere."""
    monkeypatch.setattr(users_module, "_hasher", users_module.PasswordHasher(1, 64, 1))


@pytest.fixture
def users(tmp_path: Path) -> Path:
    add_user(tmp_path / "users.toml", "ann", PASSWORD)
    return tmp_path / "users.toml"


def token(http: TestClient, path: str = "/login") -> str:
    found = re.search(r'name="csrf" value="([0-9a-f]{64})"', http.get(path).text)
    assert found
    return found[1]


def enter(http: TestClient, password: str = PASSWORD) -> int:
    return http.post("/login", data={"csrf": token(http), "user": "ann", "password": password}).status_code


def basic(password: str = PASSWORD, name: str = "ann") -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def field(name: str, content: bytes, more: str = "") -> bytes:
    return f'--b\r\ncontent-disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + content + b"\r\n"


# --- forged requests -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", ["http://[", "http://127.0.0.1@evil", "//127.0.0.1", "http://127.0.0.1.evil", "\t"])
def test_a_crooked_origin_is_foreign(tmp_path: Path, origin: str) -> None:
    http = client(tmp_path)
    for path in ("/api/v1/predict", "/models/pneumonia"):
        assert http.post(path, headers={"origin": origin}, **ASK).status_code == 403
    assert http.app.state.engine.asked == []


def test_every_post_wants_its_token_and_no_other_method_does_its_work(tmp_path: Path) -> None:
    http = client(tmp_path)
    posts = [r.path.format(slug="pneumonia", i=0) for r in pages.router.routes if "POST" in r.methods]
    good = {"csrf": token(http, FORM_PAGE)}
    for path in posts:
        for headers in ({}, {"origin": "null"}, {"origin": "http://127.0.0.1"}):
            assert http.post(path, headers=headers, data={"csrf": "0" * 64}).status_code == 403, path
        for headers in ({"origin": "http://127.0.0.1:81"}, {"origin": "null", "sec-fetch-site": "cross-site"}):
            assert http.post(path, headers=headers, data=good).status_code == 403, path
        override = {"x-http-method-override": "POST", "x-method": "POST"}
        assert http.get(path, params={**good, "_method": "POST"}, headers=override).status_code in (200, 303, 405)
        for method in ("PUT", "PATCH", "DELETE"):
            assert http.request(method, path, data=good).status_code == 405, path
    assert http.app.state.engine.asked == []


def test_a_request_of_two_lengths_is_refused(tmp_path: Path) -> None:
    body = field("model", b"pneumonia") + b"--b--\r\n"
    chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    with running(tmp_path) as port, socket.create_connection(("127.0.0.1", port), timeout=5) as wire:
        wire.sendall(HEAD + b"\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n" + chunk)
        assert wire.recv(99).startswith(b"HTTP/1.1 400")


# --- getting in ------------------------------------------------------------------------------------------------------


def test_who_must_wait_cannot_try_passwords_of_who_is_in(tmp_path: Path, users: Path) -> None:
    owner = client(tmp_path, users=users, address="127.0.0.2")
    assert enter(owner) == 303
    guesser = TestClient(owner.app, base_url="http://127.0.0.1", client=("127.0.0.3", 1), follow_redirects=False)
    codes = [guesser.get("/api/v1/models", headers=basic(f"guess {i}")).status_code for i in range(6)]
    assert codes == [401] * 5 + [429]
    assert guesser.get("/api/v1/models", headers=basic()).status_code == 429
    assert enter(guesser) == 429
    assert owner.get("/api/v1/models", headers=basic()).status_code == 200


def test_a_network_of_addresses_is_one_guesser(tmp_path: Path, users: Path) -> None:
    first = client(tmp_path, users=users, address="2001:db8::1")

    def from_address(address: str) -> TestClient:
        return TestClient(first.app, base_url="http://127.0.0.1", client=(address, 1), follow_redirects=False)

    guesses = [from_address(f"2001:db8::{i:x}").get("/api/v1/models", headers=basic("no")) for i in range(6)]
    assert [answer.status_code for answer in guesses] == [401] * 5 + [429]
    assert from_address("2001:db8:0:1::1").get("/api/v1/models", headers=basic()).status_code == 200


def test_guesses_leave_a_trace_but_not_what_was_typed(tmp_path: Path, users: Path) -> None:
    http = client(tmp_path, users=users)
    http.get("/api/v1/models", headers=basic("wrong password"))
    http.get("/api/v1/models", headers=basic("x", name="Summer-2024-secret"))
    http.post("/login", data={"csrf": token(http), "user": "Summer-2024-secret", "password": ""})
    http.app.state.log.close()
    refused = [record["user"] for record in records(tmp_path / "log") if record["event"] == "refused"]
    assert refused == ["ann", "", ""]
    assert "Summer" not in "".join(place.read_text() for place in (tmp_path / "log").glob("log-*"))


def test_a_new_password_ends_the_sessions_of_the_old_one(tmp_path: Path, users: Path) -> None:
    http = client(tmp_path, users=users)
    assert enter(http) == 303
    assert http.get("/").status_code == 200
    time.sleep(0.01)
    add_user(users, "ann", "another long password")
    assert http.get("/").status_code == 303


def test_an_answer_after_the_logout_is_kept_for_nobody(tmp_path: Path, users: Path) -> None:
    class Slow(FakeEngine):
        async def answer(self, *args: Any, **more: Any) -> Answer:
            http.app.state.auth.sessions._open.clear()  # the same browser logs out meanwhile
            return await super().answer(*args, **more)

    http = client(tmp_path, users=users)
    enter(http)
    csrf = token(http, "/")
    http.app.state.engine = Slow()
    answer = http.post("/models/pneumonia", data={"csrf": csrf, "cell.labs.crp": "8"})
    assert not answer.headers.get("location", "").startswith("/results/")
    assert len(http.app.state.results) == 0


@pytest.mark.parametrize("hop", ["0.0.0.0/0", "::/0"])
def test_a_header_is_not_believed_from_everybody(tmp_path: Path, hop: str) -> None:
    with pytest.raises(Refusal, match="every address"):
        Settings(tmp_path, trusted_header="x-user", trusted_hops=(hop,))


@pytest.mark.parametrize("host", ["0:0:0:0:0:0:0:0", "[::]", "0.0.0.0"])
def test_every_interface_wants_a_name_however_it_is_written(tmp_path: Path, host: str) -> None:
    with pytest.raises(Refusal, match="any name"):
        Settings(tmp_path, host=host, users=Path("u"))


@pytest.mark.parametrize("host", ["::ffff:10.0.0.1", "::ffff:127.0.0.1", "0", "0x7f.1", "127.1", "localhost.evil"])
def test_no_spelling_of_an_address_opens_the_server(tmp_path: Path, host: str) -> None:
    with pytest.raises(Refusal, match="answer anybody"):
        Settings(tmp_path, host=host)


def test_a_name_that_leads_elsewhere_is_not_listened_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("192.0.2.7", 0))]
    monkeypatch.setattr(app_module.socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(Refusal, match=r"listen on 192\.0\.2\.7 and answer anybody"):
        app_module.serve(FakeEngine(), Settings(tmp_path / "log", host="localhost", port=0))


# --- bringing it down ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("charset", ["punycode", "undefined", "idna", "utf-16", '"utf-7"'])
def test_other_encodings_are_refused_before_a_field_is_read(tmp_path: Path, charset: str) -> None:
    body = field("case", b"a" * 30_000 + b"-" + b"b99" * 10_000) + b"--b--\r\n"
    headers = {"content-type": f"{FORM}; charset={charset}"}
    assert client(tmp_path).post("/api/v1/predict", content=body, headers=headers).status_code == 415
    fine = client(tmp_path / "fine").post(
        "/api/v1/predict",
        content=field("model", b"pneumonia") + field("cell.labs.crp", b"8") + b"--b--\r\n",
        headers={"content-type": f'{FORM}; charset="UTF-8"'},
    )
    assert fine.status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"".join(field(f"f{i}", b"x") for i in range(9)),
        field("user", b"x" * 10_000),
        field("f", b"x", '; filename="f"'),
    ],
)
def test_a_stranger_can_send_no_more_than_a_login(tmp_path: Path, users: Path, body: bytes) -> None:
    http = client(tmp_path, users=users)
    assert http.post("/login", content=body + b"--b--\r\n", headers={"content-type": FORM}).status_code == 400


def test_what_is_sent_at_once_has_a_limit_together(tmp_path: Path) -> None:
    part = field("file.film", b"x" * 19_000, '; filename="f"')
    wires = []
    with running(tmp_path, max_upload=20_000) as port:
        for _ in range(9):
            wires.append(socket.create_connection(("127.0.0.1", port), timeout=5))
            wires[-1].sendall(HEAD + b"\r\ncontent-length: 20000\r\n\r\n" + part)
            time.sleep(0.03)
        answer = wires[-1].recv(4096)
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"retry-after" in answer
        [wire.close() for wire in wires]
        time.sleep(0.1)
        with socket.create_connection(("127.0.0.1", port), timeout=5) as wire:
            body = field("model", b"pneumonia") + b"--b--\r\n"
            wire.sendall(HEAD + b"\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            assert wire.recv(99).startswith(b"HTTP/1.1 200")


def test_who_breaks_off_leaves_no_traceback(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with running(tmp_path) as port, socket.create_connection(("127.0.0.1", port)) as wire:
        wire.sendall(HEAD + b"\r\ncontent-length: 999\r\n\r\n--b\r\n")
        time.sleep(0.2)
        wire.close()
        time.sleep(0.2)
    assert "Traceback" not in capfd.readouterr().err


def test_who_never_reads_is_cut_off(tmp_path: Path) -> None:
    with running(tmp_path, body_seconds=0.5) as port, socket.socket() as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.connect(("127.0.0.1", port))
        wire.settimeout(5)
        began = time.monotonic()
        with pytest.raises(ConnectionError):
            wire.sendall(b"GET /static/tenfold.css HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n" * 200_000)
        assert time.monotonic() - began < 4


def test_a_cell_is_no_place_for_a_book(tmp_path: Path) -> None:
    data = {"model": "pneumonia", "cell.labs.crp": "8" * 1001}
    assert client(tmp_path).post("/api/v1/predict", data=data).status_code == 422
    with pytest.raises(CohortError, match="1001 characters"):
        read_cases(MODELS["pneumonia"].form, f"case,film,crp,sex,fever\n1,,{'8' * 1001},,\n".encode(), {})


def test_a_list_of_a_million_names_is_not_read() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a", b"")
    data = out.getvalue()
    entry = data[data.index(b"PK\x01\x02") : data.index(b"PK\x05\x06")]
    end = bytearray(data[data.index(b"PK\x05\x06") :])
    count = 300_000
    end[8:12] = b"\xff\xff\xff\xff"
    end[12:16] = (count * len(entry)).to_bytes(4, "little")
    bomb = data[: data.index(entry)] + entry * count + bytes(end)
    began = time.monotonic()
    with pytest.raises(Refusal, match="too many files"):
        safe_unzip(bomb)
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("case,film,crp,sex,fever\n" + "\n" * 3_000_000, "too large"),
        ("case,film,crp,sex,fever\n" + "1,,,,\n" * 90_000, "more than 500"),
        ("case," * 800_000, "twice"),
        ("x" * 130_000 + ",\n", "a column 'xxx"),
        ('case,film,crp,sex,fever\n"' + "1,,,,\n" * 50_000, "field larger"),
        (f"case,film,crp,sex,fever\n1,{'ab' * 39},,,\n", "no file"),
    ],
)
def test_bombs_of_text_are_refused_soon(table: str, words: str) -> None:
    files = {f"{'ab' * 38}{i}": b"" for i in range(2000)}
    began = time.monotonic()
    with pytest.raises(CohortError, match=words):
        read_cases(MODELS["pneumonia"].form, table.encode(), files)
    assert time.monotonic() - began < 3


def test_the_pages_load_nothing_that_draws() -> None:
    code = "import sys, tenfold.serve.app; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_results_are_kept_and_counted_as_they_are() -> None:
    raw = np.zeros((64, 64, 4), np.uint8)
    answer = pages._drawn(Answer(model={}, case="", heat=Pngs({("film", 0): raw})))
    assert isinstance(answer.heat, dict)  # no array stays that would be counted as a smaller PNG
    assert answer.heat[("film", 0)].startswith(b"\x89PNG")


# --- learning what is not theirs -------------------------------------------------------------------------------------


def test_no_folder_of_the_server_is_told(tmp_path: Path, users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    http = client(tmp_path, users=users)
    csrf = token(http)

    async def full(record: object) -> str:
        raise OutputError("The log cannot be written", where=str(tmp_path / "log"))

    monkeypatch.setattr(http.app.state.log, "write", full)
    answers = [
        http.post("/login", data={"csrf": csrf, "user": "ann", "password": "no"}),
        http.get("/api/v1/models", headers=basic("no")),
        http.post("/api/v1/predict", headers=basic(), **ASK),
    ]
    for answer in answers:
        assert answer.status_code == 503
        assert str(tmp_path) not in answer.text


def test_a_batch_that_cannot_be_logged_tells_no_folder_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with client(tmp_path) as http:
        http.follow_redirects = True
        csrf = token(http, "/models/pneumonia/batch")

        async def full(record: object) -> str:
            raise OutputError("The log cannot be written", where=str(tmp_path / "log"))

        with monkeypatch.context() as patched:
            patched.setattr(http.app.state.log, "write", full)
            table = {"table": ("t.csv", b"case,film,crp,sex,fever\n1,,8,,\n2,,9,,\n")}
            page = http.post("/models/pneumonia/batch", data={"csrf": csrf}, files=table)
            for _ in range(50):
                page = http.get(page.url.path)
                if "Download" in page.text:
                    break
                time.sleep(0.02)
        assert "Stopped" in page.text
        assert str(tmp_path) not in page.text


def test_nothing_is_reported_to_a_third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
    settings = getattr(client(tmp_path).app, "_telemetry", {})  # FastAPI has it from 0.15x on
    assert not any(settings.get(kind) for kind in ("auto_configure", "tracing", "metrics", "logs"))


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("=1+1", "'=1+1"),
        (" =1+1", " '=1+1"),
        ("\uff1d1+1", "'\uff1d1+1"),
        ("a;=cmd|' /C calc'!A1", "a;'=cmd|' /C calc'!A1"),
        ("a,@SUM(A1)", "a,'@SUM(A1)"),
        ("a\t-1", "a\t'-1"),
        ("plain - text = fine", "plain - text = fine"),
    ],
)
def test_no_cell_becomes_a_formula_wherever_a_spreadsheet_cuts_it(cell: str, written: str) -> None:
    assert harmless(cell) == written


@pytest.mark.parametrize("asked", ["nan", "inf", "1e309", "-5", "1e-400", "0x10", "9" * 5000, "%00", "1;2", "10%%"])
def test_a_strange_prevalence_is_a_complaint(tmp_path: Path, asked: str) -> None:
    http = client(tmp_path)
    place = http.post("/models/pneumonia", data={"csrf": token(http, FORM_PAGE), "cell.labs.crp": "8"}).headers[
        "location"
    ]
    page = http.get(place, params={"prevalence": asked})
    assert page.status_code == 200
    assert "must lie between" in page.text or asked == "10%%"


# --- files -----------------------------------------------------------------------------------------------------------


def test_an_upload_never_touches_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", None)
    files = {"file.film": ("film.png", bytes(3 * 2**20))}
    assert client(tmp_path).post("/api/v1/predict", data=ASK["data"], files=files).status_code == 200


def test_a_file_that_is_read_lies_in_memory_alone(tmp_path: Path) -> None:
    place = tmp_path / "the file.csv"
    with _file(place, b"1,2\n"):
        assert place.read_bytes() == b"1,2\n"
        assert place.is_symlink()  # what a kill leaves behind leads nowhere
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    pool = Decoders(1)
    pool.wait()
    yield pool
    pool.close()


def test_a_pickle_is_never_loaded(decoders: Decoders, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "owned"),)

    evil = np.array([[Evil()]], dtype=object)
    single, several = io.BytesIO(), io.BytesIO()
    np.save(single, evil, allow_pickle=True)
    np.savez(several, a=evil)
    rng = np.random.default_rng(0)
    matrices = np.stack([np.corrcoef(rng.normal(size=(5, 60))) for _ in range(20)]).astype(np.float32)
    reading = ConnectomeReading(matrices, numbered(5), tuple(map(str, range(20))))
    fitted = ConnectomePreparation.fit(reading, np.arange(20))
    for data, suffix in ((single, ".npy"), (several, ".npz")):
        with pytest.raises(ImageError, match="never loaded"):
            decoders.connectome(data.getvalue(), fitted, suffix)
    assert not (tmp_path / "owned").exists()


def test_a_child_inherits_nothing_of_ours(decoders: Decoders, monkeypatch: pytest.MonkeyPatch) -> None:
    process = Path(f"/proc/{decoders._all[0]._process.pid}")
    environment = process.joinpath("environ").read_bytes().split(b"\0")
    names = {line.partition(b"=")[0].decode() for line in environment if line}
    assert names <= {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "PYTHONPATH",
                     "PYTHONDONTWRITEBYTECODE", "LC_ALL"}  # fmt: skip
    open_files = [str(place.readlink()) for place in process.joinpath("fd").iterdir()]
    assert all(name.startswith(("pipe:", "/dev/null")) for name in open_files)
    assert process.joinpath("cwd").readlink() == decoders._all[0].folder
