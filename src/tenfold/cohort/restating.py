"""Finds columns that restate the outcome: what was written down after the answer was known, or because of it.

It must not know which columns a study uses, nor judge: it says how a column tells the outcome, and how well.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from tenfold.cohort.without_looking import Fact, blind_auc
from tenfold.types import Estimate, StrArray

RESTATING_AUC = 0.98
STRONG_AUC = 0.8
# Words of a verdict: of what is only known, or only decided, once the question is answered.
_VERDICT_NAMES = re.compile(
    r"diagnos|histolog|patholog|biops|bi.?rads|interpret|verif|impression|conclusion|outcome|adjudicat|ground.?truth",
    re.IGNORECASE,
)
_VERDICT_CELLS = re.compile(r"diagnos|histolog|patholog|biops|confirmed", re.IGNORECASE)
_OFTEN = 0.1
# Class names that many columns use in another sense.
_GENERIC = {"normal", "abnormal", "positive", "negative", "healthy", "control", "case", "present", "absent", "other"}
_SHORTEST_NAME = 4
_LEAST_RARE = 5
_STRANGERS = 0.05
_ONE_CLASS_CASES = 20
_ONE_CLASS_P = 1e-6


@dataclass(frozen=True)
class Telling:
    """How a column tells the outcome.

    Attributes:
        auc: Of the column alone, cross-validated.
        restates: Why it restates the outcome, in words; empty where nothing says so.
        one_class: A word that stands for one class only in many cases, in words; empty where there is none.
    """

    auc: Estimate
    restates: str = ""
    one_class: str = ""

    @property
    def strong(self) -> bool:
        """Whether it tells the outcome nearly alone: a question to its owner, not an accusation."""
        return self.auc.low > STRONG_AUC


def how_it_tells(
    name: str, fact: Fact, positive: NDArray[np.bool_], patients: StrArray, classes: Sequence[str]
) -> Telling:
    """Say how a column tells the outcome.

    It restates it where it alone separates the classes (AUC above 0.98); where nearly every repeated word
    stands for one class, as diagnoses do however many there are; or where its name or its cells speak of a verdict
    (diagnosis, biopsy, BI-RADS, the classes themselves) and it tells the classes apart better than chance.

    Args:
        name: Of the column.
        fact: (n,) numbers with NaN, or words, empty where missing.
        positive: (n,) true for the positive class.
        patients: (n,) who was examined.
        classes: Names of the classes.
    """
    auc = blind_auc([fact], positive, patients)
    if math.isnan(auc.value):
        return Telling(auc)
    words = fact if fact.dtype.kind == "U" else np.empty(0, np.str_)
    counts = _by_word(words.tolist(), positive)
    return Telling(auc, _why(name, auc, words.tolist(), counts, classes), _one_class(counts, positive, classes))


def _why(
    name: str, auc: Estimate, words: Sequence[str], counts: dict[str, tuple[int, int]], classes: Sequence[str]
) -> str:
    """Why a column restates the outcome."""
    if auc.value > RESTATING_AUC:
        return "it alone separates the classes"
    repeated = [pair for pair in counts.values() if sum(pair) > 1]
    rarer = min(sum(pair[k] for pair in repeated) for k in (0, 1)) if repeated else 0
    strangers = sum(min(pair) for pair in repeated)
    if rarer >= _LEAST_RARE and strangers <= _STRANGERS * rarer:
        return (
            f"nearly every word in it stands for one class ({strangers} of {sum(map(sum, repeated))} cases do not fit)"
        )
    if auc.low <= 0.5:
        return ""
    if (found := _VERDICT_NAMES.search(name)) is not None:
        return f"its name speaks of a verdict ('{found[0]}')"
    said = Counter(word for cell in words if cell for word in set(_verdict_words(cell, classes)))
    often = [word for word, count in said.items() if count > _OFTEN * sum(1 for cell in words if cell)]
    return f"its cells speak of a verdict ('{often[0]}')" if often else ""


def _verdict_words(cell: str, classes: Iterable[str]) -> Iterator[str]:
    """Words of a verdict in a cell, class names among them."""
    yield from (found.lower() for found in _VERDICT_CELLS.findall(cell))
    for name in classes:
        telling = len(name) >= _SHORTEST_NAME and name.lower() not in _GENERIC
        if telling and re.search(rf"\b{re.escape(name)}\b", cell, re.IGNORECASE):
            yield name


def _by_word(words: Sequence[str], positive: NDArray[np.bool_]) -> dict[str, tuple[int, int]]:
    """Word -> how often it stands in a (negative, positive) case; empty cells left out."""
    counts = Counter(zip(words, positive.tolist(), strict=True)) if words else Counter()
    return {word: (counts[word, False], counts[word, True]) for word in sorted({w for w, _ in counts}) if word}


def _one_class(counts: dict[str, tuple[int, int]], positive: NDArray[np.bool_], classes: Sequence[str]) -> str:
    """The commonest word that stands in one class only, more often than chance would have it."""
    found = []
    for word, pair in counts.items():
        k = int(pair[1] > 0)
        total = int(positive.sum()) if k else int((~positive).sum())
        if min(pair) == 0 and max(pair) >= _ONE_CLASS_CASES and _all_by_chance(max(pair), total, len(positive)):
            found.append((max(pair), word, classes[k]))
    if not found:
        return ""
    cases, word, name = max(found)
    return f"all {cases} cases with '{word}' are {name}"


def _all_by_chance(drawn: int, of_class: int, n: int) -> bool:
    """Whether it is too unlikely that all cases drawn from n are among those of one class."""
    log_p = gammaln(of_class + 1) - gammaln(of_class - drawn + 1) - gammaln(n + 1) + gammaln(n - drawn + 1)
    return bool(log_p < math.log(_ONE_CLASS_P))
