"""Conversions against figures worked out by hand or printed on every ward."""

from __future__ import annotations

import pytest

from tenfold.errors import CohortError
from tenfold.modalities.units import MOLAR_MASS, conversion, ucum


@pytest.mark.parametrize(
    ("figure", "source", "result", "target"),
    [
        (1.2, "mg/dL", 12.0, "mg/L"),  # CRP
        (12.0, "mg/L", 0.012, "g/L"),
        (140.0, "g/L", 14.0, "g/dL"),  # haemoglobin
        (0.5, "ng/mL", 0.5, "ug/L"),  # procalcitonin
        (370.0, "pg/mL", 370.0, "ng/L"),  # interleukin 6
        (6.5, "10*3/uL", 6.5, "10*9/L"),  # leucocytes
        (6500.0, "/uL", 6.5, "10*9/L"),
        (42.0, "%", 0.42, "1"),  # haematocrit
        (0.42, "L/L", 42.0, "%"),
        (40.0, "mm[Hg]", 5.33288, "kPa"),  # pCO2
        (1.5, "U/mL", 1500.0, "U/L"),
        (1.25, "kg", 1250.0, "g"),
        (29.0, "wk", 203.0, "d"),
        (1.5, "a", 18.0, "mo"),
    ],
)
def test_a_figure_is_converted_both_ways(figure: float, source: str, result: float, target: str) -> None:
    assert figure * conversion(source, target) == pytest.approx(result, rel=1e-12)
    assert result * conversion(target, source) == pytest.approx(figure, rel=1e-12)


@pytest.mark.parametrize(
    ("loinc", "figure", "source", "result", "target"),
    [
        ("2339-0", 99.1, "mg/dL", 5.50, "mmol/L"),  # glucose
        ("2160-0", 1.0, "mg/dL", 88.4, "umol/L"),  # creatinine
        ("1975-2", 1.0, "mg/dL", 17.1, "umol/L"),  # bilirubin
        ("22664-7", 6.0, "mg/dL", 1.0, "mmol/L"),  # urea
        ("3094-0", 14.0, "mg/dL", 5.0, "mmol/L"),  # the same urea, weighed as nitrogen
        ("2000-8", 10.0, "mg/dL", 2.495, "mmol/L"),  # calcium
        ("2524-7", 9.0, "mg/dL", 1.0, "mmol/L"),  # lactate
    ],
)
def test_mass_becomes_moles_for_a_named_analyte(
    loinc: str, figure: float, source: str, result: float, target: str
) -> None:
    assert figure * conversion(source, target, loinc=loinc) == pytest.approx(result, rel=2e-3)
    assert result * conversion(target, source, loinc=loinc) == pytest.approx(figure, rel=2e-3)


@pytest.mark.parametrize(
    ("came", "meant"),
    [
        ("10^9/L", "10*9/L"),
        ("x10^9/L", "10*9/L"),
        ("× 10^9 / L", "10*9/L"),
        ("G/L", "10*9/L"),
        ("K/µL", "10*3/uL"),
        ("mg/dl", "mg/dL"),
        ("μmol/l", "umol/L"),
        ("mcg/mL", "ug/mL"),
        ("10^3/mm3", "10*3/uL"),
        ("mmHg", "mm[Hg]"),
        (" mg/L ", "mg/L"),
        ("furlong", "furlong"),
    ],
)
def test_everyday_spellings(came: str, meant: str) -> None:
    assert ucum(came) == meant


def test_an_unknown_unit_is_left_alone_but_never_converted() -> None:
    assert conversion("furlong", "furlong") == 1.0
    with pytest.raises(CohortError, match="'furlong' cannot be turned into m"):
        conversion("furlong", "m")


@pytest.mark.parametrize(
    ("source", "target", "loinc"),
    [
        ("mg/dL", "mmol/L", "1988-5"),  # CRP has no molar mass in the table
        ("mg/L", "mm[Hg]", ""),
        ("U/L", "g/L", ""),
        ("mo", "d", ""),  # months differ
        ("MG/DL", "mg/dL", ""),  # MG is a megagram
        ("10*9/L", "mmol/L", "2339-0"),
    ],
)
def test_what_no_table_says_is_refused_with_its_place(source: str, target: str, loinc: str) -> None:
    with pytest.raises(CohortError) as refused:
        conversion(source, target, loinc=loinc, where="cohort.csv, row 3, patient P2, column x")
    assert refused.value.where == "cohort.csv, row 3, patient P2, column x"


def test_without_a_loinc_code_the_refusal_asks_for_it() -> None:
    with pytest.raises(CohortError, match="LOINC") as refused:
        conversion("mg/dL", "mmol/L")
    assert "analyte" in refused.value.do


def test_a_column_without_a_unit_takes_none() -> None:
    with pytest.raises(CohortError, match="column dictionary"):
        conversion("mg/L", "")


def test_the_codes_of_the_table_have_true_check_digits() -> None:
    from tenfold.modalities.columns import Column

    for code in MOLAR_MASS:
        assert Column("x", loinc=code).loinc == code
