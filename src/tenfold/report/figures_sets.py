"""Figures of one model in several sets of patients, beside readers, in subgroups, and of what moved it.

It must not know the page, nor compute any statistic: it draws what the files hold.
"""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes

from tenfold.report.drawn import Drawn, behind, matrix, named_rows, short, whisker
from tenfold.report.inputs import alone, fused
from tenfold.report.limits import subgroup_columns
from tenfold.report.load import Run, readable
from tenfold.report.look import BLUE, GREEN, INK, ORANGE, PURPLE, RED, canvas, unit_square
from tenfold.report.readers import estimate, places, ways
from tenfold.report.words import arm_name, count, interval, number, versus, with_interval
from tenfold.types import Estimate

DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)))
OTHERS = (ORANGE, GREEN, PURPLE)


def matrices(run: Run) -> Drawn | None:
    """Draw the proposed arm's confusion matrix in each set of patients: out of fold, hold-out, external."""
    sets = {"out of fold": run.curve(run.proposed, "confusion")}
    sets["hold-out"] = run.curve(run.proposed, "confusion", "curves_holdout")
    sets |= {name: other.curve(run.proposed, "confusion") for name, other in run.externals.items()}
    found = {name: m for name, m in sets.items() if m.keys() >= {"tp", "fp", "fn", "tn"}}
    if run.external or len(found) < 2:
        return None
    across = min(3, len(found))
    down = -(-len(found) // across)
    figure = canvas(0.35 + 1.35 * down)
    grid = figure.subplots(down, across, squeeze=False)
    for axes in grid.flat[len(found) :]:
        axes.axis("off")
    for axes, (name, m) in zip(grid.flat, found.items(), strict=False):
        matrix(axes, name, m, main=name == "out of fold")
    figure.supxlabel("Model says: − or +", fontsize=8)
    figure.supylabel("Truth: − or +", fontsize=8)
    text = "; ".join(f"{name}: TP {m['tp']}, FN {m['fn']}, FP {m['fp']}, TN {m['tn']}" for name, m in found.items())
    sizes = "; ".join(f"{name} n = {sum(m[k] for k in ('tp', 'fn', 'fp', 'tn'))}" for name, m in found.items())
    return Drawn(
        figure,
        f"The {arm_name(run.proposed)} model at its frozen operating point, cases; + is {run.positive}"
        f"{', − any other class' if versus(run) else ''}. {sizes}.",
        text,
    )


def roc_internal(run: Run) -> Drawn | None:
    """Draw the proposed arm out of fold and in the hold-out, and the arms with one input alone beside it."""
    first, held = run.curve(run.proposed, "roc"), run.curve(run.proposed, "roc", "curves_holdout")
    singles = [arm for arm in _networks_alone(run) if run.curve(arm, "roc").get("fpr")]
    if not first.get("fpr") or not (held.get("fpr") or singles):
        return None
    axes = _unit()
    lines = [(f"{short(run.proposed, 16)}, out of fold", first, run.estimates(run.proposed), BLUE, DASHES[0], 2.0)]
    if held.get("fpr"):
        found = run.estimates(run.proposed, "holdout")
        lines.append((f"{short(run.proposed, 16)}, hold-out", held, found, BLUE, DASHES[1], 1.4))
    for arm, colour, dash in zip(singles, OTHERS, DASHES[2:], strict=False):
        (sees,) = run.inputs(arm)
        name = short(arm, 18) if sees in arm else f"{short(arm, 14)} on {sees}"
        lines.append((name, run.curve(arm, "roc"), run.estimates(arm), colour, dash, 1.6))
    said = _lines(axes, lines)
    return _roc(axes, f"Internal ROC curves. {said}", run.estimates(run.proposed).get("auc"))


def _networks_alone(run: Run) -> list[str]:
    """The best arm of each single input, so that a fused model never stands without them."""
    best: dict[str, str] = {}
    for arm in alone(run) if fused(run) else []:
        best.setdefault(run.inputs(arm)[0], arm)
    return list(best.values())


def roc_external(run: Run) -> Drawn | None:
    """Draw the frozen model in each external set, beside itself out of fold."""
    shown = {name: r for name, r in run.externals.items() if r.curve(run.proposed, "roc").get("fpr")}
    if not shown:
        return None
    axes = _unit()
    lines: list[Any] = [
        (short(name, 22), r.curve(run.proposed, "roc"), r.estimates(run.proposed), RED, dash, 2.0)
        for (name, r), dash in zip(shown.items(), DASHES, strict=False)
    ]
    own = run.curve(run.proposed, "roc")
    if own.get("fpr"):
        lines.append(("out of fold", own, run.estimates(run.proposed), BLUE, DASHES[1], 1.2))
    said = _lines(axes, lines)
    first = next(iter(shown.values()))
    _point(axes, first.estimates(run.proposed), RED, _under(len(lines)))
    text = f"The frozen {arm_name(run.proposed)} model in patients of another place. {said}"
    return _roc(axes, text, first.estimates(run.proposed).get("auc"))


def _point(axes: Axes, found: dict[str, Estimate], colour: str, y: float) -> None:
    """Mark the operating point, as found in these patients."""
    if "sensitivity" in found and "specificity" in found:
        where = 1 - found["specificity"].value, found["sensitivity"].value
        axes.plot(*where, "o", mfc="none", mec=colour, mew=1.6, ms=7, clip_on=False)
        axes.plot(0.45, y, "o", mfc="none", mec=colour, mew=1.6, ms=6)
        axes.text(0.5, y, "operating point", va="center")


def roc_readers(run: Run) -> Drawn | None:
    """Draw each reader, the mean of the readers and the machine on the same cases."""
    place = next(iter(places(run).values()), None)
    shown = ways(place) if place is not None else []
    if place is None or not shown:
        return None
    axes = _unit()
    held = place.readers
    lines: list[Any] = []
    for way, colour, dash in zip(shown, (RED, ORANGE, GREEN), DASHES, strict=False):
        for i, r in enumerate(way.get("readers") or []):
            curve = r.get("curve") or {}
            if curve.get("fpr"):
                axes.plot(
                    curve["fpr"], curve["tpr"], color=INK, alpha=0.45, lw=0.8, ls=DASHES[1 + i % 3], clip_on=False
                )
            a, b = estimate(r.get("sensitivity")), estimate(r.get("specificity"))
            if a is not None and b is not None:
                axes.plot(1 - b.value, a.value, "^", color=colour, ms=6, clip_on=False)
        mean = way.get("mean_roc") or {}
        test = (way.get("against_machine") or {}).get("auc") or {}
        e = estimate((test.get("random_readers") or test.get("fixed_readers") or {}).get("readers_mean"))
        name = f"readers, {short(str(way['modality']), 12)}" if way.get("modality") else "mean of readers"
        lines.append((name, mean, {"auc": e} if e else {}, colour, dash, 2.0))
    machine = held.get("machine") or {}
    e = estimate(machine.get("auc"))
    lines.insert(0, (short(run.proposed, 16), machine.get("curve") or {}, {"auc": e} if e else {}, BLUE, "-", 2.0))
    said = _lines(axes, lines)
    readers = len({str(r.get("reader")) for way in shown for r in way.get("readers") or []})
    y = _under(len(lines))
    axes.plot([0.42, 0.48], [y, y], color=INK, alpha=0.45, lw=0.8, ls=DASHES[1])
    axes.text(0.5, y, count(readers, "reader") + " singly", va="center")
    a, b = estimate(machine.get("sensitivity")), estimate(machine.get("specificity"))
    if a is not None and b is not None:
        _point(axes, {"sensitivity": a, "specificity": b}, BLUE, y - 0.09)
    each = "; ".join(
        f"{r.get('reader')} {with_interval(estimate(r.get('auc')), 2)}"
        for way in shown
        for r in way.get("readers") or []
    )
    points = " Triangles: readers' own answers." if any("sensitivity" in r for w in shown for r in w["readers"]) else ""
    return _roc(axes, f"Machine and readers on the same cases. {said} Readers: {each}.{points}", e)


def _unit() -> Axes:
    axes: Axes = canvas(3.3).subplots()
    axes.plot([0, 1], [0, 1], color=INK, alpha=0.5, lw=0.7, ls=(0, (2, 2)))
    return axes


def _under(lines: int) -> float:
    """Return the height of the next free row of the key, which stands in the lower right corner."""
    return 0.40 - 0.09 * lines


def _lines(axes: Axes, lines: list[Any]) -> str:
    """Draw curves with their keys and say their AUCs."""
    said = []
    weakest = min((e for *_, found, _, _, _ in lines if (e := found.get("auc"))), key=lambda e: e.value, default=None)
    for i, (name, points, found, colour, dash, width) in enumerate(lines):
        if not points.get("fpr"):
            continue
        axes.plot(points["fpr"], points["tpr"], color=colour, ls=dash, lw=width, clip_on=False)
        e = found.get("auc")
        y = _under(i)
        axes.plot([0.42, 0.48], [y, y], color=colour, ls=dash, lw=width)
        axes.text(0.5, y, f"{name}{f' {number(e.value, 2)}' if e else ''}", va="center", bbox=behind(weakest))
        if e is not None:
            said.append(f"{name} {with_interval(e)}, n = {e.n}")
    return f"{'; '.join(said)}."


def _roc(axes: Axes, text: str, auc: Estimate | None) -> Drawn:
    """Finish a ROC plot."""
    unit_square(axes)
    axes.set(xlabel="1 − specificity", ylabel="Sensitivity")
    figure = axes.figure.figure
    method = f" {auc.method.split('; n =')[0]}." if auc else ""
    return Drawn(figure, f"{text}{method} Dotted: chance.", text)


def subgroups(run: Run) -> Drawn | None:
    """Draw the AUC of every level of every division, beside that of all."""
    lines: list[tuple[str, Estimate | None, bool]] = []
    for column, held in subgroup_columns(run).items():
        lines.append((column.replace("_", " "), None, True))
        for level in held["levels"]:
            auc = level.get("auc")
            lines.append((str(level.get("level")), Estimate.from_dict(auc) if readable(auc) else None, False))
    found = [e for _, e, _ in lines if e]
    if not found:
        return None
    figure, axes = named_rows([name for name, _, _ in lines], "AUC with interval")
    axes.set_yticks(range(len(lines)), [short(name, 28) for name, _, _ in lines])
    for label, (_, _, heading) in zip(axes.get_yticklabels(), lines, strict=True):
        label.set_fontweight("bold" if heading else "normal")
    low = min(e.low if e.low == e.low else e.value for e in found)
    for i, (_, e, heading) in enumerate(lines):
        if e is not None:
            whisker(axes, e, i, BLUE)
        elif not heading:
            axes.text(low, i, "too few patients", va="center")
    whole = run.estimates(run.proposed).get("auc")
    if whole is not None:
        axes.axvline(whole.value, color=INK, lw=0.8, ls=(0, (2, 2)))
    text = f"AUC of the {arm_name(run.proposed)} model in subgroups"
    sizes = f"; all: {with_interval(whole)}, n = {whole.n}, dotted" if whole else ""
    parts = "; ".join(f"{name} {number(e.value)} ({interval(e)})" for name, e, _ in lines if e)
    n = ", ".join(str(e.n) for e in found)
    return Drawn(figure, f"{text}{sizes}. n from the top: {n}.", f"{text}. {parts}")


def importance(run: Run) -> Drawn | None:
    """Draw how much each table column moves the log-odds on average, with its range over the folds."""
    held = next(iter((run.explanations.get("importance") or {}).values()), None)
    found = [f for f in (held or {}).get("features") or [] if isinstance(f.get("mean"), int | float)][:15]
    if held is None or not found:
        return None
    labels = held.get("labels") or {}
    names = [str(labels.get(f["feature"], f["feature"])) for f in found]
    figure, axes = named_rows(names, "Mean absolute contribution (log-odds)")
    axes.set_yticks(range(len(names)), [short(name, 26) for name in names])
    for i, f in enumerate(found):
        if f.get("low") is not None and f.get("high") is not None:
            axes.plot([f["low"], f["high"]], [i, i], color=BLUE, lw=1.8)
        axes.plot(f["mean"], i, "s", color=BLUE, ms=5)
    axes.set_xlim(left=0)
    total = len(held.get("features") or [])
    n = (run.estimates(run.proposed).get("auc") or Estimate(0, 0, 0, "", 0)).n
    text = f"The {len(found)} of {total} columns that move the probability most"
    parts = "; ".join(f"{name} {number(f['mean'])}" for name, f in zip(names, found, strict=True))
    return Drawn(figure, f"{text}: mean over the folds, with the lowest and the highest fold; n = {n}.", parts)
