"""A runner for expressions over frames in the stored form, and builders of small fleets."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

import duckdb
import ibis
import ibis.expr.types as ir
import polars as pl
import pytest

from fleet.frames import conform
from fleet.tables import TABLES
from store.engine import compiled


def ibis_table(name: str) -> ir.Table:
    """Give a table without an engine, as the store hands them out."""
    names = {
        pl.UInt32(): "uint32", pl.Int32(): "int32", pl.Int64(): "int64", pl.Float32(): "float32",
        pl.Float64(): "float64", pl.String(): "string", pl.Boolean(): "boolean",
    }  # fmt: skip
    schema = {
        column: "timestamp('UTC', 6)"
        if isinstance(dtype, pl.Datetime)
        else "decimal(18, 6)"
        if isinstance(dtype, pl.Decimal)
        else names[dtype]
        for column, dtype in TABLES[name].schema("stored").items()
    }
    return ibis.table(schema, name=name)


class Engine:
    """DuckDB in memory over the frames of one test, with a small fleet that tests add to."""

    def __init__(self) -> None:
        self.connection = duckdb.connect()
        self.connection.execute("SET TimeZone='UTC'")
        self.tables: Mapping[str, ir.Table] = {name: ibis_table(name) for name in TABLES}
        self.rows: dict[str, list[dict[str, object]]] = {name: [] for name in TABLES}
        self.frames: dict[str, pl.DataFrame] = {name: table.empty("stored") for name, table in TABLES.items()}

    def put(self, name: str, frame: pl.DataFrame) -> None:
        self.frames[name] = pl.concat([self.frames[name], conform(frame, TABLES[name], "stored")])

    def add(self, name: str, **values: object) -> None:
        self.rows[name].append(values)

    def add_gpu(self, gpu: int, node: str = "n1", **more: object) -> None:
        self.add("gpu", **{"gpu": gpu, "uuid": f"GPU-{gpu}", "cluster": "c1", "node": node, **more})

    def add_samples(self, gpu: int, times: Iterable[datetime], table: str = "gpu_sample", **values: object) -> None:
        """Add a sample at each time; a value that is a list is taken one by one, any other is repeated."""
        key = "gpu" if table == "gpu_sample" else "slice"
        for position, moment in enumerate(times):
            row = {name: value[position] if isinstance(value, list) else value for name, value in values.items()}
            self.add(table, **{key: gpu, "ts": moment, **row})

    def add_pod(self, gpu: int, starts_at: datetime, name: str = "train", **more: object) -> None:
        values: dict[str, object] = {
            "cluster": "c1", "namespace": "team", "pod": f"{name}-0", "pod_uid": f"uid-{name}", "workload_kind": "Job",
            "workload": name, "workspace": "research", "gpu": gpu, "fraction": 1.0, "starts_at": starts_at,
        }  # fmt: skip
        self.add("pod_allocation", **{**values, **more})

    def run(self, expression: ir.Table) -> pl.DataFrame:
        for name, table in TABLES.items():
            rows = pl.DataFrame(self.rows[name], schema=table.schema("stored"))
            self.connection.register(name, pl.concat([self.frames[name], rows]))
        frame: pl.DataFrame = self.connection.sql(compiled(expression)).pl().rechunk()
        return frame.with_columns(pl.col(pl.Datetime).dt.cast_time_unit("us").dt.convert_time_zone("UTC"))


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine()
    yield made
    made.connection.close()


@pytest.fixture
def now() -> datetime:
    return datetime.fromisoformat("2026-03-02T12:00:00+00:00")
