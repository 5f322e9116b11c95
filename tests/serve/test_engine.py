from __future__ import annotations

import asyncio
import gc
import io
import threading
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.bundle.test_tables import ROW

from tenfold.bundle import load
from tenfold.bundle.reference import fit_reference
from tenfold.errors import BundleError, Refusal
from tenfold.explain.integrated_gradients import integrated_gradients
from tenfold.serve.answer import Answer, Busy
from tenfold.serve.case import Given, Upload
from tenfold.serve.engine import Engine, EngineSettings
from tenfold.serve.explaining import explain
from tenfold.serve.predicting import Plain, Question, ask
from tenfold.serve.queue import Queue

from .conftest import VIEWS, film_bytes, given

FILMS, THREE, BAG = "films-and-labs", "three-views", "bag-and-brain"


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(coroutine)


def together(engine: Engine, slug: str, cases: list[Given], **options: Any) -> list[Answer]:
    async def every() -> list[Answer]:
        return list(await asyncio.gather(*(engine.answer(slug, case, **options) for case in cases)))

    return list(run(every()))


def views(seed: int = 0) -> Given:
    files = {name: (Upload("x.png", film_bytes(seed + i, (50, 60, 3))),) for i, name in enumerate(VIEWS)}
    return Given("views", files)


CASES = [
    given(1),
    given(2, rows={}),
    given(3, files={}),
    given(4, rows={"labs": {"crp": "1.2 mg/dL", "wbc": "", "ward": "b"}}),
    given(5),
]


