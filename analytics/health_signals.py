"""Ask for each GPU's signs of health, and for the events of the last day: the heavy half of the topic `health`."""

import operator
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from functools import reduce
from types import MappingProxyType

import ibis
import ibis.expr.types as ir

from analytics.activity import SIGNALS, Tables, is_above
from analytics.health_policy import HealthPolicy
from analytics.health_values import WATCHED

FLAGS = ("is_remap_pending", "is_page_retirement_pending")
LATCHED = {"is_remap_failed": "remap_failed_poll_count", "is_sram_threshold_exceeded": "sram_threshold_poll_count"}
COUNTERS = ("ecc_corrected_count", "ecc_uncorrected_count", "pcie_replay_count", "nvlink_error_count")
_LARGE = 2**60
_PLAUSIBLE: Mapping[str, tuple[float, float]] = MappingProxyType({
    "temperature_c": (-50, 150), "power_w": (0, 5000), "thermal_margin_c": (-100, 200), "sm_clock_mhz": (0, 10_000),
    "clock_event_bits": (0, _LARGE), "ecc_corrected_count": (0, _LARGE), "ecc_uncorrected_count": (0, _LARGE),
    "pcie_width": (1, 32), "pcie_generation": (1, 8), "pcie_replay_count": (0, _LARGE), "nvlink_active_count": (0, 128),
    "nvlink_error_count": (0, _LARGE), "recovery_action": (0, 255), "fabric_health_bits": (0, _LARGE),
    "retired_page_count": (0, 10_000), "rows_remapped_uncorrected_count": (0, 100_000), "utilization": (0, 1),
    "sm_activity": (0, 1), "gr_activity": (0, 1),
})  # fmt: skip
"""What a column may be; anything else was not measured, and is told."""

_PCI_ADDRESS = r"([0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2})"


def health_signals(tables: Tables, now: datetime, policy: HealthPolicy) -> ir.Table:
    """Return what `judge_health` reads: one row for each GPU there is, null where nothing was measured.

    Reads gpu, node, gpu_sample, gpu_hour. Each live signal is looked at over its own last known polls (`polls`,
    `polls_min`, or `flag_polls` for flags that are pending) within the window; counters are summed as increases over
    the window, a counter that went back having been reset; what stays once seen, over the look-back. A value that
    can't be is no measurement.
    """
    samples = tables["gpu_sample"]
    look_back = samples.filter(samples.ts >= now - timedelta(seconds=policy.look_back_s), samples.ts < now)
    window = samples.filter(samples.ts >= now - timedelta(seconds=policy.window_s), samples.ts < now)
    parts = (
        _history(look_back, policy),
        _hours(tables["gpu_hour"], now),
        _polls(window, policy, now),
        _slowness(window, policy),
        _under_load(window, policy),
        *_lately(window, policy),
        *(_increase(window, name) for name in COUNTERS),
    )
    joined = gpus = _gpus(tables)
    for place, part in enumerate(parts):
        key = f"gpu_of_{place}"
        joined = joined.left_join(part.rename({key: "gpu"}), [(gpus.gpu, key)])
    told = joined.select(*(name for name in joined.columns if not name.startswith("gpu_of_")))
    last_at = ibis.coalesce(told.last_sample_at, told.last_hour_end_at)
    return told.mutate(last_sample_at=last_at).drop("gpu", "last_hour_end_at")


EVENT_COLUMNS = ("ts", "cluster", "node", "gpu_uuid", "kind", "code", "message", "slice_uuid", "gpu_instance")


def health_events(tables: Tables, now: datetime, policy: HealthPolicy) -> ir.Table:
    """Return the events of the look-back, each with its GPU where that can be found and the workloads on it.

    A GPU is found by its uuid, by its slice's uuid, or by its PCI address on the node. An event on a GPU that
    several pods shared comes once for each of their workloads.
    """
    events = tables["event"]
    recent = events.filter(events.ts >= now - timedelta(seconds=policy.look_back_s), events.ts <= now)
    gpus = tables["gpu"].select("gpu", "uuid")
    slices = tables["slice"].join(gpus, "gpu").select(slice_uuid="uuid", parent_uuid="uuid_right")
    told = recent.mutate(address=pci_address(recent.pci_bus_id))
    told = told.left_join(slices, "slice_uuid").drop("slice_uuid_right")
    told = with_address_uuid(told, tables["gpu"])
    told = told.mutate(found_uuid=ibis.coalesce(told.gpu_uuid, told.parent_uuid, told.address_uuid))
    found = told.select(
        "ts", "cluster", "node", "kind", "code", "message", "slice_uuid", "gpu_instance", gpu_uuid="found_uuid"
    )
    keyed = found.left_join(gpus.select("uuid", "gpu"), found.gpu_uuid == gpus.uuid).drop("uuid")
    pods = tables["pod_allocation"].select(
        "gpu", "starts_at", "ends_at", "namespace", "pod", held_by=tables["pod_allocation"].workload
    )
    on_gpu = (
        (keyed.gpu == pods.gpu) & (pods.starts_at <= keyed.ts) & (pods.ends_at.isnull() | (pods.ends_at > keyed.ts))
    )
    held = keyed.left_join(pods, on_gpu)
    workload = held.namespace + "/" + ibis.coalesce(held.held_by, held.pod)
    return held.select(*EVENT_COLUMNS, workload=workload).distinct()


