"""The simulator of neurodevelopment: its ceilings are reached and not exceeded, and only transfer makes 33 enough."""

from __future__ import annotations

import csv
import hashlib
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import special
from sklearn.linear_model import RidgeCV
from sklearn.metrics import roc_auc_score

from tenfold.errors import OutputError, StudyError
from tenfold.simulate import SIMULATORS, SimulatedNeurodevelopment
from tenfold.simulate.neurodevelopment import CLINICAL, mean_edges, simulate
from tenfold.simulate.neurodevelopment_law import (
    AUTISM_SHARE,
    CORRELATIONS,
    EDGE_NOISE,
    INPUTS,
    PREDICTORS,
    TARGETS,
    Law,
    auc_below,
    autism_ceiling,
    gaussian,
)

Array = np.ndarray[Any, np.dtype[Any]]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def column(rows: list[dict[str, str]], name: str) -> Array:
    return np.array([float(r[name]) if r[name] else np.nan for r in rows])


def edges_of(folder: Path) -> Array:
    """Fisher's z of the upper triangles, (n, edges)."""
    matrices = np.stack([np.load(folder / r["connectome"]) for r in table(folder / "cohort.csv")])
    upper = np.triu_indices(matrices.shape[1], 1)
    return np.arctanh(matrices.astype(float)[:, upper[0], upper[1]])


def drawn(law: Law, n: int) -> tuple[Array, Array, Array]:
    """Edges less their mean, standardised clinical values and scores, straight from the law."""
    rng = np.random.default_rng(3)
    factors = rng.standard_normal((n, 8))
    edges = factors @ law.infants.T + EDGE_NOISE * rng.standard_normal((n, len(law.infants)))
    edges += rng.standard_normal((n, 5)) @ law.orthogonal(rng.standard_normal((len(law.infants), 5))).T
    few = [rng.choice(p.standardised_values, n, p=p.shares) for p in PREDICTORS]
    clinical = np.stack([*few, rng.standard_normal(n)], axis=1)
    residual = law.draw_residuals(rng.standard_normal((n, 3)))
    return edges, clinical, factors @ law.outcome.T + clinical @ law.clinical.T + residual


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> SimulatedNeurodevelopment:
    out = tmp_path_factory.mktemp("neurodevelopment") / "cohort"
    return simulate(out, patients=200, seed=5, adults=60, neonates=30, regions=15, missing_scores=0.25)


@pytest.fixture(scope="module")
def rows(cohort: SimulatedNeurodevelopment) -> list[dict[str, str]]:
    return table(cohort.folder / "cohort.csv")


# --- the law ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prevalence", "design"),
    [(0.12, [0.66, 0.71, 0.77, 0.82, 0.87, 0.91]), (0.40, [0.64, 0.69, 0.73, 0.78, 0.83, 0.88])],
)
def test_the_auc_of_a_correlation_is_that_of_the_design(prevalence: float, design: list[float]) -> None:
    cut = float(special.ndtri(prevalence))
    found = [auc_below(gaussian(r**2), gaussian(1 - r**2), cut) for r in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)]
    # The design's are two decimals (0.005) of 200,000 draws, whose standard error is up to 0.0014.
    assert found == pytest.approx(design, abs=0.005 + 3 * 0.0014)


@pytest.mark.parametrize("preset", ["paper", "realistic"])
def test_a_large_draw_reaches_the_ceilings(preset: str) -> None:
    law, n = Law.of(12, 0.6, preset), 60_000
    edges, clinical, scores = drawn(law, n)
    ceilings, expected, cuts = law.ceilings(0.2), law.expected(edges, clinical), law.cuts(0.2)
    assert np.corrcoef(scores.T) == pytest.approx(CORRELATIONS, abs=0.015)
    assert scores.std(0) == pytest.approx(np.ones(3), abs=0.015)
    below = scores < cuts
    assert below.mean(0) == pytest.approx(np.full(3, 0.2), abs=0.006)
    for name in INPUTS:
        for t, target in enumerate(TARGETS):
            assert np.corrcoef(expected[name][:, t], scores[:, t])[0, 1] == pytest.approx(
                ceilings[name][target]["r"], abs=0.015
            )
            assert roc_auc_score(below[:, t], -expected[name][:, t]) == pytest.approx(
                ceilings[name][target]["auc"], abs=0.012
            )


def test_no_regression_finds_more_than_the_expectation() -> None:
    law, n = Law.of(12, 0.6), 60_000
    edges, clinical, scores = drawn(law, n)
    for name, seen in (("connectome", edges), ("clinical", clinical), ("both", np.c_[edges, clinical])):
        half, design = n // 2, np.c_[np.ones(n), seen]
        fitted = design[half:] @ np.linalg.lstsq(design[:half], scores[:half], rcond=None)[0]
        for t in range(3):
            found = np.corrcoef(fitted[:, t], scores[half:, t])[0, 1]
            assert found == pytest.approx(law.r[name][t], abs=0.02)


