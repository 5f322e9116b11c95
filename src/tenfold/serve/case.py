"""One case as a user brings it: bytes of files and cells of tables, nothing read yet.

It must not know formats, models or how the case reached the server.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

LONGEST_CELL = 1000


@dataclass(frozen=True)
class Upload:
    """One file, in memory.

    Attributes:
        name: As the user called it. For showing only, escaped; it never names a file here and is never logged.
        data: Its content.
    """

    name: str
    data: bytes = field(repr=False)

    @property
    def sha256(self) -> str:
        """SHA-256 of the content in hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class Given:
    """What one case brings. An input that is not named, or has no file and no filled cell, is missing.

    Attributes:
        case: Its name; may be empty.
        files: Input of pictures or connectomes -> its files: one, or several where the input takes several.
        layouts: Input of pictures -> the site whose ultrasound layout its pictures have; empty or absent: none.
        rows: Input of a table -> column -> text of the cell, as a cohort file would hold it (a figure may carry its
            unit). Only columns of the model's form; those that are absent count as empty.
        beside: Input of connectomes -> column that it is adjusted for -> text.
    """

    case: str = ""
    files: Mapping[str, tuple[Upload, ...]] = field(default_factory=dict)
    layouts: Mapping[str, str] = field(default_factory=dict)
    rows: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    beside: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def hashes(self) -> tuple[str, ...]:
        """SHA-256 of every file, in the order of the inputs."""
        return tuple(upload.sha256 for uploads in self.files.values() for upload in uploads)
