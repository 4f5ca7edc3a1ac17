"""Divide the price of a node over its GPUs, its CPU and its RAM, and the host's part over the pods that asked."""

from decimal import Decimal

import polars as pl

from analytics.apportion import apportion
from analytics.cost_policy import LedgerPolicy
from analytics.cost_segments import bill, to_dollars
from fleet.frames import check
from fleet.money_tables import COST_LINE

HOURS_PER_MONTH = 730
"""What a monthly price is divided by (OpenCost's)."""
MIB_PER_GIB = 1024
_PARTS = ("gpu", "cpu", "ram")


def split_node_price(price: Decimal, counts: dict[str, Decimal], base: dict[str, Decimal]) -> dict[str, Decimal]:
    """Return the price of a unit of each resource: in the ratio of `base`, and summing to `price` over `counts`.

    The rule of OpenCost's specification, appendix A: base prices keep their ratios and are scaled to the node's.
    Where nothing counted has a base price every unit costs nothing.
    """
    whole = sum((counts[name] * base[name] for name in counts), Decimal(0))
    if whole == 0:
        return dict.fromkeys(counts, Decimal(0))
    return {name: base[name] * price / whole for name in counts}


def node_gpu_cost(unit: Decimal, count: Decimal | None) -> Decimal:
    """Return what the GPUs of a node cost; none, where nobody knows of any."""
    return Decimal(0) if count is None else unit * count


def hourly_of_monthly(price: Decimal) -> Decimal:
    """Return a monthly price by the hour."""
    return price / HOURS_PER_MONTH


def split_hosts(lines: pl.DataFrame, nodes: pl.DataFrame, pods: pl.DataFrame, policy: LedgerPolicy) -> pl.DataFrame:
    """Return GPU lines at the GPU's part of their rate, with lines for the CPU and RAM of their nodes.

    `nodes` has a row a GPU: gpu, cluster, node, gpus, cpu_milli, memory_mib; a node of which one of them is not
    known is left whole. `pods` are rows of the table `pod`. What no pod asked for is unallocated; whether what was
    asked for is used, nobody measured, so it is unknown. The sums are those of `lines`.
    """
    counts = ["gpus", "cpu_milli", "memory_mib"]
    known = nodes.drop_nulls(counts).filter(pl.all_horizontal(pl.col(counts) > 0))
    whole = lines.join(known.select("gpu"), on="gpu", how="anti", nulls_equal=False)
    split = lines.join(known, on="gpu", suffix="_of_node").drop("node").rename({"node_of_node": "node"})
    split = split.filter(pl.col("cost_usd").is_not_null())
    unpriced = lines.join(known.select("gpu"), on="gpu").filter(pl.col("cost_usd").is_null())
    if split.is_empty():
        return lines
    weights = {
        "gpu": policy.base_gpu_usd * 1_000_000 * pl.col("gpus"),
        "cpu": policy.base_cpu_usd * 1000 * pl.col("cpu_milli"),
        "ram": policy.base_ram_usd * 1_000_000 / MIB_PER_GIB * pl.col("memory_mib"),
    }
    split = split.with_columns(
        (weight.cast(pl.Float64).round().cast(pl.Int64)).alias(f"w_{name}") for name, weight in weights.items()
    )
    gpu_lines, host = _gpu_part(split)
    return pl.concat([whole, unpriced, gpu_lines, _host_lines(host, pods)]).sort("gpu", "starts_at", nulls_last=True)


