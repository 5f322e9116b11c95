"""Cohorts on disk with known truth, one file a disease.

It must not know any study, network or statistic: a simulator writes files and says what the best reader can reach.
"""

from __future__ import annotations

from collections.abc import Callable

from tenfold.simulate import pneumonia
from tenfold.simulate.pneumonia import Simulated

__all__ = ["SIMULATORS", "Simulated"]

SIMULATORS: dict[str, Callable[..., Simulated]] = {"pneumonia": pneumonia.simulate}
"""Name on the command line -> the function that writes the cohort."""
