"""Say what a failing part may share with others: the driver it runs under, and the boot that came shortly before.

Whoever takes hardware out of use looks whether many that fail at once have one of these in common: a bad roll-out or a
wave of boots is not mended by fencing what it struck.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import MappingProxyType

import polars as pl

from fleet.verdict import Verdict

_AT_FAULT = frozenset({"degraded", "failing", "failed"})
_BEFORE = timedelta(days=1)
_Node = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Causes:
    """Drivers by GPU and by node (where all its GPUs run the same one), and the boots of each node, in order."""

    driver_of_gpu: Mapping[str, str]
    driver_of_node: Mapping[_Node, str]
    boots: Mapping[_Node, Sequence[datetime]]

    @classmethod
    def of(cls, gpus: pl.DataFrame, events: pl.DataFrame) -> "Causes":
        """Return them from `gpus` (uuid, cluster, node, driver) and `events` (ts, cluster, node, kind)."""
        by_node: dict[_Node, set[str | None]] = defaultdict(set)
        drivers: dict[str, str] = {}
        for uuid, cluster, node, driver in gpus.select("uuid", "cluster", "node", "driver").iter_rows():
            by_node[cluster, node].add(driver)
            if driver is not None:
                drivers[uuid] = driver
        same = {node: next(iter(found)) for node, found in by_node.items() if len(found) == 1}
        boots: dict[_Node, list[datetime]] = defaultdict(list)
        told = events.filter(pl.col("kind") == "boot").sort("ts")
        for ts, cluster, node in told.select("ts", "cluster", "node").iter_rows():
            boots[cluster, node].append(ts)
        return cls(drivers, {node: driver for node, driver in same.items() if driver is not None}, boots)


def with_causes(verdicts: Iterable[Verdict], causes: Causes) -> list[Verdict]:
    """Return the verdicts, those on what fails with `driver_version` and `booted_at` in their evidence where known.

    A boot counts that came at most a day before the failing began, or after it; of several the last. What a rule told
    of itself stays as it told it.
    """
    return [_with_causes(verdict, causes) if verdict.state in _AT_FAULT else verdict for verdict in verdicts]


def _with_causes(verdict: Verdict, causes: Causes) -> Verdict:
    name = verdict.subject if verdict.subject_kind == "node" else verdict.node
    node = (verdict.cluster or "", name or "")
    begun = verdict.since or verdict.made_at
    boots = [at for at in causes.boots.get(node, ()) if begun - _BEFORE <= at <= verdict.made_at]
    driver = causes.driver_of_gpu.get(verdict.subject, causes.driver_of_node.get(node))
    told: dict[str, object] = {}
    if driver is not None:
        told["driver_version"] = driver
    if boots:
        told["booted_at"] = boots[-1].isoformat()
    return replace(verdict, evidence=MappingProxyType({**told, **verdict.evidence})) if told else verdict
