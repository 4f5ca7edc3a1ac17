"""Try policies on the recorded past (open as a notebook with jupytext, format py:percent)."""

# %% [markdown]
# # Policy replay
#
# How long should a workload idle before it is stopped? Replay several answers over the past and look at what each would
# have freed and whom it would have hurt. Set `GPU_STEWARD_STORE` to a store of yours; without one, a small fleet is
# simulated. Nothing is changed.

# %%
import os
from datetime import timedelta
from pathlib import Path

import polars as pl

from fleet.clock import FixedClock
from simulator.presets import notebook_heavy_spec
from simulator.source import SimulatorSource
from simulator.step import build
from steward.compose import House, load_prices
from steward.config import load_settings
from steward.cycle import collect
from steward.moments import newest_moment
from steward.policy_file import candidate_of
from steward.policy_replay import Stretch, read_past, replay_policies
from steward.policy_report import Limits, is_wrong, reckon, side_by_side
from steward.policy_verdicts import Wanted
from store.store import Store

STORE = os.environ.get("GPU_STEWARD_STORE")
IDLE_HOURS = (1, 4)
HOURS_BACK = int(os.environ.get("REPLAY_HOURS", "8"))


# %%
def simulated() -> Store:
    """Return a store that saw a small fleet of notebooks for most of a day."""
    spec = notebook_heavy_spec(48, 1.0)
    clock = FixedClock(spec.starts_at + timedelta(hours=18))
    store = Store.open(None, clock=clock)
    settings = load_settings(None, {})
    load_prices(settings, store)
    collect(House(settings, store, clock, (SimulatorSource(build(spec)),)), clock.now())
    store.roll_up(spec.starts_at, clock.now())
    return store


settings = load_settings(None, {})
clock = FixedClock(notebook_heavy_spec(48, 1.0).starts_at)
store = simulated() if STORE is None else Store.open(Path(STORE), clock=clock)
data_until = newest_moment(House(settings, store, clock))
if data_until is None:
    message = "the store is empty: `steward demo` fills one"
    raise SystemExit(message)

# %% [markdown]
# ## The policies
# Each is the part of a `steward.toml` that it changes.

# %%
policies = {f"{hours} h": f"[actions.reclaim]\nmin_idle_h = {hours}\n" for hours in IDLE_HOURS}
end = data_until.replace(minute=0, second=0, microsecond=0) - timedelta(hours=4)
past = read_past(
    store,
    settings,
    Stretch(end - timedelta(hours=HOURS_BACK), end, timedelta(hours=4)),
    data_until + timedelta(seconds=1),
)
wanted = Wanted(health_every=timedelta(days=1))
runs = replay_policies(store, past, [candidate_of(name, text, settings, wanted) for name, text in policies.items()])

# %% [markdown]
# ## Side by side
# All policies were judged once, since they differ in what is done and not in what is idle.

# %%
limits = Limits()
worths = [reckon(store, past, run) for run in runs]
table = pl.DataFrame(
    [
        {
            name: str(value) if name == "measure" else None if value is None else float(value)
            for name, value in row.items()
        }
        for row in side_by_side(worths, limits)
    ]
)
with pl.Config(tbl_rows=-1):
    print(table)

# %% [markdown]
# ## Whom the hastiest would have hurt

# %%
hurt = [each for each in worths[0].reclaims if is_wrong(each, limits.within)]
for each in hurt[:10]:
    print(f"{each.workload}: reclaimed {each.at:%d %b %H:%M}, at work again {each.worked_at:%d %b %H:%M}")
print(f"{len(hurt)} of {len(worths[0].reclaims)} reclaims were wrong")
