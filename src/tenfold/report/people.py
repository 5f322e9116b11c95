"""Who was studied: Table 1 by group, Table 2 with its tests.

It must not know HTML, nor choose anything by a test: the tests describe.
"""

from __future__ import annotations

import re
from typing import Any

from tenfold.report.load import Run, readable
from tenfold.report.published import published
from tenfold.report.tabular import Table
from tenfold.report.words import count, interval, joined, number, p_value, units
from tenfold.types import Estimate

_FIXED = ("variable", "level")
_SPREAD = "median [IQR]"


def cohort(run: Run) -> Table | None:
    """Table 1: who was studied, by outcome. Variables that Table 2 shows are left to it."""
    rows = [row for row in run.cohort.get("table") or [] if row.get("variable") not in _tested(run)]
    if not rows:
        return None
    heads = _groups(run)
    body = []
    for row in rows:
        name = units(", ".join(str(row[k]).replace("_", " ") for k in _FIXED if row.get(k)))
        body.append([name, *(str(row.get(h, "–")) for h in heads)])
    return Table("Table 1. The cohort by outcome.", ("", *heads), body)


def _groups(run: Run) -> list[str]:
    return list(dict.fromkeys(k for row in run.cohort.get("table") or [] for k in row if k not in _FIXED))


def _tested(run: Run) -> set[str]:
    return {str(row.get("variable")) for row in run.cohort.get("tests") or []}


def tests(run: Run) -> Table | None:
    """Table 2: how the groups differ in each variable, with effect, interval and adjusted p."""
    found = run.cohort.get("tests") or []
    if not found:
        return None
    heads = _groups(run)
    theirs = published(str(run.facts.get("system") or "")).get("groups") or {}
    effects = {str(t.get("effect_name")) for t in found}
    rows = []
    for t in found:
        e = Estimate.from_dict(t["effect"]) if readable(t.get("effect")) else None
        rows.append(
            [
                units(str(t.get("variable"))),
                *(_cell(run, t, head) for head in heads),
                " / ".join(_cell(run, t, head, "missing") for head in heads),
                "" if len(effects) == 1 else str(t.get("effect_name")),
                f"{number(e.value, 2)} ({interval(e, 2)})" if e else "–",
                p_value(t.get("p")),
                p_value(t.get("p_adjusted")),
                *([theirs.get(str(t.get("column")), "–")] if theirs else []),
            ]
        )
    one = len(effects) == 1
    columns = ["", *heads, "Missing", "Effect", "Effect (interval)", "p", "p (BH)"]
    columns += ["Paper: means"] if theirs else []
    if one:
        at = columns.index("Effect")
        columns[at : at + 2] = [f"{effects.pop()} (interval)"]
        rows = [row[:at] + row[at + 1 :] for row in rows]
    return Table(
        f"Table 2. The groups compared, variable by variable; {count(len(found), 'variable')}.",
        tuple(columns),
        rows,
        note=f"Descriptive: nothing was selected by it. {_how(run, found)}",
    )


def _cell(run: Run, test: dict[str, Any], head: str, level: str = "") -> str:
    """Return a group's median, its levels, or how many lack the variable."""
    rows = [row for row in run.cohort.get("table") or [] if row.get("variable") == test.get("variable")]
    if level:
        return next((str(row.get(head)) for row in rows if row.get("level") == level), "0")
    shown = [row for row in rows if row.get("level") != "missing"]
    if len(shown) == 1 and shown[0].get("level") == _SPREAD:
        return _rounded(str(shown[0].get(head, "–")))
    return "; ".join(f"{row.get('level')} {row.get(head, '–')}" for row in shown) or "–"


def _rounded(text: str) -> str:
    """Round the numbers of a cell to three figures: medians need no more."""

    def three(found: re.Match[str]) -> str:
        value = float(found[0])
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}".replace("-", "−")

    return re.sub(r"-?\d+\.?\d*", three, text)


def _how(run: Run, found: list[dict[str, Any]]) -> str:
    """Say which tests were used, on how many, and how p was adjusted."""
    ways = list(dict.fromkeys(str(t.get("test", "")).split(",")[0].split(":")[0] for t in found if t.get("test")))
    intervals = list(
        dict.fromkeys(str((t.get("effect") or {}).get("method", "")).split(";")[0] for t in found if t.get("effect"))
    )
    sizes = sorted(int(t["n"]) for t in found if isinstance(t.get("n"), int))
    text = (
        f"Missing: {' / '.join(_groups(run))}. Numbers are medians [quartiles]. Tests: {joined(ways)}. " if ways else ""
    )
    text += f"Intervals of the effect: {joined([w for w in intervals if w])}. " if any(intervals) else ""
    text += f"n = {sizes[0]} to {sizes[-1]} patients with the value. " if sizes else ""
    if published(str(run.facts.get("system") or "")).get("groups"):
        text += "?: its decimal point is unsure in the copy we read; the paper printed no spread. "
    text += "BH: adjusted for all variables of the table (Benjamini and Hochberg 1995)."
    if run.positive and len(run.classes) == 2:
        text += f" A positive effect means higher in {run.positive}."
    if len(run.classes) > 2:
        text += f" Effects and p compare all {len(run.classes)} classes at once, and say nothing of which differ."
    return text
