"""Find what a GPU-hour costs: the price of its model and capacity type, of its region where there is one."""

from datetime import datetime
from decimal import Decimal

import ibis.expr.types as ir
import polars as pl

from analytics.activity import Tables
from fleet.models import canonical_model


def priced_gpus(tables: Tables) -> ir.Table:
    """Return what a GPU's price goes by: gpu, uuid, model, capacity_type, region (the node's; null = not known)."""
    gpus = tables["gpu"]
    nodes = tables["node"].select("cluster", "node", "capacity_type", "region", node_model="model")
    joined = gpus.left_join(nodes, ["cluster", "node"])
    return joined.select("gpu", "uuid", "capacity_type", "region", model=joined.model.coalesce(joined.node_model))


def host_of_gpus(tables: Tables) -> ir.Table:
    """Return the node that each GPU is in: gpu, cluster, node, gpus, cpu_milli, memory_mib (null = not known)."""
    nodes = tables["node"].select("cluster", "node", "gpus", "cpu_milli", "memory_mib")
    joined = tables["gpu"].select("gpu", "cluster", "node").left_join(nodes, ["cluster", "node"])
    return joined.select("gpu", "cluster", "node", "gpus", "cpu_milli", "memory_mib")


def with_rates(frame: pl.DataFrame, prices: pl.DataFrame, at: str) -> pl.DataFrame:
    """Add `usd_per_gpu_hour` to rows with model, capacity_type, region and a moment in the column `at`.

    Of the prices of the same model (by any of its names) and capacity type that hold at that moment, the one of
    the row's region wins over the one of no region, and the later over the earlier. No price gives null.
    """
    keys = ["model", "capacity_type", "region", at]
    wanted = frame.select(keys).unique().with_columns(named=_canonical("model"))
    known = prices.select(
        pl.col("model").alias("price_model"), "capacity_type", "usd_per_gpu_hour", "starts_at", "ends_at",
        price_region="region",
    ).with_columns(named=_canonical("price_model")).drop("price_model")  # fmt: skip
    matched = wanted.join(known, on=["named", "capacity_type"], how="inner", suffix="_price")
    start = pl.col("starts_at_price" if at == "starts_at" else "starts_at")
    end = pl.col("ends_at_price" if at == "ends_at" else "ends_at")
    is_valid = (start <= pl.col(at)) & (end.is_null() | (end > pl.col(at)))
    is_near = pl.col("price_region").is_null() | (pl.col("price_region") == pl.col("region"))
    best = (
        matched.filter(is_valid & is_near.fill_null(value=False))
        .sort(pl.col("price_region").is_null(), start, "usd_per_gpu_hour", descending=[False, True, False])
        .unique(keys, keep="first", maintain_order=True)
        .select(*keys, "usd_per_gpu_hour")
    )
    return frame.join(best, on=keys, how="left", nulls_equal=True, maintain_order="left")


def rates_by_uuid(gpus: pl.DataFrame, prices: pl.DataFrame, now: datetime) -> dict[str, Decimal]:
    """Return the price of each GPU of `priced_gpus` at `now`, in USD an hour; an unpriced one is not in it."""
    priced = with_rates(gpus.with_columns(at=pl.lit(now)), prices, "at").drop_nulls("usd_per_gpu_hour")
    return dict(priced.select("uuid", "usd_per_gpu_hour").iter_rows())


def _canonical(column: str) -> pl.Expr:
    return pl.col(column).map_elements(canonical_model, return_dtype=pl.String)
