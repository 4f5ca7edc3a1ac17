"""Samples of a Prometheus server become rows: GPUs, MIG devices, their samples, and XIDs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from collectors.metrics import BY_NAME, XID_COLUMN, is_blank, label
from fleet.batch import Trouble
from fleet.frames import UTC_MICROSECONDS, Table
from fleet.tables import TABLES

Labels = Mapping[str, str]
_OWN = {"series": pl.UInt32(), "ts": UTC_MICROSECONDS, "value": pl.Float64()}


@dataclass(frozen=True, slots=True)
class Readings:
    """Series by their labels (`__name__` among them), and their samples: frame of series (index), ts, value."""

    series: Sequence[Labels]
    samples: pl.DataFrame


def no_samples() -> pl.DataFrame:
    """Return a frame of samples without a row."""
    return pl.DataFrame(schema=_OWN)


def frames_of(readings: Readings, cluster: str, source: str) -> tuple[dict[str, pl.DataFrame], tuple[Trouble, ...]]:
    """Return the frames of our tables, in wire form, and what could not become a row.

    A series of a MIG device belongs to the device alone; utilization of a GPU that has MIG devices is not measured.
    An XID is told when the gauge changes to it between two samples of `readings`: the gauge keeps its last value for
    ever, so one that stands at the first sample may be of any age.
    """
    troubles: list[Trouble] = []
    known = _series_frame(readings.series, cluster, troubles)
    values = _values(readings.samples, known, troubles)
    sampled = values.filter(pl.col("column") != XID_COLUMN)
    of_gpus, of_slices = (
        sampled.filter(pl.col("slice_uuid").is_null()),
        sampled.filter(pl.col("slice_uuid").is_not_null()),
    )
    with_slices = known.filter(pl.col("slice_uuid").is_not_null()).get_column("gpu_uuid").unique()
    not_measured = (pl.col("column") == "utilization") & pl.col("gpu_uuid").is_in(with_slices.to_list())
    seen = values.group_by("gpu_uuid", maintain_order=True).agg(pl.col("ts").max().alias("last_seen_at"))
    frames = {
        "cluster": known.select("cluster").unique(maintain_order=True),
        "node": known.select("cluster", "node", "model").unique(["cluster", "node"], maintain_order=True),
        "gpu": _fit(_gpus(known, seen, with_slices), TABLES["gpu"]),
        "gpu_sample": _wide(of_gpus.filter(~not_measured), "gpu_uuid", TABLES["gpu_sample"]),
        "slice": _fit(_slices(known, values), TABLES["slice"]),
        "slice_sample": _wide(of_slices, "slice_uuid", TABLES["slice_sample"]),
        "event": _fit(_xids(values.filter(pl.col("column") == XID_COLUMN), source), TABLES["event"]),
    }
    return {name: frame for name, frame in frames.items() if frame.height}, tuple(troubles)


def _series_frame(series: Sequence[Labels], cluster: str, troubles: list[Trouble]) -> pl.DataFrame:
    rows = []
    nameless = 0
    for place, labels in enumerate(series):
        metric = BY_NAME.get(labels.get("__name__", ""))
        if metric is None:
            continue
        uuid, node = label(labels, "gpu_uuid"), label(labels, "node")
        if uuid is None or node is None:
            nameless += 1
            continue
        instance = label(labels, "gpu_instance")
        rows.append(
            {
                "series": place,
                "column": metric.column,
                "scale": metric.scale,
                "low": metric.low,
                "high": metric.high,
                "rank": metric.names.index(labels["__name__"]),
                "gpu_uuid": uuid,
                "slice_uuid": None if instance is None else f"{uuid}/gi{instance}",
                "gpu_instance": _whole(instance),
                "gpu_index": _whole(label(labels, "gpu_index")),
                "profile": label(labels, "profile"),
                "cluster": label(labels, "cluster") or cluster,
                **{name: label(labels, name) for name in ("model", "pci_bus_id", "driver")},
                "node": node,
            }
        )
    if nameless:
        troubles.append(Trouble("rejected", "series", "no label names its GPU (UUID) or its node (Hostname)", nameless))
    return pl.DataFrame(rows, schema=_SERIES)


_TEXTS = ("column", "gpu_uuid", "slice_uuid", "profile", "cluster", "model", "pci_bus_id", "driver", "node")
_SERIES = {
    "series": pl.UInt32(),
    "rank": pl.Int32(),
    "gpu_instance": pl.Int32(),
    "gpu_index": pl.Int32(),
    **dict.fromkeys(("scale", "low", "high"), pl.Float64()),
    **dict.fromkeys(_TEXTS, pl.String()),
}


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() and len(text) < 9 else None  # noqa: PLR2004 - fits its column


def _values(samples: pl.DataFrame, known: pl.DataFrame, troubles: list[Trouble]) -> pl.DataFrame:
    """Return the samples in the columns' units; what is blank is left out, what can't be is left out and counted."""
    joined = samples.join(known, on="series", how="inner", maintain_order="left")
    scaled = joined.filter(~is_blank(pl.col("value")) & ~pl.col("value").is_nan()).with_columns(
        value=pl.col("value") * pl.col("scale")
    )
    is_possible = pl.col("value").is_between(pl.col("low"), pl.col("high"))
    impossible = (
        scaled.filter(~is_possible).group_by("column", maintain_order=True).agg(pl.len(), pl.col("value").first())
    )
    for column, count, value in impossible.iter_rows():
        troubles.append(
            Trouble("rejected", f"gpu_sample.{column}", "no such value can be measured", count, f"{value:g}")
        )
    return scaled.filter(is_possible)


def _wide(values: pl.DataFrame, key: str, table: Table) -> pl.DataFrame:
    """Return one row a key and moment, a column a metric; of two names of one field the newest speaks."""
    columns = [name for name in values.get_column("column").unique().sort() if name in table.schema("wire")]
    if not columns:
        return table.empty("wire")
    rows = (
        values.filter(pl.col("column").is_in(columns))
        .sort("rank")
        .pivot(on="column", on_columns=columns, index=[key, "ts"], values="value", aggregate_function="last")
        .sort(key, "ts")
    )
    return _fit(rows, table)


def _fit(rows: pl.DataFrame, table: Table) -> pl.DataFrame:
    schema = table.schema("wire")
    present = [_cast(name, dtype) for name, dtype in schema.items() if name in rows.columns]
    absent = [pl.lit(None, dtype).alias(name) for name, dtype in schema.items() if name not in rows.columns]
    return rows.select(*present, *absent).select(list(schema))


def _cast(name: str, dtype: pl.DataType) -> pl.Expr:
    if dtype == pl.Boolean():
        return (pl.col(name) != 0).alias(name)
    return pl.col(name).round().cast(dtype) if dtype.is_integer() else pl.col(name).cast(dtype)


def _gpus(known: pl.DataFrame, seen: pl.DataFrame, with_slices: pl.Series) -> pl.DataFrame:
    identity = known.group_by("gpu_uuid", maintain_order=True).agg(
        pl.col("cluster", "node", "gpu_index", "model", "pci_bus_id", "driver").drop_nulls().last()
    )
    is_split = pl.when(pl.col("gpu_uuid").is_in(with_slices.to_list())).then(pl.lit(1))
    return identity.join(seen, on="gpu_uuid", how="left", maintain_order="left").with_columns(
        uuid=pl.col("gpu_uuid"), mig_enabled=is_split
    )


def _slices(known: pl.DataFrame, values: pl.DataFrame) -> pl.DataFrame:
    of_slices = known.filter(pl.col("slice_uuid").is_not_null())
    seen = values.group_by("slice_uuid", maintain_order=True).agg(pl.col("ts").max().alias("last_seen_at"))
    identity = of_slices.group_by("slice_uuid", "gpu_uuid", maintain_order=True).agg(
        pl.col("gpu_instance", "profile").drop_nulls().last()
    )
    return identity.join(seen, on="slice_uuid", how="left", maintain_order="left").with_columns(
        uuid=pl.col("slice_uuid")
    )


def _xids(values: pl.DataFrame, source: str) -> pl.DataFrame:
    before = pl.col("value").shift(1).over("series")
    changed = values.sort("series", "ts").filter((pl.col("value") != 0) & (pl.col("value") != before))
    return changed.select(
        "ts", "cluster", "node", "gpu_uuid", "slice_uuid", "pci_bus_id",
        kind=pl.lit("xid"),
        code=pl.col("value"),
        message=pl.format("the exporter's gauge changed to XID {}", pl.col("value").cast(pl.Int64)),
        source=pl.lit(source),
    )  # fmt: skip
