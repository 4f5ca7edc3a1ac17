"""The past as a planner saw it: the state of the fleet at any recorded moment, rebuilt from the store's intervals."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import numpy as np
import polars as pl

from analytics.prices import priced_gpus, rates_by_uuid
from fleet.state import FleetState, Gpu, Node, ObjectRef, Pod, Quota, Slice, Workload
from store.store import Store

Key = tuple[str, ObjectRef]  # cluster, workload
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FOREVER = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Held:
    """One device that a pod of a workload held: `unit` is the MIG device's UUID, else the GPU's; null end = open."""

    workload: Key
    workspace: str | None
    owner: str | None
    pod_uid: str
    pod: str
    node: str
    gpu_uuid: str
    slice_uuid: str | None
    fraction: float
    starts_at: datetime
    ends_at: datetime | None

    @property
    def unit(self) -> str:
        """Return the UUID of what was held."""
        return self.gpu_uuid if self.slice_uuid is None else self.slice_uuid


@dataclass(frozen=True, slots=True)
class Spans:
    """From when to when each of many things was held, in microseconds and in order of the start."""

    starts_us: np.ndarray
    ends_us: np.ndarray

    @classmethod
    def of(cls, held: Sequence[Held]) -> "Spans":
        """Take them over from what was held, which is in order of its start."""
        ends = [_FOREVER if each.ends_at is None else _micros(each.ends_at) for each in held]
        return cls(np.array([_micros(each.starts_at) for each in held], np.int64), np.array(ends, np.int64))

    def open_at(self, moment: datetime) -> Iterator[int]:
        """Return the places of what was held at a moment."""
        now_us = _micros(moment)
        begun = int(np.searchsorted(self.starts_us, now_us, side="right"))
        return (int(place) for place in np.flatnonzero(self.ends_us[:begun] > now_us))


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the store says of a stretch of time, read once; `state_at` gives any moment of it.

    Nodes, GPUs and slices are as last seen: what they were before is not kept. Whether a node was ready or cordoned
    then is not known, and counts as ready and open.
    """

    nodes: tuple[Node, ...]
    gpus: tuple[tuple[datetime | None, Gpu], ...]
    slices: tuple[tuple[datetime | None, Slice], ...]
    held: tuple[Held, ...]
    spans: "Spans"
    quotas: tuple[tuple[datetime, datetime | None, Quota], ...]
    protected: frozenset[str]
    usd_per_gpu_hour: Mapping[str, Decimal]

    def state_at(self, moment: datetime) -> FleetState:
        """Return the fleet as it stood at `moment`: who held what then, and nothing of what came later."""
        held = self._held_at(moment)
        pods = _pods(held)
        return FleetState(
            taken_at=moment,
            gpus=tuple(gpu for seen_at, gpu in self.gpus if seen_at is None or seen_at < moment),
            slices=tuple(each for seen_at, each in self.slices if seen_at is None or seen_at < moment),
            nodes=self.nodes,
            pods=pods,
            workloads=_workloads(held, pods, self.protected),
            quotas=tuple(quota for since, until, quota in self.quotas if _is_open(since, until, moment)),
        )

    def _held_at(self, moment: datetime) -> list[Held]:
        """Return what was held; `held` is in order of its start, and most of what a long record has is over."""
        return [self.held[place] for place in self.spans.open_at(moment)]

    def held_by(self) -> Mapping[Key, tuple[Held, ...]]:
        """Return what each workload held over the whole time, in order."""
        found: dict[Key, list[Held]] = defaultdict(list)
        for each in self.held:
            found[each.workload].append(each)
        return {key: tuple(sorted(rows, key=lambda row: (row.starts_at, row.unit))) for key, rows in found.items()}


def read_record(store: Store, since: datetime, until: datetime, protect_label: str) -> Recorded:
    """Read what the store says of `[since, until)`; prices are those in force at `since`, else the earliest."""
    gpus = store.read("gpu")
    keys = {row["gpu"]: row for row in gpus.iter_rows(named=True)}
    slices = store.read("slice")
    profiles = {row["slice"]: row["uuid"] for row in slices.iter_rows(named=True)}
    held = tuple(_held(store, since, until, keys, profiles))
    rates = rates_by_uuid(store.engine.run(priced_gpus(store.engine)), store.read("price"), until)
    return Recorded(
        nodes=tuple(_node(row) for row in store.read("node").sort("cluster", "node").iter_rows(named=True)),
        gpus=tuple((row["first_seen_at"], _gpu(row)) for row in gpus.sort("uuid").iter_rows(named=True)),
        slices=tuple(
            (row["first_seen_at"], _slice(row, keys[row["gpu"]]["uuid"]))
            for row in slices.sort("uuid").iter_rows(named=True)
            if row["gpu"] in keys
        ),
        held=held,
        spans=Spans.of(held),
        quotas=tuple(_quotas(store.read("quota"))),
        protected=_protected(store, since, until, protect_label),
        usd_per_gpu_hour=rates,
    )


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _is_open(since: datetime, until: datetime | None, moment: datetime) -> bool:
    return since <= moment and (until is None or until > moment)


def _node(row: Mapping[str, object]) -> Node:
    labels = json.loads(str(row["labels"])) if row["labels"] is not None else {}
    named = {str(key): str(value) for key, value in labels.items()} if isinstance(labels, dict) else {}
    return Node(str(row["cluster"]), str(row["node"]), _text(row["pool"]), _text(row["rack"]), labels=named)


