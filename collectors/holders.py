"""Who holds a device, as the labels of an exporter's series tell: rows for the table `holder`.

With `honor_labels: false` Prometheus puts the exporter's own pod into `pod` and the pod that holds the GPU into
`exported_pod`; an idle GPU then has `pod` alone, which holds nothing. Pods that share a GPU have a series each.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fleet.frames import UTC_MICROSECONDS

_MODES = {
    "exported": ("exported_namespace", "exported_pod", "exported_container", "exported_pod_uid"),
    "legacy": ("pod_namespace", "pod_name", "container_name", "pod_uid"),
    "plain": ("namespace", "pod", "container", "pod_uid"),
}
# A device that is still measured so long after a holder was last seen on it is not held by that one any more.
_GONE_MS = 180_000
_TEXTS = ("cluster", "node", "gpu_uuid", "slice_uuid", "namespace", "pod", "container", "pod_uid", "source")
_SCHEMA: dict[str, pl.DataType] = {
    **{name: pl.String() for name in _TEXTS},
    "share_count": pl.Int32(),
    **dict.fromkeys(("starts_at", "last_seen_at", "ends_at"), UTC_MICROSECONDS),
}


@dataclass(frozen=True, slots=True)
class Holding:
    """A pod as a series names it, by the labels of one mode, and the job that scraped it."""

    mode: str
    job: str
    namespace: str
    pod: str
    container: str | None = None
    pod_uid: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """A device: the GPU, or the MIG device of it, and where it is."""

    cluster: str
    node: str
    gpu_uuid: str
    slice_uuid: str | None = None


@dataclass(slots=True)
class HolderMemory:
    """Who was seen to hold what, and the jobs whose labels are exported.

    `seen` has the moments (milliseconds) when a holder was first seen, when last, and when first missed since.
    """

    seen: dict[tuple[Place, Holding], tuple[int, int, int | None]] = field(default_factory=dict)
    exported_jobs: set[str] = field(default_factory=set)


def holding_of(labels: Mapping[str, str]) -> Holding | None:
    """Return who holds the device by the labels of its series, None where they name no pod with its namespace."""
    for mode, (namespace, pod, container, uid) in _MODES.items():
        if labels.get(pod) and labels.get(namespace):
            return Holding(
                mode, labels.get("job", ""), labels[namespace], labels[pod], labels.get(container) or None,
                labels.get(uid) or None,
            )  # fmt: skip
    return None


def holder_rows(
    seen: Iterable[tuple[Place, Holding, int, int]],
    measured: Mapping[Place, NDArray[np.int64]],
    source: str,
    memory: HolderMemory,
) -> pl.DataFrame:
    """Return the rows of `holder` that a reading gives, in wire form.

    `seen` tells who was seen where, with the first and the last moment (milliseconds); `measured` the moments at which
    each device was measured at all. A holder goes on in the row it has in `memory`; one that is missing while its
    device is measured has ended at the first moment without it.
    """
    told = list(seen)
    memory.exported_jobs.update(holding.job for _, holding, _, _ in told if holding.mode == "exported")
    rows = []
    for place, holding, first, last in told:
        if _is_exporter(holding, memory):
            continue
        known = memory.seen.get((place, holding))
        start, latest = (first, last) if known is None else (min(first, known[0]), max(last, known[1]))
        memory.seen[place, holding] = (start, latest, None)
        rows.append(_row(place, holding, source, start, latest))
    rows += _ended(measured, source, memory)
    frame = pl.DataFrame(
        rows, schema={**_SCHEMA, **dict.fromkeys(("starts_at", "last_seen_at", "ends_at"), pl.Int64())}
    )
    return frame.with_columns(
        (pl.col(name) * 1000).cast(UTC_MICROSECONDS) for name in ("starts_at", "last_seen_at", "ends_at")
    )


def _is_exporter(holding: Holding, memory: HolderMemory) -> bool:
    if holding.mode != "plain":
        return False
    return holding.job in memory.exported_jobs or "exporter" in holding.pod or "exporter" in (holding.container or "")


def _ended(
    measured: Mapping[Place, NDArray[np.int64]], source: str, memory: HolderMemory
) -> list[dict[str, str | int | None]]:
    rows = []
    for (place, holding), (start, last, missed) in list(memory.seen.items()):
        moments = measured.get(place)
        if moments is None or int(moments.max()) <= last:
            continue
        first_missed = int(moments[moments > last].min()) if missed is None else missed
        memory.seen[place, holding] = (start, last, first_missed)
        if int(moments.max()) - last > _GONE_MS:
            del memory.seen[place, holding]
            rows.append(_row(place, holding, source, start, last) | {"ends_at": first_missed})
    return rows


def _row(place: Place, holding: Holding, source: str, start: int, last: int) -> dict[str, str | int | None]:
    return {
        "cluster": place.cluster,
        "node": place.node,
        "gpu_uuid": place.gpu_uuid,
        "slice_uuid": place.slice_uuid,
        "namespace": holding.namespace,
        "pod": holding.pod,
        "container": holding.container,
        "pod_uid": holding.pod_uid,
        "source": source,
        "starts_at": start,
        "last_seen_at": last,
    }
