"""A chain of stages: each hands its encoders to the next and leaves its heads behind.

It must not know study files, folds or what an arm is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from tenfold.network.heads import HeadSpec
from tenfold.network.network import Network
from tenfold.training.device import seed_for
from tenfold.training.loop import Fit, Recipe, fit
from tenfold.training.sources import FrozenOutputs, Inputs, Part, Source
from tenfold.types import IntArray


@dataclass(frozen=True)
class Material:
    """What a stage learns from: the inputs of one cohort and the part of it that may be fitted on.

    Attributes:
        inputs: Of all cases of that cohort.
        train: (n,) rows fitted on.
        train_labels: By target: float32 tensor as a `Part` has it, NaN where unknown.
        inner: (m,) rows decided on.
        inner_labels: Likewise.
    """

    inputs: Inputs
    train: IntArray
    train_labels: Mapping[str, torch.Tensor]
    inner: IntArray
    inner_labels: Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: Its name.
        targets: What it learns, each with a head of that name.
        heads: The form of every target's head, made anew; None goes on with the heads that are there.
        recipe: How it is trained.
        variants: Variants a picture where the lower blocks are frozen.
    """

    name: str
    targets: tuple[str, ...]
    heads: Mapping[str, HeadSpec] | None
    recipe: Recipe
    variants: int = 4


def renew_heads(network: Network, heads: Mapping[str, HeadSpec], seed: int) -> None:
    """Put new heads in the place of the old ones, the same for the same seed of a stage."""
    torch.manual_seed(seed_for(seed, "head"))
    network.replace_heads(heads)


def source_for(network: Network, inputs: Inputs, folder: Path, variants: int, autocast: torch.dtype) -> Source:
    """Return inputs as they are, or the kept outputs of whatever part of the network no longer learns."""
    if any(network.frozen(name) for name in inputs.stores):
        return FrozenOutputs(network, inputs, folder, variants=variants, autocast=autocast)
    return inputs


def run_stages(
    network: Network,
    stages: Sequence[tuple[Stage, Material]],
    *,
    seed: int,
    cache: Path,
    checkpoints: Path | None,
    autocast: torch.dtype = torch.float32,
    progress: Callable[[str, int, int, float], None] | None = None,
) -> tuple[Fit, ...]:
    """Run stages one after the other on a network, in place.

    Args:
        network: With its encoders as the stages before have left them.
        stages: Each with what it learns from.
        seed: From which each stage derives its own.
        cache: Where outputs of frozen layers are kept.
        checkpoints: Folder for checkpoints; None keeps none.
        autocast: torch.float32 or torch.bfloat16.
        progress: Called after each epoch with (stage, epoch, epochs, inner loss).

    Returns:
        One fit a stage.

    Raises:
        TrainingError: A loss is no longer a number.
    """
    fits = []
    for stage, material in stages:
        own_seed = seed_for(seed, stage.name)
        if stage.heads is not None:
            renew_heads(network, stage.heads, own_seed)
        network.thaw(stage.recipe.thaw)
        source = source_for(network, material.inputs, cache, stage.variants, autocast)
        with _threads_for(network):
            fits.append(
                fit(
                    network,
                    targets=stage.targets,
                    train=Part(source, material.train, material.train_labels),
                    inner=Part(source, material.inner, material.inner_labels),
                    recipe=stage.recipe,
                    seed=own_seed,
                    autocast=autocast,
                    checkpoint=checkpoints / f"{stage.name}.safetensors" if checkpoints else None,
                    progress=(lambda *at, name=stage.name: progress(name, *at)) if progress else None,
                )
            )
    return tuple(fits)


@contextmanager
def _threads_for(network: Network) -> Iterator[None]:
    """Use one thread where no more than heads and tables learn: to share products so small costs more than it saves."""
    threads = torch.get_num_threads()
    small = all(encoder.always_learns or encoder.frozen == encoder.depth for encoder in network.encoders.values())
    torch.set_num_threads(1 if small else threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
