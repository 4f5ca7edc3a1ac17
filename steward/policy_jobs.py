"""Which recorded jobs would have started earlier on what a policy frees, and which later for what it fences."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl

from analytics.job_frames import read_jobs, workspaces_of
from analytics.queue_replay import Rules, replay
from steward.policy_effects import Fence, Reclaim
from steward.policy_replay import Past
from store.store import Store

_SHIFT_S = 60.0
_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class JobShift:
    """Recorded jobs, replayed with the policy's freed and fenced GPUs and without them: how many start when.

    None everywhere where no jobs are recorded. A shift of less than a minute is none.
    """

    jobs: int
    earlier: int | None = None
    later: int | None = None
    saved_h: float | None = None
    lost_h: float | None = None


def shift_jobs(store: Store, past: Past, reclaims: Sequence[Reclaim], fences: Sequence[Fence]) -> JobShift:
    """Replay the jobs that came in the stretch, by cluster and GPU model, in both worlds.

    Both worlds go by the same queue (`analytics.queue_replay`): GPUs are counted and not placed, all that are of a
    model are there all the time, unused quota is lent without end. So the waits are the replay's and not the
    record's, and what differs is the policy.
    """
    table = store.engine.table("job")
    wanted = table.filter(table.submitted_at < past.data_until, table.gpus > 0)
    jobs = store.engine.run(wanted).filter(
        pl.col("ended_at").is_null() | (pl.col("ended_at") > past.stretch.since), pl.col("model").is_not_null()
    )
    if jobs.is_empty():
        return JobShift(0)
    gpus = {gpu.uuid: (gpu.cluster, gpu.model) for _, gpu in past.record.gpus}
    changes = _changes(gpus, reclaims, fences)
    earlier = later = count = 0
    saved = lost = 0.0
    for (cluster, model), frame in jobs.group_by(["cluster", "model"], maintain_order=True):
        key = (str(cluster), str(model))
        there = sum(place == key for place in gpus.values())
        if there == 0:
            continue
        moved = _shift(frame, float(there), changes.get(key, ()), past.data_until.timestamp())
        count += moved.size
        earlier += int((moved > _SHIFT_S).sum())
        later += int((moved < -_SHIFT_S).sum())
        saved += float(moved[moved > _SHIFT_S].sum()) / _HOUR_S
        lost -= float(moved[moved < -_SHIFT_S].sum()) / _HOUR_S
    return JobShift(count, earlier, later, saved, lost) if count else JobShift(0)


def _shift(frame: pl.DataFrame, gpus: float, changes: Sequence[tuple[float, float]], until_s: float) -> np.ndarray:
    """Return by how many seconds each job starts earlier with the changes than without."""
    names = workspaces_of(frame)
    jobs = read_jobs(frame, names, until_s)
    quotas = tuple(np.inf for _ in names)
    without = replay(jobs, Rules(gpus, quotas))
    if not changes:
        return np.zeros(jobs.count)
    with_policy = replay(jobs, Rules(gpus, quotas, changes=tuple(sorted(changes))))
    ends = [np.where(np.isfinite(each), np.minimum(each, until_s), until_s) for each in (without, with_policy)]
    return np.asarray(ends[0] - ends[1])


def _changes(
    gpus: dict[str, tuple[str, str | None]], reclaims: Sequence[Reclaim], fences: Sequence[Fence]
) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """Return, by cluster and model, when GPUs more or fewer are there: freed ones come, fenced ones go."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)

    def note(uuid: str, count: float, since: datetime, until: datetime | None) -> None:
        cluster, model = gpus.get(uuid, ("", None))
        if model is None:
            return
        found[cluster, model].append((since.timestamp(), count))
        if until is not None:
            found[cluster, model].append((until.timestamp(), -count))

    for reclaim in reclaims:
        for uuid, fraction, until in reclaim.freed:
            note(uuid, fraction, reclaim.at, until)
    for fence in fences:
        for uuid in fence.gpu_uuids:
            note(uuid, -1.0, fence.at, fence.ends_at)
    return found
