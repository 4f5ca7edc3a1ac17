"""The door through which DuckDB's exceptions leave: as ours, in words that say what to do."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from fleet.errors import NotAStore, StoreBusy, StoreError, StoreFull

_FULL = re.compile(r"no space left|disk full|file too large|disk quota", re.IGNORECASE)
_BUSY = re.compile(r"could not set lock|conflicting lock|being used by another process", re.IGNORECASE)
_PID = re.compile(r"\(PID (\d+)\)")
_FOREIGN = re.compile(
    r"not (?:an?|a valid) duckdb database|not a valid duckdb|magic bytes|checksum|corrupt|serializ|deserializ",
    re.IGNORECASE,
)


@contextmanager
def translated(path: Path | None) -> Iterator[None]:
    """Raise what DuckDB raises inside as the house's own exceptions about the store at `path`."""
    name = "the store in memory" if path is None else f"the store {path}"
    try:
        yield
    except duckdb.Error as error:
        text = str(error)
        if _BUSY.search(text):
            owner = _PID.search(text)
            who = f"process {owner.group(1)}" if owner else "another process"
            message = f"{name} is open in {who}; stop it, ask it through its API, or name another file with --store"
            raise StoreBusy(message) from error
        if _FULL.search(text):
            message = f"{name} has no room left on its disk; free some and repeat: nothing stored before was lost"
            raise StoreFull(message) from error
        if _FOREIGN.search(text):
            message = f"{name} is not a GPU Steward database, or it is damaged; move it away or name another file"
            raise NotAStore(message) from error
        message = f"{name} could not do it: {text.splitlines()[0]}"
        raise StoreError(message) from error
