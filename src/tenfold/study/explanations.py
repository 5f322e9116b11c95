"""What moved predictions of cases that each network had never seen, and whether heat maps can be trusted.

It must not know how networks were fitted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tenfold.config import ConnectomeInput, ImageInput
from tenfold.errors import StatisticsError
from tenfold.explain.edges import ATTRIBUTION, PATTERN, edge_map, haufe_pattern, signed_attribution
from tenfold.explain.feature_maps import feature_maps
from tenfold.explain.grad_cam import grad_cam, map_step
from tenfold.explain.importance import global_importance, sum_by_column
from tenfold.explain.integrated_gradients import integrated_gradients
from tenfold.explain.overlay import overlay, png_bytes
from tenfold.explain.sanity import localisation, randomisation, randomised
from tenfold.explain.shapley import ModalityShapley, modality_shapley
from tenfold.modalities.connectome import coordinates_of_regions, networks_of_regions
from tenfold.modalities.image import read_image
from tenfold.modalities.table import TablePreparation
from tenfold.network.network import Network
from tenfold.report.figures_connectome import edge_matrix_figure, glass_brain_figure
from tenfold.study.arms import FittedArm
from tenfold.study.bench import Bench, preparation
from tenfold.study.files import write_json
from tenfold.study.network_arm import FoldNetworks
from tenfold.training.device import seed_for
from tenfold.types import FloatArray, IntArray, finite_or_none, write_atomically

_BACKGROUND = 50


def write_explanations(out: Path, bench: Bench, arms: Mapping[str, FittedArm], networks: FoldNetworks) -> None:
    """Write explanations.json and the pictures under explanations/.

    Args:
        out: The run folder.
        bench: The study's cohort and folds, looking at the target that cases are explained for.
        arms: The proposed arm as each target sees it; edges of connectomes are explained for all.
        networks: Its networks; each case is explained by the fold model that was not fitted on it.
    """
    wanted, arm = bench.config.explain, arms[bench.target]
    content: dict[str, Any] = {"cases": [], "feature_maps": [], "sanity": None, "layer": wanted.layer}
    views = [name for name, s in arm.sections.items() if isinstance(s, ImageInput)]
    view = wanted.view if wanted.view in views else next(iter(views), "")
    if wanted.cases or wanted.sanity_cases:
        bench.progress.start("explanations", wanted.cases + wanted.sanity_cases)
    if wanted.cases:
        telling = _telling_cases(arm, wanted.cases, bench)
        content["cases"] = [_explained(out, bench, arm, networks, row, views) for row in telling]
        content |= _global(bench, arm, networks)
        connectomes = [name for name, s in arm.sections.items() if isinstance(s, ConnectomeInput)]
        if connectomes:
            content["edges"] = {name: _edges(out, bench, arms, networks, name) for name in connectomes}
        if view:
            content["feature_maps"] = _feature_maps(out, bench, networks, view)
    if wanted.sanity_cases and view:
        content["sanity"] = _sanity(bench, arm, networks, view)
        bench.progress.advance(wanted.sanity_cases)
    write_json(out / "explanations.json", content)


def _telling_cases(arm: FittedArm, count: int, bench: Bench) -> list[int]:
    """Rows of the predictions: half wrong ones, surest first, then right ones of every class, surest first."""
    table = arm.predictions
    first = np.flatnonzero(table.repeat == 0)
    decided = table.probabilities.argmax(axis=1)
    sure = table.probabilities.max(axis=1)
    if len(table.classes) == 2:
        p = table.probabilities[:, -1]
        threshold = np.array(
            [arm.points[(arm.name, int(r), int(f))].threshold for r, f in zip(table.repeat, table.fold, strict=True)]
        )
        decided, sure = (p >= threshold).astype(np.int64), np.abs(p - threshold)
    right = np.array(table.classes)[decided] == table.label
    ranked = first[np.argsort(-sure[first], kind="stable")]
    wrong = [int(i) for i in ranked if not right[i]][: count // 2]
    each = -(-(count - len(wrong)) // len(table.classes))
    kept = [int(i) for c in reversed(table.classes) for i in ranked[right[ranked] & (table.label[ranked] == c)][:each]]
    return (wrong + kept)[:count]


def _explained(
    out: Path, bench: Bench, arm: FittedArm, networks: FoldNetworks, row: int, views: Sequence[str]
) -> dict[str, Any]:
    """What moved one prediction: of two classes towards the positive one, of more towards the likeliest."""
    table = arm.predictions
    case, fold = str(table.case[row]), int(table.fold[row])
    k = _place(bench, int(table.repeat[row]), fold)
    network, rows = networks.network(k), bench.rows([case])
    # so that what is added up is the log-odds of the probability beside it
    calibration = arm.calibrations[k]
    threshold = arm.points[(arm.name, int(table.repeat[row]), fold)].threshold
    several = len(bench.labels.classes) > 2
    index = int(table.probabilities[row].argmax()) if several else bench.positive_index
    probability = float(table.probabilities[row, index])
    decision = bench.labels.classes[index if several else int(probability >= threshold)]
    bench.progress.advance()
    found: dict[str, Any] = {
        "case": case,
        "patient": str(table.patient[row]),
        "label": str(table.label[row]),
        "class": bench.labels.classes[index],
        "probability": probability,
        "threshold": threshold,
        "decision": decision,
        "right": decision == table.label[row],
        "absent": [name for name in arm.sections if not networks.inputs[k].has(name)[rows[0]]],
    }
    inputs = networks.inputs[k].batch(rows)
    found["pictures"] = [
        drawn for view in views for drawn in _drawn(out, bench, network, inputs, view, index, int(rows[0]))
    ]
    found |= {key: found["pictures"][0][key] for key in ("film", "overlay") if found["pictures"]}
    # the odds of one class against several do not scale with the temperature: there they are those before calibration
    temperature = 1.0 if several else calibration.temperature
    if len(arm.sections) > 1:
        shapley = _shapley(bench, networks, network, k, rows, index)
        if shapley is not None:
            shift = (*calibration.intercepts, 0.0, 0.0)[:2] if not several else (0.0, 0.0)
            values = shapley.values[0] / temperature
            found["modalities"] = dict(zip(shapley.names, values.tolist(), strict=True))
            found["base"] = shapley.base / temperature + shift[1] - shift[0]
    for name in bench.tables:
        if name in arm.sections and networks.inputs[k].has(name)[rows[0]]:
            values = _contributions(bench, networks, network, k, name, rows, index)[0] / temperature
            found.setdefault("labs", []).extend(_lab_rows(bench, name, int(rows[0]), values))
    return found


def _drawn(
    out: Path, bench: Bench, network: Network, inputs: Mapping[str, Tensor], view: str, index: int, row: int
) -> list[dict[str, Any]]:
    """Draw every picture that a case has of a view, with and without its heat map."""
    pictures = inputs[view][0] if inputs[view].ndim == 5 else inputs[view]
    heats = _maps(bench, network, inputs, view, index)[0]
    section = bench.config.inputs[view]
    assert isinstance(section, ImageInput)
    prepared = preparation(section, bench.cohort, section.column or view)
    drawn = []
    for i, (picture, heat) in enumerate(zip(pictures, heats, strict=True)):
        if bool(picture.isnan().any()):
            continue
        film, stem = prepared.visible(_film(picture)), f"explanations/case-{row:05d}-{view}-{i + 1}"
        grey = film[0] if len(film) == 1 else film.transpose(1, 2, 0)
        write_atomically(out / f"{stem}.png", png_bytes(grey))
        write_atomically(out / f"{stem}-heat.png", png_bytes(overlay(film, heat)))
        drawn.append({"view": view, "picture": i, "film": f"{stem}.png", "overlay": f"{stem}-heat.png"})
    return drawn


def _maps(
    bench: Bench, network: Network, inputs: Mapping[str, Tensor], view: str, index: int | None = None
) -> NDArray[np.float32]:
    """(n, pictures, side, side) heat maps for a class, the positive one unless said; NaN where there is no picture."""
    step = map_step(network.encoders[view], inputs[view], bench.config.explain.layer)
    index = bench.positive_index if index is None else index
    maps = grad_cam(network, inputs, view=view, target=bench.target, index=index, step=step)
    return maps if maps.ndim == 4 else maps[:, None]


def _lab_rows(bench: Bench, name: str, row: int, contributions: FloatArray) -> list[dict[str, Any]]:
    """What one patient's table holds, against its reference intervals, and what it added to the log-odds."""
    reading = bench.tables[name]
    rows = []
    for column, value, added in zip(reading.columns, reading.values[row], contributions, strict=True):
        shown = column.levels[int(value)] if column.levels and np.isfinite(value) else finite_or_none(float(value))
        rows.append(
            {
                "column": column.name,
                "label": column.label or column.name,
                "unit": column.unit,
                "value": shown,
                "observed": bool(np.isfinite(value)),
                "normal_low": finite_or_none(column.normal_low),
                "normal_high": finite_or_none(column.normal_high),
                "contribution": float(added),
            }
        )
    return rows


