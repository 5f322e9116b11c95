"""Many small trainings at once, with the first layer kept in the span of its training subjects.

It must not know cohorts, files, test folds or what the numbers of a connectome mean: it is handed rows of numbers.

With n subjects far below p edges, every gradient of the first layer W (h x p) is a sum over training subjects of
(gradient of their h products) x (their row). So W = c W0 + A X, where X (n x p) holds the training rows, A (h x n) the
coordinates and c is 1 until weight decay shrinks it; and the layer's products are W x = c W0 x + A (X x), of which W0 x
and the Gram matrix X X' are computed once. For SGD the coordinates follow the gradient of the *products*, not that of
A itself: then W moves exactly as in a plain loop, momentum, Nesterov and weight decay included, for all of these are
linear in W. AdamW is not: there the coordinates are the definition, it divides by the size of *their* gradients, and
a plain loop gives another network.

That layer is 99 of 100 parameters, so what is left of folds, repeats, seeds and arms fits into cache side by side and
is trained as one stacked model (`tenfold.training.stacked`). A member's result does not depend on its company.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tenfold.errors import TrainingError
from tenfold.training.device import seed_for
from tenfold.training.members import (
    FIRST,
    Member,
    Prepared,
    Target,
    Trained,
    check_member,
    first_weight,
    learnt,
    shape_of,
    small_state,
)
from tenfold.training.stacked import Shape, Stack, learns
from tenfold.types import FloatArray, IntArray

BoolArray = NDArray[np.bool_]
_Result = TypeVar("_Result")

# of parameters, gradients and momenta that are worked on at a time: what stays in the cache of a small machine
_CHUNK_BYTES = 16 * 2**20


def fit_members(
    members: Sequence[Member],
    prepared: Sequence[Prepared],
    targets: Sequence[Target],
    *,
    at_once: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Trained]:
    """Train all members; those of the same recipe and number of training rows go side by side.

    Args:
        members: What is trained; one alone gives the same as in company.
        prepared: The preparations they see, on the device and in the precision to train in.
        targets: What the columns of the labels are.
        at_once: How many members are stacked; None takes as many as stay in cache.
        progress: Called with (members done, members).

    Returns:
        One a member, in their order, on the same device.

    Raises:
        TrainingError: A member that cannot be trained, or whose loss is no longer a number.
    """
    for member in members:
        check_member(member, prepared, targets)
    products = _Products(prepared, prepared, {_origin(one): one.base for one in members if one.base is not None})
    found: dict[int, Trained] = {}

    def kind(member: Member) -> Hashable:
        return member.recipe, len(member.train), len(member.inner) > 0

    def fit(places: list[int]) -> list[Trained]:
        return _Chunk([members[i] for i in places], products, tuple(targets)).fit()

    for places, fitted in _each(_chunks(members, kind, prepared, at_once), fit, prepared):
        found |= zip(places, fitted, strict=True)
        if progress:
            progress(len(found), len(members))
    return [found[i] for i in range(len(members))]


def predict_members(
    trained: Sequence[Trained],
    prepared: Sequence[Prepared],
    rows: Sequence[IntArray],
    *,
    of: Sequence[Prepared] | None = None,
    at_once: int | None = None,
) -> list[dict[str, FloatArray]]:
    """Predict rows with each member.

    Args:
        trained: Members of one fit.
        prepared: The preparations they were trained on.
        rows: Which rows each member predicts.
        of: The same preparations applied to other subjects, whose rows these are; None is those of training.
        at_once: As for `fit_members`.

    Returns:
        One a member, by the name of each target it learnt: float64 (rows, classes) logits, or (rows, 1) scores in the
        units of the labels.
    """
    known = {} if of else {_origin(one.member): one.base for one in trained if one.base is not None}
    products = _Products(of or prepared, prepared, known)
    found: dict[int, dict[str, FloatArray]] = {}
    members = [one.member for one in trained]

    def kind(member: Member) -> Hashable:
        return member.recipe, len(member.train)

    def predict(places: list[int]) -> list[dict[str, FloatArray]]:
        return _predict([trained[i] for i in places], products, [rows[i] for i in places])

    for places, said in _each(_chunks(members, kind, prepared, at_once), predict, prepared):
        found |= zip(places, said, strict=True)
    return [found[i] for i in range(len(trained))]


def orders(seed: int, epochs: int, n: int) -> IntArray:
    """Return the order of n training rows in each epoch, (epochs, n): that of `tenfold.training.loop`."""
    seeds = [seed_for(seed, "order", epoch) for epoch in range(epochs)]
    return np.stack([np.random.default_rng(own).permutation(n) for own in seeds])


def batch_slices(n: int, size: int) -> list[slice]:
    """Divide n rows into batches that differ by one at most."""
    count = math.ceil(n / size)
    ends = np.cumsum([0, *(n // count + (k < n % count) for k in range(count))]).tolist()
    return [slice(a, b) for a, b in itertools.pairwise(ends)]


@dataclass(frozen=True)
class _Rows:
    """Some rows of each of M members, r of each.

    Attributes:
        base: (M, r, h) products of the initial weights, or None without connectomes.
        gram: (M, r, n) with the member's training rows, or None.
        clinical: (M, r, features), or None.
    """

    base: Tensor | None
    gram: Tensor | None
    clinical: Tensor | None

    def ordered(self, places: Tensor) -> _Rows:
        """Put each member's rows into its own order, as `_ordered` does."""
        return _Rows(
            None if self.base is None else _ordered(self.base, places),
            None if self.gram is None else _ordered(self.gram, places),
            None if self.clinical is None else _ordered(self.clinical, places),
        )

    def part(self, rows: slice) -> _Rows:
        """Return some of the rows, without copying."""
        return _Rows(
            None if self.base is None else self.base[:, rows],
            None if self.gram is None else self.gram[:, rows],
            None if self.clinical is None else self.clinical[:, rows],
        )

    def products(self, coordinates: Tensor | None, kept: Tensor) -> Tensor | None:
        """Return the first layer's products (M, r, h), of coordinates (M, n, h) and what is kept of W0 (M, 1, 1)."""
        if self.base is None or self.gram is None or coordinates is None:
            return None
        return (self.base * kept).baddbmm_(self.gram, coordinates)


