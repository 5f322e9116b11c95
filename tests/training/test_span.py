from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tenfold.errors import TrainingError
from tenfold.training.members import FIRST, PAPER, Member, Prepared, SpanRecipe, Target, initial_state
from tenfold.training.span import batch_slices, fit_members, orders, predict_members

SUBJECTS, EDGES, CLINICAL = 26, 60, 4
TARGETS = (Target("cognitive"), Target("language", 3), Target("motor", 1))
NAN = math.nan
SMALL = SpanRecipe(edges=(12, 6), clinical=5, fusion=4, epochs=4, batch=6, norm="batch")


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    generator = torch.Generator().manual_seed(0)
    edges = torch.randn(SUBJECTS, EDGES, generator=generator)
    return Prepared(edges, torch.randn(SUBJECTS, CLINICAL, generator=generator))


def _labels(prepared: Prepared) -> np.ndarray:
    """Three outcomes that the first edges tell, some unknown, the score in its own units."""
    value = prepared.edges[:, :3].double().numpy()
    classes = np.digitize(value[:, 1], [-0.5, 0.5])
    found = np.stack([value[:, 0] > 0, classes, 100 + 15 * value[:, 2]], 1).astype(float)
    found[3, 0] = found[7, 1] = found[7, 2] = found[11, 2] = NAN
    return found


def _member(prepared: Prepared, recipe: SpanRecipe = SMALL, seed: int = 1, shift: int = 0, **options) -> Member:
    order = np.roll(np.arange(SUBJECTS), shift)
    train, inner = order[:16], order[16:21]
    labels = _labels(prepared)
    return Member(f"member {seed}", recipe, seed, train, labels[train], inner, labels[inner], **options)


class Plain(nn.Module):
    """The same network as anybody would write it."""

    def __init__(self, recipe: SpanRecipe) -> None:
        super().__init__()
        joined = recipe.edges[-1] + recipe.clinical
        self.edges = nn.ModuleList(
            self._layer(recipe, a, b) for a, b in zip((EDGES, *recipe.edges), recipe.edges, strict=False)
        )
        self.clinical = nn.ModuleList([self._layer(recipe, CLINICAL, recipe.clinical)])
        self.fusion = nn.ModuleList([self._layer(recipe, joined, recipe.fusion)])
        self.heads = nn.ModuleDict({t.name: self._layer(recipe, recipe.fusion, t.classes, head=True) for t in TARGETS})

    def _layer(self, recipe: SpanRecipe, a: int, b: int, head: bool = False) -> nn.Module:
        normed = recipe.norm != "none" and (recipe.head_norm or not head)
        layer = nn.Linear(a, b, bias=not normed)
        if normed:
            layer.norm = nn.BatchNorm1d(b) if recipe.norm == "batch" else nn.LayerNorm(b)
        return layer

    def forward(self, edges: Tensor, clinical: Tensor) -> list[Tensor]:
        for layer in self.edges:
            edges = self._hidden(layer, edges)
        x = torch.cat([edges, self._hidden(self.clinical[0], clinical)], 1)
        x = self._hidden(self.fusion[0], x)
        return [h.norm(h(x)) if hasattr(h, "norm") else h(x) for h in self.heads.values()]

    def _hidden(self, layer: nn.Module, x: Tensor) -> Tensor:
        return torch.relu(layer.norm(layer(x)) if hasattr(layer, "norm") else layer(x))


def _plain_loss(said: Sequence[Tensor], labels: Tensor, weights: Sequence[Tensor | None]) -> Tensor:
    total = said[0].sum() * 0.0
    for target, logits, column, weight in zip(TARGETS, said, labels.T, weights, strict=True):
        known = ~column.isnan()
        if not known.any():
            continue
        if target.classes == 1:
            total = total + functional.mse_loss(logits[known, 0], column[known])
        else:
            total = total + functional.cross_entropy(logits[known], column[known].long(), weight)
    return total / len(TARGETS)


