"""Bring together what rules, peers, silence and the record say of each GPU and slice: one verdict each."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import MappingProxyType

import polars as pl

from analytics.health_state import LADDER, RUNG_OF, STATE_OF_RUNG, STATES, Happening, Incident, StatePolicy, incidents
from analytics.xid import XidOverride
from fleet.verdict import Severity, Verdict

_LIVE_STATES = frozenset({"degraded", "failing"})
_HEAVIER = (Severity.OK, Severity.UNKNOWN, Severity.INFO, Severity.WARNING, Severity.CRITICAL)


@dataclass(frozen=True, slots=True)
class Chart:
    """What is known of one GPU beside its verdicts: its faults, when its node booted last, when it was last heard."""

    incidents: tuple[Incident, ...] = ()
    boot_at: datetime | None = None

    @property
    def open(self) -> tuple[Incident, ...]:
        """Return the faults that nothing cleared yet."""
        return tuple(one for one in self.incidents if one.cleared_at is None)

    def probation_until(self, policy: StatePolicy) -> datetime | None:
        """Return until when the last repair is on trial; None where no fault was ever cleared by a repair."""
        cleared = [
            one.cleared_at for one in self.incidents if one.cleared_at is not None and one.cleared_by in _REPAIRS
        ]
        return max(cleared) + timedelta(seconds=policy.probation_s) if cleared else None


_REPAIRS = ("gpu_reset", "boot")


def charts(
    gpus: pl.DataFrame, events: pl.DataFrame, policy: StatePolicy, overrides: tuple[XidOverride, ...] = ()
) -> dict[str, Chart]:
    """Return a chart for each GPU that something happened to; `gpus` has uuid, cluster, node, last_sample_at.

    Events of a node that name no GPU (a boot) are every GPU's of it; a fault that names none stays the node's.
    """
    own: dict[str, list[Happening]] = defaultdict(list)
    boots: dict[tuple[str, str], list[Happening]] = defaultdict(list)
    for row in events.select("ts", "cluster", "node", "gpu_uuid", "kind", "code", "message", "count").iter_rows():
        ts, cluster, node, uuid, kind, code, message, count = row
        event = Happening(ts, kind, -1 if code is None else code, message or "", count)
        if kind == "boot":
            boots[cluster, node].append(event)
        elif uuid is not None:
            own[uuid].append(event)
    found = {}
    for uuid, cluster, node, heard_at in gpus.select("uuid", "cluster", "node", "last_sample_at").iter_rows():
        booted = boots.get((cluster, node), [])
        if uuid in own or booted:
            told = incidents([*own.get(uuid, ()), *booted], heard_at, policy, overrides)
            found[uuid] = Chart(tuple(told), max((event.ts for event in booted), default=None))
    return found


def judge_states(
    verdicts: Iterable[Verdict], known: Mapping[str, Chart], policy: StatePolicy, now: datetime
) -> list[Verdict]:
    """Return one verdict of topic health for each subject: the worst of its verdicts and its record.

    What else was found stands in the evidence under `findings`. Verdicts of nodes and clusters are passed on, one for
    each subject too. A subject that no verdict speaks of gets none: nothing is known of it.
    """
    by_subject: dict[tuple[str, str, str], list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        by_subject[verdict.cluster or "", verdict.subject_kind, verdict.subject].append(verdict)
    judged = []
    for (_, kind, subject), told in sorted(by_subject.items()):
        chart = known.get(subject, Chart()) if kind == "gpu" else Chart()
        judged.append(_judge(told, chart, policy, now))
    return judged


def slice_verdicts(slices: pl.DataFrame, judged: Sequence[Verdict], now: datetime) -> list[Verdict]:
    """Return a verdict for each MIG device of `slices` (uuid, parent_uuid) that none speaks of, by its parent's.

    A parent that fails takes its slices with it; what is only degraded, or on probation, is the parent's own affair.
    """
    spoken = {verdict.subject for verdict in judged if verdict.subject_kind == "slice"}
    parents = {verdict.subject: verdict for verdict in judged if verdict.subject_kind == "gpu"}
    found = []
    for uuid, parent_uuid in slices.select("uuid", "parent_uuid").iter_rows():
        parent = parents.get(parent_uuid)
        if uuid in spoken or parent is None:
            continue
        is_down = parent.state in {"failing", "failed", "unknown"}
        found.append(
            replace(
                parent, subject_kind="slice", subject=uuid, state=parent.state if is_down else "healthy",
                severity=parent.severity if is_down else Severity.OK,
                rule="parent_" + parent.state if is_down else "no_finding", action="none", made_at=now,
                evidence=MappingProxyType({"parent": parent_uuid, "parent_rule": parent.rule}),
                gpu_hours=None, cost_usd=None,
            )
        )  # fmt: skip
    return found


def _judge(told: Sequence[Verdict], chart: Chart, policy: StatePolicy, now: datetime) -> Verdict:
    believed = [verdict for verdict in told if _is_believed(verdict, chart, policy, now)]
    candidates = [*(believed or [_unbelieved(told[0])]), *_of_record(told[0], chart, policy, now)]
    worst = max(candidates, key=_weight)
    same = [one for one in candidates if one.state == worst.state]
    action = max((one.action or "none" for one in same), key=lambda name: RUNG_OF.get(name, 0))
    evidence = {
        **worst.evidence,
        "findings": [
            {"topic": one.topic, "rule": one.rule, "state": one.state, "action": one.action, **dict(one.evidence)}
            for one in sorted(candidates, key=_weight, reverse=True)
            if one is not worst and one.state != "healthy"
        ],
        "held_back": [one.rule for one in told if one not in believed],
        "record": [one.told() for one in chart.incidents],
    }
    until = chart.probation_until(policy)
    if until is not None and until > now:
        evidence["probation_until"] = until.isoformat()
    return replace(worst, topic="health", action=action, evidence=MappingProxyType(evidence))


def _is_believed(verdict: Verdict, chart: Chart, policy: StatePolicy, now: datetime) -> bool:
    """Return whether a finding counts yet: live ones wait for the boot to be over, and for their polls to agree."""
    if verdict.state not in _LIVE_STATES or "xid" in verdict.evidence:
        return True
    if chart.boot_at is not None and 0 <= (now - chart.boot_at).total_seconds() <= policy.boot_grace_s:
        return False
    wanted = policy.debounce.get(verdict.rule)
    polls = verdict.evidence.get("polls")
    return wanted is None or not isinstance(polls, int) or polls >= wanted[0]


def _unbelieved(verdict: Verdict) -> Verdict:
    """Return what stands where every finding waits: not known, which is neither a fault nor a clean bill."""
    return replace(
        verdict, state="unknown", severity=Severity.UNKNOWN, rule="settling", action="none", since=None,
        evidence=MappingProxyType({}), confidence=1.0,
    )  # fmt: skip


def _of_record(like: Verdict, chart: Chart, policy: StatePolicy, now: datetime) -> Iterable[Verdict]:
    """Return what the record says: a verdict for each open fault, and one while the last repair is on trial."""
    for one in chart.open:
        yield replace(
            like, state=STATE_OF_RUNG[one.rung], severity=Severity.CRITICAL, rule=one.name, action=LADDER[one.rung],
            since=one.opened_at, confidence=0.9, evidence=MappingProxyType(one.told()),
        )  # fmt: skip
    until = chart.probation_until(policy)
    if until is not None and until > now:
        last = max(
            (one for one in chart.incidents if one.cleared_at is not None), key=lambda one: one.cleared_at or now
        )
        yield replace(
            like, state="probation", severity=Severity.INFO, rule="probation", action="none", since=last.cleared_at,
            until=until, confidence=1.0, evidence=MappingProxyType({"after": last.name, "repair": last.cleared_by}),
        )  # fmt: skip


def _weight(verdict: Verdict) -> tuple[int, int, int, float, str]:
    place = STATES.index(verdict.state) if verdict.state in STATES else len(STATES)
    rung = RUNG_OF.get(verdict.action or "none", 0)
    confidence = 0.0 if verdict.confidence is None else verdict.confidence
    return place, _HEAVIER.index(verdict.severity), rung, confidence, verdict.rule
