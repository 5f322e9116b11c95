"""What is said of a picture from outside, and which are copies."""

from __future__ import annotations

import hashlib
import re
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from tenfold.modalities.image import read_image
from tenfold.modalities.image_facts import ImageFacts, image_facts, near_duplicates, perceptual_hash


def film(seed: int, side: int = 224) -> Image.Image:
    """A smooth common anatomy with structure of its own."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]  # type: ignore[misc]
    chest = 170 - 90 * np.exp(-((abs(x) - 0.45) ** 2 + y**2 / 2) / 0.08)
    own = sum(gaussian_filter(rng.normal(0, 1, (side, side)), s) * s * 12 for s in (4, 10))
    return Image.fromarray(np.clip(chest + own, 0, 255).astype(np.uint8))


def facts_of(path: Path, picture: Image.Image, **options: object) -> ImageFacts:
    picture.save(path, **options)  # type: ignore[arg-type]
    return image_facts(path, read_image(path))


def altered(picture: Image.Image) -> dict[str, tuple[Image.Image, dict[str, int]]]:
    side = picture.width
    return {
        "exact": (picture, {"quality": 90}),
        "quality": (picture, {"quality": 60}),
        "smaller": (picture.resize((round(side * 0.9),) * 2), {"quality": 90}),
        "brighter": (picture.point(lambda v: min(255, int(v * 1.1))), {"quality": 90}),
        "cropped": (picture.crop((1, 1, side, side)), {"quality": 90}),
    }


def test_facts(tmp_path: Path) -> None:
    pixels = np.full((100, 200), 50, np.uint8)
    pixels[:3] = pixels[-3:] = 200
    pixels[:, :6] = pixels[:, -6:] = 200
    path = tmp_path / "a.png"
    facts = facts_of(path, Image.fromarray(pixels))
    assert facts.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert facts.bytes == path.stat().st_size
    assert (facts.format, facts.width, facts.height) == ("PNG", 200, 100)
    assert facts.border == 200
    assert facts.mean == pytest.approx(pixels.mean())
    assert facts.contrast == pytest.approx(pixels.std())
    assert facts.thumbnail.shape == (32, 32)
    assert 0 <= facts.hash < 2**64


def test_hash_ignores_brightness_and_sees_shape() -> None:
    thumbnail = np.asarray(film(0).resize((32, 32)))
    darker, mirrored = thumbnail // 2, thumbnail[:, ::-1]
    assert (perceptual_hash(thumbnail) ^ perceptual_hash(darker)).bit_count() <= 4
    assert (perceptual_hash(thumbnail) ^ perceptual_hash(mirrored)).bit_count() > 12


def test_copies_are_found_and_strangers_are_not(tmp_path: Path) -> None:
    films = [film(seed) for seed in range(12)]
    facts = [facts_of(tmp_path / f"{i}.jpg", f, quality=90) for i, f in enumerate(films)]
    assert near_duplicates(facts) == []
    for name, (copy, options) in altered(films[5]).items():
        found = near_duplicates([*facts, facts_of(tmp_path / "copy.jpg", copy, **options)])
        assert [pair[:2] for pair in found] == [(5, 12)], name
        assert 0.95 <= found[0][2] <= 1.0001


def test_featureless_pictures_are_copies_only_where_the_files_are_the_same(tmp_path: Path) -> None:
    flat = [facts_of(tmp_path / f"{v}.png", Image.new("L", (50, 50), v)) for v in (0, 90, 90)]
    assert near_duplicates(flat) == [(1, 2, 1.0)]
    assert near_duplicates([]) == []
    assert near_duplicates(flat[:1]) == []


@pytest.mark.shared
def test_different_children_are_never_confused(shared_data: Path, tmp_path: Path) -> None:
    files = sorted((shared_data / "kermany").glob("*/*.jpeg"))[::9]
    facts = [image_facts(f, read_image(f)) for f in files]
    patients = [re.findall(r"(?:person|IM-)(\d+)", f.name)[-1] for f in files]
    start = time.perf_counter()
    found = near_duplicates(facts)
    assert time.perf_counter() - start < 3
    assert all(patients[i] == patients[j] for i, j, _ in found)
    for i in range(0, len(files), 100):
        for name, (copy, options) in altered(Image.open(files[i]).convert("L")).items():
            pair = near_duplicates([facts[i], facts_of(tmp_path / "copy.jpg", copy, **options)])
            assert pair, (files[i].name, name)
