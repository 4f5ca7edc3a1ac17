"""What the identity join reads, as values: nodes, GPUs, MIG devices, pods, and who was seen to hold what."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import polars as pl

from collectors.cluster_gpus import part_of_profile

Place = tuple[str, str]  # cluster, node
_PCI = re.compile(r"([0-9a-f]{4,8}):([0-9a-f]{2}):([0-9a-f]{2})(?:\.([0-7]))?", re.IGNORECASE)
_REPLICA = re.compile(r"::\d+$")
_OLD_MIG = re.compile(r"MIG-(?P<gpu>GPU-[0-9a-fA-F-]+)/(?P<instance>\d+)/\d+")
_COMPUTE = re.compile(r"^(\d+)c\.\d+g")  # a compute instance in a GPU instance: 1c.2g.20gb has one slice
_INSTANCE = re.compile(r"(?P<gpu>.+)/gi(?P<instance>\d+)")


@dataclass(frozen=True, slots=True, order=True)
class Device:
    """A whole GPU, or one of its MIG devices, by UUID."""

    gpu: str
    slice: str = ""


@dataclass(frozen=True, slots=True)
class Node:
    """What a node says of its GPUs: how many, its labels and its capacity by resource."""

    gpus: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    capacity: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that was bound to a node, with what it asks for and the devices that its claims were given."""

    row: Mapping[str, object]
    uid: str
    place: Place
    starts_at: datetime
    ends_at: datetime | None
    asks: Mapping[str, float | None]
    claimed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sighting:
    """Somebody was seen to hold a device from `starts_at` to `last_at`; `ends_at` where that was seen to be over."""

    row: Mapping[str, object]
    device: Device
    starts_at: datetime
    last_at: datetime
    ends_at: datetime | None


class Devices:
    """All GPUs and MIG devices that were ever seen, found by any of their names."""

    def __init__(self, gpus: pl.DataFrame, slices: pl.DataFrame) -> None:
        """Read the tables `gpu` and `slice`, in stored form."""
        rows = gpus.to_dicts()
        self._gpus: dict[str, Mapping[str, object]] = {str(row["uuid"]): row for row in rows}
        self._keys = {row["gpu"]: str(row["uuid"]) for row in rows}
        self._slices: dict[str, Mapping[str, object]] = {str(row["uuid"]): row for row in slices.to_dicts()}
        self._names = _names(rows)
        self._slice_keys = {row["slice"]: uuid for uuid, row in self._slices.items()}
        self._instances: dict[str, dict[object, list[str]]] = {}
        self._at: defaultdict[Place, list[Device]] = defaultdict(list)
        for uuid, row in self._slices.items():
            self._instances.setdefault(self._parent(row), {}).setdefault(row["gpu_instance"], []).append(uuid)
        for uuid, row in sorted(self._gpus.items()):
            self._at[str(row["cluster"]), str(row["node"])].append(Device(uuid))

    def find(self, name: str, place: Place, at: datetime | None = None) -> Device | None:
        """Return the device that a teller calls `name`: a UUID, a replica of one, a PCI id, an index; else None.

        A GPU instance ("GPU-.../gi7") is the MIG device that had that instance at the time, where the driver told it.
        """
        name = _REPLICA.sub("", name.strip())
        if name in self._gpus:
            return Device(name)
        parts = _OLD_MIG.fullmatch(name) or _INSTANCE.fullmatch(name)
        if parts is not None and parts["gpu"] in self._gpus:
            found = self._instance(parts["gpu"], int(parts["instance"]), at)
            own = name if name in self._slices else None
            return None if found is None and own is None else Device(parts["gpu"], found or own or "")
        if name in self._slices:
            return Device(self._parent(self._slices[name]), name)
        uuid = self._names.get((*place, pci_id(name) or name.removeprefix("nvidia")))
        return None if uuid is None else Device(uuid)

    def whole_at(self, place: Place) -> list[Device]:
        """Return the GPUs of a node."""
        return self._at[place]

    def slices_at(self, place: Place) -> list[Device]:
        """Return the MIG devices of a node that were there when their GPU was last seen, each by one name only."""
        found = set()
        for gpu in (device.gpu for device in self._at[place]):
            seen = self.seen_at(Device(gpu))
            for instance, uuids in self._instances.get(gpu, {}).items():
                there = [uuid for uuid in uuids if seen is None or _is_there(self._slices[uuid], seen)]
                found |= {Device(gpu, self._instance(gpu, instance, seen) or uuid) for uuid in there}
        return sorted(found)

    def is_split(self, device: Device) -> bool:
        """Tell whether a GPU is cut into MIG devices."""
        return device.gpu in self._gpus and self._gpus[device.gpu]["mig_enabled"] is True

    def in_wire_form(self, stored: pl.DataFrame) -> pl.DataFrame:
        """Return rows with the UUIDs of GPUs and MIG devices in place of the store's keys."""
        return stored.with_columns(
            gpu_uuid=pl.col("gpu").replace_strict(self._keys, default=None, return_dtype=pl.String()),
            slice_uuid=pl.col("slice").replace_strict(self._slice_keys, default=None, return_dtype=pl.String()),
        ).drop("gpu", "slice")

    def part(self, device: Device) -> float | None:
        """Return which part of its GPU a device is (ratio): 1, or its compute slices; None where nobody told."""
        if not device.slice:
            return 1.0
        row, gpu = self._slices.get(device.slice), self._gpus.get(device.gpu)
        if row is None or row["profile"] is None:
            return None
        model = "" if gpu is None or gpu["model"] is None else str(gpu["model"])
        return part_of_profile(_COMPUTE.sub(r"\1g", str(row["profile"])), model)

    def profile(self, device: Device) -> str | None:
        """Return the profile of a MIG device, where it is one and its profile is known."""
        row = self._slices.get(device.slice)
        return None if row is None or row["profile"] is None else str(row["profile"])

    def seen_at(self, device: Device) -> datetime | None:
        """Return when any source last told of the GPU."""
        moment = self._gpus[device.gpu]["last_seen_at"] if device.gpu in self._gpus else None
        return moment if isinstance(moment, datetime) else None

    def _parent(self, row: Mapping[str, object]) -> str:
        return self._keys.get(row["gpu"], "")

    def _instance(self, gpu: str, instance: object, at: datetime | None) -> str | None:
        """Return the driver's UUID of what has an instance; None where several may have had it."""
        named = [uuid for uuid in self._instances.get(gpu, {}).get(instance, ()) if uuid.startswith("MIG-")]
        if at is not None and len(named) > 1:
            named = [uuid for uuid in named if _is_there(self._slices[uuid], at)]
        return named[0] if len(named) == 1 else None


