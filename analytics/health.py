"""Judge which GPUs are degraded, failing or failed: the deciding half of the topic `health`.

One verdict a GPU, by its strongest finding; the others stand in its evidence. A node whose every GPU fell silent
gets a verdict of its own, for then the exporter is the patient. No telemetry is "unknown", never "healthy".
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import TypeVar

import polars as pl

from analytics.health_policy import HealthPolicy
from analytics.health_rules import Event, Finding, Patient, Signs, find_all
from fleet.verdict import Severity, Verdict

_NODE_EVENTS = frozenset({"boot"})
_Node = tuple[str, str]
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


def judge_health(signals: pl.DataFrame, events: pl.DataFrame, policy: HealthPolicy, now: datetime) -> list[Verdict]:
    """Return a verdict for each GPU of `health_signals`, and for each node without telemetry or with loose events."""
    signs = [Signs(**row) for row in signals.sort("cluster", "node", "uuid").iter_rows(named=True)]
    happened = _events(events)
    of_gpu = _grouped((event.gpu_uuid, event) for event in happened if event.gpu_uuid is not None)
    of_node = _grouped(((event.cluster, event.node), event) for event in happened if event.kind in _NODE_EVENTS)
    by_node = _grouped(((sign.cluster, sign.node), sign) for sign in signs)
    verdicts = []
    for node, members in by_node.items():
        for member in members:
            own = {*of_gpu.get(member.uuid, ()), *of_node.get(node, ())}
            patient = Patient(member, tuple(sorted(own, key=_in_time)), _last_of_others(member, members), policy, now)
            verdicts.append(_verdict(patient, find_all(patient)))
    loose = _grouped(((event.cluster, event.node), event) for event in happened if event.gpu_uuid is None)
    for node in sorted({*by_node, *loose}):
        verdicts.extend(_judge_node(node, by_node.get(node, []), loose.get(node, []), policy, now))
    return verdicts


def _verdict(patient: Patient, findings: list[Finding]) -> Verdict:
    signs = patient.signs
    healthy = Finding("no_finding", "healthy", "none", Severity.OK)
    strongest, *others = findings or [healthy]
    evidence = {
        **strongest.evidence,
        "sample_age_s": (patient.now - signs.last_sample_at).total_seconds() if signs.last_sample_at else None,
        "others": [_told(finding) for finding in others],
    }
    return Verdict(
        made_at=patient.now,
        topic="health",
        subject_kind="gpu",
        subject=signs.uuid,
        cluster=signs.cluster,
        node=signs.node,
        state=strongest.state,
        severity=strongest.severity,
        rule=strongest.rule,
        action=strongest.action,
        since=strongest.since,
        until=signs.last_sample_at,
        evidence=MappingProxyType(evidence),
    )


def _told(finding: Finding) -> Mapping[str, object]:
    return {"rule": finding.rule, "state": finding.state, "action": finding.action, **finding.evidence}


def _judge_node(
    node: _Node, members: list[Signs], loose: list[Event], policy: HealthPolicy, now: datetime
) -> Iterable[Verdict]:
    """Judge a node by the silence of all its GPUs and by the XIDs that name none of them."""
    heard = [member.last_sample_at for member in members if member.last_sample_at is not None]
    silence_max_s = max((member.silence_max_s(policy) for member in members), default=policy.silence_s)
    if heard and (now - max(heard)).total_seconds() > silence_max_s:
        evidence: dict[str, object] = {"gpus": len(members), "silent_s": (now - max(heard)).total_seconds()}
        finding = Finding("exporter_lost", "unknown", "inspect", Severity.WARNING, max(heard), evidence)
        yield _node_verdict(node, finding, [], now)
    xids = [event for event in loose if event.kind in {"xid", "gpu_lost"}]
    if xids:
        signs = Signs(node[1], *node, last_sample_at=now)
        boots = [event for event in loose if event.kind == "boot"]
        findings = find_all(Patient(signs, tuple(sorted([*xids, *boots], key=_in_time)), now, policy, now))
        if findings:
            yield _node_verdict(node, findings[0], findings[1:], now)


def _node_verdict(node: _Node, finding: Finding, others: list[Finding], now: datetime) -> Verdict:
    return Verdict(
        made_at=now,
        topic="health",
        subject_kind="node",
        subject=node[1],
        cluster=node[0],
        node=node[1],
        state=finding.state,
        severity=finding.severity,
        rule=finding.rule,
        action=finding.action,
        since=finding.since,
        evidence=MappingProxyType({**finding.evidence, "others": [_told(other) for other in others]}),
    )


def _events(frame: pl.DataFrame) -> list[Event]:
    """Return the events in order of time, each once with all workloads that were on its GPU."""
    names = ["ts", "cluster", "node", "gpu_uuid", "kind", "code", "message"]
    grouped = frame.group_by(names).agg(pl.col("workload").drop_nulls().unique().sort()).sort(names, nulls_last=True)
    return [
        Event(**{name: row[name] for name in names}, workloads=frozenset(row["workload"]))
        for row in grouped.iter_rows(named=True)
    ]


def _in_time(event: Event) -> tuple[datetime, str, int]:
    return event.ts, event.kind, -1 if event.code is None else event.code


def _last_of_others(member: Signs, members: list[Signs]) -> datetime | None:
    others = [mate.last_sample_at for mate in members if mate.uuid != member.uuid and mate.last_sample_at is not None]
    return max(others, default=None)


def _grouped(pairs: Iterable[tuple[_Key, _Value]]) -> dict[_Key, list[_Value]]:
    groups: dict[_Key, list[_Value]] = defaultdict(list)
    for key, value in pairs:
        groups[key].append(value)
    return groups
