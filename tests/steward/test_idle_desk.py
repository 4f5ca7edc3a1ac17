"""Idle, usage, top, rightsize and packing: the same answers from the desk, the command line and over HTTP."""

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from fleet.batch import Batch
from fleet.clock import FixedClock
from fleet.errors import BadInput
from fleet.verdict import Severity, Verdict, verdict_frame
from steward.booking import charge
from steward.cli import app
from steward.compose import House
from steward.config import load_settings
from steward.desk import REPORTS, HouseDesk
from steward.idle_desk import length_of
from steward.usage_cli import as_csv
from store.store import Store

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
WORKS = {"GPU-0": 0.9, "GPU-1": 0.9, "GPU-2": 0.0, "GPU-3": 0.0}


def fill(store: Store) -> None:
    """Two workloads on a node of four GPUs: `train` works on two, `chat` holds one for nothing; one is free."""
    gpus = pl.DataFrame(
        [
            {"gpu_uuid": uuid, "uuid": uuid, "cluster": "east", "node": "n1", "gpu_index": place, "model": "H100",
             "first_seen_at": NOW - 9 * HOUR, "last_seen_at": NOW}
            for place, uuid in enumerate(WORKS)
        ]
    )  # fmt: skip
    samples = pl.DataFrame(
        [
            {"gpu_uuid": uuid, "ts": NOW - MINUTE * back, "utilization": value, "memory_used_mib": 9000}
            for uuid, value in WORKS.items()
            for back in range(1, 241)
        ]
    )
    pods = pl.DataFrame(
        [
            {"cluster": "east", "namespace": "team", "pod": pod, "pod_uid": pod, "workload_kind": kind,
             "workload": name, "workspace": workspace, "owner": "ada", "gpu_uuid": uuid, "fraction": 1.0,
             "starts_at": NOW - 8 * HOUR}
            for pod, kind, name, workspace, uuid in (
                ("train-0", "Job", "train", "research", "GPU-0"),
                ("train-1", "Job", "train", "research", "GPU-1"),
                ("chat-0", "Deployment", "chat", "serving", "GPU-2"),
            )
        ]
    )  # fmt: skip
    node = pl.DataFrame({"cluster": ["east"], "node": ["n1"], "capacity_type": ["on_demand"], "gpus": [4]})
    price = pl.DataFrame(
        {"model": ["H100"], "capacity_type": ["on_demand"], "usd_per_gpu_hour": ["2"], "starts_at": [NOW - 99 * HOUR]}
    ).with_columns(pl.col("usd_per_gpu_hour").cast(pl.Decimal(18, 6)))
    frames = {"gpu": gpus, "gpu_sample": samples.cast({"utilization": pl.Float32, "memory_used_mib": pl.Int32})}
    frames |= {"pod_allocation": pods, "node": node.cast({"gpus": pl.Int32}), "price": price}
    store.append(Batch("test", frames, NOW))
    store.roll_up(NOW - 9 * HOUR, NOW)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("idle") / "s.duckdb"
    with Store.open(path, clock=FixedClock(NOW)) as store:
        fill(store)
    return path


@pytest.fixture
def desk(database: Path) -> Iterator[HouseDesk]:
    clock = FixedClock(NOW)
    with Store.open(database, clock=clock) as store:
        yield HouseDesk(House(load_settings(None, {}), store, clock))


def items(body: dict[str, object]) -> list[dict[str, object]]:
    found = body["items"]
    assert isinstance(found, list)
    return found


def test_idle_tells_whose_it_is_since_when_what_it_costs_and_what_it_frees(desk: HouseDesk) -> None:
    body = desk.report("idle", {})
    (row,) = items(body)
    assert (row["subject"], row["workspace"], row["owner"]) == ("Deployment/team/chat", "serving", "ada")
    assert (row["state"], row["action"], row["since"]) == ("idle_held", "reclaim", "2026-03-02T08:00:00Z")
    assert (row["gpu_hours"], row["cost_usd"]) == (4.0, "8.000000")
    assert row["frees"] == "1 GPUs, 0 nodes"
    assert row["frees_gangs"] == {"1": 1, "2": 1, "4": 0, "8": 0}
    assert row["idle_gpu_hours_24h"] == pytest.approx(239 / 60, abs=0.001)
    summary = body["summary"]
    assert isinstance(summary, dict)
    assert summary["reclaimable"] == "1 workloads, 4.0 GPU-hours idle so far, 8.00 USD"


