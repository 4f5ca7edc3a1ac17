"""Pods that ask for GPUs: what they ask for, and from when to when they held it, to the second.

A pod holds its GPUs from the moment the scheduler binds it to a node until its last container has ended. The API server
tells both; what it never told (a pod deleted while nobody watched) ends at the last moment it could have.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from collectors.cluster_claims import Claimant, Claimed, Claims, claim_names, claimed, devices_of
from collectors.cluster_gpus import asked, asked_of_host, gpus_of
from collectors.cluster_objects import ContainerStatus, OwnerReference, Pod

OWNER = "gpusteward.dev/owner"
_OVER = frozenset({"Succeeded", "Failed"})
_KUEUE_GATE = "kueue.x-k8s.io/admission"
_NODE = "Node"  # what "owns" the pods that a kubelet starts by itself


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What is kept of a pod between looks.

    `ends_at` is set for a pod that is over. `finished_at` is when all its containers had ended, `deleted_at` when a
    deletion that was asked for is to be done by: what tells the end of a pod that goes away before it is over.
    """

    uid: str
    namespace: str
    name: str
    node: str | None
    phase: str | None
    created_at: datetime | None
    starts_at: datetime | None
    ends_at: datetime | None
    finished_at: datetime | None
    deleted_at: datetime | None
    asked: Mapping[str, float]
    claims: tuple[str | None, ...]
    extended_claim: str | None
    controller: OwnerReference | None
    owner: str | None
    is_held_by_kueue: bool
    cpu_milli: int | None = None
    memory_mib: int | None = None
    labels: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Around:
    """What a pod's row takes from elsewhere: claims, what a unit of a resource is by node and at most anywhere.

    `parts` is None where nodes could not be read: then nobody knows what a unit is.
    """

    claims: Claims
    parts: Mapping[str, Mapping[str, float | None]] | None
    common: Mapping[str, float | None]


def pod_facts(pod: Pod) -> PodFacts | None:
    """Return what matters of a pod; None where it asks for neither GPUs nor claims."""
    amounts, names = asked(pod.spec), claim_names(pod)
    if not amounts and not names:
        return None
    meta, spec, status = pod.metadata, pod.spec, pod.status
    controller = meta.controller()
    extended = status.extended_resource_claim_status
    cpu_milli, memory_mib = asked_of_host(spec)
    return PodFacts(
        uid=meta.uid,
        namespace=meta.namespace,
        name=meta.name,
        node=spec.node_name or None,
        phase=status.phase,
        created_at=meta.creation_timestamp,
        starts_at=_starts_at(pod),
        ends_at=_ended_at(pod) if status.phase in _OVER else None,
        finished_at=_finished_at(pod),
        deleted_at=meta.deletion_timestamp,
        asked=amounts,
        claims=names,
        extended_claim=None if extended is None else extended.resource_claim_name,
        controller=None if controller is None or controller.kind == _NODE else controller,
        owner=meta.label(OWNER) or meta.annotation(OWNER),
        is_held_by_kueue=any(gate.name == _KUEUE_GATE for gate in spec.scheduling_gates or ()),
        cpu_milli=cpu_milli,
        memory_mib=memory_mib,
        labels=meta.labels or None,
    )


def closed(pod: PodFacts, seen_gone_at: datetime) -> PodFacts:
    """Return a pod that has gone away with its end: when its containers had ended, else the latest it can have been."""
    if pod.ends_at is not None:
        return pod
    latest = seen_gone_at if pod.deleted_at is None else min(pod.deleted_at, seen_gone_at)
    return replace(pod, ends_at=_not_before(pod.finished_at or latest, pod.starts_at or pod.created_at))


def wants(pod: PodFacts, around: Around) -> tuple[float | None, Claimed]:
    """Return the whole GPUs that a pod asks for (None: nobody knows), and what its claims come to."""
    claimant = Claimant(pod.uid, pod.namespace, pod.claims, pod.ends_at is not None)
    known = Claimed() if not pod.claims else claimed(claimant, around.claims)
    if around.parts is None:
        return None, known
    parts = around.common if pod.node is None else around.parts.get(pod.node, around.common)
    gpus = gpus_of(pod.asked, parts)
    return None if gpus is None or known.gpus is None else gpus + known.gpus, known


