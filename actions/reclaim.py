"""The rule that suspends workloads all of whose GPUs idle; a part of a workload is never stopped alone."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from actions.budget import Made, tripped
from actions.evidence import Draft, Proposal, carried, hold, is_below, saving, why_not_now, why_unfit
from actions.index import FleetIndex, Pool
from actions.policy import ActionPolicy, ReclaimPolicy
from actions.reclaim_part import FEWER, propose_fewer
from actions.words import counted, in_gpus
from fleet.move import HeldBack, Move, MoveKind
from fleet.state import ObjectRef, Workload
from fleet.verdict import Verdict

TOPIC = "idle"
ACTION = "reclaim"
STRAGGLER = "straggler"
_PARTS = {"gpu", "slice", "pod", "replica"}
_Key = tuple[str, ObjectRef]


def propose_reclaims(
    index: FleetIndex, verdicts: Sequence[Verdict], policy: ActionPolicy, now: datetime, recent: Sequence[Made]
) -> Proposal:
    """Return suspensions of idle workloads, longest and dearest first, and what is held back."""
    idle = [verdict for verdict in verdicts if verdict.topic == TOPIC]
    about, held = _by_workload(idle, index)
    parts = _parts_by_workload(idle, index)
    breaker = _breaker(about, index, policy.reclaim)
    drafts: dict[_Key, Draft] = {}
    for key, (workload, whole) in about.items():
        reason = (
            _why_not(workload, whole, policy, now)
            or _why_parts_forbid(workload, parts.get(key, ()), index, policy, now)
            or _why_evidence_is_partial(workload, whole, index)
            or _why_cooling(workload, policy.reclaim, recent, now)
            or _why_tripped(workload, whole, index, breaker)
        )
        gpus = index.gpus_held(workload)
        if reason is None and not gpus > 0:
            reason = "it holds no GPU"
        if reason is None:
            drafts[key] = _suspend(workload, whole, tuple(parts.get(key, ())), index)
        else:
            held.extend(hold(verdict, reason, gpus) for verdict in whole if verdict.action == ACTION)
    fewer, stay = propose_fewer(idle, index, policy, now, recent)
    scaled = {(draft.move.cluster, draft.move.target) for draft in fewer}
    held.extend(stay)
    held.extend(_parts_held(idle, index, about, drafts, scaled))
    return Proposal((*drafts.values(), *fewer), tuple(held))


def why_protected(workload: Workload, policy: ReclaimPolicy) -> str | None:
    """Say why a workload must be left alone, or None."""
    if workload.is_protected:
        return "it is protected by its owner"
    if workload.ref.namespace in policy.protected_namespaces:
        return f"namespace {workload.ref.namespace} is protected"
    if workload.workspace is not None and workload.workspace in policy.protected_workspaces:
        return f"workspace {workload.workspace} is protected"
    if workload.ref.kind in policy.unsuspendable_kinds:
        return f"a {workload.ref.kind} can't be suspended and brought back as it was"
    if workload.is_suspended:
        return f"already suspended by {workload.suspended_by or 'somebody else'}"
    return None if workload.woken_by is None else f"{workload.woken_by} would start it again; it can stop it by itself"


def why_too_young(workload: Workload, policy: ReclaimPolicy, now: datetime) -> str | None:
    """Say why a workload has not run long enough to be judged, or None."""
    if workload.started_at is None:
        return "it is not known since when it runs"
    hours = (now - workload.started_at) / timedelta(hours=1)
    return f"it runs for {hours:.1f} h; at least {policy.min_run_h:g} h are given" if hours < policy.min_run_h else None


def _by_workload(
    idle: Sequence[Verdict], index: FleetIndex
) -> tuple[dict[_Key, tuple[Workload, tuple[Verdict, ...]]], list[HeldBack]]:
    found: dict[_Key, list[Verdict]] = defaultdict(list)
    held: list[HeldBack] = []
    for verdict in idle:
        if verdict.subject_kind != "workload":
            continue
        workloads = index.find_workloads(verdict.workload or verdict.subject, verdict.cluster)
        if len(workloads) == 1:
            found[workloads[0].cluster, workloads[0].ref].append(verdict)
        elif verdict.action == ACTION:
            held.append(hold(verdict, "several workloads bear this name" if workloads else "it is gone"))
    about = {}
    for key in sorted(found):
        workload = index.find_workload(*key)
        newest = max(verdict.made_at for verdict in found[key])
        whole = tuple(verdict for verdict in found[key] if verdict.made_at == newest)
        if workload is not None and any(verdict.action == ACTION for verdict in whole):
            about[key] = (workload, whole)
    return about, held


def _parts_by_workload(idle: Sequence[Verdict], index: FleetIndex) -> dict[_Key, list[Verdict]]:
    parts: dict[_Key, list[Verdict]] = defaultdict(list)
    for verdict in idle:
        if verdict.subject_kind in _PARTS:
            for workload in _holders(verdict, index):
                parts[workload.cluster, workload.ref].append(verdict)
    return parts


def _holders(verdict: Verdict, index: FleetIndex) -> tuple[Workload, ...]:
    if verdict.workload is not None:
        return index.find_workloads(verdict.workload, verdict.cluster)
    return index.workloads_by_gpu.get(verdict.subject, ())


def _why_not(workload: Workload, whole: Sequence[Verdict], policy: ActionPolicy, now: datetime) -> str | None:
    reason = why_protected(workload, policy.reclaim) or why_too_young(workload, policy.reclaim, now)
    if reason is not None:
        return reason
    for verdict in whole:
        reason = _why_verdict_unfit(verdict, policy, now)
        if reason is not None:
            return reason
    hours = _idle_hours(workload, whole)
    if hours is None:
        return "it is not known since when it idles"
    if hours < policy.reclaim.min_idle_h:
        return f"it idles for {hours:.1f} h; at least {policy.reclaim.min_idle_h:g} h are given"
    return None


def _why_verdict_unfit(verdict: Verdict, policy: ActionPolicy, now: datetime) -> str | None:
    reason = why_unfit(verdict, policy.evidence, now, max_sample_age_s=policy.evidence.max_age_s, needs_coverage=True)
    if reason is not None:
        return reason
    if verdict.evidence.get("stop", "") is None:
        return f"a {(verdict.workload or verdict.subject).partition('/')[0]} can't be stopped and brought back"
    if verdict.state not in policy.reclaim.states or verdict.action != ACTION:
        return f"state {verdict.state} by rule {verdict.rule}: not every rule calls it idle"
    if is_below(verdict.confidence, policy.reclaim.min_confidence):
        return f"confidence {verdict.confidence} is below {policy.reclaim.min_confidence}"
    return None


def _idle_hours(workload: Workload, whole: Sequence[Verdict]) -> float | None:
    """Return the hours of idleness since the workload's own start: what ran there before it does not count."""
    hours = []
    for verdict in whole:
        if verdict.since is None or workload.started_at is None:
            return None
        since = max(verdict.since, workload.started_at)
        hours.append(((verdict.until or verdict.made_at) - since) / timedelta(hours=1))
    return min(hours)


