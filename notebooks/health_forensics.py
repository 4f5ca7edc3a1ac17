"""Health forensics: a notebook in cells (jupytext, percent format)."""

# %% [markdown]
# # Health forensics
#
# What happened to a GPU, what came before it, and who is likely to be next. The cells work on a small simulated fleet;
# to look at your own, open its store instead (`Store.open(path, clock=SystemClock())`), or a copy of it while a server
# owns it.

# %%
from datetime import timedelta
from decimal import Decimal

import polars as pl

from analytics.fault_history import history_events
from fleet.clock import FixedClock
from simulator.source import SimulatorSource
from simulator.spec_file import spec_from
from simulator.step import build
from steward.config import load_settings
from steward.health_turn import judge_fleet_health
from store.store import Store

GPUS, DAYS = 48, 1.0
world = build(spec_from({"preset": "default", "gpus": GPUS, "days": DAYS, "seed": 11}, "notebook"))
NOW = world.spec.starts_at + timedelta(days=DAYS)
store = Store.open(None, clock=FixedClock(NOW))
for batch in SimulatorSource(world).collect(None, NOW):
    store.append(batch)

# %% [markdown]
# ## The state of the fleet, and why

# %%
settings = load_settings(None, {})
no_prices: dict[str, Decimal] = {}
turned = judge_fleet_health(store.engine, settings, no_prices, NOW)
verdicts = pl.DataFrame(
    [
        {"kind": v.subject_kind, "subject": v.subject, "state": v.state, "rule": v.rule, "action": v.action}
        for v in turned.verdicts
    ]
)
print(verdicts.group_by("kind", "state").len().sort("kind", "state"))
print(verdicts.filter(~pl.col("state").is_in(["healthy", "unknown"])))

# %% [markdown]
# ## The record: faults and repairs in order

# %%
history = store.engine.run(history_events(store.engine, NOW, 30)).sort("ts")
print(history.select("ts", "node", "gpu_uuid", "kind", "code", "count"))

# %% [markdown]
# ## The last hour before a fault
#
# Power, temperature and clocks of the first GPU that a fault names, up to that moment: where they show nothing, the
# fault gave no warning.

# %%
named = history.filter(pl.col("gpu_uuid").is_not_null())
if not named.is_empty():
    uuid, ts = named.select("gpu_uuid", "ts").row(0)
    gpu, sample = store.engine.table("gpu"), store.engine.table("gpu_sample")
    before = sample.join(gpu.filter(gpu.uuid == uuid).select("gpu"), "gpu")
    before = before.filter(before.ts >= ts - timedelta(hours=1), before.ts < ts)
    print(store.engine.run(before.select("ts", "power_w", "temperature_c", "sm_clock_mhz", "sm_activity")).sort("ts"))

# %% [markdown]
# ## Who is next
#
# Risk within 7 days, beside that of any GPU of the fleet. What it was learnt from stands in `basis`.

# %%
risk = turned.risk.sort("risk_7d", descending=True)
print(risk.select("subject_kind", "subject", "risk_7d", "base_7d", "fault_count", "basis").head(10))

# %%
store.close()
