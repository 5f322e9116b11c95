"""Figures of three classes or more: the answer, the confusion matrix, and ROC, calibration and decision by class.

It must not know the page, nor compute any statistic: it draws what classes.json holds.
"""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tenfold.report import classes
from tenfold.report.drawn import Drawn, numbers, short, whisker
from tenfold.report.figures_sets import DASHES
from tenfold.report.figures_targets import MARKS
from tenfold.report.load import Run
from tenfold.report.look import BLUE, INK, ORANGE, RED, canvas, unit_square
from tenfold.report.words import arm_name, interval, number, whose_predictions, with_interval

_ACROSS = 2  # panels beside each other: more would be too small for one column of a journal


def answer(run: Run) -> Drawn | None:
    """Draw the macro AUC, and below it each class against the rest; None for a yes or no."""
    macro = classes.estimates(run, run.proposed).get(classes.MACRO)
    if macro is None:
        return None
    rows = [("all, one vs one", macro)]
    rows += [
        (f"{short(name, 13)} vs rest", e)
        for name in classes.names(run)
        if (e := classes.of_class(run, run.proposed, name).get("auc")) is not None
    ]
    best = classes.ceiling(run, run.proposed)
    figure = canvas(0.75 + 0.26 * len(rows))
    axes = figure.subplots()
    for i, (_, e) in enumerate(rows):
        whisker(axes, e, i, INK if i else BLUE)
    if best is not None:
        axes.plot([best, best], [-0.42, 0.42], color=RED, lw=1.6)
        axes.annotate(
            f"ceiling {number(best)} ", (best, -0.5), ha="right", va="bottom", color=INK, annotation_clip=False
        )
    lowest = min([0.5, *(e.low for _, e in rows if e.low == e.low)])
    axes.set(xlim=(max(0.0, lowest), 1), ylim=(len(rows) - 0.5, -0.6))
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.get_yticklabels()[0].set_fontweight("bold")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("AUC (0.5 = chance, 1 = perfect)")
    beside = f" Upright bar: the ceiling of the simulated cohort, {number(best)}." if best is not None else ""
    text = f"AUC of the {arm_name(run.proposed)} model, all classes: {with_interval(macro)}"
    parts = "; ".join(f"{name} {with_interval(e)}" for name, e in rows[1:])
    return Drawn(figure, f"{text}; n = {macro.n}; {macro.method}.{beside}", f"{text}; {parts}.{beside}")


def confusion(run: Run) -> Drawn | None:
    """Draw the confusion matrix of the proposed arm, the truth in rows: cases, and the share of that true class."""
    names = classes.names(run)
    table = ((classes.of(run).get("arms") or {}).get(run.proposed) or {}).get("confusion")
    if not table or not names:
        return None
    figure = canvas(0.75 + 0.52 * len(names))
    axes = figure.subplots()
    for row, cells in enumerate(table):
        total = sum(cells)
        for column, n in enumerate(cells):
            share = n / total if total else 0
            axes.add_patch(Rectangle((column, row), 1, 1, fc=BLUE, alpha=0.04 + 0.46 * share, lw=0))
            axes.text(
                column + 0.5,
                row + 0.5,
                f"{_cases(n)}\n{share:.0%}",
                ha="center",
                va="center",
                weight="bold" if row == column else "normal",
            )
    width = 11 if len(names) < 4 else 8
    middles = [i + 0.5 for i in range(len(names))]
    axes.set(xlim=(0, len(names)), ylim=(len(names), 0), xlabel="Model says", ylabel="Truth")
    axes.set_xticks(middles, [short(name, width) for name in names])
    axes.set_yticks(middles, [short(name, width) for name in names])
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    said = "; ".join(
        f"truth {name}: " + ", ".join(f"{_cases(n)} called {called}" for called, n in zip(names, cells, strict=True))
        for name, cells in zip(names, table, strict=True)
    )
    n = _cases(sum(sum(cells) for cells in table))
    text = f"Confusion matrix of the {arm_name(run.proposed)} model, each case decided for its likeliest class"
    return Drawn(
        figure,
        f"{text}: cases (mean over repeats), and the share of that true class; n = {n} cases. "
        "Intervals of the shares stand in the table by class, as sensitivity.",
        f"{text}. {said}",
    )


def _cases(n: float) -> str:
    return f"{n:,.0f}" if abs(n - round(n)) < 0.05 else f"{n:,.1f}"


def _styles(names: list[str]) -> list[tuple[str, Any]]:
    """Return a colour and a dash a class: either of the two is enough to tell them apart."""
    return [(MARKS[i % len(MARKS)][0], DASHES[i % len(DASHES)]) for i in range(len(names))]


