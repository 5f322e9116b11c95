"""A run folder as `tenfold run` would leave it: 13 arms of which one failed, 400 cases, plausible numbers, no network.

`python tests/report/fake_run.py FOLDER` writes one to look at.
"""

from __future__ import annotations

import csv
import json
import math
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tenfold.types import EXTERNAL, OUT_OF_FOLD, Estimate, Finding, PredictionTable, write_rows

SEPARATION = {
    "proposed": 2.45,
    "vgg16": 1.65,
    "densenet121": 1.9,
    "inception_v3": 1.8,
    "xception": 2.0,
    "resnet50": 2.05,
    "dilated_imagenet": 2.3,
    "dilated_none": 1.55,
    "undilated_adult": 2.2,
    "undilated_imagenet": 2.1,
    "undilated_none": 1.4,
    "resnet18": 2.0,
}
FAILED = "mobilenet_v2"
CLASSES = ("NORMAL", "PNEUMONIA")
TARGET = "diagnosis"
METHODS = {
    "accuracy": "Wilson 95% interval, effective n by patient",
    "f1": "bootstrap by patient, 2000 draws, percentile 95%",
}


def wilson(k: float, n: float) -> tuple[float, float]:
    z = 1.96
    p = k / n
    centre = (p + z * z / 2 / n) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / 4 / n / n) / (1 + z * z / n)
    return centre - half, centre + half


def auc_of(p: np.ndarray, y: np.ndarray) -> float:
    order = np.argsort(p)
    ranks = np.empty(len(p))
    ranks[order] = np.arange(1, len(p) + 1)
    n1 = int(y.sum())
    return float((ranks[y].sum() - n1 * (n1 + 1) / 2) / (n1 * (len(y) - n1)))


def estimate(value: float, half: float, method: str, n: int) -> dict[str, Any]:
    return Estimate(value, max(value - half, 0), min(value + half, 1), method, n).to_dict()


def evaluate_arm(p: np.ndarray, y: np.ndarray, threshold: float, n: int) -> tuple[dict[str, Any], dict[str, Any]]:
    said = p >= threshold
    tp, fn = int((said & y).sum()), int((~said & y).sum())
    fp, tn = int((said & ~y).sum()), int((~said & ~y).sum())
    boot = "bootstrap by patient, 2000 draws, percentile 95%"
    metrics: dict[str, Any] = {}
    area = auc_of(p, y)
    half = 1.96 * math.sqrt(area * (1 - area) / (0.35 * n))
    metrics["auc"] = estimate(area, half, "clustered DeLong (Obuchowski 1997), logit 95% interval, patients", n)
    metrics["average_precision"] = estimate(min(area + 0.01, 0.99), half, boot, n)
    for name, (k, total) in {
        "sensitivity": (tp, tp + fn),
        "specificity": (tn, tn + fp),
        "ppv": (tp, tp + fp),
        "npv": (tn, tn + fn),
        "accuracy": (tp + tn, len(y)),
    }.items():
        low, high = wilson(k, max(total, 1))
        metrics[name] = Estimate(k / max(total, 1), low, high, METHODS["accuracy"], total).to_dict()
    sens, spec = metrics["sensitivity"]["value"], metrics["specificity"]["value"]
    metrics["balanced_accuracy"] = estimate((sens + spec) / 2, 0.03, boot, n)
    metrics["f1"] = estimate(2 * tp / (2 * tp + fp + fn), 0.025, boot, n)
    metrics["mcc"] = estimate(sens + spec - 1, 0.06, boot, n)
    metrics["brier"] = estimate(float(((p - y) ** 2).mean()), 0.015, boot, n)
    metrics["log_loss"] = estimate(0.31, 0.04, boot, n)
    metrics["calibration_intercept"] = Estimate(-0.11, -0.4, 0.18, boot, n).to_dict()
    metrics["calibration_slope"] = Estimate(1.07, 0.85, 1.31, boot, n).to_dict()
    metrics["ici"] = Estimate(0.021, 0.012, 0.048, boot + "; lowess smoother, no robustness iterations", n).to_dict()
    metrics["net_benefit"] = estimate((tp - fp * threshold / (1 - threshold)) / len(y), 0.03, boot, n)
    return metrics, {"tp": tp, "fp": fp, "fn": fn, "tn": tn}