def _contributions(
    bench: Bench, networks: FoldNetworks, network: Network, k: int, name: str, rows: IntArray, index: int | None = None
) -> FloatArray:
    """(n, columns) what each column of a table added to the log-odds; 0 where screening left a column out."""
    prepared = networks.fitted[k][name]
    assert isinstance(prepared, TablePreparation)
    found = integrated_gradients(
        network,
        networks.inputs[k].batch(rows),
        view=name,
        baseline=torch.from_numpy(prepared.baseline()),
        target=bench.target,
        index=bench.positive_index if index is None else index,
    )
    values = np.zeros((len(rows), len(prepared.raw_columns)))
    values[:, list(prepared.kept)] = sum_by_column(found.values, prepared.column_of)
    return values


def _shapley(
    bench: Bench, networks: FoldNetworks, network: Network, k: int, rows: IntArray, index: int | None = None
) -> ModalityShapley | None:
    """Shapley values of the inputs against complete training cases of that fold; None where there are none."""
    inputs = networks.inputs[k]
    complete = np.all([inputs.has(name) for name in inputs.names], axis=0)
    train = bench.rows(bench.splits[k].train)
    train = train[complete[train]]
    if not len(train):
        return None
    drawn = np.random.default_rng(seed_for(bench.config.seed, "background", k)).permutation(train)[:_BACKGROUND]
    index = bench.positive_index if index is None else index
    return modality_shapley(network, inputs.batch(rows), inputs.batch(drawn), target=bench.target, index=index)


