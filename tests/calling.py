"""Calls the command as a person does, in this process."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from tenfold.cli import main


@dataclass(frozen=True)
class Done:
    """How a command ended. A defect of ours is no ending: it would fail the test with its own traceback."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def words(self) -> str:
        """What went to the terminal as an error, in one line."""
        return " ".join(self.err.split())


def call(*arguments: object) -> Done:
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["tenfold", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main()
    finally:
        sys.argv = before
    return Done(int(ended.value.code or 0), out.getvalue(), err.getvalue())
