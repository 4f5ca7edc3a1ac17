"""Jobs: one rule, once, by its mode; held where they must not act; and a second run makes nothing."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from actions.kinds import RULES
from actions.leader import Leadership, Lease
from fleet.clock import FixedClock
from fleet.errors import BadInput, StoreBusy
from simulator.cluster import SimulatorCluster
from simulator.faults_spec import FaultSpec
from simulator.presets import notebook_heavy_spec
from simulator.source import SimulatorSource
from simulator.step import build
from steward.cli import app
from steward.compose import House
from steward.config import changed_settings, load_settings
from steward.cycle import collect
from steward.desk import HouseDesk
from steward.jobs import JOBS
from steward.jobs_cli import register
from steward.overseer import Overseer
from steward.owner import address_path
from store.store import Store

ROOT = Path(__file__).parents[2]
SPEC = replace(notebook_heavy_spec(48, 1.0), faults=FaultSpec(rate_factor=0.0))
NOW = SPEC.starts_at + timedelta(hours=9)
AUTO = {"actions": {"modes": {"reclaim": "auto"}, "approval": {"grace_s": {"reclaim": 0.0}}}}
MANIFESTS = sorted((ROOT / "deploy" / "cronjobs").glob("*.yaml"))

Open = Callable[..., tuple[HouseDesk, House, FixedClock]]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a database that saw a fleet of notebooks for nine hours."""
    path = tmp_path_factory.mktemp("jobs") / "s.duckdb"
    clock = FixedClock(NOW)
    with Store.open(path, clock=clock) as store:
        collect(House(load_settings(None, {}), store, clock, (SimulatorSource(build(SPEC)),)), NOW)
        store.roll_up(SPEC.starts_at, NOW)
    return path


@pytest.fixture
def furnished(seen: Path, tmp_path: Path) -> Open:
    """Give a desk over a copy of that database and the fleet as it stands, with settings of one's own."""

    def make(values: dict[str, object] | None = None) -> tuple[HouseDesk, House, FixedClock]:
        path = tmp_path / "s.duckdb"
        path.write_bytes(seen.read_bytes())
        clock = FixedClock(NOW)
        world = build(SPEC)
        source = SimulatorSource(world)
        list(source.collect(NOW - timedelta(minutes=1), NOW))
        settings = changed_settings(load_settings(None, {}), values or {}, "test")
        house = House(settings, Store.open(path, clock=clock), clock, (source,), (SimulatorCluster(world),))
        return HouseDesk(house), house, clock

    return make


def run(desk: HouseDesk, rule: str = "reclaim", *, yes: bool = False) -> dict[str, object]:
    return dict(json.loads(json.dumps(desk.operate("job", {"rule": rule, "yes": yes, "who": "ann"}))))


def suspended(house: House) -> set[str]:
    return {str(each.ref) for each in house.clusters[0].observe().workloads if each.is_suspended}


def items_of(body: dict[str, object]) -> list[dict[str, object]]:
    items = body["items"]
    assert isinstance(items, list)
    return items


def states(body: dict[str, object]) -> list[str]:
    return [str(item["state"]) for item in items_of(body)]


def test_without_yes_a_job_rehearses_its_rule_alone(furnished: Open) -> None:
    desk, house, _ = furnished(AUTO)
    body = run(desk)
    assert states(body)
    assert set(states(body)) <= {"rehearsed", "refused"}
    assert {item["kind"] for item in items_of(body)} <= {"suspend_workload", "scale_workload"}
    assert suspended(house) == set()
    assert body["exitCode"] == 0
    house.store.close()


def test_a_job_makes_its_moves_once_and_a_second_run_makes_nothing(furnished: Open) -> None:
    desk, house, clock = furnished(AUTO)
    first = run(desk, yes=True)
    assert "made" in states(first)
    stopped = suspended(house)
    assert stopped
    real = house.store.read("outcome").filter(~house.store.read("outcome")["is_dry_run"]).height
    clock.move(timedelta(seconds=30))
    second = run(desk, yes=True)
    assert "made" not in states(second)
    assert second["exitCode"] == 0
    assert suspended(house) == stopped
    after = house.store.read("outcome").filter(~house.store.read("outcome")["is_dry_run"])
    assert after.height == real + after.filter(after["ts"] > NOW, after["stage"] == "refused").height
    house.store.close()


def test_what_a_rule_only_proposes_waits_for_an_answer_and_is_made_after_it(furnished: Open) -> None:
    desk, house, clock = furnished()
    first = run(desk, yes=True)
    assert set(states(first)) == {"waits"}
    assert suspended(house) == set()
    again = run(desk, yes=True)
    assert desk.report("proposals", {})["summary"] == {"proposals": len(states(first))}
    assert again["exitCode"] == 0
    chosen = items_of(first)[0]
    desk.operate("approve", {"what": chosen["move_id"], "who": "bea"})
    clock.move(timedelta(seconds=30))
    made = run(desk, yes=True)
    assert [item["target"] for item in items_of(made) if item["state"] == "made"] == [chosen["target"]]
    assert suspended(house) == {chosen["target"]}
    house.store.close()


