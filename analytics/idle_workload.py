"""Judge workloads from their parts: one is idle only when all its GPUs and slices are."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType

from fleet.verdict import Severity, Verdict


@dataclass(frozen=True, slots=True)
class Part:
    """A GPU's or slice's verdict, and the (workload, workspace) pairs that hold it."""

    verdict: Verdict
    holders: frozenset[tuple[str, str | None]]
    gpu_uuid: str
    is_mig: bool


def judge_workloads(parts: Iterable[Part], now: datetime) -> list[Verdict]:
    """Return one verdict a workload, sorted by cluster and name."""
    held: dict[tuple[str, str], list[Part]] = defaultdict(list)
    for part in parts:
        for workload in {workload for workload, _ in part.holders}:
            held[part.verdict.cluster or "", workload].append(part)
    return [_judge(workload, held[cluster, workload], now) for cluster, workload in sorted(held)]


def _judge(workload: str, parts: list[Part], now: datetime) -> Verdict:
    verdicts = [part.verdict for part in parts]
    idle = [verdict for verdict in verdicts if _is_idle(verdict)]
    state, rule, action, severity = _state(verdicts, idle)
    nodes = {verdict.node for verdict in verdicts}
    workspaces = {workspace for part in parts for name, workspace in part.holders if name == workload}
    is_idle = state in {"idle", "idle_held"}
    return Verdict(
        made_at=now,
        topic="idle",
        subject_kind="workload",
        subject=workload,
        cluster=verdicts[0].cluster,
        node=nodes.pop() if len(nodes) == 1 else None,
        workspace=workspaces.pop() if len(workspaces) == 1 else None,
        workload=workload,
        state=state,
        severity=severity,
        rule=rule,
        action=action,
        since=max((v.since for v in idle if v.since is not None), default=None) if is_idle else None,
        until=min((v.until for v in verdicts if v.until is not None), default=None),
        coverage=min((v.coverage for v in verdicts if v.coverage is not None), default=None),
        gpu_hours=_hours(idle),
        cost_usd=_cost(idle),
        evidence=MappingProxyType(
            {
                "parts": sorted(verdict.subject for verdict in verdicts),
                "idle_parts": sorted(verdict.subject for verdict in idle),
                "part_count": len(verdicts),
                "idle_count": len(idle),
            }
        ),
    )


def _is_idle(verdict: Verdict) -> bool:
    return verdict.state in {"idle", "idle_held"}


def _state(verdicts: list[Verdict], idle: list[Verdict]) -> tuple[str, str, str, Severity]:
    """Return state, rule, action and severity."""
    states = {verdict.state for verdict in verdicts}
    if "active" in states and idle:
        return "active", "some_parts_idle", "recommend_fewer", Severity.INFO
    if "active" in states:
        return "active", "active_parts", "none", Severity.OK
    if "unknown" in states:
        return "unknown", "some_parts_unknown", "none", Severity.UNKNOWN
    state = "idle_held" if "idle_held" in states else "idle"
    if any(verdict.rule == "usual_pause" for verdict in idle):
        return state, "usual_pause", "none", Severity.INFO
    return state, "all_parts_idle", "reclaim", Severity.WARNING


def _hours(verdicts: list[Verdict]) -> float | None:
    hours = [verdict.gpu_hours for verdict in verdicts if verdict.gpu_hours is not None]
    return sum(hours) if hours else None


def _cost(verdicts: list[Verdict]) -> Decimal | None:
    """Return the sum, or None where any part is unpriced: half a bill is none."""
    costs = [verdict.cost_usd for verdict in verdicts if verdict.cost_usd is not None]
    return sum(costs, Decimal(0)) if costs and len(costs) == len(verdicts) else None
