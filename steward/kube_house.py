"""Real clusters for the house: each one that is collected can be moved, with what the store knows of its GPUs."""

import hashlib
import os
import socket
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from types import MappingProxyType

import polars as pl

from actions.kube import KubeApi
from actions.kube_cluster import KubeCluster
from actions.kube_oversight import KubeHerald, KubeLease, read_switch
from actions.kube_state import Holding, Known
from actions.leader import Leadership
from fleet.clock import Clock
from fleet.state import Gpu, Slice
from steward.config import CollectSection
from steward.overseer import Overseer, Remembered
from store.store import Store

SOURCE = "kubernetes"
_GONE_AFTER = timedelta(days=7)  # a GPU that nobody told of for so long was taken out


def contexts_of(collect: CollectSection) -> list[tuple[str, str | None]]:
    """Return the clusters that are followed, each with its context: those that are named, else the current one."""
    if SOURCE not in collect.sources:
        return []
    return [(context, context) for context in collect.contexts] or [(collect.cluster, None)]


def open_clusters(
    collect: CollectSection, store: Store, clock: Clock
) -> tuple[tuple[KubeCluster, ...], Mapping[str, Overseer]]:
    """Return each cluster that is followed as one that can be moved, and who watches over it; nothing is asked yet."""
    apis = {name: KubeApi(name, context) for name, context in contexts_of(collect)}
    clusters = tuple(
        KubeCluster(name, api, partial(gpus_known, store, name, clock), clock) for name, api in apis.items()
    )
    return clusters, {name: _overseer(api, store, clock) for name, api in apis.items()}


def identity_of(store: Store) -> str:
    """Return the name we lead under: one process at a time owns a store, so no other that runs has it.

    It stays over restarts, so that we go on at once with a lease that was ours.
    """
    path = f"process {os.getpid()}" if store.path is None else str(store.path.resolve())
    return f"{socket.gethostname()}-{hashlib.sha256(path.encode()).hexdigest()[:8]}"


def _overseer(api: KubeApi, store: Store, clock: Clock) -> Overseer:
    switch = Remembered(partial(read_switch, api), clock)
    return Overseer(switch, Leadership(KubeLease(api), identity_of(store)), KubeHerald(api), api.close)


def gpus_known(store: Store, cluster: str, clock: Clock) -> Known:
    """Return what the store knows of a cluster's GPUs, their MIG devices, and which pod holds which of them now."""
    tables = {name: store.engine.table(name) for name in ("gpu", "slice", "pod_allocation")}
    gpus, slices, held = tables["gpu"], tables["slice"], tables["pod_allocation"]
    here = gpus.filter(gpus.cluster == cluster, gpus.last_seen_at > clock.now() - _GONE_AFTER)
    rows = store.engine.run(here.select("gpu", "uuid", "node", "gpu_index", "model", "memory_mib", "mig_enabled"))
    uuids: dict[int, str] = dict(rows.select("gpu", "uuid").iter_rows())
    parts = store.engine.run(slices.filter(slices.last_seen_at > clock.now() - _GONE_AFTER))
    parts = parts.filter(pl.col("gpu").is_in(list(uuids)))
    names: dict[int, str] = dict(parts.select("slice", "uuid").iter_rows())
    open_ = store.engine.run(held.filter(held.cluster == cluster, held.ends_at.isnull(), held.starts_at.notnull()))
    return Known(
        gpus=tuple(_gpu(cluster, row) for row in rows.sort("node", "gpu_index", "uuid").iter_rows(named=True)),
        slices=tuple(
            Slice(row["uuid"], uuids[row["gpu"]], row["profile"] or "", row["gpu_instance"], row["compute_instance"])
            for row in parts.sort("uuid").iter_rows(named=True)
        ),
        held=MappingProxyType(_held(open_, uuids, names)),
    )


def _gpu(cluster: str, row: Mapping[str, object]) -> Gpu:
    index, model, memory_mib = row["gpu_index"], row["model"], row["memory_mib"]
    return Gpu(
        str(row["uuid"]),
        cluster,
        str(row["node"]),
        index=index if isinstance(index, int) else None,
        model=model if isinstance(model, str) else None,
        memory_mib=memory_mib if isinstance(memory_mib, int) else None,
        is_mig_enabled=row["mig_enabled"] is True,
    )


def _held(rows: pl.DataFrame, uuids: Mapping[int, str], names: Mapping[int, str]) -> dict[str, Holding]:
    """Return what each pod holds: of a pod whose device is not known by its UUID nothing is told."""
    found: dict[str, Holding] = {}
    for (pod_uid,), group in rows.group_by("pod_uid"):
        gpus = group.get_column("gpu").unique().to_list()
        slices = group.get_column("slice").drop_nulls().unique().to_list()
        if any(gpu not in uuids for gpu in gpus) or any(each not in names for each in slices):
            continue
        parts = float(group.select("gpu", "slice", "fraction").unique().get_column("fraction").sum())
        names_held = tuple(sorted(names[each] for each in slices))
        uuids_held = tuple(sorted(uuids[gpu] for gpu in gpus))
        found[str(pod_uid)] = Holding(uuids_held, names_held, parts / max(len(gpus), len(slices)))
    return found
