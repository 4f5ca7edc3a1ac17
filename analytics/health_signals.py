"""Ask for each GPU's signs of health, and for the events of the last day: the heavy half of the topic `health`."""

from datetime import datetime, timedelta

import ibis
import ibis.expr.types as ir

from analytics.activity import Tables
from analytics.health_policy import HealthPolicy

FLAGS = (
    "is_remap_pending", "is_remap_failed", "is_sram_threshold_exceeded", "is_page_retirement_pending",
)  # fmt: skip
COUNTERS = ("ecc_corrected_count", "ecc_uncorrected_count")
_PCI_ADDRESS = r"([0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2})"


def health_signals(tables: Tables, now: datetime, policy: HealthPolicy) -> ir.Table:
    """Return what `judge_health` reads: one row for each GPU there is, null where nothing was measured.

    Reads gpu, gpu_sample, gpu_hour. Flags are counted over the last `flag_polls` samples, clocks and link width
    over the last `polls`; counters are summed as increases over the window, a counter that went back having been
    reset.
    """
    samples = tables["gpu_sample"]
    look_back = samples.filter(samples.ts >= now - timedelta(seconds=policy.look_back_s), samples.ts < now)
    window = look_back.filter(look_back.ts >= now - timedelta(seconds=policy.window_s))
    gpus = tables["gpu"]
    joined = gpus.select("gpu", "uuid", "cluster", "node", pci_address=pci_address(gpus.pci_bus_id))
    for part in (
        _history(look_back),
        _hours(tables["gpu_hour"], now),
        _last_polls(window, policy),
        *(_increase(window, name) for name in COUNTERS),
    ):
        joined = joined.left_join(part, "gpu").drop("gpu_right")
    return joined.mutate(last_sample_at=ibis.coalesce(joined.last_sample_at, joined.last_hour_end_at)).drop(
        "gpu", "last_hour_end_at"
    )


def health_events(tables: Tables, now: datetime, policy: HealthPolicy) -> ir.Table:
    """Return the events of the look-back, each with its GPU where that can be found and the workloads on it.

    A GPU is found by its uuid, by its slice's uuid, or by its PCI address on the node. An event on a GPU that
    several pods shared comes once for each of their workloads.
    """
    events = tables["event"]
    recent = events.filter(events.ts >= now - timedelta(seconds=policy.look_back_s), events.ts <= now)
    gpus = tables["gpu"].select("gpu", "uuid", "cluster", "node", address=pci_address(tables["gpu"].pci_bus_id))
    slices = tables["slice"].join(gpus, "gpu").select(slice_uuid="uuid", parent_uuid="uuid_right")
    told = recent.mutate(address=pci_address(recent.pci_bus_id))
    told = told.left_join(slices, "slice_uuid").drop("slice_uuid_right")
    by_address = gpus.filter(gpus.address.notnull()).select("cluster", "node", "address", address_uuid="uuid")
    told = told.left_join(by_address, ["cluster", "node", "address"])
    told = told.mutate(found_uuid=ibis.coalesce(told.gpu_uuid, told.parent_uuid, told.address_uuid))
    found = told.select("ts", "cluster", "node", "kind", "code", "message", gpu_uuid="found_uuid")
    keyed = found.left_join(gpus.select("uuid", "gpu"), found.gpu_uuid == gpus.uuid).drop("uuid")
    pods = tables["pod_allocation"].select(
        "gpu", "starts_at", "ends_at", "namespace", "pod", held_by=tables["pod_allocation"].workload
    )
    on_gpu = (
        (keyed.gpu == pods.gpu) & (pods.starts_at <= keyed.ts) & (pods.ends_at.isnull() | (pods.ends_at > keyed.ts))
    )
    held = keyed.left_join(pods, on_gpu)
    workload = held.namespace + "/" + ibis.coalesce(held.held_by, held.pod)
    return held.select("ts", "cluster", "node", "gpu_uuid", "kind", "code", "message", workload=workload).distinct()


def pci_address(written: ir.StringValue) -> ir.StringValue:
    """Return domain:bus:device in lower case from any way of writing it; null where there is none in it."""
    return written.lower().re_extract(_PCI_ADDRESS, 1).nullif("")


def _history(look_back: ir.Table) -> ir.Table:
    told = look_back.group_by("gpu").agg(
        last_sample_at=look_back.ts.max(),
        first_sample_at=look_back.ts.min(),
        sample_count=look_back.count(),
        pcie_width_history=look_back.pcie_width.max(),
    )
    span_s = told.last_sample_at.epoch_seconds() - told.first_sample_at.epoch_seconds()
    return told.select(
        "gpu", "last_sample_at", "pcie_width_history", interval_s=span_s / (told.sample_count - 1).nullif(0)
    )


def _hours(gpu_hour: ir.Table, now: datetime) -> ir.Table:
    """Return when a GPU was last heard of before the look-back, so that one lost for days stays lost."""
    recent = gpu_hour.filter(gpu_hour.hour_at >= now - timedelta(days=7), gpu_hour.hour_at < now - timedelta(hours=1))
    return recent.group_by("gpu").agg(last_hour_end_at=(recent.hour_at + ibis.interval(hours=1)).max())


def _last_polls(window: ir.Table, policy: HealthPolicy) -> ir.Table:
    order = ibis.window(group_by="gpu", order_by=ibis.desc("ts"))
    window = window.select("gpu", "ts", "clock_event_bits", "pcie_width", "recovery_action", *FLAGS)
    numbered = window.mutate(place=ibis.row_number().over(order))
    last = numbered.filter(numbered.place < policy.polls)
    is_flag_poll = last.place < policy.flag_polls
    is_slow = (last.clock_event_bits & policy.slowdown_bits) != 0
    flags = {name: last.count(where=is_flag_poll & last[name]) for name in FLAGS}
    return last.group_by("gpu").agg(
        poll_count=last.count(),
        slow_poll_count=last.count(where=is_slow),
        slow_bits=last.clock_event_bits.bit_or(where=is_slow),
        slow_since=last.ts.min(where=is_slow),
        pcie_width_lately=last.pcie_width.max(),
        pcie_poll_count=last.pcie_width.count(),
        recovery_action=last.recovery_action.max(where=is_flag_poll),
        recovery_poll_count=last.count(where=is_flag_poll & (last.recovery_action > 0)),
        **flags,
    )


def _increase(window: ir.Table, name: str) -> ir.Table:
    """Return by how much a counter rose, over how many seconds; measured samples only, so that gaps lose nothing."""
    known = window.filter(window[name].notnull()).select("gpu", "ts", count=name)
    lagged = known.mutate(before=known["count"].lag().over(group_by=known.gpu, order_by=known.ts))
    count, before = lagged["count"], lagged.before
    rise = ibis.ifelse(before.isnull(), 0, ibis.ifelse(count >= before, count - before, count))
    span_s = lagged.ts.max().epoch_seconds() - lagged.ts.min().epoch_seconds()
    return lagged.group_by("gpu").agg(**{f"{name}_rise": rise.sum().cast("float64"), f"{name}_span_s": span_s})
