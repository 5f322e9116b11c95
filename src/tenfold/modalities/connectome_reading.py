"""Reads connectomes: a matrix or the time courses of regions from .npy, .npz, .mat, .csv, .tsv and .1D files.

It must not know labels, folds or networks; nothing is unpickled, guessed or filled in.
"""

from __future__ import annotations

import csv
import io
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tenfold.errors import CohortError, StudyError, nearest
from tenfold.modalities.connectivity import Measure, connect
from tenfold.modalities.connectome_checks import check_matrix, check_numbers, check_series
from tenfold.types import FloatArray, IntArray

Holds = Literal["matrix", "fisher_z", "timeseries"]
HOLDS: tuple[Holds, ...] = ("matrix", "fisher_z", "timeseries")
REGIONS_FILE = "regions.csv"
_TEXTS = (".csv", ".tsv", ".txt", ".1d")
SUFFIXES = (".npy", ".npz", ".mat", *_TEXTS)
_MOST_BYTES = 2**29
_MISSING = ("", "n/a", "na", "nan")
_LABELS = ("regions", "labels", "roi_labels", "region_names")
_DAMAGED = (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile, zlib.error, MemoryError)


@dataclass(frozen=True, eq=False)
class ConnectomeReading:
    """The connectomes of a cohort, one a case, before any preparation.

    Attributes:
        matrices: float32 (n, regions, regions) correlations before Fisher's z, symmetric, 1 on the diagonal; NaN
            throughout where a case has none.
        regions: Names of the regions; "region 1" ... where no file says.
        sources: (n) where each came from, for messages.
        holds: What the files held: "matrix", "fisher_z" or "timeseries".
        measure: What was made of time courses; of no meaning for matrices.
    """

    matrices: NDArray[np.float32]
    regions: tuple[str, ...]
    sources: tuple[str, ...]
    holds: Holds = "matrix"
    measure: Measure = "correlation"

    def __len__(self) -> int:
        return len(self.matrices)

    @property
    def present(self) -> NDArray[np.bool_]:
        """(n,) true where a case has a connectome."""
        return ~np.isnan(self.matrices[:, 0, 0])

    @property
    def silent(self) -> NDArray[np.bool_]:
        """(n, regions) true where a region has no signal: each of its edges is 0."""
        return np.asarray(np.abs(self.matrices).sum(axis=2) == 1)

    def take(self, rows: IntArray) -> ConnectomeReading:
        """Return the reading of some cases, in the order given."""
        return replace(self, matrices=self.matrices[rows], sources=tuple(self.sources[i] for i in rows.tolist()))


