"""The demo, the desk and the command line, from end to end on a small simulated fleet."""

import io
import json
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import structlog

from analytics.idle import IdlePolicy
from fleet.batch import Batch
from fleet.clock import FixedClock
from fleet.errors import BadInput, SourceFailed
from fleet.verdict import Severity, Verdict
from steward.compose import House
from steward.config import LogSection, load_settings
from steward.cycle import collect
from steward.demo import run_demo
from steward.desk import HouseDesk
from steward.log import set_up_log
from steward.loop import LoopState, run_loop
from steward.owner import Address, address_path, read_address, remove_address, write_address
from steward.report import Report, render
from steward.score import score_faults, score_idle
from store.store import Store

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    store = tmp_path_factory.mktemp("demo") / "demo.duckdb"
    return store, run_demo(store, gpus=48, days=1.0, seed=3, preset="default", spec=None)


def test_the_demo_stores_what_it_simulated_and_scores_itself(demo: tuple[Path, Report]) -> None:
    store, report = demo
    with Store.open(store, clock=FixedClock(NOW)) as opened:
        rows = opened.describe()["rows"]
    assert isinstance(rows, dict)
    assert rows["gpu_sample"] > 60_000
    assert rows["cost_line"] > 0
    assert f"{rows['gpu_sample']:,} GPU samples" in str(report.summary["stored"])
    assert "precision" in str(report.summary["idle_found"])


def test_the_ledger_of_the_demo_adds_up_to_the_time_its_gpus_were_there(demo: tuple[Path, Report]) -> None:
    with Store.open(demo[0], clock=FixedClock(NOW)) as opened:
        lines = opened.read("cost_line")
    by_gpu = lines.group_by("gpu").agg(pl.col("gpu_seconds").sum().round(3))
    assert set(by_gpu.get_column("gpu_seconds")) == {86_400.0}


def test_the_demo_replaces_its_own_store_and_no_other(tmp_path: Path) -> None:
    other = tmp_path / "precious.duckdb"
    Store.open(other, clock=FixedClock(NOW)).close()
    with pytest.raises(BadInput, match="was not made by the demo"):
        run_demo(other, gpus=48, days=0.1, seed=3, preset="default", spec=None)
    assert other.exists()


class Broken:
    name = "broken"

    def collect(self, since: datetime | None, until: datetime) -> Iterator[Batch]:  # noqa: ARG002 - the port's
        message = "the server is gone"
        raise SourceFailed(message)


class Working:
    name = "working"

    def collect(self, since: datetime | None, until: datetime) -> Iterator[Batch]:  # noqa: ARG002 - the port's
        yield Batch(self.name, {"cluster": pl.DataFrame({"cluster": ["c"]})}, read_until=until)


def test_a_source_that_fails_is_recorded_and_the_others_go_on(clock: FixedClock) -> None:
    with Store.open(None, clock=clock) as store:
        house = House(load_settings(None, {}), store, clock, (Broken(), Working()))
        collected = collect(house, clock.now())
        assert collected.rows == {"cluster": 1}
        assert store.watermark("broken") is None
        (row,) = store.read("source_failure").to_dicts()
    assert (row["source"], row["kind"], row["reason"]) == ("broken", "failed", "the server is gone")


def test_an_empty_house_answers_unknown_and_never_fine(clock: FixedClock) -> None:
    with Store.open(None, clock=clock) as store:
        desk = HouseDesk(House(load_settings(None, {}), store, clock))
        health = desk.report("health", {})
        assert health["exitCode"] == 3
        assert "unknown: no telemetry" in str(health["notes"])
        analysis = desk.operate("analyse", {})
        assert json.loads(json.dumps(analysis))["summary"]["idle"] == "unknown: no telemetry"
        assert desk.report("doctor", {})["exitCode"] == 1
        assert "steward_store_rows" in desk.metrics()
        with pytest.raises(BadInput, match="the reports are health, doctor"):
            desk.report("weather", {})
        with pytest.raises(BadInput, match="no source to collect from"):
            desk.operate("collect", {})
        with pytest.raises(BadInput, match="--as-of"):
            desk.operate("analyse", {"as_of": "yesterday"})


