"""Names of metrics, numbers as text, and the sentences about a run that several parts of the report share.

It must not know HTML, nor where the numbers come from.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tenfold.report.load import Run, readable
from tenfold.report.published import headline, published
from tenfold.types import Estimate

NOT_PROVIDED = "NOT PROVIDED"
RESEARCH_ONLY = "Research use only - not a medical device"


@dataclass(frozen=True)
class Metric:
    """How a metric is named for a person, and where it stands."""

    label: str
    group: str
    remark: str = ""


# The groups follow Van Calster et al. 2025: "core" leads, "operating" belongs to one threshold, "improper" comes last.
METRICS: dict[str, Metric] = {
    "auc": Metric("AUC", "core", "discrimination"),
    "auc_over_folds": Metric("AUC, mean over folds", "core", "discrimination within folds"),
    "observed_to_expected": Metric("Observed to expected", "core", "1 is right"),
    "calibration_in_the_large": Metric("Calibration in the large", "core", "0 is right: the mean is right"),
    "calibration_intercept": Metric("Calibration intercept", "core", "0 is right"),
    "calibration_slope": Metric("Calibration slope", "core", "1 is right; below 1 is overconfident"),
    "ici": Metric("Integrated calibration index", "core", "mean distance of the calibration curve from the diagonal"),
    "net_benefit": Metric("Net benefit", "core", "at the operating point"),
    "brier": Metric("Brier score", "core", "0 is best"),
    "brier_scaled": Metric("Scaled Brier score", "core", "1 is best, 0 is guessing the prevalence"),
    "log_loss": Metric("Log loss", "core", "0 is best"),
    "average_precision": Metric("Average precision", "core", "depends on the class mix"),
    "pearson_r": Metric("Pearson correlation", "core", "of the predicted with the measured score"),
    "sensitivity": Metric("Sensitivity", "operating"),
    "specificity": Metric("Specificity", "operating"),
    "ppv": Metric("Positive predictive value", "operating", "at this cohort's class mix"),
    "npv": Metric("Negative predictive value", "operating", "at this cohort's class mix"),
    "accuracy": Metric("Accuracy", "improper"),
    "balanced_accuracy": Metric("Balanced accuracy", "improper"),
    "f1": Metric("F1", "improper"),
    "mcc": Metric("Matthews correlation", "improper"),
    # of three classes or more together
    "macro_ovo_auc": Metric("Macro AUC, one vs one", "classes"),
    "macro_ovr_auc": Metric("Macro AUC, one vs rest", "classes"),
    "macro_f1": Metric("Macro F1", "classes"),
}


def metric_label(name: str) -> str:
    """Return a metric's name for a person; an unknown one keeps its own."""
    return METRICS[name].label if name in METRICS else name.replace("_", " ")


def number(value: Any, digits: int = 3) -> str:
    """Return a number as text, and a dash where there is none."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    return f"{value:.{digits}f}".replace("-", "−")


def interval(estimate: Estimate, digits: int = 3) -> str:
    """Return the interval of an estimate as text, "no interval" where it has none."""
    if math.isnan(estimate.low) or math.isnan(estimate.high):
        return "no interval"
    return f"{number(estimate.low, digits)} to {number(estimate.high, digits)}"


def with_interval(estimate: Estimate | None, digits: int = 3) -> str:
    """Return an estimate and its interval as text."""
    return "–" if estimate is None else f"{number(estimate.value, digits)} ({interval(estimate, digits)})"


def p_value(value: Any) -> str:
    """Return a p value as text."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def units(text: str) -> str:
    """Write UCUM codes as a page writes them: "10*9/L" as "×10⁹/L"."""
    for code, written in (
        (" ([pH])", ""),
        ("[pH]", ""),
        ("10*9/L", "×10⁹/L"),
        ("10*12/L", "×10¹²/L"),
        ("mm[Hg]", "mmHg"),
    ):
        text = text.replace(code, written)
    return re.sub(r"\bu(?=(mol|g|L)\b)", "µ", text)


