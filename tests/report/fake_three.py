"""A run of three classes, three views and a grid as `tenfold run` would leave it: 240 patients of three hospitals.

`python tests/report/fake_three.py FOLDER` writes one to look at.
"""

from __future__ import annotations

import json
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tenfold.types import OUT_OF_FOLD, Estimate, PredictionTable

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
CLASSES = ("benign", "lymphoma", "metastatic")
SITES = ("north", "south", "west")
NETWORKS = ("resnet18", "efficientnet_b0", "convnext_tiny", "vit_small")
VIEWS = {"b_mode": 0.8, "cdfi": 0.6, "elastography": 1.5, "fused": 1.9}
STARTS = {"pre-trained": 1.0, "scratch": 0.75}
CELLS = [{"network": n, "view": v, "start": s, "arm": f"{n} {v} {s}"} for n in NETWORKS for v in VIEWS for s in STARTS]
PROPOSED = "resnet18 fused pre-trained"
FAILED = "vit_small cdfi scratch"
BOOTSTRAP = "bootstrap by patient, 2000 draws, percentile 95 %"
WAY = "paired bootstrap by patient, 2000 draws, 95 %; Holm over the question"
N = 240


def estimate(value: float, half: float = 0.03, n: int = N, method: str = BOOTSTRAP) -> dict[str, Any]:
    return Estimate(value, value - half, value + half, method, n).to_dict()


def probabilities(truth: np.ndarray, gap: float, rng: np.random.Generator) -> np.ndarray:
    logits = rng.standard_normal((len(truth), 3)) + gap * np.eye(3)[truth]
    odds = np.exp(gap * logits)
    return odds / odds.sum(axis=1, keepdims=True)


def together(p: np.ndarray, truth: np.ndarray, base: Any, *, drawn: bool) -> dict[str, Any]:
    """One arm of classes.json; its curves, which take longest, only where they are drawn."""
    decided = p.argmax(axis=1)
    confusion = [[int(((truth == i) & (decided == j)).sum()) for j in range(3)] for i in range(3)]
    found = {}
    for i, j in combinations(range(3), 2):
        both = (truth == i) | (truth == j)
        areas = [base.auc_of(p[both, k], truth[both] == k) for k in (i, j)]
        found[f"{CLASSES[i]} | {CLASSES[j]}"] = float(np.mean(areas))
    rest = [base.auc_of(p[:, k], truth == k) for k in range(3)]
    recall = [confusion[k][k] / sum(confusion[k]) for k in range(3)]
    curves = [base.curves_of(p[:, k], truth == k) for k in range(3)] if drawn else []
    for curve in curves:
        curve["decision"]["model"] = curve["decision"].pop("net_benefit")
    overall = {
        "macro_ovo_auc": np.mean(list(found.values())),
        "macro_ovr_auc": np.mean(rest),
        "accuracy": (decided == truth).mean(),
        "balanced_accuracy": np.mean(recall),
        "macro_f1": np.mean(recall),
        "log_loss": -np.log(p[np.arange(len(truth)), truth]).mean(),
        "brier": ((p - np.eye(3)[truth]) ** 2).sum(axis=1).mean(),
    }
    by_class = {
        name: {
            "auc": estimate(rest[k]),
            "sensitivity": estimate(recall[k], 0.07, int((truth == k).sum()), "Wilson 95 %"),
            "specificity": estimate(0.9, 0.04, int((truth != k).sum()), "Wilson 95 %"),
            "ppv": estimate(0.8, 0.06, int((decided == k).sum()), "Wilson 95 %"),
            "npv": estimate(0.92, 0.04, int((decided != k).sum()), "Wilson 95 %"),
            "f1": estimate(0.8),
            "calibration_slope": estimate(0.95, 0.1),
            "calibration_intercept": estimate(-0.04, 0.2),
            "ici": estimate(0.03, 0.01),
            "net_benefit": estimate(0.2),
        }
        for k, name in enumerate(CLASSES)
    }
    return {
        "overall": {m: estimate(float(v)) for m, v in overall.items()},
        "by_class": by_class,
        "pairs": {pair: estimate(area) for pair, area in found.items()},
        "confusion": confusion,
        **{
            kind: {name: curve[kind] for name, curve in zip(CLASSES, curves, strict=False)}
            for kind in ("roc", "calibration", "decision")
        },
    }


