"""Three small bundles (films and labs; three views; a bag and a connectome) and an engine that serves them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.bundle.conftest import CALIBRATIONS, CLASSES, POINT, SIZE
from tests.bundle.test_tables import ROW, _reading

from tenfold.bundle import Answer, Member, save_bundle
from tenfold.encoders import build
from tenfold.modalities.confounds import Covariates
from tenfold.modalities.connectome import ConnectomePreparation
from tenfold.modalities.connectome_reading import ConnectomeReading, numbered
from tenfold.modalities.image import ImagePreparation
from tenfold.modalities.table import TablePreparation
from tenfold.network.network import HeadSpec, Network
from tenfold.serve.case import Given, Upload
from tenfold.serve.decode import Limits
from tenfold.serve.engine import Engine, EngineSettings
from tenfold.types import Calibration, OperatingPoint, PredictionSets

KINDS = ("reactive", "lymphoma", "metastasis")
VIEWS = ("b_mode", "cdfi", "elastography")
ESTIMATE = {"value": 0.9, "low": 0.8, "high": 0.95, "method": "Wilson 95 %", "n": 40}


def film_bytes(seed: int = 0, shape: tuple[int, ...] = (60, 70), kind: str = "PNG") -> bytes:
    """A noisy picture, as a file."""
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)).save(out, format=kind)
    return out.getvalue()


def given(seed: int = 0, **changes: Any) -> Given:
    """A whole case of the first bundle."""
    whole: dict[str, Any] = {"files": {"film": (Upload("film.png", film_bytes(seed)),)}, "rows": {"labs": ROW}}
    return Given(f"case {seed}", **{**whole, **changes})


def films_and_labs(folder: Path) -> Path:
    """Two models of films beside a table, trained with modality dropout."""
    reading, _ = _reading()
    members, models = [], []
    for k, half in enumerate((np.arange(20), np.arange(20, 40))):
        fitted = TablePreparation.fit(reading, half)
        torch.manual_seed(k)
        encoders = {
            "film": build("image_residual_dilated", width=4, depths=(1, 1, 1, 1)),
            "labs": build("table_mlp", features=len(fitted.features), dim=16, hidden=8),
        }
        model = Network(encoders, {"diagnosis": HeadSpec("softmax", CLASSES)}, modality_dropout=0.2)
        torch.nn.init.normal_(next(p for n, p in model.named_parameters() if n.startswith("head_list")))
        models.append(model)
        calibrations = {"diagnosis": CALIBRATIONS[k]}
        members.append(Member(f"fold-0-{k}", model.state_dict(), calibrations, {"labs": fitted.state()}))
    save_bundle(
        folder,
        members=members,
        network_spec=models[0].spec,
        answers=[Answer("diagnosis", CLASSES, "sick", POINT, PredictionSets(0.1, (0.2, 0.3)))],
        preparations={"film": ImagePreparation(size=SIZE).state()},
        model_card="# Card\n",
        facts={
            "title": "Films and labs",
            "system": "test",
            "prevalence": 0.3,
            "evaluation": {"sensitivity": ESTIMATE, "specificity": ESTIMATE},
            "reference": {"columns": {"labs": {"crp": [1.0, 60.0]}}},
            "similar": {
                "diagnosis": {"edges": [0, 0.5, 1], "counts": {"healthy": [20, 5], "sick": [2, 13]}},
            },
        },
        training_patients=["p1"],
        training_images=[Upload("", film_bytes(77)).sha256],
    )
    return folder


def three_views(folder: Path) -> Path:
    """One model of three views and three classes, trained without modality dropout."""
    torch.manual_seed(3)
    encoders = {name: build("image_residual_dilated", width=4, channels=3, depths=(1, 1, 1, 1)) for name in VIEWS}
    model = Network(encoders, {"kind": HeadSpec("softmax", KINDS)})
    save_bundle(
        folder,
        members=[Member("fold-0-0", model.state_dict(), {"kind": Calibration()})],
        network_spec=model.spec,
        answers=[Answer("kind", KINDS, "metastasis", OperatingPoint(0.33, "prevalence", 20))],
        preparations={name: ImagePreparation(size=SIZE, channels=3).state() for name in VIEWS},
        model_card="# Card\n",
        facts={"title": "Three views"},
        training_patients=[],
        training_images=[],
    )
    return folder


def bag_and_brain(folder: Path) -> Path:
    """One model of a view with several pictures beside a connectome that is adjusted for age."""
    rng = np.random.default_rng(0)
    matrices = np.stack([np.corrcoef(rng.normal(size=(5, 60))) for _ in range(20)]).astype(np.float32)
    reading = ConnectomeReading(matrices, numbered(5), tuple(map(str, range(20))))
    age = Covariates({"age": rng.uniform(20, 60, 20)}, tuple(map(str, range(20))))
    fitted = ConnectomePreparation.fit(reading, np.arange(20), covariates=age, confounds=["age"])
    torch.manual_seed(4)
    encoders = {
        "scan": build("image_residual_dilated", width=4, depths=(1, 1, 1, 1)),
        "brain": build("connectome_dense", edges=10, widths=(6,)),
    }
    head = {"diagnosis": HeadSpec("softmax", CLASSES)}
    model = Network(encoders, head, modality_dropout=0.2, pools={"scan": "attention"}).eval()
    own = {"brain": fitted.state()}, {"brain": fitted.arrays()}
    save_bundle(
        folder,
        members=[Member("fold-0-0", model.state_dict(), {"diagnosis": CALIBRATIONS[0]}, *own)],
        network_spec=model.spec,
        answers=[Answer("diagnosis", CLASSES, "sick", POINT)],
        preparations={"scan": ImagePreparation(size=SIZE).state()},
        model_card="# Card\n",
        facts={"title": "Bag and brain", "prevalences": {"diagnosis": {"healthy": 0.6, "sick": 0.4}}},
        training_patients=[],
        training_images=[],
    )
    return folder


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    place = tmp_path_factory.mktemp("bundles")
    return films_and_labs(place / "films"), three_views(place / "views"), bag_and_brain(place / "bag")


@pytest.fixture(scope="session")
def engine(bundles: tuple[Path, Path, Path]) -> Iterator[Engine]:
    settings = EngineSettings(decoders=1, limits=Limits(max_pixels=1_000_000), batch=4, linger=0.02)
    engine = Engine.start(bundles, settings=settings)
    yield engine
    engine.close()
