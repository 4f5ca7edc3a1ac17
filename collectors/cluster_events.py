"""Events about nodes that tell of GPU faults: XIDs, as node agents and drivers write them into events of Kubernetes."""

import re
from dataclasses import dataclass
from datetime import datetime

from collectors.cluster_objects import Event

# The driver's own line, and the reasons that cloud providers' node agents give (EKS: NvidiaXID79Error).
_LINE = re.compile(r"\bXid\b(?: \(PCI:(?P<pci>[0-9a-fA-F:.]+)\))?[:=]?\s*(?P<code>\d{1,4})\b", re.IGNORECASE)
_REASON = re.compile(r"XID(?P<code>\d{1,4})(?:Error|Warning)?")
_UUID = re.compile(r"\bGPU-[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b")


@dataclass(frozen=True, slots=True)
class FaultFacts:
    """A fault that an event tells of."""

    at: datetime
    node: str
    code: int
    pci_bus_id: str | None
    gpu_uuid: str | None
    message: str


def fault_facts(event: Event) -> FaultFacts | None:
    """Return the fault that an event about a node tells of; None where it tells of something else."""
    text = event.message or ""
    found = _LINE.search(text) or _REASON.search(event.reason or "")
    at = (event.series.last_observed_time if event.series is not None else None) or event.last_timestamp
    at = at or event.event_time or event.first_timestamp or event.metadata.creation_timestamp
    if found is None or at is None or event.involved_object.kind != "Node":
        return None
    uuid = _UUID.search(text)
    return FaultFacts(
        at=at,
        node=event.involved_object.name,
        code=int(found["code"]),
        pci_bus_id=found.groupdict().get("pci"),
        gpu_uuid=None if uuid is None else uuid[0],
        message=text or str(event.reason),
    )


def fault_row(fault: FaultFacts, source: str) -> dict[str, object]:
    """Return the row of the table `event` without its cluster."""
    return {
        "ts": fault.at,
        "node": fault.node,
        "gpu_uuid": fault.gpu_uuid,
        "kind": "xid",
        "code": fault.code,
        "pci_bus_id": fault.pci_bus_id,
        "message": fault.message,
        "source": source,
    }
