from __future__ import annotations

import numpy as np
import pytest
import torch

from tenfold.encoders import build
from tenfold.explain import centre_prior, grad_cam, localisation, randomisation, ssim
from tenfold.network.network import HeadSpec, Network


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(5)
    encoder = build("image_residual_dilated", channels=1, width=8, depths=(1, 1, 1, 1))
    return Network({"film": encoder}, {"diagnosis": HeadSpec("softmax", ("healthy", "sick"))}).eval()


def films(n: int) -> torch.Tensor:
    """Noise with one bright spot each, in another place."""
    generator = np.random.default_rng(0)
    pictures = generator.random((n, 1, 64, 64)).astype(np.float32) * 0.3
    for picture in pictures:
        y, x = generator.integers(4, 44, 2)
        picture[0, y : y + 16, x : x + 16] += 0.6
    return torch.from_numpy(pictures)


def test_maps_change_when_the_weights_are_random(network: Network) -> None:
    inputs = {"film": films(6)}

    def explain(n: Network) -> np.ndarray:
        return grad_cam(n, inputs, view="film", target="diagnosis", index=1)

    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    rows = randomisation(network, explain, view="film", seed=1)
    names = network.encoders["film"].block_names
    assert [row.layer for row in rows][:2] == ["random pair", "head"]
    assert {row.layer for row in rows[2:]} <= set(names)
    assert rows[2].layer == names[-1]
    assert rows[-1].ssim.high < rows[0].ssim.low
    assert rows[-1].ssim.low <= rows[-1].ssim.value <= rows[-1].ssim.high
    assert rows[0].to_dict()["n"] == 6
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_the_blocks_of_a_transformer_over_several_pictures_are_made_random() -> None:
    torch.manual_seed(5)
    network = Network(
        {"film": build("image_timm", network="test_vit", size=64)},
        {"diagnosis": HeadSpec("softmax", ("healthy", "sick"))},
        pools={"film": "attention"},
    ).eval()
    bags = films(6).reshape(3, 2, 1, 64, 64)
    bags[1, 1] = torch.nan
    there = ~bags[:, :, 0, 0, 0].isnan().numpy()

    def explain(n: Network) -> np.ndarray:
        return grad_cam(n, {"film": bags}, view="film", target="diagnosis", index=1)[there]

    patients = [name for name, row in zip("abc", there, strict=True) for _ in range(row.sum())]
    rows = randomisation(network, explain, view="film", patients=patients)
    assert [row.layer for row in rows] == ["random pair", "head", *reversed(network.encoders["film"].block_names)]
    assert all(np.isfinite(row.ssim.value) for row in rows)
    assert rows[-1].ssim.value < 0.9


def test_maps_that_ignore_the_weights_are_exposed(network: Network) -> None:
    edges = films(5)[:, 0].numpy()
    rows = randomisation(network, lambda _: edges, view="film")
    assert rows[0].ssim.value < 0.8
    assert all(row.ssim.value == pytest.approx(1) and row.spearman.value == pytest.approx(1) for row in rows[1:])


def test_ssim_of_flat_pictures_is_that_of_the_formula() -> None:
    a, b = np.full((20, 20), 0.2, np.float32), np.full((20, 20), 0.6, np.float32)
    assert ssim(a, b) == pytest.approx((2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4), abs=1e-6)
    noise = np.random.default_rng(0).random((40, 40)).astype(np.float32)
    assert ssim(noise, noise) == pytest.approx(1)
    assert ssim(noise, 1 - noise) < 0


def marked(n: int, corner: bool) -> tuple[np.ndarray, np.ndarray]:
    """Maps with one spot in a corner, and masks on the spot or opposite to it."""
    maps, masks = np.zeros((n, 32, 32), np.float32), np.zeros((n, 32, 32), bool)
    maps[:, 2:8, 2:8] = np.linspace(0.5, 1, n)[:, None, None]
    masks[:, 1:9, 1:9] = corner
    masks[:, 22:30, 22:30] = not corner
    return maps, masks


def test_maps_on_the_lesion_beat_the_centre() -> None:
    maps, masks = marked(20, corner=True)
    found = localisation(maps, masks, random_maps=maps[:, ::-1])
    assert found is not None
    assert (found.pointing.value, found.centre_pointing.value) == (1, 0)
    assert found.pointing.low == pytest.approx(0.8389, abs=1e-4)  # Wilson, 20 of 20
    assert found.energy.value == pytest.approx(1)
    assert found.energy_gain.low > 0
    assert found.energy_over_random.value == pytest.approx(1)
    assert set(found.to_dict()) == {
        *("pointing", "centre_pointing", "energy", "centre_energy", "energy_gain", "energy_over_random"),
    }


def test_maps_beside_the_lesion_do_not() -> None:
    maps, masks = marked(20, corner=False)
    found = localisation(maps, masks, random_maps=maps)
    assert found is not None
    assert found.pointing.value == 0
    assert found.energy_gain.high < 0
    assert (found.energy_over_random.low, found.energy_over_random.high) == (0, 0)


def test_cases_without_a_mask_are_left_out_and_a_flat_map_is_a_miss() -> None:
    maps, masks = marked(4, corner=True)
    masks[0], maps[1] = False, 0
    found = localisation(maps, masks, random_maps=maps, patients=["a", "b", "c", "c"])
    assert found is not None
    assert (found.pointing.n, found.energy.n) == (3, 2)
    assert found.pointing.value == pytest.approx(2 / 3)
    assert localisation(maps, np.zeros_like(masks), random_maps=maps) is None


def test_the_interval_goes_by_patient() -> None:
    maps, masks = marked(12, corner=True)
    maps[::2] = 0
    single = localisation(maps, masks, random_maps=maps)
    grouped = localisation(maps, masks, random_maps=maps, patients=[str(i % 2) for i in range(12)])
    assert single is not None
    assert grouped is not None
    assert grouped.energy.high - grouped.energy.low > single.energy.high - single.energy.low


def test_the_centre_prior_is_highest_in_the_middle() -> None:
    prior = centre_prior(31, 21)
    assert np.unravel_index(prior.argmax(), prior.shape) == (15, 10)
    np.testing.assert_allclose(prior, prior[::-1, ::-1])
