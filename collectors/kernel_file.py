"""Read what was added to a written kernel log since a place in it: a journal export, or text of dmesg."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from collectors.kernel_records import read_journal
from fleet.errors import SourceUnavailable

BLOCK_BYTES = 1 << 22
LINE_BYTES = 1 << 24
SETTLED_S = 2.0
"""A file that was not written to for so long ends where it ends; else its last line may be half of one."""

_NEEDLES = (b"NVRM:", b"SXid", b"Linux version ")
_FIELDS = (b"_", b"MESSAGE=", b"SYSLOG_FACILITY=")
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
    """Return the lines worth reading, where the last whole one (or whole entry) ends, and the journal's last cursor."""
    kept: list[tuple[int, bytes]] = []
    cursor, is_export, end = b"", False, start
    for at, block in _blocks(file, start):
        if not block.endswith(b"\n") and not is_settled:
            break  # half a line
        is_export = is_export or _CURSOR + b"=" in block
        kept += _fields(at, block) if is_export else _lines_with(at, block)
        if block.startswith(b"{"):
            cursor = block[block.rfind(b"\n", 0, -1) + 1 :]
        end = at + len(block)
    if is_export:
        entries = [(at, line) for at, line in kept if line.startswith(_CURSOR)]
        ends = [at for at, line in kept if not line.strip()]
        if entries and not is_settled and (not ends or entries[-1][0] > ends[-1]):
            end = entries.pop()[0]  # half an entry
        cursor = entries[-1][1] if entries else b""
    return [line.decode("utf-8", "replace") for at, line in kept if at < end], end, _cursor(cursor)


def _blocks(file: BinaryIO, start: int) -> Iterator[tuple[int, bytes]]:
    """Yield blocks of whole lines with their places; the last may end in the middle of a line."""
    rest = b""
    while read := file.read(BLOCK_BYTES):
        block = rest + read
        cut = block.rfind(b"\n") + 1
        if cut:
            yield start, block[:cut]
        elif len(block) >= LINE_BYTES:  # no log at all: let it pass rather than keep it all
            cut = len(block)
            yield start, block
        start, rest = start + cut, block[cut:]
    if rest:
        yield start, rest


def _lines_with(at: int, block: bytes) -> list[tuple[int, bytes]]:
    """Return the lines that hold a word of ours, in order."""
    found: dict[int, bytes] = {}
    for needle in _NEEDLES:
        place = block.find(needle)
        while place >= 0:
            begin, end = block.rfind(b"\n", 0, place) + 1, block.find(b"\n", place) + 1
            found[begin] = block[begin : end or len(block)]
            place = block.find(needle, end) if end else -1
    return [(at + begin, found[begin]) for begin in sorted(found)]


def _fields(at: int, block: bytes) -> list[tuple[int, bytes]]:
    """Return the lines of journald's export form that matter: its fields, and the empty ones between entries."""
    found = []
    for line in block.splitlines(keepends=True):
        if line.startswith(_FIELDS) or not line.strip() or any(needle in line for needle in _NEEDLES):
            found.append((at, line))
        at += len(line)
    return found


def _cursor(line: bytes) -> str | None:
    if line.startswith(_CURSOR + b"="):
        return line.strip().decode("utf-8", "replace").partition("=")[2]
    entry = read_journal(line.decode("utf-8", "replace")) if line else None
    return None if entry is None else entry.cursor


def _behind(file: BinaryIO, journal: str) -> int:
    """Return where the entry after the one with this cursor begins; 0 where it is not in the file."""
    needle = journal.encode()
    for at, block in _blocks(file, 0):
        place = block.find(needle)
        if place >= 0:
            is_entry_a_line = block[block.rfind(b"\n", 0, place) + 1 : place].startswith(b"{")
            end = block.find(b"\n" if is_entry_a_line else b"\n\n", place)
            return at + (end + 1 if end >= 0 else len(block))
    return 0
