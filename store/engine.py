"""The engine: our tables as Ibis tables, and Ibis expressions run to polars frames."""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path

import duckdb
import ibis
import ibis.expr.operations as ops
import ibis.expr.types as ir
import polars as pl

from fleet.errors import BadInput
from fleet.frames import Table
from fleet.tables import TABLES
from store.errors import translated

# Ibis asks for seconds since 1970 through a time without zone, and that cast goes through the calendar: ten times as
# slow as the seconds themselves, which are the same. 100 M samples take 6 s more by it.
_THROUGH_CALENDAR = re.compile(r'EPOCH\(\s*CAST\(\s*("[^"]+"\."[^"]+")\s+AS TIMESTAMP\)\s*\)')


def compiled(expression: ir.Table) -> str:
    """Return an expression as the SQL that we run; seconds since 1970 are asked for without the calendar."""
    return _compiled(expression.op())


@lru_cache(maxsize=128)
def _compiled(operation: ops.Node) -> str:
    # Putting a large question into words takes longer than asking it of a small store, and questions come again.
    return _THROUGH_CALENDAR.sub(r"EPOCH(\1)", str(ibis.to_sql(operation.to_expr(), dialect="duckdb")))


def ibis_table(table: Table) -> ir.Table:
    """Return a fleet table, in stored form, as an unbound Ibis table."""
    return ibis.table({name: _ibis_type(dtype) for name, dtype in table.schema().items()}, name=table.name)


def _ibis_type(dtype: pl.DataType) -> str:
    if isinstance(dtype, pl.Datetime):
        return "timestamp('UTC', 6)"
    if isinstance(dtype, pl.Decimal):
        return f"decimal({dtype.precision}, {dtype.scale})"
    return _SIMPLE[type(dtype)]


_SIMPLE: dict[type[pl.DataType], str] = {
    pl.Int64: "int64",
    pl.Int32: "int32",
    pl.UInt32: "uint32",
    pl.Float32: "float32",
    pl.Float64: "float64",
    pl.String: "string",
    pl.Boolean: "boolean",
}


def whole(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a frame in one piece.

    DuckDB's threads hand rows out in pieces as they come. Where a filter empties the first of them, polars 2.1 panics
    as soon as it puts the rest into words (`pl.format`), so the same question would fail once in a while.
    """
    return frame.rechunk()


class Engine(Mapping[str, ir.Table]):
    """Hands out tables and runs expressions; each run has a cursor of its own, so any thread may ask."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, path: Path | None) -> None:
        """Ask over `connection`; `path` only names the store in errors."""
        self._connection = connection
        self._path = path

    def table(self, name: str) -> ir.Table:
        """Return one table; raises `BadInput` for a name there is not."""
        if name not in TABLES:
            message = f"there is no table {name}; the tables are {', '.join(TABLES)}"
            raise BadInput(message, field=name)
        return ibis_table(TABLES[name])

    def __getitem__(self, name: str) -> ir.Table:
        """Return one table, as `table` does."""
        if name not in TABLES:
            raise KeyError(name)
        return ibis_table(TABLES[name])

    def __iter__(self) -> Iterator[str]:
        """Go through the tables' names."""
        return iter(TABLES)

    def __len__(self) -> int:
        """Return how many tables there are."""
        return len(TABLES)

    def run(self, expression: ir.Table) -> pl.DataFrame:
        """Run an expression over our tables and return its rows; times come out as aware UTC microseconds."""
        return self.query(compiled(expression))

    def ask(self, _name: tuple[str, ...], build: Callable[[], ir.Table]) -> pl.DataFrame:
        """Run a question of a name; an engine that knows it by that name need not have it built again."""
        return self.run(build())

    def query(self, sql: str) -> pl.DataFrame:
        """Run SQL of this room's own and return its rows, in one piece."""
        with translated(self._path), self._connection.cursor() as cursor:
            return whole(cursor.sql(sql).pl())
