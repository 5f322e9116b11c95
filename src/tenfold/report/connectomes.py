"""What the report says of connectomes: how they were prepared, and which edges moved the answers.

It must not know HTML, arrays or how an edge got its number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tenfold.report.load import Run, readable
from tenfold.report.tabular import Table
from tenfold.report.words import count, interval, joined, number, target_name
from tenfold.types import Estimate

SHOWN = 15
_SPACES = {
    "fisher_z": "Fisher's z of the correlations",
    "tangent": "the tangent space at the geometric mean of the training patients' matrices (Varoquaux 2010)",
    "correlation": "correlations as they are",
}


@dataclass(frozen=True)
class Edges:
    """The edges that moved one target, of one input.

    Attributes:
        input: Name of the input.
        target: Name of the target.
        sentences: How they were found, and how alike the folds are.
        table: The strongest edges.
        picture: Relative name of the matrix as PNG; empty where there is none.
        brain: Relative name of the glass brain as PNG; empty where there is none.
        names: Networks of the sums; empty where none are known.
        matrix: Mean size of an edge within and between networks, or its sum where only that is told.
        per_edge: Whether the matrix holds means.
        pattern: The strongest edges of the pattern that goes along with the answers (Haufe 2014).
        pattern_sentences: How it was found, and how alike the folds are.
    """

    input: str
    target: str
    sentences: tuple[str, ...]
    table: Table | None
    picture: str
    brain: str
    names: tuple[str, ...]
    matrix: tuple[tuple[float, ...], ...]
    per_edge: bool
    pattern: Table | None
    pattern_sentences: tuple[str, ...]


def of_kind(facts: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the sections of run.json's inputs that are connectomes."""
    held = facts.get("inputs") or {}
    return {str(n): dict(i) for n, i in held.items() if isinstance(i, Mapping) and i.get("kind") == "connectome"}


def size(section: Mapping[str, Any]) -> str:
    """Say how large a connectome is and of which atlas, as far as run.json knows."""
    regions = section.get("regions")
    n = len(regions) if isinstance(regions, list) else regions if isinstance(regions, int) else section.get("n_regions")
    atlas = str(section.get("atlas") or (regions if isinstance(regions, str) else ""))
    edges = f" ({n * (n - 1) // 2:,} edges, each pair once)" if isinstance(n, int) else ""
    text = f"{count(n, 'region')}{edges}" if isinstance(n, int) else "regions whose number the run does not say"
    return f"{text}{f', named in {atlas}' if atlas else ''}"


def prepared(name: str, section: Mapping[str, Any]) -> str:
    """Say how one connectome was read and prepared; nothing outside the training part of a fold taught it anything."""
    held = {"timeseries": "time courses of the regions", "fisher_z": "Fisher's z of correlations"}
    source = held.get(str(section.get("holds")), "correlations")
    measure = section.get("measure")
    if section.get("holds") == "timeseries" and measure:
        source += f", turned into {measure}s with a shrunk covariance (Ledoit 2004)"
    text = f"The connectome “{name}” had {size(section)}, read from {source}. "
    text += f"Its edges were put into {_SPACES.get(str(section.get('space')), str(section.get('space') or '?'))}. "
    text += "Within each fold, from its training part alone, "
    steps = []
    if section.get("harmonise"):
        kept = f", keeping the effects of {joined([str(k) for k in section['keep']])}" if section.get("keep") else ""
        steps.append(f"effects of “{section['harmonise']}” were taken out by ComBat (Johnson 2007; Yu 2018){kept}")
    if section.get("confounds"):
        steps.append(f"{joined([str(c) for c in section['confounds']])} were regressed out of every edge")
    steps.append("edges were standardised")
    text += f"{'; '.join(steps)}. An edge that was not measured took the mean of the training part. "
    if not section.get("harmonise") and not section.get("confounds"):
        text += "Neither site nor any confound was taken out. "
    if section.get("most_motion") is not None:
        text += f"Cases that moved by more than {section['most_motion']:g} mm were refused. "
    return text.strip()


def in_short(name: str, section: Mapping[str, Any]) -> list[str]:
    """Say for a model card what the model expects of a connectome, and what it does with an unknown site."""
    parts = [f"harmonised over {section['harmonise']} (ComBat)"] if section.get("harmonise") else []
    if section.get("confounds"):
        parts.append(f"{joined([str(c) for c in section['confounds']])} regressed out")
    adjusted = f"; {joined(parts)}, learned from training patients alone" if parts else "; nothing was regressed out"
    lines = [f"{name}: a connectome of {size(section)}, in {_SPACES.get(str(section.get('space')), '?')}{adjusted}"]
    if section.get("harmonise"):
        unseen = section.get("unseen")
        what = "is refused" if unseen == "refuse" else "is passed on as it is, not harmonised, and said to be"
        lines.append(f"A connectome of a {section['harmonise']} that no training patient had {what}")
    return lines


