"""Simulated patients with an enlarged cervical lymph node, seen by up to three kinds of ultrasound, the truth known.

It must not know how pictures are read, split, learned from or judged.

The law of the attributes and the exact posterior are in `lymphnode_law`, the drawing in `neck`, the machines and their
screens in `scanner`. Every picture of a patient shows the same node: plane, speckle and framing differ, attributes do
not. Sex, age, site, date, how many pictures there are and which views are missing are drawn without looking at the
class or at each other. The clinical columns are a doctor's notes: neck level as it is, and readings with errors of
what the pictures show, left out where the picture is, so that they add nothing to the pictures but the level.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfold.simulate import lymphnode_law, neck
from tenfold.simulate.files import refuse_impossible, save_film, write_csv, written_whole
from tenfold.simulate.lymphnode_law import CLASSES, FLOWS, LEVELS, PRIOR, VIEWS, Posteriors
from tenfold.simulate.neck import Drawn, Flow, Morphology, Scene, Stiffness
from tenfold.simulate.scanner import OTHER_SCANNERS, SCANNERS, Scanner
from tenfold.types import FloatArray, IntArray

SECOND_PICTURE = 0.5
"""Chance of every picture of a view beyond the first."""
SHAPES = ("oval", "round", "lobulated")
MARGINS = ("unsharp", "sharp")
_OVAL_FROM, _RATIO_ERROR = 1.7, 0.3
"""Long to short axis from which a node is noted as oval, and the SD of a doctor's eye for it."""
_MATTING_SEEN, _MARGIN_RIGHT, _FLOW_RIGHT = 0.75, 0.85, 0.80

STIFF_FROM = (15, 20, 28, 40, 60)
"""kPa; the pictures to learn from first say of each whether the nodule is at least as stiff."""
_LARGE_FROM, _ROUND_BELOW, _DENSE_FROM, _HETEROGENEOUS_FROM = 10.0, 1.7, 0.3, 0.7
_SOURCE_SHARE = 0.4
"""Of each sign among the nodules to learn from first."""

_PLAN, _NODES, _NOTES, _PLANE, _DETAIL, _CALLIPERS = range(6)
"""Streams of chance. One each, so that what must not depend on the diagnosis cannot do so even by accident."""
_HOME, _SOURCE = range(2)
_FIRST_DAY, _DAYS = date(2019, 10, 1), 1187


@dataclass(frozen=True)
class SimulatedLymphNode:
    """What was written, and what the best reader of it can reach.

    Attributes:
        folder: Holds cohort.csv, images.csv, columns.csv, regions.csv, pictures/, masks/, truth.csv, truth.json and
            source/.
        patients: Rows of cohort.csv.
        pictures: Rows of images.csv.
        ceilings: Macro one-vs-one AUC of the exact posteriors, by what they see, as in `lymphnode_law.Posteriors`.
    """

    folder: Path
    patients: int
    pictures: int
    ceilings: dict[str, float]

    @property
    def ceiling_auc(self) -> float:
        """Macro one-vs-one AUC of the exact posterior from the views that are there."""
        return self.ceilings["fused_observed"]


@dataclass(frozen=True)
class Patient:
    """One planned row.

    Attributes:
        number: With the seed it fixes all that is drawn.
        diagnosis: Index into `CLASSES`.
        hospital: From 0.
        day: Of the examination.
        sex: "F" or "M".
        age: Years.
        pictures: How many of each of `VIEWS`; 0: the view is missing.
    """

    number: int
    diagnosis: int
    hospital: int
    day: date
    sex: str
    age: int
    pictures: tuple[int, ...]

    @property
    def site(self) -> str:
        """The hospital's name."""
        return f"hospital {self.hospital + 1}"

    @property
    def scanner(self) -> Scanner:
        """The hospital's machine."""
        return SCANNERS[self.hospital % len(SCANNERS)]


