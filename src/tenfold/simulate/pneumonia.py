"""Simulated children's chest films with and without pneumonia, whose best possible AUC is known exactly.

It must not know how films are read, split, learned from or judged.

A child's film is::

    film = anatomy + z * s + noise

The anatomy (person, pose, exposure, vessels) and the shadow s (where and of which kind; its pixels have a sum of
squares of 1) are drawn without looking at the diagnosis. The diagnosis touches the film through the severity alone:
z ~ N(mean of the diagnosis, tau^2). Everybody has some markings, so that a normal film bears a shadow too, only
fainter; below 0, as in one normal film of nine, it is a lucency. The noise is white, N(0, sigma^2) a pixel.

Who knows anatomy and shadow can do no better than the matched filter (prewhitened by the covariance
sigma^2 I + tau^2 s s^T, which for one shadow only rescales it): z_hat = <film - anatomy, s> ~ N(mean, tau^2 + sigma^2).
Hence d' = (mean_1 - mean_0) / sqrt(tau^2 + sigma^2), AUC = Phi(d' / sqrt 2), and a reader who must guess anatomy and
shadow from the film stays below it (Green and Swets, Signal Detection Theory, 1966; Barrett and Myers, Foundations of
Image Science, 2004, chapter 13). Rounding to 8 bits adds 1/12 to sigma^2, which is less than 10^-6 of tau^2.

A child's two films share the person and the diagnosis; pose, shadow and severity are drawn anew. Every single film
therefore follows the law above, and the ceiling holds for whoever judges film by film, as `posterior` does; pooling a
child's films could exceed it. A planted marker is a second way from the diagnosis to the film: the ceiling is then
that of a reader who looks at the lungs.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage, special, stats

from tenfold.simulate import chest
from tenfold.simulate.chest import Body, Picture, Pose
from tenfold.simulate.files import refuse_impossible, save_film, write_csv, written_whole
from tenfold.types import FloatArray

NORMAL, PNEUMONIA = "normal", "pneumonia"
SUBTYPE = {"focal": "bacterial", "diffuse": "viral"}

NOISE = 3.0
"""SD of a pixel, grey levels, in films of the home hospitals."""
TAU_PER_PIXEL = 2.9
"""SD of the severity over the side of the film: shadows keep their contrast at every size."""
MARKINGS = 1.2
"""Mean severity of a normal film, in SD."""
FOCAL = 0.65
"""Share of focal shadows, as bacterial among the pneumonias of Kermany's films."""

ADULT_BODY = Body(0.78, -0.86, 0.50, 0.30, 0.27, 0.09, 0.10, 0.150, 0.45, 12.0, 0.0, 62.0)
ADULT_POSE = Pose(0.0, 1.0, 0.0, 0.0, -6.0, 1.06)
ADULT_NOISE = 4.5
ADULT_PREVALENCE = 0.4

_Draw = Callable[[chest.Anatomy, np.random.Generator], Picture]
_SHADOWS: dict[str, tuple[_Draw, float, float]] = {
    "Atelectasis": (chest.atelectasis, 0.12, 34.0),
    "Effusion": (chest.effusion, 0.12, 60.0),
    "Edema": (chest.edema, 0.08, 38.0),
    "Nodule": (chest.nodule, 0.08, 40.0),
    "Mass": (chest.mass, 0.08, 42.0),
    "Pneumothorax": (chest.pneumothorax, 0.08, 34.0),
    "Fibrosis": (chest.fibrosis, 0.08, 36.0),
    "Pleural_Thickening": (chest.pleural_thickening, 0.08, 40.0),
    "Hernia": (chest.hernia, 0.05, 30.0),
}
"""Finding -> how it is drawn, how often, and its mean height in grey levels (SD: a quarter of it)."""
_SHAPES = {"Cardiomegaly": 0.12, "Emphysema": 0.08}
"""Finding that changes the anatomy -> how often."""

FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
"""ChestX-ray14's names, in its own order (Wang et al., CVPR 2017)."""

_PLAN, _PERSON, _EXPOSURE, _SHADOW, _SEVERITY, _GRAIN, _ADULT = range(7)
"""Streams of chance. One each, so that anatomy and shadow cannot depend on the diagnosis even by accident."""


