"""The model card: what a bundle is, for whom it is not, how well it did, in Markdown.

It must not know files beyond the two mappings it is given, nor anything of a network.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tenfold.report import classes, connectomes
from tenfold.report.load import ALTERED, load, readable, targets_of
from tenfold.report.words import (
    METRICS,
    NOT_PROVIDED,
    RESEARCH_ONLY,
    joined,
    metric_label,
    number,
    p_value,
    score_cut,
    target_name,
    with_interval,
)
from tenfold.types import Estimate


def card(
    run: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    permutations: Mapping[str, Any] | None = None,
    all_classes: Mapping[str, Any] | None = None,
) -> list[tuple[str, list[str]]]:
    """Return the model card as headings with their lines.

    Args:
        run: run.json.
        evaluation: evaluation.json, `{target: {arm: {metric: estimate}}}`.
        permutations: permutations.json, `{target: {arm: {"p": ...}}}`.
        all_classes: classes.json, of targets with three classes or more.

    Returns:
        (heading, lines), the banner first. What only the author can know says NOT PROVIDED.
    """
    targets = targets_of(run) or [{}]
    several = len(targets) > 1
    arm = str(run.get("proposed") or "")
    a = (run.get("arms") or {}).get(arm) or {}
    return [
        ("Warning", [f"{RESEARCH_ONLY}. It must not be the reason for, or against, treating anybody."]),
        (
            "What it is",
            [
                f"Study: {run.get('title') or NOT_PROVIDED}",
                *(_predicts(target) for target in targets),
                f"Network: {a.get('network') or '?'}; encoder {a.get('encoder') or '?'}; starting weights "
                f"{a.get('weights') or '?'}{_pixels(run, a)}; parameters {a.get('parameters') or '?'}",
                *_inputs(run, a),
                f"Training stages: {joined([str(s) for s in a.get('stages') or []]) or '?'}",
                f"Operating point: {run.get('operating_rule') or '?'}, chosen on inner data, frozen",
                f"Made by tenfold {run.get('tenfold') or '?'} on {run.get('started') or '?'}, seed {run.get('seed')}",
            ],
        ),
        *(
            part
            for target in targets
            for part in _measured(
                run,
                target,
                evaluation.get(str(target.get("name"))) or {},
                (all_classes or {}).get(str(target.get("name"))) or {},
                arm,
                several=several,
            )
        ),
        ("Made from", _made_from(run)),
        ("Known flaws and limits", [*_untold(targets, evaluation, permutations or {}, arm), *_limits(run, a)]),
        ("Intended use, users and groups it was not tried on", [NOT_PROVIDED]),
        ("Ethics, licence and contact", [NOT_PROVIDED]),
        ("Fingerprints", [f"{k}: {v}" for k, v in (run.get("hashes") or {}).items()] or ["none recorded"]),
    ]


def _pixels(run: Mapping[str, Any], arm: Mapping[str, Any]) -> str:
    """Say how large a picture goes in, where one does."""
    kinds = {str(section.get("kind")) for section in (run.get("inputs") or {}).values()}
    return f"; input {arm.get('size') or '?'} px" if "image" in kinds or not kinds else ""


def _predicts(target: Mapping[str, Any]) -> str:
    """Say what is told of a patient."""
    names = [str(c) for c in target.get("classes") or []]
    cut = score_cut(target)
    text = f"Predicts: {target.get('name') or '?'}, one of {joined(names) or '?'}; positive: "
    text += f"{target.get('positive') or 'none'}" + (" (of a score)" if cut else "")
    return text + (
        ", against the rest where a yes or no is judged" if target.get("positive") and len(names) > 2 else ""
    )


def _measured(
    run: Mapping[str, Any],
    target: Mapping[str, Any],
    arms: Mapping[str, Any],
    together: Mapping[str, Any],
    arm: str,
    *,
    several: bool,
) -> list[tuple[str, list[str]]]:
    """Return what was measured on one target, under its name where there are several."""
    yes_or_no = f", {target.get('positive')} against the rest" if len(target.get("classes") or []) > 2 else ""
    parts = [*_together(together, arm), (f"Performance{yes_or_no}", _performance(arms, arm)), *_without(run, arms)]
    name = target_name(str(target.get("name")))
    return [(f"{heading}: {name}" if several else heading, lines) for heading, lines in parts]


def _together(held: Mapping[str, Any], arm: str) -> list[tuple[str, list[str]]]:
    """Return what was measured of all classes together, then one line a class; nothing for a yes or no."""
    own = (held.get("arms") or {}).get(arm) or {}
    overall = own.get("overall") or {}
    lines = [
        f"{classes.label(m)}: {with_interval(e)}; n = {e.n}; {e.method}"
        for m in classes.OVERALL
        if readable(overall.get(m)) and (e := Estimate.from_dict(overall[m]))
    ]
    by_class = own.get("by_class") or {}
    for name in held.get("classes") or []:
        found = {m: Estimate.from_dict(e) for m, e in (by_class.get(name) or {}).items() if readable(e)}
        told = [
            f"{'AUC' if m == 'auc' else metric_label(m).lower()} {with_interval(found[m])}, n = {found[m].n}"
            for m in ("auc", "sensitivity", "specificity", "ppv", "npv")
            if m in found
        ]
        ways = list(dict.fromkeys(e.method for e in found.values()))
        if told:
            lines.append(
                f"{name} against the rest, decided where it is likeliest: {'; '.join(told)}; {'; '.join(ways)}"
            )
    return [("Performance, all classes", lines)] if lines else []


def _untold(
    targets: list[dict[str, Any]], evaluation: Mapping[str, Any], permutations: Mapping[str, Any], arm: str
) -> list[str]:
    """Say of each target that cannot be told from chance that it cannot."""
    lines = []
    for target in targets:
        name = str(target.get("name"))
        held = ((evaluation.get(name) or {}).get(arm) or {}).get("auc")
        p = ((permutations.get(name) or {}).get(arm) or {}).get("p")
        shuffled = isinstance(p, int | float) and p >= 0.05
        if not readable(held):
            continue
        e = Estimate.from_dict(held)
        if e.low <= 0.5 or shuffled:
            also = f", p with permuted labels {p_value(p)}" if isinstance(p, int | float) else ""
            which = f" ({target.get('positive')} against the rest)" if len(target.get("classes") or []) > 2 else ""
            lines.append(
                f"{target_name(name)}{which} cannot be told from chance (AUC {with_interval(e)}; chance is "
                f"{number(0.5, 1)}{also}): do not use the model for it."
            )
    return lines


def model_card(
    run: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    permutations: Mapping[str, Any] | None = None,
    all_classes: Mapping[str, Any] | None = None,
) -> str:
    """Return the model card as Markdown: the README of a bundle.

    Args:
        run: run.json.
        evaluation: evaluation.json.
        permutations: permutations.json, where labels were permuted.
        all_classes: classes.json, where a target has three classes or more.
    """
    parts = [f"# Model card: {_one_line(run.get('title') or 'untitled study')}"]
    for heading, lines in card(run, evaluation, permutations, all_classes):
        parts += [f"## {heading}", "\n".join(f"- {_one_line(line)}" for line in lines)]
    return "\n\n".join(parts) + "\n"


def write_model_card(run: Path) -> str:
    """Return the model card of a run folder as Markdown.

    Raises:
        OutputError: The folder has no readable run.json.
    """
    held = load(run)
    permutations = {view.target: view.permutations for view in held.each}
    return model_card(held.facts, held.evaluation, permutations, held.all_classes)


def _one_line(text: Any) -> str:
    """Keep foreign text from starting a heading, a list or a tag of its own."""
    return " ".join(str(text).split()).replace("<", "&lt;")


def _performance(arms: Mapping[str, Any], arm: str) -> list[str]:
    """Return one line a metric, core set first, with interval, n and method."""
    found = arms.get(arm) or {}
    names = [n for n in METRICS if n in found] + [n for n in found if n not in METRICS]
    lines = []
    for name in names:
        if readable(found[name]):
            e = Estimate.from_dict(found[name])
            note = (
                "; improper: not for choosing a model" if name in METRICS and METRICS[name].group == "improper" else ""
            )
            lines.append(f"{metric_label(name)}: {with_interval(e)}; n = {e.n}; {e.method}{note}")
    return lines or ["No performance was measured."]


def _inputs(run: Mapping[str, Any], arm: Mapping[str, Any]) -> list[str]:
    """Say what a patient must bring, and how missing values are met."""
    held = run.get("inputs") or {}
    names = [str(name) for name in arm.get("inputs") or []]
    lines = [f"Takes: {joined(names)}; joined by {arm.get('fusion') or 'nothing, it is one input'}"] if names else []
    for name in names:
        section = held.get(name) or {}
        if section.get("kind") == "table":
            way = "nearest neighbours" if section.get("imputation") == "knn" else "the median of the training patients"
            lines.append(f"Missing values in {name} are met by {way}, and the network is told that they are missing")
        if section.get("kind") == "connectome":
            lines += connectomes.in_short(name, section)
    return lines


def _without(run: Mapping[str, Any], arms: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Say what the answer is worth where an input is not there."""
    lines = []
    proposed = str(run.get("proposed") or "")
    for name, arm in (run.get("arms") or {}).items():
        held = (arms.get(name) or {}).get("auc")
        if arm.get("kind") == ALTERED and ", without " in name and readable(held):
            e = Estimate.from_dict(held)
            change = name.removeprefix(f"{proposed}, ")
            lines.append(f"{change}: AUC {with_interval(e)}; n = {e.n}; {e.method}")
    if not lines:
        return []
    lines.append("The operating point was set for complete patients. Without all of its inputs it gives no answer.")
    return [("What the answer is worth without an input", lines)]


