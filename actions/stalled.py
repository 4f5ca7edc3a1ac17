"""The rule that frees gangs that hang: no member works for long, some spin. The whole gang is suspended, or nothing is.

A hung collective holds its GPUs for ever, and a member that is stopped alone would end nothing but its own state. Every
member has to be told of by evidence of its own: one that works, is unknown or shares its GPU keeps them all. It begins
in mode "propose", whatever reclaiming may do: its owner is told, and a person decides.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from actions.budget import Made, tripped
from actions.evidence import Draft, Proposal, hold, why_unfit
from actions.index import FleetIndex
from actions.policy import ActionPolicy
from actions.reclaim import suspension, why_protected, why_too_young
from actions.rule_policies import StalledPolicy
from actions.steps import Look
from fleet.move import HeldBack, MoveKind
from fleet.state import Pod, Workload
from fleet.verdict import Verdict

RULE = "stalled"
TOPIC = "idle"
STALLED = "stalled"
_STILL = {STALLED, "idle", "idle_held"}
_DEVICES = {"gpu", "slice"}


@dataclass(frozen=True, slots=True)
class _Member:
    """One pod's hold on one GPU or MIG device, and what is told of that."""

    pod: Pod
    verdict: Verdict
    since: datetime


def calls_for_stalled(verdict: Verdict) -> bool:
    """Return whether a verdict tells of a workload that hangs."""
    return verdict.topic == TOPIC and verdict.subject_kind == "workload" and verdict.state == STALLED


def propose_stalled(
    index: FleetIndex, verdicts: Sequence[Verdict], policy: ActionPolicy, now: datetime, recent: Sequence[Made]
) -> Proposal:
    """Return suspensions of whole gangs of which nothing works for long, and why others are left alone."""
    look = Look(index, policy, now, recent)
    told = _of_devices(verdicts)
    drafts: list[Draft] = []
    held: list[HeldBack] = []
    about = [each for each in verdicts if calls_for_stalled(each)]
    found = [(each, index.find_workloads(each.workload or each.subject, each.cluster)) for each in about]
    breaker = tripped(
        [(each.rule, workloads[0].gpu_uuids) for each, workloads in found if len(workloads) == 1],
        index,
        policy.stalled.breaker_share_of_pool,
        policy.stalled.breaker_min_gpus,
    )
    for verdict, workloads in found:
        if len(workloads) != 1:
            held.append(hold(verdict, "several workloads bear this name" if workloads else "it is gone"))
            continue
        workload = workloads[0]
        pools = {index.pool_of(index.gpus[uuid]) for uuid in workload.gpu_uuids if uuid in index.gpus}
        shared = min((breaker[pool, verdict.rule] for pool in pools if (pool, verdict.rule) in breaker), default=None)
        members = _why_not(verdict, workload, look) or shared or _members(workload, told, look)
        if isinstance(members, str):
            held.append(hold(verdict, members, index.gpus_held(workload)))
        else:
            drafts.append(_suspend(verdict, workload, members, index))
    return Proposal(tuple(drafts), tuple(held))


def _of_devices(verdicts: Sequence[Verdict]) -> Mapping[tuple[str | None, str], Verdict]:
    """Return what is told of each GPU and MIG device; of several words on one, the one that speaks for work."""
    told: dict[tuple[str | None, str], Verdict] = {}
    for each in verdicts:
        key = (each.cluster, each.subject)
        is_of_device = each.topic == TOPIC and each.subject_kind in _DEVICES
        if is_of_device and (key not in told or told[key].state in _STILL):
            told[key] = each
    return told


def _why_not(verdict: Verdict, workload: Workload, look: Look) -> str | None:
    policy = look.policy
    reason = why_protected(workload, policy.reclaim) or why_too_young(workload, policy.reclaim, look.now)
    reason = reason or _why_unfit(verdict, look)
    if reason is not None:
        return reason
    if verdict.evidence.get("stop") is None:
        return f"a {workload.ref.kind} can't be stopped and brought back"
    if verdict.evidence.get("is_gang") is not True:
        return "it is no gang: its members go on without each other; look at those that hang"
    return _why_cooling(workload, policy.stalled, look)


def _why_unfit(verdict: Verdict, look: Look) -> str | None:
    limits = look.policy.evidence
    return why_unfit(verdict, limits, look.now, max_sample_age_s=limits.max_age_s, needs_coverage=True)


