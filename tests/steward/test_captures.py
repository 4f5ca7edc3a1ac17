"""A capture is collected through the real bindings and judged: healthy hardware raises no alarm."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fleet.clock import FixedClock
from steward.compose import open_house
from steward.config import load_settings
from steward.desk import HouseDesk

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


def judge(capture: Path, phase: str, store: Path) -> dict[str, object]:
    clock = FixedClock(NOW)
    with open_house(load_settings(None, {}), store, clock) as house:
        desk = HouseDesk(house)
        for minute in range(2):  # a flag counts when it stands in two polls
            clock.set(NOW + timedelta(minutes=minute))
            collected = desk.operate("collect", {"sources": ["nvml"], "capture": str(capture), "phase": phase})
            rows = collected["summary"]
            assert isinstance(rows, dict)
            assert rows["gpu_sample rows"] > 0
        return desk.report("health", {"as_of": "data"})


@pytest.mark.parametrize("phase", ["idle", "load"])
def test_healthy_captures_raise_no_alarm(data_root: Path, tmp_path: Path, phase: str) -> None:
    captures = [path for path in sorted((data_root / "captures").glob("*")) if path.suffix in {".xml", ".txt"}]
    healthy = [path for path in captures if "injected" not in path.name]
    assert len(healthy) >= 8
    for capture in healthy:
        report = judge(capture, phase, tmp_path / f"{capture.stem}.duckdb")
        assert report["items"] == [], capture.name
        assert report["exitCode"] in {0, 3}, capture.name


def test_faults_that_were_injected_are_told(data_root: Path, tmp_path: Path) -> None:
    (capture,) = (data_root / "captures").glob("*injected*.xml")
    report = judge(capture, "idle", tmp_path / "s.duckdb")
    items = report["items"]
    assert isinstance(items, list)
    (item,) = items
    assert (item["state"], item["severity"]) == ("failed", "critical")
    assert item["rule"] == "remap_failed"
    assert report["exitCode"] == 2
