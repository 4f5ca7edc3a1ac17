"""Objects as nobody would write them: each is understood, or counted as rejected; none stops the others."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.cluster_followed import Followed, core, devices, queues
from collectors.cluster_look import Look
from collectors.cluster_rows import Known, Place, frames_of
from fleet.batch import Batch

PLACE = Place("east", None, datetime(2026, 3, 2, 12, tzinfo=UTC), "t")
# The words that our decoders look for, so that what is drawn gets past the first of them.
NAMES = st.sampled_from((
    "metadata", "name", "namespace", "uid", "labels", "annotations", "creationTimestamp", "deletionTimestamp",
    "ownerReferences", "spec", "status", "nodeName", "containers", "initContainers", "resources", "requests", "limits",
    "nvidia.com/gpu", "nvidia.com/mig-1g.10gb", "nvidia.com/gpu.shared", "nvidia.com/gpu.count",
    "nvidia.com/gpu.product",
    "nvidia.com/gpu.replicas", "nvidia.com/mig.strategy", "conditions", "type", "lastTransitionTime", "phase", "hard",
    "requests.nvidia.com/gpu", "capacity", "allocatable", "cpu", "memory", "taints", "podSets", "count", "template",
    "resourceGroups", "flavors", "nominalQuota", "devices", "results", "allocation", "driver", "pool",
    "reason", "message",
    "involvedObject", "kind", "lastTimestamp", "priority", "resourceClaims", "containerStatuses", "state", "terminated",
    "finishedAt", "startTime",
))  # fmt: skip
WORDS = st.sampled_from((
    "8", "0", "-1", "1e999", "9" * 40, "500m", "1Ei", "x", "", "Node", "True", "PodScheduled", "Succeeded", "Running",
    "Admitted", "Finished", "2026-03-02T10:00:00Z", "2026-03-02T10:00:00", "0001-01-01T00:00:00Z", "gpu.nvidia.com",
    "NVIDIA-A30-24GB-MIG-1g.6gb", "single", "Xid 79", "Xid (PCI:0): 9999", "nvidia.com/gpu",
))  # fmt: skip
LEAVES = st.none() | st.booleans() | st.integers(-3, 10**18) | st.floats(allow_nan=False) | WORDS | st.text(max_size=5)
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5), max_leaves=25
)
METAS = st.fixed_dictionaries(
    {"name": st.text(max_size=5), "uid": st.text(max_size=5)},
    optional={"namespace": WORDS, "labels": st.dictionaries(NAMES, WORDS, max_size=4), "creationTimestamp": WORDS},
)
AMOUNTS = st.dictionaries(NAMES, WORDS | st.integers(-3, 10**18), max_size=3)
CONTAINERS = st.lists(st.fixed_dictionaries({"resources": st.fixed_dictionaries({"limits": AMOUNTS})}), max_size=2)
SPECS = JSON | st.fixed_dictionaries({"containers": CONTAINERS}, optional={"nodeName": WORDS, "hard": AMOUNTS})
STATUSES = JSON | st.fixed_dictionaries({"capacity": AMOUNTS}, optional={"phase": WORDS, "startTime": WORDS})
OBJECTS = JSON | st.fixed_dictionaries({"metadata": METAS}, optional={"spec": SPECS, "status": STATUSES})


def followers() -> list[Followed]:
    return [*core(1).all(), *devices("v1", 1).all(), *queues("v1beta2", 1).all()]


def take_all(each: Any) -> None:
    """Let every kind take an object, and make rows of what they understood."""
    raw = msgspec.Raw(msgspec.json.encode(each))
    look = Look()
    look._devices, look._queues = devices("v1", 1), queues("v1beta2", 1)
    for follower in look._followed():
        follower._take(raw, follower.items)  # type: ignore[attr-defined]  # followers of all kinds alike
    frames, _ = frames_of(look._view(frozenset()), Known(), PLACE)
    Batch("t", frames).checked()


@given(OBJECTS)
@settings(max_examples=100)
def test_no_object_stops_the_others(each: Any) -> None:
    take_all(each)


@pytest.mark.slow
@given(OBJECTS)
@settings(max_examples=20_000)
def test_no_object_of_very_many_stops_the_others(each: Any) -> None:
    take_all(each)
