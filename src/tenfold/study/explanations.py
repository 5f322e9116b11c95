"""Heat maps of cases that each network had never seen, and whether such maps can be trusted.

It must not know how networks were fitted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tenfold.explain.feature_maps import feature_maps
from tenfold.explain.grad_cam import grad_cam
from tenfold.explain.overlay import overlay, png_bytes
from tenfold.explain.sanity import localisation, randomisation
from tenfold.modalities.image import read_image
from tenfold.network.network import Network
from tenfold.study.arms import Bench, FittedArm, preparation
from tenfold.study.files import write_json
from tenfold.types import IntArray, write_atomically


def write_explanations(out: Path, bench: Bench, arm: FittedArm) -> None:
    """Write explanations.json and the pictures under explanations/.

    Args:
        out: The run folder.
        bench: The study's cohort and folds.
        arm: The proposed arm; each case is explained by the fold model that was not fitted on it.
    """
    wanted = bench.config.explain
    content: dict[str, Any] = {"cases": [], "feature_maps": [], "sanity": None}
    if wanted.cases or wanted.sanity_cases:
        bench.progress.start("explanations", wanted.cases + wanted.sanity_cases)
    if wanted.cases:
        content["cases"] = [_explained(out, bench, arm, row) for row in _telling_cases(arm, wanted.cases, bench)]
        content["feature_maps"] = _feature_maps(out, bench, arm)
    if wanted.sanity_cases:
        content["sanity"] = _sanity(bench, arm, wanted.sanity_cases, wanted.masks)
        bench.progress.advance(wanted.sanity_cases)
    write_json(out / "explanations.json", content)


def _telling_cases(arm: FittedArm, count: int, bench: Bench) -> list[int]:
    """Rows of the predictions: half wrong ones, surest first, then right ones of both classes, surest first."""
    table = arm.predictions
    first = np.flatnonzero(table.repeat == 0)
    p = table.probabilities[:, -1]
    threshold = np.array(
        [arm.points[(arm.name, int(r), int(f))].threshold for r, f in zip(table.repeat, table.fold, strict=True)]
    )
    positive = table.label == bench.labels.positive
    right = (p >= threshold) == positive
    sure = np.abs(p - threshold)
    ranked = first[np.argsort(-sure[first], kind="stable")]
    wrong = [int(i) for i in ranked if not right[i]][: count // 2]
    found = [[int(i) for i in ranked if right[i] and positive[i] == side] for side in (True, False)]
    half = (count - len(wrong) + 1) // 2
    return (wrong + found[0][:half] + found[1][:half])[:count]


def _explained(out: Path, bench: Bench, arm: FittedArm, row: int) -> dict[str, Any]:
    table = arm.predictions
    case, fold = str(table.case[row]), int(table.fold[row])
    network = arm.network(_place(bench, int(table.repeat[row]), fold))
    rows = bench.rows([case])
    name = next(iter(arm.inputs))
    inputs = arm.pictures.batch(rows)
    (heat,) = grad_cam(network, inputs, view=name, target=bench.target, index=1)
    film = _film(inputs[name][0])
    folder = Path("explanations")
    stem = f"case-{int(rows[0]):05d}"
    write_atomically(
        out / folder / f"{stem}-film.png", png_bytes(film[0] if len(film) == 1 else film.transpose(1, 2, 0))
    )
    write_atomically(out / folder / f"{stem}-heat.png", png_bytes(overlay(film, heat)))
    threshold = arm.points[(arm.name, int(table.repeat[row]), fold)].threshold
    probability = float(table.probabilities[row, -1])
    decision = bench.labels.classes[int(probability >= threshold)]
    bench.progress.advance()
    return {
        "case": case,
        "patient": str(table.patient[row]),
        "label": str(table.label[row]),
        "probability": probability,
        "decision": decision,
        "right": decision == table.label[row],
        "film": str(folder / f"{stem}-film.png"),
        "overlay": str(folder / f"{stem}-heat.png"),
    }


def _feature_maps(out: Path, bench: Bench, arm: FittedArm) -> list[dict[str, str]]:
    """Draw the maps of one positive case that the first fold's network had not seen."""
    positives = [c for c in bench.splits[0].test if bench.labels.values[bench.rows([c])[0]] == bench.labels.positive]
    inputs = arm.pictures.batch(bench.rows(positives[:1]))
    written = []
    for layer, maps in feature_maps(arm.network(0), inputs, view=next(iter(arm.inputs)), channels=8).items():
        file = Path("explanations") / f"maps-{layer.replace(' ', '-')}.png"
        write_atomically(out / file, png_bytes(_tiles(maps)))
        written.append({"layer": layer, "file": str(file)})
    return written


