"""Say what is at stake with each health verdict: the GPU-hours that its repair takes, and their price."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from types import MappingProxyType
from typing import TypeVar

import polars as pl

from fleet.bounds import require_between
from fleet.verdict import Verdict

_AT_FAULT = frozenset({"degraded", "failing", "failed"})
_WHOLE_NODE = frozenset({"reboot_node", "inspect", "run_diagnostics", "replace_gpu"})
_MICRO = Decimal("0.000001")
_Key = TypeVar("_Key")


@dataclass(frozen=True, slots=True)
class StakePolicy:
    """How long each action takes a GPU out of use, in hours.

    A reset takes 2 minutes and a reboot 20; diagnosis takes the median repair of InfiniteHBD's servers (0.85 days) and
    replacement the mean (5.5 days). Draining waits for work to end: an hour is our own guess.
    """

    repair_hours: Mapping[str, float] = field(
        default_factory=lambda: {
            "restart_application": 0.0, "update_software": 0.0, "none": 0.0, "drain": 1.0, "reset_gpu": 2 / 60,
            "reboot_node": 20 / 60, "inspect": 0.85 * 24, "run_diagnostics": 0.85 * 24, "replace_gpu": 5.5 * 24,
        }
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        for action, hours in self.repair_hours.items():
            require_between(f"repair_hours.{action}", hours, 0, float("inf"))


@dataclass(frozen=True, slots=True)
class Stakes:
    """Who falls with whom: each GPU's node mates and the mates of its gang, and what a GPU-hour of each costs."""

    by_node: Mapping[tuple[str, str], frozenset[str]]
    gang_of: Mapping[str, str]
    by_gang: Mapping[str, frozenset[str]]
    usd_per_gpu_hour: Mapping[str, Decimal]

    @classmethod
    def of(cls, gpus: pl.DataFrame, gangs: pl.DataFrame, rates: Mapping[str, Decimal]) -> "Stakes":
        """Return them from `gpus` (uuid, cluster, node), `gangs` (uuid, job) and rates by uuid."""
        by_node: dict[tuple[str, str], set[str]] = defaultdict(set)
        for uuid, cluster, node in gpus.select("uuid", "cluster", "node").iter_rows():
            by_node[cluster, node].add(uuid)
        by_gang: dict[str, set[str]] = defaultdict(set)
        gang_of = {}
        for uuid, job in gangs.filter(pl.col("job").is_not_null()).select("uuid", "job").iter_rows():
            by_gang[job].add(uuid)
            gang_of[uuid] = job
        return cls(_frozen(by_node), MappingProxyType(gang_of), _frozen(by_gang), rates)


def with_stakes(verdicts: Iterable[Verdict], stakes: Stakes, policy: StakePolicy) -> list[Verdict]:
    """Return the verdicts with GPU-hours and money at stake: everything that stands still while the repair lasts.

    A reboot, an inspection and a replacement take the whole node; a gang stands still with any of its GPUs. Money is
    null where a GPU concerned has no price, and GPU-hours are null where nobody knows how long the action takes.
    """
    return [_with_stake(verdict, stakes, policy) for verdict in verdicts]


def _with_stake(verdict: Verdict, stakes: Stakes, policy: StakePolicy) -> Verdict:
    hours = policy.repair_hours.get(verdict.action or "none")
    if verdict.state not in _AT_FAULT or verdict.subject_kind not in {"gpu", "node"} or hours is None:
        return verdict
    node = stakes.by_node.get((verdict.cluster or "", verdict.node or ""), frozenset())
    own = node if verdict.subject_kind == "node" else frozenset({verdict.subject})
    down = own | node if verdict.action in _WHOLE_NODE else own
    gangs = {stakes.gang_of[uuid] for uuid in down if uuid in stakes.gang_of}
    still = down.union(*(stakes.by_gang[gang] for gang in gangs))
    gpu_hours = len(still) * hours
    rates = [stakes.usd_per_gpu_hour.get(uuid) for uuid in sorted(still)]
    priced = [rate for rate in rates if rate is not None]
    cost = sum(priced, Decimal(0)) * Decimal(str(hours)) if len(priced) == len(rates) else None
    return replace(
        verdict,
        gpu_hours=gpu_hours,
        cost_usd=None if cost is None else cost.quantize(_MICRO),
        evidence=MappingProxyType({**verdict.evidence, "gpus_at_stake": len(still), "repair_hours": hours}),
    )


def _frozen(groups: Mapping[_Key, set[str]]) -> Mapping[_Key, frozenset[str]]:
    return MappingProxyType({key: frozenset(members) for key, members in groups.items()})