def count(n: Any, noun: str) -> str:
    """Return "1 patient", "2 patients"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}" if isinstance(n, int) else f"an unknown number of {noun}s"


def duration(seconds: Any) -> str:
    """Return seconds as a person says them."""
    if not isinstance(seconds, int | float):
        return "–"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def arm_name(arm: str) -> str:
    """Return an arm's name as a page writes it."""
    return arm.replace("_", " ")


def joined(parts: list[str]) -> str:
    """Return "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""


def against(run: Run) -> str:
    """Return "PNEUMONIA from NORMAL"."""
    others = [c for c in run.classes if c != run.positive]
    cut = score_cut(run.facts.get("target") or {})
    if cut:
        return f"a {target_name(run.target)} score {cut} from one that is not"
    if not run.positive:
        return joined(run.classes) or "the classes"
    if versus(run):
        named = f" ({target_name(run.target)})" if run.several else ""
        return f"{run.positive} from the rest ({joined(others)}){named}"
    return f"{run.positive} from {joined(others) or 'the rest'}{f' ({target_name(run.target)})' if run.several else ''}"


def capital(text: str) -> str:
    """Return a text with its first letter large, the others as they are."""
    return f"{text[:1].upper()}{text[1:]}"


def versus(run: Run) -> str:
    """Return "metastatic against the rest" where the yes or no is one of several classes; else empty."""
    return f"{run.positive} against the rest" if run.positive and len(run.classes) > 2 else ""


def target_name(name: str) -> str:
    """Return a target's name as a page writes it."""
    return name.replace("_", " ")


def score_cut(target: Mapping[str, Any]) -> str:
    """Return where a score was cut for the yes or no, "below 85"; empty for classes and levels."""
    for side in ("below", "above"):
        if isinstance(target.get(side), int | float):
            return f"{side} {target[side]:g}"
    return ""


def whose_predictions(run: Run) -> str:
    """Say whom the reported predictions were made for."""
    if run.external:
        return "patients of another cohort, by the frozen bundle"
    return "patients that no fitted model had seen (out-of-fold)"


def population(run: Run) -> str:
    """Say how many were analysed, in cases, patients and by class."""
    if not run.cohort:
        return ""
    total = f"{count(run.cohort.get('n_cases'), 'case')} of {count(run.cohort.get('n_patients'), 'patient')}"
    by_class = run.cohort.get("by_class") or {}
    parts = [
        f"{name}: {count(c.get('cases'), 'case')} of {count(c.get('patients'), 'patient')}"
        for name, c in by_class.items()
    ]
    return f"{total} ({'; '.join(parts)})" if parts else total


def analysed(run: Run) -> dict[str, Any]:
    """Return how many cases and patients were analysed, whichever of several outcomes is known of them."""
    steps = [s for s in run.cohort.get("flow") or [] if s.get("step") == "analysed"]
    if run.several and steps:
        return {k: steps[-1].get(k) for k in ("cases", "patients")}
    return {k: run.cohort.get(f"n_{k}") for k in ("cases", "patients")}


def everybody(run: Run) -> str:
    """Say how many were analysed, and with several targets of how many each is known."""
    if not run.several:
        return population(run)
    total = f"{count(analysed(run)['cases'], 'case')} of {count(analysed(run)['patients'], 'patient')}"
    parts = [known_sentence(view) for view in run.each]
    return "; ".join([total, *(p for p in parts if p)]) if run.cohort else "; ".join(p for p in parts if p)


def known_sentence(run: Run) -> str:
    """Say of how many patients one outcome is known, and how many have it."""
    t = run.facts.get("target") or {}
    if not isinstance(t.get("known"), int):
        return ""
    has = f", {run.positive or 'positive'} in {t['positives']}" if isinstance(t.get("positives"), int) else ""
    return f"{target_name(run.target)} known of {t['known']:,}{has}"


def films(run: Run) -> str:
    """Return what patients are seen by, as the page calls it: films, pictures (several views), connectomes, records."""
    held = [str(i.get("kind")) for i in (run.facts.get("inputs") or {}).values() if isinstance(i, dict)]
    kinds = set(held)
    if held.count("image") > 1:
        return "pictures"
    return "films" if "image" in kinds or not kinds else "connectomes" if "connectome" in kinds else "records"


