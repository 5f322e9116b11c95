"""Public layouts become cohorts that stand on their own, or nothing is left behind."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tenfold.cohort.audit import audit
from tenfold.cohort.importers import IMPORTERS, importer
from tenfold.cohort.importers import common as common_module
from tenfold.cohort.manifest import Cohort
from tenfold.errors import CohortError, OutputError

Tree = Callable[..., Path]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A folder of small different pictures."""

    def do(*names: str) -> Path:
        for seed, name in enumerate(names):
            path = tmp_path / "source" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(seed).integers(0, 255, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
        return tmp_path / "source"

    return do


KERMANY = (
    "NORMAL/IM-0115-0001.jpeg",
    "NORMAL/IM-0429-0001-0002.jpeg",
    "NORMAL/NORMAL2-IM-0429-0001.jpeg",
    "PNEUMONIA/person1_bacteria_1.jpeg",
    "PNEUMONIA/person1_virus_6.jpeg",
    "PNEUMONIA/person447_virus_921_1.jpeg",
)


def test_kermany_without_parts(tree: Tree, tmp_path: Path) -> None:
    source = tree(*KERMANY)
    (source / "NORMAL" / ".DS_Store").touch()
    made = importer("kermany")(source, tmp_path / "out")
    cohort = Cohort.read(made.cohort)
    assert cohort.columns == ("case", "patient", "film", "diagnosis", "subtype")
    assert cohort.image_columns == ("film",)
    marks = {patient.split("-")[0] for patient in cohort.patient.tolist()}
    assert len(marks) == 1
    numbers = [patient.split("-")[1] for patient in cohort.patient.tolist()]
    assert dict(zip(cohort.case.tolist(), numbers, strict=True)) == {
        "IM-0115-0001": "normal0115",
        "IM-0429-0001-0002": "normal0429",
        "NORMAL2-IM-0429-0001": "normal0429",
        "person1_bacteria_1": "person0001",
        "person1_virus_6": "person0001",
        "person447_virus_921_1": "person0447",
    }
    assert cohort.labels("diagnosis").tolist() == ["normal"] * 3 + ["pneumonia"] * 3
    assert cohort.labels("subtype").tolist()[3:] == ["bacterial", "viral", "viral"]
    assert made.study["target"] == "diagnosis"
    assert made.study["positive"] == "pneumonia"
    shutil.rmtree(source)
    assert all(film.is_file() for film in cohort.files("film"))


@pytest.mark.parametrize("deeper", ["", "chest_xray/"])
def test_kermany_with_parts(tree: Tree, tmp_path: Path, deeper: str) -> None:
    source = tree(*(f"{deeper}{part}/{name}" for part in ("train", "val", "test") for name in KERMANY))
    (source / "__MACOSX").mkdir()
    cohort = Cohort.read(importer("kermany")(source, tmp_path / "out").cohort)
    assert len(cohort) == 18
    assert cohort.case[0] == "train-IM-0115-0001"
    assert sorted(set(cohort.labels("part").tolist())) == ["test", "train", "val"]
    assert len(set(cohort.patient.tolist())) == 4


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("NORMAL/person1_bacteria_1.jpeg",), "person1_bacteria_1.jpeg' in NORMAL"),
        (("PNEUMONIA/scan.png",), "scan.png' in PNEUMONIA"),
        (("A/x.png", "B/y.png"), "neither NORMAL and PNEUMONIA"),
    ],
)
def test_kermany_refusals(tree: Tree, tmp_path: Path, names: tuple[str, ...], says: str) -> None:
    with pytest.raises(CohortError, match=says):
        importer("kermany")(tree(*names), tmp_path / "out")
    assert not (tmp_path / "out").exists()


NIH_HEAD = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\n"
)


def nih(source: Path, *lines: str) -> Path:
    (source / "Data_Entry_2017.csv").write_text(NIH_HEAD + "".join(f"{line}\n" for line in lines))
    return source


