from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tenfold import encoders
from tenfold.modalities.image import ImagePreparation, read_image
from tenfold.network.heads import HeadSpec
from tenfold.network.network import Network
from tenfold.training.augment import Augmentation
from tenfold.training.sources import Inputs
from tenfold.training.store import PixelStore

N, SIDE = 48, 32


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], np.ndarray]:
    """Squares on noise: bright ones are of class 1."""
    folder = tmp_path_factory.mktemp("films")
    rng = np.random.default_rng(0)
    labels = np.arange(N) % 2
    paths = []
    for i, label in enumerate(labels):
        pixels = rng.normal(90, 12, (SIDE, SIDE))
        pixels[10:22, 10:22] += 60 * label
        path = folder / f"{i:03d}.png"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
        paths.append(path)
    return paths, labels


@pytest.fixture
def pictures(tmp_path: Path, films: tuple[list[Path], np.ndarray]) -> Inputs:
    store = PixelStore(tmp_path / "store", ImagePreparation(size=SIDE), read_image)
    rows = store.rows(films[0], [p.name for p in films[0]])
    return Inputs({"film": (store, rows)}, Augmentation(), 7, torch.device("cpu"))


@pytest.fixture
def make() -> Callable[[], Network]:
    def build() -> Network:
        torch.manual_seed(0)
        encoder = encoders.build("image_residual_dilated", width=4, depths=(1, 1, 1, 1), dropout=0.2)
        network = Network({"film": encoder}, {"y": HeadSpec("softmax", ("no", "yes"))})
        return network.to(memory_format=torch.channels_last)

    return build


LACKING_FILMS, LACKING_LABS = (3, 17, 40), (5, 18, 33)


@pytest.fixture
def both(pictures: Inputs, films: tuple[list[Path], np.ndarray]) -> Inputs:
    """Films and three values a case, of which the first tells the class; some cases lack the one or the other."""
    store, places = pictures.stores["film"]
    places = places.copy()
    places[list(LACKING_FILMS)] = -1
    values = np.random.default_rng(1).normal(0, 1, (N, 3)).astype(np.float32)
    values[:, 0] += 3 * films[1]
    table = np.stack([values, np.ones_like(values)], axis=1)
    table[list(LACKING_LABS)] = np.nan
    return Inputs({"film": (store, places)}, Augmentation(), 7, torch.device("cpu"), {"labs": table})


@pytest.fixture
def make_both() -> Callable[[], Network]:
    def build() -> Network:
        torch.manual_seed(0)
        built = {
            "film": encoders.build("image_residual_dilated", width=4, depths=(1, 1, 1, 1), dropout=0.2),
            "labs": encoders.build("table_mlp", features=3, dim=8, hidden=8),
        }
        network = Network(built, {"y": HeadSpec("softmax", ("no", "yes"))}, modality_dropout=0.2)
        return network.to(memory_format=torch.channels_last)

    return build
