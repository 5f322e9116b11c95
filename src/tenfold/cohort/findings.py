"""How a finding about some cases is written: who, where, and the row if it is one.

It must not know what was looked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

from tenfold.cohort.manifest import Cohort
from tenfold.errors import Refusal
from tenfold.types import Finding, unique


def about(
    cohort: Cohort,
    severity: Literal["refusal", "warning", "note"],
    check: str,
    message: str,
    index: Iterable[int],
    column: str = "",
    value: float = math.nan,
) -> Finding:
    """A finding about some cases; it carries the row where it is about one."""
    places = list(index)
    cases = tuple(cohort.case[places].tolist())
    patients = tuple(unique(cohort.patient[places].tolist()))
    row = int(cohort.rows[places[0]]) if len(places) == 1 else 0
    return Finding(severity, check, message, cases, patients, column, row, value)


def one_line(error: Refusal) -> str:
    """A refusal as running text."""
    return " ".join(str(error).split("\n"))
