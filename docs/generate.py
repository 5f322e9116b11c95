"""Writes the pages of docs/reference that the code itself can tell; `--check` only says which of them are stale.

It must not know what any of it means: every word comes from models, docstrings and help texts.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from tenfold import config, errors
from tenfold.cli import app
from tenfold.encoders import ENCODERS
from tenfold.report.words import METRICS as SHOWN
from tenfold.stats.class_metrics import CLASS_METRICS
from tenfold.stats.classes import BY_CLASS, COMPARED
from tenfold.stats.metrics import METRICS

FOLDER = Path(__file__).parent / "reference"
NOTE = "<!-- written by docs/generate.py: change the code, then run `make docs` -->\n"
SECTIONS = [model for model in vars(config).values() if getattr(model, "section", "")]
BOOTSTRAP = "bootstrap by patient"
INTERVALS = {"delong": "DeLong", "wilson": "Wilson", "bootstrap": BOOTSTRAP}
LISTS = ("eligibility", "stages", "arms", "validation.subgroups", "external")
STUDY = """# The study file

Only `target` is required; `target = "diagnosis"` is short for its column. A key that the file leaves out comes from the
preset, then from the default given here. Editors read [study.schema.json](study.schema.json).
"""
METRIC = """# Metrics

Each is written to `evaluation.json` with its value, the ends of its 95 % interval, the method in words and n. Where a
patient has several cases, DeLong becomes its clustered form (Obuchowski 1997) and Wilson takes an effective n (Rao &
Scott 1992). A metric that the data cannot give has no value, and its method says why.

The group says where the report puts it: `improper` comes last, because it can reward a worse model.
"""
CLASSES = """
## Three classes or more

