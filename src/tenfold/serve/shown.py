"""What the pages say: answers, models and figures in the words of a ward.

It must not know requests, sessions or HTML.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tenfold.report.words import count, joined, units, with_interval
from tenfold.serve.answer import Answer, Check, TargetAnswer
from tenfold.serve.case import Given
from tenfold.serve.model import Model
from tenfold.serve.prevalence import npv, ppv
from tenfold.types import Estimate

_WRITTEN = {"b mode": "B-mode", "cdfi": "CDFI", "2d": "2D", "ct": "CT", "mri": "MRI", "mr": "MR", "nec": "NEC"}
_CHECK_WORDS = {"good": "Good", "doubtful": "Doubtful", "unusable": "Unusable"}
_GRAVEST_FIRST = ("unusable", "doubtful", "good")
_PREVALENCES = (0.001, 0.999)


def words(name: str) -> str:
    """Return a name from a study file as a person writes it."""
    plain = " ".join(re.sub(r"[_-]+", " ", name).split()) if "_" in name else name
    return _WRITTEN.get(plain.lower(), plain)


def sentence_case(name: str) -> str:
    """Return a name as the start of a line."""
    return sentence_start(words(name))


def sentence_start(text: str) -> str:
    """Return a text with a capital at its start."""
    return text[:1].upper() + text[1:]


def percent(share: float) -> str:
    """Return a share in whole percent; never 0 % or 100 %, which nobody knows."""
    if not math.isfinite(share):
        return "–"
    if share < 0.01:
        return "< 1 %"
    return "> 99 %" if share > 0.99 else f"{math.floor(100 * share + 0.5)} %"


def plain(value: float) -> str:
    """Return a figure without needless digits, as HTML attributes and hints take it."""
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"


def figure(value: float | str) -> str:
    """Return a cell's figure or level."""
    return value if isinstance(value, str) else plain(value).replace("-", "−")


def signed(value: float) -> str:
    """Return a figure with its sign."""
    return f"{value:+.2f}".replace("-", "−")


def between(estimate: Estimate) -> str:
    """Return an interval in percent."""
    if math.isnan(estimate.low) or math.isnan(estimate.high):
        return "no interval"
    return f"{percent(estimate.low)} to {percent(estimate.high)}"


def ranges(column: Mapping[str, Any]) -> str:
    """Return the hint below a field: the reference range, and what the study saw."""
    parts = []
    for name, low, high in (
        ("Reference", column["normal_low"], column["normal_high"]),
        ("in the study", column["training_low"], column["training_high"]),
    ):
        if low is not None and high is not None:
            parts.append(f"{name} {plain(low)} to {plain(high)}")
        elif low is not None:
            parts.append(f"{name} from {plain(low)}")
        elif high is not None:
            parts.append(f"{name} up to {plain(high)}")
    return sentence_case("; ".join(parts)) if parts else ""


# --- models ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """One figure of a study: what, how much, and how its interval came about."""

    label: str
    text: str
    method: str


def tells(model: Model) -> list[str]:
    """Return what a model tells, a line a target."""
    return [_tells(words(target["name"]), target["classes"]) for target in model.targets]


def _tells(name: str, classes: Sequence[str]) -> str:
    """Name the classes, and the target where no class bears its name."""
    return _either(classes) if name in classes else f"{_either(classes)} ({name})"


def _either(classes: Sequence[str]) -> str:
    return " or ".join([", ".join(classes[:-1]), classes[-1]]) if len(classes) > 1 else classes[0]


def needs(model: Model) -> str:
    """Return what a model wants to be given."""
    form = model.form
    parts = [
        f"{words(view['label'] or view['name'])}"
        + (f" (up to {view['pictures']} pictures)" if view["pictures"] > 1 else " (1 picture)")
        for view in form["images"]
    ]
    parts += [f"{words(part['name'])} (1 file)" for part in form["connectomes"]]
    parts += [f"{words(table['name'])} ({count(len(table['columns']), 'value')})" for table in form["tables"]]
    return joined(parts) + ("; some may be missing" if form["may_lack"] and len(parts) > 1 else "")