def test_the_loop_goes_on_after_a_bad_turn(clock: FixedClock) -> None:
    stop, state, calls = threading.Event(), LoopState(), []

    def turn() -> None:
        calls.append(1)
        if len(calls) == 1:
            message = "first"
            raise ValueError(message)
        stop.set()

    run_loop(turn, clock, 0.001, stop, state)
    assert (state.turns, state.failures, state.last_error) == (1, 1, None)


def test_the_address_of_a_server_is_private_and_not_believed_once_it_is_gone(tmp_path: Path) -> None:
    database = tmp_path / "s.duckdb"
    assert read_address(database) is None
    write_address(database, Address("http://127.0.0.1:1", "secret", 2**22 + 1))
    assert address_path(database).stat().st_mode & 0o077 == 0
    assert read_address(database) is None
    address_path(database).write_text("{")
    assert read_address(database) is None
    remove_address(database)
    remove_address(database)


def verdict(topic: str, subject: str, state: str, rule: str = "r", at: datetime = NOW) -> Verdict:
    return Verdict(at, topic, "gpu", subject, state, Severity.WARNING, rule, node="n")


def work(*rows: tuple[str, str, float, float]) -> pl.DataFrame:
    return pl.DataFrame(
        [(gpu, None, "Job/team/train", state, NOW - start * HOUR, NOW - end * HOUR) for gpu, state, start, end in rows],
        schema=["gpu_uuid", "slice_uuid", "workload", "state", "starts_at", "ends_at"],
        orient="row",
        schema_overrides={"slice_uuid": pl.String()},
    )


def test_the_score_counts_idle_found_missed_unsure_and_false() -> None:
    truth = work(("a", "idle", 5, 0), ("b", "idle_held", 5, 0), ("c", "idle", 5, 0), ("d", "working", 5, 0))
    said = [
        verdict("idle", name, state) for name, state in zip("abcd", ("idle", "unknown", "active", "idle"), strict=True)
    ]
    score = score_idle(said, truth, [NOW], IdlePolicy())
    assert (score.found, score.missed, score.unsure, score.false) == (1, 2, 1, 1)
    assert (score.precision, score.recall) == (0.5, 1 / 3)


def test_the_score_counts_each_fault_once_and_each_false_accusation_once() -> None:
    faults = pl.DataFrame(
        {
            "kind": ["remap_failed", "ecc_storm"], "node": ["n", "m"], "gpu_uuid": ["a", "b"],
            "starts_at": [NOW - 2 * HOUR] * 2, "ends_at": [None, None], "is_actionable": [True, True],
        }
    )  # fmt: skip
    said = [
        verdict("health", "a", "failed"),
        verdict("health", "a", "failed", at=NOW - HOUR),
        verdict("health", "z", "failed"),
    ]
    result = score_faults(said, faults, HOUR, NOW)
    assert (result.score.found, result.score.missed, result.score.false) == (1, 1, 1)
    assert (result.missed_kinds, result.false_rules) == ({"ecc_storm": 1}, {"r": 1})


def test_a_report_says_a_dash_for_unknown_and_a_zero_for_zero() -> None:
    body = Report("Test", NOW, {"known": 0}, [{"a": None, "b": 0.0, "c": True}], ("a", "b")).to_body()
    assert render(body, "table").splitlines() == ["known  0", "", "A  B", "-  0"]
    assert json.loads(render(body, "json"))["items"] == [{"a": None, "b": 0.0, "c": True}]
    assert "asOf: '2026-03-02T12:00:00Z'" in render(body, "yaml")


def test_logs_go_to_the_stderr_of_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        first, second = io.StringIO(), io.StringIO()
        monkeypatch.setattr(sys, "stderr", first)
        set_up_log(LogSection(level="info", format="json"))
        first.close()
        monkeypatch.setattr(sys, "stderr", second)
        structlog.get_logger().info("still heard")
        assert "still heard" in second.getvalue()
    finally:
        structlog.reset_defaults()
