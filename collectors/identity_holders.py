"""Holders whose pods no API server told of: what exporters saw is all there is, from first to last sight."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

import polars as pl

from collectors.identity_facts import Device, Devices, Sighting
from collectors.identity_time import Claim

# Sightings of one holder this close together are one; a device seen this long after without the holder has lost it.
GAP = timedelta(minutes=10)


def over(holders: pl.DataFrame, gpus: pl.DataFrame) -> pl.DataFrame:
    """Return the open rows of `holder` that are over, with their end: the device was seen for `GAP` since without them.

    Who told of them may have forgotten that it did.
    """
    seen = gpus.select(gpu_uuid="uuid", device_seen_at="last_seen_at")
    last = pl.coalesce("last_seen_at", "starts_at")
    joined = holders.filter(pl.col("ends_at").is_null()).join(seen, on="gpu_uuid", how="inner")
    return joined.filter(pl.col("device_seen_at") - last > GAP).with_columns(ends_at=last).select(holders.columns)


def uid_of(row: Mapping[str, object]) -> str:
    """Return the UID that was told, else one that stands for the name: `cluster/namespace/pod`."""
    told = row["pod_uid"]
    return f"{row['cluster']}/{row['namespace']}/{row['pod']}" if told is None else str(told)


def without_pods(
    sightings: Iterable[Sighting], devices: Devices
) -> tuple[list[Claim], dict[str, Mapping[str, object]]]:
    """Return what was held as far as sightings tell, sharing evenly, and what is known of each holder by UID.

    An interval ends where it was seen to be over, or at the last sighting where the device was seen for `GAP` since
    without its holder; else it is open.
    """
    grouped: defaultdict[tuple[str, str | None, Device], list[Sighting]] = defaultdict(list)
    rows: dict[str, Mapping[str, object]] = {}
    for sighting in sightings:
        row = sighting.row
        uid = uid_of(row)
        rows.setdefault(uid, row)
        container = None if row["container"] is None else str(row["container"])
        grouped[uid, container, sighting.device].append(sighting)
    claims = []
    for (uid, container, device), seen in sorted(grouped.items(), key=str):
        part = devices.part(device)
        if part is not None and (container is not None or not _is_named(grouped, uid, device)):
            claims += [
                Claim((uid, container), device, part, None, start, end)
                for start, end in _intervals(seen, devices.seen_at(device))
            ]
    return claims, rows


def _is_named(grouped: Mapping[tuple[str, str | None, Device], object], uid: str, device: Device) -> bool:
    """Tell whether another teller names a container for this holder of this device."""
    return any(key[0] == uid and key[2] == device and key[1] is not None for key in grouped)


def _intervals(seen: Iterable[Sighting], device_seen_at: datetime | None) -> list[tuple[datetime, datetime | None]]:
    merged: list[tuple[datetime, datetime, datetime | None]] = []
    for each in sorted(seen, key=lambda one: (one.starts_at, one.last_at)):
        if merged and each.starts_at - merged[-1][1] <= GAP:
            start, last, end = merged[-1]
            is_later = each.last_at >= last
            merged[-1] = start, max(last, each.last_at), each.ends_at if is_later else end
        else:
            merged.append((each.starts_at, each.last_at, each.ends_at))
    spans: list[tuple[datetime, datetime | None]] = []
    for place, (start, last, end) in enumerate(merged):
        is_last = place == len(merged) - 1
        is_lost = device_seen_at is not None and device_seen_at - last > GAP
        spans.append((start, end or (None if is_last and not is_lost else last)))
    return spans