@dataclass(frozen=True)
class Simulated:
    """What was written, and what the best reader of it can reach.

    Attributes:
        folder: Holds cohort.csv, films/, masks/, truth.csv, truth.json, and adults/ unless there are none.
        patients: Children, those included who bear a planted copy.
        cases: Children's films.
        d_prime: Distance of the two diagnoses for the matched filter, in its SD.
        ceiling_auc: Phi(d' / sqrt 2): what no reader of single films can exceed, but for sampling error.
    """

    folder: Path
    patients: int
    cases: int
    d_prime: float
    ceiling_auc: float


@dataclass(frozen=True)
class Binormal:
    """The law of the severity and of its best estimate.

    Attributes:
        normal: Mean severity of a normal film.
        pneumonia: Mean severity in pneumonia.
        tau: SD of the severity within a diagnosis.
        sigma: SD of a pixel's noise, hence of the matched filter's error.
    """

    normal: float
    pneumonia: float
    tau: float
    sigma: float

    @classmethod
    def at(cls, d_prime: float, size: int, sigma: float = NOISE) -> Binormal:
        """Place the two means so that d' is as asked at the home hospitals' noise; `sigma` may differ."""
        tau = TAU_PER_PIXEL * size
        normal = MARKINGS * tau
        return cls(normal, normal + d_prime * float(np.hypot(tau, NOISE)), tau, sigma)

    @property
    def d_prime(self) -> float:
        """Distance of the means in SD of the matched filter."""
        return (self.pneumonia - self.normal) / float(np.hypot(self.tau, self.sigma))

    @property
    def ceiling_auc(self) -> float:
        """AUC of the matched filter."""
        return float(stats.norm.cdf(self.d_prime / np.sqrt(2)))

    def posterior(self, matched_filter: FloatArray, prevalence: float) -> FloatArray:
        """Return P(pneumonia | matched filter), same shape, by Bayes' rule for two normals of equal SD."""
        middle = (self.normal + self.pneumonia) / 2
        slope = (self.pneumonia - self.normal) / (self.tau**2 + self.sigma**2)
        return np.asarray(special.expit(special.logit(prevalence) + slope * (matched_filter - middle)))


@dataclass(frozen=True)
class Visit:
    """One planned film of a child.

    Attributes:
        person: Number of the child the film shows; with `visit` and the seed it fixes all but the severity.
        visit: 0 or 1.
        positive: Pneumonia or not.
        patient: The name under which it is filed.
        case: The name of the examination.
        site: Number of the hospital.
        day: When.
        age_months: 12 to 71.
        sex: "F" or "M".
        marked: Bears the planted marker.
        copy_of: The case it is a planted copy of, otherwise empty.
    """

    person: int
    visit: int
    positive: bool
    patient: str
    case: str
    site: int
    day: date
    age_months: int
    sex: str
    marked: bool = False
    copy_of: str = ""


