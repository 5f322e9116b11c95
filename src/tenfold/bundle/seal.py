"""The seal of a bundle: its file list, their hashes, and the digest over its facts.

It must not know what the files mean. A seal shows that nothing was changed since saving; it does not show who
saved, for whoever can write all of a folder can also seal it anew. Compare the digest with the one that the
author published.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from tenfold.errors import BundleError

FORMAT, FORMAT_VERSION = "tenfold-bundle", 4
FACTS_FILE, CARD_FILE, WEIGHTS_FOLDER, EXAMPLES_FOLDER = "bundle.json", "README.md", "weights", "examples"
REFERENCES_FILE = f"{WEIGHTS_FOLDER}/references.safetensors"
PREPARED = "preparation|"
"""How the names of arrays that belong to a preparation begin, beside the weights."""
_MARK_LENGTH = 16


def patient_mark(patient: str) -> str:
    """Return the SHA-256 under which a training patient stands in a bundle.

    There is no key, so that any site can compare; whoever can guess an identifier can therefore confirm it.
    """
    return hashlib.sha256(patient.encode("utf-8")).hexdigest()


def image_mark(sha256: str) -> str:
    """Return the part of a picture's file hash that a bundle keeps: the first 16 hexadecimal digits."""
    return sha256[:_MARK_LENGTH].lower()


def sha256(data: bytes) -> str:
    """Return the SHA-256 of some bytes in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def digest(facts: Mapping[str, Any]) -> str:
    """Return the SHA-256 over the canonical content of bundle.json, its own digest left out."""
    content = {key: value for key, value in facts.items() if key != "digest"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return sha256(text.encode("utf-8"))


def open_sealed(folder: Path) -> dict[str, Any]:
    """Read bundle.json and check everything that it seals, before anything is parsed further.

    Args:
        folder: The bundle.

    Returns:
        The content of bundle.json.

    Raises:
        BundleError: No bundle, a newer format, a file missing, changed, outside the folder, or one too many.
    """
    facts = _read_facts(folder)
    if digest(facts) != facts.get("digest"):
        raise _changed(folder, FACTS_FILE)
    files = facts.get("files")
    if not isinstance(files, dict) or CARD_FILE not in files:
        raise BundleError(
            "bundle.json does not list its files",
            expected="a list `files` with a hash for each",
            where=str(folder),
        )
    for name in files:
        read_sealed(folder, facts, name)
    _refuse_extra(folder, files)
    return facts


def read_sealed(folder: Path, facts: Mapping[str, Any], name: str) -> bytes:
    """Read one file of a bundle and check its hash on the very bytes that are returned.

    Raises:
        BundleError: The path leaves the folder; the file is missing or was changed.
    """
    place = PurePosixPath(name)
    inside = name and not place.is_absolute() and ".." not in place.parts and "\\" not in name and ":" not in name
    path = folder / name
    if not inside or not path.resolve().is_relative_to(folder.resolve()):
        raise BundleError(
            f"bundle.json names the file {name!r}, which lies outside of the bundle",
            do="do not use this bundle: it was not saved by tenfold",
            where=str(folder),
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"the file {name} is missing or cannot be read: {error.strerror}",
            do="copy the whole folder again from where it was saved",
            where=str(folder),
        ) from error
    if sha256(data) != facts["files"].get(name):
        raise _changed(folder, name)
    return data


def _read_facts(folder: Path) -> dict[str, Any]:
    """Read bundle.json as far as its format and version."""
    foreign = BundleError(
        "this is not a tenfold bundle" if folder.is_dir() else "there is no such folder",
        expected=f"a folder with {FACTS_FILE}, as `tenfold run` writes it under bundle/",
        do="name the bundle folder itself, for example runs/pneumonia/bundle",
        where=str(folder),
    )
    try:
        facts = json.loads((folder / FACTS_FILE).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise foreign from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise foreign
    version = facts.get("version")
    if not isinstance(version, int) or version < 1:
        raise foreign
    if version > FORMAT_VERSION:
        raise BundleError(
            f"the bundle has format {version}",
            expected=f"format {FORMAT_VERSION} or older",
            do="install the tenfold that saved it, or a newer one",
            where=str(folder),
        )
    return facts


def _refuse_extra(folder: Path, files: Mapping[str, str]) -> None:
    """Weights that nobody sealed have no business beside those that are."""
    weights = folder / WEIGHTS_FOLDER
    for path in sorted(weights.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_dir() and name not in files:
            raise BundleError(
                f"the file {name} is not in bundle.json",
                expected="only the files that were sealed with the bundle",
                do="copy the whole folder again from where it was saved",
                where=str(folder),
            )


def _changed(folder: Path, name: str) -> BundleError:
    return BundleError(
        f"{name} was changed after the bundle was saved: its hash does not agree",
        do="do not use this copy; fetch the bundle again from where it was saved",
        where=str(folder),
    )
