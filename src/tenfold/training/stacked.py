"""A small network for each of many members, all stacked: one operation does the same layer of all of them.

It must not know subjects, connectomes, losses or optimisers. What the gradients are is written out: the layers are so
small that most of autograd's time would go into its own book-keeping and into norm layers that it cannot stack.

Activations are (members, rows, width), as a batched product of matrices writes them fastest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

EPSILON, MOMENTUM = 1e-5, 0.1
NORMS = ("batch", "layer", "none")


@dataclass(frozen=True)
class Shape:
    """Widths of a network of up to two branches, their fusion and the heads.

    Attributes:
        edges: Widths of the layers over the connectome, the first of which is computed outside; () is no such branch.
        clinical: Width of the layer over the clinical table; 0 is no such branch.
        features: Columns of the clinical table.
        fusion: Width of the layer over both.
        outputs: Columns of all heads together.
        norm: "batch", "layer" or "none", after each hidden layer. Where there is one, the layer has no bias of its own.
        head_norm: Whether the heads' outputs are normalised too.
        dropout: Share dropped of each hidden layer of the branches.
    """

    edges: tuple[int, ...]
    clinical: int
    features: int
    fusion: int
    outputs: int
    norm: str
    head_norm: bool
    dropout: float

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each tensor of one member, by name; weights are (in, out)."""
        found: dict[str, tuple[int, ...]] = {}
        for name, inputs, width in self.layers():
            if inputs:
                found[f"{name}.weight"] = (inputs, width)
            if self.normed(name):
                found |= {f"{name}.norm.{part}": (width,) for part in ("weight", "bias")}
                if self.norm == "batch":
                    found |= {f"{name}.norm.{part}": (width,) for part in ("running_mean", "running_var")}
            else:
                found[f"{name}.bias"] = (width,)
        return found

    def layers(self) -> list[tuple[str, int, int]]:
        """Return (name, inputs, width) of each layer; 0 inputs where the product is computed outside."""
        branch = [(f"edges.{k}", self.edges[k - 1] if k else 0, width) for k, width in enumerate(self.edges)]
        table = [("clinical.0", self.features, self.clinical)] if self.clinical else []
        joined = (self.edges[-1] if self.edges else 0) + self.clinical
        return [*branch, *table, ("fusion.0", joined, self.fusion), ("heads", self.fusion, self.outputs)]

    def normed(self, name: str) -> bool:
        """Tell whether a layer is followed by a norm layer."""
        return self.norm != "none" and (name != "heads" or self.head_norm)

    def dropped(self) -> int:
        """Number of units that dropout may take, over all layers."""
        return sum(self.edges) + self.clinical if self.dropout else 0


@dataclass
class _Norm:
    """A norm layer: over the rows of a member ("batch") or over the units of a row ("layer")."""

    over_rows: bool
    weight: Tensor
    bias: Tensor
    running_mean: Tensor | None
    running_var: Tensor | None
    _kept: tuple[Tensor, Tensor] = field(init=False)

    def forward(self, x: Tensor, training: bool) -> Tensor:
        """Normalise in place, keep what the gradient needs, and return the scaled result."""
        weight, bias = self.weight[:, None], self.bias[:, None]
        if self.running_mean is not None and self.running_var is not None and not training:
            scale = (self.running_var + EPSILON).rsqrt_().mul_(self.weight)
            return torch.addcmul(bias, x.sub_(self.running_mean[:, None]), scale[:, None])
        dim = 1 if self.over_rows else 2
        mean = x.mean(dim, keepdim=True)
        x.sub_(mean)
        variance = x.square().mean(dim, keepdim=True)
        self._follow(mean, variance, x.shape[1])
        inverse = variance.add_(EPSILON).rsqrt_()
        x.mul_(inverse)
        self._kept = (x, inverse)
        return torch.addcmul(bias, x, weight)

    def backward(self, gradient: Tensor) -> Tensor:
        """Return the gradient of the input; that of the output is overwritten."""
        x, inverse = self._kept
        weight, product = self.weight[:, None], gradient * x
        by_bias = torch.sum(gradient, 1, out=self.bias.grad)[:, None]
        by_weight = torch.sum(product, 1, out=self.weight.grad)[:, None]
        if self.over_rows:
            part = 1.0 / x.shape[1]
            return gradient.sub_(by_bias, alpha=part).addcmul_(x, by_weight, value=-part).mul_(inverse * weight)
        gradient.mul_(weight)
        slope = product.mul_(weight).mean(2, keepdim=True)
        return gradient.sub_(gradient.mean(2, keepdim=True)).addcmul_(x, slope, value=-1.0).mul_(inverse)

    def _follow(self, mean: Tensor, variance: Tensor, rows: int) -> None:
        """Move the running statistics, of which the variance is the unbiased one, as torch.nn.BatchNorm1d does."""
        if self.running_mean is None or self.running_var is None:
            return
        self.running_mean.lerp_(mean[:, 0], MOMENTUM)
        self.running_var.mul_(1.0 - MOMENTUM).add_(variance[:, 0], alpha=MOMENTUM * rows / (rows - 1))