Over all classes together, in `classes.json`. What is decided is the likeliest class. A macro figure gives every class
the same weight, however rare it is.
"""


def study() -> str:
    """The keys of study.toml table by table, and the presets word for word."""
    parts = [STUDY, "## Top of the file\n", _keys(config.StudyFile, {s.section.split(".")[0] for s in SECTIONS})]
    kinds = {model: kind for kind, model in config.INPUT_KINDS.items()}
    for model in SECTIONS:
        heading = f"`[[{model.section}]]`" if model.section in LISTS else f"`[{model.section}]`"
        heading += f' with `kind = "{kinds[model]}"`' if model in kinds else ""
        inherited = set(config.TrainingSection.model_fields) if model is config.StageSection else set()
        parts += [f"\n## {heading}\n", f"{inspect.getdoc(model)}\n", _keys(model, inherited)]
        if inherited:
            parts.append("\nAnd every key of `[training]`, for this stage alone.")
    parts.append("\n## What the presets set")
    files = {name: f"{name}.toml" for name in config.PRESETS if name != "paper"}
    files |= {f'paper" with system = "{system}': file for system, file in config.SYSTEMS.items()}
    parts += [f'\n`preset = "{n}"`\n\n```toml\n{config.builtin_study_text(f).strip()}\n```' for n, f in files.items()]
    return "\n".join(parts) + "\n"


def _keys(model: Any, skip: set[str]) -> str:
    schema, rows = model.model_json_schema(), []
    for name, entry in schema["properties"].items():
        if name not in skip:
            default = "required" if name in schema.get("required", ()) else _value(entry.get("default"))
            rows.append([f"`{name}`", _type(entry), default, entry.get("description", "")])
    return _table(["key", "type", "default", "meaning"], rows)


def _type(entry: Mapping[str, Any]) -> str:
    """Say the type of a JSON schema entry in a few words."""
    if "anyOf" in entry:
        return " or ".join(word for part in entry["anyOf"] if (word := _type(part)))
    if "enum" in entry or "const" in entry:
        return ", ".join(f"`{json.dumps(v)}`" for v in entry.get("enum", [entry.get("const")]))
    if entry.get("type") == "array":
        return f"list of {_type(entry['items'])}s"
    kinds = {"string": "text", "integer": "whole number", "boolean": "`true` or `false`"}
    word = {**kinds, "object": "table", "null": ""}.get(kind := entry.get("type", "object"), kind)
    signs = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    return ", ".join([word, *(f"{sign} {entry[key]:.10g}" for key, sign in signs.items() if key in entry)])


def _value(value: Any) -> str:
    value = str(value) if isinstance(value, Path) else value
    if isinstance(value, Mapping) and value:
        return f"`{{ {', '.join(f'{k} = {json.dumps(v)}' for k, v in value.items() if v is not None)} }}`"
    return f"`{json.dumps(value)}`" if value or isinstance(value, int | float) else "-"


def commands() -> str:
    """Every command with its arguments and options."""
    parts = ["# Commands\n\nExit code 0: done. 1: refused, with the reason. 2: bad usage. 130: interrupted.\n"]
    for name, command in _leaves(typer.main.get_command(app)):
        rows = [[_called(p), "required" if p.required else _value(p.default), p.help or ""] for p in command.params]
        table = _table(["argument or option", "default", "meaning"], rows) if rows else "No options."
        parts.append(f"## tenfold {name}\n\n{inspect.cleandoc(command.help)}\n\n{table}\n")
    return "\n".join(parts)


def _leaves(group: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Every command that does something, under its full name."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _leaves(command, f"{above}{name} ")
        else:
            yield above + name, command


def _called(p: Any) -> str:
    names = [p.name.upper()] if p.param_type_name == "argument" else [*p.opts, *p.secondary_opts]
    return ", ".join(f"`{name}`" for name in names) + (" ..." if p.nargs == -1 or p.multiple else "")


def metrics() -> str:
    """Every metric, its interval and where the report puts it."""
    rows = [
        [f"`{name}`", m.title, m.definition, INTERVALS[m.interval], "yes" if m.compared else "no", SHOWN[name].group]
        for name, m in METRICS.items()
    ]
    head = ["key", "name", "what it is", "interval", "arms compared", "group"]
    together = [
        [f"`{name}`", m.title, m.definition, "Wilson" if m.hits else BOOTSTRAP, "yes" if name in COMPARED else "no"]
        for name, m in CLASS_METRICS.items()
    ]
    listed = ", ".join(f"`{name}`" for name in BY_CLASS)
    return (
        "\n".join(
            [
                METRIC,
                _table(head, rows),
                CLASSES,
                _table(head[:-1], together),
                f"\nOf each class against the rest: {listed}.",
            ]
        )
        + "\n"
    )


def encoders() -> str:
    """Every encoder with its options."""
    parts = ["# Encoders\n\nNamed by `encoder` under `[inputs.<name>]`; `options` holds what is no key there.\n"]
    for name, made in ENCODERS.items():
        prose, _, rest = (inspect.getdoc(made) or "").partition("\nArgs:\n")
        defaults = {option: parameter.default for option, parameter in inspect.signature(made).parameters.items()}
        found = re.findall(r"^    (\w+): (.*(?:\n {8,}.*)*)", rest.partition("\nRaises:")[0], re.M)
        shown = {o: "required" if d is inspect.Parameter.empty else f"`{d!r}`" for o, d in defaults.items()}
        rows = [[f"`{o}`", shown[o], " ".join(text.split())] for o, text in found]
        parts.append(f"## {name}\n\n{prose.strip()}\n\n{_table(['option', 'default', 'meaning'], rows)}\n")
    return "\n".join(parts)


def refusals() -> str:
    """The tree of refusals."""
    said, _, tree = inspect.cleandoc(errors.__doc__ or "").partition("::\n")
    return f"# Refusals\n\n{said}:\n\n```\n{inspect.cleandoc(tree)}\n```\n"


def _table(header: list[str], rows: list[list[str]]) -> str:
    cells = [[cell.replace("|", "\\|").replace("<", "&lt;") for cell in line] for line in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *cells])


PAGES: dict[str, Callable[[], str]] = {
    "study.md": study, "commands.md": commands, "metrics.md": metrics, "encoders.md": encoders, "errors.md": refusals,
}  # fmt: skip


def stale() -> list[str]:
    """Name the pages that differ from what the code says."""
    there = {path.name: path.read_text("utf-8") for path in FOLDER.glob("*.md")}
    return [name for name, write in PAGES.items() if there.get(name) != NOTE + write()]


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        sys.exit(f"stale: {', '.join(old)}; run `make docs`" if (old := stale()) else 0)
    for page, write in PAGES.items():
        (FOLDER / page).write_text(NOTE + write(), "utf-8")
