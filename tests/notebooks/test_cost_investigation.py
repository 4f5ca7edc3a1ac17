"""The notebook runs from top to bottom over a store, and its sums are the bill."""

import runpy
from pathlib import Path

import pytest

from fleet.clock import FixedClock
from steward.compose import House
from steward.config import Settings
from store.store import Store
from tests.steward.test_cost import NOW, book, fill

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "cost_investigation.py"


def test_the_cost_notebook_runs_over_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    database = tmp_path / "store.duckdb"
    clock = FixedClock(NOW)
    with Store.open(database, clock=clock) as store:
        fill(store)
        book(House(Settings(), store, clock))
    monkeypatch.setenv("GPU_STEWARD_STORE", str(database))
    runpy.run_path(str(NOTEBOOK))
    printed = capsys.readouterr().out
    assert "bill 192.000000" in printed
    assert printed.count("sums to the bill: True") == 2
    assert "faults: []" in printed
    assert "Job/team-serving/w1" in printed
