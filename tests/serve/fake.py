"""An engine that answers at once and knows nothing: for tests of the API and the pages.

Two models: `pneumonia` (a picture and a table, two classes) and `lymph-nodes` (three views, one of them with several
pictures, three classes). A file whose content is b"bad" is unusable; a cell "999" is out of range.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from tenfold.errors import BundleError, nearest
from tenfold.serve.answer import Answer, Busy, Check, Contribution, TargetAnswer
from tenfold.serve.case import Given, Upload
from tenfold.serve.model import Example, Model
from tenfold.types import Estimate


def png(side: int = 24, seed: int = 0, *, alpha: bool = False) -> bytes:
    """A tiny picture, as a file."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 4 if alpha else 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format="PNG")
    return out.getvalue()


def column(name: str, label: str, **changes: Any) -> dict[str, Any]:
    limits = ("low", "high", "normal_low", "normal_high", "training_low", "training_high")
    plain = {"name": name, "label": label, "kind": "number", "unit": "", "levels": [], **dict.fromkeys(limits)}
    return plain | changes


def _estimate(value: float) -> Estimate:
    return Estimate(value, value - 0.06, value + 0.04, "bootstrap by patient 95 %", 400)


MODELS = {
    "pneumonia": Model(
        slug="pneumonia",
        title="Pneumonia in children",
        system="pneumonia",
        digest="ab" * 32,
        targets=(
            {
                "name": "diagnosis",
                "classes": ["normal", "pneumonia"],
                "positive": "pneumonia",
                "threshold": 0.4,
                "rule": "sensitivity >= 0.95",
            },
        ),
        facts={"title": "Pneumonia in children", "simulated": True, "n_patients": 400, "prevalence": 0.3},
        card="# Model card\n\n**Research use only.**\n\n- Study: Pneumonia in children\n",
        form={
            "images": [{"name": "film", "label": "film", "pictures": 1, "layouts": [], "colour": False}],
            "tables": [
                {
                    "name": "labs",
                    "columns": [
                        column(
                            "crp",
                            "C-reactive protein",
                            unit="mg/L",
                            low=0.0,
                            high=600.0,
                            normal_low=0.0,
                            normal_high=5.0,
                            training_low=0.3,
                            training_high=310.0,
                        ),
                        column("sex", "Sex", kind="category", levels=["female", "male"]),
                        column("fever", "Fever", kind="yes_no", levels=["no", "yes"]),
                    ],
                }
            ],
            "connectomes": [],
            "may_lack": True,
        },
        engine_name="torch float32",
        examples=(
            Example(
                "sick-child",
                "A simulated child with pneumonia",
                Given(
                    "example",
                    {"film": (Upload("film.png", png(seed=1)),)},
                    rows={"labs": {"crp": "88", "sex": "male", "fever": "yes"}},
                ),
            ),
        ),
    ),
    "lymph-nodes": Model(
        slug="lymph-nodes",
        title="Lymph nodes in three hospitals",
        system="lymphnode",
        digest="cd" * 32,
        targets=(
            {
                "name": "kind",
                "classes": ["reactive", "lymphoma", "metastasis"],
                "positive": "metastasis",
                "threshold": 0.33,
                "rule": "prevalence",
            },
        ),
        facts={"title": "Lymph nodes in three hospitals", "simulated": True, "n_patients": 586},
        card="# Model card\n\n**Research use only.**\n\n- Study: Lymph nodes\n",
        form={
            "images": [
                {"name": "b_mode", "label": "b_mode", "pictures": 3, "layouts": ["north", "south"], "colour": False},
                {"name": "cdfi", "label": "cdfi", "pictures": 1, "layouts": [], "colour": True},
                {"name": "elastography", "label": "elastography", "pictures": 1, "layouts": [], "colour": True},
            ],
            "tables": [],
            "connectomes": [],
            "may_lack": True,
        },
        engine_name="torch float32",
    ),
}
_PROBABILITIES = {
    "pneumonia": {"normal": 0.23, "pneumonia": 0.77},
    "lymph-nodes": {"reactive": 0.15, "lymphoma": 0.25, "metastasis": 0.6},
}


