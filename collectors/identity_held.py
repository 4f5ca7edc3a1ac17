"""What one pod is known to hold: what its claims were given, what was seen, and what was found before."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from collectors.identity_evidence import Evidence, overlaps
from collectors.identity_facts import Device, Devices, Pod
from collectors.identity_infer import Held
from collectors.identity_time import Claim
from collectors.identity_units import Unit, fits

Remembered = dict[Device, dict[str | None, float]]


def held_by(
    pod: Pod, units: Sequence[Unit], seen: Mapping[Device, Evidence], before: Remembered, devices: Devices
) -> Held:
    """Return what a pod holds as far as it was told; what is more than it asked for is left to whom it belongs.

    The best word comes first: claims, then sightings that name its UID, then the longest ones, then what was found
    before. A whole GPU that a pod of MIG devices was seen on says which GPU its devices are of.
    """
    held = Held(pod, units)
    for name in pod.claimed:
        device = devices.find(name, pod.place, pod.starts_at)
        if device is not None:
            held.devices[device] = dict(seen[device].containers) if device in seen else {None: None}
    ranked = sorted(seen.items(), key=lambda each: (not each[1].is_sure, -each[1].overlap, each[0]))
    for device, evidence in ranked:
        unit = _unit(held, device, devices)
        if unit is not None:
            held.devices[device] = dict(evidence.containers)
        elif not device.slice and any(each.is_slice for each in units):
            held.hints |= {device.gpu}
    for device, fractions in before.items():
        unit = _unit(held, device, devices)
        if unit is not None:
            held.devices[device] = {
                name: _count(fraction, unit, devices.part(device)) for name, fraction in fractions.items()
            }
            held.weak.add(device)
    return held


def forget_taken(all_held: Iterable[Held]) -> None:
    """Take from pods what was only found before, where somebody else is now told to hold it alone at the time."""
    by_device: defaultdict[Device, list[Held]] = defaultdict(list)
    for held in all_held:
        for device in held.devices:
            by_device[device].append(held)
    for device, holders in by_device.items():
        sure = [each for each in holders if device not in each.weak]
        for held in [each for each in holders if device in each.weak and _is_alone(each)]:
            span = held.pod.starts_at, held.pod.ends_at
            if any(overlaps(span, (each.pod.starts_at, each.pod.ends_at)) for each in sure):
                del held.devices[device]


def claims_of(held: Held, devices: Devices) -> Iterator[Claim]:
    """Yield a pod's claims on its devices; a MIG device of unknown size can't be one."""
    for device, containers in sorted(held.devices.items()):
        part = devices.part(device)
        if part is None:
            continue
        unit = next((each for each in held.units if fits(each, device, devices)), None)
        for container, count in containers.items():
            fraction = None
            if unit is not None and unit.replicas is not None:
                fraction = part * min(1.0, (1 if count is None else count) / unit.replicas)
            yield Claim((held.pod.uid, container), device, part, fraction, held.pod.starts_at, held.pod.ends_at)


def _unit(held: Held, device: Device, devices: Devices) -> Unit | None:
    """Return the unit of which a device would be one that is still missing; None where the pod has no need of it."""
    if device in held.devices:
        return None
    for unit in held.units:
        if fits(unit, device, devices):
            missing = held.missing(unit, devices)
            if missing is None or missing > 0:
                return unit
    return None


def _count(fraction: float, unit: Unit, part: float | None) -> int | None:
    """Return how many replicas a fraction stood for; None where a device has no replicas, or nobody knows them."""
    if unit.replicas is None or unit.replicas == 1 or part is None:
        return None
    return max(1, round(fraction / part * unit.replicas))


def _is_alone(held: Held) -> bool:
    return all(unit.replicas == 1 for unit in held.units)
