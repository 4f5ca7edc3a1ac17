"""What the simulated fleet's own GPUs cost: a public list price of a whole machine, and assumed years and power."""

from datetime import UTC, datetime
from decimal import Decimal

import polars as pl

from fleet.amortise import Ownership
from fleet.frames import conform
from fleet.models import MODELS, canonical_model
from fleet.tables import PRICE
from simulator.spec import FleetSpec

# Sourced: a DGX A100 was listed from 200,000 USD for 8 GPUs (press, 14 May 2020) and draws 6.5 kW at most (its data
# sheet). Assumed: that other models cost the same a watt, 5 years of life, 5 % upkeep a year, PUE 1.4, 0.10 USD/kWh.
_CAPEX_PER_GPU, _BOARD_W, _NODE_KW_PER_GPU = Decimal(25_000), Decimal(400), Decimal("0.8125")
_LIFE_YEARS, _UPKEEP, _PUE, _USD_PER_KWH = Decimal(5), Decimal("0.05"), Decimal("1.4"), Decimal("0.10")
# Before any price book begins: a book's price of the same GPUs wins.
_SINCE = datetime(2000, 1, 1, tzinfo=UTC)
_SOURCE = "assumed for the simulated fleet: 25,000 USD a 400 W board, 5 years, 5 % upkeep, PUE 1.4, 0.10 USD/kWh"


def owned_prices(spec: FleetSpec) -> pl.DataFrame:
    """Return rows of the table `price` for the models of the fleet's owned pools."""
    models = {pool.model for cluster in spec.clusters for pool in cluster.pools if pool.capacity_type == "owned"}
    rows = [_row(canonical_model(model)) for model in sorted(models) if canonical_model(model) in MODELS]
    return conform(pl.DataFrame(rows, schema=PRICE.schema()), PRICE, "stored")


def _row(model: str) -> dict[str, object]:
    size = Decimal(MODELS[model].board_power_w) / _BOARD_W
    capex = _CAPEX_PER_GPU * size
    owned = Ownership(capex, _LIFE_YEARS, capex * _UPKEEP, _NODE_KW_PER_GPU * size, _PUE, _USD_PER_KWH)
    return {
        "model": model, "capacity_type": "owned", "region": None, "usd_per_gpu_hour": owned.usd_per_gpu_hour(),
        "source": _SOURCE, "starts_at": _SINCE, "ends_at": None,
    }  # fmt: skip
