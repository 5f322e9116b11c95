"""A run folder read back from its files, every part of it optional but run.json.

It must not know how the page looks, nor how any of the numbers were made.
"""

from __future__ import annotations

import csv
import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeGuard

from tenfold.errors import OutputError, Refusal
from tenfold.types import Estimate, PredictionTable

ALTERED = "altered"


@dataclass(frozen=True)
class Run:
    """What a run folder holds, about one of its targets. A part that is missing or unreadable is empty.

    A run with several targets is read as that of the first one; `each` gives all of them, `others` the further ones.

    Attributes:
        folder: The run folder.
        facts: run.json; its "target" is the one that this is about.
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
        permutations: permutations.json of this target, `{arm: {"p", "n", "observed", "null_mean", "null_high"}}`.
        optimism: optimism.json, `{target: {"apparent", "out_of_fold", "optimism", "method", "n"}}`.
        learning_curve: learning_curve.json, `{target: [{"share", "patients", "auc"}]}`.
        readers: readers.json: human readers on the cases of this folder.
        all_classes: classes.json, `{target: {"classes", "arms", "comparisons"}}`: targets of three classes or more.
        grid: grid.json, `{target: {"comparisons": [...]}}`: paired tests between cells of a grid of arms.
        sites: sites.json, `{"by", target: [{"site", "n", metric}], "overall": {target: {metric}}}`: each hospital
            left out in turn.
        operating_points: Rows of operating_points.csv.
        author: author.toml.
        study: study.toml as text.
        predictions: Prediction tables by target.
        problems: One sentence a part that is there and cannot be read.
        externals: The external sets that the frozen model was tried on in this run, by name.
        others: The same run about each further target.
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
    permutations: dict[str, Any]
    optimism: dict[str, Any]
    learning_curve: dict[str, Any]
    readers: dict[str, Any]
    all_classes: dict[str, Any]
    grid: dict[str, Any]
    sites: dict[str, Any]
    operating_points: list[dict[str, str]]
    author: dict[str, Any]
    study: str
    predictions: dict[str, PredictionTable]
    problems: tuple[str, ...]
    externals: dict[str, Run]
    others: tuple[Run, ...] = field(default=(), repr=False)

    @property
    def each(self) -> tuple[Run, ...]:
        """The run a target at a time, in the order of the study."""
        return (self, *self.others)

    @property
    def several(self) -> bool:
        """Whether the run has more than one target."""
        return len(targets_of(self.facts)) > 1

    @property
    def first(self) -> bool:
        """Whether this is about the first of the run's targets."""
        named = [str(t.get("name") or "") for t in targets_of(self.facts)]
        return not named or self.target == named[0]

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
    def elsewhere_in_grid(self) -> set[str]:
        """Cells of a grid of another network or start than the proposed arm: their own section shows them."""
        found = [c for c in (self.facts.get("grid") or {}).get("cells") or [] if isinstance(c, dict)]
        own = next(((c.get("network"), c.get("start")) for c in found if c.get("arm") == self.proposed), None)
        return {str(c.get("arm")) for c in found if (c.get("network"), c.get("start")) != own}

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

    def learned(self) -> list[tuple[float, float, Estimate]]:
        """Return the learning curve: share of the training patients, how many they are, AUC; only what was fitted."""
        points = [p for p in self.learning_curve.get(self.target) or [] if readable(p.get("auc"))]
        return [(float(p["share"]), float(p["patients"]), Estimate.from_dict(p["auc"])) for p in points]

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


def targets_of(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what run.json says of each target; a run from before there were several has one."""
    held = facts.get("targets") or [facts.get("target")]
    return [dict(target) for target in held if isinstance(target, dict)]


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
    run = Run(
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
        permutations=_read(folder, "permutations.json", _json, {}, problems),
        optimism=_read(folder, "optimism.json", _json, {}, problems),
        learning_curve=_read(folder, "learning_curve.json", _json, {}, problems),
        readers=_read(folder, "readers.json", _json, {}, problems),
        all_classes=_read(folder, "classes.json", _json, {}, problems),
        grid=_read(folder, "grid.json", _json, {}, problems),
        sites=_read(folder, "sites.json", _json, {}, problems),
        operating_points=_read(folder, "operating_points.csv", _rows, [], problems),
        author=_read(folder, "author.toml", _toml, {}, problems),
        study=_read(folder, "study.toml", _text, "", problems),
        predictions=_predictions(folder, problems),
        externals=_externals(folder, problems),
        problems=tuple(problems),
    )
    first, *others = [str(t.get("name") or "") for t in targets_of(facts)] or [run.target]
    return replace(_about(run, first), others=tuple(_about(run, name) for name in others))


def _about(run: Run, name: str) -> Run:
    """Return a run as that of one of its targets. What was written without a target's name belongs to the first."""
    targets = targets_of(run.facts)
    names = [str(t.get("name") or "") for t in targets]
    target = next((t for t in targets if t.get("name") == name), {"name": name} if name else {})
    first = not names or name == names[0]

    def own(held: dict[str, Any]) -> dict[str, Any]:
        wrapped = held and set(held) <= set(names) and all(isinstance(v, dict) for v in held.values())
        if wrapped and not any("levels" in v for v in held.values()):
            return dict(held.get(name) or {})
        return held if first else {}

    outcome = (run.cohort.get("outcomes") or {}).get(name) or {}
    return replace(
        run,
        facts={**run.facts, "target": target, "simulated": _simulated(run.facts.get("simulated"), target, first)}
        if targets
        else run.facts,
        cohort={**run.cohort, **outcome},
        explanations=run.explanations if first else {},
        subgroups=own(run.subgroups),
        conformal=own(run.conformal),
        sample_size=own(run.sample_size),
        permutations=own(run.permutations),
        readers=run.readers if run.readers.get("target", names[0] if names else name) == name else {},
        operating_points=[row for row in run.operating_points if row.get("target", name) == name],
        externals={place: _of(other, name) for place, other in run.externals.items()},
        others=(),
    )


def _of(run: Run, name: str) -> Run:
    """Return an external set as that of one target; one that does not have it is left as it is read."""
    return next((view for view in run.each if view.target == name), run)


def _simulated(held: Any, target: Mapping[str, Any], first: bool) -> Any:
    """Return what a simulator says with the ceilings of one target as numbers; plain ones are those of the first.

    Where it has figures of all classes together, its plain ceilings are of these, and not of the yes or no.
    """
    if (held or {}).get("ceiling_figures"):
        return {
            **held,
            "ceilings": {},
            "ceiling_auc": None,
            "ceiling_figures": held["ceiling_figures"] if first else {},
        }
    ceilings = (held or {}).get("ceilings") or {}
    if not any(isinstance(c, dict) for c in ceilings.values()):
        return held if first or not held else {**held, "ceilings": {}, "ceiling_auc": None}
    own = {}
    for seen, by_target in ceilings.items():
        found = by_target.get(target.get("name")) or by_target.get(target.get("column")) or {}
        if isinstance(found.get("auc"), int | float):
            own[seen] = found["auc"]
    return {**held, "ceilings": own, "ceiling_auc": own.get("both")}


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
