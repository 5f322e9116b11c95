"""What the bundle of a run takes along for whoever serves it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.study.lymph_nodes import CLASSES, VIEWS, Watched, without_work
from tests.study_files import read_json, read_rows

from tenfold.bundle import Predictor, load
from tenfold.cohort.manifest import Cohort
from tenfold.cohort.split import read_splits
from tenfold.config import ImageInput
from tenfold.modalities.image import read_image
from tenfold.modalities.table import Column, TableReading
from tenfold.study import Run, Study, handover
from tenfold.study.external import given_by
from tenfold.types import PredictionTable

PROPOSED = "all views"


@pytest.fixture(scope="module")
def run(nodes: Watched) -> Run:
    return nodes.run


@pytest.fixture(scope="module")
def predictor(run: Run) -> Predictor:
    return load(run.bundle)


@pytest.fixture(scope="module")
def cohort(nodes_study: Study) -> Cohort:
    return nodes_study.cohort()


# --- facts -----------------------------------------------------------------------------------------------------------


def test_how_alike_cases_were_told_is_counted_once_a_case(run: Run, predictor: Predictor) -> None:
    found = predictor.facts["similar"]["diagnosis"]
    own = PredictionTable.read(run.folder / "predictions" / "diagnosis.csv").select(arm=PROPOSED, split="out_of_fold")
    assert tuple(found["counts"]) == CLASSES
    assert np.diff(found["edges"]) == pytest.approx(np.full(10, 0.1))
    for name in CLASSES:
        p = own.probability("lymphoma")[own.label == name]
        assert sum(found["counts"][name]) == len(p)
        for low, high, n in zip(found["edges"][:-1], found["edges"][1:], found["counts"][name], strict=True):
            assert n == ((p >= low) & (p < high)).sum()


def test_figures_and_shares_are_those_of_the_study(run: Run, predictor: Predictor, cohort: Cohort) -> None:
    figures = predictor.facts["evaluations"]["diagnosis"]
    judged = read_json(run, "evaluation.json")["diagnosis"][PROPOSED]
    for name in ("auc", "sensitivity", "specificity"):
        assert figures[name] == judged[name]
    label = cohort.labels("diagnosis")
    assert predictor.facts["prevalences"]["diagnosis"] == pytest.approx(
        {name: float((label == name).mean()) for name in CLASSES}
    )


def test_how_many_pictures_and_what_they_look_like(predictor: Predictor) -> None:
    assert predictor.facts["pictures"] == dict.fromkeys(VIEWS, 2)
    look = predictor.facts["reference"]["pictures"]
    assert all(look[view]["modalities"] == [] for view in VIEWS)
    # inside the region: words of the screen would be grey, and its bar coloured
    assert look["b_mode"]["coloured"][1] < 0.02
    assert look["cdfi"]["coloured"][0] > 0.005
    assert look["elastography"]["coloured"][0] > 0.5
    for one in look.values():
        assert 0 <= one["coloured"][0] <= one["coloured"][1] <= 1


def test_the_usual_range_is_of_numbers_that_are_known() -> None:
    rng = np.random.default_rng(0)
    columns = (Column("crp"), Column("few"), Column("sex", kind="category", levels=("F", "M")))
    values = np.stack([rng.normal(5, 1, 400), np.full(400, np.nan), rng.integers(0, 2, 400)], axis=1)
    values[:9, 1] = 1.0
    values[5:50, 0] = np.nan
    bench: Any = SimpleNamespace(tables={"labs": TableReading(columns, values)})
    found = handover._usual(bench, "labs")
    assert set(found) == {"crp"}
    known = values[~np.isnan(values[:, 0]), 0]
    assert found["crp"] == pytest.approx([np.quantile(known, 0.01), np.quantile(known, 0.99)])


# --- references ------------------------------------------------------------------------------------------------------


def test_every_view_has_a_reference_and_no_table_has(predictor: Predictor) -> None:
    assert set(predictor.references) == set(VIEWS)


def test_a_reference_is_fitted_on_the_training_part_of_the_first_model_alone(run: Run, cohort: Cohort) -> None:
    _, splits = read_splits(run.folder / "splits.csv")
    train = {cohort.case.tolist().index(case) for case in splits[0].train}
    rest = {cohort.case.tolist().index(case) for case in splits[0].inner + splits[0].test}
    given: list[set[int]] = []

    def asked(name: str, rows: Any) -> Any:
        given[-1] |= set(rows.tolist())
        return SimpleNamespace(ndim=4)

    def fitted(network: Any, name: str, inside: Any, outside: Any) -> Any:
        for part in (inside, outside):
            given.append(set())
            list(part)
        return name

    sections = {"b_mode": ImageInput()}
    inputs = SimpleNamespace(tensor=asked, has=lambda name: np.array([len(p) > 0 for p in cohort.pictures(name)]))
    parts = tuple(np.array(sorted(part), np.int64) for part in (train, rest, set()))
    networks: Any = SimpleNamespace(parts=[parts], inputs=[inputs], network=lambda k: None)
    arm: Any = SimpleNamespace(sections=sections)
    bench: Any = SimpleNamespace()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(handover, "fit_reference", fitted)
        assert handover.references(bench, arm, networks) == {"b_mode": "b_mode"}
    there = {i for i, own in enumerate(cohort.pictures("b_mode")) if own}
    assert given == [train & there, rest & there]
    assert not given[0] & given[1]


def test_pictures_of_the_study_are_usual_and_the_negative_is_not(predictor: Predictor, cohort: Cohort) -> None:
    own = [predictor.prepare({"b_mode": g["b_mode"]})["b_mode"] for g in given_by(predictor, cohort) if g["b_mode"]]
    stacked = np.concatenate([one for one in own if one is not None])
    network = predictor.networks[0]
    tensors = predictor.tensors({"b_mode": stacked[:, None]})["b_mode"][:, 0]
    judged = predictor.references["b_mode"].judge(network, "b_mode", tensors)
    assert judged.unusual.mean() < 0.25
    negative = predictor.references["b_mode"].judge(network, "b_mode", 1 - tensors)
    assert (negative.distance > judged.distance).mean() > 0.9


# --- examples --------------------------------------------------------------------------------------------------------


def test_a_simulated_cohort_gives_an_example_of_each_class(predictor: Predictor, cohort: Cohort) -> None:
    assert [e["label"] for e in predictor.examples] == [f"{name} (simulated)" for name in CLASSES]
    rows = {row["case"]: row for row in read_rows(cohort.path)}
    for example, label in zip(predictor.examples, CLASSES, strict=True):
        # nobody is named: the case is found by the bytes of its pictures
        whose = {
            case
            for view in VIEWS
            for case, own in zip(cohort.case.tolist(), cohort.pictures(view), strict=True)
            for path in own
            if path.read_bytes() in [file.read_bytes() for file in example["files"][view]]
        }
        (case,) = whose
        assert rows[case]["diagnosis"] == label
        assert example["rows"]["notes"] == {c: rows[case][c] for c in ("location", "shape", "margin", "flow")}
        assert example["layouts"] == dict.fromkeys(VIEWS, rows[case]["site"])
        assert all(example["files"][view] for view in VIEWS)


def test_examples_can_be_put_through_the_bundle(predictor: Predictor) -> None:
    given = [
        {
            **{view: {"files": files, "site": e["layouts"][view]} for view, files in e["files"].items()},
            **e["rows"],
        }
        for e in predictor.examples
    ]
    for answer in predictor.predict(given):
        assert answer.missing == ()
        assert answer.decision in CLASSES


def test_a_real_patient_is_never_an_example(nodes_study: Study, tmp_path: Path) -> None:
    folder = without_work(nodes_study.folder, tmp_path / "real")
    (folder / "truth.json").unlink()
    bench: Any = SimpleNamespace(cohort=Cohort.read(folder))
    assert handover.examples(bench, SimpleNamespace()) == []  # type: ignore[arg-type]


def test_what_the_bundle_says_holds_no_name_of_a_patient(run: Run, cohort: Cohort) -> None:
    text = (run.bundle / "bundle.json").read_text()
    assert not [name for name in (*cohort.patient.tolist(), *cohort.case.tolist()) if name in text]
    assert json.loads(text)["examples"][0]["name"] == "example 1"
    with_words = [read_image(path) for path in sorted((run.bundle / "examples").iterdir())]
    assert len(with_words) >= len(CLASSES) * len(VIEWS)
