"""The notebook on policies runs as it stands, and waiting longer hurts fewer."""

import runpy
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "policy_replay.py"


def test_the_policy_notebook_compares_policies(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GPU_STEWARD_STORE", raising=False)
    monkeypatch.delenv("REPLAY_HOURS", raising=False)
    values = runpy.run_path(str(NOTEBOOK))
    values["store"].close()
    rows = {row["measure"]: row for row in values["table"].iter_rows(named=True)}
    assert rows["workloads reclaimed"]["1 h"] > rows["workloads reclaimed"]["4 h"]
    assert rows["wrong: wanted within 4 h"]["1 h"] >= rows["wrong: wanted within 4 h"]["4 h"]
    assert "reclaims were wrong" in capsys.readouterr().out
