"""A ResourceQuota of a namespace as a quota: where no queue speaks for a workspace, it is what bounds its GPUs."""

from collections.abc import Mapping
from typing import Any

from actions.kube_body import at, quantity, written_as
from actions.kube_grants import GPU, Numbers
from actions.kube_port import Object
from fleet.errors import MoveRefused

REQUESTS = f"requests.{GPU}"


def hard_of(room: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the bounds of a resource quota by name."""
    return at(room, ("spec", "hard")) or {}


def room_of(room: Mapping[str, Any]) -> Numbers | None:
    """Return the GPUs that a resource quota allows; None where it says nothing of them. Nothing is lent."""
    gpus = quantity(hard_of(room).get(REQUESTS))
    return None if gpus is None else Numbers(gpus, 0.0, 0.0)


def room_patch(room: Mapping[str, Any], wanted: Mapping[str, object]) -> Object:
    """Return the merge patch that allows another number of GPUs."""
    for field in ("borrowing_gpus", "lending_gpus"):
        if field in wanted and wanted[field] != 0:
            message = f"{field}: a resource quota lends and borrows nothing (0)"
            raise MoveRefused(message)
    if wanted.get("weight") is not None:
        message = "weight: a resource quota has none"
        raise MoveRefused(message)
    gpus = wanted["gpus"]
    if isinstance(gpus, bool) or not isinstance(gpus, int | float) or gpus < 0 or gpus != int(gpus):
        message = f"gpus: {gpus!r} is no whole number from 0 on"
        raise MoveRefused(message)
    return {"spec": {"hard": {REQUESTS: written_as(gpus, hard_of(room).get(REQUESTS))}}}
