"""What an owned GPU costs an hour: its purchase over its life, its upkeep, and the power it draws; exact."""

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal

HOURS_PER_YEAR = Decimal(8766)  # 365.25 days
_MICRO = Decimal("0.000001")


@dataclass(frozen=True, slots=True)
class Ownership:
    """One owned GPU with its share of the node.

    `capex_usd` is spread evenly over `life_years`; `opex_usd_per_year` is upkeep, space and people; `power_kw` is what
    it draws on average, times `pue` (facility over IT power), at `usd_per_kwh`.
    """

    capex_usd: Decimal
    life_years: Decimal
    opex_usd_per_year: Decimal = Decimal(0)
    power_kw: Decimal = Decimal(0)
    pue: Decimal = Decimal(1)
    usd_per_kwh: Decimal = Decimal(0)

    def usd_per_gpu_hour(self) -> Decimal:
        """Return the cost of one hour in USD, rounded to the millionth."""
        capital = self.capex_usd / (self.life_years * HOURS_PER_YEAR)
        upkeep = self.opex_usd_per_year / HOURS_PER_YEAR
        power = self.power_kw * self.pue * self.usd_per_kwh
        return (capital + upkeep + power).quantize(_MICRO, ROUND_HALF_EVEN)
