"""How a simulator writes: the whole folder or none of it, the same bytes for the same arguments.

It must not know any disease.
"""

from __future__ import annotations

import csv
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tenfold.errors import OutputError, StudyError


def save_film(film: NDArray[Any], path: Path) -> None:
    """Write 8-bit grey, uncompressed: the size of the file must not tell how rough the picture is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.clip(np.rint(film), 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path, compress_level=0)


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows that all have the keys of the first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as handle:
        out = csv.DictWriter(handle, list(rows[0]), lineterminator="\n")
        out.writeheader()
        out.writerows(rows)


def refuse_impossible(simulator: str, **given: tuple[float, float, float]) -> None:
    """Refuse the first argument outside its range: name = (value, lowest, highest).

    Raises:
        StudyError: An argument is outside its range.
    """
    for name, (value, low, high) in given.items():
        if not low <= value <= high:
            raise StudyError(f"{name} = {value}", expected=f"{low} to {high}", where=f"simulate {simulator}")


@contextmanager
def written_whole(out: Path) -> Iterator[Path]:
    """Give a temporary neighbour to build in, and make it `out` only when all of it is there.

    Raises:
        OutputError: `out` holds something, or cannot be written to.
    """
    temporary = None
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise OutputError(
                "something is there already",
                expected="a folder that does not exist yet, or is empty",
                do="name another folder, or remove this one yourself",
                where=str(out),
            )
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
        yield temporary
        temporary.chmod(0o755)
        if out.exists():
            out.rmdir()
        temporary.rename(out)
    except OSError as error:
        raise OutputError(
            f"cannot write the simulated cohort: {error.strerror or error}",
            do="free space or choose a folder that you may write to, then run the same command again",
            where=str(out),
        ) from error
    finally:
        if temporary is not None and temporary.exists():
            shutil.rmtree(temporary, ignore_errors=True)