def _gpu(row: Mapping[str, object]) -> Gpu:
    index, memory = row["gpu_index"], row["memory_mib"]
    return Gpu(
        uuid=str(row["uuid"]),
        cluster=str(row["cluster"]),
        node=str(row["node"]),
        index=index if isinstance(index, int) else None,
        model=_text(row["model"]),
        memory_mib=memory if isinstance(memory, int) else None,
        is_mig_enabled=row["mig_enabled"] is True,
    )


def _slice(row: Mapping[str, object], gpu_uuid: str) -> Slice:
    instance, part = row["gpu_instance"], row["compute_instance"]
    return Slice(
        uuid=str(row["uuid"]),
        gpu_uuid=gpu_uuid,
        profile=_text(row["profile"]) or "unknown",
        gpu_instance=instance if isinstance(instance, int) else None,
        compute_instance=part if isinstance(part, int) else None,
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _held(
    store: Store, since: datetime, until: datetime, gpus: Mapping[int, Mapping[str, object]], slices: Mapping[int, str]
) -> Iterable[Held]:
    table = store.engine.table("pod_allocation")
    wanted = table.filter(table.starts_at < until, table.ends_at.isnull() | (table.ends_at > since))
    keys = ["cluster", "namespace", "pod", "pod_uid", "workload_kind", "workload", "workspace", "gpu", "slice"]
    rows = store.engine.run(wanted).group_by([*keys, "starts_at", "ends_at"]).agg(
        pl.col("fraction").sum(), pl.col("owner").max()
    )  # fmt: skip
    for row in rows.sort("starts_at", "cluster", "pod_uid", "gpu", "slice").iter_rows(named=True):
        gpu = gpus.get(row["gpu"])
        if gpu is None:
            continue
        is_owned = row["workload_kind"] is not None and row["workload"] is not None
        ref = ObjectRef(row["workload_kind"], row["namespace"], row["workload"])
        yield Held(
            workload=(row["cluster"], ref if is_owned else ObjectRef("Pod", row["namespace"], row["pod"])),
            workspace=row["workspace"],
            owner=row["owner"],
            pod_uid=row["pod_uid"],
            pod=row["pod"],
            node=str(gpu["node"]),
            gpu_uuid=str(gpu["uuid"]),
            slice_uuid=None if row["slice"] is None else slices.get(row["slice"]),
            fraction=min(1.0, row["fraction"]),
            starts_at=row["starts_at"],
            ends_at=row["ends_at"],
        )


def _quotas(frame: pl.DataFrame) -> Iterable[tuple[datetime, datetime | None, Quota]]:
    for row in frame.sort("cluster", "workspace", "starts_at").iter_rows(named=True):
        quota = Quota(row["cluster"], row["workspace"], row["gpus"], row["pool"], row["model"], row["borrowing_gpus"])
        yield row["starts_at"], row["ends_at"], quota


def _protected(store: Store, since: datetime, until: datetime, label: str) -> frozenset[str]:
    """Return the UIDs of pods whose labels ask that they be left alone; annotations are not stored."""
    pods = store.engine.table("pod")
    told = pods.filter(pods.created_at < until, pods.ends_at.isnull() | (pods.ends_at > since), pods.labels.notnull())
    rows = store.engine.run(told.select("pod_uid", "labels")).iter_rows()
    return frozenset(uid for uid, labels in rows if json.loads(labels).get(label) == "true")


def _pods(held: Sequence[Held]) -> tuple[Pod, ...]:
    by_pod: dict[tuple[str, str], list[Held]] = defaultdict(list)
    for each in held:
        by_pod[each.pod_uid, each.node].append(each)
    return tuple(
        Pod(
            cluster=rows[0].workload[0],
            namespace=rows[0].workload[1].namespace,
            name=rows[0].pod,
            uid=uid,
            node=node,
            workload=rows[0].workload[1],
            gpu_uuids=tuple(dict.fromkeys(row.gpu_uuid for row in rows)),
            slice_uuids=tuple(row.slice_uuid for row in rows if row.slice_uuid is not None),
            fraction=sum(row.fraction for row in rows) / len(rows),
            started_at=min(row.starts_at for row in rows),
        )
        for (uid, node), rows in by_pod.items()
    )


def _workloads(held: Sequence[Held], pods: Sequence[Pod], protected: frozenset[str]) -> tuple[Workload, ...]:
    rows: dict[Key, list[Held]] = defaultdict(list)
    for each in held:
        rows[each.workload].append(each)
    uids: dict[Key, list[str]] = defaultdict(list)
    for pod in pods:
        uids[pod.cluster, pod.workload].append(pod.uid)
    return tuple(
        Workload(
            cluster=key[0],
            ref=key[1],
            workspace=found[0].workspace,
            owner=max((row.owner for row in found if row.owner is not None), default=None),
            pods=tuple(dict.fromkeys(uids[key])),
            gpu_uuids=tuple(dict.fromkeys(row.gpu_uuid for row in found)),
            replicas=len(set(uids[key])),
            is_protected=not protected.isdisjoint(uids[key]),
            started_at=min(row.starts_at for row in found),
        )
        for key, found in sorted(rows.items())
    )
