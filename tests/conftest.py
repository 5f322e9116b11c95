"""What every test may ask for."""

from __future__ import annotations

import os

# before numpy is loaded: many small matrices on two cores are slower with threads that wait for each other
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data, which is never part of the repository."""
    place = Path(os.environ.get("TENFOLD_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not place.is_dir():
        pytest.skip(f"no real data here ({place.name}/ is not beside the checkout; set TENFOLD_SHARED_DATA)")
    return place
