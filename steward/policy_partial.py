"""Stops of a part: which pods a replayed scaling down took away, and what is told of the workload without them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from fleet.move import Move, MoveKind
from fleet.state import Pod, Workload
from fleet.verdict import Verdict
from steward.policy_state import Held, Key

_FEWER = "recommend_fewer"
_PODS = ("pod", "replica")


def leaving(move: Move) -> frozenset[str]:
    """Return the pods, as namespace/name, that a scaling down takes away; none of other moves."""
    named = move.evidence.get("idle_pods") if move.kind is MoveKind.SCALE_WORKLOAD else None
    return frozenset(str(each) for each in named) if isinstance(named, list | tuple) else frozenset()


def name_of(held: Held) -> str:
    """Return the name, as namespace/name, of the pod that held a device."""
    return f"{held.workload[1].namespace}/{held.pod}"


def is_gone(pod: Pod, gone: Mapping[Key, frozenset[str]]) -> bool:
    """Return whether a pod is one of those that were taken away."""
    return f"{pod.namespace}/{pod.name}" in gone.get((pod.cluster, pod.workload), ())


def without_pods(workload: Workload, pods: Iterable[Pod], gone: Mapping[Key, frozenset[str]]) -> Workload:
    """Return a workload with what is left of its pods; `pods` are those of the whole fleet that stay."""
    if (workload.cluster, workload.ref) not in gone:
        return workload
    mine = [pod for pod in pods if (pod.cluster, pod.workload) == (workload.cluster, workload.ref)]
    uuids = dict.fromkeys(uuid for pod in mine for uuid in pod.gpu_uuids)
    return replace(workload, pods=tuple(pod.uid for pod in mine), gpu_uuids=tuple(uuids), replicas=len(mine))


def told_without(verdicts: Sequence[Verdict], gone: Mapping[Key, frozenset[str]]) -> Sequence[Verdict]:
    """Return the verdicts as they would be, had the pods that were taken away not been there to be judged.

    Theirs and those of their devices fall away, and the workload counts its pods without them: where none of those
    that are left idles, nothing more is asked of it.
    """
    if not gone:
        return verdicts
    names = {(cluster, str(ref)): (ref.namespace, pods) for (cluster, ref), pods in gone.items()}
    concerned = [each for each in verdicts if each.topic == "idle" and (each.cluster or "", each.workload) in names]
    away: dict[tuple[str, str | None], list[Verdict]] = {}
    staying: dict[tuple[str, str | None], list[Verdict]] = {}
    for each in concerned:
        if each.subject_kind in _PODS:
            namespace, pods = names[each.cluster or "", each.workload or ""]
            side = away if f"{namespace}/{each.subject}" in pods else staying
            side.setdefault((each.cluster or "", each.workload), []).append(each)
    kept = []
    for each in verdicts:
        key = (each.cluster or "", each.workload)
        if each.topic != "idle" or key not in away:
            kept.append(each)
            continue
        left = _left_of(each, away[key], staying.get(key, []))
        if left is not None:
            kept.append(left)
    return kept


def _left_of(verdict: Verdict, away: Sequence[Verdict], staying: Sequence[Verdict]) -> Verdict | None:
    if verdict.subject_kind in _PODS:
        return None if any(verdict is each for each in away) else verdict
    if verdict.subject_kind != "workload":
        freed = _parts(away) - _parts(staying)
        return None if verdict.subject in freed else verdict
    if verdict.action != _FEWER:
        return verdict
    if not any(each.action == "reclaim" or each.state in {"idle", "idle_held"} for each in staying):
        return None
    return replace(verdict, evidence=MappingProxyType({**verdict.evidence, "pod_count": len(staying)}))


def _parts(verdicts: Iterable[Verdict]) -> set[str]:
    found: set[str] = set()
    for verdict in verdicts:
        parts = verdict.evidence.get("parts")
        found |= {str(part) for part in parts} if isinstance(parts, list | tuple) else set()
    return found
