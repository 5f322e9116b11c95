"""An arm that is a network: its source stages once, its folds one by one.

It must not know other arms, calibration or statistics.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save

from tenfold import encoders
from tenfold.cohort.manifest import Cohort
from tenfold.cohort.outcomes import Outcome
from tenfold.config import (
    AnyInput,
    ArmSection,
    ConnectomeInput,
    ImageInput,
    NetworkSection,
    StageSection,
    StudyFile,
    TableInput,
)
from tenfold.errors import CohortError, EncoderError
from tenfold.network.heads import HeadSpec, mirror
from tenfold.network.network import Network
from tenfold.study.arms import FittedArm, FoldScores, Score, altered, finished, parts_of
from tenfold.study.bench import Bench, Connectomes, Fitted, Sections
from tenfold.study.results import Place
from tenfold.training.classical import takes_nan
from tenfold.training.device import choose_precision, seed_for
from tenfold.training.folds import FoldResult, altered_rows, run_fold
from tenfold.training.loop import Recipe, predict_scores
from tenfold.training.sources import Inputs
from tenfold.training.stages import Material, Stage, run_stages, source_for
from tenfold.training.together import Job, Together, fit_together, span_form
from tenfold.types import FloatArray, IntArray, OperatingPoint, PredictionTable, Split, write_atomically


@dataclass(frozen=True, eq=False)
class Source:
    """The cohort of a stage on other patients.

    Attributes:
        cohort: The cohort.
        hashes: Hashes of its pictures, by column.
        connectomes: What was read of its connectomes, by input.
    """

    cohort: Cohort
    hashes: Mapping[str, Sequence[tuple[str, ...]]]
    connectomes: Mapping[str, Connectomes]


Sources = Mapping[str, Source]
"""By the name of the stage."""
_ANYBODY = "*"
"""Owner of an encoder that a stage learned from one column of pictures, for every input that takes it."""


@dataclass(frozen=True)
class Plan:
    """How the networks of an arm come about, whatever the outcomes and whoever is trained on.

    Attributes:
        sections: The inputs.
        joined: How they are joined.
        stages: The stages on the study's own patients.
        weights: By input, the file of encoders that the stages on other cohorts left for it.
    """

    sections: Sections
    joined: NetworkSection
    stages: tuple[StageSection, ...]
    weights: Mapping[str, Path] = field(default_factory=dict)

    def network(self, bench: Bench, fitted: Fitted, train: IntArray) -> Network:
        """Make a network as the stages on other cohorts left it, with heads for the outcomes of the bench."""
        joins = len(self.sections) > 1
        network = Network(
            _encoders(bench, self.sections, fitted),
            _heads(bench.outcomes, self.joined, train),
            # what joins several inputs has no business where there is one
            fusion=self.joined.fusion if joins else "concat",
            modality_dropout=self.joined.modality_dropout if joins else 0.0,
            shared=self.joined.shared,
            norm=self.joined.norm,
            head_norm=self.joined.head_norm,
            pools=pools_of(self.sections),
            shares=shares_of(self.sections),
        )
        network.to(bench.device).to(memory_format=torch.channels_last)
        _load_encoders(network, self.weights)
        return network

    def job(self, bench: Bench, split: Split, fitted: Fitted, material: Material) -> Job:
        """Describe a fold's training on the study's own patients, of one stage, to be trained together with others."""
        (section,) = self.stages
        return Job(
            name=f"repeat {split.repeat + 1}, fold {split.fold + 1}",
            build=lambda: self.network(bench, fitted, material.train),
            targets=tuple(bench.outcomes),
            material=material,
            recipe=_recipe(section, bench.config),
            seed=seed_for(_fold_seed(bench, split), section.name),
        )

    def apart(self, network: Network, bench: Bench, materials: Sequence[Material]) -> str:
        """Say why its folds cannot be trained together; "" where they can."""
        if len(self.stages) > 1:
            return f"it has {len(self.stages)} stages on the study's own patients"
        recipe = _recipe(self.stages[0], bench.config)
        return next(filter(None, (span_form(network, recipe, material) for material in materials)), "")


@dataclass(frozen=True)
class FoldNetworks:
    """The networks of an arm, one a fold.

    Attributes:
        plan: How they came about.
        apart: Why folds cannot be trained together; "" where they were.
        parts: Rows of each fold that were fitted on, decided on and tested on.
        build: Makes the network of a fold, without the weights that were fitted.
        folds: What each fold left.
        inputs: Pictures, and tables and connectomes as each fold prepared them.
        fitted: The fitted preparations of each fold.
        precision: What they were run in.
    """

    plan: Plan
    apart: str
    parts: tuple[tuple[IntArray, IntArray, IntArray], ...]
    build: Callable[[int], Network]
    folds: tuple[FoldResult, ...]
    inputs: tuple[Inputs, ...]
    fitted: tuple[Fitted, ...]
    precision: torch.dtype

    def network(self, fold: int) -> Network:
        """Return the network of one fold."""
        network = self.build(fold)
        network.load_state_dict(self.folds[fold].state_dict())
        return network.eval()


def fit_networks(
    bench: Bench, arm: ArmSection, sources: Sources, *, alter: bool
) -> tuple[dict[str, FittedArm], FoldNetworks]:
    """Fit one network arm in all folds, for all targets of the bench together.

    Args:
        bench: What all arms share.
        arm: What is its own.
        sources: The cohorts of the source stages.
        alter: Whether test cases are also predicted with each input permuted and without it.

    Returns:
        The arm as each target sees it, and its networks.

    Raises:
        Refusal: The arm cannot be built or fitted; the caller decides whether the others go on.
    """
    started = time.monotonic()
    config, targets = bench.config, tuple(bench.outcomes)
    label = arm.name if len(targets) == len(config.target) else f"{arm.name}, {targets[0]}"
    sections, joined = config.inputs_of(arm), config.network_of(arm)
    stage_sections = config.stages_of(arm)
    prepared = [bench.fitted(sections, bench.rows(split.train)) for split in bench.splits]
    whole = bench.inputs(sections, prepared[0])
    inputs = [whole.with_tables(bench.applied(fitted)) for fitted in prepared]
    # without modality dropout nobody can do without an input; and screening may leave one fold columns that a case
    # lacks, and another fold others
    enough = np.any if joined.modality_dropout else np.all
    answers = np.all([enough([own.has(name) for name in sections], axis=0) for own in inputs], axis=0)
    parts = [parts_of(bench, split, answers) for split in bench.splits]

    own = tuple(s for s in stage_sections if not s.elsewhere)
    plan = Plan(sections, joined, own)
    first = plan.network(bench, prepared[0], parts[0][0]).eval()
    sample = np.flatnonzero(answers)[:8]
    precision = _precision(bench, label, sections, lambda: first(inputs[0].batch(sample)))
    left, records = _run_sources(bench, arm, sections, sources, precision)
    plan = replace(plan, weights=left)

    def build(fold: int) -> Network:
        return plan.network(bench, prepared[fold], parts[fold][0])

    def stages(fold: int) -> list[Stage]:
        """The heads are made anew by the first of the study's own stages and handed on by the others."""
        heads = _heads(bench.outcomes, joined, parts[fold][0])
        return [
            Stage(s.name, targets, None if k else heads, _recipe(s, config), config.augment.variants)
            for k, s in enumerate(own)
        ]

    views = config.augment.test_time
    folders = [bench.work / "folds" / _slug(label) / f"{split.repeat}-{split.fold}" for split in bench.splits]
    materials = [material_of(bench, inputs[k], train, inner) for k, (train, inner, _) in enumerate(parts)]
    apart = plan.apart(first, bench, materials)
    together = {} if apart else _fit_together(bench, label, plan, prepared, materials, folders)
    folds = []
    for k, split in enumerate(bench.splits):
        if apart:
            bench.progress.start(f"{label}: repeat {split.repeat + 1}, fold {split.fold + 1}", _epochs(stages(k)))
        folds.append(
            run_fold(
                folders[k],
                lambda k=k: build(k),  # type: ignore[misc]
                [(stage, materials[k]) for stage in stages(k)],
                test=parts[k][2],
                inputs=inputs[k],
                views=views,
                seed=_fold_seed(bench, split),
                cache=bench.work / "frozen",
                autocast=precision,
                alter=tuple(sections) if alter and len(sections) > 1 else (),
                fitted=together.get(k),
                progress=(lambda *_: bench.progress.advance()) if apart else None,
            )
        )
    networks = FoldNetworks(plan, apart, tuple(parts), build, tuple(folds), tuple(inputs), tuple(prepared), precision)

    def scorer(target: str) -> Score:
        def score(fold: int, rows: IntArray) -> FloatArray:
            network = networks.network(fold)
            network.thaw(_recipe(own[-1], config).thaw)
            source = source_for(network, inputs[fold], bench.work / "frozen", config.augment.variants, precision)
            return predict_scores(network, source, rows, targets, views=views, autocast=precision)[target]

        return score

    weights = _names(sections)
    # where a fold stopped early differs; the record shows the first fold's course
    for summary, section in zip(folds[0].fits, own, strict=True):
        recipe = _recipe(section, config)
        records.append(
            _stage_record(section, summary["history"], summary["best_epoch"], recipe, bool(records), weights)
        )
    record = {
        "kind": "network",
        "encoder": ", ".join(s.encoder for s in sections.values()),
        "network": ", ".join(_network_name(s) for s in sections.values()),
        "weights": weights,
        "size": ", ".join(str(s.size) for s in sections.values() if isinstance(s, ImageInput)),
        "fusion": joined.fusion if len(sections) > 1 else "",
        "pools": pools_of(sections),
        "shares": shares_of(sections),
        "parameters": first.parameter_count,
        "stages": [r["name"] for r in records],
        "precision": str(precision).removeprefix("torch."),
        "together": not apart,
        "single": arm.single,
        "seconds": time.monotonic() - started,
        "flaws": list(arm.flaws),
    }
    fitted_arms = {}
    for target in targets:
        scores = [
            FoldScores(parts[k][1], fold.inner_scores[target], parts[k][2], fold.test_scores[target])
            for k, fold in enumerate(folds)
        ]
        fitted_arms[target] = finished(
            bench.of(target), arm.name, sections, answers, scores, scorer(target), record, records
        )
    return fitted_arms, networks


