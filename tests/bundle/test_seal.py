from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tenfold.bundle import Member, load
from tenfold.bundle.seal import digest, sha256
from tenfold.errors import BundleError

from .conftest import CALIBRATED, networks, saved
from .test_tables import ROW, tabled


def forge(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change bundle.json and seal it anew, as somebody with bad intent would."""
    facts = json.loads((bundle / "bundle.json").read_text())
    change(facts)
    facts["digest"] = digest(facts)
    (bundle / "bundle.json").write_text(json.dumps(facts))


@pytest.mark.parametrize(
    "name",
    ["README.md", "bundle.json", "weights/shared.safetensors", "weights/fold-0-0.safetensors"],
)
def test_one_changed_byte(bundle: Path, name: str) -> None:
    data = bytearray((bundle / name).read_bytes())
    if name == "bundle.json":
        data = data.replace(b"0.4", b"0.5")
    else:
        data[len(data) // 2] ^= 1
    (bundle / name).write_bytes(data)
    with pytest.raises(BundleError, match=f"{name} was changed"):
        load(bundle)


def test_a_changed_byte_in_a_model_that_is_not_chosen(bundle: Path) -> None:
    path = bundle / "weights/fold-0-1.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match="was changed"):
        load(bundle, member="fold-0-0")


def test_a_missing_and_an_extra_file(bundle: Path) -> None:
    shutil.copy(bundle / "weights/fold-0-0.safetensors", bundle / "weights/fold-9-9.safetensors")
    with pytest.raises(BundleError, match=r"fold-9-9.safetensors is not in bundle.json"):
        load(bundle)
    (bundle / "weights/fold-9-9.safetensors").unlink()
    (bundle / "weights/fold-0-0.safetensors").unlink()
    with pytest.raises(BundleError, match=r"fold-0-0.safetensors is missing"):
        load(bundle)


@pytest.mark.parametrize("content", [None, "{", "[]", '{"format": "other"}', "[" * 100_000, "\xff"])
def test_a_foreign_folder(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "bundle.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(BundleError, match="not a tenfold bundle"):
        load(tmp_path)
    with pytest.raises(BundleError, match="no such folder"):
        load(tmp_path / "nowhere")


def test_a_newer_format_is_named_before_anything_else(bundle: Path) -> None:
    (bundle / "bundle.json").write_text(json.dumps({"format": "tenfold-bundle", "version": 5}))
    with pytest.raises(BundleError, match="format 5"):
        load(bundle)


def as_in_format_2(facts: dict[str, Any]) -> None:
    """Write the content of a bundle of one target as the second format had it."""
    (told,) = facts.pop("targets")
    facts["version"] = 2
    facts["target"] = {key: told[key] for key in ("name", "classes", "positive")}
    facts["operating_point"], facts["conformal"] = told["operating_point"], told["conformal"]
    for name in ("shared", "norm", "head_norm"):
        del facts["network"][name]
    for member in facts["members"]:
        member["calibration"] = member.pop("calibrations")[told["name"]]
        if "network" in member:
            for name in ("shared", "norm", "head_norm"):
                del member["network"][name]


def test_a_bundle_of_the_second_format_answers_as_it_did(tmp_path: Path, film: Callable[[int], Path]) -> None:
    folder = tabled(tmp_path / "bundle", screen=2, same=False)
    given = [{"film": film(0), "labs": ROW}, {"film": film(1)}, {"labs": ROW}]
    before = load(folder)
    expected = before.predict(given)
    forge(folder, lambda facts: (as_in_format_2(facts), facts["facts"].update(target_column="outcome"))[0])
    facts = json.loads((folder / "bundle.json").read_text())
    assert set(facts["members"][0]) == {"name", "file", "calibration", "preparations", "network"}
    assert not {"targets", "outcome"} & set(facts)
    predictor = load(folder)
    assert predictor.predict(given) == expected
    assert expected[0].likely is not None
    assert (predictor.targets, predictor.operating_point) == (("diagnosis",), before.operating_point)
    assert predictor.outcome == {"column": "outcome"}
    assert predictor.of("diagnosis").predict(given) == expected


def test_a_bundle_of_the_first_format_answers_as_it_did(bundle: Path, film: Callable[[int], Path]) -> None:
    expected = load(bundle).predict(film(0))[0]

    def as_it_was(facts: dict[str, Any]) -> None:
        as_in_format_2(facts)
        facts["version"] = 1
        del facts["conformal"], facts["network"]["modality_dropout"]

    forge(bundle, as_it_was)
    facts = json.loads((bundle / "bundle.json").read_text())
    assert set(facts["members"][0]) == {"name", "file", "calibration"}
    predictor = load(bundle)
    assert (predictor.columns, predictor.conformal) == ({}, None)
    (old,) = predictor.predict(film(0))
    assert old == expected
    assert old.likely is None


def test_a_bundle_of_the_first_format_with_two_inputs_knows_no_vector_for_an_absent_one(
    tmp_path: Path, film: Callable[[int], Path]
) -> None:
    models = networks("front", "side")
    expected = load(saved(tmp_path / "new", models)).predict({"front": [film(0)], "side": [film(1)]})[0]
    members = [
        Member(f"fold-0-{i}", {k: v for k, v in m.state_dict().items() if "absent" not in k}, CALIBRATED[i])
        for i, m in enumerate(models)
    ]
    folder = saved(tmp_path / "old", models, members=members)
    with pytest.raises(BundleError, match="do not fit"):
        load(folder)
    forge(folder, lambda facts: (as_in_format_2(facts), facts.update(version=1))[0])
    assert load(folder).predict({"front": [film(0)], "side": [film(1)]})[0] == expected


@pytest.mark.parametrize("name", ["../secret.txt", "weights/../../secret.txt", "/etc/hostname", "C:secret", ""])
def test_a_path_that_leaves_the_folder(bundle: Path, name: str) -> None:
    (bundle.parent / "secret.txt").write_text("secret")
    forge(bundle, lambda facts: facts["files"].update({name: sha256(b"secret")}))
    with pytest.raises(BundleError, match="outside"):
        load(bundle)


def test_a_link_that_leaves_the_folder(bundle: Path) -> None:
    (bundle.parent / "secret.txt").write_text("secret")
    (bundle / "link").symlink_to(bundle.parent / "secret.txt")
    forge(bundle, lambda facts: facts["files"].update({"link": sha256(b"secret")}))
    with pytest.raises(BundleError, match="outside"):
        load(bundle)


def test_weights_of_another_shape(tmp_path: Path) -> None:
    folder = saved(tmp_path / "bundle", networks())
    forge(folder, lambda facts: facts["network"]["encoders"][0]["options"].update(width=16))
    with pytest.raises(BundleError, match="do not fit"):
        load(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda facts: facts.pop("targets"),
        lambda facts: facts.update(targets=[]),
        lambda facts: facts["targets"][0].pop("conformal"),
        lambda facts: facts.update(members=[]),
        lambda facts: facts.update(views=0),
        lambda facts: facts.update(views="many"),
        lambda facts: facts["targets"][0].update(classes=["sick", "healthy"]),
        lambda facts: facts["targets"][0].update(positive="ill"),
        lambda facts: facts["targets"][0].update(name="outcome"),
        lambda facts: facts["members"][0]["calibrations"]["diagnosis"].update(temperature=0),
        lambda facts: facts["members"][1]["calibrations"].clear(),
        lambda facts: facts["members"][0].update(file="README.md"),
        lambda facts: facts["members"][0].update(file="weights/other.safetensors"),
        lambda facts: facts.update(files=[]),
        lambda facts: facts["files"].update({"README.md": 3}),
        lambda facts: facts["network"]["encoders"][0].update(encoder="unknown"),
        lambda facts: facts["network"]["encoders"][0]["options"].update(weights="x.safetensors"),
    ],
)
def test_a_forged_bundle_is_refused_not_a_crash(bundle: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    forge(bundle, change)
    with pytest.raises(BundleError):
        load(bundle)