def measured(model: Model) -> list[Measured]:
    """Return the AUC of every target with its interval, as the study measured it out of fold."""
    lines = []
    for i, target in enumerate(model.targets):
        of_target = (model.facts.get("evaluations") or {}).get(target["name"])
        metrics = of_target or (model.facts.get("evaluation") or {} if i == 0 else {})
        name = next((name for name in ("macro_ovo_auc", "auc") if metrics.get(name)), None)
        if name is None:
            continue
        label = "AUC" if len(model.targets) == 1 else f"AUC, {words(target['name'])}"
        estimate = Estimate.from_dict(metrics[name])
        text = with_interval(estimate, 2)
        if name == "macro_ovo_auc":
            text += ", mean over pairs of classes"
        elif len(target["classes"]) > 2 and target["positive"]:
            text += f", {target['positive']} against the others"
        lines.append(Measured(label, text, f"out of fold; {estimate.method}; n = {estimate.n}"))
    return lines


def patients(model: Model) -> str:
    """Return how many patients a model was made from."""
    return count(model.facts.get("n_patients"), "patient")


# --- answers ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """The first thing a result page says.

    Attributes:
        kind: "good", "doubtful" or "none".
        heading: In two or three words.
        lines: Why.
    """

    kind: str
    heading: str
    lines: tuple[str, ...]


def verdict(answer: Answer, labels: Mapping[str, str], most: Mapping[str, int]) -> Verdict:
    """Say whether there is an answer, and whether to doubt it.

    Args:
        answer: Which answer.
        labels: Input -> its name for a person.
        most: Input -> how many pictures it may have: one alone has no number.
    """
    if not answer.result:
        return Verdict("none", "No result", answer.reasons)
    doubts = tuple(
        f"{_where(check, labels, most)}: {check.message}" for check in answer.quality if check.verdict == "doubtful"
    )
    if doubts:
        return Verdict("doubtful", "Result with doubts", doubts)
    given = "What was given passed every check."
    if answer.missing_inputs:
        lacking = joined([words(labels.get(name, name)) for name in answer.missing_inputs])
        return Verdict("good", "Result", (f"{given} It rests on less than the whole: no {lacking}.",))
    return Verdict("good", "Result", (given,))


def _where(check: Check, labels: Mapping[str, str], most: Mapping[str, int]) -> str:
    """Name an input, and one of its pictures where it may have several."""
    name = sentence_case(labels.get(check.input, check.input))
    return name if check.picture is None or most.get(check.input, 1) == 1 else f"{name}, picture {check.picture + 1}"


def checks(answer: Answer, labels: Mapping[str, str], most: Mapping[str, int]) -> list[dict[str, str]]:
    """Return the checks for a list, the gravest first.

    Args:
        answer: Whose checks.
        labels: Input -> its name for a person.
        most: Input -> how many pictures it may have: one alone has no number.
    """
    ordered = sorted(answer.quality, key=lambda check: _GRAVEST_FIRST.index(check.verdict))
    return [
        {
            "verdict": check.verdict,
            "word": _CHECK_WORDS[check.verdict],
            "where": f"{_where(check, labels, most)}:",
            "message": check.message,
        }
        for check in ordered
    ]


def missing(answer: Answer, model: Model, labels: Mapping[str, str]) -> list[str]:
    """Return what was not given, a line an input."""
    lines = [sentence_case(labels.get(name, name)) for name in answer.missing_inputs]
    names = {(t["name"], c["name"]): c["label"] or c["name"] for t in model.form["tables"] for c in t["columns"]}
    for table, cells in answer.missing_cells.items():
        if cells and table not in answer.missing_inputs:
            lines.append(f"{sentence_case(table)}: {joined([names.get((table, c), c) for c in cells])}")
    return lines


def entered(given: Given, model: Model, labels: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return what was given, as lines of label and text."""
    lines = [
        (sentence_case(labels.get(name, name)), ", ".join(upload.name for upload in uploads))
        for name, uploads in given.files.items()
        if uploads
    ]
    lines += [(f"{sentence_case(labels.get(n, n))}, scanner", site) for n, site in given.layouts.items() if site]
    for table in model.form["tables"]:
        row = given.rows.get(table["name"], {})
        for column in table["columns"]:
            if cell := row.get(column["name"], ""):
                unit = "" if column["unit"] in ("", "1", None) else f" {units(column['unit'])}"
                lines.append((column["label"] or column["name"], cell + unit))
    lines += [(words(column), cell) for row in given.beside.values() for column, cell in row.items() if cell]
    return lines


def decided(target: TargetAnswer) -> str:
    """Return the decision as a line."""
    if target.above_threshold is False and target.decision != target.positive:
        return f"Likeliest: {target.decision}" if len(target.classes) > 2 else target.decision.capitalize()
    return sentence_case(target.decision)


