"""A Kubernetes cluster as a `Cluster`: what is observed of it, and each move handed to the writer of its scope."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import TypeVar

from actions.kinds import KINDS, Scope
from actions.kube_drain import change_drain, pods_of_node
from actions.kube_fence import change_gpu, look_at_devices
from actions.kube_nodes import change_node
from actions.kube_objects import change_object, look_at_objects, object_for, objects_from
from actions.kube_owners import Owners
from actions.kube_pools import change_pool, look_at_pools, pools_from
from actions.kube_port import NODES, PODS, Api, Change, Object, get_or_none
from actions.kube_quotas import change_queue, change_quota, look_at_quotas, queues_from, quotas_from
from actions.kube_state import Known, gpus_on, is_on_node, node_from, node_version, pod_from, wants_gpus
from actions.kube_workloads import change_workload, look_at_workload, look_at_workloads, workloads_from
from fleet.clock import Clock
from fleet.errors import ActionError, MoveRefused, SourceFailed, StaleState
from fleet.move import Move, MoveKind
from fleet.state import FleetState, ObjectRef, Pod

Writer = Callable[[Api, Move], Change]  # reads what it needs, raises `StaleState`, `MoveRefused` or `SourceFailed`
Found = TypeVar("Found")

WRITERS: Mapping[Scope, Writer] = MappingProxyType({
    "workload": change_workload,
    "quota": change_quota,
    "queue": change_queue,
    "pool": change_pool,
    "object": change_object,
})  # fmt: skip
_BOUND = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"
_OF_NODES = frozenset({"gpu", "node"})
_HEARTBEATS = 3  # how often a status may be written (a kubelet's, a controller's) between our look and our write
_WHOLE_FOR = timedelta(minutes=2)  # how long the rest of a state may be older than the target of a move
# what is decided by who still holds the node's GPUs
_BY_PODS = {MoveKind.DRAIN_NODE, MoveKind.REQUEST_REPAIR, MoveKind.SET_MIG_LAYOUT, MoveKind.SET_SHARING}


class KubeCluster:
    """One cluster of Kubernetes; `known` tells what is known of its GPUs, which the API server doesn't name."""

    def __init__(self, name: str, api: Api, known: Callable[[], Known], clock: Clock) -> None:
        self._name, self._api, self._known, self._clock = name, api, known, clock
        self._owners = Owners()
        self._last: FleetState | None = None  # what was seen last of everything
        self._whole_at: datetime | None = None  # when all of it was read
        self._nodes: dict[str, Object] = {}  # a node as it was read last, until it is written
        self._last_known = Known()

    @property
    def name(self) -> str:
        """Return the cluster's name."""
        return self._name

    def close(self) -> None:
        """Let go of the connections."""
        self._api.close()

    def observe(self) -> FleetState:
        """Return the state of now, all of it read afresh."""
        self._last = self._reading(self._observe)
        self._whole_at = self._last.taken_at
        return self._last

    def observe_for(self, move: Move) -> FleetState:
        """Return the state with the target of a move read afresh; the rest is at most two minutes older."""
        now, last = self._clock.now(), self._last
        if last is None or self._whole_at is None or now - self._whole_at > _WHOLE_FOR:
            last = self.observe()
        if move.cluster != self._name:
            return last  # nothing of it is here
        whole = last
        self._last = self._reading(lambda: replace(self._refreshed(whole, move), taken_at=now))
        return self._last

    def rehearse(self, move: Move) -> None:
        """Let the server check a move without making it."""
        self._write(move, is_dry_run=True)

    def make(self, move: Move) -> str:
        """Make a move and return the fields it changed, as they were, as JSON; what else is to be told stands there."""
        return json.dumps(self._write(move, is_dry_run=False), sort_keys=True)

    def _write(self, move: Move, *, is_dry_run: bool) -> dict[str, object]:
        """Write a move on the version that was seen of its target, again where only its status did change."""
        is_meant = move.cluster == self._name and move.target.kind == NODES.kind
        is_of_node = is_meant and KINDS[move.kind].scope in _OF_NODES
        move = self._bound(move) if is_of_node else move
        for tries_left in reversed(range(_HEARTBEATS if move.resource_version else 1)):
            try:
                change = self._prepare(move)  # raises where what the move was planned for is no longer so
                told = change.write(is_dry_run=is_dry_run) or {}
            except StaleState:
                self._nodes = {}
                if not tries_left:
                    raise
            else:
                self._nodes = self._nodes if is_dry_run else {}
                return {**told, **change.prior}
        message = f"{move.target} was not written"
        raise SourceFailed(message)

    def _bound(self, move: Move) -> Move:
        """Return a move of a node bound to what the node is now, where its plan knew of no version."""
        if move.resource_version:
            return move
        name = move.target.name
        found = self._nodes.get(name) or self._api.get(NODES.path(name))
        self._nodes = {name: found}
        return replace(move, resource_version=node_version(found))

    def _prepare(self, move: Move) -> Change:
        scope = KINDS[move.kind].scope
        if move.cluster != self._name:
            message = f"cluster {self._name} does not reach cluster {move.cluster}"
            raise MoveRefused(message)
        if scope in _OF_NODES:
            return self._prepare_on_node(move, self._nodes.get(move.target.name))
        return WRITERS[scope](self._api, move)

    def _prepare_on_node(self, move: Move, seen: Object | None) -> Change:
        if move.kind is MoveKind.DRAIN_NODE:
            return change_drain(self._api, move, self._last_known, seen)
        change = change_gpu if KINDS[move.kind].scope == "gpu" else change_node
        return change(self._api, move, seen)

    def _reading(self, read: Callable[[], Found]) -> Found:
        try:
            return read()
        except ActionError as error:
            message = f"cluster {self._name} can't be read: {error}"
            raise SourceFailed(message) from error

    def _observe(self) -> FleetState:
        api, now = self._api, self._clock.now()
        known = self._last_known = self._known()
        nodes = api.list_all(NODES)
        view = look_at_workloads(api)
        self._owners.learn(view.objects)
        pods = self._pods(api.list_all(PODS, fields=_BOUND))
        quotas = look_at_quotas(api)
        return FleetState(
            taken_at=now,
            gpus=gpus_on(nodes, known, look_at_devices(api)),
            slices=known.slices,
            nodes=tuple(node_from(self._name, each) for each in nodes),
            pods=pods,
            workloads=workloads_from(self._name, pods, view),
            quotas=quotas_from(self._name, quotas),
            queues=queues_from(self._name, quotas),
            pools=pools_from(self._name, look_at_pools(api)),
            objects=objects_from(self._name, look_at_objects(api)),
        )

    def _refreshed(self, last: FleetState, move: Move) -> FleetState:
        match KINDS[move.kind].scope:
            case "gpu" | "node":
                return self._with_node(last, move)
            case "workload":
                return self._with_workload(last, move)
            case "quota" | "queue":
                view = look_at_quotas(self._api)
                return replace(last, quotas=quotas_from(self._name, view), queues=queues_from(self._name, view))
            case "pool":
                return replace(last, pools=pools_from(self._name, look_at_pools(self._api)))
            case "object":
                kept = tuple(each for each in last.objects if each.ref != move.target)
                found = object_for(self._api, self._name, move)
                return replace(last, objects=kept if found is None else (*kept, found))

    def _with_node(self, last: FleetState, move: Move) -> FleetState:
        name = move.target.name
        found = get_or_none(self._api, NODES.path(name))
        self._nodes = {} if found is None else {name: found}
        nodes = [] if found is None else [node_from(self._name, found)]
        state = replace(last, nodes=_with(last.nodes, nodes, lambda each: each.name == name))
        if KINDS[move.kind].scope == "gpu":
            ours = [gpu for gpu in last.gpus if gpu.node == name]
            known = replace(self._last_known, gpus=tuple(ours))
            fresh = gpus_on([] if found is None else [found], known, look_at_devices(self._api, name))
            state = replace(state, gpus=_with(last.gpus, fresh, lambda each: each.node == name))
        if move.kind in _BY_PODS:
            pods = self._pods(each for each in pods_of_node(self._api, name) if is_on_node(each))
            state = replace(state, pods=_with(last.pods, pods, lambda each: each.node == name))
        if move.kind is MoveKind.DRAIN_NODE:
            for ref in sorted({pod.workload for pod in state.pods if pod.node == name}):
                state = self._with_owner(state, move, ref)
        return state

    def _with_owner(self, state: FleetState, move: Move, ref: ObjectRef) -> FleetState:
        """Look again at who owns a pod that is to leave: its owner may have asked just now that it be left alone."""
        try:
            return self._with_workload(state, replace(move, target=ref))
        except MoveRefused:
            return state  # of a kind that we can't read by itself; the pod and its namespace are asked by the drain

    def _with_workload(self, last: FleetState, move: Move) -> FleetState:
        ref = move.target
        try:
            view = look_at_workload(self._api, move)
        except StaleState:
            return replace(last, workloads=tuple(each for each in last.workloads if each.ref != ref))
        found = self._pods(each for each in self._api.list_all(PODS, ref.namespace) if is_on_node(each))
        pods = tuple(each for each in found if each.workload == ref)
        workloads = [each for each in workloads_from(self._name, pods, view) if each.ref == ref]
        return replace(
            last,
            pods=_with(last.pods, pods, lambda each: each.workload == ref),
            workloads=_with(last.workloads, workloads, lambda each: each.ref == ref),
        )

    def _pods(self, found: Iterable[Object]) -> tuple[Pod, ...]:
        return tuple(
            pod_from(self._name, each, self._owners.top(self._api, each), self._last_known)
            for each in found
            if wants_gpus(each)
        )


def _with(before: tuple[Found, ...], after: Iterable[Found], is_replaced: Callable[[Found], bool]) -> tuple[Found, ...]:
    """Return `before` with others in the place of some of it; the very same where nothing changed."""
    places = [place for place, each in enumerate(before) if is_replaced(each)]
    new = tuple(after)
    if len(places) != len(new):
        return (*(each for each in before if not is_replaced(each)), *new)
    if all(before[place] == each for place, each in zip(places, new, strict=True)):
        return before
    made = list(before)
    for place, each in zip(places, new, strict=True):
        made[place] = each
    return tuple(made)
