"""Say what still fits: gangs of GPUs on nodes, what a reclaim would free, and which pods to move for larger blocks.

A gang's pod takes all its GPUs from one node, so a free GPU is worth what its node has free beside it. Everything
here is counted from one picture of the fleet (`rooms`), so that what fits now, what would fit after a reclaim and
what would fit after a move add up.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import ibis.expr.types as ir
import polars as pl

from analytics.activity import Tables
from analytics.workload_kinds import facts_of
from fleet.mig_geometry import board_of, leftover

SIZES = (1, 2, 4, 8)
_MOST_MOVES = 20
_EVEN = 1e-9


@dataclass(frozen=True, slots=True)
class Tenant:
    """One pod on one node, and the whole GPUs it holds there; `is_movable` None: nobody can tell."""

    pod: str
    pod_uid: str
    workload: str
    workspace: str | None
    gpus: tuple[str, ...]
    is_movable: bool


@dataclass(frozen=True, slots=True)
class Room:
    """One node: GPUs that work, those nobody holds any part of, and its tenants. `part_free` is free beside holders."""

    cluster: str
    node: str
    pool: str | None
    model: str | None
    gpus: int
    free: int
    part_free: float
    tenants: tuple[Tenant, ...]

    @property
    def group(self) -> tuple[str, str, str]:
        """Return what GPUs are alike: cluster, pool and model; nothing moves between groups."""
        return self.cluster, self.pool or "", self.model or ""


def held_now(tables: Tables, now: datetime) -> ir.Table:
    """Return each GPU with its node, pool and each open hold on it at `now`; null pod: nobody holds any of it."""
    nodes = tables["node"].select("cluster", "node", "pool", "is_schedulable", "is_ready", node_model="model")
    gpus = tables["gpu"].select("gpu", "uuid", "cluster", "node", "model", "mig_enabled", "memory_mib")
    gpus = gpus.left_join(nodes, ["cluster", "node"]).drop("cluster_right", "node_right")
    held = tables["pod_allocation"]
    held = held.filter((held.starts_at <= now) & (held.ends_at.isnull() | (held.ends_at > now)))
    held = held.select(
        "gpu", "namespace", "pod", "pod_uid", "workload_kind", "workload", "workspace", "slice", "fraction"
    )
    joined = gpus.left_join(held, "gpu")
    return joined.select(
        "uuid", "cluster", "node", "pool", "mig_enabled", "is_schedulable", "is_ready", "namespace", "pod", "pod_uid",
        "workload_kind", "workload", "workspace", "slice", "fraction", model=joined.model.coalesce(joined.node_model),
    )  # fmt: skip


def rooms(held: pl.DataFrame, failed: Iterable[str] = ()) -> list[Room]:
    """Return the nodes of a frame that `held_now` made, without GPUs that failed and nodes that take no pods.

    GPUs under MIG are no room for gangs. A node of which it is not known whether it takes pods counts as one that does.
    """
    bad = set(failed)
    nodes: dict[tuple[str, str], dict[str, list[dict[str, object]]]] = defaultdict(lambda: defaultdict(list))
    for row in held.iter_rows(named=True):
        is_open = row["is_schedulable"] is not False and row["is_ready"] is not False
        if row["uuid"] not in bad and is_open and row["mig_enabled"] is not True:
            nodes[row["cluster"], row["node"]][row["uuid"]].append(row)
    return [_room(cluster, node, gpus) for (cluster, node), gpus in sorted(nodes.items())]


def _room(cluster: str, node: str, gpus: Mapping[str, list[dict[str, object]]]) -> Room:
    first = next(iter(gpus.values()))[0]
    loads = {uuid: sum(_fraction(row) for row in rows) for uuid, rows in gpus.items()}
    pods: dict[str, list[dict[str, object]]] = defaultdict(list)
    for rows in gpus.values():
        for row in rows:
            if row["pod_uid"] is not None:
                pods[str(row["pod_uid"])].append(row)
    return Room(
        cluster=cluster,
        node=node,
        pool=_text(first["pool"]),
        model=_text(first["model"]),
        gpus=len(gpus),
        free=sum(load <= _EVEN for load in loads.values()),
        part_free=sum(max(0.0, 1 - load) for load in loads.values() if load > _EVEN),
        tenants=tuple(_tenant(rows) for _, rows in sorted(pods.items())),
    )


def _tenant(rows: Sequence[Mapping[str, object]]) -> Tenant:
    first = rows[0]
    kind, name = _text(first["workload_kind"]), _text(first["workload"])
    owned = kind is not None and name is not None
    workload = f"{kind}/{first['namespace']}/{name}" if owned else f"Pod/{first['namespace']}/{first['pod']}"
    whole = all(_fraction(row) >= 1 - _EVEN for row in rows)
    return Tenant(
        pod=f"{first['namespace']}/{first['pod']}",
        pod_uid=str(first["pod_uid"]),
        workload=workload,
        workspace=_text(first["workspace"]),
        gpus=tuple(sorted({str(row["uuid"]) for row in rows})),
        # A replica comes back elsewhere by itself; a gang or a notebook loses what it holds in memory.
        is_movable=whole and owned and facts_of(kind).use == "serving" and not facts_of(kind).is_gang,
    )


def what_fits(places: Sequence[Room], sizes: Sequence[int] = SIZES) -> pl.DataFrame:
    """Return, by cluster, pool and model and by gang size, how many such gangs fit and what is stranded.

    Columns: cluster, pool, model, size, gpus, free_gpus, fits (on nodes as they are), fits_packed (were the free
    GPUs side by side), stranded_gpus (free, and of no use to a gang of this size).
    """
    groups: dict[tuple[str, str, str], list[Room]] = defaultdict(list)
    for room in places:
        groups[room.group].append(room)
    rows = []
    for (cluster, pool, model), members in sorted(groups.items()):
        free = sum(room.free for room in members)
        for size in sizes:
            fits = sum(room.free // size for room in members)
            rows.append(
                {
                    "cluster": cluster, "pool": pool or None, "model": model or None, "size": size,
                    "gpus": sum(room.gpus for room in members), "free_gpus": free, "fits": fits,
                    "fits_packed": free // size, "stranded_gpus": free - size * fits,
                }
            )  # fmt: skip
    return pl.DataFrame(rows, schema=_FITS)


_FITS = {
    "cluster": pl.String(), "pool": pl.String(), "model": pl.String(), "size": pl.Int64(), "gpus": pl.Int64(),
    "free_gpus": pl.Int64(), "fits": pl.Int64(), "fits_packed": pl.Int64(), "stranded_gpus": pl.Int64(),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Freed:
    """What giving back a workload's GPUs would free: GPUs, whole nodes, and further gangs that then fit, by size."""

    gpus: int
    nodes: tuple[str, ...]
    gangs: Mapping[int, int]


