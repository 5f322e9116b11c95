"""One hospital left out: how the proposed arm did in each hospital that it was not trained in, beside the folds.

It must not know HTML, nor compute a figure: it reads sites.json.
"""

from __future__ import annotations

from typing import Any

from tenfold.report import classes
from tenfold.report.load import Run, readable
from tenfold.report.tabular import Table, one_method
from tenfold.report.words import arm_name, capital, count, interval, number, with_interval
from tenfold.types import Estimate


def table(run: Run) -> Table | None:
    """Each hospital left out in turn, all of them together, and the grouped folds of the same arm."""
    held = run.sites.get(run.target) or []
    metric = _metric(held)
    if not metric:
        return None
    rows = [_row(str(s.get("site") or "?"), s.get(metric), s.get("n")) for s in held]
    together = (((run.sites.get("overall") or {}).get(run.target)) or {}).get(metric)
    strong = [len(rows)]
    rows.append(_row("All hospitals left out in turn", together))
    folds = _folds(run, metric)
    strong.append(len(rows))
    rows.append(_row("Grouped folds, for comparison", folds.to_dict() if folds else None))
    return one_method(
        Table(
            f"One hospital left out, {arm_name(run.proposed)} model: {_name(metric)} in patients of a hospital that no "
            "network was trained in.",
            ("Left out", "n", capital(_name(metric)), "Interval", "Method"),
            rows,
            words=(0, 4),
            strong=tuple(strong),
        )
    )


def sentences(run: Run) -> list[str]:
    """Say what a new hospital may expect, and how few hospitals say so."""
    held = run.sites.get(run.target) or []
    metric = _metric(held)
    found = {str(s.get("site")): Estimate.from_dict(s[metric]) for s in held if readable(s.get(metric))}
    if not found:
        return []
    low, high = min(found, key=lambda s: found[s].value), max(found, key=lambda s: found[s].value)
    folds = _folds(run, metric)
    said = f"Trained in the other hospitals only, the model had its lowest {_name(metric)} in {low}, "
    said += f"{with_interval(found[low])} (n = {found[low].n}), and its highest in {high}, "
    said += f"{with_interval(found[high])} (n = {found[high].n})"
    said += f"; in grouped folds, which mix the hospitals, it was {with_interval(folds)}." if folds else "."
    return [
        said,
        f"{count(len(found), 'hospital')} tell little of the next one: the spread between them is no interval for it.",
    ]


def _metric(held: list[dict[str, Any]]) -> str:
    return next((m for m in (classes.MACRO, "auc") if any(readable(s.get(m)) for s in held)), "")


def _name(metric: str) -> str:
    return "macro one-vs-one AUC" if metric == classes.MACRO else "AUC"


def _folds(run: Run, metric: str) -> Estimate | None:
    found = classes.estimates(run, run.proposed) if metric == classes.MACRO else run.estimates(run.proposed)
    return found.get(metric)


def _row(name: str, held: Any, n: Any = None) -> list[str]:
    if not readable(held):
        why = str((held or {}).get("method") or "not estimated")
        return [name, f"{n:,}" if isinstance(n, int) else "–", "–", "–", why]
    e = Estimate.from_dict(held)
    return [name, f"{n if isinstance(n, int) else e.n:,}", number(e.value), interval(e), e.method]
