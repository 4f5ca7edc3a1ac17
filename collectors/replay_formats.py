"""The recorded traces that are understood: the columns each must have, and how its rows become ours.

Every reader returns frames in wire form and the troubles it met: rows it had to reject, counted, with an example.
The cluster is named after the file.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from fleet.batch import Trouble
from fleet.errors import BadTrace
from fleet.tables import TABLES

Read = tuple[dict[str, pl.DataFrame], tuple[Trouble, ...]]
# The openb traces count seconds from an unknown beginning; ours is set to this moment.
OPENB_ORIGIN = datetime(2023, 1, 1, tzinfo=UTC)
PROVIDER = "trace"


@dataclass(frozen=True, slots=True)
class Format:
    """One kind of recorded trace."""

    name: str
    columns: frozenset[str]
    read: Callable[[pl.DataFrame, Path], Read]


def recognise(columns: frozenset[str]) -> Format | None:
    """Return the format whose columns are all there, the one with most of them; None where none fits."""
    fitting = [known for known in FORMATS if known.columns <= columns]
    return max(fitting, key=lambda known: len(known.columns), default=None)


def _read_minutes(frame: pl.DataFrame, path: Path) -> Read:
    numbers = [name for name in frame.columns if name not in {"vc", "time"}]
    rows, troubles = _usable(frame, path, texts=["vc"], times=["time"], numbers=numbers)
    rows, more = _once_in_order(rows, path, ["vc"], "time")
    demand = rows.select(
        cluster=pl.lit(path.stem),
        workspace="vc",
        ts=_utc("time"),
        running_gpus=pl.col("running_gpu_num").cast(pl.Float64),
        pending_gpus=pl.col("pending_gpu_num").cast(pl.Float64),
        capacity_gpus=pl.col("total_gpu_num").cast(pl.Float64),
        running_jobs=_optional(rows, "running_gpujob_num"),
        pending_jobs=_optional(rows, "pending_gpujob_num"),
    )
    return {"cluster": _cluster(path), "demand_sample": demand}, (*troubles, *more)


def _read_daily_capacity(frame: pl.DataFrame, path: Path) -> Read:
    names = [name for name in frame.columns if name not in {"date", "total"}]
    rows, troubles = _usable(frame, path, times=["date"], numbers=names)
    tall = rows.unpivot(index="date", on=names, variable_name="workspace", value_name="gpus")
    demand = tall.select(
        cluster=pl.lit(path.stem), workspace="workspace", ts=_utc("date"), capacity_gpus=pl.col("gpus").cast(pl.Float64)
    )
    return {"cluster": _cluster(path), "demand_sample": demand}, troubles


def _read_durations(frame: pl.DataFrame, path: Path) -> Read:
    """Read jobs whose run time is recorded but not when they began to run: start and end stay unknown."""
    rows, troubles = _usable(frame, path, texts=["vc"], times=["timestamp"], numbers=["duration", "num_gpus"])
    jobs = rows.with_row_index("number").select(
        job_id=pl.format("{}-{}", pl.lit(path.stem), "number"),
        cluster=pl.lit(path.stem),
        workspace="vc",
        gpus=pl.col("num_gpus").cast(pl.Float64),
        submitted_at=_utc("timestamp"),
        duration_s=pl.col("duration").cast(pl.Float64),
    )
    return {"cluster": _cluster(path), "job": jobs}, troubles


def _read_sizes(frame: pl.DataFrame, path: Path) -> Read:
    rows, troubles = _usable(frame, path, texts=["vc"], numbers=["nodes"])
    pools = rows.select(cluster=pl.lit(path.stem), pool="vc", nodes=pl.col("nodes").cast(pl.Int32))
    return {"cluster": _cluster(path), "node_pool": pools}, troubles


def _read_pods(frame: pl.DataFrame, path: Path) -> Read:
    """Read pods with GPU shares: `gpu_milli` is the part of each GPU, in thousandths; times are seconds."""
    needed = ["num_gpu", "gpu_milli", "creation_time"]
    rows, troubles = _usable(frame, path, texts=["name", "qos"], numbers=needed)
    gpus = pl.col("num_gpu") * pl.when(pl.col("num_gpu") == 1).then(pl.col("gpu_milli") / 1000).otherwise(1.0)
    jobs = rows.select(
        job_id="name",
        cluster=pl.lit(path.stem),
        gpus=gpus.cast(pl.Float64),
        priority="qos",
        submitted_at=_after(OPENB_ORIGIN, "creation_time"),
        started_at=_after(OPENB_ORIGIN, "scheduled_time"),
        ended_at=_after(OPENB_ORIGIN, "deletion_time"),
        status=pl.col("pod_phase").str.to_lowercase() if "pod_phase" in rows.columns else pl.lit(None, pl.String),
    )
    backwards = (pl.col("ended_at") < pl.col("started_at")) | (pl.col("started_at") < pl.col("submitted_at"))
    jobs, more = _reject(jobs, backwards, path, "scheduled_time", "time goes backwards between creation and deletion")
    first = jobs.unique("job_id", keep="first", maintain_order=True)
    repeated = _noted(jobs.height - first.height, path, "name", "duplicate row, the first was kept")
    origin = Trouble("noticed", path.name, f"times count from an unknown moment; it was set to {OPENB_ORIGIN:%F}")
    return {"cluster": _cluster(path), "job": first}, (*troubles, *more, *repeated, origin)


def _read_nodes(frame: pl.DataFrame, path: Path) -> Read:
    """Read nodes with their GPUs; the GPUs are named cluster/node/index, as the trace gives them no names."""
    rows, troubles = _usable(frame, path, texts=["sn"], numbers=["gpu", "cpu_milli", "memory_mib"])
    first = rows.unique("sn", keep="first", maintain_order=True)
    repeated = _noted(rows.height - first.height, path, "sn", "duplicate row, the first was kept")
    nodes = first.select(
        cluster=pl.lit(path.stem),
        node="sn",
        model="model",
        gpus=pl.col("gpu").cast(pl.Int32),
        cpu_milli=pl.col("cpu_milli").cast(pl.Int64),
        memory_mib=pl.col("memory_mib").cast(pl.Int64),
    )
    each = nodes.filter(pl.col("gpus") > 0).with_columns(gpu_index=pl.int_ranges(0, "gpus", dtype=pl.Int32))
    gpus = each.explode("gpu_index").with_columns(uuid=pl.format("{}/{}/{}", "cluster", "node", "gpu_index"))
    gpus = gpus.select("cluster", "node", "gpu_index", "model", "uuid", gpu_uuid="uuid")
    return {"cluster": _cluster(path), "node": nodes, "gpu": gpus}, (*troubles, *repeated)


def _read_series(frame: pl.DataFrame, path: Path) -> Read:
    rows, troubles = _usable(frame, path, texts=["dataset", "series_id", "tenant"], times=["ts"], numbers=[])
    for name in ("gpus_in_use", "gpus_requested"):
        _require(frame, path, name, "a number", frame.schema[name].is_numeric())
    wanted = pl.coalesce("gpus_in_use", "gpus_requested")
    rows, bad = _reject(
        rows, wanted.is_null() | ~wanted.is_finite() | (wanted < 0), path, "gpus_in_use", "no GPU count"
    )
    assumed = rows.filter(pl.col("gpus_in_use").is_null()).height
    if assumed:
        reason = "use is not recorded; what was requested counts as running, as if every job started at once"
        troubles = (*troubles, Trouble("noticed", f"{path.name}.gpus_in_use", reason, assumed))
    troubles += bad
    rows, more = _once_in_order(rows, path, ["series_id"], "ts")
    demand = rows.select(
        cluster="dataset",
        workspace="tenant",
        model=pl.lit(None, pl.String),
        ts=_utc("ts"),
        running_gpus=wanted.cast(pl.Float64),
        pending_gpus=_waiting(),
        capacity_gpus=_optional(rows, "capacity"),
        running_jobs=_optional(rows, "jobs_running"),
        pending_jobs=_optional(rows, "jobs_pending"),
    )
    clusters = rows.select(cluster="dataset").unique(maintain_order=True).with_columns(provider=pl.lit(PROVIDER))
    return {"cluster": clusters, "demand_sample": demand}, (*troubles, *more)


def _usable(
    frame: pl.DataFrame,
    path: Path,
    *,
    texts: list[str] | None = None,
    times: list[str] | None = None,
    numbers: list[str],
) -> tuple[pl.DataFrame, tuple[Trouble, ...]]:
    """Return the rows whose texts and times are there and whose numbers are finite and not negative."""
    if frame.is_empty():
        message = f"{path}: it has no rows"
        raise BadTrace(message, place=str(path))
    for name in times or []:
        _require(frame, path, name, "a time", isinstance(frame.schema[name], (pl.Datetime, pl.Date)))
    for name in numbers:
        _require(frame, path, name, "a number", frame.schema[name].is_numeric())
    troubles: tuple[Trouble, ...] = ()
    rows = frame
    for name in [*(texts or []), *(times or [])]:
        rows, more = _reject(rows, pl.col(name).is_null(), path, name, "missing")
        troubles += more
    for name in numbers:
        is_bad = pl.col(name).is_null() | ~pl.col(name).cast(pl.Float64).is_finite() | (pl.col(name) < 0)
        rows, more = _reject(rows, is_bad, path, name, "missing, not finite or negative")
        troubles += more
    return rows, troubles


def _once_in_order(
    rows: pl.DataFrame, path: Path, group: list[str], time: str
) -> tuple[pl.DataFrame, tuple[Trouble, ...]]:
    backwards = rows.select((pl.col(time).diff().over(group) < pl.duration()).sum()).item()
    first = rows.unique([*group, time], keep="first", maintain_order=True)
    noticed = () if not backwards else (Trouble("noticed", f"{path.name}.{time}", "time goes backwards", backwards),)
    return first, (*noticed, *_noted(rows.height - first.height, path, time, "duplicate row, the first was kept"))


def _reject(
    rows: pl.DataFrame, is_bad: pl.Expr, path: Path, column: str, reason: str
) -> tuple[pl.DataFrame, tuple[Trouble, ...]]:
    is_out = is_bad.fill_null(value=False)
    bad = rows.filter(is_out)
    if bad.is_empty():
        return rows, ()
    trouble = Trouble("rejected", f"{path.name}.{column}", reason, bad.height, str(bad.row(0, named=True)))
    return rows.filter(~is_out), (trouble,)


def _noted(count: int, path: Path, column: str, reason: str) -> tuple[Trouble, ...]:
    return (Trouble("rejected", f"{path.name}.{column}", reason, count),) if count else ()


def _require(frame: pl.DataFrame, path: Path, name: str, what: str, is_right: bool) -> None:  # noqa: FBT001 - the finding, not a switch
    if not is_right:
        message = f"{path}: column {name} should be {what} and is {frame.schema[name]}"
        raise BadTrace(message, place=str(path), field=name)


def _utc(name: str) -> pl.Expr:
    return pl.col(name).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


def _after(origin: datetime, name: str) -> pl.Expr:
    return pl.lit(origin).cast(pl.Datetime("us", "UTC")) + pl.duration(seconds=pl.col(name))


def _optional(rows: pl.DataFrame, name: str) -> pl.Expr:
    return pl.col(name).cast(pl.Float64) if name in rows.columns else pl.lit(None, pl.Float64)


def _waiting() -> pl.Expr:
    """Return what is requested above what is in use; null where either is not recorded or the request is smaller."""
    waiting = pl.col("gpus_requested") - pl.col("gpus_in_use")
    return pl.when(waiting >= 0).then(waiting)


def _cluster(path: Path) -> pl.DataFrame:
    return pl.DataFrame({"cluster": [path.stem], "provider": [PROVIDER]})


def _of_table(name: str) -> Callable[[pl.DataFrame, Path], Read]:
    def read(frame: pl.DataFrame, path: Path) -> Read:
        if frame.is_empty():
            message = f"{path}: it has no rows"
            raise BadTrace(message, place=str(path))
        return {name: frame}, ()

    return read


def _recorded_tables() -> Mapping[str, Format]:
    """Return a format for each table that sources write, in wire form: recordings of our own."""
    made = {
        "verdict",
        "forecast",
        "cost_line",
        "cost_day",
        "plan",
        "move",
        "outcome",
        "gpu_hour",
        "watermark",
        "source_failure",
    }
    return {
        name: Format(f"recorded {name}", frozenset(table.names("wire")), _of_table(name))
        for name, table in TABLES.items()
        if name not in made
    }


FORMATS = (
    Format(
        "minute series by virtual cluster",
        frozenset({"vc", "time", "running_gpu_num", "pending_gpu_num", "total_gpu_num"}),
        _read_minutes,
    ),
    Format("daily capacity by virtual cluster", frozenset({"date", "total"}), _read_daily_capacity),
    Format("jobs with durations", frozenset({"timestamp", "duration", "num_gpus", "vc"}), _read_durations),
    Format("nodes by virtual cluster", frozenset({"vc", "nodes"}), _read_sizes),
    Format(
        "pods with GPU shares",
        frozenset({"name", "num_gpu", "gpu_milli", "qos", "creation_time", "scheduled_time", "deletion_time"}),
        _read_pods,
    ),
    Format("nodes with GPUs", frozenset({"sn", "cpu_milli", "memory_mib", "gpu", "model"}), _read_nodes),
    Format(
        "demand series",
        frozenset({"dataset", "series_id", "tenant", "ts", "gpus_in_use", "gpus_requested"}),
        _read_series,
    ),
    *_recorded_tables().values(),
)
