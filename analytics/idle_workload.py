"""Judge workloads and workspaces from their parts: one is idle only when all its GPUs and slices are."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime

from analytics.idle_case import Holder, frozen
from analytics.idle_parts import IDLE, Part, common_since, severity_of, state_of_many, sum_cost, sum_hours
from analytics.workload_kinds import facts_of, kind_of
from fleet.verdict import Severity, Verdict


def judge_workloads(parts: Iterable[Part], pods: Iterable[Verdict], now: datetime) -> list[Verdict]:
    """Return one verdict a workload, sorted by cluster and name; `pods` are the verdicts on its pods.

    Some of a gang's pods idle while others work: a straggler, to be looked at and never stopped by itself. Some
    replicas of a service do: fewer would do, and the others stay.
    """
    held: dict[tuple[str, str], list[Part]] = defaultdict(list)
    for part in parts:
        for workload in {holder.workload for holder in part.holders}:
            held[part.verdict.cluster or "", workload].append(part)
    members: dict[tuple[str, str], list[Verdict]] = defaultdict(list)
    for pod in pods:
        members[pod.cluster or "", pod.workload or ""].append(pod)
    return [_judge(key[1], held[key], members[key], now) for key in sorted(held)]


def _judge(workload: str, parts: list[Part], pods: list[Verdict], now: datetime) -> Verdict:
    told = [(part.verdict, part.state_for(workload)) for part in parts]
    verdicts = [verdict for verdict, _ in told]
    idle = [verdict for verdict, state in told if state in IDLE]
    shared = any(len({holder.workload for holder in part.holders}) > 1 for part in parts)
    state, rule = state_of_many([state for _, state in told], shared=shared)
    action = _action(state, rule)
    idle_pods = [pod for pod in pods if pod.state in IDLE]
    facts = facts_of(kind_of(workload))
    if action == "recommend_fewer" and facts.is_gang and idle_pods:
        state, rule, action = "active", "straggler", "inspect"
    holders = [holder for part in parts for holder in part.holders if holder.workload == workload]
    nodes = {verdict.node for verdict in verdicts}
    return Verdict(
        made_at=now,
        topic="idle",
        subject_kind="workload",
        subject=workload,
        cluster=verdicts[0].cluster,
        node=nodes.pop() if len(nodes) == 1 else None,
        workspace=_only({holder.workspace for holder in holders}),
        workload=workload,
        state=state,
        severity=Severity.WARNING if rule == "straggler" else severity_of(state),
        rule=rule,
        action=action,
        since=_since(state, [state for _, state in told], verdicts, idle),
        until=min((v.until for v in verdicts if v.until is not None), default=None),
        coverage=min((v.coverage for v in verdicts if v.coverage is not None), default=None),
        gpu_hours=sum_hours(idle),
        cost_usd=sum_cost(idle),
        evidence=frozen(
            {
                "parts": sorted(verdict.subject for verdict in verdicts),
                "idle_parts": sorted(verdict.subject for verdict in idle),
                "part_count": len(verdicts),
                "idle_count": len(idle),
                "pod_count": len(pods),
                "idle_pods": sorted(pod.subject for pod in idle_pods),
                "owner": _only({holder.owner for holder in holders}),
                "use": facts.use,
                "stop": facts.stop,
                "is_gang": facts.is_gang,
                "last_active_at": _last_active(verdicts),
                "window_s": max(_numbers(verdicts, "window_s"), default=None),
                "gpus_needed": _gpus(holders) - len(idle) if action == "recommend_fewer" else None,
            }
        ),
    )


def _since(state: str, states: Sequence[str], verdicts: Sequence[Verdict], idle: Sequence[Verdict]) -> datetime | None:
    """Return since when all of it does nothing: of what hangs, only where no part of it works or is unknown."""
    if state == "stalled":
        return common_since(verdicts) if set(states) <= {*IDLE, "stalled"} else None
    return common_since(idle) if state in {*IDLE, "bursty"} else None


def _action(state: str, rule: str) -> str:
    if state in IDLE:
        return "reclaim"
    if state == "stalled":
        return "inspect"
    if state == "under_used":
        return "recommend_fewer" if rule == "some_parts_idle" else "recommend_smaller"
    return "none"


def judge_workspaces(parts: Iterable[Part], now: datetime) -> list[Verdict]:
    """Return one verdict a workspace and cluster: what of what it holds is idle, stalled, too large or unknown.

    It is never told to give anything back itself: its workloads are.
    """
    held: dict[tuple[str, str], list[tuple[Verdict, str, float]]] = defaultdict(list)
    for part in parts:
        shares: Counter[str] = Counter()
        for holder in part.holders:
            if holder.workspace is not None:
                shares[holder.workspace] += 1
        for workspace, count in shares.items():
            key = part.verdict.cluster or "", workspace
            mine = [holder for holder in part.holders if holder.workspace == workspace]
            state = "unknown" if count == 0 else part.state_for(mine[0].workload)
            held[key].append((part.verdict, state, min(1.0, sum(holder.fraction for holder in mine))))
    return [_workspace(*key, held[key], now) for key in sorted(held)]


def _workspace(cluster: str, workspace: str, held: list[tuple[Verdict, str, float]], now: datetime) -> Verdict:
    idle = [verdict for verdict, state, _ in held if state in IDLE]
    gpus: dict[str, float] = defaultdict(float)
    for _, state, fraction in held:
        gpus[state] += fraction
    state, rule = state_of_many([state for _, state, _ in held])
    mine = [verdict for verdict in idle if verdict.workspace == workspace]
    return Verdict(
        made_at=now,
        topic="idle",
        subject_kind="workspace",
        subject=workspace,
        cluster=cluster,
        workspace=workspace,
        state=state,
        severity=Severity.INFO if state in IDLE else severity_of(state),
        rule=rule,
        action="none",
        since=common_since(idle) if state in IDLE else None,
        until=min((v.until for v, _, _ in held if v.until is not None), default=None),
        coverage=min((v.coverage for v, _, _ in held if v.coverage is not None), default=None),
        gpu_hours=sum_hours(mine),
        cost_usd=sum_cost(mine),
        evidence=frozen({"gpus_by_state": dict(sorted(gpus.items())), "part_count": len(held)}),
    )


def _numbers(verdicts: Sequence[Verdict], name: str) -> list[float]:
    return [value for verdict in verdicts if isinstance(value := verdict.evidence.get(name), float)]


def _last_active(verdicts: Sequence[Verdict]) -> str | None:
    told = [value for verdict in verdicts if isinstance(value := verdict.evidence.get("last_active_at"), str)]
    return max(told, default=None)


def _gpus(holders: Iterable[Holder]) -> int:
    return round(sum(holder.fraction for holder in holders))


def _only(names: set[str | None]) -> str | None:
    return names.pop() if len(names) == 1 else None
