from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tenfold import encoders
from tenfold.errors import TrainingError
from tenfold.network.heads import HeadSpec
from tenfold.network.network import Network
from tenfold.training import checkpoint as checkpoints
from tenfold.training.loop import Recipe, batches, best_epoch, fit, predict_scores, rate_factor
from tenfold.training.sources import FrozenOutputs, Part

TRAIN, INNER = np.arange(32), np.arange(32, 48)
RECIPE = Recipe(epochs=4, batch=8, rate=5e-3, encoder_rate=5e-3)


def _part(source, films, rows) -> Part:
    return Part(source, rows, {"y": torch.tensor(films[1][rows], dtype=torch.float32)})


def _fit(network, pictures, films, recipe=RECIPE, **options):
    network.thaw(recipe.thaw)
    return fit(
        network,
        targets=["y"],
        train=_part(pictures, films, TRAIN),
        inner=_part(pictures, films, INNER),
        recipe=recipe,
        seed=1,
        **options,
    )


def test_it_learns_what_can_be_seen(make, pictures, films) -> None:
    network = make()
    result = _fit(network, pictures, films, replace(RECIPE, epochs=8))
    assert result.history[result.best_epoch - 1]["inner_auc"] > 0.95
    scores = predict_scores(network, pictures, INNER, ["y"])["y"]
    judged = torch.nn.functional.cross_entropy(torch.from_numpy(scores), torch.from_numpy(films[1][INNER]))
    assert float(judged) == pytest.approx(result.history[result.best_epoch - 1]["inner_loss"], rel=1e-5)


def test_the_same_seed_gives_the_same_weights(make, pictures, films) -> None:
    first, second = make(), make()
    _fit(first, pictures, films)
    _fit(second, pictures, films)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


@pytest.mark.parametrize("averaging", [0.0, 0.5])
def test_a_fit_that_was_killed_goes_on_to_the_same_bytes(
    make, pictures, films, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, averaging: float
) -> None:
    monkeypatch.setattr(checkpoints, "_SECONDS_BETWEEN", 0.0)
    recipe = replace(RECIPE, averaging=averaging, schedule="plateau", plateau_patience=1)
    whole, killed, resumed = make(), make(), make()
    expected = _fit(whole, pictures, films, recipe)

    class KilledError(Exception):
        pass

    def stop(epoch: int, *_: object) -> None:
        if epoch == 3:
            raise KilledError

    with pytest.raises(KilledError):
        _fit(killed, pictures, films, recipe, checkpoint=tmp_path / "c.safetensors", progress=stop)
    done = []
    result = _fit(
        resumed, pictures, films, recipe, checkpoint=tmp_path / "c.safetensors", progress=lambda e, *_: done.append(e)
    )
    assert done == [3, 4]
    assert result == expected
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_frozen_blocks_do_not_move_and_the_kept_outputs_give_the_same_fit(make, pictures, films, tmp_path) -> None:
    recipe = replace(RECIPE, thaw=1)
    network = make()
    network.thaw(1)
    before = {n: t.clone() for n, t in network.state_dict().items()}
    source = FrozenOutputs(network, pictures, tmp_path, variants=3, autocast=torch.float32)
    assert source.start["film"] > 0
    parts = {"train": _part(source, films, TRAIN), "inner": _part(source, films, INNER)}
    fit(network, targets=["y"], **parts, recipe=recipe, seed=1)
    moved = {n for n, t in network.state_dict().items() if not torch.equal(t, before[n])}
    last = f"encoder_list.0.blocks.{len(network.encoders['film'].blocks) - 1}."
    assert moved
    assert all(name.startswith((last, "head_list", "encoder_list.0.pool")) for name in moved), moved
    direct = predict_scores(network, pictures, INNER, ["y"])["y"]
    assert np.abs(direct - predict_scores(network, source, INNER, ["y"])["y"]).max() < 0.02


