"""How many patients a model needs, and how sure a cohort of a given size can make anybody.

It must not know cohorts: it takes expected figures and counts, before a patient is spent.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.optimize import root
from scipy.special import expit, log_expit, logit, owens_t
from scipy.stats import norm

from tenfold.errors import StatisticsError
from tenfold.stats.roc import Z
from tenfold.types import FloatArray

# A normal linear predictor, cut into slices fine enough for 6 digits.
_GRID = np.linspace(-8.0, 8.0, 4001)
_DENSITY = norm.pdf(_GRID) / norm.pdf(_GRID).sum()
_OPTIMISM, _MARGIN = 0.05, 0.05
_SE_AUC, _SE_CALIBRATION = 0.025, 0.1


@dataclass(frozen=True)
class DevelopmentSize:
    """How many patients the development of a model needs.

    Attributes:
        r2: Cox-Snell R-squared expected of the model.
        largest_r2: The largest that this prevalence allows.
        parameters: Candidate parameters.
        prevalence: Share of patients with the outcome.
        shrinkage: Calibration slope aimed at.
        for_shrinkage: Patients for that slope (criterion 1).
        for_optimism: Patients for an optimism in Nagelkerke's R-squared of at most 0.05 (criterion 2).
        for_prevalence: Patients for the prevalence to within 0.05 (criterion 3).
        n: The largest of the three.
        method: Whose formulas.
    """

    r2: float
    largest_r2: float
    parameters: int
    prevalence: float
    shrinkage: float
    for_shrinkage: int
    for_optimism: int
    for_prevalence: int
    n: int
    method: str

    def to_dict(self) -> dict[str, Any]:
        """Return a mapping fit for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class AucWidth:
    """How wide the interval of an AUC will be.

    Attributes:
        auc: The AUC expected.
        positives: Patients with the outcome.
        negatives: Patients without.
        low: Lower end of the expected 95 % interval.
        high: Upper end, at most 1.
        width: high - low.
        method: How it was got.
    """

    auc: float
    positives: int
    negatives: int
    low: float
    high: float
    width: float
    method: str

    def to_dict(self) -> dict[str, Any]:
        """Return a mapping fit for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class ValidationSize:
    """How many patients an external validation needs.

    Attributes:
        prevalence: Share of patients with the outcome.
        auc: The AUC expected.
        for_auc: Patients for the standard error of the AUC that was asked for.
        for_slope: Patients for that of the calibration slope.
        for_in_the_large: Patients for that of the calibration in the large.
        n: The largest of the three.
        method: Whose formulas.
    """

    prevalence: float
    auc: float
    for_auc: int
    for_slope: int
    for_in_the_large: int
    n: int
    method: str

    def to_dict(self) -> dict[str, Any]:
        """Return a mapping fit for JSON."""
        return asdict(self)


def riley_binary(r2: float, parameters: int, prevalence: float, shrinkage: float = 0.9) -> DevelopmentSize:
    """Return how many patients it takes to develop a model of a yes-no outcome (Riley et al., BMJ 2020;368:m441).

    The formulas are those of an unpenalised logistic model: a penalised one, or a network that starts from
    weights learned elsewhere, may do with fewer, one with free feature maps needs more.

    Args:
        r2: Cox-Snell R-squared expected; `r2_from_auc` where only an AUC is known.
        parameters: Candidate parameters, counted before any selection.
        prevalence: Share of patients with the outcome.
        shrinkage: Calibration slope aimed at.

    Raises:
        StatisticsError: A prevalence or shrinkage not between 0 and 1, no parameter, or an R-squared that this
            prevalence or shrinkage does not allow.
    """
    _require_share("a prevalence", prevalence)
    _require_share("a shrinkage", shrinkage)
    largest = 1 - math.exp(-2 * _entropy(prevalence))
    if parameters < 1 or not 0 < r2 < min(largest, shrinkage):
        raise StatisticsError(
            f"an R-squared of {r2:g} with {parameters} parameters",
            expected=f"at least one parameter, and an R-squared above 0 and below {min(largest, shrinkage):.3f}, the "
            f"largest that a prevalence of {prevalence:g} and a shrinkage of {shrinkage:g} allow",
        )
    of_optimism = r2 / (r2 + _OPTIMISM * largest)
    sizes = (
        _for_slope_of(shrinkage, r2, parameters),
        _for_slope_of(of_optimism, r2, parameters),
        math.ceil((1.96 / _MARGIN) ** 2 * prevalence * (1 - prevalence)),
    )
    method = "Riley et al. 2020, criteria 1 to 3, unpenalised logistic model"
    return DevelopmentSize(r2, largest, parameters, prevalence, shrinkage, *sizes, max(sizes), method)


def _for_slope_of(shrinkage: float, r2: float, parameters: int) -> int:
    """Patients for an expected shrinkage."""
    return math.ceil(parameters / ((shrinkage - 1) * math.log1p(-r2 / shrinkage)))


def r2_from_auc(auc: float, prevalence: float) -> float:
    """Return the Cox-Snell R-squared of a model with an AUC, its linear predictor normal in either class.

    Riley, Van Calster & Collins (Stat Med 2021;40:859) simulate it; here the same is integrated.

    Args:
        auc: Above 0.5 and below 1.
        prevalence: Share of patients with the outcome.

    Raises:
        StatisticsError: An AUC or a prevalence outside its range.
    """
    _require_share("a prevalence", prevalence)
    _require_auc(auc)
    apart = math.sqrt(2) * float(norm.ppf(auc))
    # With equal variances the log odds are linear: their mean is -apart^2 / 2 or + apart^2 / 2 beside the prior's.
    prior, away = float(logit(prevalence)), apart * _GRID
    of_positives = _DENSITY @ log_expit(prior + apart**2 / 2 + away)
    of_negatives = _DENSITY @ log_expit(-(prior - apart**2 / 2 + away))
    gain = prevalence * of_positives + (1 - prevalence) * of_negatives + _entropy(prevalence)
    return float(-math.expm1(-2 * gain))


def _entropy(share: float) -> float:
    """Log loss of always saying the prevalence."""
    return -share * math.log(share) - (1 - share) * math.log1p(-share)


def auc_width(positives: int, negatives: int, auc: float) -> AucWidth:
    """Return how wide the 95 % interval of an AUC will be (Hanley & McNeil, Radiology 1982;143:29).

    Args:
        positives: Patients with the outcome.
        negatives: Patients without.
        auc: The AUC expected.

    Raises:
        StatisticsError: No patient of a class, or an AUC not between 0.5 and 1.
    """
    _require_auc(auc)
    if min(positives, negatives) < 1:
        raise StatisticsError(
            f"{positives} patients with and {negatives} without the outcome", expected="at least one of each"
        )
    both_above, both_below = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (positives - 1) * (both_above - auc**2) + (negatives - 1) * (both_below - auc**2)
    half = Z * math.sqrt(variance / (positives * negatives))
    low, high = max(0.0, auc - half), min(1.0, auc + half)
    return AucWidth(auc, positives, negatives, low, high, high - low, "Hanley & McNeil 1982, 95 %")


def validation_size(
    prevalence: float,
    auc: float,
    *,
    se_auc: float = _SE_AUC,
    se_slope: float = _SE_CALIBRATION,
    se_in_the_large: float = _SE_CALIBRATION,
) -> ValidationSize:
    """Return how many patients an external validation needs (Pavlou et al., Stat Methods Med Res 2021;30:2187).

    The linear predictor is normal in all patients together and calibrated; its mean and spread are solved for
    numerically, where the paper approximates (so the slope's size may differ from theirs by 2 %).

    Args:
        prevalence: Share of patients with the outcome.
        auc: The AUC expected.
        se_auc: Standard error of the AUC that is wanted.
        se_slope: That of the calibration slope.
        se_in_the_large: That of the calibration in the large.

    Raises:
        StatisticsError: A prevalence, an AUC or a standard error outside its range.
    """
    _require_share("a prevalence", prevalence)
    _require_auc(auc)
    for wanted in (se_auc, se_slope, se_in_the_large):
        _require_share("a standard error", wanted)
    spread = auc - 2 * float(owens_t(norm.ppf(auc), 1 / math.sqrt(3))) - auc**2
    predictor = _normal_predictor(prevalence, auc)
    weight = _DENSITY * expit(predictor) * expit(-predictor)
    flat, mixed, steep = weight.sum(), weight @ predictor, weight @ predictor**2
    sizes = (
        math.ceil(spread / (se_auc**2 * prevalence * (1 - prevalence))),
        math.ceil(flat / (se_slope**2 * (flat * steep - mixed**2))),
        math.ceil(1 / (se_in_the_large**2 * flat)),
    )
    method = (
        f"Pavlou et al. 2021, normal linear predictor, standard errors of {se_auc:g} (AUC), {se_slope:g} (slope) and "
        f"{se_in_the_large:g} (in the large)"
    )
    return ValidationSize(prevalence, auc, *sizes, max(sizes), method)


def _normal_predictor(prevalence: float, auc: float) -> FloatArray:
    """The normal linear predictor, on the grid, that has this prevalence and this AUC."""

    def miss(x: FloatArray) -> list[float]:
        risk = expit(x[0] + math.exp(x[1]) * _GRID)
        ill, well = _DENSITY * risk, _DENSITY * (1 - risk)
        below = np.cumsum(well) - well / 2
        return [logit(ill.sum()) - logit(prevalence), float(ill @ below / ill.sum() / well.sum()) - auc]

    start = [float(logit(prevalence)), math.log(math.sqrt(2) * float(norm.ppf(auc)))]
    mean, log_spread = root(miss, start).x
    return np.asarray(mean + math.exp(log_spread) * _GRID)


def _require_share(what: str, value: float) -> None:
    """Refuse what is not between 0 and 1."""
    if not 0 < value < 1:
        raise StatisticsError(f"{what} of {value:g}", expected="a number above 0 and below 1")


def _require_auc(auc: float) -> None:
    """Refuse an AUC that no useful model has, or none can have."""
    if not 0.5 < auc < 1:
        raise StatisticsError(f"an expected AUC of {auc:g}", expected="a number above 0.5 and below 1")
