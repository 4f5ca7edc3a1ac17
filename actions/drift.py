"""Is the world still the one that a recorded plan was made for: field by field, what changed since."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from actions.fields import Fields, fields_of, uid_of, version_of
from actions.index import FleetIndex
from actions.policy import ActionPolicy
from fleet.move import Move

_VERSION = "resource_version"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference: of a target's field, or of a setting (then `move_id` is "")."""

    move_id: str
    target: str
    field: str
    planned: object
    found: object

    def __str__(self) -> str:
        """Write it as a sentence."""
        if self.field == _VERSION:
            return (
                f"{self.target}: somebody changed it since (version {_word(self.planned)} is {_word(self.found)} now)"
            )
        return f"{self.target}: {self.field} was {_word(self.planned)} when it was planned and is {_word(self.found)}"


def changed_settings(recorded: str, policy: ActionPolicy) -> list[Change]:
    """Return the settings that are no longer those the plan was made by; what it did not record is not compared."""
    before, now = json.loads(recorded), json.loads(policy.to_json())
    changes = []
    for section in sorted(set(before) & set(now)):
        then, today = _flat(before[section], section), _flat(now[section], section)
        changes += [
            Change("", "setting", name, then[name], today[name])
            for name in sorted(set(then) & set(today))
            if then[name] != today[name]
        ]
    return changes


def changed_targets(moves: Iterable[Move], index: FleetIndex) -> list[Change]:
    """Return what the targets of moves show that is not what was planned against: gone, other fields, other version."""
    return [change for move in moves for change in _of_move(move, index)]


def _of_move(move: Move, index: FleetIndex) -> list[Change]:
    target = str(move.target)
    current = fields_of(move, index)
    if current is None:
        return [Change(move.move_id, target, "object", "there", "gone")]
    before = move.evidence.get("before")
    planned: Fields = dict(before) if isinstance(before, Mapping) else {}
    changes = [
        Change(move.move_id, target, name, planned[name], current[name])
        for name in sorted(set(planned) & set(current))
        if planned[name] != current[name]
    ]
    if move.evidence.get("uid") and uid_of(move, index) not in {"", move.evidence["uid"]}:
        return [Change(move.move_id, target, "object", "there", "another one of the same name")]
    version = version_of(move, index)
    if move.resource_version not in {"", version}:
        changes.append(Change(move.move_id, target, _VERSION, move.resource_version, version))
    return changes


def _flat(values: object, prefix: str) -> dict[str, object]:
    if not isinstance(values, Mapping):
        return {prefix: values}
    found: dict[str, object] = {}
    for key, value in values.items():
        found.update(_flat(value, f"{prefix}.{key}"))
    return found


def _word(value: object) -> str:
    return "none" if value is None else str(value)
