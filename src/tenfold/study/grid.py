"""The ablation grid: every network on every view, pre-trained and from scratch, as arms; and the paired tests between.

It must not know how an arm is fitted or drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import ValidationError

from tenfold.config import ArmSection, GridSection, ImageInput, StudyFile
from tenfold.errors import Refusal, StudyError
from tenfold.stats.classes import compare_classes
from tenfold.stats.compare import compare_arms, holm
from tenfold.study.results import Told
from tenfold.types import PredictionTable, finite_or_none

FUSED, PRETRAINED, SCRATCH = "fused", "pre-trained", "scratch"


@dataclass(frozen=True)
class Cell:
    """One arm of the grid.

    Attributes:
        network: Network of timm, or the inputs' own.
        view: The one input that it sees, or "fused".
        start: "pre-trained" or "scratch".
        arm: Name of the arm.
    """

    network: str
    view: str
    start: str
    arm: str


def cells_of(config: StudyFile) -> list[Cell]:
    """Return the cells of a study's grid in its order; none where it has no grid."""
    if config.grid is None:
        return []
    networks = config.grid.networks or ("own network",)
    views = _views(config, config.grid)
    shown = [*views, *([FUSED] if config.grid.fused and len(views) > 1 else [])]
    return [
        Cell(network, view, start, f"{network}, {view}, {start}")
        for network in networks
        for view in shown
        for start in (PRETRAINED, SCRATCH)
    ]


def with_grid(config: StudyFile) -> StudyFile:
    """Add an arm for every cell.

    Raises:
        StudyError: The grid has no view, or its weights are those of scratch and no stage is its own; or a network or
            view has a name that no arm can have.
    """
    grid = config.grid
    if grid is None:
        return config
    if not _views(config, grid):
        raise StudyError("the grid has no view", expected="inputs of pictures")
    if grid.weights == "none" and not grid.stages:
        raise StudyError(
            "'pre-trained' would be the same as 'scratch' in the grid",
            do='set weights = "imagenet" or a file, or name the stages that scratch leaves out',
        )
    taken = {arm.name for arm in config.arms}
    arms = [_arm(config, grid, cell) for cell in cells_of(config) if cell.arm not in taken]
    return StudyFile.model_validate({**config.model_dump(), "arms": [*config.model_dump()["arms"], *arms]})


def _views(config: StudyFile, grid: GridSection) -> tuple[str, ...]:
    return grid.views or tuple(n for n, section in config.inputs.items() if isinstance(section, ImageInput))


def _arm(config: StudyFile, grid: GridSection, cell: Cell) -> dict[str, Any]:
    """The keys of a cell's arm; the rest is the study's."""
    seen = _views(config, grid) if cell.view == FUSED else (cell.view,)
    keys: dict[str, Any] = {"weights": grid.weights if cell.start == PRETRAINED else "none"}
    if grid.networks:
        keys |= {"encoder": "image_timm", "network": cell.network, "options": {}}
    if cell.network in grid.sizes:
        keys["size"] = grid.sizes[cell.network]
    try:
        section = ArmSection(
            name=cell.arm,
            only=seen,
            inputs=dict.fromkeys(seen, keys),
            stages=tuple(s.name for s in config.stages if cell.start == PRETRAINED or s.name not in grid.stages),
        )
    except ValidationError as error:
        raise StudyError(
            f"'{cell.arm}' cannot be the name of an arm of the grid",
            expected="60 characters at most: letters, digits, spaces and . , : ( ) + / - _",
            do="name the network without its tag, or give the input a shorter name and its column with column = ...",
        ) from error
    return section.model_dump()


def described_grid(config: StudyFile) -> dict[str, Any] | None:
    """Return what run.json says of the grid."""
    cells = cells_of(config)
    if not cells:
        return None
    axes = {f"{axis}s": list(dict.fromkeys(getattr(c, axis) for c in cells)) for axis in ("network", "view", "start")}
    return {**axes, "cells": [asdict(cell) for cell in cells]}


def grid_tests(
    config: StudyFile, tables: Mapping[str, PredictionTable], told: Mapping[str, Told], *, bootstraps: int, seed: int
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Test pre-training in every network and view, and fusion against every view; p adjusted over each question.

    Args:
        config: The study.
        tables: By target, out-of-fold predictions of all arms.
        told: By target.
        bootstraps: Draws of patients.
        seed: Of the draws.

    Returns:
        What grid.json holds. Pairs of which an arm failed are left out.
    """
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for target, table in tables.items():
        lines: list[dict[str, Any]] = []
        for question, pairs in _questions(cells_of(config)).items():
            own = [
                {"question": question, "network": a.network, "view": a.view, "start": a.start, **tested}
                for a, b in pairs
                if (tested := _tested(table, a.arm, b.arm, told[target], bootstraps, seed)) is not None
            ]
            # a difference without variance has no p: both arms say the same
            adjusted = holm([math.nan if line["p"] is None else line["p"] for line in own])
            lines += [{**line, "p_adjusted": finite_or_none(p)} for line, p in zip(own, adjusted, strict=True)]
        found[target] = {"comparisons": lines}
    return found


def _questions(cells: Sequence[Cell]) -> dict[str, list[tuple[Cell, Cell]]]:
    """Pairs of cells by what they ask: the first less the second."""
    at = {(c.network, c.view, c.start): c for c in cells}
    questions: dict[str, list[tuple[Cell, Cell]]] = {}
    for cell in cells:
        if cell.start == PRETRAINED:
            questions.setdefault("pre-training", []).append((cell, at[cell.network, cell.view, SCRATCH]))
    for cell in cells:
        if cell.view == FUSED and cell.start == PRETRAINED:
            others = [c for c in cells if (c.network, c.start) == (cell.network, PRETRAINED) and c.view != FUSED]
            for other in others:
                questions.setdefault(f"{FUSED} against {other.view}", []).append((cell, other))
    return questions


def _tested(
    table: PredictionTable, arm: str, reference: str, told: Told, bootstraps: int, seed: int
) -> dict[str, Any] | None:
    """The difference of two arms, on the cases that both predicted; None where one of them is not there."""
    if arm not in table.arms or reference not in table.arms:
        return None
    both = table.where((table.arm == arm) | (table.arm == reference))
    try:
        if len(table.classes) > 2:
            lines = compare_classes(both, reference=reference, bootstraps=bootstraps, seed=seed)
            wanted = "macro_ovo_auc"
        else:
            own = compare_arms(
                both,
                positive=told.positive,
                thresholds=told.thresholds,
                reference=reference,
                bootstraps=bootstraps,
                seed=seed,
            )
            lines, wanted = [c.to_dict() for c in own], "auc"
    except Refusal:
        return None
    # arms that share no case of some class have no such comparison
    line = next((one for one in lines if one["metric"] == wanted), None)
    return None if line is None else {key: line[key] for key in ("metric", "difference", "p", "method")}
