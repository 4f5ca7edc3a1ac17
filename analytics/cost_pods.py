"""What each pod held of a stretch: its part of the GPU, scaled where more was given than there is, by activity."""

import polars as pl

from analytics.apportion import apportion
from analytics.cost_policy import LedgerPolicy
from fleet.fractions import mig_fraction

_MERGE_S = 3600
_NAMES = ("workspace", "namespace", "workload_kind", "workload", "pod")
_EPSILON = 1e-9


def mig_parts(devices: pl.DataFrame, policy: LedgerPolicy) -> pl.DataFrame:
    """Return `mig_devices` with the `part` of the GPU that each is, and until when it was there (null: still).

    A device whose profile tells nothing has a null part. Devices last told of in the same hour as the newest of
    their GPU are there still: a layout holds until another is told of.
    """
    named = devices.select("profile", "model", "memory_mib").unique()
    parts = [
        None if profile is None
        else mig_fraction(profile, model or "", basis=policy.mig_basis, memory_gib=_gib(memory_mib))
        for profile, model, memory_mib in named.iter_rows()
    ]  # fmt: skip
    named = named.with_columns(part=pl.Series(parts, dtype=pl.Float64()))
    newest = pl.col("last_seen_at").max().over("gpu")
    is_there = (newest - pl.col("last_seen_at") < pl.duration(seconds=_MERGE_S)).fill_null(value=True)
    told = devices.join(named, on=["profile", "model", "memory_mib"], how="left", nulls_equal=True)
    return told.select("slice", "gpu", "part", "first_seen_at", gone_at=pl.when(~is_there).then("last_seen_at"))


def _gib(memory_mib: int | None) -> float | None:
    return None if memory_mib is None else memory_mib / 1024


def cover(segments: pl.DataFrame, parts: pl.DataFrame) -> pl.DataFrame:
    """Return for each stretch of a GPU that is cut into MIG devices the sum of their parts: seg, covered."""
    cut = parts.filter(pl.col("part").is_not_null())
    met = segments.select("seg", "gpu", "starts_at", "ends_at").join(cut, on="gpu")
    began = pl.col("first_seen_at").is_null() | (pl.col("first_seen_at") < pl.col("ends_at"))
    lasts = pl.col("gone_at").is_null() | (pl.col("gone_at") > pl.col("starts_at"))
    return met.filter(began & lasts).group_by("seg").agg(covered=pl.col("part").sum())


def find_pods(rows: pl.DataFrame, segments: pl.DataFrame, parts: pl.DataFrame, policy: LedgerPolicy) -> pl.DataFrame:
    """Return one row a pod (and MIG device) and stretch, with `used`, `allocated_idle` and `unknown` microseconds.

    Columns: seg, row (of `rows`, for its names), slice, held and the three.
    """
    held = rows.with_row_index("row").filter(pl.col("pod_uid").is_not_null())
    held = held.join(segments.select("gpu", "starts_at", "seg", "capacity"), on=["gpu", "starts_at"])
    held = held.with_columns(
        from_us=_within("held_from"), until_us=_within("held_until"), part=_part(held, parts),
        **_shares(policy),
    ).filter(pl.col("from_us") < pl.col("until_us"), pl.col("part") > 0)  # fmt: skip
    held = held.sort("seg", "pod_uid", "slice", "from_us", "until_us", "part", nulls_last=True)
    asked = held.select(
        "seg", "row", "pod_uid", "slice", "capacity", "from_us", "until_us", "part", "known_share", "active_share"
    )
    is_shared = pl.col("part").sum().over("seg") > 1 + _EPSILON
    marked = asked.with_columns(is_shared=is_shared)
    alone = marked.filter(~pl.col("is_shared")).with_columns(wanted=_wanted())
    contested = _settle(marked.filter("is_shared"))
    both = pl.concat([alone.select(contested.columns), contested])
    return _by_activity(_once_a_pod(both, rows))


def _within(column: str) -> pl.Expr:
    """Return the microseconds from the stretch's start to a moment, cut to the stretch."""
    inside = pl.col(column).clip(pl.col("starts_at"), pl.col("ends_at"))
    return (inside - pl.col("starts_at")).dt.total_microseconds()


def _wanted() -> pl.Expr:
    return ((pl.col("until_us") - pl.col("from_us")) * pl.col("part")).round().cast(pl.Int64)


def _part(held: pl.DataFrame, parts: pl.DataFrame) -> pl.Series:
    """Return the part of the GPU of each row: of its MIG device where that is known, else as it was recorded."""
    known = held.select("slice", "fraction").join(
        parts.select("slice", "part").drop_nulls().unique("slice"), on="slice", how="left", maintain_order="left"
    )
    return known.select(pl.coalesce("part", "fraction").clip(upper_bound=1.0)).to_series()


