"""What a finished run is to a notebook. It must not know how it came about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tenfold.types import PredictionTable


@dataclass(frozen=True)
class Run:
    """A finished run: the folder, and what a notebook wants of it.

    Attributes:
        folder: Where everything lies.
        evaluation: What evaluation.json holds: target, arm, metric.
        predictions: All predictions, by target.
    """

    folder: Path
    evaluation: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Any]]]]
    predictions: Mapping[str, PredictionTable]

    @property
    def report(self) -> Path:
        """The report, one self-contained page."""
        return self.folder / "report.html"

    @property
    def bundle(self) -> Path:
        """The frozen predictor."""
        return self.folder / "bundle"
