"""The bootstrap by patient: one set of draws for all measures, arms and paired differences.

It must not know which measures are drawn: a measure turns (draws, cases) weights into (draws,) values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from tenfold.errors import StatisticsError
from tenfold.stats.sample import Sample, repeats_note, unit
from tenfold.types import Estimate, FloatArray

Measure = Callable[[FloatArray], FloatArray]
Draws = NDArray[np.int32]

_CHUNK = 2**19
FEWEST = 20
_AFFORDABLE, _FEWEST_COSTLY = 1_250_000, 200


def draw(patients: int, bootstraps: int, seed: int) -> Draws:
    """Draw patients with replacement, all their cases with them.

    Not stratified by outcome: that would hold the prevalence fixed, and make the interval of everything that depends
    on it too narrow (of calibration in the large by half). A draw that lost a class has no value, and is
    counted.

    Args:
        patients: How many there are.
        bootstraps: How many draws.
        seed: Same seed, same draws.

    Returns:
        (bootstraps, patients) how often each patient was drawn.

    Raises:
        StatisticsError: A negative number of draws.
    """
    if bootstraps < 0:
        raise StatisticsError(
            f"{bootstraps} bootstrap draws", expected="0 (no such intervals) or more, for example 1000"
        )
    random = np.random.default_rng(seed)
    picked = random.integers(0, patients, (bootstraps, patients), dtype=np.int32)
    counts = np.zeros((bootstraps, patients), np.int32)
    for row, drawn in enumerate(picked):
        counts[row] = np.bincount(drawn, minlength=patients)
    return counts


def affordable(draws: Draws, cases: int) -> Draws:
    """Keep as many draws, never below 200, as a costly measure can go through in about a second.

    Args:
        draws: What `draw` returned.
        cases: Rows of one draw.
    """
    return draws[: max(_FEWEST_COSTLY, _AFFORDABLE // cases)]


def replicate(samples: Sequence[Sample], measures: Sequence[Sequence[Measure]], draws: Draws) -> FloatArray:
    """Compute measures in every draw, averaged over repeats.

    Args:
        samples: One a repeat.
        measures: A repeat's measures, the same ones in every repeat.
        draws: What `draw` returned.

    Returns:
        (measures, draws); NaN where a draw cannot give the measure.
    """
    total = np.zeros((len(measures[0]), len(draws)))
    for sample, of_sample in zip(samples, measures, strict=True):
        for part, weights in _weights(sample, draws):
            for row, measure in enumerate(of_sample):
                total[row, part] += measure(weights)
    return total / len(samples)


def replicate_curve(sample: Sample, curve: Measure, points: int, draws: Draws) -> FloatArray:
    """Compute a curve in every draw.

    Args:
        sample: The cases.
        curve: (draws, cases) weights -> (draws, points).
        points: How many points it has.
        draws: What `draw` returned.

    Returns:
        (draws, points).
    """
    drawn = np.empty((len(draws), points))
    for part, weights in _weights(sample, draws):
        drawn[part] = curve(weights)
    return drawn


def _weights(sample: Sample, draws: Draws) -> Iterator[tuple[slice, FloatArray]]:
    """Case weights of a few draws at a time, so that memory stays bounded."""
    step = max(1, _CHUNK // max(1, len(sample)))
    for start in range(0, len(draws), step):
        part = slice(start, start + step)
        yield part, draws[part, sample.patient].astype(np.float64)


def percentile(value: float, drawn: FloatArray, *, patients: int, cases: int, repeats: int, note: str = "") -> Estimate:
    """Return a value with the 95 % percentile interval of its draws; draws without a value are counted.

    Args:
        value: The estimate in the data themselves.
        drawn: (draws,) the estimate in every draw.
        patients: Patients it rests on.
        cases: Cases it rests on.
        repeats: Over how many repeats it was averaged.
        note: What else the method must say.
    """
    low, high, name = percentile_ends(drawn)
    extra = f", {note}" if note else ""
    method = f"{name}{extra}{repeats_note(repeats)}; {unit(patients, cases)}"
    return Estimate(value, low, high, method, patients)


def percentile_ends(drawn: FloatArray) -> tuple[float, float, str]:
    """Return both ends and the name of the interval, or say why there is none."""
    usable = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return math.nan, math.nan, "no interval: no bootstrap draws were asked for"
    if len(usable) < max(FEWEST, len(drawn) / 2):
        return (
            math.nan,
            math.nan,
            f"no interval: only {len(usable)} of {len(drawn)} bootstrap draws have a value",
        )
    low, high = np.quantile(usable, [0.025, 0.975])
    if high - low < 1e-12:
        return (
            math.nan,
            math.nan,
            f"no interval: all {len(usable)} bootstrap draws of patients give the same value",
        )
    dropped = f" ({len(drawn) - len(usable)} without a value left out)" if len(usable) < len(drawn) else ""
    return float(low), float(high), f"patient bootstrap, {len(drawn)} draws{dropped}, percentile, 95 %"