def with_address_uuid(events: ir.Table, gpus: ir.Table) -> ir.Table:
    """Add `address_uuid`: the GPU that was at the event's PCI `address` on its node then; boards get replaced."""
    known = gpus.select("cluster", "node", "first_seen_at", address=pci_address(gpus.pci_bus_id), address_uuid="uuid")
    known = known.filter(known.address.notnull())
    one_after_another = ibis.window(
        group_by=["cluster", "node", "address"], order_by=[known.first_seen_at.asc(nulls_first=True), "address_uuid"]
    )
    placed = known.mutate(
        number=ibis.row_number().over(one_after_another), gone_at=known.first_seen_at.lead().over(one_after_another)
    )
    was_there = ((placed.number == 0) | (placed.first_seen_at <= events.ts)) & (
        placed.gone_at.isnull() | (placed.gone_at > events.ts)
    )
    joined = events.left_join(
        placed,
        [events.cluster == placed.cluster, events.node == placed.node, events.address == placed.address, was_there],
    )
    return joined.select(*events.columns, "address_uuid")


def pci_address(written: ir.StringValue) -> ir.StringValue:
    """Return domain:bus:device in lower case from any way of writing it; null where there is none in it."""
    return written.lower().re_extract(_PCI_ADDRESS, 1).nullif("")


def _gpus(tables: Tables) -> ir.Table:
    gpus, nodes = tables["gpu"], tables["node"]
    named = gpus.select(
        "gpu", "uuid", "cluster", "node", "model", "architecture", "driver", "vbios", "fabric_state", "fabric_status",
        "sm_clock_max_mhz", "first_seen_at", pci_address=pci_address(gpus.pci_bus_id),
    )  # fmt: skip
    pools = nodes.select("cluster", "node", "pool", node_gpus="gpus")
    return named.left_join(pools, ["cluster", "node"]).drop("cluster_right", "node_right")


def _believable(samples: ir.Table, *names: str) -> ir.Table:
    """Return these columns of samples, with what can't be as null."""
    return samples.select("gpu", "ts", **{name: _measured(samples, name) for name in names})


def _measured(samples: ir.Table, name: str) -> ir.Value:
    if name not in _PLAUSIBLE:
        return samples[name]
    return ibis.ifelse(samples[name].between(*_PLAUSIBLE[name]), samples[name], None)


def _history(look_back: ir.Table, policy: HealthPolicy) -> ir.Table:
    names = ("pcie_width", "pcie_generation", "nvlink_active_count", *SIGNALS)
    known = look_back.select(
        "gpu", "ts", *LATCHED, known=_known(look_back), **{name: _measured(look_back, name) for name in names}
    )
    is_busy = is_above(known, policy.busy_above)
    told = known.group_by("gpu").agg(
        last_sample_at=known.ts.max(),
        first_sample_at=known.ts.min(),
        sample_count=known.count(),
        pcie_width_history=known.pcie_width.max(),
        pcie_generation_history=known.pcie_generation.max(where=is_busy),
        nvlink_active_history=known.nvlink_active_count.max(),
        known_history=known.known.bit_or(),
        **{counted: known.count(where=known[name]) for name, counted in LATCHED.items()},
    )
    span_s = told.last_sample_at.epoch_seconds() - told.first_sample_at.epoch_seconds()
    interval_s = span_s / (told.sample_count - 1).nullif(0)
    return told.mutate(interval_s=interval_s).drop("first_sample_at", "sample_count")


def _known(samples: ir.Table) -> ir.IntegerValue:
    """Return which of the watched signals a row measured, as a mask."""
    masks = (ibis.ifelse(_measured(samples, name).notnull(), 1 << bit, 0) for bit, name in enumerate(WATCHED))
    return reduce(operator.add, masks)


def _hours(gpu_hour: ir.Table, now: datetime) -> ir.Table:
    """Return when a GPU was last heard of before the look-back, so that one lost for days stays lost."""
    recent = gpu_hour.filter(gpu_hour.hour_at >= now - timedelta(days=7), gpu_hour.hour_at < now - timedelta(hours=1))
    return recent.group_by("gpu").agg(last_hour_end_at=(recent.hour_at + ibis.interval(hours=1)).max())


