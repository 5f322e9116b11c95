"""TRIPOD+AI and CLAIM filled from the run; the items are data, the answers are the functions listed here.

It must not know HTML, and it must not guess: what neither run nor author says is NOT PROVIDED.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from tenfold.errors import nearest
from tenfold.report import chance, classes, connectomes
from tenfold.report.limits import gap_sentences, sample_size
from tenfold.report.load import Run
from tenfold.report.methods_text import model_sentence, stage_sentences
from tenfold.report.published import published
from tenfold.report.words import (
    METRICS,
    NOT_PROVIDED,
    RESEARCH_ONLY,
    against,
    answer,
    arm_name,
    capital,
    count,
    division,
    flow_text,
    headline_of,
    interval,
    joined,
    known_sentence,
    metric_label,
    number,
    opened_external,
    pictured,
    population,
    rule,
    score_cut,
    target_name,
    thresholds,
    versus,
    with_interval,
)

CHECKLISTS = ("tripod_ai", "claim")


@dataclass(frozen=True)
class Item:
    """One item of a checklist with its answer.

    Attributes:
        number: The item's number in the published list.
        section: Where it belongs.
        asks: What it asks, in our words.
        answer: From the run, from the author, or NOT PROVIDED.
        source: "run", "author", "run and author" or "".
    """

    number: str
    section: str
    asks: str
    answer: str
    source: str


@dataclass(frozen=True)
class Checklist:
    """A filled checklist."""

    key: str
    name: str
    citation: str
    items: tuple[Item, ...]

    @property
    def open(self) -> int:
        """How many items are NOT PROVIDED."""
        return sum(item.answer == NOT_PROVIDED for item in self.items)


@cache
def _read(key: str) -> dict[str, Any]:
    return tomllib.loads(resources.files("tenfold.report").joinpath(f"{key}.toml").read_text("utf-8"))


def fill(run: Run, key: str) -> Checklist:
    """Fill a checklist from the run and the author's own answers.

    Args:
        run: The run.
        key: "tripod_ai" or "claim".

    Returns:
        Every item, in the published order.
    """
    held = _read(key)
    items = [_fill_item(run, key, item) for item in held["items"]]
    return Checklist(key, held["name"], held["citation"], tuple(items))


def author_problems(run: Run) -> list[str]:
    """Say which answers in author.toml belong to no item, so that none is lost by a slip of the pen."""
    problems = []
    for key, answers in run.author.items():
        if key not in CHECKLISTS or not isinstance(answers, dict):
            problems.append(f"author.toml: “{key}” is no checklist ({nearest(key, CHECKLISTS)}).")
            continue
        known = [item["id"] for item in _read(key)["items"]]
        problems += [
            f"author.toml: [{key}] has no item “{name}” ({nearest(name, known)})."
            for name in answers
            if name not in known
        ]
    return problems


def _fill_item(run: Run, key: str, item: dict[str, str]) -> Item:
    """Answer one item: what the run shows first, then what the author says."""
    shown = _shown(run, item["answer"]).strip() if item.get("answer") else ""
    said = _author(run, key, item["id"]) or _author(run, "tripod_ai", item.get("tripod", ""))
    source = " and ".join(name for name, text in (("run", shown), ("author", said)) if text)
    text = " ".join(t for t in (shown, f"Author: {said}" if said else "") if t)
    return Item(item["id"], item["section"], item["asks"], text or NOT_PROVIDED, source)


def _shown(run: Run, name: str) -> str:
    """Return what the run shows: once where it holds for all targets, else a target at a time."""
    if name in ONCE or not run.several:
        return ANSWERS[name](run)
    found = {target_name(view.target): ANSWERS[name](view).strip() for view in run.each}
    if len(set(found.values())) == 1:
        return next(iter(found.values()))
    return " ".join(f"[{target}] {text}" for target, text in found.items() if text)


def _author(run: Run, key: str, number_: str) -> str:
    answers = run.author.get(key)
    return str(answers.get(number_) or "").strip() if isinstance(answers, dict) else ""


def _title(run: Run) -> str:
    """The report's own title says what kind of study it is."""
    kind = "external evaluation of a frozen model" if run.external else "development and internal validation"
    seen = {"image": "images", "connectome": "connectomes", "table": "tables"}
    named = joined([seen[k] for k in seen if k in run.kinds(run.proposed)]) or "images"
    return (
        f"Title of this report: {run.facts.get('title')}; {kind}; deep learning on {named}."
        if run.facts.get("title")
        else ""
    )


