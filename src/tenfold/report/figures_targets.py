"""Figures of several targets at once (AUC by target and arm, gains), and of one: AUC by number of patients.

It must not know the page, nor subtract one AUC from another: a gain is drawn where the run compared it.
"""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tenfold.report.drawn import Drawn, short
from tenfold.report.inputs import difference
from tenfold.report.load import Run
from tenfold.report.look import BLUE, GREEN, INK, ORANGE, PAPER, PURPLE, RED, SKY, canvas
from tenfold.report.words import arm_name, interval, number, target_name
from tenfold.types import Estimate

# A colour, a shape and a place in the row tell targets apart: any one of the three is enough.
MARKS = ((BLUE, "o"), (RED, "s"), (GREEN, "^"), (PURPLE, "D"), (ORANGE, "v"), (SKY, "P"))


def targets(run: Run) -> Drawn | None:
    """Draw the AUC of every arm on every target with its interval; None for a run with one target."""
    if not run.several:
        return None
    rows = {arm: [v.estimates(arm).get("auc") for v in run.each] for arm in run.arms}
    rows = {arm: held for arm, held in rows.items() if any(held)}
    if not rows:
        return None
    figure, axes = _rows(run, list(rows), "AUC with interval (0.5 = chance)")
    axes.axvline(0.5, color=INK, lw=0.9, ls=(0, (2, 2)))
    _marks(axes, list(rows.values()))
    lowest = min((e.low if e.low == e.low else e.value for held in rows.values() for e in held if e), default=0.5)
    axes.set_xlim(max(0.0, min(0.45, lowest - 0.02)), 1.0)
    said = "; ".join(f"{arm_name(a)}: {_said(run, held)}" for a, held in rows.items())
    n = _sizes(run, rows.get(run.proposed) or next(iter(rows.values())))
    return Drawn(figure, f"AUC by arm and outcome, the proposed arm first. Dotted: chance. {n}", said)


def gains(run: Run) -> Drawn | None:
    """Draw what the proposed arm gains over every other, with the interval of the paired difference."""
    if not run.several:
        return None
    rows = {
        arm: [found[0] if (found := difference(v, arm)) else None for v in run.each]
        for arm in run.arms
        if arm != run.proposed
    }
    rows = {arm: held for arm, held in rows.items() if any(held)}
    if not rows:
        return None
    figure, axes = _rows(run, list(rows), f"AUC of {short(run.proposed, 18)} minus this arm")
    axes.axvline(0, color=INK, lw=0.9)
    _marks(axes, list(rows.values()), zero=0.0)
    widest = max(
        (abs(x) for held in rows.values() for e in held if e for x in (e.value, e.low, e.high) if x == x), default=0.1
    )
    axes.set_xlim(-1.06 * widest, 1.06 * widest)
    first = next(e for held in rows.values() for e in held if e)
    said = "; ".join(f"{arm_name(a)}: {_said(run, held)}" for a, held in rows.items())
    return Drawn(
        figure,
        f"What the {arm_name(run.proposed)} model gains in AUC over each other arm, on the same patients. Right of the "
        "line it is better. Filled: the interval leaves 0 out; hollow: no difference is shown. "
        f"Method: {first.method}; not adjusted for the number of comparisons.",
        said,
    )


def learning(run: Run) -> Drawn | None:
    """Draw the AUC of one target by how many patients were trained on; None where shares of them were not fitted."""
    found = run.learned()
    if len(found) < 2:
        return None
    figure = canvas(2.3)
    axes = figure.subplots()
    x = [patients for _, patients, _ in found]
    axes.axhline(0.5, color=INK, lw=0.9, ls=(0, (2, 2)))
    axes.plot(x, [e.value for _, _, e in found], "o-", color=BLUE, ms=4.5)
    axes.vlines(x, [e.low for _, _, e in found], [e.high for _, _, e in found], color=BLUE, lw=1.4)
    axes.set_xticks(x, [f"{patients:.0f}\n{share:.0%}" for share, patients, _ in found])
    margin = 0.08 * (max(x) - min(x) or 1.0)
    axes.set_xlim(min(x) - margin, max(x) + margin)
    lowest = min([0.45, *(e.low - 0.02 for _, _, e in found if e.low == e.low)])
    axes.set_ylim(max(0.0, lowest), 1.0)
    axes.set_xlabel("Training patients in a fold (mean, and share)")
    axes.set_ylabel("AUC, out of fold")
    last = found[-1][2]
    said = "; ".join(f"{patients:.0f} patients: {number(e.value)} ({interval(e)})" for _, patients, e in found)
    text = f"AUC of the {arm_name(run.proposed)} model by how many patients each fold was trained on, with interval"
    return Drawn(figure, f"{text}. Dotted: chance. n = {last.n}; {last.method}.", f"{text}: {said}")


def _rows(run: Run, arms: list[str], label: str) -> tuple[Figure, Axes]:
    """Return a figure with one row an arm, and above it the key of the targets."""
    tall = 0.10 + 0.115 * len(run.each)
    keys = -(-len(run.each) // 3)
    figure = canvas(0.62 + 0.2 * keys + tall * len(arms))
    axes = figure.subplots()
    axes.set_yticks(range(len(arms)), [short(arm, 24) for arm in arms])
    axes.set_ylim(len(arms) - 0.45, -0.55)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=INK, alpha=0.14, lw=0.6)
    for edge in range(1, len(arms)):
        axes.axhline(edge - 0.5, color=INK, alpha=0.14, lw=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel(label)
    for text, arm in zip(axes.get_yticklabels(), arms, strict=True):
        text.set_fontweight("bold" if arm == run.proposed else "normal")
    handles = [
        Line2D([], [], color=colour, marker=shape, lw=1.6, ms=4.5, label=short(target_name(v.target), 16))
        for v, (colour, shape) in zip(run.each, _cycle(len(run.each)), strict=True)
    ]
    figure.legend(
        handles=handles, loc="outside upper left", ncols=min(3, len(handles)), frameon=False, handlelength=1.8
    )
    return figure, axes


def _cycle(n: int) -> list[tuple[str, str]]:
    return [MARKS[i % len(MARKS)] for i in range(n)]


def _marks(axes: Axes, rows: list[list[Estimate | None]], *, zero: float | None = None) -> None:
    """Draw each target's point and interval at its own height within the row; hollow where the interval holds zero."""
    for y, held in enumerate(rows):
        step = 0.72 / max(len(held), 1)
        for i, (e, (colour, shape)) in enumerate(zip(held, _cycle(len(held)), strict=True)):
            if e is None:
                continue
            at = y + step * (i - (len(held) - 1) / 2)
            hollow = zero is not None and not (e.low > zero or e.high < zero)
            axes.plot([e.low, e.high], [at, at], color=colour, lw=1.4)
            axes.plot(e.value, at, shape, mec=colour, mfc=PAPER if hollow else colour, mew=1.2, ms=4.5)


def _said(run: Run, held: list[Estimate | None]) -> str:
    parts = [
        f"{target_name(v.target)} {number(e.value)} ({interval(e)})"
        for v, e in zip(run.each, held, strict=True)
        if e is not None
    ]
    return ", ".join(parts)


def _sizes(run: Run, held: list[Estimate | None]) -> str:
    parts = [f"{target_name(v.target)} n = {e.n}" for v, e in zip(run.each, held, strict=True) if e is not None]
    methods = list(dict.fromkeys(e.method for e in held if e is not None))
    return f"{', '.join(parts)}. {'; '.join(methods)}."
