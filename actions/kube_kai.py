"""A queue of the KAI scheduler as a quota: `resources.gpu` holds quota, limit (-1: none) and over-quota weight."""

from collections.abc import Mapping
from typing import Any

from actions.kube_body import at
from actions.kube_grants import Numbers
from actions.kube_port import Object
from fleet.errors import MoveRefused

_GPU = ("spec", "resources", "gpu")
_UNLIMITED = -1


def kai_numbers(queue: Mapping[str, Any]) -> Numbers | None:
    """Return what a queue grants of GPUs; None where it says nothing, or guarantees without a limit.

    A limit below the quota lets nothing be borrowed. KAI knows no bound on what others may use of it.
    """
    gpu = at(queue, _GPU)
    if not isinstance(gpu, Mapping):
        return None
    quota, limit = _number(gpu.get("quota")), _number(gpu.get("limit"))
    if quota < 0:
        return None
    borrowing = None if limit < 0 else max(limit - quota, 0.0)
    weight = gpu.get("overQuotaWeight")
    return Numbers(quota, borrowing, None, None if weight is None else float(weight))


def kai_spec(queue: Mapping[str, Any], wanted: Mapping[str, object]) -> Object:
    """Return the merge patch that gives a queue other numbers: the limit is what it has and may borrow."""
    if wanted.get("lending_gpus") is not None:
        message = "lending_gpus: KAI knows no bound on what a queue lends"
        raise MoveRefused(message)
    before = at(queue, _GPU) or {}
    quota, borrowing = _told("gpus", wanted["gpus"]), _told("borrowing_gpus", wanted.get("borrowing_gpus"))
    if quota is None:
        message = "gpus: a quota needs a number"
        raise MoveRefused(message)
    if _UNLIMITED < _number(before.get("limit")) < _number(before.get("quota")):
        message = "its limit is below its quota; which of the two is meant is not known"
        raise MoveRefused(message)
    limit = _UNLIMITED if borrowing is None else quota + borrowing
    gpu: Object = {"quota": _plain(quota), "limit": _plain(limit)}
    if "weight" in wanted:
        weight = _told("weight", wanted["weight"])
        gpu["overQuotaWeight"] = None if weight is None else _plain(weight)
    return {"spec": {"resources": {"gpu": gpu}}}


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0  # what a queue does not say is none (KAI's default)


def _told(field: str, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        message = f"{field}: {value!r} is no number from 0 on"
        raise MoveRefused(message)
    return float(value)


def _plain(number: float) -> int | float:
    return int(number) if number == int(number) else number