def _sanity(bench: Bench, arm: FittedArm, cases: int, mask_column: str) -> dict[str, Any]:
    """Randomise the first fold's network; play the pointing game with masks, each case with its own fold's network."""
    name = next(iter(arm.inputs))
    test = bench.splits[0].test[:cases]
    inputs = arm.pictures.batch(bench.rows(test))

    def maps_of(network: Network) -> NDArray[np.float32]:
        return grad_cam(network, inputs, view=name, target=bench.target, index=1)

    patients = bench.cohort.patient[bench.rows(test)].tolist()
    content: dict[str, Any] = {
        "randomisation": [
            layer.to_dict()
            for layer in randomisation(arm.network(0), maps_of, view=name, patients=patients, seed=bench.config.seed)
        ],
        "pointing": None,
        "centre_pointing": None,
        "energy": None,
        "centre_energy": None,
        "energy_gain": None,
    }
    if mask_column:
        found = _localised(bench, arm, name, mask_column)
        content |= found or {}
    return content


def _localised(bench: Bench, arm: FittedArm, name: str, column: str) -> dict[str, Any] | None:
    section = arm.inputs[name]
    masks = bench.cohort.paths(column)
    maps, marked, patients = [], [], []
    for k, split in enumerate(bench.splits):
        if split.repeat:
            break
        rows = np.array([r for r in bench.rows(split.test) if masks[int(r)] is not None], np.int64)
        if len(rows) == 0:
            continue
        network = arm.network(k)
        for start in range(0, len(rows), 32):
            chunk: IntArray = rows[start : start + 32]
            maps.append(grad_cam(network, arm.pictures.batch(chunk), view=name, target=bench.target, index=1))
        for row in rows.tolist():
            path = masks[row]
            assert path is not None
            marked.append(preparation(section).apply_mask(read_image(path).pixels > 0))
            patients.append(str(bench.cohort.patient[row]))
    if not marked:
        return None
    found = localisation(np.concatenate(maps), np.stack(marked), patients=patients, seed=bench.config.seed)
    return found.to_dict() if found else None


def _place(bench: Bench, repeat: int, fold: int) -> int:
    return next(k for k, s in enumerate(bench.splits) if (s.repeat, s.fold) == (repeat, fold))


def _film(picture: Tensor) -> NDArray[np.uint8]:
    return (picture.cpu() * 255).round().to(torch.uint8).numpy()


def _tiles(maps: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Lay maps side by side, each scaled to its own range, enlarged to a visible size."""
    enlarge = max(1, 96 // maps.shape[-1])
    tiles = []
    for values in maps:
        low, high = float(values.min()), float(values.max())
        scaled = (values - low) / (high - low) if high > low else np.zeros_like(values)
        colour = np.uint8(mpl.colormaps["viridis"](scaled)[..., :3] * 255)
        tiles.append(
            np.pad(
                np.kron(colour, np.ones((enlarge, enlarge, 1), np.uint8)),
                ((2, 2), (2, 2), (0, 0)),
                constant_values=255,
            )
        )
    half = (len(tiles) + 1) // 2
    tiles += [np.full_like(tiles[0], 255)] * (2 * half - len(tiles))
    return np.vstack([np.hstack(tiles[:half]), np.hstack(tiles[half:])])
