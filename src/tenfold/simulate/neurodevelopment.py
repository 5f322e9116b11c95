"""Simulated connectomes of adults, neonates and infants, the infants with clinical values and three Bayley scores.

It must not know how connectomes are read, harmonised, split, learned from or judged.

The law of factors, loadings and scores, and the best predictions, are in `neurodevelopment_law`; here are the anatomy,
the covariates, the nuisances and the files. Mean connectomes, sites, age, sex, motion and nuisances are orthogonal to
the loadings and independent of autism and scores, but for sex and the other clinical values, of which scores know.

A matrix is the hyperbolic tangent of Gaussian edges: symmetric, 1 on the diagonal, between -1 and 1, so that Fisher's z
gives the edges back. It is not positive definite; tangent space is not for it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

from tenfold.simulate.files import refuse_impossible, write_csv, written_whole
from tenfold.simulate.nec_law import auc
from tenfold.simulate.neurodevelopment_law import (
    CORRELATIONS,
    CUT,
    EDGE_NOISE,
    FACTORS,
    INPUTS,
    NETWORKS,
    PREDICTORS,
    SCORE_SD,
    SIGNAL,
    TARGETS,
    Law,
    autism_ceiling,
    edge_count,
    network_of,
    network_patterns,
)
from tenfold.types import FloatArray, IntArray

Preset = Literal["paper", "realistic"]

TWINS = 0.275
"""Share of infants who are twins (Sci Rep 2023;13:21825)."""
TWINS_ALIKE = 0.5
"""Correlation of two twins' factors and residuals."""
ADULT_SITES, NEONATE_SITES = 17, 2
NUISANCES = (270.0, 200.0, 150.0, 100.0, 60.0, 30.0)
"""Variances, in those of the edge noise at 4,005 edges, of what is common to many edges and says nothing."""
AGE, SEX, MOTION, SITE = 40.0, 10.0, 30.0, 40.0
"""The same of a SD of each covariate; all adults' sites together count as one."""

_WITHIN_ADULT = (0.55, 0.55, 0.50, 0.45, 0.40, 0.40, 0.35)
_WITHIN_NEONATE = (0.45, 0.50, 0.40, 0.15, 0.15, 0.15, 0.20)
"""Mean edge within each of `NETWORKS`: of association cortex there is little at term (Eyre et al., Brain 2021)."""
_BETWEEN, _HOMOTOPIC, _PRETERM = 0.10, 0.35, 0.85
"""Mean edge between networks, what twin regions of two hemispheres have more, and the part that preterms have of it."""

_CONDITIONS = {"sepsis": 0.315, "pda": 0.496, "ivh": 0.076, "pvl": 0.015, "rop": 0.206, "nec": 0.015}
"""Diagnoses of which the scores do not know (Sci Rep 2023;13:21825)."""
_OF_THE_MOTHER = ("antenatal_steroids", "maternal_education")
_MEDIAN_GRAMS, _LOG_GRAMS_SD, _WEIGHT_WITH_AGE = 1140.0, 0.30, 0.7
_WORDS = {
    "male": ("F", "M"),
    "maternal_education": ("low", "middle", "high"),
    "apgar5": ("4", "5", "6", "7", "8", "9", "10"),
}
_LABELS = (
    ("sex", "Sex", "category", "", "F|M", "", ""),
    ("gestational_age", "Gestational age", "number", "wk", "", 22, 32),
    ("birth_weight", "Birth weight", "number", "g", "", 250, 4500),
    ("apgar5", "Apgar score at 5 minutes", "number", "1", "", 0, 10),
    ("maternal_education", "Education of the mother", "ordered", "", "low|middle|high", "", ""),
    ("antenatal_steroids", "Antenatal steroids", "yes_no", "", "no|yes", "", ""),
    ("inotropes", "Inotropes", "yes_no", "", "no|yes", "", ""),
    ("bpd", "Bronchopulmonary dysplasia", "yes_no", "", "no|yes", "", ""),
    ("postnatal_steroids", "Postnatal steroids", "yes_no", "", "no|yes", "", ""),
    ("sepsis", "Sepsis", "yes_no", "", "no|yes", "", ""),
    ("pda", "Patent ductus arteriosus", "yes_no", "", "no|yes", "", ""),
    ("ivh", "Intraventricular haemorrhage, grade 2 or more", "yes_no", "", "no|yes", "", ""),
    ("pvl", "Periventricular leukomalacia", "yes_no", "", "no|yes", "", ""),
    ("rop", "Retinopathy of prematurity", "yes_no", "", "no|yes", "", ""),
    ("nec", "Necrotising enterocolitis", "yes_no", "", "no|yes", "", ""),
)
"""column, label, kind, unit, levels, low, high: the clinical table, 15 columns."""
CLINICAL = tuple(row[0] for row in _LABELS)

