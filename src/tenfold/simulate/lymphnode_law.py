"""The law of simulated cervical lymph nodes: three classes, their attributes by view, and Bayes.

It must not know pictures, files or patients.

A node is benign, a lymphoma or a metastasis. Given the class its attributes are independent, each belongs to one view,
and everything that a picture shows of the class goes through them: the posterior is a product over the attributes
seen, exact. The figures of the three views are those of the design's calibrated table (systems.md 3.3, sources named
there). The neck level is no part of that table and of no picture; its shares are ours, so that the clinical table
has something of its own.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from tenfold.types import FloatArray, IntArray

CLASSES = ("benign", "lymphoma", "metastatic")
PRIOR = (0.40, 0.20, 0.40)
VIEWS = ("b_mode", "cdfi", "elastography")
FLOWS = ("none", "hilar", "peripheral", "mixed")
LEVELS = ("I", "II", "III", "IV", "V", "VI")
_DRAWS = 60_000

Node = Mapping[str, FloatArray]
"""Name of an attribute -> its value, (n,) each: mm, kPa, a ratio, a z score, 0 or 1, or the index of a level."""


@dataclass(frozen=True)
class Measure:
    """An attribute that is Gaussian within a class, on its own or a logarithmic scale.

    Attributes:
        name: Of the attribute.
        view: Where it is seen; empty: in no picture.
        mean: By class, on the scale.
        sd: By class.
        log: Whether the scale is the natural logarithm.
    """

    name: str
    view: str
    mean: tuple[float, float, float]
    sd: tuple[float, float, float]
    log: bool = False

    def draw(self, which: IntArray, rng: np.random.Generator) -> FloatArray:
        """Draw one value for each class index (n,), (n,)."""
        value = np.take(self.mean, which) + np.take(self.sd, which) * rng.standard_normal(len(which))
        return np.exp(value) if self.log else np.asarray(value)

    def evidence(self, value: FloatArray) -> FloatArray:
        """Return the log density given each class up to a constant, (n, 3)."""
        scaled = (np.log(value) if self.log else value)[:, None]
        return np.asarray(-0.5 * ((scaled - self.mean) / np.asarray(self.sd)) ** 2 - np.log(self.sd))


@dataclass(frozen=True)
class Choice:
    """An attribute of which there are a few kinds; a value is the index of one.

    Attributes:
        name: Of the attribute.
        view: Where it is seen; empty: in no picture.
        shares: By class, one a kind, of sum 1.
    """

    name: str
    view: str
    shares: tuple[tuple[float, ...], ...]

    def draw(self, which: IntArray, rng: np.random.Generator) -> FloatArray:
        """Draw one kind for each class index (n,), (n,)."""
        before = np.cumsum(self.shares, axis=1)[which, :-1]
        return np.asarray((rng.random(len(which))[:, None] >= before).sum(axis=1), np.float64)

    def evidence(self, value: FloatArray) -> FloatArray:
        """Return the log probability given each class, (n, 3)."""
        return np.asarray(np.log(self.shares).T[value.astype(np.int64)])


def _sign(name: str, *present: float) -> Choice:
    """A sign of a grey picture or a stiffness map that is there (1) or not (0)."""
    view = "elastography" if name == "stiff_rim" else "b_mode"
    return Choice(name, view, tuple((1 - p, p) for p in present))


ATTRIBUTES: tuple[Measure | Choice, ...] = (
    Measure("short_axis", "b_mode", (math.log(8), math.log(11.5), math.log(10)), (0.40, 0.42, 0.42), log=True),
    Measure("long_short", "b_mode", (1.95, 1.65, 1.65), (0.50, 0.45, 0.45)),
    _sign("hilum", 0.65, 0.35, 0.25),
    _sign("sharp", 0.85, 0.80, 0.68),
    _sign("hypoechoic", 0.35, 0.65, 0.45),
    _sign("reticulation", 0.03, 0.20, 0.05),
    _sign("necrosis", 0.02, 0.04, 0.15),
    _sign("calcification", 0.04, 0.02, 0.13),
    _sign("matting", 0.08, 0.18, 0.13),
    Choice("flow", "cdfi", ((0.30, 0.55, 0.05, 0.10), (0.07, 0.45, 0.13, 0.35), (0.18, 0.17, 0.32, 0.33))),
    Measure("flow_density", "cdfi", (0.0, 0.6, 0.35), (1.0, 1.0, 1.0)),
    Measure("kpa", "elastography", (math.log(15), math.log(28), math.log(60)), (0.38, 0.36, 0.50), log=True),
    _sign("stiff_rim", 0.03, 0.08, 0.40),
    Measure("heterogeneity", "elastography", (0.0, 0.6, 1.4), (1.0, 1.0, 1.0)),
    Choice(
        "level",
        "",
        (
            (0.15, 0.35, 0.15, 0.05, 0.25, 0.05),
            (0.06, 0.27, 0.22, 0.15, 0.26, 0.04),
            (0.05, 0.20, 0.25, 0.28, 0.12, 0.10),
        ),
    ),
)
NAMES = tuple(a.name for a in ATTRIBUTES)


def draw_nodes(which: IntArray, rng: np.random.Generator) -> dict[str, FloatArray]:
    """Draw all attributes of nodes whose classes (n,) are given as indices into `CLASSES`."""
    return {attribute.name: attribute.draw(which, rng) for attribute in ATTRIBUTES}


def draw_views(n: int, missing: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw which views are there, (n, 3): each is missing with the same chance, never all three."""
    there = rng.random((n, len(VIEWS))) >= missing
    spared = rng.integers(len(VIEWS), size=n)
    there[np.arange(n), spared] |= ~there.any(axis=1)
    return there