def _why_parts_forbid(
    workload: Workload, parts: Sequence[Verdict], index: FleetIndex, policy: ActionPolicy, now: datetime
) -> str | None:
    for part in parts:
        gpu = index.gpus.get(part.subject)
        if gpu is not None and gpu.is_mig_enabled:
            continue  # its slices are judged by themselves; another workload's may be at work
        too_old = why_not_now(
            part.made_at, part.until, policy.evidence, now, max_sample_age_s=policy.evidence.max_age_s
        )
        if too_old is None and part.state not in policy.reclaim.states:
            return f"{part.subject_kind} {part.subject} of {workload.ref.name} is {part.state}; a gang stops whole"
    return None


def _why_evidence_is_partial(workload: Workload, whole: Sequence[Verdict], index: FleetIndex) -> str | None:
    for verdict in whole:
        parts = verdict.evidence.get("parts")
        if not isinstance(parts, list | tuple):
            continue
        parents = {each.gpu_uuid for each in index.state.slices if each.uuid in parts}
        if not set(workload.gpu_uuids) <= {*parts, *parents}:
            return "it holds GPUs that its evidence does not cover"
    return None


def _why_cooling(workload: Workload, policy: ReclaimPolicy, recent: Sequence[Made], now: datetime) -> str | None:
    for made in recent:
        is_same = (made.move.cluster, made.move.target) == (workload.cluster, workload.ref)
        is_recent = now - made.at < timedelta(hours=policy.cooldown_h)
        if is_same and is_recent and made.move.kind is MoveKind.SUSPEND_WORKLOAD:
            return f"it was reclaimed at {made.at.isoformat()} and is wanted since; left alone {policy.cooldown_h:g} h"
    return None


