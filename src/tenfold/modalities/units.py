"""Units of measurement: how they are spelt (UCUM), and by what factor one becomes another.

It must not guess: what stands in no table here is refused. It knows nothing of patients, columns or files.

Spelling follows the case-sensitive form of UCUM (https://ucum.org): "mg/L", "10*9/L", "mm[Hg]", "1" for ratios.
"""

from __future__ import annotations

import re
from fractions import Fraction

from tenfold.errors import CohortError


def _ten(power: int) -> Fraction:
    return Fraction(10) ** power


_MASS = {"kg": _ten(3), "g": _ten(0), "mg": _ten(-3), "ug": _ten(-6), "ng": _ten(-9), "pg": _ten(-12)}
_SUBSTANCE = {"mol": _ten(0), "mmol": _ten(-3), "umol": _ten(-6), "nmol": _ten(-9), "pmol": _ten(-12)}
_COUNT = {"10*12": _ten(12), "10*9": _ten(9), "10*6": _ten(6), "10*3": _ten(3), "": _ten(0)}
_ENZYME = {"kU": _ten(3), "U": _ten(0), "mU": _ten(-3)}
_VOLUME = {"L": _ten(0), "dL": _ten(-1), "mL": _ten(-3), "uL": _ten(-6)}

_MASS_CONCENTRATION, _SUBSTANCE_CONCENTRATION = "mass concentration", "substance concentration"
_PER_VOLUME = {
    _MASS_CONCENTRATION: _MASS,
    _SUBSTANCE_CONCENTRATION: _SUBSTANCE,
    "number concentration": _COUNT,
    "catalytic concentration": _ENZYME,
}
_SIMPLE: dict[str, dict[str, Fraction]] = {
    "mass": _MASS,
    "length": {"m": _ten(0), "cm": _ten(-2), "mm": _ten(-3)},
    "fraction": {"1": _ten(0), "L/L": _ten(0), "%": _ten(-2)},
    "pressure": {"Pa": _ten(0), "kPa": _ten(3), "mm[Hg]": Fraction("133.322")},
    # Months and years have no fixed number of days, so the two groups stay apart.
    "time in days": {"wk": Fraction(7), "d": Fraction(1), "h": Fraction(1, 24), "min": Fraction(1, 1440)},
    "time in months": {"a": Fraction(12), "mo": Fraction(1)},
}

UNITS: dict[str, tuple[str, Fraction]] = {
    f"{top}/{bottom}": (quantity, size / volume)
    for quantity, tops in _PER_VOLUME.items()
    for top, size in tops.items()
    for bottom, volume in _VOLUME.items()
} | {unit: (quantity, size) for quantity, units in _SIMPLE.items() for unit, size in units.items()}
"""Unit -> (what it measures, its size in the coherent unit of that quantity)."""

_GLUCOSE = ("glucose", Fraction("180.156"))
_CREATININE = ("creatinine", Fraction("113.12"))
_BILIRUBIN = ("bilirubin", Fraction("584.66"))
_UREA = ("urea", Fraction("60.056"))
_UREA_NITROGEN = ("urea, weighed as its nitrogen", Fraction("28.014"))
_CALCIUM = ("calcium", Fraction("40.078"))
_LACTATE = ("lactate, weighed as lactic acid", Fraction("90.08"))

