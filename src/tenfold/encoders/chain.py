"""Takes a network apart into blocks that run one after another, by watching one pass through it.

It must not know any particular network or where it came from.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn

# Containers that hold a whole trunk: "the last block" means their last child, not the container.
TRUNKS = ("features", "blocks", "stages", "layers")
POOLS = (nn.MaxPool2d, nn.AvgPool2d)

Named = tuple[str, nn.Module]


@dataclass(frozen=True)
class _Call:
    """One pass through one module, with the state its tensors were in."""

    name: str
    source: Tensor | None
    source_version: int
    result: Any
    result_version: int


def chain(network: nn.Module, forward: Callable[[Tensor], Tensor], probe: Tensor) -> list[Named] | None:
    """Find the modules that `forward` runs, where each eats what the one before gave and nothing else.

    Identity of tensors decides, never their values, so the answer does not depend on weights or machine.

    Args:
        network: The network whose children are watched.
        forward: The pass, from the input to the last maps.
        probe: An input.

    Returns:
        (name, module) in the order they run, or None where the flow is not such a chain.
    """
    modules = _candidates(network)
    calls, result = _watch(modules, forward, probe)
    names = [call.name for call in calls]
    if not names or len(set(names)) < len(names) or _linked(calls, probe) < len(calls):
        return None
    whole = result is calls[-1].result and result._version == calls[-1].result_version
    return [(name, dict(modules)[name]) for name in names] if whole else None


def leading(network: nn.Module, forward: Callable[[Tensor], Tensor], maps: Tensor) -> list[Named]:
    """Find the modules with weights that `forward` runs first, each fed by the one before.

    Args:
        network: The network whose children are watched.
        forward: The pass, from the last maps on.
        maps: What it starts from.

    Returns:
        (name, module) in the order they run; empty where the pass begins with a pooling.
    """
    modules = dict(network.named_children())
    calls, _ = _watch(list(modules.items()), forward, maps)
    linked = [(call.name, modules[call.name]) for call in calls[: _linked(calls, maps)]]
    return list(takewhile(lambda named: _has_weights(named[1]), linked))


def group(modules: Iterable[Named]) -> list[list[Named]]:
    """Group the modules of a chain into blocks.

    A module with children is a block of its own; bare convolutions in a row make one block up to the next
    pooling (a stem, a VGG stage); norms, activations and poolings belong to the block before them.
    """
    groups: list[list[Named]] = []
    for named in modules:
        if groups and _joins(groups[-1], named[1]):
            groups[-1].append(named)
        else:
            groups.append([named])
    return groups


def without(network: nn.Module, names: Iterable[str], parameters: bool = True) -> nn.Module:
    """A twin that shares the network's modules, but in which the named children do nothing.

    Args:
        network: Left as it is.
        names: Children to leave out.
        parameters: Whether the twin keeps the parameters and buffers that the network itself holds.
    """
    gone = set(names)
    twin = copy.copy(network)
    twin.__dict__["_modules"] = {
        name: nn.Identity() if name in gone else child for name, child in network._modules.items()
    }
    if not parameters:
        twin.__dict__["_parameters"], twin.__dict__["_buffers"] = {}, {}
    return twin


def called(network: nn.Module, forward: Callable[[Tensor], Tensor], probe: Tensor) -> list[str]:
    """Names of the children that a pass runs."""
    return [call.name for call in _watch(list(network.named_children()), forward, probe)[0]]


def _linked(calls: list[_Call], tensor: Any) -> int:
    """How many calls from the first on eat what the one before gave, and nothing else."""
    version = tensor._version
    for count, call in enumerate(calls):
        # A changed version betrays an operation in place between two modules.
        if call.source is not tensor or call.source_version != version:
            return count
        tensor, version = call.result, call.result_version
    return len(calls)


def _candidates(network: nn.Module) -> list[Named]:
    """The children, with those of a trunk or of a row of residual blocks in its place."""
    return [named for name, child in network.named_children() for named in _opened(name, child)]


def _opened(name: str, module: nn.Module) -> list[Named]:
    inner = list(module.named_children())
    # a stage of a ResNet is a row of modules that have parts themselves; a row of bare layers is one block
    row = isinstance(module, nn.Sequential) and inner and all(any(True for _ in m.children()) for _, m in inner)
    if not row and not (name in TRUNKS and isinstance(module, nn.Sequential)):
        return [(name, module)]
    return [named for key, child in inner for named in _opened(f"{name}.{key}", child)]


def _watch(modules: list[Named], forward: Callable[[Tensor], Tensor], probe: Tensor) -> tuple[list[_Call], Tensor]:
    """Run a pass and note each call of the modules, in order."""
    calls: list[_Call] = []
    hooks = []
    for name, module in modules:

        def note_input(_: nn.Module, args: Any, kwargs: Any, name: str = name) -> None:
            lone = args[0] if len(args) == 1 and not kwargs and isinstance(args[0], Tensor) else None
            calls.append(_Call(name, lone, lone._version if lone is not None else 0, None, 0))

        def note_output(_: nn.Module, args: Any, kwargs: Any, output: Any, name: str = name) -> None:
            at = max(i for i, call in enumerate(calls) if call.name == name)
            version = output._version if isinstance(output, Tensor) else 0
            calls[at] = _Call(name, calls[at].source, calls[at].source_version, output, version)

        hooks.append(module.register_forward_pre_hook(note_input, with_kwargs=True))
        hooks.append(module.register_forward_hook(note_output, with_kwargs=True))
    try:
        with torch.no_grad():
            result = forward(probe)
    finally:
        for hook in hooks:
            hook.remove()
    return calls, result


def _joins(block: list[Named], module: nn.Module) -> bool:
    weighted = [member for _, member in block if _has_weights(member)]
    if not weighted or not _has_weights(module):
        return True
    bare = not any(True for m in (*weighted, module) for _ in m.children())
    return bare and not any(isinstance(member, POOLS) for _, member in block)


def _has_weights(module: nn.Module) -> bool:
    """Whether it holds more than the scale and shift of a norm."""
    return any(p.ndim > 1 for p in module.parameters())
