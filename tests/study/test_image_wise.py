"""Folds by picture, as the published study had them: how much better they make a model look than folds by patient.

Everything but the column `patient` is the same: the pictures, the model, the division into folds. Where every picture
counts as a patient, a patient's other pictures are trained on, and the nearest neighbours find them: plane, speckle and
frame differ, but it is the same node. Taking those pictures out of the training part again takes the gain away: it
came from nowhere else.

Measured on six cohorts of these sizes: 0.56 by patient, 0.82 by picture; the gap has a mean of 0.26, a standard
deviation of 0.04 and a minimum of 0.20. Without the patients' own pictures it is 0.00, standard deviation 0.02.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax
from tests.study_files import Rows, read_rows, write_rows

from tenfold.cohort.manifest import Cohort
from tenfold.cohort.split import make_splits
from tenfold.modalities.image import ImagePreparation, read_image
from tenfold.modalities.ultrasound import read_layouts
from tenfold.simulate.lymphnode import simulate
from tenfold.simulate.lymphnode_law import CLASSES, figures
from tenfold.training.classical import fit_classical

VIEW, SIZE, FOLDS, NEIGHBOURS = "b_mode", 16, 5, 3
SEEDS = (0, 1)
By = Literal["patient", "picture", "picture, others' only"]
OTHERS: By = "picture, others' only"


def drawn(folder: Path, seed: int) -> Path:
    """Sixty patients with up to eight pictures of each view."""
    simulate(folder, patients=60, seed=seed, size=48, pictures=8, missing_views=0.0)
    return folder


def features(folder: Path, rows: Rows) -> NDArray[np.float64]:
    """Pixels of what lies inside the region of the screen: what is written about it names the patient."""
    layouts = tuple(layout for layout in read_layouts(folder / "regions.csv") if layout.view == VIEW)
    prepared = ImagePreparation(size=SIZE, layouts=layouts, masked=True)
    found = []
    for row in rows:
        reading = read_image(folder / row["path"])
        found.append(prepared.apply(replace(reading, facts={**reading.facts, "site": row["site"]})).ravel() / 255)
    return np.array(found)


def area(folder: Path, rows: Rows, x: NDArray[np.float64], by: By) -> float:
    """Macro one-vs-one AUC out of fold, where patients or single pictures are divided."""
    own = [{**row, "patient": row["patient"] if by == "patient" else row["path"]} for row in rows]
    write_rows(folder / "pictures.csv", [{**row, "case": row["path"]} for row in own])
    cohort = Cohort.read(folder / "pictures.csv", image_columns=[])
    label = cohort.labels("diagnosis")
    which = np.array([CLASSES.index(name) for name in label.tolist()])
    _, splits = make_splits(cohort, label, folds=FOLDS, inner=0.1, seed=1)
    place = {case: i for i, case in enumerate(cohort.case.tolist())}
    whose = np.array([row["patient"] for row in rows])
    p = np.zeros((len(which), len(CLASSES)))
    for split in splits:
        train, test = (np.array([place[case] for case in cases]) for cases in (split.train + split.inner, split.test))
        parts = [test]
        if by == OTHERS:
            parts = [test[whose[test] == patient] for patient in np.unique(whose[test])]
        for part in parts:
            rest = train if by != OTHERS else train[whose[train] != whose[part][0]]
            odds = [
                fit_classical(
                    "knn", x[rest], which[rest] == k, cohort.patient[rest], seed=1, search=[{"k": NEIGHBOURS}]
                ).scores(x[part])[:, 1]
                for k in range(len(CLASSES))
            ]
            p[part] = softmax(-np.logaddexp(0, -np.stack(odds, axis=1)), axis=1)
    return figures(p, which)["macro_ovo_auc"]


@pytest.fixture(scope="module")
def areas(tmp_path_factory: pytest.TempPathFactory) -> dict[By, NDArray[np.float64]]:
    """By what is divided, the AUC of each cohort."""
    found: dict[By, list[float]] = {}
    divided: tuple[By, ...] = ("patient", "picture")
    for seed in SEEDS:
        folder = drawn(tmp_path_factory.mktemp("image-wise") / str(seed), seed)
        of = {row["case"]: row for row in read_rows(folder / "cohort.csv")}
        rows = [
            {**row, **{key: of[row["case"]][key] for key in ("patient", "site", "diagnosis")}}
            for row in read_rows(folder / "images.csv")
            if row["view"] == VIEW
        ]
        x = features(folder, rows)
        for by in divided:
            found.setdefault(by, []).append(area(folder, rows, x, by))
        if seed == SEEDS[0]:
            found[OTHERS] = [area(folder, rows, x, OTHERS)]
    return {by: np.array(values) for by, values in found.items()}


def test_folds_by_picture_inflate_the_auc(areas: dict[By, NDArray[np.float64]]) -> None:
    gap = areas["picture"] - areas["patient"]
    assert gap.min() > 0.12
    assert gap.mean() > 0.15


def test_it_is_the_patients_own_pictures_that_inflate_it(areas: dict[By, NDArray[np.float64]]) -> None:
    assert areas["picture"][0] - areas[OTHERS][0] > 0.12
    assert abs(areas[OTHERS][0] - areas["patient"][0]) < 0.08
