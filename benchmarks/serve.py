"""The server against a plain one, FastAPI around eager PyTorch, model after model. Target: twice as many cases.

Both serve the same bundle of ResNet-18 at 224 pixels on loopback, each in a process of its own, asked in turn by the
same clients about the same films. The plain one decodes in the endpoint, as an ordinary engineer would write it;
its questions run one at a time, because threads of PyTorch that compete for two cores are slower still. `own` models
differ in every weight; `shared` ones have the trunk in common up to the last stage, as models do that were fitted with
it frozen. Ours checks quality and distance, writes the log and decodes in child processes beside.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, Request

from films import make_films
from tenfold.bundle import Answer, Member, load, save_bundle
from tenfold.bundle.reference import fit_reference
from tenfold.encoders import build
from tenfold.modalities.image import ImagePreparation, read_image
from tenfold.network.heads import HeadSpec
from tenfold.network.network import Network
from tenfold.types import Calibration, OperatingPoint

TARGET = 2.0
ROUNDS = 4
CLASSES = ("no", "yes")
FITTED, HELD_OUT = 32, 16
TRUNK_STEPS = 7  # of ResNet-18: stem, layer1, layer2, layer3
BOUNDARY = "films"


def make_bundle(folder: Path, films: Sequence[Path], members: int, *, shared: bool) -> Path:
    """Write a bundle of models with random weights."""
    preparation = ImagePreparation(size=224)
    networks = []
    for k in range(members):
        torch.manual_seed(k)
        encoder = build("image_timm", network="resnet18", weights="none", channels=1)
        network = Network({"film": encoder}, {"y": HeadSpec("softmax", CLASSES)}).eval()
        torch.nn.init.normal_(next(network.head_list.parameters()), std=3.0)
        if shared and networks:
            first = networks[0].encoders["film"]
            for mine, other in zip(encoder.blocks[:TRUNK_STEPS], first.blocks, strict=False):
                mine.load_state_dict(other.state_dict())
        networks.append(network)
    seen = np.stack([preparation.apply(read_image(path)) for path in films]).astype(np.float32) / 255
    batches = torch.from_numpy(seen).split(8)
    inside = FITTED // 8
    save_bundle(
        folder,
        members=[Member(f"fold-{k}", n.state_dict(), {"y": Calibration()}) for k, n in enumerate(networks)],
        network_spec=networks[0].spec,
        answers=[Answer("y", CLASSES, "yes", OperatingPoint(0.5, "made up", 2))],
        preparations={"film": preparation.state()},
        model_card="# Made up\n",
        facts={"title": "Films"},
        training_patients=[],
        training_images=[],
        references={"film": fit_reference(networks[0], "film", batches[:inside], batches[inside:])},
    )
    return folder


def plain_app(bundle: Path) -> FastAPI:
    """What an ordinary engineer would write around the same networks."""
    predictor = load(bundle)
    app, one_at_a_time = FastAPI(), threading.Lock()

    def answer(data: bytes) -> dict[str, float]:
        with tempfile.NamedTemporaryFile(suffix=".jpg") as file:
            file.write(data)
            file.flush()
            pixels = predictor.preparations["film"].apply(read_image(file.name))
        x = torch.from_numpy(pixels[None].astype(np.float32) / 255)
        with one_at_a_time, torch.inference_mode():
            said = [
                calibration.apply(network.to_scores("y", network({"film": x})["y"]))[0]
                for network, calibration in zip(predictor.networks, predictor.calibrations, strict=True)
            ]
        return dict(zip(CLASSES, np.mean(said, axis=0).tolist(), strict=True))

    @app.post("/api/v1/predict")
    async def predict(request: Request) -> dict[str, float]:
        async with request.form() as form:
            data = await form["file.film"].read()
        return await asyncio.to_thread(answer, data)

    return app


def serve(kind: str, bundle: Path, port: int, threads: int) -> None:
    """Run one of the two servers until it is told to stop."""
    torch.set_num_threads(threads)
    if kind == "plain":
        uvicorn.run(plain_app(bundle), port=port, log_level="warning", access_log=False)
        return
    from tenfold.serve.app import serve as run
    from tenfold.serve.engine import Engine, EngineSettings
    from tenfold.serve.settings import Settings

    engine = Engine.start([bundle], settings=EngineSettings(decoders=threads, threads=threads))
    print(next(iter(engine.models.values())).engine_name, flush=True)
    settings = Settings(bundle.parent / f"log-{bundle.name}", port=port, rate=10**6)
    run(engine, settings)


@dataclass
class Server:
    """One of the two servers, and what its clients saw of it.

    Attributes:
        kind: "plain" or "ours".
        port: Where it listens.
        process: Its process.
        asked: Seconds in which it was asked.
        took: Seconds that each case took.
        spent: Seconds of processor, children included; NaN where the system does not say.
        memory: MB at the peak, likewise.
        answers: Film -> probability of "yes".
        engine: What it says that it computes with.
    """

    kind: str
    port: int
    process: subprocess.Popen[str]
    asked: float = 0.0
    took: list[float] = field(default_factory=list)
    spent: float = 0.0
    memory: float = 0.0
    answers: dict[int, float] = field(default_factory=dict)
    engine: str = "torch, eager"

    @property
    def rate(self) -> float:
        return len(self.took) / self.asked

    @classmethod
    def start(cls, kind: str, bundle: Path, threads: int) -> Server:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, __file__, "--serve", kind, "--bundle", str(bundle), "--port", str(port)]
        process = subprocess.Popen([*command, "--threads", str(threads)], stdout=subprocess.PIPE, text=True)
        return cls(kind, port, process)

    def stop(self) -> None:
        self.process.terminate()
        self.engine = self.process.communicate(timeout=60)[0].split("\n")[0] or self.engine


def measure(bundle: Path, films: Sequence[bytes], options: argparse.Namespace) -> tuple[Server, Server]:
    """Start both servers and ask them in turn, so that whatever else this machine does falls on both."""
    servers = tuple(Server.start(kind, bundle, options.threads) for kind in ("plain", "ours"))
    try:
        for server in servers:
            wait_for(server)
            ask_all(server.port, films, clients=2, count=4, seconds=60)
        for _ in range(ROUNDS):
            for server in servers:
                spent, begun = processor(server.process.pid), time.perf_counter()
                took, answers = ask_all(
                    server.port,
                    films,
                    clients=options.clients,
                    count=options.count // ROUNDS,
                    seconds=options.seconds / ROUNDS,
                )
                server.asked += time.perf_counter() - begun
                server.spent += processor(server.process.pid) - spent
                server.took += took
                server.answers |= answers
        for server in servers:
            server.memory = peak_memory(server.process.pid)
    finally:
        for server in servers:
            server.stop()
    plain, ours = servers
    return plain, ours


def wait_for(server: Server) -> None:
    """Wait until a server listens."""
    for _ in range(3000):
        if server.process.poll() is not None:
            raise SystemExit(f"the server ended with {server.process.returncode} before it listened")
        try:
            socket.create_connection(("127.0.0.1", server.port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit("the server did not start within five minutes")


def ask_all(
    port: int, films: Sequence[bytes], *, clients: int, count: int, seconds: float
) -> tuple[list[float], dict[int, float]]:
    """Ask from several clients at once, until so many were asked or so much time has gone."""
    took: list[float] = []
    answers: dict[int, float] = {}
    numbers, end = iter(range(count)), time.monotonic() + seconds
    lock = threading.Lock()
    failed: list[str] = []

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        while time.monotonic() < end and not failed:
            with lock:
                number = next(numbers, None)
            if number is None:
                break
            film = number % len(films)
            begun = time.perf_counter()
            connection.request("POST", "/api/v1/predict", form_of(films[film]), HEADERS)
            answer = connection.getresponse()
            body = answer.read()
            spent = time.perf_counter() - begun
            if answer.status != 200:
                failed.append(f"status {answer.status}: {body[:300]!r}")
                break
            told = json.loads(body)
            if told.get("result") is False:
                failed.append(f"no result: {told['reasons']}")
                break
            took.append(spent)
            answers[film] = (told["targets"][0]["probabilities"] if "targets" in told else told)["yes"]
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise SystemExit(failed[0])
    return took, answers


HEADERS = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", "Accept": "application/json"}


def form_of(film: bytes) -> bytes:
    """A form with one film in it."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file.film"; filename="film.jpg"\r\n'
    return f"{head}Content-Type: image/jpeg\r\n\r\n".encode() + film + f"\r\n--{BOUNDARY}--\r\n".encode()


