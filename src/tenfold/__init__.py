"""tenfold: from a small clinical cohort to a diagnostic model its owner can defend.

It knows nothing itself; it is where a notebook finds the three things it starts from. They are imported when they are
first asked for, so that reading a cohort does not load torch::

    cohort = tenfold.Cohort.read("films")
    study = tenfold.Study.read("films/study.toml")
    run = study.run(cohort, out="runs/pneumonia")
    predictor = tenfold.load(run.bundle)
    predictor.predict("film.png")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tenfold.bundle import load
    from tenfold.cohort.manifest import Cohort
    from tenfold.study import Study, evaluate_bundle

_PLACES = {
    "Cohort": "tenfold.cohort.manifest",
    "Study": "tenfold.study",
    "evaluate_bundle": "tenfold.study",
    "load": "tenfold.bundle",
}

__all__ = ["Cohort", "Study", "evaluate_bundle", "load"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'tenfold' has no attribute '{name}'")
    return getattr(importlib.import_module(_PLACES[name]), name)
