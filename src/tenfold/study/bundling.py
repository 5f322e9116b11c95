"""From a fitted arm to the bundle that a hospital is given.

It must not know how the arm was fitted or evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tenfold.bundle.save import Answer, Member, save_bundle
from tenfold.config import ImageInput, TableInput
from tenfold.modalities.connectome import ConnectomePreparation
from tenfold.report.model_card import model_card
from tenfold.study.arms import FittedArm
from tenfold.study.bench import Bench, preparation
from tenfold.study.handover import examples, facts_for_serving, references
from tenfold.study.network_arm import FoldNetworks
from tenfold.types import PredictionSets


def write_bundle(
    folder: Path,
    bench: Bench,
    arms: Mapping[str, FittedArm],
    networks: FoldNetworks,
    run: Mapping[str, Any],
    evaluation: Mapping[str, Mapping[str, Any]],
    classes: Mapping[str, Mapping[str, Any]],
    conformal: Mapping[str, PredictionSets],
    permutations: Mapping[str, Any],
) -> str:
    """Write the models of all folds as one predictor.

    Args:
        folder: Where; absent or empty.
        bench: The study's cohort and folds.
        arms: The proposed arm, as each target sees it.
        networks: Its networks.
        run: What run.json holds.
        evaluation: Metrics by target and arm, on out-of-fold predictions.
        classes: What classes.json holds.
        conformal: Prediction sets by target.
        permutations: What permutations.json holds.

    Returns:
        The bundle's digest.
    """
    arm, spec = arms[bench.target], networks.build(0).spec
    members = []
    for k, (split, result) in enumerate(zip(bench.splits, networks.folds, strict=True)):
        own_spec, fitted = networks.build(k).spec, networks.fitted[k]
        members.append(
            Member(
                f"fold-{split.repeat}-{split.fold}",
                result.state_dict(),
                {target: own.calibrations[k] for target, own in arms.items()},
                {name: prepared.state() for name, prepared in fitted.items()},
                {name: p.arrays() for name, p in fitted.items() if isinstance(p, ConnectomePreparation)},
                None if own_spec == spec else own_spec,
            )
        )
    own_evaluation = evaluation[bench.target]
    facts = {
        key: run[key] for key in ("title", "system", "preset", "seed", "started", "versions", "hashes", "simulated")
    }
    facts |= {
        "arm": arm.name,
        "target_column": bench.outcome.target.column,
        "input_columns": {n: s.column or n for n, s in arm.sections.items() if not isinstance(s, TableInput)},
        "n_patients": len(set(bench.cohort.patient.tolist())),
        "n_cases": len(bench.cohort),
        "prevalence": float((bench.labels.values[bench.labels.known] == bench.labels.positive).mean()),
        "evaluation": own_evaluation[arm.name],
        "heat_map_layer": bench.config.explain.layer,
        "without": {
            name: own_evaluation[f"{arm.name}, without {name}"]["auc"]
            for name in arm.sections
            if f"{arm.name}, without {name}" in own_evaluation
        },
    }
    facts |= facts_for_serving(bench, arms, evaluation, classes)
    return save_bundle(
        folder,
        members=members,
        network_spec=spec,
        answers=[
            Answer(
                target,
                outcome.labels.classes,
                outcome.labels.positive,
                arms[target].points[(arm.name, -1, -1)],
                conformal.get(target),
                asdict(outcome.target),
            )
            for target, outcome in bench.outcomes.items()
        ],
        preparations={
            n: preparation(s, bench.cohort, s.column or n).state()
            for n, s in arm.sections.items()
            if isinstance(s, ImageInput)
        },
        model_card=model_card(run, evaluation, permutations, classes),
        facts=facts,
        training_patients=bench.cohort.patient.tolist(),
        training_images=[h for cases in bench.hashes.values() for hashes in cases for h in hashes],
        views=bench.config.augment.test_time,
        references=references(bench, arm, networks),
        examples=examples(bench, arm),
    )
