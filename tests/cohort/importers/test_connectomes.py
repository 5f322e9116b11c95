"""Connectomes of ABIDE and of BIDS derivatives become cohorts of matrices, and what is left out is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tenfold.cohort.importers import importer
from tenfold.cohort.manifest import Cohort
from tenfold.errors import CohortError, Refusal
from tenfold.modalities.connectivity import connect, edges_of
from tenfold.modalities.connectome import REGIONS_FILE, read_connectomes, read_regions
from tenfold.modalities.table import read_columns

HEAD = ",Unnamed: 0,SUB_ID,SITE_ID,FILE_ID,DX_GROUP,AGE_AT_SCAN,SEX,FIQ,EYE_STATUS_AT_SCAN,func_mean_fd"


def courses(seed: int, regions: int = 4, scans: int = 30) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((scans, regions)) @ rng.standard_normal((regions, regions))


def one_d(path: Path, values: np.ndarray) -> None:
    """Time courses as the preprocessed initiative writes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    codes = [f"#{10 + k}" for k in range(values.shape[1])]
    np.savetxt(path, values, delimiter="\t", header="\t".join(codes), comments="")


def initiative(folder: Path, **more: str) -> Path:
    """Three subjects with time courses, one without."""
    rows = {
        "50003": "PITT,Pitt_0050003,1,24.4,1,110,1,0.32",
        "50004": "PITT,Pitt_0050004,2,19.1,2,-9999,2,0.12",
        "51001": "NYU,NYU_0051001,2,12.0,1,,1,0.1",
        "51002": "NYU,no_filename,1,13.0,1,,1,0.1",
        **more,
    }
    folder.mkdir(exist_ok=True)
    lines = [f"{k},{k},{subject},{rest}" for k, (subject, rest) in enumerate(rows.items()) if rest]
    (folder / "Phenotypic_V1_0b_preprocessed1.csv").write_text("\n".join([HEAD, *lines]) + "\n")
    for k, name in enumerate(("Pitt_0050003", "Pitt_0050004", "NYU_0051001")):
        one_d(folder / "rois_ho" / f"{name}_rois_ho.1D", courses(k))
    return folder


def matrices_of(cohort: Cohort) -> np.ndarray:
    regions = read_regions(cohort.folder / REGIONS_FILE)
    return read_connectomes(cohort.paths("connectome"), regions=regions, place=cohort.place).matrices


def test_time_courses_of_the_preprocessed_initiative_become_matrices(tmp_path: Path) -> None:
    made = importer("abide")(initiative(tmp_path / "in"), tmp_path / "out")
    cohort = Cohort.read(made.cohort)
    assert cohort.case.tolist() == ["51001", "50003", "50004"]
    assert cohort.labels("diagnosis").tolist() == ["control", "autism", "control"]
    assert cohort.site.tolist() == ["NYU", "PITT", "PITT"]
    assert cohort.labels("sex").tolist() == ["male", "male", "female"]
    assert cohort.labels("fiq").tolist() == ["", "110", ""]
    np.testing.assert_allclose(matrices_of(cohort)[1], connect(courses(0)), atol=1e-6)
    assert read_regions(tmp_path / "out" / REGIONS_FILE) == ("10", "11", "12", "13")
    assert {column.name for column in read_columns(tmp_path / "out" / "columns.csv")} >= {"age", "sex", "motion"}
    assert any("1 subjects of the table have no connectome" in note.message for note in made.notes)


def test_the_two_layouts_give_the_same_matrix(tmp_path: Path) -> None:
    folder = initiative(tmp_path / "in")
    edges = np.stack([edges_of(connect(courses(k))) for k in range(3)]).astype(np.float32)
    (tmp_path / "arrays").mkdir()
    (tmp_path / "arrays" / "phenotype.csv").write_text((folder / "Phenotypic_V1_0b_preprocessed1.csv").read_text())
    np.savez(tmp_path / "arrays" / "connectomes.npz", edges=edges, subject=np.array([50003, 50004, 51001]))
    by_series = Cohort.read(importer("abide")(folder, tmp_path / "a").cohort)
    by_arrays = Cohort.read(importer("abide")(tmp_path / "arrays", tmp_path / "b").cohort)
    order = ["50003", "50004", "51001"]
    one, other = matrices_of(by_series.select(order)), matrices_of_numbered(by_arrays.select(order))
    np.testing.assert_allclose(one, other, atol=1e-7)


