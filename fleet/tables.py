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
    QUEUE,
    QUOTA,
    REQUEST,
    WORKSPACE,
    WORKSPACE_MEMBER,
)
from fleet.money_tables import BUDGET, CHARGE, COST_DAY, COST_LINE, COST_MONTH, WORK_DONE
from fleet.record_tables import (
    APPROVAL,
    FORECAST,
    MOVE,
    OUTCOME,
    PLAN,
    RISK,
    SOURCE_FAILURE,
    SOURCE_GPU,
    VERDICT,
    WATERMARK,
)
from fleet.telemetry_tables import EVENT, GPU, GPU_HOUR, GPU_SAMPLE, SLICE, SLICE_SAMPLE

__all__ = [
    "APPROVAL",
    "BUDGET",
    "CHARGE",
    "CLUSTER",
    "COST_DAY",
    "COST_LINE",
    "COST_MONTH",
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
    "QUEUE",
    "QUOTA",
    "REQUEST",
    "RISK",
    "SLICE",
    "SLICE_SAMPLE",
    "SOURCE_FAILURE",
    "SOURCE_GPU",
    "TABLES",
    "VERDICT",
    "WATERMARK",
    "WORKSPACE",
    "WORKSPACE_MEMBER",
    "WORK_DONE",
]

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        CLUSTER, NODE, NODE_POOL, GPU, SLICE, GPU_SAMPLE, SLICE_SAMPLE, GPU_HOUR, EVENT, POD, HOLDER, POD_ALLOCATION,
        WORKSPACE, WORKSPACE_MEMBER, QUOTA, QUEUE, REQUEST, PRICE, JOB, DEMAND_SAMPLE, VERDICT, RISK, FORECAST,
        FORECAST_SCORE, EXHAUSTION, COST_LINE, COST_DAY, COST_MONTH, BUDGET, CHARGE, WORK_DONE, PLAN, MOVE, OUTCOME,
        APPROVAL, WATERMARK, SOURCE_FAILURE, SOURCE_GPU,
    )
}  # fmt: skip
