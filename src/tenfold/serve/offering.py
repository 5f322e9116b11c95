"""From a loaded bundle to what is told of it: its form, its targets, its examples.

It must not ask a network anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tenfold.bundle import Predictor
from tenfold.modalities.connectome_reading import SUFFIXES
from tenfold.modalities.table import Column
from tenfold.serve.case import Given, Upload
from tenfold.serve.model import Example, Model, slug_of
from tenfold.types import finite_or_none

_MOST_PICTURES = 8  # of a view that takes several, where the bundle does not say


def offer(predictor: Predictor, engine_name: str) -> Model:
    """Describe a bundle."""
    facts = predictor.facts
    title = str(facts.get("title") or "Model")
    return Model(
        slug=slug_of(title),
        title=title,
        system=str(facts.get("system") or ""),
        digest=predictor.digest,
        targets=tuple(_target(predictor.of(name)) for name in predictor.targets),
        facts=facts,
        card=predictor.card,
        form={
            "images": [_image(predictor, name) for name in predictor.preparations],
            "tables": [_table(predictor, name) for name in predictor.columns],
            "connectomes": [_connectome(predictor, name) for name in predictor.connectomes[0]],
            "may_lack": len(predictor.inputs) > 1 and bool(predictor.networks[0].fusion.drop),
        },
        engine_name=engine_name,
        examples=tuple(_example(one) for one in predictor.examples),
    )


def _target(predictor: Predictor) -> dict[str, Any]:
    point = predictor.operating_point
    return {
        "name": predictor.target,
        "classes": list(predictor.classes),
        "positive": predictor.positive,
        "threshold": None if point is None else point.threshold,
        "rule": "" if point is None else point.rule,
    }


def _reference(predictor: Predictor, part: str, name: str) -> Mapping[str, Any]:
    return ((predictor.facts.get("reference") or {}).get(part) or {}).get(name) or {}


def _image(predictor: Predictor, name: str) -> dict[str, Any]:
    preparation = predictor.preparations[name]
    most = int((predictor.facts.get("pictures") or {}).get(name, _MOST_PICTURES))
    coloured = _reference(predictor, "pictures", name).get("coloured", (0.0, 0.0))
    return {
        "name": name,
        "label": name.replace("_", " "),
        "pictures": most if name in predictor.pools else 1,
        "layouts": sorted({layout.site for layout in preparation.layouts if layout.site}),
        "colour": preparation.bar_high > 0 or coloured[0] > 0,
    }


def _table(predictor: Predictor, name: str) -> dict[str, Any]:
    training = _reference(predictor, "columns", name)
    return {
        "name": name,
        "columns": [_column(c, training.get(c.name)) for c in predictor.columns[name] if not c.formula],
    }


def _column(column: Column, training: tuple[float, float] | None) -> dict[str, Any]:
    low, high = training or (None, None)
    return {
        "name": column.name,
        "label": column.label or column.name,
        "kind": column.kind,
        "unit": column.unit,
        "levels": list(column.levels),
        **{key: finite_or_none(getattr(column, key)) for key in ("low", "high", "normal_low", "normal_high")},
        "training_low": low,
        "training_high": high,
    }


def _connectome(predictor: Predictor, name: str) -> dict[str, Any]:
    fitted = predictor.connectomes[0][name]
    return {
        "name": name,
        "needs": list(fitted.needs),
        "kinds": {column: fitted.kind_of(column) for column in fitted.needs},
        "regions": len(fitted.regions),
        "accept": list(SUFFIXES),
    }


def _example(told: Mapping[str, Any]) -> Example:
    files = {
        name: tuple(Upload(Path(path).name, Path(path).read_bytes()) for path in paths)
        for name, paths in (told.get("files") or {}).items()
    }
    given = Given(str(told["name"]), files, **{key: told[key] for key in ("layouts", "rows", "beside")})
    return Example(str(told["name"]), str(told["label"]), given)
