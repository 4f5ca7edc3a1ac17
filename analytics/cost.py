"""Keep the ledger: every GPU-second and every dollar in one category, and the parts sum to the whole.

Of a GPU's hour, what pods held is `used` (the share of samples that were active), `allocated_idle` or, where
samples are missing, `unknown`; the rest is `unallocated`. Of all that was not used, the time a verdict called the
GPU failed is `unhealthy` instead, and nobody's. Everything is counted in whole microseconds and micro-dollars.

Resolution is the clock hour: two pods that held one GPU at the same time in an hour that was otherwise free fill
the free part first, and are scaled down only beyond the whole hour.
"""

from collections.abc import Sequence
from datetime import datetime

import polars as pl

from analytics.apportion import apportion
from analytics.cost_hours import LedgerPolicy
from analytics.prices import with_rates
from fleet.errors import BadInput
from fleet.frames import MONEY, UTC_MICROSECONDS, check
from fleet.tables import COST_LINE

CATEGORIES = ("used", "allocated_idle", "unallocated", "unhealthy", "unknown")
MICROSECONDS_PER_HOUR = 3_600_000_000
_WIDE = pl.Int128()
_HOUR_OF_GPU = ("gpu", "starts_at")
_HELD = ("used", "allocated_idle", "unknown")
_LINE = ("gpu", "starts_at", "pod_uid", "category")


def ledger(hours: pl.DataFrame, prices: pl.DataFrame, unhealthy: pl.DataFrame, policy: LedgerPolicy) -> pl.DataFrame:
    """Return the rows of `ledger_hours` as cost lines.

    `prices` is the table `price`, `unhealthy` has gpu_uuid, starts_at, ends_at (see `unhealthy_intervals`). The
    seconds of a GPU sum to the time it was there; its dollars to rate times time, rounded once per GPU and rate; a
    GPU without price has null dollars in every line, never zero.
    """
    segments = _segments(hours, prices, unhealthy)
    pods = _pods(hours, segments, policy)
    lines = pl.concat([_held_lines(pods, segments), _free_lines(pods, segments)], how="diagonal")
    lines = lines.filter(pl.col("us") > 0).sort(_LINE, nulls_last=True)
    lines = lines.join(segments.select(*_HOUR_OF_GPU, "ends_at", "cluster", "rate", "bill"), on=_HOUR_OF_GPU)
    lines = apportion(lines.sort(_LINE, nulls_last=True), _HOUR_OF_GPU, "bill", "us", "micro_usd")
    return check(
        lines.select(
            "gpu", "starts_at", "ends_at", "cluster", "workspace", "namespace", "workload", "pod_uid", "category",
            gpu_seconds=pl.col("us") / 1e6, usd_per_gpu_hour=_dollars("rate"), cost_usd=_dollars("micro_usd"),
        ),
        COST_LINE,
    )  # fmt: skip


def _segments(hours: pl.DataFrame, prices: pl.DataFrame, unhealthy: pl.DataFrame) -> pl.DataFrame:
    """Return one row a GPU and hour: its length, how long it was unhealthy, its rate and its bill."""
    columns = ["uuid", "cluster", "model", "capacity_type", "region", "ends_at", "interval_s"]
    segments = hours.select(*_HOUR_OF_GPU, *columns).unique(_HOUR_OF_GPU).sort(_HOUR_OF_GPU)
    segments = segments.with_columns(capacity=(pl.col("ends_at") - pl.col("starts_at")).dt.total_microseconds())
    segments = with_rates(segments, prices, "starts_at")
    segments = segments.with_columns(rate=(pl.col("usd_per_gpu_hour") * 1_000_000).cast(pl.Int64))
    segments = segments.join(_unhealthy_time(segments, unhealthy), on=_HOUR_OF_GPU, how="left")
    return _billed(segments.with_columns(pl.col("unhealthy").fill_null(0)))  # no interval there: no such time


def _billed(segments: pl.DataFrame) -> pl.DataFrame:
    """Add `bill` in micro-dollars: the rounded bill up to the hour's end less that up to its start.

    So hours sum to the bill of the whole time, rounded once.
    """
    by_rate = ["gpu", "rate"]
    ordered = segments.sort(_HOUR_OF_GPU).with_columns(until=pl.col("capacity").cum_sum().over(by_rate))
    return ordered.with_columns(
        bill=_rounded_bill(pl.col("until")) - _rounded_bill(pl.col("until") - pl.col("capacity"))
    ).drop("until")


def _rounded_bill(microseconds: pl.Expr) -> pl.Expr:
    doubled = pl.col("rate").cast(_WIDE) * microseconds.cast(_WIDE) * 2
    return (doubled + MICROSECONDS_PER_HOUR) // (2 * MICROSECONDS_PER_HOUR)