def _abstract(run: Run) -> str:
    if run.several:
        told = "; ".join(known for view in run.each if (known := known_sentence(view)))
        chances = " ".join(chance.sentence(view) for view in run.each)
        return f"In place of one, the answer: {chance.lead(run)} {f'Patients: {told}. ' if told else ''}{chances}"
    return f"In place of one, the answer: {' '.join([*answer(run), *chance.sentences(run)])}"


def _existing_models(run: Run) -> str:
    held = published(str(run.facts.get("system") or ""))
    return f"An existing model: {held['citation']} Its figures stand beside ours." if held else ""


def _aim(run: Run) -> str:
    return (
        f"Evaluation: to measure, unchanged, how a frozen model tells {against(run)} in another cohort."
        if run.external
        else f"Development and internal validation of a model that tells {against(run)}."
    )


def _data_source(run: Run) -> str:
    made = run.facts.get("simulated")
    return f"Simulated by tenfold (kind: {made.get('kind', '?')}); no real patient is in it." if made else ""


def _sites(run: Run) -> str:
    sites = run.cohort.get("by_site") or {}
    named = [f"{name}: {s.get('cases', '?')} cases" if isinstance(s, dict) else str(name) for name, s in sites.items()]
    return f"Sites named in the cohort file: {'; '.join(named)}." if named else ""


def _flow(run: Run) -> str:
    text = flow_text(run)
    return f"{text} (flow chart)." if text else ""


def _eligibility(run: Run) -> str:
    text = flow_text(run)
    return f"What the program itself left out: {text}. Clinical criteria are the author's to state." if text else ""


def _preparation(run: Run) -> str:
    a = run.arms.get(run.proposed, {})
    found = f" The audit left {count(len(run.findings), 'finding')}." if run.findings is not None else ""
    wired = " ".join(connectomes.prepared(name, i) for name, i in connectomes.of_kind(run.facts).items())
    if not a.get("size") or "image" not in (run.kinds(run.proposed) or {"image"}):
        return f"{wired}{found}".strip()
    return (
        f"Every film was decoded once and brought to {a['size']} × {a['size']} px by a preparation that is the same "
        f"for all patients and travels in the bundle.{found}"
    )


def _outcome(run: Run) -> str:
    t = run.facts.get("target") or {}
    if not run.classes:
        return ""
    positive = f"; positive: {run.positive}" if run.positive else ""
    positive += f", also judged as a yes or no, {versus(run)}" if versus(run) else ""
    cut = score_cut(t)
    positive += f", a score {cut}; the network learned the score itself" if cut else ""
    return (
        f"“{t.get('name', '?')}”, read from the column “{t.get('column', '?')}”: {joined(run.classes)}{positive}. "
        f"How it was established only the author can say."
    )


def _predictors(run: Run) -> str:
    encoder = run.arms.get(run.proposed, {}).get("encoder")
    wired = connectomes.of_kind(run.facts)
    if "connectome" in run.kinds(run.proposed) and "table" not in run.kinds(run.proposed):
        sizes = joined([f"{name}: {connectomes.size(i)}" for name, i in wired.items()])
        return f"The edges of connectomes alone ({sizes}; encoder {encoder}); no edge was screened on the data."
    if "table" in run.kinds(run.proposed):
        tables = [n for n, i in (run.facts.get("inputs") or {}).items() if i.get("kind") == "table"]
        screened = any((run.facts["inputs"][n] or {}).get("screen") for n in tables)
        chosen = "columns were screened within the folds" if screened else "no column was screened on the data"
        columns = [str(t.get("column")) for t in run.cohort.get("tests") or []]
        listed = f" Columns: {joined(columns)}." if columns else ""
        listed += "".join(f" {name}: {connectomes.size(i)}." for name, i in wired.items())
        return f"Inputs: {joined(list(run.inputs(run.proposed)))} (encoders {encoder}); {chosen}.{listed}"
    return (
        f"The pixels of the images alone (encoder {encoder}); no feature was screened on the data." if encoder else ""
    )


