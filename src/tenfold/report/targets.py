"""Several targets side by side: the summary that leads the report, and what holds for all arms.

It must not know HTML, nor compute a test.
"""

from __future__ import annotations

from tenfold.report import chance
from tenfold.report.load import Run
from tenfold.report.tables import how_big, status
from tenfold.report.tabular import Table
from tenfold.report.words import (
    arm_name,
    count,
    duration,
    joined,
    number,
    p_value,
    score_cut,
    target_name,
    versus,
    with_interval,
)


def heading(name: str) -> str:
    """Return a target's name as a heading."""
    plain = target_name(name)
    return f"{plain[:1].upper()}{plain[1:]}"


def summary(run: Run) -> Table | None:
    """One line a target: who is known, the AUC of the proposed arm, and whether it can be told from chance."""
    if not run.several:
        return None
    views = run.each
    held = any(v.estimates(v.proposed, "holdout").get("auc") for v in views)
    chances = any(chance.permuted(v) is not None for v in views)
    scores = any("pearson_r" in v.estimates(v.proposed) for v in views)
    ceilings = any(_ceiling(v) is not None for v in views)
    heads = [
        "",
        "AUC" if run.external else "AUC, out of fold",
        *(["AUC, hold-out"] if held else []),
        "Told from chance",
    ]
    heads += [*(["p, labels permuted"] if chances else []), *(["Ceiling"] if ceilings else [])]
    heads += [*(["Pearson r of the score"] if scores else []), "Known", "Positive"]
    rows = []
    for v in views:
        t, found = v.facts.get("target") or {}, v.estimates(v.proposed)
        what = f" (score {cut})" if (cut := score_cut(t)) else f" ({versus(v) or v.positive})" * bool(v.positive)
        row = [heading(v.target) + what, with_interval(found.get("auc"))]
        row += [with_interval(v.estimates(v.proposed, "holdout").get("auc"))] if held else []
        row += [{True: "yes", False: "no", None: "not known"}[chance.verdict(v).told]]
        row += [p_value(chance.permuted(v))] if chances else []
        row += [number(_ceiling(v))] if ceilings else []
        row += [with_interval(found.get("pearson_r"), 2)] if scores else []
        rows.append([*row, *(f"{t[k]:,}" if isinstance(t.get(k), int) else "–" for k in ("known", "positives"))])
    methods = list(dict.fromkeys(e.method for v in views if (e := v.estimates(v.proposed).get("auc")) and e.method))
    draws = sorted({int(n) for v in views if isinstance(n := (v.permutations.get(v.proposed) or {}).get("n"), int)})
    note = f"Intervals of the AUC: {joined(methods)}. " if methods else ""
    drawn = joined([f"{n:,}" for n in draws])
    note += f"p: share of {drawn} permutations of the labels that did as well. " if draws else ""
    note += "Told from chance: the interval lies above 0.5"
    note += f" and p is below {chance.LEVEL:g}" if chances else ""
    note += ". The outcomes are judged one by one; nothing here is adjusted for their number."
    return Table(
        f"The {arm_name(run.proposed)} model on each of {count(len(views), 'outcome')}.",
        tuple(heads),
        rows,
        note=note,
        strong=tuple(i for i, v in enumerate(views) if chance.verdict(v).told),
        loose=True,
    )


def _ceiling(run: Run) -> float | None:
    value = (run.facts.get("simulated") or {}).get("ceiling_auc")
    return float(value) if isinstance(value, int | float) else None


def arms(run: Run) -> Table | None:
    """Every arm once, with its AUC on each target."""
    if not run.several or not run.arms:
        return None
    views = run.each
    ended = all(a.get("status") == "done" for a in run.arms.values())
    chained = any(a.get("stages") for a in run.arms.values())
    words = [*([] if ended else ["Status"]), "Sees", *(["Stages"] if chained else [])]
    rows = []
    for arm, a in run.arms.items():
        row = [arm_name(arm), *([] if ended else [status(a)]), joined(list(run.inputs(arm))) or "–"]
        row += [" → ".join(str(s) for s in a.get("stages") or []) or "–"] if chained else []
        row += [how_big(a.get("parameters"))]
        row += [with_interval(v.estimates(arm).get("auc"), 2) for v in views]
        rows.append([*row, duration(a.get("seconds"))])
    return Table(
        f"Arms and ablations, the proposed one first{'; all ended' if ended else ''}: AUC (interval) on each outcome.",
        ("", *words, "Parameters", *(heading(v.target) for v in views), "Time"),
        rows,
        strong=(0,) if run.proposed in run.arms else (),
        words=tuple(range(1 + len(words))),
        loose=True,
    )


def chances(run: Run) -> list[str]:
    """Say of one target whether it can be told from chance, and which differences between arms are shown."""
    return [chance.sentence(run), chance.gain_sentence(run)]
