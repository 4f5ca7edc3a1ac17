"""Stores to look at: an empty one, one with queues only, and one with a small fleet whose every number is known.

The fleet: 2 nodes of 8 GPUs for 24 hours, a sample every quarter. GPUs 0 to 7 work, 8 to 11 are held and do nothing,
12 to 15 are held by nobody; 13 failed, 14 is degraded, 15 tells nothing of its health. A GPU-hour costs 2 dollars.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import polars as pl
import pytest

from dashboards import port
from fleet.batch import Batch, Trouble
from fleet.clock import FixedClock
from fleet.move import Move, MoveKind
from fleet.state import ObjectRef
from fleet.tables import TABLES
from fleet.verdict import Severity, Verdict, verdict_frame
from store.store import Store

END = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOURS = 24
GPUS = 16
PRICE_USD = Decimal(2)


@pytest.fixture
def empty() -> Iterator[Store]:
    yield from opened(lambda _store: None)


@pytest.fixture
def queues_only() -> Iterator[Store]:
    """Give a store as a queue's trace leaves it: demand and verdicts that know they know nothing."""
    yield from opened(fill_with_queues)


@pytest.fixture
def full() -> Iterator[Store]:
    yield from opened(fill_with_fleet)


def opened(fill: Callable[[Store], None], now: datetime = END + timedelta(minutes=3)) -> Iterator[Store]:
    clock = FixedClock(now)
    with Store.open(None, clock=clock) as store:
        fill(store)
        port.provide(store, clock)
        yield store
        port.withdraw()


def fill_with_queues(store: Store) -> None:
    store.append(Batch("replay:queues", {"demand_sample": demand()}, END))
    verdict = Verdict(
        END, "health", "cluster", "east", "unknown", Severity.UNKNOWN, "no_telemetry", {"samples": 0}, cluster="east"
    )
    store.append_stored("verdict", verdict_frame([verdict]))


def fill_with_fleet(store: Store) -> None:
    troubles = (
        Trouble("rejected", "power_w", "below zero", 7, "-3"),
        Trouble("failed", "node-1", "did not answer"),
    )
    frames = {
        "cluster": pl.DataFrame({"cluster": ["east"]}),
        "node": nodes(),
        "gpu": gpus(),
        "gpu_sample": samples(),
        "pod_allocation": allocations(),
        "demand_sample": demand(),
    }
    store.append(Batch("simulator", frames, END, troubles))
    store.roll_up(END - timedelta(hours=HOURS), END)
    keys = dict(store.read("gpu").select("uuid", "gpu").iter_rows())
    store.append_stored("cost_line", costs(keys))
    store.append_stored("verdict", verdict_frame(verdicts()))
    store.append_stored("forecast", forecast())
    plan, moves, outcomes = plans()
    store.append_stored("plan", plan)
    store.append_stored("move", moves)
    store.append_stored("outcome", outcomes)


def uuid(number: int) -> str:
    return f"GPU-{number:04d}"


def hours(count: int = HOURS) -> list[datetime]:
    return [END - timedelta(hours=count - place) for place in range(count)]


