"""Who is in the study and who is not: the flow chart, and the table of the patients.

It must not know why the audit excluded somebody beyond the words it is given, nor any model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tenfold.cohort.manifest import Cohort, Labels, is_mask, looks_like_picture
from tenfold.types import StrArray, unique

_LEVELS = 12


def flow_chart(
    cohort: Cohort, *, excluded: Mapping[str, str] | None = None, holdout: Iterable[str] = ()
) -> list[dict[str, Any]]:
    """Follow the examinations from the file to the analysis.

    Args:
        cohort: All examinations, the excluded ones among them.
        excluded: Excluded case -> the reason.
        holdout: Cases that are kept aside for one final test.

    Returns:
        Steps with "step", "cases", "patients" and "reason", in order: in the file, one exclusion a reason,
        analysed and, where there is one, hold-out and cross-validation.
    """
    excluded, aside = excluded or {}, set(holdout)
    cases = cohort.case.tolist()
    patient_of = dict(zip(cases, cohort.patient.tolist(), strict=True))

    def step(name: str, chosen: Sequence[str], reason: str = "") -> dict[str, Any]:
        patients = len({patient_of[case] for case in chosen})
        return {"step": name, "cases": len(chosen), "patients": patients, "reason": reason}

    steps = [step("in the cohort file", cases)]
    steps += [
        step("excluded", [case for case in cases if excluded.get(case) == reason], reason)
        for reason in unique(excluded.values())
    ]
    analysed = [case for case in cases if case not in excluded]
    steps.append(step("analysed", analysed))
    if aside:
        steps.append(step("hold-out", [case for case in analysed if case in aside]))
        steps.append(step("cross-validation", [case for case in analysed if case not in aside]))
    return steps


def cohort_summary(
    cohort: Cohort, labels: Labels, *, excluded: Mapping[str, str] | None = None, holdout: Iterable[str] = ()
) -> dict[str, Any]:
    """Describe the cohort: what `cohort.json` holds.

    Args:
        cohort: All examinations, the excluded ones among them.
        labels: Their outcomes.
        excluded: Excluded case -> the reason.
        holdout: Cases that are kept aside.

    Returns:
        "flow"; "table" by class; "n_cases" and "n_patients" of the analysed; "by_class"; "by_site".
    """
    excluded = excluded or {}
    kept = np.array([case not in excluded for case in cohort.case.tolist()], bool) & labels.known
    table = cohort.table.loc[kept].reset_index(drop=True)
    values = labels.values[kept]
    return {
        "flow": flow_chart(cohort, excluded=excluded, holdout=holdout),
        "table": _table(table, values, labels, cohort.image_columns),
        "n_cases": len(table),
        "n_patients": int(table["patient"].nunique()),
        "by_class": {name: _count(table.loc[values == name]) for name in labels.classes},
        "by_site": _by_site(table, values, labels.classes),
    }


def _count(table: pd.DataFrame) -> dict[str, int]:
    return {"cases": len(table), "patients": int(table["patient"].nunique())}


def _by_site(table: pd.DataFrame, values: StrArray, classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """Cases and patients of each site, and its cases of each class; no site column, no sites."""
    if "site" not in table.columns:
        return {}
    found: dict[str, dict[str, int]] = {}
    for site in sorted(table["site"].unique()):
        here = (table["site"] == site).to_numpy()
        by_class = {name: int(np.sum(here & (values == name))) for name in classes}
        found[str(site) or "not stated"] = {**_count(table.loc[here]), **by_class}
    return found


def _table(table: pd.DataFrame, values: StrArray, labels: Labels, image_columns: Sequence[str]) -> list[dict[str, str]]:
    """The patients by class; a patient's first examination in a class speaks for it."""
    first = {name: table.loc[values == name].drop_duplicates("patient") for name in labels.classes}
    rows = [
        {"variable": "patients", "level": "", **{c: str(len(part)) for c, part in first.items()}},
        {"variable": "films", "level": "", **{c: str(int(np.sum(values == c))) for c in labels.classes}},
    ]
    left_out = {"case", "patient", "date", labels.column, *image_columns}
    for column in map(str, table.columns):
        if column not in left_out and not is_mask(column):
            rows += _variable(column, first)
    return rows


def _variable(column: str, parts: Mapping[str, pd.DataFrame]) -> list[dict[str, str]]:
    """The lines of one column: median [IQR] of numbers, n (%) of each word, the missing counted."""
    cells = {name: part[column].to_numpy(dtype=np.str_) for name, part in parts.items()}
    filled = [cell for part in cells.values() for cell in part.tolist() if cell]
    levels = sorted(set(filled))
    if not filled or all(map(looks_like_picture, filled)):
        return []
    lines: list[dict[str, str]] = []
    if len(levels) > 2 and all(map(_is_number, filled)):
        lines.append({"variable": column, "level": "median [IQR]", **_each(cells, _median)})
    elif len(levels) <= _LEVELS:
        for level in levels:
            counts = {name: _share(int(np.sum(part == level)), part) for name, part in cells.items()}
            lines.append({"variable": column, "level": level, **counts})
    else:
        lines.append({"variable": column, "level": f"text, {len(levels)} different", **_each(cells, _filled)})
    if any((part == "").any() for part in cells.values()):
        counts = {name: f"{int(np.sum(part == ''))}" for name, part in cells.items()}
        lines.append({"variable": column, "level": "missing", **counts})
    return lines


def _each(cells: Mapping[str, StrArray], say: Any) -> dict[str, str]:
    return {name: say(part) for name, part in cells.items()}


def _median(part: StrArray) -> str:
    """Median [lower to upper quartile] of the filled cells."""
    known = np.array([float(cell) for cell in part.tolist() if cell])
    if not known.size:
        return "none"
    low, middle, high = (f"{q:.4g}" for q in np.quantile(known, [0.25, 0.5, 0.75]))
    return f"{middle} [{low} to {high}]"


def _share(count: int, part: StrArray) -> str:
    """Count and its share of the filled cells."""
    known = int(np.sum(part != ""))
    return f"{count} ({100 * count / known:.1f} %)" if known else str(count)


def _filled(part: StrArray) -> str:
    return f"{int(np.sum(part != ''))} filled"


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False
