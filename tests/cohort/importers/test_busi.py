"""BUSI: groups of near-duplicates stand for patients, and masks are joined."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from tenfold.cohort.importers import importer
from tenfold.cohort.manifest import Cohort
from tenfold.errors import CohortError


def scan(seed: int, height: int = 96, width: int = 120) -> np.ndarray:
    rng = np.random.default_rng(seed)
    layers = sum(gaussian_filter(rng.normal(size=(height, width)), (s, 2 * s)) * s * 20 for s in (2, 4, 8))
    return np.clip(110 + layers, 0, 255).astype(np.uint8)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Six pictures; benign (2) is malignant (1) again, and normal (10) is normal (2), cut and brighter."""
    folder = tmp_path / "Dataset_BUSI_with_GT"
    for name in ("benign", "malignant", "normal"):
        (folder / name).mkdir(parents=True)
    twice, thrice = scan(1), scan(2)
    pictures = {
        "benign (1)": scan(0),
        "benign (2)": twice,
        "malignant (1)": twice[1:-1, 1:-1],
        "normal (2)": thrice,
        "normal (10)": np.clip(thrice[2:, :-1] * 1.08, 0, 255).astype(np.uint8),
        "normal (3)": scan(3),
    }
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(folder / name.split()[0] / f"{name}.png")
    mask = np.zeros((96, 120), np.uint8)
    for k, suffix in enumerate(("_mask", "_mask_1")):
        own = mask.copy()
        own[10 + 40 * k : 30 + 40 * k, 20:50] = 255
        Image.fromarray(own > 0).save(folder / "benign" / f"benign (1){suffix}.png")
    Image.fromarray(mask > 0).save(folder / "normal" / "normal (2)_mask.png")
    return folder


def test_near_duplicates_are_one_patient_and_masks_one_mask(source: Path, tmp_path: Path) -> None:
    made = importer("busi")(source, tmp_path / "out")
    cohort = Cohort.read(made.cohort)
    assert cohort.columns == ("case", "patient", "ultrasound", "lesion_mask", "diagnosis")
    assert dict(zip(cohort.case.tolist(), cohort.patient.tolist(), strict=True)) == {
        "benign-001": "group-benign-001",
        "benign-002": "group-benign-002",
        "malignant-001": "group-benign-002",
        "normal-002": "group-normal-002",
        "normal-003": "group-normal-003",
        "normal-010": "group-normal-002",
    }
    assert cohort.labels("diagnosis").tolist()[2:4] == ["malignant", "normal"]
    masks = {path.name: np.asarray(Image.open(path)) for path in (made.cohort.parent / "images" / "masks").iterdir()}
    assert list(masks) == ["benign-001.png"]
    assert int((masks["benign-001.png"] == 255).sum()) == 2 * 20 * 30
    findings = {finding.check: finding for finding in made.notes}
    assert "6 pictures were put into 4 groups, of which 2 hold several" in findings["patients"].message
    assert findings["patients"].severity == "warning"
    assert findings["label_conflict"].cases == ("benign-002", "malignant-001")
    assert made.study == {
        "target": "diagnosis",
        "classes": ["benign", "malignant", "normal"],
        "positive": "malignant",
        "images": {"ultrasound": "ultrasound"},
        "masks": "lesion_mask",
    }


def test_without_masks_there_is_no_column_of_them(source: Path, tmp_path: Path) -> None:
    for path in source.glob("*/*_mask*.png"):
        path.unlink()
    made = importer("busi")(source, tmp_path / "out")
    assert "lesion_mask" not in Cohort.read(made.cohort).columns
    assert "masks" not in made.study


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("normal/scan.png", "'scan.png' is not of this layout"),
        ("normal/benign (7).png", "'benign \\(7\\).png' is not of this layout"),
        ("normal/normal (8)_mask.png", "a mask without its picture"),
        ("normal/normal (003).png", "two pictures of number 3"),
        ("benign/benign (2)_mask.png", "the mask measures 5 x 4 pixels, its picture 120 x 96"),
    ],
)
def test_files_that_do_not_belong(source: Path, tmp_path: Path, file: str, says: str) -> None:
    Image.fromarray(np.full((4, 5), 255, np.uint8)).save(source / file)
    with pytest.raises(CohortError, match=says):
        importer("busi")(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_is_missing(source: Path, tmp_path: Path) -> None:
    (source / "normal").rename(source / "healthy")
    with pytest.raises(CohortError, match="no folder 'normal'"):
        importer("busi")(source, tmp_path / "out")


@pytest.mark.shared
def test_a_part_of_the_real_set(shared_data: Path, tmp_path: Path) -> None:
    for name, numbers in {"benign": range(395, 438), "malignant": range(90, 150), "normal": range(1, 41)}.items():
        (tmp_path / "busi" / name).mkdir(parents=True)
        for number in numbers:
            file = f"{name} ({number}).png"
            (tmp_path / "busi" / name / file).symlink_to(shared_data / "busi" / name / file)
    cohort = Cohort.read(importer("busi")(tmp_path / "busi", tmp_path / "out").cohort)
    assert Counter(cohort.labels("diagnosis").tolist()) == {"benign": 43, "malignant": 60, "normal": 40}
    groups = Counter(cohort.patient.tolist())
    assert 90 < len(groups) < 135
    assert max(groups.values()) <= 5
    twin = dict(zip(cohort.case.tolist(), cohort.patient.tolist(), strict=True))
    assert twin["benign-433"] == twin["malignant-145"]
    assert twin["benign-437"] == twin["normal-034"]
