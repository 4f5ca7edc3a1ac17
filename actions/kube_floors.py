"""Who else decides a workload's size in Kubernetes, and how few replicas they let it have.

A size that is declared may be made smaller; a least number that somebody declared for an autoscaler or a disruption
budget is kept. Pure, but for the look.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actions.kube_body import annotation, at, controller_of, name_of, namespace_of
from actions.kube_port import Object, Reader, labels_of

_HPA = ("autoscaling/v2", "HorizontalPodAutoscaler")
_KEDA = ("keda.sh", "ScaledObject")
_BUDGET = ("policy/v1", "PodDisruptionBudget")
_KSERVE, _SERVES = "serving.kserve.io/", "serving.kserve.io/inferenceservice"
_RAW = frozenset({"RawDeployment", "Standard"})  # where a service without a most has no room to grow
_UNSCALED = frozenset({"none", "external"})
_TO_ZERO = 0


@dataclass(frozen=True, slots=True)
class Sizers:
    """Autoscalers and disruption budgets, of one namespace or of all."""

    scalers: Sequence[Mapping[str, Any]] = ()
    budgets: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Sizing:
    """How few replicas are let (None: nobody says), who else sets the size, and who would start it again at none."""

    floor: int | None = None
    by: str | None = None
    woken_by: str | None = None


def look_at_sizers(api: Reader, namespace: str = "") -> Sizers:
    """Read the autoscalers and the disruption budgets, where they are served."""
    found: list[list[Object]] = []
    for group, kind in (_HPA, _KEDA, _BUDGET):
        resource = api.find(group, kind)
        found.append([] if resource is None else api.list_all(resource, namespace))
    return Sizers([*found[0], *found[1]], found[2])


def sizing_of(body: Mapping[str, Any], sizers: Sizers) -> Sizing:
    """Return what is said of a workload's size by others than its own size field."""
    floors: list[int] = [*_service_floor(body), *_budget_floors(body, sizers.budgets)]
    by = woken_by = None
    for each in sizers.scalers:
        if _is_for(each, body):
            name, least = f"{each['kind']} {name_of(each)}", _least(each)
            floors.append(least)
            by = by or name
            # an autoscaler leaves alone what has no replicas, unless it may have none by itself; KEDA wakes it up
            is_woken = (
                each["kind"] == _KEDA[1] or least == _TO_ZERO or (controller_of(each) or {}).get("kind") == _KEDA[1]
            )
            woken_by = woken_by or (name if is_woken else None)
    return Sizing(max(floors, default=None), by, woken_by)


def matches(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Return whether a label selector chooses these labels; an empty one chooses all, none chooses nothing."""
    if selector is None:
        return False
    equal: Mapping[str, str] = selector.get("matchLabels") or {}
    rules: Sequence[Mapping[str, Any]] = selector.get("matchExpressions") or ()
    return all(labels.get(name) == value for name, value in equal.items()) and all(
        _holds(each, labels) for each in rules
    )


def _holds(rule: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value, named = labels.get(rule["key"]), rule.get("values") or ()
    match rule["operator"]:
        case "In":
            return value in named
        case "NotIn":
            return value not in named
        case "Exists":
            return value is not None
        case _:
            return value is None


def _is_for(scaler: Mapping[str, Any], body: Mapping[str, Any]) -> bool:
    target = at(scaler, ("spec", "scaleTargetRef")) or {}
    kind = target.get("kind", "Deployment")
    return (namespace_of(scaler), kind, target.get("name")) == (namespace_of(body), body["kind"], name_of(body))


def _least(scaler: Mapping[str, Any]) -> int:
    if scaler["kind"] == _KEDA[1]:
        told = at(scaler, ("spec", "minReplicaCount"))
        return told if isinstance(told, int) else 0
    told = at(scaler, ("spec", "minReplicas"))
    return told if isinstance(told, int) else 1


def _service_floor(body: Mapping[str, Any]) -> Iterator[int]:
    """Give the least that an inference service says its autoscaler keeps; a fixed size is no floor."""
    least, most = (at(body, ("spec", "predictor", name)) for name in ("minReplicas", "maxReplicas"))
    if body["kind"] != "InferenceService" or not isinstance(least, int):
        return
    if annotation(body, f"{_KSERVE}autoscalerClass") in _UNSCALED:
        return
    has_room = (
        most > least if isinstance(most, int) and most > 0 else annotation(body, f"{_KSERVE}deploymentMode") not in _RAW
    )
    if has_room:
        yield least


def _budget_floors(body: Mapping[str, Any], budgets: Iterable[Mapping[str, Any]]) -> Iterator[int]:
    """Give how many pods disruption budgets want at least; a share goes down with the size and is no floor."""
    kept = list(_pod_labels(body))
    for each in budgets:
        least, selector = at(each, ("spec", "minAvailable")), at(each, ("spec", "selector"))
        is_here = namespace_of(each) == namespace_of(body)
        if isinstance(least, int) and is_here and any(matches(selector, labels) for labels in kept):
            yield least


def _pod_labels(body: Mapping[str, Any]) -> Iterator[Mapping[str, str]]:
    """Give the labels of the pods that an object makes: those of its templates, and what KServe puts on its own."""
    if body["kind"] == "InferenceService":
        yield {**labels_of(dict(body)), _SERVES: name_of(body)}
    yield from _template_labels(body.get("spec"))


def _template_labels(value: object) -> Iterator[Mapping[str, str]]:
    if isinstance(value, Mapping):
        if isinstance(at(value, ("spec", "containers")), list):
            yield at(value, ("metadata", "labels")) or {}
        for each in value.values():
            yield from _template_labels(each)
    elif isinstance(value, list):
        for each in value:
            yield from _template_labels(each)
