from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian
from tests.modalities.test_dicom import film as dicom
from tests.modalities.test_dicom import write as write_dicom

from tenfold.errors import ImageError
from tenfold.modalities.image import ImagePreparation, read_image
from tenfold.serve.decode import Decoders, Limits

from .conftest import film_bytes

PREPARATION = ImagePreparation(size=32)


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    pool = Decoders(1, Limits(seconds=10, max_pixels=4_000_000, address_space=300_000_000))
    pool.wait()
    yield pool
    pool.close()


def child(pool: Decoders) -> subprocess.Popen[bytes]:
    return pool._all[0]._process


def test_a_child_prepares_what_this_process_would(decoders: Decoders, tmp_path: Path) -> None:
    pixels = (np.random.default_rng(0).random((60, 70)) * 4095).astype(np.uint16)
    files = {
        "grey.png": film_bytes(1),
        "colour.jpg": film_bytes(2, (40, 50, 3), "JPEG"),
        "film.dcm": write_dicom(tmp_path / "x.dcm", dicom(pixels, bits=12)).read_bytes(),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        for preparation in (PREPARATION, ImagePreparation(size=48, channels=3, fit="stretch")):
            decoded = decoders.picture(data, preparation)
            np.testing.assert_array_equal(decoded.array, preparation.apply(read_image(tmp_path / name)))
    assert decoded.facts["format"] == "DICOM"
    assert (decoded.facts["width"], decoded.facts["height"]) == (70, 60)
    assert not list(decoders._all[0].folder.iterdir())  # nothing of them is left


def test_the_child_knows_no_torch_and_no_name_of_the_user() -> None:
    code = (
        "import sys, tenfold.serve.decode_child; print([m for m in ('torch', 'pandas', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def bomb() -> bytes:
    """A PNG whose header announces 30,000 x 30,000 pixels."""
    out = io.BytesIO()
    Image.new("L", (10, 10)).save(out, format="PNG")
    data = bytearray(out.getvalue())
    data[16:24] = (30_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


def deflated(folder: Path) -> bytes:
    """A small DICOM file of the deflated transfer syntax that would inflate to 50 MB."""
    data = bytearray(write_dicom(folder / "d.dcm", dicom(np.zeros((8, 8), np.uint8))).read_bytes())
    plain, deflate = str(ExplicitVRLittleEndian).encode(), b"1.2.840.10008.1.2.1.99"
    start = data.index(plain)
    length = start - 2
    data[start : start + len(plain) + len(plain) % 2] = deflate
    data[length:start] = len(deflate).to_bytes(2, "little")
    grown = len(deflate) - len(plain) - len(plain) % 2
    data[140:144] = (int.from_bytes(data[140:144], "little") + grown).to_bytes(4, "little")
    packer = zlib.compressobj(wbits=-15)
    return bytes(data[: start + len(deflate)]) + packer.compress(bytes(50_000_000)) + packer.flush()


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("film.png", film_bytes())
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"Dear colleague, please find the film enclosed.", "not a picture"),
        (film_bytes(kind="GIF"), "a GIF file"),
        (zipped(), "a ZIP file"),
        (film_bytes()[:1500], "damaged or truncated"),
        (film_bytes(kind="JPEG")[:40], "damaged or truncated"),
        (bomb(), "900,000,000 pixels"),
        (film_bytes(shape=(2100, 2100)), "at most 4,000,000 pixels"),
        (b"\0" * 128 + b"DICM" + b"\xff" * 64, "DICOM file"),
        (b"\0" * 128 + b"DICM", "DICOM"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 120 + b"DICM" + zipped(), "DICOM"),  # all three at once
    ],
)
def test_what_is_no_picture_is_refused_in_words(decoders: Decoders, data: bytes, said: str) -> None:
    before = child(decoders).pid
    with pytest.raises(ImageError, match=said) as caught:
        decoders.picture(data, PREPARATION)
    assert str(decoders._all[0].folder) not in str(caught.value)
    assert child(decoders).pid == before  # an ordinary refusal costs no child


