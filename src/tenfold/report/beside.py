"""This run beside the published figures: all arms in one table, and the paper's own figures and tables one for one.

It must not know HTML, nor tune anything towards what was printed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from tenfold.report import classes, grid
from tenfold.report.inputs import difference
from tenfold.report.load import Run
from tenfold.report.published import matching, published
from tenfold.report.readers import estimate as read_estimate
from tenfold.report.readers import places, ways
from tenfold.report.tabular import Table
from tenfold.report.words import arm_name, joined, number, target_name, with_interval
from tenfold.types import Estimate

_METRICS = ("auc", "accuracy", "sensitivity", "specificity", "ppv", "f1")
_KEYS = ("auc", "accuracy", "recall", "specificity", "precision", "f1")
_HEADS = ("", "AUC", "Accuracy", "Sensitivity (recall)", "Specificity", "Precision (PPV)", "F1")


_MARKS = {"accuracy": "†", "f1": "‡"}
_IMPOSSIBLE = (
    " † Not between its sensitivity and its specificity, as any accuracy must be. "
    "‡ Above the mean of its precision and recall, as no F1 can be."
)


@dataclass(frozen=True)
class Item:
    """One figure or table of the paper, and ours beside it.

    Attributes:
        item: Its name in the paper.
        shows: What it shows, with its printed number.
        ours: Our number, in words.
        anchor: Where ours stands on the page.
        doubt: Where the paper contradicts itself there.
    """

    item: str
    shows: str
    ours: str
    anchor: str
    doubt: str


def table(run: Run) -> Table | None:
    """Every arm at the frozen operating point with intervals, each above the published row of the same thing."""
    held = published(str(run.facts.get("system") or ""))
    measured = [arm for arm in run.arms if any(view.estimates(arm) for view in run.each)]
    if not held or not measured:
        return None
    if any("aucs" in row for row in held.get("rows") or []):
        return _by_outcome(run, held, measured)
    if any(classes.MACRO in row for row in held.get("rows") or []):
        return _of_all_classes(run, held)
    left = list(held.get("rows") or [])
    matrices = any("tp" in row for row in left)
    rows: list[list[str]] = []
    strong, soft = [], []
    for arm in measured:
        found = run.estimates(arm)
        strong += [len(rows)] if arm == run.proposed else []
        name = f"This run: {arm_name(arm)}" if arm == run.proposed else arm_name(arm)
        matrix = [_matrix(run.curve(arm, "confusion"))] if matrices else []
        rows.append([name, *(with_interval(found.get(m)) for m in _METRICS), *matrix])
        for row in [r for r in left if _same(run, arm, r)]:
            left.remove(row)
            soft.append(len(rows))
            rows.append(_published(row, matrices))
    for row in left:
        soft.append(len(rows))
        rows.append(_published(row, matrices))
    marked = any(row.get("impossible") for row in held.get("rows") or [])
    e = run.estimates(run.proposed).get("auc")
    return Table(
        f"{'Table 3. ' if len(measured) > 1 else ''}This run{f' (out of fold, n = {e.n})' if e else ''} beside the "
        f"published figures ({held['citation'].split('.')[0]}), which are of {held['data']}.",
        (*_HEADS, *(["TP / FN / FP / TN"] if matrices else [])),
        rows,
        note="Ours at the frozen operating point, with intervals; published figures, set back, came without any. "
        f"Other patients, other class mix: a comparison in words only.{_IMPOSSIBLE if marked else ''}",
        strong=tuple(strong),
        soft=tuple(soft),
        loose=True,
    )


def _by_outcome(run: Run, held: dict[str, Any], measured: list[str]) -> Table:
    """AUC on each outcome: a paper of several outcomes beside a run of one or more of them."""
    theirs = list(dict.fromkeys(name for row in held["rows"] for name in row.get("aucs") or {}))
    views = {view.target: view for view in run.each}
    columns = [(name, matching(name, theirs)) for name in views]
    columns += [("", name) for name in theirs if name not in {t for _, t in columns}]
    left = list(held["rows"])
    rows: list[list[str]] = []
    strong, soft = [], []

    def add(row: dict[str, Any]) -> None:
        soft.append(len(rows))
        cells = [_printed(row, t) for _, t in columns]
        rows.append([f"Published: {row['method']}", *cells])

    for arm in measured:
        strong += [len(rows)] if arm == run.proposed else []
        name = f"This run: {arm_name(arm)}" if arm == run.proposed else arm_name(arm)
        cells = [with_interval(views[ours].estimates(arm).get("auc")) if ours else "–" for ours, _ in columns]
        rows.append([name, *cells])
        for row in [r for r in left if _same(run, arm, r)]:
            left.remove(row)
            add(row)
    for row in left:
        add(row)
    sizes = [f"{target_name(name)} {e.n}" for name, v in views.items() if (e := v.estimates(run.proposed).get("auc"))]
    heads = [target_name(ours or t) for ours, t in columns]
    return Table(
        f"This run (AUC, {'of its cohort' if run.external else 'out of fold'}; n: {', '.join(sizes) or 'unknown'}) "
        f"beside the published figures ({held['citation'].split('.')[0]}), which are of {held['data']}.",
        ("", *heads),
        rows,
        note="Ours with intervals; published figures, set back, came without any. In brackets, where it stands: what "
        f"interval they would have, computed by us ({held.get('interval_method', 'method not recorded')}). Other "
        "patients, other class mix: a comparison in words only.",
        strong=tuple(strong),
        soft=tuple(soft),
        loose=True,
    )


def _of_all_classes(run: Run, held: dict[str, Any]) -> Table | None:
    """Macro AUC of the arms: a paper of three classes or more beside a run of as many."""
    left = list(held["rows"])
    found = {arm: e for arm in run.arms if (e := classes.estimates(run, arm).get(classes.MACRO)) is not None}
    if not found:
        return None
    rows: list[list[str]] = []
    strong, soft = [], []

    def add(row: dict[str, Any]) -> None:
        soft.append(len(rows))
        rows.append([f"Published: {row['method']}", number(row[classes.MACRO])])

    for arm, estimate in found.items():
        same = [row for row in left if _same(run, arm, row)]
        if arm in run.elsewhere_in_grid and not same:
            continue
        strong += [len(rows)] if arm == run.proposed else []
        name = f"This run: {arm_name(arm)}" if arm == run.proposed else arm_name(arm)
        rows.append([name, with_interval(estimate)])
        for row in same:
            left.remove(row)
            add(row)
    for row in left:
        add(row)
    n = next(iter(found.values())).n
    return Table(
        f"This run ({'its cohort' if run.external else 'out of fold'}, n = {n}) beside the published figures "
        f"({held['citation'].split('.')[0]}), which are of {held['data']}.",
        ("", classes.label(classes.MACRO)),
        rows,
        note="Over all classes together; ours with intervals, the published figure, set back, came without any. Other "
        "patients, other class mix: a comparison in words only.",
        strong=tuple(strong),
        soft=tuple(soft),
        loose=True,
    )


def _printed(row: dict[str, Any], target: str) -> str:
    """Return a published AUC, with the interval that it would have where we computed one."""
    if target not in (row.get("aucs") or {}):
        return "–"
    low, high = (row.get("intervals") or {}).get(target) or (None, None)
    return f"{number(row['aucs'][target], 2)}" + (
        f" [{number(low, 2)} to {number(high, 2)}]" if low is not None else ""
    )


def _same(run: Run, arm: str, row: dict[str, Any]) -> bool:
    """Whether a published row is of the same thing as an arm of ours."""
    if row.get("headline"):
        return arm == run.proposed
    names = {_plain(str(name)) for name in (row.get("method"), *(row.get("arms") or []))}
    return _plain(arm) in names


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _published(row: dict[str, Any], matrices: bool) -> list[str]:
    """Return one published row as cells."""
    remark = f" ({row['remark']})" if row.get("remark") else ""
    digits = 4 if any(round(float(row.get(k, 0)) * 1000) / 1000 != float(row.get(k, 0)) for k in _KEYS[1:]) else 3
    cells = [str(row["auc_printed"]) if "auc_printed" in row else number(row.get("auc"))]
    wrong = row.get("impossible") or []
    cells += [f"{_MARKS.get(k, '')} ".lstrip() * (k in wrong) + number(row.get(k), digits) for k in _KEYS[1:]]
    return [f"Published: {row['method']}{remark}", *cells, *([_matrix(row)] if matrices else [])]


def _matrix(m: dict[str, Any]) -> str:
    return "\u00a0/\u00a0".join(str(m.get(k, "–")) for k in ("tp", "fn", "fp", "tn")) if m else "–"


def others(run: Run) -> Table | None:
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


def items(run: Run) -> list[Item]:
    """Return the paper's figures and tables in its order, each with ours."""
    if run.external:
        return []
    held = published(str(run.facts.get("system") or "")).get("beside") or []
    ours = _ours(run)
    return [
        Item(b["item"], b["shows"], ours.get(b["anchor"], ""), _there(run, b["anchor"]), b.get("doubt", ""))
        for b in held
    ]