def freed_by(places: Sequence[Room], workloads: Iterable[str], sizes: Sequence[int] = SIZES) -> Freed:
    """Return what it frees when these workloads give back all they hold; a GPU that others share stays held."""
    going = set(workloads)
    gpus, nodes, gangs = 0, [], dict.fromkeys(sizes, 0)
    for room in places:
        staying = {uuid for tenant in room.tenants if tenant.workload not in going for uuid in tenant.gpus}
        leaving = {uuid for tenant in room.tenants if tenant.workload in going for uuid in tenant.gpus} - staying
        if not leaving:
            continue
        gpus += len(leaving)
        free = room.free + len(leaving)
        if free == room.gpus:
            nodes.append(room.node)
        for size in sizes:
            gangs[size] += free // size - room.free // size
    return Freed(gpus, tuple(nodes), gangs)


@dataclass(frozen=True, slots=True)
class Relocation:
    """One pod to be moved so that a larger block comes free: data for whoever plans moves."""

    cluster: str
    pod: str
    pod_uid: str
    workload: str
    from_node: str
    to_node: str
    gpus: int
    frees_size: int


def defragment(places: Sequence[Room], size: int = 8, most: int = _MOST_MOVES) -> list[Relocation]:
    """Return the moves that make most room for gangs of `size` with fewest GPUs moved, in the order to make them.

    A node is emptied as far as needed, cheapest first, only where all the pods in the way can move and each fits, as
    a whole, into the smallest hole of another node that is not itself a block; nothing is moved that frees no block.
    """
    moves: list[Relocation] = []
    state = {(room.cluster, room.node): room for room in places}
    while len(moves) < most:
        best = min(
            (trial for room in state.values() if (trial := _empty(room, state, size)) is not None),
            key=lambda trial: (sum(move.gpus for move in trial), [move.pod for move in trial]),
            default=None,
        )
        if best is None or len(moves) + len(best) > most:
            return moves
        for move in best:
            _apply(move, state)
        moves.extend(best)
    return moves


