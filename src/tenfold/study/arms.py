"""One arm after another: its source stages once, its folds one by one, its predictions of cases it never saw.

It must not know statistics beyond calibration and the operating point, nor how results are drawn.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save

from tenfold import encoders
from tenfold.cohort.manifest import Cohort, Labels
from tenfold.config import ArmSection, InputSection, StageSection, StudyFile
from tenfold.errors import CohortError, EncoderError
from tenfold.modalities import MODALITIES
from tenfold.modalities.image import ImagePreparation, read_image
from tenfold.network.heads import HeadSpec
from tenfold.network.network import Network
from tenfold.stats.calibration import fit_platt, fit_temperature
from tenfold.stats.operating_point import choose
from tenfold.study.progress import Progress
from tenfold.study.results import Place
from tenfold.training.augment import Augmentation
from tenfold.training.device import choose_precision, seed_for
from tenfold.training.folds import FoldResult, run_fold
from tenfold.training.loop import Recipe, predict_scores
from tenfold.training.sources import Pictures
from tenfold.training.stages import Material, Stage, run_stages, source_for
from tenfold.training.store import PixelStore
from tenfold.types import (
    HOLDOUT,
    OUT_OF_FOLD,
    Calibration,
    FloatArray,
    IntArray,
    OperatingPoint,
    PredictionTable,
    Split,
    write_atomically,
)

CALIBRATIONS: dict[str, Callable[[FloatArray, IntArray], Calibration]] = {
    "temperature": fit_temperature,
    "platt": fit_platt,
    "none": lambda logits, labels: Calibration(n=len(labels)),
}


@dataclass(frozen=True)
class Bench:
    """What all arms of a study share.

    Attributes:
        config: The study file.
        folder: Of the study file; relative paths in it start here.
        cohort: The audited cohort.
        labels: Its outcome.
        hashes: SHA-256 of every picture, by input column.
        splits: The folds.
        holdout: Cases kept aside.
        work: Where unfinished work lies.
        device: Where networks run.
        progress: Told what goes on.
    """

    config: StudyFile
    folder: Path
    cohort: Cohort
    labels: Labels
    hashes: Mapping[str, Sequence[str]]
    splits: tuple[Split, ...]
    holdout: tuple[str, ...]
    work: Path
    device: torch.device
    progress: Progress
    decoded: list[int] = field(default_factory=list)

    @property
    def target(self) -> str:
        """Name of the target in files."""
        return self.config.target.name or self.config.target.column

    @property
    def label_index(self) -> IntArray:
        """(n,) class index of every case."""
        return np.array([self.labels.classes.index(v) for v in self.labels.values.tolist()], np.int64)

    def rows(self, cases: Sequence[str]) -> IntArray:
        """Return the rows of some cases in the cohort."""
        position = {name: i for i, name in enumerate(self.cohort.case.tolist())}
        return np.array([position[c] for c in cases], np.int64)

    def pictures(
        self,
        cohort: Cohort,
        hashes: Mapping[str, Sequence[str]],
        inputs: Mapping[str, InputSection],
        what: str,
    ) -> Pictures:
        """Return the prepared pictures of a cohort, decoding what no run has decoded before."""
        stores = {}
        for name, section in inputs.items():
            column = section.column or name
            store = PixelStore(store_folder(cohort), preparation(section), read_image)
            self.progress.start(f"preparing {what}: {column} at {section.size} px", len(cohort))
            stores[name] = (store, store.rows(cohort.files(column), hashes[column], self.progress.advance))
            self.decoded.append(store.decoded)
        augment = self.config.augment.model_dump(exclude={"variants", "test_time"})
        seed = seed_for(self.config.seed, "augment", what)
        return Pictures(stores, Augmentation(**augment), seed, self.device)


@dataclass(frozen=True)
class FittedArm:
    """An arm that went through.

    Attributes:
        name: Its name.
        predictions: Its out-of-fold predictions.
        points: Its operating point in every fold, and of all folds together at (-1, -1).
        calibrations: One a fold, in the order of the splits.
        folds: What each fold left.
        build: Makes its network, without the weights of a fold.
        pictures: Its prepared pictures of the whole cohort.
        record: What run.json says of it.
        stages: What run.json says of its stages.
    """

    name: str
    predictions: PredictionTable
    points: Mapping[Place, OperatingPoint]
    calibrations: tuple[Calibration, ...]
    folds: tuple[FoldResult, ...]
    build: Callable[[], Network]
    pictures: Pictures
    inputs: Mapping[str, InputSection]
    precision: torch.dtype
    record: dict[str, Any]
    stages: list[dict[str, Any]]

    def network(self, fold: int) -> Network:
        """Return the network of one fold."""
        network = self.build()
        network.load_state_dict(self.folds[fold].state_dict())
        return network.eval()


def preparation(section: InputSection) -> ImagePreparation:
    """Return how an input's readings are prepared."""
    return MODALITIES[section.kind](size=section.size, fit=section.fit, channels=section.channels)


