"""Export: every table as Parquet, in a folder that is either whole or not there."""

import shutil
from pathlib import Path

import duckdb

from fleet.errors import BadInput, StoreError
from fleet.tables import TABLES
from store.ask import ask, count


def export(cursor: duckdb.DuckDBPyConnection, folder: Path) -> dict[str, int]:
    """Write each table, in stored form, to `<folder>/<table>.parquet`; return rows by table.

    All tables are of one moment. Raises `BadInput` where the folder is there already.
    """
    if folder.exists():
        message = f"export: {folder} is there already; name a new folder"
        raise BadInput(message, field="folder")
    draft = folder.with_name(folder.name + ".part")
    try:
        shutil.rmtree(draft, ignore_errors=True)  # of an export that was cut off
        draft.mkdir(parents=True)
        rows = _write_tables(cursor, draft)
        draft.rename(folder)
    except OSError as error:
        message = f"export: {folder} can't be written ({error.strerror}); free room or name another folder"
        raise StoreError(message) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return rows


def _write_tables(cursor: duckdb.DuckDBPyConnection, folder: Path) -> dict[str, int]:
    ask(cursor, "BEGIN")
    try:
        return {name: _write_table(cursor, name, folder) for name in TABLES}
    finally:
        ask(cursor, "ROLLBACK")  # nothing was changed


def _write_table(cursor: duckdb.DuckDBPyConnection, name: str, folder: Path) -> int:
    columns, order = ", ".join(TABLES[name].names()), ", ".join(TABLES[name].key)
    file = str(folder / f"{name}.parquet").replace("'", "''")
    query = f"SELECT {columns} FROM {name} ORDER BY {order}"  # noqa: S608 - our own names
    return count(cursor, f"COPY ({query}) TO '{file}' (FORMAT parquet)")
