"""Questions about times to come, asked of the desk and on the command line."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from collectors.replay import TraceSource
from collectors.replay_formats import recognise
from fleet.batch import Batch
from fleet.clock import FixedClock
from fleet.errors import BadInput
from steward.cli import app
from steward.compose import House
from steward.config import load_settings
from steward.desk import HouseDesk
from steward.forecast_desk import span_h
from store.store import Store

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOURS = 24 * 16


def fill(store: Store) -> None:
    demand = [
        {
            "cluster": "east", "workspace": workspace, "pool": "p", "model": "H100",
            "ts": NOW - timedelta(hours=HOURS - hour), "running_gpus": float(gpus + hour % 24 % 5),
            "pending_gpus": 0.0, "capacity_gpus": 16.0,
        }
        for workspace, gpus in (("research", 4), ("serving", 8))
        for hour in range(HOURS)
    ]  # fmt: skip
    jobs = [
        {
            "cluster": "east", "job_id": f"j{place}", "workspace": ("research", "serving")[place % 2], "gpus": 8.0,
            "submitted_at": NOW - timedelta(hours=300 - 2 * place),
            "started_at": NOW - timedelta(hours=299 - 2 * place),
            "ended_at": NOW - timedelta(hours=296 - 2 * place), "status": "succeeded",
        }
        for place in range(100)
    ]  # fmt: skip
    nodes = [
        {"cluster": "east", "node": f"n{place}", "rack": "r1", "gpus": 8, "last_seen_at": NOW} for place in range(2)
    ]
    frames = {
        "cluster": pl.DataFrame({"cluster": ["east"]}), "demand_sample": pl.DataFrame(demand),
        "job": pl.DataFrame(jobs), "node": pl.DataFrame(nodes, schema_overrides={"gpus": pl.Int32()}),
    }  # fmt: skip
    store.append(Batch("test", frames, NOW))


@pytest.fixture
def desk() -> Iterator[HouseDesk]:
    clock = FixedClock(NOW)
    with Store.open(None, clock=clock) as store:
        fill(store)
        yield HouseDesk(House(load_settings(None, {}), store, clock, ()))


def items(body: dict[str, object]) -> list[dict[str, object]]:
    found = body["items"]
    assert isinstance(found, list)
    return found


@pytest.mark.parametrize(("by", "count"), [("workspace", 2), ("model", 1), ("pool", 1), ("cluster", 1), ("all", 7)])
def test_demand_is_forecast_by_whatever_is_asked(desk: HouseDesk, by: str, count: int) -> None:
    body = desk.report("forecast", {"by": by, "horizon": "24h"})
    assert len(items(body)) == count
    for item in items(body):
        assert item["forecaster"] is not None
        assert "mase" in item
        assert "hours" not in item


def test_every_hour_is_told_where_detail_is_asked_for_in_words_or_in_text(desk: HouseDesk) -> None:
    for detail in (True, "true"):
        item = items(desk.report("forecast", {"by": "cluster", "horizon": "2d", "detail": detail}))[0]
        hours = item["hours"]
        assert isinstance(hours, list)
        assert len(hours) == 48


def test_odds_are_told_for_a_day_a_week_and_a_month(desk: HouseDesk) -> None:
    body = desk.report("capacity", {})
    rows = {(item["workspace"], item["pool"], item["model"]): item for item in items(body)}
    assert rows["research", None, None]["within_7_days"] == 0
    assert {"within_1_days", "within_7_days", "within_30_days"} <= set(rows["*", None, None])


def test_an_analysis_stores_scores_and_odds_once_a_day(desk: HouseDesk) -> None:
    desk.operate("analyse", {})
    store = desk._house.store
    scores, odds = store.read("forecast_score").height, store.read("exhaustion").height
    assert scores == 7 * 4
    assert odds == 7 * 3
    desk.operate("analyse", {})
    assert store.read("forecast_score").height == scores
    assert store.read("exhaustion").height == odds


def test_a_wait_is_quoted(desk: HouseDesk) -> None:
    body = desk.report("wait", {"workspace": "research", "gpus": 4})
    assert [item["wait_hours"] for item in items(body)] == [0.0] * 5
    never = desk.report("wait", {"workspace": "research", "gpus": 4, "gpus_there": 2})
    assert [item["wait_hours"] for item in items(never)] == [None] * 5
    assert "it can never start" in str(never["notes"])
    with pytest.raises(BadInput, match="research, serving"):
        desk.report("wait", {"workspace": "nobody"})


def test_both_worlds_are_told(desk: HouseDesk) -> None:
    body = desk.report("what_if", {"add": "8", "price": "2.50", "gpus_there": "8"})
    summary = body["summary"]
    assert isinstance(summary, dict)
    assert summary["then"]["wait_s_mean"] < summary["now"]["wait_s_mean"]
    assert float(summary["then"]["cost_usd"]) == pytest.approx(2 * float(summary["now"]["cost_usd"]), abs=0.02)
    drained = desk.report("what_if", {"drain": "r1", "drain_hours": 48})["summary"]
    assert isinstance(drained, dict)
    assert drained["gpus_there"] == 16
    assert drained["then"]["gpu_hours_there"] == pytest.approx(drained["now"]["gpu_hours_there"] - 16 * 48)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"cluster": "west"}, "east"), ({"drain": "nowhere"}, "rack or node"), ({"moves": "a:b"}, "FROM:TO:GPUS"),
        ({"reclaim_idle": True}, "ledger"), ({"price": "cheap"}, "dollars"), ({"add": "-1"}, "from 0 on"),
        ({"moves": "research:serving:2"}, "no quota"), ({"remove": 99}, "can't go"),
    ],
    ids=["cluster", "drain", "move", "idle", "price", "number", "no quota to move", "too many"],
)  # fmt: skip
def test_what_can_not_be_is_refused_by_name(desk: HouseDesk, asked: dict[str, object], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        desk.report("what_if", asked)


@pytest.mark.parametrize("text", ["", "7", "0d", "31d", "1w", "-1d"])
def test_a_span_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        span_h(text)


def test_commands_print_what_the_desk_says(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    with Store.open(path, clock=FixedClock(NOW)) as store:
        fill(store)
    place = ["--store", str(path)]
    told = CliRunner().invoke(app, [*place, "forecast", "--by", "workspace", "--horizon", "2d", "-o", "json"])
    assert told.exit_code == 0
    body = json.loads(told.stdout)
    assert body["kind"] == "ForecastReport"
    assert len(body["items"][0]["hours"]) == 48
    for command in (["capacity"], ["wait-time", "--workspace", "research"], ["what-if", "--add", "8", "--no-lend"]):
        shown = CliRunner().invoke(app, [*place, *command])
        assert shown.exit_code == 0, shown.output
        assert "research" in shown.stdout


def test_recorded_pods_of_a_real_cluster_are_replayed_with_more_gpus_and_with_fewer(data_root: Path) -> None:
    pods = {"name", "gpu_milli", "num_gpu", "creation_time", "deletion_time"}
    found = [path for path in sorted(data_root.rglob("*.parquet")) if pods <= set(pl.read_parquet_schema(path))]
    if not found:
        pytest.skip("no trace of pods with shares of GPUs in the real data")
    with Store.open(None, clock=FixedClock(NOW)) as store:
        kind = recognise(frozenset(pl.read_parquet_schema(found[0])))
        assert kind is not None
        for batch in TraceSource(found[0], kind).collect(None, NOW):
            store.append(batch)
        desk = HouseDesk(House(load_settings(None, {}), store, FixedClock(NOW), ()))
        jobs = store.read("job").filter(pl.col("gpus") > 0)
        peak = float(max(jobs["gpus"])) * 8
        worlds = {}
        for name, change in (("more", {"add": peak}), ("fewer", {"remove": peak / 2}), ("same", {})):
            summary = desk.report("what_if", {"gpus_there": peak, **change})["summary"]
            assert isinstance(summary, dict)
            worlds[name] = summary
    waits = {name: summary["then"]["wait_s_mean"] for name, summary in worlds.items()}
    assert waits["more"] < waits["same"] < waits["fewer"]
    assert worlds["same"]["now"] == worlds["same"]["then"]
    assert all(0 < each["then"]["utilisation"] <= 1 for each in worlds.values())
