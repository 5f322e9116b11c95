"""An arm that is a network: its source stages once, its folds one by one.

It must not know other arms, calibration or statistics.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save

from tenfold import encoders
from tenfold.cohort.manifest import Cohort
from tenfold.config import ArmSection, ImageInput, StageSection, StudyFile, TableInput
from tenfold.errors import CohortError, EncoderError
from tenfold.network.heads import HeadSpec
from tenfold.network.network import Network
from tenfold.study.arms import FittedArm, FoldScores, altered, answered, finished, parts_of
from tenfold.study.bench import Bench, Sections, Tables
from tenfold.study.results import Place
from tenfold.training.classical import takes_nan
from tenfold.training.device import choose_precision, seed_for
from tenfold.training.folds import FoldResult, altered_rows, run_fold
from tenfold.training.loop import Recipe, predict_scores
from tenfold.training.sources import Inputs
from tenfold.training.stages import Material, Stage, run_stages, source_for
from tenfold.types import FloatArray, IntArray, OperatingPoint, PredictionTable, write_atomically

Sources = Mapping[str, tuple[Cohort, Mapping[str, Sequence[str]]]]
"""For every stage on another cohort: that cohort and the hashes of its pictures, by column."""


@dataclass(frozen=True)
class FoldNetworks:
    """The networks of an arm, one a fold.

    Attributes:
        build: Makes the network of a fold, without the weights that were fitted.
        folds: What each fold left.
        inputs: Pictures, and tables as each fold prepared them.
        tables: The fitted preparations of each fold.
        precision: What they were run in.
    """

    build: Callable[[int], Network]
    folds: tuple[FoldResult, ...]
    inputs: tuple[Inputs, ...]
    tables: tuple[Tables, ...]
    precision: torch.dtype

    def network(self, fold: int) -> Network:
        """Return the network of one fold."""
        network = self.build(fold)
        network.load_state_dict(self.folds[fold].state_dict())
        return network.eval()


def fit_networks(bench: Bench, arm: ArmSection, sources: Sources, *, alter: bool) -> tuple[FittedArm, FoldNetworks]:
    """Fit one network arm in all folds.

    Args:
        bench: What all arms share.
        arm: What is its own.
        sources: The cohorts of the source stages.
        alter: Whether test cases are also predicted with each input permuted and without it.

    Returns:
        The arm and its networks.

    Raises:
        Refusal: The arm cannot be built or fitted; the caller decides whether the others go on.
    """
    started = time.monotonic()
    config = bench.config
    sections = config.inputs_of(arm)
    joined = config.network_of(arm)
    stage_sections = config.stages_of(arm)
    tables = [bench.fitted_tables(sections, bench.rows(split.train)) for split in bench.splits]
    whole = bench.inputs(sections, tables[0])
    inputs = [whole.with_tables(_applied(bench, fitted)) for fitted in tables]
    # screening may leave one fold columns that a case lacks, and another fold others
    answers = np.all([own.has_any(list(sections)) for own in inputs], axis=0)
    head = HeadSpec(kind=joined.head, classes=bench.labels.classes, hidden=joined.hidden, dropout=joined.dropout)

    def fresh(fold: int) -> Network:
        built = _encoders(bench, sections, tables[fold])
        # what joins several inputs has no business where there is one
        fusion = joined.fusion if len(sections) > 1 else "concat"
        network = Network(built, {bench.target: head}, fusion=fusion, modality_dropout=joined.modality_dropout)
        return network.to(bench.device).to(memory_format=torch.channels_last)

    first = fresh(0).eval()
    sample = np.flatnonzero(answers)[:8]
    precision = _precision(bench, arm, lambda: first(inputs[0].batch(sample)))
    state_file, records = _run_sources(bench, arm, sections, sources, head, precision)

    def build(fold: int) -> Network:
        network = fresh(fold)
        if state_file is not None:
            _load_encoders(network, state_file)
        return network

    # the head is made anew by the first of the study's own stages and handed on by the others
    own = [s for s in stage_sections if not s.cohort]
    stages = [
        Stage(s.name, bench.target, None if k else head, _recipe(s, config), config.augment.variants)
        for k, s in enumerate(own)
    ]
    views = config.augment.test_time
    folds = []
    for k, split in enumerate(bench.splits):
        bench.progress.start(f"{arm.name}: repeat {split.repeat + 1}, fold {split.fold + 1}", _epochs(stages))
        train, inner, test = parts_of(bench, split, answers)
        material = _material(bench, inputs[k], train, inner)
        folds.append(
            run_fold(
                bench.work / "folds" / _slug(arm.name) / f"{split.repeat}-{split.fold}",
                lambda k=k: build(k),  # type: ignore[misc]
                [(stage, material) for stage in stages],
                test=test,
                inputs=inputs[k],
                views=views,
                seed=seed_for(config.seed, "fold", split.repeat, split.fold),
                cache=bench.work / "frozen",
                autocast=precision,
                alter=tuple(sections) if alter and len(sections) > 1 else (),
                progress=lambda *_: bench.progress.advance(),
            )
        )
    networks = FoldNetworks(build, tuple(folds), tuple(inputs), tuple(tables), precision)

    def score(fold: int, rows: IntArray) -> FloatArray:
        network = networks.network(fold)
        network.thaw(stages[-1].recipe.thaw)
        source = source_for(network, inputs[fold], bench.work / "frozen", config.augment.variants, precision)
        return predict_scores(network, source, rows, bench.target, views=views, autocast=precision)

    weights = _names(sections)
    # where a fold stopped early differs; the record shows the first fold's course
    for summary, section in zip(folds[0].fits, own, strict=True):
        recipe = _recipe(section, config)
        records.append(
            _stage_record(section, summary["history"], summary["best_epoch"], recipe, bool(records), weights)
        )
    fitted = finished(
        bench,
        arm.name,
        sections,
        answers,
        [
            FoldScores(
                answered(bench.rows(split.inner), answers),
                fold.inner_scores,
                answered(bench.rows(split.test), answers),
                fold.test_scores,
            )
            for split, fold in zip(bench.splits, folds, strict=True)
        ],
        score,
        {
            "kind": "network",
            "encoder": ", ".join(s.encoder for s in sections.values()),
            "network": ", ".join(_network_name(s) for s in sections.values()),
            "weights": weights,
            "size": ", ".join(str(s.size) for s in sections.values() if isinstance(s, ImageInput)),
            "fusion": joined.fusion if len(sections) > 1 else "",
            "parameters": first.parameter_count,
            "stages": [r["name"] for r in records],
            "precision": str(precision).removeprefix("torch."),
            "seconds": time.monotonic() - started,
            "flaws": list(arm.flaws),
        },
        records,
    )
    return fitted, networks


def altered_arms(
    bench: Bench, arm: FittedArm, networks: FoldNetworks
) -> dict[str, tuple[PredictionTable, dict[Place, OperatingPoint]]]:
    """Return the predictions of an arm with an input permuted or taken away, by the name of that arm."""
    found = {}
    for label in networks.folds[0].altered:
        folds = []
        for fold, result, inputs in zip(arm.folds, networks.folds, networks.inputs, strict=True):
            name = label.removesuffix(" permuted").removeprefix("without ")
            permuted, without = altered_rows(inputs, name, fold.test)
            folds.append((permuted if label.endswith(" permuted") else without, result.altered[label]))
        found[f"{arm.name}, {label}"] = altered(bench, arm, f"{arm.name}, {label}", folds)
    return found


def check_encoders(config: StudyFile) -> None:
    """Refuse an unknown encoder, network or model of tables before anything is decoded.

    Raises:
        EncoderError: An arm names an encoder, a network or an option that there is not.
        TrainingError: Likewise a model of tables.
    """
    for arm in config.arms:
        if arm.model:
            takes_nan(arm.model)
        for section in config.inputs_of(arm).values():
            if not arm.model and not arm.combine:
                encoders.own_size(section.encoder, **_options(section, 1))


def _applied(bench: Bench, tables: Tables) -> dict[str, Any]:
    return {name: fitted.apply(bench.tables[name].values) for name, fitted in tables.items()}


def _epochs(stages: Sequence[Stage]) -> int:
    return sum(stage.recipe.epochs for stage in stages)


def _precision(bench: Bench, arm: ArmSection, step: Callable[[], object]) -> torch.dtype:
    """Measure which precision is faster once a run: a resumed one must not choose otherwise."""
    place = bench.work / "precision" / _slug(arm.name)
    if not place.is_file():
        write_atomically(place, str(choose_precision(bench.device, step)).removeprefix("torch."))
    return {"bfloat16": torch.bfloat16, "float32": torch.float32}[place.read_text("utf-8")]


def _encoders(bench: Bench, sections: Sections, tables: Tables) -> dict[str, encoders.Encoder]:
    """Build fresh encoders: the same initial weights in every fold, and in every arm whose first input is the same."""
    built = {}
    for k, (name, section) in enumerate(sections.items()):
        torch.manual_seed(seed_for(bench.config.seed, "initial weights", *([name] if k else [])))
        features = len(tables[name].features) if name in tables else 0
        options = _options(section, features)
        if isinstance(section, ImageInput):
            options["weights"] = _weights(bench.folder, section.weights)
        built[name] = encoders.build(section.encoder, **options)
    torch.manual_seed(seed_for(bench.config.seed, "initial fusion"))
    return built


def _options(section: ImageInput | TableInput, features: int) -> dict[str, Any]:
    if isinstance(section, TableInput):
        return {"features": features, **section.options}
    named = {"network": section.network} if section.encoder == "image_timm" else {}
    return {"channels": section.channels, **named, **section.options}


def _network_name(section: ImageInput | TableInput) -> str:
    timm = isinstance(section, ImageInput) and section.encoder == "image_timm"
    return section.network if timm and isinstance(section, ImageInput) else section.encoder


def _names(sections: Sections) -> str:
    """Name the starting weights without the folders they lie in."""
    return ", ".join(Path(s.weights).name if isinstance(s, ImageInput) else "none" for s in sections.values())


def _weights(folder: Path, weights: str) -> str:
    return weights if weights in ("imagenet", "none") else str((folder / weights).resolve())


def _recipe(section: StageSection, config: StudyFile) -> Recipe:
    return Recipe(**section.training(config.training).model_dump())


def _material(bench: Bench, inputs: Inputs, train: IntArray, inner: IntArray) -> Material:
    labels = torch.tensor(bench.label_index, dtype=torch.float32)
    return Material(inputs, train, labels[train], inner, labels[inner])


def _load_encoders(network: Network, file: Path) -> None:
    """Put encoders from a source stage into a network; its heads stayed behind, and so do inputs it did not have."""
    state = load(file.read_bytes())
    for name, encoder in network.encoders.items():
        own = {key.removeprefix(f"{name}|"): t for key, t in state.items() if key.startswith(f"{name}|")}
        if not own:
            continue
        found = encoder.load_state_dict(own, strict=False)
        if found.missing_keys or found.unexpected_keys:
            raise EncoderError(
                f"the encoder of the stage before does not fit: {(found.missing_keys + found.unexpected_keys)[0]}",
                do="remove the run folder and start again",
                where=str(file),
            )


def _run_sources(
    bench: Bench, arm: ArmSection, sections: Sections, sources: Sources, head: HeadSpec, precision: torch.dtype
) -> tuple[Path | None, list[dict[str, Any]]]:
    """Run the stages on other cohorts once, on pictures alone; arms with the same beginning share them."""
    pictured = {name: s for name, s in sections.items() if isinstance(s, ImageInput)}
    state_file: Path | None = None
    records: list[dict[str, Any]] = []
    chain: list[Any] = [{n: s.model_dump() for n, s in pictured.items()}, bench.config.seed]
    for section in bench.config.stages_of(arm):
        if not section.cohort or not pictured:
            continue
        cohort, hashes = sources[section.name]
        chain.append(
            [section.model_dump(), bench.config.training.model_dump(), {c: list(h) for c, h in hashes.items()}]
        )
        digest = hashlib.sha256(json.dumps(chain, sort_keys=True).encode()).hexdigest()[:16]
        folder = bench.work / "stages" / f"{_slug(section.name)}-{digest}"
        previous, state_file = state_file, folder / "encoder.safetensors"
        if not (folder / "done.json").is_file():
            network = Network(_encoders(bench, pictured, {}), {bench.target: head})
            network.to(bench.device).to(memory_format=torch.channels_last)
            if previous is not None:
                _load_encoders(network, previous)
            recipe = _recipe(section, bench.config)
            augmentation, seed = bench.augmentation(section.name)
            stores = bench.pictures(cohort, hashes, pictured, section.name)
            stage, material = _source_stage(
                bench, section, cohort, Inputs(stores, augmentation, seed, bench.device), recipe
            )
            bench.progress.start(f"{arm.name}: stage {section.name}", recipe.epochs)
            (result,) = run_stages(
                network,
                [(stage, material)],
                seed=seed_for(bench.config.seed, "source"),
                cache=bench.work / "frozen",
                checkpoints=folder / "checkpoints",
                autocast=precision,
                progress=lambda *_: bench.progress.advance(),
            )
            state = {
                f"{name}|{key}": t.detach().cpu().clone().contiguous()
                for name, encoder in network.encoders.items()
                for key, t in encoder.state_dict().items()
            }
            write_atomically(state_file, save(state))
            record = _stage_record(
                section, result.history, result.best_epoch, recipe, previous is not None, _names(pictured)
            )
            record["cases"] = {"train": len(material.train), "inner": len(material.inner)}
            write_atomically(folder / "done.json", json.dumps(record))
        records.append(json.loads((folder / "done.json").read_text("utf-8")))
    return state_file, records


def _source_stage(
    bench: Bench, section: StageSection, cohort: Cohort, inputs: Inputs, recipe: Recipe
) -> tuple[Stage, Material]:
    if section.task == "multilabel":
        labels = torch.tensor(np.stack([_zero_one(cohort, c) for c in section.columns], 1), dtype=torch.float32)
        head = HeadSpec(kind="multilabel", classes=section.columns)
    else:
        values = cohort.labels(section.column)
        classes = tuple(sorted(set(values[values != ""].tolist())))
        index = [classes.index(v) if v else math.nan for v in values.tolist()]
        labels = torch.tensor(index, dtype=torch.float32)
        head = HeadSpec(kind="softmax", classes=classes)
    inner = _part_of_patients(cohort, bench.config.validation.inner, seed_for(bench.config.seed, section.name, "inner"))
    train_rows, inner_rows = np.flatnonzero(~inner), np.flatnonzero(inner)
    stage = Stage(section.name, section.name, head, recipe, bench.config.augment.variants)
    return stage, Material(inputs, train_rows, labels[train_rows], inner_rows, labels[inner_rows])


def _zero_one(cohort: Cohort, column: str) -> FloatArray:
    """Read a 0/1 column; an empty cell is unknown."""
    values = cohort.labels(column).tolist()
    known = {"": math.nan, "0": 0.0, "1": 1.0}
    for i, value in enumerate(values):
        if value not in known:
            raise CohortError(
                f"'{value}' is neither 0 nor 1",
                expected="0, 1, or empty where unknown",
                where=cohort.place(i, column),
            )
    return np.array([known[v] for v in values])


def _part_of_patients(cohort: Cohort, part: float, seed: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    patients = np.unique(cohort.patient)
    chosen = np.random.default_rng(seed).permutation(patients)[: max(1, round(part * len(patients)))]
    return np.isin(cohort.patient, chosen)


def _stage_record(
    section: StageSection,
    history: Sequence[Mapping[str, float]],
    best: int,
    recipe: Recipe,
    follows: bool,
    weights: str,
) -> dict[str, Any]:
    return {
        "name": section.name,
        "cohort": section.cohort or "the study's own patients",
        "task": section.task,
        "thaw": recipe.thaw,
        "epochs_run": len(history),
        "best_epoch": best,
        "history": list(history),
        "transferred": "all encoder weights of the stage before" if follows else f"starting weights: {weights}",
        "reset": "the head",
        "recipe": asdict(recipe),
    }


def _slug(name: str) -> str:
    kept = "".join(c if c.isalnum() else "-" for c in name).strip("-").lower()
    return f"{kept[:40]}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
