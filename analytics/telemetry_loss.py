"""Read silence: one GPU's series gone is a lost GPU, all of a node's a failed exporter, everybody's a stopped source.

Silence is counted in scrapes of the node, not in minutes: a GPU that two scrapes of its own node came without is
lost, whatever the cadence. Silence that could have another cause (a boot, a collector that has not read yet) is
"unknown" and never "healthy".
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType

import ibis
import ibis.expr.types as ir
import polars as pl

from analytics.activity import Tables, coverage
from analytics.health_signals import pci_address
from fleet.bounds import require_between, require_positive
from fleet.verdict import Severity, Verdict

MEASURES = ("power_w", "temperature_c", "sm_clock_mhz", "memory_used_mib", "utilization", "gr_activity")
_LEAST_INTERVAL_S = 0.001  # nobody scrapes more often; two samples of one moment are no cadence
_TOLERANCE = 0.5  # of an interval: GPUs of a node are read one after the other


@dataclass(frozen=True, slots=True)
class TelemetryPolicy:
    """When silence is a finding.

    `scrapes` of a node without one of its GPUs make that GPU lost; as many intervals without any make the exporter
    lost. Below `coverage_min` of the expected samples in `window_s` nothing is known. `boot_grace_s` after a boot
    silence is no finding; after `forget_s` of silence a GPU is taken for removed. `interval_s` stands in where no
    two samples tell the cadence.
    """

    window_s: float = 3600.0
    scrapes: int = 2
    coverage_min: float = 0.5
    boot_grace_s: float = 900.0
    forget_s: float = 7 * 86400.0
    interval_s: float = 60.0

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        for name in ("window_s", "forget_s", "interval_s"):
            require_positive(name, getattr(self, name))
        require_between("scrapes", self.scrapes, 1, 1000)
        require_between("coverage_min", self.coverage_min, 0, 1)
        require_between("boot_grace_s", self.boot_grace_s, 0, float("inf"))


@dataclass(frozen=True, slots=True)
class _Heard:
    """One row of `telemetry_signals`."""

    uuid: str
    cluster: str
    node: str
    last_sample_at: datetime | None
    sample_count: int
    interval_s: float | None
    first_seen_at: datetime | None
    last_boot_at: datetime | None
    measures_before: int | None
    measures_lately: int | None
    pci_address: str | None = None


def telemetry_signals(tables: Tables, now: datetime, policy: TelemetryPolicy) -> ir.Table:
    """Return one row a GPU: when it was last heard of, how often, at what cadence, and how much each sample told.

    Reads gpu, gpu_sample, gpu_hour and event. `measures_before` and `measures_lately` are how many of `MEASURES` were
    told in the window's first half and in the GPU's last two samples.
    """
    samples = tables["gpu_sample"]
    within = samples.filter(samples.ts >= now - timedelta(seconds=policy.window_s), samples.ts <= now)
    order = ibis.window(group_by="gpu", order_by=ibis.desc("ts"))
    slim = within.select("gpu", "ts", told=_told_mask(within))
    numbered = slim.mutate(place=ibis.row_number().over(order))
    middle = now - timedelta(seconds=policy.window_s / 2)
    counted = numbered.group_by("gpu").agg(
        last_at=numbered.ts.max(),
        first_at=numbered.ts.min(),
        sample_count=numbered.count(),
        told_before=numbered.told.bit_or(where=numbered.ts < middle),
        told_lately=numbered.told.bit_or(where=numbered.place < policy.scrapes),
    )
    span_s = counted.last_at.epoch_seconds() - counted.first_at.epoch_seconds()
    counted = counted.mutate(interval_s=span_s / (counted.sample_count - 1).nullif(0))
    events = tables["event"]
    recent = events.filter(events.kind == "boot", events.ts <= now, events.ts >= now - timedelta(days=1))
    boots = recent.group_by("cluster", "node").agg(last_boot_at=recent.ts.max())
    hours = tables["gpu_hour"]
    before = hours.filter(hours.hour_at >= now - timedelta(seconds=policy.forget_s), hours.hour_at < now)
    # A roll-up tells the hour and not the moment: half an hour in stands for it.
    older = before.group_by("gpu").agg(hour_at=(before.hour_at + ibis.interval(minutes=30)).max())
    gpus = tables["gpu"].select(
        "gpu", "uuid", "cluster", "node", "first_seen_at", pci_address=pci_address(tables["gpu"].pci_bus_id)
    )
    joined = gpus.left_join(counted, "gpu").drop("gpu_right").left_join(older, "gpu").drop("gpu_right")
    joined = joined.left_join(boots, ["cluster", "node"]).drop("cluster_right", "node_right")
    earlier = ibis.ifelse(joined.hour_at < now - timedelta(seconds=policy.window_s), joined.hour_at, None)
    return joined.select(
        "uuid", "cluster", "node", "interval_s", "first_seen_at", "last_boot_at", "pci_address",
        last_sample_at=ibis.coalesce(joined.last_at, earlier),
        sample_count=joined.sample_count.coalesce(0),
        measures_before=joined.told_before,
        measures_lately=joined.told_lately,
    )  # fmt: skip


def judge_telemetry(signals: pl.DataFrame, policy: TelemetryPolicy, now: datetime) -> list[Verdict]:
    """Return a verdict for each GPU that is lost or too little known, each silent exporter and each silent cluster."""
    heard = [
        _Heard(**row) for row in signals.select(*_Heard.__slots__).sort("cluster", "node", "uuid").iter_rows(named=True)
    ]
    clusters: dict[str, dict[str, list[_Heard]]] = defaultdict(lambda: defaultdict(list))
    for each in heard:
        clusters[each.cluster][each.node].append(each)
    found: list[Verdict] = []
    for cluster, nodes in clusters.items():
        silent = {node: last for node, members in nodes.items() if (last := _silent_since(members, policy, now))}
        spoke = [node for node, members in nodes.items() if any(each.last_sample_at for each in members)]
        if silent and len(silent) == len(spoke) and len(nodes) > 1:
            last = max(silent.values())
            evidence = {"nodes": len(silent), "silent_s": (now - last).total_seconds(), "last_sample_at": str(last)}
            found.append(_verdict("source_lost", "cluster", cluster, (cluster, None), now, last, evidence))
        for node, members in nodes.items():
            found.extend(_judge_node((cluster, node), members, policy, now, is_alone=len(silent) < len(spoke)))
    return found


def _judge_node(
    place: tuple[str, str], members: list[_Heard], policy: TelemetryPolicy, now: datetime, *, is_alone: bool
) -> Iterable[Verdict]:
    last = _silent_since(members, policy, now)
    is_booting = any(_within(each.last_boot_at, policy.boot_grace_s, now) for each in members)
    if last is not None and not is_booting and (is_alone or len(members) == 0):
        evidence: dict[str, object] = {
            "gpus": len(members), "silent_s": (now - last).total_seconds(), "last_sample_at": last.isoformat(),
            "scrapes_missed": int((now - last).total_seconds() // _interval(members, policy)),
        }  # fmt: skip
        yield _verdict("exporter_lost", "node", place[1], place, now, last, evidence)
    for each in members:
        verdict = _judge_gpu(each, members, policy, now, is_silent=last is not None, is_booting=is_booting)
        if verdict is not None:
            yield verdict


def _judge_gpu(
    each: _Heard, members: list[_Heard], policy: TelemetryPolicy, now: datetime, *, is_silent: bool, is_booting: bool
) -> Verdict | None:
    place, interval_s = (each.cluster, each.node), _interval(members, policy)
    if each.last_sample_at is None:
        return _verdict("no_telemetry", "gpu", each.uuid, place, now, None, {"samples": 0})
    node_last = max(mate.last_sample_at for mate in members if mate.last_sample_at is not None)
    missed = int((node_last - each.last_sample_at).total_seconds() / interval_s + _TOLERANCE)
    evidence: dict[str, object] = {
        "scrapes_missed": missed, "last_sample_at": each.last_sample_at.isoformat(), "interval_s": interval_s,
        "node_last_at": node_last.isoformat(), "gpus_of_node": len(members),
    }  # fmt: skip
    successor_at = _successor_at(each, members)
    if successor_at is not None:
        evidence["replaced_at"] = successor_at.isoformat()
        return _verdict("replaced", "gpu", each.uuid, place, now, each.last_sample_at, evidence)
    silence = _silence(each, missed, policy, now, is_silent=is_silent, is_booting=is_booting)
    if silence is not None:
        return _verdict(silence[0], "gpu", each.uuid, place, now, silence[1], evidence)
    had = _coverage(each, interval_s, policy, now)
    if had is not None and had < policy.coverage_min:
        return _verdict("low_coverage", "gpu", each.uuid, place, now, None, {**evidence, "coverage": had}, had)
    lost = _lost_series(each, members)
    return (
        _verdict("series_lost", "gpu", each.uuid, place, now, None, {**evidence, "lost": lost}, had) if lost else None
    )


def _silence(
    each: _Heard, missed: int, policy: TelemetryPolicy, now: datetime, *, is_silent: bool, is_booting: bool
) -> tuple[str, datetime | None] | None:
    """Return the rule that explains a GPU's silence, and since when; None where it is not silent."""
    if not is_silent and missed < policy.scrapes:
        return None
    if is_booting:
        return "booting", each.last_boot_at
    if not is_silent:
        return "gpu_lost", each.last_sample_at
    is_removed = not _within(each.last_sample_at, policy.forget_s, now)
    return "removed" if is_removed else "exporter_silent", each.last_sample_at


