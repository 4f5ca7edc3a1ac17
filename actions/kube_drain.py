"""Draining a node in Kubernetes, or only the GPUs of it that fail: pods are asked to leave, none is deleted.

The node is told first what we want of it, so that a restart in the middle finds it; then each pod that may go is
evicted by the Eviction API, which keeps disruption budgets. A pod that may not go now waits for the next turn. Pods
of one gang fall together: where one of a gang has to go and others live elsewhere, one eviction is enough.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from actions.fields import DRAIN_GPUS, drain_of
from actions.kube_nodes import prior_of, read_node, set_annotations, write_patch
from actions.kube_port import (
    NAMESPACES,
    OURS,
    PODS,
    Api,
    Change,
    Object,
    Reader,
    annotations_of,
    get_or_none,
    labels_of,
)
from actions.kube_state import DRAIN, Known, is_on_node, wants_gpus
from fleet.errors import MoveRefused, StaleState
from fleet.move import Move

PROTECT = OURS + "protect"
_MIRROR = "kubernetes.io/config.mirror"
_STAYS = "karpenter.sh/do-not-disrupt"
# how the pods of one gang are known, by label, and what the gang is called
GANGS: tuple[tuple[str, str], ...] = (
    ("jobset.sigs.k8s.io/jobset-name", "JobSet"),
    ("leaderworkerset.sigs.k8s.io/name", "LeaderWorkerSet"),
    ("scheduling.x-k8s.io/pod-group", "PodGroup"),
    ("pod-group.scheduling.sigs.k8s.io", "PodGroup"),
    ("pod-group.scheduling.sigs.k8s.io/name", "PodGroup"),
    ("training.kubeflow.org/job-name", "TrainingJob"),
    ("batch.kubernetes.io/job-name", "Job"),
    ("job-name", "Job"),
)


@dataclass(slots=True)
class Drained:
    """What became of the pods of one drain, as namespace/name; `waiting`, `staying` and `gangs` say why."""

    evicted: list[str] = field(default_factory=list)
    waiting: dict[str, str] = field(default_factory=dict)
    staying: dict[str, str] = field(default_factory=dict)
    gangs: dict[str, str] = field(default_factory=dict)

    def told(self) -> Mapping[str, object]:
        """Return what is to be recorded: what is empty is left out."""
        parts = {"evicted": self.evicted, "waiting": self.waiting, "staying": self.staying, "gangs": self.gangs}
        return {name: value for name, value in parts.items() if value}


def change_drain(api: Api, move: Move, known: Known) -> Change:
    """Prepare a drain, or its going on: the node's annotation, and the pods that are to leave."""
    node = read_node(api, move)
    pods = [each for each in pods_of_node(api, move.target.name) if is_on_node(each)]
    drained = Drained()
    leaving = _leaving(api, pods, move, known, drained)
    is_told = annotations_of(node).get(DRAIN) == drain_of(move)
    tell = write_patch(api, node, set_annotations(drain=drain_of(move)))

    def write(*, is_dry_run: bool) -> Mapping[str, object]:
        if not is_told:
            tell(is_dry_run=is_dry_run)
        for gang, here in _by_gang(leaving).items():
            _evict(api, _of_gang(api, gang, here, move, drained), drained, is_dry_run=is_dry_run)
        return drained.told()

    return Change(prior_of(node, move), write)


def pods_of_node(api: Reader, node: str) -> list[Object]:
    """Return all pods that are bound to a node."""
    return api.list_all(PODS, fields=f"spec.nodeName={node}")


