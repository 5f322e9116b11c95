"""The explained patients as the page shows them: their views side by side, grouped by class and decision.

It must not know HTML, nor read a picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tenfold.report.load import Run
from tenfold.report.words import arm_name, number


@dataclass(frozen=True)
class View:
    """One picture of a patient with its heat map.

    Attributes:
        name: What stands below it, "elastography, picture 2"; empty where a patient has one picture.
        film: The picture's file in the run folder, as the run names it.
        overlay: The file of the heat map over it.
    """

    name: str
    film: Any
    overlay: Any


def patients(run: Run) -> list[dict[str, Any]]:
    """Return the cases of explanations.json, the pictures of each under "views".

    Pictures stand under "pictures", as mappings of "view", "picture" (its place among those of the view, from 0),
    "film" and "overlay"; a case from before there were several has "film" and "overlay" itself.
    """
    found = [case for case in run.explanations.get("cases") or [] if isinstance(case, dict)]
    return [{**case, "views": _views(run, case)} for case in found]


def _views(run: Run, case: dict[str, Any]) -> list[View]:
    held = [p for p in case.get("pictures") or [] if isinstance(p, dict)]
    if not held:
        there = case.get("film") or case.get("overlay")
        return [View("", case.get("film"), case.get("overlay"))] if there else []
    images = [name for name in run.inputs(run.proposed) if _is_image(run, name)]
    several = len(held) > 1 or len(images) > 1
    return [View(_name(p, held) if several else "", p.get("film"), p.get("overlay")) for p in held]


def _is_image(run: Run, name: str) -> bool:
    return ((run.facts.get("inputs") or {}).get(name) or {}).get("kind") == "image"


def _name(picture: dict[str, Any], held: list[dict[str, Any]]) -> str:
    """Return a picture's view, and its number where the patient has several of it."""
    view, i = str(picture.get("view") or ""), picture.get("picture")
    many = sum(str(p.get("view") or "") == view for p in held) > 1
    return f"{arm_name(view)}, picture {i + 1}" if many and isinstance(i, int) else arm_name(view)


def probability(run: Run, case: dict[str, Any]) -> str:
    """Return how likely the answer was: of three classes or more with the class that it is of."""
    of = f" of {case['class']}" if len(run.classes) > 2 and case.get("class") else ""
    return f"probability{of} {number(case.get('probability'), 2)}"


def grouped(run: Run, cases: list[dict[str, Any]]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Return cases by true class, of three classes or more also by decision; wrong answers first.

    Args:
        run: The run.
        cases: Entries with "label", "decision" and "right".

    Returns:
        Class -> decision in words (empty for a yes or no) -> entries. The positive class comes first.
    """
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for case in sorted(cases, key=lambda c: (c["label"] != run.positive, c["label"], c["right"])):
        decision = f"called {case['decision']}" if len(run.classes) > 2 else ""
        found.setdefault(case["label"], {}).setdefault(decision, []).append(case)
    return found
