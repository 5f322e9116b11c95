"""What may be looked at again for a while: results and batches, in memory, each for the session that asked.

It must not know what is kept, and writes nothing to a disk.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Kept(Generic[T]):
    """One thing that is kept.

    Attributes:
        thing: What.
        meta: What goes with it, for the page.
        owner: Whose.
        expires: When it goes, in seconds of the clock.
        size: Bytes it is counted as.
    """

    thing: T
    meta: Any
    owner: str
    expires: float
    size: int


class ResultStore(Generic[T]):
    """Things by an id that cannot be guessed.

    Args:
        minutes: How long each is kept.
        most: How many at most; the oldest go first.
        most_bytes: How many bytes at most.
        clock: Seconds, for tests.
    """

    def __init__(
        self,
        minutes: float,
        *,
        most: int = 2000,
        most_bytes: int = 256 * 2**20,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds, self._most, self._most_bytes, self._clock = minutes * 60, most, most_bytes, clock
        self._kept: OrderedDict[str, Kept[T]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def put(self, owner: str, thing: T, meta: Any = None, *, size: int = 0) -> str:
        """Keep something.

        Args:
            owner: Who alone may see it.
            thing: What.
            meta: What goes with it.
            size: Bytes to count it as.

        Returns:
            Its id.
        """
        name = secrets.token_urlsafe(18)
        with self._lock:
            self._kept[name] = Kept(thing, meta, owner, self._clock() + self._seconds, size)
            self._bytes += size
            self._sweep()
        return name

    def get(self, name: str, owner: str) -> Kept[T] | None:
        """Return what is kept under an id; None where it is gone, or is not this owner's."""
        with self._lock:
            self._sweep()
            kept = self._kept.get(name)
        return kept if kept is not None and secrets.compare_digest(kept.owner, owner) else None

    def drop(self, owner: str) -> None:
        """Forget everything of one owner."""
        with self._lock:
            for name in [name for name, kept in self._kept.items() if kept.owner == owner]:
                self._bytes -= self._kept.pop(name).size

    def __len__(self) -> int:
        with self._lock:
            self._sweep()
            return len(self._kept)

    def _sweep(self) -> None:
        """Let go of what is past its time, then of the oldest while there is too much."""
        moment = self._clock()
        while self._kept:
            name, oldest = next(iter(self._kept.items()))
            if oldest.expires > moment and len(self._kept) <= self._most and self._bytes <= self._most_bytes:
                return
            self._bytes -= self._kept.pop(name).size
