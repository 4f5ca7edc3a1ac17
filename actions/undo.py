"""Take back: the inverse of a move, and the plan that takes back what was made."""

import json
from collections.abc import Sequence
from datetime import datetime
from types import MappingProxyType

from actions.budget import in_order, made_of
from actions.fields import Fields, fields_after
from actions.plan import content_of, digest
from fleet.clock import as_utc
from fleet.errors import BadInput, MoveRefused
from fleet.move import HeldBack, Move, MoveKind, Outcome, Plan, Stage, Value

_NEEDED = {
    MoveKind.FENCE_GPU: ("is_fenced",),
    MoveKind.UNFENCE_GPU: ("is_fenced",),
    MoveKind.CORDON_NODE: ("is_schedulable", "cordoned_by"),
    MoveKind.UNCORDON_NODE: ("is_schedulable", "cordoned_by"),
    MoveKind.SUSPEND_WORKLOAD: ("is_suspended", "suspended_by", "replicas"),
    MoveKind.RESUME_WORKLOAD: ("is_suspended", "suspended_by", "replicas"),
    MoveKind.SET_QUOTA: ("gpus", "borrowing_gpus"),
}


def invert(move: Move, prior_json: str) -> Move:
    """Return the move that restores the fields `prior_json`, which `Cluster.make` answered to `move`.

    Its evidence names the move it takes back (`undo_of`) and what the target must still look like (`expected`).
    Raises `BadInput` where the prior fields can't be read, `MoveRefused` where `move` had changed nothing.
    """
    prior = _read(move, prior_json)
    expected = fields_after(move)
    # a node that another had cordoned before us would not be given back by uncordoning it: the first field decides
    decisive = _NEEDED[move.kind] if move.kind is MoveKind.SET_QUOTA else _NEEDED[move.kind][:1]
    if all(prior[name] == expected[name] for name in decisive):
        message = f"move {move.move_id} changed nothing on {move.target}; there is nothing to take back"
        raise MoveRefused(message)
    return Move(
        move_id=digest("undo", move.move_id, prior),
        kind=move.kind.inverse,
        cluster=move.cluster,
        target=move.target,
        cause=f"undo {move.cause}",
        reason=f"takes back {move.kind.value} of {move.target}: {move.reason}",
        gpu_uuids=move.gpu_uuids,
        gpus=move.gpus,
        workspace=move.workspace,
        node=move.node,
        pool=move.pool,
        arguments=MappingProxyType(_arguments(move, prior)),
        risk="puts back what was there before",
        evidence=MappingProxyType({"undo_of": move.move_id, "expected": expected, "before": expected}),
    )


def undo_plan(moves: Sequence[Move], outcomes: Sequence[Outcome], now: datetime) -> Plan:
    """Return the plan that takes back, last first, what was really made of `moves` and not taken back yet."""
    now = as_utc(now, "now")
    priors = {
        each.move_id: each.prior for each in in_order(outcomes) if each.stage is Stage.APPLIED and not each.is_dry_run
    }
    inverses: list[Move] = []
    held: list[HeldBack] = []
    for made in reversed(made_of(moves, outcomes)):
        if made.is_undone or "undo_of" in made.move.evidence:
            continue
        try:
            inverses.append(invert(made.move, priors[made.move.move_id] or ""))
        except (BadInput, MoveRefused) as error:
            held.append(HeldBack(str(made.move.target), made.move.kind.inverse.value, str(error), made.move.gpus))
    settings = json.dumps({"undo_of": [move.evidence["undo_of"] for move in inverses]})
    plan_id = digest("plan", now.date(), settings, [content_of(move) for move in inverses])
    return Plan(plan_id, now, settings, tuple(inverses), tuple(held))


def _arguments(move: Move, prior: Fields) -> dict[str, Value]:
    if move.kind is MoveKind.SUSPEND_WORKLOAD:
        return {"replicas": prior["replicas"]}
    if move.kind is MoveKind.SET_QUOTA:
        return {**move.arguments, "gpus": prior["gpus"], "borrowing_gpus": prior["borrowing_gpus"]}
    return {}


def _read(move: Move, prior_json: str) -> Fields:
    try:
        prior = json.loads(prior_json)
    except json.JSONDecodeError as error:
        message = f"move {move.move_id}: its prior fields are not JSON: {prior_json!r}"
        raise BadInput(message, place=move.move_id, field="prior") from error
    missing = [name for name in _NEEDED[move.kind] if not isinstance(prior, dict) or name not in prior]
    if missing:
        message = f"move {move.move_id}: its prior fields lack {', '.join(missing)}"
        raise BadInput(message, place=move.move_id, field="prior")
    return {name: prior[name] for name in _NEEDED[move.kind]}
