"""Who is in the study and who is not: the flow chart, and the table of the patients.

It must not know why the audit excluded somebody beyond the words it is given, nor any model.
"""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tenfold.cohort.audit_tables import table_reading
from tenfold.cohort.describe import group_tests, is_number, table_by_class
from tenfold.cohort.manifest import Cohort, Labels
from tenfold.errors import CohortError, StudyError, nearest
from tenfold.modalities.table import Column
from tenfold.types import FloatArray, StrArray, unique


@dataclass(frozen=True)
class Rule:
    """One rule of who is in the study.

    Attributes:
        name: The reason, in the words of the flow chart.
        column: Column of the cohort file that `exclude`, `keep`, `low` and `high` look at.
        exclude: A case with one of these values is left out.
        keep: A case without one of these values is left out, an empty cell included.
        low: A case below is left out; one whose cell is empty stays, since nothing speaks against it.
        high: A case above is left out; likewise.
        first_by: Column of ISO dates: of the cases of a patient that are still in, only the first stays; of two on one
            day, the one that stands first in the file.
        input: A table input, for `most_missing`.
        most_missing: A case is left out where a larger share of the input's measured columns is empty.

    Raises:
        StudyError: The rule lacks a part, or rules nothing.
    """

    name: str
    column: str = ""
    exclude: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    first_by: str = ""
    input: str = ""
    most_missing: float | None = None

    def __post_init__(self) -> None:
        of_column = bool(self.exclude or self.keep) or self.low is not None or self.high is not None
        if of_column != bool(self.column):
            wants = "column = '...'" if of_column else "exclude, keep, low or high"
            raise StudyError(f"the rule '{self.name}' is not complete", expected=wants)
        if (self.most_missing is not None) != bool(self.input):
            raise StudyError(f"the rule '{self.name}' is not complete", expected="input and most_missing, both")
        if not (of_column or self.first_by or self.input):
            raise StudyError(f"the rule '{self.name}' rules nothing", expected="column, first_by or input")


def apply_rules(
    cohort: Cohort, rules: Sequence[Rule], tables: Mapping[str, Sequence[Column]] | None = None
) -> dict[str, str]:
    """Find the cases that are not eligible. Rules apply in order; a case leaves by the first that it fails.

    Args:
        cohort: All cases.
        rules: The rules.
        tables: Input name -> its columns, for rules about missing values; derived columns do not count.

    Returns:
        Case -> the name of the rule, in order of application.

    Raises:
        CohortError: A column is absent, a cell is no number or no date, a value of a rule is misspelt, or nobody is
            left.
        StudyError: A rule names an unknown input.
    """
    out: dict[str, str] = {}
    within = np.ones(len(cohort), bool)
    for rule in rules:
        leaving = within & _fails(cohort, rule, within, tables or {})
        out.update(dict.fromkeys(cohort.case[leaving].tolist(), rule.name))
        within &= ~leaving
    if not within.any():
        counts = Counter(out.values())
        said = ", ".join(f"{name} {counts[name]}" for name in unique(out.values()))
        raise CohortError(
            f"no case is eligible: {said}", do="look at the rules and their columns", where=cohort.path.name
        )
    return out


def _fails(
    cohort: Cohort, rule: Rule, within: NDArray[np.bool_], tables: Mapping[str, Sequence[Column]]
) -> NDArray[np.bool_]:
    """(n,) whether a case fails a rule; only of cases that are still in does the answer count."""
    fails = np.zeros(len(cohort), bool)
    if rule.exclude or rule.keep:
        cells = cohort.labels(rule.column)
        _check_values(cohort, rule, cells)
        fails |= np.isin(cells, rule.exclude) if rule.exclude else False
        fails |= ~np.isin(cells, rule.keep) if rule.keep else False
    if rule.low is not None or rule.high is not None:
        numbers = _numbers(cohort, rule, within)
        fails |= numbers < (-math.inf if rule.low is None else rule.low)
        fails |= numbers > (math.inf if rule.high is None else rule.high)
    if rule.first_by:
        fails |= _later(cohort, rule, within & ~fails)
    if rule.input and rule.most_missing is not None:
        fails |= _missing_share(cohort, rule, within, tables) > rule.most_missing
    return fails


def _check_values(cohort: Cohort, rule: Rule, cells: StrArray) -> None:
    """Refuse a value that nobody has but that is nearly one somebody has: a slip would let patients through."""
    there = set(cells.tolist()) - {""}
    for value in (*rule.exclude, *rule.keep):
        close = difflib.get_close_matches(value.casefold(), [word.casefold() for word in there], n=1, cutoff=0.85)
        if value not in there and close:
            raise CohortError(
                f"the rule '{rule.name}' names '{value}', which no case has",
                do=nearest(next(word for word in there if word.casefold() == close[0]), there),
                where=f"{cohort.path.name}, column {rule.column}",
            )


