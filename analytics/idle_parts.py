"""Judge pods from the GPUs and slices they hold: each by its own devices, whatever its workload's others do."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from analytics.idle_case import Holder, frozen
from analytics.workload_kinds import facts_of
from fleet.verdict import Severity, Verdict

IDLE = frozenset({"idle", "idle_held"})
QUIET = frozenset({"idle", "idle_held", "bursty"})
WORKING = frozenset({"active", "under_used"})


@dataclass(frozen=True, slots=True)
class Part:
    """A GPU's or slice's verdict, and the pods that hold it."""

    verdict: Verdict
    holders: tuple[Holder, ...]
    gpu_uuid: str
    is_mig: bool

    def state_for(self, workload: str) -> str:
        """Return its state as far as it tells of one of its workloads.

        A shared device that works tells of none of those that share it: each may be the one that idles.
        """
        state = self.verdict.state
        is_shared = len({holder.workload for holder in self.holders}) > 1
        return "unknown" if is_shared and state not in QUIET and workload else state


def judge_pods(parts: Iterable[Part], now: datetime) -> list[Verdict]:
    """Return one verdict a pod, sorted by cluster and name; a pod of a kind with replicas is a `replica`."""
    held: dict[tuple[str, str], list[tuple[Part, Holder]]] = defaultdict(list)
    for part in parts:
        for holder in part.holders:
            held[part.verdict.cluster or "", holder.pod_uid].append((part, holder))
    verdicts = [_judge(pairs, now) for pairs in held.values()]
    return sorted(verdicts, key=lambda verdict: (verdict.cluster or "", verdict.subject, str(verdict.evidence)))


def _judge(pairs: list[tuple[Part, Holder]], now: datetime) -> Verdict:
    holder = pairs[0][1]
    by_subject = {part.verdict.subject: (part, part.state_for(holder.workload)) for part, _ in pairs}
    states = [state for _, state in by_subject.values()]
    idle = [part.verdict for part, state in by_subject.values() if state in IDLE]
    state, rule = state_of_many(states, shared=_is_shared(pairs))
    verdicts = [part.verdict for part, _ in by_subject.values()]
    action = "none"
    if state == "under_used" and idle:
        action = "recommend_fewer"
    elif state in IDLE:
        action = "reclaim"
    return Verdict(
        made_at=now,
        topic="idle",
        subject_kind="pod" if facts_of(holder.kind).use != "serving" else "replica",
        subject=holder.pod,
        cluster=verdicts[0].cluster,
        node=verdicts[0].node,
        workspace=holder.workspace,
        workload=holder.workload,
        state=state,
        severity=severity_of(state),
        rule=rule,
        action=action,
        since=common_since(idle) if state in IDLE else None,
        until=min((v.until for v in verdicts if v.until is not None), default=None),
        coverage=min((v.coverage for v in verdicts if v.coverage is not None), default=None),
        gpu_hours=sum_hours(idle),
        cost_usd=sum_cost(idle),
        evidence=frozen(
            {
                "pod_uid": holder.pod_uid,
                "owner": holder.owner,
                "parts": sorted(by_subject),
                "idle_parts": sorted(verdict.subject for verdict in idle),
                "part_count": len(by_subject),
                "idle_count": len(idle),
            }
        ),
    )


def _is_shared(pairs: Sequence[tuple[Part, Holder]]) -> bool:
    return any(len({holder.workload for holder in part.holders}) > 1 for part, _ in pairs)


def state_of_many(states: Sequence[str], *, shared: bool = False) -> tuple[str, str]:
    """Return the state and the rule of what is made of parts in these states.

    Some at work and some idle is `under_used`: fewer would do. One unknown part makes all unknown unless some work;
    one that stalls makes the whole stalled, since a gang waits for its last member.
    """
    found = set(states)
    if "stalled" in found:
        return "stalled", "some_parts_stalled"
    if found & WORKING:
        if found & IDLE:
            return "under_used", "some_parts_idle"
        return ("under_used", "smaller_would_do") if found == {"under_used"} else ("active", "active_parts")
    if "unknown" in found:
        return "unknown", "shared_device" if shared else "some_parts_unknown"
    if "bursty" in found:
        return "bursty", "usual_pause"
    return ("idle_held" if "idle_held" in found else "idle"), "all_parts_idle"


def severity_of(state: str) -> Severity:
    """Return how bad a state is by itself."""
    found = {"active": Severity.OK, "unknown": Severity.UNKNOWN, "stalled": Severity.WARNING}
    return Severity.WARNING if state in IDLE else found.get(state, Severity.INFO)


def common_since(verdicts: Sequence[Verdict]) -> datetime | None:
    """Return since when all of them idle: the latest of their moments."""
    return max((verdict.since for verdict in verdicts if verdict.since is not None), default=None)


def sum_hours(verdicts: Sequence[Verdict]) -> float | None:
    """Return the GPU-hours of verdicts together; None where none tells any."""
    hours = [verdict.gpu_hours for verdict in verdicts if verdict.gpu_hours is not None]
    return sum(hours) if hours else None


def sum_cost(verdicts: Sequence[Verdict]) -> Decimal | None:
    """Return the sum, or None where any part is unpriced: half a bill is none."""
    costs = [verdict.cost_usd for verdict in verdicts if verdict.cost_usd is not None]
    return sum(costs, Decimal(0)) if costs and len(costs) == len(verdicts) else None
