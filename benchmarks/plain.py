"""What ours is measured against: the loop that a competent person writes with PyTorch, torchvision and timm.

Each film is decoded by Pillow and resized in every epoch, in worker processes; float32; default memory format;
torchvision's own augmentation with the same limits as ours; AdamW with a cosine schedule; the best epoch on an inner
part is kept.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

# A worker for each core: decoding overlaps with the arithmetic of the process that trains, which waits for little else.
WORKERS = os.cpu_count() or 1
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class Films(Dataset[tuple[Tensor, int]]):
    """Films from disk, decoded anew at every access; changed at random where `train`."""

    def __init__(self, paths: Sequence[Path], labels: np.ndarray, *, train: bool, size: int = 224) -> None:
        self.paths, self.labels = list(paths), labels
        change = [
            # after the resize, where a turn costs least
            v2.RandomAffine(
                degrees=7, translate=(0.05, 0.05), scale=(0.92, 1.08), interpolation=v2.InterpolationMode.BILINEAR
            ),
            v2.ColorJitter(brightness=0.15, contrast=0.15),
        ]
        self.transform = v2.Compose(
            [
                v2.Resize((size, size), antialias=True),
                *(change if train else []),
                v2.Grayscale(3),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        with Image.open(self.paths[i]) as film:
            return self.transform(film.convert("L")), int(self.labels[i])


def loader(
    paths: Sequence[Path], labels: np.ndarray, *, train: bool, batch: int = 32, keep: bool = False, size: int = 224
) -> DataLoader[tuple[Tensor, int]]:
    """Return a loader; `keep` leaves its workers alive between epochs."""
    return DataLoader(
        Films(paths, labels, train=train, size=size),
        batch_size=batch,
        shuffle=train,
        num_workers=WORKERS,
        persistent_workers=keep,
    )


def prepare(threads: int) -> None:
    """Set the threads; algorithms are torch's own choice, as in a loop that promises no reproducibility."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def build(name: str) -> nn.Module:
    """Return a network of timm with two outputs, without weights from elsewhere."""
    torch.manual_seed(0)
    return timm.create_model(name, pretrained=False, num_classes=2)


def freeze_below(model: nn.Module, learning: Sequence[str]) -> list[nn.Module]:
    """Let only the named modules learn; return the others' leaves, whose norm layers are to be held in eval."""
    frozen = [m for name, m in model.named_modules() if not name.startswith(tuple(learning)) and not [*m.children()]]
    for module in frozen:
        module.requires_grad_(False)
    return frozen


def fit(
    model: nn.Module,
    train: DataLoader[tuple[Tensor, int]],
    inner: DataLoader[tuple[Tensor, int]],
    *,
    epochs: int,
    rate: float = 1e-3,
    encoder_rate: float = 3e-4,
    head: str = "fc",
    frozen: Sequence[nn.Module] = (),
) -> None:
    """Train, and leave the model with the weights of its best epoch on the inner part."""
    of_head = [p for n, p in model.named_parameters() if p.requires_grad and n.startswith(head)]
    others = [p for n, p in model.named_parameters() if p.requires_grad and not n.startswith(head)]
    optimizer = torch.optim.AdamW([{"params": others, "lr": encoder_rate}, {"params": of_head, "lr": rate}])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    best, kept = float("inf"), model.state_dict()
    for _ in range(epochs):
        model.train()
        for module in frozen:
            module.eval()
        for pictures, labels in train:
            loss = nn.functional.cross_entropy(model(pictures), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        logits, labels = predict(model, inner)
        judged = float(nn.functional.cross_entropy(logits, labels))
        if judged < best:
            best, kept = judged, copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)


def predict(model: nn.Module, films: DataLoader[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    """Return logits and labels of all films."""
    model.eval()
    with torch.inference_mode():
        parts = [(model(pictures), labels) for pictures, labels in films]
    return torch.cat([logits for logits, _ in parts]), torch.cat([labels for _, labels in parts])