def _why_cooling(workload: Workload, policy: StalledPolicy, look: Look) -> str | None:
    for made in look.recent:
        is_same = (made.move.cluster, made.move.target) == (workload.cluster, workload.ref)
        if is_same and made.move.kind is MoveKind.SUSPEND_WORKLOAD and look.is_within(made.at, policy.cooldown_h):
            return f"it was suspended at {made.at.isoformat()} and is wanted since; left alone {policy.cooldown_h:g} h"
    return None


def _members(workload: Workload, told: Mapping[tuple[str | None, str], Verdict], look: Look) -> list[_Member] | str:
    """Return every member with its own evidence that it does nothing for long enough, or which one lacks it."""
    pods = look.index.pods_by_workload.get((workload.cluster, workload.ref), ())
    if {pod.uid for pod in pods} != set(workload.pods):
        return "not all of its pods are known"
    blind = next((pod.name for pod in pods if not pod.slice_uuids and not pod.gpu_uuids), None)
    if blind is not None or not pods:
        return f"nobody knows which GPUs its pod {blind} holds" if pods else "it has no pods"
    found = [_member(pod, device, told.get((workload.cluster, device)), look) for pod, device in _devices(pods)]
    members = [each for each in found if isinstance(each, _Member)]
    if len(members) < len(found):
        return next(each for each in found if isinstance(each, str))
    if all(each.verdict.state != STALLED for each in members):
        return "none of its members hangs; an idle workload is reclaimed"
    return members


def _member(pod: Pod, device: str, verdict: Verdict | None, look: Look) -> _Member | str:
    name, least_h = f"{device} of its pod {pod.name}", look.policy.stalled.min_stalled_h
    if verdict is None:
        return f"nothing is told of {name}; a gang stops whole"
    reason = _why_not_still(verdict, device, pod, look)
    if reason is not None:
        return reason
    if verdict.since is None or pod.started_at is None:
        return f"it is not known since when {name} does nothing"
    since = max(verdict.since, pod.started_at)
    still = (verdict.until or verdict.made_at) - since
    if still < timedelta(hours=least_h):
        hours = still / timedelta(hours=1)
        return f"{name} does nothing for {hours:.1f} h; at least {least_h:g} h are given"
    return _Member(pod, verdict, since)


def _devices(pods: Sequence[Pod]) -> Iterator[tuple[Pod, str]]:
    """Yield each pod with each GPU, or MIG device where it holds such, that it holds."""
    for pod in sorted(pods, key=lambda each: each.name):
        for device in pod.slice_uuids or pod.gpu_uuids:
            yield pod, device


def _why_not_still(verdict: Verdict, device: str, pod: Pod, look: Look) -> str | None:
    if verdict.state not in _STILL:
        return f"{device} of its pod {pod.name} is {verdict.state}; a gang stops whole"
    reason = _why_unfit(verdict, look)
    if reason is not None:
        return f"{device} of its pod {pod.name}: {reason}"
    others = {str(each.ref) for each in look.index.workloads_by_gpu.get(device, ()) if each.ref != pod.workload}
    return f"{device} is shared with {min(others)}; which of them hangs can't be told" if others else None


def _suspend(verdict: Verdict, workload: Workload, members: Sequence[_Member], index: FleetIndex) -> Draft:
    spinning = sum(each.verdict.state == STALLED for each in members)
    since = max(each.since for each in members)
    told = [
        {"pod": f"{each.pod.namespace}/{each.pod.name}", "device": each.verdict.subject, "state": each.verdict.state,
         "rule": each.verdict.rule, "since": each.since.isoformat(), "coverage": each.verdict.coverage}
        for each in members
    ]  # fmt: skip
    stop = suspension(
        workload, (verdict,), index,
        reason=f"{workload.ref} hangs: of its {len(members)} devices {spinning} spin without work, the others idle, "
        f"all of them since {since.isoformat()}",
        risk=f"its {len(workload.pods)} pods stop together and lose what is in memory, it goes on from what "
        "it saved last",
    )  # fmt: skip
    move = replace(stop, rule=RULE, evidence={**stop.evidence, "members": told})
    saved = move.saving_usd_per_hour
    return Draft(move, (verdict,), (1.2, 0.0 if saved is None else -float(saved), -move.gpus))