@pytest.mark.parametrize(
    ("kind", "count"), [("workload", 2), ("pod", 2), ("replica", 1), ("gpu", 3), ("workspace", 2), ("slice", 0)]
)
def test_idle_of_everything_is_told_by_kind(desk: HouseDesk, kind: str, count: int) -> None:
    assert len(items(desk.report("idle", {"kind": kind, "all": "true"}))) == count


def test_usage_is_told_by_workspace_over_the_time_asked_for(desk: HouseDesk) -> None:
    rows = {row["workspace"]: row for row in items(desk.report("usage", {"since": "2h"}))}
    assert rows["research"]["gpu_hours"] == pytest.approx(4.0, abs=0.01)
    assert rows["research"]["activity_mean"] == pytest.approx(0.9)
    assert (rows["serving"]["activity_mean"], rows["serving"]["active_share"]) == (0.0, 0.0)
    hourly = items(desk.report("usage", {"since": "2h", "hourly": "true", "by": "workload"}))
    assert {row["hour_at"] for row in hourly} >= {"2026-03-02T10:00:00Z", "2026-03-02T11:00:00Z"}


@pytest.mark.parametrize(("is_failed", "charged"), [(True, 10.0), (False, 12.0)])
def test_usage_says_where_the_ledger_charges_less_than_was_held(*, is_failed: bool, charged: float) -> None:
    clock = FixedClock(NOW)
    since = NOW - 2 * HOUR
    failure = Verdict(since, "health", "gpu", "GPU-2", "failed", Severity.CRITICAL, "xid", since=since)
    with Store.open(None, clock=clock) as store:
        fill(store)
        house = House(load_settings(None, {}), store, clock)
        store.append_stored("cost_line", charge(house, verdict_frame([failure] if is_failed else []), NOW))
        body = HouseDesk(house).report("usage", {"since": "4h", "as_of": NOW.isoformat()})
    summary, notes = body["summary"], body["notes"]
    assert isinstance(summary, dict)
    assert isinstance(notes, (list, tuple))
    assert (summary["gpu_hours_held"], summary["gpu_hours_charged"]) == (12.0, charged)
    said = [str(note) for note in notes if "ledger charges" in str(note)]
    assert len(said) == int(is_failed)
    assert all("for 10.0 GPU-hours: not for a failed GPU" in note for note in said)


def test_top_shows_the_busiest_first_and_counts_what_is_held(desk: HouseDesk) -> None:
    body = desk.report("top", {"as_of": "data"})
    assert [row["device"] for row in items(body)] == ["GPU-0", "GPU-1", "GPU-2", "GPU-3"]
    summary = body["summary"]
    assert isinstance(summary, dict)
    assert (summary["held"], summary["active"], summary["unknown"]) == (3, 2, 0)
    assert [row["device"] for row in items(desk.report("top", {"as_of": "data", "workspace": "serving"}))] == ["GPU-2"]


def test_the_funnel_is_told_by_what_is_asked_for_and_sums(desk: HouseDesk) -> None:
    asked = {"since": "4h", "as_of": NOW.isoformat()}
    assert items(desk.report("funnel", asked)) == []
    desk.operate("analyse", {"as_of": NOW.isoformat()})
    (row,) = items(desk.report("funnel", {**asked, "by": "cluster"}))
    assert row["total_gpu_hours"] == pytest.approx(16.0)
    parts = ("unhealthy", "fragmented", "unallocated", "unknown", "allocated_idle", "partly_used", "effective")
    numbers = [value for name in parts if isinstance(value := row[f"{name}_gpu_hours"], float)]
    assert sum(numbers) == pytest.approx(16.0)
    by_both = items(desk.report("funnel", {**asked, "by": "workspace,hour"}))
    assert len(by_both) == 3 * 4
    with pytest.raises(BadInput, match="colour"):
        desk.report("funnel", {"by": "colour"})


