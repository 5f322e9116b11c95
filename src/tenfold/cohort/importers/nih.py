"""Adult chest films of ChestX-ray14 (Wang et al., CVPR 2017) -> a cohort.

It must not know how the films are used. Two layouts: the publisher's own table beside folders of images,
and folders of a class whose file names start with the patient.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
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
from tenfold.errors import CohortError, nearest
from tenfold.types import Finding

FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
_TABLE = re.compile(r"Data_Entry_2017.*\.csv")
_NONE = "No Finding"
_NEEDED = ("Image Index", "Finding Labels", "Patient ID")
_MORE = {
    "age": ("Patient Age",),
    "sex": ("Patient Gender", "Patient Sex"),
    "view": ("View Position",),
    "follow_up": ("Follow-up #",),
}
# Films of one adult over years: a patient is rightly in both classes.
_STUDY = {"target": "abnormal", "classes": ["0", "1"], "positive": "1", "two_classes": "declared"}
_LISTS = {"train_val_list.txt": "train_val", "test_list.txt": "test"}


def import_nih(source: Path, out: Path, *, hardlink: bool = False) -> Imported:
    """Import adult chest films, patient by patient.

    Args:
        source: The folder with Data_Entry_2017.csv and images (or images_001 ... images_012), or one with the
            class folders 0_normal and 1_abnormal.
        out: The folder to make.
        hardlink: Link the pictures instead of copying them.

    Returns:
        The cohort; `abnormal` is 0 or 1 and, with the publisher's table, so is each of the 14 findings.

    Raises:
        CohortError: The source is of neither layout, or a row or file name is wrong.
        OutputError: `out` holds something, or cannot be written to.
    """
    require_folder(source)
    check_out(out)
    tables = sorted(path for path in source.iterdir() if _TABLE.fullmatch(path.name))
    if tables:
        return _from_table(source, tables[0], out, hardlink=hardlink)
    return _from_folders(source, out, hardlink=hardlink)


def _from_table(source: Path, table: Path, out: Path, *, hardlink: bool) -> Imported:
    """The publisher's layout."""
    pictures = {path.name: path for folder in _image_folders(source) for path in pictures_in(folder)}
    rows = _rows(table)
    parts = _parts(source)
    films = [
        _film(row, pictures[row["Image Index"]], parts, f"{table.name}, row {number}")
        for number, row in rows
        if row["Image Index"] in pictures
    ]
    listed = {row["Image Index"] for _, row in rows}
    more = [name for name in _MORE if any(name in film.values for film in films)]
    part = ["part"] if parts else []
    findings = list(FINDINGS)
    columns = ["case", "patient", "film", *part, *more, "abnormal", *findings]
    cohort = build(films, columns, out, hardlink=hardlink)
    notes = [note("patients", f"{len(films)} films of {len({f.values['patient'] for f in films})} patients.")]
    notes += _unmatched(len(listed - set(pictures)), len(set(pictures) - listed), table.name)
    study = {**_STUDY, "findings": findings}
    return Imported(cohort, tuple(notes), study)


def _unmatched(absent: int, unlisted: int, table: str) -> list[Finding]:
    """Notes on rows without a picture, and on pictures without a row."""
    found = []
    if absent:
        found.append(note("not_imported", f"{absent} rows of {table} have no picture here and were left out."))
    if unlisted:
        found.append(note("not_imported", f"{unlisted} pictures are not listed in {table} and were left out."))
    return found


def _image_folders(source: Path) -> list[Path]:
    """The folders that hold images: images, images_001/images, or the source itself."""
    found = [folder for folder in subfolders(source) if folder.name.startswith("images")]
    found = [folder / "images" if (folder / "images").is_dir() else folder for folder in found]
    return found or [source]


def _rows(table: Path) -> list[tuple[int, dict[str, str]]]:
    """The rows of the publisher's table with their numbers; its header counts two columns for one name."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as handle:
            records = list(csv.reader(handle))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CohortError(f"the table cannot be read: {error}", where=str(table)) from error
    header = [name.strip() for name in records[0]] if records else []
    for name in _NEEDED:
        if name not in header:
            raise CohortError(f"there is no column '{name}'", do=nearest(name, header), where=f"{table.name}, row 1")
    rows = []
    for number, record in enumerate(records[1:], start=2):
        if len(record) < max(header.index(name) for name in _NEEDED) + 1:
            raise CohortError(f"{len(record)} cells", expected="all columns", where=f"{table.name}, row {number}")
        rows.append((number, {k: v.strip() for k, v in zip(header, record, strict=False)}))
    return rows


def _parts(source: Path) -> dict[str, str]:
    """Image -> the publisher's own division, where its lists are there."""
    found: dict[str, str] = {}
    for name, part in _LISTS.items():
        if (source / name).is_file():
            found.update(dict.fromkeys((source / name).read_text(encoding="utf-8").split(), part))
    return found


def _film(row: Mapping[str, str], picture: Path, parts: Mapping[str, str], where: str) -> Film:
    """One row of the publisher's table."""
    patient = row["Patient ID"]
    if not patient.isdecimal():
        raise CohortError(f"the patient is '{patient}'", expected="a number", where=where)
    present = {name for name in row["Finding Labels"].split("|") if name != _NONE}
    for name in present:
        if name not in FINDINGS:
            raise CohortError(f"'{name}' is no finding", do=nearest(name, (*FINDINGS, _NONE)), where=where)
    values = {"case": picture.stem, "patient": f"{int(patient):08d}", "abnormal": str(int(bool(present)))}
    values.update({name: str(int(name in present)) for name in FINDINGS})
    for column, names in _MORE.items():
        there = [row[name] for name in names if name in row]
        if there:
            values[column] = there[0]
    if picture.name in parts:
        values["part"] = parts[picture.name]
    return Film(values, picture.name, picture)


def _from_folders(source: Path, out: Path, *, hardlink: bool) -> Imported:
    """Folders normal and abnormal, a number before the name or not."""
    found = {re.sub(r"^\d+_", "", folder.name).lower(): folder for folder in subfolders(source)}
    if not {"normal", "abnormal"} <= set(found):
        raise CohortError(
            f"the folders are {', '.join(found) or 'none'}",
            expected="Data_Entry_2017.csv with images, or the folders 0_normal and 1_abnormal",
            do="for other class folders import with 'folders'",
            where=str(source),
        )
    folders = [found["normal"], found["abnormal"]]
    films = [_film_of_folder(path, str(k)) for k, folder in enumerate(folders) for path in pictures_in(folder)]
    cohort = build(films, ["case", "patient", "film", "abnormal"], out, hardlink=hardlink)
    patients = len({film.values["patient"] for film in films})
    notes = [note("patients", f"{len(films)} films of {patients} patients."), *other_files(folders)]
    return Imported(cohort, tuple(notes), _STUDY)


def _film_of_folder(path: Path, abnormal: str) -> Film:
    """One film whose name starts with the patient."""
    patient, separator, _ = path.stem.partition("_")
    if not (patient and separator):
        raise CohortError(
            f"'{path.name}' does not start with a patient and '_'",
            expected="PATIENT_NUMBER.png",
            where=str(path),
        )
    return Film({"case": path.stem, "patient": patient, "abnormal": abnormal}, path.name, path)
