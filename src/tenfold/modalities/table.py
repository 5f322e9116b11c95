"""Prepares tables for a model: scaled, one-hot, missing cells marked and filled, all learned from training rows only.

It must not know cohorts, files or networks; labels it sees only to screen columns, and only of training rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tenfold.errors import BundleError, CohortError, Refusal, StudyError, nearest
from tenfold.modalities.columns import COLUMNS_FILE, Column, check_columns, read_columns, write_columns
from tenfold.modalities.table_features import (
    count_known,
    expand,
    feature_names,
    known_levels,
    middle,
    oddity,
    scaling,
)
from tenfold.modalities.table_imputation import fill_nearest
from tenfold.modalities.table_reading import TableReading, check_values, implausible, read_table
from tenfold.modalities.table_screening import univariate_p
from tenfold.types import FloatArray, IntArray, finite_or_none

__all__ = [
    "COLUMNS_FILE",
    "IMPUTATIONS",
    "Column",
    "TablePreparation",
    "TableReading",
    "check_values",
    "implausible",
    "read_columns",
    "read_table",
    "write_columns",
]

IMPUTATIONS = ("median", "knn")


@dataclass(frozen=True, eq=False)
class TablePreparation:
    """How a row of a table becomes what a model eats. Made by `fit`.

    A number is transformed and standardised by the mean and standard deviation of the training rows; an ordered
    level likewise, by its place. A category has one feature of 0 or 1 for each declared level, so that every fold
    has the same features; yes/no has one. A level of these two that no training row held counts as not observed,
    since nothing is known of it; so does every value of a column that was empty in all training rows.

    Attributes:
        raw_columns: The columns that `apply` expects, in their order.
        kept: Which of them are used, ascending.
        known: A tuple for each kept column: for categories and yes/no whether a training row held each level, for
            the others one entry, whether any training row held a value.
        mean: (L,) subtracted from each feature.
        scale: (L,) then divided by.
        fill: (L,) scaled training median of each feature; of categories and yes/no the most frequent level.
        imputation: "median" or "knn".
        neighbours: How many rows "knn" averages.
        bank: (m, L) for "knn" the scaled training rows, NaN where missing; otherwise m = 0. They travel in the
            bundle: whoever holds it can read these rows, without names but in full.
        notes: What was odd about the training rows, in words.
    """

    raw_columns: tuple[Column, ...]
    kept: tuple[int, ...]
    known: tuple[tuple[bool, ...], ...]
    mean: FloatArray
    scale: FloatArray
    fill: FloatArray
    imputation: Literal["median", "knn"]
    neighbours: int
    bank: FloatArray
    notes: tuple[str, ...] = ()

    @classmethod
    def fit(
        cls,
        reading: TableReading,
        train_rows: ArrayLike,
        *,
        imputation: Literal["median", "knn"] = "median",
        neighbours: int = 5,
        screen: int = 0,
        labels: ArrayLike | None = None,
    ) -> TablePreparation:
        """Learn a preparation from training rows; no other row of the reading is looked at.

        A column that is constant among the training rows is not scaled, and one that is empty there never counts as
        observed; both stay, and `notes` names them.

        Args:
            reading: Of the whole cohort.
            train_rows: Indices of the training rows, or (n,) bool.
            imputation: "median" (for categories the most frequent level) or "knn" (`table_imputation`).
            neighbours: How many rows "knn" averages.
            screen: 0 keeps all columns; k keeps the k with the smallest univariate p (`table_screening`).
            labels: (n,) classes of all rows, empty or NaN where unknown; only for screening.

        Raises:
            StudyError: A setting is impossible.
            CohortError: There are no training rows.
        """
        _check_settings(imputation, neighbours, screen, labels)
        rows = _indices(train_rows, len(reading))
        values, notes = reading.values[rows], []
        kept = tuple(range(len(reading.columns)))
        if screen and labels is not None:
            kept = _screened(reading, rows, np.asarray(labels), screen)
            if left := [c.name for j, c in enumerate(reading.columns) if j not in kept]:
                notes.append(f"screened by univariate p among the training rows; left out: {', '.join(left)}")
        columns = [reading.columns[j] for j in kept]
        known = tuple(known_levels(c, values[:, j]) for c, j in zip(columns, kept, strict=True))
        blocks = [expand(c, values[:, j], k) for c, j, k in zip(columns, kept, known, strict=True)]
        pairs = list(zip(columns, blocks, strict=True))
        notes += [note for column, block in pairs if (note := oddity(column, block))]
        scales = np.concatenate([np.tile(scaling(column, block), (block.shape[1], 1)) for column, block in pairs])
        mean, scale = scales.T.copy()
        fill = (np.concatenate([middle(column, block) for column, block in pairs]) - mean) / scale
        scaled = (np.concatenate(blocks, axis=1) - mean) / scale
        bank = scaled[~np.isnan(scaled).all(axis=1)] if imputation == "knn" else scaled[:0]
        return cls(reading.columns, kept, known, mean, scale, fill, imputation, neighbours, bank, tuple(notes))

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns that are used, in their order."""
        return tuple(self.raw_columns[j] for j in self.kept)

    @property
    def features(self) -> tuple[str, ...]:
        """(L) names: "crp", and for a category one a level, "sex=female"."""
        return tuple(name for column in self.columns for name in feature_names(column))

    @property
    def column_of(self) -> tuple[int, ...]:
        """(L) of each feature the place of its column in `columns`."""
        return tuple(k for k, column in enumerate(self.columns) for _ in feature_names(column))

    def raw(self, values: FloatArray) -> FloatArray:
        """Return scaled features without filling any.

        Args:
            values: (n, raw columns), of a `TableReading` of `raw_columns`.

        Returns:
            float64 (n, L), NaN where missing.

        Raises:
            CohortError: The values have another number of columns.
        """
        values = np.asarray(values, np.float64)
        if values.ndim != 2 or values.shape[1] != len(self.raw_columns):
            raise CohortError(
                f"a table of shape {values.shape}",
                expected=f"{len(self.raw_columns)} columns: {', '.join(c.name for c in self.raw_columns)}",
            )
        used = zip(self.columns, self.kept, self.known, strict=True)
        blocks = np.concatenate([expand(column, values[:, j], known) for column, j, known in used], axis=1)
        return np.asarray((blocks - self.mean) / self.scale)

    def apply(self, values: FloatArray) -> NDArray[np.float32]:
        """Prepare rows. A row comes out the same whatever rows come with it.

        Args:
            values: (n, raw columns), of a `TableReading` of `raw_columns`.

        Returns:
            float32 (n, 2, L): the scaled features, filled where missing; and 1 where observed, 0 where filled. A row
            with nothing observed is NaN throughout: the table is absent.

        Raises:
            CohortError: The values have another number of columns.
        """
        scaled = self.raw(values)
        observed = ~np.isnan(scaled)
        if self.imputation == "knn":
            filled = fill_nearest(scaled, self.bank, self.fill, self.neighbours)
        else:
            filled = np.where(observed, scaled, self.fill)
        both = np.stack([filled, observed.astype(np.float64)], axis=1)
        both[~observed.any(axis=1)] = np.nan
        return both.astype(np.float32)

    def baseline(self) -> NDArray[np.float32]:
        """Return the row that explanations start from, (2, L): the training median, all of it observed."""
        return np.stack([self.fill, np.ones_like(self.fill)]).astype(np.float32)

    def state(self) -> dict[str, Any]:
        """Return what `from_state` needs, fit for JSON; with "knn" the scaled training rows are in it."""
        return {
            "raw_columns": [column.to_dict() for column in self.raw_columns],
            "kept": list(self.kept),
            "known": [list(levels) for levels in self.known],
            **{name: getattr(self, name).tolist() for name in ("mean", "scale", "fill")},
            "imputation": self.imputation,
            "neighbours": self.neighbours,
            "bank": [[finite_or_none(value) for value in row] for row in self.bank.tolist()],
            "notes": list(self.notes),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> TablePreparation:
        """Read what `state` wrote.

        Raises:
            BundleError: A key is unknown or missing, or a value impossible.
        """
        names = [f.name for f in fields(cls)]
        for key in state:
            if key not in names:
                raise BundleError(f"the table preparation has an unknown key '{key}'", expected=nearest(key, names))
        if missing := [key for key in names if key not in state]:
            raise BundleError(f"the table preparation lacks {', '.join(missing)}")
        try:
            prepared = cls(
                raw_columns=tuple(Column.from_dict(column) for column in state["raw_columns"]),
                kept=tuple(int(j) for j in state["kept"]),
                known=tuple(tuple(bool(level) for level in levels) for levels in state["known"]),
                **{name: np.array(state[name], np.float64) for name in ("mean", "scale", "fill")},
                imputation=state["imputation"],
                neighbours=state["neighbours"],
                # None becomes NaN
                bank=np.array(state["bank"], np.float64).reshape(-1, len(state["mean"])),
                notes=tuple(str(note) for note in state["notes"]),
            )
            prepared._check()
        except (Refusal, TypeError, ValueError, KeyError, IndexError) as error:
            came = error.came if isinstance(error, Refusal) else str(error)
            raise BundleError(f"the table preparation is impossible: {came}") from error
        return prepared

    def _check(self) -> None:
        """Refuse parts, read from a file, that do not fit each other."""
        check_columns(self.raw_columns)
        _check_settings(self.imputation, self.neighbours, 0, None)
        if list(self.kept) != sorted({j for j in self.kept if 0 <= j < len(self.raw_columns)}) or not self.kept:
            raise ValueError("its columns are not those it keeps")
        if [len(known) for known in self.known] != [count_known(column) for column in self.columns]:
            raise ValueError("its levels are not those of its columns")
        numbers = (self.mean, self.scale, self.fill)
        if any(part.shape != (len(self.features),) or not np.isfinite(part).all() for part in numbers):
            raise ValueError("its means, scales and medians are not one finite number a feature")
        if (self.scale <= 0).any():
            raise ValueError("a scale is not above 0")


def _check_settings(imputation: str, neighbours: int, screen: int, labels: ArrayLike | None) -> None:
    """Refuse settings that cannot be meant."""
    if imputation not in IMPUTATIONS:
        raise StudyError(f"unknown imputation '{imputation}'", expected=nearest(str(imputation), IMPUTATIONS))
    for name, value, least in (("neighbours", neighbours, 1), ("screen", screen, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise StudyError(f"{name} = {value}", expected=f"a whole number from {least}")
    if screen and labels is None:
        raise StudyError(f"screen = {screen} without labels", expected="the classes of the training rows")


def _indices(train_rows: ArrayLike, n: int) -> IntArray:
    """Turn a mask or indices into indices, refusing none at all."""
    rows = np.asarray(train_rows)
    if rows.dtype == bool and len(rows) != n:
        raise CohortError(f"a mask of {len(rows)} rows", expected=f"{n}, one a case")
    rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
    if not len(rows):
        raise CohortError("there are no training rows to prepare the table by", expected="one or more")
    return rows


def _screened(reading: TableReading, rows: IntArray, labels: NDArray[Any], count: int) -> tuple[int, ...]:
    """Return the columns that differ most clearly between the classes of the training rows, in their order."""
    labels = labels[rows]
    named = ~np.isnan(labels) if labels.dtype.kind == "f" else labels.astype(np.str_) != ""
    if len(np.unique(labels[named])) < 2:
        raise StudyError(
            "the training rows hold fewer than two classes",
            expected="two or more to screen columns by",
            do="keep all columns (screen = 0), or check the labels",
        )
    classes = np.unique(labels[named], return_inverse=True)[1]
    values = reading.values[rows[named]]
    p = [univariate_p(column, values[:, j], classes) for j, column in enumerate(reading.columns)]
    return tuple(sorted(np.argsort(p, kind="stable")[:count].tolist()))
