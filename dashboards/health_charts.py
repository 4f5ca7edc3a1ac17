"""Figures of health: the fleet as a map of states, and what the drivers said over time."""

import polars as pl

from dashboards.charts import Figure
from dashboards.health_questions import STATES

COLOURS = {
    "failed": "#8f1d2c", "failing": "#d1495b", "degraded": "#e9a23b", "unknown": "#a594c9", "probation": "#3d7ea6",
    "healthy": "#2a9d8f",
}  # fmt: skip


def fleet_map(states: pl.DataFrame, nodes_shown: int) -> Figure:
    """Return a cell a GPU: nodes across, GPUs of the node up; nodes with the worst GPUs first where not all fit."""
    place = {state: number for number, state in enumerate(STATES)}
    worst = pl.col("state").replace_strict(place, default=len(place), return_dtype=pl.Int32)
    ranked = states.with_columns(worst=worst)
    chosen = (
        ranked.group_by("cluster", "node").agg(pl.col("worst").min()).sort("worst", "cluster", "node").head(nodes_shown)
    )
    shown = ranked.join(chosen.select("cluster", "node"), on=["cluster", "node"], how="semi").sort(
        "cluster", "node", "gpu_index", "uuid", nulls_last=True
    )
    shown = shown.with_columns(row=pl.int_range(pl.len()).over("cluster", "node"))
    names = chosen.sort("cluster", "node").select(pl.format("{}/{}", "cluster", "node")).to_series().to_list()
    column = {name: number for number, name in enumerate(names)}
    return {
        "grid": {"left": 8, "right": 16, "top": 40, "bottom": 8, "containLabel": True},
        "legend": {"top": 0, "left": 0, "icon": "roundRect", "itemWidth": 12, "itemHeight": 12},
        "tooltip": {"formatter": "{b}"},
        "xAxis": {"type": "category", "data": names, "axisLabel": {"show": False}, "axisTick": {"show": False}},
        "yAxis": {"type": "value", "show": False, "min": -0.5, "max": 0.5 + _max(shown)},
        "series": [
            {
                "type": "scatter",
                "name": state,
                "symbol": "rect",
                "symbolSize": 12 if len(names) <= _FEW_NODES else 5,
                "itemStyle": {"color": COLOURS[state]},
                "data": [
                    {
                        "value": [column[f"{row['cluster']}/{row['node']}"], row["row"]],
                        "name": f"{row['node']}: {row['uuid']}, {state}",
                    }
                    for row in shown.filter(pl.col("state") == state).iter_rows(named=True)
                ],
            }
            for state in STATES
        ],
    }


def event_timeline(events: pl.DataFrame) -> Figure:
    """Return a dot for each hour and kind of event, larger the more of them; rare kinds have lines of their own."""
    names = events.get_column("name").unique().sort(descending=True).to_list()
    return {
        "grid": {"left": 8, "right": 24, "top": 8, "bottom": 8, "containLabel": True},
        "tooltip": {"formatter": "{b}"},
        "xAxis": {"type": "time", "splitLine": {"show": True}},
        "yAxis": {"type": "category", "data": names, "axisTick": {"show": False}},
        "series": [
            {
                "type": "scatter",
                "itemStyle": {"color": "#d1495b", "opacity": 0.75},
                "data": [
                    {
                        "value": [row["ts"].isoformat(), row["name"]],
                        "symbolSize": min(6 + 4 * len(str(row["events"])), 26),
                        "name": f"{row['ts']:%d %b %H:00} UTC: {row['name']}, {row['events']:,} on {row['gpus']} GPUs",
                    }
                    for row in events.iter_rows(named=True)
                ],
            }
        ],
    }


_FEW_NODES = 80


def _max(shown: pl.DataFrame) -> int:
    rows = shown.get_column("row").max()
    return rows if isinstance(rows, int) else 0
