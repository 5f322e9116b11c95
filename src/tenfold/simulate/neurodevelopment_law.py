"""The law of simulated connectomes and Bayley scores: linear, Gaussian, its best predictions known exactly.

It must not know files, patients, sites or ages.

The edges of a connectome, in Fisher's z, are a mean, covariates, nuisances, and eight factors with loadings of equal
length on top of independent noise. Mean, covariates and nuisances are orthogonal to the loadings, so that they neither
help nor hinder a reader who knows the loadings. Loadings are dense: no edge tells anything by itself, and 33 infants
are too few to find them among 4,005 edges, while hundreds of others, who have the same loadings, are enough.

Adults and neonates share one set of loadings. Infants have `transfer` times these, and for the rest others of their
own: at 1 what was learned before fits, at 0 it is of no use. Ceilings do not depend on it. Three factors matter for
outcome, and one direction among them decides who of the adults is autistic.

A standardised score is a sum of factors, clinical values and a residual; clinical values are independent of factors.
The scores correlate as those of 725 children of the dHCP did (systems.md, section 2.4), and so do the parts that the
connectome predicts; the residual takes what is left. The clinical part is no Gaussian, so that the AUC of a score
below the cut is an integral over a mixture of Gaussians, by the trapezoidal rule.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import integrate, optimize, special

from tenfold.errors import StudyError, nearest
from tenfold.types import FloatArray, IntArray

TARGETS = ("cognitive", "language", "motor")
INPUTS = ("connectome", "clinical", "both")
PRESETS = {"paper": (0.70, 0.35, 0.65), "realistic": (0.45, 0.45, 0.45)}
"""Correlation of the best prediction, from connectome and clinical values, with each score."""
CORRELATIONS: FloatArray = np.array([[1.0, 0.63, 0.58], [0.63, 1.0, 0.51], [0.58, 0.51, 1.0]])
CUT, SCORE_SD = 85.0, 15.0
CLINICAL_SHARE = 0.2
"""Part of the predictable variance of a score that clinical values carry."""
FACTORS, _OUTCOME_FACTORS = 8, 3
EDGE_NOISE = 0.2
"""SD of an edge but for all that is common, Fisher's z; ABIDE's edges have 0.22 in all."""
SIGNAL = 16.0
"""Variance of a factor along its loadings, in variances of the noise, at 4,005 edges."""
_REFERENCE_EDGES = 4005
AUTISM_SHARE, AUTISM_R = 408 / 884, 0.6
"""How many adults are autistic, and how well edges tell the liability: AUC 0.78, the most that ABIDE gave fairly."""
NETWORKS = ("visual", "sensorimotor", "auditory", "default", "frontoparietal", "salience", "limbic")
_WORLD = 20_200_901
"""The world is the same whatever the seed of a cohort, so that a model of one cohort may be tried on another."""


@dataclass(frozen=True)
class Predictor:
    """A clinical column with few values, of which the scores know.

    Attributes:
        name: The column.
        values: It can take, as numbers.
        shares: How often.
        weights: On the standardised value, for each target, before scaling.
    """

    name: str
    values: tuple[float, ...]
    shares: tuple[float, ...]
    weights: tuple[float, float, float]

    @property
    def standardised_values(self) -> FloatArray:
        """The values with mean 0 and SD 1."""
        values, shares = np.array(self.values), np.array(self.shares)
        centred = values - shares @ values
        return np.asarray(centred / math.sqrt(shares @ centred**2))


PREDICTORS = (
    Predictor("male", (0, 1), (0.49, 0.51), (-0.5, -0.6, -0.4)),
    Predictor("antenatal_steroids", (0, 1), (0.15, 0.85), (0.35, 0.3, 0.3)),
    Predictor("maternal_education", (0, 1, 2), (0.25, 0.45, 0.30), (0.7, 0.9, 0.3)),
    Predictor("apgar5", (4, 5, 6, 7, 8, 9, 10), (0.02, 0.04, 0.07, 0.17, 0.35, 0.28, 0.07), (0.3, 0.2, 0.4)),
    Predictor("inotropes", (0, 1), (0.80, 0.20), (-0.4, -0.3, -0.5)),
    Predictor("bpd", (0, 1), (0.936, 0.064), (-0.5, -0.4, -0.6)),
    Predictor("postnatal_steroids", (0, 1), (0.95, 0.05), (-0.4, -0.3, -0.5)),
)
"""Those of Linsell et al. (JAMA Pediatr 2015); frequencies of Sci Rep 2023;13:21825 where it has them."""
_BIRTH_WEIGHT = (0.6, 0.5, 0.7)
"""Weights of the logarithm of birth weight, the one Gaussian clinical value; it comes last."""


@dataclass(frozen=True, eq=False)
class Mixture:
    """Gaussians of one SD about several means.

    Attributes:
        means: (m,).
        shares: (m,), adding to 1.
        sd: Of each.
    """

    means: FloatArray
    shares: FloatArray
    sd: float

    def density(self, at: FloatArray) -> FloatArray:
        """Return the density, (n,)."""
        away = (at[:, None] - self.means) / self.sd
        return np.asarray(np.exp(-0.5 * away**2) @ self.shares / (self.sd * math.sqrt(2 * math.pi)))

    def below(self, at: FloatArray) -> FloatArray:
        """Return the probability of being below, (n,)."""
        return np.asarray(special.ndtr((np.asarray(at)[:, None] - self.means) / self.sd) @ self.shares)


def gaussian(variance: float) -> Mixture:
    """Return a Gaussian with mean 0."""
    return Mixture(np.zeros(1), np.ones(1), math.sqrt(variance))


def auc_below(predicted: Mixture, rest: Mixture, cut: float) -> float:
    """Return the AUC of a prediction for the event prediction + rest < cut, the rest independent of the prediction.

    A low prediction speaks for the event. By the trapezoidal rule on 1,201 points within 8 SD; where both parts are
    Gaussian, the AUC depends on their correlation and the prevalence alone (systems.md, section 2.4).
    """
    reach = 8 * predicted.sd
    at = np.linspace(predicted.means.min() - reach, predicted.means.max() + reach, 1201)
    density, chance = predicted.density(at), rest.below(cut - at)
    event, other = density * chance, density * (1 - chance)
    other_below = integrate.cumulative_trapezoid(other, at, initial=0)
    concordant = integrate.trapezoid(event * (other_below[-1] - other_below), at)
    return float(concordant / (integrate.trapezoid(event, at) * other_below[-1]))


@dataclass(frozen=True, eq=False)
class Law:
    """All that can be drawn, and the best that can be said of it.

    Attributes:
        regions: Of the atlas; edges are the upper triangle, row by row.
        transfer: Cosine between the loadings of infants and those that adults and neonates share.
        signal: Variance of a factor along its loadings, in variances of the edge noise.
        basis: Orthonormal, (edges, 16): what anybody's loadings are made of.
        shared: Loadings of adults and neonates, (edges, 8), Fisher's z a SD of the factor.
        infants: Loadings of infants, (edges, 8).
        outcome: What a SD of each factor adds to the standardised scores, (3, 8).
        clinical: What a SD of each clinical value adds, (3, 8): `PREDICTORS`, then the logarithm of birth weight.
        residual: Covariance of what nothing predicts, (3, 3).
        r: Correlation of the best prediction with each score, input -> (3,).
    """

    regions: int
    transfer: float
    signal: float
    basis: FloatArray
    shared: FloatArray
    infants: FloatArray
    outcome: FloatArray
    clinical: FloatArray
    residual: FloatArray
    r: dict[str, FloatArray]

    @classmethod
    def of(cls, regions: int = 90, transfer: float = 0.8, r: str | Sequence[float] = "paper") -> Law:
        """Make a world.

        Args:
            regions: At least 10. The signal goes with the square root of the number of edges: as hard at any size.
            transfer: 0 to 1.
            r: A preset, or three correlations, in [0.05, 0.95], of scores with their best predictions from both inputs.

        Raises:
            StudyError: An unknown preset, a value out of range, or correlations that three scores that are correlated
                as these are cannot have.
        """
        wanted = np.array(_wanted(r))
        if not (regions >= 10 and 0 <= transfer <= 1):
            raise StudyError(
                f"regions = {regions}, transfer = {transfer}",
                expected="at least 10 regions, transfer from 0 to 1",
                where="simulate neurodevelopment",
            )
        edges = edge_count(regions)
        signal = SIGNAL * math.sqrt(edges / _REFERENCE_EDGES)
        connectome, clinical = wanted * math.sqrt(1 - CLINICAL_SHARE), wanted * math.sqrt(CLINICAL_SHARE)
        outcome = np.zeros((len(TARGETS), FACTORS))
        # The factors are not seen but through the noise: their true part must exceed what can be predicted.
        outcome[:, :_OUTCOME_FACTORS] = connectome[:, None] * np.linalg.cholesky(CORRELATIONS)
        outcome *= math.sqrt((1 + signal) / signal)
        weights = np.column_stack([*(p.weights for p in PREDICTORS), _BIRTH_WEIGHT])
        weights *= (clinical / np.linalg.norm(weights, axis=1))[:, None]
        residual = CORRELATIONS - outcome @ outcome.T - weights @ weights.T
        if np.linalg.eigvalsh(residual)[0] < 1e-6:
            raise StudyError(
                f"r = {', '.join(f'{x:g}' for x in wanted)}",
                expected="correlations that leave the residuals of three correlated scores a covariance",
                do="bring them nearer to each other, or further from 1",
                where="simulate neurodevelopment",
            )
        drawn = network_patterns(regions, 2 * FACTORS, np.random.default_rng([_WORLD, regions]))
        basis = np.linalg.qr(drawn)[0]
        shared, own = np.split(basis * EDGE_NOISE * math.sqrt(signal), 2, axis=1)
        infants = transfer * shared + math.sqrt(1 - transfer**2) * own
        reached = dict(zip(INPUTS, (connectome, clinical, wanted), strict=True))
        return cls(regions, transfer, signal, basis, shared, infants, outcome, weights, residual, reached)

    def draw_residuals(self, standard: FloatArray) -> FloatArray:
        """Give standard normal values, (n, 3), the covariance of the residuals."""
        return np.asarray(standard @ np.linalg.cholesky(self.residual).T)

    def orthogonal(self, patterns: FloatArray) -> FloatArray:
        """Take from patterns of edges, (edges, m), all that lies in the loadings of anybody; columns of length 1."""
        left = patterns - self.basis @ (self.basis.T @ patterns)
        return np.asarray(left / np.linalg.norm(left, axis=0))

    def factors(self, edges: FloatArray, *, infants: bool = True) -> FloatArray:
        """Return E[factors | edges], (n, 8).

        Args:
            edges: Fisher's z less the mean, (n, edges); covariates and nuisances may be in it.
            infants: Whose loadings to read with.
        """
        loadings = self.infants if infants else self.shared
        return np.asarray(edges @ loadings / (EDGE_NOISE**2 * (1 + self.signal)))

    def expected(self, edges: FloatArray, clinical: FloatArray) -> dict[str, FloatArray]:
        """Return E[standardised scores | input], input -> (n, 3).

        Args:
            edges: Of infants, as in `factors`.
            clinical: Standardised values in the order of `clinical`, (n, 8).
        """
        connectome, table = self.factors(edges) @ self.outcome.T, clinical @ self.clinical.T
        return dict(zip(INPUTS, (connectome, table, connectome + table), strict=True))

    def cuts(self, prevalence: float) -> FloatArray:
        """Return below which standardised score so many infants are, (3,)."""
        return np.array([self._cut(t, prevalence) for t in range(len(TARGETS))])

    def ceilings(self, prevalence: float) -> dict[str, dict[str, dict[str, float]]]:
        """Return what no prediction can exceed: input -> target -> {"r", "auc"}, the AUC of a score below the cut."""
        cuts = self.cuts(prevalence).tolist()
        return {
            name: {
                target: {"r": float(self.r[name][t]), "auc": auc_below(*self._parts(name, t), cuts[t])}
                for t, target in enumerate(TARGETS)
            }
            for name in INPUTS
        }

    def chance_below(self, expected: FloatArray, prevalence: float) -> FloatArray:
        """Return P(score < cut | connectome, clinical), (n, 3), from the expectation given both."""
        return np.asarray(special.ndtr((self.cuts(prevalence) - expected) / np.sqrt(1 - self.r["both"] ** 2)))

    @property
    def autism_direction(self) -> FloatArray:
        """What a SD of each factor adds to the liability of autism, (8,): what lowers the scores of infants."""
        direction = -self.outcome.sum(0)
        return np.asarray(direction * AUTISM_R * math.sqrt((1 + self.signal) / self.signal) / np.linalg.norm(direction))

    def draw_autism(self, factors: FloatArray, standard: FloatArray) -> NDArray[np.bool_]:
        """Say who is autistic, from factors (n, 8) and standard normal values (n,)."""
        direction = self.autism_direction
        liability = factors @ direction + math.sqrt(1 - direction @ direction) * standard
        return np.asarray(liability > -special.ndtri(AUTISM_SHARE))

    def _cut(self, target: int, prevalence: float) -> float:
        known = self._clinical_mixture(target)
        whole = Mixture(known.means, known.shares, math.sqrt(1 - _variance(known)))
        return float(optimize.brentq(lambda c: whole.below(np.array([c]))[0] - prevalence, -6.0, 6.0, xtol=1e-12))

    def _parts(self, name: str, target: int) -> tuple[Mixture, Mixture]:
        """Divide a score into the prediction from an input, and the rest."""
        seen = float(self.r[name][target]) ** 2
        if name == "connectome":
            known = self._clinical_mixture(target)
            return gaussian(seen), Mixture(known.means, known.shares, math.sqrt(1 - seen - _variance(known)))
        known = self._clinical_mixture(target)
        return Mixture(known.means, known.shares, math.sqrt(seen - _variance(known))), gaussian(1 - seen)

    def _clinical_mixture(self, target: int) -> Mixture:
        """List every combination of the predictors with few values; the SD is not theirs to say."""
        means, shares = np.zeros(1), np.ones(1)
        for predictor, weight in zip(PREDICTORS, self.clinical[target], strict=False):
            means = np.add.outer(means, weight * predictor.standardised_values).ravel()
            shares = np.multiply.outer(shares, predictor.shares).ravel()
        return Mixture(means, shares, 0.0)


@cache
def autism_ceiling() -> float:
    """Return the AUC of the best reader of adults' edges."""
    return auc_below(gaussian(AUTISM_R**2), gaussian(1 - AUTISM_R**2), float(special.ndtri(AUTISM_SHARE)))


