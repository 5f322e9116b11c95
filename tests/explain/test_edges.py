"""Edges: known patterns are found, folds compared, networks summed; integrated gradients of a connectome."""

from __future__ import annotations

import json
from importlib import import_module
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from tenfold.encoders.contract import Encoder
from tenfold.errors import StatisticsError
from tenfold.explain import edge_map, haufe_pattern, integrated_gradients, signed_attribution
from tenfold.explain.edges import ATTRIBUTION, PATTERN, fold_stability, network_sums
from tenfold.modalities.connectivity import edge_names, edges_of
from tenfold.network import HeadSpec, Network

torch.set_num_threads(1)
REGIONS = ("a", "b", "c", "d")


class _Line(Encoder):
    """Passes a connectome on as it is, or bends it."""

    def __init__(self, edges: int, *, bend: bool = False) -> None:
        super().__init__(
            spec={"encoder": "line", "options": {"edges": edges}},
            modality="connectome",
            channels=1,
            size=edges,
            dim=edges,
            blocks=[("copy", nn.PReLU(init=0.2 if bend else 1.0))],
            pool=nn.Identity(),
        )


def _network(weights: np.ndarray, *, bend: bool = False) -> Network:
    network = Network({"brain": _Line(len(weights), bend=bend)}, {"cog": HeadSpec("two_sigmoid", ("no", "yes"))})
    rows = np.stack([np.zeros_like(weights), weights])
    network.heads["cog"][-1].weight = nn.Parameter(torch.tensor(rows, dtype=torch.float32))
    return network


def _gradients(network: Network, edges: np.ndarray, baseline: np.ndarray):
    return integrated_gradients(
        network,
        {"brain": torch.tensor(edges, dtype=torch.float32)},
        view="brain",
        baseline=torch.tensor(baseline, dtype=torch.float32),
        target="cog",
        index=1,
    )


def test_integrated_gradients_of_a_linear_model_of_edges_are_weight_times_way() -> None:
    rng = np.random.default_rng(0)
    weights, edges, baseline = rng.normal(size=6), rng.normal(size=(9, 6)), rng.normal(size=6)
    edges[4] = np.nan
    found = _gradients(_network(weights), edges, baseline)
    np.testing.assert_allclose(found.values, (edges - baseline) * weights, atol=1e-5)
    signed = signed_attribution(found.values, edges, baseline)
    np.testing.assert_allclose(signed, weights * np.nanmean(np.abs(edges - baseline), axis=0), atol=1e-5)


def test_integrated_gradients_of_a_bent_model_add_up_though_they_go_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    weights, edges, baseline = rng.normal(size=6), rng.normal(size=(5, 6)), np.full(6, 0.3)
    network = _network(weights, bend=True)
    whole = _gradients(network, edges, baseline)
    moved = whole.log_odds - whole.base
    assert (np.abs(whole.values.sum(1) - moved) <= 0.01 * np.abs(moved) + 0.001 + 1e-9).all()
    bent = np.where(edges > 0, edges, 0.2 * edges)
    np.testing.assert_allclose(whole.values, (bent - 0.3) * weights, atol=0.03)
    monkeypatch.setattr(import_module("tenfold.explain.integrated_gradients"), "_MOST_NUMBERS", 40)
    np.testing.assert_allclose(_gradients(network, edges, baseline).values, whole.values, atol=1e-5)


def test_the_sign_says_which_way_an_edge_acts_although_the_cases_lie_on_both_sides() -> None:
    edges = np.array([[1.0, -1.0], [-1.0, 1.0], [np.nan, np.nan]])
    attributions = edges * np.array([2.0, -3.0])
    np.testing.assert_allclose(signed_attribution(attributions, edges, np.zeros(2)), [2, -3])
    np.testing.assert_allclose(np.nanmean(attributions, axis=0), 0)
    assert np.isnan(signed_attribution(attributions[2:], edges[2:], np.zeros(2))).all()
    with pytest.raises(StatisticsError, match="a baseline of"):
        signed_attribution(attributions, edges, np.zeros(3))


def test_the_pattern_is_that_of_haufe_and_not_the_weights() -> None:
    """Haufe et al. 2014, section 2.1: the second channel holds the noise alone, and gets a weight but no pattern."""
    rng = np.random.default_rng(2)
    signal, noise = rng.normal(size=(2, 4000))
    edges = np.stack([signal + noise, noise], axis=1)
    weights = np.array([1.0, -1.0])
    found = haufe_pattern(edges, edges @ weights)
    np.testing.assert_allclose(found, [1, 0], atol=0.05)
    covariance = np.cov(edges.T)
    np.testing.assert_allclose(found, covariance @ weights / (weights @ covariance @ weights), atol=1e-12)
    # nothing hangs on the output's zero; in twice the unit the change by unit is half
    np.testing.assert_allclose(haufe_pattern(edges, 5 + 2 * edges @ weights), found / 2, atol=1e-12)


def test_a_fold_without_a_pattern_has_none() -> None:
    edges, output = np.random.default_rng(3).normal(size=(6, 4)), np.arange(6.0)
    edges[2] = np.nan
    there = np.array([0, 1, 3, 4, 5])
    np.testing.assert_array_equal(haufe_pattern(edges, output), haufe_pattern(edges[there], output[there]))
    assert np.isnan(haufe_pattern(edges, np.full(6, 0.1))).all()
    assert np.isnan(haufe_pattern(edges[:3], output[:3])).all()
    with pytest.raises(StatisticsError, match=r"output of \(5,\)"):
        haufe_pattern(edges, output[:5])