def pictured(run: Run) -> bool:
    """Whether patients are seen by pictures, so that there are heat maps."""
    return films(run) in ("films", "pictures")


def flow_text(run: Run) -> str:
    """Say the flow chart in one sentence."""
    steps = [
        f"{s.get('step', '')}: {count(s.get('cases'), 'case')} of {count(s.get('patients'), 'patient')}"
        + (f" ({s['reason']})" if s.get("reason") else "")
        for s in run.cohort.get("flow") or []
    ]
    return "; ".join(steps)


def division(run: Run) -> str:
    """Say how the cohort was divided."""
    if run.external:
        return "The whole cohort was used for evaluation: nothing was fitted, tuned or recalibrated on it."
    v = run.facts.get("validation") or {}
    if not v:
        return ""
    by = str(v.get("by", "patient"))
    repeats = v.get("repeats", 1)
    text = f"{v.get('folds', 'An unknown number of')}-fold cross-validation, grouped by {by} and stratified by outcome"
    if by == "leave_one_site_out":
        text = "Cross-validation that left out one site at a time, patients never divided"
    if repeats != 1:
        text += f", repeated {repeats} times"
    if v.get("inner"):
        text += f"; within each training part {float(v['inner']):.0%} was set aside as inner validation part"
    if v.get("holdout"):
        text += f"; {float(v['holdout']):.0%} of the cohort was kept as hold-out and opened once"
    return f"{text}."


def rule(run: Run) -> str:
    """Say how the operating point was chosen."""
    if run.external:
        return "The operating point was the bundle's own, frozen before these data were seen."
    named = run.facts.get("operating_rule")
    return (
        f"The operating point followed the rule “{named}”, chosen on inner data and frozen before the test fold."
        if named
        else ""
    )


def thresholds(run: Run, arm: str) -> list[float]:
    """Return an arm's frozen thresholds, one a fold; that of the whole bundle where there are no folds."""
    mine = [row for row in run.operating_points if row.get("arm") == arm]
    of_folds = [row for row in mine if row.get("fold") != "-1"]
    return [t for row in of_folds or mine if math.isfinite(t := _number_of(row.get("threshold")))]


def _number_of(text: str | None) -> float:
    """Read a number; NaN where there is none."""
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def ceiling(run: Run) -> float | None:
    """Return the best attainable AUC of a simulated cohort; None for real patients."""
    value = (run.facts.get("simulated") or {}).get("ceiling_auc")
    return float(value) if isinstance(value, int | float) else None


# What the simulators call the best attainable answer from what an arm sees, by the kinds of its inputs.
_CEILINGS: dict[frozenset[str], tuple[str, ...]] = {
    frozenset({"image", "table"}): ("fused_observed",),
    frozenset({"image"}): ("signs",),
    frozenset({"table"}): ("labs_observed", "clinical"),
    frozenset({"connectome"}): ("connectome",),
    frozenset({"connectome", "table"}): ("both",),
}


def ceiling_of(run: Run, arm: str) -> float | None:
    """Return the best attainable AUC from what an arm sees: one kind of input or two; None where it is not known."""
    held = (run.facts.get("simulated") or {}).get("ceilings") or {}
    kinds = run.kinds(arm)
    values = (held.get(key) for key in _CEILINGS.get(frozenset(kinds), ()))
    return next((float(value) for value in values if isinstance(value, int | float)), None)


_TASKS = {
    "target": "supervised: the outcome",
    "multilabel": "supervised: several labels at once",
    "reconstruct": "self-supervised, no labels: an auto-encoder",
}


def task(stage: Mapping[str, Any], chain: Sequence[Mapping[str, Any]]) -> str:
    """Say what a stage learned; in a chain that has a stage without labels, of each whether it had any."""
    named = str(stage.get("task") or "?")
    if not any(s.get("task") == "reconstruct" for s in chain):
        return named
    corrupt = (stage.get("recipe") or {}).get("corrupt")
    noisy = f", {corrupt:.0%} of the edges set to 0" if named == "reconstruct" and corrupt else ""
    return _TASKS.get(named, named) + noisy


