"""One model on offer: what a page or a client must know to ask it.

It must not know how it answers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tenfold.serve.case import Given


@dataclass(frozen=True)
class Example:
    """A simulated case to try a model with.

    Attributes:
        name: Short, unique within the model.
        label: What it shows, for a person.
        given: The case itself.
    """

    name: str
    label: str
    given: Given


@dataclass(frozen=True)
class Model:
    """What is told of one loaded bundle.

    Attributes:
        slug: Its name in addresses: lower-case letters, digits, dashes.
        title: Of the study.
        system: Which clinical question, as the study file says; may be empty.
        digest: SHA-256 over the bundle.
        targets: What it tells: {"name", "classes", "positive", "threshold" (null without), "rule"} each.
        facts: What the bundle stores of its study.
        card: Model card, Markdown.
        form: What it asks for:
            {"images": [{"name", "label", "pictures": most pictures, "layouts": [site], "colour": whether colour means
            something}], "tables": [{"name", "columns": [{"name", "label", "kind", "unit", "levels", "low", "high",
            "normal_low", "normal_high", "training_low", "training_high"}]}], "connectomes": [{"name",
            "needs": [column], "kinds": {column: "number" | "category"}, "regions": how many, "accept": [suffix]}],
            "may_lack": whether an input may be left out}. Limits that nobody knows are null.
        engine_name: What computes, for example "torch float32".
        examples: Simulated cases.
    """

    slug: str
    title: str
    system: str
    digest: str
    targets: tuple[Mapping[str, Any], ...]
    facts: Mapping[str, Any] = field(repr=False)
    card: str = field(repr=False)
    form: Mapping[str, Any] = field(repr=False)
    engine_name: str
    examples: tuple[Example, ...] = field(default=(), repr=False)

    @cached_property
    def example_hashes(self) -> frozenset[str]:
        """SHA-256 of the examples' files."""
        return frozenset(value for example in self.examples for value in example.given.hashes)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of all inputs: pictures, tables, connectomes."""
        return tuple(part["name"] for kind in ("images", "tables", "connectomes") for part in self.form[kind])


def slug_of(title: str) -> str:
    """Turn a title into what may stand in an address."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60].strip("-") or "model"
