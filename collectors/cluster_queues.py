"""How Kueue's cluster queues stand: GPUs kept, used and borrowed by flavor, and workloads that wait."""

from collections.abc import Iterable, Mapping

from collectors.cluster_gpus import MOST, gpus_of, is_gpu, quantity
from collectors.cluster_kueue import FlavorFacts, Kueue, QueueFacts, workspaces_of
from collectors.cluster_kueue_objects import FlavorUse, ResourceUse
from collectors.cluster_objects import Quantity


def queue_rows(
    kueue: Kueue, workspace_of: Mapping[str, str], common: Mapping[str, float | None]
) -> list[dict[str, object]]:
    """Return rows of the table `queue` without cluster and moment, one for each queue and flavor."""
    speaks_for = workspaces_of(kueue, workspace_of)
    return [
        {
            "queue": queue.name,
            "workspace": speaks_for[queue.name],
            **_flavor_row(queue, flavor, kueue.flavors.get(flavor, FlavorFacts(None, None)), common),
            "pending_jobs": _count(queue.status.pending_workloads),
            "admitted_jobs": _count(queue.status.admitted_workloads),
            "is_active": _is_active(queue),
        }
        for queue in sorted(kueue.queues or (), key=lambda each: each.name)
        for flavor in dict.fromkeys(grant[0] for grant in queue.grants)
    ]


def _flavor_row(
    queue: QueueFacts, flavor: str, place: FlavorFacts, common: Mapping[str, float | None]
) -> dict[str, object]:
    nominal = {resource: amount for name, resource, amount, _ in queue.grants if name == flavor}
    used = _uses(queue.status.flavors_usage, flavor)
    return {
        "flavor": flavor,
        "pool": place.pool,
        "model": place.model,
        "nominal_gpus": gpus_of(nominal, common),
        "reserved_gpus": _gpus(
            {each.name: each.total for each in _uses(queue.status.flavors_reservation, flavor)}, common
        ),
        "used_gpus": _gpus({each.name: each.total for each in used}, common),
        "borrowed_gpus": _gpus({each.name: each.borrowed for each in used}, common),
    }


def _uses(flavors: Iterable[FlavorUse] | None, flavor: str) -> list[ResourceUse]:
    """Return what is taken of GPU resources in a flavor; nothing where the queue doesn't tell."""
    told = (each for each in flavors or () if each.name == flavor)
    return [use for each in told for use in each.resources or () if is_gpu(use.name)]


def _gpus(amounts: Mapping[str, Quantity | None], common: Mapping[str, float | None]) -> float | None:
    """Return amounts in whole GPUs; None where none is told, or nobody knows what one of them is."""
    numbers = {name: quantity(amount) for name, amount in amounts.items()}
    known = {name: number for name, number in numbers.items() if number is not None}
    return gpus_of(known, common) if known and len(known) == len(numbers) else None


def _count(number: int | None) -> int | None:
    return None if number is None or not 0 <= number <= MOST else number


def _is_active(queue: QueueFacts) -> bool | None:
    told = next((each.status for each in queue.status.conditions or () if each.type == "Active"), None)
    return None if told is None else told == "True"
