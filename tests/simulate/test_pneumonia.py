"""The simulator: its ceiling is exact, nothing but the severity tells the diagnosis, and what is planted is there."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from tenfold.errors import OutputError, StudyError
from tenfold.simulate import SIMULATORS, Simulated
from tenfold.simulate.pneumonia import FINDINGS, Binormal, Drawing, draw, plan, simulate

PATIENTS = 350
SMALL: dict[str, Any] = {"size": 64, "sites": 1}


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def pixels(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as film:
        assert film.mode == "L"
        return np.asarray(film)


def standard_error(auc: float, positives: int, negatives: int) -> float:
    """Hanley and McNeil 1982."""
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (positives - 1) * (q1 - auc**2) + (negatives - 1) * (q2 - auc**2)
    return float(np.sqrt(variance / (positives * negatives)))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Simulated:
    """Many single films, so that the observed AUC has a small error."""
    out = tmp_path_factory.mktemp("simulated") / "many"
    return simulate(out, patients=PATIENTS, seed=7, adults=0, films_per_patient=1.0, d_prime=1.5, **SMALL)


@pytest.fixture(scope="module")
def drawings(cohort: Simulated) -> list[Drawing]:
    """What the films of `cohort` show before severity and noise, in the order of its rows."""
    return [draw(7, v.person, 0, size=64) for v in _plan_of(cohort)]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Simulated:
    out = tmp_path_factory.mktemp("simulated") / "planted"
    return simulate(
        out,
        patients=60,
        seed=3,
        adults=25,
        marker_shortcut=0.7,
        duplicates=6,
        shared_patients=4,
        **{**SMALL, "sites": 2},
    )


def test_the_default_ceiling_is_the_published_auc() -> None:
    assert Binormal.at(2.37, 160).ceiling_auc == pytest.approx(0.953, abs=5e-4)


def test_the_matched_filter_reaches_the_ceiling_and_does_not_pass_it(cohort: Simulated) -> None:
    rows, truths = table(cohort.folder / "cohort.csv"), table(cohort.folder / "truth.csv")
    ill = np.array([r["diagnosis"] == "pneumonia" for r in rows])
    error = standard_error(cohort.ceiling_auc, int(ill.sum()), int((~ill).sum()))
    stored = np.array([float(t["matched_filter"]) for t in truths])
    assert roc_auc_score(ill, stored) == pytest.approx(cohort.ceiling_auc, abs=3 * error)


def test_eight_bits_lose_nothing(cohort: Simulated, drawings: list[Drawing]) -> None:
    rows, truths = table(cohort.folder / "cohort.csv"), table(cohort.folder / "truth.csv")
    stored = np.array([float(t["matched_filter"]) for t in truths])
    films = [pixels(cohort.folder / r["film"]) for r in rows]
    again = np.array([d.matched_filter(film) for d, film in zip(drawings, films, strict=True)])
    assert np.abs(again - stored).max() < 0.05 * Binormal.at(1.5, 64).tau
    ill = np.array([r["diagnosis"] == "pneumonia" for r in rows])
    assert roc_auc_score(ill, again) == pytest.approx(roc_auc_score(ill, stored), abs=0.001)


def test_the_posterior_is_calibrated(cohort: Simulated) -> None:
    ill = np.array([r["diagnosis"] == "pneumonia" for r in table(cohort.folder / "cohort.csv")])
    p = np.array([float(t["posterior"]) for t in table(cohort.folder / "truth.csv")])
    expected, spread = p.sum(), np.sqrt((p * (1 - p)).sum())
    assert abs(ill.sum() - expected) < 3 * spread
    middle = (p > 0.3) & (p < 0.7)
    assert abs(ill[middle].mean() - p[middle].mean()) < 3 * np.sqrt(0.25 / middle.sum())


def test_the_posterior_is_bayes_rule() -> None:
    law, at = Binormal.at(2.0, 100), np.array([100.0, 400.0, 900.0])
    spread = np.hypot(law.tau, law.sigma)
    ill = 0.2 * np.exp(-(((at - law.pneumonia) / spread) ** 2) / 2)
    well = 0.8 * np.exp(-(((at - law.normal) / spread) ** 2) / 2)
    np.testing.assert_allclose(law.posterior(at, 0.2), ill / (ill + well))


def test_anatomy_and_shadow_do_not_know_the_diagnosis(cohort: Simulated, drawings: list[Drawing]) -> None:
    ill = np.array([v.positive for v in _plan_of(cohort)])
    for what in (
        [d.anatomy.grey.mean() for d in drawings],
        [d.anatomy.body.width for d in drawings],
        [d.anatomy.aerated.sum() for d in drawings],
        [d.shadow.sum() for d in drawings],
        [d.pattern == "focal" for d in drawings],
    ):
        assert abs(roc_auc_score(ill, what) - 0.5) < 3.3 * standard_error(0.5, ill.sum(), (~ill).sum())


def test_another_prevalence_redraws_nobody(tmp_path: Path) -> None:
    few = simulate(tmp_path / "few", patients=12, seed=5, adults=0, prevalence=0.2, **SMALL)
    many = simulate(tmp_path / "many", patients=12, seed=5, adults=0, prevalence=0.8, **SMALL)
    law, kept, changed = Binormal.at(2.37, 64), 0, 0
    for a, b in zip(table(few.folder / "cohort.csv"), table(many.folder / "cohort.csv"), strict=True):
        first, second = (pixels(c.folder / a["film"]).astype(float) for c in (few, many))
        if a["diagnosis"] == b["diagnosis"]:
            kept += 1
            np.testing.assert_array_equal(first, second)
        else:
            changed += 1
            visit = next(v for v in _plan_of(few, patients=12, seed=5, films=1.15) if v.case == a["case"])
            shadow = draw(5, visit.person, visit.visit, size=64).shadow
            np.testing.assert_allclose(second - first, (law.pneumonia - law.normal) * shadow, atol=1.01)
    assert kept
    assert changed


def test_a_shadow_has_unit_norm_and_leaves_room_in_eight_bits() -> None:
    law = Binormal.at(2.37, 160)
    for person in range(15):
        d = draw(2, person, 0, size=160)
        assert np.sum(d.shadow**2) == pytest.approx(1)
        assert (d.anatomy.grey + (law.pneumonia + 3 * law.tau) * d.shadow).max() < 245
        inside = d.shadow > 0.05 * d.shadow.max()
        assert (d.anatomy.grey + (law.normal - 3 * law.tau) * d.shadow)[inside].min() > 5


def test_masks_hold_the_shadow_and_positives_alone_have_one(cohort: Simulated, drawings: list[Drawing]) -> None:
    for row, drawing in zip(table(cohort.folder / "cohort.csv"), drawings, strict=True):
        assert bool(row["mask"]) == (row["diagnosis"] == "pneumonia") == bool(row["subtype"])
        if row["mask"]:
            mask = pixels(cohort.folder / row["mask"])
            assert set(np.unique(mask)) == {0, 255}
            energy = drawing.shadow**2
            assert energy[mask > 0].sum() > 0.6
            assert 0.02 < (mask > 0).mean() < 0.45


def test_kinds_are_mixed_as_said(cohort: Simulated) -> None:
    focal = np.mean([t["pattern"] == "focal" for t in table(cohort.folder / "truth.csv")])
    assert focal == pytest.approx(0.65, abs=0.05)
    for row, truth in zip(table(cohort.folder / "cohort.csv"), table(cohort.folder / "truth.csv"), strict=True):
        if row["subtype"]:
            assert (row["subtype"] == "bacterial") == (truth["pattern"] == "focal")
        assert (truth["lobes"] == "both lungs") == (truth["pattern"] == "diffuse")


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    def digest(folder: Path) -> dict[str, str]:
        return {
            str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in sorted(folder.rglob("*"))
            if p.is_file()
        }

    keys: dict[str, Any] = {"patients": 8, "adults": 4, "duplicates": 1, "marker_shortcut": 0.5, **SMALL}
    one, two = (simulate(tmp_path / n, seed=11, **keys).folder for n in ("one", "two"))
    other = simulate(tmp_path / "other", seed=12, **keys).folder
    assert digest(one) == digest(two)
    assert digest(one).keys() != digest(other).keys()
    assert not set(digest(one).values()) & {
        h for name, h in digest(other).items() if name.endswith("png") and "mask" not in name
    }


def test_planted_markers_lie_on_the_share_of_positives_asked_for(planted: Simulated) -> None:
    truth = json.loads((planted.folder / "truth.json").read_text())["planted"]
    rows = table(planted.folder / "cohort.csv")
    bright = {r["case"] for r in rows if pixels(planted.folder / r["film"])[:8, :8].max() > 230}
    copies = {d["case"] for d in truth["duplicates"] if d["copy_of"] in bright}
    assert bright == set(truth["markers"]) | copies
    positive = {r["case"] for r in rows if r["diagnosis"] == "pneumonia"}
    assert bright < positive
    assert len(bright) / len(positive) == pytest.approx(0.7, abs=0.25)


def test_planted_copies_are_the_same_film_under_another_patient(planted: Simulated) -> None:
    truth = json.loads((planted.folder / "truth.json").read_text())["planted"]
    rows = {r["case"]: r for r in table(planted.folder / "cohort.csv")}
    assert len(truth["duplicates"]) == 6
    for pair in truth["duplicates"]:
        copy, source = rows[pair["case"]], rows[pair["copy_of"]]
        assert copy["patient"] != source["patient"]
        assert copy["diagnosis"] == source["diagnosis"]
        a, b = (pixels(planted.folder / r["film"]).astype(int) for r in (copy, source))
        assert (a != b).any()
        assert np.abs(a - b).mean() < 3


def test_planted_patients_appear_with_both_outcomes(planted: Simulated) -> None:
    outcomes: dict[str, set[str]] = {}
    for row in table(planted.folder / "cohort.csv"):
        outcomes.setdefault(row["patient"], set()).add(row["diagnosis"])
    both = {patient for patient, seen in outcomes.items() if len(seen) == 2}
    assert len(both) == 4
    assert both == set(json.loads((planted.folder / "truth.json").read_text())["planted"]["shared_patients"])


def test_an_honest_cohort_holds_nothing_planted(cohort: Simulated) -> None:
    truth = json.loads((cohort.folder / "truth.json").read_text())
    assert not any(truth["planted"].values())
    assert truth["kind"] == "exact, binormal"
    assert truth["ceiling_auc"] == cohort.ceiling_auc
    assert {r["patient"] for r in table(cohort.folder / "cohort.csv")}.__len__() == cohort.patients == PATIENTS


def test_file_sizes_do_not_tell_the_diagnosis(cohort: Simulated) -> None:
    assert len({p.stat().st_size for p in (cohort.folder / "films").iterdir()}) == 1


def test_adults_bear_the_fourteen_findings(planted: Simulated) -> None:
    rows = table(planted.folder / "adults" / "cohort.csv")
    assert len(rows) == 25
    assert list(rows[0])[4:] == list(FINDINGS)
    assert len(FINDINGS) == len(set(FINDINGS)) == 14
    assert all(r[f] in ("0", "1") for r in rows for f in FINDINGS)
    assert pixels(planted.folder / "adults" / rows[0]["film"]).shape == (64, 64)


def test_an_external_cohort_is_lighter_and_noisier(tmp_path: Path) -> None:
    home, away = (
        simulate(tmp_path / name, patients=10, seed=9, adults=0, shift=shift, **SMALL)
        for name, shift in (("home", 0.0), ("away", 1.0))
    )

    def corner_noise(s: Simulated) -> tuple[float, float]:
        films = [pixels(p).astype(float) for p in sorted((s.folder / "films").iterdir())]
        rough = np.median([np.median(np.abs(np.diff(f, axis=0))) for f in films])
        return float(np.mean(films)), float(rough)

    assert corner_noise(away)[0] > corner_noise(home)[0] + 5
    assert corner_noise(away)[1] > corner_noise(home)[1]
    assert away.ceiling_auc < home.ceiling_auc
    assert table(away.folder / "cohort.csv")[0]["site"] != table(home.folder / "cohort.csv")[0]["site"]


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "work.txt").write_text("mine")
    with pytest.raises(OutputError, match="something is there"):
        simulate(tmp_path / "mine", patients=6, adults=0, **SMALL)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["work.txt"]


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OutputError, match="No space left"):
        simulate(tmp_path / "out", patients=6, adults=0, **SMALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("key", "value"), [("patients", 0), ("prevalence", 1.5), ("duplicates", 500), ("size", 3)])
def test_an_impossible_value_is_named(tmp_path: Path, key: str, value: float) -> None:
    with pytest.raises(StudyError, match=key):
        simulate(tmp_path / "out", **{"patients": 10, key: value})  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_the_register_names_it() -> None:
    assert SIMULATORS["pneumonia"] is simulate


def _plan_of(cohort: Simulated, *, patients: int = PATIENTS, seed: int = 7, films: float = 1.0) -> list[Any]:
    truth = json.loads((cohort.folder / "truth.json").read_text())
    return plan(
        seed,
        patients=patients,
        prevalence=truth["prevalence"],
        films_per_patient=films,
        marker_shortcut=0.0,
        duplicates=0,
        shared_patients=0,
        sites=1,
    )
