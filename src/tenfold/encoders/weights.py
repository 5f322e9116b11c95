"""Weights in safetensors files: reading, fitting into a module, saving an encoder.

It must not know any network; it fetches nothing and never unpickles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from tenfold.encoders.contract import Encoder
from tenfold.errors import EncoderError
from tenfold.types import write_atomically

OURS = {"format": "tenfold-encoder"}


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file.

    Returns:
        The tensors by name, and the file's metadata.

    Raises:
        EncoderError: The file is missing, or is not safetensors.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise EncoderError(
            f"these weights cannot be read ({error})",
            expected="a whole safetensors file",
            do="give the path of one, or weights = 'none'",
            where=str(path),
        ) from error


def fit(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    where: str,
    ignore: Callable[[str], bool] = lambda _: False,
) -> None:
    """Load tensors into a module, all or nothing.

    Args:
        module: Where they go.
        tensors: By the names of the module's state dict.
        where: The file, for the message.
        ignore: Names that may be left out of the file and are not read from it.

    Raises:
        EncoderError: A name is missing or unexpected, a shape differs, or a value is not finite.
    """
    wanted = module.state_dict()
    found = {key: value for key, value in tensors.items() if key in wanted or not ignore(key)}
    # Only torch's own count of batches; files made by other tools lack it and nothing here reads it.
    missing = [k for k in wanted if k not in found and not ignore(k) and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in found if k not in wanted]
    shapes = [
        f"{k} {tuple(found[k].shape)} for {tuple(wanted[k].shape)}"
        for k in found
        if k in wanted and found[k].shape != wanted[k].shape
    ]
    broken = [k for k, value in found.items() if not value.isfinite().all()]
    faults = {"missing": missing, "unexpected": unexpected, "other shape": shapes, "not finite": broken}
    if any(faults.values()):
        raise EncoderError(
            "these weights do not fit: " + "; ".join(f"{name}: {_some(keys)}" for name, keys in faults.items() if keys),
            expected=f"the {len(wanted)} tensors of this network, by its own names",
            do="give the weights of this very network, or weights = 'none'",
            where=where,
        )
    module.load_state_dict(found, strict=False)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more


def load_own(encoder: Encoder, path: Path) -> None:
    """Load what `save_encoder` wrote.

    Raises:
        EncoderError: The file is of another kind, or its weights do not fit this encoder.
    """
    tensors, metadata = read(path)
    if not is_own(metadata):
        raise EncoderError(
            "weights that tenfold did not save",
            expected="a file written by save_encoder",
            do="give weights = 'none'",
            where=str(path),
        )
    fit(encoder, tensors, str(path))


def is_own(metadata: Mapping[str, Any]) -> bool:
    """Say whether a file's metadata are those of `save_encoder`."""
    return OURS.items() <= metadata.items()


def save_encoder(encoder: Encoder, path: Path) -> None:
    """Save an encoder's weights, fit for the option `weights` of the same encoder.

    Raises:
        OutputError: The file cannot be written.
    """
    normalise = {
        name: ",".join(str(v) for v in encoder.spec["options"][name])
        for name in ("mean", "std")
        if name in encoder.spec["options"]
    }
    tensors = {k: v.detach().to("cpu", memory_format=torch.contiguous_format) for k, v in encoder.state_dict().items()}
    write_atomically(path, save(tensors, metadata={**OURS, **normalise}))
