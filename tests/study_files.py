"""Files of cohorts and runs, as tests write and read them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from tenfold.study import Run

Rows = list[dict[str, str]]


def read_rows(path: Path) -> Rows:
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


def write_rows(path: Path, rows: Rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as handle:
        out = csv.DictWriter(handle, rows[0])
        out.writeheader()
        out.writerows(rows)


def read_json(run: Run, name: str) -> Any:
    return json.loads((run.folder / name).read_text())
