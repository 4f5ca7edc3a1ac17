"""How is each GPU, what did its driver say, which are on trial after a repair, which are likely to fail?"""

import json

import ibis
import polars as pl

from dashboards.port import Engine
from dashboards.scope import Scope

STATES = ("failed", "failing", "degraded", "unknown", "probation", "healthy")
"""Worst first, as the page lists them."""
_SEVERITY = {"critical": 0, "warning": 1, "info": 2, "unknown": 3}


def find_states(engine: Engine, scope: Scope) -> pl.DataFrame:
    """Return each GPU with its place and its state: uuid, cluster, node, gpu_index, model, state, rule, action.

    A GPU that the latest turn said nothing of is unknown.
    """
    gpu = scope.seen(engine.table("gpu")).select("uuid", "cluster", "node", "gpu_index", "model")
    known = engine.run(gpu)
    judged = _of_turn(engine, scope, "gpu").select("state", "rule", "action", "evidence", uuid="subject")
    joined = known.join(judged.unique("uuid", keep="first", maintain_order=True), on="uuid", how="left")
    state = pl.when(pl.col("state").is_null()).then(pl.lit("unknown")).otherwise("state")
    return joined.with_columns(state=state).sort("cluster", "node", "gpu_index", "uuid", nulls_last=True)


def find_unhealthy(engine: Engine, scope: Scope) -> pl.DataFrame:
    """Return the verdicts on health of the latest turn that are no clean bill, worst and dearest first.

    What is merely unknown is counted above them and not listed, except where a node or a cluster fell silent.
    """
    rows = _of_turn(engine, scope, None).filter(
        (pl.col("subject_kind") != "slice") & pl.col("severity").is_in(["critical", "warning", "info"])
        & ((pl.col("state") != "healthy") | (pl.col("action") != "none"))
    )  # fmt: skip
    order = pl.col("severity").replace_strict(_SEVERITY, default=len(_SEVERITY), return_dtype=pl.Int32)
    return rows.sort(order, "cost_usd", "gpu_hours", "subject", descending=[False, True, True, False], nulls_last=True)


def find_probation(engine: Engine, scope: Scope) -> pl.DataFrame:
    """Return GPUs whose repair is on trial: uuid, node, after, repair, since, until, risk_7d, base_7d."""
    rows = _of_turn(engine, scope, "gpu").filter(pl.col("state") == "probation")
    told = [
        {
            "uuid": row["subject"], "node": row["node"], "after": evidence.get("after"),
            "repair": evidence.get("repair"), "since": row["since"], "until": row["until"],
            **{name: (evidence.get("risk") or {}).get(name) for name in ("risk_7d", "base_7d")},
        }
        for row in rows.iter_rows(named=True)
        for evidence in [json.loads(row["evidence"])]
    ]  # fmt: skip
    schema = {
        "uuid": pl.String(), "node": pl.String(), "after": pl.String(), "repair": pl.String(),
        "since": pl.Datetime("us", "UTC"), "until": pl.Datetime("us", "UTC"), "risk_7d": pl.Float64(),
        "base_7d": pl.Float64(),
    }  # fmt: skip
    return pl.DataFrame(told, schema=schema).sort("until", "uuid")


def find_risk(engine: Engine, scope: Scope, kind: str, rows: int) -> pl.DataFrame:
    """Return the `rows` GPUs or nodes most likely to fail within 7 days, riskiest first."""
    risk = scope.here(engine.table("risk"))
    return engine.run(
        risk.filter(risk["subject_kind"] == kind, risk["risk_7d"].notnull())
        .order_by([ibis.desc("risk_7d"), "subject"])
        .limit(rows)
    )


def find_events(engine: Engine, scope: Scope, points: int) -> pl.DataFrame:
    """Return XIDs and troubles of the window by hour, kind and code: ts, name, events, gpus; at most `points`.

    Where there are more, the commonest give way: a storm of one application's errors must not hide the one that
    fell off the bus.
    """
    event = scope.within(engine.table("event"), "ts")
    hours = event.mutate(hour=event["ts"].truncate("h"))
    counted = hours.group_by("hour", "kind", "code").agg(events=hours.count(), gpus=hours["gpu_uuid"].nunique())
    rows = engine.run(counted)
    name = pl.when(pl.col("code").is_null()).then("kind").otherwise(pl.format("{} {}", "kind", "code"))
    return (
        rows.select(ts="hour", name=name, events="events", gpus="gpus")
        .sort("events", "ts", "name")
        .head(points)
        .sort("name", "ts")
    )


def _of_turn(engine: Engine, scope: Scope, kind: str | None) -> pl.DataFrame:
    verdict = scope.here(engine.table("verdict"))
    spoken = verdict.filter(verdict["topic"] == "health", verdict["made_at"] == ibis.literal(scope.turn))
    return engine.run(spoken if kind is None else spoken.filter(spoken["subject_kind"] == kind))
