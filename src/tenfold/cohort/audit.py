"""The audit: what must be mended, and what must be known, before anything is fitted.

It must not know networks or folds: it looks at the cohort's file and its pictures, and changes neither.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.stats import chi2_contingency, fisher_exact

from tenfold.cohort.facts import CACHE_FOLDER, FactsCache, Look, Progress, look_at
from tenfold.cohort.manifest import REQUIRED, Cohort, Labels, is_mask, labels_for, looks_like_picture
from tenfold.cohort.split import patients_needed, too_few
from tenfold.cohort.without_looking import (
    Fact,
    blind_auc,
    column_fact,
    date_fact,
    picture_facts,
    varying,
)
from tenfold.errors import AuditError, CohortError, OutputError, Refusal
from tenfold.modalities.image_facts import ImageFacts, near_duplicates
from tenfold.types import Estimate, Finding, unique, write_rows

TELLTALE_AUC = 0.6
RESTATING_AUC = 0.98
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
        labels: The outcomes, None where they cannot be had.
        without_looking: What is known beside the picture -> the AUC that it alone reaches; "together" is the
            AUC of all of it.
    """

    findings: tuple[Finding, ...]
    excluded: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)
    facts: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False)
    labels: Labels | None = None
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
    classes: Sequence[str] | None = None,
    positive: str | None = None,
    image_columns: Sequence[str] | None = None,
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
        classes: The two classes; without them, what the column holds.
        positive: The class to be found.
        image_columns: The columns of pictures; without them, those of the cohort.
        folds: How many folds the patients must suffice for; None where nothing is divided.
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
    columns = tuple(image_columns) if image_columns is not None else cohort.image_columns
    found: list[Finding] = []
    excluded: dict[str, str] = {}
    absent: Literal["refuse", "allow"] = "allow" if folds is None else "refuse"
    labels = _labels(cohort, target_column, classes, positive, unlabelled, absent, found, excluded)
    looks = _look_at_all(cohort, columns, frame, cache, progress, found)
    found += _pictures(cohort, looks, unreadable, excluded)
    readable = [(i, c, look.facts) for i, c, look in looks if look.facts is not None and not look.blank]
    duplicate_findings, groups = _duplicates(
        cohort, _in_study(cohort, readable, excluded), labels, duplicates, excluded
    )
    found += duplicate_findings
    found += _similar_patients(cohort)
    found += _small(readable, size)
    blind: dict[str, Estimate] = {}
    if labels is not None:
        found += _two_classes(cohort, labels, two_classes, excluded)
        if folds is not None:
            found += _enough_patients(cohort, labels, groups, folds, excluded)
        kept = np.array([case not in excluded for case in cohort.case.tolist()], bool) & labels.known
        if len(set(labels.values[kept].tolist())) > 1:
            found += _sites(cohort, labels, kept)
            blind = _without_looking(cohort, labels, kept, readable, columns)
            found += _telltale(blind)
            found += _restating(cohort, labels, kept, columns)
    order = ("refusal", "warning", "note")
    findings = tuple(sorted(found, key=lambda finding: order.index(finding.severity)))
    return Audit(findings, excluded, groups, _facts_table(cohort, readable), labels, blind)


_Readable = Sequence[tuple[int, str, ImageFacts]]
_Looks = Sequence[tuple[int, str, Look]]


def _finding(
    cohort: Cohort,
    severity: Literal["refusal", "warning", "note"],
    check: str,
    message: str,
    index: Iterable[int],
    column: str = "",
    value: float = math.nan,
) -> Finding:
    """A finding about some cases; it carries the row where it is about one."""
    places = list(index)
    cases = tuple(cohort.case[places].tolist())
    patients = tuple(unique(cohort.patient[places].tolist()))
    row = int(cohort.rows[places[0]]) if len(places) == 1 else 0
    return Finding(severity, check, message, cases, patients, column, row, value)


def _labels(
    cohort: Cohort,
    column: str,
    classes: Sequence[str] | None,
    positive: str | None,
    unlabelled: Literal["refuse", "allow"],
    absent: Literal["refuse", "allow"],
    found: list[Finding],
    excluded: dict[str, str],
) -> Labels | None:
    """The outcomes; what is wrong with them becomes a refusal among the others."""
    try:
        labels = labels_for(
            cohort, column=column, classes=classes, positive=positive, unlabelled=unlabelled, absent=absent
        )
    except CohortError as error:
        found.append(Finding("refusal", "outcome", _one_line(error), column=column))
        return None
    unknown = np.flatnonzero(~labels.known).tolist()
    excluded.update((case, "outcome unknown") for case in cohort.case[unknown].tolist())
    if unknown:
        message = f"{len(unknown)} cases have no outcome and are left out."
        found.append(_finding(cohort, "note", "outcome", message, unknown, column))
    return labels


