"""Simulated newborns with and without necrotising enterocolitis: 27 laboratory values and a film, the truth known.

It must not know how values and films are read, split, learned from or judged.

The law of stages, values, signs and missing cells, and the exact posterior, are in `nec_law`; the drawing of a film is
in `abdomen`. Signs are drawn plainly at `legibility` 1, so that a reader of films can come near the posterior of the
signs; pixels can only tell less than the signs do, so that it stays the ceiling at any legibility.

Sex and gestational age of the two classes are those of table 1 of Cui et al. (Front Pediatr 2024;12:1388320), to the
child at 408 patients; they, birth weight, site, date, and all that varies in a film without a sign are drawn without
looking at the class or at each other. Laboratory values do not depend on gestational age either.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from tenfold.simulate import nec_law
from tenfold.simulate.abdomen import SIGNS, Build, Exposure, Film, draw_abdomen, vary_build, vary_exposure
from tenfold.simulate.files import refuse_impossible, save_film, write_csv, written_whole
from tenfold.simulate.nec_law import PANELS, STAGES, Crp, Law, LogOdds, Missing
from tenfold.types import FloatArray, IntArray

NON_NEC, NEC = "non-NEC", "NEC"

NOISE = 4.0
"""SD of a pixel, grey levels, in films of the home hospitals."""
EXTERNAL_NOISE, EXTERNAL_LIGHTER, EXTERNAL_CONTRAST = 5.5, 10.0, 0.92
EXTERNAL_SHIFT = {"crp": 0.15, "il6": 0.15, "platelets": -0.15, "wbc": 0.10, "total_protein": -0.10}
"""How much higher the other hospital measures, ill and well alike, in SD within a stage."""
OLDER = Build(0.70, -0.66, 0.085, 0.95, 108.0, 20.0, 58.0, 36.0)
OLDER_EXPOSURE = Exposure(0.0, 1.05, 0.0, 0.0, -4.0, 1.05)
OLDER_NOISE, OLDER_SHARE = 5.5, 0.25
READER_SKILLS = (0.80, 0.84, 0.88)
"""AUC of the readers in an endless external set; more readers go through them again."""
_SHARED_DOUBT = 0.5
"""Part of the variance of the readers' noise that they have in common: some cases are hard for everybody."""
_TEMPERS = ((0.0, 3.0), (-1.0, 2.2), (1.0, 4.0))
"""How a reader turns log-odds into a rating: what is added, what it is divided by."""

_SEXES = {"M": (100, 98), "F": (104, 106)}
_WEEKS = {(26, 29): (82, 84), (30, 34): (62, 65), (35, 37): (41, 40), (38, 40): (19, 15)}
"""Table 1: weeks of gestation -> children without and with NEC."""
_WEIGHT_WEEKS = (26, 28, 30, 32, 34, 36, 38, 40)
_WEIGHT_GRAMS = (850, 1050, 1380, 1750, 2200, 2650, 3100, 3450)
"""Median weight at birth, rounded from growth charts; boys 2 % above, girls 2 % below."""
_CONDITIONS = ("congenital malformation", "pneumonia or sepsis")

_PLAN, _LABS, _NOISE_LABS, _SIGNS, _MISSING, _LAYOUT, _SIGN_LAYOUT, _GRAIN, _READERS = range(9)
"""Streams of chance. One each, so that what must not depend on the diagnosis cannot do so even by accident."""
_HOME, _EXTERNAL, _OLDER = range(3)


@dataclass(frozen=True)
class Lab:
    """A row of the column dictionary, and with how many digits the laboratory reports."""

    column: str
    label: str
    unit: str
    loinc: str
    digits: int
    low: float
    high: float
    normal_low: float
    normal_high: float
    formula: str = ""
    transform: str = "none"


