"""OpenVINO as another engine: the networks' pictures go through it, and the same probabilities come out, sooner.

It must not know how a case came, or what is said of it.
"""

from __future__ import annotations

import importlib
import sys
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from tenfold.bundle import Predictor
from tenfold.bundle.predictor import Prepared
from tenfold.bundle.reference import Judged, Reference, pooled
from tenfold.encoders import Encoder
from tenfold.network.fusion import numbers, present
from tenfold.network.views import view
from tenfold.types import FloatArray

LARGEST_DIFFERENCE = 0.01


@dataclass(frozen=True, eq=False)
class Looked:
    """What one look at some cases gives.

    Attributes:
        probabilities: Target -> (members, n, classes), calibrated.
        judged: Input of pictures -> how far its pictures lie, those that are there, case by case; only inputs of which
            the bundle knows a reference.
    """

    probabilities: Mapping[str, FloatArray]
    judged: Mapping[str, Judged]


class Fast:
    """A bundle whose encoders of pictures run in OpenVINO, in float32. Make one with `fast`.

    What follows the encoders (pools, fusion, heads, calibration), tables and connectomes stay in torch: they cost
    nothing, and so a case may lack inputs or have any number of pictures, as it may for the predictor.
    """

    def __init__(self, predictor: Predictor, compiled: Mapping[str, _Compiled]) -> None:
        self._predictor = predictor
        self._calibrations = {target: predictor.of(target).calibrations for target in predictor.targets}
        self._compiled = dict(compiled)

    def look(self, prepared: Mapping[str, Prepared]) -> Looked:
        """Return what each model says of every target, and how far the pictures lie, of one pass.

        Args:
            prepared: Input -> stacked arrays, as `Predictor.stack` gives them.
        """
        predictor = self._predictor
        pictures = predictor.tensors({n: value for n, value in prepared.items() if n in self._compiled})
        rows = {n: value for n, value in prepared.items() if n not in self._compiled}
        others = [predictor.tensors(rows, member) for member in range(len(predictor.members))]
        scores: dict[str, list[FloatArray]] = {target: [] for target in self._predictor.targets}
        judged: dict[str, Judged] = {}
        for index in range(predictor.views):
            embedded = {}
            for name, x in pictures.items():
                embedded[name], features = self._embed(name, x, index)
                if features and index == 0:
                    judged[name] = predictor.references[name].judge_features(features)
            for target, found in self._scores(embedded, others).items():
                scores[target].append(found)
        return Looked({t: self._calibrated(t, np.mean(found, axis=0)) for t, found in scores.items()}, judged)

    def _embed(self, name: str, x: Tensor, index: int) -> tuple[Tensor, list[FloatArray]]:
        """One view of one input: (members, n, dim), NaN where nothing is there, and the features of its reference."""
        bag = name in self._predictor.pools
        flat = x.flatten(0, 1) if bag else x
        there = present(flat)
        if not bool(there.any()):
            dim = self._predictor.networks[0].encoders[name].dim
            return torch.full((len(self._predictor.members), *x.shape[: 1 + bag], dim), torch.nan), []
        embedded, *features = self._compiled[name](view(flat[there], index))
        whole = torch.full((embedded.shape[1], len(flat), embedded.shape[2]), torch.nan)
        whole[:, there] = numbers(torch.from_numpy(embedded)).transpose(0, 1)
        return (whole.unflatten(1, x.shape[:2]) if bag else whole), [f.astype(np.float64) for f in features]

    @torch.inference_mode()
    def _scores(self, embedded: Mapping[str, Tensor], others: Sequence[Mapping[str, Tensor]]) -> dict[str, FloatArray]:
        """Logits by target, (members, n, classes), from the embeddings on."""
        networks = self._predictor.networks
        start = {name: networks[0].encoders[name].depth for name in embedded}
        said = [
            network({**own, **{name: x[k] for name, x in embedded.items()}}, start=start)
            for k, (network, own) in enumerate(zip(networks, others, strict=True))
        ]
        return {
            target: np.stack([n.to_scores(target, one[target]) for n, one in zip(networks, said, strict=True)])
            for target in self._predictor.targets
        }

    def _calibrated(self, target: str, scores: FloatArray) -> FloatArray:
        return np.stack([c.apply(own) for c, own in zip(self._calibrations[target], scores, strict=True)])


