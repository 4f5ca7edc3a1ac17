"""How the ledger counts, and what it charges beside the hours of GPUs."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from fleet.bounds import require_between, require_positive
from fleet.errors import BadInput


@dataclass(frozen=True, slots=True)
class LedgerPolicy:
    """How the ledger counts.

    An hour with at least `coverage_min` of its samples is fully known; of one with fewer, the missing part is
    category "unknown". A GPU leaves the capacity `gone_after_s` after any source last told of it. `interval_s` None
    infers the sampling interval from the node's own hours. `mig_basis` says by what a MIG device is a part of its
    GPU. `overhead_usd_per_hour` is what each cluster costs beside its nodes. With `split_nodes` the price of a GPU,
    which stands for its share of the node, is divided over GPU, CPU and RAM in the ratio of the three base prices
    (dollars an hour for a GPU, a core, a GiB; OpenCost's defaults). `late_hours` are counted again with each booking,
    so that data that came late becomes a correction.
    """

    coverage_min: float = 0.95
    gone_after_s: float = 86400.0
    interval_s: float | None = None
    mig_basis: Literal["compute", "memory", "max"] = "max"
    overhead_usd_per_hour: Decimal = Decimal(0)
    split_nodes: bool = False
    base_gpu_usd: Decimal = Decimal("0.95")
    base_cpu_usd: Decimal = Decimal("0.031611")
    base_ram_usd: Decimal = Decimal("0.004237")
    late_hours: int = 48

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        require_between("coverage_min", self.coverage_min, 0.0, 1.0)
        require_between("gone_after_s", self.gone_after_s, 0.0, float("inf"))
        require_between("late_hours", self.late_hours, 0, 24 * 400)
        if self.interval_s is not None:
            require_positive("interval_s", self.interval_s)
        for name in ("overhead_usd_per_hour", "base_gpu_usd", "base_cpu_usd", "base_ram_usd"):
            amount = getattr(self, name)
            if not amount.is_finite() or amount < 0:
                message = f"{name}: {amount} is negative or no amount"
                raise BadInput(message, field=name)
