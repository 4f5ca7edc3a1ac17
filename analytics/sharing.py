"""Judge which nodes' GPUs could be shared by time: small pods, one GPU each, whose peaks fit together in any company.

Time-slicing is a setting of a whole node, and its scheduler, not we, chooses which pods meet on a GPU. So the largest
that were seen there must fit beside each other: the sum of their peak memory and of their peak activity, each with
headroom. There is no isolation of memory or of faults; memory that is short ends a pod. What is not known, of any pod
that held a GPU of the node in the look-back, gives no verdict at all.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType

import ibis
import ibis.expr.types as ir
import polars as pl

from analytics.activity import SECONDS_PER_HOUR, Tables, hour_start
from analytics.sharing_policy import SharingPolicy
from fleet.verdict import Severity, Verdict

TOPIC, ACTION, RULE = "packing", "share", "peaks_fit_together"
_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)
_LEAST_PODS = 2
_WHOLE = 1 - 1e-9
_SHOWN = 16


@dataclass(frozen=True, slots=True)
class Hold:
    """One row of `sharing_use`: one pod's hold on one GPU, and the peaks of the hours in which it held it."""

    cluster: str
    node: str
    uuid: str
    gpus: int
    memory_mib: int | None
    memory_mib_min: int | None
    is_open: bool
    is_shared_now: bool
    namespace: str
    pod: str
    pod_uid: str
    workload_kind: str | None
    workload: str | None
    workspace: str | None
    fraction: float | None
    is_slice: bool
    is_current: bool
    held_from: datetime
    held_until: datetime
    known_hours: int
    known_count: int
    samples_an_hour: int | None
    memory_mib_peak: int | None
    activity_peak: float | None
    last_hour_at: datetime | None

    @property
    def held_h(self) -> float:
        """Return the hours it was held within the look-back."""
        return (self.held_until - self.held_from) / _HOUR

    @property
    def tenant(self) -> str | None:
        """Return whose it is; None where nobody knows."""
        return self.workspace


def sharing_use(tables: Tables, now: datetime, policy: SharingPolicy) -> ir.Table:
    """Return each pod that held a whole GPU in the look-back, on nodes that small pods hold now, with its hourly peaks.

    Only nodes without MIG on which two pods or more hold GPUs at `now`, all of kinds that may share. Reads node, gpu,
    gpu_hour and pod_allocation. An hour in which two pods held a GPU one after the other counts for both.
    """
    since = now - timedelta(days=policy.look_back_d)
    gpus, places = _boards(tables, now)
    held = tables["pod_allocation"]
    held = held.filter(held.starts_at < now, held.ends_at.isnull() | (held.ends_at > since)).inner_join(gpus, "gpu")
    holds = held.group_by("gpu", "uuid", "cluster", "node", "namespace", "pod", "pod_uid").agg(
        workload_kind=held.workload_kind.max(),
        workload=held.workload.max(),
        workspace=held.workspace.max(),
        fraction=held.fraction.sum(),
        is_slice=held.slice.notnull().any(),
        held_from=ibis.greatest(held.starts_at.min(), ibis.literal(since)),
        held_until=ibis.least(held.ends_at.coalesce(ibis.literal(now)).max(), ibis.literal(now)),
    )
    holds = holds.mutate(is_current=holds.held_until >= ibis.literal(now))
    may_share = holds.workload_kind.isin(policy.kinds).coalesce(False)
    here = holds.group_by("cluster", "node").agg(
        pods=holds.pod_uid.nunique(where=holds.is_current),
        others=holds.pod_uid.count(where=holds.is_current & ~may_share),
    )
    chosen = here.filter(here.pods >= _LEAST_PODS, here.others == 0).select("cluster", "node")
    holds = holds.semi_join(chosen, ["cluster", "node"]).inner_join(places, ["cluster", "node"])
    return _with_peaks(holds, tables["gpu_hour"], since, now)


def _boards(tables: Tables, now: datetime) -> tuple[ir.Table, ir.Table]:
    """Return the GPUs that are there, and their nodes without MIG with how many and how large they are."""
    gpus = tables["gpu"]
    gpus = gpus.filter(gpus.last_seen_at.isnull() | (gpus.last_seen_at >= now - _DAY))
    gpus = gpus.select("gpu", "uuid", "cluster", "node", "memory_mib", is_mig=gpus.mig_enabled.coalesce(False))
    by_node = gpus.group_by("cluster", "node").agg(
        gpus=gpus.count(),
        memory_mib=gpus.memory_mib.max(),
        memory_mib_min=ibis.cases(
            (gpus.memory_mib.count() == gpus.count(), gpus.memory_mib.min()), else_=ibis.null("int64")
        ),
        has_mig=gpus.is_mig.any(),
    )
    nodes = tables["node"]
    nodes = nodes.select(
        "cluster",
        "node",
        is_open=nodes.is_ready.coalesce(False) & nodes.is_schedulable.coalesce(False),
        is_shared_now=nodes.labels.contains('"nvidia.com/device-plugin.config"').coalesce(False),
    )
    places = by_node.filter(~by_node.has_mig).drop("has_mig").inner_join(nodes, ["cluster", "node"])
    return gpus.drop("memory_mib", "is_mig"), places