def _plain_fit(member: Member, prepared: Prepared) -> tuple[list[np.ndarray], dict[str, Tensor], list[float]]:
    """Train with torch.nn and torch.optim, weights over all edges; return predictions of everyone and the state."""
    recipe = member.recipe
    network = Plain(recipe).to(prepared.edges.dtype)
    network.load_state_dict(initial_state(member, prepared, TARGETS), strict=False)
    matrices = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim == 1]
    optimizer = torch.optim.SGD(
        [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": others}],
        lr=recipe.rate, momentum=recipe.momentum, nesterov=recipe.nesterov,
    )  # fmt: skip
    labels = torch.from_numpy(member.train_labels.copy()).to(prepared.edges)
    score = labels[:, 2][~labels[:, 2].isnan()]
    mean, spread = score.mean(), score.std(correction=0)
    labels[:, 2] = (labels[:, 2] - mean) / spread
    inner = torch.from_numpy(member.inner_labels.copy()).to(prepared.edges)
    inner[:, 2] = (inner[:, 2] - mean) / spread
    weights: list[Tensor | None] = [None] * 3
    if recipe.class_weights:
        for k in (0, 1):
            column = labels[:, k][~labels[:, k].isnan()].long()
            counts = column.bincount(minlength=TARGETS[k].classes)
            weights[k] = (len(column) / (len(counts) * counts)).to(labels)
    best, history = {}, []
    for order in orders(member.seed, recipe.epochs, len(member.train)):
        network.train()
        for part in batch_slices(len(order), recipe.batch):
            rows = member.train[order[part]]
            said = network(prepared.edges[rows], prepared.clinical[rows])
            optimizer.zero_grad()
            _plain_loss(said, labels[order[part]], weights).backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            said = network(prepared.edges[member.inner], prepared.clinical[member.inner])
        history.append(float(_plain_loss(said, inner, [None] * 3)))
        if history[-1] == min(history):
            best = {name: t.clone() for name, t in network.state_dict().items()}
    network.load_state_dict(best)
    with torch.no_grad():
        found = [said.double().numpy() for said in network(prepared.edges, prepared.clinical)]
    found[2] = found[2] * float(spread) + float(mean)
    return found, best, history


def _everyone(count: int) -> list[np.ndarray]:
    return [np.arange(SUBJECTS)] * count


def _close(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray], tolerance: float = 1e-4) -> None:
    assert one.keys() == other.keys()
    for name, values in one.items():
        scale = 15 if name == "motor" else 1
        assert np.abs(values - other[name]).max() < tolerance * scale, name


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"momentum": 0.0, "nesterov": False},
        {"nesterov": False, "weight_decay": 0.1},
        {"weight_decay": 0.1, "class_weights": True},
        {"norm": "layer", "weight_decay": 0.05},
        {"norm": "none", "rate": 0.003},
        {"head_norm": True, "class_weights": True},
    ],
    ids=lambda c: " ".join(f"{k}={v}" for k, v in c.items()) or "nesterov",
)
def test_the_span_is_the_plain_loop(prepared: Prepared, changes: dict) -> None:
    member = _member(prepared, replace(SMALL, **changes))
    expected, state, history = _plain_fit(member, prepared)
    (trained,) = fit_members([member], [prepared], TARGETS)
    assert trained.history == pytest.approx(history, abs=1e-4)
    assert len(trained.train_history) == len(history)
    assert trained.best_epoch == int(np.argmin(history)) + 1
    (said,) = predict_members([trained], [prepared], _everyone(1))
    _close(said, dict(zip((t.name for t in TARGETS), expected, strict=True)))
    folded = trained.state(prepared)
    for name, tensor in folded.items():
        assert torch.allclose(tensor, state[name], atol=1e-4), name
    assert set(state) - set(folded) == {name for name in state if name.endswith("num_batches_tracked")}


