"""From what the networks said of a case to what is told of each target, in figures and in words.

It must not ask a network anything, nor know pages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tenfold.bundle import Predictor
from tenfold.serve.answer import TargetAnswer
from tenfold.types import Estimate, FloatArray


def told(predictor: Predictor, by_member: FloatArray, *, complete: bool) -> TargetAnswer:
    """Put what was said of one case into an answer, as `Predictor.predict` does.

    Args:
        predictor: The bundle, looking at the target.
        by_member: (models, classes) calibrated probabilities.
        complete: Whether no input is missing; prediction sets hold for complete cases.
    """
    mean = by_member.mean(axis=0)
    classes, positive, point = predictor.classes, predictor.positive, predictor.operating_point
    decision = predictor.decide(mean)
    of_interest = positive or decision
    column = by_member[:, classes.index(of_interest)]
    p = float(mean[classes.index(of_interest)])
    sets = predictor.conformal if complete else None
    likely = None
    if sets is not None:
        likely = tuple(c for c, kept in zip(classes, sets.sets(mean[None])[0], strict=True) if kept)
    alpha = None if sets is None else sets.alpha
    probabilities = {name: float(value) for name, value in zip(classes, mean, strict=True)}
    return TargetAnswer(
        name=predictor.target,
        classes=classes,
        positive=positive,
        probabilities=probabilities,
        spread=(float(column.min()), float(column.max())),
        decision=decision,
        threshold=None if point is None else point.threshold,
        above_threshold=None if point is None else p >= point.threshold,
        prediction_set=likely,
        alpha=alpha,
        sentence=frequency_sentence(probabilities, positive if len(classes) == 2 else ""),
        set_sentence=set_sentence(classes, likely, alpha),
        operating_point=_operating_point(predictor),
        prevalence=prevalence_of(predictor, of_interest),
        similar=similar((predictor.facts.get("similar") or {}).get(predictor.target), p) if positive else None,
    )


def _operating_point(predictor: Predictor) -> dict[str, Any] | None:
    point = predictor.operating_point
    if point is None:
        return None
    facts = predictor.facts
    measured: Mapping[str, Any] = (facts.get("evaluations") or {}).get(predictor.target) or {}
    if not measured and predictor.target == predictor.targets[0]:
        measured = facts.get("evaluation") or {}  # before there were several, only the first was told
    found = {name: _estimate(measured.get(name)) for name in ("sensitivity", "specificity")}
    return {"threshold": point.threshold, "rule": point.rule, **found}


def _estimate(data: Mapping[str, Any] | None) -> Estimate | None:
    return None if not data or data.get("value") is None else Estimate.from_dict(data)


def prevalence_of(predictor: Predictor, class_name: str) -> float | None:
    """Return the share of a class in the study; None where the bundle does not say."""
    facts = predictor.facts
    shares = (facts.get("prevalences") or {}).get(predictor.target)
    if shares:
        return None if shares.get(class_name) is None else float(shares[class_name])
    if predictor.target != predictor.targets[0] or facts.get("prevalence") is None or not predictor.positive:
        return None
    share = float(facts["prevalence"])
    if class_name == predictor.positive:
        return share
    return 1 - share if len(predictor.classes) == 2 else None


# --- in words --------------------------------------------------------------------------------------------------------


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
