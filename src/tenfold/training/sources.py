"""Where batches come from: pictures and tables, or the outputs of layers that no longer change.

It must not know labels. A part of the patients is handed to the loop as a `Part`, which reaches its own rows alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tenfold.errors import OutputError
from tenfold.network.network import Network
from tenfold.network.views import view
from tenfold.training.augment import Augmentation
from tenfold.training.device import seed_for
from tenfold.training.store import PixelStore
from tenfold.types import FloatArray, IntArray

_CHUNK = 64


class Source(Protocol):
    """Gives the tensors of some cases.

    Attributes:
        start: From which step of each encoder its tensor goes on.
    """

    start: Mapping[str, int]

    def batch(self, rows: IntArray, *, epoch: int | None = None, view_index: int = 0) -> dict[str, Tensor]:
        """Return one tensor an input; changed at random where an epoch is given, else as deterministic view."""
        ...


@dataclass(frozen=True)
class Part:
    """Some of the patients: all that the code that fits may reach.

    Attributes:
        source: Gives tensors.
        rows: (n,) its rows in the source.
        labels: By target, float32, NaN where unknown: (n,) indices of classes or levels, or scores; (n, columns) of
            0 and 1, or of what is to be reconstructed.
    """

    source: Source
    rows: IntArray
    labels: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, picks: IntArray, *, epoch: int | None = None) -> dict[str, Tensor]:
        """Return the tensors of some of its members."""
        return self.source.batch(self.rows[picks], epoch=epoch)


class Inputs:
    """Batches of pictures from the store, augmented on the tensor, and of rows of tables and of connectomes.

    A case that lacks an input has a row of NaN in its tensor: the network's word for absent. Where a view may have
    several pictures the tensor has a dimension more, and slots that are empty are NaN.

    Args:
        stores: For each input of pictures, its store and the store's rows of every case, (cases,) or (cases, pictures),
            those that are there first; -1 where there is none.
        augmentation: Random changes of pictures in training.
        seed: Of the augmentation.
        device: Where the tensors go.
        tables: For each input of a table, float32 (cases, 2, features): value and observed, as prepared; for each of
            connectomes, float32 (cases, edges).
    """

    def __init__(
        self,
        stores: Mapping[str, tuple[PixelStore, IntArray]],
        augmentation: Augmentation,
        seed: int,
        device: torch.device,
        tables: Mapping[str, NDArray[np.float32]] | None = None,
    ) -> None:
        self.stores, self.augmentation, self.seed, self.device = stores, augmentation, seed, device
        self.tables = dict(tables or {})
        self.names = (*stores, *self.tables)
        self.start: Mapping[str, int] = dict.fromkeys(self.names, 0)
        lengths = [len(places) for _, places in stores.values()] + [len(t) for t in self.tables.values()]
        self.cases = lengths[0]
        self._epoch: int | None = None
        self._draws: dict[int, FloatArray] = {}

    def with_tables(self, tables: Mapping[str, NDArray[np.float32]]) -> Inputs:
        """Return the same pictures beside tables that were prepared for one fold."""
        return Inputs(self.stores, self.augmentation, self.seed, self.device, tables)

    def has(self, name: str) -> NDArray[np.bool_]:
        """(cases,) whether each case has an input."""
        if name in self.tables:
            table: NDArray[Any] = self.tables[name]
            while table.ndim > 1:
                table = table[:, 0]
            return np.asarray(~np.isnan(table))
        places = self.stores[name][1]
        return np.asarray((places if places.ndim == 1 else places[:, 0]) >= 0)

    def has_any(self, names: Sequence[str]) -> NDArray[np.bool_]:
        """(cases,) whether each case has at least one of some inputs."""
        return np.any([self.has(name) for name in names], axis=0)

    def batch(self, rows: IntArray, *, epoch: int | None = None, view_index: int = 0) -> dict[str, Tensor]:
        """Return the float32 tensors of some cases by input.

        Pictures are (n, channels, side, side) or (n, pictures, channels, side, side) in [0, 1], tables
        (n, 2, features), connectomes (n, edges).
        """
        return {name: self.tensor(name, rows, epoch, view_index) for name in self.names}

    def tensor(self, name: str, rows: IntArray, epoch: int | None = None, view_index: int = 0) -> Tensor:
        """Return the tensor of one input."""
        if name in self.tables:
            return torch.from_numpy(self.tables[name][rows]).to(self.device)
        places = self.stores[name][1][rows]
        there = torch.from_numpy(places.reshape(-1) >= 0)
        if places.ndim == 1:
            asked = rows
        else:
            slots = places.shape[1]
            asked = (rows[:, None] * slots + np.arange(slots)).reshape(-1)
        present = self._pictures(name, asked[there.numpy()], epoch, view_index)
        if bool(there.all()):
            pictures = present
        else:
            pictures = torch.full((len(asked), *present.shape[1:]), torch.nan, device=self.device)
            pictures[there.to(self.device)] = present
            pictures = pictures.contiguous(memory_format=torch.channels_last)
        return pictures if places.ndim == 1 else pictures.unflatten(0, tuple(places.shape))

    def _pictures(self, name: str, asked: IntArray, epoch: int | None, view_index: int) -> Tensor:
        """The pictures at some places, all of which are filled; a case with several slots has as many places."""
        store, places = self.stores[name]
        slots = 1 if places.ndim == 1 else places.shape[1]
        raw = torch.from_numpy(store.take(places.reshape(-1)[asked])).to(self.device)
        pictures = raw.to(torch.float32).div_(255.0)
        if not len(asked):
            return pictures
        if epoch is None:
            pictures = view(pictures, view_index)
        else:
            noise_seed = seed_for(self.seed, epoch, name, int(asked[0]))
            pictures = self.augmentation.apply(pictures, self._drawn(epoch, slots), asked, noise_seed)
        return pictures.contiguous(memory_format=torch.channels_last)

    def _drawn(self, epoch: int, slots: int) -> FloatArray:
        """The random changes of an epoch; every picture of a case has its own."""
        if epoch != self._epoch:
            self._epoch, self._draws = epoch, {}
        if slots not in self._draws:
            several = [slots] if slots > 1 else []
            seed = seed_for(self.seed, epoch, *several)
            self._draws[slots] = self.augmentation.draws(seed, self.cases * slots)
        return self._draws[slots]


class Altered:
    """A source with one input taken away, or given to the wrong cases: what the others are worth without it.

    Args:
        source: Gives the tensors.
        name: The input.
        swapped: (cases,) whose tensor each case gets instead of its own; None takes the input away.
    """

    def __init__(self, source: Source, name: str, swapped: IntArray | None) -> None:
        self._source, self._name, self._swapped = source, name, swapped
        self.start = source.start

    def batch(self, rows: IntArray, *, epoch: int | None = None, view_index: int = 0) -> dict[str, Tensor]:
        """Return the tensors of some cases, that one input altered."""
        tensors = self._source.batch(rows, epoch=epoch, view_index=view_index)
        if self._swapped is None:
            del tensors[self._name]
        else:
            others = self._source.batch(self._swapped[rows], epoch=epoch, view_index=view_index)
            tensors[self._name] = others[self._name]
        return tensors


class FrozenOutputs:
    """Outputs of an encoder's frozen steps, computed once a picture and variant and shared by whoever comes next.

    Whole chunks of fixed rows are computed at a time, so a row's numbers do not depend on who asked first: a run that
    was killed and resumed reads the same bytes as one that was not.

    Args:
        network: Its thawed state decides which steps are frozen.
        inputs: Where pictures and tables come from.
        folder: Where outputs are kept.
        variants: How many variants of a picture training draws from; the first is the picture itself.
        autocast: Precision of the frozen steps.
    """

    def __init__(self, network: Network, inputs: Inputs, folder: Path, *, variants: int, autocast: torch.dtype) -> None:
        self._network, self._inputs, self._variants, self._autocast = network, inputs, variants, autocast
        self.start: Mapping[str, int] = {
            name: network.frozen(name) if name in inputs.stores else 0 for name in inputs.names
        }
        self._folders = {
            name: folder / _digest(network, name, step, inputs, autocast) for name, step in self.start.items() if step
        }
        self._shapes: dict[str, tuple[int, ...]] = {}

    def batch(self, rows: IntArray, *, epoch: int | None = None, view_index: int = 0) -> dict[str, Tensor]:
        """Return float32 frozen outputs, or pictures for an input of which nothing is frozen."""
        if epoch is None:
            variant = np.full(len(rows), view_index)
            kind = "view"
        else:
            variant = (rows + epoch) % self._variants
            kind = "augmented"
        return {
            name: self._outputs(name, rows, kind, variant)
            if step
            else self._inputs.tensor(name, rows, epoch, view_index)
            for name, step in self.start.items()
        }

    def _outputs(self, name: str, rows: IntArray, kind: str, variant: IntArray) -> Tensor:
        if kind == "augmented":
            plain = variant == 0
            parts = [(np.flatnonzero(plain), "view", 0)]
            parts += [(np.flatnonzero(variant == v), kind, v) for v in range(1, self._variants)]
        else:
            parts = [(np.arange(len(rows)), kind, int(variant[0]) if len(variant) else 0)]
        out: NDArray[np.float16] | None = None
        for places, part_kind, v in parts:
            if len(places) == 0:
                continue
            taken = self._take(name, rows[places], part_kind, v)
            if out is None:
                out = np.empty((len(rows), *taken.shape[1:]), np.float16)
            out[places] = taken
        assert out is not None
        tensor = torch.from_numpy(out).to(self._inputs.device).to(torch.float32)
        return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor

    def _take(self, name: str, rows: IntArray, kind: str, variant: int) -> NDArray[np.float16]:
        folder = self._folders[name] / f"{kind}-{variant}"
        outputs = []
        order = np.argsort(rows, kind="stable")
        chunks = rows[order] // _CHUNK
        for chunk in np.unique(chunks):
            block = self._chunk(folder, name, int(chunk), kind, variant)
            outputs.append(block[rows[order][chunks == chunk] - chunk * _CHUNK])
        taken = np.concatenate(outputs)
        back = np.empty_like(taken)
        back[order] = taken
        return back

    def _chunk(self, folder: Path, name: str, chunk: int, kind: str, variant: int) -> NDArray[np.float16]:
        path = folder / f"{chunk:06d}.npy"
        if not path.is_file():
            rows = np.arange(chunk * _CHUNK, min((chunk + 1) * _CHUNK, self._inputs.cases))
            block = self._compute(name, rows, kind, variant)
            try:
                folder.mkdir(parents=True, exist_ok=True)
                temporary = path.with_suffix(".part")
                with temporary.open("wb") as handle:
                    np.save(handle, block, allow_pickle=False)
                temporary.replace(path)
            except OSError as error:
                raise OutputError(
                    f"cannot keep the outputs of frozen layers: {error.strerror or error}",
                    do='free space, or thaw = "all", which keeps none',
                    where=str(folder),
                ) from error
        # mapped only while rows are copied out of it: memory stays that of one batch
        return np.load(path, mmap_mode="r", allow_pickle=False)

    def _compute(self, name: str, rows: IntArray, kind: str, variant: int) -> NDArray[np.float16]:
        epoch, view_index = (variant, 0) if kind == "augmented" else (None, variant)
        places = self._inputs.stores[name][1]
        there = places[rows] >= 0
        # a chunk in which nobody has a picture still needs a shape: somebody else's, of whom nothing is kept
        asked = rows if there.any() else np.flatnonzero(self._inputs.has(name))[:1]
        pictures = self._inputs.tensor(name, asked, epoch, view_index)
        encoder = self._network.encoders[name]
        training = encoder.training
        encoder.eval()
        device = self._inputs.device.type
        with torch.inference_mode(), torch.autocast(device, self._autocast, self._autocast != torch.float32):
            outputs = self._network.features(name, pictures, 0, self.start[name])
        encoder.train(training)
        limit = float(np.finfo(np.float16).max)
        computed = outputs.float().clamp(-limit, limit).contiguous().cpu().numpy().astype(np.float16)
        if there.any():
            return computed
        return np.full((len(rows), *computed.shape[1:]), np.nan, np.float16)


def _digest(network: Network, name: str, step: int, inputs: Inputs, autocast: torch.dtype) -> str:
    """Name the frozen outputs by everything that decides them: weights, pictures, augmentation, precision."""
    digest = hashlib.sha256(f"{name}|{step}|{inputs.augmentation}|{inputs.seed}|{autocast}".encode())
    store, rows = inputs.stores[name]
    digest.update(str(store.folder).encode() + rows.tobytes())
    encoder = network.encoders[name]
    # the spec tells networks apart whose weights agree: dilation, mean and deviation are in no tensor
    digest.update(json.dumps(encoder.spec, sort_keys=True).encode())
    for module in encoder.steps[:step]:
        for key, tensor in sorted(module.state_dict().items()):
            digest.update(key.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:20]
