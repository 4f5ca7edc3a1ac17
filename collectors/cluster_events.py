"""Events about nodes that tell of faults: XIDs, as node agents and drivers write them into events, and reboots."""

import re
from dataclasses import dataclass
from datetime import datetime

from collectors.cluster_objects import Event

# The driver's own line, and the reasons that cloud providers' node agents give (EKS: NvidiaXID79Error).
_LINE = re.compile(r"\bXid\b(?: \(PCI:(?P<pci>[0-9a-fA-F:.]+)\))?[:=]?\s*(?P<code>\d{1,4})\b", re.IGNORECASE)
_REASON = re.compile(r"XID(?P<code>\d{1,4})(?:Error|Warning)?")
_REBOOTED = "Rebooted"  # the kubelet's own
_UUID = re.compile(r"\bGPU-[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b")


@dataclass(frozen=True, slots=True)
class FaultFacts:
    """A fault that an event tells of: an XID with its code, or a boot."""

    at: datetime
    node: str
    kind: str
    code: int | None
    pci_bus_id: str | None
    gpu_uuid: str | None
    message: str


def fault_facts(event: Event) -> FaultFacts | None:
    """Return the fault that an event about a node tells of; None where it tells of something else."""
    text = event.message or ""
    found = _LINE.search(text) or _REASON.search(event.reason or "")
    at = (event.series.last_observed_time if event.series is not None else None) or event.last_timestamp
    at = at or event.event_time or event.first_timestamp or event.metadata.creation_timestamp
    is_boot = found is None and event.reason == _REBOOTED
    if (found is None and not is_boot) or at is None or event.involved_object.kind != "Node":
        return None
    uuid = _UUID.search(text)
    return FaultFacts(
        at=at,
        node=event.involved_object.name,
        kind="boot" if found is None else "xid",
        code=None if found is None else int(found["code"]),
        pci_bus_id=None if found is None else found.groupdict().get("pci"),
        gpu_uuid=None if uuid is None else uuid[0],
        message=text or str(event.reason),
    )


def fault_row(fault: FaultFacts, source: str) -> dict[str, object]:
    """Return the row of the table `event` without its cluster."""
    return {
        "ts": fault.at,
        "node": fault.node,
        "gpu_uuid": fault.gpu_uuid,
        "kind": fault.kind,
        "code": fault.code,
        "pci_bus_id": fault.pci_bus_id,
        "message": fault.message,
        "source": source,
    }
