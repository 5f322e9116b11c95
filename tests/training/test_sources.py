from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tenfold.network.heads import HeadSpec
from tenfold.training.folds import FoldResult, run_fold
from tenfold.training.loop import Recipe, predict_scores
from tenfold.training.sources import Altered, FrozenOutputs, Inputs
from tenfold.training.stages import Material, Stage

from .conftest import LACKING_FILMS, LACKING_LABS

ROWS = np.array([2, 3, 5, 40])
TRAIN, INNER, TEST = np.arange(24), np.arange(24, 36), np.arange(36, 48)


def test_who_has_what(both: Inputs) -> None:
    assert both.names == ("film", "labs")
    assert tuple(np.flatnonzero(~both.has("film"))) == LACKING_FILMS
    assert tuple(np.flatnonzero(~both.has("labs"))) == LACKING_LABS
    assert both.has_any(["film", "labs"]).all()
    assert tuple(np.flatnonzero(~both.has_any(["film"]))) == LACKING_FILMS


@pytest.mark.parametrize("epoch", [None, 2])
def test_who_lacks_an_input_has_a_row_of_nan_and_the_others_are_as_they_were(
    both: Inputs, pictures: Inputs, epoch: int | None
) -> None:
    found = both.batch(ROWS, epoch=epoch, view_index=0 if epoch else 2)
    film = found["film"]
    assert torch.isnan(film[[1, 3]]).all()
    assert film.is_contiguous(memory_format=torch.channels_last)
    assert torch.isnan(found["labs"]).flatten(1).all(1).tolist() == [False, False, True, False]
    assert found["labs"].shape == (4, 2, 3)
    alone = pictures.batch(ROWS[[0, 2]], epoch=epoch, view_index=0 if epoch else 2)["film"]
    assert torch.equal(film[[0, 2]], alone)


def test_a_batch_in_which_nobody_has_a_film(both: Inputs) -> None:
    film = both.batch(np.array(LACKING_FILMS))["film"]
    assert film.shape == (3, 1, 32, 32)
    assert torch.isnan(film).all()


def test_other_tables_beside_the_same_pictures(both: Inputs) -> None:
    other = both.with_tables({"labs": np.zeros((both.cases, 2, 5), np.float32)})
    assert other.batch(ROWS)["labs"].shape == (4, 2, 5)
    assert torch.equal(other.batch(ROWS)["film"].isnan(), both.batch(ROWS)["film"].isnan())
    assert other.has("labs").all()


@pytest.mark.parametrize("epoch", [None, 0, 1])
def test_kept_outputs_of_who_lacks_a_film_are_nan_and_of_the_others_right(
    make_both, both: Inputs, tmp_path: Path, epoch: int | None
) -> None:
    network = make_both().eval()
    network.thaw(1)
    source = FrozenOutputs(network, both, tmp_path, variants=3, autocast=torch.float32)
    assert source.start["film"] > 0
    assert source.start["labs"] == 0
    found = source.batch(ROWS, epoch=epoch)
    assert torch.isnan(found["film"]).flatten(1).all(1).tolist() == [False, True, False, True]
    assert torch.equal(found["labs"].isnan(), both.batch(ROWS)["labs"].isnan())
    if epoch is None:
        with torch.inference_mode():
            kept, direct = network(found, source.start)["y"], network(both.batch(ROWS))["y"]
        assert torch.allclose(kept, direct, atol=0.02)
        assert torch.isfinite(kept).all()


def test_a_chunk_of_kept_outputs_in_which_nobody_has_a_film(make_both, both: Inputs, tmp_path: Path) -> None:
    store, places = both.stores["film"]
    doubled = np.concatenate([np.full(64, -1), places])
    table = np.concatenate([np.zeros((64, 2, 3), np.float32), both.tables["labs"]])
    inputs = Inputs({"film": (store, doubled)}, both.augmentation, 7, both.device, {"labs": table})
    network = make_both().eval()
    network.thaw("head")
    source = FrozenOutputs(network, inputs, tmp_path, variants=1, autocast=torch.float32)
    assert torch.isnan(source.batch(np.arange(5))["film"]).all()
    assert torch.isfinite(source.batch(np.array([64]))["film"]).all()


def test_an_input_taken_away_or_given_to_the_wrong_cases(both: Inputs) -> None:
    assert set(Altered(both, "film", None).batch(ROWS)) == {"labs"}
    swapped = np.arange(both.cases)
    swapped[[2, 5]] = [5, 2]
    found, plain = Altered(both, "film", swapped).batch(ROWS), both.batch(ROWS)
    assert torch.equal(found["film"][0], plain["film"][2])
    assert torch.equal(found["labs"][0], plain["labs"][0])
    assert torch.isnan(found["film"][1]).all()


def _fold(folder: Path, make_both, both: Inputs, films, *, epochs: int = 3, **changes) -> FoldResult:
    labels = torch.tensor(films[1], dtype=torch.float32)
    material = Material(both, TRAIN, {"y": labels[TRAIN]}, INNER, {"y": labels[INNER]})
    stage = Stage(
        "own", ("y",), {"y": HeadSpec("softmax", ("no", "yes"))}, Recipe(epochs=epochs, batch=8, rate=1e-2, thaw=1), 2
    )
    arguments = {"test": TEST, "inputs": both, "views": 2, "seed": 3, "cache": folder / "cache"}
    arguments |= {"alter": ("film", "labs"), **changes}
    return run_fold(folder / "fold", make_both, [(stage, material)], **arguments)


def test_a_fold_of_cases_that_lack_this_or_that(make_both, both: Inputs, films, tmp_path: Path) -> None:
    result = _fold(tmp_path, make_both, both, films)
    assert np.isfinite(result.test_scores["y"]).all()
    assert list(result.altered) == sorted(result.altered)
    sizes = {name: len(scores["y"]) for name, scores in result.altered.items()}
    # case 40 of the test part has no film, all have values
    assert sizes == {"film permuted": 11, "labs permuted": 12, "without film": 12, "without labs": 11}
    places = np.flatnonzero(TEST == 40)
    assert result.altered["without film"]["y"][places] == pytest.approx(result.test_scores["y"][places], abs=1e-6)
    again = _fold(tmp_path, lambda: pytest.fail("it was there already"), both, films)
    for name, scores in result.altered.items():
        assert np.array_equal(again.altered[name]["y"], scores["y"])
    network = make_both()
    network.load_state_dict(result.state_dict())
    direct = predict_scores(network, both, TEST, ["y"], views=2)["y"]
    assert np.abs(direct - result.test_scores["y"]).max() < 0.05
    without = predict_scores(network, Altered(both, "labs", None), TEST[both.has("film")[TEST]], ["y"], views=2)["y"]
    assert np.abs(without - result.altered["without labs"]["y"]).max() < 0.05


def test_a_test_part_without_films_is_no_crash(make_both, both: Inputs, films, tmp_path: Path) -> None:
    result = _fold(tmp_path, make_both, both, films, test=np.array(LACKING_FILMS))
    assert result.test_scores["y"].shape == (3, 2)
    assert result.altered["without labs"]["y"].shape == result.altered["film permuted"]["y"].shape == (0, 2)


def test_what_tells_the_class_is_found_though_some_lack_it(make_both, both: Inputs, films, tmp_path: Path) -> None:
    result = _fold(tmp_path, make_both, both, films, alter=(), epochs=20)
    said = (result.test_scores["y"][:, 1] > result.test_scores["y"][:, 0]).astype(int)
    assert (said == films[1][TEST]).mean() > 0.8
    assert result.altered == {}