def _there(run: Run, anchor: str) -> str:
    """Return the place on this page that shows the same: what one target has no figure for stands among the arms."""
    if anchor == "figure-gains" and not run.several:
        return "arms"
    return anchor


def _ours(run: Run) -> dict[str, str]:
    """Say in a few words what each of ours shows, by its place on the page."""
    found, held = run.estimates(run.proposed), run.estimates(run.proposed, "holdout")
    elsewhere = {name: r.estimates(run.proposed).get("auc") for name, r in run.externals.items()}
    folds = (run.facts.get("validation") or {}).get("folds")
    kept = [s for s in run.cohort.get("flow") or [] if s.get("step") in ("cross-validation", "hold-out")]
    people = [
        f"{s.get('patients')} patients {'in' if s['step'] == 'cross-validation' else 'as'} {s['step']}" for s in kept
    ]
    people += [f"{r.cohort.get('n_patients', '?')} in “{name}”" for name, r in run.externals.items()]
    maps = run.explanations.get("cases") or []
    names = [str(s.get("name")) for s in (run.facts.get("stages") or {}).get(run.proposed) or []]
    chain = " → ".join(dict.fromkeys(names))
    together, cells = classes.estimates(run, run.proposed).get(classes.MACRO), grid.cells(run)
    checked = " The maps are checked against masks and random weights." if run.explanations.get("sanity") else ""
    return {
        "answer": "; ".join(
            f"{target_name(v.target)} {_say(e)}, n = {e.n}"
            for v in run.each
            if (e := v.estimates(v.proposed).get("auc")) is not None
        ),
        "classes": f"{classes.label(classes.MACRO)} {_say(together)}, n = {together.n}." if together else "",
        "grid": f"{len(cells)} cells of network, view and start, with paired tests." if cells else "",
        "training": f"{chain}, each with what was transferred and reset." if chain else "",
        "figure-gains": _gains(run),
        "figure-flow": f"{joined(people)}{f'; {folds} folds' if folds else ''}." if people else "",
        "figure-matrix": f"Accuracy {_say(found.get('accuracy'))}.",
        "figure-roc_internal": f"AUC {_say(found.get('auc'))} out of fold"
        + (f", {_say(held.get('auc'))} in the hold-out." if held else "."),
        "figure-roc_external": " ".join(f"AUC {_say(e)} in “{name}”." for name, e in elsewhere.items()),
        "figure-roc_readers": " ".join(_readers(place) for place in places(run).values()),
        "maps": f"{len(maps)} patients that the network had not seen, right and wrong ones.{checked}" if maps else "",
        "table-1": f"{run.cohort.get('n_patients', '?')} patients." if run.cohort else "",
        "table-2": f"{len(run.cohort.get('tests') or [])} variables, with effects, intervals and adjusted p; nothing "
        "was selected by it."
        if run.cohort.get("tests")
        else "",
        "table-3": f"{sum(bool(run.estimates(arm)) for arm in run.arms)} arms, every figure with its interval.",
    }


def _gains(run: Run) -> str:
    """How many gains over other arms are shown by their intervals, a target at a time."""
    said = []
    for view in run.each:
        found = [held[0] for arm in view.arms if arm != view.proposed and (held := difference(view, arm)) is not None]
        if found:
            shown = sum(e.low > 0 for e in found)
            said.append(f"{target_name(view.target)}: better than {shown} of {len(found)} other arms")
    return f"{'; '.join(said)} (interval of the paired difference above 0)." if said else ""


def _readers(place: Run) -> str:
    """The readers' mean AUC."""
    said = []
    for way in ways(place):
        held = (way.get("against_machine") or {}).get("auc") or {}
        mean = read_estimate((held.get("random_readers") or held.get("fixed_readers") or {}).get("readers_mean"))
        if mean is not None:
            n = len(way.get("readers") or [])
            said.append(f"Mean AUC of {n} readers {_say(mean)}.")
    return " ".join(said)


def _say(e: Estimate | None) -> str:
    return with_interval(e)
