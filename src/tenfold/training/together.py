"""Many fits of small networks as one: what joins `Network` and `Recipe` to the span engine.

It must not know folds, arms or files: it is handed jobs, each with the rows that it may fit and decide on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from tenfold.encoders.connectome_dense import NAME as CONNECTOME
from tenfold.encoders.table import ValuesAndGaps
from tenfold.encoders.table_dense import NAME as TABLE
from tenfold.errors import TrainingError, nearest
from tenfold.network.fusion import present
from tenfold.network.heads import HeadSpec
from tenfold.network.network import Network
from tenfold.training.loop import Fit, Recipe, rate_factor
from tenfold.training.members import FIRST, Member, Prepared, SpanRecipe, Target, Trained
from tenfold.training.sources import Inputs
from tenfold.training.span import fit_members, predict_members
from tenfold.training.stages import Material, renew_heads
from tenfold.types import FloatArray, IntArray

_FORMS = ([CONNECTOME], [CONNECTOME, TABLE], [TABLE])
_HEADS = ("softmax", "number")
# what a recipe may say, where the loop can do more
_RECIPES: dict[str, tuple[object, ...]] = {
    "thaw": ("all",),
    "optimizer": ("sgd", "adamw"),
    "schedule": ("constant", "cosine"),
    "monitor": ("loss",),
    "averaging": (0.0,),
    "label_smoothing": (0.0,),
    "norm": ("learn",),
    "corrupt": (0.0,),
    "target_weights": ("equal",),
}
_COUNT = ".norm.num_batches_tracked"


@dataclass(frozen=True, eq=False)
class Job:
    """One fit among many.

    Attributes:
        name: For messages.
        build: Makes the network as it begins; the same whenever it is called, for the first layer's weights are not
            kept but made again where they are asked for.
        targets: Which of its heads are fitted.
        material: What is fitted and decided on.
        recipe: How.
        seed: Of the heads, the order and the dropout: what `tenfold.training.stages.run_stages` derives for a stage.
        heads: The form of every target's head, made anew; None goes on with the heads that are there.
    """

    name: str
    build: Callable[[], Network]
    targets: tuple[str, ...]
    material: Material
    recipe: Recipe
    seed: int
    heads: Mapping[str, HeadSpec] | None = None

    def network(self) -> Network:
        """Make the network as it begins."""
        network = self.build()
        if self.heads is not None:
            renew_heads(network, self.heads, self.seed)
        return network


@dataclass(frozen=True, eq=False)
class Together:
    """What became of a job.

    Attributes:
        job: The job.
        fit: Its best epoch and history: epoch, train_loss, inner_loss, rate.
        trained: The same as the span engine has it.
        prepared: What it saw, shared with whoever saw the same.
        inputs: Names of its inputs.
        heads: Its heads, by target.
    """

    job: Job
    fit: Fit
    trained: Trained
    prepared: Prepared
    inputs: tuple[str, ...]
    heads: Mapping[str, HeadSpec]

    def state(self) -> dict[str, Tensor]:
        """Return the whole network's state for `load_state_dict`, the first layer folded back into its weights.

        Raises:
            TrainingError: The job's `build` makes another network than the one that was trained.
        """
        network = self.job.network()
        state = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
        found = dict(self.trained.tensors)
        keys = _keys(network, self.job.targets)
        if FIRST in keys:
            found[FIRST] = self.trained.first_layer(self.prepared, self._began(state[keys[FIRST]]))
        found["fusion.0.weight"] = found["fusion.0.weight"].roll(_table_first(network), 1)
        for name, key in keys.items():
            if name.endswith(_COUNT):
                state[key] += self.fit.best_epoch * math.ceil(len(self.trained.member.train) / self.job.recipe.batch)
            else:
                state[key] = found[name].to(state[key])
        return state

    def _began(self, first: Tensor) -> Tensor:
        """Refuse first weights that do not give the products that the training began with."""
        rows = torch.from_numpy(self.trained.member.train)
        edges, base = self.prepared.edges, self.trained.base
        if edges is None or base is None or not torch.allclose(edges[rows] @ first.to(edges).T, base[rows], 1e-3, 1e-3):
            raise TrainingError("its build makes another network at each call", where=self.job.name)
        return first


def span_form(network: Network, recipe: Recipe, material: Material | None = None) -> str:
    """Say why the span engine cannot train a network so, in words for a person; "" where it can.

    Args:
        network: The network.
        recipe: How it is to be trained.
        material: What on; where it is given, each row of it must have every input, for the engine knows no absent ones.
    """
    return next(_reasons(network, recipe, material), "")


def fit_together(
    jobs: Sequence[Job], *, progress: Callable[[int, int], None] | None = None, at_once: int | None = None
) -> list[Together]:
    """Fit many networks side by side; a job alone becomes the same as among others.

    With SGD each becomes what `tenfold.training.loop.fit` makes of it, but for rounding and the draws of dropout.

    Args:
        jobs: What is fitted. Jobs whose inputs are the same arrays share them.
        progress: Called with (jobs done, jobs).
        at_once: As for `tenfold.training.span.fit_members`.

    Returns:
        One a job, in their order.

    Raises:
        TrainingError: A job that the engine cannot train (`span_form`), or whose loss is no longer a number.
    """
    preparations = _Preparations()
    groups: dict[tuple[Target, ...], dict[int, Member]] = {}
    forms = []
    for place, job in enumerate(jobs):
        network = job.network()
        targets, member = _member(job, network, preparations)
        forms.append((network.input_names, network.head_specs))
        groups.setdefault(targets, {})[place] = member
    found: dict[int, Together] = {}
    for targets, members in groups.items():
        done = len(found)
        fitted = fit_members(
            list(members.values()),
            preparations.found,
            targets,
            at_once=at_once,
            progress=(lambda n, _, done=done: progress(done + n, len(jobs))) if progress else None,  # type: ignore[misc]
        )
        for place, trained in zip(members, fitted, strict=True):
            prepared = preparations.found[trained.member.prepared]
            found[place] = Together(jobs[place], _fit(jobs[place].recipe, trained), trained, prepared, *forms[place])
    return [found[place] for place in range(len(jobs))]


def predict_together(fitted: Sequence[Together], rows: Sequence[IntArray]) -> list[dict[str, FloatArray]]:
    """Predict rows with each network, as `tenfold.training.loop.predict_scores` does of its inputs.

    Args:
        fitted: What `fit_together` gave.
        rows: Which rows of its inputs each predicts; each of them has every input.

    Returns:
        One a network: by target (n, classes) scores, for `Calibration.apply`.

    Raises:
        TrainingError: A row lacks an input.
    """
    prepared = list({id(one.prepared): one.prepared for one in fitted}.values())
    places = {id(one): k for k, one in enumerate(prepared)}
    groups: dict[tuple[Target, ...], list[int]] = {}
    for k, (one, own) in enumerate(zip(fitted, rows, strict=True)):
        for reason in _absent(one.inputs, one.job.material.inputs, own):
            raise TrainingError(reason, where=one.job.name)
        groups.setdefault(one.trained.targets, []).append(k)
    found: dict[int, dict[str, FloatArray]] = {}
    for group in groups.values():
        trained = [
            replace(one, member=replace(one.member, prepared=places[id(fitted[k].prepared)]))
            for k, one in ((k, fitted[k].trained) for k in group)
        ]
        for k, said in zip(group, predict_members(trained, prepared, [rows[k] for k in group]), strict=True):
            found[k] = {t: fitted[k].heads[t].scores(torch.from_numpy(own)).numpy() for t, own in said.items()}
    return [found[k] for k in range(len(fitted))]


class _Preparations:
    """Inputs as the engine takes them, each array once."""

    def __init__(self) -> None:
        self.found: list[Prepared] = []
        self._tensors: dict[Hashable, Tensor] = {}
        self._places: dict[Hashable, int] = {}

    def place(self, network: Network, inputs: Inputs) -> int:
        """Return the place of what a network sees of some inputs."""
        names = {encoder.spec["encoder"]: name for name, encoder in network.encoders.items()}
        edges, table = (self._tensor(inputs, names[kind]) if kind in names else None for kind in (CONNECTOME, TABLE))
        key = id(edges), id(table)
        if key not in self._places:
            self._places[key] = len(self.found)
            self.found.append(Prepared(edges, table))
        return self._places[key]

    def _tensor(self, inputs: Inputs, name: str) -> Tensor:
        key = id(inputs.tables[name]), inputs.device
        if key not in self._tensors:
            tensor = torch.from_numpy(inputs.tables[name])
            there = present(tensor)
            if tensor.ndim == 3:
                tensor = ValuesAndGaps()(tensor)
            # nobody who lacks an input is trained on or predicted; the engine wants numbers of everyone
            whole = tensor if bool(there.all()) else tensor.masked_fill(~there[:, None], 0.0)
            self._tensors[key] = whole.to(inputs.device)
        return self._tensors[key]


def _member(job: Job, network: Network, preparations: _Preparations) -> tuple[tuple[Target, ...], Member]:
    """Translate a job, of whose network only what is small is kept."""
    material = job.material
    for name in job.targets:
        if name not in network.heads:
            raise TrainingError(f"unknown target '{name}'", do=nearest(name, network.heads), where=job.name)
    for reason in _reasons(network, job.recipe, material):
        raise TrainingError(f"it cannot be trained beside others: {reason}", where=job.name)
    state, keys = network.state_dict(), _keys(network, job.targets)
    start = {name: state[key].clone() for name, key in keys.items() if name != FIRST and not name.endswith(_COUNT)}
    start["fusion.0.weight"] = start["fusion.0.weight"].roll(-_table_first(network), 1)
    place = preparations.place(network, material.inputs)
    first, edges = state.get(keys.get(FIRST, "")), preparations.found[place].edges
    specs = {name: network.head_specs[name] for name in job.targets}

    def labels(of: Mapping[str, Tensor]) -> FloatArray:
        columns = [spec.taught(of[name]).double().cpu().numpy() for name, spec in specs.items()]
        return np.stack(columns, 1)

    targets = tuple(
        Target(name, 1 if spec.kind == "number" else spec.outputs, standardise=False) for name, spec in specs.items()
    )
    return targets, Member(
        job.name,
        _span_recipe(network, job.recipe),
        job.seed,
        material.train,
        labels(material.train_labels),
        material.inner,
        labels(material.inner_labels),
        prepared=place,
        start=start,
        base=None if first is None or edges is None else edges @ first.to(edges).T,
    )


def _span_recipe(network: Network, recipe: Recipe) -> SpanRecipe:
    options = {encoder.spec["encoder"]: encoder.spec["options"] for encoder in network.encoders.values()}
    return SpanRecipe(
        edges=tuple(options[CONNECTOME]["widths"]) if CONNECTOME in options else (),
        clinical=options[TABLE]["width"] if TABLE in options else 0,
        fusion=network.shared_width,
        norm=network.norm,
        head_norm=network.head_norm,
        dropout=next(iter(options.values()))["dropout"],
        epochs=recipe.epochs,
        batch=recipe.batch,
        rate=recipe.rate,
        encoder_rate=recipe.encoder_rate,
        optimizer=recipe.optimizer,
        weight_decay=recipe.weight_decay,
        schedule=recipe.schedule,
        patience=recipe.patience,
        class_weights=recipe.class_weights,
    )


def _fit(recipe: Recipe, trained: Trained) -> Fit:
    history = []
    for epoch, lost in enumerate(trained.train_history):
        inner = {"inner_loss": trained.history[epoch]} if trained.history else {}
        rate = recipe.rate * rate_factor(recipe, epoch, ())
        history.append({"epoch": epoch + 1, "train_loss": lost, **inner, "rate": rate})
    return Fit(tuple(history), trained.best_epoch)


def _reasons(network: Network, recipe: Recipe, material: Material | None) -> Iterator[str]:
    encoders = [encoder.spec for encoder in network.encoders.values()]
    names = sorted(spec["encoder"] for spec in encoders)
    if names not in _FORMS:
        yield f"its encoders are {', '.join(names)}, not one {CONNECTOME}, one {TABLE} or one of each"
        return
    if network.fusion_name != "concat":
        yield f"its fusion is '{network.fusion_name}', not 'concat'"
    if network.fusion.drop:
        yield f"its modality dropout is {network.fusion.drop:g}, not 0"
    if not network.shared_width:
        yield "it has no shared layer"
    norms = sorted({network.norm, *(spec["options"]["norm"] for spec in encoders)})
    if len(norms) > 1:
        yield f"its norms differ: {', '.join(norms)}"
    if network.head_norm and network.norm != "batch":
        yield f"it has batch norm on its outputs, but norm = '{network.norm}' elsewhere"
    if network.dropout.p or len({spec["options"]["dropout"] for spec in encoders}) > 1:
        yield "its dropout is not one and the same in all encoders and none after them"
    for target, head in network.head_specs.items():
        if head.kind not in _HEADS:
            yield f"the head of '{target}' is {head.kind}, not {' or '.join(_HEADS)}"
        if head.hidden or head.dropout:
            yield f"the head of '{target}' has a hidden layer or dropout"
    for key, known in _RECIPES.items():
        if getattr(recipe, key) not in known:
            yield f"{key} = {getattr(recipe, key)!r}, not {' or '.join(repr(value) for value in known)}"
    if material is not None:
        yield from _absent(network.input_names, material.inputs, np.concatenate([material.train, material.inner]))


def _absent(names: Sequence[str], inputs: Inputs, rows: IntArray) -> Iterator[str]:
    for name in names:
        lacking = int((~inputs.has(name)[rows]).sum())
        if lacking:
            yield f"{lacking} of {len(rows)} cases have no {name}"


def _keys(network: Network, targets: Sequence[str]) -> dict[str, str]:
    """Return under which name of the network's state each tensor of the engine is known, and its counts of batches."""
    layers: dict[str, nn.Module] = {"fusion.0": network.shared, **{f"heads.{t}": network.heads[t] for t in targets}}
    for encoder in network.encoders.values():
        branch = "edges" if encoder.spec["encoder"] == CONNECTOME else "clinical"
        layers |= {f"{branch}.{k}": block for k, block in enumerate(encoder.blocks)}
    names = {id(tensor): name for name, tensor in network.state_dict(keep_vars=True).items()}
    found = {}
    for name, layer in layers.items():
        for module in (module for module in layer.modules() if not list(module.children())):
            inside = "" if isinstance(module, nn.Linear) else ".norm"
            for part, tensor in module.state_dict(keep_vars=True).items():
                found[f"{name}{inside}.{part}"] = names[id(tensor)]
    return found


def _table_first(network: Network) -> int:
    """Return the width of the table's embedding where it comes before the connectome's; the engine has it behind."""
    first, *rest = network.encoders.values()
    return first.dim if rest and first.spec["encoder"] == TABLE else 0
