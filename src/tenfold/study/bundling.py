"""From a fitted arm to the bundle that a hospital is given.

It must not know how the arm was fitted or evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tenfold.bundle.save import Member, save_bundle
from tenfold.config import ImageInput
from tenfold.report.model_card import model_card
from tenfold.study.arms import FittedArm
from tenfold.study.bench import Bench, preparation
from tenfold.study.network_arm import FoldNetworks
from tenfold.types import PredictionSets


def write_bundle(
    folder: Path,
    bench: Bench,
    arm: FittedArm,
    networks: FoldNetworks,
    run: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    conformal: PredictionSets | None,
) -> str:
    """Write the models of all folds as one predictor.

    Args:
        folder: Where; absent or empty.
        bench: The study's cohort and folds.
        arm: The proposed arm.
        networks: Its networks.
        run: What run.json holds.
        evaluation: Metrics by arm, on out-of-fold predictions.
        conformal: Prediction sets, where there are patients enough for them.

    Returns:
        The bundle's digest.
    """
    spec = networks.build(0).spec
    members = []
    for k, (split, result, calibration) in enumerate(zip(bench.splits, networks.folds, arm.calibrations, strict=True)):
        own_spec = networks.build(k).spec
        members.append(
            Member(
                f"fold-{split.repeat}-{split.fold}",
                result.state_dict(),
                calibration,
                {name: fitted.state() for name, fitted in networks.tables[k].items()},
                None if own_spec == spec else own_spec,
            )
        )
    facts = {
        key: run[key] for key in ("title", "system", "preset", "seed", "started", "versions", "hashes", "simulated")
    }
    facts |= {
        "arm": arm.name,
        "target_column": bench.config.target.column,
        "input_columns": {name: s.column or name for name, s in arm.sections.items() if isinstance(s, ImageInput)},
        "n_patients": len(set(bench.cohort.patient.tolist())),
        "n_cases": len(bench.cohort),
        "prevalence": float((bench.label_index == 1).mean()),
        "evaluation": evaluation[arm.name],
        "heat_map_layer": bench.config.explain.layer,
        "without": {
            name: evaluation[f"{arm.name}, without {name}"]["auc"]
            for name in arm.sections
            if f"{arm.name}, without {name}" in evaluation
        },
    }
    return save_bundle(
        folder,
        members=members,
        network_spec=spec,
        target=bench.target,
        classes=bench.labels.classes,
        positive=bench.labels.positive,
        preparations={n: preparation(s).state() for n, s in arm.sections.items() if isinstance(s, ImageInput)},
        operating_point=arm.points[(arm.name, -1, -1)],
        model_card=model_card(dict(run), {bench.target: dict(evaluation)}),
        facts=facts,
        training_patients=bench.cohort.patient.tolist(),
        training_images=[h for hashes in bench.hashes.values() for h in hashes if h],
        conformal=conformal,
        views=bench.config.augment.test_time,
    )
