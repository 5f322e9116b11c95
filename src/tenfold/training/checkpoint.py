"""Checkpoints: what a killed fit needs to go on with the same result. Safetensors, never pickle.

It must not know the loop. Nothing random is saved: every epoch draws from its own seed.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from tenfold.types import write_atomically

_SECONDS_BETWEEN = 20.0


class Checkpoint:
    """The state of one fit: learned tensors, their average, the best so far, the optimiser, the history.

    Args:
        path: The file; None keeps the best weights in memory alone.
        optimizer: Restored in place.
        learned: The network's own tensors that training changes; restored in place.
        average: Their running average, or `learned` itself where none is kept.
    """

    def __init__(
        self,
        path: Path | None,
        optimizer: torch.optim.Optimizer,
        learned: dict[str, Tensor],
        average: dict[str, Tensor],
    ) -> None:
        self._path, self._optimizer, self._learned, self._average = path, optimizer, learned, average
        self._best: dict[str, Tensor] = {}
        self._written = time.monotonic()

    def remember_best(self) -> None:
        """Keep a copy of the learned tensors as they are now."""
        self._best = {name: tensor.detach().clone() for name, tensor in self._learned.items()}

    def load_best(self) -> None:
        """Put the best tensors back into the network."""
        with torch.no_grad():
            for name, tensor in self._best.items():
                self._learned[name].copy_(tensor)

    def write(self, history: list[dict[str, float]]) -> None:
        """Write the state, unless it was written a moment ago: going on from an earlier epoch gives the same."""
        if self._path is None or time.monotonic() - self._written < _SECONDS_BETWEEN:
            return
        tensors: dict[str, Tensor] = {}
        for kind, group in (("learned", self._learned), ("average", self._average), ("best", self._best)):
            tensors |= {f"{kind}/{name}": tensor for name, tensor in group.items()}
        for index, state in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{name}": torch.as_tensor(value) for name, value in state.items()}
        plain = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
        write_atomically(self._path, save(plain, metadata={"history": json.dumps(history)}))
        self._written = time.monotonic()

    def restore(self) -> list[dict[str, float]]:
        """Put everything back as it was written; return the history, empty where there is nothing to go on from."""
        if self._path is None or not self._path.is_file():
            return []
        state = self._optimizer.state_dict()
        with safe_open(str(self._path), framework="pt") as file:
            history: list[dict[str, float]] = json.loads(file.metadata()["history"])
            with torch.no_grad():
                for key in file.keys():  # noqa: SIM118 - no mapping
                    kind, _, name = key.partition("/")
                    tensor = file.get_tensor(key)
                    if kind == "optimizer":
                        index, _, part = name.partition("/")
                        state["state"].setdefault(int(index), {})[part] = tensor
                    elif kind == "best":
                        self._best[name] = tensor
                    else:
                        {"learned": self._learned, "average": self._average}[kind][name].copy_(tensor)
        self._optimizer.load_state_dict(state)
        # A fused optimiser walks a parameter and its moments by address: they must have the same strides.
        for parameter, moments in self._optimizer.state.items():
            for part, value in moments.items():
                if value.shape == parameter.shape:
                    moments[part] = torch.empty_like(parameter).copy_(value)
        return history
