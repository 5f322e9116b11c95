"""Integrated gradients: what each feature or edge adds to a prediction (Sundararajan et al., ICML 2017).

It must not know what the features are, or how the network was fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tenfold.explain.grad_cam import evaluating, log_odds
from tenfold.network.fusion import present
from tenfold.network.network import Network
from tenfold.types import FloatArray

_MOST_STEPS = 4096
_CHUNK = 4096  # points that go through the network at once
_MOST_NUMBERS = 2**23  # in them together: a connectome is long


@dataclass(frozen=True)
class Attributions:
    """What each feature adds to the log-odds of a class, from the baseline on.

    Attributes:
        values: (n, features) or (n, edges); rows of NaN where a case has no such input.
        error: (n,) how far the sum of a row is from log_odds - base, at least 0: the integral is a sum of steps.
        base: (n,) log-odds with the baseline and the case's own other inputs.
        log_odds: (n,) of the cases as they are.
    """

    values: FloatArray
    error: FloatArray
    base: FloatArray
    log_odds: FloatArray


def integrated_gradients(
    network: Network,
    inputs: Mapping[str, Tensor],
    *,
    view: str,
    baseline: Tensor,
    target: str,
    index: int,
    steps: int = 64,
    start: Mapping[str, int] | None = None,
) -> Attributions:
    """Attribute the log-odds of a class to the features of a table or the edges of a connectome.

    Along the straight line from the baseline to the case, the gradient is taken in the middle of each step and
    multiplied with the way. A table feature's two channels are added up, so that having been observed counts as part of
    it. The other inputs are held as they are, and their encoders run once.

    Args:
        network: Any network of this package; its weights, gradients and mode are left as they were.
        inputs: As for `Network.forward`, n cases; that of `view` is (n, 2, features) or (n, edges).
        view: The input that is a table or a connectome.
        baseline: (2, features) or (edges,): the case that is compared with, usually the preparation's `baseline`.
        target: The head that is asked.
        index: The class, as a column of that head's logits.
        steps: Number of steps. A case whose error exceeds 1 % of |log_odds - base| + 0.001 gets four times as many,
            again and again up to 4096: a network of ReLUs bends, and a bend inside a step is missed.
        start: As for `Network.forward`, for the other inputs.

    Raises:
        EncoderError: A case has no input at all.
    """
    # Autograd refuses tensors that were born in inference mode, so the caller's are copied outside of it.
    with torch.inference_mode(False), torch.enable_grad(), evaluating(network):
        own = {name: tensor.detach().clone() for name, tensor in inputs.items()}
        there = present(own[view])
        table = own.pop(view)[there]
        way = table - baseline.to(table)
        with torch.no_grad():
            held = {name: rows[there] for name, rows in network.embed(own, start).items()}

        def ask(points: Tensor, rows: Tensor) -> Tensor:
            others = {name: embedded[rows] for name, embedded in held.items()}
            logits = network.join({**others, **network.embed({view: points})})[target]
            return log_odds(network.head_specs[target], logits.double(), index)

        every = torch.arange(len(table), device=table.device)
        with torch.no_grad():
            whole, base = ask(table, every), ask(table - way, every)
        values, error = way.new_zeros(len(way), way.shape[-1], dtype=torch.float64), torch.zeros_like(whole)
        pending = every
        while len(pending):
            mean = _mean_gradient(ask, table, way, pending, steps)
            added = way[pending].double() * mean
            values[pending] = added.sum(dim=1) if added.ndim == 3 else added
            error[pending] = (values[pending].sum(dim=1) - (whole - base)[pending]).abs()
            if steps >= _MOST_STEPS:
                break
            pending = every[error > 0.01 * (whole - base).abs() + 0.001]
            steps *= 4
        return Attributions(*(_spread(result, there) for result in (values, error, base, whole)))


def _mean_gradient(
    ask: Callable[[Tensor, Tensor], Tensor], table: Tensor, way: Tensor, rows: Tensor, steps: int
) -> Tensor:
    """Mean over the middles of the steps of the gradient with respect to the input, one a row."""
    total = torch.zeros(way.shape, dtype=torch.float64, device=way.device)
    left = 1 - (torch.arange(steps, device=way.device) + 0.5) / steps
    chunk = max(1, min(_CHUNK, _MOST_NUMBERS // way[0].numel()))
    pairs = zip(rows.repeat_interleave(steps).split(chunk), left.repeat(len(rows)).split(chunk), strict=True)
    for row, share in pairs:
        points = (table[row] - share.view(-1, *(1,) * (way.ndim - 1)) * way[row]).requires_grad_()
        (gradient,) = torch.autograd.grad(ask(points, row).sum(), points)
        total.index_add_(0, row, gradient.double())
    return total[rows] / steps


def _spread(result: Tensor, there: Tensor) -> FloatArray:
    """Put the results of the cases that have the input into their places; NaN for the others."""
    whole = result.new_full((len(there), *result.shape[1:]), torch.nan)
    whole[there] = result
    return np.asarray(whole.cpu().numpy(), np.float64)