def _with_peaks(holds: ir.Table, hours: ir.Table, since: datetime, now: datetime) -> ir.Table:
    hours = hours.filter(hours.hour_at >= hour_start(since), hours.hour_at < now)
    met = holds.select("gpu", "pod_uid", "held_from", "held_until").inner_join(hours, "gpu")
    met = met.filter(met.hour_at < met.held_until, met.hour_at + ibis.interval(hours=1) > met.held_from)
    is_known = (met.known_sample_count > 0) & met.memory_used_mib_max.notnull() & met.activity_max.notnull()
    peaks = met.group_by("gpu", "pod_uid").agg(
        known_hours=met.count(where=is_known),
        known_count=met.known_sample_count.sum(where=is_known),
        samples_an_hour=met.sample_count.max(),
        memory_mib_peak=met.memory_used_mib_max.max(),
        activity_peak=met.activity_max.max(),
        last_hour_at=met.hour_at.max(),
    )
    joined = holds.left_join(peaks, ["gpu", "pod_uid"])
    counts = {name: joined[name].coalesce(0) for name in ("known_hours", "known_count")}
    names = [name for name in Hold.__slots__ if name not in counts]
    return joined.select(*names, **counts).order_by("cluster", "node", "pod_uid", "uuid")


def waiting_singles(tables: Tables, now: datetime, policy: SharingPolicy) -> ir.Table:
    """Return, by cluster and workspace, how many pods wait for one whole GPU each and are of kinds that may share."""
    pods = tables["pod"]
    waits = pods.filter(
        pods.starts_at.isnull(), pods.created_at <= now, pods.ends_at.isnull() | (pods.ends_at > now), pods.gpus == 1,
        pods.resources.contains('"nvidia.com/gpu"'), pods.workload_kind.isin(policy.kinds),
    )  # fmt: skip
    return waits.group_by("cluster", "workspace").agg(pods=waits.count())


def judge_sharing(used: pl.DataFrame, waiting: pl.DataFrame, policy: SharingPolicy, now: datetime) -> list[Verdict]:
    """Return a verdict for each node whose GPUs could be shared, what helps most of who waits first.

    `used` is a frame of `sharing_use`, `waiting` one of `waiting_singles`; each pod that waits is counted for one node.
    """
    nodes: dict[tuple[str, str], list[Hold]] = defaultdict(list)
    # a sum of integers comes back as a decimal from some engines
    for row in used.cast({"known_count": pl.Int64}).iter_rows(named=True):
        hold = Hold(**row)
        nodes[hold.cluster, hold.node].append(hold)
    fits = [fit for _, holds in sorted(nodes.items()) if (fit := _fit(holds, policy)) is not None]
    left: Counter[tuple[str, str | None]] = Counter()
    for cluster, workspace, pods in waiting.select("cluster", "workspace", "pods").iter_rows():
        left[cluster, workspace] += pods
    roomiest = sorted(fits, key=lambda each: (-each.places_more, each.first.cluster, each.first.node))
    verdicts = [_verdict(fit, _take(left, fit, policy), policy, now) for fit in roomiest]
    return sorted(verdicts, key=lambda each: (-_number(each.evidence["gain_gpus"]), each.cluster or "", each.subject))


@dataclass(frozen=True, slots=True)
class _Fit:
    """A node that could be shared: everything that held its GPUs, those of now, and the profile whose places fit."""

    holds: tuple[Hold, ...]
    current: tuple[Hold, ...]
    profile: str
    replicas: int
    memory_mib: int
    memory_needed_mib: float
    activity_needed: float
    coverage: float

    @property
    def first(self) -> Hold:
        """Return any of the holds: what they tell of the node is the same."""
        return self.holds[0]

    @property
    def places_more(self) -> int:
        """Return the places that it would have for further pods."""
        return self.first.gpus * self.replicas - len(self.current)


