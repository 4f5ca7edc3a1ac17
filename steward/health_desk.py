"""Answers of health: the fleet's state with probation and risk, and one GPU's state with everything behind it."""

from collections.abc import Mapping
from datetime import datetime

import polars as pl

from analytics.failure_risk import RiskModel
from analytics.fault_history import history_events
from analytics.health_signals import health_events
from analytics.prices import priced_gpus, rates_by_uuid
from fleet.errors import BadInput
from fleet.verdict import Severity, Verdict
from steward.answers import health_report
from steward.compose import House
from steward.health_turn import HISTORY_DAYS, HealthTurn, judge_fleet_health
from steward.report import Report

_COLUMNS = ("subject", "node", "state", "rule", "action", "since", "risk", "gpu_hours", "cost_usd")
_FORMULA = (
    (
        "state = the worst of: faults that no repair or return cleared; findings of rules, peers and silence now; "
        "probation after a repair; else healthy, and unknown where telemetry does not reach"
    ),
    (
        "action = the heaviest asked for at that state; a fault that came back within the probation asks for one rung "
        "more than the repair it survived (application, GPU reset, node reboot, inspection, replacement)"
    ),
    (
        "risk = isotonic fit over the fleet's days of score -> fault; score = sum over its faults of weight * "
        "exp(-age / memory)"
    ),
    (
        "GPU-hours at stake = GPUs that stand still with the action (node, gang) * hours the action takes; money = "
        "their prices * those hours, null where one has none"
    ),
)


def turn_of(house: House, now: datetime) -> HealthTurn:
    """Look at the fleet's health as the house is wired."""
    engine = house.store.engine
    rates = rates_by_uuid(engine.run(priced_gpus(engine)), house.store.read("price"), now)
    return judge_fleet_health(engine, house.settings, rates, now)


def answer_health(house: House, parameters: Mapping[str, object], now: datetime) -> Report:
    """Return the health of the fleet; the exit code is that of a Nagios check."""
    turned = turn_of(house, now)
    show_all = str(parameters.get("all", "false")).lower() == "true"
    report = health_report(turned.verdicts, now, show_all=show_all)
    risks = _risks(turned.risk)
    shown = {(verdict.subject_kind, verdict.subject): verdict for verdict in turned.verdicts}
    items = [{**item, **_more(shown[str(item["subject_kind"]), str(item["subject"])], risks)} for item in report.items]
    at_risk = _at_risk(turned)
    notes = [*report.notes, _basis(turned.gpu_model)]
    notes += [
        f"at risk: {row['subject']} on {row['node']}: {row['risk_7d']:.1%} within 7 days, base {row['base_7d']:.1%}"
        for row in at_risk.head(5).iter_rows(named=True)
    ]
    summary = {**report.summary, "at_risk": at_risk.height}
    return Report(report.kind, now, summary, items, _COLUMNS, tuple(notes), report.exit_code)


def explain_gpu(house: House, parameters: Mapping[str, object], now: datetime) -> Report:
    """Return one GPU's state with its rule, evidence, record, risk and formula; `uuid` names it, or a part of it."""
    wanted = str(parameters.get("uuid", ""))
    gpu = _find(house, wanted)
    uuid, place = str(gpu["uuid"]), (gpu["cluster"], gpu["node"])
    turned = turn_of(house, now)
    own = [
        v for v in turned.verdicts if v.subject == uuid or (v.subject_kind == "node" and (v.cluster, v.node) == place)
    ]
    own += [v for v in turned.verdicts if v.subject_kind == "slice" and v.evidence.get("parent") == uuid]
    engine = house.store.engine
    history = engine.run(history_events(engine, now, HISTORY_DAYS, house.settings.health.overrides))
    lately = engine.run(health_events(engine, now, house.settings.health))
    is_own = (pl.col("gpu_uuid") == uuid) | (
        pl.col("gpu_uuid").is_null() & (pl.col("cluster") == place[0]) & (pl.col("node") == place[1])
    )
    names = ["ts", "kind", "code", "message"]
    rows = pl.concat([frame.filter(is_own).select(names) for frame in (history, lately)]).unique().sort("ts", names[1])
    verdict = next((v for v in own if v.subject == uuid), None)
    return Report(
        "GpuExplanation",
        now,
        {**_identity(gpu), **_state(verdict), **_risk(turned, uuid)},
        [*(_finding(v) for v in own), *_record(verdict), *({"what": "event", **row} for row in rows.to_dicts())],
        ("what", "ts", "kind", "code", "rule", "state", "action", "detail", "message"),
        (*_FORMULA, _basis(turned.gpu_model)),
    )


