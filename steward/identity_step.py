"""A step of the turn: what sources told of pods and devices since the last time becomes allocations."""

from datetime import UTC, datetime, timedelta

import polars as pl

from collectors.identity import Told, involved, join
from collectors.identity_facts import Devices
from collectors.identity_holders import over
from collectors.identity_reconcile import rows_to_write
from fleet.batch import Batch, Trouble
from fleet.frames import Table
from fleet.tables import HOLDER, POD, POD_ALLOCATION
from steward.compose import House

NAME = "identity"
# Word of a pod or of its device may come this late and still be joined; what ended before is left as it is.
LATE = timedelta(days=1)
_BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)
_KUBERNETES = "kubernetes:"
_SIMULATOR = "simulator"


def join_identity(house: House, now: datetime) -> tuple[int, tuple[Trouble, ...]]:
    """Bring `pod_allocation` up to what is known at `now`; return the rows that are new or changed, and troubles.

    Made again it changes nothing: an interval is closed once. A store without pods and holders is left untouched.
    """
    store = house.store
    since = store.watermark(NAME)
    oldest = _BEGINNING if since is None else min(since, now) - LATE
    read, pods, holders = _read_clusters(house), _lately(house, POD, oldest), _lately(house, HOLDER, oldest)
    if _SIMULATOR in store.read("watermark").get_column("source"):
        # a simulated fleet tells itself which pod held what
        pods = pods.filter(pl.col("cluster").is_in(list(read)))
    if pods.is_empty() and holders.is_empty():
        return 0, ()
    gpus, slices = store.read("gpu"), store.read("slice")
    told = Told(
        pods,
        holders,
        gpus,
        slices,
        store.read("node"),
        store.read("workspace_member"),
        Devices(gpus, slices).in_wire_form(_lately(house, POD_ALLOCATION, oldest)),
        read,
    )
    joined = join(told, now, since)
    ours = told.allocations.filter(pl.col("pod_uid").is_in(list(involved(told))))
    recent = joined.allocations.filter(pl.col("ends_at").is_null() | (pl.col("ends_at") > oldest))
    rows = rows_to_write(recent, ours, oldest)
    frames = {"pod_allocation": rows, "holder": over(holders, gpus)}
    written = store.append(Batch(NAME, frames, now, joined.troubles))
    return written["pod_allocation"], joined.troubles


def _lately(house: House, table: Table, oldest: datetime) -> pl.DataFrame:
    """Return the rows of a table of intervals that are open or ended after `oldest`, and those that hold nothing."""
    rows = house.store.engine.table(table.name)
    is_late = rows.ends_at.isnull() | (rows.ends_at > oldest) | (rows.ends_at == rows.starts_at)
    if "last_seen_at" in rows.columns:
        is_late |= rows.last_seen_at > oldest
    return house.store.engine.run(rows.filter(is_late & rows.starts_at.notnull())).cast(pl.Schema(table.schema()))


def _read_clusters(house: House) -> frozenset[str]:
    """Return the clusters whose API server told of its pods."""
    names = house.store.read("watermark").get_column("source")
    return frozenset(name.removeprefix(_KUBERNETES) for name in names if name.startswith(_KUBERNETES))
