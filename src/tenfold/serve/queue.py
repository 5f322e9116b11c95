"""One thread that computes: cases that wait for the same model are joined, what can wait waits.

It must not know models, cases or what is computed.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

Work = Callable[[Sequence[Any]], Sequence[Any]]


@dataclass(eq=False)
class _Job:
    """One item that waits."""

    work: Work
    item: Any
    most: int
    since: float
    rank: tuple[float, int]
    future: Future[Any] = field(default_factory=Future)


class Queue:
    """Runs work on items in the order they came, items of the same work together.

    Args:
        linger: Seconds that the first item of a batch waits for others.
    """

    def __init__(self, linger: float = 0.005) -> None:
        self._linger = linger
        self._jobs: list[_Job] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="tenfold-inference", daemon=True)
        self._thread.start()

    def submit(self, work: Work, item: Any, *, most: int = 1, handicap: float = 0.0) -> Future[Any]:
        """Have an item computed.

        Args:
            work: Takes several items and returns as many results. Items are joined where this is the same object.
            item: What it is about.
            most: Items that are joined at most.
            handicap: Seconds by which an item that came later may overtake it: those that can wait are asked to.

        Returns:
            The result; a future that is cancelled before its turn is never computed.
        """
        now = time.monotonic()
        job = _Job(work, item, most, now, (now + handicap, next(self._numbers)))
        with self._changed:
            if self._closed:
                job.future.cancel()
                return job.future
            self._jobs.append(job)
            self._changed.notify()
        return job.future

    def close(self) -> None:
        """Finish what is being computed, cancel what waits."""
        with self._changed:
            self._closed = True
            for job in self._jobs:
                job.future.cancel()
            self._jobs.clear()
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next():
            # a future that was cancelled says so here, and cannot be any more afterwards
            batch = [job for job in batch if job.future.set_running_or_notify_cancel()]
            if batch:
                _compute(batch)

    def _next(self) -> list[_Job]:
        """Wait for the next batch; empty when all is over."""
        with self._changed:
            while not self._closed:
                if not self._jobs:
                    self._changed.wait()
                    continue
                first = min(self._jobs, key=lambda job: job.rank)
                alike = [job for job in self._jobs if job.work == first.work][: first.most]
                left = first.since + self._linger - time.monotonic()
                if len(alike) < first.most and left > 0:
                    self._changed.wait(left)
                    continue
                self._jobs = [job for job in self._jobs if job not in alike]
                return alike
        return []


def _compute(batch: Sequence[_Job]) -> None:
    """Compute a batch; where it fails, one by one, so that no case suffers from another."""
    try:
        results = batch[0].work([job.item for job in batch])
    except Exception as error:
        if len(batch) == 1:
            batch[0].future.set_exception(error)
            return
        for job in batch:
            _compute([job])
        return
    for job, result in zip(batch, results, strict=True):
        job.future.set_result(result)
