"""What all tests share: the root of the real data, a clock that stands still, and a cluster to work in."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from fleet.clock import FixedClock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kube.engines import Arena

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


@pytest.fixture(params=["memory", pytest.param("real", marks=pytest.mark.cluster)])
def work(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Iterator[Arena]":
    from tests.kube.engines import arena  # noqa: PLC0415 - most tests need no cluster

    with arena(request.param, tmp_path, monkeypatch) as made:
        yield made
