"""What a replayed policy would have been worth: its moves held against what the record says happened later."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

import polars as pl

from analytics.fault_history import gpu_faults, history_events, node_faults
from fleet.move import MoveKind
from steward.policy_partial import leaving, name_of
from steward.policy_replay import Past, Replayed, concerned, stops
from steward.policy_state import Held
from steward.policy_world import Stood
from store.store import Store

_MICRO = Decimal("0.000001")
_LOOK_BACK = timedelta(days=1)
_LOOK_AHEAD = timedelta(days=7)
_FENCES = {MoveKind.FENCE_GPU, MoveKind.CORDON_NODE}


@dataclass(frozen=True, slots=True)
class Reclaim:
    """One workload that would have been stopped: what that freed until it worked again, ended, or the record did.

    `worked_at` is when one of its devices worked next, by later samples; None: it never did. `usd` is None where one
    of its GPUs has no price.
    """

    at: datetime
    kind: str
    cluster: str
    workload: str
    workspace: str | None
    owner: str | None
    gpus: float
    freed_until: datetime
    gpu_hours: float
    usd: Decimal | None
    worked_at: datetime | None
    freed: tuple[tuple[str, float, datetime], ...]

    @property
    def wanted_after(self) -> timedelta | None:
        """Return how soon it would have been wanted again; None: never."""
        return None if self.worked_at is None else self.worked_at - self.at


@dataclass(frozen=True, slots=True)
class Fence:
    """One GPU or node that would have been taken out of use, and the fault that the record has of it.

    `fault_at` is the first fault event of the day before, else of the week after; None: no event tells of one, only
    the verdicts did. `lead_h` is positive where the fence came first.
    """

    at: datetime
    kind: str
    cluster: str
    node: str
    gpu_uuids: tuple[str, ...]
    gpus: float
    rule: str
    ends_at: datetime | None
    fault_at: datetime | None
    fault: str | None

    @property
    def lead_h(self) -> float | None:
        """Return the hours from the fence to the fault."""
        return None if self.fault_at is None else (self.fault_at - self.at) / timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Faults:
    """The faults that the record tells of, by GPU UUID and by cluster/node: moments and kinds, in order."""

    of_gpus: Mapping[str, Sequence[tuple[datetime, str]]]
    of_nodes: Mapping[str, Sequence[tuple[datetime, str]]]


def read_faults(store: Store, past: Past) -> Faults:
    """Read the faults of the stretch, the day before it and what came after."""
    days = (past.data_until - past.stretch.since + _LOOK_BACK) / timedelta(days=1)
    events = store.engine.run(history_events(store.engine, past.data_until, days))
    return Faults(_by_subject(gpu_faults(events)), _by_subject(node_faults(events)))


def reckon_reclaims(run: Replayed, past: Past) -> list[Reclaim]:
    """Return what each stop would have freed."""
    return [_reclaim(each, run, past) for each in stops(run)]


def reckon_fences(run: Replayed, faults: Faults) -> list[Fence]:
    """Return what each fence and cordon was worth."""
    return [_fence(each, faults) for each in run.made if each.move.kind in _FENCES]


def unfenced(fences: Sequence[Fence], faults: Faults, past: Past) -> dict[str, tuple[datetime, str]]:
    """Return the GPUs with a fault in the stretch that no fence reached within a day: first fault and kind."""
    missed = {}
    for uuid, found in faults.of_gpus.items():
        inside = [each for each in found if past.stretch.since <= each[0] <= past.stretch.until]
        if not inside:
            continue
        at, kind = inside[0]
        covering = (
            fence
            for fence in fences
            if uuid in fence.gpu_uuids
            and fence.at <= at + _LOOK_BACK
            and (fence.ends_at is None or fence.ends_at >= at)
        )
        if next(covering, None) is None:
            missed[uuid] = (at, kind)
    return missed


def _reclaim(stood: Stood, run: Replayed, past: Past) -> Reclaim:
    move, at = stood.move, stood.at
    taken = _taken_before(stood, run)
    held = [each for each in concerned(move, past.held) if name_of(each) not in taken]
    worked = past.work.first(held, at)
    freed = [
        (each, _end(each, worked, past.data_until))
        for each in held
        if each.starts_at <= at and (each.ends_at is None or each.ends_at > at)
    ]
    hours = sum(each.fraction * ((until - at) / timedelta(hours=1)) for each, until in freed)
    return Reclaim(
        at=at,
        kind=move.kind.value,
        cluster=move.cluster,
        workload=str(move.target),
        workspace=move.workspace,
        owner=max((each.owner for each in held if each.owner is not None), default=None),
        gpus=sum(each.fraction for each, _ in freed),
        freed_until=max((until for _, until in freed), default=at),
        gpu_hours=hours,
        usd=_worth(freed, at, past.record.usd_per_gpu_hour),
        worked_at=worked,
        freed=tuple((each.gpu_uuid, each.fraction, until) for each, until in freed),
    )


def _taken_before(stood: Stood, run: Replayed) -> frozenset[str]:
    """Return the pods of a workload that were taken away before it was stopped: their hours are told there."""
    key = (stood.move.cluster, stood.move.target)
    earlier = (
        leaving(each.move)
        for each in run.made
        if (each.move.cluster, each.move.target) == key
        and each.at < stood.at
        and (each.ends_at is None or each.ends_at > stood.at)
    )
    return frozenset().union(*earlier)


def _end(held: Held, worked: datetime | None, data_until: datetime) -> datetime:
    ends = [data_until, *([] if worked is None else [worked]), *([] if held.ends_at is None else [held.ends_at])]
    return min(ends)


def _worth(freed: Sequence[tuple[Held, datetime]], at: datetime, rates: Mapping[str, Decimal]) -> Decimal | None:
    if any(each.gpu_uuid not in rates for each, _ in freed):
        return None
    worth = Decimal(0)
    for each, until in freed:
        seconds = Decimal(round((until - at).total_seconds()))
        worth += rates[each.gpu_uuid] * Decimal(str(each.fraction)) * seconds / 3600
    return worth.quantize(_MICRO)


def _fence(stood: Stood, faults: Faults) -> Fence:
    move = stood.move
    if move.kind is MoveKind.FENCE_GPU:
        told = [each for uuid in move.gpu_uuids for each in faults.of_gpus.get(uuid, ())]
    else:
        told = list(faults.of_nodes.get(f"{move.cluster}/{move.target.name}", ()))
    before = [each for each in sorted(told) if stood.at - _LOOK_BACK <= each[0] <= stood.at]
    after = [each for each in sorted(told) if stood.at < each[0] <= stood.at + _LOOK_AHEAD]
    first = next(iter(before or after), None)
    fault_at, fault = (None, None) if first is None else first
    return Fence(
        at=stood.at,
        kind=move.kind.value,
        cluster=move.cluster,
        node=move.target.name,
        gpu_uuids=move.gpu_uuids,
        gpus=move.gpus,
        rule=move.cause,
        ends_at=stood.ends_at,
        fault_at=fault_at,
        fault=fault,
    )


def _by_subject(faults: pl.DataFrame) -> dict[str, list[tuple[datetime, str]]]:
    found: dict[str, list[tuple[datetime, str]]] = {}
    for subject, ts, kind in faults.sort("ts").select("subject", "ts", "kind").iter_rows():
        found.setdefault(subject, []).append((ts, kind))
    return found
