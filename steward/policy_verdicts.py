"""What was known at a past moment: verdicts as recorded then, else made anew from what was stored then."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from math import gcd
from typing import Literal

import polars as pl

from analytics.idle import Prior, judge_idle
from analytics.idle_signals import idle_signals, samples_since
from analytics.prices import priced_gpus, rates_by_uuid
from fleet.models import idle_power_w
from fleet.verdict import Severity, Verdict, verdicts_of
from steward.config import Settings
from steward.health_turn import judge_fleet_health
from store.past import PastEngine, Phrasebook
from store.past_grid import PastGrid
from store.store import Store

Source = Literal["auto", "recorded", "judged"]
SOURCES: tuple[Source, ...] = ("auto", "recorded", "judged")
IdleRule = Literal["house", "max_zero", "mean_below"]
IDLE_RULES: tuple[IdleRule, ...] = ("house", "max_zero", "mean_below")
_JUDGED = ("idle", "health")
_FROM_RECORD = ("demand", "cost")
_FRESH = timedelta(minutes=5)
_HOUR, _MICRO = timedelta(hours=1), timedelta(microseconds=1)
_TOGETHER = 48  # moments asked at once: more save nothing
_ROWS_AT_ONCE = 6_000_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """How verdicts are come by.

    "auto" takes recorded ones of the topics idle and health where they are at most five minutes old, and judges
    anew otherwise. Health, which takes longest, is judged at a step where an event had come, and every
    `health_every`. `idle_rule` says by what rule a workload counts as idle: the house's own; any of its devices at
    a maximum of zero (`max_zero`); all of them below `mean_below` in the mean. The last two see no coverage.
    """

    source: Source = "auto"
    idle_rule: IdleRule = "house"
    mean_below: float = 0.05
    health_every: timedelta = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class Known:
    """The verdicts of one moment, and by topic whether they were "recorded", "judged" or there were none (None)."""

    moment: datetime
    verdicts: tuple[Verdict, ...]
    by: Mapping[str, str | None]


def known_at(store: Store, settings: Settings, moments: Sequence[datetime], wanted: Wanted) -> Iterator[Known]:
    """Yield what was known at each moment, in order; the next one is judged while this one is worked on."""
    teller = _Teller(store, settings, wanted, moments)
    with ThreadPoolExecutor(1) as beside:
        waiting = None
        for moment in moments:
            coming = beside.submit(teller.tell, moment)
            if waiting is not None:
                yield waiting.result()
            waiting = coming
        if waiting is not None:
            yield waiting.result()


class _Teller:
    def __init__(self, store: Store, settings: Settings, wanted: Wanted, moments: Sequence[datetime]) -> None:
        self._store = store
        self._moments = moments
        self._signals: dict[datetime, pl.DataFrame] = {}
        self._settings = settings
        self._wanted = wanted
        engine = store.engine
        verdict = engine.table("verdict")
        turns = engine.run(verdict.select("topic", "made_at").distinct()).sort("made_at")
        self._turns = {topic: turns.filter(pl.col("topic") == topic)["made_at"].to_list() for topic in _TOPICS}
        event = engine.table("event")
        self._events: list[datetime] = engine.run(event.select("ts").distinct()).sort("ts")["ts"].to_list()
        self._prices = store.read("price")
        self._health_at: datetime | None = None
        self._phrases = Phrasebook()

    def tell(self, moment: datetime) -> Known:
        verdicts: list[Verdict] = []
        by: dict[str, str | None] = {}
        engine = PastEngine(self._store.engine, moment, self._phrases)
        rates: dict[str, Decimal] | None = None
        for topic in _JUDGED:
            recorded = self._recorded(topic, moment)
            if recorded:
                verdicts += recorded
                by[topic] = "recorded"
                continue
            if self._wanted.source == "recorded" or (topic == "health" and not self._is_health_due(moment)):
                by[topic] = None
                continue
            rates = self._rates(engine, moment) if rates is None else rates
            found = self._idle(rates, moment) if topic == "idle" else self._health(engine, rates, moment)
            verdicts += found
            by[topic] = "judged"
        for topic in _FROM_RECORD:
            recorded = self._recorded(topic, moment)
            by[topic] = "recorded" if recorded else None
            verdicts += recorded
        return Known(moment, tuple(verdicts), by)

    def _recorded(self, topic: str, moment: datetime) -> list[Verdict]:
        made_at = self._turn(topic, moment)
        if made_at is None:
            return []
        table = self._store.engine.table("verdict")
        rows = self._store.engine.run(table.filter(table.topic == topic, table.made_at == made_at))
        return verdicts_of(rows)

    def _turn(self, topic: str, moment: datetime) -> datetime | None:
        """Return when the recorded verdicts that count at a moment were made; None: it must be judged."""
        is_own_rule = self._wanted.idle_rule == "house" or topic != "idle"
        if topic in _JUDGED and (self._wanted.source == "judged" or not is_own_rule):
            return None
        age_s = self._settings.actions.evidence.max_age_s
        is_any = topic in _FROM_RECORD or self._wanted.source == "recorded"
        oldest = moment - (timedelta(seconds=age_s) if is_any else _FRESH)
        turns = self._turns[topic]
        place = bisect_right(turns, moment)
        return turns[place - 1] if place and turns[place - 1] >= oldest else None

    def _rates(self, engine: PastEngine, moment: datetime) -> dict[str, Decimal]:
        return rates_by_uuid(engine.ask(("prices",), lambda: priced_gpus(engine)), self._prices, moment)

    def _is_health_due(self, moment: datetime) -> bool:
        last = self._health_at
        is_due = (
            last is None
            or moment - last >= self._wanted.health_every
            or any(last < event < moment for event in self._events)
        )
        self._health_at = moment if is_due else last
        return is_due

    def _idle(self, rates: Mapping[str, Decimal], now: datetime) -> list[Verdict]:
        policy = self._settings.idle
        if now not in self._signals:
            self._signals |= self._ask_ahead(now)
        signals = self._signals.pop(now)
        models = signals.get_column("model").drop_nulls().unique()
        watts = {model: power for model in models if (power := idle_power_w(model)) is not None}
        if self._wanted.idle_rule == "house":
            return judge_idle(signals, policy, now, Prior(watts, rates))
        return judge_simply(signals, self._wanted, policy.window_s, now, rates)

    def _ask_ahead(self, now: datetime) -> dict[datetime, pl.DataFrame]:
        """Return the signals at a moment and, as far as they must be judged and fit in memory, at those after it."""
        policy = self._settings.idle
        ahead = self._moments[bisect_left(self._moments, now) :]
        step = ahead[1] - now if len(ahead) > 1 else _HOUR
        stride = _HOUR // (_MICRO * gcd(step // _MICRO, _HOUR // _MICRO))  # questions round to hours: see PastGrid
        ahead = ahead[::stride][:_TOGETHER]
        near = now - samples_since(now, policy)
        fitting = max(1, _ROWS_AT_ONCE // max(1, self._rows_between(now - near, now)))
        known = next((place for place, moment in enumerate(ahead) if self._turn("idle", moment)), len(ahead))
        together = ahead[: max(1, min(known, fitting))]
        far = timedelta(seconds=policy.look_back_s) + _HOUR
        grid = PastGrid(self._store.engine, now, stride * step, len(together), near, far)
        answers = grid.ask(lambda tables, moment: idle_signals(tables, moment, policy))
        return dict(zip(together, answers, strict=True))

    def _rows_between(self, since: datetime, until: datetime) -> int:
        samples = self._store.engine.table("gpu_sample")
        near = samples.filter(samples.ts >= since, samples.ts < until)
        return int(self._store.engine.run(near.agg(rows=near.count()))["rows"][0])

    def _health(self, engine: PastEngine, rates: Mapping[str, Decimal], now: datetime) -> tuple[Verdict, ...]:
        return judge_fleet_health(engine, self._settings, rates, now).verdicts


def judge_simply(
    signals: pl.DataFrame, wanted: Wanted, window_s: float, now: datetime, rates: Mapping[str, Decimal]
) -> list[Verdict]:
    """Return workloads that a plain rule calls idle, as others judge them; to compare with, not to act by.

    `max_zero` is the rule of gpu-pruner's query: one device whose maximum over the window is zero condemns the whole
    workload. A device that has no sample tells nothing, and coverage counts as full.
    """
    quiet = (
        pl.col("activity_max") == 0 if wanted.idle_rule == "max_zero" else pl.col("activity_mean") < wanted.mean_below
    )
    held = signals.filter(pl.col("pod_uid").is_not_null(), pl.col("known_count") > 0, ~pl.col("is_mig") | _is_slice())
    named = held.with_columns(
        quiet=quiet.fill_null(value=False),
        ref=pl.when(pl.col("workload_kind").is_not_null() & pl.col("workload").is_not_null())
        .then(pl.format("{}/{}/{}", "workload_kind", "namespace", "workload"))
        .otherwise(pl.format("Pod/{}/{}", "namespace", "pod")),
    )
    verdicts = []
    for (cluster, ref), rows in named.group_by(["cluster", "ref"], maintain_order=True):
        is_idle = rows["quiet"].any() if wanted.idle_rule == "max_zero" else rows["quiet"].all()
        started, last = rows["pod_started_at"].min(), rows["last_sample_at"].max()
        is_old = isinstance(started, datetime) and (now - started).total_seconds() > window_s
        if not (is_idle and is_old):
            continue
        uuids = sorted(rows["gpu_uuid"].unique().to_list())
        prices = [rates[uuid] for uuid in uuids if uuid in rates]
        evidence: dict[str, object] = {"parts": sorted(rows["subject"].unique().to_list()), "window_s": window_s}
        if len(prices) == len(uuids):
            evidence["usd_per_gpu_hour"] = str(sum(prices, Decimal(0)) / len(prices))
        verdicts.append(
            Verdict(
                now, "idle", "workload", str(ref), "idle", Severity.WARNING, wanted.idle_rule, evidence,
                cluster=str(cluster), workspace=rows["workspace"][0], workload=str(ref), action="reclaim",
                since=now - timedelta(seconds=window_s), until=last if isinstance(last, datetime) else None,
                coverage=1.0,
            )
        )  # fmt: skip
    return verdicts


def _is_slice() -> pl.Expr:
    return pl.col("subject_kind") == "slice"


_TOPICS = (*_JUDGED, *_FROM_RECORD)
