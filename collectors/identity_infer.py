"""What is left: where nobody tells a pod's device, its node and what the others there hold may leave one answer."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from collectors.identity_evidence import overlaps
from collectors.identity_facts import Device, Devices, Node, Place, Pod
from collectors.identity_units import Unit, candidates, fits


@dataclass(slots=True)
class Held:
    """A pod with what it asks for and the devices it is known to hold: containers and replicas by device.

    `hints` are GPUs of which it holds a part, without anybody telling which part. `weak` are devices that nobody tells
    of any more.
    """

    pod: Pod
    units: Sequence[Unit]
    devices: dict[Device, dict[str | None, int | None]] = field(default_factory=dict)
    hints: frozenset[str] = frozenset()
    weak: set[Device] = field(default_factory=set)

    def missing(self, unit: Unit, devices: Devices) -> int | None:
        """Return how many devices of a unit are still unknown; None where the count of them is."""
        if unit.count is None:
            return None
        return unit.count - sum(_replicas(held) for each, held in self.devices.items() if fits(unit, each, devices))

    def is_whole(self, devices: Devices) -> bool:
        """Tell whether all devices that the pod asks for are known."""
        if not self.devices or any(unit.count is None for unit in self.units):
            return bool(self.devices)
        claims = [unit for unit in self.units if unit.is_claim]
        if claims:
            wanted = sum(unit.count for unit in self.units if unit.count is not None)
            return sum(_replicas(held) for held in self.devices.values()) >= wanted
        return all((self.missing(unit, devices) or 0) <= 0 for unit in self.units)


def infer(all_held: Iterable[Held], nodes: Mapping[Place, Node], devices: Devices) -> None:
    """Add the devices that pods must hold because nothing else is left for them on their node.

    A device is free for a pod where nobody who holds it alone did so at any moment of the pod's life. Where as many
    are free as the pod still misses, they are its own; found ones may settle others, so that is asked until nothing
    new comes.
    """
    by_place: defaultdict[Place, list[Held]] = defaultdict(list)
    for held in all_held:
        by_place[held.pod.place].append(held)
    for place, there in by_place.items():
        open_ = [held for held in there if not held.is_whole(devices)]
        while open_ and any(_settle(held, there, nodes.get(place), devices) for held in open_):
            open_ = [held for held in open_ if not held.is_whole(devices)]


def _settle(held: Held, there: Sequence[Held], node: Node | None, devices: Devices) -> bool:
    """Add what only this pod can hold; return whether anything was."""
    is_new = False
    for unit in held.units:
        missing = held.missing(unit, devices)
        choice = candidates(unit, held.pod.place, node, devices)
        if missing is None or missing <= 0 or choice is None:
            continue
        choice = [each for each in choice if not held.hints or each.gpu in held.hints]
        taken = set(_taken(held, there)) if unit.replicas == 1 else set(held.devices)
        free = [each for each in choice if each not in taken]
        # Where devices are shared, other pods take nothing away, and only a node of one device leaves no choice.
        if len(free) == (missing if unit.replicas == 1 else 1):
            held.devices.update({each: {None: None if unit.replicas == 1 else missing} for each in free})
            is_new = True
    return is_new


def _taken(held: Held, there: Sequence[Held]) -> Iterator[Device]:
    span = held.pod.starts_at, held.pod.ends_at
    yield from held.devices
    for other in there:
        if other is not held and other.devices and overlaps(span, (other.pod.starts_at, other.pod.ends_at)):
            yield from other.devices


def _replicas(containers: Mapping[str | None, int | None]) -> int:
    return sum(1 if count is None else count for count in containers.values())