def test_the_posterior_is_calibrated() -> None:
    law = Law.of(12, 0.6)
    edges, clinical, scores = drawn(law, 60_000)
    chance, below = law.chance_below(law.expected(edges, clinical)["both"], 0.3), scores < law.cuts(0.3)
    for t in range(3):
        for low, high in ((0.0, 0.1), (0.1, 0.3), (0.3, 0.5), (0.5, 1.0)):
            these = (chance[:, t] >= low) & (chance[:, t] < high)
            assert below[these, t].mean() == pytest.approx(chance[these, t].mean(), abs=0.025)


def test_autism_is_as_frequent_and_as_legible_as_said() -> None:
    law, rng = Law.of(12), np.random.default_rng(0)
    factors = rng.standard_normal((40_000, 8))
    edges = factors @ law.shared.T + EDGE_NOISE * rng.standard_normal((40_000, 66))
    autistic = law.draw_autism(factors, rng.standard_normal(40_000))
    assert autistic.mean() == pytest.approx(AUTISM_SHARE, abs=0.01)
    score = law.factors(edges, infants=False) @ law.autism_direction
    assert roc_auc_score(autistic, score) == pytest.approx(autism_ceiling(), abs=0.01)


def test_transfer_turns_the_loadings_and_leaves_the_ceilings() -> None:
    assert Law.of(12, 0.0).ceilings(0.3) == Law.of(12, 1.0).ceilings(0.3)
    for transfer in (0.0, 0.8, 1.0):
        law = Law.of(12, transfer)
        cosines = law.shared.T @ law.infants / np.linalg.norm(law.shared[:, 0]) ** 2
        assert cosines == pytest.approx(transfer * np.eye(8), abs=1e-9)
        assert np.linalg.norm(law.infants, axis=0) == pytest.approx(np.linalg.norm(law.shared, axis=0))


# --- what can be learned from few -------------------------------------------------------------------------------------


def ridge(x: Array, y: Array) -> Array:
    return np.asarray(RidgeCV(np.logspace(-1, 5, 13)).fit(x, y).coef_)


def gain(folder: Path, transfer: float) -> float:
    """R of cognition in new infants: by the adults' direction of autism, less by ridge on the edges of 33."""
    simulate(folder / "new", patients=500, seed=99, adults=0, neonates=0, regions=50, transfer=transfer)
    new, wanted = edges_of(folder / "new"), column(table(folder / "new/truth.csv"), "score_cognitive")
    gains = []
    for seed in range(4):
        here = folder / f"{seed}"
        simulate(here, seed=seed, adults=600, neonates=0, regions=50, transfer=transfer)
        few, scores = edges_of(here), column(table(here / "cohort.csv"), "cognitive")
        autistic = [r["diagnosis"] == "autism" for r in table(here / "source/cohort.csv")]
        direction = ridge(edges_of(here / "source"), np.array(autistic, float))
        sign = np.sign(np.corrcoef(few @ direction, scores)[0, 1])
        found = [np.corrcoef(new @ w, wanted)[0, 1] for w in (sign * direction, ridge(few, scores))]
        gains.append(found[0] - found[1])
    return float(np.mean(gains))


def test_what_adults_teach_helps_where_loadings_are_shared(tmp_path: Path) -> None:
    assert gain(tmp_path, 0.8) > 0.08


def test_what_adults_teach_is_no_use_where_they_are_not(tmp_path: Path) -> None:
    assert gain(tmp_path, 0.0) < 0.0


# --- files ------------------------------------------------------------------------------------------------------------


def test_matrices_are_correlations_and_give_the_edges_back(cohort: SimulatedNeurodevelopment) -> None:
    for part, count in (("", 200), ("source", 60), ("neonates", 30)):
        listed = table(cohort.folder / part / "cohort.csv")
        assert len(listed) == count
        for row in listed:
            matrix = np.load(cohort.folder / part / row["connectome"], allow_pickle=False)
            assert matrix.dtype == np.float32
            assert matrix.shape == (15, 15)
            assert np.array_equal(matrix, matrix.T)
            assert np.all(np.diag(matrix) == 1)
            assert np.abs(matrix[np.triu_indices(15, 1)]).max() < 1
    truth = table(cohort.folder / "truth.csv")
    law = Law.of(15, 0.8)
    # What the mean adds is one and the same for all.
    from_files = 15 * law.factors(edges_of(cohort.folder)) @ law.outcome.T
    for t, target in enumerate(TARGETS):
        offset = column(truth, f"expected_connectome_{target}") - from_files[:, t]
        assert np.ptp(offset) < 1e-4


def test_neonates_lack_the_networks_of_association_and_preterms_have_less(cohort: SimulatedNeurodevelopment) -> None:
    adults, neonates, infants = (edges_of(cohort.folder / p).mean(0) for p in ("source", "neonates", ""))
    upper = np.triu_indices(15, 1)
    assert adults.mean() > neonates.mean() > infants.mean()
    twins = (upper[0] % 2 == 0) & (upper[1] == upper[0] + 1)
    assert neonates[twins].mean() > neonates[~twins].mean() + 0.3
    flat = mean_edges(15, [0.1] * 7)
    assert sorted(set(flat.round(6))) == [0.1, 0.45]


