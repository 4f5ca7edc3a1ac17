"""Identity: who held which GPU, or which part of it, from when to when; pure code over what the sources told.

A pod holds its devices from being bound to its node until its last container has ended: that is the API server's word.
*Which* devices is told by resource claims (DRA), by the kubelet, by exporters' labels or by processes, in this order;
where nobody tells, what a node has and what its pods ask for may leave only one answer. Where it does not, the device
stays unknown and is said to be: nothing here is guessed.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import polars as pl

from collectors.identity_evidence import match
from collectors.identity_facts import Device, Devices, nodes_of, pods_of, sightings_of
from collectors.identity_held import Remembered, claims_of, forget_taken, held_by
from collectors.identity_holders import uid_of, without_pods
from collectors.identity_infer import infer
from collectors.identity_time import Share, cut, share_out
from collectors.identity_units import units_of
from fleet.batch import Trouble
from fleet.frames import conform
from fleet.tables import GPU, HOLDER, NODE, POD, POD_ALLOCATION, SLICE, WORKSPACE_MEMBER

# Told once for each pod, when it has run this long: exporters and kubelets may take a while to tell.
SETTLED = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Told:
    """What the sources told, as frames of the store's tables in stored form.

    `allocations`, in wire form, is what the join made of it before.

    `read_clusters`: clusters whose pods the API server tells; there a holder that is none of them holds nothing.
    """

    pods: pl.DataFrame = field(default_factory=POD.empty)
    holders: pl.DataFrame = field(default_factory=HOLDER.empty)
    gpus: pl.DataFrame = field(default_factory=GPU.empty)
    slices: pl.DataFrame = field(default_factory=SLICE.empty)
    nodes: pl.DataFrame = field(default_factory=NODE.empty)
    members: pl.DataFrame = field(default_factory=WORKSPACE_MEMBER.empty)
    allocations: pl.DataFrame = field(default_factory=lambda: POD_ALLOCATION.empty("wire"))
    read_clusters: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Joined:
    """Who held what: rows of `pod_allocation` in wire form, and what stayed unknown or was strange."""

    allocations: pl.DataFrame
    troubles: tuple[Trouble, ...] = ()


def join(told: Told, now: datetime, since: datetime | None = None) -> Joined:
    """Join what was told into allocations.

    Troubles tell only of pods that reached `SETTLED` between `since` (null: ever) and `now`, so that each is told once.
    """
    devices, nodes = Devices(told.gpus, told.slices), nodes_of(told.nodes)
    pods = pods_of(told.pods)
    sightings, unknown = sightings_of(told.holders, devices)
    evidence, podless = match(pods, sightings)
    before = _remembered(told.allocations)
    held = [
        held_by(pod, units_of(pod.asks, nodes.get(pod.place)), evidence.get(pod.uid, {}), before[pod.uid], devices)
        for pod in pods
    ]
    forget_taken(held)
    infer(held, nodes, devices)
    claims = [claim for each in held for claim in claims_of(each, devices)]
    is_read = told.read_clusters.__contains__
    others, known = without_pods([each for each in podless if not is_read(each.row["cluster"])], devices)
    shares = share_out([*claims, *others])
    crowded = {share.claim.key[0] for share in shares if share.is_crowded}
    rows = _frame(shares, {**known, **{each.pod.uid: each.pod.row for each in held}}, told.members)

    def is_due(starts_at: datetime) -> bool:
        return starts_at + SETTLED <= now and (since is None or starts_at + SETTLED > since)

    extra = [each for each in podless if is_read(each.row["cluster"]) and is_due(each.starts_at)]
    troubles = [
        _trouble(
            "pod",
            "nobody tells which of its node's GPUs it holds, and nothing else settles it",
            [_name(each.pod.row) for each in held if is_due(each.pod.starts_at) and not each.is_whole(devices)],
        ),
        _trouble(
            "pod_allocation",
            "another pod is said to hold the same whole device at once; they are given parts",
            [_name(each.pod.row) for each in held if is_due(each.pod.starts_at) and each.pod.uid in crowded],
        ),
        _trouble(
            "holder", "it holds a GPU, and no pod of this name asked for one", [_name(each.row) for each in extra]
        ),
        _trouble(
            "holder",
            "the GPU was never announced",
            [str(row["gpu_uuid"]) for row in unknown if is_due(row["starts_at"])],
        ),
    ]
    return Joined(rows, tuple(trouble for trouble in troubles if trouble is not None))


def involved(told: Told) -> frozenset[str]:
    """Return the UIDs of all pods and holders that the join speaks of: only their allocations may be changed by it."""
    holders = {uid_of(row) for row in told.holders.to_dicts()}
    return frozenset({*told.pods.get_column("pod_uid"), *holders})


def _frame(shares: Iterable[Share], known: Mapping[str, Mapping[str, object]], members: pl.DataFrame) -> pl.DataFrame:
    spaces = _spaces(members)
    rows = [row for share in shares for row in _rows(share, known[share.claim.key[0]], spaces)]
    frame = pl.DataFrame(rows, schema=POD_ALLOCATION.schema("wire"))
    return conform(frame.sort("starts_at", "pod_uid", "gpu_uuid", "slice_uuid", "container"), POD_ALLOCATION)


def _rows(share: Share, known: Mapping[str, object], spaces: "_Spaces") -> Iterator[dict[str, object]]:
    """Yield the rows of a share, one for each workspace that its namespace belonged to meanwhile."""
    uid, container = share.claim.key
    members = spaces.get((known["cluster"], known["namespace"]))
    told = known.get("workspace", known["namespace"])
    edges = {edge for start, end, _ in members or () for edge in (start, end) if edge is not None}
    for start, end in cut(share.starts_at, share.ends_at, edges):
        own = (
            told
            if members is None
            else next(
                (name for begin, over, name in members if begin <= start and (over is None or over > start)),
                known["namespace"],
            )
        )
        yield {
            **{name: known.get(name) for name in _COPIED},
            "pod_uid": uid,
            "container": container,
            "workspace": own,
            "gpu_uuid": share.claim.device.gpu,
            "slice_uuid": share.claim.device.slice or None,
            "fraction": share.fraction,
            "starts_at": start,
            "ends_at": end,
        }


_COPIED = ("cluster", "namespace", "pod", "workload_kind", "workload", "owner")
_Spaces = Mapping[tuple[object, object], Sequence[tuple[datetime, datetime | None, str]]]


def _spaces(members: pl.DataFrame) -> _Spaces:
    spaces: defaultdict[tuple[object, object], list[tuple[datetime, datetime | None, str]]] = defaultdict(list)
    columns = ("cluster", "namespace", "starts_at", "ends_at", "workspace")
    for cluster, namespace, start, end, workspace in members.select(columns).sort("starts_at").iter_rows():
        spaces[cluster, namespace].append((start, end, workspace))
    return spaces


def _remembered(allocations: pl.DataFrame) -> Mapping[str, Remembered]:
    """Return what pods were found to hold before: the fraction by device and container."""
    found: defaultdict[str, Remembered] = defaultdict(dict)
    stood = allocations.filter(pl.col("ends_at").is_null() | (pl.col("ends_at") > pl.col("starts_at")))
    columns = ("pod_uid", "container", "gpu_uuid", "slice_uuid", "fraction")
    for uid, container, gpu, slice_, fraction in stood.sort("starts_at").select(columns).iter_rows():
        found[uid].setdefault(Device(gpu, slice_ or ""), {})[container] = fraction
    return found


def _name(row: Mapping[str, object]) -> str:
    return f"{row['cluster']}/{row['namespace']}/{row['pod']}"


def _trouble(place: str, reason: str, examples: Sequence[str]) -> Trouble | None:
    return Trouble("noticed", place, reason, len(examples), examples[0]) if examples else None
