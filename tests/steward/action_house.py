"""A small simulated fleet with a desk, plans that fence some of it, and what an answer of the desk says."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from actions.approval_policy import ApprovalPolicy, Graces
from actions.plan import content_of, digest
from actions.policy import ActionPolicy, Budget, Modes
from actions.rows import plan_frames
from fleet.clock import FixedClock
from fleet.move import Move, MoveKind, Plan
from fleet.state import ObjectRef
from steward.compose import House, open_house
from steward.config import Settings
from steward.desk import HouseDesk

START = datetime(2026, 3, 2, tzinfo=UTC)
NOW = START + timedelta(hours=1)
SETTINGS = """
[collect]
sources = ["simulator"]
[simulator]
gpus = 48
days = 1
starts_at = "2026-03-02T00:00:00Z"
"""


@contextmanager
def opened(
    settings: Settings, tmp_path: Path, policy: ActionPolicy | None = None, **wired: object
) -> Iterator[tuple[House, HouseDesk, FixedClock]]:
    clock = FixedClock(NOW)
    chosen = settings if policy is None else settings.model_copy(update={"actions": policy})
    with open_house(chosen, tmp_path / "s.duckdb", clock) as plain:
        house = replace(plain, **wired)  # type: ignore[arg-type]  # fields
        desk = HouseDesk(house)
        desk.operate("collect", {})
        yield house, desk, clock


def fences(house: House, count: int = 3) -> Plan:
    """Record a plan that fences the first GPU of each of some nodes."""
    state, now = house.clusters[0].observe(), house.clock.now()
    moves = []
    for node in state.nodes[:count]:
        gpu = next(each for each in state.gpus if (each.cluster, each.node) == (node.cluster, node.name))
        if gpu.is_fenced:
            continue  # nobody asks for what is so already
        move = Move(
            "", MoveKind.FENCE_GPU, node.cluster, ObjectRef("Node", "", node.name), "xid_79", "it fails",
            (gpu.uuid,), 1.0, node=node.name, pool=node.pool, resource_version=node.resource_version,
            evidence={
                "verdict": {"made_at": now.isoformat(), "until": now.isoformat(), "since": now.isoformat()},
                "before": {"is_fenced": False},
            },
        )  # fmt: skip
        moves.append(replace(move, move_id=digest("test", content_of(move), now)))
    made = Plan(digest("plan", now, count), now, house.settings.actions.to_json(), tuple(moves))
    for table, frame in plan_frames(made).items():
        house.store.append_stored(table, frame)
    return made


def fenced(house: House) -> int:
    return sum(gpu.is_fenced for gpu in house.clusters[0].observe().gpus)


def items(body: Mapping[str, object]) -> list[dict[str, object]]:
    found = body["items"]
    assert isinstance(found, list)
    return found


def states(body: Mapping[str, object]) -> list[object]:
    return [item["state"] for item in items(body)]


WIDE = Budget(64, 1.0, 1.0, 64, 1.0)
ASKING = ActionPolicy(budget=WIDE)
BOLD = ActionPolicy(modes=Modes(fence="auto"), budget=WIDE, approval=ApprovalPolicy(grace_s=Graces(fence=0)))
GRACED = replace(BOLD, approval=ApprovalPolicy(grace_s=Graces(fence=600)))
TWO = ActionPolicy(budget=WIDE, approval=ApprovalPolicy(two_persons_nodes=1))


def later(desk: HouseDesk, clock: FixedClock, **by: float) -> datetime:
    """Let the fleet live on, and return the moment."""
    clock.move(timedelta(**by))
    desk.operate("collect", {})
    return clock.now()
