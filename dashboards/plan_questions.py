"""What would be done next, what would it save, and what was left alone on purpose?"""

import json
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import ibis
import polars as pl

from dashboards.port import Engine
from dashboards.scope import Scope, latest
from fleet.frames import MONEY
from fleet.move import Move

_MOVES: dict[str, pl.DataType] = {
    "ordinal": pl.Int32(),
    "kind": pl.String(),
    "target": pl.String(),
    "cluster": pl.String(),
    "workspace": pl.String(),
    "gpus": pl.Float64(),
    "saving_usd_per_hour": MONEY,
    "reason": pl.String(),
    "risk": pl.String(),
    "stage": pl.String(),
}
_HELD: dict[str, pl.DataType] = {
    "subject": pl.String(),
    "action": pl.String(),
    "gpus": pl.Float64(),
    "reason": pl.String(),
}


@dataclass(frozen=True, slots=True)
class Planned:
    """The latest plan: its moves in order with how far each has come, and what was held back with the reason."""

    made_at: datetime
    moves: pl.DataFrame
    held_back: pl.DataFrame
    saving_usd_per_hour: Decimal | None


def find_plan(engine: Engine, scope: Scope) -> Planned | None:
    """Return what was planned last; None where no plan was ever made."""
    made_at = latest(engine, "plan", "made_at")
    if made_at is None:
        return None
    plan = engine.table("plan")
    plans = engine.run(plan.filter(plan["made_at"] == ibis.literal(made_at)))
    moves = _moves(engine, scope, plans["plan_id"].to_list())
    priced = [saving for saving in moves["saving_usd_per_hour"].to_list() if saving is not None]
    held = [item for text in plans["held_back"].drop_nulls().to_list() for item in json.loads(text)]
    return Planned(
        made_at,
        moves,
        pl.DataFrame([{name: item.get(name) for name in _HELD} for item in held], schema=_HELD),
        sum(priced, Decimal(0)) if priced else None,
    )


def _moves(engine: Engine, scope: Scope, plan_ids: list[str]) -> pl.DataFrame:
    table, outcome = scope.here(engine.table("move")), engine.table("outcome")
    rows = engine.run(table.filter(table["plan_id"].isin(plan_ids)).order_by("ordinal"))
    ids = rows["move_id"].to_list()
    done = engine.run(outcome.filter(outcome["move_id"].isin(ids)).order_by("ts")) if ids else None
    stages = {} if done is None else {row["move_id"]: _stage(row) for row in done.iter_rows(named=True)}
    moves = [
        _row(ordinal, Move.from_json(body), stages.get(move_id, "planned"))
        for ordinal, move_id, body in rows.select("ordinal", "move_id", "body").iter_rows()
    ]
    return pl.DataFrame(moves, schema=_MOVES)


def _stage(outcome: dict[str, object]) -> str:
    return f"{outcome['stage']} (dry run)" if outcome["is_dry_run"] else str(outcome["stage"])


def _row(ordinal: int, move: Move, stage: str) -> dict[str, object]:
    return {
        "ordinal": ordinal,
        **move.row(),
        "risk": move.risk,
        "stage": stage,
    }
