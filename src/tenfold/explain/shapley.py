"""Exact Shapley values over inputs: how far film and laboratory each moved a prediction (Shapley 1953).

It must not know what the inputs are, or how the network was fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
import torch
from torch import Tensor

from tenfold.errors import EncoderError
from tenfold.explain.grad_cam import evaluating, log_odds
from tenfold.explain.interval import mean_by_patient, patient_numbers
from tenfold.network.fusion import present
from tenfold.network.network import Network
from tenfold.types import Estimate, FloatArray

_ROWS = 8192


@dataclass(frozen=True)
class ModalityShapley:
    """What each input adds to the log-odds of a class, from what is said of a case of which nothing is known.

    Attributes:
        names: The m inputs, in the network's order.
        values: (n, m); an input that a case lacks has a value too: its absence moves the prediction.
        base: Mean log-odds over the background; base + values.sum(1) are the log-odds.
        log_odds: (n,) of the cases.
    """

    names: tuple[str, ...]
    values: FloatArray
    base: float
    log_odds: FloatArray

    def shares(self, patients: Sequence[str] | None = None, seed: int = 0) -> dict[str, Estimate]:
        """Mean share of each input in what moved the predictions, |value| over the sum of them, by input.

        Args:
            patients: n names, so that the intervals go by patient; None where every case is its own patient.
            seed: Of the bootstrap.
        """
        sizes = np.abs(self.values)
        total = sizes.sum(axis=1, keepdims=True)
        shares = np.divide(sizes, total, out=np.full_like(sizes, 1 / len(self.names)), where=total > 0)
        numbers = patient_numbers(patients, len(shares))
        what = "mean share of |Shapley value|"
        return {name: mean_by_patient(shares[:, j], numbers, seed, what) for j, name in enumerate(self.names)}


def modality_shapley(
    network: Network,
    inputs: Mapping[str, Tensor],
    background: Mapping[str, Tensor],
    *,
    target: str,
    index: int,
    start: Mapping[str, int] | None = None,
) -> ModalityShapley:
    """Return the exact Shapley values of a network's inputs, in log-odds.

    All 2^m coalitions are asked. An input outside of a coalition is replaced by that of each background case in
    turn and the log-odds are averaged (the interventional value function: Lundberg & Lee, NeurIPS 2017; Janzing
    et al., AISTATS 2020). Every encoder runs once a case; the coalitions join what it gave.

    Args:
        network: Any network of this package; its weights, gradients and mode are left as they were.
        inputs: As for `Network.forward`, n cases.
        background: The same of cases that stand for everybody, usually of the training part; each has every input.
        target: The head that is asked.
        index: The class, as a column of that head's logits.
        start: As for `Network.forward`, for inputs and background alike.

    Raises:
        EncoderError: There is no background, or a case of it lacks an input; a case lacks every input.
    """
    names = network.input_names
    with torch.no_grad(), evaluating(network):
        cases = _embedded(network, inputs, start)
        others = _embedded(network, background, start)
        _check_background(others)
        head = network.head_specs[target]

        def ask(embeddings: Mapping[str, Tensor]) -> FloatArray:
            logits = network.join(embeddings)[target].double()
            return np.asarray(log_odds(head, logits, index).cpu().numpy())

        whole, base = ask(cases), float(ask(others).mean())
        worth = {frozenset[str](): np.full(len(whole), base), frozenset(names): whole}
        for size in range(1, len(names)):
            for coalition in map(frozenset, combinations(names, size)):
                worth[coalition] = _average(ask, cases, others, coalition)
    values = np.stack([_value(worth, name, len(names)) for name in names], axis=1)
    return ModalityShapley(names, values, base, whole)


def _embedded(network: Network, inputs: Mapping[str, Tensor], start: Mapping[str, int] | None) -> dict[str, Tensor]:
    """Embeddings of every input of the network; NaN where an input is not named."""
    found = network.embed(inputs, start)
    if not found:
        return {}
    some = next(iter(found.values()))
    return {
        name: found[name] if name in found else some.new_full((len(some), encoder.dim), torch.nan)
        for name, encoder in network.encoders.items()
    }


def _check_background(others: Mapping[str, Tensor]) -> None:
    lacking = [name for name, rows in others.items() if not bool(present(rows).all())]
    if lacking or not others or not len(next(iter(others.values()))):
        raise EncoderError(
            f"a background with cases that have no {lacking[0]}" if lacking else "a background without cases",
            expected="cases with every input, to stand for an input that is left out",
            do="pick the background among complete cases",
        )


def _average(
    ask: Callable[[Mapping[str, Tensor]], FloatArray],
    cases: Mapping[str, Tensor],
    others: Mapping[str, Tensor],
    coalition: frozenset[str],
) -> FloatArray:
    """Mean answer over the background for each case, the inputs outside of the coalition being the background's."""
    n, b = (len(next(iter(rows.values()))) for rows in (cases, others))
    step = max(1, _ROWS // b)
    parts = []
    for first in range(0, n, step):
        taken = min(step, n - first)
        mixed = {
            name: rows[first : first + taken].repeat_interleave(b, dim=0)
            if name in coalition
            else others[name].repeat(taken, 1)
            for name, rows in cases.items()
        }
        parts.append(ask(mixed).reshape(taken, b).mean(axis=1))
    return np.concatenate(parts)


def _value(worth: Mapping[frozenset[str], FloatArray], name: str, m: int) -> FloatArray:
    """Average what an input adds over all orders in which the inputs can come."""
    added = [
        (worth[with_it] - worth[with_it - {name}]) / (m * comb(m - 1, len(with_it) - 1))
        for with_it in worth
        if name in with_it
    ]
    return np.asarray(np.sum(added, axis=0))