@dataclass(frozen=True)
class _Answers:
    """What the heads should say of some rows.

    Attributes:
        truth: (M, r, columns): ones and zeros of classes, standardised scores.
        weights: (M, r, targets), what each label counts; 0 where it is unknown.
        targets: The targets.
        columns: (columns,) which target a column belongs to.
        parts: (M, 1, 1) what one target is of all that a member learns.
    """

    truth: Tensor
    weights: Tensor
    targets: tuple[Target, ...]
    columns: Tensor
    parts: Tensor

    def ordered(self, places: Tensor) -> _Answers:
        """Put each member's rows into its own order, as `_ordered` does."""
        return replace(self, truth=_ordered(self.truth, places), weights=_ordered(self.weights, places))

    def part(self, rows: slice) -> _Answers:
        """Return some of the rows, without copying."""
        return replace(self, truth=self.truth[:, rows], weights=self.weights[:, rows])

    def losses(self, said: Tensor) -> Tensor:
        """Return (M,), the mean over targets of the mean over known labels of cross-entropy or squared error."""
        lost = [
            ((view - truth).square() if classes == 1 else -view.log_softmax(3) * truth).flatten(2)
            for (view, classes), (truth, _) in zip(self._heads(said), self._heads(self.truth), strict=True)
        ]
        return (torch.cat(lost, 2) * self._shares()).sum((1, 2))

    def losses_and_gradient(self, said: Tensor) -> tuple[Tensor, Tensor]:
        """Return `losses` and their gradient by what was said."""
        lost, found = [], []
        for (view, classes), (truth, _) in zip(self._heads(said), self._heads(self.truth), strict=True):
            if classes == 1:
                apart = view - truth
                lost.append(apart.square().flatten(2))
                found.append(apart.mul_(2.0).flatten(2))
            else:
                logs = view.log_softmax(3)
                lost.append((logs * truth).neg_().flatten(2))
                found.append(logs.exp_().sub_(truth).flatten(2))
        shares = self._shares()
        return (torch.cat(lost, 2) * shares).sum((1, 2)), torch.cat(found, 2).mul_(shares)

    def _shares(self) -> Tensor:
        """Make the weights of each target sum to its part over rows, unless none is known."""
        total = self.weights.sum(1, keepdim=True).clamp_min_(torch.finfo(self.weights.dtype).tiny)
        return (self.weights * self.parts / total).index_select(2, self.columns)

    def _heads(self, columns: Tensor) -> Iterator[tuple[Tensor, int]]:
        """Give views (M, r, heads, classes) of heads that follow each other and have as many classes."""
        used = 0
        for classes, run in itertools.groupby(target.classes for target in self.targets):
            count = len(list(run))
            yield columns[..., used : used + count * classes].unflatten(2, (count, classes)), classes
            used += count * classes