def simulate(
    out: Path,
    *,
    patients: int = 400,
    seed: int = 1,
    size: int = 160,
    d_prime: float = 2.37,
    prevalence: float = 0.5,
    adults: int = 600,
    films_per_patient: float = 1.15,
    marker_shortcut: float = 0.0,
    duplicates: int = 0,
    shared_patients: int = 0,
    sites: int = 2,
    shift: float = 0.0,
) -> Simulated:
    """Write a cohort of children, and adults to learn from first, into a folder.

    The same arguments give the same bytes (of one version of Pillow). Names hold the seed, so that cohorts of
    different seeds share no patient.

    Args:
        out: A folder that does not exist yet, or is empty.
        patients: Children.
        seed: All that is drawn by chance follows from it.
        size: Pixels a side.
        d_prime: Distance of the diagnoses; 2.37 gives the ceiling 0.953.
        prevalence: Share of children with pneumonia.
        adults: Adult films with 14 findings; 0 writes none.
        films_per_patient: Mean number, from 1 to 2: some children have two films.
        marker_shortcut: Plants a bright marker in the corner of this share of the positive films, of no negative.
        duplicates: Plants this many films again, lightly re-saved, each under another patient.
        shared_patients: Plants this many children with one normal film and one of pneumonia.
        sites: Hospitals; they differ a little in exposure.
        shift: How far from home: 1 makes films lighter, flatter and half again as noisy; set `prevalence` beside it.

    Returns:
        The folder, the counts and the ceiling.

    Raises:
        StudyError: An impossible value.
        OutputError: `out` holds something, or cannot be written to.
    """
    refuse_impossible(
        "pneumonia",
        patients=(patients, 4, 100_000),
        seed=(seed, 0, 2**32),
        size=(size, 48, 2048),
        d_prime=(d_prime, 0.0, 10.0),
        prevalence=(prevalence, 0.001, 0.999),
        adults=(adults, 0, 100_000),
        films_per_patient=(films_per_patient, 1.0, 2.0),
        marker_shortcut=(marker_shortcut, 0.0, 1.0),
        duplicates=(duplicates, 0, patients),
        shared_patients=(shared_patients, 0, patients - 2),
        sites=(sites, 1, 100),
        shift=(shift, 0.0, 2.0),
    )
    law = Binormal.at(d_prime, size, NOISE * (1 + 0.5 * shift))
    visits = plan(
        seed,
        patients=patients,
        prevalence=prevalence,
        films_per_patient=films_per_patient,
        marker_shortcut=marker_shortcut,
        duplicates=duplicates,
        shared_patients=shared_patients,
        sites=sites,
    )
    people = len({v.patient for v in visits})
    planted = {
        "marker_shortcut": marker_shortcut,
        "markers": [v.case for v in visits if v.marked],
        "duplicates": [{"case": v.case, "copy_of": v.copy_of} for v in visits if v.copy_of],
        "shared_patients": _with_both_outcomes(visits),
    }
    truth = {
        "simulator": "pneumonia",
        "seed": seed,
        "patients": people,
        "cases": len(visits),
        "d_prime": law.d_prime,
        "ceiling_auc": law.ceiling_auc,
        "kind": "exact, binormal",
        "prevalence": prevalence,
        "size": size,
        "shift": shift,
        "severity": {"normal": law.normal, "pneumonia": law.pneumonia, "tau": law.tau, "sigma": law.sigma},
        "planted": planted,
    }
    with written_whole(out) as folder:
        _write_children(folder, visits, law, seed=seed, size=size, prevalence=prevalence, shift=shift)
        if adults:
            _write_adults(folder / "adults", adults, law, seed=seed, size=size)
        (folder / "truth.json").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")
    return Simulated(out, people, len(visits), law.d_prime, law.ceiling_auc)


def plan(
    seed: int,
    *,
    patients: int,
    prevalence: float,
    films_per_patient: float,
    marker_shortcut: float,
    duplicates: int,
    shared_patients: int,
    sites: int,
) -> list[Visit]:
    """Decide who is examined when and with which outcome, in the order of the cohort file.

    Arguments as in `simulate`.
    """
    rng = _chance(seed, _PLAN)
    names = [f"p{seed}-{n + 1:04d}" for n in rng.permutation(patients + duplicates)]
    positives = int(np.clip(round(prevalence * patients), 1, patients - 1))
    ill = rng.permutation(np.arange(patients) < positives)
    both = set(rng.permutation(patients)[:shared_patients].tolist())
    twice = rng.random(patients) < films_per_patient - 1
    visits: list[Visit] = []
    for person in range(patients):
        first = Visit(
            person,
            0,
            bool(ill[person]),
            names[person],
            "",
            int(rng.integers(sites)),
            date(2019, 1, 1) + timedelta(days=int(rng.integers(1400))),
            int(rng.integers(12, 72)),
            "M" if rng.random() < 0.55 else "F",
        )
        visits.append(first)
        if twice[person] or person in both:
            later = first.day + timedelta(days=int(rng.integers(3, 40)))
            positive = first.positive != (person in both)
            visits.append(replace(first, visit=1, positive=positive, day=later))
    marks = rng.random(len(visits)) < marker_shortcut
    visits = [replace(v, marked=v.positive and bool(m)) for v, m in zip(visits, marks, strict=True)]
    visits.sort(key=lambda v: (v.patient, v.visit))
    visits = [replace(v, case=f"c{seed}-{n + 1:04d}") for n, v in enumerate(visits)]
    copied = rng.permutation(len(visits))[:duplicates]
    for i, name in zip(copied, names[patients:], strict=True):
        case = f"c{seed}-{len(visits) + 1:04d}"
        visits.append(replace(visits[i], patient=name, case=case, copy_of=visits[i].case))
    return visits