LABS = (
    Lab("crp", "C-reactive protein", "mg/L", "1988-5", 2, 0, 500, 0, 8, transform="log"),
    Lab("pct", "Procalcitonin", "ng/mL", "33959-8", 3, 0, 500, 0, 0.5, transform="log"),
    Lab("il6", "Interleukin 6", "pg/mL", "26881-3", 2, 0, 10000, 0, 30, transform="log"),
    Lab("wbc", "White blood cells", "10*9/L", "6690-2", 2, 0.1, 150, 3.4, 21.2, transform="log"),
    Lab("neutrophils", "Neutrophils", "10*9/L", "751-8", 2, 0, 120, 0.64, 12.7),
    Lab("neutrophil_percent", "Neutrophils, share", "%", "770-8", 1, 0, 100, 20, 75),
    Lab("lymphocytes", "Lymphocytes", "10*9/L", "731-0", 2, 0, 60, 2.06, 9.72),
    Lab("monocytes", "Monocytes", "10*9/L", "742-7", 2, 0, 20, 0.2, 3.0),
    Lab("nlr", "Neutrophils to lymphocytes", "1", "", 3, 0, 1000, 0.1, 4.0, "neutrophils / lymphocytes", "log"),
    Lab("plr", "Platelets to lymphocytes", "1", "", 2, 0, 50000, 15, 150, "platelets / lymphocytes", "log"),
    Lab("platelets", "Platelets", "10*9/L", "777-3", 1, 0, 1500, 114, 375),
    Lab("haemoglobin", "Haemoglobin", "g/L", "718-7", 1, 30, 280, 127, 203),
    Lab("haematocrit", "Haematocrit", "1", "4544-3", 3, 0.08, 0.85, 0.38, 0.60),
    Lab("total_protein", "Total protein", "g/L", "2885-2", 1, 15, 100, 34, 63),
    Lab("albumin", "Albumin", "g/L", "1751-7", 1, 5, 60, 20, 40),
    Lab("transferrin", "Transferrin", "g/L", "3034-6", 3, 0, 5, 0.6, 2.0),
    Lab("ph", "Blood pH", "[pH]", "11558-4", 3, 6.5, 7.9, 7.25, 7.45),
    Lab("pco2", "Carbon dioxide pressure", "mm[Hg]", "11557-6", 1, 5, 200, 30, 55),
    Lab("base_excess", "Base excess", "mmol/L", "11555-0", 2, -35, 35, -7, 3),
    Lab("bicarbonate", "Bicarbonate", "mmol/L", "1959-6", 1, 1, 60, 18, 27),
    Lab("lactate", "Lactate", "mmol/L", "32693-4", 2, 0, 40, 0.5, 2.2, transform="log"),
    Lab("glucose", "Glucose", "mmol/L", "15074-8", 2, 0.1, 60, 2.6, 8.3, transform="log"),
    Lab("sodium", "Sodium", "mmol/L", "2951-2", 1, 100, 190, 131, 142),
    Lab("potassium", "Potassium", "mmol/L", "2823-3", 2, 1, 12, 3.5, 6.5),
    Lab("creatinine", "Creatinine", "umol/L", "14682-9", 1, 5, 1000, 27, 85),
    Lab("bilirubin", "Bilirubin, total", "umol/L", "14631-6", 1, 1, 800, 20, 200),
    Lab("alt", "Alanine aminotransferase", "U/L", "1742-6", 1, 0, 5000, 5, 45, transform="log"),
)
"""The 27 values; reference intervals of preterm infants where systems.md cites them (PLoS One 2016;11:e0161439)."""


@dataclass(frozen=True)
class SimulatedNec:
    """What was written, and what the best reader of it can reach.

    Attributes:
        folder: Holds cohort.csv, columns.csv, films/, masks/, truth.csv, truth.json, external/ and source/.
        patients: Newborns who are eligible.
        cases: Rows of cohort.csv.
        ceilings: AUC of the exact posteriors, by what they see, as in `nec_law.LogOdds`.
    """

    folder: Path
    patients: int
    cases: int
    ceilings: dict[str, float]

    @property
    def ceiling_auc(self) -> float:
        """AUC of the exact posterior from the values that were measured and the signs on the film."""
        return self.ceilings["fused_observed"]