def is_of_gpus(pod: PodFacts, known: Claimed) -> bool:
    """Tell whether a pod is known to ask for GPUs, be it by resources or by claims."""
    return bool(pod.asked) or bool(known.resources) or bool(known.devices)


def pod_row(
    pod: PodFacts, around: Around, workload: tuple[str, str], workspace: str | None, owner: str | None
) -> dict[str, object] | None:
    """Return the row of a pod without its cluster; None where it is not known to ask for GPUs."""
    gpus, known = wants(pod, around)
    if not is_of_gpus(pod, known):
        return None
    devices = list(known.devices)
    if pod.extended_claim is not None:
        facts = around.claims.claims.get((pod.namespace, pod.extended_claim))
        devices += [] if facts is None else devices_of(facts, around.claims)
    return {
        "namespace": pod.namespace,
        "pod": pod.name,
        "pod_uid": pod.uid,
        "node": pod.node,
        "workload_kind": workload[0],
        "workload": workload[1],
        "workspace": workspace,
        "owner": pod.owner or owner,
        "gpus": gpus,
        "resources": json.dumps({**_whole(pod.asked), **_whole(known.resources)}, sort_keys=True),
        "devices": json.dumps(devices, sort_keys=True) if devices else None,
        "phase": pod.phase,
        "created_at": pod.created_at or pod.starts_at or pod.ends_at,
        "starts_at": pod.starts_at,
        "ends_at": pod.ends_at,
        "cpu_milli": pod.cpu_milli,
        "memory_mib": pod.memory_mib,
        "labels": None if pod.labels is None else json.dumps(dict(pod.labels), sort_keys=True),
    }


def _starts_at(pod: Pod) -> datetime | None:
    """Return when a pod was bound to its node; a kubelet's own pods have no scheduler, but a start."""
    if not pod.spec.node_name:
        return None
    for condition in pod.status.conditions or ():
        if condition.type == "PodScheduled" and condition.status == "True" and condition.last_transition_time:
            return condition.last_transition_time
    return pod.status.start_time or pod.metadata.creation_timestamp


def _ended_at(pod: Pod) -> datetime | None:
    """Return when a pod that is over was: its last container's end, else the last thing that was told of it.

    A pod can be over without its containers' word: refused or evicted by its kubelet, or on a node that is lost.
    """
    known = _finished_at(pod)
    if known is None:
        told = [each.last_transition_time for each in pod.status.conditions or ()]
        told += [*_ends(_statuses(pod)), pod.status.start_time, pod.metadata.creation_timestamp]
        known = max((moment for moment in told if moment is not None), default=None)
    return None if known is None else _not_before(known, _starts_at(pod))


def _finished_at(pod: Pod) -> datetime | None:
    """Return when the last container had ended, or the garbage collector gave the pod up; None while neither is so."""
    statuses = pod.status.container_statuses or ()
    ends = _ends(statuses)
    if statuses and len(ends) == len(statuses) >= len(pod.spec.containers or ()):
        return max([*ends, *_ends(pod.status.init_container_statuses or ())])
    for condition in pod.status.conditions or ():
        if condition.type == "DisruptionTarget" and condition.reason == "DeletionByPodGC":
            return condition.last_transition_time
    return None


def _statuses(pod: Pod) -> list[ContainerStatus]:
    return [*(pod.status.container_statuses or ()), *(pod.status.init_container_statuses or ())]


def _ends(statuses: Iterable[ContainerStatus]) -> list[datetime]:
    states = (each.state.terminated for each in statuses if each.state is not None)
    return [state.finished_at for state in states if state is not None and state.finished_at is not None]


def _not_before(moment: datetime, start: datetime | None) -> datetime:
    return moment if start is None else max(moment, start)


def _whole(amounts: Mapping[str, float | None]) -> dict[str, float | int | None]:
    return {name: int(each) if each is not None and each.is_integer() else each for name, each in amounts.items()}