def _polls(window: ir.Table, policy: HealthPolicy, now: datetime) -> ir.Table:
    """Return how many polls there were lately, what they measured, and how many had values that can't be."""
    wrong = (window[name].notnull() & ~window[name].between(*bounds) for name, bounds in _PLAUSIBLE.items())
    names = ("retired_page_count", "rows_remapped_uncorrected_count", "pcie_generation")
    numbered = window.select(
        "gpu",
        "ts",
        known=_known(window),
        is_implausible=ibis.or_(*wrong),
        place=ibis.row_number().over(group_by=window.gpu, order_by=ibis.desc(window.ts)),
        **{name: _measured(window, name) for name in names},
    )
    is_last = numbered.place < policy.polls
    is_recent = is_last | (numbered.ts >= now - timedelta(seconds=policy.silence_s))
    return numbered.group_by("gpu").agg(
        poll_count=numbered.count(where=is_last),
        known_lately=numbered.known.bit_or(where=is_recent),
        implausible_poll_count=numbered.count(where=is_last & numbered.is_implausible),
        **{name: numbered[name].max() for name in names},
    )


def _slowness(window: ir.Table, policy: HealthPolicy) -> ir.Table:
    rows = _last(window, policy.polls, "clock_event_bits")
    is_slow = (rows.clock_event_bits & policy.slowdown_bits) != 0
    return rows.group_by("gpu").agg(
        slow_poll_count=rows.count(where=is_slow),
        slow_bits=rows.clock_event_bits.bit_or(where=is_slow),
        slow_since=rows.ts.min(where=is_slow),
    )


def _under_load(window: ir.Table, policy: HealthPolicy) -> ir.Table:
    names = ("sm_clock_mhz", "pcie_generation", "clock_event_bits")
    known = _believable(window, *SIGNALS, *names)
    busy = known.filter(is_above(known, policy.busy_above)).select("gpu", "ts", *names)
    rows = _last_rows(busy, policy.polls_min)
    return rows.group_by("gpu").agg(
        busy_poll_count=rows.count(),
        busy_sm_clock_mhz=rows.sm_clock_mhz.max(),
        busy_pcie_generation=rows.pcie_generation.max(),
        held_back_bits=rows.clock_event_bits.bit_or(),
    )


def _lately(window: ir.Table, policy: HealthPolicy) -> Iterator[ir.Table]:
    """Yield what the last known polls of each live signal say, and for how many of them pending flags stand."""
    margin = _last(window, policy.polls, "thermal_margin_c")
    is_hot = margin.thermal_margin_c < policy.thermal_margin_min_c
    yield margin.group_by("gpu").agg(
        hot_poll_count=margin.count(where=is_hot), thermal_margin_c=margin.thermal_margin_c.min()
    )
    width = _last(window, policy.polls_min, "pcie_width")
    yield width.group_by("gpu").agg(pcie_width_lately=width.pcie_width.max(), pcie_poll_count=width.count())
    links = _last(window, policy.polls_min, "nvlink_active_count")
    yield links.group_by("gpu").agg(
        nvlink_active_lately=links.nvlink_active_count.max(), nvlink_poll_count=links.count()
    )
    fabric = _last(window, policy.polls_min, "fabric_health_bits")
    yield fabric.group_by("gpu").agg(fabric_bits=fabric.fabric_health_bits.bit_and(), fabric_poll_count=fabric.count())
    asked = _last(window, policy.flag_polls, "recovery_action")
    yield asked.group_by("gpu").agg(
        recovery_action=asked.recovery_action.max(), recovery_poll_count=asked.count(where=asked.recovery_action > 0)
    )
    for name in FLAGS:
        flag = _last(window, policy.flag_polls, name)
        yield flag.group_by("gpu").agg(**{name: flag.count(where=flag[name])})


def _last(window: ir.Table, count: int, name: str) -> ir.Table:
    """Return the last `count` polls of each GPU in which a column was measured."""
    known = _believable(window, name)
    return _last_rows(known.filter(known[name].notnull()), count)


def _last_rows(rows: ir.Table, count: int) -> ir.Table:
    numbered = rows.mutate(place=ibis.row_number().over(group_by="gpu", order_by=ibis.desc("ts")))
    return numbered.filter(numbered.place < count)


def _increase(window: ir.Table, name: str) -> ir.Table:
    """Return by how much a counter rose, over how many seconds; measured samples only, so that gaps lose nothing.

    A counter that went back was reset and counts from nought; one that is back where it was a poll later was misread.
    """
    measured = _believable(window, name)
    known = measured.filter(measured[name].notnull()).select("gpu", "ts", count=name)
    in_time = ibis.window(group_by=known.gpu, order_by=known.ts)
    lagged = known.mutate(before=known["count"].lag().over(in_time), earlier=known["count"].lag(2).over(in_time))
    count, before, earlier = lagged["count"], lagged.before, lagged.earlier
    rise = ibis.cases(
        (before.isnull(), 0),
        ((before < earlier) & (count >= earlier), count - earlier - before),  # what the misread poll had added goes
        (count >= before, count - before),
        else_=count,
    )
    span_s = lagged.ts.max().epoch_seconds() - lagged.ts.min().epoch_seconds()
    return lagged.group_by("gpu").agg(**{f"{name}_rise": rise.sum().cast("float64"), f"{name}_span_s": span_s})
