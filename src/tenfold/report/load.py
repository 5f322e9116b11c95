"""A run folder read back from its files, every part of it optional but run.json.

It must not know how the page looks, nor how any of the numbers were made.
"""

from __future__ import annotations

import csv
import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from tenfold.errors import OutputError, Refusal
from tenfold.types import Estimate, PredictionTable

ALTERED = "altered"


@dataclass(frozen=True)
class Run:
    """What a run folder holds. A part that is missing or unreadable is empty.

    Attributes:
        folder: The run folder.
        facts: run.json.
        cohort: cohort.json.
        findings: Rows of findings.csv; None where the audit left no file.
        evaluation: evaluation.json, `{target: {arm: {metric: estimate}}}`.
        holdout: evaluation_holdout.json, likewise.
        comparisons: comparisons.json.
        comparisons_holdout: comparisons_holdout.json, likewise.
        folds: folds.json.
        curves: curves.json.
        curves_holdout: curves_holdout.json, likewise.
        explanations: explanations.json.
        subgroups: subgroups.json, `{column: {"levels": [...], "gaps": {...}}}`.
        conformal: conformal.json.
        sample_size: sample_size.json.
        readers: readers.json: human readers on the cases of this folder.
        operating_points: Rows of operating_points.csv.
        author: author.toml.
        study: study.toml as text.
        predictions: Prediction tables by target.
        problems: One sentence a part that is there and cannot be read.
        externals: The external sets that the frozen model was tried on in this run, by name.
    """

    folder: Path
    facts: dict[str, Any]
    cohort: dict[str, Any]
    findings: list[dict[str, str]] | None
    evaluation: dict[str, Any]
    holdout: dict[str, Any]
    comparisons: dict[str, Any]
    comparisons_holdout: dict[str, Any]
    folds: dict[str, Any]
    curves: dict[str, Any]
    curves_holdout: dict[str, Any]
    explanations: dict[str, Any]
    subgroups: dict[str, Any]
    conformal: dict[str, Any]
    sample_size: dict[str, Any]
    readers: dict[str, Any]
    operating_points: list[dict[str, str]]
    author: dict[str, Any]
    study: str
    predictions: dict[str, PredictionTable]
    problems: tuple[str, ...]
    externals: dict[str, Run]

    @property
    def external(self) -> bool:
        """Whether this is the validation of a frozen bundle on other data."""
        return self.facts.get("kind") == "external"

    @property
    def target(self) -> str:
        """Name of the outcome."""
        name = (self.facts.get("target") or {}).get("name")
        return str(name or next(iter(self.evaluation), ""))

    @property
    def classes(self) -> list[str]:
        """Class names, in the order of the study."""
        return [str(c) for c in (self.facts.get("target") or {}).get("classes") or []]

    @property
    def positive(self) -> str:
        """The class that counts as disease; empty where the outcome has none."""
        return str((self.facts.get("target") or {}).get("positive") or "")

    @property
    def arms(self) -> dict[str, dict[str, Any]]:
        """Every arm that was fitted, the failed ones too, the proposed one first."""
        listed = self._listed()
        first = [self.proposed] if self.proposed in listed else []
        order = (*first, *(a for a in listed if a != self.proposed))
        return {arm: listed[arm] for arm in order if listed[arm].get("kind") != ALTERED}

    @property
    def altered(self) -> dict[str, dict[str, Any]]:
        """The proposed networks asked again with an input mixed among patients or taken away: no arms of their own."""
        return {arm: a for arm, a in self._listed().items() if a.get("kind") == ALTERED}

    def _listed(self) -> dict[str, dict[str, Any]]:
        """All that run.json and the evaluation name."""
        listed = {str(k): dict(v) for k, v in (self.facts.get("arms") or {}).items()}
        for arm in self.evaluation.get(self.target) or {}:
            listed.setdefault(arm, {"status": "done"})
        return listed

    def inputs(self, arm: str) -> tuple[str, ...]:
        """Names of the inputs that an arm sees; empty where the run does not say."""
        return tuple(str(name) for name in self._listed().get(arm, {}).get("inputs") or ())

    def kinds(self, arm: str) -> set[str]:
        """Kinds of the inputs that an arm sees: "image", "table"; empty where the run does not say."""
        held = self.facts.get("inputs") or {}
        return {str((held.get(name) or {}).get("kind", "")) for name in self.inputs(arm)} - {""}

    @property
    def proposed(self) -> str:
        """The arm that the study stands for; where none is named, the first one evaluated."""
        named = self.facts.get("proposed")
        return str(named or next(iter(self.evaluation.get(self.target) or {}), ""))

    def estimates(self, arm: str, part: str = "evaluation") -> dict[str, Estimate]:
        """Return an arm's estimates by metric: of "evaluation" or of "holdout"."""
        held: dict[str, Any] = getattr(self, part)
        found = (held.get(self.target) or {}).get(arm) or {}
        return {name: Estimate.from_dict(e) for name, e in found.items() if readable(e)}

    def curve(self, arm: str, kind: str, part: str = "curves") -> dict[str, Any]:
        """Return one curve of one arm, of "curves" or "curves_holdout"; empty where there is none."""
        held: dict[str, Any] = getattr(self, part)
        return ((held.get(self.target) or {}).get(arm) or {}).get(kind) or {}

    def compared(self, part: str = "comparisons") -> list[dict[str, Any]]:
        """Return the paired comparisons of the outcome, of "comparisons" or "comparisons_holdout"."""
        held: dict[str, Any] = getattr(self, part)
        return list(held.get(self.target) or [])

    def table(self) -> PredictionTable | None:
        """Return the predictions the evaluation rests on: never those of the hold-out."""
        table = self.predictions.get(self.target)
        return None if table is None else table.where(table.split != "holdout")

    def inside(self, name: Any) -> Path | None:
        """Return a file of the run folder by its relative name; None where it is absent or outside."""
        if not name:
            return None
        place = (self.folder / str(name)).resolve()
        return place if place.is_file() and place.is_relative_to(self.folder.resolve()) else None