@dataclass(frozen=True)
class Newborn:
    """One planned row.

    Attributes:
        number: With the seed and the group it fixes all that is drawn.
        ill: NEC or not.
        patient: The name under which it is filed.
        case: The name of the examination.
        site: Of the hospital.
        day: Of the film.
        sex: "F" or "M".
        weeks: Gestational age.
        grams: Birth weight.
        admission: 1, or 2 for a second admission.
        condition: A condition that excludes it, otherwise empty.
        sparse: More than 30 % of its values were never measured.
    """

    number: int
    ill: bool
    patient: str
    case: str
    site: str
    day: date
    sex: str
    weeks: int
    grams: int
    admission: int = 1
    condition: str = ""
    sparse: bool = False


def simulate(
    out: Path,
    *,
    patients: int = 408,
    seed: int = 1,
    size: int = 96,
    external: int = 50,
    source: int = 1000,
    missing: Missing = "realistic",
    legibility: float = 1.0,
    readers: int = 3,
    sites: int = 3,
    prevalence: float = 0.5,
    ineligible: int = 0,
    crp: Crp = "rising",
) -> SimulatedNec:
    """Write a cohort of newborns, an external one with its readers, and older children to learn signs from first.

    The same arguments give the same bytes (of one version of Pillow). Names hold the seed, so that cohorts of
    different seeds share no patient; external patients have names of their own.

    Args:
        out: A folder that does not exist yet, or is empty.
        patients: Newborns who are eligible.
        seed: All that is drawn by chance follows from it.
        size: Pixels a side of the films.
        external: Newborns of another hospital, one half with NEC; 0 writes none.
        source: Films of older children with the seven signs as 0/1 columns; 0 writes none.
        missing: Cells that were not measured: "none", "random", or "realistic" (the sick are measured more).
        legibility: Contrast and size of the signs, 0 (none) to 1 (plain).
        readers: Of the external set; 0 writes no readers.csv.
        sites: Home hospitals; they differ a little in exposure.
        prevalence: Share of newborns with NEC.
        ineligible: Rows beyond `patients` that eligibility rules must find: second admissions, other conditions,
            more than 30 % of the values missing, in turn.
        crp: "rising" with the stage, or "fulminant_low": low again in stage III.

    Returns:
        The folder, the counts and the ceilings.

    Raises:
        StudyError: An impossible value.
        OutputError: `out` holds something, or cannot be written to.
    """
    refuse_impossible(
        "nec",
        patients=(patients, 4, 100_000),
        seed=(seed, 0, 2**32),
        size=(size, 48, 2048),
        external=(external, 0, 100_000),
        source=(source, 0, 100_000),
        legibility=(legibility, 0.0, 1.0),
        readers=(readers, 0, 50),
        sites=(sites, 1, 100),
        prevalence=(prevalence, 0.05, 0.95),
        ineligible=(ineligible, 0, patients),
    )
    refuse_impossible("nec", external=(external if external else 4, 4, 100_000))
    law = Law.of(missing, crp)
    best = nec_law.ceilings(missing, crp)
    here = _World(law, seed, size, legibility, prevalence)
    elsewhere = replace(here, prevalence=0.5, external=True)
    ceilings = {name: figures["auc"] for name, figures in best.items()}
    with written_whole(out) as folder:
        newborns = plan(seed, patients=patients, prevalence=prevalence, sites=sites, ineligible=ineligible)
        realised = _write_newborns(folder, newborns, here)[1]
        truth = {
            "simulator": "nec",
            "seed": seed,
            "patients": patients,
            "cases": len(newborns),
            "ceiling_auc": ceilings["fused_observed"],
            "kind": "AUC of the exact posterior by Monte Carlo, 40,000 newborns a class, standard error 0.001",
            "ceilings": ceilings,
            "ceiling_figures": best,
            "posterior_auc_in_this_cohort": realised,
            "prevalence": prevalence,
            "size": size,
            "missing": missing,
            "legibility": legibility,
            "crp": crp,
            "signs": {name: nec_law.SIGN_SHARES[:, i].tolist() for i, name in enumerate(SIGNS)},
            "stage_shares": dict(zip(STAGES[1:], nec_law.STAGE_SHARES, strict=True)),
            "ineligible": ineligible,
        }
        if external:
            truth["external"] = _write_external(folder / "external", external, elsewhere, readers, missing, crp)
        if source:
            _write_older(folder / "source", source, seed, size)
        (folder / "truth.json").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")
    return SimulatedNec(out, patients, len(newborns), ceilings)


