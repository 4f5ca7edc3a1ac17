"""How much of each GPU resource is asked for and waited for, against what nodes offer."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_OVER = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True, slots=True)
class Pressure:
    """Of one resource: pods and units that wait, units asked for by all that wait or run, units that nodes offer."""

    pending_pods: int
    pending_units: float
    requested: float
    allocatable: float


@dataclass(frozen=True, slots=True)
class Ask:
    """What a container of a pod asks of a resource; limits speak where requests say nothing."""

    phase: str
    resource: str
    requests: float | None = None
    limits: float | None = None

    def units(self) -> float | None:
        """Return the units asked for; None: none."""
        return self.limits if self.requests is None else self.requests


def scheduler_pressure(pods: Iterable[Iterable[Ask]], nodes: Iterable[tuple[str, float]]) -> Mapping[str, Pressure]:
    """Return the pressure on each resource that pods (each its containers' asks) or nodes tell of."""
    waiting_pods: defaultdict[str, int] = defaultdict(int)
    waiting: defaultdict[str, float] = defaultdict(float)
    requested: defaultdict[str, float] = defaultdict(float)
    offered: defaultdict[str, float] = defaultdict(float)
    for name, amount in nodes:
        offered[name] += amount
    for pod in pods:
        asks = [(ask, units) for ask in pod if ask.phase not in _OVER and (units := ask.units()) is not None]
        for ask, units in asks:
            requested[ask.resource] += units
            waiting[ask.resource] += units if ask.phase == "Pending" else 0.0
        for name in {ask.resource for ask, _ in asks if ask.phase == "Pending"}:
            waiting_pods[name] += 1
    names = sorted({*requested, *offered})
    return {name: Pressure(waiting_pods[name], waiting[name], requested[name], offered[name]) for name in names}