def test_nih_table(tree: Tree, tmp_path: Path) -> None:
    source = nih(
        tree("images_001/images/00000001_000.png", "images_002/images/00000001_001.png", "images_002/images/x.png"),
        "00000001_000.png,Cardiomegaly|Pleural_Thickening,0,1,58,M,PA,2682,2749,0.143,0.143,",
        "00000001_001.png,No Finding,1,1,58,M,AP,2682,2749,0.143,0.143,",
        "00000002_000.png,No Finding,0,2,81,M,PA,2500,2048,0.171,0.171,",
    )
    (source / "test_list.txt").write_text("00000001_001.png\n")
    made = importer("nih")(source, tmp_path / "out")
    cohort = Cohort.read(made.cohort)
    assert cohort.patient.tolist() == ["00000001"] * 2
    assert cohort.labels("abnormal").tolist() == ["1", "0"]
    assert cohort.labels("Pleural_Thickening").tolist() == ["1", "0"]
    assert cohort.labels("Edema").tolist() == ["0", "0"]
    assert cohort.labels("age").tolist() == ["58", "58"]
    assert cohort.labels("view").tolist() == ["PA", "AP"]
    assert cohort.labels("part").tolist() == ["", "test"]
    assert len(made.study["findings"]) == 14
    assert set(made.study["findings"]) <= set(cohort.columns)
    text = " ".join(finding.message for finding in made.notes)
    assert "1 rows of Data_Entry_2017.csv have no picture" in text
    assert "1 pictures are not listed" in text


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("00000001_000.png,Edemaa,0,1,58,M,PA,1,1,1,1,", "row 2: 'Edemaa'(.|\n)*did you mean 'Edema'"),
        ("00000001_000.png,Edema,0,one,58,M,PA,1,1,1,1,", "row 2: the patient is 'one'"),
        ("00000001_000.png", "row 2: 1 cells"),
        ("00000009_000.png,Edema,0,1,58,M,PA,1,1,1,1,", "no picture to import"),
    ],
)
def test_nih_table_refusals(tree: Tree, tmp_path: Path, line: str, says: str) -> None:
    source = nih(tree("images/00000001_000.png"), line)
    with pytest.raises(CohortError, match=says):
        importer("nih")(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nih_folders(tree: Tree, tmp_path: Path) -> None:
    source = tree("0_normal/00000002_000.png", "1_abnormal/00000002_001.png", "1_abnormal/00000003_000.png")
    cohort = Cohort.read(importer("nih")(source, tmp_path / "out").cohort)
    assert cohort.patient.tolist() == ["00000002", "00000002", "00000003"]
    assert cohort.labels("abnormal").tolist() == ["0", "1", "1"]
    with pytest.raises(CohortError, match="the folders are cat"):
        importer("nih")(tree("../other/cat/a_1.png").parent / "other", tmp_path / "out2")


def test_nih_folders_refuse_a_name_without_patient(tree: Tree, tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r"'7.png' does not start with a patient"):
        importer("nih")(tree("0_normal/1_0.png", "1_abnormal/7.png"), tmp_path / "out")


def test_folders(tree: Tree, tmp_path: Path) -> None:
    source = tree("sick/p1-a.png", "sick/p1-b.png", "well/p2-a.png")
    (source / "sick" / "notes.txt").touch()
    made = importer("folders")(source, tmp_path / "out", patient=r"(?P<patient>p\d+)", target="state")
    cohort = Cohort.read(made.cohort)
    assert cohort.patient.tolist() == ["p1", "p1", "p2"]
    assert cohort.labels("state").tolist() == ["sick", "sick", "well"]
    assert made.study["classes"] == ["sick", "well"]
    assert any("notes.txt" in finding.message for finding in made.notes)


@pytest.mark.parametrize(
    ("pattern", "says"),
    [("(?P<patient>q)", "finds no patient in 'p1.png'"), ("(p)", "no group called patient"), ("(", "is wrong")],
)
def test_folders_refuse_a_pattern(tree: Tree, tmp_path: Path, pattern: str, says: str) -> None:
    with pytest.raises(CohortError, match=says):
        importer("folders")(tree("sick/p1.png"), tmp_path / "out", patient=pattern)


def test_two_pictures_of_one_name(tree: Tree, tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="'sick-p1'"):
        importer("folders")(tree("sick/p1.png", "sick/p1.jpg"), tmp_path / "out", patient="(?P<patient>.*)")


def medmnist(path: Path, *, several: int = 1, **replaced: Any) -> Path:
    rng = np.random.default_rng(0)
    arrays = {}
    for part in ("train", "val", "test"):
        arrays[f"{part}_images"] = rng.integers(0, 255, (4, 8, 8), dtype=np.uint8)
        arrays[f"{part}_labels"] = np.tile([[0], [1]], (2, several)).astype(np.uint8)
    np.savez(path, **{**arrays, **replaced})
    return path


def test_medmnist(tmp_path: Path) -> None:
    made = importer("medmnist")(medmnist(tmp_path / "x.npz"), tmp_path / "out", classes=["normal", "pneumonia"])
    cohort = Cohort.read(made.cohort)
    assert len(set(cohort.patient.tolist())) == len(cohort) == 12
    assert cohort.labels("label").tolist() == ["normal", "pneumonia"] * 6
    with np.load(tmp_path / "x.npz") as data, Image.open(cohort.files("film")[5]) as film:
        assert np.array_equal(np.asarray(film), data["val_images"][1])
    (warning,) = [finding for finding in made.notes if finding.severity == "warning"]
    assert "no patient ids" in warning.message


def test_medmnist_with_several_labels(tmp_path: Path) -> None:
    made = importer("medmnist")(medmnist(tmp_path / "x.npz", several=3), tmp_path / "out")
    assert Cohort.read(made.cohort).columns[-3:] == ("label_0", "label_1", "label_2")


def test_medmnist_refusals(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "bad.npz").write_text("no")
    with pytest.raises(CohortError, match="no MedMNIST file"):
        importer("medmnist")(tmp_path / "bad.npz", out)
    with pytest.raises(CohortError, match="no MedMNIST file"):
        importer("medmnist")(medmnist(tmp_path / "p.npz", val_labels=np.array([{}] * 4, object)), out)
    volumes = medmnist(tmp_path / "v.npz", val_images=np.zeros((4, 8, 8, 8), np.uint8))
    with pytest.raises(CohortError, match="val_images is uint8 of shape"):
        importer("medmnist")(volumes, out)
    with pytest.raises(CohortError, match="train, picture 1: label 1 has no name"):
        importer("medmnist")(medmnist(tmp_path / "x.npz"), out, classes=["normal"])
    assert not out.exists()


@pytest.mark.parametrize("name", sorted(IMPORTERS))
def test_every_importer_leaves_other_work_alone(tree: Tree, tmp_path: Path, name: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").touch()
    options = {"patient": "(?P<patient>.*)"} if name == "folders" else {}
    with pytest.raises(OutputError, match="not empty"):
        importer(name)(tree(*KERMANY), tmp_path / "out", **options)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_an_empty_out_is_used_and_links_are_made(tree: Tree, tmp_path: Path) -> None:
    source = tree(*KERMANY)
    (tmp_path / "out").mkdir()
    made = importer("kermany")(source, tmp_path / "out", hardlink=True)
    film = Cohort.read(made.cohort).files("film")[0]
    assert film.samefile(source / "NORMAL" / "IM-0115-0001.jpeg")
    assert not film.is_symlink()


def test_a_full_disk_leaves_nothing(tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tree(*KERMANY)
    count = iter(range(10))

    def full(*paths: Any) -> None:
        if next(count) == 3:
            raise OSError(28, "No space left on device")
        paths[1].write_bytes(paths[0].read_bytes())

    monkeypatch.setattr(common_module.shutil, "copyfile", full)
    with pytest.raises(OutputError, match="No space left"):
        importer("kermany")(source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_an_unknown_importer_and_a_missing_source(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="did you mean 'kermany'"):
        importer("kermani")
    with pytest.raises(CohortError, match="no such folder"):
        importer("nih")(tmp_path / "nowhere", tmp_path / "out")


@pytest.mark.shared
@pytest.mark.slow
def test_kermany_as_it_is(shared_data: Path, tmp_path: Path) -> None:
    made = importer("kermany")(shared_data / "kermany", tmp_path / "out")
    found = audit(Cohort.read(made.cohort), target_column="diagnosis", positive="pneumonia")
    assert len(found.facts) == 5216
    assert not found.refusals
    assert {finding.check for finding in found.warnings} == {"without_looking", "restates_target"}


@pytest.mark.shared
def test_nih_as_it_is(shared_data: Path, tmp_path: Path) -> None:
    cohort = Cohort.read(importer("nih")(shared_data / "nih1000", tmp_path / "out").cohort)
    assert len(cohort) == 1000
    assert sorted(cohort.labels("abnormal").tolist()) == ["0"] * 500 + ["1"] * 500


def test_children_of_two_imports_are_never_taken_for_the_same(tree: Tree, tmp_path: Path) -> None:
    first = tree(*KERMANY)
    patients = []
    for k in range(2):
        if k:
            (first / "PNEUMONIA" / "person1_virus_6.jpeg").rename(first / "PNEUMONIA" / "person2_virus_7.jpeg")
        made = importer("kermany")(first, tmp_path / f"out{k}")
        patients.append(set(Cohort.read(made.cohort).patient.tolist()))
    assert not patients[0] & patients[1]
