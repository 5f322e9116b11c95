"""From a fitted arm to the bundle that a hospital is given.

It must not know how the arm was fitted or evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tenfold.bundle.save import Member, save_bundle
from tenfold.report.model_card import model_card
from tenfold.study.arms import Bench, FittedArm, preparation


def write_bundle(
    folder: Path, bench: Bench, arm: FittedArm, run: Mapping[str, Any], evaluation: Mapping[str, Any]
) -> str:
    """Write the models of all folds as one predictor.

    Args:
        folder: Where; absent or empty.
        bench: The study's cohort and folds.
        arm: The proposed arm.
        run: What run.json holds.
        evaluation: Metrics by arm, on out-of-fold predictions.

    Returns:
        The bundle's digest.
    """
    members = [
        Member(f"fold-{split.repeat}-{split.fold}", result.state_dict(), calibration)
        for split, result, calibration in zip(bench.splits, arm.folds, arm.calibrations, strict=True)
    ]
    facts = {
        key: run[key] for key in ("title", "system", "preset", "seed", "started", "versions", "hashes", "simulated")
    }
    facts |= {
        "arm": arm.name,
        "target_column": bench.config.target.column,
        "input_columns": {name: section.column or name for name, section in arm.inputs.items()},
        "n_patients": len(set(bench.cohort.patient.tolist())),
        "n_cases": len(bench.cohort),
        "prevalence": float((bench.label_index == 1).mean()),
        "evaluation": evaluation[arm.name],
    }
    return save_bundle(
        folder,
        members=members,
        network_spec=arm.build().spec,
        target=bench.target,
        classes=bench.labels.classes,
        positive=bench.labels.positive,
        preparations={name: preparation(section).state() for name, section in arm.inputs.items()},
        operating_point=arm.points[(arm.name, -1, -1)],
        model_card=model_card(dict(run), {bench.target: dict(evaluation)}),
        facts=facts,
        training_patients=bench.cohort.patient.tolist(),
        training_images=[h for hashes in bench.hashes.values() for h in hashes],
        views=bench.config.augment.test_time,
    )
