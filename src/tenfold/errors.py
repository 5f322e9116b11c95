"""The refusals: what tenfold says when it will not go on.

It knows nothing of the rest of the package.

Every refusal derives from `Refusal` and carries three sentences: what came, what was expected, what to do next.
The command line turns one into exit code 1; anything else that is raised is a defect of ours::

    Refusal
    ├── StudyError        the study file: an unknown key, an impossible value
    ├── CohortError       the cohort file: a column, a row, a label
    ├── ImageError        one picture: missing, truncated, blank, a bomb, the wrong modality
    ├── AuditError        findings that must be mended before anything is fitted
    ├── SplitError        the patients cannot be divided as asked
    ├── EncoderError      an encoder or its weights
    ├── TrainingError     a stage that cannot run, or whose loss is no longer a number
    ├── StatisticsError   a figure that these predictions cannot give
    ├── BundleError       a bundle that is foreign, tampered with or too new
    ├── ServeError        the server: a start that is not safe, a users file, a log, an upload
    └── OutputError       a folder that cannot be written, or that holds somebody's work
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class Refusal(Exception):
    """A clear no: what came, what was expected, what to do.

    Args:
        came: What was found, in words, with the offending value.
        expected: What would have been right. May be empty where `came` says it.
        do: What the user can do next. May be empty where nothing can be done.
        where: The place: file, row, column, patient.
    """

    def __init__(self, came: str, *, expected: str = "", do: str = "", where: str = "") -> None:
        self.came, self.expected, self.do, self.where = came, expected, do, where
        parts = [f"{where}: {came}" if where else came]
        if expected:
            parts.append(f"Expected: {expected}")
        if do:
            parts.append(f"What to do: {do}")
        super().__init__("\n".join(part.rstrip(".") + "." if part[-1:].isalnum() else part for part in parts))


class StudyError(Refusal):
    """The study file holds an unknown key or an impossible value."""


class CohortError(Refusal):
    """The cohort file lacks a column, or a row of it cannot be read."""


class ImageError(Refusal):
    """A picture cannot be read, or must not be."""


class AuditError(Refusal):
    """The audit found what must be mended before anything is fitted."""


class SplitError(Refusal):
    """The patients cannot be divided as asked."""


class EncoderError(Refusal):
    """An encoder is unknown, or its weights do not fit."""


class TrainingError(Refusal):
    """A stage cannot run, or its loss is no longer a number."""


class StatisticsError(Refusal):
    """A figure cannot be computed from these predictions."""


class BundleError(Refusal):
    """A bundle is foreign, was tampered with, or is of a newer format."""


class ServeError(Refusal):
    """The server must not start like this, or cannot take what it is given."""


class OutputError(Refusal):
    """A place cannot be written to, or holds somebody's work."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Say which known names come nearest to an unknown one, as the end of a sentence.

    Args:
        name: The unknown name.
        known: The names there are.

    Returns:
        "did you mean 'x'?" where something is near, otherwise the list of all names.
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else f"choose one of: {', '.join(known)}"
