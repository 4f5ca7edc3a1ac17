"""Bounds for settings: a policy refuses a value that means nothing, by the name of its field."""

from fleet.errors import BadInput


def require_between(field: str, value: float, low: float, high: float) -> None:
    """Raise `BadInput` naming `field` unless `low <= value <= high` (NaN never is)."""
    if not low <= value <= high:
        message = f"{field}: {value} is not between {low} and {high}"
        raise BadInput(message, field=field)


def require_positive(field: str, value: float) -> None:
    """Raise `BadInput` naming `field` unless `value` is above zero and finite."""
    if not 0 < value < float("inf"):
        message = f"{field}: {value} is not above zero"
        raise BadInput(message, field=field)