def fast(
    predictor: Predictor, *, probe: Sequence[Mapping[str, Prepared | None]], threads: int = 0
) -> tuple[Fast | None, str]:
    """Have a bundle's encoders of pictures run in OpenVINO, if that is possible and changes nothing.

    It is tried on some cases: no probability of any model may differ by `LARGEST_DIFFERENCE`, no decision at all.

    Args:
        predictor: The bundle, on the CPU.
        probe: Cases to try it on, as `Predictor.prepare` gives them.
        threads: Of OpenVINO; 0: as many as it takes by itself.

    Returns:
        The engine and "", or None and why not.
    """
    if not predictor.preparations:
        return None, "the model sees no pictures: there is nothing to gain"
    if next(predictor.networks[0].parameters()).device.type != "cpu":
        return None, "the model is not on the processor"
    if not probe:
        return None, "there is no case to try it on"
    openvino = _openvino()
    if openvino is None:
        return None, "OpenVINO is not installed"
    try:
        made = Fast(predictor, _compile_all(openvino, predictor, threads))
        difference = _differs(made, predictor, probe)
    # its converter raises whatever a network that it does not know leads it to
    except Exception as error:
        return None, f"OpenVINO cannot run these networks ({type(error).__name__}: {str(error)[:200]})"
    return (None, difference) if difference else (made, "")


def _openvino() -> Any:
    """The library; None where it is not installed."""
    # It would tell its maker, over the internet, that it is used. Without this module of it, it does not.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        return importlib.import_module("openvino")
    except ImportError:
        return None


def _differs(made: Fast, predictor: Predictor, probe: Sequence[Mapping[str, Prepared | None]]) -> str:
    """What differs from the predictor, in words; empty if nothing does."""
    stacks = predictor.stack(probe)
    found = made.look(stacks).probabilities
    for target, expected in predictor.all_probabilities(stacks).items():
        worst = float(np.abs(found[target] - expected).max())
        # the other way round NaN would pass
        if not worst < LARGEST_DIFFERENCE:
            return f"a probability of {target} differs by {worst:.3g} in OpenVINO"
        pairs = zip(found[target].mean(axis=0), expected.mean(axis=0), strict=True)
        decide = predictor.of(target).decide
        if any(decide(a) != decide(b) for a, b in pairs):
            return f"a decision about {target} differs in OpenVINO"
    return ""


def _compile_all(openvino: Any, predictor: Predictor, threads: int) -> dict[str, _Compiled]:
    """Compile the encoders of every input of pictures; inputs that share them share what was compiled."""
    done: dict[tuple[int, int, int], _Compiled] = {}
    by_input = {}
    for name, preparation in predictor.preparations.items():
        reference = predictor.references.get(name)
        key = (id(predictor.networks[0].encoders[name]), preparation.size, id(reference))
        if key not in done:
            encoders = _Encoders([n.encoders[name] for n in predictor.networks], predictor.frozen[name], reference)
            shape = (preparation.channels, preparation.size, preparation.size)
            done[key] = _Compiled(openvino, encoders.eval(), shape, threads)
        by_input[name] = done[key]
    return by_input


class _Encoders(nn.Module):
    """The encoders that all models have for one input; steps that they share run once."""

    def __init__(self, encoders: Sequence[Encoder], frozen: int, reference: Reference | None) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)
        self.frozen = frozen
        self.watched = reference.steps if reference else ()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(n, members, dim), and the first model's pooled features after each step that the reference watches."""
        first = cast("Encoder", self.encoders[0])
        features, shared = [], x
        for step in range(first.depth):
            x = first(x, step, step + 1)
            if step + 1 == self.frozen:
                shared = x
            if step + 1 in self.watched:
                features.append(pooled(first, x, step + 1))
        rest = [encoder(shared, self.frozen) for encoder in self.encoders[1:]]
        return torch.stack([x, *rest], dim=1), *features


class _Compiled:
    """One graph, for any number of pictures; one thread at a time."""

    def __init__(self, openvino: Any, module: nn.Module, shape: tuple[int, int, int], threads: int) -> None:
        with warnings.catch_warnings(), torch.inference_mode():
            # the encoders check their input; that these checks are not traced is meant
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(module, torch.zeros(2, *shape), check_trace=False)
        model = openvino.convert_model(traced, input=[[-1, *shape]])
        options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
        if threads:
            options["INFERENCE_NUM_THREADS"] = threads
        self._request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()
        self._lock = threading.Lock()

    def __call__(self, x: Tensor) -> list[FloatArray]:
        """Every output, copied: the next call writes over the library's own."""
        with self._lock:
            found = self._request.infer({0: x.contiguous().numpy()})
            return [np.array(found[k]) for k in range(len(found))]
