"""Figures of use: the heat-map of nodes by hour, and the funnel in GPU-hours."""

from collections.abc import Sequence

import polars as pl

from dashboards.charts import Figure

_COLOURS = ("#e8eef2", "#9fc5d8", "#3d7ea6", "#1c4b69")
_LOSS, _STEP = "#e9a23b", "#3d7ea6"


def heat(cells: pl.DataFrame) -> Figure:
    """Return a heat-map of `cells` (node, hour_at, activity as a ratio); a null has no cell: a gap is shown."""
    nodes = cells["node"].unique().sort().to_list()
    hours = cells["hour_at"].unique().sort()
    labels = hours.dt.strftime("%d %b %H:%M").to_list()
    row = {node: place for place, node in enumerate(nodes)}
    column = {hour: place for place, hour in enumerate(hours.to_list())}
    known = cells.filter(pl.col("activity").is_not_null())
    data = [
        [column[hour], row[node], round(100 * activity, 1)]
        for node, hour, activity in known.select("node", "hour_at", "activity").iter_rows()
    ]
    return {
        "grid": {"left": 8, "right": 16, "top": 8, "bottom": 48, "containLabel": True},
        "tooltip": {"valueFormatter": "%.1f %%"},
        "xAxis": {"type": "category", "data": labels, "axisTick": {"show": False}},
        "yAxis": {"type": "category", "data": nodes, "inverse": True, "axisTick": {"show": False}},
        "visualMap": {
            "min": 0, "max": 100, "orient": "horizontal", "left": "center", "bottom": 0, "itemHeight": 120,
            "text": ["100 %", "0 %"], "inRange": {"color": list(_COLOURS)},
        },
        "series": [{"type": "heatmap", "name": "mean activity", "data": data, "progressive": 0}],
    }  # fmt: skip


def hours_funnel(steps: Sequence[tuple[str, float | None]], losses: Sequence[tuple[str, float | None]]) -> Figure:
    """Return bars of GPU-hours from the whole down: each step beside what is lost after it; unknown has no bar."""
    names = [name if value is not None else f"{name}: unknown" for name, value in steps]
    lost = [*losses, ("", None)]
    return {
        "grid": {"left": 8, "right": 64, "top": 8, "bottom": 8, "containLabel": True},
        "tooltip": {"trigger": "axis", "axisPointer": {"type": "none"}, "valueFormatter": "%,.0f GPU-hours"},
        "xAxis": {"type": "value", "show": False},
        "yAxis": {"type": "category", "inverse": True, "data": names, "axisTick": {"show": False}},
        "series": [
            {
                "type": "bar", "stack": "all", "name": "left", "barWidth": "62%", "itemStyle": {"color": _STEP},
                "data": [_left(value, loss) for (_, value), (_, loss) in zip(steps, lost, strict=True)],
            },
            {
                "type": "bar", "stack": "all", "name": "lost next", "itemStyle": {"color": _LOSS},
                "data": [
                    {"value": loss, "label": {"show": bool(name) and loss is not None and loss > 0,
                     "position": "right", "formatter": f"{name} {loss:,.0f}" if loss is not None else ""}}
                    for name, loss in lost
                ],
            },
        ],
    }  # fmt: skip


def _left(value: float | None, loss: float | None) -> float | None:
    if value is None or loss is None:
        return value
    return value - loss
