"""The workspaces that are wished for: manifests in the store, the newest of each in force."""

import json
from collections.abc import Iterable
from datetime import datetime

import polars as pl

from fleet.frames import conform
from fleet.workspace import Desired
from fleet.workspace_manifest import manifest_of, workspace_from
from fleet.workspace_tables import WORKSPACE_MANIFEST
from store.store import Store


def desired_of(store: Store) -> tuple[Desired, ...]:
    """Return every workspace as it is to be, those that are to go included, by name."""
    rows = store.read(WORKSPACE_MANIFEST.name).sort("workspace", "made_at").unique("workspace", keep="last")
    return tuple(
        Desired(
            workspace_from(json.loads(row["manifest"]), f"manifest of {row['workspace']}"),
            row["is_deleted"],
            row["is_forced"],
        )
        for row in rows.sort("workspace").iter_rows(named=True)
    )


def keep_desired(store: Store, desired: Iterable[Desired], now: datetime, actor: str) -> None:
    """Store what is wished for from now on; what is in force as it is gives no row."""
    before = {each.workspace.name: each for each in desired_of(store)}
    rows = [
        {
            "workspace": each.workspace.name,
            "made_at": now,
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


def history_of(store: Store, name: str) -> list[tuple[datetime, str, bool]]:
    """Return when a workspace's manifests were applied, by whom, and whether to delete it; the newest first."""
    rows = store.read(WORKSPACE_MANIFEST.name).filter(pl.col("workspace") == name).sort("made_at", descending=True)
    return list(rows.select("made_at", "actor", "is_deleted").iter_rows())
