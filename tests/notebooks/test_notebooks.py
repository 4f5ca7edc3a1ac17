"""Notebooks run from top to bottom, as a reader would run them."""

import runpy
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "health_forensics.py"


def test_the_health_notebook_runs_and_shows_states_and_risk(capsys: pytest.CaptureFixture[str]) -> None:
    values = runpy.run_path(str(NOTEBOOK))
    assert values["verdicts"].filter(values["verdicts"]["kind"] == "gpu").height == values["GPUS"]
    assert values["risk"].get_column("risk_7d").null_count() == 0
    assert "basis" in capsys.readouterr().out
