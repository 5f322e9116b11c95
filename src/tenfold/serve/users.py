"""The users file: who may ask, with an argon2 hash of each password.

It must not know requests, sessions or what users ask.

TOML, one line a user, ``name = "$argon2id$..."``, readable by its owner (and group) alone.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
import tempfile
import threading
import tomllib
from pathlib import Path

import tomli_w
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from tenfold.errors import OutputError, Refusal, ServeError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
SHORTEST, LONGEST = 12, 1024
AT_ONCE = 2
_EXPECTED = 'lines of name = "argon2 hash"'

_hasher = PasswordHasher()
_nobody = _hasher.hash(secrets.token_urlsafe(16))
_room = threading.BoundedSemaphore(AT_ONCE)  # each check takes 64 MiB


class Users:
    """The users file, read again whenever it changes.

    Args:
        path: The file.

    Raises:
        Refusal: if it is missing, readable by everybody, or not what `add_user` writes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._secret = secrets.token_bytes(32)
        self._known: dict[str, bytes] = {}
        self._version: tuple[int, ...] = ()  # so that a change right now is seen with the first question
        self._hashes = read_users(path)

    def __contains__(self, name: str) -> bool:
        return name in self._current()

    def hash_of(self, name: str) -> str:
        """The hash of a user's password; empty for who is none."""
        return self._current().get(name, "")

    def remembers(self, name: str, password: str) -> bool:
        """Whether they were found right before, since the file last changed.

        A client sends its password with every question; a keyed hash in memory spares it an argon2 check each time.
        """
        known = self.hash_of(name)
        return bool(known) and hmac.compare_digest(self._known.get(name, b""), self._mark(known, password))

    def check(self, name: str, password: str) -> bool:
        """Whether name and password belong together; as much work for an unknown name."""
        hashes = self._current()
        if len(password) > LONGEST:
            return False
        with _room:
            right = _matches(hashes.get(name, _nobody), password) and name in hashes
        if right:
            self._known[name] = self._mark(hashes[name], password)
        return right

    def _mark(self, known: str, password: str) -> bytes:
        """A keyed hash of a password and of what it was found to fit; it lives as long as this process."""
        return hmac.new(self._secret, f"{known}\0{password}".encode("utf-8", "surrogatepass"), hashlib.sha256).digest()

    def _current(self) -> dict[str, str]:
        """The users there are now; nobody, where the file has become unreadable."""
        try:
            version = _version(self.path)
            if version != self._version:
                self._hashes, self._version = read_users(self.path), version
        except (OSError, Refusal):
            self._hashes, self._version = {}, ()
        return self._hashes


def read_users(path: Path) -> dict[str, str]:
    """Read a users file.

    Args:
        path: The file.

    Returns:
        Name -> argon2 hash.

    Raises:
        Refusal: if it is missing, readable by everybody, or not what `add_user` writes.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode  # of this very file, whatever its name leads to by now
            content = tomllib.load(file)
    except OSError as error:
        raise ServeError(
            f"the users file cannot be read ({error.strerror})", do="add a user with `tenfold user`", where=str(path)
        ) from error
    except ValueError as error:
        raise ServeError(f"the users file is no TOML: {error}", expected=_EXPECTED, where=str(path)) from error
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise ServeError(
            f"the users file may be read by others (mode {stat.S_IMODE(mode):04o})",
            expected="mode 0600",
            do=f"chmod 600 {path.name}",
            where=str(path),
        )
    for name, value in content.items():
        if not NAME.fullmatch(name) or not isinstance(value, str) or not value.startswith("$argon2"):
            raise ServeError(
                f"the entry '{name}' is no user",
                expected=_EXPECTED,
                do="add users with `tenfold user`",
                where=str(path),
            )
    return content


def add_user(path: Path, name: str, password: str) -> None:
    """Add a user, or give one a new password.

    Args:
        path: The users file; made (mode 0600) where it is not there.
        name: Letters, digits, dot, dash, underscore, @; 64 at most.
        password: 12 characters or more.

    Raises:
        Refusal: if name or password will not do, or the file cannot be read.
        OutputError: if the file cannot be written.
    """
    if not NAME.fullmatch(name):
        raise ServeError(f"'{name}' cannot be the name of a user", expected="letters, digits and . _ @ -, 64 at most")
    if not SHORTEST <= len(password) <= LONGEST:
        raise ServeError(f"the password has {len(password)} characters", expected=f"{SHORTEST} to {LONGEST}")
    users = read_users(path) if path.exists() else {}
    _write(path, {**users, name: _hasher.hash(password)})


def remove_user(path: Path, name: str) -> None:
    """Remove a user; sessions of theirs end at once.

    Raises:
        Refusal: if there is no such user.
        OutputError: if the file cannot be written.
    """
    users = read_users(path)
    if name not in users:
        raise ServeError(f"there is no user '{name}'", where=str(path))
    _write(path, {key: value for key, value in users.items() if key != name})


def _write(path: Path, users: dict[str, str]) -> None:
    """Write the file whole or not at all; at no moment may others read it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(tomli_w.dumps(users))
        Path(temporary).replace(path)
    except OSError as error:
        raise OutputError(f"the users file cannot be written ({error.strerror})", where=str(path)) from error


def _matches(known: str, password: str) -> bool:
    """One argon2 check."""
    try:
        return _hasher.verify(known, password)
    except (VerificationError, InvalidHashError):
        return False


def _version(path: Path) -> tuple[int, ...]:
    """What changes whenever the file does."""
    told = path.stat()
    return (told.st_mtime_ns, told.st_size, told.st_ino, told.st_mode)
