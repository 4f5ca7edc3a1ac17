"""Subresources beside status: scale, binding, and eviction that honours pod disruption budgets."""

from math import ceil

from tests.kube.answers import Object, Refusal
from tests.kube.kinds import Kind
from tests.kube.rules import bound
from tests.kube.selectors import by_selector
from tests.kube.verbs import Api, How

_PODS, _BUDGETS = "pods.", "poddisruptionbudgets.policy"


def scale_of(live: Object) -> Object:
    """Return an object's Scale."""
    meta = {name: live["metadata"].get(name) for name in ("name", "namespace", "uid", "resourceVersion")}
    spec, status = live.get("spec") or {}, live.get("status") or {}
    labels = (spec.get("selector") or {}).get("matchLabels") or {}
    return {
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {**meta, "creationTimestamp": live["metadata"]["creationTimestamp"]},
        "spec": {"replicas": spec.get("replicas", 1)},
        "status": {
            "replicas": status.get("replicas", 0),
            "selector": ",".join(f"{name}={value}" for name, value in sorted(labels.items())),
        },
    }  # fmt: skip


def set_scale(api: Api, kind: Kind, live: Object, scale: Object, how: How) -> Object:
    """Write a Scale: only the replicas of the object change."""
    replicas = (scale.get("spec") or {}).get("replicas")
    if not isinstance(replicas, int) or replicas < 0:
        raise Refusal(422, "spec.replicas: Invalid value: must be greater than or equal to 0")
    version = (scale.get("metadata") or {}).get("resourceVersion")
    if version not in {None, "", live["metadata"]["resourceVersion"]}:
        raise Refusal(
            409, "the object has been modified; please apply your changes to the latest version and try again"
        )
    return scale_of(api.write(kind, live, {**live, "spec": {**live["spec"], "replicas": replicas}}, how))


def bind(api: Api, kind: Kind, pod: Object, binding: Object, how: How) -> Object:
    """Bind a pod to a node, once."""
    name = pod["metadata"]["name"]
    if pod["spec"].get("nodeName"):
        raise Refusal(409, f'pod {name} is already assigned to node "{pod["spec"]["nodeName"]}"')
    if pod["spec"].get("schedulingGates"):
        raise Refusal(409, f"pod {name} has non-empty .spec.schedulingGates")
    api.write(kind, pod, bound(pod, binding["target"]["name"], api.clock()), how)
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


def evict(api: Api, kind: Kind, pod: Object, eviction: Object, how: How) -> Object:
    """Delete a pod unless a budget that selects it allows no disruption; pods that don't run cost no budget."""
    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    if pod["status"].get("phase") == "Running":
        budgets = [each for each in _all(api, _BUDGETS, namespace) if by_selector(each["spec"].get("selector"))(pod)]
        if len(budgets) > 1:
            raise Refusal(500, "This pod has more than one PodDisruptionBudget, which the eviction subresource lacks")
        if budgets and not _allows(api, budgets[0], pod):
            raise Refusal(
                429,
                "Cannot evict pod as it would violate the pod's disruption budget.",
                causes=[{"reason": "DisruptionBudget", "message": f"The budget {budgets[0]['metadata']['name']}"}],
            )
    api.delete(kind, namespace, name, how, eviction.get("deleteOptions") or {})
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


def _allows(api: Api, budget: Object, pod: Object) -> bool:
    test = by_selector(budget["spec"].get("selector"))
    pods = [each for each in _all(api, _PODS, budget["metadata"]["namespace"]) if test(each)]
    alive = [each for each in pods if each["status"].get("phase") not in {"Succeeded", "Failed"}]
    healthy = sum(1 for each in alive if _is_healthy(each))
    if not _is_healthy(pod):
        return True
    if "maxUnavailable" in budget["spec"]:
        return healthy - 1 >= len(alive) - _count(budget["spec"]["maxUnavailable"], len(alive))
    return healthy - 1 >= _count(budget["spec"].get("minAvailable", 0), len(alive))


def _is_healthy(pod: Object) -> bool:
    is_ready = any(
        each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions") or ()
    )
    return is_ready and "deletionTimestamp" not in pod["metadata"]


def _count(value: int | str, whole: int) -> int:
    return ceil(int(value.rstrip("%")) * whole / 100) if isinstance(value, str) else value


def _all(api: Api, kind: str, namespace: str) -> list[Object]:
    return [each for key, each in api.storage.objects.items() if key[:2] == (kind, namespace)]
