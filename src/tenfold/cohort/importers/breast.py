"""Breast ultrasound of BrEaST-Lesions-USG (Pawlowska et al., Scientific Data 2024, TCIA, CC BY 4.0) -> a cohort.

It must not know how the pictures are used. One row of `clinical.csv` is one patient with one picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tenfold.cohort.importers.common import (
    Film,
    Imported,
    build,
    check_out,
    note,
    read_csv,
    require_folder,
)
from tenfold.errors import CohortError, nearest
from tenfold.modalities.table import Column
from tenfold.types import Finding

_TABLE, _PICTURES = "clinical.csv", "images"
_TARGET, _CLASSES, _NORMAL = "Classification", ("benign", "malignant"), "normal"
_UNKNOWN = ("not available", "not applicable")
# What the radiologist or the pathologist concluded: kept for the audit to find, never an input.
_CONCLUSIONS = ("Interpretation", "BIRADS", "Verification", "Diagnosis")
_CATEGORIES: Mapping[str, tuple[str, ...]] = {
    "Shape": ("oval", "round", "irregular"),
    "Echogenicity": ("anechoic", "hyperechoic", "isoechoic", "hypoechoic", "complex cystic/solid", "heterogeneous"),
    "Posterior_features": ("no", "enhancement", "shadowing", "combined"),
    "Calcifications": ("no", "in a mass", "outside of a mass", "intraductal", "indefinable"),
}
_YES_NO = ("Halo", "Skin_thickening")
_TISSUE = (
    "homogeneous: fat",
    "homogeneous: fibroglandular",
    "heterogeneous: predominantly fat",
    "heterogeneous: predominantly fibroglandular",
)
# Column of the source -> new column -> the words, of those joined by &, that make it a yes.
_SEVERAL: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "Tissue_composition": {"Lactating": ("lactating",)},
    "Signs": {
        "Palpable": ("palpable",),
        "Breast_scar": ("breast scar",),
        "Skin_change": ("redness", "warmth", "skin retraction", "peau d'orange", "skin thickening"),
        "Nipple_retraction": ("nipple retraction",),
    },
    "Symptoms": {
        "Family_history": ("family history of breast/ovarian cancer",),
        "Personal_history": ("personal history of breast cancer",),
        "Hormones": ("HRT/hormonal contraception",),
        "Nipple_discharge": ("nipple discharge",),
        "Breast_injury": ("breast injury",),
    },
    "Margin": {
        "Margin_circumscribed": ("circumscribed",),
        "Margin_indistinct": ("indistinct",),
        "Margin_angular": ("angular",),
        "Margin_microlobulated": ("microlobulated",),
        "Margin_spiculated": ("spiculated",),
    },
}
_NOTHING = {"no", "not circumscribed"}
_LABELS = {
    "Tissue_composition": "Tissue composition",
    "Posterior_features": "Posterior features",
    "Skin_thickening": "Skin thickening",
    "Breast_scar": "Breast scar",
    "Skin_change": "Redness, warmth or retraction of the skin",
    "Nipple_retraction": "Nipple retraction",
    "Family_history": "Breast or ovarian cancer in the family",
    "Personal_history": "Breast cancer before",
    "Hormones": "Hormone replacement or contraception",
    "Nipple_discharge": "Nipple discharge",
    "Breast_injury": "Breast injury",
    "Margin_circumscribed": "Margin circumscribed",
    "Margin_indistinct": "Margin indistinct",
    "Margin_angular": "Margin angular",
    "Margin_microlobulated": "Margin microlobulated",
    "Margin_spiculated": "Margin spiculated",
}


def _columns() -> tuple[Column, ...]:
    """The clinical inputs; their levels are those of the source, whether or not they occur in this part of it."""
    new = [name for group in _SEVERAL.values() for name in group]
    return (
        Column("Age", label="Age", unit="a", low=10, high=110),
        Column("Tissue_composition", label=_LABELS["Tissue_composition"], kind="category", levels=_TISSUE),
        *(Column(n, label=_LABELS.get(n, n), kind="category", levels=levels) for n, levels in _CATEGORIES.items()),
        *(Column(n, label=_LABELS.get(n, n), kind="yes_no") for n in (*_YES_NO, *new)),
    )


def import_breast(source: Path, out: Path, *, hardlink: bool = False) -> Imported:
    """Import breast ultrasound with its clinical table: patients with a benign or a malignant lesion.

    Cells that join several words by & become yes/no columns, one a word or a few rare words together; "not available"
    and "not applicable" become empty cells. Interpretation, BI-RADS, verification and diagnosis stay in the cohort file
    for the audit to see, but are no inputs.

    Args:
        source: The folder with clinical.csv and images.
        out: The folder to make.
        hardlink: Link the pictures instead of copying them.

    Returns:
        The cohort with `ultrasound`, `tumour_mask`, the clinical columns and `Classification`.

    Raises:
        CohortError: The table or a picture is missing, or a row is wrong.
        OutputError: `out` holds something, or cannot be written to.
    """
    require_folder(source)
    check_out(out)
    header, rows = read_csv(source / _TABLE)
    needed = ["CaseID", "Image_filename", "Mask_tumor_filename", "Pixel_size", "Age", _TARGET]
    for name in (*needed, *_CATEGORIES, *_YES_NO, *_SEVERAL, *_CONCLUSIONS):
        if name not in header:
            raise CohortError(f"there is no column '{name}'", do=nearest(name, header), where=_TABLE)
    columns, strange = _columns(), Counter[tuple[str, str]]()
    films = [
        _film(row, source / _PICTURES, strange, f"{_TABLE}, row {number}")
        for number, row in rows
        if row[_TARGET] != _NORMAL
    ]
    names = [column.name for column in columns]
    head = ["case", "patient", "ultrasound", "tumour_mask", "Pixel_size", *names, *_CONCLUSIONS, _TARGET]
    cohort = build(films, head, out, hardlink=hardlink, column="ultrasound", dictionary=columns)
    study = {
        "target": _TARGET,
        "classes": list(_CLASSES),
        "positive": "malignant",
        "images": {"ultrasound": "ultrasound"},
        "tables": {"clinical": {"columns": names, "dictionary": "columns.csv"}},
        "masks": "tumour_mask",
    }
    return Imported(cohort, tuple(_notes(len(films), len(rows) - len(films), strange)), study)


def _film(row: Mapping[str, str], pictures: Path, strange: Counter[tuple[str, str]], where: str) -> Film:
    """One patient."""
    if row[_TARGET] not in _CLASSES:
        raise CohortError(
            f"'{row[_TARGET]}' is no class", expected=f"{', '.join(_CLASSES)} or {_NORMAL}", where=f"{where}, {_TARGET}"
        )
    case = Path(row["Image_filename"]).stem
    values = {"case": case, "patient": f"BrEaST-{row['CaseID']}", "Pixel_size": row["Pixel_size"], "Age": row["Age"]}
    values |= {name: row[name] for name in (*_CONCLUSIONS, _TARGET)}
    values |= {name: _one(row, name, levels, strange) for name, levels in _CATEGORIES.items()}
    values |= {name: _one(row, name, ("no", "yes"), strange) for name in _YES_NO}
    for name, group in _SEVERAL.items():
        values |= _several(row, name, group, strange)
    tissue = [word for word in _words(row["Tissue_composition"]) if word in _TISSUE]
    values["Tissue_composition"] = tissue[0] if len(tissue) == 1 else ""
    mask = row["Mask_tumor_filename"]
    others = {"tumour_mask": (f"masks/{mask}", _file(pictures, mask, where))} if mask else {}
    return Film(values, row["Image_filename"], _file(pictures, row["Image_filename"], where), others)


def _file(folder: Path, name: str, where: str) -> Path:
    """A file that a row names."""
    if Path(name).name != name or not (folder / name).is_file():
        raise CohortError(f"the picture '{name}' is not in {folder.name}", do="unpack the data again", where=where)
    return folder / name


def _one(row: Mapping[str, str], name: str, levels: Sequence[str], strange: Counter[tuple[str, str]]) -> str:
    """The level in a cell, empty where it is unknown or foreign."""
    cell = row[name]
    if cell in levels or cell in ("", *_UNKNOWN):
        return "" if cell in _UNKNOWN else cell
    strange[name, cell] += 1
    return ""


def _several(
    row: Mapping[str, str], name: str, group: Mapping[str, tuple[str, ...]], strange: Counter[tuple[str, str]]
) -> dict[str, str]:
    """Yes or no for each word that a cell may join; all empty where nothing is known."""
    words = set(_words(row[name]))
    if not words:
        return dict.fromkeys(group, "")
    known = {word for some in group.values() for word in some} | _NOTHING | set(_TISSUE)
    strange.update((name, word) for word in sorted(words - known))
    return {new: "yes" if words & set(some) else "no" for new, some in group.items()}


def _words(cell: str) -> Iterator[str]:
    """The words of a cell; "not circumscribed - angular&indistinct" says three things."""
    for part in cell.replace(" - ", "&").split("&"):
        word = part.strip()
        if word and word not in _UNKNOWN:
            yield word


def _notes(films: int, normal: int, strange: Counter[tuple[str, str]]) -> Iterator[Finding]:
    """What the owner of the cohort should know."""
    yield note("patients", f"{films} patients with one picture each.")
    if normal:
        message = f"{normal} patients of the class '{_NORMAL}' have no lesion and were left out: the classes are two."
        yield note("not_imported", message)
    message = (
        f"{', '.join(_CONCLUSIONS)} restate the outcome: they stand in the cohort file but are no inputs. Shape, "
        "margin, echogenicity and the like are a radiologist's reading of the same picture: a model that takes them "
        "needs one. Pixel_size tells the scanner's setting and is no input."
    )
    yield note("inputs", message)
    message = (
        "Cells that join several words by & became yes/no columns (signs, symptoms, margin, lactating); 'not "
        "available' and 'not applicable' became empty cells. Masks of other structures were left out."
    )
    yield note("cells", message)
    for (name, word), count in strange.items():
        message = f"'{word}' in {name} ({count} cells) is no word of the published dictionary and counts as not stated."
        yield Finding("warning", "cells", message, column=name)