def store_folder(cohort: Cohort) -> Path:
    """Return where prepared pictures of a cohort lie: beside it, unless TENFOLD_STORE names a place."""
    named = os.environ.get("TENFOLD_STORE")
    return Path(named) if named else cohort.folder / ".tenfold"


def fit_arm(
    bench: Bench, arm: ArmSection, sources: Mapping[str, tuple[Cohort, Mapping[str, Sequence[str]]]]
) -> FittedArm:
    """Fit one arm in all folds.

    Args:
        bench: What all arms share.
        arm: What is its own.
        sources: For every stage on another cohort: that cohort and the hashes of its pictures.

    Returns:
        The fitted arm.

    Raises:
        Refusal: The arm cannot be built or fitted; the caller decides whether the others go on.
    """
    started = time.monotonic()
    config = bench.config
    inputs = config.inputs_of(arm)
    sections = config.stages_of(arm)
    pictures = bench.pictures(bench.cohort, bench.hashes, inputs, "films")
    head = HeadSpec(
        kind=config.network.head,
        classes=bench.labels.classes,
        hidden=config.network.hidden,
        dropout=config.network.dropout,
    )
    make = _maker(bench, inputs, head)
    first = make().eval()
    precision = _precision(bench, arm, lambda: first(pictures.batch(np.arange(min(8, pictures.cases)))))

    source_sections = [s for s in sections if s.cohort]
    own_sections = [s for s in sections if not s.cohort]
    state_file, records = _run_sources(bench, arm, inputs, source_sections, sources, make, precision)

    def build() -> Network:
        network = make()
        if state_file is not None:
            _load_encoders(network, state_file)
        return network

    # the head is made anew by the first of the study's own stages and handed on by the others
    stages = [
        Stage(s.name, bench.target, None if k else head, _recipe(s, config), config.augment.variants)
        for k, s in enumerate(own_sections)
    ]
    epochs = sum(stage.recipe.epochs for stage in stages)
    folds = []
    for split in bench.splits:
        material = _material(bench, pictures, split)
        bench.progress.start(f"{arm.name}: repeat {split.repeat + 1}, fold {split.fold + 1}", epochs)
        folds.append(
            run_fold(
                bench.work / "folds" / _slug(arm.name) / f"{split.repeat}-{split.fold}",
                build,
                [(stage, material) for stage in stages],
                test=bench.rows(split.test),
                pictures=pictures,
                views=config.augment.test_time,
                seed=seed_for(config.seed, "fold", split.repeat, split.fold),
                cache=bench.work / "frozen",
                autocast=precision,
                progress=lambda *_: bench.progress.advance(),
            )
        )
    predictions, points, calibrations = _decide(bench, arm.name, folds)
    weights = _names(inputs)
    # where a fold stopped early differs; the record shows the first fold's course
    for summary, section in zip(folds[0].fits, own_sections, strict=True):
        records.append(
            _stage_record(
                section, summary["history"], summary["best_epoch"], _recipe(section, config), bool(records), weights
            )
        )
    return FittedArm(
        name=arm.name,
        predictions=predictions,
        points=points,
        calibrations=calibrations,
        folds=tuple(folds),
        build=build,
        pictures=pictures,
        inputs=inputs,
        precision=precision,
        record={
            "status": "done",
            "reason": "",
            "encoder": ", ".join(s.encoder for s in inputs.values()),
            "network": ", ".join(s.network if s.encoder == "image_timm" else s.encoder for s in inputs.values()),
            "weights": weights,
            "size": ", ".join(str(s.size) for s in inputs.values()),
            "parameters": first.parameter_count,
            "stages": [s.name for s in sections],
            "precision": str(precision).removeprefix("torch."),
            "seconds": time.monotonic() - started,
            "flaws": list(arm.flaws),
        },
        stages=records,
    )


