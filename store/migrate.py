"""Migrations: numbered SQL files, run once each, in order, each in a transaction."""

import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import duckdb

from fleet.clock import Clock
from fleet.errors import NotAStore, StoreTooNew
from store.ask import ask

_NAME = re.compile(r"(\d{4})_(\w+)\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema."""

    number: int
    name: str
    sql: str


def migrations() -> list[Migration]:
    """Return all migrations there are, in order."""
    found = []
    for file in resources.files("store").joinpath("migrations").iterdir():
        match = _NAME.fullmatch(file.name)
        if match:
            found.append(Migration(int(match.group(1)), match.group(2), file.read_text()))
    return sorted(found, key=lambda migration: migration.number)


def migrate(connection: duckdb.DuckDBPyConnection, path: Path | None, clock: Clock) -> list[int]:
    """Bring an open database to the newest schema and return the numbers that were run.

    Raises `StoreTooNew` for one that a later version wrote and `NotAStore` for one with tables of others.
    """
    known = migrations()
    done = _done(connection, path)
    if done and max(done) > known[-1].number:
        message = (
            f"the store {path} was written by a later version of GPU Steward (its schema is {max(done)}, this version"
            f" knows {known[-1].number}); update GPU Steward, or name another file with --store"
        )
        raise StoreTooNew(message)
    pending = [migration for migration in known if migration.number not in done]
    for migration in pending:
        ask(connection, "BEGIN")
        ask(connection, migration.sql)
        row = [migration.number, migration.name, clock.now()]
        ask(connection, "INSERT INTO migration VALUES (?, ?, ?)", row)
        ask(connection, "COMMIT")
    return [migration.number for migration in pending]


def _done(connection: duckdb.DuckDBPyConnection, path: Path | None) -> set[int]:
    rows = ask(connection, "SELECT table_name FROM information_schema.tables")
    tables = {name for (name,) in rows}
    if not tables:
        return set()
    if "migration" not in tables:
        message = (
            f"{path} is a DuckDB database of something else (it has the table {min(tables)});"
            " name another file with --store"
        )
        raise NotAStore(message)
    return {number for (number,) in ask(connection, "SELECT number FROM migration")}
