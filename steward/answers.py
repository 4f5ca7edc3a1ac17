"""Answers: what was found, as reports."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal

import polars as pl

from actions.switch import why_braked
from fleet.verdict import Severity, Verdict
from steward.brake import reason_of
from steward.compose import House
from steward.cycle import Collected, Turn
from steward.judge import Findings
from steward.loop import LoopState
from steward.report import Report
from steward.telemetry import judged_sources

OK, WARNING, CRITICAL, UNKNOWN = 0, 1, 2, 3
_NAGIOS = {Severity.OK: OK, Severity.INFO: OK, Severity.WARNING: WARNING, Severity.CRITICAL: CRITICAL}
_VERDICT_COLUMNS = ("subject", "node", "state", "severity", "rule", "action", "since")
_STATES = {"ok": OK, "late": WARNING, "partial": WARNING, "failing": WARNING, "never_read": UNKNOWN}
_DOCTOR_COLUMNS = (
    "check", "result", "detail", "lag_s", "coverage", "failures", "rejected_rows", "last_error", "hint",
)  # fmt: skip


def health_report(verdicts: Sequence[Verdict], now: datetime, *, show_all: bool) -> Report:
    """Return the health of the fleet; the exit code is that of a Nagios check: the worst that was found."""
    states = Counter(verdict.state for verdict in verdicts if verdict.subject_kind == "gpu")
    shown = [v for v in verdicts if show_all or v.severity not in {Severity.OK, Severity.UNKNOWN}]
    unknown = sum(v.severity is Severity.UNKNOWN for v in verdicts)
    notes = []
    if not verdicts:
        notes.append("unknown: no telemetry; no GPU was ever collected into this store")
    elif unknown and not show_all:
        notes.append(f"{unknown} subjects are unknown for want of telemetry; --all shows them")
    return Report(
        "HealthReport",
        now,
        {"gpus": sum(states.values()), **dict(sorted(states.items()))},
        [verdict_item(verdict) for verdict in sorted(shown, key=_by_severity)],
        _VERDICT_COLUMNS,
        tuple(notes),
        nagios_code(verdicts),
    )


def nagios_code(verdicts: Sequence[Verdict]) -> int:
    """Return 2 for anything critical, 1 for a warning, 3 where nothing at all is known, else 0."""
    codes = {_NAGIOS[verdict.severity] for verdict in verdicts if verdict.severity in _NAGIOS}
    return max(codes) if codes else UNKNOWN


def collected_report(collected: Collected, now: datetime, *, failed: bool) -> Report:
    """Return what a reading of the sources brought."""
    items: list[dict[str, object]] = [
        {"source": source, "kind": t.kind, "place": t.place, "rows": t.row_count, "reason": t.reason}
        for source, t in collected.troubles
    ]
    rows: dict[str, object] = {f"{table} rows": count for table, count in sorted(collected.rows.items())}
    notes = () if collected.rows or items else ("nothing new",)
    return Report("CollectReport", now, rows, items, notes=notes, exit_code=int(failed))


def analysis_report(findings: Findings) -> Report:
    """Return everything that was asked of one moment."""
    idle = [v for v in findings.verdicts if v.topic == "idle" and v.subject_kind in {"gpu", "slice"}]
    health = [v for v in findings.verdicts if v.topic == "health" and v.subject_kind == "gpu"]
    reclaim = [v for v in findings.verdicts if v.subject_kind == "workload" and v.action == "reclaim"]
    summary: dict[str, object] = {
        "health": _counted(health) or "unknown: no telemetry",
        "idle": _counted(idle) or "unknown: no telemetry",
        "reclaimable": f"{len(reclaim)} workloads, {_hours(reclaim):,.1f} GPU-hours idle, {_cost(reclaim)}",
        **findings.facts,
    }
    return Report("AnalysisReport", findings.now, summary, findings.items, findings.columns, findings.notes)


def turn_report(turned: Turn) -> Report:
    """Return what one turn of the loop did."""
    findings = turned.findings
    return Report(
        "TurnReport",
        turned.now,
        {
            "rows stored": sum(turned.collected.rows.values()),
            "troubles": len(turned.collected.troubles),
            "health": _counted([v for v in findings.verdicts if v.topic == "health" and v.subject_kind == "gpu"]),
            "idle": _counted(
                [v for v in findings.verdicts if v.topic == "idle" and v.subject_kind in {"gpu", "slice"}]
            ),
            "moves planned": sum(len(plan.moves) for plan in turned.plans),
            "held back": sum(len(plan.held_back) for plan in turned.plans),
        },
        notes=tuple(f"{source}: {trouble.reason}" for source, trouble in turned.collected.troubles),
    )


def doctor_report(house: House, state: LoopState | None) -> Report:
    """Return the state of settings, store and sources; the exit code is that of a Nagios check."""
    now = house.clock.now()
    described = house.store.describe()
    items = [_store_item(described)]
    items += [_source_item(row) for row in judged_sources(house, now).to_dicts()]
    items += _failure_items(house, now - timedelta(days=1))
    if not house.sources:
        items.append(_check("sources", WARNING, "none configured; set [collect] sources, or use --source"))
    braked = reason_of(house.store.path)
    if braked is not None:
        items.append(_check("brake", WARNING, f"on: {braked}; `steward brake off` lets moves be made again"))
    items += _watched_items(house)
    if state is not None and state.last_error is not None:
        items.append(_check("loop", CRITICAL, state.last_error))
    codes = [code for code, name in enumerate(_NAMES) for item in items if item["result"] == name]
    rows = described["rows"]
    summary: dict[str, object] = {
        "store": described["path"],
        "size_mib": _mib(described["size_bytes"]),
        "first sample": described["first_sample_at"],
        "last sample": described["last_sample_at"],
        "rows": {name: count for name, count in rows.items() if count} if isinstance(rows, dict) else None,
    }
    return Report("DoctorReport", now, summary, items, _DOCTOR_COLUMNS, exit_code=max(codes, default=OK))


def verdict_item(verdict: Verdict) -> dict[str, object]:
    """Return a verdict as one row of a report, evidence included."""
    return {
        "subject": verdict.subject,
        "subject_kind": verdict.subject_kind,
        "cluster": verdict.cluster,
        "node": verdict.node,
        "workspace": verdict.workspace,
        "workload": verdict.workload,
        "topic": verdict.topic,
        "state": verdict.state,
        "severity": verdict.severity.value,
        "rule": verdict.rule,
        "action": verdict.action,
        "since": verdict.since,
        "coverage": verdict.coverage,
        "gpu_hours": verdict.gpu_hours,
        "cost_usd": verdict.cost_usd,
        "evidence": dict(verdict.evidence),
    }


def _watched_items(house: House) -> list[dict[str, object]]:
    """Return, for each cluster that is watched over, whether its own kill switch or another's lead stops moves."""
    items = []
    for name, overseer in sorted(house.overseers.items()):
        reason = None if overseer.switch is None else why_braked(overseer.switch)
        if reason is not None:
            items.append(_check(f"brake of {name}", WARNING, reason))
        if overseer.leadership is not None:
            items.append(_check(f"leader of {name}", OK, overseer.leadership.told()))
    return items