class FakeEngine:
    """What `Engine` looks like from outside.

    Attributes:
        models: By slug.
        busy: Set it, and every question is refused.
        asked: What was asked: (slug, given, explain).
    """

    def __init__(self) -> None:
        self.models = dict(MODELS)
        self.busy = False
        self.asked: list[tuple[str, Given, bool]] = []

    async def answer(self, slug: str, given: Given, explain: bool = False) -> Answer:
        if slug not in self.models:
            raise BundleError(f"there is no model '{slug}'", do=nearest(slug, self.models))
        if self.busy:
            raise Busy(3)
        model = self.models[slug]
        for name in (*given.files, *given.rows, *given.beside):
            if name not in model.inputs:
                raise BundleError(f"there is no input '{name}'", do=nearest(name, model.inputs))
        self.asked.append((slug, given, explain))
        return _answer(model, given, explain)

    def close(self) -> None:
        pass


def _answer(model: Model, given: Given, explain: bool) -> Answer:
    told = {"name": model.slug, "title": model.title, "digest": model.digest, "version": "0", "engine": "torch float32"}
    checks, pictures = [], {}
    for name, uploads in given.files.items():
        for i, upload in enumerate(uploads):
            if upload.data == b"bad":
                checks.append(Check(name, i, "readable", "unusable", "the file is not a picture"))
            else:
                checks.append(Check(name, i, "readable", "good", "PNG, 24 x 24 pixels"))
                pictures[(name, i)] = png(seed=i)
    for name, row in given.rows.items():
        for cell, text in row.items():
            if text == "999":
                checks.append(Check(name, None, "range", "unusable", f"{cell} = 999 is outside the plausible 0 to 600"))
    there = {*given.files, *(n for n, row in given.rows.items() if any(row.values()))}
    missing = tuple(name for name in model.inputs if name not in there)
    reasons = tuple(f"{c.input}: {c.message}" for c in checks if c.verdict == "unusable")
    if not there:
        reasons = ("nothing is given for any input",)
    shared: dict[str, Any] = {
        "model": told,
        "case": given.case,
        "reasons": reasons,
        "quality": tuple(checks),
        "missing_inputs": missing,
        "missing_cells": {
            table["name"]: tuple(
                c["name"] for c in table["columns"] if not given.rows.get(table["name"], {}).get(c["name"])
            )
            for table in model.form["tables"]
            if table["name"] in there
        },
        "pictures": pictures,
        "input_hashes": given.hashes,
    }
    if reasons:
        return Answer(**shared)
    target, probabilities = model.targets[0], _PROBABILITIES[model.slug]
    positive = target["positive"]
    p = probabilities[positive]
    answer = TargetAnswer(
        name=target["name"],
        classes=tuple(target["classes"]),
        positive=positive,
        probabilities=probabilities,
        spread=(p - 0.08, p + 0.06),
        decision=positive,
        threshold=target["threshold"],
        above_threshold=True,
        prediction_set=None if missing else (positive,),
        alpha=None if missing else 0.1,
        sentence=f'Of 100 patients with this result in the study\'s mix, about {p * 100:.0f} would be "{positive}".',
        set_sentence="" if missing else f'Only "{positive}" cannot be excluded.',
        operating_point={
            "threshold": target["threshold"],
            "rule": target["rule"],
            "sensitivity": _estimate(0.95),
            "specificity": _estimate(0.71),
        },
        prevalence=0.3,
        similar={
            "low": 0.7,
            "high": 0.8,
            "n": 41,
            "with_class": {name: 30 if name == positive else 11 for name in target["classes"]},
        },
    )
    if not explain:
        return Answer(**shared, targets=(answer,))
    places = list(pictures)
    return Answer(
        **shared,
        targets=(answer,),
        explained={"target": target["name"], "class": positive},
        shares={name: 1 / len(there) for name in sorted(there)} if len(there) > 1 else None,
        contributions=tuple(
            Contribution(
                name, c["name"], c["label"], 88.0 if c["kind"] == "number" else c["levels"][1], c["unit"], odds
            )
            for name in given.rows
            if name in there
            for c, odds in zip(model.form["tables"][0]["columns"], (0.9, -0.2, 0.1), strict=True)
        ),
        maps=tuple({"input": n, "picture": i, "target": target["name"], "class": positive} for n, i in places),
        heat={place: png(seed=7, alpha=True) for place in places},
    )