@dataclass
class _Layer:
    """A dense layer, its norm, and for a hidden one ReLU and dropout."""

    weight: Tensor | None
    bias: Tensor | None
    norm: _Norm | None
    hidden: bool
    _kept: tuple[Tensor, Tensor, Tensor | None] = field(init=False)

    def forward(self, x: Tensor, training: bool, keep: Tensor | None = None) -> Tensor:
        """Take (members, rows, in), or the product itself where there is no weight, to (members, rows, out).

        Args:
            x: The input. A product is overwritten.
            training: Whether norm layers use these rows and the input is kept for the gradient.
            keep: 0 where a unit is dropped, 1 / (1 - share) where it stays.
        """
        product = x if self.weight is None else torch.bmm(x, self.weight)
        y = self.norm.forward(product, training) if self.norm else product
        if self.bias is not None:
            y.add_(self.bias[:, None])
        if self.hidden:
            y.relu_()
        if keep is not None:
            y.mul_(keep)
        if training:
            self._kept = (x, y, keep)
        return y

    def backward(self, gradient: Tensor, wanted: bool = True) -> Tensor:
        """Fill the parameters' gradients and return the input's, where it is wanted."""
        x, y, keep = self._kept
        if keep is not None:
            gradient.mul_(keep)
        if self.hidden:
            # a dropped unit is 0 here as a silent one is, and neither passes anything on
            gradient = torch.ops.aten.threshold_backward(gradient, y, 0)
        if self.bias is not None:
            torch.sum(gradient, 1, out=self.bias.grad)
        if self.norm:
            gradient = self.norm.backward(gradient)
        if self.weight is None:
            return gradient
        torch.bmm(x.transpose(1, 2), gradient, out=self.weight.grad)
        return torch.bmm(gradient, self.weight.transpose(1, 2)) if wanted else gradient


class Stack:
    """The networks of M members of one shape.

    Args:
        shape: Their shape.
        tensors: What `Shape.tensors` names, each stacked to (M, ...). Training changes them in place; whoever wants
            `backward` has given those that learn a `grad`.
    """

    def __init__(self, shape: Shape, tensors: Mapping[str, Tensor]) -> None:
        self.shape = shape
        self._layers = {name: self._layer(name, tensors) for name, _, _ in shape.layers()}

    def _layer(self, name: str, found: Mapping[str, Tensor]) -> _Layer:
        norm = None
        if self.shape.normed(name):
            parts = [f"{name}.norm.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
            norm = _Norm(self.shape.norm == "batch", *(found.get(part) for part in parts))  # type: ignore[arg-type]
        return _Layer(found.get(f"{name}.weight"), found.get(f"{name}.bias"), norm, hidden=name != "heads")

    def forward(
        self, product: Tensor | None, clinical: Tensor | None, *, training: bool, keep: Tensor | None = None
    ) -> Tensor:
        """Return what the heads say.

        Args:
            product: (members, rows, edges[0]), the first layer's weights times the connectomes; overwritten.
            clinical: (members, rows, features).
            training: Whether norm layers use these rows and a `backward` follows.
            keep: (members, rows, `Shape.dropped`) factors of dropout.

        Returns:
            (members, rows, outputs).
        """
        parts, used = [], 0
        for names, x in ((self._branch(), product), (["clinical.0"], clinical)):
            if x is None:
                continue
            for name in names:
                width = self._width(name)
                x = self._layers[name].forward(x, training, None if keep is None else keep[..., used : used + width])
                used += width
            parts.append(x)
        joined = parts[0] if len(parts) == 1 else torch.cat(parts, 2)
        return self._layers["heads"].forward(self._layers["fusion.0"].forward(joined, training), training)

    def backward(self, gradient: Tensor) -> Tensor | None:
        """Fill the gradients of all that learns.

        Args:
            gradient: Of what `forward` returned; overwritten.

        Returns:
            (members, rows, edges[0]): that of the product of the first layer; None where there is no such branch.
        """
        joined = self._layers["fusion.0"].backward(self._layers["heads"].backward(gradient))
        width = self.shape.edges[-1] if self.shape.edges else 0
        if self.shape.clinical:
            self._layers["clinical.0"].backward(joined[..., width:].contiguous(), wanted=False)
        if not width:
            return None
        passed = joined[..., :width].contiguous()
        for name in reversed(self._branch()):
            passed = self._layers[name].backward(passed)
        return passed

    def _branch(self) -> list[str]:
        return [f"edges.{k}" for k in range(len(self.shape.edges))]

    def _width(self, name: str) -> int:
        return self.shape.clinical if name == "clinical.0" else self.shape.edges[int(name.removeprefix("edges."))]


def learns(name: str) -> bool:
    """Tell whether a tensor has a gradient: running statistics follow the rows instead."""
    return ".running_" not in name