def _gpu_part(split: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the GPU lines at their part of the rate, and what is left of each node's hour for its host."""
    micro = (pl.col("usd_per_gpu_hour").cast(pl.Decimal(38, 6)) * 1_000_000).cast(pl.Int64)
    weight = pl.sum_horizontal(f"w_{name}" for name in _PARTS).cast(pl.Int128())
    part = (micro.cast(pl.Int128()) * pl.col("w_gpu").cast(pl.Int128()) // weight).cast(pl.Int64)
    paid = (pl.col("cost_usd").cast(pl.Decimal(38, 6)) * 1_000_000).cast(pl.Int64)
    rated = split.with_columns(rate=part, paid=paid, us=(pl.col("gpu_seconds") * 1e6).round().cast(pl.Int64))
    stretches = rated.select("gpu", "starts_at", "ends_at", "rate").unique(["gpu", "starts_at"], keep="any")
    stretches = stretches.sort("gpu", "starts_at").with_row_index("seg").with_columns(bill=bill(pl.col("rate")))
    rated = rated.join(stretches.select("gpu", "starts_at", "seg", "bill"), on=["gpu", "starts_at"])
    rated = rated.sort("seg", "pod_uid", "slice", "category", nulls_last=True)
    rated = apportion(rated, ["seg"], "bill", "us", "micro_usd")
    hour = pl.col("starts_at").dt.truncate("1h")
    host = rated.group_by("cluster", "node", hour=hour).agg(
        pl.col("starts_at").min(), pl.col("ends_at").max(), pl.col("cpu_milli", "memory_mib", "w_cpu", "w_ram").first(),
        host_bill=(pl.col("paid") - pl.col("micro_usd")).sum(),
    )  # fmt: skip
    lines = rated.with_columns(
        usd_per_gpu_hour=to_dollars("rate"), cost_usd=to_dollars("micro_usd"), node=pl.lit(None, pl.String())
    )
    return check(lines.select(COST_LINE.names()), COST_LINE), host.sort("cluster", "node", "hour")


def _host_lines(host: pl.DataFrame, pods: pl.DataFrame) -> pl.DataFrame:
    both = host.with_row_index("host").unpivot(
        ("w_cpu", "w_ram"), variable_name="resource", value_name="weight",
        index=["host", "cluster", "node", "starts_at", "ends_at", "cpu_milli", "memory_mib", "host_bill"],
    )  # fmt: skip
    both = apportion(both.sort("host", "resource"), ["host"], "host_bill", "weight", "bill")
    both = both.with_columns(pl.col("resource").str.strip_prefix("w_")).with_row_index("part")
    length = (pl.col("ends_at") - pl.col("starts_at")).dt.total_microseconds()
    size = pl.when(pl.col("resource") == "cpu").then("cpu_milli").otherwise("memory_mib")
    both = both.with_columns(capacity=(size * length).cast(pl.Int64))
    held = _asked(both, pods)
    asked = held.group_by("part").agg(asked=pl.col("want").sum())
    free = both.join(asked, on="part", how="left").with_columns(pl.col("asked").fill_null(0))  # nobody asked
    free = free.with_columns(
        want=(pl.col("capacity") - pl.col("asked")).clip(lower_bound=0), category=pl.lit("unallocated")
    )
    rows = pl.concat([held, free.select("part", "want", "category")], how="diagonal")
    rows = rows.join(both.select("part", "cluster", "node", "resource", "starts_at", "ends_at", "bill"), on="part")
    rows = apportion(rows.sort("part", "pod_uid", nulls_last=True), ["part"], "bill", "want", "micro_usd")
    schema = COST_LINE.schema()
    missing = [pl.lit(None, dtype).alias(name) for name, dtype in schema.items() if name not in rows.columns]
    lines = rows.filter(pl.col("micro_usd") > 0).with_columns(missing)
    lines = lines.with_columns(
        gpu_seconds=pl.lit(0.0), cost_usd=to_dollars("micro_usd"), adjustment=pl.lit(0, pl.Int32())
    )
    return check(lines.select(list(schema)), COST_LINE)


def _asked(both: pl.DataFrame, pods: pl.DataFrame) -> pl.DataFrame:
    owner = pl.when(pl.col("workload").is_not_null()).then(
        pl.format("{}/{}/{}", "workload_kind", "namespace", "workload")
    )
    there = pods.filter(pl.col("starts_at").is_not_null()).select(
        "cluster", "node", "namespace", "workspace", "pod_uid", "cpu_milli", "memory_mib",
        pod_from="starts_at", pod_until="ends_at", workload=owner,
    )  # fmt: skip
    met = both.select("part", "cluster", "node", "resource", "starts_at", "ends_at").join(there, on=["cluster", "node"])
    end = pl.min_horizontal(pl.col("pod_until").fill_null(pl.col("ends_at")), "ends_at")
    length = (end - pl.max_horizontal("pod_from", "starts_at")).dt.total_microseconds()
    size = pl.when(pl.col("resource") == "cpu").then("cpu_milli").otherwise("memory_mib")
    met = met.with_columns(want=(size * length).cast(pl.Int64), category=pl.lit("unknown"))
    return met.filter(pl.col("want") > 0).select(
        "part", "want", "category", "namespace", "workspace", "workload", "pod_uid"
    )
