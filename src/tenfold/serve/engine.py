"""The engine: bundles loaded and warmed once, cases in, answers out.

It must not know who asks, pages or addresses.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tenfold.bundle import Predictor, load
from tenfold.errors import BundleError, nearest
from tenfold.serve.answer import Answer, Busy, Contribution
from tenfold.serve.case import Given
from tenfold.serve.decode import Decoders, Limits
from tenfold.serve.explaining import Explanation, explain
from tenfold.serve.model import Model
from tenfold.serve.offering import offer
from tenfold.serve.pngs import Place, Pngs, heat_picture
from tenfold.serve.predicting import Computing, Question, Said, ask, choose, warm_up
from tenfold.serve.queue import Queue
from tenfold.serve.reading import Read, check_names, read
from tenfold.serve.telling import prevalence_of, told
from tenfold.types import finite_or_none

_EXPLAINED_COLUMNS = 8
_EXPLANATION_HANDICAP = 2.0
_LONGEST_WAIT = 60
_VERSION = version("tenfold")


@dataclass(frozen=True)
class EngineSettings:
    """How the engine works.

    Attributes:
        decoders: Child processes that decode files.
        limits: What one file may cost.
        batch: Cases that are computed together at most.
        linger: Seconds that a case waits for others.
        queue: Cases under way at most; the next one is refused.
        threads: Of the networks; 0: as many as they take by themselves.
        engine: "auto" takes OpenVINO where it is installed and agrees with torch; "torch" and "openvino" insist.
    """

    decoders: int = 2
    limits: Limits = field(default_factory=Limits)
    batch: int = 8
    linger: float = 0.005
    queue: int = 64
    threads: int = 0
    engine: str = "auto"


class _Loaded:
    """One bundle, and the two kinds of work that the queue does for it."""

    def __init__(self, predictor: Predictor, computing: Computing, model: Model) -> None:
        self.predictor, self.computing, self.model = predictor, computing, model
        self.by_target = {name: predictor.of(name) for name in predictor.targets}

    def ask(self, questions: Sequence[Question]) -> list[Said]:
        """Probabilities and distances of several cases."""
        return ask(self.predictor, self.computing, questions)

    def explain(self, cases: Sequence[tuple[Read, str]]) -> list[Explanation]:
        """What moved the first target's answer, case by case."""
        first = self.by_target[self.predictor.targets[0]]
        return [explain(first, case.prepared, name, prevalence=prevalence_of(first, name)) for case, name in cases]


