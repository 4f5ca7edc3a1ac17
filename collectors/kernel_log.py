"""The kernel log as a source: XIDs and SXids of this node's ring buffer, or of a written log, each once.

What was read is remembered by the kernel's own record number and boot id, or by place and journal cursor in a file,
and kept with the watermark. Reading something twice does no harm: an event within two seconds of itself is one.
"""

import json
import socket
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType

from collectors.kernel_device import DEVICE, Boot, Ring, open_kmsg, read_boot
from collectors.kernel_events import Device, Devices, KernelEvents, LogPlace
from collectors.kernel_file import FilePlace, read_added
from collectors.kernel_lines import pci_address
from collectors.kernel_records import read_kmsg, read_lines
from collectors.nvml_rows import NodeMemory
from fleet.batch import Batch, Trouble
from fleet.clock import Clock
from fleet.errors import SourceUnavailable

NAME = "kmsg"
RECORDS_MAX = 500_000
"""Records read at a time, so that a kernel that writes as fast as we read does not keep us here."""

_NO_DEVICES: Devices = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class RingPlace:
    """A place in the ring buffer: after this record of this boot."""

    boot_id: str
    sequence: int


class KernelLogSource:
    """Reads `path`: the ring buffer `/dev/kmsg`, or a file that dmesg or journalctl wrote.

    `devices` says by a node's name which GPUs it has. `cursor` gives the place that was stored last; without it the
    source remembers its own until the process ends. A file's records keep their own host where `node` is None.
    """

    def __init__(
        self,
        clock: Clock,
        cluster: str,
        node: str | None,
        path: Path = DEVICE,
        *,
        devices: Callable[[str], Devices] = lambda _node: _NO_DEVICES,
        cursor: Callable[[], str | None] | None = None,
        open_ring: Callable[[Path], Ring] = open_kmsg,
        boot: Callable[[Clock], Boot] = read_boot,
    ) -> None:
        self._clock, self._cluster, self._node, self._path = clock, cluster, node, path
        self._devices, self._stored, self._open_ring, self._boot = devices, cursor, open_ring, boot
        self._remembered: str | None = None
        self._ring: Ring | None = None
        self._seat: RingPlace | None = None

    @property
    def name(self) -> str:
        """Return the name under which watermark and failures are kept."""
        return NAME

    def collect(self, since: datetime | None, until: datetime) -> Iterator[Batch]:  # noqa: ARG002 - the cursor says it exactly
        """Yield what was logged since the last reading; raises `SourceUnavailable` where the log can't be read."""
        cursor = self._stored() if self._stored is not None else self._remembered
        if is_device(self._path):
            batch = self._read_ring(_ring_place(cursor), until)
        else:
            batch = self._read_file(_file_place(cursor), until)
        yield batch
        self._remembered = batch.cursor

    def close(self) -> None:
        """Let go of the ring buffer."""
        if self._ring is not None:
            self._ring.close()
        self._ring, self._seat = None, None

    def _read_ring(self, since: RingPlace | None, until: datetime) -> Batch:
        boot, node = self._boot(self._clock), self._node or socket.gethostname()
        events = KernelEvents(LogPlace(self._cluster, node, NAME, boot.at), self._devices)
        if since is None or since.boot_id != boot.boot_id:
            events.boot(node, boot.at, f"boot {boot.boot_id}")
            since = None
        if self._ring is None or since is None or self._seat != since:
            self.close()
            self._ring = self._open_ring(self._path)
        last = None if since is None else since.sequence
        last, lost = _drain(self._ring, events, last)
        self._seat = None if last is None else RingPlace(boot.boot_id, last)
        troubles = events.troubles()
        if lost:
            reason = "the kernel overwrote records before they were read"
            troubles = (*troubles, Trouble("rejected", str(self._path), reason, lost))
        cursor = None if self._seat is None else json.dumps(asdict(self._seat))
        return Batch(NAME, {"event": events.frame()}, until, troubles, cursor).checked()

    def _read_file(self, since: FilePlace | None, until: datetime) -> Batch:
        added = read_added(self._path, since, self._clock.now())
        place = LogPlace(self._cluster, self._node, NAME, host=socket.gethostname())
        events = KernelEvents(place, self._devices)
        for record in read_lines(added.lines, self._clock.now()):
            events.take(record)
        cursor = json.dumps(asdict(added.place))
        return Batch(NAME, {"event": events.frame()}, until, events.troubles(), cursor).checked()


def devices_of(memory: NodeMemory | None) -> Devices:
    """Return the GPUs that the node's own driver named last, for a source that has no store to ask."""
    if memory is None:
        return _NO_DEVICES
    slices: dict[str, dict[int, set[str]]] = {}
    for process in memory.processes:
        if process.slice_uuid is not None and process.gpu_instance is not None:
            slices.setdefault(process.gpu_uuid, {}).setdefault(process.gpu_instance, set()).add(process.slice_uuid)
    found = {}
    for uuid, identity in memory.known.values():
        bus_id = identity.get("pci_bus_id")
        address = pci_address(bus_id) if isinstance(bus_id, str) else None
        if address is not None:
            found[address] = Device(uuid, only_ones(slices.get(uuid, {})))
    return found


def only_ones(uuids: Mapping[int, set[str]]) -> dict[int, str]:
    """Return the MIG device of each GPU instance that has a single one; of several, none is known to be meant."""
    return {instance: next(iter(found)) for instance, found in uuids.items() if len(found) == 1}


def is_device(path: Path) -> bool:
    """Tell whether a path is the ring buffer rather than a file; raises `SourceUnavailable` where nothing is there."""
    try:
        return stat.S_ISCHR(path.stat().st_mode)
    except OSError as error:
        message = f"{path}: there is no kernel log ({error.strerror}); name one with [collect] kernel_log"
        raise SourceUnavailable(message) from error


def _drain(ring: Ring, events: KernelEvents, last: int | None) -> tuple[int | None, int]:
    """Read what there is into `events`; return the last record's number and how many were lost before it."""
    lost = 0
    for _ in range(RECORDS_MAX):
        with suppress(BrokenPipeError):  # the numbers tell how many records that cost
            text = ring.read()
            if text is None:
                break
            record = read_kmsg(text)
            if record is None or record.sequence is None or (last is not None and record.sequence <= last):
                continue
            if last is not None:
                lost += record.sequence - last - 1
            last = record.sequence
            events.take(record)
    return last, lost


def _ring_place(cursor: str | None) -> RingPlace | None:
    values = _values(cursor)
    boot_id, sequence = values.get("boot_id"), values.get("sequence")
    return RingPlace(boot_id, sequence) if isinstance(boot_id, str) and isinstance(sequence, int) else None


def _file_place(cursor: str | None) -> FilePlace | None:
    values = _values(cursor)
    file, offset, journal = (values.get(name) for name in ("file", "offset", "journal"))
    if not isinstance(file, str) or not isinstance(offset, int):
        return None
    return FilePlace(file, offset, journal if isinstance(journal, str) else None)


def _values(cursor: str | None) -> dict[str, object]:
    if cursor is None:
        return {}
    try:
        values = json.loads(cursor)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}
