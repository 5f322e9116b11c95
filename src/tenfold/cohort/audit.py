"""The audit: what must be mended, and what must be known, before anything is fitted.

It must not know networks or folds: it looks at the cohort's file, its tables and its pictures, and changes none.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import chi2_contingency, fisher_exact

from tenfold.cohort.audit_pictures import (
    Readable,
    duplicates_of,
    facts_table,
    in_study,
    look_at_all,
    small_pictures,
    unfit_pictures,
)
from tenfold.cohort.audit_tables import (
    TELLTALE_AUC,
    Tables,
    empty_rows,
    odd_values,
    read_tables,
    restating_elsewhere,
    telling_columns,
    telling_gaps,
)
from tenfold.cohort.facts import Masked, Progress
from tenfold.cohort.findings import about, one_line
from tenfold.cohort.manifest import Cohort, Labels
from tenfold.cohort.outcomes import Kind, Target, outcome_for
from tenfold.cohort.split import patients_needed, too_few
from tenfold.cohort.without_looking import (
    Fact,
    blind_auc,
    date_fact,
    picture_facts,
    varying,
)
from tenfold.errors import AuditError, CohortError
from tenfold.types import Estimate, Finding, unique, write_rows

OUTCOME_UNKNOWN = "outcome unknown"
_SITE_P = 0.01
_NAMED = 6


@dataclass(frozen=True, eq=False)
class Audit:
    """What the audit found.

    Attributes:
        findings: Refusals first, then warnings, then notes.
        excluded: Case -> why it is left out of the analysis.
        groups: Patient -> group, for patients who share a picture and must stay on one side of every split.
        facts: One row a picture that could be read: case, patient, column, and what the picture is.
        labels: Target -> its outcomes; a target of which they cannot be had is not named.
        without_looking: Of the first target: what is known beside the picture -> the AUC that it alone reaches;
            "together" is the AUC of all of it.
    """

    findings: tuple[Finding, ...]
    excluded: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)
    facts: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False)
    labels: Mapping[str, Labels] = field(default_factory=dict)
    without_looking: Mapping[str, Estimate] = field(default_factory=dict)

    @property
    def refusals(self) -> tuple[Finding, ...]:
        """The findings that stop a run."""
        return tuple(f for f in self.findings if f.severity == "refusal")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings that a reader of the results must know."""
        return tuple(f for f in self.findings if f.severity == "warning")

    def raise_if_refused(self) -> None:
        """Stop where something must be mended.

        Raises:
            AuditError: There is a refusal; the first ten are listed.
        """
        refusals = self.refusals
        if refusals:
            more = [f"... and {len(refusals) - 10} more"] if len(refusals) > 10 else []
            listed = "\n".join(f"- {line}" for line in [*(f.message for f in refusals[:10]), *more])
            raise AuditError(
                f"{len(refusals)} findings must be mended before anything is fitted:\n{listed}",
                do="mend them, or declare in the study what you accept; findings.csv lists all of them",
            )

    def write_findings(self, path: Path) -> None:
        """Write the findings as CSV.

        Raises:
            OutputError: The place cannot be written to.
        """
        write_rows(path, self.findings, Finding)