class _Products:
    """X X' and X W0' of every preparation, each computed once.

    Args:
        of: Whose rows are asked for.
        trained_on: Whose rows are trained on.
        bases: Those X W0' that are known already, by `_origin`.
    """

    def __init__(
        self, of: Sequence[Prepared], trained_on: Sequence[Prepared], bases: Mapping[Hashable, Tensor] | None = None
    ) -> None:
        self.of, self.trained_on = of, trained_on
        self._grams: dict[int, Tensor] = {}
        self._bases = dict(bases or {})

    def rows(self, members: Sequence[Member], rows: Sequence[IntArray]) -> _Rows:
        """Gather as many rows of each member."""
        asked = [(m, torch.from_numpy(r)) for m, r in zip(members, rows, strict=True)]
        edges, clinical = members[0].recipe.edges, members[0].recipe.clinical
        return _Rows(
            torch.stack([self.base(m)[r] for m, r in asked]) if edges else None,
            torch.stack([self._gram(m)[r][:, torch.from_numpy(m.train)] for m, r in asked]) if edges else None,
            torch.stack([_there(self.of[m.prepared].clinical)[r] for m, r in asked]) if clinical else None,
        )

    def _gram(self, member: Member) -> Tensor:
        if member.prepared not in self._grams:
            seen, trained_on = self.of[member.prepared], self.trained_on[member.prepared]
            self._grams[member.prepared] = _there(seen.edges) @ _there(trained_on.edges).T
        return self._grams[member.prepared]

    def base(self, member: Member) -> Tensor:
        """Return X W0' of everyone, (subjects, h)."""
        key = _origin(member)
        if key not in self._bases:
            edges = _there(self.of[member.prepared].edges)
            self._bases[key] = edges @ first_weight(member, edges).T
        return self._bases[key]