def _one_line(error: Refusal) -> str:
    """A refusal as running text."""
    return " ".join(str(error).split("\n"))


def _look_at_all(
    cohort: Cohort,
    columns: Sequence[str],
    frame: int | None,
    cache: Path | None,
    progress: Progress | None,
    found: list[Finding],
) -> list[tuple[int, str, Look]]:
    """Look at every picture that is named; a cell that is empty is a finding at once."""
    named = [(i, column, path) for column in columns for i, path in enumerate(cohort.paths(column))]
    key = "" if frame is None else f":{frame}"
    memory = FactsCache(cache or cohort.folder / CACHE_FOLDER, cohort.folder, key)
    paths = [path for _, _, path in named if path is not None]
    seen = dict(zip(paths, look_at(paths, memory, frame=frame, progress=progress), strict=True))
    try:
        memory.save()
    except OutputError as error:
        message = f"The facts of the pictures could not be kept for the next run: {_one_line(error)}"
        found.append(Finding("note", "cache", message))
    nothing = Look(None, error=None)
    return [(i, column, nothing if path is None else seen[path]) for i, column, path in named]


def _pictures(
    cohort: Cohort, looks: _Looks, unreadable: Literal["refuse", "exclude"], excluded: dict[str, str]
) -> list[Finding]:
    """Pictures that are not named, cannot be read or show nothing."""
    found = []
    severity: Literal["refusal", "warning"] = "refusal" if unreadable == "refuse" else "warning"
    for i, column, look in looks:
        if look.facts is not None and not look.blank:
            continue
        place = cohort.place(i, column)
        if look.facts is not None:
            check, reason, why = "blank_image", "blank picture", "the picture shows nothing"
        elif look.error is None:
            check, reason, why = "unreadable_image", "no picture", "no picture is named"
        else:
            check, reason, why = "unreadable_image", "unreadable picture", _one_line(look.error)
        message = f"{place}: {why.rstrip('.')}."
        if unreadable == "exclude":
            excluded.setdefault(str(cohort.case[i]), reason)
            message += " The case is left out."
        found.append(_finding(cohort, severity, check, message, [i], column))
    return found


def _duplicates(
    cohort: Cohort,
    readable: _Readable,
    labels: Labels | None,
    rule: Literal["refuse", "group", "exclude"],
    excluded: dict[str, str],
) -> tuple[list[Finding], dict[str, str]]:
    """The same picture twice: under two patients it leaks from training to test."""
    pairs = near_duplicates([facts for _, _, facts in readable])
    index = [i for i, _, _ in readable]
    between = [(index[a], index[b], s) for a, b, s in pairs if cohort.patient[index[a]] != cohort.patient[index[b]]]
    within = [(index[a], index[b]) for a, b, _ in pairs if cohort.patient[index[a]] == cohort.patient[index[b]]]
    found: list[Finding] = []
    for members in _components([(a, b) for a, b, _ in between], len(cohort)):
        inside = set(members)
        similarity = min(s for a, _, s in between if a in inside)
        outcomes = set(labels.values[members].tolist()) - {""} if labels is not None else set()
        out = _left_out(cohort, members, conflict=len(outcomes) > 1) if rule == "exclude" else []
        excluded.update((str(cohort.case[i]), "the same picture as another patient's") for i in out)
        message = _say_duplicate(cohort, members, similarity, sorted(outcomes), rule)
        severity: Literal["refusal", "warning"] = "refusal" if rule == "refuse" else "warning"
        found.append(_finding(cohort, severity, "duplicate_image", message, members, value=similarity))
    for members in _components(within, len(cohort)):
        message = f"Patient {cohort.patient[members[0]]} has the same picture {len(members)} times."
        found.append(_finding(cohort, "note", "repeated_image", message, members))
    return found, _joined(cohort, [(a, b) for a, b, _ in between]) if rule == "group" else {}


def _in_study(cohort: Cohort, readable: _Readable, excluded: Mapping[str, str]) -> _Readable:
    """The pictures of cases that are not left out already."""
    return [one for one in readable if str(cohort.case[one[0]]) not in excluded]


def _components(pairs: Sequence[tuple[int, int]], n: int) -> list[list[int]]:
    """What hangs together through pairs, each in ascending order; what is alone is left out."""
    if not pairs:
        return []
    rows, columns = np.array(pairs).T
    member = connected_components(coo_matrix((np.ones(len(pairs)), (rows, columns)), shape=(n, n)))[1]
    together: dict[int, list[int]] = defaultdict(list)
    for i in sorted({*rows.tolist(), *columns.tolist()}):
        together[int(member[i])].append(i)
    return [group for group in together.values() if len(group) > 1]


