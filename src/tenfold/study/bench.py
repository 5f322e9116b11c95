"""What all arms of a study share: patients, labels, folds, prepared pictures and tables as they were read.

It must not know any arm, nor how anything is fitted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from tenfold.cohort.manifest import Cohort, Labels
from tenfold.config import ImageInput, StudyFile, TableInput
from tenfold.modalities.image import ImagePreparation, read_image
from tenfold.modalities.table import TablePreparation, TableReading
from tenfold.study.progress import Progress
from tenfold.training.augment import Augmentation
from tenfold.training.device import seed_for
from tenfold.training.sources import Inputs
from tenfold.training.store import PixelStore
from tenfold.types import FloatArray, IntArray, PredictionTable, Split

Sections = Mapping[str, ImageInput | TableInput]
Tables = dict[str, TablePreparation]


@dataclass(frozen=True)
class Bench:
    """What all arms of a study share.

    Attributes:
        config: The study file.
        folder: Of the study file; relative paths in it start here.
        cohort: The audited cohort.
        labels: Its outcome.
        hashes: SHA-256 of every picture, by column; empty where a case has none.
        tables: What was read of every table input.
        splits: The folds.
        holdout: Cases kept aside.
        work: Where unfinished work lies.
        device: Where networks run.
        progress: Told what goes on.
        decoded: How many files each preparation had to decode.
    """

    config: StudyFile
    folder: Path
    cohort: Cohort
    labels: Labels
    hashes: Mapping[str, Sequence[str]]
    tables: Mapping[str, TableReading]
    splits: tuple[Split, ...]
    holdout: tuple[str, ...]
    work: Path
    device: torch.device
    progress: Progress
    decoded: list[int] = field(default_factory=list)

    @property
    def target(self) -> str:
        """Name of the target in files."""
        return self.config.target.name or self.config.target.column

    @property
    def label_index(self) -> IntArray:
        """(n,) class index of every case."""
        return np.array([self.labels.classes.index(v) for v in self.labels.values.tolist()], np.int64)

    def rows(self, cases: Sequence[str]) -> IntArray:
        """Return the rows of some cases in the cohort."""
        position = {name: i for i, name in enumerate(self.cohort.case.tolist())}
        return np.array([position[c] for c in cases], np.int64)

    def pictures(
        self, cohort: Cohort, hashes: Mapping[str, Sequence[str]], sections: Sections, what: str
    ) -> dict[str, tuple[PixelStore, IntArray]]:
        """Return the prepared pictures of a cohort by input, decoding what no run has decoded before."""
        stores = {}
        for name, section in sections.items():
            if not isinstance(section, ImageInput):
                continue
            column = section.column or name
            store = PixelStore(store_folder(cohort), preparation(section), read_image)
            self.progress.start(f"preparing {what}: {column} at {section.size} px", len(cohort))
            known = [(i, path) for i, path in enumerate(cohort.paths(column)) if path is not None]
            rows = np.full(len(cohort), -1, np.int64)
            index = [i for i, _ in known]
            rows[index] = store.rows(
                [path for _, path in known], [hashes[column][i] for i in index], self.progress.advance
            )
            stores[name] = (store, rows)
            self.decoded.append(store.decoded)
        return stores

    def augmentation(self, what: str) -> tuple[Augmentation, int]:
        """Return the random changes of training pictures, and their seed."""
        augment = self.config.augment.model_dump(exclude={"variants", "test_time"})
        return Augmentation(**augment), seed_for(self.config.seed, "augment", what)

    def fitted_tables(self, sections: Sections, train: IntArray) -> Tables:
        """Fit the preparation of every table input on some training cases."""
        return {
            name: TablePreparation.fit(
                self.tables[name],
                train,
                imputation=section.imputation,
                neighbours=section.neighbours,
                screen=section.screen,
                labels=self.label_index,
            )
            for name, section in sections.items()
            if isinstance(section, TableInput)
        }

    def inputs(self, sections: Sections, tables: Tables) -> Inputs:
        """Return pictures and prepared tables of the study's own patients."""
        stores = self.pictures(self.cohort, self.hashes, sections, "films")
        augmentation, seed = self.augmentation("films")
        prepared = {name: fitted.apply(self.tables[name].values) for name, fitted in tables.items()}
        return Inputs(stores, augmentation, seed, self.device, prepared)

    def table(
        self, arm: str, rows: IntArray, probabilities: FloatArray, split: str, repeat: int, fold: int
    ) -> PredictionTable:
        """Return predictions of some cases as the file that statistics eat."""
        n = len(rows)
        return PredictionTable(
            case=self.cohort.case[rows],
            patient=self.cohort.patient[rows],
            site=self.cohort.site[rows],
            split=np.full(n, split),
            repeat=np.full(n, repeat, np.int64),
            fold=np.full(n, fold, np.int64),
            arm=np.full(n, arm),
            label=self.labels.values[rows],
            probabilities=probabilities,
            classes=self.labels.classes,
        )


def preparation(section: ImageInput) -> ImagePreparation:
    """Return how an input's readings are prepared."""
    return ImagePreparation(size=section.size, fit=section.fit, channels=section.channels)


def store_folder(cohort: Cohort) -> Path:
    """Return where prepared pictures of a cohort lie: beside it, unless TENFOLD_STORE names a place."""
    named = os.environ.get("TENFOLD_STORE")
    return Path(named) if named else cohort.folder / ".tenfold"