class _Chunk:
    """Members of one kind, trained side by side."""

    def __init__(self, members: Sequence[Member], products: _Products, targets: tuple[Target, ...]) -> None:
        self.members, self.targets, self.recipe = members, targets, members[0].recipe
        self.prepared = products.trained_on
        seen = self.prepared[members[0].prepared]
        like, self.n = seen.tables[0], len(members[0].train)

        states = [small_state(one, self.prepared[one.prepared], targets) for one in members]
        live = _stacked(states, shape_of(self.recipe, seen, targets), targets)
        if self.recipe.edges:
            live["coordinates"] = like.new_zeros(len(members), self.n, self.recipe.edges[0])
            live["kept"] = like.new_ones(len(members), 1, 1)
        self.live, self.optimizer = self._prepare(live)
        self.stack = Stack(shape_of(self.recipe, seen, targets), self.live)
        self.bases = [products.base(one) for one in members] if self.recipe.edges else [None] * len(members)

        self.slices = batch_slices(self.n, self.recipe.batch)
        every = torch.from_numpy(np.stack([orders(one.seed, self.recipe.epochs, self.n) for one in members], 1))
        self.places = (every + torch.arange(len(members))[:, None] * self.n).to(like.device)
        self.dropouts = [torch.Generator().manual_seed(seed_for(one.seed, "dropout")) for one in members]

        self.rows = products.rows(members, [one.train for one in members])
        labels = self._labels([one.train_labels for one in members])
        self.scales = _scales(labels, targets)
        parts = like.new_tensor([1.0 / len(learnt(one, targets)) for one in members])[:, None, None]
        self.answers = _answers(labels, self.scales, targets, parts, balanced=self.recipe.class_weights)

        self.inner: tuple[_Rows, _Answers] | None = None
        most = max(len(one.inner) for one in members)
        if most:
            # where members have fewer inner rows, some of these come twice, but only once with labels
            rows = products.rows(members, [np.resize(one.inner, most) for one in members])
            labels = self._labels([one.inner_labels for one in members])
            self.inner = rows, _answers(labels, self.scales, targets, parts, balanced=False)

    def fit(self) -> list[Trained]:
        """Train, and return each member as it was in its best epoch."""
        rates = [group["lr"] for group in self.optimizer.param_groups]
        watch, lost = _Watch(self.members, self.live, self.recipe.patience), []
        for epoch in range(self.recipe.epochs):
            for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * self._factor(epoch)
            lost.append(self._epoch(self.places[epoch]))
            if self.inner is not None and watch.stop_after(epoch + 1, self._judge(*self.inner)):
                break
        best, lost_by = watch.best(), torch.stack(lost, 1).tolist()
        return [self._trained(i, best, watch, lost_by[i]) for i in range(len(self.members))]

    def _epoch(self, places: Tensor) -> Tensor:
        """Go over all training rows once; return the mean loss of each member, (M,)."""
        total = self.answers.parts.new_zeros(len(self.members))
        rows, answers, keep = self.rows.ordered(places), self.answers.ordered(places), self._keep()
        for part in self.slices:
            batch = rows.part(part)
            said = self._said(batch, training=True, keep=None if keep is None else keep[:, part])
            losses, of_said = answers.part(part).losses_and_gradient(said)
            total.add_(losses, alpha=(part.stop - part.start) / self.n)
            gradient = self.stack.backward(of_said)
            if gradient is not None and batch.gram is not None:
                self._pull(gradient, batch.gram, places[:, part])
            self.optimizer.step()
        return total

    def _said(self, rows: _Rows, *, training: bool, keep: Tensor | None = None) -> Tensor:
        product = rows.products(self.live["coordinates"], self.live["kept"]) if self.recipe.edges else None
        return self.stack.forward(product, rows.clinical, training=training, keep=keep)

    def _judge(self, rows: _Rows, answers: _Answers) -> FloatArray:
        return answers.losses(self._said(rows, training=False)).double().cpu().numpy()

    def _pull(self, gradient: Tensor, gram: Tensor, places: Tensor) -> None:
        """Give the coordinates their gradient, from that of the products of a batch."""
        found = cast("Tensor", self.live["coordinates"].grad)
        if self.recipe.optimizer == "sgd":
            # dW is the sum of (gradient of a row's products) x (that row): in coordinates, the gradient itself at the
            # rows of the batch and 0 at the others
            found.zero_().flatten(0, 1).index_copy_(0, places.flatten(), gradient.flatten(0, 1))
        else:
            torch.bmm(gram.transpose(1, 2), gradient, out=found)

    def _keep(self) -> Tensor | None:
        """Draw what dropout leaves in an epoch, each member from its own source."""
        units, share = self.stack.shape.dropped(), self.recipe.dropout
        if not units:
            return None
        drawn = torch.stack([torch.rand(self.n, units, generator=source) for source in self.dropouts])
        return (drawn >= share).to(self.answers.truth).div_(1.0 - share)

    def _prepare(self, live: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], torch.optim.Optimizer]:
        """Lay what learns alike end to end, for the optimizer to go over it in one sweep; return views and it."""
        recipe = self.recipe
        packed, groups = dict(live), []
        for ours, decays in itertools.product((True, False), repeat=2):
            chosen = {n: t for n, t in live.items() if learns(n) and (_of_encoder(n), _decays(n)) == (ours, decays)}
            if not chosen:
                continue
            flat, views = _flat(chosen)
            packed |= views
            rate = recipe.encoder_rate if ours and recipe.encoder_rate is not None else recipe.rate
            groups.append({"params": [flat], "lr": rate, "weight_decay": recipe.weight_decay if decays else 0.0})
        if recipe.optimizer == "adamw":
            return packed, torch.optim.AdamW(groups, fused=True)
        return packed, torch.optim.SGD(groups, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=True)

    def _labels(self, labels: Sequence[FloatArray]) -> FloatArray:
        """Stack labels (M, most rows, targets), unknown where a member lacks a row or does not learn a target."""
        found = np.full((len(labels), max(map(len, labels)), len(self.targets)), np.nan)
        for place, own, member in zip(found, labels, self.members, strict=True):
            taught = [target in learnt(member, self.targets) for target in self.targets]
            place[: len(own), taught] = own[:, taught]
        return found

    def _factor(self, epoch: int) -> float:
        if self.recipe.schedule == "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * epoch / self.recipe.epochs))
        return 1.0

    def _trained(self, i: int, best: dict[str, Tensor], watch: _Watch, lost: list[float]) -> Trained:
        own = {name: tensor[i].clone() for name, tensor in best.items()}
        coordinates, kept = own.pop("coordinates", None), own.pop("kept", None)
        return Trained(
            member=self.members[i],
            targets=self.targets,
            history=tuple(watch.history[: watch.last[i], i].tolist()),
            train_history=tuple(lost if self.inner is None else lost[: watch.last[i]]),
            best_epoch=int(watch.best_epoch[i]) if self.inner is not None else self.recipe.epochs,
            tensors=_named(own, self.targets),
            coordinates=coordinates,
            base=self.bases[i],
            kept=1.0 if kept is None else float(kept),
            scales=self.scales[i],
        )


