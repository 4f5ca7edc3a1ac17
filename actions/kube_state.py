"""Nodes and pods of Kubernetes as values of the fleet, joined with what is known of their GPUs.

The API server counts GPUs and names none of them; which GPU is where, and which pod holds it, is told from outside.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType

from actions.fence_means import DEVICE_PLUGIN, DEVICE_RULE, FENCED, NODE_TAINT
from actions.kube_port import OURS, Object, annotations_of, labels_of
from fleet.state import Gpu, Node, ObjectRef, Pod, Slice

CORDONED_BY, CORDON_CAUSE = OURS + "cordoned-by", OURS + "cordon-cause"
DRAIN, REPAIR = OURS + "drain", OURS + "repair"
# a node that bears it has a device plugin, or an agent beside it, that takes the annotated GPUs out of allocation
CONTRACT = OURS + "fence-contract"
MIG_CONFIG, MIG_STATE = "nvidia.com/mig.config", "nvidia.com/mig.config.state"
SHARING = "nvidia.com/device-plugin.config"
CONDITION = "GpuSteward"
OVER = ("Succeeded", "Failed")
_NVIDIA = "nvidia.com/"
_BY_PLUGIN = ("nvidia.com/gpu", "nvidia.com/mig-")  # what a device plugin gives out
_SYSTEM_TAINT = "node.kubernetes.io/"  # the control plane's own, which come and go with the node's health
_POOLS = (
    "karpenter.sh/nodepool", "cloud.google.com/gke-nodepool", "eks.amazonaws.com/nodegroup",
    "alpha.eksctl.io/nodegroup-name", "kubernetes.azure.com/agentpool", "agentpool",
)  # fmt: skip
_RACKS = ("topology.kubernetes.io/rack", "cloud.google.com/gce-topology-subblock")


@dataclass(frozen=True, slots=True)
class Holding:
    """What a pod holds: GPUs, or devices of theirs, and which part of each GPU."""

    gpu_uuids: tuple[str, ...] = ()
    slice_uuids: tuple[str, ...] = ()
    fraction: float = 1.0


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a cluster's GPUs: which there are, and what each pod holds, by its UID."""

    gpus: tuple[Gpu, ...] = ()
    slices: tuple[Slice, ...] = ()
    held: Mapping[str, Holding] = field(default_factory=lambda: MappingProxyType({}))


def node_from(cluster: str, found: Object) -> Node:
    """Return a node as a value."""
    labels, told = labels_of(found), annotations_of(found)
    spec, status = found.get("spec") or {}, found.get("status") or {}
    is_schedulable = not spec.get("unschedulable", False)
    conditions = {each["type"]: each for each in status.get("conditions") or ()}
    mark = conditions.get(CONDITION, {})
    return Node(
        cluster=cluster,
        name=found["metadata"]["name"],
        pool=_first(labels, _POOLS),
        rack=_first(labels, _RACKS),
        is_ready=conditions.get("Ready", {}).get("status") == "True",
        is_schedulable=is_schedulable,
        cordoned_by=None if is_schedulable else cordoned_by(found),
        labels=MappingProxyType(labels),
        resource_version=node_version(found),
        annotations=MappingProxyType({name: value for name, value in told.items() if name.startswith(OURS)}),
        cordon_cause=None if cordoned_by(found) is None else told.get(CORDON_CAUSE),
        taints=MappingProxyType({each["key"]: taint_value(each) for each in taints_of(found)}),
        drain=told.get(DRAIN),
        repair=told.get(REPAIR),
        mark=mark.get("reason") if mark.get("status") == "True" else None,
        mig_layout=labels.get(MIG_CONFIG),
        mig_state=labels.get(MIG_STATE),
        sharing=labels.get(SHARING),
        slots=MappingProxyType(_slots(status.get("allocatable") or {})),
        uid=str(found["metadata"].get("uid") or ""),
    )


def cordoned_by(found: Object) -> str | None:
    """Return who cordoned a node, where that is known and still so.

    Our note alone is not believed: who lifted our cordon by hand may have made one of their own since, which the
    server's record of who manages the field tells.
    """
    spec = found.get("spec") or {}
    name = annotations_of(found).get(CORDONED_BY)
    if not spec.get("unschedulable", False) or name is None:
        return None
    managers = [
        each["manager"]
        for each in found["metadata"].get("managedFields") or ()
        if "f:unschedulable" in (each.get("fieldsV1") or {}).get("f:spec", {})
    ]
    return name if not managers or name in managers else None


