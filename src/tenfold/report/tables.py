"""The tables of the report as captions, columns and rows of plain text.

It must not know HTML, nor compute more than predictive values from a sensitivity and a specificity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tenfold.report.load import Run, readable
from tenfold.report.published import published
from tenfold.report.words import (
    METRICS,
    arm_name,
    count,
    duration,
    interval,
    joined,
    metric_label,
    number,
    p_value,
    thresholds,
    with_interval,
)
from tenfold.types import Estimate

PREVALENCES = (0.01, 0.05, 0.10, 0.20, 0.50)


@dataclass(frozen=True)
class Table:
    """A table for a page; the first cell of each row names it.

    Attributes:
        caption: What it shows, with n where one holds for all of it.
        columns: Column heads.
        rows: Cells as text.
        note: What a reader must know to read it.
        strong: Rows to set in bold.
        words: Columns of running text, set to the left; the others are numbers.
        loose: Whether numbers may wrap, for a table that would be too wide.
    """

    caption: str
    columns: tuple[str, ...]
    rows: list[list[str]]
    note: str = ""
    strong: tuple[int, ...] = ()
    words: tuple[int, ...] = (0,)
    loose: bool = False


def cohort(run: Run) -> Table | None:
    """Table 1: who was studied, by outcome."""
    rows = run.cohort.get("table") or []
    if not rows:
        return None
    fixed = ("variable", "level")
    heads = list(dict.fromkeys(k for row in rows for k in row if k not in fixed))
    body = []
    for row in rows:
        name = ", ".join(str(row[k]) for k in fixed if row.get(k))
        body.append([name, *(str(row.get(h, "–")) for h in heads)])
    return Table("Table 1. The cohort by outcome.", ("", *heads), body)


def findings(run: Run) -> Table | None:
    """What the audit found."""
    if not run.findings:
        return None
    order = {"refusal": 0, "warning": 1, "note": 2}
    rows = [
        [
            row.get("severity", ""),
            (row.get("check") or "").replace("_", " "),
            row.get("message", ""),
            str(len((row.get("cases") or "").split()) or "–"),
            number(float(row["value"])) if row.get("value") else "–",
        ]
        for row in sorted(run.findings, key=lambda r: order.get(r.get("severity", ""), 3))
    ]
    return Table(
        "What the audit found before anything was fitted.",
        ("Severity", "Check", "Finding", "Cases", "Value"),
        rows,
        words=(0, 1, 2),
    )


def group(run: Run, name: str, caption: str) -> Table | None:
    """The proposed arm's estimates of one group of metrics, the hold-out beside them where there is one."""
    found, held = run.estimates(run.proposed), run.estimates(run.proposed, "holdout")
    known = [m for m in METRICS if METRICS[m].group == name and m in found]
    if name == "operating":
        known += [m for m in found if m not in METRICS]
    if not known:
        return None
    columns = ["", "Estimate", "Interval", "n", *(["Hold-out (interval)"] if held else []), "Method"]
    rows = []
    for m in known:
        e = found[m]
        remark = METRICS[m].remark if m in METRICS else ""
        label = f"{metric_label(m)} ({remark})" if remark else metric_label(m)
        beside = [with_interval(held.get(m))] if held else []
        rows.append([label, number(e.value), interval(e), f"{e.n:,}", *beside, e.method])
    return _one_method(Table(caption, tuple(columns), rows, words=(0, len(columns) - 1)))


def _one_method(table: Table) -> Table:
    """Say a method that holds for every row once, below the table, in place of its last column."""
    methods = {row[-1] for row in table.rows}
    if len(methods) > 1:
        return table
    note = f"Method of every row: {methods.pop()}. {table.note}".strip()
    return replace(table, columns=table.columns[:-1], rows=[row[:-1] for row in table.rows], note=note)


def beside_published(run: Run) -> Table | None:
    """Ours at the frozen operating point beside the published networks, with their recovered matrices."""
    held = published(str(run.facts.get("system") or ""))
    found = run.estimates(run.proposed)
    if not held or not found:
        return None
    names = ("auc", "accuracy", "ppv", "sensitivity", "specificity", "f1")
    keys = ("auc", "accuracy", "precision", "recall", "specificity", "f1")
    matrix = run.curve(run.proposed, "confusion")
    ours = [f"This run: {arm_name(run.proposed)}", *(with_interval(found.get(m)) for m in names), _matrix(matrix)]
    rows = [ours]
    for r in held.get("rows") or []:
        remark = f" ({r['remark']})" if r.get("remark") else ""
        rows.append([f"{r['method']}{remark}", *(number(r.get(k)) for k in keys), _matrix(r)])
    return Table(
        f"This run beside the published figures ({held['citation'].split('.')[0]}), which are of {held['data']}.",
        ("", "AUC", "Accuracy", "Precision (PPV)", "Recall (sens.)", "Specificity", "F1", "TP / FN / FP / TN"),
        rows,
        note="Published figures came without intervals. Other patients, other class mix: a comparison in words only.",
        strong=(0,),
        loose=True,
    )