def read_connectome(
    path: str | Path,
    *,
    holds: Holds = "matrix",
    measure: Measure = "correlation",
    regions: Sequence[str] = (),
    where: str = "",
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Read the connectome of one case.

    Args:
        path: The file; of an .npz or .mat with several arrays "file.npz#key" names one.
        holds: "matrix" of correlations, "fisher_z" of them, or "timeseries", one row a time point.
        measure: What is made of time courses (`connectivity.connect`).
        regions: The names that are expected; the file may carry none, but no others.
        where: Whose it is, for messages.

    Returns:
        (regions, regions) correlations and the names that the file carries, none where it does not.

    Raises:
        CohortError: The file cannot be read, or `connectome_checks` finds fault with it.
        StudyError: A setting is unknown, or nilearn is needed and not installed.
    """
    if holds not in HOLDS:
        raise StudyError(f"unknown holds '{holds}'", expected=nearest(str(holds), HOLDS))
    place = f"{where}, {Path(path).name}" if where else str(path)
    array, names = _read(Path(path), place)
    values = check_numbers(array, place)
    _check_regions(values.shape[1], names, regions, place)
    called = tuple(regions) or names or numbered(values.shape[1])
    if holds == "timeseries":
        matrix = connect(check_series(values, called, place, measure), measure)
    else:
        matrix = check_matrix(values, called, place, fisher_z=holds == "fisher_z")
    return matrix.astype(np.float32), names


def read_connectomes(
    files: Sequence[str | Path | None],
    *,
    holds: Holds = "matrix",
    measure: Measure = "correlation",
    regions: Sequence[str] = (),
    place: Callable[[int], str] | None = None,
    faults: dict[int, CohortError] | None = None,
) -> ConnectomeReading:
    """Read the connectomes of a cohort; all must be of one atlas.

    Where `regions` are not given, the number and names of regions that most files have are expected of all.

    Args:
        files: One a case, None where it has none.
        holds: See `read_connectome`.
        measure: See `read_connectome`.
        regions: See `read_connectome`.
        place: Says whose case i is, for messages: file, row, patient.
        faults: Where given, takes up what is wrong by case instead of raising; such a case is absent from the reading.

    Raises:
        CohortError: A file is wrong or of another atlas than the rest, or there is none.
    """
    where = [place(i) if place else "" for i in range(len(files))]
    sources = tuple(
        ", ".join(part for part in (who, Path(file).name if file else "") if part)
        for who, file in zip(where, files, strict=True)
    )
    read: dict[int, tuple[NDArray[np.float32], tuple[str, ...]]] = {}
    wrong: dict[int, CohortError] = {}
    for i, file in enumerate(files):
        if file is None:
            continue
        try:
            read[i] = read_connectome(file, holds=holds, measure=measure, regions=regions, where=where[i])
        except CohortError as error:
            if faults is None:
                raise
            wrong[i] = error
    called, others = _one_atlas(read, tuple(regions), sources)
    if others and faults is None:
        raise next(iter(others.values()))
    if faults is not None:
        faults.update(sorted({**wrong, **others}.items()))
    if not called:
        raise CohortError("there is no connectome to read", expected="at least one that is in order")
    matrices = np.full((len(files), len(called), len(called)), np.nan, np.float32)
    for i, (matrix, _) in read.items():
        if i not in others:
            matrices[i] = matrix
    return ConnectomeReading(matrices, called, sources, holds, measure)


def read_regions(path: Path) -> tuple[str, ...]:
    """Read the names of an atlas' regions: one a line, or the column name, label or region of a CSV or TSV.

    Raises:
        CohortError: The file cannot be read, or a name is empty or stands twice.
    """
    return tuple(_region_table(path)[1])


def networks_of_regions(path: Path) -> dict[str, str]:
    """Read the network of each region from the same file, column network; empty where it has none.

    Raises:
        CohortError: The file cannot be read, or a name is empty or stands twice.
    """
    found = _beside_regions(path, "network")
    return {region: cells[0] for region, cells in found.items()}


def coordinates_of_regions(path: Path) -> FloatArray | None:
    """Read where each region lies from the same file, columns x, y and z in mm (MNI); None where it has none.

    Returns:
        (regions, 3).

    Raises:
        CohortError: The file cannot be read, a name is empty or stands twice, or a coordinate is no number.
    """
    found = _beside_regions(path, "x", "y", "z")
    if not found:
        return None
    return np.array([[_number(cell, path.name, k + 2, 0) for cell in row] for k, row in enumerate(found.values())])


def _beside_regions(path: Path, *columns: str) -> dict[str, list[str]]:
    """Region -> its cells in some columns; empty where the file lacks one of them."""
    head, rows = _region_table(path)
    if any(column not in head for column in columns):
        return {}
    places = [head.index(column) for column in columns]
    return {name: [row[place] for place in places] for name, row in rows.items()}


def _region_table(path: Path) -> tuple[list[str], dict[str, list[str]]]:
    """The columns of a file of regions, none of a plain list, and the row of each region by its name."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CohortError(f"the names of regions cannot be read: {error}", expected="UTF-8", where=path.name) from error
    delimiter = _delimiter(lines[:1]).replace(" ", ",")  # a name may hold spaces
    rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter)]
    rows = [row for row in rows if any(row)]
    head = [cell.lower() for cell in rows[0]] if rows else []
    column = next((head.index(name) for name in ("name", "label", "region") if name in head), -1)
    if len(head) > 1 and column < 0:
        raise CohortError(f"the columns are {', '.join(head)}", expected="one called name", where=path.name)
    if column < 0:
        head, column = [], 0
    else:
        rows = rows[1:]
    names = [row[column] for row in rows]
    _check_names(names, path.name)
    return head, dict(zip(names, rows, strict=True))


def numbered(count: int) -> tuple[str, ...]:
    """Return the names of regions that nobody named."""
    return tuple(f"region {k}" for k in range(1, count + 1))


