"""Coverage as a figure: a row per node, a column per hour, the fuller the bluer."""

import polars as pl

from dashboards.charts import Figure

_NONE, _ALL = "#d1495b", "#3d7ea6"


def coverage_heat(cells: pl.DataFrame) -> Figure:
    """Return the heat of `find_heat`: hours from left to right, nodes from top to bottom; null is left blank."""
    named = cells.with_columns(name=pl.concat_str("cluster", "node", separator="/"))
    hours = named.get_column("hour_at").unique().sort()
    nodes = named.get_column("name").unique().sort(descending=True)
    place_of = {moment: place for place, moment in enumerate(hours)}
    row_of = {name: row for row, name in enumerate(nodes)}
    points = [
        [place_of[moment], row_of[name], round(ratio, 4)]
        for moment, name, ratio in named.select("hour_at", "name", "ratio").iter_rows()
        if ratio is not None
    ]
    return {
        "grid": {"left": 8, "right": 16, "top": 8, "bottom": 56, "containLabel": True},
        "tooltip": {"trigger": "item"},
        "xAxis": {"type": "category", "data": [f"{moment:%d %b %H:%M}" for moment in hours]},
        "yAxis": {"type": "category", "data": nodes.to_list()},
        "visualMap": {
            "min": 0, "max": 1, "precision": 2, "orient": "horizontal", "left": "center", "bottom": 0,
            "inRange": {"color": [_NONE, "#e9a23b", _ALL]}, "text": ["all", "none"],
        },
        "series": [{"type": "heatmap", "name": "coverage", "data": points}],
    }  # fmt: skip
