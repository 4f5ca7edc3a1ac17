"""Read the events of health: each once, with its workloads; XIDs that are alike are summed up, there may be many."""

from datetime import timedelta

import polars as pl

from analytics.health_policy import HealthPolicy
from analytics.health_values import Event

READ_ONE_BY_ONE = (74, *range(144, 151), 154, 162, 163)
"""XIDs whose words or exact order decide something."""

_PLACES = {13: r"GPC \d{1,3}, TPC \d{1,3}", 31: r"GPC ?\d{1,3}\b.{0,40}?\bGPCCLIENT_\w{1,20}"}
"""Where on the chip a program's error was, as its lines name it."""

_WHO = ["cluster", "node", "gpu_uuid", "kind", "code", "slice_uuid", "gpu_instance"]
_SAME = timedelta(seconds=2)
_ALL_OVER = ""


def read_events(frame: pl.DataFrame, policy: HealthPolicy) -> list[Event]:
    """Return the events in order of time, each once with all workloads that were on its GPU.

    What two sources told of one GPU within two seconds is one event with both their words. Other XIDs than
    `READ_ONE_BY_ONE` are summed up, those after a reset or boot apart from those before: by code, and the programs'
    errors that name one by their place on the chip.
    """
    is_alike = ((pl.col("kind") == "xid") & ~pl.col("code").is_in(READ_ONE_BY_ONE)).fill_null(value=False)
    is_placed = pl.col("code").is_in(list(_PLACES))
    alike = _with_cures(frame.filter(is_alike), frame)
    parts = [
        frame.filter(~is_alike).group_by("ts", "message", *_WHO).agg(_workloads()),
        _summed(alike.filter(~is_placed), _WHO),
        _summed(_placed(alike.filter(is_placed), policy), [*_WHO, "place"]),
    ]
    both = pl.concat(parts, how="diagonal_relaxed").sort("ts", *_WHO, "message", nulls_last=True)
    return _each_once(both)


def _workloads() -> pl.Expr:
    return pl.col("workload").drop_nulls().unique().sort()


def _with_cures(alike: pl.DataFrame, frame: pl.DataFrame) -> pl.DataFrame:
    """Add whether each came after the last boot of its node and the last reset of its GPU."""
    boots = frame.filter(pl.col("kind") == "boot").group_by("cluster", "node").agg(boot_at=pl.col("ts").max())
    resets = frame.filter(pl.col("kind") == "gpu_reset").group_by("gpu_uuid").agg(reset_at=pl.col("ts").max())
    cured = alike.join(boots, on=["cluster", "node"], how="left").join(resets, on="gpu_uuid", how="left")
    return cured.with_columns(
        is_after_boot=(pl.col("ts") > pl.col("boot_at")).fill_null(value=True),
        is_after_reset=(pl.col("ts") > pl.col("reset_at")).fill_null(value=True),
    )


def _placed(alike: pl.DataFrame, policy: HealthPolicy) -> pl.DataFrame:
    """Return a row for each place an error named, with the burst it came in; more places than a few are all over."""
    ordered = alike.sort(*_WHO, "ts", nulls_last=True)
    is_new = (pl.col("ts").diff().over(_WHO) > timedelta(seconds=policy.burst_s)).fill_null(value=True)
    bursts = ordered.with_columns(
        burst=is_new.cast(pl.Int64).cum_sum().over(_WHO),
        place=pl.coalesce(
            pl.when(pl.col("code") == code).then(pl.col("message").fill_null("").str.extract_all(pattern))
            for code, pattern in _PLACES.items()
        ),
    ).explode("place", empty_as_null=True)
    places = bursts.with_columns(places=pl.col("place").drop_nulls().n_unique().over([*_WHO, "burst"]))
    # A burst that names a place says nothing by those of its lines that name none.
    named = places.filter(pl.col("place").is_not_null() | (pl.col("places") == 0))
    is_all_over = pl.col("places") > policy.places_max
    return named.with_columns(place=pl.when(is_all_over).then(pl.lit(_ALL_OVER)).otherwise("place"))


def _summed(alike: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    named = "place" in keys
    return (
        alike.group_by(*keys, "is_after_boot", "is_after_reset")
        .agg(
            _workloads(),
            count=(pl.col("ts").sort().diff() > _SAME).sum() + 1,
            bursts=pl.col("burst").n_unique() if named else pl.lit(1),
            last_at=pl.col("ts").max(),
            message=pl.col("message").sort_by("ts").last(),
            ts=pl.col("ts").min(),
        )
        .drop("is_after_boot", "is_after_reset")
    )


def _each_once(frame: pl.DataFrame) -> list[Event]:
    names = ["ts", *_WHO[:5], "message", *_WHO[5:], "workload", "count", "last_at", "place", "bursts"]
    found: list[Event] = []
    last: dict[tuple[object, ...], int] = {}
    for (
        ts, cluster, node, uuid, kind, code, message, slice_uuid, instance, held, count, last_at, place, bursts
    ) in frame.select(names).iter_rows():  # fmt: skip
        event = Event(
            ts, cluster, node, uuid, kind, code, message, slice_uuid, instance, frozenset(held),
            1 if count is None else count, last_at, place or None, 0 if place == _ALL_OVER else bursts or 1,
        )  # fmt: skip
        key = (cluster, uuid, kind, code, slice_uuid, instance)
        before = last.get(key) if uuid is not None and last_at is None else None
        if before is not None and ts - found[before].until <= _SAME:
            found[before] = _joined(found[before], event)
            continue
        if last_at is None:
            last[key] = len(found)
        found.append(event)
    return found


def _joined(one: Event, other: Event) -> Event:
    words = [each.message for each in (one, other) if each.message is not None]
    message = "\n".join(dict.fromkeys(words)) if words else None
    return Event(
        one.ts, one.cluster, one.node, one.gpu_uuid, one.kind, one.code, message, one.slice_uuid, one.gpu_instance,
        one.workloads | other.workloads, one.count, other.until,
    )  # fmt: skip
