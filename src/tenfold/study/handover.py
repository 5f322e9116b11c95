"""What a bundle takes along for whoever serves it: what is usual, what the figures were, and cases to try it on.

It must not know how the networks were fitted, nor the server.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from tenfold.bundle.reference import Reference, fit_reference
from tenfold.bundle.save import Example
from tenfold.config import ConnectomeInput, ImageInput, TableInput
from tenfold.modalities.image import coloured, read_image
from tenfold.modalities.ultrasound import REGIONS_FACT
from tenfold.study.arms import FittedArm
from tenfold.study.bench import Bench, preparation
from tenfold.study.files import truth_of
from tenfold.study.network_arm import FoldNetworks
from tenfold.types import IntArray, PredictionTable

_LOOKED_AT = 40
_BATCH = 32
_FEWEST = 10
_BINS = 10


def references(bench: Bench, arm: FittedArm, networks: FoldNetworks) -> dict[str, Reference]:
    """Describe the training patients of the first fold's network, and how far its other patients lie, by input.

    Tables have none: their columns' usual ranges say more, and in words.
    """
    train, inner, test = networks.parts[0]
    found = {}
    network = networks.network(0)
    for name, section in arm.sections.items():
        if isinstance(section, TableInput):
            continue
        inputs = networks.inputs[0]
        inside, outside = (rows[inputs.has(name)[rows]] for rows in (train, np.concatenate([inner, test])))
        if min(len(inside), len(outside)) >= _FEWEST:
            found[name] = fit_reference(
                network, name, _singly(bench, networks, name, inside), _singly(bench, networks, name, outside)
            )
    return found


def _singly(bench: Bench, networks: FoldNetworks, name: str, rows: IntArray) -> Iterator[Tensor]:
    """Batches of what an encoder takes, every picture on its own."""
    for start in range(0, len(rows), _BATCH):
        given = networks.inputs[0].tensor(name, rows[start : start + _BATCH])
        if given.ndim == 5:
            given = given.flatten(0, 1)
            given = given[~given.flatten(1)[:, 0].isnan()]
        yield given


def facts_for_serving(
    bench: Bench,
    arms: Mapping[str, FittedArm],
    evaluation: Mapping[str, Mapping[str, Any]],
    classes: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Return what the bundle's facts hold for a server.

    Args:
        bench: The study's cohort and folds.
        arms: The proposed arm, as each target sees it.
        evaluation: Metrics by target and arm, on out-of-fold predictions.
        classes: What classes.json holds.
    """
    overall = {target: own["arms"][arms[target].name]["overall"] for target, own in classes.items()}
    sections = arms[bench.target].sections
    return {
        "reference": {
            "columns": {n: _usual(bench, n) for n, s in sections.items() if isinstance(s, TableInput)},
            "pictures": {n: _look(bench, n, s) for n, s in sections.items() if isinstance(s, ImageInput)},
        },
        "pictures": {n: s.pictures for n, s in sections.items() if isinstance(s, ImageInput)},
        "similar": {target: _similar(arm.predictions) for target, arm in arms.items()},
        "evaluations": {
            target: {**overall.get(target, {}), **evaluation[target][arm.name]} for target, arm in arms.items()
        },
        "prevalences": {target: _shares(bench.of(target)) for target in arms},
    }


def _usual(bench: Bench, name: str) -> dict[str, list[float]]:
    """The 1st and 99th percentile of every column of numbers; none where too few are known."""
    reading = bench.tables[name]
    found = {}
    for column, values in zip(reading.columns, reading.values.T, strict=True):
        known = values[~np.isnan(values)]
        if not column.levels and len(known) >= _FEWEST:
            found[column.name] = [float(q) for q in np.quantile(known, (0.01, 0.99))]
    return found


def _look(bench: Bench, name: str, section: ImageInput) -> dict[str, Any]:
    """Which DICOM modalities the pictures have, and how coloured they are; a sample of them is looked at."""
    column = section.column or name
    prepared = preparation(section, bench.cohort, column)
    named = [(p, site) for own, site in zip(bench.cohort.pictures(column), bench.cohort.site, strict=True) for p in own]
    chosen = np.random.default_rng(bench.config.seed).permutation(len(named))[:_LOOKED_AT]
    shares, modalities = [], set()
    for path, site in (named[i] for i in chosen.tolist()):
        reading = read_image(path)
        regions = str(reading.facts.get(REGIONS_FACT, ""))
        left, top, right, bottom = prepared.region(*reading.pixels.shape[:2], site=str(site), regions=regions)
        shares.append(coloured(reading.pixels[top:bottom, left:right]))
        modalities |= {str(reading.facts["modality"])} if "modality" in reading.facts else set()
    return {
        "modalities": sorted(modalities),
        "coloured": [float(q) for q in np.quantile(shares, (0.01, 0.99))] if shares else None,
    }


def _similar(table: PredictionTable) -> dict[str, Any]:
    """How many cases of each class got which probability of the class to be detected, out of fold."""
    first = table.where(table.repeat == table.repeat.min())
    edges = np.linspace(0, 1, _BINS + 1)
    return {
        "edges": edges.tolist(),
        "counts": {
            name: np.histogram(first.probabilities[first.label == name, -1], edges)[0].tolist()
            for name in table.classes
        },
    }


def _shares(bench: Bench) -> dict[str, float]:
    known = bench.labels.values[bench.labels.known]
    return {name: float((known == name).mean()) for name in bench.labels.classes}


def examples(bench: Bench, arm: FittedArm) -> list[Example]:
    """Choose a case of each class from a simulated cohort; a real patient is never an example."""
    if truth_of(bench.cohort) is None:
        return []
    lacking = np.zeros(len(bench.cohort), np.int64)
    for name in arm.sections:
        lacking += ~bench.answers({name: arm.sections[name]})
    found: list[Example] = []
    for label in bench.labels.classes:
        of_class = np.flatnonzero(bench.labels.values == label)
        if not len(of_class):
            continue
        # whoever lacks least, the first of them
        row = int(of_class[np.argmin(lacking[of_class])])
        found.append(_example(bench, arm, row, f"{label} (simulated)", f"example {len(found) + 1}"))
    return found


def _example(bench: Bench, arm: FittedArm, row: int, label: str, name: str) -> Example:
    cohort, example = bench.cohort, Example(name, label)
    site = str(cohort.site[row])
    for given, section in arm.sections.items():
        if isinstance(section, TableInput):
            columns = [c.name for c in bench.tables[given].columns if not c.formula]
            cells = {column: str(cohort.labels(column)[row]) for column in columns}
            example = replace(example, rows={**example.rows, given: cells})
            continue
        column = section.column or given
        example = replace(example, files={**example.files, given: cohort.pictures(column)[row]})
        if isinstance(section, ConnectomeInput):
            needs = dict.fromkeys([*filter(None, [section.harmonise]), *section.keep, *section.confounds])
            beside = {column: str(cohort.labels(column)[row]) for column in needs}
            example = replace(example, beside={**example.beside, given: beside})
        elif preparation(section, cohort, column).layouts:
            example = replace(example, layouts={**example.layouts, given: site})
    return example
