"""Take back: the inverse of a move, and the plan that takes back what was made."""

import json
from collections.abc import Sequence
from datetime import datetime
from types import MappingProxyType

from actions.budget import Made, made_of
from actions.fields import DRAIN_GPUS, Fields, fields_after
from actions.kinds import KINDS
from actions.plan import content_of, digest
from fleet.clock import as_utc
from fleet.errors import BadInput, MoveRefused
from fleet.move import HeldBack, Move, MoveKind, Outcome, Plan, Value

_OPTIONAL = ("lending_gpus", "weight")


def invert(move: Move, prior_json: str) -> Move:
    """Return the move that restores the fields `prior_json`, which `Cluster.make` answered to `move`.

    Its evidence names the move it takes back (`undo_of`) and what the target must still look like (`expected`).
    Raises `BadInput` where the prior fields can't be read, `MoveRefused` where `move` had changed nothing.
    """
    prior = _read(move, prior_json)
    expected = fields_after(move)
    # a node that another had cordoned before us would not be given back by uncordoning it: the first field decides
    decisive = [name for name in list(prior)[: KINDS[move.kind].decisive] if name in expected]
    if all(prior[name] == expected[name] for name in decisive):
        message = f"move {move.move_id} changed nothing on {move.target}; there is nothing to take back"
        raise MoveRefused(message)
    return Move(
        move_id=digest("undo", move.move_id, prior),
        kind=_inverse(move, prior),
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
        evidence=MappingProxyType(
            {"undo_of": move.move_id, "expected": expected, "before": expected, **_identity(move)}
        ),
        rule=move.rule,
    )


def undo_plan(moves: Sequence[Move], outcomes: Sequence[Outcome], now: datetime) -> Plan:
    """Return the plan that takes back, last first, what was really made of `moves` and not taken back yet."""
    now = as_utc(now, "now")
    inverses: list[Move] = []
    held: list[HeldBack] = []
    for made in reversed(made_of(moves, outcomes)):
        if made.is_undone or not made.is_certain or "undo_of" in made.move.evidence:
            continue
        try:
            inverses.append(invert(made.move, made.prior or ""))
        except (BadInput, MoveRefused) as error:
            held.append(HeldBack(str(made.move.target), made.move.kind.inverse.value, str(error), made.move.gpus))
    settings = json.dumps({"undo_of": [move.evidence["undo_of"] for move in inverses]})
    plan_id = digest("plan", now.date(), settings, [content_of(move) for move in inverses])
    return Plan(plan_id, now, settings, tuple(inverses), tuple(held))


def why_not_its_undo(move: Move, made: Made | None) -> str | None:
    """Say why a move does not take back `made`, what the record has of the move that it names; None where it does.

    An undo passes by budgets, windows and approvals, so nothing else may call itself one.
    """
    name = str(move.evidence.get("undo_of"))
    if made is None or made.move.move_id != name:
        return f"it says that it takes back move {name}, which was never made by the record"
    if not made.is_certain:
        return f"it is not known yet whether move {name} was made"
    try:
        inverse = invert(made.move, made.prior or "")
    except (BadInput, MoveRefused) as error:
        return str(error)
    parts = [(each.kind, each.cluster, each.target, each.gpu_uuids, dict(each.arguments)) for each in (move, inverse)]
    return None if parts[0] == parts[1] else f"it is not what takes move {name} back"


def _inverse(move: Move, prior: Fields) -> MoveKind:
    first = prior[KINDS[move.kind].fields[0]]
    if KINDS[move.kind].scope == "object":
        return MoveKind.DELETE_OBJECT if first is None else MoveKind.APPLY_OBJECT
    if move.kind in _RETOLD and first is not None:
        return move.kind if move.kind in _TELLING else move.kind.inverse
    return move.kind.inverse


_TELLING = {MoveKind.TAINT_NODE, MoveKind.MARK_NODE, MoveKind.DRAIN_NODE, MoveKind.REQUEST_REPAIR}
_RETOLD = _TELLING | {kind.inverse for kind in _TELLING}


def _arguments(move: Move, prior: Fields) -> dict[str, Value]:
    first = KINDS[move.kind].fields[0]
    if move.kind is MoveKind.SUSPEND_WORKLOAD:
        return {"replicas": prior["replicas"]}
    if move.kind is MoveKind.SET_QUOTA:
        changed = {name: prior[name] for name in _OPTIONAL if name in prior and name in move.arguments}
        return {**move.arguments, "gpus": prior["gpus"], "borrowing_gpus": prior["borrowing_gpus"], **changed}
    if move.kind in _RETOLD:
        # the taint's key is needed to take it away, too
        return {**move.arguments} if prior[first] is None else {**_scope(prior[first]), first: prior[first]}
    if move.kind is MoveKind.UNCORDON_NODE and prior["cordon_cause"] is not None:
        return {"cause": prior["cordon_cause"]}
    is_set = first in move.arguments or KINDS[move.kind].scope == "object"
    return {**move.arguments, first: prior[first]} if is_set else {}


def _identity(move: Move) -> dict[str, object]:
    return {"uid": move.evidence["uid"]} if "uid" in move.evidence else {}


def _scope(drain: Value) -> dict[str, Value]:
    is_of_gpus = isinstance(drain, str) and drain.startswith(f"{DRAIN_GPUS} ")
    return {"scope": DRAIN_GPUS} if is_of_gpus else {}


def _read(move: Move, prior_json: str) -> Fields:
    try:
        prior = json.loads(prior_json)
    except json.JSONDecodeError as error:
        message = f"move {move.move_id}: its prior fields are not JSON: {prior_json!r}"
        raise BadInput(message, place=move.move_id, field="prior") from error
    needed = [name for name in KINDS[move.kind].fields if name != "cordon_cause"]
    missing = [name for name in needed if not isinstance(prior, dict) or name not in prior]
    if missing:
        message = f"move {move.move_id}: its prior fields lack {', '.join(missing)}"
        raise BadInput(message, place=move.move_id, field="prior")
    # records of earlier versions have fewer fields
    known = {name: prior.get(name) for name in KINDS[move.kind].fields}
    return {**known, **{name: prior[name] for name in _OPTIONAL if name in prior}}