def edge_count(regions: int) -> int:
    """Return how many pairs of regions there are."""
    return regions * (regions - 1) // 2


def network_of(regions: int) -> IntArray:
    """Return the network of each region, (regions,); neighbours 2i and 2i + 1 are left and right of the same."""
    pair = np.arange(regions) // 2
    return np.asarray(pair * len(NETWORKS) // (pair[-1] + 1), np.int64)


def network_patterns(regions: int, count: int, rng: np.random.Generator) -> FloatArray:
    """Draw patterns of edges, (edges, count), half of whose variance is common to two networks' edges."""
    first, second = np.triu_indices(regions, 1)
    network = network_of(regions)
    blocks = rng.standard_normal((len(NETWORKS), len(NETWORKS), count))
    blocks = (blocks + blocks.transpose(1, 0, 2)) / math.sqrt(2)
    return np.asarray(blocks[network[first], network[second]] + rng.standard_normal((len(first), count)))


def _variance(mixture: Mixture) -> float:
    return float(mixture.shares @ mixture.means**2)


def _wanted(r: str | Sequence[float]) -> Sequence[float]:
    if isinstance(r, str):
        if r not in PRESETS:
            raise StudyError(f"unknown preset '{r}'", do=nearest(r, PRESETS), where="simulate neurodevelopment")
        return PRESETS[r]
    if len(r) != len(TARGETS) or not all(0.05 <= x <= 0.95 for x in r):
        raise StudyError(
            f"r = {', '.join(f'{x:g}' for x in r)}",
            expected=f"a correlation for each of {', '.join(TARGETS)}, from 0.05 to 0.95",
            where="simulate neurodevelopment",
        )
    return r
