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
    """Return the rows that stand further than the table's tolerance from the last kept row of their key.

    A kept row takes over the richest text of those that it stands for.
    """
    others = [_stand_in(table, name) for name in table.key if name != time]
    names = [f"_key_{place}" for place in range(len(others))]
    keyed = frame.with_row_index("_row").with_columns(
        other.alias(name) for other, name in zip(others, names, strict=True)
    )
    ordered = keyed.sort([*names, time, "_row"], nulls_last=True)
    text = pl.lit(None, pl.String()).alias("_text") if table.richest is None else pl.col(table.richest).alias("_text")
    tolerance = timedelta(seconds=table.tolerance_s)
    kept: dict[int, str | None] = {}
    last_key, last_time, last_row = None, None, -1
    for *key, moment, row, said in ordered.select([*names, time, "_row", text]).iter_rows():
        if key == last_key and last_time is not None and moment - last_time <= tolerance:
            kept[last_row] = _richer(kept[last_row], said)
            continue
        last_key, last_time, last_row = key, moment, row
        kept[row] = said
    rows = sorted(kept)
    if table.richest is None:
        return frame[rows]
    return frame[rows].with_columns(pl.Series(table.richest, [kept[row] for row in rows], pl.String()))


def _stand_in(table: Table, name: str) -> pl.Expr:
    if table.stands_in is None or table.stands_in[0] != name:
        return pl.col(name)
    return pl.coalesce(name, table.stands_in[1])


def _richer(one: str | None, other: str | None) -> str | None:
    if one is None or other is None:
        return one if other is None else other
    return other if len(other) > len(one) else one
