"""The door through which DuckDB's exceptions leave: as ours, in words that say what to do."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath

import duckdb

from fleet.errors import NotAStore, StoreBusy, StoreError, StoreFull, StoreTooNew

# DuckDB tells these apart by their words only. The first pattern that fits speaks, so the narrow ones come first.
_BUSY = re.compile(r"could not set lock|conflicting lock|being used by another process", re.IGNORECASE)
_OWNER = re.compile(r"held in (?P<program>.+?) \(PID (?P<pid>\d+)\)")
_ADVICE: tuple[tuple[re.Pattern[str], type[StoreError], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), kind, advice)
    for pattern, kind, advice in (
        (
            r"with a different configuration than existing",
            StoreBusy,
            "is open in this process already; use that one, with session() for another thread",
        ),
        (
            r"no space left|disk full|file too large|disk quota",
            StoreFull,
            "has no room left on its disk; free some and repeat: nothing stored before was lost",
        ),
        (
            r"with version number \d+, but|newer version of duckdb|serialized with a (?:newer|later)",
            StoreTooNew,
            "was written by a later version of DuckDB; update DuckDB, or name another file with --store",
        ),
        (
            # The last: another program's format, for which DuckDB would like to load a reader.
            r"not (?:an?|a valid) duckdb|magic bytes|checksum|corrupt|serializ|read enough bytes|^IO Error: Extension",
            NotAStore,
            "is no GPU Steward database, or it is damaged; restore it from a copy, or name another file with --store",
        ),
        (
            r"permission denied|read-only|cannot open file|operation not permitted",
            StoreError,
            "can't be opened or written; see who may write the file and its folder, or name another with --store",
        ),
        (
            r"out of memory|failed to allocate|could not allocate",
            StoreError,
            "needs more memory than there is for this; ask for a shorter time, or give the process more",
        ),
        (r"already closed|connection has been closed", StoreError, "is closed; open it again"),
        (
            r"has been invalidated",
            StoreError,
            "had to stop after an earlier error; open it again: nothing acknowledged was lost",
        ),
    )
)


@contextmanager
def translated(path: Path | None) -> Iterator[None]:
    """Raise what DuckDB raises inside as the house's own exceptions about the store at `path`."""
    name = "the store in memory" if path is None else f"the store {path}"
    try:
        yield
    except duckdb.Error as error:
        raise _told(name, str(error)) from error


def _told(name: str, text: str) -> StoreError:
    if _BUSY.search(text):
        return StoreBusy(f"{name} is open in {_owner(text)}; stop it, ask it through its API, or name another file")
    for pattern, kind, advice in _ADVICE:
        if pattern.search(text):
            return kind(f"{name} {advice}")
    return StoreError(f"{name} could not do it: {text.splitlines()[0]}; nothing of it was stored")


def _owner(text: str) -> str:
    owner = _OWNER.search(text)
    if owner is None:
        return "another process"
    return f"process {owner['pid']} ({PurePath(owner['program']).name})"
