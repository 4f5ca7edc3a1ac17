"""Who has a say in a workload's size, told from autoscalers, disruption budgets and the workload itself."""

from typing import Any

import pytest

from actions.kube_floors import Sizers, Sizing, matches, sizing_of

LABELS = {"app": "chat", "tier": "gold"}
POD = {"metadata": {"labels": LABELS}, "spec": {"containers": []}}


def chat(kind: str = "Deployment", spec: dict[str, Any] | None = None, **notes: str) -> dict[str, Any]:
    meta = {"name": "chat", "namespace": "team", "annotations": notes}
    return {"kind": kind, "metadata": meta, "spec": {"template": POD} if spec is None else spec}


def scaler(kind: str, name: str = "grow", namespace: str = "team", **spec: Any) -> dict[str, Any]:
    target = spec.pop("target", {"kind": "Deployment", "name": "chat"})
    meta = {"name": name, "namespace": namespace, **spec.pop("meta", {})}
    return {"kind": kind, "metadata": meta, "spec": {"scaleTargetRef": target, **spec}}


def budget(namespace: str = "team", **spec: Any) -> dict[str, Any]:
    return {"kind": "PodDisruptionBudget", "metadata": {"name": "b", "namespace": namespace}, "spec": spec}


HPA, KEDA = "HorizontalPodAutoscaler", "ScaledObject"
BY_KEDA = {"ownerReferences": [{"kind": KEDA, "name": "queue", "controller": True}]}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([], Sizing()),
        ([scaler(HPA)], Sizing(1, f"{HPA} grow")),
        ([scaler(HPA, minReplicas=3)], Sizing(3, f"{HPA} grow")),
        ([scaler(HPA, minReplicas=0)], Sizing(0, f"{HPA} grow", f"{HPA} grow")),
        ([scaler(HPA, minReplicas=2, meta=BY_KEDA)], Sizing(2, f"{HPA} grow", f"{HPA} grow")),
        ([scaler(KEDA)], Sizing(0, f"{KEDA} grow", f"{KEDA} grow")),
        ([scaler(KEDA, target={"name": "chat"}, minReplicaCount=2)], Sizing(2, f"{KEDA} grow", f"{KEDA} grow")),
        ([scaler(HPA, minReplicas=2), scaler(HPA, "more", minReplicas=4)], Sizing(4, f"{HPA} grow")),
        ([scaler(HPA, namespace="others")], Sizing()),
        ([scaler(HPA, target={"kind": "StatefulSet", "name": "chat"})], Sizing()),
        ([scaler(HPA, target={"kind": "Deployment", "name": "chat-2"})], Sizing()),
    ],
)  # fmt: skip
def test_an_autoscaler_says_how_few_it_keeps_and_whether_it_wakes_up(found: list[Any], expected: Sizing) -> None:
    assert sizing_of(chat(), Sizers(found)) == expected


ALL: dict[str, Any] = {}


@pytest.mark.parametrize(
    ("found", "floor"),
    [
        (budget(minAvailable=2, selector={"matchLabels": {"app": "chat"}}), 2),
        (budget(minAvailable=0, selector={"matchLabels": {"app": "chat"}}), 0),
        (budget(minAvailable=2, selector=ALL), 2),
        (budget(minAvailable=2), None),
        (budget(minAvailable="50%", selector=ALL), None),
        (budget(maxUnavailable=1, selector=ALL), None),
        (budget(minAvailable=2, selector={"matchLabels": {"app": "other"}}), None),
        (budget("others", minAvailable=2, selector=ALL), None),
    ],
)  # fmt: skip
def test_a_disruption_budget_keeps_a_number_and_no_share(found: dict[str, Any], floor: int | None) -> None:
    assert sizing_of(chat(), Sizers((), [found])).floor == floor


def test_pods_of_a_service_are_known_by_what_kserve_puts_on_them() -> None:
    chosen = budget(minAvailable=3, selector={"matchLabels": {"serving.kserve.io/inferenceservice": "chat"}})
    service = chat("InferenceService", {"predictor": {"minReplicas": 4, "maxReplicas": 4}})
    assert sizing_of(service, Sizers((), [chosen])).floor == 3
    deep = chat("LeaderWorkerSet", {"leaderWorkerTemplate": {"workerTemplate": POD}})
    by_label = budget(minAvailable=1, selector={"matchLabels": {"tier": "gold"}})
    assert sizing_of(deep, Sizers((), [by_label])).floor == 1


RAW = {"serving.kserve.io/deploymentMode": "RawDeployment"}


@pytest.mark.parametrize(
    ("predictor", "notes", "floor"),
    [
        ({"minReplicas": 2, "maxReplicas": 4}, {}, 2),
        ({"minReplicas": 2, "maxReplicas": 2}, {}, None),
        ({"minReplicas": 0, "maxReplicas": 2}, {}, 0),
        ({"minReplicas": 2}, {}, 2),
        ({"minReplicas": 2, "maxReplicas": 0}, {}, 2),
        ({"minReplicas": 2}, RAW, None),
        ({"minReplicas": 2, "maxReplicas": 4}, RAW, 2),
        ({"minReplicas": 2, "maxReplicas": 4}, {"serving.kserve.io/autoscalerClass": "none"}, None),
        ({"maxReplicas": 4}, {}, None),
    ],
)
def test_a_service_that_grows_by_itself_has_a_floor_and_one_of_a_fixed_size_has_none(
    predictor: dict[str, Any], notes: dict[str, str], floor: int | None
) -> None:
    assert sizing_of(chat("InferenceService", {"predictor": predictor}, **notes), Sizers()).floor == floor


@pytest.mark.parametrize(
    ("selector", "is_chosen"),
    [
        (None, False),
        ({}, True),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["chat", "x"]}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["chat"]}]}, False),
        ({"matchExpressions": [{"key": "gone", "operator": "NotIn", "values": ["chat"]}]}, True),
        ({"matchExpressions": [{"key": "gone", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "gone", "operator": "DoesNotExist"}]}, True),
        ({"matchLabels": {"app": "chat"}, "matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}, False),
    ],
)
def test_a_selector_chooses_as_the_server_does(selector: dict[str, Any] | None, *, is_chosen: bool) -> None:
    assert matches(selector, LABELS) == is_chosen
