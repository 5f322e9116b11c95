from __future__ import annotations

import numpy as np
import pytest
import torch

from tenfold.training.augment import Augmentation

NOTHING = Augmentation(rotation=0, scale=0, shift=0, exposure=0)


def test_no_change_is_no_change() -> None:
    x = torch.rand(4, 1, 20, 20)
    assert torch.allclose(NOTHING.apply(x, NOTHING.draws(0, 4), np.arange(4), 0), x, atol=1e-6)


def test_a_picture_changes_with_its_row_and_not_with_its_batch() -> None:
    change = Augmentation()
    x = torch.rand(6, 1, 20, 20)
    draws = change.draws(3, 6)
    whole = change.apply(x, draws, np.arange(6), 0)
    alone = change.apply(x[4:5], draws, np.array([4]), 0)
    assert torch.allclose(whole[4:5], alone, atol=1e-6)
    assert not torch.allclose(whole[:1], change.apply(x[:1], draws, np.array([1]), 0), atol=1e-3)


def test_the_left_stays_left_unless_a_flip_is_asked_for() -> None:
    x = torch.zeros(32, 1, 20, 20)
    x[..., :6] = 1.0
    rows = np.arange(32)
    kept = Augmentation().apply(x, Augmentation().draws(0, 32), rows, 0)
    assert bool((kept[..., :8].mean((1, 2, 3)) > kept[..., 12:].mean((1, 2, 3))).all())
    flipping = Augmentation(horizontal_flip=True)
    flipped = flipping.apply(x, flipping.draws(0, 32), rows, 0)
    to_the_right = (flipped[..., :8].mean((1, 2, 3)) < flipped[..., 12:].mean((1, 2, 3))).float().mean()
    assert 0.2 < float(to_the_right) < 0.8


def test_a_shift_moves_by_its_part_of_the_side() -> None:
    change = Augmentation(rotation=0, scale=0, shift=0.25, exposure=0)
    x = torch.zeros(1, 1, 40, 40)
    x[0, 0, 20, 20] = 1.0
    draws = np.zeros((1, 9))
    draws[0, 2] = 1.0
    moved = change.apply(x, draws, np.array([0]), 0)
    assert np.unravel_index(int(moved.argmax()), (40, 40)) == (20, 10)


def test_values_stay_in_range() -> None:
    change = Augmentation(exposure=0.9, noise=0.5)
    out = change.apply(torch.rand(8, 1, 16, 16), change.draws(1, 8), np.arange(8), 1)
    assert float(out.min()) >= 0.0
    assert float(out.max()) <= 1.0


def test_one_channel_changes_as_it_always_did() -> None:
    change = Augmentation(noise=0.02)
    x = torch.rand(5, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    out = change.apply(x, change.draws(7, 5), np.arange(5), 3)
    assert float(out.sum()) == pytest.approx(604.696, abs=0.01)
    assert float(out[2, 0, 5, 9]) == pytest.approx(0.3169, abs=1e-4)


def test_colour_keeps_hue_and_saturation() -> None:
    change = Augmentation(exposure=0.9, noise=0.3, rotation=15)
    colours = torch.tensor([[0.9, 0.2, 0.0], [0.1, 0.3, 0.8], [0.4, 0.4, 0.4]])
    x = colours[:, :, None, None].expand(3, 3, 24, 24).contiguous()
    out = change.apply(x, change.draws(0, 3), np.arange(3), 0)
    middle = out[:, :, 8:16, 8:16]
    assert torch.allclose(middle, x[:, :, 8:16, 8:16], atol=1e-5)
    assert not torch.allclose(out, x, atol=1e-2)


def test_nothing_is_turned_upside_down() -> None:
    change = Augmentation(horizontal_flip=True)
    for channels in (1, 3):
        x = torch.zeros(32, channels, 20, 20)
        x[..., :6, :] = 1.0
        out = change.apply(x, change.draws(0, 32), np.arange(32), 0)
        assert bool((out[..., :8, :].mean((1, 2, 3)) > out[..., 12:, :].mean((1, 2, 3))).all())
