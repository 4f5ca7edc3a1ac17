"""The breaker by what failing nodes have in common: a driver, a rack, a wave of boots. Pure.

Many nodes of one rack, or of one driver, that fail at once look like a power feed or a bad roll-out, whatever codes
they show; taking all of them out of use would not mend it. Nothing that gives back ever passes here.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from actions.index import FleetIndex, Pool
from actions.policy import FencePolicy
from fleet.state import Node
from fleet.verdict import Verdict

_DRIVER = "nvidia.com/cuda.driver-version.full"
_DRIVER_PARTS = ("nvidia.com/cuda.driver.major", "nvidia.com/cuda.driver.minor", "nvidia.com/cuda.driver.rev")
_TOLD_DRIVER, _TOLD_BOOT = ("driver", "driver_version"), ("booted_at", "boot_at")


def causes_shared(verdict: Verdict, node: Node) -> tuple[str, ...]:
    """Return what a failing node may have in common with others: its driver, its rack, the hours of its last boot."""
    found = []
    # the label comes first: by it the GPUs that share a driver are counted
    told = next((str(verdict.evidence[name]) for name in _TOLD_DRIVER if verdict.evidence.get(name)), None)
    driver = _driver(node) or told
    if driver is not None:
        found.append(f"driver {driver}")
    if node.rack is not None:
        found.append(f"rack {node.rack}")
    boot = next((verdict.evidence[name] for name in _TOLD_BOOT if verdict.evidence.get(name)), None)
    return (*found, *_waves(boot))


def tripped_groups(
    shown: Iterable[tuple[Verdict, Node, Iterable[str]]], index: FleetIndex, policy: FencePolicy
) -> Mapping[tuple[Pool, str], str]:
    """Return the reason by pool and shared cause where too much of those that share it fail at once.

    Of a rack, or a driver that the nodes' labels tell, the share is of those GPUs (`breaker_share_of_group`); of
    anything else of the pool (`breaker_share_of_pool`). One node alone never trips.
    """
    failing: dict[tuple[Pool, str], set[str]] = defaultdict(set)
    for verdict, node, uuids in shown:
        for cause in causes_shared(verdict, node):
            failing[(node.cluster, node.pool), cause].update(uuid for uuid in uuids if uuid in index.gpus)
    sizes = _sizes(index)
    reasons = {}
    for (pool, cause), uuids in failing.items():
        known = sizes.get((pool, cause))
        size = known or len(index.gpus_by_pool.get(pool, ()))
        share = policy.breaker_share_of_pool if known is None else policy.breaker_share_of_group
        nodes = {index.gpus[uuid].node for uuid in uuids}
        if len(nodes) > 1 and len(uuids) >= policy.breaker_min_gpus and len(uuids) > share * size:
            whole = (
                f"{size} GPUs of {cause}" if known is not None else f"{size} GPUs of pool {pool[1] or 'without a name'}"
            )
            reasons[pool, cause] = (
                f"breaker: {len(uuids)} of the {whole} in {pool[0]} fail at once and share {cause} "
                f"(limit {share:.0%}); look for a common cause"
            )
    return reasons


def _sizes(index: FleetIndex) -> Mapping[tuple[Pool, str], int]:
    sizes: dict[tuple[Pool, str], int] = defaultdict(int)
    for place, gpus in index.gpus_by_node.items():
        node = index.nodes.get(place)
        if node is None:
            continue
        driver = _driver(node)
        for cause in (
            None if driver is None else f"driver {driver}",
            None if node.rack is None else f"rack {node.rack}",
        ):
            if cause is not None:
                sizes[(node.cluster, node.pool), cause] += len(gpus)
    return sizes


def _driver(node: Node) -> str | None:
    if _DRIVER in node.labels:
        return node.labels[_DRIVER]
    parts = [node.labels.get(name) for name in _DRIVER_PARTS]
    return None if parts[0] is None else ".".join(part for part in parts if part)


def _waves(boot: object) -> tuple[str, ...]:
    """Return the two overlapping hours that a boot lies in: boots half an hour apart always share one of them."""
    try:
        moment = boot if isinstance(boot, datetime) else datetime.fromisoformat(str(boot))
    except ValueError:
        return ()
    half = moment - timedelta(minutes=moment.minute % 30, seconds=moment.second, microseconds=moment.microsecond)
    return tuple(f"the boots of the hour from {each.isoformat()}" for each in (half - timedelta(minutes=30), half))
