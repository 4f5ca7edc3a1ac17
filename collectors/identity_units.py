"""What one unit of a resource is on a node: a whole GPU, a MIG device of a profile, or a place on a shared one."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from collectors.cluster_gpus import PRODUCT, SHARED, is_gpu
from collectors.identity_facts import Device, Devices, Node, Place

_MIG = "nvidia.com/mig-"
_SINGLE = re.compile(r".+-MIG-(\d+g\.\d+gb[^-]*)(?:-SHARED)?")


@dataclass(frozen=True, slots=True)
class Unit:
    """One resource that a pod asks for on its node.

    `count` is how many (None: nobody knows). `profile` is that of the MIG device that one unit is, None for a whole
    GPU. `replicas` is how many units one device gives: 1 is the device itself; None is what claims or an unknown node
    leave open, and then holders share evenly.
    """

    resource: str
    count: int | None
    is_slice: bool
    profile: str | None
    replicas: int | None
    is_claim: bool = False


def units_of(asks: Mapping[str, float | None], node: Node | None) -> list[Unit]:
    """Return what a pod asks for, in units of its node (None: nothing is known of that node)."""
    return [_unit(resource, amount, node) for resource, amount in sorted(asks.items())]


def fits(unit: Unit, device: Device, devices: Devices) -> bool:
    """Tell whether a device is of the kind that a unit is."""
    if unit.is_claim:
        return True
    if unit.is_slice != bool(device.slice):
        return False
    profile = devices.profile(device)
    return unit.profile is None or profile is None or plain(profile) == plain(unit.profile)


def candidates(unit: Unit, place: Place, node: Node | None, devices: Devices) -> list[Device] | None:
    """Return all devices of a node that a unit may be of; None where it is not sure that they are all."""
    if node is None or unit.is_claim:
        return None
    if unit.is_slice:
        found = [each for each in devices.slices_at(place) if fits(unit, each, devices)]
        advertised = node.capacity.get(unit.resource)
    else:
        all_ = devices.whole_at(place)
        found = [each for each in all_ if not devices.is_split(each)]
        advertised = node.capacity.get(unit.resource) if unit.replicas == 1 else None
        if len(all_) != (node.gpus if node.gpus is not None else advertised):
            return None
    if advertised is None:
        return None if unit.is_slice else found
    return found if len(found) * (unit.replicas or 0) == advertised else None


def plain(profile: str) -> str:
    """Return a MIG profile as resources spell it: "1g.10gb+me" is advertised as 1g.10gb.me."""
    return profile.replace("+", ".")


def _unit(resource: str, amount: float | None, node: Node | None) -> Unit:
    count = int(amount) if amount is not None and amount.is_integer() else None
    if not is_gpu(resource):
        return Unit(resource, count, is_slice=False, profile=None, replicas=None, is_claim=True)
    name = resource.removesuffix(SHARED)
    replicas = _replicas(resource, name, node)
    if name.startswith(_MIG):
        return Unit(resource, count, is_slice=True, profile=name.removeprefix(_MIG), replicas=replicas)
    single = None if node is None else _single(node.labels)
    return Unit(resource, count, is_slice=single is not None, profile=single, replicas=replicas)


def _replicas(resource: str, name: str, node: Node | None) -> int | None:
    if node is None or not node.labels:
        return None
    if resource == name and node.capacity.get(name + SHARED):
        return 1  # shared devices have a name of their own there
    text = node.labels.get(f"{name}.replicas", "")
    if resource != name:
        return int(text) if text.isdecimal() and int(text) > 0 else None
    return max(1, int(text)) if text.isdecimal() else 1


def _single(labels: Mapping[str, str]) -> str | None:
    """Return the profile that every unit of `nvidia.com/gpu` has, where the node's MIG strategy is "single"."""
    match = _SINGLE.fullmatch(labels.get(PRODUCT, "")) if labels.get("nvidia.com/mig.strategy") == "single" else None
    return None if match is None else match[1]
