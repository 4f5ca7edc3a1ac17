"""One look at a cluster: every kind that matters brought up to now side by side, and what they say put together."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from http import HTTPStatus

import msgspec

from collectors.cluster_claims import ClaimFacts, Claims
from collectors.cluster_followed import Core, Devices, Followed, Queues, core, devices, queues
from collectors.cluster_kinds import DRA, KUEUE, version_to_read
from collectors.cluster_kueue import Kueue, WorkloadFacts, ended
from collectors.cluster_objects import OwnerReference, Part
from collectors.cluster_owners import Owners
from collectors.cluster_pods import PodFacts, closed
from collectors.cluster_registry import ServerRegistry
from collectors.cluster_rows import View
from collectors.cluster_watch import Refused, Server
from fleet.batch import Trouble
from fleet.errors import SourceFailed

RBAC = "deploy/collector-rbac.yaml"
# The API server sends a bookmark two seconds before a watch ends: a quiet kind is known to be quiet after one second.
WATCH_S = 3
_SIDE_BY_SIDE = 12
_NOT_OURS = frozenset({HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED})


class _Version(Part, frozen=True):
    version: str


class _Group(Part, frozen=True):
    name: str
    versions: list[_Version] = msgspec.field(default_factory=list)


class _Groups(Part, frozen=True):
    groups: list[_Group]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a look brought: the view, the moment by the API server's clock, and what went wrong."""

    view: View
    now: datetime
    troubles: tuple[Trouble, ...]
    is_whole: bool


