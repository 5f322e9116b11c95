"""Has strangers' files decoded in child processes, kept warm, killed and replaced when they hang or die.

It must not know models or users, and it never looks into a file itself.
"""

from __future__ import annotations

import json
import math
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfold.errors import BundleError, ImageError
from tenfold.modalities.connectome import ConnectomePreparation
from tenfold.modalities.connectome_reading import SUFFIXES
from tenfold.modalities.image import ImagePreparation
from tenfold.serve.decode_child import READY

_START_SECONDS = 120.0
_HEADER_BYTES, _ARRAY_BYTES = 1 << 16, 1 << 30
_DTYPES = ("uint8", "float32")
_DIED = "the file could not be decoded within the limits of memory and time: it is damaged, or a decompression bomb"


@dataclass(frozen=True)
class Limits:
    """What one file may cost.

    Attributes:
        seconds: Of waiting; then the child is killed.
        cpu_seconds: Of computing; then the kernel ends the child.
        address_space: Bytes that a child may take beyond what it needs to start.
        max_pixels: Largest width x height that is decoded.
    """

    seconds: float = 20.0
    cpu_seconds: int = 15
    address_space: int = 1_500_000_000
    max_pixels: int = 40_000_000


@dataclass(frozen=True, eq=False)
class Decoded:
    """What came of a file.

    Attributes:
        array: Of a picture uint8 (channels, size, size), of a connectome float32 (regions, regions).
        facts: Of a picture "format", "modality" (DICOM), "width", "height", "blank", "box" (where it
            lies in its square: top, left, bottom, right), "coloured" (share of its pixels).
    """

    array: NDArray[Any] = field(repr=False)
    facts: Mapping[str, Any]


