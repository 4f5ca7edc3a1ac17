"""Tell a move's target in its cluster that it is meant: an event beside it and an annotation on it."""

from actions.fields import OUR_NAME
from actions.kinds import KINDS
from actions.kube_port import EVENTS, NODES, OURS, Api, Object, Resource
from actions.kube_stops import way_of
from fleet.errors import MoveRefused
from fleet.move import Move

PROPOSED = f"{OURS}proposed"
_MOST = 1000  # an event's note holds 1,024 bytes


class KubeHerald:
    """Announces moves of nodes and workloads; what has no object of its own is passed over."""

    def __init__(self, api: Api) -> None:
        """Announce through `api`."""
        self._api = api

    def close(self) -> None:
        """Let go of the connections."""
        self._api.close()

    def announce(self, move: Move, text: str) -> None:
        """Write the annotation and the event; raises `StaleState` where the target is gone."""
        place = self._place(move)
        if place is None:
            return
        path = place.path(move.target.name, move.target.namespace)
        annotation = {"metadata": {"annotations": {PROPOSED: text[:_MOST]}}}
        found = self._api.patch(path, annotation, is_dry_run=False)
        space = move.target.namespace or "default"
        self._api.create(EVENTS.path(namespace=space), self._event(move, found, place, text), is_dry_run=False)

    def _place(self, move: Move) -> Resource | None:
        scope = KINDS[move.kind].scope
        if scope in {"gpu", "node"}:
            return NODES
        if scope != "workload":
            return None
        try:
            group = way_of(move.target.kind).group
            group = f"{group}/v1" if group in {"apps", "batch"} else group
        except MoveRefused:
            return None
        return self._api.find(group, move.target.kind)

    def _event(self, move: Move, found: Object, place: Resource, text: str) -> Object:
        meta = found["metadata"]
        regarding = {"apiVersion": place.api_version, "kind": place.kind, "name": meta["name"], "uid": meta["uid"]}
        if move.target.namespace:
            regarding["namespace"] = move.target.namespace
        return {
            "apiVersion": EVENTS.api_version, "kind": EVENTS.kind,
            "metadata": {"generateName": f"{OUR_NAME}-", "namespace": move.target.namespace or "default"},
            "eventTime": self._api.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "action": "Propose", "reason": "MoveProposed", "note": text[:_MOST], "type": "Normal",
            "reportingController": OURS + OUR_NAME, "reportingInstance": OUR_NAME, "regarding": regarding,
        }  # fmt: skip
