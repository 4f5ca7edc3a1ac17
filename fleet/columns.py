"""Types and columns that several tables share."""

import polars as pl

from fleet.frames import UTC_MICROSECONDS, Column

INT = pl.Int64()
SMALL = pl.Int32()
REAL = pl.Float32()
EXACT = pl.Float64()
TEXT = pl.String()
FLAG = pl.Boolean()
TIME = UTC_MICROSECONDS


def needed(name: str, dtype: pl.DataType, meaning: str) -> Column:
    """Return a column that may not be null."""
    return Column(name, dtype, meaning, required=True)


GPU_KEY = needed("gpu", pl.UInt32(), "the GPU, by the store's key")
SLICE_KEY = needed("slice", pl.UInt32(), "the MIG device, by the store's key")
INTERVAL = (
    needed("starts_at", TIME, "first moment inside"),
    Column("ends_at", TIME, "first moment after; null: open"),
)
