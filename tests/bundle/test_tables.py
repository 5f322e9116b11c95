"""Bundles of films beside tables: what a case may lack, and what is said of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tenfold.bundle import Member, Predictor, load
from tenfold.encoders import build
from tenfold.errors import BundleError, CohortError, ImageError
from tenfold.modalities.image import ImagePreparation, read_image
from tenfold.modalities.table import Column, TablePreparation, TableReading
from tenfold.network.network import HeadSpec, Network
from tenfold.types import PredictionSets

from .conftest import CALIBRATED, CALIBRATIONS, CLASSES, SIZE, answer, saved

Film = Callable[[int], Path]
COLUMNS = (
    Column("crp", unit="mg/L", loinc="1988-5"),
    Column("wbc", unit="10*9/L"),
    Column("ward", kind="category", levels=("a", "b", "c")),
    Column("ratio", formula="crp / wbc"),
)
ROW = {"crp": "12", "wbc": "8.5", "ward": "a"}
SETS = PredictionSets(0.1, (0.2, 0.3))


def _reading(n: int = 40) -> tuple[TableReading, np.ndarray]:
    """Patients whose CRP tells the class in the first half, whose white cells do in the second; nobody in ward c."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 2
    crp, wbc = rng.uniform(1, 30, n), rng.uniform(4, 12, n)
    crp[: n // 2] += 40 * labels[: n // 2]
    wbc[n // 2 :] += 20 * labels[n // 2 :]
    crp[::7] = np.nan
    ward = rng.integers(0, 2, n).astype(float)
    return TableReading(COLUMNS, np.stack([crp, wbc, ward, crp / wbc], axis=1)), labels


def tabled(folder: Path, *, film: bool = True, drop: float = 0.2, same: bool = True, **settings: Any) -> Path:
    """Save a bundle of two models whose tables were prepared on two halves of the patients."""
    reading, labels = _reading()
    members, models = [], []
    for k, half in enumerate((np.arange(20), np.arange(20, 40))):
        fitted = TablePreparation.fit(reading, half, labels=labels, **settings)
        torch.manual_seed(k)
        encoders = {"film": build("image_residual_dilated", width=4, depths=(1, 1, 1, 1))} if film else {}
        encoders["labs"] = build("table_mlp", features=len(fitted.features), dim=16, hidden=8)
        model = Network(encoders, {"diagnosis": HeadSpec("softmax", CLASSES)}, modality_dropout=drop if film else 0.0)
        torch.nn.init.normal_(next(p for n, p in model.named_parameters() if n.startswith("head_list")))
        models.append(model)
        own = None if same else model.spec
        members.append(
            Member(f"fold-0-{k}", model.state_dict(), CALIBRATED[k], {"labs": fitted.state()}, network_spec=own)
        )
    pictures = {"film": ImagePreparation(size=SIZE).state()} if film else {}
    return saved(folder, models, members=members, preparations=pictures, answers=[answer(conformal=SETS)])


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    return load(tabled(tmp_path / "bundle"))


@pytest.mark.parametrize("settings", [{}, {"imputation": "knn", "neighbours": 3}, {"screen": 2, "same": False}])
def test_each_model_prepares_the_row_as_its_own_training_part_taught_it(
    tmp_path: Path, film: Film, settings: dict[str, Any]
) -> None:
    predictor = load(tabled(tmp_path / "bundle", **settings))
    reading, labels = _reading()
    raw = np.array([[np.nan, 8.5, 0.0, np.nan]])
    picture = torch.from_numpy(ImagePreparation(size=SIZE).apply(read_image(film(0)))[None]).float() / 255
    expected = []
    how = {k: v for k, v in settings.items() if k != "same"}
    for k, half in enumerate((np.arange(20), np.arange(20, 40))):
        fitted = TablePreparation.fit(reading, half, labels=labels, **how)
        inputs = {"film": picture, "labs": torch.from_numpy(fitted.apply(raw))}
        with torch.no_grad():
            logits = predictor.networks[k](inputs)["diagnosis"].double().numpy()
        expected.append(CALIBRATIONS[k].apply(logits)[0])
    if "screen" in settings:
        assert [c.name for c in predictor.tables[0]["labs"].columns] != [
            c.name for c in predictor.tables[1]["labs"].columns
        ]
    (found,) = predictor.predict([{"film": film(0), "labs": {"crp": "", "wbc": "8.5", "ward": "a"}}])
    assert found.probabilities["sick"] == pytest.approx(np.mean(expected, axis=0)[1], abs=1e-6)
    assert found.cells == {"labs": ("crp", "ratio")}
    assert expected[0] != pytest.approx(expected[1], abs=1e-3)


def test_a_whole_case_has_a_prediction_set_and_nothing_missing(predictor: Predictor, film: Film) -> None:
    (whole,) = predictor.predict([{"film": film(0), "labs": ROW}])
    said = whole.to_dict()
    assert said["missing_inputs"] == []
    assert said["missing_cells"] == {}
    assert said["prediction_set"] == [
        c for c, low in zip(CLASSES, SETS.lowest, strict=True) if whole.probabilities[c] >= low
    ]


@pytest.mark.parametrize("lacking", ["film", "labs"])
def test_a_case_that_lacks_an_input_is_answered_and_says_so(predictor: Predictor, film: Film, lacking: str) -> None:
    given = {"film": film(0), "labs": ROW}
    (whole,) = predictor.predict([given])
    (named,) = predictor.predict([{**given, lacking: None}])
    (unnamed,) = predictor.predict([{name: value for name, value in given.items() if name != lacking}])
    assert named.to_dict()["missing_inputs"] == [lacking]
    assert named.to_dict()["prediction_set"] is None
    assert named.probabilities == unnamed.probabilities
    assert named.probabilities["sick"] != pytest.approx(whole.probabilities["sick"], abs=1e-6)


def test_empty_cells_throughout_are_a_missing_table(predictor: Predictor, film: Film) -> None:
    (found,) = predictor.predict([{"film": film(0), "labs": dict.fromkeys(ROW, "")}])
    assert found.missing == ("labs",)
    assert found.probabilities == predictor.predict([film(0)])[0].probabilities


def test_a_case_answers_alike_alone_and_among_others(predictor: Predictor, film: Film) -> None:
    cases = [{"film": film(0), "labs": ROW}, {"film": None, "labs": ROW}, {"film": film(1)}, {"labs": ROW}]
    together = predictor.predict(cases)
    for case, found in zip(cases, together, strict=True):
        (alone,) = predictor.predict([case])
        assert alone.probabilities == pytest.approx(found.probabilities, abs=1e-6)
    assert together[1].probabilities == pytest.approx(together[3].probabilities, abs=1e-6)


def test_views_of_a_batch_in_which_a_film_is_absent(tmp_path: Path, film: Film) -> None:
    predictor = load(tabled(tmp_path / "bundle"))
    predictor.views = 3
    together = predictor.predict([{"film": film(0), "labs": ROW}, {"labs": ROW}])
    assert together[1].probabilities == pytest.approx(predictor.predict([{"labs": ROW}])[0].probabilities, abs=1e-6)


@pytest.mark.parametrize("nothing", [{}, {"film": None, "labs": None}, {"labs": dict.fromkeys(ROW, "")}])
def test_a_case_without_any_input_is_refused_and_the_others_are_answered(
    predictor: Predictor, film: Film, nothing: dict[str, Any]
) -> None:
    with pytest.raises(ImageError, match="nothing is given"):
        predictor.predict([nothing])
    bad, good = predictor.predict([nothing, {"film": film(0)}], on_error="return")
    assert "nothing is given" in bad.error
    assert bad.to_dict()["decision"] is None
    assert good.decision


def test_a_model_without_modality_dropout_does_not_do_without(tmp_path: Path, film: Film) -> None:
    predictor = load(tabled(tmp_path / "bundle", drop=0.0))
    with pytest.raises(ImageError, match="modality dropout"):
        predictor.predict([film(0)])
    assert predictor.predict([{"film": film(0), "labs": ROW}])[0].decision


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ({"ward": "d"}, "'d' is no level of ward"),
        ({"crp": "high"}, "'high' is not a number"),
        ({"crp": "1,5"}, "write a decimal point"),
        ({"crp": "3 mmol/L"}, "crp"),
        ({"crp": None}, "no column 'crp'"),
    ],
)
def test_a_cell_that_cannot_be_read_is_refused_by_its_column(
    predictor: Predictor, film: Film, cells: dict[str, str | None], words: str
) -> None:
    row = {k: v for k, v in {**ROW, **cells}.items() if v is not None}
    with pytest.raises(CohortError, match=words) as refused:
        predictor.predict([{"film": film(0), "labs": row}])
    assert next(iter(cells)) in str(refused.value)
    bad, good = predictor.predict([{"film": film(0), "labs": row}, {"labs": ROW}], on_error="return")
    assert bad.error
    assert good.decision