def _sample_size(run: Run) -> str:
    text = population(run)
    told = sample_size(run)
    if told and text:
        return f"All that were eligible: {text}. {' '.join(told)}"
    return f"All that were eligible: {text}; no size was computed in advance by the program." if text else ""


def _missing(run: Run) -> str:
    text = flow_text(run)
    if run.several and text:
        known = "; ".join(said for view in run.each if (said := known_sentence(view)))
        kept = "A patient with at least one known outcome was kept; an unknown one was masked in loss and evaluation"
        text = f"{text}. {kept}{f' ({known})' if known else ''}"
    if connectomes.of_kind(run.facts) and text:
        text += ". An edge that was not measured took the mean of the training part"
    tables = {n: i for n, i in (run.facts.get("inputs") or {}).items() if i.get("kind") == "table"}
    if tables and text:
        ways = joined([f"{n} by {i.get('imputation', 'median')}" for n, i in tables.items()])
        return (
            f"Values missing in a table were imputed within each fold from its training part ({ways}), and the network "
            f"was told which were missing. A patient may lack a whole input. Left out of the analysis: {text}."
        )
    if connectomes.of_kind(run.facts) and text:
        return f"A case without any known outcome or readable connectome left the analysis: {text}."
    return f"Nothing was filled in. A case without outcome or readable image left the analysis: {text}." if text else ""


def _model(run: Run) -> str:
    text = model_sentence(run, run.proposed)
    return f"{text}. {' '.join(stage_sentences(run, run.proposed))}" if text else ""


def _clusters(run: Run) -> str:
    by = (run.facts.get("validation") or {}).get("by")
    return (
        f"Division by {str(by).replace('_', ' ')}; intervals take several images of a patient together." if by else ""
    )


def _measures(run: Run) -> str:
    found = run.estimates(run.proposed)
    plots = [k for k in ("roc", "calibration", "decision", "confusion") if run.curve(run.proposed, k)]
    named = joined([metric_label(m) for m in found])
    return f"{named}. Plots: {joined(plots)}." if found else ""


def _recalibration(run: Run) -> str:
    if run.external:
        return "None: the bundle was applied unchanged; calibration is shown as found."
    return (
        "Probabilities were recalibrated on the inner part only; nothing was updated after evaluation."
        if run.facts.get("validation")
        else ""
    )


def _predictions(run: Run) -> str:
    return (
        "By the frozen bundle, whole."
        if run.external
        else "Out of fold: by models that had not seen the patient."
        if run.facts.get("validation")
        else ""
    )


def _imbalance(run: Run) -> str:
    by_class = run.cohort.get("by_class") or {}
    if not by_class:
        return ""
    cases = "; ".join(f"{k} {v.get('cases', '?')}" for k, v in by_class.items())
    return f"Class sizes: {cases}. Evaluation kept the cohort's own mix; any weighting is in study.toml."


def _output(run: Run) -> str:
    cut = thresholds(run, run.proposed)
    at = f" Thresholds over the folds: {number(min(cut))} to {number(max(cut))}." if cut else ""
    text = rule(run)
    return f"A probability for each class and, at the operating point, a decision. {text}{at}" if text else ""


def _difference(run: Run) -> str:
    if run.external:
        return (
            f"Evaluated on: {population(run)}. The development cohort is described in its own report."
            if run.cohort
            else ""
        )
    return (
        "Evaluated on other patients of the same cohort: same source, same outcome, same preparation."
        if run.facts.get("validation")
        else ""
    )


def _code(run: Run) -> str:
    version = run.facts.get("tenfold")
    return (
        f"tenfold {version}, Apache-2.0; study.toml, splits and predictions lie in the run folder." if version else ""
    )


def _characteristics(run: Run) -> str:
    return f"Table 1: {population(run)}." if run.cohort.get("table") else ""


def _events(run: Run) -> str:
    text = population(run)
    return f"{text}." if text else ""