@dataclass(frozen=True)
class _World:
    """What the newborns of one file have in common."""

    law: Law
    seed: int
    size: int
    legibility: float
    prevalence: float
    external: bool = False

    def chance(self, stream: int, *which: int) -> np.random.Generator:
        """A generator of its own for every purpose."""
        return np.random.default_rng([self.seed, _EXTERNAL if self.external else _HOME, stream, *which])

    @property
    def shift(self) -> FloatArray:
        """What this hospital adds to the standardised values, (15,)."""
        return np.array([EXTERNAL_SHIFT.get(name, 0.0) if self.external else 0.0 for name in nec_law.NAMES])


def plan(
    seed: int, *, patients: int, prevalence: float = 0.5, sites: int = 3, ineligible: int = 0, external: bool = False
) -> list[Newborn]:
    """Decide who is examined where and when and with which outcome, in the order of the cohort file.

    Arguments as in `simulate`; `external` names patients and the hospital otherwise and dates them later.
    """
    rng = np.random.default_rng([seed, _EXTERNAL if external else _HOME, _PLAN])
    letter, first_day, days = ("x", date(2024, 2, 1), 240) if external else ("n", date(2022, 1, 1), 750)
    ill = np.arange(patients) < int(np.clip(round(prevalence * patients), 1, patients - 1))
    sexes, spans, hospitals = (np.empty(patients, object) for _ in range(3))
    for outcome in (0, 1):
        those = ill == bool(outcome)
        sexes[those] = _apportioned({k: v[outcome] for k, v in _SEXES.items()}, int(those.sum()), rng)
        # Dealt within the class, lest a hospital tell the outcome by bad luck.
        hospitals[those] = _apportioned(dict.fromkeys(range(sites), 1), int(those.sum()), rng)
        spans[those] = _apportioned({k: v[outcome] for k, v in _WEEKS.items()}, int(those.sum()), rng)
    newborns = []
    for number, who in enumerate(rng.permutation(patients).tolist()):
        weeks = int(rng.integers(spans[who][0], spans[who][1] + 1))
        site = "other hospital" if external else f"hospital {hospitals[who] + 1}"
        newborns.append(
            Newborn(
                number,
                bool(ill[who]),
                f"{letter}{seed}-{number + 1:04d}",
                f"{'e' if external else 'c'}{seed}-{number + 1:04d}",
                site,
                first_day + timedelta(days=int(rng.integers(days))),
                sexes[who],
                weeks,
                _weight(weeks, sexes[who], rng),
            )
        )
    return newborns + [_ineligible(newborns, i, seed, rng) for i in range(ineligible)]


def _ineligible(newborns: Sequence[Newborn], i: int, seed: int, rng: np.random.Generator) -> Newborn:
    """A row that a rule of eligibility leaves out; second admissions, conditions and sparse rows take turns."""
    number = len(newborns) + i
    like = newborns[int(rng.integers(len(newborns)))]
    row = replace(like, number=number, case=f"c{seed}-{number + 1:04d}")
    if i % 3 == 0:
        return replace(row, admission=2, day=like.day + timedelta(days=int(rng.integers(10, 60))))
    row = replace(
        row, patient=f"n{seed}-{number + 1:04d}", day=date(2022, 1, 1) + timedelta(days=int(rng.integers(750)))
    )
    return replace(row, condition=_CONDITIONS[int(rng.integers(2))]) if i % 3 == 1 else replace(row, sparse=True)


def _apportioned(counts: Mapping[Any, int], n: int, rng: np.random.Generator) -> NDArray[Any]:
    """Deal n places in the proportions of the counts (largest remainders), in random order."""
    exact = np.array(list(counts.values()), float) * n / sum(counts.values())
    places = np.floor(exact).astype(int)
    places[np.argsort(places - exact, kind="stable")[: n - places.sum()]] += 1
    dealt = np.empty(n, object)
    dealt[:] = [key for key, count in zip(counts, places.tolist(), strict=True) for _ in range(count)]
    return rng.permutation(dealt)