def curves_of(p: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    cuts = np.r_[np.inf, np.sort(p)[::-1]]
    tpr = [(p[y] >= c).mean() for c in cuts]
    fpr = [(p[~y] >= c).mean() for c in cuts]
    edges = np.quantile(p, np.linspace(0, 1, 9))
    bins = []
    for low, high in pairwise(edges):
        inside = (p >= low) & (p <= high)
        n = int(inside.sum())
        k = float(y[inside].sum())
        a, b = wilson(k, n)
        bins.append({"p": float(p[inside].mean()), "observed": k / n, "low": a, "high": b, "n": n})
    x = np.linspace(0.02, 0.98, 60)
    smooth = np.clip(x + 0.05 * np.sin(3 * x), 0, 1)
    t = np.linspace(0.01, 0.95, 60)
    benefit = [float(((p >= c) & y).mean() - ((p >= c) & ~y).mean() * c / (1 - c)) for c in t]
    everyone = [float(y.mean() - (1 - y.mean()) * c / (1 - c)) for c in t]
    return {
        "roc": {"fpr": [float(v) for v in fpr], "tpr": [float(v) for v in tpr]},
        "calibration": {
            "x": x.tolist(),
            "y": smooth.tolist(),
            "low": np.clip(smooth - 0.07, 0, 1).tolist(),
            "high": np.clip(smooth + 0.07, 0, 1).tolist(),
            "bins": bins,
        },
        "decision": {
            "threshold": t.tolist(),
            "net_benefit": benefit,
            "low": [b - 0.03 for b in benefit],
            "high": [b + 0.03 for b in benefit],
            "treat_all": everyone,
        },
    }


def film(seed: int, ill: bool) -> np.ndarray:
    """Two dark lungs on a bright chest, and a haze in one of them."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1:1:128j, -1:1:128j]
    picture = 0.75 - 0.15 * y + 0.02 * rng.standard_normal((128, 128))
    for side in (-0.42, 0.42):
        picture -= 0.5 * (((x - side) / 0.3) ** 2 + ((y + 0.05) / 0.6) ** 2 < 1)
    if ill:
        picture += 0.35 * np.exp(-(((x + 0.4) / 0.15) ** 2 + ((y - 0.25) / 0.2) ** 2))
    return np.clip(picture * 255, 0, 255).astype(np.uint8)


def overlay(grey: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[-1:1:128j, -1:1:128j]
    heat = np.exp(-(((x + 0.4) / 0.3) ** 2 + ((y - 0.25) / 0.35) ** 2))[..., None]
    colour = np.array([213, 94, 0]) * heat + grey[..., None] * (1 - 0.6 * heat)
    return np.clip(colour, 0, 255).astype(np.uint8)


def write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=1), encoding="utf-8")


def write_csv(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as handle:
        out = csv.writer(handle, lineterminator="\n")
        out.writerow(header)
        out.writerows(rows)


def explanations(folder: Path, p: np.ndarray, y: np.ndarray, cases: list[str], patients: list[str]) -> None:
    place = folder / "explanations"
    place.mkdir()
    right = [i for i in range(len(p)) if (p[i] >= 0.42) == y[i]][:4]
    wrong = [i for i in range(len(p)) if (p[i] >= 0.42) != y[i]][:4]
    shown = []
    for i in right + wrong:
        picture = film(i, bool(y[i]))
        Image.fromarray(picture).save(place / f"{cases[i]}_film.png")
        Image.fromarray(overlay(picture)).save(place / f"{cases[i]}_overlay.png")
        shown.append(
            {
                "case": cases[i],
                "patient": patients[i],
                "label": CLASSES[int(y[i])],
                "probability": float(p[i]),
                "decision": CLASSES[int(p[i] >= 0.42)],
                "right": i in right,
                "film": f"explanations/{cases[i]}_film.png",
                "overlay": f"explanations/{cases[i]}_overlay.png",
            }
        )
    maps = []
    for layer in ("first convolution", "first pooling", "first addition", "last addition"):
        name = layer.replace(" ", "_") + ".png"
        rng = np.random.default_rng(len(layer))
        Image.fromarray(rng.integers(0, 255, (96, 192), dtype=np.uint8)).save(place / name)
        maps.append({"layer": layer, "file": f"explanations/{name}"})
    steps = [("none", 1.0), ("head", 0.61), ("block 16", 0.34), ("block 8", 0.21), ("stem", 0.11)]
    write_json(
        folder / "explanations.json",
        {
            "cases": shown,
            "feature_maps": maps,
            "sanity": {
                "randomisation": [
                    {"layer": n, "similarity": s, "low": s - 0.06, "high": min(s + 0.06, 1), "n": 20} for n, s in steps
                ],
                "pointing": estimate(0.71, 0.09, "Wilson 95%", 96),
                "energy": estimate(0.38, 0.04, "bootstrap by patient 95%", 96),
                "centre_pointing": estimate(0.29, 0.09, "Wilson 95%", 96),
                "centre_energy": estimate(0.21, 0.02, "bootstrap by patient 95%", 96),
            },
        },
    )


def stages(rng: np.random.Generator) -> list[dict[str, Any]]:
    def history(epochs: int, start: float, end: float) -> list[dict[str, float]]:
        return [
            {
                "epoch": e + 1,
                "train_loss": end + (start - end) * math.exp(-e / 5) + 0.01 * rng.standard_normal(),
                "inner_loss": end + 0.05 + (start - end) * math.exp(-e / 6) + 0.02 * rng.standard_normal(),
                "inner_auc": 0.95 - 0.4 * math.exp(-e / 4) + 0.01 * rng.standard_normal(),
                "rate": 1e-3 if e < 12 else 1e-4,
            }
            for e in range(epochs)
        ]

    return [
        {
            "name": "adult films",
            "cohort": "nih1000",
            "task": "14 findings, multi-label",
            "thaw": "all",
            "epochs_run": 18,
            "best_epoch": 13,
            "history": history(18, 0.69, 0.21),
            "transferred": "nothing; weights drawn at random",
            "reset": "everything",
        },
        {
            "name": "children",
            "cohort": "pneumonia",
            "task": "NORMAL or PNEUMONIA",
            "thaw": "all",
            "epochs_run": 24,
            "best_epoch": 17,
            "history": history(24, 0.66, 0.24),
            "transferred": "trunk (267 tensors)",
            "reset": "head",
        },
    ]


def build(folder: Path, *, simulated: bool = True, external: bool = False, n: int = 400) -> Path:
    """Write a whole run folder (or evaluate folder) and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    y = np.arange(n) % 8 >= 3
    cases = [f"case_{i:04d}" for i in range(n)]
    patients = [f"child_{i * 17 // 20:04d}" for i in range(n)]
    y = np.array([y[i * 17 // 20] for i in range(n)])
    n_patients = len(set(patients))
    names = ["proposed"] if external else list(SEPARATION)
    evaluation, curves, folds, tables, points = {}, {}, {}, [], []
    for arm in names:
        score = rng.standard_normal(n) + SEPARATION[arm] * y
        p = 1 / (1 + np.exp(-(score - SEPARATION[arm] / 2) * SEPARATION[arm] * 0.8 - 0.4))
        evaluation[arm], confusion = evaluate_arm(p, y, 0.42, n_patients)
        curves[arm] = {**curves_of(p, y), "confusion": confusion}
        fold = np.array([int(q[-4:]) % 5 for q in patients])
        folds[arm] = [
            {"repeat": 0, "fold": k, "n": int((fold == k).sum()), "auc": auc_of(p[fold == k], y[fold == k])}
            for k in range(5)
        ]
        points.append([arm, -1, -1, "0.99", "sensitivity >= 0.95", 320])
        points += [[arm, 0, k, f"{0.4 + 0.01 * k:.2f}", "sensitivity >= 0.95", 64] for k in range(5)]
        tables.append(
            PredictionTable(
                case=np.array(cases),
                patient=np.array(patients),
                site=np.array([""] * n),
                split=np.array([EXTERNAL if external else OUT_OF_FOLD] * n),
                repeat=np.full(n, -1 if external else 0),
                fold=np.full(n, -1) if external else fold,
                arm=np.array([arm] * n),
                label=np.array([CLASSES[int(v)] for v in y]),
                probabilities=np.column_stack([1 - p, p]),
                classes=CLASSES,
            )
        )
        if arm == "proposed":
            explanations(folder, p, y, cases, patients)
    PredictionTable.concatenate(tables).write(folder / "predictions" / f"{TARGET}.csv")
    write_json(folder / "evaluation.json", {TARGET: evaluation})
    write_json(folder / "curves.json", {TARGET: curves})
    _cohort(folder, y, patients)
    _run(folder, names, rng, simulated, external)
    if external:
        return folder
    held = {"proposed": {**evaluation["proposed"], "auc": estimate(0.941, 0.031, "clustered DeLong 95%", 68)}}
    write_json(folder / "evaluation_holdout.json", {TARGET: held})
    write_json(folder / "folds.json", {TARGET: folds})
    write_json(folder / "comparisons.json", {TARGET: _comparisons(names, evaluation, n_patients)})
    write_csv(folder / "operating_points.csv", ["arm", "repeat", "fold", "threshold", "rule", "n"], points)
    write_csv(
        folder / "splits.csv",
        ["case", "patient", "repeat", "fold", "part"],
        [[c, q, 0, int(q[-4:]) % 5, "test"] for c, q in zip(cases, patients, strict=True)],
    )
    (folder / "study.toml").write_text('preset = "standard"\nsystem = "pneumonia"\n', encoding="utf-8")
    (folder / "author.toml").write_text('[tripod_ai]\n17 = "Approved by the ethics board, no. 12/2025."\n', "utf-8")
    return folder


def _comparisons(names: list[str], evaluation: dict[str, Any], n: int) -> list[dict[str, Any]]:
    rows = []
    for i, arm in enumerate(a for a in names if a != "proposed"):
        gap = evaluation["proposed"]["auc"]["value"] - evaluation[arm]["auc"]["value"]
        p = math.exp(-gap * 70) * 0.6
        rows.append(
            {
                "arm": "proposed",
                "reference": arm,
                "metric": "auc",
                "difference": Estimate(gap, gap - 0.03, gap + 0.03, "paired clustered DeLong, 95%", n).to_dict(),
                "p": p,
                "p_holm": min(1.0, p * (11 - i)),
                "method": "paired DeLong, clustered by patient; Holm over all arms",
            }
        )
    return rows


def _cohort(folder: Path, y: np.ndarray, patients: list[str]) -> None:
    n, n_patients = len(y), len(set(patients))
    ill = int(y.sum())
    write_json(
        folder / "cohort.json",
        {
            "flow": [
                {"step": "in the cohort file", "cases": n + 19, "patients": n_patients + 11, "reason": ""},
                {"step": "excluded", "cases": 12, "patients": 6, "reason": "no diagnosis"},
                {"step": "excluded", "cases": 7, "patients": 5, "reason": "3 truncated, 2 blank, 2 lateral views"},
                {"step": "analysed", "cases": n, "patients": n_patients, "reason": ""},
            ],
            "table": [
                {"variable": "Cases", "level": "", "NORMAL": str(n - ill), "PNEUMONIA": str(ill)},
                {"variable": "Sex", "level": "girl", "NORMAL": "71 (47%)", "PNEUMONIA": "120 (48%)"},
                {"variable": "Sex", "level": "boy", "NORMAL": "79 (53%)", "PNEUMONIA": "130 (52%)"},
                {
                    "variable": "Age, years",
                    "level": "median (quartiles)",
                    "NORMAL": "2.9 (1.8 to 4.1)",
                    "PNEUMONIA": "2.6 (1.6 to 3.9)",
                },
                {"variable": "Age, years", "level": "missing", "NORMAL": "4", "PNEUMONIA": "9"},
            ],
            "n_cases": n,
            "n_patients": n_patients,
            "by_class": {
                "NORMAL": {"cases": n - ill, "patients": (n - ill) * 17 // 20},
                "PNEUMONIA": {"cases": ill, "patients": ill * 17 // 20},
            },
            "by_site": {},
        },
    )
    found = [
        Finding(
            "warning",
            "shortcut",
            "File size alone separates the classes with an AUC of 0.71: look at how the films were exported.",
            value=0.71,
        ),
        Finding(
            "note", "repeat", "61 patients have more than one film; they are kept together.", patients=("child_0001",)
        ),
    ]
    write_rows(folder / "findings.csv", found, Finding)


def _run(folder: Path, names: list[str], rng: np.random.Generator, simulated: bool, external: bool) -> None:
    arms = {
        name: {
            "status": "done",
            "reason": "",
            "encoder": "image_timm" if name != "proposed" else "image_residual_dilated",
            "network": "residual_dilated_50" if name == "proposed" else name,
            "weights": "adult films" if "adult" in name or name == "proposed" else "imagenet",
            "size": 150 if "dilated" in name or name == "proposed" else 224,
            "parameters": 23_761_730,
            "stages": ["adult films", "children"] if name == "proposed" else ["children"],
            "seconds": 812.5,
            "flaws": ["weights of the stem averaged over colours"] if name == "vgg16" else [],
        }
        for name in names
    }
    facts: dict[str, Any] = {
        "tenfold": "0.1.0",
        "title": "Pneumonia on children's chest films",
        "system": "pneumonia",
        "preset": "standard",
        "seed": 1,
        "started": "2026-03-04T08:15:00Z",
        "seconds": 9731.4,
        "command": "tenfold run films/study.toml --out runs/pneumonia",
        "device": "cpu (2 cores)",
        "threads": 2,
        "precision": "float32",
        "versions": {"python": "3.11.7", "torch": "2.9.1", "numpy": "2.3.5", "timm": "1.0.22"},
        "hashes": {"study": "ab" * 32, "cohort": "cd" * 32, "images": "ef" * 32, "bundle": "01" * 32},
        "timings": {"audit": 12.1, "store": 44.0, "training": 9421.0, "statistics": 61.2, "explanations": 88.0},
        "target": {"name": TARGET, "column": "label", "classes": list(CLASSES), "positive": "PNEUMONIA"},
        "proposed": "proposed",
        "operating_rule": "sensitivity >= 0.95",
        "validation": {"folds": 5, "repeats": 1, "inner": 0.2, "holdout": 0.15, "by": "patient"},
        "simulated": {"ceiling_auc": 0.963, "kind": "pneumonia"} if simulated else None,
        "arms": arms,
        "stages": {"proposed": stages(rng)},
        "opened": [{"what": "holdout", "when": "2026-03-04T10:40:00Z"}],
    }
    if external:
        facts |= {
            "kind": "external",
            "development": {"n_patients": 340, "evaluation": {"auc": estimate(0.965, 0.03, "clustered DeLong", 340)}},
            "bundle": {"path": "runs/pneumonia/bundle", "sha256": "01" * 32},
            "title": "External validation: pneumonia, other hospital",
            "command": "tenfold evaluate runs/pneumonia/bundle OTHER/cohort.csv --out runs/other",
            "stages": {},
            "opened": [{"what": "external", "when": "2026-03-05T10:40:00Z"}],
        }
    else:
        arms[FAILED] = {
            "status": "failed",
            "reason": "loss is no longer a number in epoch 3 of stage children",
            "encoder": "image_timm",
            "network": "mobilenetv2_100",
            "weights": "imagenet",
            "size": 224,
            "parameters": 2_226_434,
            "stages": ["children"],
            "seconds": 41.0,
            "flaws": [],
        }
    write_json(folder / "run.json", facts)


FUSED = "film + labs"
FUSED_ARMS: dict[str, tuple[float, str, list[str]]] = {
    FUSED: (2.0, "network", ["film", "labs"]),
    "film only": (1.6, "network", ["film"]),
    "labs only": (1.2, "network", ["labs"]),
    "random forest": (1.3, "classical", ["labs"]),
    f"{FUSED}, without film": (1.1, "altered", ["film", "labs"]),
    f"{FUSED}, without labs": (1.5, "altered", ["film", "labs"]),
    f"{FUSED}, film permuted": (0.4, "altered", ["film", "labs"]),
}
NEC = ("non-NEC", "NEC")


def build_fused(folder: Path, n: int = 160) -> Path:
    """Write a run of film and laboratory values together, with hold-out, external set, readers and subgroups."""
    build(folder, n=n)
    rng = np.random.default_rng(3)
    y = np.arange(n) % 2 == 1
    evaluation, curves = {}, {}
    for arm, (gap, _, _) in FUSED_ARMS.items():
        p = 1 / (1 + np.exp(-(rng.standard_normal(n) + gap * y - gap / 2) * gap))
        evaluation[arm], matrix = evaluate_arm(p, y, 0.5, n)
        curves[arm] = {**curves_of(p, y), "confusion": matrix}
    write_json(folder / "evaluation.json", {TARGET: evaluation})
    write_json(folder / "evaluation_holdout.json", {TARGET: {FUSED: evaluation[FUSED]}})
    write_json(folder / "curves.json", {TARGET: curves})
    write_json(folder / "curves_holdout.json", {TARGET: {FUSED: curves[FUSED]}})
    rows = [_against_fused(arm, evaluation) for arm in FUSED_ARMS if arm != FUSED]
    write_json(folder / "comparisons.json", {TARGET: rows})
    write_json(folder / "conformal.json", _conformal())
    write_json(folder / "sample_size.json", _sample_size())
    grown = [(0.5, Estimate(0.71, 0.62, 0.8, "DeLong, 95 %", n)), (1.0, Estimate(0.8, 0.73, 0.87, "DeLong, 95 %", n))]
    points = [{"share": share, "patients": share * 0.8 * n, "auc": auc.to_dict()} for share, auc in grown]
    lacking = {"value": None, "low": None, "high": None, "method": "not fitted: one class only", "n": 0}
    points.insert(0, {"share": 0.05, "patients": None, "auc": lacking})
    write_json(folder / "learning_curve.json", {TARGET: points})
    apart = {"apparent": 0.99, "out_of_fold": 0.61, "optimism": 0.38, "method": "mean of 5 folds", "n": n}
    write_json(folder / "optimism.json", {TARGET: apart})
    reason = "not permuted, for its folds cannot be trained together: its encoders are two"
    held = {"p": None, "n": None, "observed": 0.8, "null_mean": None, "null_high": None, "method": reason}
    write_json(folder / "permutations.json", {TARGET: {FUSED: held}})
    write_json(folder / "subgroups.json", {"sex": _subgroups(evaluation)})
    _fused_facts(folder)
    _fused_explanations(folder)
    _elsewhere(folder / "external" / "coast", curves[FUSED], evaluation[FUSED])
    return folder


def _against_fused(arm: str, evaluation: dict[str, Any]) -> dict[str, Any]:
    gap = evaluation[arm]["auc"]["value"] - evaluation[FUSED]["auc"]["value"]
    return {
        "arm": arm,
        "reference": FUSED,
        "metric": "auc",
        "difference": Estimate(gap, gap - 0.03, gap + 0.03, "paired DeLong, 95 %", 160).to_dict(),
        "p": 0.031,
        "p_holm": 0.062,
        "method": "paired DeLong, 95 %",
    }


def _conformal() -> dict[str, Any]:
    wilson_ = "Wilson, 95 %"
    return {
        "alpha": 0.1,
        "classes": {c: {"quantile": 0.7, "n": 80, "range": [0.84, 0.95]} for c in NEC},
        "method": "class-conditional split conformal",
        "realised": {c: Estimate(0.91, 0.83, 0.95, wilson_, 80).to_dict() for c in NEC},
        "sizes": {"empty": 0.0, "one": 0.78, "both": 0.22},
    }


def _sample_size() -> dict[str, Any]:
    return {
        "expected_auc": 0.8,
        "patients": {"positives": 80, "negatives": 80},
        "riley": {
            "parameters": 27,
            "prevalence": 0.5,
            "shrinkage": 0.9,
            "for_shrinkage": 790,
            "for_optimism": 607,
            "for_prevalence": 385,
            "n": 790,
            "method": "Riley et al. 2020",
        },
        "auc_width": {"low": 0.73, "high": 0.87, "width": 0.14, "method": "Hanley & McNeil 1982, 95 %"},
    }


def _subgroups(evaluation: dict[str, Any]) -> dict[str, Any]:
    auc = evaluation[FUSED]["auc"]
    nothing = {"value": None, "low": None, "high": None, "method": "too few", "n": 6}
    return {
        "levels": [
            {"level": "F", "patients": 90, "positives": 44, "auc": auc},
            {"level": "M", "patients": 64, "positives": 33, "auc": auc},
            {"level": "not stated", "patients": 6, "positives": 3, "auc": nothing},
        ],
        "gaps": {
            "auc": {
                "highest": "F",
                "lowest": "M",
                "difference": Estimate(0.04, -0.02, 0.1, "patient bootstrap", 160).to_dict(),
            }
        },
    }


def _fused_facts(folder: Path) -> None:
    facts = json.loads((folder / "run.json").read_text("utf-8"))
    inputs = {"film": {"kind": "image"}, "labs": {"kind": "table", "imputation": "knn", "neighbours": 5, "screen": 0}}
    done = {"status": "done", "encoder": "e", "network": "e", "weights": "none", "size": "96", "parameters": 10}
    facts |= {
        "system": "nec",
        "title": "Fused",
        "target": {"name": TARGET, "column": "diagnosis", "classes": list(NEC), "positive": "NEC"},
        "proposed": FUSED,
        "inputs": inputs,
        "arms": {
            arm: {**done, "kind": kind, "inputs": seen, "fusion": "concat", "stages": []}
            for arm, (_, kind, seen) in FUSED_ARMS.items()
        },
        "stages": {},
        "simulated": {
            "simulator": "nec",
            "ceiling_auc": 0.943,
            "ceilings": {"labs_observed": 0.885, "signs": 0.891, "fused_observed": 0.943},
        },
        "opened": [
            {"what": "holdout", "when": "2026-03-04T10:40:00Z", "cases": 40},
            {"what": "coast", "when": "2026-03-04T10:41:00Z", "cases": 50},
        ],
    }
    write_json(folder / "run.json", facts)
    study = '[network]\nfusion = "concat"\nmodality_dropout = 0.15\n'
    (folder / "study.toml").write_text(study, encoding="utf-8")
    cohort = json.loads((folder / "cohort.json").read_text("utf-8"))
    cohort["flow"] += [
        {"step": "hold-out", "cases": 40, "patients": 40, "reason": ""},
        {"step": "cross-validation", "cases": 160, "patients": 160, "reason": ""},
    ]
    crp = {"variable": "CRP (mg/L)", "level": "median [IQR]", "non-NEC": "1.284 [0.6 to 2.7]", "NEC": "3.9 [1.7 to 9]"}
    cohort["table"] = [
        {"variable": "patients", "level": "", "non-NEC": "80", "NEC": "80"},
        crp,
        {"variable": "CRP (mg/L)", "level": "missing", "non-NEC": "7", "NEC": "5"},
    ]
    cohort["tests"] = [
        {
            "variable": "CRP (mg/L)",
            "column": "crp",
            "kind": "number",
            "test": "Mann-Whitney, exact",
            "p": 0.0004,
            "p_adjusted": 0.0012,
            "effect_name": "Cliff's delta",
            "effect": Estimate(0.49, 0.39, 0.59, "DeLong, 95 %; n = cases", 148).to_dict(),
            "n": 148,
        }
    ]
    cohort["by_class"] = {c: {"cases": 80, "patients": 80} for c in NEC}
    write_json(folder / "cohort.json", cohort)


def _fused_explanations(folder: Path) -> None:
    held = json.loads((folder / "explanations.json").read_text("utf-8"))

    def lab(name: str, value: float | None, low: float, high: float, added: float) -> dict[str, Any]:
        return {
            "column": name.lower(),
            "label": name,
            "unit": "umol/L",
            "value": value,
            "observed": value is not None,
            "normal_low": low,
            "normal_high": high,
            "contribution": added,
        }

    labs = [lab("CRP", 900.0, 0, 8, 0.7), lab("PLT", 200.0, 114, 375, -0.2), lab("IL6", None, 0, 30, 0.1)]
    for i, case in enumerate(held["cases"]):
        case |= {"label": NEC[i % 2], "decision": NEC[i % 2] if case["right"] else NEC[1 - i % 2], "threshold": 0.6}
        case |= {"modalities": {"film": -1.5, "labs": 0.5}, "base": 0.2, "labs": labs}
    without = held["cases"][0]
    without |= {"film": None, "overlay": None, "modalities": {"film": 0.0, "labs": 0.5}}
    share = Estimate(0.7, 0.6, 0.8, "bootstrap", 160).to_dict()
    held["modalities"] = {"names": ["film", "labs"], "shares": {"film": share, "labs": share}}
    held["importance"] = {
        "labs": {
            "features": [{"feature": "crp", "mean": 0.2, "low": 0.1, "high": 0.3}],
            "method": "mean |attribution|",
            "stability": Estimate(0.1, -0.1, 0.2, "Spearman", 3).to_dict(),
            "labels": {"crp": "C-reactive protein"},
        }
    }
    write_json(folder / "explanations.json", held)


def _elsewhere(folder: Path, curves: dict[str, Any], evaluation: dict[str, Any]) -> None:
    """Write an external set inside the run, with three readers who read it alone and with the model."""
    folder.mkdir(parents=True)
    write_json(folder / "evaluation.json", {TARGET: {FUSED: evaluation}})
    write_json(folder / "curves.json", {TARGET: {FUSED: curves}})
    write_json(
        folder / "cohort.json",
        {"n_cases": 50, "n_patients": 50, "by_class": {c: {"cases": 25, "patients": 25} for c in NEC}},
    )
    target = {"name": TARGET, "classes": list(NEC), "positive": "NEC"}
    facts = {"kind": "external", "system": "nec", "target": target, "proposed": FUSED}
    write_json(folder / "run.json", facts)
    auc = Estimate(0.84, 0.74, 0.94, "DeLong, 95 %", 50).to_dict()
    gap = Estimate(0.08, -0.01, 0.17, "single-treatment Obuchowski-Rockette", 50).to_dict()
    test = {"machine": auc, "readers_mean": auc, "difference": gap, "t": 1.8, "df": 9.0, "p": 0.07}
    line = curves["roc"]
    readers = [
        {"reader": f"reader {i}", "auc": auc, "curve": line, "sensitivity": auc, "specificity": auc} for i in (1, 2, 3)
    ]
    each = [{"reader": f"reader {i}", "difference": gap, "z": 1.7, "p": 0.09, "p_holm": 0.27} for i in (1, 2, 3)]
    way = {
        "readers": readers,
        "mean_roc": line,
        "against_machine": {"auc": {"random_readers": test, "fixed_readers": test, "per_reader": each}},
        "agreement": {"icc": {"ICC2": auc}, "fleiss_kappa": auc},
    }
    mrmc = {"means": [auc, auc], "difference": gap, "p": 0.04}
    write_json(
        folder / "readers.json",
        {
            "arm": FUSED,
            "positive": "NEC",
            "cases": {"rated": 50, "complete": 48, "patients": 48, "positives": 24},
            "readers": [{"reader": f"reader {i}", "skipped": 0} for i in (1, 2, 3)],
            "machine": {"auc": auc, "curve": line, "threshold": 0.6, "sensitivity": auc, "specificity": auc},
            "modalities": [{"modality": "unaided", **way}, {"modality": "aided", **way}],
            "between": {
                "first": "unaided",
                "second": "aided",
                "auc": {"random_readers_random_cases": mrmc, "per_reader": each},
            },
            "findings": [{"severity": "warning", "check": "x", "message": "Reader 2 skipped two cases."}],
        },
    )


if __name__ == "__main__":
    place = Path(sys.argv[1])
    if "--fused" in sys.argv:
        build_fused(place)
    else:
        build(place, external="--external" in sys.argv)
