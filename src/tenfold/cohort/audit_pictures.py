"""The audit of pictures: unreadable, blank or small ones, and the same one under two patients.

It must not know tables, networks or folds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from tenfold.cohort.facts import CACHE_FOLDER, FactsCache, Look, Masked, Progress, look_at
from tenfold.cohort.findings import about, one_line
from tenfold.cohort.manifest import Cohort, Labels
from tenfold.errors import OutputError
from tenfold.modalities.image_facts import ImageFacts, near_duplicates
from tenfold.types import Finding, unique

_NAMED = 6
# The frame of a colour box is in every picture of a scanner. Inside the region of 2,520 simulated scans, copies (JPEG
# at quality 60, enlarged by a tenth) agree at 0.988 at least, and scans of different patients at 0.959 at most.
_SAME_SCAN = 0.975
_NOTHING = Look(None)
Readable = Sequence[tuple[int, str, ImageFacts]]
Looks = Sequence[tuple[int, str, Look]]


def look_at_all(
    cohort: Cohort,
    columns: Sequence[str],
    masked: Mapping[str, Masked],
    frame: int | None,
    cache: Path | None,
    progress: Progress | None,
    found: list[Finding],
) -> list[tuple[int, str, Look]]:
    """Look at every picture that is named; a cell that is empty is a finding at once."""
    named = [
        (i, column, path)
        for column in columns
        for i, own in enumerate(cohort.pictures(column))
        for path in own or [None]
    ]
    seen: dict[tuple[str, Path], Look] = {}
    whole = [column for column in columns if column not in masked]
    parts = [(whole, None), *(([column], masked[column]) for column in columns if column in masked)]
    for together, cut in parts:
        key = ("" if frame is None else f":{frame}") + (f":{cut.key}" if cut else "")
        memory = FactsCache(cache or cohort.folder / CACHE_FOLDER, cohort.folder, key)
        own = [(column, path) for _, column, path in named if path is not None and column in together]
        before, total = len(seen), sum(path is not None for _, _, path in named)
        tell = None if progress is None else lambda done, _, b=before, t=total: progress(b + done, t)
        looks = look_at([path for _, path in own], memory, frame=frame, masked=cut, progress=tell)
        seen |= dict(zip(own, looks, strict=True))
        try:
            memory.save()
        except OutputError as error:
            message = f"The facts of the pictures could not be kept for the next run: {one_line(error)}"
            found.append(Finding("note", "cache", message))
    return [(i, column, _NOTHING if path is None else seen[column, path]) for i, column, path in named]


def unfit_pictures(
    cohort: Cohort,
    looks: Looks,
    unreadable: Literal["refuse", "exclude"],
    excluded: dict[str, str],
    forgiven: NDArray[np.bool_],
) -> list[Finding]:
    """Pictures that are not named, cannot be read or show nothing; a case that is forgiven need not name one."""
    found = []
    severity: Literal["refusal", "warning"] = "refusal" if unreadable == "refuse" else "warning"
    for i, column, look in looks:
        if (look.facts is not None and not look.blank) or (forgiven[i] and look is _NOTHING):
            continue
        place = cohort.place(i, column)
        if look.facts is not None:
            check, reason, why = "blank_image", "blank picture", "the picture shows nothing"
        elif look.error is None:
            check, reason, why = "unreadable_image", "no picture", "no picture is named"
        else:
            check, reason, why = "unreadable_image", "unreadable picture", one_line(look.error)
        message = f"{place}: {why.rstrip('.')}."
        if unreadable == "exclude":
            excluded.setdefault(str(cohort.case[i]), reason)
            message += " The case is left out."
        found.append(about(cohort, severity, check, message, [i], column))
    return found


def duplicates_of(
    cohort: Cohort,
    readable: Readable,
    labels: Labels | None,
    rule: Literal["refuse", "group", "exclude"],
    excluded: dict[str, str],
    masked: Collection[str] = (),
) -> tuple[list[Finding], dict[str, str]]:
    """The same picture twice: under two patients it leaks from training to test; `masked` columns are ultrasound."""
    pairs = near_duplicates([facts for _, _, facts in readable])
    pairs = [(a, b, s) for a, b, s in pairs if s >= _SAME_SCAN or not {readable[a][1], readable[b][1]} <= set(masked)]
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
        found.append(about(cohort, severity, "duplicate_image", message, members, value=similarity))
    for members in _components(within, len(cohort)):
        message = f"Patient {cohort.patient[members[0]]} has the same picture {len(members)} times."
        found.append(about(cohort, "note", "repeated_image", message, members))
    return found, _joined(cohort, [(a, b) for a, b, _ in between]) if rule == "group" else {}


def in_study(cohort: Cohort, readable: Readable, excluded: Mapping[str, str]) -> Readable:
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


def small_pictures(readable: Readable, size: int | None) -> list[Finding]:
    """Pictures that would have to be blown up."""
    small = [facts for _, _, facts in readable if size is not None and max(facts.width, facts.height) < size]
    if not small:
        return []
    message = (
        f"{len(small)} of {len(readable)} pictures are smaller than the {size} pixels that the network sees: "
        "they are blown up, which adds no detail."
    )
    return [Finding("warning", "small_images", message, value=float(len(small)))]


def facts_table(cohort: Cohort, readable: Readable) -> pd.DataFrame:
    """One row a readable picture."""
    names = ("sha256", "bytes", "format", "width", "height", "mean", "contrast", "border")
    columns = ["case", "patient", "column", *names]
    rows = [
        (str(cohort.case[i]), str(cohort.patient[i]), column, *(getattr(facts, name) for name in names))
        for i, column, facts in readable
    ]
    return pd.DataFrame(rows, columns=pd.Index(columns))
