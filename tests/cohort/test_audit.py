"""The audit refuses what leaks, warns of what tells the outcome, and looks at every picture once."""

from __future__ import annotations

import csv
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tenfold.cohort.facts as facts_module
from tenfold.cohort.audit import Audit, audit
from tenfold.cohort.manifest import Cohort
from tenfold.cohort.split import make_splits
from tenfold.cohort.without_looking import blind_auc
from tenfold.errors import AuditError
from tenfold.types import Finding


def run(path: Path, **options: Any) -> Audit:
    return audit(Cohort.read(path), **{"target_column": "outcome", "folds": 4, **options})


def of(found: Audit, check: str) -> list[Finding]:
    return [finding for finding in found.findings if finding.check == check]


def test_a_sound_cohort_passes(write, rows) -> None:
    found = run(write(rows(24)))
    assert not found.refusals
    assert not found.excluded
    assert not found.groups
    found.raise_if_refused()
    assert len(found.facts) == 48
    assert found.facts["width"].tolist() == [40] * 48


def test_a_patient_in_two_classes(write, rows) -> None:
    several = rows(24)
    several[1]["outcome"] = "ill"
    found = run(write(several))
    (finding,) = of(found, "two_classes")
    assert (finding.severity, finding.patients, finding.column) == ("refusal", ("p000",), "outcome")
    assert "row 2: well" in finding.message
    assert "row 3: ill" in finding.message
    declared = run(write(several), two_classes="declared")
    assert [f.severity for f in of(declared, "two_classes")] == ["note"]
    assert not declared.refusals


@pytest.mark.parametrize("kind", ["copied", "saved again"])
def test_the_same_picture_under_two_patients(write, rows, tmp_path: Path, kind: str) -> None:
    from PIL import Image

    several = rows(24)
    path = write(several)
    first, second = (tmp_path / several[i]["film"] for i in (4, 8))
    if kind == "copied":
        shutil.copyfile(first, second)
    else:
        picture = Image.open(first).resize((80, 80), Image.Resampling.NEAREST)
        Image.fromarray(np.asarray(picture) + np.uint8(6)).save(second)
    (finding,) = of(run(path), "duplicate_image")
    assert finding.severity == "refusal"
    assert finding.patients == ("p002", "p004")
    assert finding.cases == ("c002-0", "c004-0")
    assert "row 6 (patient p002), row 10 (patient p004)" in finding.message

    grouped = run(path, duplicates="group")
    assert not grouped.refusals
    assert grouped.groups == {"p002": "p002", "p004": "p002"}
    cohort = Cohort.read(path)
    _, splits = make_splits(cohort, cohort.labels("outcome"), folds=4, groups=grouped.groups, seed=0)
    for split in splits:
        assert ("c002-0" in split.test) == ("c004-0" in split.test)

    left = run(path, duplicates="exclude")
    assert not left.refusals
    assert list(left.excluded) == ["c004-0"]


def test_the_same_picture_with_two_outcomes(write, rows, tmp_path: Path) -> None:
    several = rows(24)
    path = write(several)
    shutil.copyfile(tmp_path / several[4]["film"], tmp_path / several[6]["film"])
    assert "Their outcomes differ: ill, well" in of(run(path), "duplicate_image")[0].message
    assert set(run(path, duplicates="exclude").excluded) == {"c002-0", "c003-0"}


def test_the_same_picture_twice_of_one_patient_is_a_note(write, rows, tmp_path: Path) -> None:
    several = rows(24)
    path = write(several)
    shutil.copyfile(tmp_path / several[4]["film"], tmp_path / several[5]["film"])
    found = run(path)
    assert not of(found, "duplicate_image")
    assert [f.severity for f in of(found, "repeated_image")] == ["note"]