MOLAR_MASS: dict[str, tuple[str, Fraction]] = {
    "2339-0": _GLUCOSE,  # mass, blood
    "15074-8": _GLUCOSE,  # moles, blood
    "2345-7": _GLUCOSE,  # mass, serum or plasma
    "14749-6": _GLUCOSE,  # moles, serum or plasma
    "2160-0": _CREATININE,  # mass, serum or plasma
    "14682-9": _CREATININE,  # moles, serum or plasma
    "38483-4": _CREATININE,  # mass, blood
    "59826-8": _CREATININE,  # moles, blood
    "1975-2": _BILIRUBIN,  # total, mass, serum or plasma
    "14631-6": _BILIRUBIN,  # total, moles, serum or plasma
    "1968-7": _BILIRUBIN,  # direct, mass, serum or plasma
    "14629-0": _BILIRUBIN,  # direct, moles, serum or plasma
    "3091-6": _UREA,  # mass, serum or plasma
    "22664-7": _UREA,  # moles, serum or plasma
    "3094-0": _UREA_NITROGEN,  # mass, serum or plasma: what American laboratories call BUN
    "17861-6": _CALCIUM,  # mass, serum or plasma
    "2000-8": _CALCIUM,  # moles, serum or plasma
    "2524-7": _LACTATE,  # moles, serum or plasma
    "14118-4": _LACTATE,  # mass, serum or plasma
    "32693-4": _LACTATE,  # moles, blood
    "59032-3": _LACTATE,  # mass, blood
    "2518-9": _LACTATE,  # moles, arterial blood
}
"""LOINC -> (analyte, g/mol): the only analytes whose mass is turned into moles or back."""

_SPELLINGS = {
    "mmHg": "mm[Hg]",
    "mm Hg": "mm[Hg]",
    "G/L": "10*9/L",
    "T/L": "10*12/L",
    "K/uL": "10*3/uL",
    "M/uL": "10*6/uL",
    "cells/uL": "/uL",
    "1/uL": "/uL",
    "ratio": "1",
    "percent": "%",
    "weeks": "wk",
    "days": "d",
    "months": "mo",
    "years": "a",
}


def ucum(text: str) -> str:
    """Return the UCUM spelling of a unit; a spelling that is in no table is returned as it came.

    Known are the micro sign and "mcg" for "u", a small "l" for litre, "mm3" for microlitre, "10^9" or "x10^9"
    for "10*9", and the everyday words for a few units ("mmHg", "G/L", "K/uL", "years").
    """
    unit = text.strip().replace("µ", "u").replace("μ", "u").replace("mcg", "ug")
    unit = re.sub(r"^[x×]?\s*10[\^*](\d+)\s*/\s*", r"10*\1/", unit)
    unit = re.sub(r"/([dmu]?)l$", r"/\1L", unit).replace("/mm3", "/uL").replace("/mm^3", "/uL")
    return _SPELLINGS.get(unit, unit)


def conversion(source: str, target: str, *, loinc: str = "", where: str = "") -> float:
    """Return the factor that turns a figure in one unit into a figure in another.

    Mass and substance concentration are turned into each other only for the analytes in `MOLAR_MASS`.

    Args:
        source: The unit the figure is in.
        target: The unit that is wanted.
        loinc: LOINC code of the analyte; needed between mass and moles.
        where: Place for the refusal.

    Raises:
        CohortError: No table says how; nothing is guessed.
    """
    came, wanted = ucum(source), ucum(target)
    if came == wanted:
        return 1.0
    if came in UNITS and wanted in UNITS:
        (quantity, size), (other, unit) = UNITS[came], UNITS[wanted]
        if quantity == other:
            return float(size / unit)
        if loinc in MOLAR_MASS:
            mass = MOLAR_MASS[loinc][1]
            if (quantity, other) == (_MASS_CONCENTRATION, _SUBSTANCE_CONCENTRATION):
                return float(size / mass / unit)
            if (quantity, other) == (_SUBSTANCE_CONCENTRATION, _MASS_CONCENTRATION):
                return float(size * mass / unit)
    raise CohortError(
        f"the unit '{source}' cannot be turned into {target or '(no unit)'}",
        expected=target or "no unit, because the column dictionary names none",
        do=_advice(came, wanted, loinc),
        where=where,
    )


def _advice(came: str, wanted: str, loinc: str) -> str:
    """Say what a person can do about two units that do not meet."""
    if not wanted:
        return "write the unit of this column in the column dictionary"
    both = {UNITS[unit][0] for unit in (came, wanted) if unit in UNITS}
    if both == {_MASS_CONCENTRATION, _SUBSTANCE_CONCENTRATION} and not loinc:
        return "give the column its LOINC code: between mass and moles the analyte must be known"
    return "convert the figures yourself and state the unit they are in then"