def test_only_rounding_tells_the_span_from_the_plain_loop(prepared: Prepared) -> None:
    """In float64 nothing is left, where in float32 a long training may carry a rounding error far."""
    double = Prepared(prepared.edges.double(), prepared.clinical.double())
    member = _member(double, replace(PAPER, epochs=20, weight_decay=0.01))
    expected, _, _ = _plain_fit(member, double)
    (said,) = predict_members(fit_members([member], [double], TARGETS), [double], _everyone(1))
    _close(said, dict(zip((t.name for t in TARGETS), expected, strict=True)), 1e-9)


@pytest.mark.parametrize(
    "changes", [{"dropout": 0.3, "norm": "layer"}, {"patience": 2, "epochs": 12, "rate": 0.05}, {"optimizer": "adamw"}]
)
def test_a_member_does_not_depend_on_its_company(prepared: Prepared, changes: dict) -> None:
    recipe = replace(SMALL, **changes)
    other = Prepared(prepared.edges * 1.1, prepared.clinical.flip(0))
    members = [replace(_member(prepared, recipe, k, shift=3 * k), prepared=k % 2) for k in range(5)]
    members.append(replace(members[0], targets=("language",)))
    members.append(replace(members[1], inner=members[1].inner[:3], inner_labels=members[1].inner_labels[:3]))
    members.append(replace(members[2], recipe=replace(recipe, clinical=0)))
    members.append(replace(members[3], recipe=replace(recipe, edges=())))
    together = fit_members(members, [prepared, other], TARGETS)
    said = predict_members(together, [prepared, other], _everyone(len(members)))
    for member, one, own in zip(members, together, said, strict=True):
        (alone,) = fit_members([member], [prepared, other], TARGETS)
        assert alone.best_epoch == one.best_epoch
        assert len(alone.history) == len(one.history)
        _close(predict_members([alone], [prepared, other], _everyone(1))[0], own)
    first, second = fit_members(members, [prepared, other], TARGETS, at_once=2)[:2]
    assert torch.allclose(first.coordinates, together[0].coordinates, atol=1e-5)
    assert second.member is members[1]


def test_members_stop_when_each_has_waited_enough(prepared: Prepared) -> None:
    patient = replace(SMALL, epochs=15, rate=0.05)
    members = [_member(prepared, patient, seed, shift=seed) for seed in range(4)]
    whole = fit_members(members, [prepared], TARGETS)
    hasty = [replace(m, recipe=replace(patient, patience=2)) for m in members]
    stopped = fit_members(hasty, [prepared], TARGETS)
    assert len({len(one.history) for one in stopped}) > 1, "the members of this test should differ"
    for one, other in zip(stopped, whole, strict=True):
        assert other.best_epoch == int(np.argmin(other.history)) + 1
        assert one.history == pytest.approx(other.history[: len(one.history)], abs=1e-5)
        assert one.best_epoch == int(np.argmin(one.history)) + 1
        assert len(one.history) in (one.best_epoch + 2, patient.epochs)


def test_an_unknown_label_changes_nothing_but_its_own_target(prepared: Prepared) -> None:
    member = _member(prepared)
    altered = member.train_labels.copy()
    altered[:, 1] = np.random.default_rng(0).permutation(altered[:, 1])
    altered[:, 2] += 20.0
    (one,) = fit_members([replace(member, targets=("cognitive",))], [prepared], TARGETS)
    (same,) = fit_members([replace(member, targets=("cognitive",), train_labels=altered)], [prepared], TARGETS)
    first, second = predict_members([one, same], [prepared], _everyone(2))
    assert set(first) == {"cognitive"}
    assert np.array_equal(first["cognitive"], second["cognitive"])


def test_other_subjects_are_predicted_as_the_folded_weights_say(prepared: Prepared) -> None:
    generator = torch.Generator().manual_seed(9)
    others = Prepared(torch.randn(7, EDGES, generator=generator), torch.randn(7, CLINICAL, generator=generator))
    (trained,) = fit_members([_member(prepared, replace(SMALL, weight_decay=0.1))], [prepared], TARGETS)
    (said,) = predict_members([trained], [prepared], [np.array([5, 2])], of=[others])
    network = Plain(SMALL)
    network.load_state_dict(trained.state(prepared), strict=False)
    network.eval()
    with torch.no_grad():
        logits = network(others.edges[[5, 2]], others.clinical[[5, 2]])
    assert np.abs(said["language"] - logits[1].numpy()).max() < 1e-4
    scores = logits[2].numpy() * trained.scales[2, 1] + trained.scales[2, 0]
    assert np.abs(said["motor"] - scores).max() < 1e-3


