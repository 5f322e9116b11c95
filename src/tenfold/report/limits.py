"""How far the numbers carry: subgroups and their gaps, sample size, optimism, fewer patients, sets of answers.

It must not know HTML, nor say of a gap that it is fair or unfair.
"""

from __future__ import annotations

from typing import Any

from tenfold.report.load import Run, readable
from tenfold.report.tabular import Table
from tenfold.report.words import arm_name, count, interval, metric_label, number, versus, with_interval
from tenfold.types import Estimate

_COUNTS = ("level", "patients", "positives")


def subgroup_columns(run: Run) -> dict[str, dict[str, Any]]:
    """Return the divisions of the cohort that were analysed: column -> levels and gaps."""
    held = run.subgroups.get(run.target) if set(run.subgroups) == {run.target} else None
    found = held if isinstance(held, dict) and "levels" not in held else run.subgroups
    return {str(column): d for column, d in found.items() if isinstance(d, dict) and d.get("levels")}


def subgroups(run: Run) -> Table | None:
    """Every level of every division, with its gap below."""
    rows: list[list[str]] = []
    strong: list[int] = []
    columns = subgroup_columns(run)
    shown = list(dict.fromkeys(k for d in columns.values() for level in d["levels"] for k in level if k not in _COUNTS))
    few = False
    for column, held in columns.items():
        for level in held["levels"]:
            cells = [_estimate(level.get(m)) for m in shown]
            few = few or not any(readable(level.get(m)) for m in shown)
            rows.append(
                [
                    f"{column.replace('_', ' ')}: {level.get('level')}",
                    f"{level.get('patients', '–')}",
                    f"{level.get('positives', '–')}",
                    *cells,
                ]
            )
        gaps = held.get("gaps") or {}
        if gaps:
            strong.append(len(rows))
            cells = [_estimate((gaps.get(m) or {}).get("difference")) for m in shown]
            rows.append([f"{column.replace('_', ' ')}: gap", "", "", *cells])
    if not rows:
        return None
    note = (
        "A gap is the highest minus the lowest level that could be estimated; levels were ordered by their results, "
        "so a gap is above zero even where there is no difference. Intervals are not adjusted for their number."
    )
    if few:
        note += " A dash: fewer than ten patients of one class, listed and not estimated."
    return Table(
        f"Subgroups, {arm_name(run.proposed)} model: values with intervals, and the gaps between the outermost levels.",
        ("", "Patients", run.positive or "Positives", *(metric_label(m) for m in shown)),
        rows,
        note=note,
        strong=tuple(strong),
    )


def _estimate(held: Any) -> str:
    return with_interval(Estimate.from_dict(held), 2) if readable(held) else "–"


def sample_size(run: Run) -> list[str]:
    """Say what size the study would have needed, and how sure it can be with what it has."""
    held = run.sample_size
    if not held:
        return []
    said = []
    width, needed, check = held.get("auc_width") or {}, held.get("riley") or {}, held.get("validation") or {}
    expected, people = number(held.get("expected_auc"), 2), held.get("patients") or {}
    it = run.positive if versus(run) else "the outcome"
    if width:
        said.append(
            f"Before a patient was spent: with {people.get('positives', '?')} patients with and "
            f"{people.get('negatives', '?')} without {it}, an AUC of {expected} would be known from "
            f"{number(width.get('low'), 2)} to {number(width.get('high'), 2)}, {number(width.get('width'), 2)} wide "
            f"({width.get('method', '')})."
        )
    if needed:
        said.append(
            f"A logistic model with {count(needed.get('parameters'), 'parameter')} from the tables, expected to reach "
            f"an AUC of {expected} at a share of {number(needed.get('prevalence'), 2)}, would need "
            f"{count(needed.get('n'), 'patient')} ({needed.get('method', '')}): {needed.get('for_shrinkage')} to "
            f"shrink no more than to {needed.get('shrinkage')}, {needed.get('for_optimism')} for little optimism, "
            f"{needed.get('for_prevalence')} to know the share itself. {_against_needed(people, needed)} A network has "
            "more parameters than such a model and no rule of its own: read this as the least."
        )
    if check:
        said.append(
            f"To judge a finished model elsewhere, {count(check.get('n'), 'patient')} would be needed "
            f"({check.get('for_auc')} for the AUC, {check.get('for_slope')} for the calibration slope, "
            f"{check.get('for_in_the_large')} for calibration in the large; {check.get('method', '')})."
        )
    return said