def _weight(weeks: int, sex: str, rng: np.random.Generator) -> int:
    median = float(np.interp(weeks, _WEIGHT_WEEKS, _WEIGHT_GRAMS)) * (1.02 if sex == "M" else 0.98)
    return 10 * round(median * math.exp(0.13 * float(np.clip(rng.standard_normal(), -2.5, 2.5))) / 10)


def report_labs(z: FloatArray, rng: np.random.Generator) -> dict[str, FloatArray]:
    """Return the 27 values as laboratories report them, rounded and consistent with each other.

    Counts follow from the white cells and the share of neutrophils, the ratios from the counts as reported.
    Bicarbonate follows from pH and base excess by the Van Slyke equation at a fixed haemoglobin, BE = 0.93 (HCO3 -
    24.4 + 14.8 (pH - 7.4)) with everything in mmol/L, carbon dioxide from these by Henderson and Hasselbalch. The rest
    is chance that does not know the stage.

    Args:
        z: Standardised values of `nec_law.DRAWN`, (n, 15).
        rng: For what the fifteen leave open.

    Returns:
        Column -> values, (n,), in the order of `LABS`.
    """
    n = len(z)
    lab = {d.name: d.reported(z[:, i]) for i, d in enumerate(nec_law.DRAWN)}
    others = lab["wbc"] * (100 - lab["neutrophil_percent"]) / 100
    share = np.clip(rng.normal(0.80, 0.05, n), 0.60, 0.92)
    lab["neutrophils"] = lab["wbc"] * lab["neutrophil_percent"] / 100
    lab["lymphocytes"] = np.maximum(others * share, 0.01)
    lab["monocytes"] = others * (1 - share) * rng.uniform(0.5, 0.9, n)
    lab["haematocrit"] = lab["haemoglobin"] / rng.normal(335, 7, n)
    lab["ph"], lab["base_excess"] = np.round(lab["ph"], 3), np.round(lab["base_excess"], 2)
    lab["bicarbonate"] = np.maximum(lab["base_excess"] / 0.93 + 24.4 - 14.8 * (lab["ph"] - 7.4), 1.5)
    lab["pco2"] = lab["bicarbonate"] / (0.0307 * 10 ** (lab["ph"] - 6.1))
    lab["potassium"] = rng.normal(4.8, 0.6, n)
    lab["creatinine"] = 55 * np.exp(0.28 * rng.standard_normal(n))
    lab["bilirubin"] = 90 * np.exp(0.45 * rng.standard_normal(n))
    lab["alt"] = 14 * np.exp(0.40 * rng.standard_normal(n))
    reported = {}
    for entry in LABS:
        if not entry.formula:
            least = 10.0**-entry.digits if entry.low >= 0 else -math.inf
            reported[entry.column] = np.maximum(np.round(lab[entry.column], entry.digits), least)
    for entry in LABS:
        if entry.formula:
            top, bottom = entry.formula.split(" / ")
            reported[entry.column] = np.round(reported[top] / reported[bottom], entry.digits)
    return {entry.column: reported[entry.column] for entry in LABS}


def draw_film(
    seed: int,
    number: int,
    signs: Sequence[str],
    *,
    size: int,
    group: int = _HOME,
    legibility: float = 1.0,
    build: Build | None = None,
    exposure: Exposure | None = None,
) -> Film:
    """Draw a film without noise: the diagnosis is not among the arguments.

    Args:
        seed: The cohort's.
        number: Of the row in its group.
        signs: Which signs it bears.
        size: Pixels a side.
        group: Newborns at home, elsewhere, or older children.
        legibility: As in `simulate`.
        build: The mean child.
        exposure: The mean exposure.
    """
    layout = np.random.default_rng([seed, group, _LAYOUT, number])
    return draw_abdomen(
        vary_build(build or Build(), layout),
        vary_exposure(exposure or Exposure(), layout),
        signs,
        size,
        layout=layout,
        sign=np.random.default_rng([seed, group, _SIGN_LAYOUT, number]),
        legibility=legibility,
    )


