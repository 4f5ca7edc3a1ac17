"""The rules of single kinds: what the server sets at birth, what pods may change, how they are deleted gracefully."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from tests.kube.answers import Object, Refusal, barred, invalid
from tests.kube.kinds import CRDS, Kind

_FREE_OF_PODS = ("activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "schedulingGates")
_OVER = {"Succeeded", "Failed"}
_GRACE_S = 30
_POD_CHANGE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)
_OF_PODS: Object = {
    "restartPolicy": "Always", "terminationGracePeriodSeconds": _GRACE_S, "dnsPolicy": "ClusterFirst",
    "schedulerName": "default-scheduler",
}  # fmt: skip
_ROLLING: Object = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}


def text_of(moment: datetime) -> str:
    """Write a moment as the server does: whole seconds, UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def at_birth(kind: Kind, made: Object, now: datetime) -> Object:
    """Return a new object as the server would store it, with what it fills in."""
    if kind.has_status and not kind.keeps_status_at_birth:
        made = {name: value for name, value in made.items() if name != "status"}
    birth = None if kind.is_custom else _BIRTHS.get(kind.plural)
    return made if birth is None else birth(made, now)


def check_change(kind: Kind, before: Object, after: Object) -> None:
    """Refuse a change that the kind doesn't allow."""
    name = before["metadata"]["name"]
    if kind.plural == "pods" and not kind.is_custom and _fixed(before["spec"]) != _fixed(after["spec"]):
        raise invalid(kind.word, name, [barred("spec", _POD_CHANGE)])
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
    gates = [
        {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "lastTransitionTime": text_of(now)}
    ]
    status = {"phase": "Pending", **({"conditions": gates} if spec.get("schedulingGates") else {})}
    containers = [_asking(each) for each in spec.get("containers") or ()]
    return {**made, "spec": {**_OF_PODS, **spec, "containers": containers}, "status": status}


def _asking(container: Object) -> Object:
    """Return a container that asks for what it is limited to where it says nothing else."""
    resources = container.get("resources") or {}
    if not resources.get("limits"):
        return container
    return {
        **container,
        "resources": {**resources, "requests": {**resources["limits"], **resources.get("requests", {})}},
    }


def _namespace(made: Object, _now: datetime) -> Object:
    labels = {**(made["metadata"].get("labels") or {}), "kubernetes.io/metadata.name": made["metadata"]["name"]}
    return {
        **made, "metadata": {**made["metadata"], "labels": labels}, "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"},
    }  # fmt: skip


def _filled(**defaults: object) -> Callable[[Object, datetime], Object]:
    return lambda made, _now: {**made, "spec": {**defaults, **(made.get("spec") or {})}}


def _job(made: Object, _now: datetime) -> Object:
    """Return a Job whose pods are told by its uid and its name."""
    meta, given = made["metadata"], made.get("spec") or {}
    own = {"parallelism": 1, "completions": 1, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": False}
    spec: Object = {**own, **given}
    if spec.get("selector") is None:
        uid, name = {"batch.kubernetes.io/controller-uid": meta["uid"]}, {"batch.kubernetes.io/job-name": meta["name"]}
        told = {**uid, **name, "controller-uid": meta["uid"], "job-name": meta["name"]}
        template = spec.get("template") or {}
        inner = template.get("metadata") or {}
        labels = {**(inner.get("labels") or {}), **told}
        spec |= {"selector": {"matchLabels": uid}, "template": {**template, "metadata": {**inner, "labels": labels}}}
    return {**made, "spec": spec}


def _policy(made: Object, _now: datetime) -> Object:
    spec = made.get("spec") or {}
    kinds = ["Ingress", *(["Egress"] if spec.get("egress") else [])]
    for way in ("ingress", "egress"):
        if way in spec:
            rules = [_with_protocols(each) for each in spec[way] or ()]
            spec = {**spec, way: rules}
    return {**made, "spec": {"policyTypes": kinds, **spec}}


def _with_protocols(rule: Object) -> Object:
    ports = [{"protocol": "TCP", **each} for each in rule.get("ports") or ()]
    return {**rule, "ports": ports} if ports else rule


def _binding(made: Object, _now: datetime) -> Object:
    group = "rbac.authorization.k8s.io"
    subjects = [
        each if each.get("kind") == "ServiceAccount" else {"apiGroup": group, **each}
        for each in made.get("subjects") or ()
    ]
    whole = {**made, "roleRef": {"apiGroup": group, **(made.get("roleRef") or {})}}
    return {**whole, "subjects": subjects} if subjects else whole


def _limits(made: Object, _now: datetime) -> Object:
    limits = [_limit(each) for each in (made.get("spec") or {}).get("limits") or ()]
    return {**made, "spec": {**(made.get("spec") or {}), "limits": limits}}


def _limit(item: Object) -> Object:
    """Return a limit of containers whose defaults are its maxima where it says nothing else."""
    if item.get("type") != "Container" or not (item.get("max") or item.get("default")):
        return item
    default = {**(item.get("max") or {}), **(item.get("default") or {})}
    asked = {**default, **(item.get("min") or {}), **(item.get("defaultRequest") or {})}
    return {**item, "default": default, "defaultRequest": asked}


def _device_taint(made: Object, now: datetime) -> Object:
    spec = made.get("spec") or {}
    return {**made, "spec": {**spec, "taint": {"timeAdded": text_of(now), **(spec.get("taint") or {})}}}


def _crd(made: Object, now: datetime) -> Object:
    spec = made.get("spec") or {}
    expected = f"{spec.get('names', {}).get('plural')}.{spec.get('group')}"
    if made["metadata"]["name"] != expected:
        raise Refusal(422, f"metadata.name: must be spec.names.plural+.+spec.group, {expected}")
    told = {"type": "Established", "status": "True", "reason": "InitialNamesAccepted", "message": "",
            "lastTransitionTime": text_of(now)}  # fmt: skip
    return {**made, "status": {"acceptedNames": spec["names"], "conditions": [told], "storedVersions": []}}


_BIRTHS: Mapping[str, Callable[[Object, datetime], Object]] = {
    "pods": _pod, "namespaces": _namespace, "customresourcedefinitions": _crd, "jobs": _job,
    "networkpolicies": _policy, "rolebindings": _binding, "clusterrolebindings": _binding, "limitranges": _limits,
    "devicetaintrules": _device_taint,
    "deployments": _filled(replicas=1, strategy=_ROLLING, revisionHistoryLimit=10, progressDeadlineSeconds=600),
    "replicasets": _filled(replicas=1),
    "statefulsets": _filled(
        replicas=1, podManagementPolicy="OrderedReady", revisionHistoryLimit=10,
        updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
    ),
    "cronjobs": _filled(suspend=False, concurrencyPolicy="Allow"),
}  # fmt: skip


def _fixed(spec: Object) -> Object:
    kept = {name: value for name, value in spec.items() if name not in _FREE_OF_PODS}
    for name in ("containers", "initContainers"):
        if name in kept:
            kept[name] = [{key: value for key, value in each.items() if key != "image"} for each in kept[name]]
    return kept
