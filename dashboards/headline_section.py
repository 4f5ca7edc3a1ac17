"""The first glance: the fleet in six numbers, how far its GPUs get, what the hours went to and who idles."""

from collections.abc import Mapping
from decimal import Decimal

import polars as pl
import streamlit as st

from dashboards import charts, explain, words
from dashboards.cards import draw_heading, draw_number
from dashboards.fleet_questions import Funnel, find_funnel
from dashboards.money_questions import Amount, find_amounts, find_amounts_over_time, find_idle_holders
from dashboards.plan_questions import Planned, find_plan
from dashboards.port import Desk
from dashboards.scope import Scope

_HEIGHT = 260
_TOLD_BY = {"gpu": "seen in this window", "node": "as nodes should have", "demand_sample": "as queues tell"}


def draw_headline(desk: Desk, scope: Scope) -> None:
    """Draw the numbers, and below them the funnel, the ledger over time and the holders of idle GPUs."""
    funnel, amounts = find_funnel(desk.engine, scope), find_amounts(desk.engine, scope)
    _draw_numbers(funnel, amounts, find_plan(desk.engine, scope))
    left, middle, right = st.columns([3, 5, 3], gap="medium")
    with left:
        _draw_funnel(funnel)
    with middle:
        _draw_costs(find_amounts_over_time(desk.engine, scope))
    with right:
        _draw_holders(find_idle_holders(desk.engine, scope), has_ledger=bool(amounts))


def _draw_numbers(funnel: Funnel, amounts: Mapping[str, Amount], planned: Planned | None) -> None:
    told_by = _TOLD_BY.get(funnel.told_by or "", "no inventory")
    held_by = explain.ALLOCATED[funnel.allocated_by or "pod_allocation"]
    # Two threes, so that a narrow window shows them below each other and not five and one.
    with st.grid(2, gap="small", min_column_width=540):
        with st.container(), st.grid(3, gap="small"):
            draw_number("GPUs", words.count(funnel.gpus), told_by, explain.GPUS_TOLD_BY[funnel.told_by or "gpu"])
            draw_number("Healthy", words.count(funnel.healthy), _health_words(funnel), explain.HEALTHY)
            draw_number("Held", words.count(funnel.allocated), _held_words(funnel), held_by)
        with st.container(), st.grid(3, gap="small"):
            draw_number("Active", words.count(funnel.active), _active_words(funnel), explain.ACTIVE)
            draw_number("Held while idle", *_idle_words(amounts), explain.IDLE_COST)
            draw_number("Planned saving", *_saving_words(planned), explain.SAVING)


def _health_words(funnel: Funnel) -> str:
    if funnel.healthy is None:
        return "not judged yet" if funnel.activity_at is not None and not funnel.health else "no telemetry"
    unknown = funnel.health.get("unknown", 0)
    faulty = sum(funnel.health.values()) - funnel.healthy - unknown
    return f"{words.count(faulty)} faulty, {words.count(unknown)} unknown"


def _held_words(funnel: Funnel) -> str:
    if funnel.allocated is None:
        return "no allocations recorded"
    return f"{words.share(funnel.allocated, funnel.gpus)} of the fleet"


def _active_words(funnel: Funnel) -> str:
    if funnel.active is None:
        return "no telemetry"
    return f"{words.share(funnel.active, funnel.activity_known)} of those that tell"


def _idle_words(amounts: Mapping[str, Amount]) -> tuple[str, str]:
    if not amounts:
        return words.UNKNOWN, "no ledger yet"
    if set(amounts) == {"unknown"}:
        return words.UNKNOWN, "no telemetry"
    if "allocated_idle" not in amounts:
        return words.money(Decimal(0)), "0 GPU-hours"
    idle = amounts["allocated_idle"]
    hours = f"{words.count(round(idle.gpu_hours))} GPU-hours"
    if idle.cost_usd is not None and idle.unpriced_gpu_hours > 0:
        hours += f", {words.count(round(idle.unpriced_gpu_hours))} unpriced"
    return words.money(idle.cost_usd), hours


def _saving_words(planned: Planned | None) -> tuple[str, str]:
    if planned is None:
        return words.UNKNOWN, "no plan yet"
    if planned.moves.is_empty():
        return words.money(Decimal(0)), "no move would be made"
    saving = planned.saving_usd_per_hour
    number = words.number_of(planned.moves.height, "move", "moves")
    return (words.UNPRICED if saving is None else f"{words.money(saving)} / h"), f"{number}, dry run"


def _draw_funnel(funnel: Funnel) -> None:
    draw_heading("From fleet to work", explain.FUNNEL)
    steps = [
        ("In the fleet", funnel.gpus),
        ("Healthy", funnel.healthy),
        ("Held", funnel.allocated),
        ("Active", funnel.active),
    ]
    st.echarts_chart(charts.funnel(steps), height=_HEIGHT, alt="GPUs in the fleet, healthy, held and active")


def _draw_costs(amounts: pl.DataFrame) -> None:
    draw_heading("What the hours went to", explain.COSTS)
    if amounts.is_empty():
        st.caption("No ledger yet: `steward analyse` writes it once it is known who held which GPU.")
        return
    measure = "gpu_hours" if amounts["cost_usd"].null_count() == amounts.height else "cost_usd"
    st.echarts_chart(charts.costs(amounts, measure), height=_HEIGHT, alt="The ledger by category over time")


def _draw_holders(holders: pl.DataFrame, *, has_ledger: bool) -> None:
    draw_heading("Who holds idle GPUs", explain.HOLDERS)
    if holders.is_empty():
        st.caption("Nobody, as far as the ledger tells." if has_ledger else "Unknown: no ledger yet.")
        return
    st.dataframe(
        holders.with_columns(pl.col("cost_usd").cast(pl.Float64)),
        column_config={
            "workspace": "Workspace",
            "gpu_hours": st.column_config.NumberColumn("GPU-hours", format="%,.0f"),
            "cost_usd": st.column_config.NumberColumn("Cost", format="$%,.0f"),
        },
        hide_index=True,
        placeholder="-",
        height="content",
        alt="Workspaces by what they held and did not use",
    )