def _one_atlas(
    read: dict[int, tuple[NDArray[np.float32], tuple[str, ...]]], regions: tuple[str, ...], sources: Sequence[str]
) -> tuple[tuple[str, ...], dict[int, CohortError]]:
    """The names of the regions that most files have, and the files that are of another size or atlas."""
    if regions or not read:
        return regions, {}
    sizes = Counter(len(matrix) for matrix, _ in read.values())
    size, often = sizes.most_common(1)[0]
    labels = Counter(names for matrix, names in read.values() if names and len(matrix) == size)
    called = labels.most_common(1)[0][0] if labels else numbered(size)
    others: dict[int, CohortError] = {}
    for i, (matrix, names) in read.items():
        came = ""
        if len(matrix) != size:
            came = f"{len(matrix)} regions, where {often} of {len(read)} connectomes have {size}"
        elif names and names != called:
            k = next(k for k in range(size) if names[k] != called[k])
            came = f"region {k + 1} is {names[k]}, where most connectomes have {called[k]}"
        if came:
            do = "it is of another atlas, or its regions in another order: extract it with the atlas of the rest"
            others[i] = CohortError(came, expected="one atlas in the whole cohort", do=do, where=sources[i])
    return called, others


def _check_regions(count: int, names: Sequence[str], regions: Sequence[str], place: str) -> None:
    """Refuse a file that is not of the expected regions."""
    if names:
        _check_names(names, place)
    if names and len(names) != count:
        raise CohortError(f"{len(names)} names of regions for {count} columns", expected="one a column", where=place)
    if regions and count != len(regions):
        do = "extract it with the same atlas"
        raise CohortError(f"{count} regions", expected=f"{len(regions)}, of the atlas in use", do=do, where=place)
    for k, (name, expected) in enumerate(zip(names, regions, strict=False)):
        if name != expected:
            do = "extract it with the same atlas, regions in the same order"
            raise CohortError(f"region {k + 1} is {name}", expected=expected, do=do, where=place)


def _check_names(names: Sequence[str], where: str) -> None:
    seen: set[str] = set()
    for k, name in enumerate(names):
        if not name or name in seen:
            came = f"two regions are called '{name}'" if name else f"region {k + 1} has no name"
            raise CohortError(came, expected="a name of its own for each region", where=where)
        seen.add(name)