def peak_memory(pid: int) -> float:
    """MB that a process and its children held at their peaks."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return float("nan")
    own = int(status.split("VmHWM:")[1].split()[0]) / 1024
    return own + sum(peak_memory(int(child)) for child in children)


def processor(pid: int) -> float:
    """Seconds of processor that a process and its children have had."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return float("nan")
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(processor(int(child)) for child in children)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--count", type=int, default=160, help="questions to each server at most")
    parser.add_argument("--seconds", type=float, default=90.0, help="after which no more are asked")
    parser.add_argument("--threads", type=int, default=2, help="of each server, for what it computes")
    parser.add_argument("--weights", choices=("own", "shared", "both"), default="both")
    parser.add_argument("--serve", choices=("plain", "ours"), help=argparse.SUPPRESS)
    parser.add_argument("--bundle", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.bundle, options.port, options.threads)
        return
    print(
        f"{options.members} models, {options.clients} clients, at most {options.count} cases or {options.seconds:g} s"
    )
    print(f"{'weights':<8}{'server':<7}{'engine':<18}{'cases/s':>8}{'p50 s':>7}{'p95 s':>7}{'cpu s':>7}{'MB':>6}")
    with tempfile.TemporaryDirectory() as place:
        paths, _ = make_films(Path(place) / "films", FITTED + HELD_OUT)
        films = [path.read_bytes() for path in paths]
        for weights in ("own", "shared") if options.weights == "both" else (options.weights,):
            bundle = make_bundle(Path(place) / weights, paths, options.members, shared=weights == "shared")
            plain, ours = measure(bundle, films, options)
            for one in (plain, ours):
                p50, p95 = np.quantile(one.took, [0.5, 0.95])
                cpu = one.spent / len(one.took)
                figures = f"{one.rate:>8.2f}{p50:>7.2f}{p95:>7.2f}{cpu:>7.2f}{one.memory:>6.0f}"
                print(f"{weights:<8}{one.kind:<7}{one.engine:<18}{figures}")
            both = plain.answers.keys() & ours.answers.keys()
            difference = max(abs(plain.answers[film] - ours.answers[film]) for film in both)
            low, high = min(ours.answers.values()), max(ours.answers.values())
            ratio = ours.rate / plain.rate
            print(f"  {len(both)} films answered by both: p from {low:.3f} to {high:.3f}, max |dp| {difference:.1e}")
            print(f"  target {TARGET:.1f}: {'reached' if ratio >= TARGET else 'NOT reached'} ({ratio:.2f})", flush=True)


if __name__ == "__main__":
    main()
