"""Replay a policy over the recorded past: plan at each step by what was known then, and remember what it would do."""

import re
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from actions.budget import Made, Spending, gpus_spent
from actions.kinds import RULES
from actions.plan import plan
from analytics.resumed_work import work_moments
from fleet.errors import BadInput
from fleet.move import HeldBack, Move, MoveKind, Plan
from fleet.verdict import Verdict
from steward.config import Settings
from steward.policy_partial import leaving, name_of, told_without
from steward.policy_state import Held, Key, Recorded, read_record
from steward.policy_verdicts import Known, Wanted, known_at
from steward.policy_world import Stood, World
from store.store import Store

STEPS_MAX = 20_000
_NUMBER = re.compile(r"\d[\d.,:%+\-T]*")
_NAME = re.compile(r"\b[A-Z][A-Za-z]+/[\w.-]+(?:/[\w.-]+)?|\b(?:GPU|MIG)-[\w-]+")
_BAD = ("failing", "failed")
_HOUR = timedelta(hours=1)
_SHORTEST, _LONGEST = timedelta(minutes=1), timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Stretch:
    """The past to go over: a step at `since` and then every `step`, up to `until`."""

    since: datetime
    until: datetime
    step: timedelta = _HOUR

    def __post_init__(self) -> None:
        """Refuse a stretch without an end, or of more steps than anybody waits for."""
        if self.until <= self.since:
            message = f"to: {self.until.isoformat()} is not after {self.since.isoformat()}, where the replay begins"
            raise BadInput(message, field="to")
        if not _SHORTEST <= self.step <= _LONGEST:
            message = f"step: {self.step} is not between a minute and a day"
            raise BadInput(message, field="step")
        if (self.until - self.since) / self.step > STEPS_MAX:
            message = f"step: {(self.until - self.since) / self.step:,.0f} steps; at most {STEPS_MAX:,} are gone"
            raise BadInput(message, field="step")

    def moments(self) -> list[datetime]:
        """Return the moments at which a plan is made."""
        count = int((self.until - self.since) / self.step)
        return [self.since + number * self.step for number in range(count + 1)]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A policy to be replayed: its name, the settings it makes of ours, and how verdicts are come by."""

    name: str
    settings: Settings
    wanted: Wanted = field(default_factory=Wanted)


@dataclass(slots=True)
class Replayed:
    """What a policy would have done: moves with the end of their effect, and what it held back and why.

    `held` counts, by action and reason with its numbers and names taken out, subjects at steps; `held_subjects` has
    the subjects. `known_by` counts steps by topic and whether the verdicts were recorded, judged or missing.
    `bad_since` is when each GPU or node was first called failing or failed.
    """

    candidate: Candidate
    steps: int = 0
    world: World = field(default_factory=World)
    held: Counter[tuple[str, str]] = field(default_factory=Counter)
    held_subjects: dict[tuple[str, str], set[str]] = field(default_factory=lambda: defaultdict(set))
    known_by: Counter[tuple[str, str]] = field(default_factory=Counter)
    peak_gpus: dict[str, float] = field(default_factory=dict)
    bad_since: dict[str, datetime] = field(default_factory=dict)

    @property
    def made(self) -> Sequence[Stood]:
        """Return the moves in the order in which they would have been made."""
        return self.world.made


class Work:
    """When devices worked, by UUID, as later samples tell."""

    def __init__(self, moments: Mapping[str, Sequence[datetime]]) -> None:
        """Look up in sorted moments."""
        self._moments = moments

    @classmethod
    def read(cls, store: Store, since: datetime, until: datetime, active_above: float) -> "Work":
        """Read what the samples of `[since, until)` tell."""
        names = {
            "gpu": dict(store.read("gpu").select("gpu", "uuid").iter_rows()),
            "slice": dict(store.read("slice").select("slice", "uuid").iter_rows()),
        }
        found: dict[str, list[datetime]] = defaultdict(list)
        rows = store.engine.run(work_moments(store.engine, since, until, active_above))
        for kind, key, ts in rows.select("kind", "key", "ts").sort("ts").iter_rows():
            if key in names[kind]:
                found[names[kind][key]].append(ts)
        return cls(found)

    def first(self, held: Iterable[Held], after: datetime) -> datetime | None:
        """Return when the first of what was held worked after a moment, while it was held; None where none did."""
        found = []
        for each in held:
            if each.ends_at is not None and each.ends_at <= after:
                continue
            moments = self._moments.get(each.unit, ())
            place = bisect_right(moments, max(after, each.starts_at))
            if place < len(moments) and (each.ends_at is None or moments[place] < each.ends_at):
                found.append(moments[place])
        return min(found, default=None)


@dataclass(frozen=True, slots=True)
class Past:
    """The recorded past that policies are replayed over, read once."""

    stretch: Stretch
    data_until: datetime
    record: Recorded
    held: Mapping[Key, tuple[Held, ...]]
    work: Work


def read_past(store: Store, settings: Settings, stretch: Stretch, data_until: datetime) -> Past:
    """Read the stretch, and what came after it up to `data_until`: later samples tell what a move was worth."""
    record = read_record(store, stretch.since, data_until, settings.actions.fence.protect_label)
    work = Work.read(store, stretch.since, data_until, settings.idle.active_above)
    return Past(stretch, data_until, record, record.held_by(), work)


def replay_policies(
    store: Store, past: Past, candidates: Sequence[Candidate], tell: Callable[[float], None] = lambda _done: None
) -> list[Replayed]:
    """Go over the stretch once for all policies that judge alike, and return what each would have done.

    A decision at a step sees what was stored before it, and of its own earlier moves only what the record told by
    then: that an owner came back, that a GPU was healthy again. `tell` is told the share that is done.
    """
    runs = [Replayed(candidate) for candidate in candidates]
    groups: list[list[Replayed]] = []
    for run in runs:
        alike = next((group for group in groups if _judges_alike(group[0].candidate, run.candidate)), None)
        if alike is None:
            groups.append([run])
        else:
            alike.append(run)
    moments = past.stretch.moments()
    total = len(moments) * len(groups)
    for place, group in enumerate(groups):
        first = group[0].candidate
        for number, known in enumerate(known_at(store, first.settings, moments, first.wanted), 1):
            for run in group:
                step(run, known, past)
            tell((place * len(moments) + number) / total)
    return runs


def step(run: Replayed, known: Known, past: Past) -> Plan:
    """Plan once by what was known, and remember the moves as made."""
    run.steps += 1
    run.known_by.update((topic, by or "missing") for topic, by in known.by.items())
    for verdict in known.verdicts:
        if verdict.topic == "health" and verdict.state in _BAD:
            run.bad_since.setdefault(verdict.subject, known.moment)
    end_stops(run.world, known.moment, past)
    run.world.give_back(known.verdicts, known.moment)
    state = run.world.overlay(past.record.state_at(known.moment))
    policy = run.candidate.settings.actions
    recent = run.world.recent()
    told = told_without(known.verdicts, run.world.gone())
    made = plan(state, told, policy, known.moment, recent=_lately(recent, known.moment))
    for move in made.moves:
        run.world.remember(move, known.moment)
    _count_held(run, made.held_back, told)
    _count_spent(run, known.moment)
    return made


def end_stops(world: World, now: datetime, past: Past) -> None:
    """End the stops of what worked again by now, or is gone from the record: workloads, or pods taken from them."""
    for stood in world.standing():
        if stood.move.kind is not MoveKind.SUSPEND_WORKLOAD and not leaving(stood.move):
            continue
        held = concerned(stood.move, past.held)
        worked = past.work.first(held, stood.at)
        if worked is not None and worked <= now:
            stood.ends_at = worked
        elif not any(each.starts_at <= now and (each.ends_at is None or each.ends_at > now) for each in held):
            stood.ends_at = now


def concerned(move: Move, held: Mapping[Key, tuple[Held, ...]]) -> tuple[Held, ...]:
    """Return what a stop takes: all that its workload holds over the record, or what the pods that leave do."""
    whole = held.get((move.cluster, move.target), ())
    if move.kind is not MoveKind.SCALE_WORKLOAD:
        return whole
    pods = leaving(move)
    return tuple(each for each in whole if name_of(each) in pods)


def _lately(recent: Sequence[Made], now: datetime) -> tuple[Made, ...]:
    return tuple(made for made in recent if now - made.at <= timedelta(days=7))


def _judges_alike(one: Candidate, other: Candidate) -> bool:
    same = {"actions": one.settings.actions}
    return one.wanted == other.wanted and one.settings == other.settings.model_copy(update=same)


def _count_held(run: Replayed, held: Iterable[HeldBack], verdicts: Sequence[Verdict]) -> None:
    """Count what was held back; that a workload is stopped by us already is no reason to wonder."""
    stopped = {f"{key[1]}" for key in run.world.stopped()}
    known = {verdict.subject for verdict in verdicts}
    for each in held:
        if each.subject in stopped and each.subject in known:
            continue
        key = (each.action, generic(each.reason))
        run.held[key] += 1
        run.held_subjects[key].add(each.subject)


def generic(reason: str) -> str:
    """Return a reason without its numbers and names, so that the same reason of others counts as the same."""
    return _NUMBER.sub("#", _NAME.sub("...", reason))


def _count_spent(run: Replayed, now: datetime) -> None:
    lately = Spending(tuple(made for made in run.world.recent() if now - made.at < _HOUR))
    for rule in RULES:
        spent = sum(gpus_spent(move) for move in lately.of_rule(rule, now))
        run.peak_gpus[rule] = max(run.peak_gpus.get(rule, 0.0), spent)


def stops(run: Replayed) -> list[Stood]:
    """Return the moves that take GPUs from a workload."""
    return [each for each in run.made if each.move.kind in {MoveKind.SUSPEND_WORKLOAD, MoveKind.SCALE_WORKLOAD}]