def test_a_start_is_where_it_begins_and_learns_at_its_own_rate(prepared: Prepared) -> None:
    (before,) = fit_members([_member(prepared)], [prepared], TARGETS)
    start = {n: t for n, t in before.state(prepared).items() if n.startswith("edges.")}
    held = replace(SMALL, encoder_rate=0.0)
    members = [_member(prepared, held, seed, shift=5, start=start) for seed in (1, 2)]
    for trained in fit_members(members, [prepared], TARGETS):
        assert torch.equal(trained.first_layer(prepared), start[FIRST])
        assert torch.equal(trained.tensors["edges.1.weight"], start["edges.1.weight"])
        assert not torch.equal(trained.tensors["fusion.0.weight"], before.tensors["fusion.0.weight"])
        assert trained.member.start[FIRST] is start[FIRST]


def test_products_stand_for_first_weights_that_would_not_fit_in_memory(prepared: Prepared) -> None:
    member = _member(prepared)
    first = initial_state(member, prepared, TARGETS)[FIRST]
    bare = replace(member, base=prepared.edges @ first.T)
    one, other = fit_members([member], [prepared], TARGETS) + fit_members([bare], [prepared], TARGETS)
    assert torch.equal(one.coordinates, other.coordinates)
    assert torch.allclose(one.first_layer(prepared), other.first_layer(prepared, first), atol=1e-6)
    _close(*predict_members([one, other], [prepared], _everyone(2)))
    with pytest.raises(TrainingError, match="only their products"):
        other.first_layer(prepared)
    with pytest.raises(TrainingError, match=r"\(26, 12\)"):
        fit_members([replace(bare, base=bare.base[:3])], [prepared], TARGETS)


def test_a_score_that_is_not_standardised_is_learned_as_it_is(prepared: Prepared) -> None:
    member = _member(prepared, targets=("motor",))
    labels = (member.train_labels - 100) / 15
    targets = (*TARGETS[:2], Target("motor", 1, standardise=False))
    (trained,) = fit_members([replace(member, train_labels=labels)], [prepared], targets)
    assert trained.scales.tolist() == [[0, 1]] * 3
    (again,) = fit_members([member], [prepared], TARGETS)
    assert again.scales[2] == pytest.approx(
        [np.nanmean(member.train_labels[:, 2]), np.nanstd(member.train_labels[:, 2])]
    )


def test_adamw_divides_in_the_coordinates_and_shrinks_the_first_weights(prepared: Prepared) -> None:
    """One step: each coordinate moves by the rate, against the sign of its gradient, whatever the gradient's size."""
    recipe = replace(SMALL, optimizer="adamw", epochs=1, batch=16, weight_decay=0.1, rate=0.01)
    (trained,) = fit_members([_member(prepared, recipe)], [prepared], TARGETS)
    assert trained.kept == pytest.approx(1 - 0.01 * 0.1)
    moved = trained.coordinates[trained.coordinates.abs() > 1e-4]
    assert torch.allclose(moved.abs(), torch.tensor(0.01), rtol=1e-3)


def test_without_inner_rows_the_last_epoch_is_kept(prepared: Prepared) -> None:
    member = _member(prepared)
    bare = replace(member, inner=member.inner[:0], inner_labels=member.inner_labels[:0])
    (trained,) = fit_members([bare], [prepared], TARGETS)
    assert trained.history == ()
    assert trained.best_epoch == SMALL.epochs
    (judged,) = fit_members([member], [prepared], TARGETS)
    if judged.best_epoch == SMALL.epochs:
        assert torch.equal(judged.coordinates, trained.coordinates)