def predict_holdout(bench: Bench, arm: FittedArm) -> PredictionTable:
    """Predict the cases kept aside with all fold models together."""
    rows = bench.rows(bench.holdout)
    probabilities = []
    for k, calibration in enumerate(arm.calibrations):
        network = arm.network(k)
        network.thaw(bench.config.stages_of(_section(bench, arm.name))[-1].training(bench.config.training).thaw)
        source = source_for(network, arm.pictures, bench.work / "frozen", bench.config.augment.variants, arm.precision)
        views = bench.config.augment.test_time
        scores = predict_scores(network, source, rows, bench.target, views=views, autocast=arm.precision)
        probabilities.append(calibration.apply(scores))
    return _table(bench, arm.name, rows, np.mean(probabilities, 0), HOLDOUT, -1, -1)


def _section(bench: Bench, name: str) -> ArmSection:
    return next(a for a in bench.config.arms if a.name == name)


def _precision(bench: Bench, arm: ArmSection, step: Callable[[], object]) -> torch.dtype:
    """Measure which precision is faster once a run: a resumed one must not choose otherwise."""
    place = bench.work / "precision" / _slug(arm.name)
    if not place.is_file():
        write_atomically(place, str(choose_precision(bench.device, step)).removeprefix("torch."))
    return {"bfloat16": torch.bfloat16, "float32": torch.float32}[place.read_text("utf-8")]


def _load_encoders(network: Network, file: Path) -> None:
    """Put encoders from a source stage into a network; its heads stayed behind."""
    found = network.load_state_dict(load(file.read_bytes()), strict=False)
    lacking = [name for name in found.missing_keys if name.startswith("encoder_list.")]
    if lacking or found.unexpected_keys:
        raise EncoderError(
            f"the encoder of the stage before does not fit: {(lacking + found.unexpected_keys)[0]}",
            do="remove the run folder and start again",
            where=str(file),
        )


def _maker(bench: Bench, inputs: Mapping[str, InputSection], head: HeadSpec) -> Callable[[], Network]:
    """Return what builds a fresh network: the same initial weights for every fold and every arm of that form."""

    def make() -> Network:
        torch.manual_seed(seed_for(bench.config.seed, "initial weights"))
        built = {}
        for name, section in inputs.items():
            built[name] = encoders.build(
                section.encoder, weights=_weights(bench.folder, section.weights), **_options(section)
            )
        network = Network(built, {bench.target: head}, fusion=bench.config.network.fusion)
        return network.to(bench.device).to(memory_format=torch.channels_last)

    return make


def _options(section: InputSection) -> dict[str, Any]:
    named = {"network": section.network} if section.encoder == "image_timm" else {}
    return {"channels": section.channels, **named, **section.options}


def _names(inputs: Mapping[str, InputSection]) -> str:
    """Name the starting weights without the folders they lie in."""
    return ", ".join(Path(section.weights).name for section in inputs.values())


def _weights(folder: Path, weights: str) -> str:
    return weights if weights in ("imagenet", "none") else str((folder / weights).resolve())


def _recipe(section: StageSection, config: StudyFile) -> Recipe:
    return Recipe(**section.training(config.training).model_dump())


def _material(bench: Bench, pictures: Pictures, split: Split) -> Material:
    labels = torch.tensor(bench.label_index, dtype=torch.float32)
    train, inner = bench.rows(split.train), bench.rows(split.inner)
    return Material(pictures, train, labels[train], inner, labels[inner])