def _fit(holds: Sequence[Hold], policy: SharingPolicy) -> _Fit | None:
    first, current = holds[0], tuple(each for each in holds if each.is_current)
    size = first.memory_mib_min
    if not first.is_open or first.is_shared_now or size is None or size != first.memory_mib:
        return None
    covered = [_coverage(each) for each in holds]
    known = [each for each in covered if each is not None and each >= policy.coverage_min]
    is_told = len(known) == len(holds) and all(each.held_h >= policy.held_h_min for each in current)
    if not is_told or not _are_alike(holds, policy) or len(current) < _LEAST_PODS:
        return None
    memory = sorted((float(each.memory_mib_peak) for each in holds if each.memory_mib_peak is not None), reverse=True)
    activity = sorted((each.activity_peak for each in holds if each.activity_peak is not None), reverse=True)
    if len(memory) < len(holds) or len(activity) < len(holds):
        return None
    for profile, replicas in sorted(policy.profiles.items(), key=lambda each: (-each[1], each[0])):
        needs, works = _largest(memory, replicas), _largest(activity, replicas)
        if needs <= size * (1 - policy.memory_headroom) and works <= 1 - policy.activity_headroom:
            return _Fit(tuple(holds), current, profile, replicas, size, needs, works, min(known))
    return None


def _are_alike(holds: Sequence[Hold], policy: SharingPolicy) -> bool:
    """Return whether all that held a GPU of the node are small pods of kinds that may share, and of one tenant."""
    gpus_of_pods = Counter(each.pod_uid for each in holds)
    is_small = all(
        gpus_of_pods[each.pod_uid] == 1
        and not each.is_slice
        and each.fraction is not None
        and each.fraction >= _WHOLE
        and each.workload_kind in policy.kinds
        for each in holds
    )
    tenants = {each.tenant for each in holds}
    return is_small and (policy.is_multi_tenant_allowed or (len(tenants) == 1 and None not in tenants))


def _coverage(hold: Hold) -> float | None:
    """Return the part of the hold that is known, by hours and by samples; None where nothing is."""
    if hold.samples_an_hour is None or hold.samples_an_hour <= 0 or hold.held_h <= 0:
        return None
    begins = hold.held_from.replace(minute=0, second=0, microsecond=0)
    hours = -(-(hold.held_until - begins).total_seconds() // SECONDS_PER_HOUR)
    return min(1.0, hold.known_hours / hours, hold.known_count / (hold.held_h * hold.samples_an_hour))


def _largest(peaks: Sequence[float], count: int) -> float:
    """Return the sum of the `count` largest; where fewer were seen, as if more like the largest came."""
    return sum(peaks[:count]) + max(0, count - len(peaks)) * peaks[0]


def _take(left: Counter[tuple[str, str | None]], fit: _Fit, policy: SharingPolicy) -> int:
    """Return how many of those who wait the node's further places would hold, and strike them off."""
    taken = 0
    for cluster, workspace in sorted(left, key=str):
        is_ours = policy.is_multi_tenant_allowed or workspace == fit.first.tenant
        if cluster == fit.first.cluster and is_ours:
            count = min(left[cluster, workspace], fit.places_more - taken)
            left[cluster, workspace] -= count
            taken += count
    return taken


def _verdict(fit: _Fit, gain: int, policy: SharingPolicy, now: datetime) -> Verdict:
    first = fit.first
    seen = [each.last_hour_at for each in fit.current if each.last_hour_at is not None]
    largest = sorted(fit.holds, key=lambda each: (-_number(each.memory_mib_peak), each.pod_uid))
    tenants = sorted({each.tenant or "unknown" for each in fit.holds})
    return Verdict(
        made_at=now,
        topic=TOPIC,
        subject_kind="node",
        subject=first.node,
        state="shareable",
        severity=Severity.INFO,
        rule=RULE,
        action=ACTION,
        cluster=first.cluster,
        node=first.node,
        workspace=tenants[0] if len(tenants) == 1 and first.tenant is not None else None,
        until=min(now, min(seen) + _HOUR) if seen else None,
        coverage=fit.coverage,
        evidence=MappingProxyType(
            {
                "sharing": fit.profile, "replicas": fit.replicas, "gpus": first.gpus, "gain_gpus": float(gain),
                "places_more": fit.places_more, "pods": len(fit.current), "pods_seen": len(fit.holds),
                "gpus_needed": -(-len(fit.current) // fit.replicas), "tenants": tenants,
                "memory_mib": fit.memory_mib, "memory_needed_mib": fit.memory_needed_mib,
                "memory_headroom": policy.memory_headroom, "activity_needed": round(fit.activity_needed, 6),
                "activity_headroom": policy.activity_headroom, "isolation": "none",
                "largest": [_told(each) for each in largest[:_SHOWN]],
            }
        ),
    )  # fmt: skip


def _told(hold: Hold) -> Mapping[str, object]:
    owned = hold.workload_kind is not None and hold.workload is not None
    name = f"{hold.workload_kind}/{hold.namespace}/{hold.workload}" if owned else f"Pod/{hold.namespace}/{hold.pod}"
    return {
        "pod": f"{hold.namespace}/{hold.pod}", "workload": name, "is_current": hold.is_current,
        "memory_mib_peak": hold.memory_mib_peak,
        "activity_peak": None if hold.activity_peak is None else round(hold.activity_peak, 6),
    }  # fmt: skip


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
