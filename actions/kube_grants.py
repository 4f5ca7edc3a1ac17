"""Which GPUs a quota object grants, and how its numbers are set: pure, an object in, a changed part of it out.

A row of quota is all that one workspace may count on in one pool and model. The numbers of a row are changed in one
place only, the first entry that speaks for it, so that taking a change back restores every entry as it was.
"""

import json
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from math import isclose
from typing import Any

from actions.kube_body import amount_text, at, digest_of, quantity, written_as
from actions.kube_parts import Parts, model_of, unit_of
from actions.kube_port import Object as Body
from fleet.errors import MoveRefused

# Where each platform says which pool a node is of; the first label that is there speaks.
POOLS = (
    "karpenter.sh/nodepool", "cloud.google.com/gke-nodepool", "eks.amazonaws.com/nodegroup",
    "alpha.eksctl.io/nodegroup-name", "kubernetes.azure.com/agentpool", "agentpool",
)  # fmt: skip
_LIMITS = (("nominalQuota", "gpus"), ("borrowingLimit", "borrowing_gpus"), ("lendingLimit", "lending_gpus"))


@dataclass(frozen=True, slots=True)
class Numbers:
    """What a row grants, in whole GPUs; None: without a limit (`weight`: not said)."""

    gpus: float
    borrowing_gpus: float | None = None
    lending_gpus: float | None = None
    weight: float | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """One entry of a queue that speaks for a pool and a model: its place in the lists and what its unit is of a GPU."""

    flavor: str
    resource: str
    pool: str | None
    model: str | None
    unit: float
    entry: Mapping[str, Any]


def pool_of(labels: Mapping[str, str]) -> str | None:
    """Return the pool that node labels name."""
    return next((labels[name] for name in POOLS if labels.get(name)), None)


def grants_of(queue: Mapping[str, Any], flavors: Mapping[str, Mapping[str, str]], parts: Parts) -> list[Grant]:
    """Return the GPU entries of a ClusterQueue or a Cohort; `flavors` are node labels by flavor."""
    found = []
    for group in at(queue, ("spec", "resourceGroups")) or ():
        for flavor in group.get("flavors") or ():
            labels = flavors.get(flavor["name"], {})
            for entry in flavor.get("resources") or ():
                unit = unit_of(entry["name"], parts)
                if unit is not None and quantity(entry.get("nominalQuota")) is not None:
                    found.append(Grant(flavor["name"], entry["name"], pool_of(labels), model_of(labels), unit, entry))
    return found


def cohort_of(queue: Mapping[str, Any]) -> str | None:
    """Return the cohort that a queue (or a cohort) is in; v1beta1 says `cohort` and `parent`."""
    names = ("cohortName", "cohort", "parentName", "parent")
    return next((told for name in names if (told := at(queue, ("spec", name)))), None)


def numbers_of(queue: Mapping[str, Any], grants: Iterable[Grant]) -> Numbers:
    """Return what some entries of a queue grant together; one without a limit has none for all of them."""
    own = list(grants)
    alone = cohort_of(queue) is None  # nothing can be borrowed or lent
    sums = {
        field: 0.0 if alone and name != "nominalQuota" else _sum([_amount(grant, name) for grant in own])
        for name, field in _LIMITS
    }
    return Numbers(sums["gpus"] or 0.0, sums["borrowing_gpus"], sums["lending_gpus"], weight_of(queue))


def weight_of(queue: Mapping[str, Any]) -> float | None:
    """Return a queue's weight in fair sharing; None where it is not said."""
    return quantity(at(queue, ("spec", "fairSharing", "weight")))


