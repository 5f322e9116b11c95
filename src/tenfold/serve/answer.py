"""What the server says of one case, as the pages show it and the API writes it.

It must not know networks, files or who asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tenfold.errors import Refusal
from tenfold.types import Estimate, finite_or_none

Verdict = Literal["good", "doubtful", "unusable"]


class Busy(Refusal):
    """More is waiting than will be answered soon.

    Args:
        retry_after: Whole seconds after which asking again makes sense.
    """

    def __init__(self, retry_after: int) -> None:
        self.retry_after = retry_after
        super().__init__("too many cases are waiting", do=f"try again in {retry_after} s")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at before the model was asked.

    Attributes:
        input: Which input.
        picture: Which of its pictures, from 0; None where it is about the whole input.
        check: "readable", "modality", "colour", "blank", "small", "inverted", "distribution", "known", "cell",
            "range", "missing".
        verdict: "unusable" stops the case; "doubtful" goes with the answer.
        message: For a person.
    """

    input: str
    picture: int | None
    check: str
    verdict: Verdict
    message: str


@dataclass(frozen=True)
class TargetAnswer:
    """What is said of one target.

    Attributes:
        name: The target.
        classes: In the order of the study.
        positive: The class that the threshold is about; empty without one.
        probabilities: Class -> calibrated probability.
        spread: Lowest and highest among the fold models, of `positive` or of the class decided for.
        decision: The class decided for.
        threshold: Of `positive`; None without one.
        above_threshold: Whether `positive` reaches it; None without one.
        prediction_set: Classes that cannot be excluded; None where there is no such set for this case.
        alpha: Share of each class that the sets may miss; None where there is none.
        sentence: The probability as a frequency.
        set_sentence: The prediction set in words; empty without one.
        operating_point: {"threshold", "rule", "sensitivity", "specificity"} as estimates or None; None without one.
        prevalence: Share of `positive` (or of the class decided for) in the study; None where the bundle does not say.
        similar: {"low", "high", "n", "with_class": {class: n}} training patients with such a probability, or None.
    """

    name: str
    classes: tuple[str, ...]
    positive: str
    probabilities: Mapping[str, float]
    spread: tuple[float, float]
    decision: str
    threshold: float | None
    above_threshold: bool | None
    prediction_set: tuple[str, ...] | None
    alpha: float | None
    sentence: str
    set_sentence: str = ""
    operating_point: Mapping[str, Any] | None = None
    prevalence: float | None = None
    similar: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return a mapping fit for JSON."""
        point = self.operating_point
        return {
            "name": self.name,
            "classes": list(self.classes),
            "positive": self.positive or None,
            "probabilities": dict(self.probabilities),
            "spread": list(self.spread),
            "decision": self.decision,
            "threshold": self.threshold,
            "above_threshold": self.above_threshold,
            "prediction_set": None if self.prediction_set is None else list(self.prediction_set),
            "alpha": self.alpha,
            "sentence": self.sentence,
            "set_sentence": self.set_sentence or None,
            "operating_point": None
            if point is None
            else {k: v.to_dict() if isinstance(v, Estimate) else v for k, v in point.items()},
            "prevalence": self.prevalence,
            "similar": None if self.similar is None else dict(self.similar),
        }


@dataclass(frozen=True)
class Contribution:
    """What one cell of a table added to the log-odds.

    Attributes:
        input: The table.
        column: Its column.
        label: For a person.
        value: The figure or level; None where the cell was empty.
        unit: Of the figure.
        log_odds: Above 0 it speaks for the class explained.
    """

    input: str
    column: str
    label: str
    value: float | str | None
    unit: str
    log_odds: float


@dataclass(frozen=True)
class Answer:
    """What the server says of one case.

    Attributes:
        model: {"name": slug, "title", "digest", "version", "engine"}.
        case: As the user called it.
        reasons: Why there is no result; empty where there is one.
        quality: Every check that said something.
        missing_inputs: Inputs that the case lacks.
        missing_cells: Table -> its empty columns.
        targets: One a target; empty without a result.
        explained: {"target", "class"} that shares, contributions and maps are about; None without explanation.
        shares: Input -> share of what moved the answer; None where not asked for, or where it cannot be told.
        contributions: The cells that moved the answer most, the strongest first.
        maps: {"input", "picture", "target", "class"} for each heat map.
        pictures: (input, place) -> PNG of the picture as the network saw it.
        heat: (input, place) -> RGBA PNG of the heat map alone, of the same size.
        input_hashes: SHA-256 of every file given.
    """

    model: Mapping[str, str]
    case: str
    reasons: tuple[str, ...] = ()
    quality: tuple[Check, ...] = ()
    missing_inputs: tuple[str, ...] = ()
    missing_cells: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    targets: tuple[TargetAnswer, ...] = ()
    explained: Mapping[str, str] | None = None
    shares: Mapping[str, float] | None = None
    contributions: tuple[Contribution, ...] = ()
    maps: tuple[Mapping[str, Any], ...] = ()
    pictures: Mapping[tuple[str, int], bytes] = field(default_factory=dict, repr=False)
    heat: Mapping[tuple[str, int], bytes] = field(default_factory=dict, repr=False)
    input_hashes: tuple[str, ...] = ()

    @property
    def result(self) -> bool:
        """Whether there is one."""
        return bool(self.targets)

    def to_dict(self) -> dict[str, Any]:
        """Return what the API says: a mapping fit for JSON, without pictures and hashes."""
        return {
            "model": dict(self.model),
            "case": self.case,
            "result": self.result,
            "reasons": list(self.reasons),
            "quality": [vars(check).copy() for check in self.quality],
            "missing_inputs": list(self.missing_inputs),
            "missing_cells": {name: list(columns) for name, columns in self.missing_cells.items()},
            "targets": [target.to_dict() for target in self.targets],
            "explained": None if self.explained is None else dict(self.explained),
            "shares": None if self.shares is None else dict(self.shares),
            "contributions": [
                vars(c) | {"value": finite_or_none(c.value) if isinstance(c.value, float) else c.value}
                for c in self.contributions
            ],
            "maps": [dict(one) for one in self.maps],
        }
