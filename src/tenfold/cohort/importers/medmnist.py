"""A MedMNIST file (Yang et al., Scientific Data 2023): an npz of pictures and labels -> a cohort.

It must not know which of the sets it reads.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tenfold.cohort.importers.common import Film, Imported, build, check_out, note
from tenfold.errors import CohortError
from tenfold.types import Finding

_PARTS = ("train", "val", "test")


def import_medmnist(
    source: Path, out: Path, *, classes: Sequence[str] | None = None, hardlink: bool = False
) -> Imported:
    """Import a MedMNIST file; its pictures are written as PNG.

    Args:
        source: The npz file.
        out: The folder to make.
        classes: Names of the classes 0, 1 ...; without them, the numbers.
        hardlink: Accepted as by every importer; there are no files to link.

    Returns:
        The cohort with the column `label`, or `label_0`, `label_1` ... where a picture has several.

    Raises:
        CohortError: The file is no MedMNIST file, or a label has no name.
        OutputError: `out` holds something, or cannot be written to.
    """
    check_out(out)
    arrays = _arrays(source)
    several = arrays["train"][1].shape[1]
    targets = ["label"] if several == 1 else [f"label_{k}" for k in range(several)]
    films = [
        _film(part, i, image, row, targets, classes)
        for part, (images, labels) in arrays.items()
        for i, (image, row) in enumerate(zip(images, labels, strict=True))
    ]
    cohort = build(films, ["case", "patient", "part", "film", *targets], out)
    warning = Finding(
        "warning",
        "patients",
        "MedMNIST has no patient ids: every picture counts as a patient of its own. If a patient has several, "
        "splits leak between them and intervals are too narrow; results say nothing of new patients.",
    )
    part = note("part", "The division of the publisher is kept in the column 'part'; splits do not follow it.")
    names = sorted({film.values[targets[0]] for film in films}) if classes is None else list(classes)
    study: dict[str, Any] = {"target": targets[0], "classes": names if several == 1 else ["0", "1"]}
    if several > 1:
        study["findings"] = targets
    return Imported(cohort, (warning, part), study)


def _arrays(source: Path) -> dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """Part -> (images, labels as a table)."""
    found: dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]] = {}
    try:
        with np.load(source, allow_pickle=False) as data:
            for part in _PARTS:
                labels = data[f"{part}_labels"]
                found[part] = (data[f"{part}_images"], labels.reshape(len(labels), -1).astype(np.int64))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise CohortError(
            f"this is no MedMNIST file: {error}",
            expected="an npz with train_images, train_labels, and the same of val and test",
            where=str(source),
        ) from error
    for part, (images, labels) in found.items():
        colour = images.ndim == 4 and images.shape[-1] == 3
        if images.dtype != np.uint8 or not (images.ndim == 3 or colour) or len(images) != len(labels):
            raise CohortError(
                f"{part}_images is {images.dtype} of shape {images.shape}, with {len(labels)} labels",
                expected="8-bit flat pictures, grey or colour, and a label for each; volumes are not supported",
                where=str(source),
            )
    return found


def _film(
    part: str,
    index: int,
    image: NDArray[np.uint8],
    labels: NDArray[np.int64],
    targets: Sequence[str],
    classes: Sequence[str] | None,
) -> Film:
    """One picture."""
    named = classes is not None and len(targets) == 1
    if named and classes is not None and not 0 <= labels[0] < len(classes):
        raise CohortError(
            f"label {labels[0]} has no name",
            expected=f"0 to {len(classes) - 1}",
            where=f"{part}, picture {index}",
        )
    case = f"{part}-{index:06d}"
    cells = [classes[int(k)] if named and classes is not None else str(int(k)) for k in labels]
    values = {"case": case, "patient": case, "part": part, **dict(zip(targets, cells, strict=True))}
    return Film(values, f"{case}.png", _writer(image))


def _writer(image: NDArray[np.uint8]) -> Callable[[Path], None]:
    """A function that writes the picture to a path."""
    return lambda path: Image.fromarray(image).save(path)