def node_version(found: Object) -> str:
    """Return a digest of all of a node that a move depends on.

    A node's own resource version changes with every heartbeat, so a plan that waits for an approval would always be
    stale. Each write still names the resource version of the moment it was prepared at.
    """
    spec, labels, told = found.get("spec") or {}, labels_of(found), annotations_of(found)
    body = {
        "uid": found["metadata"].get("uid"),
        "unschedulable": bool(spec.get("unschedulable", False)),
        "taints": sorted(
            [each["key"], taint_value(each)] for each in taints_of(found) if not each["key"].startswith(_SYSTEM_TAINT)
        ),
        "labels": {name: labels[name] for name in labels if name.startswith((OURS, _NVIDIA))},
        "annotations": {name: told[name] for name in told if name.startswith(OURS)},
    }
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]


def taints_of(found: Object) -> list[Object]:
    """Return a node's taints."""
    return (found.get("spec") or {}).get("taints") or []


def taint_value(taint: Object) -> str:
    """Write a taint without its key: value:effect."""
    return f"{taint.get('value') or ''}:{taint['effect']}"


def fenced_in(found: Object) -> frozenset[str]:
    """Return the GPUs that a node's annotation names as fenced."""
    text = annotations_of(found).get(FENCED, "")
    return frozenset(each for each in text.split(",") if each)


def is_on_node(pod: Object) -> bool:
    """Return whether a pod is on a node and not over."""
    return bool((pod.get("spec") or {}).get("nodeName")) and (pod.get("status") or {}).get("phase") not in OVER


def wants_gpus(pod: Object) -> bool:
    """Return whether a pod asks for GPUs, be it by resources or by claims that GPUs may stand behind."""
    spec = pod.get("spec") or {}
    if spec.get("resourceClaims"):
        return True
    for each in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        resources = each.get("resources") or {}
        told = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
        if any(name.startswith(_NVIDIA) and str(amount) != "0" for name, amount in told.items()):
            return True
    return False


def pod_from(cluster: str, found: Object, owner: ObjectRef, known: Known) -> Pod:
    """Return a pod that asks for GPUs as a value; which ones it holds is left out where nobody knows."""
    meta = found["metadata"]
    holding = known.held.get(meta["uid"], Holding())
    return Pod(
        cluster=cluster,
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        node=found["spec"]["nodeName"],
        workload=owner,
        gpu_uuids=holding.gpu_uuids,
        slice_uuids=holding.slice_uuids,
        fraction=holding.fraction,
        started_at=_bound_at(found),
    )


@dataclass(frozen=True, slots=True)
class Devices:
    """What is known of GPUs by dynamic resource allocation: which can be tainted alone, and which of them we have."""

    published: frozenset[str] = frozenset()
    fenced: frozenset[str] = frozenset()


def gpus_on(nodes: Iterable[Object], known: Known, devices: Devices) -> tuple[Gpu, ...]:
    """Return the known GPUs of these nodes; fenced are those that a device rule or their node's annotation names."""
    by_name = {found["metadata"]["name"]: found for found in nodes}
    fenced = {name: fenced_in(found) for name, found in by_name.items()}
    wide = {name: narrowest_of(found, is_published=False) for name, found in by_name.items()}
    narrow = {name: narrowest_of(found, is_published=True) for name, found in by_name.items()}
    return tuple(
        replace(
            gpu,
            is_fenced=gpu.uuid in devices.fenced or gpu.uuid in fenced[gpu.node],
            fence_by=(narrow if gpu.uuid in devices.published else wide)[gpu.node],
        )
        for gpu in known.gpus
        if gpu.node in by_name
    )


def narrowest_of(found: Object, *, is_published: bool) -> str:
    """Return the narrowest means to fence a GPU of a node for sure.

    A rule for a published device does not bind a device plugin, so where one gives out the same GPUs it is not enough.
    """
    slots = _slots((found.get("status") or {}).get("allocatable") or {})
    if is_published and not any(amount for name, amount in slots.items() if name.startswith(_BY_PLUGIN)):
        return DEVICE_RULE
    is_kept = labels_of(found).get(CONTRACT) == "true" and not is_published
    return DEVICE_PLUGIN if is_kept else NODE_TAINT


def _bound_at(pod: Object) -> datetime | None:
    status = pod.get("status") or {}
    for each in status.get("conditions") or ():
        if each["type"] == "PodScheduled" and each["status"] == "True" and each.get("lastTransitionTime"):
            return datetime.fromisoformat(each["lastTransitionTime"])
    told = status.get("startTime")
    return None if told is None else datetime.fromisoformat(told)


def _slots(amounts: Mapping[str, object]) -> dict[str, int]:
    return {
        name: int(str(amount))
        for name, amount in amounts.items()
        if name.startswith(_NVIDIA) and str(amount).isdecimal()
    }


def _first(labels: Mapping[str, str], names: Iterable[str]) -> str | None:
    return next((labels[name] for name in names if labels.get(name)), None)
