"""Moves of nodes in Kubernetes: cordon, taint, mark, ask for a repair, lay out MIG devices, share GPUs.

Each is one patch of one node, made on the very version that was read. What we ask of a node stands on it as an
annotation; carrying out a repair or a layout is other programs' work.
"""

from collections.abc import Callable, Mapping

from actions.fields import OUR_NAME
from actions.kinds import KINDS
from actions.kube_port import (
    EVENTS,
    NODES,
    OURS,
    Api,
    Change,
    Fields,
    Object,
    annotations_of,
    labels_of,
    version_in,
)
from actions.kube_state import (
    CONDITION,
    CORDON_CAUSE,
    CORDONED_BY,
    DRAIN,
    MIG_CONFIG,
    SHARING,
    cordoned_by,
    node_from,
    node_version,
    taints_of,
)
from fleet.errors import ActionError, MoveRefused, SourceFailed, StaleState
from fleet.move import Move, MoveKind

_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_MOST_NOTE = 1024  # characters of an event's note that the server takes
Patch = Callable[[Object, Move], Object]


def change_node(api: Api, move: Move, seen: Object | None = None) -> Change:
    """Prepare a move of one node, as it was just `seen` where it was."""
    found = read_node(api, move, seen)
    if move.kind in _PATCHES:
        patch = _PATCHES[move.kind](found, move)
        return Change(prior_of(found, move), write_patch(api, found, patch))
    if move.kind in {MoveKind.MARK_NODE, MoveKind.UNMARK_NODE}:
        return Change(prior_of(found, move), _mark(api, found, move))
    message = f"{move.kind.value}: not a move of a node by itself"
    raise MoveRefused(message)


def read_node(api: Api, move: Move, seen: Object | None = None) -> Object:
    """Return a move's node; `StaleState` where it is gone or no longer what the plan knew.

    One that was just `seen` is not asked for again: if it has changed since, the write finds its version gone.
    """
    if move.target.kind != "Node":
        message = f"{move.kind.value} needs a Node, not {move.target}"
        raise MoveRefused(message)
    found = api.get(NODES.path(move.target.name)) if seen is None else seen
    if move.resource_version not in {"", node_version(found)}:
        message = f"node {move.target.name} in {move.cluster} has changed since it was planned for"
        raise StaleState(message)
    return found


def prior_of(found: Object, move: Move) -> Fields:
    """Return the fields of a node that a move changes, as they are."""
    node = node_from(move.cluster, found)
    match move.kind:
        case MoveKind.TAINT_NODE | MoveKind.UNTAINT_NODE:
            key = str(move.arguments.get("taint", "")).partition("=")[0]
            value = node.taints.get(key)
            return {"taint": None if value is None else f"{key}={value}"}
        case _:
            return {name: getattr(node, name) for name in KINDS[move.kind].fields}


def write_patch(api: Api, found: Object, patch: Object) -> Callable[..., None]:
    """Return the write of a merge patch on a node in the version that was read."""

    def write(*, is_dry_run: bool) -> None:
        path = NODES.path(found["metadata"]["name"])
        api.patch(path, patch, is_dry_run=is_dry_run, version=version_in(found))

    return write


def set_annotations(**values: str | None) -> Object:
    """Return the patch that sets annotations of ours by the last part of their names; None takes one away."""
    return {"metadata": {"annotations": {OURS + name.replace("_", "-"): value for name, value in values.items()}}}


def _cordon(found: Object, move: Move) -> Object:
    spec = found.get("spec") or {}
    if spec.get("unschedulable", False):
        message = f"node {move.target.name} was cordoned by {cordoned_by(found) or 'somebody else'} already"
        raise MoveRefused(message)
    notes = {CORDONED_BY: OUR_NAME, CORDON_CAUSE: str(move.arguments.get("cause") or move.cause)}
    return {"spec": {"unschedulable": True}, "metadata": {"annotations": notes}}


def _uncordon(found: Object, move: Move) -> Object:
    _require_our_cordon(found, move)
    notes = {CORDONED_BY: None, CORDON_CAUSE: None}
    return {"spec": {"unschedulable": None}, "metadata": {"annotations": notes}}


def _taint(found: Object, move: Move) -> Object:
    key, value, effect = _told_taint(move)
    if effect not in _EFFECTS:
        message = f"taint: {effect!r} is not one of {', '.join(_EFFECTS)}"
        raise MoveRefused(message)
    ours = {"key": key, "effect": effect} | ({"value": value} if value else {})
    return {"spec": {"taints": [*_others(found, key), ours]}}


def _untaint(found: Object, move: Move) -> Object:
    key, _, _ = _told_taint(move)
    return {"spec": {"taints": _others(found, key) or None}}


