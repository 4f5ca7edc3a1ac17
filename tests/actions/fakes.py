"""A cluster in memory that can be looked at, moved, disturbed and made to fail, and builders of small fleets."""

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import Any, TypeVar

from actions.approval import content_digest
from actions.approval_policy import ApprovalPolicy, Graces
from actions.fields import OUR_NAME, fields_of, version_of
from actions.index import index_of
from actions.policy import ActionPolicy, Budget, Modes
from fleet.approval import Approval, Step
from fleet.clock import FixedClock
from fleet.errors import MoveRefused, SourceFailed, StaleState
from fleet.move import Move, MoveKind, Plan, Value
from fleet.state import FleetState, Gpu, Node, ObjectRef, Pod, Quota, Workload
from fleet.verdict import Severity, Verdict

Built = TypeVar("Built", Workload, Verdict, Quota)
Versioned = TypeVar("Versioned", Node, Workload, Quota)

AUTO = Modes("auto", "auto", "auto")
WIDE = Budget(
    max_gpus_per_hour=10_000,
    max_share_of_workspace=1.0,
    max_share_of_pool=1.0,
    max_nodes_per_turn=1000,
    max_share_of_nodes_per_turn=1.0,
)
NO_GRACE = Graces(reclaim=0, stalled=0, budget=0, reslice=0, defragment=0)
UNASKED = ApprovalPolicy(two_persons_gpus=1_000_000, two_persons_nodes=1_000_000, grace_s=NO_GRACE)
"""Nobody is asked about what a rule in mode "auto" does, and it is done at once."""
FREE = ActionPolicy(modes=AUTO, budget=WIDE, approval=UNASKED)


class FakeCluster:
    """A cluster as a value. `refused` and `broken` name targets whose moves are refused or get no answer."""

    def __init__(self, state: FleetState, clock: FixedClock, name: str = "c1") -> None:
        self.state = state
        self.clock = clock
        self._name = name
        self.refused: set[str] = set()
        self.broken: set[str] = set()
        self.blind_after_make = False
        self.is_blind = False
        self.made: list[Move] = []
        self.before_make: Callable[[Move], None] = lambda _: None
        self.after_make: Callable[[Move], None] = lambda _: None

    @property
    def name(self) -> str:
        return self._name

    def observe(self) -> FleetState:
        if self.is_blind:
            message = "no route to the cluster"
            raise SourceFailed(message)
        return replace(self.state, taken_at=self.clock.now())

    def observe_for(self, _move: Move) -> FleetState:
        return self.observe()

    def rehearse(self, move: Move) -> None:
        self._check(move)

    def make(self, move: Move) -> str:
        self.before_make(move)
        prior = self._check(move)
        if move.target.name in self.broken:
            message = "time-out"
            raise SourceFailed(message)
        self._change(move)
        self.made.append(move)
        self.is_blind = self.blind_after_make
        self.after_make(move)
        return prior

    def set_node(self, name: str, **changes: Any) -> None:
        self.state = replace(
            self.state,
            nodes=tuple(_bumped(each, changes) if each.name == name else each for each in self.state.nodes),
        )

    def set_workload(self, name: str, **changes: Any) -> None:
        self.state = replace(
            self.state,
            workloads=tuple(_bumped(each, changes) if each.ref.name == name else each for each in self.state.workloads),
        )

    def set_quota(self, workspace: str, **changes: Any) -> None:
        self.state = replace(
            self.state,
            quotas=tuple(_bumped(each, changes) if each.workspace == workspace else each for each in self.state.quotas),
        )

    def _check(self, move: Move) -> str:
        index = index_of(self.state)
        fields = fields_of(move, index)
        if fields is None:
            message = f"404 {move.target}"
            raise StaleState(message)
        if move.resource_version not in {"", version_of(move, index)}:
            message = f"409 {move.target}"
            raise StaleState(message)
        if move.target.name in self.refused:
            message = f"403 {move.target}"
            raise MoveRefused(message)
        return json.dumps(fields)

    def _change(self, move: Move) -> None:
        name = move.target.name
        match move.kind:
            case MoveKind.FENCE_GPU | MoveKind.UNFENCE_GPU:
                is_fenced = move.kind is MoveKind.FENCE_GPU
                gpus = tuple(
                    replace(gpu, is_fenced=is_fenced) if gpu.uuid in move.gpu_uuids else gpu for gpu in self.state.gpus
                )
                self.state = replace(self.state, gpus=gpus)
                self.set_node(name)
            case MoveKind.CORDON_NODE:
                self.set_node(name, is_schedulable=False, cordoned_by=OUR_NAME)
            case MoveKind.UNCORDON_NODE:
                self.set_node(name, is_schedulable=True, cordoned_by=None)
            case MoveKind.SUSPEND_WORKLOAD:
                self.set_workload(name, is_suspended=True, suspended_by=OUR_NAME, replicas=0)
            case MoveKind.RESUME_WORKLOAD:
                self.set_workload(name, is_suspended=False, suspended_by=None, replicas=move.arguments["replicas"])
            case MoveKind.SET_QUOTA:
                self.set_quota(name, gpus=move.arguments["gpus"], borrowing_gpus=move.arguments["borrowing_gpus"])


def agreed(
    made: Plan, at: datetime, *names: str, persons: int = 1, only: Iterable[str] | None = None
) -> list[Approval]:
    """Build the rows of moves that were proposed at a moment and approved by these persons, by tokens of their own."""
    rows = []
    for move in made.moves:
        if only is None or move.move_id in only:
            asked = Approval(content_digest(move), move.move_id, made.plan_id, at, Step.PROPOSED, "gpu-steward")
            rows.append(replace(asked, expires_at=at + timedelta(hours=24), person_count=persons))
            rows += [replace(asked, step=Step.APPROVED, who=name, person_count=1) for name in names or ("ann",)]
    return rows


