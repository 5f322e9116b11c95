"""A run with three targets as `tenfold run` would leave it: 33 infants, connectome and clinical values, no network.

`python tests/report/fake_several.py FOLDER` writes one to look at.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tenfold.report.figures_connectome import edge_matrix_figure, glass_brain_figure
from tenfold.types import OUT_OF_FOLD, Estimate, PredictionTable

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
PROPOSED = "A → B → C"
# arm -> what it sees, its stages, and how far apart it holds the two classes of each target
ARMS: dict[str, tuple[list[str], list[str], tuple[float, float, float]]] = {
    PROPOSED: (["connectome", "clinical"], ["adults", "neonates", "infants"], (1.9, 0.2, 1.6)),
    "no pre-training": (["connectome", "clinical"], ["infants"], (0.6, 0.1, 0.7)),
    "A only": (["connectome", "clinical"], ["adults", "infants"], (1.2, 0.3, 1.0)),
    "B only": (["connectome", "clinical"], ["neonates", "infants"], (1.0, 0.0, 1.1)),
    "single task": (["connectome", "clinical"], ["adults", "neonates", "infants"], (1.5, 0.3, 1.2)),
    "connectome only": (["connectome"], ["adults", "neonates", "infants"], (1.3, 0.1, 0.9)),
    "clinical only": (["clinical"], ["infants"], (0.7, 0.4, 0.6)),
    "logistic regression": (["connectome", "clinical"], [], (0.9, 0.1, 0.8)),
}
TARGETS = ("cognitive", "language", "motor")
CLASSES = ("not below 85", "below 85")
KNOWN = {"cognitive": 33, "language": 31, "motor": 33}
REGIONS = [
    f"{place}.{side}"
    for place in ("Precentral", "Frontal", "Calcarine", "Temporal", "Insula", "Thalamus")
    for side in ("L", "R")
]
NETWORKS = dict(
    zip(REGIONS, 2 * ["motor"] + 2 * ["front"] + 2 * ["visual"] + 4 * ["audio"] + 2 * ["deep"], strict=True)
)
DELONG = "DeLong, 95 %; n = patients, one case each"


def wide(area: float, ill: int, well: int) -> Estimate:
    """Hanley and McNeil's interval: that of 33 infants is wide."""
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    spread = math.sqrt((area * (1 - area) + (ill - 1) * (q1 - area**2) + (well - 1) * (q2 - area**2)) / (ill * well))
    return Estimate(area, max(area - 1.96 * spread, 0), min(area + 1.96 * spread, 1), DELONG, ill + well)