def altered_arms(
    bench: Bench, arm: FittedArm, networks: FoldNetworks
) -> dict[str, tuple[PredictionTable, dict[Place, OperatingPoint]]]:
    """Return an arm's predictions of one target with an input permuted or taken away, by the name of that arm."""
    found = {}
    for label in networks.folds[0].altered:
        folds = []
        for split, result, inputs in zip(bench.splits, networks.folds, networks.inputs, strict=True):
            name = label.removesuffix(" permuted").removeprefix("without ")
            permuted, without = altered_rows(inputs, name, parts_of(bench, split, arm.answers)[2])
            folds.append((permuted if label.endswith(" permuted") else without, result.altered[label][bench.target]))
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


def _heads(outcomes: Mapping[str, Outcome], joined: NetworkSection, train: IntArray) -> dict[str, HeadSpec]:
    """The form of every target's head; a score is scaled by the training patients."""
    heads = {}
    for name, outcome in outcomes.items():
        shared: dict[str, Any] = {"hidden": joined.hidden, "dropout": joined.dropout}
        target, labels = outcome.target, outcome.labels
        if target.kind == "score":
            spread = float(np.nanstd(outcome.values[train]))
            below = target.below is not None
            heads[name] = HeadSpec(
                "number",
                labels.classes,
                centre=float((target.below if below else target.above) or 0.0),
                scale=spread if spread > 0 else 1.0,
                sign=-1 if below else 1,
                **shared,
            )
        elif target.kind == "ordinal":
            heads[name] = HeadSpec("ordinal", outcome.levels, cut=outcome.cut, **shared)
        elif len(outcome.levels) > 2:
            heads[name] = HeadSpec("softmax", outcome.levels, **shared)
        else:
            heads[name] = HeadSpec(joined.head, outcome.levels, **shared)
    return heads


