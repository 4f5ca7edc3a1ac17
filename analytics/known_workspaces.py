"""Workspaces that are there without anybody having declared them to us."""

from collections.abc import Collection
from datetime import datetime

import polars as pl


def undeclared(
    workspaces: pl.DataFrame, members: pl.DataFrame, quotas: pl.DataFrame, now: datetime, declared: Collection[str]
) -> pl.DataFrame:
    """Return a row for each workspace that no manifest is of, by name.

    Args:
        workspaces: The table `workspace`.
        members: The table `workspace_member`.
        quotas: The table `quota`.
        now: The moment whose members and quotas count.
        declared: The names that have a manifest.

    Returns:
        `workspace`, `owner` (null where nobody told), `clusters` and `namespaces` as text, `gpus` (the sum of its
        quotas; null where it has none).
    """
    seats, grants = _standing(members, now), _standing(quotas, now)
    names = pl.concat([each.select("workspace") for each in (workspaces, seats, grants)]).unique().drop_nulls()
    places = pl.concat([each.select("workspace", "cluster") for each in (seats, grants)])
    return (
        names.filter(~pl.col("workspace").is_in(list(declared)))
        .join(workspaces.select("workspace", "owner").unique("workspace", keep="last"), on="workspace", how="left")
        .join(_listed(places, "cluster", "clusters"), on="workspace", how="left")
        .join(_listed(seats, "namespace", "namespaces"), on="workspace", how="left")
        .join(grants.group_by("workspace").agg(pl.col("gpus").sum()), on="workspace", how="left")
        .select("workspace", "owner", "clusters", "namespaces", "gpus")
        .sort("workspace")
    )


def _standing(rows: pl.DataFrame, now: datetime) -> pl.DataFrame:
    return rows.filter(pl.col("starts_at") <= now, pl.col("ends_at").is_null() | (pl.col("ends_at") > now))


def _listed(rows: pl.DataFrame, column: str, name: str) -> pl.DataFrame:
    found = rows.drop_nulls(column).group_by("workspace").agg(pl.col(column).unique().sort())
    return found.select("workspace", pl.col(column).list.join(", ").alias(name))