def test_the_paper_to_the_letter_learns_what_edges_tell(prepared: Prepared) -> None:
    recipe = replace(PAPER, epochs=20)
    targets = (TARGETS[0],)
    labels = np.nan_to_num(_labels(prepared)[:, :1])
    rows = np.arange(SUBJECTS)
    member = Member("paper", recipe, 1, rows, labels, rows[:0], labels[:0])
    (trained,) = fit_members([member], [prepared], targets)
    (said,) = predict_members([trained], [prepared], [rows])
    assert (said["cognitive"].argmax(1) == labels[:, 0]).mean() > 0.9


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train": np.array([0, 0])}, "a row twice"),
        ({"train": np.arange(0), "train_labels": np.zeros((0, 3))}, "no training row"),
        ({"inner": np.arange(5)}, "a row twice"),
        ({"train": np.arange(16) + 20}, "beyond the 26"),
        ({"prepared": 1}, "preparation 1 of 1"),
        ({"targets": ("motr",)}, "did you mean 'motor'"),
        ({"start": {"edges.0.wieght": torch.zeros(1)}}, "did you mean 'edges.0.weight'"),
        ({"start": {FIRST: torch.zeros(2, EDGES)}}, r"\(12, 60\)"),
        ({"recipe": replace(SMALL, batch=1)}, "no variance"),
        ({"recipe": replace(SMALL, rate=1e30)}, "no longer a number"),
        ({"train_labels": np.zeros((16, 3))}, "only the value 0"),
        ({"train_labels": np.full((16, 3), NAN)}, "no label"),
        ({"train_labels": np.tile([[0.0], [2.0]], (8, 3))}, "other than the classes 0 to 1"),
        ({"inner_labels": np.full((5, 3), NAN)}, "leave the inner rows out"),
        ({"inner_labels": np.zeros((5, 2))}, "labels of shape"),
    ],
)
def test_what_cannot_be_trained_is_refused(prepared: Prepared, change: dict, words: str) -> None:
    member = _member(prepared)
    if "inner" not in change and "train" in change:
        change = {**change, "inner": np.array([1]), "inner_labels": member.inner_labels[:1]}
    with pytest.raises(TrainingError, match=words) as caught:
        fit_members([replace(member, **change)], [prepared], TARGETS)
    assert "member 1" in str(caught.value)


def test_one_lost_training_is_named_among_many(prepared: Prepared) -> None:
    lost = replace(_member(prepared, seed=7), start={FIRST: torch.full((12, EDGES), 1e38)})
    fine = replace(_member(prepared, seed=8), start={FIRST: torch.zeros(12, EDGES)})
    with pytest.raises(TrainingError, match="member 7: the loss of 1 of 2"):
        fit_members([fine, lost], [prepared], TARGETS)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"norm": "btach"}, "did you mean 'batch'"),
        ({"edges": (), "clinical": 0}, "no input"),
        ({"dropout": 1.0}, "below 1"),
        ({"momentum": 0.0}, "nesterov"),
        ({"epochs": 0}, "1 at least"),
    ],
)
def test_an_impossible_recipe_is_refused(change: dict, words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        replace(SMALL, **change)


def test_inputs_must_be_whole() -> None:
    with pytest.raises(TrainingError, match="the first in row 1"):
        Prepared(torch.tensor([[1.0], [NAN]]))
    with pytest.raises(TrainingError, match="one row a subject"):
        Prepared(torch.zeros(2, 1), torch.zeros(3, 1))
    with pytest.raises(TrainingError, match="one of them"):
        Prepared()


def test_threads_share_chunks_and_change_nothing(prepared: Prepared) -> None:
    members = [_member(prepared, seed=k) for k in range(4)]
    expected = fit_members(members, [prepared], TARGETS, at_once=2)
    torch.set_num_threads(2)
    done = []
    found = fit_members(members, [prepared], TARGETS, at_once=2, progress=lambda *at: done.append(at))
    assert torch.get_num_threads() == 2
    assert done == [(2, 4), (4, 4)]
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.coordinates, other.coordinates)