def test_kept_outputs_do_not_depend_on_who_asked_first(make, pictures, films, tmp_path) -> None:
    network = make()
    network.thaw("head")
    one = FrozenOutputs(network, pictures, tmp_path / "a", variants=3, autocast=torch.float32)
    other = FrozenOutputs(network, pictures, tmp_path / "b", variants=3, autocast=torch.float32)
    one.batch(np.array([40]), epoch=1)
    rows = np.array([3, 40, 7])
    assert torch.equal(one.batch(rows, epoch=1)["film"], other.batch(rows, epoch=1)["film"])
    assert torch.equal(one.batch(rows[[1]], epoch=1)["film"], other.batch(rows, epoch=1)["film"][1:2])
    assert not torch.equal(one.batch(rows, epoch=1)["film"], one.batch(rows, epoch=2)["film"])
    assert torch.equal(one.batch(rows)["film"], one.batch(rows)["film"])


def test_networks_that_differ_in_dilation_alone_share_no_outputs(pictures, tmp_path) -> None:
    folders = []
    for dilated in (True, False):
        torch.manual_seed(0)
        encoder = encoders.build("image_residual_dilated", width=4, depths=(1, 1, 1, 1), dilated=dilated)
        network = Network({"film": encoder}, {"y": HeadSpec("softmax", ("no", "yes"))})
        network.thaw("head")
        source = FrozenOutputs(network, pictures, tmp_path / "kept", variants=1, autocast=torch.float32)
        source.batch(np.array([0]))
        folders.append({p.name for p in (tmp_path / "kept").iterdir()})
    assert len(folders[1]) == 2


def test_a_loss_that_is_no_number_is_a_refusal(make, pictures, films) -> None:
    with pytest.raises(TrainingError, match="lower rate"):
        _fit(make(), pictures, films, replace(RECIPE, optimizer="sgd", rate=1e30, encoder_rate=1e30))


def test_batches_differ_by_one_at_most() -> None:
    sizes = [len(b) for b in batches(33, 16, 0)]
    assert sizes == [11, 11, 11]
    assert sorted(np.concatenate(batches(33, 16, 0)).tolist()) == list(range(33))


def test_a_plateau_multiplies_the_rate_down() -> None:
    recipe = Recipe(schedule="plateau", plateau_patience=2, plateau_factor=0.1)
    history = [{"inner_loss": v, "inner_auc": 0.5} for v in (1.0, 0.9, 0.95, 0.95, 0.95, 0.95)]
    factors = [rate_factor(recipe, k, history[:k]) for k in range(7)]
    assert factors == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01])


def test_cosine_falls_from_one_towards_zero() -> None:
    factors = [rate_factor(Recipe(epochs=4), e, []) for e in range(4)]
    assert factors[0] == 1.0
    assert factors == sorted(factors, reverse=True)
    assert factors[2] == pytest.approx(0.5)


def test_the_best_epoch_is_the_first_best() -> None:
    history = [{"inner_loss": 1.0, "inner_auc": 0.9}, {"inner_loss": 0.5, "inner_auc": 0.9}]
    assert best_epoch(history, "loss") == 2
    assert best_epoch(history, "auc") == 1
    nothing = [{"inner_loss": 1.0, "inner_auc": float("nan")}] * 3
    assert best_epoch(nothing, "auc") == 3


def test_several_targets_are_fitted_at_once_and_an_unknown_label_is_masked(make, pictures, films) -> None:
    network = make()
    network.replace_heads({name: HeadSpec("softmax", ("no", "yes")) for name in ("y", "z")})
    truth = films[1].astype(np.float32)
    z = 1 - truth
    z[::3] = np.nan  # of both classes

    def part(rows) -> Part:
        return Part(pictures, rows, {"y": torch.tensor(truth[rows]), "z": torch.tensor(z[rows])})

    recipe = replace(RECIPE, epochs=8)
    fit(network, targets=["y", "z"], train=part(TRAIN), inner=part(INNER), recipe=recipe, seed=1)
    said = predict_scores(network, pictures, INNER, ["y", "z"])
    for name, expected in (("y", truth[INNER]), ("z", 1 - truth[INNER])):
        assert ((said[name][:, 1] > said[name][:, 0]) == expected).mean() > 0.9
