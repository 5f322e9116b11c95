"""Prepares connectomes for a model: Fisher's z or tangent space, harmonised, freed of confounds, standardised edges.

It must not know cohorts, files, labels or networks: everything is learned from the training rows handed to `fit`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tenfold.errors import BundleError, CohortError, Refusal, StudyError, nearest
from tenfold.modalities.confounds import (
    UNSEEN,
    Coding,
    ConfoundRegression,
    Covariates,
    Kind,
    Unseen,
    read_covariates,
)
from tenfold.modalities.connectivity import (
    MEASURES,
    Measure,
    edge_names,
    edges_of,
    fisher_z,
    geometric_mean,
    matrix_of,
    smallest_eigenvalue,
    tangent,
    whitening,
)
from tenfold.modalities.connectome_checks import check_connectomes, check_motion, identical
from tenfold.modalities.connectome_reading import (
    HOLDS,
    REGIONS_FILE,
    ConnectomeReading,
    Holds,
    coordinates_of_regions,
    networks_of_regions,
    numbered,
    read_connectome,
    read_connectomes,
    read_regions,
)
from tenfold.modalities.harmonisation import Combat
from tenfold.types import FloatArray, IntArray

__all__ = [
    "HOLDS",
    "MEASURES",
    "REGIONS_FILE",
    "SPACES",
    "ConnectomePreparation",
    "ConnectomeReading",
    "Covariates",
    "check_connectomes",
    "check_motion",
    "coordinates_of_regions",
    "edge_names",
    "edges_of",
    "identical",
    "matrix_of",
    "networks_of_regions",
    "numbered",
    "read_connectome",
    "read_connectomes",
    "read_covariates",
    "read_regions",
]

Space = Literal["fisher_z", "tangent", "correlation"]
SPACES: tuple[Space, ...] = ("fisher_z", "tangent", "correlation")


@dataclass(frozen=True, eq=False)
class ConnectomePreparation:
    """How a connectome becomes the edges that a model eats. Made by `fit`, which sees training rows only.

    In this order: into the space; the upper triangle; edges of a region without signal take the training mean;
    ComBat; confounds subtracted; standardised. An edge that was not measured ends at the training mean, whatever was
    done to the others; in tangent space such a region also touches the edges of the rest a little.

    Attributes:
        regions: Names, in the order of the matrices.
        holds: What the files hold, for reading new ones.
        measure: What is made of time courses.
        space: "fisher_z" of correlations, "tangent" at the geometric mean of the training matrices, "correlation".
        standardise: Whether edges are divided by their training standard deviation after their mean is subtracted.
        unseen: What happens to a site (or other category) that no training row held: "refuse" or "pass".
        whiten: (regions, regions) for tangent space, otherwise (0, 0).
        fill: (edges,) training mean of each edge in its space, before it is adjusted.
        heard: (regions,) whether a training row had signal there; a region without never counts as measured.
        combat: What was learned of sites; None without harmonisation.
        confounds: What was learned of confounds; None without.
        mean: (edges,) of the adjusted training rows.
        scale: (edges,) their standard deviation, 1 where an edge is constant.
        notes: What was odd about the training rows, in words.
    """

    regions: tuple[str, ...]
    holds: Holds
    measure: Measure
    space: Space
    standardise: bool
    unseen: Unseen
    whiten: FloatArray
    fill: FloatArray
    heard: NDArray[np.bool_]
    combat: Combat | None
    confounds: ConfoundRegression | None
    mean: FloatArray
    scale: FloatArray
    notes: tuple[str, ...] = ()

    @classmethod
    def fit(
        cls,
        reading: ConnectomeReading,
        train_rows: ArrayLike,
        *,
        space: Space = "fisher_z",
        covariates: Covariates | None = None,
        harmonise: str = "",
        keep: Sequence[str] = (),
        confounds: Sequence[str] = (),
        unseen: Unseen = "refuse",
        standardise: bool = True,
    ) -> ConnectomePreparation:
        """Learn a preparation from training rows; no other row is looked at, and no label.

        Args:
            reading: Of the whole cohort.
            train_rows: Indices of the training rows, or (n,) bool; rows without a connectome teach nothing.
            space: Where edges live.
            covariates: Of the whole cohort, with the columns that are named below.
            harmonise: The column of sites for ComBat; empty: none.
            keep: Covariates whose effect ComBat keeps. Never the outcome: it is not known of a new patient.
            confounds: Columns that are regressed out.
            unseen: Whether a site or other category that no training row held is refused, or passed through: not
                harmonised, and in the regression at the training average. `remarks` says so of each.
            standardise: Whether edges are standardised.

        Raises:
            StudyError: A setting is impossible.
            CohortError: There are no training rows, a covariate is missing, or a matrix has no place in tangent space.
        """
        _check_settings(space, unseen, harmonise, keep, confounds, covariates)
        if covariates is not None and len(covariates) != len(reading):
            raise CohortError(f"{len(covariates)} rows of covariates", expected=f"{len(reading)}, one a case")
        rows = _indices(train_rows, reading.present)
        train = reading.take(rows)
        beside = covariates.take(rows) if covariates is not None else None
        silent, notes = train.silent, _silent_notes(train)
        whiten = np.zeros((0, 0))
        if space == "tangent":
            _check_definite(train)
            reference, settled = geometric_mean(train.matrices.astype(np.float64))
            whiten = whitening(reference)
            notes += () if settled else ("the geometric mean of the training matrices did not come to rest",)
        edges = _into_space(train, space, whiten)
        missing = _edges_without(silent)
        fill = _mean_where(edges, ~missing)
        edges = np.where(missing, fill, edges)
        combat = Combat.fit(edges, beside, harmonise, keep, unseen) if harmonise and beside is not None else None
        if combat is not None and beside is not None:
            notes += tuple(f"not harmonised, a single training row: {left}" for left in combat.unseen(beside))
            edges = combat.apply(edges, beside, unseen)
        regression = ConfoundRegression.fit(edges, beside, confounds) if confounds and beside is not None else None
        if regression is not None and beside is not None:
            edges = regression.apply(edges, beside)
        mean = _mean_where(edges, ~missing)
        scale = np.sqrt(_mean_where((edges - mean) ** 2, ~missing))
        scale = np.where(scale > 1e-9, scale, 1.0)
        heard = np.asarray(~silent.all(axis=0))
        return cls(
            regions=train.regions,
            holds=train.holds,
            measure=train.measure,
            space=space,
            standardise=standardise,
            unseen=unseen,
            whiten=whiten,
            fill=fill,
            heard=heard,
            combat=combat,
            confounds=regression,
            mean=mean,
            scale=scale,
            notes=notes,
        )

    @property
    def features(self) -> tuple[str, ...]:
        """(edges) names: "insula -- thalamus"."""
        return edge_names(self.regions)

    @property
    def needs(self) -> tuple[str, ...]:
        """The columns that `apply` needs of every case beside its connectome."""
        kept = (self.combat.column, *self.combat.keep.names) if self.combat else ()
        return tuple(dict.fromkeys((*kept, *(self.confounds.coding.names if self.confounds else ()))))

    def kind_of(self, column: str) -> Kind:
        """Return what a column that `apply` needs holds."""
        for coding in (self.combat and self.combat.keep, self.confounds and self.confounds.coding):
            if coding and column in coding.names:
                return "category" if coding.levels[coding.names.index(column)] else "number"
        return "category"

    def read(self, files: Sequence[str | Path | None], place: Callable[[int], str] | None = None) -> ConnectomeReading:
        """Read new files as those that it was fitted on.

        Raises:
            CohortError: A file is wrong, or of another atlas.
        """
        return read_connectomes(files, holds=self.holds, measure=self.measure, regions=self.regions, place=place)

    def apply(self, reading: ConnectomeReading, covariates: Covariates | None = None) -> NDArray[np.float32]:
        """Prepare connectomes. A row comes out the same whatever rows come with it.

        Args:
            reading: Of the same regions as the training rows.
            covariates: Of the same cases, with the columns that `needs` names.

        Returns:
            float32 (n, edges); NaN throughout for a case without a connectome.

        Raises:
            CohortError: The regions are others, a covariate is missing, or a site is unseen and refused.
        """
        if reading.regions != self.regions:
            _refuse_regions(reading.regions, self.regions)
        if self.needs and (covariates is None or len(covariates) != len(reading)):
            came = "no covariates" if covariates is None else f"{len(covariates)} rows of covariates"
            raise CohortError(came, expected=f"{', '.join(self.needs)} of each of {len(reading)} cases")
        prepared = np.full((len(reading), len(self.mean)), np.nan, np.float32)
        rows = np.flatnonzero(reading.present)
        if rows.size:
            beside = covariates.take(rows) if covariates is not None else None
            prepared[rows] = self._prepare(reading.take(rows), beside)
        return prepared

    def remarks(self, covariates: Covariates | None) -> tuple[str, ...]:
        """Say in words what was passed through of these cases because no training row held the like."""
        if covariates is None:
            return ()
        combat = self.combat.unseen(covariates) if self.combat else ()
        confounds = self.confounds.coding.unseen(covariates) if self.confounds else ()
        return (
            *(f"{new}: not among the training rows, not harmonised" for new in combat),
            *(f"{new}: not among the training rows, taken as their average" for new in confounds),
        )

    def baseline(self) -> NDArray[np.float32]:
        """Return the edges that explanations start from, (edges,): the training mean."""
        return (np.zeros_like(self.mean) if self.standardise else self.mean).astype(np.float32)

    def state(self) -> dict[str, Any]:
        """Return what `from_state` needs beside `arrays`, fit for JSON."""
        combat, confounds = self.combat, self.confounds
        return {
            "regions": list(self.regions),
            "holds": self.holds,
            "measure": self.measure,
            "space": self.space,
            "standardise": self.standardise,
            "unseen": self.unseen,
            "combat": combat and {"column": combat.column, "sites": list(combat.sites), "keep": combat.keep.state()},
            "confounds": confounds and confounds.coding.state(),
            "notes": list(self.notes),
        }

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the numbers that `from_state` needs beside `state`: name -> array, of no single patient."""
        found: dict[str, NDArray[Any]] = {name: getattr(self, name) for name in _ARRAYS}
        if self.combat is not None:
            found |= {f"combat.{name}": getattr(self.combat, name) for name in _COMBAT_ARRAYS}
        if self.confounds is not None:
            found["confounds.weights"] = self.confounds.weights
        return found

    @classmethod
    def from_state(cls, state: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> ConnectomePreparation:
        """Read what `state` and `arrays` wrote.

        Raises:
            BundleError: A key is unknown or missing, or a value impossible.
        """
        for key in state:
            if key not in _KEYS:
                raise BundleError(
                    f"the connectome preparation has an unknown key '{key}'", expected=nearest(key, _KEYS)
                )
        wanted = [*_ARRAYS, *(f"combat.{n}" for n in _COMBAT_ARRAYS if state.get("combat"))]
        wanted += ["confounds.weights"] if state.get("confounds") else []
        if missing := [*(key for key in _KEYS if key not in state), *(name for name in wanted if name not in arrays)]:
            raise BundleError(f"the connectome preparation lacks {', '.join(missing)}")
        try:
            made = _from_parts(cls, state, {name: np.array(arrays[name]) for name in wanted})
            made._check()
        except (Refusal, TypeError, ValueError, KeyError, AttributeError) as error:
            came = error.came if isinstance(error, Refusal) else str(error)
            raise BundleError(f"the connectome preparation is impossible: {came}") from error
        return made

    def _prepare(self, reading: ConnectomeReading, covariates: Covariates | None) -> FloatArray:
        """Prepare rows that all have a connectome."""
        if self.space == "tangent":
            _check_definite(reading)
        missing = _edges_without(reading.silent | ~self.heard)
        edges = np.where(missing, self.fill, _into_space(reading, self.space, self.whiten))
        if self.combat is not None and covariates is not None:
            edges = self.combat.apply(edges, covariates, self.unseen)
        if self.confounds is not None and covariates is not None:
            edges = self.confounds.apply(edges, covariates, self.unseen)
        edges = np.where(missing, self.mean, edges)
        return (edges - self.mean) / self.scale if self.standardise else edges

    def _check(self) -> None:
        """Refuse parts, read from a file, that do not fit each other."""
        kept = self.combat.keep.names if self.combat else ()
        names = self.confounds.coding.names if self.confounds else ()
        beside = Covariates({}, ())
        _check_settings(self.space, self.unseen, self.combat.column if self.combat else "", kept, names, beside)
        if self.holds not in HOLDS or self.measure not in MEASURES or not isinstance(self.standardise, bool):
            raise ValueError("a setting is unknown")
        regions = len(self.regions)
        edges = regions * (regions - 1) // 2
        side = regions if self.space == "tangent" else 0
        shapes = {"whiten": (side, side), "fill": (edges,), "heard": (regions,), "mean": (edges,), "scale": (edges,)}
        if self.combat:
            sites, width = len(self.combat.sites), len(self.combat.keep.mean)
            expected = {"mean": (edges,), "weights": (width, edges), "spread": (edges,)}
            expected |= {"shift": (sites, edges), "stretch": (sites, edges)}
            shapes |= {f"combat.{name}": shape for name, shape in expected.items()}
        if self.confounds:
            shapes["confounds.weights"] = (len(self.confounds.coding.mean), edges)
        for name, array in self.arrays().items():
            if array.shape != shapes[name] or not np.isfinite(array).all():
                raise ValueError(f"'{name}' is of shape {array.shape}, not {shapes[name]}, or not finite")
        positive = [self.scale, *((self.combat.spread, self.combat.stretch) if self.combat else ())]
        if any((part <= 0).any() for part in positive):
            raise ValueError("a scale is not above 0")
        if self.combat and (list(self.combat.sites) != sorted(set(self.combat.sites)) or not self.combat.sites):
            raise ValueError("its sites are not in order")


_ARRAYS = ("whiten", "fill", "heard", "mean", "scale")
_COMBAT_ARRAYS = ("mean", "weights", "spread", "shift", "stretch")
_KEYS = ("regions", "holds", "measure", "space", "standardise", "unseen", "combat", "confounds", "notes")


def _from_parts(
    cls: type[ConnectomePreparation], state: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> ConnectomePreparation:
    """Put a preparation together from what was saved."""
    numbers = {name: array.astype(np.float64) for name, array in arrays.items() if name != "heard"}
    combat, confounds = state["combat"], state["confounds"]
    learned = None
    if combat:
        parts = {name: numbers[f"combat.{name}"] for name in _COMBAT_ARRAYS}
        sites = tuple(str(site) for site in combat["sites"])
        learned = Combat(str(combat["column"]), sites, Coding.from_state(combat["keep"]), **parts)
    regression = None
    if confounds:
        regression = ConfoundRegression(Coding.from_state(confounds), numbers["confounds.weights"])
    return cls(
        regions=tuple(str(name) for name in state["regions"]),
        holds=state["holds"],
        measure=state["measure"],
        space=state["space"],
        standardise=state["standardise"],
        unseen=state["unseen"],
        whiten=numbers["whiten"],
        fill=numbers["fill"],
        heard=arrays["heard"].astype(bool),
        mean=numbers["mean"],
        scale=numbers["scale"],
        combat=learned,
        confounds=regression,
        notes=tuple(str(note) for note in state["notes"]),
    )


def _check_settings(
    space: str,
    unseen: str,
    harmonise: str,
    keep: Sequence[str],
    confounds: Sequence[str],
    covariates: Covariates | None,
) -> None:
    """Refuse settings that cannot be meant."""
    if space not in SPACES:
        raise StudyError(f"unknown space '{space}'", expected=nearest(str(space), SPACES))
    if unseen not in UNSEEN:
        raise StudyError(f"unknown unseen '{unseen}'", expected=nearest(str(unseen), UNSEEN))
    if keep and not harmonise:
        raise StudyError(f"keep = {', '.join(keep)} without harmonise", expected="the column of sites to harmonise")
    for name in (*keep, *confounds):
        if name == harmonise:
            do = f"take '{name}' out of keep and confounds"
            raise StudyError(f"'{name}' is harmonised, and in the same breath kept or regressed out", do=do)
    for name in confounds:
        if name in keep:
            raise StudyError(f"'{name}' is to be kept, and to be regressed out", do="decide for one")
    if (harmonise or confounds) and covariates is None:
        raise StudyError("there are no covariates", expected=", ".join(n for n in (harmonise, *keep, *confounds) if n))


def _indices(train_rows: ArrayLike, present: NDArray[np.bool_]) -> IntArray:
    """Turn a mask or indices into the indices of rows that have a connectome, refusing none at all."""
    rows = np.asarray(train_rows)
    if rows.dtype == bool and len(rows) != len(present):
        raise CohortError(f"a mask of {len(rows)} rows", expected=f"{len(present)}, one a case")
    rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
    rows = rows[present[rows]]
    if len(rows) < 2:
        came = f"{len(rows)} training rows with a connectome"
        raise CohortError(came, expected="two or more to prepare connectomes by")
    return rows


def _into_space(reading: ConnectomeReading, space: Space, whiten: FloatArray) -> FloatArray:
    """The edges of rows in their space, (n, edges)."""
    if space == "tangent":
        return edges_of(tangent(reading.matrices.astype(np.float64), whiten))
    edges = edges_of(reading.matrices).astype(np.float64)
    return fisher_z(edges) if space == "fisher_z" else edges


def _check_definite(reading: ConnectomeReading) -> None:
    """Refuse a matrix that has no logarithm."""
    smallest = smallest_eigenvalue(reading.matrices.astype(np.float64))
    i = int(smallest.argmin())
    if smallest[i] <= 1e-6:
        raise CohortError(
            f"the matrix is not positive definite (smallest eigenvalue {smallest[i]:.2g}): no place in tangent space",
            expected="correlations of more time points than regions, or shrunk ones as holds = 'timeseries' makes them",
            do="take space = 'fisher_z', or read the time courses",
            where=reading.sources[i],
        )


def _edges_without(silent: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mark the edges, (n, edges), that touch a region without signal."""
    return edges_of(silent[:, :, None] | silent[:, None, :])


def _mean_where(values: FloatArray, measured: NDArray[np.bool_]) -> FloatArray:
    """The mean over the rows that measured an edge; 0 where none did."""
    return np.asarray(np.where(measured, values, 0.0).sum(axis=0) / np.maximum(measured.sum(axis=0), 1))


def _silent_notes(train: ConnectomeReading) -> tuple[str, ...]:
    """Say which regions have no signal in which share of the training rows."""
    count = train.silent.sum(axis=0)
    said = [f"{train.regions[k]} in {count[k]}" for k in np.flatnonzero(count)]
    if not said:
        return ()
    return (
        f"regions without signal, of {len(train)} training rows: {', '.join(said)}; their edges take the mean there",
    )


def _refuse_regions(came: Sequence[str], expected: Sequence[str]) -> NoReturn:
    """Say how the regions of a reading differ from those of the training rows."""
    if len(came) != len(expected):
        raise CohortError(f"{len(came)} regions", expected=f"{len(expected)}, of the atlas in use")
    k = next(k for k in range(len(came)) if came[k] != expected[k])
    raise CohortError(f"region {k + 1} is {came[k]}", expected=expected[k], do="extract it with the same atlas")
