"""Who holds which device: what the kubelet gave away joined with where the processes on it run.

The kubelet knows what it gave, not what is used; the processes' cgroups show what is used, also by those that went
past the kubelet. Where the two disagree that is a finding.
"""

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import polars as pl

from collectors.cgroup import NamesOnNode, ProcessPlace, parse_cgroup, read_names
from collectors.exposition import Holder, Holders
from collectors.node_holder_rows import HolderRows, Seen
from collectors.nvml_rows import GpuProcess, NodeMemory
from collectors.pod_resources import Assigned
from fleet.batch import Batch, Trouble
from fleet.errors import SourceFailed

KUBELET, PROCESSES = "kubelet", "processes"
_DRA_DRIVER = "gpu.nvidia.com"
_NVIDIA = ("nvidia.com/", _DRA_DRIVER)
# A place on a shared device: `::3` of NVIDIA's device plugin (time-slicing and MPS), `/vgpu3` of GKE's.
_REPLICA = re.compile(r"::\d+$|/vgpu\d+$")


class Kubelet(Protocol):
    """What the kubelet tells: `PodResources`."""

    def assigned(self) -> tuple[Assigned, ...]:
        """Return every device that a container has."""
        ...

    def allocatable(self) -> frozenset[str]:
        """Return the ids of the devices that can be handed out."""
        ...


@dataclass(frozen=True, slots=True)
class OnDevice:
    """One process on a device, where it runs (None: that could not be read), and who that is by name."""

    process: GpuProcess
    place: ProcessPlace | None
    holder: Holder | None

    @property
    def device(self) -> str:
        """Return the UUID of the MIG device, or of the GPU where it is not split."""
        return self.process.slice_uuid or self.process.gpu_uuid


@dataclass(frozen=True, slots=True)
class Joined:
    """Who holds each device by its UUID, who told so, and where the tellers disagree: (device, how)."""

    holders: Holders
    seen: tuple[Seen, ...]
    disagreements: frozenset[tuple[str, str]]


def device_ids(memory: NodeMemory) -> Mapping[str, str]:
    """Return the UUID of every GPU and MIG device by each id that a device plugin or DRA driver has for it."""
    ids: dict[str, str] = {}
    minors: dict[str, object] = {}
    for uuid, identity in memory.known.values():
        minors[uuid] = identity.get("minor_number")
        ids |= {uuid: uuid, f"nvidia{minors[uuid]}": uuid, f"{_DRA_DRIVER}/gpu-{minors[uuid]}": uuid}
    for place in memory.slices:
        whole = f"{place.gpu_uuid}/{place.gpu_instance}"
        ids |= {
            place.uuid: place.uuid,
            f"MIG-{whole}/{place.compute_instance}": place.uuid,  # drivers before R470
            f"nvidia{minors.get(place.gpu_uuid)}/gi{place.gpu_instance}": place.uuid,
        }
    return ids


def resolve(given: Assigned, ids: Mapping[str, str]) -> str | None:
    """Return the UUID of the device that was given, None where the driver has no such device."""
    name = _REPLICA.sub("", given.device)
    return ids.get(f"{_DRA_DRIVER}/{name}" if given.resource == _DRA_DRIVER else name)


def join(ids: Mapping[str, str], assigned: Iterable[Assigned] | None, found: Collection[OnDevice]) -> Joined:
    """Return who holds each device; `assigned` is None where the kubelet told nothing, and then nobody disagrees.

    What the kubelet gave counts; a device that it gave to nobody belongs to who has processes on it.
    """
    running: dict[str, dict[Holder, None]] = {}
    for each in found:
        if each.holder is not None:
            running.setdefault(each.device, {})[each.holder] = None
    if assigned is None:
        return Joined(
            MappingProxyType({device: tuple(known) for device, known in running.items()}), _ran(running), frozenset()
        )
    given, unknown = _given(ids, assigned)
    holders = {device: _alive(pods, running.get(device, {})) for device, pods in given.items()}
    seen = [
        Seen(device, holder, KUBELET, given[device][holder] or None)
        for device, alive in holders.items()
        for holder in alive
    ]
    others = {
        device: [holder for holder in known if not _is_among(holder, holders.get(device, ()))]
        for device, known in running.items()
    }
    odd = {(each.device, how) for each in found if (how := _disagreement(each, given.get(each.device, {}))) is not None}
    holders = {device: tuple(known) for device, known in running.items()} | holders
    return Joined(MappingProxyType(holders), (*seen, *_ran(others)), frozenset(odd | unknown))


