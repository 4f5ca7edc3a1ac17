"""Where did the money go: from the bill down to the rows behind one number (jupytext, percent format)."""

# %% [markdown]
# # Where did the money go?
#
# A walk from the bill down to the rows behind one number. It reads a store file (`GPU_STEWARD_STORE`, else
# `steward.duckdb` here); while `steward serve` owns that file, work on an export of it.

# %%
import os
from datetime import timedelta
from pathlib import Path

import polars as pl

from analytics.chargeback import bills
from analytics.cost_views import spend, tidy
from analytics.focus import Account, focus, focus_lines
from analytics.focus_check import focus_faults
from fleet.clock import SystemClock
from store.store import Store

store = Store.open(Path(os.environ.get("GPU_STEWARD_STORE", "steward.duckdb")), clock=SystemClock())
engine = store.engine
lines = engine.table("cost_line")

# %% [markdown]
# ## The window
# The week that ends where the ledger ends.

# %%
until = engine.run(lines.aggregate(end=lines.ends_at.max())).item()
since = until - timedelta(days=7)
print(since, until)

# %% [markdown]
# ## The bill by category
# Every GPU-second and every dollar stands in exactly one category, so this column sums to the bill. A null is not
# zero: it has no price.

# %%
by_category = tidy(engine.run(spend(engine, since, until, ["category"])), ["category"])
bill = by_category["cost_usd"].sum()
print(by_category)
print("bill", bill)

# %% [markdown]
# ## Who pays, with what nobody held shared by cost
# The bills sum to the ledger to the micro-dollar, whatever is shared.

# %%
keys = ["workspace", "cluster"]
rows = tidy(engine.run(spend(engine, since, until, keys)), keys)
shared = bills(rows, ["workspace"], "weighted")
table = pl.DataFrame(
    {
        "workspace": [each.names[0] for each in shared],
        "own_usd": [each.own_usd for each in shared],
        "shared_usd": [each.shared_usd for each in shared],
        "total_usd": [each.total_usd for each in shared],
        "efficiency": [each.efficiency for each in shared],
    }
)
print(table)
print("sums to the bill:", table["total_usd"].sum() == bill)

# %% [markdown]
# ## The most expensive idle hours, down to the rows

# %%
idle = lines.filter(lines.category == "allocated_idle", lines.starts_at >= since)
worst = engine.run(
    idle.group_by("workspace", "workload")
    .aggregate(usd=idle.cost_usd.sum(), gpu_hours=idle.gpu_seconds.sum() / 3600.0)
    .order_by("usd")
).sort("usd", descending=True, nulls_last=True)
print(worst.head(10))

# %%
if worst.height:
    name = worst["workload"][0]
    print(engine.run(lines.filter(lines.workload == name).order_by(lines.starts_at).limit(20)))

# %% [markdown]
# ## What was corrected, and when

# %%
corrected = lines.filter(lines.adjustment > 0)
print(
    engine.run(
        corrected.group_by("booked_at", "adjustment").aggregate(lines=corrected.count(), usd=corrected.cost_usd.sum())
    )
)

# %% [markdown]
# ## The same week as FOCUS

# %%
dataset = focus(engine.run(focus_lines(engine, since, until)), Account(), "weighted")
print("faults:", focus_faults(dataset), "sums to the bill:", dataset["EffectiveCost"].sum() == bill)
print(dataset.group_by("ChargeCategory", "x_Category").agg(pl.col("EffectiveCost").sum()))

# %%
store.close()
