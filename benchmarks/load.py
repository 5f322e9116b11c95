"""The server under load: many clients, good and bad questions mixed. No error but the intended refusals, no growth.

`tenfold serve` runs as a process of its own on loopback, around two small bundles (films beside laboratory values;
three views, one with several pictures). Locust drives the clients where it is installed, threads do where it is not;
what they send is the same. Every probability that comes back is compared with what the bundle says of the same files
by itself, every case that was answered is looked up in the log, and the memory of the server and of the children that
decode is watched. Nothing here leaves the machine.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import hmac
import http.client
import json
import os
import random
import re
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

GROWTH = 0.10
TOLERANCE = 1e-6
USER, PASSWORD = "clinic", "a long enough password"
BOUNDARY = "----load"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
BASIC = {"Authorization": "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}
VIEWS = ("b_mode", "cdfi", "elastography")
SIDE, FITTED = 64, 48
PATIENCE = 60.0


# --- what is asked ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        slug: The model it is for.
        cells: Field of the form -> text.
        files: (field, path of the file).
        expected: Class -> probability, as the bundle says it; None where there is to be no result.
    """

    slug: str
    cells: Mapping[str, str]
    files: Sequence[tuple[str, str]]
    expected: Mapping[str, float] | None

    def form(self, **more: str) -> bytes:
        """The case as it is sent."""
        return multipart({"model": self.slug, **self.cells, **more}, [(f, Path(p)) for f, p in self.files])


def multipart(fields: Mapping[str, str], files: Sequence[tuple[str, Path]] = ()) -> bytes:
    """A form as bytes."""
    parts = [f'Content-Disposition: form-data; name="{name}"\r\n\r\n{text}'.encode() for name, text in fields.items()]
    for name, path in files:
        head = f'Content-Disposition: form-data; name="{name}"; filename="{path.name}"\r\n'
        parts.append(f"{head}Content-Type: application/octet-stream\r\n\r\n".encode() + path.read_bytes())
    return b"".join(b"--" + BOUNDARY.encode() + b"\r\n" + p + b"\r\n" for p in parts) + f"--{BOUNDARY}--\r\n".encode()


@dataclass
class Outcome:
    """What came of one question.

    Attributes:
        kind: Which kind it was.
        status: HTTP status; 0 where the client went away on purpose.
        seconds: Until the answer was there as a whole.
        wrong: What was not as intended, in words; empty else.
        case: Its name, where an answer was acknowledged.
    """

    kind: str
    status: int = 0
    seconds: float = 0.0
    wrong: str = ""
    case: str = ""


