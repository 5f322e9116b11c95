"""The published figures that stand beside ours, read from `published.toml`.

It must not know any result of our own.
"""

from __future__ import annotations

import tomllib
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


def headline(system: str) -> dict[str, Any]:
    """Return the row of the published network that a study of this system is set beside; empty where unknown."""
    return next((row for row in published(system).get("rows") or [] if row.get("headline")), {})


def papers() -> list[dict[str, str]]:
    """Return the four papers whose systems tenfold carries forward, for citing."""
    return list(_all()["papers"])
