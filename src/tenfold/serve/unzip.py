"""A zip file from a stranger, unpacked into memory.

It must not know what the files are for, and writes nothing to a disk.
"""

from __future__ import annotations

import io
import stat
import zipfile
import zlib
from dataclasses import dataclass

from tenfold.errors import ServeError

CHUNK = 64 * 2**10
ENCRYPTED = 0x1
_ENTRY = b"PK\x01\x02"
READABLE = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}


@dataclass(frozen=True)
class ZipLimits:
    """What a zip file may hold.

    Attributes:
        files: How many files.
        bytes: Bytes of all of them, unpacked.
        file_bytes: Bytes of one, unpacked.
        ratio: How many times the size of the zip file the whole may be (small ones may always reach 1 MiB).
        depth: How many folders deep.
    """

    files: int = 2000
    bytes: int = 512 * 2**20
    file_bytes: int = 64 * 2**20
    ratio: float = 100.0
    depth: int = 8


def safe_unzip(data: bytes, limits: ZipLimits | None = None) -> dict[str, bytes]:
    """Unpack a zip file, trusting nothing that it says of itself.

    Args:
        data: The zip file.
        limits: What it may hold, by default `ZipLimits()`; sizes are counted while reading, not believed.

    Returns:
        Name -> content; names are relative, with "/" between folders. What macOS adds is left out.

    Raises:
        Refusal: if it is no zip file, is damaged or encrypted, holds a name that leads out of it, a link, a name twice,
            or more than the limits allow.
    """
    limits = limits or ZipLimits()
    if data.count(_ENTRY) > 2 * limits.files:  # a list of a million names would be read whole before it is counted
        raise ServeError("the zip file lists too many files", expected=f"{limits.files} at most")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _unpack(archive, len(data), limits)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, OSError) as error:
        raise ServeError(
            f"the zip file is damaged or of a kind that is not read ({error})", expected=_EXPECTED
        ) from error


_EXPECTED = "a plain zip file (stored or deflated) with relative names"


def _unpack(archive: zipfile.ZipFile, size: int, limits: ZipLimits) -> dict[str, bytes]:
    """All files of an open archive."""
    members = [info for info in archive.infolist() if not info.is_dir()]
    if len(members) > limits.files:
        raise ServeError(f"the zip file holds {len(members)} files", expected=f"{limits.files} at most")
    room = min(limits.bytes, max(2**20, int(size * limits.ratio)))
    files: dict[str, bytes] = {}
    seen: set[str] = set()
    for info in members:
        name = _name(info, limits)
        if name.casefold() in seen:
            raise ServeError(f"the zip file holds '{name}' twice", expected="each name once (capitals do not count)")
        seen.add(name.casefold())
        content = _content(archive, info, min(room, limits.file_bytes), name)
        room -= len(content)
        if not name.startswith("__MACOSX/") and not name.endswith(".DS_Store"):
            files[name] = content
    return files


def _name(info: zipfile.ZipInfo, limits: ZipLimits) -> str:
    """A name that stays inside, of a plain file."""
    raw = info.orig_filename
    parts = info.filename.split("/")
    if (
        "\\" in raw
        or "\0" in raw
        or info.filename.startswith("/")
        or parts[0].endswith(":")
        or any(part in ("", ".", "..") for part in parts)
        or any(ord(sign) < 32 for sign in raw)
    ):
        raise ServeError(f"the zip file holds the name {raw!r}", expected="names that stay inside it")
    if len(parts) - 1 > limits.depth or len(info.filename) > 500:
        raise ServeError("the zip file holds a name too long or too deep", expected=f"{limits.depth} folders at most")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise ServeError(f"'{info.filename}' in the zip file is a link or a device", expected="plain files")
    if info.flag_bits & ENCRYPTED:
        raise ServeError(f"'{info.filename}' in the zip file is encrypted", do="pack it without a password")
    if info.compress_type not in READABLE:
        raise ServeError(f"'{info.filename}' is packed in a way that is not read", expected=_EXPECTED)
    return info.filename


def _content(archive: zipfile.ZipFile, info: zipfile.ZipInfo, room: int, name: str) -> bytes:
    """One file, counted while it is read."""
    content = bytearray()
    with archive.open(info) as member:
        while chunk := member.read(CHUNK):
            content += chunk
            if len(content) > room:
                raise ServeError(
                    f"the zip file unpacks to too much (at '{name}')",
                    do="send fewer files at a time, or files that are not so strongly compressed",
                )
    return bytes(content)
