"""Plans, moves and outcomes as rows of their tables, and back."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict

import polars as pl

from fleet.approval import Approval, Step
from fleet.errors import BadInput
from fleet.frames import check
from fleet.move import HeldBack, Move, Outcome, Plan, Stage
from fleet.tables import APPROVAL, MOVE, OUTCOME, PLAN


def plan_frames(plan: Plan) -> dict[str, pl.DataFrame]:
    """Return a plan as frames of the tables `plan` (one row) and `move` (in order)."""
    row = {
        "plan_id": plan.plan_id,
        "made_at": plan.made_at,
        "policy": plan.policy,
        "move_count": len(plan.moves),
        "saving_usd_per_hour": plan.saving_usd_per_hour,
        "held_back": json.dumps([asdict(each) for each in plan.held_back]),
    }
    moves = [
        {
            "plan_id": plan.plan_id,
            "move_id": move.move_id,
            "ordinal": ordinal,
            "kind": move.kind.value,
            "cluster": move.cluster,
            "target": str(move.target),
            "reason": move.reason,
            "body": move.to_json(),
        }
        for ordinal, move in enumerate(plan.moves)
    ]
    return {
        PLAN.name: check(pl.DataFrame([row], schema=PLAN.schema()), PLAN),
        MOVE.name: check(pl.DataFrame(moves, schema=MOVE.schema()), MOVE),
    }


def plan_from(plans: pl.DataFrame, moves: pl.DataFrame, plan_id: str) -> Plan:
    """Read one plan back from the tables `plan` and `move`; raises `BadInput` where it is not whole there."""
    found = check(plans, PLAN).filter(pl.col("plan_id") == plan_id)
    if found.height != 1:
        message = f"there is no plan {plan_id}; the plans made are listed in the table plan"
        raise BadInput(message, place=PLAN.name, field="plan_id")
    row = found.row(0, named=True)
    bodies = check(moves, MOVE).filter(pl.col("plan_id") == plan_id).sort("ordinal").get_column("body")
    if len(bodies) != row["move_count"]:
        message = f"plan {plan_id} has {row['move_count']} moves and {len(bodies)} are stored"
        raise BadInput(message, place=MOVE.name, field="plan_id")
    held_back = tuple(HeldBack(**each) for each in json.loads(row["held_back"] or "[]"))
    return Plan(plan_id, row["made_at"], row["policy"], tuple(moves_from(bodies)), held_back)


def moves_from(bodies: Iterable[str]) -> list[Move]:
    """Return the moves whose JSON stands in the column `body`."""
    return [Move.from_json(body) for body in bodies]


def outcome_frame(outcomes: Sequence[Outcome]) -> pl.DataFrame:
    """Return outcomes as a frame of the table `outcome`."""
    rows = [{**asdict(each), "stage": each.stage.value} for each in outcomes]
    return check(pl.DataFrame(rows, schema=OUTCOME.schema()), OUTCOME)


def outcomes_from(frame: pl.DataFrame) -> list[Outcome]:
    """Read outcomes back from the table `outcome`."""
    return [
        Outcome(
            move_id=row["move_id"],
            ts=row["ts"],
            stage=Stage(row["stage"]),
            is_dry_run=row["is_dry_run"],
            actor=row["actor"] or "",
            detail=row["detail"] or "",
            prior=row["prior"],
        )
        for row in check(frame, OUTCOME).iter_rows(named=True)
    ]


def approval_frame(rows: Sequence[Approval]) -> pl.DataFrame:
    """Return answers as a frame of the table `approval`."""
    return check(
        pl.DataFrame([{**asdict(row), "step": row.step.value} for row in rows], schema=APPROVAL.schema()), APPROVAL
    )


def approvals_from(frame: pl.DataFrame) -> list[Approval]:
    """Read answers back from the table `approval`."""
    rows = check(frame, APPROVAL).iter_rows(named=True)
    return [Approval(**{**row, "step": Step(row["step"]), "note": row["note"] or ""}) for row in rows]
