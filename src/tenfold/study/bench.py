"""What all arms of a study share: patients, outcomes, folds, prepared pictures, tables and connectomes as read.

It must not know any arm, nor how anything is fitted.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tenfold.cohort.facts import Masked
from tenfold.cohort.manifest import Cohort, Labels
from tenfold.cohort.outcomes import Outcome
from tenfold.config import AnyInput, ConnectomeInput, ImageInput, StudyFile, TableInput
from tenfold.modalities.connectome import ConnectomePreparation, ConnectomeReading, Covariates
from tenfold.modalities.image import ImagePreparation, read_image
from tenfold.modalities.table import TablePreparation, TableReading
from tenfold.modalities.ultrasound import REGIONS_FILE, Layout, read_layouts
from tenfold.study.progress import Progress
from tenfold.training.augment import Augmentation
from tenfold.training.device import seed_for
from tenfold.training.sources import Inputs
from tenfold.training.store import PixelStore
from tenfold.types import FloatArray, IntArray, PredictionTable, Reading, Split

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
        hashes: SHA-256 of every picture of every case, by column; () where a case has none.
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
    hashes: Mapping[str, Sequence[tuple[str, ...]]]
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
        """Its classes."""
        return self.outcome.labels

    @property
    def label_index(self) -> IntArray:
        """(n,) place of each case's class, the positive one being the last; -1 where unknown."""
        index = {name: k for k, name in enumerate(self.labels.classes)}
        return np.array([index.get(v, -1) for v in self.labels.values.tolist()], np.int64)

    @property
    def positive_index(self) -> int:
        """Place of the class to be detected."""
        return len(self.labels.classes) - 1

    @property
    def positive(self) -> NDArray[np.bool_]:
        """(n,) whether each case has the class to be detected; false where unknown."""
        return np.asarray(self.labels.values == self.labels.positive)

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
                found.append(np.array([len(own) > 0 for own in self.cohort.pictures(section.column or name)]))
        return np.asarray(np.any(found, axis=0))

    def rows(self, cases: Sequence[str]) -> IntArray:
        """Return the rows of some cases in the cohort."""
        position = {name: i for i, name in enumerate(self.cohort.case.tolist())}
        return np.array([position[c] for c in cases], np.int64)

    def pictures(
        self, cohort: Cohort, hashes: Mapping[str, Sequence[tuple[str, ...]]], sections: Sections, what: str
    ) -> dict[str, tuple[PixelStore, IntArray]]:
        """Return the prepared pictures of a cohort by input, decoding what no run has decoded before.

        Returns:
            By input the store, and the rows of every case's pictures in it: (cases,), or (cases, pictures) where a view
            may have several; -1 where there is none.
        """
        stores = {}
        for name, section in sections.items():
            if not isinstance(section, ImageInput):
                continue
            column = section.column or name
            prepared = preparation(section, cohort, column)
            store = PixelStore(store_folder(cohort), prepared, reader(cohort, column, prepared))
            named = [(i, j, path) for i, own in enumerate(cohort.pictures(column)) for j, path in enumerate(own)]
            self.progress.start(f"preparing {what}: {column} at {section.size} px", len(named))
            rows = np.full((len(cohort), section.pictures), -1, np.int64)
            # the same bytes at another hospital lie elsewhere on the screen
            site = [f"|{where}" if prepared.layouts else "" for where in cohort.site.tolist()]
            at = [i for i, _, _ in named], [j for _, j, _ in named]
            rows[at] = store.rows(
                [path for _, _, path in named],
                [hashes[column][i][j] + site[i] for i, j, _ in named],
                self.progress.advance,
            )
            stores[name] = (store, rows if section.pictures > 1 else rows[:, 0])
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
                    labels=np.where(self.labels.known, self.positive, np.nan) if section.screen else None,
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


def preparation(section: ImageInput, cohort: Cohort, column: str) -> ImagePreparation:
    """Return how the pictures of a column are prepared, as the screens of a cohort's hospitals are laid out."""
    return ImagePreparation(
        size=section.size,
        fit=section.fit,
        channels=section.channels,
        # regions.csv may also name the regions of connectomes: it is read where ultrasound is declared
        layouts=layouts_of(cohort, column) if section.masked or section.bar_high else (),
        masked=section.masked,
        bar_high=section.bar_high,
    )


def masked_of(prepared: Mapping[str, ImagePreparation], cohort: Cohort) -> dict[str, Masked]:
    """Return what an audit looks at of the pictures of each column, where a region of the screen is declared."""
    found = {}
    for column, own in prepared.items():
        if own.layouts or own.masked:
            sites = zip(cohort.pictures(column), cohort.site.tolist(), strict=True)
            site = {path: where for paths, where in sites for path in paths}
            text = json.dumps([own.state(), sorted((str(path), where) for path, where in site.items())])
            found[column] = Masked(hashlib.sha256(text.encode()).hexdigest()[:16], _cut(own, site))
    return found


def _cut(own: ImagePreparation, site: Mapping[Path, str]) -> Callable[[Path, Reading], Reading]:
    return lambda path, reading: own.shown(replace(reading, facts={**reading.facts, "site": site[path]}))


def layouts_of(cohort: Cohort, column: str) -> tuple[Layout, ...]:
    """Return where ultrasound lies on the pictures of a column, as regions.csv beside the cohort says."""
    file = cohort.folder / REGIONS_FILE
    return tuple(layout for layout in read_layouts(file) if layout.view == column) if file.is_file() else ()


def reader(cohort: Cohort, column: str, prepared: ImagePreparation) -> Callable[[Path], Reading]:
    """Return what reads a picture of a cohort, and says at which hospital it was taken where that matters."""
    if not prepared.layouts:
        return read_image
    sites = zip(cohort.pictures(column), cohort.site.tolist(), strict=True)
    site = {path: where for own, where in sites for path in own}

    def read(path: Path) -> Reading:
        reading = read_image(path)
        return replace(reading, facts={**reading.facts, "site": site[path]})

    return read


def store_folder(cohort: Cohort) -> Path:
    """Return where prepared pictures of a cohort lie: beside it, unless TENFOLD_STORE names a place."""
    named = os.environ.get("TENFOLD_STORE")
    return Path(named) if named else cohort.folder / ".tenfold"
