"""The methods paragraph in words, past tense, ready to paste, with the papers its methods come from.

It must not know HTML, nor claim a step that the run's files do not show.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import Any

from tenfold.report.load import Run
from tenfold.report.readers import places, ways
from tenfold.report.words import arm_name, count, division, flow_text, joined, opened_name, population, rule


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
        "Arevalo 2017",
        "Arevalo J, Solorio T, Montes-y-Gómez M, González FA. Gated multimodal units for information fusion. "
        "ICLR workshop 2017; arXiv:1702.01992.",
    ),
    Reference(
        "Benjamini 1995",
        "Benjamini Y, Hochberg Y. Controlling the false discovery rate: a practical and powerful approach to multiple "
        "testing. Journal of the Royal Statistical Society B 1995;57:289-300.",
    ),
    Reference(
        "Riley 2020",
        "Riley RD, Ensor J, Snell KIE, et al. Calculating the sample size required for developing a clinical "
        "prediction model. BMJ 2020;368:m441.",
        "10.1136/bmj.m441",
    ),
    Reference(
        "Vovk 2012",
        "Vovk V. Conditional validity of inductive conformal predictors. Proceedings of Machine Learning Research "
        "2012;25:475-490.",
    ),
    Reference(
        "Obuchowski 1995",
        "Obuchowski NA, Rockette HE. Hypothesis testing of diagnostic accuracy for multiple readers and multiple "
        "tests: an ANOVA approach with dependent observations. Communications in Statistics 1995;24:285-308.",
    ),
    Reference(
        "Hillis 2007",
        "Hillis SL. A comparison of denominator degrees of freedom methods for multiple observer ROC analysis. "
        "Statistics in Medicine 2007;26:596-619.",
        "10.1002/sim.2532",
    ),
    Reference(
        "McGraw 1996",
        "McGraw KO, Wong SP. Forming inferences about some intraclass correlation coefficients. Psychological Methods "
        "1996;1:30-46.",
    ),
    Reference(
        "Shapley 1953",
        "Shapley LS. A value for n-person games. In: Contributions to the theory of games II. Princeton 1953:307-317.",
    ),
    Reference(
        "Sundararajan 2017",
        "Sundararajan M, Taly A, Yan Q. Axiomatic attribution for deep networks. ICML 2017:3319-3328.",
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
    parts = (
        _data(run),
        _inputs(run),
        _models(run),
        _validation(run),
        _statistics(run),
        _further(run),
        _readers(run),
        _explanations(run),
        _software(run),
    )
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
    if a.get("inputs"):
        text += f" on {joined([str(name) for name in a['inputs']])}"
    if a.get("weights") and a.get("kind", "network") == "network":
        text += f", starting weights “{a['weights']}”"
    if a.get("size"):
        text += f", {a['size']} × {a['size']} px"
    if isinstance(a.get("parameters"), int) and a["parameters"]:
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


def _inputs(run: Run) -> str:
    """Say what went in, what was done where values were missing, and how inputs were joined."""
    held = run.facts.get("inputs") or {}
    tables = {name: i for name, i in held.items() if i.get("kind") == "table"}
    parts = [_table(name, i, _columns(run) if len(tables) == 1 else 0) for name, i in tables.items()]
    fusion = str(run.arms.get(run.proposed, {}).get("fusion") or "")
    if len(run.inputs(run.proposed)) > 1 and fusion:
        joins = {"concat": "joined end to end", "gated": "weighted by a gate over those present (Arevalo 2017)"}
        parts.append(
            f"The embeddings of {joined(list(run.inputs(run.proposed)))} were {joins.get(fusion, 'joined')} before "
            "the head (fusion)."
        )
    drop = _modality_dropout(run)
    if drop:
        parts.append(
            f"In training each patient lost each input with probability {drop:g}, never all of them (modality "
            "dropout), so that a patient without one still gets an answer."
        )
    if run.altered:
        parts.append(
            "What each input is worth was measured on the same networks by mixing it among the patients of a test "
            "fold and by taking it away."
        )
    return " ".join(parts)


def _columns(run: Run) -> int:
    return len(run.cohort.get("tests") or [])


def _table(name: str, section: dict[str, Any], columns: int) -> str:
    """Say how one table was read and prepared."""
    held = f" held {columns} columns" if columns else " was read strictly"
    near = f"the {section.get('neighbours', '?')} nearest neighbours"
    screen = section.get("screen")
    kept = f"; the {screen} columns with the smallest p there were kept" if screen else ""
    return (
        f"The table “{name}”{held}; a unit other than the declared one was converted by an explicit list or refused. "
        "Within each fold, from its training part alone, numbers were scaled and missing values imputed by "
        f"{near if section.get('imputation') == 'knn' else 'the median'}{kept}; a second channel told the network "
        "which values were observed."
    )


def _modality_dropout(run: Run) -> float:
    """Return the modality dropout of the study file; 0 where it says none."""
    try:
        value = (tomllib.loads(run.study).get("network") or {}).get("modality_dropout", 0.0)
    except (tomllib.TOMLDecodeError, AttributeError):
        return 0.0
    return float(value) if isinstance(value, int | float) else 0.0


def _further(run: Run) -> str:
    """Say how groups, subgroups, sample size and sets of answers were computed."""
    text = ""
    if run.cohort.get("tests"):
        text += "Groups were compared variable by variable, with p adjusted over all of them (Benjamini 1995); this "
        text += "described the cohort and selected nothing. "
    if run.subgroups:
        text += "Subgroups were analysed with the same predictions, and the gaps between the outermost levels with "
        text += "intervals from the same draws of patients. "
    if (run.sample_size or {}).get("riley"):
        text += "The sample size was set beside the criteria of Riley 2020. "
    if run.conformal.get("classes"):
        text += (
            "Sets of answers were made by class-conditional split conformal prediction (Vovk 2012) from out-of-fold "
        )
        text += "probabilities, and their coverage measured on folds that had not made them. "
    return text.strip()


def _readers(run: Run) -> str:
    """Say how people were compared with the model."""
    held = places(run)
    if not held:
        return ""
    study = next(iter(held.values())).readers
    n, cases = len(study.get("readers") or []), study.get("cases") or {}
    text = (
        f"{count(n, 'reader')} rated the cases; those that all had rated ({cases.get('complete', '?')}) were compared. "
    )
    text += "The model was set beside the mean of the readers by the single-treatment analysis of Obuchowski and "
    text += "Rockette (Obuchowski 1995) with the degrees of freedom of Hillis 2007, and beside each reader by a paired "
    text += "DeLong test, adjusted by Holm 1979. "
    if study.get("between"):
        text += "Two ways of reading were compared by the same analysis. "
    if any((way.get("agreement") or {}).get("icc") for way in ways(_first_readers(run))):
        text += "Agreement is given as intraclass correlations (McGraw 1996)."
    return text.strip()


def _first_readers(run: Run) -> Run:
    """Return the folder whose reader study is told first."""
    return next(iter(places(run).values()))


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
    opened = [f"the {opened_name(o)} at {o.get('when', '?')}" for o in run.facts.get("opened") or []]
    after = ", after all operating points had been written" if run.operating_points and not run.external else ""
    text += f"Opened{after}: {joined(opened)}." if opened else ""
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
    if run.explanations.get("modalities"):
        text += "What moved a probability was divided among the inputs by exact Shapley values (Shapley 1953) in "
        text += "log-odds. "
    if run.explanations.get("importance"):
        text += (
            "It was divided among the columns of a table by integrated gradients (Sundararajan 2017) from a patient "
        )
        text += "with the median of every value; how alike the folds rank the columns is reported. "
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
