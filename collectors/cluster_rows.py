"""Objects of a Kubernetes cluster become rows: nodes, pools, who belongs where, quotas, and GPUs wanted and had."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import polars as pl

from fleet.batch import Trouble
from fleet.frames import Table, conform
from fleet.tables import DEMAND_SAMPLE, NODE, NODE_POOL, QUOTA, WORKSPACE_MEMBER

Object = Mapping[str, Any]  # a Kubernetes object as JSON
WORKSPACE_LABELS = ("gpusteward.dev/workspace", "kubeslice.io/slice")
_GPU, _SHARED = "nvidia.com/gpu", "nvidia.com/gpu.shared"
_MIG = re.compile(r"nvidia\.com/mig-(\d+)g\.\d+gb(?:\..+)?")
_SLICES = 7  # compute slices of a whole GPU (of all that have MIG but the A30)
_OVER = frozenset({"Succeeded", "Failed"})
# Where each platform says what a node is; the first label that is there speaks.
_POOLS = (
    "karpenter.sh/nodepool", "cloud.google.com/gke-nodepool", "eks.amazonaws.com/nodegroup",
    "kubernetes.azure.com/agentpool",
)  # fmt: skip
_CAPACITY = ("karpenter.sh/capacity-type", "eks.amazonaws.com/capacityType")
_SPOT_FLAGS = ("cloud.google.com/gke-spot", "cloud.google.com/gke-preemptible")
_REGION = "topology.kubernetes.io/region"
_PROVIDERS = {"aws": "aws", "gce": "gcp", "azure": "azure"}
_SUFFIXES = {
    "m": 1e-3,
    "": 1.0,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "Ki": 2.0**10,
    "Mi": 2.0**20,
    "Gi": 2.0**30,
    "Ti": 2.0**40,
}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)(m|k|M|G|T|Ki|Mi|Gi|Ti|)")


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look at a cluster gave; None = that kind could not be listed."""

    nodes: Sequence[Object] | None = None
    pods: Sequence[Object] | None = None
    namespaces: Sequence[Object] | None = None
    quotas: Sequence[Object] | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What stands in the store of this cluster: open memberships and quotas, and the workspaces that had demand."""

    members: pl.DataFrame = field(default_factory=WORKSPACE_MEMBER.empty)
    quotas: pl.DataFrame = field(default_factory=QUOTA.empty)
    workspaces: frozenset[str] = frozenset()


def frames_of(
    seen: Seen, known: Known, cluster: str, now: datetime
) -> tuple[dict[str, pl.DataFrame], tuple[Trouble, ...]]:
    """Return the frames of our tables that one look at `now` gives.

    A namespace stands for itself where no label puts it into a workspace. What could not be listed changes nothing:
    no interval is closed because a list was missing.
    """
    troubles: list[Trouble] = []
    frames: dict[str, pl.DataFrame] = {}
    replicas = _replicas(seen.nodes or ())
    if seen.nodes is not None:
        frames["node"] = _frame([_node(node, cluster, now) for node in seen.nodes], NODE)
        frames["node_pool"] = _pools(frames["node"])
    spaces = {} if seen.namespaces is None else {_name(each): _workspace(each) for each in seen.namespaces}
    if seen.namespaces is not None:
        wanted = [
            {
                "cluster": cluster,
                "namespace": _name(each),
                "workspace": spaces[_name(each)],
                "starts_at": _born(each, now),
            }
            for each in seen.namespaces
            if spaces[_name(each)] is not None
        ]
        frames["workspace_member"] = changes(
            known.members, _frame(wanted, WORKSPACE_MEMBER), ("cluster", "namespace"), now
        )
    granted = _granted(seen.quotas or (), spaces)
    if seen.quotas is not None and seen.namespaces is not None:
        quotas: list[Mapping[str, object]] = [
            {"cluster": cluster, "workspace": workspace, "gpus": gpus, "starts_at": born or now}
            for workspace, (gpus, born) in sorted(granted.items())
        ]
        frames["quota"] = changes(known.quotas, _frame(quotas, QUOTA), ("cluster", "workspace", "pool", "model"), now)
    if seen.pods is not None and seen.namespaces is not None:
        demand = _demand(seen.pods, spaces, replicas, troubles)
        # A workspace that had demand and has none now is at zero: the whole cluster was looked at.
        workspaces = sorted(
            {*demand, *granted, *known.workspaces, *(name for name in spaces.values() if name is not None)}
        )
        rows = [
            {"cluster": cluster, "workspace": workspace, "ts": now, **demand.get(workspace, _NOTHING),
             "capacity_gpus": granted[workspace][0] if workspace in granted else None}
            for workspace in workspaces
        ]  # fmt: skip
        frames["demand_sample"] = _frame(rows, DEMAND_SAMPLE)
    return {name: frame for name, frame in frames.items() if frame.height}, tuple(troubles)


def changes(known: pl.DataFrame, wanted: pl.DataFrame, key: tuple[str, ...], now: datetime) -> pl.DataFrame:
    """Return the interval rows to store so that the open intervals become `wanted`.

    `known` are rows of the table, `wanted` what holds now (its `starts_at` is when it began, as far as anybody
    knows). What changed is closed at `now` and opened anew at `now`; what is gone is closed; what never was known
    keeps its own start; what is as it was gives no row.
    """
    still = known.filter(pl.col("ends_at").is_null())
    values = [name for name in known.columns if name not in {*key, "starts_at", "ends_at"}]
    same = still.join(wanted, on=[*key, *values], how="semi", nulls_equal=True)
    closed = still.join(same, on=list(key), how="anti", nulls_equal=True).with_columns(
        ends_at=pl.lit(now, known.schema["ends_at"])
    )
    new = wanted.join(same, on=list(key), how="anti", nulls_equal=True)
    was_known = new.join(known, on=list(key), how="semi", nulls_equal=True)
    opened_now = was_known.with_columns(starts_at=pl.lit(now, known.schema["starts_at"]))
    first = new.join(known, on=list(key), how="anti", nulls_equal=True)
    return pl.concat([closed, opened_now.select(known.columns), first.select(known.columns)])


def gpus_asked(pod: Object, replicas: float | None) -> float | None:
    """Return how many GPUs a pod asks for: whole ones, MIG devices as sevenths, shared ones as one of `replicas`.

    The larger of what its containers (with the sidecars) ask for together and what any init container asks for, as
    the scheduler counts. None where it asks for a shared GPU and nobody knows how many share one.
    """
    spec = pod.get("spec", {})
    together: Counter[str] = Counter()
    alone: dict[str, float] = {}
    for container in spec.get("containers") or ():
        together.update(_asked(container))
    for container in spec.get("initContainers") or ():
        asked = _asked(container)
        if container.get("restartPolicy") == "Always":
            together.update(asked)
        else:
            alone = {name: max(alone.get(name, 0.0), count) for name, count in {**alone, **asked}.items()}
    total = 0.0
    for name in {*together, *alone}:
        count = max(float(together[name]), alone.get(name, 0.0))
        part = _part(name, replicas)
        if count > 0 and part is None:
            return None
        total += count * (part if part is not None else 0.0)
    return total


def quantity(text: object) -> float | None:
    """Return a Kubernetes quantity ("500m", "64Gi", 8) as a number; None where it is none."""
    match = _QUANTITY.fullmatch(str(text))
    return None if match is None else float(match[1]) * _SUFFIXES[match[2]]


_NOTHING: Mapping[str, float] = {"running_gpus": 0.0, "pending_gpus": 0.0, "running_jobs": 0.0, "pending_jobs": 0.0}


def _asked(container: Object) -> dict[str, float]:
    resources = container.get("resources") or {}
    both = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    found = {name: quantity(value) for name, value in both.items() if _is_gpu(name)}
    return {name: count for name, count in found.items() if count is not None}


def _is_gpu(resource: str) -> bool:
    return resource in {_GPU, _SHARED} or _MIG.fullmatch(resource) is not None


def _part(resource: str, replicas: float | None) -> float | None:
    match = _MIG.fullmatch(resource)
    if match is not None:
        return int(match[1]) / _SLICES
    if resource == _SHARED:
        return None if replicas is None else 1 / replicas
    return 1.0


def _demand(
    pods: Iterable[Object], spaces: Mapping[str, str | None], replicas: Mapping[str, float], troubles: list[Trouble]
) -> dict[str, dict[str, float]]:
    demand: dict[str, dict[str, float]] = defaultdict(lambda: dict(_NOTHING))
    shared = max(replicas.values(), default=None)
    unclear = 0
    for pod in pods:
        if (pod.get("status") or {}).get("phase") in _OVER:
            continue
        node = (pod.get("spec") or {}).get("nodeName")
        gpus = gpus_asked(pod, shared if node is None else replicas.get(node))
        if gpus is None:
            unclear += 1
        elif gpus > 0:
            namespace = _of(pod, "namespace")
            row = demand[spaces.get(namespace) or namespace]
            what = "pending" if node is None else "running"
            row[f"{what}_gpus"] += gpus
            row[f"{what}_jobs"] += 1
    if unclear:
        reason = "it asks for a shared GPU, and no label of its node tells how many share one"
        troubles.append(Trouble("rejected", "pods", reason, unclear))
    return demand


def _granted(quotas: Iterable[Object], spaces: Mapping[str, str | None]) -> dict[str, tuple[float, datetime | None]]:
    """Return the GPUs that resource quotas grant, by workspace, and since when at the earliest.

    Several quotas of one namespace hold all at once, so the smallest speaks; namespaces of one workspace add up.
    """
    by_namespace: dict[str, tuple[float, datetime | None]] = {}
    for each in quotas:
        hard = (each.get("spec") or {}).get("hard") or {}
        gpus = quantity(hard.get(f"requests.{_GPU}"))
        if gpus is None:
            continue
        namespace = _of(each, "namespace")
        before = by_namespace.get(namespace)
        if before is None or gpus < before[0]:
            by_namespace[namespace] = (gpus, _created(each))
    granted: dict[str, tuple[float, datetime | None]] = {}
    for namespace, (gpus, born) in sorted(by_namespace.items()):
        workspace = spaces.get(namespace) or namespace
        sum_, first = granted.get(workspace, (0.0, born))
        granted[workspace] = (
            sum_ + gpus,
            min((moment for moment in (first, born) if moment is not None), default=None),
        )
    return granted


def _node(node: Object, cluster: str, now: datetime) -> dict[str, object]:
    labels, spec, status = _labels(node), node.get("spec") or {}, node.get("status") or {}
    capacity = status.get("capacity") or {}
    ready = [each.get("status") for each in status.get("conditions") or () if each.get("type") == "Ready"]
    cpu, memory = quantity(capacity.get("cpu")), quantity(capacity.get("memory"))
    return {
        "cluster": cluster,
        "node": _name(node),
        "pool": next((labels[name] for name in _POOLS if labels.get(name)), None),
        "rack": labels.get("topology.kubernetes.io/rack"),
        "model": labels.get("nvidia.com/gpu.product"),
        "gpus": _physical(labels, capacity),
        "cpu_milli": None if cpu is None else round(cpu * 1000),
        "memory_mib": None if memory is None else round(memory / 2**20),
        "capacity_type": _capacity_type(labels),
        "region": labels.get(_REGION),
        # "Unknown" is what the control plane says of a node it no longer hears of.
        "is_ready": None if not ready else ready[0] == "True",
        "is_schedulable": not spec.get("unschedulable", False),
        "labels": json.dumps(labels, sort_keys=True),
        "taints": json.dumps(spec.get("taints") or [], sort_keys=True),
        "last_seen_at": now,
    }


def _physical(labels: Mapping[str, str], capacity: Mapping[str, object]) -> int | None:
    """Return the physical GPUs: the label of GPU feature discovery, since shared GPUs are advertised several times."""
    counted = labels.get("nvidia.com/gpu.count")
    if counted is not None and counted.isdecimal():
        return int(counted)
    gpus = quantity(capacity.get(_GPU))
    return None if gpus is None else round(gpus)


def _replicas(nodes: Iterable[Object]) -> dict[str, float]:
    found = {_name(node): _labels(node).get("nvidia.com/gpu.replicas", "") for node in nodes}
    return {name: float(text) for name, text in found.items() if text.isdecimal() and int(text) > 0}


def _capacity_type(labels: Mapping[str, str]) -> str | None:
    told = next((labels[name].lower() for name in _CAPACITY if labels.get(name)), None)
    if told is not None:
        return {"on-demand": "on_demand", "on_demand": "on_demand", "spot": "spot", "reserved": "reserved"}.get(told)
    is_spot = any(labels.get(name) == "true" for name in _SPOT_FLAGS)
    return "spot" if is_spot or labels.get("kubernetes.azure.com/scalesetpriority") == "spot" else None


def _pools(nodes: pl.DataFrame) -> pl.DataFrame:
    pools = nodes.filter(pl.col("pool").is_not_null(), pl.col("gpus").is_not_null())
    grouped = pools.group_by("cluster", "pool", maintain_order=True).agg(
        pl.col("model", "capacity_type").drop_nulls().first(),
        pl.len().alias("nodes"),
        pl.col("gpus").max().alias("gpus_per_node"),
    )
    return conform(grouped.with_columns(pl.col("nodes", "gpus_per_node").cast(pl.Int32)), NODE_POOL, "wire")


def provider_of(nodes: Sequence[Object] | None) -> tuple[str | None, str | None]:
    """Return the provider and the region that most nodes name; None where none does."""
    prefixes = Counter(str((node.get("spec") or {}).get("providerID", "")).partition(":")[0] for node in nodes or ())
    providers = Counter({_PROVIDERS[name]: count for name, count in prefixes.items() if name in _PROVIDERS})
    regions = Counter(region for node in nodes or () if (region := _labels(node).get(_REGION)))
    return tuple(next((name for name, _ in counts.most_common(1)), None) for counts in (providers, regions))  # type: ignore[return-value]  # two of them


def _workspace(namespace: Object) -> str | None:
    labels = _labels(namespace)
    return next((labels[name] for name in WORKSPACE_LABELS if labels.get(name)), None)


def _frame(rows: Sequence[Mapping[str, object]], table: Table) -> pl.DataFrame:
    return conform(pl.DataFrame(rows, schema=table.schema("wire")) if rows else table.empty("wire"), table, "wire")


def _labels(each: Object) -> dict[str, str]:
    return dict((each.get("metadata") or {}).get("labels") or {})


def _of(each: Object, name: str) -> str:
    return str((each.get("metadata") or {}).get(name, ""))


def _name(each: Object) -> str:
    return _of(each, "name")


def _created(each: Object) -> datetime | None:
    text = _of(each, "creationTimestamp")
    return datetime.fromisoformat(text) if text else None


def _born(each: Object, now: datetime) -> datetime:
    return _created(each) or now
