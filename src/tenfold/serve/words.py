"""A probability in words: as a frequency, as a set of classes, beside the training patients who had the like.

It must not know networks or pages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def frequency_sentence(probabilities: Mapping[str, float], positive: str) -> str:
    """Say a probability as a count of 100 patients, which people misread less than a percentage (Gigerenzer 2007).

    Args:
        probabilities: Class -> probability.
        positive: The class that is told first; empty: the likeliest.
    """
    ranked = sorted(probabilities, key=lambda name: -probabilities[name])
    first = positive or ranked[0]
    told = [first, *(name for name in ranked if name != first)]
    parts = [f'{_of_100(probabilities[name])} "{name}"' for name in told]
    rest = f" and {parts[-1]}" if len(parts) > 1 else ""
    listed = f"{', '.join(parts[:-1])}{rest}" if len(parts) > 1 else parts[0]
    return f"Of 100 patients with this result in the study's mix of patients, {listed} would be expected."


def _of_100(p: float) -> str:
    if p < 0.01:
        return "fewer than 1"
    return "more than 99" if p > 0.99 else f"about {100 * p:.0f}"


def set_sentence(classes: Sequence[str], likely: Sequence[str] | None, alpha: float | None) -> str:
    """Say a prediction set; empty where there is none.

    Args:
        classes: All of the target.
        likely: Those in the set.
        alpha: Share of each class that the sets may miss.
    """
    if likely is None or alpha is None:
        return ""
    level = f"The set holds the truth in about {1 - alpha:.0%} of the patients of each class like those of the study."
    quoted = [f'"{name}"' for name in likely]
    if not likely:
        return f"None of the classes fits: this case is unlike those that the set was calibrated on. {level}"
    if len(likely) == len(classes):
        return f"No class can be excluded: {' and '.join(quoted)} all remain possible. {level}"
    if len(likely) == 1:
        return f"Only {quoted[0]} remains possible. {level}"
    return f"{' and '.join(quoted)} remain possible. {level}"


def similar(told: Mapping[str, Any] | None, p: float) -> dict[str, Any] | None:
    """Find the training patients who got about the same probability, out of fold.

    Args:
        told: {"edges": [0, ..., 1], "counts": {class: [one a bin]}}, or None.
        p: The probability.

    Returns:
        {"low", "high", "n", "with_class": {class: n}} of the bin that holds it, or None.
    """
    if not told:
        return None
    edges, counts = told["edges"], told["counts"]
    bins = len(edges) - 1
    k = next((k for k in range(bins) if p < edges[k + 1]), bins - 1)
    with_class = {name: int(of[k]) for name, of in counts.items()}
    return {
        "low": float(edges[k]),
        "high": float(edges[k + 1]),
        "n": sum(with_class.values()),
        "with_class": with_class,
    }