def test_a_unit_in_a_cell_is_converted(predictor: Predictor) -> None:
    (milligrams,) = predictor.predict([{"labs": ROW}])
    (decilitres,) = predictor.predict([{"labs": {**ROW, "crp": "1.2 mg/dL"}}])
    assert decilitres.probabilities == pytest.approx(milligrams.probabilities, abs=1e-6)
    assert predictor.predict([{"labs": {**ROW, "crp": "1.2"}}])[0].probabilities != milligrams.probabilities


def test_a_category_that_training_never_saw_counts_as_not_observed(predictor: Predictor) -> None:
    (unseen,) = predictor.predict([{"labs": {**ROW, "ward": "c"}}])
    (empty,) = predictor.predict([{"labs": {**ROW, "ward": ""}}])
    assert unseen.probabilities == empty.probabilities
    assert unseen.probabilities != predictor.predict([{"labs": ROW}])[0].probabilities


@pytest.mark.parametrize("row", [{**dict.fromkeys(ROW, ""), "ward": "c"}, {**dict.fromkeys(ROW, ""), "ward": "a"}])
def test_a_row_in_which_a_model_sees_nothing_needs_another_input(tmp_path: Path, film: Film, row: Any) -> None:
    predictor = load(tabled(tmp_path / "bundle", screen=2, same=False))
    with pytest.raises(ImageError, match="labs"):
        predictor.predict([{"labs": row}])
    bad, good = predictor.predict([{"labs": row}, {"film": film(0), "labs": row}], on_error="return")
    assert bad.error
    assert good.decision


