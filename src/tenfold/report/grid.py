"""The grid of networks, views and starting weights: its cells in a figure and a table, and its paired tests.

It must not know HTML, nor subtract one AUC from another: a difference is shown where the run tested it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from tenfold.report import classes
from tenfold.report.drawn import Drawn, named_rows, short
from tenfold.report.figures_targets import MARKS
from tenfold.report.load import Run, readable
from tenfold.report.look import BLUE, INK, PAPER, canvas
from tenfold.report.tabular import Table, one_method
from tenfold.report.words import (
    arm_name,
    capital,
    ceiling_of,
    interval,
    joined,
    metric_label,
    number,
    p_value,
    versus,
    with_interval,
)
from tenfold.types import Estimate

_TWO_CLASSES = ("auc", "sensitivity", "specificity", "balanced_accuracy", "accuracy", "f1")
_ROW = 0.25  # inches from one view to the next: room for a filled and a hollow mark


@dataclass(frozen=True)
class Cell:
    """One arm of the grid.

    Attributes:
        network: Its network.
        view: The input it sees, or "fused".
        start: "pre-trained" or "scratch".
        arm: Its name among the arms.
    """

    network: str
    view: str
    start: str
    arm: str


@dataclass(frozen=True)
class Test:
    """One paired test between two cells.

    Attributes:
        question: What was asked: "pre-training", "fused against b_mode".
        cell: Where it was asked, in words.
        difference: The first minus the second; None where it could not be computed.
        p: Its p value, as the file has it.
        p_adjusted: Adjusted for the tests of the grid.
        method: How it was made.
    """

    question: str
    cell: str
    difference: Estimate | None
    p: Any
    p_adjusted: Any
    method: str


def cells(run: Run) -> list[Cell]:
    """Return the cells in the order of networks, views and starts; empty where the run has no grid."""
    held = run.facts.get("grid") or {}
    found = [
        Cell(*(str(c.get(k) or "?") for k in ("network", "view", "start", "arm"))) for c in held.get("cells") or []
    ]

    def place(cell: Cell) -> tuple[int, ...]:
        order = (("networks", cell.network), ("views", cell.view), ("starts", cell.start))
        return tuple(_index(held.get(axis) or [], name) for axis, name in order)

    return sorted(found, key=place)


def _index(names: list[Any], name: str) -> int:
    return names.index(name) if name in names else len(names)


def _axis(run: Run, key: str, of: Callable[[Cell], str]) -> list[str]:
    """Return one axis of the grid: what run.json lists, and whatever else a cell names."""
    listed = [str(name) for name in (run.facts.get("grid") or {}).get(key) or []]
    return list(dict.fromkeys([*listed, *(of(c) for c in cells(run))]))


def metric(run: Run) -> str:
    """Return the metric that cells are compared by."""
    return classes.MACRO if classes.of(run) else "auc"


def _found(run: Run, arm: str) -> dict[str, Estimate]:
    return classes.estimates(run, arm) if classes.of(run) else run.estimates(arm)


def _name(run: Run) -> str:
    return "macro one-vs-one AUC" if classes.of(run) else "AUC"


def _ceiling(run: Run, view: str) -> float | None:
    """Return the best attainable from what the arms of one view see; None for real patients."""
    arm = next((c.arm for c in cells(run) if c.view == view), "")
    return classes.ceiling(run, arm) if classes.of(run) else ceiling_of(run, arm)


def _why(run: Run, arm: str) -> str:
    """Say why a cell has no figures."""
    held = run.arms.get(arm)
    if held is None:
        return "not run"
    return f"failed: {held.get('reason') or 'no reason recorded'}" if held.get("status") == "failed" else "no figures"


def sentences(run: Run) -> list[str]:
    """Say how large the grid is, which cell is best, and which cells failed."""
    found = cells(run)
    if not found:
        return []
    measured = {c: e for c in found if (e := _found(run, c.arm).get(metric(run))) is not None}
    said = [
        f"{len(found)} cells: {joined(_axis(run, 'networks', lambda c: c.network))}, each on "
        f"{joined([arm_name(v) for v in _axis(run, 'views', lambda c: c.view)])}, each "
        f"{' and '.join(_axis(run, 'starts', lambda c: c.start))}; the same patients and folds in all."
    ]
    if measured:
        best = max(measured, key=lambda c: measured[c].value)
        said.append(
            f"The highest {_name(run)} is that of {_worded(best)}: {with_interval(measured[best])}, "
            f"n = {measured[best].n}. It was picked after all results were seen, which favours it."
        )
    return said


def failed(run: Run) -> list[str]:
    """Say of each cell without figures why it has none."""
    return [f"{_worded(c)}: {_why(run, c.arm)}." for c in cells(run) if metric(run) not in _found(run, c.arm)]


def _worded(cell: Cell) -> str:
    return f"{cell.network}, {arm_name(cell.view)}, {cell.start}"


def ablation(run: Run) -> Drawn | None:
    """Draw the AUC of every cell: networks from the top down, a row and a colour a view, filled where pre-trained."""
    found = cells(run)
    if not found:
        return None
    networks, views = _axis(run, "networks", lambda c: c.network), _axis(run, "views", lambda c: c.view)
    starts = _axis(run, "starts", lambda c: c.start)
    names, heights, at = [], [], {}
    y = 0.0
    for network in networks:
        at[network, ""] = y
        y += 1
        for view in views:
            at[network, view] = y
            names.append(arm_name(view))
            heights.append(y)
            y += 1
        y += 0.25
    figure = canvas(0.85 + _ROW * y)
    axes = figure.subplots()
    axes.set_yticks(heights, [short(name, 16) for name in names])
    axes.set_ylim(y - 0.5, -0.7)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=INK, alpha=0.14, lw=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel(f"{capital(_name(run))} (0.5 = chance)")
    left = _left(run, found)
    axes.set_xlim(left, 1.0)
    for network in networks:
        axes.text(left, at[network, ""], f" {network}", weight="bold", va="center")
    for cell in found:
        shift = 0.4 * (starts.index(cell.start) - (len(starts) - 1) / 2) if cell.start in starts else 0.0
        _mark(axes, run, cell, at[cell.network, cell.view] + shift, views, left)
    _ceilings(axes, run, networks, views, at)
    handles = [
        Line2D([], [], color=INK, marker="o", lw=1.4, ms=4.5, mfc=INK if start != "scratch" else PAPER, label=start)
        for start in starts
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=max(len(handles), 1), frameon=False)
    return Drawn(figure, _caption(run, found), "; ".join(_heard(run, c) for c in found))


def _left(run: Run, found: list[Cell]) -> float:
    """Return where the scale begins: below chance only where an interval goes there."""
    lows = [e.low for c in found if (e := _found(run, c.arm).get(metric(run))) is not None and e.low == e.low]
    return max(0.0, min([0.5, *(low - 0.02 for low in lows)]))


def _mark(axes: Axes, run: Run, cell: Cell, y: float, views: list[str], left: float) -> None:
    """Draw one cell; one that failed is named in its place."""
    colour, shape = MARKS[views.index(cell.view) % len(MARKS)]
    e = _found(run, cell.arm).get(metric(run))
    if e is None:
        why = _why(run, cell.arm)
        word = "failed" if why.startswith("failed") else why
        axes.text(left + 0.005, y, f"{cell.start}: {word}", va="center", style="italic")
        return
    axes.plot([e.low, e.high], [y, y], color=colour, lw=1.5)
    axes.plot(e.value, y, shape, mec=colour, mfc=PAPER if cell.start == "scratch" else colour, mew=1.2, ms=4.5)


def _ceilings(axes: Axes, run: Run, networks: list[str], views: list[str], at: dict[tuple[str, str], float]) -> None:
    """Draw the best attainable value from each view, where the patients are simulated."""
    for view in views:
        best = _ceiling(run, view)
        if best is not None:
            for network in networks:
                y = at[network, view]
                axes.plot([best, best], [y - 0.42, y + 0.42], color=INK, lw=1.2)


def _caption(run: Run, found: list[Cell]) -> str:
    measured = [e for c in found if (e := _found(run, c.arm).get(metric(run))) is not None]
    sizes = sorted({e.n for e in measured})
    n = f"n = {sizes[0]:,}" + (f" to {sizes[-1]:,}" if len(sizes) > 1 else "") if sizes else "n unknown"
    ways = "; ".join(dict.fromkeys(e.method for e in measured))
    text = f"{capital(_name(run))} of every cell of the grid with its interval: a group of rows a network; a row, "
    text += f"colour and shape a view; filled: pre-trained, hollow: from scratch. {n}; {ways}."
    if any(_ceiling(run, c.view) is not None for c in found):
        text += " Upright bar: the best attainable from that view, known as the patients are simulated."
    without = len(found) - len(measured)
    return text + (f" Cells without figures: {without} of {len(found)}." if without else "")


def _heard(run: Run, cell: Cell) -> str:
    e = _found(run, cell.arm).get(metric(run))
    return f"{_worded(cell)} {with_interval(e) if e else _why(run, cell.arm)}"


def table(run: Run) -> Table | None:
    """Every cell of the grid with its figures; one without them says why."""
    found = cells(run)
    order = classes.OVERALL if classes.of(run) else _TWO_CLASSES
    shown = [m for m in order if any(m in _found(run, c.arm) for c in found)]
    if not found:
        return None
    rows, sizes = [], sorted({e.n for c in found if (e := _found(run, c.arm).get(metric(run))) is not None})
    for c in found:
        held = _found(run, c.arm)
        figures = [with_interval(held.get(m), classes.digits(m)) for m in shown]
        size = [f"{held[metric(run)].n:,}" if metric(run) in held else "–"] if len(sizes) > 1 else []
        rows.append([_worded(c), *(figures if held else [_why(run, c.arm), *["–"] * (len(shown) - 1)]), *size])
    first: dict[str, Estimate] = next((held for c in found if (held := _found(run, c.arm))), {})
    heads = [classes.label(m) if classes.of(run) else metric_label(m) for m in shown]
    about = f" ({versus(run)})" if versus(run) and not classes.of(run) else ""
    return Table(
        f"The grid, cell by cell{about}{f'; n = {sizes[0]:,}' if len(sizes) == 1 else ''}.",
        ("", *heads, *(["n"] if len(sizes) > 1 else [])),
        rows,
        note=f"Value (interval). {classes.methods(first, shown)}" if first else "",
        strong=tuple(i for i, c in enumerate(found) if c.arm == run.proposed),
        loose=True,
    )


def tests(run: Run) -> list[Test]:
    """Return the paired tests of the grid, those of one question together."""
    held = (run.grid.get(run.target) or {}).get("comparisons") or []
    found = [
        Test(
            question=str(c.get("question") or "?"),
            cell=_asked_of(c),
            difference=Estimate.from_dict(gap) if readable(gap := c.get("difference")) else None,
            p=c.get("p"),
            p_adjusted=c.get("p_adjusted"),
            method=str((c.get("method") if readable(gap) else (gap or {}).get("method")) or "–"),
        )
        for c in held
    ]
    questions = list(dict.fromkeys(t.question for t in found))
    return sorted(found, key=lambda t: questions.index(t.question))


def _asked_of(test: dict[str, Any]) -> str:
    """Say in which network and view a question was asked; a view that the question names is not said again."""
    view = str(test.get("view") or "")
    named = str(test.get("question")).startswith(f"{view} against")
    return ", ".join(part for part in (str(test.get("network") or ""), "" if named else arm_name(view)) if part)


def tests_table(run: Run) -> Table | None:
    """The paired tests of the grid."""
    rows = []
    for t in tests(run):
        e = t.difference
        size = f"{e.n:,}" if e else "–"
        gap = [number(e.value), interval(e)] if e else ["–", "–"]
        rows.append([arm_name(t.question), t.cell, *gap, p_value(t.p), p_value(t.p_adjusted), size, t.method])
    if not rows:
        return None
    return one_method(
        Table(
            f"Paired tests within the grid, on the same patients: difference in {_name(run)}.",
            ("Question", "Cell", "Difference", "Interval", "p", "p (adjusted)", "n", "Method"),
            rows,
            note=_READ,
            words=(0, 1, 7),
        )
    )


_READ = (
    "Pre-training: pre-trained minus from scratch. “A against B”: A minus B. Above 0, the first is better. An interval "
    "that holds 0 shows no difference, which is not equality shown."
)


def forest(run: Run) -> Drawn | None:
    """Draw the paired tests of the grid as rows of difference and interval, filled where the interval leaves 0 out."""
    drawn = [(t, t.difference) for t in tests(run) if t.difference is not None]
    if not drawn:
        return None
    rows: list[tuple[str, Estimate | None]] = []
    for question in dict.fromkeys(t.question for t, _ in drawn):
        rows.append((arm_name(question), None))
        rows += [(t.cell or "all", e) for t, e in drawn if t.question == question]
    figure, axes = named_rows([name for name, _ in rows], f"Difference in {_name(run)}")
    axes.set_yticks(range(len(rows)), [short(name, 28) for name, _ in rows])
    axes.axvline(0, color=INK, lw=0.9)
    for y, (_, e) in enumerate(rows):
        if e is None:
            axes.get_yticklabels()[y].set_fontweight("bold")
            continue
        axes.plot([e.low, e.high], [y, y], color=BLUE, lw=1.6)
        axes.plot(e.value, y, "s", mec=BLUE, mfc=BLUE if e.low > 0 or e.high < 0 else PAPER, mew=1.2, ms=4.5)
    estimates = [e for _, e in drawn]
    sizes = sorted({e.n for e in estimates})
    n = f"n = {sizes[0]:,}" + (f" to {sizes[-1]:,}" if len(sizes) > 1 else "")
    ways = "; ".join(dict.fromkeys(e.method for e in estimates))
    said = "; ".join(f"{arm_name(t.question)}, {t.cell}: {with_interval(e)}" for t, e in drawn)
    return Drawn(
        figure,
        f"Paired differences in {_name(run)} within the grid. {_READ} Filled: the interval leaves 0 out. {n}; {ways}.",
        said,
    )
