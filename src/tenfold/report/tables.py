"""The tables of the report as captions, columns and rows of plain text.

It must not know HTML, nor compute more than predictive values from a sensitivity and a specificity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tenfold.report.load import Run, readable
from tenfold.report.tabular import Table, one_method
from tenfold.report.words import (
    METRICS,
    arm_name,
    count,
    duration,
    interval,
    joined,
    metric_label,
    number,
    opened_name,
    p_value,
    task,
    thresholds,
    with_interval,
)
from tenfold.types import Estimate

PREVALENCES = (0.01, 0.05, 0.10, 0.20, 0.50)


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
    return one_method(Table(caption, tuple(columns), rows, words=(0, len(columns) - 1)))


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
    several = any(run.inputs(arm) for arm in run.arms)
    ended = all(a.get("status") == "done" for a in run.arms.values())
    words = [*([] if ended else ["Status"]), *(["Sees"] if several else []), "Network", "Starting weights"]
    rows = [
        [
            arm_name(arm),
            *([] if ended else [status(a)]),
            *([joined(list(run.inputs(arm))) or "–"] if several else []),
            str(a.get("network") or "–"),
            str(a.get("weights") or "–"),
            str(a.get("size") or "–"),
            how_big(a.get("parameters")),
            with_interval(run.estimates(arm).get("auc")),
            duration(a.get("seconds")),
        ]
        for arm, a in run.arms.items()
    ]
    return Table(
        f"Arms and ablations, the proposed one first{'; all ended' if ended else ''}.",
        ("", *words, "px", "Parameters", "AUC (interval)", "Time"),
        rows,
        strong=(0,) if run.proposed in run.arms else (),
        words=tuple(range(1 + len(words))),
    )


def how_big(n: Any) -> str:
    """Return a number of parameters; models that have none to count say so by a dash."""
    if not isinstance(n, int) or not n:
        return "–"
    return f"{n / 1e6:.2f} M" if n >= 100_000 else f"{n:,}"


def status(arm: dict[str, Any]) -> str:
    """Say whether an arm ended, and why it did not."""
    if arm.get("status") == "failed":
        return f"FAILED: {arm.get('reason') or 'no reason recorded'}"
    return str(arm.get("status") or "–")


def differences(run: Run) -> Table | None:
    """Paired differences in AUC between arms on the same patients."""
    return _differences(run, "Paired differences in AUC between arms, on the same patients.", auc=True)


def other_differences(run: Run) -> Table | None:
    """Paired differences between arms in the other measures."""
    return _differences(run, "Paired differences between arms in the other measures.", auc=False)


def _differences(run: Run, caption: str, *, auc: bool) -> Table | None:
    rows = []
    for c in run.compared():
        if str(c.get("arm")) in run.altered or (c.get("metric") == "auc") != auc:
            continue
        gap = c.get("difference")
        e = Estimate.from_dict(gap) if readable(gap) else None
        rows.append(
            [
                f"{arm_name(str(c.get('arm')))} − {arm_name(str(c.get('reference')))}",
                *([] if auc else [metric_label(str(c.get("metric", "")))]),
                number(e.value) if e else "–",
                interval(e) if e else "–",
                p_value(c.get("p")),
                p_value(c.get("p_holm")),
                f"{e.n:,}" if e else "–",
                str(c.get("method") or "–"),
            ]
        )
    if not rows:
        return None
    heads = ("", *([] if auc else ["Metric"]), "Difference", "Interval", "p", "p (Holm)", "n", "Method")
    return one_method(Table(caption, heads, rows, words=(0, *([] if auc else [1]), len(heads) - 1)))


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
    chain = (run.facts.get("stages") or {}).get(run.proposed) or []
    for stage in chain:
        seen.setdefault(str(stage.get("name", "")), stage)
    if not seen:
        return None
    keys = ("cohort", "task", "thaw", "transferred", "reset")
    return Table(
        f"Stages of the {arm_name(run.proposed)} arm: what was transferred and what was reset.",
        ("Stage", "Cohort", "Task", "Thawed", "Transferred", "Reset"),
        [
            [name, *(_plain(task(stage, chain) if k == "task" else stage.get(k)) for k in keys)]
            for name, stage in seen.items()
        ],
        words=(0, 1, 2, 3, 4, 5),
    )


def sanity_sentence(run: Run) -> str:
    """Say whether the heat maps point at disease better than a blob at the centre does; empty where not measured."""
    held = (run.explanations.get("sanity") or {}).get("energy_gain")
    if not readable(held):
        return ""
    e = Estimate.from_dict(held)
    gap = f"{with_interval(e)}, n = {e.n}"
    if e.low > 0:
        return f"The maps hold more of their energy inside the masks of disease than a blob at the centre: {gap} more."
    if e.high < 0:
        return (
            f"The maps hold less of their energy inside the masks of disease than a blob at the centre ({gap}): they "
            "are no sign that the model looked at disease."
        )
    return f"The maps are not shown to hold more energy inside the masks of disease than a blob at the centre: {gap}."


def sanity(run: Run) -> Table | None:
    """Where heat maps fall in the masks, beside a prior that always points at the centre."""
    held = run.explanations.get("sanity") or {}
    rows = []
    for label, key in (
        ("Pointing game (share of hits)", "pointing"),
        ("Energy inside the mask", "energy"),
        ("Energy gained over the centre prior", "energy_gain"),
        ("Energy gained over random weights", "energy_over_random"),
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
    }
    return pairs("How the run was made.", ("", "Value"), {k: v for k, v in shown.items() if v not in (None, "", [])})


def opened(run: Run) -> Table | None:
    """When data that had been kept aside were first looked at."""
    rows = [
        [opened_name(o), str(o.get("when") or "–"), f"{o['cases']:,}" if isinstance(o.get("cases"), int) else "–"]
        for o in run.facts.get("opened") or []
    ]
    if not rows:
        return None
    return Table(
        "When data that had been kept aside were opened.",
        ("", "Opened (UTC)", "Cases"),
        rows,
        note="The operating points of every arm were written before." if run.operating_points else "",
    )


def timings(run: Run) -> Table | None:
    """Seconds by step."""
    held = run.facts.get("timings") or {}
    return pairs("Time by step.", ("Step", "Time"), {k: duration(v) for k, v in held.items()})


def failed(run: Run) -> list[str]:
    """Say each arm that failed, with its reason."""
    return [
        f"{arm_name(arm)} failed: {a.get('reason') or 'no reason recorded'}."
        for arm, a in (run.arms | run.altered).items()
        if a.get("status") == "failed"
    ]


def flaws(run: Run) -> list[str]:
    """Say the known flaws of each arm."""
    return [f"{arm_name(arm)}: {flaw}" for arm, a in run.arms.items() for flaw in a.get("flaws") or []]


def counted(run: Run) -> str:
    """Say how many arms ended and how many did not."""
    bad = len(failed(run))
    return f"{count(len(run.arms), 'arm')}, {bad} failed" if bad else count(len(run.arms), "arm")