def test_a_deflated_bomb_is_refused_before_it_is_inflated(decoders: Decoders, tmp_path: Path) -> None:
    data = deflated(tmp_path)
    assert len(data) < 100_000
    with pytest.raises(ImageError, match="deflated"):
        decoders.picture(data, PREPARATION)


def test_what_hides_behind_a_picture_does_not_come_through(decoders: Decoders) -> None:
    plain = decoders.picture(film_bytes(3), PREPARATION)
    both = decoders.picture(film_bytes(3) + zipped() + b"<script>alert(1)</script>", PREPARATION)
    np.testing.assert_array_equal(plain.array, both.array)


def test_memory_is_limited_and_the_child_replaced() -> None:
    pool = Decoders(1, Limits(seconds=20, max_pixels=10**9, address_space=40_000_000))
    try:
        pool.wait()
        first = child(pool).pid
        out = io.BytesIO()
        Image.new("L", (5000, 5000)).save(out, format="PNG")
        with pytest.raises(ImageError, match="more memory"):
            pool.picture(out.getvalue(), PREPARATION)
        assert child(pool).pid != first
        assert pool.picture(film_bytes(), PREPARATION).array.shape == (1, 32, 32)
    finally:
        pool.close()


def test_a_child_that_hangs_or_dies_is_replaced_and_nobody_waits_for_it(decoders: Decoders) -> None:
    original = decoders.limits
    folder = decoders._all[0].folder
    decoders.limits = Limits(seconds=0.5)
    hung = child(decoders)
    os.kill(hung.pid, signal.SIGSTOP)
    begun = time.monotonic()
    with pytest.raises(ImageError, match="limits of memory and time"):
        decoders.picture(film_bytes(), PREPARATION)
    assert time.monotonic() - begun < 5
    assert hung.poll() is not None
    assert not folder.exists()
    decoders.limits = original
    decoders.wait()
    os.kill(child(decoders).pid, signal.SIGSTOP)
    threading.Timer(0.2, child(decoders).kill).start()  # it crashes over a file
    with pytest.raises(ImageError, match="limits of memory and time"):
        decoders.picture(film_bytes(), PREPARATION)
    child(decoders).kill()  # it dies while nobody asks it: the next file is not blamed
    child(decoders).wait()
    assert decoders.picture(film_bytes(), PREPARATION).array.any()


def test_where_no_process_can_be_had_one_file_suffers_and_the_next_tries_again(
    decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object, **__: object) -> None:
        raise OSError("no more processes")

    child(decoders).kill()
    child(decoders).wait()
    open_files = len(list(Path("/proc/self/fd").iterdir()))
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", none)
        for _ in range(3):  # and nobody waits for ever for a child that is not there
            with pytest.raises(ImageError):
                decoders.picture(film_bytes(), PREPARATION)
    assert len(list(Path("/proc/self/fd").iterdir())) <= open_files
    assert decoders.picture(film_bytes(), PREPARATION).array.any()


def test_time_of_computing_is_limited_file_by_file(decoders: Decoders) -> None:
    # a child that has computed for long in all still has its seconds for the next file
    for _ in range(3):
        decoders.picture(film_bytes(5), PREPARATION)
    limits = Path(f"/proc/{child(decoders).pid}/limits").read_text()
    row = next(line for line in limits.splitlines() if line.startswith("Max cpu time"))
    soft, hard = row.split()[3:5]
    assert 15 <= int(soft) <= 30
    assert hard == "unlimited"


def test_closing_ends_the_children_and_removes_their_folders() -> None:
    pool = Decoders(1)
    process, folder = child(pool), pool._all[0].folder
    assert folder.stat().st_mode & 0o077 == 0
    pool.close()
    assert process.poll() is not None
    assert not folder.exists()


def test_a_child_whose_parent_is_gone_tidies_up_and_ends() -> None:
    pool = Decoders(1)
    process, folder = child(pool), pool._all[0].folder
    try:
        pool.wait()
        (folder / "left").write_bytes(b"")
        pool._all[0]._requests.close()
        process.wait(20)
        assert not folder.exists()
    finally:
        pool.close()