@pytest.mark.parametrize("trouble", ["missing", "empty", "text", "truncated", "folder", "blank", "none"])
def test_unreadable_and_blank_pictures(write, rows, tmp_path: Path, trouble: str) -> None:
    from PIL import Image

    several = rows(24)
    film = tmp_path / several[7]["film"]
    path = write(several)
    content = film.read_bytes()
    film.unlink()
    if trouble == "empty":
        film.touch()
    elif trouble == "text":
        film.write_text("not a picture")
    elif trouble == "truncated":
        film.write_bytes(content[: len(content) // 2])
    elif trouble == "folder":
        film.mkdir()
    elif trouble == "blank":
        Image.new("L", (40, 40), 7).save(film)
    elif trouble == "none":
        several[7]["film"] = ""
        write(several)
    check = "blank_image" if trouble == "blank" else "unreadable_image"
    (finding,) = of(run(path), check)
    assert finding.severity == "refusal"
    assert (finding.row, finding.patients, finding.column) == (9, ("p003",), "film")
    assert "row 9, patient p003, column film" in finding.message
    left = run(path, unreadable="exclude")
    assert not left.refusals
    assert list(left.excluded) == ["c003-1"]
    assert "c003-1" not in (set() if trouble == "blank" else set(left.facts["case"]))


@pytest.mark.parametrize(
    ("column", "classes", "says"),
    [("outcom", None, "did you mean 'outcome'"), ("outcome", ["ill", "wel"], "row 2.*'well' is not a class")],
)
def test_trouble_with_the_outcome_is_a_refusal_among_others(write, rows, column, classes, says) -> None:
    import re

    several = rows(24)
    several[3]["film"] = ""
    found = run(write(several), target_column=column, classes=classes)
    assert {f.check for f in found.refusals} == {"outcome", "unreadable_image"}
    assert re.search(says, of(found, "outcome")[0].message)
    assert found.labels == {}


def test_cases_without_outcome_are_left_out_when_allowed(write, rows) -> None:
    several = rows(24)
    several[0]["outcome"] = ""
    assert of(run(write(several)), "outcome")[0].severity == "refusal"
    allowed = run(write(several), unlabelled="allow")
    assert allowed.excluded == {"c000-0": "outcome unknown"}
    assert not allowed.refusals


def test_too_few_patients_for_the_folds_counts_after_exclusions(write, rows, tmp_path: Path) -> None:
    several = rows(10)
    path = write(several)
    assert not of(run(path, folds=5), "too_few_patients")
    for i in (2, 3):
        (tmp_path / several[i]["film"]).unlink()
    (finding,) = of(run(path, folds=5, unreadable="exclude"), "too_few_patients")
    assert finding.severity == "refusal"
    assert "4 of 9 patients have the class 'ill'" in finding.message
    assert "ask for 4 folds or fewer" in finding.message
    assert not run(path, folds=None, unreadable="exclude").refusals


def test_a_corner_marker_is_caught_and_noise_is_not(rows, tmp_path: Path, draw, write) -> None:
    several = rows(60, films=1)
    for seed, row in enumerate(several):
        ill = row["outcome"] == "ill"
        draw(tmp_path / row["film"], seed, marker=ill and seed % 10 < 8)
    path = write(several)
    marked = run(path)
    assert of(marked, "without_looking")[0].severity == "warning"
    assert "top right corner" in of(marked, "without_looking")[0].message.split("Above 0.6 alone")[1]
    assert marked.without_looking["top right corner"].low > 0.6
    assert marked.without_looking["bottom left corner"].low < 0.6
    for seed, row in enumerate(several):
        draw(tmp_path / row["film"], seed)
    assert not [f for f in run(path).warnings if f.check == "without_looking"]


def test_size_of_the_picture_is_caught(rows, tmp_path: Path, draw, write) -> None:
    several = rows(60, films=1)
    for seed, row in enumerate(several):
        draw(tmp_path / row["film"], seed, side=50 if row["outcome"] == "ill" else 40)
    found = run(write(several))
    assert found.without_looking["width"].value == 1.0
    assert found.without_looking["width"].low > 0.8
    assert found.without_looking["together"].n == 60


def test_date_and_site_tell_the_outcome(write, rows) -> None:
    late = run(write(rows(60, films=1, date=lambda p, k: f"20{10 + 5 * (p % 2)}-01-{1 + p % 28:02d}")))
    assert late.without_looking["date"].value > 0.95
    sites = run(write(rows(60, films=1, site=lambda p, k: "AB"[p % 2])))
    assert sites.without_looking["site"].value > 0.95
    (finding,) = of(sites, "site_prevalence")
    assert finding.severity == "warning"
    assert finding.value < 1e-6
    assert "One outcome only at A, B" in finding.message


def test_balanced_sites_are_a_note(write, rows) -> None:
    (finding,) = of(run(write(rows(60, films=1, site=lambda p, k: "AB"[p // 2 % 2]))), "site_prevalence")
    assert finding.severity == "note"
    assert "A 15/30, B 15/30" in finding.message
    assert finding.value > 0.5


def test_prevalence_by_site_counts_patients_not_films(write, rows) -> None:
    several = rows(12, films=1, site=lambda p, k: "AB"[p % 2 if p < 8 else p // 2 % 2])
    many = [{**row, "case": f"{row['case']}-{k}"} for row in several for k in range(5)]
    one, five = (of(run(write(r, draw_films=True)), "site_prevalence")[0] for r in (several, many))
    assert one.value == pytest.approx(five.value)


@pytest.mark.parametrize(
    ("column", "restates"),
    [
        (lambda p, k: ("B", "A")[p % 2], True),
        (lambda p, k: str((p % 2) * 10 + p / 100), True),
        (lambda p, k: "positive" if p % 2 else "", True),
        (lambda p, k: f"p{p}", False),
        (lambda p, k: str((p * 7) % 13), False),
    ],
)
def test_columns_that_restate_the_target(write, rows, column, restates: bool) -> None:
    found = of(run(write(rows(48, films=1, grade=column))), "restates_target")
    assert [f.column for f in found] == (["grade"] if restates else [])


def test_patient_ids_that_are_the_same_number(write, rows) -> None:
    several = rows(24)
    several[2]["patient"], several[3]["patient"] = "7", "007"
    (finding,) = of(run(write(several)), "similar_patients")
    assert finding.patients == ("7", "007")


def test_small_pictures_are_warned_of(write, rows) -> None:
    path = write(rows(24))
    assert not of(run(path, size=40), "small_images")
    assert "48 of 48" in of(run(path, size=224), "small_images")[0].message


def test_a_second_audit_decodes_nothing(write, rows, tmp_path: Path, monkeypatch, draw) -> None:
    path = write(rows(24))
    decoded: list[Path] = []
    real = facts_module.read_image

    def counted(film: Path, **options: Any) -> Any:
        decoded.append(film)
        return real(film, **options)

    monkeypatch.setattr(facts_module, "read_image", counted)
    steps: list[tuple[int, int]] = []
    first = run(path, progress=lambda done, total: steps.append((done, total)))
    assert len(decoded) == 48
    assert steps[-1] == (48, 48)
    decoded.clear()
    second = run(path)
    assert not decoded
    assert second.findings == first.findings
    assert second.facts.equals(first.facts)
    draw(tmp_path / "films/003_0.png", 999)
    run(path)
    assert [film.name for film in decoded] == ["003_0.png"]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"version": 1, "files": {}, "pictures": {"a": {}}}', '{"version": 9}']
)
def test_a_damaged_cache_is_as_good_as_none(write, rows, tmp_path: Path, content: str) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "facts.json").write_text(content)
    assert len(run(write(rows(8)), folds=2, cache=cache).facts) == 16
    assert not (tmp_path / ".tenfold").exists()


def test_a_cache_that_cannot_be_written_is_a_note(write, rows, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = run(write(rows(8)), folds=2, cache=tmp_path / "file")
    assert [f.severity for f in of(found, "cache")] == ["note"]


def test_a_cohort_without_pictures_is_audited_too(write, rows) -> None:
    plain = [{k: v for k, v in row.items() if k != "film"} for row in rows(24, age=lambda p, k: str(30 + p))]
    found = run(write(plain))
    assert not found.refusals
    assert found.facts.empty


def test_refusals_are_listed_ten_at_most_and_all_written(write, rows, tmp_path: Path) -> None:
    path = write(rows(24), draw_films=False)
    found = run(path)
    assert len(found.refusals) == 48
    with pytest.raises(
        AuditError, match=r"48 findings must be mended(.|\n)*row 2, patient p000(.|\n)*and 38 more"
    ) as error:
        found.raise_if_refused()
    assert str(error.value).count("\n- cohort.csv, row") == 10
    found.write_findings(tmp_path / "findings.csv")
    with (tmp_path / "findings.csv").open(newline="") as handle:
        written = list(csv.DictReader(handle))
    assert len(written) == len(found.findings)
    assert [row["severity"] for row in written][:48] == ["refusal"] * 48


def test_blind_auc_of_noise_gives_no_alarm() -> None:
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(100), 3).astype(str)
    positive = np.repeat(rng.random(100) < 0.4, 3)
    for _ in range(20):
        auc = blind_auc([np.repeat(rng.normal(size=100), 3)], positive, patients)
        assert auc.low < 0.55


def test_blind_auc_is_not_fooled_by_the_patient() -> None:
    patients = np.repeat(np.arange(40), 5).astype(str)
    positive = np.repeat(np.arange(40) % 2 == 0, 5)
    assert blind_auc([patients], positive, patients).low < 0.6


def test_blind_auc_sees_what_is_no_slope() -> None:
    values = np.linspace(-1, 1, 300)
    auc = blind_auc([values], np.abs(values) > 0.5, np.arange(300).astype(str))
    assert auc.low > 0.9


def test_blind_auc_of_one_patient_is_no_number() -> None:
    auc = blind_auc([np.arange(4.0)], np.array([True, False, False, False]), np.array(list("abcd")))
    assert math.isnan(auc.value)


def test_one_class_only_is_refused_unless_nothing_is_divided(write, rows) -> None:
    path = write([{**row, "outcome": "ill"} for row in rows(12)])
    assert of(run(path, classes=["well", "ill"]), "outcome")[0].severity == "refusal"
    external = run(path, classes=["well", "ill"], folds=None)
    assert not external.refusals
    assert list(external.labels) == ["outcome"]
    assert external.labels["outcome"].classes == ("well", "ill")
    assert not external.without_looking