def simulate(
    out: Path,
    *,
    patients: int = 586,
    seed: int = 1,
    size: int = 96,
    pictures: int = 2,
    sites: int = 3,
    missing_views: float = 0.05,
    source: int = 0,
    legibility: float = 1.0,
) -> SimulatedLymphNode:
    """Write a cohort of lymph nodes, and nodules of another organ to learn attributes from first.

    The same arguments give the same bytes (of one version of Pillow). Names hold the seed, so that cohorts of
    different seeds share no patient.

    Args:
        out: A folder that does not exist yet, or is empty.
        patients: How many; 40, 20 and 40 of a hundred are benign, lymphoma and metastatic.
        seed: All that is drawn by chance follows from it.
        size: Pixels a side of the ultrasound region; the screen about it is larger.
        pictures: Most pictures of a view; each beyond the first is there for every second patient.
        sites: Hospitals; each has its own machine, after three they repeat.
        missing_views: Chance that a patient lacks a view; nobody lacks all three.
        source: Pictures of breast nodules with the attributes seen as 0/1 columns; 0 writes none.
        legibility: Contrast of the attributes, 0 (none) to 1 (plain).

    Returns:
        The folder, the counts and the ceilings.

    Raises:
        StudyError: An impossible value.
        OutputError: `out` holds something, or cannot be written to.
    """
    refuse_impossible(
        "lymphnode",
        patients=(patients, 6, 100_000),
        seed=(seed, 0, 2**32),
        size=(size, 48, 2048),
        pictures=(pictures, 1, 20),
        sites=(sites, 1, 100),
        missing_views=(missing_views, 0.0, 0.9),
        source=(source, 0, 100_000),
        legibility=(legibility, 0.0, 1.0),
    )
    best = lymphnode_law.ceilings(missing_views)
    ceilings = {name: found["macro_ovo_auc"] for name, found in best.items()}
    with written_whole(out) as folder:
        people = plan(seed, patients=patients, pictures=pictures, sites=sites, missing_views=missing_views)
        which = np.array([p.diagnosis for p in people])
        there = np.array([p.pictures for p in people]) > 0
        nodes = lymphnode_law.draw_nodes(which, np.random.default_rng([seed, _HOME, _NODES]))
        posteriors = Posteriors.of(nodes, there)
        images = _write_pictures(folder, people, nodes, seed, size, legibility)
        write_csv(folder / "images.csv", images)
        write_csv(folder / "cohort.csv", _cohort_rows(people, nodes, seed))
        write_csv(folder / "columns.csv", COLUMNS)
        write_csv(folder / "regions.csv", _layout_rows(sites, size))
        write_csv(folder / "truth.csv", _truth_rows(people, nodes, there, posteriors, seed))
        if source:
            _write_source(folder / "source", source, seed, size, legibility)
        truth = {
            "simulator": "lymphnode",
            "seed": seed,
            "patients": patients,
            "cases": patients,
            "pictures": len(images),
            "ceiling_auc": ceilings["fused_observed"],
            "kind": "macro one-vs-one AUC of the exact posterior by Monte Carlo, 60,000 nodes, standard error 0.001",
            "ceilings": ceilings,
            "ceiling_figures": best,
            "posterior_auc_in_this_cohort": _realised(posteriors, which, there),
            "prior": dict(zip(CLASSES, PRIOR, strict=True)),
            "missing_views": missing_views,
            "size": size,
            "legibility": legibility,
            "source": source,
        }
        (folder / "truth.json").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")
    return SimulatedLymphNode(out, patients, len(images), ceilings)


def plan(seed: int, *, patients: int, pictures: int = 2, sites: int = 3, missing_views: float = 0.05) -> list[Patient]:
    """Decide who is examined where, when and how often, and with which outcome. Arguments as in `simulate`."""
    rng = np.random.default_rng([seed, _HOME, _PLAN])
    ends = np.rint(np.cumsum(PRIOR) * patients)
    outcome = np.searchsorted(ends, np.arange(patients), side="right")
    # Dealt in turn within the class, lest a hospital tell the outcome by bad luck.
    hospital = np.arange(patients) % sites
    order = rng.permutation(patients)
    there = lymphnode_law.draw_views(patients, missing_views, rng)
    counts = there * (1 + rng.binomial(pictures - 1, SECOND_PICTURE, there.shape))
    age = np.clip(np.rint(rng.normal(48, 15, patients)), 18, 88).astype(int).tolist()
    female, day = rng.random(patients) < 0.5, rng.integers(_DAYS, size=patients).tolist()
    return [
        Patient(
            number,
            int(outcome[who]),
            int(hospital[who]),
            _FIRST_DAY + timedelta(days=day[number]),
            "F" if female[number] else "M",
            age[number],
            tuple(counts[number].tolist()),
        )
        for number, who in enumerate(order.tolist())
    ]


COLUMNS: tuple[dict[str, str], ...] = (
    {"column": "location", "label": "Neck level", "kind": "category", "levels": "|".join(LEVELS)},
    {"column": "shape", "label": "Shape", "kind": "category", "levels": "|".join(SHAPES)},
    {"column": "margin", "label": "Margin", "kind": "category", "levels": "|".join(MARGINS)},
    {"column": "flow", "label": "Flow in colour Doppler", "kind": "category", "levels": "|".join(FLOWS)},
)
"""The dictionary of the clinical columns."""


def _case(seed: int, number: int) -> str:
    return f"c{seed}-{number + 1:04d}"


