"""After a restart, from the record alone: what of a plan is still to be made, what of a group is to be backed out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from actions.apply import groups_of
from actions.approval import Standing, content_digest
from actions.budget import Made, in_order, made_of
from actions.forbid import BACK_OUT
from actions.kinds import is_undo
from actions.undo import undo_plan
from fleet.move import Move, Outcome, Plan, Stage

_BACK_WITHIN = timedelta(days=1)
_AGAIN_AFTER = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class LeftOver:
    """What a run that was cut short left: approved moves never begun, and the undoing of groups half made."""

    forth: tuple[Plan, ...]
    back: Plan


def left_over(
    plans: Iterable[Plan], outcomes: Sequence[Outcome], known: Mapping[str, Standing], now: datetime
) -> LeftOver:
    """Return what is left of plans that were begun; what is still to be made keeps its plan's name and moment.

    Moves whose end is unknown must be settled first (`actions.restart.settle`): their groups are left alone.
    """
    real = [each for each in outcomes if not each.is_dry_run]
    begun = {each.move_id for each in real}
    plans = tuple(plans)
    everything = [move for each in plans for move in each.moves]
    made = {each.move.move_id: each for each in made_of(everything, real)}
    forth: list[Plan] = []
    half: list[Move] = []
    for each in plans:
        if not any(move.move_id in begun for move in each.moves):
            continue
        left: list[Move] = []
        for group in groups_of([move for move in each.moves if not is_undo(move)]):
            if all(move.move_id not in begun and _is_approved(move, known) for move in group):
                left.extend(group)
            elif len(group) > 1:
                half.extend(_half_made(group, made, now))
        forth += [replace(each, moves=tuple(left))] if left else []
    back = undo_plan(half, real, now) if half else Plan("", now, "{}")
    lately = {each.move_id: each.ts for each in in_order(real) if each.stage in {Stage.REFUSED, Stage.FAILED}}
    kept = tuple(
        replace(move, cause=f"{BACK_OUT} {move.cause}")
        for move in back.moves
        if now - lately.get(move.move_id, _never(now)) >= _AGAIN_AFTER
    )
    return LeftOver(tuple(forth), replace(back, moves=kept))


def _half_made(group: Sequence[Move], made: Mapping[str, Made], now: datetime) -> list[Move]:
    found = [made[move.move_id] for move in group if move.move_id in made]
    standing = [each for each in found if not each.is_undone]
    taken_back = {str(each.move.evidence["undo_of"]) for each in made.values() if is_undo(each.move)}
    is_theirs = any(move.move_id in taken_back for move in group)  # somebody took a part of it back on purpose
    is_settled = all(each.is_certain for each in found)
    is_recent = all(now - each.at < _BACK_WITHIN for each in standing)
    is_half = 0 < len(standing) < len(group)
    return [each.move for each in standing] if is_half and is_settled and is_recent and not is_theirs else []


def _is_approved(move: Move, known: Mapping[str, Standing]) -> bool:
    standing = known.get(content_digest(move))
    return standing is not None and standing.state == "approved" and len(standing.approvers) >= standing.persons


def _never(now: datetime) -> datetime:
    return now - _BACK_WITHIN