def _specification(run: Run) -> str:
    if (run.folder / "bundle").is_dir() or (run.facts.get("hashes") or {}).get("bundle"):
        return "The bundle holds weights, preparation, recalibration and operating point, with hashes."
    return ""


def _performance(run: Run) -> str:
    found = run.estimates(run.proposed)
    core = [
        f"{METRICS[m].label} {with_interval(found[m])}" for m in METRICS if METRICS[m].group == "core" and m in found
    ]
    together = " ".join(classes.headline(run)[:1])
    together += f" {capital(versus(run))}: " if together and versus(run) else ""
    return f"{together}{'; '.join(core)}; n = {found['auc'].n}. {_subgroups(run)}" if "auc" in found else together


def _subgroups(run: Run) -> str:
    said = gap_sentences(run)
    return f"Gaps in AUC between subgroups: {'; '.join(said)}." if said else "No subgroups were analysed."


def _accuracy(run: Run) -> str:
    found = run.estimates(run.proposed)
    parts = [
        f"{metric_label(m)} {with_interval(found[m])}, n = {found[m].n}"
        for m in ("sensitivity", "specificity", "ppv", "npv")
        if m in found
    ]
    return f"{'; '.join(parts)}." if parts else ""


def _spread(run: Run) -> str:
    held = (run.folds.get(run.target) or {}).get(run.proposed) or []
    values = [f["auc"] for f in held if isinstance(f.get("auc"), int | float)]
    return f"AUC by fold from {number(min(values))} to {number(max(values))} ({len(values)} folds)." if values else ""


def _beside(run: Run) -> str:
    held = published(str(run.facts.get("system") or ""))
    auc = run.estimates(run.proposed).get("auc")
    if not held or auc is None:
        return ""
    theirs = headline_of(run)
    return (
        f"AUC {number(auc.value)} ({interval(auc)}); published {number(theirs['auc'], 2 if 'aucs' in theirs else 3)} "
        "without interval, on other data."
        if theirs
        else ""
    )


def _limitations(run: Run) -> str:
    parts = [f"{arm_name(a)}: {flaw}." for a, d in run.arms.items() for flaw in d.get("flaws") or []]
    warned = [r.get("message", "") for r in run.findings or [] if r.get("severity") == "warning"]
    if run.facts.get("simulated"):
        parts.append("The cohort is simulated.")
    if not run.external and not run.externals and not opened_external(run):
        parts.append("No external validation is part of this run.")
    parts += [chance.sentence(view) for view in run.each if chance.verdict(view).told is False]
    if run.several:
        parts.append(f"{len(run.each)} outcomes were judged, without adjustment for their number.")
    parts += connectomes.limits(run.facts)
    return " ".join([*parts, *warned, f"{RESEARCH_ONLY}."])


def _poor_input(run: Run) -> str:
    wired = bool(connectomes.of_kind(run.facts))
    return (
        "A connectome of another size or atlas, not symmetric, not finite, or the same for two subjects is refused by "
        "name; none is replaced."
        if wired and "image" not in run.kinds(run.proposed)
        else "Missing, truncated, blank or foreign images are refused by name; none is replaced."
        if run.facts.get("tenfold")
        else ""
    )


def _disjoint(run: Run) -> str:
    by = (run.facts.get("validation") or {}).get("by")
    sites = " Sites too are in one part only." if by in ("site", "leave_one_site_out") else ""
    return f"By patient: nobody is in two parts.{sites}" if by and not run.external else ""


def _software(run: Run) -> str:
    named = ", ".join(f"{k} {v}" for k, v in (run.facts.get("versions") or {}).items())
    return f"tenfold {run.facts.get('tenfold')}; {named}." if named else ""


def _initial_weights(run: Run) -> str:
    told = [f"{arm_name(a)}: {d['weights']}" for a, d in run.arms.items() if d.get("weights")]
    return f"{'; '.join(told)}. Seed {run.facts.get('seed')}." if told else ""


def _training(run: Run) -> str:
    text = " ".join(stage_sentences(run, run.proposed))
    return f"{text} Rates and augmentation are in study.toml." if text else ""