class Engine:
    """Answers cases. Make one with `start`; it may be asked from any event loop.

    Attributes:
        models: Slug -> what is told of the model.
    """

    def __init__(self, loaded: Mapping[str, _Loaded], settings: EngineSettings) -> None:
        self.models = {slug: one.model for slug, one in loaded.items()}
        self._loaded = dict(loaded)
        self._settings = settings
        self._decoders = Decoders(settings.decoders, settings.limits)
        # some more threads than children, so that tables do not wait behind pictures
        self._readers = ThreadPoolExecutor(settings.decoders + 2, "tenfold-reading")
        self._queue = Queue(settings.linger)
        self._lock = threading.Lock()
        self._under_way = 0
        self._seconds = 0.1  # what a case took of late

    @classmethod
    def start(cls, bundles: Sequence[str | Path], *, settings: EngineSettings | None = None) -> Engine:
        """Load bundles and warm them up.

        Args:
            bundles: Their folders.
            settings: How the engine works.

        Raises:
            BundleError: There is none, one cannot be loaded, or two have the same name.
        """
        settings = settings or EngineSettings()
        if not bundles:
            raise BundleError("no bundle", expected="the folder of one at least", do="tenfold serve runs/x/bundle")
        if settings.threads:
            torch.set_num_threads(settings.threads)
        loaded: dict[str, _Loaded] = {}
        for folder in bundles:
            predictor = load(folder)
            computing, name = choose(predictor, settings.engine, settings.threads)
            one = _Loaded(predictor, computing, offer(predictor, name))
            other = loaded.setdefault(one.model.slug, one)
            if other is not one:
                raise BundleError(
                    f"two bundles are called '{one.model.title}'",
                    expected="a name of its own for each",
                    do="serve one of them, or run one study again with another title",
                    where=str(folder),
                )
            warm_up(predictor, one.computing, settings.batch)
        engine = cls(loaded, settings)
        engine._decoders.wait()
        return engine

    async def answer(self, slug: str, given: Given, explain: bool = False) -> Answer:
        """Answer one case.

        Args:
            slug: Which model.
            given: The case. What cannot be used of it makes an answer without result.
            explain: Whether to say what moved the answer; that takes longer.

        Raises:
            BundleError: There is no such model, input, column or layout.
            Busy: Too many cases are under way.
        """
        if slug not in self._loaded:
            raise BundleError(f"there is no model '{slug}'", do=nearest(slug, self._loaded))
        loaded = self._loaded[slug]
        check_names(loaded.model, given)
        self._admit()
        begun = time.monotonic()
        try:
            return await self._answer(loaded, given, explain)
        finally:
            with self._lock:
                self._under_way -= 1
                self._seconds += 0.1 * (time.monotonic() - begun - self._seconds)

    def close(self) -> None:
        """Stop: what waits is cancelled, children end, their folders vanish."""
        self._queue.close()
        self._decoders.close()
        self._readers.shutdown(cancel_futures=True)

    def _admit(self) -> None:
        with self._lock:
            if self._under_way >= self._settings.queue:
                # all of them leave within about the time that each takes now
                raise Busy(min(_LONGEST_WAIT, max(1, math.ceil(self._seconds))))
            self._under_way += 1

    async def _answer(self, loaded: _Loaded, given: Given, wanted: bool) -> Answer:
        reading = partial(read, loaded.predictor, loaded.model, given, self._decoders)
        case = await asyncio.get_running_loop().run_in_executor(self._readers, reading)
        if case.reasons:
            return _answer(loaded.model, given, case)
        question = Question(case.prepared, case.boxes)
        said: Said = await asyncio.wrap_future(self._queue.submit(loaded.ask, question, most=self._settings.batch))
        case.checks += said.checks
        case.reasons += [f"{c.input}: {c.message}" for c in said.checks if c.verdict == "unusable"]
        if case.reasons:
            return _answer(loaded.model, given, case)
        targets = tuple(
            told(loaded.by_target[name], by_member, complete=not case.missing)
            for name, by_member in said.probabilities.items()
        )
        if not wanted:
            return _answer(loaded.model, given, case, targets=targets)
        first = targets[0]
        # of two classes the one that the threshold is about, of more the one that was decided for
        about = first.positive if first.positive and len(first.classes) == 2 else first.decision
        waiting = self._queue.submit(loaded.explain, (case, about), handicap=_EXPLANATION_HANDICAP)
        found: Explanation = await asyncio.wrap_future(waiting)
        return _answer(loaded.model, given, case, targets=targets, **_explained(loaded.predictor, case, found))


def _answer(model: Model, given: Given, case: Read, **parts: Any) -> Answer:
    about = {"name": model.slug, "title": model.title, "digest": model.digest}
    return Answer(
        model={**about, "version": _VERSION, "engine": model.engine_name},
        case=given.case,
        reasons=tuple(case.reasons),
        quality=tuple(case.checks),
        missing_inputs=case.missing,
        missing_cells=case.cells,
        pictures=Pngs(case.pictures),
        input_hashes=case.hashes,
        **parts,
    )


def _explained(predictor: Predictor, case: Read, found: Explanation) -> dict[str, Any]:
    """The parts of an answer that say what moved it."""
    heat: dict[Place, NDArray[np.uint8]] = {}
    for name, maps in found.heat.items():
        places = [place for place in case.pictures if place[0] == name]
        layers = maps if maps.ndim == 3 else maps[None]
        heat |= {place: heat_picture(layer) for place, layer in zip(places, layers, strict=True)}
    about = {"target": found.target, "class": found.class_name}
    return {
        "explained": about,
        "shares": found.shares,
        "contributions": _strongest(predictor, case, found),
        "maps": tuple({"input": name, "picture": place, **about} for name, place in heat),
        "heat": Pngs(heat),
    }


def _strongest(predictor: Predictor, case: Read, found: Explanation) -> tuple[Contribution, ...]:
    """The cells that moved the answer most."""
    rows = []
    for name, added in found.contributions.items():
        values = case.prepared[name]
        assert values is not None  # only what is there is explained
        for column, value, odds in zip(predictor.columns[name], values, added, strict=True):
            figure = finite_or_none(float(value))
            shown = column.levels[int(figure)] if column.levels and figure is not None else figure
            label = column.label or column.name
            rows.append(Contribution(name, column.name, label, shown, column.unit, float(odds)))
    return tuple(sorted(rows, key=lambda row: -abs(row.log_odds))[:_EXPLAINED_COLUMNS])