class _Watch:
    """Which epoch is each member's best, and whether it has stopped.

    Args:
        members: For messages.
        live: The tensors that training changes, (M, ...).
        patience: Epochs to wait for a better one; 0 waits for ever.
    """

    def __init__(self, members: Sequence[Member], live: dict[str, Tensor], patience: int) -> None:
        self._members, self._live, self._patience = members, live, patience
        self._best: dict[str, Tensor] = {}
        self._lowest = np.full(len(members), np.inf)
        self._losses: list[FloatArray] = []
        self.best_epoch = np.zeros(len(members), int)
        self.last = np.zeros(len(members), int)
        self._stopped = np.zeros(len(members), bool)

    @property
    def history(self) -> FloatArray:
        """Inner losses, (epochs, M)."""
        return np.array(self._losses).reshape(-1, len(self._members))

    def stop_after(self, epoch: int, losses: FloatArray) -> bool:
        """Take the inner losses after an epoch, and tell whether no member goes on."""
        running = ~self._stopped
        self._refuse_where(running & ~np.isfinite(losses))
        better = running & (losses < self._lowest)
        self._remember(better)
        self._losses.append(losses)
        self._lowest[better], self.best_epoch[better], self.last[running] = losses[better], epoch, epoch
        if self._patience:
            self._stopped |= epoch - self.best_epoch >= self._patience
        return bool(self._stopped.all())

    def best(self) -> dict[str, Tensor]:
        """Return the tensors of the best epochs; the last ones' where nothing was judged."""
        found = self._best or self._live
        finite = torch.stack([t.flatten(1).isfinite().all(1) for t in found.values()]).all(0)
        self._refuse_where(~finite.cpu().numpy())
        return found

    def _remember(self, better: BoolArray) -> None:
        if better.all():
            self._best = {name: tensor.clone() for name, tensor in self._live.items()}
        elif better.any():
            which = torch.from_numpy(better.nonzero()[0]).to(next(iter(self._live.values())).device)
            for name, tensor in self._live.items():
                self._best[name].index_copy_(0, which, tensor.index_select(0, which))

    def _refuse_where(self, lost: BoolArray) -> None:
        if lost.any():
            first = self._members[int(lost.argmax())]
            raise TrainingError(
                f"the loss of {int(lost.sum())} of {len(lost)} trainings is no longer a number",
                do=f"lower rate ({first.recipe.rate:g})",
                where=first.name,
            )


