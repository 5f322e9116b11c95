"""Columns beside a connectome (site, age, sex, motion), and taking what they explain out of its edges.

It must not know files, labels or folds: whoever fits hands over training rows only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tenfold.errors import CohortError, StudyError, nearest
from tenfold.modalities.columns import Column
from tenfold.modalities.table_reading import read_table
from tenfold.types import FloatArray, IntArray, StrArray

Kind = Literal["number", "category"]
Unseen = Literal["refuse", "pass"]
UNSEEN: tuple[Unseen, ...] = ("refuse", "pass")


@dataclass(frozen=True, eq=False)
class Covariates:
    """What is known of each case beside its connectome.

    Attributes:
        columns: Name -> (n,) float64, NaN where missing, or (n,) text, empty where missing.
        sources: (n) whose row it is, for messages.
    """

    columns: Mapping[str, FloatArray | StrArray]
    sources: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.sources)

    def take(self, rows: IntArray) -> Covariates:
        """Return the rows of some cases, in the order given."""
        columns = {name: values[rows] for name, values in self.columns.items()}
        return Covariates(columns, tuple(self.sources[i] for i in rows.tolist()))

    def known(self, name: str) -> FloatArray | StrArray:
        """Return a column that must be filled in.

        Raises:
            CohortError: There is no such column, or a cell is missing.
        """
        if name not in self.columns:
            raise CohortError(f"there is no column '{name}'", do=nearest(name, self.columns))
        values = self.columns[name]
        missing = np.flatnonzero(np.isnan(values) if _numeric(values) else values == "")
        if missing.size:
            raise CohortError(
                f"{name} is missing here and in {missing.size - 1} more rows",
                expected=f"a value: the connectome is adjusted for {name}",
                do="fill it in, leave the case out, or adjust for less",
                where=self.sources[int(missing[0])],
            )
        return values


def read_covariates(
    cells: Mapping[str, Sequence[str]],
    kinds: Mapping[str, Kind],
    *,
    place: Callable[[int, str], str] | None = None,
) -> Covariates:
    """Read columns strictly: an empty cell is missing, any other must be what its kind says.

    Args:
        cells: Column name -> n cells.
        kinds: Column name -> "number" or "category".
        place: Says where the cell of case i and a column stands.

    Raises:
        CohortError: A column is absent, or a cell is no number.
        StudyError: A kind is unknown.
    """
    columns: dict[str, FloatArray | StrArray] = {}
    for name, kind in kinds.items():
        if kind not in ("number", "category"):
            raise StudyError(f"unknown kind '{kind}' of {name}", expected=nearest(str(kind), ("number", "category")))
        if name not in cells:
            raise CohortError(f"there is no column '{name}'", do=nearest(name, cells))
        if kind == "number":
            column = (Column(name),)
            read = read_table(column, cells, place=place) if place else read_table(column, cells)
            columns[name] = read.values[:, 0]
        else:
            columns[name] = np.array([cell.strip() for cell in cells[name]], np.str_)
    n = len(next(iter(columns.values()))) if columns else 0
    sources = tuple(place(i, ", ".join(kinds)) if place else f"case {i + 1}" for i in range(n))
    return Covariates(columns, sources)


@dataclass(frozen=True)
class Coding:
    """How columns become the numbers of a design: learned from training rows, centred on their mean.

    Attributes:
        names: The columns.
        levels: For each the categories that training rows held, sorted; empty for a number.
        mean: For each number of the design what is subtracted.
        scale: And what it is divided by; 1 for categories.
    """

    names: tuple[str, ...]
    levels: tuple[tuple[str, ...], ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]

    @classmethod
    def fit(cls, covariates: Covariates, names: Sequence[str]) -> Coding:
        """Learn the levels and means of training rows.

        Raises:
            CohortError: A column or a cell is missing.
        """
        levels = tuple(
            () if _numeric(values := covariates.known(name)) else tuple(sorted(set(values.tolist()))) for name in names
        )
        raw = _design(covariates, names, levels)
        numeric = np.repeat([not some for some in levels], [len(some) - 1 if some else 1 for some in levels])
        spread = raw.std(axis=0)
        scale = np.where(numeric.astype(bool) & (spread > 0), spread, 1.0)
        return cls(tuple(names), levels, tuple(raw.mean(axis=0).tolist()), tuple(scale.tolist()))

    def apply(self, covariates: Covariates, unseen: Unseen = "refuse") -> FloatArray:
        """Return the design of some rows, (n, k).

        Args:
            covariates: With the columns it was fitted on.
            unseen: Whether a category that no training row held is refused, or counts as the average of the training
                rows (0 in its numbers).

        Raises:
            CohortError: A column or a cell is missing, or a category is unseen.
        """
        design = (_design(covariates, self.names, self.levels) - np.array(self.mean)) / np.array(self.scale)
        start = 0
        for name, levels in zip(self.names, self.levels, strict=True):
            width = len(levels) - 1 if levels else 1
            if levels:
                new = ~np.isin(covariates.known(name), levels)
                if new.any() and unseen == "refuse":
                    refuse_unseen(name, covariates, int(new.argmax()), levels)
                design[new, start : start + width] = 0.0
            start += width
        return design

    def unseen(self, covariates: Covariates) -> tuple[str, ...]:
        """Say in words which categories no training row held, "site 'X' (3 cases)"."""
        said = []
        for name, levels in zip(self.names, self.levels, strict=True):
            if levels:
                said += unseen_levels(name, covariates, levels)
        return tuple(said)

    def state(self) -> dict[str, Any]:
        """Return what `from_state` needs, fit for JSON."""
        return {
            "names": list(self.names),
            "levels": [list(some) for some in self.levels],
            "mean": list(self.mean),
            "scale": list(self.scale),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Coding:
        """Read what `state` wrote.

        Raises:
            ValueError: Its parts do not fit.
        """
        made = cls(
            tuple(str(name) for name in state["names"]),
            tuple(tuple(str(level) for level in some) for some in state["levels"]),
            tuple(float(value) for value in state["mean"]),
            tuple(float(value) for value in state["scale"]),
        )
        width = sum(len(some) - 1 if some else 1 for some in made.levels)
        if len(made.names) != len(made.levels) or not len(made.mean) == len(made.scale) == width:
            raise ValueError("its covariates do not fit their levels, means and scales")
        return made


@dataclass(frozen=True, eq=False)
class ConfoundRegression:
    """A linear regression of every edge on confounds, fitted on training rows, whose fit is subtracted.

    An intercept is fitted and left in, so that edges keep their training mean. It removes what the confounds explain
    linearly in the mean, and nothing of a variance or of an interaction. Where the outcome itself goes with a
    confound, that part of it goes too.

    Attributes:
        coding: How the confounds become numbers.
        weights: (k, edges).
    """

    coding: Coding
    weights: FloatArray

    @classmethod
    def fit(cls, edges: FloatArray, covariates: Covariates, names: Sequence[str]) -> ConfoundRegression:
        """Fit by least squares; of confounds that say the same, the solution of least norm.

        Args:
            edges: (n, edges) of training rows.
            covariates: Of the same rows.
            names: The confounds.

        Raises:
            CohortError: A column or cell is missing, or there are not more rows than numbers in the design.
        """
        coding = Coding.fit(covariates, names)
        design = coding.apply(covariates)
        if len(design) <= design.shape[1] + 1:
            raise CohortError(
                f"{len(design)} training rows for {design.shape[1]} numbers of {', '.join(names)}",
                expected="more rows than that, or the regression explains everything",
                do="adjust for less",
            )
        weights = np.linalg.lstsq(design, edges - edges.mean(axis=0), rcond=None)[0]
        return cls(coding, np.asarray(weights))

    def apply(self, edges: FloatArray, covariates: Covariates, unseen: Unseen = "refuse") -> FloatArray:
        """Return edges, (n, edges), less what the confounds explain.

        Raises:
            CohortError: As `Coding.apply`.
        """
        return edges - weighted(self.coding.apply(covariates, unseen), self.weights)


def weighted(design: FloatArray, weights: FloatArray) -> FloatArray:
    """Multiply (n, k) by (k, edges) so that a row comes out the same, to the bit, whatever rows come with it."""
    total = np.zeros((len(design), weights.shape[1]))
    for values, row in zip(design.T, weights, strict=True):
        total += values[:, None] * row
    return total


def refuse_unseen(name: str, covariates: Covariates, row: int, levels: Sequence[str]) -> None:
    """Refuse a category that the preparation knows nothing of.

    Raises:
        CohortError: Always.
    """
    raise CohortError(
        f"{name} '{covariates.known(name)[row]}' was not among the training rows",
        expected=f"one of {', '.join(levels)}",
        do="leave the case out, or declare that an unseen one is passed through unadjusted: unseen = 'pass'",
        where=covariates.sources[row],
    )


def unseen_levels(name: str, covariates: Covariates, levels: Sequence[str]) -> list[str]:
    """Say which categories of a column are none of these, with their number of cases."""
    values = covariates.known(name)
    new, count = np.unique(values[~np.isin(values, levels)], return_counts=True)
    return [f"{name} '{level}' ({n} cases)" for level, n in zip(new.tolist(), count.tolist(), strict=True)]


def _numeric(values: NDArray[Any]) -> bool:
    return values.dtype.kind == "f"


def _design(covariates: Covariates, names: Sequence[str], levels: Sequence[Sequence[str]]) -> FloatArray:
    """Numbers as they are, categories as 0 or 1 for each level but the first; (n, k)."""
    parts = [np.zeros((len(covariates), 0))]
    for name, some in zip(names, levels, strict=True):
        values = covariates.known(name)
        if _numeric(values) == bool(some):
            raise CohortError(
                f"{name} is {'a number' if _numeric(values) else 'a category'}",
                expected="the kind that it had among the training rows",
            )
        parts.append(values[:, None] == np.array(some[1:]) if some else np.asarray(values, np.float64)[:, None])
    return np.concatenate(parts, axis=1).astype(np.float64)
