"""The methods paragraph in words, past tense, ready to paste, with the papers its methods come from.

It must not know HTML, nor claim a step that the run's files do not show.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tenfold.report.load import Run
from tenfold.report.words import arm_name, count, division, flow_text, joined, population, rule


@dataclass(frozen=True)
class Reference:
    """A paper that a method comes from."""

    key: str
    citation: str
    doi: str = ""


REFERENCES = (
    Reference(
        "DeLong 1988",
        "DeLong ER, DeLong DM, Clarke-Pearson DL. Comparing the areas under two or more correlated receiver "
        "operating characteristic curves. Biometrics 1988;44:837-845.",
        "10.2307/2531595",
    ),
    Reference(
        "Obuchowski 1997",
        "Obuchowski NA. Nonparametric analysis of clustered ROC curve data. Biometrics 1997;53:567-578.",
        "10.2307/2533958",
    ),
    Reference(
        "Van Calster 2025",
        "Van Calster B, Collins GS, Vickers AJ, et al. Performance evaluation of predictive AI models to support "
        "medical decisions. Lancet Digital Health 2025; arXiv:2412.10288.",
    ),
    Reference(
        "Vickers 2006",
        "Vickers AJ, Elkin EB. Decision curve analysis: a novel method for evaluating prediction models. "
        "Medical Decision Making 2006;26:565-574.",
        "10.1177/0272989X06295361",
    ),
    Reference(
        "Austin 2019",
        "Austin PC, Steyerberg EW. The Integrated Calibration Index (ICI) and related metrics for quantifying the "
        "calibration of logistic regression models. Statistics in Medicine 2019;38:4051-4065.",
        "10.1002/sim.8281",
    ),
    Reference(
        "Holm 1979",
        "Holm S. A simple sequentially rejective multiple test procedure. Scandinavian Journal of Statistics "
        "1979;6:65-70.",
    ),
    Reference(
        "Selvaraju 2017",
        "Selvaraju RR, Cogswell M, Das A, et al. Grad-CAM: visual explanations from deep networks via "
        "gradient-based localization. ICCV 2017:618-626.",
        "10.1109/ICCV.2017.74",
    ),
    Reference(
        "Adebayo 2018",
        "Adebayo J, Gilmer J, Muelly M, et al. Sanity checks for saliency maps. NeurIPS 2018.",
    ),
    Reference(
        "Zhang 2018",
        "Zhang J, Bargal SA, Lin Z, et al. Top-down neural attention by excitation backprop. International Journal "
        "of Computer Vision 2018;126:1084-1102.",
        "10.1007/s11263-017-1059-x",
    ),
    Reference(
        "Collins 2024",
        "Collins GS, Moons KGM, Dhiman P, et al. TRIPOD+AI statement: updated guidance for reporting clinical "
        "prediction models that use regression or machine learning methods. BMJ 2024;385:e078378.",
        "10.1136/bmj-2023-078378",
    ),
    Reference(
        "Tejani 2024",
        "Tejani AS, Klontzas ME, Gatti AA, et al. Checklist for Artificial Intelligence in Medical Imaging (CLAIM): "
        "2024 update. Radiology: Artificial Intelligence 2024;6:e240300.",
        "10.1148/ryai.240300",
    ),
)


def paragraphs(run: Run) -> list[str]:
    """Return the methods section, one string a paragraph; a part that the run does not show is left out."""
    parts = (_data(run), _models(run), _validation(run), _statistics(run), _explanations(run), _software(run))
    return [text for text in parts if text]


def cited(run: Run) -> list[Reference]:
    """Return the references that the methods section names, in its order."""
    text = " ".join(paragraphs(run))
    found = [(text.index(r.key), r) for r in REFERENCES if r.key in text]
    return [reference for _, reference in sorted(found, key=lambda pair: pair[0])]


def model_sentence(run: Run, arm: str) -> str:
    """Say what one arm is: network, weights, picture size, parameters."""
    a = run.arms.get(arm, {})
    if not a.get("network"):
        return ""
    text = f"{arm_name(arm)}: {a['network']}"
    if a.get("weights"):
        text += f", starting weights “{a['weights']}”"
    if a.get("size"):
        text += f", {a['size']} × {a['size']} px"
    if isinstance(a.get("parameters"), int):
        text += f", {a['parameters']:,} parameters"
    return text


def stage_sentences(run: Run, arm: str) -> list[str]:
    """Say what each stage of an arm's training did; repeats of a stage over folds are told once."""
    told: dict[str, list[dict[str, Any]]] = {}
    for stage in (run.facts.get("stages") or {}).get(arm) or []:
        told.setdefault(str(stage.get("name", "")), []).append(stage)
    return [_stage(name, stages) for name, stages in told.items()]


def _stage(name: str, stages: list[dict[str, Any]]) -> str:
    """Say one stage, with the range of its epochs over the folds."""
    first = stages[0]
    epochs = sorted({int(s["epochs_run"]) for s in stages if isinstance(s.get("epochs_run"), int)})
    best = sorted({int(s["best_epoch"]) for s in stages if isinstance(s.get("best_epoch"), int)})
    text = f"Stage “{name}” used the cohort {first.get('cohort', '?')} ({first.get('task', '?')}; thawed: "
    text += f"{first.get('thaw', '?')})"
    if epochs:
        text += f" for {_range(epochs)} epochs"
    if best:
        text += f", and the weights of epoch {_range(best)} were kept, the best on the inner part"
    if first.get("transferred"):
        text += f"; transferred: {first['transferred']}"
    if first.get("reset"):
        text += f"; reset: {first['reset']}"
    return f"{text}."


