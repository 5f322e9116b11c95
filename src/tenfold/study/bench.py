"""What all arms of a study share: patients, outcomes, folds, prepared pictures, tables and connectomes as read.

It must not know any arm, nor how anything is fitted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tenfold.cohort.manifest import Cohort, Labels
from tenfold.cohort.outcomes import Outcome
from tenfold.config import AnyInput, ConnectomeInput, ImageInput, StudyFile, TableInput
from tenfold.modalities.connectome import ConnectomePreparation, ConnectomeReading, Covariates
from tenfold.modalities.image import ImagePreparation, read_image
from tenfold.modalities.table import TablePreparation, TableReading
from tenfold.study.progress import Progress
from tenfold.training.augment import Augmentation
from tenfold.training.device import seed_for
from tenfold.training.sources import Inputs
from tenfold.training.store import PixelStore
from tenfold.types import FloatArray, IntArray, PredictionTable, Split

Sections = Mapping[str, AnyInput]
Fitted = Mapping[str, TablePreparation | ConnectomePreparation]
"""What was fitted on a fold's training part, by input of a table or of connectomes."""


@dataclass(frozen=True, eq=False)
class Connectomes:
    """Connectomes of a cohort as they were read, and what is known beside them.

    Attributes:
        reading: The matrices.
        covariates: What harmonisation and regression need.
    """

    reading: ConnectomeReading
    covariates: Covariates | None

    def prepared_by(self, section: ConnectomeInput, train: IntArray) -> ConnectomePreparation:
        """Fit a preparation on some rows."""
        return ConnectomePreparation.fit(
            self.reading,
            train,
            space=section.space,
            covariates=self.covariates,
            harmonise=section.harmonise,
            keep=section.keep,
            confounds=section.confounds,
            unseen=section.unseen,
        )

    def applied(self, preparation: ConnectomePreparation) -> NDArray[np.float32]:
        """(n, edges) of all cases, as a preparation makes them."""
        return preparation.apply(self.reading, self.covariates)


@dataclass(frozen=True)
class Bench:
    """What all arms of a study share.

    Attributes:
        config: The study file.
        folder: Of the study file; relative paths in it start here.
        cohort: The audited cohort.
        outcomes: What is to be told, by target.
        target: The one that is looked at: the first, unless `of` chose another.
        hashes: SHA-256 of every picture, by column; empty where a case has none.
        tables: What was read of every table input.
        connectomes: What was read of every input of connectomes.
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
    outcomes: Mapping[str, Outcome]
    target: str
    hashes: Mapping[str, Sequence[str]]
    tables: Mapping[str, TableReading]
    connectomes: Mapping[str, Connectomes]
    splits: tuple[Split, ...]
    holdout: tuple[str, ...]
    work: Path
    device: torch.device
    progress: Progress
    decoded: list[int] = field(default_factory=list)

    def of(self, target: str) -> Bench:
        """Return the same bench, looking at one target."""
        return replace(self, target=target)

    def only(self, target: str) -> Bench:
        """Return the same bench with one target alone."""
        return replace(self, outcomes={target: self.outcomes[target]}, target=target)

    @property
    def outcome(self) -> Outcome:
        """The target that is looked at."""
        return self.outcomes[self.target]

    @property
    def labels(self) -> Labels:
        """Its two classes."""
        return self.outcome.labels

    @property
    def label_index(self) -> IntArray:
        """(n,) 1 where its answer is yes, 0 where no, -1 where unknown."""
        index = {name: k for k, name in enumerate(self.labels.classes)}
        return np.array([index.get(v, -1) for v in self.labels.values.tolist()], np.int64)

    def known(self, rows: IntArray) -> IntArray:
        """Return those rows of which the target is known."""
        return rows[self.labels.known[rows]]

    def answers(self, sections: Sections) -> NDArray[np.bool_]:
        """(cases,) whether a case has at least one of some inputs, before a fold's preparation has looked at it."""
        found = []
        for name, section in sections.items():
            if isinstance(section, TableInput):
                found.append(~np.isnan(self.tables[name].values).all(axis=1))
            elif isinstance(section, ConnectomeInput):
                found.append(self.connectomes[name].reading.present)
            else:
                found.append(np.array([path is not None for path in self.cohort.paths(section.column or name)]))
        return np.asarray(np.any(found, axis=0))

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

    def fitted(self, sections: Sections, train: IntArray) -> Fitted:
        """Fit the preparation of every table and of all connectomes on some training cases."""
        found: dict[str, TablePreparation | ConnectomePreparation] = {}
        for name, section in sections.items():
            if isinstance(section, TableInput):
                found[name] = TablePreparation.fit(
                    self.tables[name],
                    train,
                    imputation=section.imputation,
                    neighbours=section.neighbours,
                    screen=section.screen,
                    labels=np.where(self.label_index < 0, np.nan, self.label_index) if section.screen else None,
                )
            elif isinstance(section, ConnectomeInput):
                found[name] = self.connectomes[name].prepared_by(section, train)
        return found

    def inputs(self, sections: Sections, fitted: Fitted) -> Inputs:
        """Return pictures, and tables and connectomes as prepared, of the study's own patients."""
        stores = self.pictures(self.cohort, self.hashes, sections, "films")
        augmentation, seed = self.augmentation("films")
        return Inputs(stores, augmentation, seed, self.device, self.applied(fitted))

    def applied(self, fitted: Fitted) -> dict[str, NDArray[np.float32]]:
        """Prepare tables and connectomes of all cases."""
        return {
            name: self.connectomes[name].applied(preparation)
            if isinstance(preparation, ConnectomePreparation)
            else preparation.apply(self.tables[name].values)
            for name, preparation in fitted.items()
        }

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
