"""Ask again: the last look at a move against the cluster as it is now, just before it is made."""

from collections.abc import Mapping
from datetime import datetime

from actions.budget import Spending, why_no_room
from actions.evidence import why_not_now
from actions.fields import agrees, fields_after, fields_of, version_of
from actions.forbid import why_forbidden
from actions.index import FleetIndex, index_of
from actions.kinds import is_taking, is_undo, rule_of
from actions.policy import ActionPolicy
from actions.preconditions import check_target
from fleet.errors import MoveRefused, StaleState
from fleet.move import Move
from fleet.state import FleetState

_NO_SPENDING = Spending()


def guard(
    move: Move,
    fresh: FleetState,
    policy: ActionPolicy,
    now: datetime,
    spending: Spending = _NO_SPENDING,
    *,
    is_stopped: bool | str = False,
) -> None:
    """Return where `move` may still be made on the state `fresh`.

    Raises `StaleState` where the world is no longer the one planned for, `MoveRefused` where a rule, a budget or
    the kill switch says no. Nothing is changed.
    """
    if is_stopped:
        raise MoveRefused(why_stopped(is_stopped))
    _check_times(move, fresh, policy, now)
    index = index_of(fresh)
    current = fields_of(move, index)
    if current is None:
        message = f"{move.target} in {move.cluster} is gone"
        raise StaleState(message)
    if is_undo(move):
        _check_still_ours(move, current)
        return
    if policy.modes.of(rule_of(move)) in {"off", "observe"}:
        message = f"rule {rule_of(move)} may not act: its mode is {policy.modes.of(rule_of(move))}"
        raise MoveRefused(message)
    if agrees(current, fields_after(move)):
        message = f"{move.target} is already so"
        raise MoveRefused(message)
    check_target(move, index, policy, now)
    _check_version(move, index)
    reason = why_forbidden(move, spending.recent, index, policy, now) or why_no_room(move, spending, index, policy, now)
    if reason is not None:
        raise MoveRefused(reason)


def why_stopped(is_stopped: bool | str) -> str:  # noqa: FBT001 - what the kill switch answered, not a switch of ours
    """Return why moves are stopped, in the words of whoever stopped them where there are any."""
    return is_stopped if isinstance(is_stopped, str) else "the kill switch is on"


def _check_times(move: Move, fresh: FleetState, policy: ActionPolicy, now: datetime) -> None:
    limits = policy.evidence
    if abs((now - fresh.taken_at).total_seconds()) > max(limits.max_state_age_s, limits.max_skew_s):
        message = f"the cluster's state is of {fresh.taken_at.isoformat()}, and it is {now.isoformat()}"
        raise StaleState(message)
    verdict = move.evidence.get("verdict")
    if not is_taking(move) or not isinstance(verdict, Mapping):
        return
    until = verdict.get("until")
    sample_age_s = limits.max_event_age_s if rule_of(move) in {"fence", "repair"} else limits.max_age_s
    reason = why_not_now(
        datetime.fromisoformat(str(verdict["made_at"])),
        None if until is None else datetime.fromisoformat(str(until)),
        limits,
        now,
        max_sample_age_s=sample_age_s,
    )
    if reason is not None:
        message = f"{reason}; plan again"
        raise StaleState(message)


def _check_still_ours(move: Move, current: Mapping[str, object]) -> None:
    expected = move.evidence.get("expected")
    if not isinstance(expected, Mapping) or not agrees(current, expected):
        message = f"{move.target} was changed by others since we left it: it is {dict(current)}; it stays as it is"
        raise MoveRefused(message)


def _check_version(move: Move, index: FleetIndex) -> None:
    version = version_of(move, index)
    if move.resource_version not in {"", version}:
        message = f"{move.target} is at version {version}, planned against {move.resource_version}"
        raise StaleState(message)
