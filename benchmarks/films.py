"""Films of realistic weight for the benchmarks: 8-bit grey JPEG of smooth shadows and grain. No patient is in them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

FULL = (970, 1320)
_GRAIN = 5.2


def make_films(
    folder: Path, n: int, size: tuple[int, int] = FULL, *, blob: float = 0.0, seed: int = 1, threads: int = 2
) -> tuple[list[Path], np.ndarray]:
    """Write n films and return their paths and classes; every other film is of class 1.

    Args:
        folder: Where they go.
        n: How many.
        size: Height and width; at the full size a film weighs about 300 kB, like those of children's hospitals.
        blob: Grey levels of a round shadow on the films of class 1; 0 is none.
        seed: The same seed gives the same films.
        threads: How many at a time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # one sheet of grain, shifted from film to film: 1.3 million normals for each would take longer than all else
    grain = np.random.default_rng(seed).normal(0, _GRAIN, size).astype(np.float32)
    labels = np.arange(n) % 2
    paths = [folder / f"{i:05d}.jpg" for i in range(n)]

    def draw(i: int) -> None:
        rng = np.random.default_rng((seed, i))
        coarse = rng.uniform(60, 190, (6, 8)).astype(np.float32)
        film = np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)).copy()
        film += np.roll(grain, tuple(rng.integers(0, size)), (0, 1))
        if blob and labels[i]:
            _add_blob(film, rng.uniform(0.25, 0.75, 2), blob)
        Image.fromarray(film.clip(0, 255).astype(np.uint8)).save(paths[i], quality=90)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(draw, range(n)))
    return paths, labels


def _add_blob(film: np.ndarray, centre: np.ndarray, grey: float) -> None:
    height, width = film.shape
    y, x = (np.arange(k, dtype=np.float32) - c * k for k, c in zip(film.shape, centre, strict=True))
    radius = 0.09 * min(height, width)
    film += grey * np.outer(np.exp(-((y / radius) ** 2) / 2), np.exp(-((x / radius) ** 2) / 2))