def _leaving(api: Api, pods: Sequence[Object], move: Move, known: Known, drained: Drained) -> list[Object]:
    """Return the pods that are to be evicted; who stays is noted with its reason."""
    spaces: dict[str, Object | None] = {}
    is_of_gpus = move.arguments.get("scope") == DRAIN_GPUS
    leaving = []
    for pod in pods:
        meta = pod["metadata"]
        if _is_nodes_own(pod) or "deletionTimestamp" in meta:
            continue
        if is_of_gpus and not _holds(pod, move, known, drained):
            continue
        if meta["namespace"] not in spaces:
            spaces[meta["namespace"]] = get_or_none(api, NAMESPACES.path(meta["namespace"]))
        reason = _why_stays(pod, spaces[meta["namespace"]])
        if reason is None:
            leaving.append(pod)
        else:
            drained.staying[_name(pod)] = reason
    return leaving


def _is_nodes_own(pod: Object) -> bool:
    """Return whether a pod belongs to its node: a daemon set's would come back at once, a mirror pod can't leave."""
    owners = pod["metadata"].get("ownerReferences") or ()
    is_daemon = any(each.get("controller") and each["kind"] in {"DaemonSet", "Node"} for each in owners)
    return is_daemon or _MIRROR in annotations_of(pod)


def _holds(pod: Object, move: Move, known: Known, drained: Drained) -> bool:
    holding = known.held.get(pod["metadata"]["uid"])
    if holding is not None:
        return bool(set(holding.gpu_uuids) & set(move.gpu_uuids))
    if wants_gpus(pod):
        drained.staying[_name(pod)] = "nobody knows which GPUs it holds"
    return False


def _why_stays(pod: Object, space: Object | None) -> str | None:
    for told in (pod, *(() if space is None else (space,))):
        if "true" in {labels_of(told).get(PROTECT), annotations_of(told).get(PROTECT)}:
            return f"{told.get('kind') or 'Namespace'} {told['metadata']['name']} is protected"
    if annotations_of(pod).get(_STAYS) == "true":
        return f"its owner asks that it not be disrupted ({_STAYS})"
    if not any(each.get("controller") for each in pod["metadata"].get("ownerReferences") or ()):
        return "nothing would bring it back: no controller owns it"
    return None


def _by_gang(pods: Sequence[Object]) -> dict[tuple[str, str, str, str], list[Object]]:
    """Return pods by the gang they belong to (kind, namespace, name, label); who is in none stands alone."""
    found: dict[tuple[str, str, str, str], list[Object]] = {}
    for pod in sorted(pods, key=_name):
        namespace, labels = pod["metadata"]["namespace"], labels_of(pod)
        told = next(((kind, namespace, labels[label], label) for label, kind in GANGS if labels.get(label)), None)
        found.setdefault(told or ("Pod", namespace, pod["metadata"]["name"], ""), []).append(pod)
    return found


def _of_gang(
    api: Reader, gang: tuple[str, str, str, str], here: Sequence[Object], move: Move, drained: Drained
) -> Sequence[Object]:
    """Return which of a gang's pods on this node are to be evicted now: all, one, or none while another is leaving."""
    kind, namespace, name, label = gang
    if not label:
        return here
    members = [each for each in api.list_all(PODS, namespace, labels=f"{label}={name}") if is_on_node(each)]
    others = [each for each in members if each["spec"]["nodeName"] != move.target.name]
    if not others:
        return here
    told = f"{len(others)} of its {len(members)} pods run on other nodes and can't go on alone"
    drained.gangs[f"{kind}/{namespace}/{name}"] = f"{told}; one is evicted for all of them on {move.target.name}"
    if any("deletionTimestamp" in each["metadata"] for each in members):
        drained.waiting.update((_name(pod), f"another pod of {kind} {name} is leaving already") for pod in here)
        return ()
    return here[:1]


def _evict(api: Api, pods: Sequence[Object], drained: Drained, *, is_dry_run: bool) -> None:
    for pod in pods:
        try:
            reason = api.evict(pod, is_dry_run=is_dry_run)
        except StaleState:
            continue  # it has gone by itself
        except MoveRefused as error:
            reason = str(error)
        if reason is None:
            drained.evicted.append(_name(pod))
        else:
            drained.waiting[_name(pod)] = reason


def _name(pod: Object) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