def _write_pictures(
    folder: Path, people: Sequence[Patient], nodes: Mapping[str, FloatArray], seed: int, size: int, legibility: float
) -> list[dict[str, Any]]:
    """Write all pictures with the node's mask beside each; return the rows of images.csv."""
    rows = []
    for patient in people:
        node = {name: float(values[patient.number]) for name, values in nodes.items()}
        words = f"L{seed}-{patient.number + 1:04d} {patient.day.isoformat()}"
        for v, view in enumerate(VIEWS):
            for k in range(patient.pictures[v]):
                which = (patient.number, v, k)
                scene = Scene(
                    size,
                    np.random.default_rng([seed, _HOME, _PLANE, *which]),
                    np.random.default_rng([seed, _HOME, _DETAIL, *which]),
                    patient.scanner.machine,
                    legibility=legibility,
                )
                drawn = draw_view(view, node, scene)
                chance = np.random.default_rng([seed, _HOME, _CALLIPERS, *which]).random()
                measured = view == "b_mode" and chance < patient.scanner.callipers
                name = f"{_case(seed, patient.number)}-{view}-{k + 1}.png"
                save_film(patient.scanner.screen(drawn, view, words, measured=measured), folder / f"pictures/{name}")
                save_film(patient.scanner.framed(drawn.mask), folder / f"masks/{name}")
                rows.append({"case": _case(seed, patient.number), "view": view, "path": f"pictures/{name}"})
    return rows


def draw_view(view: str, node: Mapping[str, float], scene: Scene) -> Drawn:
    """Draw one view of a node.

    Args:
        view: One of `VIEWS`.
        node: Its attributes as in `lymphnode_law.ATTRIBUTES`; those of other views are not looked at.
        scene: How the picture is taken.
    """
    if view == "b_mode":
        signs = {name: bool(node[name]) for name in _SIGNS}
        return neck.draw_b_mode(Morphology(node["short_axis"], node["long_short"], **signs), scene)
    if view == "cdfi":
        return neck.draw_cdfi(Flow(FLOWS[int(node["flow"])], node["flow_density"]), scene)
    return neck.draw_elastography(Stiffness(node["kpa"], bool(node["stiff_rim"]), node["heterogeneity"]), scene)


_SIGNS = ("hilum", "sharp", "hypoechoic", "reticulation", "necrosis", "calcification", "matting")