def _write_newborns(folder: Path, newborns: Sequence[Newborn], world: _World) -> tuple[LogOdds, dict[str, float]]:
    """Write films, masks, cohort.csv, columns.csv and truth.csv.

    Returns:
        The log-odds of all rows, and the AUC of each in the eligible ones.
    """
    ill = np.array([n.ill for n in newborns])
    stage = world.law.draw_stages(ill, world.chance(_LABS, 0))
    z = world.law.draw_labs(stage, world.chance(_LABS, 1)) + world.shift
    labs = report_labs(z, world.chance(_NOISE_LABS))
    signs = world.law.draw_signs(stage, world.chance(_SIGNS))
    panels = world.law.draw_missing(stage, world.chance(_MISSING))
    sparse = np.array([n.sparse for n in newborns])
    panels[sparse, :] |= np.array([len(p.columns) > 2 for p in PANELS])
    as_read = nec_law.standardised(labs) - world.shift
    odds = LogOdds.of(world.law, as_read, signs, panels, world.prevalence)
    rows = []
    for i, newborn in enumerate(newborns):
        mask = _write_film(folder, newborn, [s for s, has in zip(SIGNS, signs[i], strict=True) if has], world)
        empty = {c for p, gone in zip(PANELS, panels[i], strict=True) if gone for c in p.columns}
        cells = {e.column: "" if e.column in empty else f"{labs[e.column][i]:.{e.digits}f}" for e in LABS}
        rows.append({**_row(newborn, mask), **cells})
    write_csv(folder / "cohort.csv", rows)
    write_csv(folder / "columns.csv", [_dictionary_row(entry) for entry in LABS])
    write_csv(folder / "truth.csv", _truth_rows(newborns, stage, signs, panels, odds))
    eligible = np.array([n.admission == 1 and not n.condition and not n.sparse for n in newborns])
    return odds, {name: nec_law.auc(score[eligible], ill[eligible]) for name, score in vars(odds).items()}


def _write_film(folder: Path, newborn: Newborn, signs: Sequence[str], world: _World) -> str:
    """Write a film, and the mask of its signs if it has any; return the path of the mask or nothing."""
    if world.external:
        noise, exposure = EXTERNAL_NOISE, Exposure(lighter=EXTERNAL_LIGHTER, contrast=EXTERNAL_CONTRAST)
    else:
        noise, exposure = NOISE, Exposure(lighter=3.0 * (int(newborn.site.split()[-1]) % 3 - 1))
    film = draw_film(
        world.seed,
        newborn.number,
        signs,
        size=world.size,
        group=_EXTERNAL if world.external else _HOME,
        legibility=world.legibility,
        exposure=exposure,
    )
    grain = world.chance(_GRAIN, newborn.number).standard_normal(film.grey.shape, np.float32)
    save_film(film.grey + np.float32(noise) * grain, folder / f"films/{newborn.case}.png")
    if not film.masks:
        return ""
    save_film(255 * np.any(list(film.masks.values()), axis=0), folder / f"masks/{newborn.case}.png")
    return f"masks/{newborn.case}.png"


def _row(newborn: Newborn, mask: str) -> dict[str, Any]:
    """A row of the cohort file but for the laboratory values."""
    return {
        "case": newborn.case,
        "patient": newborn.patient,
        "site": newborn.site,
        "date": newborn.day.isoformat(),
        "film": f"films/{newborn.case}.png",
        "sign_mask": mask,
        "diagnosis": NEC if newborn.ill else NON_NEC,
        "sex": newborn.sex,
        "gestational_age": newborn.weeks,
        "birth_weight": newborn.grams,
        "admission": newborn.admission,
        "condition": newborn.condition or "none",
    }


def _dictionary_row(entry: Lab) -> dict[str, Any]:
    """A row of the column dictionary, its keys being the headings."""
    return {
        "column": entry.column,
        "label": entry.label,
        "kind": "number",
        "unit": entry.unit,
        "loinc": entry.loinc,
        "levels": "",
        "low": entry.low,
        "high": entry.high,
        "normal_low": entry.normal_low,
        "normal_high": entry.normal_high,
        "formula": entry.formula,
        "transform": entry.transform,
    }


