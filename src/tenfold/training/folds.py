"""One fold: fit on its training part, decide on its inner part, then predict cases whose labels it never had.

It must not know the study file, other folds or statistics beyond calibration and the operating point. A finished fold
is a folder that is there whole or not at all, so a killed run goes on with the first one missing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from tenfold.network.network import Network
from tenfold.training.device import seed_for
from tenfold.training.loop import predict_scores
from tenfold.training.sources import Altered, Inputs, Source
from tenfold.training.stages import Material, Stage, run_stages, source_for
from tenfold.training.together import Together
from tenfold.types import FloatArray, IntArray, write_atomically


@dataclass(frozen=True)
class FoldResult:
    """What one fold of one arm gave.

    Attributes:
        inner_scores: By target: (m, classes) logits of the inner part, the mean over test-time views.
        test_scores: By target: (n, classes) the same of the cases that were kept from it.
        altered: Name of an alteration -> by target (n, classes) scores of the test cases under it.
        fits: One summary a stage: name, best_epoch, history.
        weights: File with the network's state.
    """

    inner_scores: Mapping[str, FloatArray]
    test_scores: Mapping[str, FloatArray]
    altered: Mapping[str, Mapping[str, FloatArray]]
    fits: tuple[Mapping[str, Any], ...]
    weights: Path

    def state_dict(self) -> dict[str, Tensor]:
        """Load the fitted network's state."""
        return load(self.weights.read_bytes())


def run_fold(
    folder: Path,
    build: Callable[[], Network],
    stages: Sequence[tuple[Stage, Material]],
    *,
    test: IntArray,
    inputs: Inputs,
    views: int,
    seed: int,
    cache: Path,
    autocast: torch.dtype = torch.float32,
    alter: Sequence[str] = (),
    fitted: Together | None = None,
    progress: Callable[[str, int, int, float], None] | None = None,
) -> FoldResult:
    """Run one fold, or read it back if it is already there.

    Args:
        folder: Where its results go.
        build: Makes the network as the source stages left it.
        stages: The stages on the study's own patients, with this fold's training and inner part.
        test: Rows to predict. Their labels are nowhere among the arguments.
        inputs: Of all cases, tables prepared on this fold's training part.
        views: Test-time views.
        seed: Of this fold.
        cache: For outputs of frozen layers.
        autocast: torch.float32 or torch.bfloat16.
        alter: Inputs that the test cases are also predicted with another test case's in the place of, and without where
            the network has modality dropout.
        fitted: What became of its one stage where it was trained together with other folds.
        progress: As for `run_stages`.

    Returns:
        Scores, histories and where the weights are.
    """
    done = folder / "done.json"
    if not done.is_file():
        network = build()
        if fitted is None:
            fits = run_stages(
                network, stages, seed=seed, cache=cache, checkpoints=folder / "checkpoints", autocast=autocast,
                progress=progress,
            )  # fmt: skip
        else:
            network.load_state_dict(fitted.state())
            network.eval()
            fits = (fitted.fit,)
        targets = stages[-1][0].targets
        source = source_for(network, inputs, cache, stages[-1][0].variants, autocast)

        def scores(of: Source, rows: IntArray) -> dict[str, FloatArray]:
            return predict_scores(network, of, rows, targets, views=views, autocast=autocast)

        tensors = {"inner": scores(source, stages[-1][1].inner), "test": scores(source, test)}
        for name in alter:
            permuted, without = altered_rows(inputs, name, test)
            swapped = np.arange(inputs.cases)
            swapped[permuted] = np.random.default_rng(seed_for(seed, "permuted", name)).permutation(permuted)
            tensors[f"{name} permuted"] = scores(Altered(source, name, swapped), permuted)
            # a network that never learned to do without an input is not asked to
            if network.fusion.drop:
                tensors[f"without {name}"] = scores(Altered(source, name, None), without)
        state = {name: t.detach().cpu().clone().contiguous() for name, t in network.state_dict().items()}
        write_atomically(folder / "weights.safetensors", save(state))
        write_atomically(
            folder / "scores.safetensors",
            save({f"{name}|{target}": torch.from_numpy(v) for name, by in tensors.items() for target, v in by.items()}),
        )
        summary = [{"name": stage.name, **asdict(f)} for (stage, _), f in zip(stages, fits, strict=True)]
        write_atomically(done, json.dumps(summary))
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    stored: dict[str, dict[str, FloatArray]] = {}
    # a file of tensors is read back in any order
    for key, tensor in sorted(load((folder / "scores.safetensors").read_bytes()).items()):
        name, _, target = key.partition("|")
        stored.setdefault(name, {})[target] = tensor.numpy()
    return FoldResult(
        inner_scores=stored.pop("inner"),
        test_scores=stored.pop("test"),
        altered=stored,
        fits=tuple(json.loads(done.read_text("utf-8"))),
        weights=folder / "weights.safetensors",
    )


def altered_rows(inputs: Inputs, name: str, rows: IntArray) -> tuple[IntArray, IntArray]:
    """Return the cases whose input can be permuted, and those who can do without it, among some cases."""
    others = [other for other in inputs.names if other != name]
    return rows[inputs.has(name)[rows]], rows[inputs.has_any(others)[rows]]
