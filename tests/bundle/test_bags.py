"""Bundles whose views may have several pictures, that tell three classes, and that bring references and examples."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tenfold.bundle import Answer, Member, load
from tenfold.bundle.reference import fit_reference
from tenfold.bundle.save import Example
from tenfold.bundle.seal import REFERENCES_FILE
from tenfold.encoders import build
from tenfold.errors import BundleError, ImageError
from tenfold.modalities.image import ImagePreparation, read_image
from tenfold.modalities.ultrasound import Layout
from tenfold.network.network import HeadSpec, Network
from tenfold.types import Calibration, OperatingPoint, Reading

from .conftest import networks, saved
from .test_seal import forge

Film = Callable[[int], Path]
SIZE, CLASSES = 32, ("benign", "metastatic", "lymphoma")
LAYOUTS = (
    Layout("front", "north", (0, 0, 30, 30)),
    Layout("front", "south", (20, 20, 60, 60)),
)


def models() -> list[Network]:
    """Two networks of two views that share an encoder, up to two pictures in front and one at the side."""
    torch.manual_seed(2)
    encoder = build("image_residual_dilated", width=4, depths=(1, 1, 1, 1))
    first = Network(
        {"front": encoder},
        {"diagnosis": HeadSpec("softmax", CLASSES)},
        fusion="gated",
        modality_dropout=0.2,
        pools={"front": "attention"},
        shares={"side": "front"},
    )
    # attention starts as the mean
    torch.nn.init.normal_(first.pool_list[0].score.weight)  # type: ignore[union-attr, arg-type]
    second = Network.from_spec(first.spec)
    for mine, other in zip(second.encoders["front"].blocks[:2], encoder.blocks[:2], strict=True):
        mine.load_state_dict(other.state_dict())
    return [first.eval(), second.eval()]


CALIBRATIONS = tuple({"diagnosis": Calibration("temperature", t, (), 9)} for t in (1.5, 0.8))
ANSWER = Answer("diagnosis", CLASSES, "lymphoma", OperatingPoint(0.2, "youden", 9))


def bagged(folder: Path, made: Sequence[Network] | None = None, **changes: Any) -> Path:
    made = made or models()
    prepared = {
        "front": ImagePreparation(size=SIZE, layouts=LAYOUTS, masked=True),
        "side": ImagePreparation(size=SIZE),
    }
    arguments: dict[str, Any] = {
        "members": [Member(f"fold-0-{i}", m.state_dict(), CALIBRATIONS[i]) for i, m in enumerate(made)],
        "answers": [ANSWER],
        "preparations": {name: own.state() for name, own in prepared.items()},
    }
    return saved(folder, list(made), **{**arguments, **changes})


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return bagged(tmp_path / "bags")


def front(films: Sequence[Path], site: str = "north") -> dict[str, Any]:
    return {"files": list(films), "site": site}


def by_hand(fronts: Sequence[Path], side: Path | None, site: str = "north") -> np.ndarray:
    """(classes,) of one case without a bundle."""
    masked = ImagePreparation(size=SIZE, layouts=LAYOUTS, masked=True)
    inputs = {}
    if fronts:
        own = [masked.shown(_at(path, site)) for path in fronts]
        plain = ImagePreparation(size=SIZE)
        inputs["front"] = torch.from_numpy(np.stack([plain.apply(reading) for reading in own])[None]).float() / 255
    if side:
        inputs["side"] = torch.from_numpy(ImagePreparation(size=SIZE).apply(read_image(side))[None]).float() / 255
    found = []
    for model, calibration in zip(models(), CALIBRATIONS, strict=True):
        with torch.no_grad():
            found.append(calibration["diagnosis"].apply(model(inputs)["diagnosis"].double().numpy())[0])
    return np.mean(found, axis=0)


def _at(path: Path, site: str) -> Reading:
    reading = read_image(path)
    return replace(reading, facts={**reading.facts, "site": site})


# --- pictures --------------------------------------------------------------------------------------------------------


def test_cases_with_different_numbers_of_pictures_are_told_as_each_alone(bundle: Path, film: Film) -> None:
    predictor = load(bundle)
    assert predictor.pools == {"front": "attention"}
    a, b, c, d = (film(i) for i in range(4))
    given = [
        {"front": front([a, b]), "side": c},
        {"front": front([c], "south"), "side": None},
        {"front": None, "side": d},
        {"front": {"files": [], "site": "north"}, "side": a},
    ]
    expected = [by_hand([a, b], c), by_hand([c], None, "south"), by_hand([], d), by_hand([], a)]
    for batch in (4, 1, 3):
        found = predictor.predict(given, batch=batch)
        said = [[answer.probabilities[name] for name in CLASSES] for answer in found]
        np.testing.assert_allclose(said, expected, atol=1e-6)
    assert [answer.missing for answer in found] == [(), ("side",), ("front",), ("front",)]
    assert np.abs(expected[0] - by_hand([a], c)).max() > 1e-5


def test_the_order_of_the_pictures_does_not_matter_and_their_places_are_one_case(bundle: Path, film: Film) -> None:
    predictor = load(bundle)
    one, other = (predictor.predict([{"front": front(f)}])[0] for f in ([film(0), film(1)], [film(1), film(0)]))
    assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)


def test_prepared_pictures_are_stacked_with_nan_where_there_is_none(bundle: Path, film: Film) -> None:
    predictor = load(bundle)
    prepared = [predictor.prepare({"front": front(f)}) for f in ([film(0), film(1), film(2)], [film(1)])]
    assert [p["front"].shape for p in prepared if p["front"] is not None] == [(3, 1, SIZE, SIZE), (1, 1, SIZE, SIZE)]
    stacked = predictor.stack([*prepared, predictor.prepare({"side": film(0)})])["front"]
    assert stacked.shape == (3, 3, 1, SIZE, SIZE)
    assert stacked.dtype == np.float32
    there = ~np.isnan(stacked).any(axis=(2, 3, 4))
    assert there.tolist() == [[True] * 3, [True, False, False], [False] * 3]
    assert np.array_equal(np.isnan(stacked).all(axis=(2, 3, 4)), ~there)
    # nobody lacks a slot: the bytes stay what they are
    assert predictor.stack(prepared[:1])["front"].dtype == np.uint8
    tensors = predictor.tensors(predictor.stack(prepared))
    assert torch.equal(tensors["front"][0], torch.from_numpy(prepared[0]["front"]).float() / 255)


def test_paths_lists_and_mappings_say_the_same(tmp_path: Path, film: Film) -> None:
    plain = {name: ImagePreparation(size=SIZE).state() for name in ("front", "side")}
    predictor = load(bagged(tmp_path / "plain", preparations=plain))
    ways = [film(0), str(film(0)), [film(0)], (film(0),), {"files": [film(0)]}, {"files": film(0), "site": ""}]
    found = [predictor.predict([{"front": way}])[0].probabilities for way in ways]
    assert all(one == found[0] for one in found)
    by_input = predictor.predict({"front": [[film(0), film(1)], [film(2)]], "side": [film(3), None]})
    by_case = predictor.predict([{"front": [film(0), film(1)], "side": film(3)}, {"front": [film(2)], "side": None}])
    assert [one.probabilities for one in by_input] == [one.probabilities for one in by_case]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"side": ["0", "1"]}, "2 pictures for input 'side'"),
        ({"side": {"files": ["0", "1"]}}, "2 pictures for input 'side'"),
        ({"front": {"files": []}}, "nothing is given"),
        ({"front": {"film": "0"}}, "got a row"),
        ({"front": np.zeros(3)}, "got a row"),
        ({"front": {"files": ["0"], "site": "west"}}, "region"),
        ({"front": ["0"]}, "region"),
        ({"front": {"files": ["0", "9"], "site": "north"}}, "no such file"),
    ],
)
def test_what_cannot_be_read_is_refused(bundle: Path, film: Film, given: dict[str, Any], words: str) -> None:
    def real(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: v if key == "site" else real(v) for key, v in value.items()}
        if isinstance(value, list):
            return [real(v) for v in value]
        return film(int(value)) if value in ("0", "1") else value

    film(0), film(1)
    with pytest.raises(ImageError, match=words):
        load(bundle).predict([{key: v if isinstance(v, np.ndarray) else real(v) for key, v in given.items()}])


# --- three classes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("probabilities", "decision"),
    [
        # past the threshold of 0.2, and yet not the likeliest
        ([0.5, 0.2, 0.3], "benign"),
        ([0.2, 0.45, 0.35], "metastatic"),
        ([0.3, 0.3, 0.4], "lymphoma"),
        ([0.34, 0.34, 0.32], "benign"),
    ],
)
def test_of_three_classes_the_likeliest_is_decided_for(bundle: Path, probabilities: list[float], decision: str) -> None:
    predictor = load(bundle)
    assert predictor.decide(np.array(probabilities)) == decision


def test_of_two_classes_the_threshold_decides(tmp_path: Path) -> None:
    predictor = load(saved(tmp_path / "two", networks()))
    assert [predictor.decide(np.array(p)) for p in ([0.6, 0.4], [0.61, 0.39])] == ["sick", "healthy"]


def test_a_case_of_three_classes(bundle: Path, film: Film) -> None:
    (answer,) = load(bundle).predict([{"front": front([film(0)])}])
    assert tuple(answer.probabilities) == CLASSES
    assert sum(answer.probabilities.values()) == pytest.approx(1)
    assert answer.decision == max(CLASSES, key=lambda name: answer.probabilities[name])
    # the spread is that of the class to be detected
    assert answer.spread[0] <= answer.probabilities["lymphoma"] <= answer.spread[1]


# --- references and examples -----------------------------------------------------------------------------------------


def whole(tmp_path: Path, film: Film) -> tuple[Path, Network, torch.Tensor]:
    """A bundle with references of both views and two examples."""
    first, second = models()
    rng = np.random.default_rng(0)
    seen = torch.from_numpy(rng.random((40, 1, SIZE, SIZE), np.float32))
    references = {name: fit_reference(first, name, [seen[:20]], [seen[20:]]) for name in ("front", "side")}
    examples = [
        Example(
            "example 1", "benign (simulated)", {"front": (film(0), film(1)), "side": (film(2),)}, {}, {"front": "north"}
        ),
        Example("example 2", "lymphoma (simulated)", {"front": (), "side": (film(3),)}),
    ]
    folder = bagged(tmp_path / "whole", [first, second], references=references, examples=examples)
    return folder, first, seen


def test_references_come_back_as_they_were(tmp_path: Path, film: Film) -> None:
    folder, first, seen = whole(tmp_path, film)
    predictor = load(folder)
    assert set(predictor.references) == {"front", "side"}
    network = predictor.networks[0]
    for name in ("front", "side"):
        before = fit_reference(first, name, [seen[:20]], [seen[20:]]).judge(first, name, seen[20:24])
        after = predictor.references[name].judge(network, name, seen[20:24])
        np.testing.assert_allclose(after.distance, before.distance, rtol=1e-5)
        assert np.array_equal(after.unusual, before.unusual)
    odd = predictor.references["front"].judge(network, "front", torch.zeros(1, 1, SIZE, SIZE))
    assert odd.unusual.all()


def test_examples_can_be_tried(tmp_path: Path, film: Film) -> None:
    folder, _, _ = whole(tmp_path, film)
    predictor = load(folder)
    first, second = predictor.examples
    assert (first["name"], first["label"], first["layouts"]) == ("example 1", "benign (simulated)", {"front": "north"})
    assert [path.read_bytes() for path in first["files"]["front"]] == [film(i).read_bytes() for i in (0, 1)]
    assert second["files"]["front"] == []
    given = [
        {name: {"files": files, "site": e["layouts"].get(name, "")} for name, files in e["files"].items()}
        for e in predictor.examples
    ]
    found = predictor.predict(given)
    assert [one.missing for one in found] == [(), ("front",)]
    np.testing.assert_allclose(
        [found[0].probabilities[name] for name in CLASSES], by_hand([film(0), film(1)], film(2)), atol=1e-6
    )


@pytest.mark.parametrize("name", [REFERENCES_FILE, "examples/1-1-2.png"])
def test_references_and_examples_are_sealed(tmp_path: Path, film: Film, name: str) -> None:
    folder, _, _ = whole(tmp_path, film)
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(BundleError, match=f"{name} was changed"):
        load(folder)
    (folder / name).unlink()
    with pytest.raises(BundleError, match="is missing"):
        load(folder)


@pytest.mark.parametrize("file", ["../secret.png", "/etc/passwd", "examples/9-9-9.png"])
def test_an_example_that_names_what_is_not_sealed_is_refused(tmp_path: Path, film: Film, file: str) -> None:
    folder, _, _ = whole(tmp_path, film)
    (tmp_path / "secret.png").write_bytes(film(0).read_bytes())
    forge(folder, lambda facts: facts["examples"][0]["files"].update(side=[file]))
    with pytest.raises(BundleError, match="does not seal"):
        load(folder)


# --- older bundles ---------------------------------------------------------------------------------------------------


def as_in_format_3(facts: dict[str, Any]) -> None:
    """Write the content of a bundle as the third format had it."""
    facts["version"] = 3
    del facts["references"], facts["examples"]
    for name in ("pools", "shares"):
        del facts["network"][name]
    for state in facts["preparations"].values():
        for key in ("layouts", "masked", "bar_high"):
            state.pop(key, None)


def test_a_bundle_of_the_third_format_answers_as_it_did(tmp_path: Path, film: Film) -> None:
    folder = saved(tmp_path / "old", networks("front", "side"))
    given = {"front": [film(0), film(1)], "side": [film(2), film(3)]}
    expected = load(folder).predict(given)
    forge(folder, as_in_format_3)
    assert not {"references", "examples"} & set(json.loads((folder / "bundle.json").read_text()))
    predictor = load(folder)
    assert predictor.predict(given) == expected
    assert (predictor.references, predictor.examples, predictor.pools) == ({}, (), {})
