"""ComBat: equal to a plain-loop reading of the paper, learned from training rows only, and what it does otherwise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tenfold.errors import CohortError
from tenfold.modalities.confounds import Covariates
from tenfold.modalities.connectome import ConnectomePreparation, ConnectomeReading, matrix_of, numbered
from tenfold.modalities.harmonisation import Combat


def sites(n: int = 45, edges: int = 12, seed: int = 0) -> tuple[np.ndarray, Covariates]:
    """Three sites of unequal size that shift and stretch the edges; age acts on all of them."""
    rng = np.random.default_rng(seed)
    site = rng.choice(["A", "B", "C"], n, p=[0.5, 0.3, 0.2])
    age = rng.normal(30, 6, n) + 3 * (site == "A")
    sex = rng.choice(["f", "m"], n)
    shift = {s: rng.normal(0, 1, edges) for s in "ABC"}
    stretch = {s: rng.uniform(0.6, 1.8, edges) for s in "ABC"}
    values = np.stack([shift[s] + stretch[s] * rng.standard_normal(edges) for s in site])
    values += 0.05 * age[:, None] + 0.3 * (sex == "m")[:, None]
    return values, Covariates({"site": site, "age": age, "sex": sex}, tuple(map(str, range(n))))


def published(y: np.ndarray, site: np.ndarray, covariates: np.ndarray) -> np.ndarray:
    """ComBat as Johnson et al. 2007 write it (section 3.1 and 3.2), edge by edge, site by site."""
    n, edges = y.shape
    names = sorted(set(site.tolist()))
    members = {name: [i for i in range(n) if site[i] == name] for name in names}
    standard, alpha, effect, sigma = np.zeros_like(y), np.zeros(edges), [], np.zeros(edges)
    for g in range(edges):
        # least squares with sum over sites of n_i gamma_ig = 0: the last site's effect follows from the others'
        last = members[names[-1]]
        design = np.zeros((n, 1 + len(names) - 1 + covariates.shape[1]))
        design[:, 0] = 1
        for k, name in enumerate(names[:-1]):
            for i in members[name]:
                design[i, 1 + k] = 1
            for i in last:
                design[i, 1 + k] = -len(members[name]) / len(last)
        design[:, len(names) :] = covariates
        solution = np.linalg.solve(design.T @ design, design.T @ y[:, g])
        alpha[g] = solution[0]
        effect.append(solution[len(names) :])
        residual = y[:, g] - design @ solution
        sigma[g] = math.sqrt(sum(r * r for r in residual) / n)
        for i in range(n):
            standard[i, g] = (y[i, g] - alpha[g] - covariates[i] @ effect[g]) / sigma[g]
    adjusted = np.zeros_like(y)
    for name in names:
        rows = members[name]
        m = len(rows)
        gamma = [sum(standard[i, g] for i in rows) / m for g in range(edges)]
        delta = [sum((standard[i, g] - gamma[g]) ** 2 for i in rows) / (m - 1) for g in range(edges)]
        gamma_bar = sum(gamma) / edges
        tau = sum((x - gamma_bar) ** 2 for x in gamma) / (edges - 1)
        v = sum(delta) / edges
        s = sum((x - v) ** 2 for x in delta) / (edges - 1)
        lam, theta = (v * v + 2 * s) / s, (v**3 + v * s) / s
        for g in range(edges):
            shift, stretch = gamma[g], delta[g]
            for _ in range(500):
                shift = (m * tau * gamma[g] + stretch * gamma_bar) / (m * tau + stretch)
                stretch = (theta + sum((standard[i, g] - shift) ** 2 for i in rows) / 2) / (m / 2 + lam - 1)
            for i in rows:
                z = (standard[i, g] - shift) / math.sqrt(stretch)
                adjusted[i, g] = sigma[g] * z + alpha[g] + covariates[i] @ effect[g]
    return adjusted


@pytest.mark.parametrize("keep", [(), ("age", "sex")])
def test_it_is_the_published_algorithm(keep: tuple[str, ...]) -> None:
    values, beside = sites()
    columns = [np.asarray(beside.columns["age"]), (beside.columns["sex"] == "m").astype(float)] if keep else []
    covariates = np.stack(columns, axis=1) if columns else np.zeros((len(values), 0))
    # the effect of a covariate counts from 0 in the paper, from its mean here: only the constant differs
    centred = covariates - covariates.mean(axis=0)
    expected = published(values, np.asarray(beside.columns["site"]), centred)
    ours = Combat.fit(values, beside, "site", keep).apply(values, beside)
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_sites_become_alike_and_what_is_kept_stays() -> None:
    values, beside = sites(n=600)
    site, age = np.asarray(beside.columns["site"]), np.asarray(beside.columns["age"])
    adjusted = Combat.fit(values, beside, "site", ("age", "sex")).apply(values, beside)
    residual = adjusted - 0.05 * age[:, None] - 0.3 * (beside.columns["sex"] == "m")[:, None]
    for name in "BC":
        gap = residual[site == name].mean(0) - residual[site == "A"].mean(0)
        ratio = residual[site == name].std(0) / residual[site == "A"].std(0)
        assert np.abs(gap).max() < 0.25
        assert np.abs(np.log(ratio)).max() < 0.15
    slopes = np.polyfit(age, adjusted, 1)[0]
    np.testing.assert_allclose(slopes.mean(), 0.05, atol=0.02)


def test_new_rows_are_adjusted_by_the_training_rows_of_their_site_alone() -> None:
    values, beside = sites()
    fitted = Combat.fit(values[:35], beside.take(np.arange(35)), "site", ("age",))
    whole = fitted.apply(values, beside)
    for i in (36, 44):
        alone = fitted.apply(values[[i]], beside.take(np.array([i])))
        np.testing.assert_array_equal(alone[0], whole[i])


def test_an_edge_that_does_not_vary_is_left_alone() -> None:
    values, beside = sites()
    values[:, 4] = 0.25
    np.testing.assert_array_equal(Combat.fit(values, beside, "site").apply(values, beside)[:, 4], 0.25)


def test_what_it_cannot_learn_is_refused() -> None:
    values, beside = sites()
    lone = np.asarray(beside.columns["site"]).astype("<U5")
    lone[7] = "alone"
    other = Covariates({**beside.columns, "site": lone}, beside.sources)
    with pytest.raises(CohortError, match="'alone' has a single training row") as refused:
        Combat.fit(values, other, "site")
    assert refused.value.where == "7"
    passed = Combat.fit(values, other, "site", unseen="pass")
    assert passed.unseen(other) == ("site 'alone' (1 cases)",)
    np.testing.assert_array_equal(passed.apply(values, other, "pass")[7], values[7])
    told = Covariates({**beside.columns, "ward": beside.columns["site"]}, beside.sources)
    with pytest.raises(CohortError, match="the site tells ward"):
        Combat.fit(values, told, "site", ("ward",))
    one = Covariates({"site": np.full(45, "A")}, beside.sources)
    with pytest.raises(CohortError, match="1 sites with 2 training rows"):
        Combat.fit(values, one, "site")


# --- the inflation that fitting outside the fold causes -------------------------------------------------------


def auc(score: np.ndarray, ill: np.ndarray) -> float:
    gap = score[ill][:, None] - score[~ill][None]
    return float((gap > 0).mean() + (gap == 0).mean() / 2)


def cross_validated(outside: bool, seed: int, n: int = 80, regions: int = 32) -> float:
    """Mean AUC over five folds of a nearest-mean classifier on noise; ComBat fitted outside or inside the folds."""
    rng = np.random.default_rng(seed)
    matrices = matrix_of(rng.uniform(-0.5, 0.5, (n, regions * (regions - 1) // 2)).astype(np.float32), 1.0)
    reading = ConnectomeReading(matrices, numbered(regions), tuple(map(str, range(n))))
    ill, site = rng.random(n) < 0.5, np.repeat(np.arange(10), n // 10).astype(str)
    beside = Covariates({"site": site, "ill": ill.astype(float)}, reading.sources)
    fold, found = rng.permutation(n) % 5, []
    for k in range(5):
        train, test = fold != k, fold == k
        rows, keep = (np.arange(n), ("ill",)) if outside else (np.flatnonzero(train), ())
        fitted = ConnectomePreparation.fit(
            reading, rows, space="correlation", covariates=beside, harmonise="site", keep=keep, unseen="pass"
        )
        edges = fitted.apply(reading, beside).astype(float)
        weights = edges[train & ill].mean(0) - edges[train & ~ill].mean(0)
        found.append(auc(edges[test] @ weights, ill[test]))
    return float(np.mean(found))


def test_combat_that_keeps_the_outcome_outside_the_fold_finds_a_disease_in_noise() -> None:
    outside = np.mean([cross_validated(True, seed) for seed in range(12)])
    inside = np.mean([cross_validated(False, seed) for seed in range(12)])
    assert outside > 0.68
    assert inside == pytest.approx(0.5, abs=0.06)
