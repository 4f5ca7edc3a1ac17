"""Every table of the house: what the rooms hand each other and what the store keeps.

Units stand in the names. Ratios are 0..1, times aware UTC microseconds, intervals `[starts_at, ends_at)` with
null for "still open", money DECIMAL(18,6) US dollars. A column that is not `required` may be null, and null
means "not measured", never zero.
"""

from fleet.forecast_tables import EXHAUSTION, FORECAST_SCORE
from fleet.frames import Table
from fleet.inventory_tables import (
    CLUSTER,
    DEMAND_SAMPLE,
    HOLDER,
    JOB,
    NODE,
    NODE_POOL,
    POD,
    POD_ALLOCATION,
    PRICE,
    QUOTA,
    REQUEST,
    WORKSPACE,
    WORKSPACE_MEMBER,
)
from fleet.record_tables import COST_LINE, FORECAST, MOVE, OUTCOME, PLAN, SOURCE_FAILURE, VERDICT, WATERMARK
from fleet.telemetry_tables import EVENT, GPU, GPU_HOUR, GPU_SAMPLE, SLICE, SLICE_SAMPLE

__all__ = [
    "CLUSTER",
    "COST_LINE",
    "DEMAND_SAMPLE",
    "EVENT",
    "EXHAUSTION",
    "FORECAST",
    "FORECAST_SCORE",
    "GPU",
    "GPU_HOUR",
    "GPU_SAMPLE",
    "HOLDER",
    "JOB",
    "MOVE",
    "NODE",
    "NODE_POOL",
    "OUTCOME",
    "PLAN",
    "POD",
    "POD_ALLOCATION",
    "PRICE",
    "QUOTA",
    "REQUEST",
    "SLICE",
    "SLICE_SAMPLE",
    "SOURCE_FAILURE",
    "TABLES",
    "VERDICT",
    "WATERMARK",
    "WORKSPACE",
    "WORKSPACE_MEMBER",
]

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        CLUSTER, NODE, NODE_POOL, GPU, SLICE, GPU_SAMPLE, SLICE_SAMPLE, GPU_HOUR, EVENT, POD, HOLDER,
        POD_ALLOCATION, WORKSPACE, WORKSPACE_MEMBER, QUOTA, REQUEST, PRICE, JOB, DEMAND_SAMPLE, VERDICT, FORECAST,
        FORECAST_SCORE, EXHAUSTION,
        COST_LINE, PLAN, MOVE, OUTCOME, WATERMARK, SOURCE_FAILURE,
    )
}  # fmt: skip
