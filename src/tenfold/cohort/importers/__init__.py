"""Public data layouts -> cohort files: one file a layout.

It must not know what a study does with the cohort.
"""

from __future__ import annotations

from collections.abc import Callable

from tenfold.cohort.importers.abide import import_abide
from tenfold.cohort.importers.bids import import_bids
from tenfold.cohort.importers.breast import import_breast
from tenfold.cohort.importers.busi import import_busi
from tenfold.cohort.importers.common import Imported
from tenfold.cohort.importers.folders import import_folders
from tenfold.cohort.importers.kermany import import_kermany
from tenfold.cohort.importers.medmnist import import_medmnist
from tenfold.cohort.importers.nih import import_nih
from tenfold.cohort.importers.redcap import import_redcap
from tenfold.cohort.importers.table import import_table
from tenfold.errors import CohortError, nearest

IMPORTERS: dict[str, Callable[..., Imported]] = {
    "abide": import_abide,
    "bids": import_bids,
    "breast": import_breast,
    "busi": import_busi,
    "folders": import_folders,
    "kermany": import_kermany,
    "medmnist": import_medmnist,
    "nih": import_nih,
    "redcap": import_redcap,
    "table": import_table,
}


def importer(name: str) -> Callable[..., Imported]:
    """Return an importer by name: called with the source, the folder to make, and its own options.

    Raises:
        CohortError: There is none of this name.
    """
    if name not in IMPORTERS:
        raise CohortError(f"there is no importer '{name}'", do=nearest(name, IMPORTERS))
    return IMPORTERS[name]
