"""Judge which GPUs are degraded, failing or failed: the deciding half of the topic `health`.

One verdict a GPU, by its strongest finding; the others stand in its evidence. A MIG device gets one where an error
hit its program alone. A node whose every GPU fell silent gets a verdict of its own, for then the exporter is the
patient. No telemetry is "unknown", never "healthy".
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import TypeVar

import polars as pl

from analytics.health_confidence import confidence_of
from analytics.health_events import read_events
from analytics.health_peers import peers_of
from analytics.health_policy import HealthPolicy
from analytics.health_rules import Event, Finding, Patient, Peers, Signs, find_all, find_told
from analytics.health_xid_rules import find_xids, is_of_application
from fleet.verdict import Severity, Verdict

_NODE_EVENTS = frozenset({"boot"})
_LOOSE_EVENTS = frozenset({"xid", "sxid", "gpu_lost", "probe_hang"})
_Node = tuple[str, str]
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


def judge_health(signals: pl.DataFrame, events: pl.DataFrame, policy: HealthPolicy, now: datetime) -> list[Verdict]:
    """Return a verdict for each GPU of `health_signals`, and for what else something was told of.

    That is each MIG device that a program's error hit, and each node without telemetry, with fewer GPUs than it
    should have, or with errors that name none of them.
    """
    signs = [Signs(**row) for row in signals.sort("cluster", "node", "uuid").iter_rows(named=True)]
    happened = read_events(events, policy)
    of_gpu = _grouped((event.gpu_uuid, event) for event in happened if event.gpu_uuid is not None)
    loose = _grouped(((event.cluster, event.node), event) for event in happened if event.gpu_uuid is None)
    by_node = _grouped(((sign.cluster, sign.node), sign) for sign in signs)
    peers = peers_of(signs, happened, policy)
    verdicts = []
    for node, members in by_node.items():
        boots = [event for event in loose.get(node, ()) if event.kind in _NODE_EVENTS]
        for member in members:
            own, of_slices = _divided(of_gpu.get(member.uuid, []), member, policy)
            told = tuple(sorted([*own, *boots], key=_in_time))
            patient = Patient(member, told, peers[member.uuid], policy, now)
            verdicts.append(_verdict(patient, find_all(patient)))
            verdicts.extend(_judge_slices(patient, of_slices, boots))
    for node in sorted({*by_node, *loose}):
        verdicts.extend(_judge_node(node, by_node.get(node, []), loose.get(node, []), policy, now))
    return verdicts


def _divided(events: list[Event], signs: Signs, policy: HealthPolicy) -> tuple[list[Event], list[Event]]:
    """Return the events of the whole GPU, and those of programs on its MIG devices."""
    of_slices = [
        event for event in events if event.is_of_slice and is_of_application(event, signs.driver, policy.overrides)
    ]
    if not of_slices:
        return events, []
    taken = set(of_slices)
    return [event for event in events if event not in taken], of_slices


def _judge_slices(patient: Patient, events: list[Event], boots: list[Event]) -> Iterable[Verdict]:
    """Judge each MIG device by the errors that hit its program; its GPU is left alone by them."""
    cures = [*boots, *(event for event in patient.events if event.kind == "gpu_reset")]
    by_slice = _grouped(
        (event.slice_uuid or f"{event.gpu_uuid}/gpu-instance-{event.gpu_instance}", event) for event in events
    )
    for subject, told in sorted(by_slice.items()):
        own = replace(patient, events=tuple(sorted({*told, *cures}, key=_in_time)))
        findings = sorted(find_xids(own), key=lambda finding: finding.weight, reverse=True)
        if findings:
            evidence = {"gpu_uuid": patient.signs.uuid, "gpu_instance": told[0].gpu_instance}
            strongest = replace(findings[0], evidence={**findings[0].evidence, **evidence})
            node = (patient.signs.cluster, patient.signs.node)
            yield replace(_node_verdict(node, strongest, findings[1:], patient), subject_kind="slice", subject=subject)


def _verdict(patient: Patient, findings: list[Finding]) -> Verdict:
    signs = patient.signs
    healthy = Finding("no_finding", "healthy", "none", Severity.OK)
    strongest, *others = findings or [healthy]
    confidence, rests_on = confidence_of(strongest, signs, patient.policy)
    evidence = {
        **strongest.evidence,
        "confidence_rests_on": rests_on,
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
        confidence=confidence,
        since=strongest.since,
        until=signs.last_sample_at,
        evidence=MappingProxyType(evidence),
    )


def _told(finding: Finding) -> Mapping[str, object]:
    return {"rule": finding.rule, "state": finding.state, "action": finding.action, **finding.evidence}


def _judge_node(
    node: _Node, members: list[Signs], loose: list[Event], policy: HealthPolicy, now: datetime
) -> Iterable[Verdict]:
    """Judge a node by the silence of all its GPUs, by those it lacks, and by the errors that name none of them."""
    heard = [member.last_sample_at for member in members if member.last_sample_at is not None]
    silence_max_s = max((member.silence_max_s(policy) for member in members), default=policy.silence_s)
    boots = [event for event in loose if event.kind == "boot"]
    errors = [event for event in loose if event.kind in _LOOSE_EVENTS]
    signs = Signs(node[1], *node, last_sample_at=max(heard, default=None))
    patient = Patient(signs, tuple(sorted([*errors, *boots], key=_in_time)), Peers(), policy, now)
    is_silent = bool(heard) and (now - max(heard)).total_seconds() > silence_max_s
    if is_silent:
        evidence: dict[str, object] = {"gpus": len(members), "silent_s": (now - max(heard)).total_seconds()}
        finding = Finding("exporter_lost", "unknown", "inspect", Severity.WARNING, max(heard), evidence)
        yield _node_verdict(node, finding, [], patient)
    findings = [] if is_silent or not heard else list(_missing(members, boots, policy, now))
    if errors:
        findings += find_told(patient)
    findings.sort(key=lambda finding: finding.weight, reverse=True)
    if findings:
        yield _node_verdict(node, findings[0], findings[1:], patient)


def _missing(members: list[Signs], boots: list[Event], policy: HealthPolicy, now: datetime) -> Iterable[Finding]:
    """Find GPUs that a node should have and that nothing ever told of; one that fell silent speaks for itself."""
    expected = max((member.node_gpus for member in members if member.node_gpus is not None), default=None)
    is_starting = any(now - event.ts <= timedelta(seconds=policy.boot_grace_s) for event in boots)
    if expected is not None and len(members) < expected and not is_starting:
        evidence: dict[str, object] = {"gpus": len(members), "expected_gpus": expected}
        yield Finding("gpu_count_low", "degraded", "inspect", Severity.WARNING, evidence=evidence)


def _node_verdict(node: _Node, finding: Finding, others: list[Finding], patient: Patient) -> Verdict:
    confidence, rests_on = confidence_of(finding, patient.signs, patient.policy)
    evidence = {**finding.evidence, "confidence_rests_on": rests_on, "others": [_told(other) for other in others]}
    return Verdict(
        made_at=patient.now,
        topic="health",
        subject_kind="node",
        subject=node[1],
        cluster=node[0],
        node=node[1],
        state=finding.state,
        severity=finding.severity,
        rule=finding.rule,
        action=finding.action,
        confidence=confidence,
        since=finding.since,
        evidence=MappingProxyType(evidence),
    )


def _in_time(event: Event) -> tuple[datetime, str, int]:
    return event.ts, event.kind, -1 if event.code is None else event.code


def _grouped(pairs: Iterable[tuple[_Key, _Value]]) -> dict[_Key, list[_Value]]:
    groups: dict[_Key, list[_Value]] = defaultdict(list)
    for key, value in pairs:
        groups[key].append(value)
    return groups
