"""The rules of single kinds: what the server sets at birth, what may not change, how pods are deleted gracefully."""

from datetime import UTC, datetime, timedelta

from tests.kube.answers import Object, Refusal
from tests.kube.kinds import CRDS, Kind

_FREE_OF_PODS = ("activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "schedulingGates")
_OVER = {"Succeeded", "Failed"}
_GRACE_S = 30


def text_of(moment: datetime) -> str:
    """Write a moment as the server does: whole seconds, UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def at_birth(kind: Kind, made: Object, now: datetime) -> Object:
    """Return a new object as the server would store it."""
    if kind.has_status and not kind.keeps_status_at_birth:
        made = {name: value for name, value in made.items() if name != "status"}
    birth = {
        "pods": _pod, "namespaces": _namespace, "customresourcedefinitions": _crd,
    }  # fmt: skip
    return birth[kind.plural](made, now) if kind.plural in birth else made


def check_change(kind: Kind, before: Object, after: Object) -> None:
    """Refuse a change that the kind doesn't allow."""
    if kind.plural == "pods" and _fixed(before["spec"]) != _fixed(after["spec"]):
        raise Refusal(
            422, f'Pod "{before["metadata"]["name"]}" is invalid: spec: Forbidden: pod updates may not change it'
        )
    if kind.plural == "jobs" and before["spec"].get("template") != after["spec"].get("template"):
        raise Refusal(422, f'Job "{before["metadata"]["name"]}" is invalid: spec.template: field is immutable')
    if kind.key == CRDS and before["spec"]["group"] != after["spec"]["group"]:
        raise Refusal(422, "spec.group: field is immutable")


def grace_of(kind: Kind, live: Object, asked_s: int | None) -> int:
    """Return how many seconds an object may live on after its deletion: only pods on nodes that are not over."""
    is_held = live.get("spec", {}).get("nodeName") and live.get("status", {}).get("phase") not in _OVER
    if kind.plural != "pods" or not is_held:
        return 0
    own = live["spec"].get("terminationGracePeriodSeconds")
    return asked_s if asked_s is not None else own if own is not None else _GRACE_S


def dying(live: Object, grace_s: int, now: datetime) -> Object:
    """Return an object that is to be deleted; a second deletion can only bring the moment forward."""
    meta = live["metadata"]
    moment = text_of(now + timedelta(seconds=grace_s))
    if "deletionTimestamp" in meta and meta["deletionTimestamp"] <= moment:
        return live
    return {**live, "metadata": {**meta, "deletionTimestamp": moment, "deletionGracePeriodSeconds": grace_s}}


def bound(pod: Object, node: str, now: datetime) -> Object:
    """Return a pod that the scheduler bound to a node."""
    conditions = [each for each in pod["status"].get("conditions") or () if each["type"] != "PodScheduled"]
    told = {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": text_of(now)}
    status = {**pod["status"], "conditions": [*conditions, told]}
    return {**pod, "spec": {**pod["spec"], "nodeName": node}, "status": status}


def _pod(made: Object, now: datetime) -> Object:
    spec = made.get("spec") or {}
    containers = spec.get("containers") or []
    if not containers or any("name" not in each for each in containers):
        raise Refusal(422, f'Pod "{made["metadata"].get("name")}" is invalid: spec.containers: Required value')
    for each in containers:
        limits, requests = (each.get("resources", {}).get(word) or {} for word in ("limits", "requests"))
        for name in (*limits, *requests):
            if "/" in name and limits.get(name) != requests.get(name, limits.get(name)):
                raise Refusal(422, f"spec.containers.resources.requests: {name}: must be equal to {name} limit")
    gates = [
        {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "lastTransitionTime": text_of(now)}
    ]
    status = {"phase": "Pending", **({"conditions": gates} if spec.get("schedulingGates") else {})}
    return {**made, "spec": {"restartPolicy": "Always", **spec}, "status": status}


def _namespace(made: Object, _now: datetime) -> Object:
    labels = {**(made["metadata"].get("labels") or {}), "kubernetes.io/metadata.name": made["metadata"]["name"]}
    return {**made, "metadata": {**made["metadata"], "labels": labels}, "status": {"phase": "Active"}}


def _crd(made: Object, now: datetime) -> Object:
    spec = made.get("spec") or {}
    expected = f"{spec.get('names', {}).get('plural')}.{spec.get('group')}"
    if made["metadata"]["name"] != expected:
        raise Refusal(422, f"metadata.name: must be spec.names.plural+.+spec.group, {expected}")
    told = {"type": "Established", "status": "True", "reason": "InitialNamesAccepted", "message": "",
            "lastTransitionTime": text_of(now)}  # fmt: skip
    return {**made, "status": {"acceptedNames": spec["names"], "conditions": [told], "storedVersions": []}}


def _fixed(spec: Object) -> Object:
    kept = {name: value for name, value in spec.items() if name not in _FREE_OF_PODS}
    for name in ("containers", "initContainers"):
        if name in kept:
            kept[name] = [{key: value for key, value in each.items() if key != "image"} for each in kept[name]]
    return kept
