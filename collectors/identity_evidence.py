"""Which pod a sighting was of: by UID, else by name and time, though names come back and clocks differ."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from collectors.identity_facts import Device, Pod, Sighting

# Clocks of nodes and API servers are up to this far apart, and exporters tell of a pod up to this long after its end.
SKEW = timedelta(minutes=10)
_OPEN = datetime.max.replace(tzinfo=UTC)


@dataclass(slots=True)
class Evidence:
    """What was seen of one pod on one device: containers with the replicas each holds, and for how long."""

    is_sure: bool = False
    overlap: timedelta = timedelta(0)
    containers: dict[str | None, int | None] = field(default_factory=dict)

    def add(self, sighting: Sighting, overlap: timedelta) -> None:
        """Take in a sighting; of several tellers the longest word counts, and a container's name beats none."""
        self.is_sure = self.is_sure or sighting.row["pod_uid"] is not None
        self.overlap = max(self.overlap, overlap)
        name, count = sighting.row["container"], sighting.row["share_count"]
        key = None if name is None else str(name)
        replicas = count if isinstance(count, int) else None
        before = self.containers.get(key)
        self.containers[key] = before if replicas is None else max(replicas, before or replicas)
        if len(self.containers) > 1:
            self.containers.pop(None, None)


Found = Mapping[str, dict[Device, Evidence]]  # by pod UID


def match(pods: Sequence[Pod], sightings: Iterable[Sighting]) -> tuple[Found, list[Sighting]]:
    """Return what was seen of each pod, and the sightings of pods that nobody knows.

    A sighting that names a UID is of that pod. One that names only namespace and pod is of the incarnation that it
    lies with longest, and of every other one that it reaches into by more than clocks may differ. One that lies
    beyond all of them by more than that is of a pod that nobody knows.
    """
    by_uid = {pod.uid: pod for pod in pods}
    by_name: defaultdict[tuple[object, object, object], list[Pod]] = defaultdict(list)
    for pod in pods:
        by_name[pod.row["cluster"], pod.row["namespace"], pod.row["pod"]].append(pod)
    found: defaultdict[str, dict[Device, Evidence]] = defaultdict(dict)
    strangers: list[Sighting] = []
    for sighting in sightings:
        row = sighting.row
        if row["pod_uid"] is not None:
            uid = str(row["pod_uid"])
            owners = [by_uid[uid]] if uid in by_uid else []
        else:
            owners = _owners(sighting, by_name.get((row["cluster"], row["namespace"], row["pod"]), []))
        if not owners:
            strangers.append(sighting)
        for owner in owners:
            evidence = found[owner.uid].setdefault(sighting.device, Evidence())
            evidence.add(sighting, _overlap(sighting, owner))
    return found, strangers


def overlaps(one: tuple[datetime, datetime | None], other: tuple[datetime, datetime | None]) -> bool:
    """Tell whether two intervals `[from, to)` share a moment; null = open."""
    return one[0] < (other[1] or _OPEN) and other[0] < (one[1] or _OPEN)


def _owners(sighting: Sighting, pods: Sequence[Pod]) -> list[Pod]:
    near = [pod for pod in pods if _gap(sighting, pod) <= SKEW]
    if not near:
        return []
    best = max(near, key=lambda pod: (_overlap(sighting, pod), -_gap(sighting, pod), pod.starts_at))
    return [pod for pod in near if pod is best or _overlap(sighting, pod) > SKEW]


def _overlap(sighting: Sighting, pod: Pod) -> timedelta:
    shared = min(sighting.last_at, pod.ends_at or _OPEN) - max(sighting.starts_at, pod.starts_at)
    return max(shared, timedelta(0))


def _gap(sighting: Sighting, pod: Pod) -> timedelta:
    """Return how far a sighting lies from the life of a pod; zero where they touch."""
    after = sighting.starts_at - (pod.ends_at or _OPEN)
    before = pod.starts_at - sighting.last_at
    return max(after, before, timedelta(0))
