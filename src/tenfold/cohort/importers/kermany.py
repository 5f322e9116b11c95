"""Children's chest films of Kermany et al. (Cell 2018, Mendeley Data rscbjbr9sj) -> a cohort.

It must not know how the films are used. The file names are all there is: `personN_bacteria_M.jpeg`,
`personN_virus_M.jpeg`, `IM-N-M.jpeg`, `NORMAL2-IM-N-M.jpeg`.
"""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

from tenfold.cohort.importers.common import (
    Film,
    Imported,
    build,
    check_out,
    note,
    other_files,
    pictures_in,
    require_folder,
    subfolders,
)
from tenfold.errors import CohortError

_PARTS = ("train", "val", "test")
_CLASSES = ("NORMAL", "PNEUMONIA")
_PNEUMONIA = re.compile(r"person(\d+)_(bacteria|virus)_\d+(_\d+)*")
_NORMAL = re.compile(r"(NORMAL2-)?IM-(\d+)(-\d+)+")
_SUBTYPE = {"bacteria": "bacterial", "virus": "viral"}
_COLUMNS = ("case", "patient", "part", "film", "diagnosis", "subtype")


def import_kermany(source: Path, out: Path, *, hardlink: bool = False) -> Imported:
    """Import the films of children with and without pneumonia.

    Numbers recur: `person1` is counted anew for bacteria and virus and in the test folder, `IM-0383` with
    and without `NORMAL2`. Nothing says whether they are the same child, so all films of one number are one
    patient: children may be joined who are strangers, but none is ever split. A mark of the import stands before
    the number, so that children of two imports are not taken for the same: see docs/decisions/0004.

    Args:
        source: The folder that holds NORMAL and PNEUMONIA, or train, val and test with these inside.
        out: The folder to make.
        hardlink: Link the pictures instead of copying them.

    Returns:
        The cohort with columns `diagnosis` (normal, pneumonia) and `subtype` (normal, bacterial, viral).

    Raises:
        CohortError: The folders are not there, or a file name is of another form.
        OutputError: `out` holds something, or cannot be written to.
    """
    require_folder(source)
    check_out(out)
    folders = _class_folders(source)
    with_parts = any(part for part, _ in folders)
    found = [(path, part, folder.name) for part, folder in folders for path in pictures_in(folder)]
    # the numbers start anew in every part of the data set: only within one import do they tell children apart
    mark = sha256("\n".join(path.name for path, _, _ in found).encode()).hexdigest()[:4]
    films = [_film(path, part, class_name, mark) for path, part, class_name in found]
    columns = [name for name in _COLUMNS if name != "part" or with_parts]
    cohort = build(films, columns, out, hardlink=hardlink)
    patients = len({film.values["patient"] for film in films})
    notes = [
        note(
            "patients",
            f"{len(films)} films of {patients} patients. File names are all that tells children apart, and "
            "their numbers recur between bacteria and virus, between IM and NORMAL2-IM and between the folders: "
            "films of one number count as one patient, so that no child can be on both sides of a split.",
        ),
        *other_files(folder for _, folder in folders),
    ]
    if with_parts:
        notes.append(
            note(
                "part",
                "The folders train, val and test are kept in the column 'part'; splits do not follow them.",
            )
        )
    study = {"target": "diagnosis", "classes": ["normal", "pneumonia"], "positive": "pneumonia", "system": "pneumonia"}
    return Imported(cohort, tuple(notes), study)


def _class_folders(source: Path) -> list[tuple[str, Path]]:
    """(part or nothing, folder of one class), also one folder further down, as the archive has it."""
    inside = {folder.name: folder for folder in subfolders(source)}
    if any(name in inside for name in _CLASSES):
        return [("", inside[name]) for name in _CLASSES if name in inside]
    parts = [
        (part, inside[part] / name)
        for part in _PARTS
        if part in inside
        for name in _CLASSES
        if (inside[part] / name).is_dir()
    ]
    if parts:
        return parts
    if len(inside) == 1 or "chest_xray" in inside:
        return _class_folders(inside.get("chest_xray") or next(iter(inside.values())))
    raise CohortError(
        f"neither {' and '.join(_CLASSES)} nor {', '.join(_PARTS)} is here",
        expected="the folder chest_xray of the data set, or one that holds NORMAL and PNEUMONIA",
        where=str(source),
    )


def _film(path: Path, part: str, class_name: str, mark: str) -> Film:
    """One film, all that is known of it read from its name."""
    match = (_NORMAL if class_name == "NORMAL" else _PNEUMONIA).fullmatch(path.stem)
    if match is None:
        raise CohortError(
            f"'{path.name}' in {class_name} says nothing of the patient",
            expected="IM-N-M or NORMAL2-IM-N-M in NORMAL, personN_bacteria_M or personN_virus_M in PNEUMONIA",
            do="remove the file, or import with 'folders' and a pattern of your own",
            where=str(path),
        )
    if class_name == "NORMAL":
        patient, diagnosis, subtype = f"{mark}-normal{int(match[2]):04d}", "normal", "normal"
    else:
        patient, diagnosis, subtype = f"{mark}-person{int(match[1]):04d}", "pneumonia", _SUBTYPE[match[2]]
    prefix = f"{part}-" if part else ""
    values = {"case": prefix + path.stem, "patient": patient, "part": part}
    return Film({**values, "diagnosis": diagnosis, "subtype": subtype}, prefix + path.name, path)
