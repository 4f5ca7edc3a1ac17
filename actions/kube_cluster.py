"""A Kubernetes cluster as a `Cluster`: what is observed of it, and each move handed to the writer of its scope."""

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType

from actions.kinds import KINDS, Scope
from actions.kube_objects import change_object
from actions.kube_pools import change_pool
from actions.kube_port import Api, Change
from actions.kube_quotas import change_queue, change_quota
from actions.kube_workloads import change_workload
from fleet.errors import MoveRefused
from fleet.move import Move

Writer = Callable[[Api, Move], Change]  # reads what it needs, raises `StaleState`, `MoveRefused` or `SourceFailed`

WRITERS: Mapping[Scope, Writer] = MappingProxyType(
    {
        "workload": change_workload,
        "quota": change_quota,
        "queue": change_queue,
        "pool": change_pool,
        "object": change_object,
    }
)


def make(api: Api, move: Move) -> str:
    """Make a move and return the fields it changed, as they were, as JSON."""
    change = prepare(api, move)
    change.write(is_dry_run=False)
    return json.dumps(change.prior, sort_keys=True)


def rehearse(api: Api, move: Move) -> None:
    """Let the server check a move without making it."""
    prepare(api, move).write(is_dry_run=True)


def prepare(api: Api, move: Move) -> Change:
    """Return a move as the writer of its scope prepares it."""
    writer = WRITERS.get(KINDS[move.kind].scope)
    if writer is None:
        message = f"{move.kind.value}: nothing of that scope can be changed in Kubernetes"
        raise MoveRefused(message)
    return writer(api, move)