def test_a_film_and_a_row_are_not_mistaken_for_each_other(predictor: Predictor, film: Film) -> None:
    for wrong, words in (
        ({"film": ROW}, "'film' got a row"),
        ({"labs": film(0)}, "'labs' got a file"),
        ({"lab": ROW}, "did you mean 'labs'"),
    ):
        with pytest.raises(ImageError, match=words):
            predictor.predict([wrong])


def test_a_model_of_tables_alone(tmp_path: Path, film: Film) -> None:
    predictor = load(tabled(tmp_path / "bundle", film=False))
    (found,) = predictor.predict([{"labs": ROW}])
    assert found.case == "case 1"
    assert found.likely is not None
    with pytest.raises(ImageError, match="sees no pictures"):
        predictor.predict([film(0)])


def test_figures_are_taken_as_a_row_is(predictor: Predictor) -> None:
    (cells,) = predictor.predict([{"labs": ROW}])
    (figures,) = predictor.predict([{"labs": np.array([12, 8.5, 0, 12 / 8.5])}])
    assert figures.probabilities == pytest.approx(cells.probabilities, abs=1e-6)
    with pytest.raises(CohortError, match="4 columns"):
        predictor.predict([{"labs": np.array([12.0])}])


@pytest.mark.parametrize(
    "change",
    [
        lambda facts: facts["members"][1].pop("preparations"),
        lambda facts: facts["members"][0]["preparations"].update(film={}),
        lambda facts: facts["members"][0]["preparations"]["labs"].update(scale=[0] * 6),
        lambda facts: facts["members"][0]["preparations"]["labs"]["raw_columns"].pop(),
        lambda facts: facts["members"][0]["preparations"]["labs"].update(imputation="mean"),
        lambda facts: facts["members"][1]["network"]["encoders"][0]["options"].update(weights="x.safetensors"),
        lambda facts: facts["preparations"].clear(),
        lambda facts: facts["targets"][0].update(conformal={"alpha": 0.1}),
        lambda facts: facts["targets"][0].update(conformal={"alpha": 0.1, "lowest": [0.1]}),
    ],
)
def test_a_forged_table_is_refused_not_a_crash(tmp_path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    from .test_seal import forge

    folder = tabled(tmp_path / "bundle", screen=2, same=False)
    load(folder)
    forge(folder, change)
    with pytest.raises(BundleError):
        load(folder)


def test_rows_of_training_patients_travel_only_with_knn(tmp_path: Path) -> None:
    for imputation, there in (("median", False), ("knn", True)):
        facts = json.loads((tabled(tmp_path / imputation, imputation=imputation) / "bundle.json").read_text())
        assert bool(facts["members"][0]["preparations"]["labs"]["bank"]) is there
