"""The child process that decodes strangers' files: bytes in, prepared pixels or a matrix out, under limits.

It must not know torch, models, users or the parent. It is run as a program and speaks through its standard input and
output: a header in JSON, then bytes, each with its length before it. Nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfold.errors import Refusal
from tenfold.modalities.connectome_reading import read_connectomes
from tenfold.modalities.image import ImagePreparation, blank, coloured, read_image
from tenfold.modalities.ultrasound import REGIONS_FACT

READY = b"ready"
_NAME = "the file"
_DESCRIPTORS = 128
_ENOUGH = 400


def main() -> None:
    """Answer requests until the parent hangs up: `decode_child.py FOLDER BYTES_OF_ADDRESS_SPACE`."""
    folder, address_space = Path(sys.argv[1]), int(sys.argv[2])
    requests = Connection(os.dup(0), writable=False)
    answers = Connection(os.dup(1), readable=False)
    # a library that prints must not speak to the parent
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    # Control-C at the terminal is for the parent, which then hangs up
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _limit(address_space)
    with contextlib.suppress(EOFError, OSError):  # the parent is gone, perhaps killed
        answers.send_bytes(READY)
        header: dict[str, Any] = {}
        while not header.get("spent"):
            request = json.loads(requests.recv_bytes())
            header, array = answer(request, requests.recv_bytes(), folder)
            answers.send_bytes(json.dumps(header).encode("utf-8"))
            answers.send_bytes(b"" if array is None else np.ascontiguousarray(array).data.cast("B"))
    shutil.rmtree(folder, ignore_errors=True)  # nobody else would


def _limit(address_space: int) -> None:
    """Take away what decoding does not need: memory beyond what is in use now, core dumps, open files."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _lower(resource.RLIMIT_NOFILE, _DESCRIPTORS)
    with contextlib.suppress(OSError):  # only Linux says how much is in use
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        _lower(resource.RLIMIT_AS, pages * os.sysconf("SC_PAGE_SIZE") + address_space)


def _lower(what: int, limit: int) -> None:
    hard = resource.getrlimit(what)[1]
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(what, (limit, limit))


def _limit_time(seconds: int) -> None:
    """Let the kernel end this process after some more seconds of computing."""
    used = sum(os.times()[:2])
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (int(used) + seconds + 1, hard))


def answer(request: dict[str, Any], data: bytes, folder: Path) -> tuple[dict[str, Any], NDArray[Any] | None]:
    """Read one file.

    Args:
        request: {"kind": "picture", "preparation": its state, "site", "max_pixels", "seconds"} or {"kind":
            "connectome", "holds", "measure", "regions", "suffix", "seconds"}.
        data: The file.
        folder: A private one, where the file can be found while it is read, under a name of ours.

    Returns:
        {"facts"} and an array: of a picture uint8 (channels, size, size), of a connectome float32 (regions, regions).
        Or {"refused": why, in words} and None; "spent" says that memory ran out and this process should end.
    """
    _limit_time(request["seconds"])
    path = folder / f"{_NAME}{request.get('suffix', '')}"
    try:
        with _file(path, data):
            array, facts = _picture(request, path) if request["kind"] == "picture" else _connectome(request, path)
        # what a file says of itself comes cut
        facts = {key: value[:200] if isinstance(value, str) else value for key, value in facts.items()}
        return {"facts": facts, "dtype": str(array.dtype), "shape": array.shape}, array
    except Refusal as error:
        spent = isinstance(error.__cause__, MemoryError)
        return {"refused": _TOO_LARGE if spent else _said(error, folder), "spent": spent}, None
    except MemoryError:
        return {"refused": _TOO_LARGE, "spent": True}, None
    except Exception as error:
        # what lies behind the readers may raise anything about a damaged file; it must not end the child
        return {"refused": f"the file cannot be read ({type(error).__name__})"}, None


@contextlib.contextmanager
def _file(path: Path, data: bytes) -> Iterator[None]:
    """A file of that name. On Linux it is in memory alone: whoever kills this process leaves nothing of it behind."""
    if sys.platform == "linux":
        handle = os.memfd_create("file")
        path.symlink_to(f"/proc/self/fd/{handle}")
    else:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
            out.flush()
            yield
    finally:
        path.unlink()


_TOO_LARGE = "the file needs more memory to decode than is allowed: it is too large, damaged, or a decompression bomb"


def _said(error: Refusal, folder: Path) -> str:
    """What was wrong, without the place where the file lay."""
    said = f"{error.came}; expected: {error.expected}" if error.expected else error.came
    return said.replace(f"{folder}{os.sep}", "")[:600]


def _picture(request: dict[str, Any], path: Path) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    reading = read_image(path, max_pixels=request["max_pixels"])
    if request["site"]:
        reading = replace(reading, facts={**reading.facts, "site": request["site"]})
    preparation = ImagePreparation.from_state(request["preparation"])
    prepared = preparation.apply(reading)
    height, width = reading.pixels.shape[:2]
    placed = {"site": request["site"], "regions": str(reading.facts.get(REGIONS_FACT, ""))}
    left, top, right, bottom = preparation.region(height, width, **placed)
    shown = reading.pixels[top:bottom, left:right]
    # whole rows and columns of large pictures are enough to see whether there is contrast, or colour
    step = max(1, max(shown.shape[:2]) // _ENOUGH)
    some = shown[::step, ::step]
    return prepared, {
        **{key: reading.facts[key] for key in ("format", "modality") if key in reading.facts},
        "width": right - left,
        "height": bottom - top,
        "box": preparation.box(height, width, **placed),
        "blank": blank(replace(reading, pixels=some)),
        "coloured": coloured(some),
    }


def _connectome(request: dict[str, Any], path: Path) -> tuple[NDArray[np.float32], dict[str, Any]]:
    asked = {key: request[key] for key in ("holds", "measure", "regions")}
    reading = read_connectomes([path], **asked)
    return np.asarray(reading.matrices[0], np.float32), {"format": request["suffix"].lstrip(".").upper()}


if __name__ == "__main__":
    main()
