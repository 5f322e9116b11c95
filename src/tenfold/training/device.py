"""Device, precision and threads, chosen at run time.

It must not know what is trained.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable

import torch

from tenfold.errors import TrainingError, nearest

DEVICES = ("auto", "cpu", "cuda", "mps")


def choose_device(wish: str = "auto") -> torch.device:
    """Return the device to run on: CUDA, then MPS, then CPU, unless one is named.

    Raises:
        TrainingError: An unknown device, or one that this machine lacks.
    """
    if wish not in DEVICES:
        raise TrainingError(f"unknown device '{wish}'", do=nearest(wish, DEVICES))
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wish != "auto" and not there[wish]:
        raise TrainingError(f"this machine has no {wish} device", do="leave the device to 'auto' or choose 'cpu'")
    return torch.device(wish if wish != "auto" else next(name for name, present in there.items() if present))


def prepare_machine(device: torch.device, threads: int | None = None) -> int:
    """Set threads and determinism for this process; return the number of threads."""
    count = threads or os.cpu_count() or 1
    torch.set_num_threads(count)
    # What is used here is fixed on a CPU anyway, and this call alone loads torch's compiler: seconds of every command.
    if device.type != "cpu":
        # convolutions of a fixed algorithm: the same seed on the same machine gives the same result
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        # filling every fresh tensor with NaN would find our own bugs and slow each convolution down
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = False
    return count


def choose_precision(device: torch.device, step: Callable[[], object]) -> torch.dtype:
    """Return bfloat16 where the hardware has it and it is clearly faster for this very step, else float32.

    Args:
        device: Where the step runs.
        step: One forward pass of the network in question, without side effects.

    Returns:
        torch.bfloat16 or torch.float32. On a CPU without native bfloat16 nothing is tried: emulation is slower.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if device.type != "cpu" or not _cpu_has_bfloat16():
        return torch.float32
    plain = _seconds(step)
    with torch.autocast("cpu", torch.bfloat16):
        short = _seconds(step)
    return torch.bfloat16 if short * 1.3 < plain else torch.float32


def seed_for(seed: int, *parts: object) -> int:
    """Derive an independent 63-bit seed for one purpose from the study's seed."""
    digest = hashlib.sha256("|".join(map(str, (seed, *parts))).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _cpu_has_bfloat16() -> bool:
    # the private names are torch's own probes; where they have gone, float32 is the safe answer
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, lambda: False)()) for name in probes)


def _seconds(step: Callable[[], object]) -> float:
    with torch.inference_mode():
        step()
        best = float("inf")
        for _ in range(3):
            start = time.perf_counter()
            step()
            best = min(best, time.perf_counter() - start)
    return best
