"""Subresources beside status: scale, binding, and eviction that honours pod disruption budgets."""

from dataclasses import dataclass
from math import ceil

from tests.kube.answers import Object, Refusal, about, bad, invalid
from tests.kube.kinds import Kind
from tests.kube.rules import bound
from tests.kube.selectors import by_selector
from tests.kube.verbs import Api, How

_PODS, _BUDGETS = "pods.", "poddisruptionbudgets.policy"


def scale_of(live: Object) -> Object:
    """Return an object's Scale."""
    meta = {name: live["metadata"].get(name) for name in ("name", "namespace", "uid", "resourceVersion")}
    spec, status = live.get("spec") or {}, live.get("status") or {}
    replicas = spec.get("replicas", 1)
    labels = (spec.get("selector") or {}).get("matchLabels") or {}
    return {
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {**meta, "creationTimestamp": live["metadata"]["creationTimestamp"]},
        "spec": {"replicas": replicas} if replicas else {},  # as the server words it: none is left out
        "status": {
            "replicas": status.get("replicas", 0),
            "selector": ",".join(f"{name}={value}" for name, value in sorted(labels.items())),
        },
    }  # fmt: skip


def set_scale(api: Api, kind: Kind, live: Object, scale: Object, how: How) -> Object:
    """Write a Scale: only the replicas of the object change."""
    replicas = (scale.get("spec") or {}).get("replicas", 0)
    name = live["metadata"]["name"]
    if not isinstance(replicas, int):
        told = bad("patch", "the patched object", "json: cannot unmarshal into Go struct field ScaleSpec.spec.replicas")
        raise Refusal(422, f' "" is invalid: {told.text}', causes=[told.cause()])
    if replicas < 0:
        wrong = bad("spec.replicas", replicas, "must be greater than or equal to 0")
        word = "Scale.autoscaling"
        raise invalid(word, name, [wrong])
    version = (scale.get("metadata") or {}).get("resourceVersion")
    if version not in {None, "", live["metadata"]["resourceVersion"]}:
        raise kind.conflict(name)
    return scale_of(api.write(kind, live, {**live, "spec": {**live["spec"], "replicas": replicas}}, how))


def bind(api: Api, kind: Kind, pod: Object, binding: Object, how: How) -> Object:
    """Bind a pod to a node, once."""
    name = pod["metadata"]["name"]
    if pod["spec"].get("nodeName"):
        raise _unbound(name, f'pod {name} is already assigned to node "{pod["spec"]["nodeName"]}"')
    if pod["spec"].get("schedulingGates"):
        raise _unbound(name, f"pod {name} has non-empty .spec.schedulingGates")
    api.write(kind, pod, bound(pod, binding["target"]["name"], api.clock()), how)
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


def _unbound(name: str, why: str) -> Refusal:
    told = about(name, "", "pods/binding")
    return Refusal(409, f'Operation cannot be fulfilled on pods/binding "{name}": {why}', about=told)


def evict(api: Api, kind: Kind, pod: Object, eviction: Object, how: How) -> Object:
    """Delete a pod unless a budget that selects it allows no disruption; pods that don't run cost no budget."""
    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    if (eviction.get("metadata") or {}).get("name", name) != name:
        raise Refusal(400, "name in URL does not match name in Eviction object")
    if pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]:
        budgets = [each for each in _all(api, _BUDGETS, namespace) if by_selector(each["spec"].get("selector"))(pod)]
        if len(budgets) > 1:
            why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
            raise Refusal(500, why)
        for each in budgets:
            _check_budget(_count_of(api, each), each, pod)
    api.delete(kind, namespace, name, how, eviction.get("deleteOptions") or {})
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


@dataclass(frozen=True)
class _Count:
    """How many pods of a budget are healthy, and how many must be; `is_known`: whether that can be told at all."""

    healthy: int
    desired: int
    is_known: bool


def _check_budget(count: _Count, budget: Object, pod: Object) -> None:
    is_enough = count.is_known and count.healthy >= count.desired
    if not _is_healthy(pod):
        policy = budget["spec"].get("unhealthyPodEvictionPolicy", "IfHealthyBudget")
        if policy == "AlwaysAllow" or (is_enough and count.desired > 0):
            return
    if not is_enough or count.healthy - count.desired < 1:
        needs = f"needs {count.desired} healthy pods and has {count.healthy} currently"
        why = needs if count.healthy <= count.desired else "does not allow evicting pods currently"
        message = f"The disruption budget {budget['metadata']['name']} {why}"
        cause = {"reason": "DisruptionBudget", "message": message}
        raise Refusal(429, "Cannot evict pod as it would violate the pod's disruption budget.", causes=[cause])


def _count_of(api: Api, budget: Object) -> _Count:
    """Count a budget's pods as its controller does.

    How many there should be is asked of what owns them, where the budget is a share or an amount that may be missing;
    pods that nobody owns are then none.
    """
    test, spec = by_selector(budget["spec"].get("selector")), budget["spec"]
    pods = [each for each in _all(api, _PODS, budget["metadata"]["namespace"]) if test(each)]
    alive = [each for each in pods if each["status"].get("phase") not in {"Succeeded", "Failed"}]
    healthy = sum(1 for each in alive if _is_healthy(each))
    least = spec.get("minAvailable", 0)
    if "maxUnavailable" not in spec and isinstance(least, int):
        return _Count(healthy, least, is_known=bool(alive))
    expected = _replicas(api, alive)
    if "maxUnavailable" in spec:
        desired = max(0, (expected or 0) - _count(spec["maxUnavailable"], expected or 0))
    else:
        desired = _count(least, expected or 0)
    return _Count(healthy, desired, is_known=bool(expected))


def _replicas(api: Api, pods: list[Object]) -> int | None:
    """Return how many pods their owners want; None where an owner is not known to the server."""
    owners = {
        each["uid"] for pod in pods for each in pod["metadata"].get("ownerReferences") or () if each.get("controller")
    }
    wanted = {each["metadata"].get("uid"): each.get("spec", {}) for each in api.storage.objects.values()}
    found = [wanted.get(uid, {}).get("replicas", wanted.get(uid, {}).get("parallelism")) for uid in owners]
    return None if None in found else sum(found)


def _is_healthy(pod: Object) -> bool:
    is_ready = any(
        each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions") or ()
    )
    return is_ready and "deletionTimestamp" not in pod["metadata"]


def _count(value: int | str, whole: int) -> int:
    return ceil(int(value.rstrip("%")) * whole / 100) if isinstance(value, str) else value


def _all(api: Api, kind: str, namespace: str) -> list[Object]:
    return [each for key, each in api.storage.objects.items() if key[:2] == (kind, namespace)]