def build(folder: Path, base: Any) -> Path:
    """Write the run; `base` is the module fake_run, whose helpers this uses."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(11)
    truth = rng.choice(3, N, p=(0.4, 0.2, 0.4))
    evaluation, curves, all_classes, tables = {}, {}, {}, []
    for cell in CELLS:
        arm = cell["arm"]
        if arm == FAILED:
            continue
        p = probabilities(truth, VIEWS[cell["view"]] * STARTS[cell["start"]], rng)
        ill = truth == 2
        evaluation[arm], matrix = base.evaluate_arm(p[:, 2], ill, 0.4, N)
        all_classes[arm] = together(p, truth, base, drawn=arm == PROPOSED)
        if arm == PROPOSED or len(curves) < 3:
            curves[arm] = {**base.curves_of(p[:, 2], ill), "confusion": matrix}
        if arm == PROPOSED:
            tables.append(table(arm, p, truth))
    PredictionTable.concatenate(tables).write(folder / "predictions" / "node.csv")
    differences = [compared(arm, all_classes) for arm in all_classes if arm != PROPOSED][:4]
    held = {"classes": list(CLASSES), "arms": all_classes, "comparisons": differences}
    contents = {
        "evaluation": {"node": evaluation},
        "curves": {"node": curves},
        "classes": {"node": held},
        "grid": {"node": {"comparisons": tests(all_classes)}},
        "sites": sites(all_classes),
        "cohort": cohort(truth),
        "run": facts(),
    }
    for name, content in contents.items():
        base.write_json(folder / f"{name}.json", content)
    explanations(folder, base, truth)
    (folder / "study.toml").write_text('preset = "standard"\n', encoding="utf-8")
    return folder


def table(arm: str, p: np.ndarray, truth: np.ndarray) -> PredictionTable:
    return PredictionTable(
        case=np.array([f"c{i}" for i in range(N)]),
        patient=np.array([f"p{i}" for i in range(N)]),
        site=np.array([SITES[i % 3] for i in range(N)]),
        split=np.array([OUT_OF_FOLD] * N),
        repeat=np.zeros(N, np.int64),
        fold=np.arange(N) % 5,
        arm=np.array([arm] * N),
        label=np.array([CLASSES[k] for k in truth]),
        probabilities=p,
        classes=CLASSES,
    )


def _macro(held: dict[str, Any], arm: str) -> float:
    return float(held[arm]["overall"]["macro_ovo_auc"]["value"])


def compared(arm: str, held: dict[str, Any]) -> dict[str, Any]:
    gap = estimate(_macro(held, arm) - _macro(held, PROPOSED), 0.04)
    names = {"arm": arm, "reference": PROPOSED, "metric": "macro_ovo_auc"}
    return {**names, "difference": gap, "p": 0.012, "p_adjusted": 0.048, "method": WAY}


def tests(held: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    for n in NETWORKS:
        pairs = [("pre-training", v, f"{n} {v} pre-trained", f"{n} {v} scratch") for v in VIEWS]
        pairs += [
            (f"fused against {v}", "fused", f"{n} fused pre-trained", f"{n} {v} pre-trained") for v in list(VIEWS)[:-1]
        ]
        for question, view, one, two in pairs:
            asked = {"question": question, "network": n, "view": view, "p": 0.02, "p_adjusted": 0.06, "method": WAY}
            if one in held and two in held:
                found.append({**asked, "difference": estimate(_macro(held, one) - _macro(held, two), 0.035)})
    return found


def sites(held: dict[str, Any]) -> dict[str, Any]:
    value = _macro(held, PROPOSED)
    each = [{"site": s, "n": 80, "macro_ovo_auc": estimate(value - 0.03 * k, 0.06, 80)} for k, s in enumerate(SITES)]
    overall = {"node": {"macro_ovo_auc": estimate(value - 0.03)}}
    return {"by": "leave_one_site_out", "node": each, "overall": overall}


def cohort(truth: np.ndarray) -> dict[str, Any]:
    sizes = {c: int((truth == k).sum()) for k, c in enumerate(CLASSES)}
    effect = Estimate(0.21, 0.1, 0.33, "noncentral chi-square, 95 %", N).to_dict()
    test = {"variable": "margin", "column": "margin", "kind": "category", "test": "chi-square without correction"}
    return {
        "flow": [{"step": "analysed", "cases": N, "patients": N, "reason": ""}],
        "n_cases": N,
        "n_patients": N,
        "by_class": {c: {"cases": n, "patients": n} for c, n in sizes.items()},
        "table": [
            {"variable": "patients", "level": "", **{c: str(n) for c, n in sizes.items()}},
            {"variable": "margin", "level": "sharp", **{c: f"{n // 2} (50.0 %)" for c, n in sizes.items()}},
        ],
        "tests": [{**test, "p": 0.004, "p_adjusted": 0.01, "effect_name": "Cramér's V", "effect": effect, "n": N}],
    }


def facts() -> dict[str, Any]:
    def arm(cell: dict[str, str]) -> dict[str, Any]:
        views = list(VIEWS)[:-1] if cell["view"] == "fused" else [cell["view"]]
        failed = cell["arm"] == FAILED
        return {
            "status": "failed" if failed else "done",
            "reason": "loss is no longer a number in epoch 2" if failed else "",
            "kind": "network",
            "inputs": views,
            "fusion": "gated",
            "encoder": "image_timm",
            "network": cell["network"],
            "weights": "busi" if cell["start"] == "pre-trained" else "none",
            "size": 224,
            "parameters": 11_000_000,
            "stages": ["nodes"],
            "seconds": 90.0,
            "flaws": [],
        }

    best = {"b_mode": 0.796, "cdfi": 0.727, "elastography": 0.923, "fused": 0.966}
    target = {"name": "node", "column": "diagnosis", "kind": "class", "classes": list(CLASSES)}
    return {
        "tenfold": "0.1.0",
        "title": "Cervical lymph nodes in ultrasound",
        "system": "lymphnode",
        "seed": 3,
        "target": {**target, "positive": "metastatic", "known": N, "positives": 96},
        "proposed": PROPOSED,
        "operating_rule": "youden",
        "validation": {"folds": 5, "repeats": 1, "inner": 0.2, "by": "patient"},
        "inputs": {view: {"kind": "image"} for view in list(VIEWS)[:-1]},
        "simulated": {
            "simulator": "lymphnode",
            "ceiling_auc": best["fused"],
            "ceilings": best,
            "ceiling_figures": {view: {"macro_ovo_auc": v, "accuracy": 0.8} for view, v in best.items()},
        },
        "arms": {cell["arm"]: arm(cell) for cell in CELLS},
        "grid": {"networks": list(NETWORKS), "views": list(VIEWS), "starts": list(STARTS), "cells": CELLS},
        "stages": {},
    }


def explanations(folder: Path, base: Any, truth: np.ndarray) -> None:
    """Two patients a class, each with three views, elastography twice."""
    place = folder / "explanations"
    place.mkdir(exist_ok=True)
    cases = []
    for k, name in enumerate(CLASSES):
        for i in np.flatnonzero(truth == k)[:3].tolist():
            decision = CLASSES[(k + 1) % 3] if i == np.flatnonzero(truth == k)[0] else name
            pictures = []
            for view, picture in (("b_mode", 0), ("cdfi", 0), ("elastography", 0), ("elastography", 1)):
                grey = base.film(i + picture, bool(k))
                stem = f"explanations/c{i}-{view}-{picture}"
                Image.fromarray(grey).save(folder / f"{stem}.png")
                Image.fromarray(base.overlay(grey)).save(folder / f"{stem}-heat.png")
                files = {"film": f"{stem}.png", "overlay": f"{stem}-heat.png"}
                pictures.append({"view": view, "picture": picture, **files})
            case = {"case": f"c{i}", "patient": f"p{i}", "label": name, "class": decision, "decision": decision}
            case |= {"probability": 0.7, "threshold": 0.4, "right": decision == name, "absent": []}
            cases.append({**case, "pictures": pictures, "film": pictures[0]["film"]})
    (folder / "explanations.json").write_text(json.dumps({"cases": cases}), "utf-8")


if __name__ == "__main__":
    import fake_run

    build(Path(sys.argv[1]), fake_run)
