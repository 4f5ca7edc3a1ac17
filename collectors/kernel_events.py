"""Turn the records of a kernel log into rows of `event`: which GPU, when, and each event once with all its lines.

Pure. A fault is often told in many lines within a moment; those of one GPU and code within two seconds are one event.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

import polars as pl

from collectors.kernel_lines import Told, read_identity, read_installed, read_message
from collectors.kernel_records import Record
from fleet.batch import Trouble
from fleet.tables import EVENT

LINES_MAX = 64
"""Different lines that one event keeps."""

_INSTALLED_LINES = 4
_FIRST_WORDS = "Linux version "
_NEVER = datetime.max.replace(tzinfo=UTC)
_NO_SLICES: Mapping[int, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU as the rest of the house knows it; `slices`: UUID of the only MIG device of each GPU instance."""

    uuid: str
    slices: Mapping[int, str] = field(default_factory=lambda: _NO_SLICES)


Devices = Mapping[str, Device]
"""GPUs of a node by address as `pci_address` writes it."""


@dataclass(frozen=True, slots=True)
class LogPlace:
    """Whose log it is. `boot_at`: what times since boot count from.

    Without a `node`, a record is of its own host, and of `host` where it names none.
    """

    cluster: str
    node: str | None
    source: str
    boot_at: datetime | None = None
    host: str | None = None


@dataclass(slots=True)
class _Event:
    ts: datetime
    node: str
    kind: str
    code: int | None
    pci: str | None
    gpu_instance: int | None
    lines: list[str]


class KernelEvents:
    """Takes records one by one, in the order of the log, and gives the events in them.

    `devices` says which GPUs a node has, by its name.
    """

    def __init__(self, place: LogPlace, devices: Callable[[str], Devices]) -> None:
        self._place, self._devices = place, devices
        self._events: list[_Event] = []
        self._last: dict[tuple[object, ...], _Event] = {}
        self._uuids: dict[tuple[str, str], str] = {}
        self._installed: dict[str, tuple[str, int]] = {}
        self._untimed: list[str] = []
        self._forged: list[str] = []

    def take(self, record: Record) -> None:
        """Read one record."""
        node = self._place.node or record.host or self._place.host
        if node is None:
            return
        for line in record.text.split("\n"):
            told = self._told(node, line)
            if told is not None:
                self._believe(
                    record, _Event(_NEVER, node, told.kind, told.code, told.pci, told.gpu_instance, [told.text])
                )
            elif line.startswith(_FIRST_WORDS):
                self._believe(record, _Event(_NEVER, node, "boot", None, None, None, [line]))

    def boot(self, node: str, moment: datetime, why: str) -> None:
        """Keep that a node booted."""
        self._keep(_Event(moment, node, "boot", None, None, None, [why]))

    def frame(self) -> pl.DataFrame:
        """Return the events so far, in wire form."""
        known: dict[str, Devices] = {}
        rows = []
        for event in self._events:
            devices = known.setdefault(event.node, self._devices(event.node))
            rows.append(self._row(event, devices))
        return pl.DataFrame(rows, schema=EVENT.schema("wire"), orient="row")

    def troubles(self) -> tuple[Trouble, ...]:
        """Return what could not be used: XIDs without a time, and lines that no kernel wrote."""
        told = (
            ("rejected", "it has no time and none can be made out", self._untimed),
            ("noticed", "a program wrote it, not the kernel; it is not believed", self._forged),
        )
        return tuple(
            Trouble(kind, self._place.source, why, len(lines), lines[0][:200]) for kind, why, lines in told if lines
        )

    def _told(self, node: str, text: str) -> Told | None:
        """Read a message, with what the lines before it said of the GPU that it does not name."""
        identity = read_identity(text)
        if identity is not None:
            self._uuids[node, identity[0]] = identity[1]
            return None
        installed = read_installed(text)
        told = read_message(text)
        if installed is not None:
            self._installed[node] = (installed, _INSTALLED_LINES)
        elif node in self._installed and text.startswith("NVRM:"):
            address, lines = self._installed.pop(node)
            if told is not None and told.pci is None:
                return Told(told.kind, told.code, address, told.text)
            if lines > 1 and told is None:
                self._installed[node] = (address, lines - 1)
        return told

    def _believe(self, record: Record, event: _Event) -> None:
        """Keep an event that the kernel told, and whose time is known."""
        moment = self._moment(record)
        if not record.is_kernel:
            self._forged.append(event.lines[0])
        elif moment is None:
            self._untimed.append(event.lines[0])
        else:
            event.ts = moment
            self._keep(event)

    def _moment(self, record: Record) -> datetime | None:
        if record.ts is not None or record.since_boot_s is None or self._place.boot_at is None:
            return record.ts
        try:
            return self._place.boot_at + timedelta(seconds=record.since_boot_s)
        except OverflowError:
            return None

    def _keep(self, event: _Event) -> None:
        key = (event.node, event.kind, event.code, event.pci, event.gpu_instance)
        last = self._last.get(key)
        if last is None or abs(event.ts - last.ts) > timedelta(seconds=EVENT.tolerance_s):
            self._last[key] = event
            self._events.append(event)
        elif event.lines[0] not in last.lines and len(last.lines) < LINES_MAX:
            last.lines += event.lines

    def _row(self, event: _Event, devices: Devices) -> dict[str, object]:
        device = None if event.pci is None else devices.get(event.pci)
        said = None if event.pci is None else self._uuids.get((event.node, event.pci))
        slices = _NO_SLICES if device is None else device.slices
        return {
            "ts": event.ts,
            "cluster": self._place.cluster,
            "node": event.node,
            "gpu_uuid": said if device is None else device.uuid,
            "slice_uuid": None if event.gpu_instance is None else slices.get(event.gpu_instance),
            "kind": event.kind,
            "code": event.code,
            "pci_bus_id": event.pci,
            "gpu_instance": event.gpu_instance,
            "message": "\n".join(event.lines),
            "source": self._place.source,
        }
