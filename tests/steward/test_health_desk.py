"""Health through the desk and the command line: states, exit codes, explanations, gauges."""

import json
import os
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
import uvicorn
from typer.testing import CliRunner

from api.app import create_app
from dashboards.fleet_questions import find_funnel
from dashboards.health_questions import STATES, find_states
from dashboards.scope import find_scope
from fleet.batch import Batch
from fleet.clock import FixedClock
from fleet.errors import BadInput
from steward.cli import app
from steward.compose import House
from steward.config import load_settings
from steward.desk import HouseDesk
from steward.owner import Address, write_address
from store.store import Store

HOUR = timedelta(hours=1)


def fill(store: Store, clock: FixedClock, *, silent: str | None = None) -> None:
    """Store a node of 8 GPUs sampled for two hours; `silent` stopped 5 minutes ago, GPU-6 was repaired yesterday."""
    now = clock.now()
    gpus = pl.DataFrame(
        [
            {
                "gpu_uuid": f"GPU-{gpu}", "uuid": f"GPU-{gpu}", "cluster": "c1", "node": "n1", "model": "H100",
                "first_seen_at": now - timedelta(days=3), "last_seen_at": now,
            }
            for gpu in range(8)
        ]
    )  # fmt: skip
    samples = pl.DataFrame(
        [
            {
                "gpu_uuid": f"GPU-{gpu}",
                "ts": now - timedelta(seconds=60 * place + 5),
                "utilization": 0.5,
                "power_w": 300.0,
            }
            for gpu in range(8)
            for place in range(5 if f"GPU-{gpu}" == silent else 0, 120)
        ],
        schema_overrides={"utilization": pl.Float32, "power_w": pl.Float32},
    )
    base = {"cluster": "c1", "node": "n1", "source": "kmsg"}
    events = pl.DataFrame(
        [
            {"ts": now - 30 * HOUR, "gpu_uuid": "GPU-6", "kind": "xid", "code": 95, "message": "Uncontained", **base},
            {"ts": now - 29 * HOUR, "gpu_uuid": "GPU-6", "kind": "gpu_reset", "code": None, "message": None, **base},
        ],
        schema_overrides={"code": pl.Int32},
    )
    store.append(Batch("test", {"gpu": gpus, "gpu_sample": samples, "event": events}, now))


@pytest.fixture
def desk(clock: FixedClock) -> HouseDesk:
    store = Store.open(None, clock=clock)
    fill(store, clock, silent="GPU-3")
    return HouseDesk(House(load_settings(None, {}), store, clock))


def test_a_gpu_silent_for_two_scrapes_is_critical_and_a_repaired_one_is_on_probation(desk: HouseDesk) -> None:
    body = desk.report("health", {})
    assert body["exitCode"] == 2
    summary = body["summary"]
    assert isinstance(summary, dict)
    assert (summary["failed"], summary["probation"], summary["healthy"]) == (1, 1, 6)
    items = body["items"]
    assert isinstance(items, list)
    assert [(item["subject"], item["rule"]) for item in items] == [("GPU-3", "gpu_lost"), ("GPU-6", "probation")]
    assert items[0]["gpu_hours"] == pytest.approx(8 * 20 / 60)
    assert items[0]["cost_usd"] is None
    assert items[1]["risk_7d"] > items[1]["base_7d"] > 0
    assert any("published" in note for note in body["notes"])  # type: ignore[attr-defined]  # a list


def test_an_explanation_goes_down_to_the_rows(desk: HouseDesk) -> None:
    body = desk.report("explain_gpu", {"uuid": "PU-6"})
    summary, items, notes = body["summary"], body["items"], body["notes"]
    assert isinstance(summary, dict)
    assert isinstance(items, list)
    assert isinstance(notes, list)
    assert (summary["uuid"], summary["state"], summary["rule"]) == ("GPU-6", "probation", "probation")
    assert [item["what"] for item in items] == ["verdict on gpu", "fault", "event", "event"]
    assert items[1]["state"] == "cleared by gpu_reset"
    assert [item["code"] for item in items if item["what"] == "event"] == [95, None]
    assert any("isotonic" in note for note in notes)