_ADULTS, _NEONATES, _INFANTS = range(3)
_PEOPLE, _FACTORS, _EDGES, _OUTCOME, _CLINICAL, _MISSING, _WORLD = range(7)
"""Streams of chance, one each."""


@dataclass(frozen=True)
class SimulatedNeurodevelopment:
    """What was written, and what the best prediction of it can reach.

    Attributes:
        folder: Holds cohort.csv, columns.csv, regions.csv, connectomes/, truth.csv, truth_edges.csv and truth.json of
            the infants, source/ (adults) and neonates/.
        patients: Infants.
        cases: Infants: one connectome each.
        ceilings: Input -> target -> {"r", "auc"}, as `Law.ceilings` gives them.
    """

    folder: Path
    patients: int
    cases: int
    ceilings: dict[str, dict[str, dict[str, float]]]

    @property
    def ceiling_auc(self) -> float:
        """AUC of the best prediction of a low cognitive score from connectome and clinical values."""
        return self.ceilings["both"]["cognitive"]["auc"]


@dataclass(frozen=True)
class Infants:
    """What was drawn of the infants, one row each.

    Attributes:
        patient: Names, (n,).
        family: Names, (n,); twins share one.
        cells: Columns of the cohort file that are neither names nor scores, (n,) texts each.
        clinical: Standardised values, (n, 8), as `Law.clinical` wants them.
        factors: (n, 8).
        correlations: float32, as the files have them, (n, edges).
        scores: Standardised, (n, 3).
    """

    patient: list[str]
    family: list[str]
    cells: dict[str, list[str]]
    clinical: FloatArray
    factors: FloatArray
    correlations: NDArray[np.float32]
    scores: FloatArray


def simulate(
    out: Path,
    *,
    patients: int = 33,
    seed: int = 1,
    adults: int = 884,
    neonates: int = 291,
    regions: int = 90,
    transfer: float = 0.8,
    preset: Preset = "paper",
    prevalence: float = 0.3,
    missing_scores: float = 0.0,
) -> SimulatedNeurodevelopment:
    """Write infants with outcome, adults with a label, and neonates with nothing but connectomes.

    The same arguments give the same bytes. The law is one for all seeds, so that infants of one seed are new patients
    for what was learned from another; names hold the seed, and no two cohorts share a name.

    Args:
        out: A folder that does not exist yet, or is empty.
        patients: Infants; 27.5 % of them twins, as near as whole pairs come.
        seed: All that is drawn by chance follows from it.
        adults: With autism or without, of 17 sites, in source/; 0 writes none.
        neonates: Without labels, of 2 sites, in neonates/; 0 writes none.
        regions: Of the atlas.
        transfer: Cosine of infants' loadings with those of adults and neonates: 1 the same, 0 nothing in common.
        preset: R of the best prediction of the three scores: "paper" .70, .35, .65, or "realistic" .45 each.
        prevalence: Share of infants whose score is below 85, of each score.
        missing_scores: Share of each score's cells that is left empty, at random.

    Returns:
        The folder, the counts and the ceilings.

    Raises:
        StudyError: An impossible value.
        OutputError: `out` holds something, or cannot be written to.
    """
    refuse_impossible(
        "neurodevelopment",
        patients=(patients, 4, 100_000),
        seed=(seed, 0, 2**32),
        adults=(adults, 0, 100_000),
        neonates=(neonates, 0, 100_000),
        regions=(regions, 10, 400),
        transfer=(transfer, 0.0, 1.0),
        prevalence=(prevalence, 0.02, 0.9),
        missing_scores=(missing_scores, 0.0, 0.95),
    )
    law = Law.of(regions, transfer, preset)
    ceilings = law.ceilings(prevalence)
    infants = _draw_infants(law, seed, patients)
    edges = np.arctanh(infants.correlations.astype(np.float64)) - mean_edges(regions, _WITHIN_NEONATE) * _PRETERM
    expected = law.expected(edges, infants.clinical)
    truth = {
        "simulator": "neurodevelopment",
        "seed": seed,
        "patients": patients,
        "adults": adults,
        "neonates": neonates,
        "regions": regions,
        "edges": edge_count(regions),
        "transfer": transfer,
        "preset": preset,
        "prevalence": prevalence,
        "missing_scores": missing_scores,
        "cut": CUT,
        "ceiling_auc": ceilings["both"]["cognitive"]["auc"],
        "kind": "correlation of E[score | input] with the score, and its AUC for a score below the cut: exact",
        "ceilings": ceilings,
        "in_this_cohort": _realised(expected, infants.scores, law.cuts(prevalence)),
        "correlations_of_scores": CORRELATIONS.tolist(),
        "signal": law.signal,
        "edge_noise": EDGE_NOISE,
        "adults_ceiling_auc": autism_ceiling(),
    }
    with written_whole(out) as folder:
        _write_infants(folder, infants, law, seed, prevalence, missing_scores)
        write_csv(folder / "truth.csv", _truth_rows(infants, expected, law, prevalence))
        write_csv(folder / "truth_edges.csv", _edge_rows(law))
        if adults:
            _write_adults(folder / "source", law, seed, adults)
        if neonates:
            _write_neonates(folder / "neonates", law, seed, neonates)
        (folder / "truth.json").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")
    return SimulatedNeurodevelopment(out, patients, patients, ceilings)