def _selection(run: Run) -> str:
    return (
        "The epoch with the best value on the inner validation part; the test fold was never used."
        if run.facts.get("stages")
        else ""
    )


def _ensemble(run: Run) -> str:
    return (
        "The fold models together are the predictor in the bundle."
        if (run.facts.get("validation") or {}).get("folds")
        else ""
    )


def _uncertainty(run: Run) -> str:
    methods = list(dict.fromkeys(e.method for e in run.estimates(run.proposed).values() if e.method))
    methods += list(dict.fromkeys(str(c["method"]) for c in run.compared() if c.get("method")))
    return f"{'; '.join(methods)}." if methods else ""


def _robustness(run: Run) -> str:
    others = [arm_name(a) for a in run.arms if a != run.proposed]
    changed = [arm_name(a) for a in run.altered]
    also = f" The proposed networks were asked again as: {joined(changed)}." if changed else ""
    return f"Ablations: {joined(others)}. Spread over folds is shown.{also}" if others or changed else ""


def _explanation(run: Run) -> str:
    sanity = run.explanations.get("sanity") or {}
    checks = [
        n
        for n, k in (
            ("weight randomisation", "randomisation"),
            ("pointing game and energy against a centre prior", "pointing"),
        )
        if sanity.get(k)
    ]
    further = "; exact Shapley values over the inputs" if run.explanations.get("modalities") else ""
    further += "; integrated gradients over table columns" if run.explanations.get("importance") else ""
    held = connectomes.edges(run)
    if held:
        further += "; weights of single edges, with how alike the folds are"
    if not pictured(run):
        said = further.removeprefix("; ")
        return f"{said[:1].upper()}{said[1:]}." if said else ""
    return f"Grad-CAM{further}; maps checked by {joined(checks) or 'nothing'}." if run.explanations.get("cases") else ""


def _internal(run: Run) -> str:
    return division(run) if not run.external else ""


def _external(run: Run) -> str:
    return (
        f"This is one: {' '.join(answer(run))}"
        if run.external
        else f"{' '.join(_elsewhere(name, r) for name, r in run.externals.items())}"
        if run.externals
        else "Not part of this run; `tenfold evaluate` makes one."
    )


def _elsewhere(name: str, other: Run) -> str:
    return f"“{name}”: {population(other)}; {' '.join(answer(other))}"


def _failures(run: Run) -> str:
    wrong = [c for c in run.explanations.get("cases") or [] if not c.get("right", True)]
    shown = "film, heat map and probability" if pictured(run) else "what moved the answer and the probability"
    return f"{count(len(wrong), 'wrong case')} shown with {shown}." if wrong else ""


# Told once of a run with several targets, whatever they are; the rest a target at a time where it differs.
ONCE = ("abstract", "limitations", "missing", "explanation", "failures", "clusters")
ANSWERS: dict[str, Callable[[Run], str]] = {
    "title": _title,
    "abstract": _abstract,
    "existing_models": _existing_models,
    "aim": _aim,
    "data_source": _data_source,
    "sites": _sites,
    "eligibility": _eligibility,
    "preparation": _preparation,
    "outcome": _outcome,
    "predictors": _predictors,
    "sample_size": _sample_size,
    "missing": _missing,
    "partition": division,
    "model": _model,
    "clusters": _clusters,
    "measures": _measures,
    "recalibration": _recalibration,
    "predictions": _predictions,
    "imbalance": _imbalance,
    "output": _output,
    "difference": _difference,
    "code": _code,
    "flow": _flow,
    "characteristics": _characteristics,
    "events": _events,
    "specification": _specification,
    "performance": _performance,
    "accuracy": _accuracy,
    "spread": _spread,
    "beside": _beside,
    "limitations": _limitations,
    "poor_input": _poor_input,
    "subsets": _flow,
    "disjoint": _disjoint,
    "software": _software,
    "initial_weights": _initial_weights,
    "training": _training,
    "selection": _selection,
    "ensemble": _ensemble,
    "uncertainty": _uncertainty,
    "robustness": _robustness,
    "explanation": _explanation,
    "internal": _internal,
    "external": _external,
    "failures": _failures,
}