def _matrix(m: dict[str, Any]) -> str:
    return " / ".join(str(m.get(k, "–")) for k in ("tp", "fn", "fp", "tn")) if m else "–"


def others_published(run: Run) -> Table | None:
    """Other published figures on the same public films."""
    rows = published(str(run.facts.get("system") or "")).get("others") or []
    if not rows:
        return None
    return Table(
        "Other published figures on the same public films (± as printed there).",
        ("", "Source", "Accuracy", "AUC"),
        [[r["method"], r["source"], _spread(r, "accuracy"), _spread(r, "auc")] for r in rows],
        words=(0, 1),
    )


def _spread(row: dict[str, Any], key: str) -> str:
    spread = f" ± {number(row[f'{key}_spread'])}" if f"{key}_spread" in row else ""
    return f"{number(row.get(key))}{spread}"


def predictive(sensitivity: float, specificity: float, prevalence: float) -> tuple[float, float]:
    """Return PPV and NPV at another prevalence (Bayes); NaN where nobody would be called that way."""
    ill, well = prevalence, 1 - prevalence
    called, cleared = sensitivity * ill + (1 - specificity) * well, specificity * well + (1 - sensitivity) * ill
    nan = float("nan")
    return (sensitivity * ill / called if called else nan, specificity * well / cleared if cleared else nan)


def prevalence(run: Run) -> Table | None:
    """PPV and NPV where disease is rarer or commoner than in the cohort."""
    found = run.estimates(run.proposed)
    if "sensitivity" not in found or "specificity" not in found:
        return None
    a, b = found["sensitivity"], found["specificity"]
    rows = []
    for share in PREVALENCES:
        middle = predictive(a.value, b.value, share)
        worst, best = predictive(a.low, b.low, share), predictive(a.high, b.high, share)
        cells = [
            f"{number(m, 2)} ({number(w, 2)} to {number(t, 2)})" for m, w, t in zip(middle, worst, best, strict=True)
        ]
        rows.append([f"{share:.0%}", *cells])
    return Table(
        "Predictive values at other prevalences: computed from sensitivity and specificity, not measured.",
        ("Prevalence", "PPV (range)", "NPV (range)"),
        rows,
        note=f"From sensitivity {with_interval(a)}, n = {a.n}, and specificity {with_interval(b)}, n = {b.n}. "
        "The range sets both to the lower, then both to the upper ends of their intervals, so it is wider than an "
        "interval of the same level. It assumes that sensitivity and specificity do not change with prevalence; "
        "often they do.",
    )


def arms(run: Run) -> Table | None:
    """Every arm: what it was, whether it ended, its AUC, and how far it is from the proposed one."""
    if not run.arms:
        return None
    rows = []
    for arm, a in run.arms.items():
        e = run.estimates(arm).get("auc")
        rows.append(
            [
                arm_name(arm),
                _status(a),
                str(a.get("network") or "–"),
                str(a.get("weights") or "–"),
                str(a.get("size") or "–"),
                f"{a['parameters'] / 1e6:.2f} M" if isinstance(a.get("parameters"), int) else "–",
                with_interval(e),
                duration(a.get("seconds")),
            ]
        )
    return Table(
        "Arms and ablations, the proposed one first.",
        ("", "Status", "Network", "Starting weights", "px", "Parameters", "AUC (interval)", "Time"),
        rows,
        strong=(0,) if run.proposed in run.arms else (),
        words=(0, 1, 2, 3),
    )


def _status(arm: dict[str, Any]) -> str:
    if arm.get("status") == "failed":
        return f"FAILED: {arm.get('reason') or 'no reason recorded'}"
    return str(arm.get("status") or "–")


def differences(run: Run) -> Table | None:
    """Paired differences between arms on the same patients."""
    pairs = run.compared()
    if not pairs:
        return None
    rows = []
    for c in pairs:
        gap = c.get("difference")
        e = Estimate.from_dict(gap) if readable(gap) else None
        rows.append(
            [
                f"{arm_name(str(c.get('arm')))} − {arm_name(str(c.get('reference')))}",
                metric_label(str(c.get("metric", ""))),
                number(e.value) if e else "–",
                interval(e) if e else "–",
                p_value(c.get("p")),
                p_value(c.get("p_holm")),
                f"{e.n:,}" if e else "–",
                str(c.get("method") or "–"),
            ]
        )
    heads = ("", "Metric", "Difference", "Interval", "p", "p (Holm)", "n", "Method")
    return _one_method(Table("Paired differences between arms, on the same patients.", heads, rows, words=(0, 1, 7)))


