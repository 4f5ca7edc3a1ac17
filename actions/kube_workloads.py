"""Moves of workloads in Kubernetes: stop, resume, another size, another priority; and how workloads are observed.

Which fields stop a kind stands in `actions/kube_stops.py`. A stop and the note of what was before are one patch of one
object on the very version that was read, so nothing is ever half stopped.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from actions.fields import OUR_NAME
from actions.kube_body import OWNER as OWNED_BY
from actions.kube_body import (
    at,
    controller_of,
    is_protected,
    label,
    mark,
    meant_version,
    name_of,
    namespace_of,
    owner_in,
    workspace_in,
)
from actions.kube_floors import Sizers, Sizing, look_at_sizers, sizing_of
from actions.kube_port import NAMESPACES, Api, Change, Fields, Object, Reader, Resource, get_or_none
from actions.kube_shrink import marked
from actions.kube_stops import (
    QUEUE_NAME,
    WAYS,
    Seen,
    boost,
    boost_of,
    is_stopped,
    resume,
    scale,
    size_of,
    stop,
    stopped_by,
    way_of,
)
from actions.kube_write import patch_as_meant
from fleet.errors import MoveRefused, StaleState
from fleet.move import Move, MoveKind
from fleet.state import ObjectRef, Pod, Workload

KUEUE = "kueue.x-k8s.io"
_JOB_UID = "kueue.x-k8s.io/job-uid"
_GPU = "nvidia.com/"
_OVER = frozenset({"Complete", "Completed", "Failed", "Succeeded", "Finished"})
_BY_SIZE = ("spec", "replicas")


@dataclass(frozen=True, slots=True)
class WorkloadView:
    """What is read to tell workloads: their objects, Kueue's workloads (None: not served), and namespaces by name.

    `sizers` are the autoscalers and disruption budgets that have a say in their sizes.
    """

    objects: Sequence[Mapping[str, Any]] = ()
    admitted: Sequence[Mapping[str, Any]] | None = None
    namespaces: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sizers: Sizers = field(default_factory=Sizers)


def change_workload(api: Api, move: Move) -> Change:
    """Prepare a stop, a resumption, another size or another priority of a workload."""
    seen, places = _look(api, move)
    if move.resource_version not in {"", _version(seen)}:
        message = f"{move.target} has changed since it was planned for"
        raise StaleState(message)
    if move.kind is not MoveKind.RESUME_WORKLOAD:
        _check_free(seen)
    if move.kind in {MoveKind.SUSPEND_WORKLOAD, MoveKind.SCALE_WORKLOAD}:
        _check_unscaled(api, move, seen)
    patch, target = _change(move, seen)
    path = places[target["kind"]].path(name_of(target), namespace_of(target))
    write = partial(patch_as_meant, api, path, patch, target)
    if move.kind is MoveKind.SCALE_WORKLOAD:
        return Change(_prior(move, seen), marked(api, move, seen.body, write))
    return Change(_prior(move, seen), write)


def look_at_workloads(api: Reader) -> WorkloadView:
    """Read all that `workloads_from` needs: every object of a kind that can be stopped, where it is served."""
    objects: list[Object] = []
    for kind, way in WAYS.items():
        resource = None if way.stops is None else api.find(_group(way.group, kind), kind)
        objects += [] if resource is None else api.list_all(resource)
    kueue = api.find(KUEUE, "Workload")
    admitted = None if kueue is None else api.list_all(kueue)
    spaces = {name_of(each): each for each in api.list_all(NAMESPACES)}
    return WorkloadView(objects, admitted, spaces, look_at_sizers(api))


def look_at_workload(api: Api, move: Move) -> WorkloadView:
    """Read what `workloads_from` needs of one workload; `StaleState` where it is gone."""
    seen, places = _look(api, move)
    space = get_or_none(api, NAMESPACES.path(move.target.namespace))
    admitted = None if "Workload" not in places else [] if seen.admitted is None else [seen.admitted]
    spaces = {} if space is None else {move.target.namespace: space}
    return WorkloadView([seen.body], admitted, spaces, look_at_sizers(api, move.target.namespace))


def workloads_from(cluster: str, pods: Iterable[Pod], view: WorkloadView) -> tuple[Workload, ...]:
    """Return the workloads that hold GPUs, would hold some, or that we have stopped, in a stable order.

    `pods` are those with GPUs, named by their topmost owner as in the tables (`Pod.workload`).
    """
    held: defaultdict[ObjectRef, list[Pod]] = defaultdict(list)
    for pod in pods:
        held[pod.workload].append(pod)
    admitted = {} if view.admitted is None else _by_owner(view.admitted)
    known: dict[ObjectRef, Seen] = {}
    for body in view.objects:
        ref = ObjectRef(body["kind"], namespace_of(body), name_of(body))
        seen = _seen(body, None if view.admitted is None else admitted.get(body["metadata"]["uid"]), view)
        is_alive = controller_of(body) is None and not _is_over(body) and _wants_gpus(body)
        if ref in held or is_alive or stopped_by(seen) == OUR_NAME:
            known[ref] = seen
    refs = sorted({*held, *known})
    return tuple(_workload(cluster, ref, known.get(ref), held.get(ref, ()), view) for ref in refs)


def _workload(cluster: str, ref: ObjectRef, seen: Seen | None, pods: Sequence[Pod], view: WorkloadView) -> Workload:
    space = view.namespaces.get(ref.namespace)
    starts = [pod.started_at for pod in pods if pod.started_at is not None]
    body: Mapping[str, Any] = {} if seen is None else seen.body
    sizing = Sizing() if seen is None else sizing_of(seen.body, view.sizers)
    return Workload(
        cluster,
        ref,
        workspace_in(space) or ref.namespace or None,
        owner=mark(body, OWNED_BY) or owner_in(space),
        pods=tuple(sorted(pod.uid for pod in pods)),
        gpu_uuids=tuple(sorted({uuid for pod in pods for uuid in pod.gpu_uuids})),
        replicas=1 if seen is None else size_of(seen.kind, seen.body),
        is_suspended=seen is not None and is_stopped(seen),
        suspended_by=None if seen is None else stopped_by(seen),
        is_protected=is_protected(body) or (space is not None and is_protected(space)),
        started_at=min(starts) if starts else _moment(at(body, ("status", "startTime"))),
        resource_version="" if seen is None else _version(seen),
        queue=None if seen is None else label(seen.body, QUEUE_NAME),
        priority_boost=None if seen is None else boost_of(seen.admitted),
        uid=str(at(body, ("metadata", "uid")) or ""),
        replicas_floor=sizing.floor,
        sized_by=sizing.by,
        woken_by=None if seen is None or seen.admitted is not None else sizing.woken_by,
    )


def _seen(body: Mapping[str, Any], admitted: Mapping[str, Any] | None, view: WorkloadView) -> Seen:
    return Seen(body["kind"], body, admitted, label(body, QUEUE_NAME) is not None and view.admitted is not None)


def _look(api: Api, move: Move) -> tuple[Seen, Mapping[str, Resource]]:
    """Read a workload and Kueue's workload of it; return them, and where their kinds live."""
    kind = move.target.kind
    resource = api.find(_group(way_of(kind).group, kind), kind)
    if resource is None:
        message = f"{move.target}: the cluster serves no {kind}"
        raise StaleState(message)
    body = {"kind": kind, **api.get(resource.path(move.target.name, move.target.namespace))}
    places = {kind: resource}
    if label(body, QUEUE_NAME) is None and move.kind is not MoveKind.SET_PRIORITY_BOOST:
        return Seen(kind, body), places
    kueue = api.find(KUEUE, "Workload")
    if kueue is None:
        return Seen(kind, body), places
    uid = body["metadata"]["uid"]
    found = api.list_all(kueue, move.target.namespace, labels=f"{_JOB_UID}={uid}") or api.list_all(
        kueue, move.target.namespace
    )
    admitted = _by_owner(found).get(uid)
    return Seen(kind, body, admitted, label(body, QUEUE_NAME) is not None), {**places, "Workload": kueue}


