"""Judge whether MIG nodes are cut as what is asked of them: which layout would meet more of the wants, and how much.

Wants are the devices that run and the devices that wait, by profile; what a layout gives is its devices on every GPU of
the node. A device that is given and wanted counts as the part of a GPU that it takes. A node is to be cut anew where
that brings more than it takes away: what runs there now counts as wanted, so nothing is cut back and forth.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

import ibis.expr.types as ir
import polars as pl

from analytics.activity import Tables
from fleet.mig_geometry import Board, board_of, part_of
from fleet.mig_layouts import SLOT_PREFIX, WHOLE, Devices, slots_of, standard_layouts
from fleet.verdict import Severity, Verdict

TOPIC = "packing"
ACTION = "reslice"
RULE = "slices_wanted"
_LAYOUT_LABEL = "nvidia.com/mig.config"
_LEAST = 1e-9


@dataclass(frozen=True, slots=True)
class CutNode:
    """A node under MIG: its board and GPUs, its layout and what that gives, and the devices that pods hold on it."""

    cluster: str
    name: str
    board: Board
    gpus: int
    layout: str
    devices: Mapping[str, int]
    held: Mapping[str, int]
    told_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Change:
    """A node cut otherwise, and how many GPUs' worth of wants that meets more."""

    node: CutNode
    layout: str
    devices: Devices
    gain: float


def waiting_pods(tables: Tables, now: datetime) -> ir.Table:
    """Return cluster and `resources` (JSON) of each pod that waits for devices at `now`."""
    pods = tables["pod"]
    waits = pods.filter(pods.starts_at.isnull(), pods.ends_at.isnull() | (pods.ends_at > now))
    return waits.filter(waits.resources.contains(SLOT_PREFIX)).select("cluster", "resources")


def mig_nodes(tables: Tables) -> ir.Table:
    """Return the nodes that are ready, with the model and memory of their GPUs: one row for each GPU under MIG.

    A cordoned node is among them: it may be the one that is just being emptied to be cut anew.
    """
    nodes = tables["node"].filter(tables["node"].is_ready)
    nodes = nodes.select("cluster", "node", "labels", "allocatable", "last_seen_at")
    gpus = tables["gpu"].filter(tables["gpu"].mig_enabled)
    gpus = gpus.select("cluster", "node", "uuid", "model", "memory_mib")
    return gpus.inner_join(nodes, ["cluster", "node"])


def held_slices(tables: Tables, now: datetime) -> ir.Table:
    """Return cluster, node, profile and how many MIG devices of it pods hold at `now`."""
    held = tables["pod_allocation"]
    held = held.filter(held.slice.notnull(), held.starts_at <= now, held.ends_at.isnull() | (held.ends_at > now))
    slices = tables["slice"].select("slice", "profile")
    gpus = tables["gpu"].select("gpu", "cluster", "node")
    joined = held.select("gpu", "slice").inner_join(slices, "slice").inner_join(gpus, "gpu")
    return joined.group_by("cluster", "node", "profile").agg(count=joined.slice.nunique())


