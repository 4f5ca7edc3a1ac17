"""Dynamic resource allocation: which devices the resource claims of a pod got, and how much of a GPU they are.

The claim's status is the truth of who holds which device: `allocation.devices.results` names the device,
`reservedFor` the pods. The resource slices of a driver describe its devices (`type`, `uuid`, `profile`, `productName`).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from collectors.cluster_gpus import GPU, is_gpu, part_of_profile
from collectors.cluster_objects import DeviceClass, DeviceRequest, ExactRequest, Pod, ResourceClaim, ResourceSlice

DRIVER = "gpu.nvidia.com"
_WHOLE, _MIG = "gpu.nvidia.com", "mig.nvidia.com"
_TYPE = re.compile(r"type\s*==\s*['\"](\w+)['\"]")


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """A device of a GPU driver: its UUID, and how much of a GPU it is (None: nobody tells)."""

    uuid: str | None
    profile: str | None
    part: float | None


@dataclass(frozen=True, slots=True)
class ClaimFacts:
    """What is kept of a claim: what it asks for by class, the devices it got, and which pods share them, by UID.

    `maker` is the pod that a claim was made for; no other pod uses it.
    """

    classes: Mapping[str, float | None]
    devices: tuple[tuple[str, str], ...]
    users: frozenset[str]
    is_allocated: bool
    maker: str | None = None


@dataclass(frozen=True, slots=True)
class Claims:
    """All claims by (namespace, name), the devices by (pool, name), and what a device of each class is.

    `is_known` is False where claims could not be read.
    """

    claims: Mapping[tuple[str, str], ClaimFacts] = field(default_factory=dict)
    devices: Mapping[tuple[str, str], DeviceFacts] = field(default_factory=dict)
    classes: Mapping[str, float | None] = field(default_factory=dict)
    is_known: bool = False


@dataclass(frozen=True, slots=True)
class Claimed:
    """What the claims of one pod come to: counts by class, whole GPUs (None: not known), devices."""

    resources: Mapping[str, float | None] = field(default_factory=dict)
    gpus: float | None = 0.0
    devices: tuple[Mapping[str, str | None], ...] = ()


def claim_facts(claim: ResourceClaim) -> ClaimFacts:
    """Return what matters of a claim. Devices taken for administration hold nothing and do not count."""
    allocation = claim.status.allocation
    results = () if allocation is None else allocation.devices.results or ()
    devices = tuple((each.pool, each.device) for each in results if each.driver == DRIVER and not each.admin_access)
    counts: dict[str, float | None] = {}
    for request in claim.spec.devices.requests or ():
        exact = _exact(request)
        if exact.device_class_name and not exact.admin_access:
            before, count = counts.get(exact.device_class_name, 0.0), _count(exact)
            counts[exact.device_class_name] = None if before is None or count is None else before + count
    users = frozenset(each.uid for each in claim.status.reserved_for or () if each.resource == "pods")
    owner = claim.metadata.controller()
    maker = owner.uid if owner is not None and owner.kind == "Pod" else None
    return ClaimFacts(counts, devices, users, allocation is not None, maker)


def slice_devices(each: ResourceSlice) -> dict[tuple[str, str], DeviceFacts]:
    """Return the GPU devices that a resource slice describes, by (pool, name)."""
    if each.spec.driver != DRIVER:
        return {}
    found = {}
    for device in each.spec.devices or ():
        told = device.attributes or (device.basic.attributes if device.basic is not None else None) or {}
        texts = {name.rpartition("/")[2]: value.string for name, value in told.items()}
        profile, product = texts.get("profile"), (texts.get("productName") or "").replace(" ", "-")
        part = 1.0 if texts.get("type") == "gpu" else part_of_profile(profile or "", product)
        found[each.spec.pool.name, device.name] = DeviceFacts(texts.get("uuid"), profile, part)
    return found


def class_part(each: DeviceClass) -> tuple[bool, float | None]:
    """Return whether a class is of GPUs, and how much of a GPU one of its devices is."""
    name = each.metadata.name
    texts = [selector.cel.expression for selector in each.spec.selectors or () if selector.cel is not None]
    stands_for = each.spec.extended_resource_name
    if name == _WHOLE or stands_for == GPU:
        return True, 1.0
    if name == _MIG or (stands_for is not None and is_gpu(stands_for)):
        return True, None
    if not any(DRIVER in text for text in texts):
        return False, None
    types = {match for text in texts for match in _TYPE.findall(text)}
    return True, 1.0 if types == {"gpu"} else None


@dataclass(frozen=True, slots=True)
class Claimant:
    """A pod that claims: its UID and namespace, its claims by name (None: still to be made), and whether it is over."""

    uid: str
    namespace: str
    names: tuple[str | None, ...]
    is_over: bool


def claimed(pod: Claimant, claims: Claims) -> Claimed:
    """Return what its claims come to for one pod; pods on one claim share it evenly.

    A claim that asks for no GPU counts nothing. One that is not there yet, or could not be read, is unknown, and so is
    the share of a pod that is over in a claim that no longer names it.
    """
    resources: dict[str, float | None] = {}
    gpus: float | None = 0.0
    devices: list[Mapping[str, str | None]] = []
    for name in pod.names:
        facts = None if name is None else claims.claims.get((pod.namespace, name))
        if facts is None:
            gpus = None
            continue
        for each in facts.classes.keys() & claims.classes.keys():
            resources[each] = _sum((resources.get(each, 0.0), facts.classes[each]))
        devices += devices_of(facts, claims)
        part, share = _part(facts, claims), _share(facts, pod)
        gpus = None if gpus is None or part is None or share is None else gpus + part * share
    return Claimed(resources, gpus, tuple(devices))


def devices_of(facts: ClaimFacts, claims: Claims) -> list[Mapping[str, str | None]]:
    """Return the GPU devices of a claim, each with its UUID where a resource slice tells it."""
    return [_device(key, claims) for key in facts.devices]


def claim_names(pod: Pod) -> tuple[str | None, ...]:
    """Return the claims of a pod by name; None for one that is still to be made from its template.

    The status may say that a template gave no claim; such a reference counts for nothing.
    """
    made = {each.name: each for each in pod.status.resource_claim_statuses or ()}
    names: list[str | None] = []
    for reference in pod.spec.resource_claims or ():
        if reference.resource_claim_name is not None:
            names.append(reference.resource_claim_name)
        elif reference.name not in made:
            names.append(None)
        elif made[reference.name].resource_claim_name is not None:
            names.append(made[reference.name].resource_claim_name)
    return tuple(names)


def _share(facts: ClaimFacts, pod: Claimant) -> float | None:
    if facts.maker == pod.uid:
        return 1.0
    return None if pod.is_over and pod.uid not in facts.users else 1.0 / max(1, len(facts.users))


def _part(facts: ClaimFacts, claims: Claims) -> float | None:
    """Return how many whole GPUs a claim is: by its devices where it has got them, else by what it asks for."""
    if facts.is_allocated:
        parts = [claims.devices[key].part if key in claims.devices else _lone(facts, claims) for key in facts.devices]
        return _sum(parts)
    asked = [(count, claims.classes[name]) for name, count in facts.classes.items() if name in claims.classes]
    return _sum(None if count is None or part is None else count * part for count, part in asked)


def _lone(facts: ClaimFacts, claims: Claims) -> float | None:
    """Return what a device is that no slice describes: what its class is, where all classes of the claim agree."""
    parts = {claims.classes[name] for name in facts.classes if name in claims.classes}
    return next(iter(parts)) if len(parts) == 1 else None


def _sum(parts: Iterable[float | None]) -> float | None:
    total = 0.0
    for part in parts:
        if part is None:
            return None
        total += part
    return total


def _device(key: tuple[str, str], claims: Claims) -> Mapping[str, str | None]:
    facts = claims.devices.get(key)
    return {
        "pool": key[0],
        "device": key[1],
        "uuid": None if facts is None else facts.uuid,
        "profile": None if facts is None else facts.profile,
    }


def _exact(request: DeviceRequest) -> ExactRequest:
    """Return what a request asks for first; before v1 the request itself said it."""
    if request.exactly is not None:
        return request.exactly
    if request.first_available:
        return request.first_available[0]
    return ExactRequest(request.device_class_name, request.count, request.allocation_mode, request.admin_access)


def _count(request: ExactRequest) -> float | None:
    """Return how many devices are asked for; None for "all that there are"."""
    if request.allocation_mode == "All":
        return None
    return float(1 if request.count is None else request.count)