def test_means_agreement_and_top_edges_by_name() -> None:
    folds = [np.array([1.0, -5, 0, 2, 0, 1]), np.array([3.0, -7, 0, -1, 0, 1]), np.array([2.0, 0, 0, -1, 0, -2.2])]
    found = edge_map(folds, REGIONS, method=PATTERN)
    np.testing.assert_allclose(found.mean, [2, -4, 0, 0, 0, -0.2 / 3])
    np.testing.assert_allclose(found.agreement[[0, 1, 2, 5]], [1, 2 / 3, 1, 1 / 3])
    assert [f"{e['a']} -- {e['b']}" for e in found.top(2)] == [edge_names(REGIONS)[1], edge_names(REGIONS)[0]]
    assert found.top(1) == [{"a": "a", "b": "c", "value": -4.0, "agreement": 2 / 3}]
    assert found.sums is None
    np.testing.assert_array_equal(edges_of(found.matrix[None])[0], found.mean)
    held = json.loads(json.dumps(found.to_dict(count=3), allow_nan=False))
    assert held["folds"] == 3
    assert len(held["mean"]) == 3
    assert held["network_sums"] is None


def test_stability_is_the_mean_over_pairs_of_folds_with_the_jackknife_s_interval() -> None:
    rng = np.random.default_rng(4)
    truth = rng.normal(size=300)
    folds = truth + rng.normal(size=(6, 300))
    found = fold_stability(folds)
    pairs = [spearmanr(a, b).statistic for a, b in combinations(folds, 2)]
    assert found.value == pytest.approx(np.mean(pairs), abs=1e-12)
    left = [fold_stability(np.delete(folds, k, axis=0)).value for k in range(6)]
    error = np.sqrt(5 / 6 * np.sum((np.array(left) - np.mean(left)) ** 2))
    assert found.high - found.value == pytest.approx(2.5706 * error, rel=1e-4)
    assert found.low == pytest.approx(2 * found.value - found.high)
    assert fold_stability(rng.normal(size=(6, 300))).value == pytest.approx(0, abs=0.06)
    two = fold_stability(folds[:2])
    assert (two.value, np.isnan(two.low)) == (pytest.approx(pairs[0]), True)
    assert np.isnan(fold_stability(folds[:1]).value)


def test_the_interval_of_stability_covers_what_new_folds_would_agree_on() -> None:
    """Of folds that are independent, as the jackknife takes them; nothing is claimed of how much real ones share."""
    rng = np.random.default_rng(5)
    truth = rng.normal(size=200)
    expected = fold_stability(truth + rng.normal(size=(400, 200))).value
    found = [fold_stability(truth + rng.normal(size=(8, 200))) for _ in range(200)]
    assert 0.88 < np.mean([one.low <= expected <= one.high for one in found]) < 1


def test_folds_that_say_nothing_are_left_out_and_that_is_told() -> None:
    good = np.arange(6.0)
    found = edge_map([good, np.full(6, np.nan), np.zeros(6), good + 1], REGIONS, method=ATTRIBUTION)
    assert found.folds == 2
    assert found.method == f"{ATTRIBUTION}; mean of 2 folds, 2 more without values left out"
    np.testing.assert_allclose(found.mean, good + 0.5)
    for folds in ([], [np.zeros(5)], [np.full(6, np.nan)]):
        with pytest.raises(StatisticsError):
            edge_map(folds, REGIONS, method=PATTERN)


def test_sums_by_pair_of_networks_beside_the_mean_by_edge() -> None:
    # ab ac ad bc bd cd
    mean = np.array([1.0, -2, 3, 4, 5, -6])
    told = {"a": "visual", "b": "visual", "c": "motor"}
    found = edge_map([mean, mean], REGIONS, method=PATTERN, networks=told)
    assert found.networks == {**told, "d": "no network"}
    assert found.sums is not None
    assert found.sums.names == ("visual", "motor", "no network")
    np.testing.assert_allclose(found.sums.sums, [[1, 6, 8], [6, 0, 6], [8, 6, 0]])
    np.testing.assert_array_equal(found.sums.counts, [[1, 2, 2], [2, 0, 1], [2, 1, 0]])
    np.testing.assert_allclose(found.sums.per_edge, [[1, 3, 4], [3, np.nan, 6], [4, 6, np.nan]])
    held = json.loads(json.dumps(found.to_dict(), allow_nan=False))["network_sums"]
    assert held["per_edge"][1] == [3, None, 6]
    assert held["matrix"][0] == [1, 6, 8]


def test_no_edge_is_lost_or_counted_twice_in_the_sums() -> None:
    rng = np.random.default_rng(6)
    mean, of = rng.normal(size=12 * 11 // 2), rng.choice(["x", "y", "z"], 12).tolist()
    found = network_sums(mean, of)
    assert np.triu(found.sums).sum() == pytest.approx(np.abs(mean).sum())
    assert np.triu(found.counts).sum() == len(mean)