def spread_words(target: TargetAnswer) -> str:
    """Say how far the models of the folds disagree."""
    low, high = target.spread
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    about = target.positive or target.decision
    if percent(low) == percent(high):
        return f"All models of the folds said {percent(low)} for “{about}”."
    said = f"The models of the folds said {percent(low)} to {percent(high)} for “{about}”."
    return f"{said} That is not a confidence interval."


def similar_words(target: TargetAnswer) -> str:
    """Say how many patients of the study had such a probability."""
    if target.similar is None:
        return ""
    about = target.positive or target.decision
    low, high = (f"{100 * target.similar[end]:.0f} %" for end in ("low", "high"))
    n = target.similar["n"]
    if not n:
        return f"No patient of the study had a probability of {low} to {high} for “{about}”."
    told = f"{count(n, 'patient')} of the study had a probability of {low} to {high} for “{about}” too"
    return f"{told}, from models that had not seen them. What they had:"


# --- the operating point at a local prevalence -----------------------------------------------------------------------


@dataclass(frozen=True)
class Predictive:
    """What sensitivity and specificity mean at a prevalence.

    Attributes:
        percent: The prevalence, in percent, as a field takes it.
        study: What the prevalence of the study was.
        complaint: Why the prevalence that was asked for is not used; empty where it is.
        ppv: Positive predictive value.
        npv: Negative predictive value.
        frequencies: Of 1000 patients {"having", "found", "missed", "wrongly"}.
    """

    percent: str
    study: str
    complaint: str
    ppv: Estimate
    npv: Estimate
    frequencies: Mapping[str, int]


@dataclass(frozen=True)
class Point:
    """The operating point of one target for a page.

    Attributes:
        words: Threshold, rule, sensitivity and specificity.
        sensitivity: As the study measured it.
        specificity: Likewise.
        predictive: None where sensitivity or specificity is not known.
    """

    words: str
    sensitivity: Estimate | None = None
    specificity: Estimate | None = None
    predictive: Predictive | None = None


def point(target: TargetAnswer, asked: str) -> Point | None:
    """Return the operating point with PPV and NPV at a prevalence.

    Args:
        target: Of which target; None is returned where it has no operating point.
        asked: The prevalence in percent as it was typed; empty: that of the study.
    """
    told = target.operating_point
    if told is None:
        return None
    sensitivity, specificity = told["sensitivity"], told["specificity"]
    text = f"From {percent(told['threshold'])} on the model says “{target.positive}” (rule: {told['rule']})."
    if not _known(sensitivity) or not _known(specificity):
        return Point(f"{text} Sensitivity and specificity were not stored with this model.")
    text += (
        f" In the study it found {percent(sensitivity.value)} of those who have it (sensitivity, "
        f"{between(sensitivity)}, n = {sensitivity.n}) and cleared {percent(specificity.value)} of those who do not "
        f"(specificity, {between(specificity)}, n = {specificity.n})."
    )
    prevalence, complaint = _prevalence(asked, target.prevalence)
    own = "" if target.prevalence is None else f"In the study {percent(target.prevalence)} had it. "
    told_at = Predictive(
        plain(100 * prevalence),
        f"{own}Enter how many of 100 patients like yours have it.",
        complaint,
        ppv(sensitivity, specificity, prevalence),
        npv(sensitivity, specificity, prevalence),
        frequencies(sensitivity.value, specificity.value, prevalence),
    )
    return Point(text, sensitivity, specificity, told_at)


def _known(estimate: Estimate | None) -> bool:
    return estimate is not None and math.isfinite(estimate.value)


def _prevalence(asked: str, of_study: float | None) -> tuple[float, str]:
    """Return the prevalence to use, and a complaint about the one that was asked for."""
    lowest, highest = _PREVALENCES
    standard = min(max(of_study if of_study is not None and math.isfinite(of_study) else 0.5, lowest), highest)
    if not asked.strip():
        return standard, ""
    try:
        share = float(asked.strip().rstrip("%").replace(",", ".")) / 100
    except ValueError:
        share = math.nan
    if lowest <= share <= highest:
        return share, ""
    return standard, f"The figure must lie between 0.1 and 99.9; {plain(100 * standard)} is used."


def frequencies(sensitivity: float, specificity: float, prevalence: float) -> dict[str, int]:
    """Return what happens to 1000 patients, in whole patients."""
    having = math.floor(1000 * prevalence + 0.5)
    found = math.floor(having * sensitivity + 0.5)
    wrongly = math.floor((1000 - having) * (1 - specificity) + 0.5)
    return {"having": having, "found": found, "missed": having - found, "wrongly": wrongly}
