"""The workspaces that are wished for: manifests in the store, the newest of each in force."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from fleet.frames import conform
from fleet.workspace import Desired
from fleet.workspace_manifest import manifest_of, workspace_from
from fleet.workspace_tables import WORKSPACE_MANIFEST
from store.store import Store


def desired_of(store: Store) -> tuple[Desired, ...]:
    """Return every workspace as it is to be, those that are to go included, by name."""
    rows = store.read(WORKSPACE_MANIFEST.name).sort("workspace", "made_at").unique("workspace", keep="last")
    return tuple(_desired(row) for row in rows.sort("workspace").iter_rows(named=True))


@dataclass(frozen=True, slots=True)
class Version:
    """One manifest of a workspace that was, or is, in force: since when, and by whom."""

    made_at: datetime
    actor: str
    desired: Desired

    def is_same(self, other: "Version") -> bool:
        """Return whether both wish for the same."""
        return self.desired == other.desired


def versions_of(store: Store, name: str) -> list[Version]:
    """Return all manifests of a workspace, the one in force last."""
    rows = store.read(WORKSPACE_MANIFEST.name).filter(pl.col("workspace") == name).sort("made_at")
    return [Version(row["made_at"], row["actor"], _desired(row)) for row in rows.iter_rows(named=True)]


def keep_desired(store: Store, desired: Iterable[Desired], now: datetime, actor: str) -> frozenset[str]:
    """Store what is wished for from now on and return whose wish that changes; what is in force gives no row."""
    before = {each.workspace.name: each for each in desired_of(store)}
    rows = [
        {
            "workspace": each.workspace.name,
            "made_at": _after(before.get(each.workspace.name), now),
            "manifest": json.dumps(manifest_of(each.workspace), sort_keys=True),
            "is_deleted": each.is_deleted,
            "is_forced": each.is_forced,
            "actor": actor,
        }
        for each in desired
        if before.get(each.workspace.name) != each
    ]
    if rows:
        store.append_stored(WORKSPACE_MANIFEST.name, conform(pl.DataFrame(rows), WORKSPACE_MANIFEST, "stored"))
    return frozenset(str(row["workspace"]) for row in rows)


def _after(before: Desired | None, now: datetime) -> datetime:
    """Return a moment after the wish that is in force: two of the same moment would be one."""
    last = None if before is None else before.made_at
    return now if last is None else max(now, last + timedelta(microseconds=1))


def _desired(row: Mapping[str, Any]) -> Desired:
    workspace = workspace_from(json.loads(row["manifest"]), f"manifest of {row['workspace']}")
    return Desired(workspace, row["is_deleted"], row["is_forced"], row["made_at"])


def history_of(store: Store, name: str) -> list[tuple[datetime, str, bool]]:
    """Return when a workspace's manifests were applied, by whom, and whether to delete it; the newest first."""
    rows = store.read(WORKSPACE_MANIFEST.name).filter(pl.col("workspace") == name).sort("made_at", descending=True)
    return list(rows.select("made_at", "actor", "is_deleted").iter_rows())