def wanted_devices(waiting: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Return the devices that wait, by cluster and profile, of a frame that `waiting_pods` made."""
    found: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for cluster, resources in waiting.select("cluster", "resources").iter_rows():
        for name, count in json.loads(resources).items():
            if name.startswith(SLOT_PREFIX):
                found[cluster][_profile(name)] += int(count)
    return {cluster: dict(counts) for cluster, counts in found.items()}


def cut_nodes(gpus: pl.DataFrame, held: pl.DataFrame) -> list[CutNode]:
    """Return the nodes under MIG whose boards and layouts are known, of frames of `mig_nodes` and `held_slices`."""
    by_node: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for cluster, node, profile, count in held.select("cluster", "node", "profile", "count").iter_rows():
        by_node[cluster, node][profile] = count
    found = []
    for (cluster, node), rows in sorted(gpus.group_by("cluster", "node")):
        first = rows.row(0, named=True)
        board = board_of(first["model"], first["memory_mib"])
        layout = json.loads(first["labels"] or "{}").get(_LAYOUT_LABEL)
        given = _given(first["allocatable"], rows.height)
        if board is not None and isinstance(layout, str) and given:
            mine = by_node[str(cluster), str(node)]
            found.append(
                CutNode(str(cluster), str(node), board, rows.height, layout, given, mine, first["last_seen_at"])
            )
    return found


def judge_slices(
    nodes: Iterable[CutNode],
    waiting: Mapping[str, Mapping[str, int]],
    now: datetime,
    further: Mapping[str, Devices] = MappingProxyType({}),
    most: int = 4,
) -> list[Verdict]:
    """Return a verdict for each node that should be cut anew, the best first, at most `most` a cluster and board.

    `further` names a site's own layouts. A profile that waits and that no board has is nobody's to give.
    """
    groups: dict[tuple[str, str], list[CutNode]] = defaultdict(list)
    for node in nodes:
        groups[node.cluster, node.board.name].append(node)
    verdicts = []
    for (cluster, _), members in sorted(groups.items()):
        wants = _wants(members, waiting.get(cluster, {}))
        cut = {node.name: (node.layout, node.devices) for node in members}
        left = list(members)
        for _ in range(most):
            best = _best(left, members, cut, wants, further)
            if best is None:
                break
            verdicts.append(_verdict(best, waiting.get(cluster, {}), now))
            cut[best.node.name] = (best.layout, best.devices)
            left.remove(best.node)
    return verdicts


def _wants(nodes: Sequence[CutNode], waiting: Mapping[str, int]) -> dict[str, int]:
    board = nodes[0].board
    wants: dict[str, int] = defaultdict(int)
    for counts in (*(node.held for node in nodes), waiting):
        for profile, count in counts.items():
            found = board.profile(profile)
            if found is not None:
                wants[found.name] += count
    return wants


def _best(
    candidates: Sequence[CutNode],
    nodes: Sequence[CutNode],
    cut: Mapping[str, tuple[str, Devices]],
    wants: Mapping[str, int],
    further: Mapping[str, Devices],
) -> _Change | None:
    """Return the one change that meets most; None where none meets more."""
    sizes, board = {node.name: node.gpus for node in nodes}, nodes[0].board
    now = _met(cut, wants, board, sizes)
    trials = []
    for node in candidates:
        for layout, devices in sorted({**standard_layouts(node.board), **further}.items()):
            if not devices or layout == WHOLE:
                continue
            then = _met({**cut, node.name: (layout, devices)}, wants, board, sizes)
            moved = sum(node.held.values())
            trials.append((-(then - now), moved, node.name, layout, node, devices))
    best = min(trials, key=lambda trial: trial[:4], default=None)
    if best is None or -best[0] <= _LEAST:
        return None
    return _Change(best[4], best[3], best[5], -best[0])


def _met(
    cut: Mapping[str, tuple[str, Devices]],
    wants: Mapping[str, int],
    board: Board,
    sizes: Mapping[str, int],
) -> float:
    given: dict[str, int] = defaultdict(int)
    for name, (_, devices) in cut.items():
        for profile, count in devices.items():
            given[profile] += count * sizes.get(name, 0)
    known = {name: board.profile(name) for name in given}
    parts = {name: part_of(board, profile) for name, profile in known.items() if profile is not None}
    return sum(min(given[name], wants.get(name, 0)) * part for name, part in parts.items())


def _verdict(change: _Change, waiting: Mapping[str, int], now: datetime) -> Verdict:
    node = change.node
    return Verdict(
        made_at=now,
        topic=TOPIC,
        subject_kind="node",
        subject=node.name,
        state="unfit",
        severity=Severity.INFO,
        rule=RULE,
        action=ACTION,
        cluster=node.cluster,
        node=node.name,
        until=None if node.told_at is None else min(now, node.told_at),
        evidence=MappingProxyType(
            {
                "layout": change.layout, "layout_now": node.layout, "slots": slots_of(change.devices, node.gpus),
                "gain_gpus": round(change.gain, 6), "waiting": dict(sorted(waiting.items())),
                "held": dict(sorted(node.held.items())),
            }
        ),
    )  # fmt: skip


def _given(allocatable: str | None, gpus: int) -> dict[str, int]:
    """Return the devices of each GPU by profile, read off what the node gives out; {} where it gives out none."""
    told = json.loads(allocatable or "{}")
    return {_profile(name): int(count) // gpus for name, count in told.items() if name.startswith(SLOT_PREFIX)}


def _profile(resource: str) -> str:
    return resource.removeprefix(SLOT_PREFIX).replace(".me", "+me")
