"""The figures, one function each, drawn from a run's files and legible in one column of a journal.

It must not know the page, nor compute any statistic: it draws what the files hold.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tenfold.report import figures_classes, figures_sets, figures_targets, grid
from tenfold.report.drawn import Drawn, behind, key, matrix, named_rows, numbers, short, whisker
from tenfold.report.load import Run
from tenfold.report.look import BLUE, GREEN, HALF_WIDTH, INK, ORANGE, RED, canvas, unit_square
from tenfold.report.words import (
    analysed,
    arm_name,
    ceiling,
    ceiling_of,
    count,
    flow_text,
    headline_of,
    interval,
    known_sentence,
    number,
    thresholds,
    versus,
    whose_predictions,
)
from tenfold.types import FloatArray, StrArray

FAINT = 0.28  # opacity of the ink for arms that are only context


def answer(run: Run) -> Drawn | None:
    """Draw the headline AUC on a line, beside the ceiling or the published figure; of three classes or more, all."""
    all_classes = figures_classes.answer(run)
    if all_classes is not None:
        return all_classes
    auc = run.estimates(run.proposed).get("auc")
    if auc is None:
        return None
    marks = _references(run)
    held = run.estimates(run.proposed, "holdout").get("auc")
    rows = [("external" if run.external else "out of fold", auc)] + ([("hold-out", held)] if held else [])
    elsewhere = {name: other.estimates(run.proposed).get("auc") for name, other in run.externals.items()}
    rows += [(short(name, 16), e) for name, e in elsewhere.items() if e is not None]
    figure = canvas(0.62 + 0.26 * len(rows) + 0.14 * len(marks))
    axes = figure.subplots()
    for i, (_, e) in enumerate(rows):
        whisker(axes, e, -i, BLUE)
    for i, (name, value) in enumerate(marks):
        axes.axvline(value, color=RED, lw=1.1, ls=(0, (3, 2)))
        axes.annotate(
            f"{name} {number(value)} ",
            (value, 0.55 + 0.55 * i),
            ha="right",
            va="bottom",
            color=INK,
            annotation_clip=False,
        )
    lowest = min([0.5, auc.low if auc.low == auc.low else 0.5, *(v for _, v in marks)])
    axes.set(xlim=(max(0.0, lowest), 1), ylim=(-len(rows) + 0.4, 0.55 + 0.6 * len(marks)))
    axes.set_yticks([-i for i in range(len(rows))], [name for name, _ in rows])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("AUC (0.5 = chance, 1 = perfect)")
    beside = "; ".join(f"{name} {number(value)}" for name, value in marks)
    text = f"AUC of the {arm_name(run.proposed)} model: {number(auc.value)} ({interval(auc)})"
    return Drawn(
        figure, f"{text}; n = {auc.n}; {auc.method}.{f' Dashed: {beside}.' if beside else ''}", f"{text}. {beside}"
    )


def _references(run: Run) -> list[tuple[str, float]]:
    """Return the lines an AUC is set beside: the ceiling where it is known, else the published figure."""
    best = ceiling(run)
    if best is not None:
        return [("ceiling", best)]
    theirs = headline_of(run)
    return [("published", float(theirs["auc"]))] if theirs else []


def flow(run: Run) -> Drawn | None:
    """Draw who was left at each step, why the others were not, and where the rest were used."""
    steps = run.cohort.get("flow") or []
    if not steps:
        return None
    main, aside = _main_and_aside(steps)
    at = next((i for i, s in enumerate(main) if s.get("step") == "analysed"), len(main) - 1)
    boxes = [_wrapped(f"{s.get('step', '')}", _people(s), 25) + _folds(run, s) for s in main]
    asides = [*aside]
    boxes[at] += (classes := _classes(run))
    wide = {at} if classes else set()
    outside = [
        f"External set “{short(name, 26)}”\n{_people(analysed(r))}" + _classes(r) for name, r in run.externals.items()
    ]
    figure, axes = _column(boxes, asides, outside, wide)
    axes.axis("off")
    elsewhere = " Dashed arrow: the finished model, unchanged, tried on an external set." if outside else ""
    said = "; ".join([flow_text(run), *(text.replace("\n", ", ") for text in outside)])
    return Drawn(figure, f"Cases and patients left at each step, and why others were left out.{elsewhere}", said)


def _column(boxes: list[str], asides: list[str], outside: list[str], wide: set[int]) -> tuple[Figure, Axes]:
    """Draw boxes from the top down, what left between them on the right, and external sets at the bottom."""
    line, gap, pad = 0.145, 0.16, 0.09
    texts = [*boxes, *outside]
    notes = [*asides, *([""] * len(outside))]
    heights = [line * (b.count("\n") + 1) + 2 * pad for b in texts]
    gaps = [gap] + [max(gap, (line * (t.count("\n") + 1) + 2 * pad + 0.1) if t else gap) for t in notes[1:]]
    gaps = [0.3 if i >= len(boxes) else g for i, g in enumerate(gaps)]
    total = sum(heights) + sum(gaps[1:]) + 0.04
    figure = Figure(figsize=(HALF_WIDTH, total))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(0, HALF_WIDTH), ylim=(0, total))
    left, narrow = 0.03, 1.86
    y = total - 0.02
    for i, (text, height) in enumerate(zip(texts, heights, strict=True)):
        if i:
            dashed = i >= len(boxes)
            arrow = {"arrowstyle": "-|>", "color": INK, "lw": 0.8, "shrinkA": 0, "shrinkB": 0}
            arrow["ls"] = (0, (3, 2)) if dashed else "-"
            axes.annotate("", (left + 0.5, y - gaps[i]), (left + 0.5, y), arrowprops=arrow)
            if notes[i]:
                middle = y - gaps[i] / 2
                tall = line * (notes[i].count("\n") + 1) + 2 * pad - 0.06
                axes.plot([left + 0.5, 1.08], [middle, middle], color=INK, lw=0.8)
                _box(axes, 1.08, middle - tall / 2, HALF_WIDTH - 1.11, tall, notes[i], dashed=True)
            y -= gaps[i]
        across = HALF_WIDTH - 0.06 if i in wide or i >= len(boxes) else narrow
        _box(axes, left, y - height, across, height, text)
        y -= height
    return figure, axes


def _classes(run: Run) -> str:
    """Return one line a class, or with several targets one a target."""
    if run.several:
        told = [textwrap.fill(text, 44) for view in run.each if (text := known_sentence(view))]
        return "".join(f"\n{text}" for text in told)
    by_class = run.cohort.get("by_class") or {}
    return "".join(f"\n{short(name)}: {_people(c)}" for name, c in by_class.items())


def _folds(run: Run, step: dict[str, Any]) -> str:
    """Say into how many folds the patients went, under the step that names them."""
    v = run.facts.get("validation") or {}
    if not v.get("folds") or step.get("step") != "cross-validation":
        return ""
    times = v.get("repeats", 1)
    return f"\n{v['folds']} folds, all tested {'once' if times == 1 else f'{times} times'}"


def _box(axes: Axes, x: float, y: float, wide: float, tall: float, text: str, *, dashed: bool = False) -> None:
    """Draw one box of the flow chart with its text."""
    style = (0, (3, 2)) if dashed else "-"
    axes.add_patch(Rectangle((x, y), wide, tall, fill=False, ec=INK, lw=0.8, ls=style))
    axes.text(x + 0.07, y + tall / 2, text, va="center", ha="left", fontsize=8, linespacing=1.25, color=INK)


def _people(step: dict[str, Any]) -> str:
    return f"{count(step.get('cases'), 'case')}, {count(step.get('patients'), 'patient')}"


def _wrapped(head: str, tail: str, width: int) -> str:
    return "\n".join([*textwrap.wrap(head, width)[:3], tail])


def _main_and_aside(steps: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """Part the steps into those on the way down and the text of those that leave it before each of them."""
    main: list[dict[str, Any]] = []
    asides: list[str] = []
    leaving: list[str] = []
    for step in steps:
        if step.get("step") in ("excluded", "hold-out"):
            why = str(step.get("reason") or "kept aside, opened once")
            leaving += [f"{step['step']}: {_people(step)}", *textwrap.wrap(why, 34)[:3]]
        else:
            main.append(step)
            asides.append("\n".join(leaving))
            leaving = []
    return main, asides


def roc(run: Run) -> Drawn | None:
    """Draw the ROC curve of every arm, the proposed one in colour."""
    drawn = [arm for arm in run.arms if run.curve(arm, "roc").get("fpr")]
    if not drawn:
        return None
    figure = canvas(3.3)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=INK, alpha=0.5, lw=0.7, ls=(0, (2, 2)))
    for arm in reversed(drawn):
        points = run.curve(arm, "roc")
        main = arm == run.proposed
        axes.plot(
            points["fpr"],
            points["tpr"],
            color=BLUE if main else INK,
            alpha=1 if main else FAINT,
            lw=2 if main else 0.8,
            clip_on=False,
        )
    auc = run.estimates(run.proposed).get("auc")
    row, back = 0.30, behind(auc)
    if run.proposed in drawn:
        text = f"{short(run.proposed)}{f' {number(auc.value)}' if auc else ''}"
        key(axes, row, text, BLUE, 2, back=back)
        row -= 0.09
    others = len(drawn) - (run.proposed in drawn)
    if others:
        key(axes, row, count(others, "other arm"), INK, 0.8, FAINT, back=back)
        row -= 0.09
    at = _operating_rates(run)
    if at:
        axes.plot(1 - at[1], at[0], "o", mfc="none", mec=BLUE, mew=1.6, ms=7, clip_on=False)
        axes.plot(0.45, row, "o", mfc="none", mec=BLUE, mew=1.6, ms=6)
        axes.text(0.5, row, "operating point", va="center", bbox=back)
    unit_square(axes)
    axes.set(xlabel="1 − specificity", ylabel="Sensitivity")
    n = f"; n = {auc.n}; {auc.method}" if auc else ""
    text = f"ROC curves of {count(len(drawn), 'arm')} in {whose_predictions(run)}"
    return Drawn(
        figure, f"{text}{n}. Dotted: chance.", f"{text}. {arm_name(run.proposed)} {number(auc.value) if auc else ''}"
    )


def _operating_rates(run: Run) -> tuple[float, float] | None:
    """Return sensitivity and specificity at the operating point."""
    found = run.estimates(run.proposed)
    if "sensitivity" in found and "specificity" in found:
        return found["sensitivity"].value, found["specificity"].value
    return None


def calibration(run: Run) -> Drawn | None:
    """Draw observed against predicted, with the histogram of the probabilities below."""
    curve = run.curve(run.proposed, "calibration")
    if not curve:
        return None
    figure = canvas(4.1)
    axes, below = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
    axes.plot([0, 1], [0, 1], color=INK, alpha=0.5, lw=0.7, ls=(0, (2, 2)))
    if curve.get("x"):
        if curve.get("low"):
            axes.fill_between(curve["x"], numbers(curve["low"]), numbers(curve["high"]), color=BLUE, alpha=0.18, lw=0)
        axes.plot(curve["x"], curve["y"], color=BLUE, lw=2)
    for b in curve.get("bins") or []:
        if b.get("low") is not None and b.get("high") is not None:
            axes.plot([b["p"], b["p"]], [b["low"], b["high"]], color=INK, lw=0.8)
        axes.plot(b["p"], b["observed"], "o", color=INK, ms=3.5, clip_on=False)
    unit_square(axes)
    axes.set_aspect("auto")  # else it would not line up with the histogram below
    axes.set_ylabel(f"Observed share of {short(run.positive) or 'the class'}")
    shown = _probabilities(run)
    if shown is not None:
        below.hist(shown[0], bins=np.linspace(0, 1, 31).tolist(), color=INK, alpha=0.45)
    below.set(xlabel=f"Predicted probability of {short(run.positive) or 'the class'}", ylabel="Cases")
    found = run.estimates(run.proposed)
    parts = [
        f"{label} {number(found[m].value)} ({interval(found[m])})"
        for m, label in (("calibration_intercept", "intercept"), ("calibration_slope", "slope"), ("ici", "ICI"))
        if m in found
    ]
    n = f" n = {found['auc'].n}." if "auc" in found else ""
    text = f"Calibration of the {arm_name(run.proposed)} model"
    return Drawn(
        figure,
        f"{text}: smoothed curve with band, groups of equal size with intervals, and below how often each "
        f"probability was given.{n} {'; '.join(parts)}.",
        f"{text}. {'; '.join(parts)}",
    )


def _probabilities(run: Run) -> tuple[FloatArray, StrArray] | None:
    """Return probability of the positive class and label of the proposed arm, one a case (mean over repeats)."""
    table = run.table()
    if table is None or run.positive not in table.classes:
        return None
    mine = table.select(arm=run.proposed)
    cases, first, back = np.unique(mine.case, return_index=True, return_inverse=True)
    if not len(cases):
        return None
    mean = np.bincount(back, weights=mine.probability(run.positive)) / np.bincount(back)
    return mean, mine.label[first]


def decision(run: Run) -> Drawn | None:
    """Draw net benefit over the threshold, beside treating all and none."""
    curve = run.curve(run.proposed, "decision")
    if not curve.get("threshold"):
        return None
    figure = canvas(2.7)
    axes = figure.subplots()
    x, top = curve["threshold"], max(curve["net_benefit"])
    if curve.get("low"):
        axes.fill_between(x, numbers(curve["low"]), numbers(curve["high"]), color=BLUE, alpha=0.18, lw=0)
    axes.plot(x, curve["net_benefit"], color=BLUE, lw=2)
    if curve.get("treat_all"):
        axes.plot(x, curve["treat_all"], color=ORANGE, lw=1.4, ls=(0, (5, 2)))
    axes.axhline(0, color=INK, lw=0.9)
    middle = float(np.mean(cut)) if (cut := thresholds(run, run.proposed)) else None
    if middle is not None:
        axes.axvline(middle, color=INK, alpha=0.5, lw=0.8, ls=(0, (2, 2)))
        axes.text(middle + 0.01, top * 1.1, "operating point", va="top", alpha=0.8)
    axes.set(xlim=(0, 1), ylim=(-0.14 * top, 1.12 * top))
    axes.text(0.02, -0.03 * top, "treat none", va="top")
    # where disease is rare the curves fall steeply on the left, and the right is free
    x_key, side, high = (0.02, "left", 0.62) if top >= 0.42 else (0.99, "right", 0.86)
    axes.text(x_key, high * top, short(run.proposed), color=BLUE, weight="bold", ha=side)
    if curve.get("treat_all"):
        axes.text(x_key, (high - 0.12) * top, "treat all (dashed)", color=INK, ha=side)
    axes.set(xlabel="Threshold probability", ylabel="Net benefit (per patient)")
    e = run.estimates(run.proposed).get("net_benefit")
    caption = "Decision curve: what deciding by the model is worth against treating everybody or nobody"
    said = (
        f"{caption}.{f' At the operating point {number(e.value)} ({interval(e)}); n = {e.n}; {e.method}.' if e else ''}"
    )
    return Drawn(figure, said, said)


def probabilities(run: Run) -> Drawn | None:
    """Draw the distribution of the probabilities in each class."""
    shown = _probabilities(run)
    if shown is None:
        return None
    p, label = shown
    names = [c for c in run.classes if (label == c).any()]
    if not names:
        return None
    figure = canvas(0.55 + 0.85 * len(names))
    rows = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    cut = thresholds(run, run.proposed)
    for axes, name in zip(rows, names, strict=True):
        inside = p[label == name]
        colour = RED if name == run.positive else GREEN
        axes.hist(inside, bins=np.linspace(0, 1, 31).tolist(), color=colour, alpha=0.85)
        axes.set_title(f"{short(name)}, {count(len(inside), 'case')}")
        axes.set(xlim=(0, 1), ylabel="Cases")
        if cut:
            axes.axvline(float(np.mean(cut)), color=INK, lw=0.9, ls=(0, (2, 2)))
    rows[-1].set_xlabel(f"Predicted probability of {short(run.positive)}")
    parts = ", ".join(f"{c}: {int((label == c).sum())}" for c in names)
    text = f"Probability of {run.positive} by true class, {arm_name(run.proposed)} model, cases ({parts})"
    dotted = " Dotted: operating point (mean over folds)." if cut else ""
    return Drawn(figure, f"{text}.{dotted}", text)


def _arms(run: Run) -> list[str]:
    """Return the arms that figures with one row or panel each have room for: a large grid has its own figure."""
    left_out = run.elsewhere_in_grid
    return [arm for arm in run.arms if arm not in left_out]


def _left_out(run: Run) -> str:
    return " Other networks and starts of the grid stand in its own figure." if run.elsewhere_in_grid else ""


def confusion(run: Run) -> Drawn | None:
    """Draw the confusion matrix of every arm as small multiples."""
    found = {arm: m for arm in _arms(run) if (m := run.curve(arm, "confusion")).keys() >= {"tp", "fp", "fn", "tn"}}
    if not found:
        return None
    across = min(3, len(found))
    down = -(-len(found) // across)
    figure = canvas(0.35 + 1.22 * down)
    grid = figure.subplots(down, across, squeeze=False)
    for axes in grid.flat[len(found) :]:
        axes.axis("off")
    for i, (arm, m) in enumerate(found.items()):
        matrix(grid.flat[i], arm, m, main=arm == run.proposed)
    figure.supxlabel("Model says: − or +", fontsize=8)
    figure.supylabel("Truth: − or +", fontsize=8)
    text = "; ".join(f"{arm_name(a)}: TP {m['tp']}, FN {m['fn']}, FP {m['fp']}, TN {m['tn']}" for a, m in found.items())
    return Drawn(
        figure,
        f"Confusion matrices at the frozen operating point, cases; + is {run.positive}"
        f"{', − any other class' if versus(run) else ''}. The stronger the colour, "
        f"the larger the share of that true class.{_left_out(run)}",
        text,
    )


def forest(run: Run) -> Drawn | None:
    """Draw the AUC of every arm with its interval, failed arms named."""
    found = {arm: run.estimates(arm).get("auc") for arm in _arms(run)}
    drawn = {arm: e for arm, e in found.items() if e is not None}
    if not drawn:
        return None
    order = sorted(found, key=lambda a: -e.value if (e := found[a]) else 1.0)
    figure, axes = named_rows([arm_name(a) for a in order], "AUC with interval")
    low = min((e.low if e.low == e.low else e.value for e in drawn.values()), default=0.5)
    for i, arm in enumerate(order):
        e = found[arm]
        if e is not None:
            whisker(axes, e, i, BLUE if arm == run.proposed else INK)
        else:
            axes.text(min(low, 0.97), i, "failed" if run.arms[arm].get("status") == "failed" else "no AUC", va="center")
    best = ceiling(run)
    own = {arm: c for arm in order if (c := ceiling_of(run, arm)) is not None}
    for i, arm in enumerate(order):
        if arm in own:
            axes.plot([own[arm]] * 2, [i - 0.38, i + 0.38], color=RED, lw=1.6)
    if best is not None and not own:
        axes.axvline(best, color=RED, lw=1.1, ls=(0, (3, 2)))
    first = next(iter(drawn.values()))
    text = f"AUC of {count(len(drawn), 'arm')}, best first"
    beside = f" Dashed: the ceiling of the simulated cohort, {number(best)}." if best is not None else ""
    if own:
        beside = " Upright bar: the best attainable AUC from what the arm sees, known as the patients are simulated."
    parts = "; ".join(f"{arm_name(a)} {number(e.value)} ({interval(e)})" for a in order if (e := found[a]) is not None)
    return Drawn(figure, f"{text}; n = {first.n}; {first.method}.{beside}{_left_out(run)}", parts)


def folds(run: Run) -> Drawn | None:
    """Draw the AUC of each fold beside the pooled one."""
    held = run.folds.get(run.target) or {}
    order = [arm for arm in _arms(run) if held.get(arm)]
    if not order:
        return None
    figure, axes = named_rows([arm_name(a) for a in order], "AUC")
    for i, arm in enumerate(order):
        values = [f["auc"] for f in held[arm] if isinstance(f.get("auc"), int | float)]
        axes.plot(values, [i] * len(values), "o", color=INK, alpha=0.45, ms=4, mew=0)
        pooled = run.estimates(arm).get("auc")
        if pooled is not None:
            axes.plot(pooled.value, i, "D", color=BLUE if arm == run.proposed else INK, ms=5)
    sizes = sorted({int(f["n"]) for arm in order for f in held[arm] if isinstance(f.get("n"), int)})
    n = f"smallest fold {sizes[0]} cases, largest {sizes[-1]}" if sizes else "fold sizes not recorded"
    text = "AUC within each fold (dots) beside the AUC of all folds pooled (diamonds)"
    return Drawn(
        figure,
        f"{text}; {n}. Dots far to the right of a diamond mean that folds differ in level.{_left_out(run)}",
        text,
    )


def training(run: Run) -> Drawn | None:
    """Draw loss and score of the proposed arm over the epochs, one row a stage."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for stage in (run.facts.get("stages") or {}).get(run.proposed) or []:
        if stage.get("history"):
            by_name.setdefault(str(stage.get("name", "")), []).append(stage)
    if not by_name:
        return None
    figure = canvas(0.3 + 1.75 * len(by_name))
    grid = figure.subplots(len(by_name), 2, squeeze=False)
    for (loss, score), (name, stages) in zip(grid, by_name.items(), strict=True):
        for stage in stages:
            _history(loss, stage, "train_loss", ORANGE)
            _history(loss, stage, "inner_loss", BLUE)
            _history(score, stage, "inner_auc", BLUE)
        for axes in (loss, score):
            for best in {s.get("best_epoch") for s in stages if s.get("best_epoch") is not None}:
                axes.axvline(best, color=INK, alpha=0.35, lw=0.8, ls=(0, (2, 2)))
        loss.set_title(short(name, 20))
        loss.set(xlabel="Epoch", ylabel="Loss")
        score.set(xlabel="Epoch", ylabel="Score, inner part")
    free = grid[0][1]  # scores rise, so the corner below them is empty
    free.text(0.98, 0.22, "inner part", color=BLUE, ha="right", transform=free.transAxes)
    free.text(0.98, 0.06, "training (loss)", color=ORANGE, ha="right", transform=free.transAxes)
    runs = max(len(s) for s in by_name.values())
    for score, stages in zip(grid[:, 1], by_name.values(), strict=True):
        if not any(h.get("inner_auc") is not None for s in stages for h in s["history"]):
            score.text(0.5, 0.5, "nothing was\ntold apart", ha="center", va="center", transform=score.transAxes)
            score.set(xticks=[], yticks=[])
    text = f"Training of the {arm_name(run.proposed)} model by stage"
    many = f" One line each of {runs} fits." if runs > 1 else ""
    return Drawn(figure, f"{text}. Dotted: the epoch whose weights were kept.{many}", text)


