"""The brake, the daily upkeep, the settling of unfinished moves and undo, over a small simulated fleet."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from actions.rows import outcome_frame, plan_frames
from fleet.batch import Batch
from fleet.clock import FixedClock
from fleet.errors import BadInput
from fleet.move import Move, MoveKind, Outcome, Plan, Stage
from fleet.state import ObjectRef
from steward.brake import brake_path, is_braked, pull, reason_of, release
from steward.compose import House, open_house
from steward.config import Settings, load_settings
from steward.cycle import settle_unfinished
from steward.desk import HouseDesk
from steward.upkeep import SOURCE, keep_up
from store.store import Store

START = datetime(2026, 3, 2, tzinfo=UTC)
NOW = START + timedelta(hours=1)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    file = tmp_path / "steward.toml"
    file.write_text(
        '[collect]\nsources = ["simulator"]\n[simulator]\ngpus = 48\ndays = 1\nstarts_at = "2026-03-02T00:00:00Z"\n'
    )
    return load_settings(file, {})


def fence(house: House) -> Plan:
    """Let the fleet live up to now, record a plan that fences its first GPU, and return it."""
    HouseDesk(house).operate("collect", {})
    state = house.clusters[0].observe()
    gpu = state.gpus[0]
    node = next(node for node in state.nodes if (node.cluster, node.name) == (gpu.cluster, gpu.node))
    move = Move(
        "fence-1",
        MoveKind.FENCE_GPU,
        gpu.cluster,
        ObjectRef("Node", "", gpu.node),
        cause="test",
        reason="it fails",
        gpu_uuids=(gpu.uuid,),
        gpus=1.0,
        node=gpu.node,
        pool=node.pool,
        resource_version=node.resource_version,
        evidence={"verdict": {"made_at": house.clock.now().isoformat(), "until": house.clock.now().isoformat()}},
    )
    plan = Plan("plan-1", house.clock.now(), "{}", (move,), ())
    for table, frame in plan_frames(plan).items():
        house.store.append_stored(table, frame)
    return plan


def is_fenced(house: House, plan: Plan) -> bool:
    (uuid,) = plan.moves[0].gpu_uuids
    return next(gpu.is_fenced for gpu in house.clusters[0].observe().gpus if gpu.uuid == uuid)


YES = {"plan_id": "plan-1", "yes": True, "who": "ann"}


def stages(body: dict[str, object]) -> list[str]:
    items = body["items"]
    assert isinstance(items, list)
    return [item["stage"] for item in items]


def test_what_was_made_can_be_taken_back_and_a_rehearsal_changes_nothing(settings: Settings, tmp_path: Path) -> None:
    with open_house(settings, tmp_path / "s.duckdb", FixedClock(NOW)) as house:
        plan, desk = fence(house), HouseDesk(house)
        assert stages(desk.operate("apply", {"plan_id": "plan-1"})) == ["applied"]
        assert not is_fenced(house, plan)
        assert stages(desk.operate("apply", YES)) == [
            "intended",
            "applied",
        ]
        assert is_fenced(house, plan)
        assert stages(desk.operate("undo", {"what": "plan-1"})) == ["applied"]
        assert is_fenced(house, plan)
        assert "undone" in house.store.read("outcome").get_column("stage").to_list() + stages(
            desk.operate("undo", {"what": "fence-1", "yes": True})
        )
        assert not is_fenced(house, plan)
        again = desk.operate("undo", {"what": "plan-1", "yes": True})
        assert stages(again) == []
        assert "nothing to take back" in str(again["notes"])


def test_undo_of_something_unknown_is_refused(settings: Settings, tmp_path: Path) -> None:
    with (
        open_house(settings, tmp_path / "s.duckdb", FixedClock(NOW)) as house,
        pytest.raises(BadInput, match="no plan"),
    ):
        HouseDesk(house).operate("undo", {"what": "nothing"})


def test_the_brake_stops_moves_and_outlives_the_process(settings: Settings, tmp_path: Path) -> None:
    database = tmp_path / "s.duckdb"
    with open_house(settings, database, FixedClock(NOW)) as house:
        plan, desk = fence(house), HouseDesk(house)
        desk.operate("brake", {"order": "on", "reason": "maintenance"})
    with open_house(settings, database, FixedClock(NOW)) as house:
        desk = HouseDesk(house)
        body = desk.operate("apply", YES)
        assert stages(body) == ["refused"]
        assert "kill switch" in str(body["items"])
        assert body["exitCode"] == 3
        assert house.store.read("approval").is_empty(), "what was stopped is not made by itself once the brake is off"
        assert not is_fenced(house, plan)
        assert "maintenance" in str(desk.report("doctor", {})["items"])
        desk.operate("brake", {"order": "off"})
        assert stages(desk.operate("apply", YES)) == [
            "intended",
            "applied",
        ]


def test_the_brake_keeps_its_first_reason(tmp_path: Path) -> None:
    database = tmp_path / "s.duckdb"
    assert reason_of(database) is None
    pull(database, "first")
    pull(database, "second")
    assert (is_braked(database), reason_of(database)) == (True, "first")
    assert release(database)
    assert not release(database)


def test_a_brake_touched_by_hand_counts(tmp_path: Path) -> None:
    brake_path(tmp_path / "s.duckdb").touch()
    assert is_braked(tmp_path / "s.duckdb")
    assert reason_of(tmp_path / "s.duckdb") == "no reason given"


def test_a_store_in_memory_has_no_brake() -> None:
    assert not is_braked(None)
    with pytest.raises(BadInput, match="--store"):
        pull(None, "x")


def test_an_unknown_order_to_the_brake_is_refused(settings: Settings, tmp_path: Path) -> None:
    with open_house(settings, tmp_path / "s.duckdb", FixedClock(NOW)) as house, pytest.raises(BadInput, match="status"):
        HouseDesk(house).operate("brake", {"order": "half"})


@pytest.mark.parametrize("was_made", [True, False], ids=["made", "never made"])
def test_a_move_whose_end_a_crash_swallowed_is_settled_by_what_the_cluster_shows(
    settings: Settings, tmp_path: Path, *, was_made: bool
) -> None:
    with open_house(settings, tmp_path / "s.duckdb", FixedClock(NOW)) as house:
        plan = fence(house)
        begun = Outcome("fence-1", NOW, Stage.INTENDED, is_dry_run=False, actor="x", prior='{"is_fenced": false}')
        house.store.append_stored("outcome", outcome_frame([begun]))
        if was_made:
            house.clusters[0].make(plan.moves[0])
        (settled,) = settle_unfinished(house)
        assert settled.stage is (Stage.APPLIED if was_made else Stage.FAILED)
        assert settle_unfinished(house) == []


def test_upkeep_drops_old_samples_once_a_day(clock: FixedClock) -> None:
    now = clock.now()
    moments = [now - timedelta(days=40), now - timedelta(days=1)]
    gpu = pl.DataFrame({"gpu_uuid": ["g"], "uuid": ["g"], "cluster": ["c"], "node": ["n"]})
    samples = pl.DataFrame({"gpu_uuid": ["g", "g"], "ts": moments, "utilization": [0.0, 1.0]})
    with Store.open(None, clock=clock) as store:
        house = House(load_settings(None, {}), store, clock)
        store.append(Batch("t", {"gpu": gpu, "gpu_sample": samples}))
        dropped = keep_up(house, now)
        assert dropped is not None
        assert dropped["gpu_sample"] == 1
        assert store.watermark(SOURCE) == now
        assert keep_up(house, now + timedelta(hours=23)) is None
        assert keep_up(house, now + timedelta(hours=24)) is not None
        assert store.read("gpu_sample").height == 1