def _ran(running: Mapping[str, Iterable[Holder]]) -> tuple[Seen, ...]:
    return tuple(Seen(device, holder, PROCESSES) for device, known in running.items() for holder in known)


def _given(
    ids: Mapping[str, str], assigned: Iterable[Assigned]
) -> tuple[dict[str, dict[Holder, int]], set[tuple[str, str]]]:
    """Return who was given each device and how many places of a shared one (0: it is not), and what is not there."""
    given: dict[str, dict[Holder, int]] = {}
    unknown = set()
    for each in assigned:
        device = resolve(each, ids)
        if device is not None:
            holder = Holder(each.namespace, each.pod, each.container)
            places = given.setdefault(device, {})
            places[holder] = places.get(holder, 0) + (_REPLICA.search(each.device) is not None)
        elif each.resource.startswith(_NVIDIA):
            how = f"the kubelet gave it to pod {each.namespace}/{each.pod}, and the driver has no such device"
            unknown.add((each.device, how))
    return given, unknown


def _alive(given: Mapping[Holder, int], running: Mapping[Holder, None]) -> tuple[Holder, ...]:
    """Return the holders without those whose pods have ended: older kubelets go on listing them."""
    if len({(holder.namespace, holder.pod) for holder in given}) > 1 and not any(given.values()):
        alive = tuple(holder for holder in given if _is_among(holder, running))
        return alive or tuple(given)
    return tuple(given)


def _disagreement(found: OnDevice, given: Mapping[Holder, int]) -> str | None:
    if found.place is None:
        return None  # where it runs could not be read
    if found.place == ProcessPlace(None, None):
        return "a process of no container runs on it, and the kubelet gave it to a pod" if given else None
    if found.holder is None or _is_among(found.holder, given):
        return None
    who = f"{found.holder.namespace}/{found.holder.pod}"
    if found.holder.container is not None:
        who += f", container {found.holder.container}"
    return f"pod {who} has a process on it, and the kubelet did not give it to that"


def _is_among(holder: Holder, others: Iterable[Holder]) -> bool:
    return any(
        (holder.namespace, holder.pod) == (other.namespace, other.pod)
        and (None in {holder.container, other.container} or holder.container == other.container)
        for other in others
    )


