"""What watches over moves in a Kubernetes cluster: the kill switch, the lease of the one leader, and the herald."""

from collections.abc import Mapping
from datetime import datetime

from actions.fields import OUR_NAME
from actions.kinds import KINDS
from actions.kube_port import EVENTS, NODES, OURS, Api, Object, Reader, Resource, get_or_none, version_in
from actions.kube_stops import way_of
from actions.leader import LEASE_S, Lease
from actions.switch import NAME as SWITCH
from actions.switch import NAMESPACE
from fleet.errors import ActionError, MoveRefused, SourceFailed, StaleState
from fleet.move import Move

MAPS = Resource("v1", "configmaps", "ConfigMap")
LEASES = Resource("coordination.k8s.io/v1", "leases", "Lease")
PROPOSED = f"{OURS}proposed"
_MOST_NOTE = 1024  # characters of an event's note that the server takes


def read_switch(api: Reader, namespace: str = NAMESPACE) -> Mapping[str, str] | None:
    """Return the kill switch's data, None where there is no such object."""
    try:
        found = get_or_none(api, MAPS.path(SWITCH, namespace))
    except ActionError as error:
        raise SourceFailed(str(error)) from error
    return None if found is None else found.get("data") or {}


class KubeLease:
    """The lease of the stewards of one cluster, as Kubernetes' own leaders keep theirs."""

    def __init__(self, api: Api, namespace: str = NAMESPACE) -> None:
        """Keep it on that server."""
        self._api, self._namespace = api, namespace

    def read(self) -> Lease | None:
        """Return the lease, None where there is none yet."""
        try:
            found = get_or_none(self._api, LEASES.path(OUR_NAME, self._namespace))
        except ActionError as error:
            raise SourceFailed(str(error)) from error
        return None if found is None else _lease(found)

    def write(self, lease: Lease) -> Lease:
        """Write the lease over the version it was read at and return it as it stands then."""
        spec = {
            "holderIdentity": lease.holder, "leaseDurationSeconds": round(lease.duration_s),
            "acquireTime": _text(lease.acquired_at), "renewTime": _text(lease.renewed_at),
            "leaseTransitions": lease.transitions,
        }  # fmt: skip
        if lease.version:
            path = LEASES.path(OUR_NAME, self._namespace)
            return _lease(self._api.patch(path, {"spec": spec}, is_dry_run=False, version=lease.version))
        try:
            body = {"metadata": {"name": OUR_NAME, "namespace": self._namespace}, "spec": spec}
            return _lease(self._api.create(LEASES.path(namespace=self._namespace), body, is_dry_run=False))
        except StaleState as error:
            if "409" in str(error):
                raise
            space = self._namespace
            message = f"there is no namespace {space} to keep it in (kubectl create namespace {space}): {error}"
            raise MoveRefused(message) from error


class KubeHerald:
    """What tells of a proposed move at its target: an event that `kubectl describe` shows, and an annotation."""

    def __init__(self, api: Api) -> None:
        """Tell on that server."""
        self._api = api

    def announce(self, move: Move, text: str) -> None:
        """Write an event about the target, in its namespace (a node's in default), and annotate node or workload."""
        place = self._place(move)
        if place is not None:
            note = {"metadata": {"annotations": {PROPOSED: text[:_MOST_NOTE]}}}
            self._api.patch(place.path(move.target.name, move.target.namespace), note, is_dry_run=False)
        namespace = move.target.namespace or "default"
        regarding = {"kind": move.target.kind, "name": move.target.name}
        regarding |= {"namespace": move.target.namespace} if move.target.namespace else {}
        body = {
            "apiVersion": EVENTS.api_version, "kind": EVENTS.kind,
            "metadata": {"generateName": f"{OUR_NAME}-", "namespace": namespace},
            "eventTime": _text(self._api.now()),
            "action": "Propose", "reason": "".join(part.capitalize() for part in move.kind.value.split("_")),
            "note": text[:_MOST_NOTE], "type": "Normal",
            "reportingController": OURS + OUR_NAME, "reportingInstance": OUR_NAME, "regarding": regarding,
        }  # fmt: skip
        self._api.create(EVENTS.path(namespace=namespace), body, is_dry_run=False)

    def _place(self, move: Move) -> Resource | None:
        if KINDS[move.kind].scope in {"gpu", "node"}:
            return NODES
        if KINDS[move.kind].scope != "workload":
            return None
        try:
            group = way_of(move.target.kind).group
        except MoveRefused:
            return None
        return self._api.find(f"{group}/v1" if group in {"apps", "batch"} else group, move.target.kind)


def _lease(found: Object) -> Lease:
    spec = found.get("spec") or {}
    return Lease(
        holder=spec.get("holderIdentity") or None,
        renewed_at=_moment(spec.get("renewTime")),
        duration_s=float(spec.get("leaseDurationSeconds") or LEASE_S),
        acquired_at=_moment(spec.get("acquireTime")),
        transitions=int(spec.get("leaseTransitions") or 0),
        version=version_in(found),
    )


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _moment(text: object) -> datetime | None:
    return None if text is None else datetime.fromisoformat(str(text))
