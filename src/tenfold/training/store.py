"""The store: every picture decoded and resized once, kept as uint8 on disk.

It must not know labels, splits or networks. Rows are keyed by the file's SHA-256 and the preparation, so folds, arms,
repeats and later runs share them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tenfold.errors import OutputError
from tenfold.types import IntArray, Reading, write_atomically

_CHUNK = 256


class Preparation(Protocol):
    """What the store needs of a modality: a state that names it, and its verb."""

    def state(self) -> dict[str, Any]:
        """Return everything that decides what `apply` gives, fit for JSON."""
        ...

    def apply(self, reading: Reading) -> NDArray[np.uint8]:
        """Return the prepared picture, uint8 (channels, size, size)."""
        ...


class PixelStore:
    """Prepared pictures of one preparation, on disk.

    Args:
        folder: Where stores live; usually `.tenfold` beside the cohort file, so that pixels stay with their owner.
        preparation: How a reading becomes a picture.
        read: Reads one file.

    Attributes:
        decoded: How many files this object had to decode.
    """

    def __init__(self, folder: Path, preparation: Preparation, read: Callable[[Path], Reading]) -> None:
        self._preparation, self._read = preparation, read
        state = json.dumps(preparation.state(), sort_keys=True)
        self.folder = folder / "pixels" / hashlib.sha256(state.encode()).hexdigest()[:16]
        self._index: dict[str, int] = {}
        self._shape: tuple[int, ...] = ()
        self.decoded = 0
        index = self.folder / "index.json"
        if index.is_file():
            known = json.loads(index.read_text("utf-8"))
            self._index, self._shape = known["rows"], tuple(known["shape"])

    def rows(
        self, files: Sequence[Path], hashes: Sequence[str], progress: Callable[[int], None] | None = None
    ) -> IntArray:
        """Return the row of every file, decoding those that are not there yet.

        Args:
            files: (n,) paths.
            hashes: (n,) SHA-256 of each.
            progress: Called with the number of files done since the last call.

        Returns:
            (n,) rows for `take`.

        Raises:
            ImageError: A file cannot be read.
            OutputError: The disk is full.
        """
        missing = {digest: path for path, digest in zip(files, hashes, strict=True) if digest not in self._index}
        if progress and len(files) > len(missing):
            progress(len(files) - len(missing))
        pending = list(missing.items())
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(pending), _CHUNK):
                chunk = pending[start : start + _CHUNK]
                pictures = list(pool.map(lambda item: self._preparation.apply(self._read(item[1])), chunk))
                self._append([digest for digest, _ in chunk], np.stack(pictures))
                if progress:
                    progress(len(chunk))
        return np.array([self._index[digest] for digest in hashes], np.int64)

    def take(self, rows: IntArray) -> NDArray[np.uint8]:
        """Return the pictures of some rows, uint8 (n, channels, size, size)."""
        size = int(np.prod(self._shape))
        out = np.empty((len(rows), *self._shape), np.uint8)
        # plain reads, not a memory map: pages of a map count as this process's memory until they are evicted
        with (self.folder / "pixels.u8").open("rb") as handle:
            for i in np.argsort(rows, kind="stable"):
                handle.seek(int(rows[i]) * size)
                handle.readinto(memoryview(out[i]).cast("B"))
        return out

    def _append(self, digests: list[str], pictures: NDArray[np.uint8]) -> None:
        self._shape = pictures.shape[1:]
        size = int(np.prod(self._shape))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            place = self.folder / "pixels.u8"
            place.touch()
            with place.open("r+b") as handle:
                # rows past the index are what a killed run left behind
                handle.seek(len(self._index) * size)
                handle.write(pictures.tobytes())
        except OSError as error:
            raise OutputError(
                f"cannot store the prepared pictures: {error.strerror or error}",
                do="free space, or set TENFOLD_STORE to a folder on a larger disk",
                where=str(self.folder),
            ) from error
        for digest in digests:
            self._index[digest] = len(self._index)
        self.decoded += len(digests)
        write_atomically(self.folder / "index.json", json.dumps({"shape": self._shape, "rows": self._index}))
