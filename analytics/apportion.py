"""Divide whole numbers by weight so that the parts sum to the whole: the largest remainder, in integers throughout."""

from collections.abc import Sequence

import polars as pl

_WIDE = pl.Int128()
_NARROW_LIMIT = 2**62


def apportion(frame: pl.DataFrame, group: Sequence[str], total: str, weight: str, name: str) -> pl.DataFrame:
    """Add column `name`: each group's `total` divided over its rows by `weight` (both integers, weights >= 0).

    Rows that are equal in remainder get the odd units in the order of the frame, so sort it by something that is
    the row's own. A group whose weights are all zero, or whose total is null, gets null.
    """
    key = pl.struct(group).rank("dense") if len(group) > 1 else pl.col(group[0]) if group else pl.lit(0)
    keyed = frame.with_columns(_row=pl.int_range(pl.len(), dtype=pl.UInt32), _group=key)
    number = _WIDE if _is_wide(frame, total, weight) else pl.Int64()
    wide_total, wide_weight = pl.col(total).cast(number), pl.col(weight).cast(number)
    sums = keyed.group_by("_group").agg(_whole=wide_weight.sum())
    sums = sums.with_columns(pl.col("_whole").replace(0, None))
    divided = keyed.select("_row", "_group", _total=wide_total, _weight=wide_weight).join(
        sums, on="_group", nulls_equal=True
    )
    exact = pl.col("_total") * pl.col("_weight")
    divided = divided.with_columns(_floor=exact // pl.col("_whole"), _rest=exact % pl.col("_whole"))
    # The place of a row in its group, largest rest first: one sort is quicker than a rank in every group.
    placed = divided.sort("_group", "_rest", "_row", descending=[False, True, False], nulls_last=True)
    index = pl.int_range(pl.len(), dtype=pl.UInt32)
    begins = pl.col("_group").ne_missing(pl.col("_group").shift()) | (index == 0)
    placed = placed.with_columns(_place=index - pl.when(begins).then(index).forward_fill())
    taken = placed.group_by("_group").agg(_taken=pl.col("_floor").sum())
    placed = placed.join(taken, on="_group", nulls_equal=True, maintain_order="left")
    odd = (pl.col("_place") < pl.col("_total") - pl.col("_taken")).cast(number)
    parts = placed.select("_row", (pl.col("_floor") + odd).cast(pl.Int64).alias(name)).sort("_row")
    return frame.with_columns(parts.get_column(name))


def _is_wide(frame: pl.DataFrame, total: str, weight: str) -> bool:
    """Tell whether a product of total and weight may not fit 64 bits."""
    largest = [frame.get_column(each).cast(_WIDE).abs().max() for each in (total, weight)]
    totals, weights = (each if isinstance(each, int) else 0 for each in largest)
    return totals * weights >= _NARROW_LIMIT