def build(folder: Path, base: Any, *, brain: bool = False) -> Path:
    """Write a run of three targets; `base` is the module fake_run, whose helpers this uses."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(5)
    names = ("evaluation", "curves", "folds", "comparisons", "permutations", "optimism", "learning_curve")
    parts: dict[str, dict[str, Any]] = {k: {} for k in names}
    outcomes, targets, points = {}, [], []
    for t, target in enumerate(TARGETS):
        n = KNOWN[target]
        y = np.arange(n) % 3 == 0
        evaluation, curves, folds, tables = {}, {}, {}, []
        for arm, (_, _, gaps) in ARMS.items():
            p = 1 / (1 + np.exp(-(rng.standard_normal(n) + gaps[t] * y - gaps[t] / 2)))
            metrics, matrix = base.evaluate_arm(p, y, 0.45, n)
            metrics["auc"] = wide(metrics["auc"]["value"], int(y.sum()), int((~y).sum())).to_dict()
            metrics["pearson_r"] = Estimate(
                0.2 * gaps[t], 0.2 * gaps[t] - 0.3, 0.2 * gaps[t] + 0.3, "Fisher z", n
            ).to_dict()
            evaluation[arm] = metrics
            curves[arm] = {**base.curves_of(p, y), "confusion": matrix}
            folds[arm] = [
                {"repeat": 0, "fold": k, "n": 7, "auc": float(a)} for k, a in enumerate(rng.uniform(0.4, 1, 5))
            ]
            points += [[target, arm, 0, k, f"{0.4 + 0.02 * k:.2f}", "youden", 20] for k in range(5)]
            tables.append(
                PredictionTable(
                    case=np.array([f"c{i}" for i in range(n)]),
                    patient=np.array([f"p{i}" for i in range(n)]),
                    site=np.array([""] * n),
                    split=np.array([OUT_OF_FOLD] * n),
                    repeat=np.zeros(n, np.int64),
                    fold=np.arange(n) % 5,
                    arm=np.array([arm] * n),
                    label=np.array([CLASSES[int(v)] for v in y]),
                    probabilities=np.column_stack([1 - p, p]),
                    classes=CLASSES,
                )
            )
        PredictionTable.concatenate(tables).write(folder / "predictions" / f"{target}.csv")
        parts["evaluation"][target], parts["curves"][target], parts["folds"][target] = evaluation, curves, folds
        parts["comparisons"][target] = [compared(arm, evaluation, n) for arm in ARMS if arm != PROPOSED]
        ill = int(y.sum())
        p_value = (0.005, 0.41, 0.015)[t]
        held = {"p": p_value, "n": 200, "observed": 0.8, "null_mean": 0.5, "null_high": 0.66}
        parts["permutations"][target] = {PROPOSED: held}
        outside = evaluation[PROPOSED]["auc"]["value"]
        parts["optimism"][target] = {
            "apparent": 0.987, "out_of_fold": outside, "optimism": 0.987 - outside, "method": "mean of 4 folds", "n": n
        }  # fmt: skip
        grown = [
            (0.5, 10.5, 0.5 + 0.6 * (outside - 0.5)),
            (0.75, 15.75, 0.5 + 0.85 * (outside - 0.5)),
            (1.0, 21, outside),
        ]
        parts["learning_curve"][target] = [
            {"share": share, "patients": patients, "auc": wide(area, ill, n - ill).to_dict()}
            for share, patients, area in grown
        ]
        sizes = {CLASSES[0]: n - ill, CLASSES[1]: ill}
        outcomes[target] = {
            "n_cases": n,
            "n_patients": n,
            "tests": [],
            "by_site": {},
            "by_class": {c: {"cases": k, "patients": k} for c, k in sizes.items()},
            "table": [
                {"variable": "patients", "level": "", **{c: str(k) for c, k in sizes.items()}},
                {
                    "variable": "gestational age (wk)",
                    "level": "median [IQR]",
                    CLASSES[0]: "29.1 [28 to 31]",
                    CLASSES[1]: "27.4 [25 to 29]",
                },
            ],
        }
        targets.append(
            {
                "name": target,
                "column": f"bayley_{target}",
                "kind": "score",
                "classes": list(CLASSES),
                "positive": CLASSES[1],
                "below": 85.0,
                "known": n,
                "positives": ill,
            }
        )
    for name, content in parts.items():
        base.write_json(folder / f"{name}.json", content)
    header = ["target", "arm", "repeat", "fold", "threshold", "rule", "n"]
    base.write_csv(folder / "operating_points.csv", header, points)
    flow = [("in the cohort file", 35, ""), ("excluded", 2, "no outcome known"), ("analysed", 33, "")]
    base.write_json(
        folder / "cohort.json",
        {
            "flow": [{"step": s, "cases": k, "patients": k, "reason": why} for s, k, why in flow],
            **outcomes["cognitive"],
            "outcomes": outcomes,
        },
    )
    conformal = base._conformal()
    conformal["classes"] = {c: {"quantile": 0.7, "n": 11, "range": [0.74, 0.98]} for c in CLASSES}
    conformal["realised"] = {}
    base.write_json(folder / "conformal.json", dict.fromkeys(TARGETS, conformal))
    base.write_json(folder / "sample_size.json", dict.fromkeys(TARGETS, base._sample_size()))
    auc = parts["evaluation"]["cognitive"][PROPOSED]["auc"]
    levels = [{"level": s, "patients": 16, "positives": 5, "auc": auc} for s in "FM"]
    base.write_json(folder / "subgroups.json", {t: {"sex": {"levels": levels, "gaps": {}}} for t in TARGETS})
    base.write_json(folder / "run.json", facts(targets, auc))
    explanations(folder, base, brain=brain)
    (folder / "study.toml").write_text('preset = "standard"\nsystem = "neurodevelopment"\n', encoding="utf-8")
    return folder


def compared(arm: str, evaluation: dict[str, Any], n: int) -> dict[str, Any]:
    gap = evaluation[arm]["auc"]["value"] - evaluation[PROPOSED]["auc"]["value"]
    return {
        "arm": arm,
        "reference": PROPOSED,
        "metric": "auc",
        "difference": Estimate(gap, gap - 0.17, gap + 0.17, "paired DeLong, 95 %", n).to_dict(),
        "p": 0.04,
        "p_holm": 0.3,
        "method": "paired DeLong, 95 %",
    }


def facts(targets: list[dict[str, Any]], auc: dict[str, Any]) -> dict[str, Any]:
    def stage(name: str, cohort: str, task: str, transferred: str, reset: str, scored: bool) -> dict[str, Any]:
        history = [
            {"epoch": e + 1, "train_loss": math.exp(-e / 5), "inner_loss": math.exp(-e / 6) + 0.1}
            | ({"inner_auc": 0.7 - 0.2 * math.exp(-e)} if scored else {})
            for e in range(12)
        ]
        more = {"epochs_run": 12, "best_epoch": 9, "history": history, "thaw": "all"}
        return {"name": name, "cohort": cohort, "task": task, "transferred": transferred, "reset": reset, **more}

    return {
        "tenfold": "0.1.0",
        "title": "Neurodevelopment at two years in very preterm infants",
        "system": "neurodevelopment",
        "preset": "standard",
        "seed": 3,
        "started": "2026-05-04T08:15:00Z",
        "seconds": 812.0,
        "device": "cpu",
        "versions": {"python": "3.11.7", "torch": "2.9.1"},
        "hashes": {"study": "ab" * 32},
        "target": targets[0],
        "targets": targets,
        "proposed": PROPOSED,
        "operating_rule": "youden",
        "validation": {"folds": 5, "repeats": 1, "inner": 0.2, "by": "family"},
        "inputs": {
            "connectome": {
                "kind": "connectome",
                "holds": "matrix",
                "space": "fisher_z",
                "harmonise": "site",
                "keep": ["age_at_scan"],
                "confounds": ["age_at_scan", "mean_fd"],
                "unseen": "pass",
                "regions": REGIONS,
                "atlas": "AAL, neonatal",
            },
            "clinical": {"kind": "table", "imputation": "median"},
        },
        "simulated": {
            "simulator": "neurodevelopment",
            "ceiling_auc": 0.85,
            "ceilings": {
                seen: {t: {"r": r, "auc": a} for t, r, a in zip(TARGETS, (0.7, 0.35, 0.65), areas, strict=True)}
                for seen, areas in (
                    ("both", (0.85, 0.67, 0.83)),
                    ("connectome", (0.8, 0.62, 0.78)),
                    ("clinical", (0.7, 0.6, 0.69)),
                )
            },
        },
        "arms": {
            arm: {
                "status": "done",
                "kind": "network" if stages else "classical",
                "inputs": seen,
                "fusion": "concat",
                "stages": stages,
                "encoder": "connectome_dense",
                "network": "connectome_dense + table_dense" if stages else "logistic regression",
                "weights": "none",
                "parameters": 12_112 if stages else 0,
                "seconds": 40.0,
                "together": bool(stages),
                "flaws": [],
            }
            for arm, (seen, stages, _) in ARMS.items()
        },
        "stages": {
            PROPOSED: [
                stage("adults", "abide", "target", "nothing", "everything", True),
                stage("neonates", "dhcp", "reconstruct", "encoder", "head", False),
                stage("infants", "infants", "target", "encoder", "heads, shared layer", True),
            ]
        },
        "opened": [],
    }


def explanations(folder: Path, base: Any, *, brain: bool) -> None:
    place = folder / "explanations"
    place.mkdir(exist_ok=True)
    rng = np.random.default_rng(1)
    n = len(REGIONS)
    weights = rng.standard_normal(n * (n - 1) // 2)
    rows, columns = np.triu_indices(n, 1)
    strongest = np.argsort(-np.abs(weights))[:40]
    top = [
        {"a": REGIONS[rows[i]], "b": REGIONS[columns[i]], "value": float(weights[i]), "agreement": 0.9}
        for i in strongest
    ]
    (place / "edges.json").write_text(json.dumps(top), "utf-8")
    names = list(dict.fromkeys(NETWORKS.values()))
    matrix = rng.standard_normal((len(names), len(names)))
    held: dict[str, Any] = {}
    for target in TARGETS[:2]:
        picture = f"explanations/edges-{target}.png"
        title = f"Contribution of each edge to {target}"
        (folder / picture).write_bytes(edge_matrix_figure(weights, REGIONS, NETWORKS, title))
        held[target] = {
            "method": "integrated gradients, mean over the test cases of each fold",
            "regions": REGIONS,
            "networks": NETWORKS,
            "mean": "explanations/edges.json" if target == "cognitive" else top,
            "network_sums": {
                "names": names,
                "matrix": np.abs(matrix + matrix.T).tolist(),
                "per_edge": [[None if i == j == 0 else 0.1 for i in range(len(names))] for j in range(len(names))],
            },
            "pattern": {"method": "Haufe et al. 2014", "mean": top[:4], "stability": None},
            "stability": Estimate(
                0.31, 0.1, 0.5, "mean correlation of two folds' edges; least and most alike pair", 5
            ).to_dict(),
            "figure": picture,
        }
        if brain:
            coordinates = rng.uniform(-50, 50, (n, 3))
            held[target]["brain"] = f"explanations/brain-{target}.png"
            (folder / held[target]["brain"]).write_bytes(glass_brain_figure(weights, coordinates, title))
    share = Estimate(0.7, 0.6, 0.8, "bootstrap", 33).to_dict()
    base.write_json(
        folder / "explanations.json",
        {
            "cases": [
                {
                    "case": f"c{i}",
                    "patient": f"p{i}",
                    "label": CLASSES[i % 2],
                    "probability": 0.3 + 0.1 * i,
                    "threshold": 0.45,
                    "decision": CLASSES[i // 2],
                    "right": i % 2 == i // 2,
                    "modalities": {"connectome": 0.8, "clinical": -0.3},
                    "base": 0.1,
                }
                for i in range(4)
            ],
            "modalities": {"names": ["connectome", "clinical"], "shares": {"connectome": share, "clinical": share}},
            "edges": {"connectome": held},
        },
    )


if __name__ == "__main__":
    import fake_run

    build(Path(sys.argv[1]), fake_run, brain="--brain" in sys.argv)
