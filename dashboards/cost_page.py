"""What did the fleet cost, who pays, why is each number what it is, and how do budgets stand?"""

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import polars as pl
import streamlit as st
from streamlit.column_config import NumberColumn, ProgressColumn

from analytics.chargeback import Bill, ShareIdle
from dashboards import charts, explain, words
from dashboards.cards import draw_heading, draw_number
from dashboards.cost_questions import (
    Whole,
    bill_frame,
    explain_bill,
    find_bills,
    find_budgets,
    find_lines,
    find_whole,
    focus_csv,
)
from dashboards.money_questions import find_amounts_over_time
from dashboards.port import Desk, current
from dashboards.scope import Scope, clusters, find_scope
from fleet.errors import StewardError

if TYPE_CHECKING:
    from streamlit.elements.lib.column_types import ColumnConfig

_WINDOWS = {"24h": timedelta(hours=24), "7d": timedelta(days=7), "14d": timedelta(days=14), "30d": timedelta(days=30)}
_VIEWS = {
    "workspace": "workspace", "namespace": "namespace", "workload": "workload", "user": "owner", "team": "team",
    "label": "label", "GPU model": "model", "cluster": "cluster", "node pool": "pool", "node": "node",
}  # fmt: skip
_EXPLAINED = ("workspace", "namespace", "workload", "cluster")
_SHARES: dict[str, ShareIdle] = {"Apart": "none", "By cost": "weighted", "Evenly": "even"}
_ALL = "all"
_HEIGHT = 260
_NOBODYS = ("unattributed", "unallocated", "fragmentation", "unhealthy", "overhead")


def draw() -> None:
    """Draw the filters and, below them, the answers; what our own rooms can't do is told in their words."""
    try:
        with current() as desk:
            window, cluster = _draw_filters(clusters(desk.engine))
            scope = find_scope(desk.engine, _WINDOWS[window], cluster)
            whole = None if scope is None else find_whole(desk.engine, scope)
            if scope is None or whole is None or not whole.gpu_hours:
                st.info("No ledger yet.", icon=":material/hourglass_empty:")
                st.markdown(
                    "`steward analyse` writes it from what was collected: who held which GPU, and at what price."
                )
                return
            _draw_numbers(whole)
            draw_heading("What the hours went to", explain.COSTS)
            amounts = find_amounts_over_time(desk.engine, scope)
            measure = "gpu_hours" if whole.total_usd is None else "cost_usd"
            st.echarts_chart(charts.costs(amounts, measure), height=_HEIGHT, alt="The ledger by category over time")
            _draw_bills(desk, scope)
            _draw_budgets(desk, scope)
    except StewardError as error:
        st.error(str(error), icon=":material/error:")


def _draw_filters(names: Sequence[str]) -> tuple[str, str | None]:
    title, window, cluster = st.columns([4, 3, 2], vertical_alignment="bottom")
    title.title("Cost", anchor=False)
    chosen = window.segmented_control(
        "Window", list(_WINDOWS), default="7d", required=True, key="window", bind="query-params",
        help="The page looks back this far from the newest row that was collected.",
    )  # fmt: skip
    place = cluster.selectbox(
        "Cluster", [_ALL, *names], key="cluster", bind="query-params",
        format_func=lambda name: "All clusters" if name == _ALL else name,
    )  # fmt: skip
    return chosen, None if place == _ALL else place


def _draw_numbers(whole: Whole) -> None:
    def usd(*names: str) -> Decimal | None:
        known = [whole.usd[name] for name in names if whole.usd.get(name) is not None]
        told = any(name in whole.usd for name in names)
        return sum((amount for amount in known if amount is not None), Decimal(0)) if known or not told else None

    def hours(*names: str) -> str:
        return f"{words.count(round(sum(whole.gpu_hours.get(name, 0.0) for name in names)))} GPU-h"

    unpriced = whole.unpriced_gpu_hours
    below = hours(*whole.gpu_hours) + (f", {words.count(round(unpriced))} unpriced" if unpriced > 0 else "")
    with st.grid(4, gap="small", min_column_width=220):
        draw_number("Bill", words.money(whole.total_usd), below, explain.BILL)
        draw_number("Used", words.money(usd("used")), hours("used"), explain.USED_COST)
        draw_number("Held while idle", words.money(usd("allocated_idle")), hours("allocated_idle"), explain.IDLE_COST)
        draw_number("Nobody's", words.money(usd(*_NOBODYS)), hours(*_NOBODYS), explain.NOBODYS_COST)


