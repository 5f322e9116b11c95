"""The NEC simulator: its ceilings are the design's, its posterior is calibrated, and only the law tells the class."""

from __future__ import annotations

import csv
import hashlib
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import special
from sklearn.metrics import roc_auc_score

from tenfold.errors import OutputError, StudyError
from tenfold.simulate import SIMULATORS, SimulatedNec
from tenfold.simulate.abdomen import SIGNS, Build, Exposure, Film, draw_abdomen
from tenfold.simulate.nec import LABS, READER_SKILLS, plan, report_labs, simulate
from tenfold.simulate.nec_law import DRAWN, EIGHT, MEASURED, NAMES, PANELS, Law, LogOdds, ceilings, standardised

ALL_27 = [entry.column for entry in LABS]
NEVER_MISSING = {"wbc", "platelets", "haemoglobin", "haematocrit"}


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def pixels(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as film:
        assert film.mode == "L"
        return np.asarray(film)


def column(rows: list[dict[str, str]], name: str) -> np.ndarray[Any, Any]:
    return np.array([float(r[name]) if r[name] else np.nan for r in rows])


def drawn(n: int, seed: int, missing: str = "realistic") -> tuple[Law, Any, Any, Any, Any, Any]:
    law, rng = Law.of(missing), np.random.default_rng(seed)
    ill = np.arange(n) < n // 2
    stage = law.draw_stages(ill, rng)
    return law, ill, stage, law.draw_labs(stage, rng), law.draw_signs(stage, rng), law.draw_missing(stage, rng)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> SimulatedNec:
    out = tmp_path_factory.mktemp("nec") / "cohort"
    return simulate(out, patients=200, seed=5, size=48, external=40, source=60, ineligible=12)


@pytest.fixture(scope="module")
def rows(cohort: SimulatedNec) -> list[dict[str, str]]:
    return table(cohort.folder / "cohort.csv")


# --- the law ----------------------------------------------------------------------------------------------------------


def test_ceilings_are_those_of_the_design() -> None:
    found = {name: figures["auc"] for name, figures in ceilings("none").items()}
    design = {"eight_labs": 0.839, "labs": 0.859, "signs": 0.890, "fused": 0.934}
    assert {name: found[name] for name in design} == pytest.approx(design, abs=0.01)
    by_stage = [ceilings("none")["fused"][f"auc_{s}"] for s in ("I", "II", "III")]
    assert by_stage == pytest.approx([0.827, 0.987, 0.999], abs=0.01)
    assert ceilings("none")["fused"]["balanced_accuracy"] == pytest.approx(0.864, abs=0.01)


def test_what_is_missing_at_random_costs_and_what_is_not_pays() -> None:
    complete, random, realistic = (ceilings(m)["labs_observed"]["auc"] for m in ("none", "random", "realistic"))
    assert random < complete - 0.003
    assert realistic > random + 0.01
    assert ceilings("none")["labs_observed"] == ceilings("none")["labs"]


def test_a_fulminant_course_with_low_crp_is_harder_to_see_in_the_values() -> None:
    assert ceilings("none", "fulminant_low")["labs"]["auc_III"] < ceilings("none")["labs"]["auc_III"] - 0.005


@pytest.mark.parametrize("name", ["eight_labs", "labs", "signs", "fused", "labs_observed", "fused_observed"])
def test_the_posterior_is_calibrated(name: str) -> None:
    law, ill, _, z, signs, missing = drawn(20_000, seed=11)
    p = special.expit(getattr(LogOdds.of(law, z, signs, missing), name))
    which = np.digitize(p, np.arange(0.1, 1.0, 0.1))
    for k in range(10):
        inside = which == k
        if inside.sum() > 200:
            error = np.sqrt(p[inside].mean() * (1 - p[inside].mean()) / inside.sum())
            assert ill[inside].mean() == pytest.approx(p[inside].mean(), abs=4 * error)


def test_integrating_out_what_is_missing_agrees_with_the_marginal_density() -> None:
    from scipy.stats import multivariate_normal

    law, _, _, z, _, _ = drawn(40, seed=3)
    z[:, [0, 3, 8]] = np.nan
    kept = [i for i in range(len(DRAWN)) if i not in (0, 3, 8)]
    dense = [
        multivariate_normal(law.means[s, kept], law.covariance[np.ix_(kept, kept)]).logpdf(z[:, kept]) for s in range(4)
    ]
    assert law.labs_evidence(z) == pytest.approx(np.stack(dense, 1) - dense[0][:, None], abs=1e-8)


def test_prevalence_shifts_the_log_odds_and_nothing_else() -> None:
    law, _, _, z, signs, missing = drawn(50, seed=4)
    rare, even = (LogOdds.of(law, z, signs, missing, p).fused for p in (0.07, 0.5))
    assert rare == pytest.approx(even + special.logit(0.07))


def test_the_sick_are_measured_more_and_nobody_misses_too_much() -> None:
    _, _, stage, _, _, missing = drawn(40_000, seed=6)
    for i, panel in enumerate(PANELS):
        share = [missing[stage == s, i].mean() for s in range(4)]
        assert missing[:, i].mean() == pytest.approx(panel.missing, rel=0.45)
        falls = share == sorted(share, reverse=True) and share[0] > 2 * share[3]
        assert bool(falls) == panel.informative
    assert (missing @ np.array([p.measured for p in PANELS])).max() <= 0.3 * MEASURED


def test_panels_hold_together_what_would_give_a_missing_value_away() -> None:
    together = [
        {"ph", "pco2", "base_excess", "bicarbonate"},
        {"neutrophils", "neutrophil_percent", "lymphocytes", "nlr", "plr"},
    ]
    for group in together:
        assert any(group <= set(p.columns) for p in PANELS)
    in_panels = [c for p in PANELS for c in p.columns]
    assert len(in_panels) == len(set(in_panels))
    assert set(in_panels) | NEVER_MISSING == set(ALL_27)
    assert set(EIGHT) <= set(NAMES)


# --- the values -------------------------------------------------------------------------------------------------------


def test_values_are_consistent_with_each_other() -> None:
    _, _, _, z, _, _ = drawn(4000, seed=7)
    lab = report_labs(z, np.random.default_rng(0))
    assert len(lab) == len(LABS) == 27
    assert lab["neutrophils"] == pytest.approx(lab["wbc"] * lab["neutrophil_percent"] / 100, rel=0.02, abs=0.03)
    assert np.all(lab["neutrophils"] + lab["lymphocytes"] + lab["monocytes"] <= lab["wbc"] + 0.03)
    assert lab["nlr"] == pytest.approx(lab["neutrophils"] / lab["lymphocytes"], abs=6e-4)
    assert lab["plr"] == pytest.approx(lab["platelets"] / lab["lymphocytes"], abs=6e-3)
    henderson = 6.1 + np.log10(lab["bicarbonate"] / (0.0307 * lab["pco2"]))
    ordinary = lab["bicarbonate"] > 10
    assert lab["ph"][ordinary] == pytest.approx(henderson[ordinary], abs=0.005)
    for entry in LABS:
        assert np.isfinite(lab[entry.column]).all()
        assert np.mean((lab[entry.column] >= entry.low) & (lab[entry.column] <= entry.high)) > 0.998


def test_reported_values_give_the_standardised_ones_back() -> None:
    _, _, _, z, _, _ = drawn(4000, seed=8)
    lab = report_labs(z, np.random.default_rng(0))
    error = np.abs(standardised(lab) - z)
    assert np.mean(error) < 0.004
    assert np.mean(error > 0.1) < 0.001


def test_values_without_nec_have_the_means_of_the_design() -> None:
    law = Law.of("none")
    z = law.draw_labs(np.zeros(20_000, int), np.random.default_rng(0))
    lab = report_labs(z, np.random.default_rng(1))
    middle = {name: float(np.median(lab[name])) for name in ("crp", "pct", "il6", "platelets", "ph", "transferrin")}
    design = {"crp": 1.2, "pct": 0.35, "il6": 10, "platelets": 250, "ph": 7.36, "transferrin": 1.2}
    assert middle == pytest.approx(design, rel=0.04)
    assert np.corrcoef(z[:, NAMES.index("crp")], z[:, NAMES.index("pct")])[0, 1] == pytest.approx(0.36, abs=0.02)


# --- the patients -----------------------------------------------------------------------------------------------------


def test_table_one_is_the_printed_one() -> None:
    newborns = plan(1, patients=408)
    for ill, sexes, weeks in ((False, (100, 104), (82, 62, 41, 19)), (True, (98, 106), (84, 65, 40, 15))):
        those = [n for n in newborns if n.ill == ill]
        assert (sum(n.sex == "M" for n in those), sum(n.sex == "F" for n in those)) == sexes
        bins = np.histogram([n.weeks for n in those], [26, 30, 35, 38, 41])[0]
        assert tuple(bins) == weeks
        assert {sum(n.site == f"hospital {h}" for n in those) for h in (1, 2, 3)} == {68}


def test_nothing_in_the_cohort_file_restates_the_answer(cohort: SimulatedNec, rows: list[dict[str, str]]) -> None:
    assert list(rows[0])[:10] == [
        "case", "patient", "site", "date", "film", "sign_mask", "diagnosis", "sex", "gestational_age", "birth_weight",
    ]  # fmt: skip
    ill = np.array([r["diagnosis"] == "NEC" for r in rows])
    # Apart from the values themselves, every column is drawn without the class; a column of noise strays by 4 errors.
    for name in ("case", "patient", "site", "date", "sex", "gestational_age", "birth_weight", "admission", "condition"):
        cells = np.unique([r[name] for r in rows], return_inverse=True)[1]
        assert abs(roc_auc_score(ill, cells) - 0.5) < 4 * np.sqrt(1 / (12 * 100)), name
    for name in ALL_27:
        value = column(rows, name)
        seen = np.isfinite(value)
        assert 0.15 < roc_auc_score(ill[seen], value[seen]) < 0.85, name
    sizes = {p.stat().st_size for p in (cohort.folder / "films").iterdir()}
    assert len(sizes) == 1


def test_truth_follows_from_the_files(cohort: SimulatedNec, rows: list[dict[str, str]]) -> None:
    truths = table(cohort.folder / "truth.csv")
    law = Law.of("realistic")
    z = standardised({name: column(rows, name) for name in NAMES})
    signs = np.array([[t[s] == "1" for s in SIGNS] for t in truths])
    panels = np.array([[r[p.columns[0]] == "" for p in PANELS] for r in rows])
    evidence = law.labs_evidence(z) + law.missing_evidence(panels) + law.signs_evidence(signs)
    weights = np.log([0.35, 0.45, 0.20])
    p = special.expit(special.logsumexp(evidence[:, 1:] + weights, axis=1) - evidence[:, 0])
    assert column(truths, "posterior_fused_observed") == pytest.approx(p, abs=1e-6)
    assert {t["stage"] for t, r in zip(truths, rows, strict=True) if r["diagnosis"] == "non-NEC"} == {"0"}
    facts = json.loads((cohort.folder / "truth.json").read_text("utf-8"))
    assert facts["ceiling_auc"] == cohort.ceiling_auc == cohort.ceilings["fused_observed"]
    assert facts["ceilings"]["fused"] == pytest.approx(0.934, abs=0.01)


def test_rules_of_eligibility_find_what_was_added(rows: list[dict[str, str]]) -> None:
    empty = np.array([sum(r[c] == "" for c in ALL_27 if c not in ("nlr", "plr")) for r in rows])
    found = [
        r["admission"] == "2" or r["condition"] != "none" or n > 0.3 * 25 for r, n in zip(rows, empty, strict=True)
    ]
    assert len(rows) == 212
    assert not any(found[:200])
    assert all(found[200:])
    first_days = {r["patient"]: r["date"] for r in rows[:200]}
    again = [r for r in rows if r["admission"] == "2"]
    assert again
    assert all(r["date"] > first_days[r["patient"]] for r in again)


def test_the_literal_preset_misses_nothing(tmp_path: Path) -> None:
    made = simulate(tmp_path / "out", patients=20, size=48, external=0, source=0, missing="none")
    assert all(r[c] != "" for r in table(made.folder / "cohort.csv") for c in ALL_27)
    assert not (made.folder / "external").exists()
    assert not (made.folder / "source").exists()


def test_the_column_dictionary_is_one_that_tables_are_read_with(cohort: SimulatedNec) -> None:
    columns = importlib.import_module("tenfold.modalities.columns").read_columns(cohort.folder / "columns.csv")
    assert [c.name for c in columns] == ALL_27
    assert {c.name: c.formula for c in columns if c.formula} == {
        "nlr": "neutrophils / lymphocytes",
        "plr": "platelets / lymphocytes",
    }


def test_external_patients_are_others_and_half_are_ill(cohort: SimulatedNec, rows: list[dict[str, str]]) -> None:
    others = table(cohort.folder / "external/cohort.csv")
    assert sum(r["diagnosis"] == "NEC" for r in others) == 20
    for name in ("case", "patient", "site"):
        assert not {r[name] for r in others} & {r[name] for r in rows}


def test_readers_have_the_skill_they_are_said_to_have(tmp_path: Path) -> None:
    made = simulate(tmp_path / "out", patients=4, size=48, external=400, source=0, seed=2)
    ratings, truth = table(made.folder / "external/readers.csv"), json.loads((made.folder / "truth.json").read_text())
    ill = {r["case"]: r["diagnosis"] == "NEC" for r in table(made.folder / "external/cohort.csv")}
    for r, skill in enumerate(READER_SKILLS):
        mine = [row for row in ratings if row["reader"] == f"reader {r + 1}"]
        assert len(mine) == 400
        score = np.array([int(row["rating"]) for row in mine])
        assert score.min() >= 0
        assert score.max() <= 100
        here = roc_auc_score([ill[row["case"]] for row in mine], score)
        assert here == pytest.approx(skill, abs=3 * 0.02)
        assert truth["external"]["readers"][f"reader {r + 1}"]["auc_here"] == pytest.approx(here)


def test_older_children_bear_every_sign_often_and_have_no_diagnosis(cohort: SimulatedNec) -> None:
    older = table(cohort.folder / "source/cohort.csv")
    assert list(older[0]) == ["case", "patient", "site", "film", *SIGNS]
    has = np.array([[int(r[s]) for s in SIGNS] for r in older])
    assert has.mean() == pytest.approx(0.25, abs=0.06)
    assert all((cohort.folder / "source" / r["film"]).is_file() for r in older)


# --- the films --------------------------------------------------------------------------------------------------------


def film(signs: tuple[str, ...], n: int = 0, legibility: float = 1.0) -> Film:
    layout, sign = np.random.default_rng([1, n]), np.random.default_rng([2, n])
    return draw_abdomen(Build(), Exposure(), signs, 96, layout=layout, sign=sign, legibility=legibility)


@pytest.mark.parametrize("sign", [s for s in SIGNS if s != "ascites"])
def test_a_sign_changes_the_film_where_its_mask_is(sign: str) -> None:
    for n in range(4):
        plain, signed = film((), n).grey, film((sign,), n)
        change, mask = np.abs(signed.grey - plain), signed.masks[sign]
        assert set(signed.masks) == {sign}
        assert change[mask].mean() > 12
        # Soft edges may lie outside, and nothing else.
        assert change[mask].sum() > 0.9 * change.sum()


def test_fluid_whitens_the_flanks_and_gathers_the_loops() -> None:
    plain, signed = film(()).grey, film(("ascites",))
    assert (signed.grey - plain)[signed.masks["ascites"]].mean() > 30


def test_without_legibility_signs_leave_no_trace() -> None:
    for n in range(3):
        assert np.array_equal(film(tuple(SIGNS), n, legibility=0.0).grey, film((), n).grey)
    half, whole = (np.abs(film(("wall",), 0, x).grey - film((), 0).grey).sum() for x in (0.4, 1.0))
    assert 0 < half < 0.6 * whole


def test_normal_films_differ_from_each_other() -> None:
    flat = np.stack([film((), n).grey.ravel() for n in range(12)])
    flat -= flat.mean(0)
    alike = np.corrcoef(flat)[np.triu_indices(12, 1)]
    assert alike.max() < 0.6


def test_masks_of_the_files_lie_where_signs_are(cohort: SimulatedNec, rows: list[dict[str, str]]) -> None:
    for row, truth in zip(rows, table(cohort.folder / "truth.csv"), strict=True):
        assert bool(row["sign_mask"]) == any(truth[s] == "1" for s in SIGNS)
    first = next(r for r in rows if r["sign_mask"])
    mask = pixels(cohort.folder / first["sign_mask"])
    assert mask.shape == pixels(cohort.folder / first["film"]).shape
    assert 0.005 < (mask > 0).mean() < 0.6


# --- files ------------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    def digest(seed: int, name: str) -> dict[str, str]:
        out = tmp_path / name
        simulate(out, patients=12, seed=seed, size=48, external=6, source=4)
        return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in out.rglob("*.*")}

    first = digest(1, "a")
    assert first == digest(1, "b")
    assert first["cohort.csv"] != digest(2, "c")["cohort.csv"]


def test_it_is_registered_and_refuses_nonsense(tmp_path: Path) -> None:
    assert SIMULATORS["nec"] is simulate
    for wrong in ({"legibility": 1.5}, {"missing": "realistik"}, {"crp": "low"}, {"external": 2}, {"prevalence": 0.0}):
        with pytest.raises(StudyError):
            simulate(tmp_path / "out", **{"patients": 20, **wrong})  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/work.txt").write_text("x")
    with pytest.raises(OutputError):
        simulate(tmp_path / "mine", patients=20, external=0, source=0)