def nodes() -> pl.DataFrame:
    rows = [{"cluster": "east", "node": f"node-{number}", "gpus": 8, "is_ready": True} for number in range(GPUS // 8)]
    return pl.DataFrame(rows, schema_overrides={"gpus": pl.Int32})


def gpus() -> pl.DataFrame:
    rows = [
        {
            "gpu_uuid": uuid(number),
            "uuid": uuid(number),
            "cluster": "east",
            "node": f"node-{number // 8}",
            "model": "H100",
            "first_seen_at": END - timedelta(hours=HOURS),
            "last_seen_at": END,
        }
        for number in range(GPUS)
    ]
    return pl.DataFrame(rows)


def samples() -> pl.DataFrame:
    moments = [END - timedelta(minutes=15 * place) for place in range(4 * HOURS, 0, -1)]
    rows = [
        {"gpu_uuid": uuid(number), "ts": ts, "utilization": 0.8 if number < 8 else 0.0}
        for number in range(GPUS - 1)
        for ts in moments
    ]
    return pl.DataFrame(rows, schema_overrides={"utilization": pl.Float32})


def allocations() -> pl.DataFrame:
    rows = [
        {
            "cluster": "east",
            "namespace": "research",
            "pod": f"pod-{number}",
            "pod_uid": f"uid-{number}",
            "workspace": "research" if number < 8 else "serving",
            "gpu_uuid": uuid(number),
            "fraction": 1.0,
            "starts_at": END - timedelta(hours=HOURS),
            "ends_at": None if number < 12 else END - timedelta(hours=1),
        }
        for number in range(13)
    ]
    return pl.DataFrame(rows, schema_overrides={"ends_at": pl.Datetime("us", "UTC")})


def demand() -> pl.DataFrame:
    rows = [
        {
            "cluster": "east",
            "workspace": workspace,
            "ts": ts,
            "running_gpus": running,
            "pending_gpus": pending,
            "capacity_gpus": 8.0,
        }
        for workspace, running, pending in (("research", 7.0, 2.0), ("serving", 4.0, 0.0))
        for ts in hours()
    ]
    return pl.DataFrame(rows)


def costs(keys: dict[str, int]) -> pl.DataFrame:
    rows = [
        {
            "gpu": keys[uuid(number)],
            "starts_at": starts_at,
            "ends_at": starts_at + timedelta(hours=1),
            "cluster": "east",
            "workspace": "research" if number < 8 else ("serving" if number < 12 else None),
            "pod_uid": f"uid-{number}" if number < 12 else None,
            "category": "used" if number < 8 else ("allocated_idle" if number < 12 else "unallocated"),
            "gpu_seconds": 3600.0,
            "usd_per_gpu_hour": PRICE_USD,
            "cost_usd": PRICE_USD,
        }
        for number in range(GPUS)
        for starts_at in hours()
    ]
    return stored("cost_line", rows)


def verdicts() -> list[Verdict]:
    states = {13: ("failed", Severity.CRITICAL), 14: ("degraded", Severity.WARNING), 15: ("unknown", Severity.UNKNOWN)}
    found = []
    for number in range(GPUS):
        state, severity = states.get(number, ("healthy", Severity.OK))
        rule = {"failed": "xid_fatal", "degraded": "ecc_growth", "unknown": "no_telemetry"}.get(state, "no_fault_seen")
        found.append(
            Verdict(
                END, "health", "gpu", uuid(number), state, severity, rule, {"xid": 79, "count": 3},
                cluster="east", node=f"node-{number // 8}", action="drain" if state == "failed" else "none",
                since=END - timedelta(hours=2), coverage=0.98, gpu_hours=2.0, cost_usd=Decimal(4),
            )
        )  # fmt: skip
    chat = "Deployment/serving/chat"
    idle = [("gpu", uuid(number), "none", Severity.INFO, 24.0, "48") for number in range(8, 12)]
    idle += [("workload", chat, "reclaim", Severity.WARNING, 96.0, "192")]
    found += [
        Verdict(
            END, "idle", kind, subject, "idle_held", severity, "all_parts_idle", {"idle_count": 4},
            cluster="east", node="node-1", workspace="serving", workload=chat, action=action,
            since=END - timedelta(hours=24), coverage=1.0, gpu_hours=gpu_hours, cost_usd=Decimal(cost_usd),
        )
        for kind, subject, action, severity, gpu_hours, cost_usd in idle
    ]  # fmt: skip
    # An earlier turn, which must not be counted again.
    earlier = END - timedelta(hours=6)
    found += [
        Verdict(earlier, "health", "gpu", uuid(number), "failed", Severity.CRITICAL, "xid_fatal", cluster="east")
        for number in range(GPUS)
    ]
    return found


def forecast() -> pl.DataFrame:
    rows = [
        {
            "made_at": END,
            "cluster": "*",
            "workspace": "*",
            "ts": END + timedelta(hours=place),
            "forecaster": "seasonal_naive",
            "gpus": 12.0,
            "gpus_lower_80": 10.0,
            "gpus_upper_80": 15.0,
            "capacity_gpus": 16.0,
            "mase": 0.82,
            "coverage_80": 0.79,
        }
        for place in range(24)
    ]
    return stored("forecast", rows)


def plans() -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    moves = [
        Move(
            "m1", MoveKind.SUSPEND_WORKLOAD, "east", ObjectRef("Deployment", "serving", "chat"), "idle_while_held",
            "held for 24 h and did nothing", gpus=4.0, workspace="serving", saving_usd_per_hour=Decimal(8),
        ),
        Move(
            "m2", MoveKind.FENCE_GPU, "east", ObjectRef("Node", "", "node-1"), "xid_fatal", "fell off the bus",
            gpu_uuids=(uuid(13),), gpus=1.0,
        ),
    ]  # fmt: skip
    held = [{"subject": uuid(14), "action": "drain", "reason": "only degraded", "gpus": 1.0}]
    plan = {
        "plan_id": "p1", "made_at": END, "policy": "{}", "move_count": 2, "saving_usd_per_hour": Decimal(8),
        "held_back": json.dumps(held),
    }  # fmt: skip
    rows = [
        {
            "plan_id": "p1", "move_id": move.move_id, "ordinal": place, "kind": move.kind.value,
            "cluster": move.cluster, "target": str(move.target), "reason": move.reason, "body": move.to_json(),
        }
        for place, move in enumerate(moves)
    ]  # fmt: skip
    outcome = {"move_id": "m1", "ts": END, "stage": "applied", "is_dry_run": True, "actor": "demo"}
    return stored("plan", [plan]), stored("move", rows), stored("outcome", [outcome])


def stored(table: str, rows: Sequence[Mapping[str, object]]) -> pl.DataFrame:
    known = TABLES[table].schema()
    return pl.DataFrame(rows, schema={name: known[name] for name in rows[0]})
