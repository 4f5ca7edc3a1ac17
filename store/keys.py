"""Keys: the small integers that stand for the UUIDs of GPUs and slices, and what is known of the newest rows."""

from dataclasses import dataclass, field
from datetime import datetime

import duckdb
import polars as pl

from store.ask import ask

DIMENSIONS = ("gpu", "slice")


@dataclass(slots=True)
class Keys:
    """The small integer keys by UUID, the newest time stored by table, and which source tells of which GPU."""

    by_uuid: dict[str, dict[str, int]] = field(default_factory=lambda: {name: {} for name in DIMENSIONS})
    newest: dict[str, datetime | None] = field(default_factory=dict)
    told: set[tuple[str, int]] = field(default_factory=set)

    @classmethod
    def load(cls, connection: duckdb.DuckDBPyConnection) -> "Keys":
        """Read the keys that were handed out before."""
        keys = cls()
        for name in DIMENSIONS:
            rows = ask(connection, f"SELECT uuid, {name} FROM {name} ORDER BY {name}")  # noqa: S608 - our own table names
            keys.by_uuid[name] = dict(rows)
        keys.told = set(ask(connection, "SELECT source, gpu FROM source_gpu"))
        return keys

    def copy(self) -> "Keys":
        """Return a copy to go back to."""
        return Keys({name: dict(keys) for name, keys in self.by_uuid.items()}, dict(self.newest), set(self.told))

    def restore(self, before: "Keys") -> None:
        """Go back to a copy."""
        self.by_uuid, self.newest, self.told = before.by_uuid, before.newest, before.told

    def announce(self, dimension: str, uuids: pl.Series) -> None:
        """Hand out keys to UUIDs that have none; only for rows that are stored, or a key would stand for nothing."""
        known = self.by_uuid[dimension]
        following = max(known.values(), default=-1) + 1
        for uuid in uuids.unique(maintain_order=True):
            if uuid not in known:
                known[uuid] = following
                following += 1

    def lookup(self, dimension: str, column: str) -> pl.DataFrame:
        """Return a frame of UUIDs (named `column`) and keys (named as the dimension), to join with."""
        known = self.by_uuid[dimension]
        return pl.DataFrame(
            {column: list(known), dimension: list(known.values())}, schema={column: pl.String(), dimension: pl.UInt32()}
        )