class Look:
    """A cluster as it was when last looked at; each `take` goes on from the one before.

    What went away stays in every snapshot until `settle` says that the snapshot is stored.
    """

    def __init__(self, watch_s: int = WATCH_S) -> None:
        self._watch_s = watch_s
        self._core: Core = core(watch_s)
        self._devices: Devices | None = None
        self._queues: Queues | None = None
        self._owners = Owners()
        self._gone_pods: dict[str, PodFacts] = {}
        self._gone_workloads: dict[str, WorkloadFacts] = {}
        self._gone_claims: dict[tuple[str, str], ClaimFacts] = {}

    def take(self, server: Server) -> Snapshot:
        """Look at every kind now.

        A kind that can't be read is told as a trouble and nothing is concluded from it. Raises `SourceFailed` where
        no kind can be read.
        """
        self._find_groups(server)
        failed = self._look(server)
        now = self._moment(server)
        self._take_gone(now)
        registry = ServerRegistry(server)
        if "pods" not in failed:
            self._owners.walk(self._controlled(), registry)
        troubles = [*failed.values(), *self._rejected(), *_refused_owners(registry)]
        return Snapshot(self._view(frozenset(failed)), now, tuple(troubles), is_whole=not failed)

    def settle(self, snapshot: Snapshot) -> None:
        """Let go of what a snapshot told as gone: it is stored."""
        for pod in snapshot.view.gone_pods:
            self._gone_pods.pop(pod.uid, None)
        for workload in snapshot.view.gone_workloads:
            self._gone_workloads.pop(workload.uid, None)
        self._gone_claims = {}

    def _find_groups(self, server: Server) -> None:
        """Follow dynamic resource allocation and Kueue where they are served, in the version that is served."""
        try:
            groups = msgspec.json.decode(server.get("/apis", {}), type=_Groups).groups
        except msgspec.DecodeError as error:
            message = f"/apis: not a list of groups as Kubernetes answers it: {error}"
            raise SourceFailed(message) from error
        served = {group.name: [each.version for each in group.versions] for group in groups}
        dra, kueue = (version_to_read(group, served.get(group, ())) for group in (DRA, KUEUE))
        if dra != (None if self._devices is None else self._devices.version):
            self._devices = None if dra is None else devices(dra, self._watch_s)
        if kueue != (None if self._queues is None else self._queues.version):
            self._queues = None if kueue is None else queues(kueue, self._watch_s)

    def _followed(self) -> list[Followed]:
        more = () if self._devices is None else self._devices.all()
        return [*self._core.all(), *more, *(() if self._queues is None else self._queues.all())]

    def _look(self, server: Server) -> dict[str, Trouble]:
        """Bring all kinds up to now; return what could not be read, by name."""
        followed = self._followed()
        with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
            errors = list(pool.map(partial(_try, server), followed))
        failed = {each.kind.name: error for each, error in zip(followed, errors, strict=True) if error is not None}
        if len(failed) == len(followed):
            raise next(iter(failed.values()))
        return {each.kind.name: _trouble(each, failed[each.kind.name]) for each in followed if each.kind.name in failed}

    def _moment(self, server: Server) -> datetime:
        """Return the present by the server's clock; asked anew where something went, as watches began before."""
        if self._core.pods.gone or (self._queues is not None and self._queues.workloads.gone):
            with suppress(SourceFailed):
                server.get("/apis", {})
        return server.now()

    def _take_gone(self, now: datetime) -> None:
        """Keep what went away since the last look, ended by what it said last, else now."""
        pods = self._core.pods
        self._gone_pods |= {uid: closed(pod, now) for uid, pod in pods.gone.items()}
        pods.settle()
        if self._queues is not None:
            workloads = self._queues.workloads
            self._gone_workloads |= {uid: ended(each, now) for uid, each in workloads.gone.items()}
            workloads.settle()
        if self._devices is not None:
            claims = self._devices.claims
            self._gone_claims |= {(namespace, name): facts for namespace, name, facts in claims.gone.values()}
            claims.settle()

    def _controlled(self) -> list[tuple[str, OwnerReference]]:
        pods = (*self._core.pods.items.values(), *self._gone_pods.values())
        return [(pod.namespace, pod.controller) for pod in pods if pod.controller is not None]

    def _rejected(self) -> list[Trouble]:
        troubles = []
        for each in self._followed():
            if each.rejected:
                why = each.rejected[-1]
                troubles.append(Trouble("rejected", each.kind.path, why, len(each.rejected)))
                each.rejected = []
            if each.is_behind:
                troubles.append(Trouble("noticed", each.kind.path, "more changes came than one look can take in"))
        return troubles

    def _view(self, failed: frozenset[str]) -> View:
        seen = self._core
        pods = None if "pods" in failed else tuple(seen.pods.items.values())
        gone = tuple(self._gone_pods.values())
        tops = {
            pod.controller.uid: self._owners.top(pod.controller)
            for pod in (*(pods or ()), *gone)
            if pod.controller is not None
        }
        return View(
            nodes=None if "nodes" in failed else tuple(seen.nodes.items.values()),
            pods=pods,
            gone_pods=gone,
            namespaces=None if "namespaces" in failed else tuple(seen.namespaces.items.values()),
            quotas=None if "resourcequotas" in failed else tuple(seen.quotas.items.values()),
            claims=self._claims(failed),
            kueue=self._kueue(failed),
            gone_workloads=tuple(self._gone_workloads.values()),
            faults=tuple(seen.events.items.values()),
            top=lambda reference: tops.get(reference.uid, (reference.kind, reference.name)),
        )

    def _claims(self, failed: frozenset[str]) -> Claims:
        seen = self._devices
        if seen is None:
            return Claims(is_known=True)
        if any(each.kind.name in failed for each in seen.all()):
            return Claims()
        there = {(namespace, name): facts for namespace, name, facts in seen.claims.items.values()}
        return Claims(
            {**self._gone_claims, **there},
            {key: facts for devices_ in seen.slices.items.values() for key, facts in devices_.items()},
            dict(seen.classes.items.values()),
            is_known=True,
        )

    def _kueue(self, failed: frozenset[str]) -> Kueue:
        seen = self._queues
        if seen is None:
            return Kueue()
        is_told = not failed & {"clusterqueues", "localqueues", "resourceflavors"}
        return Kueue(
            queues=tuple(seen.queues.items.values()) if is_told else None,
            local_queues=tuple(seen.local.items.values()),
            flavors=dict(seen.flavors.items.values()),
            workloads=None if "workloads" in failed else tuple(seen.workloads.items.values()),
            is_installed=True,
        )


def _try(server: Server, follower: Followed) -> SourceFailed | None:
    """Bring one kind up to now; return why that can't be. What we may not read is forgotten: it is listed anew."""
    try:
        follower.look(server)
    except Refused as error:
        if error.status in _NOT_OURS:
            follower.forget()
        return error
    except SourceFailed as error:
        return error
    return None


def _trouble(follower: Followed, error: SourceFailed) -> Trouble:
    kind = follower.kind
    if not isinstance(error, Refused) or error.status not in _NOT_OURS:
        return Trouble("failed", kind.path, str(error))
    name = f"{kind.name}.{kind.group}" if kind.group else kind.name
    reason = f"we may not list {name} ({error.status}): grant get, list and watch on {name}, as {RBAC} does"
    return Trouble("failed", kind.path, reason)


def _refused_owners(registry: ServerRegistry) -> Iterable[Trouble]:
    for kind, said in registry.refused.items():
        reason = f"owners of this kind can't be read, so their pods are named by them alone: {said} (see {RBAC})"
        yield Trouble("noticed", kind, reason)