def _empty(room: Room, state: Mapping[tuple[str, str], Room], size: int) -> list[Relocation] | None:
    """Return the moves that give one node another block of `size`; None where there are none such."""
    short = size * (room.free // size + 1) - room.free
    if room.gpus - room.free < short:
        return None
    holes = {key: other.free for key, other in state.items() if other.group == room.group and other.node != room.node}
    moves: list[Relocation] = []
    movable = sorted((tenant for tenant in room.tenants if tenant.is_movable), key=lambda t: (-len(t.gpus), t.pod))
    for tenant in movable:
        if short <= 0:
            break
        count = len(tenant.gpus)
        # A hole that is a block itself is not broken up to make one elsewhere.
        fitting = [key for key, free in holes.items() if free >= count and (free - count) // size == free // size]
        if not fitting:
            continue
        target = min(fitting, key=lambda key: (holes[key], key))
        holes[target] -= count
        short -= count
        moves.append(
            Relocation(room.cluster, tenant.pod, tenant.pod_uid, tenant.workload, room.node, target[1], count, size)
        )
    return moves if short <= 0 else None


def _apply(move: Relocation, state: dict[tuple[str, str], Room]) -> None:
    source, target = state[move.cluster, move.from_node], state[move.cluster, move.to_node]
    mover = next(tenant for tenant in source.tenants if tenant.pod_uid == move.pod_uid)
    left = tuple(tenant for tenant in source.tenants if tenant is not mover)
    state[move.cluster, move.from_node] = replace(source, free=source.free + move.gpus, tenants=left)
    # What has been moved once is not moved again.
    arrived = (*target.tenants, replace(mover, is_movable=False))
    state[move.cluster, move.to_node] = replace(target, free=target.free - move.gpus, tenants=arrived)


def mig_leftovers(slices: pl.DataFrame) -> pl.DataFrame:
    """Return what the devices cut from each GPU leave, in parts of the GPU: still to be cut, and waste of geometry.

    `slices` has gpu_uuid, cluster, node, model, memory_mib (of the GPU) and profile, one row a MIG device that is
    there. `wasted` is the greater of the compute and memory parts that no profile can use any more.
    """
    rows = []
    for key, cut in slices.group_by("gpu_uuid", "cluster", "node", "model", "memory_mib", maintain_order=True):
        uuid, cluster, node, model, memory_mib = key
        board = board_of(_text(model), memory_mib if isinstance(memory_mib, int) else None)
        if board is None:
            continue
        counts = dict(cut["profile"].drop_nulls().value_counts().iter_rows())
        left = leftover(board, counts)
        rows.append(
            {
                "gpu_uuid": uuid, "cluster": cluster, "node": node, "model": model,
                "uncut": min(left.free_compute / board.compute_slots, left.free_memory / board.memory_slots),
                "wasted_compute": left.wasted_compute / board.compute_slots,
                "wasted_memory": left.wasted_memory / board.memory_slots,
                "wasted": max(left.wasted_compute / board.compute_slots, left.wasted_memory / board.memory_slots),
            }
        )  # fmt: skip
    return pl.DataFrame(rows, schema=_LEFTOVERS)


_LEFTOVERS = {
    "gpu_uuid": pl.String(), "cluster": pl.String(), "node": pl.String(), "model": pl.String(), "uncut": pl.Float64(),
    "wasted_compute": pl.Float64(), "wasted_memory": pl.Float64(), "wasted": pl.Float64(),
}  # fmt: skip


def mig_devices(tables: Tables, since: datetime) -> ir.Table:
    """Return the MIG devices told of since then with their GPU: what `mig_leftovers` reads."""
    slices = tables["slice"]
    there = slices.filter(slices.last_seen_at.isnull() | (slices.last_seen_at >= since)).select("gpu", "profile")
    gpus = tables["gpu"].select("gpu", "cluster", "node", "model", "memory_mib", gpu_uuid=tables["gpu"].uuid)
    joined = there.join(gpus, "gpu")
    return joined.select("gpu_uuid", "cluster", "node", "model", "memory_mib", "profile").order_by(
        "gpu_uuid", "profile"
    )


def _fraction(row: Mapping[str, object]) -> float:
    value = row["fraction"]
    return value if isinstance(value, float) else 0.0


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