def _made_from(run: Mapping[str, Any]) -> list[str]:
    """Say the data and the division."""
    v = run.get("validation") or {}
    told = [f"{k} {v[k]}" for k in ("folds", "repeats", "inner", "holdout", "by", "calibration") if k in v]
    lines = [f"Validation: {', '.join(told)}"] if told else []
    if run.get("simulated"):
        kinds = {str(i.get("kind")) for i in (run.get("inputs") or {}).values()}
        seen = "film" if "image" in kinds or not kinds else "connectome" if "connectome" in kinds else "patient"
        lines.insert(0, f"Data: SIMULATED patients. It has never seen a real {seen}.")
    return lines or ["The run does not say."]


def _limits(run: Mapping[str, Any], arm: Mapping[str, Any]) -> list[str]:
    """Say what is known to be wrong with it."""
    lines = [str(flaw) for flaw in arm.get("flaws") or []]
    for name, section in (run.get("inputs") or {}).items():
        if section.get("kind") == "table" and section.get("imputation") == "knn":
            lines.append(
                f"Imputation by nearest neighbours keeps the values of the training patients of {name} in the bundle: "
                "whoever holds the bundle holds them. Treat it as patient data, or use the median."
            )
    if all(o.get("what") == "holdout" for o in run.get("opened") or []):
        lines.append("No external validation is recorded here: expect less at another hospital.")
    lines += connectomes.limits(run)
    kinds = {str(section.get("kind")) for section in (run.get("inputs") or {}).values()}
    if "image" in kinds or not kinds:
        lines.append("A heat map shows where the model looked, not where disease is.")
    return lines
