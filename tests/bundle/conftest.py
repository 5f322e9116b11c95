"""Two fold models on a frozen trunk, their bundle, and a few films."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tenfold.bundle import Answer, Member, save_bundle
from tenfold.encoders import build
from tenfold.modalities.image import ImagePreparation
from tenfold.network.network import HeadSpec, Network
from tenfold.types import Calibration, OperatingPoint

SIZE = 48
CLASSES = ("healthy", "sick")


def networks(*inputs: str, frozen: int = 2) -> list[Network]:
    """Two networks that agree in the first `frozen` blocks of every encoder and differ above."""
    torch.manual_seed(1)
    names = inputs or ("film",)
    encoders = {n: build("image_residual_dilated", width=8, depths=(1, 1, 1, 1)) for n in names}
    first = Network(encoders, {"diagnosis": HeadSpec("softmax", CLASSES)})
    second = Network.from_spec(first.spec)
    for name in names:
        for mine, other in zip(
            second.encoders[name].blocks[:frozen], first.encoders[name].blocks[:frozen], strict=True
        ):
            mine.load_state_dict(other.state_dict())
    return [first.eval(), second.eval()]


CALIBRATIONS = (Calibration("temperature", 1.7, (), 20), Calibration("platt", 0.8, (0.0, 0.3), 20))
CALIBRATED = tuple({"diagnosis": calibration} for calibration in CALIBRATIONS)
POINT = OperatingPoint(0.4, "sensitivity >= 0.95", 20)


def answer(**changes: Any) -> Answer:
    """What the bundle tells, with some of it changed."""
    return replace(Answer("diagnosis", CLASSES, "sick", POINT), **changes)


def saved(folder: Path, models: list[Network], **changes: Any) -> Path:
    """Save a bundle of some models, with some arguments changed."""
    arguments: dict[str, Any] = {
        "members": [Member(f"fold-0-{i}", model.state_dict(), CALIBRATED[i % 2]) for i, model in enumerate(models)],
        "network_spec": models[0].spec,
        "answers": [answer()],
        "preparations": {name: ImagePreparation(size=SIZE).state() for name in models[0].encoders},
        "model_card": "# Card\n",
        "facts": {"title": "Films", "n": 20, "simulated": True},
        "training_patients": ["p2", "p1", "p2"],
        "training_images": ["AB" * 32],
    }
    save_bundle(folder, **{**arguments, **changes})
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return saved(tmp_path / "bundle", networks())


@pytest.fixture
def film(tmp_path: Path) -> Callable[[int], Path]:
    def make(seed: int) -> Path:
        path = tmp_path / f"film{seed}.png"
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (60, 70), dtype=np.uint8)).save(path)
        return path

    return make