def _history(axes: Axes, stage: dict[str, Any], key: str, colour: str) -> None:
    """Draw one column of a stage's history."""
    rows = [(h.get("epoch"), h.get(key)) for h in stage["history"]]
    rows = [(e, v) for e, v in rows if isinstance(e, int | float) and isinstance(v, int | float)]
    axes.plot([e for e, _ in rows], [v for _, v in rows], color=colour, lw=1.2)


def randomisation(run: Run) -> Drawn | None:
    """Draw how the heat maps change as the weights are randomised from the top down."""
    steps = (run.explanations.get("sanity") or {}).get("randomisation") or []
    if not steps:
        return None
    figure, axes = named_rows(
        [str(s.get("layer", "")) for s in steps], "Similarity to the heat map of the trained model"
    )
    for i, s in enumerate(steps):
        if s.get("low") is not None and s.get("high") is not None:
            axes.plot([s["low"], s["high"]], [i, i], color=BLUE, lw=1.8)
        if s.get("similarity") is not None:
            axes.plot(s["similarity"], i, "s", color=BLUE, ms=5)
    axes.set_xlim(min(0.0, *(s.get("low") or 0.0 for s in steps)), 1.02)
    text = "Heat maps as the weights are randomised down to the named layer: a faithful method must lose its map"
    return Drawn(figure, f"{text}; n = {steps[0].get('n', '?')} cases.", text)


FIGURES: dict[str, Callable[[Run], Drawn | None]] = {
    "targets": figures_targets.targets,
    "gains": figures_targets.gains,
    "answer": answer,
    "flow": flow,
    "classes_confusion": figures_classes.confusion,
    "classes_roc": figures_classes.roc,
    "classes_calibration": figures_classes.calibration,
    "classes_decision": figures_classes.decision,
    "grid": grid.ablation,
    "grid_tests": grid.forest,
    "roc_internal": figures_sets.roc_internal,
    "roc": roc,
    "calibration": calibration,
    "decision": decision,
    "probabilities": probabilities,
    "matrix": figures_sets.matrices,
    "confusion": confusion,
    "forest": forest,
    "folds": folds,
    "learning": figures_targets.learning,
    "training": training,
    "randomisation": randomisation,
    "roc_external": figures_sets.roc_external,
    "roc_readers": figures_sets.roc_readers,
    "subgroups": figures_sets.subgroups,
    "importance": figures_sets.importance,
}

# Drawn once a run; the others once a target.
SHARED = ("targets", "gains", "flow", "training", "randomisation")
