"""The one loop: an epoch is a permutation, a batch is a forward, a backward and a step.

It must not know patients, files of a study, or the test fold: it is handed a part to fit and a part to decide on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from tenfold.encoders import Encoder
from tenfold.errors import TrainingError, nearest
from tenfold.network.fusion import present
from tenfold.network.heads import HeadSpec
from tenfold.network.network import Network
from tenfold.training.checkpoint import Checkpoint
from tenfold.training.device import seed_for
from tenfold.training.losses import LOSSES, class_weights
from tenfold.training.sources import Part, Source
from tenfold.types import FloatArray, IntArray

_EVALUATION_BATCH = 64
TARGET_WEIGHTS = ("equal", "uncertainty")
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    # fused: one call a tensor; where a network is small, the calls are what costs
    "adamw": partial(torch.optim.AdamW, fused=True),
    "adam": partial(torch.optim.Adam, fused=True),
    "sgd": partial(torch.optim.SGD, momentum=0.9, nesterov=True, fused=True),
}


@dataclass(frozen=True)
class Recipe:
    """How a stage is trained; the keys of the study file's [training], which documents them.

    Attributes:
        corrupt: Share of every connectome's edges set to 0 in training, others in each epoch: the masking noise of a
            denoising auto-encoder (Vincent et al. 2010).
        target_weights: "equal", or "uncertainty": learned with the rest (Kendall, Gal, Cipolla 2018), then thrown away.

    Raises:
        TrainingError: One of these two is impossible.
    """

    thaw: str | int = "all"
    epochs: int = 20
    batch: int = 32
    rate: float = 1e-3
    encoder_rate: float = 3e-4
    optimizer: str = "adamw"
    weight_decay: float = 1e-2
    schedule: str = "cosine"
    plateau_patience: int = 6
    plateau_factor: float = 0.1
    monitor: str = "loss"
    patience: int = 0
    class_weights: bool = False
    label_smoothing: float = 0.0
    averaging: float = 0.0
    norm: str = "learn"
    corrupt: float = 0.0
    target_weights: str = "equal"

    def __post_init__(self) -> None:
        if not 0 <= self.corrupt < 1:
            raise TrainingError(f"corrupt = {self.corrupt}", expected="from 0 to below 1")
        if self.target_weights not in TARGET_WEIGHTS:
            raise TrainingError(
                f"unknown target_weights '{self.target_weights}'", do=nearest(self.target_weights, TARGET_WEIGHTS)
            )


@dataclass(frozen=True)
class Fit:
    """What a stage's training gave.

    Attributes:
        history: One entry an epoch: epoch, train_loss, inner_loss, inner_auc, inner_accuracy, rate, and "weight
            <target>" where the targets' weights are learned. The losses are means over targets.
        best_epoch: The epoch whose weights were kept, from 1.
    """

    history: tuple[Mapping[str, float], ...]
    best_epoch: int


def fit(
    network: Network,
    *,
    targets: Sequence[str],
    train: Part,
    inner: Part,
    recipe: Recipe,
    seed: int,
    autocast: torch.dtype = torch.float32,
    checkpoint: Path | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> Fit:
    """Fit the thawed parameters; the network is left with the weights of its best epoch on the inner part.

    Args:
        network: Already thawed as the recipe says.
        targets: Which heads are fitted; their losses, each the mean over its known labels, are averaged, and weighed
            as the recipe says.
        train: What is fitted on.
        inner: What stopping and the choice of the epoch are decided on.
        recipe: Rates, epochs, schedule.
        seed: Of the order, the dropout and the augmentation.
        autocast: torch.float32 or torch.bfloat16.
        checkpoint: A file that lets a killed fit go on where it was, with the same result.
        progress: Called after each epoch with (epoch, epochs, inner loss).

    Returns:
        The history and the best epoch.

    Raises:
        TrainingError: The loss is no longer a number.
    """
    losses = _Losses(network, targets, train, recipe)
    optimizer = _optimizer(network, recipe, losses.learned)
    base_rates = [group["lr"] for group in optimizer.param_groups]
    learned = {name: p for name, p in network.state_dict(keep_vars=True).items() if _learns(network, name)}
    learned |= losses.learned
    average = {name: p.detach().clone() for name, p in learned.items()} if recipe.averaging else learned
    saved = Checkpoint(checkpoint, optimizer, learned, average)
    history: list[dict[str, float]] = saved.restore()
    device_type = next(network.parameters()).device.type

    for epoch in range(len(history), recipe.epochs):
        factor = rate_factor(recipe, epoch, history)
        for group, rate in zip(optimizer.param_groups, base_rates, strict=True):
            group["lr"] = rate * factor
        torch.manual_seed(seed_for(seed, "dropout", epoch))
        network.train()
        if recipe.norm == "frozen":
            _hold_norms(network)
        total = 0.0
        for picks in batches(len(train), recipe.batch, seed_for(seed, "order", epoch)):
            inputs = _corrupted(network, train.batch(picks, epoch=epoch), recipe.corrupt)
            with torch.autocast(device_type, autocast, autocast != torch.float32):
                logits = network(inputs, train.source.start)
            loss = losses.of(logits, train, picks)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(picks)
            if recipe.averaging:
                _average(average, learned, recipe.averaging)
        if not math.isfinite(total):
            raise TrainingError(
                f"the loss is no longer a number in epoch {epoch + 1}",
                do=f"lower rate ({recipe.rate:g}) and encoder_rate ({recipe.encoder_rate:g}) of this stage",
            )
        with _Swapped(learned, average):
            judged = _judge(network, targets, inner, autocast)
            history.append(
                {
                    "epoch": epoch + 1,
                    "train_loss": total / len(train),
                    **judged,
                    "rate": recipe.rate * factor,
                    **losses.weights(),
                }
            )
            if best_epoch(history, recipe.monitor) == epoch + 1:
                saved.remember_best()
        if progress:
            progress(epoch + 1, recipe.epochs, judged["inner_loss"])
        saved.write(history)
        if recipe.patience and epoch + 1 - best_epoch(history, recipe.monitor) >= recipe.patience:
            break
    saved.load_best()
    network.eval()
    return Fit(tuple(history), best_epoch(history, recipe.monitor))


def predict_scores(
    network: Network,
    source: Source,
    rows: IntArray,
    targets: Sequence[str],
    *,
    views: int = 1,
    autocast: torch.dtype = torch.float32,
) -> dict[str, FloatArray]:
    """Return what calibration takes of some cases, by target (n, classes): the mean over their test-time views.

    The classes are two, negative and positive, wherever the head knows which (`HeadSpec.binary`).
    """
    if not len(rows):
        heads = {target: network.head_specs[target] for target in targets}
        return {target: np.empty((0, 2 if head.binary else len(head.classes))) for target, head in heads.items()}
    seen = [_logits(network, source, rows, targets, view_index=k, autocast=autocast) for k in range(views)]
    return {target: np.mean([network.to_scores(target, each[target]) for each in seen], axis=0) for target in targets}


def _logits(
    network: Network,
    source: Source,
    rows: IntArray,
    targets: Sequence[str],
    *,
    view_index: int = 0,
    batch: int = _EVALUATION_BATCH,
    autocast: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    network.eval()
    device_type = next(network.parameters()).device.type
    parts = []
    with torch.inference_mode(), torch.autocast(device_type, autocast, autocast != torch.float32):
        for start in range(0, len(rows), batch):
            inputs = source.batch(rows[start : start + batch], view_index=view_index)
            parts.append(network(inputs, source.start))
    return {target: torch.cat([part[target].float().cpu() for part in parts]).double() for target in targets}


def batches(n: int, size: int, seed: int) -> list[IntArray]:
    """Divide a permutation into batches that differ by one at most, so that none is too small for batch norm."""
    order = np.random.default_rng(seed).permutation(n)
    return list(np.array_split(order, max(1, math.ceil(n / size))))


def rate_factor(recipe: Recipe, epoch: int, history: Sequence[Mapping[str, float]]) -> float:
    """Return what the base rates are multiplied with in an epoch (from 0): a function of the past alone.

    `cosine` falls to zero over the stage; `plateau` is multiplied with its factor whenever the inner part has brought
    nothing for `plateau_patience` epochs (Keras' ReduceLROnPlateau as used by Liang & Zheng 2020).
    """
    if recipe.schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * epoch / recipe.epochs))
    if recipe.schedule == "constant":
        return 1.0
    factor, waited = 1.0, 0
    for done in range(1, len(history) + 1):
        waited = 0 if best_epoch(history[:done], recipe.monitor) == done else waited + 1
        if waited >= recipe.plateau_patience:
            factor, waited = factor * recipe.plateau_factor, 0
    return factor


def best_epoch(history: Sequence[Mapping[str, float]], monitor: str) -> int:
    """Return the first epoch (from 1) that is best on the inner part."""
    values = [entry["inner_loss"] if monitor == "loss" else -entry[f"inner_{monitor}"] for entry in history]
    return int(np.argmin(values)) + 1 if not np.isnan(values).all() else len(values)


def _hold_norms(network: Network) -> None:
    """Let norm layers use the statistics they came with: a few hundred films estimate worse ones."""
    for encoder in network.encoders.values():
        for module in encoder.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and not encoder.always_learns:
                module.eval()


def _corrupted(network: Network, inputs: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Set a share of the edges of every connectome to 0; who has none keeps the row of NaN that says so."""
    found = dict(inputs)
    for name, encoder in network.encoders.items():
        if share and encoder.modality == "connectome" and name in found:
            x = found[name]
            hit = (torch.rand(x.shape, device=x.device) < share) & present(x)[:, None]
            found[name] = x.masked_fill(hit, 0.0)
    return found


def _optimizer(network: Network, recipe: Recipe, beside: Mapping[str, Tensor]) -> torch.optim.Optimizer:
    groups: list[dict[str, Any]] = []
    # an encoder that always learns starts from nothing, as the head does, and learns at its rate
    transferred = {
        f"encoder_list.{i}.{name}"
        for i, encoder in enumerate(cast("list[Encoder]", list(network.encoder_list)))
        if not encoder.always_learns
        for name, _ in encoder.named_parameters()
    }
    for of_encoder, rate in ((True, recipe.encoder_rate), (False, recipe.rate)):
        for decays in (True, False):
            # biases and norm layers are not shrunk: they hold scales, not evidence
            chosen = [
                p
                for name, p in network.named_parameters()
                if p.requires_grad and (name in transferred) == of_encoder and (p.ndim > 1) == decays
            ]
            if chosen:
                groups.append({"params": chosen, "lr": rate, "weight_decay": recipe.weight_decay if decays else 0.0})
    if beside:
        groups.append({"params": list(beside.values()), "lr": recipe.rate, "weight_decay": 0.0})
    return OPTIMIZERS[recipe.optimizer](groups)


def _learns(network: Network, name: str) -> bool:
    """Tell whether a tensor of the state changes in training: thawed parameters and their norm statistics."""
    parameters = dict(network.named_parameters())
    if name in parameters:
        return parameters[name].requires_grad
    module = network.get_submodule(name.rpartition(".")[0])
    return any(p.requires_grad for p in module.parameters(recurse=False))


def _average(average: dict[str, Tensor], learned: dict[str, Tensor], decay: float) -> None:
    with torch.no_grad():
        for name, tensor in learned.items():
            if tensor.is_floating_point():
                average[name].lerp_(tensor.detach(), 1.0 - decay)
            else:
                average[name].copy_(tensor)


class _Swapped:
    """While entered, the network has the averaged weights."""

    def __init__(self, learned: dict[str, Tensor], average: dict[str, Tensor]) -> None:
        self._learned, self._average = learned, average

    def __enter__(self) -> None:
        self._swap()

    def __exit__(self, *_: object) -> None:
        self._swap()

    def _swap(self) -> None:
        if self._average is self._learned:
            return
        with torch.no_grad():
            for name, tensor in self._learned.items():
                held = tensor.detach().clone()
                tensor.copy_(self._average[name])
                self._average[name].copy_(held)


class _Losses:
    """The losses of a stage's targets, averaged; a target of which a batch knows nothing adds nothing.

    Attributes:
        learned: What weighs the targets, if that is learned: the logarithm of each one's variance.
    """

    def __init__(self, network: Network, targets: Sequence[str], train: Part, recipe: Recipe) -> None:
        self._heads = {target: network.head_specs[target] for target in targets}
        self._smoothing = recipe.label_smoothing
        self._weights = {
            target: class_weights(head.kind, train.labels[target], len(head.classes)) if recipe.class_weights else None
            for target, head in self._heads.items()
        }
        device = next(network.parameters()).device
        self.learned: dict[str, Tensor] = {}
        if recipe.target_weights == "uncertainty":
            self.learned["log_variances"] = torch.zeros(len(targets), device=device, requires_grad=True)

    def of(self, logits: Mapping[str, Tensor], part: Part, picks: IntArray) -> Tensor:
        """Return the loss of a batch."""
        losses = []
        for k, (target, head) in enumerate(self._heads.items()):
            said, weights = logits[target].float(), self._weights[target]
            labels = head.taught(part.labels[target][torch.from_numpy(picks)]).to(said.device)
            loss = LOSSES[head.kind](
                said, labels, None if weights is None else weights.to(said.device), self._smoothing
            )
            if self.learned and not bool(labels.isnan().all()):
                log_variance = self.learned["log_variances"][k]
                loss = loss * (-log_variance).exp() * _gauss(head) + 0.5 * log_variance
            losses.append(loss)
        return torch.stack(losses).mean()

    def weights(self) -> dict[str, float]:
        """Return what each target's loss is multiplied with, where that is learned."""
        if not self.learned:
            return {}
        found = (-self.learned["log_variances"].detach()).exp().tolist()
        return {
            f"weight {target}": weight * _gauss(head)
            for (target, head), weight in zip(self._heads.items(), found, strict=True)
        }


def _gauss(head: HeadSpec) -> float:
    """One half before a squared error and one before a cross-entropy: what the likelihoods of Kendall et al. have."""
    return 0.5 if head.kind in ("number", "reconstruct") else 1.0


def _judge(network: Network, targets: Sequence[str], part: Part, autocast: torch.dtype) -> dict[str, float]:
    """Return loss, AUC and accuracy on the inner part: the AUC a mean over what has both classes."""
    logits = _logits(network, part.source, part.rows, targets, autocast=autocast)
    losses, columns = [], []
    for target in targets:
        head, said, labels = network.head_specs[target], logits[target], part.labels[target].double()
        losses.append(float(LOSSES[head.kind](said, head.taught(labels), None, 0.0)))
        columns += _yes_or_no(head, said, labels)
    aucs, hits = [], []
    for truth, value in columns:
        known = ~np.isnan(truth)
        hits.append((value[known] > 0) == truth[known])
        if len(np.unique(truth[known])) == 2:
            aucs.append(float(roc_auc_score(truth[known], value[known])))
    right = np.concatenate([np.empty(0, bool), *hits])
    return {
        "inner_loss": float(np.mean(losses)),
        "inner_auc": float(np.mean(aucs)) if aucs else math.nan,
        "inner_accuracy": float(right.mean()) if len(right) else math.nan,
    }


def _yes_or_no(head: HeadSpec, said: Tensor, labels: Tensor) -> list[tuple[FloatArray, FloatArray]]:
    """Return pairs of the truth, 0, 1 or NaN, and a value that is above 0 where the head says yes; (n,) each."""
    if head.kind == "multilabel":
        return [(labels[:, k].numpy(), said[:, k].numpy()) for k in range(labels.shape[1])]
    if head.kind == "two_sigmoid":
        return [(labels.numpy(), (said[:, 1] - said[:, 0]).numpy())]
    if head.kind == "reconstruct":
        return []
    scores = head.scores(said)
    if not head.binary:
        unknown = labels.isnan()
        against = [torch.cat([scores[:, :k], scores[:, k + 1 :]], 1).logsumexp(1) for k in range(scores.shape[1])]
        return [
            ((labels == k).double().masked_fill(unknown, torch.nan).numpy(), (scores[:, k] - others).numpy())
            for k, others in enumerate(against)
        ]
    return [(head.truth(labels).numpy(), (scores[:, 1] - scores[:, 0]).numpy())]
