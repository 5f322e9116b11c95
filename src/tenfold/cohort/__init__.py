"""The patients on disk: their file, the audit before anything is fitted, and how they are divided.

It must not know networks, nor how anything is fitted.
"""

from tenfold.cohort.manifest import Cohort

__all__ = ["Cohort"]
