from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tenfold.bundle import Member, load, patient_mark
from tenfold.bundle import save as save_module
from tenfold.errors import BundleError, OutputError
from tenfold.types import Calibration

from .conftest import CALIBRATED, answer, networks, saved


def test_layout_and_what_is_shared_is_stored_once(bundle: Path) -> None:
    files = sorted(p.relative_to(bundle).as_posix() for p in bundle.rglob("*") if p.is_file())
    assert files == [
        "README.md",
        "bundle.json",
        "weights/fold-0-0.safetensors",
        "weights/fold-0-1.safetensors",
        "weights/shared.safetensors",
    ]
    shared = load_file(bundle / "weights/shared.safetensors")
    own = load_file(bundle / "weights/fold-0-1.safetensors")
    assert not shared.keys() & own.keys()
    assert shared.keys() | own.keys() == networks()[0].state_dict().keys()
    assert any("blocks.1" in name and "conv" in name for name in shared)
    assert any("blocks.2" in name and "conv" in name for name in own)


def test_training_patients_are_marked_not_named(bundle: Path) -> None:
    facts = json.loads((bundle / "bundle.json").read_text())
    assert facts["training"]["patients"] == sorted([patient_mark("p1"), patient_mark("p2")])
    assert facts["training"]["images"] == ["ab" * 8]
    assert '"p1"' not in json.dumps(facts)


def test_the_same_parts_give_the_same_bundle(tmp_path: Path) -> None:
    places = [saved(tmp_path / name, networks()) for name in ("a", "b")]
    contents = [[p.read_bytes() for p in sorted(place.rglob("*.*"))] for place in places]
    assert contents[0] == contents[1]


def test_tied_and_strided_tensors(tmp_path: Path) -> None:
    values = torch.arange(12.0).reshape(3, 4)
    state = {"plain": values, "tied": values, "turned": values.T, "part": values[:, 1]}
    folder = saved(tmp_path / "bundle", networks(), members=[Member("only", state, {"diagnosis": Calibration()})])
    stored = load_file(folder / "weights/only.safetensors")
    assert all(torch.equal(stored[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("at", [1, 3, 4])
def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    written: list[str] = []
    put = save_module._put

    def fail(place: Path, name: str, data: bytes) -> str:
        written.append(name)
        if len(written) > at:
            raise OSError(28, "No space left on device")
        return put(place, name, data)

    monkeypatch.setattr(save_module, "_put", fail)
    with pytest.raises(OutputError, match="No space left"):
        saved(tmp_path / "bundle", networks())
    assert list(tmp_path.iterdir()) == []


def test_a_taken_place_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "work.txt").write_text("mine")
    with pytest.raises(OutputError, match="taken"):
        saved(tmp_path / "bundle", networks())
    assert [p.name for p in (tmp_path / "bundle").iterdir()] == ["work.txt"]


@pytest.mark.parametrize(
    "changes",
    [
        {"members": []},
        {"members": [Member("../out", {}, CALIBRATED[0])]},
        {"members": [Member("shared", {}, CALIBRATED[0])]},
        {"members": [Member("only", {}, {})]},
        {"members": [Member("only", {}, {**CALIBRATED[0], "outcome": Calibration()})]},
        {"answers": []},
        {"answers": [answer(), answer()]},
        {"answers": [answer(positive="ill")]},
        {"answers": [answer(positive="")]},
        {"answers": [answer(operating_point=None)]},
    ],
)
def test_parts_that_do_not_belong_together(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(BundleError):
        saved(tmp_path / "bundle", networks(), **changes)
    assert list(tmp_path.iterdir()) == []


def test_a_single_model_needs_no_shared_file(tmp_path: Path) -> None:
    folder = saved(tmp_path / "bundle", networks()[:1])
    assert not (folder / "weights/shared.safetensors").exists()
    assert load(folder).members == ("fold-0-0",)
