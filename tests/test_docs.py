"""The documentation fails when it lies: generated pages are current, links and names exist, marked blocks run.

A block runs where the line before it says `<!-- run -->`, or `<!-- run: 1 -->` where exit code 1 is expected. The
blocks of a page run in order in one folder, and share their Python names. In a console block only lines that start with
`$ ` are commands; every other line must be among what they print.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from tests.serve.fake import png
from tests.serve.serving import running

from tenfold.cli import app
from tenfold.errors import Refusal

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^<!-- run(?:: (?P<code>\d))? -->\n```(?P<kind>\w+)\n(?P<text>.*?)^```", re.M | re.S)
SERVING = ROOT / "docs/how-to/serve.md"
HEAVY = ("first-study.md",)


def _leaves(group: Any, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """Every command that does something, under its full name: "run", "log verify"."""
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        path = (*above, name)
        found |= _leaves(command, path) if hasattr(command, "commands") else {" ".join(path): command}
    return found


COMMANDS = _leaves(typer.main.get_command(app))
GROUPS = {name.split()[0] for name in COMMANDS if " " in name}
by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
RUNNABLE = [
    pytest.param(page, marks=[pytest.mark.slow] if page.name in HEAVY else [], id=page.name)
    for page in PAGES
    if BLOCK.search(page.read_text("utf-8"))
]


def test_generated_pages_are_current() -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    assert generate.stale() == [], "run `make docs`"


@by_page
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8")):
        if not re.match(r"https?:", target):
            assert (page.parent / target).exists(), target


def test_every_page_can_be_reached_from_the_map() -> None:
    linked = set(re.findall(r"\]\(([^)#]+)\)", (ROOT / "docs/index.md").read_text("utf-8")))
    folders = ("tutorial", "how-to", "reference", "explanation")
    there = {str(p.relative_to(ROOT / "docs")) for folder in folders for p in (ROOT / "docs" / folder).glob("*.md")}
    assert there <= linked


@by_page
def test_commands_and_options_exist(page: Path) -> None:
    # only code counts: in running prose "tenfold checks" is a sentence
    text = page.read_text("utf-8")
    code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, re.S))
    for verb, rest in re.findall(r"(?:^|[`$ ])tenfold ([\w-]+)([^\n`]*)", code, re.M):
        if verb in GROUPS:
            word, _, rest = rest.strip().partition(" ")
            if not word:
                continue  # the group as such
            verb = f"{verb} {word}"
        assert verb in COMMANDS, verb
        known = {name for p in COMMANDS[verb].params for name in (*p.opts, *p.secondary_opts)} | {"--help"}
        for option in re.findall(r"(?<!\S)--[a-z-]+", rest):
            assert option in known, f"tenfold {verb} {option}"
    everything = {name for c in COMMANDS.values() for p in c.params for name in (*p.opts, *p.secondary_opts)}
    for option in re.findall(r"`(--[a-z-]+)", text):
        assert option in everything | {"--check"}, option


@by_page
def test_dotted_names_exist(page: Path) -> None:
    for name in re.findall(r"\btenfold(?:\.[A-Za-z_]\w*)+", page.read_text("utf-8")):
        assert _exists(name), name


def _exists(name: str) -> bool:
    """Whether a dotted name is a module, or what a module holds."""
    parts = name.split(".")
    found: Any = importlib.import_module(parts[0])
    for i, part in enumerate(parts[1:], start=2):
        if not hasattr(found, part):
            if importlib.util.find_spec(".".join(parts[:i])) is None:
                return False
            importlib.import_module(".".join(parts[:i]))
        found = getattr(found, part)
    return True


@by_page
def test_no_path_of_a_machine_is_named(page: Path) -> None:
    assert not re.search(r"(?<![\w.:/])/(?:home|work|root|Users|tmp|mnt)/", page.read_text("utf-8"))


@pytest.mark.parametrize("page", RUNNABLE)
def test_marked_blocks_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    threads = torch.get_num_threads()
    try:
        for block in BLOCK.finditer(page.read_text("utf-8")):
            if block["kind"] == "python":
                exec(compile(block["text"], page.name, "exec"), names)
            else:
                _run_console(block["text"], int(block["code"] or 0), capsys)
    finally:
        torch.set_num_threads(threads)


def test_the_client_of_the_api_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "node.png").write_bytes(png())
    (text,) = re.findall(r"^<!-- serve -->\n```python\n(.*?)^```", SERVING.read_text("utf-8"), re.M | re.S)
    with running(tmp_path) as port:
        exec(compile(text.replace(":8000", f":{port}"), SERVING.name, "exec"), {})
    assert capsys.readouterr().out.startswith("True []")


def _run_console(text: str, expected: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Run the commands of a block in this process, and look for the lines that the page promises."""
    lines = text.splitlines()
    commands = [shlex.split(line[2:]) for line in lines if line.startswith("$ ")]
    assert commands, "a console block without a command"
    capsys.readouterr()
    refused = ""
    for program, *arguments in commands:
        assert program == "tenfold", f"only tenfold is run here, not {program}"
        try:
            code = app(arguments, standalone_mode=False) or 0
        except Refusal as refusal:
            code, refused = 1, f"tenfold: {refusal}"
        assert code == expected, f"{' '.join(arguments)}: {refused}"
    printed = capsys.readouterr().out + refused
    for line in lines:
        if not line.startswith("$ "):
            assert line in printed, line
