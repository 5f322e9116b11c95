"""Tables: strict cells, findings, and a preparation that only training rows may shape."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.impute import KNNImputer

from tenfold.errors import BundleError, CohortError, StudyError
from tenfold.modalities import MODALITIES
from tenfold.modalities.columns import Column
from tenfold.modalities.table import TablePreparation, TableReading, check_values, read_table

CRP = Column("crp", unit="mg/L", loinc="1988-5", low=0, high=500)
SEX = Column("sex", kind="category", levels=("female", "male", "other"))
BELL = Column("bell", kind="ordered", levels=("I", "II", "III"))
FEVER = Column("fever", kind="yes_no")
GLUCOSE = Column("glucose", unit="mmol/L", loinc="15074-8")
COLUMNS = (CRP, SEX, BELL, FEVER)
NAN = np.nan


def place(i: int, column: str) -> str:
    return f"cohort.csv, row {i + 2}, patient P{i}, column {column}"


def reading_of(values: Any, columns: tuple[Column, ...] | None = None) -> TableReading:
    values = np.asarray(values, np.float64)
    return TableReading(columns or tuple(Column(f"x{j}") for j in range(values.shape[1])), values)


def cohort(n: int = 40, seed: int = 0) -> TableReading:
    """Mixed columns with a fifth of the cells missing."""
    rng = np.random.default_rng(seed)
    values = np.stack(
        [rng.lognormal(2, 1, n), rng.integers(0, 3, n), rng.integers(0, 3, n), rng.integers(0, 2, n)], axis=1
    ).astype(float)
    values[rng.random(values.shape) < 0.2] = NAN
    return TableReading((replace(CRP, transform="log"), *COLUMNS[1:]), values)


# --- reading -----------------------------------------------------------------------------------------------


def test_cells_become_figures_and_levels() -> None:
    cells = {
        "bell": ["II", ""],
        "fever": ["yes", "no"],
        "crp": [" 1.5e1 ", ""],
        "sex": ["male", "female"],
        "x": ["?", "?"],
    }
    reading = read_table(COLUMNS, cells)
    np.testing.assert_array_equal(reading.values, [[15, 1, 1, 1], [NAN, 0, NAN, 0]])
    assert reading.columns == COLUMNS
    assert len(reading) == 2


@pytest.mark.parametrize(
    ("column", "cell", "says"),
    [
        (CRP, "high", "a number in mg/L"),
        (CRP, "1,5", "decimal point: 1.5"),
        (CRP, "1,500", "nothing marks thousands"),
        (CRP, "<0.5", "limit of detection"),
        (CRP, "NA", "leave the cell empty"),
        (CRP, "nan", "leave the cell empty"),
        (CRP, "inf", "not a number"),
        (CRP, "1e999", "too large"),
        (CRP, "1_000", "not a number"),
        (CRP, "١٢", "not a number"),
        (CRP, "2024-01-02", "not a number"),
        (CRP, "12 34", "not a number"),
        (CRP, "12 mmol/L", "cannot be turned into mg/L"),
        (CRP, "12 mg/dL mg", "not a number"),
        (replace(CRP, transform="log"), "0", "above 0"),
        (SEX, "Male", "did you mean 'male'"),
        (SEX, "not available", "leave the cell empty"),
        (SEX, "x", "female, male, other"),
        (FEVER, "1", "no, yes"),
        (BELL, "IIB", "no level of bell"),
    ],
)
def test_a_cell_that_is_not_what_its_column_says_is_refused_by_its_place(column: Column, cell: str, says: str) -> None:
    good = column.levels[0] if column.levels else "1"
    with pytest.raises(CohortError, match=says) as refused:
        read_table((column,), {column.name: [good, "", cell]}, place=place)
    assert refused.value.where == f"cohort.csv, row 4, patient P2, column {column.name}"


def test_a_level_may_be_a_word_that_elsewhere_means_missing() -> None:
    halo = Column("halo", kind="category", levels=("no", "yes", "not available"))
    assert read_table((halo,), {"halo": ["not available"]}).values == 2


@pytest.mark.parametrize(
    ("cells", "units"),
    [
        ({"crp": ["1.2", "", "3"]}, {"crp": "mg/dL"}),
        ({"crp [mg/dl]": ["1.2", "", "3"]}, {}),
        ({"crp": ["1.2", "", "30"], "crp_unit": ["mg/dL", "", "mg/L"]}, {}),
        ({"crp": ["1.2 mg/dL", "", "30mg/L"]}, {}),
        ({"crp": ["1.2mg/dL", "", "3"]}, {"crp": "mg/dL"}),
    ],
)
def test_another_unit_is_converted_wherever_it_is_stated(cells: dict[str, list[str]], units: dict[str, str]) -> None:
    np.testing.assert_allclose(read_table((CRP,), cells, units=units).values[:, 0], [12, NAN, 30])


def test_mass_becomes_moles_by_the_code_of_the_column() -> None:
    assert read_table((GLUCOSE,), {"glucose [mg/dL]": ["90.078"]}).values == pytest.approx(5.0)


def test_two_units_for_one_cell_are_refused() -> None:
    with pytest.raises(CohortError, match="mg/L and mg/dL") as refused:
        read_table((CRP,), {"crp": ["1", "1 mg/L"]}, units={"crp": "mg/dL"}, place=place)
    assert refused.value.where == "cohort.csv, row 3, patient P1, column crp"


def test_a_unit_column_that_is_an_input_itself_states_no_unit() -> None:
    beside = Column("crp_unit", kind="category", levels=("A", "B"))
    np.testing.assert_array_equal(read_table((CRP, beside), {"crp": ["1"], "crp_unit": ["B"]}).values, [[1, 1]])


def test_an_absent_column_is_named() -> None:
    with pytest.raises(CohortError, match=r"no column 'crp'.*\n.*\n.*did you mean 'crq'"):
        read_table((CRP,), {"crq": ["1"]})


def test_a_column_that_stands_there_twice_is_refused() -> None:
    with pytest.raises(CohortError, match="2 times"):
        read_table((CRP,), {"crp": ["1"], "crp [mg/dL]": ["1"]})


def test_derived_columns_are_computed_and_missing_where_a_part_is() -> None:
    parts = (Column("a"), Column("b"))
    derived = tuple(Column(f"r{i}", formula=f"a {sign} b") for i, sign in enumerate("/*-+"))
    reading = read_table(
        (derived[0], *parts, *derived[1:]), {"a": ["6", "6", "", "0"], "b": ["2", "0", "2", "4"], "r0": ["9"] * 4}
    )
    expected = [[3, 6, 2, 12, 4, 8], [NAN, 6, 0, 0, 6, 6], [NAN, NAN, 2, NAN, NAN, NAN], [0, 0, 4, 0, -4, 4]]
    np.testing.assert_array_equal(reading.values, expected)


def test_a_derived_figure_without_a_logarithm_is_missing() -> None:
    columns = (Column("a"), Column("b"), Column("r", formula="a / b", transform="log"))
    assert np.isnan(read_table(columns, {"a": ["0"], "b": ["4"]}).values[0, 2])
    assert np.isnan(read_table(columns, {"a": ["1"], "b": ["1e-300"]}).values[0, 2])


# --- findings ----------------------------------------------------------------------------------------------


def test_findings_name_what_is_odd_and_where() -> None:
    columns = (CRP, Column("same"), Column("none"), Column("rare"), SEX)
    values = [[1, 2, NAN, NAN, 0], [900, 2, NAN, 1, 0], [-1, 2, NAN, NAN, NAN], [5, 2, NAN, NAN, 0], [5, 2, NAN, 3, 0]]
    found = check_values(reading_of(values, columns), place)
    assert [(f.severity, f.check, f.column) for f in found] == [
        ("warning", "implausible", "crp"),
        ("warning", "constant", "same"),
        ("refusal", "all_missing", "none"),
        ("note", "half_missing", "rare"),
        ("warning", "constant", "sex"),
    ]
    assert "row 3, patient P1, column crp: 900; cohort.csv, row 4, patient P2, column crp: -1." in found[0].message
    assert "2 of 5" in found[0].message
    assert "unit" not in found[0].message
    assert "female" in found[4].message
    assert found[3].value == pytest.approx(0.6)


def test_most_values_beyond_the_limits_suggest_a_wrong_unit() -> None:
    found = check_values(reading_of([[900.0], [800], [3]], (CRP,)))
    assert "wrong unit" in found[0].message


def test_values_in_order_give_no_finding() -> None:
    assert check_values(reading_of([[0.0], [500]], (CRP,))) == []


# --- preparation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("imputation", ["median", "knn"])
@pytest.mark.parametrize("screen", [0, 2])
def test_a_test_row_never_shapes_the_preparation(imputation: Any, screen: int) -> None:
    rng = np.random.default_rng(3)
    reading, labels, train = cohort(), rng.integers(0, 2, 40), rng.permutation(40) < 25
    fitted = TablePreparation.fit(reading, train, imputation=imputation, screen=screen, labels=labels)
    altered, other = reading.values.copy(), labels.copy()
    altered[~train] = [[1e6, 2, 2, 1]] * 15
    other[~train] = 1 - other[~train]
    again = TablePreparation.fit(
        TableReading(reading.columns, altered), train, imputation=imputation, screen=screen, labels=other
    )
    assert again.state() == fitted.state()
    index = TablePreparation.fit(reading, np.flatnonzero(train), imputation=imputation, screen=screen, labels=labels)
    assert index.state() == fitted.state()


@pytest.mark.parametrize("imputation", ["median", "knn"])
def test_a_row_is_prepared_the_same_alone_and_after_a_round_trip(imputation: Any) -> None:
    reading = cohort()
    fitted = TablePreparation.fit(reading, np.arange(30), imputation=imputation, neighbours=3)
    whole = fitted.apply(reading.values)
    alone = np.concatenate([fitted.apply(row[None]) for row in reading.values])
    back = TablePreparation.from_state(json.loads(json.dumps(fitted.state())))
    assert whole.tobytes() == alone.tobytes() == back.apply(reading.values).tobytes()
    assert back.state() == fitted.state()
    assert (back.columns, back.features, back.notes) == (fitted.columns, fitted.features, fitted.notes)
    assert back.baseline().tobytes() == fitted.baseline().tobytes()


def test_features_and_channels_by_hand() -> None:
    values = [[1, 0, 0, 0], [3, 1, 2, 1], [NAN, 1, NAN, 1], [5, NAN, 1, NAN], [11, 2, 0, 0]]
    fitted = TablePreparation.fit(reading_of(values, COLUMNS), range(4))
    assert fitted.features == ("crp", "sex=female", "sex=male", "sex=other", "bell", "fever")
    assert fitted.column_of == (0, 1, 1, 1, 2, 3)
    prepared, spread = fitted.apply(np.array(values)), np.sqrt(8 / 3)
    assert (prepared.shape, prepared.dtype) == ((5, 2, 6), np.float32)
    np.testing.assert_allclose(prepared[0, 0], [-2 / spread, 1, 0, 0, -1 / np.sqrt(2 / 3), 0], rtol=1e-6)
    np.testing.assert_allclose(prepared[2], [[0, 0, 1, 0, 0, 1], [0, 1, 1, 1, 0, 1]], atol=1e-7)
    # a level that no training row held counts as not observed, here filled with the most frequent
    np.testing.assert_allclose(prepared[4, :, 1:4], [[0, 1, 0], [0, 0, 0]])
    assert prepared[4, 0, 0] == pytest.approx(8 / spread)
    np.testing.assert_allclose(fitted.baseline(), [[0, 0, 1, 0, 0, 1], [1] * 6], atol=1e-7)
    raw = fitted.raw(np.array(values))
    assert raw.dtype == np.float64
    np.testing.assert_array_equal(np.isnan(raw), prepared[:, 1] == 0)


def test_a_logarithm_is_taken_before_scaling() -> None:
    fitted = TablePreparation.fit(reading_of(np.exp([[1.0], [3.0]]), (Column("x", transform="log"),)), [0, 1])
    np.testing.assert_allclose(fitted.apply(np.exp([[2.0], [5.0]]))[:, 0, 0], [0, 3], atol=1e-6)


@pytest.mark.parametrize("imputation", ["median", "knn"])
def test_a_row_without_any_value_is_absent(imputation: Any) -> None:
    fitted = TablePreparation.fit(cohort(), range(40), imputation=imputation)
    prepared = fitted.apply(np.array([[NAN] * 4, [NAN, NAN, NAN, 1]]))
    assert np.isnan(prepared[0]).all()
    assert np.isfinite(prepared[1]).all()
    assert prepared[1, 1].tolist() == [0, 0, 0, 0, 0, 1]


def test_nearest_rows_fill_as_another_implementation_does() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(60, 6)) @ rng.normal(size=(6, 6))
    values[rng.random(values.shape) < 0.25] = NAN
    fitted = TablePreparation.fit(reading_of(values), range(40), imputation="knn", neighbours=4)
    scaled = fitted.raw(values)
    expected = KNNImputer(n_neighbors=4).fit(scaled[:40]).transform(scaled)
    np.testing.assert_allclose(fitted.apply(values)[:, 0], expected, atol=1e-6)


def test_nearest_rows_without_an_answer_leave_the_median() -> None:
    values = [[1, NAN], [2, NAN], [NAN, 4], [NAN, 8]]
    fitted = TablePreparation.fit(reading_of(values), range(4), imputation="knn")
    np.testing.assert_allclose(fitted.apply(np.array(values))[:2, 0, 1], 0, atol=1e-7)


def test_constant_and_empty_columns_stay_and_are_named() -> None:
    values = [[0.1, NAN, 0, 1], [0.1, NAN, 0, 2], [0.1, NAN, 0, 3], [0.6, 900, 1, 4]]
    columns = (Column("flat"), Column("empty"), FEVER, Column("fine"))
    fitted = TablePreparation.fit(reading_of(values, columns), range(3))
    assert fitted.features == ("flat", "empty", "fever", "fine")
    assert [note.split(":")[0] for note in fitted.notes] == ["flat", "empty", "fever"]
    prepared = fitted.apply(np.array(values))
    assert prepared[0, 0].tolist()[:3] == [0, 0, 0]
    assert prepared[3, 0, 0] == pytest.approx(0.5)
    # what no training row could teach is not passed on
    assert prepared[3].tolist()[0][1:3] == [0, 0]
    assert prepared[3].tolist()[1] == [1, 0, 0, 1]


def test_every_fold_has_the_same_features() -> None:
    reading = cohort()
    one, other = (TablePreparation.fit(reading, rows) for rows in ([0, 1, 2], range(20, 40)))
    assert one.features == other.features


def test_screening_keeps_the_columns_with_the_smallest_p() -> None:
    rng = np.random.default_rng(5)
    labels = np.array(["ill" if i % 3 else "well" for i in range(90)])
    ill = (labels == "ill").astype(float)
    values = np.stack([rng.normal(size=90), rng.normal(size=90) + 2 * ill, rng.integers(0, 2, 90), ill], axis=1)
    columns = (Column("noise"), Column("strong"), FEVER, replace(FEVER, name="answer"))
    fitted = TablePreparation.fit(reading_of(values, columns), range(90), screen=2, labels=labels)
    assert [c.name for c in fitted.columns] == ["strong", "answer"]
    assert fitted.column_of == (0, 1)
    assert fitted.apply(values).shape == (90, 2, 2)
    assert "noise, fever" in fitted.notes[0]
    # the columns that only its dropped half knew count for nothing: the table is absent
    assert np.isnan(fitted.apply(np.array([[1, NAN, 1, NAN]]))).all()


def test_the_figures_of_screening_are_those_of_the_textbook() -> None:
    from tenfold.modalities.table_screening import univariate_p

    rng = np.random.default_rng(2)
    classes, x, level = rng.integers(0, 2, 50), rng.normal(size=50), rng.integers(0, 3, 50).astype(float)
    x[:5] = NAN
    seen = ~np.isnan(x)
    ranks = stats.rankdata(x[seen])
    n1, n0 = (classes[seen] == 1).sum(), (classes[seen] == 0).sum()
    u = ranks[classes[seen] == 1].sum() - n1 * (n1 + 1) / 2
    z = (abs(u - n1 * n0 / 2) - 0.5) / np.sqrt(n1 * n0 * (n1 + n0 + 1) / 12)
    assert univariate_p(Column("x"), x, classes) == pytest.approx(2 * stats.norm.sf(z))
    observed = np.array([[np.sum((classes == c) & (level == v)) for v in range(3)] for c in range(2)])
    expected = np.outer(observed.sum(1), observed.sum(0)) / 50
    chi2 = ((observed - expected) ** 2 / expected).sum()
    assert univariate_p(SEX, level, classes) == pytest.approx(np.exp(-chi2 / 2))  # two degrees of freedom
    assert univariate_p(Column("x"), np.ones(50), classes) == 1.0


def test_rows_of_unknown_outcome_take_no_part_in_screening() -> None:
    reading, labels = reading_of([[0.0, 5], [1, 5], [0, 6], [1, 6], [9, 9]]), ["a", "b", "a", "b", ""]
    fitted = TablePreparation.fit(reading, range(5), screen=1, labels=labels)
    assert [c.name for c in fitted.columns] == ["x0"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"imputation": "medain"}, "did you mean 'median'"),
        ({"neighbours": 0}, "neighbours = 0"),
        ({"screen": -1}, "screen = -1"),
        ({"screen": 1}, "without labels"),
        ({"screen": 1, "labels": ["a"] * 40}, "fewer than two classes"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(StudyError, match=says):
        TablePreparation.fit(cohort(), range(40), **settings)


def test_no_training_rows_or_a_table_of_another_width_are_refused() -> None:
    with pytest.raises(CohortError, match="no training rows"):
        TablePreparation.fit(cohort(), [])
    with pytest.raises(CohortError, match="crp, sex, bell, fever"):
        TablePreparation.fit(cohort(), range(40)).apply(np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"colour": 1}, "unknown key 'colour'"),
        ({"mean": None}, "impossible"),
        ({"mean": [0.0]}, "one finite number a feature"),
        ({"scale": [0.0] * 6}, "above 0"),
        ({"scale": [float("nan")] * 6}, "finite"),
        ({"kept": [0, 9, 2, 3]}, "keeps"),
        ({"kept": []}, "keeps"),
        ({"known": [[True]] * 4}, "levels"),
        ({"imputation": "mean"}, "unknown imputation"),
        ({"raw_columns": [{"name": "x"}]}, "impossible"),
    ],
)
def test_a_foreign_state_is_refused(change: dict[str, Any], says: str) -> None:
    state = TablePreparation.fit(cohort(), range(40)).state()
    with pytest.raises(BundleError, match=says):
        TablePreparation.from_state(state | change)


def test_a_state_that_lacks_a_part_is_refused() -> None:
    state = TablePreparation.fit(cohort(), range(40)).state()
    del state["fill"]
    with pytest.raises(BundleError, match="lacks fill"):
        TablePreparation.from_state(state)


def test_the_table_is_a_modality() -> None:
    assert MODALITIES["table"] is TablePreparation
