"""Many past moments asked at once: each is a fleet of its own, moved in time to the first, so one answer serves all.

A question of one moment costs the engine as much for being understood as for being answered. Here a device at the
n-th moment bears a key and a name of its own, and its rows stand n steps earlier; so the question that is asked of the
first moment gives at once what it would give at each. The answer's rows tell by their names which moment they are of.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import ibis.expr.types as ir
import polars as pl

from fleet.columns import TIME
from fleet.errors import BadInput
from fleet.tables import TABLES
from store.engine import Engine, compiled

_HOUR = timedelta(hours=1)
_MICRO = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MARK = "\x1f"
_KEYS = frozenset({"gpu", "slice"})
_NAMES = frozenset({"uuid", "node", "subject", "gpu_uuid"})
_LATER = frozenset({"ends_at", "last_seen_at"})  # what is open now, and when it was last seen: not known then
_ALWAYS = "NULL"


@dataclass(frozen=True, slots=True)
class PastGrid:
    """Moments, `step` apart, that are asked together; a step is whole hours, since questions round to hours.

    There are the tables gpu, slice, gpu_sample, slice_sample, gpu_hour and pod_allocation as they stood: samples of
    `near` before each moment, hours of `far` before it, and what was held at it. A question may group by device or
    node, not over the fleet; its rows bear a `gpu_uuid`.
    """

    engine: Engine
    first: datetime
    step: timedelta
    count: int
    near: timedelta
    far: timedelta

    def __post_init__(self) -> None:
        """Refuse steps after which a question would not be the same one moved in time."""
        if self.step <= timedelta(0) or self.step % _HOUR:
            message = f"step: {self.step} is no number of whole hours"
            raise BadInput(message, field="step")

    def ask(self, build: Callable[[Mapping[str, ir.Table], datetime], ir.Table]) -> list[pl.DataFrame]:
        """Return the answers at each moment; `build` puts the question as of one moment."""
        question = compiled(build(self.engine, self.first))
        tables = ",\n".join(f'"{name}" AS ({self._as_stood(name)})' for name in _SPANS)
        found = self.engine.query(f"WITH {tables}\nSELECT * FROM ({question})")
        place = pl.col("gpu_uuid").str.split_exact(_MARK, 1)
        names = [name for name in found.columns if name in _NAMES]
        times = [name for name, dtype in found.schema.items() if isinstance(dtype, pl.Datetime)]
        told = found.with_columns(place.struct.field("field_0").cast(pl.Int64).alias("place")).with_columns(
            *(pl.col(name).str.split_exact(_MARK, 1).struct.field("field_1").alias(name) for name in names),
            *(pl.col(name) + pl.duration(microseconds=pl.col("place") * (self.step // _MICRO)) for name in times),
        )
        parts = told.partition_by("place", as_dict=True, include_key=False)
        return [parts.get((place,), told.clear().drop("place")) for place in range(self.count)]

    def _as_stood(self, name: str) -> str:
        since, until = (span.format(near=self.near // _MICRO, far=self.far // _MICRO) for span in _SPANS[name])
        first, step = (self.first - _EPOCH) // _MICRO, self.step // _MICRO
        lowest = f"GREATEST(0, COALESCE(CAST(CEIL((({since}) - {first}) / {step}) AS BIGINT), 0))"
        highest = (
            f"LEAST({self.count}, COALESCE(CAST(FLOOR((({until}) - {first}) / {step}) AS BIGINT) + 1, {self.count}))"
        )
        chosen = ", ".join(self._column(column.name, column.dtype == TIME) for column in TABLES[name].columns)
        places = f"UNNEST(RANGE({lowest}, {highest})) AS place"
        told = f'SELECT *, {places} FROM main."{name}"{self._bounds(name)}'  # noqa: S608 - names of our own tables
        return f"SELECT {chosen} FROM ({told}) AS every_moment"  # noqa: S608 - likewise

    def _column(self, name: str, is_time: bool) -> str:  # noqa: FBT001 - a column either is one or not
        if name in _KEYS:
            return f'CAST("{name}" AS BIGINT) * {self.count} + place AS "{name}"'
        if name in _NAMES:
            return f'place || \'{_MARK}\' || "{name}" AS "{name}"'
        if name in _LATER:
            return f'CAST(NULL AS TIMESTAMPTZ) AS "{name}"'
        if is_time:
            return f'MAKE_TIMESTAMPTZ(EPOCH_US("{name}") - place * {self.step // _MICRO}) AS "{name}"'
        return f'"{name}"'

    def _bounds(self, name: str) -> str:
        """Keep the engine from reading what is older than any moment looks back."""
        if not name.endswith("_sample"):
            return ""
        since, until = self.first - self.near, self.first + self.count * self.step
        return f" WHERE ts >= TIMESTAMPTZ '{since.isoformat()}' AND ts < TIMESTAMPTZ '{until.isoformat()}'"


# From when (in microseconds, included) and until when a moment sees a row of each table.
_SEEN = ("EPOCH_US(first_seen_at) + 1", _ALWAYS)
_SAMPLED = ("EPOCH_US(ts) + 1", "EPOCH_US(ts) + {near}")
_SPANS: Mapping[str, tuple[str, str]] = {
    "gpu": _SEEN,
    "slice": _SEEN,
    "gpu_sample": _SAMPLED,
    "slice_sample": _SAMPLED,
    "gpu_hour": ("EPOCH_US(hour_at) + 3600000000", "EPOCH_US(hour_at) + {far}"),
    "pod_allocation": ("EPOCH_US(starts_at)", "EPOCH_US(ends_at) - 1"),
}
