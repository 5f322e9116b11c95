"""Whether what a case brings may be asked about: checks before the model, in words.

It must not know networks, and it changes nothing: a verdict goes with the answer, or there is none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tenfold.errors import CohortError
from tenfold.modalities.image import ImagePreparation
from tenfold.modalities.table import Column, TablePreparation, TableReading, implausible, read_table
from tenfold.serve.answer import Check, Verdict
from tenfold.serve.decode import Decoded
from tenfold.types import FloatArray

_FEWEST_PIXELS = 8
# shares of coloured pixels: callipers and burned-in text stay below the first, a photograph is above the second
_SOME_COLOUR, _MUCH_COLOUR = 0.02, 0.2
_A_COLOUR = 0.001


def picture_checks(
    name: str,
    place: int,
    decoded: Decoded,
    preparation: ImagePreparation,
    *,
    known: bool,
    training: Mapping[str, Any],
) -> list[Check]:
    """Look at one picture.

    Args:
        name: The input.
        place: Which of its pictures.
        decoded: What came of the file.
        preparation: Of the input.
        known: Whether the very file was among those that the model comes from.
        training: What is known of the training pictures: "modalities" (DICOM) and "coloured", the 1st and 99th
            percentile of the share of coloured pixels; a key that is absent is not checked against.

    Returns:
        "readable" first, then what is odd.
    """
    facts = decoded.facts
    kind = f"{facts.get('format', '')} {facts.get('modality', '')}".strip()
    found = [("readable", "good", f"{kind}, {facts['width']} x {facts['height']} pixels")]
    found += _modality(str(facts.get("modality", "")), training.get("modalities") or ())
    found += _colour(facts["coloured"], preparation, training.get("coloured"))
    if facts["blank"]:
        found.append(("blank", "unusable", "the picture shows nothing: it has next to no contrast"))
    found += _size(min(facts["width"], facts["height"]), preparation.size)
    if known:
        message = "this very file was among the pictures of the study: the answer says nothing about new patients"
        found.append(("known", "doubtful", message))
    return [Check(name, place, check, _verdict(verdict), message) for check, verdict, message in found]


def _verdict(word: str) -> Verdict:
    return "good" if word == "good" else "doubtful" if word == "doubtful" else "unusable"


def _modality(modality: str, expected: Sequence[str]) -> list[tuple[str, str, str]]:
    if not modality or not expected or modality in expected:
        return []
    message = f"the examination is of kind {modality}; the model was made of {', '.join(expected)}"
    return [("modality", "unusable", message)]


def _colour(
    share: float, preparation: ImagePreparation, training: Sequence[float] | None
) -> list[tuple[str, str, str]]:
    """Colour where grey is expected, or the other way round; nothing where nobody knows what is expected."""
    if training is None:
        if preparation.channels != 1:
            return []
        training = (0.0, 0.0)
    low, high = training
    if share > max(_SOME_COLOUR, 2 * high):
        much = share > max(_MUCH_COLOUR, 4 * high)
        message = f"{share:.0%} of the picture is in colour; the model was made of pictures with {high:.0%} at most"
        return [("colour", "unusable" if much else "doubtful", message)]
    if low > _A_COLOUR and share < low / 2:
        message = f"{share:.1%} of the picture is in colour; the model was made of pictures with {low:.1%} at least"
        return [("colour", "unusable" if share < low / 8 else "doubtful", message)]
    return []


def _size(shorter: int, side: int) -> list[tuple[str, str, str]]:
    if shorter < _FEWEST_PIXELS:
        return [("small", "unusable", f"the shorter side has {shorter} pixels: there is nothing to see")]
    if shorter < side / 2:
        return [("small", "doubtful", f"the shorter side has {shorter} pixels; the model looks at {side}")]
    return []


def distribution_checks(
    name: str, place: int | None, *, percentile: float, unusual: bool, foreign: bool, inverted: bool
) -> list[Check]:
    """Say how far a case lies from the training patients.

    Args:
        name: The input.
        place: Its picture, where it has one.
        percentile: Share of the held-out patients of the study's own sites that lie nearer, 0 to 100.
        unusual: Whether few of them lie as far away.
        foreign: Whether none does by far.
        inverted: Whether it is unusual, but its negative is not.
    """
    if inverted:
        message = "black and white look swapped: the negative of this picture fits the study's, the picture does not"
        return [Check(name, place, "inverted", "unusable", message)]
    if foreign:
        message = "this is unlike anything in the study: the model cannot know what it sees"
        return [Check(name, place, "distribution", "unusable", message)]
    message = f"unlike most of the study: {percentile:.0f} % of its patients lie nearer to the training cases"
    return [Check(name, place, "distribution", "doubtful", message)] if unusual else []


def read_row(
    name: str,
    columns: Sequence[Column],
    cells: Mapping[str, str],
    *,
    fitted: TablePreparation,
    training: Mapping[str, Sequence[float]],
) -> tuple[FloatArray | None, list[Check]]:
    """Read the cells of a table and look at the figures.

    Args:
        name: The table.
        columns: What each cell means.
        cells: Column -> text.
        fitted: A preparation of it, which knows what levels training rows held.
        training: Column -> 1st and 99th percentile of the training rows.

    Returns:
        (columns,) figures, NaN where missing, None where a cell cannot be read; and what is odd.
    """
    full = {column.name: cells.get(column.name, "") for column in columns if not column.formula}
    # headings that state a unit, and columns beside that do
    extra = {key: text for key, text in cells.items() if key not in full}
    named = {key.partition(" [")[0] for key in extra if " [" in key}
    given = {key: [text] for key, text in {**full, **extra}.items() if not (key in named and not cells.get(key))}
    try:
        reading = read_table(columns, given, place=_no_place)
    except CohortError as error:
        return None, [Check(name, None, "cell", "unusable", m) for m in _each_wrong(columns, given) or [_said(error)]]
    return reading.values[0], [*_ranges(name, reading, training), *_unseen(name, reading, fitted)]


def _no_place(index: int, column: str) -> str:
    return column


def _said(error: CohortError) -> str:
    text = f"{error.where}: {error.came}" if error.where else error.came
    text += f"; expected: {error.expected}" if error.expected else ""
    return f"{text}; {error.do}" if error.do else text


def _each_wrong(columns: Sequence[Column], given: Mapping[str, Sequence[str]]) -> list[str]:
    """Every cell that cannot be read, not only the first."""
    wrong = []
    for column in columns:
        if column.formula:
            continue
        try:
            read_table((column,), given, place=_no_place)
        except CohortError as error:
            wrong.append(_said(error))
    return wrong


def _ranges(name: str, reading: TableReading, training: Mapping[str, Sequence[float]]) -> list[Check]:
    """Figures outside the plausible limits, or outside of what training rows held."""
    found = []
    outside = implausible(reading)[0]
    for j, column in enumerate(reading.columns):
        value = float(reading.values[0, j])
        if math.isnan(value) or column.kind != "number":
            continue
        shown = f"{column.label or column.name} = {value:g} {column.unit}".rstrip()
        low, high = training.get(column.name, (-math.inf, math.inf))
        if outside[j]:
            limits = _limits(column.low, column.high)
            message = f"{shown} is outside the plausible range ({limits}): check the figure and its unit"
            found.append(Check(name, None, "range", "unusable", message))
        elif not low <= value <= high:
            message = f"{shown} is outside of what 98 % of the training patients had ({_limits(low, high)})"
            found.append(Check(name, None, "range", "doubtful", message))
    return found


def _limits(low: float, high: float) -> str:
    if not math.isfinite(low):
        return f"up to {high:g}"
    return f"{low:g} to {high:g}" if math.isfinite(high) else f"{low:g} or more"


def _unseen(name: str, reading: TableReading, fitted: TablePreparation) -> list[Check]:
    """Levels that no training row held count as missing; say so."""
    found = []
    for column, j, known in zip(fitted.columns, fitted.kept, fitted.known, strict=True):
        value = reading.values[0, j]
        if column.kind in ("category", "yes_no") and not np.isnan(value) and not known[int(value)]:
            message = f"no training patient had {column.label or column.name} = {column.levels[int(value)]}: not used"
            found.append(Check(name, None, "range", "doubtful", message))
    return found


def missing_check(name: str, columns: Sequence[str], label: Callable[[str], str]) -> list[Check]:
    """Note the cells of a table that are empty."""
    if not columns:
        return []
    message = f"not given: {', '.join(map(label, columns))}; the model knows that they are missing"
    return [Check(name, None, "missing", "good", message)]