def _truth_rows(
    newborns: Sequence[Newborn],
    stage: IntArray,
    signs: NDArray[np.bool_],
    panels: NDArray[np.bool_],
    odds: LogOdds,
) -> list[dict[str, Any]]:
    posteriors = {f"posterior_{name}": special.expit(score) for name, score in vars(odds).items()}
    return [
        {
            "case": newborn.case,
            "stage": STAGES[stage[i]],
            **{name: int(signs[i, j]) for j, name in enumerate(SIGNS)},
            "panels_missing": int(panels[i].sum()),
            **{name: f"{p[i]:.9g}" for name, p in posteriors.items()},
        }
        for i, newborn in enumerate(newborns)
    ]


def _write_external(
    folder: Path, count: int, world: _World, readers: int, missing: Missing, crp: Crp
) -> dict[str, Any]:
    """Write the other hospital's newborns and what its readers think of them; return the truth of both."""
    newborns = plan(world.seed, patients=count, external=True)
    odds, realised = _write_newborns(folder, newborns, world)
    truth: dict[str, Any] = {
        "patients": count,
        "prevalence": world.prevalence,
        "lab_shift_in_sd": EXTERNAL_SHIFT,
        "noise": EXTERNAL_NOISE,
        "lighter": EXTERNAL_LIGHTER,
        "contrast": EXTERNAL_CONTRAST,
        "posterior_auc_in_this_cohort": realised,
    }
    if readers:
        truth["readers"] = _write_readers(folder, newborns, odds, world, readers, missing, crp)
    return truth


def _write_readers(
    folder: Path, newborns: Sequence[Newborn], odds: LogOdds, world: _World, readers: int, missing: Missing, crp: Crp
) -> dict[str, Any]:
    """Write readers.csv: ratings 0 to 100, rising with the log-odds from values and signs, blurred by noise."""
    ill = np.array([n.ill for n in newborns])
    common = world.chance(_READERS).standard_normal(len(newborns))
    rows: list[dict[str, Any]] = []
    truth = {}
    for r in range(readers):
        skill, (more, spread) = READER_SKILLS[r % len(READER_SKILLS)], _TEMPERS[r % len(_TEMPERS)]
        own = world.chance(_READERS, r + 1).standard_normal(len(newborns))
        noise = nec_law.reader_noise(skill, missing, crp)
        doubt = math.sqrt(_SHARED_DOUBT) * common + math.sqrt(1 - _SHARED_DOUBT) * own
        felt = odds.fused_observed + noise * doubt
        ratings = np.rint(100 * special.expit((felt + more) / spread)).astype(int)
        name = f"reader {r + 1}"
        rows += [
            {"reader": name, "case": n.case, "rating": int(rating)} for n, rating in zip(newborns, ratings, strict=True)
        ]
        truth[name] = {"auc": skill, "noise_in_log_odds": noise, "auc_here": nec_law.auc(ratings.astype(float), ill)}
    write_csv(folder / "readers.csv", rows)
    return truth


def _write_older(folder: Path, count: int, seed: int, size: int) -> None:
    """Write films of older children: every sign on a quarter of them, independently, with no diagnosis at all."""
    has = np.random.default_rng([seed, _OLDER, _SIGNS]).random((count, len(SIGNS))) < OLDER_SHARE
    rows = []
    for n in range(count):
        name = f"s{seed}-{n + 1:04d}"
        signs = [sign for sign, there in zip(SIGNS, has[n], strict=True) if there]
        film = draw_film(seed, n, signs, size=size, group=_OLDER, build=OLDER, exposure=OLDER_EXPOSURE)
        grain = np.random.default_rng([seed, _OLDER, _GRAIN, n]).standard_normal(film.grey.shape, np.float32)
        save_film(film.grey + np.float32(OLDER_NOISE) * grain, folder / f"films/{name}.png")
        labels = {sign: int(has[n, j]) for j, sign in enumerate(SIGNS)}
        rows.append({"case": name, "patient": name, "site": "older children", "film": f"films/{name}.png", **labels})
    write_csv(folder / "cohort.csv", rows)
