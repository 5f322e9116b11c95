from __future__ import annotations

import math

import pytest
import torch

from tenfold.training.losses import LOSSES, class_weights

NAN = math.nan


@pytest.mark.parametrize("kind", ["softmax", "two_sigmoid", "ordinal", "number"])
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
    labels = torch.full((3, 2), NAN) if kind in ("multilabel", "reconstruct") else torch.full((3,), NAN)
    loss = LOSSES[kind](logits, labels, None, 0.0)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert torch.equal(logits.grad, torch.zeros(3, 2))


def test_class_weights_balance_the_classes() -> None:
    weights = class_weights("softmax", torch.tensor([0.0, 1.0, 1.0, 1.0, NAN]))
    assert weights.tolist() == pytest.approx([2.0, 2 / 3])
    many = class_weights("multilabel", torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, NAN]]))
    assert many.tolist() == pytest.approx([2.0, 2.0])
    three = class_weights("softmax", torch.tensor([0.0, 0.0, 0.0, 1.0]), 3)
    assert three.tolist() == pytest.approx([4 / 9, 4 / 3, 4 / 3])
    assert class_weights("ordinal", torch.tensor([0.0, 1.0])) is None


def test_two_levels_in_order_are_two_classes() -> None:
    odds, labels = torch.randn(6, 1), torch.tensor([0.0, 1.0, 1.0, NAN, 0.0, 1.0])
    classes = torch.cat([torch.zeros(6, 1), odds], 1)
    ordinal, softmax = (LOSSES[k](x, labels, None, 0.0) for k, x in (("ordinal", odds), ("softmax", classes)))
    assert float(ordinal) == pytest.approx(float(softmax))


def test_levels_in_order_are_steps_and_a_far_miss_costs_more_than_a_near_one() -> None:
    says_highest = torch.tensor([[4.0, 4.0, 4.0]])
    lost = [float(LOSSES["ordinal"](says_highest, torch.tensor([level]), None, 0.0)) for level in (0.0, 1.0, 2.0, 3.0)]
    assert lost == sorted(lost, reverse=True)
    assert lost[3] < 0.05


def test_a_reconstruction_is_judged_by_the_cells_that_are_known() -> None:
    said = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    loss = LOSSES["reconstruct"](said, torch.tensor([[0.0, NAN], [3.0, 6.0]]), None, 0.0)
    loss.backward()
    assert float(loss.detach()) == pytest.approx((1 + 0 + 4) / 3)
    assert said.grad[0, 1] == 0
