"""Trainings as data: what a member is, what it begins with, what it became.

It must not know how members are trained together, nor cohorts or files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from tenfold.errors import TrainingError, nearest
from tenfold.training.device import seed_for
from tenfold.training.stacked import NORMS, Shape
from tenfold.types import FloatArray, IntArray

FIRST = "edges.0.weight"
OPTIMIZERS, SCHEDULES = ("sgd", "adamw"), ("constant", "cosine")


@dataclass(frozen=True)
class Target:
    """What one head predicts.

    Attributes:
        name: Its name.
        classes: Number of classes that exclude each other, from 2 on; 1 is a continuous score.
        standardise: Whether each member standardises a score by its own training rows; if not, it is learned as it is.
    """

    name: str
    classes: int = 2
    standardise: bool = True


@dataclass(frozen=True)
class SpanRecipe:
    """The network and how it is trained. Members of one recipe are trained side by side.

    Attributes:
        edges: Widths of the layers over the connectome; () leaves it out.
        clinical: Width of the layer over the clinical table; 0 leaves it out.
        fusion: Width of the layer over both.
        norm: "layer", "batch" (over each member's own rows) or "none", after each hidden layer, before its ReLU.
        head_norm: Whether the logits are normalised too, as the code of He et al. 2020 does.
        dropout: Share dropped of each hidden layer of the branches.
        epochs: Passes over the training rows.
        batch: Rows of a batch; batches of an epoch differ by one at most.
        rate: Learning rate.
        encoder_rate: Of the layers over the connectome; None is `rate`.
        optimizer: "sgd" (momentum as below, exact) or "adamw" (in the coordinates, see `tenfold.training.span`).
        momentum: Of SGD.
        nesterov: Whether SGD looks ahead.
        weight_decay: Of weights; biases and norm layers are not shrunk.
        schedule: "constant" or "cosine".
        patience: Epochs without a better inner loss before a member stops; 0 never stops it. What is stacked with it
            goes on, and it is not looked at any more.
        class_weights: Whether classes weigh n / (classes x n_class), counted on the member's training rows.
    """

    edges: tuple[int, ...] = (128, 32)
    clinical: int = 16
    fusion: int = 8
    norm: str = "layer"
    head_norm: bool = False
    dropout: float = 0.0
    epochs: int = 50
    batch: int = 8
    rate: float = 0.01
    encoder_rate: float | None = None
    optimizer: str = "sgd"
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 0.0
    schedule: str = "constant"
    patience: int = 0
    class_weights: bool = False

    def __post_init__(self) -> None:
        for value, known, what in (
            (self.norm, NORMS, "norm"),
            (self.optimizer, OPTIMIZERS, "optimizer"),
            (self.schedule, SCHEDULES, "schedule"),
        ):
            if value not in known:
                raise TrainingError(f"unknown {what} '{value}'", do=nearest(value, known))
        if not self.edges and not self.clinical:
            raise TrainingError("a network of no input", expected="edges, clinical or both")
        if min((*self.edges, self.fusion, self.epochs, self.batch)) < 1 or self.clinical < 0:
            raise TrainingError(
                f"edges = {self.edges}, clinical = {self.clinical}, fusion = {self.fusion}, epochs = {self.epochs}, "
                f"batch = {self.batch}",
                expected="1 at least (clinical: 0)",
            )
        if not (0 <= self.dropout < 1 and 0 <= self.momentum < 1) or min(self.rate, self.weight_decay) < 0:
            raise TrainingError(
                f"dropout = {self.dropout}, momentum = {self.momentum}, rate = {self.rate}, "
                f"weight_decay = {self.weight_decay}",
                expected="dropout and momentum from 0 to below 1, the others of at least 0",
            )
        if self.nesterov and not self.momentum and self.optimizer == "sgd":
            raise TrainingError("nesterov without momentum", do="set nesterov to false")


# He et al. 2020 to the letter: their code's widths, norms, optimiser and batch. Keras' norm layers move more slowly
# (momentum 0.99, which 150 steps do not fill); ours are torch's. Keras adds up the targets' losses, of which we
# take the mean: a rate of 0.01 times the number of targets follows it there.
PAPER = SpanRecipe(norm="batch", head_norm=True)


@dataclass(frozen=True, eq=False)
class Prepared:
    """The inputs of all subjects as one fold's preparation left them; nothing in them may be missing.

    Attributes:
        edges: (subjects, p), or None.
        clinical: (subjects, features), or None.
    """

    edges: Tensor | None = None
    clinical: Tensor | None = None

    def __post_init__(self) -> None:
        if not self.tables:
            raise TrainingError("subjects without connectomes and without a clinical table", expected="one of them")
        if len({len(table) for table in self.tables}) > 1:
            raise TrainingError("connectomes and a clinical table of different lengths", expected="one row a subject")
        for table in self.tables:
            bad = (~table.isfinite()).any(1).nonzero()
            if len(bad):
                raise TrainingError(
                    f"{len(bad)} subjects with a value that is no number, the first in row {int(bad[0])}",
                    do="impute in the fold, or leave these subjects out",
                )

    @property
    def tables(self) -> tuple[Tensor, ...]:
        """Those that are there."""
        return tuple(table for table in (self.edges, self.clinical) if table is not None)

    @property
    def subjects(self) -> int:
        """Number of subjects."""
        return len(self.tables[0])


@dataclass(frozen=True, eq=False)
class Member:
    """One training: a fold of a repeat of an arm with one seed.

    Attributes:
        name: For messages.
        recipe: How it is trained.
        seed: Of its first weights, the order of its rows and its dropout.
        train: (n,) rows it is fitted on.
        train_labels: (n, targets) classes from 0 or scores, NaN where unknown.
        inner: (m,) rows that decide on its best epoch; none keeps the last.
        inner_labels: (m, targets).
        targets: Names of the targets it learns; None is all of them.
        prepared: Which of the preparations it sees, from 0.
        start: Tensors it begins with, by the names of `Trained.state`; shared between members, never copied if large.
        base: (subjects, h) products of the first layer's initial weights with everyone of its preparation. Who gives
            these keeps the weights, which are then not in `start`: many members' weights would not fit in memory.
    """

    name: str
    recipe: SpanRecipe
    seed: int
    train: IntArray
    train_labels: FloatArray
    inner: IntArray
    inner_labels: FloatArray
    targets: tuple[str, ...] | None = None
    prepared: int = 0
    start: Mapping[str, Tensor] = field(default_factory=dict)
    base: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Trained:
    """What one member became.

    Attributes:
        member: The member.
        targets: All targets of the fit.
        history: Its inner loss (mean over its targets) after each epoch up to where it stopped; empty without inner
            rows.
        train_history: Its loss in training, likewise; as long as `history`, or as the training.
        best_epoch: The epoch whose weights these are, from 1.
        tensors: All tensors but the first layer's weights, by the names of `state`.
        coordinates: (n, h) of the first layer in its training rows; None where it sees no connectome.
        base: (subjects, h) products of the first layer's initial weights with everyone; None likewise.
        kept: c, what weight decay has left of the first layer's initial weights.
        scales: (targets, 2) mean and standard deviation of continuous targets in its training rows; 0 and 1 of others.
    """

    member: Member
    targets: tuple[Target, ...]
    history: tuple[float, ...]
    train_history: tuple[float, ...]
    best_epoch: int
    tensors: Mapping[str, Tensor]
    coordinates: Tensor | None
    base: Tensor | None
    kept: float
    scales: FloatArray

    def first_layer(self, prepared: Prepared, first: Tensor | None = None) -> Tensor:
        """Fold the coordinates back into weights.

        Args:
            prepared: The preparation that the member was trained on.
            first: The weights it began with, where the member has but their products.

        Returns:
            (h, p), one weight an edge and unit.

        Raises:
            TrainingError: It sees no connectome, or nobody has the weights it began with.
        """
        if self.coordinates is None or prepared.edges is None:
            raise TrainingError("a network that sees no connectome has no weights over edges", where=self.member.name)
        rows = prepared.edges[torch.from_numpy(self.member.train).to(prepared.edges.device)]
        began = first_weight(self.member, prepared.edges) if first is None else first.to(rows)
        return torch.addmm(began, self.coordinates.T, rows, beta=self.kept)

    def state(self, prepared: Prepared) -> dict[str, Tensor]:
        """Return all tensors, as torch.nn has them: weights (out, in), the first layer's folded back.

        Args:
            prepared: The preparation that the member was trained on.

        Returns:
            "edges.0.weight", "edges.0.norm.running_mean", "clinical.0.weight", "fusion.0.weight",
            "heads.<target>.weight" and so on, whichever the recipe has.
        """
        first = {} if self.coordinates is None else {FIRST: self.first_layer(prepared)}
        return {**first, **self.tensors}


def shape_of(recipe: SpanRecipe, prepared: Prepared, targets: Sequence[Target]) -> Shape:
    """Return the shape of a member's network."""
    return Shape(
        edges=recipe.edges,
        clinical=recipe.clinical,
        features=0 if prepared.clinical is None else prepared.clinical.shape[1],
        fusion=recipe.fusion,
        outputs=sum(target.classes for target in targets),
        norm=recipe.norm,
        head_norm=recipe.head_norm,
        dropout=recipe.dropout,
    )


def first_weight(member: Member, edges: Tensor) -> Tensor:
    """Return the first layer's weights that a member begins with, (h, p), like `edges` in kind and place.

    Raises:
        TrainingError: It has but their products.
    """
    if member.base is not None:
        raise TrainingError("its first weights are not here, only their products", where=member.name)
    if FIRST in member.start:
        return member.start[FIRST].to(edges)
    return _drawn(member.seed, FIRST, (member.recipe.edges[0], edges.shape[1]), edges.shape[1]).to(edges)


def initial_state(member: Member, prepared: Prepared, targets: Sequence[Target]) -> dict[str, Tensor]:
    """Return what a member begins with, by the names of `Trained.state`: its start, and the rest drawn from its seed.

    Weights and biases are uniform within 1 / sqrt(inputs), as torch.nn.Linear has them. Each tensor has its own seed,
    so that members of one seed begin alike wherever their networks are alike.
    """
    first = {FIRST: first_weight(member, prepared.edges)} if member.recipe.edges and prepared.edges is not None else {}
    return {**first, **small_state(member, prepared, targets)}


def small_state(member: Member, prepared: Prepared, targets: Sequence[Target]) -> dict[str, Tensor]:
    """Return the same without the first layer's weights."""
    like = prepared.tables[0]
    found = {}
    for name, (shape, inputs) in _small_shapes(member.recipe, prepared, targets).items():
        if name in member.start:
            found[name] = member.start[name].to(like)
        elif ".norm." in name:
            found[name] = like.new_full(shape, float(name.endswith((".weight", "_var"))))
        else:
            found[name] = _drawn(member.seed, name, shape, inputs).to(like)
    return found


def check_member(member: Member, prepared: Sequence[Prepared], targets: Sequence[Target]) -> None:
    """Refuse a member that cannot be trained.

    Raises:
        TrainingError: Rows, labels, targets, preparation or start do not suit.
    """
    if not 0 <= member.prepared < len(prepared):
        raise TrainingError(f"preparation {member.prepared} of {len(prepared)}", where=member.name)
    seen = prepared[member.prepared]
    recipe = member.recipe
    for wanted, table, what in (
        (bool(recipe.edges), seen.edges, "connectomes"),
        (bool(recipe.clinical), seen.clinical, "clinical table"),
    ):
        if wanted and table is None:
            raise TrainingError(f"its recipe asks for a {what}, of which there is none", where=member.name)
    _check_rows(member, seen)
    _check_labels(member, targets)
    _check_start(member, seen, targets)


def learnt(member: Member, targets: Sequence[Target]) -> tuple[Target, ...]:
    """Return the targets that a member learns."""
    return tuple(t for t in targets if member.targets is None or t.name in member.targets)


def _check_rows(member: Member, seen: Prepared) -> None:
    rows = np.concatenate([member.train, member.inner])
    if not len(member.train):
        raise TrainingError("no training row", where=member.name)
    if len(np.unique(rows)) < len(rows):
        raise TrainingError("a row twice among its training and inner rows", where=member.name)
    if rows.min() < 0 or rows.max() >= seen.subjects:
        raise TrainingError(f"a row beyond the {seen.subjects} subjects", where=member.name)
    if member.recipe.norm == "batch" and len(member.train) // math.ceil(len(member.train) / member.recipe.batch) < 2:
        raise TrainingError(
            f"a batch of one of its {len(member.train)} training rows, which has no variance",
            do="choose a larger batch, or norm = 'layer'",
            where=member.name,
        )
    if member.recipe.patience and not len(member.inner):
        raise TrainingError("patience without inner rows to judge", do="set patience = 0", where=member.name)


def _check_labels(member: Member, targets: Sequence[Target]) -> None:
    names = [t.name for t in targets]
    for name in member.targets or ():
        if name not in names:
            raise TrainingError(f"unknown target '{name}'", do=nearest(name, names), where=member.name)
    for labels, rows in ((member.train_labels, member.train), (member.inner_labels, member.inner)):
        if labels.shape != (len(rows), len(targets)):
            raise TrainingError(
                f"labels of shape {labels.shape}", expected=f"{(len(rows), len(targets))}", where=member.name
            )
    for target in learnt(member, targets):
        column = member.train_labels[:, names.index(target.name)]
        values = np.unique(column[~np.isnan(column)])
        if len(values) < 2:
            came = f"only the value {values[0]:g}" if len(values) else "no label"
            raise TrainingError(
                f"{target.name} has {came} in its {len(column)} training rows",
                do="use fewer folds, or leave this target out",
                where=member.name,
            )
        every = np.concatenate([values, member.inner_labels[:, names.index(target.name)]])
        every = every[~np.isnan(every)]
        if target.classes > 1 and not np.isin(every, np.arange(target.classes)).all():
            raise TrainingError(
                f"{target.name} has labels other than the classes 0 to {target.classes - 1}", where=member.name
            )
    chosen = [names.index(t.name) for t in learnt(member, targets)]
    if len(member.inner) and np.isnan(member.inner_labels[:, chosen]).all():
        raise TrainingError("no known label in its inner rows", do="leave the inner rows out", where=member.name)


def _check_start(member: Member, seen: Prepared, targets: Sequence[Target]) -> None:
    if member.base is not None:
        expected = (seen.subjects, *member.recipe.edges[:1])
        if tuple(member.base.shape) != expected or FIRST in member.start:
            raise TrainingError(
                f"products of its first weights of shape {tuple(member.base.shape)}",
                expected=f"{expected}, and no such weights in its start",
                where=member.name,
            )
    if not member.start:
        return
    shapes = {name: shape for name, (shape, _) in _small_shapes(member.recipe, seen, targets).items()}
    if member.recipe.edges and seen.edges is not None:
        shapes[FIRST] = (member.recipe.edges[0], seen.edges.shape[1])
    for name, tensor in member.start.items():
        if name not in shapes:
            raise TrainingError(f"its start has a tensor '{name}'", do=nearest(name, shapes), where=member.name)
        if tuple(tensor.shape) != shapes[name]:
            raise TrainingError(
                f"its start's '{name}' is {tuple(tensor.shape)}", expected=str(shapes[name]), where=member.name
            )


def _small_shapes(
    recipe: SpanRecipe, prepared: Prepared, targets: Sequence[Target]
) -> dict[str, tuple[tuple[int, ...], int]]:
    """Return (shape, inputs of its layer) of all tensors but the first layer's weights."""
    shape = shape_of(recipe, prepared, targets)
    edges = 0 if prepared.edges is None else prepared.edges.shape[1]
    inputs = {name: before or edges for name, before, _ in shape.layers()}
    found = {}
    for name, size in shape.tensors().items():
        inside = name.removeprefix("heads.")
        if inside == name:
            found[name] = tuple(reversed(size)), inputs[".".join(name.split(".")[:2])]
        else:
            found |= {f"heads.{t.name}.{inside}": ((t.classes, *size[:-1]), recipe.fusion) for t in targets}
    return found


def _drawn(seed: int, name: str, shape: tuple[int, ...], inputs: int) -> Tensor:
    """Draw in float32 and outside torch, so that no device and no precision begins elsewhere; and twice as fast."""
    drawn = np.random.default_rng(seed_for(seed, "weights", name)).random(shape, np.float32)
    return torch.from_numpy(drawn).mul_(2.0).sub_(1.0).mul_(inputs**-0.5)
