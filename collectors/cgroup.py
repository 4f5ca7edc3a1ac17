"""From a process to its pod: the paths of `/proc/PID/cgroup` and the names of log files on a node, read as text.

The kubelet makes a cgroup for each pod and the container runtime one for each container in it. Their names depend on
the cgroup version, on the driver (systemd or cgroupfs) and on the runtime; all of them hold the pod's UID and the
container's id. The kubelet also names log folders by namespace, pod and UID, and log links by container, which tells
the names without asking the API server.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

# cgroupfs: pod<uid>; systemd: kubepods-<class>-pod<uid>.slice with "_" for "-", which may be cut off by a colon where
# containerd and the kubelet disagree on the driver. Static pods have a hash of 32 digits as UID.
_POD = re.compile(
    r"(?:^|[/-])pod(?P<uid>[0-9a-f]{8}(?P<dash>[-_])[0-9a-f]{4}(?:(?P=dash)[0-9a-f]{4}){2}(?P=dash)[0-9a-f]{12}"
    r"|[0-9a-f]{32})(?:\.slice)?(?=[/:]|$)"
)
# <id>, cri-containerd-<id>.scope, crio-<id>, docker-<id>.scope, :cri-containerd:<id>, libpod-<id>.scope
_CONTAINER = re.compile(r"(?:^|[/:-])(?P<id>[0-9a-f]{64})(?:\.scope)?(?=/|$)")
_LOG_LINK = re.compile(r"(?P<pod>[^_/]+)_(?P<namespace>[^_/]+)_(?P<container>.+)-(?P<id>[0-9a-f]{64})\.log")
_LOG_FOLDER = re.compile(r"(?P<namespace>[^_/]+)_(?P<pod>[^_/]+)_(?P<uid>[0-9a-f-]+)")


@dataclass(frozen=True, slots=True)
class ProcessPlace:
    """Where a process runs: the pod's UID (dashed, or as it is for a static pod) and the container's id."""

    pod_uid: str | None
    container_id: str | None


@dataclass(frozen=True, slots=True)
class PodName:
    """A container by name; the container is None where only the pod is known."""

    namespace: str
    pod: str
    container: str | None = None


@dataclass(frozen=True, slots=True)
class NamesOnNode:
    """The names of the pods and containers of a node, by UID and by container id."""

    pods: Mapping[str, PodName] = field(default_factory=dict)
    containers: Mapping[str, PodName] = field(default_factory=dict)

    def of(self, place: ProcessPlace) -> PodName | None:
        """Return who runs at a place, None where the node's log files do not tell."""
        by_container = None if place.container_id is None else self.containers.get(place.container_id)
        if by_container is not None or place.pod_uid is None:
            return by_container
        return self.pods.get(place.pod_uid)


def parse_cgroup(text: str) -> ProcessPlace:
    """Return the place that the text of `/proc/PID/cgroup` tells; both parts are None for a process of the host.

    Version 1 has a line for each hierarchy and version 2 one in all; the innermost pod and container count.
    """
    best = ProcessPlace(None, None)
    for line in text.splitlines():
        _, _, path = line.partition(":")
        _, colon, path = path.partition(":")
        found = _place(path) if colon else best
        if _told(found) > _told(best):
            best = found
    return best


def read_names(log_links: Iterable[str], log_folders: Iterable[str]) -> NamesOnNode:
    """Return the names that the files of `/var/log/containers` and the folders of `/var/log/pods` are called by."""
    links = (match for match in map(_LOG_LINK.fullmatch, log_links) if match is not None)
    folders = (match for match in map(_LOG_FOLDER.fullmatch, log_folders) if match is not None)
    return NamesOnNode(
        pods={match["uid"]: PodName(match["namespace"], match["pod"]) for match in folders},
        containers={match["id"]: PodName(match["namespace"], match["pod"], match["container"]) for match in links},
    )


def _place(path: str) -> ProcessPlace:
    pods = list(_POD.finditer(path))
    inside = path[pods[-1].end() :] if pods else path
    # The outermost container inside of the innermost pod: a runtime may nest further groups in it.
    container = _CONTAINER.search(inside)
    return ProcessPlace(
        pods[-1]["uid"].replace("_", "-") if pods else None, None if container is None else container["id"]
    )


def _told(place: ProcessPlace) -> int:
    return 2 * (place.pod_uid is not None) + (place.container_id is not None)
