"""What a pod asks for, and how much of a GPU stands behind a resource of a node."""

from typing import Any

import msgspec
import pytest

from collectors.cluster_gpus import asked, common_parts, gpus_of, model_of, parts_of, physical_gpus, quantity
from collectors.cluster_objects import PodSpec

GPU, SHARED = "nvidia.com/gpu", "nvidia.com/gpu.shared"
H100 = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", "nvidia.com/gpu.count": "8"}


def spec(resources: dict[str, str], **more: Any) -> PodSpec:
    return msgspec.convert({"containers": [{"name": "m", "resources": {"limits": resources}}], **more}, PodSpec)


def init(gpus: int, **more: str) -> dict[str, Any]:
    return {"resources": {"limits": {GPU: str(gpus)}}, **more}


@pytest.mark.parametrize(
    ("resources", "more", "amounts"),
    [
        ({GPU: "2"}, {}, {GPU: 2.0}),
        ({"cpu": "4"}, {}, {}),
        ({GPU: "0"}, {}, {}),
        ({GPU: "nonsense"}, {}, {}),
        ({"nvidia.com/mig-3g.40gb": "1"}, {}, {"nvidia.com/mig-3g.40gb": 1.0}),
        ({"nvidia.com/gpu.shared": "1"}, {}, {"nvidia.com/gpu.shared": 1.0}),
        ({GPU: "1"}, {"initContainers": [init(4)]}, {GPU: 4.0}),
        ({GPU: "1"}, {"initContainers": [init(4, restartPolicy="Always")]}, {GPU: 5.0}),
        ({GPU: "1"}, {"initContainers": [init(4, restartPolicy="Always"), init(2)]}, {GPU: 6.0}),
        ({GPU: "1"}, {"initContainers": [init(2), init(1, restartPolicy="Always")]}, {GPU: 2.0}),
    ],
    ids=["whole", "none", "zero", "nonsense", "MIG", "shared", "init", "sidecar", "init after sidecar", "init before"],
)
def test_a_pod_asks_for_gpus_as_the_scheduler_counts(
    resources: dict[str, str], more: dict[str, Any], amounts: dict[str, float]
) -> None:
    assert asked(spec(resources, **more)) == amounts


@pytest.mark.parametrize(
    ("labels", "capacity", "amounts", "gpus"),
    [
        (H100, {GPU: 8.0}, {GPU: 2.0}, 2.0),
        ({**H100, "nvidia.com/gpu.replicas": "4"}, {GPU: 32.0}, {GPU: 2.0}, 0.5),
        ({**H100, "nvidia.com/gpu.replicas": "4"}, {SHARED: 32.0}, {SHARED: 1.0}, 0.25),
        (H100, {"nvidia.com/gpu.shared": 32.0}, {"nvidia.com/gpu.shared": 1.0}, None),
        (H100, {"nvidia.com/mig-1g.10gb.me": 7.0}, {"nvidia.com/mig-1g.10gb.me": 7.0}, 1.0),
        (
            {"nvidia.com/gpu.product": "NVIDIA-A30-24GB-MIG-1g.6gb", "nvidia.com/mig.strategy": "single"},
            {GPU: 4.0}, {GPU: 1.0}, 0.25,
        ),
    ],
    ids=["whole", "time-slicing", "renamed", "nobody knows", "MIG", "MIG single on an A30"],
)  # fmt: skip
def test_a_unit_is_as_much_of_a_gpu_as_the_node_says(
    labels: dict[str, str], capacity: dict[str, float], amounts: dict[str, float], gpus: float | None
) -> None:
    told = gpus_of(amounts, parts_of(labels, capacity))
    assert told == (None if gpus is None else pytest.approx(gpus))


@pytest.mark.parametrize(
    ("labels", "capacity", "gpus", "model"),
    [
        (H100, {GPU: 8.0}, 8, "NVIDIA-H100-80GB-HBM3"),
        ({}, {GPU: 8.0}, 8, None),
        ({}, {}, None, None),
        ({"nvidia.com/gpu.product": "Tesla-T4-SHARED", "nvidia.com/gpu.replicas": "4"}, {GPU: 8.0}, 2, "Tesla-T4"),
        (
            {**H100, "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb", "nvidia.com/mig.strategy": "single",
             "nvidia.com/gpu.count": "14"},
            {GPU: 14.0}, 2, "NVIDIA-H100-80GB-HBM3",
        ),
    ],
    ids=["labelled", "capacity alone", "nothing told", "shared", "MIG single"],
)  # fmt: skip
def test_physical_gpus_are_counted_once_and_models_named_plainly(
    labels: dict[str, str], capacity: dict[str, float], gpus: int | None, model: str | None
) -> None:
    assert (physical_gpus(labels, capacity), model_of(labels)) == (gpus, model)


def test_a_pod_without_a_node_may_get_the_largest_part_there_is() -> None:
    assert common_parts([{GPU: 0.25}, {GPU: None}, {GPU: 1.0}]) == {GPU: 1.0}


@pytest.mark.parametrize(
    ("text", "number"),
    [("8", 8.0), ("500m", 0.5), ("1Ki", 1024.0), ("2.5G", 2.5e9), ("1e3", 1000.0), (4, 4.0), ("", None), ("x", None)],
)  # fmt: skip
def test_quantities_are_read_as_kubernetes_writes_them(text: str | float, number: float | None) -> None:
    assert quantity(text) == number
