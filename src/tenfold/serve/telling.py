"""From what the networks said of a case to what is told of each target.

It must not ask a network anything, nor know pages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tenfold.bundle import Predictor
from tenfold.serve.answer import TargetAnswer
from tenfold.serve.words import frequency_sentence, set_sentence, similar
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