def _successor_at(each: _Heard, members: list[_Heard]) -> datetime | None:
    """Return when another board came to its PCI address after it was last heard of; None where none did."""
    if each.pci_address is None or each.last_sample_at is None:
        return None
    came = (mate.first_seen_at for mate in members if mate.pci_address == each.pci_address and mate.uuid != each.uuid)
    return max((moment for moment in came if moment is not None and moment > each.last_sample_at), default=None)


def _lost_series(each: _Heard, members: list[_Heard]) -> list[str]:
    """Return the measures that a GPU told before and no longer does, while others of its node go on telling them."""
    if each.measures_before is None or each.measures_lately is None:
        return []
    others = [mate.measures_lately for mate in members if mate.uuid != each.uuid and mate.measures_lately is not None]
    gone = each.measures_before & ~each.measures_lately
    return [
        name for place, name in enumerate(MEASURES) if gone >> place & 1 and any(told >> place & 1 for told in others)
    ]


_SAYS: Mapping[str, tuple[str, str, Severity, float]] = MappingProxyType(
    {
        "gpu_lost": ("failed", "reboot_node", Severity.CRITICAL, 0.95),
        "series_lost": ("degraded", "inspect", Severity.WARNING, 0.6),
        "exporter_lost": ("unknown", "inspect", Severity.WARNING, 0.9),
        "source_lost": ("unknown", "inspect", Severity.WARNING, 0.9),
        "exporter_silent": ("unknown", "none", Severity.UNKNOWN, 1.0),
        "removed": ("unknown", "none", Severity.UNKNOWN, 0.8),
        "replaced": ("unknown", "none", Severity.UNKNOWN, 0.95),
        "booting": ("unknown", "none", Severity.UNKNOWN, 1.0),
        "low_coverage": ("unknown", "none", Severity.UNKNOWN, 1.0),
        "no_telemetry": ("unknown", "none", Severity.UNKNOWN, 1.0),
    }
)


