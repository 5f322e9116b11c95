"""The published figures that stand beside ours, read from `published.toml`.

It must not know any result of our own.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import Any


@cache
def _all() -> dict[str, Any]:
    return tomllib.loads(resources.files("tenfold.report").joinpath("published.toml").read_text("utf-8"))


def published(system: str) -> dict[str, Any]:
    """Return what was published on a system: title, citation, data, rows, others, caveats; empty where unknown."""
    held = _all().get(system)
    return held if isinstance(held, dict) else {}


def headline(system: str, target: str = "") -> dict[str, Any]:
    """Return the row of the published network that a study is set beside; empty where unknown.

    Args:
        system: The study's system.
        target: Our outcome; a paper of several has an AUC for each, and none for an outcome that it did not have.
    """
    row: dict[str, Any] = next((row for row in published(system).get("rows") or [] if row.get("headline")), {})
    if "aucs" not in row:
        return row
    theirs = matching(target, row["aucs"])
    return {**row, "auc": row["aucs"][theirs]} if theirs else {}


def matching(target: str, names: Iterable[str]) -> str:
    """Return the published outcome that one of ours is by its name ("bayley_cognitive" is "cognitive"); else empty."""
    return next((name for name in names if name in target.lower()), "")


def papers() -> list[dict[str, str]]:
    """Return the four papers whose systems tenfold carries forward, for citing."""
    return list(_all()["papers"])
