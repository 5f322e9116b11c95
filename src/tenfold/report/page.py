"""The report: one self-contained HTML page and its figures, from the files of a run.

It must not know torch, statistics, or how a run came about; a part that is missing is said to be missing.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

from tenfold.errors import OutputError
from tenfold.report import (
    beside,
    chance,
    checklists,
    classes,
    connectomes,
    figures_connectome,
    gallery,
    grid,
    inputs,
    limits,
    look,
    methods_text,
    patient,
    people,
    readers,
    sites,
    tables,
    targets,
    words,
)
from tenfold.report.drawn import Drawn
from tenfold.report.figures import FIGURES, SHARED
from tenfold.report.load import Run, load
from tenfold.report.model_card import card
from tenfold.report.published import papers, published
from tenfold.report.tabular import Table
from tenfold.types import write_atomically

Draw = Callable[[Run], Drawn | None]


@dataclass(frozen=True)
class Figure:
    """A figure as the page wants it: markup and caption, or why there is none."""

    svg: Markup
    caption: str
    missing: str = ""

    @property
    def there(self) -> bool:
        """Whether there is something to show: the figure, or why it failed."""
        return bool(self.svg or self.missing)


# What the page says in place of a figure whose files are not there. Figures that are not listed belong to some kinds
# of study only, and are left out without a word where they do not apply.
ABSENT = {
    "answer": "No AUC was estimated, so there is nothing to draw.",
    "flow": "No flow chart: cohort.json is missing or empty.",
    "roc": "No ROC curve: curves.json holds none.",
    "calibration": "No calibration plot: curves.json holds none for the proposed arm.",
    "decision": "No decision curve: curves.json holds none for the proposed arm.",
    "probabilities": "No probabilities by class: the predictions file is missing or names no positive class.",
    "confusion": "No confusion matrices: curves.json holds none.",
    "forest": "No arm has an AUC.",
    "folds": "No results by fold: folds.json is missing, as it is for an external validation.",
    "training": "No training curves: this run trained nothing, or kept no history of it.",
    "randomisation": "The heat maps were not checked by weight randomisation in this run.",
}


# Figures of all classes together, of which a target with a yes or no besides must not be said to be of that alone.
WHOLE = (
    "answer",
    "classes_confusion",
    "classes_roc",
    "classes_calibration",
    "classes_decision",
    "grid",
    "grid_tests",
)


def write_report(run: Path) -> Path:
    """Draw the figures of a run and write its report.

    Args:
        run: Folder of `tenfold run` or `tenfold evaluate`.

    Returns:
        The page, `report.html` in that folder. The same files give the same bytes.

    Raises:
        OutputError: There is no readable run.json, or the folder cannot be written.
    """
    held = load(run)
    environment = Environment(
        loader=FunctionLoader(_asset),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    _write_patients(held, environment)
    page = environment.get_template("template.html").render(_context(held))
    place = run / "report.html"
    write_atomically(place, page)
    return place


def _write_patients(run: Run, environment: Environment) -> None:
    """Write one page a patient that was explained."""
    template = environment.get_template("patient.html")
    common = {
        "css": Markup(_asset("style.css")),
        "banner": words.RESEARCH_ONLY,
        "title": str(run.facts.get("title") or "Untitled study"),
        "simulated": bool(run.facts.get("simulated")),
    }
    cases = _explained(run)
    for name, case in zip(patient.file_names(cases), cases, strict=True):
        page = template.render(**common, views=_views(run, case), p=patient.facts(run, case))
        write_atomically(run.folder / patient.FOLDER / name, page)


def _explained(run: Run) -> list[dict[str, Any]]:
    return gallery.patients(run)


def _views(run: Run, case: dict[str, Any]) -> list[dict[str, str]]:
    """Return the pictures of one patient with their heat maps."""
    return [{"name": v.name, "film": _picture(run, v.film), "overlay": _picture(run, v.overlay)} for v in case["views"]]


def _asset(name: str) -> str:
    return resources.files("tenfold.report").joinpath(name).read_text("utf-8")


def _figure(run: Run, name: str, draw: Draw, *, part: str = "", label: str = "") -> Figure:
    """Draw one figure into the run folder; a file that holds the wrong shape costs this figure only.

    Args:
        run: The run, about the target that the figure is of.
        name: Its name on the page.
        draw: What draws it.
        part: What is put behind the name where a run has several targets.
        label: The target's name, for caption and description.
    """
    with look.settings():
        try:
            drawn = draw(run)
            if drawn is None:
                return Figure(Markup(), "", ABSENT.get(name, ""))
            look.settle(drawn.figure)
            svg, png = look.svg_file(drawn.figure), look.png(drawn.figure)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OutputError) as error:
            reason = f"{type(error).__name__}: {error}"
            return Figure(
                Markup(), "", f"The figure “{name}{part}” could not be drawn from the run's files ({reason})."
            )
    write_atomically(run.folder / "figures" / f"{name}{part}.svg", svg)
    write_atomically(run.folder / "figures" / f"{name}{part}.png", png)
    before = f"{label}. " if label else ""
    said = str(escape(before + (drawn.alt or drawn.caption)))
    return Figure(Markup(look.svg_inline(svg, f"fig-{name}{part}", said)), before + drawn.caption)


def _picture(run: Run, name: Any) -> str:
    """Return a picture of the run folder as data URI; empty where it is missing or lies outside."""
    place = run.inside(name)
    kinds = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg"}
    if place is None or place.suffix.lower() not in kinds:
        return ""
    return f"data:image/{kinds[place.suffix.lower()]};base64,{base64.b64encode(place.read_bytes()).decode('ascii')}"


def _cases(run: Run) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Return the explained cases by class and, where a class is explained, by decision; wrong answers first."""
    held = _explained(run)
    shown = [
        {
            "case": str(c.get("case", "?")),
            "label": str(c.get("label", "?")),
            "decision": str(c.get("decision", "?")),
            "right": bool(c.get("right")),
            "probability": gallery.probability(run, c),
            "views": _views(run, c),
            "page": f"{patient.FOLDER}/{name}",
        }
        for c, name in zip(held, patient.file_names(held), strict=True)
    ]
    return gallery.grouped(run, shown)


