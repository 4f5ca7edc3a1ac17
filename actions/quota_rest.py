"""What a quota may not do yet after it was moved: turn round, or move at all."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from actions.budget import Made
from actions.kinds import rule_of
from actions.quota_demand import number
from actions.rebalance_policy import RebalancePolicy
from fleet.move import Move, MoveKind
from fleet.state import Quota

_RULE = "rebalance"
_Key = tuple[str, str, str | None, str | None]  # cluster, workspace, pool, model


@dataclass(frozen=True, slots=True)
class Rests:
    """Quotas that get nothing for a while, that give nothing, and that are left as they are."""

    gave: frozenset[_Key]
    got: frozenset[_Key]
    still: frozenset[_Key]

    def may_get(self, quota: Quota) -> bool:
        """Return whether it gave nothing lately."""
        return _key(quota) not in self.gave

    def may_give(self, quota: Quota) -> bool:
        """Return whether it got nothing lately."""
        return _key(quota) not in self.got

    def is_still(self, quota: Quota) -> bool:
        """Return whether it was moved lately by others than this rule, or back, or perhaps."""
        return _key(quota) in self.still


def rests_of(recent: Sequence[Made], policy: RebalancePolicy, now: datetime) -> Rests:
    """Return what rests: ours for `turn_round_h` from the other direction, anything else for `cooldown_h` from both."""
    changes = list(_changes(recent))
    turned, cooled = timedelta(hours=policy.turn_round_h), timedelta(hours=policy.cooldown_h)
    return Rests(
        gave=frozenset(key for key, at, change in changes if change is not None and change < 0 and now - at < turned),
        got=frozenset(key for key, at, change in changes if change is not None and change > 0 and now - at < turned),
        still=frozenset(key for key, at, change in changes if change is None and now - at < cooled),
    )


def _changes(recent: Sequence[Made]) -> Iterator[tuple[_Key, datetime, float | None]]:
    """Give the quotas moved, when, and by how many GPUs; None where it is not known to be this rule's and to stand."""
    for made in recent:
        move = made.move
        if move.kind is MoveKind.SET_QUOTA:
            pool, model = (_text(move.arguments.get(name)) for name in ("pool", "model"))
            is_ours = rule_of(move) == _RULE and made.is_certain and not made.is_undone
            yield (move.cluster, move.target.name, pool, model), made.at, _change(move) if is_ours else None


def _change(move: Move) -> float | None:
    before = move.evidence.get("before")
    was = number(before.get("gpus")) if isinstance(before, Mapping) else None
    becomes = number(move.arguments.get("gpus"))
    return None if was is None or becomes is None or "undo_of" in move.evidence else becomes - was


def _key(quota: Quota) -> _Key:
    return quota.cluster, quota.workspace, quota.pool, quota.model


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