def opened_name(entry: dict[str, Any]) -> str:
    """Return what was opened, in words."""
    what = str(entry.get("what") or "?")
    return {"holdout": "hold-out", "external": "external cohort"}.get(what, f"external set “{what}”")


def opened_external(run: Run) -> bool:
    """Whether data of another place were opened in this run."""
    return any(entry.get("what") != "holdout" for entry in run.facts.get("opened") or [])


def answer(run: Run, *, published_too: bool = True) -> list[str]:
    """Return the answer of the study, first sentence first; beside the published figure where there is no ceiling."""
    arm = run.proposed
    state = run.arms.get(arm, {})
    if state.get("status") == "failed":
        return [f"The proposed arm ({arm_name(arm)}) failed: {state.get('reason') or 'no reason was recorded'}."]
    auc = run.estimates(arm).get("auc")
    if auc is None:
        return ["No AUC was estimated for the proposed arm, so there is no answer to give."]
    asked = f"The {arm_name(arm)} model told {against(run)} with an AUC of"
    if run.several:  # of some of its outcomes it may tell nothing
        asked = f"Asked to tell {against(run)}, the {arm_name(arm)} model reached an AUC of"
    said = [
        f"{asked} {number(auc.value)} ({interval(auc)}; n = {auc.n}), in {whose_predictions(run)}.",
        f"How the interval was made: {auc.method}.",
    ]
    held = run.estimates(arm, "holdout").get("auc")
    if held is not None:
        said.append(f"In the hold-out, opened once, it was {number(held.value)} ({interval(held)}; n = {held.n}).")
    said += _elsewhere(run)
    said += _beside_development(run)
    return said + (_beside_ceiling(run, auc) or (_beside_published(run) if published_too else []))


def _elsewhere(run: Run) -> list[str]:
    """Say the AUC of the frozen model in each external set."""
    said = []
    for name, other in run.externals.items():
        e = other.estimates(run.proposed).get("auc")
        if e is not None:
            said.append(f"In the external set “{name}” it was {number(e.value)} ({interval(e)}; n = {e.n}).")
    return said


def _beside_development(run: Run) -> list[str]:
    """Set an external AUC beside the one that the bundle had in its own cohort."""
    held = ((run.facts.get("development") or {}).get("evaluation") or {}).get("auc")
    if not readable(held):
        return []
    e = Estimate.from_dict(held)
    return [f"In the cohort it was developed on it had {with_interval(e)}, n = {e.n}, out-of-fold."]


def _beside_ceiling(run: Run, auc: Estimate) -> list[str]:
    """Set an AUC beside the best attainable one of a simulated cohort."""
    best = ceiling(run)
    if best is None:
        return []
    gap = best - auc.value
    where = f"{number(abs(gap))} {'below' if gap >= 0 else 'above'} it"
    holds = "holds" if auc.low <= best <= auc.high else "does not hold"
    return [
        f"The cohort is simulated: no model can expect more than an AUC of {number(best)} on it. "
        f"The model is {where}, and its interval {holds} that ceiling.",
        *_planted(run),
    ]


def _planted(run: Run) -> list[str]:
    """Warn where the simulator was told to plant what would lift a model above the ceiling."""
    planted = (run.facts.get("simulated") or {}).get("planted")
    named = [k.replace("_", " ") for k, v in planted.items() if v] if isinstance(planted, dict) else []
    return (
        [f"Planted on purpose: {joined(named)}; the ceiling is that of the {films(run)} without it."] if named else []
    )


def headline_of(run: Run) -> dict[str, Any]:
    """Return the published row that this target is set beside; a paper of one outcome is set beside the first."""
    row = headline(str(run.facts.get("system") or ""), run.target)
    return row if run.first or "aucs" in row else {}


def _beside_published(run: Run) -> list[str]:
    """Set an AUC beside the published one, which came from other patients."""
    system = str(run.facts.get("system") or "")
    theirs = headline_of(run)
    if not theirs:
        return []
    held = published(system)
    return [
        f"{held['citation'].split('.')[0]} reported {number(theirs['auc'], 2 if 'aucs' in theirs else 3)}, without an "
        f"interval, on {held['data']}. "
        "Other patients: the two stand side by side and are not a contest."
    ]