def _left_out(cohort: Cohort, members: Sequence[int], *, conflict: bool) -> list[int]:
    """All but the first patient's cases; every case where the same picture has two outcomes."""
    first = cohort.patient[members[0]]
    return [i for i in members if conflict or cohort.patient[i] != first]


def _say_duplicate(
    cohort: Cohort, members: Sequence[int], similarity: float, outcomes: Sequence[str], rule: str
) -> str:
    """What is the same, where, and what becomes of it."""
    rows = [f"row {cohort.rows[i]} (patient {cohort.patient[i]})" for i in members]
    named = ", ".join(rows[:_NAMED]) + (f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else "")
    same = "the same picture" if similarity > 0.9999 else f"nearly the same picture (similarity {similarity:.3f})"
    conflict = f" Their outcomes differ: {', '.join(outcomes)}." if len(outcomes) > 1 else ""
    fate = {
        "refuse": "One in training would give away one in the test fold. Remove all but one, correct the "
        "patient, or set duplicates to 'group' or 'exclude'.",
        "group": "These patients stay on one side of every split.",
        "exclude": "All are left out." if conflict else "Only the first patient's is kept.",
    }[rule]
    return f"{cohort.path.name}, {named}: {same} under different patients.{conflict} {fate}"


def _joined(cohort: Cohort, pairs: Sequence[tuple[int, int]]) -> dict[str, str]:
    """Patient -> group, named after its first patient; a patient's own cases hold it together too."""
    patients = list(unique(cohort.patient.tolist()))
    number = {patient: i for i, patient in enumerate(patients)}
    between = [(number[str(cohort.patient[a])], number[str(cohort.patient[b])]) for a, b in pairs]
    return {patients[i]: patients[group[0]] for group in _components(between, len(patients)) for i in group}


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


def _small(readable: _Readable, size: int | None) -> list[Finding]:
    """Pictures that would have to be blown up."""
    small = [facts for _, _, facts in readable if size is not None and max(facts.width, facts.height) < size]
    if not small:
        return []
    message = (
        f"{len(small)} of {len(readable)} pictures are smaller than the {size} pixels that the network sees: "
        "they are blown up, which adds no detail."
    )
    return [Finding("warning", "small_images", message, value=float(len(small)))]


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
        return [_finding(cohort, "note", "two_classes", message, everyone, labels.column)]
    found = []
    for patient, places in both.items():
        first = {str(labels.values[i]): int(cohort.rows[i]) for i in reversed(places)}
        rows = [f"row {row}: {name}" for name, row in first.items()]
        message = (
            f"{cohort.path.name}, patient {patient}, column {labels.column}: two outcomes "
            f"({', '.join(sorted(rows))}). Correct them, or declare that a patient may have both "
            "(two_classes = 'declared')."
        )
        found.append(_finding(cohort, "refusal", "two_classes", message, places, labels.column))
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
            _one_line(too_few(name, len(members), patients, folds)),
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
    cohort: Cohort, labels: Labels, kept: NDArray[np.bool_], readable: _Readable, columns: Sequence[str]
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


def _restating(cohort: Cohort, labels: Labels, kept: NDArray[np.bool_], columns: Sequence[str]) -> list[Finding]:
    """Columns from which the outcome can be read."""
    found = []
    positive = (labels.values == labels.positive)[kept]
    for column in cohort.columns:
        cells = cohort.labels(column)[kept]
        filled = [cell for cell in cells.tolist() if cell]
        if column in (*REQUIRED, "site", "date", labels.column, *columns) or is_mask(column):
            continue
        if len(np.unique(cells)) < 2 or all(map(looks_like_picture, filled)):
            continue
        auc = blind_auc([column_fact(cells)], positive, cohort.patient[kept])
        if auc.value > RESTATING_AUC:
            message = (
                f"The outcome can be read from the column '{column}' (AUC {auc}): it restates the target. "
                "Never use it as an input."
            )
            found.append(Finding("warning", "restates_target", message, column=column, value=auc.value))
    return found


def _facts_table(cohort: Cohort, readable: _Readable) -> pd.DataFrame:
    """One row a readable picture."""
    names = ("sha256", "bytes", "format", "width", "height", "mean", "contrast", "border")
    columns = ["case", "patient", "column", *names]
    rows = [
        (str(cohort.case[i]), str(cohort.patient[i]), column, *(getattr(facts, name) for name in names))
        for i, column, facts in readable
    ]
    return pd.DataFrame(rows, columns=pd.Index(columns))
