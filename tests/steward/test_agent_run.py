"""The node agent as a process: metrics while it runs, rows in the store whoever owns it, and any end is a clean one."""

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest
import yaml
from typer.testing import CliRunner

from api.app import create_app
from collectors.agent import Agent
from collectors.agent_http import parse_listen
from fleet.batch import Batch
from fleet.clock import FixedClock, SystemClock
from fleet.errors import NotAStore, SourceFailed
from steward.agent_run import Known, StoreSink, server_of
from steward.cli import app
from steward.compose import House, open_house
from steward.config import AgentSection, load_settings
from steward.desk import HouseDesk
from steward.owner import Address, read_address, write_address
from steward.serve import address_of, listen, make_server
from store.store import Store

pytestmark = pytest.mark.enable_socket

DRIVERS = Path(__file__).parents[1] / "collectors"
INTERVAL_S = 0.5
NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
PATIENCE = timedelta(seconds=10 * INTERVAL_S)  # others may use the machine, too


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Give the environment of an agent over a driver of ours, three GPUs, far from any kubelet."""
    (tmp_path / "orders").write_text("")
    (tmp_path / "proc").mkdir()
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("STEWARD_")},
        "PYTHONPATH": os.pathsep.join([*(path for path in sys.path if path), str(DRIVERS)]),
        "STEERED_DRIVER": str(tmp_path / "orders"),
        "STEWARD_AGENT__DRIVER": "probe_drivers:steered",
        "STEWARD_AGENT__INTERVAL_S": str(INTERVAL_S),
        "STEWARD_AGENT__LISTEN": "127.0.0.1:0",
        "STEWARD_AGENT__KUBELET_SOCKET": str(tmp_path / "kubelet.sock"),
        "STEWARD_AGENT__PROC": str(tmp_path / "proc"),
        "STEWARD_AGENT__LOGS": str(tmp_path / "log"),
        "STEWARD_COLLECT__NODE": "n1",
        "XDG_CONFIG_HOME": str(tmp_path),
    }


def command(store: Path, *more: str) -> list[str]:
    script = "from steward.cli import main; main()"
    return [sys.executable, "-W", "error", "-c", script, "--store", str(store), "agent", *more]


@contextmanager
def running(store: Path, environment: dict[str, str], *more: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start an agent; give it and its address, which it tells once it listens."""
    with subprocess.Popen(  # noqa: S603 - our own words
        command(store, *more), env=environment, cwd=store.parent, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            assert "/metrics" in line, line + process.stderr.read()
            yield process, line.split()[2].removesuffix("/metrics")
        finally:
            if process.poll() is None:
                process.kill()


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own address
        return str(answer.read().decode())


def until_well(url: str) -> None:
    """Ask until a turn has ended; each look asks the agent, so nothing is waited for blindly."""
    ends = time.monotonic() + 30
    while time.monotonic() < ends:
        with suppress(urllib.error.HTTPError):
            get(f"{url}/healthz")
            return
    pytest.fail("no turn ended in 30 s")


def rows(store: Path, table: str = "gpu_sample") -> Any:
    with Store.open(store, clock=SystemClock()) as opened:
        return opened.read(table)


def test_one_turn_prints_the_metrics_and_stores_them(environment: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(  # noqa: S603 - our own words
        command(tmp_path / "s.duckdb", "--once"),
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("DCGM_FI_DEV_POWER_USAGE{") == 3
    assert 'Hostname="n1"' in done.stdout
    assert rows(tmp_path / "s.duckdb").height == 3
    assert rows(tmp_path / "s.duckdb", "gpu_hour").height == 3


def test_one_turn_without_a_driver_fails_and_says_why(environment: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(  # noqa: S603 - our own words
        command(tmp_path / "s.duckdb", "--once", "--no-store"),
        env=environment | {"STEWARD_AGENT__DRIVER": "probe_drivers:missing"},
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "no NVIDIA driver loaded here" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "s.duckdb").exists()


def test_a_capture_that_is_not_there_is_said_so(environment: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(  # noqa: S603 - our own words
        command(tmp_path / "s.duckdb", "--once", "--no-store", "--capture", "nowhere.xml"),
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "nowhere.xml" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_daemon_set_says_what_the_agent_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path(__file__).parents[2] / "deploy" / "agent-daemonset.yaml"
    _, daemon_set = yaml.safe_load_all(file.read_text(encoding="utf-8"))
    pod = daemon_set["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    for each in container["env"]:
        monkeypatch.setenv(each["name"], each.get("value", "n1"))
    settings = load_settings(None, os.environ)
    assert settings.collect.node == "n1"
    assert parse_listen(settings.agent.listen)[1] == container["ports"][0]["containerPort"]
    shown = CliRunner().invoke(app, [*container["args"], "--help"])
    assert shown.exit_code == 0
    mounts = {Path(mount["mountPath"]) for mount in container["volumeMounts"]}
    assert {
        settings.agent.kubelet_socket.parent,
        settings.agent.logs / "pods",
        settings.agent.logs / "containers",
    } < mounts
    names = [volume["name"] for volume in pod["volumes"]]
    assert sorted(names) == sorted(mount["name"] for mount in container["volumeMounts"])
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_it_serves_stores_and_ends_cleanly_when_told(environment: dict[str, str], tmp_path: Path) -> None:
    store = tmp_path / "s.duckdb"
    with running(store, environment) as (process, url):
        until_well(url)
        assert get(f"{url}/metrics").count("DCGM_FI_DEV_POWER_USAGE{") == 3
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    assert rows(store).height >= 3


def test_killed_at_any_moment_it_leaves_no_gap_and_no_duplicate(environment: dict[str, str], tmp_path: Path) -> None:
    store, lives = tmp_path / "s.duckdb", []
    for delay_s in (0.02, 0.61):  # after a first turn: between turns, or in one
        with running(store, environment) as (process, url):
            until_well(url)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=delay_s)
            children = psutil.Process(process.pid).children()
            process.kill()
            process.wait(timeout=30)
            killed_at = SystemClock().now()
            assert len(children) == 1
            assert psutil.wait_procs(children, timeout=30)[1] == []  # the probe does not outlive who asked it
        moments = rows(store).get_column("ts")
        lives.append((moments.max(), killed_at))
    samples = rows(store)
    assert samples.select("gpu", "ts").is_duplicated().sum() == 0
    assert samples.group_by("ts").len().get_column("len").unique().to_list() == [3]  # a tick is whole or not there
    for last, killed_at in lives:
        assert killed_at - last <= PATIENCE  # what was read is stored at once, not kept for later
    steps = samples.get_column("ts").unique().sort().diff().drop_nulls()
    assert (steps > PATIENCE).sum() <= len(lives) - 1  # only while no agent ran


@contextmanager
def server(database: Path) -> Iterator[House]:
    """Own the store as `steward serve` does, with the API on a port of its own."""
    with open_house(load_settings(None, {}), database, SystemClock()) as house, listen("127.0.0.1", 0) as listener:
        serving = make_server(create_app(HouseDesk(house), "secret"))
        thread = threading.Thread(target=serving.run, kwargs={"sockets": [listener]})
        thread.start()
        write_address(database, Address(address_of(listener), "secret", os.getpid()))
        try:
            yield house
        finally:
            serving.should_exit = True
            thread.join()


def test_a_server_elsewhere_is_sent_to_and_a_token_that_is_refused_costs_nothing(tmp_path: Path) -> None:
    clock, token = FixedClock(NOW), tmp_path / "token"
    token.write_text("wrong\n")
    with server(tmp_path / "s.duckdb") as house:
        address = read_address(tmp_path / "s.duckdb")
        assert address is not None
        section = AgentSection(server=address.url, token_file=token)
        sink = StoreSink(tmp_path / "none.duckdb", "n1", clock, lambda: server_of(section))
        agent = Agent([OneBatch()], clock=clock, wait=lambda _seconds: True, sink=sink.take, rest=sink.rest)
        agent.turn()
        assert (agent.backlog_count, house.store.read("gpu_sample").height) == (1, 0)
        token.write_text("secret\n")
        agent.turn()
        assert (agent.backlog_count, house.store.read("gpu_sample").height) == (0, 1)
        sink.close()
    assert not (tmp_path / "none.duckdb").exists()


def test_a_token_file_that_is_not_there_is_a_failure_for_now(tmp_path: Path) -> None:
    with pytest.raises(SourceFailed, match="token_file"):
        server_of(AgentSection(server="http://x", token_file=tmp_path / "none"))


def test_where_a_server_owns_the_store_the_rows_go_through_it(environment: dict[str, str], tmp_path: Path) -> None:
    store = tmp_path / "s.duckdb"
    with server(store) as house:
        done = subprocess.run(  # noqa: S603 - our own words
            command(store, "--once"), env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert house.store.read("gpu_sample").height == 3
    assert rows(store).height == 3


class OneBatch:
    """A source that gives the same reading at every turn."""

    name = "nvml"

    def collect(self, since: datetime | None, until: datetime) -> Iterator[Batch]:
        assert until >= (since or until)
        yield batch(NOW, "a")


def batch(ts: datetime, *gpus: str, node: str = "n1") -> Batch:
    """Return a reading of some GPUs."""
    frames = {
        "gpu": pl.DataFrame({"gpu_uuid": gpus, "uuid": gpus}).with_columns(
            cluster=pl.lit("c1"), node=pl.lit(node), last_seen_at=ts
        ),
        "gpu_sample": pl.DataFrame({"gpu_uuid": gpus}).with_columns(ts=ts, power_w=70.0),
    }
    return Batch("nvml", frames, ts).checked()


def test_what_does_not_change_is_told_once_a_minute_and_what_changes_at_once() -> None:
    known = Known()

    def tables(second: int, *gpus: str, node: str = "n1") -> set[str]:
        now = NOW + timedelta(seconds=second)
        news = known.without(batch(now, *gpus, node=node), now)
        known.tell(news, now)
        return set(news.frames)

    everything, samples = {"gpu", "gpu_sample"}, {"gpu_sample"}
    assert [tables(second, "a") for second in (0, 10, 59, 60, 70)] == [
        everything, samples, samples, everything, samples,
    ]  # fmt: skip
    assert tables(80, "a", "b") == everything
    assert tables(90, "a", "b", node="n2") == everything
    assert tables(-600, "a", "b", node="n2") == everything  # the clock was set back
    known.forget()
    assert tables(-590, "a", "b", node="n2") == everything


def test_a_file_that_another_holds_is_tried_again_and_nothing_is_lost(tmp_path: Path) -> None:
    clock, path = FixedClock(NOW), tmp_path / "s.duckdb"
    sink = StoreSink(path, "n1", clock)
    path.write_bytes(b"not a database, for now")
    with pytest.raises(NotAStore):
        sink.take(batch(NOW, "a"))
    sink.rest()
    path.unlink()
    sink.take(batch(NOW, "a"))
    sink.rest()
    assert rows(path).height == 1  # another command may open it between the turns
    sink.take(batch(NOW + timedelta(seconds=10), "a"))
    sink.close()
    assert rows(path).height == 2