def _verdict(  # noqa: PLR0917 - what every verdict here has
    rule: str,
    kind: str,
    subject: str,
    place: tuple[str, str | None],
    now: datetime,
    since: datetime | None,
    evidence: Mapping[str, object],
    had: float | None = None,
) -> Verdict:
    state, action, severity, confidence = _SAYS[rule]
    return Verdict(
        now, "health", kind, subject, state, severity, rule, MappingProxyType(dict(evidence)), cluster=place[0],
        node=place[1], action=action, confidence=confidence, since=since, coverage=had,
    )  # fmt: skip


def _silent_since(members: list[_Heard], policy: TelemetryPolicy, now: datetime) -> datetime | None:
    """Return when a node was last heard of, where that is too long ago; None where it speaks or never did."""
    heard = [each.last_sample_at for each in members if each.last_sample_at is not None]
    if not heard:
        return None
    allowed_s = _interval(members, policy) * (policy.scrapes + _TOLERANCE)
    return max(heard) if (now - max(heard)).total_seconds() > allowed_s else None


def _interval(members: list[_Heard], policy: TelemetryPolicy) -> float:
    """Return the node's cadence in seconds: the median of its GPUs', since one that stutters is the patient."""
    told = (each.interval_s for each in members if each.interval_s is not None)
    known = sorted(interval_s for interval_s in told if _LEAST_INTERVAL_S <= interval_s <= policy.forget_s)
    return known[len(known) // 2] if known else policy.interval_s


def _coverage(each: _Heard, interval_s: float, policy: TelemetryPolicy, now: datetime) -> float | None:
    """Return samples had over those expected since the GPU was first seen, in the window."""
    since = now - timedelta(seconds=policy.window_s)
    born = since if each.first_seen_at is None else max(since, each.first_seen_at)
    seen_s = (now - born).total_seconds()
    return coverage(each.sample_count, interval_s, seen_s) if seen_s > interval_s * policy.scrapes else None


def _within(moment: datetime | None, seconds: float, now: datetime) -> bool:
    return moment is not None and (now - moment).total_seconds() <= seconds


def _told_mask(samples: ir.Table) -> ir.IntegerValue:
    """Return which of `MEASURES` a sample told, as bits."""
    mask = ibis.literal(0, type="int64")
    for place, name in enumerate(MEASURES):
        mask += ibis.ifelse(samples[name].notnull(), 1 << place, 0)
    return mask