def regranted(queue: Mapping[str, Any], grants: Iterable[Grant], wanted: Mapping[str, object]) -> Body:
    """Return the `spec` of a merge patch that makes `grants` of a queue come to the wanted numbers, by field.

    The whole `resourceGroups`, since the server knows no part of that list. Only the first of the grants changes.
    """
    own = list(grants)
    first, others = own[0], own[1:]
    entry = dict(first.entry)
    now = numbers_of(queue, own)
    for name, field in _LIMITS:
        if field not in wanted or wanted[field] == getattr(now, field):
            continue
        value = _number(field, wanted[field])
        if cohort_of(queue) is None and name != "nominalQuota":
            message = f"{field}: the queue is in no cohort, so that nothing can be borrowed or lent"
            raise MoveRefused(message)
        rest = _sum([_amount(grant, name) for grant in others])
        entry = _entered(entry, name, None if value is None else _left(first, field, value, rest))
    spec: Body = {}
    if entry != first.entry:
        spec["resourceGroups"] = _with_entry(at(queue, ("spec", "resourceGroups")), first, entry)
    if "weight" in wanted and wanted["weight"] != now.weight:
        spec["fairSharing"] = _weighed(queue, _number("weight", wanted["weight"]))
    return spec


def grants_version(queue: Mapping[str, Any], grants: Iterable[Grant]) -> str:
    """Return a version of one row of a queue: it changes where the row's own numbers do, and only then."""
    entries = [[grant.flavor, grant.resource, dict(grant.entry)] for grant in grants]
    return digest_of(queue["metadata"].get("uid"), cohort_of(queue), entries, weight_of(queue))


def declared(queue: Mapping[str, Any]) -> str:
    """Return all numbers of a queue as text, for telling whether they still are those that we set.

    Amounts are told in one way, however a server has written them since.
    """
    told = [_told(at(queue, ("spec", name))) for name in ("resourceGroups", "fairSharing", "hard")]
    return json.dumps(told, sort_keys=True)


def _told(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _told(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_told(each) for each in value]
    number = None if isinstance(value, bool) else quantity(value)
    return value if number is None else amount_text(number)


def _amount(grant: Grant, name: str) -> float | None:
    number = quantity(grant.entry.get(name))
    return None if number is None else number * grant.unit


def _sum(amounts: Iterable[float | None]) -> float | None:
    total = 0.0
    for amount in amounts:
        if amount is None:
            return None
        total += amount
    return total


def _left(grant: Grant, field: str, wanted: float, rest: float | None) -> int:
    """Return what the first entry must say, in its own units, so that all come to `wanted` GPUs."""
    if rest is None:
        message = f"{field}: another flavor of the same pool and model has no limit, so that {wanted:g} can't be one"
        raise MoveRefused(message)
    units = (wanted - rest) / grant.unit
    if units < 0:
        message = f"{field}: {rest:g} GPUs lie in other flavors than {grant.flavor}; {wanted:g} can't be reached by it"
        raise MoveRefused(message)
    if not isclose(units, round(units), abs_tol=1e-6):
        message = f"{field}: {wanted:g} GPUs are no whole number of {grant.resource}"
        raise MoveRefused(message)
    return round(units)


def _entered(entry: Mapping[str, Any], name: str, units: int | None) -> Body:
    if units is None:
        return {key: value for key, value in entry.items() if key != name}
    return {**entry, name: written_as(units, entry.get(name, entry.get("nominalQuota")))}


def _with_entry(groups: Iterable[Mapping[str, Any]], grant: Grant, entry: Mapping[str, Any]) -> list[Body]:
    changed = deepcopy([dict(group) for group in groups])
    for group in changed:
        for flavor in group.get("flavors") or ():
            for place, each in enumerate(flavor.get("resources") or ()):
                if (flavor["name"], each["name"]) == (grant.flavor, grant.resource):
                    flavor["resources"][place] = dict(entry)
    return changed


def _weighed(queue: Mapping[str, Any], weight: float | None) -> Body | None:
    before = at(queue, ("spec", "fairSharing"))
    if weight is not None:
        is_number = isinstance(at(before or {}, ("weight",)), int) and weight == round(weight)
        return {"weight": round(weight) if is_number else amount_text(weight)}
    return {"weight": None} if before is not None and set(before) - {"weight"} else None


def _number(field: str, value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
    if value is not None and not is_number:
        message = f"{field}: {value!r} is no number from 0 on"
        raise MoveRefused(message)
    if value is None and field == "gpus":
        message = "gpus: a quota needs a number"
        raise MoveRefused(message)
    return None if value is None else float(str(value))