def draw(seed: int, person: int, visit: int, *, size: int, lighter: float = 0.0, flatter: float = 0.0) -> Drawing:
    """Draw what a film shows before its severity: the diagnosis is not among the arguments.

    Args:
        seed: The cohort's.
        person: Number of the child.
        visit: Number of the film.
        size: Pixels a side.
        lighter: Grey levels added by the hospital's exposure.
        flatter: Share of the contrast that the hospital loses.
    """
    body = chest.vary_body(Body(), _chance(seed, _PERSON, person))
    rng = _chance(seed, _EXPOSURE, person, visit)
    pose = chest.vary_pose(Pose(exposure=lighter, contrast=1 - flatter), rng)
    anatomy = chest.draw_anatomy(body, pose, size, _chance(seed, _PERSON, person, 1))
    return _markings(anatomy, _chance(seed, _SHADOW, person, visit))


@dataclass(frozen=True)
class Drawing:
    """A film before its severity and its noise.

    Attributes:
        anatomy: Grey levels without shadow, (size, size).
        shadow: The shadow, its squares summing to 1, (size, size).
        pattern: "focal" or "diffuse".
        lobes: Where; for a diffuse shadow "both lungs".
    """

    anatomy: chest.Anatomy
    shadow: FloatArray
    pattern: str
    lobes: tuple[str, ...]

    def matched_filter(self, film: NDArray[Any]) -> float:
        """Return the best estimate of the severity in a film (size, size) of this drawing."""
        return float(np.sum((film - self.anatomy.grey.astype(np.float64)) * self.shadow))

    def mask(self) -> NDArray[np.bool_]:
        """Say where the shadow is seen: above a third of its height, its texture smoothed away."""
        smooth = ndimage.gaussian_filter(self.shadow, 3.0 * len(self.shadow) / 160)
        return np.asarray(smooth > 0.35 * smooth.max())


def _markings(anatomy: chest.Anatomy, rng: np.random.Generator) -> Drawing:
    """Choose the kind of shadow and draw it."""
    lobes: tuple[str, ...] = ("both lungs",)
    pattern = "focal" if rng.random() < FOCAL else "diffuse"
    if pattern == "focal":
        shadow, lobes = chest.focal(anatomy, rng)
    else:
        shadow = chest.diffuse(anatomy, rng)
    exact = shadow.astype(np.float64)
    return Drawing(anatomy, exact / np.linalg.norm(exact), pattern, lobes)


def _write_children(
    folder: Path,
    visits: Sequence[Visit],
    law: Binormal,
    *,
    seed: int,
    size: int,
    prevalence: float,
    shift: float,
) -> None:
    """Write films, masks, cohort.csv and truth.csv."""
    rows: list[dict[str, Any]] = []
    truths: dict[str, dict[str, Any]] = {}
    middle_site = max(v.site for v in visits) / 2
    for visit in visits:
        film, mask = f"films/{visit.case}.png", ""
        lighter = 3.0 * (visit.site - middle_site) + 14.0 * shift
        drawing = draw(seed, visit.person, visit.visit, size=size, lighter=lighter, flatter=0.1 * shift)
        if visit.copy_of:
            _copy_resaved(folder / f"films/{visit.copy_of}.png", folder / film)
            truths[visit.case] = {**truths[visit.copy_of], "case": visit.case}
        else:
            severity, pixels = _expose(visit, drawing, law, seed)
            save_film(_mark(pixels) if visit.marked else pixels, folder / film)
            truths[visit.case] = _truth_row(visit, drawing, severity, pixels, law, prevalence)
        if visit.positive:
            mask = f"masks/{visit.case}.png"
            save_film(255.0 * drawing.mask(), folder / mask)
        rows.append(
            {
                "case": visit.case,
                "patient": visit.patient,
                "site": f"{'external' if shift else 'site'} {visit.site + 1}",
                "date": visit.day.isoformat(),
                "film": film,
                "mask": mask,
                "diagnosis": PNEUMONIA if visit.positive else NORMAL,
                "subtype": SUBTYPE[drawing.pattern] if visit.positive else "",
                "age_months": visit.age_months,
                "sex": visit.sex,
            }
        )
    write_csv(folder / "cohort.csv", rows)
    write_csv(folder / "truth.csv", list(truths.values()))