@pytest.mark.parametrize("options", [{"atlas": "ho"}, {"measure": "partial correlation"}])
def test_what_cannot_be_made_of_arrays_is_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    folder = initiative(tmp_path / "in")
    (folder / "Phenotypic_V1_0b_preprocessed1.csv").rename(folder / "phenotype.csv")
    np.savez(folder / "connectomes.npz", edges=np.zeros((3, 6), np.float32), subject=np.array([50003, 50004, 51001]))
    with pytest.raises(CohortError, match="holds correlations of one atlas"):
        importer("abide")(folder, tmp_path / "out", **options)


def matrices_of_numbered(cohort: Cohort) -> np.ndarray:
    return read_connectomes(cohort.paths("connectome")).matrices


@pytest.mark.parametrize(
    ("change", "options", "says"),
    [
        ("table", {}, "neither phenotype.csv"),
        ("atlases", {}, "2 atlases.*\n.*aal, ho"),
        ("atlases", {"atlas": "cc200"}, "no time courses of 'cc200'"),
        ("unlisted", {}, "1 connectomes of subjects that the table does not list, the first of 51001"),
        ("twice", {}, "subject 50003 has two files"),
        ("code", {}, "row 2, column DX_GROUP: '3' is no code"),
        ("size", {}, "subject 50003.*region"),
        ("empty", {}, "no connectomes here"),
        ("", {"measure": "partial"}, "unknown measure 'partial'"),
    ],
)
def test_a_source_of_another_kind_is_refused(tmp_path: Path, change: str, options: dict[str, Any], says: str) -> None:
    more = {"unlisted": {"51001": ""}, "code": {"50003": "PITT,Pitt_0050003,3,24.4,1,110,1,0.32"}}
    folder = initiative(tmp_path / "in", **more.get(change, {}))
    if change == "table":
        (folder / "Phenotypic_V1_0b_preprocessed1.csv").unlink()
    elif change == "atlases":
        one_d(folder / "NYU_0051001_rois_aal.1D", courses(1))
    elif change == "twice":
        one_d(folder / "Pitt2_0050003_rois_ho.1D", courses(1))
    elif change == "size":
        one_d(folder / "rois_ho" / "Pitt_0050003_rois_ho.1D", courses(1, regions=5))
    elif change == "empty":
        for path in folder.rglob("*.1D"):
            path.unlink()
    with pytest.raises(Refusal, match=says):
        importer("abide")(folder, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


# BIDS -------------------------------------------------------------------------------------------------------------


def derivatives(folder: Path, *, matrices: bool = False) -> Path:
    """Three subjects, the first with two sessions, and the confounds of fMRIPrep for one scan."""
    folder.mkdir()
    people = ["participant_id\tage\tsite\toutcome", "sub-01\t3\tA\tdelay", "sub-02\tn/a\tB\tnone", "sub-03\t4\tB\tnone"]
    (folder / "participants.tsv").write_text("\n".join([*people, "sub-04\t5\tA\tdelay"]) + "\n")
    scans = [("01", "ses-1_"), ("01", "ses-2_"), ("02", "ses-1_"), ("03", "ses-1_")]
    for k, (subject, session) in enumerate(scans):
        place = folder / f"sub-{subject}" / session.rstrip("_") / "func"
        place.mkdir(parents=True)
        stem = f"sub-{subject}_{session}task-rest_space-MNI_seg-AAL"
        names = ["a", "b", "c", "d"]
        if matrices:
            rows = zip(names, connect(courses(k)).tolist(), strict=True)
            lines = ["\t".join(["Node", *names]), *("\t".join([n, *map(str, row)]) for n, row in rows)]
            (place / f"{stem}_stat-pearsoncorrelation_relmat.tsv").write_text("\n".join(lines))
        else:
            np.savetxt(place / f"{stem}_timeseries.tsv", courses(k), delimiter="\t", header="a\tb\tc\td", comments="")
    fd = "framewise_displacement\tcsf\nn/a\t1\n0.1\t2\n0.3\t3\n"
    (folder / "sub-01/ses-1/func/sub-01_ses-1_task-rest_desc-confounds_timeseries.tsv").write_text(fd)
    return folder


@pytest.mark.parametrize("matrices", [False, True])
def test_derivatives_become_one_case_a_scan(tmp_path: Path, matrices: bool) -> None:
    made = importer("bids")(derivatives(tmp_path / "in", matrices=matrices), tmp_path / "out", target="outcome")
    cohort = Cohort.read(made.cohort)
    assert cohort.case.tolist() == ["sub-01_ses-1", "sub-01_ses-2", "sub-02_ses-1", "sub-03_ses-1"]
    assert cohort.patient.tolist() == ["sub-01", "sub-01", "sub-02", "sub-03"]
    assert cohort.labels("age").tolist() == ["3", "3", "", "4"]
    assert cohort.labels("motion").tolist() == ["0.2", "", "", ""]
    assert read_regions(tmp_path / "out" / REGIONS_FILE) == ("a", "b", "c", "d")
    np.testing.assert_allclose(matrices_of(cohort), [connect(courses(k)) for k in range(4)], atol=1e-6)
    assert made.study["classes"] == ["delay", "none"]
    assert any("1 subjects of participants.tsv have no connectome" in note.message for note in made.notes)


def test_matrices_are_taken_as_they_are(tmp_path: Path) -> None:
    folder = derivatives(tmp_path / "in", matrices=True)
    with pytest.raises(CohortError, match="of which no partial correlation is made"):
        importer("bids")(folder, tmp_path / "out", target="outcome", measure="partial correlation")


def test_scores_and_several_outcomes_are_suggested_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    people = ["participant_id\tscore\tdelay\tsite"]
    for k in range(14):
        place = folder / f"sub-{k:02d}/func"
        place.mkdir(parents=True)
        np.savetxt(place / f"sub-{k:02d}_relmat.tsv", connect(courses(k)), delimiter="\t")
        people.append(f"sub-{k:02d}\t{80 + k if k else 'n/a'}\t{'no' if k % 2 else 'yes'}\tone")
    (folder / "participants.tsv").write_text("\n".join(people) + "\n")
    made = importer("bids")(folder, tmp_path / "out", target=["score", "delay"])
    assert made.study["targets"] == [
        {"column": "score", "kind": "score"},
        {"column": "delay", "classes": ["no", "yes"]},
    ]
    assert made.study["connectomes"]["connectome"]["harmonise"] == ""
    cohort = Cohort.read(made.cohort)
    assert cohort.labels("connectome")[13] == "connectomes/sub-13.npy"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["cohort.csv", "connectomes", "regions.csv"]


@pytest.mark.parametrize(
    ("change", "options", "says"),
    [
        ("people", {}, "no participants.tsv"),
        ("unlisted", {}, "sub-05 and 0 more subjects"),
        ("both", {}, "several holds: matrix, timeseries"),
        ("atlases", {}, "several atlas: AAL, Schaefer"),
        ("tasks", {}, "2 files of sub-02_ses-1"),
        ("", {"atlas": "AAl"}, "no file is of atlas 'AAl'.*\n.*'AAL'"),
        ("", {"target": "outcom"}, "did you mean 'outcome'"),
        ("size", {}, "sub-02.*5 regions"),
    ],
)
def test_derivatives_that_are_not_one_kind_are_refused(
    tmp_path: Path, change: str, options: dict[str, Any], says: str
) -> None:
    folder = derivatives(tmp_path / "in")
    place = folder / "sub-02/ses-1/func"
    name = "sub-02_ses-1_task-rest_space-MNI_seg-AAL_timeseries.tsv"
    if change == "people":
        (folder / "participants.tsv").unlink()
    elif change == "unlisted":
        other = folder / "sub-05/func"
        other.mkdir(parents=True)
        (other / "sub-05_seg-AAL_timeseries.tsv").write_text((place / name).read_text())
    elif change == "size":
        np.savetxt(place / name, courses(9, regions=5), delimiter="\t", header="a\tb\tc\td\te", comments="")
    elif change:
        new = {"both": ("timeseries", "relmat"), "atlases": ("AAL", "Schaefer"), "tasks": ("rest", "film")}[change]
        (place / name.replace(*new)).write_text((place / name).read_text())
    with pytest.raises(CohortError, match=says):
        importer("bids")(folder, tmp_path / "out", **{"target": "outcome", **options})


# the real data ----------------------------------------------------------------------------------------------------


@pytest.mark.shared
def test_abide_as_it_lies_there(shared_data: Path, tmp_path: Path) -> None:
    made = importer("abide")(shared_data / "abide", tmp_path / "out")
    cohort = Cohort.read(made.cohort)
    assert len(cohort) == 709
    assert len(set(cohort.site.tolist())) == 16
    assert cohort.labels("diagnosis").tolist().count("autism") == 315
    some = cohort.select(["50003", "50642"])
    read = read_connectomes(some.paths("connectome"), regions=read_regions(tmp_path / "out" / REGIONS_FILE))
    series = shared_data / "timeseries"
    files = [series / "Pitt_0050003_rois_ho.1D", series / "CMU_a_0050642_rois_ho.1D"]
    again = read_connectomes(files, holds="timeseries", regions=read.regions)
    np.testing.assert_array_equal(again.matrices, read.matrices)
    np.testing.assert_array_equal(again.silent, read.silent)
    assert read.silent.sum(axis=1).tolist() == [0, 1]
