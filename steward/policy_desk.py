"""The desk's question of policies: what would these have done over the recorded past, and what came of it?"""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta

from fleet.errors import BadInput
from steward.compose import House
from steward.moments import as_of, newest_moment, oldest_moment
from steward.policy_file import IN_FORCE, candidate_of
from steward.policy_replay import Candidate, Stretch, read_past, replay_policies
from steward.policy_report import Limits, Worth, detail_of, held_rows, is_wrong, reckon, side_by_side
from steward.policy_verdicts import SOURCES, Source, Wanted
from steward.report import Report, plain

_LENGTH = re.compile(r"(\d+(?:\.\d+)?)\s*([mhdw])")
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_DEFAULT_LENGTH = "7d"
_HURT_SHOWN = 5
_REASONS_SHOWN = 3
_ASSUMED = (
    "moves of rules that only propose count as approved at once; those of rules that observe or are off are not made",
    "nodes count as ready and open, and what is protected by annotations as unprotected: the store keeps neither",
)


def answer_replay_policy(house: House, parameters: Mapping[str, object]) -> Report:
    """Replay one policy or two; give "policy" and "other" as TOML text with their names, else the settings in force.

    "from" and "to" are moments or lengths back from the newest row stored; with "detail" the summary holds the rows
    behind the measures.
    """
    stretch, data_until, begins = _stretch(house, parameters)
    wanted = Wanted(_source(parameters), health_every=_length("health_every", parameters, "6h"))
    limits = _limits(parameters)
    candidates = _candidates(house, parameters, wanted)
    past = read_past(house.store, house.settings, stretch, data_until)
    worths = [reckon(house.store, past, run) for run in replay_policies(house.store, past, candidates)]
    rows = side_by_side(worths, limits)
    summary: dict[str, object] = {
        "from": stretch.since,
        "to": stretch.until,
        "steps": worths[0].run.steps,
        "truth_until": data_until,
        "verdicts": _verdict_words(worths[0]),
    }
    if str(parameters.get("detail", "false")).lower() == "true":
        summary["policies"] = [detail_of(worth, limits) for worth in worths]
    notes = (*begins, *(note for worth in worths for note in _notes(worth, limits)), *_ASSUMED, *_blind(house, worths))
    return Report("PolicyReplay", stretch.until, summary, rows, tuple(rows[0]), notes)


def _stretch(house: House, parameters: Mapping[str, object]) -> tuple[Stretch, datetime, tuple[str, ...]]:
    """Return the stretch, the end of what is recorded, and what is to be said where the record begins later."""
    oldest, newest = oldest_moment(house), newest_moment(house)
    if oldest is None or newest is None:
        message = "nothing is recorded yet: `steward demo`, `steward collect` or `steward replay FILE` fills the store"
        raise BadInput(message, field="from")
    data_until = newest + timedelta(seconds=1)
    hour = data_until.replace(minute=0, second=0, microsecond=0)
    until = _moment(house, "to", parameters.get("to"), hour)
    is_to_a_length = parameters.get("to") is not None and _LENGTH.fullmatch(str(parameters["to"])) is not None
    since = _moment(house, "from", parameters.get("from") or _DEFAULT_LENGTH, hour if is_to_a_length else until)
    step = _length("step", parameters, "1h")
    if since < until and (until < oldest or since > newest):
        asked, there = f"{plain(since)} to {plain(until)}", f"{plain(oldest)} to {plain(newest)}"
        message = f"from: nothing is recorded from {asked}; what is stored is of {there}"
        raise BadInput(message, field="from")
    if not since < oldest < until:
        return Stretch(since, until, step), data_until, ()
    begins = oldest.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    begins = min(begins, until - step) if until - step > since else since
    note = f"nothing is recorded before {plain(oldest)}: the replay begins at {plain(begins)}, not at {plain(since)}"
    return Stretch(begins, until, step), data_until, (note,)