def _fit_together(
    bench: Bench,
    label: str,
    plan: Plan,
    prepared: Sequence[Fitted],
    materials: Sequence[Material],
    folders: Sequence[Path],
) -> dict[int, Together]:
    """Train all folds at once unless all are done: among fewer, sums would be rounded otherwise."""
    if all((folder / "done.json").is_file() for folder in folders):
        return {}
    jobs = [
        plan.job(bench, split, fitted, material)
        for split, fitted, material in zip(bench.splits, prepared, materials, strict=True)
    ]
    bench.progress.start(f"{label}: {len(jobs)} trainings together", len(jobs))
    return dict(enumerate(fit_together(jobs, progress=lambda done, _: bench.progress.reach(done))))


def _fold_seed(bench: Bench, split: Split) -> int:
    return seed_for(bench.config.seed, "fold", split.repeat, split.fold)


def _epochs(stages: Sequence[Stage]) -> int:
    return sum(stage.recipe.epochs for stage in stages)


def _precision(bench: Bench, label: str, sections: Sections, step: Callable[[], object]) -> torch.dtype:
    """Measure which precision is faster once a run: a resumed one must not choose otherwise."""
    if not any(isinstance(section, ImageInput) for section in sections.values()):
        return torch.float32
    place = bench.work / "precision" / _slug(label)
    if not place.is_file():
        write_atomically(place, str(choose_precision(bench.device, step)).removeprefix("torch."))
    return {"bfloat16": torch.bfloat16, "float32": torch.float32}[place.read_text("utf-8")]


