"""What each input is worth: the arms that see one input beside those that see several, and answers without one.

It must not know HTML, nor compute a test: it picks among the comparisons that the run's files hold.
"""

from __future__ import annotations

from typing import Any

from tenfold.report.load import Run, readable
from tenfold.report.tabular import Table, one_method
from tenfold.report.words import arm_name, ceiling_of, interval, joined, number, p_value, versus, with_interval
from tenfold.types import Estimate


def fused(run: Run) -> bool:
    """Whether the proposed arm sees more than one input."""
    return len(run.inputs(run.proposed)) > 1


def alone(run: Run) -> list[str]:
    """Arms that see one input only, the best out-of-fold AUC first."""
    areas = {arm: e for arm in run.arms if len(run.inputs(arm)) == 1 and (e := run.estimates(arm).get("auc"))}
    return sorted(areas, key=lambda arm: -areas[arm].value)


def difference(run: Run, arm: str, part: str = "comparisons") -> tuple[Estimate, Any, Any] | None:
    """Return AUC of the proposed arm minus that of another, its p and the p adjusted by Holm; None if not compared."""
    for c in run.compared(part):
        pair = (str(c.get("arm")), str(c.get("reference")))
        gap = c.get("difference")
        if c.get("metric") == "auc" and set(pair) == {arm, run.proposed} and readable(gap):
            e = Estimate.from_dict(gap)
            if pair[0] == arm:
                e = Estimate(-e.value, -e.high, -e.low, e.method, e.n)
            return e, c.get("p"), c.get("p_holm")
    return None


def sentences(run: Run) -> list[str]:
    """Set the fused model beside the better of its inputs alone, and say what it is without each."""
    return [*_beside_better(run), *_without(run)]


def _beside_better(run: Run) -> list[str]:
    """The paired test against the best arm with one input, and that choosing it afterwards favours it."""
    singles = alone(run) if fused(run) else []
    if not singles:
        return []
    best = singles[0]
    own = run.estimates(best)["auc"]
    about = f" ({versus(run)})" if versus(run) else ""
    said = [f"Of the arms with one input, {arm_name(best)} was best out of fold{about}: {with_interval(own)}."]
    for part, where in (("comparisons", "Out of fold"), ("comparisons_holdout", "In the hold-out")):
        found = difference(run, best, part)
        if found is not None:
            gap, p, _ = found
            said.append(
                f"{where}, {arm_name(run.proposed)} minus {arm_name(best)} is {number(gap.value)} ({interval(gap)}; "
                f"p = {p_value(p)}; paired on the same {gap.n} patients)."
            )
    said.append("That arm was picked after its result was seen, which favours it in these comparisons.")
    there = {arm: e for arm in singles if (e := run.estimates(arm, "holdout").get("auc"))}
    first = max(there, key=lambda arm: there[arm].value, default=best)
    if first != best:
        said.append(f"In the hold-out, {arm_name(first)} was the best of them: {with_interval(there[first])}.")
    return [" ".join(said).replace("p = < ", "p < ")]


def _without(run: Run) -> list[str]:
    """What is left where one input is not there."""
    parts = []
    for arm in run.altered:
        name, change = _change(run, arm)
        found = run.estimates(arm).get("auc")
        if change == "taken away" and found is not None:
            parts.append(f"{with_interval(found)} without {name}")
    return (
        [f"A patient who lacks an input still gets an answer: the same networks reached {joined(parts)}."]
        if parts
        else []
    )


def _change(run: Run, arm: str) -> tuple[str, str]:
    """Return which input was changed, and how."""
    tail = arm.removeprefix(f"{run.proposed}, ")
    if tail.startswith("without "):
        return tail.removeprefix("without "), "taken away"
    if tail.endswith(" permuted"):
        return tail.removesuffix(" permuted"), "mixed among patients"
    return tail, "changed"


