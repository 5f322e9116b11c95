"""One page a patient: film, heat map, laboratory values against their reference ranges, and what moved the answer.

It must not know networks, nor judge an answer: it draws what explanations.json holds.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from tenfold.report.load import Run
from tenfold.report.words import number, pictured, target_name, units

FOLDER = "patients"
SHOWN = 8
_EDGE = 0.06  # a value beyond its bar stands this far from the end, with an arrow behind it
_LEFT, _RIGHT = 0.3, 0.7  # where on its bar a value's reference range begins and ends


@dataclass(frozen=True)
class Value:
    """One line of a patient's table.

    Attributes:
        label: Name of the value.
        shown: The value with its unit, or that it was not measured.
        reference: Its reference range in words, empty where none is known.
        state: "low", "high", "normal", "missing", or "" where no range is known.
        at: Where the value lies on its bar, 0 to 1; None where nothing is drawn.
        beyond: Whether it lies beyond the bar, so that its mark stands at the end.
        added: What it added to the log-odds.
    """

    label: str
    shown: str
    reference: str
    state: str
    at: float | None
    beyond: bool
    added: float


@dataclass(frozen=True)
class Bar:
    """One bar of what moved the answer: `start` and `width` are shares of the whole width."""

    label: str
    shown: str
    start: float
    width: float
    up: bool


def file_names(cases: list[dict[str, Any]]) -> list[str]:
    """Return one file name a case, safe on every file system and unlike every other."""
    names: list[str] = []
    for i, case in enumerate(cases):
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", str(case.get("case", ""))).strip(".-")[:80] or f"case-{i + 1}"
        taken = {name.lower() for name in names}
        names.append(f"{plain}.html" if f"{plain}.html".lower() not in taken else f"{plain}-{i + 1}.html")
    return names


def facts(run: Run, case: dict[str, Any]) -> dict[str, Any]:
    """Return everything that the page of one patient says, but for its pictures.

    Args:
        run: The run.
        case: Its entry of explanations.json, as `gallery.patients` returns it.
    """
    several = len(run.classes) > 2  # decided for the likeliest, whose probability this is
    of = str((case.get("class") if several else "") or run.positive or "the class")
    values = [_value(entry) for entry in case.get("labs") or []]
    moved = case.get("modalities") or {}
    base = case.get("base")
    total = base + sum(moved.values()) if isinstance(base, int | float) and moved else None
    absent = [name for name in run.inputs(run.proposed) if _absent(run, case, name)]
    return {
        "case": str(case.get("case", "?")),
        "patient": str(case.get("patient", "?")),
        "label": str(case.get("label", "?")),
        "decision": str(case.get("decision", "?")),
        "right": bool(case.get("right")),
        "positive": of,
        "classes": run.classes if several else [],
        "explained": of if several else "",
        "outcome": target_name(run.target) if run.several else "",
        "films": pictured(run),
        "probability": number(case.get("probability"), 2),
        "share": _clamped(case.get("probability")),
        "threshold": number(case.get("threshold"), 2),
        "cut": None if several else _clamped(case.get("threshold")),
        "values": values,
        "missing": [v.label for v in values if v.state == "missing"],
        "outside": [f"{v.label} {v.state}" for v in values if v.state in ("low", "high")],
        "absent": absent,
        "inputs": _bars({str(k): float(v) for k, v in moved.items()}, len(moved)),
        "columns": _bars({_with_state(v): v.added for v in values}, SHOWN),
        "base": number(base, 2),
        "total": number(total, 2),
    }


def _absent(run: Run, case: dict[str, Any], name: str) -> bool:
    """Whether a patient lacks an input altogether."""
    if isinstance(case.get("absent"), list):
        return name in case["absent"]
    kind = str(((run.facts.get("inputs") or {}).get(name) or {}).get("kind"))
    if kind == "connectome":
        return False
    if kind == "image" and case.get("pictures"):
        return all(picture.get("view") != name for picture in case["pictures"])
    return not case["views"] if kind == "image" else not case.get("labs")


def _clamped(value: Any) -> float | None:
    """Return a probability as a share of a bar; None where there is none."""
    return min(max(float(value), 0.0), 1.0) if isinstance(value, int | float) and math.isfinite(value) else None


def _with_state(value: Value) -> str:
    note = {"missing": "not measured", "low": "low", "high": "high"}.get(value.state, "")
    return f"{value.label} ({note})" if note else value.label


def _value(entry: dict[str, Any]) -> Value:
    """Read one value of the table, against its reference range."""
    label, unit = str(entry.get("label") or entry.get("column")), str(entry.get("unit") or "")
    unit = "" if unit == "1" else f" {units(unit)}".rstrip()
    low, high = _finite(entry.get("normal_low")), _finite(entry.get("normal_high"))
    added = _finite(entry.get("contribution"))
    reference = ""
    if low is not None and high is not None:
        reference = f"{low:g} to {high:g}"
    elif high is not None:
        reference = f"up to {high:g}"
    elif low is not None:
        reference = f"from {low:g}"
    raw = entry.get("value")
    if raw is None or not entry.get("observed", True):
        return Value(label, "not measured", reference, "missing", None, False, added or 0.0)
    value = _finite(raw)
    if value is None:
        return Value(label, str(raw), reference, "", None, False, added or 0.0)
    state = ""
    if low is not None or high is not None:
        state = "low" if low is not None and value < low else "high" if high is not None and value > high else "normal"
    at = _place(value, low, high)
    beyond = at is not None and not _EDGE <= at <= 1 - _EDGE
    shown = f"{value:.4g}{unit}".replace("-", "−")
    drawn = None if at is None else min(max(at, _EDGE), 1 - _EDGE)
    return Value(label, shown, reference, state, drawn, beyond, added or 0.0)


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _place(value: float, low: float | None, high: float | None) -> float | None:
    """Return where a value lies on a bar whose middle part is the reference range."""
    if low is None or high is None or high <= low:
        return None
    return _LEFT + (value - low) / (high - low) * (_RIGHT - _LEFT)


def _bars(added: dict[str, float], most: int) -> list[Bar]:
    """Return the largest contributions as bars around zero, on one scale."""
    ranked = sorted(added.items(), key=lambda pair: -abs(pair[1]))[:most]
    top = max((abs(value) for _, value in ranked), default=0.0) or 1.0
    bars = []
    for label, value in ranked:
        width = abs(value) / top / 2
        sign = "+" if value > 0 else ""
        bars.append(Bar(label, f"{sign}{number(value, 2)}", 0.5 if value >= 0 else 0.5 - width, width, value >= 0))
    return bars