def _predict(trained: Sequence[Trained], products: _Products, rows: Sequence[IntArray]) -> list[dict[str, FloatArray]]:
    members, targets = [one.member for one in trained], trained[0].targets
    recipe, seen = members[0].recipe, products.trained_on[members[0].prepared]
    shape = shape_of(recipe, seen, targets)
    stack = Stack(shape, _stacked([one.tensors for one in trained], shape, targets))
    asked = products.rows(members, [np.resize(r, max(map(len, rows))) for r in rows])
    product = None
    if recipe.edges:
        kept = seen.tables[0].new_tensor([one.kept for one in trained])[:, None, None]
        product = asked.products(torch.stack([_there(one.coordinates) for one in trained]), kept)
    said = stack.forward(product, asked.clinical, training=False).double().cpu().numpy()
    found = []
    for one, own in zip(trained, [said[i, : len(r)] for i, r in enumerate(rows)], strict=True):
        parts = np.split(own, np.cumsum([target.classes for target in targets])[:-1], 1)
        scaled = [part * spread + mean for part, (mean, spread) in zip(parts, one.scales, strict=True)]
        said_of = dict(zip(targets, scaled, strict=True))
        found.append({target.name: said_of[target] for target in learnt(one.member, targets)})
    return found


def _chunks(
    members: Sequence[Member],
    kind: Callable[[Member], Hashable],
    prepared: Sequence[Prepared],
    at_once: int | None,
) -> list[list[int]]:
    """Return the places of members that go side by side."""
    groups: dict[Hashable, list[int]] = {}
    for i, member in enumerate(members):
        widths = tuple(table.shape[1] for table in prepared[member.prepared].tables)
        groups.setdefault((kind(member), widths), []).append(i)
    found: list[list[int]] = []
    for places in groups.values():
        in_cache = _members_in_cache(members[places[0]], prepared)
        size = at_once or min(in_cache, math.ceil(len(members) / _threads(prepared)))
        found += [part.tolist() for part in np.array_split(places, math.ceil(len(places) / size))]
    return found


def _each(
    chunks: Sequence[list[int]], work: Callable[[list[int]], list[_Result]], prepared: Sequence[Prepared]
) -> Iterator[tuple[list[int], list[_Result]]]:
    """Do each chunk; where the CPU has several threads, each of them works on a chunk of its own.

    The operations are too small to be shared: two threads wait for each other at the end of each, and where something
    else runs on the machine they wait for long.
    """
    work = torch.no_grad()(work)
    threads = _threads(prepared)
    if threads == 1 or len(chunks) == 1:
        yield from ((places, work(places)) for places in chunks)
        return
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            yield from zip(chunks, pool.map(work, chunks), strict=True)
    finally:
        torch.set_num_threads(threads)


def _threads(prepared: Sequence[Prepared]) -> int:
    return torch.get_num_threads() if prepared[0].tables[0].device.type == "cpu" else 1