def _context(run: Run) -> dict[str, Any]:
    """Gather everything that the template names."""
    figures = {name: _figure(run, name, draw) for name, draw in FIGURES.items() if name in SHARED}
    edges = [_edges(run, held, figures) for held in connectomes.edges(run)]
    return {
        "css": Markup(_asset("style.css")),
        "run": run,
        "several": run.several,
        "parts": _parts(run),
        "title": str(run.facts.get("title") or "Untitled study"),
        "banner": words.RESEARCH_ONLY,
        "answer": _answer(run),
        "alarms": _alarms(run),
        "films": words.films(run),
        "simulated": words.ceiling(run) is not None or bool(run.facts.get("simulated")),
        "population": words.everybody(run),
        "problems": [*run.problems, *checklists.author_problems(run)],
        "failed": tables.failed(run),
        "flaws": tables.flaws(run),
        "counted": tables.counted(run),
        "sanity": tables.sanity_sentence(run),
        "figures": figures,
        "tables": {
            "summary": targets.summary(run),
            "all_arms": targets.arms(run),
            "findings": tables.findings(run),
            "published": beside.table(run),
            "others": beside.others(run),
            "opened": tables.opened(run),
            "stages": tables.stages(run),
            "sanity": tables.sanity(run),
            "conditions": tables.conditions(run),
            "versions": tables.pairs("Versions.", ("Package", "Version"), run.facts.get("versions")),
            "hashes": tables.pairs("Hashes (SHA-256).", ("Of", "Hash"), run.facts.get("hashes")),
            "timings": tables.timings(run),
        },
        "published": published(str(run.facts.get("system") or "")),
        "beside": beside.items(run),
        "explains_pictures": words.pictured(run),
        "edges": edges,
        "cases": _cases(run),
        "feature_maps": [
            {"layer": str(m.get("layer", "?")), "picture": _picture(run, m.get("file"))}
            for m in run.explanations.get("feature_maps") or []
        ],
        "methods": methods_text.paragraphs(run),
        "references": methods_text.cited(run),
        "card": card(run.facts, run.evaluation, {view.target: view.permutations for view in run.each}, run.all_classes),
        "checklists": [checklists.fill(run, key) for key in checklists.CHECKLISTS],
        "papers": papers(),
        "not_provided": words.NOT_PROVIDED,
    }


def _answer(run: Run) -> list[str]:
    """Return what leads the page: the answer, or of several targets which of them can be told from chance."""
    state = run.arms.get(run.proposed, {})
    if run.several and state.get("status") != "failed":
        return [chance.lead(run), *(s for view in run.each for s in classes.headline(view)[:1])]
    return [*classes.headline(run), *words.answer(run)]


def _alarms(run: Run) -> list[str]:
    """Say of each target that cannot be told from chance that it cannot."""
    return [chance.sentence(view) for view in run.each if chance.verdict(view).told is False]


def _parts(run: Run) -> list[dict[str, Any]]:
    """Gather what the page says of each target; with one target nothing carries its name."""
    if not run.several:
        return [_part(run)]
    ids: list[str] = []
    for view in run.each:
        plain = re.sub(r"[^a-z0-9]+", "-", view.target.lower()).strip("-") or "target"
        ids.append(f"-{plain}" if f"-{plain}" not in ids else f"-{plain}-{len(ids) + 1}")
    parts = [_part(view, part, targets.heading(view.target)) for view, part in zip(run.each, ids, strict=True)]
    for part in parts[1:]:
        part["division"] = ""  # the folds are the same for all targets, and told once
    return parts