def _read(path: Path, where: str) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Read an array and the names of its columns, whatever the format."""
    key = ""
    if "#" in path.name and not path.exists():
        name, _, key = path.name.rpartition("#")
        path = path.with_name(name)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise CohortError(f"'{path.name}' is no connectome", expected=f"one of {', '.join(SUFFIXES)}", where=where)
    if not path.is_file():
        raise CohortError("there is no such file", do="correct the path in the cohort file", where=where)
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise CohortError(f"{path.stat().st_size:,} bytes", expected="the connectome of one case", where=where)
        if suffix in _TEXTS:
            return _read_text(path, where)
        if suffix == ".npy":
            loaded = np.load(path, allow_pickle=False)
            if not isinstance(loaded, np.ndarray):
                raise CohortError("this is an archive called .npy", do="call it .npz", where=where)
            return loaded, ()
        return _read_npz(path, key, where) if suffix == ".npz" else _read_mat(path, key, where)
    except _DAMAGED as error:
        raise CohortError(
            f"the file cannot be read: {str(error)[:200]}",
            expected="plain numbers; objects and pickles are never loaded",
            do="save the matrix again as a plain array",
            where=where,
        ) from error


def _read_npz(path: Path, key: str, where: str) -> tuple[NDArray[Any], tuple[str, ...]]:
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > _MOST_BYTES:
            raise CohortError("it unpacks to more than 512 MiB", expected="the connectome of one case", where=where)
    with np.load(path, allow_pickle=False) as arrays:
        chosen = _choose(arrays.files, key, where)
        return arrays[chosen], _names_beside(arrays, arrays.files)


def _read_mat(path: Path, key: str, where: str) -> tuple[NDArray[Any], tuple[str, ...]]:
    from scipy.io import loadmat, whosmat
    from scipy.io.matlab import MatReadError

    try:
        shapes = {name: shape for name, shape, _ in whosmat(path)}
        chosen = _choose(list(shapes), key, where)
        if np.prod(shapes[chosen], dtype=float) * 8 > _MOST_BYTES:
            raise CohortError(f"an array of {shapes[chosen]}", expected="the connectome of one case", where=where)
        beside = [name for name in shapes if name.lower() in _LABELS]
        arrays = loadmat(path, variable_names=[chosen, *beside])
    except MatReadError as error:
        raise ValueError(str(error)) from error
    except NotImplementedError as error:
        raise CohortError(
            "this is a MATLAB 7.3 file", do="save it in MATLAB with the option '-v7', or as .csv", where=where
        ) from error
    return np.asarray(arrays[chosen]), _names_beside(arrays, beside)


def _choose(keys: Sequence[str], key: str, where: str) -> str:
    """Which array of a file is meant."""
    if key:
        if key not in keys:
            raise CohortError(f"there is no array '{key}' in the file", do=nearest(key, keys), where=where)
        return key
    candidates = [name for name in keys if name.lower() not in _LABELS]
    if len(candidates) != 1:
        raise CohortError(
            f"the file holds {len(candidates)} arrays: {', '.join(candidates[:8])}",
            expected="one, or its name after the file's",
            do=f"write {Path(where).name}#{candidates[0]} in the cohort file"
            if candidates
            else "save the matrix again",
            where=where,
        )
    return candidates[0]


def _names_beside(arrays: Any, keys: Iterable[str]) -> tuple[str, ...]:
    """The names of regions that stand beside the matrix, as text."""
    for key in keys:
        if key.lower() in _LABELS:
            names = np.asarray(arrays[key]).ravel()
            if names.dtype.kind == "O":  # MATLAB's cell array of words
                names = np.array([str(np.asarray(name).item()) for name in names if np.asarray(name).size == 1])
            if names.dtype.kind == "U":
                return tuple(name.strip() for name in names.tolist())
    return ()


def _read_text(path: Path, where: str) -> tuple[FloatArray, tuple[str, ...]]:
    """Read a table of numbers, with or without a row and a column of names."""
    text = path.read_text(encoding="utf-8-sig")
    lines = [line for line in text.splitlines() if line.strip()]
    body = [line for line in lines if not line.lstrip().startswith("#")]
    heading = [line for line in lines[: len(lines) - len(body)] if line.lstrip().startswith("#")]
    delimiter = _delimiter(body[:1])
    rows = _cells(body, delimiter)
    head: list[str] = []
    if rows and _is_header(rows[0]):
        head, rows = rows[0], rows[1:]
    elif heading and rows:
        bare = heading[-1].lstrip("# ")
        words = [cell.lstrip("# ") for cell in _cells([bare], _delimiter([bare]))[0]] if bare else []
        head = words if len(words) == len(rows[0]) else []
    if not rows:
        raise CohortError("the file holds no numbers", expected="a matrix or time courses", where=where)
    if (head and (head[0] == "" or len(head) == len(rows[0]) - 1)) or all(_is_word(row[0]) for row in rows):
        rows = [row[1:] for row in rows]
        head = head[len(head) - len(rows[0]) :] if head else head
    for number, row in enumerate(rows, start=1):
        if len(row) != len(rows[0]):
            came = f"line {number} of the numbers has {len(row)} cells, the first has {len(rows[0])}"
            raise CohortError(came, expected="as many in each", where=where)
    values = np.array([[_number(cell, where, i, j) for j, cell in enumerate(row)] for i, row in enumerate(rows)])
    return values, tuple(head)


def _cells(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    if delimiter == " ":
        return [line.split() for line in lines]
    reader = csv.reader(io.StringIO("\n".join(lines), newline=""), delimiter=delimiter)
    return [[cell.strip() for cell in row] for row in reader]


def _delimiter(lines: Sequence[str]) -> str:
    """What stands between the cells: tab, semicolon (the comma may then be a decimal one), comma, otherwise spaces."""
    return next((sign for sign in "\t;," for line in lines if sign in line), " ")


_FLOAT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?inf(inity)?|nan", re.IGNORECASE)


def _is_word(cell: str) -> bool:
    """Whether a cell is a name: no number and no mark for a missing one."""
    return cell.lower() not in _MISSING and not _FLOAT.fullmatch(cell) and not _complex(cell)


def _is_header(row: Sequence[str]) -> bool:
    """Whether a row names columns: most of its cells are names, or its first is empty and the second is not."""
    words = sum(map(_is_word, row))
    return words > len(row) / 2 or (len(row) > 1 and row[0] == "" and row[1] != "")


def _complex(cell: str) -> bool:
    if not cell.rstrip(")").endswith(("j", "i")):
        return False
    try:
        complex(cell.replace("i", "j"))
    except ValueError:
        return False
    return True


def _number(cell: str, where: str, row: int, column: int) -> float:
    """One number; what is missing becomes NaN, which no check lets pass."""
    if cell.lower() in _MISSING:
        return np.nan
    if _FLOAT.fullmatch(cell):
        return float(cell)
    place = f"line {row + 1} of the numbers, column {column + 1}"
    if _complex(cell):
        raise CohortError(f"'{cell}' in {place} is complex", expected="real correlations", where=where)
    do = "write a decimal point" if re.fullmatch(r"[+-]?\d+,\d+", cell) else ""
    raise CohortError(f"'{cell}' in {place} is no number", expected="numbers", do=do, where=where)