class Client:
    """One client that asks one question after the other.

    Args:
        port: Of the server.
        cases: By what they are for: "film", "views", "unusable".
        seed: The same seed asks the same questions.
    """

    def __init__(self, port: int, cases: Mapping[str, Sequence[Case]], seed: int) -> None:
        self.port, self.cases, self.seed = port, cases, seed
        self.random = random.Random(seed)
        self.count = 0

    def ask(self, kind: str = "") -> Outcome:
        """Ask one question, of a kind by chance where none is named."""
        kind = kind or self.random.choices(list(KINDS), [weight for weight, _ in KINDS.values()])[0]
        self.count += 1
        told, begun = Outcome(kind), time.perf_counter()
        try:
            KINDS[kind][1](self, told)
        except (OSError, http.client.HTTPException, ValueError, KeyError, LookupError) as error:
            told.wrong = told.wrong or f"{type(error).__name__}: {error}"
        told.seconds = time.perf_counter() - begun
        return told

    # --- good questions

    def film(self, told: Outcome) -> None:
        self._predict(told, "film")

    def views(self, told: Outcome) -> None:
        self._predict(told, "views")

    def explain(self, told: Outcome) -> None:
        self._predict(told, self.random.choice(("film", "views")), path="explain")

    def unusable(self, told: Outcome) -> None:
        self._predict(told, "unusable")

    def _predict(self, told: Outcome, group: str, path: str = "predict") -> None:
        case, name = self.random.choice(self.cases[group]), f"{os.getpid()} {self.seed} {self.count}"
        answer = self._send("POST", f"/api/v1/{path}", case.form(case=name), {**FORM, **BASIC})
        self._judge(told, answer, case, name)

    def _judge(self, told: Outcome, answer: Answer, case: Case, name: str) -> None:
        """Compare an answer with what the bundle says."""
        told.status = answer.status
        if answer.status == 503:
            told.wrong = "" if answer.headers.get("retry-after", "").isdecimal() else "503 without Retry-After"
            time.sleep(0.2)
            return
        if answer.status != 200:
            told.wrong = f"{answer.status}: {answer.body[:200]!r}"
            return
        said = json.loads(answer.body)
        told.case = name
        if said["result"] != (case.expected is not None):
            told.wrong = f"result {said['result']}: {said['reasons']}"
        elif case.expected is not None:
            found = said["targets"][0]["probabilities"]
            off = max(abs(found[name] - p) for name, p in case.expected.items())
            told.wrong = "" if off <= TOLERANCE else f"a probability is off by {off:.2g}"

    def page(self, told: Outcome) -> None:
        """Sign in, ask, look at the result and its maps, sign out."""
        case = self.random.choice(self.cases["film"][:4])
        cookie, token = self._token("/login", "")
        answer = self._page(cookie, "/login", {"csrf": token, "user": USER, "password": PASSWORD})
        cookie = answer.headers.get("set-cookie", "").partition(";")[0]
        told.status = answer.status
        if answer.status != 303:
            told.wrong = f"signing in: {answer.status}"
            return
        _, token = self._token(f"/models/{case.slug}", cookie)
        answer = self._page(cookie, f"/models/{case.slug}", {"csrf": token, **case.cells}, case.files)
        told.status = answer.status
        if answer.status == 303:
            place = answer.headers["location"]
            for path in (place, f"{place}/picture/film/0.png", f"{place}/heat/film/0.png"):
                if (seen := self._send("GET", path, headers={"Cookie": cookie})).status != 200:
                    told.wrong = f"{path.partition('/')[2][:8]}: {seen.status}"
        elif answer.status != 503:
            told.wrong = f"asking: {answer.status}"
        _, token = self._token("/about", cookie)
        if self._page(cookie, "/logout", {"csrf": token}).status != 303:
            told.wrong = told.wrong or "signing out"

    def _page(self, cookie: str, path: str, fields: Mapping[str, str], files: Sequence[Any] = ()) -> Answer:
        body = multipart(fields, [(name, Path(place)) for name, place in files])
        return self._send("POST", path, body, {**FORM, "Cookie": cookie})

    def _token(self, path: str, cookie: str) -> tuple[str, str]:
        """The cookie and the token of a page."""
        answer = self._send("GET", path, headers={"Cookie": cookie} if cookie else {})
        found = re.search(rb'name="csrf" value="([0-9a-f]{64})"', answer.body)
        if found is None:
            raise ValueError(f"{path}: no token in an answer of status {answer.status}")
        return answer.headers.get("set-cookie", cookie).partition(";")[0], found[1].decode()

    def look(self, told: Outcome) -> None:
        path = self.random.choice(("/api/v1/models", "/api/v1/health", "/api/v1/openapi.json", "/static/tenfold.css"))
        self._intended(told, self._send("GET", path, headers=BASIC), 200)

    # --- bad questions

    def unknown(self, told: Outcome) -> None:
        """A model, a field or an address that is not there."""
        case = self.cases["film"][0]
        path, fields, status = self.random.choice(
            [
                ("/api/v1/predict", {"model": "no-such-model"}, 404),
                ("/api/v1/predict", {"model": case.slug, "cell.labs.no_such_cell": "1"}, 422),
                ("/api/v1/predict", {"model": case.slug, "file.film": "text"}, 422),
                ("/api/v1/none", {"model": case.slug}, 404),
            ]
        )
        self._intended(told, self._send("POST", path, multipart(fields), {**FORM, **BASIC}), status)

    def malformed(self, told: Outcome) -> None:
        path = "/api/v1/predict"
        body, kind, status = self.random.choice(
            [(b"{}", "application/json", 415), (b"no boundary at all", FORM["Content-Type"], 400)]
        )
        self._intended(told, self._send("POST", path, body, {**BASIC, "Content-Type": kind}), status)

    def oversize(self, told: Outcome) -> None:
        """A body that is announced with 100 MB, of which some arrives."""
        with self._begun(100_000_000, b"x" * 50_000) as answer:
            self._intended(told, answer(), 413)

    def stranger(self, told: Outcome) -> None:
        """No password, or a wrong one; after some of these the address has to wait."""
        wrong = "Basic " + base64.b64encode(b"clinic:not the password").decode()
        headers = self.random.choice(({}, {"Authorization": wrong}, {"Authorization": "Basic !"}))
        address = f"127.0.1.{self.seed % 3 + 1}"  # its own: who guesses at ours keeps us out too
        body = self.cases["film"][0].form()
        self._intended(told, self._send("POST", "/api/v1/predict", body, {**FORM, **headers}, address), 401, 429)

    def forged(self, told: Outcome) -> None:
        """Another site's page, another host, a form without its token."""
        choice = self.random.randrange(3)
        if choice == 0:
            headers = {**BASIC, "Origin": "https://elsewhere.example"}
            self._intended(told, self._send("POST", "/api/v1/predict", b"", headers), 403)
        elif choice == 1:
            self._intended(told, self._send("GET", "/", headers={"Host": "elsewhere.example"}), 400)
        else:
            fields = {"csrf": "0" * 64, "user": USER, "password": PASSWORD}
            self._intended(told, self._send("POST", "/login", multipart(fields), FORM), 403)

    def slow(self, told: Outcome) -> None:
        """A body that comes in drops, but comes."""
        case, name = self.random.choice(self.cases["film"]), f"{os.getpid()} {self.seed} {self.count}"
        body = case.form(case=name)
        with self._begun(len(body), body[:1000]) as answer:
            for start in range(1000, len(body), len(body) // 4):
                time.sleep(0.3)
                answer.connection.sendall(body[start : start + len(body) // 4])
            self._judge(told, answer(), case, name)

    def gone(self, told: Outcome) -> None:
        """A client that goes away: in the middle of its question, while it is answered, or while it reads."""
        body = self.random.choice(self.cases["views"]).form(explain="true")
        choice = self.random.randrange(4)
        with self._begun(len(body), body if choice else body[: len(body) // 2], small=choice == 3) as answer:
            if choice == 2:  # with a reset
                answer.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif choice == 3:
                for _ in range(self.random.randrange(10)):
                    answer.connection.recv(512)
                    time.sleep(0.1)

    def noise(self, told: Outcome) -> None:
        """Bytes that are no HTTP, or none at all."""
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as connection:
            if self.random.random() < 0.5:
                time.sleep(0.5)
                return
            connection.sendall(self.random.randbytes(300) + b"\r\n\r\n")
            told.status = int(connection.recv(64).split()[1])
            told.wrong = "" if told.status == 400 else f"{told.status}"

    def _intended(self, told: Outcome, answer: Answer, *statuses: int) -> None:
        told.status = answer.status
        told.wrong = "" if answer.status in statuses else f"{answer.status}: {answer.body[:200]!r}"

    def _send(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        address: str = "127.0.0.1",
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE, source_address=(address, 0))
        try:
            connection.request(method, path, body, dict(headers or {}))
            return Answer.of(connection.getresponse())
        finally:
            connection.close()

    @contextlib.contextmanager
    def _begun(self, length: int, body: bytes, *, small: bool = False) -> Iterator[_Open]:
        """A question of which only the beginning was sent."""
        with socket.socket() as connection:
            if small:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            connection.settimeout(PATIENCE)
            connection.connect(("127.0.0.1", self.port))
            lines = {"Host": f"127.0.0.1:{self.port}", "Content-Length": str(length), **FORM, **BASIC}
            head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
            connection.sendall(f"POST /api/v1/predict HTTP/1.1\r\n{head}\r\n".encode() + body)
            yield _Open(connection)


@dataclass(frozen=True)
class Answer:
    """What a server said."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @classmethod
    def of(cls, response: http.client.HTTPResponse) -> Answer:
        """Read it as a whole."""
        headers = {name.lower(): value for name, value in response.getheaders()}
        return cls(response.status, headers, response.read())


@dataclass(frozen=True)
class _Open:
    """A connection on which an answer is still to come."""

    connection: socket.socket

    def __call__(self) -> Answer:
        response = http.client.HTTPResponse(self.connection)
        response.begin()
        return Answer.of(response)


KINDS: dict[str, tuple[int, Callable[[Client, Outcome], None]]] = {
    "film": (34, Client.film),
    "views": (14, Client.views),
    "explain": (3, Client.explain),
    "page": (2, Client.page),
    "unusable": (10, Client.unusable),
    "look": (6, Client.look),
    "unknown": (6, Client.unknown),
    "malformed": (4, Client.malformed),
    "oversize": (3, Client.oversize),
    "stranger": (5, Client.stranger),
    "forged": (5, Client.forged),
    "slow": (3, Client.slow),
    "gone": (3, Client.gone),
    "noise": (2, Client.noise),
}


# --- bundles and cases -----------------------------------------------------------------------------------------------


def make_all(folder: Path, size: tuple[int, int]) -> tuple[list[Path], dict[str, list[Case]]]:
    """Write two bundles and the cases to ask them about.

    Args:
        folder: Where.
        size: Height and width of the films.
    """
    from films import make_films

    films, _ = make_films(folder / "films", FITTED + 12, size)
    bundles = [_films_and_labs(folder / "films-and-labs", films[:FITTED]), _three_views(folder / "three-views")]
    others = [_as(film, kind) for film, kind in zip(films[FITTED:], ("jpg", "png", "dcm") * 4, strict=True)]
    cases = {
        "film": _film_cases(bundles[0], others),
        "views": _view_cases(bundles[1], others),
        "unusable": _unusable_cases(folder, others[0]),
    }
    (folder / "cases.json").write_text(json.dumps({k: [asdict(c) for c in some] for k, some in cases.items()}))
    return bundles, cases


def read_cases(folder: Path) -> dict[str, list[Case]]:
    """The cases that `make_all` wrote."""
    told = json.loads((folder / "cases.json").read_text())
    return {kind: [Case(**case) for case in some] for kind, some in told.items()}


def _films_and_labs(folder: Path, films: Sequence[Path]) -> Path:
    import numpy as np
    import torch

    from tenfold.bundle.reference import fit_reference
    from tenfold.bundle.save import Answer as Told
    from tenfold.bundle.save import Member, save_bundle
    from tenfold.encoders import build
    from tenfold.modalities.image import ImagePreparation, read_image
    from tenfold.modalities.table import Column, TablePreparation, TableReading
    from tenfold.network.heads import HeadSpec
    from tenfold.network.network import Network
    from tenfold.types import Calibration, OperatingPoint

    rng = np.random.default_rng(0)
    columns = (Column("crp", unit="mg/L", low=0, high=600), Column("wbc", unit="10*9/L", low=0, high=100))
    labs = TableReading(columns, np.stack([rng.uniform(1, 60, 40), rng.uniform(3, 20, 40)], axis=1))
    preparation = ImagePreparation(size=SIDE)
    seen = np.stack([preparation.apply(read_image(film)) for film in films]).astype(np.float32) / 255
    members, networks = [], []
    for k in range(3):
        fitted = TablePreparation.fit(labs, np.arange(k, 40, 2))
        torch.manual_seed(k)
        encoders = {
            "film": build("image_residual_dilated", width=8, depths=(1, 1, 1, 1)),
            "labs": build("table_mlp", features=len(fitted.features), dim=16, hidden=8),
        }
        network = Network(encoders, {"sick": HeadSpec("softmax", ("no", "yes"))}, modality_dropout=0.2).eval()
        torch.nn.init.normal_(next(network.head_list.parameters()))
        networks.append(network)
        own = {"labs": fitted.state()}
        members.append(Member(f"fold-{k}", network.state_dict(), {"sick": Calibration()}, own))
    inside, outside = torch.from_numpy(seen).split([len(films) // 2, len(films) - len(films) // 2])
    save_bundle(
        folder,
        members=members,
        network_spec=networks[0].spec,
        answers=[Told("sick", ("no", "yes"), "yes", OperatingPoint(0.4, "made up", 2))],
        preparations={"film": preparation.state()},
        model_card="# Made up\n",
        facts={"title": "Films and labs"},
        training_patients=[],
        training_images=[],
        references={"film": fit_reference(networks[0], "film", [inside], [outside])},
    )
    return folder


def _three_views(folder: Path) -> Path:
    import torch

    from tenfold.bundle.save import Answer as Told
    from tenfold.bundle.save import Member, save_bundle
    from tenfold.encoders import build
    from tenfold.modalities.image import ImagePreparation
    from tenfold.network.heads import HeadSpec
    from tenfold.network.network import Network
    from tenfold.types import Calibration

    classes = ("reactive", "lymphoma", "metastasis")
    torch.manual_seed(7)
    encoders = {name: build("image_residual_dilated", width=8, channels=3, depths=(1, 1, 1, 1)) for name in VIEWS}
    network = Network(encoders, {"kind": HeadSpec("softmax", classes)}, modality_dropout=0.2, pools={VIEWS[0]: "mean"})
    torch.nn.init.normal_(next(network.head_list.parameters()))
    save_bundle(
        folder,
        members=[Member("fold-0", network.state_dict(), {"kind": Calibration()})],
        network_spec=network.spec,
        answers=[Told("kind", classes, "")],
        preparations={name: ImagePreparation(size=SIDE, channels=3).state() for name in VIEWS},
        model_card="# Made up\n",
        facts={"title": "Three views"},
        training_patients=[],
        training_images=[],
    )
    return folder


def _as(film: Path, kind: str) -> Path:
    """The same film in another format."""
    import numpy as np
    from PIL import Image

    place = film.with_suffix(f".{kind}")
    pixels = np.asarray(Image.open(film))
    if kind == "png":
        Image.fromarray(pixels).save(place)
    elif kind == "dcm":
        _write_dicom(place, pixels)
    return place


def _write_dicom(place: Path, pixels: Any) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

    film = Dataset()
    film.file_meta = FileMetaDataset()
    film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film.file_meta.MediaStorageSOPClassUID = film.SOPClassUID = DigitalXRayImageStorageForPresentation
    film.file_meta.MediaStorageSOPInstanceUID = film.SOPInstanceUID = generate_uid()
    film.Modality, film.PhotometricInterpretation = "DX", "MONOCHROME2"
    film.Rows, film.Columns, film.SamplesPerPixel = *pixels.shape, 1
    film.BitsAllocated, film.BitsStored, film.HighBit, film.PixelRepresentation = 8, 8, 7, 0
    film.PixelData = pixels.tobytes()
    film.save_as(place, enforce_file_format=True)


def _film_cases(bundle: Path, films: Sequence[Path]) -> list[Case]:
    rows = [{"crp": str(3 + 7 * i), "wbc": "" if i % 3 == 0 else f"{4 + i}.5"} for i in range(len(films))]
    given: list[dict[str, Any]] = [{"film": film, "labs": row} for film, row in zip(films, rows, strict=True)]
    given += [{"film": films[0]}, {"labs": rows[1]}]
    return _asked(bundle, "films-and-labs", given)


def _view_cases(bundle: Path, films: Sequence[Path]) -> list[Case]:
    given: list[dict[str, Any]] = [
        {"b_mode": list(films[i : i + 1 + i % 4]), "cdfi": films[i + 1], "elastography": films[i + 2]} for i in range(6)
    ]
    given += [{"b_mode": [films[0]]}, {"cdfi": films[1], "elastography": films[3]}]
    return _asked(bundle, "three-views", given)


def _asked(bundle: Path, slug: str, given: Sequence[Mapping[str, Any]]) -> list[Case]:
    """The cases with what the bundle says of them, asked one by one as `tenfold predict` may ask."""
    from tenfold.bundle import load

    predictor, cases = load(bundle), []
    for one in given:
        (said,) = predictor.predict([one])
        files = [
            (f"file.{name}", str(path))
            for name, value in one.items()
            if not isinstance(value, Mapping)
            for path in (value if isinstance(value, list) else [value])
        ]
        cells = {f"cell.labs.{column}": text for column, text in one.get("labs", {}).items() if text}
        cases.append(Case(slug, cells, files, said.probabilities))
    return cases


def _unusable_cases(folder: Path, film: Path) -> list[Case]:
    """Files that are none: garbage, a piece of one, bombs, a blank one; and a cell that cannot be."""
    import io

    from PIL import Image

    def png(width: int, height: int, level: int = 0) -> bytes:
        out = io.BytesIO()
        Image.new("L", (width, height), level).save(out, format="PNG", compress_level=9)
        return out.getvalue()

    announced = bytearray(png(10, 10))
    announced[16:24] = (30_000).to_bytes(4, "big") * 2
    announced[29:33] = zlib.crc32(bytes(announced[12:29])).to_bytes(4, "big")
    contents = {
        "garbage.png": random.Random(1).randbytes(20_000),
        "empty.png": b"",
        "cut.jpg": film.read_bytes()[: film.stat().st_size // 3],
        "announced.png": bytes(announced),
        "over.png": png(8000, 6000),
        "large.png": png(5000, 5000),
        "blank.png": png(200, 200, 128),
        "page.html": b"<script>alert(1)</script>" * 50,
        "head.dcm": b"\0" * 128 + b"DICM" + b"\x02\x00\x00\x00UL\x04\x00\xff\xff\xff\xff" * 20,
    }
    cases = []
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        cases.append(Case("films-and-labs", {}, [("file.film", str(folder / name))], None))
    return [*cases, Case("films-and-labs", {"cell.labs.crp": "70000"}, [("file.film", str(film))], None)]


# --- the server ------------------------------------------------------------------------------------------------------


@dataclass
class Server:
    """`tenfold serve` as a process of its own.

    Attributes:
        process: It.
        port: Where it listens.
        log: Its log.
    """

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    said: Path

    @classmethod
    def start(cls, bundles: Sequence[Path], folder: Path, *options: str) -> Server:
        """Start it, and wait until it listens."""
        from tenfold.serve.users import add_user

        users, said = folder / "users.toml", folder / "said.txt"
        if not users.exists():
            add_user(users, USER, PASSWORD)
        command = [sys.executable, "-m", "tenfold.cli", "serve", *map(str, bundles), "--log", str(folder / "log")]
        command += ["--users", str(users), "--port", "0", "--rate", "1000000", "--engine", "torch", *options]
        with said.open("ab") as errors:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, start_new_session=True)
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.match(rb"http://127\.0\.0\.1:(\d+)/", line):
                made = cls(process, int(found[1]), folder / "log", said)
                # the right password is known from here on, however many wrong ones follow
                Client(made.port, {}, 0).ask("look")
                return made
        raise SystemExit(f"the server did not start: {said.read_text()[-2000:]}")

    def children(self) -> list[int]:
        """The processes that decode, whichever thread of the server made them."""
        found: set[int] = set()
        for place in Path(f"/proc/{self.process.pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found.update(map(int, place.read_text().split()))
        return sorted(found)

    def memory(self) -> tuple[float, float]:
        """MB that the server has resident, and its children together."""
        return resident(self.process.pid), sum(map(resident, self.children()))

    def errors(self) -> str:
        """What it printed beside its greeting."""
        return self.said.read_text(errors="replace")

    def stop(self, how: int = signal.SIGINT, seconds: float = 40.0) -> float:
        """Send it a signal; returns the seconds until it was gone."""
        begun = time.monotonic()
        self.process.send_signal(how)
        self.process.wait(seconds)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return time.monotonic() - begun

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.stop(signal.SIGKILL)


def resident(pid: int) -> float:
    """MB of a process; 0 where it is gone."""
    try:
        return int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0]) / 1024
    except (OSError, IndexError):
        return 0.0


def missing_in_log(log: Path, outcomes: Sequence[Outcome]) -> list[str]:
    """Cases that were answered, but have no line in the log."""
    from tenfold.serve.log_check import records

    key = bytes.fromhex((log / "case.key").read_text())
    marks = {record.get("case") for record in records(log)}
    return [
        told.case
        for told in outcomes
        if told.case and hmac.new(key, told.case.encode(), hashlib.sha256).hexdigest() not in marks
    ]


# --- the clients -----------------------------------------------------------------------------------------------------


def drive_threads(
    port: int,
    cases: Mapping[str, Sequence[Case]],
    *,
    clients: int,
    seconds: float,
    stop: threading.Event | None = None,
    kind: str = "",
) -> list[Outcome]:
    """Ask from threads until the time is over, or somebody says stop."""
    outcomes: list[Outcome] = []
    end, stopped = time.monotonic() + seconds, stop or threading.Event()

    def ask(seed: int) -> None:
        client = Client(port, cases, seed)
        while time.monotonic() < end and not stopped.is_set():
            outcomes.append(client.ask(kind))
            if outcomes[-1].wrong:  # a server that is gone must not be hammered
                time.sleep(0.2)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def drive_locust(port: int, cases: Mapping[str, Sequence[Case]], *, clients: int, seconds: float) -> list[Outcome]:
    """Ask from users of Locust; it prints its own table."""
    import gevent
    import locust
    from locust.env import Environment
    from locust.stats import print_stats

    outcomes: list[Outcome] = []
    seeds = iter(range(10**6))

    class Clinic(locust.User):
        """Asks without a pause."""

        @locust.task
        def ask(self) -> None:
            """Ask one question."""
            if not hasattr(self, "client_of_ours"):
                self.client_of_ours = Client(port, cases, next(seeds))
            told = self.client_of_ours.ask()
            outcomes.append(told)
            self.environment.events.request.fire(
                request_type=str(told.status),
                name=told.kind,
                response_time=1000 * told.seconds,
                response_length=0,
                exception=RuntimeError(told.wrong) if told.wrong else None,
            )

    environment = Environment(user_classes=[Clinic])
    runner = environment.create_local_runner()
    runner.start(clients, spawn_rate=clients)
    gevent.sleep(seconds)
    runner.quit()
    print_stats(environment.stats, current=False)
    return outcomes


# --- the run ---------------------------------------------------------------------------------------------------------


@dataclass
class Watched:
    """Memory over time: (seconds, MB of the server, MB of its children)."""

    samples: list[tuple[float, float, float]] = field(default_factory=list)

    def around(self, moment: float, width: float) -> tuple[float, float]:
        """Medians over a window that begins at a moment."""
        inside = [row for row in self.samples if moment <= row[0] <= moment + width] or self.samples[-1:]
        return statistics.median(row[1] for row in inside), statistics.median(row[2] for row in inside)


def run(options: argparse.Namespace, folder: Path) -> bool:
    """Start a server, load it, judge it."""
    bundles, _ = make_all(folder, (485, 660))
    seconds, watched = 60 * options.minutes, Watched()
    before = os.getloadavg()
    with Server.start(bundles, folder, "--queue", str(options.queue), "--threads", str(options.threads)) as server:
        command = [sys.executable, __file__, "--drive", str(server.port), "--folder", str(folder)]
        command += ["--minutes", str(options.minutes), "--clients", str(options.clients)]
        driver = subprocess.Popen([*command, "--with", options.with_])
        begun = time.monotonic()
        while driver.poll() is None:
            watched.samples.append((time.monotonic() - begun, *server.memory()))
            time.sleep(1)
        open_files = len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
        children, stopped = server.children(), server.stop()
        left = [child for child in children if Path(f"/proc/{child}").exists()]
    outcomes = [Outcome(**told) for told in json.loads((folder / "outcomes.json").read_text())]
    print(f"load average {before[0]:.1f} before, {os.getloadavg()[0]:.1f} after, {os.cpu_count()} cores")
    well = report(outcomes, seconds)
    well &= report_memory(watched, seconds)
    well &= report_rest(server, outcomes)
    print(f"open files at the end: {open_files}; Ctrl-C took {stopped:.1f} s; children left: {len(left)}")
    return well and not left


def report(outcomes: Sequence[Outcome], seconds: float) -> bool:
    """What the clients saw."""
    good = [told for told in outcomes if told.case]
    wrong = [told for told in outcomes if told.wrong]
    for kind in KINDS:
        own = [told for told in outcomes if told.kind == kind]
        statuses = ", ".join(f"{status or 'left'}: {n}" for status, n in sorted(Counter(t.status for t in own).items()))
        p50, p95 = quantiles(own)
        print(f"{kind:<10}{len(own):>7}   p50 {p50:6.2f} s   p95 {p95:6.2f} s   {statuses}")
    p50, p95 = quantiles(good)
    rate = len(good) / seconds
    print(f"{len(outcomes)} questions, {len(good)} answers ({rate:.1f}/s), p50 {p50:.2f} s, p95 {p95:.2f} s")
    print(f"not as intended: {len(wrong)}")
    for said, n in Counter(f"{told.kind}: {told.wrong}" for told in wrong).most_common(10):
        print(f"  {n} x {said}")
    return bool(good) and not wrong


def quantiles(outcomes: Sequence[Outcome]) -> tuple[float, float]:
    """Median and 95th percentile of the seconds."""
    took = sorted(told.seconds for told in outcomes)
    return (took[len(took) // 2], took[int(0.95 * len(took))]) if took else (float("nan"), float("nan"))


def report_memory(watched: Watched, seconds: float) -> bool:
    """Whether memory grew."""
    early = watched.around(min(25, seconds / 4), 10)
    late = watched.around(watched.samples[-1][0] - 12, 10)
    well = True
    for name, first, last in (*zip(("server", "children"), early, late, strict=True), ("both", sum(early), sum(late))):
        grown = last / first - 1
        print(f"RSS of {name:<9}{first:8.0f} MB at 30 s, {last:8.0f} MB at the end: {grown:+.1%}")
        well &= name == "children" or grown < GROWTH
    every = range(0, int(watched.samples[-1][0]), max(1, int(seconds / 10)))
    print("over time:", ", ".join("{:.0f}+{:.0f}".format(*watched.around(moment, 5)) for moment in every))
    return well


def report_rest(server: Server, outcomes: Sequence[Outcome]) -> bool:
    """Whether the log is whole and the server had nothing to complain of."""
    from tenfold.serve.log_check import verify

    found, missing = verify(server.log), missing_in_log(server.log, outcomes)
    traces = server.errors().count("Traceback")
    print(f"log: {len(found)} findings, {len(missing)} answers without a line; tracebacks printed: {traces}")
    return not (found or missing or traces)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--queue", type=int, default=20, help="cases under way; fewer than clients, so that some wait")
    parser.add_argument("--threads", type=int, default=0, help="of the networks")
    parser.add_argument("--with", dest="with_", choices=("auto", "locust", "threads"), default="auto")
    parser.add_argument("--drive", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.drive:
        with tempfile.TemporaryDirectory() as place:
            sys.exit(not run(options, options.folder or Path(place)))
    drive: Callable[..., list[Outcome]] = drive_threads
    if options.with_ != "threads":
        try:
            import locust  # noqa: F401  (first of all: it replaces sockets and threads)

            drive = drive_locust
        except ImportError:
            if options.with_ == "locust":
                raise
    print(f"clients: {options.clients} by {drive.__name__.removeprefix('drive_')}", flush=True)
    cases = read_cases(options.folder)
    told = drive(options.drive, cases, clients=options.clients, seconds=60 * options.minutes)
    (options.folder / "outcomes.json").write_text(json.dumps([asdict(one) for one in told]))


if __name__ == "__main__":
    main()