def _members_in_cache(member: Member, prepared: Sequence[Prepared]) -> int:
    recipe, n = member.recipe, len(member.train)
    seen = prepared[member.prepared]
    features = 0 if seen.clinical is None else seen.clinical.shape[1]
    widths = (n, *recipe.edges) if recipe.edges else ()
    numbers = sum(a * b for a, b in itertools.pairwise(widths)) + features * recipe.clinical
    return max(1, _CHUNK_BYTES // (3 * numbers * seen.tables[0].element_size()))


def _origin(member: Member) -> Hashable:
    """Return what the products of a member's first weights depend on."""
    if member.base is not None:
        return member.prepared, "base", id(member.base)
    started = FIRST in member.start
    return member.prepared, started, id(member.start[FIRST]) if started else member.seed, member.recipe.edges[:1]


def _there(table: Tensor | None) -> Tensor:
    """Return a table that `check_member` has seen to be there."""
    return cast("Tensor", table)


def _ordered(stacked: Tensor, places: Tensor) -> Tensor:
    """Put the rows (M, r, ...) of each member into its own order, given by their places among all M x r (M, r)."""
    return stacked.flatten(0, 1).index_select(0, places.flatten()).view(stacked.shape)


def _flat(tensors: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Copy tensors into one with a gradient; return it, and by name views of it, whose gradients are views of its."""
    flat = torch.cat([tensor.flatten() for tensor in tensors.values()])
    flat.grad = torch.zeros_like(flat)
    sizes = [tensor.numel() for tensor in tensors.values()]
    views = {}
    for (name, tensor), own, gradient in zip(tensors.items(), flat.split(sizes), flat.grad.split(sizes), strict=True):
        views[name] = own.view(tensor.shape)
        views[name].grad = gradient.view(tensor.shape)
    return flat, views


def _of_encoder(name: str) -> bool:
    return name in ("coordinates", "kept") or name.startswith("edges.")


def _decays(name: str) -> bool:
    return name in ("coordinates", "kept") or (name.endswith(".weight") and ".norm." not in name)


def _parts(name: str, targets: Sequence[Target]) -> list[str]:
    """Return the names under which a stacked tensor is known outside: the heads', one a target."""
    inside = name.removeprefix("heads.")
    return [name] if inside == name else [f"heads.{target.name}.{inside}" for target in targets]


def _stacked(states: Sequence[Mapping[str, Tensor]], shape: Shape, targets: Sequence[Target]) -> dict[str, Tensor]:
    """Stack what torch.nn would hold of each member, as `Stack` takes it."""
    found = {}
    for name in shape.tensors():
        parts = [torch.stack([state[part] for state in states]) for part in _parts(name, targets)]
        joined = torch.cat(parts, 1)
        found[name] = joined.transpose(1, 2).contiguous() if joined.ndim == 3 else joined
    return found


def _named(own: Mapping[str, Tensor], targets: Sequence[Target]) -> dict[str, Tensor]:
    """Return a member's tensors as torch.nn would hold them."""
    found: dict[str, Tensor] = {}
    for name, tensor in own.items():
        rows = tensor.T.contiguous() if tensor.ndim == 2 else tensor
        names = _parts(name, targets)
        found |= zip(names, rows.split([t.classes for t in targets]) if len(names) > 1 else [rows], strict=True)
    return found


def _scales(labels: FloatArray, targets: Sequence[Target]) -> FloatArray:
    """Return (M, targets, 2) mean and standard deviation of scores (M, r, targets); 0 and 1 of all but scores."""
    scales = np.tile([0.0, 1.0], (len(labels), len(targets), 1))
    for k, target in enumerate(targets):
        learns = ~np.isnan(labels[..., k]).all(1)
        if target.classes == 1 and target.standardise and learns.any():
            column = labels[learns, :, k]
            scales[learns, k] = np.stack([np.nanmean(column, 1), np.nanstd(column, 1)], 1)
    return scales


def _answers(
    labels: FloatArray, scales: FloatArray, targets: tuple[Target, ...], parts: Tensor, *, balanced: bool
) -> _Answers:
    """Prepare labels (M, r, targets), each class weighing n / (classes x n_class) if balanced."""
    truth, weights = [], (~np.isnan(labels)).astype(float)
    for k, target in enumerate(targets):
        column = labels[..., k]
        if target.classes == 1:
            truth.append(np.nan_to_num((column - scales[:, k, :1]) / scales[:, k, 1:])[..., None])
            continue
        hot = (column[..., None] == np.arange(target.classes)).astype(float)
        truth.append(hot)
        if balanced:
            counts = hot.sum(1, keepdims=True)
            weights[..., k] = (hot * counts.sum(2, keepdims=True) / (target.classes * counts.clip(1))).sum(2)
    columns = [k for k, target in enumerate(targets) for _ in range(target.classes)]
    return _Answers(
        torch.from_numpy(np.concatenate(truth, 2)).to(parts),
        torch.from_numpy(weights).to(parts),
        targets,
        torch.tensor(columns, device=parts.device),
        parts,
    )
