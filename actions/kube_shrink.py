"""Which replicas go when a Deployment or a ReplicaSet is made smaller: those that idle, marked first, watched after.

Kubernetes takes the replica of the lowest `pod-deletion-cost` first, among those that are ready. So the idle ones get a
cost below all others; what an owner has ranked is never changed, and our marks are taken off again.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actions.kube_body import annotation, at, controller_of, name_of, namespace_of
from actions.kube_port import OURS, PODS, Api, Object, Reader, Write
from actions.kube_state import OVER
from actions.kube_stops import size_of
from fleet.errors import ActionError, MoveRefused, SourceFailed, StaleState
from fleet.move import Move

COST, OUR_COST = "controller.kubernetes.io/pod-deletion-cost", OURS + "deletion-cost"
KINDS = frozenset({"Deployment", "ReplicaSet"})
IDLE = "idle_pods"  # what a move's evidence names as namespace/name
_LEAST = -(2**31)
_HEARD_S = 1.0  # controllers hear of marks by a watch, which is a little behind
_LOOKS, _PAUSE_S = 40, 0.25  # how often it is looked whether they went; their controller needs a moment


@dataclass(frozen=True, slots=True)
class Replicas:
    """The pods of a workload that is made smaller: which are to go, and which are to stay."""

    going: Sequence[Object] = ()
    staying: Sequence[Object] = ()

    @property
    def all(self) -> Sequence[Object]:
        """Return them all."""
        return (*self.going, *self.staying)


def marked(api: Api, move: Move, body: Mapping[str, Any], write: Callable[..., None]) -> Write:
    """Return the write of another size that lets idle replicas go first, and takes our marks off where it can."""
    wanted = move.arguments.get("replicas")
    if not isinstance(wanted, int) or body["kind"] not in KINDS:
        return write
    named = move.evidence.get(IDLE)
    pods = replicas_of(api, body)
    if not isinstance(named, list | tuple) or wanted >= size_of(body["kind"], body):
        return _with_marks_off(api, pods, write)
    found = _chosen(pods, {str(each) for each in named}, body, wanted)
    cost = _cost_below(found)

    def shrink(*, is_dry_run: bool) -> Mapping[str, object] | None:
        _unmark(api, found.staying, is_dry_run=is_dry_run)
        _mark(api, found.going, cost, is_dry_run=is_dry_run)
        if not is_dry_run:
            api.pause(_HEARD_S)
        try:
            write(is_dry_run=is_dry_run)
        except ActionError:
            _unmark(api, found.going, is_dry_run=is_dry_run)  # surely nothing was made
            raise
        return None if is_dry_run else _watched(api, found)

    return shrink


def replicas_of(api: Reader, body: Mapping[str, Any]) -> list[Object]:
    """Return the pods of a Deployment or a ReplicaSet that are neither over nor about to go."""
    space = namespace_of(body)
    uids = {body["metadata"]["uid"]}
    if body["kind"] == "Deployment":
        sets = api.find("apps/v1", "ReplicaSet")
        uids = set() if sets is None else {
            each["metadata"]["uid"] for each in api.list_all(sets, space) if _owner_uid(each) in uids
        }  # fmt: skip
    return [each for each in api.list_all(PODS, space) if _owner_uid(each) in uids and _is_alive(each)]


def _chosen(pods: Sequence[Object], named: set[str], body: Mapping[str, Any], wanted: int) -> Replicas:
    """Return who goes and who stays; raise where Kubernetes might take another one than was named."""
    found = Replicas(
        [each for each in pods if _full(each) in named], [each for each in pods if _full(each) not in named]
    )
    missing = sorted(named - {_full(each) for each in found.going})
    if missing:
        message = f"{missing[0]} is no longer one of its replicas"
        raise StaleState(message)
    size = size_of(body["kind"], body)
    if (len(pods), len(found.going)) != (size, size - wanted):
        message = (
            f"it has {len(pods)} replicas and asks for {size}; which of them go can't be said before it has settled"
        )
        raise StaleState(message)
    if len({_owner_uid(each) for each in pods}) > 1:
        message = "a rollout is on its way, which takes replicas by its own order"
        raise MoveRefused(message)
    unready = sorted(_full(each) for each in found.staying if not _is_ready(each))
    if unready:
        message = f"{unready[0]} is not ready and would go before those that idle"
        raise MoveRefused(message)
    return found


def _cost_below(found: Replicas) -> str:
    """Return a cost below that of all who stay; raise where the owner has ranked them otherwise."""
    least = min((_owners_cost(each) or 0 for each in found.staying), default=0)
    for each in found.going:
        owners = _owners_cost(each)
        if owners is not None and owners >= least:
            message = f"its owner ranks its replicas by {COST}, and {_full(each)} would not go first"
            raise MoveRefused(message)
    if least == _LEAST:
        message = f"its owner ranks its replicas by {COST}, and nothing is lower than the lowest of those that stay"
        raise MoveRefused(message)
    return str(least - 1)


def _mark(api: Api, pods: Iterable[Object], cost: str, *, is_dry_run: bool) -> None:
    done: list[Object] = []
    for each in pods:
        if _owners_cost(each) is not None:
            continue  # low enough, and not ours to change
        try:
            _annotate(api, each, cost, is_dry_run=is_dry_run)
        except (ActionError, SourceFailed):
            _unmark(api, done, is_dry_run=is_dry_run, is_known=True)
            raise
        done.append(each)


def _unmark(api: Api, pods: Iterable[Object], *, is_dry_run: bool, is_known: bool = False) -> list[str]:
    """Take our marks off these pods as they are now; return those that could not be reached."""
    left: list[str] = []
    for each in pods:
        try:
            live = each if is_known else api.get(PODS.path(name_of(each), namespace_of(each)))
            if is_known or _is_ours(live):
                _annotate(api, live, None, is_dry_run=is_dry_run)
        except StaleState:
            continue  # it is gone, and its mark with it
        except (ActionError, SourceFailed):
            left.append(_full(each))
    return left


def _annotate(api: Api, pod: Object, cost: str | None, *, is_dry_run: bool) -> None:
    # the UID makes it that very pod: another one of its name would be a conflict
    meta = {"uid": pod["metadata"]["uid"], "annotations": {COST: cost, OUR_COST: cost}}
    api.patch(PODS.path(name_of(pod), namespace_of(pod)), {"metadata": meta}, is_dry_run=is_dry_run)


def _with_marks_off(api: Api, pods: Sequence[Object], write: Callable[..., None]) -> Write:
    """Return a write that also ends what we marked: nobody is to go first any more."""

    def grow(*, is_dry_run: bool) -> None:
        write(is_dry_run=is_dry_run)
        _unmark(api, [each for each in pods if _is_ours(each)], is_dry_run=is_dry_run)

    return grow


def _watched(api: Api, found: Replicas) -> Mapping[str, object]:
    """Watch which replicas go, for some seconds, and tell it; marks of those that did not go are taken off."""
    gone: set[str] = set()
    for _ in range(_LOOKS):
        try:
            live = api.list_all(PODS, namespace_of(found.going[0]))
        except (ActionError, SourceFailed):
            live = None
        if live is not None:
            alive = {each["metadata"]["uid"] for each in live if _is_alive(each)}
            gone = {_full(each) for each in found.all if each["metadata"]["uid"] not in alive}
        if len(gone) >= len(found.going):
            break
        api.pause(_PAUSE_S)
    return _told(api, found, gone)


def _told(api: Api, found: Replicas, gone: set[str]) -> Mapping[str, object]:
    idle = sorted({_full(each) for each in found.going} & gone)
    others = sorted({_full(each) for each in found.staying} & gone)
    waiting = sorted({_full(each) for each in found.going} - gone)
    words = [f"{len(idle)} of {len(found.going)} idle replicas went" + (f" ({', '.join(idle)})" if idle else "")]
    if others:
        words.append(f"NOT idle and gone as well: {', '.join(others)}")
    elif not waiting:
        words.append("none other did")
    if len(gone) >= len(found.going):
        marks = _unmark(api, [each for each in found.going if _full(each) in waiting], is_dry_run=False)
    else:
        # until their controller has acted the marks are needed; the next change of size takes them off
        marks = waiting
        words.append(f"still there after {_LOOKS * _PAUSE_S:g} s, and marked to go first: {', '.join(waiting)}")
    told = {"went": idle, "went_busy": others, "still_there": waiting, "marks_left": marks}
    return {**{name: value for name, value in told.items() if value}, "seen": "; ".join(words)}


def _owners_cost(pod: Mapping[str, Any]) -> int | None:
    """Return the cost that somebody else gave a pod, None where nobody did; what is no number counts as none."""
    said = annotation(pod, COST)
    if said is None or _is_ours(pod):
        return None
    try:
        return int(said)
    except ValueError:
        return 0


def _is_ours(pod: Mapping[str, Any]) -> bool:
    said = annotation(pod, OUR_COST)
    return said is not None and said == annotation(pod, COST)


def _is_alive(pod: Mapping[str, Any]) -> bool:
    return "deletionTimestamp" not in pod["metadata"] and at(pod, ("status", "phase")) not in OVER


def _is_ready(pod: Mapping[str, Any]) -> bool:
    conditions: Sequence[Mapping[str, Any]] = at(pod, ("status", "conditions")) or ()
    is_bound = at(pod, ("spec", "nodeName")) is not None
    return is_bound and any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)


def _owner_uid(body: Mapping[str, Any]) -> str | None:
    owner = controller_of(body)
    return None if owner is None else str(owner.get("uid"))


def _full(pod: Mapping[str, Any]) -> str:
    return f"{namespace_of(pod)}/{name_of(pod)}"
