"""The part of reclaiming that gives back some replicas of a service: those that idle, never the last one.

Only kinds whose replicas are alike and come back by themselves. A gang is stopped whole or not at all; how many of a
StatefulSet's replicas can go depends on which of them idle, since the last ones go first.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from actions.budget import Made
from actions.evidence import Draft, carried, hold, saving, why_unfit
from actions.index import FleetIndex
from fleet.move import HeldBack, Move, MoveKind
from fleet.state import Pod, Workload
from fleet.verdict import Verdict

if TYPE_CHECKING:
    from actions.policy import ActionPolicy

FEWER = "recommend_fewer"
FLOOR = "replicas_floor"  # what the evidence may say is the least that an autoscaler keeps
_ORDINAL = re.compile(r"-(\d+)$")


def propose_fewer(
    idle: Sequence[Verdict], index: FleetIndex, policy: "ActionPolicy", now: datetime, recent: Sequence[Made]
) -> tuple[list[Draft], list[HeldBack]]:
    """Return the services that go on with the replicas that work, and why others stay as they are."""
    drafts: list[Draft] = []
    held: list[HeldBack] = []
    for verdict in idle:
        if verdict.action != FEWER or verdict.subject_kind != "workload":
            continue
        found = index.find_workloads(verdict.workload or verdict.subject, verdict.cluster)
        replicas = [each for each in idle if each.subject_kind == "replica" and each.workload == verdict.workload]
        step = (
            _step(verdict, found[0], replicas, index, policy=policy, now=now, recent=recent)
            if len(found) == 1
            else ("several workloads bear this name" if found else "it is gone")
        )
        if isinstance(step, Draft):
            drafts.append(step)
        else:
            held.append(hold(verdict, f"only a part of its workload idles: recommend fewer GPUs; {step}", 1.0))
    return drafts, held


def _step(
    verdict: Verdict,
    workload: Workload,
    replicas: Sequence[Verdict],
    index: FleetIndex,
    *,
    policy: "ActionPolicy",
    now: datetime,
    recent: Sequence[Made],
) -> Draft | str:
    reason = _why_not_scalable(workload, verdict, policy) or _why_cooling(workload, policy, recent, now)
    if workload.sized_by is not None:
        reason = reason or why_not_smaller(workload, workload.replicas - 1)
    if reason is not None:
        return reason
    fit = [each for each in replicas if _is_long_idle(each, workload, policy, now)]
    pods = _leaving(workload, fit, index)
    floor = max(1, workload.replicas_floor or 0, _floor(verdict))
    pods = pods[: max(0, workload.replicas - floor)]
    if not pods:
        return f"none of its {workload.replicas} replicas can go alone (at least {floor} stay)"
    return _scale(verdict, workload, pods, [each for each in fit if _is_of(each, pods)], index)


def why_not_smaller(workload: Workload, replicas: object) -> str | None:
    """Say why a workload may not be made as small as that, or None; what is made larger may be."""
    if not isinstance(replicas, int) or replicas >= workload.replicas:
        return None
    if workload.sized_by is not None:
        least = "" if workload.replicas_floor is None else f" (at least {workload.replicas_floor})"
        return f"{workload.sized_by} decides its size{least} and would change it back; lower its minimum instead"
    floor = workload.replicas_floor
    if floor is not None and replicas < floor:
        return f"at least {floor} of its replicas stay: an autoscaler or a disruption budget keeps them"
    return None


def _why_not_scalable(workload: Workload, verdict: Verdict, policy: "ActionPolicy") -> str | None:
    unfit = _why_kind_unfit(workload, policy)
    if unfit is not None:
        return unfit
    if workload.is_protected:
        return "it is protected by its owner"
    if workload.ref.namespace in policy.reclaim.protected_namespaces:
        return f"namespace {workload.ref.namespace} is protected"
    if workload.workspace is not None and workload.workspace in policy.reclaim.protected_workspaces:
        return f"workspace {workload.workspace} is protected"
    told = verdict.evidence.get("pod_count")
    if isinstance(told, int) and told != workload.replicas:
        return f"it had {told} replicas when it was judged and has {workload.replicas} now"
    return None


def _why_kind_unfit(workload: Workload, policy: "ActionPolicy") -> str | None:
    if workload.ref.kind not in policy.reclaim.scalable_kinds:
        return f"a {workload.ref.kind} has no replicas that can go alone"
    if workload.ref.kind == "StatefulSet" and workload.queue is not None:
        return f"Kueue, whose queue {workload.queue} it is in, lets a StatefulSet go to none and to no other size"
    return None


def _why_cooling(workload: Workload, policy: "ActionPolicy", recent: Sequence[Made], now: datetime) -> str | None:
    for made in recent:
        is_same = (made.move.cluster, made.move.target) == (workload.cluster, workload.ref)
        is_ours = made.move.kind in {MoveKind.SCALE_WORKLOAD, MoveKind.SUSPEND_WORKLOAD}
        if is_same and is_ours and now - made.at < timedelta(hours=policy.reclaim.cooldown_h):
            return f"it was changed at {made.at.isoformat()}; left alone {policy.reclaim.cooldown_h:g} h"
    return None


def _is_long_idle(verdict: Verdict, workload: Workload, policy: "ActionPolicy", now: datetime) -> bool:
    limits, reclaim = policy.evidence, policy.reclaim
    if verdict.state not in reclaim.states or verdict.since is None or workload.started_at is None:
        return False
    if why_unfit(verdict, limits, now, max_sample_age_s=limits.max_age_s, needs_coverage=True) is not None:
        return False
    return (verdict.until or verdict.made_at) - verdict.since >= timedelta(hours=reclaim.min_idle_h)


def _leaving(workload: Workload, fit: Sequence[Verdict], index: FleetIndex) -> list[Pod]:
    """Return the pods that may go, those first that a scaling down takes first."""
    pods = index.pods_by_workload.get((workload.cluster, workload.ref), ())
    idle = [pod for pod in pods if any(_is_of(each, [pod]) for each in fit)]
    if workload.ref.kind != "StatefulSet":
        return sorted(idle, key=lambda pod: pod.name)
    last_first = sorted(pods, key=_ordinal, reverse=True)
    busy = next((place for place, pod in enumerate(last_first) if pod not in idle), len(last_first))
    return last_first[:busy]


def _ordinal(pod: Pod) -> int:
    found = _ORDINAL.search(pod.name)
    return -1 if found is None else int(found[1])


def _is_of(verdict: Verdict, pods: Sequence[Pod]) -> bool:
    uid = verdict.evidence.get("pod_uid")
    return any(pod.uid == uid if uid is not None else verdict.subject.endswith(pod.name) for pod in pods)


def _floor(verdict: Verdict) -> int:
    told = verdict.evidence.get(FLOOR)
    return told if isinstance(told, int) and not isinstance(told, bool) else 0


def _scale(
    verdict: Verdict, workload: Workload, pods: Sequence[Pod], fit: Sequence[Verdict], index: FleetIndex
) -> Draft:
    freed = sum(pod.fraction * max(len(pod.gpu_uuids), len(pod.slice_uuids)) for pod in pods)
    stays = workload.replicas - len(pods)
    saved = saving(verdict, freed)
    before: Mapping[str, object] = {"replicas": workload.replicas}
    names = sorted(f"{pod.namespace}/{pod.name}" for pod in pods)
    move = Move(
        move_id="",
        kind=MoveKind.SCALE_WORKLOAD,
        cluster=workload.cluster,
        target=workload.ref,
        cause=verdict.rule,
        reason=f"{len(pods)} of the {workload.replicas} replicas of {workload.ref} idle; {stays} go on",
        gpu_uuids=tuple(sorted(workload.gpu_uuids)),
        gpus=freed,
        workspace=workload.workspace,
        pool=index.one_pool(uuid for pod in pods for uuid in pod.gpu_uuids),
        arguments={"replicas": stays},
        resource_version=workload.resource_version,
        risk=f"a burst meets {stays} replicas until it is scaled up; owner {workload.owner or 'unknown'}",
        saving_usd_per_hour=saved,
        evidence={**carried((verdict, *fit), before), "idle_pods": names},
        rule="reclaim",
    )
    return Draft(move, (verdict, *fit), (1.5, 0.0 if saved is None else -float(saved), -freed))