def _find(house: House, wanted: str) -> dict[str, object]:
    gpus = house.store.read("gpu")
    exact = gpus.filter(pl.col("uuid") == wanted)
    found = exact if exact.height else gpus.filter(pl.col("uuid").str.contains(wanted, literal=True))
    if not wanted or found.is_empty():
        message = f"there is no GPU {wanted!r} in the store; `steward health --all` lists them"
        raise BadInput(message, field="uuid")
    if found.height > 1:
        message = f"{found.height} GPUs are called like {wanted!r}; give more of the UUID"
        raise BadInput(message, field="uuid")
    return found.to_dicts()[0]


def _identity(gpu: Mapping[str, object]) -> dict[str, object]:
    return {name: gpu[name] for name in ("uuid", "model", "cluster", "node", "gpu_index", "pci_bus_id", "serial")}


def _state(verdict: Verdict | None) -> dict[str, object]:
    if verdict is None:
        return {"state": "unknown", "rule": "nothing spoke of it"}
    names = ("state", "severity", "rule", "action", "confidence", "since", "gpu_hours", "cost_usd")
    told = {name: getattr(verdict, name) for name in names}
    return {**told, "severity": verdict.severity.value, "probation_until": verdict.evidence.get("probation_until")}


def _risk(turned: HealthTurn, uuid: str) -> dict[str, object]:
    row = _risks(turned.risk).get(("gpu", uuid))
    if row is None:
        return {"risk": None}
    return {f"risk_{days}d": f"{row[f'risk_{days}d']:.2%} (base {row[f'base_{days}d']:.2%})" for days in (1, 7, 30)} | {
        "faults_in_record": row["fault_count"]
    }


def _finding(verdict: Verdict) -> dict[str, object]:
    inner = {key: value for key, value in verdict.evidence.items() if key not in {"findings", "record", "others"}}
    detail = "; ".join(f"{key} {value}" for key, value in inner.items() if value is not None)
    return {
        "what": f"verdict on {verdict.subject_kind}", "ts": verdict.since, "rule": verdict.rule,
        "state": verdict.state, "action": verdict.action, "detail": detail, "evidence": dict(verdict.evidence),
    }  # fmt: skip


def _record(verdict: Verdict | None) -> list[dict[str, object]]:
    record = [] if verdict is None else verdict.evidence.get("record")
    return [
        {
            "what": "fault", "ts": one["opened_at"], "rule": one["fault"], "action": one["asks_for"],
            "state": "open" if one["cleared_at"] is None else f"cleared by {one['cleared_by']}",
            "detail": f"{one['count']} times, last {one['last_at']}; in vain: {one['tried_in_vain'] or 'nothing'}",
        }
        for one in (record if isinstance(record, list) else [])
    ]  # fmt: skip


def _more(verdict: Verdict, risks: Mapping[tuple[str, str], Mapping[str, object]]) -> dict[str, object]:
    row = risks.get((verdict.subject_kind, verdict.subject), {})
    names = [f"{what}_{days}d" for what in ("risk", "base") for days in (1, 7, 30)]
    told = f"{row['risk_7d']:.1%} in 7 days, base {row['base_7d']:.1%}" if row else None
    return {
        "risk": told,
        "confidence": verdict.confidence,
        "probation_until": verdict.evidence.get("probation_until"),
        **{name: row.get(name) for name in names},
    }  # fmt: skip


def _risks(risk: pl.DataFrame) -> dict[tuple[str, str], dict[str, object]]:
    return {(row["subject_kind"], row["subject"]): row for row in risk.iter_rows(named=True)}


def _at_risk(turned: HealthTurn) -> pl.DataFrame:
    """Return the GPUs whose risk reaches the alert line, riskiest first; those at fault already are told as such."""
    at_fault = [v.subject for v in turned.verdicts if v.severity in {Severity.CRITICAL, Severity.WARNING}]
    reached = turned.risk.filter(
        pl.col("subject_kind") == "gpu", pl.col("risk_7d") >= pl.col("alert_line"), ~pl.col("subject").is_in(at_fault)
    )
    return reached.sort("risk_7d", "subject", descending=[True, False])


def _basis(model: RiskModel) -> str:
    if model.source != "history":
        return f"risk rests on {model.source} ({model.fault_count} faults of this fleet are too few to learn from)"
    line = "no alert line keeps to the budget" if model.alert_line is None else f"alert line {model.alert_line:.1%}"
    return f"risk is learnt from {model.fault_count} faults of this fleet, memory {model.memory_d:g} days; {line}"
