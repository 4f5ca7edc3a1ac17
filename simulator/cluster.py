"""The simulated fleet as a Cluster: what is observed of it, and moves that change it."""

import json
from collections.abc import Callable

from fleet.errors import MoveRefused
from fleet.move import Move, MoveKind
from fleet.state import FleetState
from simulator.late import when_asked
from simulator.node_moves import NODE_KINDS, change_node, prior_of_node
from simulator.observe import observe
from simulator.quota_moves import change_pool, change_quota, prior_of_pool, prior_of_quota
from simulator.workload_moves import WORKLOAD_KINDS, change_workload, prior_of_workload
from simulator.world import World

__all__ = ["SimulatorCluster", "observe"]
_NOT_HERE = {
    MoveKind.SET_QUEUE_STOP: "it has no queues beside its quotas",
    MoveKind.APPLY_OBJECT: "it has no Kubernetes objects",
    MoveKind.DELETE_OBJECT: "it has no Kubernetes objects",
}


class SimulatorCluster:
    """A Cluster over a world: one of its clusters, or the whole fleet."""

    def __init__(self, world: World | Callable[[], World], cluster: str | None = None) -> None:
        """Show and move the cluster of that name; None stands for all of them. `world` may be a `LateWorld`."""
        self._live = when_asked(world)
        if cluster is not None and cluster not in (names := [each.name for each in self._live().spec.clusters]):
            message = f"there is no cluster {cluster}; the clusters are {', '.join(names)}"
            raise MoveRefused(message)
        self._cluster = cluster

    @property
    def name(self) -> str:
        """Return the cluster's name, "simulator" for the whole fleet."""
        return self._cluster or "simulator"

    def observe(self) -> FleetState:
        """Return the fleet as it stands now."""
        return observe(self._live(), self._cluster)

    def observe_for(self, move: Move) -> FleetState:  # noqa: ARG002 - the whole fleet costs little here
        """Return the fleet as it stands now."""
        return observe(self._live(), self._cluster)

    def rehearse(self, move: Move) -> None:
        """Check a move without making it."""
        self._prior(move)

    def make(self, move: Move) -> str:
        """Make a move and return what it changed, as it was before, as JSON."""
        prior = self._prior(move)
        _change(self._live(), move)
        return json.dumps(prior, sort_keys=True)

    def _prior(self, move: Move) -> dict[str, object]:
        names = [each.name for each in self._live().spec.clusters]
        if move.cluster not in names or (self._cluster is not None and move.cluster != self._cluster):
            message = f"{self.name} does not reach cluster {move.cluster}"
            raise MoveRefused(message)
        return _prior_of(self._live(), move)


def _prior_of(world: World, move: Move) -> dict[str, object]:
    if move.kind in _NOT_HERE:
        message = f"the simulated fleet can't {move.kind.value.replace('_', ' ')}: {_NOT_HERE[move.kind]}"
        raise MoveRefused(message)
    if move.kind in NODE_KINDS:
        return prior_of_node(world, move)
    if move.kind in WORKLOAD_KINDS:
        return prior_of_workload(world, move)
    return prior_of_quota(world, move) if move.kind is MoveKind.SET_QUOTA else prior_of_pool(world, move)


def _change(world: World, move: Move) -> None:
    if move.kind in NODE_KINDS:
        change_node(world, move)
    elif move.kind in WORKLOAD_KINDS:
        change_workload(world, move)
    elif move.kind is MoveKind.SET_QUOTA:
        change_quota(world, move)
    else:
        change_pool(world, move)
