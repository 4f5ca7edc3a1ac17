"""Ask for what happened to each GPU over weeks: faults and repairs, the record that states and risks rest on."""

from datetime import datetime, timedelta

import ibis
import ibis.expr.types as ir
import polars as pl

from analytics.activity import Tables
from analytics.failure_risk import EXPOSURE, FAULTS
from analytics.health_events import READ_ONE_BY_ONE
from analytics.health_signals import pci_address, with_address_uuid
from analytics.xid import FOLLOW_MESSAGE, XidOverride, catalogue, decode
from fleet.verdict import Severity

REPAIRS = ("gpu_reset", "boot", "gpu_recovered")
TROUBLES = (
    "gpu_lost", "probe_hang", "ecc_double_bit", "dram_retirement_failed", "poison_fatal", "gpu_unavailable",
)  # fmt: skip
"""Event kinds beside XIDs that are a fault by themselves."""
_BURST_S = 60


def consequential_codes(overrides: tuple[XidOverride, ...] = ()) -> tuple[int, ...]:
    """Return the XIDs that call for more than an application's restart, and those whose message decides.

    A code that a site's `overrides` change is among them whatever it asks for: the decoding decides.
    """
    heavy = {"reset_gpu", "reboot_node", "drain", "inspect", "run_diagnostics", "replace_gpu"}
    known = {
        code
        for code, xid in catalogue().items()
        if xid.action == FOLLOW_MESSAGE
        or code in READ_ONE_BY_ONE
        or (xid.action in heavy and xid.severity == Severity.CRITICAL)
    }
    return tuple(sorted(known | {each.code for each in overrides}))


def history_events(tables: Tables, now: datetime, days: float, overrides: tuple[XidOverride, ...] = ()) -> ir.Table:
    """Return faults and repairs of the last `days`: when, where, on what, kind, code, message and count.

    A GPU is found by its uuid, by its slice's, or by its PCI address on the node. What one GPU says again within the
    same minute is one row with its count; what asks for nothing is left out.
    """
    events = tables["event"]
    codes = consequential_codes(overrides)
    wanted = events.kind.isin((*REPAIRS, *TROUBLES)) | ((events.kind == "xid") & events.code.isin(codes))
    recent = events.filter(events.ts >= now - timedelta(days=days), events.ts <= now, wanted)
    gpus = tables["gpu"]
    slices = (
        tables["slice"].join(gpus.select("gpu", parent_uuid="uuid"), "gpu").select("parent_uuid", slice_uuid="uuid")
    )
    told = recent.mutate(address=pci_address(recent.pci_bus_id), minute=recent.ts.epoch_seconds() // _BURST_S)
    told = told.left_join(slices, "slice_uuid").drop("slice_uuid_right")
    told = with_address_uuid(told, gpus)
    told = told.mutate(found_uuid=ibis.coalesce(told.gpu_uuid, told.parent_uuid, told.address_uuid))
    return (
        told.group_by("cluster", "node", "found_uuid", "slice_uuid", "kind", "code", "minute")
        .agg(ts=told.ts.min(), message=told.message.argmin(told.ts), count=told.count())
        .select("ts", "cluster", "node", "slice_uuid", "kind", "code", "message", "count", gpu_uuid="found_uuid")
    )


def service(tables: Tables) -> ir.Table:
    """Return since when, and until when as far as is known, each GPU could be watched: uuid, place, driver, times."""
    gpus = tables["gpu"]
    return gpus.select("uuid", "cluster", "node", "driver", "first_seen_at", "last_seen_at")


def slices_now(tables: Tables, now: datetime, forget_s: float) -> ir.Table:
    """Return the MIG devices there are, uuid and parent_uuid: those seen lately, or carved by sources without times."""
    slices = tables["slice"]
    seen = slices.last_seen_at
    there = slices.filter(seen.isnull() | (seen >= now - timedelta(seconds=forget_s)))
    return there.join(tables["gpu"].select("gpu", parent_uuid="uuid"), "gpu").select("uuid", "parent_uuid")


def gpu_faults(events: pl.DataFrame, overrides: tuple[XidOverride, ...] = ()) -> pl.DataFrame:
    """Return the faults of GPUs in the form that risk is learnt from; the kind is the event's, with its code."""
    told = _faulty(events, overrides).filter(pl.col("gpu_uuid").is_not_null())
    return told.select(subject="gpu_uuid", ts="ts", kind=_kind()).cast(pl.Schema(FAULTS)).sort("subject", "ts")


def node_faults(events: pl.DataFrame, overrides: tuple[XidOverride, ...] = ()) -> pl.DataFrame:
    """Return the faults of nodes: those of any of their GPUs, and those that name none."""
    told = _faulty(events, overrides)
    subject = pl.format("{}/{}", "cluster", "node")
    return told.select(subject=subject, ts="ts", kind=_kind()).cast(pl.Schema(FAULTS)).sort("subject", "ts")


def gpu_exposure(gpus: pl.DataFrame, gone_before: datetime) -> pl.DataFrame:
    """Return how long each GPU of `service` was watched; one last seen before `gone_before` has left."""
    left = pl.when(pl.col("last_seen_at") < gone_before).then("last_seen_at")
    known = gpus.filter(pl.col("first_seen_at").is_not_null())
    return known.select(subject="uuid", since="first_seen_at", until=left).cast(pl.Schema(EXPOSURE))


def node_exposure(gpus: pl.DataFrame, gone_before: datetime) -> pl.DataFrame:
    """Return how long each node was watched: from the first of its GPUs to the last."""
    nodes = gpus.group_by("cluster", "node").agg(pl.col("first_seen_at").min(), pl.col("last_seen_at").max())
    named = nodes.select("first_seen_at", "last_seen_at", uuid=pl.format("{}/{}", "cluster", "node"))
    return gpu_exposure(named, gone_before)


def _faulty(events: pl.DataFrame, overrides: tuple[XidOverride, ...]) -> pl.DataFrame:
    """Return the rows that are a fault: kinds that are one by themselves, and XIDs that ask for a reset or more."""
    is_fault = [
        _is_fault(kind, code, message, overrides)
        for kind, code, message in events.select("kind", "code", "message").iter_rows()
    ]
    return events.filter(pl.Series(is_fault, dtype=pl.Boolean))


def _is_fault(kind: str, code: int | None, message: str | None, overrides: tuple[XidOverride, ...]) -> bool:
    if kind != "xid" or code is None:
        return kind in TROUBLES
    xid = decode(code, message, None, overrides)
    return xid.severity == Severity.CRITICAL and xid.action not in {"none", "restart_application", "update_software"}


def _kind() -> pl.Expr:
    return pl.when(pl.col("code").is_null()).then("kind").otherwise(pl.format("{}_{}", "kind", "code"))
