"""Divide whole numbers by weight so that the parts sum to the whole: the largest remainder, in integers throughout."""

from collections.abc import Sequence

import polars as pl

_WIDE = pl.Int128()


def apportion(frame: pl.DataFrame, group: Sequence[str], total: str, weight: str, name: str) -> pl.DataFrame:
    """Add column `name`: each group's `total` divided over its rows by `weight` (both integers, weights >= 0).

    Rows that are equal in remainder get the odd units in the order of the frame, so sort it by something that is
    the row's own. A group whose weights are all zero, or whose total is null, gets null.
    """
    wide_total, wide_weight = pl.col(total).cast(_WIDE), pl.col(weight).cast(_WIDE)
    whole_weight = wide_weight.sum().over(group)
    divided = frame.with_columns(_whole=whole_weight).with_columns(_whole=pl.col("_whole").replace(0, None))
    exact = wide_total * wide_weight
    divided = divided.with_columns(_floor=exact // pl.col("_whole"), _rest=exact % pl.col("_whole"))
    divided = divided.with_columns(
        _left=wide_total - pl.col("_floor").sum().over(group),
        _place=pl.col("_rest").rank("ordinal", descending=True).over(group).cast(_WIDE),
    )
    odd = (pl.col("_place") <= pl.col("_left")).cast(_WIDE)
    return divided.with_columns((pl.col("_floor") + odd).cast(pl.Int64).alias(name)).drop(
        "_whole", "_floor", "_rest", "_left", "_place"
    )
