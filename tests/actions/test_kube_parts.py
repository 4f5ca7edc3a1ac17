"""What a unit of a resource is of a GPU is told as the table `quota` tells it, or both would speak of other numbers."""

import pytest

from actions.kube_parts import common_parts, look_at_parts, model_of, unit_of
from collectors.cluster_gpus import common_parts as collected_parts
from collectors.cluster_gpus import model_of as collected_model
from collectors.cluster_gpus import part_by_name, parts_of
from tests.kube.engines import Arena

H100, A30 = "NVIDIA-H100-80GB-HBM3", "NVIDIA-A30"
NODES = [
    ({"nvidia.com/gpu.product": H100}, {"nvidia.com/gpu": "8"}),
    ({"nvidia.com/gpu.product": f"{H100}-SHARED", "nvidia.com/gpu.replicas": "4"}, {"nvidia.com/gpu": "32"}),
    (
        {"nvidia.com/gpu.product": H100, "nvidia.com/gpu.replicas": "4"},
        {"nvidia.com/gpu.shared": "32", "nvidia.com/gpu": "0"},
    ),
    ({"nvidia.com/gpu.product": f"{H100}-MIG-1g.10gb", "nvidia.com/mig.strategy": "single"}, {"nvidia.com/gpu": "56"}),
    (
        {
            "nvidia.com/gpu.product": f"{A30}-MIG-1g.6gb-SHARED",
            "nvidia.com/mig.strategy": "single",
            "nvidia.com/gpu.replicas": "2",
        },
        {"nvidia.com/gpu": "8"},
    ),
    ({"nvidia.com/gpu.product": A30, "nvidia.com/mig.strategy": "mixed"}, {"nvidia.com/mig-1g.6gb": "4", "cpu": "8"}),
    (
        {"nvidia.com/gpu.product": H100, "nvidia.com/mig.strategy": "mixed", "nvidia.com/mig-1g.10gb.replicas": "3"},
        {"nvidia.com/mig-1g.10gb.shared": "21", "nvidia.com/mig-3g.40gb": "2"},
    ),
    ({"nvidia.com/gpu.replicas": "none"}, {"nvidia.com/gpu": "1"}),
    ({}, {}),
]  # fmt: skip


def body(labels: dict[str, str], capacity: dict[str, str]) -> dict[str, object]:
    return {"metadata": {"name": "n", "labels": labels}, "status": {"capacity": capacity}}


@pytest.mark.parametrize(("labels", "capacity"), NODES)
def test_a_unit_is_the_same_part_of_a_gpu_as_where_quotas_are_collected(
    labels: dict[str, str], capacity: dict[str, str]
) -> None:
    numbers = {name: float(amount) for name, amount in capacity.items() if name.startswith("nvidia.com/")}
    collected = parts_of(labels, numbers) if numbers else {}
    assert common_parts([body(labels, capacity)]) == {
        key: value for key, value in collected.items() if value is not None
    }
    assert model_of(labels) == collected_model(labels)


def test_over_several_nodes_the_largest_part_speaks() -> None:
    collected = collected_parts(
        parts_of(labels, {name: float(amount) for name, amount in capacity.items() if name.startswith("nvidia.com/")})
        for labels, capacity in NODES
        if capacity
    )
    assert common_parts(body(*each) for each in NODES) == collected


@pytest.mark.parametrize(
    "name",
    ["nvidia.com/gpu", "nvidia.com/mig-1g.10gb", "nvidia.com/mig-3g.40gb", "cpu", "nvidia.com/mig-1g.5gb.shared"],
)
def test_without_nodes_the_name_tells(name: str) -> None:
    assert unit_of(name, {}) == part_by_name(name)


@pytest.mark.enable_socket
def test_nodes_are_listed_whole_only_where_one_of_them_cuts_or_shares_its_gpus(work: Arena) -> None:
    server = work.server or pytest.skip("a real cluster's nodes are not ours to say")
    server.seed({"apiVersion": "v1", "kind": "Node", **body({"nvidia.com/gpu.replicas": "1"}, {"nvidia.com/gpu": "8"})})
    assert look_at_parts(work.api) == {}
    shared = body({"nvidia.com/gpu.replicas": "4"}, {"nvidia.com/gpu": "8"})
    server.seed({"apiVersion": "v1", "kind": "Node", **shared, "metadata": {**shared["metadata"], "name": "m"}})  # type: ignore[dict-item] # built above
    assert look_at_parts(work.api) == {"nvidia.com/gpu": 1.0}