def _part(run: Run, part: str = "", label: str = "") -> dict[str, Any]:
    """Gather what the page says of one target.

    Args:
        run: The run, about that target.
        part: What is put behind every id of the page, "-language"; empty where there is one target.
        label: The target's name, put before every caption; empty where there is one target.
    """
    rest = words.versus(run)
    asked = f"{label}, {rest}" if label and rest else label or words.capital(rest)
    figures = {
        name: _figure(run, name, draw, part=part, label=label if name in WHOLE else asked)
        for name, draw in FIGURES.items()
        if name not in SHARED
    }
    shown = {
        "cohort": people.cohort(run),
        "tests": people.tests(run),
        "conformal": limits.conformal(run),
        "classes": classes.overall(run),
        "each": classes.each(run),
        "pairs": classes.pairs(run),
        "classes_differences": classes.comparisons(run),
        "classes_others": classes.comparisons(run, macro=False),
        "grid": grid.table(run),
        "grid_tests": grid.tests_table(run),
        "sites": sites.table(run),
    }
    judged = {
        "core": tables.group(run, "core", "The core set and its companions, proposed arm."),
        "operating": tables.group(run, "operating", "At the frozen operating point, proposed arm."),
        "improper": tables.group(run, "improper", "Improper measures at the frozen operating point, proposed arm."),
        "fusion": inputs.fusion_table(run),
        "altered": inputs.altered_table(run),
        "shares": inputs.shares_table(run),
        "subgroups": limits.subgroups(run),
        "prevalence": tables.prevalence(run),
        "arms": tables.arms(run),
        "differences": tables.differences(run),
        "other_differences": tables.other_differences(run),
        "operating_points": tables.operating_points(run),
    }
    size = limits.sample_size(run)
    told = [s for s in targets.chances(run) if s] if part else chance.sentences(run)
    told += chance.not_permuted(run)
    gap, fewer = limits.optimism(run), limits.fewer_patients(run)
    return {
        "run": run,
        "id": part,
        "label": label,
        "name": words.target_name(run.target),
        "h": "h3" if part else "h2",
        "sub": "h4" if part else "h3",
        "figures": figures,
        "tables": {name: _labelled(table, label) for name, table in shown.items()}
        | {name: _labelled(table, asked) for name, table in judged.items()},
        "rest": rest,
        "classes": classes.names(run),
        "grid": grid.sentences(run),
        "grid_failed": grid.failed(run),
        "sites": sites.sentences(run),
        "answer": [*classes.headline(run), *words.answer(run)],
        "division": words.division(run),
        "rule": words.rule(run),
        "fusion": inputs.sentences(run),
        "importance": inputs.importance_notes(run),
        "chance": told,
        "untold": chance.verdict(run).told is False,
        "sample_size": size,
        "optimism": gap,
        "fewer": fewer,
        "sure": bool(told or size or gap or fewer or shown["conformal"]),
        "gaps": limits.gap_sentences(run),
        "externals": [_external(name, other, label) for name, other in run.externals.items()],
        "reader_studies": [_readers(name, place, label) for name, place in readers.places(run).items()],
    }


def _labelled(table: Table | None, label: str) -> Table | None:
    """Put a target's name before the caption of a table."""
    return table if table is None or not label else replace(table, caption=f"{label}: {table.caption}")


def _edges(run: Run, held: connectomes.Edges, figures: dict[str, Figure]) -> dict[str, Any]:
    """Gather what the page says of the edges of one input for one target; its sums between networks are drawn here."""
    name = re.sub(r"[^a-z0-9]+", "-", f"networks-{held.input}-{held.target}".lower())
    if held.names:
        title = f"{targets.heading(held.target)}: {'mean size of an edge' if held.per_edge else 'sums of edges'}"
        way = "averaged" if held.per_edge else "summed"
        text = f"Edges of {held.input} that moved {words.target_name(held.target)}, {way} within and between networks"

        def draw(_: Run) -> Drawn:
            return Drawn(figures_connectome.draw_networks(held.names, held.matrix, title), f"{text}.", text)

        figures[name] = _figure(run, name, draw)
    return {
        "input": held.input,
        "target": words.target_name(held.target),
        "sentences": held.sentences,
        "untold": words.target_name(held.target) in chance.untold(run),
        "table": held.table,
        "pattern": held.pattern,
        "pattern_sentences": held.pattern_sentences,
        "picture": _picture(run, held.picture),
        "brain": _picture(run, held.brain),
        "networks": name if held.names else "",
    }


def _external(name: str, run: Run, label: str) -> dict[str, Any]:
    """Gather what the main report says of one external set."""
    title = f"The frozen {words.arm_name(run.proposed)} model in “{name}”"
    return {
        "name": name,
        "population": words.population(run),
        "answer": [*classes.headline(run), *words.answer(run, published_too=False)],
        "classes": _labelled(classes.overall(run, f"{title}: all classes together."), label),
        "core": _labelled(tables.group(run, "core", f"{title}: the core set."), label),
        "operating": _labelled(tables.group(run, "operating", f"{title}: at the operating point it came with."), label),
        "page": f"external/{name}/report.html" if run.inside("report.html") else "",
    }


def _readers(name: str, run: Run, label: str) -> dict[str, Any]:
    """Gather what the report says of one reader study."""
    return {
        "name": name,
        "sentences": readers.sentences(run),
        "findings": readers.findings(run),
        "tables": [
            _labelled(t, label)
            for t in (
                readers.against_machine(run),
                readers.per_reader(run),
                readers.between(run),
                readers.agreement(run),
            )
            if t is not None
        ],
    }