def _encoders(bench: Bench, sections: Sections, fitted: Fitted) -> dict[str, encoders.Encoder]:
    """Build fresh encoders: the same initial weights in every fold, and in every arm whose first input is the same."""
    built: dict[str, encoders.Encoder] = {}
    shares = shares_of(sections)
    for k, (name, section) in enumerate(sections.items()):
        if name in shares:
            built[name] = built[shares[name]]
            continue
        torch.manual_seed(seed_for(bench.config.seed, "initial weights", *([name] if k else [])))
        features = len(fitted[name].features) if name in fitted else 0
        options = _options(section, features)
        if isinstance(section, ImageInput):
            options["weights"] = _weights(bench.folder, section.weights)
        built[name] = encoders.build(section.encoder, **options)
    torch.manual_seed(seed_for(bench.config.seed, "initial fusion"))
    return built


def pools_of(sections: Sections) -> dict[str, str]:
    """How the pictures of each view with several of them are joined."""
    return {n: s.pool for n, s in sections.items() if isinstance(s, ImageInput) and s.pictures > 1}


def shares_of(sections: Sections) -> dict[str, str]:
    """Which inputs use the encoder of another one that an arm sees too."""
    shared = {n: s.share for n, s in sections.items() if isinstance(s, ImageInput) and s.share in sections}
    return {n: other for n, other in shared.items() if other}


def _options(section: AnyInput, features: int) -> dict[str, Any]:
    if isinstance(section, TableInput):
        return {"features": features, **section.options}
    if isinstance(section, ConnectomeInput):
        return {"edges": features, **section.options}
    # transformers are built for one size of picture
    named = {"network": section.network, "size": section.size} if section.encoder == "image_timm" else {}
    return {"channels": section.channels, **named, **section.options}


def _network_name(section: AnyInput) -> str:
    timm = isinstance(section, ImageInput) and section.encoder == "image_timm"
    return section.network if timm and isinstance(section, ImageInput) else section.encoder


def _names(sections: Sections) -> str:
    """Name the starting weights without the folders they lie in."""
    return ", ".join(Path(s.weights).name if isinstance(s, ImageInput) else "none" for s in sections.values())


def _weights(folder: Path, weights: str) -> str:
    return weights if weights in ("imagenet", "none") else str((folder / weights).resolve())


def _recipe(section: StageSection, config: StudyFile) -> Recipe:
    return Recipe(**section.training(config.training).model_dump())


def material_of(bench: Bench, inputs: Inputs, train: IntArray, inner: IntArray) -> Material:
    """Return what a fold learns from: the inputs, and what a network is taught of the bench's outcomes."""
    labels = {name: torch.tensor(outcome.values, dtype=torch.float32) for name, outcome in bench.outcomes.items()}
    return _material(inputs, labels, train, inner)


def _material(inputs: Inputs, labels: Mapping[str, torch.Tensor], train: IntArray, inner: IntArray) -> Material:
    def part(rows: IntArray) -> dict[str, torch.Tensor]:
        return {name: values[rows] for name, values in labels.items()}

    return Material(inputs, train, part(train), inner, part(inner))


def _load_encoders(network: Network, files: Mapping[str, Path]) -> None:
    """Put encoders from source stages into a network; their heads stayed behind, and so do inputs they did not have."""
    states = {file: load(file.read_bytes()) for file in set(files.values())}
    for name, encoder in network.encoders.items():
        # who shares an encoder has what its owner was given
        if name not in files or name in network.shares:
            continue
        own = _state_of(states[files[name]], name)
        if not own:
            continue
        wanted = {key: tuple(tensor.shape) for key, tensor in encoder.state_dict().items()}
        given = {key: tuple(tensor.shape) for key, tensor in own.items()}
        odd = [key for key in {**wanted, **given} if wanted.get(key) != given.get(key)]
        if odd:
            raise EncoderError(
                f"the encoder of the stage before does not fit: {odd[0]} of input '{name}' is {given.get(odd[0])}",
                expected=f"{wanted.get(odd[0])}: the same encoder with the same options, and as many features",
                do="take over an encoder of the same kind; if the run made it itself, remove the run folder",
                where=files[name].name,
            )
        encoder.load_state_dict(own)