class Decoders:
    """Child processes that decode. Safe to use from several threads; each file waits for a child that is free.

    Args:
        count: How many.
        limits: What one file may cost.
    """

    def __init__(self, count: int = 2, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._idle: queue.SimpleQueue[_Child] = queue.SimpleQueue()
        self._all = [_Child(self.limits.address_space) for _ in range(count)]
        self._lock = threading.Lock()
        self._closed = False
        for child in self._all:
            self._idle.put(child)

    def picture(self, data: bytes, preparation: ImagePreparation, site: str = "") -> Decoded:
        """Decode and prepare a picture, as `read_image` and `ImagePreparation.apply` do.

        Args:
            data: The file.
            preparation: Of the input.
            site: Whose ultrasound layout the picture has; empty: none.

        Raises:
            ImageError: It cannot be read; `came` says why, for a person.
        """
        request = {
            "kind": "picture",
            "preparation": preparation.state(),
            "site": site,
            "max_pixels": self.limits.max_pixels,
        }
        decoded = self._ask(request, data)
        side = preparation.size
        if decoded.array.dtype != np.uint8 or decoded.array.shape != (preparation.channels, side, side):
            raise ImageError("the picture could not be prepared")
        return decoded

    def connectome(self, data: bytes, preparation: ConnectomePreparation, suffix: str) -> Decoded:
        """Read a connectome, as `read_connectomes` does.

        Args:
            data: The file.
            preparation: Of the input, which says what files hold.
            suffix: Which format: one of `SUFFIXES`.

        Raises:
            ImageError: It cannot be read; `came` says why, for a person.
        """
        if suffix not in SUFFIXES:
            raise ImageError(f"a file that ends in '{suffix[:20]}'", expected=", ".join(SUFFIXES))
        regions = list(preparation.regions)
        request = {
            "kind": "connectome",
            "holds": preparation.holds,
            "measure": preparation.measure,
            "regions": regions,
            "suffix": suffix,
        }
        decoded = self._ask(request, data)
        if decoded.array.dtype != np.float32 or decoded.array.shape != (len(regions), len(regions)):
            raise ImageError("the connectome could not be read")
        return decoded

    def close(self) -> None:
        """End all children and remove their folders."""
        with self._lock:
            self._closed = True
            for child in self._all:
                child.end()

    def wait(self) -> None:
        """Wait until every child is ready.

        Raises:
            BundleError: One of them does not start.
        """
        for child in self._all:
            try:
                child.wait()
            except _Died as error:
                raise BundleError(
                    "the process that decodes files does not start",
                    do="check that this Python can start another one, and that /tmp can be written to",
                ) from error

    def _ask(self, request: dict[str, Any], data: bytes) -> Decoded:
        # one that died while nobody asked it is not this file's fault
        child = self._kept(self._idle.get())
        try:
            header, array = child.ask({**request, "seconds": self.limits.cpu_seconds}, data, self.limits.seconds)
        except _Died as error:
            raise ImageError(_DIED) from error
        finally:
            self._idle.put(self._kept(child))
        if array is None:
            raise ImageError(str(header["refused"]))
        return Decoded(array, header["facts"])

    def _kept(self, child: _Child) -> _Child:
        """The same child, or another in the place of one that has ended."""
        if child.alive:
            return child
        child.end()
        with self._lock:
            if self._closed:
                return child
            try:
                other = _Child(self.limits.address_space)
            except OSError:  # no room for a process or a folder now: it keeps its place, and the next file tries again
                return child
            self._all = [other if one is child else one for one in self._all]
        return other


class _Died(Exception):
    """The child hung or died, or said what no child of ours says."""


class _Child:
    """One process, its two pipes and its private folder."""

    def __init__(self, address_space: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tenfold-decode-"))  # 0700
        self._started = False
        read_here, write_there = os.pipe()
        read_there, write_here = os.pipe()
        # -P: no file in the current folder can stand in for a module; the environment holds nothing of ours
        root = str(Path(__file__).parents[2])
        one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tenfold.serve.decode_child", str(self.folder), str(address_space)],
                stdin=read_there,
                stdout=write_there,
                stderr=subprocess.DEVNULL,
                cwd=self.folder,
                env={**one, "PYTHONPATH": root, "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8"},
            )
        except OSError:
            for end in (read_here, write_there, read_there, write_here):
                os.close(end)
            self.folder.rmdir()
            raise
        os.close(read_there)
        os.close(write_there)
        self._requests = Connection(write_here, readable=False)
        self._answers = Connection(read_here, writable=False)

    @property
    def alive(self) -> bool:
        """Whether it can be asked once more."""
        return self._process.poll() is None and not self._answers.closed

    def ask(self, request: dict[str, Any], data: bytes, seconds: float) -> tuple[dict[str, Any], NDArray[Any] | None]:
        """Have one file decoded.

        Raises:
            _Died: The child hung or died, or its answer is none.
        """
        self.wait()
        watchdog = threading.Timer(seconds, self._process.kill)
        watchdog.start()
        try:
            self._requests.send_bytes(json.dumps(request).encode("utf-8"))
            self._requests.send_bytes(data)
            header = json.loads(self._answers.recv_bytes(_HEADER_BYTES))
            content = self._answers.recv_bytes(_ARRAY_BYTES)
            if header.get("spent"):
                self._process.wait(seconds)
            return header, None if "refused" in header else _array(header, content)
        except (EOFError, OSError, ValueError, KeyError, TypeError, subprocess.TimeoutExpired) as error:
            self._process.kill()
            self._process.wait()
            raise _Died from error
        finally:
            watchdog.cancel()

    def wait(self) -> None:
        """Wait until a new child has loaded what it needs; that is not the file's time."""
        if self._started:
            return
        try:
            if not self._answers.poll(_START_SECONDS) or self._answers.recv_bytes(len(READY)) != READY:
                raise EOFError
        except (EOFError, OSError) as error:
            self._process.kill()
            self._process.wait()
            raise _Died from error
        self._started = True

    def end(self) -> None:
        """Kill the process, close its pipes and remove its folder."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._requests, self._answers):
            if not pipe.closed:
                pipe.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _array(header: Mapping[str, Any], content: bytes) -> NDArray[Any]:
    """The array that a header describes, of exactly as many bytes."""
    shape = tuple(int(side) for side in header["shape"])
    dtype = np.dtype(header["dtype"] if header["dtype"] in _DTYPES else "V")
    if not isinstance(header["facts"], dict) or math.prod(shape) * dtype.itemsize != len(content):
        raise ValueError("an answer that does not describe itself")
    return np.frombuffer(content, dtype).reshape(shape).copy()
