"""The law of simulated necrotising enterocolitis: stages, laboratory values, film signs, missing values, and Bayes.

It must not know films, files or patients.

A newborn is of stage 0 (no NEC) or, with NEC, of Bell stage I, II or III. Everything observed is drawn given the stage:

- fifteen laboratory values are Gaussian on their own or a logarithmic scale, with one common factor (inflammation);
  NEC shifts their means by severity of the stage times the shift of stage II;
- seven film signs are independent;
- which panels were not measured is a pattern of which at most 30 % of the 25 measured cells are empty; for some
  panels the chance that it is missing falls with the stage, so that the pattern itself tells something.

The three are independent given the stage. Hence the posterior is a sum over the stages, exact, and the Gaussian of the
values that were measured is a marginal of the whole. The remaining twelve of the 27 values follow from the fifteen, or
from them and chance that does not know the stage: they add nothing. The figures are those of the design's script; their
sources are named there. Gestational age, sex and weight stay outside: they are no part of the law.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from tenfold.errors import StudyError, nearest
from tenfold.simulate.abdomen import SIGNS
from tenfold.types import FloatArray, IntArray

Missing = Literal["none", "random", "realistic"]
Crp = Literal["rising", "fulminant_low"]

STAGES = ("0", "I", "II", "III")
STAGE_SHARES = (0.35, 0.45, 0.20)
"""Of I, II and III among newborns with NEC."""
SEVERITY = (0.0, 0.45, 1.0, 1.7)
MOST_MISSING = 0.30
_SPARSER_PER_STAGE = -0.6
"""Logit of not being measured, a stage."""
_FULMINANT_CRP = -0.2
"""Mean of CRP in stage III, in SD, where the sickest have a low one."""
_DRAWS = 40_000


@dataclass(frozen=True)
class Drawn:
    """One of the fifteen values that carry information.

    Attributes:
        name: The column.
        mean: Without NEC, on the value's scale.
        sd: Within a stage.
        shift: Of the mean in stage II.
        loading: On the common factor.
        log: Whether the scale is the natural logarithm.
        bend: Below it a value approaches 0 exponentially in place of crossing it; NaN: never.
        ceiling: The same above, for a percentage: values approach it from `ceiling - bend` on.
    """

    name: str
    mean: float
    sd: float
    shift: float
    loading: float
    log: bool = False
    bend: float = math.nan
    ceiling: float = math.nan

    def reported(self, z: FloatArray) -> FloatArray:
        """Return the value a laboratory reports for a standardised one, any shape."""
        value = self.mean + self.sd * z
        if self.log:
            return np.exp(value)
        if math.isnan(self.bend):
            return value
        value = _bent(value, self.bend)
        return value if math.isnan(self.ceiling) else self.ceiling - _bent(self.ceiling - value, self.bend)

    def standardised(self, value: FloatArray) -> FloatArray:
        """Undo `reported`; NaN stays NaN."""
        if self.log:
            value = np.log(value)
        elif not math.isnan(self.bend):
            if not math.isnan(self.ceiling):
                value = self.ceiling - _straightened(self.ceiling - value, self.bend)
            value = _straightened(value, self.bend)
        return (value - self.mean) / self.sd


DRAWN = (
    Drawn("crp", math.log(1.2), 1.05, 1.30, 0.6, log=True),
    Drawn("pct", math.log(0.35), 1.0, 0.70, 0.6, log=True),
    Drawn("il6", math.log(10), 1.1, 0.90, 0.6, log=True),
    Drawn("platelets", 250, 80, -45, -0.2, bend=60),
    Drawn("wbc", math.log(10.8), 0.38, -0.12, 0.2, log=True),
    Drawn("neutrophil_percent", 50, 15, -5, 0.2, bend=15, ceiling=100),
    Drawn("haemoglobin", 150, 24, -10, 0.0),
    Drawn("transferrin", 1.20, 0.35, -0.30, -0.3, bend=0.3),
    Drawn("total_protein", 50.5, 6.5, -3, -0.2),
    Drawn("albumin", 30, 4, -2.5, -0.3),
    Drawn("ph", 7.36, 0.06, -0.035, -0.3),
    Drawn("base_excess", -2.5, 3, -2.0, -0.4),
    Drawn("lactate", math.log(1.0), 0.5, 0.30, 0.4, log=True),
    Drawn("glucose", math.log(4.6), 0.3, 0.15, 0.2, log=True),
    Drawn("sodium", 137.5, 3, -1.5, -0.1),
)
NAMES = tuple(d.name for d in DRAWN)
EIGHT = ("crp", "pct", "neutrophil_percent", "platelets", "il6", "wbc", "transferrin", "total_protein")
"""The eight tests that Cui et al. kept."""
_EIGHT = [NAMES.index(name) for name in EIGHT]

SIGN_SHARES: FloatArray = np.array(
    [
        [0.15, 0.02, 0.04, 0.01, 0.002, 0.001, 0.02],
        [0.55, 0.06, 0.15, 0.06, 0.01, 0.001, 0.03],
        [0.80, 0.18, 0.40, 0.55, 0.15, 0.004, 0.10],
        [0.85, 0.35, 0.50, 0.55, 0.25, 0.35, 0.30],
    ]
)
"""(stage, sign), the signs in the order of `SIGNS`."""


@dataclass(frozen=True)
class Panel:
    """Values that are measured together or not at all.

    Attributes:
        columns: What is measured, derived values included.
        missing: How often it is not, where one half has NEC and before those who miss more than 30 % are left out.
        informative: Whether the well are spared it more often than the sick.
    """

    columns: tuple[str, ...]
    missing: float
    informative: bool

    @property
    def measured(self) -> int:
        """How many of its values are measured, and not ratios of others."""
        return len([name for name in self.columns if name not in ("nlr", "plr")])


PANELS = (
    Panel(("crp",), 0.05, True),
    Panel(("pct",), 0.25, True),
    Panel(("il6",), 0.40, True),
    Panel(("transferrin",), 0.50, True),
    Panel(("total_protein", "albumin"), 0.12, True),
    Panel(("ph", "pco2", "base_excess", "bicarbonate", "lactate"), 0.15, True),
    Panel(("neutrophils", "neutrophil_percent", "lymphocytes", "monocytes", "nlr", "plr"), 0.03, False),
    Panel(("creatinine", "bilirubin", "alt"), 0.12, False),
    Panel(("glucose", "sodium", "potassium"), 0.10, False),
)
"""What may be missing. White cells, platelets and haemoglobin never are: without them nobody is included."""
MEASURED = 25
"""Of the 27 values; the other two are ratios."""


@dataclass(frozen=True, eq=False)
class Law:
    """All probabilities of one simulated world.

    Attributes:
        means: Standardised means, (4 stages, 15).
        covariance: Within a stage, (15, 15).
        patterns: Which panels are missing in each pattern there can be, (patterns, panels).
        pattern_shares: How often, (4 stages, patterns).
    """

    means: FloatArray
    covariance: FloatArray
    patterns: NDArray[np.bool_]
    pattern_shares: FloatArray

    @classmethod
    def of(cls, missing: str = "realistic", crp: str = "rising") -> Law:
        """Make a world.

        Args:
            missing: "none", "random" (the same whatever the stage) or "realistic" (falls with the stage).
            crp: "rising" with the stage, or "fulminant_low": low in stage III, as in fulminant NEC.

        Raises:
            StudyError: An unknown word.
        """
        for word, known in ((missing, ("none", "random", "realistic")), (crp, ("rising", "fulminant_low"))):
            if word not in known:
                raise StudyError(f"unknown '{word}'", do=nearest(word, known), where="simulate nec")
        loading = np.array([d.loading for d in DRAWN])
        covariance = np.outer(loading, loading)
        np.fill_diagonal(covariance, 1.0)
        means = np.outer(SEVERITY, [d.shift / d.sd for d in DRAWN])
        if crp == "fulminant_low":
            means[3, NAMES.index("crp")] = _FULMINANT_CRP
        return cls(means, covariance, *_patterns(missing))

    def draw_stages(self, ill: NDArray[np.bool_], rng: np.random.Generator) -> IntArray:
        """Draw a stage for everybody: 0 for the well, I to III for the ill, (n,)."""
        return np.where(ill, 1 + rng.choice(3, len(ill), p=STAGE_SHARES), 0)

    def draw_labs(self, stage: IntArray, rng: np.random.Generator) -> FloatArray:
        """Draw the fifteen standardised values, (n, 15)."""
        factor = np.linalg.cholesky(self.covariance)
        return self.means[stage] + rng.standard_normal((len(stage), len(DRAWN))) @ factor.T

    def draw_signs(self, stage: IntArray, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Draw the seven signs, (n, 7)."""
        return rng.random((len(stage), len(SIGNS))) < SIGN_SHARES[stage]

    def draw_missing(self, stage: IntArray, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Draw which panels are missing, (n, panels)."""
        before = np.cumsum(self.pattern_shares[:, :-1], axis=1)
        chance, which = rng.random(len(stage)), np.zeros(len(stage), np.int64)
        for s in range(len(STAGES)):
            which[stage == s] = np.searchsorted(before[s], chance[stage == s])
        return self.patterns[which]

    def labs_evidence(self, z: FloatArray, use: Sequence[int] = range(len(DRAWN))) -> FloatArray:
        """Return log density given each stage less that given stage 0, (n, 4).

        Args:
            z: Standardised values, (n, 15); NaN: not measured, integrated out.
            use: Which of the fifteen to look at.
        """
        evidence = np.zeros((len(z), len(STAGES)))
        seen = np.isfinite(z) & np.isin(np.arange(len(DRAWN)), use)
        codes = _codes(seen)
        for code in np.unique(codes).tolist():
            rows = np.flatnonzero(codes == code)
            kind = np.flatnonzero(seen[rows[0]])
            mean = self.means[:, kind]
            slope = np.linalg.solve(self.covariance[np.ix_(kind, kind)], mean.T)
            evidence[rows] = z[np.ix_(rows, kind)] @ slope - 0.5 * np.einsum("sj,js->s", mean, slope)
        return evidence

    def signs_evidence(self, signs: NDArray[np.bool_]) -> FloatArray:
        """Return log probability of the signs (n, 7) given each stage less that given stage 0, (n, 4)."""
        log = signs @ special.logit(SIGN_SHARES).T + np.log1p(-SIGN_SHARES).sum(1)
        return np.asarray(log - log[:, :1])

    def missing_evidence(self, missing: NDArray[np.bool_]) -> FloatArray:
        """Return log probability of missing panels (n, panels) given each stage less that given stage 0, (n, 4).

        A pattern that cannot be, as of a newborn who is not eligible, says nothing.
        """
        evidence = np.zeros((2 ** len(PANELS), len(STAGES)))
        evidence[_codes(self.patterns)] = np.log(self.pattern_shares / self.pattern_shares[0]).T
        return evidence[_codes(missing)]


def log_odds(evidence: FloatArray, prevalence: float = 0.5) -> FloatArray:
    """Return the logit of P(NEC), (n,), from the evidence for each stage, (n, 4): the sum over the stages."""
    ill = special.logsumexp(evidence[:, 1:] + np.log(STAGE_SHARES), axis=1)
    return np.asarray(ill - evidence[:, 0] + special.logit(prevalence))


@dataclass(frozen=True)
class LogOdds:
    """The exact log-odds of NEC of some newborns, (n,) each.

    Attributes:
        eight_labs: From the eight tests, nothing missing.
        labs: From all values, nothing missing.
        signs: From the film's signs.
        fused: From values and signs, nothing missing.
        eight_labs_observed: From those of the eight tests that were measured, and from which panels were.
        labs_observed: From the values that were measured, and from which were.
        fused_observed: From these and the signs.
    """

    eight_labs: FloatArray
    labs: FloatArray
    signs: FloatArray
    fused: FloatArray
    eight_labs_observed: FloatArray
    labs_observed: FloatArray
    fused_observed: FloatArray

    @classmethod
    def of(
        cls,
        law: Law,
        z: FloatArray,
        signs: NDArray[np.bool_],
        missing: NDArray[np.bool_],
        prevalence: float = 0.5,
    ) -> LogOdds:
        """Apply Bayes' rule.

        Args:
            law: The world.
            z: Standardised values, none missing, (n, 15).
            signs: (n, 7).
            missing: Panels that were not measured, (n, panels).
            prevalence: Of NEC.
        """
        seen = np.where(hidden(missing), np.nan, z)
        film, pattern = law.signs_evidence(signs), law.missing_evidence(missing)
        labs, labs_seen = law.labs_evidence(z), law.labs_evidence(seen) + pattern
        parts = (
            law.labs_evidence(z, _EIGHT),
            labs,
            film,
            labs + film,
            law.labs_evidence(seen, _EIGHT) + pattern,
            labs_seen,
            labs_seen + film,
        )
        return cls(*(log_odds(part, prevalence) for part in parts))


def hidden(missing: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Say which of the fifteen values (n, 15) the missing panels (n, panels) take away."""
    belongs = np.array([[name in panel.columns for name in NAMES] for panel in PANELS])
    return missing @ belongs


@cache
def ceilings(missing: str = "realistic", crp: str = "rising") -> dict[str, dict[str, float]]:
    """Return the AUC of every exact posterior, by Monte Carlo with 40,000 newborns a class (standard error 0.001).

    Returns:
        Name of a posterior as in `LogOdds` -> {"auc", "balanced_accuracy", "auc_I", "auc_II", "auc_III"}.
    """
    law, rng = Law.of(missing, crp), np.random.default_rng(0)
    ill = np.arange(2 * _DRAWS) < _DRAWS
    stage = law.draw_stages(ill, rng)
    found = LogOdds.of(law, law.draw_labs(stage, rng), law.draw_signs(stage, rng), law.draw_missing(stage, rng))
    return {name: _figures(score, ill, stage) for name, score in vars(found).items()}


def auc(score: FloatArray, ill: NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve, ties counting half."""
    n = int(ill.sum())
    return float((stats.rankdata(score)[ill].sum() - n * (n + 1) / 2) / (n * (len(ill) - n)))


def reader_noise(wanted: float, missing: str, crp: str) -> float:
    """Return the SD of the noise that brings the AUC of the best reader of labs and film down to what is wanted."""
    best, ill, grain = _reference(missing, crp)
    return float(optimize.brentq(lambda sd: auc(best + sd * grain, ill) - wanted, 0.0, 100.0, xtol=1e-2))


@cache
def _reference(missing: str, crp: str) -> tuple[FloatArray, NDArray[np.bool_], FloatArray]:
    law, rng = Law.of(missing, crp), np.random.default_rng(1)
    ill = np.arange(20_000) < 10_000
    stage = law.draw_stages(ill, rng)
    found = LogOdds.of(law, law.draw_labs(stage, rng), law.draw_signs(stage, rng), law.draw_missing(stage, rng))
    return found.fused_observed, ill, rng.standard_normal(len(ill))


def _figures(score: FloatArray, ill: NDArray[np.bool_], stage: IntArray) -> dict[str, float]:
    well = score[~ill]
    by_stage = {}
    for s in (1, 2, 3):
        sick = score[stage == s]
        by_stage[f"auc_{STAGES[s]}"] = auc(np.r_[sick, well], np.arange(len(sick) + len(well)) < len(sick))
    accuracy = float(np.mean(score[ill] > 0) + np.mean(well <= 0)) / 2
    return {"auc": auc(score, ill), "balanced_accuracy": accuracy, **by_stage}


def _patterns(missing: str) -> tuple[NDArray[np.bool_], FloatArray]:
    """List the patterns of missing panels that leave at most 30 % of the cells empty, and their shares by stage."""
    if missing == "none":
        return np.zeros((1, len(PANELS)), bool), np.ones((len(STAGES), 1))
    every = np.arange(2 ** len(PANELS))[:, None] >> np.arange(len(PANELS)) & 1 == 1
    cells = every @ np.array([panel.measured for panel in PANELS])
    allowed = every[cells <= MOST_MISSING * MEASURED]
    slope = np.array([_SPARSER_PER_STAGE if p.informative and missing == "realistic" else 0.0 for p in PANELS])
    stage = np.arange(len(STAGES))[:, None]
    chance = special.expit(_intercepts(slope) + slope * stage)[:, None, :]
    shares = np.where(allowed, chance, 1 - chance).prod(2)
    return allowed, shares / shares.sum(1, keepdims=True)


def _intercepts(slopes: FloatArray) -> FloatArray:
    """Find the logits at stage 0 that give each panel its share missing, one half of the newborns having NEC."""
    weights = np.array([1.0, *STAGE_SHARES]) / 2

    def excess(intercept: float, slope: float, wanted: float) -> float:
        return float(weights @ special.expit(intercept + slope * np.arange(len(STAGES))) - wanted)

    pairs = zip(slopes.tolist(), PANELS, strict=True)
    return np.array([optimize.brentq(excess, -12.0, 12.0, args=(slope, p.missing)) for slope, p in pairs])


def _codes(rows: NDArray[np.bool_]) -> IntArray:
    """Give every row of truths a number of its own, (n,)."""
    return np.asarray(rows @ (1 << np.arange(rows.shape[1])), np.int64)


def _bent(value: FloatArray, bend: float) -> FloatArray:
    """Leave values above `bend`, and let those below approach 0 without a kink, so that it can be undone."""
    return np.where(value >= bend, value, bend * np.exp(np.minimum(value / bend - 1, 0)))


def _straightened(value: FloatArray, bend: float) -> FloatArray:
    return np.where(value >= bend, value, bend * (1 + np.log(np.where(value > 0, value, np.nan) / bend)))


def standardised(values: Mapping[str, FloatArray]) -> FloatArray:
    """Turn the fifteen columns, as a laboratory reports them, into standardised values, (n, 15); NaN stays NaN."""
    return np.stack([d.standardised(np.asarray(values[d.name], np.float64)) for d in DRAWN], axis=1)
