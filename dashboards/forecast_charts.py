"""The forecast as a figure: what was wanted, what there is, and the bands of what will be."""

import polars as pl

from dashboards.charts import Figure

_BLUE, _AMBER, _GREY, _VIOLET = "#3d7ea6", "#e9a23b", "#8d99ae", "#8a79c4"
_LEGEND = {"top": 0, "left": 0, "icon": "roundRect", "itemWidth": 12, "itemHeight": 12}
_TIMES = {"year": "{d} {MMM} {yyyy}", "month": "{d} {MMM}", "day": "{d} {MMM}", "hour": "{HH}:{mm}"}


def bands(history: pl.DataFrame, forecast: pl.DataFrame) -> Figure:
    """Return running and waiting GPUs stacked, the capacity, and the median with its 80 % and 95 % bands."""
    past = history.select("ts", running="running_gpus", waiting="pending_gpus", capacity="capacity_gpus")
    future = forecast.select(
        "ts",
        pl.col("gpus").alias("forecast"),
        pl.col("gpus_lower_95").alias("low 95"),
        (pl.col("gpus_upper_95") - pl.col("gpus_lower_95")).alias("95 % band"),
        pl.col("gpus_lower_80").alias("low 80"),
        (pl.col("gpus_upper_80") - pl.col("gpus_lower_80")).alias("80 % band"),
    )
    shown = [
        _area("running", _BLUE, 0.55, 0, "past"), _area("waiting", _AMBER, 0.55, 0, "past"),
        _line("capacity", 0, _GREY, "solid"),
        _area("low 95", _VIOLET, 0.0, 1, "wide"), _area("95 % band", _VIOLET, 0.12, 1, "wide"),
        _area("low 80", _VIOLET, 0.0, 1, "narrow"), _area("80 % band", _VIOLET, 0.25, 1, "narrow"),
        _line("forecast", 1, _VIOLET, "dashed"),
    ]  # fmt: skip
    return {
        "dataset": [{"source": past}, {"source": future}],
        "grid": {"left": 8, "right": 24, "top": 40, "bottom": 8, "containLabel": True},
        "legend": {**_LEGEND, "data": [each["name"] for each in shown if not str(each["name"]).startswith("low")]},
        "tooltip": {"trigger": "axis", "valueFormatter": "%,.0f GPUs"},
        "xAxis": {"type": "time", "splitLine": {"show": False}, "axisLabel": {"formatter": _TIMES}},
        "yAxis": {"type": "value", "splitNumber": 4, "min": 0, "axisLabel": {"formatter": "{value} GPUs"}},
        "series": shown,
    }


def _area(name: str, colour: str, opacity: float, dataset: int, stack: str) -> Figure:
    is_helper = name.startswith("low")
    return {
        "type": "line", "name": name, "datasetIndex": dataset, "stack": stack, "encode": {"x": "ts", "y": name},
        "showSymbol": False, "connectNulls": False, "lineStyle": {"width": 0}, "itemStyle": {"color": colour},
        "areaStyle": {"opacity": opacity, "color": colour}, "tooltip": {"show": not is_helper}, "silent": is_helper,
        "emphasis": {"disabled": True},
    }  # fmt: skip


def _line(name: str, dataset: int, colour: str, dash: str) -> Figure:
    return {
        "type": "line", "name": name, "datasetIndex": dataset, "encode": {"x": "ts", "y": name}, "showSymbol": False,
        "connectNulls": False, "lineStyle": {"color": colour, "type": dash, "width": 2}, "itemStyle": {"color": colour},
        "emphasis": {"disabled": True},
    }  # fmt: skip
