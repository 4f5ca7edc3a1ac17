"""A ResourceQuota of a namespace as a quota: where no queue speaks for a workspace, it is what bounds its GPUs."""

from collections.abc import Mapping
from math import isclose
from typing import Any

from actions.kube_body import at, quantity, written_as
from actions.kube_grants import Numbers
from actions.kube_parts import Parts, unit_of
from actions.kube_port import Object
from fleet.errors import MoveRefused

_REQUESTS = "requests."


def room_of(room: Mapping[str, Any], parts: Parts) -> Numbers | None:
    """Return the whole GPUs that a resource quota allows; None where it says nothing of them. Nothing is lent."""
    amounts = _amounts(room, parts)
    return Numbers(sum(amount * unit for amount, unit in amounts.values()), 0.0, 0.0) if amounts else None


def room_patch(room: Mapping[str, Any], parts: Parts, wanted: Mapping[str, object]) -> Object:
    """Return the merge patch that allows another number of GPUs."""
    for field in ("borrowing_gpus", "lending_gpus"):
        if field in wanted and wanted[field] != 0:
            message = f"{field}: a resource quota lends and borrows nothing (0)"
            raise MoveRefused(message)
    if wanted.get("weight") is not None:
        message = "weight: a resource quota has none"
        raise MoveRefused(message)
    amounts = _amounts(room, parts)
    if len(amounts) != 1:
        message = f"it bounds {', '.join(sorted(amounts))}; which of them is to change is not known"
        raise MoveRefused(message)
    ((name, (_, unit)),) = amounts.items()
    gpus = wanted["gpus"]
    is_number = isinstance(gpus, int | float) and not isinstance(gpus, bool) and gpus >= 0
    units = float(str(gpus)) / unit if is_number else -1.0
    if units < 0 or not isclose(units, round(units), abs_tol=1e-6):
        message = f"gpus: {gpus!r} is no whole number of {name} from 0 on"
        raise MoveRefused(message)
    return {"spec": {"hard": {name: written_as(units, _hard(room).get(name))}}}


def _hard(room: Mapping[str, Any]) -> Mapping[str, Any]:
    return at(room, ("spec", "hard")) or {}


def _amounts(room: Mapping[str, Any], parts: Parts) -> dict[str, tuple[float, float]]:
    """Return what is allowed of each GPU resource, and what a unit of it is of a GPU."""
    found = {}
    for name, value in _hard(room).items():
        unit = unit_of(name.removeprefix(_REQUESTS), parts) if name.startswith(_REQUESTS) else None
        amount = quantity(value)
        if unit is not None and amount is not None:
            found[name] = (amount, unit)
    return found
