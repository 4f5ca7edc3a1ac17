"""What each workspace holds of a pool and a GPU model now: the part of its quota that nobody gives away."""

from collections import defaultdict
from collections.abc import Iterator

from actions.index import FleetIndex
from fleet.state import Quota, Workload

_Held = tuple[str | None, str | None, float]  # pool and model (None = not known), GPUs


class HeldGpus:
    """GPUs held by workspace, counted once; what nobody can place counts against every quota of its workspace."""

    def __init__(self, index: FleetIndex) -> None:
        """Count what workloads that are not suspended hold, fractions as fractions."""
        self._held: dict[tuple[str, str], list[_Held]] = defaultdict(list)
        for workload in index.state.workloads:
            if workload.workspace is not None and not workload.is_suspended:
                self._held[workload.cluster, workload.workspace].extend(_held_by(workload, index))

    def of(self, quota: Quota) -> float:
        """Return the GPUs that count against a quota."""
        return sum(
            gpus
            for pool, model, gpus in self._held.get((quota.cluster, quota.workspace), ())
            if (quota.pool is None or pool in {None, quota.pool})
            and (quota.model is None or model in {None, quota.model})
        )


def _held_by(workload: Workload, index: FleetIndex) -> Iterator[_Held]:
    pods = index.pods_by_workload.get((workload.cluster, workload.ref), ())
    for pod in pods:
        count = max(len(pod.gpu_uuids), len(pod.slice_uuids))
        pool, model = _place(pod.gpu_uuids[0], index) if pod.gpu_uuids else (None, None)
        yield pool, model, pod.fraction * count
    if not pods:
        for uuid in workload.gpu_uuids:
            yield *_place(uuid, index), 1.0


def _place(uuid: str, index: FleetIndex) -> tuple[str | None, str | None]:
    gpu = index.gpus.get(uuid)
    return (None, None) if gpu is None else (index.pool_of(gpu)[1], gpu.model)
