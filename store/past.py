"""The store as it stood: every table with what was not known yet taken out, so that no question sees the future."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import Lock

import ibis
import ibis.expr.types as ir
import polars as pl

from store.engine import Engine, compiled

# A table is told of by the moment in this column: rows of later moments were not there yet.
_TOLD_BY = {
    "gpu_sample": "ts",
    "slice_sample": "ts",
    "event": "ts",
    "demand_sample": "ts",
    "source_failure": "ts",
    "outcome": "ts",
    "verdict": "made_at",
    "forecast": "made_at",
    "forecast_score": "made_at",
    "exhaustion": "made_at",
    "plan": "made_at",
    "request": "submitted_at",
}
_INTERVALS = ("pod_allocation", "workspace_member", "quota", "price")


_MOMENT = re.compile(r"MAKE_TIMESTAMPTZ\((\d+), (\d+), (\d+), (\d+), ")


def shifted(sql: str, by: timedelta) -> str:
    """Return SQL with every moment in it moved by whole hours."""

    def move(match: re.Match[str]) -> str:
        year, month, day, hour = (int(each) for each in match.groups())
        then = datetime(year, month, day, hour, tzinfo=UTC) + by
        return f"MAKE_TIMESTAMPTZ({then.year}, {then.month}, {then.day}, {then.hour}, "

    return _MOMENT.sub(move, sql)


@dataclass(slots=True)
class _Question:
    moment: datetime
    sql: str
    asked_at: datetime
    proven_until: datetime | None = None
    is_apart: bool = False


@dataclass(slots=True)
class Phrasebook:
    """SQL of questions that are asked of one moment after the other: writing it out takes longer than running it.

    A question is known by its name, else by its columns. Its SQL for another moment, whole hours away, is the old one
    with its moments moved. That is proven by writing it out when it is asked again, and once more one, two, four, ...
    days after; a question for which it is not so, or of which two share their name, is always written out.
    """

    _known: dict[tuple[object, ...], _Question] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def sql(self, name: tuple[str, ...], moment: datetime, build: Callable[[], ir.Table]) -> str:
        """Return the SQL of a question that asks of `moment`; `build` is called where it must be written out."""
        key = (moment.minute, moment.second, moment.microsecond, *name)
        with self._lock:
            known = self._known.get(key)
            if known is None:
                known = self._known[key] = _Question(moment, compiled(build()), moment)
                return known.sql
            known.is_apart |= known.asked_at == moment
            known.asked_at = moment
            if not known.is_apart and known.proven_until is not None and moment <= known.proven_until:
                return shifted(known.sql, moment - known.moment)
            written = compiled(build())
            known.is_apart |= written != shifted(known.sql, moment - known.moment)
            known.proven_until = max(moment + timedelta(days=1), known.moment + 2 * (moment - known.moment))
            return written


class PastEngine(Engine):
    """An engine over the same store that hands out each table as it stood just before a moment.

    What is kept only as it was last seen is masked rather than guessed: a node's readiness, cordon, conditions and
    taints are unknown, its place, labels and prices are those of the last sight. A slice, and a holder, that was seen
    later counts as seen at the moment. Tables that are written by analyses as a whole (`risk`, `cost_line`, ...) are
    handed out as they are: nothing that judges a moment may read them.
    """

    def __init__(self, engine: Engine, moment: datetime, phrases: Phrasebook | None = None) -> None:
        """Ask over the connection of `engine`, as of `moment`; `phrases` is shared by engines of many moments."""
        super().__init__(engine._connection, engine._path)  # noqa: SLF001 - of our own kind
        self._moment = moment
        self._phrases = phrases

    def run(self, expression: ir.Table) -> pl.DataFrame:
        """Run an expression over the tables as they stood; it may ask of no other moment than this one."""
        return self.ask(tuple(expression.columns), lambda: expression)

    def ask(self, name: tuple[str, ...], build: Callable[[], ir.Table]) -> pl.DataFrame:
        """Run a question of that name, as `run` does; it is built only where its SQL is not known."""
        sql = compiled(build()) if self._phrases is None else self._phrases.sql(name, self._moment, build)
        return self.query(sql)

    def table(self, name: str) -> ir.Table:
        """Return one table as it stood; raises `BadInput` for a name there is not."""
        return self._as_stood(name, super().table(name))

    def __getitem__(self, name: str) -> ir.Table:
        """Return one table, as `table` does."""
        return self._as_stood(name, super().__getitem__(name))

    def _as_stood(self, name: str, table: ir.Table) -> ir.Table:
        now = ibis.literal(self._moment)
        if name in _TOLD_BY:
            return table.filter(table[_TOLD_BY[name]] < now)
        if name in _INTERVALS:
            return _open(table.filter(table.starts_at <= now), "ends_at", now)
        if name == "gpu_hour":
            return table.filter(table.hour_at <= ibis.literal(self._moment - timedelta(hours=1)))
        if name == "gpu":
            hours = self._as_stood("gpu_hour", super().__getitem__("gpu_hour"))
            return _gpus(table, hours, now)
        further = _FURTHER.get(name)
        return table if further is None else further(table, now)


def _open(table: ir.Table, column: str, now: ir.Value) -> ir.Table:
    """Return a table whose `column` is null where it lies after `now`."""
    moment = table[column]
    return table.mutate(**{column: ibis.ifelse(moment <= now, moment, None)})


def _gpus(table: ir.Table, hours: ir.Table, now: ir.Value) -> ir.Table:
    """Return the GPUs there were, last seen when the roll-up last tells of them where they were seen later."""
    there = table.filter(table.first_seen_at.isnull() | (table.first_seen_at < now))
    heard = hours.group_by("gpu").agg(heard_at=(hours.hour_at + ibis.interval(hours=1)).max())
    joined = there.left_join(heard, "gpu")
    seen = ibis.ifelse(
        joined.last_seen_at.isnull() | (joined.last_seen_at <= now),
        joined.last_seen_at,
        joined.heard_at.coalesce(now),  # younger than an hour: it was seen in the hour that is not over yet
    )
    return joined.mutate(last_seen_at=seen).select(*table.columns)


def _slices(table: ir.Table, now: ir.Value) -> ir.Table:
    there = table.filter(table.first_seen_at.isnull() | (table.first_seen_at < now))
    return there.mutate(last_seen_at=ibis.ifelse(there.last_seen_at > now, now, there.last_seen_at))


def _nodes(table: ir.Table, now: ir.Value) -> ir.Table:
    unknown = {name: ibis.null(table[name].type()) for name in ("is_ready", "is_schedulable", "conditions", "taints")}
    return table.mutate(last_seen_at=ibis.ifelse(table.last_seen_at > now, now, table.last_seen_at), **unknown)


def _pods(table: ir.Table, now: ir.Value) -> ir.Table:
    there = table.filter(table.created_at <= now)
    opened = _open(_open(there, "starts_at", now), "ends_at", now)
    return opened.mutate(phase=ibis.null("string"))


def _holders(table: ir.Table, now: ir.Value) -> ir.Table:
    opened = _open(table.filter(table.starts_at <= now), "ends_at", now)
    return opened.mutate(last_seen_at=ibis.ifelse(opened.last_seen_at > now, now, opened.last_seen_at))


def _jobs(table: ir.Table, now: ir.Value) -> ir.Table:
    opened = _open(_open(table.filter(table.submitted_at <= now), "started_at", now), "ended_at", now)
    status = ibis.cases(
        (opened.ended_at.notnull(), opened.status),
        (opened.started_at.notnull(), "running"),
        else_=ibis.ifelse(opened.duration_s.notnull(), opened.status, "pending"),
    )
    ran = ibis.ifelse(opened.ended_at.notnull(), opened.duration_s, None)
    return opened.mutate(status=status, duration_s=ran)


_FURTHER: Mapping[str, Callable[[ir.Table, ir.Value], ir.Table]] = {
    "slice": _slices,
    "node": _nodes,
    "pod": _pods,
    "holder": _holders,
    "job": _jobs,
}