@dataclass(frozen=True)
class Posteriors:
    """The exact probabilities of the classes of some nodes, (n, 3) each.

    Attributes:
        b_mode: From the grey picture.
        cdfi: From colour Doppler.
        elastography: From the stiffness map.
        fused: From all three.
        fused_observed: From those views that are there.
        clinical_observed: From these and the neck level.
    """

    b_mode: FloatArray
    cdfi: FloatArray
    elastography: FloatArray
    fused: FloatArray
    fused_observed: FloatArray
    clinical_observed: FloatArray

    @classmethod
    def of(cls, node: Node, there: NDArray[np.bool_]) -> Posteriors:
        """Apply Bayes' rule.

        Args:
            node: The attributes, (n,) each.
            there: Which of `VIEWS` there are, (n, 3).
        """
        by_view = [_evidence(node, (view,)) for view in VIEWS]
        observed = sum((e * there[:, [i]] for i, e in enumerate(by_view)), np.zeros((len(there), len(CLASSES))))
        parts = (*by_view, _evidence(node, VIEWS), observed, observed + _evidence(node, ("",)))
        return cls(*(_normalised(part) for part in parts))


def _evidence(node: Node, views: Collection[str]) -> FloatArray:
    found = [a.evidence(node[a.name]) for a in ATTRIBUTES if a.view in views]
    return np.asarray(np.sum(found, axis=0))


def _normalised(evidence: FloatArray) -> FloatArray:
    return np.asarray(special.softmax(evidence + np.log(PRIOR), axis=1))


@cache
def ceilings(missing_views: float = 0.0) -> dict[str, dict[str, float]]:
    """Return what each exact posterior reaches, by Monte Carlo with 60,000 nodes (standard error of an AUC 0.001).

    Args:
        missing_views: The chance that a patient lacks a view, for the posteriors of what is observed.

    Returns:
        Name of a posterior as in `Posteriors` -> {"macro_ovo_auc", "accuracy", and "A | B" for each pair of classes}.
    """
    rng = np.random.default_rng(0)
    which = rng.choice(len(CLASSES), _DRAWS, p=PRIOR)
    found = Posteriors.of(draw_nodes(which, rng), draw_views(_DRAWS, missing_views, rng))
    return {name: figures(p, which) for name, p in vars(found).items()}


def figures(p: FloatArray, which: IntArray) -> dict[str, float]:
    """Return macro one-vs-one AUC (Hand & Till, Mach Learn 2001;45:171-186), accuracy, and the AUC of each pair.

    Args:
        p: Probabilities of the classes, (n, 3).
        which: The true classes, (n,).
    """
    pairs = {
        f"{CLASSES[a]} | {CLASSES[b]}": (_auc(p[:, a], which, a, b) + _auc(p[:, b], which, b, a)) / 2
        for a, b in combinations(range(len(CLASSES)), 2)
    }
    accuracy = float(np.mean(p.argmax(axis=1) == which))
    return {"macro_ovo_auc": sum(pairs.values()) / len(pairs), "accuracy": accuracy, **pairs}


def _auc(score: FloatArray, which: IntArray, one: int, other: int) -> float:
    """Area under the curve of a score for one class against another, ties counting half."""
    both = (which == one) | (which == other)
    ill = which[both] == one
    n, m = int(ill.sum()), int((~ill).sum())
    return float((stats.rankdata(score[both])[ill].sum() - n * (n + 1) / 2) / (n * m))
