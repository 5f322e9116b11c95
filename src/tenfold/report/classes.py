"""Three classes or more, judged together: the headline, all arms, each class, each pair, the paired comparisons.

It must not know HTML, nor compute a figure: it reads classes.json.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tenfold.report.load import Run, readable
from tenfold.report.tables import status
from tenfold.report.tabular import Table, one_method
from tenfold.report.words import (
    METRICS,
    arm_name,
    interval,
    joined,
    metric_label,
    number,
    p_value,
    target_name,
    whose_predictions,
    with_interval,
)
from tenfold.types import Estimate

MACRO = "macro_ovo_auc"
OVERALL = (MACRO, "macro_ovr_auc", "balanced_accuracy", "accuracy", "macro_f1", "log_loss", "brier")
_EACH = ("auc", "sensitivity", "specificity", "ppv", "npv", "f1")
_EACH_CALIBRATED = ("calibration_intercept", "calibration_slope", "ici", "net_benefit")
_LABELS = {"brier": "Brier score, sum over classes"}
_LABELS_OF_ONE = {"auc": "AUC, this class against the rest", "net_benefit": "Net benefit at the class's prevalence"}


def of(run: Run) -> dict[str, Any]:
    """Return what classes.json holds of this target; empty where it has two classes or the file is not there."""
    return dict(run.all_classes.get(run.target) or {})


def names(run: Run) -> list[str]:
    """Return the classes in the order of classes.json."""
    return [str(name) for name in of(run).get("classes") or []]


def part(run: Run, arm: str, kind: str) -> dict[str, Any]:
    """Return one part of what is held of an arm: "roc", "calibration", "decision", "by_class" ..."""
    return dict(((of(run).get("arms") or {}).get(arm) or {}).get(kind) or {})


def estimates(run: Run, arm: str) -> dict[str, Estimate]:
    """Return an arm's estimates of all classes together, by metric."""
    return _readable(part(run, arm, "overall"))


def of_class(run: Run, arm: str, name: str) -> dict[str, Estimate]:
    """Return an arm's estimates of one class against the rest, by metric."""
    return _readable(part(run, arm, "by_class").get(name) or {})


def _readable(held: Mapping[str, Any]) -> dict[str, Estimate]:
    return {metric: Estimate.from_dict(e) for metric, e in held.items() if readable(e)}


def label(metric: str) -> str:
    """Return the name of a metric of all classes together."""
    return _LABELS.get(metric, metric_label(metric))


def ceiling(run: Run, arm: str) -> float | None:
    """Return the best attainable macro AUC from what an arm sees; None for real patients."""
    held = (run.facts.get("simulated") or {}).get("ceiling_figures") or {}
    seen = set(run.inputs(arm))
    pictures = {name for name in seen if _kind(run, name) == "image"}
    if len(seen) == 1:
        keys = tuple(seen)
    elif pictures != {name for name in run.facts.get("inputs") or {} if _kind(run, name) == "image"}:
        keys = ()  # of some of the views together no ceiling is known
    else:
        keys = ("fused_observed", "fused") if pictures == seen else ("clinical_observed",)
    values = ((held.get(key) or {}).get(MACRO) for key in keys)
    return next((float(value) for value in values if isinstance(value, int | float)), None)


def _kind(run: Run, name: str) -> str:
    return str(((run.facts.get("inputs") or {}).get(name) or {}).get("kind"))


def headline(run: Run) -> list[str]:
    """Say how well the classes are told apart, with interval, method and n; empty for a yes or no."""
    found = estimates(run, run.proposed)
    e = found.get(MACRO)
    if e is None:
        return []
    about = f" of {target_name(run.target)}" if run.several else ""
    said = [
        f"The {arm_name(run.proposed)} model told {joined(names(run))}{about} apart with a macro one-vs-one AUC of "
        f"{number(e.value)} ({interval(e)}; n = {e.n}), in {whose_predictions(run)}; 0.5 is chance.",
        f"How the interval was made: {e.method}.",
    ]
    right = found.get("balanced_accuracy")
    if right is not None:
        chance = 1 / max(len(names(run)), 1)
        said.append(
            f"Deciding for the likeliest class, its balanced accuracy was {with_interval(right)}; n = {right.n}; "
            f"{number(chance)} is chance."
        )
    best = ceiling(run, run.proposed)
    if best is not None:
        gap = best - e.value
        holds = "holds" if e.low <= best <= e.high else "does not hold"
        said.append(
            f"The cohort is simulated: no model can expect more than {number(best)} from what this one sees. It is "
            f"{number(abs(gap))} {'below' if gap >= 0 else 'above'} that, and its interval {holds} it."
        )
    return said