def test_packing_and_rightsizing_answer_too(desk: HouseDesk) -> None:
    rows = {row["size"]: row for row in items(desk.report("packing", {}))}
    assert (rows[1]["fits"], rows[2]["fits"], rows[2]["stranded_gpus"]) == (1, 0, 1)
    assert items(desk.report("rightsize", {})) == []


def test_an_empty_house_knows_nothing_and_says_so(clock: FixedClock) -> None:
    with Store.open(None, clock=clock) as store:
        desk = HouseDesk(House(load_settings(None, {}), store, clock))
        for name in ("idle", "usage", "funnel", "top", "rightsize", "packing"):
            assert name in REPORTS
            assert items(desk.report(name, {})) == []
        for name in ("idle", "usage", "funnel", "top", "rightsize", "packing"):
            assert "unknown" in str(desk.report(name, {})["notes"])


@pytest.mark.parametrize(
    ("name", "parameters", "told"),
    [
        ("idle", {"kind": "planet"}, "workload, pod"),
        ("usage", {"by": "colour"}, "workspace"),
        ("usage", {"since": "yesterday"}, "6h, 7d"),
        ("usage", {"since": "0d"}, "6h, 7d"),
        ("top", {"as_of": "noon"}, "--as-of"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_what_can(
    desk: HouseDesk, name: str, parameters: dict[str, object], told: str
) -> None:
    with pytest.raises(BadInput, match=told):
        desk.report(name, parameters)


@pytest.mark.parametrize(
    ("text", "length"), [("90s", 90), ("15m", 900), ("6h", 21_600), ("1.5d", 129_600), ("2w", 1_209_600)]
)
def test_lengths_are_read_as_people_write_them(text: str, length: int) -> None:
    assert length_of(text) == timedelta(seconds=length)


def run(database: Path, *arguments: str) -> str:
    result = CliRunner().invoke(app, ["--store", str(database), *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_command_line_prints_usage_as_csv_json_and_table(database: Path) -> None:
    asked = ("usage", "--by", "workspace", "--since", "4h")
    rows = list(csv.DictReader(io.StringIO(run(database, *asked, "-o", "csv"))))
    assert [row["workspace"] for row in rows] == ["research", "serving"]
    body = json.loads(run(database, *asked, "-o", "json"))
    assert [str(row["activity_mean"]) for row in body["items"]] == [row["activity_mean"] for row in rows]
    assert "WORKSPACE" in run(database, *asked)


def test_the_command_line_prints_idle_and_top_once(database: Path) -> None:
    assert "Deployment/team/chat" in run(database, "idle", "--as-of", "data")
    table = run(database, "top", "--once", "--as-of", "data")
    assert table.index("GPU-0") < table.index("GPU-3")
    assert json.loads(run(database, "top", "--as-of", "data", "-o", "json"))["kind"] == "TopReport"
    assert "stranded" in run(database, "packing", "--as-of", "data").lower()
    assert "recommendations" in run(database, "rightsize")


def test_what_is_not_known_is_an_empty_field_in_csv() -> None:
    body = {"items": [{"a": None, "b": 0, "c": "more, and more"}], "columns": ["a", "b", "c"]}
    assert as_csv(body) == 'a,b,c\n,0,"more, and more"'


def test_a_stale_store_says_what_makes_it_fresh_and_a_fresh_one_does_not(database: Path) -> None:
    for age, is_told in ((MINUTE, False), (HOUR, True)):
        clock = FixedClock(NOW + age)
        with Store.open(database, clock=clock) as store:
            body = HouseDesk(House(load_settings(None, {}), store, clock)).report("idle", {})
            assert any("`--as-of data`" in note for note in notes(body)) is is_told
            body = HouseDesk(House(load_settings(None, {}), store, clock)).report("idle", {"as_of": "data"})
            assert not any("`--as-of data`" in note for note in notes(body))


def test_a_moment_to_come_is_refused(desk: HouseDesk) -> None:
    with pytest.raises(BadInput, match="--as-of: 2030-01-01T00:00:00Z is in the future"):
        desk.report("idle", {"as_of": "2030-01-01T00:00:00Z"})


def notes(body: dict[str, object]) -> list[str]:
    told = body["notes"]
    assert isinstance(told, list)
    return [str(note) for note in told]