def region_names(regions: int) -> list[str]:
    """Name the regions: their network, their number in it, and the hemisphere."""
    network, names = network_of(regions).tolist(), []
    for i, n in enumerate(network):
        names.append(f"{NETWORKS[n]} {(i - network.index(n)) // 2 + 1} {'LR'[i % 2]}")
    return names


def mean_edges(regions: int, within: Sequence[float]) -> FloatArray:
    """Return the mean connectome, Fisher's z, (edges,), from the mean within each network."""
    first, second = np.triu_indices(regions, 1)
    network = network_of(regions)
    mean = np.where(network[first] == network[second], np.array(within)[network[first]], _BETWEEN)
    return np.asarray(mean + _HOMOTOPIC * ((first % 2 == 0) & (second == first + 1)))


def _chance(seed: int, group: int, stream: int) -> np.random.Generator:
    return np.random.default_rng([seed, group, stream])


def _effects(law: Law, group: int, variances: Sequence[float]) -> FloatArray:
    """Draw what a SD of each nuisance or covariate adds to the edges of an age, (edges, m); the world's, not a seed's.

    The first is the same at any age: synchrony of the whole brain.
    """
    rng = np.random.default_rng([law.regions, min(group, _NEONATES), _WORLD])
    # As many whoever it is, so that infants have those of neonates.
    patterns = network_patterns(law.regions, len(NUISANCES) + 3 + ADULT_SITES, rng)[:, : len(variances)]
    patterns[:, 0] = 1.0
    # As the signal does, they go with the square root of the number of edges.
    size = np.sqrt(np.array(variances) * law.signal / SIGNAL) * EDGE_NOISE
    return np.asarray(law.orthogonal(patterns) * size)


def _draw_correlations(
    law: Law, group: int, seed: int, factors: FloatArray, covariates: FloatArray, variances: Sequence[float]
) -> NDArray[np.float32]:
    """Draw edges, (n, edges), from factors (n, 8) and standardised covariates (n, m) with so much variance each."""
    rng = _chance(seed, group, _EDGES)
    common = np.c_[rng.standard_normal((len(factors), len(NUISANCES))), covariates]
    effects = _effects(law, group, (*NUISANCES, *variances))
    loadings = law.infants if group == _INFANTS else law.shared
    noise = rng.standard_normal((len(factors), len(effects)))
    within = _WITHIN_ADULT if group == _ADULTS else _WITHIN_NEONATE
    mean = mean_edges(law.regions, within) * (_PRETERM if group == _INFANTS else 1.0)
    return np.tanh(mean + factors @ loadings.T + common @ effects.T + EDGE_NOISE * noise).astype(np.float32)