def pci_id(text: str) -> str | None:
    """Return a PCI id in one spelling, whatever the width of its domain; None for what is none."""
    match = _PCI.fullmatch(text)
    if match is None:
        return None
    domain, bus, device, function = match.groups()
    return f"{int(domain, 16):x}:{bus}:{device}.{function or 0}".lower()


def nodes_of(frame: pl.DataFrame) -> dict[Place, Node]:
    """Return the rows of the table `node` by cluster and node."""
    return {
        (row["cluster"], row["node"]): Node(row["gpus"], _texts(row["labels"]), _numbers(row["capacity"]))
        for row in frame.to_dicts()
    }


def pods_of(frame: pl.DataFrame) -> list[Pod]:
    """Return the pods of the table `pod` that were bound to a node, in order of their start."""
    bound = frame.drop_nulls(["node", "starts_at"]).sort("starts_at", "pod_uid")
    return [_pod(row) for row in bound.to_dicts()]


def sightings_of(frame: pl.DataFrame, devices: Devices) -> tuple[list[Sighting], list[dict[str, Any]]]:
    """Return the rows of the table `holder`, and those of devices that nobody knows."""
    found: list[Sighting] = []
    strangers: list[dict[str, Any]] = []
    for row in frame.sort("starts_at", maintain_order=True).to_dicts():
        place, name = (row["cluster"], row["node"]), row["slice_uuid"] or row["gpu_uuid"]
        last = row["last_seen_at"] or row["ends_at"] or row["starts_at"]
        device = devices.find(name, place, row["starts_at"])
        if device is None:
            strangers.append(row)
        else:
            # Seen again after it was taken for over: it was not over.
            ends_at = row["ends_at"] if row["ends_at"] is not None and row["ends_at"] >= last else None
            found.append(Sighting(row, device, row["starts_at"], max(last, row["starts_at"]), ends_at))
    return found, strangers


def _pod(row: Mapping[str, object]) -> Pod:
    starts_at, ends_at = row["starts_at"], row["ends_at"]
    if not isinstance(starts_at, datetime):
        raise TypeError(starts_at)
    claimed = json.loads(str(row["devices"])) if row["devices"] is not None else []
    return Pod(
        row,
        str(row["pod_uid"]),
        (str(row["cluster"]), str(row["node"])),
        starts_at,
        ends_at if isinstance(ends_at, datetime) else None,
        _amounts(row["resources"]),
        tuple(each["uuid"] for each in claimed if each.get("uuid")),
    )


def _names(rows: Sequence[Mapping[str, object]]) -> dict[tuple[str, str, str], str]:
    """Return what GPUs are called on their node: by PCI id and by index; a name that two have is nobody's."""
    named: defaultdict[tuple[str, str, str], set[str]] = defaultdict(set)
    for row in rows:
        place = str(row["cluster"]), str(row["node"])
        for name in (pci_id(str(row["pci_bus_id"])), row["gpu_index"]):
            if name is not None:
                named[*place, str(name)].add(str(row["uuid"]))
    return {name: next(iter(uuids)) for name, uuids in named.items() if len(uuids) == 1}


def _is_there(row: Mapping[str, object], at: datetime) -> bool:
    first, last = row["first_seen_at"], row["last_seen_at"]
    return (not isinstance(first, datetime) or first <= at) and (not isinstance(last, datetime) or last >= at)


def _texts(text: object) -> dict[str, str]:
    return {} if text is None else {str(name): str(value) for name, value in json.loads(str(text)).items()}


def _numbers(text: object) -> dict[str, float]:
    return {name: value for name, value in _amounts(text).items() if value is not None}


def _amounts(text: object) -> dict[str, float | None]:
    items: Iterable[tuple[str, object]] = () if text is None else json.loads(str(text)).items()
    return {name: float(str(value)) if value is not None else None for name, value in items}
