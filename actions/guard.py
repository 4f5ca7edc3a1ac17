"""Ask again: the last look at a move against the cluster as it is now, just before it is made."""

from collections.abc import Mapping
from datetime import datetime
from math import isfinite

from actions.budget import Spending, why_no_room
from actions.evidence import why_not_now
from actions.fields import DRAIN_GPUS, agrees, fields_after, fields_of, uid_of, version_of
from actions.forbid import why_forbidden
from actions.index import FleetIndex, index_of
from actions.kinds import is_taking, is_undo, rule_of
from actions.policy import ActionPolicy
from actions.preconditions import check_target, why_not_taken_back
from fleet.clock import as_utc
from fleet.errors import BadInput, MoveRefused, StaleState
from fleet.move import Move, MoveKind
from fleet.state import FleetState

_NO_SPENDING = Spending()
_LASTING = {"fence", "repair", "budget", "pool"}  # a fault stays, money that is spent stays spent


def guard(
    move: Move,
    fresh: FleetState,
    policy: ActionPolicy,
    now: datetime,
    spending: Spending = _NO_SPENDING,
    *,
    is_stopped: bool | str = False,
    index: FleetIndex | None = None,
    planned_at: datetime | None = None,
) -> None:
    """Return where `move` may still be made on the state `fresh`, whose look-ups are `index` where they are built.

    `planned_at` is when its plan was made, where that is known. Raises `StaleState` where the world is no longer the
    one planned for, `MoveRefused` where a rule, a budget or the kill switch says no, `BadInput` where the move itself
    is none that could be made. Nothing is changed.
    """
    if is_stopped:
        raise MoveRefused(why_stopped(is_stopped))
    _check_written(move)
    _check_state_age(fresh, policy, now)
    _check_evidence_age(move, policy, now, planned_at)
    index = index_of(fresh) if index is None else index
    current = fields_of(move, index)
    if current is None:
        message = f"{move.target} in {move.cluster} is gone"
        raise StaleState(message)
    _check_same_object(move, index)
    if is_undo(move):
        _check_still_ours(move, current)
        reason = why_not_taken_back(move, index, policy)
        if reason is not None:
            raise MoveRefused(reason)
        return
    if policy.modes.of(rule_of(move)) in {"off", "observe"}:
        message = f"rule {rule_of(move)} may not act: its mode is {policy.modes.of(rule_of(move))}"
        raise MoveRefused(message)
    if agrees(current, fields_after(move)) and not _goes_on(move, index):
        message = f"{move.target} is already so"
        raise MoveRefused(message)
    check_target(move, index, policy, now)
    _check_version(move, index)
    reason = why_forbidden(move, spending.recent, index, policy, now) or why_no_room(move, spending, index, policy, now)
    if reason is not None:
        raise MoveRefused(reason)


def _goes_on(move: Move, index: FleetIndex) -> bool:
    """Return whether a drain was begun and has pods left: those that had to wait are asked again."""
    if move.kind is not MoveKind.DRAIN_NODE:
        return False
    pods = index.pods_by_node.get((move.cluster, move.target.name), ())
    is_of_gpus = move.arguments.get("scope") == DRAIN_GPUS
    return any(not is_of_gpus or set(pod.gpu_uuids) & set(move.gpu_uuids) for pod in pods)


def why_stopped(is_stopped: bool | str) -> str:  # noqa: FBT001 - what the kill switch answered, not a switch of ours
    """Return why moves are stopped, in the words of whoever stopped them where there are any."""
    return is_stopped if isinstance(is_stopped, str) else "the kill switch is on"


def _check_written(move: Move) -> None:
    """Refuse a move whose name or numbers nobody can mean: an empty name would be all objects of a kind."""
    name, space = move.target.name, move.target.namespace
    if name in {"", ".", ".."} or any(sign in part for part in (name, space) for sign in "/%"):
        message = f"target: {str(move.target)!r} is not the name of one object"
        raise BadInput(message, place=move.move_id, field="target")
    numbers: dict[str, object] = {"gpus": move.gpus, **move.arguments}
    for field, value in numbers.items():
        is_signed = field == "priority_boost"
        if isinstance(value, int | float) and not (isfinite(value) and (is_signed or value >= 0)):
            message = f"{field}: {value} is not a number from 0 on"
            raise BadInput(message, place=move.move_id, field=field)


def _check_state_age(fresh: FleetState, policy: ActionPolicy, now: datetime) -> None:
    limits = policy.evidence
    if abs((now - fresh.taken_at).total_seconds()) > max(limits.max_state_age_s, limits.max_skew_s):
        message = f"the cluster's state is of {fresh.taken_at.isoformat()}, and it is {now.isoformat()}"
        raise StaleState(message)


def _check_evidence_age(move: Move, policy: ActionPolicy, now: datetime, planned_at: datetime | None) -> None:
    """Refuse what rests on old evidence; a move that brings no verdict rests on its plan."""
    if not is_taking(move):
        return
    limits, verdict = policy.evidence, move.evidence.get("verdict")
    if isinstance(verdict, Mapping):
        made_at, until = _moment(move, verdict, "made_at"), _moment(move, verdict, "until")
    else:
        made_at, until = planned_at, None
    if made_at is None and isinstance(verdict, Mapping):
        message = "its verdict does not say when it was made; plan again"
        raise StaleState(message)
    if made_at is None:
        return
    sample_age_s = limits.max_event_age_s if rule_of(move) in _LASTING else limits.max_age_s
    what = "verdict" if isinstance(verdict, Mapping) else "plan"
    reason = why_not_now(made_at, until, limits, now, max_sample_age_s=sample_age_s, what=what)
    if reason is not None:
        message = f"{reason}; plan again"
        raise StaleState(message)


def _moment(move: Move, verdict: Mapping[str, object], name: str) -> datetime | None:
    told = verdict.get(name)
    if told is None:
        return None
    try:
        return as_utc(datetime.fromisoformat(str(told)), name)
    except ValueError as error:  # no moment at all, or one without a zone
        message = f"verdict.{name}: {told!r} is not a moment with a zone"
        raise BadInput(message, place=move.move_id, field=f"verdict.{name}") from error


def _check_same_object(move: Move, index: FleetIndex) -> None:
    planned, found = move.evidence.get("uid"), uid_of(move, index)
    if planned and found and planned != found:
        message = f"{move.target} was deleted and made anew since: it is another one of the same name"
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
