"""Means over cases with an interval that goes by patient.

It must not know what is averaged.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tenfold.types import Estimate, FloatArray, IntArray

_REPLICATES = 2000


def patient_numbers(patients: Sequence[str] | None, n: int) -> IntArray:
    """Number the patients, one number a case.

    Args:
        patients: n names; None where every case is its own patient.
        n: Cases.
    """
    if patients is None:
        return np.arange(n)
    return np.asarray(np.unique(np.asarray(patients), return_inverse=True)[1], np.int64)


def mean_by_patient(values: FloatArray, patients: IntArray, seed: int, what: str) -> Estimate:
    """Mean over cases; patients are drawn for the interval, which takes two of them at least.

    Args:
        values: (n,).
        patients: (n,) numbers.
        seed: Of the bootstrap.
        what: What the mean is of, for the method.
    """
    _, index = np.unique(patients, return_inverse=True)
    sums, counts = np.bincount(index, weights=values), np.bincount(index)
    n, value = len(sums), float(values.mean())
    if n < 2:
        return Estimate(value, np.nan, np.nan, f"{what}; one patient, so no interval", n)
    drawn = np.random.default_rng(seed).integers(0, n, size=(_REPLICATES, n))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    method = f"{what}; percentile bootstrap 95 % by patient, {_REPLICATES} replicates, n = patients"
    return Estimate(value, float(low), float(high), method, n)
