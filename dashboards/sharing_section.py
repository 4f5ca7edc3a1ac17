"""Which nodes could be cut or shared otherwise, so that more of what waits would run: the latest turn's verdicts."""

import json
from collections.abc import Mapping

import ibis
import polars as pl
import streamlit as st

from dashboards import use_explain
from dashboards.cards import draw_heading
from dashboards.port import Desk, Engine
from dashboards.scope import Scope
from fleet.verdict import Verdict, verdicts_of

_COLUMNS = {
    "node": "Node", "cluster": "Cluster", "now": "Now", "becomes": "Could become", "gain": "Meets more (GPUs' worth)",
    "because": "Because",
}  # fmt: skip


def find_otherwise(engine: Engine, scope: Scope) -> list[Verdict]:
    """Return the latest turn's verdicts on nodes that could be cut anew or shared by time, most gained first."""
    if scope.turn is None:
        return []
    verdict = scope.here(engine.table("verdict"))
    rows = engine.run(
        verdict.filter(
            verdict["made_at"] == ibis.literal(scope.turn),
            verdict["topic"] == "packing",
            verdict["action"].isin(["reslice", "share"]),
        )
    )
    return sorted(verdicts_of(rows), key=lambda each: (-_gain(each), each.cluster or "", each.subject))


def draw_sharing(desk: Desk, scope: Scope) -> None:
    """Draw the nodes that could be cut or shared otherwise, with the sums that say so."""
    draw_heading("Which nodes could be cut or shared otherwise", use_explain.SHARING)
    found = find_otherwise(desk.engine, scope)
    if not found:
        st.caption("None: what is held and what waits fits how the nodes are cut, or it is not surely safe.")
        return
    rows = [
        {"node": each.node, "cluster": each.cluster, "now": _now(each), "becomes": _after(each), "gain": _gain(each),
         "because": _because(each.evidence)}
        for each in found
    ]  # fmt: skip
    st.dataframe(
        pl.DataFrame(rows, infer_schema_length=None),
        column_config=_COLUMNS,
        hide_index=True,
        placeholder="-",
        alt="Nodes that could be cut into other MIG devices or shared by time",
    )


def _now(verdict: Verdict) -> str:
    return str(verdict.evidence.get("layout_now", "whole GPUs"))


def _after(verdict: Verdict) -> str:
    told = verdict.evidence
    return str(told["layout"]) if "layout" in told else f"{told.get('sharing')}, {told.get('replicas')} pods a GPU"


def _gain(verdict: Verdict) -> float:
    told = verdict.evidence.get("gain_gpus")
    return float(told) if isinstance(told, int | float) else 0.0


def _because(told: Mapping[str, object]) -> str:
    if "memory_needed_mib" not in told:
        return f"waiting: {json.dumps(told.get('waiting'))}"
    needed, size = told["memory_needed_mib"], told["memory_mib"]
    return (
        f"{told['pods']} pods on {told['gpus']} GPUs; the largest together peak at {needed:,.0f} of {size:,} MiB "
        f"and {told['activity_needed']:.0%} activity"
    )
