"""Who was seen to hold what becomes rows of `holder`: one from first sight to the end, told again while it lasts."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from collectors.exposition import Holder
from fleet.tables import HOLDER


@dataclass(frozen=True, slots=True)
class Seen:
    """One holder of one device (by UUID), told by the kubelet or by processes.

    `share_count` is the number of places it has where the device is shared, None where it has the whole or that is
    not told.
    """

    device: str
    holder: Holder
    source: str
    share_count: int | None = None


class HolderRows:
    """Remembers when each holder was first seen; one that a teller no longer tells of has ended.

    A restart forgets: then what goes on begins a new row, and what ended meanwhile is seen by who reads the rows.
    """

    def __init__(self, cluster: str, node: str) -> None:
        self._cluster, self._node = cluster, node
        self._open: dict[Seen, tuple[datetime, datetime]] = {}

    def tell(
        self,
        seen: Iterable[Seen],
        tellers: Collection[str],
        gpus: Mapping[str, str],
        uids: Mapping[Holder, str],
        now: datetime,
    ) -> pl.DataFrame:
        """Return the rows of what is held now and of what ended since; only `tellers` have answered this time.

        `gpus` has the GPU of each MIG device, and `uids` the UIDs of pods that are known by one.
        """
        current = set(seen)
        over = [each for each in self._open if each.source in tellers and each not in current]
        rows = [self._row(each, self._open.pop(each), now, gpus, uids) for each in over]
        for each in sorted(current, key=repr):
            starts_at, _ = self._open.get(each, (now, now))
            # A clock that was set back must not let a row end before it begins.
            self._open[each] = starts_at, max(starts_at, now)
            rows.append(self._row(each, self._open[each], None, gpus, uids))
        schema = HOLDER.schema("wire")
        return pl.DataFrame(rows, schema=schema)

    def _row(
        self,
        seen: Seen,
        span: tuple[datetime, datetime],
        ends_at: datetime | None,
        gpus: Mapping[str, str],
        uids: Mapping[Holder, str],
    ) -> dict[str, object]:
        is_slice = seen.device in gpus
        return {
            "cluster": self._cluster,
            "node": self._node,
            "gpu_uuid": gpus[seen.device] if is_slice else seen.device,
            "slice_uuid": seen.device if is_slice else None,
            "namespace": seen.holder.namespace,
            "pod": seen.holder.pod,
            "container": seen.holder.container,
            "pod_uid": uids.get(Holder(seen.holder.namespace, seen.holder.pod)),
            "share_count": seen.share_count,
            "source": seen.source,
            "starts_at": span[0],
            "last_seen_at": span[1],
            "ends_at": None if ends_at is None else max(span[1], ends_at),
        }