def _unhealthy_time(segments: pl.DataFrame, unhealthy: pl.DataFrame) -> pl.DataFrame:
    bad = _merged(unhealthy.select("gpu_uuid", bad_from="starts_at", bad_until="ends_at"))
    met = segments.select(*_HOUR_OF_GPU, "uuid", "ends_at").join(bad, left_on="uuid", right_on="gpu_uuid")
    met = met.filter((pl.col("bad_from") < pl.col("ends_at")) & (pl.col("bad_until") > pl.col("starts_at")))
    overlap = pl.min_horizontal("bad_until", "ends_at") - pl.max_horizontal("bad_from", "starts_at")
    return met.group_by(_HOUR_OF_GPU).agg(unhealthy=overlap.dt.total_microseconds().sum())


def _merged(intervals: pl.DataFrame) -> pl.DataFrame:
    """Return intervals with overlapping ones of one GPU joined."""
    ordered = intervals.filter(pl.col("bad_from") < pl.col("bad_until")).sort("gpu_uuid", "bad_from", "bad_until")
    reached = pl.col("bad_until").cum_max().shift().over("gpu_uuid")
    island = (reached.is_null() | (pl.col("bad_from") > reached)).cum_sum().over("gpu_uuid")
    grouped = ordered.with_columns(island=island).group_by("gpu_uuid", "island")
    return grouped.agg(pl.col("bad_from").min(), pl.col("bad_until").max()).drop("island")


def _pods(hours: pl.DataFrame, segments: pl.DataFrame, policy: LedgerPolicy) -> pl.DataFrame:
    """Return one row a pod, slice, GPU and hour with `used`, `allocated_idle` and `unknown` microseconds."""
    held_time = (pl.col("held_until") - pl.col("held_from")).dt.total_microseconds().clip(lower_bound=0)
    by_pod = [*_HOUR_OF_GPU, "pod_uid", "slice"]
    pods = (
        hours.filter(pl.col("pod_uid").is_not_null())
        .with_columns(wanted=(held_time * pl.col("fraction")).round().cast(pl.Int64))
        .group_by(by_pod)
        .agg(
            pl.col("wanted").sum(),
            pl.col("workspace", "namespace", "workload_kind", "workload", "pod").sort().first(),
            pl.col("known_count", "active_count").max(),
        )
        .filter(pl.col("wanted") > 0)
        .sort(by_pod, nulls_last=True)
        .join(segments.select(*_HOUR_OF_GPU, "capacity", "interval_s", "unhealthy"), on=_HOUR_OF_GPU)
        .sort(by_pod, nulls_last=True)
    )
    asked = pl.col("wanted").sum().over(_HOUR_OF_GPU)
    pods = pods.with_columns(granted=pl.min_horizontal(asked, "capacity"))
    return _by_activity(apportion(pods, _HOUR_OF_GPU, "granted", "wanted", "held"), policy)


def _by_activity(pods: pl.DataFrame, policy: LedgerPolicy) -> pl.DataFrame:
    """Part what each pod held by the samples there were: unknown what none tells of, used what the active ones do."""
    interval_s = pl.lit(policy.interval_s) if policy.interval_s is not None else pl.col("interval_s")
    known_count = pl.col("known_count").fill_null(0)  # no row in the roll-up: no sample was known
    expected = (pl.col("capacity") / 1e6 / interval_s).floor().clip(lower_bound=1)
    share = (known_count / expected).fill_null(0.0)  # where nothing was expected nothing is known
    share = pl.when(share >= policy.coverage_min).then(1.0).otherwise(share)
    known = (pl.col("held") * share).round().cast(pl.Int64)
    pods = pods.with_columns(known=pl.when(known_count > 0).then(known).otherwise(0))
    active_share = pl.when(known_count > 0).then(pl.col("active_count") / known_count).otherwise(0.0)
    used = (pl.col("known") * active_share).round().cast(pl.Int64)
    return pods.with_columns(used=used).with_columns(
        allocated_idle=pl.col("known") - pl.col("used"), unknown=pl.col("held") - pl.col("known")
    )


