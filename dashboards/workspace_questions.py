"""Which workspaces are wished for, what do their manifests say, and what was done for them?"""

import json
from collections.abc import Collection
from datetime import datetime

import polars as pl

from analytics.known_workspaces import undeclared
from dashboards.port import Engine
from fleet.move import Move
from fleet.workspace_manifest import workspace_from

_RULE, _MOST = "workspace", 200
_WISHES: dict[str, pl.DataType] = {
    "workspace": pl.String(),
    "owner": pl.String(),
    "clusters": pl.String(),
    "namespaces": pl.String(),
    "gpus": pl.Int64(),
    "people": pl.String(),
    "state": pl.String(),
    "changed_at": pl.Datetime("us", "UTC"),
    "actor": pl.String(),
}
_STEPS: dict[str, pl.DataType] = {
    "ts": pl.Datetime("us", "UTC"),
    "kind": pl.String(),
    "target": pl.String(),
    "cluster": pl.String(),
    "stage": pl.String(),
    "reason": pl.String(),
    "detail": pl.String(),
}


def find_workspaces_wished(engine: Engine) -> pl.DataFrame:
    """Return a row for each workspace with a manifest, by name; a quota that is not declared is null."""
    table = engine.table("workspace_manifest")
    rows = engine.run(table.order_by("workspace", "made_at")).unique("workspace", keep="last", maintain_order=True)
    found = []
    for row in rows.sort("workspace").iter_rows(named=True):
        workspace = workspace_from(json.loads(row["manifest"]), f"manifest of {row['workspace']}")
        found.append({
            "workspace": workspace.name,
            "owner": workspace.owner,
            "clusters": ", ".join(workspace.clusters) or "all",
            "namespaces": ", ".join(each.name for each in workspace.namespaces),
            "gpus": sum(each.gpus for each in workspace.quotas) if workspace.quotas else None,
            "people": "; ".join(f"{seat.role}: {', '.join((*seat.users, *seat.groups))}" for seat in workspace.seats),
            "state": "to be deleted" if row["is_deleted"] else "wanted",
            "changed_at": row["made_at"],
            "actor": row["actor"],
        })  # fmt: skip
    return pl.DataFrame(found, schema=_WISHES)


def find_workspaces_undeclared(engine: Engine, now: datetime, wished: Collection[str]) -> pl.DataFrame:
    """Return what is known of the workspaces that have no manifest, as `analytics.known_workspaces.undeclared` does."""
    tables = [engine.run(engine.table(name)) for name in ("workspace", "workspace_member", "quota")]
    return undeclared(tables[0], tables[1], tables[2], now, wished)


def find_steps_of(engine: Engine, workspace: str) -> pl.DataFrame:
    """Return what was tried for one workspace, the newest first; rehearsals left out."""
    moves, outcomes = engine.table("move"), engine.table("outcome")
    tried = outcomes.filter(~outcomes["is_dry_run"]).select("move_id", "ts", "stage", "detail")
    rows = engine.run(moves.filter(moves["kind"].isin(["apply_object", "delete_object"])).inner_join(tried, "move_id"))
    found = []
    for row in rows.sort("ts", descending=True).iter_rows(named=True):
        move = Move.from_json(row["body"])
        if move.workspace == workspace and move.rule == _RULE and row["stage"] != "intended":
            found.append({**{name: row[name] for name in ("ts", "stage", "detail", "cluster", "reason")},
                          "kind": move.kind.value, "target": str(move.target)})  # fmt: skip
    return pl.DataFrame(found[:_MOST], schema=_STEPS)
