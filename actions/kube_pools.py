"""Moves of pools in Kubernetes: how many GPUs a Karpenter NodePool may grow to, and how many spares a buffer keeps."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from actions.kube_body import at, meant_version, name_of, namespace_of, patch_of, quantity
from actions.kube_parts import GPU
from actions.kube_port import Api, Change, Object, Reader
from actions.kube_write import patch_as_meant
from fleet.errors import MoveRefused, StaleState
from fleet.move import Move
from fleet.state import ObjectRef, PoolLimit

_GROUPS = {"NodePool": "karpenter.sh", "CapacityBuffer": "autoscaling.x-k8s.io"}
_LIMITS, _REPLICAS = ("spec", "limits"), ("spec", "replicas")


def look_at_pools(api: Reader) -> list[Object]:
    """Read every NodePool and CapacityBuffer, where their kinds are served."""
    found: list[Object] = []
    for kind, group in _GROUPS.items():
        resource = api.find(group, kind)
        found += [] if resource is None else api.list_all(resource)
    return found


def pools_from(cluster: str, objects: list[Object]) -> tuple[PoolLimit, ...]:
    """Return how far each pool may grow, in a stable order; a NodePool is the pool of its own name."""
    found = []
    for body in objects:
        ref = ObjectRef(body["kind"], namespace_of(body), name_of(body))
        pool = ref.name if ref.kind == "NodePool" else None
        found.append(PoolLimit(cluster, ref, limit_of(ref.kind, body), pool, meant_version(body)))
    return tuple(sorted(found, key=lambda each: each.ref))


def limit_of(kind: str, body: Mapping[str, Any]) -> float | None:
    """Return a pool's limit (GPUs of a NodePool, replicas of a buffer); None where it has none."""
    return quantity(at(body, (*_LIMITS, GPU) if kind == "NodePool" else _REPLICAS))


def change_pool(api: Api, move: Move) -> Change:
    """Prepare another limit of a pool."""
    kind = move.target.kind
    resource = api.find(_GROUPS[kind], kind) if kind in _GROUPS else None
    if resource is None:
        message = f"{move.target}: the cluster serves no {kind}" if kind in _GROUPS else f"{move.target} is no pool"
        raise StaleState(message) if kind in _GROUPS else MoveRefused(message)
    path = resource.path(move.target.name, move.target.namespace)
    body = api.get(path)
    if move.resource_version not in {"", meant_version(body)}:
        message = f"{move.target} has changed since it was planned for"
        raise StaleState(message)
    patch = limit_patch(kind, body, move.arguments.get("limit"))
    return Change({"limit": limit_of(kind, body)}, partial(patch_as_meant, api, path, patch, body))


def limit_patch(kind: str, body: Mapping[str, Any], limit: object) -> Object:
    """Return the merge patch that gives a pool another limit; None takes it away."""
    is_whole = isinstance(limit, int | float) and not isinstance(limit, bool) and limit >= 0 and limit == int(limit)
    if limit is not None and not is_whole:
        message = f"limit: {limit!r} is no whole number from 0 on"
        raise MoveRefused(message)
    whole = None if limit is None else int(float(str(limit)))
    if kind != "NodePool":
        return patch_of({_REPLICAS: whole})
    limits = at(body, _LIMITS)
    if whole is None and limits is not None and set(limits) <= {GPU}:
        return patch_of({_LIMITS: None})
    before = at(body, (*_LIMITS, GPU))
    value = whole if whole is None or isinstance(before, int) else str(whole)
    return patch_of({(*_LIMITS, GPU): value})