def _told_taint(move: Move) -> tuple[str, str, str]:
    key, _, rest = str(move.arguments.get("taint", "")).partition("=")
    value, _, effect = rest.partition(":")
    if not key.startswith(OURS):
        message = f"taint: {key!r} does not begin with {OURS}; taints of others are not touched"
        raise MoveRefused(message)
    return key, value, effect


def _others(found: Object, key: str) -> list[Object]:
    return [each for each in taints_of(found) if each["key"] != key]


def _ask_repair(found: Object, move: Move) -> Object:
    # read in the same version as the patch is made on: a drain that was cancelled never ends in a reboot
    if annotations_of(found).get(DRAIN) is None:
        message = f"node {move.target.name} was not drained, or its drain was cancelled"
        raise MoveRefused(message)
    return set_annotations(repair=str(move.arguments["repair"]))


def _relabel(label: str, argument: str) -> Patch:
    def patch(found: Object, move: Move) -> Object:
        _require_our_cordon(found, move)
        value = move.arguments.get(argument)
        if value is None and label not in labels_of(found):
            message = f"node {move.target.name} has no label {label} to take away"
            raise MoveRefused(message)
        return {"metadata": {"labels": {label: value}}}

    return patch


def _require_our_cordon(found: Object, move: Move) -> None:
    if not (found.get("spec") or {}).get("unschedulable", False):
        message = f"node {move.target.name} is not cordoned"
        raise MoveRefused(message)
    if cordoned_by(found) != OUR_NAME:
        message = f"node {move.target.name} was cordoned by {cordoned_by(found) or 'somebody else'}, not by us"
        raise MoveRefused(message)


def _mark(api: Api, found: Object, move: Move) -> Callable[..., None]:
    name, reason = found["metadata"]["name"], move.arguments.get("mark")
    conditions = {each["type"] for each in (found.get("status") or {}).get("conditions") or ()}
    is_set = move.kind is MoveKind.MARK_NODE
    if not is_set and CONDITION not in conditions:
        message = f"node {name} bears no mark of ours"
        raise MoveRefused(message)
    now = api.now().strftime("%Y-%m-%dT%H:%M:%SZ")
    told = {
        "type": CONDITION, "status": "True", "reason": reason, "message": move.reason,
        "lastTransitionTime": now, "lastHeartbeatTime": now,
    }  # fmt: skip
    patch = {"status": {"conditions": [told if is_set else {"$patch": "delete", "type": CONDITION}]}}

    def write(*, is_dry_run: bool) -> None:
        path = NODES.path(name, part="status")
        api.patch(path, patch, is_dry_run=is_dry_run, how="strategic", version=version_in(found))
        try:
            api.create(EVENTS.path(namespace="default"), _event(api, found, move), is_dry_run=is_dry_run)
        except (ActionError, SourceFailed) as error:
            # the mark stands by then; a rehearsal has changed nothing and may say what is missing
            if is_dry_run and not isinstance(error, StaleState):
                raise

    return write


def _event(api: Api, found: Object, move: Move) -> Object:
    """Return the event that tells of a mark, about the node and in the namespace that events of nodes stand in."""
    name = found["metadata"]["name"]
    return {
        "apiVersion": EVENTS.api_version, "kind": EVENTS.kind,
        "metadata": {"generateName": f"{OUR_NAME}-", "namespace": "default"},
        "eventTime": api.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "action": "".join(part.capitalize() for part in move.kind.value.split("_")),
        "reason": str(move.arguments.get("mark") or "Unmarked"),
        "note": move.reason[:_MOST_NOTE],
        "type": "Warning" if move.kind is MoveKind.MARK_NODE else "Normal",
        "reportingController": OURS + OUR_NAME, "reportingInstance": OUR_NAME,
        "regarding": {"apiVersion": "v1", "kind": "Node", "name": name, "uid": found["metadata"]["uid"]},
    }  # fmt: skip


_PATCHES: Mapping[MoveKind, Patch] = {
    MoveKind.CORDON_NODE: _cordon,
    MoveKind.UNCORDON_NODE: _uncordon,
    MoveKind.TAINT_NODE: _taint,
    MoveKind.UNTAINT_NODE: _untaint,
    MoveKind.CANCEL_DRAIN: lambda _found, _move: set_annotations(drain=None),
    MoveKind.REQUEST_REPAIR: _ask_repair,
    MoveKind.WITHDRAW_REPAIR: lambda _found, _move: set_annotations(repair=None),
    MoveKind.SET_MIG_LAYOUT: _relabel(MIG_CONFIG, "mig_layout"),
    MoveKind.SET_SHARING: _relabel(SHARING, "sharing"),
}
