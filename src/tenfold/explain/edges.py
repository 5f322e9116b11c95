"""What the edges of a connectome say about a prediction: one value an edge and fold, and what the folds agree on.

It must not know how networks were fitted, or where the figures will be drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata
from scipy.stats import t as student

from tenfold.errors import StatisticsError
from tenfold.modalities.connectivity import matrix_of
from tenfold.types import Estimate, FloatArray, IntArray, finite_or_none

UNNAMED_NETWORK = "no network"
ATTRIBUTION = "integrated gradients, mean over test cases, signed by the side of the baseline the edge is on"
PATTERN = "covariance of edge and log-odds over variance of the log-odds (Haufe et al. 2014), in test cases"

_FEWEST_CASES = 3
_FEWEST_FOLDS = 3


@dataclass(frozen=True, eq=False)
class NetworkSums:
    """Edges summed by the pair of networks that they join.

    Attributes:
        names: Networks, in order of their first region.
        sums: (networks, networks) symmetric: sum of |mean| of the edges between two; large pairs have large sums.
        per_edge: The same divided by the number of edges; NaN where a pair has none.
        counts: How many edges each pair has.
    """

    names: tuple[str, ...]
    sums: FloatArray
    per_edge: FloatArray
    counts: IntArray

    def to_dict(self) -> dict[str, Any]:
        """Return a mapping fit for JSON: "matrix" holds the sums; NaN is written as null."""
        return {
            "names": list(self.names),
            "matrix": self.sums.tolist(),
            "per_edge": [[finite_or_none(value) for value in row] for row in self.per_edge.tolist()],
            "edges": self.counts.tolist(),
        }


@dataclass(frozen=True, eq=False)
class EdgeMap:
    """What edges say about a target, over folds.

    Attributes:
        method: What the values are, and on how many folds they rest.
        regions: Names.
        networks: The network of each region; empty where none was told.
        mean: (edges,) mean over folds, in the order of `edges_of`.
        agreement: (edges,) share of folds whose value has the sign of the mean.
        stability: Mean rank correlation of two folds' values, the edges' signs kept.
        sums: By pair of networks; None where no network was told.
        folds: On how many folds it rests.
    """

    method: str
    regions: tuple[str, ...]
    networks: Mapping[str, str]
    mean: FloatArray
    agreement: FloatArray
    stability: Estimate
    sums: NetworkSums | None
    folds: int

    @property
    def matrix(self) -> FloatArray:
        """(regions, regions) the means, 0 on the diagonal."""
        return matrix_of(self.mean)

    def top(self, count: int = 40) -> list[dict[str, Any]]:
        """Return the edges of largest |mean|, the largest first: "a", "b" (regions), "value" and "agreement"."""
        rows, columns = np.triu_indices(len(self.regions), 1)
        return [
            {
                "a": self.regions[rows[j]],
                "b": self.regions[columns[j]],
                "value": float(self.mean[j]),
                "agreement": float(self.agreement[j]),
            }
            for j in np.argsort(-np.abs(self.mean), kind="stable")[:count].tolist()
        ]

    def to_dict(self, count: int = 40) -> dict[str, Any]:
        """Return a mapping fit for JSON, with the edges of largest |mean| as "mean"."""
        return {
            "method": self.method,
            "folds": self.folds,
            "regions": list(self.regions),
            "networks": dict(self.networks),
            "mean": self.top(count),
            "network_sums": self.sums.to_dict() if self.sums else None,
            "stability": self.stability.to_dict(),
        }


def signed_attribution(attributions: FloatArray, edges: FloatArray, baseline: FloatArray) -> FloatArray:
    """Turn a fold's integrated gradients into one value an edge that says which way it acts (`ATTRIBUTION`).

    A plain mean would be near 0: cases on both sides of the baseline cancel. So each attribution is taken with the
    sign of edge - baseline. Above 0: a stronger edge speaks for the class. Of a linear model it is the weight times
    the mean |edge - baseline|; its size is the mean |attribution| where the edge acts one way in all cases.

    Args:
        attributions: (n, edges) `Attributions.values` of the fold's test cases; a row of NaN has no connectome.
        edges: (n, edges) what the network was given.
        baseline: (edges,) what they were compared with.

    Returns:
        (edges,), in units of log-odds; NaN throughout where no case has a connectome.

    Raises:
        StatisticsError: The shapes do not fit each other.
    """
    if attributions.shape != edges.shape or attributions.shape[1:] != baseline.shape:
        raise StatisticsError(
            f"attributions of {attributions.shape}, edges of {edges.shape} and a baseline of {baseline.shape}",
            expected="(cases, edges) twice, and (edges,)",
        )
    there = ~np.isnan(attributions).any(axis=1)
    if not there.any():
        return np.full(attributions.shape[1], np.nan)
    return np.asarray((attributions[there] * np.sign(edges[there] - baseline)).mean(axis=0))


def haufe_pattern(edges: FloatArray, output: FloatArray) -> FloatArray:
    """Turn what a model does into what the edges show: its activation pattern.

    A weight may be large only because it cancels noise that another edge shares. The pattern, Cov(x) w / Var(w.x),
    says how edges differ where the output does (Haufe et al., NeuroImage 2014;87:96-110). For a linear model it equals
    Cov(x, output) / Var(output), and that is what is taken, whatever the model: of a nonlinear one it is the pattern of
    its best linear copy on these cases. Hand over test cases and the output of the network that did not see them.

    Args:
        edges: (n, edges) what the model was given; a row of NaN (no connectome) is left out.
        output: (n,) its log-odds, or its score.

    Returns:
        (edges,) change of each edge by unit of output; NaN throughout with fewer than 3 cases or a constant output.

    Raises:
        StatisticsError: The lengths differ.
    """
    if edges.ndim != 2 or output.shape != (len(edges),):
        raise StatisticsError(f"edges of {edges.shape} and output of {output.shape}", expected="(n, edges) and (n,)")
    there = ~np.isnan(edges).any(axis=1) & ~np.isnan(output)
    values, scores = edges[there], output[there]
    if len(scores) < _FEWEST_CASES or np.ptp(scores) <= 1e-9 * max(1.0, float(np.abs(scores).max())):
        return np.full(edges.shape[1], np.nan)
    centred = scores - scores.mean()
    return np.asarray(centred @ (values - values.mean(axis=0)) / (centred @ centred))


def edge_map(
    folds: Sequence[FloatArray], regions: Sequence[str], *, method: str, networks: Mapping[str, str] | None = None
) -> EdgeMap:
    """Join the folds' values of the edges.

    Args:
        folds: One (edges,) a fold, of `signed_attribution` or `haufe_pattern`; one with NaN, or the same value
            throughout, has nothing to say and is left out, which the method then tells.
        regions: Their names, as in the matrices.
        method: What the values are: `ATTRIBUTION` or `PATTERN`.
        networks: The network of each region, by region; one without a network counts as "no network".

    Raises:
        StatisticsError: No fold has values, or their number is not that of the regions' edges.
    """
    count = len(regions) * (len(regions) - 1) // 2
    if not folds or any(fold.shape != (count,) for fold in folds):
        shapes = ", ".join(sorted({str(fold.shape) for fold in folds})) or "no folds"
        raise StatisticsError(
            f"values of {shapes} for {len(regions)} regions", expected=f"one ({count},) a fold: a value an edge"
        )
    kept = np.stack(folds)
    kept = kept[~np.isnan(kept).any(axis=1) & (np.ptp(kept, axis=1) > 0)]
    if not len(kept):
        raise StatisticsError(
            f"none of {len(folds)} folds has values of edges", expected="test cases that the model tells apart"
        )
    mean = kept.mean(axis=0)
    left = f", {len(folds) - len(kept)} more without values left out" if len(kept) < len(folds) else ""
    told = {region: networks.get(region, "") or UNNAMED_NETWORK for region in regions} if networks else {}
    return EdgeMap(
        method=f"{method}; mean of {len(kept)} folds{left}",
        regions=tuple(regions),
        networks=told,
        mean=mean,
        agreement=np.asarray((np.sign(kept) == np.sign(mean)).mean(axis=0)),
        stability=fold_stability(kept),
        sums=network_sums(mean, [told[region] for region in regions]) if told else None,
        folds=len(kept),
    )


def fold_stability(folds: FloatArray) -> Estimate:
    """Return the mean Spearman correlation between the values of two folds, over all pairs of folds.

    The interval is the delete-one-fold jackknife's, made for such means over pairs (Arvesen, Ann Math Stat
    1969;40:2076-2100), with Student's t. Folds share training cases: it says how far the mean hangs on single folds.
    Of models fitted on other patients it would be wider, and the correlation lower.

    Args:
        folds: (folds, edges), none of them the same value throughout.
    """
    n = len(folds)
    method = "mean Spearman correlation of two folds' edges"
    if n < 2:
        return Estimate(np.nan, np.nan, np.nan, f"{method}; one fold, so none; n = folds", n)
    pairs = np.corrcoef(np.apply_along_axis(rankdata, 1, folds))
    np.fill_diagonal(pairs, 0.0)
    total = pairs.sum()
    value = float(total / (n * (n - 1)))
    if n < _FEWEST_FOLDS:
        return Estimate(value, np.nan, np.nan, f"{method}; {n} folds, so no interval; n = folds", n)
    without = (total - 2 * pairs.sum(axis=0)) / ((n - 1) * (n - 2))
    error = float(np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum()))
    half = float(student.ppf(0.975, n - 1)) * error
    method += "; 95 % by the jackknife over folds, which share training cases; n = folds"
    return Estimate(value, max(-1.0, value - half), min(1.0, value + half), method, n)


def network_sums(mean: FloatArray, networks: Sequence[str]) -> NetworkSums:
    """Sum |values| of edges by the pair of networks that they join.

    Args:
        mean: (edges,) in the order of `edges_of`.
        networks: The network of each region, in the regions' order.
    """
    names = tuple(dict.fromkeys(networks))
    member = (np.array(networks)[:, None] == np.array(names)).astype(np.float64)
    sums = member.T @ matrix_of(np.abs(mean)) @ member
    counts = member.T @ matrix_of(np.ones_like(mean)) @ member
    # within a network every edge was met from both of its ends
    half = np.where(np.eye(len(names), dtype=bool), 0.5, 1.0)
    sums, counts = sums * half, np.rint(counts * half)
    per_edge = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    return NetworkSums(names, sums, per_edge, counts.astype(np.int64))