def _range(values: list[int]) -> str:
    return str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"


def _data(run: Run) -> str:
    """Say who was studied and what was predicted."""
    target = run.facts.get("target") or {}
    text = f"We analysed {population(run)}. " if run.cohort else ""
    if run.facts.get("simulated"):
        text = text.replace("We analysed", "We analysed a simulated cohort of")
    flow = flow_text(run)
    text += f"Selection went as follows: {flow}. " if flow else ""
    if run.classes:
        text += f"The outcome, {target.get('name', '?')} (column “{target.get('column', '?')}”), "
        text += f"had the classes {joined(run.classes)}"
        text += f", of which {run.positive} counted as positive." if run.positive else "."
    return text.strip()


def _models(run: Run) -> str:
    """Say what was fitted, or that nothing was."""
    if run.external:
        return (
            "A frozen bundle was applied unchanged: its preparation, weights, recalibration and operating point "
            "were those fixed at development."
        )
    main = model_sentence(run, run.proposed)
    others = [s for arm in run.arms if arm != run.proposed and (s := model_sentence(run, arm))]
    text = f"The proposed arm was {main}. " if main else ""
    text += " ".join(stage_sentences(run, run.proposed)) + " "
    text += f"It was compared with {count(len(others), 'further arm')}: {'; '.join(others)}. " if others else ""
    failed = [
        f"{arm_name(a)} ({d.get('reason') or 'no reason recorded'})"
        for a, d in run.arms.items()
        if d.get("status") == "failed"
    ]
    text += f"These arms failed and have no results: {joined(failed)}." if failed else ""
    return text.strip()


def _validation(run: Run) -> str:
    """Say how the cohort was divided and what was decided where."""
    text = f"{division(run)} {rule(run)} "
    way = (run.facts.get("validation") or {}).get("calibration")
    if not run.external and run.facts.get("validation"):
        text += (
            f"When to stop, how to recalibrate the probabilities{f' ({way})' if way else ''} and where "
            "to set the operating point were decided "
            "on the inner part alone; the code that fitted never received the test fold. "
        )
    opened = [f"the {o.get('what', '?')} data on {o.get('when', '?')}" for o in run.facts.get("opened") or []]
    text += f"Recorded openings: {joined(opened)}." if opened else ""
    return text.strip()


def _statistics(run: Run) -> str:
    """Say how the numbers were made, in the words of the numbers themselves."""
    found = run.estimates(run.proposed)
    if not found:
        return ""
    auc = found.get("auc")
    text = (
        "Following Van Calster 2025 we report discrimination, calibration, net benefit and the probabilities by class. "
    )
    if auc is not None:
        named = [
            k
            for k, word in {"DeLong 1988": "delong", "Obuchowski 1997": "cluster"}.items()
            if word in auc.method.lower()
        ]
        text += f"The AUC and its interval were made by: {auc.method}{f' ({joined(named)})' if named else ''}. "
    # each number's own n stands in its table: here the ways alone are named, once each
    stems = (e.method.split("; n =")[0] for name, e in found.items() if name != "auc" and e.method)
    methods = list(dict.fromkeys(stems))
    text += f"Further intervals: {'; '.join(methods)}. " if methods else ""
    text += "Net benefit and decision curves followed Vickers 2006. " if "net_benefit" in found else ""
    text += "The integrated calibration index followed Austin 2019. " if "ici" in found else ""
    pairs = run.compared()
    ways = list(dict.fromkeys(str(c.get("method")) for c in pairs if c.get("method")))
    text += f"Arms were compared on the same patients ({'; '.join(ways)})" if pairs else ""
    if any(c.get("p_holm") is not None for c in pairs):
        text += ", with p values adjusted by Holm 1979"
    return text.strip().rstrip(".") + "."


def _explanations(run: Run) -> str:
    """Say how the heat maps were made and checked."""
    if not run.explanations.get("cases"):
        return ""
    sanity = run.explanations.get("sanity") or {}
    text = "Heat maps were made by Grad-CAM (Selvaraju 2017). "
    if sanity.get("randomisation"):
        text += "They were checked by randomising the weights from the top down (Adebayo 2018). "
    if sanity.get("pointing"):
        text += "Where masks existed, the pointing game (Zhang 2018) and the energy inside the mask were set beside a "
        text += "prior that always points at the centre. "
    return text.strip()


def _software(run: Run) -> str:
    """Say with what, where and from which seed."""
    f = run.facts
    versions = [f"{k} {v}" for k, v in (f.get("versions") or {}).items()]
    text = f"All analyses were run with tenfold {f.get('tenfold', '(version unknown)')}"
    text += f" ({', '.join(versions)})" if versions else ""
    text += f" on {f['device']}" if f.get("device") else ""
    text += f" in {f['precision']}" if f.get("precision") else ""
    text += f", seed {f['seed']}" if f.get("seed") is not None else ""
    return f"{text}. Reporting follows TRIPOD+AI (Collins 2024) and CLAIM (Tejani 2024)."