def _expose(visit: Visit, drawing: Drawing, law: Binormal, seed: int) -> tuple[float, FloatArray]:
    """Add severity and noise; return the severity, and the film before it is rounded to 8 bits."""
    mean = law.pneumonia if visit.positive else law.normal
    severity = mean + law.tau * float(_chance(seed, _SEVERITY, visit.person, visit.visit).standard_normal())
    grain = _chance(seed, _GRAIN, visit.person, visit.visit).standard_normal(drawing.shadow.shape)
    return severity, drawing.anatomy.grey + severity * drawing.shadow + law.sigma * grain


def _truth_row(
    visit: Visit, drawing: Drawing, severity: float, pixels: FloatArray, law: Binormal, prevalence: float
) -> dict[str, Any]:
    estimate = drawing.matched_filter(pixels)
    return {
        "case": visit.case,
        "severity": f"{severity:.6f}",
        "pattern": drawing.pattern,
        "lobes": "; ".join(drawing.lobes),
        "matched_filter": f"{estimate:.6f}",
        "posterior": f"{law.posterior(np.asarray(estimate), prevalence):.9g}",
    }


def _write_adults(folder: Path, count: int, law: Binormal, *, seed: int, size: int) -> None:
    """Write adult films with ChestX-ray14's findings: the source domain, with no ceiling of its own."""
    rows = []
    for n in range(count):
        name = f"a{seed}-{n + 1:04d}"
        film, found = _adult(_chance(seed, _ADULT, n), law, size)
        save_film(film, folder / f"films/{name}.png")
        labels = {finding: int(finding in found) for finding in FINDINGS}
        rows.append({"case": name, "patient": name, "site": "adults", "film": f"films/{name}.png", **labels})
    write_csv(folder / "cohort.csv", rows)


def _adult(rng: np.random.Generator, law: Binormal, size: int) -> tuple[FloatArray, set[str]]:
    """Draw one adult film and say what is found on it."""
    found = {name for name, share in _SHAPES.items() if rng.random() < share}
    body = chest.vary_body(ADULT_BODY, rng)
    if "Cardiomegaly" in found:
        growth = rng.uniform(1.25, 1.5)
        body = replace(body, heart_width=body.heart_width * growth, heart_x=body.heart_x + 0.03)
    if "Emphysema" in found:
        body = replace(body, dome=body.dome + rng.uniform(0.08, 0.14), lung=body.lung - rng.uniform(14, 24))
    anatomy = chest.draw_anatomy(body, chest.vary_pose(ADULT_POSE, rng), size, rng)
    pneumonia = rng.random() < ADULT_PREVALENCE
    severity = (law.pneumonia if pneumonia else law.normal) + law.tau * rng.standard_normal()
    drawing = _markings(anatomy, rng)
    film = anatomy.grey + severity * drawing.shadow
    if pneumonia:
        found.add("Pneumonia")
    if severity > (law.normal + law.pneumonia) / 2:
        found.add("Consolidation" if drawing.pattern == "focal" else "Infiltration")
    for name, (sketch, share, height) in _SHADOWS.items():
        if rng.random() < share:
            found.add(name)
            film = film + height * (1 + 0.25 * rng.standard_normal()) * sketch(anatomy, rng)
    return film + ADULT_NOISE * rng.standard_normal(film.shape), found


def _chance(seed: int, stream: int, *which: int) -> np.random.Generator:
    """A generator of its own for every person, film and purpose."""
    return np.random.default_rng([seed, stream, *which])


def _mark(film: FloatArray) -> FloatArray:
    """Lay a bright marker into the upper left corner, where no shadow reaches."""
    marked, edge, side = film.copy(), round(0.02 * len(film)), round(0.09 * len(film))
    marked[edge : edge + side, edge : edge + side] = 250.0
    return marked


def _copy_resaved(source: Path, target: Path) -> None:
    """Copy a film by way of a JPEG, as films travel: no longer the same bytes, still the same picture."""
    through = io.BytesIO()
    with Image.open(source) as film:
        film.save(through, "JPEG", quality=92)
    with Image.open(through) as film:
        film.save(target, compress_level=0)


def _with_both_outcomes(visits: Sequence[Visit]) -> list[str]:
    outcomes: dict[str, set[bool]] = {}
    for v in visits:
        outcomes.setdefault(v.patient, set()).add(v.positive)
    return [patient for patient, seen in outcomes.items() if len(seen) == 2]