def operating_points(run: Run) -> Table | None:
    """The frozen thresholds of every arm."""
    rows = []
    for arm in run.arms:
        found = thresholds(run, arm)
        rules = list(dict.fromkeys(r.get("rule", "") for r in run.operating_points if r.get("arm") == arm))
        if found:
            rows.append([arm_name(arm), joined(rules), str(len(found)), number(min(found)), number(max(found))])
    return (
        Table(
            "Frozen operating points: a case is positive from this probability on.",
            ("", "Rule", "Thresholds (one a fold)", "Smallest", "Largest"),
            rows,
            words=(0, 1),
        )
        if rows
        else None
    )


def stages(run: Run) -> Table | None:
    """What each stage of the proposed arm did, and what went over to the next."""
    seen: dict[str, dict[str, Any]] = {}
    for stage in (run.facts.get("stages") or {}).get(run.proposed) or []:
        seen.setdefault(str(stage.get("name", "")), stage)
    if not seen:
        return None
    keys = ("cohort", "task", "thaw", "transferred", "reset")
    return Table(
        f"Stages of the {arm_name(run.proposed)} arm: what was transferred and what was reset.",
        ("Stage", "Cohort", "Task", "Thawed", "Transferred", "Reset"),
        [[name, *(_plain(stage.get(k)) for k in keys)] for name, stage in seen.items()],
        words=(0, 1, 2, 3, 4, 5),
    )


def sanity(run: Run) -> Table | None:
    """Where heat maps fall in the masks, beside a prior that always points at the centre."""
    held = run.explanations.get("sanity") or {}
    rows = []
    for label, key in (
        ("Pointing game (share of hits)", "pointing"),
        ("Energy inside the mask", "energy"),
        ("Energy gained over the centre prior", "energy_gain"),
    ):
        mine, centre = held.get(key), held.get(f"centre_{key}")
        if readable(mine):  # a part that was not measured is null
            e = Estimate.from_dict(mine)
            other = Estimate.from_dict(centre) if readable(centre) else None
            rows.append([label, with_interval(e), with_interval(other), f"{e.n:,}", e.method])
    return (
        Table(
            "Heat maps against masks of disease.",
            ("", "Heat map (interval)", "Centre prior (interval)", "n", "Method"),
            rows,
            words=(0, 4),
        )
        if rows
        else None
    )


def pairs(caption: str, heads: Sequence[str], data: Any) -> Table | None:
    """A table of two columns from a mapping."""
    if not data:
        return None
    items = data.items() if isinstance(data, dict) else [("", data)]
    return Table(caption, tuple(heads), [[str(k), _plain(v)] for k, v in items], words=(0, 1))


def _plain(value: Any) -> str:
    """Return any JSON value as words."""
    if isinstance(value, dict):
        return "; ".join(f"{k}: {_plain(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return joined([_plain(v) for v in value]) or "–"
    return "–" if value is None or value == "" else str(value)


def conditions(run: Run) -> Table | None:
    """How, when, where and from which seed the run was made."""
    f = run.facts
    shown = {
        "Command": f.get("command"),
        "tenfold": f.get("tenfold"),
        "Started (UTC)": f.get("started"),
        "Duration": duration(f.get("seconds")),
        "Device": f.get("device"),
        "Threads": f.get("threads"),
        "Precision": f.get("precision"),
        "Seed": f.get("seed"),
        "Preset": f.get("preset"),
        "System": f.get("system"),
        "Bundle": f.get("bundle"),
        "Opened": [f"{o.get('what')} at {o.get('when')}" for o in f.get("opened") or []],
    }
    return pairs("How the run was made.", ("", "Value"), {k: v for k, v in shown.items() if v not in (None, "", [])})


def timings(run: Run) -> Table | None:
    """Seconds by step."""
    held = run.facts.get("timings") or {}
    return pairs("Time by step.", ("Step", "Time"), {k: duration(v) for k, v in held.items()})


def failed(run: Run) -> list[str]:
    """Say each arm that failed, with its reason."""
    return [
        f"{arm_name(arm)} failed: {a.get('reason') or 'no reason recorded'}."
        for arm, a in run.arms.items()
        if a.get("status") == "failed"
    ]


def flaws(run: Run) -> list[str]:
    """Say the known flaws of each arm."""
    return [f"{arm_name(arm)}: {flaw}" for arm, a in run.arms.items() for flaw in a.get("flaws") or []]


def counted(run: Run) -> str:
    """Say how many arms ended and how many did not."""
    bad = len(failed(run))
    return f"{count(len(run.arms), 'arm')}, {bad} failed" if bad else count(len(run.arms), "arm")