def _numbers(cohort: Cohort, rule: Rule, within: NDArray[np.bool_]) -> FloatArray:
    """(n,) figures of the rule's column, NaN where empty or where the case is out already."""
    numbers = np.full(len(cohort), np.nan)
    cells = cohort.labels(rule.column).tolist()
    for i in np.flatnonzero(within).tolist():
        if cells[i]:
            if not is_number(cells[i]):
                raise CohortError(
                    f"'{cells[i]}' is not a number",
                    expected=f"a number or an empty cell, for the rule '{rule.name}'",
                    where=cohort.place(i, rule.column),
                )
            numbers[i] = float(cells[i])
    return numbers


def _later(cohort: Cohort, rule: Rule, within: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(n,) true for all but the first case of each patient."""
    first: dict[str, tuple[datetime, int]] = {}
    several = Counter(cohort.patient[within].tolist())
    cells, patients = cohort.labels(rule.first_by).tolist(), cohort.patient.tolist()
    for i in np.flatnonzero(within).tolist():
        if several[patients[i]] > 1:
            try:
                date = datetime.fromisoformat(cells[i]).replace(tzinfo=None)
            except ValueError as error:
                raise CohortError(
                    f"'{cells[i]}' is not a date, and the patient has {several[patients[i]]} cases",
                    expected="YYYY-MM-DD: without it nobody knows which is the first",
                    where=cohort.place(i, rule.first_by),
                ) from error
            first[patients[i]] = min(first.get(patients[i], (date, i)), (date, i))
    stays = {i for _, i in first.values()}
    return np.array([several[patient] > 1 and i not in stays for i, patient in enumerate(patients)])


def _missing_share(
    cohort: Cohort, rule: Rule, within: NDArray[np.bool_], tables: Mapping[str, Sequence[Column]]
) -> FloatArray:
    """(n,) share of an input's measured columns that are empty, 0 where the case is out already."""
    if rule.input not in tables:
        raise StudyError(
            f"the rule '{rule.name}' names an unknown table '{rule.input}'", do=nearest(rule.input, tables)
        )
    measured = [column for column in tables[rule.input] if not column.formula]
    share = np.zeros(len(cohort))
    reading = table_reading(cohort.select(cohort.case[within].tolist()), measured)
    share[within] = np.isnan(reading.values).mean(axis=1)
    return share


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
    cohort: Cohort,
    labels: Labels,
    *,
    excluded: Mapping[str, str] | None = None,
    holdout: Iterable[str] = (),
    variables: Sequence[Column] = (),
) -> dict[str, Any]:
    """Describe the cohort: what `cohort.json` holds.

    Args:
        cohort: All examinations, the excluded ones among them.
        labels: Their outcomes.
        excluded: Excluded case -> the reason.
        holdout: Cases that are kept aside.
        variables: Columns that are described by their dictionary: with label and unit, figures in that unit, derived
            ones computed; and tested between the classes.

    Returns:
        "flow"; "table" by class (Table 1); "tests" of the variables between the classes, descriptive (Table 2);
        "n_cases" and "n_patients" of the analysed; "by_class"; "by_site".
    """
    excluded = excluded or {}
    kept = np.array([case not in excluded for case in cohort.case.tolist()], bool) & labels.known
    table = cohort.table.loc[kept].reset_index(drop=True)
    values = labels.values[kept]
    analysed, outcome = cohort.select(cohort.case[kept].tolist()), replace(labels, values=values)
    return {
        "flow": flow_chart(cohort, excluded=excluded, holdout=holdout),
        "table": table_by_class(analysed, outcome, variables),
        "tests": group_tests(analysed, outcome, variables),
        "n_cases": len(table),
        "n_patients": int(table["patient"].nunique()),
        "by_class": {name: _count(table.loc[values == name]) for name in labels.classes},
        "by_site": _by_site(table, values, labels.classes),
    }


def summary_of_targets(
    cohort: Cohort,
    labels: Mapping[str, Labels],
    *,
    excluded: Mapping[str, str] | None = None,
    holdout: Iterable[str] = (),
    variables: Sequence[Column] = (),
) -> dict[str, Any]:
    """Describe a cohort whose outcomes are several: `cohort_summary` of the first, and what differs in the others.

    Returns:
        What `cohort_summary` returns, and where there are several targets "outcomes": by target the same without the
        flow chart, over the cases whose outcome of that target is known.
    """
    described = {
        name: cohort_summary(cohort, own, excluded=excluded, holdout=holdout, variables=variables)
        for name, own in labels.items()
    }
    first = next(iter(described.values()))
    if len(described) == 1:
        return first
    others = {name: {k: v for k, v in found.items() if k != "flow"} for name, found in described.items()}
    return {**first, "outcomes": others}


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
