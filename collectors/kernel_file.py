"""Read what was added to a written kernel log since a place in it: a journal export, or text of dmesg."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from collectors.kernel_records import read_journal
from fleet.errors import SourceUnavailable

LINE_BYTES = 1 << 20
SETTLED_S = 2.0
"""A file that was not written to for so long ends where it ends; else its last line may be half of one."""

_NEEDLES = (b"NVRM:", b"SXid", b"Linux version ")
_FIELDS = (b"__", b"_BOOT_ID=", b"_HOSTNAME=", b"_SOURCE_", b"_TRANSPORT=", b"SYSLOG_FACILITY=", b"MESSAGE=")
_CURSOR = b"__CURSOR"


@dataclass(frozen=True, slots=True)
class FilePlace:
    """A place in a file: which file, how many bytes in, and journald's own cursor of the last entry before it."""

    file: str
    offset: int
    journal: str | None = None


@dataclass(frozen=True, slots=True)
class Added:
    """The lines with something in them that were added, and where to go on."""

    lines: list[str]
    place: FilePlace


def read_added(path: Path, since: FilePlace | None, now: datetime) -> Added:
    """Return what was added since a place; all of it where the file is another one, or shorter now.

    An export made anew goes on behind the journal's cursor where that entry is in it.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            identity = f"{status.st_dev}:{status.st_ino}"
            is_settled = abs(now.timestamp() - status.st_mtime) > SETTLED_S
            start = 0
            if since is not None and since.file == identity and since.offset <= status.st_size:
                start = since.offset
            elif since is not None and since.journal is not None:
                start = _behind(file, since.journal)
            file.seek(start)
            lines, end, journal = _read(file, start, is_settled=is_settled)
    except OSError as error:
        message = f"{path}: can't be read ({error.strerror})"
        raise SourceUnavailable(message) from error
    before = since.journal if since is not None else None
    return Added(lines, FilePlace(identity, end, journal or before))


def _read(file: BinaryIO, start: int, *, is_settled: bool) -> tuple[list[str], int, str | None]:
    kept: list[tuple[int, bytes]] = []
    end, entry_at, last_cursor = start, None, b""
    for offset, line in _lines(file, start):
        is_whole = line.endswith(b"\n")
        if not is_whole and not is_settled:
            break
        end = offset + len(line)
        if line.startswith(_CURSOR):
            entry_at = offset
        elif not line.strip():
            entry_at = None
        if _CURSOR in line:
            last_cursor = line
        if line.startswith(_FIELDS) or not line.strip() or any(needle in line for needle in _NEEDLES):
            kept.append((offset, line))
    if entry_at is not None and not is_settled:
        end = entry_at  # the entry is still being written
        kept = [(offset, line) for offset, line in kept if offset < end]
    return [line.decode("utf-8", "replace") for _, line in kept], end, _cursor(last_cursor)


def _lines(file: BinaryIO, start: int) -> Iterator[tuple[int, bytes]]:
    offset = start
    while line := file.readline(LINE_BYTES):
        yield offset, line
        offset += len(line)


def _cursor(line: bytes) -> str | None:
    if line.startswith(_CURSOR + b"="):
        return line.strip().decode("utf-8", "replace").partition("=")[2]
    entry = read_journal(line.decode("utf-8", "replace")) if line else None
    return None if entry is None else entry.cursor


def _behind(file: BinaryIO, journal: str) -> int:
    """Return where the entry after the one with this cursor begins; 0 where it is not in the file."""
    needle, is_found = journal.encode(), False
    for offset, line in _lines(file, 0):
        if is_found and (line.startswith((b"{", _CURSOR)) or not line.strip()):
            return offset
        is_found = is_found or needle in line
    return file.tell() if is_found else 0