def roc(run: Run) -> Drawn | None:
    """Draw the ROC curve of each class against the rest, proposed arm."""
    held = classes.part(run, run.proposed, "roc")
    names = [name for name in classes.names(run) if (held.get(name) or {}).get("fpr")]
    if not names:
        return None
    figure = canvas(3.3)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=INK, alpha=0.5, lw=0.7, ls=(0, (2, 2)))
    said = []
    for i, (name, (colour, dash)) in enumerate(zip(names, _styles(names), strict=True)):
        curve, e = held[name], classes.of_class(run, run.proposed, name).get("auc")
        axes.plot(curve["fpr"], curve["tpr"], color=colour, ls=dash, lw=1.8, clip_on=False)
        y = 0.06 + 0.085 * (len(names) - 1 - i)
        axes.plot([0.36, 0.46], [y, y], color=colour, ls=dash, lw=1.8)
        axes.text(0.49, y, f"{short(name, 18)}{f' {number(e.value)}' if e else ''}", va="center")
        said.append(f"{name} {with_interval(e)}, n = {e.n}" if e else name)
    unit_square(axes)
    axes.set(xlabel="1 − specificity", ylabel="Sensitivity")
    first = classes.of_class(run, run.proposed, names[0]).get("auc")
    text = f"ROC curve of each class against the rest, {arm_name(run.proposed)} model, in {whose_predictions(run)}"
    method = f" Intervals: {first.method}." if first else ""
    return Drawn(figure, f"{text}: {'; '.join(said)}.{method} Dotted: chance.", f"{text}: {'; '.join(said)}")


def calibration(run: Run) -> Drawn | None:
    """Draw observed against predicted share of each class, one panel a class."""
    held = classes.part(run, run.proposed, "calibration")
    names = [name for name in classes.names(run) if (held.get(name) or {}).get("x")]
    if not names:
        return None
    figure, panels = _panels(names, "Predicted probability", "Observed share")
    said = []
    for axes, name in zip(panels, names, strict=True):
        curve = held[name]
        axes.plot([0, 1], [0, 1], color=INK, alpha=0.5, lw=0.7, ls=(0, (2, 2)))
        if curve.get("low"):
            axes.fill_between(curve["x"], numbers(curve["low"]), numbers(curve["high"]), color=BLUE, alpha=0.18, lw=0)
        axes.plot(curve["x"], numbers(curve["y"]), color=BLUE, lw=1.8)
        for b in curve.get("bins") or []:
            axes.plot(b["p"], b["observed"], "o", color=INK, ms=3, clip_on=False)
        unit_square(axes)
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
        said.append(f"{name} {_said(run, name, ('calibration_slope', 'slope'), ('ici', 'ICI'))}".strip())
    text = f"Calibration of the {arm_name(run.proposed)} model by class"
    caption = f"{text}: smoothed curve with band, and groups of equal size as dots (n = {_binned(held, names)}). "
    return Drawn(figure, f"{caption}{'; '.join(said)}.", f"{text}. {'; '.join(said)}")


def _binned(held: dict[str, Any], names: list[str]) -> str:
    """Return how many cases the dots stand for; "unknown" where the file does not say."""
    totals = {sum(int(b.get("n", 0)) for b in held[name].get("bins") or []) for name in names} - {0}
    return " to ".join(f"{n:,}" for n in sorted({min(totals), max(totals)})) + " cases" if totals else "unknown"


def _said(run: Run, name: str, *shown: tuple[str, str]) -> str:
    found = classes.of_class(run, run.proposed, name)
    return ", ".join(f"{word} {with_interval(found[m], 2)}" for m, word in shown if m in found)


def decision(run: Run) -> Drawn | None:
    """Draw the net benefit of acting on each class, one panel a class."""
    held = classes.part(run, run.proposed, "decision")
    names = [name for name in classes.names(run) if (held.get(name) or {}).get("threshold")]
    if not names:
        return None
    figure, panels = _panels(names, "Threshold probability", "Net benefit (per patient)")
    said = []
    for axes, name in zip(panels, names, strict=True):
        curve = held[name]
        x, benefit = curve["threshold"], numbers(curve["model"])
        top = float(max([0.05, *(v for v in benefit.tolist() if v == v)]))
        if curve.get("low"):
            axes.fill_between(x, numbers(curve["low"]), numbers(curve["high"]), color=BLUE, alpha=0.18, lw=0)
        if curve.get("treat_all"):
            axes.plot(x, numbers(curve["treat_all"]), color=ORANGE, lw=1.4, ls=(0, (5, 2)))
        axes.axhline(0, color=INK, lw=0.9)
        axes.plot(x, benefit, color=BLUE, lw=1.8)
        axes.set(xlim=(0, 1), ylim=(-0.14 * top, 1.12 * top))
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        e = classes.of_class(run, run.proposed, name).get("net_benefit")
        said.append(f"{name} {number(e.value)} ({interval(e)}; n = {e.n})" if e else name)
    found = (classes.of_class(run, run.proposed, name).get("net_benefit") for name in names)
    ways = classes.one_way([e.method for e in found if e])
    method = f" Intervals: {ways}." if ways else ""
    text = "Decision curves by class: what acting on the model is worth (line with band) against treating everybody as "
    text += "that class (dashed) or nobody (0)"
    return Drawn(
        figure, f"{text}. At each class's prevalence: {'; '.join(said)}.{method}", f"{text}. {'; '.join(said)}"
    )


def _panels(names: list[str], below: str, beside: str) -> tuple[Figure, list[Axes]]:
    """Return one panel a class, two beside each other, with the words that all share."""
    down = -(-len(names) // _ACROSS)
    figure = canvas(0.35 + 1.6 * down)
    grid = figure.subplots(down, _ACROSS, squeeze=False)
    panels: list[Axes] = list(grid.flat)
    for axes in panels[len(names) :]:
        axes.axis("off")
    for axes, name in zip(panels, names, strict=False):
        axes.set_title(short(name, 20))
    figure.supxlabel(below, fontsize=8)
    figure.supylabel(beside, fontsize=8)
    return figure, panels[: len(names)]
