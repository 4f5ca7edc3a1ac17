"""Frames become figures: each function returns the option object of an ECharts chart, data by column.

The colours are mid-tones that carry on white and on near-black alike; text, axes and grid take the page's theme.
"""

from collections.abc import Sequence

import polars as pl

Figure = dict[str, object]

CATEGORY_COLOURS = {
    "used": "#2a9d8f",
    "allocated_idle": "#e9a23b",
    "unknown": "#a594c9",
    "unattributed": "#7b6d8d",
    "unallocated": "#8d99ae",
    "fragmentation": "#b08968",
    "unhealthy": "#d1495b",
    "overhead": "#5c7c8a",
}
CATEGORY_NAMES = {
    "used": "used",
    "allocated_idle": "held, idle",
    "unknown": "unknown",
    "unattributed": "nobody's work",
    "unallocated": "not held",
    "fragmentation": "fragments",
    "unhealthy": "unhealthy",
    "overhead": "overhead",
}
_BLUE, _AMBER, _GREY, _VIOLET = "#3d7ea6", "#e9a23b", "#8d99ae", "#8a79c4"
_SHADES = ("#8d99ae", "#6c93ad", "#4d89aa", "#3d7ea6")
_LEGEND = {"top": 0, "left": 0, "icon": "roundRect", "itemWidth": 12, "itemHeight": 12}
# One template per level of a time axis: a day that begins is told with its month.
_TIMES = {
    "year": "{d} {MMM} {yyyy}",
    "month": "{d} {MMM}",
    "day": "{d} {MMM}",
    "hour": "{HH}:{mm}",
    "minute": "{HH}:{mm}",
}
_GRID = {"left": 8, "right": 16, "top": 40, "bottom": 8, "containLabel": True}


def funnel(steps: Sequence[tuple[str, int | None]]) -> Figure:
    """Return horizontal bars from the whole fleet down; a step that is not known has no bar but its word."""
    known = [value for _, value in steps if value is not None]
    bars = [
        {
            "value": value,
            "label": {"show": True, "formatter": "unknown" if value is None else f"{value:,}", "position": "right"},
            "itemStyle": {"color": _SHADES[min(place, len(_SHADES) - 1)]},
        }
        for place, (_, value) in enumerate(steps)
    ]
    return {
        "grid": {**_GRID, "top": 8, "right": 56},
        "xAxis": {"type": "value", "show": False, "max": max(known, default=1)},
        "yAxis": {
            "type": "category",
            "inverse": True,
            "data": [name if value is not None else f"{name}: unknown" for name, value in steps],
            "axisLine": {"show": False},
            "axisTick": {"show": False},
        },
        "tooltip": {"show": False},
        "series": [{"type": "bar", "data": bars, "barWidth": "56%", "itemStyle": {"borderRadius": 3}}],
    }


def costs(amounts: pl.DataFrame, measure: str) -> Figure:
    """Return stacked bars over time by category; `amounts` has ts, category and the measure (cost_usd or gpu_hours)."""
    wide = amounts.select("ts", "category", pl.col(measure).cast(pl.Float64)).pivot(
        on="category", index="ts", values=measure
    )
    wide = wide.sort("ts").with_columns(pl.col("ts").dt.strftime(_label(wide)))
    present = [name for name in CATEGORY_COLOURS if name in wide.columns]
    return {
        "dataset": {"source": wide.rename({name: CATEGORY_NAMES[name] for name in present})},
        "grid": _GRID,
        # One line that can be leafed through: a second one would lie on the bars.
        "legend": {**_LEGEND, "type": "scroll"},
        "tooltip": {"trigger": "axis", "valueFormatter": "dollar" if measure == "cost_usd" else "%,.0f GPU-hours"},
        "xAxis": {"type": "category", "axisTick": {"show": False}},
        "yAxis": {
            "type": "value",
            "axisLabel": {"formatter": "${value}" if measure == "cost_usd" else "{value} h"},
            "splitNumber": 4,
        },
        "series": [
            {
                "type": "bar",
                "stack": "all",
                "name": CATEGORY_NAMES[name],
                "encode": {"x": "ts", "y": CATEGORY_NAMES[name]},
                "itemStyle": {"color": CATEGORY_COLOURS[name]},
                "barCategoryGap": "28%",
            }
            for name in present
        ],
    }


def demand(history: pl.DataFrame, forecast: pl.DataFrame) -> Figure:
    """Return running and waiting GPUs stacked under the capacity, and the forecast with its 80 % band.

    `history` has ts, running_gpus, pending_gpus, capacity_gpus; `forecast` is in the table's form. Nulls are gaps.
    """
    past = history.select(
        "ts",
        pl.col("running_gpus").alias("running"),
        pl.col("pending_gpus").alias("waiting"),
        pl.col("capacity_gpus").alias("capacity"),
    )
    future = forecast.select(
        "ts",
        pl.col("gpus").alias("forecast"),
        pl.col("gpus_lower_80").alias("low"),
        (pl.col("gpus_upper_80") - pl.col("gpus_lower_80")).alias("80 % band"),
    )
    shown = [
        _area("running", _BLUE, 0.55, 0, "past"),
        _area("waiting", _AMBER, 0.55, 0, "past"),
        _line("capacity", 0, _GREY, "solid"),
    ]
    if not future.is_empty():
        shown += [
            _area("low", _VIOLET, 0.0, 1, "band"),
            _area("80 % band", _VIOLET, 0.25, 1, "band"),
            _line("forecast", 1, _VIOLET, "dashed"),
        ]
    return {
        "dataset": [{"source": past}, {"source": future}],
        "grid": {**_GRID, "right": 24},
        "legend": {**_LEGEND, "data": [each["name"] for each in shown if each["name"] != "low"]},
        "tooltip": {"trigger": "axis", "valueFormatter": "%,.0f GPUs"},
        "xAxis": {"type": "time", "splitLine": {"show": False}, "axisLabel": {"formatter": _TIMES}},
        "yAxis": {"type": "value", "splitNumber": 4, "min": 0, "axisLabel": {"formatter": "{value} GPUs"}},
        "series": shown,
    }


def _area(name: str, colour: str, opacity: float, dataset: int, stack: str) -> Figure:
    is_helper = name == "low"
    return {
        "type": "line",
        "name": name,
        "datasetIndex": dataset,
        "stack": stack,
        "encode": {"x": "ts", "y": name},
        "showSymbol": False,
        "connectNulls": False,
        "lineStyle": {"width": 0},
        "itemStyle": {"color": colour},
        "areaStyle": {"opacity": opacity, "color": colour},
        "tooltip": {"show": not is_helper},
        "silent": is_helper,
        "emphasis": {"disabled": True},
    }


def _line(name: str, dataset: int, colour: str, dash: str) -> Figure:
    return {
        "type": "line",
        "name": name,
        "datasetIndex": dataset,
        "encode": {"x": "ts", "y": name},
        "showSymbol": False,
        "connectNulls": False,
        "step": "end" if name == "capacity" else False,
        "lineStyle": {"color": colour, "type": dash, "width": 2},
        "itemStyle": {"color": colour},
        "emphasis": {"disabled": True},
    }


def _label(wide: pl.DataFrame) -> str:
    is_daily = wide["ts"].dt.hour().n_unique() <= 1 and wide.height != 1
    return "%d %b" if is_daily else "%d %b %H:%M"
