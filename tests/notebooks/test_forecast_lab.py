"""The forecast lab runs as it stands and scores the analyst's model beside ours."""

import runpy
from pathlib import Path

import pytest

LAB = Path(__file__).parents[2] / "notebooks" / "forecast_lab.py"


def test_the_lab_scores_a_model_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SERIES", raising=False)
    table = runpy.run_path(str(LAB))["table"]
    scores = dict(table.select("forecaster", "mase").iter_rows())
    assert scores["last_value"] == pytest.approx(1.0)
    assert {"mine", "combination"} <= set(scores)
    assert table["mase"].null_count() == 0
