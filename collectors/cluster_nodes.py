"""Nodes of a cluster become rows: what they are, what GPUs they have, whose machines they are and in which pool."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

import msgspec
import polars as pl

from collectors.cluster_gpus import gpu_amounts, model_of, parts_of, physical_gpus, quantity
from collectors.cluster_objects import Condition, Node
from fleet.frames import conform
from fleet.tables import NODE_POOL

# Where each platform says what a node is; the first label that is there speaks.
POOLS = (
    "karpenter.sh/nodepool", "cloud.google.com/gke-nodepool", "eks.amazonaws.com/nodegroup",
    "alpha.eksctl.io/nodegroup-name", "kubernetes.azure.com/agentpool", "agentpool",
)  # fmt: skip
_CAPACITY = ("karpenter.sh/capacity-type", "eks.amazonaws.com/capacityType")
_CAPACITY_WORDS = {
    "on-demand": "on_demand", "on_demand": "on_demand", "spot": "spot", "reserved": "reserved",
    "capacity_block": "reserved",
}  # fmt: skip
_SPOT_FLAGS = ("cloud.google.com/gke-spot", "cloud.google.com/gke-preemptible")
_RESERVED = "cloud.google.com/reservation-name"
_AZURE = "kubernetes.azure.com/scalesetpriority"
_MOST = 2**53  # of what can be told apart as a float; more thousandths of a core, or MiB, are nonsense
_PROVIDERS = {"aws": "aws", "gce": "gcp", "azure": "azure"}
_REGIONS = ("topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region")
_ZONES = ("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone")
_TYPES = ("node.kubernetes.io/instance-type", "beta.kubernetes.io/instance-type")
_RACKS = ("topology.kubernetes.io/rack", "cloud.google.com/gce-topology-subblock")


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What is kept of a node between looks: its row without the time, and what a unit of each GPU resource is."""

    name: str
    row: Mapping[str, object]
    parts: Mapping[str, float | None]
    provider: str | None
    product: str


def node_facts(node: Node) -> NodeFacts:
    """Return what matters of a node."""
    labels, status = node.metadata.labels or {}, node.status
    capacity = gpu_amounts(status.capacity)
    provider = _provider(node.spec.provider_id)
    row = {
        "node": node.metadata.name,
        "pool": _first(labels, POOLS),
        "rack": _first(labels, _RACKS),
        "model": model_of(labels),
        "gpus": physical_gpus(labels, capacity),
        "cpu_milli": _scaled((status.capacity or {}).get("cpu"), 1000),
        "memory_mib": _scaled((status.capacity or {}).get("memory"), 1 / 2**20),
        "capacity_type": _capacity_type(labels, provider),
        "region": _first(labels, _REGIONS),
        "is_ready": _is_ready(status.conditions or ()),
        "is_schedulable": not node.spec.unschedulable,
        "labels": json.dumps(labels, sort_keys=True),
        "taints": msgspec.json.encode(node.spec.taints or []).decode(),
        "provider": provider,
        "zone": _first(labels, _ZONES),
        "instance_type": _first(labels, _TYPES),
        "conditions": _json({each.type: each.status for each in status.conditions or ()}),
        "capacity": _json(capacity),
        "allocatable": _json(gpu_amounts(status.allocatable)),
    }
    parts = parts_of(labels, capacity) if capacity else {}
    return NodeFacts(node.metadata.name, row, parts, provider, str(row["model"] or ""))


def node_rows(nodes: Iterable[NodeFacts], cluster: str, now: datetime) -> list[dict[str, object]]:
    """Return the rows of the table `node` as seen at `now`."""
    return [{"cluster": cluster, **node.row, "last_seen_at": now} for node in nodes]


def pools_of(nodes: pl.DataFrame) -> pl.DataFrame:
    """Return the node pools that rows of `node` make up; nodes without GPUs make up none."""
    pools = nodes.filter(pl.col("pool").is_not_null(), pl.col("gpus").is_not_null())
    grouped = pools.group_by("cluster", "pool", maintain_order=True).agg(
        pl.col("model", "capacity_type").drop_nulls().first(),
        pl.len().alias("nodes"),
        pl.col("gpus").max().alias("gpus_per_node"),
    )
    return conform(grouped.with_columns(pl.col("nodes", "gpus_per_node").cast(pl.Int32)), NODE_POOL, "wire")


def provider_and_region(nodes: Iterable[NodeFacts]) -> tuple[str | None, str | None]:
    """Return the provider and the region that most nodes name; None where none does."""
    known = list(nodes)
    return _most(node.provider for node in known), _most(node.row["region"] for node in known)


def _most(words: Iterable[object]) -> str | None:
    counts = Counter(str(word) for word in words if word is not None)
    return next((word for word, _ in counts.most_common(1)), None)


def _provider(provider_id: str) -> str | None:
    scheme = provider_id.partition(":")[0]
    return _PROVIDERS.get(scheme, scheme) or None


def _is_ready(conditions: Iterable[Condition]) -> bool | None:
    """Return the condition Ready; "Unknown" is what the control plane says of a node it no longer hears of."""
    told = next((each.status for each in conditions if each.type == "Ready"), None)
    return None if told is None else told == "True"


def _capacity_type(labels: Mapping[str, str], provider: str | None) -> str | None:
    """Return how the machine is paid for; None where nothing tells.

    GKE and AKS label their spot nodes only, so a node of a pool of theirs without such a label is on demand.
    """
    told = _first(labels, _CAPACITY)
    if told is not None:
        return _CAPACITY_WORDS.get(told.lower())
    if any(labels.get(name) == "true" for name in _SPOT_FLAGS) or labels.get(_AZURE) == "spot":
        return "spot"
    if labels.get(_RESERVED):
        return "reserved"
    is_labelled = provider in {"gcp", "azure"} and _first(labels, POOLS) is not None
    return "on_demand" if is_labelled else None


def _first(labels: Mapping[str, str], names: Iterable[str]) -> str | None:
    return next((labels[name] for name in names if labels.get(name)), None)


def _scaled(value: str | float | None, factor: float) -> int | None:
    number = quantity(value)
    return None if number is None or not 0 <= number * factor <= _MOST else round(number * factor)


def _json(value: Mapping[str, object]) -> str:
    whole = {name: int(part) if isinstance(part, float) and part.is_integer() else part for name, part in value.items()}
    return json.dumps(whole, sort_keys=True)
