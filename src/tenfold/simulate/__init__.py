"""Cohorts on disk with known truth, one file a disease.

It must not know any study, network or statistic: a simulator writes files and says what the best reader can reach.
"""

from __future__ import annotations

from collections.abc import Callable

from tenfold.simulate import lymphnode, nec, neurodevelopment, pneumonia
from tenfold.simulate.lymphnode import SimulatedLymphNode
from tenfold.simulate.nec import SimulatedNec
from tenfold.simulate.neurodevelopment import SimulatedNeurodevelopment
from tenfold.simulate.pneumonia import Simulated

__all__ = ["SIMULATORS", "Simulated", "SimulatedLymphNode", "SimulatedNec", "SimulatedNeurodevelopment"]

SIMULATORS: dict[str, Callable[..., Simulated | SimulatedLymphNode | SimulatedNec | SimulatedNeurodevelopment]] = {
    "lymphnode": lymphnode.simulate,
    "nec": nec.simulate,
    "neurodevelopment": neurodevelopment.simulate,
    "pneumonia": pneumonia.simulate,
}
"""Name on the command line -> the function that writes the cohort."""