def limits(facts: Mapping[str, Any]) -> list[str]:
    """Say what is known to be wrong with a model of connectomes, whatever its numbers."""
    if not of_kind(facts):
        return []
    return [
        "A connectome depends on atlas, scanner, length of the scan, motion and preprocessing: one made in another way "
        "is another measurement, and the model was not tried on it.",
    ]


def edges(run: Run) -> list[Edges]:
    """Return the edges that explanations.json holds, an input and a target at a time; what cannot be read is left."""
    held = run.explanations.get("edges") or {}
    return [
        _edges(run, str(name), str(target), found)
        for name, by_target in held.items()
        if isinstance(by_target, dict)
        for target, found in by_target.items()
        if isinstance(found, dict)
    ]


def _edges(run: Run, name: str, target: str, held: dict[str, Any]) -> Edges:
    """Read the edges of one target; what has the wrong shape is said to."""
    try:
        return _read(run, name, target, held)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        wrong = f"The edges of {name} cannot be read from explanations.json ({type(error).__name__}: {error})."
        return Edges(name, target, (wrong,), None, "", "", (), (), False, None, ())


def _read(run: Run, name: str, target: str, held: dict[str, Any]) -> Edges:
    sums = held.get("network_sums") or {}
    names = tuple(str(n) for n in sums.get("names") or [])
    rows = sums.get("per_edge") or sums.get("matrix") or []
    matrix = tuple(tuple(float("nan") if v is None else float(v) for v in row) for row in rows)
    fits = len(matrix) == len(names) and all(len(row) == len(names) for row in matrix)
    also = held.get("pattern") or {}
    most = f"{name} that moved {target_name(target)} most"
    along = f"{name} that go along most with the answers on {target_name(target)}"
    return Edges(
        input=name,
        target=target,
        sentences=_how(held),
        table=_table(run, most, held),
        picture=str(held.get("figure") or ""),
        brain=str(held.get("brain") or ""),
        names=names if fits else (),
        matrix=matrix if fits else (),
        per_edge=bool(sums.get("per_edge")),
        pattern=_table(run, along, also),
        pattern_sentences=_how(also),
    )


def _how(held: dict[str, Any]) -> tuple[str, ...]:
    """Say how edges were found and how alike the folds are, or why there are none."""
    method = str(held.get("method") or "").rstrip(".")
    if method and not held.get("mean"):
        return (f"No edges can be shown: {method}.",)
    stable = _stability(held.get("stability"))
    return (*([f"Method: {method}."] if method else []), *([stable] if stable else []))


def _stability(held: Any) -> str:
    """Say how alike the folds weigh the edges."""
    if not readable(held):
        return ""
    e = Estimate.from_dict(held)
    steady = "alike" if e.value >= 0.7 else "partly alike" if e.value >= 0.4 else "hardly alike"
    warning = "" if e.value >= 0.7 else " Do not read single edges as knowledge about the brain."
    spread = "" if math.isnan(e.low) else f" ({interval(e, 2)})"
    return f"The folds weigh the edges {steady}: {number(e.value, 2)}{spread}; {e.method}, n = {e.n}.{warning}"


def _table(run: Run, which: str, held: dict[str, Any]) -> Table | None:
    """The strongest edges, named by their two regions."""
    found = [e for e in _listed(run, held.get("mean")) if isinstance(e, dict)]
    if not found:
        return None
    networks = held.get("networks") or {}
    known = any(networks.get(e.get("a")) or networks.get(e.get("b")) for e in found)
    agreed = any(isinstance(e.get("agreement"), int | float) for e in found)
    rows = []
    for e in found[:SHOWN]:
        a, b = str(e.get("a", "?")), str(e.get("b", "?"))
        between = list(dict.fromkeys(str(networks.get(r) or "–") for r in (a, b)))
        row = [f"{a} – {b}", *([" – ".join(between)] if known else []), _signed(e.get("value"))]
        share = e.get("agreement")
        rows.append([*row, *([f"{share:.0%}" if isinstance(share, int | float) else "–"] if agreed else [])])
    return Table(
        f"The {len(rows)} edges of {which}, of {len(found)} listed.",
        ("", *(["Networks"] if known else []), "Mean over folds", *(["Folds that agree in sign"] if agreed else [])),
        rows,
        note="Plus: a stronger edge makes the positive answer likelier. An edge that moves the model is no cause, and "
        "one that does not may still carry the disease.",
        words=(0, 1) if known else (0,),
    )


def _signed(value: Any) -> str:
    text = f"{value:+.3g}" if isinstance(value, int | float) and math.isfinite(value) else "–"
    return text.replace("-", "−")


def _listed(run: Run, mean: Any) -> list[Any]:
    """Return the list of edges: in explanations.json itself, or in the JSON file of the run folder that it names."""
    if isinstance(mean, list):
        return mean
    place = run.inside(mean) if isinstance(mean, str) else None
    try:
        held = json.loads(place.read_text("utf-8")) if place is not None else []
    except ValueError:
        return []
    return held if isinstance(held, list) else []