def readable(estimate: Any) -> TypeGuard[dict[str, Any]]:
    """Whether a JSON value is an estimate with a number in it."""
    return isinstance(estimate, dict) and isinstance(estimate.get("value"), int | float)


def load(folder: Path) -> Run:
    """Read a run folder, or the folder of an external validation.

    Args:
        folder: Where run.json lies.

    Returns:
        Everything that is there.

    Raises:
        OutputError: There is no run.json, or it cannot be read: without it nothing can be said.
    """
    problems: list[str] = []
    if not (folder / "run.json").is_file():
        raise OutputError(
            "no run.json here",
            expected="a folder that `tenfold run` or `tenfold evaluate` has written",
            do="name that folder",
            where=str(folder),
        )
    facts = _read(folder, "run.json", _json, {}, problems)
    if problems:
        raise OutputError(problems[0], do="run the study again with --resume", where=str(folder))
    return Run(
        folder=folder,
        facts=facts,
        cohort=_read(folder, "cohort.json", _json, {}, problems),
        findings=_read(folder, "findings.csv", _rows, None, problems),
        evaluation=_read(folder, "evaluation.json", _json, {}, problems),
        holdout=_read(folder, "evaluation_holdout.json", _json, {}, problems),
        comparisons=_read(folder, "comparisons.json", _json, {}, problems),
        comparisons_holdout=_read(folder, "comparisons_holdout.json", _json, {}, problems),
        folds=_read(folder, "folds.json", _json, {}, problems),
        curves=_read(folder, "curves.json", _json, {}, problems),
        curves_holdout=_read(folder, "curves_holdout.json", _json, {}, problems),
        explanations=_read(folder, "explanations.json", _json, {}, problems),
        subgroups=_read(folder, "subgroups.json", _json, {}, problems),
        conformal=_read(folder, "conformal.json", _json, {}, problems),
        sample_size=_read(folder, "sample_size.json", _json, {}, problems),
        readers=_read(folder, "readers.json", _json, {}, problems),
        operating_points=_read(folder, "operating_points.csv", _rows, [], problems),
        author=_read(folder, "author.toml", _toml, {}, problems),
        study=_read(folder, "study.toml", _text, "", problems),
        predictions=_predictions(folder, problems),
        externals=_externals(folder, problems),
        problems=tuple(problems),
    )


def _externals(folder: Path, problems: list[str]) -> dict[str, Run]:
    """Read the external sets inside the run, each a folder like that of `tenfold evaluate`."""
    found = {}
    for place in sorted((folder / "external").glob("*/run.json")):
        try:
            found[place.parent.name] = load(place.parent)
        except OutputError as error:
            problems.append(f"external/{place.parent.name} cannot be read: {error.came}")
    for name, run in found.items():
        problems += [f"external/{name}: {problem}" for problem in run.problems]
    return found


def _read(folder: Path, name: str, reader: Callable[[Path], Any], empty: Any, problems: list[str]) -> Any:
    """Read one part; one that is there but cannot be read is told, not fatal."""
    place = folder / name
    if not place.is_file():
        return empty
    try:
        return reader(place)
    except (OSError, ValueError, IndexError, csv.Error, Refusal) as error:
        problems.append(f"{name} cannot be read: {str(error).splitlines()[0].strip()}")
        return empty


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _json(path: Path) -> dict[str, Any]:
    """Read a JSON mapping."""
    data = json.loads(_text(path))
    if not isinstance(data, dict):
        raise OutputError("a mapping was expected")
    return data


def _toml(path: Path) -> dict[str, Any]:
    return tomllib.loads(_text(path))


def _rows(path: Path) -> list[dict[str, str]]:
    """Read a CSV file as text."""
    with path.open(newline="", encoding="utf-8") as handle:
        return [dict(row) for row in csv.DictReader(handle)]


def _predictions(folder: Path, problems: list[str]) -> dict[str, PredictionTable]:
    """Read every predictions file by its target."""
    tables = {
        path.stem: _read(folder, f"predictions/{path.name}", PredictionTable.read, None, problems)
        for path in sorted((folder / "predictions").glob("*.csv"))
    }
    return {name: table for name, table in tables.items() if table is not None}
