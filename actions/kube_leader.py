"""The lease and the kill switch as Kubernetes keeps them: a Lease and a ConfigMap in our own namespace."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from actions.fields import OUR_NAME
from actions.kube_port import NAMESPACES, Api, Object, Reader, Resource, get_or_none, version_in
from actions.leader import LEASE_S, Lease
from actions.switch import NAME, NAMESPACE
from fleet.errors import ActionError, MoveRefused, SourceFailed

LEASES = Resource("coordination.k8s.io/v1", "leases", "Lease")
CONFIG_MAPS = Resource("v1", "configmaps", "ConfigMap")


class KubeLease:
    """The Lease by which stewards of one cluster know who acts (a `LeaseStore`)."""

    def __init__(self, api: Api, namespace: str = NAMESPACE, name: str = OUR_NAME) -> None:
        """Keep it in `namespace`, which must be there: who could not write it must not act."""
        self._api, self._namespace, self._name = api, namespace, name

    def read(self) -> Lease | None:
        """Return the lease, None where there is none yet."""
        try:
            found = get_or_none(self._api, LEASES.path(self._name, self._namespace))
        except ActionError as error:
            raise SourceFailed(str(error)) from error
        return None if found is None else _lease(found)

    def write(self, lease: Lease) -> Lease:
        """Write the lease over the version it was read at."""
        spec: Object = {
            "holderIdentity": lease.holder,
            "leaseDurationSeconds": max(1, round(lease.duration_s)),
            "renewTime": _text(lease.renewed_at),
            "acquireTime": _text(lease.acquired_at),
            "leaseTransitions": lease.transitions,
        }
        if lease.version:
            path = LEASES.path(self._name, self._namespace)
            return _lease(self._api.patch(path, {"spec": spec}, is_dry_run=False, version=lease.version))
        self._require_namespace()
        body: Object = {
            "apiVersion": LEASES.api_version, "kind": LEASES.kind,
            "metadata": {"name": self._name, "namespace": self._namespace}, "spec": spec,
        }  # fmt: skip
        return _lease(self._api.create(LEASES.path(namespace=self._namespace), body, is_dry_run=False))

    def _require_namespace(self) -> None:
        if get_or_none(self._api, NAMESPACES.path(self._namespace)) is None:
            message = (
                f"namespace {self._namespace} is not there, so no lease can be held; make it with "
                f"`kubectl create namespace {self._namespace}`"
            )
            raise MoveRefused(message)


def read_switch(api: Reader, namespace: str = NAMESPACE, name: str = NAME) -> Mapping[str, str] | None:
    """Return the data of the kill switch, None where there is none; `SourceFailed` where it can't be read."""
    try:
        found = get_or_none(api, CONFIG_MAPS.path(name, namespace))
    except ActionError as error:
        raise SourceFailed(str(error)) from error
    return None if found is None else dict(found.get("data") or {})


def _lease(found: Mapping[str, Any]) -> Lease:
    spec = found.get("spec") or {}
    lease = Lease(spec.get("holderIdentity") or None, _moment(spec.get("renewTime")), version=version_in(dict(found)))
    return replace(
        lease,
        duration_s=float(spec.get("leaseDurationSeconds") or LEASE_S),
        acquired_at=_moment(spec.get("acquireTime")),
        transitions=int(spec.get("leaseTransitions") or 0),
    )


def _moment(text: object) -> datetime | None:
    return datetime.fromisoformat(text).astimezone(UTC) if isinstance(text, str) else None


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
