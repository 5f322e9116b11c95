"""Losses on logits, one a kind of head; unknown labels are masked, never guessed.

It must not know networks or optimisers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional


def softmax_loss(logits: Tensor, labels: Tensor, weights: Tensor | None, smoothing: float) -> Tensor:
    """Cross-entropy over classes.

    Args:
        logits: (n, classes).
        labels: (n,) class indices as floats, NaN where unknown.
        weights: (classes,) or None.
        smoothing: Label smoothing in [0, 1).

    Returns:
        The mean over known labels; zero where none is known.
    """
    known = ~torch.isnan(labels)
    if not bool(known.any()):
        return logits.sum() * 0.0
    return functional.cross_entropy(logits[known], labels[known].long(), weight=weights, label_smoothing=smoothing)


def multilabel_loss(logits: Tensor, labels: Tensor, weights: Tensor | None, smoothing: float) -> Tensor:
    """Binary cross-entropy, one a column.

    Args:
        logits: (n, columns).
        labels: (n, columns) of 0, 1 and NaN where unknown.
        weights: (columns,) weight of the positive class, or None.
        smoothing: Moves 0 and 1 towards one half.

    Returns:
        The mean over known cells.
    """
    known = ~torch.isnan(labels)
    soft = torch.nan_to_num(labels) * (1.0 - smoothing) + 0.5 * smoothing
    cells = functional.binary_cross_entropy_with_logits(logits, soft, pos_weight=weights, reduction="none")
    return (cells * known).sum() / known.sum().clamp_min(1)


def two_sigmoid_loss(logits: Tensor, labels: Tensor, weights: Tensor | None, smoothing: float) -> Tensor:
    """Two independent sigmoids on one-hot labels: the literal reading of Liang & Zheng 2020.

    Args:
        logits: (n, 2).
        labels: (n,) class indices as floats, NaN where unknown.
        weights: (2,) or None.
        smoothing: Moves 0 and 1 towards one half.

    Returns:
        The mean over known labels.
    """
    known = ~torch.isnan(labels)
    if not bool(known.any()):
        return logits.sum() * 0.0
    hot = functional.one_hot(labels[known].long(), 2).to(logits.dtype)
    hot = hot * (1.0 - smoothing) + 0.5 * smoothing
    cells = functional.binary_cross_entropy_with_logits(logits[known], hot, reduction="none").mean(1)
    return (cells * weights[labels[known].long()]).mean() if weights is not None else cells.mean()


def ordinal_loss(logits: Tensor, labels: Tensor, weights: Tensor | None, smoothing: float) -> Tensor:
    """Binary cross-entropy of every step between levels (Frank & Hall 2001).

    Args:
        logits: (n, levels - 1) that the level is above each step.
        labels: (n,) level indices as floats, NaN where unknown.
        weights: Must be None: no weights balance levels in order.
        smoothing: Moves 0 and 1 towards one half.

    Returns:
        The mean over steps and known labels.
    """
    above = (labels[:, None] > torch.arange(logits.shape[1], device=labels.device)).to(logits)
    return multilabel_loss(logits, above.masked_fill(torch.isnan(labels)[:, None], torch.nan), weights, smoothing)


def number_loss(said: Tensor, labels: Tensor, weights: Tensor | None, smoothing: float) -> Tensor:
    """Squared error of a score.

    Args:
        said: (n, 1).
        labels: (n,) in the units of what is said, NaN where unknown.
        weights: Not asked.
        smoothing: Not asked.

    Returns:
        The mean over known labels.
    """
    return reconstruct_loss(said[:, :1], labels[:, None], weights, smoothing)


def reconstruct_loss(said: Tensor, labels: Tensor, weights: Tensor | None, smoothing: float) -> Tensor:
    """Squared error of every cell of an input.

    Args:
        said: (n, features).
        labels: (n, features), NaN where unknown.
        weights: Not asked.
        smoothing: Not asked.

    Returns:
        The mean over known cells.
    """
    known = ~torch.isnan(labels)
    errors = (said - torch.where(known, labels, said.detach())).square()
    return errors.sum() / known.sum().clamp_min(1)


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor | None, float], Tensor]] = {
    "softmax": softmax_loss,
    "multilabel": multilabel_loss,
    "two_sigmoid": two_sigmoid_loss,
    "ordinal": ordinal_loss,
    "number": number_loss,
    "reconstruct": reconstruct_loss,
}


def class_weights(kind: str, labels: Tensor, classes: int = 2) -> Tensor | None:
    """Return the weights that balance classes, from training labels alone.

    Args:
        kind: Kind of head.
        labels: As the loss takes them.
        classes: Number of classes, where they exclude each other.

    Returns:
        For classes: n / (classes * n_class). For columns: negatives / positives. None for levels in order and numbers.
    """
    if kind in ("ordinal", "number", "reconstruct"):
        return None
    if kind == "multilabel":
        positives = torch.nansum(labels, 0)
        negatives = (~torch.isnan(labels)).sum(0) - positives
        return negatives.clamp_min(1) / positives.clamp_min(1)
    counts = torch.bincount(labels[~torch.isnan(labels)].long(), minlength=classes)
    return counts.sum() / (classes * counts.clamp_min(1))