class HolderSource:
    """Reads, after the driver was read, who holds what: rows of `holder`, and what is odd. `holders` has the labels.

    `memory` returns what the driver's reading left. `proc` is the proc file system of the machine, whose process
    namespace the driver's pids are of; `logs` is its `/var/log`. A disagreement is told when two readings in a row
    show it, since the two sides are not read at one moment, and once while it lasts.
    """

    name = "pods"

    def __init__(
        self, cluster: str, node: str, memory: Callable[[], NodeMemory | None], kubelet: Kubelet, *,
        proc: Path = Path("/proc"), logs: Path = Path("/var/log"),
    ) -> None:  # fmt: skip
        self._node, self._memory, self._kubelet, self._proc, self._logs = node, memory, kubelet, proc, logs
        self._names = NamesOnNode()
        self._rows, self._read = HolderRows(cluster, node), NodeMemory()
        self._seen: frozenset[tuple[str, str]] = frozenset()
        self._told: frozenset[tuple[str, str]] = frozenset()
        self.holders: Holders = MappingProxyType({})

    def collect(self, since: datetime | None, until: datetime) -> Iterator[Batch]:  # noqa: ARG002 - a live source has only now
        """Yield who holds what, and what is odd as troubles."""
        memory = self._memory() or NodeMemory()
        ids = device_ids(memory)
        failures: set[tuple[str, str]] = set()
        assigned = self._read_kubelet(self._kubelet.assigned, failures)
        joined = join(ids, assigned, self._locate(memory.processes))
        self.holders = joined.holders
        odd = joined.disagreements | self._not_allocatable(memory, ids, failures)
        lasting = odd & (self._seen | self._told)
        now = {("failed", *what) for what in failures} | {("noticed", *what) for what in lasting}
        troubles = [
            Trouble(kind, place if kind == "failed" else f"{self._node}, {place}", reason)
            for kind, place, reason in sorted(now)
            if (place, reason) not in self._told
        ]
        self._seen, self._told = odd, frozenset((place, reason) for _, place, reason in now)
        yield Batch(self.name, {"holder": self._told_rows(joined, memory, assigned, until)}, until, tuple(troubles))

    def _told_rows(
        self, joined: Joined, memory: NodeMemory, assigned: tuple[Assigned, ...] | None, until: datetime
    ) -> pl.DataFrame:
        # Where the driver was not read this time its processes are those of before: nobody told of them.
        told = {KUBELET: assigned is not None, PROCESSES: memory is not self._read}
        self._read = memory
        tellers = {teller for teller, has_told in told.items() if has_told}
        seen = [each for each in joined.seen if each.source in tellers]
        self._know(seen)
        uids = {Holder(name.namespace, name.pod): uid for uid, name in self._names.pods.items()}
        return self._rows.tell(seen, tellers, {place.uuid: place.gpu_uuid for place in memory.slices}, uids, until)

    def _know(self, seen: Iterable[Seen]) -> None:
        """Read the names on this node again where a pod's UID is not known yet."""
        known = {(name.namespace, name.pod) for name in self._names.pods.values()}
        if any((each.holder.namespace, each.holder.pod) not in known for each in seen):
            self._read_names()

    def _read_names(self) -> None:
        self._names = read_names(_listed(self._logs / "containers"), _listed(self._logs / "pods"))

    def _read_kubelet(
        self, ask: Callable[[], "tuple[Assigned, ...]"], failures: set[tuple[str, str]]
    ) -> tuple[Assigned, ...] | None:
        try:
            return ask()
        except SourceFailed as error:
            failures.add((self.name, str(error)))
            return None

    def _not_allocatable(
        self, memory: NodeMemory, ids: Mapping[str, str], failures: set[tuple[str, str]]
    ) -> set[tuple[str, str]]:
        """Return the GPUs that the driver has and the kubelet can't hand out, where it hands out any of them."""
        if failures:
            return set()  # it was just told that the kubelet does not answer
        try:
            offered = {ids.get(_REPLICA.sub("", device)) for device in self._kubelet.allocatable()} - {None}
        except SourceFailed as error:
            failures.add((self.name, str(error)))
            return set()
        split = {place.gpu_uuid for place in memory.slices}
        whole = {uuid for uuid, identity in memory.known.values() if identity.get("mig_enabled") is not True} - split
        how = "the driver has it, and the kubelet can't hand it out: to its device plugin it is unhealthy or not there"
        return {(uuid, how) for uuid in whole - offered - memory.lost} if offered & whole else set()

    def _locate(self, processes: Iterable[GpuProcess]) -> list[OnDevice]:
        places = {process.pid: self._place(process.pid) for process in processes}
        in_pods = [place for place in places.values() if place is not None and place.pod_uid is not None]
        if any(self._names.of(place) is None for place in in_pods):
            self._read_names()
        return [OnDevice(process, place := places[process.pid], self._holder(place)) for process in processes]

    def _place(self, pid: int) -> ProcessPlace | None:
        try:
            return parse_cgroup((self._proc / str(pid) / "cgroup").read_text())
        except (OSError, UnicodeDecodeError):
            return None  # it has ended, or is of another process namespace

    def _holder(self, place: ProcessPlace | None) -> Holder | None:
        name = None if place is None else self._names.of(place)
        return None if name is None else Holder(name.namespace, name.pod, name.container)


def _listed(folder: Path) -> list[str]:
    """Return the names in a folder, the newest last: of two pods of one name that one is meant."""
    try:
        return [entry.name for entry in sorted(os.scandir(folder), key=_changed_at)]
    except OSError:
        return []


def _changed_at(entry: "os.DirEntry[str]") -> float:
    try:
        return entry.stat(follow_symlinks=False).st_mtime
    except FileNotFoundError:
        return 0.0  # it went away while we looked