def _moment(house: House, name: str, given: object, end: datetime) -> datetime:
    """Return a moment that is given as one, or as a length back from `end`; `end` itself where nothing is given."""
    if given is None:
        return end
    text = str(given)
    if _LENGTH.fullmatch(text):
        return end - _length(name, {name: text}, text)
    return as_of(house, text, f"--{name}")


def _length(name: str, parameters: Mapping[str, object], otherwise: str) -> timedelta:
    text = str(parameters.get(name) or otherwise)
    found = _LENGTH.fullmatch(text)
    if found is None or not float(found[1]) > 0:
        message = f"{name}: {text!r} is not a length of time such as 30m, 1h, 7d or 2w"
        raise BadInput(message, field=name)
    return float(found[1]) * _UNITS[found[2]]


def _limits(parameters: Mapping[str, object]) -> Limits:
    limits = Limits(_length("grace", parameters, "1h"), _length("within", parameters, "4h"))
    if limits.within < limits.grace:
        message = f"within: {limits.within} is shorter than the grace of {limits.grace}"
        raise BadInput(message, field="within")
    return limits


def _source(parameters: Mapping[str, object]) -> Source:
    given = str(parameters.get("verdicts") or "auto")
    for source in SOURCES:
        if given == source:
            return source
    message = f"verdicts: {given!r} is not one of {', '.join(SOURCES)}"
    raise BadInput(message, field="verdicts")


def _candidates(house: House, parameters: Mapping[str, object], wanted: Wanted) -> list[Candidate]:
    first = _text(parameters, "policy")
    name = IN_FORCE if first is None else str(parameters.get("policy_name") or "policy")
    candidates = [candidate_of(name, first, house.settings, wanted)]
    other = _text(parameters, "other")
    if other is not None:
        named = str(parameters.get("other_name") or "other")
        named = f"{named} (2)" if named == name else named
        candidates.append(candidate_of(named, other, house.settings, wanted))
    return candidates


def _text(parameters: Mapping[str, object], name: str) -> str | None:
    given = parameters.get(name)
    return None if given is None else str(given)


def _verdict_words(worth: Worth) -> str:
    told = worth.run.known_by
    parts = []
    for topic in dict.fromkeys(topic for topic, _ in sorted(told)):
        counts = [f"{told[topic, by]} {by}" for by in ("recorded", "judged", "missing") if told[topic, by]]
        parts.append(f"{topic}: {', '.join(counts)}")
    return "; ".join(parts)


def _notes(worth: Worth, limits: Limits) -> list[str]:
    name = worth.run.candidate.name
    hurt = sorted((each for each in worth.reclaims if is_wrong(each, limits.within)), key=lambda each: -each.gpu_hours)
    notes = [
        f"{name}: would have hurt {each.workload} of {each.workspace or 'no workspace'}: reclaimed {plain(each.at)}, "
        f"at work again {plain(each.worked_at)}"
        for each in sorted(hurt, key=lambda each: -each.gpus)[:_HURT_SHOWN]
    ]
    notes += [
        f"{name}: held back {row['subjects']} subjects ({row['action']}): {row['reason']}"
        for row in held_rows(worth.run)[:_REASONS_SHOWN]
    ]
    return notes


def _blind(house: House, worths: list[Worth]) -> list[str]:
    """Say what the record could not tell."""
    notes = []
    if house.store.read("gpu").is_empty():
        notes.append(
            "unknown: no GPU was ever seen, so nothing could be judged idle or faulty; only queues are recorded"
        )
    if not any(worth.run.known_by["idle", by] for worth in worths for by in ("judged", "recorded")):
        notes.append("no verdict on idleness at any step: --verdicts judged judges what was stored then")
    if worths[0].on_freed.jobs == 0:
        notes.append("unknown: no jobs with a GPU model are recorded, so nobody knows who would have started earlier")
    if not any(known for worth in worths for (topic, by), known in worth.run.known_by.items() if topic == "demand"
               and by == "recorded"):  # fmt: skip
        notes.append("no verdict on demand was recorded in the stretch, so no quota was moved")
    return notes


QUESTIONS = {"replay_policy": answer_replay_policy}
