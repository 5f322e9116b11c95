"""From what a user brings to what a network takes: files decoded in a child, cells read strictly, all of it judged.

It must not ask a network anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfold.bundle import Predictor
from tenfold.errors import BundleError, CohortError, ImageError, nearest
from tenfold.modalities.confounds import read_covariates
from tenfold.modalities.connectome import ConnectomeReading
from tenfold.serve.answer import Check
from tenfold.serve.case import Given, Upload
from tenfold.serve.decode import Decoded, Decoders
from tenfold.serve.model import Model
from tenfold.serve.pngs import Box, Place, shown
from tenfold.serve.quality import missing_check, picture_checks, read_row


@dataclass
class Read:
    """One case, read.

    Attributes:
        prepared: Input -> what `Predictor.prepare` gives; None where missing.
        checks: What was looked at.
        reasons: Why the model cannot be asked; empty where it can.
        missing: Inputs that the case lacks.
        cells: Table -> its empty columns.
        pictures: (input, place) -> the prepared picture, to be shown.
        boxes: (input, place) -> (top, left, bottom, right) of the picture in its square; of a picture whose
            brightness has a meaning of its own none.
        hashes: SHA-256 of every file.
    """

    prepared: dict[str, NDArray[Any] | None]
    checks: list[Check] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    missing: tuple[str, ...] = ()
    cells: dict[str, tuple[str, ...]] = field(default_factory=dict)
    pictures: dict[Place, NDArray[np.uint8]] = field(default_factory=dict)
    boxes: dict[Place, Box] = field(default_factory=dict)
    hashes: tuple[str, ...] = ()


def check_names(model: Model, given: Given) -> None:
    """Refuse what the model has no place for.

    Raises:
        BundleError: An input, a column or a layout is unknown, an input is of another kind, or has too many files.
    """
    pictures = {part["name"]: part for part in model.form["images"]}
    connectomes = {part["name"]: part for part in model.form["connectomes"]}
    tables = {part["name"]: [c["name"] for c in part["columns"]] for part in model.form["tables"]}
    for name, uploads in given.files.items():
        _check_known(name, {*pictures, *connectomes}, model)
        most = pictures[name]["pictures"] if name in pictures else 1
        if len(uploads) > most:
            raise BundleError(f"{len(uploads)} files for {name}", expected=f"{most} at most")
    for name, site in given.layouts.items():
        _check_known(name, set(pictures), model)
        if site and site not in pictures[name]["layouts"]:
            raise BundleError(f"there is no layout '{site}'", do=nearest(site, pictures[name]["layouts"] or ["(none)"]))
    for name, row in given.rows.items():
        _check_known(name, set(tables), model)
        _check_columns(row, tables[name])
    for name, row in given.beside.items():
        _check_known(name, set(connectomes), model)
        _check_columns(row, connectomes[name]["needs"])


def _check_known(name: str, known: set[str], model: Model) -> None:
    if name in known:
        return
    if name in model.inputs:
        raise BundleError(f"input '{name}' is of another kind", expected="files for pictures, cells for tables")
    raise BundleError(f"there is no input '{name}'", do=nearest(name, model.inputs))


def _check_columns(row: Mapping[str, str], columns: list[str]) -> None:
    for column in row:
        # a cohort's heading may state the unit, and a column beside may
        plain = column.partition(" [")[0].removesuffix("_unit")
        if column not in columns and plain not in columns:
            raise BundleError(f"there is no column '{column}'", do=nearest(column, columns))


def read(predictor: Predictor, model: Model, given: Given, decoders: Decoders) -> Read:
    """Read one case. Whatever is wrong with it stands in the result; nothing is raised about a file or a cell.

    Args:
        predictor: The bundle.
        model: The same, as it is told of; `check_names` let the case pass.
        given: The case.
        decoders: Who looks into files.
    """
    hashes = tuple(upload.sha256 for uploads in given.files.values() for upload in uploads)
    case = Read(dict.fromkeys(predictor.inputs), hashes=hashes)
    for name in predictor.inputs:
        if name in predictor.columns:
            _table(case, predictor, name, given.rows.get(name, {}))
        elif given.files.get(name):
            if name in predictor.preparations:
                site = given.layouts.get(name, "")
                _pictures(case, predictor, name, given.files[name], site, decoders, model.example_hashes)
            else:
                _connectome(case, predictor, name, given.files[name][0], given.beside.get(name, {}), decoders)
    case.missing = tuple(name for name, value in case.prepared.items() if value is None)
    case.reasons += [f"{c.input}: {c.message}" for c in case.checks if c.verdict == "unusable"]
    if not case.reasons:
        _check_enough(case, predictor)
    return case


def _pictures(
    case: Read,
    predictor: Predictor,
    name: str,
    uploads: tuple[Upload, ...],
    site: str,
    decoders: Decoders,
    examples: frozenset[str],
) -> None:
    preparation = predictor.preparations[name]
    training = (predictor.facts.get("reference") or {}).get("pictures", {}).get(name, {})
    arrays = []
    for place, upload in enumerate(uploads):
        decoded = _decoded(case, name, place, lambda data=upload.data: decoders.picture(data, preparation, site))
        if decoded is None:
            continue
        # an example of the bundle is one of the study's simulated cases, and everybody can see that
        known = bool(predictor.trained_on_images([upload.sha256])) and upload.sha256 not in examples
        case.checks += picture_checks(name, place, decoded, preparation, known=known, training=training)
        case.pictures[(name, place)] = shown(preparation.visible(decoded.array))
        arrays.append(decoded.array)
        if not preparation.bar_high:
            top, left, bottom, right = decoded.facts["box"]
            case.boxes[(name, place)] = (top, left, bottom, right)
    if arrays:
        case.prepared[name] = np.stack(arrays) if name in predictor.pools else arrays[0]


def _decoded(case: Read, name: str, place: int | None, decode: Any) -> Decoded | None:
    """Decode one file, or note why it cannot be."""
    try:
        decoded: Decoded = decode()
    except ImageError as error:
        said = f"{error.came}; expected: {error.expected}" if error.expected else error.came
        case.checks.append(Check(name, place, "readable", "unusable", said))
        return None
    return decoded


def _connectome(
    case: Read, predictor: Predictor, name: str, upload: Upload, beside: Mapping[str, str], decoders: Decoders
) -> None:
    """Read a connectome and prepare it as each model does."""
    fitted = predictor.connectomes[0][name]
    suffix = PurePath(upload.name).suffix.lower()
    decoded = _decoded(case, name, None, lambda: decoders.connectome(upload.data, fitted, suffix))
    if decoded is None:
        return
    reading = ConnectomeReading(decoded.array[None], fitted.regions, ("the file",), fitted.holds, fitted.measure)
    try:
        lacking = [column for column in fitted.needs if not beside.get(column, "").strip()]
        if lacking:
            raise CohortError(f"{', '.join(lacking)} is not given", expected="a value: the model adjusts for it")
        cells = {column: [beside[column]] for column in fitted.needs}
        known = read_covariates(cells, {c: fitted.kind_of(c) for c in fitted.needs}) if fitted.needs else None
        case.prepared[name] = np.stack([own[name].apply(reading, known)[0] for own in predictor.connectomes])
        remarks = fitted.remarks(known)
    except CohortError as error:
        said = f"{error.came}; expected: {error.expected}" if error.expected else error.came
        case.checks.append(Check(name, None, "cell", "unusable", said))
        return
    size = f"{decoded.facts.get('format', '')}, {len(fitted.regions)} regions"
    case.checks.append(Check(name, None, "readable", "good", size))
    case.checks += [Check(name, None, "range", "doubtful", remark) for remark in remarks]


def _table(case: Read, predictor: Predictor, name: str, row: Mapping[str, str]) -> None:
    if not any(text.strip() for text in row.values()):
        return
    columns, fitted = predictor.columns[name], predictor.tables[0][name]
    training = ((predictor.facts.get("reference") or {}).get("columns") or {}).get(name, {})
    values, checks = read_row(name, columns, row, fitted=fitted, training=training)
    case.checks += checks
    if values is None:
        return
    empty = tuple(c.name for c, value in zip(columns, values, strict=True) if np.isnan(value))
    if any(not np.isnan(own[name].raw(values[None])).all() for own in predictor.tables):
        case.prepared[name] = values
        case.cells[name] = empty
        labels = {c.name: c.label or c.name for c in columns}
        case.checks += missing_check(name, empty, labels.__getitem__)


def _check_enough(case: Read, predictor: Predictor) -> None:
    """Refuse what the networks cannot answer: nothing at all, or an input missing that they never did without."""
    seen = {
        name: [value is not None] * len(predictor.members)
        if name not in predictor.columns or value is None
        else [not np.isnan(own[name].raw(value[None])).all() for own in predictor.tables]
        for name, value in case.prepared.items()
    }
    if not np.any(list(seen.values()), axis=0).all():
        case.reasons.append(f"nothing is given for any input: {', '.join(predictor.inputs)}")
        return
    lacking = [name for name, models in seen.items() if not all(models)]
    if not lacking:
        return
    if not predictor.networks[0].fusion.drop:
        case.reasons.append(f"{' and '.join(lacking)} missing: this model was not trained to do without an input")
        return
    without = predictor.facts.get("without") or {}
    for name in lacking:
        worth = without.get(name) or {}
        told = f"; without it its AUC was {worth['value']:.2f}" if worth.get("value") is not None else ""
        message = f"not given: the answer rests on the other inputs{told}"
        case.checks.append(Check(name, None, "missing", "doubtful", message))