def test_an_answer_is_what_the_predictor_says_of_the_same_files(
    engine: Engine, bundles: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    predictor = load(bundles[0])
    alone = [run(engine.answer(FILMS, case)) for case in CASES]
    beside = together(engine, FILMS, CASES)
    for i, case in enumerate(CASES):
        row: dict[str, Any] = {}
        if case.files:
            row["film"] = tmp_path / f"{i}.png"
            row["film"].write_bytes(case.files["film"][0].data)
        if case.rows:
            row["labs"] = {column: case.rows["labs"].get(column, "") for column in ("crp", "wbc", "ward")}
        (expected,) = predictor.predict([row])
        for answer in (alone[i], beside[i]):
            (target,) = answer.targets
            assert target.probabilities == pytest.approx(expected.probabilities, abs=1e-6)
            assert target.spread == pytest.approx(expected.spread, abs=1e-6)
            assert (target.decision, target.threshold) == (expected.decision, expected.threshold)
            assert target.prediction_set == expected.likely
            assert answer.missing_inputs == expected.missing
            assert answer.missing_cells == expected.cells


def matrix(regions: int = 5) -> bytes:
    out = io.BytesIO()
    np.savetxt(out, np.corrcoef(np.random.default_rng(7).normal(size=(regions, 60))), delimiter=",")
    return out.getvalue()


def test_several_pictures_and_a_connectome(engine: Engine, bundles: tuple[Path, Path, Path], tmp_path: Path) -> None:
    scans = tuple(Upload("a.png", film_bytes(i)) for i in range(3))
    brain = {"scan": scans, "brain": (Upload("../../a.CSV", matrix()),)}
    case = Given("b", brain, beside={"brain": {"age": "33"}})
    one = replace(case, files={**brain, "scan": scans[:1]})
    found = together(engine, BAG, [case, one], explain=True)
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, upload in zip(paths, scans, strict=True):
        path.write_bytes(upload.data)
    (tmp_path / "m.csv").write_bytes(matrix())
    row = {"file": str(tmp_path / "m.csv"), "age": "33"}
    expected = load(bundles[2]).predict([{"scan": paths, "brain": row}, {"scan": paths[:1], "brain": row}])
    for answer, prediction in zip(found, expected, strict=True):
        assert answer.targets[0].probabilities == pytest.approx(prediction.probabilities, abs=1e-6)
        assert set(answer.shares) == {"scan", "brain"}
    assert list(found[0].heat) == list(found[0].pictures) == [("scan", 0), ("scan", 1), ("scan", 2)]
    (form,) = engine.models[BAG].form["connectomes"]
    assert (form["needs"], form["kinds"], form["regions"]) == (["age"], {"age": "number"}, 5)


@pytest.mark.parametrize(
    ("upload", "age", "said"),
    [
        (Upload("a.csv", matrix(4)), "33", "4 regions"),
        (Upload("a.npy", b"\x93NUMPY" + bytes(90)), "33", "cannot be read"),
        (Upload("a.exe", matrix()), "33", "ends in '.exe'"),
        (Upload("a.csv", matrix()), "", "age is not given"),
        (Upload("a.csv", matrix()), "old", "not a number"),
    ],
)
def test_a_connectome_that_cannot_be_used(engine: Engine, upload: Upload, age: str, said: str) -> None:
    answer = run(engine.answer(BAG, Given("", {"brain": (upload,)}, beside={"brain": {"age": age}})))
    assert not answer.result
    assert said in answer.reasons[0]


def test_who_waits_beside_a_case_does_not_change_its_answer(bundles: tuple[Path, Path, Path]) -> None:
    predictor = load(bundles[0])
    rng = np.random.default_rng(0)
    cases = [
        {"film": rng.integers(0, 256, (1, 48, 48), dtype=np.uint8), "labs": np.array([12.0, 8.5, 0, 1.4])}
        for _ in range(4)
    ]
    cases[2] = {**cases[2], "labs": None}
    questions = [Question(case, {}) for case in cases]
    whole = ask(predictor, Plain(predictor), questions)
    for question, said in zip(questions, whole, strict=True):
        (alone,) = ask(predictor, Plain(predictor), [question])
        assert np.abs(alone.probabilities["diagnosis"] - said.probabilities["diagnosis"]).max() < 1e-5


def test_what_is_told_beside_the_probability(engine: Engine) -> None:
    answer = run(engine.answer(FILMS, given(1)))
    (target,) = answer.targets
    assert target.operating_point["sensitivity"].n == 40
    assert target.prevalence == 0.3
    assert target.similar["n"] in (18, 22)
    assert target.alpha == 0.1
    assert "Of 100 patients" in target.sentence
    assert answer.input_hashes == (given(1).files["film"][0].sha256,)
    assert answer.shares is None
    assert not answer.heat
    assert answer.to_dict()["model"]["digest"] == engine.models[FILMS].digest


def test_an_old_bundle_answers_with_less(engine: Engine) -> None:
    answer = run(engine.answer(THREE, views()))
    (target,) = answer.targets
    assert set(target.probabilities) == {"reactive", "lymphoma", "metastasis"}
    assert (target.similar, target.prevalence, target.prediction_set) == (None, None, None)
    assert target.operating_point == {"threshold": 0.33, "rule": "prevalence", "sensitivity": None, "specificity": None}


def test_the_form_says_what_is_asked_for(engine: Engine) -> None:
    form = engine.models[FILMS].form
    assert [c["name"] for c in form["tables"][0]["columns"]] == ["crp", "wbc", "ward"]  # nobody enters what is derived
    crp = form["tables"][0]["columns"][0]
    assert (crp["unit"], crp["training_high"], crp["low"]) == ("mg/L", 60.0, None)
    assert form["may_lack"]
    assert not engine.models[THREE].form["may_lack"]
    assert [part["pictures"] for part in engine.models[THREE].form["images"]] == [1, 1, 1]


@pytest.mark.parametrize(
    ("case", "check", "said"),
    [
        (given(files={"film": (Upload("x", b"text"),)}), "readable", "not a picture"),
        (given(files={"film": (Upload("x", film_bytes(shape=(1100, 1000))),)}), "readable", "at most 1,000,000"),
        (given(files={"film": (Upload("x", film_bytes(shape=(60, 70, 3))),)}), "colour", "in colour"),
        (given(rows={"labs": {"crp": "high"}}), "cell", "not a number"),
    ],
)
def test_what_cannot_be_used_is_an_answer_without_a_result(engine: Engine, case: Given, check: str, said: str) -> None:
    answer = run(engine.answer(FILMS, case, explain=True))
    assert not answer.result
    assert any(said in reason for reason in answer.reasons)
    assert [c.verdict for c in answer.quality if c.check == check] == ["unusable"]


def test_a_blank_film_has_no_result(engine: Engine) -> None:
    out = io.BytesIO()
    Image.new("L", (80, 80), 90).save(out, format="PNG")
    answer = run(engine.answer(FILMS, given(files={"film": (Upload("x", out.getvalue()),)})))
    assert not answer.result
    assert "shows nothing" in answer.reasons[0]


def test_nothing_or_too_little_has_no_result(engine: Engine) -> None:
    assert "nothing is given" in run(engine.answer(FILMS, given(files={}, rows={"labs": {"crp": " "}}))).reasons[0]
    two = replace(views(), files={k: v for k, v in views().files.items() if k != "cdfi"})
    assert "cdfi missing" in run(engine.answer(THREE, two)).reasons[0]


def test_what_is_odd_goes_with_the_answer(engine: Engine) -> None:
    case = Given("", {"film": (Upload("x", film_bytes(77)),)}, rows={"labs": {"crp": "90", "ward": "c"}})
    answer = run(engine.answer(FILMS, case))
    assert answer.result
    doubtful = {c.check for c in answer.quality if c.verdict == "doubtful"}
    assert doubtful == {"known", "range"}
    assert answer.missing_cells == {"labs": ("wbc", "ratio")}
    assert any(c.check == "missing" and "wbc" in c.message for c in answer.quality)


@pytest.mark.parametrize(
    ("slug", "case", "said"),
    [
        ("film-and-labs", given(), "did you mean 'films-and-labs'"),
        (FILMS, given(files={"flim": ()}), "did you mean 'film'"),
        (FILMS, given(files={"labs": ()}), "another kind"),
        (FILMS, given(rows={"labs": {"cpr": "1"}}), "did you mean 'crp'"),
        (FILMS, given(files={"film": (Upload("a", b""), Upload("b", b""))}), "1 at most"),
        (FILMS, given(layouts={"film": "north"}), "no layout 'north'"),
    ],
)
def test_what_the_model_has_no_place_for_is_refused(engine: Engine, slug: str, case: Given, said: str) -> None:
    with pytest.raises(Refusal, match=said):
        run(engine.answer(slug, case))


def test_an_explanation_says_what_moved_the_answer(engine: Engine) -> None:
    answer = run(engine.answer(FILMS, given(1), explain=True))
    assert answer.explained == {"target": "diagnosis", "class": "sick"}
    assert answer.shares is not None
    assert sum(answer.shares.values()) == pytest.approx(1)
    sizes = [abs(row.log_odds) for row in answer.contributions]
    assert sizes == sorted(sizes, reverse=True)
    assert {row.column: row.value for row in answer.contributions}["ward"] == "a"
    heat = np.asarray(Image.open(io.BytesIO(answer.heat[("film", 0)])))
    picture = np.asarray(Image.open(io.BytesIO(answer.pictures[("film", 0)])))
    assert heat.shape == (*picture.shape, 4)
    assert heat[..., 3].max() == 255
    three = run(engine.answer(THREE, views(), explain=True))
    assert three.shares is None  # it was never taught to do without an input
    assert [one["input"] for one in three.maps] == list(VIEWS)
    assert three.explained["class"] == three.targets[0].decision


def test_contributions_and_shares_are_the_methods_own(bundles: tuple[Path, Path, Path], tmp_path: Path) -> None:
    predictor = load(bundles[0])
    path = tmp_path / "x.png"
    path.write_bytes(film_bytes(1))
    prepared = predictor.prepare({"film": path, "labs": ROW})
    found = explain(predictor, prepared, "sick", prevalence=0.3)
    stacks = predictor.stack([prepared])
    expected = []
    for k, network in enumerate(predictor.networks):
        fitted = predictor.tables[k]["labs"]
        inputs = predictor.tensors(stacks, k)
        baseline = torch.from_numpy(fitted.baseline())
        each = integrated_gradients(network, inputs, view="labs", baseline=baseline, target="diagnosis", index=1)
        wide = np.zeros(4)
        for feature, column in enumerate(fitted.column_of):
            wide[fitted.kept[column]] += each.values[0, feature]
        expected.append(wide / predictor.calibrations[k].temperature)
    np.testing.assert_allclose(found.contributions["labs"], np.mean(expected, axis=0), atol=1e-9)

    def log_odds(p: float) -> float:
        return float(np.log(p / (1 - p)))

    def sick(case: dict[str, Any]) -> float:
        return log_odds(predictor.predict([case])[0].probabilities["sick"])

    both, film, labs = sick({"film": path, "labs": ROW}), sick({"film": path}), sick({"labs": ROW})
    nothing = log_odds(0.3)
    of_film = ((film - nothing) + (both - labs)) / 2
    of_labs = ((labs - nothing) + (both - film)) / 2
    assert found.shares is not None
    assert found.shares["film"] == pytest.approx(abs(of_film) / (abs(of_film) + abs(of_labs)), abs=1e-5)


def test_no_shares_where_nobody_knows_what_is_said_of_nothing(bundles: tuple[Path, Path, Path]) -> None:
    predictor = load(bundles[0])
    prepared = {"film": np.zeros((1, 48, 48), np.uint8), "labs": np.array([12.0, 8.5, 0, 1.4])}
    assert explain(predictor, prepared, "sick", prevalence=None).shares is None
    assert explain(predictor, {**prepared, "labs": None}, "sick", prevalence=0.3).shares is None


def test_pictures_unlike_the_study_and_negatives_are_told(bundles: tuple[Path, Path, Path]) -> None:
    predictor = load(bundles[0])
    rng = np.random.default_rng(0)
    # bright discs on a dark ground: no negative of one looks like another
    y, x = np.mgrid[:48, :48]

    def disc() -> np.ndarray:
        cy, cx, r = rng.uniform(18, 30), rng.uniform(18, 30), rng.uniform(8, 14)
        inside = (y - cy) ** 2 + (x - cx) ** 2 < r**2
        return np.clip(30 + 180 * inside + rng.normal(0, 6, (48, 48)), 0, 255).astype(np.uint8)[None]

    def tensors(n: int) -> torch.Tensor:
        return torch.from_numpy(np.stack([disc() for _ in range(n)])).float() / 255

    reference = fit_reference(predictor.networks[0], "film", [tensors(40)], [tensors(40)])
    predictor.references = {"film": reference}
    box = {("film", 0): (0, 0, 48, 48)}
    noise = rng.integers(0, 256, (1, 48, 48), dtype=np.uint8)
    questions = [Question({"film": p, "labs": None}, box) for p in (disc(), 255 - disc(), noise)]
    usual, negative, foreign = (said.checks for said in ask(predictor, Plain(predictor), questions))
    assert not [check for check in usual if check.verdict == "unusable"]
    assert [(check.check, check.verdict) for check in negative] == [("inverted", "unusable")]
    assert [(check.check, check.verdict) for check in foreign] == [("distribution", "unusable")]


def test_too_many_at_once_are_told_when_to_come_again(bundles: tuple[Path, Path, Path]) -> None:
    engine = Engine.start(bundles[:1], settings=EngineSettings(decoders=1, queue=2, batch=2))
    try:

        async def crowd() -> list[Any]:
            asked = (engine.answer(FILMS, given(files={})) for _ in range(5))
            return list(await asyncio.gather(*asked, return_exceptions=True))

        found = run(crowd())
        refused = [one for one in found if isinstance(one, Busy)]
        assert len(refused) == 3
        assert all(1 <= one.retry_after <= 60 for one in refused)
        assert all(one.result for one in found if isinstance(one, Answer))
        assert run(engine.answer(FILMS, given(files={}))).result  # afterwards there is room again
    finally:
        engine.close()


def test_two_bundles_of_one_name_and_none_at_all_are_refused(bundles: tuple[Path, Path, Path]) -> None:
    with pytest.raises(BundleError, match="two bundles are called 'Films and labs'"):
        Engine.start([bundles[0], bundles[0]])
    with pytest.raises(BundleError, match="no bundle"):
        Engine.start([])


def test_explaining_holds_on_to_nothing(engine: Engine) -> None:
    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    run(engine.answer(FILMS, given(1), explain=True))
    before = tensors()
    for seed in range(3):
        run(engine.answer(FILMS, given(seed), explain=True))
    assert tensors() <= before


class Slow:
    """Work that waits until it may, and remembers what it was asked."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.started, self.go = threading.Event(), threading.Event()

    def hold(self, items: Any) -> list[Any]:
        self.started.set()
        self.go.wait(5)
        return list(items)

    def work(self, items: Any) -> list[Any]:
        self.batches.append(list(items))
        if "bad" in items:
            raise ValueError("bad")
        return [2 * item for item in items]

    def later(self, items: Any) -> list[Any]:
        return self.work(items)


def test_those_that_wait_are_joined_and_what_can_wait_is_overtaken() -> None:
    queue, slow = Queue(0.0), Slow()
    try:
        held = queue.submit(slow.hold, 0)
        assert slow.started.wait(5)
        explained = queue.submit(slow.later, "e", handicap=10.0)
        asked = [queue.submit(slow.work, i, most=2) for i in range(3)]
        cancelled = queue.submit(slow.work, 9, most=2)
        assert cancelled.cancel()
        slow.go.set()
        assert (held.result(5), [one.result(5) for one in asked], explained.result(5)) == (0, [0, 2, 4], "ee")
        assert slow.batches == [[0, 1], [2], ["e"]]
    finally:
        queue.close()


def test_a_case_that_fails_does_not_fail_those_beside_it() -> None:
    queue, slow = Queue(0.05), Slow()
    try:
        first, second = (queue.submit(slow.work, item, most=2) for item in ("bad", "good"))
        with pytest.raises(ValueError, match="bad"):
            first.result(5)
        assert second.result(5) == "goodgood"
        assert slow.batches[0] == ["bad", "good"]
    finally:
        queue.close()


def test_a_closed_queue_cancels_what_waits() -> None:
    queue, slow = Queue(0.0), Slow()
    queue.submit(slow.hold, 0)
    assert slow.started.wait(5)
    waiting = queue.submit(slow.work, 1)
    slow.go.set()
    queue.close()
    assert waiting.cancelled() or waiting.result(5) == 2
    assert queue.submit(slow.work, 2).cancelled()
