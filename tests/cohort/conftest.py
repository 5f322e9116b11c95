"""Tiny cohorts of noise, drawn on the spot."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Write = Callable[..., Path]


def picture(path: Path, seed: int, *, side: int = 40, marker: bool = False) -> None:
    """A picture of blotches, unlike that of any other seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 160, (10, 10)).astype(np.uint8)
    pixels = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.NEAREST)).copy()
    if marker:
        pixels[1:6, -6:-1] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def draw() -> Callable[..., None]:
    return picture


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write rows as a cohort; the pictures they name under `film` are drawn unless they exist or lie outside."""

    def do(rows: Sequence[Mapping[str, Any]], *, draw_films: bool = True, name: str = "cohort.csv") -> Path:
        path = tmp_path / name
        columns = list(dict.fromkeys(key for row in rows for key in row))
        with path.open("w", newline="", encoding="utf-8") as handle:
            out = csv.DictWriter(handle, columns, restval="")
            out.writeheader()
            out.writerows(rows)
        for seed, row in enumerate(rows):
            film = str(row.get("film", ""))
            if draw_films and film and not film.startswith(("/", "..")) and not (tmp_path / film).exists():
                picture(tmp_path / film, seed)
        return path

    return do


@pytest.fixture
def rows() -> Callable[..., list[dict[str, Any]]]:
    """Rows of n patients, two examinations each, every other patient ill."""

    def do(patients: int = 24, *, films: int = 2, **more: Any) -> list[dict[str, Any]]:
        return [
            {
                "case": f"c{p:03d}-{k}",
                "patient": f"p{p:03d}",
                "film": f"films/{p:03d}_{k}.png",
                "outcome": "ill" if p % 2 else "well",
                **{name: value(p, k) for name, value in more.items()},
            }
            for p in range(patients)
            for k in range(films)
        ]

    return do