_NAMES = ("ok", "warning", "critical", "unknown")
_ORDER = (Severity.CRITICAL, Severity.WARNING, Severity.INFO, Severity.UNKNOWN, Severity.OK)


def _by_severity(verdict: Verdict) -> tuple[int, str]:
    return _ORDER.index(verdict.severity), verdict.subject


def _check(what: str, code: int, detail: str) -> dict[str, object]:
    return {"check": what, "result": _NAMES[code], "detail": detail}


def _store_item(described: dict[str, object]) -> dict[str, object]:
    return _check("store", OK, f"schema {described['schema']}, opened and readable")


def _source_item(row: Mapping[str, object]) -> dict[str, object]:
    """Return a source as a check; one that is not configured here is told, and no reason to worry."""
    state = str(row["state"])
    code = _STATES[state] if row["is_configured"] else OK
    detail = state.replace("_", " ") if row["is_configured"] else f"{state.replace('_', ' ')}; not configured here"
    told = {name: row[name] for name in ("lag_s", "coverage", "failures", "rejected_rows", "last_error", "hint")}
    return {**_check(f"source {row['source']}", code, detail), "state": state, **told}


def _failure_items(house: House, since: datetime) -> list[dict[str, object]]:
    recent = house.store.read("source_failure").filter(pl.col("ts") >= since, pl.col("kind") != "noticed")
    grouped = recent.group_by("source", "kind", "place", "reason").agg(pl.len(), pl.col("row_count").sum())
    return [
        _check(
            f"{row['source']}: {row['place']}",
            WARNING,
            f"{row['kind']} {row['len']}x ({row['row_count']} rows): {row['reason']}",
        )
        for row in grouped.sort("source", "place", "reason").to_dicts()
    ]


def _mib(size: object) -> float | None:
    return size / 2**20 if isinstance(size, int) else None


def _counted(verdicts: Iterable[Verdict]) -> str:
    counts = Counter(verdict.state for verdict in verdicts)
    return ", ".join(f"{count:,} {state}" for state, count in counts.most_common())


def _hours(verdicts: Iterable[Verdict]) -> float:
    return sum(verdict.gpu_hours for verdict in verdicts if verdict.gpu_hours is not None)


def _cost(verdicts: Sequence[Verdict]) -> str:
    priced = [verdict.cost_usd for verdict in verdicts if verdict.cost_usd is not None]
    if verdicts and not priced:
        return "unpriced"
    return f"{sum(priced, Decimal(0)):,.2f} USD"