def _global(bench: Bench, arm: FittedArm, networks: FoldNetworks) -> dict[str, Any]:
    """What moved the predictions of all cases together: shares of the inputs, and importance of table columns."""
    first = [k for k, split in enumerate(bench.splits) if split.repeat == 0]
    content: dict[str, Any] = {}
    shapleys, patients = [], []
    attributed: dict[str, list[FloatArray]] = {name: [] for name in bench.tables if name in arm.sections}
    for k in first:
        network, rows = networks.network(k), arm.folds[k].test
        temperature = arm.calibrations[k].temperature if len(bench.labels.classes) == 2 else 1.0
        if len(arm.sections) > 1:
            found = _shapley(bench, networks, network, k, rows)
            if found is not None:
                shapleys.append(found)
                patients += bench.cohort.patient[rows].tolist()
        for name, parts in attributed.items():
            there = rows[networks.inputs[k].has(name)[rows]]
            if len(there):
                parts.append(_contributions(bench, networks, network, k, name, there) / temperature)
    if shapleys:
        together = ModalityShapley(
            shapleys[0].names,
            np.concatenate([s.values for s in shapleys]),
            float(np.mean([s.base for s in shapleys])),
            np.concatenate([s.log_odds for s in shapleys]),
        )
        shares = together.shares(patients, bench.config.seed)
        content["modalities"] = {
            "names": list(together.names),
            "shares": {name: estimate.to_dict() for name, estimate in shares.items()},
        }
    importance = {
        name: {
            **global_importance(parts, [c.name for c in bench.tables[name].columns]).to_dict(),
            "labels": {c.name: c.label or c.name for c in bench.tables[name].columns},
        }
        for name, parts in attributed.items()
        if parts
    }
    return content | ({"importance": importance} if importance else {})


def _edges(
    out: Path, bench: Bench, arms: Mapping[str, FittedArm], networks: FoldNetworks, name: str
) -> dict[str, dict[str, Any]]:
    """What the edges of a connectome say of each target, over the folds of the first repeat."""
    reading = bench.connectomes[name].reading
    section = arms[bench.target].sections[name]
    named = section.regions if isinstance(section, ConnectomeInput) else ""
    of = networks_of_regions(bench.cohort.folder / named) if named else {}
    places = coordinates_of_regions(bench.cohort.folder / named) if named else None
    found: dict[str, dict[str, Any]] = {}
    for target, arm in arms.items():
        signed, patterns = [], []
        for k, split in enumerate(bench.splits):
            rows = arm.folds[k].test
            rows = rows[networks.inputs[k].has(name)[rows]]
            if split.repeat or not len(rows):
                continue
            baseline = networks.fitted[k][name].baseline()
            inputs = networks.inputs[k].batch(rows)
            gradients = integrated_gradients(
                networks.network(k),
                inputs,
                view=name,
                baseline=torch.from_numpy(baseline),
                target=target,
                index=bench.of(target).positive_index,
            )
            edges = networks.inputs[k].tables[name][rows].astype(np.float64)
            signed.append(signed_attribution(gradients.values, edges, baseline.astype(np.float64)))
            patterns.append(haufe_pattern(edges, gradients.log_odds))
        if not signed:
            continue
        try:
            map_ = edge_map(signed, reading.regions, method=ATTRIBUTION, networks=of)
            pattern = edge_map(patterns, reading.regions, method=PATTERN, networks=of)
        except StatisticsError as error:
            found[target] = {"method": error.came, "regions": list(reading.regions), "mean": []}
            continue
        file = f"explanations/edges-{name}-{target}.png"
        title = f"Edges that speak for '{bench.of(target).labels.positive}' ({target})"
        write_atomically(out / file, edge_matrix_figure(map_.mean, reading.regions, of, title))
        found[target] = {**map_.to_dict(), "figure": file, "pattern": pattern.to_dict()}
        if places is not None:
            brain = f"explanations/brain-{name}-{target}.png"
            write_atomically(out / brain, glass_brain_figure(map_.mean, places, title))
            found[target]["brain"] = brain
    return found