def _site_columns(site: IntArray, sites: int) -> tuple[FloatArray, list[float]]:
    """One standardised column a site, and the variance that each has: of all sites together, `SITE`."""
    one = (site[:, None] == np.arange(sites)).astype(float) - 1 / sites
    return one / math.sqrt((1 - 1 / sites) / sites), [SITE / sites] * sites


def _draw_infants(law: Law, seed: int, count: int) -> Infants:
    """Draw infants in random order; twins have a mother, and half of the variance of the rest, in common."""
    rng = _chance(seed, _INFANTS, _PEOPLE)
    pairs = round(TWINS * count / 2)
    family = rng.permutation(np.r_[np.arange(pairs), np.arange(count - pairs)])
    factors = _alike(family, FACTORS, TWINS_ALIKE, _chance(seed, _INFANTS, _FACTORS))
    clinical, cells = _draw_clinical(family, _chance(seed, _INFANTS, _CLINICAL))
    weeks, pma = _ages(rng.standard_normal(count), 39.5, np.array(cells["gestational_age"], float))
    motion = rng.standard_normal(count)
    residual = law.draw_residuals(_alike(family, len(TARGETS), TWINS_ALIKE, _chance(seed, _INFANTS, _OUTCOME)))
    covariates = np.c_[weeks, clinical[:, 0], motion]
    cells |= {"pma_at_scan": [f"{w:.1f}" for w in pma], "mean_fd": _millimetres(motion, 0.15)}
    return Infants(
        [f"i{seed}-{i + 1:04d}" for i in range(count)],
        [f"f{seed}-{number + 1:04d}" for number in family.tolist()],
        cells,
        clinical,
        factors,
        _draw_correlations(law, _INFANTS, seed, factors, covariates, (AGE, SEX, MOTION)),
        factors @ law.outcome.T + clinical @ law.clinical.T + residual,
    )


def _alike(family: IntArray, count: int, share: float, rng: np.random.Generator) -> FloatArray:
    """Draw standard normal values, (n, count), that correlate by `share` within a family."""
    common, own = rng.standard_normal((2, len(family), count))
    return np.asarray(math.sqrt(share) * common[family] + math.sqrt(1 - share) * own)


def _draw_clinical(family: IntArray, rng: np.random.Generator) -> tuple[FloatArray, dict[str, list[str]]]:
    """Draw the clinical table; return standardised values as `Law.clinical` wants them, and all cells."""
    count, standardised, cells = len(family), [], {}
    for predictor in PREDICTORS:
        chance = rng.random(count)
        chance = chance[family] if predictor.name in _OF_THE_MOTHER else chance
        which = np.searchsorted(np.cumsum(predictor.shares)[:-1], chance)
        standardised.append(predictor.standardised_values[which])
        words = _WORDS.get(predictor.name, ("no", "yes"))
        cells["sex" if predictor.name == "male" else predictor.name] = [words[i] for i in which.tolist()]
    age = rng.standard_normal(count)[family]
    own = rng.standard_normal(count)
    weight = _WEIGHT_WITH_AGE * age + math.sqrt(1 - _WEIGHT_WITH_AGE**2) * own
    grams = np.maximum(np.rint(_MEDIAN_GRAMS * np.exp(_LOG_GRAMS_SD * weight)), 250)
    standardised.append(np.log(grams / _MEDIAN_GRAMS) / _LOG_GRAMS_SD)
    cells["birth_weight"] = [f"{g:.0f}" for g in grams]
    # Median 29.5 weeks, and the limits of very preterm birth.
    cells["gestational_age"] = [f"{w:.1f}" for w in 23 + 8.9 * special.ndtr(0.6 + 0.9 * age)]
    for name, share in _CONDITIONS.items():
        cells[name] = ["yes" if ill else "no" for ill in (rng.random(count) < share).tolist()]
    return np.stack(standardised, axis=1), {name: cells[name] for name in CLINICAL}


