"""What can be told from chance, a target at a time, in plain words.

It must not know HTML, nor compute a test: it reads intervals and the p of permuted labels.
"""

from __future__ import annotations

from dataclasses import dataclass

from tenfold.report.inputs import difference
from tenfold.report.load import Run
from tenfold.report.words import arm_name, count, interval, joined, number, p_value, target_name, versus

LEVEL = 0.05


@dataclass(frozen=True)
class Verdict:
    """Whether a model's answers can be told from chance, and why.

    Attributes:
        told: True where both the interval and the permutations say so; None where nothing was measured.
        why: The AUC, its interval, and the p of permuted labels, in words.
    """

    told: bool | None
    why: str


def permuted(run: Run, arm: str = "") -> float | None:
    """Return the p of permuted labels of an arm, the proposed one if none is named; None where none was computed."""
    p = (run.permutations.get(arm or run.proposed) or {}).get("p")
    return float(p) if isinstance(p, int | float) else None


def verdict(run: Run) -> Verdict:
    """Judge the proposed arm on one target: its interval must lie above 0.5, and p of permuted labels below 0.05."""
    auc = run.estimates(run.proposed).get("auc")
    if auc is None:
        return Verdict(None, "no AUC was estimated")
    p = permuted(run)
    if auc.low != auc.low or auc.high != auc.high:
        return Verdict(None if p is None else p < LEVEL, f"the AUC of {number(auc.value)} has no interval{_also(p)}")
    where = "contains" if auc.low <= 0.5 <= auc.high else "lies above" if auc.low > 0.5 else "lies below"
    why = f"the interval of its AUC of {number(auc.value)}, {interval(auc)}, {where} 0.5{_also(p)}"
    return Verdict(auc.low > 0.5 and (p is None or p < LEVEL), why)


def _also(p: float | None) -> str:
    return "" if p is None else f", and with permuted labels p {_p(p)}"


def _p(p: float) -> str:
    text = p_value(p)
    return text if text.startswith("<") else f"= {text}"


def sentence(run: Run) -> str:
    """Say whether the answers on one target can be told from chance, and what that does not mean."""
    found = verdict(run)
    name = target_name(run.target)
    subject = f"{name[:1].upper()}{name[1:]}" if name else "The outcome"
    subject += f" ({versus(run)})" if versus(run) else ""
    if found.told is None:
        return f"{subject}: whether the model can be told from chance is not known ({found.why})."
    if found.told:
        return f"{subject} can be told from chance: {found.why}."
    return (
        f"{subject} cannot be told from chance by these data: {found.why}. Do not use the model for it. That is no "
        f"proof that nothing is there{_people(run)}."
    )


def _people(run: Run) -> str:
    """Say how few there were."""
    t = run.facts.get("target") or {}
    if isinstance(t.get("known"), int) and isinstance(t.get("positives"), int):
        return f": {count(t['known'], 'patient')}, of whom {t['positives']} {run.positive or 'positive'}, tell little"
    auc = run.estimates(run.proposed).get("auc")
    return f": {count(auc.n, 'patient')} may be too few" if auc else ""


def sentences(run: Run) -> list[str]:
    """Say it of each target; of a single one only where it cannot be told from chance, or labels were permuted."""
    if run.several:
        return [sentence(view) for view in run.each]
    return [sentence(run)] if verdict(run).told is False or permuted(run) is not None else []


def not_permuted(run: Run) -> list[str]:
    """Say why labels were not permuted, where it was asked for."""
    held = run.permutations.get(run.proposed) or {}
    return [f"The labels were {held['method']}."] if held.get("method") and permuted(run) is None else []


def untold(run: Run) -> list[str]:
    """Return the targets that cannot be told from chance."""
    return [target_name(view.target) for view in run.each if verdict(view).told is False]


def lead(run: Run) -> str:
    """Say of a run with several targets, in one sentence, on which of them the model can be told from chance."""
    told = [target_name(view.target) for view in run.each if verdict(view).told]
    bad = untold(run)
    arm = arm_name(run.proposed)
    parts = [f"did better than chance on {joined(told)}"] if told else []
    parts += [f"cannot be told from chance on {joined(bad)}"] if bad else []
    rest = len(run.each) - len(told) - len(bad)
    parts += [f"has no AUC with an interval for {count(rest, 'outcome')}"] if rest else []
    return f"Asked for {len(run.each)} outcomes, the {arm} model {joined(parts)}."


def gain_sentence(run: Run) -> str:
    """Say over which arms a gain of the proposed one is shown, and over which it is not."""
    found = {arm: held[0] for arm in run.arms if arm != run.proposed and (held := difference(run, arm)) is not None}
    if not found:
        return ""
    better = [arm_name(a) for a, e in found.items() if e.low > 0]
    worse = [arm_name(a) for a, e in found.items() if e.high < 0]
    open_ = [arm_name(a) for a, e in found.items() if not (e.low > 0 or e.high < 0)]
    name = target_name(run.target)
    parts = [f"better than {joined(better)}"] if better else []
    parts += [f"worse than {joined(worse)}"] if worse else []
    shown = f"the {arm_name(run.proposed)} model is {' and '.join(parts)} on the same patients" if parts else ""
    rest = f"no difference is shown from {joined(open_)}" if open_ else ""
    return f"{name[:1].upper()}{name[1:]}: {'; '.join(p for p in (shown, rest) if p)}."
