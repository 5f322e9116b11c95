"""The same work with the pieces of tenfold, put together as `tenfold run` puts them together."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from tenfold import encoders
from tenfold.modalities.image import ImagePreparation, read_image
from tenfold.network.heads import HeadSpec
from tenfold.network.network import Network
from tenfold.training.augment import Augmentation
from tenfold.training.device import choose_precision, prepare_machine
from tenfold.training.sources import Inputs, Part, Source
from tenfold.training.store import PixelStore

CPU = torch.device("cpu")


def open_store(folder: Path, paths: Sequence[Path], size: int = 224) -> tuple[PixelStore, Inputs]:
    """Return the store with all films in it, decoding those that no process before has decoded."""
    store = PixelStore(folder, ImagePreparation(size=size, fit="stretch"), read_image)
    rows = store.rows(paths, [hashlib.sha256(p.read_bytes()).hexdigest() for p in paths])
    return store, Inputs({"film": (store, rows)}, Augmentation(), 7, CPU)


def build(name: str) -> Network:
    """Return a network with two classes, in the memory format that runs use."""
    torch.manual_seed(0)
    encoder = encoders.build("image_timm", network=name, weights="none", channels=1)
    network = Network({"film": encoder}, {"y": HeadSpec("softmax", ("no", "yes"))})
    return network.to(memory_format=torch.channels_last)


def part(source: Source, rows: np.ndarray, labels: np.ndarray) -> Part:
    """Return what the loop is handed."""
    return Part(source, rows, {"y": torch.tensor(labels[rows], dtype=torch.float32)})


def precision(network: Network, pictures: Inputs) -> torch.dtype:
    """Choose as runs do: bfloat16 only where this machine has it and gains by it."""
    network.eval()
    return choose_precision(CPU, lambda: network(pictures.batch(np.arange(min(8, pictures.cases)))))


def prepare(threads: int | None) -> None:
    """Set threads and determinism as runs do."""
    prepare_machine(CPU, threads)