def without_versions(state: FleetState) -> FleetState:
    """Return the state with what every write changes left out: resource versions and the moment."""
    return replace(
        state,
        taken_at=datetime.fromisoformat("2026-01-01T00:00:00Z"),
        nodes=tuple(replace(each, resource_version="") for each in state.nodes),
        workloads=tuple(replace(each, resource_version="") for each in state.workloads),
        quotas=tuple(replace(each, resource_version="") for each in state.quotas),
    )


def fleet(
    now: datetime,
    *,
    node_count: int = 4,
    gpus_per_node: int = 4,
    workloads: Iterable[Workload] = (),
    quotas: Iterable[Quota] = (),
    fenced: Iterable[str] = (),
) -> FleetState:
    """Build a fleet of nodes n0, n1, ... with GPUs n0-0, n0-1, ... in pool p of cluster c1."""
    out = set(fenced)
    names = [f"n{number}" for number in range(node_count)]
    held = tuple(workloads)
    return FleetState(
        taken_at=now,
        nodes=tuple(Node("c1", name, pool="p", resource_version="1") for name in names),
        gpus=tuple(
            Gpu(f"{name}-{place}", "c1", name, index=place, is_fenced=f"{name}-{place}" in out)
            for name in names
            for place in range(gpus_per_node)
        ),
        workloads=held,
        pods=tuple(
            Pod("c1", each.ref.namespace, f"{each.ref.name}-0", f"{each.ref.name}-uid", "n0", each.ref, each.gpu_uuids)
            for each in held
        ),
        quotas=tuple(quotas),
    )


def workload(name: str, gpus: Iterable[str], started_at: datetime | None, **changes: Any) -> Workload:
    """Build a Job in namespace "team" of workspace "research"."""
    plain = Workload(
        "c1",
        ObjectRef("Job", "team", name),
        "research",
        owner="ann",
        pods=(f"{name}-uid",),
        gpu_uuids=tuple(gpus),
        replicas=2,
        started_at=started_at,
        resource_version="1",
    )
    return _changed(plain, changes)


def idle(name: str, now: datetime, *, hours: float = 6.0, **changes: Any) -> Verdict:
    """Build the verdict that a whole workload idles for that many hours."""
    plain = Verdict(
        made_at=now,
        topic="idle",
        subject_kind="workload",
        subject=f"Job/team/{name}",
        state="idle",
        severity=Severity.WARNING,
        rule="all_parts_idle",
        action="reclaim",
        cluster="c1",
        workspace="research",
        workload=f"Job/team/{name}",
        since=now - timedelta(hours=hours),
        until=now,
        coverage=1.0,
        evidence=MappingProxyType({"usd_per_gpu_hour": "2.50"}),
    )
    return _changed(plain, changes)


def part(uuid: str, now: datetime, state: str, *, action: str = "none", **changes: Any) -> Verdict:
    """Build an idle verdict of one GPU."""
    plain = replace(idle("", now), subject_kind="gpu", subject=uuid, state=state, action=action, workload=None)
    return _changed(plain, changes)


def failing(uuid: str, now: datetime, **changes: Any) -> Verdict:
    """Build the verdict that a GPU fails and is to be fenced."""
    plain = Verdict(
        made_at=now,
        topic="health",
        subject_kind="gpu",
        subject=uuid,
        state="failing",
        severity=Severity.CRITICAL,
        rule="xid_79",
        action="fence",
        cluster="c1",
        until=now,
        evidence=MappingProxyType({"xid": 79}),
    )
    return _changed(plain, changes)


def demand(workspace: str, now: datetime, median: float, upper: float | None, **changes: Any) -> Verdict:
    """Build the demand verdict of one workspace."""
    evidence = {"forecast_gpus": median} if upper is None else {"forecast_gpus": median, "forecast_upper_gpus": upper}
    plain = Verdict(
        made_at=now,
        topic="demand",
        subject_kind="workspace",
        subject=workspace,
        state="forecast",
        severity=Severity.INFO,
        rule="forecast",
        cluster="c1",
        workspace=workspace,
        until=now,
        evidence=MappingProxyType(evidence),
    )
    return _changed(plain, changes)


def quota(workspace: str, gpus: float, **changes: Any) -> Quota:
    """Build a quota of pool p."""
    return _changed(Quota("c1", workspace, gpus, pool="p", resource_version="1"), changes)


def money(text: str) -> Decimal:
    return Decimal(text)


def _changed(value: Built, changes: dict[str, Any]) -> Built:
    return replace(value, **changes)


def _bumped(value: Versioned, changes: dict[str, Any]) -> Versioned:
    return replace(value, **{**changes, "resource_version": str(int(value.resource_version) + 1)})


def set_to(quota: Quota, **numbers: Value) -> Move:
    """Build the move that sets a quota's numbers, those that are not given left as they are."""
    told: dict[str, Value] = {"gpus": quota.gpus, "borrowing_gpus": quota.borrowing_gpus, **numbers}
    return Move(
        "m1", MoveKind.SET_QUOTA, "c1", ObjectRef("Quota", "", quota.workspace), "demand", "it lacks some",
        workspace=quota.workspace, resource_version=quota.resource_version,
        arguments=MappingProxyType({"pool": quota.pool, "model": quota.model, **told}),
    )  # fmt: skip