def _ages(standard: FloatArray, middle: float, born: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return postmenstrual age at scan, standardised and in weeks, not before birth, from standard normal values."""
    weeks = np.maximum(np.clip(middle + 1.5 * standard, 36.5, 44.5), born)
    return (weeks - middle) / 1.5, weeks


def _millimetres(motion: FloatArray, median: float) -> list[str]:
    return [f"{m:.4f}" for m in median * np.exp(0.5 * motion)]


def _write_infants(
    folder: Path, infants: Infants, law: Law, seed: int, prevalence: float, missing_scores: float
) -> None:
    """Write cohort.csv, columns.csv and connectomes; a score is rounded down, so that it is below 85 when it was."""
    points = _points(infants.scores, law, prevalence)
    gone = _chance(seed, _INFANTS, _MISSING).random(points.shape) < missing_scores
    rows = [
        {
            "case": name,
            "patient": name,
            "family": infants.family[i],
            "site": "follow-up clinic",
            "connectome": f"connectomes/{name}.npy",
            **{column: cells[i] for column, cells in infants.cells.items()},
            **{t: "" if gone[i, j] else f"{math.floor(points[i, j])}" for j, t in enumerate(TARGETS)},
        }
        for i, name in enumerate(infants.patient)
    ]
    write_csv(folder / "cohort.csv", rows)
    keys = ("column", "label", "kind", "unit", "levels", "low", "high")
    written = [dict(zip(keys, row, strict=True)) for row in _LABELS]
    write_csv(
        folder / "columns.csv",
        [{**row, "transform": "log" if row["column"] == "birth_weight" else "none"} for row in written],
    )
    _write_connectomes(folder, infants.patient, infants.correlations, law.regions)


def _points(standardised: FloatArray, law: Law, prevalence: float) -> FloatArray:
    """Turn standardised scores, (n, 3), into points: so many are below the cut, within the scale of the test."""
    return np.clip(CUT + SCORE_SD * (standardised - law.cuts(prevalence)), 40.0, 160.0)


def _write_adults(folder: Path, law: Law, seed: int, count: int) -> None:
    rng = _chance(seed, _ADULTS, _PEOPLE)
    factors = _chance(seed, _ADULTS, _FACTORS).standard_normal((count, FACTORS))
    autistic = law.draw_autism(factors, _chance(seed, _ADULTS, _OUTCOME).standard_normal(count))
    site, male = rng.integers(ADULT_SITES, size=count), rng.random(count) < 0.85
    age, motion = np.clip(rng.standard_normal((2, count)), -2.5, 2.5)
    columns, variances = _site_columns(site, ADULT_SITES)
    covariates = np.c_[age, np.where(male, 1.0, -1.0), motion, columns]
    names = [f"a{seed}-{i + 1:04d}" for i in range(count)]
    cells = {
        "site": [f"adult site {s + 1}" for s in site.tolist()],
        "age": [f"{a:.1f}" for a in 15.5 * np.exp(0.4 * age)],
        "sex": ["M" if m else "F" for m in male.tolist()],
        "mean_fd": _millimetres(motion, 0.12),
        "diagnosis": ["autism" if a else "control" for a in autistic.tolist()],
    }
    drawn = _draw_correlations(law, _ADULTS, seed, factors, covariates, (AGE, SEX, MOTION, *variances))
    _write_source(folder, names, cells, drawn, law.regions)


def _write_neonates(folder: Path, law: Law, seed: int, count: int) -> None:
    rng = _chance(seed, _NEONATES, _PEOPLE)
    factors = _chance(seed, _NEONATES, _FACTORS).standard_normal((count, FACTORS))
    site, male = rng.integers(NEONATE_SITES, size=count), rng.random(count) < 0.5
    born = np.clip(rng.normal(39.3, 1.3, count), 36.0, 42.0)
    weeks, pma = _ages(rng.standard_normal(count), 40.5, born)
    motion = np.clip(rng.standard_normal(count), -2.5, 2.5)
    columns, variances = _site_columns(site, NEONATE_SITES)
    covariates = np.c_[weeks, np.where(male, 1.0, -1.0), motion, columns]
    names = [f"u{seed}-{i + 1:04d}" for i in range(count)]
    cells = {
        "site": [f"neonatal site {s + 1}" for s in site.tolist()],
        "sex": ["M" if m else "F" for m in male.tolist()],
        "gestational_age": [f"{w:.1f}" for w in born],
        "pma_at_scan": [f"{w:.1f}" for w in pma],
        "mean_fd": _millimetres(motion, 0.15),
    }
    drawn = _draw_correlations(law, _NEONATES, seed, factors, covariates, (AGE, SEX, MOTION, *variances))
    _write_source(folder, names, cells, drawn, law.regions)


def _write_source(
    folder: Path, names: Sequence[str], cells: dict[str, list[str]], drawn: NDArray[np.float32], regions: int
) -> None:
    """Write the cohort file and the connectomes of adults or neonates."""
    rows = [
        {
            "case": name,
            "patient": name,
            "connectome": f"connectomes/{name}.npy",
            **{column: values[i] for column, values in cells.items()},
        }
        for i, name in enumerate(names)
    ]
    write_csv(folder / "cohort.csv", rows)
    _write_connectomes(folder, names, drawn, regions)


def _write_connectomes(folder: Path, names: Sequence[str], drawn: NDArray[np.float32], regions: int) -> None:
    """Write a matrix each, and the names of the regions."""
    (folder / "connectomes").mkdir(parents=True)
    first, second = np.triu_indices(regions, 1)
    for name, edges in zip(names, drawn, strict=True):
        matrix = np.eye(regions, dtype=np.float32)
        matrix[first, second] = matrix[second, first] = edges
        np.save(folder / f"connectomes/{name}.npy", matrix, allow_pickle=False)
    networks = [NETWORKS[n] for n in network_of(regions).tolist()]
    write_csv(
        folder / "regions.csv",
        [
            {"name": name, "hemisphere": name[-1], "network": network}
            for name, network in zip(region_names(regions), networks, strict=True)
        ],
    )


def _truth_rows(infants: Infants, expected: dict[str, FloatArray], law: Law, prevalence: float) -> list[dict[str, Any]]:
    """Tell of every infant the scores before rounding and loss, their expectations, P(below 85) and the factors."""
    columns = {f"score_{t}": x for t, x in zip(TARGETS, _points(infants.scores, law, prevalence).T, strict=True)}
    for name in INPUTS:
        points = CUT + SCORE_SD * (expected[name] - law.cuts(prevalence))
        columns |= {f"expected_{name}_{t}": x for t, x in zip(TARGETS, points.T, strict=True)}
    below = law.chance_below(expected["both"], prevalence)
    columns |= {f"posterior_{t}": x for t, x in zip(TARGETS, below.T, strict=True)}
    columns |= {f"factor_{k + 1}": x for k, x in enumerate(infants.factors.T)}
    return [
        {"case": name, **{column: f"{values[i]:.9g}" for column, values in columns.items()}}
        for i, name in enumerate(infants.patient)
    ]


def _edge_rows(law: Law) -> list[dict[str, Any]]:
    """Tell of every edge of infants its covariance with each standardised score, nuisances and covariates apart."""
    first, second = np.triu_indices(law.regions, 1)
    names, pattern = region_names(law.regions), law.infants @ law.outcome.T
    return [
        {
            "region": names[i],
            "other_region": names[j],
            **{t: f"{x:.9g}" for t, x in zip(TARGETS, row, strict=True)},
        }
        for i, j, row in zip(first.tolist(), second.tolist(), pattern.tolist(), strict=True)
    ]


def _realised(expected: dict[str, FloatArray], scores: FloatArray, cuts: FloatArray) -> dict[str, dict[str, Any]]:
    """Return n below the cut, and R and AUC of the best predictions, before scores were lost; null for one class."""
    below = scores < cuts
    return {
        name: {
            target: {
                "r": float(np.corrcoef(best[:, t], scores[:, t])[0, 1]),
                "auc": _auc(-best[:, t], below[:, t]),
                "below": int(below[:, t].sum()),
            }
            for t, target in enumerate(TARGETS)
        }
        for name, best in expected.items()
    }


def _auc(score: FloatArray, ill: NDArray[np.bool_]) -> float | None:
    return None if ill.all() or not ill.any() else auc(score, ill)
