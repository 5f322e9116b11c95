"""Looks at every picture of a cohort once, and remembers what it saw by the content of the file.

It must not know patients, outcomes, or what is concluded from the facts.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tenfold.errors import ImageError
from tenfold.modalities.image import blank, read_image
from tenfold.modalities.image_facts import ImageFacts, image_facts
from tenfold.types import Reading, write_atomically

CACHE_FOLDER = Path(".tenfold") / "facts"
Progress = Callable[[int, int], None]
_VERSION = 1
_FILE = "facts.json"
_SIDE = 32


@dataclass(frozen=True)
class Look:
    """What came of looking at one picture.

    Attributes:
        facts: What it is, None where it cannot be read.
        blank: Whether it shows nothing.
        error: Why it cannot be read.
    """

    facts: ImageFacts | None
    blank: bool = False
    error: ImageError | None = None


class FactsCache:
    """Facts by content of the file; which content a file has is remembered by its path, size and time.

    Args:
        folder: Where the cache lies; made when it is saved.
        root: The folder that paths are remembered from.
        key: What else the facts depend on, for example the frame of a film with several.
    """

    def __init__(self, folder: Path, root: Path, key: str = "") -> None:
        self._path, self._root, self._key = folder / _FILE, root, key
        self._files: dict[str, tuple[int, int, str]] = {}
        self._looks: dict[str, Look] = {}
        self._changed = False
        self._load()

    def get(self, path: Path) -> Look | None:
        """Return what is known of a picture, None where it is new or has changed."""
        size, changed, known = self._files.get(self._name(path), (-1, -1, ""))
        try:
            now = path.stat()
        except OSError:
            return None
        return self._looks.get(known) if (size, changed) == (now.st_size, now.st_mtime_ns) else None

    def put(self, path: Path, look: Look, before: os.stat_result) -> None:
        """Remember a picture that could be read, as of the state its file had before it was read."""
        if look.facts is not None:
            content = look.facts.sha256 + self._key
            self._files[self._name(path)] = (before.st_size, before.st_mtime_ns, content)
            self._looks[content] = look
            self._changed = True

    def save(self) -> None:
        """Write the cache where something is new.

        Raises:
            OutputError: The folder cannot be written to.
        """
        if self._changed:
            looks = {key: _to_json(look) for key, look in self._looks.items()}
            content = {"version": _VERSION, "files": self._files, "pictures": looks}
            write_atomically(self._path, json.dumps(content))
            self._changed = False

    def _name(self, path: Path) -> str:
        return os.path.relpath(path, self._root)

    def _load(self) -> None:
        """Read the cache; one that is damaged or of another version is as good as none."""
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            if content["version"] == _VERSION:
                looks = {str(key): _from_json(look) for key, look in content["pictures"].items()}
                files = {str(k): (int(v[0]), int(v[1]), str(v[2])) for k, v in content["files"].items()}
                self._looks, self._files = looks, files
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
            return


@dataclass(frozen=True)
class Masked:
    """What is looked at of a picture, where it is not the whole of it: a screen about it is the same for everybody.

    Attributes:
        key: Names how it is cut, for the cache.
        cut: From the path of a picture and what was read of it to what is shown.
    """

    key: str
    cut: Callable[[Path, Reading], Reading]


def look_at(
    paths: Sequence[Path],
    cache: FactsCache,
    *,
    frame: int | None = None,
    masked: Masked | None = None,
    progress: Progress | None = None,
    workers: int | None = None,
) -> list[Look]:
    """Look at pictures, in threads; those that the cache knows are not decoded.

    Args:
        paths: The pictures.
        cache: What was seen before; it takes up what is new, but is not saved.
        frame: Which frame of a picture that holds several, from 1.
        masked: What is looked at of each, if not the whole; its key must be the cache's.
        progress: Called with how many are done and how many there are.
        workers: How many threads; without it, one a processor, eight at most.

    Returns:
        One look a path, in their order.
    """
    done = {path: look for path in dict.fromkeys(paths) if (look := cache.get(path)) is not None}
    fresh = [path for path in dict.fromkeys(paths) if path not in done]
    total = len(done) + len(fresh)
    if progress is not None:
        progress(len(done), total)
    with ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool:
        for path, (look, before) in zip(fresh, pool.map(lambda p: _look(p, frame, masked), fresh), strict=True):
            if before is not None:
                cache.put(path, look, before)
            done[path] = look
            if progress is not None:
                progress(len(done), total)
    return [done[path] for path in paths]


def _look(path: Path, frame: int | None, masked: Masked | None) -> tuple[Look, os.stat_result | None]:
    """Decode one picture."""
    try:
        before = path.stat() if path.exists() else None
        reading = read_image(path, frame=frame)
        reading = masked.cut(path, reading) if masked else reading
        return Look(image_facts(path, reading), blank(reading)), before
    except ImageError as error:
        return Look(None, error=error), None
    except OSError as error:
        return Look(None, error=ImageError(f"the file cannot be read: {error}", where=str(path))), None


def _to_json(look: Look) -> dict[str, Any]:
    """A look as JSON, its thumbnail as base64."""
    if look.facts is None:
        return {}
    thumbnail = base64.b64encode(look.facts.thumbnail.tobytes()).decode("ascii")
    return {**asdict(look.facts), "thumbnail": thumbnail, "blank": look.blank}


def _from_json(data: Mapping[str, Any]) -> Look:
    """What `_to_json` wrote."""
    values = dict(data)
    empty = bool(values.pop("blank"))
    pixels = np.frombuffer(base64.b64decode(values.pop("thumbnail")), np.uint8).reshape(_SIDE, _SIDE)
    return Look(ImageFacts(**values, thumbnail=pixels), empty)
