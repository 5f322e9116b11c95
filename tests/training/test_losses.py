from __future__ import annotations

import math

import pytest
import torch

from tenfold.training.losses import LOSSES, class_weights

NAN = math.nan


@pytest.mark.parametrize("kind", ["softmax", "two_sigmoid"])
def test_an_unknown_label_changes_nothing(kind: str) -> None:
    logits = torch.randn(5, 2)
    labels = torch.tensor([0.0, 1.0, NAN, 1.0, 0.0])
    known = [0, 1, 3, 4]
    with_nan = LOSSES[kind](logits, labels, None, 0.1)
    assert float(with_nan) == pytest.approx(float(LOSSES[kind](logits[known], labels[known], None, 0.1)))


def test_an_unknown_cell_of_many_labels_has_no_gradient() -> None:
    logits = torch.zeros(2, 3, requires_grad=True)
    labels = torch.tensor([[1.0, NAN, 0.0], [NAN, NAN, 1.0]])
    LOSSES["multilabel"](logits, labels, None, 0.0).backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad == 0, torch.isnan(labels))


@pytest.mark.parametrize("kind", list(LOSSES))
def test_no_known_label_gives_zero_and_a_gradient_of_zero(kind: str) -> None:
    logits = torch.randn(3, 2, requires_grad=True)
    labels = torch.full((3, 2), NAN) if kind == "multilabel" else torch.full((3,), NAN)
    loss = LOSSES[kind](logits, labels, None, 0.0)
    loss.backward()
    assert float(loss.detach()) == 0.0


def test_class_weights_balance_the_classes() -> None:
    weights = class_weights("softmax", torch.tensor([0.0, 1.0, 1.0, 1.0, NAN]))
    assert weights.tolist() == pytest.approx([2.0, 2 / 3])
    many = class_weights("multilabel", torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, NAN]]))
    assert many.tolist() == pytest.approx([2.0, 2.0])