def _healthy_part(column: str) -> pl.Expr:
    """Return what is left of a category when the hour's unhealthy share is taken out of it."""
    left = pl.col("capacity") - pl.col("unhealthy")
    return (pl.col(column).cast(_WIDE) * left.cast(_WIDE) // pl.col("capacity").cast(_WIDE)).cast(pl.Int64)


def _held_lines(pods: pl.DataFrame, segments: pl.DataFrame) -> pl.DataFrame:
    owned = pl.col("workload_kind").is_not_null() & pl.col("workload").is_not_null()
    name = pl.when(owned).then(pl.format("{}/{}/{}", "workload_kind", "namespace", "workload"))
    named = pods.with_columns(
        _healthy_part("allocated_idle"), _healthy_part("unknown"),
        workload=name.otherwise(pl.format("Pod/{}/{}", "namespace", "pod")),
    )  # fmt: skip
    of_pod = [*_HOUR_OF_GPU, "pod_uid", "workspace", "namespace", "workload"]
    summed = named.group_by(of_pod).agg(pl.col(_HELD).sum())
    lines = summed.unpivot(_HELD, index=of_pod, variable_name="category", value_name="us")
    return lines.cast({"gpu": segments.schema["gpu"], "us": pl.Int64})


def _free_lines(pods: pl.DataFrame, segments: pl.DataFrame) -> pl.DataFrame:
    """Return the hours' lines that no pod pays for: unallocated and unhealthy."""
    summed = pods.group_by(_HOUR_OF_GPU).agg(
        pl.col("held").sum(),
        kept=pl.col("used").sum() + _healthy_part("allocated_idle").sum() + _healthy_part("unknown").sum(),
    )
    free = segments.join(summed, on=_HOUR_OF_GPU, how="left")
    free = free.with_columns(pl.col("held", "kept").fill_null(0))  # no pod: no seconds
    free = free.with_columns(unallocated=pl.col("capacity") - pl.col("held"))
    free = free.with_columns(_healthy_part("unallocated"))
    free = free.with_columns(unhealthy=pl.col("capacity") - pl.col("kept") - pl.col("unallocated"))
    lines = free.unpivot(("unallocated", "unhealthy"), index=_HOUR_OF_GPU, variable_name="category", value_name="us")
    return lines.cast({"us": pl.Int64})


def _dollars(micro: str) -> pl.Expr:
    return (pl.col(micro).cast(pl.Decimal(38, 6)) / 1_000_000).cast(MONEY)


def unhealthy_intervals(verdicts: pl.DataFrame, until: datetime) -> pl.DataFrame:
    """Return when GPUs were failed, from rows of the table `verdict`: gpu_uuid, starts_at, ends_at.

    A failure lasts from its `since` (else the verdict's own time) until the GPU's next health verdict that says
    otherwise, or `until`. "Unknown" says nothing otherwise: a dead exporter repairs nobody.
    """
    health = verdicts.filter(
        (pl.col("topic") == "health") & (pl.col("subject_kind") == "gpu") & (pl.col("state") != "unknown")
    ).sort("subject", "made_at")
    spans = health.with_columns(ends_at=pl.col("made_at").shift(-1).over("subject").fill_null(until))
    failed = spans.filter(pl.col("state") == "failed")
    return failed.select(
        gpu_uuid="subject",
        starts_at=pl.min_horizontal("since", "made_at").cast(UTC_MICROSECONDS),
        ends_at=pl.col("ends_at").cast(UTC_MICROSECONDS),
    )


def no_intervals() -> pl.DataFrame:
    """Return the empty frame of unhealthy intervals."""
    return pl.DataFrame(schema={"gpu_uuid": pl.String(), "starts_at": UTC_MICROSECONDS, "ends_at": UTC_MICROSECONDS})


def summarise(cost_lines: pl.DataFrame, by: Sequence[str] = ("workspace",)) -> pl.DataFrame:
    """Return GPU-seconds and dollars of cost lines by the columns `by` and category, largest bill first.

    `cost_usd` sums the priced lines and is null where there are none; `unpriced_gpu_seconds` says what it leaves out.
    """
    for name in by:
        if name not in COST_LINE.names():
            message = f"by: {name} is no column of a cost line; the columns are {', '.join(COST_LINE.names())}"
            raise BadInput(message, field="by")
    keys = [*dict.fromkeys([*by, "category"])]
    counted = cost_lines.with_columns(us=(pl.col("gpu_seconds") * 1e6).round().cast(pl.Int64))
    is_unpriced = pl.col("cost_usd").is_null()
    return (
        counted.group_by(keys)
        .agg(
            gpu_seconds=pl.col("us").sum() / 1e6,
            cost_usd=pl.when(is_unpriced.all()).then(None).otherwise(pl.col("cost_usd").sum()).cast(MONEY),
            unpriced_gpu_seconds=pl.col("us").filter(is_unpriced).sum() / 1e6,
        )
        .sort("cost_usd", "gpu_seconds", *keys, descending=[True, True, *[False] * len(keys)], nulls_last=True)
    )