def overall(run: Run, caption: str = "All classes together, arm by arm; the proposed one first.") -> Table | None:
    """Every arm's figures of all classes together; one without them says why."""
    shown = [m for m in OVERALL if any(m in estimates(run, arm) for arm in run.arms)]
    if not shown:
        return None
    rows, left_out = [], run.elsewhere_in_grid
    for arm, a in run.arms.items():
        found = estimates(run, arm)
        if arm in left_out:
            continue
        if found:
            rows.append([arm_name(arm), *(with_interval(found.get(m), digits(m)) for m in shown)])
        else:
            rows.append([arm_name(arm), status(a) if a.get("status") == "failed" else "–", *["–"] * (len(shown) - 1)])
    mine = estimates(run, run.proposed) or next(e for arm in run.arms if (e := estimates(run, arm)))
    return Table(
        f"{caption} n = {next(iter(mine.values())).n}.",
        ("", *(label(m) for m in shown)),
        rows,
        note=f"Value (interval). {methods(mine, shown)} Accuracies and F1 decide for the likeliest class; of log loss "
        "and Brier score 0 is best."
        + (" Further networks and starts stand in the table of the grid." if left_out else ""),
        strong=(0,) if run.proposed in run.arms else (),
        loose=True,
    )


def digits(metric: str) -> int:
    """Return how many decimals a wide table has room for: an AUC gets three."""
    return 3 if metric in (MACRO, "auc") else 2


def methods(found: Mapping[str, Estimate], shown: list[str]) -> str:
    """Say how each figure's interval was made, a way once."""
    ways: dict[str, list[str]] = {}
    for metric in shown:
        if metric in found:
            ways.setdefault(found[metric].method, []).append(label(metric))
    if len(ways) == 1:
        return f"Method of all: {next(iter(ways))}."
    return " ".join(f"{joined(of_them)}: {way}." for way, of_them in ways.items())


def each(run: Run) -> Table | None:
    """The proposed arm, one class at a time against the rest."""
    columns = names(run)
    found = {name: of_class(run, run.proposed, name) for name in columns}
    shown = [m for m in (*_EACH, *_EACH_CALIBRATED) if any(m in e for e in found.values())]
    if not shown:
        return None
    rows = []
    for m in shown:
        held = [found[name].get(m) for name in columns]
        sizes = [f"{e.n:,}" if e else "–" for e in held]
        remark = METRICS[m].remark if m in _EACH_CALIBRATED and m not in _LABELS_OF_ONE else ""
        rows.append(
            [
                _LABELS_OF_ONE.get(m, metric_label(m)) + (f" ({remark})" if remark else ""),
                *(with_interval(e) for e in held),
                sizes[0] if len(set(sizes)) == 1 else "\u00a0/\u00a0".join(sizes),
                one_way([e.method for e in held if e]),
            ]
        )
    return one_method(
        Table(
            f"Each class against the rest, {arm_name(run.proposed)} model.",
            ("", *columns, "n", "Method"),
            rows,
            note=f"Value (interval); n: {' / '.join(columns)} where it differs. A case is decided for its likeliest "
            "class. Predictive values and net benefit are those of this cohort's class mix.",
            words=(0, len(columns) + 2),
            loose=True,
        )
    )


def one_way(ways: list[str]) -> str:
    """Join ways of making an interval; those that differ in a number alone, a threshold, are told once."""
    told = list(dict.fromkeys(ways))
    split = [re.split(r"(\d+\.\d+)", way) for way in told]
    if len({tuple(parts[::2]) for parts in split}) != 1:
        return "; ".join(told)
    return "".join(" / ".join(dict.fromkeys(parts)) for parts in zip(*split, strict=True))


def pairs(run: Run) -> Table | None:
    """The AUC of each pair of classes, of which the macro one-vs-one AUC is the mean."""
    found = _readable(part(run, run.proposed, "pairs"))
    if not found:
        return None
    rows = [
        [pair.replace(" | ", " and "), number(e.value), interval(e), f"{e.n:,}", e.method] for pair, e in found.items()
    ]
    return one_method(
        Table(
            f"Each pair of classes, {arm_name(run.proposed)} model: AUC among the cases of those two.",
            ("", "AUC", "Interval", "n", "Method"),
            rows,
            note="Mean of both directions; the macro one-vs-one AUC is the mean of these pairs.",
            words=(0, 4),
        )
    )


def comparisons(run: Run, *, macro: bool = True) -> Table | None:
    """Paired differences between arms in the macro AUC, or in the other figures of all classes together."""
    rows = []
    for c in of(run).get("comparisons") or []:
        if str(c.get("arm")) in run.altered or (c.get("metric") == MACRO) != macro:
            continue
        gap = c.get("difference")
        e = Estimate.from_dict(gap) if readable(gap) else None
        rows.append(
            [
                f"{arm_name(str(c.get('arm')))} − {arm_name(str(c.get('reference')))}",
                label(str(c.get("metric", ""))),
                number(e.value) if e else "–",
                interval(e) if e else "–",
                p_value(c.get("p")),
                p_value(c.get("p_adjusted")),
                f"{e.n:,}" if e else "–",
                str(c.get("method") or "–"),
            ]
        )
    if not rows:
        return None
    heads = ("", "Metric", "Difference", "Interval", "p", "p (adjusted)", "n", "Method")
    caption = "Paired differences between arms, all classes together, on the same patients."
    return one_method(Table(caption, heads, rows, words=(0, 1, len(heads) - 1)))
