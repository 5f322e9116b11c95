from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tenfold.errors import OutputError
from tenfold.modalities.image import ImagePreparation, read_image
from tenfold.training.store import PixelStore


def test_a_film_is_decoded_once_and_comes_back_as_prepared(tmp_path: Path, films) -> None:
    paths, _ = films
    hashes = [p.name for p in paths]
    store = PixelStore(tmp_path, ImagePreparation(size=24), read_image)
    rows = store.rows(paths, hashes)
    assert store.decoded == len(paths)
    again = PixelStore(tmp_path, ImagePreparation(size=24), read_image)
    assert np.array_equal(again.rows(paths[::-1], hashes[::-1]), rows[::-1])
    assert again.decoded == 0
    picked = again.take(rows[[5, 2, 5]])
    assert picked.dtype == np.uint8
    assert np.array_equal(picked[1], ImagePreparation(size=24).apply(read_image(paths[2])))
    assert np.array_equal(picked[0], picked[2])


def test_another_preparation_is_another_store(tmp_path: Path, films) -> None:
    paths, _ = films
    for size in (16, 24):
        store = PixelStore(tmp_path, ImagePreparation(size=size), read_image)
        assert store.take(store.rows(paths[:3], ["a", "b", "c"])).shape == (3, 1, size, size)
        assert store.decoded == 3


def test_rows_left_behind_by_a_killed_run_are_overwritten(tmp_path: Path, films) -> None:
    paths, _ = films
    store = PixelStore(tmp_path, ImagePreparation(size=16), read_image)
    store.rows(paths[:2], ["a", "b"])
    with (store.folder / "pixels.u8").open("ab") as handle:
        handle.write(b"\x07" * 100)
    rows = PixelStore(tmp_path, ImagePreparation(size=16), read_image)
    (row,) = rows.rows(paths[2:3], ["c"])
    assert np.array_equal(rows.take(np.array([row]))[0], ImagePreparation(size=16).apply(read_image(paths[2])))


def test_a_full_disk_is_a_refusal(tmp_path: Path, films, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, _ = films
    store = PixelStore(tmp_path, ImagePreparation(size=16), read_image)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "touch", full)
    with pytest.raises(OutputError, match="No space left"):
        store.rows(paths[:2], ["a", "b"])
