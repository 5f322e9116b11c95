"""Outcomes: from a column of classes, levels or scores to what is evaluated, and to what a network learns.

It must not know networks or folds, nor what becomes of the outcome.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tenfold.cohort.manifest import Cohort, Labels, check_foreign, labels_for
from tenfold.errors import CohortError
from tenfold.modalities.columns import NUMBER
from tenfold.types import FloatArray, StrArray

Kind = Literal["class", "ordinal", "score"]


@dataclass(frozen=True)
class Target:
    """Where an outcome stands and how it is read; the keys of the study file's [target], which documents them.

    Attributes:
        column: Column of the cohort.
        name: Name in files; the column's if empty.
        kind: "class", "ordinal" (levels in order) or "score" (a number that is cut).
        classes: Two classes or more; levels, lowest first; or what the two sides of a cut are called.
        positive: The class to be found, the last if empty; or the lowest level that counts as yes.
        below: Yes is a score below.
        above: Yes is a score above.
    """

    column: str
    name: str = ""
    kind: Kind = "class"
    classes: tuple[str, ...] = ()
    positive: str = ""
    below: float | None = None
    above: float | None = None

    @property
    def called(self) -> str:
        """Its name in files."""
        return self.name or self.column


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a study tells: the classes that are evaluated, and the figures that a network learns.

    Attributes:
        target: Where it stands and how it was read.
        labels: The class of every case, the positive one last: two, or as many as a target of kind "class" has.
        levels: The classes or levels that `values` count, in order; none of a score.
        values: (n,) index of the level, or the score in its own unit; NaN where unknown.
    """

    target: Target
    labels: Labels
    levels: tuple[str, ...]
    values: FloatArray

    @property
    def cut(self) -> int:
        """Of levels: index of the lowest that counts as yes."""
        return self.levels.index(self.target.positive)


def outcome_for(
    cohort: Cohort,
    target: Target,
    *,
    unlabelled: Literal["refuse", "allow"] = "refuse",
    absent: Literal["refuse", "allow"] = "refuse",
) -> Outcome:
    """Read an outcome. Levels and scores become a yes or no; classes stay what they are.

    Args:
        cohort: The cohort.
        target: Where it stands.
        unlabelled: Whether cases without an outcome are refused or kept, unknown.
        absent: Whether a yes or no that no case has is refused.

    Raises:
        CohortError: The column is missing; an outcome is missing, none of the classes or no number, its row being
            named; or all outcomes are the same.
    """
    if target.kind == "score":
        return _score(cohort, target, unlabelled, absent)
    if target.kind == "class" and len(target.classes) < 3:
        labels = labels_for(
            cohort,
            column=target.column,
            classes=target.classes or None,
            positive=target.positive or None,
            unlabelled=unlabelled,
            absent=absent,
        )
        return Outcome(target, labels, labels.classes, _indices(labels.values, labels.classes))
    cells = cohort.labels(target.column)
    check_foreign(cohort, target.column, cells, target.classes)
    if target.kind == "class":
        positive = target.positive or target.classes[-1]
        names = (*(name for name in target.classes if name != positive), positive)
        labels = _checked(cohort, target, names, cells, unlabelled, absent)
        return Outcome(target, labels, names, _indices(cells, names))
    values = _indices(cells, target.classes)
    yes = target.positive
    sides = (f"below {yes}", f"{yes} or above") if len(target.classes) > 2 else (target.classes[0], target.classes[1])
    labels = _two_sides(cohort, target, sides, values, values >= target.classes.index(yes), unlabelled, absent)
    return Outcome(target, labels, target.classes, values)


def _score(
    cohort: Cohort, target: Target, unlabelled: Literal["refuse", "allow"], absent: Literal["refuse", "allow"]
) -> Outcome:
    """Read numbers and cut them; at the cut itself the answer is no."""
    values = np.full(len(cohort), np.nan)
    for i, cell in enumerate(cohort.labels(target.column).tolist()):
        if not cell:
            continue
        values[i] = float(cell) if NUMBER.fullmatch(cell) else math.inf
        if not math.isfinite(values[i]):
            raise CohortError(
                f"'{cell}' is no number",
                expected="a score; an unknown one is an empty cell, never a word",
                where=cohort.place(i, target.column),
            )
    side, cut = ("below", target.below) if target.below is not None else ("above", target.above)
    assert cut is not None
    names = target.classes or (f"not {side} {cut:g}", f"{side} {cut:g}")
    positive = values < cut if side == "below" else values > cut
    labels = _two_sides(cohort, target, (names[0], names[1]), values, positive, unlabelled, absent)
    return Outcome(target, labels, (), values)


def _two_sides(
    cohort: Cohort,
    target: Target,
    names: tuple[str, str],
    values: FloatArray,
    positive: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
    unlabelled: Literal["refuse", "allow"],
    absent: Literal["refuse", "allow"],
) -> Labels:
    """Turn what was cut into two classes."""
    sides = np.where(np.isnan(values), "", np.where(positive, names[1], names[0])).astype(np.str_)
    return _checked(cohort, target, names, sides, unlabelled, absent)


def _checked(
    cohort: Cohort,
    target: Target,
    names: tuple[str, ...],
    cells: StrArray,
    unlabelled: Literal["refuse", "allow"],
    absent: Literal["refuse", "allow"],
) -> Labels:
    """Check that the outcomes suffice: no case without one unless that is allowed, and no class without a case."""
    unknown = np.flatnonzero(cells == "")
    where = f"{cohort.path.name}, column {target.column}"
    classes = f"{'both' if len(names) == 2 else 'all'} classes"
    if len(unknown) == len(cells):
        raise CohortError("there is no outcome at all", expected=f"known outcomes of {classes}", where=where)
    if unknown.size and unlabelled == "refuse":
        raise CohortError(
            f"the outcome is missing here and in {unknown.size - 1} more rows",
            do="fill in the outcome, remove the rows, or declare that unlabelled cases are allowed",
            where=cohort.place(int(unknown[0]), target.column),
        )
    for name in names:
        if name not in cells and absent == "refuse":
            raise CohortError(f"no case has the class '{name}'", expected=f"cases of {classes}", where=where)
    return Labels(target.column, names, names[-1], cells)


def _indices(cells: StrArray, classes: Sequence[str]) -> FloatArray:
    """(n,) index of each case's class, NaN where it is unknown."""
    place = {name: float(i) for i, name in enumerate(classes)}
    return np.array([place.get(cell, math.nan) for cell in cells.tolist()], np.float64)