def test_a_job_is_held_by_the_brake(furnished: Open) -> None:
    desk, house, _ = furnished(AUTO)
    desk.operate("brake", {"order": "on", "reason": "drill"})
    body = run(desk, yes=True)
    assert (body["exitCode"], body["items"]) == (3, [])
    assert "drill" in str(body["summary"])
    assert suspended(house) == set()
    house.store.close()


def test_a_job_is_held_where_nothing_known_is_young_enough(furnished: Open) -> None:
    desk, house, clock = furnished(AUTO)
    clock.move(timedelta(hours=2))
    body = run(desk, yes=True)
    assert body["exitCode"] == 3
    assert "stale data" in str(body["summary"])
    house.store.close()


class Shelf:
    """A lease that several stewards see, in memory."""

    def __init__(self) -> None:
        self.lease: Lease | None = None

    def read(self) -> Lease | None:
        return self.lease

    def write(self, lease: Lease) -> Lease:
        self.lease = lease
        return lease


def test_a_job_that_is_not_the_leader_is_held_and_leaves_nothing_behind(furnished: Open) -> None:
    _, house, clock = furnished(AUTO)
    shelf = Shelf()
    leader, ours = Leadership(shelf, "the leader"), Leadership(shelf, "ours")
    assert leader.why_not(NOW) is None
    name = house.clusters[0].name
    desk = HouseDesk(replace(house, overseers={name: Overseer(leadership=ours)}))
    before = {table: house.store.read(table).height for table in ("plan", "move", "outcome", "verdict")}
    for is_real in (True, False):
        body = run(desk, yes=is_real)
        summary = body["summary"]
        assert isinstance(summary, dict)
        assert (body["exitCode"], body["items"], summary["plans"]) == (3, [], [])
        assert summary["held"] == f"{name}: not the leader: the leader leads and its lease runs"
    assert {table: house.store.read(table).height for table in before} == before
    assert suspended(house) == set()
    leader.release()
    clock.move(timedelta(seconds=1))
    taken_over = run(desk)
    assert taken_over["exitCode"] == 0
    assert states(taken_over)
    house.store.close()


def test_a_job_whose_store_another_process_has_open_ends_as_held() -> None:
    asked: list[Mapping[str, object]] = []

    def busy(_context: typer.Context, _question: str, parameters: Mapping[str, object], _output: str) -> None:
        asked.append(parameters)
        message = "another process has it open"
        raise StoreBusy(message)

    alone = typer.Typer()
    register(alone, busy)
    ran = CliRunner().invoke(alone, ["job", "reclaim", "--once", "--yes"])
    assert (ran.exit_code, asked) == (3, [{"rule": "reclaim", "yes": True}])
    assert "held: another process has it open" in ran.stderr


def test_a_rule_that_there_is_not_and_a_house_without_clusters_are_refused(furnished: Open) -> None:
    desk, house, clock = furnished()
    with pytest.raises(BadInput, match="there is no job dance"):
        run(desk, "dance")
    with pytest.raises(BadInput, match="no cluster"):
        run(HouseDesk(House(house.settings, house.store, clock)))
    house.store.close()


def test_every_rule_but_workspaces_has_a_job_a_command_and_a_manifest() -> None:
    assert set(JOBS) == set(RULES) - {"workspace"}
    assert {path.stem for path in MANIFESTS} == {*JOBS, "collect", "kustomization"}


def test_the_list_says_how_each_is_run(tmp_path: Path) -> None:
    ran = CliRunner().invoke(app, ["--store", str(tmp_path / "s.duckdb"), "job", "list", "-o", "json"])
    items = json.loads(ran.stdout)["items"]
    assert [item["job"] for item in items] == list(JOBS)
    assert not address_path(tmp_path / "s.duckdb").exists()


@pytest.mark.parametrize(
    "path", [each for each in MANIFESTS if each.stem != "kustomization"], ids=lambda path: path.stem
)
def test_each_manifest_runs_a_command_that_there_is_and_never_two_at_once(path: Path) -> None:
    body = yaml.safe_load(path.read_text())
    assert (body["kind"], body["apiVersion"]) == ("CronJob", "batch/v1")
    spec = body["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    assert len(spec["schedule"].split()) == 5
    pod = spec["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert spec["jobTemplate"]["spec"]["backoffLimit"] == 0
    (container,) = pod["containers"]
    command = typer.main.get_command(app)
    arguments = list(container["args"])
    while hasattr(command, "commands"):
        command = command.commands[arguments.pop(0)]
    context = command.make_context(command.name, arguments)
    assert context.params.get("yes", True) is True
    assert {each["name"] for each in pod["volumes"]} == {each["name"] for each in container["volumeMounts"]}


def test_the_kustomization_names_every_manifest() -> None:
    named = yaml.safe_load((ROOT / "deploy" / "cronjobs" / "kustomization.yaml").read_text())["resources"]
    assert sorted(named) == [path.name for path in MANIFESTS if path.stem != "kustomization"]