def _breaker(
    about: Mapping[_Key, tuple[Workload, tuple[Verdict, ...]]], index: FleetIndex, policy: ReclaimPolicy
) -> Mapping[tuple[Pool, str], str]:
    shown = [(verdict.rule, workload.gpu_uuids) for workload, whole in about.values() for verdict in whole]
    return tripped(shown, index, policy.breaker_share_of_pool, policy.breaker_min_gpus)


def _why_tripped(
    workload: Workload, whole: Sequence[Verdict], index: FleetIndex, breaker: Mapping[tuple[Pool, str], str]
) -> str | None:
    pools = {index.pool_of(index.gpus[uuid]) for uuid in workload.gpu_uuids if uuid in index.gpus}
    reasons = [breaker[pool, each.rule] for pool in pools for each in whole if (pool, each.rule) in breaker]
    return min(reasons, default=None)


def _suspend(workload: Workload, whole: tuple[Verdict, ...], parts: tuple[Verdict, ...], index: FleetIndex) -> Draft:
    gpus = index.gpus_held(workload)
    first = whole[0]
    known_hours = _idle_hours(workload, whole)
    hours = 0.0 if known_hours is None else known_hours
    move = suspension(
        workload, whole, index,
        reason=f"{workload.ref} holds {in_gpus(gpus)} and idles for {hours:.1f} h (rule {first.rule})",
        risk=f"what its {counted(len(workload.pods), 'pod')} had in memory is lost",
    )  # fmt: skip
    saved = move.saving_usd_per_hour
    order = (1.0, 0.0 if saved is None else -float(saved), -gpus, -hours)
    calling = tuple(part for part in parts if part.action == ACTION)
    return Draft(move, (*whole, *calling), order)


def suspension(workload: Workload, whole: tuple[Verdict, ...], index: FleetIndex, *, reason: str, risk: str) -> Move:
    """Return the move that stops all of a workload, on what `whole` tells of it."""
    gpus, first = index.gpus_held(workload), whole[0]
    before = {
        "is_suspended": workload.is_suspended,
        "suspended_by": workload.suspended_by,
        "replicas": workload.replicas,
    }
    return Move(
        move_id="",
        kind=MoveKind.SUSPEND_WORKLOAD,
        cluster=workload.cluster,
        target=workload.ref,
        cause=first.rule,
        reason=reason,
        gpu_uuids=tuple(sorted(workload.gpu_uuids)),
        gpus=gpus,
        workspace=workload.workspace,
        pool=index.one_pool(workload.gpu_uuids),
        resource_version=workload.resource_version,
        risk=f"{risk}; owner {workload.owner or 'unknown'}",
        saving_usd_per_hour=saving(first, gpus),
        evidence=carried(whole, before),
    )


def _parts_held(
    idle: Sequence[Verdict],
    index: FleetIndex,
    about: Mapping[_Key, tuple[Workload, tuple[Verdict, ...]]],
    drafts: Mapping[_Key, Draft],
    scaled: set[_Key],
) -> list[HeldBack]:
    held = []
    for verdict in idle:
        if verdict.action == FEWER and verdict.subject_kind != "workload":
            held.append(hold(verdict, "only a part of its workload idles: recommend fewer GPUs", 1.0))
        if verdict.subject_kind == "workload" or verdict.action != ACTION:
            continue
        if verdict.subject_kind not in _PARTS:
            held.append(hold(verdict, f"a {verdict.subject_kind} can't be reclaimed; its workloads can"))
            continue
        holders = _holders(verdict, index)
        keys = [(workload.cluster, workload.ref) for workload in holders]
        if keys and set(keys) <= scaled:
            continue
        if not keys:
            held.append(hold(verdict, "no workload holds it"))
        elif verdict.state == "unknown":
            held.append(hold(verdict, "unknown: what is not known never leads to a move"))
        elif any(key not in about for key in keys):
            name = next(str(workload.ref) for workload, key in zip(holders, keys, strict=True) if key not in about)
            held.append(hold(verdict, _why_not_alone(name, idle), 1.0))
        elif any(key not in drafts for key in keys):
            held.append(hold(verdict, "its workload is held back", 1.0))
    return held


def _why_not_alone(name: str, idle: Sequence[Verdict]) -> str:
    if any(each.rule == STRAGGLER and name in {each.workload, each.subject} for each in idle):
        return f"a straggler of {name}, which works: one member of a gang is never stopped"
    return "its workload as a whole is not idle: recommend fewer GPUs"