def _cohort_rows(people: Sequence[Patient], nodes: Mapping[str, FloatArray], seed: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng([seed, _HOME, _NOTES])
    notes = noted(nodes, rng)
    rows = []
    for i, patient in enumerate(people):
        case = _case(seed, i)
        grey, doppler = patient.pictures[0] > 0, patient.pictures[1] > 0
        rows.append(
            {
                "case": case,
                "patient": f"l{seed}-{i + 1:04d}",
                "site": patient.site,
                "date": patient.day.isoformat(),
                "node_mask": f"masks/{case}-b_mode-1.png" if grey else "",
                "diagnosis": CLASSES[patient.diagnosis],
                "sex": patient.sex,
                "age": patient.age,
                "location": LEVELS[int(nodes["level"][i])],
                "shape": notes["shape"][i] if grey else "",
                "margin": notes["margin"][i] if grey else "",
                "flow": notes["flow"][i] if doppler else "",
            }
        )
    return rows


def noted(nodes: Mapping[str, FloatArray], rng: np.random.Generator) -> dict[str, NDArray[np.str_]]:
    """Return what a doctor notes of nodes: shape, margin and flow, (n,) words each, with a doctor's errors."""
    n = len(nodes["long_short"])
    ratio = nodes["long_short"] + _RATIO_ERROR * rng.standard_normal(n)
    shape = np.where(ratio >= _OVAL_FROM, 0, 1)
    shape[(nodes["matting"] == 1) & (rng.random(n) < _MATTING_SEEN)] = 2
    margin = np.where(rng.random(n) < _MARGIN_RIGHT, nodes["sharp"], 1 - nodes["sharp"]).astype(int)
    away = rng.integers(1, len(FLOWS), size=n)
    flow = (nodes["flow"].astype(int) + np.where(rng.random(n) < _FLOW_RIGHT, 0, away)) % len(FLOWS)
    return {"shape": np.array(SHAPES)[shape], "margin": np.array(MARGINS)[margin], "flow": np.array(FLOWS)[flow]}


def _layout_rows(sites: int, size: int) -> list[dict[str, Any]]:
    """Return the rows of regions.csv of the home hospitals."""
    return [
        row
        for view in VIEWS
        for s in range(sites)
        for row in SCANNERS[s % len(SCANNERS)].layout_rows(
            view, f"hospital {s + 1}", size, stiffness=view == "elastography"
        )
    ]


def _truth_rows(
    people: Sequence[Patient],
    nodes: Mapping[str, FloatArray],
    there: NDArray[np.bool_],
    posteriors: Posteriors,
    seed: int,
) -> list[dict[str, Any]]:
    words = {"flow": FLOWS, "level": LEVELS}
    return [
        {
            "case": _case(seed, i),
            "diagnosis": CLASSES[patient.diagnosis],
            **{
                name: words[name][int(values[i])] if name in words else f"{values[i]:.9g}"
                for name, values in nodes.items()
            },
            **{f"has_{view}": int(there[i, v]) for v, view in enumerate(VIEWS)},
            **{
                f"posterior_{name}_{cls}": f"{p[i, c]:.9g}"
                for name, p in vars(posteriors).items()
                for c, cls in enumerate(CLASSES)
            },
        }
        for i, patient in enumerate(people)
    ]


def _realised(posteriors: Posteriors, which: IntArray, there: NDArray[np.bool_]) -> dict[str, float]:
    """Return the macro one-vs-one AUC of each posterior here; of a single view among those who have it.

    A view of which a class has no picture is left out.
    """
    found = {}
    for name, p in vars(posteriors).items():
        seen = there[:, VIEWS.index(name)] if name in VIEWS else np.ones(len(which), bool)
        if len(np.unique(which[seen])) == len(CLASSES):
            found[name] = lymphnode_law.figures(p[seen], which[seen])["macro_ovo_auc"]
    return found


def _write_source(folder: Path, count: int, seed: int, size: int, legibility: float) -> None:
    """Write pictures of breast nodules, a third of each view, and what each shows: a cohort a view, no diagnosis."""
    nodes = _source_nodes(count, np.random.default_rng([seed, _SOURCE, _NODES]))
    rows: dict[str, list[dict[str, Any]]] = {view: [] for view in VIEWS}
    for i in range(count):
        view, name = VIEWS[i % len(VIEWS)], f"s{seed}-{i + 1:04d}"
        scanner, node = OTHER_SCANNERS[view], {key: float(values[i]) for key, values in nodes.items()}
        plane, detail = (np.random.default_rng([seed, _SOURCE, stream, i]) for stream in (_PLANE, _DETAIL))
        drawn = draw_view(view, node, Scene(size, plane, detail, scanner.machine, neck.BREAST, legibility))
        save_film(scanner.screen(drawn, view, f"S{seed}-{i + 1:04d} BREAST"), folder / f"pictures/{name}.png")
        rows[view].append(
            {
                "case": name,
                "patient": name,
                "site": _room(view),
                "picture": f"pictures/{name}.png",
                **{key: there for key, (kind, there) in seen(node).items() if kind == view},
            }
        )
    for view, own in rows.items():
        write_csv(folder / f"{view}.csv", own)
    layouts = [
        row
        for view in VIEWS
        for row in OTHER_SCANNERS[view].layout_rows("picture", _room(view), size, stiffness=view == "elastography")
    ]
    write_csv(folder / "regions.csv", layouts)


def _room(view: str) -> str:
    return f"other clinic, {view}"


def _source_nodes(count: int, rng: np.random.Generator) -> dict[str, FloatArray]:
    """Draw nodules whose attributes know neither a class nor each other, and are common."""
    drawn = {
        "short_axis": 10 * np.exp(0.5 * rng.standard_normal(count)),
        "long_short": rng.normal(1.7, 0.5, count),
        "flow": rng.integers(len(FLOWS), size=count).astype(float),
        "flow_density": rng.normal(0.3, 1.2, count),
        "kpa": 28 * np.exp(0.75 * rng.standard_normal(count)),
        "heterogeneity": rng.normal(0.7, 1.2, count),
    }
    signs = {name: (rng.random(count) < _SOURCE_SHARE).astype(float) for name in (*_SIGNS, "stiff_rim")}
    return {**drawn, **signs}


def seen(node: Mapping[str, float]) -> dict[str, tuple[str, int]]:
    """Return the attributes of a node as 0 or 1, each with the view that shows it, by the name of its column."""
    found = {
        "round": ("b_mode", node["long_short"] < _ROUND_BELOW),
        "large": ("b_mode", node["short_axis"] >= _LARGE_FROM),
        **{name: ("b_mode", node[name]) for name in _SIGNS},
        **{f"flow_{word}": ("cdfi", node["flow"] == FLOWS.index(word)) for word in FLOWS[1:]},
        "flow_dense": ("cdfi", node["flow_density"] > _DENSE_FROM),
        **{f"stiff_{kpa}": ("elastography", node["kpa"] >= kpa) for kpa in STIFF_FROM},
        "stiff_rim": ("elastography", node["stiff_rim"]),
        "heterogeneous": ("elastography", node["heterogeneity"] > _HETEROGENEOUS_FROM),
    }
    return {name: (view, int(there)) for name, (view, there) in found.items()}