def _draw_bills(desk: Desk, scope: Scope) -> None:
    draw_heading("Who pays", explain.CHARGEBACK)
    with st.grid(4, gap="small", min_column_width=200):
        word = st.selectbox("By", list(_VIEWS), key="by", bind="query-params")
        by = _VIEWS[word]
        label = st.text_input("Label", value="app", key="label", disabled=by != "label", bind="query-params")
        chosen = st.segmented_control(
            "What nobody held", list(_SHARES), default="Apart", required=True, key="share", bind="query-params",
            help="Shown apart, or paid by the holders: in proportion to their cost, or each the same.",
        )  # fmt: skip
        is_by_node = st.toggle(
            "Within each node", key="node", disabled=chosen == "Apart",
            help="What nobody held of a node is paid by the holders of that node only.",
        )  # fmt: skip
    key = f"label:{label}" if by == "label" else by
    found = find_bills(desk.engine, scope, (key,), _SHARES[chosen], is_by_node=is_by_node)
    frame = bill_frame(found, (key,))
    _draw_table(frame, key)
    with st.container(horizontal=True):
        _draw_downloads(scope, found, key, _SHARES[chosen])
    if key in _EXPLAINED:
        _draw_explanation(desk, scope, key, found)


def _draw_downloads(scope: Scope, found: Sequence[Bill], key: str, share_idle: ShareIdle) -> None:
    st.download_button(
        "CSV", lambda: bill_frame(found, (key,)).write_csv(), "cost.csv", "text/csv", icon=":material/download:",
        on_click="ignore", key="csv",
    )  # fmt: skip
    st.download_button(
        "FOCUS", lambda: _focus_of(scope, share_idle), "focus.csv", "text/csv", icon=":material/download:",
        on_click="ignore", key="focus", help="FOCUS 1.2, with the split-allocation columns of 1.3",
    )  # fmt: skip


def _focus_of(scope: Scope, share_idle: ShareIdle) -> str:
    with current() as desk:
        return focus_csv(desk.engine, scope, share_idle)


def _draw_table(frame: pl.DataFrame, key: str) -> None:
    money = [name for name in frame.columns if name.endswith("_usd")]
    columns: dict[str, str | ColumnConfig] = {
        key: key.removeprefix("label:").capitalize(),
        "gpu_hours": NumberColumn("GPU-hours", format="%,.1f"),
        "used_usd": NumberColumn("Used", format="$%,.2f"),
        "allocated_idle_usd": NumberColumn("Held, idle", format="$%,.2f"),
        "own_usd": NumberColumn("Own", format="$%,.2f"),
        "shared_usd": NumberColumn("Shared", format="$%,.2f"),
        "total_usd": NumberColumn("Total", format="$%,.2f"),
        "efficiency": ProgressColumn("Efficiency", min_value=0.0, max_value=1.0, format="percent"),
        "unpriced_gpu_hours": NumberColumn("Unpriced hours", format="%,.1f"),
    }
    st.dataframe(
        frame.with_columns(pl.col(money).cast(pl.Float64)), column_config=columns, hide_index=True, placeholder="-",
        key="bills", alt="What each name pays",
    )  # fmt: skip


def _draw_explanation(desk: Desk, scope: Scope, key: str, found: Sequence[Bill]) -> None:
    names = [bill.names[0] for bill in found]
    if not names:
        return
    with st.expander("Explain a number"):
        name = st.selectbox("Whose", names, key="explained")
        parts = explain_bill(desk.engine, scope, key, name)
        total = parts["cost_usd"].drop_nulls()
        sum_words = words.money(Decimal(str(total.sum()))) if len(total) else words.UNPRICED
        count = words.count(int(parts["lines"].sum()))
        st.markdown(
            f"**{words.in_markdown(name)}**: {count} lines of the ledger, {sum_words}. "
            "A line is GPU-seconds / 3600 * rate; odd micro-dollars go to the largest remainders of its GPU and hour."
        )
        st.dataframe(
            _plain(parts), hide_index=True, placeholder="-", key="parts", alt="The number by category and rate"
        )
        st.caption("Its largest lines")
        lines = find_lines(desk.engine, scope, key, name)
        st.dataframe(_plain(lines), hide_index=True, placeholder="-", key="lines", alt="The largest lines")


def _plain(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.col(pl.Decimal).cast(pl.Float64))


def _draw_budgets(desk: Desk, scope: Scope) -> None:
    draw_heading("Budgets", explain.BUDGETS)
    standings = find_budgets(desk.engine, min(desk.clock.now(), scope.until))
    if not standings:
        st.caption("No budget is set: `steward cost budget WORKSPACE --usd 1000 --at-limit notify`.")
        return
    rows = [
        {"workspace": each.budget.workspace, "share": each.share, "spent": words.money(each.spent.usd),
         "budget": "-" if each.budget.usd is None else words.money(each.budget.usd),
         "gpu_hours": each.spent.gpu_hours, "expected_share": each.expected_share, "basis": each.basis,
         "action": words.plain(each.action)}
        for each in standings
    ]  # fmt: skip
    st.dataframe(
        pl.DataFrame(rows, infer_schema_length=None),
        column_config={
            "workspace": "Workspace",
            "share": ProgressColumn("Spent of it", min_value=0.0, max_value=1.0, format="percent"),
            "spent": "Spent",
            "budget": "A month",
            "gpu_hours": NumberColumn("GPU-hours", format="%,.0f"),
            "expected_share": NumberColumn("Expected at the month's end", format="percent"),
            "basis": "Expected by",
            "action": "What follows",
        },
        hide_index=True, placeholder="-", key="budgets", alt="Budgets of this month",
    )  # fmt: skip


draw()
