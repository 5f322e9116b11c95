"""Several pictures a case on their way to the network: which slots are empty, how each is changed, what is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tenfold import encoders
from tenfold.network.heads import HeadSpec
from tenfold.network.network import Network
from tenfold.network.views import view
from tenfold.training.augment import Augmentation
from tenfold.training.folds import run_fold
from tenfold.training.loop import Recipe, predict_scores
from tenfold.training.sources import Altered, FrozenOutputs, Inputs
from tenfold.training.stages import Material, Stage

from .conftest import SIDE, N

CASES = 20
PLACES = np.full((CASES, 3), -1, np.int64)
PLACES[:, 0] = np.arange(CASES)
PLACES[::2, 1] = np.arange(CASES, CASES + 10)
PLACES[::4, 2] = np.arange(CASES + 10, CASES + 15)
LACKING = (7, 12)
PLACES[list(LACKING)] = -1
ROWS = np.array([8, 7, 3, 2])
"""Three pictures, none, one, two."""


@pytest.fixture
def bags(pictures: Inputs) -> Inputs:
    """Twenty cases with up to three of the films each."""
    return Inputs({"film": (pictures.stores["film"][0], PLACES)}, Augmentation(), 7, torch.device("cpu"))


def network(pool: str = "attention", *, plain: bool = False) -> Network:
    torch.manual_seed(0)
    encoder = encoders.build("image_residual_dilated", width=4, depths=(1, 1, 1, 1), dropout=0.2)
    pools = {} if plain else {"film": pool}
    found = Network({"film": encoder}, {"y": HeadSpec("softmax", ("no", "yes"))}, pools=pools)
    return found.to(memory_format=torch.channels_last)


# --- slots -----------------------------------------------------------------------------------------------------------


def test_who_has_a_picture(bags: Inputs) -> None:
    assert bags.cases == CASES
    assert tuple(np.flatnonzero(~bags.has("film"))) == LACKING
    assert tuple(np.flatnonzero(~bags.has_any(["film"]))) == LACKING


@pytest.mark.parametrize("view_index", [0, 3])
def test_pictures_come_first_and_empty_slots_are_nan(bags: Inputs, pictures: Inputs, view_index: int) -> None:
    film = bags.batch(ROWS, view_index=view_index)["film"]
    assert film.shape == (4, 3, 1, SIDE, SIDE)
    assert film.dtype == torch.float32
    there = ~film.flatten(2).isnan().any(2)
    assert there.tolist() == [[True] * 3, [False] * 3, [True, False, False], [True, True, False]]
    assert torch.equal(film.flatten(2).isnan().all(2), ~there)
    for i, row in enumerate(ROWS.tolist()):
        own = PLACES[row][PLACES[row] >= 0]
        if len(own):
            alone = pictures.batch(own, view_index=view_index)["film"]
            assert torch.equal(film[i, : len(own)], alone)
    assert torch.equal(view(bags.batch(ROWS)["film"], view_index).nan_to_num(), film.nan_to_num())


def test_a_batch_in_which_nobody_has_a_picture(bags: Inputs) -> None:
    film = bags.batch(np.array(LACKING))["film"]
    assert film.shape == (2, 3, 1, SIDE, SIDE)
    assert film.isnan().all()


def test_nobody_asked_for(bags: Inputs) -> None:
    assert bags.batch(np.array([], np.int64))["film"].shape == (0, 3, 1, SIDE, SIDE)


# --- augmentation ----------------------------------------------------------------------------------------------------


def test_every_picture_of_a_case_is_changed_in_its_own_way(pictures: Inputs) -> None:
    store = pictures.stores["film"][0]
    # the same film three times: only the drawn changes can tell the slots apart
    inputs = Inputs({"film": (store, np.repeat(np.arange(4), 3).reshape(4, 3))}, Augmentation(), 7, torch.device("cpu"))
    film = inputs.batch(np.arange(4), epoch=1)["film"]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (film[:, a] - film[:, b]).abs().flatten(1).max(1).values.min() > 0.02
    assert torch.equal(inputs.batch(np.arange(4), epoch=1)["film"], film)
    assert not torch.equal(inputs.batch(np.arange(4), epoch=2)["film"], film)
    plain = inputs.batch(np.arange(4))["film"]
    assert torch.equal(plain[:, 0], plain[:, 2])


def test_how_a_picture_is_changed_does_not_depend_on_who_else_is_in_the_batch(bags: Inputs) -> None:
    together = bags.batch(ROWS, epoch=4)["film"]
    for i, row in enumerate(ROWS.tolist()):
        alone = bags.batch(np.array([row]), epoch=4)["film"][0]
        assert torch.equal(alone.isnan(), together[i].isnan())
        assert torch.allclose(alone.nan_to_num(), together[i].nan_to_num(), atol=1e-6)


def test_one_slot_gives_what_single_pictures_gave(pictures: Inputs) -> None:
    store, places = pictures.stores["film"]
    rows = np.array([5, 40, 2])
    places = places.copy()
    places[40] = -1
    one = Inputs({"film": (store, places)}, Augmentation(), 7, torch.device("cpu"))
    bag = Inputs({"film": (store, places[:, None])}, Augmentation(), 7, torch.device("cpu"))
    for named in ({"view_index": 2}, {"epoch": 3}):
        single, several = one.batch(rows, **named)["film"], bag.batch(rows, **named)["film"]
        assert several.shape == (3, 1, 1, SIDE, SIDE)
        assert torch.equal(single.nan_to_num(-1), several[:, 0].nan_to_num(-1))
    # and it is each film changed by the draws of its own row, as long as there are single pictures
    draws = one.augmentation.draws(_seed(7, 3), N)
    raw = torch.from_numpy(store.take(places[[5, 2]])).float().div_(255)
    expected = one.augmentation.apply(raw, draws, np.array([5, 2]), 0)
    assert torch.allclose(one.batch(rows, epoch=3)["film"][[0, 2]], expected, atol=1e-6)


def _seed(*parts: int) -> int:
    from tenfold.training.device import seed_for

    return seed_for(*parts)


def test_views_with_different_numbers_of_pictures_are_changed_apart(pictures: Inputs) -> None:
    store = pictures.stores["film"][0]
    rows = np.arange(CASES)
    three, one = PLACES.copy(), rows.copy()
    both = Inputs({"a": (store, three), "b": (store, one)}, Augmentation(), 7, torch.device("cpu"))
    swapped = Inputs({"b": (store, one), "a": (store, three)}, Augmentation(), 7, torch.device("cpu"))
    found, other = both.batch(rows, epoch=1), swapped.batch(rows, epoch=1)
    for name in ("a", "b"):
        assert torch.equal(found[name].nan_to_num(-1), other[name].nan_to_num(-1))
    alone = Inputs({"b": (store, one)}, Augmentation(), 7, torch.device("cpu"))
    assert torch.equal(alone.batch(rows, epoch=1)["b"], found["b"])


# --- what is kept of frozen steps ------------------------------------------------------------------------------------


@pytest.mark.parametrize("thaw", ["head", 1])
@pytest.mark.parametrize("view_index", [0, 1])
def test_kept_outputs_give_what_running_through_gives(
    bags: Inputs, tmp_path: Path, thaw: str | int, view_index: int
) -> None:
    net = network().eval()
    net.thaw(thaw)
    source = FrozenOutputs(net, bags, tmp_path, variants=3, autocast=torch.float32)
    assert source.start["film"] == (net.encoders["film"].depth if thaw == "head" else net.frozen("film"))
    rows = ROWS[ROWS != 7]
    kept = source.batch(rows, view_index=view_index)
    assert kept["film"].shape[:2] == (3, 3)
    there = ~kept["film"].flatten(2).isnan().any(2)
    assert there.sum(1).tolist() == [3, 1, 2]
    with torch.inference_mode():
        through = net(bags.batch(rows, view_index=view_index))["y"]
        assert torch.allclose(net(kept, source.start)["y"], through, atol=5e-3)
    # what is kept is a number a picture, whoever else is in the bag
    again = FrozenOutputs(net, bags, tmp_path, variants=3, autocast=torch.float32).batch(
        rows[:1], view_index=view_index
    )
    assert torch.equal(again["film"], kept["film"][:1])


def test_kept_outputs_of_changed_pictures_are_those_of_their_variant(bags: Inputs, tmp_path: Path) -> None:
    net = network().eval()
    net.thaw(1)
    source = FrozenOutputs(net, bags, tmp_path, variants=2, autocast=torch.float32)
    rows, epoch = np.array([2, 3, 8]), 1
    # rows 2 and 8 see variant 1, row 3 the picture itself
    kept = source.batch(rows, epoch=epoch)
    changed, plain = bags.batch(rows, epoch=1), bags.batch(rows)
    with torch.inference_mode():
        said = net(kept, source.start)["y"]
        assert torch.allclose(said[[0, 2]], net(changed)["y"][[0, 2]], atol=5e-3)
        assert torch.allclose(said[1], net(plain)["y"][1], atol=5e-3)
        assert (net(changed)["y"][[0, 2]] - net(plain)["y"][[0, 2]]).abs().max() > 5e-3


def test_who_lacks_all_pictures_has_kept_outputs_of_nan(bags: Inputs, tmp_path: Path) -> None:
    store, places = bags.stores["film"]
    inputs = Inputs(
        {"film": (store, np.concatenate([np.full((64, 3), -1), places]))}, bags.augmentation, 7, bags.device
    )
    net = network().eval()
    net.thaw("head")
    source = FrozenOutputs(net, inputs, tmp_path, variants=1, autocast=torch.float32)
    assert source.batch(np.arange(5))["film"].isnan().all()
    assert source.batch(np.array([64 + 7]))["film"].isnan().all()
    assert torch.isfinite(source.batch(np.array([64 + 8]))["film"]).all()


def test_an_input_of_bags_taken_away_or_swapped(bags: Inputs) -> None:
    swapped = np.arange(CASES)
    swapped[[2, 7]] = [7, 2]
    found, plain = Altered(bags, "film", swapped).batch(ROWS), bags.batch(ROWS)
    assert torch.equal(found["film"][1].nan_to_num(-1), plain["film"][3].nan_to_num(-1))
    assert found["film"][3].isnan().all()


# --- a fold ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["mean", "attention"])
def test_a_fold_of_bags_learns_what_the_pictures_show(
    pictures: Inputs, films: tuple[list[Path], np.ndarray], tmp_path: Path, pool: str
) -> None:
    store = pictures.stores["film"][0]
    by_class = [np.flatnonzero(films[1] == k) for k in (0, 1)]
    # 24 cases of one or two films of their class
    places = np.full((24, 2), -1, np.int64)
    for i in range(24):
        own = by_class[i % 2][(i // 2) * 2 : (i // 2) * 2 + 1 + i // 12]
        places[i, : len(own)] = own
    inputs = Inputs({"film": (store, places)}, Augmentation(), 7, torch.device("cpu"))
    labels = torch.arange(24) % 2
    train, inner, test = np.arange(14), np.arange(14, 18), np.arange(18, 24)
    material = Material(inputs, train, {"y": labels[train].float()}, inner, {"y": labels[inner].float()})
    recipe = Recipe(epochs=20, batch=5, rate=1e-2, thaw=1)
    stage = Stage("s", ("y",), {"y": HeadSpec("softmax", ("no", "yes"))}, recipe, 2)
    result = run_fold(
        tmp_path / "fold",
        lambda: network(pool),
        [(stage, material)],
        test=test,
        inputs=inputs,
        views=1,
        seed=3,
        cache=tmp_path / "cache",
    )
    said = result.test_scores["y"]
    assert ((said[:, 1] > said[:, 0]) == labels[test].numpy().astype(bool)).mean() > 0.8
    learned = network(pool)
    learned.load_state_dict(result.state_dict())
    assert np.abs(predict_scores(learned.eval(), inputs, test, ["y"])["y"] - said).max() < 0.05
