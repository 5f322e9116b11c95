"""The methods paragraph in words, past tense, ready to paste, with the papers its methods come from.

It must not know HTML, nor claim a step that the run's files do not show.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import Any

from tenfold.report import classes, connectomes, grid, sites
from tenfold.report.load import Run, targets_of
from tenfold.report.readers import places, ways
from tenfold.report.words import (
    arm_name,
    count,
    division,
    everybody,
    flow_text,
    joined,
    opened_name,
    pictured,
    rule,
    score_cut,
    target_name,
    task,
    versus,
)


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
        "Hand & Till 2001",
        "Hand DJ, Till RJ. A simple generalisation of the area under the ROC curve for multiple class classification "
        "problems. Machine Learning 2001;45:171-186.",
        "10.1023/A:1010920819831",
    ),
    Reference(
        "Van Calster 2025",
        "Van Calster B, Collins GS, Vickers AJ, et al. Performance evaluation of predictive AI models to support "
        "medical decisions. Lancet Digital Health 2025; arXiv:2412.10288.",
    ),
    Reference(
        "Phipson & Smyth 2010",
        "Phipson B, Smyth GK. Permutation P-values should never be zero: calculating exact P-values when permutations "
        "are randomly drawn. Statistical Applications in Genetics and Molecular Biology 2010;9:39.",
        "10.2202/1544-6115.1585",
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
        "Johnson 2007",
        "Johnson WE, Li C, Rabinovic A. Adjusting batch effects in microarray expression data using empirical Bayes "
        "methods. Biostatistics 2007;8:118-127.",
        "10.1093/biostatistics/kxj037",
    ),
    Reference(
        "Yu 2018",
        "Yu M, Linn KA, Cook PA, et al. Statistical harmonization corrects site effects in functional connectivity "
        "measurements from multi-site fMRI data. Human Brain Mapping 2018;39:4213-4227.",
        "10.1002/hbm.24241",
    ),
    Reference(
        "Varoquaux 2010",
        "Varoquaux G, Baronnet F, Kleinschmidt A, et al. Detection of brain functional-connectivity difference in "
        "post-stroke patients using group-level covariance modeling. MICCAI 2010, LNCS 6361:200-208.",
    ),
    Reference(
        "Ledoit 2004",
        "Ledoit O, Wolf M. A well-conditioned estimator for large-dimensional covariance matrices. Journal of "
        "Multivariate Analysis 2004;88:365-411.",
    ),
    Reference(
        "Frank 2001",
        "Frank E, Hall M. A simple approach to ordinal classification. ECML 2001:145-156.",
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
        *(_classes(view) for view in run.each),
        *(_grid(view) for view in run.each),
        _sites(run),
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
    chain = [stages[0] for stages in told.values()]
    return [_stage(name, stages, chain) for name, stages in told.items()]


def _stage(name: str, stages: list[dict[str, Any]], chain: list[dict[str, Any]]) -> str:
    """Say one stage, with the range of its epochs over the folds."""
    first = stages[0]
    epochs = sorted({int(s["epochs_run"]) for s in stages if isinstance(s.get("epochs_run"), int)})
    best = sorted({int(s["best_epoch"]) for s in stages if isinstance(s.get("best_epoch"), int)})
    text = f"Stage “{name}” used the cohort {first.get('cohort', '?')} ({task(first, chain)}"
    text += f"; thawed: {first['thaw']})" if "thaw" in first else ")"
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
    text = f"We analysed {everybody(run)}. " if run.cohort else ""
    if run.facts.get("simulated"):
        text = text.replace("We analysed", "We analysed a simulated cohort of")
    flow = flow_text(run)
    text += f"Selection went as follows: {flow}. " if flow else ""
    return text + (_outcomes(run) if run.several else _outcome(run))


def _outcome(run: Run) -> str:
    """Say what the one outcome is."""
    target = run.facts.get("target") or {}
    if not run.classes:
        return ""
    named = f"The outcome, {target.get('name', '?')} (column “{target.get('column', '?')}”), "
    if score_cut(target):
        return f"{named}was learned as a score; {score_cut(target)} counted as positive ({run.positive})."
    text = f"{named}had the classes {joined(run.classes)}"
    if versus(run):
        return f"{text}; all were told apart, and {versus(run)} was judged as a yes or no besides."
    return text + (f", of which {run.positive} counted as positive." if run.positive else ".")


def _outcomes(run: Run) -> str:
    """Say what each of several outcomes is, how it was learned, and what happened to those of whom one is unknown."""
    told = []
    for target in targets_of(run.facts):
        named = f"{target_name(str(target.get('name', '?')))} (column “{target.get('column', '?')}”"
        kind = target.get("kind")
        if kind == "score":
            told.append(f"{named}, learned as a score; positive: {score_cut(target)})")
        elif kind == "ordinal":
            told.append(f"{named}, learned as ordered levels (Frank 2001); positive: {target.get('positive')})")
        else:
            levels = target.get("levels") or []
            more = f", learned as {len(levels)} classes" if len(levels) > 2 else ""
            told.append(f"{named}{more}; positive: {target.get('positive') or 'none'})")
    text = f"The outcomes, learned together by one network with one output each, were {'; '.join(told)}. "
    together = " and, of three classes or more, for all classes together" if run.all_classes else ""
    text += f"Each was evaluated for itself as a yes or no{together}. A patient of whom an outcome was not known was "
    return text + "kept: that outcome was left out of the loss and of its own evaluation."


def _inputs(run: Run) -> str:
    """Say what went in, what was done where values were missing, and how inputs were joined."""
    held = run.facts.get("inputs") or {}
    tables = {name: i for name, i in held.items() if i.get("kind") == "table"}
    parts = [_table(name, i, _columns(run) if len(tables) == 1 else 0) for name, i in tables.items()]
    parts += [connectomes.prepared(name, i) for name, i in connectomes.of_kind(run.facts).items()]
    fusion = str(run.arms.get(run.proposed, {}).get("fusion") or "")
    if len(run.inputs(run.proposed)) > 1 and fusion:
        joins = {
            "concat": "joined end to end",
            "gated": "weighted by a gate over those present (Arevalo 2017)",
            "mean": "mapped to one length and averaged over those present",
        }
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
    left_out = run.elsewhere_in_grid & set(run.arms)
    told = [arm for arm in run.arms if arm != run.proposed and arm not in left_out]
    others = [s for arm in told if (s := model_sentence(run, arm))]
    text = f"The proposed arm was {main}. " if main else ""
    text += " ".join(stage_sentences(run, run.proposed)) + " "
    text += _together(run)
    text += f"It was compared with {count(len(others), 'further arm')}: {'; '.join(others)}. " if others else ""
    text += f"{count(len(left_out), 'further arm')} were cells of the grid described below. " if left_out else ""
    failed = [
        f"{arm_name(a)} ({d.get('reason') or 'no reason recorded'})"
        for a, d in run.arms.items()
        if d.get("status") == "failed"
    ]
    text += f"These arms failed and have no results: {joined(failed)}." if failed else ""
    return text.strip()


def _together(run: Run) -> str:
    """Say where the networks of all folds were trained as one, and in which coordinates their first layer moved."""
    arms = [arm_name(arm) for arm, a in run.arms.items() if a.get("together")]
    if not arms:
        return ""
    return (
        f"The networks of all folds were trained together as one stacked model (arms: {joined(arms)}); "
        "the update of their first layer was kept in the span of the training patients' connectomes (the same update "
        "for gradient descent with momentum, a network of its own for AdamW), and was folded back into one weight an "
        "edge afterwards. "
    )


def _validation(run: Run) -> str:
    """Say how the cohort was divided and what was decided where."""
    text = f"{division(run)} "
    text += "Folds were dealt by all outcomes together. " if run.several and not run.external else ""
    text += f"{rule(run)} "
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
    text += (
        "Predicted and measured scores were compared by Pearson's correlation. "
        if any("pearson_r" in view.estimates(view.proposed) for view in run.each)
        else ""
    )
    draws = {int(n) for v in run.each if isinstance(n := (v.permutations.get(v.proposed) or {}).get("n"), int)}
    if draws:
        text += (
            f"AUCs were set beside those of {joined([f'{n:,}' for n in sorted(draws)])} permutations of the labels; p "
        )
        text += f"is the share of these that did as well{_how_permuted(run)}. "
    shares = [f"{share:.0%}" for share, _, _ in run.learned() if share < 1]
    if shares:
        text += (
            f"The {arm_name(run.proposed)} model was also fitted to {joined(shares)} of each fold's training patients, "
            "stratified by all outcomes, with preparations fitted to them alone. "
        )
    if run.several:
        text += "Outcomes were judged one by one, without adjustment for their number. "
    pairs = run.compared()
    ways = list(dict.fromkeys(str(c.get("method")) for c in pairs if c.get("method")))
    text += f"Arms were compared on the same patients ({'; '.join(ways)})" if pairs else ""
    if any(c.get("p_holm") is not None for c in pairs):
        text += ", with p values adjusted by Holm 1979"
    return text.strip().rstrip(".") + "."


def _classes(run: Run) -> str:
    """Say how three classes or more were judged together."""
    found = classes.estimates(run, run.proposed)
    if classes.MACRO not in found:
        return ""
    about = f" of {target_name(run.target)}" if run.several else ""
    ways = list(dict.fromkeys(e.method for e in found.values() if e.method))
    text = (
        f"The {len(classes.names(run))} classes{about} ({joined(classes.names(run))}) were judged together by the "
        "macro-averaged one-vs-one AUC: the mean over all pairs of classes of the AUC among the cases of that pair, "
        "both directions averaged (Hand & Till 2001). A case was decided for its likeliest class; each class was set "
        "against the rest for its own AUC, sensitivity, specificity, predictive values, calibration and net benefit at "
        f"its own prevalence. Intervals: {'; '.join(ways)}. "
    )
    compared = [c for c in classes.of(run).get("comparisons") or [] if c.get("method")]
    if compared:
        tests = list(dict.fromkeys(str(c["method"]) for c in compared))
        text += f"Arms were compared in these figures on the same patients ({'; '.join(tests)})"
        adjusted = any(c.get("p_adjusted") is not None for c in compared)
        text += ", with p values adjusted by Holm 1979." if adjusted else "."
    return text.strip()


def _grid(run: Run) -> str:
    """Say what the grid of arms held and how its cells were tested."""
    told = grid.sentences(run)
    if not told:
        return ""
    about = f" (on {target_name(run.target)})" if run.several else ""
    ways = list(dict.fromkeys(t.method for t in grid.tests(run)))
    text = f"An ablation grid{about} had {told[0]}"
    if ways:
        questions = list(dict.fromkeys(t.question for t in grid.tests(run)))
        text += f" Paired tests on the same patients asked about {joined(questions)} ({'; '.join(ways)})."
    without = grid.failed(run)
    return text + (f" Without figures: {' '.join(without)}" if without else "")


def _sites(run: Run) -> str:
    """Say that each hospital was left out in turn."""
    if not any(sites.table(view) for view in run.each):
        return ""
    return (
        f"Beside the grouped folds the {arm_name(run.proposed)} model was fitted again with one hospital left out at a "
        "time and tried on the patients of that hospital, every decision made in the others."
    )


def _how_permuted(run: Run) -> str:
    """Say how labels were permuted, where the run says it."""
    ways = (str((v.permutations.get(v.proposed) or {}).get("method") or "") for v in run.each)
    found = [way for way in dict.fromkeys(ways) if way]
    return f" ({'; '.join(found)})" if found else ""


def _explanations(run: Run) -> str:
    """Say how the answers were explained, and the heat maps checked."""
    held = connectomes.edges(run)
    ways = list(dict.fromkeys(s for e in held for s in e.sentences if s.startswith("Method: ")))
    text = "".join(f"Edges that moved the answers were found so: {way.removeprefix('Method: ')} " for way in ways)
    return f"{text}{_cases(run)}".strip()


def _cases(run: Run) -> str:
    """Say how single cases were explained."""
    if not run.explanations.get("cases"):
        return ""
    sanity = run.explanations.get("sanity") or {}
    text = "Heat maps were made by Grad-CAM (Selvaraju 2017). " if pictured(run) else ""
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