def fusion_table(run: Run) -> Table | None:
    """Arms that see several inputs and arms that see one, each beside the best attainable AUC of what it sees."""
    left_out = run.elsewhere_in_grid
    several = [arm for arm in run.arms if len(run.inputs(arm)) > 1 and "auc" in run.estimates(arm)]
    several = [arm for arm in several if arm not in left_out]
    singles = alone(run)
    singles = [arm for arm in singles if arm == singles[0] or arm not in left_out]
    if not several or not singles:
        return None
    ceilings = any(ceiling_of(run, arm) is not None for arm in (*several, *singles))
    held = bool(run.holdout)
    heads = ["", "Sees", "AUC, out of fold", *(["Ceiling of what it sees"] if ceilings else [])]
    heads += [*(["AUC, hold-out"] if held else []), "Proposed − this", "p", "p (Holm)"]
    rows = []
    for arm in (*several, *singles):
        found = difference(run, arm)
        best = " (best of one input)" if arm == singles[0] else ""
        row = [f"{arm_name(arm)}{best}", joined(list(run.inputs(arm))), with_interval(run.estimates(arm)["auc"])]
        row += [number(ceiling_of(run, arm))] if ceilings else []
        row += [with_interval(run.estimates(arm, "holdout").get("auc"))] if held else []
        row += [with_interval(found[0]), p_value(found[1]), p_value(found[2])] if found else ["–", "–", "–"]
        rows.append(row)
    e = run.estimates(run.proposed).get("auc")
    n = f"; n = {e.n}" if e else ""
    return Table(
        f"Several inputs beside one{n}.",
        tuple(heads),
        rows,
        note="Differences are paired on the same patients; Holm over all comparisons of the run. "
        + (
            "A ceiling is the AUC of the exact answer from what the arm sees, known as the patients are simulated; "
            if ceilings
            else ""
        )
        + ("an AUC may exceed it by chance. " if ceilings else "")
        + "The best of one input was picked after the results were seen, which favours it.",
        strong=(several.index(run.proposed),) if run.proposed in several else (),
        words=(0, 1),
        loose=True,
    )


def altered_table(run: Run) -> Table | None:
    """What each input is worth to the proposed networks, and how good an answer without one is."""
    rows = []
    for arm in run.altered:
        name, change = _change(run, arm)
        e, found = run.estimates(arm), difference(run, arm)
        if "auc" not in e:
            continue
        lost = [with_interval(found[0]), p_value(found[1]), p_value(found[2])] if found else ["–", "–", "–"]
        rows.append(
            [
                f"{name} {change}",
                with_interval(e["auc"]),
                *lost,
                with_interval(e.get("sensitivity"), 2),
                with_interval(e.get("specificity"), 2),
                with_interval(e.get("calibration_slope"), 2),
            ]
        )
    if not rows:
        return None
    rows.sort(key=lambda row: row[0].endswith("patients"))
    n = run.estimates(next(iter(run.altered)))["auc"].n
    return Table(
        f"What each input is worth to the proposed networks, and how good their answer is without one; n = {n}.",
        ("", "AUC", "AUC lost", "p", "p (Holm)", "Sensitivity", "Specificity", "Calibration slope"),
        rows,
        note="Nothing was fitted anew. “Taken away” is what happens to a patient who lacks that input. “Mixed among "
        "patients” gives each the input of somebody else: the model is misled, so it may fall below chance. "
        "Sensitivity and specificity are at the operating point of the complete model, which need not suit an "
        "answer without an input.",
        loose=True,
    )


def shares_table(run: Run) -> Table | None:
    """Mean shares of the inputs in what moves a probability."""
    held = (run.explanations.get("modalities") or {}).get("shares") or {}
    found = {name: Estimate.from_dict(e) for name, e in held.items() if readable(e)}
    if not found:
        return None
    rows = [[name, number(e.value, 2), interval(e, 2), f"{e.n:,}", e.method] for name, e in found.items()]
    return one_method(
        Table(
            "Share of each input in what moves a patient's probability (Shapley values in log-odds).",
            ("", "Share", "Interval", "n", "Method"),
            rows,
            note="A share says how much the model leans on an input, not how much the input is worth.",
            words=(0, 4),
        )
    )


def importance_notes(run: Run) -> list[str]:
    """Say how stable the ranking of the table columns is from fold to fold."""
    said = []
    for name, held in (run.explanations.get("importance") or {}).items():
        e = held.get("stability")
        if readable(e):
            found = Estimate.from_dict(e)
            steady = "alike" if found.value >= 0.7 else "partly alike" if found.value >= 0.4 else "hardly alike"
            warning = (
                "" if found.value >= 0.7 else " Do not read the order of single columns as knowledge about the disease."
            )
            said.append(
                f"Over the folds the rankings of {name} are {steady}: mean rank correlation {number(found.value, 2)} "
                f"(least to most alike pair {interval(found, 2)}; {found.n} folds).{warning}"
            )
    return said