def _pictured(bench: Bench, networks: FoldNetworks, view: str) -> list[tuple[int, IntArray]]:
    """Folds of the first repeat, with those of their test cases that have a picture."""
    found = []
    for k, split in enumerate(bench.splits):
        if not split.repeat:
            rows = bench.rows(split.test)
            found.append((k, rows[networks.inputs[k].has(view)[rows]]))
    return found


def _feature_maps(out: Path, bench: Bench, networks: FoldNetworks, view: str) -> list[dict[str, str]]:
    """Draw the maps of one positive case that its network had not seen; none where no positive case has a picture."""
    positive = bench.positive
    found = [(k, r) for k, rows in _pictured(bench, networks, view) for r in rows.tolist() if positive[r]]
    if not found:
        return []
    k, row = found[0]
    inputs = networks.inputs[k].batch(np.array([row], np.int64))
    written = []
    for layer, maps in feature_maps(networks.network(k), inputs, view=view, channels=8).items():
        file = Path("explanations") / f"maps-{layer.replace(' ', '-')}.png"
        write_atomically(out / file, png_bytes(_tiles(maps)))
        written.append({"layer": layer, "file": str(file)})
    return written


def _sanity(bench: Bench, arm: FittedArm, networks: FoldNetworks, view: str) -> dict[str, Any]:
    """Randomise one fold's network; play the pointing game with masks, each case with its own fold's network."""
    wanted = bench.config.explain
    k, rows = max(_pictured(bench, networks, view), key=lambda found: min(len(found[1]), wanted.sanity_cases))
    rows = rows[: wanted.sanity_cases]
    inputs = networks.inputs[k].batch(rows)

    def maps_of(network: Network) -> NDArray[np.float32]:
        return _maps(bench, network, inputs, view)[:, 0]

    patients = bench.cohort.patient[rows].tolist()
    content: dict[str, Any] = {
        "randomisation": [
            layer.to_dict()
            for layer in randomisation(
                networks.network(k), maps_of, view=view, patients=patients, seed=bench.config.seed
            )
        ],
        "pointing": None,
        "centre_pointing": None,
        "energy": None,
        "centre_energy": None,
        "energy_gain": None,
        "energy_over_random": None,
    }
    section = arm.sections[view]
    if wanted.masks and isinstance(section, ImageInput):
        content |= _localised(bench, networks, view, section, wanted.masks) or {}
    return content


def _localised(
    bench: Bench, networks: FoldNetworks, view: str, section: ImageInput, column: str
) -> dict[str, Any] | None:
    masks = bench.cohort.paths(column)
    prepared = preparation(section, bench.cohort, section.column or view)
    having = networks.inputs[0].has(view)
    maps, random_maps, marked, patients = [], [], [], []
    for k, split in enumerate(bench.splits):
        if split.repeat:
            break
        test = bench.rows(split.test)
        rows = np.array([r for r in test.tolist() if masks[r] is not None and having[r]], np.int64)
        if len(rows) == 0:
            continue
        network = networks.network(k)
        random = randomised(network, view, seed=bench.config.seed)
        for start in range(0, len(rows), 32):
            inputs = networks.inputs[k].batch(rows[start : start + 32])
            maps.append(_maps(bench, network, inputs, view)[:, 0])
            random_maps.append(_maps(bench, random, inputs, view)[:, 0])
        for row in rows.tolist():
            path = masks[row]
            assert path is not None
            marked.append(prepared.apply_mask(read_image(path).pixels > 0, site=str(bench.cohort.site[row])))
            patients.append(str(bench.cohort.patient[row]))
    if not marked:
        return None
    found = localisation(
        np.concatenate(maps),
        np.stack(marked),
        random_maps=np.concatenate(random_maps),
        patients=patients,
        seed=bench.config.seed,
    )
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
