"""Replay: recorded traces become rows of our tables; what a file is, its columns tell, not its name."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from collectors.replay_formats import FORMATS, Format, recognise
from fleet.batch import Batch, Trouble
from fleet.errors import BadTrace, SourceUnavailable

CHUNK_ROWS = 500_000
SUFFIXES = (".parquet", ".csv")


@dataclass(frozen=True, slots=True)
class TraceSource:
    """One recorded trace as a Source: its rows come once, in chunks, with what had to be rejected."""

    path: Path
    kind: Format

    @property
    def name(self) -> str:
        """Return the name under which its failures are kept."""
        return f"replay:{self.path.name}"

    def collect(self, since: datetime | None, until: datetime) -> Iterator[Batch]:  # noqa: ARG002 - a recording has its own times
        """Yield the whole recording; raises `BadTrace` where no row of it can be used."""
        frame = _read(self.path)
        frames, troubles = self.kind.read(frame, self.path)
        if not any(rows.height for table, rows in frames.items() if table != "cluster"):
            why = "; ".join(f"{trouble.reason} ({trouble.row_count})" for trouble in troubles)
            message = f"{self.path}: none of its {frame.height} rows can be used: {why}"
            raise BadTrace(message, place=str(self.path))
        yield from _chunks(self.name, frames, troubles)


def open_traces(path: Path) -> list[TraceSource]:
    """Return a source per recorded trace in a file or folder; raises `BadTrace` naming what is not one."""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
        if not files:
            message = f"{path}: there is no recorded trace in it (files ending in {' or '.join(SUFFIXES)})"
            raise BadTrace(message, place=str(path))
        return [source for source in (_open(file, is_one_of_many=True) for file in files) if source is not None]
    if not path.exists():
        message = f"there is no file {path}"
        raise SourceUnavailable(message)
    source = _open(path, is_one_of_many=False)
    return [] if source is None else [source]


def _open(path: Path, *, is_one_of_many: bool) -> TraceSource | None:
    columns = _read(path, head=0).columns
    kind = recognise(frozenset(columns))
    if kind is not None:
        return TraceSource(path, kind)
    if is_one_of_many:
        return None
    near = max(FORMATS, key=lambda known: len(known.columns & set(columns)) / len(known.columns))
    lacking = ", ".join(sorted(near.columns - set(columns)))
    known = "; ".join(f"{each.name}: {', '.join(sorted(each.columns))}" for each in FORMATS)
    message = f"{path}: its columns are of no known trace; the nearest, {near.name}, lacks {lacking}. Known: {known}"
    raise BadTrace(message, place=str(path), field=lacking)


def _read(path: Path, head: int | None = None) -> pl.DataFrame:
    try:
        if path.suffix == ".csv":
            return pl.read_csv(path, try_parse_dates=True, n_rows=head)
        if head == 0:
            return pl.DataFrame(schema=pl.read_parquet_schema(path))
        return pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        message = f"{path}: can't be read as {path.suffix.lstrip('.') or 'parquet'}: {first}"
        raise BadTrace(message, place=str(path)) from error


def _chunks(source: str, frames: dict[str, pl.DataFrame], troubles: tuple[Trouble, ...]) -> Iterator[Batch]:
    said = troubles
    for table, frame in frames.items():
        for rows in frame.iter_slices(CHUNK_ROWS):
            yield Batch(source, {table: rows}, troubles=said)
            said = ()
