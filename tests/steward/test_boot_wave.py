"""From events in the store to the breaker: nodes that booted together and fail at once are not fenced."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from actions.plan import plan
from actions.policy import ActionPolicy, Modes
from fleet.batch import Batch
from fleet.clock import FixedClock
from fleet.state import FleetState, Gpu, Node
from fleet.verdict import Verdict
from steward.config import load_settings
from steward.health_turn import judge_fleet_health
from store.store import Store
from tests.actions.fakes import WIDE

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
NODES, GPUS = 10, 2
# each a code of its own, so that by its code alone none of them is common
CODES = (79, 95, 48, 64, 74, 119)
POLICY = ActionPolicy(modes=Modes(fence="auto"), budget=WIDE)


def rows(*, booted: bool, drivers: dict[int, str]) -> Batch:
    names = [(f"GPU-{node}-{place}", node) for node in range(NODES) for place in range(GPUS)]
    gpus = [
        {"gpu_uuid": uuid, "uuid": uuid, "cluster": "east", "node": f"n{node}", "model": "H100",
         "driver": drivers.get(node), "first_seen_at": NOW - timedelta(days=9), "last_seen_at": NOW}
        for uuid, node in names
    ]  # fmt: skip
    events = [
        {"ts": NOW - 20 * MINUTE, "cluster": "east", "node": f"n{place // GPUS}", "kind": "xid", "code": code,
         "gpu_uuid": f"GPU-{place // GPUS}-{place % GPUS}", "message": "", "source": "kernel"}
        for place, code in enumerate(CODES)
    ]  # fmt: skip
    boots = [
        {"ts": NOW - (40 + node) * MINUTE, "cluster": "east", "node": f"n{node}", "kind": "boot", "code": None,
         "gpu_uuid": None, "message": "", "source": "kernel"}
        for node in range(len(CODES) // GPUS)
    ]  # fmt: skip
    told = pl.DataFrame([*events, *(boots if booted else [])], infer_schema_length=None)
    return Batch("test", {"gpu": pl.DataFrame(gpus, infer_schema_length=None), "event": told}, NOW)


@pytest.fixture
def store() -> Iterator[Store]:
    with Store.open(None, clock=FixedClock(NOW)) as opened:
        yield opened


def judged(store: Store, batch: Batch) -> tuple[Verdict, ...]:
    store.append(batch)
    return judge_fleet_health(store.engine, load_settings(None, {}), {}, NOW).verdicts


def state() -> FleetState:
    return FleetState(
        NOW,
        nodes=tuple(Node("east", f"n{node}", pool="p", resource_version="1") for node in range(NODES)),
        gpus=tuple(
            Gpu(f"GPU-{node}-{place}", "east", f"n{node}", place) for node in range(NODES) for place in range(GPUS)
        ),
    )


def test_a_wave_of_boots_holds_the_fence_and_its_words_say_so(store: Store) -> None:
    made = plan(state(), judged(store, rows(booted=True, drivers={})), POLICY, NOW)
    assert [move for move in made.moves if move.rule in {"", "fence"}] == []
    assert any("share the boots of the hour from 2026-03-02T10:30" in each.reason for each in made.held_back)


def test_without_the_boots_the_same_failures_are_fenced(store: Store) -> None:
    made = plan(state(), judged(store, rows(booted=False, drivers={})), POLICY, NOW)
    assert made.moves


def test_a_driver_that_only_the_inventory_knows_is_shared_too(store: Store) -> None:
    told = judged(store, rows(booted=False, drivers={0: "580.1", 1: "580.1", 2: "580.1"}))
    made = plan(state(), told, POLICY, NOW)
    assert made.moves == ()
    assert any("share driver 580.1" in each.reason for each in made.held_back)