def audit(
    cohort: Cohort,
    *,
    target_column: str,
    name: str = "",
    kind: Kind = "class",
    classes: Sequence[str] | None = None,
    positive: str | None = None,
    below: float | None = None,
    above: float | None = None,
    outcomes: Sequence[str] = (),
    connectomes: Mapping[str, NDArray[np.bool_]] | None = None,
    noticed: Sequence[Finding] = (),
    image_columns: Sequence[str] | None = None,
    masked: Mapping[str, Masked] | None = None,
    tables: Tables | None = None,
    allowed: Sequence[str] = (),
    absent: Literal["refuse", "allow"] = "refuse",
    ineligible: Mapping[str, str] | None = None,
    folds: int | None = 10,
    unreadable: Literal["refuse", "exclude"] = "refuse",
    two_classes: Literal["refuse", "declared"] = "refuse",
    duplicates: Literal["refuse", "group", "exclude"] = "refuse",
    unlabelled: Literal["refuse", "allow"] = "refuse",
    size: int | None = None,
    frame: int | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Audit a cohort. Nothing is raised for what is found: `Audit.raise_if_refused` does that.

    Args:
        cohort: The cohort.
        target_column: The column that holds the outcome.
        name: What the target is called; the column's name if empty.
        kind: See `outcomes.Target`, as for the three that follow.
        classes: The classes; without them, the two that the column holds.
        positive: The class to be found.
        below: Of a score.
        above: Of a score.
        outcomes: Columns of other outcomes, which may well restate this one.
        connectomes: Input name -> (n,) whether a case of the whole cohort has a connectome that can be read.
        noticed: What was found in reading them.
        image_columns: The columns of pictures; without them, those of the cohort.
        masked: Column of pictures -> what is looked at of each, where it is not the whole.
        tables: Input name -> the columns of that table.
        allowed: Columns of tables that may restate the outcome, as the study declares.
        absent: Whether a case may lack a picture or a whole table where it has another input.
        ineligible: Case -> reason, of `apply_rules`: these cases are not looked at, and stand first among the excluded.
        folds: How many folds the patients must suffice for; None where nothing is divided or learned.
        unreadable: Whether a picture that is missing, damaged or blank stops the run or leaves its case out.
        two_classes: Whether a patient with both outcomes (at different times, say) stops the run.
        duplicates: Whether the same picture under two patients stops the run, joins the patients into one
            group, or leaves all but the first patient's case out (all of them where their outcomes differ).
        unlabelled: Whether a case without an outcome stops the run or is left out.
        size: Side of the square the networks will see, in pixels; smaller pictures are warned of.
        frame: Which frame of a film that holds several, from 1.
        cache: Where facts of pictures are kept; without it, `.tenfold/facts` in the cohort's folder.
        progress: Called with how many pictures are done and how many there are.
    """
    whole, tables, excluded = cohort, tables or {}, dict(ineligible or {})
    cohort = whole.select([case for case in whole.case.tolist() if case not in excluded])
    columns = tuple(image_columns) if image_columns is not None else cohort.image_columns
    found: list[Finding] = []
    one_class: Literal["refuse", "allow"] = "allow" if folds is None else "refuse"
    target = Target(target_column, name, kind, tuple(classes or ()), positive or "", below, above)
    labels = _labels(cohort, target, unlabelled, one_class, found, excluded)
    looks = look_at_all(cohort, columns, masked or {}, frame, cache, progress, found)
    readings, wrong = read_tables(cohort, tables, target_column)
    named = {column: np.array([len(own) > 0 for own in cohort.pictures(column)]) for column in columns}
    looked_at = np.isin(whole.case, cohort.case)
    measured = {column: present[looked_at] for column, present in (connectomes or {}).items()}
    forgiven, lacking = empty_rows(
        cohort, readings, named, connectomes=measured, absent=absent, unreadable=unreadable, excluded=excluded
    )
    found += [*noticed, *wrong, *lacking, *unfit_pictures(cohort, looks, unreadable, excluded, forgiven)]
    readable = [(i, c, look.facts) for i, c, look in looks if look.facts is not None and not look.blank]
    # where there are other outcomes, a case of which this one is unknown stays
    gone = {case: why for case, why in excluded.items() if why != OUTCOME_UNKNOWN or not outcomes}
    duplicate_findings, groups = duplicates_of(
        cohort, in_study(cohort, readable, gone), labels, duplicates, excluded, masked or {}
    )
    found += duplicate_findings
    found += _similar_patients(cohort)
    found += small_pictures(readable, size)
    blind: dict[str, Estimate] = {}
    kept = np.array([case not in excluded for case in cohort.case.tolist()], bool)
    if labels is not None:
        found += _two_classes(cohort, labels, two_classes, excluded)
        if folds is not None:
            found += _enough_patients(cohort, labels, groups, folds, excluded)
        kept &= labels.known
        if len(set(labels.values[kept].tolist())) > 1:
            found += _sites(cohort, labels, kept)
            blind = _without_looking(cohort, labels, kept, readable, columns)
            found += _telltale(blind)
            found += _mild(telling_columns(cohort, labels, kept, tables, readings, allowed), folds)
            found += telling_gaps(cohort, labels, kept, readings, {**named, **measured})
            inputs = [*(column.name for table in tables.values() for column in table), *outcomes]
            found += restating_elsewhere(cohort, labels, kept, columns, inputs)
    found += _mild(odd_values(cohort, readings, kept), folds)
    order = ("refusal", "warning", "note")
    findings = tuple(sorted(found, key=lambda finding: order.index(finding.severity)))
    known = _labels_of(whole, cohort, labels)
    named_labels = {} if known is None else {target.called: known}
    return Audit(findings, excluded, groups, facts_table(cohort, readable), named_labels, blind)


def joined(audits: Sequence[Audit], targets: Sequence[str]) -> Audit:
    """Join audits of one cohort for several targets: what all find is said once, what one finds with its name.

    A case is left out where one of them leaves it out, but for an unknown outcome only where all do.
    """
    first = audits[0]
    if len(audits) == 1:
        return first
    shared = set.intersection(*({f.message for f in found.findings} for found in audits))
    findings = [f for f in first.findings if f.message in shared]
    for found, target in zip(audits, targets, strict=True):
        own = [f for f in found.findings if f.message not in shared]
        findings += [replace(f, message=f"Target {target}: {f.message}") for f in own]
    excluded = {}
    for case in dict.fromkeys(case for found in audits for case in found.excluded):
        reasons = [found.excluded.get(case, "") for found in audits]
        other = next((reason for reason in reasons if reason not in ("", OUTCOME_UNKNOWN)), "")
        if other or all(reasons):
            excluded[case] = other or OUTCOME_UNKNOWN
    order = ("refusal", "warning", "note")
    return replace(
        first,
        findings=tuple(sorted(findings, key=lambda finding: order.index(finding.severity))),
        excluded=excluded,
        labels={name: labels for found in audits for name, labels in found.labels.items()},
    )


def _labels(
    cohort: Cohort,
    target: Target,
    unlabelled: Literal["refuse", "allow"],
    absent: Literal["refuse", "allow"],
    found: list[Finding],
    excluded: dict[str, str],
) -> Labels | None:
    """The outcomes; what is wrong with them becomes a refusal among the others."""
    try:
        labels = outcome_for(cohort, target, unlabelled=unlabelled, absent=absent).labels
    except CohortError as error:
        found.append(Finding("refusal", "outcome", one_line(error), column=target.column))
        return None
    unknown = np.flatnonzero(~labels.known).tolist()
    excluded.update((case, OUTCOME_UNKNOWN) for case in cohort.case[unknown].tolist())
    if unknown:
        message = f"{len(unknown)} cases have no outcome '{target.called}' and count for nothing that is said of it."
        found.append(about(cohort, "note", "outcome", message, unknown, target.column))
    return labels


def _mild(found: Sequence[Finding], folds: int | None) -> list[Finding]:
    """Findings about what would be learned: where nothing is, they stop nothing."""
    if folds is not None:
        return list(found)
    return [replace(f, severity="warning") if f.severity == "refusal" else f for f in found]


def _labels_of(whole: Cohort, cohort: Cohort, labels: Labels | None) -> Labels | None:
    """The outcomes of the whole cohort, empty for the cases that were not looked at."""
    if labels is None or len(cohort) == len(whole):
        return labels
    known = dict(zip(cohort.case.tolist(), labels.values.tolist(), strict=True))
    return replace(labels, values=np.array([known.get(case, "") for case in whole.case.tolist()], np.str_))


def _similar_patients(cohort: Cohort) -> list[Finding]:
    """Patients whose ids are the same number: a spreadsheet may have eaten leading zeros."""
    written: dict[int, list[str]] = defaultdict(list)
    for patient in unique(cohort.patient.tolist()):
        if patient.isascii() and patient.removesuffix(".0").isdigit():
            written[int(patient.removesuffix(".0"))].append(patient)
    return [
        Finding(
            "warning",
            "similar_patients",
            f"Patients {', '.join(names)} bear the same number. If they are one person, write one id: "
            "as it is, their films may stand on both sides of a split.",
            patients=tuple(names),
            column="patient",
        )
        for names in written.values()
        if len(names) > 1
    ]


def _two_classes(
    cohort: Cohort, labels: Labels, rule: Literal["refuse", "declared"], excluded: Mapping[str, str]
) -> list[Finding]:
    """Patients with both outcomes."""
    cases: dict[str, list[int]] = defaultdict(list)
    for i, (case, patient) in enumerate(zip(cohort.case.tolist(), cohort.patient.tolist(), strict=True)):
        if labels.values[i] and case not in excluded:
            cases[patient].append(i)
    both = {p: places for p, places in cases.items() if len(set(labels.values[places].tolist())) > 1}
    if rule == "declared":
        if not both:
            return []
        everyone = [i for places in both.values() for i in places]
        message = f"{len(both)} of {len(cases)} patients have both outcomes, as declared."
        return [about(cohort, "note", "two_classes", message, everyone, labels.column)]
    found = []
    for patient, places in both.items():
        first = {str(labels.values[i]): int(cohort.rows[i]) for i in reversed(places)}
        rows = [f"row {row}: {name}" for name, row in first.items()]
        message = (
            f"{cohort.path.name}, patient {patient}, column {labels.column}: two outcomes "
            f"({', '.join(sorted(rows))}). Correct them, or declare that a patient may have both "
            "(two_classes = 'declared')."
        )
        found.append(about(cohort, "refusal", "two_classes", message, places, labels.column))
    return found


def _enough_patients(
    cohort: Cohort, labels: Labels, groups: Mapping[str, str], folds: int, excluded: Mapping[str, str]
) -> list[Finding]:
    """Fewer patients of a class than the folds need."""
    who: dict[str, set[str]] = {name: set() for name in labels.classes}
    rows = zip(cohort.case.tolist(), cohort.patient.tolist(), labels.values.tolist(), strict=True)
    for case, patient, label in rows:
        if label and case not in excluded:
            who[label].add(groups.get(patient, patient))
    patients = len(set().union(*who.values()))
    return [
        Finding(
            "refusal",
            "too_few_patients",
            one_line(too_few(name, len(members), patients, folds)),
            column=labels.column,
            value=float(len(members)),
        )
        for name, members in who.items()
        if len(members) < patients_needed(folds)
    ]


def _sites(cohort: Cohort, labels: Labels, kept: NDArray[np.bool_]) -> list[Finding]:
    """How the share of the positive class differs between sites, a patient counting once a site and class."""
    table = pd.DataFrame({"site": cohort.site, "patient": cohort.patient, "label": labels.values})[kept]
    table = table[table["site"] != ""].drop_duplicates()
    counts = pd.crosstab(table["site"], table["label"]).reindex(columns=list(labels.classes), fill_value=0)
    if len(counts) < 2:
        return []
    grid = counts.to_numpy()
    p, method = _independence(grid)
    one_class = [str(site) for site, row in zip(counts.index, grid, strict=True) if (row == 0).any()]
    shares = [f"{site} {row[-1]}/{row.sum()}" for site, row in zip(counts.index, grid.astype(int), strict=True)]
    unequal = p < _SITE_P or bool(one_class)
    message = (
        f"Patients with '{labels.positive}' by site: {', '.join(shares[:20])}"
        f"{' ...' if len(shares) > 20 else ''} ({method}, p = {p:.2g})."
    )
    if one_class:
        message += f" One outcome only at {', '.join(one_class[:_NAMED])}."
    if unequal:
        message += " A network may learn the site for the disease: look at the results of each site."
    return [Finding("warning" if unequal else "note", "site_prevalence", message, column="site", value=p)]


def _independence(grid: NDArray[np.int64]) -> tuple[float, str]:
    """The p-value that the outcome does not depend on the site; NaN where there is one outcome only."""
    if (grid.sum(axis=0) == 0).any():
        return math.nan, "not testable"
    test = chi2_contingency(grid)
    if grid.shape == (2, 2) and test.expected_freq.min() < 5:
        return float(fisher_exact(grid).pvalue), "Fisher's exact test"
    small = ", some expected counts below 5" if test.expected_freq.min() < 5 else ""
    return float(test.pvalue), f"chi-squared test{small}"


def _without_looking(
    cohort: Cohort, labels: Labels, kept: NDArray[np.bool_], readable: Readable, columns: Sequence[str]
) -> dict[str, Estimate]:
    """AUC of everything that is known without looking at the picture, each alone and all together."""
    positive = labels.values == labels.positive
    facts_of = {(i, column): facts for i, column, facts in readable}
    usable = [i for i in np.flatnonzero(kept).tolist() if all((i, c) in facts_of for c in columns)]
    if not usable:
        return {}
    facts: dict[str, Fact] = {}
    for column in columns:
        prefix = f"{column}: " if len(columns) > 1 else ""
        named = picture_facts([facts_of[i, column] for i in usable])
        facts.update({prefix + name: fact for name, fact in named.items()})
    facts["site"], facts["date"] = cohort.site[usable], date_fact(cohort.date[usable])
    facts = varying(facts)
    if not facts:
        return {}
    outcome, patients = positive[usable], cohort.patient[usable]
    alone = {name: blind_auc([fact], outcome, patients) for name, fact in facts.items()}
    return {**alone, "together": blind_auc(list(facts.values()), outcome, patients)}


def _telltale(blind: Mapping[str, Estimate]) -> list[Finding]:
    """What a model would know of the outcome without looking."""
    if not blind or math.isnan(blind["together"].value):
        return []
    alone = {name: auc for name, auc in blind.items() if name != "together"}
    strongest = max(alone, key=lambda name: (np.nan_to_num(alone[name].low), alone[name].value))
    telling = [name for name, auc in alone.items() if auc.low > TELLTALE_AUC]
    warn = blind["together"].low > TELLTALE_AUC or bool(telling)
    message = (
        f"Without looking at the picture, a small model tells the outcome with AUC {blind['together']} from "
        f"{', '.join(alone)}; the strongest alone is the {strongest} with {alone[strongest]}."
    )
    if telling:
        message += f" Above {TELLTALE_AUC} alone: {', '.join(telling)}."
    if warn:
        message += (
            " A network may learn that for the disease. Find out why the classes differ in it; a result that "
            "is not clearly above this AUC proves nothing."
        )
    notes = [
        Finding("note", "without_looking", f"AUC from the {name} alone: {auc}.", column=name, value=auc.value)
        for name, auc in alone.items()
    ]
    severity: Literal["warning", "note"] = "warning" if warn else "note"
    first = Finding(severity, "without_looking", message, column=strongest, value=blind["together"].value)
    return [first, *notes]
