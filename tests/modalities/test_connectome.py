"""Connectomes: strict reading, checks that name who and where, and a preparation only training rows shape."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from tenfold.errors import BundleError, CohortError, StudyError
from tenfold.modalities import MODALITIES
from tenfold.modalities.connectivity import connect, edge_names, edges_of, matrix_of
from tenfold.modalities.connectome import (
    ConnectomePreparation,
    ConnectomeReading,
    Covariates,
    check_connectomes,
    check_motion,
    coordinates_of_regions,
    networks_of_regions,
    read_connectome,
    read_connectomes,
    read_covariates,
    read_regions,
)

REGIONS = ("insula", "thalamus", "precuneus", "cuneus", "putamen")


def matrix(seed: int = 0, regions: int = 5, scans: int = 40) -> np.ndarray:
    return np.corrcoef(np.random.default_rng(seed).standard_normal((scans, regions)), rowvar=False)


def series(seed: int = 0, scans: int = 40, regions: int = 5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((scans, regions)) @ rng.standard_normal((regions, regions)) + 100


def reading_of(matrices: Any, regions: tuple[str, ...] = REGIONS) -> ConnectomeReading:
    matrices = np.asarray(matrices, np.float32)
    return ConnectomeReading(matrices, regions, tuple(f"patient P{i}" for i in range(len(matrices))))


def cohort(n: int = 30) -> tuple[ConnectomeReading, Covariates]:
    """Three sites; a region without signal in two cases, and a case without a connectome."""
    rng = np.random.default_rng(1)
    matrices = np.stack([matrix(seed) for seed in range(n)])
    for i in (2, 17):
        matrices[i, 1, :] = matrices[i, :, 1] = 0
        matrices[i, 1, 1] = 1
    matrices[5] = np.nan
    columns = {"site": np.array(["A", "B", "C"])[np.arange(n) % 3], "age": rng.normal(30, 5, n)}
    return reading_of(matrices), Covariates(columns, tuple(f"patient P{i}" for i in range(n)))


def put(path: Path, array: np.ndarray, **more: Any) -> Path:
    """Write an array in the format that the name asks for."""
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez(path, matrix=array, **more)
    elif path.suffix == ".mat":
        savemat(path, {"matrix": array, **more})
    else:
        np.savetxt(path, array, delimiter={".csv": ",", ".tsv": "\t"}.get(path.suffix, " "), fmt="%.17g")
    return path


# --- reading -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".mat", ".csv", ".tsv", ".txt", ".1D"])
def test_every_format_gives_the_same_matrix(tmp_path: Path, suffix: str) -> None:
    read, names = read_connectome(put(tmp_path / f"a{suffix}", matrix()))
    np.testing.assert_allclose(read, matrix(), atol=1e-6)
    assert read.dtype == np.float32
    assert names == ()


@pytest.mark.parametrize("suffix", [".npz", ".mat"])
def test_one_of_several_arrays_is_named_after_the_file(tmp_path: Path, suffix: str) -> None:
    path = put(tmp_path / f"a{suffix}", matrix(), other=matrix(1), regions=np.array(REGIONS))
    read, names = read_connectome(f"{path}#other")
    np.testing.assert_allclose(read, matrix(1), atol=1e-6)
    assert tuple(names) in (REGIONS, ())
    with pytest.raises(CohortError, match=rf"2 arrays: matrix, other.*\n.*\n.*a{suffix}#matrix"):
        read_connectome(path)
    with pytest.raises(CohortError, match=r"no array 'othre'.*\n.*'other'"):
        read_connectome(f"{path}#othre")


@pytest.mark.parametrize(
    "text",
    [
        "insula,thalamus\n1,.5\n.5,1\n",
        ",insula,thalamus\n0,1,.5\n1,.5,1\n",
        "Node,insula,thalamus\ninsula,1,.5\nthalamus,.5,1\n",
        '\ufeff"insula";"thalamus"\n1;.5\n.5;1\n',
        "#insula\t#thalamus\n1\t.5\n.5\t1\n",
        "# AFNI made this\n# insula thalamus\n1 .5\n.5 1\n",
    ],
)
def test_names_of_regions_are_taken_from_the_text(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    read, names = read_connectome(tmp_path / "a.csv")
    np.testing.assert_array_equal(read, np.array([[1, 0.5], [0.5, 1]], np.float32))
    assert names == ("insula", "thalamus")


def test_fisher_z_is_turned_back_and_a_zero_diagonal_becomes_one(tmp_path: Path) -> None:
    with np.errstate(divide="ignore"):
        z = np.arctanh(np.where(np.eye(5, dtype=bool), 1.0, matrix()))
    np.testing.assert_allclose(read_connectome(put(tmp_path / "z.npy", z), holds="fisher_z")[0], matrix(), atol=1e-6)
    hollow = matrix() - np.diag(np.diag(matrix()))
    np.testing.assert_allclose(read_connectome(put(tmp_path / "h.npy", hollow))[0], matrix(), atol=1e-6)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
            return (tmp_path.joinpath("gone").mkdir, ())

    np.save(tmp_path / "a.npy", np.array([Bomb()], object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", matrix=np.array([Bomb()], object))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(CohortError, match="never loaded"):
            read_connectome(tmp_path / name)
    assert not (tmp_path / "gone").exists()


def spoiled(change: str) -> np.ndarray:
    m = matrix()
    if change == "square":
        return m[:4]
    if change == "asymmetric":
        m[3, 1] += 0.2
    elif change == "triangle":
        return np.triu(m)
    elif change == "nan":
        m[3, 1] = m[1, 3] = np.nan
    elif change == "nan region":
        m[1] = m[:, 1] = np.nan
    elif change == "complex":
        return m + 0.1j
    elif change == "diagonal":
        m[2, 2] = 0.7
    elif change == "range":
        m[3, 1] = m[1, 3] = 1.4
    elif change == "covariance":
        return m * 400
    elif change == "zero":
        return np.eye(5)
    elif change == "same":
        m[3, 1] = m[1, 3] = 1.0
    elif change == "vector":
        return edges_of(m)
    elif change == "stack":
        return np.stack([m, m])
    return m


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("square", "not square: 4 x 5.*\n.*\n.*timeseries"),
        ("asymmetric", "not symmetric: between thalamus and cuneus"),
        ("triangle", "mirror it"),
        ("nan", "nan between the regions thalamus and cuneus"),
        ("nan region", "thalamus has no value in any edge.*\n.*\n.*constant"),
        ("complex", "complex"),
        ("diagonal", "0.7 at region precuneus"),
        ("range", "1.4 between the regions thalamus and cuneus.*\n.*\n.*look Fisher-transformed"),
        ("covariance", "covariance"),
        ("zero", "every edge is 0"),
        ("same", "thalamus and cuneus correlate to 1"),
        ("vector", "upper triangle of 5 regions"),
        ("stack", "one file a case"),
    ],
)
def test_a_matrix_that_is_none_is_refused_by_patient_file_and_region(tmp_path: Path, change: str, says: str) -> None:
    path = put(tmp_path / "p7.npy", spoiled(change))
    with pytest.raises(CohortError, match=says) as refused:
        read_connectome(path, regions=REGIONS, where="cohort.csv, row 8, patient P7")
    assert refused.value.where == "cohort.csv, row 8, patient P7, p7.npy"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.npy", b"", "cannot be read"),
        ("a.npz", b"PK\x03\x04broken", "cannot be read"),
        ("a.mat", b"MATLAB 5.0 but not", "cannot be read"),
        ("a.csv", b"", "no numbers"),
        ("a.csv", b"1,.5\n.5\n", "line 2 of the numbers has 1 cells"),
        ("a.csv", b"1;0,5\n0,5;1\n", "write a decimal point"),
        ("a.csv", b"1,2+1j\n2-1j,1\n", "is complex"),
        ("a.csv", b"insula,insula\n1,.5\n.5,1\n", "two regions are called 'insula'"),
        ("a.xlsx", b"PK", "one of .npy"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CohortError, match=says):
        read_connectome(tmp_path / name)


def test_an_absent_file_and_an_unknown_setting_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="no such file"):
        read_connectome(tmp_path / "a.npy")
    with pytest.raises(StudyError, match="timeseries"):
        read_connectome(tmp_path / "a.npy", holds="timeserie")  # type: ignore[arg-type]


# --- a cohort of files ---------------------------------------------------------------------------------------


def test_a_file_of_another_atlas_than_the_rest_is_named(tmp_path: Path) -> None:
    files: list[Path | None] = [put(tmp_path / f"{k}.npy", matrix(k)) for k in range(3)]
    files += [put(tmp_path / "big.npy", matrix(9, regions=6)), None]
    with pytest.raises(CohortError, match="6 regions, where 3 of 4") as refused:
        read_connectomes(files, place=lambda i: f"row {i + 2}")
    assert refused.value.where == "row 5, big.npy"
    faults: dict[int, CohortError] = {}
    reading = read_connectomes(files, faults=faults)
    assert list(faults) == [3]
    assert reading.present.tolist() == [True, True, True, False, False]


def test_regions_in_another_order_are_another_atlas(tmp_path: Path) -> None:
    for k, names in enumerate(("a,b", "a,b", "b,a")):
        (tmp_path / f"{k}.csv").write_text(f"{names}\n1,.{k + 1}\n.{k + 1},1\n")
    with pytest.raises(CohortError, match="region 1 is b, where most connectomes have a"):
        read_connectomes([tmp_path / f"{k}.csv" for k in range(3)])
    with pytest.raises(CohortError, match=r"region 1 is b.*\nExpected: a"):
        read_connectome(tmp_path / "2.csv", regions=("a", "b"))


def test_two_subjects_with_one_matrix_and_a_silent_region_are_found() -> None:
    reading, _ = cohort()
    matrices = reading.matrices.copy()
    matrices[9] = np.round(matrices[4], 4)
    odd = reading_of(matrices)
    found = check_connectomes(odd.matrices, odd.silent, odd.regions, odd.sources)
    assert [(f.severity, f.check) for f in found] == [("refusal", "duplicate_connectome"), ("warning", "silent_region")]
    assert "patient P4 and patient P9" in found[0].message
    assert "Region thalamus has no signal in 2 of 29 connectomes: patient P2; patient P17." in found[1].message
    assert found[1].value == pytest.approx(2 / 29)


def test_motion_is_held_against_the_declared_limit() -> None:
    motion = np.array([0.1, 0.6, np.nan, 0.3, 0.2])
    found = check_motion(motion, 0.25, [f"P{i}" for i in range(5)])
    assert [(f.severity, f.check, f.value) for f in found] == [
        ("refusal", "motion", 0.6),
        ("warning", "motion_unknown", 0.2),
    ]
    assert "P1: 0.6; P3: 0.3." in found[0].message
    assert check_motion(motion[:1], 0.25, ["P0"]) == []


def test_region_names_are_read(tmp_path: Path) -> None:
    (tmp_path / "r.tsv").write_text("index\tname\n1\tinsula left\n2\tthalamus\n")
    (tmp_path / "r.csv").write_text("insula left\nthalamus\n")
    assert read_regions(tmp_path / "r.tsv") == read_regions(tmp_path / "r.csv") == ("insula left", "thalamus")


# --- time courses --------------------------------------------------------------------------------------------


def test_networks_and_places_of_regions_stand_beside_their_names(tmp_path: Path) -> None:
    file = tmp_path / "regions.csv"
    file.write_text("name,network,x,y,z\ninsula,salience,-38,5.5,0\n\nthalamus,,1,2,3\n")
    assert networks_of_regions(file) == {"insula": "salience", "thalamus": ""}
    assert coordinates_of_regions(file).tolist() == [[-38, 5.5, 0], [1, 2, 3]]
    file.write_text("insula\nthalamus\n")
    assert networks_of_regions(file) == {}
    assert coordinates_of_regions(file) is None
    file.write_text("name,x,y,z\ninsula,left,0,0\n")
    with pytest.raises(CohortError, match="'left'"):
        coordinates_of_regions(file)


def test_time_courses_become_what_nilearn_makes_of_them(tmp_path: Path) -> None:
    from nilearn.connectome import ConnectivityMeasure

    read, _ = read_connectome(put(tmp_path / "a.tsv", series()), holds="timeseries")
    np.testing.assert_allclose(read, ConnectivityMeasure(kind="correlation").fit_transform([series()])[0], atol=1e-6)
    scaled = (series() - series().mean(0)) / series().std(0, ddof=1)
    partial = ConnectivityMeasure(kind="partial correlation").fit_transform([scaled])[0]
    np.testing.assert_allclose(edges_of(connect(series(), "partial correlation")), edges_of(partial), atol=1e-12)
    np.testing.assert_allclose(connect(series() * [1, 100, 1, 1e-6, 1]), connect(series()), atol=1e-9)


@pytest.mark.parametrize(
    ("array", "measure", "says"),
    [
        (series(scans=12, regions=14), "partial correlation", "12 time points of 14 regions"),
        (series(scans=4), "correlation", "4 time points.*\n.*\n.*turn it"),
        (
            np.where(np.arange(200).reshape(40, 5) == 16, np.inf, series()),
            "correlation",
            "inf at time point 4 of region t",
        ),
        (np.ones((40, 5)), "correlation", "no region's time course moves"),
    ],
)
def test_time_courses_that_give_no_connectome_are_refused(
    tmp_path: Path, array: np.ndarray, measure: Any, says: str
) -> None:
    regions = REGIONS if array.shape[1] == 5 else ()
    with pytest.raises(CohortError, match=says):
        read_connectome(put(tmp_path / "a.npy", array), holds="timeseries", measure=measure, regions=regions)


def test_fewer_time_points_than_regions_still_correlate_and_a_constant_region_is_silent(tmp_path: Path) -> None:
    courses = series(scans=12, regions=14)
    courses[:, 3] = 7.0
    reading = read_connectomes([put(tmp_path / "a.npy", courses)], holds="timeseries")
    assert np.flatnonzero(reading.silent[0]).tolist() == [3]
    assert np.linalg.eigvalsh(reading.matrices[0]).min() > 0


# --- preparation ---------------------------------------------------------------------------------------------


def test_edges_are_the_upper_triangle_row_by_row() -> None:
    assert edges_of(np.arange(9).reshape(1, 3, 3)).tolist() == [[1, 2, 5]]
    assert edge_names("abc") == ("a -- b", "a -- c", "b -- c")
    np.testing.assert_allclose(matrix_of(edges_of(matrix()), 1.0), matrix(), atol=1e-12)
    with pytest.raises(CohortError, match="4,005"):
        matrix_of(np.zeros(11))


SETTINGS: list[dict[str, Any]] = [
    {},
    {"space": "correlation", "standardise": False},
    {"space": "tangent"},
    {"harmonise": "site", "keep": ("age",)},
    {"confounds": ("site", "age")},
    {"space": "tangent", "harmonise": "site", "confounds": ("age",), "unseen": "pass"},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_test_row_never_shapes_the_preparation(settings: dict[str, Any]) -> None:
    reading, beside = cohort()
    train = np.random.default_rng(3).permutation(30) < 22
    fitted = ConnectomePreparation.fit(reading, train, covariates=beside, **settings)
    other = reading.matrices.copy()
    other[~train] = [matrix(900 + i) for i in range(8)]
    columns = {"site": beside.columns["site"].copy(), "age": beside.columns["age"].copy()}
    columns["site"][~train], columns["age"][~train] = "Z", 1e6
    altered = Covariates(columns, beside.sources)
    again = ConnectomePreparation.fit(reading_of(other), np.flatnonzero(train), covariates=altered, **settings)
    assert fitted.state() == again.state()
    for name, array in fitted.arrays().items():
        np.testing.assert_array_equal(array, again.arrays()[name])


@pytest.mark.parametrize("settings", SETTINGS)
def test_saved_and_read_back_it_prepares_each_row_the_same_alone(settings: dict[str, Any]) -> None:
    reading, beside = cohort()
    fitted = ConnectomePreparation.fit(reading, np.arange(24), covariates=beside, **settings)
    packed = io.BytesIO()
    np.savez(packed, **fitted.arrays())
    packed.seek(0)
    back = MODALITIES["connectome"].from_state(json.loads(json.dumps(fitted.state())), np.load(packed))  # type: ignore[call-arg]
    assert isinstance(back, ConnectomePreparation)
    whole = fitted.apply(reading, beside)
    assert whole.shape == (30, len(fitted.features))
    assert whole.dtype == np.float32
    assert np.isnan(whole[5]).all()
    assert np.isfinite(np.delete(whole, 5, axis=0)).all()
    for i in range(30):
        row = np.array([i])
        np.testing.assert_array_equal(back.apply(reading.take(row), beside.take(row))[0], whole[i])


def test_without_more_ado_edges_are_standardised_fisher_z() -> None:
    reading = reading_of([matrix(k) for k in range(12)])
    fitted = ConnectomePreparation.fit(reading, np.arange(9))
    z = np.arctanh(edges_of(np.asarray(reading.matrices, np.float64)))
    expected = (z - z[:9].mean(0)) / z[:9].std(0)
    np.testing.assert_allclose(fitted.apply(reading), expected, rtol=1e-5, atol=1e-6)
    assert fitted.features[0] == "insula -- thalamus"
    assert not fitted.baseline().any()


def test_edges_of_a_silent_region_take_the_mean_of_those_who_have_it() -> None:
    reading, beside = cohort()
    fitted = ConnectomePreparation.fit(reading, np.arange(24), covariates=beside, harmonise="site", confounds=("age",))
    touched = ["thalamus" in name for name in fitted.features]
    prepared = fitted.apply(reading, beside)
    assert not prepared[2][touched].any()
    assert prepared[2][~np.array(touched)].all()
    measured = [i for i in range(24) if i not in (2, 5, 17)]
    np.testing.assert_allclose(prepared[measured].mean(0)[touched], 0, atol=1e-5)
    assert any("thalamus in 2" in note for note in fitted.notes)


def test_a_region_that_no_training_row_had_never_counts() -> None:
    reading, _ = cohort()
    fitted = ConnectomePreparation.fit(reading, np.array([2, 17]))
    touched = ["thalamus" in name for name in fitted.features]
    assert not fitted.apply(reading.take(np.array([0])))[0][touched].any()


def test_tangent_space_is_nilearns_of_the_training_rows() -> None:
    from nilearn.connectome import ConnectivityMeasure

    courses = [series(k) for k in range(10)]
    scaled = [(s - s.mean(0)) / s.std(0, ddof=1) for s in courses]
    theirs = ConnectivityMeasure(kind="tangent").fit(scaled[:7])
    reading = reading_of([connect(s) for s in courses])
    ours = ConnectomePreparation.fit(reading, np.arange(7), space="tangent", standardise=False).apply(reading)
    np.testing.assert_allclose(ours, edges_of(theirs.transform(scaled)), atol=1e-4)
    short = reading_of([matrix(k, scans=4) for k in range(4)])
    with pytest.raises(CohortError, match="not positive definite") as refused:
        ConnectomePreparation.fit(short, np.arange(4), space="tangent")
    assert refused.value.where.startswith("patient P")


def test_regressed_confounds_no_longer_correlate_among_training_rows() -> None:
    _, beside = cohort()
    clean = reading_of([matrix(k) for k in range(30)])
    train = np.arange(25)
    fitted = ConnectomePreparation.fit(clean, train, covariates=beside, confounds=("age", "site"), standardise=False)
    prepared = fitted.apply(clean, beside).astype(np.float64)[train]
    age, site = np.asarray(beside.columns["age"])[train], np.asarray(beside.columns["site"])[train]
    np.testing.assert_allclose((age - age.mean()) @ prepared, 0, atol=1e-4)
    for name in "ABC":
        np.testing.assert_allclose(prepared[site == name].mean(0), prepared.mean(0), atol=1e-5)
    np.testing.assert_allclose(
        prepared.mean(0), np.arctanh(edges_of(clean.matrices[train].astype(float))).mean(0), atol=1e-5
    )


def test_an_unseen_site_is_refused_or_passed_through_and_said() -> None:
    reading, beside = cohort()
    where = np.asarray(beside.columns["site"]) != "C"
    for settings in ({"harmonise": "site"}, {"confounds": ("site",)}):
        strict = ConnectomePreparation.fit(reading, where, covariates=beside, **settings)
        with pytest.raises(CohortError, match="site 'C' was not among the training rows") as refused:
            strict.apply(reading, beside)
        assert refused.value.where == "patient P2"
        loose = ConnectomePreparation.fit(
            reading, where, covariates=beside, unseen="pass", standardise=False, **settings
        )
        passed = loose.apply(reading, beside)[8]
        np.testing.assert_allclose(passed, np.arctanh(edges_of(reading.matrices[8].astype(float))), atol=1e-5)
        assert loose.remarks(beside)[0].startswith("site 'C' (10 cases): not among the training rows")


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"space": "tangents"}, StudyError, "did you mean 'tangent'"),
        ({"unseen": "keep"}, StudyError, "refuse"),
        ({"keep": ("age",)}, StudyError, "without harmonise"),
        ({"harmonise": "site", "confounds": ("site",)}, StudyError, "same breath"),
        ({"harmonise": "site", "keep": ("age",), "confounds": ("age",)}, StudyError, "decide for one"),
        ({"harmonise": "place"}, CohortError, "no column 'place'"),
        ({"harmonise": "age"}, CohortError, "read as a number"),
        ({"harmonise": "site", "covariates": None}, StudyError, "no covariates"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], error: type, says: str) -> None:
    reading, beside = cohort()
    with pytest.raises(error, match=says):
        ConnectomePreparation.fit(reading, np.arange(24), **{"covariates": beside, **settings})


def test_what_a_case_needs_is_named_and_another_atlas_refused() -> None:
    reading, beside = cohort()
    settings: dict[str, Any] = {"harmonise": "site", "keep": ("age",)}
    fitted = ConnectomePreparation.fit(reading, np.arange(24), covariates=beside, **settings)
    assert fitted.needs == ("site", "age")
    with pytest.raises(CohortError, match=r"no covariates.*\nExpected: site, age"):
        fitted.apply(reading)
    age = np.asarray(beside.columns["age"]).copy()
    age[[1, 3]] = np.nan
    with pytest.raises(CohortError, match="age is missing here and in 1 more") as refused:
        fitted.apply(reading, Covariates({**beside.columns, "age": age}, beside.sources))
    assert refused.value.where == "patient P1"
    with pytest.raises(CohortError, match="region 1 is left"):
        fitted.apply(reading_of(reading.matrices, ("left", *REGIONS[1:])), beside)
    with pytest.raises(CohortError, match="two or more"):
        ConnectomePreparation.fit(reading, [5])


def test_covariates_are_read_strictly() -> None:
    cells = {"age": ["3", ""], "site": ["A ", "B"]}
    read = read_covariates(cells, {"age": "number", "site": "category"}, place=lambda i, c: f"row {i + 2}, {c}")
    np.testing.assert_array_equal(read.columns["age"], [3, np.nan])
    assert read.columns["site"].tolist() == ["A", "B"]
    with pytest.raises(CohortError, match="not a number"):
        read_covariates({"age": ["old"]}, {"age": "number"})
    with pytest.raises(CohortError, match="no column 'age'"):
        read_covariates({"site": ["A"]}, {"age": "number"})


@pytest.mark.parametrize("change", ["key", "lack", "array", "shape", "scale", "nan", "levels", "space"])
def test_a_state_that_is_none_is_refused(change: str) -> None:
    reading, beside = cohort()
    settings: dict[str, Any] = {"harmonise": "site", "keep": ("age",)}
    fitted = ConnectomePreparation.fit(reading, np.arange(24), covariates=beside, **settings)
    state, arrays = fitted.state(), dict(fitted.arrays())
    if change == "key":
        state["spaces"] = "tangent"
    elif change == "lack":
        del state["measure"]
    elif change == "array":
        del arrays["combat.shift"]
    elif change == "shape":
        arrays["mean"] = arrays["mean"][1:]
    elif change == "scale":
        arrays["scale"] = arrays["scale"] * 0
    elif change == "nan":
        arrays["combat.stretch"] = arrays["combat.stretch"] * np.nan
    elif change == "levels":
        state["combat"]["keep"]["levels"] = [["a", "b", "c"]]
    else:
        state["space"] = "outer"
    with pytest.raises(BundleError, match="connectome preparation"):
        ConnectomePreparation.from_state(state, arrays)


def test_without_nilearn_matrices_are_read_and_time_courses_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nilearn.connectome", None)
    read_connectome(put(tmp_path / "a.npy", matrix()))
    with pytest.raises(StudyError, match="nilearn is not installed"):
        read_connectome(put(tmp_path / "b.npy", series()), holds="timeseries")