def _by_owner(admitted: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return Kueue's workloads by the UID of the object they stand for; of several, the newest that is not finished."""
    found: dict[str, Mapping[str, Any]] = {}
    for each in sorted(admitted, key=lambda each: (not _is_over(each), str(each["metadata"].get("creationTimestamp")))):
        owner = controller_of(each)
        if owner is not None:
            found[str(owner.get("uid"))] = {**each, "kind": "Workload"}
    return found


def _is_over(body: Mapping[str, Any]) -> bool:
    """Return whether a job has ended, well or badly (each kind of job has its own word for it)."""
    conditions: Sequence[Mapping[str, Any]] = at(body, ("status", "conditions")) or ()
    return any(each.get("type") in _OVER and each.get("status") == "True" for each in conditions)


def _check_free(seen: Seen) -> None:
    """Refuse what another controller keeps as it is: what we change there would be changed back."""
    owner = controller_of(seen.body)
    if owner is not None:
        message = f"it belongs to {owner.get('kind')} {owner.get('name')}, which would change it back"
        raise MoveRefused(message)


def _check_unscaled(api: Api, move: Move, seen: Seen) -> None:
    """Refuse what an autoscaler would change back, and a size below what is to be kept."""
    sizing = sizing_of(seen.body, look_at_sizers(api, namespace_of(seen.body)))
    if move.kind is MoveKind.SUSPEND_WORKLOAD:
        if sizing.woken_by is not None and seen.holder is seen.body and way_of(seen.kind).stops == _BY_SIZE:
            message = f"{sizing.woken_by} would start it again"
            raise MoveRefused(message)
        return
    if sizing.by is not None:
        message = f"{sizing.by} decides its size and would change it back"
        raise MoveRefused(message)
    wanted = move.arguments.get("replicas")
    is_smaller = isinstance(wanted, int) and wanted < size_of(seen.kind, seen.body)
    if isinstance(wanted, int) and is_smaller and sizing.floor is not None and wanted < sizing.floor:
        message = (
            f"at least {sizing.floor} replicas of it are to stay (its autoscaler, or a disruption budget), not {wanted}"
        )
        raise MoveRefused(message)


def _change(move: Move, seen: Seen) -> tuple[Object, Mapping[str, Any]]:
    """Return the patch that a move comes to, and the object it is for."""
    match move.kind:
        case MoveKind.SUSPEND_WORKLOAD:
            return stop(seen, _since(move)), seen.holder
        case MoveKind.RESUME_WORKLOAD:
            return resume(seen), seen.holder
        case MoveKind.SCALE_WORKLOAD:
            return scale(seen.kind, seen.body, move.arguments.get("replicas")), seen.body
        case MoveKind.SET_PRIORITY_BOOST:
            return boost(seen.admitted, move.arguments.get("priority_boost")), seen.holder
        case _:
            message = f"{move.kind.value} is no move of a workload"
            raise MoveRefused(message)


def _since(move: Move) -> str:
    """Return what a stopped notebook says: the moment of the verdict (any text stops it; Kubeflow writes a time)."""
    verdict = move.evidence.get("verdict")
    made_at = verdict.get("made_at") if isinstance(verdict, Mapping) else None
    return str(made_at) if made_at is not None else OUR_NAME


def _prior(move: Move, seen: Seen) -> Fields:
    replicas = size_of(seen.kind, seen.body)
    match move.kind:
        case MoveKind.SCALE_WORKLOAD:
            return {"replicas": replicas}
        case MoveKind.SET_PRIORITY_BOOST:
            return {"priority_boost": boost_of(seen.admitted)}
        case _:
            return {"is_suspended": is_stopped(seen), "suspended_by": stopped_by(seen), "replicas": replicas}


def _version(seen: Seen) -> str:
    own = meant_version(seen.body)
    return own if seen.admitted is None else f"{own}/{meant_version(seen.admitted)}"


def _group(group: str, kind: str) -> str:
    """Return what to look a kind up by: of what is built in, the version is known."""
    return f"{group}/v1" if group in {"apps", "batch"} else group or kind


def _wants_gpus(value: object) -> bool:
    """Return whether any pod template in a spec asks for GPUs."""
    if isinstance(value, Mapping):
        amounts = value.get("limits") or value.get("requests")
        if isinstance(amounts, Mapping) and any(str(name).startswith(_GPU) for name in amounts):
            return True
        return any(_wants_gpus(each) for name, each in value.items() if name not in {"metadata", "status"})
    return isinstance(value, list) and any(_wants_gpus(each) for each in value)


def _moment(text: object) -> datetime | None:
    try:
        return None if text is None else datetime.fromisoformat(str(text))
    except ValueError:
        return None