@pytest.mark.parametrize(("uuid", "why"), [("", "no GPU"), ("GPU-99", "no GPU"), ("GPU", "8 GPUs")])
def test_a_gpu_that_is_not_named_exactly_is_refused_with_what_to_do(desk: HouseDesk, uuid: str, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        desk.report("explain_gpu", {"uuid": uuid})


def test_gauges_tell_every_state_and_risk_after_an_analysis(desk: HouseDesk) -> None:
    assert "steward_gpu_state{" not in desk.metrics()
    desk.operate("analyse", {"as_of": "now"})
    text = desk.metrics()
    states = [line for line in text.splitlines() if line.startswith("steward_gpu_state{")]
    risks = [line for line in text.splitlines() if line.startswith("steward_gpu_failure_risk_ratio{")]
    assert len(states) == 8
    assert sum('state="failed"' in line for line in states) == 1
    assert sum('state="probation"' in line for line in states) == 1
    assert len(risks) == 3 * (8 + 1)
    assert all(0 <= float(line.split()[-1]) <= 1 for line in risks)


def test_an_analysis_twice_leaves_one_row_of_risk_a_subject(desk: HouseDesk) -> None:
    for _ in range(2):
        desk.operate("analyse", {"as_of": "now"})
    assert desk._house.store.read("risk").height == 9


def test_the_command_line_explains_a_gpu_over_the_store(tmp_path: Path, clock: FixedClock) -> None:
    path = tmp_path / "s.duckdb"
    with Store.open(path, clock=clock) as store:
        fill(store, clock)
    moment = clock.now().isoformat()
    arguments = ["--store", str(path), "explain", "gpu", "GPU-6", "--as-of", moment]
    told = CliRunner().invoke(app, [*arguments, "-o", "json"])
    assert told.exit_code == 0, told.output
    assert json.loads(told.output)["summary"]["state"] == "probation"
    assert "probation" in CliRunner().invoke(app, arguments).output


def test_command_page_overview_and_metrics_count_the_same(desk: HouseDesk) -> None:
    desk.operate("analyse", {"as_of": "now"})
    summary = desk.report("health", {"all": True})["summary"]
    assert isinstance(summary, dict)
    told = {state: summary[state] for state in STATES if state in summary}
    assert told == {"failed": 1, "healthy": 6, "probation": 1}
    assert sum(told.values()) == summary["gpus"]
    engine = desk._house.store.engine
    scope = find_scope(engine, timedelta(days=7), None)
    assert scope is not None
    page = Counter(find_states(engine, scope).get_column("state"))
    lines = [line for line in desk.metrics().splitlines() if line.startswith("steward_gpu_state{")]
    gauges = Counter(line.split('state="')[1].split('"')[0] for line in lines)
    assert told == page == gauges == find_funnel(engine, scope).health


@contextmanager
def serving(desk: HouseDesk, database: Path) -> Iterator[None]:
    """Answer on a loopback port, as the server that owns the database does, until the block is left."""
    server = uvicorn.Server(uvicorn.Config(create_app(desk, "secret"), log_config=None, lifespan="off"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            write_address(database, Address(url, "secret", os.getpid()))
            yield
        finally:
            server.should_exit = True
            thread.join()


@pytest.mark.enable_socket
def test_a_running_server_answers_the_commands_as_the_store_does(tmp_path: Path, clock: FixedClock) -> None:
    path = tmp_path / "s.duckdb"
    with Store.open(path, clock=clock) as store:
        fill(store, clock, silent="GPU-3")
        desk = HouseDesk(House(load_settings(None, {}), store, clock))
        own = [desk.report("health", {}), desk.report("explain_gpu", {"uuid": "GPU-6"})]
        with serving(desk, path):
            health = CliRunner().invoke(app, ["--store", str(path), "health", "-o", "json"])
            explained = CliRunner().invoke(app, ["--store", str(path), "explain", "gpu", "GPU-6", "-o", "json"])
    assert (health.exit_code, explained.exit_code) == (2, 0)
    through = [json.loads(health.output), json.loads(explained.output)]
    assert through == json.loads(json.dumps(own, default=str))
    assert through[0]["items"][0]["confidence"] == pytest.approx(0.95)
