"""Breast ultrasound of BUSI (Al-Dhabyani et al., Data in Brief 2020): a folder a class -> a cohort.

It must not know how the pictures are used. The publisher names no patients: near-duplicates stand in for them.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from tenfold.cohort.importers.common import (
    Film,
    Imported,
    Picture,
    build,
    check_out,
    note,
    other_files,
    pictures_in,
    require_folder,
)
from tenfold.errors import CohortError
from tenfold.modalities.image import read_image
from tenfold.modalities.image_facts import image_facts, near_duplicates
from tenfold.types import Finding

_CLASSES = ("benign", "malignant", "normal")
# Far laxer than the audit's: that one must never accuse two patients, this one had better join two than part one. Of
# the 780 pictures 212 pairs are found; those looked at, down to the least similar, all show one lesion twice.
_DISTANCE, _SIMILARITY = 24, 0.65
_NAMED = 6


@dataclass(frozen=True)
class _Scan:
    """One picture, and the masks of its lesions."""

    case: str
    diagnosis: str
    path: Path
    masks: tuple[Path, ...]


def import_busi(source: Path, out: Path, *, hardlink: bool = False) -> Imported:
    """Import BUSI: benign, malignant and normal pictures, with the masks of their lesions where there are any.

    Pictures that are nearly the same are given one patient. Masks of one picture become one; those without a lesion
    (of normal breasts) are left out.

    Args:
        source: The folder with the folders benign, malignant and normal.
        out: The folder to make.
        hardlink: Link the pictures instead of copying them.

    Returns:
        The cohort with `ultrasound`, `diagnosis` and, where there are masks, `lesion_mask`.

    Raises:
        CohortError: A class folder is missing, or a file name is not of this layout.
        ImageError: A picture cannot be read.
        OutputError: `out` holds something, or cannot be written to.
    """
    require_folder(source)
    check_out(out)
    scans = [scan for name in _CLASSES for scan in _scans(source / name)]
    patients = _patients(scans)
    films = [_film(scan, patient) for scan, patient in zip(scans, patients, strict=True)]
    masked = sum(bool(film.others) for film in films)
    masks = ["lesion_mask"] if masked else []
    head = ["case", "patient", "ultrasound", *masks, "diagnosis"]
    cohort = build(films, head, out, hardlink=hardlink, column="ultrasound")
    notes = [*_notes(scans, patients, masked), *other_files(source / name for name in _CLASSES)]
    study = {
        "target": "diagnosis",
        "classes": list(_CLASSES),
        "positive": "malignant",
        "images": {"ultrasound": "ultrasound"},
    }
    return Imported(cohort, tuple(notes), study | ({"masks": "lesion_mask"} if masked else {}))


def _scans(folder: Path) -> list[_Scan]:
    """The pictures of one class by number, each with its masks."""
    if not folder.is_dir():
        raise CohortError(
            f"there is no folder '{folder.name}'",
            expected=f"the folders {', '.join(_CLASSES)}",
            where=str(folder.parent),
        )
    name = re.compile(rf"{folder.name} \((?P<number>\d+)\)(?P<mask>_mask(_\d+)?)?")
    scans: dict[int, Path] = {}
    masks: dict[int, list[Path]] = defaultdict(list)
    for path in pictures_in(folder):
        match = name.fullmatch(path.stem)
        if match is None:
            raise CohortError(
                f"the file name '{path.name}' is not of this layout",
                expected=f"'{folder.name} (1).png', '{folder.name} (1)_mask.png', '{folder.name} (1)_mask_1.png' ...",
                where=str(path),
            )
        number = int(match["number"])
        if match["mask"]:
            masks[number].append(path)
        elif scans.setdefault(number, path) != path:
            raise CohortError(f"two pictures of number {number}", do="remove one of them", where=str(path))
    if lost := sorted(set(masks) - set(scans)):
        raise CohortError(f"a mask without its picture: {masks[lost[0]][0].name}", where=str(folder))
    return [_Scan(f"{folder.name}-{n:03d}", folder.name, scans[n], tuple(masks[n])) for n in sorted(scans)]


def _patients(scans: Sequence[_Scan]) -> list[str]:
    """Who each picture is taken to be of: what hangs together by near-duplicates, named after its first picture."""
    pairs = near_duplicates(
        [image_facts(scan.path, read_image(scan.path)) for scan in scans],
        max_distance=_DISTANCE,
        min_similarity=_SIMILARITY,
    )
    first, second = np.array([pair[:2] for pair in pairs], np.int64).reshape(-1, 2).T
    graph = coo_matrix((np.ones(len(first)), (first, second)), shape=(len(scans), len(scans)))
    group = connected_components(graph, directed=False)[1].tolist()
    name: dict[int, str] = {}
    for scan, member in zip(scans, group, strict=True):
        name.setdefault(member, f"group-{scan.case}")
    return [name[member] for member in group]


def _film(scan: _Scan, patient: str) -> Film:
    """One examination; its masks joined."""
    values = {"case": scan.case, "patient": patient, "diagnosis": scan.diagnosis}
    name = f"{scan.case}{scan.path.suffix.lower()}"
    others: dict[str, tuple[str, Picture]] = {}
    if scan.masks and (mask := _joined(scan)).any():
        others["lesion_mask"] = f"masks/{scan.case}.png", lambda path: Image.fromarray(mask).save(path)
    return Film(values, name, scan.path, others)


def _joined(scan: _Scan) -> NDArray[np.uint8]:
    """All lesions of a picture in one mask, 255 inside; a mask saved in colour or smoothed is cut at half."""
    height, width = read_image(scan.path).pixels.shape[:2]
    joined = np.zeros((height, width), np.uint8)
    for path in scan.masks:
        pixels = read_image(path).pixels
        if pixels.shape[:2] != joined.shape:
            raise CohortError(
                f"the mask measures {pixels.shape[1]} x {pixels.shape[0]} pixels, its picture {width} x {height}",
                expected="the same size",
                where=str(path),
            )
        inside = (pixels if pixels.ndim == 2 else pixels.max(axis=2)) > np.iinfo(pixels.dtype).max // 2
        joined[inside] = 255
    return joined


def _notes(scans: Sequence[_Scan], patients: Sequence[str], masked: int) -> Iterator[Finding]:
    """What the owner of the cohort should know."""
    sizes = Counter(patients)
    several = sum(size > 1 for size in sizes.values())
    yield Finding(
        "warning",
        "patients",
        f"BUSI names no patients: {len(scans)} pictures were put into {len(sizes)} groups, of which {several} hold "
        f"several that are nearly the same ({max(sizes.values())} at most), and a group counts as a patient. Different "
        "pictures of one person cannot be found: intervals are too narrow, and splits may still leak.",
    )
    diagnoses: dict[str, set[str]] = defaultdict(set)
    for scan, patient in zip(scans, patients, strict=True):
        diagnoses[patient].add(scan.diagnosis)
    mixed = [i for i, patient in enumerate(patients) if len(diagnoses[patient]) > 1]
    if mixed:
        names = [scans[i].case for i in mixed]
        listed = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
        message = (
            f"{len(names)} pictures have a near-duplicate of another diagnosis: {listed}. Each keeps that of its "
            "folder; at least one of them is wrong, or shows another side of the same breast."
        )
        yield Finding("warning", "label_conflict", message, cases=tuple(names))
    message = (
        "Many pictures hold white callipers and text; callipers are set where there is a lesion, so a network can tell "
        "'normal' by them. They are not coloured and cannot be taken out; look where the network looks."
    )
    yield note("burned_in", message)
    message = f"{masked} pictures have a mask of their lesions, several masks of one picture being joined."
    yield note("masks", message if masked else "This copy holds no masks of lesions.")
