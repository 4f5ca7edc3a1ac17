"""What a source hands over: frames of our tables, and what it could not give."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType

import polars as pl

from fleet.errors import BadFrame
from fleet.frames import conform
from fleet.tables import TABLES


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing a source could not give: a failure, or rows it had to reject.

    `kind` is "failed", "rejected", or "noticed" (kept, but strange); `row_count` counts the rows concerned.
    """

    kind: str
    place: str
    reason: str
    row_count: int = 0
    example: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows to be stored together or not at all.

    `frames` maps a table's name to a frame in wire form. `read_until` is the source's watermark: everything
    before it is in this batch or was handed over earlier; None where the source has no order in time. `cursor` is the
    same place in the source's own words, kept with the watermark.
    """

    source: str
    frames: Mapping[str, pl.DataFrame] = field(default_factory=lambda: MappingProxyType({}))
    read_until: datetime | None = None
    troubles: tuple[Trouble, ...] = ()
    cursor: str | None = None

    def checked(self) -> "Batch":
        """Return the batch with every frame conforming to its table, or raise `BadFrame`."""
        for name in self.frames:
            if name not in TABLES:
                message = f"source {self.source}: there is no table {name}; the tables are {', '.join(TABLES)}"
                raise BadFrame(message, place=self.source, field=name)
        frames = {name: conform(frame, TABLES[name], "wire") for name, frame in self.frames.items()}
        return replace(self, frames=MappingProxyType(frames))

    def row_count(self) -> int:
        """Return the number of rows in all frames."""
        return sum(frame.height for frame in self.frames.values())
