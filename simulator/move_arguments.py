"""What moves bring along, read with care: numbers, texts, and the version they were planned against."""

from fleet.errors import MoveRefused, StaleState
from fleet.move import Move

ACTOR = "gpu-steward"


def actor(move: Move, argument: str) -> str:
    """Return who a move says it is made by, us where it says nothing."""
    given = move.arguments.get(argument)
    return given if isinstance(given, str) else ACTOR


def text(move: Move, argument: str) -> str:
    """Return an argument that must be a text; `MoveRefused` otherwise."""
    value = move.arguments.get(argument)
    if not isinstance(value, str) or not value:
        message = f"{argument}: {value!r} is not a text"
        raise MoveRefused(message)
    return value


def number(move: Move, argument: str, current: float | None) -> float | None:
    """Return an argument that may be a number or null, `current` where it is not given; `MoveRefused` otherwise."""
    if argument not in move.arguments:
        return current
    value = move.arguments[argument]
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        message = f"{argument}: {value!r} is not a number"
        raise MoveRefused(message)
    return float(value)


def at_least_zero(move: Move, argument: str, current: float | None) -> float | None:
    """Return a number that is not below zero, or null; `MoveRefused` otherwise."""
    value = number(move, argument, current)
    if value is not None and not value >= 0:
        message = f"{argument}: {value} is below zero"
        raise MoveRefused(message)
    return value


def whole(move: Move, argument: str) -> int:
    """Return a whole number that is not below zero; `MoveRefused` otherwise."""
    value = number(move, argument, None)
    if value is None or not value >= 0 or value != int(value):
        message = f"{argument}: {move.arguments.get(argument)!r} is not a whole number of at least zero"
        raise MoveRefused(message)
    return int(value)


def require_version(move: Move, current: int) -> None:
    """Raise `StaleState` where a move was planned against another version."""
    if move.resource_version not in {"", str(current)}:
        message = f"{move.target} in {move.cluster} is at version {current}, the plan knew {move.resource_version}"
        raise StaleState(message)