def _shares(policy: LedgerPolicy) -> dict[str, pl.Expr]:
    """Return which share of the hour is known, and which of that was active, by the samples there were."""
    interval_s = pl.lit(policy.interval_s) if policy.interval_s is not None else pl.col("interval_s")
    known_count = pl.col("known_count").fill_null(0)  # no row in the roll-up: no sample was known
    hour_s = (pl.col("hour_ends_at") - pl.col("hour_at")).dt.total_microseconds() / 1e6
    expected = (hour_s / interval_s).floor().clip(lower_bound=1)
    share = (known_count / expected).fill_null(0.0)  # where nothing was expected nothing is known
    share = pl.when(known_count <= 0).then(0.0).when(share >= policy.coverage_min).then(1.0).otherwise(share)
    active = pl.when(known_count > 0).then(pl.col("active_count").fill_null(0) / known_count)  # as above
    return {"known_share": share, "active_share": active.otherwise(0.0).clip(0.0, 1.0)}


def activity_of_nobody(rows: pl.DataFrame, policy: LedgerPolicy) -> pl.DataFrame:
    """Return gpu, starts_at and the `active_share` of stretches that nobody held."""
    free = rows.filter(pl.col("pod_uid").is_null() & (pl.col("active_count") > 0))
    shares = _shares(policy)
    active = shares["known_share"] * shares["active_share"]
    return free.select("gpu", "starts_at", active_share=active)


def _settle(asked: pl.DataFrame) -> pl.DataFrame:
    """Return contested stretches with what each row gets: cut where any pod begins or ends, scaled to the whole GPU."""
    edges = pl.concat([asked.select("seg", at="from_us"), asked.select("seg", at="until_us")]).unique()
    edges = edges.sort("seg", "at").with_columns(next_at=pl.col("at").shift(-1).over("seg")).drop_nulls("next_at")
    met = asked.join(edges, on="seg").filter(
        (pl.col("at") >= pl.col("from_us")) & (pl.col("next_at") <= pl.col("until_us"))
    )
    met = met.with_columns(from_us=pl.col("at"), until_us=pl.col("next_at"))
    met = met.with_columns(piece=pl.struct("seg", "at").rank("dense"), wanted=_wanted())
    met = met.sort("seg", "pod_uid", "slice", "at", "row", nulls_last=True)
    room = pl.col("until_us") - pl.col("from_us")
    met = met.with_columns(granted=pl.min_horizontal(pl.col("wanted").sum().over("piece"), room))
    names = ["seg", "pod_uid", "slice", "row", "capacity", "known_share", "active_share"]
    parted = apportion(met, ["piece"], "granted", "wanted", "got")
    return parted.select(*names, wanted=pl.col("got").fill_null(0))  # wanted nothing, got nothing


def _once_a_pod(pods: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Return one row a stretch, pod and MIG device, never more than the stretch holds."""
    keys = ["seg", "pod_uid", "slice"]
    again = pods.select(pl.struct(keys).is_duplicated()).to_series()
    if again.any():
        several = pods.filter(again)
        names = rows.select(_NAMES)[several.get_column("row")]
        # Which row gives the names must not depend on the order that rows came in.
        several = several.hstack(names).sort(*keys, *_NAMES, nulls_last=True)
        summed = several.group_by(keys, maintain_order=True).agg(
            pl.col("row", "capacity").first(), pl.col("known_share", "active_share").max(), pl.col("wanted").sum()
        )
        pods = pl.concat([pods.filter(~again), summed.select(pods.columns)])
    pods = pods.filter(pl.col("wanted") > 0).sort(keys, nulls_last=True)
    over = pods.group_by("seg").agg(asked=pl.col("wanted").sum(), room=pl.col("capacity").first())
    over = over.filter(pl.col("asked") > pl.col("room")).select("seg", "room")
    pods = pods.with_columns(held=pl.col("wanted"))
    if over.is_empty():
        return pods
    rounded = apportion(pods.join(over, on="seg", maintain_order="left"), ["seg"], "room", "wanted", "held")
    fitting = pods.join(over, on="seg", how="anti")
    return pl.concat([fitting, rounded.select(fitting.columns)]).sort(keys, nulls_last=True)


def _by_activity(pods: pl.DataFrame) -> pl.DataFrame:
    """Part what each pod held by the samples there were: unknown what none tells of, used what the active ones do."""
    known = pods.with_columns(known=(pl.col("held") * pl.col("known_share")).round().cast(pl.Int64))
    used = known.with_columns(used=(pl.col("known") * pl.col("active_share")).round().cast(pl.Int64))
    return used.with_columns(
        allocated_idle=pl.col("known") - pl.col("used"), unknown=pl.col("held") - pl.col("known")
    ).drop("wanted", "known", "known_share", "active_share")
