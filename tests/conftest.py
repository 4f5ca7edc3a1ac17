"""What all tests share: the root of the real data, and a clock that stands still."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import settings

from fleet.clock import FixedClock

# A machine that others share may pause in the middle of an example; that says nothing of our code.
settings.register_profile("house", deadline=None)
settings.load_profile("house")


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Give the folder of real data (STEWARD_DATA, else ../shared/data), or skip where there is none."""
    given = os.environ.get("STEWARD_DATA")
    root = Path(given) if given else Path(__file__).parents[2] / "shared" / "data"
    if not root.is_dir():
        pytest.skip(f"no real data: neither STEWARD_DATA nor {root.name} beside the project names a folder")
    return root


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(datetime(2026, 3, 2, 12, tzinfo=UTC))
