"""Several kinds of targets in one fit, and a stage without labels."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tenfold import encoders
from tenfold.errors import TrainingError
from tenfold.network import HeadSpec, Network, mirror
from tenfold.training import checkpoint as checkpoints
from tenfold.training.augment import Augmentation
from tenfold.training.loop import Recipe, fit, predict_scores
from tenfold.training.sources import Inputs, Part
from tenfold.training.stages import Material, Stage, run_stages

N, EDGES = 80, 45
TRAIN, INNER = np.arange(56), np.arange(56, 80)
HEADS = {
    "grade": HeadSpec("ordinal", ("none", "mild", "severe"), cut=2),
    "score": HeadSpec("number", ("not below 85", "below 85"), centre=85.0, scale=15.0),
    "kind": HeadSpec("softmax", ("a", "b", "c"), positive=(0, 1)),
}
RECIPE = Recipe(epochs=15, batch=8, rate=1e-2, encoder_rate=1e-2, optimizer="adamw", weight_decay=0.0)


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(N, 3))
    edges = (latent @ rng.normal(size=(3, EDGES)) + 0.3 * rng.normal(size=(N, EDGES))).astype(np.float32)
    edges = np.concatenate([edges, np.full((1, EDGES), np.nan, np.float32)])
    made = Inputs({}, Augmentation(), 0, torch.device("cpu"), {"brain": edges})
    made.latent = latent
    return made


@pytest.fixture(scope="module")
def labels(inputs: Inputs) -> dict[str, torch.Tensor]:
    z = torch.from_numpy(inputs.latent).float()
    found = {
        "grade": (z[:, 0] > -0.4).float() + (z[:, 0] > 0.4),
        "score": 85 + 15 * z[:, 1],
        "kind": (z[:, 2] > -0.4).float() + (z[:, 2] > 0.4),
    }
    found["grade"][::5] = torch.nan
    return found


def _network(heads=HEADS, **options) -> Network:
    torch.manual_seed(0)
    return Network({"brain": encoders.build("connectome_dense", edges=EDGES, widths=[16, 8])}, heads, **options)


def _fit(network: Network, inputs: Inputs, labels, recipe: Recipe = RECIPE, targets=tuple(HEADS), **options):
    train, inner = (Part(inputs, rows, {k: v[rows] for k, v in labels.items()}) for rows in (TRAIN, INNER))
    return fit(network, targets=targets, train=train, inner=inner, recipe=recipe, seed=1, **options)


@pytest.mark.parametrize("weights", ["equal", "uncertainty"])
def test_levels_scores_and_groups_of_classes_are_learned_together(inputs: Inputs, labels, weights: str) -> None:
    network = _network(shared=8)
    recipe = replace(RECIPE, target_weights=weights, class_weights=True)
    result = _fit(network, inputs, labels, recipe)
    said = predict_scores(network, inputs, INNER, list(HEADS))
    for target in HEADS:
        truth = HEADS[target].truth(labels[target][INNER])
        known = ~truth.isnan()
        assert said[target].shape == (len(INNER), 2)
        yes = said[target][:, 1] > said[target][:, 0]
        assert (yes == truth.bool().numpy())[known].mean() >= 0.75, target
    score = HEADS["score"].number(said["score"])
    assert np.corrcoef(score, labels["score"][INNER])[0, 1] > 0.8
    assert abs(score.mean() - float(labels["score"][INNER].mean())) < 6
    best = result.history[result.best_epoch - 1]
    assert best["inner_auc"] > 0.85
    assert 0.75 < best["inner_accuracy"] <= 1
    assert ("weight score" in best) == (weights == "uncertainty")


def test_a_part_of_which_nothing_is_known_does_not_drag_its_weight_along(inputs: Inputs, labels) -> None:
    unknown = {**labels, "grade": torch.full((N,), torch.nan)}
    recipe = replace(RECIPE, epochs=2, target_weights="uncertainty")
    history = _fit(_network(), inputs, unknown, recipe).history
    assert [entry["weight grade"] for entry in history] == [1.0, 1.0]
    assert history[0]["weight kind"] != 1.0


def test_a_target_that_is_only_noise_comes_to_weigh_less(inputs: Inputs, labels) -> None:
    noisy = {**labels, "score": 85 + 45 * torch.randn(N, generator=torch.Generator().manual_seed(5))}
    other = HeadSpec("number", ("no", "yes"), centre=85.0, scale=15.0)
    network = _network({"score": HEADS["score"], "noise": other})
    both = {"score": labels["score"], "noise": noisy["score"]}
    recipe = replace(RECIPE, epochs=40, rate=0.02, target_weights="uncertainty")
    last = _fit(network, inputs, both, recipe, targets=("score", "noise")).history[-1]
    assert last["weight noise"] < 0.7 * last["weight score"]


@pytest.mark.parametrize("averaging", [0.0, 0.5])
def test_learned_weights_and_corruption_survive_a_kill_to_the_byte(
    inputs: Inputs, labels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, averaging: float
) -> None:
    monkeypatch.setattr(checkpoints, "_SECONDS_BETWEEN", 0.0)
    recipe = replace(RECIPE, epochs=5, target_weights="uncertainty", corrupt=0.2, averaging=averaging)
    whole, killed, resumed = _network(), _network(), _network()
    expected = _fit(whole, inputs, labels, recipe)

    class KilledError(Exception):
        pass

    def stop(epoch: int, *_: object) -> None:
        if epoch == 3:
            raise KilledError

    with pytest.raises(KilledError):
        _fit(killed, inputs, labels, recipe, checkpoint=tmp_path / "c.safetensors", progress=stop)
    done: list[int] = []
    result = _fit(
        resumed, inputs, labels, recipe, checkpoint=tmp_path / "c.safetensors", progress=lambda e, *_: done.append(e)
    )
    assert done == [3, 4, 5]
    assert result == expected
    assert list(whole.state_dict()) == list(_network().state_dict())
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_corruption_zeroes_a_share_in_training_alone_and_leaves_who_is_absent(inputs: Inputs, labels) -> None:
    seen: list[torch.Tensor] = []
    network = _network()
    network.encoders["brain"].register_forward_pre_hook(lambda m, a: seen.append((m.training, a[0])))
    recipe = replace(RECIPE, epochs=2, corrupt=0.3, batch=56)
    _fit(network, inputs, labels, recipe)
    zeros = {training: [(x == 0).float().mean() for t, x in seen if t == training] for training in (True, False)}
    assert all(0.25 < share < 0.35 for share in zeros[True])
    assert zeros[False] == [0.0, 0.0]
    first, second = (x == 0 for training, x in seen if training)
    assert not torch.equal(first, second)


def _stage(network: Network, **changes) -> Stage:
    recipe = replace(RECIPE, epochs=25, batch=8, corrupt=0.2, **changes)
    return Stage("again", ("itself",), {"itself": mirror(network.encoders["brain"])}, recipe)


def test_a_stage_without_labels_learns_to_say_the_input_again(inputs: Inputs, tmp_path: Path) -> None:
    network = _network()
    began = {name: tensor.clone() for name, tensor in network.encoders["brain"].state_dict().items()}
    material = _itself(inputs)
    (result,) = run_stages(network, [(_stage(network), material)], seed=1, cache=tmp_path, checkpoints=None)
    losses = [entry["inner_loss"] for entry in result.history]
    spread = float(inputs.tables["brain"][INNER].var())
    assert min(losses) < 0.5 * spread
    assert math.isnan(result.history[0]["inner_auc"])
    assert math.isnan(result.history[0]["inner_accuracy"])
    with torch.no_grad():
        said = network.eval()(inputs.batch(INNER))["itself"]
    assert float((said - material.inner_labels["itself"]).square().mean()) == pytest.approx(min(losses), rel=1e-5)
    assert all(not torch.equal(t, began[name]) for name, t in network.encoders["brain"].state_dict().items())


def _itself(inputs: Inputs) -> Material:
    """The input as its own label."""
    train, inner = ({"itself": torch.from_numpy(inputs.tables["brain"][rows])} for rows in (TRAIN, INNER))
    return Material(inputs, TRAIN, train, INNER, inner)


def test_a_masked_cell_of_the_input_is_not_learned(inputs: Inputs, tmp_path: Path) -> None:
    material = _itself(inputs)
    masked = material.train_labels["itself"].clone()
    masked[:, 7] = torch.nan
    network = _network()
    stage = _stage(network)
    network.replace_heads(stage.heads)
    before = network.heads["itself"][-1].weight[7].clone()
    fit(
        network,
        targets=("itself",),
        train=Part(inputs, TRAIN, {"itself": masked}),
        inner=Part(inputs, INNER, material.inner_labels),
        recipe=replace(stage.recipe, epochs=1),
        seed=1,
    )
    after = network.heads["itself"][-1].weight
    assert torch.equal(after[7], before)
    assert not torch.equal(after[8], before)


def test_who_has_no_connectome_has_a_row_of_nan(inputs: Inputs) -> None:
    assert inputs.cases == N + 1
    assert np.flatnonzero(~inputs.has("brain")).tolist() == [N]
    batch = inputs.batch(np.array([0, N]))["brain"]
    assert batch.shape == (2, EDGES)
    assert batch.isnan().all(1).tolist() == [False, True]


def test_no_cases_have_as_many_columns_as_some(inputs: Inputs) -> None:
    heads = {**HEADS, "open": HeadSpec("softmax", ("a", "b", "c"))}
    network = _network(heads)
    for rows in (np.arange(3), np.arange(0)):
        said = predict_scores(network, inputs, rows, list(heads))
        assert {k: v.shape[1] for k, v in said.items()} == {"grade": 2, "score": 2, "kind": 2, "open": 3}


@pytest.mark.parametrize(
    ("change", "says"),
    [({"corrupt": 1.0}, "corrupt = 1.0"), ({"target_weights": "uncertain"}, "did you mean 'uncertainty'")],
)
def test_an_impossible_recipe_is_refused(change: dict, says: str) -> None:
    with pytest.raises(TrainingError, match=says):
        replace(RECIPE, **change)


def test_a_shared_norm_can_be_batch_and_a_last_case_alone_is_no_crash(inputs: Inputs, labels) -> None:
    build: Callable[[], Network] = lambda: _network(shared=4, norm="batch", head_norm=True)  # noqa: E731
    result = _fit(build(), inputs, labels, replace(RECIPE, epochs=1, batch=1))
    assert math.isfinite(result.history[0]["train_loss"])