def _state_of(state: Mapping[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """The encoder of an input, or the one that was learned for whoever takes it."""
    for owner in (name, _ANYBODY):
        own = {key.removeprefix(f"{owner}|"): t for key, t in state.items() if key.startswith(f"{owner}|")}
        if own:
            return own
    return {}


def _run_sources(
    bench: Bench, arm: ArmSection, sections: Sections, sources: Sources, precision: torch.dtype
) -> tuple[dict[str, Path], list[dict[str, Any]]]:
    """Run the stages on other cohorts once, without tables; arms of the same beginning share them.

    Returns:
        By input, the file of encoders that was left for it; and what run.json says of the stages.
    """
    left: dict[str, Path] = {}
    chains: dict[str, list[Any]] = {}
    records: list[dict[str, Any]] = []
    elsewhere = [(s, *_carried(s, sections)) for s in bench.config.stages_of(arm) if s.elsewhere]
    for section, takers, carried in elsewhere:
        if not takers:
            continue
        before = {left.get(name) for name in takers}
        if len(before) > 1:
            raise EncoderError(
                f"stage '{section.name}' would go on from several encoders, of {', '.join(takers)}",
                do="name the inputs that take part in each stage with inputs = [...]",
            )
        (previous,) = before
        chain = chains.get(takers[0]) or [{n: _bare(s) for n, s in carried.items()}, bench.config.seed]
        if section.encoder:
            state_file = _saved_encoder(bench, section)
            chain = [*chain, hashlib.sha256(state_file.read_bytes()).hexdigest()]
            records.append(_reused_record(section, chain[-1]))
        else:
            source = sources[section.name]
            learned = section.model_dump(exclude={"name", "inputs"})
            chain = [*chain, [learned, bench.config.training.model_dump(), source.hashes]]
            chain += [hashlib.sha256(own.reading.matrices.tobytes()).hexdigest() for own in source.connectomes.values()]
            state_file, record = _run_source(
                bench, arm, section, source, carried, _digest_of(chain), previous, precision, records
            )
            records.append(record)
        for name in takers:
            left[name], chains[name] = state_file, chain
    return left, records


def _carried(section: StageSection, sections: Sections) -> tuple[list[str], dict[str, AnyInput]]:
    """Which inputs of an arm take the encoders of a source stage, and what it learns from.

    An input that uses the encoder of another takes none: it has what the other one takes.
    """
    carried: dict[str, AnyInput] = {name: s for name, s in sections.items() if not isinstance(s, TableInput)}
    shared = shares_of(sections)
    if not section.picture:
        return [name for name in carried if name not in shared], carried
    named = [n for n, s in carried.items() if isinstance(s, ImageInput) and n in (section.inputs or carried)]
    for name in named:
        if shared.get(name, name) not in named:
            raise EncoderError(
                f"stage '{section.name}' is to give an encoder to '{name}', which shares that of '{shared[name]}'",
                do=f"name '{shared[name]}' in its inputs too, or let '{name}' have an encoder of its own",
            )
    takers = [name for name in named if name not in shared]
    if not takers:
        return [], {}
    first = carried[takers[0]].model_copy(update={"column": section.picture, "pictures": 1, "share": ""})
    learned: dict[str, AnyInput] = {_ANYBODY: first}
    return takers, learned


def _bare(section: AnyInput) -> dict[str, Any]:
    """What of an input decides the encoder that a stage leaves: not where its pictures stand or how they are joined."""
    return section.model_dump(exclude={"column", "pictures", "pool", "share"})


def _digest_of(chain: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(chain, sort_keys=True).encode()).hexdigest()[:16]


def _run_source(
    bench: Bench,
    arm: ArmSection,
    section: StageSection,
    source: Source,
    carried: Sections,
    digest: str,
    previous: Path | None,
    precision: torch.dtype,
    records: Sequence[Mapping[str, Any]],
) -> tuple[Path, dict[str, Any]]:
    """Learn from another cohort, unless it was done; return the file of the encoders and what run.json says."""
    folder = bench.work / "stages" / f"{_slug(section.name)}-{digest}"
    # it stays when the run is done: another study may start from it
    state_file = bench.work.parent / "encoders" / f"{folder.name}.safetensors"
    if not (folder / "done.json").is_file():
        recipe = _recipe(section, bench.config)
        stage, material, fitted = _source_stage(bench, section, source, carried, recipe)
        # the head is no more than a placeholder: the stage brings its own
        network = Network(
            _encoders(bench, carried, fitted),
            {section.name: HeadSpec("softmax", ("no", "yes"))},
            pools=pools_of(carried),
            shares=shares_of(carried),
        )
        network.to(bench.device).to(memory_format=torch.channels_last)
        if previous is not None:
            _load_encoders(network, dict.fromkeys(carried, previous))
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
        _save_encoders(state_file, network, [*(r["name"] for r in records), section.name])
        record = _stage_record(section, result.history, result.best_epoch, recipe, bool(previous), _names(carried))
        record["cases"] = {"train": len(material.train), "inner": len(material.inner)}
        record["file"] = f"encoders/{state_file.name}"
        record["encoder"] = hashlib.sha256(state_file.read_bytes()).hexdigest()
        write_atomically(folder / "done.json", json.dumps(record))
    return state_file, {**json.loads((folder / "done.json").read_text("utf-8")), "name": section.name}


def _save_encoders(file: Path, network: Network, stages: Sequence[str]) -> None:
    """Write the encoders of a network, with the stages they went through and what they are."""
    state = {
        f"{name}|{key}": t.detach().cpu().clone().contiguous()
        for name, encoder in network.encoders.items()
        for key, t in encoder.state_dict().items()
    }
    specs = {name: encoder.spec for name, encoder in network.encoders.items()}
    write_atomically(file, save(state, metadata={"stages": json.dumps(list(stages)), "encoders": json.dumps(specs)}))


def _saved_encoder(bench: Bench, section: StageSection) -> Path:
    """Find the file of encoders that a stage takes over."""
    file = bench.folder / section.encoder
    if not file.is_file():
        raise EncoderError(
            f"stage '{section.name}' takes over {section.encoder}, which is not there",
            do="name a file of encoders/ in the folder of another run",
        )
    return file


def _reused_record(section: StageSection, digest: str) -> dict[str, Any]:
    """What run.json says of a stage that took over an encoder."""
    return {
        "name": section.name,
        "cohort": f"as another run left it: {section.encoder}",
        "task": "none",
        "thaw": "",
        "epochs_run": 0,
        "best_epoch": 0,
        "history": [],
        "transferred": "all encoder weights of that run's stage",
        "reset": "the heads",
        "recipe": {},
        "file": section.encoder,
        "encoder": digest,
    }


def _source_stage(
    bench: Bench, section: StageSection, source: Source, carried: Sections, recipe: Recipe
) -> tuple[Stage, Material, Fitted]:
    cohort = source.cohort
    inner = _part_of_patients(cohort, bench.config.validation.inner, seed_for(bench.config.seed, section.name, "inner"))
    train_rows, inner_rows = np.flatnonzero(~inner), np.flatnonzero(inner)
    fitted = {
        name: source.connectomes[name].prepared_by(s, train_rows)
        for name, s in carried.items()
        if isinstance(s, ConnectomeInput)
    }
    applied = {name: source.connectomes[name].applied(preparation) for name, preparation in fitted.items()}
    augmentation, seed = bench.augmentation(section.name)
    stores = bench.pictures(cohort, source.hashes, carried, section.name)
    inputs = Inputs(stores, augmentation, seed, bench.device, applied)
    if section.task == "multilabel":
        labels = torch.tensor(np.stack([_zero_one(cohort, c) for c in section.columns], 1), dtype=torch.float32)
        head = HeadSpec(kind="multilabel", classes=section.columns)
    elif section.task == "reconstruct":
        if not applied:
            raise EncoderError(f"stage '{section.name}' reconstructs connectomes, of which this arm sees none")
        name, edges = next(iter(applied.items()))
        labels = torch.from_numpy(edges)
        head = mirror(encoders.build(carried[name].encoder, **_options(carried[name], edges.shape[1])))
    else:
        values = cohort.labels(section.column)
        classes = tuple(sorted(set(values[values != ""].tolist())))
        index = [classes.index(v) if v else math.nan for v in values.tolist()]
        labels = torch.tensor(index, dtype=torch.float32)
        head = HeadSpec(kind="softmax", classes=classes)
    stage = Stage(section.name, (section.name,), {section.name: head}, recipe, bench.config.augment.variants)
    return stage, _material(inputs, {section.name: labels}, train_rows, inner_rows), fitted


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
        "reset": "the heads" if section.task != "reconstruct" else "the head; a decoder is put in its place",
        "recipe": asdict(recipe),
    }


def _slug(name: str) -> str:
    kept = "".join(c if c.isalnum() else "-" for c in name).strip("-").lower()
    return f"{kept[:40]}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
