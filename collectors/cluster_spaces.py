"""Namespaces and quotas of a cluster: who belongs to which workspace, and what each may count on."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from collectors.cluster_gpus import gpus_of, is_gpu, quantity
from collectors.cluster_objects import Named, ResourceQuota
from collectors.cluster_pods import OWNER

WORKSPACE = "gpusteward.dev/workspace"
WORKSPACE_LABELS = (WORKSPACE, "kubeslice.io/slice")
_KUBEFLOW_OWNER = "owner"  # an annotation of the namespaces that Kubeflow profiles make
_REQUESTS = "requests."
_CLASS = ".deviceclass.resource.k8s.io/devices"


@dataclass(frozen=True, slots=True)
class SpaceFacts:
    """What is kept of a namespace between looks."""

    name: str
    workspace: str | None
    owner: str | None
    created_at: datetime | None


@dataclass(frozen=True, slots=True)
class QuotaFacts:
    """What a resource quota allows of GPU resources and classes of devices."""

    namespace: str
    amounts: Mapping[str, float]
    created_at: datetime | None


def space_facts(namespace: Named) -> SpaceFacts:
    """Return what matters of a namespace."""
    meta = namespace.metadata
    workspace = next((label for name in WORKSPACE_LABELS if (label := meta.label(name)) is not None), None)
    owner = meta.label(OWNER) or meta.annotation(OWNER) or meta.annotation(_KUBEFLOW_OWNER)
    return SpaceFacts(meta.name, workspace, owner, meta.creation_timestamp)


def quota_facts(quota: ResourceQuota) -> QuotaFacts | None:
    """Return what a resource quota allows of GPUs; None where it says nothing of them."""
    amounts = {}
    for name, value in (quota.spec.hard or {}).items():
        resource = name.removeprefix(_REQUESTS).removesuffix(_CLASS)
        number = quantity(value)
        if number is not None and (name.endswith(_CLASS) or (resource != name and is_gpu(resource))):
            amounts[resource] = number
    meta = quota.metadata
    return QuotaFacts(meta.namespace, amounts, meta.creation_timestamp) if amounts else None


def granted(
    quotas: Iterable[QuotaFacts], workspace_of: Mapping[str, str], parts: Mapping[str, float | None]
) -> list[dict[str, object]]:
    """Return quota rows (without cluster) of what resource quotas grant, by workspace.

    Several quotas of one namespace hold all at once, so the smallest speaks, by resource; namespaces of one workspace
    add up. A resource of which nobody knows how much of a GPU it is grants nothing that could be told.
    """
    tightest: defaultdict[str, dict[str, float]] = defaultdict(dict)
    born: dict[str, datetime] = {}
    for each in quotas:
        amounts = tightest[each.namespace]
        for name, number in each.amounts.items():
            amounts[name] = min(number, amounts.get(name, number))
        workspace = workspace_of.get(each.namespace, each.namespace)
        if each.created_at is not None:
            born[workspace] = min(each.created_at, born.get(workspace, each.created_at))
    sums: dict[str, float] = {}
    for namespace, amounts in sorted(tightest.items()):
        workspace = workspace_of.get(namespace, namespace)
        known = {name: number for name, number in amounts.items() if gpus_of({name: 1.0}, parts) is not None}
        if known:
            sums[workspace] = sums.get(workspace, 0.0) + (gpus_of(known, parts) or 0.0)
    return [
        {"workspace": workspace, "gpus": gpus, "starts_at": born.get(workspace)} for workspace, gpus in sums.items()
    ]


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
