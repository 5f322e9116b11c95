"""What moved the answer to one case: heat maps, shares of the inputs, contributions of table columns.

It must not know how the case came or where it will be shown. Everything is averaged over the models of the bundle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tenfold.bundle import Predictor
from tenfold.errors import EncoderError
from tenfold.explain.grad_cam import map_step, raw_grad_cam
from tenfold.explain.importance import sum_by_column
from tenfold.explain.integrated_gradients import integrated_gradients
from tenfold.types import FloatArray

Prepared = Mapping[str, NDArray[Any] | None]


@dataclass(frozen=True)
class Explanation:
    """What moved one answer.

    Attributes:
        target: Which answer.
        class_name: The class that everything speaks for or against.
        heat: Input of pictures -> (h, w) in [0, 1], of several pictures (k, h, w) on one scale.
        shares: Input -> share of what moved the answer; None where it cannot be told.
        contributions: Table -> (columns,) added to the log-odds.
    """

    target: str
    class_name: str
    heat: Mapping[str, NDArray[np.float32]]
    shares: Mapping[str, float] | None
    contributions: Mapping[str, FloatArray]


def explain(predictor: Predictor, prepared: Prepared, class_name: str, *, prevalence: float | None) -> Explanation:
    """Explain one case to the target that the predictor looks at.

    Args:
        predictor: The bundle.
        prepared: The case, as `Predictor.prepare` gives it.
        class_name: The class to explain.
        prevalence: Its share in the study: what is said of a patient of whom nothing is known. None where that is
            not known; then there are no shares.
    """
    index = predictor.classes.index(class_name)
    stacks = predictor.stack([prepared])
    tensors = [predictor.tensors(stacks, member) for member in range(len(predictor.members))]
    heat = {name: _heat(predictor, tensors, name, index) for name in predictor.preparations if name in stacks}
    return Explanation(
        target=predictor.target,
        class_name=class_name,
        heat={name: found for name, found in heat.items() if found is not None},
        shares=_shares(predictor, tensors, index, prevalence),
        contributions={
            name: _contributions(predictor, tensors, name, index) for name in predictor.columns if name in stacks
        },
    )


def _heat(predictor: Predictor, tensors: list[dict[str, Tensor]], name: str, index: int) -> NDArray[np.float32] | None:
    """The mean map of all models, its highest point 1; None for an encoder without maps."""
    layer = int(predictor.facts.get("heat_map_layer", 1))
    total: NDArray[np.float32] | None = None
    for network, inputs in zip(predictor.networks, tensors, strict=True):
        pictures = inputs[name][0] if inputs[name].ndim == 5 else inputs[name]
        try:
            step = map_step(network.encoders[name], pictures, layer)
        except EncoderError:
            return None
        (raw,) = raw_grad_cam(network, inputs, view=name, target=predictor.target, index=index, step=step)
        total = raw if total is None else total + raw
    assert total is not None  # a bundle has a model
    top = np.nanmax(total)
    return np.nan_to_num(total / top if top > 0 else total).astype(np.float32)


def _contributions(predictor: Predictor, tensors: list[dict[str, Tensor]], name: str, index: int) -> FloatArray:
    """(columns,) what each added to the log-odds, mean of all models; 0 where screening left a column out."""
    total = np.zeros(len(predictor.columns[name]))
    members = zip(predictor.networks, tensors, predictor.tables, predictor.calibrations, strict=True)
    for network, inputs, tables, calibration in members:
        fitted = tables[name]
        found = integrated_gradients(
            network,
            inputs,
            view=name,
            baseline=torch.from_numpy(fitted.baseline()),
            target=predictor.target,
            index=index,
        )
        added = sum_by_column(found.values, fitted.column_of)[0] / calibration.temperature
        # a model that looks at no column that the case has takes its table for absent
        total[list(fitted.kept)] += np.nan_to_num(added)
    return total / len(tensors)


def _shares(
    predictor: Predictor, tensors: list[dict[str, Tensor]], index: int, prevalence: float | None
) -> dict[str, float] | None:
    """Share of each input in what moved the answer away from the prevalence, by exact Shapley values (Shapley 1953).

    An input outside of a coalition is absent, as the network learned it by modality dropout; without that there is no
    such question. Of no input at all the prevalence is said.
    """
    there = [name for name in predictor.inputs if name in tensors[0]]
    if len(there) < 2 or not predictor.networks[0].fusion.drop or prevalence is None or not 0 < prevalence < 1:
        return None
    coalitions = [frozenset(c) for size in range(1, len(there) + 1) for c in combinations(there, size)]
    answers = np.mean([_ask(predictor, m, own, coalitions) for m, own in enumerate(tensors)], axis=0)[:, index]
    worth = dict(zip(coalitions, _log_odds(answers), strict=True))
    worth[frozenset()] = float(_log_odds(np.array([prevalence]))[0])
    m = len(there)
    values = {
        name: sum((worth[c] - worth[c - {name}]) / (m * comb(m - 1, len(c) - 1)) for c in coalitions if name in c)
        for name in there
    }
    total = sum(map(abs, values.values()))
    return {name: abs(value) / total if total > 0 else 1 / m for name, value in values.items()}


@torch.inference_mode()
def _ask(predictor: Predictor, member: int, own: Mapping[str, Tensor], coalitions: list[frozenset[str]]) -> FloatArray:
    """(coalitions, classes) what one model says; every encoder runs once."""
    network = predictor.networks[member]
    embedded = {name: rows.repeat(len(coalitions), 1) for name, rows in network.embed(own).items()}
    for name, rows in embedded.items():
        rows[[k for k, coalition in enumerate(coalitions) if name not in coalition]] = torch.nan
    # a model may take a table for absent in which it looks at nothing; then a coalition of it alone asks nothing
    some = torch.stack([~torch.isnan(rows[:, 0]) for rows in embedded.values()]).any(dim=0).numpy()
    said = np.full((len(coalitions), len(predictor.classes)), 1 / len(predictor.classes))
    kept = {name: rows[torch.from_numpy(some)] for name, rows in embedded.items()}
    scores = network.to_scores(predictor.target, network.join(kept)[predictor.target])
    said[some] = predictor.calibrations[member].apply(scores)
    return said


def _log_odds(p: FloatArray) -> FloatArray:
    clipped = np.clip(p, 1e-12, 1 - 1e-12)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))