def test_the_scores_are_those_of_the_truth(cohort: SimulatedNeurodevelopment, rows: list[dict[str, str]]) -> None:
    truth = table(cohort.folder / "truth.csv")
    assert [r["case"] for r in truth] == [r["case"] for r in rows]
    for target in TARGETS:
        score, exact = column(rows, target), column(truth, f"score_{target}")
        there = np.isfinite(score)
        assert 0.15 < 1 - there.mean() < 0.35
        assert np.array_equal(score[there] < 85, exact[there] < 85)
        assert np.abs(score[there] - exact[there]).max() <= 1
    found = json.loads((cohort.folder / "truth.json").read_text())
    assert found["ceiling_auc"] == cohort.ceiling_auc == cohort.ceilings["both"]["cognitive"]["auc"]
    assert found["in_this_cohort"]["both"]["cognitive"]["r"] == pytest.approx(0.7, abs=0.15)


def test_twins_share_a_family_a_mother_and_much_else(
    cohort: SimulatedNeurodevelopment, rows: list[dict[str, str]]
) -> None:
    families: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        families.setdefault(row["family"], []).append(i)
    pairs = [members for members in families.values() if len(members) == 2]
    assert max(map(len, families.values())) == 2
    assert 2 * len(pairs) / len(rows) == pytest.approx(0.275, abs=0.01)
    first, second = np.array(pairs).T
    for name in ("antenatal_steroids", "maternal_education", "gestational_age"):
        assert all(rows[i][name] == rows[j][name] for i, j in pairs)
    truth = table(cohort.folder / "truth.csv")
    alike = [np.corrcoef(f[first], f[second])[0, 1] for f in (column(truth, f"factor_{k + 1}") for k in range(8))]
    assert np.mean(alike) == pytest.approx(0.5, abs=0.2)


def test_nobody_is_in_two_cohorts(cohort: SimulatedNeurodevelopment, rows: list[dict[str, str]]) -> None:
    adults, neonates = (table(cohort.folder / part / "cohort.csv") for part in ("source", "neonates"))
    names = [r["patient"] for r in (*rows, *adults, *neonates)]
    assert len(set(names)) == len(names) == 290
    assert list(adults[0]) == ["case", "patient", "connectome", "site", "age", "sex", "mean_fd", "diagnosis"]
    assert {r["diagnosis"] for r in adults} == {"autism", "control"}
    assert "diagnosis" not in neonates[0]
    assert all(float(r["pma_at_scan"]) >= float(r["gestational_age"]) for r in (*rows, *neonates))


def test_tables_are_read_with_their_dictionary_and_regions_have_names(
    cohort: SimulatedNeurodevelopment, rows: list[dict[str, str]]
) -> None:
    columns = importlib.import_module("tenfold.modalities.columns").read_columns(cohort.folder / "columns.csv")
    assert tuple(c.name for c in columns) == CLINICAL
    for c in columns:
        cells = {r[c.name] for r in rows}
        if c.levels:
            assert cells <= set(c.levels)
        else:
            assert all(c.low <= float(cell) <= c.high for cell in cells)
    names = [r["name"] for r in table(cohort.folder / "regions.csv")]
    assert len(set(names)) == 15
    edges = table(cohort.folder / "truth_edges.csv")
    assert [(r["region"], r["other_region"]) for r in edges[:2]] == [(names[0], names[1]), (names[0], names[2])]
    assert len(edges) == 105


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    def digest(seed: int, name: str) -> dict[str, str]:
        out = tmp_path / name
        simulate(out, patients=12, seed=seed, adults=6, neonates=5, regions=12)
        return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in out.rglob("*.*")}

    first = digest(1, "a")
    assert first == digest(1, "b")
    assert first["cohort.csv"] != digest(2, "c")["cohort.csv"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"transfer": 1.2},
        {"transfer": float("nan")},
        {"preset": "papier"},
        {"regions": 9},
        {"prevalence": 0.0},
        {"missing_scores": 1.0},
        {"patients": 2},
        {"adults": -1},
        {"seed": -1},
    ],
)
def test_it_is_registered_and_refuses_nonsense(tmp_path: Path, wrong: dict[str, Any]) -> None:
    assert SIMULATORS["neurodevelopment"] is simulate
    with pytest.raises(StudyError):
        simulate(tmp_path / "out", **{"patients": 20, **wrong})
    assert not (tmp_path / "out").exists()


def test_it_leaves_work_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/work.txt").write_text("x")
    with pytest.raises(OutputError):
        simulate(tmp_path / "mine", patients=20, adults=0, neonates=0, regions=12)


@pytest.mark.parametrize("r", [(0.95, 0.05, 0.95), (0.9, 0.9), (0.0, 0.3, 0.3), (0.7, 0.35, 1.0)])
def test_impossible_correlations_are_refused(r: tuple[float, ...]) -> None:
    with pytest.raises(StudyError):
        Law.of(12, r=r)