def _against_needed(people: dict[str, Any], needed: dict[str, Any]) -> str:
    """Compare what is there with what is needed."""
    n = needed.get("n")
    have = sum(v for v in people.values() if isinstance(v, int))
    if not isinstance(n, int) or not have:
        return ""
    return f"This study has {have:,}: {'enough' if have >= n else 'fewer'}."


def optimism(run: Run) -> list[str]:
    """Say how much better the proposed arm does on the patients it was trained on."""
    held = run.optimism.get(run.target) or {}
    values = [held.get(key) for key in ("apparent", "out_of_fold", "optimism")]
    if any(not isinstance(v, int | float) for v in values):
        return []
    inside, outside, gap = (number(v) for v in values)
    return [
        f"AUC of the {arm_name(run.proposed)} model: apparent {inside}, on the patients it was trained on; out of fold "
        f"{outside}; optimism {gap}. What a model tells of its own training patients is no evidence.",
        f"Method: {held.get('method')}; n = {count(held.get('n'), 'patient')}.",
    ]


def fewer_patients(run: Run) -> list[str]:
    """Say whether more patients still help, and what of the learning curve was not fitted."""
    found = run.learned()
    told = []
    if len(found) > 1:
        (_, few, first), (_, many, last) = found[0], found[-1]
        told.append(
            f"With {few:.0f} training patients in a fold the AUC was {number(first.value)} ({interval(first)}), with "
            f"all {many:.0f} it was {number(last.value)} ({interval(last)})."
        )
    left = [p for p in run.learning_curve.get(run.target) or [] if not readable(p.get("auc"))]
    return told + [
        f"{p.get('share'):.0%} of the training patients: {(p.get('auc') or {}).get('method')}." for p in left
    ]


def conformal(run: Run) -> Table | None:
    """Sets of answers: what was promised of each class, what n allows, what came out."""
    held = run.conformal
    classes = held.get("classes") or {}
    if not classes:
        return None
    promised = 1 - float(held.get("alpha", 0.1))
    rows = []
    for name, c in classes.items():
        low, high = c.get("range") or (None, None)
        realised = (held.get("realised") or {}).get(name)
        rows.append(
            [
                str(name),
                f"{promised:.0%}",
                f"{number(low, 2)} to {number(high, 2)}" if low is not None else "always in the set",
                _estimate(realised),
                f"{c.get('n', '–')}",
            ]
        )
    sizes = held.get("sizes") or {}
    several = f"{'both' if len(classes) == 2 else 'several'} answers (the model does not know)"
    spread = [
        f"{words} {float(sizes[key]):.0%}"
        for key, words in (("one", "one answer"), ("both", several), ("empty", "none"))
        if isinstance(sizes.get(key), int | float)
    ]
    return Table(
        "Sets of answers: each true class is to be in the set as often as promised.",
        ("True class", "Promised", "5–95 % of studies of this size", "Out of fold (interval)", "n"),
        rows,
        note=f"{str(held.get('method', '')).capitalize()}. The range is what coverage such a promise turns into with "
        f"this many patients, before any other hospital. Sets held: {'; '.join(spread)}."
        if spread
        else f"{held.get('method', '')}.",
    )


def gap_sentences(run: Run) -> list[str]:
    """Say the gap in AUC of each division, with its interval."""
    said = []
    for column, held in subgroup_columns(run).items():
        gap = (held.get("gaps") or {}).get("auc") or {}
        if readable(gap.get("difference")):
            e = Estimate.from_dict(gap["difference"])
            said.append(
                f"{column.replace('_', ' ')}: {gap.get('highest')} over {gap.get('lowest')} by {number(e.value, 2)} "
                f"({interval(e, 2)})"
            )
    return said
