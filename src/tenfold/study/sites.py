"""Each hospital left out in turn, beside the folds: how the proposed arm does where it has never been.

It must not know how an arm is fitted, nor how results are drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tenfold.cohort.split import make_splits
from tenfold.stats.classes import evaluate_classes
from tenfold.stats.evaluate import evaluate
from tenfold.study.arms import FittedArm
from tenfold.study.bench import Bench
from tenfold.study.network_arm import Sources, fit_networks
from tenfold.study.preparing import kept_together
from tenfold.types import PredictionTable


def leave_sites_out(bench: Bench, sources: Sources, groups: Mapping[str, str]) -> dict[str, FittedArm]:
    """Fit the first arm once for each site, without its patients, and predict them.

    Args:
        bench: The study's cohort; its folds are left aside, and so are the cases kept for the end.
        sources: The cohorts of the source stages.
        groups: Patient -> group that no split divides.

    Returns:
        The arm as each target sees it.

    Raises:
        Refusal: There are too few sites, or a site's patients cannot be spared.
    """
    config = bench.config
    aside = set(bench.holdout)
    cohort = bench.cohort.select([case for case in bench.cohort.case.tolist() if case not in aside])
    rows = bench.rows(cohort.case.tolist())
    _, splits = make_splits(
        cohort,
        *(outcome.labels.values[rows] for outcome in bench.outcomes.values()),
        folds=config.validation.folds,
        inner=config.validation.inner,
        leave_one_site_out=True,
        groups=kept_together(cohort, groups, config.validation.family),
        seed=config.seed,
    )
    arm = config.arms[0].model_copy(update={"name": f"{config.arms[0].name}, each site left out"})
    fitted, _ = fit_networks(replace(bench, splits=splits, holdout=()), arm, sources, alter=False)
    return fitted


def described_sites(fitted: Mapping[str, FittedArm], *, bootstraps: int, seed: int) -> dict[str, Any]:
    """Return what sites.json holds: by target, the figures of every site and of all together."""
    content: dict[str, Any] = {"by": "leave_one_site_out", "overall": {}}
    for target, arm in fitted.items():
        table = arm.predictions
        content["overall"][target] = _figures(table, arm, bootstraps, seed)
        content[target] = []
        for site in sorted(set(table.site.tolist())):
            own = table.where(table.site == site)
            known = own.label != ""
            content[target].append(
                {
                    "site": site,
                    "n": len(set(own.patient[known].tolist())),
                    **_figures(own, arm, bootstraps, seed),
                }
            )
    return content


def _figures(table: PredictionTable, arm: FittedArm, bootstraps: int, seed: int) -> dict[str, Any]:
    """The headline figures of some predictions."""
    if len(table.classes) > 2:
        found = evaluate_classes(table, reference=arm.name, bootstraps=bootstraps, seed=seed)["arms"][arm.name]
        return {name: found["overall"][name] for name in ("macro_ovo_auc", "balanced_accuracy", "accuracy")}
    thresholds = {place: point.threshold for place, point in arm.points.items()}
    positive = table.classes[-1]
    own = evaluate(table, positive=positive, thresholds=thresholds, bootstraps=bootstraps, seed=seed)[arm.name]
    return {name: own[name].to_dict() for name in ("auc", "sensitivity", "specificity")}
