"""Who a pod belongs to at the top: a bounded, cached walk up the owner references that controllers leave.

ReplicaSet to Deployment to InferenceService, Job to JobSet to TrainJob, StatefulSet to LeaderWorkerSet, and whatever
else names its controller. Only metadata is asked for. An owner that is gone, was replaced by one of the same name, or
may not be read stays named as the reference names it.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from collectors.cluster_objects import Named, OwnerReference

_DEPTH = 8  # no real chain is longer: Pod, StatefulSet, Pod, StatefulSet, LeaderWorkerSet, and something above
_SINGLY = 20  # so many owners of one kind are asked for one by one, more of them as a list
_LOOK_UPS = 200  # in one look; the rest is named by its reference until the next

Place = tuple[str, OwnerReference]  # namespace and reference


class Unreadable(Exception):
    """Owners of this kind can't be read now."""


class Registry(Protocol):
    """Where owners are looked up; raises `Unreadable` where their kind may not be read, or not now."""

    def one(self, namespace: str, owner: OwnerReference) -> Named | None:
        """Return one owner's metadata; None where it is gone."""
        ...

    def every(self, owner: OwnerReference) -> Mapping[str, Named]:
        """Return the metadata of all objects of an owner's kind, by UID."""
        ...


@dataclass(frozen=True, slots=True)
class _Known:
    kind: str
    name: str
    above: OwnerReference | None


class Owners:
    """What is known of owners, by UID; `walk` learns what is missing, `top` tells."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}

    def walk(self, pods: Iterable[Place], registry: Registry) -> int:
        """Look up what is not known yet of the owners above `pods`, and forget who owns none; return the look-ups."""
        seen: dict[str, _Known] = {}
        level = {reference.uid: (namespace, reference) for namespace, reference in pods}
        look_ups = 0
        for _ in range(_DEPTH):
            missing = [place for uid, place in level.items() if uid not in self._known]
            look_ups += self._learn(missing, registry, _LOOK_UPS - look_ups)
            above: dict[str, Place] = {}
            for uid, (namespace, _) in level.items():
                known = self._known.get(uid)
                if known is not None:
                    seen[uid] = known
                    if known.above is not None and known.above.uid not in seen:
                        above[known.above.uid] = (namespace, known.above)
            level = above
        self._known = seen
        return look_ups

    def top(self, reference: OwnerReference) -> tuple[str, str]:
        """Return kind and name of the topmost owner that is known above a reference."""
        for _ in range(_DEPTH):
            known = self._known.get(reference.uid)
            if known is None or known.above is None:
                break
            reference = known.above
        return reference.kind, reference.name

    def _learn(self, missing: Iterable[Place], registry: Registry, allowed: int) -> int:
        """Look owners up, kind by kind, with at most `allowed` questions; return how many it took."""
        kinds: defaultdict[tuple[str, str], list[Place]] = defaultdict(list)
        for namespace, reference in missing:
            kinds[reference.api_version, reference.kind].append((namespace, reference))
        asked = 0
        for places in kinds.values():
            try:
                asked += self._learn_kind(places, registry, allowed - asked)
            except Unreadable:
                asked += 1
        return asked

    def _learn_kind(self, places: list[Place], registry: Registry, allowed: int) -> int:
        if allowed <= 0:
            return 0
        if len(places) > _SINGLY:
            every = registry.every(places[0][1])
            for _, reference in places:
                self._keep(reference, every.get(reference.uid))
            return 1
        for namespace, reference in places[:allowed]:
            self._keep(reference, registry.one(namespace, reference))
        return min(len(places), allowed)

    def _keep(self, reference: OwnerReference, found: Named | None) -> None:
        is_it = found is not None and found.metadata.uid == reference.uid
        above = found.metadata.controller() if found is not None and is_it else None
        self._known[reference.uid] = _Known(reference.kind, reference.name, above)
