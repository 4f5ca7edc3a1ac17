"""Views of the ledger: what was spent in a window, by whatever a line or its GPU and pod can tell."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import ibis
import ibis.expr.types as ir
import polars as pl

from analytics.activity import Tables
from fleet.errors import BadInput
from fleet.frames import MONEY, UTC_MICROSECONDS

OF_LINE = ("workspace", "namespace", "workload", "pod_uid", "category", "resource", "cluster")
OF_GPU = ("model", "gpu_uuid", "node")
OF_NODE = ("pool", "capacity_type", "region")
OF_POD = ("owner", "pod")
VIEWS = (*OF_LINE, *OF_GPU, *OF_NODE, *OF_POD, "team", "label:NAME")
NOBODY = "(nobody)"
UNATTRIBUTED = "(unattributed)"
_DAY = timedelta(days=1)
_HELD = ("used", "allocated_idle", "unknown")


def check_views(by: Sequence[str]) -> None:
    """Raise `BadInput` for a view there is not."""
    known = (*OF_LINE, *OF_GPU, *OF_NODE, *OF_POD, "team")
    for name in by:
        if name not in known and not (name.startswith("label:") and len(name) > len("label:")):
            message = f"by: there is no view by {name}; the views are {', '.join(VIEWS)}"
            raise BadInput(message, field="by")


def is_by_label(name: str) -> bool:
    """Tell whether a view goes by a label of pods."""
    return name == "team" or name.startswith("label:")


def spend(
    tables: Tables, since: datetime, until: datetime, by: Sequence[str], step: timedelta | None = None
) -> ir.Table:
    """Return GPU-microseconds and dollars of the lines that start in `[since, until)`, by views and category.

    Columns: the views (`label:x` and `team` come as `labels`, see `by_labels`), `category`, `step` (whole steps
    since `since`, where `step` is given), `gpu_us`, `cost_usd` (null: nothing priced), `unpriced_us`.
    """
    check_views(by)
    names = ["labels" if is_by_label(name) else name for name in by]
    lines = _joined(_amounts(tables, since, until, names, step), tables, set(names))
    keys = [*dict.fromkeys([*names, "category"])]
    if "resource" in keys:
        lines = lines.mutate(resource=lines.resource.coalesce("gpu"))
    if step is not None:
        seconds = lines.starts_at.epoch_seconds() - ibis.literal(since).epoch_seconds()
        lines = lines.mutate(step=(seconds // int(step.total_seconds())).cast("int64"))
        keys.append("step")
    return lines.group_by(keys).aggregate(
        gpu_us=lines.gpu_us.sum(), cost_usd=lines.cost_usd.sum(), unpriced_us=lines.unpriced_us.sum()
    )


def _amounts(
    tables: Tables, since: datetime, until: datetime, names: Sequence[str], step: timedelta | None
) -> ir.Table:
    """Return what a view adds up: rows of whole days from the ledger by day, those of the ragged ends from its lines.

    The days are those of UTC. Steps that are not days, or begin within one, are told by the lines alone.
    """
    columns = _columns_of(names)
    first = _day(since) if _day(since) == since else _day(since) + _DAY
    last = _day(until)
    if first >= last or (step is not None and (step % _DAY != timedelta(0) or first != since)):
        return _of_lines(tables["cost_line"], since, until, columns)
    days = tables["cost_day"]
    days = days.filter(days.day_at >= ibis.literal(first), days.day_at < ibis.literal(last))
    parts = [days.select("gpu_us", "cost_usd", "unpriced_us", *columns, starts_at="day_at")]
    ends = ((since, first), (last, until))
    parts += [_of_lines(tables["cost_line"], start, end, columns) for start, end in ends if start < end]
    return ibis.union(*parts) if len(parts) > 1 else parts[0]


def _of_lines(lines: ir.Table, since: datetime, until: datetime, columns: Sequence[str]) -> ir.Table:
    within = lines.filter(lines.starts_at >= ibis.literal(since), lines.starts_at < ibis.literal(until))
    us = (within.gpu_seconds * 1e6).round().cast("int64")
    unpriced = ibis.cases((within.cost_usd.isnull(), us), else_=0).cast("int64")
    return within.select("cost_usd", "starts_at", *columns, gpu_us=us, unpriced_us=unpriced).select(
        "gpu_us", "cost_usd", "unpriced_us", *columns, "starts_at"
    )


def _columns_of(names: Sequence[str]) -> list[str]:
    """Return the columns of a line that views and their joins need."""
    wanted = {"category", *(name for name in names if name in OF_LINE)}
    if set(names) & {*OF_GPU, *OF_NODE}:
        wanted |= {"gpu", "node"}
    if set(names) & {*OF_NODE}:
        wanted.add("cluster")
    if set(names) & {*OF_POD, "labels"}:
        wanted.add("pod_uid")
    return sorted(wanted)


def _day(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _joined(lines: ir.Table, tables: Tables, names: set[str]) -> ir.Table:
    if names & {*OF_GPU, *OF_NODE}:
        gpus = tables["gpu"].select("gpu", "model", gpu_uuid="uuid", gpu_node="node")
        lines = lines.left_join(gpus, "gpu").drop("gpu_right")
        lines = lines.mutate(node=ibis.coalesce(lines.gpu_node, lines.node)).drop("gpu_node")
    if names & {*OF_NODE}:
        nodes = tables["node"].select("cluster", "node", "pool", "capacity_type", "region")
        lines = lines.left_join(nodes, ["cluster", "node"]).drop("cluster_right", "node_right")
    if names & {*OF_POD, "labels"}:
        pods = tables["pod"].select("pod_uid", "pod", "owner", "labels")
        lines = lines.left_join(pods, "pod_uid").drop("pod_uid_right")
    return lines


def tidy(rows: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """Return the rows of `spend` with label views in place, money exact, and a word for who is not known.

    What nobody held is `(nobody)`; what somebody held of whom the view's name is not known is `(unattributed)`.
    """
    # A sum of integers comes from some engines as a decimal; where nothing is unpriced there is no second of it.
    named = rows.with_columns(pl.col("gpu_us", "unpriced_us").cast(pl.Int64).fill_null(0))  # see above
    for name in by:
        if is_by_label(name):
            key = "team" if name == "team" else name.removeprefix("label:")
            words = [_label(text, key) for text in named.get_column("labels").to_list()]
            named = named.with_columns(pl.Series(name, words, pl.String()))
    is_held = pl.col("category").is_in(_HELD)
    word = pl.when(is_held).then(pl.lit(UNATTRIBUTED)).otherwise(pl.lit(NOBODY))
    named = named.with_columns(pl.col(name).cast(pl.String()).fill_null(word) for name in by if name != "category")
    keys = [*dict.fromkeys([*by, "category", *(["step"] if "step" in rows.columns else [])])]
    is_unpriced = pl.col("cost_usd").is_null()
    summed = named.group_by(keys).agg(
        pl.col("gpu_us", "unpriced_us").sum(),
        pl.when(is_unpriced.all()).then(None).otherwise(pl.col("cost_usd").sum()).cast(MONEY).alias("cost_usd"),
    )
    return summed.sort(keys)


def _label(text: str | None, key: str) -> str | None:

    value = None if text is None else json.loads(text).get(key)
    return None if value is None else str(value)


def with_moments(rows: pl.DataFrame, since: datetime, step: timedelta) -> pl.DataFrame:
    """Return stepped rows with `ts`, the moment that their step begins."""
    start = pl.lit(since, UTC_MICROSECONDS)
    length = int(step.total_seconds() * 1_000_000)
    return rows.with_columns(ts=(start + pl.duration(microseconds=pl.col("step") * length)).cast(UTC_MICROSECONDS))
