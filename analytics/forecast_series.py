"""The series that are forecast: demand by workspace, GPU model, pool, cluster and altogether, and how they add up.

The smallest parts are what the queues tell of (workspace, pool, model of one cluster). Everything else is a sum of
parts. A gap stays a gap: a sum is not known where a part of it that was there before and came back is not known.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analytics.backtest import Floats, Integers

TOTAL = "*"
KEYS = ("cluster", "workspace", "pool", "model")
Key = tuple[str, str, str | None, str | None]


@dataclass(frozen=True, slots=True)
class Panel:
    """Sums of parts: `values` `[sum, time]`, each once; `members` are the parts of each sum.

    `series` has a row for each series to be told of (`KEYS`, capacity_gpus, steps, steps_without_pending) and
    `place` says which sum it is: two series may be one sum. The first sums are the parts themselves, in order.
    `is_gone` says which parts have left: they count in no sum of what is to come.
    """

    series: pl.DataFrame
    place: Integers
    values: Floats
    members: tuple[tuple[int, ...], ...]
    is_gone: NDArray[np.bool_]


def make_panel(steps: pl.DataFrame, length: int, season: int) -> Panel:
    """Return the series of `steps`: `KEYS`, `place` (0 to `length`, exclusive), demand, pending and capacity."""
    keys = list(KEYS)
    parts = (
        steps.sort("place")
        .group_by(keys)
        .agg(
            pl.col("capacity").drop_nulls().last().alias("capacity_gpus"),
            pl.len().alias("steps"),
            pl.col("pending").null_count().alias("steps_without_pending"),
        )
        .sort(keys)
        .with_row_index("part")
    )
    located = steps.join(parts.select(*keys, "part"), on=keys, nulls_equal=True)
    values = np.full((parts.height, length), np.nan)
    values[located["part"].to_numpy(), located["place"].to_numpy()] = located["demand"].to_numpy()
    groups = _groups(parts)
    sums: dict[tuple[int, ...], int] = {(part,): part for part in range(parts.height)}
    for members in groups.values():
        sums.setdefault(members, len(sums))
    added = [_add_up(values[list(members)], season) for members in list(sums)[parts.height :]]
    return Panel(
        _describe(groups, parts),
        np.array([sums[members] for members in groups.values()], dtype=np.int64),
        np.vstack([values, *added]),
        tuple(sums),
        _is_gone(values, season),
    )


def _groups(parts: pl.DataFrame) -> dict[Key, tuple[int, ...]]:
    """Return the parts of each series: workspaces, their parts, pools, models, clusters, and all where there are two.

    The order is that of the smallest first, by name.
    """
    found: dict[Key, list[int]] = defaultdict(list)
    clusters = parts["cluster"].n_unique()
    for cluster, workspace, pool, model, part in parts.select(*KEYS, "part").iter_rows():
        keys: list[Key] = [(cluster, workspace, None, None), (cluster, TOTAL, None, None)]
        keys += [(cluster, workspace, pool, model)] if pool is not None or model is not None else []
        keys += [(cluster, TOTAL, pool, None)] if pool is not None else []
        keys += [(cluster, TOTAL, None, model)] if model is not None else []
        keys += [(TOTAL, TOTAL, None, None)] if clusters > 1 else []
        for key in keys:
            found[key].append(part)
    ordered = sorted(found, key=_rank)
    return {key: tuple(found[key]) for key in ordered}


def _rank(key: Key) -> tuple[bool, bool, str, str, bool, str, bool, str]:
    cluster, workspace, pool, model = key
    return (
        workspace == TOTAL, cluster == TOTAL, cluster, workspace,
        pool is not None, pool or "", model is not None, model or "",
    )  # fmt: skip


def _describe(groups: Mapping[Key, tuple[int, ...]], parts: pl.DataFrame) -> pl.DataFrame:
    rows = []
    told = parts.select("capacity_gpus", "steps", "steps_without_pending").rows()
    for key, members in groups.items():
        capacities = [told[part][0] for part in members]
        rows.append(
            (
                *key,
                None if any(each is None for each in capacities) else float(sum(capacities)),
                sum(told[part][1] for part in members),
                sum(told[part][2] for part in members),
            )
        )
    texts = dict.fromkeys(KEYS, pl.String())
    counts = dict.fromkeys(("steps", "steps_without_pending"), pl.Int64())
    return pl.DataFrame(rows, schema={**texts, "capacity_gpus": pl.Float64(), **counts}, orient="row")


def _last_places(known: NDArray[np.bool_]) -> Integers:
    last: Integers = known.shape[1] - 1 - known[:, ::-1].argmax(axis=1)
    return last


def _is_gone(values: Floats, season: int) -> NDArray[np.bool_]:
    known = np.isfinite(values)
    gone: NDArray[np.bool_] = np.asarray(~known.any(axis=1) | (_last_places(known) + season < values.shape[1] - 1))
    return gone


def _add_up(parts: Floats, season: int) -> Floats:
    """Return the sum of parts at each step; NaN where a part that was there before and came back is not known.

    A part counts as there from its first value to a season after its last one: then it is gone, not missing.
    """
    known = np.isfinite(parts)
    places = np.arange(parts.shape[1])
    first = known.argmax(axis=1)[:, None]
    is_gap = (~known & (places >= first) & (places <= _last_places(known)[:, None] + season)).any(axis=0)
    total: Floats = np.where(known.any(axis=0) & ~is_gap, np.where(known, parts, 0.0).sum(axis=0), np.nan)
    return total
