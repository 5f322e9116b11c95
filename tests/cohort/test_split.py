"""Nobody is on two sides of a split, and every part has both classes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tenfold.cohort.manifest import Cohort, write_cohort
from tenfold.cohort.split import (
    folds_possible,
    make_splits,
    patients_needed,
    read_splits,
    verify_disjoint,
    write_splits,
)
from tenfold.errors import SplitError
from tenfold.types import Split


def cohort_of(folder: Path, sizes: list[int], ill: list[bool], sites: list[str] | None = None) -> Cohort:
    rows = [
        {
            "case": f"c{p:03d}-{k}",
            "patient": f"p{p:03d}",
            "site": sites[p] if sites else "",
            "outcome": "ill" if ill[p] else "well",
        }
        for p, size in enumerate(sizes)
        for k in range(size)
    ]
    write_cohort(rows, ["case", "patient", "site", "outcome"], folder / "cohort.csv")
    return Cohort.read(folder)


@pytest.fixture
def clustered(tmp_path: Path) -> Cohort:
    """120 patients with 1 to 30 films each, a quarter ill, like real films."""
    rng = np.random.default_rng(3)
    sizes = np.minimum(rng.geometric(0.3, 120), 30).tolist()
    return cohort_of(tmp_path, sizes, (rng.random(120) < 0.25).tolist())


def test_every_part_is_disjoint_by_patient_and_complete(clustered: Cohort) -> None:
    labels = clustered.labels("outcome")
    holdout, splits = make_splits(clustered, labels, folds=5, repeats=2, holdout=0.2, seed=1)
    patient = dict(zip(clustered.case.tolist(), clustered.patient.tolist(), strict=True))
    label = dict(zip(clustered.case.tolist(), labels.tolist(), strict=True))
    assert [(s.repeat, s.fold) for s in splits] == [(r, f) for r in range(2) for f in range(5)]
    for split in splits:
        parts = [split.train, split.inner, split.test, holdout]
        people = [{patient[case] for case in part} for part in parts]
        assert sum(map(len, people)) == len(set().union(*people)) == 120
        assert sum(map(len, parts)) == len(clustered)
        assert all({label[case] for case in part} == {"ill", "well"} for part in parts)
    for repeat in range(2):
        tested = Counter(case for s in splits if s.repeat == repeat for case in s.test)
        assert set(tested) == set(clustered.case.tolist()) - set(holdout)
        assert set(tested.values()) == {1}


def test_stratified_by_patient_and_by_film_although_patients_differ_in_films(clustered: Cohort) -> None:
    labels = clustered.labels("outcome")
    _, splits = make_splits(clustered, labels, folds=5, inner=0.15, seed=0)
    label = dict(zip(clustered.case.tolist(), labels.tolist(), strict=True))
    patient = dict(zip(clustered.case.tolist(), clustered.patient.tolist(), strict=True))
    for class_name in ("ill", "well"):
        people = [len({patient[c] for c in s.test if label[c] == class_name}) for s in splits]
        films = [sum(label[c] == class_name for c in s.test) for s in splits]
        assert max(people) - min(people) <= 1
        assert max(films) - min(films) <= 0.1 * np.mean(films) + 2
    for split in splits:
        assert 0.08 < len(split.inner) / (len(split.inner) + len(split.train)) < 0.25


def test_seeds_and_the_order_of_rows(clustered: Cohort) -> None:
    labels = clustered.labels("outcome")
    _, one = make_splits(clustered, labels, folds=4, repeats=2, seed=1)
    shuffled = clustered.select(np.random.default_rng(0).permutation(clustered.case).tolist())
    _, same = make_splits(shuffled, shuffled.labels("outcome"), folds=4, repeats=2, seed=1)
    _, other = make_splits(clustered, labels, folds=4, repeats=2, seed=2)
    assert [set(s.test) for s in one] == [set(s.test) for s in same]
    assert [set(s.inner) for s in one] == [set(s.inner) for s in same]
    assert [set(s.test) for s in one] != [set(s.test) for s in other]
    assert {frozenset(s.test) for s in one[:4]} != {frozenset(s.test) for s in one[4:]}


def test_patients_with_both_outcomes_are_spread(tmp_path: Path) -> None:
    cohort = cohort_of(tmp_path, [2] * 30, [p % 3 == 0 for p in range(30)])
    labels = cohort.labels("outcome").copy()
    both = {f"p{p:03d}" for p in range(1, 16, 3)}
    for i, (case, patient) in enumerate(zip(cohort.case.tolist(), cohort.patient.tolist(), strict=True)):
        if patient in both and case.endswith("-1"):
            labels[i] = "ill"
    _, splits = make_splits(cohort, labels, folds=5, seed=0)
    per_fold = [len(both & {case.split("-")[0].replace("c", "p") for case in s.test}) for s in splits]
    assert per_fold == [1] * 5


def test_groups_stay_together(tmp_path: Path) -> None:
    cohort = cohort_of(tmp_path, [1] * 40, [p % 2 == 0 for p in range(40)])
    groups = {"p000": "g", "p001": "g", "p002": "g"}
    for seed in range(5):
        _, splits = make_splits(cohort, cohort.labels("outcome"), folds=4, seed=seed, groups=groups)
        for split in splits:
            parts = [{c for c in part if c < "c003"} for part in (split.train, split.inner, split.test)]
            assert sorted(map(len, parts)) == [0, 0, 3]


def test_by_site_and_leave_one_site_out(tmp_path: Path) -> None:
    sites = [f"s{p % 4}" for p in range(48)]
    cohort = cohort_of(tmp_path, [1] * 48, [p % 3 == 0 for p in range(48)], sites)
    site = dict(zip(cohort.case.tolist(), cohort.site.tolist(), strict=True))
    labels = cohort.labels("outcome")
    _, by_site = make_splits(cohort, labels, folds=2, by="site", seed=0)
    for split in by_site:
        assert not {site[c] for c in split.test} & {site[c] for c in split.train + split.inner}
    _, each = make_splits(cohort, labels, leave_one_site_out=True, seed=0)
    assert [{site[c] for c in s.test} for s in each] == [{"s0"}, {"s1"}, {"s2"}, {"s3"}]
    with pytest.raises(SplitError, match="there are 4 sites"):
        make_splits(cohort, labels, folds=5, by="site", seed=0)


def test_site_refusals(tmp_path: Path) -> None:
    ill = [p % 2 == 0 for p in range(12)]
    cohort = cohort_of(tmp_path, [1] * 12, ill, ["a"] * 11 + [""])
    with pytest.raises(SplitError, match=r"row 13, patient p011, column site"):
        make_splits(cohort, cohort.labels("outcome"), folds=2, by="site", seed=0)
    cohort = cohort_of(tmp_path, [1] * 12, ill, ["a"] * 12)
    with pytest.raises(SplitError, match="one site only: a"):
        make_splits(cohort, cohort.labels("outcome"), leave_one_site_out=True, seed=0)
    cohort = cohort_of(tmp_path, [1] * 12, ill, ["a", "b"] * 6)
    with pytest.raises(SplitError, match=r"row 3, patient p001.*seen at a and at b"):
        make_splits(cohort, cohort.labels("outcome"), by="site", folds=2, seed=0, groups={"p001": "p000"})
    with pytest.raises(SplitError, match="no case of class"):
        make_splits(cohort, cohort.labels("outcome"), leave_one_site_out=True, seed=0)


def test_too_few_patients_says_how_many_folds_would_work(tmp_path: Path) -> None:
    cohort = cohort_of(tmp_path, [3] * 30, [p < 6 for p in range(30)])
    with pytest.raises(SplitError, match=r"6 of 30 patients have the class 'ill'(.|\n)*ask for 6 folds or fewer"):
        make_splits(cohort, cohort.labels("outcome"), folds=10, seed=0)
    for seed in range(10):
        assert len(make_splits(cohort, cohort.labels("outcome"), folds=6, seed=seed)[1]) == 6


@pytest.mark.parametrize("folds", range(2, 12))
def test_as_many_patients_as_are_said_to_be_needed_suffice(tmp_path: Path, folds: int) -> None:
    n = patients_needed(folds)
    assert folds_possible(n) >= folds
    assert folds_possible(n - 1) < folds
    cohort = cohort_of(tmp_path, [1] * (n + 40), [p < n for p in range(n + 40)])
    for seed in range(4):
        make_splits(cohort, cohort.labels("outcome"), folds=folds, seed=seed)


@pytest.mark.parametrize(
    "wrong", [{"folds": 1}, {"repeats": 0}, {"inner": 0.0}, {"inner": 1.0}, {"holdout": 1.0}, {"seed": -1}]
)
def test_impossible_numbers(clustered: Cohort, wrong: dict) -> None:
    with pytest.raises(SplitError, match=next(iter(wrong))):
        make_splits(clustered, clustered.labels("outcome"), **{"seed": 0, **wrong})


def test_cases_without_outcome_are_refused(clustered: Cohort) -> None:
    labels = clustered.labels("outcome").copy()
    labels[3] = ""
    with pytest.raises(SplitError, match="1 cases have no outcome"):
        make_splits(clustered, labels, seed=0)


def test_write_then_read(clustered: Cohort, tmp_path: Path) -> None:
    holdout, splits = make_splits(clustered, clustered.labels("outcome"), folds=3, repeats=2, holdout=0.1, seed=4)
    path = tmp_path / "splits.csv"
    write_splits(path, clustered, holdout, splits)
    assert read_splits(path, clustered) == (holdout, splits)
    assert path.read_text().splitlines()[0] == "case,patient,repeat,fold,part"


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("c2,p1,0,0,test", "patient p1 is both in train and in test"),
        ("c2,p2,0,0,tets", "row 3, patient p2: 'tets' is no part"),
        ("c1,p1,0,0,train", "row 3.*a second time"),
        ("c2,p2,0,x,test", "row 3.*fold 'x'"),
        ("c2,p2,0", "row 3: 3 cells"),
        ("c2,p1,,,holdout", "patient p1 is both in train and in holdout"),
    ],
)
def test_an_edited_splits_file_is_refused(tmp_path: Path, row: str, says: str) -> None:
    path = tmp_path / "splits.csv"
    path.write_text(f"case,patient,repeat,fold,part\nc1,p1,0,0,train\n{row}\n")
    with pytest.raises(SplitError, match=says):
        read_splits(path)


def test_a_splits_file_of_another_cohort_is_refused(clustered: Cohort, tmp_path: Path) -> None:
    path = tmp_path / "splits.csv"
    path.write_text("case,patient,repeat,fold,part\nc000-0,p001,0,0,train\n")
    with pytest.raises(SplitError, match=r"row 2.*is of patient p000"):
        read_splits(path, clustered)
    path.write_text("case,patient\n")
    with pytest.raises(SplitError, match="no splits file"):
        read_splits(path)


def test_verify_disjoint_names_patient_and_fold() -> None:
    with pytest.raises(SplitError, match="repeat 1, fold 2, case b: patient p is both in train and in inner"):
        verify_disjoint([Split(1, 2, ("a",), ("b",), ())], patient_of={"a": "p", "b": "p"})