def _run_sources(
    bench: Bench,
    arm: ArmSection,
    inputs: Mapping[str, InputSection],
    sections: Sequence[StageSection],
    sources: Mapping[str, tuple[Cohort, Mapping[str, Sequence[str]]]],
    make: Callable[[], Network],
    precision: torch.dtype,
) -> tuple[Path | None, list[dict[str, Any]]]:
    """Run the stages on other cohorts once; arms with the same beginning share them."""
    state_file: Path | None = None
    records: list[dict[str, Any]] = []
    chain: list[Any] = [{n: s.model_dump() for n, s in inputs.items()}, bench.config.seed]
    for section in sections:
        cohort, hashes = sources[section.name]
        chain.append(
            [
                section.model_dump(),
                bench.config.training.model_dump(),
                {c: list(h) for c, h in hashes.items()},
            ]
        )
        digest = hashlib.sha256(json.dumps(chain, sort_keys=True).encode()).hexdigest()[:16]
        folder = bench.work / "stages" / f"{_slug(section.name)}-{digest}"
        previous, state_file = state_file, folder / "encoder.safetensors"
        if not (folder / "done.json").is_file():
            network = make()
            if previous is not None:
                _load_encoders(network, previous)
            recipe = _recipe(section, bench.config)
            pictures = bench.pictures(cohort, hashes, inputs, section.name)
            stage, material = _source_stage(bench, section, cohort, pictures, recipe)
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
                name: t.detach().cpu().clone().contiguous()
                for name, t in network.state_dict().items()
                if name.startswith("encoder_list.")
            }
            write_atomically(state_file, save(state))
            record = _stage_record(
                section, result.history, result.best_epoch, recipe, previous is not None, _names(inputs)
            )
            record["cases"] = {"train": len(material.train), "inner": len(material.inner)}
            write_atomically(folder / "done.json", json.dumps(record))
        records.append(json.loads((folder / "done.json").read_text("utf-8")))
    return state_file, records


def _source_stage(
    bench: Bench, section: StageSection, cohort: Cohort, pictures: Pictures, recipe: Recipe
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
    return stage, Material(pictures, train_rows, labels[train_rows], inner_rows, labels[inner_rows])


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


def _decide(
    bench: Bench, name: str, folds: Sequence[FoldResult]
) -> tuple[PredictionTable, dict[Place, OperatingPoint], tuple[Calibration, ...]]:
    """Calibrate and choose the operating point on each fold's inner part, then turn test scores into predictions."""
    validation = bench.config.validation
    truth = bench.label_index
    tables, points, calibrations = [], {}, []
    pooled: list[tuple[FloatArray, IntArray]] = []
    for split, result in zip(bench.splits, folds, strict=True):
        inner, test = bench.rows(split.inner), bench.rows(split.test)
        calibration = CALIBRATIONS[validation.calibration](result.inner_scores, truth[inner])
        decided = calibration.apply(result.inner_scores)
        place = (name, split.repeat, split.fold)
        points[place] = _point(bench, decided[:, -1], truth[inner] == 1)
        calibrations.append(calibration)
        pooled.append((decided[:, -1], truth[inner] == 1))
        tables.append(
            _table(
                bench,
                name,
                test,
                calibration.apply(result.test_scores),
                OUT_OF_FOLD,
                split.repeat,
                split.fold,
            )
        )
    together = _point(bench, np.concatenate([p for p, _ in pooled]), np.concatenate([t for _, t in pooled]))
    points[(name, -1, -1)] = replace(together, chosen_on="inner validation parts of all folds")
    return PredictionTable.concatenate(tables), points, tuple(calibrations)


def _point(bench: Bench, probability: FloatArray, positive: Any) -> OperatingPoint:
    section = bench.config.validation.operating_point
    return choose(section.rule, positive, probability, value=section.value)


def _table(
    bench: Bench, arm: str, rows: IntArray, probabilities: FloatArray, split: str, repeat: int, fold: int
) -> PredictionTable:
    n = len(rows)
    return PredictionTable(
        case=bench.cohort.case[rows],
        patient=bench.cohort.patient[rows],
        site=bench.cohort.site[rows],
        split=np.full(n, split),
        repeat=np.full(n, repeat, np.int64),
        fold=np.full(n, fold, np.int64),
        arm=np.full(n, arm),
        label=bench.labels.values[rows],
        probabilities=probabilities,
        classes=bench.labels.classes,
    )


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


def check_encoders(config: StudyFile) -> None:
    """Refuse an unknown encoder or network before anything is decoded.

    Raises:
        EncoderError: An arm names an encoder, a network or an option that there is not.
    """
    for arm in config.arms:
        for section in config.inputs_of(arm).values():
            encoders.own_size(section.encoder, **_options(section))
