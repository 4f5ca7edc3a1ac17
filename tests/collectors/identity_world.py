"""Builders for the identity join: nodes, GPUs, MIG devices, pods and sightings, in few words."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import polars as pl

from collectors.identity import Joined, Told, join
from fleet.frames import Table
from fleet.tables import GPU, HOLDER, NODE, POD, POD_ALLOCATION, SLICE, WORKSPACE_MEMBER

DAY = datetime(2026, 5, 4, tzinfo=UTC)
LATER = DAY + timedelta(days=1)
Row = dict[str, object]


def at(clock: str) -> datetime:
    """Return a time of the day: "10:00" or "10:00:30"."""
    parts = [int(part) for part in clock.split(":")]
    return DAY + timedelta(**dict(zip(("hours", "minutes", "seconds"), parts, strict=False)))


def gpu(key: int, uuid: str, node: str = "n1", **more: object) -> Row:
    return {
        "gpu": key, "uuid": uuid, "cluster": "c", "node": node, "gpu_index": key, "model": "NVIDIA A100-SXM4-40GB",
        "last_seen_at": at("23:00"), **more,
    }  # fmt: skip


def slice_(key: int, uuid: str, parent: int, instance: int, profile: str, **more: object) -> Row:
    return {"slice": key, "uuid": uuid, "gpu": parent, "gpu_instance": instance, "profile": profile, **more}


def node(name: str, gpus: int | None, labels: Mapping[str, str] | None = None, **capacity: float) -> Row:
    full = {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB", **(labels or {})}
    resources = {f"nvidia.com/{resource.replace('_', '-').replace('--', '.')}": n for resource, n in capacity.items()}
    return {
        "cluster": "c", "node": name, "gpus": gpus, "labels": json.dumps(full), "capacity": json.dumps(resources),
    }  # fmt: skip


def pod(
    name: str, starts: str, ends: str | None = None, asks: Mapping[str, float | None] | None = None, **more: object
) -> Row:
    uid = str(more.pop("uid", f"uid-{name}"))
    return {
        "cluster": "c", "namespace": "ml", "pod": name, "pod_uid": uid, "node": "n1", "workload_kind": "Job",
        "workload": name, "workspace": "red", "created_at": at(starts), "starts_at": at(starts),
        "ends_at": None if ends is None else at(ends),
        "resources": json.dumps(asks or {"nvidia.com/gpu": 1}), **more,
    }  # fmt: skip


def seen(name: str, device: str, starts: str, last: str, **more: object) -> Row:
    return {
        "cluster": "c", "node": "n1", "gpu_uuid": device, "namespace": "ml", "pod": name, "source": "prometheus",
        "starts_at": at(starts), "last_seen_at": at(last), **more,
    }  # fmt: skip


def told(**rows: list[Row]) -> Told:
    def frame(name: str, table: Table) -> pl.DataFrame:
        return pl.DataFrame(rows.get(name, []), schema=table.schema())

    return Told(
        frame("pods", POD),
        frame("holders", HOLDER),
        frame("gpus", GPU),
        frame("slices", SLICE),
        frame("nodes", NODE),
        frame("members", WORKSPACE_MEMBER),
        pl.DataFrame(rows.get("allocations", []), schema=POD_ALLOCATION.schema("wire")),
    )


def held(joined: Joined) -> list[tuple[object, ...]]:
    """Return who held what: UID, GPU, MIG device, fraction, start and end, as text where they are times."""
    columns = ("pod_uid", "gpu_uuid", "slice_uuid", "fraction", "starts_at", "ends_at")
    return [
        (uid, gpu_uuid, slice_uuid, round(fraction, 9), _clock(start), _clock(end))
        for uid, gpu_uuid, slice_uuid, fraction, start, end in joined.allocations.select(columns).iter_rows()
    ]


def joined(**rows: list[Row]) -> list[tuple[object, ...]]:
    return held(join(told(**rows), LATER))


def _clock(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment:%H:%M:%S}".removesuffix(":00")
