"""Once each: rows of one frame that share a key become one."""

from datetime import timedelta
from typing import Literal

import polars as pl

from fleet.frames import Table


def extreme(table: Table, name: str) -> Literal["least", "greatest"] | None:
    """Return which value of a column two rows of one key agree on, where it is not the later one that counts."""
    if name == "first_seen_at":
        return "least"
    if name == "last_seen_at" or (table.name == "watermark" and name == "ts"):
        return "greatest"
    return None


def once_each(frame: pl.DataFrame, table: Table) -> pl.DataFrame:
    """Return `frame` with one row per key: merged (later non-null wins) or the first, as the table says."""
    keys = list(table.key)
    if table.tolerance_s > 0 and table.time is not None:
        return _apart(frame, table, table.time)
    if (
        any(_is_strictly_sorted(frame, order) for order in (keys, keys[::-1]))
        or not frame.select(pl.struct(keys).is_duplicated().any()).item()
    ):
        return frame
    if table.on_conflict == "keep":
        return frame.unique(subset=keys, keep="first", maintain_order=True)
    rest = [name for name in frame.columns if name not in keys]
    merged = frame.group_by(keys, maintain_order=True).agg(_one_value(table, name) for name in rest)
    return merged.select(frame.columns)


def _one_value(table: Table, name: str) -> pl.Expr:
    chosen = extreme(table, name)
    if chosen is None:
        return pl.col(name).drop_nulls().last()
    return pl.col(name).min() if chosen == "least" else pl.col(name).max()


def _is_strictly_sorted(frame: pl.DataFrame, keys: list[str]) -> bool:
    """Tell, in one cheap pass, whether a two-column key grows strictly; then no key occurs twice."""
    if len(keys) != 2:  # noqa: PLR2004 - samples have two key columns, and only they are large
        return False
    if any(frame.schema[name] == pl.String for name in keys):
        return False
    first, second = (pl.col(name) for name in keys)
    step, inner = first.cast(pl.Int64).diff(), second.cast(pl.Int64).diff()
    grows = (step > 0) | ((step == 0) & (inner > 0))
    return bool(frame.select(grows.slice(1).all()).item())


def _apart(frame: pl.DataFrame, table: Table, time: str) -> pl.DataFrame:
    """Return the rows that stand further than the table's tolerance from the last kept row of their key."""
    others = [name for name in table.key if name != time]
    ordered = frame.with_row_index("_row").sort([*others, time, "_row"], nulls_last=True)
    tolerance = timedelta(seconds=table.tolerance_s)
    kept, last_key, last_time = [], None, None
    for *key, moment, row in ordered.select([*others, time, "_row"]).iter_rows():
        if key == last_key and last_time is not None and moment - last_time <= tolerance:
            continue
        kept.append(row)
        last_key, last_time = key, moment
    return frame[sorted(kept)]
