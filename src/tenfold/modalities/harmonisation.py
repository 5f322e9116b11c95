"""ComBat: takes out of every edge how sites shift and stretch it, borrowing strength across edges.

It must not know files, labels or folds: whoever fits hands over training rows only.

Method: Johnson, Li & Rabinovic, Biostatistics 2007;8:118-127 (parametric priors), on connectomes Yu et al., Hum Brain
Mapp 2018;39:4213-4227. A variant for prediction: everything is learned from training rows, and a new row of a known
site is adjusted by what was learned of that site; nothing is ever learned from the rows that are adjusted. A site that
no training row (or a single one) came from has no estimate: it is refused, or, where declared, passed through as it is.

The outcome is never a covariate to keep: a new patient's is not known, and with it fitted on all rows, edges of pure
noise seem to predict it (Nygaard, Rodland & Hovig, Biostatistics 2016;17:29-39).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tenfold.errors import CohortError
from tenfold.modalities.confounds import Coding, Covariates, Unseen, refuse_unseen, unseen_levels, weighted
from tenfold.types import FloatArray, IntArray, StrArray

_FEWEST = 2
_FEWEST_EDGES = 3
_CONVERGED = 1e-6
_STEPS = 1000


@dataclass(frozen=True, eq=False)
class Combat:
    """What was learned of the sites of training rows.

    Attributes:
        column: The column that names the site.
        sites: Sites with two or more training rows, sorted.
        keep: Covariates whose effect is kept, or an empty coding.
        mean: (edges,) the mean over sites, weighted by their training rows.
        weights: (k, edges) effects of the covariates.
        spread: (edges,) standard deviation within sites; 1 where an edge does not vary, which is left as it is.
        shift: (sites, edges) posterior mean of each site's shift, in units of `spread`.
        stretch: (sites, edges) posterior variance ratio of each site.
    """

    column: str
    sites: tuple[str, ...]
    keep: Coding
    mean: FloatArray
    weights: FloatArray
    spread: FloatArray
    shift: FloatArray
    stretch: FloatArray

    @classmethod
    def fit(
        cls, edges: FloatArray, covariates: Covariates, column: str, keep: Sequence[str] = (), unseen: Unseen = "refuse"
    ) -> Combat:
        """Learn the sites of training rows.

        Args:
            edges: (n, edges) of training rows.
            covariates: Of the same rows.
            column: The column that names the site.
            keep: Covariates whose effect is kept: known of a new patient too, so never the outcome.
            unseen: With "pass", the rows of a site with a single training row are left out; "refuse" refuses them.

        Raises:
            CohortError: There are fewer than two sites or too few edges or rows, a site has a single row, or the site
                tells a covariate to keep.
        """
        site = _text(covariates, column)
        names, counts = np.unique(site, return_counts=True)
        sites = tuple(names[counts >= _FEWEST].tolist())
        if unseen == "refuse" and len(sites) < len(names):
            alone = names[counts < _FEWEST][0]
            raise CohortError(
                f"{column} '{alone}' has a single training row",
                expected=f"{_FEWEST} or more: its spread is estimated",
                do="join it with another site, leave it out, or declare unseen = 'pass', which passes it through",
                where=covariates.sources[int(np.flatnonzero(site == alone)[0])],
            )
        if len(sites) < 2 or edges.shape[1] < _FEWEST_EDGES:
            raise CohortError(
                f"{len(sites)} sites with {_FEWEST} training rows or more, {edges.shape[1]} edges",
                expected=f"two sites and {_FEWEST_EDGES} edges: sites are compared, and priors learned over edges",
                do="do without harmonisation",
            )
        rows = np.flatnonzero(np.isin(site, sites))
        edges, covariates = edges[rows], covariates.take(rows)
        member = (site[rows][:, None] == np.array(sites)).astype(np.float64)
        coding = Coding.fit(covariates, keep)
        design = np.concatenate([member, coding.apply(covariates)], axis=1)
        _check_design(design, len(sites), column, keep)
        effects = np.linalg.lstsq(design, edges, rcond=None)[0]
        mean = (member.sum(axis=0) / len(rows)) @ effects[: len(sites)]
        weights = np.asarray(effects[len(sites) :])
        spread = np.sqrt(((edges - design @ effects) ** 2).mean(axis=0))
        fixed = spread <= 1e-9 * np.maximum(1.0, np.abs(mean))
        spread = np.where(fixed, 1.0, spread)
        scaled = (edges - mean - weighted(design[:, len(sites) :], weights)) / spread
        shift, stretch = np.zeros((len(sites), len(mean))), np.ones((len(sites), len(mean)))
        for k in range(len(sites)):
            shift[k, ~fixed], stretch[k, ~fixed] = _posterior(scaled[member[:, k] == 1][:, ~fixed])
        return cls(column, sites, coding, mean, weights, spread, shift, stretch)

    def apply(self, edges: FloatArray, covariates: Covariates, unseen: Unseen = "refuse") -> FloatArray:
        """Adjust rows by what was learned of their sites.

        Args:
            edges: (n, edges).
            covariates: Of the same rows, with the column of sites and the covariates to keep.
            unseen: Whether a row of an unknown site is refused, or passed through as it is.

        Returns:
            (n, edges).

        Raises:
            CohortError: A site is unknown and refused, or a covariate is missing or of an unknown category.
        """
        site = _text(covariates, self.column)
        index = np.searchsorted(self.sites, site).clip(max=len(self.sites) - 1).astype(np.int64)
        known = np.asarray(self.sites)[index] == site
        if not known.all() and unseen == "refuse":
            refuse_unseen(self.column, covariates, int(known.argmin()), self.sites)
        adjusted = edges.copy()
        rows = np.flatnonzero(known)
        adjusted[rows] = self._adjust(edges[rows], covariates.take(rows), index[rows])
        return adjusted

    def unseen(self, covariates: Covariates) -> tuple[str, ...]:
        """Say in words which sites are passed through, "site 'X' (3 cases)"."""
        return tuple(unseen_levels(self.column, covariates, self.sites))

    def _adjust(self, edges: FloatArray, covariates: Covariates, index: IntArray) -> FloatArray:
        kept = self.mean + weighted(self.keep.apply(covariates), self.weights)
        scaled = (edges - kept) / self.spread
        return (scaled - self.shift[index]) / np.sqrt(self.stretch[index]) * self.spread + kept


def _posterior(scaled: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The posterior shift and variance of one site for all edges at once: a normal and an inverse gamma prior.

    Args:
        scaled: (n of the site, edges) standardised.

    Returns:
        (edges,) shift and (edges,) variance, iterated until no edge changes.
    """
    n = len(scaled)
    mean, variance = scaled.mean(axis=0), scaled.var(axis=0, ddof=1)
    middle, width = mean.mean(), mean.var(ddof=1)
    v_mean, v_width = variance.mean(), max(float(variance.var(ddof=1)), 1e-12)
    shape = 2 + v_mean**2 / v_width
    rate = v_mean + v_mean**3 / v_width
    shift, stretch = mean, variance
    for _ in range(_STEPS):
        new_shift = (n * width * mean + stretch * middle) / (n * width + stretch)
        squares = (n - 1) * variance + n * (mean - new_shift) ** 2
        new_stretch = (rate + squares / 2) / (n / 2 + shape - 1)
        change = max(np.abs(new_shift - shift).max(), np.abs(new_stretch - stretch).max())
        shift, stretch = new_shift, new_stretch
        if change < _CONVERGED:
            break
    return shift, stretch


def _check_design(design: FloatArray, sites: int, column: str, keep: Sequence[str]) -> None:
    """Refuse what cannot be told apart."""
    if len(design) <= design.shape[1]:
        raise CohortError(
            f"{len(design)} training rows for {sites} sites and {design.shape[1] - sites} numbers of covariates",
            expected="more rows than that",
            do="join sites, keep fewer covariates, or do without harmonisation",
        )
    if np.linalg.matrix_rank(design) < design.shape[1]:
        raise CohortError(
            f"the {column} tells {', '.join(keep)} among the training rows: what is to be kept cannot be told from it",
            expected="covariates that vary within sites",
            do="keep fewer covariates",
        )


def _text(covariates: Covariates, column: str) -> StrArray:
    """The sites, as text."""
    values = covariates.known(column)
    if values.dtype.kind == "f":
        raise CohortError(f"{column} was read as a number", expected="a category", do="read it as a category")
    return values.astype(np.str_)
